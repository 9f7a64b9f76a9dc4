"""`/gap/{model}/mask`: the head fitted again without some features, beside random sets of them."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import ConfigDict, Field

from models import heads
from models.errors import InvalidParams
from models.estimate import share
from models.gap.masking import TOLERATED, MaskEffect, mask_effect, matched_sets
from models.gap.resampling import Replicates
from models.heads.training import ENSEMBLE, refit
from service.errors import ImportedModel, NotFound, NotTrainedHere
from service.evaluations import SEED
from service.gap.inputs import Inputs, Sides
from service.schemas import Answer, EstimateOut, PartOut, Request
from service.sentences import NO_FEATURES, points
from service.terminal import Progress, part_of

# rows × features × classes up to which random sets are fitted with the head itself
_SAME_HEAD = 10**10
_QUICK: tuple[str, dict[str, Any]] = ("lda", {"shrinkage": 0.1})
MASK_ID = r"^[0-9a-f]{1,16}$"  # of `mask_id`; it stands in the name of a file
RULE = (
    "accepted where the interval of the change of the gap lies below 0 and that of the change of "
    f"accuracy on the target above −{TOLERATED * 100:.1f} points"
)
ASSUMPTIONS = (
    "The heads are fitted on train rows alone, with the same parameters, so that no test row takes "
    "part; but a set of features that was chosen by looking at these two sets is informed by them, "
    "and its verdict here flatters: it is a hypothesis, to be judged on other images, and never "
    "the best head."
)


class MaskIn(Request):
    """Fit the head of a model again without some features."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"features": ["0"]}]})

    features: list[str] = Field(min_length=1, description="Names of the features to leave out.")
    reference: str | None = Field(None, description="A test split; default: as the load says.")
    target: str | None = Field(None, description="A test split; default: as the load says.")


class RandomSetOut(Answer):
    """A random set of features left out in the same way."""

    features: list[str]
    importance: float = Field(description="Of that of the named set.")
    gap_change: float
    target_change: float


class RandomSetsOut(Answer):
    """Random sets of as many features and about the same importance, and the named set anew."""

    head: str = Field(description="Kind of head that all of them, and the named set, were fitted "
        "with: the model's own, or a closed form where that would take too long.")  # fmt: skip
    sets: list[RandomSetOut]
    gap_change: float = Field(description="Of the named set, with this head.")
    p_value: float | None = Field(
        description="(1 + random sets whose gap shrinks at least as much) / (1 + random sets)."
    )


class MaskOut(PartOut):
    """What leaving features out does to the gap."""

    id: str
    features: list[str]
    head: str = Field(description="Kind of head that was fitted.")
    params: dict[str, Any]
    importance: float = Field(
        description="Share of all features' train importance, Σ over classes of squared weights "
        "per train standard deviation."
    )
    accuracy: dict[str, EstimateOut] = Field(description="With all features, on each split.")
    accuracy_without: dict[str, EstimateOut]
    gap_change: EstimateOut = Field(description="Without minus with: below 0, the gap is smaller.")
    reference_change: EstimateOut
    target_change: EstimateOut
    accepted: bool
    verdict: str
    rule: str
    random_sets: RandomSetsOut
    assumptions: str


def mask_id(names: Sequence[str]) -> str:
    """Return the id of a set of features, whatever their order.

    Examples
    --------
    >>> mask_id(["b", "a"]) == mask_id(["a", "b", "a"])
    True
    """
    return hashlib.sha256(json.dumps(sorted(set(names))).encode()).hexdigest()[:16]


def check_mask(card: Mapping[str, Any], feature_names: Sequence[str], names: Sequence[str]) -> None:
    """Refuse what cannot be masked, before it is queued.

    Raises
    ------
    ImportedModel, NotTrainedHere, NotFound, models.errors.InvalidParams
    """
    if card["backbone"] is None:
        raise ImportedModel(
            f"wanted a model whose features are here, got one of which {NO_FEATURES}."
        )
    if card["validation"] is None:
        raise NotTrainedHere(
            f"wanted a head that was trained here and can be fitted again, got {card['head']}. "
            "Train one on the same backbone (POST /train)."
        )
    unknown = sorted(set(names) - set(feature_names))
    if unknown:
        raise NotFound(
            f"wanted names of features of {card['backbone']!r}, got {', '.join(unknown[:5])}"
            f"{' and more' if len(unknown) > 5 else ''}. GET /gap/{card['model']}/features "
            "lists them."
        )
    if len(set(names)) == len(feature_names):
        raise InvalidParams("wanted some features to be left, got all of them to leave out.")


