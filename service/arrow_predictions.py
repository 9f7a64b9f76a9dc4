"""Predictions for rows of features in an Arrow stream, in bounded memory.

The body lies in a file without a name, mapped into memory and read in blocks; so does the answer,
which is sent only when it is whole: whatever is wrong anywhere in the body is a refusal with its
status, and not half an answer.
"""

import json
import mmap
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from models import heads
from service.errors import DamagedStream

ARROW = "application/vnd.apache.arrow.stream"
VECTOR = "vector"
_BLOCK_ROWS = 4096
_END = b"\xff\xff\xff\xff\0\0\0\0"
# of a message's header in Arrow's Message.fbs, and of the compression in its record batch
_HEADER, _HEADER_TYPE, _DATA, _COMPRESSION = 2, 1, 1, 3
_DICTIONARY_BATCH, _RECORD_BATCH = 2, 3
_DAMAGED = (pa.ArrowException, OSError, ValueError, EOFError, MemoryError)


def predict_stream(
    body: IO[bytes],
    answer: IO[bytes],
    head: heads.Head,
    feature_names: Sequence[str],
    class_names: Mapping[int, str],
    *,
    with_probabilities: bool,
) -> None:
    """Classify the rows of an Arrow stream, and write the answer as another.

    Parameters
    ----------
    body
        A column `vector` of lists of numbers in the order in which the head reads them, or one
        column of numbers for each feature, found by its name. Other columns are passed over.
    answer
        Gets class_id, class_name, confidence, and `probabilities` of all classes where they are
        wanted: float32, in the order of `class_ids` in the schema's metadata.

    Raises
    ------
    DamagedStream, models.errors.NotFiniteInput
    """
    class_ids = [int(class_id) for class_id in head.class_ids]
    names = [class_names.get(class_id, str(class_id)) for class_id in class_ids]
    fields = [
        pa.field("class_id", pa.int64(), nullable=False),
        pa.field("class_name", pa.string(), nullable=False),
        pa.field("confidence", pa.float64(), nullable=False),
    ]
    if with_probabilities:
        fields.append(pa.field("probabilities", pa.list_(pa.float32(), len(class_ids))))
    metadata = {"class_ids": json.dumps(class_ids), "class_names": json.dumps(names)}
    schema = pa.schema(fields, metadata=metadata)
    all_ids, all_names = pa.array(class_ids, pa.int64()), pa.array(names, pa.string())
    with pa.ipc.new_stream(answer, schema) as stream:
        for block in _blocks(body, list(feature_names), head.n_features):
            found = heads.probabilities(head, block)
            best = found.argmax(axis=1)
            columns = [all_ids.take(pa.array(best)), all_names.take(pa.array(best))]
            columns.append(pa.array(found[np.arange(len(best)), best]))
            if with_probabilities:
                flat = pa.array(found.astype(np.float32).reshape(-1))
                columns.append(pa.FixedSizeListArray.from_arrays(flat, len(class_ids)))
            stream.write_batch(pa.record_batch(columns, schema=schema))


def _blocks(body: IO[bytes], feature_names: list[str], n_features: int) -> Iterator[np.ndarray]:
    """Features of the rows, block by block, float [b, d]."""
    if not os.fstat(body.fileno()).st_size:
        raise DamagedStream(
            "wanted an Arrow stream, got an empty body. Send the bytes of the stream, with curl: "
            "--data-binary @FILE."
        )
    try:
        source = pa.py_buffer(mmap.mmap(body.fileno(), 0, access=mmap.ACCESS_READ))
        _check_messages(source)
        schema = pa.ipc.open_stream(pa.BufferReader(source)).schema
        wanted = _wanted(schema, feature_names, n_features)
        options = pa.ipc.IpcReadOptions(
            included_fields=[schema.get_field_index(name) for name in wanted], use_threads=False
        )
        for batch in pa.ipc.open_stream(pa.BufferReader(source), options=options):
            batch.validate(full=True)
            for start in range(0, len(batch), _BLOCK_ROWS):
                yield _features(batch.slice(start, _BLOCK_ROWS), wanted, n_features)
    except _DAMAGED as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise DamagedStream(
            f"wanted a whole Arrow stream, got: {reason}. Write it with Arrow's stream format "
            "(in Python: pyarrow.ipc.new_stream), and send all of it."
        ) from error


