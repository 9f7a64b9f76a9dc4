"""The order of events in a load: find, check, copy what stays, read what is new, publish."""

import hashlib
import json
import os
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import duckdb
import pyarrow as pa

from etl.class_names import read_class_names
from etl.database import (
    DATABASE,
    attach,
    check_room,
    create_tables,
    create_views,
    exclusive,
    quoted,
    staging,
)
from etl.errors import BadLabel, Leak, LoadRefused, SourceName
from etl.header import LABEL, PATH
from etl.part import Part, PartReport, Progress, load_part
from etl.reading import last_line_of, open_features
from etl.sources import Source, default_reference, find_sources, gap_ends, role_of
from etl.tables import label_file


@dataclass(frozen=True)
class LoadReport:
    """What a load did.

    Attributes
    ----------
    loaded : the parts that were read, in order
    kept : (split, backbone) of the parts that were there and stay
    notes : what was passed over
    reference, target : the two ends of the default gap; None where there are fewer test splits
    ends : the same for each backbone, by its name: where the reference has no features of it, the
        usual names decide
    has_train : backbones that have train rows
    seconds_s : seconds of the whole load
    """

    loaded: list[PartReport]
    kept: list[tuple[str, str]]
    notes: list[str]
    reference: str | None
    target: str | None
    ends: dict[str, tuple[str | None, str | None]]
    has_train: set[str]
    seconds_s: float


@dataclass(frozen=True)
class _Present:
    """What the present database holds, as far as a load has to know it."""

    parts: list[PartReport] = field(default_factory=list)
    features: dict[str, tuple[str, ...]] = field(default_factory=dict)
    reference: str | None = None
    splits: tuple[str, ...] = ()

    def part(self, source: Source) -> PartReport | None:
        for part in self.parts:
            if (part.split, part.backbone) == (source.split, source.backbone):
                return part
        return None


def load(
    data: Path,
    places: Sequence[Path],
    *,
    explicit: Sequence[str] = (),
    reference: str | None = None,
    paths_from: str | None = None,
    classes: Path | None = None,
    replace: bool = False,
    n_threads: int | None = None,
    progress: Progress = lambda _part, _done, _total: None,
) -> LoadReport:
    """Load feature files into the data folder's database, or refuse and leave it as it was.

    Parts that are there and not named stay; a part whose file has not changed since (place, size
    and time, or else its digest) is not loaded again.

    Parameters
    ----------
    data
        The data folder; `gap.duckdb` in it is replaced at the end.
    places
        Feature files and folders of them, named `<split>_<backbone>.csv`.
    explicit
        More of them as `SPLIT[:BACKBONE]=FILE`.
    reference
        Test set 1; by default the one that was, or `etl.sources.default_reference`.
    paths_from
        A backbone whose paths, row by row, are those of the files that have none.
    classes
        Names of the classes; a label beyond them is refused.
    replace
        Forget what is there.
    n_threads
        Blocks parsed side by side; all cores by default.
    progress
        Called with the part's name, bytes done and bytes in all.

    Raises
    ------
    LoadRefused
        One of its children (see `etl.errors`), with file, line and column where there is one.
    """
    began = time.monotonic()
    n_threads = n_threads or os.cpu_count() or 1
    with exclusive(data):
        sources, notes = find_sources(places, explicit)
        present = _Present() if replace else _read_present(data)
        options = {source: _options(source, paths_from) for source in sources}
        changed = [s for s in sources if not _is_unchanged(s, present.part(s), options[s])]
        claimed = {(s.split, s.backbone) for s in changed}
        kept = [p for p in present.parts if (p.split, p.backbone) not in claimed]
        splits = list(dict.fromkeys([*present.splits, *(s.split for s in sources)]))
        splits = [s for s in splits if s in {p.split for p in kept} | {c.split for c in changed}]
        chosen = _choose_reference(splits, reference, present.reference)
        loaded: list[PartReport] = []
        if changed or chosen != present.reference or classes is not None:
            names = None if classes is None else read_class_names(classes)
            check_room(data, sum(s.file.stat().st_size for s in changed if s.file.exists()))
            with ExitStack() as files, staging(data, n_threads) as con:
                parts = _open_all(files, changed, kept, present)
                create_tables(con)
                _copy_kept(con, kept)
                loaded = [
                    load_part(con, part, paths_from, options[part.source], n_threads, progress)
                    for part in parts
                ]
                _write_splits(con, splits, chosen)
                _write_classes(con, names, loaded, had_old=bool(present.parts))
                _refuse_leaks(con)
                create_views(con)
                _check(con)
    pairs = {(p.split, p.backbone) for p in kept} | claimed
    backbones = dict.fromkeys([*(p.backbone for p in kept), *(s.backbone for s in changed)])
    tests = [split for split in splits if role_of(split) == "test"]
    return LoadReport(
        loaded=loaded,
        kept=[(p.split, p.backbone) for p in kept],
        notes=notes,
        reference=chosen,
        target=gap_ends(tests, chosen)[1],
        ends={b: gap_ends([s for s in tests if (s, b) in pairs], chosen) for b in backbones},
        has_train={b for b in backbones if ("train", b) in pairs},
        seconds_s=time.monotonic() - began,
    )


