"""The only rows that training accepts."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, Int

from models.errors import NoTrainRows, TestRowInTraining, WrongShape

TRAIN = "train"


@runtime_checkable
class Matrix(Protocol):
    """Rows of features, read a slice at a time: an array, or what is read from a database."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, d)."""

    def __getitem__(self, rows: slice) -> Float32[np.ndarray, "b d"]:
        """Rows start … stop - 1 of a slice with step 1, float32."""

    def __len__(self) -> int:
        """Return the number of rows."""


@dataclass(frozen=True)
class TrainRows:
    """Rows of role train, and nothing else: a row of another role raises at construction.

    `train` takes no other type, so that the rule of the science (no test row in training or in any
    choice) holds by construction: whoever reads the rows must say the role of each split that they
    came from.

    Attributes
    ----------
    features : float32 [n, d], finite: an array, or a `Matrix` that is read slice by slice
    labels : int64 [n], class ids (any whole numbers from 0)
    roles : role of every split that rows were taken from

    Raises
    ------
    TestRowInTraining, NoTrainRows, WrongShape

    Examples
    --------
    >>> TrainRows(np.zeros((2, 3), np.float32), np.array([0, 1]), roles=["train", "test"])
    Traceback (most recent call last):
    ...
    models.errors.TestRowInTraining: wanted rows of role train alone, got rows of role test. ...
    """

    features: Matrix
    labels: Int[np.ndarray, " n"]
    roles: Iterable[str] = field(kw_only=True)

    def __post_init__(self) -> None:
        others = sorted(set(self.roles) - {TRAIN})
        if others:
            raise TestRowInTraining(
                f"wanted rows of role train alone, got rows of role {', '.join(others)}. "
                "Test rows take no part in training or in any choice."
            )
        if len(self.labels) == 0:
            raise NoTrainRows("wanted rows of role train, got none. Load train_<backbone>.csv.")
        if len(self.labels) != len(self.features):
            raise WrongShape(
                f"wanted a label for each row, got {len(self.labels)} labels for "
                f"{len(self.features)} rows."
            )

    def only(self, columns: Int[np.ndarray, " q"]) -> "TrainRows":
        """Return the same rows with some of their features.

        Examples
        --------
        >>> rows = TrainRows(np.array([[1, 2, 3]], np.float32), np.array([0]), roles=["train"])
        >>> rows.only(np.array([0, 2])).features[0:1].tolist()
        [[1.0, 3.0]]
        """
        return replace(self, features=_Columns(self.features, columns))

    @property
    def class_ids(self) -> Int[np.ndarray, " k"]:
        """The classes that occur, rising: what a head trained on these rows can know."""
        return np.unique(self.labels)


class _Columns:
    """Some columns of a matrix, taken when its rows are read."""

    def __init__(self, matrix: Matrix, columns: np.ndarray) -> None:
        self._matrix, self._columns = matrix, columns
        self.shape = (len(matrix), len(columns))

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._matrix)

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Rows start … stop - 1, float32 [b, q]."""
        return np.ascontiguousarray(self._matrix[rows][:, self._columns])
