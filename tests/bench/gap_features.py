"""What each step of /gap/{model}/features takes, near ImageNet's size, on normal features.

python -m tests.bench.gap_features --reference 50000 --target 10000
"""

import argparse
import resource
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from models.gap.features import distances, distances_within_classes, permutation_p_values
from models.gap.margins import StandardHead, margin_ledger, strongest_others
from models.gap.resampling import replicates
from models.gap.separation import losses, right_without, separation
from models.heads import LinearHead, scores

_MASKED = 50


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the steps of /gap/{model}/features.")
    parser.add_argument("--reference", type=int, default=50_000)
    parser.add_argument("--target", type=int, default=10_000)
    parser.add_argument("--features", type=int, default=1024)
    parser.add_argument("--classes", type=int, default=1000)
    asked = parser.parse_args()
    rng = np.random.default_rng(0)
    d, k = asked.features, asked.classes
    means = rng.standard_normal((k, d), dtype=np.float32) * 0.13
    labels = [np.arange(n) % k for n in (asked.reference, asked.target)]
    rows = [means[y] + rng.standard_normal((len(y), d), dtype=np.float32) for y in labels]
    rows[1] += 0.05
    zero, one = np.zeros(d), np.ones(d)
    head = LinearHead(zero, one, means.T.copy(), -np.square(means).sum(axis=1) / 2, np.arange(k))
    said = [scores(head, x) for x in rows]
    standard = StandardHead.of(head, zero, one)
    pairs = (rows[0], labels[0], rows[1], labels[1])

    timed("distances", lambda: distances(*rows))
    timed("distances within classes", lambda: distances_within_classes(*pairs))
    timed("p-values of shifts", lambda: permutation_p_values(*pairs, seed=0))
    drawn = timed("bootstrap weights", lambda: replicates(*labels, seed=0))
    found = timed("margins, C", lambda: margin_ledger(standard, *pairs, drawn))
    print(f"  residual {found.residual:.1e}")
    others = timed(
        "strongest others",
        lambda: tuple(strongest_others(s, y) for s, y in zip(said, labels, strict=True)),
    )
    found = timed("margins, D", lambda: margin_ledger(standard, *pairs, drawn, competitors=others))
    print(f"  residual {found.residual:.1e}")
    timed("separation", lambda: separation(*pairs, drawn))
    some = np.arange(_MASKED)
    without = timed(
        f"{_MASKED} features masked",
        lambda: [
            right_without(s, y, x[:, some], standard.weight[:, some])
            for s, y, x in zip(said, labels, rows, strict=True)
        ],
    )
    right = [s.argmax(axis=1) == y for s, y in zip(said, labels, strict=True)]
    timed("losses", lambda: losses(right[0], without[0], right[1], without[1], drawn))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"accuracy {right[0].mean():.3f} / {right[1].mean():.3f}; peak memory {peak:.1f} GB")


def timed(name: str, work: Callable[[], Any]) -> Any:
    began, cpu = time.perf_counter(), time.process_time()
    found = work()
    spent = time.process_time() - cpu
    print(f"{name:<28}{time.perf_counter() - began:6.2f} s, {spent:6.2f} s of cores", flush=True)
    return found


if __name__ == "__main__":
    main()
