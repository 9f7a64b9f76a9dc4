"""`/gap/{model}/classes`: which classes and confusions the gap sits in, and how far to trust it."""

from typing import Any

import numpy as np
from pydantic import Field

from models.gap import classes, confusions, excess, hierarchy, reliability
from models.gap.difference import newcombe
from service import charts
from service.errors import NothingToDraw
from service.evaluations import SEED
from service.gap.inputs import Inputs
from service.gap.part import Part
from service.schemas import Answer, ClassModelOut, EstimateOut, PartOut
from service.sentences import points
from service.terminal import Progress

_Q = 0.05
_NAMED = 5
_PULL_TOLD = 0.005  # half a point: from there on the half image's pull is told in the summary
EQUALITY, COMMON_GAP, PREDICTION = "equality", "common_gap", "prediction"
_TESTS = {
    EQUALITY: (
        "Is the class's accuracy the same on both sets?",
        "Fisher's exact test, two-sided; Benjamini-Hochberg over classes",
        "images are independent draws of their class. With few images few classes can be clear",
    ),
    COMMON_GAP: (
        "Is the class's gap the common gap of all classes?",
        "score test (Farrington and Manning); Benjamini-Hochberg over classes",
        "images are independent draws of their class; the common gap is taken as known. A class "
        "near 100 % can hardly lose as many points as others, and may differ for that alone",
    ),
    PREDICTION: (
        "Does the class stand out from classes that are as accurate on the reference, given how "
        "much these differ from each other?",
        "two-sided beta-binomial test against the fit that class_model shows; Benjamini-Hochberg "
        "over classes",
        "classes spread as that fit says, of which each class is a part; its a, b and s are taken "
        "as known. If classes differ much among themselves, hardly any stands out",
    ),
}
_OF_RELIABILITY = (
    "images are independent draws of their class, and classes are draws from many such classes; "
    "a class's raw accuracy stands for its true one in the sampling variance"
)
_OF_HALVES = (
    "a class has the same true gap in both halves of the target; images of one class are "
    "exchangeable. The reference is whole in both, so its own noise stays in the other half's "
    "share; the whole target, with twice the images, is less noisy than a half"
)
_OF_CONFUSIONS = (
    "images are independent draws of their class; the shares of one class's answers depend on each "
    "other, which Benjamini-Hochberg is known to stand well, not proved to"
)
_OF_SUPERCLASSES = (
    "a superclass's images are one sample of it: cautious where its classes differ in difficulty; "
    "where the two sets mix its classes differently, that mix is in its gap"
)
NO_SUPERCLASSES = (
    "no superclasses were given: load with --classes and a CSV that has a column superclass"
)


class ClassTestOut(Answer):
    """One question asked of every class, and how many classes answer it clearly."""

    name: str = Field(description="equality, common_gap or prediction, as in q_…")
    question: str
    n_classes: int = Field(description="Classes tested: those with images in both sets.")
    n_p05: int = Field(description="With p below .05 before adjusting: a twentieth by chance.")
    n_q05: int = Field(description="With q at most .05.")
    n_q10: int = Field(description="With q at most .10.")
    method: str
    assumptions: str
    verdict: str


class ClassOut(Answer):
    """One class on both test splits; gaps are reference minus target."""

    class_id: int
    class_name: str
    superclass: str | None
    n_reference: int
    n_target: int
    accuracy_reference: float | None
    accuracy_target: float | None
    raw: float | None = Field(description="Raw gap; with few images mostly chance.")
    shrunken: EstimateOut
    shrunken_reference: float | None = Field(description="Accuracy, its noise reduced.")
    shrunken_target: float | None = Field(description="Accuracy, its noise reduced.")
    expected_target: float | None = Field(
        description="Accuracy expected on the target of a class as accurate on the reference."
    )
    excess: float | None = Field(description="Raw gap minus the common gap.")
    p_exceeds: float | None = Field(
        description="Posterior probability that its gap is above the common gap; no test."
    )
    q_equality: float | None = Field(description="Test: same accuracy on both splits.")
    q_common_gap: float | None = Field(description="Test: its gap is the common gap.")
    q_prediction: float | None = Field(
        description="Test for excess: its accuracy on the target is one that classes of its "
        "accuracy on the reference have."
    )
    verdict: str


