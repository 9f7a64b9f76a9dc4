"""A load in a process of its own, to be killed or put on a faulty disk; and what a database holds.

Run as `python -m tests.e2e.loading DATA FEATURES`: says "begin", loads with replace, says "end", or
"refused" with code, file and line and exits with 2.
"""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import duckdb
import numpy as np

import etl
from etl.database import attach
from tests.faults.sheet import Sheet, good

ROOT = Path(__file__).resolve().parent.parent.parent
TIMES = {"seconds_s", "mb_per_s", "loaded_at"}
Content = dict[str, tuple[int, int]]


def main() -> int:
    data, folder = map(Path, sys.argv[1:])
    print("begin", flush=True)
    try:
        etl.load(data, [folder], replace=True)
    except etl.LoadRefused as error:
        place = "-" if error.file is None else Path(error.file).name
        print("refused", error.code, place, error.line, error, flush=True)
        return 2
    print("end", flush=True)
    return 0


def start(
    data: Path, folder: Path, environment: Mapping[str, str] | None = None
) -> subprocess.Popen[str]:
    """Start a load; its first line is "begin" once the imports are done."""
    command = [sys.executable, "-m", "tests.e2e.loading", str(data), str(folder)]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | dict(environment or {}),
    )  # fmt: skip


def write_features(folder: Path, seed: int, n_rows: int = 900) -> Path:
    """Two backbones over three splits; the train files are several blocks long."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    for backbone, d in (("wide", 700), ("narrow", 12)):
        few = good(rng, n=16, d=d, path=True, index=True, shuffled=False)
        for split, n in (("train", n_rows), ("val", 40), ("v2", 30)):
            rows = []
            for i in range(n):
                tail = few.rows[i % 16][3:]
                rows.append([str(i), f"{seed}/{split}/{i}.png", str(i % 5), *tail])
            sheet = Sheet(few.names, rows)
            (folder / f"{split}_{backbone}.csv").write_bytes(sheet.text())
    return folder


def content(data: Path) -> Content:
    """Rows and a sum over the hashes of all rows, for every table; times left out."""
    con = duckdb.connect()
    try:
        attach(con, data)
        tables = con.execute(
            """select schema_name, table_name from duckdb_tables() where database_name = 'gap'"""
        ).fetchall()
        found: Content = {}
        for schema, table in tables:
            names = con.execute(
                """select column_name from duckdb_columns()
                where database_name = 'gap' and schema_name = ? and table_name = ?""",
                [schema, table],
            ).fetchall()
            columns = ", ".join(f't."{name}"' for (name,) in names if name not in TIMES)
            rows = con.execute(
                f'select count(*), sum(hash({columns})) from gap."{schema}"."{table}" as t'
            ).fetchall()
            found[f"{schema}.{table}"] = rows[0]
        return found
    finally:
        con.close()


if __name__ == "__main__":
    sys.exit(main())
