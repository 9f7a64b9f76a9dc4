"""From where a request comes: what a page of another site would have a browser send is refused.

Another site's page can send requests here, with the cookie of whoever reads it, or, after its name
was bound to this machine's address, read the answers. Neither passes: the first by Origin, Sec-
Fetch-Site and types of bodies that no form can send, the second by Host.
"""

import re
from collections.abc import Iterable

from starlette.datastructures import Headers
from starlette.types import Scope

from service.door.refusals import Refusal
from service.settings import Settings

_OWN = frozenset({"127.0.0.1", "localhost", "::1"})
_WILDCARDS = frozenset({"0.0.0.0", "::", ""})
_HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([a-z0-9._-]+))(?::([0-9]{1,5}))?")
_PORTS = {"http": 80, "https": 443}
_HERE = frozenset({"same-origin", "none"})
READS = frozenset({"GET", "HEAD", "OPTIONS"})
# that a form cannot send, so that a browser asks first whether it may, and is told nothing
_TYPES = frozenset(
    {
        "application/json",
        "application/octet-stream",
        "application/vnd.apache.arrow.stream",
        "image/jpeg",
        "image/png",
        "image/webp",
    }
)


def hosts_of(settings: Settings) -> frozenset[str]:
    """Names under which this service answers: this machine's, the one bound to, GAP_HOSTS."""
    named = {name.lower().strip("[]") for name in (settings.host, *settings.hosts)}
    return _OWN | (named - _WILDCARDS)


def check_host(headers: Headers, hosts: Iterable[str]) -> None:
    """Refuse a request that was meant for another host: a name may be bound to any address.

    Raises
    ------
    Refusal
    """
    given = headers.getlist("host")
    name = _host(given[0])[0] if len(given) == 1 else None
    if name is None or name not in hosts:
        raise Refusal(
            400,
            "wrong_host",
            f"wanted one Host of {', '.join(sorted(hosts))}, got {', '.join(given) or 'none'}. "
            "Names under which this service may be reached are set in GAP_HOSTS.",
        )


def check_origin(scope: Scope, headers: Headers) -> None:
    """Refuse what a page of another site asks for, but for its links: see `comes_by_link`.

    Raises
    ------
    Refusal
    """
    is_read = scope["method"] in READS
    site = headers.get("sec-fetch-site", "none")
    is_link = headers.get("sec-fetch-mode") == "navigate" and (
        headers.get("sec-fetch-dest", "document") == "document"
    )
    if site not in _HERE and not (is_read and is_link):
        raise _from_elsewhere(f"Sec-Fetch-Site {site}")
    if is_read:
        return
    mine = (scope["scheme"], *_host(headers["host"], _PORTS.get(scope["scheme"])))
    for origin in headers.getlist("origin"):
        scheme, _, host = origin.lower().partition("://")
        if (scheme, *_host(host, _PORTS.get(scheme))) != mine:
            raise _from_elsewhere(f"Origin {origin}")


def comes_by_link(headers: Headers) -> bool:
    """Whether a page of another site led a browser here, by a link or a script of its own."""
    return headers.get("sec-fetch-site", "none") not in _HERE


def check_type(scope: Scope, headers: Headers) -> None:
    """Refuse a write whose body is of a type that a form can send, or of none.

    Raises
    ------
    Refusal
    """
    if scope["method"] in READS:
        return
    given = headers.getlist("content-type")
    has_body = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
    if not given and not has_body:
        return
    kind = given[0].split(";")[0].strip().lower() if len(given) == 1 else ""
    if kind not in _TYPES:
        raise Refusal(
            415,
            "wrong_content_type",
            "wanted a body of Content-Type application/json, or what /docs names for the route, "
            f"got {', '.join(given) or 'none'}. Name it.",
        )


def _host(given: str, default: int | None = None) -> tuple[str | None, int | None]:
    """Take a Host apart: name and port; no name where it is none."""
    found = _HOST.fullmatch(given.lower())
    if found is None or (port := int(found[3] or default or 0)) > 65535:
        return None, None
    return found[1] or found[2], port


def _from_elsewhere(what: str) -> Refusal:
    return Refusal(
        403,
        "cross_origin",
        f"wanted a request from this service's own pages or from a program, got one with {what}. "
        "Send it from here.",
    )
