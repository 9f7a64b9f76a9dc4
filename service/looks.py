"""Every read of test labels, written down before it is done: who, when, which model, what for.

    results/looks.jsonl    one line a look; lines are only ever added

Whoever reads labels of a test split must hand over a `Look`; where it cannot be written down, the
read is refused. The view `test_look` shows the same lines to SQL.
"""

import getpass
import json
import os
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from etl.database import LOOKS, RESULTS
from service.errors import LookNotLogged

Purpose = Literal["evaluate", "gap", "hypothesis", "compare", "import", "annotate", "seal", "sql"]
_MODE = 0o644
# set for each request by the service; else the user of the operating system looks
_who: ContextVar[str | None] = ContextVar("who", default=None)


@dataclass(frozen=True)
class Look:
    """Why test labels are read.

    Attributes
    ----------
    model : whose answers they are held against; None where there is no model
    purpose : evaluate (scores), gap (their explanation), hypothesis (a refined head beside its
        baseline), compare (imported predictions against the database), import, annotate (labels
        held against ReaL's), seal (of the reference alone, to predict the target's accuracy), sql
        (a session that may read all)
    """

    model: str | None
    purpose: Purpose


class Looks:
    """The log of one data folder."""

    def __init__(self, data: Path) -> None:
        self._file = data / RESULTS / LOOKS

    def record(self, look: Look, split: str | None, n: int | None) -> None:
        """Write down a look, before the labels are handed over.

        Parameters
        ----------
        split, n
            The test split and its number of labels; None: whatever there is.

        Raises
        ------
        LookNotLogged
        """
        line = json.dumps(
            {
                "looked_at": datetime.now(UTC)
                .isoformat(timespec="milliseconds")
                .removesuffix("+00:00"),
                "who": _who.get() or _user(),
                "model": look.model,
                "split": split,
                "purpose": look.purpose,
                "n": n,
            }
        )
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            place = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, _MODE)
            try:
                # one write to a file opened for appending is never mixed with another's
                written = os.write(place, f"{line}\n".encode())
            finally:
                os.close(place)
        except OSError as error:
            raise LookNotLogged(_refusal(self._file, error.strerror)) from error
        if written <= len(line):
            raise LookNotLogged(_refusal(self._file, f"{written} bytes of {len(line) + 1} written"))

    def count(self) -> int:
        """Return how many looks there were."""
        return len(self.all())

    def all(self) -> list[dict[str, Any]]:
        """Return all looks, newest first; lines that are none, as a full disk leaves, apart."""
        if not self._file.is_file():
            return []
        lines = self._file.read_text(encoding="utf-8", errors="replace").splitlines()
        return [look for line in reversed(lines) if (look := _parsed(line)) is not None]


def look_as(who: str) -> None:
    """Say who looks, from here on in this request."""
    _who.set(who)


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        return dict(json.loads(line))
    except ValueError:
        return None


def _refusal(file: Path, came: str | None) -> str:
    return (
        f"wanted to write down in {file} that test labels are read, got: {came}. They were not "
        "read: make the file writable, or free some space."
    )


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container may run under a number without a name
        return f"uid {os.getuid()}"
