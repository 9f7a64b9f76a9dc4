"""Statistics of all linked image files, in processes side by side, kept part by part.

A run that is stopped goes on where it was: what is measured lies in parts beside the annotations
until all is there, and a file of the same size is not measured again.
"""

import fcntl
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import duckdb
import pyarrow as pa

from etl.annotations import Card, check_name, file_of, known_images, metadata_of, now
from etl.database import attach, text
from etl.errors import Busy, NothingLinked
from etl.image_statistics import measure_file
from etl.sidecar import ANNOTATION_SCHEMA, ANNOTATIONS, replace_whole, write_empty, write_table

SOURCE = "image-statistics"
ORIGIN = "statistics of the linked image files"
_WORK = f".{SOURCE}"  # folder of the parts
_IMAGES_A_TASK = 64
_IMAGES_A_PART = 8192
_N_EXAMPLES = 5
Progress = Callable[[float, str], None]


@dataclass(frozen=True)
class Measured:
    """What measuring the image files did.

    Attributes
    ----------
    n_measured : images measured now
    n_kept : images measured before, whose file has the same size still
    n_without_file : images without a linked file
    n_unreadable : files that cannot be read as an image
    unreadable : a few of them, each with the reason
    """

    n_measured: int
    n_kept: int
    n_without_file: int
    n_unreadable: int
    unreadable: tuple[str, ...]


@dataclass(frozen=True)
class _Linked:
    split: str
    path: str
    root: str
    file: str


_Result = dict[str, float] | str


def annotate_with_image_statistics(
    data: Path, n_workers: int | None = None, progress: Progress = lambda _share, _message: None
) -> Measured:
    """Measure every linked image file (see `etl.image_statistics`) and attach the numbers.

    Parameters
    ----------
    n_workers
        Processes side by side; one a core by default.
    progress
        Called with the share done and a message.

    Raises
    ------
    NothingLinked
        No image has a file: link them first.
    Busy
        Another run is at it in this data folder.
    AnnotationTaken
        Annotations from a file have the name image-statistics.
    NothingLoaded, OtherShape
        There is no database.
    """
    known = known_images(data)
    check_name(data, SOURCE, ORIGIN)
    write_empty(data)
    with _alone(data):
        waiting, n_found = _not_measured(data)
        if n_found == 0:
            raise NothingLinked(
                "images with files",
                f"{known.num_rows:,} images, none of them linked to a file",
                "Link them first: gapscope link-images FOLDER.",
            )
        n_measured, unreadable = 0, []
        part: list[tuple[_Linked, dict[str, float]]] = []
        try:
            for linked, result in _results(waiting, n_workers or os.cpu_count() or 1):
                if isinstance(result, str):
                    unreadable.append(f"{linked.root}/{linked.file}: {result}")
                else:
                    part.append((linked, result))
                    n_measured += 1
                if len(part) == _IMAGES_A_PART:
                    _write_part(data, part)
                    part = []
                n_done = n_measured + len(unreadable)
                progress(n_done / len(waiting), f"{n_done:,} of {len(waiting):,} images")
        finally:  # also where Ctrl-C ends it
            if part:
                _write_part(data, part)
        n_kept = n_found - len(waiting)
        _merge(
            data,
            Card(
                source=SOURCE,
                origin=ORIGIN,
                n_rows=n_found,
                n_matched=n_measured + n_kept,
                n_ambiguous=0,
                n_unmatched=len(unreadable),
                n_repeated=0,
                n_not_finite=0,
                created_at=now(),
            ),
        )
    return Measured(
        n_measured,
        n_kept,
        known.num_rows - n_found,
        len(unreadable),
        tuple(unreadable[:_N_EXAMPLES]),
    )


@contextmanager
def _alone(data: Path) -> Iterator[None]:
    folder = data / ANNOTATIONS / _WORK
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Busy(
                "nobody else who measures the images",
                f"another run at it in {data}",
                "Wait until it is done.",
            ) from error
        yield


def _files(data: Path) -> list[Path]:
    """Files of measurements, oldest first."""
    parts = sorted((data / ANNOTATIONS / _WORK).glob("*.parquet"))
    return [file for file in (file_of(data, SOURCE), *parts) if file.exists()]


