"""Broken feature files, kind by kind, against the loader's door alone.

Each kind is a small function: it draws a good file, breaks it at one place and says what must come.
Its name begins with the id of the fault in the faults list (E01 …). Every kind runs at the first, a
middle and the last row of files of random size, with and without path and index columns, in random
column order, over an old database that must stay as it is (tests/sheet.py holds that).
"""

import gzip
import io
import pickle
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import etl
from tests.sheet import NAME, Case, Kept, Refused, Sheet, good, hold, long, one
from tests.world import make_world, write_csv

Kind = Callable[[np.random.Generator, float], Case]
KINDS: dict[str, Kind] = {}
OLD_TRAIN, OLD_TEST = "train_toy.csv", "val_toy.csv"


def kind(function: Kind) -> Kind:
    KINDS[function.__name__] = function
    return function


def refused(sheet: Sheet, row: int, code: str, column: object = None) -> Refused:
    return Refused(code, sheet.line(row), column)


# ------------------------------------------------------------------------------- one cell is wrong


def in_feature(text: str, code: str) -> Kind:
    """A cell of a random feature column holds this text."""

    def break_it(rng: np.random.Generator, at: float) -> Case:
        sheet = good(rng)
        row, name = sheet.row_at(at), str(rng.choice(sheet.features))
        sheet.put(row, name, text)
        return one(sheet.text(), refused(sheet, row, code, name))

    return break_it


def in_label(text: str) -> Kind:
    """A cell of the label column holds this text."""

    def break_it(rng: np.random.Generator, at: float) -> Case:
        sheet = good(rng)
        row = sheet.row_at(at)
        sheet.put(row, "label", text)
        return one(sheet.text(), refused(sheet, row, "label_out_of_range", "label"))

    return break_it


def in_path(text: str) -> Kind:
    """A cell of the path column holds this text."""

    def break_it(rng: np.random.Generator, at: float) -> Case:
        sheet = good(rng, path=True)
        row = sheet.row_at(at)
        sheet.put(row, "path", text)
        return one(sheet.text(), refused(sheet, row, "bad_path", "path"))

    return break_it


def number_as(text: str) -> Kind:
    """A random feature cell is written in an unusual form that is a number all the same."""

    def write_it(rng: np.random.Generator, at: float) -> Case:
        sheet = good(rng)
        sheet.put(sheet.row_at(at), str(rng.choice(sheet.features)), text)
        return one(sheet.text(), sheet)

    return write_it


def path_as(text: str) -> Kind:
    """A path holds what a CSV file may hold in quotes, or anything that is not a control."""

    def write_it(rng: np.random.Generator, at: float) -> Case:
        sheet = good(rng, path=True)
        sheet.put(sheet.row_at(at), "path", text)
        return one(sheet.text(), sheet)

    return write_it


