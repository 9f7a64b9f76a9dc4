"""Who is let in, from where, with how much, and what a browser may do with the answers."""

import asyncio
import json
import logging
import os
import shutil
import stat

import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr

from service import logs
from service.app import create_app
from service.door import limits
from service.door.policy import HEADERS
from service.door.token import Access, address, token_of
from service.errors import BadSetting, OpenTokenFile, TokenWanted, WeakToken
from service.settings import Settings

TOKEN = "Zk3vQ0x7Jw-9bHn_Lr5TcA2dYfE8"
OPEN = ("/health", "/ready")
POLICIES = {"content-security-policy", "x-request-id", *HEADERS}
ROUTES = ["/", "/models", "/docs", "/openapi.json", "/view/mean", "/static/style.css", "/nowhere",
          "/health/", "/health/x", "//health", "/ready;x", "/view/%2e%2e/health",
          "/static-offline-docs/swagger-ui.css", "/images/1/thumbnail", "/jobs/events"]  # fmt: skip


def serving(data, **settings):
    app = create_app(Settings(data=data, **settings), with_worker=False)
    with TestClient(app, follow_redirects=False) as client:
        yield client


@pytest.fixture(scope="module")
def client(toy_data, tmp_path_factory):
    """The service over the toy world; two beside each other want two folders."""
    yield from serving(shutil.copytree(toy_data, tmp_path_factory.mktemp("open") / "data"))


@pytest.fixture(scope="module")
def with_token(toy_data):
    yield from serving(toy_data, token=SecretStr(TOKEN))


@pytest.fixture
def guarded(with_token):
    with_token.cookies.clear()
    return with_token


def bearer(token=TOKEN):
    return {"Authorization": f"Bearer {token}"}


def raw(client, method="GET", path="/models", headers=(), query=b"", scheme="http", body=b""):
    """Answer of the application to headers as they are, which no client would send."""
    sent = []
    scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method,
             "path": path, "raw_path": path.encode(), "root_path": "", "query_string": query,
             "scheme": scheme, "headers": [(a.encode(), b.encode()) for a, b in headers],
             "client": ("127.0.0.1", 5), "server": ("127.0.0.1", 80), "state": {}}  # fmt: skip

    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message):
        sent.append(message)

    asyncio.run(client.app(scope, receive, send))
    found = b"".join(m.get("body", b"") for m in sent[1:])
    code = json.loads(found)["code"] if sent[0]["status"] >= 400 else None
    return sent[0]["status"], code, {name.decode() for name, _ in sent[0]["headers"]}


# tokens


@pytest.mark.parametrize("path", OPEN)
def test_health_and_ready_alone_are_free(guarded, path):
    assert guarded.get(path).status_code in (200, 503)


@pytest.mark.parametrize("path", ROUTES)
def test_all_else_wants_the_token(guarded, path):
    answer = guarded.get(path)
    assert (answer.status_code, answer.json()["code"]) == (401, "token_wanted")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.headers["content-type"] == "application/problem+json"
    assert guarded.post(path, json={}).status_code == 401


@pytest.mark.parametrize(
    "given",
    ["", "Bearer", "Bearer ", "Bearer x", f"Basic {TOKEN}", f"Bearer {TOKEN}x",
     f"Bearer {TOKEN[:-1]}", f"Bearer {TOKEN.lower()}", f"Bearer {TOKEN} {TOKEN}", "Bearer \xe9",
     TOKEN],
)  # fmt: skip
def test_a_wrong_token_is_none(guarded, given):
    assert guarded.get("/models", headers={"Authorization": given.encode()}).status_code == 401


def test_the_token_lets_in_by_header_and_two_headers_do_not(guarded):
    assert guarded.get("/models", headers=bearer()).status_code == 200
    twice = [("host", "localhost"), *[("authorization", f"Bearer {TOKEN}")] * 2]
    assert raw(guarded, headers=twice)[:2] == (401, "token_wanted")


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("evil", ["evil.com/health?x=", "a/?x=", "localhost/health"])
def test_s_auth_goes_by_the_path_that_the_router_goes_by(guarded, evil, scheme):
    """`request.url` would be http://<Host>/models, whose path the Host header makes."""
    status, code, _ = raw(guarded, headers=[("host", evil)], scheme=scheme)
    assert (status, code) == (400, "wrong_host")


