"""`/gap/{model}/slices`: groups of images that lose more than others."""

from collections import Counter
from typing import Any

import numpy as np
from pydantic import Field

from models.gap.difference import newcombe
from models.gap.halves import explore_half
from models.gap.slices import (
    Clusters,
    FoundSlices,
    SliceGap,
    clusters_of,
    find_slices,
    slice_gaps,
)
from models.gap.standardise import Covariate, standardise
from service import charts
from service.evaluations import SEED
from service.gap.inputs import Inputs, Sides
from service.gap.part import Part
from service.results import path_hashes
from service.schemas import Answer, EstimateOut, PartOut
from service.sentences import points
from service.terminal import Progress, part_of

_TRAIN_ROWS = 100_000
_BLOCK_ROWS = 8192
_LEVELS_MAX = 12
_EXAMPLES = 8
_NAMED = 3
_Q = 0.05


class ExampleOut(Answer):
    """An image of a slice."""

    split: str
    path: str
    is_correct: bool


class SliceOut(Answer):
    """One group of images."""

    slice_id: int
    name: str
    description: str = Field(description="A rule, or the classes that the model sees most in it.")
    n_reference: int = Field(description="Images of the reference, in both halves.")
    n_target: int
    n_tested: dict[str, int] = Field(description="Images of each split that the gap is of.")
    gap: EstimateOut
    excess: float | None = Field(description="Gap minus the gap of all images that were tested.")
    p_value: float | None = Field(description="Test that the group loses what all lose.")
    q_value: float | None = Field(description="Adjusted for looking at all groups of its kind.")
    examples: list[ExampleOut] = Field(description="Up to 8 of each split, wrong ones first.")


class BetweenOut(Answer):
    """The gap in parts by the clusters: between + within + uncovered = gap."""

    between: EstimateOut = Field(description="Clusters being more or less frequent.")
    within: EstimateOut = Field(description="Images of one cluster being harder.")
    uncovered: EstimateOut
    uncovered_share: float


class SlicesOut(PartOut):
    """Groups of images, with their gaps: clusters of train features, and slices found."""

    gap: EstimateOut
    n_clusters: int | None = Field(description="Clusters that hold test images.")
    clusters: list[SliceOut] | None = Field(
        description="Nearest of the clusters of train rows; largest excess first."
    )
    between_within: BetweenOut | None
    clusters_reason: str | None = Field(description="Why clusters are null.")
    slices: list[SliceOut] | None = Field(
        description="Found on one half of both splits; gap and test are of the other half."
    )
    slices_reason: str | None = Field(description="Why slices are null.")


def compute(inputs: Inputs, progress: Progress) -> SlicesOut:
    """Group images by features, then search for groups that lose more."""
    correct = inputs.correct
    n_right = [int(side.sum()) for side in correct.pair]
    gap = newcombe(n_right[0], len(correct.reference), n_right[1], len(correct.target))
    keys = inputs.paths.map(lambda paths: path_hashes(paths.to_pylist()))
    describe = _Describer(inputs, keys)
    clusters, between, clusters_reason = _clusters(inputs, describe, part_of(progress, 0.0, 0.6))
    progress(0.6, "searching one half for slices")
    found, slices_reason = _found(inputs, keys)
    slices = None
    if found is not None:
        where = Sides(found.reference, found.target)
        slices = [
            describe.slice_out(i, "slice", rule, where, one)
            for i, (rule, one) in enumerate(zip(found.rules, found.gaps, strict=True))
        ]
        slices.sort(key=_by_excess)
    return SlicesOut(
        model=inputs.model,
        reference=inputs.reference,
        target=inputs.target,
        summary=_in_words(
            inputs.reference,
            inputs.target,
            clusters,
            between,
            clusters_reason,
            slices,
            slices_reason,
        ),
        gap=EstimateOut.of(gap, inputs.names),
        n_clusters=None if clusters is None else len(clusters),
        clusters=clusters,
        between_within=between,
        clusters_reason=clusters_reason,
        slices=slices,
        slices_reason=slices_reason,
    )


