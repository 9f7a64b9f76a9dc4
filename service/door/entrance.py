"""The ASGI application around all others."""

import logging
import re
import time
import uuid
from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import logs
from service.door.limits import Gates, check_size, within
from service.door.origin import check_host, check_origin, check_type, comes_by_link, hosts_of
from service.door.policy import guard
from service.door.refusals import Refusal, doorstep, problem
from service.door.token import Access
from service.settings import Settings

_log = logging.getLogger("gapscope.request")
_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"})
_GONE = 499  # as nginx counts clients that went away
Observe = Callable[[str, str, int, float], None]
_ID = re.compile(r"[A-Za-z0-9-]{1,64}")


class Door:
    """Checks each request, guards each answer, and tells each in one log line.

    Parameters
    ----------
    token : what requests must bring, as `service.door.token.token_of` returns it
    gates : count the requests in work
    observe : counts a request by method, route, status, seconds
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        settings: Settings,
        token: str | None,
        gates: Gates,
        observe: Observe,
    ) -> None:
        self._app = app
        self._access = Access(token)
        self._hosts = hosts_of(settings)
        self._gates = gates
        self._observe = observe

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if _ID.fullmatch(given) else uuid.uuid4().hex
        status = 0

        async def send_guarded(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                guard(message, request_id)
            await send(message)

        start = time.monotonic()
        with logs.about(request=request_id, method=scope["method"]):
            try:
                await self._let_in(scope, headers, receive, send_guarded)
            except Exception:
                _log.exception("a fault of Gapscope")
                if status:  # half an answer is out: the server breaks it off
                    raise
                detail = "The log of the service says more. Please report it."
                answer = problem(500, "fault", detail, title="a fault of Gapscope")
                await answer(scope, receive, send_guarded)
            finally:
                seconds = time.monotonic() - start
                route = getattr(scope.get("route"), "path", None)
                _tell(scope, route, status, seconds)
                # words of the client make no new series: it could make any number of them
                method = scope["method"] if scope["method"] in _METHODS else "other"
                self._observe(method, route or "none", status or _GONE, seconds)

    async def _let_in(self, scope: Scope, headers: Headers, receive: Receive, send: Send) -> None:
        try:
            check_size(scope)
            check_host(headers, self._hosts)
            check_origin(scope, headers)
            if comes_by_link(headers):  # before its cookie is asked for, which a browser holds back
                answer: Response | None = doorstep(scope)
            else:
                answer = self._access.check(scope, headers)
            if answer is None:
                check_type(scope, headers)
                with self._gates.passed(scope):
                    await self._app(scope, within(scope, headers, receive), send)
                return
        except Refusal as refusal:  # the application answers those that it meets itself
            answer = refusal.answer(headers)
        await answer(scope, receive, send)


def _tell(scope: Scope, route: str | None, status: int, seconds: float) -> None:
    """Log the end of a request: never its query, where a token may stand."""
    level = logging.ERROR if status == 500 else logging.INFO if status >= 400 else logging.DEBUG
    fields = {"route": route, "status": status, "duration_ms": round(1000 * seconds, 1)}
    if route is None:
        fields["path"] = scope["path"][:200]
    message = "answered" if 0 < status < 400 else "refused" if status else "client gone"
    _log.log(level, message, extra={"fields": fields})
