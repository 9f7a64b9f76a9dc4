"""Computes every number of a report.json anew, and says what differs.

Nothing that was kept of the answers is read: see `service.report.afresh` for what is. The file may
come from anywhere: see `service.report.asking` for what it may ask.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.types import ASGIApp

from etl.errors import LoadRefused
from models.errors import ModelError
from service import VERSION
from service.analysis import Analysis
from service.errors import BadReport, ServiceError
from service.gap import PARTS, SLOW
from service.gap.explaining import Question
from service.looks import Look, Looks
from service.neighbours import is_at_hand
from service.report.afresh import Afresh, RetrainedOut, afresh
from service.report.asking import (
    ANEW,
    DATA,
    RECORD,
    TRAINING,
    Ask,
    answered,
    check_columns,
    row,
    understood,
)
from service.report.document import plain
from service.report.numbers import FORMAT, FORMS, resolve
from service.schemas import Answer
from service.terminal import Progress, part_of

FILE_BYTES_MAX = 20_000_000
_NUMBERS_MAX, _ENDPOINTS_MAX = 100_000, 2_000
_RELATIVE = 1e-9
_SHOWN = 12  # digits of a digest
Verdict = Literal["differs", "not found"]
Serve = Callable[[Analysis], ASGIApp]


class _Asked(BaseModel):
    model_config = ConfigDict(frozen=True)

    digests: dict[str, str] = {}


class _Number(BaseModel):
    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    id: str = Field(max_length=100)
    text: str = Field(max_length=20_000)
    value: bool | float | str | None
    endpoint: str = Field(max_length=2_000)
    pointer: str = Field(max_length=1_000, pattern=r"^/")
    form: str | None = None


class ReportIn(BaseModel):
    """What is read of a report.json; whatever else stands in it is passed over."""

    model_config = ConfigDict(frozen=True)

    format: int
    gapscope: str = Field(max_length=100)
    endpoints: dict[str, _Asked] = Field(max_length=_ENDPOINTS_MAX)
    numbers: list[_Number] = Field(max_length=_NUMBERS_MAX)


class ChangedOut(Answer):
    """A split whose data are not those that the report was made from."""

    split: str
    was: str = Field(description="sha256 of its file when the report was made.")
    now: list[str] = Field(description="Those of its files now, one for each backbone.")
    sentence: str


class DifferingOut(Answer):
    """A number that is not the same."""

    id: str
    verdict: Verdict
    text: str = Field(description="As the report has it.")
    was: bool | float | str | None
    now: bool | float | str | None = Field(None, description="Computed anew; null: see reason.")
    now_text: str | None = Field(None, description="As the report would have it now.")
    endpoint: str
    pointer: str
    changed: list[str] = Field([], description="Splits that it rests on whose data changed.")
    reason: str | None = None


class ReproducedOut(Answer):
    """A report's numbers, each computed anew."""

    gapscope: str = Field(description="Version that the report was made with.")
    n: int
    n_same: int = Field(description="Equal, to one part in 10⁹, or printed alike.")
    n_printed_alike: int = Field(description="Of these, those that only the rounding makes equal.")
    n_only_read: int = Field(
        description="Of these, those that were read where the report read them, and not computed."
    )
    n_differs: int
    n_not_found: int
    changed: list[ChangedOut]
    differing: list[DifferingOut]
    retrained: list[RetrainedOut]
    computed: list[str] = Field(description="What was computed from what, and what was only read.")
    summary: list[str]

    @property
    def all_same(self) -> bool:
        """Whether every number is the same."""
        return self.n_same == self.n


def read_report(file: Path) -> ReportIn:
    """Read a report.json.

    Raises
    ------
    BadReport
    """
    try:
        size = file.stat().st_size
        if size > FILE_BYTES_MAX:
            raise BadReport(
                f"wanted a report.json of at most {FILE_BYTES_MAX / 1e6:.0f} MB, got {file.name} "
                f"of {size / 1e6:.1f} MB. A report of Gapscope is far smaller: is it one?"
            )
        content = file.read_bytes()
    except OSError as error:
        raise BadReport(
            f"wanted a report.json that can be read, got {file}: {error.strerror}. Name the file "
            "that was made beside the report."
        ) from error
    return checked(content)


