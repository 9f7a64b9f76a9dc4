"""Reads gap.duckdb: always read-only, always the newest, one connection a use."""

import hashlib
import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from etl.annotations import cards, check_shape
from etl.database import DATABASE, attach, quoted
from etl.sidecar import ANNOTATIONS
from etl.sources import JOIN, gap_ends
from models.heads import TrainRows
from models.heads.rows import Matrix
from service.errors import DataChanged, NoDatabase, NotATest, NotFound
from service.looks import Look, Looks

_BATCH_ROWS = 8192
_ROWS_A_LOOKUP = 100


@dataclass(frozen=True)
class TestRows:
    """Rows of one test split.

    Attributes
    ----------
    paths : n strings
    labels : int64 [n]
    features : float32 [n, d]
    """

    __test__ = False  # not a test class, whatever its name begins with

    paths: list[str]
    labels: np.ndarray
    features: np.ndarray


class StoredRows:
    """Rows of features that stay in the database until they are read, a slice at a time.

    The state of the database is that of the moment in which it was made, whatever is loaded
    meanwhile.
    """

    def __init__(
        self, con: duckdb.DuckDBPyConnection, table: str, places: np.ndarray, n_features: int
    ) -> None:
        self._con, self._table, self._places = con, table, places
        self.shape = (len(places), n_features)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._places)

    def taken(self, rows: np.ndarray) -> "StoredRows":
        """Return some of the rows, whose numbers rise."""
        return StoredRows(self._con, self._table, self._places[rows], self.shape[1])

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Rows start … stop - 1, float32 [b, d]."""
        wanted = self._places[rows]
        found = np.empty((len(wanted), self.shape[1]), np.float32)
        if len(wanted) == 0:
            return found
        # places rise, and a range of them is read without looking at the rest of the table
        batches = self._con.sql(
            f"select rowid, vector from {self._table} where rowid between ? and ?",
            params=[int(wanted[0]), int(wanted[-1])],
        ).to_arrow_reader(_BATCH_ROWS)
        for batch in batches:
            places = batch.column(0).to_numpy()
            at = np.minimum(np.searchsorted(wanted, places), len(wanted) - 1)
            is_wanted = wanted[at] == places
            vectors = batch.column(1).flatten().to_numpy(zero_copy_only=False)
            vectors = vectors.reshape(len(places), -1)
            found[at[is_wanted]] = vectors if is_wanted.all() else vectors[is_wanted]
        return found


class JoinedRows:
    """The features of several backbones side by side, of the images that all of them have."""

    def __init__(self, parts: Sequence[Matrix]) -> None:
        self._parts = parts
        self.shape = (len(parts[0]), sum(part.shape[1] for part in parts))

    def __len__(self) -> int:
        """Return the number of rows."""
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Rows start … stop - 1, float32 [b, d]."""
        return np.concatenate([part[rows] for part in self._parts], axis=1)


def place_of(paths: pa.Array, among: pa.ChunkedArray) -> pa.Array:
    """Row of `among` that holds each path, null where none does.

    By path, since a later load may have numbered the images anew.
    """
    return pc.index_in(paths, among.combine_chunks())


