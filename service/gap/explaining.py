"""Answers to "why this gap", computed part by part, kept, and found again."""

from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from service.errors import NotFound
from service.evaluations import SEED
from service.gap import PARTS, mask
from service.gap.error_rates import SelfTestOut, keep, kept, state_key
from service.gap.findings import ExplainedGapOut, explained_gap
from service.gap.inputs import Inputs
from service.gap.part import Reads
from service.gap.store import FORMAT as EXPLAINERS
from service.gap.store import Store, key_of, parsed
from service.importing import splits_imported
from service.lines import Lines
from service.neighbours import is_at_hand
from service.register import Register
from service.schemas import GapOut, PartOut
from service.terminal import Progress, part_of

if TYPE_CHECKING:
    from service.analysis import Analysis

_GAP = "gap"
_MASK = "mask-"
SUGGESTIONS = "suggestions"
# what else is kept beside the parts, and what it reads beside the data
_FURTHER: dict[str, tuple[Reads, ...]] = {SUGGESTIONS: ("models", "hypotheses")}


class Question:
    """One model, a reference and a target, in the present state of the data."""

    def __init__(
        self, analysis: "Analysis", model: str, reference: str | None, target: str | None
    ) -> None:
        """Find both ends, and the state of the data that all answers depend on.

        Raises
        ------
        NotFound, NotATest
        """
        self._analysis = analysis
        self._version = analysis.database.version  # before anything is read of it
        self.card = analysis.results.card(model)
        among = splits_imported(self.card)
        self.reference, self.target = analysis.database.gap_ends(
            self.card["backbone"], reference, target, among
        )
        self._store = Store(analysis.data)
        self._state = self._of_data()
        self._further: dict[Reads, Any] = {}
        self._keys: dict[tuple[Reads, ...], str] = {}

    def _of_data(self) -> dict[str, Any]:
        """All that every answer may depend on."""
        database = self._analysis.database
        ends = (self.reference, self.target)
        digests = (
            database.digests(self.card["backbone"])
            if self.card["backbone"] is not None
            else {s: self.card["imported"]["splits"].get(s) for s in ends}
        )
        return {
            "created_at": self.card["created_at"],
            "digests": digests,
            "annotations": database.annotation_state(),
            "classes": [
                sorted(found.items()) for found in (database.class_names(), database.superclasses())
            ],
            "seed": SEED,
        }

    def key(self, part: str) -> str:
        """Key of a part's answer: another one once anything changed that the part reads.

        What it reads beside the data is looked up once, so that an answer never stands under a
        later state than it was computed in.
        """
        # a mask reads the data alone
        reads = tuple(PARTS[part].reads if part in PARTS else _FURTHER.get(part, ()))
        if reads not in self._keys:
            for kind in reads:
                if kind not in self._further:
                    self._further[kind] = self._of(kind)
            further = {kind: self._further[kind] for kind in reads}
            self._keys[reads] = key_of(self.reference, self.target, self._state | further)
        return self._keys[reads]

    def _of(self, kind: Reads) -> Any:
        """State of something that only some parts read."""
        analysis = self._analysis
        if kind == "lines":
            return Lines(analysis.data).state()
        if kind == "loads":
            return analysis.database.load_state()
        if kind == "hypotheses":
            return Register(analysis.data, "hypotheses").size
        if kind == "neighbours":
            ends = (self.reference, self.target)
            return is_at_hand(analysis.database, self.card["backbone"], ends)
        return sorted(
            (card["model"], card["created_at"], self._scored(card["model"]))
            for card in analysis.results.own_models()
        )

    def _scored(self, model: str) -> list[str]:
        """Return on which data another model was scored, split by split."""
        if model == self.card["model"]:  # the answer's computation sees to it
            return []
        ends = (self.reference, self.target)
        return sorted(
            f"{record['split']} {record['data_sha256']}"
            for record in self._analysis.results.evaluation(model)
            if record["metric"] == "top1" and record["split"] in ends
        )

    def stored(self, part: str) -> bytes | None:
        """JSON of one part where it was computed in this state of the data, else None.

        Raises
        ------
        NotFound
            There is no such part.
        """
        if part not in PARTS:
            raise NotFound(f"wanted a part of a gap ({', '.join(PARTS)}), got {part!r}.")
        return self._store.read(self.card["model"], self.key(part), part)

    def has(self, part: str) -> bool:
        """Whether one part was computed in this state of the data."""
        return self.stored(part) is not None

    def rows_of(self, part: str) -> pa.Table | None:
        """Return the rows that a part keeps beside its answer, None where there are none."""
        return self._store.read_table(self.card["model"], self.key(part), part)

    def answer(self, part: str) -> PartOut | None:
        """Return one part where it was computed, else None."""
        found = self.stored(part)
        return None if found is None else parsed(PARTS[part].answer, found)

    def kept_gap(self) -> GapOut | None:
        """Return the gap itself where it was computed in this state of the data, else None."""
        if self.card["backbone"] is None:  # of predictions alone: quick, and held against the data
            return self.gap()
        found = self._store.read(self.card["model"], self.key(_GAP), _GAP)
        return None if found is None else parsed(GapOut, found)

    def gap(self, progress: Progress = lambda _share, _message: None) -> GapOut:
        """Return the gap itself, computed and kept where it is not yet.

        Raises
        ------
        NotFound, NotATest, DataChanged
        """
        model, ends = self.card["model"], (self.reference, self.target)
        if self.card["backbone"] is None:
            return self._analysis.gap(model, *ends, progress=progress)
        found = self.kept_gap()
        if found is None:
            found = self._analysis.gap(model, *ends, progress=progress)
            answer = found.model_dump_json().encode()
            self._analysis.database.refuse_changed(self._version)
            self._store.write(model, self.key(_GAP), _GAP, answer)
        return found

    def explained(self, gap: GapOut) -> ExplainedGapOut:
        """Return the gap with what its parts say, as far as they are computed."""
        test = self.self_test()
        return _explained(
            gap.model_dump_json().encode(),
            tuple((name, self.stored(name)) for name in PARTS),
            None if test is None else test.model_dump_json().encode(),
        )

    def compute(
        self,
        first: str | None = None,
        *,
        only: str | None = None,
        skip: Collection[str] = (),
        progress: Progress = lambda _share, _message: None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Compute and keep the gap and every part that is not there yet, `first` before all others.

        Raises
        ------
        NotFound, NotATest, DataChanged, models.errors.ModelError
        """
        if only is None:
            self.gap(part_of(progress, 0.0, 0.05))
        names = [only] if only is not None else sorted(PARTS, key=lambda name: name != first)
        wanted = [name for name in names if name not in skip and self.stored(name) is None]
        if not wanted:
            return
        inputs = self.inputs(part_of(progress, 0.05, 0.1))
        for i, name in enumerate(wanted):
            steps = (0.1 + 0.9 * i / len(wanted), 0.1 + 0.9 * (i + 1) / len(wanted))
            began = now()
            found = PARTS[name].compute(inputs, part_of(progress, *steps, prefix=f"{name}: "))
            self._analysis.database.refuse_changed(self._version)
            for beside, table in inputs.beside.items():  # before the answer that leads to them
                self._store.write_table(self.card["model"], self.key(name), beside, table)
            inputs.beside.clear()
            self._keep(name, found, (now() - began).total_seconds())

    def masked(self, mask_id: str) -> bytes | None:
        """JSON of what leaving out a set of features does, where it was computed, else None."""
        name = _MASK + mask_id
        return self._store.read(self.card["model"], self.key(name), name)

    def check_mask(self, names: Sequence[str]) -> None:
        """Refuse features that cannot be left out, before they are queued.

        Raises
        ------
        ImportedModel, NotTrainedHere, NotFound
        """
        backbone = self.card["backbone"]
        known = [] if backbone is None else self._analysis.database.feature_names(backbone)
        mask.check_mask(self.card, known, names)

    def mask(
        self,
        names: Sequence[str],
        *,
        progress: Progress = lambda _share, _message: None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Fit the head again without some features, and keep what comes of it.

        Raises
        ------
        NotFound, NotATest, DataChanged, ImportedModel, NotTrainedHere, models.errors.ModelError
        """
        self.check_mask(names)
        mask_id = mask.mask_id(names)
        if self.masked(mask_id) is not None:
            return
        inputs = self.inputs(part_of(progress, 0.0, 0.1))
        began = now()
        found = mask.compute(
            inputs, names, self._analysis.resources, part_of(progress, 0.1, 1.0, prefix="mask: ")
        )
        self._analysis.database.refuse_changed(self._version)
        self._keep(_MASK + mask_id, found, (now() - began).total_seconds())

    def self_test(self) -> SelfTestOut | None:
        """Return the last self-test on the reference, where it is of this state of the data."""
        model = self.card["model"]
        return kept(self._analysis.data, model, self.reference, self._self_test_key())

    def keep_self_test(self, found: SelfTestOut) -> None:
        """Keep a self-test under the state of the data."""
        keep(self._analysis.data, self._self_test_key(), found)

    def _self_test_key(self) -> str:
        """Return the key of what a self-test rests on: no other model, no target but its like."""
        state = self._state
        return state_key(
            {
                "created_at": state["created_at"],
                "reference": state["digests"].get(self.reference),
                "annotations": state["annotations"],
                "explainers": EXPLAINERS,
            }
        )

    def inputs(self, progress: Progress) -> Inputs:
        """Score what is not scored, sweep what is outdated, and lay out what explainers read."""
        analysis, model = self._analysis, self.card["model"]
        present = {self.key(name) for name in (*PARTS, *_FURTHER, _GAP, _MASK)}
        analysis.evaluate(model, progress=progress)
        self._store.sweep(model, present | self._of_other_pairs())
        return Inputs(analysis.database, analysis.results, self.card, self.reference, self.target)

    def _keep(self, name: str, found: PartOut, seconds: float) -> None:
        found = found.model_copy(update={"seconds_s": round(seconds, 3)})
        answer = found.model_dump_json().encode()
        self._store.write(self.card["model"], self.key(name), name, answer)

    def _of_other_pairs(self) -> set[str]:
        """Keys of questions with other ends, whatever their state."""
        mine = f"{self.reference}.{self.target}."
        return {key for key in self._store.keys(self.card["model"]) if not key.startswith(mine)}


@lru_cache(maxsize=8)
def _explained(
    gap: bytes, parts: tuple[tuple[str, bytes | None], ...], test: bytes | None
) -> ExplainedGapOut:
    """Put the JSON of an answer together; the same answer is asked for often."""
    stored = {name: found for name, found in parts if found is not None}
    return explained_gap(
        parsed(GapOut, gap),
        {name: parsed(PARTS[name].answer, found) for name, found in stored.items()},
        None if test is None else parsed(SelfTestOut, test),
    )
