"""What a browser may do with an answer: headers on each, refusals and faults among them."""

import base64
import hashlib
import re

from starlette.datastructures import MutableHeaders
from starlette.types import Message

_NOWHERE = "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
_PAGE = (
    "default-src 'none'; script-src 'self'{scripts}; style-src 'self'{styles}; "
    f"img-src 'self' data:; connect-src 'self'; {_NOWHERE}"
)
_PAGE_POLICY = _PAGE.format(scripts="", styles="")
_OTHER_POLICY = "default-src 'none'; frame-ancestors 'none'"
_CSP = "content-security-policy"
HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}
_INLINE = re.compile(r"<(script|style)(?:\s[^>]*)?>(.*?)</\1>", re.DOTALL)


def guard(start: Message, request_id: str) -> None:
    """Add to the start of an answer what keeps browsers from more than showing it."""
    headers = MutableHeaders(scope=start)
    for name, value in HEADERS.items():
        headers[name] = value
    is_page = headers.get("content-type", "").startswith("text/html")
    headers.setdefault(_CSP, _PAGE_POLICY if is_page else _OTHER_POLICY)
    headers["x-request-id"] = request_id


def policy_of(page: str) -> dict[str, str]:
    """Return the header for a page of ours with scripts or styles inside: each by its hash.

    Examples
    --------
    >>> found = policy_of("<script>go()</script>")["Content-Security-Policy"]
    >>> "script-src 'self' 'sha256-" in found, "unsafe" in found
    (True, False)
    """
    hashes = {"script": "", "style": ""}
    for kind, text in _INLINE.findall(page):
        if text:
            digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
            hashes[kind] += f" 'sha256-{digest}'"
    policy = _PAGE.format(scripts=hashes["script"], styles=hashes["style"])
    return {"Content-Security-Policy": policy}
