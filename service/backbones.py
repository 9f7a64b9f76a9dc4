"""How the features of each backbone were made, and the network that makes them of one more image.

    backbones/<backbone>.json   for each split: digest of its feature file, and how that was made

`gapscope extract` and the demo write it, and a load takes it from the `.extraction.json` beside a
feature file. The digest ties it to the features that a model learnt from: other features may be
loaded under the same name.
"""

import json
import math
import struct
import warnings
import zlib
from collections.abc import Callable, Collection
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.parse import quote

import numpy as np
from PIL import Image, UnidentifiedImageError

from etl.sidecar import replace_whole
from models.backbones import Transform, features_of_images, open_backbone, open_lite0
from models.backbones.layers import PRE_LOGITS
from models.errors import BackboneError
from service.database import Database
from service.errors import BackboneNotHere, UnreadableImage

FOLDER = "backbones"
RECORD_ENDING = ".extraction.json"
TIMM, GREY, GREY_LITE0 = "timm", "grey", "grey_lite0"
FORMATS = ("JPEG", "PNG", "WEBP")
# what Pillow's readers raise on files that are no images, cut, or made to harm
UNREADABLE = (
    OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, OverflowError,
    ZeroDivisionError, MemoryError, struct.error, zlib.error,
    Image.DecompressionBombError, Image.DecompressionBombWarning,
)  # fmt: skip
_SIDES_MAX = 100
_INSTEAD = "or send its features: POST /predict."
_Features = Callable[[Image.Image], np.ndarray]


