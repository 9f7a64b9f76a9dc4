"""The strongest findings of all parts in sentences, and what these data cannot tell."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
from pydantic import Field
from scipy.stats import norm

from models.estimate import Z
from models.gap.excess import holm
from service.gap import PARTS
from service.gap.classes import ClassesOut
from service.gap.difficulty import DifficultyOut
from service.gap.error_rates import PowerOut, RateOut, SelfTestOut
from service.gap.features import FeaturesOut
from service.gap.labels import LabelsOut
from service.gap.leaks import LeaksOut
from service.gap.ledger import LedgerOut
from service.gap.line import LineOut
from service.gap.overlap import ALL, DisdeOut
from service.gap.slices import SlicesOut
from service.schemas import Answer, EstimateOut, GapOut, PartOut
from service.sentences import points

T = TypeVar("T")
N_FINDINGS = 5
_Q = 0.05
_NAMED = 3
_WORTH_SAYING = 0.0005  # of accuracy: below it a sentence would show a zero


class FindingOut(Answer):
    """One finding that is told from chance: number, interval, caveat, and where it comes from."""

    part: str = Field(description="Its evidence: /gap/{model}/{part}.")
    name: str
    points: float = Field(description="Size as a fraction of accuracy: the findings' order.")
    low: float | None = Field(description="95 % interval of the same; null where a test told it.")
    high: float | None
    sentence: str
    caveat: str
    false_alarm: RateOut | None = Field(
        None, description="Of its explainer here, by the last self-test; null without one."
    )
    power: list[PowerOut] | None = Field(
        None, description="How often such a finding comes first where its cause is planted."
    )
    trusted: bool | None = Field(
        None, description="False where more than .05 of its explainer's findings are false here."
    )
    trust: str | None = Field(None, description="The same in a sentence.")


class ExplainedGapOut(GapOut):
    """The gap, what it is made of, the strongest findings, and what cannot be told."""

    ledger: LedgerOut | None = Field(description="Null until it is computed: see pending.")
    findings: list[FindingOut] = Field(description="The five largest, largest first.")
    unknown: list[str] = Field(description="What these data cannot tell, in sentences.")
    pending: list[str] = Field(description="Parts that are not computed yet, so not in findings.")


class _Interval(Protocol):
    @property
    def estimate(self) -> float | None: ...
    @property
    def low(self) -> float | None: ...
    @property
    def high(self) -> float | None: ...


def explained_gap(
    answer: GapOut, parts: Mapping[str, PartOut], self_test: SelfTestOut | None = None
) -> ExplainedGapOut:
    """Return the answer with what its parts say, as far as they are computed.

    Each finding carries the rates of its explainer where a self-test measured them.
    """
    ledger = parts.get("ledger")
    return ExplainedGapOut(
        **dict(answer),
        ledger=ledger if isinstance(ledger, LedgerOut) else None,
        findings=[_rated(one, self_test) for one in findings_of(parts)],
        unknown=unknown_of(parts),
        pending=[name for name in PARTS if name not in parts],
    )


def findings_of(parts: Mapping[str, PartOut]) -> list[FindingOut]:
    """Return the five largest findings among parts, largest first.

    Only what its own part tells from chance is a finding; each list of tests is adjusted for its
    length there. The order is by size in points of accuracy.
    """
    found = [one for name, part in parts.items() for one in _READERS.get(name, _none)(part)]
    told = [one for one in found if one.points >= _WORTH_SAYING]
    return sorted(told, key=lambda one: -one.points)[:N_FINDINGS]


def _rated(finding: FindingOut, self_test: SelfTestOut | None) -> FindingOut:
    of_part = [] if self_test is None else self_test.explainers
    one = next((one for one in of_part if one.explainer == finding.part), None)
    if one is None:
        return finding
    return finding.model_copy(
        update={
            "false_alarm": one.false_alarm,
            "power": [row for row in one.power if row.finding in (None, finding.name)],
            "trusted": one.trusted,
            "trust": one.sentence,
        }
    )


def unknown_of(parts: Mapping[str, PartOut]) -> list[str]:
    """Return what these data cannot tell, in sentences."""
    said = [
        "Whether a term is a cause: re-weighting describes which images the target has, and does "
        "not change them.",
    ]
    ledger = parts.get("ledger")
    if isinstance(ledger, LedgerOut):
        rest = ledger.terms[-1]
        span = f"{_signed(rest.estimate)} points{_span(rest.low, rest.high)}"
        said.append(
            ("What the rest, " if _is_told(rest) else "Whether there is a rest at all, and what ")
            + (f"{span}, is made of" if _is_told(rest) else f"it is made of ({span})")
            + ": label noise, classes that mean something else, or difficulty that nothing here "
            "shows."
        )
        said += [f"The part of {term.name}: {term.reason}." for term in ledger.terms if term.reason]
        said += [f"The part of {one}." for one in ledger.left_out]
        if not any(term.name not in _ALWAYS for term in ledger.terms):
            said.append(
                "What people know of the images and the model does not: no annotation of both "
                "splits is attached (gapscope annotate)."
            )
    for name, about in _NEEDED.items():
        reason = getattr(parts.get(name), "reason", None)
        if reason:
            said.append(f"{about}: {reason[0].lower()}{reason[1:].rstrip('.')}.")
    return said


_IN_WORDS = {
    "label shift": "another mix of classes",
    "features": "images that lie elsewhere in the features",
    "image statistics": "brightness, sharpness and the like of the image files",
    "rest": "nothing that is known of the images here",
}


def term_in_words(name: str, size: float | None) -> str:
    """Return what a term of the ledger goes with; annotations keep their names.

    Parameters
    ----------
    size
        The term's estimate: below 0, the target's images are the easier ones.

    Examples
    --------
    >>> term_in_words("difficulty", -0.03)
    'images of which the model itself is more sure'
    """
    if name == "difficulty":
        how = "more" if (size or 0) < 0 else "less"
        return f"images of which the model itself is {how} sure"
    return _IN_WORDS.get(name, name)


_ALWAYS = ("label shift", "difficulty", "features", "image statistics", "rest")
_NEEDED = {
    "features": "Which features take part",
    "labels": "How many errors are the labels'",
    "line": "Whether other models of this accuracy have the same gap",
    "leaks": "Whether images are copies of others",
}


def _none(_part: PartOut) -> Iterator[FindingOut]:
    return iter(())


def _of_ledger(part: PartOut) -> Iterator[FindingOut]:
    assert isinstance(part, LedgerOut)
    for term in told_of_all(part.terms, lambda term: term):
        if term.verdict != "supported" or term.estimate is None:
            continue
        low, high = term.low, term.high
        span = f"{_signed(term.estimate)} points of the gap{_span(low, high)}"
        if term.name == "rest":
            sentence = f"{span} are in nothing that is known of the images here."
        else:
            sentence = f"{span} go with {term_in_words(term.name, term.estimate)}."
        share = None if term.effective_share is None else f"{term.effective_share:.0%}"
        weak = term.effective_share is not None and term.effective_share < 0.2
        caveat = (
            f"weak overlap: re-weighting leaves {share} of the reference's images"
            if weak
            else f"this holds if {term.assumptions}"
        )
        yield _finding("ledger", term.name, term.estimate, low, high, sentence, caveat)


def _of_classes(part: PartOut) -> Iterator[FindingOut]:
    assert isinstance(part, ClassesOut)
    # classes, superclasses and pairs are three lists, each of which may hold a false name
    q = _Q / (1 + bool(part.superclasses) + bool(part.confusions.pairs))
    told = [c for c in part.classes if c.q_common_gap is not None and c.q_common_gap <= q]
    total = sum(c.n_target for c in part.classes)
    for more in (True, False):
        some = [c for c in told if ((c.excess or 0) > 0) == more]
        if not some:
            continue
        size = sum((c.excess or 0) * c.n_target for c in some) / total
        names = _list([c.class_name for c in sorted(some, key=lambda c: c.q_common_gap or 0)])
        word = "more" if more else "less"
        yield _finding(
            "classes", f"classes that lose {word}", size, None, None,
            f"{names} {'lose' if len(some) > 1 else 'loses'} {word} than the other classes: "
            f"together {_signed(size)} points of the gap beyond their part of it.",
            f"classes are named by a test at q {q:.2g} over {len(part.classes):,} classes; the "
            "size is that of the chosen ones, and flatters",
        )  # fmt: skip
    for superclass in part.superclasses:
        if superclass.q_common_gap is not None and superclass.q_common_gap <= q:
            size = (superclass.excess or 0) * superclass.n_target / total
            gap = superclass.gap
            yield _finding(
                "classes", superclass.name, size, None, None,
                f"{superclass.name} has a gap of {_signed(gap.estimate)} points"
                f"{_span(gap.low, gap.high)}: {_signed(size)} points of the whole beyond its part.",
                f"named by a test at q {q:.2g} over {len(part.superclasses)} superclasses",
            )  # fmt: skip
    for pair in part.confusions.pairs[:1]:
        if pair.q_value <= q:
            difference = pair.difference
            size = (difference.estimate or 0) * pair.n_target / total
            yield _finding(
                "classes", f"{pair.label_name} → {pair.predicted_name}", size, None, None,
                f"{pair.label_name} is called {pair.predicted_name} in {pair.share_target:.0%} of "
                f"its images, {pair.share_reference:.0%} on {part.reference}: "
                f"{_signed(difference.estimate)} points of the class"
                f"{_span(difference.low, difference.high)}.",
                f"the clearest of {part.confusions.n_pairs:,} pairs, at q {q:.2g}",
            )  # fmt: skip


def _of_difficulty(part: PartOut) -> Iterator[FindingOut]:
    assert isinstance(part, DifficultyOut)
    increase = part.calibration.overconfidence.increase
    agreement = [c for c in part.covariates if c.kind == "other models"]
    told = told_of_all([increase, *(c.explained for c in agreement)], lambda value: value)
    if increase in told:
        yield _finding(
            "difficulty", "confidence", increase.estimate, increase.low, increase.high,
            f"Confidence minus accuracy is {_size_of(increase, 'larger', 'smaller')} on "
            f"{part.target} than on {part.reference}.",
            "its confidence does not follow its accuracy from one set to the other; difficulty "
            "that it does not see and labels that are wrong look alike in this",
        )  # fmt: skip
    for one in agreement:
        value = one.explained
        if value not in told:
            continue
        yield _finding(
            "difficulty", one.name, value.estimate, value.low, value.high,
            f"{_signed(value.estimate)} points of the gap{_span(value.low, value.high)} go with "
            f"images on which the {part.n_other_models} other models agree "
            f"{'more' if (value.estimate or 0) < 0 else 'less'}.",
            "images on which models agree alike are taken to be equally hard on both splits",
        )  # fmt: skip


def _of_features(part: PartOut) -> Iterator[FindingOut]:
    assert isinstance(part, FeaturesOut)
    told = [
        f
        for f in part.features or []
        if f.accuracy_lost_difference is not None
        and f.accuracy_lost_difference.p_value is not None
        and f.accuracy_lost_difference.p_value <= _Q
    ]
    for f in told:
        value = f.accuracy_lost_difference
        assert value is not None
        better = part.reference if (value.estimate or 0) > 0 else part.target
        yield _finding(
            "features", f.feature_name, value.estimate, value.low, value.high,
            f"Feature {f.feature_name} works better on {better}: masking it costs "
            f"{_signed(value.estimate)} points more on {part.reference} than on {part.target}"
            f"{_span(value.low, value.high)}.",
            f"one of {part.n_masked} features, adjusted for looking at all; masked one at a time",
        )  # fmt: skip


def _of_slices(part: PartOut) -> Iterator[FindingOut]:
    assert isinstance(part, SlicesOut)
    q = _Q / max(1, bool(part.clusters) + bool(part.slices))  # two lists
    for kind, slices in (("cluster", part.clusters), ("slice", part.slices)):
        told = [s for s in slices or [] if s.q_value is not None and s.q_value <= q]
        total = sum(s.n_target for s in slices or []) or 1
        for one in told[:1]:
            size = (one.excess or 0) * one.n_target / total
            how = (
                "fitted on train" if kind == "cluster" else "found on one half, tested on the other"
            )
            yield _finding(
                "slices", one.name, size, None, None,
                f"A group of images ({one.description}) has a gap of "
                f"{_signed(one.gap.estimate)} points{_span(one.gap.low, one.gap.high)}.",
                f"the clearest of {len(told)} at q {q:.2g}, {how}",
            )  # fmt: skip


def _of_overlap(part: PartOut) -> Iterator[FindingOut]:
    assert isinstance(part, DisdeOut)
    for one in part.decompositions[-1:]:
        for term in one.terms[-1:]:
            if term.verdict == "supported":
                value = term.value
                yield _finding(
                    "overlap", "kinds of images", value.estimate, value.low, value.high,
                    f"{_signed(value.estimate)} points of the gap{_span(value.low, value.high)} "
                    f"go with kinds of images that are rare in {part.reference}; kinds are told "
                    f"by {'all that is known of the images' if one.z == ALL else one.z}.",
                    "; ".join(one.warnings)
                    or "kinds that a classifier of the splits cannot tell apart are not seen",
                )  # fmt: skip


def _of_line(part: PartOut) -> Iterator[FindingOut]:
    assert isinstance(part, LineOut)
    for fit in part.fits:
        value, foretold = fit.effective_robustness, fit.predicted
        if not fit.is_main or value.estimate is None or foretold.estimate is None:
            continue
        if fit.extrapolated:  # the line says little there
            continue
        accuracy = part.accuracy[part.reference].estimate or 0.0
        expected = accuracy - foretold.estimate
        if _is_told(value):
            yield _finding(
                "line", "distance to the line", value.estimate, value.low, value.high,
                f"On {part.target} it lies {_signed(value.estimate)} points from where other "
                f"models of its accuracy lie{_span(value.low, value.high)}.",
                f"by the line through {fit.n:,} models ({fit.source})",
            )  # fmt: skip
        elif _is_near(value, expected):
            yield _finding(
                "line", "the line", expected, None, None,
                f"Other models of its accuracy have about this gap too: by the line through "
                f"{fit.n:,} models ({fit.source}), {_signed(expected)} points are expected, and "
                f"its accuracy on {part.target} lies {_signed(value.estimate)} points from the "
                f"line{_span(value.low, value.high)}, not told from 0.",
                "a line through other models says what is usual, not why",
            )  # fmt: skip


def _of_labels(part: PartOut) -> Iterator[FindingOut]:
    assert isinstance(part, LabelsOut)
    for one in told_of_all(part.opinions, lambda one: one.gap_gone):
        gone = one.gap_gone
        if _is_told(gone):
            yield _finding(
                "labels", one.name, gone.estimate, gone.low, gone.high,
                f"{_signed(gone.estimate)} points of the gap{_span(gone.low, gone.high)} go when "
                f"{one.name} judges instead of the given labels.",
                f"{one.about}; images without an opinion stay as they are given",
            )  # fmt: skip


def _of_leaks(part: PartOut) -> Iterator[FindingOut]:
    assert isinstance(part, LeaksOut)
    all_images, without = part.everything.gap, part.without_all
    if without is None or all_images.estimate is None or without.gap.estimate is None:
        return
    n = sum(without.n_left_out.values())
    change = all_images.estimate - without.gap.estimate
    if n:
        yield _finding(
            "leaks", "copies", change, None, None,
            f"{n:,} test images are copies of others or of train images; without them the gap is "
            f"{_signed(without.gap.estimate)} points{_span(without.gap.low, without.gap.high)}.",
            "copies are told by their features: look at the pairs",
        )  # fmt: skip


_READERS: dict[str, Callable[[Any], Iterator[FindingOut]]] = {
    "ledger": _of_ledger,
    "classes": _of_classes,
    "difficulty": _of_difficulty,
    "features": _of_features,
    "slices": _of_slices,
    "overlap": _of_overlap,
    "line": _of_line,
    "labels": _of_labels,
    "leaks": _of_leaks,
}


def _finding(
    part: str, name: str, size: float | None, low: float | None, high: float | None,
    sentence: str, caveat: str,
) -> FindingOut:  # fmt: skip
    return FindingOut(
        part=part, name=name, points=abs(size or 0.0), low=low, high=high, sentence=sentence,
        caveat=f"{caveat[0].upper()}{caveat[1:]}.",
    )  # fmt: skip


def _is_near(value: EstimateOut, expected: float) -> bool:
    """Whether an estimate is shown to be small beside a gap: within half of it on either side.

    That an interval holds 0 shows nothing of the kind: it may hold everything.
    """
    if value.low is None or value.high is None:
        return False
    return max(-value.low, value.high) <= abs(expected) / 2


def _size_of(value: EstimateOut, more: str, less: str) -> str:
    """Say a size in points and its direction: "2.3 points smaller (95 % interval 0.1 to 4.6)"."""
    size, low, high = value.estimate or 0.0, value.low, value.high
    if size < 0:
        low, high = (None if end is None else -end for end in (high, low))
    return f"{abs(size) * 100:.1f} points {more if size > 0 else less}{_span(low, high)}"


def _is_told(value: _Interval) -> bool:
    return value.low is not None and value.high is not None and (value.low > 0 or value.high < 0)


def told_of_all(some: Sequence[T], value_of: Callable[[T], _Interval]) -> list[T]:
    """Return those told from 0 though all are looked at: Holm over the normal p-values.

    Parameters
    ----------
    some, value_of
        What is looked at, and the estimate of each.
    """
    known = []
    p_values = []
    for one in some:
        value = value_of(one)
        if value.estimate is None or value.low is None or value.high is None:
            continue
        error = (value.high - value.low) / (2 * Z)
        if error > 0:  # else it is exact, and no chance is in it
            known.append(one)
            p_values.append(2 * float(norm.sf(abs(value.estimate) / error)))
        elif value.estimate:
            known.append(one)
            p_values.append(0.0)
    adjusted = holm(np.array(p_values))
    return [one for one, p in zip(known, adjusted, strict=True) if p <= _Q]


def _signed(value: float | None) -> str:
    return "unknown" if value is None else f"{value * 100:+.1f}"


def _span(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f" (95 % interval {points(low, high)})"


def _list(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
