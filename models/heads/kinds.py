"""The heads that can be trained: their parameters, the values tried, and how they fit."""

import difflib
import itertools
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any

import numpy as np
import torch

from models.errors import InvalidParams
from models.heads import closed_form, foreign, logistic, neighbours, network
from models.heads.moments import Moments
from models.heads.task import Fit, Fitted, Params


@dataclass(frozen=True)
class Param:
    """One parameter of a head.

    Attributes
    ----------
    low, high : bounds of a number, both included unless `is_open`
    is_open : whether the low end itself is refused
    whole : whether only whole numbers are taken
    words : the texts that are taken instead of numbers
    truth : whether it is true or false
    grid : values tried where none is asked for; empty: it has a default in the fit
    per_row : whether the grid is multiplied by the number of rows
    falling : whether a smaller value is the stronger regularisation
    """

    low: float = 0.0
    high: float = math.inf
    is_open: bool = False
    whole: bool = False
    words: tuple[str, ...] = ()
    truth: bool = False
    grid: tuple[int | float, ...] = ()
    per_row: bool = False
    falling: bool = False

    def check(self, name: str, value: object) -> None:
        """Refuse a value of another kind or out of range.

        Raises
        ------
        InvalidParams
        """
        if self.truth:
            if not isinstance(value, bool):
                raise InvalidParams(f"wanted true or false for {name}, got {value!r}.")
            return
        if self.words:
            if value not in self.words:
                raise InvalidParams(
                    f"wanted {name} to be one of {', '.join(self.words)}, got {value!r}."
                )
            return
        number = isinstance(value, int if self.whole else int | float)
        # a whole number may be too large for a float, which math.isfinite would make of it
        is_number = number and not isinstance(value, bool) and abs(value) <= sys.float_info.max  # type: ignore[arg-type]
        low = is_number and (value > self.low if self.is_open else value >= self.low)  # type: ignore[operator]
        if not is_number or not low or value > self.high:  # type: ignore[operator]
            kind = "a whole number" if self.whole else "a number"
            above = f"above {self.low:g}" if self.is_open else f"of at least {self.low:g}"
            most = f" and at most {self.high:g}" if math.isfinite(self.high) else ""
            raise InvalidParams(
                f"wanted {kind} {above}{most} for {name}"
                + (", or a list of such numbers" if self.grid else "")
                + f", got {value!r}."
            )


@dataclass(frozen=True)
class Kind:
    """A head that can be trained.

    Attributes
    ----------
    fit : a task to heads, in the order of its candidates
    params : by name; those with a grid are swept, together where there are several
    is_iterative : whether it passes over the rows again and again: then a large train set is
        swept on a sample first
    check : of a head of another maker: refuses its parameters, all of which belong to one fit
    """

    fit: Callable[[Fit], Iterator[Fitted]]
    params: Mapping[str, Param] = field(default_factory=dict)
    is_iterative: bool = False
    check: Callable[[Mapping[str, Any]], None] | None = None

    def candidates(self, name: str, params: Mapping[str, Any], n_train: int = 1) -> list[Params]:
        """Parameters to try, weakest regularisation first.

        Raises
        ------
        InvalidParams
            An unknown parameter, or a value out of range.
        """
        if self.check is not None:
            self.check(params)
            return [dict(params)]
        unknown = sorted(set(params) - set(self.params))
        if unknown:
            known = list(self.params)
            near = {n.lower(): n for n in known}
            meant = near.get(unknown[0].lower()) or next(
                iter(difflib.get_close_matches(unknown[0], known, n=1)), None
            )
            has = f"the parameters {', '.join(known)}" if known else "no parameters"
            raise InvalidParams(
                f"head {name} has {has}, got {', '.join(unknown)}. "
                + (f"Did you mean {meant}?" if meant else "Leave it out.")
            )
        swept: list[list[tuple[str, Any]]] = []
        for key, param in self.params.items():
            if key in params:
                values = _values(key, param, params[key])
            elif param.grid:
                values = [v * n_train for v in param.grid] if param.per_row else [*param.grid]
            else:
                continue
            swept.append([(key, value) for value in values])
        return [dict(choice) for choice in itertools.product(*swept)]


def _values(name: str, param: Param, asked: Any) -> list[Any]:
    values = list(asked) if isinstance(asked, list | tuple) and param.grid else [asked]
    if not values:
        raise InvalidParams(f"wanted at least one value of {name}, got an empty list.")
    for value in values:
        param.check(name, value)
    if not param.grid:
        return values
    numbers = {int(value) if param.whole else float(value) for value in values}
    return sorted(numbers, reverse=param.falling)


