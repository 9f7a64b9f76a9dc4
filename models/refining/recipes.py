"""Refinements of a head as a small declarative vocabulary.

A recipe is {"kind": name, …}. Those that train are turned into the `Order` of an ordinary training,
which reads train rows alone. Recipes are of three uses:

    train        know nothing of the test sets
    informed     were learnt from the test sets' explore halves: a family of their own
    test inputs  read the images to be judged: refused, but for diagnostics in no family
"""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from models.errors import InvalidParams
from models.heads.kinds import KINDS, Param
from models.heads.training import ENSEMBLE

TRAIN, INFORMED, TEST_INPUTS = "train", "informed by the test sets", "test inputs"
MASK_SHIFTING = "mask_shifting"
ALIGN_MEANS, CORAL, TARGET_PRIOR = "align_means", "coral", "target_prior"
Params = dict[str, Any]
Setting = tuple[str, Params]  # kind of a head, and its parameters


@dataclass(frozen=True)
class Order:
    """A training that makes a refined head.

    Attributes
    ----------
    head, params : as `models.heads.train` takes them
    backbones : whose features it reads; none: the baseline's
    drop : names of features that it may not read
    drop_unstable : share of the features to be dropped, the least stable ones of the train rows
    between : a model and a share: no training, but the head that far on the way to that model's
    """

    head: str
    params: Params
    backbones: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    drop_unstable: float | None = None
    between: tuple[str, float] | None = None


@dataclass(frozen=True)
class Recipe:
    """One word of the vocabulary.

    Attributes
    ----------
    about : what it does, in words that follow "the head"
    use : TRAIN, INFORMED or TEST_INPUTS
    order : settings of the baseline and parameters of the recipe to the training; None where none
        is trained
    params : numbers and words that it takes, with their defaults
    lists : lists of names that it takes
    names : single names that it takes
    """

    about: str
    use: str
    order: Callable[[Sequence[Setting], Params], Order] | None
    params: Mapping[str, tuple[Param, Any]] = field(default_factory=dict)
    lists: tuple[str, ...] = ()
    names: tuple[str, ...] = ()


def checked(recipe: Mapping[str, Any]) -> Params:
    """Return a recipe with its defaults filled in.

    Raises
    ------
    InvalidParams
        An unknown kind or parameter, or a value out of range.

    Examples
    --------
    >>> checked({"kind": "stronger_penalty"})
    {'kind': 'stronger_penalty', 'factor': 10.0}
    """
    kind = recipe.get("kind")
    if not isinstance(kind, str) or kind not in RECIPES:
        near = difflib.get_close_matches(str(kind), RECIPES, n=1)
        why = f" Did you mean {near[0]}?" if near else ""
        why = f" {REFUSED[str(kind)]}" if kind in REFUSED else why
        raise InvalidParams(f"wanted a recipe of kind {', '.join(RECIPES)}, got {kind!r}.{why}")
    known = RECIPES[kind]
    names = {*known.params, *known.lists, *known.names}
    unknown = sorted(set(recipe) - names - {"kind"})
    if unknown:
        raise InvalidParams(
            f"{kind} takes {', '.join(sorted(names)) or 'no parameters'}, got "
            f"{', '.join(unknown)}. Leave it out."
        )
    found: Params = {"kind": kind}
    for name, (param, default) in known.params.items():
        found[name] = recipe.get(name, default)
        param.check(name, found[name])
    for name in known.lists:
        values = recipe.get(name)
        is_list = isinstance(values, list | tuple) and all(isinstance(v, str) for v in values)
        if not is_list or not values:
            raise InvalidParams(f"wanted a list of names for {name}, got {values!r}.")
        found[name] = list(dict.fromkeys(values or []))
    for name in known.names:
        if not isinstance(recipe.get(name), str) or not recipe[name]:
            raise InvalidParams(f"wanted a name for {name}, got {recipe.get(name)!r}.")
        found[name] = recipe[name]
    return found


def order_of(recipe: Mapping[str, Any], head: str, params: Mapping[str, Any]) -> Order:
    """Return the training that makes the refined head.

    Parameters
    ----------
    recipe
        As `checked` gives it.
    head, params
        Of the baseline, as its card has them.

    Raises
    ------
    InvalidParams
        The baseline's kind of head has nothing that this recipe changes.

    Examples
    --------
    >>> order_of(checked({"kind": "stronger_penalty"}), "logistic", {"C": 0.5}).params
    {'C': 0.05}
    """
    made = RECIPES[recipe["kind"]].order
    if made is None:
        raise InvalidParams(f"wanted a recipe that trains a head, got {recipe['kind']}.")
    return made(settings_of(head, params), dict(recipe))


