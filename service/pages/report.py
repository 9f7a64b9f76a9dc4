"""Reports: those that were made, and a form for another."""

from service.pages.frame import Frame
from service.report.kept import Reports
from service.report.own_words import CHAPTERS


def report(frame: Frame) -> str:
    """Page with the reports that are kept and a form for POST /reports."""
    return frame.render(
        "reports.html",
        reports=Reports(frame.site.analysis.data).all(),
        chapters=CHAPTERS,
    )
