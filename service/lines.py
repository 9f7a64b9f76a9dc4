"""Published models' accuracies on two test splits: `lines/<name>.csv` in the data folder.

    model,reference,target,reference_accuracy,target_accuracy

One row a model; the names of both splits stand in every row, accuracies are fractions. A file is
there whole or not at all; to forget a line is to delete its file.
"""

import argparse
import csv
import os
import re
import sys
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from etl.covariates import read_table
from etl.sources import gap_ends
from models.gap.line import LEAST_ROWS
from service.database import Database
from service.errors import BadLine, BadName, NotATest, NotFound, UnusedOption
from service.schemas import NAME
from service.settings import Settings

FOLDER = "lines"
_COLUMNS = ("model", "reference", "target", "reference_accuracy", "target_accuracy")
_NAMES = ("model", "name")
_SIZE = "img_size"  # timm scores one model at several sizes: a row is a pair of both
_ACCURACY = "top1"
_MISSING = {"", "na", "nan", "n/a", "null", "none"}
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f]")
_LONGEST = 200


@dataclass(frozen=True)
class StoredLine:
    """Models with their accuracy on two splits.

    Attributes
    ----------
    name : of the line
    reference, target : the splits
    models : their names
    reference_accuracy, target_accuracy : fractions above 0 and below 1, float64 [n]
    """

    name: str
    reference: str
    target: str
    models: list[str]
    reference_accuracy: np.ndarray
    target_accuracy: np.ndarray


@dataclass(frozen=True)
class Added:
    """What became of a file.

    Attributes
    ----------
    line : as stored
    n_left_out : rows without one of the two accuracies
    in_percent : whether the file has percent
    """

    line: StoredLine
    n_left_out: int
    in_percent: bool


class Lines:
    """The lines of one data folder."""

    def __init__(self, data: Path) -> None:
        self._data = data
        self._folder = data / FOLDER

    def all(self) -> list[StoredLine]:
        """Return every line, by name.

        Raises
        ------
        BadLine
            A file is not as it was written.
        """
        return [self.read(file) for file in self.files()]

    def read(self, file: Path) -> StoredLine:
        """Return the line in one of the files.

        Raises
        ------
        BadLine
            It is not as it was written.
        """
        return _read(file)

    def between(self, reference: str, target: str) -> list[StoredLine]:
        """Return the lines of one pair of splits, by name.

        Raises
        ------
        BadLine
        """
        return [one for one in self.all() if (one.reference, one.target) == (reference, target)]

    def state(self) -> list[tuple[str, int, int]]:
        """Return what tells the present lines from all others: files, sizes, times."""
        found = [(file.name, file.stat()) for file in self.files()]
        return [(name, stat.st_size, stat.st_mtime_ns) for name, stat in found]

    def add(
        self,
        files: Sequence[Path],
        *,
        name: str,
        reference: str | None = None,
        target: str | None = None,
        columns: Sequence[str] | None = None,
        replace: bool = False,
    ) -> Added:
        """Store a line from one file with both accuracies, or from two with one each.

        Parameters
        ----------
        files
            CSV or Parquet. Two are joined by model, and by image size where both have it.
        name
            Of the line.
        reference, target
            The splits; default: those of the load.
        columns
            Names of the two columns of accuracies.
        replace
            Whether it takes the place of a line of the same name.

        Raises
        ------
        BadLine, BadName, NotFound, NotATest, UnusedOption, etl.errors.LoadRefused
        """
        if not re.fullmatch(NAME, name):
            raise BadName(
                "wanted a name of up to 100 letters, digits, points, hyphens and underscores that "
                f"begins with a letter or digit, got {name!r}."
            )
        if len(files) > 2:
            raise UnusedOption(f"wanted one file, or one for each split, got {len(files)}.")
        place = self._folder / f"{name}.csv"
        if place.exists() and not replace:
            raise BadLine(
                f"wanted a new name, got {name!r}, which is a line already. Choose another, or "
                "say --replace."
            )
        ends = self._ends(reference, target)
        values = (
            _of_one(files[0], columns or ends, is_named=columns is not None)
            if len(files) == 1
            else _of_two(files, columns)
        )
        whole = {model: pair for model, pair in values.items() if None not in pair}
        n_left_out = len(values) - len(whole)
        if len(whole) < LEAST_ROWS:
            raise BadLine(
                f"wanted at least {LEAST_ROWS} models with both accuracies, got {len(whole)} in "
                f"{_named(files)}."
            )
        table = np.array(list(whole.values()), float)
        in_percent = bool(table.max() > 1)
        table = np.round(table / 100 if in_percent else table, 12)
        _check_range(list(whole), table, files, in_percent=in_percent)
        line = StoredLine(name, *ends, list(whole), table[:, 0], table[:, 1])
        self._write(place, line)
        return Added(line, n_left_out, in_percent)

    def _ends(self, reference: str | None, target: str | None) -> tuple[str, str]:
        database = Database(self._data)
        if database.exists:
            rows = database.rows("select split, role, is_reference from split order by load_order")
            tests = [row["split"] for row in rows if row["role"] == "test"]
            odd = next((s for s in (reference, target) if s is not None and s not in tests), None)
            if odd is not None:
                raise NotFound(
                    f"wanted a loaded test split ({', '.join(tests) or 'none'}), got {odd!r}."
                )
            marked = next((row["split"] for row in rows if row["is_reference"]), None)
            first, _ = gap_ends(tests, marked)
            others = [split for split in tests if split != (reference or first)]
            reference = reference or first
            target = target or (others[0] if len(others) == 1 else None)
        if reference is None or target is None or reference == target:
            raise NotATest(
                "wanted the two test splits of the accuracies (--reference NAME --target NAME), "
                f"got reference {reference!r} and target {target!r}."
            )
        return reference, target

    def files(self) -> list[Path]:
        """Return the file of every line, by name."""
        found = self._folder.glob("*.csv")
        return sorted(file for file in found if re.fullmatch(NAME, file.stem))

    def _write(self, place: Path, line: StoredLine) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        new = place.with_name(f".{uuid.uuid4().hex[:8]}")
        try:
            with new.open("w", encoding="utf-8", newline="") as stream:
                writer = csv.writer(stream)
                writer.writerow(_COLUMNS)
                for model, *pair in zip(
                    line.models,
                    line.reference_accuracy.tolist(),
                    line.target_accuracy.tolist(),
                    strict=True,
                ):
                    writer.writerow([model, line.reference, line.target, *pair])
            os.replace(new, place)  # noqa: PTH105 (the one word for it)
        finally:
            new.unlink(missing_ok=True)