def _read_present(data: Path) -> _Present:
    if not (data / DATABASE).exists():
        return _Present()
    con = duckdb.connect()
    try:
        attach(con, data)
        columns = ", ".join(PartReport.__dataclass_fields__)
        rows = con.execute(f"select {columns} from load_report").fetchall()
        parts = [PartReport(*row) for row in rows]
        features: dict[str, tuple[str, ...]] = {}
        for backbone, name in con.execute(
            "select backbone, feature_name from feature_name order by backbone, feature_id"
        ).fetchall():
            features[backbone] = (*features.get(backbone, ()), name)
        splits = con.execute("select split, is_reference from split order by load_order").fetchall()
    except (duckdb.IOException, duckdb.CatalogException, duckdb.BinderException) as error:
        raise LoadRefused(
            "a database that this version of Gapscope wrote",
            str(error).splitlines()[0],
            "Load all files again with --replace.",
            file=data / DATABASE,
        ) from error
    finally:
        con.close()
    reference = next((split for split, is_reference in splits if is_reference), None)
    return _Present(parts, features, reference, tuple(split for split, _ in splits))


def _options(source: Source, paths_from: str | None) -> str:
    """Return what else decides how a file is read, as JSON."""
    beside = label_file(source.file)
    labels = hashlib.sha256(beside.read_bytes()).hexdigest() if beside.is_file() else None
    return json.dumps({"paths_from": paths_from, "labels_sha256": labels})


def _is_unchanged(source: Source, part: PartReport | None, options: str) -> bool:
    """Whether a part is loaded already: by place, size and time, else by size and digest."""
    if part is None or options != part.options or not source.file.is_file():
        return False
    now = source.file.stat()
    if now.st_size != part.size_bytes:
        return False
    if (source.name, now.st_mtime_ns) == (part.file, part.mtime_ns):
        return True
    if part.file.partition("::")[2] != (source.member or ""):
        return False
    with source.file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest() == part.sha256


def _choose_reference(splits: list[str], asked: str | None, before: str | None) -> str | None:
    tests = [split for split in splits if role_of(split) == "test"]
    if asked is not None and asked not in tests:
        raise SourceName(
            f"a test split as --reference (here: {', '.join(tests) or 'none'})",
            asked,
            "Name one of them.",
        )
    if asked is not None:
        return asked
    return before if before in tests else default_reference(tests)


def _open_all(
    files: ExitStack, sources: list[Source], kept: list[PartReport], present: _Present
) -> list[Part]:
    """Open every file and hold its header against its backbone's, before any row is read."""
    features = {p.backbone: present.features[p.backbone] for p in kept}
    parts = []
    # train first: where the others differ from it, they are the ones to be named
    for source in sorted(sources, key=lambda source: source.role != "train"):
        file = open_features(source.file, source.member)
        files.callback(file.close)
        first = features.setdefault(source.backbone, file.header.features)
        file.header.in_order_of(first, source.file)
        parts.append(Part(source, file, first))
    # files that name their images first: others may take the paths from them
    return sorted(parts, key=lambda part: not part.file.header.has_path)


