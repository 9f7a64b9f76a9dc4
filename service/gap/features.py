"""`/gap/{model}/features`: which features shift, weigh, carry margins, separate, and are missed."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pydantic import Field

from models import heads
from models.errors import NoTrainRows
from models.estimate import Estimate
from models.gap.features import FeatureShift, distances_within_classes, feature_shifts
from models.gap.margins import MarginLedger, StandardHead, margin_ledger, strongest_others
from models.gap.resampling import Replicates
from models.gap.separation import Losses, Separation, losses, right_without, separation
from models.heads.judging import without_absent
from models.heads.linear import nearest_linear, norm_of_centred
from service import charts
from service.errors import NothingToDraw
from service.evaluations import SEED
from service.gap.inputs import Inputs, Sides
from service.gap.part import Part
from service.schemas import Answer, EstimateOut, PartOut
from service.sentences import NO_FEATURES
from service.terminal import Progress, part_of

_MASKED = 50
_RESCORED_ROWS = 100_000  # that a head which is not linear scores anew, all features together
_LEAST_RESCORED = 5
_CLEAR = 0.05
_NAMED = 5
_CHARTED = 20
BLIND_SPOTS = [
    "mean_margin (C) cancels a translation that all classes share: ks, wasserstein and "
    "hard_margin (D) see it.",
    "ks and wasserstein hardly see that what tells the classes apart has become weaker "
    "(attenuation): mean_margin (C) and separation see it.",
    "p_value of a shift tests means within classes: another spread alone leaves it unmoved, "
    "ks_within_classes does not.",
    "Masking one feature misses what several features say alike: each of them can be spared alone. "
    "POST /gap/{model}/mask refits the head without a set of them.",
    "All of it describes the two sets and this head; that a feature causes the gap is not shown.",
]


class TestedOut(EstimateOut):
    """An estimate, and the test that it is 0."""

    p_value: float | None = Field(description="That it is 0, adjusted for looking at all features.")


class FeatureOut(Answer):
    """One feature, all that is known of it side by side."""

    feature_id: int
    feature_name: str
    relevance: float = Field(
        description="|shift within classes| in train standard deviations × head_weight, in scores: "
        "the list is sorted by it. 0 where is_nearly_constant."
    )
    is_nearly_constant: bool = Field(
        description="Train standard deviation 0, below 1 % of the median feature's, or within "
        "rounding: relevance means nothing there, and the feature comes last."
    )
    head_weight: float
    ks: float
    ks_within_classes: float | None
    wasserstein: float | None = Field(description="In train standard deviations.")
    wasserstein_within_classes: float | None
    mean_difference: EstimateOut
    mean_difference_within_classes: EstimateOut
    p_value: float | None = Field(
        description="Of the shift within classes, adjusted for looking at all features."
    )
    mean_margin: TestedOut | None = Field(
        description="C: its term in the difference of mean margins (own class against the mean of "
        "the others), reference minus target, in scores; null where there are no margins."
    )
    hard_margin: TestedOut | None = Field(
        description="D: the same for the margin to the strongest other class."
    )
    omega2_reference: float | None = Field(
        description="Share of its variance between classes, corrected for few images a class."
    )
    omega2_target: float | None
    eta2_reference: float | None = Field(description="The same, not corrected: too high.")
    eta2_target: float | None
    separation: TestedOut = Field(description="omega2_reference minus omega2_target.")
    accuracy_lost_reference: EstimateOut | None = Field(
        description="Accuracy lost where it is set to its train mean; null where that was not "
        "tried (only the most relevant features are)."
    )
    accuracy_lost_target: EstimateOut | None
    accuracy_lost_difference: TestedOut | None = Field(
        description="Reference minus target: above 0, it works for the reference but not for the "
        "target, and the gap is smaller by that much without it."
    )


class MarginOut(Answer):
    """The difference of mean margins, which the features' terms and the bias sum to."""

    difference: EstimateOut = Field(description="Reference minus target, in scores.")
    bias: float = Field(description="What the biases make of another mix of classes.")
    residual: float = Field(description="What terms and bias leave: rounding.")