class ReliabilityOut(Answer):
    """How much of the spread of raw class gaps is more than chance."""

    reliability: EstimateOut = Field(description="1 − sampling variance / raw variance.")
    raw_sd: float | None = Field(description="Standard deviation of raw gaps over classes.")
    sampling_sd: float | None = Field(description="What chance alone would show of it.")
    n_classes: int = Field(description="Classes with two images in each split.")
    n_better: int = Field(description="Of those, higher raw accuracy on the target.")
    assumptions: str
    verdict: str


class HalvesOut(Answer):
    """The winner's curse: the worst tenth of classes where they were chosen and where not."""

    n_classes: int
    n_worst: int
    chosen: EstimateOut = Field(
        description="Share of the gap that they hold in the half of the target that chose them."
    )
    other: EstimateOut = Field(description="Share that they hold in the other half.")
    assumptions: str


class ConfusionOut(Answer):
    """One wrong answer to one class; positive difference: more frequent on the target."""

    label: int
    label_name: str
    predicted: int
    predicted_name: str
    k_reference: int = Field(description="Images of the class that got this answer.")
    k_target: int
    n_reference: int = Field(description="Images of the class.")
    n_target: int
    share_reference: float
    share_target: float
    difference: EstimateOut = Field(description="Share on the target minus on the reference.")
    p_value: float
    q_value: float = Field(description="Adjusted for looking at all pairs.")
    verdict: str


class ConfusionsOut(Answer):
    """Pairs (label, predicted) whose share of the label's images changed."""

    n_pairs: int = Field(description="Pairs seen in either split: all are tested.")
    n_q05: int
    n_q10: int
    smallest_clear: float | None = Field(
        description="Share of a class that a confusion which the reference lacks must reach on the "
        "target to be clear, at the median images a class; null where none could be."
    )
    pairs: list[ConfusionOut] = Field(description="The clearest first, 50 at most.")
    method: str
    assumptions: str


class SuperclassOut(Answer):
    """One group of classes, all its images taken together."""

    name: str
    n_classes: int
    n_reference: int
    n_target: int
    accuracy_reference: float | None
    accuracy_target: float | None
    gap: EstimateOut
    excess: float | None = Field(description="Gap minus the common gap.")
    q_common_gap: float | None = Field(description="Test: its gap is the common gap.")
    verdict: str


class ClassesOut(PartOut):
    """Gaps by class, by confusion and by superclass, and how far to trust them."""

    gap: EstimateOut
    common_gap: float | None = Field(
        description="Mean gap of the classes in both splits at the reference's mix of classes."
    )
    class_model: ClassModelOut | None = Field(description="The fit behind the shrunken gaps.")
    half_image: float | None = Field(
        description="What the half image that (k + ½) / (n + 1) adds on the reference does to the "
        "mean shrunken gap; near 100 % it makes shrunken gaps too low."
    )
    reliability: ReliabilityOut
    halves: HalvesOut
    tests: list[ClassTestOut]
    classes: list[ClassOut] = Field(description="Largest shrunken gap first.")
    confusions: ConfusionsOut
    superclasses: list[SuperclassOut] = Field(description="Largest gap first.")
    superclasses_method: str
    superclasses_assumptions: str
    superclasses_reason: str | None = Field(description="Why superclasses is empty.")


