"""Rows that contradict each other, faults that hide others, files of several blocks."""

from collections.abc import Callable

import numpy as np

from tests.faults.sheet import (
    KINDS,
    NAME,
    OLD_TRAIN,
    Case,
    Kept,
    Kind,
    Refused,
    Sheet,
    good,
    kind,
    long,
    one,
    refused,
)
from tests.world import make_world


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


KINDS |= {
    "long_nan": long_kind(_long_nan),
    "long_ragged": long_kind(_long_ragged),
    "long_conflict": long_kind(_long_conflict),
    "long_two_faults": long_kind(_long_two),
    "long_repaired": long_kind(_long_repaired),
}


@kind
def long_quoted_line_ends(rng: np.random.Generator, at: float) -> Case:
    """Line ends in paths, so that lines and rows differ over many blocks; then a fault."""
    sheet = long(rng)
    for row, cells in enumerate(sheet.rows):
        cells[1] = f'two\nlines, "{row}"'
    wanted = _long_nan(sheet, 1_100, rng)
    return one(sheet.text(), wanted)
