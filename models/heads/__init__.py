"""Classifiers on frozen features. The door is `train`.

    rows       the only rows that training accepts: role train
    fits       X, y and a list of hyper-parameters to weights: logistic, lda, ridge, nearest_mean
    lbfgs      many problems of one shape minimised together
    linear     the trained head, and what it says of rows
    training   internal validation, choice, refit

Every head here is linear in the standardised features, so that one class serves and stores all.
"""

from models.heads.linear import LinearHead, Predictions
from models.heads.rows import TrainRows
from models.heads.training import HEADS, Candidate, Trained, check_params, train

__all__ = [
    "HEADS",
    "Candidate",
    "LinearHead",
    "Predictions",
    "TrainRows",
    "Trained",
    "check_params",
    "train",
]
