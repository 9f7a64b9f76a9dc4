"""A data folder in which nothing is computed yet, over the data and the heads of another one.

    .new-<id>/afresh/    beside the models that it takes; gone when it was used

Database, annotations, published lines and heads are the very files of the other folder, by links.
Scores and predictions are made anew from them; answers about gaps and nearest rows are not there,
so that whoever asks has them computed.
"""

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from etl.database import DATABASE, HYPOTHESES, LOOKS, RESULTS, SEALS
from etl.errors import LoadRefused
from etl.sidecar import ANNOTATIONS, IMAGES
from models.errors import ModelError
from models.gap.scores import scores_of_answers
from models.heads import pack
from service.analysis import Analysis
from service.errors import BadReport, DataChanged, ServiceError
from service.evaluations import SEED, records_of
from service.lines import FOLDER as LINES
from service.looks import Look
from service.results import HEAD_FILE, IMPORTED, Results
from service.schemas import NAME, Answer, ModelOut
from service.terminal import Progress, part_of

_SHARED = (DATABASE, ANNOTATIONS, IMAGES, LINES)
# records that grow: copied, so that nothing is added to those of the other folder
REGISTERS = (HYPOTHESES, SEALS, *(Path(f).with_suffix(".head").name for f in (HYPOTHESES, SEALS)))
# what a model is: all that its numbers can be computed from
MODEL_FILES = (HEAD_FILE, "train_rows.parquet", "features.json", "curves.json")
SELF_TESTS = "selftest.*.json"
_CARD, _SCORES, _ANSWERS = "model.json", "evaluation.json", "predictions.parquet"
_REFUSALS = (ServiceError, LoadRefused, ModelError)


class RetrainedOut(Answer):
    """A head that was trained anew by its card, beside the stored one."""

    model: str
    same: bool | None = None
    largest_difference: float | None = None
    reason: str | None = None
    sentence: str


@dataclass
class Afresh:
    """The folder, and what was made anew in it.

    Attributes
    ----------
    analysis : of the folder
    retrained : the heads that were trained anew; none unless that was asked for
    rescored : models whose scores were made anew from features, labels and head
    read : of the others, the model, and what was read of it or why nothing was computed
    """

    analysis: Analysis
    retrained: list[RetrainedOut]
    rescored: list[str]
    read: list[tuple[str, str]]


@contextmanager
def afresh(
    analysis: Analysis, *, results: Path | None, retrain: bool, progress: Progress
) -> Iterator[Afresh]:
    """Give such a folder as long as the block lasts.

    Parameters
    ----------
    analysis
        Of the folder with the data.
    results
        A folder of models and records, as a bundle has one; default: that of the data folder.
    retrain
        Whether every head that was trained from loaded features is trained anew.

    Raises
    ------
    NoDatabase, BadReport, DataChanged
        Something was loaded meanwhile.
    """
    with analysis.database.connect():
        pass  # without a database there is nothing to compute from: say that first
    if results is not None and not results.is_dir():
        raise BadReport(
            f"wanted the folder {RESULTS}/ of a bundle, got {results}, which is no folder. Unpack "
            "the bundle, and name it there."
        )
    state = analysis.database.version
    with analysis.results.held() as held:
        data = held / "afresh"
        data.mkdir()
        for name in _SHARED:
            if (analysis.data / name).exists():
                (data / name).symlink_to((analysis.data / name).resolve())
        source = analysis.data / RESULTS if results is None else results
        models = _lay_out(data / RESULTS, source, analysis.data / RESULTS)
        fresh = Analysis(data, replace(analysis.resources, spool=data), strict=False)
        made = Afresh(fresh, [], [], [])
        if retrain:
            _retrain(made, models, part_of(progress, 0.0, 0.7))
        _rescore(made, models, source, part_of(progress, 0.7 if retrain else 0.0, 1.0))
        # what was read with these models before may be read again; whatever else needs its seal
        fresh.strict = analysis.strict
        yield made
        if analysis.database.version != state:
            raise DataChanged(
                "wanted the data to stay as they are, got a load meanwhile. Try again."
            )


