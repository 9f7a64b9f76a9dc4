"""Text of a feature file to typed rows, in blocks, on all cores; or a refusal with its line.

A block is a run of complete rows. Blocks are parsed side by side: by a compiled loop where they are
written plainly, as nearly all are, else by Arrow; only where that fails is a block read again,
slowly and by the letter, to say which row and column is wrong and why.
"""

import csv
import io
import re
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv

from etl.cells import ROW_BYTES_MAX, find_fault, labels_are_sound, paths_are_sound
from etl.errors import EmptyFile, LoadRefused, RaggedRow
from etl.header import LABEL, PATH, Header, parse_header
from etl.kernels import FLOAT32_END, IGNORED_SLOT, LABEL_SLOT, PADDING, PATH_SLOT
from etl.parser import parse_plain
from etl.streams import FeatureStream

BLOCK_BYTES = 4 << 20  # measured: larger blocks leave the cache, smaller ones cost calls
_NEWLINE = ord("\n")
HEADER_BYTES_MAX = 16 << 20
_BARE_RETURN = re.compile(rb"\r(?!\n)")


@dataclass(frozen=True)
class Rows:
    """Consecutive rows of one file.

    Attributes
    ----------
    first_row : number of the first row, from 0
    paths : n strings, or None where the file names no images
    labels : int64 [n]
    features : float32 [n, d], every value finite
    line_of : line in the file, from 1, of the i-th of these rows; None where a file has no lines
    """

    first_row: int
    paths: pa.StringArray | None
    labels: np.ndarray
    features: np.ndarray
    line_of: Callable[[int], int | None]


@dataclass(frozen=True)
class _Block:
    """Complete rows: the first `n_bytes` of a text, with `PADDING` bytes or more behind them."""

    first_line: int
    n_lines: int
    text: bytearray
    n_bytes: int

    def letters(self) -> bytes:
        return bytes(self.text[: self.n_bytes])

    def line_of(self, row: int) -> int:
        """Line of a row, as an editor counts; empty lines are no rows."""
        if b'"' not in self.text and b"\n\n" not in self.text and b"\n\r\n" not in self.text:
            return self.first_line + row
        reader = csv.reader(io.StringIO(self.letters().decode("utf-8"), newline=""))
        starts, line = [], self.first_line
        for cells in reader:
            if cells:
                starts.append(line)
            line = self.first_line + reader.line_num
        return starts[row]


class FeatureFile:
    """One CSV file, packed or not, open for one pass.

    Raises
    ------
    SourceNotFound, DamagedArchive, EmptyFile, NotCsv, Encoding, HeaderMissing, HeaderMismatch
        At opening, before any row is read.
    """

    def __init__(self, file: Path, member: str | None = None) -> None:
        self._stream = FeatureStream(file, member)
        self.file = Path(self._stream.name)
        self.sha256 = ""
        try:
            self.header = self._read_header()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "FeatureFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def n_bytes(self) -> int:
        """Size of the file on disk when it was opened."""
        return self._stream.n_bytes

    @property
    def n_bytes_read(self) -> int:
        """Bytes of it that have been read."""
        return self._stream.n_bytes_read

    @property
    def mtime_ns(self) -> int:
        """Time of its last change when it was opened."""
        return self._stream.mtime_ns

    def close(self) -> None:
        """Close the file."""
        self._stream.close()

    def rows(self, features: tuple[str, ...], n_threads: int) -> Iterator[Rows]:
        """All rows in the file's order, features in the order asked for; then `sha256` is known.

        Raises
        ------
        RaggedRow, BadNumber, NotFinite, BadLabel, BadPath, Encoding, EmptyFile, SourceChanged
            The first row that is wrong, with its line and column.
        DamagedArchive, ArchiveBomb
            What was packed is not whole, or out of proportion.
        """
        parse = _parser(self.file, self.header, features)
        n_rows = 0
        try:
            for block, (paths, labels, matrix) in _side_by_side(parse, self._blocks(), n_threads):
                yield Rows(n_rows, paths, labels, matrix, block.line_of)
                n_rows += len(labels)
        except LoadRefused:
            self._stream.check_unchanged()  # a file cut while it is read looks like a faulty one
            raise
        self.sha256 = self._stream.finish()
        if n_rows == 0:
            raise EmptyFile("rows after the header", "none", "Export it again.", file=self.file)

    def _read_header(self) -> Header:
        line = self._stream.readline(HEADER_BYTES_MAX)
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
            text = bytearray().join((rest, chunk, bytes(PADDING)))
            n_bytes = len(rest) + len(chunk)
            cut = _end_of_last_row(text, n_bytes)
            rest = bytes(text[cut:n_bytes])
            if cut:
                n_lines = int(np.count_nonzero(np.frombuffer(text, np.uint8, cut) == _NEWLINE))
                yield _Block(line, n_lines, text, cut)
                line += n_lines
            elif len(rest) > ROW_BYTES_MAX:
                raise self._unclosed(line, f"a row of more than {ROW_BYTES_MAX >> 20} MB")
        if rest.strip():
            if rest.count(b'"') % 2:
                raise self._unclosed(line, "a quote that is never closed")
            n_lines = rest.count(b"\n") + 1
            yield _Block(line, n_lines, bytearray(rest + bytes(PADDING)), len(rest))

    def _unclosed(self, line: int, came: str) -> RaggedRow:
        return RaggedRow(
            "one row a line, quotes closed", came, "Repair it.", file=self.file, line=line
        )


