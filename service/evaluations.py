"""What a model said and what it is worth, in the form in which both are stored."""

from typing import Any

import numpy as np
import pyarrow as pa

from models.gap.scores import Scores
from service.schemas import EstimateOut, ScoresOut

SEED = 0  # of bootstraps and permutations, so that the same question has the same answer
METRICS = ("top1", "top5", "nll", "ece")


def records_of(model: str, split: str, sha256: str, found: Scores) -> list[dict[str, Any]]:
    """Return one record for each metric of a model on a split, as evaluation.json has them."""
    return [
        {
            "model": model,
            "split": split,
            "metric": metric,
            **EstimateOut.of(getattr(found, metric)).model_dump(exclude={"n"}),
            "n": found.n,
            "data_sha256": sha256,
        }
        for metric in METRICS
    ]


def scores_out(records: list[dict[str, Any]], split: str) -> ScoresOut:
    """Return the answer about one split from the records of an evaluation."""
    mine = {record["metric"]: record for record in records if record["split"] == split}
    estimates = {
        metric: EstimateOut(
            **{name: mine[metric][name] for name in EstimateOut.model_fields if name != "n"},
            n={split: mine[metric]["n"]},
        )
        for metric in METRICS
    }
    return ScoresOut(n=mine["top1"]["n"], **estimates)


def prediction_table(
    model: str,
    split: str,
    paths: list[str] | np.ndarray,
    labels: np.ndarray,
    predicted: np.ndarray,
    *,
    confidence: np.ndarray | None = None,
    in_top5: np.ndarray | None = None,
    nll: np.ndarray | None = None,
) -> pa.Table:
    """Return one row for each image: what a model said of it, null where that is not known."""
    n = len(paths)
    return pa.table(
        {
            "model": pa.array([model] * n, pa.string()),
            "split": pa.array([split] * n, pa.string()),
            "path": pa.array(paths, pa.string()),
            "class_id": pa.array(labels, pa.int32()),
            "predicted_class_id": pa.array(predicted, pa.int32()),
            "confidence": pa.nulls(n, pa.float64()) if confidence is None else confidence,
            "is_correct": predicted == labels,
            "is_in_top5": pa.nulls(n, pa.bool_()) if in_top5 is None else in_top5,
            "nll": pa.array([None] * n if nll is None else nll, pa.float64(), from_pandas=True),
        }
    )
