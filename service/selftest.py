"""The self-test: each explainer on sets made of the reference, whose gap and its cause are known.

Up to 200 placebos (random halves of the reference) and, for each cause and size, up to twenty
plantings, in turns, so that any budget buys both. Placebos are shown to every explainer; a planting
to those that ought to name its cause.
"""

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from models import heads
from models.errors import ModelError
from models.gap.selftest import (
    Duplicates,
    FeatureShift,
    LabelNoise,
    Planted,
    Planting,
    Relabelling,
    Selection,
    Unreachable,
    exact_interval,
    plant,
    two_sets,
)
from service import charts
from service.errors import NothingToDraw, TooFewImages
from service.gap import PARTS
from service.gap.classes import ClassesOut
from service.gap.difficulty import CONFIDENCE, DifficultyOut
from service.gap.error_rates import (
    LEVEL,
    ExplainerOut,
    PowerOut,
    RateOut,
    SelfTestOut,
    in_words,
)
from service.gap.findings import FindingOut, findings_of
from service.gap.groups import DIFFICULTY, FEATURES
from service.gap.inputs import ChosenInputs, Inputs, PlantedInputs, Sides
from service.gap.ledger import LedgerOut
from service.schemas import PartOut
from service.terminal import Progress, part_of

if TYPE_CHECKING:
    from service.gap.explaining import Question

BUDGET_S = 900.0
N_PLACEBOS, N_PLANTINGS = 200, 20
SIZES = (0.02, 0.05, 0.10)
HALF = 0.5
LABEL_NOISE, FEATURE_SHIFT = "label noise", "features moved"
DUPLICATES, RELABELLING = "copies of wrong images", "classes relabelled"
_FEWEST_TOLD = 20  # placebos that tell something
_FEWEST = 100  # images of the reference
_HALF_MOST = 1500  # images of a placebo's half
_SHARES, _MOST = (0.3, 0.7), (1500, 3500)  # of the reference, and candidates for the changed set
_TARGET_SHARE = 0.25  # of the candidates: the harder ones must be plenty
_N_MOVED, _AMONG = 8, 50  # features that move, of those with most weight in the head
_ANNOTATIONS_MOST = 2
_THREADS = 2
_POLL_S = 0.2
_SEARCH = 1e12  # products of a search in train that takes seconds
_NO_FINDINGS = {
    "line": "the line is about published models and the real target",
    "without_labels": "it raises no finding",
    "images": "it raises no finding",
    "map": "it raises no finding",
}
_OF_MODEL = (CONFIDENCE, "margin", "entropy", "norm")
# what an explainer says of a planting: whether the right thing comes first, and its interval
_Verdict = tuple[bool, float | None, float | None]
_Judge = Callable[[Any, list[FindingOut], "_Pair"], _Verdict]


@dataclass(frozen=True)
class _Pair:
    """A pair of sets of known gap.

    Attributes
    ----------
    inputs : what explainers read
    points : the planted gap, a fraction
    concerned : features by name, or classes by id, that were changed
    """

    inputs: ChosenInputs
    points: float
    concerned: frozenset[Any] = frozenset()


@dataclass(frozen=True)
class _Cause:
    """Something that makes a gap.

    Attributes
    ----------
    name : of it
    make : plants it into candidates, with a generator; and what it concerns
    judges : by explainer: the name of its right finding (None for any), and who judges it
    """

    name: str
    make: Callable[[np.ndarray, np.random.Generator], tuple[Planting, frozenset[Any]]]
    judges: dict[str, tuple[str | None, _Judge]]


@dataclass
class _Tally:
    """What runs have shown so far."""

    runs: Counter[str] = field(default_factory=Counter)
    alarms: Counter[str] = field(default_factory=Counter)
    names: dict[str, Counter[str]] = field(default_factory=dict)
    with_any: int = 0
    seconds: dict[str, list[float]] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    placebos: int = 0
    plantings: int = 0
    planted: dict[tuple[str, float], list[float]] = field(default_factory=dict)
    unreachable: dict[tuple[str, float], list[str]] = field(default_factory=dict)
    verdicts: dict[tuple[str, float, str], list[tuple[bool, bool | None]]] = field(
        default_factory=dict
    )


