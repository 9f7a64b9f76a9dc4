"""Charts as answers: a Vega-Lite spec, a page, a picture, or the rows that it shows."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Annotated, Any, Literal

from fastapi import Query, Response
from fastapi.responses import HTMLResponse, JSONResponse
from pydantic import BaseModel

from service import charts
from service.door.policy import policy_of
from service.pages.rendering import chart_page

Drawing = Annotated[
    Literal["json", "html", "svg", "png", "csv"],
    Query(description="json: the Vega-Lite spec; csv: the rows that it shows."),
]


_TYPES = ("application/json", "text/html", "image/svg+xml", "image/png", "text/csv")
# for the interface's description
DRAWN: dict[int | str, dict[str, Any]] = {
    200: {"description": "The chart, as `format` says", "content": {kind: {} for kind in _TYPES}}
}


_KEPT = 32
_kept: OrderedDict[tuple[object, ...], tuple[BaseModel, Response]] = OrderedDict()
_keeping = threading.Lock()
# the renderer holds the interpreter: many at once would leave it to nobody else
_drawing = threading.RLock()


def drawn_of(
    answer: BaseModel,
    spec: Callable[..., dict[str, Any]],
    *how: str,
    format: str,  # noqa: A002
) -> Response:
    """Answer with a chart of an answer; the last ones drawn are not drawn again.

    Parameters
    ----------
    answer
        What is drawn: this very object, which nobody changes.
    spec
        Called with the answer and `how`: the Vega-Lite spec.
    """
    key = (id(answer), spec, how, format)
    found = _drawn_before(key, answer)
    if found is None:
        with _drawing:  # of many who ask for one chart at once, the first draws it
            found = _drawn_before(key, answer) or drawn(spec(answer, *how), format)
        with _keeping:
            _kept[key] = (answer, found)  # which keeps the answer, and so its id, from others
            while len(_kept) > _KEPT:
                _kept.popitem(last=False)
    # a response of its own: on its way out it gets headers
    policy = found.headers.get("content-security-policy")
    headers = None if policy is None else {"Content-Security-Policy": policy}
    return Response(found.body, media_type=found.media_type, headers=headers)


def _drawn_before(key: tuple[object, ...], answer: BaseModel) -> Response | None:
    with _keeping:
        of, found = _kept.pop(key, (None, None))
        if of is not answer or found is None:
            return None
        _kept[key] = (answer, found)  # used last
        return found


def drawn(spec: dict[str, Any], format: str) -> Response:  # noqa: A002
    """Answer with a Vega-Lite spec, or a picture of it."""
    if format == "svg":
        with _drawing:
            return Response(charts.svg(spec), media_type="image/svg+xml")
    if format == "png":
        with _drawing:
            return Response(charts.png(spec), media_type="image/png")
    if format == "csv":
        return Response(charts.csv_text(spec), media_type="text/csv; charset=utf-8")
    if format == "html":
        page = chart_page(spec)
        return HTMLResponse(page, headers=policy_of(page))
    return JSONResponse(spec)
