"""The checks at the door one by one, with the exact answers; tests/contract has them together."""

import asyncio
import os
import secrets
import stat
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from pydantic import SecretStr
from starlette.datastructures import Headers

from service.door.entrance import Door
from service.door.limits import Gates
from service.door.origin import check_host, check_origin, check_type, comes_by_link, hosts_of
from service.door.refusals import Refusal
from service.door.token import FREE, Access, address, token_of
from service.errors import BadSetting, OpenTokenFile, TokenWanted, WeakToken
from service.settings import Settings

TOKEN = "Zk3vQ0x7Jw-9bHn_Lr5TcA2dYfE8"


def asked(*headers, method="GET", path="/models", query=b"", scheme="http"):
    """Scope and headers of a request."""
    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    scope = {"type": "http", "method": method, "path": path, "query_string": query,
             "scheme": scheme, "headers": raw}  # fmt: skip
    return scope, Headers(raw=raw)


def refused(check, *given):
    """Status, code and words of a refusal; None where it passes."""
    try:
        check(*given)
    except Refusal as refusal:
        return refusal.status_code, refusal.code, refusal.detail
    return None


# hosts


def test_names_of_this_service_are_lower_case_without_brackets_and_no_wildcard():
    settings = SimpleNamespace(host="0.0.0.0", hosts=("GAP.lan", "[FE80::1]", "::", ""))
    assert hosts_of(settings) == {"127.0.0.1", "localhost", "::1", "gap.lan", "fe80::1"}
    assert "192.168.1.5" in hosts_of(SimpleNamespace(host="192.168.1.5", hosts=()))


@pytest.mark.parametrize(
    ("hosts", "got"),
    [
        (["b"], None), (["B:1"], None), (["a:65535"], None), (["[::1]:0"], None),
        ([], "none"), (["c"], "c"), (["a", "b"], "a, b"), (["a:65536"], "a:65536"),
        (["a:"], "a:"), (["a b"], "a b"), (["[x]"], "[x]"),
    ],
)  # fmt: skip
def test_one_known_host_is_wanted(hosts, got):
    found = refused(check_host, asked(*[("host", host) for host in hosts])[1], {"b", "a", "::1"})
    words = None if got is None else (
        400,
        "wrong_host",
        f"wanted one Host of ::1, a, b, got {got}. "
        "Names under which this service may be reached are set in GAP_HOSTS.",
    )  # fmt: skip
    assert found == words


# origins


@pytest.mark.parametrize(
    ("method", "host", "origins", "scheme", "why"),
    [
        ("POST", "a:80", ["http://a"], "http", None),
        ("POST", "a", ["HTTP://A:80"], "http", None),
        ("POST", "a", ["https://a:443"], "https", None),
        ("POST", "a", [], "http", None),
        ("POST", "a", ["http://a", "http://a:80"], "http", None),
        ("GET", "a", ["http://evil"], "http", None),
        ("HEAD", "a", ["http://evil"], "http", None),
        ("OPTIONS", "a", ["http://evil"], "http", None),
        ("POST", "a", ["http://evil"], "http", "Origin http://evil"),
        ("POST", "a", ["https://a"], "http", "Origin https://a"),
        ("POST", "a", ["http://a:443"], "https", "Origin http://a:443"),
        ("POST", "a", ["ftp://a"], "http", "Origin ftp://a"),
        ("POST", "a", ["http://a://a"], "http", "Origin http://a://a"),
        ("POST", "a", ["http://a", "null"], "http", "Origin null"),
        ("POST", "a", ["null", "http://a"], "http", "Origin null"),
    ],
)
def test_a_write_comes_from_its_own_origin(method, host, origins, scheme, why):
    headers = [("host", host), *[("origin", origin) for origin in origins]]
    found = refused(check_origin, *asked(*headers, method=method, scheme=scheme))
    assert found == (why and from_elsewhere(why))


