"""The model among published models and other heads."""

from service.gap.line import LineOut
from service.pages.frame import Frame


def line(frame: Frame) -> str:
    """Page of the line through other models, and where this one stands to it."""
    return frame.render("line.html", answer=frame.part("line", LineOut))
