"""`extract` on the command line: its progress bar, its report."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from etl.sources import CLASSES_SUFFIX
from models.backbones import Backbone, open_backbone
from service.extraction.images import ImageClass, find_images
from service.extraction.steps import Extraction, ExtractionReport, check_names, extract
from service.options import RANDOM
from service.terminal import progress_bar

_WARNING = (
    "WARNING: random weights. These features mean nothing: use them to try the commands out, and "
    "never as a result."
)


def run(arguments: argparse.Namespace, data: Path, n_threads: int | None = None) -> str:
    """Extract with a progress bar, and return the report.

    Raises
    ------
    etl.LoadRefused, models.errors.ModelError, service.errors.ServiceError
        As `find_images`, `open_backbone` and `extract` do.
    """
    is_random = arguments.weights == RANDOM
    cores = n_threads or os.cpu_count() or 1
    if n_threads:
        torch.set_num_threads(n_threads)
    wanted = Extraction(
        split=arguments.split,
        backbone=arguments.backbone or _name(arguments.model, arguments.layer, is_random),
        out=arguments.out,
        form=arguments.format,
        batch_size=arguments.batch_size,
        workers=min(8, cores) if arguments.workers is None else arguments.workers,
        skip_unreadable=arguments.skip_unreadable,
        restart=arguments.restart,
    )
    check_names(wanted)  # before anything that takes time
    images = find_images(
        arguments.images,
        prefix=wanted.split if arguments.prefix is None else arguments.prefix,
        labels=arguments.labels,
        classes=arguments.classes,
    )
    backbone = open_backbone(
        arguments.model,
        weights=None if is_random or arguments.weights is None else Path(arguments.weights),
        random_seed=arguments.seed if is_random else None,
        layer=arguments.layer,
        device=arguments.device,
        autocast=arguments.autocast,
    )
    _say(f"{len(images.files):,} images in {images.folder}, {len(images.classes):,} classes")
    _say(f"label of each class folder: {_mapping(images.classes)}")
    for note in images.notes:
        _say(f"note: {note}")
    _say(_backbone_in_words(backbone))
    if is_random:
        _say(_WARNING)
    with progress_bar(wanted.name) as progress:
        report = extract(
            wanted, images, backbone, data, classes=arguments.classes, progress=progress
        )
    return in_words(wanted, report) + (f"\n{_WARNING}" if is_random else "")


def in_words(wanted: Extraction, report: ExtractionReport) -> str:
    """Return what an extraction did, in sentences."""
    lines = [f"{wanted.name}: {report.n_images:,} images in {report.place}"]
    if report.images_per_s is None:
        lines.append("nothing was left to compute: it was extracted before, from the same images")
    else:
        kept = report.n_images + len(report.skipped) - report.n_new
        more = f", {kept:,} done before" if kept else ""
        lines.append(f"{report.n_new:,} images computed{more}: {report.images_per_s:.1f} images/s")
    if report.skipped:
        lines.append(f"{len(report.skipped):,} images could not be read and were left out:")
        lines += [f"  {path} ({reason})" for path, reason in report.skipped[:10]]
        if len(report.skipped) > 10:
            lines.append(f"  … all are in {wanted.record}")
    lines.append(
        f"classes in {wanted.out / (wanted.name + CLASSES_SUFFIX)}, settings in {wanted.record}"
    )
    return "\n".join(lines)


def _name(model: str, layer: str | None, is_random: bool) -> str:
    """Name the backbone; the name of random features says so wherever it is read."""
    return ".".join([model, *([layer] if layer else []), *([RANDOM] if is_random else [])])


def _mapping(classes: Sequence[ImageClass]) -> str:
    shown = [f"{c.folder} → {c.label}" for c in classes]
    if len(shown) > 20:
        shown = [*shown[:12], "…", *shown[-3:]]
    return ", ".join(shown)


def _backbone_in_words(backbone: Backbone) -> str:
    config = backbone.transform.config
    height, width = backbone.input_size_px
    return (
        f"{backbone.model}, layer {backbone.layer}: {backbone.n_features:,} features from "
        f"{height} × {width} px ({config['interpolation']}, crop {config['crop_pct']} "
        f"{config['crop_mode']}), on {backbone.device}; weights: {backbone.weights.source}"
    )


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
