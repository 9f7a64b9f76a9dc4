"""Statistics of an image against their definitions, and files that are no images."""

import io
import json
import warnings

import numpy as np
import pytest
from PIL import Image

from etl import image_statistics
from etl.image_statistics import SIDE_PX, STATISTICS, measure_file, statistics_of


def noise(height=SIDE_PX, width=SIDE_PX, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def test_the_definitions_by_hand():
    """At 256 × 256 nothing is resized, so that every number follows from the pixels."""
    pixels = noise()
    found = statistics_of(Image.fromarray(pixels), 7)
    assert tuple(found) == STATISTICS
    r, g, b = (pixels[..., c].astype(int) for c in range(3))
    luma = (19595 * r + 38470 * g + 7471 * b + 0x8000) >> 16  # BT.601 in 16-bit integers
    assert found["brightness"] == pytest.approx(luma.mean(), abs=1e-9)
    assert found["contrast"] == pytest.approx(luma.std(), abs=1e-9)
    padded = np.pad(luma, 1, mode="symmetric")
    laplacian = (
        padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:] - 4 * luma
    )
    assert found["sharpness"] == pytest.approx(laplacian.var(), rel=1e-12)
    share = np.bincount(luma.ravel(), minlength=256) / luma.size
    share = share[share > 0]
    assert found["entropy"] == pytest.approx(-(share * np.log2(share)).sum(), rel=1e-6)
    rg, yb = r - g, 0.5 * (r + g) - b
    colourfulness = np.sqrt(rg.var() + yb.var()) + 0.3 * np.sqrt(rg.mean() ** 2 + yb.mean() ** 2)
    assert found["colourfulness"] == pytest.approx(colourfulness)


def test_size_is_the_files_own_and_the_rest_is_measured_at_one_size():
    small = Image.fromarray(noise(30, 60))
    large = small.resize((600, 300), Image.Resampling.BICUBIC)
    a, b = statistics_of(small, 1), statistics_of(large, 2)
    assert (a["width_px"], a["height_px"], a["aspect"], a["file_bytes"]) == (60, 30, 2.0, 1)
    assert (b["width_px"], b["height_px"], b["aspect"], b["file_bytes"]) == (600, 300, 2.0, 2)
    for name in ("brightness", "contrast", "colourfulness", "entropy"):
        assert a[name] == pytest.approx(b[name], rel=0.05)
    assert 0.5 < a["sharpness"] / b["sharpness"] < 2


def test_a_blurred_image_is_less_sharp_and_a_grey_one_has_no_colour():
    sharp = Image.fromarray(noise())
    blurred = sharp.resize((32, 32), Image.Resampling.BOX).resize(sharp.size)
    assert statistics_of(blurred, 0)["sharpness"] < statistics_of(sharp, 0)["sharpness"] / 100
    flat = statistics_of(Image.new("L", (5, 9), 100), 0)
    assert flat["brightness"] == 100
    assert [flat[n] for n in ("contrast", "sharpness", "colourfulness", "entropy")] == [0, 0, 0, 0]


def test_every_kind_of_pixel_is_measured_or_refused_in_words():
    for mode in ("1", "L", "P", "LA", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "I;16"):
        assert statistics_of(Image.new(mode, (4, 3)), 0)["width_px"] == 4
    half = Image.fromarray(np.full((4, 4), 0x8000, np.uint16))
    assert statistics_of(half, 0)["brightness"] == 128
    for mode in ("I", "F"):
        with pytest.raises(ValueError, match="say no scale"):
            statistics_of(Image.new(mode, (4, 3)), 0)


@pytest.mark.parametrize("size", [(1, 1), (1, 4000), (4000, 1)])
def test_thin_images_stay_small(size):
    found = statistics_of(Image.new("RGB", size, (255, 0, 0)), 0)
    assert all(np.isfinite(list(found.values())))


def test_too_many_pixels_are_an_error(tmp_path, monkeypatch):
    Image.new("L", (20, 20)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300)
    assert "more than 300" in str(measure_file(str(tmp_path), "a.png"))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert "decompression bomb" in str(measure_file(str(tmp_path), "a.png"))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"])
def test_a_damaged_file_is_measured_or_named_never_a_crash(tmp_path, kind):
    file = tmp_path / "a.img"
    Image.fromarray(noise(20, 30)).save(file, format=kind)
    whole = file.read_bytes()
    assert isinstance(measure_file(str(tmp_path), "a.img"), dict)
    rng = np.random.default_rng(0)
    for _ in range(60):
        broken = bytearray(whole[: rng.integers(1, len(whole) + 1)])
        for place in rng.integers(0, len(broken), 3):
            broken[place] = rng.integers(0, 256)
        file.write_bytes(broken)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = measure_file(str(tmp_path), "a.img")
        assert isinstance(found, dict) or found


def test_each_line_that_asks_is_answered_with_a_line(tmp_path, monkeypatch, capsys):
    Image.new("L", (20, 10)).save(tmp_path / "a.png")
    asked = [[(str(tmp_path), "a.png"), (str(tmp_path), "b.png")], []]
    lines = "".join(json.dumps(images) + "\n" for images in asked)
    monkeypatch.setattr("sys.stdin", io.StringIO(lines))
    image_statistics.main()
    (found, gone), nothing = map(json.loads, capsys.readouterr().out.splitlines())
    assert (found["width_px"], nothing) == (20, [])
    assert "No such file" in gone


def test_other_files_under_an_images_name_are_named(tmp_path):
    for content in (b"", b"hello", b"%PDF-1.4", b"<svg/>", b"%!PS-Adobe-3.0 EPSF-3.0\n"):
        (tmp_path / "a.png").write_bytes(content)
        assert "not an image" in str(measure_file(str(tmp_path), "a.png"))
    assert "No such file" in str(measure_file(str(tmp_path), "b.png"))