NOT_NUMBERS = {
    "text": "abc", "hex": "0x1F", "underscore": "1_000", "decimal_comma_quoted": "1,5",
    "two_points": "1.2.3", "two_signs": "--1", "half_exponent": "1e", "exponent_only": "e5",
    "fractional_exponent": "1e5.5", "point": ".", "plus": "+", "two_numbers": "1 2",
    "unit": "1.5kg", "ratio": "1/2", "full_width": "１.５", "minus_sign": "−1.5",
    "no_break_space": "\u00a01.5", "vertical_tab": "\x0b1.5", "line_end_in_quotes": "1.5\n",
    "fortran": "1d5", "c_suffix": "1.5f", "none": "None", "null": "null", "na": "NA",
    "true": "true", "currency": "$1", "percent": "5%", "bom": "\ufeff1.5", "quote": '1"5',
    "huge": "x" * 3_000_000,
}  # fmt: skip
NOT_FINITE = {
    "nan": "nan", "NaN": "NaN", "minus_nan": "-nan", "inf": "inf", "minus_inf": "-inf",
    "Infinity": "Infinity", "spaces_around_nan": " nan ", "1e39": "1e39", "minus_1e39": "-1e39",
    "1e400": "1e400", "above_float32": "3.5e38", "many_digits": "1" + "0" * 100_000,
}  # fmt: skip
NOT_LABELS = {
    "fraction": "1.5", "whole_float": "1.0", "negative": "-1", "leading_space": " 3",
    "trailing_space": "3 ", "too_long": "99999999999", "one_too_many": "1000000000",
    "text": "cat", "plus": "+1", "exponent": "1e0", "hex": "0x1", "full_width": "１",
    "superscript": "²", "nan": "nan", "bool": "True", "minus_zero": "-0", "two": "1;2",
    "huge": "7" * 3_000_000,
}  # fmt: skip
NUMBERS = {
    "spaces_around": "  1.5 ", "tab_around": "\t-1.5\t", "exponent": "1.25e-3",
    "capital_exponent": "-2E+5", "no_leading_zero": "-.5", "no_digits_after": "7.",
    "plus": "+1.5", "integer": "42", "leading_zeros": "000.5", "minus_zero": "-0",
    "minus_zero_point": "-0.0", "denormal": "1e-40", "smallest": "1e-45", "to_zero": "1e-46",
    "far_to_zero": "-1e-400", "largest": "3.4028235e38", "largest_exact": "3.4028234663852886e38",
    "just_below_infinity": "-3.40282356e38", "long": "0.1" + "23456789" * 40,
    "long_integer": "123456789012345678901234567890", "halfway": "1.000000059604644775390625",
    "float32_in_16_digits": "0.10000000149011612", "long_exponent": "1e-0000003",
}  # fmt: skip
PATHS = {
    "comma": "a, b.png", "quotes": 'say "hi".png', "only_a_quote": '"', "line_end": "two\nlines",
    "all_of_them": '\n",\n"",', "spaces": " a b ", "umlaut": "größe.png", "emoji": "🦉/1.png",
    "combining": "u\u0308.png", "dots": "../../etc/passwd", "markup": "<script>", "nan": "nan",
    "null": "NULL", "number": "12", "label": "label", "backslash": "a\\b.png", "sql": "'; drop--",
    "semicolon": "a;b", "hash": "# a", "long": "p" * 3_000_000,
}  # fmt: skip
CONTROLS = {
    "nul": "a\0b", "escape": "a\x1b[31m", "tab": "a\tb", "delete": "a\x7f",
    "carriage_return": "a\rb", "bell": "\x07",
}  # fmt: skip
KINDS |= {f"e08_{name}": in_feature(text, "bad_number") for name, text in NOT_NUMBERS.items()}
KINDS |= {f"e09_{name}": in_feature(text, "not_finite") for name, text in NOT_FINITE.items()}
KINDS |= {
    f"e10_{name}": in_feature(text, "bad_number")
    for name, text in {"empty": "", "blank": " "}.items()
}
KINDS |= {"e11_label_missing": in_label(""), "e11_label_blank": in_label(" ")}
KINDS |= {f"e12_{name}": in_label(text) for name, text in NOT_LABELS.items()}
KINDS |= {f"e17_{name}": in_path(text) for name, text in CONTROLS.items()}
KINDS |= {"e17_empty_path": in_path("")}
KINDS |= {f"e08_accepts_{name}": number_as(text) for name, text in NUMBERS.items()}
KINDS |= {f"e20_accepts_{name}": path_as(text) for name, text in PATHS.items()}


@kind
def e08_decimal_commas_unquoted(rng, at):
    """1,5 without quotes is a cell too many."""
    sheet = good(rng)
    row = sheet.row_at(at)
    lines = sheet.lines()
    lines[row + 1] = lines[row + 1].replace(b".", b",")
    return one(b"".join(lines), refused(sheet, row, "ragged_row"))


@kind
def e12_accepts_leading_zeros(rng, at):
    sheet = good(rng)
    sheet.put(sheet.row_at(at), "label", "007")
    return one(sheet.text(), sheet)


@kind
def e12_accepts_the_largest_label(rng, at):
    sheet = good(rng)
    sheet.put(sheet.row_at(at), "label", "999999999")
    return one(sheet.text(), sheet)


@kind
def e12_label_beyond_the_class_names(rng, at):
    sheet = good(rng, path=True)
    row = sheet.row_at(at)
    sheet.put(row, "label", "9")
    names = "label,name\n" + "".join(f"{i},name {i}\n" for i in range(9))
    case = one(sheet.text(), refused(sheet, row, "label_out_of_range", "label"))
    return Case({**case.files, "names.csv": names.encode()}, case.wanted, {"classes": "names.csv"})


# ---------------------------------------------------------------------------- the file as a whole


def whole(text: bytes, code: str, line: int | None = None) -> Kind:
    return lambda rng, at: one(text, Refused(code, line, ...))


