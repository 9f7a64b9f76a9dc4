"""Verdicts on refinements in worlds whose answer is known: `python -m tests.science.hypotheses`.

In each world the head is refined in four ways: without the nuisance features J, without the
attenuated ones A, with a thirty times stronger penalty, and without eight features drawn at random,
twenty times, as a family of their own.
"""

import argparse
import os
import platform
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime

import numpy as np
from threadpoolctl import threadpool_limits

from models import heads
from models.gap.hypotheses import Comparison, Verdict, compare, judge
from models.gap.resampling import replicates
from models.heads import TrainRows
from models.heads.training import refit
from tests.simulator import NUISANCE, D, World

SIZES = (200, 40)
N_RANDOM = 20


def verdicts(seed: int) -> dict[str, tuple[Comparison, Verdict]]:
    """Judge the three named refinements as one family, the random masks as another."""
    with threadpool_limits(1):
        world = World(seed)
        train = world.train()
        rows = TrainRows(train.features, train.labels.astype(np.int64), roles=["train"])
        sets = world.reference(SIZES[0]), world.target(SIZES[1])
        drawn = replicates(*(s.labels for s in sets), seed=seed)

        def right(without: np.ndarray, C: float = 0.03) -> tuple[np.ndarray, np.ndarray]:
            kept = np.setdiff1d(np.arange(D), without)
            head = refit(rows.only(kept), "logistic", {"C": C}, seed=seed)
            first, second = (
                heads.predict(head, s.features[:, kept], s.labels).correct for s in sets
            )
            return first, second

        nothing = np.array([], int)
        baseline = right(nothing)
        named = {
            "mask J": right(NUISANCE),
            "mask A": right(world.attenuated),
            "C .03 → .001": right(nothing, 0.001),
        }
        rng = np.random.default_rng(seed)
        random = {
            f"random mask {i}": right(rng.choice(D, len(NUISANCE), replace=False))
            for i in range(N_RANDOM)
        }
        answer = {}
        for family in (named, random):
            found = [compare(baseline, refined, drawn) for refined in family.values()]
            judged = judge(found, n_tests=len(found))
            answer |= dict(zip(family, zip(found, judged, strict=True), strict=True))
        return answer


def many(n_seeds: int) -> list[dict[str, tuple[Comparison, Verdict]]]:
    """Judge as many worlds, one process a core."""
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(verdicts, range(n_seeds)))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--worlds", type=int, default=10)
    worlds = many(parser.parse_args().worlds)
    print(
        f"{os.cpu_count()} cores, {platform.machine()}, {datetime.now(UTC):%Y-%m-%d}, "
        f"{len(worlds)} worlds\n\n"
        "| refinement | mean Δ gap, points | mean Δ target, points | verdicts |\n"
        "| --- | ---: | ---: | --- |"
    )
    for name in ("mask J", "mask A", "C .03 → .001"):
        found = [world[name] for world in worlds]
        gap, target = (
            100 * float(np.mean(values))
            for values in (
                [c.gap_change.estimate for c, _ in found],
                [c.target.difference.estimate for c, _ in found],
            )
        )
        words = [", ".join(verdict.words) for _, verdict in found]
        said = "; ".join(f"{words.count(w)} × {w}" for w in sorted(set(words)))
        print(f"| {name} | {gap:+.2f} | {target:+.2f} | {said} |")
    narrows = [
        sum("narrows the gap" in w[f"random mask {i}"][1].words for i in range(N_RANDOM))
        for w in worlds
    ]
    print(f"| {N_RANDOM} random masks | | | narrows, in each world: {narrows} |")


if __name__ == "__main__":
    main()
