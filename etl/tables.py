"""Feature files that are no text: Parquet, and matrices with a table of labels beside them.

    <split>_<backbone>.parquet      path, label and a column per feature, or one column of lists
    <split>_<backbone>.npz          arrays features [n, d], label [n], path [n]
    <split>_<backbone>.safetensors  tensors features [n, d], label [n]
    <split>_<backbone>.npy          features [n, d]

Labels, and paths, that a file of arrays does not hold stand in `<split>_<backbone>.labels.csv`
beside it, with the columns `label` and, if there are paths, `path`, a row for each row.
"""

import io
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from safetensors import SafetensorError, safe_open

from etl.cells import labels_of, paths_of, vectors_of
from etl.errors import (
    BadNumber,
    DamagedArchive,
    DimensionMismatch,
    DiskFault,
    EmptyFile,
    HeaderMismatch,
    LoadRefused,
    RowCount,
    SourceNotFound,
)
from etl.header import LABEL, PATH, Header, check_width, named_columns
from etl.rows import Rows
from etl.sources import LABELS_SUFFIX
from etl.streams import FileAtRest

FEATURES = "features"
_PANDAS_INDEX = "__index_level_0__"
_BLOCK_BYTES = 4 << 20
# paths, labels, features of some rows, not yet looked at; a column may be absent
_Some = tuple[Any, Any, Any]
_DAMAGE = (pa.ArrowException, OSError, ValueError, EOFError, SafetensorError, zipfile.BadZipFile)


@dataclass(frozen=True)
class _Contents:
    """What a file holds: its header, how many rows, and them in blocks with the columns named."""

    header: Header
    n_rows: int
    blocks: Callable[[tuple[str, ...]], Iterator[_Some]]


class FeatureTable:
    """One Parquet file or file of arrays, open for one pass; the counterpart of `FeatureFile`.

    Raises
    ------
    SourceNotFound, DamagedArchive, EmptyFile, HeaderMismatch, RowCount, BadLabel, BadPath
        At opening, before any row is read.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.sha256 = ""
        self._at_rest = FileAtRest(file)
        self._n_done = 0
        try:
            with _Sound(file):
                self._contents = _OPEN[file.suffix.lower()](file, self._at_rest.stream)
            if self._contents.n_rows == 0:
                raise EmptyFile("rows", "none", "Export it again.", file=file)
        except LoadRefused:
            self.close()
            raise

    def __enter__(self) -> "FeatureTable":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def header(self) -> Header:
        """Its columns."""
        return self._contents.header

    @property
    def n_bytes(self) -> int:
        """Size of the file when it was opened."""
        return self._at_rest.n_bytes

    @property
    def n_bytes_read(self) -> int:
        """Its bytes in proportion to the rows that have been read."""
        return self.n_bytes * self._n_done // self._contents.n_rows

    @property
    def mtime_ns(self) -> int:
        """Time of its last change when it was opened."""
        return self._at_rest.mtime_ns

    def close(self) -> None:
        """Close the file."""
        self._at_rest.close()

    def rows(self, features: tuple[str, ...], _n_threads: int) -> Iterator[Rows]:
        """All rows in the file's order, features in the order asked for; then `sha256` is known.

        Raises
        ------
        BadNumber, NotFinite, BadLabel, BadPath, DamagedArchive, SourceChanged
            The first row that is wrong, by its number from 0.
        """
        try:
            yield from self._rows(features)
        except LoadRefused:
            self._at_rest.check_unchanged()  # a file cut while it is read looks damaged
            raise
        self.sha256 = self._at_rest.digest()
        self._at_rest.check_unchanged()

    def _rows(self, features: tuple[str, ...]) -> Iterator[Rows]:
        with _Sound(self.file):
            for paths, labels, matrix in self._contents.blocks(features):
                first = self._n_done
                yield Rows(
                    first,
                    None if paths is None else paths_of(self.file, paths, first),
                    labels_of(self.file, labels, first),
                    vectors_of(self.file, matrix, first, features),
                    lambda _row: None,
                )
                self._n_done = first + len(matrix)


class _Sound:
    """Say in our words what the readers of these formats complain of."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError) and error.errno is not None:
            raise DiskFault(
                "a file that can be read to its end",
                error.strerror or "an error",
                "Check the disk, or copy the file anew.",
                file=self._file,
            ) from error
        if isinstance(error, _DAMAGE):
            raise DamagedArchive(
                f"a whole {self._file.suffix} file without pickled objects",
                str(error).splitlines()[0] if str(error) else "its end is missing",
                "Write or copy it again.",
                file=self._file,
            ) from error


