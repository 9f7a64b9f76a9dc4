"""One load at the size of ImageNet, stage by stage: `make bench-full`.

Generates train, val and v2 of one backbone, loads them in a process of its own, and asks every view
for one pair of splits. `--rows 1281167` is the model case: 13 GB of text and 6 GB of database.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from tests.bench.features import write_features

N_TEST = {"val": 50_000, "v2": 10_000}
ROWS_ASKED = 1024
BACKBONE = "eva02"


def load_and_time(folder: Path) -> None:
    """Load a folder, and print seconds of each stage and the peak memory as JSON."""
    from etl import load

    began = time.perf_counter()
    last: dict[str, float] = {}

    def progress(part: str, _done: int, _total: int) -> None:
        last[part.split()[0]] = time.perf_counter() - began

    report = load(folder / "data", [folder], progress=progress)
    stages, at = [], 0.0
    for part in report.loaded:
        stages.append((f"{part.split}: rows read and stored", last[part.split] - at))
        at += part.seconds_s
        stages.append((f"{part.split}: last rows, moments and quantiles", at - last[part.split]))
    stages.append(("views, checks, publishing", report.seconds_s - at))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"stages": stages, "seconds": report.seconds_s, "peak": peak}))


def slowest_views(data: Path) -> list[tuple[str, int, float]]:
    """Each view with rows and seconds of a query for one pair of splits, slowest first."""
    from etl.database import attach

    con = duckdb.connect()
    attach(con, data)
    views = con.execute(
        "select view_name from duckdb_views() where not internal and database_name = 'gap'"
    ).fetchall()
    found = []
    for (view,) in views:
        columns = [row[0] for row in con.execute(f"describe {view}").fetchall()]
        where = [
            f"{column} {condition}"
            for column, condition in (
                ("backbone", f"= '{BACKBONE}'"),
                ("split", "in ('val', 'v2')"),
                ("reference", "= 'val'"),
                ("target", "= 'v2'"),
            )
            if column in columns
        ]
        query = f"select * from {view} where {' and '.join(where or ['true'])} limit {ROWS_ASKED}"
        seconds = []
        for _ in range(3):
            began = time.perf_counter()
            rows = con.execute(query).fetchall()
            seconds.append(time.perf_counter() - began)
        found.append((view, len(rows), sorted(seconds)[1]))
    return sorted(found, key=lambda row: -row[2])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=200_000, help="of the train split")
    parser.add_argument("--features", type=int, default=1024)
    parser.add_argument("--load", type=Path, help="load this folder and print its stages")
    arguments = parser.parse_args()
    if arguments.load:
        load_and_time(arguments.load)
        return
    with tempfile.TemporaryDirectory() as name:
        folder, stages, n_bytes = Path(name), [], 0
        for split, n in {"train": arguments.rows, **N_TEST}.items():
            began = time.perf_counter()
            file = folder / f"{split}_{BACKBONE}.csv"
            write_features(file, split, n, arguments.features, seed=len(stages))
            stages.append((f"{split}: {n:,} rows generated", time.perf_counter() - began))
            n_bytes += file.stat().st_size
        command = [sys.executable, "-m", "tests.bench.full", "--load", name]
        done = json.loads(
            subprocess.run(command, check=True, capture_output=True, text=True).stdout
        )
        views = slowest_views(folder / "data")
        database = (folder / "data" / "gap.duckdb").stat().st_size
    print(
        f"{arguments.rows:,} + {' + '.join(f'{n:,}' for n in N_TEST.values())} rows × "
        f"{arguments.features:,}; {os.cpu_count()} cores, {platform.machine()}, Python "
        f"{platform.python_version()}, {datetime.now(UTC):%Y-%m-%d}\n"
    )
    print("| stage | seconds |\n| --- | ---: |")
    for stage, seconds in [*stages, *done["stages"]]:
        print(f"| {stage} | {seconds:.1f} |")
    print(f"| the whole load | {done['seconds']:.1f} |\n")
    print(
        f"{n_bytes / 1e9:.2f} GB of text at {n_bytes / 1e6 / done['seconds']:.0f} MB/s; database "
        f"{database / 1e9:.2f} GB; peak memory {done['peak'] / 1e9:.2f} GB.\n"
    )
    print("| view, val and v2 | rows | milliseconds |\n| --- | ---: | ---: |")
    for view, n, seconds in views[:5]:
        print(f"| {view} | {n:,} | {1000 * seconds:.0f} |")


if __name__ == "__main__":
    main()