def settings_of(head: str, params: Mapping[str, Any]) -> list[Setting]:
    """Return the kinds and parameters that a head is made of: of an ensemble, its members'."""
    if head != ENSEMBLE:
        return [(head, dict(params))]
    return [(one["head"], dict(one["params"])) for one in params["members"]]


def in_words(recipe: Mapping[str, Any]) -> str:
    """Return a recipe as one line.

    Examples
    --------
    >>> in_words({"kind": "stronger_penalty", "factor": 10.0})
    'stronger_penalty (factor 10)'
    """
    said = []
    for name, value in recipe.items():
        if name == "kind":
            continue
        if isinstance(value, list):
            more = f" and {len(value) - 3} more" if len(value) > 3 else ""
            said.append(f"{name} {', '.join(map(str, value[:3]))}{more}")
        else:
            said.append(f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}")
    return f"{recipe['kind']} ({'; '.join(said)})" if said else str(recipe["kind"])


def together(settings: Sequence[Setting], more: Sequence[Any] = (), **order: Any) -> Order:
    """Return the order of one setting, or of several as an ensemble with shares chosen anew."""
    if len(settings) == 1 and not more:
        return Order(*settings[0], **order)
    members = [{"head": head, "params": params} for head, params in settings]
    distinct = [one for i, one in enumerate(members) if one not in members[:i]]
    return Order(ENSEMBLE, {"heads": [*distinct, *more]}, **order)


def _stronger(settings: Sequence[Setting], recipe: Params) -> Order:
    factor = float(recipe["factor"])
    change: Mapping[str, tuple[str, Callable[[float], float]]] = {
        "logistic": ("C", lambda v: v / factor),
        "ridge": ("alpha", lambda v: v * factor),
        "lda": ("shrinkage", lambda v: min(1.0, v * factor)),
        "mlp": ("weight_decay", lambda v: max(v, 1e-3) * factor),
        "cosine": ("scale", lambda v: v / factor),
        "knn": ("k", lambda v: min(1000, round(v * factor))),
    }
    found = []
    for head, params in settings:
        name, stronger = change.get(head, ("", float))
        found.append((head, {**params, name: stronger(params[name])}) if name in params
                     else (head, params))  # fmt: skip
    return _unless_alike(settings, found, recipe)


def _loss(name: str, value: Callable[[Params], Mapping[str, Any]]) -> Callable[..., Order]:
    """Return what changes a parameter of every member that has it."""

    def order(settings: Sequence[Setting], recipe: Params) -> Order:
        found = [
            (head, {**params, **value(recipe)})
            if head in KINDS and name in KINDS[head].params
            else (head, params)
            for head, params in settings
        ]
        return _unless_alike(settings, found, recipe)

    return order


def _unless_alike(settings: Sequence[Setting], found: Sequence[Setting], recipe: Params) -> Order:
    if list(settings) == list(found):
        heads = ", ".join(head for head, _ in settings)
        raise InvalidParams(
            f"wanted a baseline that {recipe['kind']} changes, got {heads}, where it changes "
            "nothing. Choose another baseline or another recipe."
        )
    return together(found)


def _blend(settings: Sequence[Setting], recipe: Params) -> Order:
    other = recipe["with"]
    if [head for head, _ in settings] == [other]:
        raise InvalidParams(f"wanted another head than the baseline's, {other}, to blend with.")
    return together(settings, [other])


def _ensemble(settings: Sequence[Setting], recipe: Params) -> Order:
    names = {head for head, _ in settings}
    return together(settings, [head for head in recipe["heads"] if head not in names])


def _concatenated(settings: Sequence[Setting], recipe: Params) -> Order:
    # another space wants another penalty: the heads are swept anew
    return together([(head, {}) for head, _ in settings], backbones=tuple(recipe["backbones"]))