def compute(
    inputs: Inputs, names: Sequence[str], resources: heads.Resources, progress: Progress
) -> MaskOut:
    """Fit with and without, and without random sets."""
    check_mask(inputs.card, inputs.feature_names, names)
    assert inputs.head is not None
    out = np.array(sorted(inputs.feature_names.index(name) for name in set(names)))
    kind, params = _fitted_as(inputs.card)
    rows, _ = inputs.database.train_rows(inputs.backbone)
    importance = _importance(inputs)
    sets = matched_sets(importance, out, seed=SEED)
    n, d = rows.features.shape
    is_quick = n * d * len(rows.class_ids) > _SAME_HEAD
    n_fits = 2 + len(sets) + 2 * is_quick
    done = 0

    def right(without: np.ndarray, kind: str, params: dict[str, Any]) -> Sides[np.ndarray]:
        nonlocal done
        step = part_of(progress, done / n_fits, (done + 1) / n_fits)
        done += 1
        kept = np.setdiff1d(np.arange(d), without)
        head = refit(
            rows if len(without) == 0 else rows.only(kept), kind, params,
            seed=inputs.card["seed"], resources=resources,
            progress=lambda share, _: step(share, f"fit {done} of {n_fits}"),
        )  # fmt: skip
        assert inputs.features is not None
        return Sides(
            *(
                heads.predict(head, x[:, kept] if len(without) else x, y).correct
                for x, y in zip(inputs.features.pair, inputs.labels.pair, strict=True)
            )
        )

    nothing = np.empty(0, np.int64)
    drawn = inputs.replicates
    with_all, without = right(nothing, kind, params), right(out, kind, params)
    effect = mask_effect(with_all.pair, without.pair, drawn)
    like = (kind, params)
    base, named = with_all, without
    if is_quick:
        like = _QUICK
        base, named = right(nothing, *like), right(out, *like)
    random = [(one, _change(base, right(one, *like))) for one in sets]
    total = float(importance[out].sum())
    shown = [
        RandomSetOut(
            features=[inputs.feature_names[j] for j in one.tolist()],
            importance=float(importance[one].sum() / total) if total > 0 else 1.0,
            gap_change=gap,
            target_change=target,
        )
        for one, (gap, target) in random
    ]
    own = _change(base, named)[0]
    reached = sum(gap <= own + 1e-12 for _, (gap, _) in random)
    whole = float(importance.sum())
    found = MaskOut(
        model=inputs.model,
        reference=inputs.reference,
        target=inputs.target,
        summary=[],
        id=mask_id(names),
        features=[inputs.feature_names[j] for j in out.tolist()],
        head=kind,
        params=params,
        importance=total / whole if whole > 0 else 0.0,
        accuracy=_accuracies(inputs, with_all),
        accuracy_without=_accuracies(inputs, without),
        gap_change=EstimateOut.of(effect.gap, inputs.names),
        reference_change=_of_one(effect.reference, "reference", inputs, drawn),
        target_change=_of_one(effect.target, "target", inputs, drawn),
        accepted=effect.is_accepted,
        verdict=effect.verdict,
        rule=RULE,
        random_sets=RandomSetsOut(
            head=like[0],
            sets=shown,
            gap_change=own,
            p_value=(1 + reached) / (1 + len(shown)) if shown else None,
        ),
        assumptions=ASSUMPTIONS,
    )
    return found.model_copy(update={"summary": _in_words(found, effect)})


def _fitted_as(card: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Kind and parameters of the head that is fitted again: of an ensemble, its weightiest one."""
    if card["head"] != ENSEMBLE:
        return card["head"], dict(card["params"])
    member = max(card["params"]["members"], key=lambda one: one["weight"])
    return member["head"], dict(member["params"])


def _importance(inputs: Inputs) -> np.ndarray:
    """Σ_k w²_kj var_j: scores are per train standard deviation, so that the variance is in it."""
    assert inputs.head is not None
    return np.asarray(np.square(inputs.head.feature_weights()))


def _change(old: Sides[np.ndarray], new: Sides[np.ndarray]) -> tuple[float, float]:
    """Change of the gap, and of accuracy on the target."""
    first, second = (
        float(after.mean() - before.mean())
        for before, after in zip(old.pair, new.pair, strict=True)
    )
    return first - second, second


def _accuracies(inputs: Inputs, right: Sides[np.ndarray]) -> dict[str, EstimateOut]:
    return {
        split: EstimateOut.of(share(int(side.sum()), len(side)), {"images": split})
        for split, side in zip(inputs.splits.pair, right.pair, strict=True)
    }


def _of_one(value: Any, name: str, inputs: Inputs, drawn: Replicates) -> EstimateOut:
    split = inputs.names[name]
    return EstimateOut.of(value).model_copy(update={"n": {split: drawn.n[name]}})


def _in_words(found: MaskOut, effect: MaskEffect) -> list[str]:
    n = len(found.features)
    few = f"{n} feature{'s' if n > 1 else ''}"
    sentences = []
    change = effect.gap
    if change.estimate is not None and change.low is not None and change.high is not None:
        sentences.append(
            f"Without {few} the same head ({found.head}) has a gap that changes by "
            f"{change.estimate * 100:+.1f} points ({points(change.low, change.high)}): "
            f"{effect.verdict}."
        )
    target = effect.target
    if target.estimate is not None and target.low is not None and target.high is not None:
        sentences.append(
            f"Accuracy on {found.target} changes by {target.estimate * 100:+.1f} points "
            f"({points(target.low, target.high)})."
        )
    sets = found.random_sets
    if sets.p_value is None:
        sentences.append("There are too few other features to compare with random sets of them.")
    else:
        less = sum(one.gap_change <= sets.gap_change + 1e-12 for one in sets.sets)
        sentences.append(
            f"{less} of {len(sets.sets)} random sets of as many features and about the same weight "
            f"in the head shrink the gap at least as much ({sets.head})."
        )
    sentences.append(
        "Where these features were chosen by looking at the two sets, this flatters: a hypothesis "
        "to be judged on other images."
    )
    return sentences