class FeaturesOut(PartOut):
    """Features side by side: shift, weight in the head, margins, separation, masking."""

    features: list[FeatureOut] | None = Field(description="Largest relevance first.")
    reason: str | None = Field(description="Why features is null.")
    sorted_by: str
    n_nearly_constant: int | None
    mean_margin: MarginOut | None
    hard_margin: MarginOut | None
    margin_reason: str | None = Field(description="Why the margins are null.")
    linear_share: float | None = Field(
        description="Of a head that is not linear: share of its scores' variance on both sets that "
        "the linear head nearest to it has; weights and margins are those of that head."
    )
    n_masked: int | None
    masking: str | None = Field(description="How features were masked.")
    n_classes_compared: int | None = Field(
        description="Classes with two images in both sets, which separation compares."
    )
    blind_spots: list[str]


@dataclass(frozen=True)
class _Linear:
    """The head itself, or the linear one nearest to it."""

    head: StandardHead
    scores: Sides[np.ndarray]
    share: float | None


@dataclass(frozen=True)
class _Margins:
    """The ledgers of C and D, or none, and the bootstrap weights behind them."""

    ledgers: list[MarginLedger]
    drawn: Replicates

    def term(self, i: int, j: int, names: dict[str, str]) -> TestedOut | None:
        """One feature's term."""
        if not self.ledgers:
            return None
        one = self.ledgers[i]
        return _tested(one.values, one, j, self.drawn, "scores", names)

    def whole(self, i: int, names: dict[str, str]) -> MarginOut | None:
        """Return what the terms sum to."""
        if not self.ledgers:
            return None
        one = self.ledgers[i]
        difference = _estimate(one.difference, self.drawn, "scores", names)
        return MarginOut(difference=difference, bias=one.bias, residual=one.residual)


