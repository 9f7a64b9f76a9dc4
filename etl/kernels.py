"""The loops over bytes and numbers that a Python step would make a hundred times slower.

numba compiles them, and types them itself: neither mypy nor the coverage of lines sees inside, so
the tests hold their answers to NumPy's instead. Everything else of the loader calls them through
`etl.parser`, `etl.moments` and `etl.identity`.

Source: D. Lemire (2021), Number parsing at a gigabyte per second, Software: Practice and Experience
51, sections 3 (digits in one word) and 6 (Clinger's exact range).
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

PADDING = 16  # bytes to own behind a text: the loops read whole words
# what a column is, where it is not the feature of that number
LABEL_SLOT, PATH_SLOT, IGNORED_SLOT = -1, -2, -3

_COMMA, _NEWLINE, _RETURN, _POINT, _MINUS, _PLUS, _QUOTE = (ord(c) for c in ',\n\r.-+"')
_E, _BLANK, _DELETE = ord("e"), 0x20, 0x7F
_LOWER = 0x20  # the bit between E and e
_POWERS = np.array([float(10**n) for n in range(32)])  # exact to 22; the rest fill 5 bits
_WHOLE_POWERS = 10 ** np.arange(9, dtype=np.uint64)
# a mantissa below 10^(19-n) takes n digits more without leaving 64 bits
_ROOM = np.array([10 ** (19 - n) for n in range(9)], np.uint64)
_EXACT = np.uint64(1 << 53)  # mantissas below are exact in float64
FLOAT32_END = 2.0**128 - 2.0**103  # from here on the nearest float32 is infinity
NOT_PLAIN = -1  # a byte that the fast loop leaves to `etl.rows`


@intrinsic
def _word(_typing: Any, _address: Any) -> Any:
    """Eight bytes at an address, the first one lowest.

    An address, because an array handed on costs an atomic count up and down, twice the parsing.
    """

    def build(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        word = builder.load(builder.inttoptr(arguments[0], ir.IntType(64).as_pointer()))
        word.align = 1
        return word

    return types.uint64(types.int64), build


@intrinsic
def _byte(_typing: Any, _address: Any) -> Any:
    def build(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        byte = builder.load(builder.inttoptr(arguments[0], ir.IntType(8).as_pointer()))
        return builder.zext(byte, ir.IntType(64))

    return types.int64(types.int64), build


@intrinsic
def _trailing_zeros(_typing: Any, _word: Any) -> Any:
    def build(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.uint64), build


@njit(inline="always")
def _digits(word: np.uint64) -> tuple[np.uint64, int]:
    """Take '0' off each byte of a word, and count its first bytes that are digits."""
    word ^= np.uint64(0x3030303030303030)
    high = (word + np.uint64(0x7676767676767676)) | word
    return word, _trailing_zeros(high & np.uint64(0x8080808080808080)) >> 3


@njit(inline="always")
def _value(word: np.uint64, n: int) -> np.uint64:
    """Return what the first n digits (1 to 8) of such a word write."""
    word <<= np.uint64(8 * (8 - n))
    word = word * np.uint64(10) + (word >> np.uint64(8))
    mask = np.uint64(0x000000FF000000FF)
    low = (word & mask) * np.uint64(0x000F424000000064)
    high = ((word >> np.uint64(16)) & mask) * np.uint64(0x0000271000000001)
    return (low + high) >> np.uint64(32)


@njit(inline="always")
def _run(at: int, mantissa: np.uint64) -> tuple[int, np.uint64, bool]:
    """Append the digits from a position on; False where 64 bits do not hold them."""
    is_held = True
    word, n = _digits(_word(at))
    if n > 0:
        is_held = mantissa < _ROOM[n]
        mantissa = mantissa * _WHOLE_POWERS[n] + _value(word, n)
        at += n
    while n == 8:
        word, n = _digits(_word(at))
        if n > 0:
            is_held = is_held and mantissa < _ROOM[n]
            mantissa = mantissa * _WHOLE_POWERS[n] + _value(word, n)
            at += n
    return at, mantissa, is_held


@njit(inline="always")
def _decimal(at: int) -> tuple[int, np.uint64, int, bool]:
    """Digits with or without a point: where they end, their mantissa, how many are decimals."""
    first = at
    at, mantissa, is_plain = _run(at, np.uint64(0))
    is_plain = is_plain and at > first
    n_decimals = 0
    if _byte(at) == _POINT:
        point = at + 1
        at, mantissa, is_held = _run(point, mantissa)
        n_decimals = at - point
        is_plain = is_plain and is_held and n_decimals > 0
    return at, mantissa, n_decimals, is_plain


@njit(inline="always")
def _exponent(at: int) -> tuple[int, int]:
    """Signed digits from a position on, and where they end; -1 where there are none or many."""
    is_negative = _byte(at) == _MINUS
    if is_negative or _byte(at) == _PLUS:
        at += 1
    word, n = _digits(_word(at))
    if n == 0 or n > 3:
        return NOT_PLAIN, 0
    value = np.int64(_value(word, n))
    return at + n, -value if is_negative else value


@njit(inline="always")
def _number(at: int) -> tuple[int, np.float32, bool]:
    """Read a plain number: where it ends, its value, whether it is one and cannot be off."""
    is_negative = _byte(at) == _MINUS
    at, mantissa, n_decimals, is_plain = _decimal(at + np.int64(is_negative))
    power = -n_decimals
    if _byte(at) | _LOWER == _E:
        at, exponent = _exponent(at + 1)
        is_plain = is_plain and at >= 0
        power += exponent
    if not is_plain or power < -44 or power > 44:
        return NOT_PLAIN, np.float32(0), False
    value = np.float64(mantissa)
    is_exact = mantissa < _EXACT and -22 <= power <= 22  # then one rounding is all there is
    if power < -22:
        value, power = value / _POWERS[22], power + 22
    elif power > 22:
        value, power = value * _POWERS[22], power - 22
    value = value / _POWERS[-power] if power < 0 else value * _POWERS[power]
    single = np.float32(value)
    is_sure = value < FLOAT32_END and (is_exact or not _is_doubtful(value))
    return at, -single if is_negative else single, is_sure


@njit(inline="always")
def _is_doubtful(value: float) -> bool:
    """Whether a float64 that may be three units off could round to another float32 than the truth.

    The mantissa and each product or quotient of it are rounded. That moves the float32 only where
    the value lies within a few units of the middle between two of them, or where they are
    subnormal and lie further apart.
    """
    if value != 0 and value < 1.2e-38:
        return True
    below = np.int64(np.float64(value).view(np.int64) & ((1 << 29) - 1))
    return abs(below - (1 << 28)) <= 4


@njit(nogil=True, cache=True)
def parse_rows(
    text: np.ndarray,
    n_bytes: int,
    slots: np.ndarray,
    features: np.ndarray,
    labels: np.ndarray,
    spans: np.ndarray,
) -> int:
    """Fill features [rows, d], labels and spans of the paths; the number of rows, or NOT_PLAIN."""
    last = slots.size - 1
    base = np.int64(text.ctypes.data)
    at, end, row = base, base + n_bytes, 0
    while at < end:
        for column in range(slots.size):
            slot = slots[column]
            if slot >= 0:
                at, value, is_plain = _number(at)
                if not is_plain:
                    return NOT_PLAIN
                features[row, slot] = value
            elif slot == LABEL_SLOT:
                word, n = _digits(_word(at))
                if n == 0 or n == 8:
                    return NOT_PLAIN
                labels[row] = _value(word, n)
                at += n
            else:
                start = at
                while _byte(at) != _COMMA and _byte(at) != _NEWLINE:
                    byte = _byte(at)
                    if byte < _BLANK or byte in (_QUOTE, _DELETE):
                        return NOT_PLAIN
                    if byte > _DELETE and slot == IGNORED_SLOT:  # nobody looks at its letters
                        return NOT_PLAIN
                    at += 1
                if slot == PATH_SLOT:
                    if at == start:
                        return NOT_PLAIN
                    spans[row, 0], spans[row, 1] = start - base, at - base
            if column < last:
                if _byte(at) != _COMMA:
                    return NOT_PLAIN
                at += 1
        if at < end:  # the last line of a file may end without a line end
            if _byte(at) == _RETURN:
                at += 1
            if _byte(at) != _NEWLINE:
                return NOT_PLAIN
            at += 1
        if at > end:
            return NOT_PLAIN
        row += 1
    return row


@njit(nogil=True, cache=True)
def gather(text: np.ndarray, spans: np.ndarray, offsets: np.ndarray, content: np.ndarray) -> None:
    """Copy the spans of a text one behind the other."""
    for i in range(len(spans)):
        content[offsets[i] : offsets[i + 1]] = text[spans[i, 0] : spans[i, 1]]


@njit(nogil=True, cache=True)
def accumulate(
    slots: np.ndarray,
    rows: np.ndarray,
    n: np.ndarray,
    mean: np.ndarray,
    m2: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
) -> None:
    """Take rows [n, d] into the moments [k, d] of their slots, one after the other (Welford)."""
    for i in range(len(rows)):
        slot = slots[i]
        n[slot] += 1
        weight = 1.0 / n[slot]
        for j in range(rows.shape[1]):
            value = np.float64(rows[i, j])
            delta = value - mean[slot, j]
            moved = mean[slot, j] + delta * weight
            mean[slot, j] = moved
            m2[slot, j] += delta * (value - moved)
            low[slot, j] = min(low[slot, j], value)
            high[slot, j] = max(high[slot, j], value)


@njit(inline="always")
def _mixed(value: np.uint64) -> np.uint64:
    """Spread every bit over all (the finalizer of splitmix64)."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@njit(nogil=True, cache=True)
