"""The 47 models of ImageNetV2's authors: `python -m tests.science.imagenet_v2` prints the table.

Real predictions of each model on ImageNet val (reference) and ImageNetV2 (target), shared data.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from models.estimate import Estimate
from models.gap.agreement import agreement, without_near_twins
from models.gap.classes import class_counts
from models.gap.difference import label_shift, newcombe
from models.gap.excess import benjamini_hochberg, equality_p_values
from models.gap.labels import Judged, by_sets, label_quality
from models.gap.reliability import reliability
from models.gap.resampling import Replicates, replicates
from models.gap.standardise import Covariate, standardise
from tests.world import SHARED

FOLDER = SHARED / "imagenet_v2"
SETS = ("val", "v2_matched_frequency")
_N_CLASSES = 1000


@dataclass(frozen=True)
class Line:
    """One model; shares are fractions of 1."""

    model: str
    accuracy: tuple[float, float]
    gap: Estimate
    label_shift: float | None
    reliability: Estimate
    n_q05: int
    n_q10: int
    explained: Estimate
    errors_called_right: Estimate
    n_others: int


class Predictions:
    """Labels of both sets, ReaL's of val, and what each model says."""

    def __init__(self) -> None:
        images = [pd.read_parquet(FOLDER / f"{name}_images.parquet") for name in SETS]
        said = [pd.read_parquet(FOLDER / f"{name}_top1.parquet") for name in SETS]
        self.labels = [table["label"].to_numpy(np.int64) for table in images]
        self.said = {
            name: np.concatenate([table[name] for table in said]).astype(np.int64)
            for name in said[0]
        }
        texts, self._which = np.unique(
            images[0]["real_labels"].fillna("").to_numpy(object).astype(str), return_inverse=True
        )
        self._sets = [{int(c) for c in text.split()} for text in texts]
        self._drawn: Replicates = replicates(*self.labels, seed=0)

    def lines(self) -> Iterator[Line]:
        """Yield each model's line, the most accurate on val first."""
        n1 = len(self.labels[0])
        right = {
            name: float((said[:n1] == self.labels[0]).mean()) for name, said in self.said.items()
        }
        for name in sorted(right, key=lambda name: -right[name]):
            yield self.line(name)

    def line(self, model: str) -> Line:
        """All numbers of one model."""
        first, second = self.labels
        n1, mine = len(first), self.said[model]
        others, _ = without_near_twins(
            mine, {name: said for name, said in self.said.items() if name != model}
        )
        correct = mine[:n1] == first, mine[n1:] == second
        (k1, all1), (k2, all2) = (
            class_counts(labels, is_right, np.arange(_N_CLASSES))
            for labels, is_right in zip(self.labels, correct, strict=True)
        )
        q = benjamini_hochberg(equality_p_values(k1, all1, k2, all2))
        shares = agreement(mine, others)
        (parts,) = standardise(
            *correct, [Covariate("agreement", shares[:n1], shares[n1:])], self._drawn
        )
        nothing = np.zeros(len(second), bool)
        real = label_quality(
            correct[0],
            by_sets(self._sets, self._which, np.ones(n1, bool), mine[:n1], correct[0]),
            correct[1],
            Judged(nothing, nothing, correct[1]),
            self._drawn,
        )
        assert real.reference is not None
        return Line(
            model,
            (float(correct[0].mean()), float(correct[1].mean())),
            newcombe(int(k1.sum()), n1, int(k2.sum()), len(second)),
            label_shift(k1, all1, all2),
            reliability(k1, all1, k2, all2, seed=0).share,
            int((q <= 0.05).sum()),
            int((q <= 0.10).sum()),
            parts.share,
            real.reference.errors_called_right,
            len(others),
        )


def _with_interval(value: Estimate, digits: int = 0) -> str:
    found = [100 * (end or 0.0) for end in (value.estimate, value.low, value.high)]
    return "{:.{d}f} [{:.{d}f}, {:.{d}f}]".format(*found, d=digits)


def main() -> None:
    print(
        "| model | val, % | V2, % | gap, points | reliability of class gaps, % "
        "| classes named at .05 | at .10 | gap explained by agreement, % "
        "| val's errors that ReaL calls right, % |\n"
        "| --- | ---: | ---: | --- | --- | ---: | ---: | --- | --- |"
    )
    lines = []
    for line in Predictions().lines():
        lines.append(line)
        a1, a2 = line.accuracy
        print(
            f"| {line.model} | {100 * a1:.2f} | {100 * a2:.2f} | {_with_interval(line.gap, 2)} "
            f"| {_with_interval(line.reliability)} | {line.n_q05} | {line.n_q10} "
            f"| {_with_interval(line.explained)} | {_with_interval(line.errors_called_right, 1)} |",
            flush=True,
        )
    n_zero = sum(line.label_shift == 0 for line in lines)
    n_others = {line.n_others for line in lines}
    print(
        f"\nLabel shift is exactly 0 in {n_zero} of {len(lines)} models; other models that vote: "
        f"{', '.join(map(str, sorted(n_others)))}."
    )


if __name__ == "__main__":
    main()
