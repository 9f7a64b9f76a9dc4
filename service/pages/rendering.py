"""Templates, filters and the page's own files."""

import hashlib
import json
import re
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import zopfli.gzip
from fastapi import Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from service import charts, sentences, trainings
from service.errors import NotFound
from service.pages.glossary import GLOSSARY, explained, term

_FOLDER = Path(__file__).parents[1]
_TYPES = {".css": "text/css", ".js": "text/javascript"}
_VEGA = "vega.js"  # made by an installed package, not a file of ours
_IMPORT = re.compile(r'from "\./([\w.]+)"')


def render(template: str, **values: Any) -> str:
    """Return a page as HTML."""
    return str(_environment().get_template(template).render(**values))


def rounded(value: float, digits: int = 1, signed: bool = False) -> str:
    """Round a number for people: a zero has no sign.

    Examples
    --------
    >>> rounded(-0.04), rounded(0.04, signed=True), rounded(-5.26, signed=True)
    ('0.0', '0.0', '-5.3')
    """
    text = f"{value:{'+' if signed else ''}.{digits}f}"
    return text if any(digit in text for digit in "123456789") else text.lstrip("+-")


def chart_page(spec: dict[str, Any]) -> str:
    """Page with one chart and all that it needs; the spec stands in it as data, not as script."""
    text = json.dumps(spec).replace("<", "\\u003c")
    # all in one file, so that it can be kept and handed on
    parts = {
        name.split(".")[0]: content(name).decode() for name in ("style.css", "charts.js", _VEGA)
    }
    scripts = {name: part.replace("</script", "<\\/script") for name, part in parts.items()}
    return render("chart.html", title=spec.get("description", "chart"), spec=text, **scripts)


def static_file(name: str, *, takes_gzip: bool) -> Response:
    """Return one of the page's own files, packed where the client takes that.

    Raises
    ------
    NotFound
    """
    if name not in static_names():
        raise NotFound(f"wanted one of {', '.join(static_names())}, got {name!r}.")
    # its address holds its digest: what was fetched once is never asked for again
    headers = {"Cache-Control": "public, max-age=31536000, immutable", "Vary": "Accept-Encoding"}
    kind = _TYPES[Path(name).suffix]
    if not takes_gzip:
        return Response(content(name), media_type=kind, headers=headers)
    headers["Content-Encoding"] = "gzip"
    return Response(_packed(name), media_type=kind, headers=headers)


@cache
def static_names() -> tuple[str, ...]:
    """Names of the page's own files."""
    return (*sorted(file.name for file in (_FOLDER / "static").iterdir()), _VEGA)


@cache
def content(name: str) -> bytes:
    """Return one of the page's own files; what it imports is named by its full address.

    A module under two addresses is run twice: every form would be sent twice.
    """
    if name == _VEGA:
        return charts.vega_bundle().encode()
    text = (_FOLDER / "static" / name).read_text(encoding="utf-8")
    return _IMPORT.sub(lambda found: f'from "{static_address(found[1])}"', text).encode()


@cache
def _packed(name: str) -> bytes:
    # plain gzip leaves the bundle above 300 kB, which a slow line feels
    return bytes(zopfli.gzip.compress(content(name), numiterations=5))


def static_address(name: str) -> str:
    """Return the address of one of the page's own files; another content, another address."""
    if name == _VEGA:  # made in a second, and only by the page's charts: not to be waited for here
        return f"/static/{_VEGA}?v={charts.VEGA_VERSION}"
    return f"/static/{name}?v={hashlib.sha256(content(name)).hexdigest()[:12]}"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_FOLDER / "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {
        "setting": trainings.in_words,
        "points": lambda share: rounded(share * 100),
        "signed": lambda share: rounded(share * 100, signed=True),
        "percent": lambda share: f"{rounded(share * 100)} %",
        "rounded": rounded,
        "ends": lambda value: sentences.points(value.low, value.high),
        "p": lambda value: "< .001" if value < 0.001 else f"{value:.3f}",
        "count": lambda number: f"{number:,}",
        "explained": explained,
        "dict_with": lambda values, more: {**values, **more},
        "query": lambda values: urlencode(
            [(name, value) for name, value in values.items() if value not in (None, "")]
        ),
    }
    environment.globals |= {"static": static_address, "term": term, "glossary": GLOSSARY}
    return environment
