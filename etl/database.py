"""The database file: built anew beside the old one, checked, then put in its place.

A reader therefore sees the old data or the new, never half of either, and no reader can be locked
out: `gap.duckdb` is only ever replaced, and opened read-only by everyone else.
"""

import errno
import fcntl
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from etl.errors import Busy, DiskFault, DiskFull, LoadRefused
from etl.sidecar import write_empty

DATABASE = "gap.duckdb"
RESULTS = "results"
HYPOTHESES = "hypotheses.jsonl"  # in results/: hypotheses and what came of them
LOOKS = "looks.jsonl"  # in results/: one line for each read of test labels
SEALS = "seals.jsonl"  # in results/: one line for each prediction made before labels were read
_GROUP_ROWS = (8192, 4096, 2048)  # rows that DuckDB stores as one: whole vectors of 2,048
_GROUP_BYTES = 64 << 20
THREADS_MAX = 4  # of DuckDB: each holds a row group, and the disk is no faster for more
_LOCK = ".load.lock"
_STAGING = ".staging-"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FAULTY = (errno.EIO, errno.EROFS, errno.EACCES, errno.ESTALE, errno.ENXIO)
SHARE_NEEDED = 0.2  # four bytes a value, of which the text has twenty at most
SQL = Path(__file__).resolve().parent.parent / "sql"

