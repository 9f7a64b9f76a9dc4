"""/docs: FastAPI's own page, its one script inside allowed by its hash."""

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse

from service.door.policy import policy_of

_FILES = "/static-offline-docs"


def add_docs(app: FastAPI) -> None:
    """Add /docs, whose files fastapi-offline serves."""
    page = bytes(
        get_swagger_ui_html(
            openapi_url=app.openapi_url or "",
            title=f"{app.title}: REST",
            swagger_js_url=f"{_FILES}/swagger-ui-bundle.js",
            swagger_css_url=f"{_FILES}/swagger-ui.css",
            swagger_favicon_url=f"{_FILES}/favicon.png",
        ).body
    ).decode()
    headers = policy_of(page)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(page, headers=headers)
