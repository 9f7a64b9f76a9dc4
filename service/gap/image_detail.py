"""`/gap/{model}/images/{image_id}`: one image, what the model said, and what is near it."""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from models import heads
from models.errors import NoTrainRows
from service.errors import NotFound
from service.gap.explaining import Question
from service.gap.images import (
    NO_FEATURES,
    ImageOut,
    Kind,
    PositionOut,
    image_of,
    position_of,
)
from service.schemas import Answer, ProbabilityOut

if TYPE_CHECKING:
    from service.analysis import Analysis

NOT_SEARCHED = "not searched yet"
_CLASSES_SHOWN = 5
FileStatus = Literal["found", "missing", "ambiguous"]


@dataclass(frozen=True)
class Listed:
    """The list that an image is looked at in; see `service.gap.images.page_of`."""

    kind: Kind = "all"
    where: str = ""
    order: str = ""


class TrainImageOut(Answer):
    """A train image that is near by the cosine of standardised features."""

    image_id: int
    split: str
    path: str
    label: int
    class_name: str
    similarity: float


class ImageDetailOut(Answer):
    """One image, what the model said of it, and what is near."""

    model: str
    reference: str
    target: str
    image: ImageOut
    file: FileStatus | None = Field(
        description="Whether a file shows it; null where the database has the image no longer."
    )
    probabilities: list[ProbabilityOut] | None = Field(
        description="The five most probable classes, the most probable first."
    )
    probabilities_reason: str | None = Field(description="Why there are none.")
    near_train: list[TrainImageOut] | None = Field(description="The five nearest train images.")
    near_train_reason: str | None = Field(description="Why there are none.")
    position: PositionOut | None = Field(
        description="In the list of this kind, these conditions and this order; null where it is "
        "not in it."
    )


def detail(
    analysis: "Analysis",
    question: Question,
    table: pa.Table,
    image_id: int,
    listed: Listed,
    *,
    may_search: bool = True,
) -> ImageDetailOut:
    """Lay out one image.

    Parameters
    ----------
    table
        The images of the question.
    may_search
        Whether all train rows may be read for the nearest ones, which takes seconds where they are
        many.

    Raises
    ------
    NotFound, BadFilter
    """
    image = image_of(table, image_id)
    if image is None:
        raise NotFound(
            f"wanted an image of {question.reference} or {question.target} that "
            f"{question.card['model']!r} was scored on, got the id {image_id}. Ids: GET "
            "/gap/{model}/images/list."
        )
    files = analysis.database.image_files([image_id])
    probable = _probabilities(analysis, question, image_id)
    near = _near_train(analysis, question, image, image_id, may_search=may_search)
    return ImageDetailOut(
        model=question.card["model"],
        reference=question.reference,
        target=question.target,
        image=image,
        file=files[0]["status"] if files else None,
        probabilities=None if isinstance(probable, str) else probable,
        probabilities_reason=probable if isinstance(probable, str) else None,
        near_train=None if isinstance(near, str) else near,
        near_train_reason=near if isinstance(near, str) else None,
        position=position_of(table, image_id, listed.kind, where=listed.where, order=listed.order),
    )


def _probabilities(
    analysis: "Analysis", question: Question, image_id: int
) -> list[ProbabilityOut] | str:
    """Return the most probable classes, or why there are none."""
    backbone = question.card["backbone"]
    if backbone is None:
        return NO_FEATURES
    vector = analysis.database.vector(backbone, image_id)
    if vector is None:
        return f"the image has no features of {backbone}"
    head = analysis.results.head(question.card["model"])
    shares = heads.probabilities(head, vector[None])[0]
    names = analysis.database.class_names()
    first = np.argsort(-shares, kind="stable")[:_CLASSES_SHOWN]
    return [
        ProbabilityOut(
            class_id=class_id,
            class_name=names.get(class_id, str(class_id)),
            probability=float(shares[i]),
        )
        for i, class_id in zip(first, head.class_ids[first].tolist(), strict=True)
    ]


def _near_train(
    analysis: "Analysis", question: Question, image: ImageOut, image_id: int, *, may_search: bool
) -> list[TrainImageOut] | str:
    """Return the nearest train images, or why there are none."""
    backbone, near = question.card["backbone"], analysis.near_train
    if backbone is None:
        return NO_FEATURES
    if not may_search and not near.at_hand(backbone, image_id):
        return NOT_SEARCHED
    try:
        found = near.nearest(backbone, image.split, image.path, image_id)
    except NoTrainRows:
        return "no train rows are loaded"
    if not found:
        return f"its features of {backbone}, or those of the train images, tell nothing"
    return [
        TrainImageOut(label=one["class_id"], **{k: v for k, v in one.items() if k != "class_id"})
        for one in map(asdict, found)
    ]
