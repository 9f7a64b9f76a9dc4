"""The interface as it describes itself: what FastAPI gathers, and what may refuse any request."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from service.door.refusals import PROBLEM
from service.schemas import Problem

REFUSALS = {
    400: "The body, or a header, cannot be read",
    401: "A token is wanted",
    403: "The request came from a page of another site",
    404: "No such thing",
    409: "It does not fit what is there",
    413: "The body is too large",
    414: "The address is too long",
    415: "Another Content-Type is wanted",
    422: "The request is wrong",
    429: "Too much is under way; Retry-After says when to ask again",
    431: "The headers are too large",
    503: "What it takes is not there yet, or not any more",
    507: "The disk, or the memory, is full",
}


def describe(app: FastAPI) -> None:
    """Make an app describe its refusals: each is a problem, and each route may give each of them.

    What a route documents itself under such a status stays as it is.
    """

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _with_refusals(
                get_openapi(
                    title=app.title, version=app.version, summary=app.summary, routes=app.routes
                )
            )
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI's manual has it


def _with_refusals(described: dict[str, Any]) -> dict[str, Any]:
    parts = described["components"]
    for own in ("HTTPValidationError", "ValidationError"):  # FastAPI's, which nothing here answers
        parts["schemas"].pop(own, None)
    parts["schemas"]["Problem"] = Problem.model_json_schema(mode="serialization")
    problem = {"schema": {"$ref": "#/components/schemas/Problem"}}
    parts["responses"] = {
        str(status): {"description": text, "content": {PROBLEM: problem}}
        for status, text in REFUSALS.items()
    }
    for operations in described["paths"].values():
        for operation in operations.values():
            for parameter in operation.get("parameters", ()):
                _without_null(parameter["schema"])
            answers = operation["responses"]
            if "HTTPValidationError" in str(answers.get("422")):
                del answers["422"]
            for status in parts["responses"]:
                answers.setdefault(status, {"$ref": f"#/components/responses/{status}"})
    return described


def _without_null(schema: dict[str, Any]) -> None:
    """Describe a parameter that may be left out as what it is: no address or header says null."""
    kinds = [kind for kind in schema.get("anyOf", ()) if kind != {"type": "null"}]
    if len(kinds) == 1:
        del schema["anyOf"]
        schema.update(kinds[0])
