"""Who may come in: a token where the service is reached from elsewhere, a cookie for a browser.

A program sends the token with each request; a browser gives it once, in the address that `gapscope
token` prints, and keeps a cookie. The cookie is a MAC of the token: a browser sends it to every
port of this machine, and whoever reads it there has no token.
"""

import hashlib
import hmac
import ipaddress
import math
import os
import re
import secrets
import stat
from collections import Counter
from itertools import pairwise
from pathlib import Path
from urllib.parse import parse_qsl, quote, urlencode

from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.responses import RedirectResponse, Response
from starlette.types import Scope

from service.door.refusals import Refusal
from service.errors import BadSetting, OpenTokenFile, TokenWanted, WeakToken
from service.settings import Settings

FREE = frozenset({"/health", "/ready"})
_BITS = 128
_MADE_BYTES = 32
_DISTINCT = 8  # of 22 random characters 19 differ, of 32 hexadecimal digits 14
_FILE_BYTES = 1024
_ALPHABETS = (("[0-9]+", 10), ("[0-9a-f]+|[0-9A-F]+", 16), ("[a-z]+|[A-Z]+", 26),
              ("[0-9a-z]+|[0-9A-Z]+", 36), ("[A-Za-z]+", 52), ("[A-Za-z0-9_-]+", 64))  # fmt: skip
_HOW = (
    "wanted the token of this service, got none, or another one. In a browser: open the address "
    "that has it, which whoever runs the service gets from `gapscope token` (docker compose exec "
    "service gapscope token). Elsewhere: send it as `Authorization: Bearer TOKEN`."
)


def token_of(settings: Settings) -> str | None:
    """Return the token that requests must bring; None: none, on this machine's own address.

    Raises
    ------
    TokenWanted
        Others would reach the service, and it has no token.
    WeakToken, OpenTokenFile
        The token can be guessed, or its file be read by others.
    BadSetting
        Its file can be neither read nor made.
    """
    if settings.token is not None:
        token = settings.token.get_secret_value()
        _check_strength(token, "GAP_TOKEN")
        return token
    if settings.token_file is not None:
        try:
            if not settings.token_file.exists():
                _make(settings.token_file)
            token = _read(settings.token_file)
        except OSError as error:  # a folder, a link to nowhere, a place where none may write
            raise BadSetting(
                f"wanted in GAP_TOKEN_FILE a file that can be read, or made, got "
                f"{settings.token_file}: {error.strerror}. Name another one."
            ) from error
        _check_strength(token, str(settings.token_file))
        return token
    if not _is_loopback(settings.host):
        raise TokenWanted(
            f"wanted a token, since others can reach {settings.host}, got none. Set GAP_TOKEN_FILE "
            "to a file, which is made where it is not there, or GAP_TOKEN; or leave GAP_HOST at "
            "127.0.0.1."
        )
    return None


def address(settings: Settings, token: str | None) -> str:
    """Return the address to open in a browser of this machine.

    Examples
    --------
    >>> address(Settings(host="0.0.0.0", port=8000), "secret")
    'http://127.0.0.1:8000/?token=secret'
    """
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.host, settings.host)
    host = f"[{host}]" if ":" in host and not host.startswith("[") else host
    return f"http://{host}:{settings.port}/" + (f"?token={token}" if token else "")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name: what it stands for is up to the network, but for this one
        return host == "localhost"


def _check_strength(token: str, source: str) -> None:
    sizes = [size for alphabet, size in _ALPHABETS if re.fullmatch(alphabet, token)]
    fault = None
    if not sizes:
        fault = "other characters, or none"
    elif len(token) * math.log2(sizes[0]) < _BITS:
        fault = f"{len(token)} characters"
    elif len(set(token)) < _DISTINCT or (token + token).find(token, 1) < len(token):
        fault = "one that repeats itself"
    elif _most_frequent_step(token) > len(token) // 3:
        fault = "one that counts up or down"
    if fault is not None:  # never the token itself: this is printed
        raise WeakToken(
            f"wanted in {source} a token of at least {_BITS} random bits (22 characters of A-Z a-z "
            f"0-9 _ -, or 32 hexadecimal digits), got {fault}. Make one: python -c 'import "
            "secrets; print(secrets.token_urlsafe(32))'."
        )


