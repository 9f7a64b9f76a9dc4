"""The map of the images, and the images of a part of it."""

from dataclasses import dataclass

from service.gap import image_map
from service.gap.image_map import MapOut, MappedImageOut
from service.pages.frame import Frame


@dataclass(frozen=True)
class Choice:
    """What is shown of the map.

    Attributes
    ----------
    method, colour : how points lie, and by what they are coloured
    x_from, x_to, y_from, y_to : a rectangle, open where None
    cluster : None: any
    page : of the images, from 1 on
    """

    method: image_map.Method = "pca"
    colour: str = image_map.BY_SPLIT
    x_from: float | None = None
    x_to: float | None = None
    y_from: float | None = None
    y_to: float | None = None
    cluster: int | None = None
    page: int = 1

    @property
    def is_of_images(self) -> bool:
        """Whether images are asked for."""
        ends = (self.x_from, self.x_to, self.y_from, self.y_to, self.cluster)
        return any(end is not None for end in ends)

    @property
    def view(self) -> dict[str, str]:
        """How points are shown, as a query's values."""
        return {"method": self.method, "colour": self.colour}

    @property
    def place(self) -> dict[str, float]:
        """Which images are asked for, as a query's values."""
        names = ("x_from", "x_to", "y_from", "y_to", "cluster")
        return {name: value for name in names if (value := getattr(self, name)) is not None}


def image_map_page(frame: Frame, choice: Choice) -> str:
    """Page of the map, with the images of the chosen part of it."""
    answer = frame.part(image_map.NAME, MapOut)
    found: tuple[int, list[MappedImageOut]] | None = None
    if answer is not None and frame.question is not None and choice.is_of_images:
        rows = frame.question.rows_of(image_map.NAME)
        if rows is not None:  # else the data changed meanwhile: the next request finds them
            found = image_map.page_of(
                rows,
                choice.method,
                (choice.x_from, choice.x_to),
                (choice.y_from, choice.y_to),
                choice.cluster,
                page=choice.page,
                per_page=image_map.SHOWN,
            )
    return frame.render(
        "map.html",
        answer=answer,
        choice=choice,
        found=found,
        linked=_linked(frame, [] if found is None else found[1]),
        per_page=image_map.SHOWN,
        colours={} if answer is None else image_map.colours(answer),
    )


def _linked(frame: Frame, shown: list[MappedImageOut]) -> set[int]:
    """Return which images have a file to make a picture of."""
    ids = [one.image_id for one in shown if one.image_id is not None]
    return set(frame.site.analysis.thumbnails.files(ids))