def _lay_out(place: Path, source: Path, mine: Path) -> list[str]:
    """Link the heads of `source` into a fresh folder of results; the names of the models."""
    place.mkdir()
    (mine / LOOKS).touch()
    (place / LOOKS).symlink_to((mine / LOOKS).resolve())  # every look is logged where it belongs
    for name in (HYPOTHESES, SEALS):
        (place / name).touch()
    for name in REGISTERS:
        if _is_plain(source / name):
            shutil.copyfile(source / name, place / name)
    if (mine / "_empty").is_dir():
        shutil.copytree(mine / "_empty", place / "_empty")
    models = []
    for card in sorted(source.glob(f"*/{_CARD}")):
        folder = card.parent
        if not re.fullmatch(NAME, folder.name) or folder.is_symlink() or not _is_plain(card):
            continue
        _check(card)
        (place / folder.name).mkdir()
        for name in (_CARD, *MODEL_FILES):
            _link(folder / name, place / folder.name)
        for file in folder.glob(SELF_TESTS):
            _link(file, place / folder.name)
        models.append(folder.name)
    return models


def _check(card: Path) -> None:
    """Refuse a card that is none: it may be a file from elsewhere.

    Raises
    ------
    BadReport
    """
    try:
        told = ModelOut.model_validate_json(card.read_bytes())
    except ValidationError as error:
        fault = error.errors()[0]
        raise BadReport(
            f"wanted the card of a model in {card.parent.name}/{_CARD}, got "
            f"{'.'.join(map(str, fault['loc'])) or 'text'}: {fault['msg']}. Unpack it again."
        ) from error
    if told.model != card.parent.name:
        raise BadReport(
            f"wanted the card of {card.parent.name!r} in its folder, got that of "
            f"{told.model[:100]!r}. Unpack the bundle again."
        )


def _is_plain(file: Path) -> bool:
    return file.is_file() and not file.is_symlink()


def _link(file: Path, folder: Path) -> None:
    if _is_plain(file):
        (folder / file.name).symlink_to(file.resolve())


def _retrain(made: Afresh, models: list[str], progress: Progress) -> None:
    """Train every head anew that was trained from loaded features, in place of the stored one."""
    aside = made.analysis.data / "stored"
    for i, model in enumerate(models):
        card = made.analysis.results.card(model)
        if card["validation"] is None:
            continue  # imported, given, or between two others: there is no training
        if card.get("left_out"):
            reason = "which train rows it left out is not stored, only how many"
            made.retrained.append(_not_retrained(model, reason))
            continue
        old = _arrays(made.analysis.results, model)
        fresh = made.analysis.data / RESULTS / model
        fresh.rename(aside)
        asked = card.get("asked") or {"head": card["head"], "params": card["params"]}
        try:
            new = made.analysis.train(
                model=model,
                backbone=card["backbone"],
                head=asked["head"],
                params=asked["params"],
                seed=card["seed"],
                without=card.get("without", ()),
                progress=part_of(
                    progress, i / len(models), (i + 1) / len(models), prefix=f"{model}: "
                ),
            )
        except _REFUSALS as error:
            aside.rename(fresh)
            made.retrained.append(_not_retrained(model, str(error)))
            continue
        # when it was trained and what it was trained for stay as they were told
        kept = {name: card[name] for name in ("created_at", "seconds_s")}
        (fresh / _CARD).write_text(json.dumps(card | new | kept), encoding="utf-8")
        for file in aside.glob(SELF_TESTS):
            file.rename(fresh / file.name)
        shutil.rmtree(aside)
        made.retrained.append(_compared(model, old, pack(made.analysis.results.head(model))[0]))


def _arrays(results: Results, model: str) -> dict[str, np.ndarray] | str:
    """Return the arrays of a stored head, or why there are none."""
    try:
        return pack(results.head(model))[0]
    except FileNotFoundError:
        return "its head is not here"
    except ServiceError as error:
        return str(error)


