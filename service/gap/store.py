"""Answers about gaps, kept beside the model that they are about.

    results/<model>/gap/<key>/<part>.json
    results/<model>/gap/<key>/<part>.parquet    rows that a part answers further questions from

The key says which question and which state of the data and of what else a part reads: another state
is another key, and what is kept of older ones is swept when a new answer is stored. Parts that read
the same share a key.
"""

import hashlib
import json
import logging
import os
import shutil
import uuid
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel
from pydantic_core import from_json

from etl.database import RESULTS
from service.disk import UNREADABLE, set_aside

FORMAT = 4  # raise it whenever an explainer's numbers or answers change
_FOLDER = "gap"
_WHOLE: dict[Path, tuple[int, int]] = {}  # answers that were found whole: time, size
_log = logging.getLogger("gapscope")


class Store:
    """The answers of one data folder."""

    def __init__(self, data: Path) -> None:
        self._results = data / RESULTS

    def read(self, model: str, key: str, part: str) -> bytes | None:
        """Return the JSON of an answer, or None where it is not there, or damaged and set aside."""
        file = self._file(model, key, part)
        try:
            content = file.read_bytes()
            version = (file.stat().st_mtime_ns, len(content))
            if _WHOLE.get(file) != version:  # once: to parse a large answer takes its time
                from_json(content)
                _WHOLE[file] = version
        except FileNotFoundError:
            return None
        except ValueError as error:
            _log.error("%s is damaged: %s. %s", file, error, set_aside(file))
            return None
        return content

    def write(self, model: str, key: str, part: str, answer: bytes) -> None:
        """Keep an answer: whole or not at all; a model that is gone keeps nothing."""
        self._write(model, self._file(model, key, part), answer)

    def read_table(self, model: str, key: str, part: str) -> pa.Table | None:
        """Return the rows of a part, or None where they are not there.

        Where they are damaged, they are set aside with the answer that leads to them: both are
        computed anew.
        """
        file = self._file(model, key, part, "parquet")
        try:
            found = file.stat()
            return _table(file, found.st_ino, found.st_mtime_ns, found.st_size)
        except FileNotFoundError:
            return None
        except UNREADABLE as error:
            _log.error("%s is damaged: %s. %s", file, error, set_aside(file))
        answer = self._file(model, key, part)
        if answer.is_file():
            set_aside(answer)
        return None

    def write_table(self, model: str, key: str, part: str, table: pa.Table) -> None:
        """Keep the rows of a part, as `write` keeps its answer."""
        rows = pa.BufferOutputStream()
        pq.write_table(table, rows, compression="zstd", write_page_checksum=True)
        self._write(model, self._file(model, key, part, "parquet"), rows.getvalue().to_pybytes())

    def _write(self, model: str, file: Path, content: bytes) -> None:
        if not (self._results / model / "model.json").is_file():
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        new = file.with_name(f".{file.name}.{uuid.uuid4().hex[:8]}")
        try:
            new.write_bytes(content)
            os.replace(new, file)  # noqa: PTH105 (the one word for it)
        finally:
            new.unlink(missing_ok=True)

    def sweep(self, model: str, keys: set[str]) -> None:
        """Forget what is kept under other keys than these."""
        folder = self._results / model / _FOLDER
        if folder.is_dir():
            for old in folder.iterdir():
                if old.name not in keys:
                    shutil.rmtree(old, ignore_errors=True)

    def keys(self, model: str) -> set[str]:
        """Return the keys under which something is kept."""
        folder = self._results / model / _FOLDER
        return {path.name for path in folder.iterdir()} if folder.is_dir() else set()

    def _file(self, model: str, key: str, part: str, suffix: str = "json") -> Path:
        return self._results / model / _FOLDER / key / f"{part}.{suffix}"


_Answer = TypeVar("_Answer", bound=BaseModel)


def parsed(kind: type[_Answer], content: bytes) -> _Answer:
    """Return an answer out of its JSON; the same JSON is parsed once, for it is asked for often."""
    return _parsed(kind, content)  # type: ignore[return-value]


@lru_cache(maxsize=32)
def _parsed(kind: type[BaseModel], content: bytes) -> BaseModel:
    return kind.model_validate_json(content)


@lru_cache(maxsize=4)
def _table(file: Path, _inode: int, _mtime_ns: int, _n_bytes: int) -> pa.Table:
    """Read the rows of an answer; those read last are kept, for lists ask for them often."""
    return pq.read_table(file, partitioning=None, page_checksum_verification=True)


def key_of(reference: str, target: str, state: dict[str, Any]) -> str:
    """Return the key of a question in a state of the data.

    The splits stand first in it, so that a person finds their way.
    """
    text = json.dumps([FORMAT, reference, target, state], sort_keys=True, default=str)
    return f"{reference}.{target}.{hashlib.sha256(text.encode()).hexdigest()[:16]}"
