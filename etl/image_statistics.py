"""Plain statistics of each image file, attached as annotations like any other.

Pixels are read by Pillow. What depends on resolution is measured at one size: the image resized
bicubically, aspect kept, to an area of 256 × 256 pixels. Luma is ITU-R BT.601's, 0 to 255.

`python -m etl.image_statistics` answers each line of input, a JSON list of [root, file], with a
line of output, the list of what `measure_file` returns: `etl.measuring` keeps such processes busy.
"""

import json
import math
import os
import struct
import sys
import warnings
import zlib

import numpy as np
from PIL import Image, UnidentifiedImageError
from scipy import ndimage

from etl.images import open_image

STATISTICS = (
    "width_px", "height_px", "aspect", "file_bytes",
    "brightness", "contrast", "sharpness", "colourfulness", "entropy",
)  # fmt: skip
SIDE_PX = 256
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
# what Pillow's readers raise for files that are broken, cut short or too large
_BROKEN = (
    OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, OverflowError,
    ZeroDivisionError, MemoryError, struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip


def statistics_of(image: Image.Image, n_bytes: int) -> dict[str, float]:
    """Statistics of one opened image.

    - `width_px`, `height_px`, `aspect` (width over height) and `file_bytes`: the file's own. The
      orientation that a camera notes beside the pixels is not applied: networks' loaders do not.
    - `brightness`: mean luma. `contrast`: its standard deviation (RMS contrast, Peli 1990).
    - `sharpness`: variance of the Laplacian of the luma (Pech-Pacheco et al. 2000), SciPy's
      4-neighbour Laplacian with reflected edges.
    - `colourfulness`: M3 of Hasler and Süsstrunk (2003), from rg = R − G and yb = (R + G) / 2 − B:
      √(σ²rg + σ²yb) + .3 √(μ²rg + μ²yb); 0 for grey images.
    - `entropy`: of the luma's histogram, Pillow's `Image.entropy`, bits, 0 to 8.

    Brightness, contrast, sharpness, colourfulness and entropy are of the image at an area of
    256 × 256 pixels, in grey values from 0 to 255.

    Parameters
    ----------
    n_bytes
        Size of its file.

    Raises
    ------
    ValueError
        More pixels than Pillow's MAX_IMAGE_PIXELS, or a kind of pixel without a scale.

    Examples
    --------
    >>> half = Image.new("L", (2, 4), 0)
    >>> half.paste(255, (0, 0, 1, 4))
    >>> found = statistics_of(half, 99)
    >>> found["aspect"], found["file_bytes"], round(found["brightness"]), found["colourfulness"]
    (0.5, 99, 128, 0.0)
    """
    width, height = image.size
    if Image.MAX_IMAGE_PIXELS is not None and width * height > Image.MAX_IMAGE_PIXELS:
        raise ValueError(f"{width} × {height} pixels, more than {Image.MAX_IMAGE_PIXELS}")
    if image.mode in ("I", "F"):
        raise ValueError(f"pixels of mode {image.mode}, which say no scale")
    if image.mode.startswith("I;16"):  # Pillow would cut 16 bits off at 255, not scale them
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    scale = SIDE_PX / math.sqrt(width * height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    resized = image.convert("RGB").resize(size, Image.Resampling.BICUBIC)
    luma = resized.convert("L")
    grey = np.asarray(luma, np.float64)
    red, green, blue = np.moveaxis(np.asarray(resized, np.float64), -1, 0)
    rg, yb = red - green, (red + green) / 2 - blue
    spread = math.hypot(rg.std(), yb.std())
    return {
        "width_px": width,
        "height_px": height,
        "aspect": width / height,
        "file_bytes": n_bytes,
        "brightness": float(grey.mean()),
        "contrast": float(grey.std()),
        "sharpness": float(ndimage.laplace(grey, mode="reflect").var()),
        "colourfulness": spread + 0.3 * math.hypot(rg.mean(), yb.mean()),
        "entropy": max(0.0, float(luma.entropy())),
    }


def measure_file(root: str, file: str) -> dict[str, float] | str:
    """Statistics of one linked image file, or why it cannot be read."""
    try:
        with open_image(root, file) as stream:
            n_bytes = os.fstat(stream.fileno()).st_size
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # odd metadata; the number of pixels is checked
                with Image.open(stream, formats=_FORMATS) as image:
                    return statistics_of(image, n_bytes)
    except UnidentifiedImageError:
        return f"not an image that is read here ({', '.join(_FORMATS)})"
    except _BROKEN as error:
        return str(error).splitlines()[0][:200] if str(error) else type(error).__name__


def main() -> None:
    """Answer line by line until the input ends."""
    for line in sys.stdin:
        answer = [measure_file(root, file) for root, file in json.loads(line)]
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