def compute(inputs: Inputs, progress: Progress) -> FeaturesOut:
    """Compare the features."""
    features, head, scores = inputs.features, inputs.head, inputs.scores
    if features is None or head is None or scores is None:
        return _unknown(inputs)
    labels = inputs.labels
    drawn = inputs.replicates
    linear, margin_reason = None, None
    try:
        progress(0.0, "reading the head")
        linear = _linear(inputs, head, scores)
    except NoTrainRows as error:
        margin_reason = (
            f"the head is not linear, and there is nothing to approximate it on: {error}"
        )
    weights = head.feature_weights()
    if isinstance(head, heads.LinearHead) and linear is not None:
        weights = norm_of_centred(linear.head.weight.T)
    shifts = feature_shifts(
        features.reference, labels.reference, features.target, labels.target,
        train_sd=inputs.train_sd, head_weights=weights, seed=SEED,
        progress=part_of(progress, 0.0, 0.3),
    )  # fmt: skip
    progress(0.3, "comparing distributions within classes")
    within = distances_within_classes(
        features.reference, labels.reference, features.target, labels.target
    )
    margins = _Margins([], drawn)
    if linear is not None:
        margins = _margins(linear, inputs, features, drawn, progress)
        if not margins.ledgers:
            margin_reason = "a set has no image of a class that the head knows"
    progress(0.7, "comparing how features separate the classes")
    apart = separation(
        features.reference, labels.reference, features.target, labels.target, drawn,
        progress=lambda share: progress(0.7 + 0.15 * share, "how features separate the classes"),
    )  # fmt: skip
    is_linear = isinstance(head, heads.LinearHead)
    masked = _most_relevant(shifts, len(labels.reference) + len(labels.target), is_linear)
    lost = _masked(inputs, linear if is_linear else None, masked, drawn, progress)
    names = inputs.names
    place = {j: i for i, j in enumerate(masked)}
    rows = []
    for f in shifts:
        j = f.feature_id
        sd = inputs.train_sd[j]
        one = place.get(j)
        rows.append(
            FeatureOut(
                feature_id=j,
                feature_name=inputs.feature_names[j],
                relevance=f.relevance,
                is_nearly_constant=f.is_nearly_constant,
                head_weight=f.head_weight,
                ks=f.ks,
                ks_within_classes=_known(within[0][j]),
                wasserstein=f.wasserstein,
                wasserstein_within_classes=_known(within[1][j] / sd) if sd > 0 else None,
                mean_difference=EstimateOut.of(f.mean_difference, names),
                mean_difference_within_classes=EstimateOut.of(
                    f.mean_difference_within_classes, names
                ),
                p_value=f.p_value,
                mean_margin=margins.term(0, j, names),
                hard_margin=margins.term(1, j, names),
                omega2_reference=_known(apart.omega2[0, j]),
                omega2_target=_known(apart.omega2[1, j]),
                eta2_reference=_known(apart.eta2[0, j]),
                eta2_target=_known(apart.eta2[1, j]),
                separation=_tested(apart.values, apart, j, drawn, "fraction", names, apart.n),
                accuracy_lost_reference=None
                if one is None
                else _estimate(lost.reference[:, one], drawn, "fraction", names, ["reference"]),
                accuracy_lost_target=None
                if one is None
                else _estimate(lost.target[:, one], drawn, "fraction", names, ["target"]),
                accuracy_lost_difference=None
                if one is None
                else _tested(lost.difference, lost, one, drawn, "fraction", names),
            )
        )
    whole = margins.whole(0, names), margins.whole(1, names)
    return FeaturesOut(
        model=inputs.model,
        reference=inputs.reference,
        target=inputs.target,
        summary=_in_words(inputs, rows, whole, linear),
        features=rows,
        reason=None,
        sorted_by="relevance",
        n_nearly_constant=sum(row.is_nearly_constant for row in rows),
        mean_margin=whole[0],
        hard_margin=whole[1],
        margin_reason=margin_reason,
        linear_share=None if linear is None else linear.share,
        n_masked=len(masked),
        masking=(
            "set to its train mean: its weight times its value taken off the scores"
            if is_linear
            else "set to its train mean, and all images scored anew"
        ),
        n_classes_compared=apart.n_classes,
        blind_spots=BLIND_SPOTS,
    )


def _unknown(inputs: Inputs) -> FeaturesOut:
    return FeaturesOut(
        model=inputs.model, reference=inputs.reference, target=inputs.target,
        summary=[f"Features: unknown ({NO_FEATURES})."], features=None, reason=NO_FEATURES,
        sorted_by="relevance", n_nearly_constant=None, mean_margin=None, hard_margin=None,
        margin_reason=NO_FEATURES, linear_share=None, n_masked=None, masking=None,
        n_classes_compared=None, blind_spots=BLIND_SPOTS,
    )  # fmt: skip


def _linear(inputs: Inputs, head: heads.Head, scores: Sides[np.ndarray]) -> _Linear:
    """Return the linear head that is explained, and its scores.

    Raises
    ------
    models.errors.NoTrainRows
    """
    mean, sd = inputs.train_mean, inputs.train_sd
    if isinstance(head, heads.LinearHead):
        return _Linear(StandardHead.of(head, mean, sd), scores, None)
    sample = inputs.train_sample
    scale = np.where(sd > 0, sd, 1.0)
    weight, bias = nearest_linear(
        _without_absent(heads.scores(head, sample)), (sample - mean) / scale
    )
    near = heads.LinearHead(
        mean, scale, weight.astype(np.float32), bias.astype(np.float32), head.class_ids
    )
    assert inputs.features is not None
    its = inputs.features.map(lambda rows: heads.scores(near, rows))
    missed = spread = 0.0
    for own, other in zip(scores.pair, its.pair, strict=True):
        own = _without_absent(own)
        own = own - own.mean(axis=1, keepdims=True)
        missed += float(np.square(own - other + other.mean(axis=1, keepdims=True)).sum())
        spread += float(np.square(own - own.mean(axis=0)).sum())
    share = 1 - missed / spread if spread > 0 else None
    return _Linear(StandardHead.of(near, mean, sd), its, share)


