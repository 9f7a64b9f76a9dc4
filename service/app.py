"""The one place where the parts are put together."""

import fcntl
import logging
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from http import HTTPStatus
from pathlib import Path

import anyio.to_thread
from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.gzip import GZipMiddleware
from fastapi.responses import JSONResponse
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from etl.errors import LoadRefused
from models.errors import ModelError
from service import VERSION
from service.analysis import Analysis
from service.api import router
from service.damage import find_damage
from service.disk import DISK_ERRORS, disk_refusal
from service.door import Door
from service.door.docs import add_docs
from service.door.limits import THREADS, Gates
from service.door.refusals import Refusal, problem
from service.door.token import token_of
from service.errors import InUse, ServiceError, status_of
from service.feature_routes import router as feature_router
from service.gap_routes import router as gap_router
from service.hypothesis_routes import router as hypotheses_router
from service.image_routes import router as image_router
from service.interface import describe
from service.jobs import EXPLAIN, TRAIN, Jobs, Worker, explain_on, stop_all
from service.looks import Looks
from service.metrics import Metrics
from service.page_routes import router as page_router
from service.report_routes import router as report_router
from service.selftest_routes import router as selftest_router
from service.settings import Settings
from service.signing import sign_looks

_LOCK = ".service.lock"
_log = logging.getLogger("gapscope")


def create_app(settings: Settings, *, with_worker: bool = True) -> FastAPI:
    """Make the service over one data folder.

    Parameters
    ----------
    settings
        Where the data folder is, and how many cores to use.
    with_worker
        False leaves the queue alone: for tests that empty it themselves.

    Raises
    ------
    TokenWanted, WeakToken, OpenTokenFile
        Others would reach the service without a token, or with one that is none.
    """
    settings.data.mkdir(parents=True, exist_ok=True)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        anyio.to_thread.current_default_thread_limiter().total_tokens = THREADS
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
            _log.info("the service %s started over %s", VERSION, settings.data.resolve())
            yield
            app.state.stopping.set()
            stop_all(workers.values())
            _log.info("the service stopped")

    app: FastAPI = FastAPIOffline(
        title="Gapscope",
        summary="Why does a classifier score lower on test set 2 than on test set 1?",
        version=VERSION,
        lifespan=lifespan,
        dependencies=[Depends(sign_looks)],
        docs_url=None,
        redoc_url=None,
    )
    damaged = find_damage(settings.data)  # before anything is opened
    add_docs(app)
    app.state.analysis = Analysis(settings.data, strict=settings.strict)
    app.state.analysis.damaged_at_start = damaged
    app.state.jobs = Jobs(settings.data)
    app.state.looks = Looks(settings.data)
    app.state.worker = app.state.explainer = None
    workers: dict[str, Worker] = {}
    app.state.metrics = Metrics(
        app.state.analysis.database, app.state.jobs, app.state.looks, workers
    )
    app.state.naming = threading.Lock()
    app.state.stopping = threading.Event()
    app.add_middleware(GZipMiddleware, minimum_size=10_000)
    token = token_of(settings)
    app.state.has_token = token is not None
    app.state.gates = Gates()
    app.add_middleware(
        Door,
        settings=settings,
        token=token,
        gates=app.state.gates,
        observe=app.state.metrics.observe,
    )
    app.include_router(gap_router)
    app.include_router(feature_router)
    app.include_router(image_router)
    app.include_router(hypotheses_router)
    app.include_router(router)
    app.include_router(selftest_router)
    app.include_router(report_router)
    app.include_router(page_router)
    describe(app)
    for root in (ServiceError, LoadRefused, ModelError):
        app.add_exception_handler(root, _refusal)
    for kind in DISK_ERRORS:
        app.add_exception_handler(kind, _disk)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(ClientDisconnect, _gone)
    return app


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


async def _refusal(_request: Request, error: Exception) -> JSONResponse:
    status = status_of(error)
    if status == 500:
        _log.error("a refusal that is a fault", exc_info=error)
    after = getattr(error, "retry_after_s", None)
    headers = None if after is None else {"Retry-After": str(after)}
    return problem(status, getattr(error, "code", "refused"), str(error), headers=headers)


async def _disk(request: Request, error: Exception) -> JSONResponse:
    refusal = disk_refusal(error, request.app.state.analysis.data)
    if refusal is None:
        raise error
    _log.error("%s %s: %s", request.method, request.url.path, refusal, exc_info=error)
    return await _refusal(request, refusal)


async def _invalid(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    faults = [
        f"{'.'.join(str(part) for part in fault['loc'])}: "
        + fault["msg"].removeprefix("Value error, ").rstrip(".")
        for fault in error.errors()[:5]
    ]
    malformed = any(fault["type"] == "json_invalid" for fault in error.errors())
    return problem(
        400 if malformed else 422,
        "invalid_request",
        "; ".join(faults) + ". See /docs for what is wanted.",
    )


async def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    status, headers = error.status_code, error.headers
    if status == 405:
        # several routes may share an address, of which Starlette names the first's methods
        route = request.scope.get("route")
        shared = request.app.openapi()["paths"].get(getattr(route, "path", None))
        headers = {"Allow": ", ".join(method.upper() for method in shared)} if shared else headers
    detail = {404: "No such address; /docs lists them.", 405: "Not with this method; see /docs."}
    code = {415: "wrong_content_type"}
    return problem(
        status,
        error.code if isinstance(error, Refusal) else code.get(status, "http"),
        detail.get(status, str(error.detail)),
        title=HTTPStatus(status).phrase,
        headers=headers,
    )


async def _gone(_request: Request, _error: Exception) -> Response:
    """Answer nobody: the client went away before it had sent its request."""
    return Response(status_code=400)
