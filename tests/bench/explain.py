"""All parts of /gap at the model case's size, timed one by one: `make bench-full`.

100,000 train rows stand for 1,281,167: only the clusters of `slices` and the search of `leaks` read
them. Test sets have 50,000 and 10,000 rows, 1,024 features, 1,000 classes.
"""

import argparse
import os
import platform
import resource
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from etl import load
from service.analysis import Analysis
from service.gap import PARTS, SLOW
from service.gap.explaining import Question
from tests.bench.heads import CLASSES, WIDTH, World

SIZES = {"train": 100_000, "val": 50_000, "v2": 10_000}


def write(folder: Path, share: float) -> None:
    """Feature files; the target's rows are drawn a little further from their class means."""
    world = World()
    for seed, (split, n) in enumerate(SIZES.items()):
        rows = int(n * share)
        labels = np.arange(rows) % CLASSES
        features = np.empty((rows, WIDTH), np.float32)
        for start in range(0, rows, 8192):
            here = slice(start, min(start + 8192, rows))
            features[here] = world.rows(labels[here], seed=seed * 1000 + start)
        if split == "v2":
            noise = np.random.default_rng(9).standard_normal(features.shape, dtype=np.float32)
            features += 0.1 * features.std() * noise
        np.savez(folder / f"{split}_wide.npz", features=features, label=labels)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--share", type=float, default=1.0, help="of the rows, for a quick look")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, data = Path(name, "features"), Path(name, "data")
        folder.mkdir()
        write(folder, arguments.share)
        load(data, [folder])
        analysis = Analysis(data)
        analysis.train(model="m", backbone="wide", head="lda", params={"shrinkage": 0.1}, seed=0)
        analysis.evaluate("m")
        print(
            f"{os.cpu_count()} cores, {platform.machine()}, {datetime.now(UTC):%Y-%m-%d}\n\n"
            "| part | seconds |\n| --- | ---: |"
        )
        began = time.perf_counter()
        question = Question(analysis, "m", None, None)
        question.compute(skip=SLOW)
        whole = time.perf_counter() - began
        for part in PARTS:
            answer = question.answer(part)
            if answer is not None:
                print(f"| {part} | {answer.seconds_s:.1f} |")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(f"\nall of them {whole:.1f} s; peak memory {peak:.2f} GB")
        began = time.perf_counter()
        for part in PARTS:
            question.stored(part)
        print(f"all of them again {time.perf_counter() - began:.3f} s")


if __name__ == "__main__":
    main()
