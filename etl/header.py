"""The first line of a feature file: which column is what, by name and never by position."""

import csv
import re
from dataclasses import dataclass
from pathlib import Path

from etl.errors import (
    DimensionMismatch,
    EmptyFile,
    Encoding,
    HeaderMismatch,
    HeaderMissing,
    NotCsv,
)

LABEL, PATH = "label", "path"
_LIKE_LABEL = {"label", "labels", "class", "class_id", "target", "targets", "y"}
_INDEX_NAMES = ("", "Unnamed: 0")  # how pandas writes and reads its own index
N_FEATURES_MAX = 100_000  # as many values as DuckDB's array type holds
NAME_LENGTH_MAX = 1_000
# ASCII alone, as the parser: Python's digits and spaces of other scripts are no numbers here
NUMBER = re.compile(r"[ \t]*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?[ \t]*", re.ASCII)
_UNSEEN = re.compile(r"[\x00-\x1f\x7f\ufeff]")
_MAGIC = {
    b"PK\x03\x04": "a zip archive",
    b"\x1f\x8b": "a gzip file",
    b"\x28\xb5\x2f\xfd": "a zstd file",
    b"PAR1": "a Parquet file",
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"\x93NUMPY": "a NumPy file",
    b"\x80\x04": "a pickle",
    b"\x80\x05": "a pickle",
}


@dataclass(frozen=True)
class Header:
    """Columns of one feature file.

    Attributes
    ----------
    names : all columns in the file's order, unique
    features : the feature columns in the order in which they are stored
    has_path : whether the rows say which image they are
    ignored_index : whether a leading pandas index is passed over
    """

    names: tuple[str, ...]
    features: tuple[str, ...]
    has_path: bool
    ignored_index: bool

    @property
    def n_features(self) -> int:
        """Number of feature columns."""
        return len(self.features)

    def in_order_of(self, first: tuple[str, ...], file: Path) -> "Header":
        """Return this header with the features in the order of the backbone's first file.

        Raises
        ------
        DimensionMismatch, HeaderMismatch
            The sets of feature names differ in number, or in names.
        """
        if len(first) != self.n_features:
            raise DimensionMismatch(
                f"{len(first)} features, as in this backbone's other splits",
                f"{self.n_features}",
                "Extract all splits with the same model and layer, or load this file as another "
                "backbone: --split NAME:BACKBONE=FILE.",
                file=file,
                line=1,
            )
        here, there = set(self.features), set(first)
        missing = [name for name in first if name not in here]
        if missing:
            extra = [name for name in self.features if name not in there]
            raise HeaderMismatch(
                f"the feature columns of this backbone's other splits (here: {_few(missing)})",
                f"{_few(extra)}",
                "Give the columns the same names in every split.",
                file=file,
                line=1,
            )
        return Header(self.names, first, self.has_path, self.ignored_index)


def column_names(line: bytes, file: Path) -> list[str]:
    """Names in the first line of a CSV file, as they stand there.

    Parameters
    ----------
    line
        The first line with or without its end; a UTF-8 byte order mark is accepted.

    Raises
    ------
    NotCsv, Encoding, EmptyFile, HeaderMismatch
        Another file type, not UTF-8, nothing but a byte order mark, or names that cannot be.
    """
    for magic, what in _MAGIC.items():
        if line.startswith(magic):
            raise NotCsv("a CSV text file", f"{what} by its first bytes", "Unpack it.", file=file)
    if line.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in line:
        raise Encoding(
            "UTF-8 text", "UTF-16, or bytes of 0", "Save the file as UTF-8.", file=file, line=1
        )
    try:
        text = line.removeprefix(b"\xef\xbb\xbf").decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise Encoding(
            "UTF-8 text",
            f"byte 0x{line[error.start]:02x} at offset {error.start}",
            "Save the file as UTF-8.",
            file=file,
            line=1,
        ) from error
    if "\r" in text:
        raise NotCsv(
            "lines that end in \\n or \\r\\n", "a bare \\r", "Convert the line ends.", file=file
        )
    if not text.strip():
        raise EmptyFile(
            "a header line and rows", "an empty first line", "Export it again.", file=file
        )
    return _names_in(text, file)


