"""A good feature file as a sheet of cells, what must happen once it is broken, and the check of it.

A kind of fault draws a good sheet, breaks it at one place and says what must come: a refusal with
its place, or exactly these rows in the database. `hold` does the load through the loader's door and
holds everything that must be true of any load: the refusal has its place, its words are short and
printable, the old database is byte for byte what it was, no file is left; or rows read = kept +
rejected and every vector is the nearest float32 of its text.
"""

import csv
import dataclasses
import hashlib
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import EllipsisType
from typing import Any

import duckdb
import numpy as np
import pytest

import etl
from etl.database import DATABASE, attach, quoted

NAME = "v9_new.csv"
OLD_TRAIN, OLD_TEST = "train_toy.csv", "val_toy.csv"
TREE = dict[str, str]


@dataclass
class Sheet:
    """Cells of one feature file; a cell is quoted on writing where it has to be."""

    names: list[str]
    rows: list[list[str]]

    def lines(self, end: str = "\n") -> list[bytes]:
        """Header and rows as they stand in the file, each with its end."""
        return [(_joined(cells) + end).encode() for cells in [self.names, *self.rows]]

    def text(self, end: str = "\n") -> bytes:
        return b"".join(self.lines(end))

    def line(self, row: int) -> int:
        """Line in the file on which a row begins."""
        return 1 + sum(line.count(b"\n") for line in self.lines()[: row + 1])

    def column(self, name: str) -> list[str]:
        j = self.names.index(name)
        return [cells[j] for cells in self.rows]

    def put(self, row: int, name: str, cell: str) -> None:
        self.rows[row][self.names.index(name)] = cell

    def row_at(self, at: float) -> int:
        """Row at a share of the file: 0 is the first, 1 the last."""
        return round(at * (len(self.rows) - 1))

    @property
    def features(self) -> list[str]:
        return [n for n in self.names if n not in ("label", "path", "", "Unnamed: 0")]

    def paths(self, split: str) -> list[str]:
        if "path" in self.names:
            return self.column("path")
        return [f"{split}/row-{i}" for i in range(len(self.rows))]

    def matrix(self) -> np.ndarray:
        """The rule of the numbers: the float32 nearest to what Python reads."""
        columns = [[float(cell) for cell in self.column(name)] for name in self.features]
        return np.array(columns).astype(np.float32).T


def _joined(cells: list[str]) -> str:
    text = ",".join(cells)
    if text.count(",") == len(cells) - 1 and not re.search('["\r\n]', text):
        return text
    return ",".join(map(written, cells))


def written(cell: str) -> str:
    """A cell as a CSV writer writes it."""
    return '"' + cell.replace('"', '""') + '"' if re.search('[,"\r\n]', cell) else cell


def good(
    rng: np.random.Generator,
    *,
    n: int | None = None,
    d: int | None = None,
    path: bool | None = None,
    index: bool | None = None,
    shuffled: bool | None = None,
) -> Sheet:
    """A good sheet: its size, its columns and their order are drawn where they are not given."""
    n = int(rng.integers(3, 40)) if n is None else n
    d = int(rng.integers(2, 12)) if d is None else d
    path = bool(rng.random() < 0.7) if path is None else path
    index = bool(rng.random() < 0.5) if index is None else index
    shuffled = bool(rng.random() < 0.3) if shuffled is None else shuffled
    values = rng.normal(size=(n, d)) * 10.0 ** rng.integers(-3, 3)
    cells = [[_number(rng, value) for value in row] for row in values.tolist()]
    columns = ["label", *map(str, range(d))]
    rows = [[str(rng.integers(0, 5)), *row] for row in cells]
    if path:
        columns = ["path", *columns]
        rows = [[f"img/{i:04d}.png", *row] for i, row in enumerate(rows)]
    order = rng.permutation(len(columns)) if shuffled else range(len(columns))
    columns, rows = [columns[j] for j in order], [[row[j] for j in order] for row in rows]
    if index:
        columns, rows = ["", *columns], [[str(i), *row] for i, row in enumerate(rows)]
    return Sheet(columns, rows)


def long(rng: np.random.Generator) -> Sheet:
    """A good sheet of some 12 MB, so that any reader takes it in several blocks."""
    few = good(rng, n=16, d=700, path=True, index=True, shuffled=False)
    tails = [cells[2:] for cells in few.rows]
    rows = [[str(i), f"img/{i:05d}.png", *tails[i % len(tails)]] for i in range(1_200)]
    return Sheet(few.names, rows)


def _number(rng: np.random.Generator, value: float) -> str:
    """A number with a point in it, so that no row of data looks like a header."""
    forms = (f"{value:.6f}", repr(float(np.float32(value))), repr(value), f"{value:.5e}")
    return forms[int(rng.integers(len(forms)))]


@dataclass(frozen=True)
class Refused:
    """The refusal that must come; `...` leaves a part of it open."""

    code: str
    line: int | EllipsisType | None = None
    column: str | EllipsisType | None = None
    file: str | EllipsisType | None = NAME


