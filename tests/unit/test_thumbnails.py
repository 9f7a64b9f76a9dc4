"""Thumbnails: of hostile files none, of the others small ones, kept within bounds."""

import os
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import GifImagePlugin, Image, WebPImagePlugin

from service import thumbnails
from service.errors import FileGone, NoPicture, NotAnImage, NotFound, NotLinked
from service.thumbnails import Edge, ImageFile, Thumbnails

SMALL = Edge.SMALL


class Files:
    """A stand-in for the database: image i is shown by the file files[i]."""

    version = (1, 1)

    def __init__(self, data, root, files):
        self.data, self.root, self.files = data, root, files
        self.n_queries = 0

    def image_files(self, image_ids):
        self.n_queries += 1
        return [
            {"image_id": i, "path": f"v/{i}.png", "status": "found" if self.files[i] else "missing",
             "root": str(self.root) if self.files[i] else None, "file": self.files[i]}
            for i in image_ids if 0 <= i < len(self.files)
        ]  # fmt: skip


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "root"
    folder.mkdir()
    return folder.resolve()


@pytest.fixture
def one(tmp_path, root):
    """Thumbnails of one image, whose file is `a.png`."""
    return Thumbnails(Files(tmp_path / "data", root, ["a.png"]))


def png_header(width, height):
    """PNG that claims a size and holds a few bytes."""

    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        chunk(*c) for c in ((b"IHDR", head), (b"IDAT", zlib.compress(b"\0" * 99)), (b"IEND", b""))
    )


def encoded(image, kind="PNG", **more):
    out = BytesIO()
    image.save(out, kind, **more)
    return out.getvalue()


def opened(content):
    image = Image.open(BytesIO(content), formats=("WEBP",))
    image.load()
    return image


GREEN = Image.new("RGB", (400, 200), (0, 160, 0))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "none in JPEG"),
        (b"<svg onload=alert(1)>", "none in JPEG"),
        (b"<html><script>", "none in JPEG"),
        (encoded(GREEN)[:-40], None),
        (encoded(GREEN, "JPEG")[:400], None),
        (encoded(GREEN, "WEBP")[:-20], None),
        (encoded(GREEN, "TIFF"), "none in JPEG"),
        (encoded(GREEN, "PPM"), "none in JPEG"),
        (encoded(GREEN, "PDF"), "none in JPEG"),
        (encoded(GREEN, "EPS"), "none in JPEG"),
        (encoded(GREEN, "ICO"), "none in JPEG"),
        (b"8BPS\0\1" + bytes(26), "none in JPEG"),
        (png_header(30_000, 30_000), None),
        (png_header(60_000, 60_000), None),
        (png_header(10_000, 9_000), "more than"),
        (png_header(50, 50), None),
        (b"GIF89a" + b"\xff" * 50, None),
        (b"BM" + b"\xff" * 60, None),
        (b"RIFF\x10\0\0\0WEBPVP8X" + b"\xff" * 20, None),
    ],
)
def test_what_is_no_image_is_said_to_be_none(one, root, content, said):
    (root / "a.png").write_bytes(content)
    with pytest.raises(NotAnImage, match=said):
        one.get(0, SMALL)
    assert not list((root.parent / "data").rglob("*.webp"))


def test_a_large_file_is_not_read(one, root, monkeypatch):
    monkeypatch.setattr(thumbnails, "_FILE_BYTES_MAX", 100)
    (root / "a.png").write_bytes(encoded(GREEN))
    with pytest.raises(NotAnImage, match="bytes, more than 100"):
        one.get(0, SMALL)


@pytest.mark.parametrize("what", ["gone", "link", "pipe", "folder", "link above"])
def test_what_is_no_regular_file_is_not_opened(tmp_path, root, what):
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "s.png").write_bytes(encoded(GREEN))
    name = "a.png"
    if what == "link":
        (root / name).symlink_to(secret / "s.png")
    elif what == "pipe":
        os.mkfifo(root / name)
    elif what == "folder":
        (root / name).mkdir()
    elif what == "link above":
        (root / "below").symlink_to(secret)
        name = "below/s.png"
    with pytest.raises(FileGone, match="cannot be opened"):
        Thumbnails(Files(tmp_path / "data", root, [name])).get(0, SMALL)