def compute(inputs: Inputs, progress: Progress) -> ClassesOut:
    """Answer for all classes, confusions and superclasses."""
    progress(0.0, "comparing classes")
    labels, correct = inputs.labels.pair, inputs.correct.pair
    class_ids = np.union1d(*labels)
    (k1, n1), (k2, n2) = (
        classes.class_counts(*side, class_ids) for side in zip(labels, correct, strict=True)
    )
    common = classes.common_gap(k1, n1, k2, n2)
    gaps, model = classes.class_gaps(class_ids, k1, n1, k2, n2, seed=SEED)
    p_values = _p_values(k1, n1, k2, n2, model, common)
    of_classes = _classes_out(inputs, class_ids[(n1 > 0) & (n2 > 0)], gaps, p_values)
    progress(0.6, "comparing confusions")
    pulls = [
        (one.n_reference, one.shrunken_reference - one.accuracy_reference)
        for one in gaps
        if one.shrunken_reference is not None and one.accuracy_reference is not None
    ]
    by_superclass = hierarchy.superclass_gaps(
        [inputs.superclasses.get(c) for c in class_ids.tolist()], k1, n1, k2, n2
    )
    answer = ClassesOut(
        model=inputs.model,
        reference=inputs.reference,
        target=inputs.target,
        summary=[],
        gap=EstimateOut.of(
            newcombe(*(int(column.sum()) for column in (k1, n1, k2, n2))), inputs.names
        ),
        common_gap=common,
        class_model=None
        if model is None
        else ClassModelOut(a=model.a, b=model.b, s=model.s, lr=model.lr),
        half_image=sum(n * pull for n, pull in pulls) / sum(n for n, _ in pulls) if pulls else None,
        reliability=_reliability_out(inputs, reliability.reliability(k1, n1, k2, n2, seed=SEED)),
        halves=_halves_out(inputs, reliability.halves(k1, n1, k2, n2, seed=SEED)),
        tests=_tests_out(p_values, of_classes),
        classes=of_classes,
        confusions=_confusions_out(inputs),
        superclasses=[_superclass_out(inputs, one) for one in by_superclass],
        superclasses_method="score test of the group's sums (Farrington and Manning); "
        "Benjamini-Hochberg over superclasses",
        superclasses_assumptions=_OF_SUPERCLASSES,
        superclasses_reason=None if by_superclass else NO_SUPERCLASSES,
    )
    return answer.model_copy(update={"summary": _in_words(answer)})


def _p_values(
    k1: np.ndarray,
    n1: np.ndarray,
    k2: np.ndarray,
    n2: np.ndarray,
    model: classes.ClassModel | None,
    common: float | None,
) -> dict[str, np.ndarray]:
    """p-values by test, of the classes in both splits in order of their ids."""
    if model is None or common is None:
        return {name: np.empty(0) for name in _TESTS}
    both = (n1 > 0) & (n2 > 0)
    counts = k1, n1, k2, n2 = k1[both], n1[both], k2[both], n2[both]
    return {
        EQUALITY: excess.equality_p_values(*counts),
        # at a common gap of -1 or 1 all classes are alike
        COMMON_GAP: excess.excess_p_values(*counts, gap=common)
        if -1 < common < 1
        else np.ones(len(k1)),
        PREDICTION: excess.prediction_p_values(k2, n2, expected=model.mean(k1, n1), s=model.s),
    }


def _classes_out(
    inputs: Inputs,
    tested: np.ndarray,
    gaps: list[classes.ClassGap],
    p_values: dict[str, np.ndarray],
) -> list[ClassOut]:
    q_of = {
        name: dict(zip(tested.tolist(), excess.benjamini_hochberg(p).tolist(), strict=True))
        for name, p in p_values.items()
    }
    return [
        ClassOut(
            class_id=one.class_id,
            class_name=inputs.class_names[one.class_id],
            superclass=inputs.superclasses.get(one.class_id),
            n_reference=one.n_reference,
            n_target=one.n_target,
            accuracy_reference=one.accuracy_reference,
            accuracy_target=one.accuracy_target,
            raw=one.raw,
            shrunken=EstimateOut.of(one.shrunken, inputs.names),
            shrunken_reference=one.shrunken_reference,
            shrunken_target=one.shrunken_target,
            expected_target=one.expected_target,
            excess=one.excess,
            p_exceeds=one.p_exceeds,
            q_equality=q_of[EQUALITY].get(one.class_id),
            q_common_gap=q_of[COMMON_GAP].get(one.class_id),
            q_prediction=q_of[PREDICTION].get(one.class_id),
            verdict=_verdict(one, {name: q.get(one.class_id) for name, q in q_of.items()}),
        )
        for one in gaps
    ]


def _verdict(one: classes.ClassGap, q: dict[str, float | None]) -> str:
    def is_clear(name: str) -> bool:
        value = q[name]
        return value is not None and value <= _Q

    if one.raw is None or one.expected_target is None or one.accuracy_target is None:
        return "not known: images in one split alone"
    if is_clear(PREDICTION):
        word = "more" if one.accuracy_target < one.expected_target else "less"
        return f"loses {word} than classes of its accuracy do"
    if is_clear(COMMON_GAP):
        word = "more" if (one.excess or 0) > 0 else "less"
        return f"loses {word} than the others, as some classes of its accuracy do"
    if is_clear(EQUALITY):
        word = "lower" if one.raw > 0 else "higher"
        return f"{word} on the target, not distinguishable from what others lose"
    return "not distinguishable from no gap"


