"""Predictions made before labels are read, against what the labels then say.

`python -m tests.science.sealing` prints the table: how often the sealed interval holds the accuracy
that the target's finite images show, on simulated worlds and on two real targets.
"""

import argparse
import os
import platform
import warnings
from collections.abc import Collection, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import softmax
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.neighbors import NearestCentroid
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from models.estimate import Estimate
from models.gap.line import baselines, fairest
from models.gap.sealing import LINE, Voice, alone, by_confidence, by_line, combine
from models.gap.without_labels import ATC_CONFIDENCE, ATC_ENTROPY, CBPE, DOC, Foreteller
from tests.science.coverage import is_below, n_covering
from tests.simulator import World
from tests.world import SHARED

SIZES = 200, 40
SEEN_BY_SCORES: dict[str, tuple[str, ...]] = {
    "no cause": (),
    "selection": ("selection",),
    "nuisance": ("nuisance",),
    "attenuation": ("attenuation",),
    "these three": ("selection", "nuisance", "attenuation"),
}
UNSEEN: dict[str, tuple[str, ...]] = {
    "noise": ("noise",),
    "concept": ("concept",),
    "all five": ("selection", "nuisance", "attenuation", "noise", "concept"),
}
WORLDS = SEEN_BY_SCORES | UNSEEN
METHODS = (ATC_CONFIDENCE, ATC_ENTROPY, DOC, CBPE, LINE)
REAL = (
    ("cifar10_lite0", ("train", "test1", "test2"), 0.003),
    ("pacs_lite0", ("train_photo", "test1_photo", "test2_art_painting"), 0.01),
)
COMBINED, WITH_LINE = "all methods", "all methods, with the line of four other heads"


@dataclass(frozen=True)
class Seal:
    """What was predicted, by name, as (estimate, low, high), and what came; fractions of 1."""

    predicted: dict[str, tuple[float, float, float]]
    reference: float
    truth: float


def seal(
    said: Sequence[np.ndarray], labels: Sequence[np.ndarray], others: np.ndarray | None, seed: int
) -> Seal:
    """Predict the accuracy on the target, then look.

    Parameters
    ----------
    said
        Scores on reference and target, [n, k].
    others
        Accuracies of other heads on both, [m, 2]; None leaves the line out.
    """
    p = [softmax(scores, axis=1) for scores in said]
    correct = [scores.argmax(axis=1) == y for scores, y in zip(said, labels, strict=True)]
    teller = Foreteller(labels[0], correct[0], len(said[1]), seed=seed)
    entropy = [-(q * np.log(q + 1e-300)).sum(axis=1) for q in p]
    confidence = [q.max(axis=1) for q in p]
    voices = by_confidence(teller, tuple(confidence), tuple(entropy))  # type: ignore[arg-type]
    a1, n = float(correct[0].mean()), len(said[1])
    found = {v.foretold.name: _ends(alone(v, n)) for v in voices}
    found[COMBINED] = _ends(combine(voices, a1, n).predicted)
    if others is not None:
        line = _line(others, correct[0], teller, a1)
        found[LINE] = _ends(alone(line, n))
        found[WITH_LINE] = _ends(combine([*voices, line], a1, n).predicted)
    return Seal(found, a1, float(correct[1].mean()))


def _line(others: np.ndarray, correct: np.ndarray, teller: Foreteller, a1: float) -> Voice:
    lines = baselines(others[:, 0], others[:, 1])
    key = fairest(lines, a1)
    assert key is not None
    return by_line(lines[key], correct, teller.drawn, "four other heads")


