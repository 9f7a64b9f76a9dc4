"""The database file: built anew beside the old one, checked, then put in its place.

A reader therefore sees the old data or the new, never half of either, and no reader can be locked
out: `gap.duckdb` is only ever replaced, and opened read-only by everyone else.
"""

import errno
import fcntl
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from etl.errors import Busy, DiskFull
from etl.sidecar import write_empty

DATABASE = "gap.duckdb"
RESULTS = "results"
_LOCK = ".load.lock"
_STAGING = ".staging-"
SQL = Path(__file__).resolve().parent.parent / "sql"

# one row per (model, test image); the service writes it, the view `prediction` reads it
PREDICTION_SCHEMA = pa.schema(
    [
        pa.field("model", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("class_id", pa.int32(), nullable=False),
        pa.field("predicted_class_id", pa.int32(), nullable=False),
        pa.field("confidence", pa.float64(), nullable=False),
        pa.field("is_correct", pa.bool_(), nullable=False),
        pa.field("is_in_top5", pa.bool_(), nullable=False),
        pa.field("nll", pa.float64()),
    ]
)


def quoted(name: str) -> str:
    """Return a name as an SQL identifier.

    Examples
    --------
    >>> print(quoted('eva02.mim'))
    "eva02.mim"
    """
    return '"' + name.replace('"', '""') + '"'


def text(value: str) -> str:
    """Return a string as an SQL literal, for statements that take no parameters.

    Examples
    --------
    >>> print(text("it's"))
    'it''s'
    """
    return "'" + value.replace("'", "''") + "'"


def sql_files() -> list[Path]:
    """Files of sql/ in the order in which they run."""
    return sorted(SQL.glob("[0-9][0-9]_*.sql"))


def attach(con: duckdb.DuckDBPyConnection, data: Path) -> None:
    """Attach the data folder's database as `gap`, read-only, and make it the default.

    Opening it this way after a load shows the new file; `duckdb.connect(path)` would go on showing
    the old one while any connection to that is open in the process.
    """
    con.execute(f"set file_search_path = {text(str(data.resolve()))}")
    con.execute(f"attach {text(str((data / DATABASE).resolve()))} as gap (read_only)")
    con.execute("use gap")


@contextmanager
def exclusive(data: Path) -> Iterator[None]:
    """Let one load at a time write this data folder; sweep what a killed one left behind.

    Raises
    ------
    Busy
        Another load is running.
    """
    data.mkdir(parents=True, exist_ok=True)
    with (data / _LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Busy(
                "this data folder to itself",
                f"another load at work in {data}",
                "Wait until it is done.",
            ) from error
        for left in data.glob(_STAGING + "*"):
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        yield


@contextmanager
def staging(data: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """Connect to a fresh database that replaces the old one when the block ends well.

    The connection has the fresh file as `gap` (the default) and, where there is one, the present
    database as `old`, read-only. On any error the fresh file is removed and the old one stays.

    Raises
    ------
    DiskFull
        No space is left on the device.
    """
    fresh = data / f"{_STAGING}{uuid.uuid4().hex}.duckdb"
    scratch = data / f"{_STAGING}tmp"
    _write_empty_results(data)
    write_empty(data)
    con = duckdb.connect()
    try:
        con.execute(f"set file_search_path = {text(str(data.resolve()))}")
        con.execute("set enable_progress_bar = false")
        con.execute(f"set temp_directory = {text(str(scratch.resolve()))}")
        if (data / DATABASE).exists():
            con.execute(f"attach {text(str((data / DATABASE).resolve()))} as old (read_only)")
        # the default group of 122,880 rows would hold 500 MB of 1,024-d vectors in memory
        con.execute(f"attach {text(str(fresh.resolve()))} as gap (row_group_size 8192)")
        con.execute("use gap")
        yield con
        con.execute("checkpoint gap")
        con.execute("use memory")
        con.execute("detach gap")
        _publish(fresh, data / DATABASE)
    except (duckdb.IOException, duckdb.OutOfMemoryException, OSError) as error:
        full = getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error)
        if not full:
            raise
        raise DiskFull(
            f"room for the new database beside the old one in {data}",
            "a full disk",
            "Free some space, or move the folder with GAP_DATA.",
        ) from error
    finally:
        con.close()
        for left in data.glob(fresh.name + "*"):
            left.unlink()
        shutil.rmtree(scratch, ignore_errors=True)


def create_tables(con: duckdb.DuckDBPyConnection) -> None:
    """Run the files of layer 0."""
    con.execute("create schema feature")
    _run(con, [file for file in sql_files() if file.name.startswith("0")])


def create_views(con: duckdb.DuckDBPyConnection) -> None:
    """Run the files of the layers above 0, lowest first."""
    _run(con, [file for file in sql_files() if not file.name.startswith("0")])


def _run(con: duckdb.DuckDBPyConnection, files: list[Path]) -> None:
    for file in files:
        con.execute(file.read_text(encoding="utf-8"))


def _publish(fresh: Path, database: Path) -> None:
    descriptor = os.open(fresh, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)
    fresh.replace(database)
    folder = os.open(database.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


def _write_empty_results(data: Path) -> None:
    """Put typed empty files where the views of layer 4 look, so that no glob comes back empty."""
    folder = data / RESULTS / "_empty"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.json").touch()
    (folder / "evaluation.json").touch()
    if not (folder / "predictions.parquet").exists():
        pq.write_table(PREDICTION_SCHEMA.empty_table(), folder / "predictions.parquet")
