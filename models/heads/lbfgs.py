"""L-BFGS for many problems of one shape at once, so that they share each pass over the rows."""

from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

_MEMORY = 10
_ARMIJO = 1e-4
_NOISE = 2e-7  # relative rounding of a loss whose scores are float32
_STALLS = 3
_BACKTRACKS = 20


@runtime_checkable
class Objective(Protocol):
    """Smooth convex functions of one shape, told apart by number."""

    def evaluate(
        self, which: Int[torch.Tensor, " a"], at: Float[torch.Tensor, "a p"]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Values, float64 [a], and gradients [a, p] of the problems `which`."""

    def reach(
        self,
        which: Int[torch.Tensor, " a"],
        at: Float[torch.Tensor, "a p"],
        direction: Float[torch.Tensor, "a p"],
        slope: Float[torch.Tensor, " a"],
    ) -> torch.Tensor:
        """About how far along the direction each problem falls, in lengths of it, [a]."""


class Minimiser:
    """Minima of h smooth convex problems, approached step by step.

    A problem rests when the fall that its next step promises is below `tolerance` (relative), or
    when its value has hardly fallen three times running; the others go on without it.

    Attributes
    ----------
    tolerance : below which relative fall a problem rests
    theta : [h, p], where each problem is
    value : float64 [h]
    iteration : steps taken

    Source: J. Nocedal and S. J. Wright (2006), Numerical Optimization, algorithms 3.1 and 7.4.

    Examples
    --------
    >>> centre = torch.tensor([[1.0, 2.0], [3.0, -1.0]], dtype=torch.float64)
    >>> class Bowls:
    ...     def evaluate(self, which, at):
    ...         away = at - centre[which]
    ...         return away.square().sum(dim=1), 2 * away
    ...     def reach(self, which, at, direction, slope):
    ...         return torch.ones(len(at), dtype=torch.float64)
    >>> found = Minimiser(Bowls(), torch.zeros(2, 2, dtype=torch.float64), tolerance=1e-9)
    >>> while found.n_at_work:
    ...     found.advance()
    >>> torch.allclose(found.theta, centre)
    True
    """

    def __init__(
        self,
        objective: Objective,
        theta: Float[torch.Tensor, "h p"],
        *,
        tolerance: float,
        known: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> None:
        """Begin at `theta`; `known` are the values and gradients there, where they are known."""
        self._objective = objective
        self.tolerance = tolerance
        self.theta = theta.clone()
        self.iteration = 0
        self._active = torch.arange(len(theta), device=theta.device)
        self._at = theta.clone()
        self._stalls = torch.zeros(len(theta), dtype=torch.int64, device=theta.device)
        self._steps: list[torch.Tensor] = []
        self._changes: list[torch.Tensor] = []
        self._value, self._gradient = known or objective.evaluate(self._active, self._at)
        self.value = self._value.clone()

    @property
    def n_at_work(self) -> int:
        """How many problems do not rest yet."""
        return len(self._active)

    def is_at_work(self, problem: int) -> bool:
        """Whether a problem does not rest yet."""
        return bool((self._active == problem).any())

    def rest(self, problems: list[int]) -> None:
        """Let problems rest where they are."""
        stop = torch.tensor(problems, dtype=torch.int64, device=self.theta.device)
        self._leave(torch.isin(self._active, stop))

    def advance(self) -> None:
        """Take one step of every problem that does not rest."""
        direction = -_two_loop(self._gradient, self._steps, self._changes)
        slope = (self._gradient * direction).sum(dim=1).double()
        up = slope >= 0
        direction = torch.where(up[:, None], -self._gradient, direction)
        slope = torch.where(up, -self._gradient.double().square().sum(dim=1), slope)
        length = self._objective.reach(self._active, self._at, direction, slope).to(direction.dtype)
        at, value, gradient = self._line_search(direction, slope, length)
        self._steps.append(at - self._at)
        self._changes.append(gradient - self._gradient)
        del self._steps[:-_MEMORY], self._changes[:-_MEMORY]
        scale = self.tolerance * value.abs()
        small = self._value - value <= scale
        self._stalls = torch.where(small, self._stalls + 1, 0)
        promised = -slope * length.double() / 2
        self._at, self._value, self._gradient = at, value, gradient
        self.theta[self._active], self.value[self._active] = at, value
        self.iteration += 1
        self._leave((promised <= scale / 10) | (self._stalls >= _STALLS))

    def state(self) -> dict[str, np.ndarray]:
        """Arrays from which `restore` goes on, bit for bit."""
        names = ["theta", "value", "_active", "_at", "_stalls", "_value", "_gradient"]
        arrays = {name.strip("_"): getattr(self, name) for name in names if name[0] == "_"}
        arrays |= {"all_theta": self.theta, "all_value": self.value}
        for i, (step, change) in enumerate(zip(self._steps, self._changes, strict=True)):
            arrays |= {f"step{i}": step, f"change{i}": change}
        found = {name: array.cpu().numpy() for name, array in arrays.items()}
        return found | {"iteration": np.array([self.iteration])}

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        """Go on from an earlier `state` of the same problems."""
        device = self.theta.device
        found = {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}
        self.theta, self.value = found["all_theta"], found["all_value"]
        self._active, self._at, self._stalls = found["active"], found["at"], found["stalls"]
        self._value, self._gradient = found["value"], found["gradient"]
        self.iteration = int(found["iteration"][0])
        n_pairs = sum(name.startswith("step") for name in found)
        self._steps = [found[f"step{i}"] for i in range(n_pairs)]
        self._changes = [found[f"change{i}"] for i in range(n_pairs)]

    def _line_search(
        self,
        direction: Float[torch.Tensor, "a p"],
        slope: Float[torch.Tensor, " a"],
        length: Float[torch.Tensor, " a"],
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Halve each problem's step until its value falls; one that cannot fall stays put."""
        length = length.clone()
        at, value, gradient = self._at.clone(), self._value.clone(), self._gradient.clone()
        todo = torch.arange(len(at), device=at.device)
        for _ in range(_BACKTRACKS):
            trial = self._at[todo] + length[todo, None] * direction[todo]
            v, g = self._objective.evaluate(self._active[todo], trial)
            wanted = self._value[todo] + _ARMIJO * length[todo].double() * slope[todo]
            enough = v <= wanted + _NOISE * self._value[todo].abs()
            done = todo[enough]
            at[done], value[done], gradient[done] = trial[enough], v[enough], g[enough]
            todo = todo[~enough]
            if len(todo) == 0:
                break
            length[todo] *= 0.3
        return at, value, gradient

    def _leave(self, rest: Bool[torch.Tensor, " a"]) -> None:
        if rest.any():
            go = ~rest
            self._active, self._at = self._active[go], self._at[go]
            self._value, self._gradient = self._value[go], self._gradient[go]
            self._stalls = self._stalls[go]
            self._steps = [s[go] for s in self._steps]
            self._changes = [c[go] for c in self._changes]


def _two_loop(
    gradient: Float[torch.Tensor, "h p"],
    steps: list[torch.Tensor],
    changes: list[torch.Tensor],
) -> Float[torch.Tensor, "h p"]:
    """Inverse-Hessian estimate times gradient; pairs without positive curvature are passed over."""
    q = gradient.clone()
    tiny = 1e-14 if gradient.dtype == torch.float64 else 1e-30
    inner = [(s * c).sum(dim=1) for s, c in zip(steps, changes, strict=True)]
    rho = [torch.where(sc > tiny, 1 / sc.clamp(min=tiny), 0.0) for sc in inner]
    alphas = []
    for s, c, r in zip(reversed(steps), reversed(changes), reversed(rho), strict=True):
        alpha = r * (s * q).sum(dim=1)
        q -= alpha[:, None] * c
        alphas.append(alpha)
    if steps:
        scale = inner[-1] / changes[-1].square().sum(dim=1).clamp(min=tiny)
        q *= torch.where(scale > 0, scale, 1.0)[:, None]
    for s, c, r, alpha in zip(steps, changes, rho, reversed(alphas), strict=True):
        q += (alpha - r * (c * q).sum(dim=1))[:, None] * s
    return q
