"""Answers as Vega-Lite, from the same objects as the JSON; nothing is computed here.

Each function encodes fields of a `GapOut`, or of what a training left behind; the data inside each
spec are the answer's own numbers.
Colours are two of the Okabe-Ito palette (reference blue, target vermilion), safe for colour-blind
readers and legible on light and dark ground.
"""

import csv
import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import altair as alt
import vl_convert

from service.errors import NoFeatures, NothingToDraw
from service.schemas import CurvesOut, GapOut, LeaderboardOut

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#7f7f7f"
# of Okabe and Ito, those that differ in lightness as well and are seen on both grounds
_COLOURS = (BLUE, ORANGE, "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
_SHAPES = ("circle", "square", "triangle-up")
_WIDTH = 560
_PRINTED_WIDTH = 430
_CLASSES_MAX = 40  # rows that a chart can label legibly; the JSON has all
_LABELLED = 10  # points of a picture that can be named without hiding each other
_DOUBTS = [*(0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01), 1e-3, 1e-4]
Unit = Literal["points", "share", "number"]
_IN_POINTS = "format(100 * datum.value, '~f')"  # fractions, read as percentage points
_OF_CANDIDATE = {"setting", "top1", "nll", "n_fit", "note", "is_best", "is_chosen"}
_LOSS, _MONITORED, _NOT_CHOSEN = "train loss", "monitored NLL", "not chosen"
_OF_LOSS = {_LOSS: BLUE, _MONITORED: ORANGE, _NOT_CHOSEN: GREY}
_DRAWN_IN_TOOLTIPS = ("image", "title")  # as a picture or a heading, whatever their value
# Vega takes a title of such a name for the signal of that name
_INHERITED = (
    *("constructor", "hasOwnProperty", "isPrototypeOf", "propertyIsEnumerable"),
    *("toLocaleString", "toString", "valueOf"),
)
_NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
VEGA_VERSION = f"{vl_convert.get_vega_version()}-{vl_convert.get_vega_embed_version()}"
_POINTS_MAX = 200  # of one curve: no chart is wide enough to show more


def gap_chart(answer: GapOut) -> alt.LayerChart:
    """Accuracy on both test splits, each with its interval."""
    rows = [
        {
            "split": split,
            "part": part,
            "estimate": accuracy.estimate,
            "low": accuracy.low,
            "high": accuracy.high,
            "n": accuracy.n[split],
        }
        for part, split in (("reference", answer.reference), ("target", answer.target))
        for accuracy in [answer.accuracy[split]]
    ]
    base = alt.Chart(alt.InlineData(values=rows)).encode(
        y=alt.Y("split:N", title=None, sort=None),
        color=alt.Color(
            "part:N",
            title=None,
            scale=alt.Scale(domain=["reference", "target"], range=[BLUE, ORANGE]),
            legend=alt.Legend(orient="bottom"),
        ),
        tooltip=[
            alt.Tooltip("split:N"),
            alt.Tooltip("estimate:Q", title="accuracy", format=".1%"),
            alt.Tooltip("low:Q", title="95 % from", format=".1%"),
            alt.Tooltip("high:Q", title="to", format=".1%"),
            alt.Tooltip("n:Q", title="images", format=","),
        ],
    )
    x = alt.Scale(zero=False, nice=True)
    bar = base.mark_rule(strokeWidth=3).encode(
        x=alt.X("low:Q", title="accuracy (95 % interval)", axis=alt.Axis(format="%"), scale=x),
        x2="high:Q",
    )
    dot = base.mark_point(filled=True, size=140, opacity=1).encode(x=alt.X("estimate:Q", scale=x))
    text = base.mark_text(dy=-16, fontSize=13).encode(
        x=alt.X("estimate:Q", scale=x), text=alt.Text("estimate:Q", format=".1%")
    )
    return _titled(bar + dot + text, answer.summary[0], height=120)


def classes_chart(answer: GapOut) -> alt.LayerChart:
    """Shrunken gap of each class with its interval, the raw one beside it."""
    rows = [
        {
            "class_id": c.class_id,
            "class_name": c.class_name,
            "raw": c.raw,
            "shrunken": c.shrunken.estimate,
            "low": c.shrunken.low,
            "high": c.shrunken.high,
            "p_exceeds": c.p_exceeds,
            "n_reference": c.n_reference,
            "n_target": c.n_target,
        }
        for c in answer.classes
        if c.raw is not None
    ][:_CLASSES_MAX]
    base = alt.Chart(alt.InlineData(values=rows)).encode(
        y=alt.Y("class_name:N", title=None, sort=None),
        tooltip=[
            alt.Tooltip("class_name:N", title="class"),
            alt.Tooltip("shrunken:Q", title="shrunken gap", format=".1%"),
            alt.Tooltip("low:Q", title="95 % from", format=".1%"),
            alt.Tooltip("high:Q", title="to", format=".1%"),
            alt.Tooltip("raw:Q", title="raw gap", format=".1%"),
            alt.Tooltip("p_exceeds:Q", title="P(above the whole)", format=".2f"),
            alt.Tooltip("n_reference:Q", title="images, reference"),
            alt.Tooltip("n_target:Q", title="images, target"),
        ],
    )
    rule = base.mark_rule(strokeWidth=2, color=BLUE).encode(
        x=alt.X("low:Q", title="gap (reference − target)", axis=alt.Axis(format="%")), x2="high:Q"
    )
    dot = base.mark_point(filled=True, size=70, color=BLUE, opacity=1).encode(x="shrunken:Q")
    raw = base.mark_tick(color=ORANGE, thickness=3, size=14).encode(x="raw:Q")
    zero = _line_at(0.0) + _line_at(answer.gap.estimate or 0.0, [4, 3])
    return _titled(
        zero + rule + raw + dot,
        f"Gap of {_first_of(len(rows), len(answer.classes))}classes: dot = shrunken with 95 % "
        "interval, tick = raw, dashed = all images",
        height=18 * max(len(rows), 1),
    )


def features_chart(answer: GapOut) -> alt.LayerChart:
    """Shift of each feature within classes against its weight in the head."""
    rows = [
        {
            "feature_id": f.feature_id,
            "feature_name": f.feature_name,
            "shift": f.mean_difference_within_classes.estimate,
            "low": f.mean_difference_within_classes.low,
            "high": f.mean_difference_within_classes.high,
            "ks": f.ks,
            "p_value": f.p_value,
            "head_weight": f.head_weight,
            "relevance": f.relevance,
            "label": f.feature_name if place < _LABELLED else "",
        }
        for place, f in enumerate(answer.features or [])  # the most relevant first
    ]
    clear = alt.expr.isValid(alt.datum.p_value) & (alt.datum.p_value < 0.05)
    points = (
        alt.Chart(alt.InlineData(values=rows))
        .mark_point(filled=True, size=45, opacity=0.7)
        .encode(
            x=alt.X("shift:Q", title="shift within classes (sd, target − reference)"),
            y=alt.Y("head_weight:Q", title="weight in the head"),
            color=alt.condition(clear, alt.value(ORANGE), alt.value(GREY)),
            tooltip=[
                alt.Tooltip("feature_name:N", title="feature"),
                alt.Tooltip("shift:Q", format=".3f"),
                alt.Tooltip("low:Q", title="95 % from", format=".3f"),
                alt.Tooltip("high:Q", title="to", format=".3f"),
                alt.Tooltip("ks:Q", title="KS distance", format=".3f"),
                alt.Tooltip("p_value:Q", title="adjusted p", format=".3f"),
                alt.Tooltip("head_weight:Q", title="weight", format=".3f"),
                alt.Tooltip("relevance:Q", format=".3f"),
            ],
        )
    )
    names = (
        alt.Chart(alt.InlineData(values=rows))
        .mark_text(dy=-9, fontSize=10, limit=120)
        .encode(x="shift:Q", y="head_weight:Q", text="label:N")
    )
    return _titled(
        _line_at(0.0) + points + names,
        "Features: how far each moved, how much the head leans on it "
        f"(coloured: p < .05; named: the {_LABELLED} most relevant)",
        height=300,
    )


def class_shift_chart(answer: GapOut) -> alt.LayerChart:
    """How far the features of each class moved, against what chance alone gives."""
    shifts = answer.class_shift or []
    rows = [shift.model_dump() for shift in shifts[:_CLASSES_MAX]]
    base = alt.Chart(alt.InlineData(values=rows)).encode(
        y=alt.Y("class_name:N", title=None, sort=None),
        tooltip=[
            alt.Tooltip("class_name:N", title="class"),
            alt.Tooltip("rms_mean_difference:Q", title="shift (sd)", format=".3f"),
            alt.Tooltip("rms_by_chance:Q", title="by chance (sd)", format=".3f"),
            alt.Tooltip("variance_ratio:Q", title="variance ratio", format=".2f"),
            alt.Tooltip("n_reference:Q", title="images, reference"),
            alt.Tooltip("n_target:Q", title="images, target"),
        ],
    )
    bar = base.mark_bar(color=BLUE, height=8).encode(
        x=alt.X(
            "rms_mean_difference:Q",
            title="shift of the class mean (sd within classes)",
            stack=None,  # one bar a class; Vega's stacks fail on a class called constructor
        )
    )
    chance = base.mark_tick(color=ORANGE, thickness=3, size=16).encode(x="rms_by_chance:Q")
    return _titled(
        bar + chance,
        f"Features of {_first_of(len(rows), len(shifts))}classes: how far they moved; "
        "tick = what chance alone shows on average; largest ratio first",
        height=18 * max(len(rows), 1),
    )


def leaderboard_chart(answer: LeaderboardOut) -> alt.LayerChart:
    """Accuracy of each candidate on held-out train rows, by head."""
    rows = [
        {
            "head": candidate.head or answer.head,
            **candidate.model_dump(include=_OF_CANDIDATE),
        }
        for candidate in answer.candidates
    ]
    heads = list(dict.fromkeys(str(row["head"]) for row in rows))
    rows.sort(key=lambda row: (row["is_chosen"], row["is_best"]))  # what is drawn last lies on top
    is_marked = alt.datum.is_best | alt.datum.is_chosen
    base = alt.Chart(alt.InlineData(values=rows)).encode(
        x=_shares_axis(
            "top1:Q",
            "accuracy on the train rows that it was chosen by, not fitted on",
            [candidate.top1 for candidate in answer.candidates],
        ),
        y=alt.Y("head:N", title=None, sort=heads),
    )
    points = base.mark_point(filled=True, opacity=0.8).encode(
        size=alt.condition(is_marked, alt.value(130), alt.value(40)),
        color=alt.when(alt.datum.is_chosen)
        .then(alt.value(ORANGE))
        .when(alt.datum.is_best)
        .then(alt.value(BLUE))
        .otherwise(alt.value(GREY)),
        tooltip=[
            alt.Tooltip("head:N"),
            alt.Tooltip("setting:N", title="parameters"),
            alt.Tooltip("top1:Q", title="accuracy", format=".2%"),
            alt.Tooltip("nll:Q", title="NLL (nats)", format=".4f"),
            alt.Tooltip("n_fit:Q", title="fitted on rows", format=","),
            alt.Tooltip("note:N"),
        ],
    )
    value = base.mark_text(dy=-13, fontSize=11).encode(
        text=alt.condition(alt.datum.is_chosen, alt.Text("top1:Q", format=".2%"), alt.value(""))
    )
    tried = f"{len(rows)} settings" if len(rows) != 1 else "1 setting"
    colours = {
        "vermilion: chosen": [c.is_chosen for c in answer.candidates],
        "blue: best of its head": [c.is_best and not c.is_chosen for c in answer.candidates],
        "grey: others": [not (c.is_best or c.is_chosen) for c in answer.candidates],
    }
    shown = "; ".join(words for words, those in colours.items() if any(those))
    return _titled(
        points + value,
        f"What was tried for {answer.model}: {tried} ({shown})",
        height=38 * max(len(heads), 1),
    )


def _shares_axis(field: str, title: str, values: Sequence[float]) -> alt.X:
    """Axis that spans shares with some room, its labels apart and exact enough to differ."""
    low, high = min(values), max(values)
    room = max(0.04 * (high - low), 0.005)
    span = high - low + 2 * room
    digits = 0 if span >= 0.06 else 1
    return alt.X(
        field,
        title=title,
        axis=alt.Axis(
            format=f".{digits}%", tickCount=6, tickMinStep=10.0 ** -(2 + digits), labelFlush=False
        ),
        scale=alt.Scale(domain=[max(low - room, 0.0), min(high + room, 1.0)], nice=False),
    )


def loss_chart(answer: CurvesOut) -> alt.LayerChart:
    """Train loss and monitored NLL of each fit by step."""
    lines = [
        {
            "fit": place,
            "head": curve.head,
            "setting": curve.setting,
            "stage": curve.stage,
            "role": curve.role,
            "line": measure if curve.role != "other" else _NOT_CHOSEN,
            "measure": measure,
            "step": step + 1,
            "value": values[step],
        }
        for place, curve in enumerate(answer.curves)
        for measure, values in ((_LOSS, curve.loss), (_MONITORED, curve.monitored))
        for step in _thinned([i for i, value in enumerate(values) if value is not None])
    ]
    shown = [name for name in _OF_LOSS if any(line["line"] == name for line in lines)]
    last = max(len(curve.loss) for curve in answer.curves)
    # two layers: what was not chosen is never drawn over what was
    behind = _lines([line for line in lines if line["role"] == "other"], shown, last).mark_line(
        strokeWidth=1, opacity=0.35
    )
    before = _lines([line for line in lines if line["role"] != "other"], shown, last).mark_line()
    before = before.encode(
        strokeWidth=alt.condition(alt.datum.role == "final", alt.value(3), alt.value(1.2))
    )
    marks = {
        "thick: on all train rows": any(line["role"] == "final" for line in lines),
        "dashed: rows that it may be stopped by": any(
            line["measure"] == _MONITORED for line in lines
        ),
    }
    words = "; ".join(mark for mark, is_there in marks.items() if is_there)
    fits = f"{len(answer.curves)} fits" if len(answer.curves) != 1 else "1 fit"
    return _titled(
        behind + before,
        f"Loss of {fits} for {answer.model}" + (f" ({words})" if words else ""),
        height=300,
    )


def _lines(rows: list[dict[str, Any]], shown: Sequence[str], last: int) -> alt.Chart:
    """Curves from the first step to the last one of all; `shown` are the lines that are there."""
    # fits of ten steps and of a thousand stand side by side
    steps = alt.Scale(type="log", domain=[1, max(last, 2)], nice=False)
    return alt.Chart(alt.InlineData(values=rows)).encode(
        x=alt.X(
            "step:Q",
            title="step (iteration or epoch)",
            scale=steps,
            axis=alt.Axis(format=",d", tickCount=6, labelOverlap=True),
        ),
        y=alt.Y("value:Q", title="nats", scale=alt.Scale(zero=False)),
        detail=["fit:N", "measure:N"],
        color=alt.Color(
            "line:N",
            title=None,
            scale=alt.Scale(domain=list(shown), range=[_OF_LOSS[name] for name in shown]),
            legend=alt.Legend(orient="bottom", symbolOpacity=1),
        ),
        strokeDash=alt.condition(
            alt.datum.measure == _MONITORED, alt.value([5, 3]), alt.value([1, 0])
        ),
        tooltip=[
            alt.Tooltip("head:N"),
            alt.Tooltip("setting:N", title="parameters"),
            alt.Tooltip("stage:N", title="rows"),
            alt.Tooltip("measure:N"),
        ],
    )


def _thinned(steps: list[int]) -> list[int]:
    """So many of the steps at most, evenly, with the first and the last."""
    if len(steps) <= _POINTS_MAX:
        return steps
    last = len(steps) - 1
    return [steps[round(i * last / (_POINTS_MAX - 1))] for i in range(_POINTS_MAX)]


TRAINING_CHARTS: dict[str, Callable[[Any], alt.LayerChart]] = {
    "leaderboard": leaderboard_chart,
    "loss": loss_chart,
}


def training_spec(answer: LeaderboardOut | CurvesOut, name: str) -> dict[str, Any]:
    """Vega-Lite spec of a chart of a training, by name.

    Raises
    ------
    NothingToDraw
    """
    if answer.reason is not None:
        raise NothingToDraw(
            f"wanted the chart {name} of the training of {answer.model!r}, but {answer.reason}."
        )
    return _spec(TRAINING_CHARTS[name](answer))


CHARTS: dict[str, Callable[[GapOut], alt.LayerChart]] = {
    "gap": gap_chart,
    "classes": classes_chart,
    "features": features_chart,
    "class_shift": class_shift_chart,
}


_OF_FEATURES = ("features", "class_shift")


def drawable(answer: GapOut) -> list[str]:
    """Names of the charts for which an answer has the numbers."""
    return [name for name in CHARTS if answer.features is not None or name not in _OF_FEATURES]


def spec(answer: GapOut, name: str) -> dict[str, Any]:
    """Vega-Lite spec of a chart in `CHARTS`, by name.

    Raises
    ------
    NoFeatures
    """
    if name not in drawable(answer):
        raise NoFeatures(
            f"wanted a chart of the features of {answer.model!r}, but {answer.features_reason}. "
            f"Its charts: {', '.join(drawable(answer))}."
        )
    return _spec(CHARTS[name](answer))


def forest(
    rows: list[dict[str, Any]],
    *,
    title: str,
    x_title: str,
    tick: str | None = None,
    also: float | None = None,
    band: float | None = None,
    unit: Unit = "points",
    from_zero: bool = True,
    tooltip: Sequence[str] = (),
) -> dict[str, Any]:
    """Estimates with their intervals, one line each, in the order of the rows.

    Parameters
    ----------
    rows
        Each has `name`, `estimate`, `low`, `high`; those without an estimate are named, not drawn.
        Of more than a chart can label, the first are shown, and the title says so.
    unit
        Of the estimates: differences of shares, read as points; shares, read as percent; or others.
    tick
        A further field, drawn as a tick.
    also
        Where a dashed line stands, beside the one at 0.
    band
        Half the width of a grey band around 0.
    from_zero
        Whether 0 is shown, with a line.
    tooltip
        Further fields to show.
    """
    shown = rows[:_CLASSES_MAX]
    number = ".3f" if unit == "number" else ".1%"
    axis = {
        "points": alt.Axis(labelExpr=_IN_POINTS, tickCount=8, labelOverlap=True),
        "share": alt.Axis(format="%", tickCount=8, labelOverlap=True),
        "number": alt.Axis(tickCount=8, labelOverlap=True),
    }[unit]
    if len(shown) < len(rows):
        title = f"{title}; the first {len(shown)} of {len(rows):,}"
    base = alt.Chart(alt.InlineData(values=shown)).encode(
        y=alt.Y("name:N", title=None, sort=None),
        tooltip=[
            alt.Tooltip("name:N", title="what"),
            alt.Tooltip("estimate:Q", format=number),
            alt.Tooltip("low:Q", title="95 % from", format=number),
            alt.Tooltip("high:Q", title="to", format=number),
            *([alt.Tooltip(f"{tick}:Q", format=number)] if tick else []),
            *(alt.Tooltip(f"{name}:N") for name in tooltip),
        ],
    )
    rule = base.mark_rule(strokeWidth=2, color=BLUE).encode(
        x=alt.X("low:Q", title=x_title, axis=axis, scale=alt.Scale(zero=from_zero)), x2="high:Q"
    )
    dot = base.mark_point(filled=True, size=70, color=BLUE, opacity=1).encode(x="estimate:Q")
    layers = _line_at(0.0) + rule if from_zero else alt.layer(rule)
    if band is not None:
        ends = alt.InlineData(values=[{"at": -band, "until": band}])
        grey = alt.Chart(ends).mark_rect(opacity=0.15, color="gray")
        layers = grey.encode(x="at:Q", x2="until:Q") + layers
    if tick is not None:
        layers += base.mark_tick(color=ORANGE, thickness=3, size=14).encode(x=f"{tick}:Q")
    if also is not None:
        layers += _line_at(also, [4, 3])
    return _spec(_titled(layers + dot, title, height=20 * max(len(shown), 1)))


def scatter(
    rows: list[dict[str, Any]],
    *,
    x: str,
    y: str,
    title: str,
    x_title: str,
    y_title: str,
    mark: str | None = None,
    marked: str = "",
    diagonal: bool = False,
    ends: Sequence[dict[str, Any]] = (),
    band: tuple[str, str] | None = None,
    moved: tuple[str, str] | None = None,
    x_format: str = "",
    y_format: str = "",
    ticks: Mapping[float, str] | None = None,
    tooltip: Sequence[str] = ("name",),
) -> dict[str, Any]:
    """One point a row.

    Parameters
    ----------
    x, y
        Fields that are numbers; rows without either are not drawn.
    mark
        A field that is true for the points to stand out, in vermilion. They are named by their
        `name`, the first ten; where there are no more than ten points in all, all are.
    marked
        What they are, for the legend.
    diagonal
        Whether a line shows where both are the same.
    ends
        Points with the same fields that a line joins.
    band
        Fields of `ends` between which the ground is grey.
    moved
        Fields of x and y from which each point came: an arrow leads from there to it.
    ticks
        Where both axes have labels, and which; default: at round numbers.
    tooltip
        Further fields to show.
    """
    colour = (
        alt.Color(
            f"{mark}:N",
            title=None,
            scale=alt.Scale(domain=[False, True], range=[BLUE, ORANGE]),
            legend=alt.Legend(
                orient="bottom", labelExpr=f"datum.value ? {json.dumps(marked)} : 'others'"
            ),
        )
        if mark
        else alt.value(BLUE)
    )
    zero = alt.Scale(zero=False, nice=ticks is None, padding=15)
    if not any(row[x] is not None and row[y] is not None for row in rows):
        zero = alt.Scale(domain=[0, 1])  # of nothing there is no extent, of which Vega warns
    # room for a point at 100 % is no accuracy of 102 %
    most = "datum.value > 1 ? '' : datum.label"
    axes = [
        alt.Axis(format=kind, labelExpr=most if kind.endswith("%") else alt.Undefined)
        for kind in (x_format, y_format)
    ]
    if ticks is not None:
        words = json.dumps({round(1e4 * at): label for at, label in ticks.items()})
        label = f"{words}[toString(round(1e4 * datum.value))]"
        axes = [alt.Axis(values=list(ticks), labelExpr=label)] * 2
    names = [row for row in rows if mark and row[mark]][:_LABELLED]
    if len(rows) <= _LABELLED:
        names = rows
    points: Any = (
        alt.Chart(alt.InlineData(values=rows))
        .mark_point(filled=True, size=40, opacity=0.7)
        .encode(
            x=alt.X(f"{x}:Q", title=x_title, axis=axes[0], scale=zero),
            y=alt.Y(f"{y}:Q", title=y_title, axis=axes[1], scale=zero),
            color=colour,
            size=alt.condition(alt.datum[mark], alt.value(130), alt.value(40))
            if mark
            else alt.value(40),
            tooltip=[
                *(alt.Tooltip(f"{name}:N") for name in tooltip),
                alt.Tooltip(f"{x}:Q", title=x_title, format=x_format or ".3f"),
                alt.Tooltip(f"{y}:Q", title=y_title, format=y_format or ".3f"),
            ],
        )
    )
    joined: list[tuple[Sequence[dict[str, Any]], list[int]]] = [(ends, [1, 0])] if ends else []
    if diagonal:
        values = [row[name] for row in rows for name in (x, y) if row[name] is not None]
        span = (min(values, default=0.0), max(values, default=1.0))
        joined.append(([{x: at, y: at} for at in span], [4, 3]))
    if moved is not None:
        points = _arrows(rows, moved, (x, y)) + points
    for places, dash in joined:
        line: Any = (
            alt.Chart(alt.InlineData(values=list(places)))
            .mark_line(color=GREY, strokeDash=dash)
            .encode(x=f"{x}:Q", y=f"{y}:Q")
        )
        if places is ends and band is not None:
            grey = alt.Chart(alt.InlineData(values=list(places))).mark_area(
                color=GREY, opacity=0.15
            )
            points = grey.encode(x=f"{x}:Q", y=f"{band[0]}:Q", y2=f"{band[1]}:Q") + points
        points = points + line if places is ends else line + points
    if names:  # a layer of nothing has no extent, of which Vega warns
        points = points + (
            alt.Chart(alt.InlineData(values=names))
            .mark_text(dy=-11, fontSize=10, limit=160)
            .encode(x=f"{x}:Q", y=f"{y}:Q", text="name:N")
        )
    return _spec(_titled(points, title, height=360))


def _arrows(rows: list[dict[str, Any]], start: tuple[str, str], end: tuple[str, str]) -> Any:
    """From where each point was to where it is; a ring marks where it was."""
    base = alt.Chart(alt.InlineData(values=rows))
    at = {"x": f"{start[0]}:Q", "y": f"{start[1]}:Q"}
    shaft = base.mark_rule(color=GREY, opacity=0.45, strokeWidth=1).encode(
        **at, x2=f"{end[0]}:Q", y2=f"{end[1]}:Q"
    )
    ring = base.mark_point(color=GREY, opacity=0.6, size=14, strokeWidth=1).encode(**at)
    return alt.layer(shaft, ring)


def waterfall(
    rows: list[dict[str, Any]], *, total: float, title: str, x_title: str, tooltip: Sequence[str]
) -> dict[str, Any]:
    """Terms that sum to a total, each beginning where the one before it ended.

    Parameters
    ----------
    rows
        Each has `name`, `estimate`, `low`, `high`; one without an estimate is named, and adds 0.
    total
        Drawn as the last bar, from 0.
    """
    last = {"name": "gap", "estimate": total, "low": None, "high": None, "is_total": True}
    bars = [{**dict.fromkeys(tooltip), **row, "is_total": False} for row in rows] + [
        {**dict.fromkeys(tooltip), **last}
    ]
    bars = [{**row, "place": place} for place, row in enumerate(bars)]
    base: Any = (
        alt.Chart(alt.InlineData(values=bars))
        .transform_calculate(step="datum.is_total || datum.estimate === null ? 0 : datum.estimate")
        .transform_window(until="sum(step)", sort=[alt.SortField("place")], frame=[None, 0])
        .transform_calculate(
            begin="datum.is_total ? 0 : datum.until - datum.step",
            end="datum.is_total ? datum.estimate : datum.until",
            adds="datum.is_total ? 'total' : datum.step < 0 ? 'less' : 'more'",
            from_low="datum.begin + datum.low",
            to_high="datum.begin + datum.high",
            words="datum.estimate === null ? 'refused' : (datum.is_total ? '' : "
            "abs(datum.estimate) < 0.0005 ? '' : datum.estimate < 0 ? '−' : '+') + "
            "format(abs(100 * datum.estimate), '.1f')",
        )
        .encode(
            y=alt.Y(
                "name:N",
                title=None,
                sort=None,
                axis=alt.Axis(labelLimit=220),
            ),
            tooltip=[
                alt.Tooltip("name:N", title="what"),
                alt.Tooltip("estimate:Q", format=".1%"),
                alt.Tooltip("low:Q", title="95 % from", format=".1%"),
                alt.Tooltip("high:Q", title="to", format=".1%"),
                *(alt.Tooltip(f"{name}:N") for name in tooltip),
            ],
        )
    )
    axis = alt.Axis(labelExpr=_IN_POINTS, tickCount=8, labelOverlap=True)
    bar = base.mark_bar(height={"band": 0.6}).encode(
        x=alt.X("begin:Q", title=x_title, axis=axis),
        x2="end:Q",
        color=alt.Color(
            "adds:N",
            legend=None,
            scale=alt.Scale(domain=["total", "less", "more"], range=[GREY, ORANGE, BLUE]),
        ),
    )
    whisker = base.mark_rule(strokeWidth=1.5, color=GREY).encode(x="from_low:Q", x2="to_high:Q")
    words = base.transform_calculate(
        right="max(datum.begin, datum.end, isValid(datum.high) ? datum.to_high : datum.end)"
    ).mark_text(align="left", dx=6, fontSize=12)
    layers = _line_at(0.0) + bar + whisker + words.encode(x="right:Q", text="words:N")
    return _spec(_titled(layers, title, height=34 * len(bars)))


def paired(
    rows: list[dict[str, Any]],
    *,
    by: str,
    value: str,
    series: str,
    domain: Sequence[str],
    title: str,
    x_title: str,
    y_title: str,
) -> dict[str, Any]:
    """Two shares side by side with their intervals `low` to `high`, one pair a line.

    Parameters
    ----------
    by
        The field that names the lines, in the order of the rows.
    domain
        The values of `series`: reference (blue, a dot) first, then target (vermilion, a diamond).
    """
    n_lines = len({str(row[by]) for row in rows})
    shapes = ["circle", "diamond"]
    base: Any = alt.Chart(alt.InlineData(values=rows)).encode(
        y=alt.Y(f"{by}:N", title=y_title, sort=None),
        yOffset=alt.YOffset(f"{series}:N", sort=list(domain)),
        color=alt.Color(
            f"{series}:N",
            title=None,
            scale=alt.Scale(domain=list(domain), range=[BLUE, ORANGE]),
            legend=alt.Legend(orient="bottom"),
        ),
        tooltip=[
            alt.Tooltip(f"{by}:N", title=y_title),
            alt.Tooltip(f"{series}:N"),
            alt.Tooltip(f"{value}:Q", format=".1%"),
            alt.Tooltip("low:Q", title="95 % from", format=".1%"),
            alt.Tooltip("high:Q", title="to", format=".1%"),
            alt.Tooltip("n:Q", title="images", format=","),
        ],
    )
    axis = alt.X("low:Q", title=x_title, axis=alt.Axis(format="%"), scale=alt.Scale(zero=False))
    rule = base.mark_rule(strokeWidth=2).encode(x=axis, x2="high:Q")
    dot = base.mark_point(filled=True, size=70, opacity=1).encode(
        x=f"{value}:Q",
        shape=alt.Shape(
            f"{series}:N", title=None, scale=alt.Scale(domain=list(domain), range=shapes)
        ),
    )
    return _spec(_titled(rule + dot, title, height=40 * max(n_lines, 1)))


def lines(
    rows: list[dict[str, Any]],
    *,
    x: str,
    y: str,
    series: str,
    domain: Sequence[str],
    title: str,
    x_title: str,
    y_title: str,
    x_format: str = "",
    y_format: str = "",
    is_sureness: bool = False,
    diagonal: bool = False,
    tooltip: Sequence[str] = (),
) -> dict[str, Any]:
    """Points joined by a line, one line a series, with a rule from `low` to `high` where given.

    Parameters
    ----------
    domain
        The values of `series`: at most two, reference (blue) first.
    is_sureness
        Whether x is a probability of which most values are close to 1: its axis is that of 1 − x,
        by its logarithm, so that 99 and 99.9 % stand apart.
    diagonal
        Whether a line shows where both axes are the same.
    """
    zero = alt.Scale(zero=False, nice=True)
    of_x = alt.X(f"{x}:Q", title=x_title, axis=alt.Axis(format=x_format), scale=zero)
    if is_sureness:
        of_x = alt.X(
            "doubt:Q",
            title=x_title,
            axis=alt.Axis(values=_DOUBTS, labelExpr="format(100 - 100 * datum.value, '~f') + '%'"),
            scale=alt.Scale(type="log", reverse=True, nice=False, padding=10),
        )
    doubt = f"max(1 - datum.{x}, {_DOUBTS[-1]})"
    base: Any = (
        alt.Chart(alt.InlineData(values=rows))
        .transform_calculate(doubt=doubt)
        .encode(
            x=of_x,
            color=alt.Color(
                f"{series}:N",
                title=None,
                scale=alt.Scale(domain=list(domain), range=[BLUE, ORANGE][: len(domain)]),
                legend=alt.Legend(orient="bottom"),
            ),
            tooltip=[
                alt.Tooltip(f"{series}:N"),
                alt.Tooltip(f"{x}:Q", title=x_title, format=x_format or ".3f"),
                alt.Tooltip(f"{y}:Q", title=y_title, format=y_format or ".3f"),
                *(alt.Tooltip(f"{name}:N") for name in tooltip),
            ],
        )
    )
    high = alt.Y(f"{y}:Q", title=y_title, axis=alt.Axis(format=y_format), scale=zero)
    layers = base.mark_line().encode(y=high) + base.mark_point(filled=True, size=50).encode(y=high)
    if rows and "low" in rows[0]:
        layers += base.mark_rule(strokeWidth=1.5).encode(y="low:Q", y2="high:Q")
    if diagonal:
        values = [row[x] for row in rows if row[x] is not None]
        low, top = min(values, default=0.0), max(values, default=1.0)
        # a straight line is bent on such an axis
        way = [low + (top - low) * (1 - 0.8**i) for i in range(30)] + [top]
        layers += (
            alt.Chart(alt.InlineData(values=[{x: at, y: at, "at": at} for at in way]))
            .transform_calculate(doubt=doubt)
            .mark_line(color=GREY, strokeDash=[4, 3])
            .encode(x=of_x, y=f"{y}:Q")
        )
    return _spec(_titled(layers, title, height=320))


def densities(
    rows: list[dict[str, Any]],
    *,
    medians: list[dict[str, Any]],
    domain: Sequence[str],
    parts: Sequence[str],
    title: str,
    x_title: str,
) -> dict[str, Any]:
    """Densities of one number on several splits, as lines of steps above each other's axis.

    Parameters
    ----------
    rows
        Each has `split`, `value` (where a bin begins) and `density`.
    medians
        Each has `split` and `median`.
    domain, parts
        The splits, and what each of them is: train (grey, dotted), reference (blue), target
        (vermilion, dashed).
    """
    look = {"train": (GREY, [2, 2]), "reference": (BLUE, [1, 0]), "target": (ORANGE, [7, 3])}
    colour = alt.Color(
        "split:N",
        title=None,
        scale=alt.Scale(domain=list(domain), range=[look[part][0] for part in parts]),
        legend=alt.Legend(orient="bottom", symbolType="stroke", symbolStrokeWidth=3),
    )
    lines: Any = (
        alt.Chart(alt.InlineData(values=rows))
        .mark_line(interpolate="step-after", strokeWidth=2)
        .encode(
            x=alt.X("value:Q", title=x_title, scale=alt.Scale(zero=False, nice=False)),
            y=alt.Y(
                "density:Q",
                title="share of images per unit",
                axis=alt.Axis(tickCount=4),
            ),
            color=colour,
            strokeDash=alt.StrokeDash(
                "split:N",
                title=None,
                scale=alt.Scale(domain=list(domain), range=[look[part][1] for part in parts]),
            ),
            tooltip=[
                alt.Tooltip("split:N"),
                alt.Tooltip("value:Q", title="from", format=".3g"),
                alt.Tooltip("density:Q", format=".3g"),
            ],
        )
    )
    marks = (
        alt.Chart(alt.InlineData(values=medians))
        .mark_point(filled=True, size=110, shape="triangle-up", opacity=1, yOffset=5)
        .encode(
            x="median:Q",
            y=alt.datum(0),
            color=colour,
            tooltip=[alt.Tooltip("split:N"), alt.Tooltip("median:Q", format=".3g")],
        )
    )
    layers: Any = alt.layer(lines, marks)
    return _spec(_titled(layers, title, height=240))


def cloud(
    rows: list[dict[str, Any]],
    *,
    kind: str,
    kind_title: str,
    domain: Sequence[str] | None,
    title: str,
    x_title: str,
    y_title: str,
) -> dict[str, Any]:
    """Return points of a map, at `x` and `y`, told apart by colour and by shape.

    Parameters
    ----------
    kind, kind_title
        The field that says which kind a point is of, and what that is for people.
    domain
        Its values: each has another pair of colour and shape. None: the field is a number, shown
        from blue to vermilion.
    """
    of = f"{kind}:{'Q' if domain is None else 'N'}"
    legend = alt.Legend(orient="bottom", symbolOpacity=1, symbolSize=80, columns=6, symbolLimit=0)
    colour, shape = _told_apart(domain or [])
    encoded: dict[str, Any] = {
        "x": alt.X("x:Q", title=x_title, scale=alt.Scale(zero=False, nice=False, padding=8)),
        "y": alt.Y("y:Q", title=y_title, scale=alt.Scale(zero=False, nice=False, padding=8)),
        "tooltip": [alt.Tooltip(of, title=kind_title)],
    }
    if domain is None:
        # seen on both grounds, which the ends of lighter and darker scales are not
        scheme = alt.Scale(range=[BLUE, ORANGE])
        bar = alt.Legend(orient="bottom")
        encoded["color"] = alt.Color(of, title=kind_title, scale=scheme, legend=bar)
    else:
        scale = alt.Scale(domain=list(domain), range=colour)
        encoded["color"] = alt.Color(of, title=None, scale=scale, legend=legend)
        encoded["shape"] = alt.Shape(
            of, title=None, scale=alt.Scale(domain=list(domain), range=shape)
        )
    points: Any = alt.layer(
        alt.Chart(alt.InlineData(values=rows))
        .mark_point(filled=True, size=22, opacity=0.6)
        .encode(**encoded)
    )
    return _spec(_titled(points, title, height=420))


def _told_apart(domain: Sequence[str]) -> tuple[list[str], list[str]]:
    """Colours and shapes of kinds: no two have both alike, and three have neither."""
    if len(domain) <= len(_SHAPES):
        # the last two are reference and target, right and wrong
        return [GREY, BLUE, ORANGE][-len(domain) :], list(_SHAPES)[-len(domain) :]
    n = len(_COLOURS)
    return (
        [_COLOURS[i % n] for i in range(len(domain))],
        [_SHAPES[(i + i // n) % len(_SHAPES)] for i in range(len(domain))],
    )


def _spec(chart: alt.LayerChart) -> dict[str, Any]:
    """Return a chart as Vega-Lite in which names from files are text.

    Vega-Lite writes titles into expressions for tooltips and for what it says of each mark, and
    there escapes nothing but the double quote. For the same reason rows are drawn in their order,
    never sorted by a list of names.
    """
    made: dict[str, Any] = _with_text(chart.to_dict())
    made["config"] = {**made.get("config", {}), "mark": {"aria": False}}
    return made


def _with_text(node: Any, *, in_tooltip: bool = False) -> Any:
    if isinstance(node, list):
        return [_with_text(one, in_tooltip=in_tooltip) for one in node]
    if not isinstance(node, dict):
        return node
    found = {
        name: one
        if name in ("values", "datasets")
        else _with_text(one, in_tooltip=in_tooltip or name == "tooltip")
        for name, one in node.items()
    }
    for name in ("title", "text"):
        title = found.get(name)
        if isinstance(title, str) and in_tooltip:
            title = "".join(c if c == '"' else json.dumps(c)[1:-1] for c in title)
            found[name] = f"{title} " if title in _DRAWN_IN_TOOLTIPS else title
        elif title in _INHERITED:
            found[name] = f"{title} "
    return found


def rows_of(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rows that a chart shows: its longest list, beside lines and bands."""
    lists: list[list[dict[str, Any]]] = []

    def visit(node: Any) -> None:
        if isinstance(node, list):
            for one in node:
                visit(one)
        elif isinstance(node, dict):
            values = node.get("values")
            if isinstance(values, list) and values and isinstance(values[0], dict):
                lists.append(values)
            lists.extend(node.get("datasets", {}).values())  # as Altair names them
            for name, value in node.items():
                if name not in ("values", "datasets"):
                    visit(value)

    visit(spec)
    return max(lists, key=len, default=[])


def csv_text(spec: dict[str, Any]) -> str:
    """Return the rows that a chart shows as CSV.

    A text that a spreadsheet would run as a formula begins with an apostrophe.
    """
    rows = rows_of(spec)
    names = list(dict.fromkeys(name for row in rows for name in row))
    file = io.StringIO()
    writer = csv.DictWriter(file, names, lineterminator="\n")
    writer.writerow({name: _harmless(name) for name in names})
    writer.writerows({name: _harmless(value) for name, value in row.items()} for row in rows)
    return file.getvalue()


def _harmless(value: Any) -> Any:
    is_formula = isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r"))
    return f"'{value}" if is_formula else value


def svg(chart: dict[str, Any]) -> str:
    """Return the chart as SVG text."""
    return str(vl_convert.vegalite_to_svg(json.dumps(_in_xml(chart))))


def printed(chart: dict[str, Any], font: str) -> str:
    """Return the chart as SVG for a page of paper: larger type, and the title left to a caption."""
    config = chart.get("config", {}) | {
        "font": font,
        "axis": {"labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal"}
        | {"labelLimit": 330, "titleLimit": 600, "labelColor": "#111", "titleColor": "#111"},
        "legend": {"labelFontSize": 12, "titleFontSize": 12, "labelLimit": 300},
        "background": None,
        "aria": False,
    }
    drawn = {name: value for name, value in chart.items() if name != "title"} | {"config": config}
    if isinstance(drawn.get("width"), int):
        drawn["width"] = _PRINTED_WIDTH
    if "layer" in drawn:
        drawn["layer"] = [_on_paper(layer) for layer in drawn["layer"]]
    return svg(drawn)


def _on_paper(layer: dict[str, Any]) -> dict[str, Any]:
    """Leave out what paper cannot show, and enlarge the type of marks."""
    if "layer" in layer:
        return layer | {"layer": [_on_paper(one) for one in layer["layer"]]}
    encoding = {k: v for k, v in layer.get("encoding", {}).items() if k != "tooltip"}
    mark = layer.get("mark")
    if isinstance(mark, dict) and "fontSize" in mark:
        mark = mark | {"fontSize": max(12, mark["fontSize"])}
    return layer | {"encoding": encoding, "mark": mark}


def png(chart: dict[str, Any]) -> bytes:
    """Return the chart as a PNG at twice its size."""
    return bytes(vl_convert.vegalite_to_png(json.dumps(_in_xml(chart)), scale=2))


def _in_xml(value: Any) -> Any:
    """Leave out characters that XML does not know: the renderer ends the process at one."""
    if isinstance(value, str):
        return _NOT_XML.sub("", value)
    if isinstance(value, dict):
        return {key: _in_xml(one) for key, one in value.items()}
    return [_in_xml(one) for one in value] if isinstance(value, list) else value


def vega_bundle() -> str:
    """Return Vega, Vega-Lite and vega-embed as one script, from the installed package."""
    # the stub wants a snippet, but only without one does the bundle hold vega-embed
    return str(vl_convert.javascript_bundle())  # type: ignore[call-arg]


def _first_of(n_shown: int, n: int) -> str:
    return f"the first {n_shown} of {n} " if n_shown < n else f"{n} "


def _line_at(x: float, dash: list[int] | None = None) -> alt.Chart:
    mark: alt.Chart = (
        alt.Chart(alt.InlineData(values=[{"at": x}]))
        .mark_rule(color=GREY, strokeDash=dash or [1, 0])
        .encode(x="at:Q")
    )
    return mark


def _titled(chart: alt.LayerChart, title: str, height: int) -> alt.LayerChart:
    return chart.properties(
        title=alt.Title(
            title, anchor="start", fontSize=13, fontWeight="normal", limit=_WIDTH + 160
        ),
        width=_WIDTH,
        height=height,
        description=title,
    )
