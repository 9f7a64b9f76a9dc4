"""A feature file as one stream of bytes, whatever it is packed in, read once from front to back.

Nothing is ever unpacked to disk: members of an archive are read where they lie, so no name inside
an archive can choose a place, and a bomb costs no room. The digest is of the file as it lies on
disk, packed or not.
"""

import gzip
import hashlib
import io
import os
import stat
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from etl.errors import (
    ArchiveBomb,
    DamagedArchive,
    DiskFault,
    EmptyFile,
    NotCsv,
    SourceChanged,
    SourceNotFound,
)

if sys.version_info >= (3, 14):  # pragma: no cover (which of the two, Python's version decides)
    from compression import zstd
else:  # pragma: no cover (as above)
    from backports import zstd

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")
# bytes unpacked for each byte of the file; features written as text unpack to 2 to 4
RATIO_MAX = 200
_RATIO_FROM = 16 << 20  # a small file cannot hurt, and a header may repeat itself a lot
_BUFFER_BYTES = 1 << 20
_MAGIC = {
    ".gz": (b"\x1f\x8b",),
    ".tgz": (b"\x1f\x8b",),
    ".zst": (b"\x28\xb5\x2f\xfd",),
    ".zip": (b"PK\x03\x04", b"PK\x05\x06"),
    ".npz": (b"PK\x03\x04", b"PK\x05\x06"),
    ".npy": (b"\x93NUMPY",),
    ".parquet": (b"PAR1",),
}
_DAMAGE = (
    EOFError,
    gzip.BadGzipFile,
    zlib.error,
    zstd.ZstdError,
    zipfile.BadZipFile,
    tarfile.TarError,
    RuntimeError,  # zipfile: a method of packing that it does not know
    KeyError,  # the member is gone: another archive stands there since it was listed
)


class FileAtRest:
    """A regular file, open for reading, that must not change until it was read.

    Raises
    ------
    SourceNotFound, EmptyFile, NotCsv, DiskFault
        No such file, not readable, or a folder, a device, a pipe; no bytes, or another kind of
        file than its name says.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        try:
            # a FIFO must not hang the load, and what was checked must be what is read
            descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK)
        except OSError as error:
            raise SourceNotFound(
                "a readable file", error.strerror or "an error", "Check the path.", file=file
            ) from error
        self._before = os.fstat(descriptor)
        if not stat.S_ISREG(self._before.st_mode):
            os.close(descriptor)
            raise SourceNotFound(
                "a regular file", "a folder or a device", "Name the file itself.", file=file
            )
        self.stream = cast("io.BufferedReader", os.fdopen(descriptor, "rb", _BUFFER_BYTES))
        try:
            self._check_magic()
        except BaseException:
            self.close()
            raise

    @property
    def n_bytes(self) -> int:
        """Size when it was opened."""
        return self._before.st_size

    @property
    def mtime_ns(self) -> int:
        """Time of its last change when it was opened."""
        return self._before.st_mtime_ns

    def digest(self) -> str:
        """Return the SHA-256 of all its bytes, read for this."""
        self.stream.seek(0)
        return hashlib.file_digest(self.stream, "sha256").hexdigest()

    def check_unchanged(self) -> None:
        """Refuse a file that changed since it was opened.

        Raises
        ------
        SourceChanged
        """
        after = os.fstat(self.stream.fileno())
        if (after.st_size, after.st_mtime_ns) != (self.n_bytes, self.mtime_ns):
            raise SourceChanged(
                "a file at rest",
                f"one that went from {self.n_bytes} to {after.st_size} bytes while it was read",
                "Load it again when it is complete.",
                file=self.file,
            )

    def close(self) -> None:
        """Close the file."""
        self.stream.close()

    def _check_magic(self) -> None:
        wanted = _MAGIC.get(self.file.suffix.lower())
        if wanted is None:
            return
        with _sound(str(self.file)):
            first = self.stream.peek(8)[:8]
        if not first:
            raise EmptyFile("a feature file", "no bytes", "Export it again.", file=self.file)
        if not first.startswith(wanted):
            raise NotCsv(
                f"a {self.file.suffix} file",
                f"another kind of file: its first bytes are {first!r}",
                "Give it the name of its kind, or write it again.",
                file=self.file,
            )


class _Counted(io.RawIOBase):
    """Reads through, counts and digests."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._sha256 = hashlib.sha256()
        self.n_bytes = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        n = self._stream.readinto(buffer)  # type: ignore[attr-defined]
        self._sha256.update(buffer[:n])
        self.n_bytes += n
        return int(n)

    def hexdigest(self) -> str:
        """Digest of the bytes that were read: of all, once an unpacker has come to its end."""
        return self._sha256.hexdigest()


class _Unpacked(io.RawIOBase):
    """What an unpacker gives, as long as it is sound and in proportion to what went in."""

    def __init__(self, stream: BinaryIO, n_packed: Callable[[], int], name: str) -> None:
        self._stream, self._n_packed, self._name = stream, n_packed, name
        self._n_bytes = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        with _sound(self._name):
            n = self._stream.readinto(buffer)  # type: ignore[attr-defined]
        self._n_bytes += n
        if self._n_bytes > max(_RATIO_FROM, RATIO_MAX * self._n_packed()):
            raise ArchiveBomb(
                f"at most {RATIO_MAX} bytes unpacked for each byte of the file",
                f"{self._n_bytes >> 20} MB from {self._n_packed()} bytes",
                "If this is right, unpack it by hand and load the .csv file.",
                file=self._name,
            )
        return int(n)


