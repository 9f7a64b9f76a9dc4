"""What a cell may hold, in text and in typed columns, and which cell is the one at fault."""

import csv
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from etl.errors import (
    BadLabel,
    BadNumber,
    BadPath,
    Encoding,
    LoadRefused,
    NotFinite,
    RaggedRow,
)
from etl.header import LABEL, NUMBER, PATH, Header
from etl.kernels import FLOAT32_END

LABEL_MAX = 10**9 - 1
ROW_BYTES_MAX = 64 << 20
_LABEL = re.compile(r"[0-9]{1,9}")
_NOT_FINITE = re.compile(r"\s*[-+]?(nan|inf|infinity)\s*", re.IGNORECASE)
_CONTROL = r"[\x00-\x09\x0b-\x1f\x7f]"  # a line end inside a quoted path is data


def labels_are_sound(labels: pa.StringArray) -> bool:
    """Whether every label of an array would pass `label_fault`."""
    return pc.all(pc.match_substring_regex(labels, r"^[0-9]{1,9}$")).as_py() is not False


def paths_are_sound(paths: pa.StringArray | None) -> bool:
    """Whether every path of an array, if there is one, would pass `path_fault`."""
    return paths is None or not (
        pc.any(pc.match_substring_regex(paths, _CONTROL)).as_py()
        or pc.any(pc.equal(paths, "")).as_py()
    )


def find_fault(
    file: Path,
    header: Header,
    features: tuple[str, ...],
    letters: bytes,
    first_line: int,
    doubt: str,
) -> LoadRefused:
    """Read complete rows by the letter and say what is wrong with the first faulty one.

    Parameters
    ----------
    letters
        The rows, of which the first stands in line `first_line`.
    doubt
        What another reader complained of, for the case that no rule names a fault.
    """
    line = first_line
    last: LoadRefused = LoadRefused(
        "rows that a CSV reader understands",
        doubt,
        "Export the file again with a CSV library.",
        file=file,
        line=line,
    )
    try:
        letters.decode("utf-8")
    except UnicodeDecodeError as error:
        last = Encoding(
            "UTF-8 text",
            f"byte 0x{letters[error.start]:02x}",
            "Save the file as UTF-8.",
            file=file,
            line=line + letters.count(b"\n", 0, error.start),
        )
        letters = letters[: letters.rfind(b"\n", 0, error.start) + 1]  # the rows before it
    csv.field_size_limit(ROW_BYTES_MAX)
    # line by line, so that the reader's count is an editor's, whatever stands in a cell
    reader = csv.reader(io.StringIO(letters.decode("utf-8"), newline="\n"), strict=True)
    wanted = set(features)
    try:
        for cells in reader:
            fault = _fault_of_row(file, header, wanted, cells, line) if cells else None
            if fault is not None:
                return fault
            line = first_line + reader.line_num
    except csv.Error as error:
        return RaggedRow(
            "one row a line, quotes around whole cells",
            str(error),
            "Repair it.",
            file=file,
            line=line,
        )
    return last


def _fault_of_row(
    file: Path, header: Header, features: set[str], cells: list[str], line: int
) -> LoadRefused | None:
    if len(cells) != len(header.names):
        return RaggedRow(
            f"{len(header.names)} cells, as the header has",
            f"{len(cells)}",
            "Repair or remove the row; a file cut short ends like this too.",
            file=file,
            line=line,
        )
    for name, cell in zip(header.names, cells, strict=True):
        fault = None
        if name == LABEL:
            fault = label_fault(cell)
        elif name == PATH:
            fault = path_fault(cell)
        elif name in features:
            fault = number_fault(cell)
        if fault is not None:
            kind, wanted, came, todo = fault
            return kind(wanted, came, todo, file=file, line=line, column=name)
    return None


_Fault = tuple[type[LoadRefused], str, str, str] | None


def label_fault(cell: str) -> _Fault:
    """Why a cell is no label, or None.

    Examples
    --------
    >>> label_fault("7") is None
    True
    >>> label_fault("1.5")[2]
    "'1.5'"
    """
    if _LABEL.fullmatch(cell):
        return None
    return (
        BadLabel,
        f"a whole number from 0 to {LABEL_MAX}",
        repr(cell[:40]),
        "Labels are never rounded or trimmed: write the class number.",
    )