def _zip() -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("val_new.csv", "label,0\n1,2\n")
    return packed.getvalue()


KINDS |= {
    "e02_no_bytes": whole(b"", "empty_file"),
    "e02_only_line_ends": whole(b"\n\n\n", "empty_file"),
    "e02_only_spaces": whole(b"   ", "empty_file"),
    "e02_only_a_bom": whole(b"\xef\xbb\xbf", "empty_file"),
    "e02_bom_and_line_end": whole(b"\xef\xbb\xbf\r\n", "empty_file"),
    "e28_zip": whole(_zip(), "not_csv"),
    "e28_gzip": whole(gzip.compress(b"label,0\n1,2\n"), "not_csv"),
    "e28_zstd": whole(b"\x28\xb5\x2f\xfd" + bytes(20), "not_csv"),
    "e28_parquet": whole(b"PAR1" + bytes(40) + b"PAR1", "not_csv"),
    "e28_png": whole(b"\x89PNG\r\n\x1a\n" + bytes(20), "not_csv"),
    "e28_jpeg": whole(b"\xff\xd8\xff\xe0" + bytes(20), "not_csv"),
    "e28_npy": whole(b"\x93NUMPY\x01\x00" + bytes(20), "not_csv"),
    "e28_pickle": whole(pickle.dumps([1, 2], protocol=4), "not_csv"),
    "e28_html": whole(b"<!doctype html>\n<p>404</p>\n", "header_mismatch", 1),
    "e28_json": whole(b'{"label": [1, 2]}\n', "header_mismatch", 1),
    "e28_lfs_pointer": whole(b"version git-lfs\noid sha256:1\nsize 1\n", "header_mismatch", 1),
    "e28_zlib": whole(zlib.compress(b"label,0\n1,2\n" * 9), "encoding", 1),
}


@kind
def e03_header_only(rng, at):
    sheet = good(rng)
    return one(sheet.lines()[0][: -1 if at else None], Refused("empty_file"))


@kind
def e03_header_and_empty_lines(rng, at):
    return one(good(rng).lines()[0] + b"\n\r\n\n", Refused("empty_file"))


@kind
def e04_no_header(rng, at):
    return one(b"".join(good(rng, d=4).lines()[1:]), Refused("header_missing", 1))


@kind
def e04_header_twice(rng, at):
    """As two files put one after the other have it: at the start, in the middle, at the end."""
    sheet = good(rng)
    row = sheet.row_at(at)
    lines = sheet.lines()
    lines.insert(row + 1, lines[0])
    return one(b"".join(lines), refused(sheet, row, "label_out_of_range", "label"))


def with_names(change: Callable[[list[str], np.random.Generator], None], **how: bool) -> Kind:
    """The header's names are changed, the rows are not."""

    def break_it(rng: np.random.Generator, at: float) -> Case:
        sheet = good(rng, **how)
        change(sheet.names, rng)
        return one(sheet.text(), Refused("header_mismatch", 1))

    return break_it


def rename(old: str, new: str) -> Callable[[list[str], np.random.Generator], None]:
    def change(names: list[str], rng: np.random.Generator) -> None:
        names[names.index(old)] = new

    return change


KINDS |= {
    "e05_feature_twice": with_names(rename("1", "0")),
    "e05_label_twice": with_names(rename("1", "label")),
    "e05_path_twice": with_names(rename("1", "path"), path=True),
    "e05_no_label": with_names(rename("label", "2nd")),
    "e05_label_capital": with_names(rename("label", "Label")),
    "e05_label_space": with_names(rename("label", " label")),
    "e05_class_id_for_label": with_names(rename("label", "class_id")),
    "e05_no_name": with_names(rename("1", ""), index=True),
    "e05_line_end_in_a_name": with_names(rename("1", "a\nb")),
    "e05_escape_in_a_name": with_names(rename("1", "a\x1b[31m")),
    "e05_huge_name_of_the_label": with_names(rename("label", "l" * 3_000_000)),
    "e05_long_name_of_a_feature": with_names(rename("1", "f" * 2_000)),
    "e16_bom_twice": with_names(lambda names, rng: names.insert(0, "\ufeff\ufeff" + names.pop(0))),
}


@kind
def e05_name_with_an_open_quote(rng, at):
    return one(b'"' + good(rng, index=False).text(), Refused("header_mismatch", 1))


