"""Files of annotations to typed columns: `split?,path,<covariates>` as CSV or Parquet."""

import csv
import io
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from etl.errors import (
    CovariateKind,
    EmptyFile,
    Encoding,
    HeaderMismatch,
    LoadRefused,
    NoCovariate,
    NotCsv,
    RaggedRow,
    SourceNotFound,
)
from etl.header import PATH, column_names

SPLIT = "split"
_INDEX_NAMES = ("", "Unnamed: 0", "__index_level_0__")  # how pandas writes its index
_LIKE_PATH = {"file", "filename", "file_name", "image", "image_path", "img", "id", "name"}
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
# how a table says that it has no number here; counted as missing, not as a fault
_MISSING = pa.array(["", "NA", "N/A", "na", "n/a", "null", "NULL", "None"])
_NUMBER = r"^[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$"
_NOT_FINITE = r"^[-+]?([nN][aA][nN]|[iI][nN][fF]([iI][nN][iI][tT][yY])?)$"
# beyond it a variance overflows, and the view over all annotations with it
_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Covariates:
    """What is known of each image that a file names.

    Attributes
    ----------
    splits : string [n], null where the file names none
    paths : string [n]
    columns : by name: float64 [n] for numbers, string [n] for texts, null where unknown
    n_not_finite : cells that held NaN, infinity or a number beyond float32; they are null
    """

    splits: pa.Array
    paths: pa.Array
    columns: dict[str, pa.Array]
    n_not_finite: int = 0


def read_covariates(file: Path) -> Covariates:
    """Columns of an annotation file, numbers as float64 and texts as they stand.

    In a CSV a column is numbers where every cell is one (or True and False, which become 1 and 0),
    or is missing: empty, NA, null, None. In Parquet the column's type says it.

    Raises
    ------
    SourceNotFound, EmptyFile, NotCsv, Encoding, RaggedRow, HeaderMismatch
        The file cannot be read as a table with a column `path`.
    NoCovariate, CovariateKind
        Nothing beside split and path; a column that is neither numbers nor texts.
    """
    table, is_parquet = read_table(file)
    names = table.column_names
    _check_names(names, file)
    if table.num_rows == 0:
        raise EmptyFile("rows after the header", "none", "Export it again.", file=file)
    columns, n_not_finite = {}, 0
    for name in names:
        if name in (SPLIT, PATH):
            continue
        column = table[name].combine_chunks()
        columns[name], n_bad = _typed_text(column) if not is_parquet else _typed(column, name, file)
        n_not_finite += n_bad
    paths = _text(table[PATH], PATH, file)
    splits = (
        _empty_is_null(_text(table[SPLIT], SPLIT, file))
        if SPLIT in names
        else pa.nulls(table.num_rows, pa.string())
    )
    return Covariates(splits, paths, columns, n_not_finite)


def read_table(file: Path) -> tuple[pa.Table, bool]:
    """Columns of a table as they stand, pandas' index left out, and whether it is Parquet.

    In a CSV all cells are strings.

    Raises
    ------
    SourceNotFound, EmptyFile, NotCsv, Encoding, RaggedRow, HeaderMismatch
    """
    content = _bytes_of(file)
    is_parquet = content[:4] == b"PAR1"
    if not is_parquet and file.suffix.lower() in (".parquet", ".pq"):
        raise NotCsv("a Parquet file", "other first bytes", "Write it again.", file=file)
    table = _parquet(content, file) if is_parquet else _csv(content, file)
    _check_unique(table.column_names, file)
    names = [name for name in table.column_names if name not in _INDEX_NAMES]
    return table.select(names), is_parquet


def _bytes_of(file: Path) -> bytes:
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK)  # a FIFO must not hang
    except OSError as error:
        raise SourceNotFound(
            "a readable file", error.strerror or "an error", "Check the path.", file=file
        ) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise SourceNotFound(
            "a regular file", "a folder or a device", "Name the file itself.", file=file
        )
    with os.fdopen(descriptor, "rb") as stream:
        content = stream.read()
    if not content.strip():
        raise EmptyFile("a header line and rows", "no bytes", "Export it again.", file=file)
    return content


def _parquet(content: bytes, file: Path) -> pa.Table:
    try:
        return pq.read_table(pa.BufferReader(content))
    except (pa.ArrowInvalid, OSError) as error:
        raise NotCsv(
            "a whole Parquet file", str(error).splitlines()[0], "Write it again.", file=file
        ) from error


def _csv(content: bytes, file: Path) -> pa.Table:
    names = column_names(content.split(b"\n", 1)[0], file)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Encoding(
            "UTF-8 text",
            f"byte 0x{content[error.start]:02x}",
            "Save the file as UTF-8.",
            file=file,
            line=1 + content.count(b"\n", 0, error.start),
        ) from error
    if text.count('"') % 2:  # Arrow would take all rows behind it for one cell
        raise RaggedRow(
            "one row a line, quotes closed", "a quote that is never closed", "Repair it.", file=file
        )
    _check_unique(names, file)  # Arrow would take either column for the name
    try:
        return pacsv.read_csv(
            pa.BufferReader(content),
            read_options=pacsv.ReadOptions(column_names=names, skip_rows=1),
            parse_options=pacsv.ParseOptions(newlines_in_values=True),
            convert_options=pacsv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()),
                null_values=[],
                strings_can_be_null=False,
            ),
        )
    except pa.ArrowInvalid as error:
        raise _ragged(text, len(names), file, str(error)) from error


