"""Gaps per class, shrunken because with few images most of their spread is chance (G4)."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import minimize
from scipy.special import betaln, expit, gammaln, logit

from models.estimate import TAILS, Estimate
from models.gap.excess import benjamini_hochberg, excess_p_values

N_DRAWS = 4000
_LOG_S_MAX = 10.0
_LOG_S_GRID = tuple(np.linspace(0, 8, 17))
_LR_FLOOR = 2.71  # χ² mixture at a boundary: below it the extra spread is not there


@dataclass(frozen=True)
class ClassModel:
    """How the target's class accuracies follow from the reference's.

    k2 ~ BetaBinomial(n2, m s, (1 − m) s), m = expit(a + b · logit((k1 + ½) / (n1 + 1))).

    Attributes
    ----------
    a, b, s : maximum-likelihood estimates; large s means little spread beyond chance
    lr : 2 (log-likelihood − that of the binomial model); s is at its bound where it is below 2.71
    """

    a: float
    b: float
    s: float
    lr: float

    def mean(self, k1: Int[np.ndarray, " k"], n1: Int[np.ndarray, " k"]) -> np.ndarray:
        """Accuracy m that the model expects of each class on the target, float64 [k]."""
        return _expected(self.a, self.b, k1, n1)


@dataclass(frozen=True)
class ClassGap:
    """One class on both sets.

    Attributes
    ----------
    class_id : the class
    n_reference, n_target : its images
    accuracy_reference, accuracy_target : raw shares of 1; None without images
    raw : raw gap, reference minus target; None where either set has no image of the class
    shrunken : posterior gap with its 95 % interval; null where raw is None
    shrunken_reference, shrunken_target : accuracies of which it is the difference; None with raw
    expected_target : accuracy m that the model expects on the target; None with raw
    p_exceeds : posterior probability that the class's gap is above the common gap: a description,
        not a test
    excess : raw gap minus the common gap; None where raw is None
    q_value : p-value of the test that the class's gap is the common gap, adjusted for looking at
        all classes (`models.gap.excess`); None where raw is None
    """

    class_id: int
    n_reference: int
    n_target: int
    accuracy_reference: float | None
    accuracy_target: float | None
    raw: float | None
    shrunken: Estimate
    shrunken_reference: float | None
    shrunken_target: float | None
    expected_target: float | None
    p_exceeds: float | None
    excess: float | None
    q_value: float | None


def class_counts(
    labels: Int[np.ndarray, " n"], correct: np.ndarray, class_ids: Int[np.ndarray, " k"]
) -> tuple[Int[np.ndarray, " k"], Int[np.ndarray, " k"]]:
    """Images right and images in all of each class, int64 [k] twice; absent classes count 0.

    Examples
    --------
    >>> class_counts(np.array([3, 3, 9]), np.array([True, False, True]), np.array([3, 5, 9]))
    (array([1, 0, 1]), array([2, 0, 1]))
    """
    column = np.searchsorted(class_ids, labels)
    right = np.bincount(column[correct.astype(bool)], minlength=len(class_ids))
    return right, np.bincount(column, minlength=len(class_ids))


def fit_class_model(
    k1: Int[np.ndarray, " k"],
    n1: Int[np.ndarray, " k"],
    k2: Int[np.ndarray, " k"],
    n2: Int[np.ndarray, " k"],
) -> ClassModel:
    """Fit a, b and s by maximum likelihood over classes with images in both sets.

    Parameters
    ----------
    k1, n1, k2, n2
        Images right and in all, on the reference and on the target, per class.
    """
    both = (n1 > 0) & (n2 > 0)
    k1, n1, k2, n2 = k1[both], n1[both], k2[both], n2[both]
    x = logit((k1 + 0.5) / (n1 + 1))
    choose = gammaln(n2 + 1) - gammaln(k2 + 1) - gammaln(n2 - k2 + 1)

    def binomial(p: np.ndarray) -> float:
        z = p[0] + p[1] * x
        # log m and log(1 - m) without overflow
        return float(-(choose - k2 * np.logaddexp(0, -z) - (n2 - k2) * np.logaddexp(0, z)).sum())

    def beta_binomial(p: np.ndarray) -> float:
        m = np.clip(expit(p[0] + p[1] * x), 1e-9, 1 - 1e-9)
        s = np.exp(p[2])
        inside = betaln(k2 + m * s, n2 - k2 + (1 - m) * s) - betaln(m * s, (1 - m) * s)
        return float(-(choose + inside).sum())

    bounds = [(-20.0, 20.0), (-10.0, 10.0)]
    # with fewer than three classes a slope cannot be told from chance
    slope = bounds[1] if len(x) > 2 else (1.0, 1.0)
    narrow = minimize(binomial, [0.0, 1.0], bounds=[bounds[0], slope], method="L-BFGS-B")
    wide = min(
        (
            minimize(
                beta_binomial,
                [*narrow.x, start],
                bounds=[bounds[0], slope, (-3.0, _LOG_S_MAX)],
                method="L-BFGS-B",
            )
            for start in (1.0, 3.0, 6.0)
        ),
        key=lambda found: float(found.fun),
    )
    lr = 2 * float(narrow.fun - wide.fun)
    if lr < _LR_FLOOR:
        return ClassModel(float(narrow.x[0]), float(narrow.x[1]), float(np.exp(_LOG_S_MAX)), lr)
    return ClassModel(float(wide.x[0]), float(wide.x[1]), float(np.exp(wide.x[2])), lr)


def by_counts(*counts: Int[np.ndarray, " k"]) -> Int[np.ndarray, " k"]:
    """Return an order of classes that does not depend on how they are numbered.

    What draws by chance class by class in this order gives the same however classes are named:
    those of equal counts are one like the other.

    Examples
    --------
    >>> by_counts(np.array([5, 2, 5]), np.array([9, 9, 7])).tolist()
    [1, 2, 0]
    """
    return np.lexsort(counts[::-1])


def common_gap(
    k1: Int[np.ndarray, " k"],
    n1: Int[np.ndarray, " k"],
    k2: Int[np.ndarray, " k"],
    n2: Int[np.ndarray, " k"],
) -> float | None:
    """Mean gap of the classes in both sets at the reference's mix of classes.

    G itself where both sets have the same mix, and free of label shift where they do not; None
    where no class is in both.

    Examples
    --------
    >>> nine, ten, twenty = np.array([9, 8]), np.array([10, 10]), np.array([20, 0])
    >>> round(common_gap(nine, ten, np.array([16, 0]), twenty), 3)
    0.1
    """
    both = (n1 > 0) & (n2 > 0)
    if not both.any():
        return None
    gaps = k1[both] / n1[both] - k2[both] / n2[both]
    return float((n1[both] / n1[both].sum()) @ gaps)


def class_gaps(
    class_ids: Int[np.ndarray, " k"],
    k1: Int[np.ndarray, " k"],
    n1: Int[np.ndarray, " k"],
    k2: Int[np.ndarray, " k"],
    n2: Int[np.ndarray, " k"],
    *,
    seed: int,
) -> tuple[list[ClassGap], ClassModel | None]:
    """Gap of each class, raw and shrunken, largest shrunken gap first.

    The shrunken gap is (k1 + ½) / (n1 + 1) minus the posterior mean of the target's accuracy,
    (k2 + m s) / (n2 + s), at the maximum-likelihood a, b and s. Its interval and P(class gap >
    common gap) come from posterior draws that draw a, b and s too, with Beta(k1 + ½, n1 − k1 + ½)
    on the reference's side: taking them as known would leave out most of the uncertainty where
    classes are few or alike. Classes of equal counts share their draws, so that they have the same
    interval, and numbering the classes otherwise changes nothing.

    A set with nothing but right images, or nothing but wrong ones, shows no class that differs
    from another: its classes take the set's own share, 1 or 0, on either side. With the half image
    the reference alone would give a little of that away, and two perfect sets would show a gap.

    Parameters
    ----------
    class_ids
        The classes.
    k1, n1, k2, n2
        Images right and in all, on the reference and on the target, per class.
    seed
        Of the draws.

    Returns
    -------
    gaps, model
        `model` is None where no class has images in both sets.
    """
    order = by_counts(k1, n1, k2, n2)
    class_ids, k1, n1, k2, n2 = (column[order] for column in (class_ids, k1, n1, k2, n2))
    alone = [
        _one_sided(*row) for row in _by_class(class_ids, k1, n1, k2, n2) if not row[2] * row[4]
    ]
    both = (n1 > 0) & (n2 > 0)
    class_ids, k1, n1, k2, n2 = (column[both] for column in (class_ids, k1, n1, k2, n2))
    common = common_gap(k1, n1, k2, n2)
    if common is None:
        return sorted(alone, key=lambda gap: gap.class_id), None
    model = fit_class_model(k1, n1, k2, n2)
    m = model.mean(k1, n1)
    on_reference = _own_share(k1, n1, (k1 + 0.5) / (n1 + 1))
    on_target = _own_share(k2, n2, (k2 + m * model.s) / (n2 + model.s))
    shrunken = on_reference - on_target
    draws = _posterior_draws(k1, n1, k2, n2, model, seed)
    above = (draws > (draws @ (n1 / n1.sum()))[:, None]).mean(axis=0)
    low, high, exceeds = (np.empty(len(k1)) for _ in range(3))
    is_first = np.diff(np.stack([k1, n1, k2, n2]), axis=1, prepend=-1).any(axis=0)
    for alike in np.split(np.arange(len(k1)), np.flatnonzero(is_first)[1:]):
        low[alike], high[alike] = np.quantile(draws[:, alike], TAILS)
        exceeds[alike] = above[alike].mean()
    # where a set is perfect, the draws lie on one side of it
    low, high = np.minimum(low, shrunken), np.maximum(high, shrunken)
    if -1 < common < 1:
        q = benjamini_hochberg(excess_p_values(k1, n1, k2, n2, gap=common))
    else:  # every class is all right on one set and all wrong on the other
        q = np.ones(len(k1))
    gaps = []
    for i, (class_id, right1, all1, right2, all2) in enumerate(
        _by_class(class_ids, k1, n1, k2, n2)
    ):
        raw = right1 / all1 - right2 / all2
        gaps.append(
            ClassGap(
                class_id=class_id,
                n_reference=all1,
                n_target=all2,
                accuracy_reference=right1 / all1,
                accuracy_target=right2 / all2,
                raw=raw,
                shrunken=Estimate(
                    float(shrunken[i]),
                    float(low[i]),
                    float(high[i]),
                    f"beta-binomial shrinkage, {N_DRAWS} posterior draws",
                    {"reference": all1, "target": all2},
                    "fraction",
                    seed=seed,
                ),
                shrunken_reference=float(on_reference[i]),
                shrunken_target=float(on_target[i]),
                expected_target=float(m[i]),
                p_exceeds=float(exceeds[i]),
                excess=raw - common,
                q_value=float(q[i]),
            )
        )

    def largest_first(gap: ClassGap) -> tuple[bool, float, int]:
        value = gap.shrunken.estimate
        return value is None, 0.0 if value is None else -value, gap.class_id

    return sorted(gaps + alone, key=largest_first), model


def _own_share(k: np.ndarray, n: np.ndarray, estimated: np.ndarray) -> np.ndarray:
    """Accuracies as estimated, or the set's own where it is 0 or 1."""
    return k / n if k.sum() in (0, n.sum()) else estimated


