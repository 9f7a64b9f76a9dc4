"""Ragged rows, cut files, quotes, bytes and line ends."""

from collections.abc import Callable

import numpy as np

from tests.faults.sheet import KINDS, Case, Kind, Refused, good, kind, one, refused


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
    """An editor shows both rows in one line: refused there, or lines are lost count of."""
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