def decoded(content: bytes) -> Image.Image:
    """Return the first frame of an image in JPEG, PNG or WebP.

    Raises
    ------
    UnreadableImage
        Nothing, another format, a damaged file, a strip (see `check_sides`), or more pixels than
        Pillow's MAX_IMAGE_PIXELS.
    """
    if not content:
        raise UnreadableImage(
            f"wanted an image in {', '.join(FORMATS)}, got an empty body. Send the bytes of its "
            "file, with curl: --data-binary @FILE."
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd metadata; the number of pixels is checked
            image = Image.open(BytesIO(content), formats=FORMATS)
        if math.prod(image.size) > (Image.MAX_IMAGE_PIXELS or math.inf):
            raise ValueError(f"{image.width} × {image.height} pixels")
        check_sides(image)
        image.load()
    except UNREADABLE as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        if isinstance(error, UnidentifiedImageError):  # whose words are of Python's objects
            reason = f"{len(content):,} bytes that are none of these"
        raise UnreadableImage(
            f"wanted an image in {', '.join(FORMATS)} of at most {Image.MAX_IMAGE_PIXELS:,} "
            f"pixels, got: {reason}. Send another one."
        ) from error
    return image


def check_sides(image: Image.Image) -> None:
    """Refuse a strip: networks scale the shorter side to theirs, which makes gigabytes of a line.

    Raises
    ------
    ValueError
    """
    if max(image.size) > _SIDES_MAX * min(image.size):
        size = f"{image.width} × {image.height} pixels"
        raise ValueError(f"{size}, one side more than {_SIDES_MAX} times the other")


class Backbones:
    """The backbones of one data folder."""

    def __init__(self, data: Path) -> None:
        self._data = data
        self._lock = Lock()  # one image at a time: networks share the cores, and the memory
        self._open: tuple[dict[str, Any], _Features] | None = None

    def record(self, backbone: str, split: str, sha256: str, how: dict[str, Any]) -> None:
        """Store how the features in the file of a digest were made.

        Parameters
        ----------
        how
            `{"kind": "grey", "size_px"}`: grey values of the image at this size;
            `{"kind": "grey_lite0", "size_px", "weights_sha256"}`: what tf_efficientnet_lite0 says
            of them; or `{"kind": "timm", …}` with the record of an extraction.
        """
        splits = {**self._splits(backbone), split: {"sha256": sha256, "how": how}}
        text = json.dumps({"backbone": backbone, "splits": splits}, indent=1)
        replace_whole(self._file(backbone), lambda fresh: fresh.write_text(text, encoding="utf-8"))

    def record_extraction(self, record: Path, sha256: str) -> None:
        """Store what an extraction says of the features in the file of a digest."""
        said = json.loads(record.read_text(encoding="utf-8"))
        keep = ("settings", "weights", "weights_file", "random_seed")
        how = {"kind": TIMM, **{name: said.get(name) for name in keep}}
        self.record(said["backbone"], said["split"], sha256, how)

    def record_loaded(self) -> None:
        """Take over what extractions say that lie beside the feature files that are loaded."""
        parts = Database(self._data).rows(
            "select split, backbone, file, sha256 from load_report where backbone is not null"
        )
        for part in parts:
            split, backbone = part["split"], part["backbone"]
            beside = Path(part["file"]).with_name(f"{split}_{backbone}{RECORD_ENDING}")
            known = self._splits(backbone).get(split, {}).get("sha256")
            if known != part["sha256"] and beside.is_file():
                self.record_extraction(beside, part["sha256"])

    def features(
        self, image: Image.Image, backbone: str, train_sha256: Collection[str]
    ) -> np.ndarray:
        """Features of one image, made as those were that a model learnt from, float32 [1, d].

        The network is kept until another one is asked for.

        Parameters
        ----------
        train_sha256
            Digests of the feature files that the model learnt from.

        Raises
        ------
        BackboneNotHere
            Nothing says how they were made, or the network cannot be run here.
        """
        with self._lock:
            how = self._how(backbone, train_sha256)
            if self._open is None or self._open[0] != how:
                self._open = None  # two networks at once may be too many
                self._open = how, _opened(backbone, how)
            return np.asarray(self._open[1](image))

    def _how(self, backbone: str, train_sha256: Collection[str]) -> dict[str, Any]:
        for look_beside in (False, True):
            if look_beside and Database(self._data).exists:
                self.record_loaded()
            for split in self._splits(backbone).values():
                if split["sha256"] in train_sha256:
                    return dict(split["how"])
        raise BackboneNotHere(
            f"wanted to make features of {backbone!r} as those were made that the model learnt "
            "from, but nothing says how: there is no .extraction.json beside their file. Extract "
            f"them with gapscope extract, load them and train, {_INSTEAD}"
        )

    def _splits(self, backbone: str) -> dict[str, Any]:
        try:
            return dict(json.loads(self._file(backbone).read_text(encoding="utf-8"))["splits"])
        except (OSError, ValueError, KeyError):  # none yet, or damaged: as if there were none
            return {}

    def _file(self, backbone: str) -> Path:
        return self._data / FOLDER / f"{quote(backbone, safe='')}.json"


def grey_values(image: Image.Image, size_px: int) -> np.ndarray:
    """Grey values of an image at size_px × size_px, uint8; one of that size stays as it is."""
    size = (size_px, size_px)
    return np.asarray(image.convert("L").resize(size, Image.Resampling.BICUBIC))


def _opened(backbone: str, how: dict[str, Any]) -> _Features:
    """Return what turns an image into features.

    Raises
    ------
    BackboneNotHere
    """
    kind = how.get("kind")
    if kind == GREY:
        return lambda image: grey_values(image, how["size_px"]).reshape(1, -1).astype(np.float32)
    try:
        if kind == GREY_LITE0:
            lite0 = open_lite0()
            _check_weights(backbone, how["weights_sha256"], lite0.weights.digest)
            return lambda image: features_of_images(
                lite0, [np.asarray(image.convert("L"))], size_px=how["size_px"]
            )
        settings = how["settings"]
        file = how.get("weights_file")
        network = open_backbone(
            settings["model"],
            weights=None if file is None else Path(file),
            random_seed=how.get("random_seed"),
            layer=None if settings["layer"] == PRE_LOGITS else settings["layer"],
            autocast=settings["dtype"] != "float32",
            may_fetch=False,  # gigabytes, while someone waits for the answer
        )
    except BackboneError as error:
        raise BackboneNotHere(
            f"wanted to run the network behind {backbone!r}, but it cannot be had here: {error} "
            f"Put its weights there, {_INSTEAD}"
        ) from error
    _check_weights(backbone, settings["weights_sha256"], network.weights.digest)
    config = settings["transform"]
    transform = Transform({k: tuple(v) if isinstance(v, list) else v for k, v in config.items()})
    network = replace(network, transform=transform)
    return lambda image: network.features(network.transform(image.convert("RGB"))[None])


def _check_weights(backbone: str, wanted: str, found: str) -> None:
    if found != wanted:
        raise BackboneNotHere(
            f"wanted the weights with which the features of {backbone!r} were made (sha256 "
            f"{wanted[:12]}…), got others ({found[:12]}…). Put those back, extract the features "
            f"anew and train, {_INSTEAD}"
        )
