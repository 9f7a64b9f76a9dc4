"""The heads beside the machine's own products, scikit-learn and faiss, in one run: `make bench`.

Times are the best of a few rounds in one process; the ceiling is what the machine's matrix product
takes for the same arithmetic. Features are generated: class means and noise of falling variance,
mixed, with rows of unlike spread, so that neither method is the true model.
"""

import argparse
import os
import platform
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import numpy as np
import torch

from models import heads
from models.heads import TrainRows, closed_form, logistic
from models.heads.head import predict
from models.heads.judging import best_temperature
from models.heads.matrix import TrainMatrix
from models.heads.moments import Moments
from models.heads.neighbours import nearest, unit
from models.heads.session import has_fast_bfloat16
from models.heads.softmax import Targets, slope

WIDTH, CLASSES = 1024, 1000
CS = (0.01, 0.1, 1.0)
ROWS: list[tuple[str, str, str, str]] = []


class World:
    """Classes and noise that every sample shares."""

    def __init__(self, d: int = WIDTH, k: int = CLASSES) -> None:
        world = np.random.default_rng(0)
        self._spread = (np.arange(1, d + 1) ** -0.6).astype(np.float32)
        self._mix = world.normal(size=(d, d)).astype(np.float32) / np.float32(np.sqrt(d))
        means = world.normal(size=(k, d)).astype(np.float32)
        self._means = means * self._spread * np.float32(0.35)

    def rows(self, labels: np.ndarray, *, seed: int) -> np.ndarray:
        """Features float32 [n, d] of rows with these labels."""
        rng = np.random.default_rng(seed)
        noise = rng.standard_normal((len(labels), len(self._spread)), dtype=np.float32)
        noise *= np.sqrt(self._spread) * np.float32(0.35)
        noise /= np.sqrt(rng.gamma(4, 0.25, size=(len(labels), 1))).astype(np.float32)
        return np.asarray((self._means[labels] + noise) @ self._mix)


