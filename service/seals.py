"""Seals: the accuracy on a target, predicted and stored before its labels are read.

    results/seals.jsonl    one record a seal; records are only ever added (`service.register`)

A seal is opened by the evaluation that scores the same model on the same data: what came then
stands beside what was predicted (`service.sealing`). Nothing here reads labels of a target.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field

from models.estimate import LEVEL, Estimate, share
from service import charts
from service.database import Database
from service.errors import AlreadySeen, ImportedModel, NotFound, NothingToDraw, SealWanted
from service.evaluations import scores_out
from service.looks import Looks
from service.register import Record, Register
from service.results import Results
from service.schemas import Answer, EstimateOut, ModelName, Request

_NAME, _KIND = "seals", "seal"
_ID = 12  # digits of a record's sha256 that name it


class SealIn(Request):
    """Predict the accuracy of a model on a target before the target's labels are read."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"model": "pixels-logistic", "target": "unseen"}]},
    )

    model: ModelName
    target: str | None = Field(None, description="A test split; default: as the load says.")
    reference: str | None = Field(
        None, description="The test split whose labels may be read; default: as the load says."
    )


class SealedMethodOut(Answer):
    """What one method predicted."""

    name: str
    predicted: EstimateOut = Field(
        description="Accuracy on the target's images, as if the method were right; null with a "
        "reason."
    )
    method: str
    assumptions: str


class SealedPartsOut(Answer):
    """What the interval is made of, as standard deviations."""

    n_methods: int
    chance_sd: float = Field(description="Of the methods' mean, by bootstrap; a line's scatter.")
    images_sd: float = Field(description="Binomial, of the target's images.")
    spread_sd: float | None = Field(description="Between the methods.")
    least_sd: float = Field(description="A quarter of the predicted change.")


class SealOut(Answer):
    """One seal, and what came of it."""

    seal: str = Field(description="Its id: the first digits of its sha256.")
    sealed_at: datetime = Field(description="UTC.")
    sha256: str = Field(description="Over the record and all before it.")
    model: str
    backbone: str
    created_at: str = Field(description="When the model was made, UTC.")
    head_sha256: str
    reference: str
    target: str
    data_sha256: dict[str, str] = Field(description="Digest of the features of each split.")
    reference_accuracy: EstimateOut
    predicted: EstimateOut = Field(
        description="Accuracy that the target's images will show, 95 % prediction interval."
    )
    methods: list[SealedMethodOut]
    parts: SealedPartsOut
    level: float
    assumptions: list[str]
    n_looks_before: int = Field(
        description="Reads of the target's labels, with other models or in SQL, before the seal."
    )
    truth: EstimateOut | None = Field(description="Of the evaluation; null until there is one.")
    covered: bool | None = Field(description="Whether the interval holds the truth.")
    not_opened: str | None = Field(description="Why there is no truth yet.")


class SealsOut(Answer):
    """All seals, and how often their intervals held the truth."""

    summary: list[str]
    n_opened: int
    n_covered: int
    n_lost: int = Field(
        description="Seals whose target labels were read after the seal, and whose answer is gone: "
        "a model deleted, trained anew, or whose data were loaded anew."
    )
    coverage: EstimateOut = Field(
        description="Share of the opened seals whose interval holds the truth; Wilson's interval "
        "takes seals as independent, which those on the same images are not quite."
    )
    broken: str | None = Field(description="Where the stored records were changed; null: nowhere.")
    head: str | None = Field(description="sha256 of the newest record; null where broken.")
    seals: list[SealOut] = Field(description="Newest first; none where the records were changed.")