class SelfTest:
    """Runs the explainers of a model on sets made of its reference."""

    def __init__(self, inputs: Inputs, *, seed: int) -> None:
        """Take what the explainers read of the real pair.

        Raises
        ------
        TooFewImages
        """
        self._whole, self._seed = inputs, seed
        self._labels = inputs.labels.reference
        if len(self._labels) < _FEWEST:
            raise TooFewImages(
                f"wanted {_FEWEST} images of {inputs.reference} to make sets of, got "
                f"{len(self._labels)}. Name another reference."
            )
        self._left_out = [f"{name}: {why}" for name, why in _NO_FINDINGS.items()]
        self._explainers = self._applicable()
        self._causes = self._possible()
        self._sizes: dict[str, int] = {}

    def run(
        self,
        budget_s: float,
        *,
        progress: Progress,
        clock: Callable[[], float] = time.monotonic,
    ) -> SelfTestOut:
        """Try as many sets as the time allows, one placebo at least."""
        began = clock()
        self._warm(part_of(progress, 0.0, 0.02))
        tasks = self._tasks()
        n_tasks = N_PLACEBOS + N_PLANTINGS * len(SIZES) * len(self._causes)
        tally, done = _Tally(), 0
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        pool = ThreadPoolExecutor(max(1, min(_THREADS, os.cpu_count() or 1)))
        open_tasks: set[Future[Callable[[_Tally], None]]] = set()
        try:
            with threadpool_limits(1):
                while True:
                    late = clock() - began >= budget_s and done + len(open_tasks) > 0
                    while not late and len(open_tasks) < _THREADS:
                        task = next(tasks, None)
                        if task is None:
                            break
                        open_tasks.add(pool.submit(task))
                    if not open_tasks:
                        break
                    ended, open_tasks = wait(open_tasks, _POLL_S, FIRST_COMPLETED)
                    for one in ended:
                        one.result()(tally)
                        done += 1
                    share = max(done / n_tasks, (clock() - began) / budget_s)
                    progress(
                        0.02 + 0.97 * min(1.0, share),
                        f"{tally.placebos} placebos, {tally.plantings} plantings",
                    )
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            torch.set_num_threads(before)
        return self._answer(tally, budget_s, clock() - began)

    def _applicable(self) -> list[str]:
        names = [name for name in PARTS if name not in _NO_FINDINGS]
        whole = self._whole
        if "leaks" in names and whole.features is not None and not whole.has_near_train():
            n_train = sum(
                row["n_images"]
                for row in whole.database.splits_of(whole.backbone)
                if row["role"] == "train"
            )
            n, d = (sum(map(len, whole.features.pair)), whole.features.reference.shape[1])
            if n_train * n * d > _SEARCH:
                names.remove("leaks")
                self._left_out.append(
                    "leaks: the search in train takes minutes; ask for /gap/{model}/leaks first"
                )
        return names

    def _warm(self, progress: Progress) -> None:
        """Compute what all sets share, before threads ask for it."""
        whole = self._whole
        quiet = partial(_quiet, progress)
        for name in (
            "answers", "features", "head", "scores", "annotations", "other_answers",
            "class_names", "superclasses", "feature_names", "paths",
        ):  # fmt: skip
            progress(0.0, "reading")
            getattr(whole, name)
        if whole.features is not None:
            _ = whole.train_sd, whole.train_mean
        # one small pair by one thread: whatever else is made once is made now
        rows = Sides(*two_sets(self._labels, (0.5, 0.5), largest=(200, 200),
                               rng=np.random.default_rng(self._seed)))  # fmt: skip
        first = ChosenInputs(whole, rows, of=_OF_REFERENCE)
        for name in self._explainers:
            progress(0.5, f"reading for {name}")
            try:
                PARTS[name].compute(first, quiet)
            except ModelError:  # too few images here says nothing of larger sets
                continue

    def _tasks(self) -> Iterator[Callable[[], Callable[[_Tally], None]]]:
        """All runs, so ordered that any first part of them has placebos and all plantings."""
        order: list[tuple[float, Callable[[], Callable[[_Tally], None]]]] = [
            ((i + 0.5) / N_PLACEBOS, partial(self._placebo, i)) for i in range(N_PLACEBOS)
        ]
        kinds = [(cause, size) for cause in self._causes for size in SIZES]
        for k, (cause, size) in enumerate(kinds):
            order += [
                (
                    (j + (k + 0.5) / len(kinds)) / N_PLANTINGS,
                    partial(self._planting, cause, size, j, k),
                )
                for j in range(N_PLANTINGS)
            ]
        return (task for _, task in sorted(order, key=lambda one: one[0]))

    def _placebo(self, i: int) -> Callable[[_Tally], None]:
        rng = np.random.default_rng([self._seed, 0, i])
        rows = Sides(*two_sets(self._labels, (0.5, 0.5), largest=(_HALF_MOST, _HALF_MOST), rng=rng))
        self._sizes["placebo, each half"] = len(rows.target)
        inputs = ChosenInputs(self._whole, rows, of=_OF_REFERENCE)
        found: dict[str, tuple[list[str], float]] = {}
        refused: dict[str, str] = {}
        for name in self._explainers:
            began = time.perf_counter()
            try:
                said = findings_of({name: PARTS[name].compute(inputs, _silent)})
            except ModelError as error:
                refused[name] = str(error)
                continue
            found[name] = [one.name for one in said], time.perf_counter() - began

        def count(tally: _Tally) -> None:
            tally.placebos += 1
            tally.with_any += any(names for names, _ in found.values())
            tally.refused.update(refused)
            for name, (names, seconds) in found.items():
                tally.runs[name] += 1
                tally.alarms[name] += bool(names)
                tally.names.setdefault(name, Counter()).update(names)
                tally.seconds.setdefault(name, []).append(seconds)

        return count

    def _planting(self, cause: _Cause, size: float, j: int, k: int) -> Callable[[_Tally], None]:
        rng = np.random.default_rng([self._seed, 1 + k, j])
        first, candidates = two_sets(self._labels, _SHARES, largest=_MOST, rng=rng)
        planting, concerned = cause.make(candidates, rng)
        try:
            planted = plant(planting, size)
        except Unreachable as error:
            why = str(error)

            def count_unreachable(tally: _Tally) -> None:
                tally.plantings += 1
                tally.unreachable.setdefault((cause.name, size), []).append(why)

            return count_unreachable
        self._sizes["planting, reference"] = len(first)
        self._sizes["planting, target"] = len(planted.rows)
        pair = self._pair(first, planted, concerned)
        verdicts: dict[str, tuple[bool, bool | None]] = {}
        for name, (_, judge) in cause.judges.items():
            if name not in self._explainers:
                continue
            try:
                answer = PARTS[name].compute(pair.inputs, _silent)
            except ModelError:
                verdicts[name] = False, None
                continue
            is_first, low, high = judge(answer, findings_of({name: answer}), pair)
            covered = None if low is None or high is None else low <= pair.points <= high
            verdicts[name] = is_first, covered

        def count(tally: _Tally) -> None:
            tally.plantings += 1
            tally.planted.setdefault((cause.name, size), []).append(pair.points)
            for name, verdict in verdicts.items():
                tally.verdicts.setdefault((cause.name, size, name), []).append(verdict)

        return count

    def _pair(self, first: np.ndarray, planted: Planted, concerned: frozenset[Any]) -> _Pair:
        rows = Sides(first, planted.rows)
        if planted.labels is None and planted.features is None:
            chosen = ChosenInputs(self._whole, rows, of=_OF_REFERENCE)
        else:
            chosen = PlantedInputs(
                self._whole, rows, of=_OF_REFERENCE, labels=planted.labels,
                features=planted.features,
            )  # fmt: skip
        return _Pair(chosen, planted.points, concerned)

    def _possible(self) -> list[_Cause]:
        """Causes that can be planted here, with who ought to name them."""
        whole = self._whole
        numbers = [
            one
            for one in whole.annotations
            if one.categories is None
            and not whole.is_image_statistic(one)
            and len(np.unique(one.values.reference[np.isfinite(one.values.reference)])) > 1
        ]
        found = [
            _Cause(
                f"selection by {one.name}",
                partial(self._selection, one.values.reference),
                {
                    "ledger": (one.name, partial(_of_ledger, one.name)),
                    "difficulty": (None, partial(_of_difficulty, (one.name,), one.name)),
                },
            )
            for one in numbers[:_ANNOTATIONS_MOST]
        ]
        if not numbers:
            self._left_out.append("selection by an annotation: no number is attached")
        if whole.covariates is not None:
            found.append(
                _Cause(
                    f"selection by {CONFIDENCE}",
                    partial(self._selection, whole.covariates.reference.confidence),
                    {
                        "ledger": (DIFFICULTY, partial(_of_ledger, DIFFICULTY)),
                        "difficulty": (None, partial(_of_difficulty, _OF_MODEL, CONFIDENCE)),
                    },
                )
            )
        found.append(
            _Cause(LABEL_NOISE, self._noise, {"ledger": ("rest", partial(_of_ledger, "rest"))})
        )
        if whole.features is not None and whole.head is not None:
            found += [
                _Cause(
                    FEATURE_SHIFT, self._shift,
                    {
                        "features": (None, _of_features),
                        "ledger": (FEATURES, partial(_of_ledger, FEATURES)),
                    },
                ),
                _Cause(DUPLICATES, self._copies, {"leaks": (None, _of_leaks)}),
            ]  # fmt: skip
        else:
            self._left_out.append(
                f"{FEATURE_SHIFT}, {DUPLICATES}: an imported model has no features here"
            )
        found.append(_Cause(RELABELLING, self._relabelling, {"classes": (None, _of_classes)}))
        return [cause for cause in found if any(name in self._explainers for name in cause.judges)]

    def _selection(
        self, values: np.ndarray, candidates: np.ndarray, rng: np.random.Generator
    ) -> tuple[Planting, frozenset[Any]]:
        n = round(len(candidates) * _TARGET_SHARE)
        correct = self._whole.correct.reference[candidates]
        planting = Selection(
            candidates, n, self._labels[candidates], correct, values[candidates], rng=rng
        )
        return planting, frozenset()

    def _some(self, candidates: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return some of the candidates, as many as a selection has, drawn evenly."""
        n = len(candidates)
        place, _ = two_sets(self._labels[candidates], (_TARGET_SHARE, 0.0), largest=(n, n), rng=rng)
        return np.asarray(candidates[place])

    def _noise(
        self, candidates: np.ndarray, rng: np.random.Generator
    ) -> tuple[Planting, frozenset[Any]]:
        rows = self._some(candidates, rng)
        predicted = self._whole.predicted.reference[rows]
        return LabelNoise(rows, self._labels[rows], predicted, rng=rng), frozenset()

    def _relabelling(
        self, candidates: np.ndarray, rng: np.random.Generator
    ) -> tuple[Planting, frozenset[Any]]:
        rows = self._some(candidates, rng)
        predicted = self._whole.predicted.reference[rows]
        planting = Relabelling(rows, self._labels[rows], predicted, rng=rng)
        return planting, frozenset(planting.classes.tolist())

    def _copies(
        self, candidates: np.ndarray, rng: np.random.Generator
    ) -> tuple[Planting, frozenset[Any]]:
        rows = self._some(candidates, rng)
        correct = self._whole.correct.reference[rows]
        return Duplicates(rows, self._labels[rows], correct, rng=rng), frozenset()

    def _shift(
        self, candidates: np.ndarray, rng: np.random.Generator
    ) -> tuple[Planting, frozenset[Any]]:
        whole = self._whole
        head, features = whole.head, whole.features
        assert head is not None
        assert features is not None
        rows = self._some(candidates, rng)
        sd = whole.train_sd
        weight = np.asarray(head.feature_weights(), float) * (sd > 0)
        heavy = np.argsort(-weight, kind="stable")[:_AMONG]
        moved = rng.choice(heavy, min(_N_MOVED, max(1, len(heavy) // 2)), replace=False)

        def predict(rows: np.ndarray) -> np.ndarray:
            return np.asarray(head.class_ids[heads.scores(head, rows).argmax(axis=1)])

        planting = FeatureShift(
            rows, self._labels[rows], features.reference[rows], moved, sd, predict, rng=rng
        )
        return planting, frozenset(whole.feature_names[j] for j in moved.tolist())

    def _answer(self, tally: _Tally, budget_s: float, seconds: float) -> SelfTestOut:
        explainers = [self._explainer_out(name, tally) for name in self._explainers]
        return SelfTestOut(
            model=self._whole.model,
            reference=self._whole.reference,
            created_at=datetime.now(UTC),
            seed=self._seed,
            budget_s=budget_s,
            seconds_s=round(seconds, 1),
            n_placebos=tally.placebos,
            n_plantings=tally.plantings,
            n_images=dict(sorted(self._sizes.items())),
            explainers=explainers,
            left_out=self._left_out,
            summary=_summary(tally, explainers, seconds),
        )

    def _explainer_out(self, name: str, tally: _Tally) -> ExplainerOut:
        why = tally.refused.get(name, "the time allowed no placebo")
        alarm = _rate(tally.alarms[name], tally.runs[name], why)
        one = ExplainerOut(
            explainer=name,
            false_alarm=alarm,
            trusted=_trusted(alarm),
            sentence="",
            false_findings=dict(tally.names.get(name, Counter()).most_common()),
            power=[
                self._power_out(cause, size, name, cause.judges[name][0], tally)
                for cause in self._causes
                if name in cause.judges
                for size in SIZES
            ],
            seconds_s=round(float(np.mean(tally.seconds[name])), 2)
            if tally.seconds.get(name)
            else None,
        )
        return one.model_copy(update={"sentence": in_words(one)})

    def _power_out(
        self, cause: _Cause, size: float, name: str, finding: str | None, tally: _Tally
    ) -> PowerOut:
        missed = tally.unreachable.get((cause.name, size), [])
        points = tally.planted.get((cause.name, size), [])
        verdicts = tally.verdicts.get((cause.name, size, name), [])
        why = missed[0] if missed else "the time allowed no run"
        covered = [covers for _, covers in verdicts if covers is not None]
        return PowerOut(
            cause=cause.name,
            finding=finding,
            wanted=size,
            planted=float(np.mean(points)) if points else None,
            first=_rate(sum(is_first for is_first, _ in verdicts), len(verdicts), why),
            covered=_rate(
                sum(covered), len(covered),
                "no interval for the gap: it has none, or it was refused" if verdicts else why,
            ),
            n_out_of_reach=len(missed),
        )  # fmt: skip


_OF_REFERENCE = Sides("reference", "reference")


def _silent(_share: float, _message: str) -> None:
    """Say nothing: threads do not report."""


def _quiet(progress: Progress, _share: float, message: str) -> None:
    progress(0.5, message)


def _rate(k: int, n: int, why: str) -> RateOut:
    if n == 0:
        return RateOut(rate=None, low=None, high=None, n=0, reason=why)
    low, high = exact_interval(k, n)
    return RateOut(rate=k / n, low=low, high=high, n=n)


def _of_ledger(name: str, answer: LedgerOut, findings: list[FindingOut], _pair: _Pair) -> _Verdict:
    term = next((term for term in answer.terms if term.name == name), None)
    is_first = bool(findings) and findings[0].name == name
    return is_first, *((None, None) if term is None else (term.low, term.high))


def _of_difficulty(
    names: Sequence[str],
    sized_by: str,
    answer: DifficultyOut,
    _findings: list[FindingOut],
    _pair: _Pair,
) -> _Verdict:
    """By the covariates that go with the gap on their own, largest first."""
    told = [
        one
        for one in answer.covariates
        if one.explained.low is not None
        and one.explained.high is not None
        and (one.explained.low > 0 or one.explained.high < 0)
    ]
    first = max(told, key=lambda one: abs(one.explained.estimate or 0.0), default=None)
    sized = next((one.explained for one in answer.covariates if one.name == sized_by), None)
    bounds = (None, None) if sized is None else (sized.low, sized.high)
    return first is not None and first.name in names, *bounds


def _of_features(_answer: PartOut, findings: list[FindingOut], pair: _Pair) -> _Verdict:
    return bool(findings) and findings[0].name in pair.concerned, None, None


def _of_leaks(_answer: PartOut, findings: list[FindingOut], _pair: _Pair) -> _Verdict:
    return bool(findings), None, None


def _of_classes(answer: ClassesOut, findings: list[FindingOut], pair: _Pair) -> _Verdict:
    """By the first named class: the clearest of those that lose more than the others."""
    told = [
        one
        for one in answer.classes
        if one.q_common_gap is not None and one.q_common_gap <= LEVEL and (one.excess or 0) > 0
    ]
    if not findings or not told:
        return False, None, None
    clearest = min(told, key=lambda one: one.q_common_gap or 0.0)
    return clearest.class_id in pair.concerned, None, None


def _trusted(alarm: RateOut) -> bool | None:
    """Whether false alarms are as rare as they should be; None where too few runs say nothing."""
    if alarm.low is None:
        return None
    if alarm.low > LEVEL:
        return False
    return True if alarm.n >= _FEWEST_TOLD else None


def _summary(tally: _Tally, explainers: list[ExplainerOut], seconds: float) -> list[str]:
    distrusted = [one.explainer for one in explainers if one.trusted is False]
    largest = max(SIZES)
    missed = [
        f"{power.cause} ({one.explainer})"
        for one in explainers
        for power in one.power
        if power.wanted == largest and power.first.rate is not None and power.first.rate < HALF
    ]
    reach = max((one.false_alarm.high for one in explainers if one.false_alarm.high is not None),
                default=1.0)  # fmt: skip
    low, high = exact_interval(tally.with_any, tally.placebos) if tally.placebos else (0.0, 1.0)
    return [
        f"{tally.placebos} placebos and {tally.plantings} plantings in {seconds:,.0f} s.",
        *(one.sentence for one in explainers),
        f"Each explainer is held to {LEVEL:.0%}, not all together: {tally.with_any} of "
        f"{tally.placebos} placebos have a finding of some explainer (exact 95 % interval "
        f"{low:.1%} to {high:.1%}).",
        f"Untrustworthy here: {', '.join(distrusted)}."
        if distrusted
        else f"No explainer is shown to have more than {LEVEL:.0%} false findings here; what "
        f"{tally.placebos} placebos leave open reaches to {reach:.0%}.",
        *(
            [f"Missed in most plantings of {largest * 100:.0f} points: {', '.join(missed)}."]
            if missed
            else []
        ),
    ]


def run(
    question: "Question",
    *,
    budget_s: float = BUDGET_S,
    seed: int = 0,
    progress: Progress = _silent,
) -> SelfTestOut:
    """Self-test the explainers of a question's model on its reference, and keep what comes of it.

    Raises
    ------
    NotFound, NotATest, DataChanged, TooFewImages, models.errors.ModelError
    """
    inputs = question.inputs(part_of(progress, 0.0, 0.05))
    found = SelfTest(inputs, seed=seed).run(budget_s, progress=part_of(progress, 0.05, 1.0))
    question.keep_self_test(found)
    return found


def chart(answer: SelfTestOut) -> dict[str, Any]:
    """Return false-alarm rates with their intervals, and the level, as a Vega-Lite spec.

    Raises
    ------
    NothingToDraw
    """
    rows = [
        {
            "name": one.explainer,
            "estimate": one.false_alarm.rate,
            "low": one.false_alarm.low,
            "high": one.false_alarm.high,
            "n": one.false_alarm.n,
        }
        for one in answer.explainers
        if one.false_alarm.rate is not None
    ]
    if not rows:
        raise NothingToDraw("wanted rates of false alarms, got a self-test without a placebo.")
    return charts.forest(
        rows,
        title=f"False findings in {answer.n_placebos} splits without any cause (dashed: 5 %)",
        x_title="share of placebos with a finding (exact 95 % interval)",
        also=LEVEL,
        tooltip=["n"],
    )


def table(answer: SelfTestOut) -> list[str]:
    """Return the self-test as lines of text."""
    lines = [
        f"{answer.n_placebos} placebos and {answer.n_plantings} plantings of "
        f"{answer.reference} in {answer.seconds_s:,.0f} s (seed {answer.seed}); images: "
        + ", ".join(f"{name} {n:,}" for name, n in answer.n_images.items()),
        "",
        f"{'explainer':12} {'false alarms':>12} {'95 % interval':>16} {'placebos':>8} {'s':>6}",
    ]
    for one in answer.explainers:
        rate = one.false_alarm
        mark = "  untrustworthy here" if one.trusted is False else ""
        seconds = "" if one.seconds_s is None else f"{one.seconds_s:.2f}"
        lines.append(
            f"{one.explainer:12} {_percent(rate):>12} {_interval(rate):>16} {rate.n:8} "
            f"{seconds:>6}{mark}"
        )
    lines += [
        "",
        f"{'planted':30} {'points':>6} {'named first by':14} {'rate':>6} {'95 % interval':>16} "
        f"{'n':>3} {'size covered':>12}",
    ]
    for one in answer.explainers:
        for row in one.power:
            if row.first.rate is None:
                lines.append(
                    f"{row.cause[:30]:30} {row.wanted * 100:6.0f} {one.explainer:14} "
                    f"unknown: {row.first.reason}"
                )
                continue
            lines.append(
                f"{row.cause[:30]:30} {row.wanted * 100:6.0f} {one.explainer:14} "
                f"{_percent(row.first):>6} {_interval(row.first):>16} {row.first.n:3} "
                f"{_percent(row.covered):>12}"
            )
    return lines


def _percent(rate: RateOut) -> str:
    return "" if rate.rate is None else f"{rate.rate:.1%}"


def _interval(rate: RateOut) -> str:
    if rate.low is None or rate.high is None:
        return ""
    return f"{rate.low:.1%} to {rate.high:.1%}"