def _copy_kept(con: duckdb.DuckDBPyConnection, kept: list[PartReport]) -> None:
    if not kept:
        return
    con.execute("create temp table kept (split varchar, backbone varchar)")
    con.executemany("insert into kept values (?, ?)", [(p.split, p.backbone) for p in kept])
    for backbone in dict.fromkeys(p.backbone for p in kept):
        table = f"feature.{quoted(backbone)}"
        con.execute("set force_compression = 'uncompressed'")
        con.execute(
            f"""create table {table} as
            select f.image_id, f.vector from old.{table} as f
            where f.image_id in (
                select i.image_id from old.image as i
                where i.split in (select k.split from kept as k where k.backbone = ?)
            )""",
            [backbone],
        )
        con.execute("checkpoint gap")
        con.execute("set force_compression = 'auto'")
        con.execute(
            "insert into feature_name select * from old.feature_name where backbone = ?", [backbone]
        )
    for table in ("class_moment", "feature_moment", "feature_quantile", "load_report"):
        con.execute(
            f"""insert into {table} select * from old.{table}
            where (split, backbone) in (select (split, backbone) from kept)"""
        )
    images = " union ".join(
        f"select image_id from feature.{quoted(b)}" for b in dict.fromkeys(p.backbone for p in kept)
    )
    con.execute(f"insert into image select * from old.image where image_id in ({images})")
    con.execute("drop table kept")


def _write_splits(con: duckdb.DuckDBPyConnection, splits: list[str], reference: str | None) -> None:
    con.executemany(
        "insert into split values (?, ?, ?, ?)",
        [(split, role_of(split), split == reference, i) for i, split in enumerate(splits)],
    )


def _write_classes(
    con: duckdb.DuckDBPyConnection,
    names: dict[int, str] | None,
    loaded: list[PartReport],
    *,
    had_old: bool,
) -> None:
    given = names is not None
    if names is None:
        old = "select class_id, class_name from old.class"
        names = dict(con.execute(old).fetchall()) if had_old else {}
    used = con.execute("select distinct class_id from image order by class_id").fetchall()
    for (class_id,) in used:
        if given and class_id not in names:
            _refuse_unnamed(con, class_id, len(names), loaded)
        names.setdefault(class_id, str(class_id))
    con.register("names", pa.table({"class_id": list(names), "class_name": list(names.values())}))
    con.execute("insert into class select class_id, class_name from names order by class_id")
    con.unregister("names")


def _refuse_unnamed(
    con: duckdb.DuckDBPyConnection, class_id: int, n_names: int, loaded: list[PartReport]
) -> None:
    split, path = con.execute(
        "select split, path from image where class_id = ? order by image_id limit 1", [class_id]
    ).fetchall()[0]
    file = next((part.file for part in loaded if part.split == split), None)
    raise BadLabel(
        f"one of the {n_names} labels in the class-name file",
        f"{class_id} (image {path!r} of split {split!r})",
        "Name the class there, or correct the label.",
        file=file,
        line=last_line_of(file, path) if file else None,
        column=LABEL,
    )


def _refuse_leaks(con: duckdb.DuckDBPyConnection) -> None:
    """Refuse a path that stands in a train and in a test split: a head would learn its test."""
    leaks = con.execute(
        """select tr.path, te.split, count(*) over () as n_leaks
        from image as tr
        inner join image as te on tr.path = te.path
        where
            tr.split in (select s.split from split as s where s.role = 'train')
            and te.split in (select s.split from split as s where s.role = 'test')
        order by tr.image_id
        limit 5"""
    ).fetchall()
    if not leaks:
        return
    path, split, n_leaks = leaks[0]
    files = con.execute(
        """select file from load_report
        where split in (select s.split from split as s where s.role = 'train')"""
    ).fetchall()
    places = [(file, last_line_of(file, path)) for (file,) in files]
    file, line = next((p for p in places if p[1] is not None), (None, None))
    raise Leak(
        "train rows that are in no test split",
        f"{path!r}, which is also in test split {split!r} ({n_leaks} such rows in all)",
        "Take these images out of the train file: a head that has seen them cannot be tested on "
        "them.",
        file=file,
        line=line,
        column=PATH,
    )


def _check(con: duckdb.DuckDBPyConnection) -> None:
    """Hold the new database against its own report before it is published."""
    parts = con.execute("select split, backbone, n_images from load_report").fetchall()
    for split, backbone, n_images in parts:
        stored, distinct = con.execute(
            f"""select count(*), count(distinct f.image_id)
            from feature.{quoted(backbone)} as f inner join image as i on f.image_id = i.image_id
            where i.split = ?""",
            [split],
        ).fetchall()[0]
        counted = con.execute(
            """select coalesce(sum(n_images), 0) from class_moment
            where split = ? and backbone = ?""",
            [split, backbone],
        ).fetchall()[0][0]
        if not n_images == stored == distinct == counted:
            raise LoadRefused(
                f"{n_images} images of split {split!r} in {backbone!r}",
                f"{stored} vectors of {distinct} images, {counted} counted",
                "This is a fault of Gapscope: the old database stays; please report it.",
            )
