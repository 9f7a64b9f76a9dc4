"""`/gap/{model}/images`: the images behind the numbers, by kind, filtered, page by page."""

import math
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from models.gap.twins import Nearest, directions, nearest_of_both, right_twins
from service.gap.inputs import Inputs, Sides
from service.gap.part import Part
from service.gap.where import matching, parse, parse_order
from service.schemas import Answer, PartOut
from service.terminal import Progress, part_of

Kind = Literal["twins", "confident_errors", "ambiguous", "all"]
NAME = "images"
SHOWN = 24
PER_PAGE_MAX = 200
_ANNOTATION = "annotation."
_CONFIDENT = 0.5  # more than all other classes together
_AMBIGUOUS = math.log(2)  # of the margin: the first class is less than twice as probable
_KINDS: dict[Kind, str] = {
    "twins": "wrong on {target}, while {reference} has an image of the same class that the model "
    "gets right; the most similar pairs first",
    "confident_errors": "wrong with a confidence of at least .5; the most confident first",
    "ambiguous": "the first class is less than twice as probable as the second; the closest first",
    "all": "all images of both splits",
}
_ORDER: dict[Kind, tuple[str, str] | None] = {
    "twins": ("twin_similarity", "descending"),
    "confident_errors": ("confidence", "descending"),
    "ambiguous": ("margin", "ascending"),
    "all": None,
}
_NEEDS: dict[Kind, str] = {
    "twins": "twin_similarity",
    "confident_errors": "confidence",
    "ambiguous": "margin",
    "all": "path",
}
_FIELDS = ("split", "path", "label", "class_name", "predicted", "predicted_name", "correct",
           "confidence", "margin", "nearest_similarity", "twin_similarity")  # fmt: skip
_FIELDS_OF_IMAGE = ("image_id", *_FIELDS[:9])
_FIELDS_OF_PAIRS = ("image_id", "path", "label", "class_name", "correct", "similarity")
NO_FEATURES = "only predictions of this model are here, no features and no scores"


class NeighbourOut(Answer):
    """An image of the other split that is near by the cosine of standardised features."""

    image_id: int | None = Field(description="As ImageOut's.")
    path: str
    label: int
    class_name: str
    correct: bool
    similarity: float


class ImageOut(Answer):
    """One image and what the model said of it."""

    image_id: int | None = Field(
        description="Of the table `image`; another load may give others. Null where the image is "
        "not in the database any more."
    )
    split: str
    path: str
    label: int
    class_name: str
    predicted: int
    predicted_name: str
    correct: bool
    confidence: float | None = Field(description="Null where an import came without.")
    margin: float | None = Field(
        description="Score of the predicted class minus the next; null without scores."
    )
    nearest: NeighbourOut | None = Field(description="The nearest image of the other split.")
    twin: NeighbourOut | None = Field(
        description="Of a wrong image of the target: the nearest image of the reference that is of "
        "the same class and right."
    )
    annotations: dict[str, float | str | None]


class KindOut(Answer):
    """Images of one kind: how many, and the first of them."""

    kind: Kind
    about: str
    n: int | None = Field(description="Null where it cannot be known.")
    reason: str | None = Field(description="Why n is null.")
    images: list[ImageOut]


class ImagesOut(PartOut):
    """The images behind the numbers; all of them: /gap/{model}/images/list."""

    kinds: list[KindOut]
    fields: list[str] = Field(description="What `where` and `order` of the list may name.")


class PositionOut(Answer):
    """Where an image stands in a list."""

    kind: Kind
    n: int = Field(description="Images in the list.")
    position: int = Field(description="From 1 on.")
    previous: int | None = Field(description="image_id of the one before; null at the first.")
    next: int | None = Field(description="image_id of the one after; null at the last.")


class ImagesPageOut(Answer):
    """One page of a list of images."""

    model: str
    reference: str
    target: str
    kind: Kind
    n: int = Field(description="Images on all pages.")
    page: int
    per_page: int
    images: list[ImageOut]


def compute(inputs: Inputs, progress: Progress) -> ImagesOut:
    """Lay out all images in one table and show the first of each kind."""
    table = _table(inputs, progress)
    inputs.beside[NAME] = table
    kinds = []
    for kind, about in _KINDS.items():
        reason = _why_not(table, kind)
        rows = _of_kind(table, kind)
        kinds.append(
            KindOut(
                kind=kind,
                about=about.format(reference=inputs.reference, target=inputs.target),
                n=None if reason else len(rows),
                reason=reason,
                images=[] if reason else _images(rows.slice(0, SHOWN)),
            )
        )
    return ImagesOut(
        model=inputs.model,
        reference=inputs.reference,
        target=inputs.target,
        summary=_in_words(inputs, kinds),
        kinds=kinds,
        fields=list(_fields(table)),
    )


