"""Numbers and sentences of a report with their sources, and the `report.json` that lists them.

A source is an address and a JSON pointer (RFC 6901) into its answer:

    /gap/first/ledger?reference=seen&target=unseen     a GET endpoint of the service
    view:split_summary?split=seen&backbone=pixels      the one row of a view with these values

A number is never typed: it is read from the answer by its pointer and written by its form, so that
text and source cannot disagree, and so that whoever has the data can write it again and compare.
"""

import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

FORMAT = 1
VIEW = "view:"
# when and where it was computed, and how long it took, are no results
_VOLATILE = frozenset(
    {"seconds_s", "mb_per_s", "created_at", "loaded_at", "mtime_ns", "file", "made_at"}
)
_HYPHEN = re.compile(r"(?<![^\s(\[])-(?=\d)")  # that stands for a minus
_MINUS = "−"


@dataclass(frozen=True)
class Source:
    """Where a value stands: an address, and a JSON pointer into its answer."""

    endpoint: str
    pointer: str


@dataclass(frozen=True)
class Number:
    """A value as it stands in an answer, and as it stands in the text.

    Attributes
    ----------
    value : number, text (a sentence of the answer) or None, as in the JSON
    text : how the report writes it
    source : where it stands
    form : one of `FORMS`: `text` is FORMS[form](value)
    """

    value: float | int | str | None
    text: str
    source: Source
    form: str


@dataclass(frozen=True)
class Answer:
    """The JSON of an address, with the state of the data that it was computed in.

    Attributes
    ----------
    endpoint : its address
    content : its JSON, parsed
    digests : sha256 of the data of each split that it rests on
    seed : of what chance there is in it; None where there is none
    """

    endpoint: str
    content: Any
    digests: Mapping[str, str]
    seed: int | None

    def value(self, pointer: str) -> Any:
        """Return what stands at a pointer.

        Raises
        ------
        KeyError
            Nothing does.
        """
        return resolve(self.content, pointer)

    def number(self, pointer: str, form: str) -> Number:
        """Return the value at a pointer, written in a form."""
        value = self.value(pointer)
        return Number(value, FORMS[form](value), Source(self.endpoint, pointer), form)

    def sentence(self, pointer: str) -> Number:
        """Return a sentence of the answer itself."""
        return self.number(pointer, "text")


def resolve(content: Any, pointer: str) -> Any:
    """Return what a JSON pointer leads to.

    Raises
    ------
    KeyError
        It leads nowhere.

    Examples
    --------
    >>> resolve({"terms": [{"a/b": 0.25}]}, "/terms/0/a~1b")
    0.25

    Source: RFC 6901, section 4.
    """
    for token in pointer.split("/")[1:]:
        key = token.replace("~1", "/").replace("~0", "~")
        try:
            content = content[int(key)] if isinstance(content, list) else content[key]
        except (IndexError, KeyError, TypeError, ValueError):
            raise KeyError(pointer) from None
    return content


def token(name: str) -> str:
    """Write a name as one token of a JSON pointer.

    Examples
    --------
    >>> token("a/b~c")
    'a~1b~0c'
    """
    return name.replace("~", "~0").replace("/", "~1")


def address(path: str, **query: str | int | None) -> str:
    """Write the address of an endpoint or a view; what is None is left out.

    Examples
    --------
    >>> address("/gap/first/ledger", reference="test 1", target="v2")
    '/gap/first/ledger?reference=test%201&target=v2'
    >>> address("view:split_summary", split="seen", backbone=None)
    'view:split_summary?split=seen'
    """
    given = {name: value for name, value in query.items() if value is not None}
    return path + ("?" + urlencode(given, quote_via=quote) if given else "")


