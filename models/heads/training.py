"""The door: train a head, choose its parameters on held-out train rows, fit it on all of them."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Int8, UInt8

from models.errors import InvalidParams
from models.estimate import Estimate, share
from models.heads.checkpoint import Checkpoint, NoCheckpoint
from models.heads.ensemble import EnsembleHead, best_shares, combined
from models.heads.kinds import KINDS, kind_of
from models.heads.rows import TrainRows
from models.heads.session import Curve, Progress, Resources, Session
from models.heads.task import Params, TrainedHead
from models.heads.validation import Board, Candidate, in_words

ENSEMBLE, AUTO = "ensemble", "auto"
HEADS = (*KINDS, ENSEMBLE, AUTO)
_BUDGET_S = 3600.0
_MEMBERS = ("lda", "ridge", "logistic", "knn")
# what `auto` tries, in this order; variants of the logistic head start from its best penalty
_LADDER = (
    "nearest_mean", "lda", "ridge", "logistic", "logistic with label smoothing",
    "logistic with noise", "knn", "cosine", "mlp",
)  # fmt: skip
_VARIANTS: Mapping[str, Params] = {
    "logistic with label smoothing": {"label_smoothing": 0.1, "averaging": "ema"},
    "logistic with noise": {"noise": 0.5},
}
# a member of an ensemble: its name, or its name and parameters
Member = str | Mapping[str, Any]
_FLOPS_PER_S = 1e11  # of a machine to plan by, so that a plan does not hang on the clock


@dataclass(frozen=True)
class Trained:
    """A head and how it came about.

    Attributes
    ----------
    head : fitted on all train rows with the chosen parameters
    kind : kind of the head; for `auto`, of the winner
    params : the chosen parameters
    method : how they were chosen
    top1 : internal validation accuracy of the choice, on rows that took no part in it; optimistic
        where the backbone has seen the train images
    candidates : the whole leaderboard
    n_train : number of train rows
    fold : uint8 [n], which rows were held out together while parameters were chosen; 255 for rows
        that were never held out
    right : int8 [n], whether each row was right (1) or wrong (0) when it was held out, with
        parameters that were chosen on other rows; -1 for rows that were never judged
    curves : of the fits that took steps
    notes : what users should know
    """

    head: TrainedHead
    kind: str
    params: Params
    method: str
    top1: Estimate
    candidates: list[Candidate]
    n_train: int
    fold: UInt8[np.ndarray, " n"]
    right: Int8[np.ndarray, " n"]
    curves: list[Curve] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def check_params(head: str, params: Mapping[str, Any]) -> None:
    """Refuse what `train` would refuse of a head's name and parameters.

    Raises
    ------
    InvalidParams
        An unknown head or parameter, or a value out of range.

    Examples
    --------
    >>> check_params("logistic", {"C": 0.5, "label_smoothing": 0.1})
    """
    if head == ENSEMBLE:
        _heads_in(params, _MEMBERS, allowed={"heads"}, least=2)
    elif head == AUTO:
        _heads_in(params, _LADDER, allowed={"heads", "budget_s"}, least=1)
        budget = params.get("budget_s", _BUDGET_S)
        if isinstance(budget, bool) or not isinstance(budget, int | float) or not budget > 0:
            raise InvalidParams(f"wanted budget_s above 0, in seconds, got {budget!r}.")
    else:
        kind_of(head, HEADS).candidates(head, params)


def train(
    rows: TrainRows,
    head: str,
    params: Mapping[str, Any] | None = None,
    *,
    seed: int,
    progress: Progress = lambda _share, _message: None,
    checkpoint: Checkpoint | None = None,
    resources: Resources | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Trained:
    """Train a head: choose its parameters on held-out train rows, then fit on all of them.

    From 50,000 rows on a stratified twentieth is held out, below that five folds are. The best
    validation accuracy wins, ties go to the lower loss, then to the stronger regularisation; with
    at least 50,000 validation rows the strongest regularisation within one standard error of the
    best wins, if its loss is not clearly worse.

    Parameters
    ----------
    rows
        Train rows; nothing else can be handed over.
    head
        One of `HEADS`.
    params
        Of the head (see `models.heads.kinds`), a number or, where it is swept, a list; default: a
        grid. `ensemble` takes {"heads": […]}, each a name or {"head": name, "params": {…}}, `auto`
        {"heads": […], "budget_s": …}.
    seed
        Of the folds and of all that is drawn: the same seed, machine and device give the same head.
    progress
        Called often with the share done and a message; an exception from it stops the training.
    checkpoint
        Where to keep what a training that was killed goes on from.
    resources
        Memory, disk and device that may be used.
    clock
        Seconds, for the budget of `auto`.

    Raises
    ------
    InvalidParams, NoTrainRows, NoRoom
    """
    began, asked = clock(), params or {}
    check_params(head, asked)
    session = Session(
        rows,
        seed=seed,
        progress=progress,
        checkpoint=NoCheckpoint() if checkpoint is None else checkpoint,
        resources=resources or Resources(),
    )
    if head == ENSEMBLE:
        found = _ensemble(session, asked.get("heads", _MEMBERS))
    elif head == AUTO:
        budget = float(asked.get("budget_s", _BUDGET_S))
        found = _auto(session, asked.get("heads", _LADDER), budget, lambda: clock() - began)
    else:
        found = _one(session, head, asked)
    progress(1.0, "trained")
    return found


def refit(
    rows: TrainRows,
    head: str,
    params: Mapping[str, Any],
    *,
    seed: int,
    progress: Progress = lambda _share, _message: None,
    resources: Resources | None = None,
) -> TrainedHead:
    """Fit one setting of one kind of head on all train rows, with nothing held out.

    For questions about a choice that was made before: its classes are those of `train` with that
    setting, its scores are not scaled by a temperature.

    Parameters
    ----------
    head, params
        One of the kinds in `models.heads.kinds` or `sklearn:NAME`, and one value a parameter.

    Raises
    ------
    InvalidParams, NoTrainRows, NoRoom
    """
    candidates = kind_of(head).candidates(head, params, len(rows.labels))
    if len(candidates) != 1:
        raise InvalidParams(f"wanted one setting of {head}, got {len(candidates)}.")
    session = Session(
        rows,
        seed=seed,
        progress=progress,
        checkpoint=NoCheckpoint(),
        resources=resources or Resources(),
    )
    session.span(0.05, 1.0, "fitting on all train rows")
    return session.fit_all(head, candidates[0], {})


def _one(session: Session, head: str, params: Mapping[str, Any]) -> Trained:
    candidates = kind_of(head).candidates(head, params, session.matrix.shape[0])
    session.span(0.05, 0.8, "internal validation")
    board = session.sweep(head, candidates)
    session.span(0.8, 1.0, "fitting on all train rows")
    final = _fit_best(session, board)
    chosen = board.candidates[board.best()]
    return _trained(session, final, head, chosen.params, board.right(), [board])


def _fit_best(session: Session, board: Board) -> TrainedHead:
    """Fit the best candidate on all train rows, calibrated."""
    best = board.best()
    chosen = board.candidates[best]
    fitted = session.fit_all(chosen.head, chosen.params, board.found[best])
    return fitted.with_temperature(chosen.temperature)


def _ensemble(session: Session, heads: Sequence[Member]) -> Trained:
    boards = _sweep_all(session, heads, lambda _name, _boards: None)
    together = _mixed(session, boards)
    final, params = _fit_mixed(session, boards, together)
    return _trained(session, final, ENSEMBLE, params, together.right(), [*boards, together])


def _auto(
    session: Session, heads: Sequence[str], budget_s: float, spent: Callable[[], float]
) -> Trained:
    """Climb the ladder, put what was found together, and keep the best."""

    def too_long(name: str, boards: list[Board]) -> str | None:
        if not boards:
            return None
        needed = _seconds(session, name)
        if spent() + needed <= budget_s:
            return None
        return f"{name} was left out: about {needed:.3g} s more, of a budget of {budget_s:g} s"

    boards = _sweep_all(session, heads, too_long)
    together = _mixed(session, boards) if len(boards) > 1 else None
    rungs = boards if together is None else [*boards, together]
    best = rungs[_best_rung(rungs, None)]
    right = np.zeros(len(best.part), bool)
    for p in range(best.n_parts):
        chosen, mine = rungs[_best_rung(rungs, p)], best.part == p
        right[mine] = chosen.correct[chosen.best(p)][mine]
    if best is together:
        final, params = _fit_mixed(session, boards, best)
        kind = ENSEMBLE
    else:
        session.span(0.85, 1.0, "fitting the winner on all train rows")
        final = _fit_best(session, best)
        winner = best.candidates[best.best()]
        kind, params = winner.head, winner.params
    return _trained(session, final, kind, params, right, rungs)


def _best_rung(rungs: Sequence[Board], without: int | None) -> int:
    """Rung whose best candidate is right most often on the rows outside a part."""
    rows = rungs[0].part != (-1 if without is None else without)
    top1 = [float(board.correct[board.best(without)][rows].mean()) for board in rungs]
    nll = [b.candidates[b.best()].nll if without is None else 0.0 for b in rungs]
    # rungs are no path of one penalty: the strictly best counts, ties go to the earlier one
    return min(range(len(rungs)), key=lambda i: (-top1[i], round(nll[i], 4), i))


def _sweep_all(
    session: Session, heads: Sequence[Member], skip: Callable[[str, list[Board]], str | None]
) -> list[Board]:
    """Sweep heads in turn, but for those with a reason to be left out, which is noted."""
    boards: list[Board] = []
    n = session.matrix.shape[0]
    for i, member in enumerate(heads):
        name, params = _named(member)
        reason = skip(name, boards)
        if reason is not None:
            session.notes.append(reason)
            continue
        share = 0.8 / len(heads)
        session.span(0.05 + share * i, 0.05 + share * (i + 1), f"internal validation of {name}")
        if name not in _VARIANTS:
            boards.append(session.sweep(name, kind_of(name).candidates(name, params, n)))
            continue
        plain = [b for b in boards if b.candidates[0].head == "logistic"]
        C = plain[0].candidates[plain[0].best()].params["C"] if plain else 0.01
        values = {"C": [3 * C, C, C / 3], **_VARIANTS[name]}
        boards.append(session.sweep("logistic", kind_of("logistic").candidates(name, values, n)))
    return boards


def _mixed(session: Session, boards: Sequence[Board]) -> Board:
    """Judge the heads together: for each part, with shares that were fitted on the others."""
    together = session.board()
    session.span(0.85, 0.86, "weighing the heads")
    y, part = together.y, together.part
    scores = None
    for p in range(together.n_parts):
        members = [board.calibrated(p) for board in boards]
        others = np.flatnonzero(part != p)
        shares = best_shares([m[others] for m in members], y[others])
        mixed = combined(members, shares)
        scores = mixed if scores is None else scores
        scores[np.flatnonzero(part == p)] = mixed[np.flatnonzero(part == p)]
    shares = best_shares([board.calibrated() for board in boards], y)
    names = [board.candidates[board.best()] for board in boards]
    params = {
        "members": [
            {"head": c.head, "params": c.params, "weight": round(float(s), 4)}
            for c, s in zip(names, shares, strict=True)
            if s
        ]
    }
    assert scores is not None
    n_fit = names[0].n_fit
    together.judge(ENSEMBLE, params, scores, n_fit=n_fit, found={"shares": shares.tolist()})
    return together


def _fit_mixed(
    session: Session, boards: Sequence[Board], together: Board
) -> tuple[TrainedHead, Params]:
    """Fit the members with a share on all train rows."""
    shares = np.array(together.found[0]["shares"])
    members = []
    used = np.flatnonzero(shares)
    for i, place in enumerate(used):
        share = 0.14 / len(used)
        session.span(0.86 + share * i, 0.86 + share * (i + 1), "fitting on all train rows")
        members.append(_fit_best(session, boards[int(place)]))
    head = EnsembleHead(tuple(members), shares[used])
    chosen = together.candidates[0]
    return head.with_temperature(chosen.temperature), chosen.params


def _trained(
    session: Session,
    head: TrainedHead,
    kind: str,
    params: Params,
    right: np.ndarray,
    boards: Sequence[Board],
) -> Trained:
    n, n_held = session.matrix.shape[0], session.held.n
    return Trained(
        head=head,
        kind=kind,
        params=params,
        method=in_words(n, n_held, session.seed),
        top1=share(int(right.sum()), n_held),
        candidates=[c for board in boards for c in (*board.tried, *board.candidates)],
        n_train=n,
        fold=session.fold,
        right=session.by_row(right),
        curves=session.curves,
        notes=session.notes,
    )


def _heads_in(
    params: Mapping[str, Any], known: Sequence[str], *, allowed: set[str], least: int
) -> None:
    """Refuse other parameters than these, and heads that are none.

    Raises
    ------
    InvalidParams
    """
    unknown = sorted(set(params) - allowed)
    if unknown:
        raise InvalidParams(
            f"wanted the parameters {', '.join(sorted(allowed))}, got {', '.join(unknown)}. "
            "Leave it out."
        )
    heads = params.get("heads", known)
    usable = (*_LADDER, *KINDS)
    if isinstance(heads, str) or not isinstance(heads, Sequence) or len(heads) < least:
        raise InvalidParams(f"wanted a list of at least {least} heads, got {heads!r}.")
    if "budget_s" in allowed and not all(isinstance(one, str) for one in heads):
        raise InvalidParams("wanted names of heads, got parameters: auto chooses them itself.")
    for member in heads:
        name, pinned = _named(member)
        if name not in usable:
            raise InvalidParams(
                f"wanted heads among {', '.join(dict.fromkeys(usable))}, got {name!r}."
            )
        if pinned:
            kind_of(name).candidates(name, pinned)
    names = [json.dumps(one, sort_keys=True) for one in heads]
    if len(set(names)) < len(names):
        raise InvalidParams(f"wanted each head once, got {', '.join(names)}.")


def _named(member: Member) -> tuple[str, Mapping[str, Any]]:
    """Name and parameters of a member.

    Raises
    ------
    InvalidParams
    """
    if isinstance(member, str):
        return member, {}
    if not isinstance(member, Mapping) or set(member) - {"head", "params"} or "head" not in member:
        raise InvalidParams(
            f'wanted a head\'s name, or {{"head": name, "params": {{…}}}}, got {member!r}.'
        )
    params = member.get("params", {})
    if not isinstance(params, Mapping):
        raise InvalidParams(f"wanted parameters by name, got {params!r}.")
    return str(member["head"]), params


def _seconds(session: Session, name: str) -> float:
    """About how long the sweep of a head takes."""
    n, d = session.matrix.shape
    k, n_held, rounds = session.matrix.k, session.held.n, len(session.rounds)
    held = 2.0 * n_held * d * k
    if name in ("nearest_mean", "lda", "ridge"):
        flops = 12 * held + rounds * 10.0 * d**3
    elif name == "knn":
        flops = 4.0 * n_held * n * d
    elif name in _VARIANTS:
        flops = rounds * 3 * 12 * 4.0 * n * d * k
    elif name == "logistic":
        flops = rounds * (12 * 12 * 4.0 * min(n, 50_000) * d * k + 3 * 12 * 4.0 * n * d * k)
    elif name == "cosine":
        flops = rounds * 3 * 3 * 6.0 * max(n, 500_000) * d * k
    else:
        flops = rounds * 2 * 3 * 6.0 * max(n, 500_000) * (d * 512 + 512 * k + d * k)
    return flops / _FLOPS_PER_S
