"""A full or faulty disk as a refusal, whichever library met it; damaged files set aside."""

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pyarrow as pa
from safetensors import SafetensorError

from etl.database import DATABASE
from etl.errors import DiskFault, DiskFull, LoadRefused

DISK_ERRORS = (OSError, sqlite3.Error, duckdb.Error, SafetensorError)
UNREADABLE = (pa.ArrowException, OSError, ValueError)  # of Parquet that is none
_SIDE = ".damaged-"  # ends the name of what was set aside, with the time
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FAULTY = (errno.EIO, errno.ESTALE, errno.EROFS, errno.EACCES, errno.ENXIO)
_OF_SQLITE = {
    sqlite3.SQLITE_FULL: errno.ENOSPC,
    sqlite3.SQLITE_IOERR: errno.EIO,
    sqlite3.SQLITE_CANTOPEN: errno.EIO,
    sqlite3.SQLITE_READONLY: errno.EROFS,
}


@dataclass(frozen=True)
class Damage:
    """A file that is not as it was written.

    Attributes
    ----------
    file : its place in the data folder
    wrong : what is wrong with it
    todo : what to do
    is_missing : whether nothing stands in its place until somebody brings or makes it again
    """

    file: str
    wrong: str
    todo: str
    is_missing: bool = False

    def __str__(self) -> str:
        return f"{self.file} is damaged: {self.wrong}. {self.todo}"


def disk_refusal(error: BaseException, data: Path) -> LoadRefused | None:
    """Return an error as a refusal where the disk is its cause; None for any other error.

    Parameters
    ----------
    data
        The data folder, for the words.
    """
    if isinstance(error, duckdb.Error) and "Corrupt database file" in str(error):
        return DiskFault(
            f"a whole {DATABASE} in {data}",
            str(error).splitlines()[0][:200],
            "Load all files again: gapscope load FOLDER --replace.",
        )
    number = _number(error)
    if number in _FULL:
        return DiskFull(
            f"room to write in {data}",
            f"a full disk ({errno.errorcode[number]})",
            "Nothing half written is kept. Free some space, or move the folder with GAP_DATA, and "
            "ask again.",
        )
    if number in _FAULTY:
        return DiskFault(
            f"a disk that can be read and written for {data}",
            f"{os.strerror(number)} ({errno.errorcode[number]})",
            "Nothing half written is kept. Check the disk and the folder's permissions, and ask "
            "again.",
        )
    return None


@contextmanager
def refusing_disk_faults(data: Path) -> Iterator[None]:
    """Turn what a full or faulty disk raises into a refusal; any other error passes.

    Raises
    ------
    DiskFull, DiskFault
    """
    try:
        yield
    except DISK_ERRORS as error:
        refusal = disk_refusal(error, data)
        if refusal is None:
            raise
        raise refusal from error


def _number(error: BaseException) -> int | None:
    """Return the system's number of what went wrong, where it is one of a disk."""
    if isinstance(error, sqlite3.Error):
        return _OF_SQLITE.get(getattr(error, "sqlite_errorcode", 0) & 0xFF)
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    if isinstance(error, DISK_ERRORS):  # libraries pass on the system's words, not its number
        return next((n for n in (*_FULL, *_FAULTY) if os.strerror(n) in str(error)), None)
    return None


def set_aside(place: Path) -> str:
    """Rename a damaged file or folder, and say what became of it; nothing is ever deleted."""
    at = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%f")
    aside = place.with_name(f"{place.name}{_SIDE}{at}")
    try:
        place.rename(aside)
    except OSError as error:
        return f"It could not be set aside ({error.strerror}): move it away."
    return f"It was set aside as {aside.name}."