def page_of(
    table: pa.Table, kind: Kind, *, where: str, order: str, page: int, per_page: int
) -> tuple[int, list[ImageOut]]:
    """Return how many images of a kind meet the conditions, and one page of them.

    Parameters
    ----------
    where, order
        See `service.gap.where`; an empty order is the kind's own.
    page
        From 1 on.

    Raises
    ------
    BadFilter
    """
    rows = _listed(table, kind, where, order)
    return len(rows), _images(rows.slice((page - 1) * per_page, per_page))


def image_of(table: pa.Table, image_id: int) -> ImageOut | None:
    """Return one image of the table, None where it is not there."""
    rows = table.filter(pc.equal(table["image_id"], image_id))
    return _images(rows)[0] if len(rows) else None


def position_of(
    table: pa.Table, image_id: int, kind: Kind, *, where: str, order: str
) -> PositionOut | None:
    """Return where an image stands in a list (see `page_of`), None where it is not in it.

    Raises
    ------
    BadFilter
    """
    ids = _listed(table, kind, where, order)["image_id"]
    place = pc.index(ids, image_id).as_py()
    if place < 0:
        return None
    return PositionOut(
        kind=kind,
        n=len(ids),
        position=place + 1,
        previous=ids[place - 1].as_py() if place else None,
        next=ids[place + 1].as_py() if place + 1 < len(ids) else None,
    )


def field_types(table: pa.Table) -> dict[str, pa.DataType]:
    """Return what conditions and orders may name, with the type of each."""
    return {name: of for name, (_, of) in _fields(table).items()}


def _listed(table: pa.Table, kind: Kind, where: str, order: str) -> pa.Table:
    """Rows of a kind that meet the conditions, in order."""
    fields, types = _fields(table), field_types(table)
    conditions = [replace(one, field=fields[one.field][0]) for one in parse(where, types)]
    rows = matching(_of_kind(table, kind), conditions)
    if order:
        name, way = parse_order(order, types)
        rows = _sorted(rows, fields[name][0], way)
    return rows


def _table(inputs: Inputs, progress: Progress) -> pa.Table:
    """All images of both splits: reference first."""
    names = inputs.class_names
    sizes = [len(labels) for labels in inputs.labels.pair]
    labels, predicted = _both(inputs.labels), _both(inputs.predicted)
    ids = _both(inputs.image_ids)
    columns: dict[str, Any] = {
        "image_id": pa.array(ids, mask=ids < 0),
        "split": np.repeat(np.array(inputs.splits.pair, object), sizes),
        "path": pa.concat_arrays([side.cast(pa.string()) for side in inputs.paths.pair]),
        "label": labels,
        "class_name": _named(labels, names),
        "predicted": predicted,
        "predicted_name": _named(predicted, names),
        "correct": _both(inputs.correct),
        "confidence": pa.chunked_array(
            [chunk for side in inputs.answers.pair for chunk in side["confidence"].chunks],
            pa.float64(),
        ),
        "margin": _numbers(
            np.concatenate([side.margin for side in inputs.covariates.pair])
            if inputs.covariates is not None
            else np.full(sum(sizes), np.nan)
        ),
    }
    found = pa.table(columns)
    for prefix, near in zip(("nearest_", "twin_"), _neighbours(inputs, progress), strict=True):
        there = pa.array(near.place, mask=near.place < 0)
        for name in _FIELDS_OF_PAIRS[:-1]:
            found = found.append_column(prefix + name, found[name].take(there))
        found = found.append_column(prefix + "similarity", _numbers(near.similarity))
    for annotation in inputs.annotations:
        values = _both(annotation.values)
        if annotation.categories is None:
            column = _numbers(values)
        else:
            codes = pa.array(np.nan_to_num(values).astype(np.int64), mask=np.isnan(values))
            column = pa.array(annotation.categories, pa.string()).take(codes)
        found = found.append_column(_ANNOTATION + annotation.name, column)
    return found


def _neighbours(inputs: Inputs, progress: Progress) -> tuple[Nearest, Nearest]:
    """Nearest image of the other split, and right twin, of every row of the table."""
    n1, n2 = (len(labels) for labels in inputs.labels.pair)
    if inputs.features is None:
        none = Nearest(np.full(n1 + n2, -1, np.int64), np.full(n1 + n2, np.nan))
        return none, none
    mean, sd = inputs.train_mean, inputs.train_sd
    unit = inputs.features.map(lambda rows: directions(rows, mean=mean, sd=sd))
    forth, back = nearest_of_both(unit.reference, unit.target, progress=part_of(progress, 0.1, 0.9))
    place = np.concatenate([np.where(forth.place >= 0, forth.place + n1, -1), back.place])
    nearest = Nearest(place, np.concatenate([forth.similarity, back.similarity]))
    right = np.flatnonzero(inputs.correct.reference)
    wrong = np.flatnonzero(~inputs.correct.target)
    found = right_twins(
        unit.target[wrong],
        inputs.labels.target[wrong],
        unit.reference[right],
        inputs.labels.reference[right],
    )
    twin = Nearest(np.full(n1 + n2, -1, np.int64), np.full(n1 + n2, np.nan))
    has = found.place >= 0
    twin.place[n1 + wrong[has]] = right[found.place[has]]
    twin.similarity[n1 + wrong[has]] = found.similarity[has]
    return nearest, twin


