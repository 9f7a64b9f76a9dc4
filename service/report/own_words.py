"""The authors' own paragraphs: Markdown, one text a chapter, as blocks of the document.

CommonMark with tables. What stands before the first heading opens the chapter; each heading begins
a section at its end. HTML is shown as the text that it is; an image is named, not taken: what a
report shows comes from the results.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from markdown_it import MarkdownIt
from markdown_it.tree import SyntaxTreeNode

from service.errors import BadText
from service.report.document import (
    Block,
    Bullets,
    Column,
    Heading,
    Inline,
    Paragraph,
    Quote,
    Table,
    Text,
    Verbatim,
    Words,
)

CHAPTERS = ("discovery", "preparation", "planning", "building", "results", "conclusions")
LARGEST = 200_000  # characters of one chapter
_DEEPEST = 20
_Style = Literal["plain", "emphasis", "strong", "code"]


@dataclass(frozen=True)
class OwnWords:
    """The authors' own text of one chapter."""

    opening: tuple[Block, ...] = ()
    sections: tuple[Block, ...] = ()


def own_words(texts: Mapping[str, str]) -> dict[str, OwnWords]:
    """Return the authors' own text by chapter; all chapters are there.

    Parameters
    ----------
    texts
        Markdown by chapter: its number from 1 to 6, or its name in `CHAPTERS`.

    Raises
    ------
    BadText
        An unknown chapter, one given twice, or a text that is too long or nested too deep.
    """
    found: dict[str, OwnWords] = {}
    for name, text in texts.items():
        chapter = CHAPTERS[int(name) - 1] if name in "123456" and len(name) == 1 else name
        if chapter not in CHAPTERS:
            numbers = ", ".join(f"{i + 1} or {one}" for i, one in enumerate(CHAPTERS))
            raise BadText(f"wanted a text of a chapter ({numbers}), got one of {name[:80]!r}.")
        if chapter in found:
            raise BadText(f"wanted one text of chapter {chapter}, got two. Put them into one.")
        if len(text) > LARGEST:
            raise BadText(
                f"wanted at most {LARGEST:,} characters of chapter {chapter}, got {len(text):,}. "
                "Shorten it."
            )
        found[chapter] = _parted(_blocks(text, chapter))
    return {chapter: found.get(chapter, OwnWords()) for chapter in CHAPTERS}


def read_texts(folder: Path) -> dict[str, str]:
    """Read the Markdown files of a folder, by the chapters that they are named for.

    Raises
    ------
    BadText
        No folder, nothing in it, or a file that is not UTF-8.
    """
    files = sorted(folder.glob("*.md")) if folder.is_dir() else []
    if not files:
        raise BadText(
            f"wanted a folder with 1.md … 6.md or {CHAPTERS[0]}.md … {CHAPTERS[-1]}.md, got "
            f"{folder}, which has none. Write at least one."
        )
    found = {}
    for file in files:
        try:
            found[file.stem] = file.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise BadText(
                f"wanted text in UTF-8, got {file.name}: {error}. Save it anew as UTF-8."
            ) from error
    return found


def _parted(blocks: Sequence[Block]) -> OwnWords:
    first = next((i for i, b in enumerate(blocks) if isinstance(b, Heading)), len(blocks))
    return OwnWords(tuple(blocks[:first]), tuple(blocks[first:]))


def _blocks(text: str, chapter: str) -> list[Block]:
    parser = MarkdownIt("commonmark", {"html": False, "maxNesting": _DEEPEST}).enable("table")
    tree = SyntaxTreeNode(parser.parse(text))
    levels = [int(node.tag[1]) for node in tree.children if node.type == "heading"]
    top = min(levels, default=1)
    return [block for node in tree.children for block in _block(node, top, chapter)]


def _block(node: SyntaxTreeNode, top: int, chapter: str) -> Iterator[Block]:
    kind = node.type
    if kind == "paragraph":
        yield Paragraph(_words(node))
    elif kind == "heading":
        yield Heading(_words(node), 2 if int(node.tag[1]) == top else 3)
    elif kind in ("bullet_list", "ordered_list"):
        items = tuple(
            tuple(b for child in item.children for b in _inner(child, chapter))
            for item in node.children
        )
        yield Bullets(items, ordered=kind == "ordered_list")
    elif kind == "blockquote":
        yield Quote(tuple(b for child in node.children for b in _inner(child, chapter)))
    elif kind in ("fence", "code_block", "html_block"):
        yield Verbatim(node.content.rstrip("\n"))
    elif kind == "table":
        yield _table(node)
    elif kind != "hr":  # a line between paragraphs: their distance says it
        raise BadText(f"wanted CommonMark in chapter {chapter}, got {kind!r}, which is not taken.")


def _inner(node: SyntaxTreeNode, chapter: str) -> Iterator[Block]:
    """Return blocks inside others: a heading there begins no section."""
    for block in _block(node, 1, chapter):
        if isinstance(block, Heading):
            yield Paragraph(tuple(_styled(one, "strong") for one in block.words))
        else:
            yield block


def _table(node: SyntaxTreeNode) -> Table:
    rows = [row for part in node.children for row in part.children]
    cells = [tuple(_words(cell) for cell in row.children) for row in rows]
    aligned = ["right" in str(cell.attrs.get("style", "")) for cell in rows[0].children]
    columns = tuple(
        Column(
            "".join(one.text for one in title if isinstance(one, Text)),
            "right" if right else "left",
            wide=not right,
        )
        for title, right in zip(cells[0], aligned, strict=True)
    )
    return Table(None, (), columns, tuple(cells[1:]))


def _words(node: SyntaxTreeNode) -> Words:
    inline = node.children[0] if node.children and node.children[0].type == "inline" else node
    return tuple(_inlines(inline.children, "plain"))


def _inlines(nodes: Sequence[SyntaxTreeNode], style: _Style) -> Iterator[Inline]:
    for node in nodes:
        kind = node.type
        if kind in ("text", "html_inline"):
            yield Text(node.content, style)
        elif kind == "code_inline":
            yield Text(node.content, "code")
        elif kind in ("softbreak", "hardbreak"):
            yield Text(" ", style)
        elif kind in ("em", "strong"):
            yield from _inlines(node.children, "strong" if kind == "strong" else "emphasis")
        elif kind == "link":
            shown = list(_inlines(node.children, style))
            yield from shown
            address = str(node.attrs.get("href", ""))
            if address and address != "".join(one.text for one in shown if isinstance(one, Text)):
                yield Text(f" ({address})", style)
        elif kind == "image":
            yield Text(f"[image not taken: {node.content or 'without a name'}]", style)


def _styled(one: Inline, style: _Style) -> Inline:
    return Text(one.text, style) if isinstance(one, Text) and one.style == "plain" else one
