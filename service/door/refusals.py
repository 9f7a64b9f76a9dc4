"""Refusals at the door: a problem for programs, a page for people."""

import html
from collections.abc import Mapping
from http import HTTPStatus
from urllib.parse import quote

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import Scope

from service import logs
from service.schemas import Problem

PROBLEM = "application/problem+json"


class Refusal(HTTPException):
    """A request that goes no further; also raised where its body is read.

    An HTTPException, since FastAPI makes a 400 of anything else that a body's reading raises.
    """

    def __init__(
        self, status: int, code: str, detail: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(status, detail, headers)
        self.code = code

    def answer(self, headers: Headers) -> Response:
        """Return the refusal as what the client likes best: a page, or a problem."""
        if "text/html" in headers.get("accept", ""):
            logs.note(code=self.code, why=self.detail)
            phrase = HTTPStatus(self.status_code).phrase
            page = _page(str(self.status_code), phrase, html.escape(self.detail))
            return HTMLResponse(page, self.status_code, self.headers)
        return problem(self.status_code, self.code, self.detail, headers=self.headers)


def doorstep(scope: Scope) -> Response:
    """Let whoever came by a link of another site go on by a click.

    What is behind it may read labels of test sets, and so spoil a seal, or queue hours of work:
    nobody shall do that by a link that he did not read, or by a page that sends him.
    """
    query = scope["query_string"].decode("latin-1")
    path = html.escape("/" + quote(scope["path"].lstrip("/\\")))
    where = path + (f"?{html.escape(query)}" if query else "")
    link = f"<a href='{where}'>Go on to {path}</a>"  # a token stands in no text
    page = _page("Gapscope", "Another site led here", f"{link}, if that is what you want.")
    return HTMLResponse(page, headers={"Cache-Control": "no-store"})


def _page(title: str, heading: str, words: str) -> str:
    return (
        "<!doctype html>\n<html lang=en><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width'>"
        "<meta name=color-scheme content='light dark'><link rel=icon href='data:,'>"
        f"<title>{title} · Gapscope</title><main><h1>{heading}</h1><p>{words}</p></main></html>"
    )


def problem(
    status: int,
    code: str,
    detail: str,
    *,
    title: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """Answer with a refusal as RFC 9457 wants it, and have it in the request's log line."""
    # half a character, which JSON can hold, cannot be sent
    detail = detail.encode("utf-8", "backslashreplace").decode()
    logs.note(code=code, why=detail)
    found = Problem(
        title=title or code.replace("_", " "),
        status=status,
        detail=detail,
        code=code,
        request=logs.current("request"),
    )
    return JSONResponse(found.model_dump(), status, headers, media_type=PROBLEM)
