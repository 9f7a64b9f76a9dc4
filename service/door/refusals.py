"""Refusals at the door: a problem for programs, a page for people."""

import html
from collections.abc import Mapping
from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, JSONResponse, Response

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
            return HTMLResponse(
                "<!doctype html>\n<html lang=en><meta charset=utf-8>"
                "<meta name=viewport content='width=device-width'>"
                "<meta name=color-scheme content='light dark'><link rel=icon href='data:,'>"
                f"<title>{self.status_code} · Gapscope</title><main><h1>"
                f"{HTTPStatus(self.status_code).phrase}</h1><p>{html.escape(self.detail)}</p>"
                "</main></html>",
                self.status_code,
                self.headers,
            )
        return problem(self.status_code, self.code, self.detail, headers=self.headers)


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
