"""What a training left behind: its leaderboard and the curves of its fits, as answers.

Both come from what is stored with a model; nothing is trained or scored anew.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from service.errors import NotFound
from service.results import IMPORTED, INTERPOLATED, NATIVE, Results
from service.schemas import CurveOut, CurvesOut, LeaderboardOut, RankedOut

_ALL_ROWS = "all train rows"  # stage of `models.heads.Curve` where the whole train set was fitted
_NOT_TRAINED = {
    IMPORTED: "an imported model was trained elsewhere",
    NATIVE: "the weights of a native head were given",
    INTERPOLATED: "a head between two others was not trained",
}


def leaderboard(results: Results, model: str) -> LeaderboardOut:
    """Return what was tried in the training of a model, best first.

    Raises
    ------
    NotFound
    """
    card = results.card(model)
    validation = card.get("validation") or {"candidates": [], "method": None}
    tried = sorted(validation["candidates"], key=_rank)
    settings = _settings_of(card)
    best: dict[str | None, int] = {}
    for place, candidate in enumerate(tried):
        best.setdefault(candidate.get("head"), place)
    # the same setting may have been tried on a sample before: what was chosen was the larger fit
    chosen = next((i for i, c in enumerate(tried) if _setting(c) == settings[0]), None)
    return LeaderboardOut(
        model=model,
        head=card["head"],
        method=validation["method"],
        notes=card.get("notes") or [],
        candidates=[
            RankedOut(
                **candidate,
                setting=in_words(candidate.get("params")),
                is_best=best[candidate.get("head")] == place,
                is_chosen=place == chosen,
            )
            for place, candidate in enumerate(tried)
        ],
        reason=None if tried else _NOT_TRAINED.get(card["head"], "no candidates were stored"),
    )


def curves(results: Results, model: str) -> CurvesOut:
    """Return how the fits of the training of a model went, step by step.

    Raises
    ------
    NotFound
    """
    card = results.card(model)
    chosen = _settings_of(card)
    stored = results.curves(model)
    no_steps = "none of its fits took steps (closed forms), or it was stored before curves were"
    return CurvesOut(
        model=model,
        curves=[
            CurveOut(**curve, setting=in_words(curve["params"]), role=_role(curve, chosen))
            for curve in stored
        ],
        reason=None if stored else _NOT_TRAINED.get(card["head"], no_steps),
    )


# by the name of the chart that shows it
ANSWERS: Mapping[str, Callable[[Results, str], LeaderboardOut | CurvesOut]] = {
    "leaderboard": leaderboard,
    "loss": curves,
}


def answer_of(results: Results, model: str, chart: str) -> LeaderboardOut | CurvesOut:
    """Return what a chart of a training shows.

    Raises
    ------
    NotFound
        No such model, or no such chart.
    """
    if chart not in ANSWERS:
        raise NotFound(f"wanted a chart of a training ({', '.join(ANSWERS)}), got {chart!r}.")
    return ANSWERS[chart](results, model)


def why_flattered(candidates: Sequence[object]) -> str | None:
    """Return why a leaderboard shows more than internal validation; None where nothing was chosen.

    Examples
    --------
    >>> why_flattered([{"top1": 0.9}])
    >>> why_flattered([{"top1": 0.9}, {"top1": 0.8}])
    'The accuracies of the candidates are on the rows that the choice was made on, which ...'
    """
    if len(candidates) < 2:
        return None
    return (
        "The accuracies of the candidates are on the rows that the choice was made on, which "
        "flatters the chosen one; internal validation is on rows that took no part in choosing."
    )


def in_words(params: Mapping[str, Any] | None) -> str:
    """Return the parameters of a head as one line.

    Examples
    --------
    >>> in_words({"C": 0.30000001, "averaging": "ema"})
    'C=0.3, averaging=ema'
    >>> in_words({"members": [{"head": "lda", "params": {"shrinkage": 1.0}, "weight": 0.5}]})
    '0.5 lda (shrinkage=1)'
    """
    if params and "members" in params:
        return " + ".join(
            f"{_value(m.get('weight', m.get('share')))} {m['head']} ({in_words(m['params'])})"
            for m in params["members"]
        )
    return ", ".join(f"{name}={_value(value)}" for name, value in (params or {}).items())


def _value(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _rank(candidate: Mapping[str, Any]) -> tuple[int, float, float]:
    # what was tried on a sample of the rows is not held against what saw all of them
    return -(candidate.get("n_fit") or 0), -candidate["top1"], round(candidate["nll"], 4)


def _setting(what: Mapping[str, Any]) -> tuple[str | None, Any]:
    return what.get("head"), what.get("params")


def _settings_of(card: Mapping[str, Any]) -> Sequence[tuple[str | None, Any]]:
    """Return the setting of a model, and those of its members where it has some."""
    return [_setting(card), *(_setting(m) for m in card["params"].get("members", []))]


def _role(
    curve: Mapping[str, Any], chosen: Sequence[tuple[str | None, Any]]
) -> Literal["final", "chosen", "other"]:
    if _setting(curve) not in chosen:
        return "other"
    return "final" if curve["stage"] == _ALL_ROWS else "chosen"