def test_a_browser_gives_the_token_once_and_keeps_a_cookie(guarded):
    answer = guarded.get(f"/view/mean/classes?a=1&token={TOKEN}&b=%26")
    assert (answer.status_code, answer.headers["location"]) == (303, "/view/mean/classes?a=1&b=%26")
    cookie = answer.headers["set-cookie"]
    assert TOKEN not in cookie
    assert {"HttpOnly", "Path=/", "SameSite=strict"} <= set(cookie.split("; "))
    assert guarded.get("/models").status_code == 200
    name, value = cookie.split(";")[0].split("=")
    guarded.cookies.clear()
    for given in (f"{name}={value[:-1]}", f"{name}={TOKEN}", f"gapscope={value}", f"{name}="):
        assert guarded.get("/models", headers={"Cookie": given}).status_code == 401
    assert guarded.get("/models", headers=bearer(value)).status_code == 401
    assert guarded.get("/models", headers={"Cookie": f"a=b; {name}={value}"}).status_code == 200
    # who is in already, and opens the address again, sees it without the token
    again = guarded.get(f"/?token={TOKEN}", headers={"Cookie": f"{name}={value}"})
    assert (again.status_code, again.headers["location"]) == (303, "/")


@pytest.mark.parametrize(
    ("method", "query"), [("GET", "token=x"), ("GET", "token="), ("POST", f"token={TOKEN}"),
                          ("GET", f"Token={TOKEN}"), ("HEAD", f"token={TOKEN}")]
)  # fmt: skip
def test_a_wrong_token_in_the_address_gives_no_cookie(guarded, method, query):
    answer = guarded.request(method, f"/models?{query}")
    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("path", ["//evil.com", "/\\evil.com", "///evil.com/%2e%2e"])
def test_s_no_address_leads_elsewhere_after_the_token(guarded, path):
    sent = []

    async def send(message):
        sent.append(message)

    query = f"token={TOKEN}".encode()
    scope = {"type": "http", "method": "GET", "path": path, "query_string": query,
             "scheme": "http", "headers": [(b"host", b"localhost")]}  # fmt: skip
    asyncio.run(guarded.app(scope, None, send))
    where = dict(sent[0]["headers"])[b"location"].decode()
    assert where.startswith("/")
    assert where[1:2] not in ("/", "\\")


def test_a_person_without_the_token_is_told_how_to_get_in(guarded):
    answer = guarded.get("/view/mean", headers={"Accept": "text/html,*/*"})
    assert answer.status_code == 401
    assert "gapscope token" in answer.text
    assert answer.headers["content-type"].startswith("text/html")


@pytest.mark.parametrize(
    "token",
    ["", "short", "a" * 40, "ab" * 20, "0123456789" * 3, "abcdefghijklmnopqrstuvwxyz0123",
     "1234567890123456789012", "0f1e2d3c4b5a69788796a5", "with space and more of that", "é" * 30,
     "line\nline\nline\nline\nline\n", TOKEN[:20], TOKEN[:9] * 4,
     "aKz7zzaK7aKKzaza77aKz7Ka7zKa7azKz7aaKz77"],
)  # fmt: skip
def test_s_a_token_that_can_be_guessed_is_refused_and_not_repeated(tmp_path, token):
    with pytest.raises(WeakToken) as refused:
        token_of(Settings(data=tmp_path, token=SecretStr(token)))
    assert not token or token not in str(refused.value)


