"""Names of the classes, from a file that the user gives."""

import csv
from pathlib import Path

from etl.errors import BadLabel, HeaderMismatch, SourceNotFound
from etl.header import LABEL
from etl.rows import label_fault


def read_class_names(file: Path) -> dict[int, str]:
    """Name of each class: a CSV with columns `label` and `name`, or one name a line from class 0.

    Raises
    ------
    SourceNotFound, HeaderMismatch, BadLabel
        No such file; a CSV without these columns; a label that is no whole number, or is there
        twice.
    """
    if not file.is_file():
        raise SourceNotFound("a class-name file", "nothing there", "Check the path.", file=file)
    lines = file.read_text(encoding="utf-8-sig").splitlines()
    if not lines or "," not in lines[0]:
        return {i: line.strip() for i, line in enumerate(lines) if line.strip()}
    reader = csv.DictReader(lines)
    if not {LABEL, "name"} <= set(reader.fieldnames or ()):
        raise HeaderMismatch(
            "columns label and name",
            ", ".join(reader.fieldnames or ()),
            "Rename the columns, or give one name a line.",
            file=file,
            line=1,
        )
    names: dict[int, str] = {}
    for row in reader:
        fault = label_fault(row[LABEL] or "")
        if fault is not None or int(row[LABEL]) in names:
            raise BadLabel(
                "each class number once",
                repr(row[LABEL]),
                "Repair the row.",
                file=file,
                line=reader.line_num,
                column=LABEL,
            )
        names[int(row[LABEL])] = row["name"]
    return names
