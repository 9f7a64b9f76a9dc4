"""Telling two test sets apart by what is known of their images: the weights of DISDE and ledger."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.linalg import cho_factor, cho_solve
from scipy.stats import rankdata
from sklearn.preprocessing import SplineTransformer

from models.gap.resampling import Replicates

N_FOLDS = 5
REFUSE_AUC, WARN_AUC = 0.95, 0.90
# of the images that the weights leave, as a sample of equal weights
REFUSE_SHARE, WARN_SHARE = 0.05, 0.20
_CLIP = 0.995  # quantile of the weights that none exceeds
# on columns of unit spread; with few rows a column, the best of them out of fold
_RIDGES = (1.0, 10.0, 100.0, 1000.0)
_PLENTY = 500
_LEVELS = 12  # distinct values up to which a covariate is taken as categories
_BINS = 15
_NEWTON_STEPS = 30


def design(
    values: Float[np.ndarray, "n q"], is_target: Bool[np.ndarray, " n"], *, n_knots: int = 6
) -> Float[np.ndarray, "n p"]:
    """Columns that stand for covariates in a logistic regression, float32, of unit spread.

    A covariate of up to twelve values becomes one column a value; any other a cubic spline with
    knots at quantiles of both sets, each set counting as much as the other, going on as straight
    lines beyond the last knots. Unknown values (NaN) get a column of their own.

    Parameters
    ----------
    values
        One column a covariate.
    is_target
        Which rows are of the target.
    n_knots
        Of each spline, at least 2.

    Examples
    --------
    >>> design(np.array([[0.0], [1.0], [1.0], [0.0]]), np.array([False, False, True, True])).shape
    (4, 1)
    """
    columns = [
        c for j in range(values.shape[1]) for c in _columns(values[:, j], is_target, n_knots)
    ]
    if not columns:
        return np.empty((len(values), 0), np.float32)
    found = np.column_stack(columns)
    found = found - found.mean(axis=0)
    spread = found.std(axis=0)
    moves = spread > 1e-9 * np.abs(found).max(axis=0, initial=1e-300)
    return np.asarray((found[:, moves] / spread[moves]).astype(np.float32))


def _columns(x: np.ndarray, is_target: np.ndarray, n_knots: int) -> list[np.ndarray]:
    known = np.isfinite(x)
    missing = [] if known.all() else [(~known).astype(float)]
    if not known.any():
        return missing
    levels = np.unique(x[known])
    if len(levels) <= _LEVELS:
        return [(x == level).astype(float) for level in levels[1:]] + missing
    grid = np.linspace(0, 1, 201)
    halves = [
        np.quantile(x[known & half], grid)
        for half in (is_target, ~is_target)
        if (known & half).any()
    ]
    knots = np.unique(np.quantile(np.concatenate(halves), np.linspace(0, 1, n_knots)))
    filled = np.where(known, x, np.median(x[known]))
    if len(knots) < 2:
        return [filled, *missing]
    basis = SplineTransformer(
        knots=knots[:, None], degree=3, include_bias=False, extrapolation="linear"
    ).fit_transform(filled[:, None])
    return [*basis.T, *missing]


@dataclass(frozen=True)
class Domain:
    """How well covariates tell reference from target, and the odds that weights are made of.

    Attributes
    ----------
    log_odds : that an image is of the target, out of fold, float32 [n1 + n2, 1 + m]; reference
        first; the first column for the sample, the others for its replicates
    auc : area under the ROC curve of the sample's log-odds, out of fold; .5 says nothing, 1 all
    calibration_error : mean distance of predicted probability and share of target images in 15
        bins of equal mass
    """

    log_odds: Float[np.ndarray, "n m"]
    auc: float
    calibration_error: float

    @property
    def refusal(self) -> str | None:
        """Why re-weighting is refused, or None."""
        return refusal_by_auc(self.auc)


def refusal_by_auc(auc: float) -> str | None:
    """Return why sets that a classifier tells apart so well are not re-weighted, or None.

    Examples
    --------
    >>> refusal_by_auc(0.9) is None, "0.99" in refusal_by_auc(0.99)
    (True, True)
    """
    if auc <= REFUSE_AUC:
        return None
    return (
        f"a classifier tells the sets apart by it with AUC {auc:.2f}, above {REFUSE_AUC:.2f}: too "
        "few images of one are like the other's to re-weight them"
    )


class Separator:
    """Fits logistic regressions of set membership on designs, all with the same folds and weights.

    Each fold's rows are judged by a fit on the other folds (ridge, Newton). A replicate's fit
    starts at the sample's and takes two steps with the sample's Hessian: all replicates in four
    matrix products a fold, where refitting each would take hundreds. The distance to a plain refit
    is of second order (a test compares them).
    """

    def __init__(
        self,
        replicates: Replicates,
        strata: Int[np.ndarray, " n"],
        *,
        base: Float[np.ndarray, " n"] | None = None,
        seed: int,
    ) -> None:
        """Lay out the folds.

        Parameters
        ----------
        replicates
            Weights of the sample and its replicates.
        strata
            Class ids, reference first: every fold gets its share of each set and class.
        base
            Weights that every column carries besides, such as those that give the reference the
            target's mix of classes.
        seed
            Of the folds.
        """
        n1, n2 = len(replicates.reference), len(replicates.target)
        self.is_target = np.arange(n1 + n2) >= n1
        self.n_reference = n1
        weights = replicates.both
        self._base = np.ones(n1 + n2, np.float32) if base is None else base.astype(np.float32)
        self._weights = weights * self._base[:, None]
        fold = _folds(self.is_target, strata, seed)
        self._held = [np.flatnonzero(fold == f) for f in range(N_FOLDS)]

    def fit(self, columns: Float[np.ndarray, "n p"]) -> Domain:
        """Log-odds of every image given its row of a `design`, from the folds without it."""
        rows = np.column_stack([np.ones(len(columns), np.float32), columns.astype(np.float32)])
        ridge = _RIDGES[0]
        if len(rows) < _PLENTY * rows.shape[1]:
            ridge = min(_RIDGES, key=lambda one: self._deviance(rows, one))
        log_odds = self._log_odds(rows, self._weights, ridge)
        own = log_odds[:, 0].astype(float)
        return Domain(log_odds, _auc(own, self.is_target), _calibration(own, self.is_target))

    def _log_odds(self, rows: np.ndarray, weights: np.ndarray, ridge: float) -> np.ndarray:
        found = np.empty(weights.shape, np.float32)
        for held in self._held:
            kept = np.setdiff1d(np.arange(len(rows)), held, assume_unique=True)
            beta = _coefficients(rows[kept], self.is_target[kept], weights[kept], ridge)
            found[held] = rows[held] @ beta
        return found

    def _deviance(self, rows: np.ndarray, ridge: float) -> float:
        """Loss out of fold of the sample's own fit."""
        z = self._log_odds(rows, self._weights[:, :1], ridge)[:, 0].astype(float)
        w = self._weights[:, 0].astype(float)
        return float(w @ (np.logaddexp(0, z) - np.where(self.is_target, z, 0.0)))

    def reference_weights(self, domain: Domain) -> Float[np.ndarray, "n1 m"]:
        """Weights that give the reference's images the target's covariates, in each column.

        Odds, clipped at their 99.5 % quantile, times what each column weighs anyhow.
        """
        return self._tilted(domain.log_odds[: self.n_reference], slice(None, self.n_reference))

    def _tilted(self, log_odds: np.ndarray, rows: slice) -> np.ndarray:
        place = min(int(np.ceil(_CLIP * len(log_odds))), len(log_odds) - 1)
        top = np.partition(log_odds, place, axis=0)[place]
        # relative to the largest that is let stand, so that no column vanishes altogether
        return np.asarray(np.exp(np.minimum(log_odds - top, 0)) * self._weights[rows])

    @cached_property
    def base_weights(self) -> Float[np.ndarray, "n1 m"]:
        """Weights of the reference's images where no covariate is used."""
        return self._weights[: self.n_reference]


