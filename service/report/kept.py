"""The reports of a data folder: made by jobs, kept until newer ones take their place.

reports/<id>/report.pdf, report.html, report.json
reports/<id>/card.json      written last: without it there is no report
"""

import hashlib
import re
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ConfigDict, Field

from etl.sidecar import replace_whole
from service.errors import NotFound
from service.report.making import HTML, JSON, PDF, Report, make_report
from service.report.own_words import LARGEST
from service.report.title_page import TitlePage
from service.schemas import Answer, JobOut, ModelName, Request
from service.terminal import Progress

if TYPE_CHECKING:
    from service.analysis import Analysis

FOLDER = "reports"
ID = r"^[0-9a-f]{12}$"
KEPT = 20
TYPES = {PDF: "application/pdf", HTML: "text/html; charset=utf-8", JSON: "application/json"}
_CARD = "card.json"


class ReportIn(Request):
    """Make a report."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "models": ["pixels-logistic"],
                    "title_page": {
                        "course": "Big Data Analytics",
                        "authors": [{"name": "Ada Example", "id": "1234567", "share": 100}],
                    },
                    "text": {"discovery": "We want to know why *new writers* are harder."},
                }
            ]
        },
    )

    models: list[ModelName] = Field(
        min_length=1, max_length=20, description="The first is what it is about."
    )
    reference: str | None = Field(None, description="A test split; default: as the load says.")
    target: str | None = Field(None, description="A test split; default: as the load says.")
    title_page: TitlePage = Field(
        default_factory=lambda: TitlePage.model_validate({}), description="Title, authors, shares."
    )
    text: dict[str, str] = Field(
        default_factory=dict,
        max_length=6,
        description="The authors' own Markdown by chapter: 1 to 6, or discovery, preparation, "
        f"planning, building, results, conclusions. At most {LARGEST:,} characters each.",
    )


class ReportJobOut(JobOut):
    """The job that makes a report, and the id that the report will have."""

    report: str = Field(description="GET /reports/{report}, once the job is done.")


class ReportOut(Answer):
    """A report that was made."""

    report: str
    title: str
    models: list[str]
    reference: str
    target: str
    made_at: datetime
    n_bytes: dict[str, int] = Field(description="Size of each file.")
    sha256: dict[str, str] = Field({}, description="Digest of each file; none of an old report.")


class Reports:
    """The reports of one data folder."""

    def __init__(self, data: Path) -> None:
        self._folder = data / FOLDER

    def all(self) -> list[ReportOut]:
        """Return the cards of all reports, newest first."""
        files = self._folder.glob(f"*/{_CARD}")
        found = [self._card(file) for file in files if re.fullmatch(ID, file.parent.name)]
        return sorted(found, key=lambda card: (card.made_at, card.report), reverse=True)

    def card(self, report: str) -> ReportOut:
        """Return the card of one report.

        Raises
        ------
        NotFound
        """
        return self._card(self._file(report, _CARD))

    def content(self, report: str, name: str) -> bytes:
        """Return a file of a report: one of `TYPES`.

        Raises
        ------
        NotFound
        """
        if name not in TYPES:
            raise NotFound(f"wanted one of {', '.join(TYPES)}, got {name[:80]!r}.")
        self.card(report)
        return self._file(report, name).read_bytes()

    def wrong(self, report: str) -> str | None:
        """Return what is wrong with a report, in words; None where it is whole."""
        try:
            card = self._card(self._folder / report / _CARD)
            contents = {name: (self._folder / report / name).read_bytes() for name in TYPES}
        except FileNotFoundError as error:
            return f"{Path(error.filename).name} is missing"
        except ValueError:
            return f"{_CARD} cannot be read"
        for name, content in contents.items():
            found = hashlib.sha256(content).hexdigest()
            if len(content) != card.n_bytes[name] or found != card.sha256.get(name, found):
                return f"{name} is not as it was made"
        return None

    def keep(self, report: str, made: Report) -> ReportOut:
        """Keep a report under an id, and forget the oldest where there are too many."""
        card = ReportOut(
            report=report,
            title=made.title,
            models=list(made.models),
            reference=made.reference,
            target=made.target,
            made_at=made.made_at,
            n_bytes={name: len(content) for name, content in made.files.items()},
            sha256={n: hashlib.sha256(content).hexdigest() for n, content in made.files.items()},
        )
        folder = self._folder / report
        files = {**made.files, _CARD: card.model_dump_json(indent=1).encode()}
        try:
            for name, content in files.items():
                replace_whole(folder / name, partial(_write, content))
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        for old in self.all()[KEPT:]:
            shutil.rmtree(self._folder / old.report, ignore_errors=True)
        return card

    def _file(self, report: str, name: str) -> Path:
        file = self._folder / report / name
        if re.fullmatch(ID, report) is None or not file.is_file():
            raise NotFound(
                f"wanted a report of this service, got {report[:80]!r}. GET /reports lists them; "
                f"the newest {KEPT} are kept."
            )
        return file

    def _card(self, file: Path) -> ReportOut:
        return ReportOut.model_validate_json(file.read_bytes())


def _write(content: bytes, file: Path) -> None:
    file.write_bytes(content)


def make_and_keep(
    analysis: "Analysis",
    asked: Mapping[str, Any],
    *,
    progress: Progress = lambda _share, _message: None,
) -> ReportOut:
    """Make the report that a job asks for, and keep it.

    Parameters
    ----------
    asked
        `report`, its id, and the fields of `ReportIn`.

    Raises
    ------
    As of `make_report`.
    """
    body = ReportIn.model_validate({k: v for k, v in asked.items() if k != "report"})
    made = make_report(
        analysis,
        body.models,
        reference=body.reference,
        target=body.target,
        title_page=body.title_page,
        text=body.text,
        made_at=datetime.now(UTC),
        progress=progress,
    )
    return Reports(analysis.data).keep(asked["report"], made)


def write_beside(made: Report, pdf: Path) -> list[Path]:
    """Write a report's files: the PDF where it is wanted, the others beside it.

    `-o essay.pdf` gives essay.pdf, essay.html and essay.json.
    """
    written = []
    for name, content in made.files.items():
        file = pdf.with_suffix(Path(name).suffix)
        replace_whole(file, partial(_write, content))
        written.append(file)
    (pdf.parent / ".lock").unlink(missing_ok=True)
    return written