def _clusters(
    inputs: Inputs, describe: "_Describer", progress: Progress
) -> tuple[list[SliceOut] | None, BetweenOut | None, str | None]:
    if inputs.features is None:
        return None, None, "an imported model has no features here"
    groups = inputs.of_train("clusters", lambda: _train_clusters(inputs, progress))
    if groups is None:
        return None, None, "there are too few train rows, or none of their features varies"
    where = inputs.features.map(groups.of)
    n = len(groups.centres)
    correct = inputs.correct
    gaps = slice_gaps(where.reference, correct.reference, where.target, correct.target, n_slices=n)
    found = [
        describe.slice_out(i, "cluster", describe.mostly(where, i), where, one)
        for i, one in enumerate(gaps)
        if one.n_reference + one.n_target
    ]
    covariate = Covariate("cluster", *where.map(lambda side: side.astype(float)).pair,
                          [str(i) for i in range(n)])  # fmt: skip
    drawn = inputs.replicates
    parts = standardise(*correct.pair, [covariate], drawn)[0]
    between = BetweenOut(
        between=EstimateOut.of(parts.explained, inputs.names),
        within=EstimateOut.of(parts.rest, inputs.names),
        uncovered=EstimateOut.of(parts.uncovered, inputs.names),
        uncovered_share=parts.uncovered_share,
    )
    return sorted(found, key=_by_excess), between, None


def _train_clusters(inputs: Inputs, progress: Progress) -> Clusters | None:
    """Clusters of a sample of the train rows, which is read in one pass."""
    rows, _ = inputs.database.train_rows(inputs.backbone)
    n = len(rows.labels)
    wanted = np.arange(n)
    if n > _TRAIN_ROWS:
        wanted = np.sort(np.random.default_rng(SEED).choice(n, _TRAIN_ROWS, replace=False))
    sample = np.empty((len(wanted), len(inputs.feature_names)), np.float32)
    for start in range(0, n, _BLOCK_ROWS):
        progress(0.8 * start / n, "reading train rows")
        first, last = np.searchsorted(wanted, [start, start + _BLOCK_ROWS])
        if last > first:
            sample[first:last] = rows.features[start : start + _BLOCK_ROWS][
                wanted[first:last] - start
            ]
    progress(0.8, "clusters of train rows")
    return clusters_of(sample, train_mean=inputs.train_mean, train_sd=inputs.train_sd, seed=SEED)


def _found(inputs: Inputs, keys: Sides[np.ndarray]) -> tuple[FoundSlices | None, str | None]:
    """Slices by annotations and principal components; confidence takes no part."""
    first, second, names = [], [], []
    categories: list[list[str] | None] = []
    for one in inputs.annotations:
        if one.on_both and len(one.categories or []) <= _LEVELS_MAX:
            first.append(one.values.reference)
            second.append(one.values.target)
            names.append(one.name)
            categories.append(one.categories)
    if inputs.components is not None:
        components = inputs.components.pair
        first += list(components[0].T.astype(float))
        second += list(components[1].T.astype(float))
        n = components[0].shape[1]
        names += [f"component {i + 1} of the features" for i in range(n)]
        categories += [None] * n
    if not names:
        return None, "neither features nor annotations of both splits are known"
    labels = inputs.labels
    found = find_slices(
        np.column_stack(first),
        inputs.correct.reference,
        np.column_stack(second),
        inputs.correct.target,
        (
            explore_half(labels.reference, keys.reference, seed=SEED),
            explore_half(labels.target, keys.target, seed=SEED),
        ),
        keys=np.concatenate(keys.pair),
        names=names,
        categories=categories,
        seed=SEED,
    )
    return (
        found,
        "there are too few images to search one half, or nothing to split them by"
        if found is None
        else None,
    )


