"""`/gap/{model}/{part}`: each part of the answer, or 202 and the job that computes it."""

from functools import partial
from typing import Annotated, Any

import pyarrow as pa
from fastapi import APIRouter, Path, Query, Request, Response

from service.analysis import Analysis
from service.drawing import DRAWN, Drawing, drawn_of
from service.errors import NotFound, NotReady
from service.gap import PARTS, SLOW, images
from service.gap.difficulty import DifficultyOut, covariate_chart
from service.gap.explaining import Question
from service.gap.findings import ExplainedGapOut
from service.gap.mask import MASK_ID, MaskIn, MaskOut, mask_id
from service.gap.part import Part
from service.gap.store import parsed
from service.jobs import OPEN, Job, Jobs
from service.queueing import accepted, not_ready, queued, waited_for
from service.schemas import GapOut, JobOut, ModelName, PartOut

router = APIRouter()
_Name = Annotated[ModelName, Path(description="Name of a model.", examples=["pixels-logistic"])]
_Split = Annotated[str | None, Query(description="A test split; default: as the load says.")]
_Wait = Annotated[bool, Query(description="Hold the answer until it is computed.")]


def _add(part: Part[Any]) -> None:
    def get(
        model: _Name,
        request: Request,
        reference: _Split = None,
        target: _Split = None,
        wait: _Wait = False,
    ) -> Response:
        found = explained(request, model, reference, target, part.name, wait=wait)
        if isinstance(found, Job):
            return accepted(found)
        return Response(found, media_type="application/json")

    router.add_api_route(
        f"/gap/{{model}}/{part.name}",
        get,
        response_model=part.answer,
        responses={202: {"model": JobOut, "description": "It is being computed by this job"}},
        tags=["analysis"],
        operation_id=f"gap_{part.name}",
        summary=part.about[0].upper() + part.about[1:] + ".",
    )


for _part in PARTS.values():
    _add(_part)


@router.post(
    "/gap/{model}/mask",
    response_model=MaskOut,
    responses={202: {"model": JobOut, "description": "It is being computed by this job"}},
    tags=["analysis"],
)
def mask(model: _Name, body: MaskIn, request: Request) -> Response:
    """Fit the head again without some features: the answer where it is known, else a job."""
    question = Question(request.app.state.analysis, model, body.reference, body.target)
    names = sorted(set(body.features))
    question.check_mask(names)
    found = question.masked(mask_id(names))
    if found is None and request.app.state.explainer is None:  # nobody else would do it
        question.mask(names)
        found = question.masked(mask_id(names))
    if found is None:
        return accepted(_job_of(request, question, names))
    return Response(found, media_type="application/json")


@router.get(
    "/gap/{model}/mask/{mask}",
    response_model=MaskOut,
    responses={202: {"model": JobOut, "description": "It is being computed by this job"}},
    tags=["analysis"],
)
def masked(
    model: _Name,
    mask: Annotated[str, Path(pattern=MASK_ID, description="Its id, as of POST.")],
    request: Request,
    reference: _Split = None,
    target: _Split = None,
) -> Response:
    """Answer what leaving out a set of features does, which POST asked for."""
    question = Question(request.app.state.analysis, model, reference, target)
    found = question.masked(mask)
    if found is not None:
        return Response(found, media_type="application/json")
    jobs: Jobs = request.app.state.jobs
    asked = [
        job
        for job in jobs.all()
        if job.request.get("explain") == _asked(question)["explain"]
        and mask_id(job.request.get("mask", [])) == mask
    ]
    if not asked:
        raise NotFound(
            f"wanted features of {model!r} that were left out, got {mask!r}. Ask with POST "
            f"/gap/{model}/mask."
        )
    if asked[0].state in OPEN:
        return accepted(asked[0])
    raise not_ready(f"mask {mask} of {model!r}", asked[0])


@router.get("/gap/{model}/difficulty/chart", responses=DRAWN, tags=["analysis"])
def chart_of_covariate(
    model: _Name,
    request: Request,
    covariate: Annotated[str, Query(description="Its name, as in /gap/{model}/difficulty.")],
    reference: _Split = None,
    target: _Split = None,
    format: Drawing = "json",  # noqa: A002
) -> Response:
    """Draw the accuracy of images that are alike in a covariate, on both splits."""
    answer = part_answer(request, model, reference, target, "difficulty")
    assert isinstance(answer, DifficultyOut)
    return drawn_of(answer, covariate_chart, covariate, format=format)


