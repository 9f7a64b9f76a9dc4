"""The use cases: train, evaluate, gap, predict. HTTP and command line are thin over these."""

import dataclasses
import time
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock, RLock
from typing import IO, Any, TypeVar

import numpy as np
import pyarrow as pa

from etl.memory import memory_bytes
from etl.sources import JOIN
from models import heads
from models.errors import InvalidParams, WrongShape
from models.gap import TestSet, report
from models.gap.difference import newcombe
from models.gap.scores import scores
from models.heads.linear import is_raw
from models.heads.selected import over_all
from models.heads.validation import NEVER_HELD
from models.leaks import first_of_each, row_hashes
from service.arrow_predictions import predict_stream
from service.audit import Audit, audit_model, with_records
from service.backbones import Backbones, decoded
from service.checkpoints import Checkpoints, Note
from service.database import Database, TestRows, place_of
from service.disk import Damage
from service.errors import DataChanged, ModelExists, NotATest, NotFound, TestWasTrained
from service.evaluations import SEED, prediction_table, records_of, scores_out
from service.gaps import gaps_of
from service.importing import refuse_changed_images, splits_imported, stored_answers
from service.looks import Look
from service.neighbours import OneByOne
from service.register import broken_registers
from service.results import Results, rows_digest, train_row_table
from service.schemas import (
    EstimateOut,
    EvaluationOut,
    GapOut,
    GapScoreOut,
    GapsOut,
    PredictImageOut,
    PredictOut,
    ProbabilityOut,
    gap_out,
)
from service.seals import Seals
from service.settings import Settings, read_settings
from service.terminal import Progress, part_of
from service.thumbnails import Thumbnails
from service.untrained import interpolate

_ANSWERS_KEPT = 32
_FEW_COPIES = 0.01  # of the train rows: below, they hardly move internal validation
_Kept = TypeVar("_Kept")


@dataclasses.dataclass(frozen=True)
class ToSeal:
    """What a seal is predicted from: of the target no label."""

    card: dict[str, Any]
    head: heads.Head
    reference: str
    target: str
    digests: dict[str, str]
    reference_rows: TestRows
    target_features: np.ndarray