@pytest.mark.parametrize(
    "token",
    [TOKEN, "9f86d081884c7d659a2feaa0c55ad015", "31415926535897932384626433832795028841971"],
)
def test_a_token_of_128_bits_is_taken(tmp_path, token):
    assert token_of(Settings(data=tmp_path, token=SecretStr(token))) == token


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "192.168.1.5", "example.org", "127.0.0.1.evil.com", ""]
)
def test_s_an_address_that_others_reach_wants_a_token(tmp_path, host):
    with pytest.raises(TokenWanted, match="GAP_TOKEN_FILE"):
        create_app(Settings(data=tmp_path, host=host))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_this_machine_alone_needs_none(tmp_path, host):
    assert token_of(Settings(data=tmp_path, host=host)) is None


def test_a_token_file_is_made_once_for_its_owner_alone(tmp_path):
    file = tmp_path / "new" / "token"
    settings = Settings(data=tmp_path, host="0.0.0.0", token_file=file)
    token = token_of(settings)
    assert token is not None
    assert len(token) == 43  # 256 bits
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert token_of(settings) == token
    assert [one.name for one in file.parent.iterdir()] == ["token"]
    assert address(settings, token) == f"http://127.0.0.1:8000/?token={token}"
    assert address(Settings(host="::1", port=80), None) == "http://[::1]:80/"


def test_of_two_that_make_a_token_file_one_wins(tmp_path, monkeypatch):
    file = tmp_path / "token"
    link = os.link

    def late(draft, name):
        file.write_text(TOKEN)
        file.chmod(0o600)
        link(draft, name)

    monkeypatch.setattr(os, "link", late)
    assert token_of(Settings(data=tmp_path, token_file=file)) == TOKEN
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o602, "fifo"])
def test_s_a_token_file_that_others_read_or_that_is_none_is_refused(tmp_path, mode):
    file = tmp_path / "token"
    if mode == "fifo":
        os.mkfifo(file, 0o600)
    else:
        file.write_text(TOKEN)
        file.chmod(mode)
    with pytest.raises(OpenTokenFile, match="chmod 600"):
        token_of(Settings(data=tmp_path, token_file=file))


@pytest.mark.parametrize("place", ["folder", "link to nowhere", "link to itself", "in a file"])
def test_s_a_token_file_that_can_be_neither_read_nor_made_is_refused(tmp_path, place):
    file = tmp_path / "token"
    if place == "folder":
        file.mkdir()
    elif place == "in a file":
        file.touch(0o600)
        file = file / "token"
    else:
        file.symlink_to(tmp_path / ("token" if place == "link to itself" else "no/where"))
    with pytest.raises(BadSetting, match=r"in GAP_TOKEN_FILE a file .*\. Name another one\."):
        token_of(Settings(data=tmp_path, token_file=file))


def test_an_access_without_token_asks_nothing():
    assert Access(None).check({"path": "/models"}, None) is None


# hosts and origins


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.0.0.1:8000", "localhost:1", "LOCALHOST", "[::1]", "[::1]:8000"]
)
def test_this_machines_names_are_known(client, host):
    assert raw(client, headers=[("host", host)])[0] == 200


@pytest.mark.parametrize(
    "hosts",
    [[], [""], ["evil.com"], ["127.0.0.1", "evil.com"], ["127.0.0.1", "127.0.0.1"], ["a/?x="],
     ["127.0.0.1:"], ["127.0.0.1:99999"], ["127.0.0.1:8000:1"], ["localhost."],
     ["localhost.evil.com"], ["evil.com@localhost"], ["::1"], ["[::1"], ["[::2]"], ["0.0.0.0"],
     ["127.1"], [" localhost"],
     ["localhost\t"], ["127.0.0.1,evil.com"], ["2130706433"], ["http://localhost"],
     ["loc\xe4lhost"]],
)  # fmt: skip
def test_s_any_other_host_is_refused(client, hosts):
    for path in ("/models", "/health"):
        found = raw(client, path=path, headers=[("host", host) for host in hosts])
        assert found[:2] == (400, "wrong_host")
        assert found[2] >= POLICIES


