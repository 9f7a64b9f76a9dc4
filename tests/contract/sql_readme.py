"""Writes sql/README.md from the comments in a fresh database: `make docs`."""

import tempfile
from pathlib import Path

import duckdb

from etl import load
from etl.database import SQL, attach, sql_files
from tests.world import make_world, write_world

INTRO = """# What the data mean

Made by `make docs` from the comments in the database; do not edit. Sorted file names are the order
in which the files run; the first digit is the layer: 0 tables, 1 labelled rows, 2 within a split,
3 between splits, 4 over results. Fractions are of 1, null is undefined, and a gap is reference
minus target. Vectors are in `feature."<backbone>"` (`image_id`, `vector float[d]`), one table a
backbone.
"""


def sql_readme() -> str:
    """The text of sql/README.md."""
    with tempfile.TemporaryDirectory() as folder:
        load(Path(folder) / "data", [write_world(Path(folder) / "csv", make_world())])
        con = duckdb.connect()
        attach(con, Path(folder) / "data")
        names = [file.stem[3:] for file in sql_files()]
        about = dict(
            con.execute(
                """select table_name, comment from duckdb_tables() where schema_name = 'main'
                union all select view_name, comment from duckdb_views() where not internal"""
            ).fetchall()
        )
        columns = con.execute(
            """select table_name, column_name, data_type, comment from duckdb_columns()
            where schema_name = 'main' and database_name = 'gap' order by column_index"""
        ).fetchall()
        con.close()
    parts = [INTRO]
    for name in names:
        rows = [c for c in columns if c[0] == name]
        parts.append(
            f"## {name}\n\n{about[name]}\n\n| column | type | meaning |\n| --- | --- | --- |"
        )
        parts[-1] += "".join(
            f"\n| {column} | {kind.lower()} | {comment} |" for _, column, kind, comment in rows
        )
        parts[-1] += "\n"
    return "\n".join(parts)


if __name__ == "__main__":
    (SQL / "README.md").write_text(sql_readme(), encoding="utf-8")
