"""`/gap/{model}/without_labels`: the target's accuracy foretold without its labels."""

from dataclasses import replace
from typing import Any

import numpy as np
from pydantic import Field

from models.estimate import share
from models.gap.without_labels import (
    AGREEMENT,
    ATC_CONFIDENCE,
    ATC_ENTROPY,
    CBPE,
    DOC,
    LEAST_OTHERS,
    MOST_OTHERS,
    RIGHT,
    TOO_HIGH,
    TOO_LOW,
    Foreteller,
    Foretold,
    Judged,
    judge,
    judged,
)
from service import charts
from service.evaluations import SEED
from service.gap import line as on_line
from service.gap.inputs import Inputs
from service.gap.part import Part
from service.schemas import Answer, EstimateOut, PartOut
from service.terminal import Progress

LINE = "line"


class ForetoldOut(Answer):
    """What one method foretells, and how far from the truth it was."""

    name: str
    predicted: EstimateOut = Field(description="Accuracy on the target; null with a reason.")
    error: EstimateOut = Field(description="Predicted minus true accuracy.")
    covered: bool | None = Field(
        description="Whether the interval of what is predicted holds the true accuracy."
    )
    method: str
    assumptions: str
    verdict: str


class WithoutLabelsOut(PartOut):
    """The target's accuracy by several methods that see no label of it, and the true one."""

    reference_accuracy: EstimateOut
    target_accuracy: EstimateOut = Field(description="The true one, by the labels.")
    methods: list[ForetoldOut]


def compute(inputs: Inputs, progress: Progress) -> WithoutLabelsOut:
    """Foretell, and only then look at the target's labels."""
    teller = Foreteller(
        inputs.labels.reference, inputs.correct.reference, len(inputs.paths.target), seed=SEED
    )
    foretold = _foretold(teller, inputs, progress)
    line = _by_line(inputs)
    truth = inputs.correct.target
    found = [(one, judge(one, truth, teller.drawn)) for one in foretold]
    found.append((line[0], line[1]) if line is not None else _unknown_line(teller, truth))
    methods = [_method_out(one, how, inputs) for one, how in found]
    accuracies = inputs.correct.map(lambda c: share(int(c.sum()), len(c)))
    first, second = (
        EstimateOut.of(one, {"images": split})
        for one, split in zip(accuracies.pair, inputs.splits.pair, strict=True)
    )
    return WithoutLabelsOut(
        model=inputs.model,
        reference=inputs.reference,
        target=inputs.target,
        summary=_in_words(methods, second, inputs.target),
        reference_accuracy=first,
        target_accuracy=second,
        methods=methods,
    )


def _foretold(teller: Foreteller, inputs: Inputs, progress: Progress) -> list[Foretold]:
    """Return what each method foretells; no label of the target takes part."""
    found = []
    confidence, covariates = inputs.confidence, inputs.covariates
    progress(0.0, "confidence")
    if confidence is None:
        why = "the predictions were imported without confidence"
        found += [teller.unknown(name, why) for name in (ATC_CONFIDENCE, DOC, CBPE)]
    else:
        found.append(teller.atc(ATC_CONFIDENCE, *confidence.pair))
        progress(0.2, "difference of confidences")
        found.append(teller.doc(*confidence.pair))
        progress(0.3, "calibrated confidence")
        found.append(teller.cbpe(*confidence.pair))
    if covariates is None:
        why = "an imported model has no scores here, and entropy wants those of all classes"
        found.insert(1, teller.unknown(ATC_ENTROPY, why))
    else:
        progress(0.5, "entropy")
        sure = covariates.map(lambda side: -side.entropy)
        found.insert(1, teller.atc(ATC_ENTROPY, *sure.pair))
    progress(0.7, "agreement with other models")
    others = dict(sorted(inputs.other_answers.items())[:MOST_OTHERS])
    if len(others) < LEAST_OTHERS:
        why = f"fewer than {LEAST_OTHERS} other models have scored the same images"
        return [*found, teller.unknown(AGREEMENT, why)]
    answers = [
        np.column_stack([mine, *(getattr(other, side) for other in others.values())])
        for side, mine in (
            ("reference", inputs.predicted.reference),
            ("target", inputs.predicted.target),
        )
    ]
    return [*found, teller.agreement(*answers)]


