"""`auto` beside tuned classifiers of scikit-learn on the same folds: `make bench-accuracy`.

Every method is judged on the same five folds. Each sees standardised features, and its parameters
are those that are best on all five folds together, which flatters it; what is said of `auto` comes
from rows that took no part in its choice. No test row is read.
"""

import argparse
import os
import platform
import time
import warnings
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from scipy.stats import binomtest
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


def by_scikit_learn(X: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
    """Rows that each method has right when they are held out, with its best parameters."""
    part = parts_of(y, seed=SEED)
    logistic = np.zeros((len(CS), len(y)), bool)
    knn = np.zeros((len(KS), len(y)), bool)
    right = {name: np.zeros(len(y), bool) for name in ("LDA, shrinkage auto", "RidgeClassifierCV")}
    for fold in np.unique(part):
        held = part == fold
        scaler = StandardScaler().fit(X[~held].astype(float))
        fit, test = (scaler.transform(X[rows].astype(float)).astype(np.float32)
                     for rows in (~held, held))  # fmt: skip
        for i, C in enumerate(CS):
            found = LogisticRegression(C=C, max_iter=300).fit(fit, y[~held])
            logistic[i, held] = found.predict(test) == y[held]
        lda = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(fit, y[~held])
        right["LDA, shrinkage auto"][held] = lda.predict(test) == y[held]
        ridge = RidgeClassifierCV(alphas=np.logspace(0, 6, 13)).fit(fit, y[~held])
        right["RidgeClassifierCV"][held] = ridge.predict(test) == y[held]
        for i, k in enumerate(KS):
            near = KNeighborsClassifier(k, metric="cosine", weights="distance").fit(fit, y[~held])
            knn[i, held] = near.predict(test) == y[held]
    best = int(logistic.mean(axis=1).argmax())
    right[f"LogisticRegression, best of 20 C ({CS[best]:.2g})"] = logistic[best]
    best = int(knn.mean(axis=1).argmax())
    right[f"kNN, cosine, best of {len(KS)} k ({KS[best]})"] = knn[best]
    return right


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", nargs="*", default=list(DATA), choices=list(DATA))
    arguments = parser.parse_args()
    print(
        f"{os.cpu_count()} cores, {platform.machine()}, {datetime.now(UTC):%Y-%m-%d}\n\n"
        "| train rows | method | right, internal validation | 95 % "
        "| `auto` alone right / alone wrong | McNemar p |\n| --- | --- | ---: | --- | --- | ---: |"
    )
    for name in arguments.data:
        if name != "digits" and not SHARED.is_dir():
            print(f"| {name} | not here: {SHARED.name} is absent | | | | |")
            continue
        X, y = DATA[name]()
        began = time.perf_counter()
        trained = heads.train(TrainRows(X, y, roles=["train"]), "auto", seed=SEED)
        seconds = time.perf_counter() - began
        ours = trained.right == 1
        what = f"**auto** ({trained.kind}, {seconds:.0f} s)"
        low, high = wilson(int(ours.sum()), len(y))
        size = f"{name}, {len(y):,} × {X.shape[1]:,}"
        print(f"| {size} | {what} | {ours.mean():.2%} | {low:.2%} – {high:.2%} | | |", flush=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = by_scikit_learn(X, y)
        for method, right in sorted(theirs.items(), key=lambda item: -item[1].mean()):
            low, high = wilson(int(right.sum()), len(y))
            b, c = int((ours & ~right).sum()), int((right & ~ours).sum())
            p = binomtest(b, b + c).pvalue if b + c else 1.0
            print(
                f"| {size} | {method} | {right.mean():.2%} | {low:.2%} – {high:.2%} "
                f"| {b} / {c} | {p:.2g} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
