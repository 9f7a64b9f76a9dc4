"""Thumbnails of linked images: made once from files that are not trusted, kept within bounds.

    thumbnails/<ab>/<digest>.webp    the digest tells file, size, time, edge and this module's form

A file is opened by `etl.images.open_image` alone, decoded by Pillow in a few known formats up to a
number of pixels, and encoded anew: no byte of it, and nothing that is written into it beside the
pixels, is passed on.
"""

import hashlib
import math
import os
import threading
import time
import uuid
import warnings
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from etl.images import open_image
from etl.sidecar import IMAGES, LINKED
from service.backbones import UNREADABLE
from service.database import Database
from service.errors import FileGone, NotAnImage, NotFound, NotLinked

TYPE = "image/webp"
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
_PIXELS_MAX = 80_000_000  # ImageNet's largest has 61 million
_FILE_BYTES_MAX = 128 << 20  # WebP is read whole before its size is known
_CACHE_BYTES_MAX = 256 << 20
_KEPT_SHARE = 0.8  # after a sweep, so that sweeps are rare
_FILES_REMEMBERED = 20_000
_QUALITY = 80
_TINY_PX = 64  # the page enlarges them, and what is lost would show
_FORM = 1  # raise it whenever the same file gives another thumbnail
_FOLDER = "thumbnails"


class Edge(IntEnum):
    """Larger sides of thumbnails, in pixels."""

    SMALL = 160
    LARGE = 640


@dataclass(frozen=True)
class ImageFile:
    """Which file shows an image.

    Attributes
    ----------
    path : as the feature file has it
    status : found; missing: none has this name; ambiguous: several fit
    """

    path: str
    status: Literal["found", "missing", "ambiguous"]
    root: str | None
    file: str | None


@dataclass(frozen=True)
class Thumbnail:
    """A WebP image, and what tells it from every other."""

    content: bytes
    etag: str


class Thumbnails:
    """The thumbnails of one data folder."""

    def __init__(self, database: Database, *, max_bytes: int = _CACHE_BYTES_MAX) -> None:
        self._database, self._max_bytes = database, max_bytes
        self._folder = database.data / _FOLDER
        self._remembering, self._decoding = threading.Lock(), threading.Lock()
        self._state: object = None
        self._files: dict[int, ImageFile] = {}
        self._n_bytes: int | None = None  # in the cache; counted when first written to

    def files(self, image_ids: Collection[int]) -> dict[int, ImageFile]:
        """Return which files show some images; ids that are none are left out.

        All in one query, and remembered: the thumbnails of a page are asked for right after it.
        """
        state = (self._database.version, _written_at(self._database.data / IMAGES / LINKED))
        with self._remembering:
            if state != self._state or len(self._files) > _FILES_REMEMBERED:
                self._state, self._files = state, {}
            known = {i: self._files[i] for i in image_ids if i in self._files}
        unknown = [i for i in image_ids if i not in known]
        if not unknown:
            return known
        found = {
            row["image_id"]: ImageFile(row["path"], row["status"], row["root"], row["file"])
            for row in self._database.image_files(unknown)
        }
        with self._remembering:
            if state == self._state:
                self._files |= found
        return known | found

    def get(self, image_id: int, edge_px: int) -> Thumbnail:
        """Return an image within a square, its larger side at most `edge_px`; never enlarged.

        Raises
        ------
        NotFound, NotLinked, FileGone, NotAnImage
        """
        linked = self.files([image_id]).get(image_id)
        if linked is None:
            raise NotFound(f"wanted an image of the database, got the id {image_id}.")
        if linked.root is None or linked.file is None:
            said = {
                "missing": "no file of its name was found. Name the folder with the images: "
                "gapscope link-images FOLDER",
                "ambiguous": "several files fit its name, and none was taken. Link a folder in "
                "which one fits: gapscope link-images FOLDER",
            }[linked.status]
            raise NotLinked(f"wanted the file of {linked.path!r}, but {said}.")
        try:
            stream = open_image(linked.root, linked.file)
        except OSError as error:
            raise FileGone(
                f"wanted the file {linked.file!r}, but it cannot be opened: "
                f"{error.strerror or error}. Put it back, or link the folder again: gapscope "
                "link-images FOLDER."
            ) from error
        with stream:
            key = _key(linked.root, linked.file, os.fstat(stream.fileno()), edge_px)
            kept = self._folder / key[:2] / f"{key}.webp"
            content = _read(kept)
            if content is None:
                with self._decoding:  # one at a time: large images take memory
                    content = _read(kept)
                    if content is None:
                        content = _made(stream, linked.file, edge_px)
                        self._keep(kept, content)
        return Thumbnail(content, f'"{key}"')

    def _keep(self, file: Path, content: bytes) -> None:
        """Write a thumbnail whole, and sweep where there are too many bytes."""
        try:
            if self._n_bytes is None:
                self._n_bytes = sum(size for _, size, _ in self._kept())
            file.parent.mkdir(parents=True, exist_ok=True)
            fresh = file.with_name(f".{uuid.uuid4().hex}.new")
            try:
                fresh.write_bytes(content)
                fresh.replace(file)
            finally:
                fresh.unlink(missing_ok=True)
            self._n_bytes += len(content)
            if self._n_bytes > self._max_bytes:
                self._sweep()
        except OSError:  # a full disk: it is made anew the next time
            self._n_bytes = None

    def _sweep(self) -> None:
        """Remove those that nobody has asked for the longest."""
        kept = sorted(self._kept())
        n_bytes = sum(size for _, size, _ in kept)
        for _, size, file in kept:
            if n_bytes <= _KEPT_SHARE * self._max_bytes:
                break
            Path(file).unlink(missing_ok=True)
            n_bytes -= size
        self._n_bytes = n_bytes

    def _kept(self) -> list[tuple[float, int, str]]:
        """Last use, size and place of every file in the cache."""
        found = []
        for folder, _, files in os.walk(self._folder):
            for name in files:
                stat = (Path(folder) / name).stat()
                found.append((stat.st_mtime, stat.st_size, f"{folder}/{name}"))
        return found