def _tests_out(p_values: dict[str, np.ndarray], found: list[ClassOut]) -> list[ClassTestOut]:
    tests = []
    for name, (question, method, assumptions) in _TESTS.items():
        q = excess.benjamini_hochberg(p_values[name])
        n_clear = int((q <= _Q).sum())
        clear = [one for one in found if _q_of(one, name) <= _Q]
        more = sum(_lost(one, name) > 0 for one in clear)
        tests.append(
            ClassTestOut(
                name=name,
                question=question,
                n_classes=len(q),
                n_p05=int((p_values[name] < 0.05).sum()),
                n_q05=n_clear,
                n_q10=int((q <= 0.10).sum()),
                method=method,
                assumptions=assumptions,
                verdict=f"{n_clear} of {len(q)} classes are clear at q .05: {more} worse, "
                f"{n_clear - more} better"
                if n_clear
                else "no class is clear at q .05",
            )
        )
    return tests


def _q_of(one: ClassOut, test: str) -> float:
    q = {EQUALITY: one.q_equality, COMMON_GAP: one.q_common_gap, PREDICTION: one.q_prediction}[test]
    return 1.0 if q is None else q


def _lost(one: ClassOut, test: str) -> float:
    """By how much a class does worse than the test's hypothesis has it."""
    if one.raw is None or one.expected_target is None or one.accuracy_target is None:
        return 0.0
    lost = {
        EQUALITY: one.raw,
        COMMON_GAP: one.excess or 0.0,
        PREDICTION: one.expected_target - one.accuracy_target,
    }
    return lost[test]


def _reliability_out(inputs: Inputs, found: reliability.Reliability) -> ReliabilityOut:
    share = found.share
    if share.low is None or share.high is None:
        verdict = "not known"
    elif share.high < 0.5:
        verdict = "raw class gaps are mostly chance"
    elif share.low > 0.5:
        verdict = "raw class gaps are mostly more than chance"
    else:
        verdict = "not distinguishable from half chance"
    return ReliabilityOut(
        reliability=EstimateOut.of(share, inputs.names),
        raw_sd=found.raw_sd,
        sampling_sd=found.sampling_sd,
        n_classes=found.n_classes,
        n_better=found.n_better,
        assumptions=_OF_RELIABILITY,
        verdict=verdict,
    )


def _halves_out(inputs: Inputs, found: reliability.Halves) -> HalvesOut:
    return HalvesOut(
        n_classes=found.n_classes,
        n_worst=found.n_worst,
        chosen=EstimateOut.of(found.chosen, inputs.names),
        other=EstimateOut.of(found.other, inputs.names),
        assumptions=_OF_HALVES,
    )


def _confusions_out(inputs: Inputs) -> ConfusionsOut:
    labels, predicted = inputs.labels, inputs.predicted
    found = confusions.confusions(
        labels.reference, predicted.reference, labels.target, predicted.target
    )

    def name(class_id: int) -> str:
        return inputs.class_names.get(class_id, str(class_id))

    def verdict(one: confusions.Confusion) -> str:
        if one.q_value > _Q:
            return "not distinguishable from unchanged"
        more = one.k_target * one.n_reference > one.k_reference * one.n_target
        return "more frequent on the target" if more else "less frequent on the target"

    return ConfusionsOut(
        n_pairs=found.n_pairs,
        n_q05=found.n_q05,
        n_q10=found.n_q10,
        smallest_clear=found.smallest_clear,
        pairs=[
            ConfusionOut(
                label=one.label,
                label_name=name(one.label),
                predicted=one.predicted,
                predicted_name=name(one.predicted),
                k_reference=one.k_reference,
                k_target=one.k_target,
                n_reference=one.n_reference,
                n_target=one.n_target,
                share_reference=one.k_reference / one.n_reference,
                share_target=one.k_target / one.n_target,
                difference=EstimateOut.of(one.difference, inputs.names),
                p_value=one.p_value,
                q_value=one.q_value,
                verdict=verdict(one),
            )
            for one in found.listed
        ],
        method="Fisher's exact test, two-sided, on the images of the label's class; "
        "Benjamini-Hochberg over all pairs that either split shows",
        assumptions=_OF_CONFUSIONS,
    )


