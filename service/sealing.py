"""Predicts the accuracy of a model on a target without its labels, and seals it."""

from typing import Any

import numpy as np

from models import heads
from models.estimate import LEVEL, share
from models.gap.covariates import covariates_of
from models.gap.line import inside
from models.gap.sealing import ALIKE, BLIND, LINE, Voice, alone, by_confidence, by_line, combine
from models.gap.without_labels import Foreteller
from service.analysis import Analysis, ToSeal
from service.errors import SealWanted
from service.evaluations import SEED
from service.gap import line as on_line
from service.gap.inputs import Inputs
from service.schemas import EstimateOut
from service.seals import SealedMethodOut, SealedPartsOut, SealOut, Seals
from service.terminal import Progress

_ROWS = 4096
_NO_LINE = "too few other models with an accuracy on both splits are known"


def seal(
    analysis: Analysis,
    model: str,
    target: str | None = None,
    reference: str | None = None,
    *,
    progress: Progress = lambda _share, _message: None,
) -> SealOut:
    """Predict the accuracy on a target from the reference's labels, and store it.

    Raises
    ------
    NotFound, NotATest, ImportedModel, DataChanged, TestWasTrained
    AlreadySeen
        Labels of the target were held against this model before, or it is sealed.
    SealWanted
        Where seals are demanded: the reference is another target, itself without a seal.
    RecordNotKept, RecordChanged
    """
    progress(0.0, "reading")
    rows = analysis.to_seal(model, target, reference)
    return Seals(analysis.data).add(rows.card, _predicted(analysis, rows, progress))


def evaluate_sealed(
    analysis: Analysis,
    model: str,
    target: str | None = None,
    reference: str | None = None,
    *,
    progress: Progress = lambda _share, _message: None,
) -> None:
    """Score a model, sealed before where seals are demanded and it has none.

    Raises
    ------
    NotFound, NotATest, ImportedModel, DataChanged, TestWasTrained, AlreadySeen, SealWanted,
    RecordNotKept, RecordChanged
    """
    try:
        analysis.evaluate(model, progress=progress)
    except SealWanted:
        seal(analysis, model, target, reference)
        analysis.evaluate(model, progress=progress)


def _predicted(analysis: Analysis, rows: ToSeal, progress: Progress) -> dict[str, Any]:
    """Return what the record says."""
    card, first, n = rows.card, rows.reference_rows, len(rows.target_features)
    progress(0.1, "predicting")
    correct = heads.predict(rows.head, first.features, first.labels).correct
    uncertain = [_uncertainty(rows.head, x) for x in (first.features, rows.target_features)]
    progress(0.4, "methods that see no label")
    teller = Foreteller(first.labels, correct, n, seed=SEED)
    voices = by_confidence(
        teller, (uncertain[0][0], uncertain[1][0]), (uncertain[0][1], uncertain[1][1])
    )
    progress(0.9, "the line through other models")
    inputs = Inputs(analysis.database, analysis.results, card, rows.reference, rows.target)
    voices.append(_of_line(inputs, correct, teller))
    accuracy = share(int(correct.sum()), len(correct))
    found = combine(voices, float(correct.mean()), n)
    parts = SealedPartsOut(
        n_methods=found.n_methods,
        chance_sd=found.chance_sd,
        images_sd=found.images_sd,
        spread_sd=found.spread_sd,
        least_sd=found.least_sd,
    )
    methods = [
        SealedMethodOut(
            name=voice.foretold.name,
            predicted=EstimateOut.of(alone(voice, n), inputs.names),
            method=voice.foretold.method,
            assumptions=voice.foretold.assumptions,
        )
        for voice in voices
    ]
    return {
        "model": card["model"],
        "backbone": card["backbone"],
        "created_at": card["created_at"],
        "head_sha256": analysis.results.head_sha256(card["model"]),
        "reference": rows.reference,
        "target": rows.target,
        "data_sha256": rows.digests,
        "reference_accuracy": EstimateOut.of(accuracy, {"images": rows.reference}).model_dump(),
        "predicted": EstimateOut.of(found.predicted, inputs.names).model_dump(),
        "methods": [one.model_dump() for one in methods],
        "parts": parts.model_dump(),
        "level": LEVEL,
        "assumptions": [f"The interval takes it that {ALIKE}.", BLIND],
        "n_looks_before": Seals(analysis.data).n_looks(card["backbone"], rows.target),
    }


def _uncertainty(head: heads.Head, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return confidence and entropy (nats) of each row."""
    nothing = np.zeros(features.shape[1])
    parts = []
    for start in range(0, len(features), _ROWS):
        rows = features[start : start + _ROWS]
        found = covariates_of(heads.scores(head, rows), rows, train_mean=nothing, train_sd=nothing)
        parts.append((found.confidence, found.entropy))
    confidence, entropy = (np.concatenate(one) for one in zip(*parts, strict=True))
    return confidence, entropy


def _of_line(inputs: Inputs, correct: np.ndarray, teller: Foreteller) -> Voice:
    """Return what the line through published models and those evaluated here foretells."""
    sources = on_line.sources_of(inputs)
    accuracy = inside(float(correct.mean()), len(correct))
    main = on_line.main_of(on_line.baselines_of(sources), sources, accuracy)
    if main is None:
        return Voice(teller.unknown(LINE, _NO_LINE))
    return by_line(
        main.line,
        correct,
        teller.drawn,
        f"what {main.line.n} models of {main.source} have on the target that have this model's "
        "accuracy on the reference",
    )