@kind
def e05_no_features(rng, at):
    return one(b",path,label\n0,a.png,1\n", Refused("header_mismatch", 1))


@kind
def e05_extra_text_column(rng, at):
    """Each column that is neither path nor label is a feature: a text in it is a bad number."""
    sheet = good(rng)
    sheet.names.append("author")
    sheet.rows = [[*row, "Ann"] for row in sheet.rows]
    return one(sheet.text(), Refused("bad_number", 2, "author"))


@kind
def e05_other_separator(rng, at):
    separator = b";\t|"[int(at * 2) : int(at * 2) + 1]
    return one(good(rng).text().replace(b",", separator), Refused("header_mismatch", 1))


@kind
def e05_accepts_quoted_names(rng, at):
    sheet = good(rng)
    first, *rest = sheet.lines()
    names = ",".join(f'"{name}"' for name in sheet.names).encode()
    return one(b"".join([names + b"\n", *rest]), sheet)


@kind
def e05_accepts_names_of_any_kind(rng, at):
    sheet = good(rng)
    sheet.names[sheet.names.index("0")] = "größe, 'in' \"px\""
    sheet.names[sheet.names.index("1")] = "Label"
    return one(sheet.text(), sheet)


@kind
def e05_accepts_any_text_in_the_index(rng, at):
    sheet = good(rng, index=True)
    sheet.names[0] = ("", "Unnamed: 0")[int(rng.integers(2))]
    sheet.rows[sheet.row_at(at)][0] = "nan, or 'what'\nyou like"
    return one(sheet.text(), sheet)


@kind
def e05_columns_of_the_second_file_in_another_order(rng, at):
    sheet = good(rng, index=False)
    other = Sheet(sheet.names, [list(row) for row in sheet.rows])
    order = rng.permutation(len(sheet.names))
    moved = Sheet([other.names[j] for j in order], [[row[j] for j in order] for row in other.rows])
    meant = {("v8", "new"): sheet, ("v9", "new"): other}
    # the first part's order is the backbone's: what is stored of the second follows it
    return Case({"v8_new.csv": sheet.text(), NAME: moved.text()}, Kept(meant))


def second_file(change: Callable[[Sheet], None], code: str) -> Kind:
    """Two splits of one backbone that differ: the one that is not train is named."""

    def break_it(rng: np.random.Generator, at: float) -> Case:
        first, second = good(rng, d=5, shuffled=False), good(rng, d=5, shuffled=False)
        change(second)
        files = {NAME: second.text(), "train_new.csv": first.text()}
        return Case(files, Refused(code, 1))

    return break_it


def _narrow(sheet: Sheet) -> None:
    sheet.names.pop()
    for row in sheet.rows:
        row.pop()


def _wide(sheet: Sheet) -> None:
    sheet.names.append("5")
    for row in sheet.rows:
        row.append("0.5")


KINDS |= {
    "e06_a_feature_less": second_file(_narrow, "dimension_mismatch"),
    "e06_a_feature_more": second_file(_wide, "dimension_mismatch"),
    "e05_a_feature_of_another_name": second_file(
        lambda sheet: rename("4", "5")(sheet.names, None), "header_mismatch"
    ),
}


@kind
def e06_other_dimension_than_the_old_database(rng, at):
    sheet = good(rng, d=5)
    return Case({"v9_toy.csv": sheet.text()}, Refused("dimension_mismatch", 1, None, "v9_toy.csv"),
                {"replace": False})  # fmt: skip


@kind
def e06_dimension_changes_in_the_middle(rng, at):
    sheet = good(rng)
    row = sheet.row_at(at)
    lines = sheet.lines()
    lines[row + 1 :] = [line[:-1] + b",0.5\n" for line in lines[row + 1 :]]
    return one(b"".join(lines), refused(sheet, row, "ragged_row"))


# ----------------------------------------------------------------------------------- ragged, cut


def with_line(change: Callable[[bytes], bytes], **how: bool) -> Kind:
    """One row's line is changed so that it has another number of cells."""

    def break_it(rng: np.random.Generator, at: float) -> Case:
        sheet = good(rng, **how)
        row = sheet.row_at(at)
        lines = sheet.lines()
        lines[row + 1] = change(lines[row + 1])
        return one(b"".join(lines), refused(sheet, row, "ragged_row"))

    return break_it


