"""What follows once every row of a new database is in: its splits, classes, views and checks."""

import duckdb
import pyarrow as pa

from etl.class_names import ClassFile
from etl.database import create_views, quoted
from etl.errors import BadLabel, Leak, LoadRefused
from etl.header import LABEL, PATH
from etl.part import PartReport
from etl.reading import last_line_of
from etl.sources import role_of


def finish(
    con: duckdb.DuckDBPyConnection,
    splits: list[str],
    reference: str | None,
    loaded: list[PartReport],
    *,
    given: ClassFile | None = None,
    had_old: bool,
) -> None:
    """Write splits and classes, refuse leaks, make the views, and check all of it.

    Parameters
    ----------
    splits
        In load order.
    loaded
        The parts that were read now: where a refusal names a file, it is one of theirs.
    given
        Names of the classes as they were given, where they were; a label beyond them is refused.
    had_old
        Whether the classes of the database `old` go on to count.

    Raises
    ------
    BadLabel, Leak, LoadRefused
    """
    _write_splits(con, splits, reference)
    _write_classes(con, given, loaded, had_old=had_old)
    _refuse_leaks(con)
    create_views(con)
    _check(con)


def _write_splits(con: duckdb.DuckDBPyConnection, splits: list[str], reference: str | None) -> None:
    con.executemany(
        "insert into split values (?, ?, ?, ?)",
        [(split, role_of(split), split == reference, i) for i, split in enumerate(splits)],
    )


def _write_classes(
    con: duckdb.DuckDBPyConnection,
    given: ClassFile | None,
    loaded: list[PartReport],
    *,
    had_old: bool,
) -> None:
    known = given
    if known is None:
        old = con.execute("select * from old.class").fetchall() if had_old else []
        # a database of before superclasses has two columns
        known = ClassFile(
            {row[0]: row[1] for row in old}, {row[0]: row[2] for row in old if any(row[2:])}
        )
    used = con.execute("select distinct class_id from image order by class_id").fetchall()
    for (class_id,) in used:
        if given is not None and class_id not in known.names:
            _refuse_unnamed(con, class_id, len(known.names), loaded)
        known.names.setdefault(class_id, str(class_id))
    columns = {
        "class_id": list(known.names),
        "class_name": list(known.names.values()),
        "superclass": pa.array([known.superclasses.get(c) for c in known.names], pa.string()),
    }
    con.register("names", pa.table(columns))
    con.execute("insert into class select * from names order by class_id")
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
        if backbone is None:
            _check_added(con, split, n_images)
            continue
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


def _check_added(con: duckdb.DuckDBPyConnection, split: str, n_images: int) -> None:
    found, distinct = con.execute(
        """select count(*), count(distinct added.image_id)
        from added_image as added inner join image as i on added.image_id = i.image_id
        where i.split = ?""",
        [split],
    ).fetchall()[0]
    if not n_images == found == distinct:
        raise LoadRefused(
            f"{n_images} images of split {split!r} that predictions named",
            f"{found}, {distinct} of them different",
            "This is a fault of Gapscope: the old database stays; please report it.",
        )
