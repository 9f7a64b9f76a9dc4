"""Classifiers on frozen features. The door is `train`; a trained head says what `Head` can.

training      the door: one kind of head, `ensemble`, or `auto`, the ladder of all kinds
rows          the only rows that training accepts: role train
session       one train set under internal validation: sweeps and final fits
validation    which rows are held out, how candidates did there, which one is best
matrix        the rows standardised and shuffled once, in memory or on disk
moments       sums from which every closed form follows
kinds         the heads, their parameters and grids; each kind turns a task into heads:
              closed_form, logistic (softmax, lbfgs), neighbours, network
head          what every trained head can do, and what it says of rows
linear, neighbours, network, ensemble   the trained heads
foreign       classifiers of scikit-learn
given         weights of a head that a file gives
storing       a head as named arrays and a description, and back
"""

from models.heads.checkpoint import Checkpoint, NoCheckpoint
from models.heads.head import Head, Predictions, predict, probabilities, scores
from models.heads.linear import LinearHead
from models.heads.rows import TrainRows
from models.heads.session import Curve, Resources
from models.heads.storing import pack, unpack
from models.heads.training import HEADS, Trained, check_params, train
from models.heads.validation import Candidate

__all__ = [
    "HEADS",
    "Candidate",
    "Checkpoint",
    "Curve",
    "Head",
    "LinearHead",
    "NoCheckpoint",
    "Predictions",
    "Resources",
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
