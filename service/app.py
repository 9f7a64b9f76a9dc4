"""The one place where the parts are put together."""

import fcntl
import logging
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from http import HTTPStatus
from pathlib import Path

from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.gzip import GZipMiddleware
from fastapi.responses import JSONResponse
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from etl.errors import LoadRefused
from models.errors import ModelError
from service import VERSION
from service.analysis import Analysis
from service.api import router
from service.errors import InUse, ServiceError, status_of
from service.feature_routes import router as feature_router
from service.gap_routes import router as gap_router
from service.hypothesis_routes import router as hypotheses_router
from service.image_routes import router as image_router
from service.jobs import EXPLAIN, TRAIN, Jobs, Worker, explain_on, stop_all
from service.looks import Looks
from service.metrics import Metrics
from service.page_routes import router as page_router
from service.report_routes import router as report_router
from service.schemas import Problem
from service.selftest_routes import router as selftest_router
from service.settings import Settings
from service.signing import sign_looks

_LOCK = ".service.lock"
# 10,000 rows of 1,024 numbers as JSON are 200 MB, a million as Arrow 4 GB
BODY_BYTES = {"/predict/arrow": 8 << 30, "/predict/image": 32 << 20}
OTHER_BODY_BYTES = 256 << 20
_log = logging.getLogger("gapscope")


def create_app(settings: Settings, *, with_worker: bool = True) -> FastAPI:
    """Make the service over one data folder.

    Parameters
    ----------
    settings
        Where the data folder is, and how many cores to use.
    with_worker
        False leaves the queue alone: for tests that empty it themselves.
    """
    settings.data.mkdir(parents=True, exist_ok=True)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with _alone(settings.data):
            app.state.analysis.results.sweep()
            app.state.analysis.checkpoints.sweep()
            if with_worker:
                app.state.worker = workers[TRAIN] = Worker(settings.data, settings.threads)
                app.state.explainer = workers[EXPLAIN] = Worker(
                    settings.data, settings.threads, explain_on, lane=EXPLAIN
                )
                for worker in workers.values():
                    worker.start()
            yield
            app.state.stopping.set()
            stop_all(workers.values())

    app: FastAPI = FastAPIOffline(
        title="Gapscope",
        summary="Why does a classifier score lower on test set 2 than on test set 1?",
        version=VERSION,
        lifespan=lifespan,
        dependencies=[Depends(sign_looks)],
    )
    app.state.analysis = Analysis(settings.data, strict=settings.strict)
    app.state.jobs = Jobs(settings.data)
    app.state.looks = Looks(settings.data)
    app.state.worker = app.state.explainer = None
    workers: dict[str, Worker] = {}
    app.state.metrics = Metrics(settings.data, app.state.jobs, app.state.looks, workers)
    app.state.naming = threading.Lock()
    app.state.stopping = threading.Event()
    app.add_middleware(GZipMiddleware, minimum_size=10_000)
    app.add_middleware(_BodyLimit)
    app.include_router(gap_router)
    app.include_router(feature_router)
    app.include_router(image_router)
    app.include_router(hypotheses_router)
    app.include_router(router)
    app.include_router(selftest_router)
    app.include_router(report_router)
    app.include_router(page_router)
    for root in (ServiceError, LoadRefused, ModelError):
        app.add_exception_handler(root, _refusal)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(Exception, _fault)
    return app


class _BodyLimit:
    """Refuses a body beyond its limit: by what it says of itself, else when it is reached."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        limit = BODY_BYTES.get(scope.get("path", ""), OTHER_BODY_BYTES)
        n_bytes = 0

        async def receive_within() -> Message:
            nonlocal n_bytes
            said = dict(scope["headers"]).get(b"content-length", b"0")
            message = await receive()
            n_bytes += len(message.get("body", b""))
            if n_bytes > limit or (said.isdigit() and int(said) > limit):
                raise HTTPException(
                    413,
                    f"wanted a body of at most {limit:,} bytes, got more. Send it in parts.",
                )
            return message

        await self._app(scope, receive_within if scope["type"] == "http" else receive, send)


def refuse_if_in_use(settings: Settings) -> None:
    """Refuse, before anything is started, a data folder or a port that is taken.

    Raises
    ------
    InUse
    """
    settings.data.mkdir(parents=True, exist_ok=True)
    with _alone(settings.data), socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            raise InUse(
                f"wanted to listen on {settings.host}:{settings.port}, got: {error.strerror}. "
                "Stop what listens there, or name another port with GAP_PORT."
            ) from error


@contextmanager
def _alone(data: Path) -> Iterator[None]:
    """Hold the lock of a data folder: two services would empty one queue twice."""
    with (data / _LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InUse(
                f"wanted the data folder {data} to itself, but another service works on it. "
                "Stop that one, or name another folder with GAP_DATA."
            ) from error
        yield


def _problem(status: int, title: str, detail: str, code: str) -> JSONResponse:
    problem = Problem(title=title, status=status, detail=detail, code=code)
    return JSONResponse(
        problem.model_dump(), status_code=status, media_type="application/problem+json"
    )


async def _refusal(request: Request, error: Exception) -> JSONResponse:
    status = status_of(error)
    code = getattr(error, "code", "refused")
    _log.log(
        logging.ERROR if status == 500 else logging.INFO,
        "%s %s refused: %s (%s)",
        request.method,
        request.url.path,
        code,
        error,
    )
    answer = _problem(status, code.replace("_", " "), str(error), code)
    if hasattr(error, "retry_after_s"):
        answer.headers["Retry-After"] = str(error.retry_after_s)
    return answer


async def _invalid(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    faults = [
        f"{'.'.join(str(part) for part in fault['loc'])}: "
        + fault["msg"].removeprefix("Value error, ").rstrip(".")
        for fault in error.errors()[:5]
    ]
    malformed = any(fault["type"] == "json_invalid" for fault in error.errors())
    return _problem(
        400 if malformed else 422,
        "invalid request",
        "; ".join(faults) + ". See /docs for what is wanted.",
        "invalid_request",
    )


async def _http(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    detail = {404: "No such address; /docs lists them.", 405: "Not with this method; see /docs."}
    code = {413: "body_too_large", 415: "wrong_content_type"}
    return _problem(
        error.status_code,
        HTTPStatus(error.status_code).phrase,
        detail.get(error.status_code, str(error.detail)),
        code.get(error.status_code, "http"),
    )


async def _gone(_request: Request, _error: Exception) -> Response:
    """Answer nobody: the client went away before it had sent its request."""
    return Response(status_code=400)


async def _fault(request: Request, error: Exception) -> JSONResponse:
    _log.error("%s %s: a fault of Gapscope", request.method, request.url.path, exc_info=error)
    return _problem(
        500, "a fault of Gapscope", "The log of the service says more. Please report it.", "fault"
    )