def run_add(arguments: argparse.Namespace, settings: Settings) -> None:
    """Store a line, and print what was stored."""
    added = Lines(settings.data).add(
        arguments.files,
        name=arguments.name,
        reference=arguments.reference,
        target=arguments.target,
        columns=arguments.columns,
        replace=arguments.replace,
    )
    line = added.line
    sys.stdout.write(
        f"{line.name}: {len(line.models):,} models on {line.reference} "
        f"({_span(line.reference_accuracy)}) and {line.target} ({_span(line.target_accuracy)}), "
        f"read as {'percent' if added.in_percent else 'fractions'}\n"
    )
    if added.n_left_out:
        sys.stdout.write(f"note: {added.n_left_out:,} rows lack one of the two accuracies\n")


def _span(accuracy: np.ndarray) -> str:
    return f"{accuracy.min():.1%} to {accuracy.max():.1%}"


def _of_one(
    file: Path, wanted: Sequence[str], *, is_named: bool
) -> dict[str, tuple[float | None, float | None]]:
    """Both accuracies of each model in a file; columns as named, as the splits, or the only two."""
    table, _ = read_table(file)
    name, size = _name_column(table, file)
    found = list(wanted)
    if not all(column in table.column_names for column in wanted):
        others = [column for column in table.column_names if column not in (name, size)]
        if is_named or len(others) != 2:
            raise BadLine(
                f"wanted columns {' and '.join(map(repr, wanted))} with the accuracies in "
                f"{file.name}, got {', '.join(map(repr, others[:12])) or 'none'}. Name two of them "
                "with --columns."
            )
        found = others
    keys = _keys(table, name, size, file)
    pairs = [_numbers(table, column, file) for column in found]
    return _once(_shown(keys), list(zip(*pairs, strict=True)), file)


def _of_two(
    files: Sequence[Path], columns: Sequence[str] | None
) -> dict[str, tuple[float | None, float | None]]:
    """Both accuracies of each model that is in both files."""
    tables = [read_table(file)[0] for file in files]
    names = [_name_column(table, file) for table, file in zip(tables, files, strict=True)]
    with_size = all(size is not None for _, size in names)
    sides = []
    for i, (table, file, (name, size)) in enumerate(zip(tables, files, names, strict=True)):
        others = [column for column in table.column_names if column not in (name, size)]
        wanted = columns[i] if columns else others[0] if len(others) == 1 else _ACCURACY
        if wanted not in table.column_names:
            raise BadLine(
                f"wanted a column {wanted!r} with the accuracies in {file.name}, got "
                f"{', '.join(map(repr, others[:12])) or 'none'}. Name one of each file with "
                "--columns."
            )
        keys = _keys(table, name, size if with_size else None, file)
        sides.append(_once(keys, _numbers(table, wanted, file), file))
    both = [key for key in sides[0] if key in sides[1]]
    return dict(zip(_shown(both), [(sides[0][key], sides[1][key]) for key in both], strict=True))