def of_world(seed: int, worlds: Collection[str]) -> dict[str, Seal]:
    """Train the heads of one seed, and seal the accuracy on each target."""
    world = World(seed)
    train, reference = world.train(), world.reference(SIZES[0])
    head = LogisticRegression(C=0.03, max_iter=100).fit(train.features, train.labels)
    others: list[Any] = [
        LinearDiscriminantAnalysis(),
        NearestCentroid(),
        RidgeClassifier(),
        LogisticRegression(C=0.001, max_iter=100),
    ]
    for other in others:
        other.fit(train.features, train.labels)
    first = [other.score(reference.features, reference.labels) for other in others]
    found = {}
    for name in worlds:
        target = world.target(SIZES[1], WORLDS[name])
        second = [other.score(target.features, target.labels) for other in others]
        found[name] = seal(
            [head.decision_function(s.features) for s in (reference, target)],
            [reference.labels, target.labels],
            np.column_stack([first, second]),
            seed,
        )
    return found


def _of_world_alone(arguments: tuple[int, tuple[str, ...]]) -> dict[str, Seal]:
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a hundred steps are enough here, converged or not
        return of_world(*arguments)


def many(worlds: Collection[str], n_seeds: int) -> dict[str, list[Seal]]:
    """Seal in as many worlds of each kind, one process a core."""
    work = [(seed, tuple(worlds)) for seed in range(n_seeds)]
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        found = list(pool.map(_of_world_alone, work))
    return {name: [one[name] for one in found] for name in worlds}


def covering(seals: Sequence[Seal], what: str = COMBINED) -> int:
    """How many intervals hold what came."""
    return n_covering([s.predicted[what] for s in seals], [s.truth for s in seals])


def real(name: str, train: str, reference: str, target: str, C: float) -> Seal:
    """Seal a real target of the shared data."""
    tables = [
        pd.read_parquet(SHARED / name / f"{one}.parquet") for one in (train, reference, target)
    ]
    sets = [
        (table.filter(regex=r"^f\d").to_numpy(np.float32), table["label"].to_numpy())
        for table in tables
    ]
    scaler = StandardScaler().fit(sets[0][0])
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        head = LogisticRegression(C=C, max_iter=100).fit(scaler.transform(sets[0][0]), sets[0][1])
    said = [head.decision_function(scaler.transform(x)) for x, _ in sets[1:]]
    return seal(said, [y for _, y in sets[1:]], None, 0)


def _ends(value: Estimate) -> tuple[float, float, float]:
    assert value.estimate is not None
    assert value.low is not None
    assert value.high is not None
    return value.estimate, value.low, value.high


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--worlds", type=int, default=25, help="worlds of each kind")
    n = parser.parse_args().worlds
    columns = ["causes", "fall, points", "error, points", "width, points", "held", "and the line"]
    print(
        f"{os.cpu_count()} cores, {platform.machine()}, {datetime.now(UTC):%Y-%m-%d}\n\n"
        f"| {' | '.join([*columns, *METHODS])} |\n"
        f"| --- |{' ---: |' * (len(columns) + len(METHODS) - 1)}"
    )
    for name, seals in many(WORLDS, n).items():
        _row(name, seals)
    for name, files, C in REAL:
        if (SHARED / name).is_dir():
            _row(f"real: {name}", [real(name, *files, C)])


def _row(name: str, seals: list[Seal]) -> None:
    ends = np.array([s.predicted[COMBINED] for s in seals])
    truth = np.array([s.truth for s in seals])
    points = (
        float(np.mean([s.reference for s in seals] - truth)),
        float((ends[:, 0] - truth).mean()),
        float((ends[:, 2] - ends[:, 1]).mean()),
    )
    fall, error, width = (100 * value for value in points)
    held = [_held(seals, what) for what in (COMBINED, WITH_LINE, *METHODS)]
    print(f"| {name} | {fall:.1f} | {error:+.1f} | {width:.1f} | {' | '.join(held)} |", flush=True)


def _held(seals: list[Seal], what: str) -> str:
    if what not in seals[0].predicted:
        return ""
    k = covering(seals, what)
    low = len(seals) > 1 and is_below(k, len(seals))
    return f"{k} of {len(seals)}" + (" (below .90)" if low else "")


if __name__ == "__main__":
    main()