@pytest.mark.parametrize(
    ("method", "site", "mode", "dest", "passes"),
    [
        ("GET", "cross-site", "navigate", "document", True),
        ("GET", "cross-site", "navigate", None, True),
        ("HEAD", "same-site", "navigate", "document", True),
        ("GET", "cross-site", "navigate", "iframe", False),
        ("GET", "cross-site", "cors", "document", False),
        ("GET", "cross-site", None, None, False),
        ("POST", "cross-site", "navigate", "document", False),
        ("POST", "same-origin", "cors", "empty", True),
        ("POST", "none", None, None, True),
        ("POST", None, None, None, True),
    ],
)
def test_another_site_may_link_and_no_more(method, site, mode, dest, passes):
    fetch = {"sec-fetch-site": site, "sec-fetch-mode": mode, "sec-fetch-dest": dest}
    headers = [("host", "a"), *[(name, value) for name, value in fetch.items() if value]]
    found = refused(check_origin, *asked(*headers, method=method))
    assert found == (None if passes else from_elsewhere(f"Sec-Fetch-Site {site}"))
    assert comes_by_link(asked(*headers)[1]) == (site in ("cross-site", "same-site"))


def from_elsewhere(what):
    words = "wanted a request from this service's own pages or from a program, got one with "
    return 403, "cross_origin", f"{words}{what}. Send it from here."


# types of bodies


@pytest.mark.parametrize(
    ("method", "headers", "got"),
    [
        *[("POST", [("content-type", kind), ("content-length", "1")], None) for kind in (
            "application/json", "application/octet-stream", "Application/JSON ; charset=utf-8",
            "application/json;charset=utf-8",
            "application/vnd.apache.arrow.stream", "image/jpeg", "image/png", "image/webp")],
        ("POST", [], None),
        ("POST", [("content-length", "0")], None),
        ("GET", [("content-type", "text/plain")], None),
        ("POST", [("content-length", "1")], "none"),
        ("POST", [("transfer-encoding", "chunked")], "none"),
        ("POST", [("content-type", "text/plain")], "text/plain"),
        ("POST", [("content-type", "text/plain; application/json")],
         "text/plain; application/json"),
        ("POST", [("content-type", "application/json")] * 2, "application/json, application/json"),
    ],
)  # fmt: skip
def test_a_body_is_of_a_type_that_no_form_sends(method, headers, got):
    words = (
        "wanted a body of Content-Type application/json, or what /docs names for the route, got "
        f"{got}. Name it."
    )
    found = refused(check_type, *asked(*headers, method=method))
    assert found == (got and (415, "wrong_content_type", words))


# tokens


TOKEN_WANTED = (
    401,
    "token_wanted",
    {"WWW-Authenticate": "Bearer"},
    "wanted the token of this service, got none, or another one. In a browser: open the address "
    "that has it, which whoever runs the service gets from `gapscope token` (docker compose exec "
    "service gapscope token). Elsewhere: send it as `Authorization: Bearer TOKEN`.",
)


def enters(access, *headers, **request):
    """Whether a request is let in, led on or refused."""
    try:
        answer = access.check(*asked(*headers, **request))
    except Refusal as refusal:
        said = refusal.status_code, refusal.code, refusal.headers, refusal.detail
        return "refused" if said == TOKEN_WANTED else said
    return "in" if answer is None else answer.headers["location"]


@pytest.mark.parametrize(
    ("authorization", "enters_"),
    [
        ([f"Bearer {TOKEN}"], "in"), ([f"bearer  {TOKEN} "], "in"), ([], "refused"),
        ([TOKEN], "refused"), ([f"Basic {TOKEN}"], "refused"), ([f"Bearer {TOKEN}x"], "refused"),
        ([f"Bearer {TOKEN}"] * 2, "refused"), (["Bearer \xe9"], "refused"),
    ],
)  # fmt: skip
def test_a_program_brings_the_token(authorization, enters_):
    headers = [("authorization", value) for value in authorization]
    assert enters(Access(TOKEN), *headers) == enters_
    assert {"/health", "/ready"} == FREE
    for path in FREE:
        assert enters(Access(TOKEN), path=path) == "in"
    assert enters(Access(None)) == "in"
    assert enters(Access(TOKEN), ("authorization", "x")) == "refused"