def _open_parquet(file: Path, stream: BinaryIO) -> _Contents:
    parquet = pq.ParquetFile(stream, page_checksum_verification=True)
    schema = parquet.schema_arrow
    names = tuple(name for name in schema.names if name != _PANDAS_INDEX)
    lists = [name for name in names if pa.types.is_nested(schema.field(name).type)]
    rest = [name for name in names if name not in (PATH, LABEL)]
    if lists and lists != rest:
        raise HeaderMismatch(
            "a column for each feature, or one column of lists beside path and label",
            f"the columns {', '.join(rest[:5])}",
            "Leave the others out.",
            file=file,
        )
    n_rows = parquet.metadata.num_rows
    if not lists:
        header = named_columns(list(names), file)
        width = len(header.features)
    else:
        first = next(parquet.iter_batches(1, columns=lists), None)
        width = 0 if first is None else _length_of(first.column(0)[0])
        check_width(width, file)
        header = _numbered(names, width)

    def blocks(features: tuple[str, ...]) -> Iterator[_Some]:
        wanted = [name for name in (PATH, LABEL) if name in names]
        columns = [*wanted, *(lists or features)]
        for batch in parquet.iter_batches(_rows_at_once(width), columns=columns):
            by_name = dict(zip(batch.schema.names, batch.columns, strict=True))
            if lists:
                matrix = _of_lists(file, by_name[lists[0]], width)
            else:
                matrix = _of_columns(file, {name: by_name[name] for name in features})
            yield by_name.get(PATH), by_name.get(LABEL), matrix

    return _Contents(header, n_rows, blocks)


def _length_of(one: pa.Scalar) -> int:
    return len(one) if one.is_valid else 0


