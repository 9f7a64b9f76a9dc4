"""The three gaps of a model, from what is stored: no test label is looked at anew."""

from typing import Any

import numpy as np
import pyarrow as pa

from models.errors import ModelError
from models.estimate import Estimate
from models.gap.difference import newcombe, paired
from service.database import Database, place_of
from service.errors import ServiceError
from service.importing import refuse_changed_images, splits_imported
from service.looks import Look
from service.results import NATIVE, Results
from service.schemas import EstimateOut, GapsOut, RetrainingOut
from service.sentences import points

_NOT_EVALUATED = "not evaluated yet"
VALIDATION = "internal validation"


def gaps_of(database: Database, results: Results, card: dict[str, Any]) -> GapsOut:
    """Three gaps of a model: held-out train rows → test set 1 → test set 2, and native → this.

    Each is read from the card and the stored evaluations; what cannot be known is null with a
    reason. The test sets are the default ones of the load.
    """
    model, backbone = card["model"], card["backbone"]
    ends: tuple[str, str] | None = None
    refusal = None
    counts: dict[str, tuple[int, int] | str] = {}
    tests: list[str] = []
    try:
        among = splits_imported(card)
        tests = database.test_splits(backbone, among)
        counts = {split: _right(database, results, card, split) for split in tests}
        ends = database.gap_ends(backbone, None, None, among)
    except (ServiceError, ModelError) as error:
        refusal = str(error)
    reference = tests[0] if tests else None
    target = ends[1] if ends else None
    unknown = refusal or "no test set"
    first = counts.get(reference or "", unknown)
    memorisation = _difference(_validation(card), first)
    replication = _difference(first, counts.get(target or "", unknown))
    retraining, reason = _retraining(database, results, card, tests)
    names = {"reference": VALIDATION, "target": reference or "target"}
    ends_named = {"reference": reference or "reference", "target": target or "target"}
    found = GapsOut(
        model=model,
        backbone=backbone,
        reference=reference,
        target=target,
        memorisation=EstimateOut.of(memorisation, names),
        replication=EstimateOut.of(replication, ends_named),
        retraining=retraining,
        retraining_reason=reason,
        summary=[],
    )
    return found.model_copy(update={"summary": _in_words(found)})


def _right(
    database: Database, results: Results, card: dict[str, Any], split: str
) -> tuple[int, int] | str:
    """Images right and images in all on a split as stored, or why that is not known."""
    model = card["model"]
    record = next(
        (
            r
            for r in results.evaluation(model)
            if r["split"] == split and r["metric"] == "top1" and r["estimate"] is not None
        ),
        None,
    )
    if record is None:
        return _NOT_EVALUATED
    if card["backbone"] is None:
        refuse_changed_images(database, results, model, [split])
    elif database.digests(card["backbone"]).get(split) != record["data_sha256"]:
        return f"evaluated on other data than {split} holds now: evaluate it again"
    return round(record["estimate"] * record["n"]), record["n"]


def _validation(card: dict[str, Any]) -> tuple[int, int] | str:
    if card["validation"] is None:
        return "it was not trained here, so there is no internal validation"
    top1 = card["validation"]["top1"]
    n = sum(top1["n"].values())
    if top1["estimate"] is None or not n:
        return str(top1["reason"])
    return round(top1["estimate"] * n), n


def _difference(first: tuple[int, int] | str, second: tuple[int, int] | str) -> Estimate:
    for end in (first, second):
        if isinstance(end, str):
            return Estimate.unknown(end, n={}, unit="fraction")
    return newcombe(*first, *second)


def _retraining(
    database: Database, results: Results, card: dict[str, Any], tests: list[str]
) -> tuple[list[RetrainingOut], str | None]:
    """Compare with each native model of the backbone on each test split, or say why not."""
    if card["backbone"] is None:
        return [], "an imported model reads no backbone here, so that no head of it compares"
    if card["head"] == NATIVE:
        return [], "this is a native head itself"
    natives = [
        other
        for other in results.models()
        if other["head"] == NATIVE and other["backbone"] == card["backbone"]
    ]
    if not natives:
        return [], "no native head of this backbone is here (gapscope import-head)"
    return [
        _paired(database, results, native, card, split) for native in natives for split in tests
    ], None


def _paired(
    database: Database, results: Results, native: dict[str, Any], card: dict[str, Any], split: str
) -> RetrainingOut:
    for one in (native, card):
        found = _right(database, results, one, split)
        if isinstance(found, str):
            unknown = Estimate.unknown(f"{one['model']}: {found}", n={}, unit="fraction")
            return RetrainingOut(
                native=native["model"], split=split, difference=EstimateOut.of(unknown),
                n_native_only=None, n_retrained_only=None, p_value=None,
            )  # fmt: skip
    theirs, ours = (
        results.predictions(one["model"], split, look=Look(one["model"], "compare"))
        for one in (native, card)
    )
    # the same data were scored, so that every path is there
    place = place_of(ours["path"].combine_chunks(), theirs["path"])
    answer = paired(_correct(theirs)[place.to_numpy()], _correct(ours))
    return RetrainingOut(
        native=native["model"],
        split=split,
        difference=EstimateOut.of(answer.difference, {"images": split}),
        n_native_only=answer.b,
        n_retrained_only=answer.c,
        p_value=answer.p_value,
    )


def _correct(predictions: pa.Table) -> np.ndarray:
    return np.asarray(predictions.column("is_correct").to_numpy(), bool)


def _in_words(found: GapsOut) -> list[str]:
    target, reference = found.target or "test set 2", found.reference or "test set 1"
    sentences = [
        _sentence(
            found.memorisation, f"{VALIDATION} → {reference}",
            "above 0 where the backbone has memorised the train images, or where the choice made "
            "on them flatters",
        ),
        _sentence(
            found.replication, f"{reference} → {target}",
            "what changes from one test set to another",
        ),
    ]  # fmt: skip
    for row in found.retraining:
        says = _sentence(
            row.difference,
            f"{row.native} → {found.model} on {row.split}",
            "what another head on the same features loses against the native one, image by image",
        )
        if row.p_value is not None:
            p = "below .001" if row.p_value < 0.001 else f"{row.p_value:.3f}"
            says += (
                f" Only the native head is right on {row.n_native_only:,} images, only this one "
                f"on {row.n_retrained_only:,} (McNemar's exact p {p})."
            )
        sentences.append(says)
    if found.retraining_reason is not None:
        sentences.append(f"native → {found.model}: unknown ({found.retraining_reason}).")
    return sentences


def _sentence(value: EstimateOut, ends: str, meaning: str) -> str:
    if value.estimate is None:
        return f"{ends}: unknown ({value.reason})."
    size = f"{ends}: {value.estimate * 100:.1f} points"
    if value.low is None or value.high is None:
        return f"{size} ({value.reason}): {meaning}."
    span = f"95 % interval {points(value.low, value.high)}"
    none = ", not distinguishable from 0" if value.low <= 0 <= value.high else ""
    return f"{size} ({span}{none}): {meaning}."
