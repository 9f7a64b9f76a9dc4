"""Changes of the gap, each with its interval, around the band of no effect."""

from typing import Any

from models.gap.hypotheses import MARGIN
from models.refining.recipes import TRAIN
from service import charts
from service.errors import NothingToDraw
from service.hypotheses.schemas import HypothesesOut


def hypotheses_spec(answer: HypothesesOut) -> dict[str, Any]:
    """Draw all tested hypotheses.

    Raises
    ------
    NothingToDraw
    """
    rows = [
        {
            "name": f"{one.id[:6]} {one.in_words}" + ("" if one.use == TRAIN else f" [{one.use}]"),
            "title": one.title,
            "estimate": one.result.gap_change.estimate,
            "low": one.result.gap_change.low,
            "high": one.result.gap_change.high,
            "verdict": ", ".join(one.result.verdicts),
        }
        for one in answer.hypotheses
        if one.result is not None and one.result.gap_change.estimate is not None
    ]
    if not rows:
        raise NothingToDraw(
            "wanted a hypothesis that was tested, got none. POST /hypotheses, then "
            "/hypotheses/{id}/test."
        )
    return charts.forest(
        rows,
        title="Tested hypotheses: change of the gap; grey is no effect worth naming",
        x_title="change of the gap in points (left of 0: smaller)",
        band=MARGIN,
        tooltip=("title", "verdict"),
    )
