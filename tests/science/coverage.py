"""Intervals and terms against the simulator's truth: `make test-science` prints the table.

Each world is drawn anew for each seed; the truth of its head is computed by Monte Carlo.
"""

import argparse
import os
import platform
from collections.abc import Collection, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from scipy.stats import binom
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from models.gap.classes import class_counts, class_gaps
from models.gap.covariates import covariates_of, principal_components
from models.gap.difference import bootstrap_within_classes, newcombe
from models.gap.ledger import Group, Ledger, ledger
from tests.simulator import K, World

SIZES = ((200, 40), (50, 10))
WORLDS: dict[str, tuple[str, ...]] = {
    "no cause": (),
    "selection": ("selection",),
    "noise": ("noise",),
    "concept": ("concept",),
    "nuisance": ("nuisance",),
    "all causes": ("selection", "nuisance", "attenuation", "noise", "concept"),
}


@dataclass(frozen=True)
class Seen:
    """What one world showed; gaps and terms are fractions of 1."""

    truth: float
    newcombe: tuple[float, float, float]
    bootstrap: tuple[float, float, float]
    terms: dict[str, tuple[float, float, float] | None]
    alone: dict[str, tuple[float, float, float] | None]
    features_auc: float | None
    # classes whose label images of a concept class now bear, among the five largest shrunken gaps
    top_concept: int
    n_told: int  # classes that are told from the common gap


def look(
    seed: int, causes: Collection[str], sizes: tuple[int, int], *, terms: bool, concept: float
) -> Seen:
    """Draw one world, train its head, and ask."""
    world = World(seed, concept)
    train = world.train()
    head = LogisticRegression(C=0.03, max_iter=100).fit(train.features, train.labels)

    def predict(x: np.ndarray) -> np.ndarray:
        return np.asarray(head.decision_function(x).argmax(axis=1))

    sets = world.reference(sizes[0]), world.target(sizes[1], causes)
    right = [predict(s.features) == s.labels for s in sets]
    ids = np.arange(K)
    counts = [class_counts(s.labels, r, ids) for s, r in zip(sets, right, strict=True)]
    (k1, n1), (k2, n2) = counts
    gap = newcombe(int(k1.sum()), int(n1.sum()), int(k2.sum()), int(n2.sum()))
    drawn = bootstrap_within_classes(k1, n1, k2, n2, seed=seed)
    classes, _ = class_gaps(ids, k1, n1, k2, n2, seed=seed)
    found = _ledger(sets, right, head, train.features, seed) if terms else None
    features = None if found is None else next(t for t in found.terms if t.name == "features")
    return Seen(
        truth=world.gap_of(predict, causes),
        newcombe=_ends(gap),
        bootstrap=_ends(drawn),
        terms={} if found is None else {t.name: _ends_or_none(t.estimate) for t in found.terms},
        alone={}
        if found is None
        else {t.name: _ends_or_none(t.alone) for t in found.terms if t.alone is not None},
        features_auc=None if features is None else features.auc,
        # classes are those of the labels: an image of class y that is called conf(y) is wrong there
        top_concept=sum(c.class_id in (world.concept ^ 1) for c in classes[:5]),
        n_told=sum((c.q_value or 1) <= 0.05 for c in classes),
    )


def _ledger(sets, right, head, train, seed) -> Ledger:  # type: ignore[no-untyped-def]
    mean, sd = train.mean(axis=0), train.std(axis=0)
    hard = [
        covariates_of(
            head.decision_function(s.features).astype(np.float32), s.features,
            train_mean=mean, train_sd=sd,
        ).columns()
        for s in sets
    ]  # fmt: skip
    parts = principal_components(*(s.features for s in sets), scale=sd, n_components=20)
    groups = [
        Group("easiness", np.concatenate([s.easiness for s in sets])[:, None], "alike"),
        Group("difficulty", np.concatenate(hard), "alike"),
        Group("features", np.concatenate(parts).astype(float), "alike", n_knots=4),
    ]
    first, second = sets
    return ledger(first.labels, right[0], second.labels, right[1], groups, seed=seed)