def checked(content: bytes) -> ReportIn:
    """Refuse what is no report.json of this format, or asks for what may not be asked for.

    Raises
    ------
    BadReport
    """
    try:
        report = ReportIn.model_validate_json(content)
    except ValidationError as error:
        fault = error.errors()[0]
        where = plain("/".join(str(part)[:80] for part in fault["loc"])) or "the file"
        raise BadReport(
            f"wanted a report.json as Gapscope writes it, got in {where}: {fault['msg']}. Name "
            "the file that was made beside the report."
        ) from error
    if report.format != FORMAT:
        raise BadReport(
            f"wanted a report.json of format {FORMAT}, got format {report.format}. Use the "
            f"version of Gapscope that made it ({report.gapscope!r}; this is {VERSION})."
        )
    for number in report.numbers:
        if number.endpoint not in report.endpoints:
            raise BadReport(
                f"wanted the endpoint of {number.id!r} among the endpoints, got "
                f"{number.endpoint[:80]!r}, which is not. Make the report again."
            )
        if number.form is not None and number.form not in FORMS:
            raise BadReport(
                f"wanted a form of numbers ({', '.join(FORMS)}), got {number.form[:80]!r} of "
                f"{number.id!r}. Make the report again."
            )
    for endpoint in report.endpoints:
        understood(endpoint)
    return report


def reproduce(
    analysis: Analysis,
    report: ReportIn,
    serve: Serve,
    *,
    results: Path | None = None,
    retrain: bool = False,
    progress: Progress = lambda _share, _message: None,
) -> ReproducedOut:
    """Compute every number of a report anew, and compare.

    Parameters
    ----------
    analysis
        Of the folder with the data.
    report
        As `read_report` gives it.
    serve
        Makes the service over an analysis: its own endpoints answer, as they did for the report.
    results
        A folder of models and records to take in place of the data folder's: a bundle's.
    retrain
        Whether the heads that were trained here are trained anew too.

    Raises
    ------
    BadReport, NoDatabase, DataChanged, LookNotLogged
    """
    asks = {endpoint: understood(endpoint) for endpoint in report.endpoints}
    for ask in asks.values():
        check_columns(analysis.database, ask)
    share = 0.7 if retrain else 0.3
    with afresh(
        analysis, results=results, retrain=retrain, progress=part_of(progress, 0.0, share)
    ) as made:
        answers = _answers(made, analysis, serve, asks, part_of(progress, share, 1.0))
        changed = _changed(made.analysis, report)
    split_names = {one.split for one in changed}
    differing, n_alike = [], 0
    for number in report.numbers:
        found = _compared(number, answers[number.endpoint])
        if found is None:
            continue
        if found == _ALIKE:
            n_alike += 1
            continue
        rests_on = report.endpoints[number.endpoint].digests
        differing.append(
            found.model_copy(update={"changed": [s for s in rests_on if s in split_names]})
        )
    n_not_found = sum(one.verdict == "not found" for one in differing)
    n = len(report.numbers)
    read = (RECORD,) if retrain else (RECORD, TRAINING)
    others = {one.id for one in differing}
    n_only_read = sum(
        asks[number.endpoint].how in read and number.id not in others for number in report.numbers
    )
    return ReproducedOut(
        gapscope=report.gapscope,
        n=n,
        n_same=n - len(differing),
        n_printed_alike=n_alike,
        n_only_read=n_only_read,
        n_differs=len(differing) - n_not_found,
        n_not_found=n_not_found,
        changed=changed,
        differing=differing,
        retrained=made.retrained,
        computed=_computed(made, asks, retrain=retrain),
        summary=_summary(report, changed, differing, n_alike, n_only_read),
    )


