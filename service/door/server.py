"""uvicorn as it runs here, and what it lacks: an end for clients that send or read too slowly.

Its own limits are none on the time of a header or a body, 64 kB on what is unparsed, and a 503
without headers. Here a header has 10 s, a body must bring 32 kB in each 30 s that the service
waits for it, of an answer as much must be taken up, whose connection is watched until all of it
was, and there are at most 512 connections, so that what all of them hold is bounded.
"""

import asyncio
import gc
import logging
import socket
import sys
import threading
import uuid
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from types import FrameType
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from etl.memory import share_arenas
from service.door.limits import HEADER_BYTES, Gates
from service.door.policy import guard
from service.door.refusals import PROBLEM
from service.door.token import FREE
from service.schemas import Problem
from service.settings import Settings

CONNECTIONS = 512
HEADER_S = 10.0
DRAIN_S = 6  # with the 6 s of the workers, less than the 20 s within which it ends
BODY_S, BODY_STEP_BYTES = 30.0, 32 << 10
ANSWER_S, ANSWER_STEP_BYTES = 30.0, 32 << 10
_REST_S = 5.0  # of a body that was answered before it had come
_LOOK_S = 0.5
# A request makes some hundred objects and few cycles: a search after each 700 new ones, as Python
# has it, took a fifth of the time of a busy service.
_GARBAGE = (20_000, 20, 20)
_REFUSALS = {
    "bad_http": (400, "wanted an HTTP/1.1 request, got what is none."),
    "too_slow": (408, f"wanted a header within {HEADER_S:.0f} s, and of a body "
                 f"{BODY_STEP_BYTES:,} bytes in each {BODY_S:.0f} s, got less. Send it faster."),
    "headers_too_large": (431, f"wanted headers of at most {HEADER_BYTES:,} bytes, got more. "
                          "Send fewer."),
    "overloaded": (503, f"wanted fewer requests, and at most {CONNECTIONS} connections, at once, "
                   "got one more. Try again in a second."),
}  # fmt: skip
# Each write of the event loop lets go of the interpreter, and waits its turn behind the threads.
_SWITCH_S = 0.0005
_log = logging.getLogger("gapscope.server")


def run(app: Any, settings: Settings) -> None:
    """Serve until a signal ends it: what is under way has 6 s to come to its end."""
    share_arenas()
    sys.setswitchinterval(_SWITCH_S)
    with suppress(KeyboardInterrupt):  # Ctrl-C is how a service in the foreground ends
        _Server(configuration(app, settings), app.state.stopping).run()


class _Server(uvicorn.Server):
    """uvicorn's server, that tells the application of its end when it is asked for."""

    def __init__(self, config: uvicorn.Config, stopping: threading.Event) -> None:
        super().__init__(config)
        self._stopping = stopping

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to listen; what is there by now stays, and need not be searched for garbage."""
        await super().startup(sockets)
        gc.collect()
        gc.freeze()
        gc.set_threshold(*_GARBAGE)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop: streams end, and nobody is told any more that the service is ready."""
        self._stopping.set()
        super().handle_exit(sig, frame)


def configuration(app: Any, settings: Settings) -> uvicorn.Config:
    """Return uvicorn's settings: its log lines are ours, and no header says who a client is."""
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=partial(PatientProtocol, gates=app.state.gates),  # type: ignore[arg-type]
        ws="none",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=DRAIN_S,
        h11_max_incomplete_event_size=HEADER_BYTES + (8 << 10),
    )


