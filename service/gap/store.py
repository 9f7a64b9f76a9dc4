"""Answers about gaps, kept beside the model that they are about.

    results/<model>/gap/<key>/<part>.json

The key says which question and which state of the data: another state is another key, and what is
kept of older ones is swept when a new answer is stored.
"""

import hashlib
import json
import os
import shutil
import uuid
from pathlib import Path
from typing import Any

from etl.database import RESULTS

FORMAT = 1  # raise it whenever an explainer's numbers or answers change
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
        file = self._file(model, key, part)
        if not (self._results / model / "model.json").is_file():
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        new = file.with_name(f".{file.name}.{uuid.uuid4().hex[:8]}")
        try:
            new.write_bytes(answer)
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

    def _file(self, model: str, key: str, part: str) -> Path:
        return self._results / model / _FOLDER / key / f"{part}.json"


def key_of(reference: str, target: str, state: dict[str, Any]) -> str:
    """Return the key of a question in a state of the data.

    The splits stand first in it, so that a person finds their way.
    """
    text = json.dumps([FORMAT, reference, target, state], sort_keys=True, default=str)
    return f"{reference}.{target}.{hashlib.sha256(text.encode()).hexdigest()[:16]}"
