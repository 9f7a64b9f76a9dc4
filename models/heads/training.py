"""Internal validation on train rows, the choice it makes, and the refit on all train rows."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Int, UInt8
from scipy.optimize import minimize_scalar

from models.errors import InvalidParams, NoTrainRows
from models.estimate import Estimate, share, wilson
from models.heads import fits
from models.heads.checkpoint import Checkpoint, NoCheckpoint
from models.heads.head import scores as scores_of
from models.heads.linear import LinearHead
from models.heads.rows import TrainRows

# from here on one held-out twentieth is large enough to choose by; below, every row is held out
HOLDOUT_FROM_ROWS = 50_000
N_FOLDS = 5
NEVER_HELD = 255
_BLOCK_ROWS = 8192
Progress = Callable[[float, str], None]
_Fit = Callable[
    [torch.Tensor, torch.Tensor, int, Sequence[float], fits.Tick], Iterator[fits.Solution]
]


@dataclass(frozen=True)
class _Kind:
    """A head: how it is fitted, its hyper-parameter, and the values tried by default.

    `grid` runs from the weakest regularisation to the strongest, down where `falling`.
    """

    fit: _Fit
    param: str | None
    grid: tuple[float, ...]
    high: float = math.inf
    per_row: bool = False  # the grid is multiplied by the number of rows
    falling: bool = False  # the smaller the value, the stronger


HEADS: Mapping[str, _Kind] = {
    "logistic": _Kind(fits.logistic, "C", (3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 3e-3, 1e-3, 3e-4),
        falling=True,
    ),
    "lda": _Kind(
        fits.lda, "shrinkage", (1e-3, 3e-3, 0.01, 0.03, 0.06, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1.0),
        high=1.0,
    ),
    "ridge": _Kind(
        fits.ridge, "alpha", (1e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0), per_row=True
    ),
    "nearest_mean": _Kind(fits.nearest_mean, None, (0.0,)),
}  # fmt: skip


@dataclass(frozen=True)
class Candidate:
    """One value of the hyper-parameter and how it did on the rows that it was not fitted on.

    Attributes
    ----------
    value : of the hyper-parameter; None for a head without one
    top1 : share of validation rows that are right
    nll : mean −log probability of the label in nats, after scaling by the best temperature
    temperature : that temperature
    """

    value: float | None
    top1: float
    nll: float
    temperature: float


@dataclass(frozen=True)
class Trained:
    """A head and how it came about.

    Attributes
    ----------
    head : fitted on all train rows with the chosen value
    params : the chosen hyper-parameters
    method : how they were chosen
    top1 : internal validation accuracy of the choice; optimistic, for the choice was made by it,
        and more so where the backbone has seen the train images
    candidates : the whole leaderboard, in the order of the grid
    n_train : number of train rows
    fold : uint8 [n], which rows were held out together while hyper-parameters were chosen; 255
        for rows that were never held out
    """

    head: LinearHead
    params: dict[str, float]
    method: str
    top1: Estimate
    candidates: list[Candidate]
    n_train: int
    fold: UInt8[np.ndarray, " n"]


def check_params(head: str, params: Mapping[str, Any], *, n_train: int = 1) -> tuple[float, ...]:
    """Values of the hyper-parameter to try, weakest regularisation first; default: a grid.

    Raises
    ------
    InvalidParams
        An unknown head or parameter, or a value out of range.

    Examples
    --------
    >>> check_params("logistic", {"C": 0.5})
    (0.5,)
    """
    kind = HEADS.get(head)
    if kind is None:
        raise InvalidParams(f"wanted a head ({', '.join(HEADS)}), got {head!r}.")
    unknown = sorted(set(params) - {kind.param})
    if unknown:
        has = f"the parameter {kind.param}" if kind.param else "no parameters"
        meant = [name for name in unknown if name.lower() == str(kind.param).lower()]
        raise InvalidParams(
            f"head {head} has {has}, got {', '.join(unknown)}. "
            + (f"Did you mean {kind.param}?" if meant else "Leave it out.")
        )
    if not params:
        return tuple(v * n_train for v in kind.grid) if kind.per_row else kind.grid
    asked = params[str(kind.param)]
    values = tuple(asked) if isinstance(asked, list | tuple) else (asked,)
    for value in values:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not 0 < value <= kind.high or not math.isfinite(value):
            raise InvalidParams(
                f"wanted {kind.param} above 0"
                + (f" and at most {kind.high:g}" if math.isfinite(kind.high) else "")
                + f", or a list of such numbers, got {asked!r}."
            )
    if not values:
        raise InvalidParams(f"wanted at least one value of {kind.param}, got an empty list.")
    return tuple(sorted({float(value) for value in values}, reverse=kind.falling))


def train(
    rows: TrainRows,
    head: str,
    params: Mapping[str, Any] | None = None,
    *,
    seed: int,
    progress: Progress = lambda _share, _message: None,
    checkpoint: Checkpoint = NoCheckpoint(),  # noqa: ARG001, B008 (not used yet)
) -> Trained:
    """Train a head: choose its hyper-parameter on held-out train rows, then fit on all of them.

    From 50,000 rows on one stratified twentieth is held out, below that five folds are. The best
    validation accuracy wins, ties go to the lower loss, then to the stronger
    regularisation; with at least 50,000 validation rows the strongest regularisation within one
    standard error of the best wins.

    Parameters
    ----------
    rows
        Train rows; nothing else can be handed over.
    head
        One of `HEADS`.
    params
        `{"C": …}`, `{"shrinkage": …}` or `{"alpha": …}`, a number or a list; default: a grid.
    seed
        Of the folds.
    progress
        Called often with the share done and a message; an exception from it stops the training.
    checkpoint
        Where it may keep what it has, to go on from there after it was killed.

    Raises
    ------
    InvalidParams, NoTrainRows
    """
    values = check_params(head, params or {}, n_train=len(rows.labels))
    kind = HEADS[head]
    class_ids = rows.class_ids
    k = len(class_ids)
    if k < 2:
        raise NoTrainRows(f"wanted train rows of at least two classes, got {k}.")
    y = np.searchsorted(class_ids, rows.labels)
    features = rows.features[0 : len(y)]
    fold = _folds(y, seed)
    parts = range(1) if len(y) >= HOLDOUT_FROM_ROWS else range(N_FOLDS)
    held_rows = np.isin(fold, parts)
    scores = np.empty((len(values), int(held_rows.sum()), k), np.float32)
    place = np.cumsum(held_rows) - 1
    n_fits = len(parts) + 1
    for i in parts:
        held = fold == i

        def tick(done: float, i: int = i) -> None:
            progress((i + done) / n_fits, f"internal validation, part {i + 1} of {len(parts)}")

        fitted = _fit_all(kind, features[~held], y[~held], class_ids, values, tick)
        for v, candidate in enumerate(fitted):
            scores[v, place[held]] = scores_of(candidate, features[held])
    labels = y[held_rows]
    candidates = [
        _judge(value if kind.param else None, s, labels)
        for value, s in zip(values, scores, strict=True)
    ]
    best = _choose(candidates, len(labels))
    progress((n_fits - 1) / n_fits, "fitting on all train rows")

    def last_tick(done: float) -> None:
        progress((n_fits - 1 + done) / n_fits, "fitting on all train rows")

    (final,) = _fit_all(kind, features, y, class_ids, (values[best],), last_tick)
    chosen = candidates[best]
    temperature = np.float32(chosen.temperature)
    progress(1.0, "trained")
    return Trained(
        head=LinearHead(
            final.mean, final.scale, final.weight / temperature, final.bias / temperature, class_ids
        ),
        params={} if kind.param is None else {kind.param: values[best]},
        method=(
            f"held-out twentieth of the train rows ({len(labels):,} rows), stratified, seed {seed}"
            if len(parts) == 1
            else f"{N_FOLDS}-fold cross-validation on the train rows, stratified, seed {seed}"
        ),
        top1=share(round(chosen.top1 * len(labels)), len(labels)),
        candidates=candidates,
        n_train=len(y),
        fold=np.where(held_rows, fold, NEVER_HELD).astype(np.uint8),
    )


def _folds(y: Int[np.ndarray, " n"], seed: int) -> Int[np.ndarray, " n"]:
    """Fold of each row, stratified: every class is dealt out over the folds, starting anywhere."""
    n_folds = 20 if len(y) >= HOLDOUT_FROM_ROWS else N_FOLDS
    rng = np.random.default_rng(seed)
    order = np.lexsort((rng.random(len(y)), y))
    counts = np.bincount(y)
    rank = np.arange(len(y)) - np.repeat(np.cumsum(counts) - counts, counts)
    start = rng.integers(n_folds, size=len(counts))
    fold = np.empty(len(y), np.int64)
    fold[order] = (rank + np.repeat(start, counts)) % n_folds
    return fold


def _fit_all(
    kind: _Kind,
    features: np.ndarray,
    y: np.ndarray,
    class_ids: np.ndarray,
    values: Sequence[float],
    tick: fits.Tick,
) -> Iterator[LinearHead]:
    """Heads for all values, with the features standardised on just these rows."""
    mean = features.mean(axis=0, dtype=np.float64)
    scale = features.std(axis=0, dtype=np.float64)
    # a feature that moves by rounding alone would be blown up to unit variance
    scale = np.where(scale > 1e-7 * np.abs(mean), scale, 1.0)
    scale = np.maximum(scale, 1e-30)
    X = torch.empty(features.shape, dtype=torch.float32)
    for start in range(0, len(features), _BLOCK_ROWS):
        block = features[start : start + _BLOCK_ROWS]
        X[start : start + len(block)] = torch.from_numpy((block - mean) / scale)
    for weight, bias in kind.fit(X, torch.from_numpy(y), len(class_ids), values, tick):
        yield LinearHead(mean, scale, weight.numpy(), bias.numpy(), class_ids)


def _judge(value: float | None, scores: np.ndarray, labels: np.ndarray) -> Candidate:
    logits = torch.from_numpy(scores).double()
    y = torch.from_numpy(labels)
    correct = (logits.argmax(dim=1) == y).double().mean()
    # a class without rows in its fold counts as the least likely one, not as impossible
    absent = logits < fits.ABSENT / 2
    floor = logits.masked_fill(absent, math.inf).amin(dim=1, keepdim=True)
    logits = torch.where(absent, floor, logits)

    def nll(log_temperature: float, smoothing: float) -> float:
        scaled = logits / math.exp(log_temperature)
        return float(torch.nn.functional.cross_entropy(scaled, y, label_smoothing=smoothing))

    # where all rows are right the loss alone would ask for certainty: n right ones do not show it
    found = minimize_scalar(
        nll,
        bounds=(-7, 7),
        args=(1 / (len(y) + 2),),
        method="bounded",
        options={"xatol": 1e-3},
    )
    return Candidate(value, float(correct), nll(found.x, 0.0), math.exp(found.x))


def _choose(candidates: list[Candidate], n: int) -> int:
    """Index of the best candidate; the grid runs from weak to strong regularisation."""

    def rank(i: int) -> tuple[float, float, int]:
        return -candidates[i].top1, round(candidates[i].nll, 4), -i

    best = min(range(len(candidates)), key=rank)
    if n < HOLDOUT_FROM_ROWS:
        return best
    low, high = wilson(round(candidates[best].top1 * n), n, level=0.6827)
    within = candidates[best].top1 - (high - low) / 2
    return max(i for i, c in enumerate(candidates) if c.top1 >= within)
