"""Explainers on random halves of one real set: `python -m tests.science.placebo` prints the table.

Both halves are draws of the same images, so that every finding is a false one. Images are those of
CIFAR-10's test set (shared data), the head is fitted once and never sees them; only the split into
halves, within classes, is chance.
"""

import argparse
import os
import platform
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields
from datetime import UTC, datetime

import numpy as np
import pandas as pd
from scipy.stats import binom
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from models.estimate import Estimate, wilson
from models.gap.calibration import Answers, brier_scores, calibration
from models.gap.classes import class_counts, common_gap, fit_class_model
from models.gap.confusions import confusions
from models.gap.covariates import covariates_of, principal_components
from models.gap.difference import bootstrap_within_classes, newcombe
from models.gap.disde import Disde
from models.gap.excess import (
    benjamini_hochberg,
    equality_p_values,
    excess_p_values,
    prediction_p_values,
)
from models.gap.features import feature_shifts
from models.gap.halves import explore_half
from models.gap.hierarchy import superclass_gaps
from models.gap.labels import by_agreement, label_quality
from models.gap.ledger import SUPPORTED, Group, ledger
from models.gap.margins import StandardHead, margin_ledger, strongest_others
from models.gap.resampling import Replicates, replicates
from models.gap.separation import losses, right_without, separation
from models.gap.slices import clusters_of, find_slices, slice_gaps
from models.gap.standardise import Covariate, standardise
from models.gap.without_labels import ATC_CONFIDENCE, ATC_ENTROPY, Foreteller, judge
from models.heads import LinearHead
from tests.world import SHARED

CIFAR = SHARED / "cifar10_lite0"
N_RUNS = 200
LEVEL = 0.05
_COMPONENTS, _MASKED = 20, 50
_VEHICLES = (0, 1, 8, 9)
_HALVES_SEED = 1_000_000
_CONFIDENCE = "confidence"


