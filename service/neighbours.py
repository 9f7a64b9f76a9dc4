"""Nearest rows by features, searched once for each state of the data and kept for all models.

    neighbours/<digest>.parquet    of one question: which rows are held against which

The question (backbone and the digests of the feature files that it rests on) stands in the file's
metadata; files about data that are no longer loaded are removed when a new one is written.
"""

import hashlib
import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from etl.sidecar import replace_whole
from models.leaks import (
    N_NEIGHBOURS,
    Neighbours,
    first_of_each,
    nearest,
    nearest_with_sample,
    row_hashes,
)
from service.database import Database, place_of
from service.evaluations import SEED
from service.terminal import Progress, part_of

_FOLDER = "neighbours"
_ONES_SHOWN = 5
_ONES_KNOWN = 5000
_QUICK = 1e8  # numbers of the train rows that are read in a fraction of a second
_CHEAP = 1e12  # products of a search that takes seconds
_FORMAT = 2  # raise it whenever a search finds otherwise
_QUESTION = b"gapscope"


@dataclass(frozen=True)
class Rows:
    """Rows of one test split: features, and the path of each."""

    split: str
    paths: pa.Array
    features: np.ndarray


@dataclass(frozen=True)
class TrainNeighbours:
    """The train rows nearest to rows of a test split.

    Attributes
    ----------
    found : distances to the nearest fifty; the rows' numbers are those of one state of the database
    path : of the nearest one, or of an equal one where there is one; null where there is none
    class_id : its class
    is_equal : whether it has the very same features, bool [n]
    """

    found: Neighbours
    path: pa.Array
    class_id: np.ndarray
    is_equal: np.ndarray

    def take(self, rows: np.ndarray) -> "TrainNeighbours":
        """Return those of some of the rows."""
        return TrainNeighbours(
            Neighbours(self.found.distance[rows], self.found.place[rows]),
            self.path.take(pa.array(rows)),
            self.class_id[rows],
            self.is_equal[rows],
        )


def to_train(
    database: Database, backbone: str, sides: tuple[Rows, ...], *, progress: Progress
) -> tuple[Neighbours, list[TrainNeighbours]]:
    """Nearest train rows of a sample of train rows, and of rows of test splits.

    Splits whose search is kept are read; the others are searched together, in one pass.

    Raises
    ------
    NotFound, models.errors.NoTrainRows
    """
    kept = _Kept(database, backbone)
    sample = kept.read("sample", ())
    tables = [kept.read("train", (side.split,)) for side in sides]
    wanted = [side for side, table in zip(sides, tables, strict=True) if table is None]
    if sample is None or wanted:
        sample, fresh = _search_train(database, backbone, wanted, progress)
        kept.write("sample", (), sample)
        for side in wanted:
            kept.write("train", (side.split,), fresh[side.split])
        tables = [
            fresh[side.split] if table is None else table
            for side, table in zip(sides, tables, strict=True)
        ]
    return _neighbours(sample), [
        _train_neighbours(table, side) for table, side in zip(tables, sides, strict=True) if table
    ]


@dataclass(frozen=True)
class TrainImage:
    """A train image that is near.

    Attributes
    ----------
    similarity : cosine of standardised features
    """

    image_id: int
    split: str
    path: str
    class_id: int
    class_name: str
    similarity: float


