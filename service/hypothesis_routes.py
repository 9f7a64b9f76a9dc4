"""`/hypotheses`: register, test, list, suggest, draw."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response

from models.refining.recipes import RECIPES
from service.drawing import DRAWN, Drawing, drawn
from service.hypotheses.charts import hypotheses_spec
from service.hypotheses.registry import model_of
from service.hypotheses.schemas import (
    HypothesesOut,
    HypothesisIn,
    HypothesisOut,
    RecipeOut,
    SuggestIn,
    SuggestionsOut,
)
from service.hypotheses.testing import Hypotheses
from service.jobs import HYPOTHESIS, SUGGEST
from service.queueing import IdempotencyKey, accepted, job_out, not_ready, queued, waited_for
from service.schemas import JobOut

router = APIRouter()
_Id = Annotated[str, Path(description="Id of a hypothesis.", examples=["0123456789ab"])]


def _hypotheses(request: Request) -> Hypotheses:
    return Hypotheses(request.app.state.analysis)


@router.post("/hypotheses", status_code=201, tags=["hypotheses"])
def register(body: HypothesisIn, request: Request, response: Response) -> HypothesisOut:
    """Register a hypothesis, before anything of it is scored."""
    found = _hypotheses(request).register(body)
    response.headers["Location"] = f"/hypotheses/{found.id}"
    return found


@router.get("/hypotheses", tags=["hypotheses"])
def list_hypotheses(request: Request) -> HypothesesOut:
    """List all hypotheses with their verdicts, judged as families, oldest first."""
    return _hypotheses(request).registry.all()


@router.get("/hypotheses/recipes", tags=["hypotheses"])
def recipes() -> list[RecipeOut]:
    """List the vocabulary of refinements."""
    return [
        RecipeOut(
            kind=kind,
            about=f"The head {recipe.about}.",
            use=recipe.use,
            params={name: default for name, (_, default) in recipe.params.items()}
            | dict.fromkeys((*recipe.lists, *recipe.names)),
        )
        for kind, recipe in RECIPES.items()
    ]


@router.get("/hypotheses/chart", responses=DRAWN, tags=["hypotheses"])
def chart(
    request: Request,
    baseline: Annotated[str | None, Query(description="A model; default: all.")] = None,
    format: Drawing = "json",  # noqa: A002
) -> Response:
    """Draw the changes of the gap with their intervals around the band of no effect."""
    return drawn(hypotheses_spec(_hypotheses(request).registry.all(baseline)), format)


@router.post(
    "/hypotheses/suggest",
    response_model=SuggestionsOut,
    responses={202: {"model": JobOut, "description": "It is being computed by this job"}},
    tags=["hypotheses"],
)
def suggest(
    body: SuggestIn,
    request: Request,
    wait: Annotated[bool, Query(description="Hold the answer until it is computed.")] = False,
) -> Any:
    """Propose up to eight hypotheses from findings on the explore halves; nothing is stored."""
    hypotheses = _hypotheses(request)
    found = hypotheses.suggested(body)
    if found is not None:
        return found
    if request.app.state.explainer is None:  # nobody else would do it
        return hypotheses.suggest(body)
    job = queued(request, {"explain": body.model_dump(), SUGGEST: True}, body.model)
    if not wait:
        return accepted(job)
    job = waited_for(request, job)
    found = hypotheses.suggested(body)
    if found is None:
        raise not_ready(f"hypotheses about {body.model!r}", job)
    return found


@router.get("/hypotheses/{hypothesis}", tags=["hypotheses"])
def get(hypothesis: _Id, request: Request) -> HypothesisOut:
    """Show one hypothesis with its verdict."""
    return _hypotheses(request).registry.get(hypothesis)


@router.post("/hypotheses/{hypothesis}/test", status_code=202, tags=["hypotheses"])
def queue_test(
    hypothesis: _Id,
    request: Request,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> JobOut:
    """Queue the test: the refined head is trained on train rows, and scored once."""
    asked = {HYPOTHESIS: hypothesis}
    if request.app.state.jobs.sent_before(idempotency_key, asked) is None:
        _hypotheses(request).registry.refuse_scored(hypothesis)
    job = queued(request, asked, model_of(hypothesis), idempotency_key)
    response.headers["Location"] = f"/jobs/{job.job}"
    return job_out(job)
