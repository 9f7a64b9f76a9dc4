"""Hypotheses as records that are only added, and their verdicts.

    results/hypotheses.jsonl    records "hypothesis" and "result", see `service.register`

A verdict is made when it is asked for: it hangs on the family, which grows.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from models.estimate import Estimate
from models.gap.difference import Paired
from models.gap.hypotheses import (
    HELPS_BOTH,
    HURTS,
    LEVEL,
    MARGIN,
    NARROWS,
    NO_EFFECT,
    TOLERATED,
    UNDERPOWERED,
    WIDENS,
    Comparison,
    Verdict,
    judge,
)
from models.refining.recipes import in_words
from service.errors import AlreadyRegistered, AlreadyScored, NotFound
from service.hypotheses.schemas import HypothesesOut, HypothesisOut, PairedOut, ResultOut
from service.register import Record, Register
from service.schemas import EstimateOut
from service.sentences import points

NAME = "hypotheses"
HYPOTHESIS, RESULT = "hypothesis", "result"
_ID = 12  # characters of the hash


def model_of(hypothesis: str) -> str:
    """Return the name of the model that a test makes."""
    return f"hypothesis-{hypothesis}"


class Registry:
    """The hypotheses of one data folder."""

    def __init__(self, data: Path) -> None:
        self._register = Register(data, NAME)

    def add(self, content: dict[str, Any]) -> str:
        """Register a hypothesis; its id.

        Raises
        ------
        AlreadyRegistered, RecordNotKept, RecordChanged
        """
        return _id(
            self._register.add(
                HYPOTHESIS, content, check=lambda records: _refuse_registered(records, content)
            )
        )

    def refuse_registered(self, content: Mapping[str, Any]) -> None:
        """Refuse what is registered already, under whatever title, family or images.

        Raises
        ------
        AlreadyRegistered, RecordChanged
        """
        _refuse_registered(self._register.all(), content)

    def content(self, hypothesis: str) -> dict[str, Any]:
        """Return what was registered.

        Raises
        ------
        NotFound, RecordChanged
        """
        return _find(self._register.all(), hypothesis).content

    def refuse_scored(self, hypothesis: str) -> None:
        """Refuse a hypothesis that was scored.

        Raises
        ------
        NotFound, AlreadyScored, RecordChanged
        """
        _refuse_scored(self._register.all(), hypothesis)

    def add_result(self, hypothesis: str, result: dict[str, Any]) -> None:
        """Add what came of a test: once.

        Raises
        ------
        NotFound, AlreadyScored, RecordNotKept, RecordChanged
        """
        self._register.add(
            RESULT,
            {"hypothesis": hypothesis, **result},
            check=lambda records: _refuse_scored(records, hypothesis),
        )

    def get(self, hypothesis: str) -> HypothesisOut:
        """Return a hypothesis with its verdict.

        Raises
        ------
        NotFound, RecordChanged
        """
        _find(self._register.all(), hypothesis)
        return next(one for one in self.all().hypotheses if one.id == hypothesis)

    def all(self, baseline: str | None = None) -> HypothesesOut:
        """Return all hypotheses, or those about one baseline, with their verdicts.

        Raises
        ------
        RecordChanged
        """
        records = self._register.all()
        results = {r.content["hypothesis"]: r for r in records if r.kind == RESULT}
        registered = [r for r in records if r.kind == HYPOTHESIS]
        families: dict[tuple[str, ...], list[Record]] = {}
        alike: dict[tuple[str, ...], list[Record]] = {}
        for record in registered:
            if record.content["family"] is not None:
                families.setdefault(_family(record), []).append(record)
                alike.setdefault(_family(record)[1:], []).append(record)
        verdicts, of_all = _judged(families.values(), results), _judged(alike.values(), results)
        shown = [
            _out(
                r,
                results.get(_id(r)),
                verdicts.get(_id(r)),
                len(families.get(_family(r), [])),
                of_all.get(_id(r)),
                len(alike.get(_family(r)[1:], [])),
            )
            for r in registered
            if baseline in (None, r.content["baseline"]["model"])
        ]
        return HypothesesOut(hypotheses=shown, head=self._register.head(), summary=_summary(shown))


def _id(record: Record) -> str:
    return record.sha256[:_ID]


def _family(record: Record) -> tuple[str, ...]:
    found = record.content
    return str(found["family"]), found["use"], found["reference"], found["target"]


def _judged(
    families: Iterable[Sequence[Record]], results: Mapping[str, Record]
) -> dict[str, Verdict]:
    verdicts: dict[str, Verdict] = {}
    for members in families:
        tested = [r for r in members if _id(r) in results]
        found = judge(
            [comparison_of(results[_id(r)].content) for r in tested], n_tests=len(members)
        )
        verdicts |= {_id(r): verdict for r, verdict in zip(tested, found, strict=True)}
    return verdicts


def _same(content: Mapping[str, Any]) -> list[Any]:
    """Return what makes two hypotheses one: the head, what is done to it, and the images."""
    return [
        content["baseline"]["head_sha256"],
        content["refinement"],
        content["reference"],
        content["target"],
        content["data_sha256"],
        content.get("rests_on"),
    ]


def _refuse_registered(records: Sequence[Record], content: Mapping[str, Any]) -> None:
    for record in records:
        if record.kind == HYPOTHESIS and _same(record.content) == _same(content):
            raise AlreadyRegistered(
                "wanted a refinement that is not registered yet, got that of "
                f"{_id(record)!r}, registered at {record.added_at} in "
                f"{record.content['family'] or 'no family'}. Another title, family or choice of "
                "images would be a second chance: see GET /hypotheses."
            )


def _find(records: Sequence[Record], hypothesis: str) -> Record:
    for record in records:
        if record.kind == HYPOTHESIS and _id(record) == hypothesis:
            return record
    raise NotFound(
        f"wanted a registered hypothesis, got {hypothesis!r}. GET /hypotheses lists them."
    )


def _refuse_scored(records: Sequence[Record], hypothesis: str) -> None:
    _find(records, hypothesis)
    for record in records:
        if record.kind == RESULT and record.content["hypothesis"] == hypothesis:
            raise AlreadyScored(
                f"wanted a hypothesis that was not scored yet, got {hypothesis!r}, scored at "
                f"{record.added_at}. A second score would be a second chance: register another one."
            )


def result_content(
    found: Comparison, accuracy: Mapping[str, Sequence[float]], model: str | None
) -> dict[str, Any]:
    """Return a comparison as a record has it."""
    return {
        "model": model,
        "accuracy": {split: list(pair) for split, pair in accuracy.items()},
        "gap_change": _estimate(found.gap_change),
        "reference": _paired(found.reference),
        "target": _paired(found.target),
        "distance_change": _estimate(found.distance_change),
        "standard_error": found.standard_error,
        "p_value": found.p_value,
        "p_wider": found.p_wider,
        "p_same": found.p_same,
    }


def comparison_of(content: Mapping[str, Any]) -> Comparison:
    """Return the comparison that a record has."""
    reference, target = (
        Paired(Estimate(**s["difference"]), s["b"], s["c"], s["p_value"])
        for s in (content["reference"], content["target"])
    )
    return Comparison(
        Estimate(**content["gap_change"]),
        reference,
        target,
        Estimate(**content["distance_change"]),
        content["standard_error"],
        content["p_value"],
        content["p_wider"],
        content["p_same"],
    )


def _estimate(value: Estimate) -> dict[str, Any]:
    return {
        name: dict(v) if name == "n" else v
        for name in Estimate.__dataclass_fields__
        for v in [getattr(value, name)]
    }


def _paired(value: Paired) -> dict[str, Any]:
    return {
        "difference": _estimate(value.difference),
        "b": value.b,
        "c": value.c,
        "p_value": value.p_value,
    }


def _out(
    record: Record,
    result: Record | None,
    verdict: Verdict | None,
    n_family: int,
    of_all: Verdict | None,
    n_all: int,
) -> HypothesisOut:
    found = record.content
    is_in_family = found["family"] is not None
    return HypothesisOut(
        id=_id(record),
        sha256=record.sha256,
        registered_at=record.added_at,
        title=found["title"],
        cause=found["cause"],
        baseline=found["baseline"]["model"],
        reference=found["reference"],
        target=found["target"],
        refinement=found["refinement"],
        in_words=in_words(found["refinement"]),
        use=found["use"],
        endpoint=found["endpoint"],
        sided=found["sided"],
        family=found["family"],
        n_family=n_family if is_in_family else None,
        images=found["images"],
        line=None if found["line"] is None else found["line"]["name"],
        motivated_by=found["motivated_by"],
        contradicted_by=found["contradicted_by"],
        n_looks_before=found.get("n_looks_before"),
        state="registered" if result is None else "tested",
        result=None
        if result is None
        else _result_out(record, result, verdict, n_family, of_all, n_all),
    )


def _result_out(
    record: Record,
    result: Record,
    verdict: Verdict | None,
    n_family: int,
    of_all: Verdict | None,
    n_all: int,
) -> ResultOut:
    registered = record.content
    found = comparison_of(result.content)
    names = {"reference": registered["reference"], "target": registered["target"]}
    words = ("diagnostic",) if verdict is None else verdict.words
    adjusted, confirmed = _endpoint(registered["endpoint"], found, verdict)
    return ResultOut(
        model=result.content["model"],
        scored_at=result.added_at,
        accuracy=result.content["accuracy"],
        gap_change=EstimateOut.of(found.gap_change, names),
        paired={
            names[side]: PairedOut(
                change=EstimateOut.of(one.difference, {"images": names[side]}),
                gained=one.b,
                lost=one.c,
                p_value=one.p_value,
            )
            for side, one in (("reference", found.reference), ("target", found.target))
        },
        distance_change=EstimateOut.of(found.distance_change, names),
        p_value=found.p_value,
        p_adjusted=adjusted,
        p_adjusted_of_all=_endpoint(registered["endpoint"], found, of_all)[0],
        p_same=found.p_same,
        smallest_effect=None if verdict is None else verdict.smallest,
        confirmed=confirmed,
        verdicts=list(words),
        sentence=sentence_of(found, verdict, names, n_family)
        + _beyond(verdict, of_all, n_all)
        + (
            f" What {registered['refinement']['model']} learnt from is not known here."
            if (registered.get("rests_on") or {}).get("unknown")
            else ""
        ),
    )


def _endpoint(
    endpoint: str, found: Comparison, verdict: Verdict | None
) -> tuple[float | None, bool | None]:
    if verdict is None:
        return None, None
    if endpoint == "gap":
        return verdict.p_gap, NARROWS in verdict.words
    rises = (found.target.difference.estimate or 0.0) > 0
    return verdict.p_target, rises and verdict.p_target <= LEVEL


def sentence_of(
    found: Comparison, verdict: Verdict | None, names: Mapping[str, str], n_family: int
) -> str:
    """Say what a test shows, with number, interval and caveat."""
    change, target = found.gap_change, found.target.difference
    if change.estimate is None:
        return f"Nothing can be said: {change.reason}."
    span = (
        f" (95 % interval {points(change.low, change.high)})"
        if change.low is not None and change.high is not None
        else ""
    )
    moved = (
        f"the gap changes by {change.estimate * 100:+.1f} points{span}, accuracy on "
        f"{names['target']} by {(target.estimate or 0.0) * 100:+.1f}"
    )
    if change.low is None and not (found.target.b or found.target.c):
        return (
            f"No image changes: the refined head is right and wrong on the same images as the "
            f"baseline, {change.n['reference']:,} of {names['reference']} and "
            f"{change.n['target']:,} of {names['target']}; nothing more can be shown by so few."
        )
    if verdict is None:
        return (
            f"Diagnostic, for it reads the images that it is judged by: {moved}. No better head, "
            "and in no family."
        )
    of_family = f"adjusted p {verdict.p_gap:.2g} among {n_family}"
    words = set(verdict.words)
    if HURTS in words:
        return f"Hurts: {moved}; accuracy falls (adjusted p {verdict.p_target:.2g})."
    if {HELPS_BOTH, NARROWS} <= words:
        return f"Helps both and narrows the gap: {moved} ({of_family})."
    if NARROWS in words:
        return f"Narrows the gap: {moved} ({of_family})."
    if {HELPS_BOTH, WIDENS} <= words:
        return f"Helps both, {names['reference']} more, so that the gap grows: {moved}."
    if HELPS_BOTH in words:
        return (
            f"Helps both (adjusted p {verdict.p_both:.2g}), with no change of the gap told from 0: "
            f"{moved}."
        )
    if WIDENS in words:
        return f"Widens the gap: {moved}."
    if NO_EFFECT in words:
        return f"No effect within {MARGIN * 100:.1f} points: {moved} (TOST p {found.p_same:.2g})."
    assert UNDERPOWERED in words
    if verdict.p_gap <= LEVEL and change.estimate < 0:
        return (
            f"Not enough: {moved}; that accuracy on {names['target']} did not fall by more than "
            f"{TOLERATED * 100:.1f} points, or that it is better than the line foretells, is not "
            "shown."
        )
    return (
        f"Underpowered: {moved}; so few images show a change with a chance of four in five only "
        f"from {verdict.smallest * 100:.1f} points on."
    )


def _beyond(verdict: Verdict | None, of_all: Verdict | None, n_all: int) -> str:
    """Say what is left of a verdict once the other families are counted too."""
    if verdict is None or of_all is None or verdict.words == of_all.words:
        return ""
    return (
        f" With all {n_all} hypotheses about these two splits as one family: "
        f"{', '.join(of_all.words)}."
    )


def _summary(shown: Sequence[HypothesisOut]) -> list[str]:
    tested = [one for one in shown if one.result is not None]
    if not shown:
        return ["No hypothesis is registered."]
    told = [one for one in tested if one.result is not None and one.result.confirmed]
    found = [
        f"{len(shown)} registered, {len(tested)} tested, {len(told)} came as foretold. Most "
        "refinements of a tuned head change nothing: nulls are results. Adjusted p-values count "
        "every hypothesis of a family, so that they grow when another is registered."
    ]
    if any(one.family is not None and "informed" in one.family for one in tested):
        found.append(
            "Hypotheses informed by the test sets are judged on the confirm halves in a family of "
            "their own; their heads are never the best head."
        )
    return found
