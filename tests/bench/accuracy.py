"""`auto` beside tuned classifiers of scikit-learn on the same folds: `make bench-accuracy`.

Every method sees standardised features and is judged on the same five folds, with the parameters
that are best on the other four: no row judges what it chose, for `auto` and for the others alike.
Beside it stands the accuracy of the parameters that are best on all five, which flatters. No test
row is read.
"""

import argparse
import os
import platform
import warnings
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from scipy.stats import binomtest
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression, RidgeClassifierCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from models import heads
from models.estimate import wilson
from models.heads import TrainRows
from models.heads.validation import parts_of
from service.demo import demo_splits

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
CS = np.logspace(-4, 1, 20).tolist()
KS = (1, 3, 5, 10, 20, 50)
SEED = 0


def digits() -> tuple[np.ndarray, np.ndarray]:
    found = load_digits()
    train = demo_splits(found.target.astype(int), seed=0) == "train"
    return found.data[train].astype(np.float32), found.target[train].astype(np.int64)


def shared(file: str) -> tuple[np.ndarray, np.ndarray]:
    table = pq.read_table(SHARED / file)
    names = [name for name in table.column_names if name not in ("path", "label")]
    X = np.column_stack([table[name].to_numpy() for name in names]).astype(np.float32)
    return X, table["label"].to_numpy().astype(np.int64)


DATA = {
    "digits": digits,
    "pacs_lite0": lambda: shared("pacs_lite0/train_photo.parquet"),
    "cifar10_lite0": lambda: shared("cifar10_lite0/train.parquet"),
}


@dataclass(frozen=True)
class Judged:
    """Rows that a method has right when they are held out.

    `right` with the parameters that the other folds choose, `flattered` with the best of all folds.
    """

    right: np.ndarray
    flattered: float


def by_scikit_learn(X: np.ndarray, y: np.ndarray) -> dict[str, Judged]:
    """Each method on the five folds."""
    part = parts_of(y, seed=SEED)
    tried = {
        f"LogisticRegression, {len(CS)} C": [LogisticRegression(C=C, max_iter=300) for C in CS],
        "LDA, shrinkage auto": [LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")],
        "RidgeClassifierCV": [RidgeClassifierCV(alphas=np.logspace(0, 6, 13))],
        f"kNN, cosine, {len(KS)} k": [
            KNeighborsClassifier(k, metric="cosine", weights="distance") for k in KS
        ],
    }
    found = {name: np.zeros((len(methods), len(y)), bool) for name, methods in tried.items()}
    for fold in np.unique(part):
        held = part == fold
        scaler = StandardScaler().fit(X[~held].astype(float))
        fit, test = (scaler.transform(X[rows].astype(float)).astype(np.float32)
                     for rows in (~held, held))  # fmt: skip
        for name, methods in tried.items():
            for i, method in enumerate(methods):
                found[name][i, held] = clone(method).fit(fit, y[~held]).predict(test) == y[held]
    judged = {name: _judged(right, part) for name, right in found.items()}
    return judged | {"the best of these four": _judged(np.concatenate(list(found.values())), part)}


def _judged(right: np.ndarray, part: np.ndarray) -> Judged:
    """Choose among the rows of `right` for each fold by the others."""
    chosen = np.zeros(right.shape[1], bool)
    for fold in np.unique(part):
        best = int(right[:, part != fold].mean(axis=1).argmax())
        chosen[part == fold] = right[best, part == fold]
    return Judged(chosen, float(right.mean(axis=1).max()))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", nargs="*", default=list(DATA), choices=list(DATA))
    arguments = parser.parse_args()
    print(
        f"{os.cpu_count()} cores, {platform.machine()}, {datetime.now(UTC):%Y-%m-%d}\n\n"
        "| train rows | method | right, internal validation | 95 % | best on all folds "
        "| `auto` alone right / alone wrong | McNemar p |\n"
        "| --- | --- | ---: | --- | ---: | --- | ---: |"
    )
    for name in arguments.data:
        if name != "digits" and not SHARED.is_dir():
            print(f"| {name} | not here: {SHARED.name} is absent | | | | |")
            continue
        X, y = DATA[name]()
        trained = heads.train(TrainRows(X, y, roles=["train"]), "auto", seed=SEED)
        ours = trained.right == 1
        low, high = wilson(int(ours.sum()), len(y))
        size = f"{name}, {len(y):,} × {X.shape[1]:,}"
        best = max(c.top1 for c in trained.candidates)
        print(
            f"| {size} | **auto** ({trained.kind}) | {ours.mean():.2%} | {low:.2%} – {high:.2%} "
            f"| {best:.2%} | | |",
            flush=True,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = by_scikit_learn(X, y)
        for method, judged in sorted(theirs.items(), key=lambda item: -item[1].right.mean()):
            right = judged.right
            low, high = wilson(int(right.sum()), len(y))
            b, c = int((ours & ~right).sum()), int((right & ~ours).sum())
            p = binomtest(b, b + c).pvalue if b + c else 1.0
            print(
                f"| {size} | {method} | {right.mean():.2%} | {low:.2%} – {high:.2%} "
                f"| {judged.flattered:.2%} | {b} / {c} | {p:.2g} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
