"""What lies beside the database as Parquet and is read by its views: no attaching copies anything.

    annotations/<name>.parquet   values per image, one row per (image, covariate)
    images/linked.parquet        which file shows which image

Files are put in place whole. Typed empty ones stand beside them, so that no view finds nothing.
"""

import fcntl
import os
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

ANNOTATIONS, IMAGES = "annotations", "images"
LINKED = "linked.parquet"
_EMPTY = "_empty.parquet"
_LOCK = ".lock"

# one row per (image, covariate) that has a value: a number in `value` or a text in `category`
ANNOTATION_SCHEMA = pa.schema(
    [
        pa.field("split", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("name", pa.string(), nullable=False),
        pa.field("value", pa.float64()),
        pa.field("category", pa.string()),
    ]
)
# one row per image that was found (root and file given) or for which several files fit (null)
IMAGE_FILE_SCHEMA = pa.schema(
    [
        pa.field("split", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("root", pa.string()),
        pa.field("file", pa.string()),
        pa.field("n_bytes", pa.int64()),
    ]
)


def write_empty(data: Path) -> None:
    """Put the typed empty files where the views look, as far as they are not there."""
    for folder, schema in ((ANNOTATIONS, ANNOTATION_SCHEMA), (IMAGES, IMAGE_FILE_SCHEMA)):
        file = data / folder / _EMPTY
        if not file.exists():
            replace_whole(file, partial(_write_empty, schema))


def _write_empty(schema: pa.Schema, file: Path) -> None:
    write_table(file, schema.empty_table())


def write_table(file: Path, table: pa.Table) -> None:
    """Write a table as a small Parquet file."""
    pq.write_table(table, file, compression="zstd")


def replace_whole(file: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make a fresh file, and put it in place of the old one, to stay.

    Several processes may write into one folder: each waits for the one before it, a few seconds at
    most. What a killed one left behind is written over by the next.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    # not named *.parquet: no view may read half a file
    fresh = file.with_name(f".{file.name}.new")
    with (file.parent / _LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            write(fresh)
            _sync(fresh)
            fresh.replace(file)
            with suppress(OSError):  # it is there, whole; a power cut would bring the old one back
                _sync(file.parent)
        finally:
            fresh.unlink(missing_ok=True)


def _sync(place: Path) -> None:
    descriptor = os.open(place, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
