"""What a report.json may ask of a service: addresses that read, from a fixed list, and views.

The file may come from anywhere, so that nothing in it is followed but what stands here: an address
is one of these forms with names of models and splits in it, a view is one of sql/, its columns are
its own, and values are bound, never written into a query.
"""

import asyncio
import json
import re
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote, urlencode

from pydantic_core import to_jsonable_python
from starlette.types import ASGIApp

from etl.database import quoted, sql_files
from service.database import Database
from service.errors import BadReport
from service.gap import PARTS
from service.report.numbers import VIEW, parsed_address
from service.schemas import NAME

_WHO = "gapscope reproduce"
_ENDS = frozenset({"reference", "target"})
_PAGE = frozenset({"kind", "where", "order", "page", "per_page"})
_ID = r"[0-9a-f]{12}"
_MODEL = NAME.strip("^$")
# how what stands there comes to be, when it is asked for afresh
ANEW, RECORD, TRAINING, DATA = "anew", "record", "training", "data"
_FORMS: tuple[tuple[str, frozenset[str], str], ...] = (
    ("/splits", frozenset(), DATA),
    ("/annotations", frozenset(), DATA),
    ("/lines", frozenset(), DATA),
    ("/models", frozenset(), TRAINING),
    (f"/models/({_MODEL})", frozenset(), TRAINING),
    (f"/models/({_MODEL})/(?:leaderboard|curves)", frozenset(), TRAINING),
    (f"/models/({_MODEL})/audit", frozenset(), ANEW),
    (f"/gap/({_MODEL})", _ENDS | {"top"}, ANEW),
    (f"/gap/({_MODEL})/({'|'.join(PARTS)})", _ENDS, ANEW),
    (f"/gap/({_MODEL})/(images)/list", _ENDS | _PAGE, ANEW),
    (f"/selftest/({_MODEL})", frozenset({"reference"}), RECORD),
    ("/hypotheses", frozenset(), RECORD),
    (f"/hypotheses/{_ID}", frozenset(), RECORD),
    ("/seals", frozenset(), RECORD),
    (f"/seals/{_ID}", frozenset(), RECORD),
)
_LONGEST = 2_000
_GROWS = "test_look"  # a line is added by every read, also by this one
_SHOWN = 80


@dataclass(frozen=True)
class Ask:
    """One address, as far as it was understood.

    Attributes
    ----------
    path, query : of it; the path decoded, a view's as view:NAME
    how : how what stands there comes to be: one of the words above
    model, part : named in it, if any
    """

    path: str
    query: Mapping[str, str]
    how: str
    model: str | None = None
    part: str | None = None

    @property
    def view(self) -> str | None:
        """Name of the view, if it is one."""
        return self.path.removeprefix(VIEW) if self.path.startswith(VIEW) else None


def views() -> list[str]:
    """Names of the tables and views that may be asked for."""
    return [name for file in sql_files() if (name := file.stem[3:]) != _GROWS]


def understood(endpoint: str) -> Ask:
    """Return an address as one of the forms that may be asked for.

    Raises
    ------
    BadReport
        It is none of them.

    Examples
    --------
    >>> understood("/gap/first/ledger?target=v2").part
    'ledger'
    """
    if len(endpoint) > _LONGEST or not endpoint.isprintable():
        raise _unknown(endpoint, f"printable addresses of at most {_LONGEST:,} characters")
    try:
        path, query = parsed_address(endpoint)
    except ValueError:
        raise _unknown(endpoint, "addresses of the service, as /gap/MODEL/ledger") from None
    if path.startswith(VIEW):
        if path.removeprefix(VIEW) not in views():
            raise _unknown(endpoint, f"a view ({', '.join(views())})")
        return Ask(path, query, DATA)
    if not endpoint.startswith(path):  # another scheme or host before it
        raise _unknown(endpoint, "addresses of this service alone, as /gap/MODEL/ledger")
    path = unquote(path)
    for form, names, how in _FORMS:
        found = re.fullmatch(form, path)
        if found is None:
            continue
        if not query.keys() <= names:
            raise _unknown(endpoint, f"{', '.join(sorted(names)) or 'nothing'} after ? there")
        return Ask(path, query, how, *found.groups())
    raise _unknown(
        endpoint,
        "addresses that read what can be computed again: /splits, /annotations, /lines, /models, "
        "/gap, /selftest, /hypotheses, /seals and view:NAME",
    )


def _unknown(endpoint: str, wanted: str) -> BadReport:
    shown = endpoint if len(endpoint) <= _SHOWN else endpoint[:_SHOWN] + "…"
    return BadReport(
        f"wanted {wanted}; got {shown!r} among the endpoints. Nothing was computed: make the "
        "report again, or take it from whoever made it."
    )


def answered(app: ASGIApp, ask: Ask) -> tuple[int, Any]:
    """Ask the service in this process: status, and the JSON of the answer or of the refusal."""
    query = dict(ask.query) | ({"wait": "true"} if ask.path.startswith("/gap/") else {})
    status, body = asyncio.run(_get(app, ask.path, urlencode(query)))
    return status, json.loads(body)


async def _get(app: ASGIApp, path: str, query: str) -> tuple[int, bytes]:
    scope: MutableMapping[str, Any] = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET",
        "scheme": "http", "path": path, "raw_path": quote(path).encode(),
        "query_string": query.encode(), "root_path": "",
        "headers": [(b"host", b"127.0.0.1")],
        "client": (_WHO, 0), "server": ("localhost", 80),
    }  # fmt: skip
    status, body = 0, b""

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: MutableMapping[str, Any]) -> None:
        nonlocal status, body
        status = message.get("status", status)
        body += message.get("body", b"")

    await app(scope, receive, send)
    return status, body


def check_columns(database: Database, ask: Ask) -> None:
    """Refuse columns that a view does not have.

    Raises
    ------
    BadReport, NoDatabase
    """
    if ask.view is None:
        return
    columns = [found["column_name"] for found in database.rows(f"describe {quoted(ask.view)}")]
    unknown = [name for name in ask.query if name not in columns]
    if unknown:
        raise BadReport(
            f"wanted columns of {ask.view} ({', '.join(columns)}), got "
            f"{', '.join(map(repr, unknown[:5]))[:200]}. Nothing was computed: make the report "
            "again, or take it from whoever made it."
        )


def row(database: Database, ask: Ask) -> dict[str, Any] | str:
    """Return the one row of a view with the values asked for, or why there is none.

    The columns are those that `check_columns` let pass.
    """
    assert ask.view is not None
    conditions = " and ".join(f"cast({quoted(name)} as varchar) = ?" for name in ask.query)
    found = database.rows(
        f"select * from {quoted(ask.view)} {'where ' + conditions if conditions else ''} limit 2",
        list(ask.query.values()),
    )
    if len(found) == 1:
        return dict(to_jsonable_python(found[0]))
    return f"{ask.view} has {'no row' if not found else 'several rows'} with these values"
