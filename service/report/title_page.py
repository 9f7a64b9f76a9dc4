"""Who wrote a report: the YAML file of the title page, or the same as JSON.

`EXAMPLE` is such a file with comments; `gapscope report --example` prints it.
"""

from collections.abc import Sequence
from datetime import date as Day  # noqa: N812 (a field has its name)
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import ConfigDict, Field, ValidationError, field_validator

from service.errors import BadTitlePage
from service.report.document import Author, Front, Words
from service.schemas import Request

_LARGEST = 1 << 20
_TOLERANCE = 0.5  # of 100: thirds are written as 33
_Line = Annotated[str, Field(min_length=1, max_length=300)]
_Share = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]

EXAMPLE = """\
title: Why does the digit classifier fail on new writers?   # default: made from the splits
course: Big Data Analytics, winter term                     # or subtitle:
date: 2026-11-26                                            # default: today
authors:
  - {name: Ada Example, id: "1234567", share: 50}           # share of the work in percent
  - {name: Ben Example, id: "7654321", share: 50, email: ben@example.org}
work_log:                                                   # optional, an appendix
  - {date: 2026-11-20, member: Ada Example, what: Features loaded and checked}
  - {date: 2026-11-21, member: Ben Example, what: Heads trained}
timesheet:                                                  # optional, an appendix
  - {date: 2026-11-20, member: Ada Example, hours: 3.5, what: Loading and checks}
  - {date: 2026-11-21, member: Ben Example, hours: 4, what: Training}
"""


class AuthorIn(Request):
    """One author."""

    name: _Line
    id: _Line = Field(description="Matriculation or staff number.")
    share: _Share = Field(description="Of the work, in percent; those of all add up to 100.")
    email: _Line | None = None

    @field_validator("id", mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> Any:
        """Take a number without quotes too; one that YAML read as such has lost no digit."""
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


class WorkIn(Request):
    """One line of the work log."""

    date: Day
    member: _Line
    what: Annotated[str, Field(min_length=1, max_length=2000)]


class HoursIn(WorkIn):
    """One line of the timesheet."""

    hours: float = Field(gt=0, le=24, allow_inf_nan=False)


class TitlePage(Request):
    """Title, authors and their shares; work log and timesheet where they are kept."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"authors": [{"name": "Ada Example", "id": "1234567", "share": 100}]}]
        },
    )

    title: _Line | None = Field(None, description="Default: made from model and splits.")
    subtitle: _Line | None = None
    course: _Line | None = None
    date: Day | None = Field(None, description="Default: today.")
    authors: list[AuthorIn] = Field(default_factory=list, max_length=50)
    work_log: list[WorkIn] = Field(default_factory=list, max_length=2000)
    timesheet: list[HoursIn] = Field(default_factory=list, max_length=5000)

    @field_validator("authors")
    @classmethod
    def _shares_are_whole(cls, authors: list[AuthorIn]) -> list[AuthorIn]:
        total = sum(author.share for author in authors)
        if authors and abs(total - 100) > _TOLERANCE:
            shares = " + ".join(f"{author.share:g}" for author in authors)
            raise ValueError(
                f"wanted shares that add up to 100 (within {_TOLERANCE:g}), got {shares} = "
                f"{total:g}. Change one of them."
            )
        return authors


def read_title_page(file: Path) -> TitlePage:
    """Read the YAML file of a title page.

    Raises
    ------
    BadTitlePage
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise BadTitlePage(
            f"wanted a YAML file with title and authors, got {file}: {error.strerror}. Name one "
            "that can be read; gapscope report --example prints one."
        ) from error
    if len(content) > _LARGEST:
        raise BadTitlePage(
            f"wanted a YAML file of at most {_LARGEST:,} bytes, got {len(content):,} in "
            f"{file.name}. A title page is shorter."
        )
    try:
        found = yaml.safe_load(content.decode("utf-8-sig"))
    except (UnicodeDecodeError, yaml.YAMLError, RecursionError, ValueError) as error:
        what = " ".join(str(error).split())[:300]
        raise BadTitlePage(
            f"wanted YAML, got {file.name}, which is none: {what}. gapscope report --example "
            "prints a file that is."
        ) from error
    if not isinstance(found, dict):
        raise BadTitlePage(
            f"wanted names and values (title:, authors:, …), got {_kind(found)} in {file.name}. "
            "gapscope report --example prints such a file."
        )
    try:
        return TitlePage.model_validate(found)
    except ValidationError as error:
        raise BadTitlePage(_in_words(error, file.name)) from error


def _in_words(error: ValidationError, name: str) -> str:
    said = []
    for fault in error.errors(include_url=False)[:5]:
        place = ".".join(str(step) for step in fault["loc"])
        message = fault["msg"].removeprefix("Value error, ").rstrip(".")
        got = fault.get("input")
        shown = f", got {str(got)[:80]!r}" if isinstance(got, str | int | float) else ""
        said.append(f"{place}: {message}{shown}")
    known = ", ".join(TitlePage.model_fields)
    return (
        f"wanted a title page, got faults in {name}: {'; '.join(said)}. Known names: {known}. "
        "gapscope report --example prints such a file."
    )


def _kind(value: Any) -> str:
    return {list: "a list", str: "a text", type(None): "nothing"}.get(type(value), "a number")


def front_of(page: TitlePage, *, title: str, today: Day, made: Words) -> Front:
    """Return the title page as it is printed.

    Parameters
    ----------
    title, today
        What stands there where the file does not say it.
    made
        The line that says what the report was made by and from.
    """
    return Front(
        title=page.title or title,
        subtitle=page.subtitle,
        course=page.course,
        date=in_words(page.date or today),
        authors=tuple(
            Author(author.name, author.id, f"{author.share:g} %", author.email)
            for author in page.authors
        ),
        made=made,
    )


def in_words(day: Day) -> str:
    """Write a date so that nobody takes the month for the day.

    Examples
    --------
    >>> in_words(Day(2026, 11, 6))
    '6 November 2026'
    """
    return f"{day.day} {day:%B %Y}"


def hours_by_member(timesheet: Sequence[HoursIn]) -> dict[str, float]:
    """Return the hours of each member, in the order in which they first appear."""
    found: dict[str, float] = {}
    for line in timesheet:
        found[line.member] = found.get(line.member, 0.0) + line.hours
    return found