def _most_frequent_step(token: str) -> int:
    steps = Counter(ord(b) - ord(a) for a, b in pairwise(token))
    return steps.most_common(1)[0][1]


def _make(file: Path) -> None:
    """Make a token's file as a whole: no reader finds half of it, of two makers one wins."""
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f".{file.name}.{secrets.token_hex(8)}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
            out.write(secrets.token_urlsafe(_MADE_BYTES) + "\n")
            out.flush()
            os.fsync(out.fileno())
        os.link(draft, file)  # unlike a rename, it never replaces one that is in use
    except FileExistsError:
        pass
    finally:
        draft.unlink(missing_ok=True)


def _read(file: Path) -> str:
    # not blocking: a FIFO must not hold up the start
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as opened:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode) or mode & 0o077:
            raise OpenTokenFile(
                f"wanted a file in {file} that its owner alone may read, got "
                f"{stat.filemode(mode)}. chmod 600 {file}"
            )
        return opened.read(_FILE_BYTES).decode("ascii", "replace").strip()


class Access:
    """Lets in whoever has the token.

    Parameters
    ----------
    token : None lets everybody in
    """

    def __init__(self, token: str | None) -> None:
        self._token = None if token is None else token.encode()
        self.cookie, self._value = ("", "")
        if token is not None:
            # named by the token: two services of this machine do not write over each other's
            self.cookie = f"gapscope-{self._mac('name')[:12]}"
            self._value = self._mac("page")

    def _mac(self, purpose: str) -> str:
        assert self._token is not None
        return hmac.new(self._token, f"gapscope {purpose}".encode(), hashlib.sha256).hexdigest()

    def check(self, scope: Scope, headers: Headers) -> Response | None:
        """Let a request in (None), or answer it: a browser that brought the token gets its cookie.

        `scope["path"]` is what the router goes by; `request.url` would be made of the Host header.

        Raises
        ------
        Refusal
        """
        if self._token is None or scope["path"] in FREE:
            return None
        if self._has_bearer(headers) or self._has_cookie(headers):
            return None if not self._brings_token(scope) else self._welcome(scope)
        if self._brings_token(scope):
            return self._welcome(scope)
        raise Refusal(401, "token_wanted", _HOW, {"WWW-Authenticate": "Bearer"})

    def _has_bearer(self, headers: Headers) -> bool:
        given = headers.getlist("authorization")
        kind, _, token = given[0].partition(" ") if len(given) == 1 else ("", "", "")
        return kind.lower() == "bearer" and self._is_token(token.strip())

    def _has_cookie(self, headers: Headers) -> bool:
        given = cookie_parser("; ".join(headers.getlist("cookie"))).get(self.cookie, "")
        return hmac.compare_digest(_bytes(given), self._value.encode())

    def _brings_token(self, scope: Scope) -> bool:
        if scope["method"] != "GET":
            return False
        return any(name == "token" and self._is_token(value) for name, value in _query(scope))

    def _is_token(self, given: str) -> bool:
        assert self._token is not None
        return hmac.compare_digest(_bytes(given), self._token)

    def _welcome(self, scope: Scope) -> Response:
        """Lead to the same address without the token, which then stands in no history."""
        query = urlencode([(name, value) for name, value in _query(scope) if name != "token"])
        # one slash: //host would lead elsewhere
        where = "/" + quote(scope["path"].lstrip("/\\")) + (f"?{query}" if query else "")
        answer = RedirectResponse(where, 303, {"Cache-Control": "no-store"})
        answer.set_cookie(self.cookie, self._value, httponly=True, samesite="strict", path="/")
        return answer


def _query(scope: Scope) -> list[tuple[str, str]]:
    return parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)


def _bytes(given: str) -> bytes:
    return given.encode("utf-8", "surrogatepass")