def path_fault(cell: str) -> _Fault:
    """Why a cell is no image path, or None."""
    if cell and not re.search(_CONTROL, cell):
        return None
    return (
        BadPath,
        "a path without control characters",
        repr(cell[:40]) if cell else "an empty cell",
        "Repair the path, or leave the column out.",
    )


def number_fault(cell: str) -> _Fault:
    """Why a cell is no feature, or None.

    Examples
    --------
    >>> number_fault("-1.5e3") is None
    True
    >>> number_fault("1_000")[0].code, number_fault("nan")[0].code, number_fault("1e39")[0].code
    ('bad_number', 'not_finite', 'not_finite')
    """
    if _NOT_FINITE.fullmatch(cell):
        came = repr(cell[:40])
        return NotFinite, "a finite number", came, "Extract this image again, or remove it."
    if not NUMBER.fullmatch(cell):
        came = repr(cell[:40]) if cell else "an empty cell"
        return BadNumber, "a number such as -1.5 or 2e-3", came, "Repair the cell."
    if abs(float(cell)) >= FLOAT32_END:
        came = repr(cell[:40])
        return NotFinite, "a number that float32 holds (below 3.4e38)", came, "Repair the cell."
    return None


def paths_of(file: Path, paths: Any, first: int) -> pa.StringArray:
    """Return paths of the images in a column, or BadPath with the row, counted from `first`."""
    found = paths.combine_chunks() if isinstance(paths, pa.ChunkedArray) else pa.array(paths)
    is_text = pa.types.is_string(found.type) or pa.types.is_large_string(found.type)
    if is_text and found.null_count == 0 and paths_are_sound(found):
        return found.cast(pa.string())
    for i, path in enumerate(found.to_pylist()):
        fault = path_fault(path if isinstance(path, str) else "")
        if fault is not None:
            kind, wanted, came, todo = fault
            raise kind(wanted, f"{came} in row {first + i}", todo, file=file, column=PATH)
    raise BadPath("paths as text", str(found.type), "Write them as strings.", file=file)


def labels_of(file: Path, labels: Any, first: int, column: str = LABEL) -> np.ndarray:
    """Return class numbers of a column, int64 [n], or BadLabel with the row, from `first` on."""
    found = labels.combine_chunks() if isinstance(labels, pa.ChunkedArray) else pa.array(labels)
    todo = "Labels are never rounded or trimmed: write the class number."
    wanted = f"a whole number from 0 to {LABEL_MAX}"
    if pa.types.is_string(found.type):
        if found.null_count or not labels_are_sound(found):
            cells = [cell or "" for cell in found.to_pylist()]
            row = next(i for i, cell in enumerate(cells) if label_fault(cell) is not None)
            came = f"{cells[row][:40]!r} in row {first + row}"
            raise BadLabel(wanted, came, todo, file=file, column=column)
        found = found.cast(pa.int64())
    if not pa.types.is_integer(found.type):
        raise BadLabel(wanted, f"{found[0]} of type {found.type}", todo, file=file, column=column)
    numbers = np.asarray(found.to_numpy(zero_copy_only=False))
    wrong = np.flatnonzero(~((numbers >= 0) & (numbers <= LABEL_MAX)))  # a null is NaN here
    if len(wrong):
        came = f"{found[int(wrong[0])]} in row {first + int(wrong[0])}"
        raise BadLabel(wanted, came, todo, file=file, column=column)
    return numbers.astype(np.int64)


def vectors_of(file: Path, matrix: np.ndarray, first: int, features: tuple[str, ...]) -> np.ndarray:
    """Return features [n, d] of rows from number `first` on as float32.

    Raises
    ------
    BadNumber, NotFinite
        With the row's number, from 0, and the column.
    """
    if matrix.dtype.kind not in "fiu":
        raise BadNumber("numbers", f"an array of {matrix.dtype}", "Write floats.", file=file)
    is_narrow = matrix.dtype.itemsize <= np.dtype(np.float32).itemsize
    # False for NaN, and for the nulls of Parquet
    is_sound = np.isfinite(matrix) if is_narrow else np.abs(matrix) < FLOAT32_END
    if not is_sound.all():
        row, j = (int(i[0]) for i in np.nonzero(~is_sound))
        raise NotFinite(
            "a finite number that float32 holds (below 3.4e38)",
            f"{matrix[row, j]} in row {first + row}",
            "Extract this image again, or remove it.",
            file=file,
            column=features[j],
        )
    return np.ascontiguousarray(matrix, np.float32)