def _end_of_last_row(text: bytearray, n_bytes: int) -> int:
    """Where the last complete row ends: after the last line end outside quotes, or 0."""
    cut = text.rfind(b"\n", 0, n_bytes) + 1
    if b'"' not in text:
        return cut
    n_quotes = text.count(b'"', 0, cut)
    while cut and n_quotes % 2:
        earlier = text.rfind(b"\n", 0, cut - 1) + 1
        n_quotes -= text.count(b'"', earlier, cut)
        cut = earlier
    return cut


_Parsed = tuple[pa.StringArray | None, np.ndarray, np.ndarray]


def _side_by_side(
    parse: Callable[[_Block], _Parsed], blocks: Iterator[_Block], n_threads: int
) -> Iterator[tuple[_Block, _Parsed]]:
    """Results in the order of the blocks, with at most one block waiting a thread."""
    with ThreadPoolExecutor(n_threads) as pool:
        waiting: deque[tuple[_Block, Future[_Parsed]]] = deque()
        late: LoadRefused | None = None
        try:
            while True:
                try:
                    block = next(blocks)
                except StopIteration:
                    break
                except LoadRefused as refused:
                    late = refused  # the rows that wait stand before it, and may be faulty too
                    break
                waiting.append((block, pool.submit(parse, block)))
                if len(waiting) > n_threads:
                    first, future = waiting.popleft()
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
            if late is not None:
                raise late
        finally:
            for _, future in waiting:
                future.cancel()


def _parser(file: Path, header: Header, features: tuple[str, ...]) -> Callable[[_Block], _Parsed]:
    """Parse one block: plainly where it is plain, else with Arrow, else find the fault."""
    number = {name: j for j, name in enumerate(features)}
    slot_of = {LABEL: LABEL_SLOT, PATH: PATH_SLOT, **number}
    slots = np.array([slot_of.get(name, IGNORED_SLOT) for name in header.names], np.int32)
    by_letter = _letter_parser(file, header, features)

    def parse(block: _Block) -> _Parsed:
        plain = parse_plain(block.text, block.n_bytes, block.n_lines, slots)
        if plain is None:
            return by_letter(block)
        return plain.paths, plain.labels, plain.features

    return parse


def _letter_parser(
    file: Path, header: Header, features: tuple[str, ...]
) -> Callable[[_Block], _Parsed]:
    texts = [PATH, LABEL] if header.has_path else [LABEL]
    convert = pacsv.ConvertOptions(
        column_types={
            **dict.fromkeys(texts, pa.string()),
            **dict.fromkeys(features, pa.float64()),
        },
        include_columns=[*texts, *features],
        null_values=[],  # an empty cell is a fault, and "nan" must not pass as a missing value
        strings_can_be_null=False,
    )

    def fault(block: _Block, doubt: str) -> LoadRefused:
        return find_fault(file, header, features, block.letters(), block.first_line, doubt)

    def parse(block: _Block) -> _Parsed:
        letters = block.letters()
        if not _is_strict(letters):
            raise fault(block, "a quote or a line end out of place")
        read = pacsv.ReadOptions(
            column_names=list(header.names),
            block_size=block.n_bytes + 1,  # Arrow takes the block whole: rows may span lines
            use_threads=False,  # the blocks are what runs side by side
        )
        try:
            table = pacsv.read_csv(
                pa.BufferReader(letters), read_options=read, convert_options=convert
            )
        except pa.ArrowInvalid as error:
            raise fault(block, str(error)) from error
        matrix = np.empty((table.num_rows, len(features)), np.float32)
        is_sound = True
        for j, name in enumerate(features):
            values = table.column(name).to_numpy()
            is_sound = is_sound and bool((np.abs(values) < FLOAT32_END).all())  # False for NaN
            with np.errstate(over="ignore"):
                matrix[:, j] = values
        label_text = table.column(LABEL).combine_chunks()
        paths = table.column(PATH).combine_chunks() if header.has_path else None
        if not (is_sound and labels_are_sound(label_text) and paths_are_sound(paths)):
            raise fault(block, "a value that is not allowed")
        return paths, label_text.cast(pa.int64()).to_numpy(), matrix

    return parse


def _is_strict(letters: bytes) -> bool:
    """Whether text is UTF-8 with quotes around whole cells only: Arrow would let others pass."""
    try:
        text = letters.decode("utf-8")
        if b'"' in letters:
            csv.field_size_limit(ROW_BYTES_MAX)
            deque(csv.reader(io.StringIO(text, newline=""), strict=True), maxlen=0)
    except (UnicodeDecodeError, csv.Error):
        return False
    return _BARE_RETURN.search(letters) is None