def _by_line(inputs: Inputs) -> tuple[Foretold, Judged] | None:
    """Return what the line through other models foretells, and its error; None without one."""
    sources = on_line.sources_of(inputs)
    mine = on_line.this_model(inputs)
    main = on_line.main_of(on_line.baselines_of(sources), sources, mine[0])
    if main is None:
        return None
    n = len(inputs.correct.reference), len(inputs.correct.target)
    predicted = main.line.predicted(mine[0], n[0])
    above = main.line.effective_robustness(*mine, *n)
    foretold = Foretold(
        LINE,
        None,
        predicted,
        f"what {main.line.n} models of {main.source} have on the target that have this model's "
        "accuracy on the reference (part `line`)",
        "this model lies on the line of the others, whose target labels were used",
    )
    assert above.estimate is not None
    assert above.low is not None
    assert above.high is not None
    error = replace(above, estimate=-above.estimate, low=-above.high, high=-above.low)
    return foretold, judged(predicted, error, mine[1])


def _unknown_line(teller: Foreteller, truth: np.ndarray) -> tuple[Foretold, Judged]:
    null = teller.unknown(LINE, "too few other models with an accuracy on both splits are known")
    return null, judge(null, truth, teller.drawn)


def _method_out(one: Foretold, how: Judged, inputs: Inputs) -> ForetoldOut:
    return ForetoldOut(
        name=one.name,
        predicted=EstimateOut.of(one.predicted, inputs.names),
        error=EstimateOut.of(how.error, inputs.names),
        covered=how.covered,
        method=one.method,
        assumptions=one.assumptions,
        verdict=how.verdict,
    )


def _in_words(methods: list[ForetoldOut], truth: EstimateOut, target: str) -> list[str]:
    known = [one for one in methods if one.predicted.estimate is not None]
    if not known or truth.estimate is None:
        return [f"Without its labels nothing foretells the accuracy on {target} here."]
    values = [one.predicted.estimate or 0.0 for one in known]
    sentences = [
        f"Without its labels, {len(known)} methods put the accuracy on {target} at "
        f"{min(values):.1%} to {max(values):.1%}; by its labels it is {truth.estimate:.1%}."
    ]
    for verdict, words in (
        (RIGHT, "Not told from the truth"),
        (TOO_HIGH, "Too high"),
        (TOO_LOW, "Too low"),
    ):
        named = [
            f"{one.name} ({one.error.estimate * 100:+.1f} points)"
            for one in known
            if one.verdict == verdict and one.error.estimate is not None
        ]
        if named:
            sentences.append(f"{words}: {', '.join(named)}.")
    sentences.append(
        "Each method believes something of the shift that only labels can check: one that was "
        "right here need not be on another test set, and to choose one by these numbers would be "
        "to choose by the target's labels."
    )
    return sentences


def _chart(answer: WithoutLabelsOut) -> dict[str, Any]:
    rows = [
        {
            "name": one.name,
            "estimate": one.predicted.estimate,
            "low": one.predicted.low,
            "high": one.predicted.high,
            "verdict": one.verdict,
        }
        for one in answer.methods
    ]
    return charts.forest(
        rows,
        title=f"Accuracy on {answer.target} foretold without its labels; dashed: the true one",
        x_title="accuracy (95 % interval)",
        tooltip=["verdict"],
        also=answer.target_accuracy.estimate,
        unit="share",
        from_zero=False,
    )


PART = Part(
    "without_labels", "the target's accuracy foretold without its labels, beside the true one",
    WithoutLabelsOut, compute, {"without_labels": _chart}, reads=("models", "lines"),
)  # fmt: skip
