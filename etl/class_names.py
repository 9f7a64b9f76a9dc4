"""Names and superclasses of the classes, from a file that the user gives."""

import csv
import io
from dataclasses import dataclass, field
from pathlib import Path

from etl.cells import label_fault
from etl.errors import BadLabel, Encoding, HeaderMismatch, RaggedRow, SourceNotFound
from etl.header import LABEL

NAME, SUPERCLASS = "name", "superclass"


@dataclass(frozen=True)
class ClassFile:
    """What a class-name file says.

    Attributes
    ----------
    names : of each class, by its label
    superclasses : of those that have one
    """

    names: dict[int, str]
    superclasses: dict[int, str] = field(default_factory=dict)


def read_class_file(file: Path) -> ClassFile:
    """Read names: a CSV with columns `label` and `name`, or one name a line from class 0.

    The CSV may have a column `superclass`: any text; an empty cell is none.

    Raises
    ------
    SourceNotFound, Encoding, HeaderMismatch, RaggedRow, BadLabel
        No such file; bytes that are not UTF-8; a CSV without these columns; a row with another
        number of cells, or an unclosed quote; a label that is no whole number, or is there twice.
    """
    if not file.is_file():
        raise SourceNotFound("a class-name file", "nothing there", "Check the path.", file=file)
    text = _text_of(file)
    lines = text.split("\n")
    if "," not in lines[0]:
        return ClassFile({i: line.strip() for i, line in enumerate(lines) if line.strip()})
    (_, header), *rows = _rows_of(text, file)
    if header.count(LABEL) != 1 or header.count(NAME) != 1 or header.count(SUPERCLASS) > 1:
        raise HeaderMismatch(
            "columns label and name, once each, and superclass at most once",
            repr(", ".join(header)[:80]),
            "Rename the columns, or give one name a line.",
            file=file,
            line=1,
        )
    found = ClassFile({})
    for line, cells in rows:
        if len(cells) != len(header):
            raise RaggedRow(
                f"{len(header)} cells, as the header has",
                f"{len(cells)}",
                "Repair the row; a name with a comma stands in quotes.",
                file=file,
                line=line,
            )
        label = cells[header.index(LABEL)]
        if label_fault(label) is not None or int(label) in found.names:
            raise BadLabel(
                "each class number once",
                repr(label[:40]),
                "Repair the row.",
                file=file,
                line=line,
                column=LABEL,
            )
        found.names[int(label)] = cells[header.index(NAME)]
        if SUPERCLASS in header and cells[header.index(SUPERCLASS)].strip():
            found.superclasses[int(label)] = cells[header.index(SUPERCLASS)].strip()
    return found


def _text_of(file: Path) -> str:
    content = file.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Encoding(
            "UTF-8 text",
            f"byte 0x{error.object[error.start]:02x}",
            "Save the file as UTF-8.",
            file=file,
            line=1 + error.object.count(b"\n", 0, error.start),
        ) from error


def _rows_of(text: str, file: Path) -> list[tuple[int, list[str]]]:
    """Cells of each row that is not empty, with the line on which it begins."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows, line = [], 1
    try:
        for cells in reader:
            if cells:
                rows.append((line, cells))
            line = reader.line_num + 1
    except csv.Error as error:
        raise RaggedRow(
            "one row a line, quotes closed", str(error), "Repair it.", file=file, line=line
        ) from error
    return rows