def _not_retrained(model: str, reason: str) -> RetrainedOut:
    return RetrainedOut(
        model=model, reason=reason, sentence=f"{model}: not trained anew: {reason}."
    )


def _compared(
    model: str, old: dict[str, np.ndarray] | str, new: dict[str, np.ndarray]
) -> RetrainedOut:
    if isinstance(old, str):
        return RetrainedOut(
            model=model,
            reason=old,
            sentence=f"{model}: trained anew, not compared: {old}.",
        )
    shapes = [{name: array.shape for name, array in arrays.items()} for arrays in (old, new)]
    if shapes[0] != shapes[1]:
        return RetrainedOut(
            model=model, same=False, reason="arrays of other shapes",
            sentence=f"{model}: trained anew; its head has arrays of other shapes than the stored.",
        )  # fmt: skip
    if all(np.array_equal(old[name], new[name], equal_nan=True) for name in old):
        return RetrainedOut(
            model=model, same=True, largest_difference=0.0,
            sentence=f"{model}: trained anew; its weights are the stored ones, bit for bit.",
        )  # fmt: skip
    largest = max(
        float(np.nanmax(np.abs(old[name].astype(float) - new[name].astype(float)), initial=0.0))
        for name in old
    )
    return RetrainedOut(
        model=model,
        same=False,
        largest_difference=largest,
        sentence=f"{model}: trained anew; its weights differ from the stored ones by up to "
        f"{largest:.2g}.",
    )


def _rescore(made: Afresh, models: list[str], source: Path, progress: Progress) -> None:
    """Score every model anew that was scored; where that cannot be done, read what is stored."""
    results = made.analysis.results
    for i, model in enumerate(models):
        step = part_of(progress, i / len(models), (i + 1) / len(models), prefix=f"{model}: ")
        folder, fresh = source / model, made.analysis.data / RESULTS / model
        card = results.card(model)
        if card["head"] != IMPORTED and not (fresh / HEAD_FILE).exists():
            shutil.rmtree(fresh)
            made.read.append((model, "left out: its head is not here; --retrain trains it"))
            continue
        if not _is_plain(folder / _SCORES):
            continue
        if card["head"] == IMPORTED:
            _link(folder / _ANSWERS, fresh)
            try:
                records = json.loads((folder / _SCORES).read_text(encoding="utf-8"))
                again = _scored_again(results, card, records)
            except (KeyError, TypeError, ValueError, OSError) as error:
                raise BadReport(
                    f"wanted predictions and scores of {model!r} as they were stored, got: "
                    f"{str(error)[:200]}. Unpack the bundle again, or import them again."
                ) from error
            (fresh / _SCORES).write_text(json.dumps(again))
            made.read.append(
                (model, "its predictions were read, as imported; its scores computed from them")
            )
            continue
        try:
            made.analysis.evaluate(model, progress=step)
            made.rescored.append(model)
        except _REFUSALS as error:
            for name in (_SCORES, _ANSWERS):
                _link(folder / name, fresh)
            made.read.append((model, f"its predictions and scores were read: {error}"))


def _scored_again(
    results: Results, card: dict[str, Any], records: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Compute the scores of an imported model from its stored predictions."""
    found: list[dict[str, Any]] = []
    for split, sha256 in {r["split"]: r["data_sha256"] for r in records}.items():
        stored = results.predictions(card["model"], split, look=Look(card["model"], "evaluate"))
        top5, sure = stored["is_in_top5"], stored["confidence"]
        scores = scores_of_answers(
            stored["is_correct"].to_numpy(),
            in_top5=None if top5.null_count else top5.to_numpy(),
            confidence=None if sure.null_count else sure.to_numpy(),
            n_classes=card["n_classes"],
            seed=SEED,
        )
        found += records_of(card["model"], split, sha256, scores)
    return found