def generate(n: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Features float32 [n, d] and labels [n]; the same classes for every seed."""
    world, y = World(), np.random.default_rng(seed + 1).integers(CLASSES, size=n)
    X = np.empty((n, WIDTH), np.float32)
    for start in range(0, n, 8192):
        here = slice(start, start + 8192)
        X[here] = world.rows(y[here], seed=seed * n + start)
    return X, y


def best(work: Callable[[], object], rounds: int = 3) -> float:
    """Seconds of the fastest of some rounds."""
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times)


@contextmanager
def timed(into: list[float]) -> Iterator[None]:
    began = time.perf_counter()
    yield
    into.append(time.perf_counter() - began)


def line(what: str, ours: str, against: str, ratio: str) -> None:
    ROWS.append((what, ours, against, ratio))
    print(f"| {what} | {ours} | {against} | {ratio} |", flush=True)


def loop_against_products(n: int) -> None:
    """The gradient loop, loss included, against its two products alone."""
    rng = np.random.default_rng(0)
    X = torch.from_numpy(rng.standard_normal((n, WIDTH), dtype=np.float32))
    y = torch.from_numpy(rng.integers(CLASSES, size=n))
    weight = torch.randn(1, WIDTH, CLASSES) * 0.02
    block = 2048
    work = 4.0 * n * WIDTH * CLASSES
    for dtype in (torch.float32, torch.bfloat16):
        rows, flat = X.to(dtype), weight[0].to(dtype)
        out = torch.empty(block, CLASSES, dtype=dtype)
        total = torch.zeros(CLASSES, WIDTH, dtype=dtype)

        def products(
            rows: torch.Tensor = rows, flat: torch.Tensor = flat,
            out: torch.Tensor = out, total: torch.Tensor = total,
        ) -> None:  # fmt: skip
            for start in range(0, n - block + 1, block):
                some = rows[start : start + block]
                torch.mm(some, flat, out=out)
                total.addmm_(out.T, some)

        def loop(rows: torch.Tensor = rows, low: bool = dtype is torch.bfloat16) -> None:
            # in bfloat16 the rows are converted in the loop, as in a training
            blocks = ((X[s : s + block], y[s : s + block]) for s in range(0, n - block + 1, block))
            slope(blocks, lambda some, label: (some, Targets(label)), weight,
                  torch.zeros(1, CLASSES), low_precision=low)  # fmt: skip

        ceiling, ours = best(products, 2), best(loop, 2)
        name = str(dtype).removeprefix("torch.")
        line(
            f"gradient loop with loss, {name}, {n:,} × {WIDTH:,} × {CLASSES:,}",
            f"{ours:.2f} s, {work / ours / 1e9:.0f} GFLOP/s",
            f"its two products: {ceiling:.2f} s, {work / ceiling / 1e9:.0f} GFLOP/s",
            f"{ceiling / ours:.0%} of the ceiling",
        )


def closed_forms(n: int) -> None:
    """LDA and ridge with twelve values against one X'X and one eigendecomposition."""
    X, y = generate(n, seed=0)
    rows, labels = torch.from_numpy(X - X.mean(axis=0)), torch.from_numpy(y)
    product = best(lambda: rows.T @ rows, 2)
    cross = (rows.T @ rows).double()
    eigen = best(lambda: torch.linalg.eigh(cross), 2)

    def blocks() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        return ((rows[s : s + 8192], labels[s : s + 8192]) for s in range(0, n, 8192))

    values = np.linspace(0.01, 1, 12).tolist()
    for name, solve in (("LDA", closed_form.lda), ("ridge", closed_form.ridge)):

        def work(solve: Callable[..., Iterator[object]] = solve) -> None:
            moments = Moments.of(blocks(), CLASSES, WIDTH, torch.device("cpu"))
            list(solve(moments, values))

        ours = best(work, 2)
        line(
            f"{name}, 12 values, {n:,} rows",
            f"{ours:.2f} s",
            f"X'X {product:.2f} s + eigendecomposition {eigen:.2f} s",
            f"{ours / (product + eigen):.2f} ×",
        )


def against_scikit_learn(n: int) -> None:
    """One logistic fit and the whole sweep against scikit-learn's, on the same rows."""
    from sklearn.linear_model import LogisticRegression

    X, y = generate(n, seed=0)
    Xv, yv = generate(5000, seed=1)
    part = np.zeros(n, int)
    part[np.random.default_rng(0).permutation(n)[: n // 20]] = 1
    took: list[float] = []
    with timed(took):
        matrix = TrainMatrix(TrainRows(X, y, roles=["train"]), part, seed=0)
        fit, monitor = matrix.part_of([0]), matrix.part_of([1])
        _ = fit.moments.total
    shared = took.pop()
    standard = matrix.standard
    Z = ((X[part == 0] - standard.mean) / standard.scale).astype(np.float32)
    Zv = torch.from_numpy(((Xv - standard.mean) / standard.scale).astype(np.float32))
    target, low = torch.from_numpy(yv), has_fast_bfloat16(matrix.device)
    theirs_s = []
    for C in CS:
        with timed(took), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = LogisticRegression(C=C).fit(Z, y[part == 0])
        scores = torch.from_numpy(theirs.decision_function(Zv.numpy()))
        loss = float(torch.nn.functional.cross_entropy(scores.double(), target))
        right = float((scores.argmax(dim=1) == target).double().mean())
        seconds = took.pop()
        theirs_s.append(f"{seconds:.1f} s (C = {C:g})")
        Xm, ym = monitor.first(monitor.n)
        for steps in range(1, 100):
            # temperature from rows that were held out for that, as in every training
            with timed(took):
                found = next(logistic.fit(fit, [C], logistic.Options(), seed=0, iterations=[steps],
                                          low_precision=low))  # fmt: skip
                temperature = best_temperature(Xm @ found.weight + found.bias, ym)
            scores = (Zv @ found.weight + found.bias) / temperature
            our_loss = float(torch.nn.functional.cross_entropy(scores.double(), target))
            our_right = float((scores.argmax(dim=1) == target).double().mean())
            ours = took.pop() + shared
            if our_loss <= loss:
                break
        line(
            f"one logistic fit, C = {C:g}, {n:,} rows",
            f"{ours:.1f} s (of which {shared:.1f} s serve all C), {steps} steps: validation loss "
            f"{our_loss:.3f}, right {our_right:.1%}",
            f"LogisticRegression {seconds:.1f} s: {loss:.3f}, {right:.1%}",
            f"{seconds / ours:.1f} × sooner",
        )
    with timed(took):
        board = heads.train(TrainRows(X, y, roles=["train"]), "logistic", seed=0)
    line(
        f"whole sweep of 12 penalties, choice, fit on all {n:,} rows",
        f"{took.pop():.1f} s: internal validation {board.top1.estimate:.1%}, "
        f"{board.params}; {'; '.join(board.notes) or 'all tried'}",
        f"one LogisticRegression: {', '.join(theirs_s)}",
        "",
    )


def predictions(n: int) -> None:
    """Scores, top 1, top 5 and loss of many rows against their product alone."""
    X, y = generate(n, seed=2)
    head = heads.train(TrainRows(*generate(n, seed=0), roles=["train"]), "lda", seed=0).head
    rows, weight = torch.from_numpy(X), torch.from_numpy(head.weight)
    room = torch.empty(2048, CLASSES)

    def product() -> None:
        for start in range(0, n - 2047, 2048):
            torch.mm(rows[start : start + 2048], weight, out=room)

    ceiling, ours = best(product), best(lambda: predict(head, X, y))
    line(
        f"predict, top 1, top 5, NLL of {n:,} rows",
        f"{ours:.2f} s", f"the product alone {ceiling:.2f} s", f"{ours / ceiling:.2f} ×",
    )  # fmt: skip


def neighbours(n_queries: int, n: int) -> None:
    """The 20 nearest of many rows against faiss, where it is installed."""
    X, _ = generate(n + n_queries, seed=3)
    rows = unit(torch.from_numpy(X))
    bank, queries = rows[:n].clone(), rows[n:].clone()
    ours = best(lambda: nearest(queries, bank, 20), 2)
    try:
        import faiss
    except ImportError:
        line(
            f"20 nearest of {n:,}, {n_queries:,} queries", f"{ours:.2f} s", "faiss is not here", ""
        )
        return
    index = faiss.IndexFlatIP(WIDTH)
    index.add(bank.numpy())
    theirs = best(lambda: index.search(queries.numpy(), 20), 2)
    same = np.mean(
        index.search(queries[:1000].numpy(), 20)[1] == nearest(queries[:1000], bank, 20)[1].numpy()
    )
    line(
        f"20 nearest of {n:,}, {n_queries:,} queries",
        f"{ours:.2f} s", f"faiss IndexFlatIP {theirs:.2f} s ({same:.2%} the same)",
        f"{ours / theirs:.2f} ×",
    )  # fmt: skip


SECTIONS: dict[str, Callable[[float], None]] = {
    "loop": lambda share: loop_against_products(int(200_000 * share)),
    "closed": lambda share: closed_forms(int(200_000 * share)),
    "sklearn": lambda share: against_scikit_learn(int(50_000 * share)),
    "predict": lambda share: predictions(int(60_000 * share)),
    "knn": lambda share: neighbours(int(10_000 * share), int(100_000 * share)),
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sections", nargs="*", default=list(SECTIONS), choices=list(SECTIONS))
    parser.add_argument("--share", type=float, default=1.0, help="of the rows, for a quick look")
    arguments = parser.parse_args()
    print(
        f"{os.cpu_count()} cores, {platform.machine()}, torch {torch.__version__}, "
        f"{datetime.now(UTC):%Y-%m-%d}\n\n"
        "| what | Gapscope | against | ratio |\n| --- | --- | --- | --- |"
    )
    for section in arguments.sections:
        SECTIONS[section](arguments.share)


if __name__ == "__main__":
    main()
