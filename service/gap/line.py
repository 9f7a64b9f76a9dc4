"""`/gap/{model}/line`: where the model stands among other models of its accuracy."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import Field

from models.estimate import Estimate, share
from models.gap.line import (
    ABOVE,
    BELOW,
    BEYOND,
    LEAST_ROWS,
    ON,
    PROBIT,
    Line,
    baselines,
    fairest,
    inside,
    on_axis,
    verdict,
)
from service import charts
from service.gap.inputs import Inputs
from service.gap.part import Part
from service.lines import Lines
from service.schemas import Answer, EstimateOut, PartOut
from service.sentences import points
from service.terminal import Progress

_SHARP = 0.02  # width of an interval that bears hundredths of a point
_POINTS = 25  # of the line: its band is bent
HERE, ALL = "models here", "all of them"
_TICKS = (
    *(0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.88, 0.9, 0.91, 0.92),
    *(0.93, 0.94, 0.95, 0.96, 0.97, 0.98, 0.985, 0.99, 0.995, 0.998, 0.999),
)  # accuracies that an axis may name
_NO_LINE = (
    f"fewer than {LEAST_ROWS} other models with an accuracy on both splits are known. Evaluate "
    "more models here, or attach published ones: gapscope add-line FILE --name NAME"
)

_MEANS = {
    ABOVE: "it loses less on the target than models of its accuracy do",
    BELOW: "it loses more on the target than models of its accuracy do",
    BEYOND: "the line's models are of other accuracies, so that this says little",
    ON: "its gap is not told from the one that models of its accuracy have",
}


class FitOut(Answer):
    """One line through models, and where this model stands to it."""

    source: str = Field(description="Which models: a stored line, those evaluated here, or all.")
    least_accuracy: float = Field(description="On the reference, of the models that take part.")
    axis: str
    n: int = Field(description="Models on the line.")
    slope: float
    slope_se: float
    intercept: float
    residual_sd: float = Field(description="Of models about the line, in units of the axis.")
    predicted: EstimateOut = Field(
        description="Target accuracy of a model of this one's reference accuracy, taken as known; "
        "95 % prediction interval."
    )
    effective_robustness: EstimateOut = Field(
        description="This model's target accuracy minus the predicted one."
    )
    distance: EstimateOut = Field(description="Height above the line, in units of the axis.")
    extrapolated: bool = Field(
        description="Whether this model's reference accuracy lies outside those of the models."
    )
    is_main: bool = Field(description="Whether the sentences are about this line.")
    verdict: str


class OnLineOut(Answer):
    """One model beside the main line."""

    name: str
    source: str
    reference_accuracy: float
    target_accuracy: float
    reference_probit: float
    target_probit: float
    effective_robustness: float | None = Field(
        description="Against the main line; null where there is none."
    )
    is_this_model: bool


class PointOut(Answer):
    """A point of the main line, and where 95 of 100 further models are expected there."""

    reference_probit: float
    target_probit: float
    low_probit: float
    high_probit: float


class LineOut(PartOut):
    """The model among other models, by several baselines side by side."""

    accuracy: dict[str, EstimateOut] = Field(description="Of this model on each split.")
    fits: list[FitOut]
    models: list[OnLineOut] = Field(description="All models used, and last this one.")
    band: list[PointOut] = Field(description="The main line from end to end, for drawing.")
    reason: str | None = Field(description="Why there is no line.")


@dataclass(frozen=True)
class Rows:
    """Models of one source with their accuracies on both splits, this model not among them."""

    source: str
    names: list[str]
    reference: np.ndarray
    target: np.ndarray


@dataclass(frozen=True)
class Baseline:
    """One line, and which models it goes through."""

    source: str
    floor: float
    axis: str
    line: Line


def sources_of(inputs: Inputs) -> list[Rows]:
    """Models with an accuracy on both splits: of each stored line, then those evaluated here."""
    found = []
    for stored in Lines(inputs.database.data).between(inputs.reference, inputs.target):
        other = np.array([name != inputs.model for name in stored.models])
        found.append(
            Rows(
                stored.name,
                [name for name in stored.models if name != inputs.model],
                stored.reference_accuracy[other],
                stored.target_accuracy[other],
            )
        )
    names, pairs = [], []
    for card in inputs.results.own_models():
        if card["model"] == inputs.model:
            continue
        pair = inputs.stored_accuracies(card)
        if pair is not None:
            names.append(card["model"])
            pairs.append(pair)
    if names:
        found.append(Rows(HERE, names, *np.array(pairs).T))
    return found


def baselines_of(sources: list[Rows]) -> list[Baseline]:
    """Lines through each source by itself; through all together where each has too few models.

    The same model may be in several sources, so that they are shown side by side and not pooled.
    """
    wanted = list(sources)
    if len(sources) > 1 and all(len(rows.names) < LEAST_ROWS for rows in sources):
        wanted.append(
            Rows(
                ALL,
                [name for rows in sources for name in rows.names],
                np.concatenate([rows.reference for rows in sources]),
                np.concatenate([rows.target for rows in sources]),
            )
        )
    return [
        Baseline(rows.source, floor, axis, line)
        for rows in wanted
        for (floor, axis), line in baselines(rows.reference, rows.target).items()
    ]


def main_of(found: list[Baseline], sources: list[Rows], accuracy: float) -> Baseline | None:
    """Return the probit line nearest to a model: of the largest source, of the highest floor.

    Lines are bent, so that models of about the same accuracy are the fairer comparison.
    """
    by_size = sorted(sources, key=lambda rows: -len(rows.names))
    for source in [*(rows.source for rows in by_size), ALL]:
        mine = {(one.floor, one.axis): one.line for one in found if one.source == source}
        key = fairest(mine, accuracy)
        if key is not None:
            return Baseline(source, *key, mine[key])
    return None


def this_model(inputs: Inputs) -> tuple[float, float]:
    """Return the accuracies of the model, off the ends where all or no images are right."""
    first, second = (inside(float(c.mean()), len(c)) for c in inputs.correct.pair)
    return first, second


def compute(inputs: Inputs, progress: Progress) -> LineOut:
    """Fit all baselines and place the model."""
    progress(0.0, "lines through other models")
    sources = sources_of(inputs)
    found = baselines_of(sources)
    mine = this_model(inputs)
    main = main_of(found, sources, mine[0])
    fits = [_fit_out(one, main, mine, inputs) for one in found]
    rows = [_on_line(rows, i, main) for rows in sources for i in range(len(rows.names))]
    here = Rows(HERE, [inputs.model], np.array(mine[:1]), np.array(mine[1:]))
    rows.append(_on_line(here, 0, main, is_this=True))
    reason = None if main is not None else _NO_LINE
    n_right = inputs.correct.map(lambda c: (int(c.sum()), len(c)))
    return LineOut(
        model=inputs.model,
        reference=inputs.reference,
        target=inputs.target,
        summary=_in_words(fits, rows, inputs, reason),
        accuracy={
            split: EstimateOut.of(share(*counts), {"images": split})
            for split, counts in zip(inputs.splits.pair, n_right.pair, strict=True)
        },
        fits=fits,
        models=rows,
        band=[] if main is None else _band(main.line, mine[0]),
        reason=reason,
    )


def _fit_out(
    one: Baseline, main: Baseline | None, mine: tuple[float, float], inputs: Inputs
) -> FitOut:
    line = one.line
    n = len(inputs.correct.reference), len(inputs.correct.target)
    robustness = line.effective_robustness(*mine, *n)
    extrapolated = not line.least <= mine[0] <= line.most
    return FitOut(
        source=one.source,
        least_accuracy=one.floor,
        axis=one.axis,
        n=line.n,
        slope=line.slope,
        slope_se=line.slope_se,
        intercept=line.intercept,
        residual_sd=line.residual_sd,
        predicted=_out(line.predicted(mine[0]), inputs),
        effective_robustness=_out(robustness, inputs),
        distance=_out(line.distance(*mine, *n), inputs),
        extrapolated=extrapolated,
        is_main=one == main,
        verdict=verdict(robustness, extrapolated=extrapolated),
    )


def _out(found: Estimate, inputs: Inputs) -> EstimateOut:
    return EstimateOut.of(found, inputs.names)


def _on_line(rows: Rows, i: int, main: Baseline | None, *, is_this: bool = False) -> OnLineOut:
    first, second = rows.reference[i : i + 1], rows.target[i : i + 1]
    return OnLineOut(
        name=rows.names[i],
        source=rows.source,
        reference_accuracy=float(first[0]),
        target_accuracy=float(second[0]),
        reference_probit=float(on_axis(first)[0]),
        target_probit=float(on_axis(second)[0]),
        effective_robustness=None
        if main is None
        else float(second[0] - main.line.expected(first)[0]),
        is_this_model=is_this,
    )


def _band(line: Line, accuracy: float) -> list[PointOut]:
    ends = on_axis(np.array([min(line.least, accuracy), max(line.most, accuracy)]))
    x = np.linspace(float(ends[0]), float(ends[1]), _POINTS)
    return [
        PointOut(reference_probit=at, target_probit=middle, low_probit=low, high_probit=high)
        for at, (low, middle, high) in zip(x.tolist(), line.band(x).tolist(), strict=True)
    ]


def _in_words(
    fits: list[FitOut], rows: list[OnLineOut], inputs: Inputs, reason: str | None
) -> list[str]:
    main = next((fit for fit in fits if fit.is_main), None)
    if main is None:
        return [f"There is no line to compare with: {reason}."]
    value, predicted = main.effective_robustness, main.predicted
    assert value.estimate is not None
    assert value.low is not None
    assert value.high is not None
    assert predicted.estimate is not None
    assert predicted.low is not None
    assert predicted.high is not None
    this = rows[-1]
    others = [
        row
        for row in rows[:-1]
        if main.source in (row.source, ALL) and row.reference_accuracy >= main.least_accuracy - 1e-9
    ]
    digits = 2 if value.high - value.low < _SHARP else 1  # no more than the interval bears
    floor = f" of at least {main.least_accuracy:.0%}" if main.least_accuracy else ""
    sentences = [
        f"Models with {this.reference_accuracy:.1%} on {inputs.reference} are expected to have "
        f"{predicted.estimate:.1%} on {inputs.target} (95 % prediction interval "
        f"{predicted.low:.1%} to {predicted.high:.1%}; {main.n:,} models{floor}, {main.source}); "
        f"{inputs.model} has {float(inputs.correct.target.mean()):.1%}.",
        f"That is {value.estimate * 100:+.{digits}f} points from the line (95 % interval "
        f"{points(value.low, value.high)}): {_MEANS[main.verdict]}.",
    ]
    below = sum(
        (row.effective_robustness or 0) < (this.effective_robustness or 0) for row in others
    )
    sentences.append(
        f"{below:,} of these {len(others):,} models lie lower against the line, "
        f"{len(others) - below:,} do not."
    )
    probit = [f for f in fits if f.axis == PROBIT and not f.is_main and not f.extrapolated]
    spans = [fit.effective_robustness.estimate or 0 for fit in [main, *probit]]
    if probit:
        sentences.append(
            f"By the {len(spans)} probit baselines it is {min(spans) * 100:+.{digits}f} to "
            f"{max(spans) * 100:+.{digits}f} points: a line depends on the models "
            "through which it goes."
        )
    if main.extrapolated:
        sentences.append(
            f"Its accuracy on {inputs.reference} lies outside those of the line's models: the line "
            "is drawn beyond them."
        )
    return sentences


def _chart(answer: LineOut) -> dict[str, Any]:
    main = next((fit.source for fit in answer.fits if fit.is_main), ALL)
    rows = [
        {
            "name": row.name,
            "source": row.source,
            "reference_probit": row.reference_probit,
            "target_probit": row.target_probit,
            "reference_accuracy": row.reference_accuracy,
            "target_accuracy": row.target_accuracy,
            "is_this_model": row.is_this_model,
        }
        for row in answer.models
        if row.is_this_model or main in (row.source, ALL)
    ]
    return charts.scatter(
        rows,
        x="reference_probit",
        y="target_probit",
        title=f"Accuracy on {answer.target} over accuracy on {answer.reference}, on probit axes; "
        "dashed: the same on both; band: where 95 of 100 further models are expected",
        x_title=f"accuracy on {answer.reference}",
        y_title=f"accuracy on {answer.target}",
        mark="is_this_model",
        marked="this model",
        ticks={float(on_axis(np.array([at]))[0]): f"{100 * at:g}%" for at in _TICKS},
        ends=[point.model_dump() for point in answer.band],
        band=("low_probit", "high_probit"),
        diagonal=True,
        tooltip=["name", "source", "reference_accuracy", "target_accuracy"],
    )


PART = Part(
    "line", "where the model stands among other models of its accuracy", LineOut, compute,
    {"line": _chart}, reads=("models", "lines"),
)  # fmt: skip
