"""`reproduce` on the command line."""

import argparse
import sys

from fastapi import FastAPI

from service.analysis import Analysis, resources_of
from service.app import create_app
from service.report.document import plain
from service.report.reproducing import ReproducedOut, read_report, reproduce
from service.settings import Settings
from service.terminal import progress_bar

SAME, DIFFERS = 0, 1  # beside 2 for refused
_SHOWN = 40  # lines of what differs


def run_reproduce(arguments: argparse.Namespace, settings: Settings) -> int:
    """Compute the numbers of a report anew; 0 all the same, 1 not."""
    report = read_report(arguments.report)
    with progress_bar(arguments.report.name) as progress:
        found = reproduce(
            Analysis(settings.data, resources_of(settings)),
            report,
            lambda analysis: served(analysis, settings),
            results=arguments.results,
            retrain=arguments.retrain,
            progress=progress,
        )
    text = found.model_dump_json(indent=1) if arguments.json else in_words(found)
    sys.stdout.write(text + "\n")
    return SAME if found.all_same else DIFFERS


def served(analysis: Analysis, settings: Settings) -> FastAPI:
    """Make the service over an analysis, without its workers: whoever asks has it computed."""
    # asked in this process alone: nobody has to be kept out
    inside = {"data": analysis.data, "host": "127.0.0.1", "token": None, "token_file": None}
    app = create_app(settings.model_copy(update=inside), with_worker=False)
    app.state.analysis = analysis
    return app


def in_words(found: ReproducedOut) -> str:
    """Return what came of it as lines: what changed, the count, a table of what differs."""
    lines = list(found.summary)
    if found.differing:
        lines += ["", f"{'number':8} {'report':>14} {'now':>14}  where"]
    for one in found.differing[:_SHOWN]:
        now = "not found" if one.verdict == "not found" else _now(one.now_text, one.now)
        lines.append(
            f"{one.id[:8]:8} {_short(one.text):>14} {now:>14}  {one.endpoint}{one.pointer}"
        )
        if one.reason is not None:
            lines.append(f"{'':8} {one.reason}")
        if one.changed:
            lines.append(f"{'':8} rests on changed data: {', '.join(one.changed)}")
    if len(found.differing) > _SHOWN:
        lines.append(f"and {len(found.differing) - _SHOWN:,} more: --json has all")
    # what came from the file may hold what moves a cursor
    return "\n".join(plain(line) for line in [*lines, "", *found.computed])


def _now(text: str | None, value: object) -> str:
    return _short(text if text is not None else "unknown" if value is None else str(value))


def _short(text: str) -> str:
    return text if len(text) <= 14 else text[:13] + "…"
