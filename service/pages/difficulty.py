"""What the gap has to do with how hard images are, and whether probabilities mean the same."""

from service.errors import NotFound
from service.gap.difficulty import CovariateOut, DifficultyOut
from service.pages.frame import Frame


def difficulty(frame: Frame, covariate: str | None) -> str:
    """Page of the standardised gap, of accuracy by what is known of images, of calibration.

    Parameters
    ----------
    covariate
        By which accuracy is shown; default: the one that most of the gap goes with.

    Raises
    ------
    NotFound
    """
    answer = frame.part("difficulty", DifficultyOut)
    known = [] if answer is None else [*answer.covariates, *answer.using_labels]
    names = [one.name for one in known if one.bins]
    if covariate is not None and answer is not None and covariate not in names:
        raise NotFound(f"wanted something known of images ({', '.join(names)}), got {covariate!r}.")
    first = max((one for one in known if one.bins), key=_size, default=None)
    return frame.render(
        "difficulty.html",
        answer=answer,
        covariates=names,
        covariate=covariate or (first and first.name),
    )


def _size(one: CovariateOut) -> tuple[bool, float]:
    # what people say of images comes before what the model itself says
    return one.kind == "annotation", abs(one.explained.estimate or 0.0)