def _ragged(text: str, n_columns: int, file: Path, doubt: str) -> LoadRefused:
    """Say which row Arrow stumbled over."""
    csv.field_size_limit(len(text) + 1)
    reader = csv.reader(io.StringIO(text, newline=""))
    line = 1
    for cells in reader:
        if cells and len(cells) != n_columns:
            return RaggedRow(
                f"{n_columns} cells, as the header has",
                f"{len(cells)}",
                "Repair or remove the row; a path with a comma wants quotes.",
                file=file,
                line=line,
            )
        line = reader.line_num + 1
    return EmptyFile("rows after the header", doubt, "Export it again.", file=file)


def _check_unique(names: list[str], file: Path) -> None:
    for position, name in enumerate(names):
        if name == "" and position > 0:
            raise HeaderMismatch(
                "a name for every column (only pandas' index in front may lack one)",
                f"no name for column {position + 1}",
                "Name it or remove it.",
                file=file,
                line=1,
            )
        if name in names[:position]:
            raise HeaderMismatch(
                "each column once", f"{name!r} twice", "Remove or rename one.", file=file, line=1
            )


def _check_names(names: list[str], file: Path) -> None:
    if PATH not in names:
        near = [name for name in names if name.strip().lower() in _LIKE_PATH | {PATH}]
        came = ", ".join(repr(name) for name in (near or names)[:5])
        raise HeaderMismatch(
            "a column named path with the images' paths",
            came or "none",
            f"Rename the column that names the images{f' ({near[0]!r}?)' if near else ''} to path.",
            file=file,
            line=1,
        )
    if not set(names) - {SPLIT, PATH}:
        raise NoCovariate(
            "at least one column beside split and path",
            "none",
            "Add what is to be attached, one column each.",
            file=file,
            line=1,
        )
    odd = next((name for name in names if _CONTROL.search(name) or len(name) > 200), None)
    if odd is not None:
        raise HeaderMismatch(
            "column names of at most 200 characters, no control characters",
            repr(odd[:40]),
            "Rename the column.",
            file=file,
            line=1,
        )


def _text(column: pa.ChunkedArray, name: str, file: Path) -> pa.Array:
    try:
        return column.combine_chunks().cast(pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise CovariateKind(
            f"texts in column {name}", f"type {column.type}", "Write it as text.", file=file
        ) from error


def _empty_is_null(column: pa.Array) -> pa.Array:
    return pc.if_else(pc.equal(column, ""), pa.scalar(None, pa.string()), column)


def _typed_text(column: pa.Array) -> tuple[pa.Array, int]:
    """Return a column of CSV cells as numbers where all of them are, else as texts."""
    cells = pc.utf8_trim_whitespace(column)
    missing = pc.is_in(cells, value_set=_MISSING)
    number = pc.match_substring_regex(cells, _NUMBER)
    not_finite = pc.match_substring_regex(cells, _NOT_FINITE)
    null = pa.scalar(None, pa.string())
    if _all(pc.or_(missing, pc.or_(number, not_finite))) and not _all(missing):
        # Arrow reads no leading plus
        digits = pc.replace_substring_regex(pc.if_else(number, cells, null), r"^\+", "")
        values, n_huge = _finite(digits.cast(pa.float64()))
        return values, n_huge + int(pc.sum(not_finite).as_py())
    low = pc.utf8_lower(cells)
    true, false = pc.equal(low, "true"), pc.equal(low, "false")
    if _all(pc.or_(missing, pc.or_(true, false))) and not _all(missing):
        return pc.if_else(pc.or_(true, false), true.cast(pa.float64()), pa.scalar(None)), 0
    return _empty_is_null(column), 0


def _typed(column: pa.Array, name: str, file: Path) -> tuple[pa.Array, int]:
    """Return a Parquet column as numbers or texts, by its type."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.dictionary_decode(), kind.value_type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return _empty_is_null(column.cast(pa.string())), 0
    if pa.types.is_null(kind):
        return column.cast(pa.string()), 0
    if pa.types.is_boolean(kind) or pa.types.is_decimal(kind):
        return _finite(column.cast(pa.float64()))
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return _finite(column.cast(pa.float64(), safe=False))
    raise CovariateKind(
        "numbers or texts",
        f"type {kind}",
        "Leave the column out, or write it as numbers or text.",
        file=file,
        column=name,
    )


def _finite(values: pa.Array) -> tuple[pa.Array, int]:
    finite = pc.less_equal(pc.abs(values), _LARGEST)  # false for NaN, null stays null
    n_bad = len(values) - values.null_count - int(pc.sum(finite).as_py() or 0)
    return pc.if_else(finite, values, pa.scalar(None, pa.float64())), n_bad


def _all(mask: pa.Array) -> bool:
    return bool(pc.all(mask).as_py())