@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd", "a\0.png", "./a.png"])
def test_names_that_lead_out_are_not_followed(tmp_path, root, name):
    (tmp_path / "secret.png").write_bytes(encoded(GREEN))
    with pytest.raises(FileGone):
        Thumbnails(Files(tmp_path / "data", root, [name])).get(0, SMALL)


def test_what_is_not_linked_or_not_there_is_said(tmp_path, root):
    found = Thumbnails(Files(tmp_path / "data", root, [None]))
    with pytest.raises(NotLinked, match="gapscope link-images"):
        found.get(0, SMALL)
    with pytest.raises(NotFound, match="id 7"):
        found.get(7, SMALL)
    assert not issubclass(NotFound, NoPicture)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
def test_it_fits_its_square_and_is_never_enlarged(one, root, kind):
    (root / "a.png").write_bytes(encoded(GREEN, kind))  # whatever the name says
    small, large = (opened(one.get(0, edge).content) for edge in Edge)
    assert (small.size, large.size) == ((160, 80), (400, 200))
    assert small.convert("RGB").getpixel((80, 40)) == pytest.approx((0, 160, 0), abs=6)


@pytest.mark.parametrize(
    ("size", "shown"), [((1, 100_000), (1, 160)), ((100_000, 1), (160, 1)), ((1, 1), (1, 1))]
)
def test_a_line_of_pixels_is_shown_within_the_square(one, root, size, shown):
    (root / "a.png").write_bytes(encoded(Image.new("RGB", size, (0, 160, 0))))
    assert opened(one.get(0, SMALL).content).size == shown


@pytest.mark.parametrize("kind", ["GIF", "WEBP"])
def test_of_a_thousand_frames_the_first_is_decoded(one, root, kind, monkeypatch):
    first, *others = [Image.new("RGB", (8, 4), (0, 160, n % 2 * 160)) for n in range(1_000)]
    (root / "a.png").write_bytes(encoded(first, kind, save_all=True, append_images=others))
    with Image.open(root / "a.png") as image:
        assert image.n_frames == 1_000
    plugin = {"GIF": GifImagePlugin.GifImageFile, "WEBP": WebPImagePlugin.WebPImageFile}[kind]
    monkeypatch.setattr(plugin, "seek", lambda *_asked: pytest.fail("another frame was read"))
    found = opened(one.get(0, SMALL).content)
    assert (found.n_frames, found.size) == (1, (8, 4))
    assert found.convert("RGB").getpixel((4, 2)) == pytest.approx((0, 160, 0), abs=6)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16", "YCbCr"])
def test_every_kind_of_pixel_is_shown(one, root, mode):
    kind = {"CMYK": "JPEG", "YCbCr": "JPEG"}.get(mode, "PNG")
    image = Image.new("L", (40, 40), 200)
    if mode == "I;16":
        image = Image.frombytes("I;16", (40, 40), struct.pack("<H", 200 << 8) * 1600)
    (root / "a.png").write_bytes(encoded(image if mode == "I;16" else image.convert(mode), kind))
    grey = opened(one.get(0, SMALL).content).convert("L").getpixel((20, 20))
    assert grey == pytest.approx(255 if mode == "1" else 200, abs=8 if mode != "1" else 255)


def test_the_cameras_orientation_is_applied_and_no_metadata_passed_on(one, root):
    image = Image.new("RGB", (400, 200), (250, 0, 0))
    image.paste((0, 0, 250), (0, 0, 100, 200))  # the left is blue
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned clockwise: the left is the top
    exif[0x010E] = "secret words"
    content = encoded(image, "JPEG", exif=exif, icc_profile=b"secret profile", comment=b"secret")
    (root / "a.png").write_bytes(content)
    found = one.get(0, SMALL).content
    shown = opened(found)
    assert shown.size == (80, 160)
    red, _, blue = shown.convert("RGB").getpixel((40, 10))
    assert blue > red
    assert b"secret" not in found
    assert b"EXIF" not in found