def effective_share(weights: Float[np.ndarray, " n"]) -> float:
    """Images that weights leave, as a share of those there are: (Σw)² / (n Σw²).

    Examples
    --------
    >>> effective_share(np.array([1.0, 1.0, 0.0, 0.0]))
    0.5
    """
    w = weights.astype(np.float64)
    return float(w.sum() ** 2 / (len(w) * np.square(w).sum()))


def _folds(is_target: np.ndarray, strata: np.ndarray, seed: int) -> np.ndarray:
    """Fold of each row, spread evenly over each class of each set."""
    rng = np.random.default_rng(seed)
    order = np.lexsort((rng.random(len(strata)), strata, is_target))
    fold = np.empty(len(strata), np.int64)
    fold[order] = np.arange(len(strata)) % N_FOLDS
    return fold


def _coefficients(
    x: np.ndarray, is_target: np.ndarray, weights: np.ndarray, ridge: float
) -> np.ndarray:
    """Coefficients [p, 1 + m]: the first column fitted, those of the replicates stepped from it."""
    t = is_target.astype(np.float32)
    penalty = np.full(x.shape[1], ridge)
    penalty[0] = 1e-6  # the intercept is free
    w = weights[:, 0]
    beta, hessian = _newton(x, t, w, penalty)
    found = np.repeat(beta[:, None], weights.shape[1], axis=1)
    factor = cho_factor(hessian)
    for step in range(2):
        if step == 0:
            residual = weights[:, 1:] * (t - _expit(x @ beta.astype(np.float32)))[:, None]
        else:
            residual = weights[:, 1:] * (t[:, None] - _expit(x @ found[:, 1:].astype(np.float32)))
        slope = (x.T @ residual).astype(np.float64) - penalty[:, None] * found[:, 1:]
        found[:, 1:] += cho_solve(factor, slope)
    return np.asarray(found.astype(np.float32))


