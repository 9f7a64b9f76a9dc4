"""Which image a row is: paths of one split to image ids, and what was mentioned before.

A table of 128-bit keys in place of the paths holds 1.3 million images in 61 MB, a tenth of a dict
of strings. That two of so many paths share a key by chance happens once in 10^26 loads.
"""

from collections.abc import Iterator

import duckdb
import numpy as np
import pyarrow as pa

from etl.database import quoted
from etl.errors import LabelConflict, PathsFrom
from etl.header import LABEL
from etl.kernels import enter, hash_strings, put
from etl.rows import Rows
from etl.sources import Source

_CAPACITY = 1 << 12  # a power of two: a place is the lowest bits of a key


class SplitImages:
    """Images of one split, known by path: gives rows their image id, and finds second mentions.

    Attributes
    ----------
    split : name of the split
    """

    def __init__(self, con: duckdb.DuckDBPyConnection, split: str) -> None:
        self.split = split
        self._new: list[pa.RecordBatch] = []
        row = con.execute("select coalesce(max(image_id), -1) + 1 from image").fetchone()
        self._next_id = int(row[0]) if row else 0
        self._n = 0
        self._allocate(_CAPACITY)
        known = con.execute(
            "select image_id, path, class_id::bigint from image where split = ?", [split]
        )
        for batch in known.to_arrow_reader(100_000):
            ids, labels = batch.column(0).to_numpy(), batch.column(2).to_numpy()
            self._make_room(len(ids))
            self._put(_keys(batch.column(1)), ids, labels, np.zeros(len(ids), bool))
            self._n += len(ids)

    def identify(self, paths: pa.StringArray, labels: np.ndarray) -> tuple[np.ndarray, int | None]:
        """Give rows their image: a new one where the path is new.

        Returns
        -------
        ids, conflict
            int64 [n], -1 where the image was read before in this file; and the first row whose
            image is known with another label (the ids are then void), or None.
        """
        self._make_room(len(paths))
        ids = np.empty(len(paths), np.int64)
        table = (self._keys, self._ids, self._labels, self._is_read)
        conflict = enter(*table, _keys(paths), labels, self._next_id, ids)
        if conflict >= 0:
            return ids, int(conflict)
        is_new = ids >= self._next_id
        if is_new.any():
            columns = {"image_id": ids, "path": paths, "class_id": labels}
            self._new.append(pa.record_batch(columns).filter(pa.array(is_new)))
            self._next_id += int(is_new.sum())
            self._n += int(is_new.sum())
        return ids, None

    def label_of(self, path: str) -> int:
        """Return the label with which an image is known."""
        key = _keys(pa.array([path]))[0]
        known = (self._ids >= 0) & (self._keys == key).all(axis=1)
        return int(self._labels[known][0])

    def write(self, con: duckdb.DuckDBPyConnection) -> None:
        """Append the images that were new to the table `image`."""
        if self._new:
            new = pa.Table.from_batches(self._new)
            con.execute(
                "insert into image select image_id, ?, path, class_id from new", [self.split]
            )
            del new

    def _allocate(self, capacity: int) -> None:
        self._keys = np.empty((capacity, 2), np.uint64)
        self._ids = np.full(capacity, -1, np.int64)
        self._labels = np.empty(capacity, np.int32)
        self._is_read = np.zeros(capacity, bool)

    def _make_room(self, n: int) -> None:
        """Keep a quarter of the table free when n more come: then a look-up ends soon."""
        capacity = len(self._ids)
        while 3 * capacity < 4 * (self._n + n):
            capacity *= 2
        if capacity > len(self._ids):
            used = self._ids >= 0
            moved = (self._keys[used], self._ids[used], self._labels[used], self._is_read[used])
            self._allocate(capacity)
            self._put(*moved)

    def _put(
        self, keys: np.ndarray, ids: np.ndarray, labels: np.ndarray, is_read: np.ndarray
    ) -> None:
        put(self._keys, self._ids, self._labels, self._is_read, keys, ids, labels, is_read)