@dataclass(frozen=True)
class Kept:
    """What must be in the database: a sheet a part, and how many rows were left out."""

    sheets: Mapping[tuple[str, str], Sheet]
    n_rejected: int = 0
    note: str = ""


@dataclass(frozen=True)
class Case:
    """Files to load in one call, and what must come.

    Beside the door's own options, `classes` names one of the files and `only` the one to be loaded.
    """

    files: Mapping[str, bytes]
    wanted: Refused | Kept
    options: Mapping[str, object] = field(default_factory=dict)


Kind = Callable[[np.random.Generator, float], Case]
KINDS: dict[str, Kind] = {}


def kind(function: Kind) -> Kind:
    """Register a kind by its name; it gets a generator and the place, as a share of the rows."""
    KINDS[function.__name__] = function
    return function


def refused(sheet: Sheet, row: int, code: str, column: str | EllipsisType | None = None) -> Refused:
    """The refusal that names a row of a sheet."""
    return Refused(code, sheet.line(row), column)


def one(text: bytes, wanted: Refused | Kept | Sheet, **options: object) -> Case:
    """A case of one file; a sheet stands for: exactly these rows."""
    if isinstance(wanted, Sheet):
        wanted = Kept({("v9", "new"): wanted})
    return Case({NAME: text}, wanted, options)


def tree(folder: Path) -> TREE:
    """Digest of every file under a folder, by its place in it."""
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def query(data: Path, sql: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
    """Rows that the data folder's database answers."""
    con = duckdb.connect()
    try:
        attach(con, data)
        return con.execute(sql, parameters).fetchall()
    finally:
        con.close()


def stored(data: Path, split: str, backbone: str) -> tuple[list[str], list[int], np.ndarray]:
    """Paths, labels and vectors of one part, in the order in which its rows were stored."""
    rows = query(
        data,
        f"""select i.path, i.class_id, f.vector from feature.{quoted(backbone)} as f
        inner join image as i on f.image_id = i.image_id where i.split = ? order by f.rowid""",
        [split],
    )
    vectors = np.array([row[2] for row in rows], np.float32)
    return [row[0] for row in rows], [row[1] for row in rows], vectors


def hold(case: Case, old: Path, folder: Path, rng: np.random.Generator) -> None:
    """Load a case beside a copy of the old data folder, and hold what must be true."""
    data = folder / "data"
    shutil.copytree(old, data)
    for name, text in case.files.items():
        (folder / name).write_bytes(text)
    replace = bool(rng.random() < 0.5)
    options = {"replace": replace, "n_threads": int(rng.integers(1, 3)), **case.options}
    only = options.pop("only", None)
    places = [folder / name for name in case.files if name != case.options.get("classes")]
    if only is not None:
        places = [folder / str(only)]
    if "classes" in options:
        options["classes"] = folder / str(options["classes"])
    hold_load(data, places, case.wanted, **options)
    shutil.rmtree(folder)


def hold_load(
    data: Path, places: Sequence[Path], wanted: Refused | Kept, **options: object
) -> None:
    """Load places into a data folder that has a database, and hold what must be true."""
    before = tree(data)
    csv.field_size_limit(131_072)  # as in a fresh process: no load may live on what another set
    if isinstance(wanted, Refused):
        with pytest.raises(etl.LoadRefused) as refused:
            etl.load(data, places, **options)
        hold_refusal(refused.value, wanted)
        assert tree(data) == before
        return
    report = etl.load(data, places, **options)
    left = set(tree(data)) - set(before)
    assert not left, f"files left behind: {left}"
    hold_rows(data, report, wanted)


def hold_refusal(error: etl.LoadRefused, wanted: Refused) -> None:
    """Code and place are the ones wanted; the words are there, short, and safe to print."""
    file = None if error.file is None else Path(error.file).name
    came = Refused(error.code, error.line, error.column, file)
    left_open = {name: ... for name, value in vars(wanted).items() if value is ...}
    assert dataclasses.replace(came, **left_open) == wanted, str(error)
    assert error.wanted
    assert error.came
    assert error.todo
    assert len(str(error)) < 2_000
    assert str(error).isprintable()


def hold_rows(data: Path, report: etl.LoadReport, wanted: Kept) -> None:
    """Rows read = kept + rejected, in the report and in the database; every value is exact."""
    assert {(part.split, part.backbone) for part in report.loaded} == set(wanted.sheets)
    assert sum(part.n_rejected for part in report.loaded) == wanted.n_rejected
    for part in report.loaded:
        sheet = wanted.sheets[part.split, part.backbone]
        assert part.n_rows_read == part.n_images + part.n_rejected
        assert part.n_images == len(sheet.rows)
        assert part.n_features == len(sheet.features)
        assert re.search(wanted.note, "; ".join(part.notes))
        paths, labels, vectors = stored(data, part.split, part.backbone)
        assert paths == sheet.paths(part.split)
        assert labels == [int(cell) for cell in sheet.column("label")]
        assert vectors.tobytes() == sheet.matrix().tobytes()
    uneven = "select file from load_report where n_rows_read <> n_images + n_rejected"
    assert query(data, uneven) == []
    assert (data / DATABASE).stat().st_size > 0
