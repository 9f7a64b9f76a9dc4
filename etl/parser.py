"""Text to numbers at the speed of the machine, for rows written plainly; all others are left alone.

Plain is what pandas, NumPy and DuckDB write: cells without quotes or blanks, labels of digits,
numbers such as -0.123456 or 1.5e-05, one row a line. A block with anything else in it is not an
error here: `parse_plain` answers None, and `etl.rows` reads that block by the letter.

The loop itself is in `etl.kernels`.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from etl.kernels import NOT_PLAIN, PATH_SLOT, gather, parse_rows


@dataclass(frozen=True)
class PlainRows:
    """Rows of one block: paths (or None), labels int64 [n], features float32 [n, d]."""

    paths: pa.StringArray | None
    labels: np.ndarray
    features: np.ndarray


def parse_plain(text: bytearray, n_bytes: int, n_lines: int, slots: np.ndarray) -> PlainRows | None:
    """Rows of a text, or None where it is not plain from its first byte to its last.

    Each feature is the float32 nearest to the float64 nearest to its text, as NumPy and pandas have
    it; a number that this way of reading could get wrong in the last bit makes the answer None.

    Parameters
    ----------
    text
        `n_lines` complete lines in its first `n_bytes`; behind them at least `etl.kernels.PADDING`
        bytes more.
    slots
        int32 [columns]: number of the feature in each column, or one of the three negative slots.

    Examples
    --------
    >>> from etl.kernels import LABEL_SLOT, PADDING
    >>> slots = np.array([PATH_SLOT, LABEL_SLOT, 0], np.int32)
    >>> text = bytearray(b"a.png,7,-0.5" + bytes(PADDING))
    >>> rows = parse_plain(text, len(text) - PADDING, 1, slots)
    >>> rows.paths.to_pylist(), rows.labels.tolist(), rows.features.tolist()
    (['a.png'], [7], [[-0.5]])
    >>> text = bytearray(b"a.png,7,nan" + bytes(PADDING))
    >>> parse_plain(text, len(text) - PADDING, 1, slots) is None
    True
    """
    buffer = np.frombuffer(text, np.uint8)
    features = np.empty((n_lines, int((slots >= 0).sum())), np.float32)
    labels = np.empty(n_lines, np.int64)
    spans = np.zeros((n_lines, 2), np.int64)
    n = parse_rows(buffer, n_bytes, slots, features, labels, spans)
    if n == NOT_PLAIN:
        return None
    paths = None
    if PATH_SLOT in slots:
        paths = _strings(buffer, spans[:n])
        try:
            paths.validate(full=True)
        except pa.ArrowInvalid:  # bytes that are not UTF-8
            return None
    return PlainRows(paths, labels[:n], features[:n])


def _strings(buffer: np.ndarray, spans: np.ndarray) -> pa.StringArray:
    offsets = np.zeros(len(spans) + 1, np.int32)
    np.cumsum(spans[:, 1] - spans[:, 0], out=offsets[1:])
    content = np.empty(offsets[-1], np.uint8)
    gather(buffer, spans, offsets, content)
    return pa.StringArray.from_buffers(len(spans), pa.py_buffer(offsets), pa.py_buffer(content))
