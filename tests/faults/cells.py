"""One cell is wrong, or is written in an unusual way."""

import numpy as np

from tests.faults.sheet import KINDS, Case, Kind, good, kind, one, refused


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
