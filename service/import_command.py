"""`import-predictions` on the command line: its progress bar, its report."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from service.errors import UnusedOption
from service.importing import ImportReport, import_predictions
from service.settings import Settings
from service.terminal import progress_bar


def run(arguments: argparse.Namespace, settings: Settings) -> None:
    """Import with a progress bar, and print what was done."""
    with progress_bar("import") as progress:
        report = import_predictions(
            settings.data,
            _each_once(arguments.files),
            model=arguments.model,
            images=_each_once(arguments.images),
            replace=arguments.replace,
            n_threads=settings.threads,
            progress=progress,
        )
    sys.stdout.write(in_words(report) + "\n")


def in_words(report: ImportReport) -> str:
    """Return what was imported: images of each split, accuracy of each model, notes."""
    lines = [f"{'split':10} {'rows':>9} {'repeated':>9} {'matched':>9} {'new':>9} {'ambiguous':>9}"]
    lines += [
        f"{split:10} {report.files[split].n_rows:9,} {report.files[split].n_repeated:9,} "
        f"{placed.n_matched:9,} {placed.n_new:9,} {placed.n_ambiguous:9,}"
        for split, placed in report.placed.items()
    ]
    for model, top1 in report.top1.items():
        accuracies = ", ".join(f"{split} {share:.2%}" for split, share in top1.items())
        lines.append(f"{model}: accuracy on {accuracies}")
    lines += [f"note: {note}" for note in report.notes]
    lines.append("note: what an imported model learnt from is unknown here")
    return "\n".join(lines)


def _each_once(files: Sequence[tuple[str, Path]]) -> dict[str, Path]:
    splits = [split for split, _ in files]
    twice = next((split for split in splits if splits.count(split) > 1), None)
    if twice is not None:
        raise UnusedOption(
            f"wanted one file for each split, got two for {twice!r}. Put their rows together."
        )
    return dict(files)
