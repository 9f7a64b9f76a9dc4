"""`/gap/{model}/features/{feature}/distribution`: one feature on every split, and of one class."""

import json
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field
from scipy.stats import ks_2samp

from models.gap.distribution import density_of_quantiles, density_of_values, shared_bins
from service import charts
from service.errors import NotFound, NothingToDraw
from service.evaluations import SEED
from service.gap.explaining import Question
from service.gap.features import FeatureOut
from service.looks import Look
from service.schemas import Answer, PartOut
from service.seals import Seals
from service.sentences import NO_FEATURES

if TYPE_CHECKING:
    from service.analysis import Analysis

PROBABILITIES = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
_ROWS_MOST = 400  # of a class on one split: each is looked up where it lies
_CLEAR = 0.05
_NOT_YET = "the features are not compared yet: GET /gap/{model}/features"


class DensityOut(Answer):
    """How the feature is spread over the images of one split."""

    split: str
    part: str = Field(description="train, reference or target.")
    n: int = Field(description="Images.")
    n_read: int | None = Field(
        description="Images whose values were read, a uniform sample; null where stored quantiles "
        "serve."
    )
    mean: float | None
    sd: float | None
    quantiles: dict[str, float] | None = Field(
        description="By probability; null where there is no image."
    )
    median: float | None
    density: list[float] | None = Field(
        description="Share of the images in each bin of `edges` over its width."
    )
    below: float | None = Field(description="Share below the first edge.")
    above: float | None = Field(description="Share above the last edge.")


class DistributionOut(PartOut):
    """One feature on train, reference and target: all images, and those of one class."""

    feature_id: int
    feature_name: str | None
    edges: list[float] | None = Field(description="Of the bins, which all splits share.")
    splits: list[DensityOut] | None = Field(description="Of all images, from stored quantiles.")
    class_id: int | None
    class_name: str | None
    of_class: list[DensityOut] | None = Field(description="Of one class; null unless asked for.")
    class_edges: list[float] | None
    class_ks: float | None = Field(
        description="Kolmogorov-Smirnov distance of the class's images of reference and target."
    )
    class_p_value: float | None = Field(
        description="That both come of one distribution; of this class alone, not adjusted for "
        "looking at others."
    )
    feature: FeatureOut | None = Field(
        description="What /gap/{model}/features says of it; null until that is computed."
    )
    feature_reason: str | None = Field(description="Why feature is null.")
    reason: str | None = Field(description="Why there is no distribution.")


def distribution(
    analysis: "Analysis", question: Question, feature_id: int, class_id: int | None
) -> DistributionOut:
    """Return how one feature is distributed on train, reference and target.

    Of all images by the quantiles that were stored when they were loaded: no vector is read. Of one
    class by its images, 400 of each split at most; that is a look at test labels.

    Raises
    ------
    NotFound, LookNotLogged, NoSeal
    """
    backbone = question.card["backbone"]
    if backbone is None:
        return _unknown(question, feature_id)
    database = analysis.database
    place = database.feature_of(backbone, feature_id)
    train = [row["split"] for row in database.splits_of(backbone) if row["role"] == "train"]
    parts = dict.fromkeys(train, "train")
    parts |= {question.reference: "reference", question.target: "target"}
    stats = {row["split"]: row for row in database.feature_stats(*place[:2], parts)}
    known = {s: _with_ends(stats[s]) for s in parts if s in stats}
    edges = shared_bins(list(known.values()))
    splits = [_of_quantiles(stats[s], parts[s], edges, *known[s]) for s in known]
    names = database.class_names()
    of_class, class_edges, values = None, None, {}
    if class_id is not None:
        if class_id not in names:
            raise NotFound(
                f"wanted a class by its id ({min(names)} to {max(names)}), got {class_id}."
            )
        if analysis.strict:
            Seals(analysis.data).require(question.card, [question.reference, question.target])
        look = Look(question.card["model"], "gap")
        read = {
            s: database.class_values(
                *place[:2], s, class_id, n_most=_ROWS_MOST, seed=SEED, look=look
            )
            for s in parts
        }
        values = {s: one[0] for s, one in read.items()}
        sets = [_quantiles_of(v) for v in values.values() if len(v)]
        bins = shared_bins(sets) if sets else edges
        class_edges = bins.tolist()
        of_class = [_of_values(s, parts[s], bins, *read[s]) for s in parts]
    ks, p_value = _compared(*(values.get(s) for s in (question.reference, question.target)))
    feature = _compared_before(question, feature_id)
    found = DistributionOut(
        model=question.card["model"], reference=question.reference, target=question.target,
        summary=[], feature_id=feature_id, feature_name=place[2], edges=edges.tolist(),
        splits=splits, class_id=class_id,
        class_name=None if class_id is None else names[class_id], of_class=of_class,
        class_edges=class_edges, class_ks=ks, class_p_value=p_value, feature=feature,
        feature_reason=None if feature else _NOT_YET.format(model=question.card["model"]),
        reason=None,
    )  # fmt: skip
    return found.model_copy(update={"summary": _in_words(found)})


