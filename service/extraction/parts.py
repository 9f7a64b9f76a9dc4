"""What is computed, in pieces that survive a kill; each is there whole or not at all."""

import fcntl
import json
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from service.errors import ExtractionChanged, InUse

_LOCK = "lock"
_MANIFEST = "manifest.json"
_FRESH = ".fresh"  # ends the name of what is being written


@dataclass(frozen=True)
class Part:
    """Features of some images.

    Attributes
    ----------
    rows : int64 [m], their places in the list of images
    features : float32 [m, d]
    skipped : places of images that could not be read, with the reason
    """

    rows: np.ndarray
    features: np.ndarray
    skipped: list[tuple[int, str]]


@dataclass(frozen=True)
class Parts:
    """The parts of one extraction in a folder of their own, with a manifest of its settings.

    Attributes
    ----------
    folder : where they lie
    n_images : images of all parts
    chunk : images of one part
    """

    folder: Path
    n_images: int
    chunk: int

    @property
    def exist(self) -> bool:
        """Whether an earlier call left any."""
        return self.folder.is_dir()

    @contextmanager
    def held(self, settings: dict[str, Any], *, restart: bool) -> Iterator[None]:
        """Hold the folder: two processes would compute the same parts.

        Parameters
        ----------
        settings
            All that the numbers depend on.
        restart
            Forget the parts that are there.

        Raises
        ------
        InUse
            Another process is at it.
        ExtractionChanged
            The parts that are there were begun with other settings.
        """
        self.folder.mkdir(exist_ok=True)
        with (self.folder / _LOCK).open("w") as lock:
            try:
                # not flock: the readers of a killed process would hold it for seconds after it
                fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError) as error:
                raise InUse(
                    f"wanted {self.folder} for this extraction alone, but another process is at "
                    "it. Wait until it is done, or take another --out."
                ) from error
            for left in self.folder.iterdir():
                if left.name != _LOCK and (restart or left.name.endswith(_FRESH)):
                    left.unlink()
            manifest = self.folder / _MANIFEST
            if manifest.is_file():
                before = json.loads(manifest.read_text(encoding="utf-8"))
                refuse_changed(self.folder, before, settings)
            else:
                put_in_place(manifest, lambda fresh: fresh.write_text(as_json(settings)))
            yield

    def missing(self) -> list[int]:
        """Numbers of the parts that are absent or damaged."""
        return [k for k in range(self._n_parts) if self._read(k) is None]

    def rows(self, k: int) -> range:
        """Places in the list of the images of part k."""
        return range(k * self.chunk, min((k + 1) * self.chunk, self.n_images))

    def write(self, k: int, part: Part) -> None:
        """Store part k."""

        def write(fresh: Path) -> None:
            with fresh.open("wb") as stream:
                skipped = np.array(json.dumps(part.skipped))
                np.savez(stream, rows=part.rows, skipped=skipped, features=part.features)

        put_in_place(self._file(k), write)

    def __iter__(self) -> Iterator[Part]:
        """Give all parts in order.

        Raises
        ------
        ExtractionChanged
            Another hand took one away.
        """
        for k in range(self._n_parts):
            part = self._read(k)
            if part is None:
                raise ExtractionChanged(
                    f"wanted {self._file(k)}, which was there, got nothing that can be read. "
                    "Start the same command again: it computes what is missing."
                )
            yield part

    def remove(self) -> None:
        """Remove the folder as a whole: half of it would be computed again."""
        if self.exist:
            self.folder.rename(self._gone)
        shutil.rmtree(self._gone, ignore_errors=True)

    def sweep(self) -> None:
        """Remove what a kill during `remove` left."""
        shutil.rmtree(self._gone, ignore_errors=True)

    @property
    def _gone(self) -> Path:
        return self.folder.with_name(f".gone{self.folder.name}")

    @property
    def _n_parts(self) -> int:
        return -(-self.n_images // self.chunk)

    def _file(self, k: int) -> Path:
        return self.folder / f"part-{k:06d}.npz"

    def _read(self, k: int) -> Part | None:
        try:
            with np.load(self._file(k), allow_pickle=False) as stored:
                skipped = [(int(row), str(why)) for row, why in json.loads(str(stored["skipped"]))]
                return Part(stored["rows"], stored["features"], skipped)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None


def refuse_changed(place: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Refuse to go on with what was begun with other settings.

    Raises
    ------
    ExtractionChanged
    """
    changed = [key for key in now if before.get(key) != now[key]]
    if changed:
        differences = "; ".join(f"{key}: {before.get(key)} → {now[key]}" for key in changed)
        raise ExtractionChanged(
            f"wanted the settings and images of what is in {place}, got others ({differences}). "
            "Extract as before, take another --out or --backbone, or begin anew: --restart."
        )


def put_in_place(file: Path, write: Callable[[Path], object]) -> None:
    """Write a file beside its place and put it there whole, so that no kill leaves half of it."""
    fresh = file.with_name(f".{file.name}{_FRESH}")
    write(fresh)
    with fresh.open("rb") as stream:
        os.fsync(stream.fileno())
    os.replace(fresh, file)  # noqa: PTH105 (the one word for it)


def as_json(value: Any) -> str:
    """Return a value as JSON text in ASCII, one line a field."""
    return json.dumps(value, indent=1) + "\n"
