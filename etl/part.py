"""One file into the tables: its rows, its images, its statistics, its report."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime

import duckdb
import numpy as np
import pyarrow as pa

from etl.database import group_rows, quoted
from etl.errors import LoadRefused
from etl.identity import SplitImages, named_rows
from etl.memory import give_back_memory
from etl.moments import QUANTILES, ClassMoments, RowSample, quantiles
from etl.reading import Features
from etl.sources import Source

SAMPLE_SEED = 0
EXACT_BYTES = 256 << 20  # of values held at once for the exact quantiles of a large test split
_Vectors = tuple[np.ndarray, np.ndarray]  # image ids [n], vectors [n, d]
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class PartReport:
    """What one file held, and how its loading went; a row of the table `load_report`."""

    split: str
    backbone: str | None  # None: images that came with predictions alone, without features
    file: str
    sha256: str
    size_bytes: int
    mtime_ns: int
    n_rows_read: int
    n_images: int
    n_rejected: int
    n_features: int
    n_classes: int
    seconds_s: float
    mb_per_s: float
    notes: list[str]
    options: str
    loaded_at: datetime


@dataclass(frozen=True)
class Part:
    """One file to load, and the order of its backbone's features."""

    source: Source
    file: Features
    features: tuple[str, ...]


def load_part(
    con: duckdb.DuckDBPyConnection,
    part: Part,
    paths_from: str | None,
    options: str,
    n_threads: int,
    progress: Progress,
) -> PartReport:
    """Read one file into the fresh database.

    Raises
    ------
    LoadRefused
        A row is wrong, or contradicts what is known of its image.
    """
    began = time.monotonic()
    source, file, d = part.source, part.file, len(part.features)
    lender = None if file.header.has_path else paths_from
    images = SplitImages(con, source.split)
    named = named_rows(con, source, file.rows(part.features, n_threads), images, lender)
    moments, sample = ClassMoments(d), RowSample(d, seed=SAMPLE_SEED)
    n_read = n_kept = 0
    refused: list[LoadRefused] = []

    def kept() -> Iterator[_Vectors]:
        nonlocal n_read, n_kept
        for rows, ids in named:
            labels, vectors = rows.labels, rows.features
            if (ids < 0).any():
                fresh = ids >= 0
                ids, labels, vectors = ids[fresh], labels[fresh], vectors[fresh]
            moments.add(labels, vectors)
            sample.add(vectors)
            n_read, n_kept = n_read + len(rows.labels), n_kept + len(ids)
            progress(f"{source.split} {source.backbone}", file.n_bytes_read, file.n_bytes)
            yield ids, vectors

    schema = pa.schema([("image_id", pa.int64()), ("vector", pa.list_(pa.float32(), d))])

    def batches() -> Iterator[pa.RecordBatch]:
        try:
            for ids, vectors in _in_groups(kept(), group_rows(d)):
                give_back_memory()
                flat = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), d)
                yield pa.RecordBatch.from_arrays([pa.array(ids), flat], schema=schema)
        except LoadRefused as error:  # DuckDB would pass on its text alone
            refused.append(error)
            raise

    table = f"feature.{quoted(source.backbone)}"
    con.execute(
        f"create table if not exists {table} (image_id bigint not null, vector float[{d}] not null)"
    )
    con.register("reader", pa.RecordBatchReader.from_batches(schema, batches()))
    con.execute("set force_compression = 'uncompressed'")
    try:
        con.execute(f"insert into {table} select image_id, vector from reader")
    except duckdb.Error as error:
        if refused:
            raise refused[0] from error
        raise
    finally:
        con.unregister("reader")
    con.execute("checkpoint gap")
    con.execute("set force_compression = 'auto'")
    with ThreadPoolExecutor(1) as beside:  # sorting and storing wait for different things
        found = beside.submit(quantiles, sample.rows(), n_threads)
        images.write(con)
        _write_moments(con, part, moments)
    is_exact = sample.is_all or source.role == "train"
    values = found.result() if is_exact else _exact_quantiles(con, part, sample.n_seen, n_threads)
    _write_quantiles(con, part, values)
    seconds = time.monotonic() - began
    report = PartReport(
        split=source.split,
        backbone=source.backbone,
        file=source.name,
        sha256=file.sha256,
        size_bytes=file.n_bytes,
        mtime_ns=file.mtime_ns,
        n_rows_read=n_read,
        n_images=n_kept,
        n_rejected=n_read - n_kept,
        n_features=d,
        n_classes=len(moments.class_ids),
        seconds_s=seconds,
        mb_per_s=file.n_bytes / 1e6 / seconds,
        notes=_notes(part, n_read - n_kept, lender is not None),
        options=options,
        loaded_at=datetime.now(UTC).replace(tzinfo=None),
    )
    write_report(con, report)
    return report