def _without_absent(scores: np.ndarray) -> np.ndarray:
    return np.asarray(without_absent(torch.from_numpy(scores)).numpy())


def _margins(
    linear: _Linear,
    inputs: Inputs,
    features: Sides[np.ndarray],
    drawn: Replicates,
    progress: Progress,
) -> _Margins:
    """C and D, of the images whose class the head knows."""
    columns = inputs.labels.map(linear.head.column_of)
    known = columns.map(lambda c: c >= 0)
    if not all(side.any() for side in known.pair) or len(linear.head.class_ids) < 2:
        return _Margins([], drawn)
    rows = Sides(*(_kept(x, k) for x, k in zip(features.pair, known.pair, strict=True)))
    own = Sides(*(_kept(c, k) for c, k in zip(columns.pair, known.pair, strict=True)))
    scores = Sides(*(_kept(s, k) for s, k in zip(linear.scores.pair, known.pair, strict=True)))
    of_known = Replicates(
        _kept(drawn.reference, known.reference), _kept(drawn.target, known.target), drawn.seed
    )
    others = Sides(*(strongest_others(s, c) for s, c in zip(scores.pair, own.pair, strict=True)))
    found = []
    for first, competitors in ((0.4, None), (0.55, others.pair)):

        def tick(share: float, first: float = first) -> None:
            progress(first + 0.15 * share, "adding up the margins")

        found.append(
            margin_ledger(
                linear.head,
                rows.reference,
                own.reference,
                rows.target,
                own.target,
                of_known,
                competitors=competitors,
                progress=tick,
            )
        )
    return _Margins(found, of_known)


def _kept(rows: np.ndarray, known: np.ndarray) -> np.ndarray:
    return rows if known.all() else rows[known]


