"""Why a model scores lower on one test split than on another: the parts of that answer.

    inputs      what the parts read, each thing once
    part        what a part is: a path, a computation, charts
    store       answers kept beside the model, under a key of question and state of the data
    explaining  computes what is not there yet
    groups      the groups of covariates that ledger and overlap re-weight by
    findings    the strongest findings of all parts, and what cannot be told
    mask        the head fitted again without some features: asked for by name, so no part
    ledger, …   one module a part: its answer, its computation from `models.gap`, its chart

A new part is one module with a PART, and its line here.
"""

from typing import Any

from service.gap import (
    classes,
    difficulty,
    features,
    image_map,
    images,
    labels,
    leaks,
    ledger,
    line,
    overlap,
    slices,
    without_labels,
)
from service.gap.part import Part

PARTS: dict[str, Part[Any]] = {
    part.name: part
    for part in (
        ledger.PART,
        classes.PART,
        features.PART,
        difficulty.PART,
        slices.PART,
        overlap.PART,
        line.PART,
        without_labels.PART,
        labels.PART,
        images.PART,
        image_map.PART,
        leaks.PART,
    )
}
# what takes minutes against a large train set, or where UMAP is installed: last, never waited for
SLOW = ("map", "leaks")