class Database:
    """The data folder's database as it stands at each call."""

    def __init__(self, data: Path) -> None:
        self._data = data
        self._kept: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
        self._asking: dict[tuple[Any, ...], threading.Lock] = {}
        self._keeping = threading.Lock()

    @property
    def data(self) -> Path:
        """The data folder."""
        return self._data

    @property
    def exists(self) -> bool:
        """Whether there is a database to read."""
        return (self._data / DATABASE).is_file()

    @property
    def is_readable(self) -> bool:
        """Whether there is a database that can be opened."""
        try:
            with self.connect():
                return True
        except NoDatabase:
            return False

    @property
    def version(self) -> tuple[int, int]:
        """What tells this state of the database from every other; (0, 0) where there is none."""
        if not self.exists:
            return 0, 0
        found = (self._data / DATABASE).stat()
        return found.st_ino, found.st_mtime_ns

    def refuse_changed(self, version: tuple[int, int]) -> None:
        """Refuse to keep what was read while a load replaced the database: part old, part new.

        Raises
        ------
        DataChanged
        """
        if self.version != version:
            raise DataChanged(
                "wanted one state of the data from beginning to end, got another one: a load "
                "replaced them meanwhile. Ask again."
            )

    @contextmanager
    def connect(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Open a connection with the database as its default.

        A load publishes by replacing the file, and only a fresh connection sees the new one.

        Raises
        ------
        NoDatabase
        """
        if not self.exists:
            raise NoDatabase(
                f"wanted a database in {self._data}, found none. "
                "Load one: gapscope load FOLDER, or gapscope demo."
            )
        con = duckdb.connect()
        try:
            con.execute("set enable_progress_bar = false")
            try:
                attach(con, self._data)
            except duckdb.Error as error:
                raise NoDatabase(
                    f"wanted a readable database in {self._data}, got: {error}. "
                    "Load it again: gapscope load FOLDER --replace."
                ) from error
            yield con
        finally:
            con.close()

    def load_counts(self) -> list[dict[str, Any]]:
        """Return the rows read, kept and rejected of each split and backbone.

        Raises
        ------
        NoDatabase
        """
        return self._rows_of_load(
            "select split, backbone, n_rows_read as read, n_images as kept, n_rejected as rejected "
            "from load_report order by all"
        )

    def rows(self, query: str, params: list[Any] | None = None) -> list[dict[str, Any]]:
        """Return the answer of a query as one dictionary a row."""
        with self.connect() as con:
            found = con.execute(query, params or [])
            names = [column[0] for column in found.description or []]
            return [dict(zip(names, row, strict=True)) for row in found.fetchall()]

    def _rows_of_load(self, query: str, params: tuple[Any, ...] = ()) -> list[dict[str, Any]]:
        """Return the same for what only a load changes: asked once for each state of the database.

        Every page and answer asks for splits and names; a connection takes longer than a page may.
        """
        key = (self.version, query, params)
        with self._keeping:
            if key not in self._asking:  # what another state of the database answered goes
                self._kept = {old: rows for old, rows in self._kept.items() if old[0] == key[0]}
                self._asking = {old: lock for old, lock in self._asking.items() if old[0] == key[0]}
            asking = self._asking.setdefault(key, threading.Lock())
        with asking:  # after a load many readers want the same at once: one of them asks
            found = self._kept.get(key)
            if found is None:
                found = self.rows(query, list(params))
                with self._keeping:
                    self._kept[key] = found
        return [dict(row) for row in found]

    def splits(self) -> list[dict[str, Any]]:
        """Return the rows of `split_summary`, in load order."""
        return self._rows_of_load("select * from split_summary")

    def annotations(self) -> list[dict[str, Any]]:
        """Return the card of each source of annotations, with its rows of `annotation_summary`.

        Raises
        ------
        NoDatabase, etl.errors.OtherShape
        """
        with self.connect() as con:
            check_shape(con, self._data)
        rows = self.rows(
            """select a.* from annotation_summary as a inner join split as s on a.split = s.split
            order by a.source, a.name, s.load_order"""
        )
        return [
            {**asdict(card), "covariates": [row for row in rows if row["source"] == card.source]}
            for card in cards(self._data)
        ]

    def annotation_state(self) -> list[tuple[str, int, int]]:
        """Return what tells the present annotations from all others: files, sizes, times."""
        folder = self._data / ANNOTATIONS
        found = [(file.name, file.stat()) for file in sorted(folder.glob("*.parquet"))]
        return [(name, stat.st_size, stat.st_mtime_ns) for name, stat in found]

    def splits_of(self, backbone: str | None, among: Collection[str] = ()) -> list[dict[str, Any]]:
        """Return the splits that have features of a backbone.

        Parameters
        ----------
        backbone
            None: of an imported model, which reads no features.
        among
            Its splits, of which those with images in the database are returned.

        Raises
        ------
        NotFound
        """
        if backbone is None:
            there = self._rows_of_load(
                "select split, role, is_reference from split order by load_order"
            )
            return [row for row in there if row["split"] in among]
        found = [row for row in self.splits() if row["backbone"] == backbone]
        if not found and JOIN in backbone:
            parts = backbone.split(JOIN)
            if len(set(parts)) < len(parts):
                raise NotFound(f"wanted backbones joined once each, got {backbone[:100]!r}.")
            return self._joined_splits(backbone)
        if not found:
            known = sorted({row["backbone"] for row in self.splits() if row["backbone"]})
            raise NotFound(
                f"wanted a loaded backbone ({', '.join(known) or 'none yet'}), got {backbone!r}."
            )
        return found

    def _joined_splits(self, backbone: str) -> list[dict[str, Any]]:
        """Return the splits that all parts of a joined backbone have."""
        parts = [{r["split"]: r for r in self.splits_of(one)} for one in backbone.split(JOIN)]
        return [
            {
                **row,
                "backbone": backbone,
                "n_images": min(part[split]["n_images"] for part in parts),
                "n_features": sum(part[split]["n_features"] for part in parts),
            }
            for split, row in parts[0].items()
            if all(split in part for part in parts)
        ]

    def _parts_of(self, backbone: str) -> list[str]:
        """Names of the loaded backbones that a joined one is made of; of any other, its own."""
        if JOIN not in backbone or any(row["backbone"] == backbone for row in self.splits()):
            return [backbone]
        return backbone.split(JOIN)

    def test_splits(self, backbone: str | None, among: Collection[str] = ()) -> list[str]:
        """Return the test splits of a backbone, its default reference first.

        `backbone` and `among` as in `splits_of`.

        Raises
        ------
        NotFound
        """
        tests = [row for row in self.splits_of(backbone, among) if row["role"] == "test"]
        names = [row["split"] for row in tests]
        marked = next((row["split"] for row in tests if row["is_reference"]), None)
        first, _ = gap_ends(names, marked)
        return sorted(names, key=lambda name: name != first)

    def gap_ends(
        self,
        backbone: str | None,
        reference: str | None,
        target: str | None,
        among: Collection[str] = (),
    ) -> tuple[str, str]:
        """Return reference and target of a gap: as asked for, else the defaults of the load.

        `backbone` and `among` as in `splits_of`.

        Raises
        ------
        NotATest, NotFound
            An end is no test split of the backbone, both are one, or there is only one.
        """
        names = self.test_splits(backbone, among)
        for name in (reference, target):
            if name is not None:
                self.check_test_split(backbone, name, among)
        reference = reference or next(iter(names), None)
        target = target or next((name for name in names if name != reference), None)
        if reference is None or target is None or reference == target:
            raise NotATest(
                f"wanted two different test splits of {_whose(backbone)} "
                f"(loaded: {', '.join(names) or 'none'}), got reference {reference!r} and "
                f"target {target!r}. Name both."
            )
        return reference, target

    def check_test_split(
        self, backbone: str | None, split: str, among: Collection[str] = ()
    ) -> None:
        """Refuse a split that is not a test split of the backbone.

        `backbone` and `among` as in `splits_of`.

        Raises
        ------
        NotFound, NotATest
        """
        roles = {row["split"]: row["role"] for row in self.splits_of(backbone, among)}
        if split not in roles:
            raise NotFound(
                f"wanted a split of {_whose(backbone)} ({', '.join(roles) or 'none'}), "
                f"got {split!r}."
            )
        if roles[split] != "test":
            raise NotATest(
                f"wanted a test split, got {split!r} of role {roles[split]}: what a head is worth "
                "on train rows is its internal validation, in the model card."
            )

    def digests(self, backbone: str) -> dict[str, str]:
        """Return the sha256 of the file behind each split of a backbone, of several for a join."""
        parts = self._parts_of(backbone)
        if len(parts) > 1:
            each = [self.digests(part) for part in parts]
            return {
                split: hashlib.sha256("".join(one[split] for one in each).encode()).hexdigest()
                for split in each[0]
                if all(split in one for one in each)
            }
        query = "select split, sha256 from load_report where backbone = ?"
        found = self._rows_of_load(query, (backbone,))
        return {row["split"]: row["sha256"] for row in found}

    def loaded_at(self, backbone: str, split: str) -> datetime:
        """Return since when the present data of a split are here; of a join, the newest part's."""
        times: list[datetime] = [
            row["loaded_at"]
            for part in self._parts_of(backbone)
            for row in self._rows_of_load(
                "select loaded_at from load_report where backbone = ? and split = ?", (part, split)
            )
        ]
        return max(times)

    def image_ids(self, splits: Sequence[str], paths: pa.Array) -> np.ndarray:
        """Return the id of each image by its path among some splits, int64; −1 where it is gone."""
        with self.connect() as con:
            con.register("wanted", pa.table({"path": paths}))
            table = con.execute(
                """select path, image_id from image where split in (select unnest(?::varchar[]))
                and path in (select path from wanted)""",
                [list(splits)],
            ).to_arrow_table()
        ids = table["image_id"].combine_chunks().take(place_of(paths, table["path"]))
        return np.asarray(pc.fill_null(ids, -1).to_numpy(), np.int64)

    def load_state(self) -> list[tuple[str, str | None, datetime]]:
        """Return what is loaded and since when: image ids may be others after any load."""
        found = self._rows_of_load(
            "select split, backbone, loaded_at from load_report order by loaded_at, split, backbone"
        )
        return [(row["split"], row["backbone"], row["loaded_at"]) for row in found]

    def images(self, split: str, *, look: Look) -> pa.Table:
        """Return path and class_id of the images of a test split; the look is logged first.

        Raises
        ------
        LookNotLogged
        """
        found = self.rows("select count(*) as n from image where split = ?", [split])
        Looks(self._data).record(look, split, found[0]["n"])
        with self.connect() as con:
            return con.execute(
                "select path, class_id from image where split = ?", [split]
            ).to_arrow_table()

    def feature_of(self, backbone: str, feature_id: int) -> tuple[str, int, str]:
        """Return the loaded backbone that has a feature, its place there, and its name.

        Raises
        ------
        NotFound
        """
        names = self.feature_names(backbone)
        if not 0 <= feature_id < len(names):
            raise NotFound(
                f"wanted a feature of {backbone!r} by its id (0 to {len(names) - 1}), got "
                f"{feature_id}."
            )
        place = feature_id
        for part in self._parts_of(backbone):
            n = len(self.feature_names(part))
            if place < n:
                return part, place, names[feature_id]
            place -= n
        raise AssertionError(feature_id)

    def feature_stats(self, part: str, place: int, splits: Collection[str]) -> list[dict[str, Any]]:
        """Return one feature's moments and stored quantiles, split by split; no vector is read.

        Each row has split, n_images, mean_value, sd_value, min_value, max_value, and the lists
        probabilities and quantiles.

        Parameters
        ----------
        part, place
            As `feature_of` returns them.
        """
        return self.rows(
            """select m.split, m.n_images, m.mean_value, m.min_value, m.max_value,
                sqrt((m.m2_within + m.m2_between) / nullif(m.n_images - 1, 0)) as sd_value,
                list(q.probability order by q.probability) as probabilities,
                list(q.value order by q.probability) as quantiles
            from feature_moment as m inner join feature_quantile as q
                using (backbone, split, feature_id)
            where backbone = ? and feature_id = ? and split in (select unnest(?::varchar[]))
            group by all""",
            [part, place, list(splits)],
        )

    def class_values(
        self,
        part: str,
        place: int,
        split: str,
        class_id: int,
        *,
        n_most: int,
        seed: int,
        look: Look,
    ) -> tuple[np.ndarray, int]:
        """Return one feature's values of images of one class, float64, and how many there are.

        Of more than `n_most` images a uniform sample is read: each row is looked up where it lies,
        so that a class of a large train split takes no longer. The look at a test split's labels is
        logged first.

        Parameters
        ----------
        part, place
            As `feature_of` returns them.

        Raises
        ------
        LookNotLogged
        """
        counted = self.rows(
            """select s.role, coalesce(sum(m.n_images), 0)::bigint as n from split as s
            left join class_moment as m
                on s.split = m.split and m.backbone = ? and m.class_id = ?
            where s.split = ? group by s.role""",
            [part, class_id, split],
        )
        if not counted or counted[0]["role"] != "train":
            Looks(self._data).record(look, split, counted[0]["n"] if counted else 0)
        table = f"feature.{quoted(part)}"
        with self.connect() as con:
            found = con.execute(
                f"""select f.rowid as place from image as i
                inner join {table} as f on i.image_id = f.image_id
                where i.split = ? and i.class_id = ? order by f.rowid""",
                [split, class_id],
            ).fetchnumpy()
            places = np.ma.getdata(found["place"]).astype(np.int64)
            n = len(places)
            if n > n_most:
                rng = np.random.default_rng(seed)
                places = places[np.sort(rng.choice(n, n_most, replace=False))]
            values = [np.empty(0)]
            column = f"vector[{place + 1}] as value"
            query = f"select rowid, {column} from {table} where rowid between ? and ?"
            # a look-up takes as long as reading some rows more
            for run in np.split(places, np.flatnonzero(np.diff(places) > _ROWS_A_LOOKUP) + 1):
                if len(run):
                    rows = con.execute(query, [int(run[0]), int(run[-1])]).fetchnumpy()
                    values.append(np.ma.getdata(rows["value"])[np.isin(rows["rowid"], run)])
            return np.concatenate(values).astype(float), n

    def image_files(self, image_ids: Collection[int]) -> list[dict[str, Any]]:
        """Return the rows of `image_file` of some images."""
        # one mark each: a list as one value would be joined to all images, forty times slower
        marks = ", ".join("?" * len(image_ids))
        return self.rows(
            f"select * from image_file where image_id in ({marks})", [*image_ids]
        ) if image_ids else []  # fmt: skip

    def vector(self, backbone: str, image_id: int) -> np.ndarray | None:
        """Return the features of one image, float32 [d]; None where it has none."""
        parts = []
        with self.connect() as con:
            for part in self._parts_of(backbone):
                found = con.execute(
                    f"select vector from feature.{quoted(part)} where image_id = ?", [image_id]
                ).fetchone()
                if found is None:
                    return None
                parts.append(np.array(found[0], np.float32))
        return np.concatenate(parts)

    def class_names(self) -> dict[int, str]:
        """Return the name of each class."""
        return {r["class_id"]: r["class_name"] for r in self._rows_of_load("select * from class")}

    def superclasses(self) -> dict[int, str]:
        """Return the superclass of each class that has one."""
        # a database of before superclasses lacks the column
        found = self._rows_of_load("select * from class")
        return {r["class_id"]: r["superclass"] for r in found if r.get("superclass")}

    def feature_names(self, backbone: str) -> list[str]:
        """Return the names of a backbone's features in the order of the vectors."""
        parts = self._parts_of(backbone)
        if len(parts) > 1:
            return [f"{part}.{name}" for part in parts for name in self.feature_names(part)]
        found = self._rows_of_load(
            "select feature_name from feature_name where backbone = ? order by feature_id",
            (backbone,),
        )
        return [row["feature_name"] for row in found]

    def train_rows(
        self, backbone: str, leave_out: Collection[str] = ()
    ) -> tuple[TrainRows, list[str]]:
        """Return the rows that may teach a head, and their paths: what alone feeds training.

        Parameters
        ----------
        leave_out
            Paths of train rows that are not wanted.

        Raises
        ------
        NotFound, models.errors.NoTrainRows
        """
        self.splits_of(backbone)
        parts = self._parts_of(backbone)
        if len(parts) > 1:
            return self._joined_train_rows(parts, leave_out)
        con = duckdb.connect()  # of its own: the rows are read while the training goes on
        attach(con, self._data)
        table = f"feature.{quoted(backbone)}"
        con.execute("create temp table left_out as select unnest(?::varchar[]) as path", [
            list(leave_out)
        ])  # fmt: skip
        meta = con.execute(
            f"""select f.rowid as place, l.path, l.class_id, l.role
            from labelled_image as l inner join {table} as f on l.image_id = f.image_id
            where l.role = 'train' and l.path not in (select path from left_out)
            order by f.rowid"""
        ).fetchnumpy()
        columns = {name: np.ma.getdata(values) for name, values in meta.items()}
        n_features = len(self.feature_names(backbone))
        stored = StoredRows(con, table, columns["place"].astype(np.int64), n_features)
        labels = columns["class_id"].astype(np.int64)
        rows = TrainRows(stored, labels, roles=set(columns["role"].tolist()))
        return rows, columns["path"].tolist()

    def train_images(self, backbone: str, places: Sequence[int]) -> dict[int, dict[str, Any]]:
        """Return id, split, path and class of some train rows, by their place in `train_rows`."""
        parts = self._parts_of(backbone)
        first, *others = (f"feature.{quoted(part)}" for part in parts)
        there = "".join(f" and l.image_id in (select image_id from {table})" for table in others)
        rows = self.rows(
            f"""with numbered as (
                select row_number() over (order by f.rowid) - 1 as place, l.image_id
                from labelled_image as l inner join {first} as f on l.image_id = f.image_id
                where l.role = 'train'{there}
            )
            select n.place, l.image_id, l.split, l.path, l.class_id, l.class_name
            from numbered as n inner join labelled_image as l on n.image_id = l.image_id
            where n.place in (select unnest(?::bigint[]))""",
            [list(places)],
        )
        return {row.pop("place"): row for row in rows}

    def _joined_train_rows(
        self, backbones: Sequence[str], leave_out: Collection[str]
    ) -> tuple[TrainRows, list[str]]:
        found = [self.train_rows(one, leave_out) for one in backbones]
        paths = [pa.array(p, pa.string()) for _, p in found]
        there = paths[0]
        for other in paths[1:]:
            there = there.filter(pc.is_in(there, value_set=other))
        matrices: list[Matrix] = []
        for (rows, _), own in zip(found, paths, strict=True):
            place = pc.index_in(there, value_set=own).to_numpy()
            features = rows.features
            if len(place) == len(own) and (np.diff(place) == 1).all():
                matrices.append(features)
            elif isinstance(features, StoredRows) and (np.diff(place) > 0).all():
                matrices.append(features.taken(place))
            else:  # in another order than the first: read whole, for they lie all over the table
                matrices.append(features[0 : len(own)][place])
        labels = found[0][0].labels[pc.index_in(there, value_set=paths[0]).to_numpy()]
        roles = {role for rows, _ in found for role in rows.roles}
        return TrainRows(JoinedRows(matrices), labels, roles=roles), there.to_pylist()

    def test_rows(self, backbone: str, split: str, *, look: Look) -> TestRows:
        """Return the rows of one test split; the look at their labels is logged first.

        Raises
        ------
        NotFound, NotATest, LookNotLogged
        """
        self.check_test_split(backbone, split)
        n = next(r["n_images"] for r in self.splits_of(backbone) if r["split"] == split)
        Looks(self._data).record(look, split, n)
        meta, features = self._read(backbone, split, "path, class_id")
        return TestRows(meta["path"].tolist(), meta["class_id"], features)

    def unlabelled_rows(self, backbone: str, split: str) -> tuple[list[str], np.ndarray]:
        """Return paths and features of one test split, and no labels: no look to log.

        Raises
        ------
        NotFound, NotATest
        """
        self.check_test_split(backbone, split)
        meta, features = self._read(backbone, split, "path")
        return meta["path"].tolist(), features

    def train_sd(self, backbone: str) -> np.ndarray:
        """Return the standard deviation of each feature over the train rows, float64 [d].

        0 where there are fewer than two train rows.
        """
        return self._train_stat(backbone, "sd_value")

    def train_mean(self, backbone: str) -> np.ndarray:
        """Return the mean of each feature over the train rows, float64 [d]."""
        return self._train_stat(backbone, "mean_value")

    def train_class_means(self, backbone: str) -> np.ndarray:
        """Return the mean of each feature over the train rows of each class, float64 [k, d].

        Only classes with train rows, by class id.
        """
        with self.connect() as con:
            table = con.execute(
                """select m.class_id, m.n_images, m.mean_values
                from class_moment as m inner join split as s on m.split = s.split
                where m.backbone = ? and s.role = 'train' and m.n_images > 0""",
                [backbone],
            ).to_arrow_table()
        n = table["n_images"].to_numpy()
        lists = table["mean_values"].combine_chunks()
        means = lists.flatten().to_numpy(zero_copy_only=False).reshape(len(n), -1)
        _, place = np.unique(table["class_id"].to_numpy(), return_inverse=True)
        n_of_class = np.bincount(place, n)
        found = np.zeros((len(n_of_class), means.shape[1] if len(n) else 0))
        np.add.at(found, place, n[:, None] * means)  # a class may be in several train splits
        return found / n_of_class[:, None]

    def _train_stat(self, backbone: str, column: str) -> np.ndarray:
        parts = self._parts_of(backbone)
        if len(parts) > 1:
            return np.concatenate([self._train_stat(part, column) for part in parts])
        found = self.rows(
            f"""select f.feature_id, f.{column} as value
            from feature_stat as f inner join split as s on f.split = s.split
            where f.backbone = ? and s.role = 'train'""",
            [backbone],
        )
        values = np.zeros(len(self.feature_names(backbone)))
        for row in found:
            values[row["feature_id"]] = row["value"] or 0.0
        return values

    def _read(
        self, backbone: str, split: str, columns: str
    ) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Columns of the images of a split that have vectors, and these, by image_id."""
        parts = self._parts_of(backbone)
        if len(parts) > 1:
            return self._read_joined(parts, split, columns)
        table = f"feature.{quoted(backbone)}"
        wanted = "select image_id from labelled_image where split = ?"
        with self.connect() as con:
            meta = con.execute(
                f"""select image_id, {columns} from labelled_image
                where split = ? and image_id in (select image_id from {table})
                order by image_id""",
                [split],
            ).fetchnumpy()
            ids = np.asarray(meta["image_id"], np.int64)
            row = con.execute(
                "select count(*) from feature_name where backbone = ?", [backbone]
            ).fetchone()
            features = np.empty((len(ids), int(row[0]) if row else 0), np.float32)
            batches = con.sql(
                f"select image_id, vector from {table} where image_id in ({wanted})", params=[split]
            ).to_arrow_reader(_BATCH_ROWS)
            for batch in batches:
                place = np.searchsorted(ids, batch.column(0).to_numpy())
                vectors = batch.column(1).flatten().to_numpy(zero_copy_only=False)
                features[place] = vectors.reshape(len(place), -1)
        found = {name: np.ma.getdata(values) for name, values in meta.items()}
        if "class_id" in found:
            found["class_id"] = found["class_id"].astype(np.int64)
        return found, features

    def _read_joined(
        self, backbones: Sequence[str], split: str, columns: str
    ) -> tuple[dict[str, np.ndarray], np.ndarray]:
        found = [self._read(one, split, columns) for one in backbones]
        ids = [meta["image_id"].astype(np.int64) for meta, _ in found]
        there = ids[0]
        for other in ids[1:]:
            there = np.intersect1d(there, other)
        place = [np.searchsorted(own, there) for own in ids]
        meta = {name: values[place[0]] for name, values in found[0][0].items()}
        features = [one[at] for (_, one), at in zip(found, place, strict=True)]
        return meta, np.concatenate(features, axis=1)


def _whose(backbone: str | None) -> str:
    return "the imported predictions" if backbone is None else repr(backbone)
