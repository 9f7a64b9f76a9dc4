"""The gap accounted for: terms that sum to it, no order of them privileged (the ledger)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import comb

import numpy as np
from jaxtyping import Bool, Float, Int

from models.estimate import Estimate, Z
from models.gap.difference import newcombe
from models.gap.domain import REFUSE_SHARE, Separator, design, effective_share, refusal_by_auc
from models.gap.resampling import Replicates, replicates, weighted_accuracy

LABEL_SHIFT, REST = "label shift", "rest"
_EXACT = 6  # groups up to which every order is counted
_ORDERS = 60
_SMALLEST = 0.01  # points of a gap that a term is asked to be told from, whatever the gap

SUPPORTED = "supported"
NOT_DISTINGUISHABLE = "not distinguishable from 0"
UNDERPOWERED = "underpowered"
REFUSED = "refused (no overlap)"


@dataclass(frozen=True)
class Group:
    """Covariates that are one player of the game.

    Attributes
    ----------
    name : of the term
    values : one row an image, reference first; NaN where unknown
    assumes : what one must believe to read the term as that group's part, in words
    n_knots : of each covariate's spline
    """

    name: str
    values: Float[np.ndarray, "n q"]
    assumes: str
    n_knots: int = 6


@dataclass(frozen=True)
class Term:
    """One line of the ledger.

    Attributes
    ----------
    name : of the group, `label shift` or `rest`
    estimate : its part of the gap; null where it is refused (it then counts 0 in the sum)
    share : of the gap; None where the gap is not distinguishable from 0
    alone : what the group explains by itself, no other term beside it; None for the rest
    auc : how well the group alone tells the sets apart; None for label shift and rest
    effective_share : of the reference's images that re-weighting by the group alone leaves
    method, assumptions, verdict : in words
    """

    name: str
    estimate: Estimate
    share: float | None
    alone: Estimate | None
    auc: float | None
    effective_share: float | None
    method: str
    assumptions: str
    verdict: str


@dataclass(frozen=True)
class Overlap:
    """How much the two sets have in common in all groups of the game taken together.

    Attributes
    ----------
    auc, calibration_error : of the domain classifier, out of fold; None without any group
    effective_share : of the reference's images, under the weights that give it the target's
        covariates
    """

    auc: float | None
    calibration_error: float | None
    effective_share: float | None


@dataclass(frozen=True)
class Ledger:
    """The gap, and terms that sum to it.

    Attributes
    ----------
    gap : accuracy on the reference minus accuracy on the target (Newcombe)
    terms : label shift, each group, and last the rest; estimates sum to the gap's
    overlap : of the groups that take part
    """

    gap: Estimate
    terms: list[Term]
    overlap: Overlap


def ledger(
    reference_labels: Int[np.ndarray, " n1"],
    reference_correct: Bool[np.ndarray, " n1"],
    target_labels: Int[np.ndarray, " n2"],
    target_correct: Bool[np.ndarray, " n2"],
    groups: Sequence[Group],
    *,
    seed: int,
    progress: Callable[[float, str], None] = lambda _share, _message: None,
) -> Ledger:
    """Account for the gap between two test sets.

    Label shift comes first, since it is known without a model: the reference is re-weighted to the
    target's mix of classes from then on. v(S) is the reference's accuracy re-weighted to the
    target's covariates of the groups in S by cross-fitted odds of membership (`models.gap.domain`);
    a group's term is its Shapley value, the mean over all orders of what it adds when it joins;
    the rest is what all groups together leave of the gap. Up to six groups every order counts,
    beyond that 60 orders are drawn. A group that tells the sets apart with AUC above .95, or
    would leave less than a twentieth of the reference's images as an effective sample, is refused;
    where groups do so only together, the one with the largest AUC leaves until they do not.
    Every replicate of the bootstrap refits the whole.

    Parameters
    ----------
    reference_labels, reference_correct, target_labels, target_correct
        Class ids, and whether the head is right; the head was fitted on other rows.
    groups
        The players.
    seed
        Of folds, bootstrap and orders.
    progress
        Called with the share done and a message.

    Source: L. S. Shapley (1953), A value for n-person games; T. T. Cai, H. Namkoong, S. Yadlowsky
    (2023), Diagnosing Model Performance Under Distribution Shift, for re-weighting by the odds.
    """
    first, second, ids, groups = _in_order(
        reference_labels, reference_correct, target_labels, target_correct, groups
    )
    reference_correct, target_correct = reference_correct[first], target_correct[second]
    reference_labels, target_labels = ids[: len(first)], ids[len(first) :]
    drawn = replicates(reference_labels, target_labels, seed=seed)
    base = class_mix_weights(reference_labels, target_labels)
    game = _Game(
        reference_correct,
        Separator(
            drawn,
            np.concatenate([reference_labels, target_labels]),
            base=None if base is None else np.concatenate([base, np.ones(len(target_labels))]),
            seed=seed,
        ),
        groups,
        progress,
    )
    n_right = int(reference_correct.sum()), int(target_correct.sum())
    gap = newcombe(n_right[0], len(reference_correct), n_right[1], len(target_correct))
    a1 = weighted_accuracy(reference_correct, drawn.reference)
    a2 = weighted_accuracy(target_correct, drawn.target)
    values = game.shapley(np.random.default_rng(seed))
    start = game.value(frozenset())
    judge = _Judge(gap, drawn)
    terms = [
        judge.label_shift(
            None if base is None else a1 - start,
            _spread_of_mixes(reference_labels, reference_correct, target_labels),
        )
    ]
    for i, group in enumerate(groups):
        if i in game.refused:
            terms.append(judge.refused(group, game.alone(i), game.refused[i]))
        else:
            terms.append(judge.term(group, values[i], start - game.value(frozenset([i])), game, i))
    rest = a1 - a2 - sum((values[i] for i in values), (a1 - start if base is not None else 0 * a1))
    terms.append(judge.rest(rest, terms))
    return Ledger(gap, terms, game.overlap())


def _in_order(
    reference_labels: np.ndarray,
    reference_correct: np.ndarray,
    target_labels: np.ndarray,
    target_correct: np.ndarray,
    groups: Sequence[Group],
) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[Group]]:
    """Rows by what is known of them, classes by their first row: folds then hang on nothing else.

    Returns the order of each set's rows, class numbers of all rows in it, and the groups in it.
    """
    n = len(reference_labels)
    columns = [group.values[:, j] for group in groups for j in range(group.values.shape[1])]
    keys = [*columns, np.concatenate([reference_correct, target_correct])]
    first = np.lexsort([key[:n] for key in keys])
    second = np.lexsort([key[n:] for key in keys])
    order = np.concatenate([first, n + second])
    labels = np.concatenate([reference_labels, target_labels])[order]
    _, place, column = np.unique(labels, return_index=True, return_inverse=True)
    ids = np.argsort(np.argsort(place))[column]
    return first, second, ids, [replace(group, values=group.values[order]) for group in groups]


def class_mix_weights(
    reference_labels: Int[np.ndarray, " n1"], target_labels: Int[np.ndarray, " n2"]
) -> Float[np.ndarray, " n1"] | None:
    """Weights that give the reference the target's mix of classes; None where it lacks one.

    Examples
    --------
    >>> class_mix_weights(np.array([0, 0, 1]), np.array([0, 1])).tolist()
    [0.75, 0.75, 1.5]
    """
    ids, column = np.unique(reference_labels, return_inverse=True)
    if not np.isin(target_labels, ids).all():
        return None
    n1 = np.bincount(column, minlength=len(ids))
    n2 = np.bincount(np.searchsorted(ids, target_labels), minlength=len(ids))
    return np.asarray((n2 * len(reference_labels)) / (n1 * len(target_labels)))[column]


def verdict(found: Estimate, gap: Estimate) -> str:
    """Say what the interval of a term of a gap shows.

    Examples
    --------
    >>> gap = Estimate(0.1, 0.08, 0.12, "", {}, "fraction")
    >>> verdict(Estimate(0.01, -0.01, 0.03, "", {}, "fraction"), gap)
    'not distinguishable from 0'
    """
    assert found.low is not None
    assert found.high is not None
    if found.low > 0 or found.high < 0:
        return SUPPORTED
    # an interval that also holds a term worth naming shows neither
    worth = max(abs(gap.estimate or 0.0) / 2, _SMALLEST)
    return UNDERPOWERED if max(-found.low, found.high) >= worth else NOT_DISTINGUISHABLE


def _spread_of_mixes(
    reference_labels: np.ndarray, reference_correct: np.ndarray, target_labels: np.ndarray
) -> float:
    """Return the standard error of Σ (p_c − q_c) a1_c where the classes are drawn as well.

    Replicates keep each set's mix as it is, so that this part is not in them.
    """
    ids, column = np.unique(reference_labels, return_inverse=True)
    n1 = np.bincount(column)
    accuracy = np.bincount(column, reference_correct) / n1
    there = np.searchsorted(ids, target_labels[np.isin(target_labels, ids)])
    variances = [float(np.var(accuracy[one])) / len(one) for one in (column, there) if len(one)]
    return float(np.sqrt(sum(variances)))


def _refusal(auc: float, _calibration_error: float, share: float) -> str | None:
    """Return why images of the one set cannot stand for the other's, or None."""
    if share >= REFUSE_SHARE or refusal_by_auc(auc) is not None:
        return refusal_by_auc(auc)
    return (
        f"re-weighting by it would leave {share:.1%} of the reference's images, below "
        f"{REFUSE_SHARE:.0%}: a handful would speak for the whole target"
    )