def _answers(
    made: Afresh,
    stored: Analysis,
    serve: Serve,
    asks: Mapping[str, Ask],
    progress: Progress,
) -> dict[str, Any]:
    """Return the JSON of each address, or a text that says why there is none."""
    app = serve(made.analysis)
    if any(ask.view is not None for ask in asks.values()):
        Looks(made.analysis.data).record(Look(None, "sql"), None, None)  # a view may hold labels
    answers: dict[str, Any] = {}
    for i, (endpoint, ask) in enumerate(asks.items()):
        step = part_of(progress, i / len(asks), (i + 1) / len(asks), prefix=f"{ask.path}: ")
        if ask.view is not None:
            answers[endpoint] = row(made.analysis.database, ask)
            continue
        also = {other.part for other in asks.values() if other.model == ask.model}
        _compute(made.analysis, stored, ask, also, step)
        status, content = answered(app, ask)
        answers[endpoint] = content if status == 200 else str(content.get("detail", status))
    return answers


def _compute(
    fresh: Analysis, stored: Analysis, ask: Ask, also: set[str | None], progress: Progress
) -> None:
    """Compute the parts that an address answers with; a refusal comes again as its answer.

    Parameters
    ----------
    also
        Parts of the same gap that the report asks for elsewhere.
    """
    if ask.model is None or not ask.path.startswith("/gap/"):
        return
    try:
        question = _question(fresh, ask)
        first = _slow(fresh, stored, ask, also)
        for name in first:
            question.compute(only=name, progress=part_of(progress, 0.0, 0.5))
        question = _question(fresh, ask)  # what is at hand now is part of its state
        if ask.part is not None:
            question.compute(only=ask.part, progress=part_of(progress, 0.5, 1.0))
            return
        question.compute(skip=SLOW, progress=part_of(progress, 0.5, 1.0))
    except (ServiceError, LoadRefused, ModelError):
        return


def _question(analysis: Analysis, ask: Ask) -> Question:
    assert ask.model is not None
    return Question(analysis, ask.model, ask.query.get("reference"), ask.query.get("target"))


def _slow(fresh: Analysis, stored: Analysis, ask: Ask, also: set[str | None]) -> list[str]:
    """Return the parts that take minutes, and that were there when the report was made.

    The whole answer, and parts that read nearest train rows, say more where they are.
    """
    if ask.part is not None and "neighbours" not in PARTS[ask.part].reads:
        return []
    asked = [name for name in SLOW if name in also]
    try:
        before = _question(stored, ask)
    except ServiceError:  # the model is in a bundle, not in the data folder
        return asked
    ends = before.reference, before.target
    backbone = before.card["backbone"]
    at_hand = is_at_hand(stored.database, backbone, ends) and not is_at_hand(
        fresh.database, backbone, ends
    )
    return [name for name in SLOW if name in asked or before.stored(name) is not None or at_hand]


_ALIKE: Literal["alike"] = "alike"


def _compared(number: _Number, answer: Any) -> DifferingOut | Literal["alike"] | None:
    """Return how a number differs; None where it is the same, or printed alike by rounding."""

    def differs(verdict: Verdict, **what: Any) -> DifferingOut:
        return DifferingOut(
            id=number.id, verdict=verdict, text=number.text, was=number.value,
            endpoint=number.endpoint, pointer=number.pointer, **what,
        )  # fmt: skip

    if isinstance(answer, str):
        return differs("not found", reason=answer)
    try:
        now = resolve(answer, number.pointer)
    except KeyError:
        return differs("not found", reason="nothing stands there in the answer")
    if isinstance(now, (dict, list)):
        return differs("not found", reason="it leads to several values, not to one")
    printed = _printed(number.form, number.value)
    now_text = _printed(number.form, now)
    if printed is not None and printed != number.text:
        return differs(
            "differs", now=now, now_text=now_text,
            reason=f"the report prints {number.text[:200]!r} for a value that is {printed!r}",
        )  # fmt: skip
    if _equal(number.value, now):
        return None
    if now_text is not None and now_text == number.text:
        return _ALIKE
    return differs("differs", now=now, now_text=now_text)


def _printed(form: str | None, value: Any) -> str | None:
    """Return how a value is printed; None where that is not known."""
    if form is None:
        return None
    try:
        return FORMS[form](value)
    except (TypeError, ValueError, OverflowError):  # a text where a number was, or the reverse
        return None