def _posterior_draws(
    k1: np.ndarray,
    n1: np.ndarray,
    k2: np.ndarray,
    n2: np.ndarray,
    model: ClassModel,
    seed: int,
) -> Float[np.ndarray, "draws k"]:
    """Draws of each class's gap, with a, b and log s drawn as well.

    log s lies on a grid with equal prior weights; given it, (a, b) is normal round its posterior
    mode (Laplace), with the weak priors a ~ N(0, 5²) and b ~ N(1, 2²), which matter only where
    classes are too few or too alike to tell.
    """
    design = np.column_stack([np.ones(len(k1)), logit((k1 + 0.5) / (n1 + 1))])

    def minus_log_posterior(ab: np.ndarray, s: float) -> float:
        m = np.clip(expit(design @ ab), 1e-9, 1 - 1e-9)
        inside = betaln(k2 + m * s, n2 - k2 + (1 - m) * s) - betaln(m * s, (1 - m) * s)
        return float(-inside.sum() + ab[0] ** 2 / 50 + (ab[1] - 1) ** 2 / 8)

    modes, spreads, weights = [], [], []
    start = np.clip([model.a, model.b], -5, 5)
    for log_s in _LOG_S_GRID:
        found = minimize(minus_log_posterior, start, args=(np.exp(log_s),), method="BFGS")
        start = found.x
        modes.append(found.x)
        spread = _covariance(found.hess_inv)
        spreads.append(spread)
        weights.append(-found.fun + 0.5 * np.linalg.slogdet(spread)[1])
    rng = np.random.default_rng(seed)
    probability = np.exp(np.array(weights) - max(weights))
    place = rng.choice(len(_LOG_S_GRID), N_DRAWS, p=probability / probability.sum())
    ab = np.empty((N_DRAWS, 2))
    for i in np.unique(place):
        mine = place == i
        ab[mine] = rng.multivariate_normal(modes[i], spreads[i], mine.sum())
    s = np.exp(np.array(_LOG_S_GRID)[place])[:, None]
    m = np.clip(expit(ab @ design.T), 1e-9, 1 - 1e-9)
    on_reference = rng.beta(k1 + 0.5, n1 - k1 + 0.5, size=(N_DRAWS, len(k1)))
    on_target = rng.beta(k2 + m * s, n2 - k2 + (1 - m) * s)
    return np.asarray(on_reference - on_target)


