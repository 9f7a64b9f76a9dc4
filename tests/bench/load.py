"""The loader beside DuckDB's and pandas' own readers, in one run: `make bench`.

Each runs in a process of its own, so that peak memory is its own; the file is read once before, so
that all find it in the page cache. Gapscope stores vectors, moments and quantiles; DuckDB stores a
wide table; pandas stores nothing.
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

import numpy as np

from tests.bench.features import write_features


def by_gapscope(file: Path, work: Path) -> None:
    from etl import load

    load(work / "data", [file])


def by_duckdb(file: Path, work: Path) -> None:
    import duckdb

    con = duckdb.connect()
    con.execute("set enable_progress_bar = false")
    con.execute("set force_compression = 'uncompressed'")
    con.execute(f"attach '{work / 'wide.duckdb'}' as wide (row_group_size 8192)")
    con.execute(f"create table wide.t as from read_csv('{file}')")
    con.execute("checkpoint wide")


def by_pandas(file: Path, _work: Path) -> None:
    import pandas as pd

    pd.read_csv(file)


READERS = {"gapscope load": by_gapscope, "duckdb read_csv, wide table": by_duckdb,
           "pandas.read_csv, nothing stored": by_pandas}  # fmt: skip


def one(reader: str, file: Path) -> None:
    """Run one reader and print its seconds and peak memory, process start apart."""
    with tempfile.TemporaryDirectory(dir=file.parent) as work:
        __import__("etl"), __import__("duckdb"), __import__("pandas")
        began = time.perf_counter()
        READERS[reader](file, Path(work))
        seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": seconds, "peak": peak}))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--features", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", nargs=2, metavar=("READER", "FILE"))
    arguments = parser.parse_args()
    if arguments.one:
        one(arguments.one[0], Path(arguments.one[1]))
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "train_bench.csv"
        write_features(file, "train", arguments.rows, arguments.features, seed=0)
        megabytes = file.stat().st_size / 1e6
        file.read_bytes()
        runs: dict[str, list[dict[str, float]]] = {reader: [] for reader in READERS}
        for _ in range(arguments.rounds):
            for reader in READERS:  # in turn, so that a drift of the machine meets all alike
                command = [sys.executable, "-m", "tests.bench.load", "--one", reader, str(file)]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                runs[reader].append(json.loads(done.stdout.splitlines()[-1]))
    print(
        f"{arguments.rows:,} × {arguments.features:,}, {megabytes:.0f} MB, median of "
        f"{arguments.rounds}; {os.cpu_count()} cores, {platform.machine()}, Python "
        f"{platform.python_version()}, {datetime.now(UTC):%Y-%m-%d}\n"
    )
    print("| reader | MB/s | seconds | peak memory, GB | Gapscope's speed against it |")
    print("| --- | ---: | ---: | ---: | ---: |")
    ours = None
    for reader, found in runs.items():
        seconds = float(np.median([run["seconds"] for run in found]))
        peak = max(run["peak"] for run in found) / 1e9
        ours = ours or seconds
        print(
            f"| {reader} | {megabytes / seconds:.0f} | {seconds:.1f} | {peak:.2f} "
            f"| {seconds / ours:.2f} |"
        )


if __name__ == "__main__":
    main()
