"""`/gap/{model}/labels`: what a second opinion on the labels leaves of errors and gap."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import Field

from models.estimate import Estimate
from models.gap.difference import newcombe
from models.gap.labels import (
    Judged,
    LabelQuality,
    SetQuality,
    by_agreement,
    by_sets,
    by_votes,
    label_quality,
)
from service import charts
from service.errors import NothingToDraw
from service.gap.inputs import Annotation, Inputs, Sides
from service.gap.part import Part
from service.schemas import Answer, EstimateOut, PartOut
from service.sentences import points
from service.terminal import Progress

_SETS, _N_SETS = "real_labels", "n_real_labels"  # as `gapscope annotate --real` names them
_VOTES = ("given", "guessed", "both", "neither")
_VOTE_PREFIX, _GUESS = "le_", "le_guessed_label"
_AGREEMENT = re.compile(r"(^|_)(agreement|selection_frequency|sel_freq)$")
_THRESHOLD = "in_threshold07"
_LEAST_AGREEMENT, _LEAST_IMAGES = 0.5, 20  # of sets with labels: below, their classes are others
_WANTED = (
    "no annotation of these splits judges labels. Attach ReaL's (gapscope annotate --real), "
    "reviewers' votes (columns le_given, le_guessed, le_both, le_neither), or the share of "
    "reviewers that gave the label (a column that ends in agreement or selection_frequency)"
)


class SetLabelsOut(Answer):
    """One split by given labels and by the second opinion."""

    n: int
    n_known: int = Field(description="Images that the second opinion judges.")
    n_dropped: int = Field(
        description="Of these, images left out: no class is right, or the label is doubted."
    )
    share_dropped: float = Field(description="Of the judged images.")
    share_several: float | None = Field(
        description="Judged images with several right classes; null where only labels are judged."
    )
    share_label_outside: float | None = Field(
        description="Judged images with right classes, of which the given label is none."
    )
    accuracy: EstimateOut = Field(description="By given labels, of all images.")
    accuracy_judged: EstimateOut = Field(description="By the second opinion; others as given.")
    error_gone: EstimateOut = Field(description="accuracy_judged minus accuracy.")
    share_of_error_gone: EstimateOut
    errors_called_right: EstimateOut = Field(
        description="Share of the errors on judged images, without those left out."
    )
    errors_dropped: EstimateOut = Field(description="Share of the errors on judged images.")
    right_called_wrong: EstimateOut = Field(
        description="Share of the right answers on judged images, without those left out."
    )


class OpinionOut(Answer):
    """What one second opinion leaves of errors and gap."""

    name: str
    source: str = Field(description="Under which it was attached.")
    about: str
    one_set_only: bool
    splits: dict[str, SetLabelsOut | None] = Field(
        description="By split; null where it judges no image."
    )
    gap_judged: EstimateOut = Field(description="Null where it judges one split only.")
    gap_gone: EstimateOut = Field(description="The gap minus gap_judged.")
    share_of_gap_gone: EstimateOut = Field(description="Null where the gap is not told from 0.")


class LabelsOut(PartOut):
    """Errors and gap by given labels and by second opinions."""

    gap: EstimateOut
    opinions: list[OpinionOut]
    left_out: list[str] = Field(description="Annotations that could not be used, and why.")
    reason: str | None = Field(description="Why there is no opinion.")


@dataclass(frozen=True)
class _Opinion:
    name: str
    source: str
    about: str
    judged: Sides[Judged]
    n_classes: Sides[np.ndarray] | None = None  # right classes of each image, NaN where unknown
    label_outside: Sides[np.ndarray] | None = None  # has right classes, the given one not among


def compute(inputs: Inputs, progress: Progress) -> LabelsOut:
    """Hold the answers against each second opinion."""
    correct, names = inputs.correct, inputs.names
    opinions, left_out = _opinions(inputs)
    drawn = inputs.replicates if opinions else None
    found = []
    for i, opinion in enumerate(opinions):
        progress(i / len(opinions), opinion.name)
        assert drawn is not None
        quality = label_quality(
            correct.reference,
            opinion.judged.reference,
            correct.target,
            opinion.judged.target,
            drawn,
        )
        found.append(_opinion_out(opinion, quality, inputs))
    gap = newcombe(
        int(correct.reference.sum()), len(correct.reference),
        int(correct.target.sum()), len(correct.target),
    )  # fmt: skip
    reason = None if found else _WANTED
    return LabelsOut(
        model=inputs.model,
        reference=inputs.reference,
        target=inputs.target,
        summary=_in_words(found, inputs.splits) or [f"Nothing can be said: {_WANTED}."],
        gap=EstimateOut.of(gap, names),
        opinions=found,
        left_out=left_out,
        reason=reason,
    )


def _opinions(inputs: Inputs) -> tuple[list[_Opinion], list[str]]:
    of_source: dict[str, dict[str, Annotation]] = {}
    for annotation in inputs.annotations:
        bare = annotation.name.removeprefix(f"{annotation.source}.")
        of_source.setdefault(annotation.source, {})[bare] = annotation
    found: list[_Opinion] = []
    left_out = []
    for source, columns in of_source.items():
        if _SETS in columns and _N_SETS in columns:
            opinion = _of_sets(inputs, source, columns)
            if opinion is None:
                left_out.append(
                    f"{columns[_SETS].name}: most given labels are not among its classes, which "
                    "are numbered otherwise"
                )
            else:
                found.append(opinion)
        elif _SETS in columns:
            left_out.append(
                f"{columns[_SETS].name}: without {_N_SETS} an image without a right class looks "
                "like one that was not judged"
            )
        if f"{_VOTE_PREFIX}given" in columns:
            found.append(_of_votes(inputs, source, columns))
        for bare, annotation in columns.items():
            if _AGREEMENT.search(bare) is None and bare != _THRESHOLD:
                continue
            if not _is_share(annotation):
                left_out.append(f"{annotation.name}: not a share between 0 and 1")
            else:
                found.append(_of_agreement(inputs, annotation, bare))
    return found, left_out


def _of_sets(inputs: Inputs, source: str, columns: Mapping[str, Annotation]) -> _Opinion | None:
    """Return sets of right classes; None where they are plainly of other classes."""
    texts, n_classes = columns[_SETS], columns[_N_SETS].values
    if texts.categories is None:  # one class each, read as numbers
        ids = np.unique(np.concatenate(texts.values.pair))
        ids = ids[np.isfinite(ids)]
        sets = [{int(c)} for c in ids]
        which = texts.values.map(
            lambda v: np.where(np.isfinite(v), np.searchsorted(ids, v), -1).astype(np.int64)
        )
    else:
        sets = [{int(c) for c in text.split() if c.isdecimal()} for text in texts.categories]
        which = texts.values.map(lambda v: np.nan_to_num(v, nan=-1.0).astype(np.int64))

    def held(answers: Sides[np.ndarray], right: Sides[np.ndarray]) -> Sides[Judged]:
        sides = zip(which.pair, n_classes.pair, answers.pair, right.pair, strict=True)
        return Sides(*(by_sets(sets, w, np.isfinite(n), a, r) for w, n, a, r in sides))

    everywhere = inputs.labels.map(lambda labels: np.ones(len(labels), bool))
    labels = held(inputs.labels, everywhere)
    settled = labels.map(lambda side: side.known & ~side.dropped)
    outside = Sides(*(s & ~j.right for s, j in zip(settled.pair, labels.pair, strict=True)))
    n = sum(int(side.sum()) for side in settled.pair)
    n_outside = sum(int(side.sum()) for side in outside.pair)
    if n >= _LEAST_IMAGES and n - n_outside < _LEAST_AGREEMENT * n:
        return None
    return _Opinion(
        source,
        source,
        "all classes that are right for an image; images without any are left out",
        held(inputs.predicted, inputs.correct),
        n_classes,
        outside,
    )


def _of_votes(inputs: Inputs, source: str, columns: Mapping[str, Annotation]) -> _Opinion:
    guess = columns.get(_GUESS)
    labels, predicted = inputs.labels, inputs.predicted

    def side(name: str) -> Judged:
        votes = {
            vote: getattr(columns[_VOTE_PREFIX + vote].values, name)
            for vote in _VOTES
            if _VOTE_PREFIX + vote in columns
        }
        return by_votes(
            votes,
            getattr(labels, name),
            getattr(predicted, name),
            None if guess is None else getattr(guess.values, name),
        )

    return _Opinion(
        f"{source} (votes of reviewers)",
        source,
        "what most reviewers say of the given label and of a guess; images without a majority, or "
        "of neither class, are left out; images that nobody reviewed keep their label",
        Sides(side("reference"), side("target")),
    )


def _of_agreement(inputs: Inputs, annotation: Annotation, bare: str) -> _Opinion:
    # the column is 1 where at least seven in ten reviewers gave the label, 0 where fewer did
    whom = "at least seven in ten" if bare == _THRESHOLD else "at least half of the"
    sides = zip(annotation.values.pair, inputs.correct.pair, strict=True)
    return _Opinion(
        annotation.name,
        annotation.source,
        f"images whose label {whom} reviewers gave; the others are left out",
        Sides(*(by_agreement(values, correct) for values, correct in sides)),
    )


def _is_share(annotation: Annotation) -> bool:
    if annotation.categories is not None:
        return False
    values = np.concatenate(annotation.values.pair)
    values = values[np.isfinite(values)]
    return bool(((values >= 0) & (values <= 1)).all())


def _opinion_out(opinion: _Opinion, quality: LabelQuality, inputs: Inputs) -> OpinionOut:
    sides = Sides(quality.reference, quality.target)
    splits = {}
    for name in ("reference", "target"):
        found: SetQuality | None = getattr(sides, name)
        split = inputs.names[name]
        splits[split] = None if found is None else _set_out(opinion, name, found, inputs.names)

    def out(estimate: Estimate) -> EstimateOut:
        return EstimateOut.of(estimate, inputs.names)

    return OpinionOut(
        name=opinion.name,
        source=opinion.source,
        about=opinion.about,
        one_set_only=None in sides.pair,
        splits=splits,
        gap_judged=out(quality.gap_judged),
        gap_gone=out(quality.gap_gone),
        share_of_gap_gone=out(quality.share_of_gap_gone),
    )


def _set_out(
    opinion: _Opinion, name: str, found: SetQuality, names: Mapping[str, str]
) -> SetLabelsOut:
    def out(estimate: Estimate) -> EstimateOut:
        return EstimateOut.of(estimate, names)

    several = outside = None
    if opinion.n_classes is not None and opinion.label_outside is not None:
        several = float((getattr(opinion.n_classes, name) > 1).sum() / found.n_known)
        outside = float(getattr(opinion.label_outside, name).sum() / found.n_known)
    return SetLabelsOut(
        n=found.n,
        n_known=found.n_known,
        n_dropped=found.n_dropped,
        share_dropped=found.n_dropped / found.n_known,
        share_several=several,
        share_label_outside=outside,
        accuracy=out(found.accuracy),
        accuracy_judged=out(found.accuracy_judged),
        error_gone=out(found.error_gone),
        share_of_error_gone=out(found.share_of_error_gone),
        errors_called_right=out(found.errors_called_right),
        errors_dropped=out(found.errors_dropped),
        right_called_wrong=out(found.right_called_wrong),
    )


def _in_words(opinions: list[OpinionOut], splits: Sides[str]) -> list[str]:
    said = []
    for opinion in opinions:
        for split, found in opinion.splits.items():
            if found is None:
                continue
            sentence = (
                f"{opinion.name} judges {found.n_known:,} of {found.n:,} images of {split}, of "
                f"which {found.n_dropped:,} are left out"
            )
            judged, given = found.accuracy_judged, found.accuracy.estimate
            if judged.estimate is not None and given is not None:
                sentence += (
                    f"; accuracy is {judged.estimate:.1%} ({_percent(judged)}) by it, "
                    f"{given:.1%} by the given labels"
                )
            called = found.errors_called_right
            if called.estimate is not None:
                sentence += (
                    f"; of the errors on images that it judges and keeps, {called.estimate:.0%} "
                    f"({_percent(called)}) are right by it"
                )
            said.append(sentence + ".")
        if opinion.one_set_only:
            there = next((s for s, found in opinion.splits.items() if found is not None), None)
            if there is None:
                said.append(f"{opinion.name} judges no image of {' or '.join(splits.pair)}.")
            else:
                said.append(
                    f"{opinion.name}: one set only ({there}), so that it cannot say how much of "
                    "the gap goes with labels."
                )
            continue
        gone = opinion.gap_gone
        if gone.estimate is not None and gone.low is not None and gone.high is not None:
            said.append(
                f"By {opinion.name} {gone.estimate * 100:+.1f} points of the gap disappear (95 % "
                f"interval {points(gone.low, gone.high)}): a description, not a cause."
            )
    return said


def _percent(estimate: EstimateOut) -> str:
    return f"95 % interval {(estimate.low or 0) * 100:.1f} to {(estimate.high or 0) * 100:.1f} %"


def _chart(answer: LabelsOut) -> dict[str, Any]:
    rows = []
    for opinion in answer.opinions:
        drawn = [
            (f"error on {split}", found.error_gone)
            for split, found in opinion.splits.items()
            if found is not None
        ]
        rows += [
            {
                "name": f"{opinion.name}: {what}",
                "estimate": value.estimate,
                "low": value.low,
                "high": value.high,
            }
            for what, value in [*drawn, ("gap", opinion.gap_gone)]
        ]
    if not rows:
        raise NothingToDraw(f"wanted a chart of labels of {answer.model!r}, but {answer.reason}.")
    return charts.forest(
        rows,
        title="What disappears by second opinions on the labels, with 95 % intervals",
        x_title="points that disappear (95 % interval)",
    )


PART = Part(
    "labels", "what second opinions on the labels leave of errors and gap", LabelsOut, compute,
    {"labels": _chart},
)  # fmt: skip