# one row per (model, test image); the service writes it, the view `prediction` reads it
PREDICTION_SCHEMA = pa.schema(
    [
        pa.field("model", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("class_id", pa.int32(), nullable=False),
        pa.field("predicted_class_id", pa.int32(), nullable=False),
        pa.field("confidence", pa.float64()),
        pa.field("is_correct", pa.bool_(), nullable=False),
        pa.field("is_in_top5", pa.bool_()),
        pa.field("nll", pa.float64()),
    ]
)


def group_rows(n_features: int) -> int:
    """Rows of a row group: as many as take 64 MB, in DuckDB's steps.

    Examples
    --------
    >>> group_rows(1024), group_rows(6000)
    (8192, 2048)
    """
    fitting = (rows for rows in _GROUP_ROWS if rows * 4 * n_features <= _GROUP_BYTES)
    return next(fitting, _GROUP_ROWS[-1])


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
def of_this_version(data: Path, kind: type[LoadRefused]) -> Iterator[None]:
    """Refuse, as an error of this kind, a database that reads as another version would write it."""
    try:
        yield
    except (duckdb.IOException, duckdb.CatalogException, duckdb.BinderException) as error:
        raise kind(
            "a database that this version of Gapscope wrote",
            str(error).splitlines()[0],
            "Load all files again with --replace.",
            file=data / DATABASE,
        ) from error


@contextmanager
def exclusive(data: Path) -> Iterator[None]:
    """Let one load at a time write this data folder; sweep what a killed one left behind.

    Raises
    ------
    Busy
        Another load is running.
    DiskFull, DiskFault
        The folder cannot be made or written.
    """
    with _disk_refusals(data):
        data.mkdir(parents=True, exist_ok=True)
        lock = (data / _LOCK).open("w")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Busy(
                "this data folder to itself",
                f"another load at work in {data}",
                "Wait until it is done.",
            ) from error
        with _disk_refusals(data):
            for left in data.glob(_STAGING + "*"):
                shutil.rmtree(left) if left.is_dir() else left.unlink()
        yield


def check_room(data: Path, n_bytes: int) -> None:
    """Refuse early where the disk has far too little room for what is to be loaded.

    Parameters
    ----------
    n_bytes
        Size of the feature files as text: of which the vectors alone take a fifth and more.

    Raises
    ------
    DiskFull
        Less free space than the vectors would take.
    """
    needed, free = int(n_bytes * SHARE_NEEDED), shutil.disk_usage(data).free
    if free < needed:
        raise DiskFull(
            f"at least {needed:,} bytes for the new database beside the old one in {data}",
            f"{free:,} bytes of free space",
            "Free some space, or move the folder with GAP_DATA.",
        )


@contextmanager
def staging(data: Path, n_threads: int, n_features: int) -> Iterator[duckdb.DuckDBPyConnection]:
    """Connect to a fresh database that replaces the old one when the block ends well.

    The connection has the fresh file as `gap` (the default) and, where there is one, the present
    database as `old`, read-only. On any error the fresh file is removed and the old one stays.

    Parameters
    ----------
    n_features
        Of the widest backbone: rows of it decide how much is held in memory.

    Raises
    ------
    DiskFull
        No space is left on the device.
    DiskFault
        The disk, or a file on it, cannot be read or written.
    """
    with _disk_refusals(data), _staging(data, n_threads, n_features) as con:
        yield con


@contextmanager
def _staging(data: Path, n_threads: int, n_features: int) -> Iterator[duckdb.DuckDBPyConnection]:
    fresh = data / f"{_STAGING}{uuid.uuid4().hex}.duckdb"
    scratch = data / f"{_STAGING}tmp"
    _write_empty_results(data)
    write_empty(data)
    con = duckdb.connect()
    try:
        con.execute(f"set file_search_path = {text(str(data.resolve()))}")
        con.execute("set enable_progress_bar = false")
        # without a limit DuckDB keeps what it wrote in memory, up to four fifths of the machine's
        threads, rows = min(n_threads, THREADS_MAX), group_rows(n_features)
        # measured with 1,024 and 6,000 features: a thread holds up to sixteen of DuckDB's vectors
        needed = max(256 << 20, 16 * threads * 2048 * 4 * n_features)
        con.execute(f"set memory_limit = '{needed >> 20}MiB'")
        con.execute(f"set threads = {threads}")
        con.execute(f"set temp_directory = {text(str(scratch.resolve()))}")
        if (data / DATABASE).exists():
            # a load that keeps nothing of a damaged database must be able to replace it; one that
            # keeps something has read it before and does not come here
            with suppress(duckdb.IOException, duckdb.SerializationException):
                con.execute(f"attach {text(str((data / DATABASE).resolve()))} as old (read_only)")
        # the default group of 122,880 rows would hold 500 MB of 1,024-d vectors in memory; a file
        # that nobody has seen needs no log, and one that cannot be written ends the process
        con.execute(
            f"attach {text(str(fresh.resolve()))} as gap "
            f"(row_group_size {rows}, recovery_mode no_wal_writes)"
        )
        con.execute("use gap")
        yield con
        con.execute("checkpoint gap")
        con.execute("use memory")
        con.execute("detach gap")
        _publish(fresh, data / DATABASE)
    finally:
        con.close()
        for left in data.glob(fresh.name + "*"):
            left.unlink()
        shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def _disk_refusals(data: Path) -> Iterator[None]:
    """Turn what a full or faulty disk makes of a load into a refusal."""
    try:
        yield
    except (duckdb.Error, OSError) as error:
        refusal = _disk_refusal(error, data)
        if refusal is None:
            raise
        raise refusal from error


def _disk_refusal(error: Exception, data: Path) -> LoadRefused | None:
    # DuckDB passes on the system's words, not its number, through whatever class of error
    said = str(error).splitlines()[0] if str(error) else type(error).__name__
    number = error.errno if isinstance(error, OSError) else None
    if number in _FULL or _says(str(error), _FULL):
        return DiskFull(
            f"room for the new database beside the old one in {data}",
            "a full disk",
            "Free some space, or move the folder with GAP_DATA.",
        )
    if isinstance(error, OSError | duckdb.IOException | duckdb.FatalException) or _says(
        str(error), _FAULTY
    ):
        return DiskFault(
            f"a disk that can be read and written for {data}",
            said[:400],
            "Check the disk and the folder's permissions; where the database itself is damaged, "
            "load all files again with --replace.",
        )
    return None


def _says(text: str, numbers: Iterable[int]) -> bool:
    return any(os.strerror(number) in text for number in numbers)


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
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    fresh.replace(database)
    # from here on the new database is there, whole: where the folder's entry cannot be forced to
    # the disk, a power cut would bring the old one back, which is no reason to call it refused
    with suppress(OSError):
        folder = os.open(database.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _write_empty_results(data: Path) -> None:
    """Put typed empty files where the views of layer 4 look, so that no glob comes back empty."""
    folder = data / RESULTS / "_empty"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.json").touch()
    (folder / "evaluation.json").touch()
    for name in (LOOKS, HYPOTHESES, SEALS):
        (data / RESULTS / name).touch()
    if not (folder / "predictions.parquet").exists():
        pq.write_table(PREDICTION_SCHEMA.empty_table(), folder / "predictions.parquet")
