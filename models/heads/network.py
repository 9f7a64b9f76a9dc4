"""Heads that are trained by steps over small batches: a multi-layer perceptron, a cosine head.

The rows are shuffled already; an epoch goes through its batches in an order of its own. What chance
does in a step follows from the seed and the step's number alone, so that a training that was killed
goes on from its checkpoint as if nothing had happened.

Source: I. Loshchilov and F. Hutter (2019), Decoupled weight decay regularization, ICLR.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from models.heads.closed_form import ABSENT
from models.heads.judging import nll_at_best_temperature
from models.heads.linear import Standardiser
from models.heads.task import Fit, Fitted

_BATCH = 512
_STEPS = 800
_EPOCHS_MOST, _EPOCHS_LEAST = 30, 3
_RATE = 1e-3
_MONITOR_ROWS = 2048
_PATIENCE = 4
_KEEP_EVERY_S = 10.0
Arrays = dict[str, torch.Tensor]


@dataclass(frozen=True)
class NetworkHead:
    """Scores of a small network on the standardised features.

    Attributes
    ----------
    kind : "mlp", x·skip + gelu(x·first + first_bias)·second + bias; or "cosine",
        s · cos(x, weight) + bias
    mean, scale : float64 [d], of the train rows
    arrays : float32, by the names above; s is in `arrays["sharpness"]`, [1]
    weights : float64 [d], see `feature_weights`
    class_ids : int64 [k]
    temperature : by which the scores are divided
    """

    kind: str
    mean: Float[np.ndarray, " d"]
    scale: Float[np.ndarray, " d"]
    arrays: dict[str, np.ndarray]
    weights: Float[np.ndarray, " d"]
    class_ids: Int[np.ndarray, " k"]
    temperature: float = 1.0

    @property
    def n_features(self) -> int:
        """Length of the vectors that it reads."""
        return len(self.mean)

    def block_scores(self, X: Float[torch.Tensor, "n d"]) -> Float[torch.Tensor, "n k"]:
        """Scores of one block of finite float32 features."""
        return self.standard_scores(Standardiser(self.mean, self.scale)(X))

    def standard_scores(self, X: Float[torch.Tensor, "n d"]) -> Float[torch.Tensor, "n k"]:
        """Scores of standardised rows."""
        arrays = {name: torch.from_numpy(a).to(X.device) for name, a in self.arrays.items()}
        with torch.no_grad():
            return SCORES[self.kind](arrays, X) / self.temperature

    def with_temperature(self, temperature: float) -> "NetworkHead":
        """Return the head with its scores divided by a temperature."""
        return replace(
            self,
            temperature=self.temperature * temperature,
            weights=self.weights / temperature,
        )

    def feature_weights(self) -> Float[np.ndarray, " d"]:
        """How much each feature moves the scores apart, by the best linear approximation."""
        return self.weights


def _mlp(
    arrays: Arrays,
    X: torch.Tensor,
    dropout: float = 0.0,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    hidden = torch.nn.functional.gelu(torch.addmm(arrays["first_bias"], X, arrays["first"]))
    if dropout:
        stays = torch.rand(hidden.shape, generator=generator, device=X.device) >= dropout
        hidden = hidden * stays / (1 - dropout)
    return torch.addmm(arrays["bias"], X, arrays["skip"]) + hidden @ arrays["second"]


def _cosine(
    arrays: Arrays, X: torch.Tensor, _dropout: float = 0.0, _generator: object = None
) -> torch.Tensor:
    rows = torch.nn.functional.normalize(X, dim=1, eps=1e-12)
    weight = torch.nn.functional.normalize(arrays["weight"], dim=0, eps=1e-12)
    return arrays["sharpness"] * (rows @ weight) + arrays["bias"]


SCORES: dict[str, Callable[..., torch.Tensor]] = {"mlp": _mlp, "cosine": _cosine}


def fit_mlp(task: Fit) -> Iterator[Fitted]:
    """One hidden layer beside a linear path, with dropout and weight decay."""
    d, k = task.part.matrix.shape[1], task.part.matrix.k
    for i, candidate in enumerate(task.candidates):
        hidden = candidate.get("hidden", 512)
        generator = torch.Generator().manual_seed(task.seed)
        arrays = {
            "first": torch.randn(d, hidden, generator=generator) / math.sqrt(d),
            "first_bias": torch.zeros(hidden),
            "second": torch.zeros(hidden, k),
            "skip": torch.zeros(d, k),
            "bias": _bias(task),
        }
        yield _train(task, i, "mlp", arrays, candidate["weight_decay"], candidate, 0.3)


def fit_cosine(task: Fit) -> Iterator[Fitted]:
    """Directions of the classes, from their means on; the sharpness is the candidate's.

    Source: S. Gidaris and N. Komodakis (2018), Dynamic few-shot visual learning without
    forgetting, CVPR, section 3.2.
    """
    means = task.part.moments.means.T.float().cpu()
    for i, candidate in enumerate(task.candidates):
        arrays = {
            "weight": torch.nn.functional.normalize(means, dim=0, eps=1e-12),
            "bias": _bias(task),
            "sharpness": torch.tensor([float(candidate["scale"])]),
        }
        yield _train(task, i, "cosine", arrays, 0.0, candidate, 0.0)


def _bias(task: Fit) -> torch.Tensor:
    """0, but for classes without rows, which must not win."""
    return torch.where(task.part.moments.count.cpu() > 0, 0.0, ABSENT).float()


def _train(
    task: Fit,
    number: int,
    kind: str,
    arrays: Arrays,
    decay: float,
    options: dict[str, Any],
    dropout: float,
) -> Fitted:
    """Adam with decoupled weight decay, the rate falling along a half cosine."""
    run = _Run(task, number, kind, arrays, decay, options, dropout)
    run.go()
    matrix = task.part.matrix
    head = NetworkHead(
        kind,
        matrix.standard.mean,
        matrix.standard.scale,
        {name: a.detach().cpu().numpy().copy() for name, a in run.best.items()},
        np.zeros(matrix.shape[1]),
        matrix.class_ids,
    )
    found = {"epochs": run.best_epoch} if run.monitored is not None else {}
    return Fitted(head, found, run.curve)


class _Run:
    """One training of one candidate."""

    def __init__(
        self,
        task: Fit,
        number: int,
        kind: str,
        arrays: Arrays,
        decay: float,
        options: dict[str, Any],
        dropout: float,
    ) -> None:
        n = task.part.n
        self._task, self._number, self._scores = task, number, SCORES[kind]
        self._decay = decay
        self._smoothing = options.get("label_smoothing", 0.0)
        self._dropout = options.get("dropout", dropout)
        self._key = f"{task.key}-{number}"
        device = task.part.matrix.device
        fixed = {"sharpness"}
        self._arrays = {name: a.to(device) for name, a in arrays.items()}
        self._learnt = [name for name in arrays if name not in fixed]
        for name in self._learnt:
            self._arrays[name].requires_grad_()
        self._first = {name: torch.zeros_like(self._arrays[name]) for name in self._learnt}
        self._second = {name: torch.zeros_like(self._arrays[name]) for name in self._learnt}
        batches = max(1, n // _BATCH)
        default = min(_EPOCHS_MOST, max(_EPOCHS_LEAST, round(_STEPS / batches)))
        self._n_epochs = int(options.get("epochs", default))
        stop = None if task.found is None else task.found[number].get("epochs")
        # a run that is to end as a monitored one did goes down the same rates
        self._last_epoch = self._n_epochs if stop is None else min(self._n_epochs, int(stop))
        self.monitored = None
        if task.monitor is not None and task.monitor.n:
            self.monitored = task.monitor.first(_MONITOR_ROWS)
        self.best, self.best_epoch, self._best_nll = self._arrays, self._last_epoch, math.inf
        self.curve: list[tuple[float, float | None]] = []
        self._epoch = 0

    def go(self) -> None:
        """Train to the end."""
        self._resume()
        kept_at = time.monotonic()
        while self._epoch < self._last_epoch:
            loss = self._one_epoch()
            self._epoch += 1
            self.curve.append((loss, self._monitor()))
            if self.monitored is not None and self._epoch - self.best_epoch >= _PATIENCE:
                break
            if time.monotonic() - kept_at >= _KEEP_EVERY_S:
                self._task.checkpoint.put(self._key, self._state())
                kept_at = time.monotonic()
        if self.monitored is None:
            self.best = self._arrays

    def _one_epoch(self) -> float:
        blocks = list(self._task.part.places(_BATCH))
        order = np.random.default_rng([self._task.seed, self._epoch]).permutation(len(blocks))
        total = 0.0
        for i, place in enumerate(order.tolist()):
            start, stop = blocks[place]
            step = self._epoch * len(blocks) + i
            X, y = self._task.part.matrix.read(start, stop), self._task.part.matrix.y[start:stop]
            total += self._step(X, y, step, self._n_epochs * len(blocks)) * len(y)
            done = (self._epoch + (i + 1) / len(blocks)) / self._last_epoch
            self._task.tick((self._number + min(done, 0.999)) / len(self._task.candidates))
        return total / self._task.part.n

    def _step(self, X: torch.Tensor, y: torch.Tensor, step: int, n_steps: int) -> float:
        generator = torch.Generator(device=X.device).manual_seed(self._task.seed * 7919 + step)
        scores = self._scores(self._arrays, X, self._dropout, generator)
        loss = torch.nn.functional.cross_entropy(scores, y, label_smoothing=self._smoothing)
        slopes = torch.autograd.grad(loss, [self._arrays[name] for name in self._learnt])
        warm = min(1.0, (step + 1) / 100)
        rate = _RATE * warm * 0.5 * (1 + math.cos(math.pi * step / n_steps))
        with torch.no_grad():
            for name, slope in zip(self._learnt, slopes, strict=True):
                self._first[name].lerp_(slope, 0.1)
                self._second[name].lerp_(slope.square(), 0.001)
                first = self._first[name] / (1 - 0.9 ** (step + 1))
                second = self._second[name] / (1 - 0.999 ** (step + 1))
                if not name.endswith("bias"):
                    self._arrays[name].mul_(1 - rate * self._decay)
                self._arrays[name].sub_(rate * first / (second.sqrt() + 1e-8))
        return float(loss.detach())

    def _monitor(self) -> float | None:
        if self.monitored is None:
            return None
        X, y = self.monitored
        with torch.no_grad():
            nll = nll_at_best_temperature(self._scores(self._arrays, X), y)
        if nll < self._best_nll - 1e-5:
            self._best_nll, self.best_epoch = nll, self._epoch
            self.best = {name: a.detach().clone() for name, a in self._arrays.items()}
        return nll

    def _state(self) -> dict[str, np.ndarray]:
        groups = {"now": self._arrays, "best": self.best, "m": self._first, "v": self._second}
        found = {
            f"{group}-{name}": a.detach().cpu().numpy()
            for group, arrays in groups.items()
            for name, a in arrays.items()
        }
        curve = [(loss, math.nan if nll is None else nll) for loss, nll in self.curve]
        counts = np.array([self._epoch, self.best_epoch, self._best_nll])
        return found | {"counts": counts, "curve": np.array(curve).reshape(-1, 2)}

    def _resume(self) -> None:
        found = self._task.checkpoint.get(self._key)
        if found is None:
            return
        with torch.no_grad():
            for group, arrays in (("now", self._arrays), ("m", self._first), ("v", self._second)):
                for name, a in arrays.items():
                    a.copy_(torch.from_numpy(found[f"{group}-{name}"]))
        device = self._task.part.matrix.device
        self.best = {n: torch.from_numpy(found[f"best-{n}"]).to(device) for n in self._arrays}
        self._epoch, self.best_epoch = int(found["counts"][0]), int(found["counts"][1])
        self._best_nll = float(found["counts"][2])
        self.curve = [(a, None if math.isnan(b) else b) for a, b in found["curve"].tolist()]