def _superclass_out(inputs: Inputs, found: hierarchy.SuperclassGap) -> SuperclassOut:
    if found.q_value is None:
        verdict = "not known: images in one split alone"
    elif found.q_value <= _Q:
        verdict = f"loses {'more' if (found.excess or 0) > 0 else 'less'} than the others"
    else:
        verdict = "not distinguishable from the common gap"
    return SuperclassOut(
        name=found.name,
        n_classes=found.n_classes,
        n_reference=found.n_reference,
        n_target=found.n_target,
        accuracy_reference=found.accuracy_reference,
        accuracy_target=found.accuracy_target,
        gap=EstimateOut.of(found.gap, inputs.names),
        excess=found.excess,
        q_common_gap=found.q_value,
        verdict=verdict,
    )


def _in_words(answer: ClassesOut) -> list[str]:
    return [
        *_of_trust(answer),
        *_of_tests(answer),
        *_of_confusions(answer.confusions),
        *_of_superclasses(answer.superclasses),
    ]


def _of_trust(answer: ClassesOut) -> list[str]:
    trust, halves = answer.reliability, answer.halves
    share = trust.reliability
    sentences = []
    if share.estimate is None or share.low is None or share.high is None:
        sentences.append(f"How far raw class gaps can be trusted is not known: {share.reason}.")
    elif trust.raw_sd is not None and trust.sampling_sd is not None:
        sentences.append(
            f"Raw gaps of {trust.n_classes:,} classes spread by {trust.raw_sd * 100:.1f} points, "
            f"of which chance alone gives {trust.sampling_sd * 100:.1f}: their reliability is "
            f"{share.estimate:.2f} ({share.low:.2f} to {share.high:.2f}); {trust.n_better:,} look "
            f"better on {answer.target}. Read the shrunken gaps, not the raw ones."
        )
    chosen, other = halves.chosen.estimate, halves.other.estimate
    if chosen is not None and other is not None:
        sentences.append(
            f"{'The class' if halves.n_worst == 1 else f'The {halves.n_worst} classes'} with the "
            f"largest raw {'gap' if halves.n_worst == 1 else 'gaps'} in one half of "
            f"{answer.target} {'holds' if halves.n_worst == 1 else 'hold'} {chosen:.0%} of the gap "
            "there, and "
            f"{other:.0%} in the other half (mean of random halves): what is missing was chance."
        )
    if answer.half_image is not None and abs(answer.half_image) >= _PULL_TOLD:
        sentences.append(
            f"With few images a class, the half image that noise reduction adds on "
            f"{answer.reference} moves shrunken gaps by {answer.half_image * 100:+.1f} points on "
            "average: hold them against each other, not against 0."
        )
    return sentences


def _of_tests(answer: ClassesOut) -> list[str]:
    n = answer.tests[0].n_classes
    if n < 2:
        return ["Classes cannot be compared: fewer than two have images in both splits."]
    counts = {test.name: test.n_q05 for test in answer.tests}
    sentences = [
        f"Of {n:,} classes, {counts[EQUALITY]} have another accuracy on {answer.target} than on "
        f"{answer.reference}, {counts[COMMON_GAP]} another gap than the common one, and "
        f"{counts[PREDICTION]} stand out from classes that are as accurate on {answer.reference} "
        "(each list at q .05: at most a twentieth of it are expected to be false alarms)."
    ]
    clear = {
        word: sorted(
            (
                one
                for one in answer.classes
                if _q_of(one, COMMON_GAP) <= _Q and sign * _lost(one, COMMON_GAP) > 0
            ),
            key=lambda one: (_q_of(one, COMMON_GAP), one.class_id),
        )
        for word, sign in (("more", 1), ("less", -1))
    }
    sentences += [
        f"Classes that lose {word} than the common gap: "
        f"{_named([one.class_name for one in found])}."
        for word, found in clear.items()
        if found
    ]
    return sentences


def _of_confusions(found: ConfusionsOut) -> list[str]:
    if not found.n_pairs:
        return ["No image of a class that both splits have is confused with another class."]
    told = f"Of {found.n_pairs:,} confusions, {found.n_q05} changed their share of the class"
    clear = [
        f"{one.label_name} as {one.predicted_name} "
        f"{(one.difference.estimate or 0) * 100:+.0f} points "
        f"({points(one.difference.low or 0, one.difference.high or 0)})"
        for one in found.pairs
        if one.q_value <= _Q
    ]
    power = (
        "no change could be clear with so few images a class"
        if found.smallest_clear is None
        else f"a new one must reach {found.smallest_clear:.0%} of its class to be clear"
    )
    return [f"{told} at q .05 ({power}){': ' + _named(clear) if clear else ''}."]


