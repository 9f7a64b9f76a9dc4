"""What a gap report says, in sentences with number, interval and caveat; no more than it shows."""

from collections.abc import Mapping, Sequence

from models.gap import GapReport
from models.gap.classes import ClassGap
from models.gap.features import FeatureShift

_Q = 0.05
_NAMED = 5
NO_FEATURES = "an imported model has no features here"


def in_words(
    report: GapReport,
    model: str,
    reference: str,
    target: str,
    class_names: Mapping[int, str],
    n_unknown: Sequence[int] = (0, 0),
    *,
    feature_names: Sequence[str] = (),
    train_changed: bool = False,
) -> list[str]:
    """Say what a gap report shows.

    Parameters
    ----------
    report, model, reference, target, class_names
        The report and the names of things.
    n_unknown
        Images of the reference and of the target whose class the model was not trained on.
    feature_names
        Of all features, in the order of the vectors.
    train_changed
        Whether the train rows in the database are not those that the model learnt from.
    """
    gap = report.gap
    if gap.estimate is None or gap.low is None or gap.high is None:
        return [f"The gap cannot be known: {gap.reason}."]
    sentences = [_of_gap(gap.estimate, gap.low, gap.high, model, reference, target)]
    sentences += [
        f"{n:,} {'image' if n == 1 else 'images'} of {split} with a class that the model was not "
        "trained on: counted as wrong."
        for n, split in zip(n_unknown, (reference, target), strict=True)
        if n
    ]
    if report.label_shift is not None and abs(report.label_shift) >= 0.0005:
        sentences.append(
            f"{report.label_shift * 100:+.1f} points of the gap come only from the class "
            "proportions being different; class gaps are compared without that part."
        )
    if train_changed:
        sentences.append(
            "The train file has changed since this model was trained; numbers in train standard "
            "deviations are of the new one."
        )
    sentences += _of_classes(report.classes, class_names)
    if report.features is None:
        sentences.append(f"Features cannot be compared: {NO_FEATURES}.")
    else:
        sentences += _of_features(report.features, reference, target, feature_names)
    return sentences


def _of_gap(
    estimate: float, low: float, high: float, model: str, reference: str, target: str
) -> str:
    if estimate == 0:
        span = f"95 % interval {points(low, high)}"
        return f"{model} scores the same on {target} as on {reference} ({span})."
    word = "lower" if estimate > 0 else "higher"
    ends = (low, high) if estimate > 0 else (-high, -low)
    size = f"{abs(estimate) * 100:.1f} points {word}"
    scores = f"{model} scores {size} on {target} than on {reference}"
    if low > 0 or high < 0:
        return f"{scores} (95 % interval {points(*ends)})."
    return (
        f"{scores}, but the 95 % interval {points(*ends)} includes 0: these images do not show "
        "that there is a gap."
    )


def points(low: float, high: float) -> str:
    """Say an interval of fractions in points."""
    # an end that excludes 0 must not be rounded to it
    digits = 2 if any(end and not round(end * 100, 1) for end in (low, high)) else 1
    # and a zero has no sign
    text = [f"{end * 100:.{digits}f}" for end in (low, high)]
    return " to ".join(t if float(t) else t.lstrip("-") for t in text)


def _of_classes(classes: list[ClassGap], names: Mapping[int, str]) -> list[str]:
    compared = [c for c in classes if c.q_value is not None]
    if len(compared) < 2:
        return ["Classes cannot be compared: fewer than two have images in both sets."]
    clear = [c for c in compared if c.q_value is not None and c.q_value <= _Q]
    more = [c for c in clear if (c.excess or 0) > 0]
    less = [c for c in clear if (c.excess or 0) <= 0]
    test = f"(at most {_Q:.0%} of the classes named so are expected to be false alarms)"
    sentences = []
    if more:
        sentences.append(f"Classes that lose more than the others {test}: {_list(more, names)}.")
    if less:
        sentences.append(
            f"Classes that lose less than the others, or gain {test}: {_list(less, names)}."
        )
    if not clear:
        largest = [
            f"{names.get(c.class_id, str(c.class_id))} {c.shrunken.estimate * 100:.1f} "
            f"({points(c.shrunken.low or 0, c.shrunken.high or 0)})"
            for c in compared[:2]
            if c.shrunken.estimate is not None
        ]
        sentences.append(
            f"Largest class gaps, in points after noise reduction: {', '.join(largest)}; but no "
            "class is shown to lose more or less than the others. With more images a class, some "
            "may be."
        )
    return sentences


def _list(classes: list[ClassGap], names: Mapping[int, str]) -> str:
    ranked = sorted(classes, key=lambda c: (c.q_value, c.class_id))
    named = ", ".join(names.get(c.class_id, str(c.class_id)) for c in ranked[:_NAMED])
    return named + (f" and {len(ranked) - _NAMED} more" if len(ranked) > _NAMED else "")


def _of_features(
    features: list[FeatureShift], reference: str, target: str, names: Sequence[str]
) -> list[str]:
    tested = [f for f in features if f.p_value is not None]
    if not tested:
        return ["Features cannot be compared within classes: no class has images in both sets."]
    moved = [f for f in tested if f.p_value is not None and f.p_value < _Q]
    heaviest = ", ".join(names[f.feature_id] for f in moved[:_NAMED])
    if moved:
        heaviest = (
            f"; by relevance (that shift in train standard deviations × the head's weight), the "
            f"first of these are {heaviest}"
        )
    return [
        f"{len(moved)} of {len(tested)} features have a different mean on {target} than on "
        f"{reference}, comparing images of the same class (p < .05, adjusted for looking at all "
        f"of them){heaviest}. A shift is a description: it does not say that it causes "
        "the gap."
    ]