def _compared_before(question: Question, feature_id: int) -> FeatureOut | None:
    """Return what the part on features says of one of them, where it is computed."""
    stored = question.stored("features")
    if stored is None:
        return None
    # of a thousand features one is wanted: the others are not made into objects
    rows = json.loads(stored)["features"] or []
    found = next((row for row in rows if row["feature_id"] == feature_id), None)
    return None if found is None else FeatureOut.model_validate(found)


def _unknown(question: Question, feature_id: int) -> DistributionOut:
    return DistributionOut(
        model=question.card["model"], reference=question.reference, target=question.target,
        summary=[f"Distribution of a feature: unknown ({NO_FEATURES})."], feature_id=feature_id,
        feature_name=None, edges=None, splits=None, class_id=None, class_name=None, of_class=None,
        class_edges=None, class_ks=None, class_p_value=None, feature=None,
        feature_reason=NO_FEATURES, reason=NO_FEATURES,
    )  # fmt: skip


def _with_ends(row: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and values of the stored quantiles, and of the smallest and largest value."""
    return (
        np.array([0.0, *row["probabilities"], 1.0]),
        np.array([row["min_value"], *row["quantiles"], row["max_value"]]),
    )


def _quantiles_of(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    probabilities = np.array([0.0, *PROBABILITIES, 1.0])
    return probabilities, np.quantile(values, probabilities)


def _of_quantiles(
    row: dict[str, Any],
    part: str,
    edges: np.ndarray,
    probabilities: np.ndarray,
    values: np.ndarray,
) -> DensityOut:
    density, below, above = density_of_quantiles(edges, probabilities, values)
    stored = dict(zip(row["probabilities"], row["quantiles"], strict=True))
    return DensityOut(
        split=row["split"], part=part, n=row["n_images"], n_read=None, mean=row["mean_value"],
        sd=row["sd_value"], quantiles={f"{p:g}": stored[p] for p in PROBABILITIES},
        median=stored[0.5], density=density.tolist(), below=below, above=above,
    )  # fmt: skip


def _of_values(split: str, part: str, edges: np.ndarray, values: np.ndarray, n: int) -> DensityOut:
    if len(values) == 0:
        return DensityOut(
            split=split, part=part, n=n, n_read=0, mean=None, sd=None, quantiles=None, median=None,
            density=None, below=None, above=None,
        )  # fmt: skip
    density, below, above = density_of_values(edges, values)
    return DensityOut(
        split=split, part=part, n=n, n_read=len(values), mean=float(values.mean()),
        sd=float(values.std(ddof=1)) if len(values) > 1 else None,
        quantiles={f"{p:g}": float(v) for p, v in zip(PROBABILITIES,
                   np.quantile(values, PROBABILITIES), strict=True)},
        median=float(np.median(values)), density=density.tolist(), below=below, above=above,
    )  # fmt: skip


def _compared(
    reference: np.ndarray | None, target: np.ndarray | None
) -> tuple[float | None, float | None]:
    if reference is None or target is None or min(len(reference), len(target)) == 0:
        return None, None
    with warnings.catch_warnings():
        # where there are many ties it says that it counts less exactly
        warnings.simplefilter("ignore", RuntimeWarning)
        found = ks_2samp(reference, target)
    return float(found.statistic), float(found.pvalue)


def _in_words(found: DistributionOut) -> list[str]:
    by_part = {one.part: one for one in found.splits or []}
    reference, target = by_part.get("reference"), by_part.get("target")
    name = found.feature_name
    said = []
    if reference and target and reference.median is not None and target.median is not None:
        said.append(
            f"{name}: its median is {reference.median:.3g} on {reference.split}, "
            f"{target.median:.3g} on {target.split}."
        )
    row = found.feature
    if row is None:
        said.append(f"How far apart the splits are is not known: {found.feature_reason}.")
    else:
        said.append(
            f"The distributions of both splits are at most {row.ks:.0%} of the images apart "
            "(Kolmogorov-Smirnov distance; above 0 by chance alone)."
        )
        shift = row.mean_difference_within_classes
        if shift.estimate is not None and shift.low is not None and shift.high is not None:
            clear = row.p_value is not None and row.p_value < _CLEAR
            said.append(
                f"Between images of the same class its mean is {abs(shift.estimate):.2f} standard "
                f"deviations {'higher' if shift.estimate > 0 else 'lower'} on {found.target} "
                f"(95 % interval of target − reference {shift.low:.2f} to {shift.high:.2f}): "
                + (
                    "told from chance, adjusted for looking at all features."
                    if clear
                    else "not told from chance."
                )
            )
    if found.of_class is not None:
        said += _class_in_words(found)
    said.append("A shift is a description: it does not say that it causes the gap.")
    return said


def _class_in_words(found: DistributionOut) -> list[str]:
    of = {one.part: one for one in found.of_class or []}
    lacking = [one.split for one in found.of_class or [] if one.n_read == 0]
    said = [f"Class {found.class_name}: no image on {', '.join(lacking)}."] if lacking else []
    if found.class_ks is not None and found.class_p_value is not None:
        clear = found.class_p_value < _CLEAR
        p = "below .001" if found.class_p_value < 0.001 else f"{found.class_p_value:.3f}"
        said.append(
            f"Images of class {found.class_name}: the {of['reference'].n_read:,} of "
            f"{found.reference} and the {of['target'].n_read:,} of {found.target} "
            + ("differ" if clear else "are not shown to differ")
            + f" in this feature (p {p}, of this class alone: with many classes looked at, some "
            "differ by chance)."
        )
    return said


def spec(answer: DistributionOut) -> dict[str, Any]:
    """Vega-Lite spec of an answer: of the class where one was asked for, else of all images.

    Raises
    ------
    NothingToDraw
    """
    shown, edges = answer.splits, answer.edges
    of_whom = "all images"
    if answer.of_class is not None:
        shown, edges = answer.of_class, answer.class_edges
        of_whom = f"images of class {answer.class_name}"
    drawn = [one for one in shown or [] if one.density is not None]
    if not drawn or edges is None:
        raise NothingToDraw(
            f"wanted the distribution of feature {answer.feature_id} for {answer.model!r}, but "
            f"{answer.reason or 'no split has an image of the class'}."
        )
    rows = [
        {"split": one.split, "value": edges[i], "density": density}
        for one in drawn
        # the last bin ends where the line goes on flat
        for i, density in enumerate([*(one.density or []), (one.density or [0.0])[-1]])
    ]
    return charts.densities(
        rows,
        medians=[{"split": one.split, "median": one.median} for one in drawn],
        domain=[one.split for one in drawn],
        parts=[one.part for one in drawn],
        title=f"{answer.feature_name} of {of_whom}; triangle: the median",
        x_title=f"value of {answer.feature_name}",
    )