@router.get(
    "/gap/{model}/images/list",
    response_model=images.ImagesPageOut,
    responses={202: {"model": JobOut, "description": "It is being computed by this job"}},
    tags=["analysis"],
    operation_id="gap_images_list",
)
def list_images(
    model: _Name,
    request: Request,
    reference: _Split = None,
    target: _Split = None,
    kind: Annotated[images.Kind, Query(description="Which images.")] = "all",
    where: Annotated[
        str,
        Query(
            description="Conditions joined by and: FIELD, then = != < <= > >= or like (% and _ "
            "stand for any characters and for one), then a word or 'a text'. Fields: see `fields` "
            "of /gap/{model}/images.",
            examples=["split = v2 and correct = false and confidence > .9"],
        ),
    ] = "",
    order: Annotated[
        str, Query(description="FIELD, asc or desc after it.", examples=["margin desc"])
    ] = "",
    page: Annotated[int, Query(ge=1, le=1_000_000)] = 1,
    per_page: Annotated[int, Query(ge=1, le=images.PER_PAGE_MAX)] = images.SHOWN,
    wait: _Wait = False,
) -> Response:
    """List the images behind the numbers, by kind and conditions, page by page."""
    found = explained(request, model, reference, target, images.NAME, wait=wait)
    if isinstance(found, Job):
        return accepted(found)
    question, rows = rows_of_images(request, model, reference, target)
    n, shown = images.page_of(rows, kind, where=where, order=order, page=page, per_page=per_page)
    answer = images.ImagesPageOut(
        model=question.card["model"],
        reference=question.reference,
        target=question.target,
        kind=kind,
        n=n,
        page=page,
        per_page=per_page,
        images=shown,
    )
    return Response(answer.model_dump_json(), media_type="application/json")


def rows_of_images(
    request: Request, model: str, reference: str | None, target: str | None
) -> tuple[Question, pa.Table]:
    """Return a question and its table of images, which was computed before.

    Raises
    ------
    NotFound, NotATest, NotReady
    """
    question = Question(request.app.state.analysis, model, reference, target)
    rows = question.rows_of(images.NAME)
    if rows is None:  # the data or the models changed meanwhile
        raise NotReady(f"wanted the images of {model!r}, but the data changed. Ask again.")
    return question, rows


def explained(
    request: Request,
    model: str,
    reference: str | None,
    target: str | None,
    part: str,
    *,
    wait: bool,
) -> bytes | Job:
    """JSON of a part, or the job that computes it.

    Raises
    ------
    NotFound, NotATest, TooManyWait, NotReady
        The last: the job that was waited for did not end well.
    """
    analysis: Analysis = request.app.state.analysis
    question = Question(analysis, model, reference, target)
    found = question.stored(part)
    if found is not None:
        return found
    if request.app.state.explainer is None:  # nobody else would do it
        question.compute(only=part)
        return _stored(question, part)
    if not wait:
        return _job_of(request, question)
    for _ in range(2):  # what a job made may be outdated, or damaged, by its end
        job = waited_for(request, _job_of(request, question), partial(question.has, part))
        question = Question(analysis, model, reference, target)
        found = question.stored(part)
        if found is not None:
            return found
        if job.state != "done":
            break
    raise not_ready(f"{part} of {model!r}", job)


def with_parts(request: Request, answer: GapOut, *, wait: bool) -> ExplainedGapOut:
    """Add to an answer what its parts say; those that are not computed yet are named.

    Parameters
    ----------
    wait
        Whether to hold the answer until all parts are there that take no search in train.

    Raises
    ------
    NotReady
    """
    asked = (answer.model, answer.reference, answer.target)
    question = Question(request.app.state.analysis, *asked)
    if wait:
        missing = [n for n in PARTS if n not in SLOW and question.stored(n) is None]
        for name in missing:
            explained(request, *asked, name, wait=True)
        if missing:  # what was computed may stand under another state by now
            question = Question(request.app.state.analysis, *asked)
    elif question.stored(next(iter(PARTS))) is None:
        ask_for(request, question)
    return question.explained(answer)


def ask_for(request: Request, question: Question) -> None:
    """Queue the job that computes all parts of a question, where a worker is there to do it."""
    if request.app.state.explainer is not None:
        _job_of(request, question)


def part_answer(
    request: Request, model: str, reference: str | None, target: str | None, part: str
) -> PartOut:
    """Return a part as an object, after waiting for it.

    Raises
    ------
    NotFound, NotATest, NotReady
    """
    found = explained(request, model, reference, target, part, wait=True)
    assert isinstance(found, bytes)  # what is waited for is an answer or a refusal
    answer: PartOut = parsed(PARTS[part].answer, found)
    return answer


def _job_of(request: Request, question: Question, mask: list[str] | None = None) -> Job:
    """Return the open job of a question, queued now where there is none."""
    asked = _asked(question) | ({} if mask is None else {"mask": mask})
    return queued(request, asked, question.card["model"])


def _asked(question: Question) -> dict[str, Any]:
    """Return the request of the job that computes all parts of a question."""
    model = question.card["model"]
    return {"explain": {"model": model, "reference": question.reference, "target": question.target}}


def _stored(question: Question, part: str) -> bytes:
    found = question.stored(part)
    if found is None:  # the model went away meanwhile
        raise NotReady(f"wanted {part} of {question.card['model']!r}, which is gone.")
    return found