def write_report(con: duckdb.DuckDBPyConnection, report: PartReport) -> None:
    """Append a part's report to the table `load_report`."""
    marks = ", ".join("?" for _ in PartReport.__dataclass_fields__)
    con.execute(f"insert into load_report values ({marks})", list(vars(report).values()))


def _in_groups(parts: Iterator[_Vectors], n: int) -> Iterator[_Vectors]:
    """Cut and join into runs of n rows: a batch that fills a row group is stored as it comes."""
    waiting: list[_Vectors] = []
    n_waiting = 0
    for part in parts:
        waiting.append(part)
        n_waiting += len(part[0])
        while n_waiting >= n:
            ids, vectors = (np.concatenate(columns) for columns in zip(*waiting, strict=True))
            yield ids[:n], vectors[:n]
            waiting, n_waiting = [(ids[n:], vectors[n:])], n_waiting - n
    if n_waiting:
        ids, vectors = (np.concatenate(columns) for columns in zip(*waiting, strict=True))
        yield ids, vectors


def _notes(part: Part, n_rejected: int, has_lent_paths: bool) -> list[str]:
    notes = []
    if part.file.header.ignored_index:
        notes.append("pandas' index column in front was ignored")
    if not part.file.header.has_path and not has_lent_paths:
        notes.append(f"no path column: images are named {part.source.split}/row-<n>")
    if n_rejected:
        rows = "1 row" if n_rejected == 1 else f"{n_rejected} rows"
        notes.append(f"{rows} left out: the same path came before, with the same label")
    return notes


def _exact_quantiles(
    con: duckdb.DuckDBPyConnection, part: Part, n: int, n_threads: int
) -> np.ndarray:
    """Quantiles of a test split too large for the sample, from all its stored rows."""
    width = max(EXACT_BYTES // (4 * n), 1)
    return np.concatenate(
        [
            quantiles(_columns(con, part.source, n, slice(first, first + width)), n_threads)
            for first in range(0, len(part.features), width)
        ],
        axis=1,
    )


def _columns(con: duckdb.DuckDBPyConnection, source: Source, n: int, columns: slice) -> np.ndarray:
    """Read some features of all stored rows of a part, float32 [n, width]."""
    stored = con.execute(
        f"""select f.vector from feature.{quoted(source.backbone)} as f
        where f.image_id in (select i.image_id from image as i where i.split = ?)""",
        [source.split],
    )
    blocks = []
    for batch in stored.to_arrow_reader(8192):
        vectors = batch.column(0)
        rows = vectors.flatten().to_numpy().reshape(len(vectors), -1)
        blocks.append(rows[:, columns].copy())
    found = np.concatenate(blocks)
    assert len(found) == n
    return found


def _write_moments(con: duckdb.DuckDBPyConnection, part: Part, moments: ClassMoments) -> None:
    backbone, split, d = part.source.backbone, part.source.split, len(part.features)
    names = pa.table({"feature_id": np.arange(d), "feature_name": list(part.features)})
    con.execute(
        """insert into feature_name select ?, feature_id, feature_name from names
        where ? not in (select backbone from feature_name)""",
        [backbone, backbone],
    )
    order = np.argsort(moments.class_ids)
    moment = pa.table(
        {
            "class_id": moments.class_ids[order],
            "n_images": moments.n[order],
            **{
                name: pa.FixedSizeListArray.from_arrays(pa.array(values[order].reshape(-1)), d)
                for name, values in (
                    ("mean_values", moments.mean),
                    ("m2_values", moments.m2),
                    ("min_values", moments.low),
                    ("max_values", moments.high),
                )
            },
        }
    )
    con.execute("set force_compression = 'uncompressed'")  # trying others takes longer, for nothing
    con.execute("insert into class_moment select ?, ?, * from moment", [backbone, split])
    con.execute("checkpoint gap")
    con.execute("set force_compression = 'auto'")
    total = pa.table({"feature_id": np.arange(d), **moments.total()})
    con.execute("insert into feature_moment select ?, ?, * from total", [backbone, split])
    del names, moment, total


def _write_quantiles(con: duckdb.DuckDBPyConnection, part: Part, values: np.ndarray) -> None:
    """Store quantiles [q, d]."""
    d = len(part.features)
    quantile = pa.table(
        {
            "feature_id": np.tile(np.arange(d), len(QUANTILES)),
            "probability": np.repeat(np.array(QUANTILES), d),
            "value": values.reshape(-1),
        }
    )
    con.execute(
        "insert into feature_quantile select ?, ?, * from quantile",
        [part.source.backbone, part.source.split],
    )
    del quantile