KINDS |= {
    "e07_short": with_line(lambda line: line.rsplit(b",", 1)[0] + b"\n"),
    "e07_long": with_line(lambda line: line[:-1] + b",0.5\n"),
    "e07_trailing_comma": with_line(lambda line: line[:-1] + b",\n"),
    "e07_one_cell": with_line(lambda line: b"# a comment\n"),
    "e07_line_of_spaces": with_line(lambda line: b"    \n"),
    "e07_two_rows_glued": with_line(lambda line: line[:-1] + b"," + line),
    "e18_carriage_return_in_a_row": with_line(
        lambda line: line.replace(b",", b"\r,", 1), shuffled=False
    ),
    "e19_quote_inside_a_cell": with_line(
        lambda line: line.replace(b"img/", b'img"', 1), path=True
    ),
    "e19_text_after_a_quote": with_line(
        lambda line: line.replace(b"img/", b'"img"', 1), path=True
    ),
    "e19_quote_never_closed": with_line(
        lambda line: line.replace(b"img/", b'"img/', 1), path=True, index=False, shuffled=False
    ),
}  # fmt: skip


@kind
def e19_two_quotes_never_closed(rng, at):
    """The rows between them would be one path: rows must not vanish in silence."""
    sheet = good(rng, path=True, n=8, index=False, shuffled=False)
    row = int(at * 3)
    lines = sheet.lines()
    for i in (row, row + 3):
        lines[i + 1] = b'"' + lines[i + 1]
    return one(b"".join(lines), refused(sheet, row, "ragged_row"))


@kind
def e22_cut_in_a_row(rng, at):
    sheet = good(rng)
    row = sheet.row_at(at)
    lines = sheet.lines()[: row + 2]
    cells = lines[-1].split(b",")
    lines[-1] = b",".join(cells[: int(rng.integers(1, len(cells)))])
    return one(b"".join(lines), refused(sheet, row, "ragged_row"))


@kind
def e23_cut_at_a_row_end(rng, at):
    """Not to be seen without a manifest: exactly the rows that are there are loaded."""
    sheet = good(rng)
    sheet.rows = sheet.rows[: sheet.row_at(at) + 1]
    return one(sheet.text()[: -1 if rng.random() < 0.5 else None], sheet)


@kind
def e23_cut_in_the_last_number(rng, at):
    sheet = good(rng, shuffled=False)
    last = sheet.names[-1]
    sheet.put(len(sheet.rows) - 1, last, sheet.column(last)[-1].split(".")[0] + ".")
    return one(sheet.text()[:-1], sheet)


@kind
def e21_row_without_an_end(rng, at):
    """70 MB in one quote: stopped, not held in memory."""
    sheet = good(rng, path=True, index=False, shuffled=False)
    row = sheet.row_at(at)
    head = b"".join(sheet.lines()[: row + 1])
    return one(head + b'"' + b"x" * (70 << 20), refused(sheet, row, "ragged_row"))


@kind
def e21_header_without_an_end(rng, at):
    return one(b"path,label," + b"a" * (17 << 20) + b"\np,0,1\n", Refused("header_mismatch", 1))


@kind
def e21_too_many_columns(rng, at):
    names = ",".join(["label", *map(str, range(100_001))]).encode()
    return one(names + b"\n0" + b",1.5" * 100_001 + b"\n", Refused("header_mismatch", 1))


# -------------------------------------------------------------------------------- bytes, line ends


def with_bytes(column: str, raw: bytes) -> Kind:
    """Bytes that are not UTF-8 in one cell of a kind of column."""

    def break_it(rng: np.random.Generator, at: float) -> Case:
        sheet = good(rng, path=True, index=True)
        name = str(rng.choice(sheet.features)) if column == "feature" else column
        row = sheet.row_at(at)
        sheet.put(row, name, "@@")
        text = sheet.text().replace(b"@@", raw)
        return one(text, refused(sheet, row, "encoding", ...))

    return break_it


KINDS |= {
    "e15_latin_1_path": with_bytes("path", "größe.png".encode("latin-1")),
    "e15_cut_sequence": with_bytes("path", "größe.png".encode()[:3]),
    "e15_overlong_slash": with_bytes("path", b"..\xc0\xafx"),
    "e15_surrogate": with_bytes("path", b"\xed\xa0\x80"),
    "e15_byte_in_a_number": with_bytes("feature", b"1.5\xff"),
    "e15_byte_in_the_label": with_bytes("label", b"\xb2"),
    "e15_byte_in_the_index": with_bytes("", b"\xff\xfe"),
}