def parse_header(line: bytes, file: Path) -> Header:
    """Columns that the first line names.

    Parameters
    ----------
    line
        The first line of the file with or without its end; a UTF-8 byte order mark is accepted.

    Raises
    ------
    NotCsv, Encoding, EmptyFile, HeaderMissing, HeaderMismatch
        Another file type, not UTF-8, nothing but a byte order mark, data in the first line, or
        columns missing, named twice or without a proper name.

    Examples
    --------
    >>> header = parse_header(b",path,label,0,1", Path("val_x.csv"))
    >>> header.features, header.has_path, header.ignored_index
    (('0', '1'), True, True)
    """
    return named_columns(column_names(line, file), file)


def named_columns(names: list[str], file: Path) -> Header:
    """Return what each of the named columns is.

    Raises
    ------
    HeaderMissing, HeaderMismatch
        What should be names are data; columns are missing or named twice.
    """
    if LABEL not in names:
        _refuse_without_label(names, file)
    index = names[0] in _INDEX_NAMES
    features = tuple(name for name in (names[1:] if index else names) if name not in (LABEL, PATH))
    if not features:
        raise HeaderMismatch(
            "feature columns beside path and label", "none", "Check the file.", file=file, line=1
        )
    check_width(len(features), file)
    _check_names(names, file)
    return Header(tuple(names), features, PATH in names, index)


def check_width(n_features: int, file: Path) -> None:
    """Refuse more features than the database holds, before anything is made of each of them.

    Raises
    ------
    HeaderMismatch
    """
    if n_features > N_FEATURES_MAX:
        raise HeaderMismatch(
            f"at most {N_FEATURES_MAX:,} feature columns",
            f"{n_features:,}",
            "Check the separator and the line ends, or load fewer columns.",
            file=file,
            line=1,
        )


def _names_in(text: str, file: Path) -> list[str]:
    """Cells of the first line; an editor's line is the header's whole line."""
    try:
        return next(csv.reader([text], strict=True))
    except csv.Error as error:
        raise HeaderMismatch(
            f"names in one line, each of at most {NAME_LENGTH_MAX:,} characters, quotes closed",
            f"a first line that is not such ({error})",
            "Repair the header.",
            file=file,
            line=1,
        ) from error


def _check_names(names: list[str], file: Path) -> None:
    seen: set[str] = set()
    for position, name in enumerate(names):
        fault = None
        if name == "" and position > 0:
            fault = (
                "a name for every column (only pandas' index in front may lack one)",
                f"no name for column {position + 1}",
            )
        elif name in seen:
            fault = ("each column once", f"{name[:40]!r} twice")
        elif len(name) > NAME_LENGTH_MAX:
            fault = (
                f"names of at most {NAME_LENGTH_MAX:,} characters",
                f"one of {len(name):,} for column {position + 1}",
            )
        elif _UNSEEN.search(name):
            fault = ("names that can be seen", f"{name[:40]!r} with a control character in it")
        if fault is not None:
            raise HeaderMismatch(*fault, "Name it anew, or remove it.", file=file, line=1)
        seen.add(name)


def _refuse_without_label(names: list[str], file: Path) -> None:
    numbers = [name for name in names if NUMBER.fullmatch(name)]
    # names such as 0, 1, 2 … are numbers too, but whole and each there once; data are not
    counted = {str(i) for i in range(len(numbers))} == set(numbers)
    if len(numbers) > len(names) / 2 and not counted:
        raise HeaderMissing(
            "a first line with the columns' names (path,label,0,1,…)",
            f"what looks like a row of data ({_few(names)})",
            "Add the header line; no row was swallowed.",
            file=file,
            line=1,
        )
    separator = next((s for s in (";", "\t", "|") if len(names) == 1 and s in names[0]), None)
    if separator is not None:
        raise HeaderMismatch(
            "columns separated by commas",
            f"a line separated by {separator!r}",
            "Export the file with commas.",
            file=file,
            line=1,
        )
    near = [name for name in names if name.strip().lower() in _LIKE_LABEL]
    raise HeaderMismatch(
        "a column named label",
        f"{_few(near or names)}",
        f"Rename the column with the class numbers{f' ({near[0]!r}?)' if near else ''} to label.",
        file=file,
        line=1,
    )


def _few(names: list[str]) -> str:
    shown = ", ".join(repr(name[:40]) for name in names[:5])
    return shown + (f" and {len(names) - 5} more" if len(names) > 5 else "")
