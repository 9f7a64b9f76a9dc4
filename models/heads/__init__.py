"""Classifiers on frozen features. The door is `train`; a trained head says what `Head` can.

rows       the only rows that training accepts: role train
training   internal validation, choice, refit
checkpoint what a training keeps on its way
fits       X, y and a list of hyper-parameters to weights: logistic, lda, ridge, nearest_mean
lbfgs      many problems of one shape minimised together
head       what every trained head can do, and what it says of rows
linear     the head that is linear in the standardised features
storing    a head as named arrays and a description, and back
"""

from models.heads.checkpoint import Checkpoint, NoCheckpoint
from models.heads.head import Head, Predictions, predict, probabilities, scores
from models.heads.linear import LinearHead
from models.heads.rows import TrainRows
from models.heads.storing import pack, unpack
from models.heads.training import HEADS, Candidate, Trained, check_params, train

__all__ = [
    "HEADS",
    "Candidate",
    "Checkpoint",
    "Head",
    "LinearHead",
    "NoCheckpoint",
    "Predictions",
    "TrainRows",
    "Trained",
    "check_params",
    "pack",
    "predict",
    "probabilities",
    "scores",
    "train",
    "unpack",
]
