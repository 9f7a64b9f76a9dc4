"""What trainings keep on their way, as files: checkpoints/<digest>/<key>.safetensors.

The digest is of all that the head depends on: the request, the train files, the code and the
libraries. So the same request finds what was kept, under whatever name its model is to be stored,
and no other does. Each file appears whole or not at all, and says with a digest of its own whether
it still is what was put. Checkpoints only save time: where they cannot be kept, training goes on
without.
"""

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from models import heads

FOLDER = "checkpoints"
LIMIT_BYTES = 4 << 30  # of all checkpoints of a data folder together
KEPT_S = 7 * 24 * 3600
_ENDING = ".safetensors"
_FRESH = ".fresh"  # ends the name of what is being written
_KEY, _DIGEST = "key", "sha256"  # in the metadata of a file
Note = Callable[[str], None]


class Checkpoints:
    """The checkpoints of one data folder."""

    def __init__(self, data: Path) -> None:
        self._folder = data / FOLDER

    def of(
        self, request: Mapping[str, Any], train_sha256: Sequence[str], note: Note
    ) -> "FileCheckpoint":
        """Return the checkpoint of one training.

        Parameters
        ----------
        request
            All that was asked for, but for the name of the model.
        train_sha256
            Digests of the files that the train rows are from.
        note
            Called once, with a sentence, where nothing more can be kept.
        """
        asked = json.dumps(
            [request, sorted(train_sha256), _code(), version("torch"), version("numpy")],
            sort_keys=True,
        )
        return FileCheckpoint(self._folder / hashlib.sha256(asked.encode()).hexdigest(), note)

    def sweep(self) -> None:
        """Remove the checkpoints that nobody has written to for seven days."""
        oldest = time.time() - KEPT_S
        for left in self._folder.glob("*"):
            with suppress(OSError):  # another process removes it, or may alone
                if left.stat().st_mtime < oldest:
                    shutil.rmtree(left)


class FileCheckpoint:
    """What one training keeps: a `models.heads.Checkpoint`."""

    def __init__(self, folder: Path, note: Note) -> None:
        self._folder, self._note = folder, note
        self._is_full = False

    @property
    def is_there(self) -> bool:
        """Whether an earlier training left something."""
        return any(self._folder.glob("*" + _ENDING))

    def get(self, key: str) -> dict[str, np.ndarray] | None:
        """Return the arrays that were put under a key; None where they are absent or damaged."""
        try:
            with safe_open(self._file(key), "numpy") as stored:
                metadata = stored.metadata() or {}
                arrays = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
        except (OSError, SafetensorError, ValueError):
            return None
        whole = {_KEY: key, _DIGEST: _digest(arrays)}
        return arrays if metadata == whole else None

    def put(self, key: str, arrays: dict[str, np.ndarray]) -> None:
        """Keep arrays under a key; where there is no room, say so once and keep nothing more."""
        if self._is_full:
            return
        # unlike ascontiguousarray, it leaves a number without dimensions what it is
        arrays = {name: np.require(array, requirements="C") for name, array in arrays.items()}
        file = self._file(key)
        fresh = file.with_name(file.name + _FRESH)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            others = (f for f in self._folder.parent.glob("*/*") if f not in (file, fresh))
            n_bytes = sum(f.stat().st_size for f in others)
            if n_bytes + sum(array.nbytes for array in arrays.values()) > LIMIT_BYTES:
                self._give_up(f"they would take more than {LIMIT_BYTES / 1e9:.1f} GB")
                return
            save_file(arrays, fresh, {_KEY: key, _DIGEST: _digest(arrays)})
            with fresh.open("rb") as stream:
                os.fsync(stream.fileno())
            os.replace(fresh, file)  # noqa: PTH105 (the one word for it)
        except (OSError, SafetensorError) as error:
            with suppress(OSError):
                fresh.unlink(missing_ok=True)
            self._give_up(str(error))

    def remove(self) -> None:
        """Remove all that was kept: the model is stored."""
        shutil.rmtree(self._folder, ignore_errors=True)
        with suppress(OSError):  # others are there
            self._folder.parent.rmdir()

    def _give_up(self, reason: str) -> None:
        self._is_full = True
        self._note(f"training goes on without further checkpoints: {reason}")

    def _file(self, key: str) -> Path:
        """File of a key: a name that any file system takes, and no other key has."""
        readable = re.sub(r"[^a-z0-9]+", "-", key.lower())[:40].strip("-")
        digest = hashlib.sha256(key.encode()).hexdigest()[:16]
        return self._folder / f"{readable}.{digest}{_ENDING}"


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


@cache
def _code() -> str:
    """Digest of the code of the heads: other code does not go on with what this one kept."""
    digest = hashlib.sha256()
    for file in sorted(Path(heads.__file__).parent.glob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()
