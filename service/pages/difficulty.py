"""What the gap has to do with how hard images are, and whether probabilities mean the same."""

from service.gap.difficulty import DifficultyOut
from service.pages.frame import Frame


def difficulty(frame: Frame) -> str:
    """Page of the standardised gap, of accuracy by what is known of images, of calibration."""
    return frame.render("difficulty.html", answer=frame.part("difficulty", DifficultyOut))