def hash_strings(content: np.ndarray, offsets: np.ndarray, keys: np.ndarray) -> None:
    """128-bit keys [n, 2] of strings that lie one behind the other."""
    for i in range(len(offsets) - 1):
        first = np.uint64(0x9E3779B97F4A7C15)
        second = np.uint64(0xD1B54A32D192ED03)
        for at in range(offsets[i], offsets[i + 1]):
            first = (first ^ np.uint64(content[at])) * np.uint64(0x100000001B3)
            second = (second + np.uint64(content[at])) * np.uint64(0xD6E8FEB86659FD93)
            second ^= second >> np.uint64(32)
        keys[i, 0] = _mixed(first)
        keys[i, 1] = _mixed(second)


@njit(inline="always")
def _place(keys: np.ndarray, first: np.uint64, second: np.uint64, ids: np.ndarray) -> int:
    """Where a key stands in the table, or the free place where it would."""
    mask = len(ids) - 1
    at = np.int64(first & np.uint64(mask))
    while ids[at] >= 0 and (keys[at, 0] != first or keys[at, 1] != second):
        at = (at + 1) & mask
    return at


@njit(nogil=True, cache=True)
def enter(
    keys: np.ndarray,
    ids: np.ndarray,
    labels: np.ndarray,
    is_read: np.ndarray,
    new_keys: np.ndarray,
    new_labels: np.ndarray,
    next_id: int,
    found: np.ndarray,
) -> int:
    """Look rows up in the table of images, and enter those that are not there.

    found[i] becomes the id of row i, or -1 where its image was read before in this file. Returns
    the first row whose label contradicts the table, or -1; the rows before it are done.
    """
    for i in range(len(new_keys)):
        at = _place(keys, new_keys[i, 0], new_keys[i, 1], ids)
        if ids[at] < 0:
            keys[at] = new_keys[i]
            ids[at] = next_id
            labels[at] = new_labels[i]
            next_id += 1
        elif labels[at] != new_labels[i]:
            return i
        found[i] = -1 if is_read[at] else ids[at]
        is_read[at] = True
    return -1


@njit(nogil=True, cache=True)
def put(
    keys: np.ndarray,
    ids: np.ndarray,
    labels: np.ndarray,
    is_read: np.ndarray,
    new_keys: np.ndarray,
    new_ids: np.ndarray,
    new_labels: np.ndarray,
    new_is_read: np.ndarray,
) -> None:
    """Write rows that the table of images does not hold yet."""
    for i in range(len(new_ids)):
        at = _place(keys, new_keys[i, 0], new_keys[i, 1], ids)
        keys[at] = new_keys[i]
        ids[at] = new_ids[i]
        labels[at] = new_labels[i]
        is_read[at] = new_is_read[i]
