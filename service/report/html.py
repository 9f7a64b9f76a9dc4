"""A report as one HTML file: style and charts inside, no script, nothing fetched."""

import base64
import hashlib
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from service import charts
from service.report.document import (
    Bullets,
    Chapter,
    Cite,
    Figure,
    Heading,
    Numbered,
    Origin,
    Paragraph,
    Quote,
    Ref,
    Table,
    Text,
    Verbatim,
    plain,
)
from service.report.numbers import Number
from service.report.references import PAPERS

_TEMPLATES = Path(__file__).parent.parent / "templates"
_FONT = "Georgia, 'Liberation Serif', serif"
_KINDS = (Paragraph, Heading, Bullets, Quote, Verbatim, Figure, Table, Text, Number, Ref, Cite)


def to_html(report: Numbered, origins: Sequence[Origin]) -> str:
    """Return the report as a page.

    Parameters
    ----------
    origins
        Where the numbers come from: the last appendix.
    """
    style = _style()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return str(
        _environment()
        .get_template("report.html")
        .render(
            report=report,
            front=report.document.front,
            document=report.document,
            contents=_contents(report),
            papers=[PAPERS[key] for key in report.papers],
            origins=origins,
            style=Markup(style),
            policy=f"default-src 'none'; style-src 'sha256-{digest}'",
        )
    )


def _contents(report: Numbered) -> list[tuple[str, str, Chapter]]:
    document = report.document
    return [
        (chapter.key, report.labels[chapter.key].split()[-1], chapter)
        for chapter in (*document.chapters, *document.appendices)
    ]


def _picture(figure: Figure) -> Markup:
    """Return a chart as SVG inside the page.

    Vega escapes what stands in it; its ids are made those of this figure, since a page has one
    name space.
    """
    picture = charts.printed(figure.spec, _FONT)
    prefix = f"{figure.key}-"
    picture = re.sub(r'\bid="', f'id="{prefix}', picture)
    picture = picture.replace("url(#", f"url(#{prefix}").replace('href="#', f'href="#{prefix}')
    label = Markup.escape(plain(figure.alternative))
    return Markup(picture.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1))


@cache
def _style() -> str:
    return (_TEMPLATES / "report.css").read_text(encoding="utf-8")


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_printable,
    )
    for kind in _KINDS:
        environment.tests[kind.__name__.lower()] = _is(kind)
    environment.filters["picture"] = _picture
    return environment


def _printable(value: Any) -> Any:
    """Clean whatever the template writes; what is markup already was cleaned when it was made."""
    return plain(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _is(kind: type) -> Any:
    return lambda value: isinstance(value, kind)
