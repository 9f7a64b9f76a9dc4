"""The toy world: small enough to check by hand, awkward enough to find faults.

Two backbones over the same images: `toy` (3 features, one of them constant) and `tiny` (2 features,
rows in another order). Class 3 is absent from v2, so that a name could shift by one.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

SHARED = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
N = {"train": 48, "val": 20, "v2": 15}


@dataclass(frozen=True)
class Split:
    """One split of one backbone, as arrays."""

    paths: list[str]
    labels: np.ndarray
    features: np.ndarray


def make_world(seed: int = 0) -> dict[tuple[str, str], Split]:
    """Splits of both backbones, by (split, backbone)."""
    rng = np.random.default_rng(seed)
    world = {}
    for split, n in N.items():
        labels = np.arange(n) % (3 if split == "v2" else 4)
        shift = 0.5 if split == "v2" else 0.0
        toy = rng.normal(size=(n, 3)) + 2 * np.eye(4, 3)[labels] + shift
        toy[:, 2] = 7.0
        tiny = rng.normal(size=(n, 2)) + labels[:, None]
        paths = [f"{split}/{label}/{i}.png" for i, label in enumerate(labels)]
        order = rng.permutation(n)
        world[split, "toy"] = Split(paths, labels, _rounded(toy))
        world[split, "tiny"] = Split(
            [paths[i] for i in order], labels[order], _rounded(tiny[order])
        )
    return world


def write_csv(file: Path, split: Split, *, index: bool = True, path: bool = True) -> Path:
    """Write a split in the assignment's form."""
    table = pd.DataFrame(split.features.astype(float).round(6))
    table.insert(0, "label", split.labels)
    if path:
        table.insert(0, "path", split.paths)
    file.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(file, index=index)
    return file


def write_world(folder: Path, world: dict[tuple[str, str], Split]) -> Path:
    """Write all splits of a world into one folder."""
    for (split, backbone), rows in world.items():
        write_csv(folder / f"{split}_{backbone}.csv", rows)
    return folder


def write_balls(
    folder: Path,
    backbone: str,
    shape: tuple[int, int],
    sizes: dict[str, int],
    spread: float,
    seed: int = 0,
) -> Path:
    """Write feature files of classes that are balls around centres: as long to train as wanted.

    Parameters
    ----------
    shape : number of classes and of features
    sizes : rows of each split
    spread : of the centres, in standard deviations of a class
    """
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=shape) * spread
    for split, n in sizes.items():
        labels = np.arange(n) % shape[0]
        rows = (centres[labels] + rng.normal(size=(n, shape[1]))).astype(np.float32)
        paths = [f"{split}/{i}.png" for i in range(n)]
        write_csv(folder / f"{split}_{backbone}.csv", Split(paths, labels, rows))
    return folder


def _rounded(features: np.ndarray) -> np.ndarray:
    return features.round(4).astype(np.float32)
