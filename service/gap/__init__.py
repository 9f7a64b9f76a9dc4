"""Why a model scores lower on one test split than on another: the parts of that answer.

    inputs      what the parts read, each thing once
    part        what a part is: a path, a computation, charts
    store       answers kept beside the model, under a key of question and state of the data
    explaining  computes what is not there yet
    ledger, …   one module a part: its answer, its computation from `models.gap`, its chart

A new part is one module with a PART, and its line here.
"""

from typing import Any

from service.gap import images, labels, leaks, ledger
from service.gap.part import Part

PARTS: dict[str, Part[Any]] = {
    part.name: part for part in (ledger.PART, labels.PART, images.PART, leaks.PART)
}