def _key(root: str, file: str, stat: os.stat_result, edge_px: int) -> str:
    said = (_FORM, root, file, stat.st_size, stat.st_mtime_ns, edge_px)
    return hashlib.sha256(repr(said).encode()).hexdigest()[:40]


def _read(file: Path) -> bytes | None:
    """Return a kept thumbnail, and note its use; None where there is none, or not a whole one."""
    try:
        content = file.read_bytes()
    except OSError:
        return None
    if len(content) != int.from_bytes(content[4:8], "little") + 8:  # as RIFF says of itself
        return None
    with suppress(OSError):
        os.utime(file, (time.time(), time.time()))
    return content


def _made(stream: BinaryIO, file: str, edge_px: int) -> bytes:
    """Decode an image and encode it anew.

    Raises
    ------
    NotAnImage
    """
    try:
        n_bytes = os.fstat(stream.fileno()).st_size
        if n_bytes > _FILE_BYTES_MAX:
            raise ValueError(f"{n_bytes:,} bytes, more than {_FILE_BYTES_MAX:,}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd metadata; the number of pixels is checked
            with Image.open(stream, formats=_FORMATS) as image:
                if math.prod(image.size) > _PIXELS_MAX:
                    raise ValueError(
                        f"{image.width:,} × {image.height:,} pixels, more than {_PIXELS_MAX:,}"
                    )
                return _encoded(image, edge_px)
    except UNREADABLE as error:
        if isinstance(error, UnidentifiedImageError):  # whose words are of Python's objects
            reason = f"none in {', '.join(_FORMATS)}"
        else:
            reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise NotAnImage(
            f"wanted an image in the file {file!r}, got: {reason}. Put the image there."
        ) from error


def _encoded(image: Image.Image, edge_px: int) -> bytes:
    if image.mode.startswith("I;16"):  # Pillow would cut 16 bits off at 255, not scale them
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode not in ("L", "RGB", "CMYK"):  # JPEG's own are decoded at a reduced size
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    image.thumbnail((edge_px, edge_px))
    with suppress(*UNREADABLE):  # a damaged note of the orientation spoils no picture
        image = ImageOps.exif_transpose(image)
    image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    image.info.clear()  # some versions of Pillow write profiles and notes from here
    encoded = BytesIO()
    is_tiny = max(image.size) <= _TINY_PX
    image.save(encoded, "WEBP", quality=_QUALITY, method=2, lossless=is_tiny)
    return encoded.getvalue()


def _written_at(file: Path) -> tuple[int, int]:
    try:
        found = file.stat()
    except FileNotFoundError:
        return 0, 0
    return found.st_ino, found.st_mtime_ns
