"""`/gap/{model}/overlap`: the gap in three terms, for what the splits may be compared by."""

from typing import Any

from pydantic import Field

from models.gap.disde import ASSUMPTIONS, TERMS, Decomposition, Disde
from models.gap.ledger import SUPPORTED, Group
from service import charts
from service.evaluations import SEED
from service.gap.groups import DIFFICULTY, FEATURES, groups_of
from service.gap.inputs import Inputs
from service.gap.part import Part
from service.schemas import Answer, EstimateOut, PartOut
from service.sentences import points
from service.terminal import Progress

# of each term: where it is above 0, and where it is below
_IN_WORDS = (
    ("harder images of a kind that both splits have",
     "easier images of a kind that both splits have"),
    ("images alike in it that are less often right",
     "images alike in it that are more often right"),
    ("images of a kind that {reference} hardly has",) * 2,
)  # fmt: skip
ALL = "all together"


class DisdeTermOut(Answer):
    """One of the three terms; null where re-weighting is refused."""

    name: str
    value: EstimateOut
    verdict: str


class DecompositionOut(Answer):
    """The gap in three terms, for one choice of z."""

    z: str = Field(description="What images are compared by.")
    terms: list[DisdeTermOut] = Field(description="They sum to the gap.")
    auc: float = Field(description="How well z tells the splits apart, out of fold.")
    calibration_error: float = Field(description="Of the classifier that tells them apart.")
    effective_reference: float = Field(
        description="Share of the reference's images that the weights of common ground leave."
    )
    effective_target: float = Field(description="The same of the target's images.")
    refusal: str | None = Field(description="Why there are no terms.")
    warnings: list[str]


class DisdeOut(PartOut):
    """What the splits have in common, and which part of the gap lies there."""

    gap: EstimateOut
    decompositions: list[DecompositionOut] = Field(description="One for each choice of z.")
    assumptions: str
    left_out: list[str] = Field(description="Annotations that were not used, and why.")
    reason: str | None = Field(description="Why there is no decomposition at all.")


def compute(inputs: Inputs, progress: Progress) -> DisdeOut:
    """Decompose the gap for each choice of z."""
    groups, left_out = groups_of(inputs)
    labels, correct = inputs.labels, inputs.correct
    disde = Disde(
        labels.reference, correct.reference, labels.target, correct.target, seed=SEED
    )  # fmt: skip
    wanted = _choices(groups)
    found = []
    for i, (name, chosen) in enumerate(wanted):
        progress(i / len(wanted), f"re-weighting by {name}")
        found.append(_decomposition_out(disde.decompose(name, chosen), inputs))
    reason = None if wanted else "an imported model has no features here, and nothing is annotated"
    gap = EstimateOut.of(disde.gap, inputs.names)
    return DisdeOut(
        model=inputs.model,
        reference=inputs.reference,
        target=inputs.target,
        summary=_in_words(found, inputs.reference, reason),
        gap=gap,
        decompositions=found,
        assumptions=ASSUMPTIONS,
        left_out=left_out,
        reason=reason,
    )


def _choices(groups: list[Group]) -> list[tuple[str, list[Group]]]:
    """Name of each z and the groups in it: each alone, features with difficulty, all."""
    chosen = [(group.name, [group]) for group in groups]
    both = [group for group in groups if group.name in (DIFFICULTY, FEATURES)]
    if len(both) == 2 and len(groups) > 2:
        chosen.append((f"{FEATURES} and {DIFFICULTY}", both))
    if len(groups) > 1:
        chosen.append((ALL, list(groups)))
    return chosen


def _decomposition_out(found: Decomposition, inputs: Inputs) -> DecompositionOut:
    return DecompositionOut(
        z=found.name,
        terms=[
            DisdeTermOut(
                name=name,
                value=EstimateOut.of(found.terms[name], inputs.names),
                verdict=found.verdicts[name],
            )
            for name in TERMS
        ],
        auc=found.auc,
        calibration_error=found.calibration_error,
        effective_reference=found.effective_reference,
        effective_target=found.effective_target,
        refusal=found.refusal,
        warnings=found.warnings,
    )


def _in_words(found: list[DecompositionOut], reference: str, reason: str | None) -> list[str]:
    if reason is not None:
        return [f"The splits cannot be compared image by image: {reason}."]
    sentences = []
    for one in found:
        if one.refusal is not None:
            sentences.append(f"By {one.z}: refused, for {one.refusal}.")
            continue
        parts = [
            f"{value.estimate * 100:+.1f} points ({points(value.low, value.high)}) with "
            f"{words[value.estimate < 0].format(reference=reference)}"
            + ("" if term.verdict == SUPPORTED else f", {term.verdict}")
            for term, words in zip(one.terms, _IN_WORDS, strict=True)
            for value in [term.value]
            if value.estimate is not None and value.low is not None and value.high is not None
        ]
        sentences.append(f"By {one.z}, the gap goes: {'; '.join(parts)}.")
        sentences += [f"By {one.z}, beware: {warning}." for warning in one.warnings]
    sentences.append(
        "The second term is all that the comparison does not see, whatever it is; the terms "
        "describe the gap and name no cause."
    )
    return sentences


def _chart(answer: DisdeOut) -> dict[str, Any]:
    rows = [
        {
            "name": f"{one.z}: {term.name}",
            "estimate": term.value.estimate,
            "low": term.value.low,
            "high": term.value.high,
            "verdict": term.verdict,
        }
        for one in answer.decompositions
        if one.refusal is None
        for term in one.terms
    ]
    return charts.forest(
        rows,
        title="The gap (dashed) in three terms, for each z: what images are compared by",
        x_title="points of the gap (95 % interval)",
        tooltip=["verdict"],
        also=answer.gap.estimate,
    )


PART = Part(
    "overlap", "what the splits have in common, and which part of the gap lies there", DisdeOut,
    compute, {"overlap": _chart},
)  # fmt: skip
