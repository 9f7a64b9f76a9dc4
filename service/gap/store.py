"""Answers about gaps, kept beside the model that they are about.

    results/<model>/gap/<key>/<part>.json
    results/<model>/gap/<key>/<part>.parquet    rows that a part answers further questions from

The key says which question and which state of the data and of what else a part reads: another state
is another key, and what is kept of older ones is swept when a new answer is stored. Parts that read
the same share a key.
"""

import hashlib
import json
import os
import shutil
import uuid
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel

from etl.database import RESULTS

FORMAT = 4  # raise it whenever an explainer's numbers or answers change
_FOLDER = "gap"


class Store:
    """The answers of one data folder."""

    def __init__(self, data: Path) -> None:
        self._results = data / RESULTS

    def read(self, model: str, key: str, part: str) -> bytes | None:
        """Return the JSON of an answer, or None where it is not there."""
        try:
            return self._file(model, key, part).read_bytes()
        except FileNotFoundError:
            return None

    def write(self, model: str, key: str, part: str, answer: bytes) -> None:
        """Keep an answer: whole or not at all; a model that is gone keeps nothing."""
        self._write(model, self._file(model, key, part), answer)

    def read_table(self, model: str, key: str, part: str) -> pa.Table | None:
        """Return the rows of a part, or None where they are not there."""
        try:
            return pq.read_table(self._file(model, key, part, "parquet"), partitioning=None)
        except FileNotFoundError:
            return None

    def write_table(self, model: str, key: str, part: str, table: pa.Table) -> None:
        """Keep the rows of a part, as `write` keeps its answer."""
        rows = pa.BufferOutputStream()
        pq.write_table(table, rows, compression="zstd")
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


@lru_cache(maxsize=64)
def _parsed(kind: type[BaseModel], content: bytes) -> BaseModel:
    return kind.model_validate_json(content)


def key_of(reference: str, target: str, state: dict[str, Any]) -> str:
    """Return the key of a question in a state of the data.

    The splits stand first in it, so that a person finds their way.
    """
    text = json.dumps([FORMAT, reference, target, state], sort_keys=True, default=str)
    return f"{reference}.{target}.{hashlib.sha256(text.encode()).hexdigest()[:16]}"
