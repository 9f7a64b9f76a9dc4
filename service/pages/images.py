"""The images behind the numbers: a grid with filters, and one image by itself."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from service.errors import BadFilter, NotReady
from service.gap import images
from service.gap.image_detail import NOT_SEARCHED, Listed, detail
from service.gap.images import ImagesOut, field_types, page_of
from service.gap.where import named, parse, quoted, shown, written
from service.pages.frame import Frame

TITLES: dict[images.Kind, str] = {
    "all": "All",
    "twins": "Wrong, with a right twin",
    "confident_errors": "Wrong, but confident",
    "ambiguous": "Undecided",
}
ORDERS = {
    "": "as the list is",
    "confidence desc": "most confident first",
    "confidence asc": "least confident first",
    "margin asc": "closest to another class first",
    "nearest_similarity desc": "most like the other set first",
    "nearest_similarity asc": "least like the other set first",
    "path asc": "by path",
}
OPS = ("=", "!=", "<", "<=", ">", ">=", "like")


@dataclass(frozen=True)
class Filter:
    """What the form above the grid asks for; each is one condition, an empty one is none.

    Attributes
    ----------
    at_least, at_most : of the confidence, in percent
    field, op, value : a condition on any field, such as an annotation
    more : further conditions, as `service.gap.where` reads them
    """

    split: str = ""
    class_name: str = ""
    predicted_name: str = ""
    correct: str = ""
    at_least: str = ""
    at_most: str = ""
    field: str = ""
    op: str = "="
    value: str = ""
    more: str = ""

    def where(self) -> str:
        """Return it as one text of conditions, which may be wrong: whoever parses it says so."""
        found = [
            f"{name} = {quoted(value)}"
            for name in ("split", "class_name", "predicted_name", "correct")
            if (value := getattr(self, name).strip())
        ]
        found += [
            f"confidence {op} {_share(percent.strip())}"
            for op, percent in ((">=", self.at_least), ("<=", self.at_most))
            if percent.strip()
        ]
        if self.field and self.value.strip():
            found.append(f"{named(self.field)} {self.op} {quoted(self.value.strip())}")
        if self.more.strip():
            found.append(self.more.strip())
        return " and ".join(found)

    @classmethod
    def of(cls, where: str, fields: Mapping[str, pa.DataType]) -> "Filter":
        """Return the form that asks for conditions: what it has no place for comes under `more`.

        Raises
        ------
        BadFilter
        """
        found: dict[str, str] = {}
        rest = []
        for one in parse(where, fields):
            place = _PLACES.get((one.field, one.op), "value" if one.field not in _FORM else "more")
            if place == "more" or place in found:
                rest.append(one)
            elif place == "value":
                found |= {"field": one.field, "op": one.op, "value": shown(one.value)}
            elif isinstance(one.value, float):
                found[place] = shown(round(one.value * 100, 9))
            else:
                found[place] = shown(one.value)
        return cls(**found, more=written(rest))


_PLACES = {
    ("split", "="): "split",
    ("class_name", "="): "class_name",
    ("predicted_name", "="): "predicted_name",
    ("correct", "="): "correct",
    ("confidence", ">="): "at_least",
    ("confidence", "<="): "at_most",
}
_FORM = {field for field, _ in _PLACES}


def _share(percent: str) -> str:
    """Return percent as a share of 1; what is no number is left as it is, to be refused."""
    try:
        return shown(round(float(percent) / 100, 11))
    except ValueError:
        return quoted(percent)


@dataclass(frozen=True)
class Asked:
    """Which images, in which order, which page: what stands in the address.

    Attributes
    ----------
    page : from 1 on
    """

    listed: Listed
    page: int = 1

    @property
    def query(self) -> dict[str, str]:
        """What an address has to hold to lead to the same list."""
        kind = "" if self.listed.kind == "all" else self.listed.kind
        return {"kind": kind, "where": self.listed.where, "order": self.listed.order}


def grid(frame: Frame, asked: Asked) -> tuple[str, int]:
    """Page of images as cards, and its HTTP status: 422 where the conditions are none.

    Raises
    ------
    NotReady
        The data changed meanwhile.
    """
    answer = frame.part(images.NAME, ImagesOut)
    if answer is None:
        return _rendered(frame, asked, answer=None), 200
    rows = _rows(frame)
    fields = field_types(rows)
    try:
        form = Filter.of(asked.listed.where, fields)
        n, shown_images = page_of(
            rows,
            asked.listed.kind,
            where=asked.listed.where,
            order=asked.listed.order,
            page=asked.page,
            per_page=images.SHOWN,
        )
    except BadFilter as error:
        bad = Filter(more=asked.listed.where)
        return _rendered(frame, asked, answer=answer, fields=fields, form=bad, why=str(error)), 422
    return _rendered(
        frame, asked, answer=answer, fields=fields, form=form, n=n, shown_images=shown_images
    ), 200


def _rendered(frame: Frame, asked: Asked, **values: Any) -> str:
    n, shown_images = values.get("n", 0), values.get("shown_images", [])
    defaults: dict[str, Any] = {"fields": {}, "form": Filter(), "why": None}
    return frame.render(
        "images.html",
        **(defaults | values | {"n": n, "shown_images": shown_images}),
        asked=asked,
        query=frame.named | asked.query,
        n_pages=max(1, -(-n // images.SHOWN)),
        titles=TITLES,
        orders=ORDERS,
        ops=OPS,
        class_names=_class_names(frame),
        file_of=frame.files(image.image_id for image in shown_images),
        own_fields=_FORM,
    )


def one(frame: Frame, image_id: int, asked: Asked, *, near: bool) -> str:
    """Page of one image: the picture, the answer, what is near it, its neighbours in the list.

    Parameters
    ----------
    near
        Whether to search all train rows for the nearest ones, where that takes seconds.

    Raises
    ------
    NotFound, NotReady, BadFilter
    """
    if frame.question is None or frame.part(images.NAME, ImagesOut) is None:
        return frame.render("image.html", found=None, image_id=image_id, query={})
    listed = asked.listed
    rows = _rows(frame)
    found = detail(frame.site.analysis, frame.question, rows, image_id, listed, may_search=near)
    pairs = [pair for pair in (found.image.twin, found.image.nearest) if pair is not None]
    ids = [image_id, *(pair.image_id for pair in pairs)]
    ids += [train.image_id for train in found.near_train or []]
    position = found.position
    page = 1 if position is None else 1 + (position.position - 1) // images.SHOWN
    return frame.render(
        "image.html",
        found=found,
        image_id=image_id,
        query=frame.named | asked.query,
        listed_page=page,
        titles=TITLES,
        file_of=frame.files(ids),
        is_searched=found.near_train_reason != NOT_SEARCHED,
        is_kept=_is_kept(frame, found.image.split),
        other=found.target if found.image.split == found.reference else found.reference,
    )


def _is_kept(frame: Frame, split: str) -> bool:
    """Whether the nearest train images are read from a kept search, once they are asked for."""
    backbone = None if frame.question is None else frame.question.card["backbone"]
    return backbone is not None and frame.site.analysis.near_train.is_kept(backbone, split)


def _rows(frame: Frame) -> pa.Table:
    rows = None if frame.question is None else frame.question.rows_of(images.NAME)
    if rows is None:
        raise NotReady("wanted the images, but the data changed meanwhile. Load the page again.")
    return rows


def _class_names(frame: Frame) -> list[str]:
    database = frame.site.analysis.database
    return sorted(set(database.class_names().values())) if database.exists else []
