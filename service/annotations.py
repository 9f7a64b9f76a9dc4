"""What else is known about the images: its verbs on the command line, and ReaL's labels."""

import argparse
import sys
from pathlib import Path

import pyarrow as pa

from etl import command as etl_command
from etl.annotations import Attached, annotate, annotate_file, known_images, match_images, remove
from etl.covariates import Covariates
from etl.errors import ForeignLabels
from etl.matching import AMBIGUOUS, MATCHED, UNMATCHED
from etl.measuring import Measured, annotate_with_image_statistics
from models.real_labels import real_labels
from service.database import Database
from service.errors import UnusedOption
from service.looks import Look, Looks
from service.settings import Settings
from service.terminal import progress_bar

REAL = "real"
_STATUSES = (MATCHED, AMBIGUOUS, UNMATCHED)
REAL_ORIGIN = "ReaL labels that timm ships"
# ReaL agrees with .90 of the labels that it has an opinion on; another order of classes with .001
_LEAST_AGREEMENT, _LEAST_IMAGES = 0.5, 20


def link(arguments: argparse.Namespace, settings: Settings) -> None:
    """Look for the files of all loaded images under the roots, and print what was found."""
    etl_command.link(arguments.roots or settings.images, settings.data)


def run_annotate(arguments: argparse.Namespace, settings: Settings) -> None:
    """Attach, measure or detach, and print what was done."""
    data = settings.data
    if (arguments.image_statistics or arguments.remove) and (arguments.name or arguments.split):
        raise UnusedOption(
            "wanted --name and --split beside FILE or --real alone, got one beside "
            "--image-statistics or --remove. Leave it out."
        )
    if arguments.remove:
        remove(data, arguments.remove)
        sys.stdout.write(f"{arguments.remove}: detached\n")
    elif arguments.image_statistics:
        with progress_bar("image statistics") as progress:
            measured = annotate_with_image_statistics(data, settings.threads, progress)
        sys.stdout.write(_measured_in_words(measured) + "\n")
    elif arguments.real:
        attached = annotate_real(data, name=arguments.name or REAL, split=arguments.split)
        sys.stdout.write(_in_words(attached) + "\n")
    else:
        attached = annotate_file(data, arguments.file, name=arguments.name, split=arguments.split)
        sys.stdout.write(_in_words(attached) + "\n")


def print_annotations(settings: Settings) -> None:
    """Print what is attached."""
    found = Database(settings.data).annotations()
    for source in found:
        counts = _counts(*(source[f"n_{what}"] for what in ("rows", *_STATUSES)))
        sys.stdout.write(
            f"{source['source']}: from {source['origin']}, {source['created_at']}; {counts}\n"
        )
        for row in source["covariates"]:
            spread = (
                f"{row['n_categories']:,} different texts"
                if row["mean_value"] is None
                else f"mean {row['mean_value']:.4g}, from {row['min_value']:.4g} to "
                f"{row['max_value']:.4g}"
            )
            sys.stdout.write(
                f"  {row['name'][:24]:24} {row['split'][:10]:10} {row['n_images']:9,} images "
                f"({row['share_images']:.1%}): {spread}\n"
            )
    if not found:
        sys.stdout.write("nothing attached yet: gapscope annotate FILE\n")


def annotate_real(data: Path, *, name: str, split: str | None) -> Attached:
    """Attach ReaL's labels: real_labels, n_real_labels, and label_in_real (1 or 0).

    An image that ReaL gives no label has n_real_labels 0, label_in_real 0 and no real_labels.

    Raises
    ------
    ForeignLabels
        The loaded class numbers are not ImageNet's: ReaL would be held against other classes.
    LoadRefused
        As `etl.annotations.annotate` does.
    """
    labels = real_labels()
    right = list(labels.values())
    covariates = Covariates(
        splits=pa.nulls(len(labels), pa.string()),
        paths=pa.array(list(labels), pa.string()),
        columns={
            "real_labels": pa.array([" ".join(map(str, r)) or None for r in right], pa.string()),
            "n_real_labels": pa.array([float(len(r)) for r in right]),
        },
    )
    found = match_images(known_images(data), covariates, split)
    _log_look(data)
    known = known_images(data, with_labels=True)
    class_ids = known["class_id"].take(found["known_row"].combine_chunks()).to_pylist()
    is_right = [
        None if class_id is None else float(class_id in r)
        for class_id, r in zip(class_ids, right, strict=True)
    ]
    told = [i for i, r in zip(is_right, right, strict=True) if r and i is not None]
    if len(told) >= _LEAST_IMAGES and sum(told) < _LEAST_AGREEMENT * len(told):
        raise ForeignLabels(
            "classes numbered as ImageNet's 1,000, in the order of their WordNet ids",
            f"labels of which ReaL calls {sum(told) / len(told):.1%} right",
            "Load the features with ImageNet's own class numbers.",
        )
    columns = {**covariates.columns, "label_in_real": pa.array(is_right, pa.float64())}
    return annotate(
        data,
        Covariates(covariates.splits, covariates.paths, columns),
        name=name,
        origin=REAL_ORIGIN,
        split=split,
    )


def _log_look(data: Path) -> None:
    """Log that the labels of the test splits are held against ReaL's."""
    for row in Database(data).rows(
        """select i.split, count(*) as n from image as i inner join split as s on i.split = s.split
        where s.role = 'test' group by i.split order by i.split"""
    ):
        Looks(data).record(Look(None, "annotate"), row["split"], row["n"])


def _in_words(attached: Attached) -> str:
    card = attached.card
    lines = [
        f"{card.source}: {', '.join(attached.covariates)}",
        _counts(card.n_rows, card.n_matched, card.n_ambiguous, card.n_unmatched),
    ]
    if card.n_repeated:
        lines.append(f"note: {card.n_repeated:,} rows say again what another says")
    if card.n_not_finite:
        lines.append(f"note: {card.n_not_finite:,} cells held no finite number and are null")
    if attached.ambiguous:
        lines.append(
            "note: more than one image fits "
            f"{etl_command.few(attached.ambiguous, card.n_ambiguous)}; "
            "--split NAME says which split they are of"
        )
    if attached.unmatched:
        few = etl_command.few(attached.unmatched, card.n_unmatched)
        lines.append(f"note: no loaded image is {few}")
    return "\n".join(lines)


def _counts(n_rows: int, n_matched: int, n_ambiguous: int, n_unmatched: int) -> str:
    return (
        f"{n_rows:,} rows: {n_matched:,} matched, {n_ambiguous:,} ambiguous, "
        f"{n_unmatched:,} unmatched"
    )


def _measured_in_words(measured: Measured) -> str:
    lines = [
        f"{measured.n_measured:,} images measured, {measured.n_kept:,} were so before, "
        f"{measured.n_unreadable:,} unreadable, {measured.n_without_file:,} without a file"
    ]
    lines += [f"note: unreadable: {one}" for one in measured.unreadable]
    return "\n".join(lines)