def test_a_browser_is_given_a_cookie_that_only_its_token_makes():
    access, other = Access(TOKEN), Access(TOKEN[::-1])
    query = f"a=&token={TOKEN}&b=%26&token=x".encode()
    answer = access.check(*asked(path="//X\\a b", query=query))
    assert (answer.status_code, answer.headers["location"]) == (303, "/X%5Ca%20b?a=&b=%26")
    assert answer.headers["cache-control"] == "no-store"
    name, value = answer.headers["set-cookie"].split("; ")[0].split("=")
    assert answer.headers["set-cookie"] == f"{name}={value}; HttpOnly; Path=/; SameSite=strict"
    assert (name, value) == (access.cookie, access._value)
    # as they stand in browsers by now: another version must not shut them out
    assert name == "gapscope-b140421a57af"
    assert value == "3e566a3ab3a423b80c2b9442fde91c8fb91a219bc31604e6b75a3ab634e72a9b"
    assert enters(access, ("cookie", f"{name}={value}")) == "in"
    assert enters(access, ("cookie", "a=b"), ("cookie", f"{name}={value}")) == "in"
    assert enters(access, ("cookie", f"{name}={value}"), query=query) == "/models?a=&b=%26"
    bearer = ("authorization", f"Bearer {TOKEN}")
    assert enters(access, bearer, query=f"token={TOKEN}".encode()) == "/models"
    assert enters(access, bearer, query=b"token=x") == "in"
    assert other.cookie != access.cookie
    for cookie in (f"{name}={value[:-1]}", f"{other.cookie}={value}", f"{name}=", "\ud800"):
        assert enters(access, ("cookie", cookie.encode("utf-8", "surrogatepass").decode("latin-1"))
                      ) == "refused"  # fmt: skip
    for method, given in (("POST", TOKEN), ("HEAD", TOKEN), ("GET", ""), ("GET", "\xe9")):
        found = enters(access, method=method, query=f"token={given}".encode("latin-1"))
        assert found == "refused"
    assert enters(access, query=f"other={TOKEN}".encode()) == "refused"


def test_an_access_without_a_token_has_no_cookie():
    assert (Access(None).cookie, Access(None)._value) == ("", "")


WEAK = (
    "wanted in GAP_TOKEN a token of at least 128 random bits (22 characters of A-Z a-z 0-9 _ -, or "
    "32 hexadecimal digits), got {}. Make one: python -c 'import secrets; "
    "print(secrets.token_urlsafe(32))'."
)


@pytest.mark.parametrize(
    ("token", "fault"),
    [
        ("", "other characters, or none"),
        (TOKEN + ".", "other characters, or none"),
        (TOKEN[:21], "21 characters"),
        ("9f86d081884c7d659a2feaa0c55ad01", "31 characters"),
        ("9F86D081884C7D659A2FEAA0C55AD01", "31 characters"),
        ("31415926535897932384626433832795028841", "38 characters"),
        ("zqmxvtkrbwhynpcfjdlgsaeoiu"[:26] + "z", "27 characters"),
        ("ZQMXVTKRBWHYNPCFJDLGSAEOIUZ", "27 characters"),
        ("z1q2m3x4v5t6k7r8b9w0hyne", "24 characters"),
        ("Z1Q2M3X4V5T6K7R8B9W0HYNE", "24 characters"),
        ("zQmXvTkRbWhYnPcFjDlGsAe"[:22], "22 characters"),
        ("aKz7bQf" * 6, "one that repeats itself"),
        (TOKEN * 2, "one that repeats itself"),
        ("abcdefghijklmnopqrstuvwxyz0123", "one that counts up or down"),
        ("abPQmn12XYde45JKst78Zk3vQ0x7GH", "one that counts up or down"),  # 11 of 30 steps
    ],
)
def test_why_a_token_is_too_weak(token, fault):
    with pytest.raises(WeakToken) as found:
        token_of(Settings(token=SecretStr(token)))
    assert str(found.value) == WEAK.format(fault)


@pytest.mark.parametrize(
    "token",
    [
        TOKEN[:22], "9f86d081884c7d659a2feaa0c55ad015", "9F86D081884C7D659A2FEAA0C55AD015",
        "314159265358979323846264338327950288419", "zqmxvtkrbwhynpcfjdlgsaeoiuzx",
        "z1q2m3x4v5t6k7r8b9w0hyneg", "Z1Q2M3X4V5T6K7R8B9W0HYNEG", "zQmXvTkRbWhYnPcFjDlGsAe",
        "abPQmn12XYde45JKst78Zk3vQ0x7Jw",  # counts up in 10 of 30 steps
        "aKz7bQf8aKzb7Qf87zaKbfQ8",  # eight different ones are enough
    ],
)  # fmt: skip
def test_what_is_just_strong_enough(token):
    assert token_of(Settings(token=SecretStr(token))) == token


