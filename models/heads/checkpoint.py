"""What a training keeps on its way, so that it can go on after it was killed."""

from typing import Protocol, runtime_checkable

import numpy as np


@runtime_checkable
class Checkpoint(Protocol):
    """A place for named arrays of one training: the same request on the same rows.

    Nothing may depend on it but the time that training takes: what was put may be gone, and what
    is given back is what was put, bit for bit.
    """

    def get(self, key: str) -> dict[str, np.ndarray] | None:
        """Return the arrays that were put under a key, None where they are not there."""

    def put(self, key: str, arrays: dict[str, np.ndarray]) -> None:
        """Keep arrays under a key, in place of what was there; never an error."""


class NoCheckpoint:
    """Keeps nothing."""

    def get(self, key: str) -> dict[str, np.ndarray] | None:
        """Return None."""

    def put(self, key: str, arrays: dict[str, np.ndarray]) -> None:
        """Keep nothing."""
