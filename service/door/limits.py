"""How much a request may bring, and how many are in work at once."""

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope

from service.door.refusals import Refusal
from service.door.token import FREE

HEADERS = 100
HEADER_BYTES = 32 << 10
TARGET_BYTES = 8 << 10
BODY_BYTES = {"/predict/arrow": 8 << 30, "/predict/image": 32 << 20}
OTHER_BODY_BYTES = 8 << 20  # JSON is parsed on the event loop, where all others wait
JSON_DEPTH = 64
# A body of 8 MB holds 3 million empty lists, which take 250 MB once they are parsed.
JSON_MARKS = 20_000  # lists, objects and names of their members; /predict takes 10,000 lists
JSON_VALUES = {"/predict": 800_000}  # 780 rows of 1,024 numbers
OTHER_JSON_VALUES = 20_000
# Each holds one thread at most, so that nobody waits for one; all computing that takes long is in
# POSTs, and few of those fill two cores.
AT_ONCE = {"read": 64, "work": 16, "events": 64}
THREADS = sum(AT_ONCE.values())
_ESCAPED = re.compile(rb"\\.", re.DOTALL)
_NO_STRUCTURE = bytes(set(range(256)) - set(b'[]{}",:'))


def check_size(scope: Scope) -> None:
    """Refuse giant addresses and headers, and a body of two lengths.

    Raises
    ------
    Refusal
    """
    target = len(scope.get("raw_path") or b"") + len(scope["query_string"])
    if target > TARGET_BYTES:
        raise Refusal(
            414, "address_too_long",
            f"wanted an address of at most {TARGET_BYTES:,} bytes, got {target:,}. Shorten it.",
        )  # fmt: skip
    headers = scope["headers"]
    n_bytes = sum(len(name) + len(value) for name, value in headers)
    if len(headers) > HEADERS or n_bytes > HEADER_BYTES:
        raise Refusal(
            431, "headers_too_large",
            f"wanted at most {HEADERS} headers of {HEADER_BYTES:,} bytes together, got "
            f"{len(headers):,} of {n_bytes:,}. Send fewer.",
        )  # fmt: skip
    if {b"content-length", b"transfer-encoding"} <= {name for name, _ in headers}:
        raise Refusal(  # where a proxy goes by the other one, it takes a body for a request
            400, "bad_http",
            "wanted a body with a length or in chunks, got one with both headers. Send one.",
            {"Connection": "close"},
        )  # fmt: skip


def within(scope: Scope, headers: Headers, receive: Receive) -> Receive:
    """Let a body through up to its limit; what is refused raises where the body is read."""
    limit = BODY_BYTES.get(scope["path"], OTHER_BODY_BYTES)
    said = headers.get("content-length", "0")
    is_json = headers.get("content-type", "").split(";")[0].strip().lower() == "application/json"
    most_values = JSON_VALUES.get(scope["path"], OTHER_JSON_VALUES)
    shape = _Shape()
    n_bytes = 0

    async def receive_within() -> Message:
        nonlocal n_bytes
        message = await receive()
        piece = message.get("body", b"")
        n_bytes += len(piece)
        if n_bytes > limit or (said.isdigit() and int(said) > limit):
            raise Refusal(
                413, "body_too_large",
                f"wanted a body of at most {limit:,} bytes, got more. Send it in parts.",
            )  # fmt: skip
        if not is_json:
            return message
        shape.add(piece)
        if shape.deepest > JSON_DEPTH:
            raise Refusal(
                422, "too_deep",
                f"wanted JSON at most {JSON_DEPTH} lists and objects deep, got a deeper one. "
                "Flatten it.",
            )  # fmt: skip
        if b"\0" in piece:  # no text of JSON has one, but in UTF-16, whose quotes are told wrong
            raise Refusal(
                400, "not_utf8", "wanted JSON in UTF-8, got zero bytes. Encode it as UTF-8."
            )  # fmt: skip
        if shape.marks > JSON_MARKS or shape.values > most_values:
            raise Refusal(
                413, "too_many_values",
                f"wanted JSON of at most {JSON_MARKS:,} lists, objects and names and of "
                f"{most_values:,} values, got more. Send it in parts, or rows to /predict/arrow.",
            )  # fmt: skip
        return message

    return receive_within


class _Shape:
    """What JSON would take once parsed, told before: a parser recurses, and so do writers.

    Attributes
    ----------
    deepest : how deep it is nested
    marks : how many lists, objects, and names of members it has
    values : how many commas, which is about how many numbers and texts
    """

    def __init__(self) -> None:
        self.deepest = self.marks = self.values = 0
        self._depth = 0
        self._in_text = self._escapes = False

    def add(self, piece: bytes) -> None:
        """Take in the next piece of it."""
        if self._escapes and piece:
            piece, self._escapes = piece[1:], False
        if b"\\" in piece:
            piece = _ESCAPED.sub(b"", piece)
            self._escapes = piece.endswith(b"\\")
        for i, part in enumerate(piece.translate(None, _NO_STRUCTURE).split(b'"')):
            self._in_text ^= i > 0
            if self._in_text:
                continue
            self.values += part.count(b",")
            self.marks += sum(map(part.count, (b"[", b"{", b":")))
            for mark in part.translate(None, b",:"):
                self._depth += 1 if mark in b"[{" else -1
                self.deepest = max(self.deepest, self._depth)


class Gates:
    """Counts the requests in work, by what they ask for; more than there is room for are refused.

    Without threads or locks: all of it happens on the event loop.
    """

    def __init__(self) -> None:
        self._n: Counter[str] = Counter()

    def is_full(self, n_under_way: int) -> bool:
        """Whether so many requests leave no room, counted before it is known what they ask for."""
        return n_under_way - self._n["events"] >= AT_ONCE["read"] + AT_ONCE["work"]

    @contextmanager
    def passed(self, scope: Scope) -> Iterator[None]:
        """Hold a place while a request is in work.

        Raises
        ------
        Refusal
        """
        if scope["path"] in FREE:
            yield
            return
        kind = "work" if scope["method"] == "POST" else "read"
        kind = "events" if scope["path"] == "/jobs/events" else kind
        if self._n[kind] >= AT_ONCE[kind]:
            raise Refusal(
                503, "overloaded",
                f"wanted at most {AT_ONCE[kind]} such requests at once, got one more. Try again "
                "in a second.",
                {"Retry-After": "1"},
            )  # fmt: skip
        self._n[kind] += 1
        try:
            yield
        finally:
            self._n[kind] -= 1