def test_a_token_file_is_read_whole_and_no_further(tmp_path):
    file = tmp_path / "folder" / "of" / "token"
    settings = Settings(host="0.0.0.0", token_file=file)
    token = token_of(settings)
    assert file.read_text() == token + "\n"
    assert len(token) == 43
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.write_text(f"  {TOKEN}\n\n" + " " * 2000 + "more")
    assert token_of(settings) == TOKEN
    file.write_bytes(b"\xff" * 40)
    with pytest.raises(WeakToken, match=f"wanted in {file} a token"):
        token_of(settings)
    file.chmod(0o640)
    words = f"wanted a file in {file} that its owner alone may read, got -rw-r-----. chmod 600 "
    with pytest.raises(OpenTokenFile) as found:
        token_of(settings)
    assert str(found.value) == f"{words}{file}"


def test_a_half_written_token_file_is_not_left(tmp_path, monkeypatch):
    drafts = []

    def full(descriptor):
        drafts.extend(tmp_path.iterdir())
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    monkeypatch.setattr(secrets, "token_hex", lambda n: "ab" * n)
    with pytest.raises(BadSetting, match="No space"):
        token_of(Settings(token_file=tmp_path / "token"))
    assert [one.name for one in drafts] == [".token.abababababababab"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("host", "wants"),
    [("127.0.0.1", False), ("127.1.2.3", False), ("::1", False), ("localhost", False),
     ("0.0.0.0", True), ("192.168.1.5", True), ("example.org", True)],
)  # fmt: skip
def test_who_can_be_reached_wants_a_token(host, wants):
    settings = Settings(host=host)
    if not wants:
        assert token_of(settings) is None
        return
    with pytest.raises(TokenWanted) as found:
        token_of(settings)
    assert str(found.value) == (
        f"wanted a token, since others can reach {host}, got none. Set GAP_TOKEN_FILE to a file, "
        "which is made where it is not there, or GAP_TOKEN; or leave GAP_HOST at 127.0.0.1."
    )


@pytest.mark.parametrize(
    ("host", "token", "shown"),
    [("0.0.0.0", "t", "http://127.0.0.1:8/?token=t"), ("::", None, "http://[::1]:8/"),
     ("fe80::1", None, "http://[fe80::1]:8/"), ("a.lan", "", "http://a.lan:8/")],
)  # fmt: skip
def test_the_address_opens_in_a_browser_of_this_machine(host, token, shown):
    assert address(Settings(host=host, port=8), token) == shown


def test_an_answer_that_breaks_off_halfway_is_not_followed_by_another(caplog):
    """The server cuts the connection, so that nobody takes the half for the whole."""
    sent, counted = [], []

    async def half(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise ZeroDivisionError("halfway")

    async def send(message):
        sent.append(message["type"])

    def observe(*told):
        counted.append(told)

    door = Door(half, settings=Settings(), token=None, gates=Gates(), observe=observe)
    scope, _ = asked(("host", "127.0.0.1"))
    # on a thread of its own: tests in a browser leave an event loop running on this one
    with ThreadPoolExecutor(1) as pool, pytest.raises(ZeroDivisionError):
        pool.submit(lambda: asyncio.run(door(scope, None, send))).result()
    assert sent == ["http.response.start"]
    assert [told[:3] for told in counted] == [("GET", "none", 200)]
    assert "a fault of Gapscope" in caplog.text


def test_a_token_file_that_cannot_be_made_or_is_a_pipe_is_said_to_be_so(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(OpenTokenFile, match="got prw-------"):
        token_of(Settings(token_file=tmp_path / "pipe"))

    def closed(*_given):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", closed)
    with pytest.raises(BadSetting, match="Permission denied"):  # not that its draft is not there
        token_of(Settings(token_file=tmp_path / "token"))
