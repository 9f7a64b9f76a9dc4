"""Up to eight hypotheses about a gap, from findings on the explore halves alone.

Each names the finding that motivates it and the result that would contradict it. Which recipe goes
with which finding is the field's common sense, written down; that it helps is what a test shows.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from models.errors import ModelError
from models.estimate import Estimate
from models.gap.difference import newcombe
from models.refining.recipes import in_words
from service.errors import ServiceError
from service.gap import PARTS
from service.gap.classes import ClassesOut
from service.gap.features import FeaturesOut
from service.gap.inputs import ChosenInputs, Inputs, explore_and_confirm
from service.gap.ledger import LedgerOut
from service.hypotheses.schemas import HypothesisIn, SuggestionsOut
from service.results import NATIVE
from service.sentences import points
from service.terminal import Progress, part_of

MOST = 8
_PARTS = ("ledger", "classes", "features")  # what is asked of the explore halves
_Q = 0.05
_NOT_ATTACHED = ("label shift", "difficulty", "features", "rest")


class Checks(Protocol):
    """What refuses a hypothesis that cannot be registered."""

    def check(self, asked: HypothesisIn) -> dict[str, Any]:
        """Refuse it by raising."""


@dataclass(frozen=True)
class Found:
    """One finding on the explore halves.

    Attributes
    ----------
    sentence : with number and interval
    size : points of accuracy, for the order
    is_told : whether it is told from chance there
    """

    sentence: str
    size: float
    is_told: bool


@dataclass(frozen=True)
class _Idea:
    """A recipe, why it should help, and what would speak against that."""

    found: Found
    recipe: dict[str, Any]
    title: str
    cause: str
    against: str


def suggest(
    hypotheses: Checks,
    inputs: Inputs,
    *,
    progress: Progress = lambda _share, _message: None,
) -> SuggestionsOut:
    """Propose hypotheses about a model, strongest finding first.

    Raises
    ------
    DataChanged, models.errors.ModelError
    """
    explore, _ = explore_and_confirm(inputs)
    parts = {}
    for i, name in enumerate(_PARTS):
        step = part_of(progress, i / len(_PARTS), (i + 1) / len(_PARTS), prefix=f"{name}: ")
        parts[name] = PARTS[name].compute(explore, step)
    ideas = sorted(
        _ideas(explore, parts), key=lambda idea: (not idea.found.is_told, -idea.found.size)
    )
    proposed: list[HypothesisIn] = []
    left_out = []
    for idea in ideas:
        asked = _asked(idea, inputs)
        what = in_words(idea.recipe)
        if any(one.refinement == idea.recipe for one in proposed):
            continue
        try:
            hypotheses.check(asked)
        except (ModelError, ServiceError) as error:
            left_out.append(f"{what}: {error}")
            continue
        if len(proposed) == MOST:
            left_out.append(f"{what}: eight others rest on stronger findings")
            continue
        proposed.append(asked)
    return SuggestionsOut(
        model=inputs.model,
        reference=inputs.reference,
        target=inputs.target,
        n={split: len(side) for split, side in zip(
            inputs.splits.pair, explore.correct.pair, strict=True)},
        hypotheses=proposed,
        left_out=left_out,
    )  # fmt: skip


def _asked(idea: _Idea, inputs: Inputs) -> HypothesisIn:
    return HypothesisIn(
        title=idea.title,
        cause=idea.cause,
        baseline=inputs.model,
        refinement=idea.recipe,
        reference=inputs.reference,
        target=inputs.target,
        motivated_by=f"On the explore halves: {idea.found.sentence}"
        + ("" if idea.found.is_told else " Not told from chance there: expect a null."),
        contradicted_by=idea.against,
    )


def _ideas(explore: ChosenInputs, parts: Mapping[str, Any]) -> Iterator[_Idea]:
    yield from _of_memory(explore)
    yield from _of_confidence(explore)
    yield from _of_ledger(parts["ledger"])
    yield from _of_features(parts["features"])
    yield from _of_classes(parts["classes"])
    yield from _of_others(explore)


def _of_memory(explore: ChosenInputs) -> Iterator[_Idea]:
    """Where internal validation lies above the reference: train is known by heart."""
    inside = (explore.card["validation"] or {}).get("top1")
    if inside is None:
        return
    right = explore.correct.reference
    n = next(iter(inside["n"].values()))
    gap = newcombe(round(inside["estimate"] * n), n, int(right.sum()), len(right))
    found = _found(gap, f"internal validation minus accuracy on {explore.reference} is")
    against = (
        f"Accuracy on {explore.target} that does not rise: then the weights were not too large."
    )
    yield _Idea(
        found,
        {"kind": "stronger_penalty", "factor": 10.0},
        "A ten times stronger penalty",
        "The head fits train rows, which the backbone has seen, more closely than new images bear.",
        against,
    )
    yield _Idea(
        found,
        {"kind": "averaging", "how": "ema"},
        "The mean of the fit's steps",
        "The last steps of the fit serve rows that are known by heart.",
        against,
    )


def _found(value: Estimate, what: str) -> Found:
    """Return a difference of accuracies as a finding, told where its interval lies above 0."""
    assert value.estimate is not None
    assert value.low is not None
    assert value.high is not None
    size = f"{value.estimate * 100:+.1f} points (95 % interval {points(value.low, value.high)})"
    return Found(f"{what} {size}.", abs(value.estimate), value.low > 0)


def _of_confidence(explore: ChosenInputs) -> Iterator[_Idea]:
    """Confidence above accuracy, more so on the target."""
    if explore.confidence is None:
        return
    values = [weighed(explore, side) for side in ("reference", "target")]
    drawn = explore.replicates
    over = drawn.estimate(values[1] - values[0])
    found = _found(
        over, f"confidence minus accuracy is larger on {explore.target} than on "
        f"{explore.reference} by",
    )  # fmt: skip
    yield _Idea(
        found,
        {"kind": "label_smoothing", "epsilon": 0.1},
        "Smoothed labels",
        "Hard targets make the head surer than images off the train rows' beaten track bear.",
        "A gap that stays: smoothing then mends confidence alone, not which class is first.",
    )
    yield _Idea(
        found,
        {"kind": "mixup", "alpha": 0.2},
        "Mixed pairs of rows",
        "Between train rows the head jumps from class to class; mixing makes it go over evenly.",
        "A gap that stays, or accuracy that falls on both sets.",
    )


def weighed(explore: ChosenInputs, side: str) -> Any:
    """Return confidence minus accuracy of one side, in the sample and each replicate."""
    weights = getattr(explore.replicates, side)
    assert explore.confidence is not None
    over = getattr(explore.confidence, side) - getattr(explore.correct, side)
    return over @ weights / weights.sum(axis=0, dtype=float)


def _of_ledger(part: LedgerOut) -> Iterator[_Idea]:
    """Go by the ledger's terms."""
    terms = {term.name: term for term in part.terms}

    def found(name: str, words: str) -> Found | None:
        term = terms.get(name)
        if term is None or term.estimate is None or term.low is None or term.high is None:
            return None
        return Found(
            f"{term.estimate * 100:+.1f} points of the gap (95 % interval "
            f"{points(term.low, term.high)}) {words}.",
            abs(term.estimate),
            term.verdict == "supported",
        )

    hard = found("difficulty", "go with images of which the model itself is less sure")
    known = [found(name, f"go with {name}") for name in terms if name not in _NOT_ATTACHED]
    attached = max(
        (one for one in known if one is not None and one.is_told),
        key=lambda one: one.size,
        default=hard,
    )
    if hard is not None:
        yield _Idea(
            hard,
            {"kind": "ensemble", "heads": ["logistic", "lda", "knn"]},
            "Several kinds of heads together",
            "Images near a border between classes are decided by chance; heads that err otherwise "
            "cancel that.",
            "A gap that stays: then the heads err on the same images.",
        )
    if attached is not None:
        yield _Idea(
            attached,
            {"kind": "reweight_hard", "weight": 3.0},
            "Hard train rows weigh three times",
            f"Hard images are rarer in train than in {part.target}.",
            "Accuracy that falls: then hard train rows are wrongly labelled rather than hard.",
        )
    moved = found("features", "go with images that lie elsewhere in the features")
    if moved is not None:
        yield _Idea(
            moved,
            {"kind": "feature_noise", "sd": 0.5},
            "Noise on the features",
            "The head relies on the exact place of an image among the features.",
            "Accuracy on the target that does not rise.",
        )
    rest = found("rest", "are in nothing that is known of the images")
    if rest is not None:
        yield _Idea(
            rest,
            {"kind": "blend", "with": "knn"},
            "Blended with nearest neighbours",
            "Within a class there are kinds of images that one weight vector cannot serve.",
            "A gap that stays: the rest is then labels or meaning, which no head mends.",
        )


