"""Changes of the gap, each with its interval, around the band of no effect."""

from typing import Any

import altair as alt

from models.gap.hypotheses import MARGIN
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
            "name": f"{one.in_words} ({one.id})",
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
    base = alt.Chart(alt.InlineData(values=rows)).encode(
        y=alt.Y("name:N", title=None, sort=[str(row["name"]) for row in rows],
                axis=alt.Axis(labelLimit=320)),
        tooltip=[
            alt.Tooltip("title:N"),
            alt.Tooltip("estimate:Q", title="change of the gap", format="+.2%"),
            alt.Tooltip("low:Q", title="95 % from", format="+.2%"),
            alt.Tooltip("high:Q", title="to", format="+.2%"),
            alt.Tooltip("verdict:N"),
        ],
    )  # fmt: skip
    band = (
        alt.Chart(alt.InlineData(values=[{"at": -MARGIN, "until": MARGIN}]))
        .mark_rect(opacity=0.15, color="gray")
        .encode(x="at:Q", x2="until:Q")
    )
    axis = alt.Axis(format="+.1%")
    rule = base.mark_rule(strokeWidth=2, color=charts.BLUE).encode(
        x=alt.X("low:Q", title="change of the gap (left of 0: smaller)", axis=axis), x2="high:Q"
    )
    dot = base.mark_point(filled=True, size=70, color=charts.BLUE, opacity=1).encode(x="estimate:Q")
    return charts.finished(
        band + rule + dot,
        "Tested hypotheses: change of the gap; grey is no effect worth naming",
        height=alt.Step(22),
    )