@dataclass(frozen=True)
class Images:
    """Images of one set and what the head says of them; one row an image in every array."""

    labels: np.ndarray
    features: np.ndarray
    scores: np.ndarray
    hard: np.ndarray  # confidence, margin, entropy, norm
    human_agreement: np.ndarray
    components: np.ndarray
    cluster: np.ndarray
    keys: np.ndarray

    def take(self, rows: np.ndarray) -> "Images":
        """Some of the images."""
        return Images(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    @property
    def predicted(self) -> np.ndarray:
        """Class of the largest score."""
        return np.asarray(self.scores.argmax(axis=1))

    @property
    def correct(self) -> np.ndarray:
        """Whether the head is right."""
        return np.asarray(self.predicted == self.labels)


@dataclass(frozen=True)
class World:
    """Two test sets, the head, and what is known of the train rows."""

    reference: Images
    target: Images
    head: StandardHead
    train_sd: np.ndarray
    n_clusters: int


def load() -> World:
    """Read the shared data and fit the head on the train rows, with scikit-learn."""
    train, *tests = (
        pd.read_parquet(CIFAR / f"{name}.parquet") for name in ("train", "test1", "test2")
    )
    names = [name for name in train if name.startswith("f")]
    x, y = train[names].to_numpy(np.float32), train["label"].to_numpy(np.int64)
    scaler = StandardScaler().fit(x.astype(float))
    fitted = LogisticRegression(C=0.003, max_iter=500).fit(scaler.transform(x), y)
    head = StandardHead.of(
        LinearHead(
            scaler.mean_, scaler.scale_, fitted.coef_.T.astype(np.float32),
            fitted.intercept_.astype(np.float32), fitted.classes_.astype(np.int64),
        ),
        scaler.mean_, scaler.scale_,
    )  # fmt: skip
    sd = np.asarray(np.sqrt(scaler.var_))
    clusters = clusters_of(x, train_mean=scaler.mean_, train_sd=sd, seed=0)
    assert clusters is not None
    people = pd.read_csv(CIFAR / "annotations.csv").set_index("path")["human_agreement"]
    features = [table[names].to_numpy(np.float32) for table in tests]
    # halves of one size have its own principal components, whatever the halves
    own, _ = principal_components(features[0], features[0], scale=sd, n_components=_COMPONENTS)
    both = principal_components(*features, scale=sd, n_components=_COMPONENTS)
    sets = []
    for table, rows, parts in zip(tests, features, (own, both[1]), strict=True):
        z = (rows - head.mean) / head.scale
        scores = (z @ head.weight.T + head.bias).astype(np.float32)
        hard = covariates_of(scores, rows, train_mean=head.mean, train_sd=sd).columns()
        sets.append(
            Images(
                labels=table["label"].to_numpy(np.int64),
                features=rows,
                scores=scores,
                hard=hard,
                human_agreement=people.loc[table["path"]].to_numpy(float),
                components=parts.astype(float),
                cluster=clusters.of(rows),
                keys=np.random.default_rng(7).permutation(len(rows)).astype(np.uint64),
            )
        )
    return World(sets[0], sets[1], head, sd, len(clusters.centres))


def look(world: World, first: Images, second: Images, seed: int) -> dict[str, bool]:
    """Whether each explainer raises a finding for two sets, as the service would say it."""
    drawn = replicates(first.labels, second.labels, seed=seed)
    found: dict[str, bool] = {}
    found |= _gap_and_classes(first, second, seed)
    found |= _features(world, first, second, drawn, seed)
    found |= _difficulty(first, second, drawn)
    found |= _groups(first, second, seed)
    found |= _slices(world, first, second, drawn, seed)
    return found | _without_labels(first, second, seed)


def _gap_and_classes(first: Images, second: Images, seed: int) -> dict[str, bool]:
    ids = np.arange(10)
    (k1, n1), (k2, n2) = (class_counts(s.labels, s.correct, ids) for s in (first, second))
    counts = k1, n1, k2, n2
    model, common = fit_class_model(*counts), common_gap(*counts)
    assert common is not None
    names = ["vehicle" if c in _VEHICLES else "animal" for c in ids]
    told = confusions(first.labels, first.predicted, second.labels, second.predicted)
    expected = model.mean(k1, n1)
    return {
        "gap, Newcombe": _is_told(newcombe(*(int(column.sum()) for column in counts))),
        "gap, bootstrap within classes": _is_told(bootstrap_within_classes(*counts, seed=seed)),
        "classes, equality": _any_q(equality_p_values(*counts)),
        "classes, common gap": _any_q(excess_p_values(*counts, gap=common)),
        "classes, prediction": _any_q(prediction_p_values(k2, n2, expected=expected, s=model.s)),
        "superclasses": any((g.q_value or 0) <= LEVEL for g in superclass_gaps(names, *counts)),
        "confusions": told.n_q05 > 0,
    }


def _features(
    world: World, first: Images, second: Images, drawn: Replicates, seed: int
) -> dict[str, bool]:
    head = world.head
    sides = first.features, first.labels, second.features, second.labels
    shifts = feature_shifts(
        *sides, train_sd=world.train_sd, head_weights=np.linalg.norm(head.weight, axis=0), seed=seed
    )
    others = tuple(strongest_others(s.scores, s.labels) for s in (first, second))
    masked = [f.feature_id for f in shifts if not f.is_nearly_constant][:_MASKED]
    without = [
        right_without(
            s.scores, s.labels, (s.features[:, masked] - head.mean[masked]) / head.scale[masked],
            head.weight[:, masked],
        )
        for s in (first, second)
    ]  # fmt: skip
    lost = losses(first.correct, without[0], second.correct, without[1], drawn)
    p_values = {
        "feature shift": np.array([f.p_value for f in shifts], float),
        "margins, C": margin_ledger(head, *sides, drawn).p_values,
        "margins, D": margin_ledger(head, *sides, drawn, competitors=others).p_values,
        "separation": separation(*sides, drawn).p_values,
        "masking one feature": lost.p_values,
    }
    return {name: bool(np.nanmin(p) < LEVEL) for name, p in p_values.items()}


def _difficulty(first: Images, second: Images, drawn: Replicates) -> dict[str, bool]:
    people = Covariate("human agreement", first.human_agreement, second.human_agreement)
    seen = [
        Covariate(name, first.hard[:, j], second.hard[:, j])
        for j, name in enumerate((_CONFIDENCE, "margin", "entropy", "norm"))
    ]
    found = {}
    for one in standardise(first.correct, second.correct, [*seen, people], drawn):
        found[f"standardised by {one.name}, explained"] = _is_told(one.explained)
        found[f"standardised by {one.name}, rest"] = _is_told(one.rest)
    told = calibration(_answers(first), _answers(second), drawn)
    for name in ("overconfidence", "ece", "nll", "brier"):
        found[f"calibration, {name}"] = _is_told(getattr(told, name).increase)
    judged = [by_agreement(s.human_agreement, s.correct) for s in (first, second)]
    labels = label_quality(first.correct, judged[0], second.correct, judged[1], drawn)
    return found | {"labels, gap gone": _is_told(labels.gap_gone)}


def _answers(images: Images) -> Answers:
    z = images.scores.astype(float)
    z -= z.max(axis=1, keepdims=True)
    nll = np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(z)), images.labels]
    brier = brier_scores(images.scores, images.labels, np.arange(10))
    return Answers(images.correct, images.hard[:, 0], nll, brier)


