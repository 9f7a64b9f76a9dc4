"""The file as a whole, its header, and a second file that does not fit the first."""

import gzip
import io
import pickle
import zipfile
import zlib
from collections.abc import Callable

import numpy as np

from tests.faults.sheet import (
    KINDS,
    NAME,
    Case,
    Kept,
    Kind,
    Refused,
    Sheet,
    good,
    kind,
    one,
    refused,
)


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
    rest = sheet.lines()[1:]
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
