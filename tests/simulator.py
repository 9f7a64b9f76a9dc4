"""A world whose answer is known: classes, hidden difficulty, and five causes of a gap.

Fifty Gaussian classes in pairs that resemble each other; test set 1 is drawn as the train set but
without the backbone's memorisation; test set 2 differs by any of five causes. The truth for a
given head is computed by Monte Carlo with common draws over all 32 combinations.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np
from scipy.special import expit

K, D = 50, 64
NUISANCE = np.arange(56, 64)
CAUSES = ("selection", "nuisance", "attenuation", "noise", "concept")
_NOISE, _MORE_NOISE, _CONCEPT, _SHRINK = 0.03, 0.012, 0.12, 0.35


@dataclass(frozen=True)
class Sample:
    """Images: features float32 [n, D], labels, true classes, easiness s and Bin(10, s) / 10."""

    features: np.ndarray
    labels: np.ndarray
    classes: np.ndarray
    easiness: np.ndarray
    observed_easiness: np.ndarray


class World:
    """Class means and what else the seed settles."""

    def __init__(self, seed: int, concept: float = _CONCEPT) -> None:
        self._concept_share = concept
        rng = np.random.default_rng([seed, 0])
        self.seed = seed
        pair = _unit(rng.normal(size=(K // 2, 56)))[np.arange(K) // 2]
        own = _unit(rng.normal(size=(K, 56)))
        size = 4.4 * np.exp(0.15 * rng.normal(size=(K, 1)))
        self.means = np.zeros((K, D))
        self.means[:, :56] = size * (0.55 * pair + np.sqrt(1 - 0.55**2) * own)
        self.attenuated = np.argsort(-self.means.var(axis=0))[:6]
        self.concept = rng.choice(np.arange(0, K, 2), 5, replace=False)

    def train(self, n: int = 20_000) -> Sample:
        """Rows whose residuals the backbone has shrunk."""
        rng = np.random.default_rng([self.seed, 1])
        y = np.arange(n) % K
        residual = rng.normal(size=(n, D))
        return self._sample(self.means[y] + (1 - _SHRINK) * residual, y, _NOISE, (), rng)

    def reference(self, per_class: int) -> Sample:
        """Test set 1."""
        rng = np.random.default_rng([self.seed, 2])
        y = np.repeat(np.arange(K), per_class)
        return self._sample(self.means[y] + rng.normal(size=(len(y), D)), y, _NOISE, (), rng)

    def target(self, per_class: int, causes: Collection[str] = CAUSES) -> Sample:
        """Test set 2 under some causes."""
        rng = np.random.default_rng([self.seed, 3])
        y = np.repeat(np.arange(K), per_class)
        x = self.means[y] + rng.normal(size=(len(y), D))
        if "selection" in causes:
            waiting = np.arange(len(y))
            while len(waiting):
                refused = rng.random(len(waiting)) >= np.exp(-self.easiness(x[waiting]))
                waiting = waiting[refused]
                x[waiting] = self.means[y[waiting]] + rng.normal(size=(len(waiting), D))
        noise = _NOISE + _MORE_NOISE * ("noise" in causes)
        concept = self.concept if "concept" in causes else ()
        return self._sample(x, y, noise, concept, rng, self._moved(causes))

    def easiness(self, x: np.ndarray) -> np.ndarray:
        """s: margin of the two largest true log-posteriors, squeezed into (0, 1)."""
        scores = x @ self.means.T - 0.5 * np.square(self.means).sum(axis=1)
        top = -np.partition(-scores, 1, axis=1)[:, :2]
        return np.asarray(expit((top[:, 0] - top[:, 1] - 1.5) / 1.5))

    def truth(
        self, predict: Callable[[np.ndarray], np.ndarray], per_class: int = 2000
    ) -> dict[str, float]:
        """Gap of a head in the limit, and its Shapley value over the five causes.

        Parameters
        ----------
        predict
            Features to class ids.
        """
        accuracy = self._accuracies(predict, per_class)
        return shapley_of(CAUSES, lambda arm: accuracy[arm]) | {
            "gap": accuracy[frozenset()] - accuracy[frozenset(CAUSES)]
        }

    def gap_of(
        self,
        predict: Callable[[np.ndarray], np.ndarray],
        causes: Collection[str],
        per_class: int = 2000,
    ) -> float:
        """Gap of a head in the limit under some causes."""
        accuracy = self._accuracies(predict, per_class)
        return accuracy[frozenset()] - accuracy[frozenset(causes)]

    def _accuracies(
        self, predict: Callable[[np.ndarray], np.ndarray], per_class: int
    ) -> dict[frozenset[str], float]:
        rng = np.random.default_rng([self.seed, 4])
        y = np.repeat(np.arange(K), per_class)
        x = self.means[y] + rng.normal(size=(len(y), D))
        easy = np.exp(-self.easiness(x))
        total = np.bincount(y, easy)[y]
        found = {}
        for moved in _subsets(("nuisance", "attenuation")):
            said = predict((self._moved(moved)(x)).astype(np.float32))
            for others in _subsets(("selection", "noise", "concept")):
                wrong = np.where(
                    np.isin(y, self.concept) & ("concept" in others), self._concept_share, 0.0
                )
                noise = _NOISE + _MORE_NOISE * ("noise" in others)
                is_own = (1 - wrong) * (1 - noise) + wrong * noise
                chance = np.where(said == y, is_own, np.where(said == (y ^ 1), 1 - is_own, 0.0))
                weight = easy / total if "selection" in others else np.full(len(y), 1 / per_class)
                found[frozenset(moved) | frozenset(others)] = float((weight * chance).sum() / K)
        return found

    def _moved(self, causes: Collection[str]) -> Callable[[np.ndarray], np.ndarray]:
        def move(x: np.ndarray) -> np.ndarray:
            x = x.copy()
            if "nuisance" in causes:
                x[:, NUISANCE] += 2
            if "attenuation" in causes:
                x[:, self.attenuated] *= 0.5
            return x

        return move

    def _sample(
        self,
        x: np.ndarray,
        y: np.ndarray,
        noise: float,
        concept: Collection[int],
        rng: np.random.Generator,
        move: Callable[[np.ndarray], np.ndarray] = lambda x: x,
    ) -> Sample:
        labels = y.copy()
        changed = np.isin(labels, list(concept)) & (rng.random(len(y)) < self._concept_share)
        labels[changed] ^= 1
        labels[rng.random(len(y)) < noise] ^= 1
        easy = self.easiness(x)
        seen = rng.binomial(10, easy) / 10
        return Sample(move(x).astype(np.float32), labels, y, easy, seen)


def shapley_of(
    players: Collection[str], value: Callable[[frozenset[str]], float]
) -> dict[str, float]:
    """Shapley value of −value for each player."""
    n = len(players)
    return {
        i: sum(
            (value(frozenset(s)) - value(frozenset([*s, i]))) / (n * comb(n - 1, len(s)))
            for size in range(n)
            for s in combinations([j for j in players if j != i], size)
        )
        for i in players
    }


def _subsets(names: Collection[str]) -> list[tuple[str, ...]]:
    return [s for size in range(len(names) + 1) for s in combinations(names, size)]


def _unit(x: np.ndarray) -> np.ndarray:
    return np.asarray(x / np.linalg.norm(x, axis=1, keepdims=True))