class PatientProtocol(H11Protocol):
    """One connection, closed where its client keeps it waiting, or where there is no room."""

    def __init__(self, *arguments: Any, gates: Gates, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._gates = gates

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start to watch the connection; refuse it where there are too many."""
        super().connection_made(transport)
        self._n_bytes = 0
        self._n_taken = self._n_left = 0  # of answers: taken up as far as was seen, and buffered
        self._is_postponed = False
        self._waited: tuple[str, object] | None = None
        self._since, self._had = 0.0, 0
        self._is_one_too_many = len(self.connections) > CONNECTIONS
        if self._is_one_too_many:  # once it has asked: what is not read when it closes resets it
            self.loop.call_later(_LOOK_S, self._refuse, "overloaded")
            return
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Count what comes; of a crowd, refuse without parsing those for whom there is no room."""
        if self._is_one_too_many or (self._n_bytes == 0 and self._finds_no_place(data)):
            self._refuse("overloaded")
            return
        self._n_bytes += len(data)
        super().data_received(data)

    def _finds_no_place(self, data: bytes) -> bool:
        """Whether a connection begins with a whole request to read, and no place is free.

        Requests of which the application does not know yet count too: hundreds may come at once.
        """
        if not (data.startswith(b"GET ") and data.endswith(b"\r\n\r\n")):
            return False
        path = data.split(b" ", 2)[1].partition(b"?")[0]
        return self._gates.is_full(len(self.tasks)) and path.decode("latin-1") not in FREE

    def handle_events(self) -> None:
        """Begin with a request only when the answers before it are taken up: it holds a place."""
        if self.flow.write_paused and self.conn.their_state is h11.IDLE:
            self._is_postponed = True
            self._unset_keepalive_if_required()
            self.flow.pause_reading()
            return
        super().handle_events()

    def resume_writing(self) -> None:
        """Go on where a request had to wait for the answers before it."""
        super().resume_writing()
        if self._is_postponed:
            self._is_postponed = False
            self.flow.resume_reading()
            self.handle_events()

    def send_400_response(self, _msg: str) -> None:
        """Refuse what is no HTTP, or has more of a header than is kept: as a problem."""
        hint = getattr(sys.exception(), "error_status_hint", 400)
        self._refuse("headers_too_large" if hint == 431 else "bad_http")

    def _watch(self) -> None:
        """Look at what is waited for, twice a second, as long as the connection holds anything."""
        n_left = self.transport.get_write_buffer_size()
        if self.transport.is_closing() and n_left == 0:
            return
        self._n_taken += max(0, self._n_left - n_left)
        self._n_left = n_left
        now = self.loop.time()
        waits, progress, seconds, step = self._waits_for()
        if (waits, self.cycle) != self._waited or progress - self._had >= step:
            self._waited, self._since, self._had = (waits, self.cycle), now, progress
        elif waits and now - self._since > seconds:
            if waits in ("header", "body"):
                self._refuse("too_slow")
            else:
                _log.info("a client was closed: it left an answer, or sent on after it")
                self.transport.abort()
            return
        self.loop.call_later(_LOOK_S, self._watch)

    def _waits_for(self) -> tuple[str, int, float, int]:
        """Say what the client owes, how far it is, for how many seconds, and the least step."""
        if self.flow.write_paused or self.transport.is_closing():
            return "answer", self._n_taken, ANSWER_S, ANSWER_STEP_BYTES
        if self.conn.their_state is h11.IDLE and self.timeout_keep_alive_task is None:
            return "header", 0, HEADER_S, 1
        if self.conn.their_state is h11.SEND_BODY and not self.flow.read_paused:
            if self.cycle.response_complete:
                return "rest", 0, _REST_S, 1
            return "body", self._n_bytes, BODY_S, BODY_STEP_BYTES
        return "", 0, 0.0, 1

    def _refuse(self, code: str) -> None:
        """Answer without the application, where no answer has begun, and close."""
        if self.transport.is_closing():
            return
        status, detail = _REFUSALS[code]
        request_id = uuid.uuid4().hex
        _log.info("refused", extra={"fields": {"status": status, "code": code, "why": detail,
                                               "request": request_id}})  # fmt: skip
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            if self.cycle.response_started:
                self.transport.abort()
                return
        problem = Problem(
            title=code.replace("_", " "),
            status=status,
            detail=detail,
            code=code,
            request=request_id,
        )
        body = problem.model_dump_json().encode()
        headers = [(b"content-type", PROBLEM.encode()), (b"content-length", b"%d" % len(body)),
                   (b"connection", b"close")]  # fmt: skip
        if status == 503:
            headers.append((b"retry-after", b"1"))
        start = {"type": "http.response.start", "status": status, "headers": headers}
        guard(start, request_id)
        lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}".encode()]
        lines += [name + b": " + value for name, value in start["headers"]]  # type: ignore[attr-defined]
        self.transport.write(b"\r\n".join([*lines, b"", body]))
        self.transport.close()
