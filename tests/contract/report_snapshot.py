"""The sentences of the toy world's report as a file: `python -m tests.contract.report_snapshot`."""

import json
import tempfile
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

from etl import load
from service.analysis import Analysis
from service.report.making import Report, make_report
from service.report.title_page import TitlePage
from tests.world import make_world, write_world

FILE = Path(__file__).parent / "snapshots" / "report.txt"
TITLE_PAGE = {
    "title": "A report on toys",
    "course": "Tests",
    "authors": [
        {"name": "Ada Example", "id": "1234567", "share": 60},
        {"name": "Ben Example", "id": "7654321", "share": 40},
    ],
    "work_log": [{"date": "2026-11-20", "member": "Ada Example", "what": "Loading"}],
    "timesheet": [{"date": "2026-11-20", "member": "Ada Example", "hours": 3.5, "what": "Loading"}],
}
TEXT = {
    "1": "Our *own* opening <script>alert(1)</script>.\n\n# Our own section\n\n- a\n- b\n",
    "results": "What we think of it.",
}
_BREAKS = {"p", "h1", "h2", "h3", "h4", "li", "tr", "caption", "figcaption", "section", "title"}


def toy_report(analysis: Analysis) -> Report:
    """Make the report that the snapshot is of."""
    return make_report(
        analysis,
        ["logistic", "mean"],
        title_page=TitlePage.model_validate(TITLE_PAGE),
        text=TEXT,
        made_at=datetime(2026, 11, 26, 12, tzinfo=UTC),
    )


def text_of(page: str) -> str:
    """Return the words of a report's page, without style, charts and the list of numbers."""
    reader = _Words()
    reader.feed(page)
    lines = [" ".join(line.split()) for line in "".join(reader.found).split("\n")]
    text = "\n".join(line for line in lines if line)
    return text.split("\n/", 1)[0] + "\n"  # the list of numbers begins with an address


class _Words(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._silent = 0

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self._silent += tag in ("style", "svg")
        if tag in _BREAKS:
            self.found.append("\n")
        elif tag in ("td", "th"):
            self.found.append(" | ")

    def handle_endtag(self, tag: str) -> None:
        self._silent -= tag in ("style", "svg")

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.found.append(data.replace("\n", " "))


def main() -> None:
    """Write the snapshot of the present sentences."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        load(data, [write_world(Path(folder) / "csv", make_world())], n_threads=1)
        analysis = Analysis(data)
        for model, head in (("logistic", "logistic"), ("mean", "nearest_mean")):
            analysis.train(model=model, backbone="toy", head=head, params={}, seed=0)
            analysis.evaluate(model)
        made = toy_report(analysis)
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(text_of(made.files["report.html"].decode()), encoding="utf-8")
    numbers = len(json.loads(made.files["report.json"])["numbers"])
    print(f"{FILE.name}: {numbers} numbers and sentences")


if __name__ == "__main__":
    main()
