"""`load` on the command line: its options, its progress bar, its report."""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from tqdm import tqdm

from etl.errors import LoadRefused
from etl.loader import LoadReport, load
from etl.sources import role_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `load`."""
    parser.add_argument(
        "sources",
        nargs="*",
        type=Path,
        metavar="SOURCE",
        help="feature files <split>_<backbone>.csv, or folders of them",
    )
    parser.add_argument(
        "--split",
        action="append",
        default=[],
        metavar="NAME[:BACKBONE]=FILE",
        help="a file whose name does not say its split and backbone",
    )
    parser.add_argument("--reference", metavar="NAME", help="test set 1 (default: val, test1, …)")
    parser.add_argument(
        "--paths-from",
        metavar="BACKBONE",
        help="take the paths of this backbone, row by row, for files without a path column",
    )
    parser.add_argument("--classes", type=Path, metavar="FILE", help="class names: label,name")
    parser.add_argument("--replace", action="store_true", help="forget what is loaded already")


def run(arguments: argparse.Namespace, data: Path, n_threads: int | None = None) -> LoadReport:
    """Load with a progress bar, and print the report.

    Raises
    ------
    LoadRefused
        As `etl.load` does.
    """
    bars: dict[str, tqdm[Any]] = {}

    def progress(part: str, done: int, total: int) -> None:
        if part not in bars:
            bars[part] = tqdm(
                total=total, desc=part, unit="B", unit_scale=True, delay=1, file=sys.stderr
            )
        bars[part].update(done - bars[part].n)

    try:
        report = load(
            data,
            arguments.sources,
            explicit=arguments.split,
            reference=arguments.reference,
            paths_from=arguments.paths_from,
            classes=arguments.classes,
            replace=arguments.replace,
            n_threads=n_threads,
            progress=progress,
        )
    finally:
        for bar in bars.values():
            bar.close()
    sys.stdout.write(in_words(report) + "\n")
    return report


def in_words(report: LoadReport) -> str:
    """Return the report as a table with its notes."""
    lines = []
    if report.loaded:
        lines.append(
            f"{'split':10} {'role':5} {'backbone':32} {'rows':>9} {'rejected':>8} {'features':>8} "
            f"{'classes':>7} {'seconds':>8} {'MB/s':>6}"
        )
    lines += [
        f"{part.split:10} {role_of(part.split):5} {part.backbone[:32]:32} {part.n_images:9,} "
        f"{part.n_rejected:8,} {part.n_features:8,} {part.n_classes:7,} {part.seconds_s:8.2f} "
        f"{part.mb_per_s:6.0f}"
        for part in report.loaded
    ]
    for part in report.loaded:
        lines += [f"note: {part.split} {part.backbone}: {note}" for note in part.notes]
    lines += [f"note: {note}" for note in report.notes]
    if report.kept:
        kept = ", ".join(f"{split} {backbone}" for split, backbone in report.kept)
        lines.append(f"loaded before and kept (--replace would forget them): {kept}")
    for backbone, (reference, target) in report.ends.items():
        lines.append(
            f"gap of {backbone}: accuracy on {reference} (reference) minus accuracy on {target} "
            "(target)"
            if reference and target
            else f"gap of {backbone}: needs two test splits; load another one"
        )
        if backbone not in report.has_train:
            lines.append(f"note: {backbone} has no train split yet: no head can be trained on it")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """`python -m etl`: load into $GAP_DATA (default: data)."""
    parser = argparse.ArgumentParser(prog="python -m etl", description="Load feature files.")
    add_arguments(parser)
    arguments = parser.parse_args(argv)
    try:
        run(arguments, Path(os.environ.get("GAP_DATA", "data")))
    except LoadRefused as refused:
        sys.stderr.write(f"refused ({refused.code}): {refused}\n")
        return 2
    return 0
