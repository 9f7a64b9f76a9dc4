"""Accuracy on the line: where models of this accuracy stand on the target, and how far from it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.special import expit, logit, ndtr, ndtri
from scipy.stats import t as student

from models.estimate import LEVEL, Estimate, Z

LEAST_ROWS = 3  # two points have a line through them whatever they are
LEAST_LOCAL = 10  # rows of a baseline that takes only models above an accuracy
FLOORS = (0.0, 0.70, 0.80, 0.85)  # accuracies on the reference from which a baseline takes rows
PROBIT = "probit"

ABOVE = "above the line"
BELOW = "below the line"
BEYOND = "not judged: the line's models are of other accuracies"
ON = "on the line, as far as chance lets see"


@dataclass(frozen=True)
class _Axis:
    """A scale on which accuracies are nearly a straight line."""

    forward: Callable[[Any], Any]
    back: Callable[[Any], Any]
    slope: Callable[[Any], Any]  # of `back`, at a value of the axis


AXES: Mapping[str, _Axis] = {
    PROBIT: _Axis(ndtri, ndtr, lambda z: np.exp(-np.square(z) / 2) / np.sqrt(2 * np.pi)),
    "logit": _Axis(logit, expit, lambda z: expit(z) * expit(-z)),
    "linear": _Axis(lambda p: p, lambda z: z, np.ones_like),
}


def on_axis(accuracy: Float[np.ndarray, " n"], axis: str = PROBIT) -> Float[np.ndarray, " n"]:
    """Accuracies on an axis.

    Parameters
    ----------
    accuracy
        Fractions above 0 and below 1.
    axis
        probit, logit or linear.

    Examples
    --------
    >>> on_axis(np.array([0.5])).tolist()
    [0.0]
    """
    return np.asarray(AXES[axis].forward(accuracy), float)


def inside(accuracy: float, n: int) -> float:
    """Return the accuracy, or half an image from the end where all or none are right.

    Examples
    --------
    >>> inside(1.0, 50), inside(0.3, 50)
    (0.99, 0.3)
    """
    return min(max(accuracy, 0.5 / n), 1 - 0.5 / n)


@dataclass(frozen=True)
class Line:
    """A least-squares line through models: accuracy on the target over accuracy on the reference.

    Attributes
    ----------
    axis : on which both accuracies are; slope, intercept and residual_sd are in its units
    n : models
    slope, slope_se, intercept
    residual_sd : standard deviation of models about the line, n − 2 degrees of freedom
    middle, spread : mean of the references' values, and their sum of squares about it
    least, most : lowest and highest accuracy on the reference, fractions
    """

    axis: str
    n: int
    slope: float
    slope_se: float
    intercept: float
    residual_sd: float
    middle: float
    spread: float
    least: float
    most: float

    def expected(self, reference: Float[np.ndarray, " k"]) -> Float[np.ndarray, " k"]:
        """Accuracy on the target that the line gives each accuracy on the reference."""
        axis = AXES[self.axis]
        return np.asarray(axis.back(self.intercept + self.slope * axis.forward(reference)), float)

    def predicted(self, reference: float, n_reference: int | None = None) -> Estimate:
        """Accuracy on the target of one more model that has this accuracy on the reference.

        With Student's prediction interval on the axis: the scatter of models, and the error of the
        line.

        Parameters
        ----------
        reference
            Fraction above 0 and below 1.
        n_reference
            Images behind it, whose chance then widens the interval (delta method); None takes it
            as known.
        """
        axis = AXES[self.axis]
        x = float(axis.forward(reference))
        z = self.intercept + self.slope * x
        own = 0.0 if n_reference is None else self._own(reference, x, n_reference)
        half = self._quantile * float(np.sqrt(self._model_variance(x) + own))
        low, middle, high = (float(axis.back(value)) for value in (z - half, z, z + half))
        return Estimate(
            middle,
            max(0.0, low),
            min(1.0, high),
            f"prediction interval of a least-squares line through {self.n} models, {self.axis} axes"
            + ("" if n_reference is None else "; with the chance of the reference's images"),
            {"models": self.n} if n_reference is None else
            {"models": self.n, "reference": n_reference},
            "fraction",
        )  # fmt: skip

    def band(self, x: Float[np.ndarray, " k"]) -> Float[np.ndarray, "k 3"]:
        """Where further models lie at some references: low, middle, high, all on the axis.

        Parameters
        ----------
        x
            Accuracies on the reference, on the axis.
        """
        middle = self.intercept + self.slope * x
        half = self._quantile * np.sqrt(self._model_variance(x))
        return np.column_stack([middle - half, middle, middle + half])

    def distance(
        self, reference: float, target: float, n_reference: int, n_target: int
    ) -> Estimate:
        """Height of a model above the line, in units of the axis (G2).

        Its interval holds the scatter of models about the line, the line's own error, and by the
        delta method the chance of the images on which this model was scored. Models scored on the
        same images share part of that chance, so that it is wide rather than narrow.

        Parameters
        ----------
        reference, target
            Accuracies, fractions above 0 and below 1.
        n_reference, n_target
            Images behind them.
        """
        value, se = self._height(reference, target, n_reference, n_target)
        return self._estimate(value, se, n_reference, n_target, self.axis)

    def effective_robustness(
        self, reference: float, target: float, n_reference: int, n_target: int
    ) -> Estimate:
        """Accuracy on the target beyond what the line gives; parameters as of `distance`.

        Source: R. Taori and others (2020), Measuring Robustness to Natural Distribution Shifts in
        Image Classification, NeurIPS; J. Miller and others (2021), Accuracy on the Line, ICML.
        """
        axis = AXES[self.axis]
        x = float(axis.forward(reference))
        z = self.intercept + self.slope * x
        model = self._model_variance(x) + self._own(reference, x, n_reference)
        se = np.hypot(
            float(axis.slope(z)) * np.sqrt(model), np.sqrt(target * (1 - target) / n_target)
        )
        return self._estimate(
            target - float(axis.back(z)), float(se), n_reference, n_target, "fraction"
        )

    def _height(
        self, reference: float, target: float, n_reference: int, n_target: int
    ) -> tuple[float, float]:
        axis = AXES[self.axis]
        x, y = float(axis.forward(reference)), float(axis.forward(target))
        of_target = target * (1 - target) / n_target / float(axis.slope(y)) ** 2
        own = self._own(reference, x, n_reference) + of_target
        return y - self.intercept - self.slope * x, float(np.sqrt(self._model_variance(x) + own))

    def _own(self, reference: float, x: float, n: int) -> float:
        """Variance of the line's value that the chance of the reference's images makes."""
        stretch = self.slope / float(AXES[self.axis].slope(x))
        return stretch**2 * reference * (1 - reference) / n

    @property
    def _quantile(self) -> float:
        return float(student.isf((1 - LEVEL) / 2, self.n - 2))

    def _model_variance(self, x: Any) -> Any:
        return self.residual_sd**2 * (1 + 1 / self.n + (x - self.middle) ** 2 / self.spread)

    def _estimate(
        self, value: float, se: float, n_reference: int, n_target: int, unit: str
    ) -> Estimate:
        # Student's quantile stretches only the part that the models' scatter makes; taking it for
        # the whole errs on the wide side where the models are few
        wide = self._quantile if self.n < 100 else Z
        return Estimate(
            value,
            value - wide * se,
            value + wide * se,
            f"delta method for the images, with the scatter of {self.n} models about the line",
            {"reference": n_reference, "target": n_target, "models": self.n},
            unit,
        )


def fit(
    reference: Float[np.ndarray, " n"], target: Float[np.ndarray, " n"], *, axis: str = PROBIT
) -> Line | None:
    """Least-squares line through models; None with fewer than three, or all of one accuracy.

    Parameters
    ----------
    reference, target
        Accuracies of each model, fractions above 0 and below 1.
    axis
        probit, logit or linear.

    Examples
    --------
    >>> found = fit(np.array([0.5, 0.6, 0.7]), np.array([0.3, 0.4, 0.5]), axis="linear")
    >>> round(found.slope, 3), round(found.intercept, 3), round(found.residual_sd, 3)
    (1.0, -0.2, 0.0)
    """
    if len(reference) < LEAST_ROWS:
        return None
    x, y = on_axis(reference, axis), on_axis(target, axis)
    middle = float(x.mean())
    spread = float(np.square(x - middle).sum())
    if spread <= 1e-12:
        return None
    slope = float((x - middle) @ y / spread)
    intercept = float(y.mean()) - slope * middle
    residual_sd = float(np.sqrt(np.square(y - intercept - slope * x).sum() / (len(x) - 2)))
    return Line(
        axis, len(x), slope, residual_sd / float(np.sqrt(spread)), intercept, residual_sd,
        middle, spread, float(reference.min()), float(reference.max()),
    )  # fmt: skip


def baselines(
    reference: Float[np.ndarray, " n"], target: Float[np.ndarray, " n"]
) -> dict[tuple[float, str], Line]:
    """Lines through all models, and through those above an accuracy on the reference.

    Real lines are slightly bent, so that models of about one's own accuracy are the fairer
    comparison; a local baseline needs ten models.

    Returns
    -------
    lines : by accuracy from which models take part, and axis

    Examples
    --------
    >>> found = baselines(np.linspace(0.6, 0.9, 31), np.linspace(0.5, 0.8, 31))
    >>> sorted({floor for floor, _ in found})
    [0.0, 0.7, 0.8]
    """
    found = {}
    for floor in FLOORS:
        kept = reference >= floor - 1e-9  # 70 % as published is 70 %
        if floor and kept.sum() < LEAST_LOCAL:
            continue
        for axis in AXES:
            line = fit(reference[kept], target[kept], axis=axis)
            if line is not None:
                found[floor, axis] = line
    return found


def fairest(lines: Mapping[tuple[float, str], Line], reference: float) -> tuple[float, str] | None:
    """Key of the probit line through models of at least the highest floor below an accuracy.

    Examples
    --------
    >>> fairest(baselines(np.linspace(0.6, 0.9, 31), np.linspace(0.5, 0.8, 31)), 0.75)
    (0.7, 'probit')
    """
    floors = [floor for floor, axis in lines if axis == PROBIT and floor <= reference]
    return (max(floors), PROBIT) if floors else None


def verdict(robustness: Estimate, *, extrapolated: bool = False) -> str:
    """Say on which side of the line a model stands.

    Parameters
    ----------
    robustness
        Effective robustness, or the distance to the line.
    extrapolated
        Whether the model's reference accuracy lies outside those of the line's models.

    Examples
    --------
    >>> verdict(Estimate(0.01, 0.002, 0.018, "", {}, "fraction"))
    'above the line'
    """
    if extrapolated:
        return BEYOND
    if robustness.low is not None and robustness.low > 0:
        return ABOVE
    return BELOW if robustness.high is not None and robustness.high < 0 else ON
