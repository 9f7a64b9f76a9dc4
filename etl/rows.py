"""Bytes of a feature file to typed rows, in blocks, on all cores; or a refusal with its line.

A block is a run of complete rows. Arrow parses blocks side by side; only where a block fails is it
read again, slowly and by the letter, to say which row and column is wrong and why.
"""

import csv
import hashlib
import io
import os
import re
import stat
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from etl.errors import (
    BadLabel,
    BadNumber,
    BadPath,
    EmptyFile,
    Encoding,
    LoadRefused,
    NotFinite,
    RaggedRow,
    SourceChanged,
    SourceNotFound,
)
from etl.header import LABEL, NUMBER, PATH, Header, parse_header

BLOCK_BYTES = 8 << 20  # measured: larger blocks leave the cache, smaller ones cost calls
ROW_BYTES_MAX = 64 << 20
HEADER_BYTES_MAX = 16 << 20
LABEL_MAX = 10**9 - 1
_LABEL = re.compile(r"\d{1,9}")
_NOT_FINITE = re.compile(r"\s*[-+]?(nan|inf|infinity)\s*", re.IGNORECASE)
_CONTROL = r"[\x00-\x09\x0b-\x1f\x7f]"  # a line end inside a quoted path is data


@dataclass(frozen=True)
class Rows:
    """Consecutive rows of one file.

    Attributes
    ----------
    first_row : number of the first row, from 0
    first_line : its line in the file, from 1
    paths : n strings, or None where the file names no images
    labels : int64 [n]
    features : float32 [n, d], every value finite
    n_bytes : what they took in the file
    """

    first_row: int
    first_line: int
    paths: list[str] | None
    labels: np.ndarray
    features: np.ndarray
    n_bytes: int


@dataclass(frozen=True)
class _Block:
    first_line: int
    text: bytes


