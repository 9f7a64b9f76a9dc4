"""A report as a PDF, set by Typst with the fonts that it brings: the same on every machine.

Every text becomes a Typst string by `string`, the only way in: inside quotes nothing is markup.
"""

import unicodedata
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime

import typst

from service import charts
from service.report.document import (
    Block,
    Bullets,
    Chapter,
    Cite,
    Figure,
    Heading,
    Inline,
    Numbered,
    Origin,
    Paragraph,
    Quote,
    Ref,
    Table,
    Text,
    Verbatim,
    Words,
    plain,
)
from service.report.numbers import Number
from service.report.references import PAPERS

FONT = "Libertinus Serif"
_MONO = "DejaVu Sans Mono"
_LONGEST = 22  # characters of a word that needs no place to break
_NARROW = 28  # characters of a cell that needs no more room than it takes
_SHORT = 9  # rows
_BREAKS = frozenset("_/-.,:&?=+")
# scripts that the fonts above have; a name in another one is set in what the machine has
_SCRIPTS = ("LATIN", "GREEK", "CYRILLIC", "COMBINING", "MODIFIER", "SUPERSCRIPT", "SUBSCRIPT")

_HEAD = """\
#set page(paper: "a4", margin: (x: 25mm, top: 25mm, bottom: 25mm), numbering: "1",
  footer-descent: 10mm)
#set text(font: FONTS, size: 10.5pt, lang: "en", hyphenate: true)
#set par(justify: true, leading: 0.65em, spacing: 1.05em)
#set heading(numbering: (..n) => if n.pos().len() < 3 { numbering("1.1", ..n) })
#show heading.where(level: 1): set text(size: 16pt)
#show heading.where(level: 2): set text(size: 12.5pt)
#show heading.where(level: 3): set text(size: 10.5pt, style: "italic")
#show heading.where(level: 1): set block(above: 2.2em, below: 1.1em, sticky: true)
#show heading.where(level: 2): set block(above: 1.8em, below: 0.9em, sticky: true)
#show raw: set text(font: MONO, size: 8.5pt)
#show heading.where(level: 1): it => { place.flush(); it }
#set figure(gap: 0.9em)
#set place(clearance: 2em)
#show figure: set block(above: 1.5em, below: 1.5em)
#show figure.where(kind: table): set figure.caption(position: top)
#show figure.where(kind: table): set align(left)
#show figure.caption: it => block(width: 100%, sticky: it.kind == table, align(left,
  text(size: 9.5pt, {
  set par(justify: false)
  strong[#it.supplement #context it.counter.display(it.numbering).]
  [ ]
  it.body
})))
#set table(stroke: none, inset: (x: 4pt, y: 3.2pt))
#show table.cell.where(y: 0): set text(weight: "bold")
#show table: set text(size: 9.5pt, hyphenate: false)
#show table: set par(justify: false, leading: 0.5em)
#let hline = table.hline(stroke: 0.5pt)
#show outline: set text(size: 9.8pt)
#show outline: set par(leading: 0.5em)
#let long(body) = { show figure.where(kind: table): set block(breakable: true); body }
#let small(body) = { show table: set text(size: 8pt); body }
"""


def string(text: str) -> str:
    r"""Write text as a Typst expression that is nothing but this text.

    Examples
    --------
    >>> print(string('a "b" #c'))
    #"a \"b\" #c";
    """
    inside = _breakable(plain(text)).replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")
    return f'#"{inside}";'


def _literal(text: str) -> str:
    """Write text as a Typst string for use as an argument."""
    return '"' + plain(text).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def _breakable(text: str) -> str:
    """Let long words, such as paths, break where a sign stands, and else anywhere."""
    return " ".join(_parted(word) if len(word) > _LONGEST else word for word in text.split(" "))


def _parted(word: str) -> str:
    found, since = [], 0
    for c in word:
        found.append(c)
        since += 1
        if (c in _BREAKS and since > 3) or since >= _LONGEST:
            found.append("\u200b")
            since = 0
    return "".join(found)


def to_pdf(report: Numbered, origins: Sequence[Origin], *, made_at: datetime) -> bytes:
    """Return the report as a PDF.

    Parameters
    ----------
    origins
        Where the numbers come from: the last appendix.
    made_at
        Date of the file: the same report is the same file.
    """
    source = to_typst(report, origins)
    fonts = typst.Fonts(include_system_fonts=_needs_other_fonts(source))
    found = typst.compile(source.encode(), font_paths=fonts, format="pdf", timestamp=made_at)
    return bytes(found)