_FACTOR = Param(low=1.0, high=1e6, is_open=True)
_SHARE = Param(high=0.9, is_open=True)
RECIPES: Mapping[str, Recipe] = {
    "stronger_penalty": Recipe(
        "is held to smaller weights", TRAIN, _stronger, {"factor": (_FACTOR, 10.0)}
    ),
    "label_smoothing": Recipe(
        "is told that each label may be wrong",
        TRAIN,
        _loss("label_smoothing", lambda r: {"label_smoothing": r["epsilon"]}),
        {"epsilon": (Param(high=0.9, is_open=True), 0.1)},
    ),
    "averaging": Recipe(
        "is the mean of the steps of its fit",
        TRAIN,
        _loss("averaging", lambda r: {"averaging": r["how"]}),
        {"how": (Param(words=("ema", "swa")), "ema")},
    ),
    "feature_noise": Recipe(
        "learns from features with noise on them",
        TRAIN,
        _loss("noise", lambda r: {"noise": r["sd"]}),
        {"sd": (Param(high=10.0, is_open=True), 0.5)},
    ),
    "feature_dropout": Recipe(
        "learns from rows each of which lacks some features",
        TRAIN,
        _loss("dropout", lambda r: {"dropout": r["share"]}),
        {"share": (_SHARE, 0.2)},
    ),
    "mixup": Recipe(
        "learns from mixed pairs of rows",
        TRAIN,
        _loss("mixup", lambda r: {"mixup": r["alpha"]}),
        {"alpha": (Param(high=100.0, is_open=True), 0.2)},
    ),
    "balanced_loss": Recipe(
        "weighs every class alike", TRAIN, _loss("loss", lambda _r: {"loss": "balanced"})
    ),
    "logit_adjusted": Recipe(
        "takes the train rows' mix of classes off its scores",
        TRAIN,
        _loss("loss", lambda r: {"loss": "logit_adjusted", "tau": r["tau"]}),
        {"tau": (Param(high=10.0, is_open=True), 1.0)},
    ),
    "reweight_hard": Recipe(
        "learns more from train rows that a stiff head gets wrong",
        TRAIN,
        _loss("hard", lambda r: {"hard": r["weight"]}),
        {"weight": (Param(low=1.0, high=100.0, is_open=True), 3.0)},
    ),
    "drop_unstable": Recipe(
        "does not read the features that differ most between clusters of train rows of a class",
        TRAIN,
        lambda settings, r: together(settings, drop_unstable=float(r["share"])),
        {"share": (_SHARE, 0.05)},
    ),
    "blend": Recipe(
        "is blended with prototypes (nearest_mean) or neighbours (knn)",
        TRAIN,
        _blend,
        {"with": (Param(words=("knn", "nearest_mean")), "knn")},
    ),
    "ensemble": Recipe(
        "is one of several kinds of heads together", TRAIN, _ensemble, lists=("heads",)
    ),
    "interpolate": Recipe(
        "lies between the baseline and another linear head on the same features",
        TRAIN,
        lambda settings, r: Order(*settings[0], between=(r["model"], float(r["alpha"]))),
        {"alpha": (Param(high=1.0, is_open=True), 0.5)},
        names=("model",),
    ),
    "backbone": Recipe(
        "reads another network's features",
        TRAIN,
        lambda settings, r: together([(h, {}) for h, _ in settings], backbones=(r["backbone"],)),
        names=("backbone",),
    ),
    "concatenate": Recipe(
        "reads the features of several networks", TRAIN, _concatenated, lists=("backbones",)
    ),
    "drop_features": Recipe(
        "does not read the named features (what you name may come from all images you saw)",
        INFORMED,
        lambda settings, r: together(settings, drop=tuple(r["features"])),
        lists=("features",),
    ),
    MASK_SHIFTING: Recipe(
        "does not read the features with the largest shift times weight on the explore halves",
        INFORMED,
        None,
        {"n": (Param(low=1.0, high=10_000.0, whole=True), 8)},
    ),
    ALIGN_MEANS: Recipe(
        "reads features whose mean was moved to that of the train rows", TEST_INPUTS, None
    ),
    CORAL: Recipe(
        "reads features whose mean and covariance were made those of the train rows",
        TEST_INPUTS,
        None,
    ),
    TARGET_PRIOR: Recipe(
        "has its class probabilities set to the mix of classes that the test images suggest",
        TEST_INPUTS,
        None,
    ),
}
_ADAPTS = (
    "It would change the head by the very images that judge it, and no longer be the head that "
    "was asked about."
)
REFUSED: Mapping[str, str] = {
    "importance_weights": "Train rows weighted by how much they resemble the test images: "
    + _ADAPTS,
    "tent": f"Test-time entropy minimisation: {_ADAPTS}",
    "t3a": f"Test-time prototypes: {_ADAPTS}",
    "bbse": f"Class weights from the test images' predictions: {_ADAPTS} See target_prior.",
    "select_by_target": "Choosing by accuracy on a test set is what registering prevents.",
}
