"""`/gap/{model}/difficulty`: what goes with an image being hard, and whether confidence tells."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from pydantic import Field

from models.gap import agreement as agreeing
from models.gap.calibration import Answers, Calibration, Measure, brier_scores, calibration
from models.gap.difference import newcombe
from models.gap.geometry import hubness, top_similarity
from models.gap.standardise import Covariate, Standardised, standardise
from service import charts
from service.errors import NotFound
from service.gap.inputs import Inputs, Sides
from service.gap.part import Part
from service.schemas import Answer, EstimateOut, PartOut
from service.sentences import points
from service.terminal import Progress, part_of

CONFIDENCE, AGREEMENT, OTHERS_RIGHT = "confidence", "agreement of other models", "others right"
DISTANCE, SIMILARITY, HUBNESS = "distance to train", "similarity to a class mean", "hubness"
_TENTH = 10  # neighbour whose distance says how well train covers a place
_ROWS_A_NEIGHBOUR = 10  # train rows for each neighbour; with fewer all rows are near all others
_CIRCULAR = "circular: label errors make all models wrong"
_NAMED = 3


class BinOut(Answer):
    """Images of both splits that are alike in a covariate."""

    name: str
    low: float | None = Field(description="Smallest value; null for categories and unknown.")
    high: float | None
    mean: float | None
    n_reference: int
    n_target: int
    accuracy_reference: EstimateOut
    accuracy_target: EstimateOut


class CovariateOut(Answer):
    """The gap in parts by one covariate: explained + rest + uncovered = gap."""

    name: str
    kind: str = Field(description="model, other models, annotation or image statistic.")
    uses_labels: bool | None = Field(
        description="Whether labels of the test splits are in it; null for an annotation, of which "
        "only its source knows."
    )
    warning: str | None = Field(description="Why it must not be read like the others.")
    explained: EstimateOut = Field(
        description="What the gap would be were images of one bin equally hard on both splits."
    )
    rest: EstimateOut = Field(description="Difference between images of one bin.")
    uncovered: EstimateOut = Field(description="Part of target images in bins without reference.")
    uncovered_share: float = Field(description="Such images, as a share of the target's.")
    share: EstimateOut = Field(description="Explained over gap.")
    difference: EstimateOut = Field(
        description="Mean over the reference's images minus that over the target's, in the "
        "covariate's own unit; null for categories."
    )
    bins: list[BinOut]


class MeasureOut(Answer):
    """One measure of probabilities on both splits; lower is better."""

    reference: EstimateOut
    target: EstimateOut
    increase: EstimateOut = Field(description="Target minus reference; ECE at equal size.")


class ReliabilityOut(Answer):
    """Images of one split of which the model is equally sure."""

    split: str
    n: int
    confidence: float = Field(description="Mean probability of the predicted class.")
    accuracy: EstimateOut


class CalibrationOut(Answer):
    """Whether probabilities mean the same on both splits."""

    ece: MeasureOut
    overconfidence: MeasureOut = Field(description="Mean confidence minus accuracy.")
    nll: MeasureOut
    brier: MeasureOut
    reliability: list[ReliabilityOut] | None = Field(
        description="15 bins of equal mass of each split; null without confidences."
    )


class DifficultyOut(PartOut):
    """What the gap has to do with how hard images are."""

    gap: EstimateOut
    covariates: list[CovariateOut] = Field(description="Without labels of the test splits.")
    using_labels: list[CovariateOut] = Field(description="With them: circular, kept apart.")
    n_other_models: int = Field(description="Whose agreement counts.")
    near_twins: list[str] = Field(description="Other models that were left out, and why.")
    left_out: list[str] = Field(description="What is no covariate here, and why.")
    calibration: CalibrationOut


def compute(inputs: Inputs, progress: Progress) -> DifficultyOut:
    """Standardise by each covariate, and hold confidence against accuracy."""
    labels, correct = inputs.labels, inputs.correct
    n_right = [int(side.sum()) for side in correct.pair]
    gap = newcombe(n_right[0], len(correct.reference), n_right[1], len(correct.target))
    drawn = inputs.replicates
    progress(0.2, "covariates")
    found, left_out = _of_model(inputs)
    near, not_near = _among_train(inputs, part_of(progress, 0.2, 0.4))
    found, left_out = found + near, left_out + not_near
    others, twins = _other_models(inputs)
    circular: list[Covariate] = []
    if len(others) < agreeing.FEWEST:
        left_out.append(
            f"{AGREEMENT}: of other models that have predicted all images of both splits there "
            f"are {len(others)}, and {agreeing.FEWEST} are wanted; models that answer nearly as "
            "this one are not counted"
        )
    else:
        found.append((_agreement(AGREEMENT, inputs.predicted, others), "other models", False))
        circular.append(_agreement(OTHERS_RIGHT, labels, others))
    for annotation in inputs.annotations:
        if not annotation.on_both:
            left_out.append(f"{annotation.name}: known on one split only")
            continue
        is_statistic = inputs.is_image_statistic(annotation)
        found.append(
            (
                Covariate(annotation.name, *annotation.values.pair, annotation.categories),
                "image statistic" if is_statistic else "annotation",
                False if is_statistic else None,
            )
        )
    progress(0.4, "standardising")
    parts = standardise(*correct.pair, [*(one for one, _, _ in found), *circular], drawn)
    covariates = [
        _covariate_out(part, kind, uses, None, inputs.names)
        for part, (_, kind, uses) in zip(parts[: len(found)], found, strict=True)
    ]
    using_labels = [
        _covariate_out(part, "other models", True, _CIRCULAR, inputs.names)
        for part in parts[len(found) :]
    ]
    progress(0.6, "calibration")
    calibrated = calibration(*_answers(inputs).pair, drawn)
    gap_out = EstimateOut.of(gap, inputs.names)
    calibration_out = _calibration_out(calibrated, inputs.names)
    return DifficultyOut(
        model=inputs.model,
        reference=inputs.reference,
        target=inputs.target,
        summary=_in_words(covariates, using_labels, calibration_out, inputs),
        gap=gap_out,
        covariates=covariates,
        using_labels=using_labels,
        n_other_models=len(others),
        near_twins=[
            f"{name}: a near twin of {'this model' if whose is None else whose}"
            for name, whose in twins.items()
        ],
        left_out=left_out,
        calibration=calibration_out,
    )


_Found = list[tuple[Covariate, str, bool | None]]


def _among_train(inputs: Inputs, progress: Progress) -> tuple[_Found, list[str]]:
    """Where images lie among the train rows: near to a class mean, to many rows, to hubs.

    A search in a large train set takes minutes, and is left to `leaks`; then it is known here.
    """
    wanted = (SIMILARITY, DISTANCE, HUBNESS)
    if inputs.features is None:
        return [], [f"{name}: an imported model has no features here" for name in wanted]
    rows = inputs.database.splits_of(inputs.backbone)
    n_train = sum(row["n_images"] for row in rows if row["role"] == "train")
    if not n_train:
        return [], [f"{name}: no train rows are loaded" for name in wanted]
    means = inputs.database.train_class_means(inputs.backbone)
    similarity = inputs.features.map(
        lambda features: top_similarity(
            features, means, train_mean=inputs.train_mean, train_sd=inputs.train_sd
        )
    )
    covariates = [Covariate(SIMILARITY, *similarity.pair)]
    left_out = []
    if not inputs.has_near_train():
        left_out = [
            f"{name}: the search among {n_train:,} train rows takes minutes, and is made for leaks "
            "alone; once that is done it is known here too"
            for name in (DISTANCE, HUBNESS)
        ]
    else:
        sample, found = inputs.near_train(progress)
        tenth = [side.found.distance[:, _TENTH - 1] for side in found.pair]
        first, second = (np.where(np.isfinite(one), one, np.nan) for one in tenth)
        covariates.append(Covariate(DISTANCE, first, second))
        fewest = _ROWS_A_NEIGHBOUR * sample.place.shape[1]
        if n_train < fewest:
            left_out.append(f"{HUBNESS}: {n_train:,} train rows, and {fewest} are wanted")
        else:
            of_first, of_second = (
                hubness(sample.place, side.found.place, n_train=n_train) for side in found.pair
            )
            covariates.append(Covariate(HUBNESS, of_first, of_second))
    return [(one, "model", False) for one in covariates], left_out


def _of_model(inputs: Inputs) -> tuple[_Found, list[str]]:
    """Return what the model itself shows of difficulty, and what it cannot."""
    seen = inputs.covariates
    if seen is not None:
        return [
            (Covariate(name, *(getattr(side, name) for side in seen.pair)), "model", False)
            for name in (CONFIDENCE, "margin", "entropy", "norm")
        ], []
    missing = [f"{name}: an imported model has no scores and features here" for name in
               ("margin", "entropy", "norm")]  # fmt: skip
    if inputs.confidence is None:
        return [], [f"{CONFIDENCE}: the predictions came without it", *missing]
    return [(Covariate(CONFIDENCE, *inputs.confidence.pair), "model", False)], missing


def _other_models(inputs: Inputs) -> tuple[dict[str, np.ndarray], dict[str, str | None]]:
    """Predictions of other models on reference and target, without near twins."""
    others = {
        name: np.concatenate(sides.pair).astype(np.int64)
        for name, sides in inputs.other_answers.items()
    }
    return agreeing.without_near_twins(np.concatenate(inputs.predicted.pair), others)


def _agreement(
    name: str, classes: Sides[np.ndarray], others: Mapping[str, np.ndarray]
) -> Covariate:
    shares = agreeing.agreement(np.concatenate(classes.pair), others)
    n = len(classes.reference)
    return Covariate(name, shares[:n], shares[n:])


def _answers(inputs: Inputs) -> Sides[Answers]:
    nll = inputs.answers.map(lambda table: table["nll"].to_numpy().astype(float))
    has_nll = any(np.isfinite(side).any() for side in nll.pair)
    head = inputs.head
    brier: list[np.ndarray | None] = [None, None]
    if head is not None and inputs.scores is not None:
        brier = [
            brier_scores(scores, labels, head.class_ids)
            for scores, labels in zip(inputs.scores.pair, inputs.labels.pair, strict=True)
        ]
    confidence = (None, None) if inputs.confidence is None else inputs.confidence.pair
    return Sides(
        *(
            Answers(
                inputs.correct.pair[i], confidence[i], nll.pair[i] if has_nll else None, brier[i]
            )
            for i in range(2)
        )
    )


def _covariate_out(
    part: Standardised,
    kind: str,
    uses_labels: bool | None,
    warning: str | None,
    names: dict[str, str],
) -> CovariateOut:
    return CovariateOut(
        name=part.name,
        kind=kind,
        uses_labels=uses_labels,
        warning=warning,
        explained=EstimateOut.of(part.explained, names),
        rest=EstimateOut.of(part.rest, names),
        uncovered=EstimateOut.of(part.uncovered, names),
        uncovered_share=part.uncovered_share,
        share=EstimateOut.of(part.share, names),
        difference=EstimateOut.of(part.difference, names),
        bins=[
            BinOut(
                name=one.name,
                low=one.low,
                high=one.high,
                mean=one.mean,
                n_reference=one.n_reference,
                n_target=one.n_target,
                accuracy_reference=EstimateOut.of(
                    one.accuracy_reference, {"images": names["reference"]}
                ),
                accuracy_target=EstimateOut.of(one.accuracy_target, {"images": names["target"]}),
            )
            for one in part.bins
        ],
    )


def _calibration_out(found: Calibration, names: dict[str, str]) -> CalibrationOut:
    def measure(one: Measure) -> MeasureOut:
        return MeasureOut(
            reference=EstimateOut.of(one.reference, names | {"images": names["reference"]}),
            target=EstimateOut.of(one.target, names | {"images": names["target"]}),
            increase=EstimateOut.of(one.increase, names),
        )

    return CalibrationOut(
        ece=measure(found.ece),
        overconfidence=measure(found.overconfidence),
        nll=measure(found.nll),
        brier=measure(found.brier),
        reliability=None
        if found.reliability is None
        else [
            ReliabilityOut(
                split=names[side],
                n=one.n,
                confidence=one.confidence,
                accuracy=EstimateOut.of(one.accuracy, {"images": names[side]}),
            )
            for side, bins in found.reliability.items()
            for one in bins
        ],
    )


def _in_words(
    covariates: list[CovariateOut],
    using_labels: list[CovariateOut],
    found: CalibrationOut,
    inputs: Inputs,
) -> list[str]:
    clear = [one for one in covariates if _excludes_0(one.explained)]
    sentences = [
        f"{_explains(one)}: a description of which images {inputs.target} has, not a cause."
        for one in sorted(clear, key=lambda one: -abs(one.explained.estimate or 0))[:_NAMED]
    ]
    if not clear:
        sentences.append(
            "No covariate here is shown to go with the gap."
            if covariates
            else "Nothing is known here of how hard images are."
        )
    sentences += [
        f"{_explains(one)}, but it is circular: labels are in it, and a wrong label makes all "
        "models wrong at once. Do not read it as the others."
        for one in using_labels
        if one.explained.estimate is not None
    ]
    sentences += [
        f"{one.name}: {one.uncovered_share:.1%} of the images of {inputs.target} are in bins "
        f"without any of {inputs.reference}; of these it says nothing."
        for one in covariates
        if one.uncovered_share >= 0.0005
    ]
    return sentences + _of_calibration(found, inputs)


def _explains(one: CovariateOut) -> str:
    value, low, high = one.explained.estimate or 0, one.explained.low or 0, one.explained.high or 0
    text = (
        f"{one.name}: {value * 100:+.1f} points of the gap go with it (95 % interval "
        f"{points(low, high)}"
    )
    share = one.share
    if share.estimate is not None and share.low is not None and share.high is not None:
        text += f"; {share.estimate:.0%} of the gap, {share.low:.0%} to {share.high:.0%}"
    return text + ")"


def _of_calibration(found: CalibrationOut, inputs: Inputs) -> list[str]:
    over = found.overconfidence.increase
    if over.estimate is None or over.low is None or over.high is None:
        return [f"Calibration cannot be compared: {over.reason}."]
    sure = found.overconfidence
    excess = [sure.reference.estimate or 0, sure.target.estimate or 0]
    sentences = [
        f"Mean confidence exceeds accuracy by {excess[0] * 100:.1f} points on {inputs.reference} "
        f"and by {excess[1] * 100:.1f} on {inputs.target}: {over.estimate * 100:+.1f} points (95 % "
        f"interval {points(over.low, over.high)})"
        + ("." if _excludes_0(over) else ", which these images do not tell from no change.")
    ]
    ece = found.ece.increase
    if ece.estimate is not None and ece.low is not None and ece.high is not None:
        sentences.append(
            f"Calibration error, compared at equal numbers of images, changes by "
            f"{ece.estimate * 100:+.1f} points ({points(ece.low, ece.high)})."
        )
    return sentences


def _excludes_0(value: EstimateOut) -> bool:
    return value.low is not None and value.high is not None and (value.low > 0 or value.high < 0)


def _forest_chart(answer: DifficultyOut) -> dict[str, Any]:
    ranked = sorted(answer.covariates, key=lambda one: -abs(one.explained.estimate or 0))
    rows = [
        {
            "name": one.name if one.warning is None else f"{one.name} (circular)",
            "estimate": one.explained.estimate,
            "low": one.explained.low,
            "high": one.explained.high,
            "kind": one.kind,
            "warning": one.warning or "",
        }
        for one in [*ranked, *answer.using_labels]
    ]
    return charts.forest(
        rows,
        title="Points of the gap that go with each covariate on its own (dashed: the gap)",
        x_title="points of the gap (95 % interval)",
        also=answer.gap.estimate,
        tooltip=["kind", "warning"],
    )


def _reliability_chart(answer: DifficultyOut) -> dict[str, Any]:
    rows = [
        {
            "split": one.split,
            "confidence": one.confidence,
            "accuracy": one.accuracy.estimate,
            "low": one.accuracy.low,
            "high": one.accuracy.high,
            "n": one.n,
        }
        for one in answer.calibration.reliability or []
    ]
    return charts.lines(
        rows,
        x="confidence",
        y="accuracy",
        series="split",
        domain=[answer.reference, answer.target],
        title="Accuracy against confidence in bins of equal mass (below the dashed line: too sure)",
        x_title="mean confidence",
        y_title="accuracy (95 % interval)",
        x_format=".2%",
        is_sureness=True,
        y_format="%",
        diagonal=True,
        tooltip=["n"],
    )


def _curve_chart(answer: DifficultyOut) -> dict[str, Any]:
    bins = next((one.bins for one in answer.covariates if one.name == CONFIDENCE), [])
    rows = [
        {
            "split": split,
            "confidence": one.mean,
            "accuracy": accuracy.estimate,
            "low": accuracy.low,
            "high": accuracy.high,
            "n": n,
        }
        for split, side in ((answer.reference, "reference"), (answer.target, "target"))
        for one in bins
        for accuracy, n in [(getattr(one, f"accuracy_{side}"), getattr(one, f"n_{side}"))]
        if accuracy.estimate is not None and one.mean is not None
    ]
    return charts.lines(
        rows,
        x="confidence",
        y="accuracy",
        series="split",
        domain=[answer.reference, answer.target],
        title="Accuracy of equally sure answers on both splits, in the same bins of confidence",
        x_title="mean confidence of the bin, both splits",
        y_title="accuracy (95 % interval)",
        x_format=".2%",
        is_sureness=True,
        y_format="%",
        tooltip=["n"],
    )


def covariate_chart(answer: DifficultyOut, covariate: str) -> dict[str, Any]:
    """Accuracy on both splits of images that are alike in a covariate.

    Raises
    ------
    NotFound
    """
    known = {one.name: one for one in (*answer.covariates, *answer.using_labels)}
    if covariate not in known:
        raise NotFound(
            f"wanted a covariate of {answer.model!r} ({', '.join(known) or 'none'}), got "
            f"{covariate!r}."
        )
    rows = [
        {
            "split": split,
            "bin": one.name,
            "accuracy": accuracy.estimate,
            "low": accuracy.low,
            "high": accuracy.high,
            "n": n,
        }
        for one in known[covariate].bins
        for split, side in ((answer.reference, "reference"), (answer.target, "target"))
        for accuracy, n in [(getattr(one, f"accuracy_{side}"), getattr(one, f"n_{side}"))]
        if accuracy.estimate is not None
    ]
    return charts.paired(
        rows,
        by="bin",
        value="accuracy",
        series="split",
        domain=[answer.reference, answer.target],
        title=f"Accuracy of images that are alike in {covariate}",
        y_title=covariate,
        x_title="accuracy (95 % interval)",
    )


PART = Part(
    "difficulty", "what the gap has to do with how hard images are, and calibration",
    DifficultyOut, compute,
    {
        "difficulty": _forest_chart,
        "reliability": _reliability_chart,
        "accuracy_by_confidence": _curve_chart,
    },
    reads=("models", "neighbours"),
)  # fmt: skip
