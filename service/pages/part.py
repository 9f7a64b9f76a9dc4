"""A part of the answer that has no page of its own: its sentences and its charts."""

from typing import Any

from service.errors import NotFound, NothingToDraw
from service.gap import PARTS
from service.gap.part import Part
from service.pages.frame import Frame
from service.schemas import PartOut


def part(frame: Frame, name: str) -> str:
    """Page of a part.

    Raises
    ------
    NotFound
    """
    if name not in PARTS:
        raise NotFound(f"wanted a part of a gap ({', '.join(PARTS)}), got {name!r}.")
    found = PARTS[name]
    answer = frame.part(name, found.answer)
    shown = [] if answer is None else [one for one in found.charts if _is_drawn(found, one, answer)]
    return frame.render("part.html", part=found, answer=answer, shown=shown)


def _is_drawn(part: Part[Any], chart: str, answer: PartOut) -> bool:
    """Whether there is something to draw; where not, the sentences say why."""
    try:
        part.charts[chart](answer)
    except NothingToDraw:
        return False
    return True