@kind
def e15_byte_in_the_header(rng, at):
    sheet = good(rng)
    sheet.names[sheet.names.index("1")] = "@@"
    return one(sheet.text().replace(b"@@", b"\xe9"), Refused("encoding", 1))


@kind
def e15_utf_16(rng, at):
    codec = ("utf-16", "utf-16-le", "utf-16-be")[int(at * 2)]
    return one(good(rng).text().decode().encode(codec), Refused("encoding", 1))


@kind
def e16_accepts_a_bom(rng, at):
    sheet = good(rng)
    return one(b"\xef\xbb\xbf" + sheet.text("\r\n" if at else "\n"), sheet)


@kind
def e18_accepts_crlf(rng, at):
    sheet = good(rng)
    return one(sheet.text("\r\n")[: -2 if at else None], sheet)


@kind
def e18_accepts_lf_and_crlf_mixed(rng, at):
    """The rows are whole either way; a note for people who compare bytes is not needed."""
    sheet = good(rng)
    lines = sheet.lines()
    for i in rng.permutation(len(lines))[: len(lines) // 2]:
        lines[i] = lines[i][:-1] + b"\r\n"
    return one(b"".join(lines), sheet)


@kind
def e18_carriage_returns_alone(rng, at):
    return one(good(rng).text("\r"), Refused("not_csv"))


@kind
def e18_one_row_ends_in_a_carriage_return(rng, at):
    """An editor shows both rows in one line: they are refused there, or the line is lost count of."""
    sheet = good(rng, n=9)
    row = int(at * 7)
    lines = sheet.lines()
    lines[row + 1] = lines[row + 1][:-1] + b"\r"
    return one(b"".join(lines), refused(sheet, row, "ragged_row"))


@kind
def e18_accepts_no_line_end_at_the_end(rng, at):
    sheet = good(rng)
    return one(sheet.text()[:-1], sheet)


@kind
def e18_accepts_empty_lines(rng, at):
    sheet = good(rng)
    lines = sheet.lines()
    lines.insert(sheet.row_at(at) + 1, b"\n")
    return one(b"".join([*lines, b"\r\n", b"\n"]), sheet)


@kind
def e20_accepts_everything_quoted(rng, at):
    sheet = good(rng)
    rows = [",".join(f'"{cell}"' for cell in row) + "\r\n" for row in sheet.rows]
    return one(sheet.lines()[0] + "".join(rows).encode(), sheet)


@kind
def e20_lines_are_counted_as_an_editor_does(rng, at):
    """Empty lines, line ends in paths and CRLF before the fault all count."""
    sheet = good(rng, path=True, n=20)
    row, name = 10 + int(at * 9), str(rng.choice(sheet.features))
    for i in range(0, 10, 3):
        sheet.put(i, "path", f'two\nlines, "{i}"')
    sheet.put(row, name, "nan")
    lines = sheet.lines("\r\n")
    lines.insert(1, b"\r\n\n")
    return one(b"".join(lines), Refused("not_finite", sheet.line(row) + 2, name))


@kind
def e22_cut_in_a_quoted_path(rng, at):
    sheet = good(rng, path=True, shuffled=False)
    row = sheet.row_at(at)
    sheet.put(row, "path", "a, b.png")
    text = b"".join(sheet.lines()[: row + 2])
    return one(text[: text.index(b"a, b.png") + 4], refused(sheet, row, "ragged_row"))


# ------------------------------------------------------------------------------------ several rows


@kind
def e13_path_twice_with_one_label(rng, at):
    """The stated repair: the first mention stays, the others are counted."""
    sheet = good(rng, path=True)
    more = [list(sheet.rows[sheet.row_at(at)]) for _ in range(int(rng.integers(1, 4)))]
    broken = Sheet(sheet.names, [*sheet.rows, *more])
    for row in range(len(sheet.rows), len(broken.rows)):
        broken.put(row, sheet.features[0], "99.5")
    note = f"{len(more)} rows? left out"
    return one(broken.text(), Kept({("v9", "new"): sheet}, len(more), note))


@kind
def e13_path_twice_with_two_labels(rng, at):
    sheet = good(rng, path=True)
    row = sheet.row_at(at)
    sheet.rows.append(list(sheet.rows[row]))
    last = len(sheet.rows) - 1
    sheet.put(last, "label", "77")
    return one(sheet.text(), refused(sheet, last, "label_conflict", "label"))


@kind
def e13_third_mention_is_not_the_conflict(rng, at):
    """The line named is the one that contradicts, not the last one with this path."""
    sheet = good(rng, path=True, n=20)
    for row in (10, 15):
        sheet.put(row, "path", sheet.column("path")[3])
        sheet.put(row, "label", sheet.column("label")[3])
    sheet.put(10, "label", "77")
    return one(sheet.text(), refused(sheet, 10, "label_conflict", "label"))


@kind
def e13_two_labels_after_a_long_path(rng, at):
    """What came before the contradiction must not hide its line."""
    sheet = good(rng, path=True)
    sheet.put(0, "path", "p" * 200_000)
    sheet.rows.append([*sheet.rows[1]])
    sheet.put(len(sheet.rows) - 1, "label", "77")
    return one(sheet.text(), refused(sheet, len(sheet.rows) - 1, "label_conflict", "label"))


@kind
def e13_two_backbones_two_labels(rng, at):
    first = good(rng, path=True)
    second = Sheet(first.names, [list(row) for row in first.rows])
    row = second.row_at(at)
    second.put(row, "label", "77")
    return Case({"v9_a.csv": first.text(), NAME: second.text()},
                refused(second, row, "label_conflict", "label"))  # fmt: skip


@kind
def e13_two_backbones_two_labels_without_paths(rng, at):
    first = good(rng, path=False)
    second = Sheet(first.names, [list(row) for row in first.rows])
    row = second.row_at(at)
    second.put(row, "label", "77")
    return Case({"v9_a.csv": first.text(), NAME: second.text()},
                refused(second, row, "label_conflict", "label"))  # fmt: skip


@kind
def e13_path_in_train_and_test(rng, at):
    train, test = good(rng, path=True, d=3), good(rng, path=True, d=3)
    for row in range(len(train.rows)):
        train.put(row, "path", f"train/{row}.png")
    row = train.row_at(at)
    train.put(row, "path", str(rng.choice(test.column("path"))))
    return Case({NAME: test.text(), "train_new.csv": train.text()},
                Refused("leak", train.line(row), "path", "train_new.csv"))  # fmt: skip


@kind
def e13_new_train_row_is_an_old_test_row(rng, at):
    sheet = good(rng, path=True)
    row = sheet.row_at(at)
    sheet.put(row, "path", make_world()["val", "toy"].paths[4])
    return Case({"train_new.csv": sheet.text()},
                Refused("leak", sheet.line(row), "path", "train_new.csv"),
                {"replace": False})  # fmt: skip


@kind
def e13_new_test_row_is_an_old_train_row(rng, at):
    sheet = good(rng, path=True)
    sheet.put(sheet.row_at(at), "path", make_world()["train", "toy"].paths[4])
    wanted = Refused("leak", 6, "path", OLD_TRAIN)
    return Case({NAME: sheet.text()}, wanted, {"replace": False})


@kind
def e14_rows_twice_without_paths(rng, at):
    """Without names they may be two images: both stay."""
    sheet = good(rng, path=False)
    sheet.rows.append(list(sheet.rows[sheet.row_at(at)]))
    return one(sheet.text(), sheet)


@kind
def two_faults_in_two_rows(rng, at):
    """The first row that is wrong is named, whatever is wrong later."""
    sheet = good(rng, path=True, n=20, index=False, shuffled=False)
    row, name = int(at * 9), str(rng.choice(sheet.features))
    sheet.put(row, name, "nan")
    lines = sheet.lines()
    later = lines[15]
    lines[15] = (b"\xff" + later, later[:-1] + b",1\n", b'"' + later)[int(at * 2)]
    return one(b"".join(lines), refused(sheet, row, "not_finite", name))


@kind
def two_faults_in_one_row(rng, at):
    """The first column from the left is named."""
    sheet = good(rng)
    row = sheet.row_at(at)
    sheet.put(row, "label", "1.5")
    name = str(rng.choice(sheet.features))
    sheet.put(row, name, "nan")
    first = min("label", name, key=sheet.names.index)
    code = "label_out_of_range" if first == "label" else "not_finite"
    return one(sheet.text(), refused(sheet, row, code, first))


@kind
def largest_float32_before_a_fault(rng, at):
    """A good cell that only looks too large is not the one to be named."""
    sheet = good(rng, n=20)
    row, name = 5 + int(at * 14), str(rng.choice(sheet.features))
    sheet.put(2, name, "3.4028235e38")
    sheet.put(row, name, "inf")
    return one(sheet.text(), refused(sheet, row, "not_finite", name))


# -------------------------------------------------------------------------- files of several blocks


def long_kind(put: Callable[[Sheet, int, np.random.Generator], Refused | Kept]) -> Kind:
    def break_it(rng: np.random.Generator, at: float) -> Case:
        sheet = long(rng)
        wanted = put(sheet, int(rng.integers(len(sheet.rows))), rng)
        return one(sheet.text(), wanted)

    return break_it


def _long_nan(sheet: Sheet, row: int, rng: np.random.Generator) -> Refused:
    sheet.rows[row] = [*sheet.rows[row]]
    sheet.put(row, "555", "nan")
    return refused(sheet, row, "not_finite", "555")


def _long_ragged(sheet: Sheet, row: int, rng: np.random.Generator) -> Refused:
    sheet.rows[row] = sheet.rows[row][:-1]
    return refused(sheet, row, "ragged_row")


def _long_conflict(sheet: Sheet, row: int, rng: np.random.Generator) -> Refused:
    sheet.rows.append([*sheet.rows[row]])
    sheet.put(len(sheet.rows) - 1, "label", "77")
    return refused(sheet, len(sheet.rows) - 1, "label_conflict", "label")


def _long_two(sheet: Sheet, row: int, rng: np.random.Generator) -> Refused:
    """One fault in an early block, another late: the early one is named."""
    sheet.put(1_150, "path", "")
    return _long_nan(sheet, 20 + row % 500, rng)


def _long_repaired(sheet: Sheet, row: int, rng: np.random.Generator) -> Kept:
    meant = Sheet(sheet.names, list(sheet.rows))
    sheet.rows.append([*sheet.rows[row]])
    return Kept({("v9", "new"): meant}, 1, "1 row left out")


LONG = {
    "long_nan": long_kind(_long_nan),
    "long_ragged": long_kind(_long_ragged),
    "long_conflict": long_kind(_long_conflict),
    "long_two_faults": long_kind(_long_two),
    "long_repaired": long_kind(_long_repaired),
}


def _long_paths(rng: np.random.Generator, at: float) -> Case:
    """Line ends in paths, so that lines and rows differ over many blocks; then a fault."""
    sheet = long(rng)
    for row, cells in enumerate(sheet.rows):
        cells[1] = f'two\nlines, "{row}"'
    wanted = _long_nan(sheet, 1_100, rng)
    return one(sheet.text(), wanted)


LONG["long_quoted_line_ends"] = _long_paths
KINDS |= LONG


# -------------------------------------------------------------------------------------- the tests


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with a good small database; copied for each case."""
    folder = tmp_path_factory.mktemp("old")
    world = make_world()
    for name, split in ((OLD_TRAIN, "train"), (OLD_TEST, "val")):
        write_csv(folder / name, world[split, "toy"])
    etl.load(folder / "data", [folder / OLD_TRAIN, folder / OLD_TEST], n_threads=1)
    return folder / "data"


def outcome_of(case: Case) -> str:
    if isinstance(case.wanted, Refused):
        return "refused with its place"
    return "repaired and counted" if case.wanted.n_rejected else "accepted exactly"


@pytest.mark.parametrize("name", KINDS)
def test_fault(name, old, tmp_path, record_property):
    """At two of first, last and middle row (which two goes by the name); slow runs at one."""
    seed = zlib.crc32(name.encode())
    n_runs, n_done = 1, 0
    while n_done < n_runs:
        rng = np.random.default_rng([seed, n_done])
        at = (0.0, 1.0, float(rng.uniform(0.2, 0.8)))[(seed + n_done) % 3]
        case = KINDS[name](rng, at)
        if n_done == 0:
            is_small = sum(map(len, case.files.values())) < 1 << 20
            n_runs = 2 if is_small and isinstance(case.wanted, Refused) else 1
            record_property("fault", [name, outcome_of(case), n_runs])
        folder = tmp_path / str(n_done)
        folder.mkdir()
        hold(case, old, folder, rng)
        n_done += 1


def test_there_are_enough_kinds():
    assert len(KINDS) >= 75
