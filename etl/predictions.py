"""What models that were trained elsewhere say of the images of one split: files to arrays."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from etl.cells import labels_of, paths_of
from etl.covariates import SPLIT, read_table
from etl.errors import (
    BadConfidence,
    EmptyFile,
    HeaderMismatch,
    LabelConflict,
    PredictionConflict,
    RowCount,
    SourceName,
)
from etl.header import LABEL, PATH

TOP = ("top1", "top2", "top3", "top4", "top5")
CONFIDENCE = "confidence"
_MODELS_SHOWN = 5


@dataclass(frozen=True)
class Answers:
    """What one model says of n images.

    Attributes
    ----------
    predicted : int64 [n], class
    in_top5 : bool [n], whether the label is among its five first; None where the file does not say
    confidence : float64 [n], probability of the predicted class; None where the file does not say
    """

    predicted: np.ndarray
    in_top5: np.ndarray | None = None
    confidence: np.ndarray | None = None

    def of(self, rows: np.ndarray) -> "Answers":
        """Return the answers for some of the images, bool [n]."""
        return Answers(
            self.predicted[rows],
            None if self.in_top5 is None else self.in_top5[rows],
            None if self.confidence is None else self.confidence[rows],
        )


@dataclass(frozen=True)
class PredictionFile:
    """The predictions of one or more models on one split.

    Attributes
    ----------
    file : the file with the predictions
    sha256 : digest of its bytes
    images : the file with paths and labels: the same one, or the one beside it
    paths : string [n], each once
    labels : int64 [n]
    answers : what each model says, by its name
    n_rows : rows in the file
    n_repeated : rows that say again what another row says
    passed_over : columns that mean nothing here
    """

    file: Path
    sha256: str
    images: Path
    paths: pa.StringArray
    labels: np.ndarray
    answers: dict[str, Answers]
    n_rows: int
    n_repeated: int
    passed_over: tuple[str, ...]


def read_predictions(
    split: str, file: Path, *, model: str | None, images: Path | None = None
) -> PredictionFile:
    """Read the predictions on one split from CSV or Parquet.

    Parameters
    ----------
    model
        Name of the one model with columns top1 [top2 … top5] [confidence]; None: every column
        beside path and label is the model of that name, with the predicted class.
    images
        A table with path and label whose rows are in the order of those of `file`, which then has
        neither.

    Raises
    ------
    LoadRefused
        What `etl.covariates.read_table` refuses; a column that is missing; a path, label, class or
        confidence that is none; another number of rows than images; rows of another split; two rows
        of one image that differ.
    """
    table, _ = read_table(file)
    beside = table if images is None else read_table(images)[0]
    place = images or file
    _refuse_missing(beside, (PATH, LABEL), place)
    if images is not None:
        _refuse_twofold(table, beside, file, images)
    if table.num_rows == 0:
        raise EmptyFile("rows after the header", "none", "Export it again.", file=file)
    for part, origin in ((table, file), (beside, place)):
        _refuse_other_split(part, split, origin)
    paths = paths_of(place, beside[PATH], 0)
    labels = labels_of(place, beside[LABEL], 0)
    rest = [name for name in table.column_names if name not in (PATH, LABEL, SPLIT)]
    if model is None:
        answers = {name: Answers(labels_of(file, table[name], 0, name)) for name in rest}
        used = rest
    else:
        _refuse_missing(table, TOP[:1], file)
        used = [name for name in (*TOP, CONFIDENCE) if name in rest]
        answers = {model: _answers(table, labels, paths, used, file)}
    if not answers:
        raise HeaderMismatch(
            "a column for each model", "none", "Add one with its classes.", file=file, line=1
        )
    n = len(paths)
    paths, labels, answers = _each_once(paths, labels, answers, file)
    with file.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    return PredictionFile(
        file=file,
        sha256=sha256,
        images=place,
        paths=paths,
        labels=labels,
        answers=answers,
        n_rows=n,
        n_repeated=n - len(paths),
        passed_over=tuple(name for name in rest if name not in used),
    )


def _refuse_missing(table: pa.Table, wanted: tuple[str, ...], file: Path) -> None:
    missing = [name for name in wanted if name not in table.column_names]
    if missing:
        raise HeaderMismatch(
            f"a column {missing[0]}",
            ", ".join(repr(name) for name in table.column_names[:_MODELS_SHOWN]) or "none",
            "Rename the column; predictions without paths need --images SPLIT=FILE with path and "
            "label, one model a column --columns.",
            file=file,
            line=1,
        )


def _refuse_twofold(table: pa.Table, beside: pa.Table, file: Path, images: Path) -> None:
    twice = [name for name in (PATH, LABEL) if name in table.column_names]
    if twice:
        raise HeaderMismatch(
            f"{twice[0]} in {images.name} alone",
            "it in both files",
            "Leave out --images, or the column.",
            file=file,
            line=1,
        )
    if table.num_rows != beside.num_rows:
        raise RowCount(
            f"{beside.num_rows:,} rows, as {images.name} has",
            f"{table.num_rows:,}",
            "The rows of both must be the same images in the same order.",
            file=file,
        )


def _refuse_other_split(table: pa.Table, split: str, file: Path) -> None:
    if SPLIT in table.column_names:
        named = [name for name in table[SPLIT].unique().to_pylist() if name not in (None, "")]
        others = [name for name in named if name != split]
        if others:
            raise SourceName(
                f"rows of split {split!r} alone",
                f"some of {others[0]!r}",
                "Give each split a file of its own, or correct its name in SPLIT=FILE.",
                file=file,
                column=SPLIT,
            )


def _answers(
    table: pa.Table, labels: np.ndarray, paths: pa.StringArray, used: list[str], file: Path
) -> Answers:
    top = [labels_of(file, table[name], 0, name) for name in TOP if name in used]
    ranks = np.stack(top, axis=1)
    in_order = np.sort(ranks, axis=1)
    twice = np.flatnonzero((in_order[:, 1:] == in_order[:, :-1]).any(axis=1))
    if len(twice):
        first = int(twice[0])
        raise PredictionConflict(
            f"{len(top)} different classes for an image",
            f"{', '.join(map(str, ranks[first]))} for {paths[first].as_py()!r}",
            "Write each class once.",
            file=file,
        )
    return Answers(
        predicted=top[0],
        in_top5=(ranks == labels[:, None]).any(axis=1) if len(top) == len(TOP) else None,
        confidence=_confidence(table[CONFIDENCE], paths, file) if CONFIDENCE in used else None,
    )


def _confidence(column: pa.ChunkedArray, paths: pa.StringArray, file: Path) -> np.ndarray:
    # a null and what is no number become NaN, which no comparison lets through
    values = np.asarray(pd.to_numeric(column.to_pandas(), errors="coerce"), float)
    wrong = np.flatnonzero(~((values >= 0) & (values <= 1)))
    if len(wrong):
        first = int(wrong[0])
        raise BadConfidence(
            "a probability from 0 to 1",
            f"{column[first].as_py()!r} for {paths[first].as_py()!r}",
            "Write the probability of the predicted class, or leave the column out.",
            file=file,
            column=CONFIDENCE,
        )
    return values


def _each_once(
    paths: pa.StringArray, labels: np.ndarray, answers: dict[str, Answers], file: Path
) -> tuple[pa.StringArray, np.ndarray, dict[str, Answers]]:
    """Leave out rows that say again what another says; refuse those that contradict another."""
    names = pd.Series(paths.to_pandas())
    if names.is_unique:
        return paths, labels, answers
    says = {
        f"{model} {part}": values
        for model, answer in answers.items()
        for part, values in vars(answer).items()
        if values is not None
    }
    rows = pd.DataFrame({PATH: names, LABEL: labels, **says})
    for columns, kind in (([PATH, LABEL], LabelConflict), ([*rows], PredictionConflict)):
        different = rows[columns].drop_duplicates()
        again = different[different[PATH].duplicated()]
        if len(again):
            path = again[PATH].iloc[0]
            both = different[different[PATH] == path].iloc[:2, 1:]
            name = next(name for name in both if both[name].nunique() > 1)
            raise kind(
                f"one row for each image ({name} {both[name].iloc[0]} for {path!r})",
                f"another with {both[name].iloc[1]} ({len(again):,} such rows in all)",
                "Leave one row for each image.",
                file=file,
            )
    first = (~names.duplicated()).to_numpy()
    kept = {model: answer.of(first) for model, answer in answers.items()}
    return paths.filter(pa.array(first)), labels[first], kept
