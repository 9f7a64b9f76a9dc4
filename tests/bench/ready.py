"""How soon the service is ready over a large database: `python -m tests.bench.ready [--gb 14]`.

A world of the loader's own is made and loaded, and its train features are repeated until the file
has the size: what opening a database costs depends on its size, not on what the numbers are.
"""

import argparse
import os
import platform
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from etl import load
from etl.database import DATABASE
from tests.bench.explain import write
from tests.e2e.server import serving

READY_S = 10.0  # wanted
TIMES = 3


def grow(file: Path, n_bytes: float) -> None:
    """Repeat the rows of the features until the file has so many bytes."""
    with duckdb.connect(str(file)) as con:
        con.execute("set preserve_insertion_order = false")
        (size,) = con.sql("select used_blocks * block_size from pragma_database_size()").fetchone()
        n = int(n_bytes / size)
        for _ in range(n):
            con.execute("insert into feature.wide select * from feature.wide limit 160000")
            con.execute("checkpoint")
            (size,) = con.sql(
                "select used_blocks * block_size from pragma_database_size()"
            ).fetchone()
            print(f"{size / 1e9:.1f} GB", end="\r", flush=True)
            if size >= n_bytes:
                return


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--gb", type=float, default=14.0)
    parser.add_argument("--data", type=Path, help="a folder to make the world in, and to keep")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        data = arguments.data or Path(name) / "data"
        if not (data / DATABASE).exists():
            write(Path(name) / "csv", 1.0)
            load(data, [Path(name) / "csv"])
        if (data / DATABASE).stat().st_size < 0.95e9 * arguments.gb:
            grow(data / DATABASE, 1e9 * arguments.gb)
        size = (data / DATABASE).stat().st_size
        print(
            f"{os.cpu_count()} cores, {platform.machine()}, {datetime.now(UTC):%Y-%m-%d}; database "
            f"of {size / 1e9:.1f} GB"
        )
        for i in range(TIMES):
            began = time.monotonic()
            with serving(data) as (client, _):
                seconds = time.monotonic() - began
                answer = client.get("/ready").json()
            print(f"start {i + 1}: ready after {seconds:.1f} s {answer}")
        print(f"wanted: {READY_S:.0f} s")


if __name__ == "__main__":
    main()
