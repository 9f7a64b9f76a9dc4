"""Feature files of any size in the assignment's form, written as fast as a disk takes them.

    python -m tests.bench.features FILE --rows 50000 --features 1024 --split val

Class means and noise are normal; rows are ordered by class, as ImageNet's are; a test split that
is not `val` is shifted by a tenth of a standard deviation. Six decimals, as the assignment's have.
"""

import argparse
from pathlib import Path

import numpy as np
from numba import njit

N_CLASSES = 1000
_BLOCK_ROWS = 2000


def write_features(file: Path, split: str, n_rows: int, n_features: int, seed: int) -> None:
    """Write rows `index,path,label,0,…`: the bytes depend on the arguments alone."""
    means = np.random.default_rng(0).normal(size=(N_CLASSES, n_features)).astype(np.float32)
    rng = np.random.default_rng([seed, n_rows])
    shift = np.float32(0.0 if split in ("train", "val") else 0.1)
    with file.open("wb") as out:
        out.write(("," + ",".join(["path", "label", *map(str, range(n_features))]) + "\n").encode())
        for first in range(0, n_rows, _BLOCK_ROWS):
            index = np.arange(first, min(first + _BLOCK_ROWS, n_rows))
            labels = index * N_CLASSES // n_rows
            noise = rng.standard_normal((len(index), n_features), dtype=np.float32)
            values = np.rint((means[labels] + noise + shift) * 1e6).astype(np.int64)
            out.writelines(
                b"%d,%s/n%08d/n%08d_%d.JPEG,%d," % (i, split.encode(), label, label, i, label) + row
                for i, label, row in zip(index, labels, _rows(values), strict=True)
            )


def _rows(millionths: np.ndarray) -> list[bytes]:
    text = np.empty(millionths.size * 22, np.uint8)
    ends = np.empty(len(millionths), np.int64)
    _write(millionths, text, ends)
    starts = [0, *ends[:-1].tolist()]
    return [text[a:b].tobytes() for a, b in zip(starts, ends.tolist(), strict=True)]


@njit(cache=True)
def _write(millionths: np.ndarray, text: np.ndarray, ends: np.ndarray) -> None:
    """Write each number with six decimals, a comma between two, a line end behind a row."""
    digits = np.empty(20, np.uint8)
    at = 0
    for i in range(millionths.shape[0]):
        for j in range(millionths.shape[1]):
            value = millionths[i, j]
            if value < 0:
                text[at] = 45
                at += 1
                value = -value
            n = 0
            while value > 0 or n < 7:
                digits[n] = 48 + value % 10
                value //= 10
                n += 1
            for k in range(n - 1, -1, -1):
                text[at] = digits[k]
                at += 1
                if k == 6:
                    text[at] = 46
                    at += 1
            text[at] = 44
            at += 1
        text[at - 1] = 10
        ends[i] = at


def main() -> None:
    parser = argparse.ArgumentParser(description="Write a feature file for measurements.")
    parser.add_argument("file", type=Path)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--features", type=int, default=1024)
    parser.add_argument("--split", default="val")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    write_features(
        arguments.file, arguments.split, arguments.rows, arguments.features, arguments.seed
    )


if __name__ == "__main__":
    main()
