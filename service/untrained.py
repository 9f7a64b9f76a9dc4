"""Models whose heads were not trained here: given as weights, or made of two others."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from models.errors import BadHeadFile, HeadsDiffer, InvalidParams
from models.heads import LinearHead
from models.heads.given import read_head
from models.heads.linear import interpolated
from models.heads.validation import NEVER_HELD
from models.refining.recipes import INFORMED
from service.database import Database
from service.errors import ModelExists
from service.results import INTERPOLATED, NATIVE, Results, joined_rows, rows_digest, train_row_table

_UNKNOWN = "unknown: its weights were given, so nothing here can tell what it learnt from"


@dataclass(frozen=True)
class HeadImport:
    """What was made of a file with the weights of a head.

    Attributes
    ----------
    card : of the model
    notes : what had to be assumed
    """

    card: dict[str, Any]
    notes: tuple[str, ...]


def import_head(
    database: Database,
    results: Results,
    backbone: str,
    file: Path,
    *,
    name: str,
    weight: list[str] | None = None,
    bias: list[str] | None = None,
) -> HeadImport:
    """Make a model of the weights that a file gives; column j is class j.

    Parameters
    ----------
    weight, bias
        Names of the tensors, as `models.heads.given.read_head` takes them.

    Raises
    ------
    NotFound, ModelExists, BadName, models.errors.BadHeadFile
    """
    database.splits_of(backbone)
    _check_free(results, name)
    names = database.class_names()
    given = read_head(
        file,
        backbone=backbone,
        n_features=len(database.feature_names(backbone)),
        weight=weight or (),
        bias=bias or (),
    )
    k = len(given.head.class_ids)
    if max(names) >= k:
        raise BadHeadFile(
            f"wanted a column for each class up to {max(names)}, column j for class j, got {k} "
            f"columns in {file}. Load classes that are numbered as this head has them."
        )
    notes = list(given.notes)
    if k > max(names) + 1:
        notes.append(
            f"the head has {k:,} columns, the database classes up to {max(names):,}: make sure "
            "that column j means class j"
        )
    card = _card(name, backbone, NATIVE, given.head) | {
        "n_train": None,
        "given": {
            "file": file.name,
            "sha256": given.sha256,
            "weight": list(given.weight_keys),
            "bias": list(given.bias_keys),
            "learnt_from": _UNKNOWN,
        },
    }
    none = train_row_table([], np.empty(0, np.uint64), np.empty(0, np.uint8))
    results.save_model(card, given.head, none)
    return HeadImport(card, tuple(notes))


def interpolate(
    results: Results,
    a: str,
    b: str,
    *,
    alpha: float,
    name: str,
    about: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Make a model whose scores are (1 - alpha) · those of `a` + alpha · those of `b`.

    What either learnt from, the new one learnt from; `about` is what else its card is to say.

    Raises
    ------
    NotFound, ModelExists, BadName, ImportedModel, models.errors.HeadsDiffer,
    models.errors.InvalidParams
    """
    if not (math.isfinite(alpha) and 0 <= alpha <= 1):
        raise InvalidParams(f"wanted alpha from 0 to 1, got {alpha}.")
    _check_free(results, name)
    cards, heads = [results.card(m) for m in (a, b)], [results.head(m) for m in (a, b)]
    for card, head in zip(cards, heads, strict=True):
        if not isinstance(head, LinearHead):
            raise HeadsDiffer(
                f"wanted two linear heads, got {card['model']!r} of kind {card['head']}. Only "
                "weights on the features can be interpolated."
            )
    if cards[0]["backbone"] != cards[1]["backbone"]:
        raise HeadsDiffer(
            f"wanted two heads on one backbone, got {a!r} on {cards[0]['backbone']!r} and {b!r} "
            f"on {cards[1]['backbone']!r}."
        )
    made = interpolated(heads[0], heads[1], alpha)  # type: ignore[arg-type]
    rows = joined_rows([results.train_rows(a), results.train_rows(b)])
    n_train = len(rows)
    card = _card(name, cards[0]["backbone"], INTERPOLATED, made) | {
        "params": {"alpha": alpha},
        "n_train": n_train or None,
        "train_sha256": list(dict.fromkeys(sha for c in cards for sha in c["train_sha256"])),
        "interpolated": {
            "model_a": a,
            "model_b": b,
            "learnt_from": _learnt_from(cards, n_train),
        },
        "rows": _rows_of(cards, rows),
        **(about or {}),
    }
    if any(one.get("use") == INFORMED for one in cards):
        card["use"] = INFORMED
    results.save_model(card, made, rows)
    return card


def _check_free(results: Results, name: str) -> None:
    results.check_name(name)
    if results.has(name):
        raise ModelExists(f"wanted a new name, got {name!r}, which is taken. Choose another.")


def _rows_of(cards: list[dict[str, Any]], rows: pa.Table) -> dict[str, Any] | None:
    """Return what tells the rows of both; None where it is unknown of either."""
    told = [card.get("rows") for card in cards]
    if None in told:
        return None
    splits = dict.fromkeys(split for one in told if one is not None for split in one["splits"])
    return {
        "digest": rows_digest(rows),
        "n_fit": len(rows),
        "n_selection": int((rows["fold"].to_numpy() != NEVER_HELD).sum()),
        "splits": list(splits),
    }


def _learnt_from(cards: list[dict[str, Any]], n_train: int) -> str:
    parts = []
    if n_train:
        parts.append(f"{n_train:,} train rows, those that its two heads learnt from")
    for card in cards:
        origin = card.get("given") or card.get("interpolated")
        if origin and "unknown" in origin["learnt_from"]:
            parts.append(f"what {card['model']} learnt from is unknown")
    return "; ".join(parts)


def _card(model: str, backbone: str, kind: str, head: LinearHead) -> dict[str, Any]:
    return {
        "model": model,
        "backbone": backbone,
        "head": kind,
        "params": {},
        "seed": None,
        "n_classes": len(head.class_ids),
        "n_features": head.n_features,
        "validation": None,
        "train_sha256": [],
        "seconds_s": None,
        "created_at": datetime.now(UTC).isoformat(timespec="milliseconds").removesuffix("+00:00"),
    }