def _ends(value) -> tuple[float, float, float]:  # type: ignore[no-untyped-def]
    return value.estimate, value.low, value.high


def _ends_or_none(value) -> tuple[float, float, float] | None:  # type: ignore[no-untyped-def]
    return None if value.estimate is None else _ends(value)


def _look_alone(arguments) -> Seen:  # type: ignore[no-untyped-def]
    with threadpool_limits(1):
        seed, causes, sizes, terms, concept = arguments
        return look(seed, causes, sizes, terms=terms, concept=concept)


def many(
    causes: Collection[str],
    sizes: tuple[int, int],
    n_seeds: int,
    *,
    terms: bool = True,
    concept: float = 0.12,
) -> list[Seen]:
    """Look at as many worlds, one process a core."""
    work = [(seed, tuple(causes), sizes, terms, concept) for seed in range(n_seeds)]
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(_look_alone, work))


def n_covering(ends: Sequence[tuple[float, float, float]], truth: Sequence[float]) -> int:
    """How many intervals hold their truth."""
    return sum(low <= t <= high for (_, low, high), t in zip(ends, truth, strict=True))


def is_below(covering: int, n: int, level: float = 0.90) -> bool:
    """Whether coverage is shown to lie below a level: one-sided binomial test at .05."""
    return bool(binom.cdf(covering, n, level) < 0.05)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--gaps", type=int, default=50, help="worlds for the gap's intervals")
    parser.add_argument("--ledgers", type=int, default=20, help="worlds for the ledger's terms")
    arguments = parser.parse_args()
    print(
        f"{os.cpu_count()} cores, {platform.machine()}, {datetime.now(UTC):%Y-%m-%d}\n\n"
        "| world | images a class | number | mean estimate, points | truth, points | covered |\n"
        "| --- | --- | --- | ---: | ---: | ---: |"
    )
    for name, causes in WORLDS.items():
        for sizes in SIZES:
            seen = many(causes, sizes, arguments.gaps, terms=False)
            truth = [s.truth for s in seen]
            for what in ("newcombe", "bootstrap"):
                _line(name, sizes, f"gap, {what}", [getattr(s, what) for s in seen], truth)
        seen = many(causes, SIZES[0], arguments.ledgers)
        for term in seen[0].terms:
            ends = [s.terms[term] for s in seen]
            known = [e for e in ends if e is not None]
            if len(known) < len(ends):
                print(f"| {name} | {SIZES[0]} | {term} | refused in {len(ends) - len(known)} of "
                      f"{len(ends)} | | |", flush=True)  # fmt: skip
                continue
            _line(name, SIZES[0], term, known, _truth_of(term, causes, seen))


def _truth_of(term: str, causes: Collection[str], seen: list[Seen]) -> list[float] | None:
    """What a term should be, where one cause at most is at work."""
    gaps = [s.truth for s in seen]
    if not causes:
        return [0.0] * len(seen)
    if tuple(causes) == ("selection",):
        return {"rest": [0.0] * len(seen), "easiness": gaps}.get(term)
    if tuple(causes) in (("noise",), ("concept",)):
        return gaps if term == "rest" else [0.0] * len(seen)
    return None


def _line(
    world: str,
    sizes: tuple[int, int],
    number: str,
    ends: list[tuple[float, float, float]],
    truth: list[float] | None,
) -> None:
    mean = 100 * float(np.mean([e[0] for e in ends]))
    size = f"{sizes[0]} + {sizes[1]}"
    if truth is None:
        print(f"| {world} | {size} | {number} | {mean:.2f} | | |", flush=True)
        return
    covered = f"{n_covering(ends, truth)} of {len(ends)}"
    print(
        f"| {world} | {size} | {number} | {mean:.2f} | {100 * float(np.mean(truth)):.2f} "
        f"| {covered} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