class Analysis:
    """Everything that can be asked of one data folder.

    `strict`: whether labels of a test split, other than its backbone's reference, are only read
    with a model that has a seal there; None: as GAP_STRICT says.
    """

    def __init__(
        self, data: Path, resources: heads.Resources | None = None, *, strict: bool | None = None
    ) -> None:
        self.data = data
        self.strict = read_settings().strict if strict is None else strict
        self.resources = resources or heads.Resources(spool=data)
        self.database = Database(data)
        self.results = Results(data)
        self.checkpoints = Checkpoints(data)
        self.backbones = Backbones(data)
        self.damaged_at_start: list[Damage] = []
        self.thumbnails = Thumbnails(self.database)
        self.near_train = OneByOne(self.database)
        self._predicting = Lock()  # one stream at a time, for the same reason
        self._lock = RLock()  # one heavy answer at a time: two would only share the cores
        self._answers: dict[tuple[object, ...], GapOut] = {}
        self._audits: dict[tuple[object, ...], Audit] = {}

    @property
    def damaged(self) -> list[str]:
        """What is damaged in the data folder, in words.

        What was found at start and not mended since, models that are set aside, broken records.
        """
        at_start = [
            one
            for one in self.damaged_at_start
            if not (one.is_missing and (self.data / one.file).exists())
        ]
        found = [*at_start, *broken_registers(self.data)]
        return [*map(str, found), *self.results.damaged().values()]

    def free_name(self, backbone: str, head: str, taken: set[str], asked: str | None) -> str:
        """Name of a new model: as asked for, else <backbone>-<head>, numbered where taken.

        Raises
        ------
        ModelExists, BadName
        """
        if asked is not None:
            self.results.check_name(asked)
            if asked in taken or self.results.has(asked):
                raise ModelExists(
                    f"wanted a new name, got {asked!r}, which is taken. Choose another."
                )
            return asked
        stem, number = f"{backbone}-{head}".replace(JOIN, "-")[:90], 1
        name = stem
        while name in taken or self.results.has(name):
            number += 1
            name = f"{stem}-{number}"
        return name

    def check_train(self, backbone: str, head: str, params: dict[str, Any]) -> None:
        """Refuse what `train` would refuse, before it is queued.

        Raises
        ------
        NotFound, models.errors.InvalidParams
        """
        self.database.splits_of(backbone)
        heads.check_params(head, params)

    def train(
        self,
        *,
        model: str,
        backbone: str,
        head: str,
        params: dict[str, Any],
        seed: int,
        leave_out: Collection[str] = (),
        why: str | None = None,
        without: Collection[str] = (),
        about: Mapping[str, Any] | None = None,
        progress: Progress = lambda _share, _message: None,
        note: Note = lambda _sentence: None,
    ) -> dict[str, Any]:
        """Train a head on train rows alone, store it, and return its card.

        The same request, once killed, goes on from what it had kept.

        Parameters
        ----------
        leave_out
            Paths of train rows that it must not learn from; the card counts them.
        why
            Why they are left out, for the card.
        without
            Names of features that it must not read; the card lists them.
        about
            What else the card is to say.
        note
            Called with a sentence where a checkpoint was found, or can no longer be kept.

        Raises
        ------
        NotFound, ModelExists, models.errors.ModelError
        """
        began = time.monotonic()
        progress(0.0, "reading the train rows")
        version = self.database.version
        digests = self.database.digests(backbone)
        roles = {row["split"]: row["role"] for row in self.database.splits_of(backbone)}
        train_sha256 = [sha for split, sha in digests.items() if roles[split] == "train"]
        request = {"backbone": backbone, "head": head, "params": params, "seed": seed}
        if leave_out:
            request["leave_out"] = sorted(leave_out)
        if without:
            request["without"] = sorted(without)
        checkpoint = self.checkpoints.of(request, train_sha256, note)
        if checkpoint.is_there:
            note("went on from a checkpoint of the same training")
        rows, paths = self.database.train_rows(backbone, leave_out)
        names = self.database.feature_names(backbone)
        columns = self._read_columns(backbone, names, without)
        self.database.refuse_changed(version)  # from here on, rows are those of their connection
        trained = heads.train(
            rows.only(columns) if without else rows,
            head,
            params,
            seed=seed,
            progress=progress,
            checkpoint=checkpoint,
            resources=self.resources,
        )
        head_of_all: heads.Head = trained.head
        if without:
            head_of_all = over_all(trained.head, columns, len(names))
        hashes = row_hashes(rows.features)
        train_rows = train_row_table(paths, hashes, trained.fold)
        card = {
            "model": model,
            "backbone": backbone,
            "head": trained.kind,
            "asked": {"head": head, "params": params},
            "params": trained.params,
            "seed": seed,
            "n_train": trained.n_train,
            "n_classes": len(head_of_all.class_ids),
            "n_features": head_of_all.n_features,
            "validation": {
                "method": trained.method,
                "top1": EstimateOut.of(trained.top1, {"images": "train"}).model_dump(),
                "candidates": [dataclasses.asdict(c) for c in trained.candidates],
            },
            "notes": [*trained.notes, *_of_copies(hashes)],
            "train_sha256": train_sha256,
            "rows": {
                "digest": rows_digest(train_rows),
                "n_fit": len(paths),
                "n_selection": int((trained.fold != NEVER_HELD).sum()),
                "splits": [split for split, role in roles.items() if role == "train"],
            },
            "left_out": {"n": len(leave_out), "why": why} if leave_out else None,
            "without": sorted(without),
            "seconds_s": round(time.monotonic() - began, 3),
            "created_at": datetime.now(UTC)
            .isoformat(timespec="milliseconds")
            .removesuffix("+00:00"),
            **(about or {}),
        }
        self.results.save_model(
            card, head_of_all, train_rows, feature_names=names, curves=trained.curves
        )
        checkpoint.remove()
        return card

    def _read_columns(
        self, backbone: str, names: list[str], without: Collection[str]
    ) -> np.ndarray:
        """Columns of the features that may be read.

        Raises
        ------
        NotFound, models.errors.InvalidParams
        """
        unknown = sorted(set(without) - set(names))
        if unknown:
            raise NotFound(
                f"wanted names of features of {backbone!r}, got {', '.join(unknown[:5])}"
                f"{' and more' if len(unknown) > 5 else ''}."
            )
        kept = [i for i, name in enumerate(names) if name not in set(without)]
        if not kept:
            raise InvalidParams("wanted some features to be left, got all of them to leave out.")
        return np.array(kept)

    def evaluate(
        self,
        model: str,
        splits: list[str] | None = None,
        *,
        progress: Progress = lambda _share, _message: None,
    ) -> EvaluationOut:
        """Scores of a model on test splits, with the gap where two are there.

        All test splits are scored at once, and once per state of the data: what is stored is
        answered from then on.

        Raises
        ------
        NotFound, NotATest, DataChanged, SealWanted
        """
        card = self._card(model)
        backbone, among = card["backbone"], splits_imported(card)
        tests = self.database.test_splits(backbone, among)
        for split in splits or []:
            self.database.check_test_split(backbone, split, among)
        if not tests:
            raise NotATest(f"wanted a test split of {backbone!r}, found none. Load one.")
        records = self._scored(card, tests, progress)
        wanted = list(dict.fromkeys(splits)) if splits else tests
        found = {split: scores_out(records, split) for split in wanted}
        gap = None
        if len(wanted) >= 2:
            reference, target = [split for split in tests if split in wanted][:2]
            k = {s: round((found[s].top1.estimate or 0) * found[s].n) for s in (reference, target)}
            estimate = newcombe(k[reference], found[reference].n, k[target], found[target].n)
            names = {"reference": reference, "target": target}
            gap = GapScoreOut(
                reference=reference, target=target, top1=EstimateOut.of(estimate, names)
            )
        return EvaluationOut(
            model=model,
            backbone=backbone,
            splits=found,
            gap=gap,
            gaps=gaps_of(self.database, self.results, card),
        )

    def to_seal(self, model: str, target: str | None, reference: str | None) -> ToSeal:
        """Return what a seal is predicted from; the look at the reference's labels is logged.

        Raises
        ------
        As of `service.sealing.seal`.
        """
        card, seals = self._card(model), Seals(self.data)
        reference, target = seals.ends(card, reference, target)
        seals.refuse_seen(card, target)
        if self.strict:
            seals.require(card, [reference])
        backbone, version = card["backbone"], self.database.version
        head, digests = self._matching_head(model, backbone), self.database.digests(backbone)
        paths, features = self.database.unlabelled_rows(backbone, target)
        self._refuse_trained(model, target, digests[target], paths)
        rows = self.database.test_rows(backbone, reference, look=Look(model, "seal"))
        self._refuse_trained(model, reference, digests[reference], rows.paths)
        self.database.refuse_changed(version)
        return ToSeal(
            card, head, reference, target, {s: digests[s] for s in (reference, target)}, rows,
            features,
        )  # fmt: skip

    def gaps(self, model: str) -> GapsOut:
        """Three gaps of a model, from what is stored: internal validation, test sets, native head.

        Raises
        ------
        NotFound
        """
        return gaps_of(self.database, self.results, self.results.card(model))

    def interpolate(
        self,
        model_a: str,
        model_b: str,
        *,
        alpha: float,
        name: str,
        taken: Collection[str] = (),
        about: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Make a head between two linear ones, store it, and return its card.

        Parameters
        ----------
        about
            What else the card is to say.

        Raises
        ------
        NotFound, ModelExists, BadName, ImportedModel, models.errors.ModelError
        """
        if name in taken:
            raise ModelExists(
                f"wanted a new name, got {name!r}, which a job will make. Choose another."
            )
        return interpolate(self.results, model_a, model_b, alpha=alpha, name=name, about=about)

    def gap(
        self,
        model: str,
        reference: str | None = None,
        target: str | None = None,
        *,
        progress: Progress = lambda _share, _message: None,
    ) -> GapOut:
        """Why a model scores lower on the target than on the reference.

        Computed once per model, pair of splits and state of the database, then remembered.

        Raises
        ------
        NotFound, NotATest, DataChanged
        """
        card = self._card(model)
        ends = self.database.gap_ends(card["backbone"], reference, target, splits_imported(card))
        key = (model, card["created_at"], *ends, self.database.version)
        with self._lock:
            if key not in self._answers:
                answer = self._explain(card, *ends, progress)
                _keep(self._answers, key, answer)
            return self._answers[key]

    def audit(self, model: str, *, progress: Progress = lambda _share, _message: None) -> Audit:
        """Whether any test row took part in a model.

        Computed once per model and state of the database, then remembered; whether records were
        changed is looked at each time.

        Raises
        ------
        NotFound
        """
        card = self._card(model)
        key = (model, card["created_at"], self.database.version)
        with self._lock:
            if key not in self._audits:
                found = audit_model(self.database, self.results, model, progress=progress)
                _keep(self._audits, key, found)
            return with_records(self._audits[key], self.data)

    def predict(self, model: str, features: list[list[float]]) -> PredictOut:
        """Classes and probabilities of rows of features.

        Raises
        ------
        NotFound, ImportedModel, models.errors.WrongShape
        """
        head = self.results.head(model)
        widths = {len(row) for row in features}
        if widths != {head.n_features}:
            raise WrongShape(
                f"wanted {head.n_features} features a row, got rows of "
                f"{', '.join(map(str, sorted(widths)))}. Use the backbone of this model."
            )
        probabilities = heads.probabilities(head, np.array(features, float))
        names = self._class_names()
        class_ids = head.class_ids.tolist()
        classes = [class_ids[i] for i in probabilities.argmax(axis=1)]
        return PredictOut(
            model=model,
            class_ids=class_ids,
            class_names=[names.get(c, str(c)) for c in class_ids],
            classes=classes,
            names=[names.get(c, str(c)) for c in classes],
            probabilities=probabilities.tolist(),
        )

    def predict_arrow(
        self, model: str, body: IO[bytes], answer: IO[bytes], *, with_probabilities: bool = False
    ) -> None:
        """Classes of the rows of an Arrow stream, as another one.

        `body` and `answer` are files; `service.arrow_predictions` says what is in them.

        Raises
        ------
        NotFound, ImportedModel, DataChanged, DamagedStream, models.errors.NotFiniteInput
        """
        head = self.results.head(model)
        names = self.results.feature_names(model)
        if names is None:  # stored before names were: those of the present features, if they fit
            backbone = self.results.card(model)["backbone"]
            self._matching_head(model, backbone)
            names = self.database.feature_names(backbone)
        with self._predicting:
            predict_stream(
                body,
                answer,
                head,
                names,
                self._class_names(),
                with_probabilities=with_probabilities,
            )

    def predict_image(
        self, model: str, content: bytes, *, with_probabilities: bool = False
    ) -> PredictImageOut:
        """Class of one image, whose features are made as those were that the model learnt from.

        Raises
        ------
        NotFound, ImportedModel, UnreadableImage, BackboneNotHere, DataChanged
        """
        head = self.results.head(model)
        image = decoded(content)
        card = self.results.card(model)
        features = self.backbones.features(image, card["backbone"], card["train_sha256"])
        if features.shape[1] != head.n_features:
            raise DataChanged(
                f"wanted {head.n_features} features, on which {model!r} was trained, got "
                f"{features.shape[1]} from its network. Extract anew and train a new model."
            )
        probabilities = heads.probabilities(head, features)[0]
        names, class_ids = self._class_names(), head.class_ids.tolist()
        ranked = [
            ProbabilityOut(
                class_id=class_ids[i],
                class_name=names.get(class_ids[i], str(class_ids[i])),
                probability=float(probabilities[i]),
            )
            for i in np.argsort(-probabilities, kind="stable")
        ]
        return PredictImageOut(
            model=model,
            backbone=card["backbone"],
            n_features=head.n_features,
            class_id=ranked[0].class_id,
            class_name=ranked[0].class_name,
            top5=ranked[:5],
            probabilities=ranked if with_probabilities else None,
        )

    def _class_names(self) -> dict[int, str]:
        return self.database.class_names() if self.database.exists else {}

    def _card(self, model: str) -> dict[str, Any]:
        with self.database.connect():
            pass  # without a database there is nothing to compare: say that first
        return self.results.card(model)

    def _scored(
        self, card: dict[str, Any], tests: list[str], progress: Progress
    ) -> list[dict[str, Any]]:
        """Return the records of the evaluation, made anew where the data are not those scored."""
        model, backbone = card["model"], card["backbone"]
        if backbone is None:
            refuse_changed_images(self.database, self.results, model, tests)
            return self.results.evaluation(model)
        with self._lock:
            version = self.database.version
            digests = self.database.digests(backbone)
            records = self.results.evaluation(model)
            scored = {(r["split"], r["data_sha256"]) for r in records}
            if scored == {(split, digests[split]) for split in tests}:
                return records
            if self.strict:
                Seals(self.data).require(card, tests)
            head = self._matching_head(model, backbone)
            records, parts = [], []
            for i, split in enumerate(tests):
                progress(i / len(tests), f"scoring {split}")
                rows = self.database.test_rows(backbone, split, look=Look(model, "evaluate"))
                self._refuse_trained(model, split, digests[split], rows.paths)
                predictions = heads.predict(head, rows.features, rows.labels)
                found = scores(predictions, n_classes=len(head.class_ids), seed=SEED)
                records += records_of(model, split, digests[split], found)
                parts.append(
                    prediction_table(
                        model,
                        split,
                        rows.paths,
                        rows.labels,
                        predictions.predicted,
                        confidence=predictions.confidence,
                        in_top5=predictions.in_top5,
                        nll=predictions.nll,
                    )
                )
            self.database.refuse_changed(version)
            self.results.save_evaluation(model, records, pa.concat_tables(parts))
            return records

    def _refuse_trained(self, model: str, split: str, sha256: str, paths: list[str]) -> None:
        """Refuse a test split with images that the model learnt from.

        Paths tell, and so does a whole file that was the train file under another name.
        """
        n_trained = int(self.results.learnt_from(model, paths).sum())
        if sha256 in self.results.card(model)["train_sha256"]:
            n_trained = len(paths)
        if n_trained:
            raise TestWasTrained(
                f"wanted a test split of images that {model!r} has not learnt from, got "
                f"{n_trained:,} of them in {split!r}. Load the test set itself, or train a new "
                "model on the present train rows."
            )

    def _matching_head(self, model: str, backbone: str) -> heads.Head:
        head = self.results.head(model)
        n_features = len(self.database.feature_names(backbone))
        if head.n_features != n_features:
            raise DataChanged(
                f"wanted {head.n_features} features, on which {model!r} was trained, got "
                f"{n_features} in the present {backbone!r}. Train a new model."
            )
        return head

    def _explain(
        self, card: dict[str, Any], reference: str, target: str, progress: Progress
    ) -> GapOut:
        model, backbone = card["model"], card["backbone"]
        tests = self.database.test_splits(backbone, splits_imported(card))
        records = self._scored(card, tests, part_of(progress, 0.0, 0.3))
        accuracy = {split: scores_out(records, split).top1 for split in (reference, target)}
        if backbone is None:
            return gap_out(
                report(
                    stored_answers(self.results, model, reference),
                    stored_answers(self.results, model, target),
                    seed=SEED,
                    progress=part_of(progress, 0.3, 1.0),
                ),
                model=model,
                backbone=None,
                reference=reference,
                target=target,
                accuracy=accuracy,
                class_names=self.database.class_names(),
            )
        progress(0.3, "reading the features")
        head = self._matching_head(model, backbone)
        sets = [self._test_set(model, backbone, split) for split in (reference, target)]
        train_sd = self.database.train_sd(backbone)
        found = report(
            *sets,
            train_sd=train_sd,
            head_weights=_weights_in_sd(head, train_sd),
            seed=SEED,
            progress=part_of(progress, 0.4, 0.9),
        )
        progress(0.9, "comparing the classes' features")
        shift = self.database.rows(
            """select class_id, class_name, n_reference, n_target, rms_mean_difference,
            rms_by_chance, variance_ratio
            from class_shift where backbone = ? and reference = ? and target = ?
            order by rms_mean_difference / rms_by_chance desc nulls last, class_id""",
            [backbone, reference, target],
        )
        return gap_out(
            found,
            model=model,
            backbone=backbone,
            reference=reference,
            target=target,
            accuracy=accuracy,
            class_names=self.database.class_names(),
            feature_names=self.database.feature_names(backbone),
            class_shift=shift,
            n_unknown=[int((~np.isin(s.labels, head.class_ids)).sum()) for s in sets],
            train_changed=not set(card["train_sha256"])
            <= set(self.database.digests(backbone).values()),
        )

    def _test_set(self, model: str, backbone: str, split: str) -> TestSet:
        paths, features = self.database.unlabelled_rows(backbone, split)
        stored = self.results.predictions(model, split, look=Look(model, "gap"))
        there = stored.take(place_of(pa.array(paths, pa.string()), stored["path"]))
        labels = there["class_id"].to_numpy().astype(np.int64)
        return TestSet(labels, there["is_correct"].to_numpy(), features)


def _of_copies(hashes: np.ndarray) -> list[str]:
    """Return a note where so many train rows are copies that internal validation flatters."""
    n = len(hashes)
    n_copies = n - int(first_of_each(hashes).sum())
    if n_copies <= _FEW_COPIES * n:
        return []
    return [
        f"{n_copies:,} of {n:,} train rows repeat another one: copies stand on both sides of a "
        "fold, so that internal validation is optimistic"
    ]


def _keep(answers: dict[tuple[object, ...], _Kept], key: tuple[object, ...], answer: _Kept) -> None:
    """Remember an answer, and forget the oldest where there are too many."""
    while len(answers) >= _ANSWERS_KEPT:
        del answers[next(iter(answers))]
    answers[key] = answer


def _weights_in_sd(head: heads.Head, train_sd: np.ndarray) -> np.ndarray:
    """Weights in scores per train standard deviation, also where they were given per unit."""
    weights = head.feature_weights()
    if isinstance(head, heads.LinearHead) and is_raw(head):
        return weights * np.where(train_sd > 0, train_sd, 1.0)
    return weights


def resources_of(settings: Settings) -> heads.Resources:
    """Return what a training may use."""
    memory_gb = settings.memory_gb
    limit = memory_bytes() // 2 if memory_gb is None else int(memory_gb * 1e9)
    return heads.Resources(memory_limit=limit, spool=settings.data, device=settings.device)