def _check_messages(source: pa.Buffer) -> None:
    """Refuse a stream that is cut, has something behind it, or is compressed.

    What is compressed may say of itself that it takes any amount of memory.
    """
    stream = pa.BufferReader(source)
    messages = pa.ipc.MessageReader.open_stream(stream)
    for message in messages:
        if message.type in ("record batch", "dictionary") and _is_compressed(
            message.metadata.to_pybytes()
        ):
            raise DamagedStream(
                "wanted an Arrow stream without compression, got a compressed one. Write it with "
                "compression=None."
            )
    if stream.tell() != len(source) or source[-len(_END) :].to_pybytes() != _END:
        raise DamagedStream(
            "wanted an Arrow stream and its end mark, got one that is cut, or something behind it. "
            "Close the writer before sending, and send one stream."
        )


def _is_compressed(metadata: bytes) -> bool:
    """Whether a message's batch is compressed; the message was verified when it was read."""
    message = struct.unpack_from("<I", metadata)[0]
    kind, header = _field(metadata, message, _HEADER_TYPE), _field(metadata, message, _HEADER)
    if kind is None or header is None:
        return False
    batch: int | None = header + struct.unpack_from("<I", metadata, header)[0]
    if metadata[kind] == _DICTIONARY_BATCH and batch is not None:
        data = _field(metadata, batch, _DATA)
        batch = None if data is None else data + struct.unpack_from("<I", metadata, data)[0]
    return batch is not None and _field(metadata, batch, _COMPRESSION) is not None


def _field(metadata: bytes, table: int, number: int) -> int | None:
    """Place of a field of a FlatBuffers table, None where it is absent."""
    layout = table - struct.unpack_from("<i", metadata, table)[0]
    (size,) = struct.unpack_from("<H", metadata, layout)
    if 4 + 2 * number >= size:
        return None
    (offset,) = struct.unpack_from("<H", metadata, layout + 4 + 2 * number)
    return table + offset if offset else None


def _wanted(schema: pa.Schema, feature_names: list[str], n_features: int) -> list[str]:
    """Return the columns to read: one a feature in the order of the head, or the vector alone."""
    there = set(schema.names)
    wanted = feature_names
    if not feature_names or not there >= set(feature_names):
        if VECTOR not in there:
            lacking = [name for name in feature_names if name not in there]
            raise DamagedStream(
                f"wanted a column {VECTOR!r} of {n_features} numbers, or a column for each feature "
                f"by its name, got {', '.join(schema.names[:5]) or 'no column'}"
                f"{' …' if len(schema) > 5 else ''}; {len(lacking)} features are absent"
                f"{f', the first is {lacking[0]!r}' if lacking else ''}. Name the columns as the "
                "database does (view feature_name)."
            )
        wanted = [VECTOR]
    for name in wanted:
        if len(schema.get_all_field_indices(name)) > 1:
            raise DamagedStream(f"wanted each column once, got two called {name!r}. Rename one.")
        kind = schema.field(name).type
        is_list = (
            pa.types.is_fixed_size_list(kind)
            or pa.types.is_list(kind)
            or pa.types.is_large_list(kind)
        )
        numbers = kind.value_type if is_list else kind
        if is_list != (wanted == [VECTOR] and wanted != feature_names) or not (
            pa.types.is_floating(numbers) or pa.types.is_integer(numbers)
        ):
            raise DamagedStream(
                f"wanted {'lists of numbers' if wanted == [VECTOR] else 'numbers'} in the column "
                f"{name!r}, got {kind}. Convert it."
            )
    return wanted


def _features(batch: pa.RecordBatch, wanted: list[str], n_features: int) -> np.ndarray:
    columns = [batch.column(name) for name in wanted]
    if pa.types.is_nested(columns[0].type):
        lengths = pc.list_value_length(columns[0])
        if columns[0].null_count or pc.any(pc.not_equal(lengths, n_features)).as_py():
            raise DamagedStream(
                f"wanted {n_features} numbers in each {VECTOR}, got other lengths. Use the "
                "backbone of this model."
            )
        columns = [columns[0].flatten()]
    if any(column.null_count for column in columns):
        raise DamagedStream("wanted a number for each feature, got null. Leave such rows out.")
    if len(columns) == 1:
        return np.asarray(columns[0].to_numpy(zero_copy_only=False)).reshape(-1, n_features)
    features = np.empty((len(batch), n_features), np.float32)
    with np.errstate(over="ignore"):  # beyond float32 is infinite, and refused as such
        for i, column in enumerate(columns):
            features[:, i] = column.to_numpy(zero_copy_only=False)
    return features
