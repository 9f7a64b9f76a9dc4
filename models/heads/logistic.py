"""Multinomial logistic regression for many penalties at once, and what can be varied in its loss.

The parameters are scaled so that the loss is about equally curved in every direction: in the
eigenvectors of the features' covariance, by what ridge regression would divide by. The first step
from 0 is then ridge regression itself, and few more are needed. The line search looks at a sample
of the rows, so that nearly every pass over all of them is a step.

Source: D. Böhning (1992), Multinomial logistic regression algorithm, Ann. Inst. Statist. Math. 44,
197-200, for the bound on the curvature that the scaling follows.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float

from models.heads.checkpoint import Checkpoint, NoCheckpoint
from models.heads.judging import nll_at_best_temperature
from models.heads.lbfgs import Minimiser
from models.heads.matrix import Part, Tick
from models.heads.softmax import Targets, slope, to_residual

MAX_ITERATIONS = 300
_TOLERANCE = 1e-7
_LOW_TOLERANCE = 1e-3  # of the steps in bfloat16 that come before the last ones in float32
_COLUMNS = 1024  # of scores that one product makes
_SCORES_BYTES = 8e6
_SAMPLE_ROWS = 4096  # that the line search looks at, and twice those that stop a fit
_SAMPLE_SCORES = 1_500_000
_PATIENCE = 2
_KEEP_EVERY_S = 10.0
_NEWTON_STEPS = 5
_EMA_DECAY = 0.7
_DRAWN_ROWS = 20_000
_EXACT_PARAMETERS = 2_000_000
_GUIDE_C = 0.01  # of the fit whose errors are the hard rows


@dataclass(frozen=True)
class Options:
    """What is varied in the loss.

    Attributes
    ----------
    label_smoothing : share of each target that is spread over all classes
    balanced : whether every class weighs the same, however many rows it has
    noise : standard deviation of noise on the features, in standard deviations of theirs
    dropout : share of the features that each row loses; the others grow in proportion
    mixup : α of Beta(α, α), by whose draws two rows and their targets are mixed; 0: none
    averaging : "ema" or "swa": the mean of the iterates instead of the last one; None: the last
    early_stopping : whether the iterate that is best on the monitored rows is kept
    hard : weight of the rows that a stiff fit (C = .01) gets wrong, as a multiple of the others';
        weights are 1 on average, so that C means the same

    Noise, dropout and mixup are drawn once for each row, from the seed, not anew in each pass: the
    loss stays one smooth function, and a training repeatable (few rows are drawn several times).

    Source: C. Szegedy et al. (2016), CVPR, section 7 (smoothing); H. Zhang et al. (2018), ICLR
    (mixup); S. Wager, S. Wang and P. Liang (2013), NeurIPS (noise and dropout); P. Izmailov et al.
    (2018), UAI (averaging); E. Liu et al. (2021), ICML (hard rows).
    """

    label_smoothing: float = 0.0
    balanced: bool = False
    noise: float = 0.0
    dropout: float = 0.0
    mixup: float = 0.0
    averaging: str | None = None
    early_stopping: bool = True
    hard: float = 1.0

    @property
    def is_drawn(self) -> bool:
        """Whether rows are changed by chance."""
        return bool(self.noise or self.dropout or self.mixup)


@dataclass
class Fitted:
    """One penalty's weights.

    Attributes
    ----------
    weight, bias : float32 [d, k] and [k]
    iterations : steps that led there
    is_converged : False where the limit of the iterations or the monitored rows ended it
    curve : of each step: mean loss of the rows with the penalty, and the monitored NLL or None
    """

    weight: torch.Tensor
    bias: torch.Tensor
    iterations: int
    is_converged: bool
    curve: list[tuple[float, float | None]] = field(default_factory=list)


def fit(
    part: Part,
    values: Sequence[float],
    options: Options,
    *,
    seed: int,
    monitor: Part | None = None,
    iterations: Sequence[int | None] | None = None,
    low_precision: bool = False,
    tick: Tick = lambda _share: None,
    checkpoint: Checkpoint | None = None,
    key: str = "logistic",
) -> Iterator[Fitted]:
    """Minimise Σ loss + ‖W‖² / (2C), the bias free, for each C, in the order of the values.

    With two classes the penalty is shared by two weight vectors, so that C here is half of
    scikit-learn's.

    Parameters
    ----------
    seed
        Of what is drawn.
    monitor
        Rows that are not learnt from, by which the best iterate is kept; None: the minimum.
    iterations
        For each value, the steps to take, found on a monitored fit; None: to the minimum.
    low_precision
        Whether the first steps use bfloat16; the last one is always float32's.
    checkpoint, key
        Where the state is kept every few seconds, and under what name.
    """
    guide = None
    if options.hard != 1:
        guide = _guide(part, options, seed=seed, low_precision=low_precision)
    at_once = max(1, _COLUMNS // part.matrix.k)
    kept = NoCheckpoint() if checkpoint is None else checkpoint
    for first in range(0, len(values), at_once):
        some = values[first : first + at_once]

        def share(done: float, first: int = first, some: Sequence[float] = some) -> None:
            tick((first + len(some) * done) / len(values))

        limits = None if iterations is None else list(iterations[first : first + at_once])
        objective = _Objective(
            part, some, options, seed=seed, low_precision=low_precision, guide=guide
        )
        run = _Run(objective, options, monitor, limits, share, kept, f"{key}-{first}")
        yield from run.fitted()


@dataclass(frozen=True)
class _Guide:
    """A head whose errors are the hard rows, and their share."""

    head: Fitted
    share: float

    def weights(self, X: torch.Tensor, y: torch.Tensor, hard: float) -> torch.Tensor:
        """Weight of each row of a block, 1 on average over all rows."""
        mean = 1 + (hard - 1) * self.share
        return torch.where(self.is_hard(X, y), hard / mean, 1 / mean)

    def is_hard(self, X: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Whether the head gets each row wrong."""
        return torch.addmm(self.head.bias, X, self.head.weight).argmax(dim=1) != y