def _name_column(table: pa.Table, file: Path) -> tuple[str, str | None]:
    names = table.column_names
    found = next((name for name in names if name.strip().lower() in _NAMES), None)
    if found is None:
        raise BadLine(
            f"wanted a column model with the models' names in {file.name}, got "
            f"{', '.join(map(repr, names[:12])) or 'none'}. Rename it."
        )
    return found, _SIZE if _SIZE in names else None


def _keys(table: pa.Table, name: str, size: str | None, file: Path) -> list[tuple[str, str]]:
    models = [str(cell).strip() for cell in table[name].to_pylist()]
    for i, model in enumerate(models):
        if not model or len(model) > _LONGEST or _UNPRINTABLE.search(model):
            raise BadLine(
                f"{file.name}, row {i + 1}, column {name!r}: wanted a name of at most {_LONGEST} "
                f"printable characters, got {model[:40]!r}."
            )
    sizes = [""] * len(models) if size is None else [str(one) for one in table[size].to_pylist()]
    return list(zip(models, sizes, strict=True))


def _shown(keys: Sequence[tuple[str, str]]) -> list[str]:
    """Names of models, with the image size where one stands there at several sizes."""
    sizes = Counter(model for model, _ in dict.fromkeys(keys))
    return [f"{model} at {size}" if sizes[model] > 1 else model for model, size in keys]


def _numbers(table: pa.Table, column: str, file: Path) -> list[float | None]:
    found: list[float | None] = []
    for i, cell in enumerate(table[column].to_pylist()):
        text = "" if cell is None else str(cell).strip().rstrip("%").strip()
        if text.lower() in _MISSING:
            found.append(None)
            continue
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not 0 < value < 100:
            raise BadLine(
                f"{file.name}, row {i + 1}, column {column!r}: wanted an accuracy above 0 and "
                f"below 100 %, got {str(cell)[:40]!r}. Correct it, or leave the row out."
            )
        found.append(value)
    return found


def _once(keys: Sequence[Any], values: Sequence[Any], file: Path) -> dict[Any, Any]:
    """Value of each key; the same row twice is one row, two different ones are refused."""
    found: dict[Any, Any] = {}
    for key, value in zip(keys, values, strict=True):
        if found.setdefault(key, value) != value:
            shown = " at ".join(part for part in key if part) if isinstance(key, tuple) else key
            raise BadLine(
                f"wanted each model once in {file.name}, got {shown!r} with different accuracies. "
                "Give the rows different names, or remove one."
            )
    return found


def _check_range(
    models: list[str], table: np.ndarray, files: Sequence[Path], *, in_percent: bool
) -> None:
    """Refuse columns of which one is percent and the other is fractions."""
    tops = table.max(axis=0)
    if in_percent and tops.min() <= 0.01:
        raise BadLine(
            f"wanted both columns of accuracies in percent, or both as fractions, in "
            f"{_named(files)}, got one whose largest is {100 * tops.min():g}."
        )
    if (table >= 1).any():
        odd = models[int(np.argmax((table >= 1).any(axis=1)))]
        raise BadLine(f"wanted accuracies below 100 %, got {odd!r} with all images right.")


def _named(files: Sequence[Path]) -> str:
    return " and ".join(file.name for file in files)


def _read(file: Path) -> StoredLine:
    try:
        with file.open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
        ends = {(row["reference"], row["target"]) for row in rows}
        values = [[float(row[name]) for name in _COLUMNS[3:]] for row in rows]
        models = [row["model"] for row in rows]
        ((reference, target),) = ends
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise _changed(file) from error
    table = np.array(values)
    if len(table) < LEAST_ROWS or not ((table > 0) & (table < 1)).all():
        raise _changed(file)
    return StoredLine(file.stem, reference, target, models, table[:, 0], table[:, 1])


def _changed(file: Path) -> BadLine:
    return BadLine(
        f"wanted {FOLDER}/{file.name} as it was stored, got another content. Add it again with "
        "--replace, or delete it."
    )