def _newest(data: Path) -> str:
    """Query for the last measurement of each image: rows as in ANNOTATION_SCHEMA."""
    files = [text(str(file.resolve())) for file in _files(data)]
    if not files:
        return "select * from read_parquet('annotations/_empty.parquet')"
    order = f"[{', '.join(files)}]"
    return f"""
        with measured as (
            select split, path, name, value, category, list_position({order}, filename) as part
            from read_parquet({order}, filename = true, hive_partitioning = false)
        ),
        newest as (
            select split, path, max(part) as part from measured group by split, path
        )
        select split, path, name, value, category
        from measured inner join newest using (split, path, part)"""


def _not_measured(data: Path) -> tuple[list[_Linked], int]:
    """Linked images without statistics of their file as it is, and how many are linked in all."""
    with _connection(data) as con:
        rows = con.execute(
            f"""select split, path, root, file from image_file
            where status = 'found' and (split, path, size_bytes) not in (
                select (split, path, value::bigint) from ({_newest(data)})
                where name = 'file_bytes'
            )
            order by root, file"""
        ).fetchall()
        found = con.execute("select count(*) from image_file where status = 'found'").fetchall()
    return [_Linked(*row) for row in rows], int(found[0][0])


def _merge(data: Path, card: Card) -> None:
    """Put the parts into the annotations, the last measurement of each image alone."""
    parts = _files(data)
    metadata = ", ".join(f"{key}: {text(value)}" for key, value in metadata_of(card).items())
    with _connection(data) as con:
        replace_whole(
            file_of(data, SOURCE),
            lambda fresh: con.execute(
                f"""copy ({_newest(data)}) to {text(str(fresh.resolve()))}
                (format parquet, compression zstd, kv_metadata {{{metadata}}})"""
            ),
        )
    for part in parts:
        if part != file_of(data, SOURCE):
            part.unlink()


@contextmanager
def _connection(data: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    con = duckdb.connect()
    try:
        con.execute("set enable_progress_bar = false")
        attach(con, data)
        yield con
    finally:
        con.close()


def _write_part(data: Path, part: Sequence[tuple[_Linked, dict[str, float]]]) -> None:
    rows = [(i.split, i.path, name, value) for i, found in part for name, value in found.items()]
    split, path, name, value = zip(*rows, strict=True)
    columns = {"split": split, "path": path, "name": name, "value": value}
    table = pa.table({**columns, "category": pa.nulls(len(rows), pa.string())}, ANNOTATION_SCHEMA)
    file = data / ANNOTATIONS / _WORK / f"{time.time_ns():020d}.parquet"
    replace_whole(file, lambda fresh: write_table(fresh, table))


def _results(images: Sequence[_Linked], n_workers: int) -> Iterator[tuple[_Linked, _Result]]:
    """Statistics of each image, as they come; an image that ends its process is named for it."""
    tasks = deque(
        list(images[i : i + _IMAGES_A_TASK]) for i in range(0, len(images), _IMAGES_A_TASK)
    )
    while tasks:
        at_work: dict[Future[list[_Result]], list[_Linked]] = {}
        pool = _pool(n_workers)
        try:
            while tasks or at_work:
                while tasks and len(at_work) < 2 * n_workers:
                    task = tasks.popleft()
                    at_work[pool.submit(_measure, task)] = task
                done, _ = wait(at_work, return_when=FIRST_COMPLETED)
                for future in done:
                    results = future.result()
                    yield from zip(at_work.pop(future), results, strict=True)
        except BrokenProcessPool:
            suspects = [image for task in at_work.values() for image in task]
            yield from _one_by_one(suspects)
        finally:
            pool.shutdown(cancel_futures=True)


def _one_by_one(images: Sequence[_Linked]) -> Iterator[tuple[_Linked, _Result]]:
    pool = _pool(1)
    try:
        for image in images:
            try:
                yield image, pool.submit(_measure, [image]).result()[0]
            except BrokenProcessPool:
                yield image, "reading it ended the process"
                pool.shutdown()
                pool = _pool(1)
    finally:
        pool.shutdown(cancel_futures=True)


def _pool(n_workers: int) -> ProcessPoolExecutor:
    # spawned: a fork of a process with threads, such as DuckDB's, can hang
    return ProcessPoolExecutor(n_workers, get_context("spawn"), _leave_ctrl_c_to_the_parent)


def _leave_ctrl_c_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _measure(images: Sequence[_Linked]) -> list[_Result]:
    return [measure_file(image.root, image.file) for image in images]
