"""Hypotheses about a model: register, test, read the verdicts."""

from models.refining.recipes import RECIPES, TEST_INPUTS
from service.errors import ServiceError
from service.hypotheses.schemas import HypothesesOut, HypothesisIn, SuggestIn
from service.hypotheses.testing import Hypotheses
from service.pages.frame import Frame


def hypotheses(frame: Frame) -> str:
    """Page of the hypotheses about a model, with what findings suggest and a form."""
    assert frame.model is not None
    of_all = Hypotheses(frame.site.analysis)
    refusal, found = None, None
    try:
        found = of_all.registry.all(frame.model)
    except ServiceError as error:  # records were changed: nothing of them is shown
        refusal = str(error)
    return frame.render(
        "hypotheses.html",
        found=found,
        refusal=refusal,
        suggested=_suggested(frame, of_all, found),
        recipes={kind: recipe for kind, recipe in RECIPES.items() if recipe.use != TEST_INPUTS},
    )


def _suggested(
    frame: Frame, of_all: Hypotheses, found: HypothesesOut | None
) -> list[HypothesisIn] | None:
    """Suggestions that are computed and not registered; None where they are not computed."""
    if frame.question is None or found is None:
        return None
    try:
        answer = of_all.suggested(SuggestIn(model=frame.model, **frame.ends))
    except ServiceError:
        return None
    if answer is None:
        return None
    known = {one.title for one in found.hypotheses}
    return [one for one in answer.hypotheses if one.title not in known]