class Seals:
    """The seals of one data folder."""

    def __init__(self, data: Path) -> None:
        self._database, self._results = Database(data), Results(data)
        self._looks, self._register = Looks(data), Register(data, _NAME)

    def ends(
        self, card: Mapping[str, Any], reference: str | None, target: str | None
    ) -> tuple[str, str]:
        """Return reference and target of a seal: as asked for, else the defaults of the load.

        Raises
        ------
        ImportedModel, NotATest, NotFound
        """
        if card["backbone"] is None:
            raise ImportedModel(
                f"wanted a model whose target labels nobody has held against it, got "
                f"{card['model']!r}, whose predictions were imported with their labels. Only a "
                "model with its head here can be sealed."
            )
        return self._database.gap_ends(card["backbone"], reference, target)

    def refuse_seen(self, card: Mapping[str, Any], target: str) -> None:
        """Refuse a target whose labels were held against this model, or the same head, before.

        Raises
        ------
        AlreadySeen
        """
        self._register.all()  # where nothing can be added, no label is read for it
        digest = self._database.digests(card["backbone"])[target]
        loaded_at = self._loaded_at(card["backbone"], target)
        for twin in self._same_head(card):
            name = twin["model"]
            whose = repr(name) if name == card["model"] else f"{name!r}, which has the same head"
            for record in self._results.evaluation(name):
                if (record["split"], record["data_sha256"]) == (target, digest):
                    raise AlreadySeen(
                        f"wanted a target whose labels were not held against {card['model']!r} "
                        f"yet, got {target!r}, on which {whose} was evaluated. A seal comes first: "
                        "seal another model, or another test set."
                    )
            since = max(loaded_at, datetime.fromisoformat(twin["created_at"]))
            for look in self._looks.all():
                if (look["model"], look["split"]) == (name, target) and _at(look) >= since:
                    raise AlreadySeen(
                        f"wanted a target whose labels were not read with {card['model']!r} yet, "
                        f"got {target!r}, which was read with {whose} on {look['looked_at']} for "
                        f"{look['purpose']} (gapscope looks). A seal comes first: seal another "
                        "model, or another test set."
                    )

    def require(self, card: Mapping[str, Any], splits: Collection[str]) -> None:
        """Refuse to read labels of test splits that want a seal and have none.

        Parameters
        ----------
        splits
            Test splits whose labels are to be read. The backbone's own reference wants no seal.

        Raises
        ------
        SealWanted, RecordChanged
        """
        digests = self._database.digests(card["backbone"])
        reference = next(iter(self._database.test_splits(card["backbone"])), None)
        sealed = {_what(r.content) for r in self._register.all() if _is_of(r, card)}
        scored = {(r["split"], r["data_sha256"]) for r in self._results.evaluation(card["model"])}
        for split in splits:
            if split != reference and (split, digests[split]) not in sealed | scored:
                raise SealWanted(
                    f"wanted a seal of {card['model']!r} on {split!r} before its labels are read "
                    "(GAP_STRICT is set), got none. Make one: gapscope seal "
                    f"{card['model']} --target {split}, or POST /seals."
                )

    def add(self, card: Mapping[str, Any], content: dict[str, Any]) -> SealOut:
        """Store what was predicted, and return it.

        Raises
        ------
        AlreadySeen, RecordNotKept, RecordChanged
        """
        target = content["target"]

        def check(records: list[Record]) -> None:
            for old in records:
                if _is_of(old, card) and _what(old.content) == _what(content):
                    raise AlreadySeen(
                        f"wanted a target on which {card['model']!r} has no seal yet, got "
                        f"{target!r}, sealed on {old.added_at} as {_id(old)}. What is sealed is "
                        "not sealed again: gapscope seals."
                    )
            self.refuse_seen(card, target)  # nobody looked while it was predicted

        return self._out(self._register.add(_KIND, content, check))

    def all(self) -> SealsOut:
        """Return all seals, newest first, each with its truth where it is known."""
        broken = self._register.broken()
        records = [] if broken else self._register.all()
        found = [self._out(record) for record in reversed(records)]
        opened = [one for one in found if one.covered is not None]
        k, n = sum(bool(one.covered) for one in opened), len(opened)
        looks = self._looks.all()
        lost = sum(one.truth is None and self._was_opened(one, looks) for one in found)
        coverage = (
            share(k, n)
            if n
            else Estimate.unknown("no seal was opened yet", n={"images": 0}, unit="fraction")
        )
        answer = EstimateOut.of(coverage, {"images": "seals"})
        return SealsOut(
            summary=_in_words(answer, len(found), broken, lost),
            n_opened=n,
            n_covered=k,
            n_lost=lost,
            coverage=answer,
            broken=broken,
            head=None if broken else self._register.head(),
            seals=found,
        )

    def one(self, seal: str) -> SealOut:
        """Return one seal by its id.

        Raises
        ------
        NotFound, RecordChanged
        """
        for record in self._register.all():
            if _id(record) == seal:
                return self._out(record)
        raise NotFound(f"wanted the id of a seal, got {seal!r}. GET /seals lists them.")

    def broken(self) -> str | None:
        """Return where the stored seals were changed, in words; None where they were not."""
        return self._register.broken()

    def _out(self, record: Record) -> SealOut:
        content = record.content
        truth, why = self._truth(content)
        covered = None
        if truth is not None and truth.estimate is not None:
            low, high = content["predicted"]["low"], content["predicted"]["high"]
            covered = None if low is None else bool(low <= truth.estimate <= high)
        return SealOut(
            seal=_id(record), sealed_at=datetime.fromisoformat(record.added_at),
            sha256=record.sha256, **content, truth=truth, covered=covered, not_opened=why,
        )  # fmt: skip

    def _was_opened(self, seal: SealOut, looks: Sequence[Mapping[str, Any]]) -> bool:
        """Whether the target's labels were read with this very model after it was sealed."""
        until = None
        if self._results.has(seal.model):
            made_at = self._results.card(seal.model)["created_at"]
            until = None if made_at == seal.created_at else datetime.fromisoformat(made_at)
        return any(
            (look["model"], look["split"]) == (seal.model, seal.target)
            and _at(look) >= seal.sealed_at
            and (until is None or _at(look) < until)
            for look in looks
        )

    def _truth(self, content: Mapping[str, Any]) -> tuple[EstimateOut | None, str | None]:
        """Return the accuracy that an evaluation stored, or why there is none."""
        model, target = content["model"], content["target"]
        if not self._results.has(model):
            return None, f"{model!r} is no longer here"
        card = self._results.card(model)
        same = [card["created_at"], card.get("head_sha256")]
        if same != [content["created_at"], content["head_sha256"]]:
            return None, f"another model is called {model!r} now"
        mine = [r for r in self._results.evaluation(model) if r["split"] == target]
        if not mine:
            return None, f"{model!r} was not evaluated on {target!r} yet: gapscope evaluate {model}"
        if mine[0]["data_sha256"] != content["data_sha256"][target]:
            return None, f"{model!r} was evaluated on other data of the name {target!r}"
        return scores_out(mine, target).top1, None

    def _same_head(self, card: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return the cards of all models of this one's backbone and head, itself among them."""
        sha256 = self._results.head_sha256(card["model"])
        return [
            other
            for other in self._results.models()
            if other["model"] == card["model"]
            or (other["backbone"] == card["backbone"] and other.get("head_sha256") == sha256)
        ]

    def _loaded_at(self, backbone: str, split: str) -> datetime:
        """Return since when the present data of a split are here: older looks saw others."""
        loaded_at = self._database.loaded_at(backbone, split)
        return loaded_at.replace(microsecond=loaded_at.microsecond // 1000 * 1000)

    def n_looks(self, backbone: str, target: str) -> int:
        """Count the reads of a target's present labels, with whatever model, and in SQL."""
        since = self._loaded_at(backbone, target)
        return sum(
            look["split"] in (target, None) and _at(look) >= since for look in self._looks.all()
        )


def _is_of(record: Record, card: Mapping[str, Any]) -> bool:
    mine = record.content["model"], record.content["created_at"]
    return bool(mine == (card["model"], card["created_at"]))


def _what(content: Mapping[str, Any]) -> tuple[str, str]:
    """Return the target of a seal, and the digest of its data."""
    target: str = content["target"]
    return target, content["data_sha256"][target]


def _id(record: Record) -> str:
    return record.sha256[:_ID]


def _at(look: Mapping[str, Any]) -> datetime:
    return datetime.fromisoformat(look["looked_at"])


def seal_in_words(seal: SealOut) -> str:
    """Say what one seal predicts, and what came."""
    predicted = seal.predicted
    if predicted.estimate is None or predicted.low is None or predicted.high is None:
        said = f"nothing could be predicted: {predicted.reason}"
    else:
        said = (
            f"{predicted.estimate:.1%} predicted (95 % interval {predicted.low:.1%} to "
            f"{predicted.high:.1%})"
        )
    if seal.truth is None or seal.truth.estimate is None:
        return f"{seal.model} on {seal.target}: {said}; not opened: {seal.not_opened}."
    word = {True: "covered", False: "missed", None: "not judged"}[seal.covered]
    return f"{seal.model} on {seal.target}: {said}, {seal.truth.estimate:.1%} came: {word}."


def _in_words(coverage: EstimateOut, n: int, broken: str | None, lost: int) -> list[str]:
    if broken is not None:
        return [f"The stored seals were changed ({broken}): none of them counts."]
    words = f"{n} seal{'s' * (n != 1)}"
    gone = [
        f"{lost} more {'were' if lost > 1 else 'was'} opened and the answer removed since: the "
        "share above does not count what came there."
    ] * bool(lost)
    if coverage.estimate is None or coverage.low is None or coverage.high is None:
        return [f"{words}, none opened{'' if lost else ' yet'}.", *gone]
    opened = coverage.n["seals"]
    return [
        f"{words}, {opened} opened; {round(coverage.estimate * opened)} of {opened} held the "
        f"truth: {coverage.estimate:.0%} (95 % interval {coverage.low:.0%} to "
        f"{coverage.high:.0%}), where {LEVEL:.0%} are aimed at. Seals on the same images share "
        "their chance.",
        *gone,
    ]


def seals_chart(answer: SealsOut) -> dict[str, Any]:
    """Draw each prediction with its interval, the truth as a tick.

    Raises
    ------
    NothingToDraw
    """
    if not answer.seals:
        why = answer.broken or "there is none yet: gapscope seal MODEL"
        raise NothingToDraw(f"wanted a chart of the seals, but {why}.")
    rows = [
        {
            "name": f"{one.model} on {one.target} ({one.seal[:6]})",
            "estimate": one.predicted.estimate,
            "low": one.predicted.low,
            "high": one.predicted.high,
            "truth": None if one.truth is None else one.truth.estimate,
            "seal": one.seal,
            "covered": one.covered,
        }
        for one in answer.seals
    ]
    return charts.forest(
        rows,
        title="Accuracy predicted before the labels were read (dot, interval); tick: what came",
        x_title="accuracy on the target",
        tick="truth",
        from_zero=False,
        tooltip=["seal", "covered"],
    )
