"""`load` on the command line: its progress bar, its report."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from etl.errors import LoadRefused
from etl.images import LinkReport, link_images, roots_in
from etl.loader import LoadReport, load
from etl.options import add_arguments
from etl.sidecar import IMAGES, LINKED
from etl.sources import role_of


def run(
    arguments: argparse.Namespace,
    data: Path,
    n_threads: int | None = None,
    images: Sequence[Path] = (),
) -> LoadReport:
    """Load with a progress bar, look for the image files under their roots, and print the report.

    Where a root is wrong, the load stays done and a note says so.

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
    if images and (report.loaded or not (data / IMAGES / LINKED).exists()):
        try:
            link(images, data)
        except LoadRefused as refused:
            sys.stdout.write(f"note: images not linked ({refused.code}): {refused}\n")
    return report


def link(images: Sequence[Path], data: Path) -> None:
    """Look for the files of all loaded images, with a counter, and print what was found.

    Raises
    ------
    LoadRefused
        As `etl.images.link_images` does.
    """
    with tqdm(desc="image files", unit=" files", delay=1, file=sys.stderr, leave=False) as bar:

        def progress(n_files: int) -> None:
            bar.update(n_files - bar.n)

        report = link_images(data, images, progress)
    sys.stdout.write(links_in_words(report) + "\n")


def links_in_words(report: LinkReport) -> str:
    """Return what was found as a table with its notes."""
    lines = [
        f"{report.n_files:,} image files under {', '.join(report.roots)}",
        f"{'split':10} {'images':>9} {'found':>9} {'missing':>9} {'ambiguous':>9}",
    ]
    lines += [
        f"{split.split:10} {split.n_images:9,} {split.n_found:9,} {split.n_missing:9,} "
        f"{split.n_ambiguous:9,}"
        for split in report.splits
    ]
    for split in report.splits:
        for what, paths, n in (
            ("no file for", split.missing, split.n_missing),
            ("no single file for", split.ambiguous, split.n_ambiguous),
        ):
            if n:
                lines.append(f"note: {split.split}: {what} {few(paths, n)}")
    lines += [f"note: {note}" for note in report.notes]
    return "\n".join(lines)


def in_words(report: LoadReport) -> str:
    """Return the report as a table with its notes."""
    lines = []
    if report.loaded:
        lines.append(
            f"{'split':10} {'role':5} {'backbone':32} {'rows':>9} {'rejected':>8} {'features':>8} "
            f"{'classes':>7} {'seconds':>8} {'MB/s':>6}"
        )
    lines += [
        f"{part.split:10} {role_of(part.split):5} {(part.backbone or '')[:32]:32} "
        f"{part.n_images:9,} {part.n_rejected:8,} {part.n_features:8,} {part.n_classes:7,} "
        f"{part.seconds_s:8.2f} {part.mb_per_s:6.0f}"
        for part in report.loaded
    ]
    for part in report.loaded:
        lines += [f"note: {part.split} {part.backbone}: {note}" for note in part.notes]
    lines += [f"note: {note}" for note in report.notes]
    if report.kept:
        kept = ", ".join(
            f"{split} {backbone or '(without features)'}" for split, backbone in report.kept
        )
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


def few(paths: Sequence[str], n: int) -> str:
    """Return the first of n paths in words.

    Examples
    --------
    >>> few(["a.png", "b.png"], 4)
    "'a.png', 'b.png' and 2 more"
    """
    more = f" and {n - len(paths):,} more" if n > len(paths) else ""
    return ", ".join(map(repr, paths)) + more


def main(argv: list[str] | None = None) -> int:
    """`python -m etl`: load into $GAP_DATA (default: data)."""
    parser = argparse.ArgumentParser(prog="python -m etl", description="Load feature files.")
    add_arguments(parser)
    arguments = parser.parse_args(argv)
    try:
        run(
            arguments,
            Path(os.environ.get("GAP_DATA", "data")),
            images=roots_in(os.environ.get("GAP_IMAGES", "")),
        )
    except LoadRefused as refused:
        sys.stderr.write(f"refused ({refused.code}): {refused}\n")
        return 2
    return 0
