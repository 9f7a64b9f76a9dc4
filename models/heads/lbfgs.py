"""L-BFGS for many problems of one shape at once, so that they share each pass over the rows."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int

# values [h] and gradients [h, p] of the problems numbered in the first argument, at theta [h, p]
Evaluate = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]

_MEMORY = 10
_ARMIJO = 1e-4
_NOISE = 2e-7  # relative rounding of a loss whose scores are float32
_STALLS = 3
_BACKTRACKS = 20


def minimise(
    evaluate: Evaluate,
    theta: Float[torch.Tensor, "h p"],
    *,
    max_iterations: int,
    gradient_tolerance: float,
    value_tolerance: float,
) -> Float[torch.Tensor, "h p"]:
    """Minima of h smooth convex problems, float64 [h, p].

    A problem rests when the largest element of its gradient is below `gradient_tolerance`, or
    when its value fell by less than `value_tolerance` (relative) three times running; the others
    go on without it.

    Parameters
    ----------
    evaluate
        Takes the numbers of the problems that are still at work (int64 [a]) and their theta
        [a, p]; gives their values [a] and gradients [a, p], float64.
    theta
        Starting points, float64.

    Source: J. Nocedal and S. J. Wright (2006), Numerical Optimization, algorithms 3.1 and 7.4.

    Examples
    --------
    >>> centre = torch.tensor([[1.0, 2.0], [3.0, -1.0]], dtype=torch.float64)
    >>> def bowl(which, at):
    ...     away = at - centre[which]
    ...     return away.square().sum(dim=1), 2 * away
    >>> found = minimise(bowl, torch.zeros(2, 2, dtype=torch.float64), max_iterations=20,
    ...                  gradient_tolerance=1e-9, value_tolerance=0.0)
    >>> torch.allclose(found, centre)
    True
    """
    theta = theta.clone()
    active = torch.arange(len(theta))
    at = theta.clone()
    value, gradient = evaluate(active, at)
    steps: list[torch.Tensor] = []
    changes: list[torch.Tensor] = []
    stalls = torch.zeros(len(theta), dtype=torch.int64)
    for _ in range(max_iterations):
        direction = -_two_loop(gradient, steps, changes)
        if not steps:  # nothing is known of the curvature yet: a short first step
            direction /= gradient.abs().sum(dim=1, keepdim=True).clamp(min=1.0)
        new_at, new_value, new_gradient = _line_search(
            evaluate, active, at, value, gradient, direction
        )
        steps.append(new_at - at)
        changes.append(new_gradient - gradient)
        del steps[:-_MEMORY], changes[:-_MEMORY]
        small = value - new_value <= value_tolerance * new_value.abs()
        stalls = torch.where(small, stalls + 1, 0)
        at, value, gradient = new_at, new_value, new_gradient
        rest = (gradient.abs().amax(dim=1) <= gradient_tolerance) | (stalls >= _STALLS)
        theta[active[rest]] = at[rest]
        if rest.any():
            go = ~rest
            active, at, value, gradient = active[go], at[go], value[go], gradient[go]
            stalls = stalls[go]
            steps = [s[go] for s in steps]
            changes = [c[go] for c in changes]
        if len(active) == 0:
            return theta
    theta[active] = at
    return theta


def _two_loop(
    gradient: Float[torch.Tensor, "h p"],
    steps: list[torch.Tensor],
    changes: list[torch.Tensor],
) -> Float[torch.Tensor, "h p"]:
    """Inverse-Hessian estimate times gradient; pairs without positive curvature are passed over."""
    q = gradient.clone()
    inner = [(s * c).sum(dim=1) for s, c in zip(steps, changes, strict=True)]
    rho = [torch.where(sc > 1e-14, 1 / sc.clamp(min=1e-14), 0.0) for sc in inner]
    alphas = []
    for s, c, r in zip(reversed(steps), reversed(changes), reversed(rho), strict=True):
        alpha = r * (s * q).sum(dim=1)
        q -= alpha[:, None] * c
        alphas.append(alpha)
    if steps:
        scale = inner[-1] / changes[-1].square().sum(dim=1).clamp(min=1e-300)
        q *= torch.where(scale > 0, scale, 1.0)[:, None]
    for s, c, r, alpha in zip(steps, changes, rho, reversed(alphas), strict=True):
        q += (alpha - r * (c * q).sum(dim=1))[:, None] * s
    return q


def _line_search(
    evaluate: Evaluate,
    active: Int[torch.Tensor, " h"],
    at: Float[torch.Tensor, "h p"],
    value: Float[torch.Tensor, " h"],
    gradient: Float[torch.Tensor, "h p"],
    direction: Float[torch.Tensor, "h p"],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Halve each problem's step until its value falls enough; one that cannot fall stays put."""
    slope = (gradient * direction).sum(dim=1)
    up = slope >= 0
    direction = torch.where(up[:, None], -gradient, direction)
    slope = torch.where(up, -gradient.square().sum(dim=1), slope)
    length = torch.ones(len(at), dtype=at.dtype)
    new_at, new_value, new_gradient = at.clone(), value.clone(), gradient.clone()
    todo = torch.arange(len(at))
    for _ in range(_BACKTRACKS):
        trial = at[todo] + length[todo, None] * direction[todo]
        v, g = evaluate(active[todo], trial)
        enough = (
            v <= value[todo] + _ARMIJO * length[todo] * slope[todo] + _NOISE * value[todo].abs()
        )
        done = todo[enough]
        new_at[done], new_value[done], new_gradient[done] = trial[enough], v[enough], g[enough]
        todo = todo[~enough]
        if len(todo) == 0:
            break
        length[todo] *= 0.5
    return new_at, new_value, new_gradient
