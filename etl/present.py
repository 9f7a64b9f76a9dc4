"""What the present database holds, and what of it goes over into the next one."""

from dataclasses import dataclass, field
from pathlib import Path

import duckdb

from etl.database import DATABASE, attach, of_this_version, quoted
from etl.errors import LoadRefused
from etl.part import PartReport
from etl.sources import Source, default_reference, role_of


@dataclass(frozen=True)
class Present:
    """What the present database holds, as far as a load has to know it."""

    parts: list[PartReport] = field(default_factory=list)
    features: dict[str, tuple[str, ...]] = field(default_factory=dict)
    reference: str | None = None
    splits: tuple[str, ...] = ()

    @property
    def n_features(self) -> int:
        """Features of the widest backbone."""
        return max((len(names) for names in self.features.values()), default=0)

    @property
    def named_reference(self) -> str | None:
        """The reference, if somebody named it; what the default rule gave, it may give anew."""
        tests = [split for split in self.splits if role_of(split) == "test"]
        return None if self.reference == default_reference(tests) else self.reference

    def part(self, source: Source) -> PartReport | None:
        """Return the part that a source was loaded as, if it is there."""
        for part in self.parts:
            if (part.split, part.backbone) == (source.split, source.backbone):
                return part
        return None


def read_present(data: Path) -> Present:
    """Return what the data folder's database holds; nothing where there is none.

    Raises
    ------
    LoadRefused
        Another version of Gapscope wrote it.
    """
    if not (data / DATABASE).exists():
        return Present()
    con = duckdb.connect()
    try:
        with of_this_version(data, LoadRefused):
            attach(con, data)
            columns = ", ".join(PartReport.__dataclass_fields__)
            rows = con.execute(f"select {columns} from load_report").fetchall()
            parts = [PartReport(*row) for row in rows]
            con.execute("from added_image limit 0")  # a table that older versions did not write
            features: dict[str, tuple[str, ...]] = {}
            for backbone, name in con.execute(
                "select backbone, feature_name from feature_name order by backbone, feature_id"
            ).fetchall():
                features[backbone] = (*features.get(backbone, ()), name)
            splits = con.execute(
                "select split, is_reference from split order by load_order"
            ).fetchall()
    finally:
        con.close()
    reference = next((split for split, is_reference in splits if is_reference), None)
    return Present(parts, features, reference, tuple(split for split, _ in splits))


def copy_kept(con: duckdb.DuckDBPyConnection, kept: list[PartReport]) -> None:
    """Copy the parts that stay, with their images, from the attached database `old`."""
    if not kept:
        return
    con.execute("create temp table kept (split varchar, backbone varchar)")
    con.executemany("insert into kept values (?, ?)", [(p.split, p.backbone) for p in kept])
    backbones = list(dict.fromkeys(p.backbone for p in kept if p.backbone is not None))
    for backbone in backbones:
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
            f"""insert into {table} select t.* from old.{table} as t
            where exists (
                from kept where kept.split = t.split
                and kept.backbone is not distinct from t.backbone
            )"""
        )
    con.execute(
        """insert into added_image select added.image_id
        from old.added_image as added inner join old.image as i on added.image_id = i.image_id
        where i.split in (select split from kept where backbone is null)"""
    )
    tables = ["added_image", *(f"feature.{quoted(backbone)}" for backbone in backbones)]
    images = " union ".join(f"select image_id from {table}" for table in tables)
    con.execute(f"insert into image select * from old.image where image_id in ({images})")
    con.execute("drop table kept")
