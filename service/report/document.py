"""What a report consists of: chapters of blocks, and the numbers of figures, tables and papers.

Nothing here knows HTML, Typst or Vega beyond carrying a chart's spec.
"""

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from service.report.numbers import Number

# they reorder the text around them, so that a name could rewrite a sentence
_REORDERING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def plain(text: str) -> str:
    r"""Return text that can be printed: no control characters, none that reorder other text.

    Examples
    --------
    >>> plain("a\x00b\tc\u202ed")
    'ab cd'
    """
    spaced = text.replace("\t", " ").replace("\r\n", "\n").replace("\r", "\n")
    spaced = spaced.replace(" %", "\u00a0%")  # never at the beginning of a line
    return "".join(
        c
        for c in spaced
        if c == "\n" or (unicodedata.category(c) not in ("Cc", "Cs") and c not in _REORDERING)
    )


@dataclass(frozen=True)
class Text:
    """Words; of several styles at most one."""

    text: str
    style: Literal["plain", "emphasis", "strong", "code"] = "plain"


@dataclass(frozen=True)
class Ref:
    """A reference to a figure, table or chapter, by its key."""

    key: str


@dataclass(frozen=True)
class Cite:
    """References to papers, by their keys in `references.PAPERS`."""

    keys: tuple[str, ...]


Inline = Text | Number | Ref | Cite
Words = tuple[Inline, ...]


def words(*parts: "str | Inline | Words") -> Words:
    """Put words in a row: strings become plain text.

    Examples
    --------
    >>> words("see ", Ref("gap"), ".")
    (Text(text='see ', style='plain'), Ref(key='gap'), Text(text='.', style='plain'))
    """
    found: list[Inline] = []
    for part in parts:
        if isinstance(part, str):
            found += [Text(part)] if part else []
        elif isinstance(part, tuple):
            found += part
        else:
            found.append(part)
    return tuple(found)


@dataclass(frozen=True)
class Paragraph:
    """Sentences."""

    words: Words


@dataclass(frozen=True)
class Heading:
    """A heading below the chapter's: level 2 is numbered, 3 is not."""

    words: Words
    level: Literal[2, 3] = 2


@dataclass(frozen=True)
class Bullets:
    """A list; each item holds blocks."""

    items: tuple[tuple["Block", ...], ...]
    ordered: bool = False


@dataclass(frozen=True)
class Quote:
    """What somebody else said."""

    blocks: tuple["Block", ...]


@dataclass(frozen=True)
class Verbatim:
    """Text that keeps its lines."""

    text: str


@dataclass(frozen=True)
class Figure:
    """A chart.

    Attributes
    ----------
    key : what `Ref` names it by
    spec : its Vega-Lite spec
    caption : what it shows, and what to see in it
    alternative : the same for those who cannot see it
    """

    key: str
    spec: dict[str, Any]
    caption: Words
    alternative: str


@dataclass(frozen=True)
class Column:
    """A column of a table; `wide` ones share the space that the others leave."""

    title: str
    align: Literal["left", "right"] = "left"
    wide: bool = False


@dataclass(frozen=True)
class Table:
    """Rows under titles; without a key it has no number."""

    key: str | None
    caption: Words
    columns: tuple[Column, ...]
    rows: tuple[tuple[Words, ...], ...]
    small: bool = False


Block = Paragraph | Heading | Bullets | Quote | Verbatim | Figure | Table


@dataclass(frozen=True)
class Chapter:
    """A chapter: numbered, or an appendix with a letter."""

    key: str
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Author:
    """Who wrote the report, and how much of it."""

    name: str
    id: str
    share: str
    email: str | None = None


@dataclass(frozen=True)
class Front:
    """The title page."""

    title: str
    subtitle: str | None
    course: str | None
    date: str
    authors: tuple[Author, ...]
    made: Words


@dataclass(frozen=True)
class Document:
    """A whole report, before anything in it has a number."""

    front: Front
    summary: tuple[Block, ...]
    chapters: tuple[Chapter, ...]
    appendices: tuple[Chapter, ...] = ()


