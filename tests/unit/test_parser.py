"""The compiled loop reads what Python reads, bit for bit, or leaves it alone."""

import csv
import io

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from etl.header import NUMBER
from etl.kernels import IGNORED_SLOT, LABEL_SLOT, PADDING, PATH_SLOT
from etl.parser import parse_plain


def parse(text: bytes, slots):
    n_lines = text.count(b"\n") + 1
    return parse_plain(
        bytearray(text + bytes(PADDING)), len(text), n_lines, np.array(slots, np.int32)
    )


def numbers(cells):
    """One row of features of these texts; None where they are left alone."""
    rows = parse(",".join(["1", *cells]).encode(), [LABEL_SLOT, *range(len(cells))])
    return None if rows is None else rows.features[0]


def bits(values):
    return np.asarray(values, np.float32).view(np.uint32).tolist()


FORMS = ["{:.6f}", "{:.9g}", "{!r}", "{:.17g}", "{:.3e}", "{:.0f}", "{:.12f}", "{:E}"]


@settings(max_examples=300, deadline=None)  # the first case compiles
@given(
    values=st.lists(st.floats(-(2.0**127), 2.0**127, width=32), min_size=1, max_size=20),
    form=st.sampled_from(FORMS),
)
def test_a_float_in_any_usual_form_is_read_bit_for_bit(values, form):
    cells = [form.format(value) for value in values]
    found = numbers(cells)
    if found is not None:
        with np.errstate(over="ignore"):
            assert bits(found) == bits([np.float32(float(cell)) for cell in cells])


@pytest.mark.parametrize("form", ["{:.6f}", "{:.9g}", "{!r}", "{:.17g}", "{:.4e}"])
def test_features_in_the_forms_that_libraries_write_are_read_here(form):
    values = np.random.default_rng(0).normal(size=2000) * np.logspace(-4, 4, 2000)
    cells = [form.format(float(value)) for value in values]
    assert bits(numbers(cells)) == bits([np.float32(float(cell)) for cell in cells])


@pytest.mark.parametrize(
    "cell",
    [
        "0", "-0", "-0.0", "7", "00012.50", "12345678", "123456789012345678", "0.1", "1e5",
        "1E-5", "1e+05", "1.2345678901234567e-22", "3.402823e38", "16777217", "16777219",
        "0.00000000000001",
        "9007199254740993", "0.00012345678901234567",
        "12345678.12345678", "99999999.9999999999",
    ],
)  # fmt: skip
def test_single_numbers(cell):
    found = numbers([cell])
    assert found is not None
    assert bits(found) == bits([np.float32(float(cell))])


@pytest.mark.parametrize(
    "cell",
    [
        "", " 1", "1 ", "+1", ".5", "5.", "-", "nan", "inf", "1e400", "1e39", "3.4028236e38",
        "1e-40",
        "1_0", "0x1", "1e", "1e+", "1e1234", '"1"', "1.2.3", "--1", "1-", "12345678901234567890",
        "1.0000001788139343262",  # within a hair of the middle of two float32
    ],
)  # fmt: skip
def test_what_is_not_plain_is_left_alone(cell):
    assert numbers([cell]) is None
    assert numbers([cell, "1"]) is None


def test_rows_of_all_columns_in_any_order():
    text = b"x,0.5,a/b.png,3,-1\r\ny,1.5,c.png,12,2\n"
    rows = parse(text, [IGNORED_SLOT, 1, PATH_SLOT, LABEL_SLOT, 0])
    assert rows.paths.to_pylist() == ["a/b.png", "c.png"]
    assert rows.labels.tolist() == [3, 12]
    assert rows.features.tolist() == [[-1, 0.5], [2, 1.5]]


def test_a_path_may_hold_any_letter_and_no_broken_one():
    slots = [PATH_SLOT, LABEL_SLOT, 0]
    assert parse("größe 大.png,1,2".encode(), slots).paths.to_pylist() == ["größe 大.png"]
    assert parse(b"gr\xf6\xdfe.png,1,2", slots) is None


@pytest.mark.parametrize(
    "text",
    [
        b"p,1,2,3", b"p,1", b"p,1,2\n\np,1,2", b"p,1.5,2", b"p,-1,2", b"p,,2", b"p,12345678,2",
        b",1,2", b"p\x1b,1,2", b"p\x7f,1,2", b'"p",1,2', b"p,1,2\r", b"p,1,2\rp,1,2\n", b"p,1,2\n ",
    ],
)  # fmt: skip
def test_a_row_that_is_not_plain_leaves_the_block_alone(text):
    assert parse(text, [PATH_SLOT, LABEL_SLOT, 0]) is None


@settings(max_examples=500, deadline=None)
@given(text=st.text(alphabet='0123456789.-+eE,\n\r" pnai_', max_size=60))
@example(text="p,1,2\np,3,4")
def test_whatever_is_read_is_what_a_csv_reader_reads(text):
    rows = parse(text.encode(), [PATH_SLOT, LABEL_SLOT, 0])
    if rows is None:
        return
    cells = [row for row in csv.reader(io.StringIO(text, newline="")) if row]
    assert rows.paths.to_pylist() == [row[0] for row in cells]
    assert rows.labels.tolist() == [int(row[1]) for row in cells]
    assert all(len(row) == 3 and NUMBER.fullmatch(row[2]) for row in cells)
    assert bits(rows.features[:, 0]) == bits([np.float32(float(row[2])) for row in cells])