@dataclass(frozen=True)
class Member:
    """One entry of an archive; `trouble` says why it cannot be read as a file."""

    name: str
    trouble: str | None


def members(file: Path) -> list[Member]:
    """List what an archive holds, folders apart. A packed tar is read to its end for this.

    Raises
    ------
    SourceNotFound, DamagedArchive, ArchiveBomb
    """
    at_rest = FileAtRest(file)
    try:
        with _sound(str(file)):
            if file.suffix.lower() == ".zip":
                with zipfile.ZipFile(at_rest.stream) as archive:
                    return [_of_zip(entry) for entry in archive.infolist() if not entry.is_dir()]
            with tarfile.open(fileobj=_unpacked(at_rest, str(file))[0], mode="r|") as archive:
                return [_of_tar(entry) for entry in archive if not entry.isdir()]
    finally:
        at_rest.close()


def _of_zip(entry: zipfile.ZipInfo) -> Member:
    trouble = None
    if entry.flag_bits & 1:
        trouble = "encrypted"
    elif stat.S_ISLNK(entry.external_attr >> 16):
        trouble = "a link"
    return Member(entry.filename, trouble)


def _of_tar(entry: tarfile.TarInfo) -> Member:
    return Member(entry.name, None if entry.isreg() else "a link or a device")


class FeatureStream:
    """The text of one feature file: plain, .gz, .zst, or a member of an archive.

    Attributes
    ----------
    name : the file, with `::member` where it lies in an archive

    Raises
    ------
    SourceNotFound, NotCsv, ArchiveMember, DamagedArchive
        At opening. Reading raises DamagedArchive and ArchiveBomb.
    """

    def __init__(self, file: Path, member: str | None = None) -> None:
        self.name = str(file) if member is None else f"{file}::{member}"
        self._file = FileAtRest(file)
        self._counted: _Counted | None = None
        try:
            with _sound(self.name):
                self._open(member)
        except BaseException:
            self.close()
            raise

    @property
    def n_bytes(self) -> int:
        """Size of the file on disk when it was opened."""
        return self._file.n_bytes

    @property
    def mtime_ns(self) -> int:
        """Time of its last change when it was opened."""
        return self._file.mtime_ns

    @property
    def n_bytes_read(self) -> int:
        """Bytes of the file on disk that have been read: the progress."""
        return self._file.stream.tell() if self._counted is None else self._counted.n_bytes

    def read(self, n: int) -> bytes:
        """Return the next n bytes, fewer only at the end."""
        with _sound(self.name):
            return self._stream.read(n)

    def readline(self, n_max: int) -> bytes:
        """Return the next line with its end, or its first `n_max` bytes."""
        with _sound(self.name):
            return self._stream.readline(n_max)

    def finish(self) -> str:
        """Return the SHA-256 of the file on disk once all was read, if it stayed as it was.

        Raises
        ------
        SourceChanged, DamagedArchive
        """
        with _sound(self.name):
            while self._whole.read(_BUFFER_BYTES):  # what follows a member must be sound too
                pass
            digest = self._file.digest() if self._counted is None else self._counted.hexdigest()
        self.check_unchanged()
        return digest

    def check_unchanged(self) -> None:
        """Refuse a file that changed since it was opened.

        Raises
        ------
        SourceChanged
        """
        self._file.check_unchanged()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _open(self, member: str | None) -> None:
        if self._file.file.suffix.lower() == ".zip":
            archive = zipfile.ZipFile(self._file.stream)
            entry = archive.getinfo(member or "")
            packed = cast("BinaryIO", archive.open(entry))
            self._whole = _bounded(packed, lambda: entry.compress_size, self.name)
            self._stream: BinaryIO = self._whole
            return
        self._whole, self._counted = _unpacked(self._file, self.name)
        self._stream = self._whole
        if member is not None:
            entries = tarfile.open(fileobj=self._whole, mode="r|")  # noqa: SIM115 (as the file)
            found = next((e for e in entries if e.name == member and e.isreg()), None)
            if found is None:
                raise KeyError(f"no file {member} in it")
            self._stream = cast("BinaryIO", entries.extractfile(found))


def _bounded(stream: BinaryIO, n_packed: Callable[[], int], name: str) -> BinaryIO:
    return io.BufferedReader(_Unpacked(stream, n_packed, name), _BUFFER_BYTES)


def _unpacked(file: FileAtRest, name: str) -> tuple[BinaryIO, _Counted]:
    """Bytes of a file that is packed as a whole, or not at all, and the count of the packed."""
    counted = _Counted(file.stream)
    stream: BinaryIO = io.BufferedReader(counted, _BUFFER_BYTES)
    kind = file.file.suffix.lower()
    if kind in (".gz", ".tgz"):
        packed = cast("BinaryIO", gzip.GzipFile(fileobj=stream))
    elif kind == ".zst":
        packed = cast("BinaryIO", zstd.ZstdFile(stream))
    else:
        return stream, counted
    return _bounded(packed, lambda: counted.n_bytes, name), counted


@contextmanager
def _sound(name: str) -> Iterator[None]:
    """Say in our words what an unpacker or the disk complains of."""
    try:
        yield
    except _DAMAGE as error:
        raise DamagedArchive(
            "a packed file that is whole",
            str(error) or "its end is missing",
            "Copy or download it again; it is cut, or was changed on its way.",
            file=name,
        ) from error
    except OSError as error:
        raise DiskFault(
            "a file that can be read to its end",
            error.strerror or "an error",
            "Check the disk, or copy the file anew.",
            file=name,
        ) from error
