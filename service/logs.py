"""What the service and its workers say, line by line: JSON, or words where a person looks on.

A line belongs to a request or a job, which `about` names once for all that is logged inside, in
threads too. Whatever a request sent is text here: JSON escapes newlines and control characters, so
that nobody writes a line of his own, or colours a terminal.
"""

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

_about: ContextVar[dict[str, Any] | None] = ContextVar("about", default=None)
_TEXT_LENGTH = 2_000  # of a value that came with a request


def configure(level: str = "info", *, plain: bool | None = None) -> None:
    """Send all log lines of this process to stderr.

    Parameters
    ----------
    level
        The least that is told: `debug` tells of every request.
    plain
        Lines for a person; None: where stderr is a terminal.
    """
    handler = logging.StreamHandler()  # stderr
    plain = sys.stderr.isatty() if plain is None else plain
    handler.setFormatter(_Plain() if plain else _Json())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)  # libraries
    logging.getLogger("gapscope").setLevel(level.upper())
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(logging.NOTSET)
    # its lines hold whole addresses, and so a token
    logging.getLogger("uvicorn.access").disabled = True


@contextmanager
def about(**what: Any) -> Iterator[dict[str, Any]]:
    """Name what all lines inside are about, such as `request` or `job`.

    Examples
    --------
    >>> with about(job="7"):
    ...     current("job")
    '7'
    """
    found = {**(_about.get() or {}), **what}
    token = _about.set(found)
    try:
        yield found
    finally:
        _about.reset(token)


def note(**what: Any) -> None:
    """Add to what the lines from here on are about, where there is an `about` around."""
    found = _about.get()
    if found is not None:
        found.update(what)


def current(name: str) -> Any:
    """Return what the lines here are about, None where that is not said."""
    return (_about.get() or {}).get(name)


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    fields = {
        "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
        "level": record.levelname.lower(),
        "logger": record.name,
        "message": record.getMessage(),
        **(_about.get() or {}),
        **getattr(record, "fields", {}),
    }
    if record.exc_info:
        fields["exception"] = logging.Formatter().formatException(record.exc_info)
    return fields


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = _fields(record)
        cut = {k: v[:_TEXT_LENGTH] if isinstance(v, str) else v for k, v in fields.items()}
        if "exception" in fields:  # where it went wrong stands at its end
            cut["exception"] = fields["exception"][-10 * _TEXT_LENGTH :]
        return json.dumps(cut, default=str)


class _Plain(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = _fields(record)
        exception = fields.pop("exception", None)
        words = [fields.pop("time")[11:19], fields.pop("level"), fields.pop("message")]
        del fields["logger"]
        words += [f"{name}={value}" for name, value in fields.items() if value is not None]
        # indented: what stands in an exception is no line of its own
        lines = [" ".join(words), *("    " + line for line in (exception or "").splitlines())]
        return "\n".join(
            "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line) for line in lines
        )