@dataclass(frozen=True)
class Origin:
    """Where the numbers of one answer come from: a block of the appendix."""

    endpoint: str
    seed: int | None
    digests: tuple[tuple[str, str], ...]
    sha256: str
    numbers: tuple[tuple[str, Number], ...]


@dataclass(frozen=True)
class Numbered:
    """A document and the labels of what is in it.

    Attributes
    ----------
    labels : "Figure 2", "Table 1", "Chapter 3" or "Appendix A" by key
    papers : keys of the papers in the order in which they are cited: the first is [1]
    numbers : every number once, in the order of the text
    """

    document: Document
    labels: dict[str, str]
    papers: tuple[str, ...]
    numbers: tuple[Number, ...]
    _ids: dict[Number, str] = field(repr=False)

    def cited(self, cite: Cite) -> str:
        """Write a citation: "[2, 5]"."""
        return f"[{', '.join(str(n) for n in sorted(self.papers.index(k) + 1 for k in cite.keys))}]"

    def id_of(self, number: Number) -> str:
        """Return the id of a number, as in report.json."""
        return self._ids[number]

    def label(self, ref: Ref) -> str:
        """Return what a reference reads."""
        return self.labels[ref.key]


def numbered(document: Document) -> Numbered:
    """Give figures, tables, chapters, papers and numbers their labels.

    Raises
    ------
    ValueError
        A reference leads nowhere, two things have one key, or a figure or table with a key is
        never referred to: a fault of the chapters, never of what the user wrote.
    """
    labels: dict[str, str] = {}
    counts = {"Figure": 0, "Table": 0}
    papers: dict[str, None] = {}
    numbers: dict[Number, str] = {}
    referred: set[str] = set()

    def label(key: str, text: str) -> None:
        if key in labels:
            raise ValueError(f"two things are called {key!r}")
        labels[key] = text

    for i, chapter in enumerate(document.chapters):
        label(chapter.key, f"Chapter {i + 1}")
    for i, chapter in enumerate(document.appendices):
        label(chapter.key, f"Appendix {chr(ord('A') + i)}")
    for block in _blocks_of(document):
        kind = type(block).__name__
        if isinstance(block, Figure | Table) and block.key is not None:
            counts[kind] += 1
            label(block.key, f"{kind} {counts[kind]}")
    for inline in inlines_of(document):
        if isinstance(inline, Cite):
            papers.update(dict.fromkeys(inline.keys))
        elif isinstance(inline, Ref):
            referred.add(inline.key)
        elif isinstance(inline, Number):
            numbers.setdefault(inline, f"N{len(numbers) + 1}")
    lost = referred - set(labels)
    unseen = {key for key, text in labels.items() if text[:6] in ("Figure", "Table ")} - referred
    if lost or unseen:
        raise ValueError(f"referred to and not there: {lost}; there and not referred to: {unseen}")
    return Numbered(document, labels, tuple(papers), tuple(numbers), numbers)


def _blocks_of(document: Document) -> Iterator[Block]:
    yield from _inside(document.summary)
    for chapter in (*document.chapters, *document.appendices):
        yield from _inside(chapter.blocks)


def _inside(blocks: Sequence[Block]) -> Iterator[Block]:
    for block in blocks:
        yield block
        if isinstance(block, Quote):
            yield from _inside(block.blocks)
        elif isinstance(block, Bullets):
            for item in block.items:
                yield from _inside(item)


def inlines_of(document: Document) -> Iterator[Inline]:
    """Return all that stands in sentences, captions and cells, in the order of the text."""
    yield from document.front.made
    for block in _blocks_of(document):
        if isinstance(block, Paragraph | Heading):
            yield from block.words
        elif isinstance(block, Figure | Table):
            yield from block.caption
            if isinstance(block, Table):
                for row in block.rows:
                    for cell in row:
                        yield from cell
