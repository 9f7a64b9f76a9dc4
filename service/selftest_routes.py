"""`/selftest`: how often the explainers' findings are false here, and what they would find."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import JSONResponse

from service import selftest
from service.drawing import Drawing, drawn
from service.errors import NotFound
from service.gap.error_rates import SelfTestOut
from service.gap.explaining import Question
from service.jobs import OPEN, SELFTEST, Job, Jobs
from service.queueing import IdempotencyKey, accepted, not_ready, queued
from service.schemas import JobOut, ModelName, SelfTestIn

router = APIRouter()
_Name = Annotated[ModelName, Path(description="Name of a model.", examples=["pixels-logistic"])]
_Split = Annotated[str | None, Query(description="A test split; default: as the load says.")]


@router.post("/selftest", status_code=202, tags=["analysis"])
def ask(body: SelfTestIn, request: Request, idempotency_key: IdempotencyKey = None) -> JobOut:
    """Queue a self-test: each explainer on placebos and planted gaps made of the reference."""
    question = Question(request.app.state.analysis, body.model, body.reference, None)
    asked = {
        "explain": _explained(question),
        SELFTEST: {"budget_s": body.budget_s, "seed": body.seed},
    }
    job = queued(request, asked, body.model, idempotency_key)
    return accepted(job)  # type: ignore[return-value]  # with headers of its own


@router.get(
    "/selftest/{model}",
    response_model=SelfTestOut,
    responses={202: {"model": JobOut, "description": "It is being computed by this job"}},
    tags=["analysis"],
)
def self_test(model: _Name, request: Request, reference: _Split = None) -> SelfTestOut | Response:
    """Show the last self-test of a model, if it is of the present state of the data."""
    question = Question(request.app.state.analysis, model, reference, None)
    found = question.self_test()
    if found is not None:
        return found
    last = _last_job(request, question)
    if last is not None and last.state in OPEN:
        return accepted(last)
    return _refuse(question, last)


@router.get("/selftest/{model}/chart", tags=["analysis"])
def chart(
    model: _Name,
    request: Request,
    reference: _Split = None,
    format: Drawing = "json",  # noqa: A002
) -> Response:
    """Draw the rates of false findings with their intervals against .05."""
    question = Question(request.app.state.analysis, model, reference, None)
    found = question.self_test()
    if found is None:
        return _refuse(question, _last_job(request, question))
    return drawn(selftest.chart(found), format)


def _explained(question: Question) -> dict[str, str]:
    return {
        "model": question.card["model"],
        "reference": question.reference,
        "target": question.target,
    }


def _last_job(request: Request, question: Question) -> Job | None:
    jobs: Jobs = request.app.state.jobs
    mine = _explained(question)
    return next(
        (j for j in jobs.all() if j.kind == SELFTEST and j.request["explain"] == mine), None
    )


def _refuse(question: Question, last: Job | None) -> JSONResponse:
    model = question.card["model"]
    if last is not None and last.state != "done":
        raise not_ready(f"the self-test of {model!r}", last)
    raise NotFound(
        f"wanted a self-test of {model!r} on {question.reference!r} in the present state of the "
        "data, got none. Ask with POST /selftest, or gapscope selftest."
    )
