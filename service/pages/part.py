"""A part of the answer that has no page of its own: its sentences and its charts."""

from service.errors import NotFound
from service.gap import PARTS
from service.pages.frame import Frame


def part(frame: Frame, name: str) -> str:
    """Page of a part.

    Raises
    ------
    NotFound
    """
    if name not in PARTS:
        raise NotFound(f"wanted a part of a gap ({', '.join(PARTS)}), got {name!r}.")
    found = PARTS[name]
    return frame.render(
        "part.html", part=found, answer=frame.part(name, found.answer), shown=list(found.charts)
    )