class OneByOne:
    """The train images nearest to single images; each is searched once while its data stay."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: dict[tuple[object, ...], list[TrainImage]] = {}
        self._searching = threading.Lock()

    def at_hand(self, backbone: str, image_id: int) -> bool:
        """Whether the answer is known, or takes a fraction of a second."""
        if self._key(backbone, image_id) in self._known:
            return True
        rows = self._database.splits_of(backbone)
        n_train = sum(row["n_images"] for row in rows if row["role"] == "train")
        return bool(n_train * len(self._database.feature_names(backbone)) <= _QUICK)

    def is_kept(self, backbone: str, split: str) -> bool:
        """Whether the search for all images of a split is kept: a second instead of a pass."""
        return _Kept(self._database, backbone).has("train", (split,))

    def nearest(self, backbone: str, split: str, path: str, image_id: int) -> list[TrainImage]:
        """Return the five nearest, nearest first: from the kept search, else by a pass over train.

        Fewer where there are fewer train rows; none where the image has no features.

        Raises
        ------
        NotFound, models.errors.NoTrainRows
        """
        key = self._key(backbone, image_id)
        with self._searching:  # a pass reads all train rows
            if key not in self._known:
                if len(self._known) >= _ONES_KNOWN:
                    self._known.clear()
                kept = self._of_kept(backbone, split, path)
                self._known[key] = self._searched(backbone, image_id) if kept is None else kept
            return self._known[key]

    def _key(self, backbone: str, image_id: int) -> tuple[object, ...]:
        return (*self._database.version, backbone, image_id)

    def _of_kept(self, backbone: str, split: str, path: str) -> list[TrainImage] | None:
        table = _Kept(self._database, backbone).read("train", (split,))
        if table is None:
            return None
        row = pc.index(table["path"], path).as_py()
        if row < 0:
            return None
        table = table.slice(row, 1)
        found = self._images(backbone, _neighbours(table))
        # rows are numbered as they were at the search, and splits may be loaded in another order
        told = None if table["is_equal"][0].as_py() else table["train_path"][0].as_py()
        return found if found and told in (None, found[0].path) else None

    def _searched(self, backbone: str, image_id: int) -> list[TrainImage]:
        vector = self._database.vector(backbone, image_id)
        if vector is None:
            return []
        train, _ = self._database.train_rows(backbone)
        found = nearest(
            vector[None],
            train.features,
            mean=self._database.train_mean(backbone),
            sd=self._database.train_sd(backbone),
            k=_ONES_SHOWN,
        )
        return self._images(backbone, found)

    def _images(self, backbone: str, found: Neighbours) -> list[TrainImage]:
        """Images of the first few neighbours of one row."""
        near = [
            (place, 1 - distance)
            for place, distance in zip(found.place[0].tolist(), found.distance[0], strict=True)
            if place >= 0
        ][:_ONES_SHOWN]
        rows = self._database.train_images(backbone, [place for place, _ in near])
        return [
            TrainImage(**rows[place], similarity=float(similarity))
            for place, similarity in near
            if place in rows
        ]


def is_at_hand(database: Database, backbone: str | None, splits: Sequence[str]) -> bool:
    """Whether the nearest train rows of these test splits are kept, or found within seconds."""
    if backbone is None:
        return False
    rows = database.splits_of(backbone)
    train = sum(row["n_images"] for row in rows if row["role"] == "train")
    tests = sum(row["n_images"] for row in rows if row["split"] in splits)
    if train * tests * len(database.feature_names(backbone)) <= _CHEAP:
        return True
    kept = _Kept(database, backbone)
    wanted = [("sample", ()), *(("train", (split,)) for split in splits)]
    return all(kept.has(what, of) for what, of in wanted)


def among(
    database: Database, backbone: str, first: Rows, second: Rows, *, progress: Progress
) -> Neighbours:
    """Nearest other rows of two test splits together, of each row of both: first, then second.

    Places are those of the rows as they are given.
    """
    kept = _Kept(database, backbone)
    splits = (first.split, second.split)
    paths = pa.concat_arrays([first.paths, second.paths])
    table = kept.read("tests", splits)
    if table is None:
        features = np.concatenate([first.features, second.features])
        found = nearest(
            features,
            features,
            mean=database.train_mean(backbone),
            sd=database.train_sd(backbone),
            own=np.arange(len(features)),
            progress=progress,
        )
        table = _table(found, {"path": paths, "is_first": _is_first(first, second)})
        kept.write("tests", splits, table)
        return found
    # the rows may be given in another order than they were searched in
    here = np.empty(len(paths), np.int64)  # place among the given rows of each kept one
    order = np.empty(len(paths), np.int64)
    is_first, start = table["is_first"].to_numpy(), 0
    for side, rows in ((first, is_first), (second, ~is_first)):
        mine = np.flatnonzero(rows)
        given = place_of(table["path"].take(mine).combine_chunks(), pa.chunked_array([side.paths]))
        here[mine] = start + given.to_numpy()
        order[here[mine]] = mine
        start += len(side.paths)
    stored = _neighbours(table)
    there = stored.place >= 0
    place = np.where(there, here[np.where(there, stored.place, 0)], -1)
    return Neighbours(stored.distance[order], place[order])


def _search_train(
    database: Database, backbone: str, wanted: list[Rows], progress: Progress
) -> tuple[pa.Table, dict[str, pa.Table]]:
    train, paths = database.train_rows(backbone)
    progress(0.0, "hashing the train rows")
    hashes = row_hashes(train.features)
    width = train.features.shape[1]
    queries = np.concatenate(
        [np.empty((0, width), np.float32), *(side.features for side in wanted)]
    )
    sample, found = nearest_with_sample(
        train.features,
        queries,
        mean=database.train_mean(backbone),
        sd=database.train_sd(backbone),
        counts=first_of_each(hashes),
        seed=SEED,
        progress=part_of(progress, 0.05, 1.0),
    )
    equal = _equal_train_rows(train.features, hashes, queries)
    place = np.where(equal >= 0, equal, found.place[:, 0])
    there = pa.array(place, mask=place < 0)
    columns = {
        "train_path": pa.array(paths, pa.string()).take(there),
        "train_class_id": pa.array(train.labels).take(there),
        "is_equal": pa.array(equal >= 0),
    }
    tables, start = {}, 0
    for side in wanted:
        stop = start + len(side.paths)
        mine = Neighbours(found.distance[start:stop], found.place[start:stop])
        here = {name: column.slice(start, stop - start) for name, column in columns.items()}
        tables[side.split] = _table(mine, {"path": side.paths, **here})
        start = stop
    return _table(sample, {}), tables


def _equal_train_rows(features: Any, hashes: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Train row of the very same bytes as each query, −1 where there is none."""
    asked = row_hashes(queries)
    known, first = np.unique(hashes, return_index=True)
    at = np.minimum(np.searchsorted(known, asked), len(known) - 1)
    equal = np.full(len(queries), -1, np.int64)
    for query in np.flatnonzero(known[at] == asked).tolist():
        place = int(first[at[query]])
        if features[place : place + 1][0].tobytes() == queries[query].tobytes():
            equal[query] = place
    return equal


