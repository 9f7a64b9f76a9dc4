"""Records that are only ever added: each with the time, and a sha256 over it and all before it.

    results/<name>.jsonl    one line a record
    results/<name>.head     how many there are, and the hash of the newest

Whoever changes, removes or reorders a stored record breaks the chain from there on, and `broken`
says where; whoever cuts records off the end leaves a head that is not there. A hash is no
signature: who rewrites both files can make a new chain, so that the head of the chain belongs in
the report that rests on it.
"""

import errno
import fcntl
import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from etl.database import RESULTS
from service.disk import Damage
from service.errors import RecordChanged, RecordNotKept

_CHAINS = {name: f"{RESULTS}/{name}.jsonl" for name in ("hypotheses", "seals")}
_log = logging.getLogger("gapscope")
_FIRST = "0" * 64
_MODE = 0o644


@dataclass(frozen=True)
class Record:
    """One record.

    Attributes
    ----------
    added_at : when it was added, UTC, ISO 8601
    kind : what kind of record it is
    content : what it says
    previous : sha256 of the record before it; zeros for the first
    sha256 : of all the others
    """

    added_at: str
    kind: str
    content: dict[str, Any]
    previous: str
    sha256: str

    @property
    def is_whole(self) -> bool:
        """Whether its hash is that of its content."""
        return self.sha256 == _sha256(self.added_at, self.kind, self.content, self.previous)


class Register:
    """The records of one name in one data folder."""

    def __init__(self, data: Path, name: str) -> None:
        self._file = data / RESULTS / f"{name}.jsonl"
        self._head = data / RESULTS / f"{name}.head"

    def add(
        self,
        kind: str,
        content: dict[str, Any],
        check: Callable[[list[Record]], None] = lambda _records: None,
    ) -> Record:
        """Add a record; it is on disk when this returns.

        Parameters
        ----------
        kind, content
            What kind of record it is, and what it says, as JSON has it.
        check
            Called with all records while nobody else can add one; refuses by raising.

        Raises
        ------
        RecordNotKept
            The file cannot be written.
        RecordChanged
            A stored record was changed: nothing is added after it.
        """
        undone = True
        try:
            with self._locked() as file:
                records = self.all()
                check(records)
                at = datetime.now(UTC).isoformat(timespec="milliseconds").removesuffix("+00:00")
                previous = records[-1].sha256 if records else _FIRST
                content = json.loads(json.dumps(content, allow_nan=False))
                record = Record(at, kind, content, previous, _sha256(at, kind, content, previous))
                line = f"{json.dumps(asdict(record), ensure_ascii=True)}\n".encode()
                start = len(_whole_lines(self._file.read_bytes()))
                os.ftruncate(file, start)  # of what a disk or a kill left half written
                undone = False
                try:
                    if os.write(file, line) != len(line):
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                    os.fsync(file)
                    self._count(len(records) + 1, record.sha256)
                except OSError:
                    os.ftruncate(file, start)
                    undone = True
                    raise
        except OSError as error:
            left = "Nothing was done" if undone else "It may be there all the same: look first"
            raise RecordNotKept(
                f"wanted to add a record to {self._file}, got: {error.strerror}. {left}; make the "
                "file writable, or free some space, and ask again."
            ) from error
        return record

    def _count(self, n: int, sha256: str) -> None:
        """Say how many records there are, and the hash of the newest."""
        new = self._head.with_name(f".{self._head.name}.new")
        try:
            with new.open("w", encoding="ascii") as stream:
                stream.write(json.dumps({"n": n, "sha256": sha256}))
                stream.flush()
                os.fsync(stream.fileno())
            new.replace(self._head)
        finally:
            new.unlink(missing_ok=True)

    def all(self) -> list[Record]:
        """Return all records, oldest first.

        Raises
        ------
        RecordChanged
        """
        records, broken = self._read()
        if broken is not None:
            raise RecordChanged(
                f"wanted the records of {self._file.name} as they were written, got a changed "
                f"one: {broken}. Bring back the file from a copy; nothing is added to it or judged "
                "by it as it is."
            )
        return records

    def broken(self) -> str | None:
        """Return where the chain breaks, in words; None where it holds."""
        return self._read()[1]

    @property
    def state(self) -> tuple[tuple[int, int, int] | None, ...]:
        """What changes with whatever is written to its two files."""
        found = (path.stat() if path.is_file() else None for path in (self._file, self._head))
        return tuple(one and (one.st_ino, one.st_mtime_ns, one.st_size) for one in found)

    @property
    def size(self) -> int:
        """Bytes of the file: what tells a register from itself with more records."""
        return self._file.stat().st_size if self._file.is_file() else 0

    def head(self) -> str:
        """Return the sha256 of the newest record; zeros where there is none.

        Raises
        ------
        RecordChanged
        """
        records = self.all()
        return records[-1].sha256 if records else _FIRST

    def _read(self) -> tuple[list[Record], str | None]:
        records, broken = self._lines()
        return records, broken or self._cut(records)

    def _cut(self, records: list[Record]) -> str | None:
        """Return what was cut off the end; a record more than the head says was being added."""
        try:
            told = json.loads(self._head.read_text(encoding="utf-8"))
            n, sha256 = int(told["n"]), str(told["sha256"])
        except FileNotFoundError:
            n, sha256 = 0, ""
            if len(records) > 1:
                return f"{self._head.name}, which counts the records, is gone"
        except (ValueError, TypeError, KeyError):
            return f"{self._head.name}, which counts the records, is damaged"
        if len(records) < n:
            return f"{n - len(records)} of {n} records are gone from the end"
        if (n and records[n - 1].sha256 != sha256) or len(records) > n + 1:
            return f"{self._head.name} counts other records than there are"
        return None

    def _lines(self) -> tuple[list[Record], str | None]:
        if not self._file.is_file():
            return [], None
        records: list[Record] = []
        previous = _FIRST
        for number, line in enumerate(_whole_lines(self._file.read_bytes()).splitlines(), 1):
            try:
                record = Record(**json.loads(line))
            except (ValueError, TypeError):
                return records, f"line {number} is no record"
            if not record.is_whole:
                return records, f"the hash of line {number} ({record.kind}) is not that of its text"
            if record.previous != previous:
                return records, f"line {number} ({record.kind}) does not follow the one before it"
            records.append(record)
            previous = record.sha256
        return records, None

    @contextmanager
    def _locked(self) -> Iterator[int]:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(self._file, os.O_RDWR | os.O_APPEND | os.O_CREAT, _MODE)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file
        finally:
            os.close(file)


def _whole_lines(content: bytes) -> bytes:
    """Return what ends with a line's end: the rest was being added when it was cut off."""
    return content[: content.rfind(b"\n") + 1]


def _sha256(at: str, kind: str, content: dict[str, Any], previous: str) -> str:
    text = json.dumps([at, kind, content, previous], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def broken_registers(data: Path) -> list[Damage]:
    """Return the registers that were changed by another hand, each judged once in each state."""
    found = (_broken(data, name, Register(data, name).state) for name in _CHAINS)
    return [damage for damage in found if damage is not None]


@lru_cache(maxsize=16)
def _broken(data: Path, name: str, _state: object) -> Damage | None:
    try:
        broken = Register(data, name).broken()
    except OSError as error:
        broken = f"it cannot be read: {error.strerror}"
    if broken is None:
        return None
    found = Damage(
        _CHAINS[name],
        broken,
        "Bring it back from a copy; nothing is added to it or judged by it as it is.",
    )
    _log.error("%s", found)
    return found