def _of_features(part: FeaturesOut) -> Iterator[_Idea]:
    """Features that shift within classes and weigh in the head."""
    told = [f for f in part.features or [] if f.p_value is not None and f.p_value <= _Q]
    top = [f for f in part.features or [] if not f.is_nearly_constant][:1]
    if not top:
        return
    largest = top[0].mean_difference_within_classes
    found = Found(
        f"{len(told)} of {len(part.features or [])} features shift within classes, most relevant "
        f"{top[0].feature_name} by {largest.estimate or 0.0:+.2f} standard deviations.",
        0.01 if told else 0.0,
        bool(told),
    )
    n = max(1, min(8, len(told), (len(part.features or []) - 1) // 2))
    yield _Idea(
        found,
        {"kind": "drop_unstable", "share": 0.05},
        "Without the features that differ between kinds of train images",
        "Features that mean another thing from kind to kind shift when the mix of kinds does.",
        "A gap that stays, or accuracy that falls on both sets.",
    )
    yield _Idea(
        found,
        {"kind": "feature_dropout", "share": 0.2},
        "Rows that lack a fifth of their features",
        "The head leans on few features; those that shift then cost much.",
        "Accuracy on the target that does not rise.",
    )
    yield _Idea(
        found,
        {"kind": "mask_shifting", "n": n},
        "Without the feature that shifts most where the head looks"
        if n == 1
        else f"Without the {n} features that shift most where the head looks",
        "What shifts misleads the head (informed by the test sets: a family of its own).",
        "Accuracy on the target that falls: the features carry the class as well.",
    )


def _of_classes(part: ClassesOut) -> Iterator[_Idea]:
    """Classes whose gaps differ."""
    named = [c for c in part.classes if c.q_common_gap is not None and c.q_common_gap <= _Q]
    share = part.reliability.reliability.estimate
    found = Found(
        f"{len(named)} classes are told from the common gap"
        + ("." if share is None else f"; {share:.0%} of the spread of class gaps is real."),
        0.005 * bool(named),
        bool(named),
    )
    yield _Idea(
        found,
        {"kind": "blend", "with": "nearest_mean"},
        "Blended with class prototypes",
        "Some classes' weights follow what is peculiar to their train rows; their means do not.",
        "A gap that stays, in these classes above all.",
    )
    yield _Idea(
        found,
        {"kind": "logit_adjusted", "tau": 1.0},
        "Without the train rows' mix of classes",
        "Classes that are rare in train are guessed too seldom.",
        "No change: train is as balanced as the test sets.",
    )


def _of_others(explore: ChosenInputs) -> Iterator[_Idea]:
    """Other features and other heads that are here."""
    gap = newcombe(
        int(explore.correct.reference.sum()), len(explore.correct.reference),
        int(explore.correct.target.sum()), len(explore.correct.target),
    )  # fmt: skip
    whole = _found(gap, "the gap is")
    here = sorted({row["backbone"] for row in explore.database.splits() if row["backbone"]})
    for other in here:
        if other != explore.backbone:
            yield _Idea(
                whole,
                {"kind": "concatenate", "backbones": [explore.backbone, other]},
                f"With the features of {other} beside its own",
                "What these features cannot see, another network's may.",
                "A gap that stays: then both networks miss the same.",
            )
    for card in explore.results.models():
        if card["head"] == NATIVE and card["backbone"] == explore.backbone:
            yield _Idea(
                whole,
                {"kind": "interpolate", "model": card["model"], "alpha": 0.5},
                f"Half way to {card['model']}",
                "The head that was trained with the backbone generalises otherwise.",
                "Accuracy between those of both heads, with the gap of neither changed.",
            )
