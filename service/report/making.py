"""A report from a data folder: computes what is missing, writes the chapters, renders the files."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from service import VERSION
from service.gap.explaining import Question
from service.report.answers import Answers
from service.report.chapters import written
from service.report.document import Numbered, Origin, numbered
from service.report.html import to_html
from service.report.material import Material
from service.report.numbers import Number, digest, report_json
from service.report.own_words import own_words
from service.report.pdf import to_pdf
from service.report.title_page import TitlePage
from service.terminal import Progress, part_of

if TYPE_CHECKING:
    from service.analysis import Analysis

PDF, HTML, JSON = "report.pdf", "report.html", "report.json"


@dataclass(frozen=True)
class Report:
    """A report that was made.

    Attributes
    ----------
    title, models, reference, target, made_at : what it is about, and when it was made
    files : content by name: report.pdf, report.html, report.json
    """

    title: str
    models: tuple[str, ...]
    reference: str
    target: str
    made_at: datetime
    files: Mapping[str, bytes]


def make_report(
    analysis: "Analysis",
    models: Sequence[str],
    *,
    reference: str | None = None,
    target: str | None = None,
    title_page: TitlePage | None = None,
    text: Mapping[str, str] | None = None,
    made_at: datetime | None = None,
    progress: Progress = lambda _share, _message: None,
) -> Report:
    """Make a report about models between two test splits.

    Parameters
    ----------
    models
        The first is what it is about; the others are compared with it.
    title_page
        Title, authors, work log; default: a title made of the splits, and no authors.
    text
        The authors' own Markdown by chapter, see `service.report.own_words`.

    Raises
    ------
    NotFound, NotATest, DataChanged, BadText, models.errors.ModelError
    """
    own = own_words(text or {})
    made_at = (made_at or datetime.now(UTC)).replace(microsecond=0)
    answers = Answers(analysis, models[0], reference, target)
    ends = (answers.reference, answers.target)
    others = tuple(dict.fromkeys(models[1:]))
    for i, other in enumerate(others):
        steps = (0.05 * i / len(others), 0.05 * (i + 1) / len(others))
        Question(analysis, other, *ends).gap(part_of(progress, *steps, prefix=f"{other}: "))
    Question(analysis, models[0], *ends).compute(progress=part_of(progress, 0.05, 0.7))
    analysis.audit(models[0], progress=part_of(progress, 0.7, 0.8))
    progress(0.8, "writing the chapters")
    material = Material(
        answers,
        tuple(dict.fromkeys(models)),
        own,
        title_page or TitlePage.model_validate({}),
    )
    document = written(material, made_at.date())
    report = numbered(document)
    listed = report_json(
        answers.all(),
        report.numbers,
        version=VERSION,
        made_at=made_at,
        models=material.models,
        reference=answers.reference,
        target=answers.target,
    )
    origins = _origins(report, answers)
    progress(0.85, "drawing the page")
    page = to_html(report, origins)
    progress(0.92, "setting the PDF")
    pdf = to_pdf(report, origins, made_at=made_at)
    return Report(
        title=document.front.title,
        models=material.models,
        reference=answers.reference,
        target=answers.target,
        made_at=made_at,
        files={
            PDF: pdf,
            HTML: page.encode(),
            JSON: json.dumps(listed, indent=1, ensure_ascii=False).encode(),
        },
    )


def _origins(report: Numbered, answers: Answers) -> list[Origin]:
    """Group the numbers by the answer that they are read from, in the order of the text."""
    by_endpoint: dict[str, list[tuple[str, Number]]] = {}
    for number in report.numbers:
        by_endpoint.setdefault(number.source.endpoint, []).append((report.id_of(number), number))
    read = {answer.endpoint: answer for answer in answers.all()}
    return [
        Origin(
            endpoint=endpoint,
            seed=read[endpoint].seed,
            digests=tuple(read[endpoint].digests.items()),
            sha256=digest(read[endpoint].content),
            numbers=tuple(found),
        )
        for endpoint, found in by_endpoint.items()
    ]
