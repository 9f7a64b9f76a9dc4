"""The door of the real service: raw sockets that no client would open, and a browser."""

import json
import re
import shutil
import socket
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
import uvicorn
from fastapi import Response

from service.app import create_app
from service.door import limits, server
from service.settings import Settings
from tests.e2e.server import GAPSCOPE, environment, free_port, serving, wait_until

MODEL = "pixels-logistic"
PAGES = ["", "/classes", "/classes/3", "/features", "/features/38", "/map", "/difficulty",
         "/images", "/images?kind=twins", "/line", "/hypotheses", "/training",
         "/report", "/part/leaks"]  # fmt: skip
POST = b"POST /train HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
GIANT = b"GET /giant HTTP/1.1\r\nHost: localhost\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(scope="module")
def service(toy_data, tmp_path_factory):
    """The service on a socket, its patience shortened twentyfold."""
    data = shutil.copytree(toy_data, tmp_path_factory.mktemp("door") / "data")
    with pytest.MonkeyPatch.context() as patch:
        short = {"HEADER_S": 0.5, "BODY_S": 1.0, "ANSWER_S": 1.0, "_REST_S": 0.3, "_LOOK_S": 0.05,
                 "CONNECTIONS": 20}  # fmt: skip
        for name, value in short.items():
            patch.setattr(server, name, value)
        settings = Settings(data=data, port=free_port())
        app = create_app(settings, with_worker=False)
        app.add_api_route("/giant", lambda: Response(b"x" * 50_000_000))
        service = uvicorn.Server(server.configuration(app, settings))
        thread = threading.Thread(target=service.run)
        thread.start()
        wait_until(lambda: service.started, 20)
        yield service
        service.should_exit = True
        thread.join()


@pytest.fixture
def port(service):
    return service.config.port