def _needs_other_fonts(source: str) -> bool:
    letters = {c for c in source if ord(c) > 0x2FF and unicodedata.category(c)[0] == "L"}
    return any(not unicodedata.name(c, "").startswith(_SCRIPTS) for c in letters)


def to_typst(report: Numbered, origins: Sequence[Origin]) -> str:
    """Return the report as Typst markup."""
    document = report.document
    front = document.front
    out = [
        f"#set document(title: {_literal(front.title)}, "
        f"author: ({''.join(_literal(one.name) + ', ' for one in front.authors)}))",
        f'#let FONTS = ("{FONT}", "DejaVu Sans Mono")',
        f'#let MONO = "{_MONO}"',
        _HEAD,
        _title_page(report),
        "#pagebreak(weak: true)",
    ]
    if document.summary:
        out.append("#heading(numbering: none, outlined: false)[Summary]")
        out += [_block(block, report) for block in document.summary]
    out.append("#pagebreak(weak: true)\n#outline(depth: 2, indent: auto)\n#pagebreak(weak: true)")
    for chapter in document.chapters:
        out += _chapter(chapter, report)
    if report.papers:
        out.append("#heading(numbering: none)[References]")
        rows = "".join(
            f"[{string(f'[{i + 1}]')}], [{string(PAPERS[key])}],\n"
            for i, key in enumerate(report.papers)
        )
        out.append(
            "#grid(columns: (auto, 1fr), column-gutter: 0.8em, row-gutter: 0.75em,\n" + rows + ")"
        )
    if document.appendices:
        out.append(
            "#pagebreak(weak: true)\n#counter(heading).update(0)\n"
            '#set heading(numbering: (..n) => if n.pos().len() == 1 { numbering("A", ..n) })'
        )
    for chapter in document.appendices:
        out += _chapter(chapter, report)
    out.append(_origins(origins))
    return "\n".join(out) + "\n"


def _title_page(report: Numbered) -> str:
    front = report.document.front
    out = [
        "#page(numbering: none)[",
        "#set par(justify: false)",
        "#v(1fr)",
        "#align(center)[",
        f"#text(size: 23pt, weight: 700, hyphenate: false)[{string(front.title)}]",
    ]
    out += [
        f"\n#v(0.4em)\n#text(size: 13pt)[{string(line)}]"
        for line in (front.subtitle, front.course)
        if line
    ]
    out.append(f"\n#v(1em)\n{string(front.date)}")
    if front.authors:
        has_mail = any(one.email for one in front.authors)
        columns = "(auto, auto, auto" + (", auto)" if has_mail else ")")
        head = ["Author", "Id", "Share of the work"] + ["Email"] * has_mail
        rows = [[one.name, one.id, one.share] + [one.email or ""] * has_mail
                for one in front.authors]  # fmt: skip
        cells = "".join(f"[{string(cell)}], " for row in rows for cell in row)
        out.append(
            f"#v(2.5em)\n#table(columns: {columns}, align: left, inset: (x: 9pt, y: 4pt), "
            "hline, "
            + f"table.header({''.join(f'[{title}], ' for title in head)}), hline, {cells}hline)"
        )
    out.append("]\n#v(2fr)")
    out.append(f"#align(center, text(size: 9pt)[{_words(front.made, report)}])")
    out.append("]")
    return "\n".join(out)


def _chapter(chapter: Chapter, report: Numbered) -> Iterable[str]:
    yield f"= {string(chapter.title)} <{_label(chapter.key)}>"
    for block in chapter.blocks:
        yield _block(block, report)


def _block(block: Block, report: Numbered) -> str:
    match block:
        case Paragraph():
            return _words(block.words, report) + "\n"
        case Heading():
            return f"#heading(level: {block.level})[{_words(block.words, report)}]\n"
        case Bullets():
            items = "".join(
                "[" + "\n".join(_block(one, report) for one in item).strip() + "], "
                for item in block.items
            )
            # between items as much as between lines of one: they are sentences
            return f"#{'enum' if block.ordered else 'list'}(spacing: 0.8em, {items})\n"
        case Quote():
            inside = "\n".join(_block(one, report) for one in block.blocks)
            return f"#quote(block: true)[{inside}]\n"
        case Verbatim():
            return f"#block(width: 100%, raw(block: true, {_literal(_wrapped(block.text))}))\n"
        case Figure():
            return _figure(block, report)
        case Table():
            return _table(block, report)


def _wrapped(text: str, width: int = 84) -> str:
    """Break lines that would leave the page."""
    return "\n".join(
        line[start : start + width]
        for line in plain(text).split("\n")
        for start in range(0, max(1, len(line)), width)
    )


