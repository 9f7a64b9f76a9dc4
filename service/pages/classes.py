"""The gap class by class, and one class by itself."""

from service.errors import NotFound
from service.gap import images
from service.gap.classes import ClassesOut
from service.gap.images import ImageOut
from service.pages.frame import Frame

_IMAGES_SHOWN = 12


def all_classes(frame: Frame) -> str:
    """Page of all classes: how far to trust the differences, a scatter, a table."""
    return frame.render("classes.html", answer=frame.part("classes", ClassesOut))


def one_class(frame: Frame, class_id: int) -> str:
    """Page of one class: numbers, confusions, images that the model gets wrong.

    Raises
    ------
    NotFound
    """
    answer = frame.part("classes", ClassesOut)
    if answer is None:
        return frame.render(
            "class.html", answer=None, one=None, wrong={}, confusions=[], file_of={}
        )
    one = next((c for c in answer.classes if c.class_id == class_id), None)
    if one is None:
        raise NotFound(
            f"wanted a class of {answer.reference} or {answer.target}, got class {class_id}."
        )
    wrong = _wrong(frame, class_id)
    shown = [image.image_id for _, rows in wrong.values() for image in rows]
    return frame.render(
        "class.html",
        answer=answer,
        one=one,
        wrong=wrong,
        file_of=frame.files(shown),
        confusions=[c for c in answer.confusions.pairs if class_id in (c.label, c.predicted)],
    )


def _wrong(frame: Frame, class_id: int) -> dict[str, tuple[int, list[ImageOut]]]:
    """Return how many images of a class the model gets wrong, and the first, for each split."""
    if frame.question is None or frame.part(images.NAME, images.ImagesOut) is None:
        return {}
    rows = frame.question.rows_of(images.NAME)
    if rows is None:  # the data changed meanwhile: the next request finds them
        return {}
    return {
        split: images.page_of(
            rows,
            "all",
            where=f"split = '{split}' and label = {class_id} and correct = false",
            order="confidence desc",
            page=1,
            per_page=_IMAGES_SHOWN,
        )
        for split in frame.ends.values()
    }
