"""What every PDF must be: more than a few pages, fonts inside, nothing outside the margins."""

import io
import os
from pathlib import Path

import numpy as np
import pypdfium2
from pypdf import PdfReader

_SIDE_MM, _TOP_MM, _BOTTOM_MM = 20, 18, 8
_A4_MM = (210, 297)


def check_pdf(content: bytes, name: str) -> None:
    """Check the pages, and keep pictures of them where CI wants some."""
    reader = PdfReader(io.BytesIO(content))
    assert len(reader.pages) > 3
    fonts = [
        font.get_object()
        for page in reader.pages
        for font in page["/Resources"].get("/Font", {}).values()
    ]
    assert fonts
    for font in fonts:
        (inner,) = font["/DescendantFonts"]
        descriptor = inner.get_object()["/FontDescriptor"].get_object()
        assert {"/FontFile2", "/FontFile3"} & set(descriptor), font["/BaseFont"]
    for number, picture in enumerate(_pages(content), 1):
        _keep(picture, f"{name}-{number:02}")
        grey = np.asarray(picture.convert("L"))
        height, width = grey.shape
        side, top, bottom = (
            round(width * _SIDE_MM / _A4_MM[0]),
            round(height * _TOP_MM / _A4_MM[1]),
            round(height * _BOTTOM_MM / _A4_MM[1]),
        )
        for edge in (grey[:, :side], grey[:, -side:], grey[:top], grey[-bottom:]):
            assert (edge == 255).all(), (name, number)


def _pages(content):
    found = pypdfium2.PdfDocument(content)
    try:
        for page in found:
            yield page.render(scale=0.8).to_pil()
            page.close()
    finally:
        found.close()


def _keep(picture, name):
    if folder := os.environ.get("GAPSCOPE_SHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        picture.save(f"{folder}/{name}.png")
