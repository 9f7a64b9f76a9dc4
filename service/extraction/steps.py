"""Images to a feature file: in parts that survive a kill, then one file, put in place at once.

<out>/.extract-<split>_<backbone>/     manifest.json and one part for each 256 images
<out>/<split>_<backbone>.csv           (or .parquet) the features, when all parts are there
<out>/<split>_<backbone>.classes.csv   which folder has which label
<out>/<split>_<backbone>.extraction.json   model, digest of its weights, versions, speed
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from etl import load
from etl.errors import SourceName
from etl.sources import CLASSES_SUFFIX, check_split, parse_name
from models.backbones import Backbone, Transform
from models.errors import NotFiniteInput
from service.backbones import UNREADABLE, Backbones, check_sides
from service.database import Database
from service.errors import BadImages, ExtractionChanged, UnreadableImage
from service.extraction.feature_file import write_features
from service.extraction.images import ImageList, check_classes, write_classes
from service.extraction.parts import Part, Parts, as_json, put_in_place, refuse_changed

CHUNK = 256  # images of a part: as many are computed twice after a kill, at most
# as the list of images has them; others run readers that nobody asked for, such as Ghostscript's
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
_LOADED_AS = "parquet"
_Batch = tuple[list[int], torch.Tensor | None, list[tuple[int, str]]]


@dataclass(frozen=True)
class Extraction:
    """What is to be extracted, and where it goes.

    Attributes
    ----------
    split, backbone : the feature file is called `<split>_<backbone>`
    out : its folder
    form : csv, parquet or database
    batch_size, workers : images at once; processes that read and transform them (0: none)
    skip_unreadable : leave out images that cannot be decoded, instead of refusing
    restart : forget what lies there from before
    """

    split: str
    backbone: str
    out: Path
    form: str = "csv"
    batch_size: int = 32
    workers: int = 0
    skip_unreadable: bool = False
    restart: bool = False

    @property
    def name(self) -> str:
        """Stem of all files."""
        return f"{self.split}_{self.backbone}"

    @property
    def folder(self) -> Path:
        """The folder of the unfinished work."""
        return self.out / f".extract-{self.name}"

    @property
    def record(self) -> Path:
        """The file that says how the features came to be."""
        return self.out / f"{self.name}.extraction.json"

    @property
    def features(self) -> Path:
        """The feature file; with form `database` it lies among the parts until it is loaded."""
        if self.form == "database":
            return self.folder / f"{self.name}.{_LOADED_AS}"
        return self.out / f"{self.name}.{self.form}"


@dataclass(frozen=True)
class ExtractionReport:
    """What an extraction did.

    Attributes
    ----------
    n_images : rows of the feature file
    n_new : images computed by this call; fewer where an earlier one was killed
    skipped : unreadable images that were left out, with the reason
    seconds_s : seconds of reading and computing
    place : the feature file, or the database
    """

    n_images: int
    n_new: int
    skipped: list[tuple[str, str]]
    seconds_s: float
    place: Path

    @property
    def images_per_s(self) -> float | None:
        """Speed of this call; None where all was there."""
        return self.n_new / self.seconds_s if self.n_new else None


def check_names(wanted: Extraction) -> None:
    """Refuse a split or backbone that the loader would read as another from the file's name.

    Raises
    ------
    etl.errors.SourceName
    """
    file = f"{wanted.name}.csv"
    check_split(wanted.split, Path(file))
    if parse_name(file) != (wanted.split, wanted.backbone):
        read = parse_name(file)
        raise SourceName(
            "a split of letters, digits, points and hyphens (or test_1, …) and a backbone of "
            "letters, digits, points, hyphens and underscores",
            f"{wanted.split!r} and {wanted.backbone!r}"
            + (f", which a load would take for split {read[0]!r} of {read[1]!r}" if read else ""),
            "Rename the split with --split, or the backbone with --backbone.",
        )


def extract(
    wanted: Extraction,
    images: ImageList,
    backbone: Backbone,
    data: Path,
    *,
    classes: Path | None = None,
    chunk: int = CHUNK,
    progress: Callable[[float, str], None] = lambda _share, _message: None,
) -> ExtractionReport:
    """Extract the features of all images, going on where an earlier call was killed.

    The file is the same, byte for byte, however often that happened, for parts hold the same images
    in the same batches. Where it lies there already, from the same images and settings, nothing is
    done.

    Parameters
    ----------
    data
        The data folder; only form `database` writes it.
    classes
        The mapping that the user gave; with form `database` its names are loaded.
    chunk
        Images of one part.
    progress
        Called with the share done and a message.

    Raises
    ------
    etl.LoadRefused, models.errors.ModelError, service.errors.ServiceError
        A name that a load would misread; an image that cannot be decoded; a mapping of classes, or
        an earlier extraction, that disagrees.
    """
    check_names(wanted)
    wanted.out.mkdir(parents=True, exist_ok=True)
    check_classes(wanted.out, wanted.split, wanted.backbone, images.classes)
    settings = _settings(images, backbone, chunk)
    parts = Parts(wanted.folder, len(images.files), chunk)
    parts.sweep()
    if not wanted.restart and not parts.exist:
        before = _finished(wanted, settings, data)
        if before is not None:
            _write_classes(wanted, images)
            return before
    with parts.held(settings, restart=wanted.restart):
        _write_classes(wanted, images)  # before the long work: other splits are held against it
        began = time.monotonic()
        n_new = _compute(wanted, images, backbone, parts, progress)
        seconds = time.monotonic() - began
        skipped = _skipped(wanted, images, parts)
        report = ExtractionReport(
            n_images=len(images.files) - len(skipped),
            n_new=n_new,
            skipped=[(images.paths[row], reason) for row, reason in skipped],
            seconds_s=seconds,
            place=data if wanted.form == "database" else wanted.features,
        )
        put_in_place(
            wanted.features,
            lambda fresh: write_features(
                fresh,
                parts,
                images,
                ending=wanted.features.suffix,
                n_features=backbone.n_features,
            ),
        )
        if wanted.form == "database":
            load(data, [wanted.features], classes=classes)
        _write_record(wanted, settings, backbone, report)
        if wanted.form == "database":
            sha256 = Database(data).digests(wanted.backbone)[wanted.split]
            Backbones(data).record_extraction(wanted.record, sha256)
        parts.remove()
    return report


def _write_classes(wanted: Extraction, images: ImageList) -> None:
    put_in_place(
        wanted.out / (wanted.name + CLASSES_SUFFIX),
        lambda fresh: fresh.write_text(write_classes(images.classes), encoding="utf-8"),
    )


def _settings(images: ImageList, backbone: Backbone, chunk: int) -> dict[str, Any]:
    """Return all that the numbers depend on; another batch size moves at most their last digit."""
    config = {k: list(v) if isinstance(v, tuple) else v
              for k, v in backbone.transform.config.items()}  # fmt: skip
    return {
        "model": backbone.model,
        "layer": backbone.layer,
        "weights_sha256": backbone.weights.digest,
        "n_features": backbone.n_features,
        "transform": config,
        "image_size_px": list(backbone.input_size_px),
        "device": backbone.device.type,
        "dtype": "bfloat16 where safe" if backbone.autocast else "float32",
        "images_sha256": images.digest(),
        "n_images_listed": len(images.files),
        "images_a_part": chunk,
        "timm": version("timm"),
        "torch": version("torch"),
    }


def _finished(wanted: Extraction, settings: dict[str, Any], data: Path) -> ExtractionReport | None:
    """Return the report of an earlier, finished call with the same settings, None if there is none.

    Raises
    ------
    ExtractionChanged
        What lies there has other settings, or does not say.
    """
    if wanted.form == "database":
        there = Database(data).exists and any(
            (row["split"], row["backbone"]) == (wanted.split, wanted.backbone)
            for row in Database(data).splits()
        )
    else:
        there = wanted.features.exists()
    if not there:
        return None
    place = data if wanted.form == "database" else wanted.features
    if not wanted.record.is_file():
        raise ExtractionChanged(
            f"wanted to write {wanted.name} to {place}, but features of this name are there, and "
            f"no {wanted.record.name} says where they came from. Take another --out or "
            "--backbone, or replace them: --restart."
        )
    record = json.loads(wanted.record.read_text(encoding="utf-8"))
    refuse_changed(wanted.record, record["settings"], settings)
    return ExtractionReport(
        record["n_images"], 0, [(s["path"], s["reason"]) for s in record["skipped"]], 0.0, place
    )


def _compute(
    wanted: Extraction,
    images: ImageList,
    backbone: Backbone,
    parts: Parts,
    progress: Callable[[float, str], None],
) -> int:
    """Compute the parts that are missing; return the number of images in them."""
    missing = parts.missing()
    if not missing:
        return 0
    batches = [_batches(parts.rows(k), wanted.batch_size) for k in missing]
    incoming = iter(_loader(wanted, images, backbone, [b for part in batches for b in part]))
    n, n_new, began = len(images.files), 0, time.monotonic()
    n_before = n - sum(len(parts.rows(k)) for k in missing)
    for k, part in zip(missing, batches, strict=True):
        rows: list[int] = []
        features = [np.empty((0, backbone.n_features), np.float32)]
        skipped: list[tuple[int, str]] = []
        for batch in part:
            readable, pixels, unreadable = next(incoming)
            if unreadable and not wanted.skip_unreadable:
                _refuse_unreadable(images, *unreadable[0])
            if pixels is not None:
                features.append(_finite(backbone.features(pixels), readable, images))
            rows += readable
            skipped += unreadable
            n_new += len(batch)
            speed = n_new / (time.monotonic() - began)
            progress((n_before + n_new) / n, f"{n_before + n_new:,} images, {speed:.0f}/s")
        parts.write(k, Part(np.array(rows, np.int64), np.concatenate(features), skipped))
    return n_new


def _batches(rows: range, size: int) -> list[list[int]]:
    """No batch reaches over the end of a part: a batch changes the last digit of its numbers."""
    return [list(rows[i : i + size]) for i in range(0, len(rows), size)]


def _loader(
    wanted: Extraction, images: ImageList, backbone: Backbone, batches: list[list[int]]
) -> DataLoader[_Batch]:
    return DataLoader(
        _Images(str(images.folder), pa.array(images.files, pa.string()), backbone.transform),  # type: ignore[arg-type]  # one image, where torch's types want a batch
        batch_sampler=batches,
        num_workers=min(wanted.workers, len(batches)),
        collate_fn=_collate,
        pin_memory=backbone.device.type == "cuda",
    )


@dataclass
class _Images(Dataset[tuple[int, torch.Tensor | str]]):
    """Transformed images, or why one cannot be read, by their place in the list.

    The names are one Arrow array: a Python list of a million would be copied into each worker as
    its reference counts change.
    """

    folder: str
    files: pa.StringArray = field(repr=False)
    transform: Transform

    def __getitem__(self, index: int) -> tuple[int, torch.Tensor | str]:
        try:
            with Image.open(f"{self.folder}/{self.files[index]}", formats=_FORMATS) as opened:
                check_sides(opened)
                image = opened.convert("RGB")
        except UNREADABLE as error:
            return index, f"{type(error).__name__}: {error}".replace(f"{self.folder}/", "")
        return index, self.transform(image)


def _collate(items: list[tuple[int, torch.Tensor | str]]) -> _Batch:
    good = [(index, item) for index, item in items if isinstance(item, torch.Tensor)]
    bad = [(index, item) for index, item in items if isinstance(item, str)]
    pixels = torch.stack([item for _, item in good]) if good else None
    return [index for index, _ in good], pixels, bad


def _skipped(wanted: Extraction, images: ImageList, parts: Parts) -> list[tuple[int, str]]:
    """Rows of the images that were left out, with the reason."""
    skipped = [item for part in parts for item in part.skipped]
    if skipped and not wanted.skip_unreadable:  # an earlier call was allowed to
        _refuse_unreadable(images, *skipped[0])
    if len(skipped) == len(images.files):
        raise BadImages(f"wanted images, got none that can be decoded in {images.folder}.")
    return skipped


def _refuse_unreadable(images: ImageList, row: int, reason: str) -> None:
    raise UnreadableImage(
        f"wanted images that can be decoded, got {images.folder / images.files[row]} ({reason}). "
        "Repair or remove it, or leave such images out: --skip-unreadable. What is done is kept."
    )


def _finite(features: np.ndarray, rows: list[int], images: ImageList) -> np.ndarray:
    bad = np.flatnonzero(~np.isfinite(features).all(1))
    if len(bad):
        raise NotFiniteInput(
            f"wanted finite features, got NaN or infinity for {images.files[rows[bad[0]]]}. "
            "Check the weights, and leave out --autocast."
        )
    return features


def _write_record(
    wanted: Extraction, settings: dict[str, Any], backbone: Backbone, report: ExtractionReport
) -> None:
    speed = report.images_per_s
    record = {
        "split": wanted.split,
        "backbone": wanted.backbone,
        "settings": settings,
        "weights": backbone.weights.source,
        "weights_file": str(backbone.weights.file) if backbone.weights.file else None,
        "random_seed": backbone.weights.seed,
        "device": str(backbone.device),
        "batch_size": wanted.batch_size,
        "n_images": report.n_images,
        "n_skipped": len(report.skipped),
        "skipped": [{"path": path, "reason": reason} for path, reason in report.skipped],
        "images_per_s": None if speed is None else round(speed, 1),
    }
    put_in_place(wanted.record, lambda fresh: fresh.write_text(as_json(record)))
