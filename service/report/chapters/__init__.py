"""The chapters of a report: each from answers to blocks; `written` puts them in order."""

from datetime import date

from service import VERSION
from service.report.chapters.appendices import appendices
from service.report.chapters.building import building
from service.report.chapters.conclusions import conclusions, summary
from service.report.chapters.discovery import discovery
from service.report.chapters.planning import planning
from service.report.chapters.preparation import preparation
from service.report.chapters.results import results
from service.report.document import Document, words
from service.report.material import Material
from service.report.title_page import front_of

_CHAPTERS = (discovery, preparation, planning, building, results, conclusions)


def written(material: Material, today: date) -> Document:
    """Write a report.

    Parameters
    ----------
    today
        Its date, where the title page has none.
    """
    reference, target = material.reference, material.target
    title = f"Why does {material.model} score lower on {target} than on {reference}?"
    if not material.has_gap:
        title = f"Does {material.model} score differently on {target} than on {reference}?"
    elif not material.is_lower:
        title = f"Why does {material.model} score higher on {target} than on {reference}?"
    made = words(
        f"Made by Gapscope {VERSION}. Numbers, figures and the sentences about them are written "
        "from the results; the last appendix says where each comes from."
    )
    return Document(
        front=front_of(material.page, title=title, today=today, made=made),
        summary=summary(material),
        chapters=tuple(chapter(material) for chapter in _CHAPTERS),
        appendices=tuple(appendices(material)),
    )