def _keys(paths: pa.StringArray) -> np.ndarray:
    """128-bit keys, uint64 [n, 2]."""
    _, offsets, content = paths.buffers()
    keys = np.empty((len(paths), 2), np.uint64)
    at = np.frombuffer(offsets, np.int32)[paths.offset : paths.offset + len(paths) + 1]
    hash_strings(np.frombuffer(content, np.uint8), at, keys)
    return keys


def named_rows(
    con: duckdb.DuckDBPyConnection,
    source: Source,
    rows: Iterator[Rows],
    images: SplitImages,
    lender: str | None,
) -> Iterator[tuple[Rows, np.ndarray]]:
    """Rows with their image ids: by their paths, by those of a lending backbone, or by number.

    The database is asked before the first row is read, since it is busy taking rows from then on.

    Raises
    ------
    LabelConflict, PathsFrom
        A label contradicts what is known of the image.
    """
    if lender is None:
        return _by_path(source, rows, images)
    known = con.execute(
        "select count(*) from load_report where backbone = ? and split = ?", [lender, source.split]
    ).fetchone()
    if known == (0,):
        raise PathsFrom(
            f"a backbone with split {source.split!r} and paths",
            f"--paths-from {lender}",
            "Load that backbone first, or in the same call.",
            file=source.name,
        )
    lent = con.execute(
        f"""select i.image_id, i.class_id
        from feature.{quoted(lender)} as f
        inner join image as i on f.image_id = i.image_id
        where i.split = ?
        order by f.rowid""",
        [source.split],
    ).fetchnumpy()
    ids, labels = (np.asarray(lent[name]) for name in ("image_id", "class_id"))
    return _by_lent_path(source, rows, ids, labels)


def _by_path(
    source: Source, rows: Iterator[Rows], images: SplitImages
) -> Iterator[tuple[Rows, np.ndarray]]:
    for some in rows:
        paths = _numbered(source.split, some) if some.paths is None else some.paths
        ids, conflict = images.identify(paths, some.labels)
        if conflict is not None:
            path = paths[conflict].as_py()
            raise LabelConflict(
                f"one label for an image ({path!r} has label {images.label_of(path)})",
                f"label {some.labels[conflict]}",
                "Correct one of them; rows without paths are taken to be the same images in the "
                "same order, so give them paths or another split where they are not.",
                file=source.name,
                line=some.line_of(conflict),
                column=LABEL,
            )
        yield some, ids


def _numbered(split: str, rows: Rows) -> pa.StringArray:
    """Names of rows that have none: their number in the file."""
    last = rows.first_row + len(rows.labels)
    return pa.array([f"{split}/row-{i}" for i in range(rows.first_row, last)], pa.string())


def _by_lent_path(
    source: Source, rows: Iterator[Rows], ids: np.ndarray, labels: np.ndarray
) -> Iterator[tuple[Rows, np.ndarray]]:
    """Row by row the images of the lender, as long as the labels agree."""
    n = 0
    for some in rows:
        wanted = labels[n : n + len(some.labels)]
        differ = np.flatnonzero(wanted != some.labels[: len(wanted)])
        if len(differ):
            at = int(differ[0])
            line = some.line_of(at)
            raise _lent_mismatch(source, f"label {wanted[at]}", f"{some.labels[at]}", line)
        if len(wanted) < len(some.labels):
            line = some.line_of(len(wanted))
            raise _lent_mismatch(source, f"{len(labels)} rows", "more", line)
        yield some, ids[n : n + len(wanted)]
        n += len(wanted)
    if n < len(labels):
        raise _lent_mismatch(source, f"{len(labels)} rows", f"{n}", None)


def _lent_mismatch(source: Source, wanted: str, came: str, line: int | None) -> PathsFrom:
    return PathsFrom(
        f"{wanted}, as in the backbone of --paths-from",
        came,
        "The rows are not the same images in the same order: load without --paths-from.",
        file=source.name,
        line=line,
    )
