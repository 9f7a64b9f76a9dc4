"""How much of errors and gap is left when a second opinion judges the labels (G16).

A second opinion is either a set of right classes per image (ReaL) or a verdict on the given label
alone (reviewers' votes). Images that it does not know keep their label; images to which it gives
no label, or whose label it doubts without naming another, are left out, and counted.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int

from models.estimate import Estimate, share
from models.gap.resampling import Replicates

_ONE_SET = "one set only: nothing is known of the labels of the other"
_NO_GAP = "the gap itself is not told from 0"


@dataclass(frozen=True)
class Judged:
    """What a second opinion says of the images of one test set, and of a model's answers there.

    Attributes
    ----------
    known : images that it judges, bool [n]
    dropped : of these, images left out: no class is right, or the label is doubted, bool [n]
    right : whether the answer is right: by the second opinion where it is known, else by the given
        label, bool [n]; without meaning where dropped
    corrects : whether it says which classes are right, so that it can call an error right
    """

    known: Bool[np.ndarray, " n"]
    dropped: Bool[np.ndarray, " n"]
    right: Bool[np.ndarray, " n"]
    corrects: bool = True


@dataclass(frozen=True)
class SetQuality:
    """One test set by given labels and by the second opinion.

    Attributes
    ----------
    n, n_known, n_dropped : images, of these judged, of these left out
    accuracy : by given labels, of all images
    accuracy_judged : of the images that are not left out, by the second opinion where it is known
    error_gone : accuracy_judged − accuracy, the error that disappears
    share_of_error_gone : that, as a share of the error
    errors_called_right : share of the errors on judged images, those left out apart, that the
        second opinion calls right
    errors_dropped : share of the errors on judged images that are left out
    right_called_wrong : share of the right answers on judged images, those left out apart, that it
        calls wrong
    """

    n: int
    n_known: int
    n_dropped: int
    accuracy: Estimate
    accuracy_judged: Estimate
    error_gone: Estimate
    share_of_error_gone: Estimate
    errors_called_right: Estimate
    errors_dropped: Estimate
    right_called_wrong: Estimate


@dataclass(frozen=True)
class LabelQuality:
    """Both sets, and the gap by given labels and by the second opinion.

    Attributes
    ----------
    reference, target : None where the second opinion knows no image of the set
    gap : by given labels
    gap_judged : by the second opinion; null where it knows one set only
    gap_gone : gap − gap_judged
    share_of_gap_gone : that, as a share of the gap; null where the gap is not told from 0
    """

    reference: SetQuality | None
    target: SetQuality | None
    gap: Estimate
    gap_judged: Estimate
    gap_gone: Estimate
    share_of_gap_gone: Estimate


def in_sets(
    sets: Sequence[Collection[int]], which: Int[np.ndarray, " n"], answers: Int[np.ndarray, " n"]
) -> Bool[np.ndarray, " n"]:
    """Whether each image's answer is in its set of classes.

    Parameters
    ----------
    sets
        Distinct sets of class ids.
    which
        Number of each image's set; −1: it has none, and no answer is in it.
    answers
        Class ids.

    Examples
    --------
    >>> in_sets([{1}, {1, 2}], np.array([0, 1, -1]), np.array([2, 2, 2])).tolist()
    [False, True, False]
    """
    pairs = np.array([(i, c) for i, one in enumerate(sets) for c in one], np.int64).reshape(-1, 2)
    span = int(max(pairs[:, 1].max(initial=0), answers.max(initial=0))) + 1
    return np.asarray((which >= 0) & np.isin(which * span + answers, pairs @ np.array([span, 1])))


def by_sets(
    sets: Sequence[Collection[int]],
    which: Int[np.ndarray, " n"],
    known: Bool[np.ndarray, " n"],
    answers: Int[np.ndarray, " n"],
    correct: Bool[np.ndarray, " n"],
) -> Judged:
    """Answers held against sets of right classes.

    Parameters
    ----------
    sets, which, answers
        As in `in_sets`; a known image of an empty set, or of none, has no label.
    known
        Images that the sets are known of.
    correct
        Whether each answer is right by the given label.

    Examples
    --------
    >>> found = by_sets([{1}, set()], np.array([0, 1, -1]), np.array([True, True, False]),
    ...                 np.array([1, 1, 1]), np.array([False, True, True]))
    >>> found.dropped.tolist(), found.right.tolist()
    ([False, True, False], [True, False, True])
    """
    is_empty = np.array([len(one) == 0 for one in sets] + [True])  # the last stands for −1
    return Judged(
        known, known & is_empty[which], np.where(known, in_sets(sets, which, answers), correct)
    )


def by_votes(
    votes: Mapping[str, Float[np.ndarray, " n"]],
    labels: Int[np.ndarray, " n"],
    answers: Int[np.ndarray, " n"],
    guessed_label: Float[np.ndarray, " n"] | None = None,
) -> Judged:
    """Answers held against what most reviewers say of two classes, the given one and a guess.

    Where most say `given`, the given class is right; where most say `both`, or `guessed`, so is the
    guess; where most say `neither`, or there is no majority, the image is left out.

    Parameters
    ----------
    votes
        `given`, `guessed`, `both`, `neither`: reviewers that say so of each image; a negative
        number or NaN: not reviewed.
    labels, answers
        Given and predicted class ids.
    guessed_label
        The guess; without it images for which most prefer it are left out.

    Source: C. Northcutt, A. Athalye and J. Mueller (2021), Pervasive label errors in test sets,
    NeurIPS Datasets and Benchmarks.
    """
    names = ("given", "guessed", "both", "neither")
    count = np.column_stack([votes.get(name, np.zeros(len(labels))) for name in names])
    known = (np.isfinite(count) & (count >= 0)).all(axis=1) & (np.nan_to_num(count).sum(axis=1) > 0)
    total = np.where(known, count.sum(axis=1), 1.0)[:, None]
    given, guessed, both, _ = ((count > total / 2) & known[:, None]).T
    correct = answers == labels
    if guessed_label is None:
        return Judged(known, known & ~(given | both), correct, corrects=False)
    right = np.where(
        known, correct & (given | both) | (answers == guessed_label) & (guessed | both), correct
    )
    return Judged(known, known & ~(given | guessed | both), right)


def by_agreement(
    agreement: Float[np.ndarray, " n"], correct: Bool[np.ndarray, " n"], *, least: float = 0.5
) -> Judged:
    """Answers on images whose label is confirmed by at least this share of reviewers.

    Parameters
    ----------
    agreement
        Share of reviewers that gave the image its label; NaN: not reviewed.
    correct
        Whether each answer is right by the given label.

    Examples
    --------
    >>> by_agreement(np.array([0.9, 0.2, np.nan]), np.ones(3, bool)).dropped.tolist()
    [False, True, False]
    """
    known = np.isfinite(agreement)
    return Judged(known, known & (agreement < least), correct, corrects=False)


def label_quality(
    reference_correct: Bool[np.ndarray, " n1"],
    reference: Judged,
    target_correct: Bool[np.ndarray, " n2"],
    target: Judged,
    replicates: Replicates,
) -> LabelQuality:
    """Accuracies, errors and gap by given labels and by a second opinion (G16).

    Parameters
    ----------
    reference_correct, target_correct
        Whether each answer is right by the given label.
    reference, target
        What the second opinion says.
    replicates
        Bootstrap weights of both sets.
    """
    sides = [
        _Side(name, correct, judged, weights, replicates)
        for name, correct, judged, weights in (
            ("reference", reference_correct, reference, replicates.reference),
            ("target", target_correct, target, replicates.target),
        )
    ]
    gap = sides[0].given - sides[1].given
    judged = sides[0].judged - sides[1].judged
    n = {"reference": len(reference_correct), "target": len(target_correct)}
    n_kept = {side.name: side.n_kept for side in sides}
    found = replicates.estimate(gap)
    reason = None if all(side.what.known.any() for side in sides) else _ONE_SET
    if reason is None and not all(n_kept.values()):
        reason = "no image is left"
    if reason is not None:
        unknown = Estimate.unknown(reason, n=n, unit="fraction")
        return LabelQuality(sides[0].quality(), sides[1].quality(), found, *[unknown] * 3)
    told = found.low is not None and found.high is not None and (found.low > 0 or found.high < 0)
    return LabelQuality(
        sides[0].quality(),
        sides[1].quality(),
        found,
        replace(replicates.estimate(judged), n=n_kept),
        replace(replicates.estimate(gap - judged), n=n_kept),
        replace(replicates.estimate((gap - judged) / gap), n=n_kept)
        if told
        else Estimate.unknown(_NO_GAP, n=n_kept, unit="fraction"),
    )


class _Side:
    """One test set: its sums of weights over kinds of images, in each column."""

    def __init__(
        self, name: str, correct: np.ndarray, what: Judged, weights: np.ndarray, all_: Replicates
    ) -> None:
        self.name, self.correct, self.what = name, correct, what
        self._weights, self._all = weights, all_
        self._kept = ~what.dropped
        self.n_kept = int(self._kept.sum())
        self.given = self._ratio(correct, np.ones(len(correct), bool))
        self.judged = self._ratio(self._kept & what.right, self._kept)

    def quality(self) -> SetQuality | None:
        """Return what the second opinion makes of this set; None where it knows no image."""
        known, dropped, right = self.what.known, self.what.dropped, self.what.right
        if not known.any():
            return None
        wrong = ~self.correct
        n = {self.name: len(self.correct)}
        kept = {self.name: self.n_kept}
        settled = known & ~dropped
        gone = self.judged - self.given
        no_error = Estimate.unknown("the model makes no error here", n=n, unit="fraction")
        none_left = Estimate.unknown("no image is left", n=n, unit="fraction")
        has_error = bool(wrong.any())
        return SetQuality(
            n=len(self.correct),
            n_known=int(known.sum()),
            n_dropped=int(dropped.sum()),
            accuracy=self._estimate(self.given, n),
            accuracy_judged=self._estimate(self.judged, kept) if self.n_kept else none_left,
            error_gone=self._estimate(gone, kept) if self.n_kept else none_left,
            share_of_error_gone=(
                no_error
                if not has_error
                else self._estimate(_divided(gone, 1 - self.given), kept)
                if self.n_kept
                else none_left
            ),
            errors_called_right=(
                self._share(wrong & settled & right, wrong & settled, "no error on such images")
                if self.what.corrects
                else Estimate.unknown(
                    "it says whether a label is doubted, not which other class is right",
                    n=n,
                    unit="fraction",
                )
            ),
            errors_dropped=self._share(wrong & dropped, wrong & known, "no error on such images"),
            right_called_wrong=self._share(
                self.correct & settled & ~right, self.correct & settled, "no right answer there"
            ),
        )

    def _estimate(self, values: np.ndarray, n: dict[str, int]) -> Estimate:
        return replace(self._all.estimate(values), n=n)

    def _share(self, part: np.ndarray, whole: np.ndarray, reason: str) -> Estimate:
        k, of = int(part.sum()), int(whole.sum())
        n = {self.name: of}
        if of == 0:
            return Estimate.unknown(reason, n=n, unit="fraction")
        if k in (0, of):  # nothing varies that a bootstrap could see
            return replace(share(k, of), n=n)
        found = self._estimate(self._ratio(part, whole), n)
        assert found.low is not None
        assert found.high is not None
        return replace(found, low=max(0.0, found.low), high=min(1.0, found.high))

    def _ratio(self, part: np.ndarray, whole: np.ndarray) -> np.ndarray:
        sums = (self._weights[mask].sum(axis=0, dtype=np.float64) for mask in (part, whole))
        return _divided(*sums)


def _divided(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Quotient; where a replicate leaves nothing to divide by, the sample's."""
    fallback = a[0] / b[0] if b[0] else 0.0
    return np.asarray(np.divide(a, b, out=np.full(len(a), fallback), where=b > 0))
