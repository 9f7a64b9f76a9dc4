"""Statistics of all linked image files, in processes side by side, kept part by part.

A run that is stopped goes on where it was: what is measured lies in parts beside the annotations
until all is there, and a file of the same size is not measured again.
"""

import fcntl
import json
import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa

from etl.annotations import Card, check_name, file_of, known_images, metadata_of, now
from etl.database import attach, text
from etl.errors import Busy, NothingLinked
from etl.sidecar import ANNOTATION_SCHEMA, ANNOTATIONS, replace_whole, write_empty, write_table

SOURCE = "image-statistics"
ORIGIN = "statistics of the linked image files"
# not multiprocessing: that would import the parent's torch into every reader
_READER = (sys.executable, "-m", "etl.image_statistics")
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
    """Statistics of each image, as they come."""
    tasks = deque(
        list(images[i : i + _IMAGES_A_TASK]) for i in range(0, len(images), _IMAGES_A_TASK)
    )
    readers = [_Reader() for _ in range(min(n_workers, len(tasks)))]
    idle = list(readers)
    at_work: dict[Future[list[_Result]], tuple[_Reader, list[_Linked]]] = {}
    threads = ThreadPoolExecutor(max(len(readers), 1))  # one waits for each reader
    try:
        while tasks or at_work:
            while tasks and idle:
                reader, task = idle.pop(), tasks.popleft()
                at_work[threads.submit(reader.measure, task)] = reader, task
            done, _ = wait(at_work, return_when=FIRST_COMPLETED)
            for future in done:
                reader, task = at_work.pop(future)
                idle.append(reader)
                yield from zip(task, future.result(), strict=True)
    finally:  # also where Ctrl-C ends it: a reader at work is not waited for
        for reader in readers:
            reader.stop()
        threads.shutdown()
        for reader in readers:
            reader.close()


class _Reader:
    """A process that reads images, and nothing else: a file that kills it costs one image.

    It ends when this process does, since then its input ends.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._stopped = False

    def measure(self, images: Sequence[_Linked]) -> list[_Result]:
        """Return the statistics of each image, or why it cannot be read."""
        try:
            return self._ask(images)
        except _Died:
            return [self._measure_alone(image) for image in images]

    def stop(self) -> None:
        """End the process, whatever it is doing, and start no other."""
        self._stopped = True
        if self._process is not None:
            self._process.kill()

    def close(self) -> None:
        """Let go of the process, where nobody waits for its answer any more."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()

    def _measure_alone(self, image: _Linked) -> _Result:
        try:
            return self._ask([image])[0]
        except _Died:
            return "reading it ended the process"

    def _ask(self, images: Sequence[_Linked]) -> list[_Result]:
        if self._process is None and not self._stopped:
            self._process = subprocess.Popen(
                _READER,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                encoding="utf-8",
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                start_new_session=True,  # Ctrl-C is the parent's to handle
            )
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            raise _Died
        try:
            process.stdin.write(json.dumps([(image.root, image.file) for image in images]) + "\n")
            process.stdin.flush()
            answer = process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer.endswith("\n"):
            self.close()
            raise _Died
        return list(json.loads(answer))


class _Died(Exception):
    """The process that reads images ended while it read one."""
