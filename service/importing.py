"""Predictions of models that were trained elsewhere: read, joined to the images, scored, stored."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from etl import NamedImages, PlacedImages, add_images
from etl.command import few
from etl.predictions import PredictionFile, read_predictions
from models.gap import TestSet
from models.gap.scores import scores_of_answers
from service.database import Database, place_of
from service.errors import DataChanged, ModelExists, UnusedOption
from service.evaluations import SEED, prediction_table, records_of
from service.looks import Look, Looks
from service.results import IMPORTED, Results
from service.terminal import Progress

LEARNT_FROM = (
    "unknown: it was trained elsewhere, so nothing here can tell whether it learnt from images of "
    "these test splits"
)


@dataclass(frozen=True)
class ImportReport:
    """What an import did.

    Attributes
    ----------
    cards : of the models, in the order of their columns
    top1 : accuracy of each model on each split that it has
    files : the predictions on each split, as read
    placed : its images in the database
    notes : what was passed over
    """

    cards: list[dict[str, Any]]
    top1: dict[str, dict[str, float]]
    files: dict[str, PredictionFile]
    placed: dict[str, PlacedImages]
    notes: list[str]


def import_predictions(
    data: Path,
    files: Mapping[str, Path],
    *,
    model: str | None,
    images: Mapping[str, Path] | None = None,
    replace: bool = False,
    n_threads: int | None = None,
    progress: Progress = lambda _share, _message: None,
) -> ImportReport:
    """Make models of predictions; images that the database has not seen are added to it.

    Everything is read and checked before anything is written: the images first, then one model
    after the other.

    Parameters
    ----------
    data
        The data folder; a database is made where there is none.
    files
        The predictions on each test split (see `etl.predictions.read_predictions`).
    model
        Name of the one model; None: each column is the model of its name.
    images
        For splits whose file has neither paths nor labels: the table that has, rows in one order.
    replace
        Whether imported models of the same names are replaced; a model trained here never is.

    Raises
    ------
    etl.LoadRefused
        A file, an image or a label is wrong: see `etl.predictions` and `etl.adding`.
    BadName, ModelExists, UnusedOption
    """
    began = datetime.now(UTC)
    results = Results(data)
    beside = images or {}
    unused = [split for split in beside if split not in files]
    if unused:
        raise UnusedOption(
            f"wanted predictions on the split of --images, got none on {unused[0]!r}. Give "
            f"{unused[0]}=FILE too, or leave its images out."
        )
    if model is not None:
        _check_names(results, [model], replace)
    read = {}
    for i, (split, file) in enumerate(files.items()):
        progress(0.3 * i / len(files), f"reading {file.name}")
        read[split] = read_predictions(split, file, model=model, images=beside.get(split))
    names = list(dict.fromkeys(name for found in read.values() for name in found.answers))
    _check_names(results, names, replace)
    for split, found in read.items():
        for name in found.answers:
            Looks(data).record(Look(name, "import"), split, found.n_rows)
    progress(0.3, "finding the images")
    asked = {s: NamedImages(found.images, found.paths, found.labels) for s, found in read.items()}
    placed = add_images(data, asked, n_threads=n_threads)
    cards, top1 = [], {}
    for i, name in enumerate(names):
        progress(0.5 + 0.5 * i / len(names), name)
        mine = {split: found for split, found in read.items() if name in found.answers}
        card, top1[name] = _store(results, name, mine, placed, began, replace=replace)
        cards.append(card)
    return ImportReport(cards, top1, read, placed, _notes(read, placed, names))


def splits_imported(card: Mapping[str, Any]) -> Collection[str]:
    """Return the splits that an imported model has predictions on; none of one trained here."""
    imported = card.get("imported")
    return () if imported is None else tuple(imported["splits"])


def refuse_changed_images(
    database: Database, results: Results, model: str, splits: Collection[str]
) -> None:
    """Refuse an imported model whose images are gone or have another label now.

    Raises
    ------
    DataChanged
    """
    if not splits:
        raise DataChanged(
            f"wanted the images that {model!r} was imported with, but the database holds none of "
            "their splits any more. Import the predictions again with --replace."
        )
    for split in splits:
        look = Look(model, "compare")
        stored = results.predictions(model, split, look=look)
        present = database.images(split, look=look)
        place = place_of(stored["path"].combine_chunks(), present["path"])
        n_gone = place.null_count
        now = present["class_id"].take(place)
        differ = np.flatnonzero(now.to_numpy() != stored["class_id"].to_numpy())
        if len(differ):
            first = int(differ[0])
            is_gone = not place[first].is_valid
            came = "gone" if is_gone else f"labelled {now[first].as_py()}"
            raise DataChanged(
                f"wanted the images of {split!r} as {model!r} was imported with them, but "
                f"{stored['path'][first].as_py()!r} with label {stored['class_id'][first].as_py()} "
                f"is {came} now ({n_gone:,} gone, {len(differ) - n_gone:,} labelled otherwise). "
                "Import the predictions again with --replace."
            )


def stored_answers(results: Results, model: str, split: str) -> TestSet:
    """Return a test set as an imported model sees it: right or wrong, without features."""
    stored = results.predictions(model, split, look=Look(model, "gap"))
    labels = stored["class_id"].to_numpy().astype(np.int64)
    return TestSet(labels, stored["is_correct"].to_numpy())


def _check_names(results: Results, names: list[str], replace: bool) -> None:
    for name in names:
        results.check_name(name)
        if results.has(name) and not (replace and results.is_imported(name)):
            todo = (
                "Replace it with --replace, or choose another name."
                if results.is_imported(name)
                else "It was trained here, and --replace replaces imported ones alone: choose "
                "another name."
            )
            raise ModelExists(f"wanted a new name, got {name!r}, which is taken. {todo}")


def _store(
    results: Results,
    model: str,
    files: Mapping[str, PredictionFile],
    placed: Mapping[str, PlacedImages],
    began: datetime,
    *,
    replace: bool,
) -> tuple[dict[str, Any], dict[str, float]]:
    """Score one model and store it; return its card and its accuracy on each split."""
    tables, records, top1, splits = [], [], {}, {}
    classes: set[int] = set()
    for found in files.values():
        classes |= {*np.unique(found.labels), *np.unique(found.answers[model].predicted)}
    for split, found in files.items():
        there = placed[split]
        is_known = np.array([path is not None for path in there.paths], bool)
        said = found.answers[model].of(is_known)
        labels = found.labels[is_known]
        scores = scores_of_answers(
            said.predicted == labels,
            in_top5=said.in_top5,
            confidence=said.confidence,
            n_classes=len(classes),
            seed=SEED,
        )
        records += records_of(model, split, found.sha256, scores)
        tables.append(
            prediction_table(
                model,
                split,
                there.paths[is_known],
                labels,
                said.predicted,
                confidence=said.confidence,
                in_top5=said.in_top5,
            )
        )
        top1[split] = scores.top1.estimate or 0.0
        splits[split] = {
            "file": found.file.name,
            "sha256": found.sha256,
            "n_rows": found.n_rows,
            "n_repeated": found.n_repeated,
            "n_matched": there.n_matched,
            "n_new": there.n_new,
            "n_ambiguous": there.n_ambiguous,
            "has_top5": said.in_top5 is not None,
            "has_confidence": said.confidence is not None,
        }
    card: dict[str, Any] = {
        "model": model,
        "backbone": None,
        "head": IMPORTED,
        "params": {},
        "seed": None,
        "n_train": None,
        "n_classes": len(classes),
        "n_features": None,
        "validation": None,
        "train_sha256": [],
        "seconds_s": None,
        "created_at": began.isoformat(timespec="milliseconds").removesuffix("+00:00"),
        "imported": {"splits": splits, "learnt_from": LEARNT_FROM},
    }
    results.save_imported(card, records, pa.concat_tables(tables), replace=replace)
    return card, top1


def _notes(
    files: Mapping[str, PredictionFile], placed: Mapping[str, PlacedImages], names: list[str]
) -> list[str]:
    notes = []
    for split, found in files.items():
        if found.passed_over:
            notes.append(f"{split}: columns passed over: {', '.join(found.passed_over)}")
        missing = [name for name in names if name not in found.answers]
        if missing:
            notes.append(f"{split}: no predictions of {', '.join(missing)}")
        if placed[split].n_ambiguous:
            some = few(placed[split].ambiguous, placed[split].n_ambiguous)
            notes.append(f"{split}: left out, since they fit no single image: {some}")
        if placed[split].n_matched and placed[split].n_new:
            notes.append(
                f"{split}: {placed[split].n_new:,} images are new beside those that were there; "
                "where they should be the same ones, correct the paths, load the features again "
                "with --replace and import anew"
            )
    return notes