def parsed_address(endpoint: str) -> tuple[str, dict[str, str]]:
    """Split an address into its path, or `view:NAME`, and its query.

    Examples
    --------
    >>> parsed_address("view:split_summary?split=test%201")
    ('view:split_summary', {'split': 'test 1'})
    """
    if endpoint.startswith(VIEW):
        path, _, query = endpoint.partition("?")
        return path, dict(parse_qsl(query))
    parts = urlsplit(endpoint)
    return parts.path, dict(parse_qsl(parts.query))


def canonical(content: Any) -> bytes:
    """Write an answer so that equal answers are equal bytes, whenever and wherever computed.

    Examples
    --------
    >>> canonical({"b": 1, "a": [0.5, None], "seconds_s": 3.1})
    b'{"a":[0.5,null],"b":1}'
    """
    plain = json.dumps(
        _stable(content), sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False
    )
    return plain.encode()


def _stable(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _stable(value) for key, value in content.items() if key not in _VOLATILE}
    return [_stable(value) for value in content] if isinstance(content, list) else content


def digest(content: Any) -> str:
    """Return the sha256 of an answer in its canonical form."""
    return hashlib.sha256(canonical(content)).hexdigest()


def report_json(
    answers: Sequence[Answer],
    numbers: Sequence[Number],
    *,
    version: str,
    made_at: datetime,
    models: Sequence[str],
    reference: str,
    target: str,
) -> dict[str, Any]:
    """Return what stands in `report.json`: each number in the order of the text, and its source.

    Parameters
    ----------
    answers
        Those that the numbers stand in, and maybe others, which are left out.
    """
    used = {number.source.endpoint for number in numbers}
    return {
        "format": FORMAT,
        "gapscope": version,
        "made_at": made_at.isoformat(timespec="seconds"),
        "models": list(models),
        "reference": reference,
        "target": target,
        "endpoints": {
            answer.endpoint: {
                "digests": dict(answer.digests),
                "seed": answer.seed,
                "sha256": digest(answer.content),
            }
            for answer in answers
            if answer.endpoint in used
        },
        "numbers": [
            {
                "id": f"N{place + 1}",
                "text": number.text,
                "value": number.value,
                "endpoint": number.source.endpoint,
                "pointer": number.source.pointer,
                "form": number.form,
            }
            for place, number in enumerate(numbers)
        ],
    }


def _written(digits: int, factor: float = 1.0, *, sign: bool = False) -> Callable[[Any], str]:
    def write(value: Any) -> str:
        if value is None:
            return "unknown"
        scaled = value * factor
        text = f"{abs(scaled):,.{digits}f}"
        if not any(digit in text for digit in "123456789"):
            return text  # no sign of a zero
        return (_MINUS if scaled < 0 else "+" if sign else "") + text

    return write


def _p_value(value: Any) -> str:
    if value is None:
        return "unknown"
    if value < 0.001:
        return "below .001"
    return f"{value:.3f}"[1:] if value < 0.9995 else "1"


def _significant(value: Any) -> str:
    """Three significant digits, without an exponent."""
    if value is None:
        return "unknown"
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return (_MINUS if value < 0 else "") + f"{abs(value):,.{digits}f}"


def _text(value: Any) -> str:
    return "unknown" if value is None else _HYPHEN.sub(_MINUS, str(value))


FORMS: dict[str, Callable[[Any], str]] = {
    "text": _text,
    "count": _written(0),
    "points": _written(1, 100),
    "points2": _written(2, 100),
    "points_apart": lambda value: _written(1, 100)(None if value is None else abs(value)),
    "points2_apart": lambda value: _written(2, 100)(None if value is None else abs(value)),
    "signed_points": _written(1, 100, sign=True),
    "percent": lambda value: "unknown" if value is None else _written(1, 100)(value) + " %",
    "percent0": lambda value: "unknown" if value is None else _written(0, 100)(value) + " %",
    "number2": _written(2),
    "number3": _written(3),
    "significant": _significant,
    "p": _p_value,
    "date": lambda value: "unknown" if value is None else str(value)[:10],
    "digest": lambda value: "unknown" if value is None else str(value)[:12],
}
