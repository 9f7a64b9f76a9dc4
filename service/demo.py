"""The demo: scans of digits, two backbones, a real gap; it walks the user's own path.

scikit-learn's `load_digits` are 1,797 real scans, apparently grouped by writer: scikit-learn's own
cross-validation tests say so, but the boundaries between writers are not recorded. Rows 0 to 1199
are split 60/40 within class into `train` and `seen` (test set 1: other scans by writers seen in
training), rows 1200 on are `unseen` (test set 2: new writers). They are written as PNG images, read
back, turned into features, and written as CSV files in the assignment's form; these are loaded.

Source: E. Alpaydin and C. Kaynak (1998), Optical Recognition of Handwritten Digits, UCI; through
scikit-learn.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from sklearn.datasets import load_digits

from etl import LoadReport, load
from etl.images import link_images
from models.backbones import features_of_images, open_lite0
from service.analysis import Analysis
from service.backbones import GREY, GREY_LITE0, grey_values
from service.sealing import evaluate_sealed
from service.terminal import progress_bar

FOLDER = "demo"
SEED = 0
N_SEEN_WRITERS = 1200
SHARE_TRAIN = 0.6
PIXELS, LITE0 = "pixels", "tf_efficientnet_lite0"
SIZE_PX, GREY_SIZE_PX = 96, 8
_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def demo_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Write the images, the feature files of both backbones, and the class names.

    Returns how the features of each backbone were made, as `Backbones.record` takes it.
    """
    digits = load_digits()
    grey = np.round(digits.images * (255 / 16)).astype(np.uint8)
    labels = digits.target.astype(int)
    splits = demo_splits(labels, seed=SEED)
    paths = [
        f"{split}/{label}/{row:04d}.png"
        for row, (split, label) in enumerate(zip(splits, labels, strict=True))
    ]
    for path, image in zip(paths, grey, strict=True):
        file = folder / "images" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(file)
    images = [grey_values(Image.open(folder / "images" / path), GREY_SIZE_PX) for path in paths]
    pixels = np.stack(images).reshape(len(images), -1).astype(np.float32)
    lite0 = open_lite0()
    with progress_bar(f"features of {LITE0}") as progress:
        network = features_of_images(
            lite0,
            images,
            size_px=SIZE_PX,
            progress=lambda done: progress(done / len(images), f"{done} images"),
        )
    for backbone, features in ((PIXELS, pixels), (LITE0, network)):
        table = pd.DataFrame(features)
        table.insert(0, "path", paths)
        table.insert(1, "label", labels)
        for split in ("train", "seen", "unseen"):
            rows = table[splits == split].reset_index(drop=True)
            rows.to_csv(folder / f"{split}_{backbone}.csv")
    names = pd.DataFrame({"label": range(10), "name": _NAMES})
    names.to_csv(folder / "classes.csv", index=False)
    return {
        PIXELS: {"kind": GREY, "size_px": GREY_SIZE_PX},
        LITE0: {
            "kind": GREY_LITE0,
            "size_px": SIZE_PX,
            "weights_sha256": lite0.weights.digest,
        },
    }


def demo_splits(labels: np.ndarray, *, seed: int) -> np.ndarray:
    """Split of each of the 1,797 rows: train, seen or unseen.

    Parameters
    ----------
    labels : int [n]
    """
    rng = np.random.default_rng(seed)
    splits = np.full(len(labels), "unseen", dtype=object)
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels[:N_SEEN_WRITERS] == label))
        n_train = round(SHARE_TRAIN * len(rows))
        splits[rows[:n_train]] = "train"
        splits[rows[n_train:]] = "seen"
    return splits


def run_demo(data: Path, n_threads: int | None = None) -> LoadReport:
    """Make the demo's files, load them, and train a logistic head on each backbone.

    Raises
    ------
    etl.LoadRefused, models.errors.ModelError
    """
    folder = data / FOLDER
    made = demo_files(folder)
    report = load(
        data,
        [folder],
        reference="seen",
        classes=folder / "classes.csv",
        replace=True,
        n_threads=n_threads,
    )
    link_images(data, [folder / "images"])
    analysis = Analysis(data)
    for backbone in (PIXELS, LITE0):
        for split, sha256 in analysis.database.digests(backbone).items():
            analysis.backbones.record(backbone, split, sha256, made[backbone])
        model = f"{backbone}-logistic"
        if not analysis.results.has(model):
            with progress_bar(f"training {model}") as progress:
                analysis.train(
                    model=model,
                    backbone=backbone,
                    head="logistic",
                    params={},
                    seed=SEED,
                    progress=progress,
                )
        evaluate_sealed(analysis, model)
    # that the files begin with pandas' index is their form, and no news to who asked for a demo
    return replace(report, loaded=[replace(part, notes=[]) for part in report.loaded])