def _figure(figure: Figure, report: Numbered) -> str:
    picture = charts.printed(figure.spec, FONT)
    return (
        f"#figure(kind: image, supplement: [Figure], caption: [{_words(figure.caption, report)}], "
        f"placement: auto, alt: {_literal(figure.alternative)})"
        f"[#box(image(bytes({_literal(picture)}), "
        f'format: "svg", width: {_width(picture)}, alt: {_literal(figure.alternative)}))] '
        f"<{_label(figure.key)}>\n"
    )


def _width(picture: str) -> str:
    """Width of a chart on the page: as wide as the text, or less where it would be too high."""
    size = {}
    for name in ("width", "height"):
        size[name] = float(picture.split(f'{name}="', 1)[1].split('"', 1)[0])
    text_mm, height_mm, mm_a_pixel = 160.0, 200.0, 0.27
    scale = min(text_mm / size["width"], height_mm / size["height"], mm_a_pixel)
    return f"{size['width'] * scale:.2f}mm"


def _table(table: Table, report: Numbered) -> str:
    columns = ", ".join(
        "1fr" if column.wide and _longest(table, i) > _NARROW else "auto"
        for i, column in enumerate(table.columns)
    )
    aligns = ", ".join(column.align for column in table.columns)
    head = "".join(f"[{string(column.title)}], " for column in table.columns)
    rows = "".join(
        "".join(f"[{_words(cell, report)}], " for cell in row) + "\n" for row in table.rows
    )
    made = (
        f"table(columns: ({columns},), align: ({aligns},), hline, "
        f"table.header({head}), hline,\n{rows}hline)"
    )
    if table.small:
        made = f"small({made})"
    if table.key is None:
        return f"#{made}\n"
    caption = _words(table.caption, report)
    figure = f"[#figure(kind: table, caption: [{caption}], {made}) <{_label(table.key)}>]"
    # a short table stays on one page
    return f"#long{figure}\n" if len(table.rows) > _SHORT else figure[1:-1] + "\n"


def _longest(table: Table, i: int) -> int:
    """Characters of the longest cell of a column, as it is printed."""
    cells = [row[i] for row in table.rows]
    return max((sum(len(_shown(one)) for one in cell) for cell in cells), default=0)


def _shown(one: Inline) -> str:
    return one.text if isinstance(one, Text | Number) else "[1, 2, 3]"


def _words(words: Words, report: Numbered) -> str:
    return "".join(_inline(one, report) for one in words)


_STYLES: dict[str, Callable[[str], str]] = {
    "plain": lambda inside: inside,
    "emphasis": lambda inside: f"#emph[{inside}]",
    "strong": lambda inside: f"#strong[{inside}]",
    "code": lambda inside: f"#text(font: MONO, size: 0.85em)[{inside}]",
}


def _inline(one: Inline, report: Numbered) -> str:
    match one:
        case Text():
            return _STYLES[one.style](string(one.text))
        case Number():
            return string(one.text)
        case Ref():
            return f"#link(<{_label(one.key)}>)[{string(report.label(one))}]"
        case Cite():
            return string(report.cited(one))


def _label(key: str) -> str:
    """Write a key of ours as a Typst label: keys are letters and hyphens."""
    return "k-" + "".join(c if c.isalnum() or c == "-" else "-" for c in key)


def _origins(origins: Sequence[Origin]) -> str:
    """Write where the numbers come from: in two columns of small type."""
    if not origins:
        return ""
    out = ["#columns(2, gutter: 6mm)[", "#set text(size: 7pt)", "#set par(justify: false)"]
    for origin in origins:
        state = [f"seed {origin.seed}" if origin.seed is not None else "no chance in it"]
        state += [f"{split} {sha[:12]}" for split, sha in origin.digests]
        rows = "".join(
            f"[{string(name)}], [{string(shortened(number))}], "
            f"[#text(font: MONO, size: 0.85em)[{string(number.source.pointer)}]], "
            for name, number in origin.numbers
        )
        out += [
            f"#block(above: 1.4em, below: 0.5em, sticky: true)[#strong[{string(origin.endpoint)}]"
            f"#linebreak(){string('; '.join(state))}]",
            "#{ show table: set text(size: 7pt); table(columns: (auto, 1fr, 1.5fr), "
            f"align: left, inset: (x: 2pt, y: 1.6pt), {rows}) }}",
        ]
    out.append("]")
    # the bold of first rows is for headers, which these have not
    return '#[\n#show table.cell: set text(weight: "regular")\n' + "\n".join(out) + "\n]"


def shortened(number: Number, longest: int = 48) -> str:
    """Return the text of a number; of a sentence its beginning."""
    text = number.text
    return text if len(text) <= longest else text[: longest - 1].rstrip() + "…"