def _rows_at_once(n_features: int) -> int:
    return max(_BLOCK_BYTES // (4 * max(n_features, 1)), 1)


def _numbered(names: tuple[str, ...], n_features: int) -> Header:
    features = tuple(str(j) for j in range(n_features))
    return Header(
        (*(n for n in names if n in (PATH, LABEL)), *features), features, PATH in names, False
    )


def _of_columns(file: Path, columns: dict[str, pa.Array]) -> np.ndarray:
    matrix = np.empty((len(next(iter(columns.values()))), len(columns)), np.float64)
    for j, (name, values) in enumerate(columns.items()):
        if not (pa.types.is_floating(values.type) or pa.types.is_integer(values.type)):
            raise BadNumber(
                "numbers",
                f"a column of type {values.type}",
                "Write floats.",
                file=file,
                column=name,
            )
        if values.null_count:
            raise BadNumber("numbers", "an empty cell", "Fill or drop it.", file=file, column=name)
        matrix[:, j] = values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return matrix


def _of_lists(file: Path, lists: pa.Array, width: int) -> np.ndarray:
    if lists.null_count or not (np.asarray(lists.value_lengths()) == width).all():
        raise DimensionMismatch(
            f"lists of {width} features, as in the first row",
            "one of another length",
            "Export it again.",
            file=file,
        )
    return np.asarray(lists.flatten().to_numpy(zero_copy_only=False)).reshape(len(lists), width)


def _open_npy(file: Path, stream: BinaryIO) -> _Contents:
    return _of_arrays(file, {FEATURES: _NpyStream(stream)})


def _open_npz(file: Path, stream: BinaryIO) -> _Contents:
    archive = zipfile.ZipFile(stream)
    arrays: dict[str, _Rowwise] = {}
    for name in archive.namelist():
        array = _NpyStream(archive.open(name))
        if array.is_by_column:  # no place to jump to in a packed member: it is held whole
            array = _NpyStream(io.BytesIO(archive.read(name)))
        arrays[name.removesuffix(".npy")] = array
    return _of_arrays(file, arrays)


def _open_safetensors(file: Path, _stream: BinaryIO) -> _Contents:
    tensors: Any = safe_open(file, framework="np")
    return _of_arrays(file, {name: _TensorRows(tensors.get_slice(name)) for name in tensors.keys()})  # noqa: SIM118


class _NpyStream:
    """Rows of an array in NumPy's own format, read one behind the other."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        version = np.lib.format.read_magic(self._stream)
        read = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}
        self.shape, self.is_by_column, self._dtype = read[version[0]](self._stream)
        if self._dtype.hasobject:
            raise ValueError("pickled objects, which are never read")
        self._first, self._start = 0, self._stream.tell()

    def take(self, n: int) -> np.ndarray:
        """Return the next n rows; pandas' matrices lie column by column and are picked together."""
        width = int(np.prod(self.shape[1:], dtype=np.int64))
        if not self.is_by_column or width == 1:
            return self._read(n * width).reshape(n, *self.shape[1:])
        columns = []
        for j in range(width):
            place = self._start + (j * self.shape[0] + self._first) * self._dtype.itemsize
            self._stream.seek(place)
            columns.append(self._read(n))
        self._first += n
        return np.stack(columns, axis=1)

    def _read(self, n: int) -> np.ndarray:
        content = self._stream.read(n * self._dtype.itemsize)
        if len(content) < n * self._dtype.itemsize:
            raise EOFError("fewer values than its head says")
        return np.frombuffer(content, self._dtype)


class _TensorRows:
    """Rows of a tensor in a safetensors file."""

    def __init__(self, part: Any) -> None:
        self._part, self._first = part, 0
        self.shape = tuple(part.get_shape())

    def take(self, n: int) -> np.ndarray:
        """Return the next n rows."""
        rows = np.asarray(self._part[self._first : self._first + n])
        self._first += n
        return rows


_Rowwise = _NpyStream | _TensorRows


def _of_arrays(file: Path, arrays: dict[str, _Rowwise]) -> _Contents:
    features, label, path = arrays.get(FEATURES), arrays.get(LABEL), arrays.get(PATH)
    came = ", ".join(f"{name} {list(array.shape)}" for name, array in arrays.items())
    if features is None:
        raise HeaderMismatch("an array features", came or "none", "Write it again.", file=file)
    if len(features.shape) != 2:
        raise DimensionMismatch("an array features [n, d]", came, "Write it again.", file=file)
    n_rows, width = features.shape
    check_width(width, file)
    needs_table = label is None or (path is None and label_file(file).is_file())
    table = _label_table(file) if needs_table else None
    counts = {LABEL: n_rows if label is None else label.shape[0]}
    if path is not None:
        counts[PATH] = path.shape[0]
    if table is not None:
        counts[f"rows of the table {label_file(file).name}"] = table.num_rows
    wrong = {name: n for name, n in counts.items() if n != n_rows}
    if wrong:
        came = ", ".join(f"{n} ({name})" for name, n in wrong.items())
        raise RowCount(f"{n_rows} labels, one for each row", came, "Write both again.", file=file)
    has_path = path is not None or (table is not None and PATH in table.column_names)
    names = (PATH, LABEL) if has_path else (LABEL,)

    def blocks(_features: tuple[str, ...]) -> Iterator[_Some]:
        order = np.array([int(name) for name in _features])
        for first in range(0, n_rows, _rows_at_once(width)):
            n = min(_rows_at_once(width), n_rows - first)
            some = None if table is None else table.slice(first, n)
            labels = label.take(n) if label is not None else some.column(LABEL)  # type: ignore[union-attr]
            paths: Any = None
            if path is not None:
                paths = path.take(n)
            elif has_path and some is not None:
                paths = some.column(PATH)
            yield paths, labels, features.take(n)[:, order]

    return _Contents(_numbered(names, width), n_rows, blocks)


def label_file(file: Path) -> Path:
    """Return the table of labels that would stand beside a file of arrays."""
    return file.with_name(file.name.removesuffix(file.suffix) + LABELS_SUFFIX)


def _label_table(file: Path) -> pa.Table:
    beside = label_file(file)
    if not beside.is_file():
        raise SourceNotFound(
            f"labels: an array {LABEL} in the file, or the table {beside.name} beside it",
            "neither",
            f"Write {beside.name} with the columns label and path, a row for each row.",
            file=file,
        )
    text = dict.fromkeys((LABEL, PATH), pa.string())
    table = pacsv.read_csv(beside, convert_options=pacsv.ConvertOptions(column_types=text))
    if LABEL not in table.column_names:
        raise HeaderMismatch(
            "a column label", ", ".join(table.column_names[:5]), "Rename it.", file=beside, line=1
        )
    return table


_OPEN: dict[str, Callable[[Path, BinaryIO], _Contents]] = {
    ".parquet": _open_parquet,
    ".npy": _open_npy,
    ".npz": _open_npz,
    ".safetensors": _open_safetensors,
}