def test_names_are_added_by_settings(tmp_path):
    settings = Settings(
        data=tmp_path, host="192.168.1.5", hosts="gap.lan, [fe80::1]", token=SecretStr(TOKEN)
    )  # type: ignore[arg-type]
    app = create_app(settings, with_worker=False)
    for host in ("192.168.1.5:8000", "GAP.lan", "[fe80::1]:9"):
        assert TestClient(app).get("/health", headers={"Host": host}).status_code == 200
    assert TestClient(app).get("/health", headers={"Host": "lan"}).status_code == 400


@pytest.mark.parametrize(
    ("host", "scheme", "origin", "passes"),
    [
        ("localhost:8000", "http", "http://localhost:8000", True),
        ("localhost", "http", "http://localhost:80", True),
        ("LOCALHOST", "http", "http://localhost", True),
        ("localhost", "https", "https://localhost:443", True),
        ("[::1]:8000", "http", "http://[::1]:8000", True),
        ("localhost:8000", "http", "http://localhost:8001", False),
        ("localhost:8000", "http", "http://127.0.0.1:8000", False),
        ("localhost:8000", "http", "https://localhost:8000", False),
        ("localhost:8000", "http", "http://localhost", False),
        ("localhost:8000", "http", "http://evil.com", False),
        ("localhost:8000", "http", "http://localhost:8000.evil.com", False),
        ("localhost:8000", "http", "null", False),
        ("localhost:8000", "http", "", False),
        ("localhost:8000", "http", "file://", False),
    ],
)
def test_s_writes_come_from_here(client, host, scheme, origin, passes):
    for method in ("POST", "DELETE", "PUT", "PATCH", "PROPFIND"):
        headers = [("host", host), ("origin", origin), ("sec-fetch-site", "same-origin")]
        status, code, names = raw(client, method, "/jobs/1", headers, scheme=scheme)
        assert (code == "cross_origin") != passes
        assert passes or (status == 403 and names >= POLICIES)
    twice = [("host", host), ("origin", origin), ("origin", "http://evil.com")]
    assert raw(client, "POST", "/train", twice, scheme=scheme)[0] == 403


@pytest.mark.parametrize(
    ("method", "fetched", "passes"),
    [
        ("GET", {}, True),
        ("GET", {"site": "none", "mode": "navigate", "dest": "document"}, True),
        ("GET", {"site": "same-origin", "mode": "cors", "dest": "empty"}, True),
        ("GET", {"site": "cross-site", "mode": "navigate", "dest": "document"}, True),
        ("GET", {"site": "cross-site", "mode": "navigate", "dest": "iframe"}, False),
        ("GET", {"site": "cross-site", "mode": "no-cors", "dest": "image"}, False),
        ("GET", {"site": "same-site", "mode": "no-cors", "dest": "script"}, False),
        ("POST", {"site": "cross-site", "mode": "navigate", "dest": "document"}, False),
        ("DELETE", {"site": "same-site", "mode": "cors", "dest": "empty"}, False),
    ],
)
def test_s_another_sites_page_may_link_here_and_no_more(client, method, fetched, passes):
    headers = {f"Sec-Fetch-{name}": value for name, value in fetched.items()}
    answer = client.request(method, "/models", headers=headers)
    assert (answer.status_code == 200) == passes
    assert passes or answer.json()["code"] == "cross_origin"


@pytest.mark.parametrize("path", ["/", "/gap/mean?top=1", "/view/mean/classes", "/%3Cb%3E"])
def test_s_a_link_of_another_site_ends_at_a_doorstep(client, path):
    """Else it would queue work, and read labels: a seal is spoilt by that."""
    before = len(client.get("/looks").json()), client.get("/jobs").json()
    by_link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    answer = client.get(path, headers=by_link)
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    assert f"<a href='{path}'>" in answer.text
    assert "<b>" not in answer.text
    assert set(answer.headers) >= POLICIES
    assert before == (len(client.get("/looks").json()), client.get("/jobs").json())
    own = client.get(path, headers={**by_link, "Sec-Fetch-Site": "same-origin"})
    assert "Another site led here" not in own.text


