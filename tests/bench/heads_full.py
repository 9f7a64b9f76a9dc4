"""One training at ImageNet's size on generated features: `make bench-heads-full`.

Rows are generated when they are read, so that the memory counted is that of the training; they come
class after class, as ImageNet's train file does.
"""

import argparse
import os
import platform
import resource
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch

from models import heads
from models.heads import Resources, TrainRows
from tests.bench.heads import CLASSES, WIDTH, World

_ROWS = 8192


class Generated:
    """A matrix of n rows that are made when they are read; the same ones each time."""

    def __init__(self, labels: np.ndarray) -> None:
        self._world, self._labels = World(), labels
        self.shape = (len(labels), WIDTH)

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, rows: slice) -> np.ndarray:
        return self._world.rows(self._labels[rows], seed=rows.start)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_281_167)
    parser.add_argument("--head", default="logistic")
    parser.add_argument("--memory-gb", type=float, help="above it the rows go to disk")
    parser.add_argument("--spool", type=Path)
    arguments = parser.parse_args()
    labels = np.sort(np.random.default_rng(0).integers(CLASSES, size=arguments.rows))
    limit = None if arguments.memory_gb is None else int(arguments.memory_gb * 1e9)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    began, last = time.perf_counter(), ""

    def progress(share: float, message: str) -> None:
        nonlocal last
        if message != last:
            seconds = time.perf_counter() - began
            print(f"{seconds:7.0f} s {share:4.0%} {message}", file=sys.stderr, flush=True)
            last = message

    trained = heads.train(
        TrainRows(Generated(labels), labels, roles=["train"]),
        arguments.head,
        seed=0,
        progress=progress,
        resources=Resources(memory_limit=limit, spool=arguments.spool),
    )
    minutes = (time.perf_counter() - began) / 60
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(
        f"{os.cpu_count()} cores, {platform.machine()}, torch {torch.__version__}, "
        f"{datetime.now(UTC):%Y-%m-%d}\n"
        f"{arguments.head}, {arguments.rows:,} × {WIDTH:,} × {CLASSES:,}: {minutes:.1f} min, peak "
        f"memory {peak:.2f} GB ({before:.2f} GB before), internal validation "
        f"{trained.top1.estimate:.2%}, {trained.params}"
    )
    for note in trained.notes:
        print(f"note: {note}")
    for c in trained.candidates:
        print(f"  {c.params} on {c.n_fit:,} rows: {c.top1:.2%}, NLL {c.nll:.3f}")


if __name__ == "__main__":
    main()