def _groups(first: Images, second: Images, seed: int) -> dict[str, bool]:
    people = np.concatenate([first.human_agreement, second.human_agreement])[:, None]
    groups = [
        Group("human agreement", people, ""),
        Group("difficulty", np.concatenate([first.hard, second.hard]), ""),
        Group("features", np.concatenate([first.components, second.components]), "", n_knots=4),
    ]
    sides = first.labels, first.correct, second.labels, second.correct
    found = {
        f"ledger, {term.name}": term.verdict == SUPPORTED
        for term in ledger(*sides, groups, seed=seed).terms
    }
    disde = Disde(*sides, seed=seed)
    chosen = {group.name: [group] for group in groups} | {"all": groups}
    for name, some in chosen.items():
        verdicts = disde.decompose(name, some).verdicts
        found |= {f"overlap by {name}, {t}": v == SUPPORTED for t, v in verdicts.items()}
    return found


def _slices(
    world: World, first: Images, second: Images, drawn: Replicates, seed: int
) -> dict[str, bool]:
    values = [np.column_stack([s.human_agreement, s.components]) for s in (first, second)]
    halves = tuple(explore_half(s.labels, s.keys, seed=seed) for s in (first, second))
    names = ["human agreement", *(f"component {i + 1}" for i in range(_COMPONENTS))]
    slices = find_slices(
        values[0], first.correct, values[1], second.correct, halves,
        keys=np.concatenate([first.keys, second.keys]), names=names, seed=seed,
    )  # fmt: skip
    n = world.n_clusters
    clusters = slice_gaps(first.cluster, first.correct, second.cluster, second.correct, n_slices=n)
    where = Covariate(
        "cluster", first.cluster.astype(float), second.cluster.astype(float),
        [str(i) for i in range(n)],
    )  # fmt: skip
    (parts,) = standardise(first.correct, second.correct, [where], drawn)

    def is_any(gaps: Iterable[object]) -> bool:
        known = (getattr(one, "q_value", None) for one in gaps)
        return any(q is not None and q <= LEVEL for q in known)

    return {
        "slices found on one half": slices is not None and is_any(slices.gaps),
        "clusters of train features": is_any(clusters),
        "between clusters": _is_told(parts.explained),
        "within clusters": _is_told(parts.rest),
    }


def _without_labels(first: Images, second: Images, seed: int) -> dict[str, bool]:
    teller = Foreteller(first.labels, first.correct, len(second.labels), seed=seed)
    sure = first.hard[:, 0], second.hard[:, 0]
    unsure = -first.hard[:, 2], -second.hard[:, 2]
    foretold = [
        teller.atc(ATC_CONFIDENCE, *sure), teller.atc(ATC_ENTROPY, *unsure),
        teller.doc(*sure), teller.cbpe(*sure),
    ]  # fmt: skip
    return {
        f"error of {one.name}": _is_told(judge(one, second.correct, teller.drawn).error)
        for one in foretold
    }


def _is_told(value: Estimate) -> bool:
    return value.low is not None and value.high is not None and (value.low > 0 or value.high < 0)


def _any_q(p: np.ndarray) -> bool:
    return bool((benjamini_hochberg(p) <= LEVEL).any())


_world: World | None = None


def _start(world: World) -> None:
    global _world
    _world = world


def _one(seed: int) -> dict[str, bool]:
    assert _world is not None
    whole = _world.reference
    # a seed of its own: bootstrap, permutations and folds draw from `seed`
    first = explore_half(whole.labels, whole.keys, seed=_HALVES_SEED + seed)
    with threadpool_limits(1):
        return look(_world, whole.take(first), whole.take(~first), seed)


def placebos(world: World, n_runs: int, *, first_seed: int = 0) -> dict[str, int]:
    """In how many of so many random halvings each explainer raises a finding."""
    seeds = range(first_seed, first_seed + n_runs)
    with ProcessPoolExecutor(2, initializer=_start, initargs=(world,)) as pool:
        found = list(pool.map(_one, seeds))
    return {name: sum(one[name] for one in found) for name in found[0]}


def is_above(found: int, n: int, level: float = LEVEL) -> bool:
    """Whether findings are shown to be more frequent than a level: one-sided, at .05.

    Examples
    --------
    >>> is_above(15, 200), is_above(16, 200)
    (False, True)
    """
    return bool(binom.sf(found - 1, n, level) < 0.05)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=N_RUNS)
    parser.add_argument("--first-seed", type=int, default=0)
    arguments = parser.parse_args()
    started = time.perf_counter()
    found = placebos(load(), arguments.runs, first_seed=arguments.first_seed)
    print(
        f"{os.cpu_count()} cores, {platform.machine()}, {datetime.now(UTC):%Y-%m-%d}, "
        f"{time.perf_counter() - started:.0f} s\n\n"
        f"| explainer | findings in {arguments.runs} placebos | 95 % interval |\n"
        "| --- | ---: | --- |"
    )
    for name, count in found.items():
        low, high = wilson(count, arguments.runs)
        mark = " (above .05)" if is_above(count, arguments.runs) else ""
        print(f"| {name} | {count}{mark} | {low:.1%} to {high:.1%} |")


if __name__ == "__main__":
    main()