class _Game:
    """v(S) for sets of groups, each computed once."""

    def __init__(
        self,
        correct: np.ndarray,
        separator: Separator,
        groups: Sequence[Group],
        progress: Callable[[float, str], None],
    ) -> None:
        self._correct, self._separator = correct, separator
        self._progress = progress
        self._names = [group.name for group in groups]
        self._designs = [
            design(group.values, separator.is_target, n_knots=group.n_knots) for group in groups
        ]
        self._values: dict[frozenset[int], np.ndarray] = {}
        self._domains: dict[frozenset[int], tuple[float, float, float]] = {}
        self._expected = 1
        self.refused: dict[int, str] = {}
        for i in range(len(groups)):
            self.value(frozenset([i]))
        self._refuse()
        self._players = [i for i in range(len(groups)) if i not in self.refused]

    def _refuse(self) -> None:
        for i in range(len(self._names)):
            why = _refusal(*self.alone(i))
            if why is not None:
                self.refused[i] = why
        players = [i for i in range(len(self._names)) if i not in self.refused]
        while len(players) > 1:
            self.value(frozenset(players))
            why = _refusal(*self._domains[frozenset(players)])
            if why is None:
                return
            worst = max(players, key=lambda i: self.alone(i)[0])
            self.refused[worst] = f"together with the other groups {why}"
            players.remove(worst)

    def alone(self, i: int) -> tuple[float, float, float]:
        """AUC, calibration error and effective share of one group by itself."""
        return self._domains[frozenset([i])]

    def value(self, players: frozenset[int]) -> np.ndarray:
        """v, float64 [1 + m]."""
        if players not in self._values:
            if not players:
                weights = self._separator.base_weights
            else:
                names = ", ".join(self._names[i] for i in sorted(players))
                self._progress(
                    min(0.99, len(self._values) / self._expected), f"re-weighting by {names}"
                )
                domain = self._separator.fit(
                    np.concatenate([self._designs[i] for i in sorted(players)], axis=1)
                )
                weights = self._separator.reference_weights(domain)
                self._domains[players] = (
                    domain.auc,
                    domain.calibration_error,
                    effective_share(weights[:, 0]),
                )
            self._values[players] = weighted_accuracy(self._correct, weights)
        return self._values[players]

    def shapley(self, rng: np.random.Generator) -> dict[int, np.ndarray]:
        """Shapley value of −v for each player that is not refused, float64 [1 + m]."""
        n = len(self._players)
        if n > _EXACT:
            return self._sampled(rng)
        self._expected = 2**n + len(self.refused)
        found = {}
        for i in self._players:
            others = [j for j in self._players if j != i]
            found[i] = sum(
                (self.value(frozenset(s)) - self.value(frozenset([*s, i])))
                / (n * comb(n - 1, len(s)))
                for size in range(n)
                for s in combinations(others, size)
            )
        return {i: np.asarray(value) for i, value in found.items()}

    def _sampled(self, rng: np.random.Generator) -> dict[int, np.ndarray]:
        """Mean over drawn orders, each with its reverse, which cancels most of the chance."""
        self._expected = _ORDERS * len(self._players)
        found = {i: np.zeros_like(self.value(frozenset())) for i in self._players}
        for _ in range(_ORDERS // 2):
            order = rng.permutation(self._players).tolist()
            for one in (order, order[::-1]):
                for place, i in enumerate(one):
                    before = frozenset(one[:place])
                    found[i] += (self.value(before) - self.value(before | {i})) / _ORDERS
        return found

    def overlap(self) -> Overlap:
        """Of all players together."""
        if not self._players:
            return Overlap(None, None, None)
        self.value(frozenset(self._players))
        return Overlap(*self._domains[frozenset(self._players)])


class _Judge:
    """Makes lines of the ledger: interval, share and verdict of each term."""

    def __init__(self, gap: Estimate, drawn: Replicates) -> None:
        self._gap, self._drawn = gap, drawn

    def label_shift(self, values: np.ndarray | None, spread_of_mixes: float) -> Term:
        assumes = (
            "within a class, images of both sets are alike as far as accuracy goes; known from the "
            "labels alone"
        )
        method = "Σ (p_c − q_c) a1_c over classes c"
        if values is None:
            return Term(
                LABEL_SHIFT, self._null("the target has a class that the reference lacks"), None,
                None, None, None, method, assumes, REFUSED,
            )  # fmt: skip
        if not values.any():  # the same mix in both: no chance is left
            zero = Estimate(0.0, 0.0, 0.0, "exact: both sets have the same mix of classes",
                            self._drawn.n, "fraction")  # fmt: skip
            return Term(LABEL_SHIFT, zero, self._share(0.0), zero, None, None, method, assumes,
                        NOT_DISTINGUISHABLE)  # fmt: skip
        found = self._drawn.estimate(values)
        assert found.estimate is not None
        assert found.high is not None
        half = float(np.hypot(found.high - found.estimate, Z * spread_of_mixes))
        found = replace(
            found,
            low=found.estimate - half,
            high=found.estimate + half,
            method=f"{found.method}; with the chance of each set's mix of classes",
        )
        return self._line(LABEL_SHIFT, found, found, None, None, method, assumes)

    def term(
        self, group: Group, values: np.ndarray, alone: np.ndarray, game: _Game, i: int
    ) -> Term:
        auc, _, effective = game.alone(i)
        return self._line(
            group.name,
            self._drawn.estimate(values),
            self._drawn.estimate(alone),
            auc,
            effective,
            "Shapley value of re-weighting by cross-fitted odds (splines, logistic regression)",
            group.assumes,
        )

    def refused(self, group: Group, alone: tuple[float, float, float], why: str) -> Term:
        return Term(
            group.name, self._null(why), None, self._null(why), alone[0], alone[2],
            "none", group.assumes, REFUSED,
        )  # fmt: skip

    def rest(self, values: np.ndarray, terms: Sequence[Term]) -> Term:
        found = self._drawn.estimate(values)
        # the sum of the terms is the gap, to the last digit that floats have
        known = sum(term.estimate.estimate or 0.0 for term in terms)
        exact = (self._gap.estimate or 0.0) - known
        shifted = replace(found, estimate=exact)
        if found.low == found.high:
            # images that are all right, or all wrong, are drawn again so: that shows no certainty
            gap, how = self._gap, "Newcombe's interval of the gap: no replicate differs"
            if gap.estimate is not None and gap.low is not None and gap.high is not None:
                low, high = exact + gap.low - gap.estimate, exact + gap.high - gap.estimate
                shifted = replace(shifted, low=low, high=high, method=how)
        return self._line(
            REST, shifted, None, None, None, "the gap minus all other terms",
            "what none of the groups shows: label noise, another meaning of a class, difficulty "
            "that no group sees, and terms that were refused; the data cannot tell these apart",
        )  # fmt: skip

    def _line(
        self, name: str, found: Estimate, alone: Estimate | None, auc: float | None,
        effective: float | None, method: str, assumes: str,
    ) -> Term:  # fmt: skip
        assert found.estimate is not None
        return Term(
            name, found, self._share(found.estimate), alone, auc, effective, method, assumes,
            verdict(found, self._gap),
        )  # fmt: skip

    def _share(self, value: float) -> float | None:
        gap = self._gap
        if gap.estimate is None or gap.low is None or gap.high is None or gap.low <= 0 <= gap.high:
            return None
        return value / gap.estimate

    def _null(self, reason: str) -> Estimate:
        return Estimate.unknown(reason, n=self._drawn.n, unit="fraction")
