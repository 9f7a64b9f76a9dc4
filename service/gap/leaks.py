"""`/gap/{model}/leaks`: images that stand twice (in train, across, within), and the gap."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from models.estimate import share
from models.gap.difference import newcombe
from models.leaks import N_NEIGHBOURS, Neighbours, Threshold, calibrate, equal_rows, judged
from service import charts
from service.gap.inputs import Inputs
from service.gap.part import Part
from service.neighbours import TrainNeighbours
from service.schemas import Answer, EstimateOut, PartOut
from service.sentences import points
from service.terminal import Progress, part_of

Kind = Literal["train", "across", "within"]
_PAIRS_MAX = 100
_ABOUT: dict[Kind, str] = {
    "train": "without images that stand among the train rows too",
    "across": "without images that stand on the other split too",
    "within": "with images that stand more than once on a split counted once",
}
_NO_FEATURES = "only predictions of this model are here: without features no copies can be found"
_TRAIN_SHARE = 0.9  # of the time that the search against train takes


class LeakPairOut(Answer):
    """Two rows that are equal, or closer than chance allows."""

    kind: Kind
    is_equal: bool = Field(description="The very same features; else near-duplicates.")
    split: str
    path: str
    class_name: str
    other_split: str | None = Field(description="Null for a train row.")
    other_path: str
    other_class_name: str
    distance: float | None = Field(description="1 − cosine of the standardised features.")


class WithoutOut(Answer):
    """Accuracies and gap without the images of one kind."""

    name: str
    about: str
    n_left_out: dict[str, int] = Field(description="Images of each split.")
    accuracy: dict[str, EstimateOut]
    gap: EstimateOut


class LeakKindOut(WithoutOut):
    """Copies of one kind, and what is left without them."""

    kind: Kind
    n_equal: int = Field(description="Images with an equal row.")
    n_near: int = Field(description="Images with a near-duplicate that is not equal.")
    n_other_class: int = Field(description="Pairs of which the two rows have different labels.")
    reason: str | None = Field(description="Why only equal rows could be looked for.")


class LeaksOut(PartOut):
    """Copies within and across the splits and in train; accuracy and gap without them."""

    reason: str | None = Field(description="Why nothing could be looked for.")
    everything: WithoutOut = Field(description="With all images.")
    kinds: list[LeakKindOut]
    without_all: WithoutOut | None = Field(description="Without the images of all kinds.")
    n_pairs: int
    pairs: list[LeakPairOut] = Field(description="At most 100, equal rows and closest pairs first.")
    threshold: str | None = Field(description="From where on two rows are held to be copies.")


@dataclass(frozen=True)
class _Copies:
    """Pairs of one kind. Images are numbered over both splits, reference first.

    Attributes
    ----------
    images : int64 [p]
    others : int64 [p] of test images; or the pair's place among the train neighbours
    is_equal : bool [p]
    distance : float64 [p]
    left_out : images that go, bool [n]
    """

    kind: Kind
    images: np.ndarray
    others: np.ndarray
    is_equal: np.ndarray
    distance: np.ndarray
    left_out: np.ndarray


def compute(inputs: Inputs, progress: Progress) -> LeaksOut:
    """Look for copies, and leave them out."""
    n = sum(len(side) for side in inputs.labels.pair)
    everything = _without(inputs, "all images", "with all images", np.zeros(n, bool))
    if inputs.features is None:
        return _answer(inputs, everything, reason=_NO_FEATURES)
    roles = {row["role"] for row in inputs.database.splits_of(inputs.backbone)}
    found, threshold, train = [], None, None
    if "train" in roles:
        sample, near_train = inputs.near_train(part_of(progress, 0.0, _TRAIN_SHARE))
        # each image is held against train and against the other test images
        threshold = calibrate(sample, n_queries=2 * n)
        train = _joined(near_train.pair)
        found.append(_train_copies(train, threshold))
    if threshold is not None and threshold.can_tell:
        near = inputs.near_tests(part_of(progress, _TRAIN_SHARE, 1.0))
    else:  # no distance would tell anything: equal rows alone
        near = Neighbours(np.full((n, N_NEIGHBOURS), np.inf), np.full((n, N_NEIGHBOURS), -1))
    found += _test_copies(inputs, near, threshold)
    return _answer(inputs, everything, found=found, threshold=threshold, train=train)


def _joined(sides: Sequence[TrainNeighbours]) -> TrainNeighbours:
    return TrainNeighbours(
        Neighbours(
            np.concatenate([side.found.distance for side in sides]),
            np.concatenate([side.found.place for side in sides]),
        ),
        pa.concat_arrays([side.path for side in sides]),
        np.concatenate([side.class_id for side in sides]),
        np.concatenate([side.is_equal for side in sides]),
    )


def _train_copies(train: TrainNeighbours, threshold: Threshold) -> _Copies:
    left_out = train.is_equal.copy()
    left_out[judged(train.found, threshold).query] = True
    images = np.flatnonzero(left_out)
    is_equal = train.is_equal[images]
    distance = np.where(is_equal, 0.0, train.found.distance[images, 0])
    return _Copies("train", images, images, is_equal, distance, left_out)


def _test_copies(inputs: Inputs, near: Neighbours, threshold: Threshold | None) -> list[_Copies]:
    """Return copies across the splits, and within them."""
    assert inputs.features is not None
    n1, n = len(inputs.labels.reference), len(near.distance)
    equal = equal_rows(np.concatenate(inputs.features.pair))
    pairs, distance = equal, np.zeros(len(equal))
    if threshold is not None:
        close = judged(near, threshold)
        pairs = np.concatenate([equal, np.sort(np.column_stack([close.query, close.place]))])
        distance = np.concatenate([distance, close.distance])
    # a pair may be found from both ends, and equal rows as near ones too: the first entry stays
    pairs, first = np.unique(pairs, axis=0, return_index=True)
    distance, is_equal = distance[first], first < len(equal)
    of_target = pairs >= n1
    found = []
    kinds: tuple[tuple[Kind, np.ndarray], ...] = (
        ("across", of_target[:, 0] != of_target[:, 1]),
        ("within", of_target[:, 0] == of_target[:, 1]),
    )
    for kind, mine in kinds:
        left_out = np.zeros(n, bool)
        # across, both go; within, the earlier of two stays
        left_out[pairs[mine] if kind == "across" else pairs[mine][:, 1]] = True
        found.append(
            _Copies(
                kind, pairs[mine][:, 0], pairs[mine][:, 1], is_equal[mine], distance[mine], left_out
            )
        )
    return found


def _answer(
    inputs: Inputs,
    everything: WithoutOut,
    *,
    found: list[_Copies] | None = None,
    threshold: Threshold | None = None,
    train: TrainNeighbours | None = None,
    reason: str | None = None,
) -> LeaksOut:
    copies = found or []
    blind = None
    if reason is None and (threshold is None or not threshold.can_tell):
        blind = (
            "too few train rows, or too few dimensions, to tell how close rows come by chance: "
            "only equal rows were looked for"
        )
    kinds = [_kind_out(inputs, one, train, blind) for one in copies]
    without_all = None
    if copies:
        left_out = np.any([one.left_out for one in copies], axis=0)
        without_all = _without(inputs, "without all of these", "without all kinds", left_out)
    pairs = [(one, i) for one in copies for i in _closest(one)]
    pairs.sort(key=lambda pair: (not pair[0].is_equal[pair[1]], pair[0].distance[pair[1]]))
    return LeaksOut(
        model=inputs.model,
        reference=inputs.reference,
        target=inputs.target,
        summary=_in_words(everything, kinds, without_all, reason),
        reason=reason,
        everything=everything,
        kinds=kinds,
        without_all=without_all,
        n_pairs=sum(len(one.images) for one in copies),
        pairs=[_pair_out(inputs, one, i, train) for one, i in pairs[:_PAIRS_MAX]],
        threshold=None if threshold is None or not threshold.can_tell else _told(threshold),
    )


def _kind_out(
    inputs: Inputs, copies: _Copies, train: TrainNeighbours | None, blind: str | None
) -> LeakKindOut:
    labels = np.concatenate(inputs.labels.pair)
    others = _other_labels(copies, labels, train)
    left = _without(inputs, _NAMES[copies.kind], _ABOUT[copies.kind], copies.left_out)
    touched = [copies.images] if copies.kind == "train" else [copies.images, copies.others]
    equal = np.unique(np.concatenate([side[copies.is_equal] for side in touched]))
    near = np.unique(np.concatenate([side[~copies.is_equal] for side in touched]))
    return LeakKindOut(
        **{name: getattr(left, name) for name in WithoutOut.model_fields},
        kind=copies.kind,
        n_equal=len(equal),
        n_near=len(np.setdiff1d(near, equal)),
        n_other_class=int((labels[copies.images] != others).sum()),
        reason=blind,
    )


_NAMES: dict[Kind, str] = {
    "train": "without copies in train",
    "across": "without copies across the splits",
    "within": "without repetitions",
}


def _other_labels(copies: _Copies, labels: np.ndarray, train: TrainNeighbours | None) -> np.ndarray:
    if copies.kind != "train":
        return np.asarray(labels[copies.others])
    assert train is not None
    return np.asarray(train.class_id[copies.others])


def _closest(copies: _Copies) -> list[int]:
    order = np.lexsort((copies.distance, ~copies.is_equal))
    return [int(i) for i in order[:_PAIRS_MAX]]


def _pair_out(
    inputs: Inputs, copies: _Copies, i: int, train: TrainNeighbours | None
) -> LeakPairOut:
    n1, names = len(inputs.labels.reference), inputs.class_names

    def image(k: int) -> tuple[str, str, str]:
        side, at = ("reference", k) if k < n1 else ("target", k - n1)
        label = int(getattr(inputs.labels, side)[at])
        split: str = getattr(inputs.splits, side)
        return split, getattr(inputs.paths, side)[at].as_py(), names.get(label, str(label))

    split, path, name = image(int(copies.images[i]))
    at = int(copies.others[i])
    other_split: str | None
    if copies.kind == "train":
        assert train is not None
        label = int(train.class_id[at])
        other_split, other_path, other_name = None, train.path[at].as_py(), names.get(label)
    else:
        other_split, other_path, other_name = image(at)
    return LeakPairOut(
        kind=copies.kind,
        is_equal=bool(copies.is_equal[i]),
        split=split,
        path=path,
        class_name=name,
        other_split=other_split,
        other_path=other_path,
        other_class_name=other_name or str(label),
        distance=float(copies.distance[i]),
    )


def _without(inputs: Inputs, name: str, about: str, left_out: np.ndarray) -> WithoutOut:
    n1 = len(inputs.labels.reference)
    parts = (left_out[:n1], left_out[n1:])
    counts = [
        (int(correct[~gone].sum()), int((~gone).sum()))
        for correct, gone in zip(inputs.correct.pair, parts, strict=True)
    ]
    splits = inputs.splits.pair
    return WithoutOut(
        name=name,
        about=about,
        n_left_out={s: int(gone.sum()) for s, gone in zip(splits, parts, strict=True)},
        accuracy={
            s: EstimateOut.of(share(k, n), {"images": s})
            for s, (k, n) in zip(splits, counts, strict=True)
        },
        gap=EstimateOut.of(newcombe(*counts[0], *counts[1]), inputs.names),
    )


def _told(threshold: Threshold) -> str:
    return (
        f"1 − cosine of standardised features below {threshold.distance:.2g}, and below "
        f"{threshold.ratio:.2g} of that of neighbour {threshold.k}: so close do images come by "
        f"chance once in a hundred such searches, by {threshold.n:,} train rows held against the "
        "others"
    )


def _in_words(
    everything: WithoutOut,
    kinds: list[LeakKindOut],
    without_all: WithoutOut | None,
    reason: str | None,
) -> list[str]:
    if reason is not None:
        return [f"Nothing was looked for: {reason}."]
    whole = {"train": "in train", "across": "on the other split", "within": "on the same split"}
    said = []
    for one in kinds:
        n = one.n_equal + one.n_near
        if n:
            said.append(
                f"{n:,} images have a copy {whole[one.kind]} ({one.n_equal:,} equal, "
                f"{one.n_near:,} near-duplicates); {one.about} the gap is {_points(one)}, with all "
                f"images {_points(everything)}."
            )
        else:
            said.append(f"No image was found to have a copy {whole[one.kind]}.")
    if without_all is not None and any(without_all.n_left_out.values()):
        said.append(f"Without all of these the gap is {_points(without_all)}.")
    if kinds and kinds[0].reason is not None:
        said.append(f"Near-duplicates are not known: {kinds[0].reason}.")
    return said


def _points(answer: WithoutOut) -> str:
    gap = answer.gap
    if gap.estimate is None or gap.low is None or gap.high is None:
        return f"unknown ({gap.reason})"
    return f"{gap.estimate * 100:.1f} points (95 % interval {points(gap.low, gap.high)})"


def _chart(answer: LeaksOut) -> dict[str, Any]:
    left = [] if answer.without_all is None else [answer.without_all]
    rows = [
        {
            "name": one.name,
            "estimate": one.gap.estimate,
            "low": one.gap.low,
            "high": one.gap.high,
        }
        for one in [answer.everything, *answer.kinds, *left]
    ]
    return charts.forest(
        rows,
        title="The gap with and without images that stand twice (dashed: with all)",
        x_title="gap, points (95 % interval)",
        also=answer.everything.gap.estimate,
    )


PART = Part(
    "leaks", "copies within, across and in train, and the gap without them", LeaksOut, compute,
    {"leaks": _chart},
)  # fmt: skip