def test_s_a_link_with_the_token_is_led_on_by_a_click_and_shows_it_nowhere(guarded):
    by_link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    answer = guarded.get(f"/models?token={TOKEN}", headers=by_link)
    assert answer.status_code == 200
    assert answer.text.count(TOKEN) == 1
    assert f"<a href='/models?token={TOKEN}'>Go on to /models</a>" in answer.text
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x",
             "text/html", "", "application/jsonp", "text/plain; application/json", None]
)  # fmt: skip
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/train"),
        ("POST", "/predict/arrow"),
        ("DELETE", "/jobs/1"),
        ("POST", "/jobs/1/resume"),
    ],
)
def test_s_no_form_is_taken(client, method, path, kind):
    headers = {} if kind is None else {"Content-Type": kind}
    answer = client.request(method, path, content=b'{"a": 1}', headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (415, "wrong_content_type")
    if kind:
        assert client.request(method, path, headers=headers).status_code == 415


def test_what_has_no_body_needs_no_type(client):
    assert client.delete("/jobs/nosuch").json()["code"] == "not_found"
    two = [
        ("host", "localhost"),
        ("content-type", "application/json"),
        ("content-type", "text/plain"),
    ]
    assert raw(client, "POST", "/train", two)[:2] == (415, "wrong_content_type")


# headers on answers


@pytest.mark.parametrize(
    "path", ["/", "/models", "/nowhere", "/docs", "/static/page.js", "/view/nosuch", "/ready",
             "/models/mean", "/gap/mean/chart/waterfall?format=html", "/models/x%00",
             "/gap/mean/chart/waterfall?format=svg"]
)  # fmt: skip
def test_each_answer_is_guarded(client, path):
    headers = client.get(path).headers
    assert set(headers) >= POLICIES
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert not [name for name in headers if name.startswith("access-control")]
    ask = {"Origin": "http://evil.com", "Access-Control-Request-Method": "POST"}
    headers = client.options(path, headers=ask).headers
    assert not [name for name in headers if name.startswith("access-control")]


def test_a_fault_is_guarded_logged_and_not_told(client, monkeypatch, caplog):
    def fault(*_asked):
        raise ZeroDivisionError("a secret place")

    monkeypatch.setattr(type(client.app.state.jobs), "all", fault)
    with caplog.at_level(logging.INFO, logger="gapscope"):
        answer = client.get("/jobs?token=hidden", headers={"X-Request-Id": "mine-1"})
    assert (answer.status_code, answer.json()["code"]) == (500, "fault")
    assert set(answer.headers) >= POLICIES
    assert answer.json()["request"] == answer.headers["x-request-id"] == "mine-1"
    assert "secret" not in answer.text
    assert "a secret place" in caplog.text
    assert "hidden" not in caplog.text


# how much


@pytest.mark.parametrize(
    ("extra", "query", "status", "code"),
    [
        ([(f"x-{i}", "1") for i in range(10_000)], b"", 431, "headers_too_large"),
        ([("x", "1" * 40_000)], b"", 431, "headers_too_large"),
        ([], b"a" * 10_000, 414, "address_too_long"),
        ([("content-length", "5"), ("transfer-encoding", "chunked")], b"", 400, "bad_http"),
    ],
)
def test_a_list_giant_headers_addresses_and_two_lengths_are_refused(
    client, extra, query, status, code
):
    found = raw(client, headers=[("host", "localhost"), *extra], query=query)
    assert found[:2] == (status, code)
    assert found[2] >= POLICIES


@pytest.mark.parametrize("opens", ["[", '{"a":'])
@pytest.mark.parametrize(
    "path", ["/train", "/evaluate", "/predict", "/hypotheses", "/reports", "/seals"]
)
def test_a_list_json_100000_deep_is_refused_before_it_is_parsed(client, path, opens):
    for body in (opens * 100_000, '{"params": ' + opens * 100_000, opens * 65):
        answer = client.post(path, content=body, headers={"Content-Type": "application/json"})
        assert (answer.status_code, answer.json()["code"]) == (422, "too_deep")


@pytest.mark.parametrize(
    ("text", "shape"),
    [("{}", (1, 1, 0)), ("[[[]]]", (3, 3, 0)), ('{"a": [1, {"b": 2}]}', (3, 5, 1)),
     ('["[[[[,:"]', (1, 1, 0)), (r'["\"[[[[,:"]', (1, 1, 0)), (r'["\\", [[]]]', (3, 3, 1)),
     (r'["\\\"[[", []]', (2, 2, 1)), ('"' + "[" * 99, (0, 0, 0)), ("1", (0, 0, 0)),
     ("", (0, 0, 0))],
)  # fmt: skip
def test_the_shape_of_json_is_told_however_the_body_is_cut(text, shape):
    for size in range(1, 9):
        found = limits._Shape()
        for i in range(0, len(text), size):
            found.add(text[i : i + size].encode())
            found.add(b"")
        assert (found.deepest, found.marks, found.values) == shape, size


@pytest.mark.parametrize(
    ("path", "content", "status", "code"),
    [
        ("/predict", b'{"features": [' + b"[]," * 20_000, 413, "too_many_values"),
        ("/predict", b"{" + b'"a":0,' * 20_000, 413, "too_many_values"),
        ("/predict", b'{"features": [[' + b"0," * 20_001, 400, "invalid_request"),
        ("/predict", b"[" + b"0," * 2_600_001, 413, "too_many_values"),
        ("/train", b"[" + b"0," * 20_001, 413, "too_many_values"),
        ("/train", '{"params": {"\\"": [[]]}}'.encode("utf-16-le"), 400, "not_utf8"),
        ("/train", '{"params": {}}'.encode("utf-16"), 400, "not_utf8"),
    ],
    ids=lambda value: value[:20] if isinstance(value, bytes) else None,
)
def test_s_json_that_takes_gigabytes_once_parsed_is_refused_before(
    client, path, content, status, code
):
    answer = client.post(path, content=content, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (status, code)


@pytest.mark.parametrize("value", ['"a"', "null", "[]"])
def test_s_a_million_faults_are_told_as_one(client, value):
    content = f'{{"model": "mean", "features": [[{",".join([value] * 19_000)}]]}}'
    answer = client.post("/predict", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
    assert answer.json()["detail"].count("Input should be") == 1


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/gap/mean/mask", {"features": ["\ud800"]}, 404),
        ("/train", {"backbone": "toy", "seed": 0, "params": {"\ud800": 1}}, 422),
        ("/train", {"backbone": "toy", "seed": 0, "params": {"C": 10**400}}, 422),
        ("/train", {"backbone": "toy", "seed": 0, "params": {"C": [1] * 10_000}}, 422),
        ("/train", {"backbone": "toy+toy", "seed": 0}, 404),
        ("/train", {"backbone": "\ud800", "seed": 0}, 404),
    ],
)
def test_odd_texts_and_numbers_are_refused_in_words(client, path, body, status):
    content = json.dumps(body)
    answer = client.post(path, content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == status
    assert len(answer.json()["detail"]) < 1000


def test_more_at_once_than_there_is_room_for_is_refused_and_health_answers(client, monkeypatch):
    monkeypatch.setitem(limits.AT_ONCE, "read", 0)
    answer = client.get("/models")
    assert (answer.status_code, answer.json()["code"]) == (503, "overloaded")
    assert answer.headers["retry-after"] == "1"
    assert set(answer.headers) >= POLICIES
    assert client.get("/health").status_code == 200
    assert client.post("/evaluate", json={"model": "nosuch"}).json()["code"] == "not_found"
    monkeypatch.setitem(limits.AT_ONCE, "read", 1)
    for _ in range(3):  # a place is given back, after a refusal too
        assert client.get("/models").status_code == 200
        assert client.get("/models/nosuch/leaderboard").status_code == 404


def test_requests_are_counted_by_route_and_no_client_makes_a_series(client):
    client.get("/models/nosuch/leaderboard")
    client.request("BREW", "/models/x")
    client.get("/some/where/9f3a")
    counted = client.get("/metrics").text
    assert 'method="GET",route="/models/{model}/leaderboard",status="404"' in counted
    assert 'method="other"' in counted
    assert "BREW" not in counted
    assert "9f3a" not in counted


def test_no_socket_but_http_is_opened(client):
    sent = []

    async def send(message):
        sent.append(message)

    asyncio.run(client.app({"type": "websocket", "path": "/", "headers": []}, None, send))
    assert sent == [{"type": "websocket.close", "code": 1008}]


# logs


@pytest.mark.parametrize("given", ["a b", "a\nb", "x" * 65, "é", "", "<x>"])
def test_a_request_id_that_is_none_is_not_taken(client, given):
    sent = {"X-Request-Id": given.encode()}
    assert len(client.get("/health", headers=sent).headers["x-request-id"]) == 32


def formatted(caplog, plain=False):
    formatter = logs._Plain() if plain else logs._Json()
    return [
        formatter.format(record) for record in caplog.records if record.name == "gapscope.request"
    ]


def test_s_each_refusal_is_one_line_without_query_and_token(guarded, caplog):
    hostile = "/view/a%0A%7B%22level%22%3A%22error%22%7D%1B%5B31m"
    with caplog.at_level(logging.DEBUG, logger="gapscope"):
        guarded.get(f"/?token={TOKEN}")
        guarded.get(f"/models/nosuch/leaderboard?token={TOKEN}x", headers=bearer())
        guarded.cookies.clear()
        guarded.get(hostile, headers={"Authorization": f"Bearer {TOKEN}x", "X-Request-Id": "one"})
    lines = [record for record in caplog.records if record.name == "gapscope.request"]
    found = [record.fields | {"level": record.levelname} for record in lines]
    assert [one["status"] for one in found] == [303, 404, 401]
    assert [one["level"] for one in found] == ["DEBUG", "INFO", "INFO"]
    assert found[1]["route"] == "/models/{model}/leaderboard"
    assert found[2]["path"] == '/view/a\n{"level":"error"}\x1b[31m'
    for formatter in (logs._Json(), logs._Plain()):
        for line in map(formatter.format, lines):
            assert TOKEN not in line
            assert line.isprintable()


def test_lines_name_request_or_job_and_nothing_is_left_behind(capsys, monkeypatch):
    root = logging.getLogger()
    before = root.handlers[:], root.level
    logger = logging.getLogger("gapscope.test")
    try:
        logs.configure("info", plain=False)
        with logs.about(job="7"):
            logs.note(model="\x1b[2J\u202e")
            logger.warning("half\nline")
            try:
                raise ValueError("x" * 50_000)
            except ValueError:
                logger.exception("wrong")
        logger.debug("untold")
        logs.configure("debug", plain=True)
        logger.info("for\na person", extra={"fields": {"status": 1, "none": None}})
        try:
            raise ValueError("\x1b[2J\n12:00:00 info forged")
        except ValueError:
            logger.exception("wrong")
        logging.getLogger("uvicorn.error").warning("of uvicorn")
        logging.getLogger("uvicorn.access").warning("an address")
    finally:
        root.handlers[:], level = before
        root.setLevel(level)
        logging.getLogger("gapscope").setLevel(logging.NOTSET)
    first, second, third, *traced, fourth = capsys.readouterr().err.splitlines()
    told = json.loads(first)
    assert (told["message"], told["job"], told["level"]) == ("half\nline", "7", "warning")
    assert told["time"].endswith("+00:00")
    assert first.isascii()
    assert "ValueError" in json.loads(second)["exception"] or len(second) < 60_000
    assert third.endswith(r"info for\na person status=1")
    assert fourth.endswith("warning of uvicorn")
    assert all(line.startswith("    ") and line.isprintable() for line in traced[1:])
    assert traced[-1] == "    12:00:00 info forged"
    assert logs.current("job") is None
    logs.note(lost=True)