def _equal(was: bool | float | str | None, now: Any) -> bool:
    if isinstance(was, float) and isinstance(now, (int, float)) and not isinstance(now, bool):
        return abs(was - now) <= _RELATIVE * max(abs(was), abs(now))
    return type(was) is type(now) and was == now


def _changed(fresh: Analysis, report: ReportIn) -> list[ChangedOut]:
    """Return the splits whose data are not those of the report, in the order of the load."""
    cards = fresh.results.models()
    loaded = [row["backbone"] for row in fresh.database.splits()]
    present: dict[str, set[str]] = {}
    for backbone in {*loaded, *(card["backbone"] for card in cards)} - {None}:
        try:
            found = fresh.database.digests(backbone)
        except ServiceError:  # a part of a join is not loaded
            continue
        for split, sha256 in found.items():
            present.setdefault(split, set()).add(sha256)
    for card in cards:
        for split, told in ((card.get("imported") or {}).get("splits") or {}).items():
            present.setdefault(split, set()).add(told["sha256"])
    was = {(s, d) for asked in report.endpoints.values() for s, d in asked.digests.items()}
    return [
        ChangedOut(
            split=split,
            was=sha256,
            now=sorted(present.get(split, ())),
            sentence=_change_in_words(split, sha256, sorted(present.get(split, ()))),
        )
        for split, sha256 in sorted(was)
        if sha256 not in present.get(split, ())
    ]


def _change_in_words(split: str, was: str, now: list[str]) -> str:
    there = f"now {', '.join(one[:_SHOWN] for one in now)}" if now else "which is not loaded now"
    return f"The data of {split} changed: sha256 {was[:_SHOWN]} then, {there}."


def _computed(made: Afresh, asks: Mapping[str, Ask], *, retrain: bool) -> list[str]:
    """Say what was computed from what, and what was only read."""
    kinds = {ask.how for ask in asks.values()}
    said = []
    if made.rescored:
        said.append(
            "Predictions and scores were computed anew from features, labels and stored heads: "
            f"{', '.join(made.rescored)}."
        )
    said += [f"{model}: {reason.rstrip('.')}." for model, reason in made.read]
    if ANEW in kinds:
        said.append(
            f"Parts of the gap ({', '.join(PARTS)}) and audits were computed anew from these; "
            "nothing that was kept of them was read."
        )
    if DATA in kinds:
        said.append("Rows of views and lists of what is loaded were queried anew.")
    if TRAINING in kinds and not retrain:
        said.append(
            "What a training said of itself (internal validation, what it tried, its loss) was "
            "only read: --retrain trains anew."
        )
    if RECORD in kinds:
        said.append(
            "Self-tests, seals and hypotheses were only read: they are records of what was said "
            "and what came."
        )
    said += [one.sentence for one in made.retrained]
    return said


def _summary(
    report: ReportIn,
    changed: list[ChangedOut],
    differing: list[DifferingOut],
    n_alike: int,
    n_only_read: int,
) -> list[str]:
    """Say what came of it: what changed in the data first."""
    said = [one.sentence for one in changed]
    if report.gapscope != VERSION:
        said.append(f"The report was made by Gapscope {report.gapscope[:100]}; this is {VERSION}.")
    n, n_found = len(report.numbers), sum(one.verdict == "differs" for one in differing)
    words = [f"{n - len(differing):,} the same"]
    if n_found:
        words.append(f"{n_found:,} differ{'s' if n_found == 1 else ''}")
    if len(differing) > n_found:
        words.append(f"{len(differing) - n_found:,} not found")
    said.append(f"{n:,} number{'' if n == 1 else 's'}: {', '.join(words)}.")
    if n_only_read:
        said.append(
            f"{n_only_read:,} of the same were only read where they are stored: that they are the "
            "same says that the file was not changed, and no more."
        )
    if n_alike:
        said.append(
            f"{n_alike:,} of the same are only printed alike: they differ beyond the digits that "
            "the report shows."
        )
    return said