def _of_superclasses(found: list[SuperclassOut]) -> list[str]:
    tested = [one for one in found if one.q_common_gap is not None]
    if not tested:
        return []
    clear = [
        f"{one.name} {one.gap.estimate * 100:.1f} ({points(one.gap.low, one.gap.high)})"
        for one in sorted(tested, key=lambda one: (one.q_common_gap or 0.0, one.name))
        if (one.q_common_gap or 0.0) <= _Q
        and one.gap.estimate is not None
        and one.gap.low is not None
        and one.gap.high is not None
    ]
    if not clear:
        return [f"None of {len(tested)} superclasses is shown to lose more or less than the rest."]
    return [
        f"Superclasses with another gap than the common one, in points: {_named(clear)} "
        f"({len(clear)} of {len(tested)} at q .05)."
    ]


def _named(names: list[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _scatter_chart(answer: ClassesOut) -> dict[str, Any]:
    rows = [
        {
            "name": one.class_name,
            "reference": one.shrunken_reference,
            "target": one.shrunken_target,
            "raw_reference": one.accuracy_reference,
            "raw_target": one.accuracy_target,
            "clear": one.q_equality is not None and one.q_equality <= _Q,
            "verdict": one.verdict,
        }
        for one in answer.classes
        if one.shrunken_reference is not None
    ]
    if not rows:
        raise NothingToDraw(
            f"wanted a chart of classes of {answer.model!r}, but none has images in both splits."
        )
    return charts.scatter(
        rows,
        x="reference",
        y="target",
        title="Accuracy of each class, noise reduced; lines lead from what was counted (rings); "
        "dashed: the same on both",
        x_title=f"accuracy on {answer.reference}",
        y_title=f"accuracy on {answer.target}",
        mark="clear",
        marked="differs between the splits (q .05)",
        diagonal=True,
        moved=("raw_reference", "raw_target"),
        x_format="%",
        y_format="%",
        tooltip=["name", "verdict"],
    )


def _confusions_chart(answer: ClassesOut) -> dict[str, Any]:
    found = answer.confusions
    if not found.pairs:
        raise NothingToDraw(
            f"wanted a chart of confusions of {answer.model!r}, but no image is confused."
        )
    rows = [
        {
            "name": f"{one.label_name} → {one.predicted_name}",
            "estimate": one.difference.estimate,
            "low": one.difference.low,
            "high": one.difference.high,
            "seen": f"{one.k_reference} of {one.n_reference}, {one.k_target} of {one.n_target}",
            "q_value": one.q_value,
            "verdict": one.verdict,
        }
        for one in found.pairs
    ]
    return charts.forest(
        rows,
        title="True class → predicted: pairs whose share of the class changed most clearly "
        f"({found.n_q05} of {found.n_pairs:,} at q .05)",
        x_title=f"share on {answer.target} − share on {answer.reference}, points (95 % interval)",
        tooltip=["seen", "q_value", "verdict"],
    )


def _superclasses_chart(answer: ClassesOut) -> dict[str, Any]:
    if not answer.superclasses:
        raise NothingToDraw(
            f"wanted a chart of superclasses of {answer.model!r}, but {answer.superclasses_reason}."
        )
    rows = [
        {
            "name": f"{one.name} ({one.n_classes})",
            "estimate": one.gap.estimate,
            "low": one.gap.low,
            "high": one.gap.high,
            "q_value": one.q_common_gap,
            "verdict": one.verdict,
        }
        for one in answer.superclasses
    ]
    return charts.forest(
        rows,
        title="Gap of each superclass (classes in it) with 95 % interval; dashed = all images",
        x_title=f"gap: {answer.reference} − {answer.target}, points",
        also=answer.gap.estimate,
        tooltip=["q_value", "verdict"],
    )


PART = Part(
    "classes",
    "the gap by class, confusion and superclass, and how far to trust it",
    ClassesOut,
    compute,
    {
        "class_scatter": _scatter_chart,
        "confusions": _confusions_chart,
        "superclasses": _superclasses_chart,
    },
)
