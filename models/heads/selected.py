"""A head that learnt from some of the features, as one over all of them."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int

from models.heads.head import Head
from models.heads.linear import LinearHead


@dataclass(frozen=True)
class SelectedHead:
    """Scores of a head that reads only some columns of the vectors.

    Attributes
    ----------
    head : over those columns
    columns : int64 [q], which they are, in the order in which the head reads them
    n_features : length of the whole vectors
    """

    head: Head
    columns: Int[np.ndarray, " q"]
    n_features: int

    @property
    def class_ids(self) -> Int[np.ndarray, " k"]:
        """Class of each column of the scores."""
        return self.head.class_ids

    def block_scores(self, X: Float[torch.Tensor, "n d"]) -> Float[torch.Tensor, "n k"]:
        """Scores of one block of finite float32 features."""
        return self.head.block_scores(X[:, torch.from_numpy(self.columns)].contiguous())

    def feature_weights(self) -> Float[np.ndarray, " d"]:
        """How much each feature moves the scores apart; 0 for those that are not read."""
        found = np.zeros(self.n_features)
        found[self.columns] = self.head.feature_weights()
        return found


def over_all(head: Head, columns: Int[np.ndarray, " q"], n_features: int) -> Head:
    """Return a head on some columns as one on all; a linear one stays linear, with weights of 0.

    Examples
    --------
    >>> one, ids = np.ones(1), np.array([0, 1])
    >>> small = LinearHead(one * 5, one, np.array([[1, -1]], np.float32), np.zeros(2, np.float32),
    ...     ids)
    >>> over_all(small, np.array([1]), 3).weight.tolist()
    [[0.0, 0.0], [1.0, -1.0], [0.0, 0.0]]
    """
    if not isinstance(head, LinearHead):
        return SelectedHead(head, columns, n_features)
    mean, scale = np.zeros(n_features), np.ones(n_features)
    mean[columns], scale[columns] = head.mean, head.scale
    weight = np.zeros((n_features, head.weight.shape[1]), np.float32)
    weight[columns] = head.weight
    return LinearHead(mean, scale, weight, head.bias, head.class_ids)