def _newton(
    x: np.ndarray, t: np.ndarray, w: np.ndarray, penalty: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Maximum of the penalised likelihood, float64 [p], and minus the second derivative there."""
    beta = np.zeros(x.shape[1])
    value = _penalised(x, t, w, penalty, beta)
    for _ in range(_NEWTON_STEPS):
        p = _expit(x @ beta.astype(np.float32))
        slope = (x.T @ (w * (t - p))).astype(np.float64) - penalty * beta
        root = np.sqrt(np.maximum(w * p * (1 - p), 0))[:, None] * x
        hessian = (root.T @ root).astype(np.float64) + np.diag(penalty)
        step = np.linalg.solve(hessian, slope)
        gain = float(step @ slope)
        if gain < 1e-6:
            break
        length = 1.0
        while length > 1e-3:
            trial = _penalised(x, t, w, penalty, beta + length * step)
            if trial >= value:
                break
            length /= 2
        beta, value = beta + length * step, trial
    return beta, hessian


def _penalised(
    x: np.ndarray, t: np.ndarray, w: np.ndarray, penalty: np.ndarray, beta: np.ndarray
) -> float:
    z = (x @ beta.astype(np.float32)).astype(np.float64)
    return float(w @ (t * z - np.logaddexp(0, z)) - (penalty * beta**2).sum() / 2)


def _expit(z: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-np.clip(z, -30, 30))))


def _auc(score: np.ndarray, is_target: np.ndarray) -> float:
    """Chance that a target image has the higher score, ties counting half (Mann and Whitney)."""
    n2 = int(is_target.sum())
    n1 = len(score) - n2
    return float((rankdata(score)[is_target].sum() - n2 * (n2 + 1) / 2) / (n1 * n2))


def _calibration(log_odds: np.ndarray, is_target: np.ndarray) -> float:
    order = np.argsort(log_odds)
    p, t = _expit(log_odds[order]), is_target[order].astype(float)
    return float(
        sum(abs(part.sum()) for part in np.array_split(p - t, min(_BINS, len(p)))) / len(p)
    )