def opened(port, *pieces, pause=0.0):
    """A connection over which these bytes went, as far as they were taken."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=20)
    try:
        for piece in pieces:
            connection.sendall(piece)
            time.sleep(pause)
    except (BrokenPipeError, ConnectionResetError):
        pass
    return connection


def answer(port, *pieces, pause=0.0):
    """Status, code and headers of what comes back, until the service closes."""
    with opened(port, *pieces, pause=pause) as connection:
        found = b""
        try:
            while piece := connection.recv(1 << 16):
                found += piece
        except ConnectionResetError:
            pass
    if not found:
        return None, None, ""
    head, _, body = found.partition(b"\r\n\r\n")
    code = json.loads(body)["code"] if b"problem+json" in head else None
    return int(head.split()[1]), code, head.decode().lower()


@pytest.mark.parametrize(
    ("pieces", "pause", "status", "code"),
    [
        pytest.param([], 0, 408, "too_slow", id="nothing"),
        pytest.param([b"GET / HTTP/1.1\r\n"], 0, 408, "too_slow", id="half a header"),
        pytest.param([b"GET / HTTP/1.1\r\n", *[b"x: 1\r\n"] * 30], 0.05, 408, "too_slow",
                     id="slow-loris"),
        pytest.param([CHUNKED, b"1\r\n"], 0, 408, "too_slow", id="half a chunk"),
        pytest.param([POST + b"Content-Length: 9\r\n\r\n"], 0, 408, "too_slow", id="no body"),
        pytest.param([CHUNKED, *[b"1\r\n1\r\n"] * 40], 0.05, 408, "too_slow", id="slow body"),
        pytest.param([b"GET /\r\n\r\n"], 0, 400, "bad_http", id="no version"),
        pytest.param([b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"], 0, 400, "bad_http",
                     id="TLS"),
        pytest.param([b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"], 0, 400, "bad_http",
                     id="two hosts"),
        pytest.param([POST + b"Content-Length: 9\r\nContent-Length: 8\r\n\r\n"], 0, 400, "bad_http",
                     id="two lengths"),
        pytest.param([b"GET / HTTP/1.1\r\nx: " + b"1" * 200_000], 0, 431, "headers_too_large",
                     id="endless header"),
        pytest.param([b"GET /?" + b"1" * 200_000], 0, 431, "headers_too_large",
                     id="endless address"),
    ],
)  # fmt: skip
def test_a_slow_endless_or_broken_request_is_refused_and_closed(port, pieces, pause, status, code):
    start = time.monotonic()
    found = answer(port, *pieces, pause=pause)
    assert found[:2] == (status, code)
    for name in ("connection: close", "content-security-policy", "x-request-id", "nosniff"):
        assert name in found[2]
    assert time.monotonic() - start < 5
    assert httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200


def test_ten_thousand_headers_are_refused(port):
    head = b"GET /models HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    for n, size in ((10_000, 1), (101, 1), (20, 10_000)):
        extra = b"".join(b"x%d: %s\r\n" % (i, b"1" * size) for i in range(n))
        assert answer(port, head + extra + b"\r\n")[:2] == (431, "headers_too_large")
    found = answer(port, head.replace(b"/models", b"/models?" + b"a" * 9_000) + b"\r\n")
    assert found[:2] == (414, "address_too_long")


def test_an_endless_body_is_refused_and_what_follows_is_not_kept(port):
    """In chunks, so that nothing says how long it is; the answer comes while it is sent."""
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    n_chunks = limits.OTHER_BODY_BYTES // 0x10000 + 200
    before = peak_kb()
    status, code, _ = answer(port, CHUNKED, *[chunk] * n_chunks)
    assert (status, code) == (413, "body_too_large")
    assert peak_kb() - before < 60_000
    said = POST + b"Content-Length: %d\r\n\r\n{" % (1 << 40)
    assert answer(port, said)[:2] == (413, "body_too_large")


def peak_kb():
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1])


@pytest.mark.parametrize(
    "asked",
    [
        pytest.param(GIANT + b"\r\n", id="one"),
        pytest.param(GIANT + b"Connection: close\r\n\r\n", id="the last one"),
        pytest.param(2 * (GIANT + b"\r\n"), id="two at once"),
    ],
)
def test_an_answer_that_is_not_taken_up_holds_no_place_and_is_broken_off(service, port, asked):
    with opened(port, asked) as connection:
        name, taken = connection.getsockname(), len(connection.recv(1))
        gates = service.config.app.state.gates
        wait_until(lambda: gates._n["read"] == 0 and name in clients(service), 5)
        wait_until(lambda: gates._n["read"] == 0 and name not in clients(service), 10)
        with suppress(ConnectionResetError):
            while piece := connection.recv(1 << 20):
                taken += len(piece)
    assert taken < 50_000_000


def clients(service):
    return {one.client for one in list(service.server_state.connections)}


def test_connections_are_bounded_and_those_that_wait_make_room(port):
    waiting = [opened(port) for _ in range(20)]
    try:
        assert answer(port)[:2] == (503, "overloaded")
    finally:
        wait_until(lambda: httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200, 5)
        for connection in waiting:
            connection.close()


def test_of_a_crowd_those_without_a_place_are_refused_unparsed_and_health_answers(
    port, monkeypatch
):
    def asked(path):
        return answer(
            port, b"GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n" % path
        )

    assert asked(b"/models")[0] == 200
    for kind in ("read", "work"):
        monkeypatch.setitem(limits.AT_ONCE, kind, 0)
    monkeypatch.setattr("service.door.entrance.Door._let_in", None)  # it is not asked
    status, code, head = asked(b"/models?limit=1")
    assert (status, code) == (503, "overloaded")
    assert "retry-after: 1" in head
    monkeypatch.undo()
    for kind in ("read", "work"):
        monkeypatch.setitem(limits.AT_ONCE, kind, 0)
    assert asked(b"/health?x")[0] == 200


def test_quick_requests_over_one_connection_outlive_the_time_of_a_header(port):
    with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        end = time.monotonic() + 1.5
        while time.monotonic() < end:
            assert client.get("/health").status_code == 200
            time.sleep(0.02)
    two = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n" * 2
    with opened(port, two) as connection:
        time.sleep(0.3)
        assert connection.recv(1 << 16).count(b"HTTP/1.1 200") == 2


def test_no_address_that_others_reach_without_a_token(tmp_path):
    env = environment(tmp_path / "data", free_port()) | {"GAP_HOST": "0.0.0.0"}
    done = subprocess.run([GAPSCOPE, "serve"], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("refused (token_wanted): ")


@pytest.fixture(scope="module")
def site(demo_as_loaded, tmp_path_factory):
    """The demo behind a token that the service made, as in its container; and what it logs."""
    place = tmp_path_factory.mktemp("door")
    data = shutil.copytree(demo_as_loaded, place / "data")
    with (place / "log").open("w") as log:
        more = {"GAP_HOST": "0.0.0.0", "GAP_TOKEN_FILE": str(data / "token"), "GAP_LOG": "debug"}
        with serving(data, more, stderr=log) as (client, _):
            port = client.base_url.port
            said = subprocess.run(
                [GAPSCOPE, "token"], env=environment(data, port) | more,
                capture_output=True, text=True, check=True,
            ).stdout.strip()  # fmt: skip
            yield said, place / "log"


def test_a_browser_logs_in_by_the_link_and_no_page_breaks_its_policy(site, open_tab):
    link, log = site
    base, token = link.split("/?token=")
    with httpx.Client(base_url=base, timeout=300) as client:
        assert client.get("/models").json()["code"] == "token_wanted"
        client.headers["Authorization"] = f"Bearer {token}"
        assert client.get(f"/gap/{MODEL}").status_code == 200
    tab = open_tab(base)
    tab.page.goto(base)
    assert "gapscope token" in tab.page.locator("main").inner_text()
    tab.errors.clear()  # the browser reports the 401 itself
    tab.page.goto(link)
    assert tab.page.url == base + "/"
    (cookie,) = tab.page.context.cookies()
    assert cookie["httpOnly"]
    assert cookie["sameSite"] == "Strict"
    assert token not in cookie["value"]
    tab.go(f"/view/{MODEL}/images")
    tab.go(tab.page.locator("#grid a").first.get_attribute("href"))
    assert tab.errors == []
    chart = f"/gap/{MODEL}/chart/waterfall?format=html"
    for path in [*(f"/view/{MODEL}{page}" for page in PAGES), "/view/train", "/view/data", chart]:
        tab.go(path)
        assert tab.errors == [], path
    tab.page.locator(".chart svg g.mark-rect path").first.hover(force=True)
    tab.page.locator("#vg-tooltip-element.visible").wait_for()
    tab.page.goto(base + "/docs")
    tab.page.locator(".opblock").first.wait_for()
    tab.page.goto(base + f"/gap/{MODEL}/chart/waterfall?format=svg")
    assert tab.errors == []
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert {"request", "method", "route", "status", "duration_ms"} <= set(lines[-1])
    assert token not in log.read_text()
    assert cookie["value"] not in log.read_text()
    assert (log.parent / "data" / "token").stat().st_mode & 0o777 == 0o600