class FeatureFile:
    """One CSV file, open for one pass.

    Raises
    ------
    SourceNotFound, EmptyFile, NotCsv, Encoding, HeaderMissing, HeaderMismatch
        At opening, before any row is read.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        try:
            # a FIFO must not hang the load, and what was checked must be what is read
            descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK)
        except OSError as error:
            raise SourceNotFound(
                "a readable file", error.strerror or "an error", "Check the path.", file=file
            ) from error
        self._before = os.fstat(descriptor)
        if not stat.S_ISREG(self._before.st_mode):
            os.close(descriptor)
            raise SourceNotFound(
                "a regular file", "a folder or a device", "Name the file itself.", file=file
            )
        self._stream = os.fdopen(descriptor, "rb")
        self._sha256 = hashlib.sha256()
        try:
            self.header = self._read_header()
        except LoadRefused:
            self.close()
            raise

    def __enter__(self) -> "FeatureFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def n_bytes(self) -> int:
        """Size of the file when it was opened."""
        return self._before.st_size

    @property
    def mtime_ns(self) -> int:
        """Time of its last change when it was opened."""
        return self._before.st_mtime_ns

    @property
    def sha256(self) -> str:
        """Digest of what has been read so far; of the whole file after the last row."""
        return self._sha256.hexdigest()

    def close(self) -> None:
        """Close the file."""
        self._stream.close()

    def rows(self, features: tuple[str, ...], n_threads: int) -> Iterator[Rows]:
        """All rows in the file's order, features in the order asked for.

        Raises
        ------
        RaggedRow, BadNumber, NotFinite, BadLabel, BadPath, Encoding, EmptyFile, SourceChanged
            The first row that is wrong, with its line and column.
        """
        parse = _parser(self.file, self.header, features)
        n_rows = 0
        for block, (paths, labels, matrix) in _side_by_side(parse, self._blocks(), n_threads):
            yield Rows(n_rows, block.first_line, paths, labels, matrix, len(block.text))
            n_rows += len(labels)
        if n_rows == 0:
            raise EmptyFile("rows after the header", "none", "Export it again.", file=self.file)
        after = os.fstat(self._stream.fileno())
        if (after.st_size, after.st_mtime_ns) != (self.n_bytes, self.mtime_ns):
            raise SourceChanged(
                "a file at rest",
                f"one that went from {self.n_bytes} to {after.st_size} bytes while it was read",
                "Load it again when it is complete.",
                file=self.file,
            )

    def _read_header(self) -> Header:
        line = self._stream.readline(HEADER_BYTES_MAX)
        self._sha256.update(line)
        if not line.strip():
            raise EmptyFile(
                "a header line and rows",
                "an empty first line" if line else "no bytes",
                "Export it again.",
                file=self.file,
            )
        return parse_header(line, self.file)

    def _blocks(self) -> Iterator[_Block]:
        rest, line = b"", 2
        while chunk := self._stream.read(BLOCK_BYTES):
            self._sha256.update(chunk)
            rest += chunk
            cut = _end_of_last_row(rest)
            if cut:
                yield _Block(line, rest[:cut])
                line += rest.count(b"\n", 0, cut)
                rest = rest[cut:]
            elif len(rest) > ROW_BYTES_MAX:
                raise self._unclosed(line, f"a row of more than {ROW_BYTES_MAX >> 20} MB")
        if rest.strip():
            if rest.count(b'"') % 2:
                raise self._unclosed(line, "a quote that is never closed")
            yield _Block(line, rest)

    def _unclosed(self, line: int, came: str) -> RaggedRow:
        return RaggedRow(
            "one row a line, quotes closed", came, "Repair it.", file=self.file, line=line
        )


def _end_of_last_row(text: bytes) -> int:
    """Where the last complete row ends: after the last line end outside quotes, or 0."""
    cut = text.rfind(b"\n") + 1
    if b'"' not in text:
        return cut
    n_quotes = text.count(b'"', 0, cut)
    while cut and n_quotes % 2:
        earlier = text.rfind(b"\n", 0, cut - 1) + 1
        n_quotes -= text.count(b'"', earlier, cut)
        cut = earlier
    return cut


_Parsed = tuple[list[str] | None, np.ndarray, np.ndarray]


def _side_by_side(
    parse: Callable[[_Block], _Parsed], blocks: Iterator[_Block], n_threads: int
) -> Iterator[tuple[_Block, _Parsed]]:
    """Results in the order of the blocks, with at most one block waiting a thread."""
    with ThreadPoolExecutor(n_threads) as pool:
        waiting: deque[tuple[_Block, Future[_Parsed]]] = deque()
        try:
            for block in blocks:
                waiting.append((block, pool.submit(parse, block)))
                if len(waiting) > n_threads:
                    first, future = waiting.popleft()
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        finally:
            for _, future in waiting:
                future.cancel()


def _parser(file: Path, header: Header, features: tuple[str, ...]) -> Callable[[_Block], _Parsed]:
    """Parse one block with Arrow; on any doubt, find the fault by the letter."""
    texts = [PATH, LABEL] if header.has_path else [LABEL]
    convert = pacsv.ConvertOptions(
        column_types={
            **dict.fromkeys(texts, pa.string()),
            **dict.fromkeys(features, pa.float32()),
        },
        include_columns=[*texts, *features],
        null_values=[],  # an empty cell is a fault, and "nan" must not pass as a missing value
        strings_can_be_null=False,
    )

    def parse(block: _Block) -> _Parsed:
        read = pacsv.ReadOptions(
            column_names=list(header.names),
            block_size=len(block.text) + 1,  # Arrow takes the block whole: rows may span lines
            use_threads=False,  # the blocks are what runs side by side
        )
        try:
            table = pacsv.read_csv(
                pa.BufferReader(block.text), read_options=read, convert_options=convert
            )
        except pa.ArrowInvalid as error:
            raise _find_fault(file, header, features, block, str(error)) from error
        matrix = np.empty((table.num_rows, len(features)), np.float32)
        for j, name in enumerate(features):
            matrix[:, j] = table.column(name)
        label_text = table.column(LABEL)
        sound = (
            np.isfinite(matrix).all()
            and pc.all(pc.match_substring_regex(label_text, r"^\d{1,9}$")).as_py() is not False
        )
        paths = None
        if header.has_path:
            path_text = table.column(PATH)
            sound = sound and not (
                pc.any(pc.match_substring_regex(path_text, _CONTROL)).as_py()
                or pc.any(pc.equal(path_text, "")).as_py()
            )
            paths = path_text.to_pylist() if sound else None
        if not sound:
            raise _find_fault(file, header, features, block, "a value that is not allowed")
        return paths, label_text.cast(pa.int64()).to_numpy(), matrix

    return parse


def _find_fault(
    file: Path, header: Header, features: tuple[str, ...], block: _Block, doubt: str
) -> LoadRefused:
    """Read a block by the letter and say what is wrong with its first faulty row."""
    try:
        text = block.text.decode("utf-8")
    except UnicodeDecodeError as error:
        return Encoding(
            "UTF-8 text",
            f"byte 0x{block.text[error.start]:02x}",
            "Save the file as UTF-8.",
            file=file,
            line=block.first_line + block.text.count(b"\n", 0, error.start),
        )
    csv.field_size_limit(ROW_BYTES_MAX)
    reader = csv.reader(io.StringIO(text, newline=""))
    wanted = set(features)
    line = block.first_line
    for cells in reader:
        fault = _fault_of_row(file, header, wanted, cells, line) if cells else None
        if fault is not None:
            return fault
        line = block.first_line + reader.line_num
    return LoadRefused(
        "rows that a CSV reader understands",
        doubt,
        "Export the file again with a CSV library.",
        file=file,
        line=block.first_line,
    )


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
        return NotFinite, "a finite number", repr(cell), "Extract this image again, or remove it."
    if not NUMBER.fullmatch(cell):
        came = repr(cell[:40]) if cell else "an empty cell"
        return BadNumber, "a number such as -1.5 or 2e-3", came, "Repair the cell."
    if abs(float(cell)) > float(np.finfo(np.float32).max):
        return NotFinite, "a number that float32 holds (below 3.4e38)", cell, "Repair the cell."
    return None