def _fit_logistic(task: Fit) -> Iterator[Fitted]:
    """All penalties with the same options."""
    named = {f.name for f in fields(logistic.Options)}
    asked = dict(task.candidates[0])
    loss = asked.pop("loss", "plain")
    tau = asked.pop("tau", 1.0)
    asked = {name: value for name, value in asked.items() if name in named}
    if asked.get("averaging") == "none":
        asked["averaging"] = None
    options = logistic.Options(balanced=loss == "balanced", **asked)
    found = logistic.fit(
        task.part,
        [candidate["C"] for candidate in task.candidates],
        options,
        seed=task.seed,
        monitor=task.monitor,
        iterations=None if task.found is None else [f.get("iterations") for f in task.found],
        low_precision=task.low_precision,
        tick=task.tick,
        checkpoint=task.checkpoint,
        key=task.key,
    )
    shift = torch.zeros(task.part.matrix.k)
    if loss == "logit_adjusted":
        # fitting scores + τ·log π with a free bias is fitting the scores, and taking τ·log π off
        count = task.part.moments.count.cpu()
        shift = (tau * torch.log(count.clamp(min=1) / task.part.moments.n)).float()
    for fit in found:
        note = ""
        if not fit.is_converged and len(fit.curve) >= logistic.MAX_ITERATIONS:
            note = f"stopped after {logistic.MAX_ITERATIONS} steps, before its minimum"
        iterations = {"iterations": fit.iterations} if task.monitor is not None else {}
        yield Fitted(task.linear(fit.weight, fit.bias.cpu() - shift), iterations, fit.curve, note)


def _closed(
    solve: Callable[[Moments, Sequence[float]], Iterator[closed_form.Solution]], name: str | None
) -> Callable[[Fit], Iterator[Fitted]]:
    def fit(task: Fit) -> Iterator[Fitted]:
        values = [candidate[name] if name else 0.0 for candidate in task.candidates]
        for i, (weight, bias) in enumerate(solve(task.part.moments, values)):
            task.tick((i + 1) / len(values))
            yield Fitted(task.linear(weight, bias))

    return fit


_EPSILON = Param(high=0.99)
KINDS: Mapping[str, Kind] = {
    "logistic": Kind(
        _fit_logistic,
        {
            "C": Param(is_open=True, falling=True,
                       grid=(3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 5e-3, 3e-3, 2e-3, 1e-3, 3e-4, 1e-4)),
            "label_smoothing": _EPSILON,
            "loss": Param(words=("plain", "balanced", "logit_adjusted")),
            "tau": Param(high=10.0),
            "noise": Param(high=10.0),
            "dropout": _EPSILON,
            "mixup": Param(high=100.0),
            "averaging": Param(words=("none", "ema", "swa")),
            "early_stopping": Param(truth=True),
            "hard": Param(low=1.0, high=100.0),
        },
        is_iterative=True,
    ),
    "lda": Kind(
        _closed(closed_form.lda, "shrinkage"),
        {"shrinkage": Param(is_open=True, high=1.0, grid=(
            1e-3, 3e-3, 0.01, 0.03, 0.06, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1.0))},
    ),
    "ridge": Kind(
        _closed(closed_form.ridge, "alpha"),
        {"alpha": Param(is_open=True, per_row=True, grid=(
            1e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.2, 0.3, 0.6, 1.0, 3.0, 10.0))},
    ),
    "nearest_mean": Kind(_closed(closed_form.nearest_mean, None)),
    "knn": Kind(
        neighbours.fit,
        {
            "k": Param(low=1.0, high=1000.0, whole=True, grid=(1, 5, 10, 20, 50, 100, 200)),
            "temperature": Param(is_open=True, falling=True, grid=(0.02, 0.04, 0.07, 0.14)),
        },
    ),
    "cosine": Kind(
        network.fit_cosine,
        {
            "scale": Param(is_open=True, high=1000.0, falling=True, grid=(60.0, 30.0, 15.0)),
            "label_smoothing": _EPSILON,
            "epochs": Param(low=1.0, high=1000.0, whole=True),
        },
        is_iterative=True,
    ),
    "mlp": Kind(
        network.fit_mlp,
        {
            "weight_decay": Param(grid=(0.01, 0.3)),
            "hidden": Param(low=1.0, high=16_384.0, whole=True),
            "dropout": _EPSILON,
            "label_smoothing": _EPSILON,
            "epochs": Param(low=1.0, high=1000.0, whole=True),
        },
        is_iterative=True,
    ),
}  # fmt: skip

FOREIGN = "sklearn:"


def kind_of(head: str, known: Sequence[str] = tuple(KINDS)) -> Kind:
    """Return a kind of head by name; `known` are the names that a refusal lists.

    Raises
    ------
    InvalidParams
    """
    if head.startswith(FOREIGN):
        name = head.removeprefix(FOREIGN)
        return Kind(partial(_fit_foreign, name), check=partial(foreign.check_sklearn, name))
    if head not in KINDS:
        near = difflib.get_close_matches(head, known, n=1)
        raise InvalidParams(
            f"wanted a head ({', '.join(known)}, or {FOREIGN} and a classifier of scikit-learn), "
            f"got {head!r}." + (f" Did you mean {near[0]}?" if near else "")
        )
    return KINDS[head]


def _fit_foreign(name: str, task: Fit) -> Iterator[Fitted]:
    """Fit a classifier of scikit-learn, which wants all rows in memory."""
    X = np.concatenate([block.cpu().numpy() for block, _ in task.part.blocks(8192)])
    y = task.part.y.cpu().numpy()
    standard = task.part.matrix.standard
    for candidate in task.candidates:
        fitted = foreign.fit_sklearn(name, candidate, X, y, seed=task.seed)
        head = foreign.sklearn_head(
            fitted, standard.mean, standard.scale, task.part.matrix.class_ids, X
        )
        yield Fitted(head, note="; ".join(fitted.notes))
