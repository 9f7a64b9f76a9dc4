"""The appendices: work log, timesheet, and where each number comes from."""

from collections.abc import Iterator

from service.report.document import Block, Chapter, Column, Heading, Table, words
from service.report.material import Material, paragraph
from service.report.title_page import hours_by_member, in_words


def appendices(material: Material) -> Iterator[Chapter]:
    """Return the appendices; the last is the place for the list of numbers."""
    page = material.page
    if page.work_log or page.timesheet:
        yield Chapter("work", "Who did what", tuple(_work(material)))
    yield Chapter("numbers", "Where each number comes from", tuple(_numbers()))


def _work(material: Material) -> Iterator[Block]:
    page = material.page
    if page.work_log:
        yield Heading(words("Work log"), 3)
        yield Table(
            None,
            (),
            (Column("date"), Column("who"), Column("what", wide=True)),
            tuple(
                (words(in_words(line.date)), words(line.member), words(line.what))
                for line in page.work_log
            ),
        )
    if not page.timesheet:
        return
    yield Heading(words("Timesheet"), 3)
    yield Table(
        None,
        (),
        (Column("date"), Column("who"), Column("hours", "right"), Column("what", wide=True)),
        tuple(
            (
                words(in_words(line.date)),
                words(line.member),
                words(f"{line.hours:g}"),
                words(line.what),
            )
            for line in page.timesheet
        ),
    )
    yield paragraph("Hours of each member, all together:")
    yield Table(
        None,
        (),
        (Column("who", wide=True), Column("hours", "right")),
        tuple(
            (words(name), words(f"{hours:g}"))
            for name, hours in hours_by_member(page.timesheet).items()
        ),
    )


def _numbers() -> Iterator[Block]:
    yield paragraph(
        "Every number of this report, and every sentence that was taken over as it stands, is "
        "listed here under the address of the answer that it is read from: an endpoint of the "
        "service, or a view of the database. Beside it stands its place in that answer, a JSON "
        "pointer (RFC 6901). Under each address stand the seed of what chance is in it and, for "
        "each set of images, the beginning of the digest of its data. The same list is in "
        "report.json beside this report: gapscope reproduce report.json computes all of it anew "
        "and says what differs. What the authors wrote in their own paragraphs is not in the list."
    )