def _both(values: Sides[np.ndarray]) -> np.ndarray:
    return np.concatenate(values.pair)


def _numbers(values: np.ndarray) -> pa.Array:
    return pa.array(values, pa.float64(), mask=~np.isfinite(values))


def _named(class_ids: np.ndarray, names: dict[int, str]) -> pa.Array:
    ids, which = np.unique(class_ids, return_inverse=True)
    known = pa.array([names.get(c, str(c)) for c in ids.tolist()], pa.string())
    return known.take(pa.array(which))


def _why_not(table: pa.Table, kind: Kind) -> str | None:
    """Why images of a kind cannot be told, or None."""
    of = _NEEDS[kind]
    if kind == "twins":
        of = "nearest_similarity"  # there are none where every answer is right
    if len(table) == 0 or table[of].null_count < len(table):
        return None
    if kind == "confident_errors":
        return "the predictions came without a confidence"
    return NO_FEATURES


def _of_kind(table: pa.Table, kind: Kind) -> pa.Table:
    """Rows of a kind in its own order."""
    if kind == "twins":
        rows = table.filter(pc.is_valid(table["twin_path"]))
    elif kind == "confident_errors":
        is_sure = pc.greater_equal(table["confidence"], _CONFIDENT)
        rows = table.filter(pc.and_(pc.invert(table["correct"]), is_sure))
    elif kind == "ambiguous":
        rows = table.filter(pc.less(table["margin"], _AMBIGUOUS))
    else:
        rows = table
    order = _ORDER[kind]
    return rows if order is None else _sorted(rows, *order)


def _sorted(rows: pa.Table, name: str, way: str) -> pa.Table:
    """Rows by a column, ties in the table's order, unknown ones last."""
    place = pa.array(np.arange(len(rows)))
    keyed = pa.table({"value": rows[name], "place": place})
    order = pc.sort_indices(keyed, sort_keys=[("value", way), ("place", "ascending")])
    return rows.take(order)


def _fields(table: pa.Table) -> dict[str, tuple[str, pa.DataType]]:
    """Column and type behind each name that conditions may use."""
    types = dict(zip(table.column_names, table.schema.types, strict=True))
    named = {name: (name, types[name]) for name in _FIELDS}
    for column, kind in types.items():
        if column.startswith(_ANNOTATION):
            bare = column.removeprefix(_ANNOTATION)
            named[column if bare in named else bare] = (column, kind)
    return named


def _images(rows: pa.Table) -> list[ImageOut]:
    return [_image(row) for row in rows.to_pylist()]


def _image(row: dict[str, Any]) -> ImageOut:
    def neighbour(prefix: str) -> NeighbourOut | None:
        if row[prefix + "path"] is None:
            return None
        return NeighbourOut(**{name: row[prefix + name] for name in _FIELDS_OF_PAIRS})

    return ImageOut(
        **{name: row[name] for name in _FIELDS_OF_IMAGE},
        nearest=neighbour("nearest_"),
        twin=neighbour("twin_"),
        annotations={
            name.removeprefix(_ANNOTATION): value
            for name, value in row.items()
            if name.startswith(_ANNOTATION)
        },
    )


def _in_words(inputs: Inputs, kinds: list[KindOut]) -> list[str]:
    n = {one.kind: one.n for one in kinds}
    n_wrong = int((~inputs.correct.target).sum())
    said = []
    if n["twins"] is not None:
        said.append(
            f"For {n['twins']:,} of the {n_wrong:,} images of {inputs.target} that {inputs.model} "
            f"gets wrong, {inputs.reference} has an image of the same class that it gets right; "
            "the pairs, the most similar first, show in what such images differ."
        )
    if n["confident_errors"] is not None:
        said.append(
            f"{n['confident_errors']:,} images of both splits are wrong with a confidence of at "
            "least .5."
        )
    if n["ambiguous"] is not None:
        said.append(
            f"On {n['ambiguous']:,} images of both splits the first class is less than twice as "
            "probable as the second."
        )
    said += [f"{one.kind}: not known, for {one.reason}." for one in kinds if one.reason]
    return said


PART = Part(NAME, "the images behind the numbers, by kind", ImagesOut, compute, reads=("loads",))
