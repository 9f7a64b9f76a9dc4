"""One file into the tables: its rows, its images, its statistics, its report."""

import csv
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

from etl.database import quoted
from etl.errors import LabelConflict, LoadRefused, PathsFrom
from etl.header import LABEL, PATH
from etl.moments import QUANTILES, ClassMoments, RowSample
from etl.rows import FeatureFile
from etl.sources import Source

SAMPLE_SEED = 0
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class PartReport:
    """What one file held, and how its loading went; a row of the table `load_report`."""

    split: str
    backbone: str
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
    file: FeatureFile
    features: tuple[str, ...]


def load_part(
    con: duckdb.DuckDBPyConnection,
    part: Part,
    paths_from: str | None,
    options: str,
    n_threads: int | None,
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
    images = _SplitImages(con, source.split)
    donor = None if file.header.has_path else _donor_paths(con, source, paths_from)
    moments, sample = ClassMoments(d), RowSample(d, seed=SAMPLE_SEED)
    schema = pa.schema([("image_id", pa.int64()), ("vector", pa.list_(pa.float32(), d))])
    n_read = n_kept = 0
    refused: list[LoadRefused] = []

    def batches() -> Iterator[pa.RecordBatch]:
        nonlocal n_read, n_kept
        done = 0
        try:
            for rows in file.rows(part.features, n_threads or os.cpu_count() or 1):
                labels = rows.labels.tolist()
                paths = rows.paths or _paths_without(
                    source, donor, rows.first_row, labels, rows.first_line
                )
                ids = np.array(images.identify(paths, labels, source.file), np.int64)
                fresh = ids >= 0
                vectors, ids = rows.features[fresh], ids[fresh]
                moments.merge(ClassMoments.of(rows.labels[fresh], vectors))
                sample.add(vectors)
                n_read, n_kept, done = n_read + len(labels), n_kept + len(ids), done + rows.n_bytes
                progress(f"{source.split} {source.backbone}", done, file.n_bytes)
                flat = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), d)
                yield pa.RecordBatch.from_arrays([pa.array(ids), flat], schema=schema)
            if donor is not None and len(donor) != n_read:
                raise _donor_mismatch(source, f"{len(donor)} rows", f"{n_read}", None)
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
    _write_images(con, images)
    _write_statistics(con, part, moments, sample)
    seconds = time.monotonic() - began
    report = PartReport(
        split=source.split,
        backbone=source.backbone,
        file=str(source.file.resolve()),
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
        notes=_notes(part, n_read - n_kept, donor is not None),
        options=options,
        loaded_at=datetime.now(UTC).replace(tzinfo=None),
    )
    marks = ", ".join("?" for _ in PartReport.__dataclass_fields__)
    con.execute(f"insert into load_report values ({marks})", list(vars(report).values()))
    return report


class _SplitImages:
    """Images of one split: gives rows their image_id, and finds second mentions."""

    def __init__(self, con: duckdb.DuckDBPyConnection, split: str) -> None:
        known = con.execute(
            "select path, image_id, class_id from image where split = ?", [split]
        ).fetchall()
        self._known = {path: (image_id, class_id) for path, image_id, class_id in known}
        row = con.execute("select coalesce(max(image_id), -1) + 1 from image").fetchone()
        self._next_id = int(row[0]) if row else 0
        self._in_part: set[str] = set()
        self.split = split
        self.new_ids: list[int] = []
        self.new_paths: list[str] = []
        self.new_labels: list[int] = []

    def identify(self, paths: list[str], labels: list[int], file: Path) -> list[int]:
        """Return image_id of each row; -1 for a second mention of a path with the same label.

        Raises
        ------
        LabelConflict
            A path is known with another label.
        """
        ids = []
        for path, label in zip(paths, labels, strict=True):
            known = self._known.get(path)
            if known is None:
                known = self._known[path] = (self._next_id, label)
                self._next_id += 1
                self.new_ids.append(known[0])
                self.new_paths.append(path)
                self.new_labels.append(label)
            elif known[1] != label:
                raise LabelConflict(
                    f"one label for an image ({path!r} has label {known[1]})",
                    f"label {label}",
                    "Correct one of them; rows without paths are taken to be the same images in "
                    "the same order, so give them paths or another split where they are not.",
                    file=file,
                    line=last_line_of(file, path),
                    column=LABEL,
                )
            if path in self._in_part:
                ids.append(-1)
            else:
                self._in_part.add(path)
                ids.append(known[0])
        return ids