def _train_neighbours(table: pa.Table, side: Rows) -> TrainNeighbours:
    place = place_of(side.paths, table["path"])
    table = table.take(place)
    return TrainNeighbours(
        _neighbours(table),
        table["train_path"].combine_chunks(),
        table["train_class_id"].to_numpy(),
        table["is_equal"].to_numpy(),
    )


def _table(found: Neighbours, columns: Mapping[str, pa.Array]) -> pa.Table:
    width = max(found.distance.shape[1], 1)
    lists = {
        "distance": pa.FixedSizeListArray.from_arrays(found.distance.ravel(), width),
        "place": pa.FixedSizeListArray.from_arrays(found.place.ravel(), width),
    }
    return pa.table({**columns, **lists})


def _neighbours(table: pa.Table) -> Neighbours:
    def read(name: str, kind: type) -> np.ndarray:
        lists = table[name].combine_chunks()
        values = lists.flatten().to_numpy(zero_copy_only=False)
        return (
            values.reshape(len(table), -1).astype(kind, copy=False)
            if len(table)
            else (np.empty((0, N_NEIGHBOURS), kind))
        )

    return Neighbours(read("distance", np.float64), read("place", np.int64))


def _is_first(first: Rows, second: Rows) -> pa.Array:
    return pa.array(np.repeat([True, False], [len(first.paths), len(second.paths)]))


class _Kept:
    """The files about one backbone."""

    def __init__(self, database: Database, backbone: str) -> None:
        self._database, self._backbone = database, backbone
        self._folder = database.data / _FOLDER
        self._digests = database.digests(backbone)
        self._train = [
            row["split"] for row in database.splits_of(backbone) if row["role"] == "train"
        ]

    def read(self, what: str, splits: tuple[str, ...]) -> pa.Table | None:
        try:
            return pq.read_table(self._file(self._question(what, splits)), partitioning=None)
        except (FileNotFoundError, pa.ArrowInvalid):  # gone or damaged: searched anew
            return None

    def has(self, what: str, splits: tuple[str, ...]) -> bool:
        return self._file(self._question(what, splits)).is_file()

    def write(self, what: str, splits: tuple[str, ...], table: pa.Table) -> None:
        question = self._question(what, splits)
        told = table.replace_schema_metadata({_QUESTION: json.dumps(question).encode()})
        replace_whole(self._file(question), partial(pq.write_table, told, compression="zstd"))
        for file in self._folder.glob("*.parquet"):
            if not self._is_present(file):
                file.unlink(missing_ok=True)

    def _question(self, what: str, splits: tuple[str, ...]) -> dict[str, Any]:
        return {
            "format": _FORMAT,
            "what": what,
            "backbone": self._backbone,
            "splits": list(splits),
            "digests": {s: self._digests[s] for s in sorted({*self._train, *splits})},
            "seed": SEED,
        }

    def _file(self, question: dict[str, Any]) -> Path:
        text = json.dumps(question, sort_keys=True)
        return self._folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.parquet"

    def _is_present(self, file: Path) -> bool:
        """Whether the data that a file is about are still loaded."""
        try:
            question = json.loads((pq.read_schema(file).metadata or {}).get(_QUESTION, b"{}"))
        except (FileNotFoundError, pa.ArrowInvalid):
            return False
        now = self._database.digests(question.get("backbone", ""))
        told = question.get("digests", {})
        return bool(question.get("format") == _FORMAT and told.items() <= now.items())