def _guide(part: Part, options: Options, *, seed: int, low_precision: bool) -> _Guide:
    """Fit the head whose errors on these rows are the hard ones: too stiff to know them by heart.

    One head for all penalties, so that a penalty's fit does not hang on which others are tried.
    """
    plain = Options(balanced=options.balanced)
    (found,) = fit(part, [_GUIDE_C], plain, seed=seed, low_precision=low_precision)
    guide = _Guide(found, 0.0)
    n_hard = sum(int(guide.is_hard(X, y).sum()) for X, y in part.blocks(8192))
    return _Guide(found, n_hard / part.n)


class _Run:
    """The minimisation of some penalties: early stopping, averaging, checkpoints."""

    def __init__(
        self,
        objective: "_Objective",
        options: Options,
        monitor: Part | None,
        limits: list[int | None] | None,
        share: Tick,
        checkpoint: Checkpoint,
        key: str,
    ) -> None:
        self._objective, self._options, self._share = objective, options, share
        self._limits = limits
        self._checkpoint, self._key = checkpoint, key
        self._monitored = None
        if monitor is not None and options.early_stopping and monitor.n:
            self._monitored = monitor.first(_SAMPLE_ROWS // 2)
        h = objective.h
        self._best = torch.zeros(0)
        self._best_nll = np.full(h, math.inf)
        self._best_iteration = np.zeros(h, int)
        self._stopped = np.zeros(h, bool)
        self._mean = torch.zeros(0)
        self._curves = np.full((MAX_ITERATIONS, h, 2), np.nan)

    def fitted(self) -> Iterator[Fitted]:
        """Run to the end and give the weights of each penalty."""
        objective = self._objective
        objective.ticks = lambda passes: self._share(min(0.99, passes / (passes + 12)))
        minimiser = Minimiser(
            objective, objective.start(), tolerance=self._tolerance(), known=objective.at_start()
        )
        self._mean = minimiser.theta.clone()
        self._best = minimiser.theta.clone()
        self._resume(minimiser)
        kept_at = time.monotonic()
        self._stop_at_limits(minimiser)
        while minimiser.n_at_work and minimiser.iteration < MAX_ITERATIONS:
            minimiser.advance()
            self._look(minimiser)
            self._stop_at_limits(minimiser)
            if objective.low_precision and not (minimiser.n_at_work or self._stopped.all()):
                minimiser = self._polished(minimiser)
            if time.monotonic() - kept_at >= _KEEP_EVERY_S:
                self._checkpoint.put(self._key, self._state(minimiser))
                kept_at = time.monotonic()
        n = minimiser.iteration
        is_cut = np.array([minimiser.is_at_work(i) for i in range(objective.h)]) | self._stopped
        theta = self._best if self._monitored is not None else self._iterate(minimiser)
        weight, bias = objective.weights(torch.arange(objective.h), theta)
        for i in range(objective.h):
            curve = self._curves[:n, i]
            curve = curve[np.isfinite(curve[:, 0])]
            steps = int(self._best_iteration[i]) if self._monitored is not None else len(curve)
            yield Fitted(
                weight[i].contiguous(),
                bias[i].contiguous(),
                steps,
                not bool(is_cut[i]),
                [(float(a), None if math.isnan(b) else float(b)) for a, b in curve],
            )

    def _tolerance(self) -> float:
        return _LOW_TOLERANCE if self._objective.low_precision else _TOLERANCE

    def _polished(self, minimiser: Minimiser) -> Minimiser:
        """Go on in float32 from where bfloat16 led."""
        self._objective.low_precision = False
        polished = Minimiser(self._objective, minimiser.theta, tolerance=_TOLERANCE)
        polished.iteration = minimiser.iteration
        if self._stopped.any():
            polished.rest(np.flatnonzero(self._stopped).tolist())
        return polished

    def _iterate(self, minimiser: Minimiser) -> torch.Tensor:
        return minimiser.theta if self._options.averaging is None else self._mean

    def _look(self, minimiser: Minimiser) -> None:
        """Average, note the loss, and judge the iterate where rows are monitored."""
        t = minimiser.iteration
        if self._options.averaging is not None:
            newest = 1 / t if self._options.averaging == "swa" else max(1 - _EMA_DECAY, 1 / t)
            self._mean.lerp_(minimiser.theta, newest)
        running = [i for i in range(self._objective.h) if not self._stopped[i]]
        self._curves[t - 1, running, 0] = minimiser.value[running].cpu().numpy()
        if self._monitored is None:
            return
        X, y = self._monitored
        theta = self._iterate(minimiser)
        weight, bias = self._objective.weights(torch.arange(self._objective.h), theta)
        for i in running:
            nll = nll_at_best_temperature(torch.addmm(bias[i], X, weight[i]), y, precision=0.03)
            self._curves[t - 1, i, 1] = nll
            if nll < self._best_nll[i] - 1e-5:
                self._best_nll[i], self._best_iteration[i] = nll, t
                self._best[i] = theta[i]
            elif t - self._best_iteration[i] >= _PATIENCE:
                self._stopped[i] = True
        minimiser.rest(np.flatnonzero(self._stopped).tolist())

    def _stop_at_limits(self, minimiser: Minimiser) -> None:
        """Stop what has taken its steps; bfloat16 leaves the last one to float32.

        Not a single one: its gradient comes from sums over classes, whatever the precision.
        """
        if self._limits is None:
            return
        t, low = minimiser.iteration, self._objective.low_precision
        limits = {i: n for i, n in enumerate(self._limits) if n is not None}
        self._stopped[[i for i, n in limits.items() if t >= n]] = True
        minimiser.rest([i for i, n in limits.items() if t >= (n - 1 if low and n > 1 else n)])

    def _state(self, minimiser: Minimiser) -> dict[str, np.ndarray]:
        mine = {
            "best": self._best.cpu().numpy(),
            "best_nll": self._best_nll,
            "best_iteration": self._best_iteration,
            "stopped": self._stopped,
            "mean": self._mean.cpu().numpy(),
            "curves": self._curves[: minimiser.iteration],
            "low": np.array([self._objective.low_precision]),
        }
        state = {f"lbfgs-{name}": array for name, array in minimiser.state().items()}
        return {name: np.ascontiguousarray(array) for name, array in (mine | state).items()}

    def _resume(self, minimiser: Minimiser) -> None:
        found = self._checkpoint.get(self._key)
        if found is None:
            return
        device = minimiser.theta.device
        self._objective.low_precision = bool(found["low"][0])
        minimiser.tolerance = self._tolerance()
        minimiser.restore(
            {n.removeprefix("lbfgs-"): a for n, a in found.items() if n.startswith("lbfgs-")}
        )
        self._best = torch.from_numpy(found["best"]).to(device)
        self._mean = torch.from_numpy(found["mean"]).to(device)
        self._best_nll, self._stopped = found["best_nll"], found["stopped"]
        self._best_iteration = found["best_iteration"]
        self._curves[: minimiser.iteration] = found["curves"]


class _Objective:
    """Mean loss with the penalty, and its gradient, in scaled parameters, for h penalties.

    A problem's parameters are r·k numbers u, with W = V·diag(D)·u, and k scaled biases; V are the
    eigenvectors of the rows' covariance with a variance above 0, D = 1/√(λ/k + 1/(nC)): the mean
    loss at 0 then curves by 1 in every direction.
    """

    def __init__(
        self,
        part: Part,
        values: Sequence[float],
        options: Options,
        *,
        seed: int,
        low_precision: bool,
        guide: _Guide | None = None,
    ) -> None:
        self._part, self._options, self._seed = part, options, seed
        self._guide = guide
        self.h, self.k, self.n = len(values), part.matrix.k, part.n
        self.low_precision = low_precision
        self.ticks: Callable[[float], None] = lambda _passes: None
        self._passes = 0.0
        device = part.matrix.device
        spectrum = part.moments.total
        keep = spectrum.values > 1e-9 * spectrum.values.amax().clamp(min=1e-30)
        self._V, lam = spectrum.vectors[:, keep], spectrum.values[keep]
        self._r = len(lam)
        exact = self.h * (self._r + 1) * self.k <= _EXACT_PARAMETERS
        self._dtype = torch.float64 if exact else torch.float32
        self._V = self._V.to(self._dtype)
        self._penalty = 1 / torch.tensor(values, dtype=torch.float64, device=device)
        curvature = lam / self.k + self._penalty[:, None] / self.n
        self._D = (1 / curvature.sqrt()).to(self._dtype)  # [h, r]
        self._bias_scale = math.sqrt(self.k)
        count = part.moments.count
        self._row_weight = None
        if options.balanced:
            here = (count > 0).sum()
            self._row_weight = (self.n / (here * count.clamp(min=1))).float()
        self._draws = 1
        if options.is_drawn:
            self._draws = int(min(8, max(1, _DRAWN_ROWS // self.n)))
        self._sample: list[tuple[torch.Tensor, Targets]] | None = None

    def start(self) -> Float[torch.Tensor, "h p"]:
        """All weights 0."""
        p = (self._r + 1) * self.k
        return torch.zeros(self.h, p, dtype=self._dtype, device=self._V.device)

    def at_start(self) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Value and gradient where all weights are 0, from the sums over classes; None if drawn.

        There every class has probability 1/k in every row, so that no pass over the rows is needed
        where the rows of a class weigh alike.
        """
        if self._options.is_drawn or self._guide is not None:
            return None
        moments = self._part.moments
        weight = torch.ones_like(moments.count) if self._row_weight is None else self._row_weight
        sums, count = moments.sums * weight[:, None], moments.count * weight
        whole = 1 - self._options.label_smoothing
        slope = whole * (sums.sum(dim=0) / self.k - sums)  # [k, d]
        bias_slope = whole * (count.sum() / self.k - count)
        turned = (slope @ self._V.double()).T  # [r, k]
        scaled = self._D.double()[:, :, None] * turned
        bias = (bias_slope * self._bias_scale).expand(self.h, -1)
        gradient = torch.cat([scaled.reshape(self.h, -1), bias], dim=1) / self.n
        value = count.sum() / self.n * math.log(self.k)
        return value.expand(self.h).clone(), gradient.to(self._dtype)

    def weights(
        self, which: torch.Tensor, theta: Float[torch.Tensor, "a p"]
    ) -> tuple[Float[torch.Tensor, "a d k"], Float[torch.Tensor, "a k"]]:
        """Weights and biases on the standardised features, float32."""
        weight = self._V @ self._scaled(which, theta)
        bias = theta[:, self._r * self.k :] * self._bias_scale
        return weight.float(), bias.float()

    def evaluate(
        self, which: torch.Tensor, at: Float[torch.Tensor, "a p"]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean loss with the penalty, and its gradient."""
        weight, bias = self.weights(which, at)
        scaled = self._scaled(which, at)
        penalty = self._penalty[which]
        value: torch.Tensor = 0.5 * penalty * scaled.double().square().sum(dim=(1, 2))
        gradient = penalty[:, None, None].to(self._dtype) * scaled
        bias_gradient = torch.zeros(len(which), self.k, dtype=self._dtype, device=at.device)
        for draw in range(self._draws):
            found = slope(
                self._blocks(len(which)),
                self._targets(draw),
                weight,
                bias,
                low_precision=self.low_precision,
                tick=self._tick,
            )
            value = value + found.loss / self._draws
            turned = found.weight.to(self._dtype) @ self._V
            gradient = gradient + turned.transpose(1, 2) / self._draws
            bias_gradient += found.bias.to(self._dtype) / self._draws
        flat = (self._D[which][:, :, None] * gradient).reshape(len(which), -1)
        whole = torch.cat([flat, bias_gradient * self._bias_scale], dim=1)
        return value / self.n, whole / self.n

    def reach(
        self,
        which: torch.Tensor,
        at: Float[torch.Tensor, "a p"],
        direction: Float[torch.Tensor, "a p"],
        slope: Float[torch.Tensor, " a"],
    ) -> torch.Tensor:
        """Length of the step that is best, by Newton's method.

        The slope at its start is that of all rows; how it changes along the step is seen on a
        sample of them.
        """
        weight, bias = self.weights(which, at)
        ahead, bias_ahead = self.weights(which, direction)
        there = self._scaled(which, direction).double()
        curve_0 = self._penalty[which] / self.n * there.square().sum(dim=(1, 2))
        sample = self._sampled(len(which))
        m = sum(len(rows) for rows, _ in sample)
        scores = [
            (torch.einsum("bd,adk->bak", rows, weight) + bias,
             torch.einsum("bd,adk->bak", rows, ahead) + bias_ahead, wanted)
            for rows, wanted in sample
        ]  # fmt: skip
        length = torch.zeros(len(which), dtype=torch.float64, device=at.device)
        at_start = torch.zeros_like(length)
        for step in range(_NEWTON_STEPS + 1):
            seen, bends = torch.zeros_like(length), curve_0.clone()
            for base, ahead_scores, wanted in scores:
                at_length = base + length.float()[None, :, None] * ahead_scores
                first, second = _derivatives(at_length, ahead_scores, wanted)
                seen, bends = seen + first / m, bends + second / m
            if step == 0:
                at_start = seen
            falls = slope + seen - at_start + length * curve_0
            before = length
            length = length - falls / bends.clamp(min=1e-30)
            if step > 0:
                length = torch.maximum(torch.minimum(length, 4 * before), before / 4)
            length = length.clamp(1e-4, 1e4)
            if step > 0 and ((length - before).abs() <= 0.02 * before).all():
                break
        return length

    def _scaled(self, which: torch.Tensor, theta: torch.Tensor) -> torch.Tensor:
        """D·u, [a, r, k]: the weights in the eigenvectors."""
        u = theta[:, : self._r * self.k].reshape(len(theta), self._r, self.k)
        return self._D[which][:, :, None] * u

    def _blocks(self, a: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        rows = int(min(8192, max(256, _SCORES_BYTES / (4 * a * self.k))))
        return self._part.blocks(rows)

    def _tick(self, n_rows: int) -> None:
        self._passes += n_rows / (self.n * self._draws)
        self.ticks(self._passes)

    def _sampled(self, a: int) -> list[tuple[torch.Tensor, Targets]]:
        """Rows that the line search looks at, as they are learnt from."""
        if self._sample is None:
            wanted = self._targets(0)
            # as many as make products of about the size of a block's
            limit = max(256, min(_SAMPLE_ROWS, _SAMPLE_SCORES // (a * self.k)))
            self._sample = [wanted(X, y) for X, y in self._part.blocks(8192, limit)]
        return self._sample

    def _targets(self, draw: int) -> "_Learnt":
        """Return what makes of a block the rows that are learnt from: alike in every pass."""
        return _Learnt(self._options, self._row_weight, self._guide, self._seed * 1_000_003 + draw)


class _Learnt:
    """Turns the blocks of one pass, in order, into the rows and targets that are learnt from."""

    def __init__(
        self,
        options: Options,
        row_weight: torch.Tensor | None,
        guide: _Guide | None,
        seed: int,
    ) -> None:
        self._options, self._row_weight, self._seed = options, row_weight, seed
        self._guide = guide
        self._number = 0

    def __call__(self, X: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, Targets]:
        weight = None if self._row_weight is None else self._row_weight[y]
        if self._guide is not None:
            hard = self._guide.weights(X, y, self._options.hard)
            weight = hard if weight is None else weight * hard
        wanted = Targets(y, weight=weight, smoothing=self._options.label_smoothing)
        if not self._options.is_drawn:
            return X, wanted
        generator = torch.Generator(device=X.device)
        generator.manual_seed(self._seed * 1_000_003 + self._number)
        self._number += 1
        return _drawn(X, wanted, self._options, generator)


def _drawn(
    X: torch.Tensor, wanted: Targets, options: Options, generator: torch.Generator
) -> tuple[torch.Tensor, Targets]:
    """Rows with noise, dropout and mixup."""
    if options.mixup:
        share = _beta(options.mixup, len(X), generator, X.device)
        X = share[:, None] * X + (1 - share)[:, None] * X.roll(1, dims=0)
        other = wanted.y.roll(1)
        wanted = Targets(wanted.y, other, share, wanted.weight, wanted.smoothing)
    if options.dropout:
        stays = torch.rand(X.shape, generator=generator, device=X.device) >= options.dropout
        X = X * stays / (1 - options.dropout)
    if options.noise:
        X = X + options.noise * torch.randn(X.shape, generator=generator, device=X.device)
    return X, wanted


def _beta(
    alpha: float, n: int, generator: torch.Generator, device: torch.device
) -> Float[torch.Tensor, " n"]:
    """Draws of Beta(α, α), float32 [n]."""
    seed = int(torch.randint(2**31, (1,), generator=generator, device=device))
    drawn = np.random.default_rng(seed).beta(alpha, alpha, size=n)
    return torch.from_numpy(drawn.astype(np.float32)).to(device)


def _derivatives(
    scores: Float[torch.Tensor, "b a k"], step: Float[torch.Tensor, "b a k"], wanted: Targets
) -> tuple[torch.Tensor, torch.Tensor]:
    """First and second derivative of the summed loss along a step of the scores, float64 [a]."""
    p = torch.softmax(scores, dim=2)
    mean = (p * step).sum(dim=2)
    weight = None if wanted.weight is None else wanted.weight[:, None]
    spread = (p * step.square()).sum(dim=2) - mean.square()
    spread = spread if weight is None else spread * weight
    residual = scores.clone()
    to_residual(residual, wanted)
    first = (residual * step).sum(dim=2)
    return first.double().sum(dim=0), spread.double().sum(dim=0)