def _notes(part: Part, n_rejected: int, has_donor: bool) -> list[str]:
    notes = []
    if part.file.header.ignored_index:
        notes.append("pandas' index column in front was ignored")
    if not part.file.header.has_path and not has_donor:
        notes.append(f"no path column: images are named {part.source.split}/row-<n>")
    if n_rejected:
        rows = "1 row" if n_rejected == 1 else f"{n_rejected} rows"
        notes.append(f"{rows} left out: the same path came before, with the same label")
    return notes


def _donor_paths(
    con: duckdb.DuckDBPyConnection, source: Source, paths_from: str | None
) -> list[tuple[str, int]] | None:
    """Path and label of each row of the same split in the backbone that lends its paths."""
    if paths_from is None:
        return None
    known = con.execute(
        "select count(*) from load_report where backbone = ? and split = ?",
        [paths_from, source.split],
    ).fetchone()
    if known == (0,):
        raise PathsFrom(
            f"a backbone with split {source.split!r} and paths",
            f"--paths-from {paths_from}",
            "Load that backbone first, or in the same call.",
            file=source.file,
        )
    return con.execute(
        f"""select i.path, i.class_id
        from feature.{quoted(paths_from)} as f
        inner join image as i on f.image_id = i.image_id
        where i.split = ?
        order by f.rowid""",
        [source.split],
    ).fetchall()


def _paths_without(
    source: Source,
    donor: list[tuple[str, int]] | None,
    first_row: int,
    labels: list[int],
    first_line: int,
) -> list[str]:
    """Paths of rows that have none: the donor's where labels agree, else their number."""
    if donor is None:
        return [f"{source.split}/row-{first_row + i}" for i in range(len(labels))]
    lent = donor[first_row : first_row + len(labels)]
    if len(lent) < len(labels):
        raise _donor_mismatch(source, f"{len(donor)} rows", "more", first_line + len(lent))
    for i, ((_, class_id), label) in enumerate(zip(lent, labels, strict=True)):
        if class_id != label:
            raise _donor_mismatch(source, f"label {class_id}", f"{label}", first_line + i)
    return [path for path, _ in lent]


def _donor_mismatch(source: Source, wanted: str, came: str, line: int | None) -> PathsFrom:
    return PathsFrom(
        f"{wanted}, as in the backbone of --paths-from",
        came,
        "The rows are not the same images in the same order: load without --paths-from.",
        file=source.file,
        line=line,
    )


def last_line_of(file: Path, path: str) -> int | None:
    """Line of the last row with this path; None for a file without paths, or one that is gone."""
    found = None
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream)
            names = next(reader)
            column = names.index(PATH)
            line = reader.line_num + 1
            for cells in reader:
                if len(cells) > column and cells[column] == path:
                    found = line
                line = reader.line_num + 1
    except (OSError, ValueError, csv.Error):
        return None
    return found


def _write_images(con: duckdb.DuckDBPyConnection, images: _SplitImages) -> None:
    new = pa.table(
        {
            "image_id": pa.array(images.new_ids, pa.int64()),
            "split": pa.array([images.split] * len(images.new_ids), pa.string()),
            "path": pa.array(images.new_paths, pa.string()),
            "class_id": pa.array(images.new_labels, pa.int32()),
        }
    )
    con.execute("insert into image select image_id, split, path, class_id from new")
    del new


def _write_statistics(
    con: duckdb.DuckDBPyConnection, part: Part, moments: ClassMoments, sample: RowSample
) -> None:
    backbone, split, d = part.source.backbone, part.source.split, len(part.features)
    names = pa.table({"feature_id": np.arange(d), "feature_name": list(part.features)})
    con.execute(
        """insert into feature_name select ?, feature_id, feature_name from names
        where ? not in (select backbone from feature_name)""",
        [backbone, backbone],
    )
    order = np.argsort(moments.class_ids)
    k = len(order)
    rows = pa.table(
        {
            "class_id": np.repeat(moments.class_ids[order], d),
            "feature_id": np.tile(np.arange(d), k),
            "n_images": np.repeat(moments.n[order], d),
            "mean_value": moments.mean[order].reshape(-1),
            "m2": moments.m2[order].reshape(-1),
            "min_value": moments.low[order].reshape(-1),
            "max_value": moments.high[order].reshape(-1),
        }
    )
    con.execute("insert into class_moment select ?, ?, * from rows", [backbone, split])
    quantiles = pa.table(
        {
            "feature_id": np.tile(np.arange(d), len(QUANTILES)),
            "probability": np.repeat(np.array(QUANTILES), d),
            "value": sample.quantiles().reshape(-1),
        }
    )
    con.execute("insert into feature_quantile select ?, ?, * from quantiles", [backbone, split])
    del names, rows, quantiles