class _Describer:
    """Says of a group which images are in it."""

    def __init__(self, inputs: Inputs, keys: Sides[np.ndarray]) -> None:
        self._inputs = inputs
        # an order that has nothing to do with the images, and stays
        self._order = keys.map(np.argsort)

    def slice_out(
        self, number: int, kind: str, description: str, where: Sides[np.ndarray], found: SliceGap
    ) -> SliceOut:
        return SliceOut(
            slice_id=number,
            name=f"{kind} {number}",
            description=description,
            n_reference=int((where.reference == number).sum()),
            n_target=int((where.target == number).sum()),
            n_tested={
                self._inputs.reference: found.n_reference,
                self._inputs.target: found.n_target,
            },
            gap=EstimateOut.of(found.gap, self._inputs.names),
            excess=found.excess,
            p_value=found.p_value,
            q_value=found.q_value,
            examples=self._examples(number, where),
        )

    def mostly(self, where: Sides[np.ndarray], number: int) -> str:
        """Classes that the model predicts most often for the group's images."""
        predicted = self._inputs.predicted
        inside = np.concatenate(
            [said[side == number] for said, side in zip(predicted.pair, where.pair, strict=True)]
        )
        counted = Counter(inside.tolist()).most_common(_NAMED)
        names = self._inputs.class_names
        return "mostly called " + ", ".join(
            f"{names.get(c, str(c))} ({k / len(inside):.0%})" for c, k in counted
        )

    def _examples(self, number: int, where: Sides[np.ndarray]) -> list[ExampleOut]:
        found = []
        inputs = self._inputs
        for split, side, order, correct, paths in zip(
            inputs.splits.pair, where.pair, self._order.pair, inputs.correct.pair,
            inputs.paths.pair, strict=True,
        ):  # fmt: skip
            there = order[side[order] == number]
            wrong, right = there[~correct[there]], there[correct[there]]
            n_right = min(len(right), max(_EXAMPLES // 2, _EXAMPLES - len(wrong)))
            chosen = [*wrong[: _EXAMPLES - n_right], *right[:n_right]]
            found += [
                ExampleOut(split=split, path=paths[int(i)].as_py(), is_correct=bool(correct[i]))
                for i in chosen
            ]
        return found


def _by_excess(one: SliceOut) -> tuple[float, int]:
    return (-one.excess if one.excess is not None else np.inf), one.slice_id


def _in_words(
    reference: str,
    target: str,
    clusters: list[SliceOut] | None,
    between: BetweenOut | None,
    clusters_reason: str | None,
    slices: list[SliceOut] | None,
    slices_reason: str | None,
) -> list[str]:
    sentences = []
    if clusters is None or between is None:
        sentences.append(f"No clusters: {clusters_reason}.")
    else:
        value, low, high = between.between.estimate, between.between.low, between.between.high
        if value is not None and low is not None and high is not None:
            sentences.append(
                f"{value * 100:+.1f} points of the gap (95 % interval {points(low, high)}) go "
                f"with some of the {len(clusters)} clusters of features being more frequent on "
                f"{target} than on {reference}; the rest is between images of one cluster."
            )
        sentences += _clear(clusters, "clusters of features", "all images")
    if slices is None:
        sentences.append(f"No slices were found: {slices_reason}.")
    else:
        sentences += _clear(
            slices, "slices found on one half of the images", "the other half's images"
        )
    return sentences


def _clear(found: list[SliceOut], what: str, tested_on: str) -> list[str]:
    clear = [one for one in found if one.q_value is not None and one.q_value <= _Q]
    sentences = [
        f"{len(clear)} of {len(found)} {what} lose more or less than the whole, tested on "
        f"{tested_on} and adjusted for looking at all of them: a description, not a cause."
        if clear
        else f"None of {len(found)} {what} is shown to lose more or less than the whole."
    ]
    for one in sorted(clear, key=lambda one: -abs(one.excess or 0))[:_NAMED]:
        low, high = one.gap.low, one.gap.high
        if one.gap.estimate is not None and low is not None and high is not None:
            sentences.append(
                f"{one.name} ({one.description}): gap {one.gap.estimate * 100:.1f} points "
                f"({points(low, high)})."
            )
    return sentences


def _chart(answer: SlicesOut) -> dict[str, Any]:
    rows = [
        {
            "name": one.name,
            "estimate": one.gap.estimate,
            "low": one.gap.low,
            "high": one.gap.high,
            "description": one.description,
            "q_value": one.q_value,
        }
        for one in [*(answer.slices or []), *(answer.clusters or [])]
        if one.gap.estimate is not None
    ]
    return charts.forest(
        rows,
        title="Gap of each slice and cluster of images (dashed: the gap of all)",
        x_title=f"gap: {answer.reference} − {answer.target}, points (95 % interval)",
        also=answer.gap.estimate,
        tooltip=["description", "q_value"],
    )


PART = Part(
    "slices", "groups of images that lose more than others", SlicesOut, compute,
    {"slices": _chart},
)  # fmt: skip