def _covariance(matrix: np.ndarray) -> np.ndarray:
    """Return the covariance nearest to what BFGS updated, which keeps neither symmetry nor sign."""
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    values = np.maximum(values, 1e-8 * max(values.max(), 1e-8))
    return np.asarray((vectors * values) @ vectors.T)


def _expected(a: float, b: float, k1: np.ndarray, n1: np.ndarray) -> np.ndarray:
    m = expit(a + b * logit((k1 + 0.5) / (n1 + 1)))
    return np.asarray(np.clip(m, 1e-9, 1 - 1e-9))


def _by_class(*columns: np.ndarray) -> list[tuple[int, int, int, int, int]]:
    return list(zip(*(column.tolist() for column in columns), strict=True))


def _one_sided(class_id: int, k1: int, n1: int, k2: int, n2: int) -> ClassGap:
    missing = "either set" if not (n1 or n2) else "the reference" if not n1 else "the target"
    return ClassGap(
        class_id=class_id,
        n_reference=n1,
        n_target=n2,
        accuracy_reference=k1 / n1 if n1 else None,
        accuracy_target=k2 / n2 if n2 else None,
        raw=None,
        shrunken=Estimate.unknown(
            f"no images of this class in {missing}",
            n={"reference": n1, "target": n2},
            unit="fraction",
        ),
        shrunken_reference=None,
        shrunken_target=None,
        expected_target=None,
        p_exceeds=None,
        excess=None,
        q_value=None,
    )