def test_a_tiny_image_keeps_its_pixels(one, root):
    image = Image.frombytes("RGB", (8, 8), bytes(range(192)))
    (root / "a.png").write_bytes(encoded(image))
    assert opened(one.get(0, SMALL).content).convert("RGB").tobytes() == image.tobytes()


def test_it_is_made_once_and_anew_for_another_file(one, root, monkeypatch):
    made = []
    real = thumbnails._made
    monkeypatch.setattr(thumbnails, "_made", lambda *a: made.append(a) or real(*a))
    (root / "a.png").write_bytes(encoded(GREEN))
    first, again = one.get(0, SMALL), one.get(0, SMALL)
    assert first == again
    assert len(made) == 1
    (root / "a.png").write_bytes(encoded(GREEN.rotate(90, expand=True)))
    other = one.get(0, SMALL)
    assert other.etag != first.etag
    assert len(made) == 2
    # what a fault of the disk left half written is none
    (kept,) = [f for f in (root.parent / "data").rglob("*.webp") if f.stem in other.etag]
    kept.write_bytes(b"")
    assert one.get(0, SMALL) == other
    assert len(made) == 3


def test_the_cache_keeps_what_is_used_within_its_bound(tmp_path, root):
    noise = [Image.frombytes("RGB", (60, 60), os.urandom(10800)) for _ in range(8)]
    names = [f"{i}.png" for i in range(8)]
    for name, image in zip(names, noise, strict=True):
        (root / name).write_bytes(encoded(image))
    size = 11_000
    found = Thumbnails(Files(tmp_path / "data", root, names), max_bytes=5 * size)
    etags = []
    for i in range(8):
        etags.append(found.get(i, SMALL).etag.strip('"'))
        for k, etag in enumerate(etags):  # clocks are coarse: give each its own time
            for file in (tmp_path / "data").rglob(f"{etag}.webp"):
                os.utime(file, (k + 1, k + 1))
        found.get(0, SMALL)  # looked at again and again
        kept = list((tmp_path / "data").rglob("*.webp"))
        assert sum(file.stat().st_size for file in kept) <= 5 * size
    stems = {file.stem for file in kept}
    assert {etags[0], etags[7]} <= stems
    assert etags[1] not in stems


def test_a_folder_that_cannot_be_written_costs_the_cache_alone(one, root):
    (root / "a.png").write_bytes(encoded(GREEN))
    (root.parent / "data").mkdir()
    (root.parent / "data" / "thumbnails").write_bytes(b"a file in its place")
    assert opened(one.get(0, SMALL).content).size == (160, 80)


def test_requests_at_once_get_the_same(tmp_path, root, monkeypatch):
    made = []
    real = thumbnails._made
    monkeypatch.setattr(thumbnails, "_made", lambda *a: made.append(a) or real(*a))
    names = [f"{i}.png" for i in range(4)]
    for i, name in enumerate(names):
        (root / name).write_bytes(encoded(Image.new("RGB", (300, 300), (60 * i, 0, 0))))
    found = Thumbnails(Files(tmp_path / "data", root, names))
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda i: found.get(i % 4, SMALL), range(80)))
    assert len({t.etag for t in got}) == len(made) == 4
    assert all(t == got[i % 4] for i, t in enumerate(got))
    assert not list((tmp_path / "data").rglob("*.new"))


def test_the_files_of_a_page_are_asked_for_once(tmp_path, root):
    database = Files(tmp_path / "data", root, ["a.png", None])
    (root / "a.png").write_bytes(encoded(GREEN))
    found = Thumbnails(database)
    assert found.files([0, 1, 5]) == {
        0: ImageFile("v/0.png", "found", str(root), "a.png"),
        1: ImageFile("v/1.png", "missing", None, None),
    }
    found.get(0, SMALL)
    assert database.n_queries == 1
    linked = tmp_path / "data" / "images" / "linked.parquet"
    linked.parent.mkdir(exist_ok=True)
    pq.write_table(pa.table({"a": [1]}), linked)  # linked anew
    found.get(0, SMALL)
    assert database.n_queries == 2