def _most_relevant(shifts: list[FeatureShift], n_rows: int, is_linear: bool) -> list[int]:
    moving = [f.feature_id for f in shifts if not f.is_nearly_constant]
    if is_linear:
        return moving[:_MASKED]
    return moving[: min(_MASKED, max(_LEAST_RESCORED, _RESCORED_ROWS // max(1, n_rows)))]


def _masked(
    inputs: Inputs, linear: _Linear | None, masked: list[int], drawn: Replicates, progress: Progress
) -> Losses:
    """Accuracy lost without each of some features; a head that is not linear scores anew."""
    head, features, scores = inputs.head, inputs.features, inputs.scores
    assert head is not None
    assert features is not None
    assert scores is not None
    answers = []
    for i, (rows, said, labels, right) in enumerate(
        zip(features.pair, scores.pair, inputs.labels.pair, inputs.correct.pair, strict=True)
    ):

        def tick(share: float, i: int = i) -> None:
            progress(0.85 + 0.07 * (i + share), "masking one feature after the other")

        if linear is not None:
            z = (rows[:, masked] - linear.head.mean[masked]) / linear.head.scale[masked]
            without = right_without(
                said, linear.head.column_of(labels), z, linear.head.weight[:, masked], progress=tick
            )
        else:
            without = np.empty((len(rows), len(masked)), bool)
            for place, j in enumerate(masked):
                changed = rows.copy()
                changed[:, j] = inputs.train_mean[j]
                without[:, place] = heads.predict(head, changed, labels).correct
                tick((place + 1) / len(masked))
        answers.append((right, without))
    return losses(*answers[0], *answers[1], drawn)


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _estimate(
    values: np.ndarray,
    drawn: Replicates,
    unit: str,
    names: dict[str, str],
    sets: list[str] | None = None,
    n: dict[str, int] | None = None,
) -> EstimateOut:
    n = n or {name: count for name, count in drawn.n.items() if sets is None or name in sets}
    if not np.isfinite(values[0]):
        unknown = Estimate.unknown("constant, or too few images a class", n=n, unit=unit)
        return EstimateOut.of(unknown, names)
    found = EstimateOut.of(drawn.estimate(values, unit=unit), names)
    return found.model_copy(update={"n": {names.get(key, key): c for key, c in n.items()}})


def _tested(
    values: np.ndarray,
    tests: MarginLedger | Separation | Losses,
    j: int,
    drawn: Replicates,
    unit: str,
    names: dict[str, str],
    n: dict[str, int] | None = None,
) -> TestedOut:
    estimate = _estimate(values[:, j], drawn, unit, names, n=n)
    return TestedOut(**estimate.model_dump(), p_value=_known(tests.p_values[j]))


def _in_words(
    inputs: Inputs,
    rows: list[FeatureOut],
    margins: tuple[MarginOut | None, MarginOut | None],
    linear: _Linear | None,
) -> list[str]:
    reference, target = inputs.splits.pair
    sentences = []
    tested = [row for row in rows if row.p_value is not None]
    moved = [row for row in tested if _is_clear(row.p_value) and not row.is_nearly_constant]
    if tested:
        sentences.append(
            f"{len(moved)} of {len(tested)} features have a different mean on {target} between "
            f"images of the same class (p < .05, adjusted){_names(moved, 'most relevant')}."
        )
    else:
        sentences.append("No class is in both sets: features cannot be compared within classes.")
    if linear is not None and linear.share is not None:
        sentences.append(
            "The head is not linear: weights and margins are those of the linear head nearest to "
            f"its scores, which has {linear.share:.0%} of their variance on the two sets."
        )
    for margin, field, words in (
        (margins[0], "mean_margin", "The own class's score leads the mean of the others by"),
        (margins[1], "hard_margin", "It leads the strongest other class by"),
    ):
        if margin is None or margin.difference.estimate is None:
            continue
        size = margin.difference.estimate
        ends = [margin.difference.low or 0.0, margin.difference.high or 0.0]
        low, high = sorted(ends if size >= 0 else [-end for end in ends])
        clear = [row for row in rows if _is_clear(getattr(row, field).p_value)]
        clear.sort(key=lambda row: -abs(getattr(row, field).estimate or 0.0))
        sentences.append(
            f"{words} {abs(size):.2f} scores {'less' if size >= 0 else 'more'} on {target} than on "
            f"{reference} (95 % interval {low:.2f} to {high:.2f}); {len(clear)} "
            + ("feature has" if len(clear) == 1 else "features have")
            + f" a part in it that is told from 0{_names(clear, 'largest')}."
        )
    for sign, where in ((1, target), (-1, reference)):
        worse = [
            row
            for row in rows
            if _is_clear(row.separation.p_value) and sign * (row.separation.estimate or 0) > 0
        ]
        worse.sort(key=lambda row: -abs(row.separation.estimate or 0))
        if worse:
            sentences.append(
                f"{len(worse)} features separate the classes less well on {where} than on the "
                f"other set{_names(worse, 'most')}."
            )
    tried = [row for row in rows if row.accuracy_lost_difference is not None]
    one_sided = [row for row in tried if _is_clear(row.accuracy_lost_difference.p_value)]  # type: ignore[union-attr]
    if tried:
        sentences.append(
            f"Of the {len(tried)} most relevant features {len(one_sided)} are worth more accuracy "
            f"to one set than to the other when masked one at a time{_names(one_sided, 'they')}."
        )
    if any(row.eta2_target is not None for row in rows):
        sentences.append(
            "Shares of variance between classes (omega2) are corrected for few images a class; "
            "eta2, which is not, is far too high there."
        )
    return sentences


def _names(rows: list[FeatureOut], word: str) -> str:
    return f"; {word}: {', '.join(row.feature_name for row in rows[:_NAMED])}" if rows else ""


def _is_clear(p_value: float | None) -> bool:
    return p_value is not None and p_value < _CLEAR


def _rows(answer: FeaturesOut) -> list[FeatureOut]:
    """Features of an answer.

    Raises
    ------
    NothingToDraw
    """
    if answer.features is None:
        raise NothingToDraw(
            f"wanted a chart of the features of {answer.model!r}, but {answer.reason}."
        )
    return answer.features


def _scatter(answer: FeaturesOut) -> dict[str, Any]:
    rows = [
        {
            "name": row.feature_name,
            "shift": row.mean_difference_within_classes.estimate,
            "head_weight": row.head_weight,
            "significant": _is_clear(row.p_value),
            "relevance": row.relevance,
        }
        for row in _rows(answer)
    ]
    return charts.scatter(
        rows, x="shift", y="head_weight", mark="significant", marked="p < .05, adjusted",
        title="Features: how far each moved within classes, and how much the head leans on it",
        x_title=f"shift within classes: {answer.target} − {answer.reference}, standard deviations",
        y_title="weight in the head, scores a train standard deviation",
        tooltip=["name", "relevance"],
    )  # fmt: skip


def _margin_chart(answer: FeaturesOut) -> dict[str, Any]:
    known = [row for row in _rows(answer) if row.mean_margin is not None]
    if not known:
        raise NothingToDraw(f"wanted margins of {answer.model!r}, but {answer.margin_reason}.")
    known.sort(key=lambda row: -abs(row.mean_margin.estimate or 0.0))  # type: ignore[union-attr]
    return charts.forest(
        [
            _line(row, row.mean_margin) | {"hard": row.hard_margin and row.hard_margin.estimate}
            for row in known[:_CHARTED]
        ],
        title="Features that change the margin of the true class: over the mean of the others "
        "(dot), over the best other (tick)",
        x_title=f"margin lost from {answer.reference} to {answer.target}, scores (95 % interval)",
        tick="hard",
        unit="number",
        tooltip=["p_value"],
    )


def _separation_chart(answer: FeaturesOut) -> dict[str, Any]:
    rows = [
        {
            "name": row.feature_name,
            "reference": row.omega2_reference,
            "target": row.omega2_target,
            "significant": _is_clear(row.separation.p_value),
        }
        for row in _rows(answer)
    ]
    return charts.scatter(
        rows, x="reference", y="target", mark="significant", marked="p < .05, adjusted",
        diagonal=True,
        title="How well each feature separates the classes; dashed: the same on both splits",
        x_title=f"share of its variance between classes on {answer.reference} (ω²)",
        y_title=f"share of its variance between classes on {answer.target} (ω²)",
    )  # fmt: skip


def _masking_chart(answer: FeaturesOut) -> dict[str, Any]:
    tried = [row for row in _rows(answer) if row.accuracy_lost_difference is not None]
    tried.sort(key=lambda row: -abs(row.accuracy_lost_difference.estimate or 0.0))  # type: ignore[union-attr]
    return charts.forest(
        [_line(row, row.accuracy_lost_difference) for row in tried[:_CHARTED]],
        title="Features left out one at a time: how much more accuracy that costs on "
        f"{answer.reference} than on {answer.target}",
        x_title="points of accuracy (95 % interval)",
        tooltip=["p_value"],
    )


def _line(row: FeatureOut, value: TestedOut | None) -> dict[str, Any]:
    assert value is not None
    return {
        "name": row.feature_name,
        "estimate": value.estimate,
        "low": value.low,
        "high": value.high,
        "p_value": value.p_value,
    }


PART = Part(
    "features",
    "features side by side: shift, weight in the head, margins, separation, masking",
    FeaturesOut,
    compute,
    {
        "feature_scatter": _scatter,
        "margins": _margin_chart,
        "separation": _separation_chart,
        "masking": _masking_chart,
    },
)
