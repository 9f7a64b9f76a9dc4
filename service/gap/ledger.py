"""`/gap/{model}/ledger`: the gap as a sum of terms."""

from typing import Any

from pydantic import Field

from models.gap.ledger import Term, ledger
from service import charts
from service.errors import NothingToDraw
from service.evaluations import SEED
from service.gap.groups import groups_of
from service.gap.inputs import Inputs
from service.gap.part import Part
from service.schemas import Answer, EstimateOut, PartOut
from service.sentences import points
from service.terminal import Progress


class TermOut(Answer):
    """One term of the gap; null estimate and bounds where it is refused, which counts 0."""

    name: str
    estimate: float | None
    low: float | None
    high: float | None
    share: float | None = Field(description="Of the gap; null where that is not told from 0.")
    alone: EstimateOut | None = Field(description="What it explains with no other term beside it.")
    auc: float | None = Field(description="How well it alone tells the two splits apart.")
    effective_share: float | None = Field(
        description="Share of the reference's images that re-weighting by it alone leaves."
    )
    interval: str = Field(description="How the interval was made.")
    reason: str | None = Field(description="Why estimate is null.")
    method: str
    assumptions: str
    verdict: str


class OverlapOut(Answer):
    """How much the splits have in common in all terms together."""

    auc: float | None
    calibration_error: float | None
    effective_share: float | None


class LedgerOut(PartOut):
    """The gap and terms that sum to it: label shift, annotations, difficulty, features, rest."""

    gap: EstimateOut
    terms: list[TermOut] = Field(description="They sum to the gap; the last is the rest.")
    overlap: OverlapOut
    left_out: list[str] = Field(description="Annotations that are no term, and why.")


def compute(inputs: Inputs, progress: Progress) -> LedgerOut:
    """Account for the gap."""
    groups, left_out = groups_of(inputs)
    labels, correct = inputs.labels, inputs.correct
    found = ledger(
        labels.reference,
        correct.reference,
        labels.target,
        correct.target,
        groups,
        seed=SEED,
        progress=progress,
    )
    terms = [_term_out(term, inputs.names) for term in found.terms]
    return LedgerOut(
        model=inputs.model,
        reference=inputs.reference,
        target=inputs.target,
        summary=_in_words(terms),
        gap=EstimateOut.of(found.gap, inputs.names),
        terms=terms,
        overlap=OverlapOut(
            auc=found.overlap.auc,
            calibration_error=found.overlap.calibration_error,
            effective_share=found.overlap.effective_share,
        ),
        left_out=left_out,
    )


def _term_out(term: Term, names: dict[str, str]) -> TermOut:
    value = term.estimate
    return TermOut(
        name=term.name,
        estimate=value.estimate,
        low=value.low,
        high=value.high,
        share=term.share,
        alone=None if term.alone is None else EstimateOut.of(term.alone, names),
        auc=term.auc,
        effective_share=term.effective_share,
        interval=value.method,
        reason=value.reason,
        method=term.method,
        assumptions=term.assumptions,
        verdict=term.verdict,
    )


def _in_words(terms: list[TermOut]) -> list[str]:
    sentences = []
    for term in sorted(terms[:-1], key=lambda term: -abs(term.estimate or 0)):
        if term.estimate is None or term.low is None or term.high is None:
            sentences.append(f"{term.name}: refused, for {term.reason}.")
        elif term.verdict == "supported":
            sentences.append(
                f"{term.name}: {term.estimate * 100:+.1f} points of the gap go with it (95 % "
                f"interval {points(term.low, term.high)}): a description, not a cause."
            )
    rest = terms[-1]
    if rest.estimate is not None and rest.low is not None and rest.high is not None:
        unsure = "" if rest.low > 0 or rest.high < 0 else ", and not told from 0"
        sentences.append(
            f"{rest.estimate * 100:+.1f} points ({points(rest.low, rest.high)}) are in none of "
            f"these{unsure}: label noise, classes that mean something else, difficulty that "
            "nothing here shows; the data cannot tell these apart."
        )
    return sentences


def _waterfall(answer: LedgerOut) -> dict[str, Any]:
    rows = [
        {
            "name": term.name,
            "estimate": term.estimate,
            "low": term.low,
            "high": term.high,
            "verdict": term.verdict,
        }
        for term in answer.terms
    ]
    if answer.gap.estimate is None:
        raise NothingToDraw(f"wanted the gap of {answer.model!r}, but {answer.gap.reason}.")
    return charts.waterfall(
        rows,
        total=answer.gap.estimate,
        title=f"From no gap to {answer.gap.estimate * 100:.1f} points: what goes with what",
        x_title="points of the gap (thin lines: 95 % interval of a term)",
        tooltip=("verdict",),
    )


def _chart(answer: LedgerOut) -> dict[str, Any]:
    rows = [
        {
            "name": term.name,
            "estimate": term.estimate,
            "low": term.low,
            "high": term.high,
            "alone": None if term.alone is None else term.alone.estimate,
            "verdict": term.verdict,
        }
        for term in answer.terms
    ]
    return charts.forest(
        rows,
        title="The terms that sum to the gap (dashed); tick: what a term explains by itself",
        x_title="points of the gap (95 % interval)",
        tick="alone",
        tooltip=["verdict"],
        also=answer.gap.estimate,
    )


PART = Part(
    "ledger", "the gap as a sum of terms, each with its interval", LedgerOut, compute,
    {"ledger": _chart, "waterfall": _waterfall},
)  # fmt: skip
