"""Charts as answers: a Vega-Lite spec, a page, a picture, or the rows that it shows."""

from typing import Annotated, Any, Literal

from fastapi import Query, Response
from fastapi.responses import HTMLResponse, JSONResponse

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


def drawn(spec: dict[str, Any], format: str) -> Response:  # noqa: A002
    """Answer with a Vega-Lite spec, or a picture of it."""
    if format == "svg":
        return Response(charts.svg(spec), media_type="image/svg+xml")
    if format == "png":
        return Response(charts.png(spec), media_type="image/png")
    if format == "csv":
        return Response(charts.csv_text(spec), media_type="text/csv; charset=utf-8")
    if format == "html":
        page = chart_page(spec)
        return HTMLResponse(page, headers=policy_of(page))
    return JSONResponse(spec)
