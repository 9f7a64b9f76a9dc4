"""Routes: each parses, calls one function of analysis, answers.

Endpoints that touch the database are plain `def`, so that they run in threads and never hold up
the event loop.
"""

import shutil
from collections.abc import Iterator
from pathlib import PurePath
from tempfile import TemporaryFile
from typing import IO, Annotated, Any

from fastapi import APIRouter, Header, HTTPException, Path, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, StreamingResponse
from prometheus_client import CONTENT_TYPE_LATEST

from service import charts, sealing, trainings
from service.analysis import Analysis
from service.arrow_predictions import ARROW
from service.drawing import DRAWN, Drawing, drawn, drawn_of
from service.errors import NotFound
from service.gap import PARTS
from service.gap.explaining import Question
from service.gap.findings import ExplainedGapOut
from service.gap_routes import part_answer, with_parts
from service.job_events import events
from service.jobs import OVER, RESUMES, Jobs, Worker
from service.lines import Lines
from service.looks import Looks
from service.queueing import IdempotencyKey, job_out
from service.schemas import (
    LARGEST,
    AnnotationOut,
    AuditOut,
    CurvesOut,
    EvaluateIn,
    EvaluationOut,
    HealthOut,
    InterpolateIn,
    JobOut,
    LeaderboardOut,
    LookOut,
    ModelCardOut,
    ModelName,
    ModelOut,
    PredictImageOut,
    PredictIn,
    PredictOut,
    PublishedLineOut,
    ReadyOut,
    SplitOut,
    TrainIn,
    TrainOut,
)
from service.seals import SealIn, SealOut, Seals, SealsOut, seals_chart

router = APIRouter()
_Name = Annotated[
    ModelName, Path(description="Name of a trained model.", examples=["pixels-logistic"])
]
_Model = Annotated[
    ModelName, Query(description="Name of a trained model.", examples=["pixels-logistic"])
]
_IMAGES = ("image/jpeg", "image/png", "image/webp")
_GAP_CHARTS = [*charts.CHARTS, *(name for part in PARTS.values() for name in part.charts)]
_PIECE_BYTES = 1 << 20
_LEAST_FREE_BYTES = 10**9
_Split = Annotated[str | None, Query(description="A test split; default: as the load says.")]


def _analysis(request: Request) -> Analysis:
    analysis: Analysis = request.app.state.analysis
    return analysis


def _jobs(request: Request) -> Jobs:
    jobs: Jobs = request.app.state.jobs
    return jobs


def _looks(request: Request) -> Looks:
    log: Looks = request.app.state.looks
    return log


@router.post("/train", status_code=202, tags=["train"])
def train(
    body: TrainIn, request: Request, response: Response, idempotency_key: IdempotencyKey = None
) -> TrainOut:
    """Queue the training of a head on the train rows of a backbone."""
    analysis, jobs = _analysis(request), _jobs(request)
    asked = body.model_dump(mode="json")
    with request.app.state.naming:  # two requests at once must not get one name
        job = jobs.sent_before(idempotency_key, asked)
        if job is None:
            analysis.check_train(body.backbone, body.head, body.params)
            model = analysis.free_name(body.backbone, body.head, jobs.open_models(), body.name)
            job = jobs.submit(
                {**body.model_dump(exclude={"name", "resume"}), "model": model},
                model,
                resumes=RESUMES if body.resume else 0,
                key=idempotency_key,
                asked=asked,
            )
    response.headers["Location"] = f"/jobs/{job.job}"
    return TrainOut(job=job.job, model=job.model)


@router.get("/jobs", tags=["train"])
def list_jobs(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=10_000, description="At most so many.")] = 200,
) -> list[JobOut]:
    """List the jobs, newest first."""
    return [job_out(job) for job in _jobs(request).all(limit)]


@router.get(
    "/jobs/events",
    tags=["train"],
    response_class=StreamingResponse,
    responses={200: {"description": "Server-sent events", "content": {"text/event-stream": {}}}},
)
def job_events(
    request: Request,
    last_event_id: Annotated[
        int | None,
        Header(
            ge=0, le=LARGEST, description="Id of the last event that came: tell what changed since."
        ),
    ] = None,
) -> Response:
    """Stream how far the jobs are, as server-sent events, until none is under way.

    An event `jobs` holds those that changed since the last one, the first all that are under way;
    `idle` is the last. A client that was cut off names the last event that it got, as browsers do
    by themselves, and misses nothing.
    """
    state = request.app.state

    async def is_over() -> bool:
        return state.stopping.is_set() or await request.is_disconnected()

    return StreamingResponse(
        events(state.jobs, is_over, last_event_id), media_type="text/event-stream"
    )


@router.get("/jobs/{job}", tags=["train"])
def get_job(job: str, request: Request) -> JobOut:
    """Say how far a job is."""
    return job_out(_jobs(request).get(job))


@router.delete("/jobs/{job}", tags=["train"])
def cancel_job(job: str, request: Request) -> JobOut:
    """Cancel a job that waits or runs."""
    return job_out(_jobs(request).cancel(job))


@router.post("/jobs/{job}/resume", status_code=202, tags=["train"])
def resume_job(job: str, request: Request, response: Response) -> JobOut:
    """Queue a job again that was interrupted, failed or cancelled; it goes on where it was."""
    analysis, jobs = _analysis(request), _jobs(request)
    with request.app.state.naming:  # as above
        found = jobs.get(job)
        if found.state in OVER and "explain" not in found.request:
            analysis.free_name("", "", jobs.open_models(), found.model)
        found = jobs.resume(job)
    response.headers["Location"] = f"/jobs/{job}"
    return job_out(found)


@router.get("/splits", tags=["data"])
def splits(request: Request) -> list[SplitOut]:
    """List the splits, one row for each backbone over them."""
    return [SplitOut(**row) for row in _analysis(request).database.splits()]


@router.get("/annotations", tags=["data"])
def annotations(request: Request) -> list[AnnotationOut]:
    """List what else is known about the images: each source, its covariates on each split."""
    return [
        AnnotationOut(**{**source, "origin": PurePath(source["origin"]).name})
        for source in _analysis(request).database.annotations()
    ]


@router.get("/lines", tags=["data"])
def lines(request: Request) -> list[PublishedLineOut]:
    """List the published accuracies that are attached."""
    return [
        PublishedLineOut(
            name=line.name,
            reference=line.reference,
            target=line.target,
            n=len(line.models),
            least_accuracy=float(line.reference_accuracy.min()),
            most_accuracy=float(line.reference_accuracy.max()),
        )
        for line in Lines(_analysis(request).data).all()
    ]


@router.get("/models", tags=["models"])
def models(request: Request) -> list[ModelOut]:
    """List the cards of all models, oldest first."""
    return [ModelOut(**card) for card in _analysis(request).results.models()]


@router.get("/models/{model}", tags=["models"])
def model_card(model: _Name, request: Request) -> ModelCardOut:
    """Show the card of one model, with its whole internal validation and its three gaps."""
    analysis = _analysis(request)
    return ModelCardOut(**analysis.results.card(model), gaps=analysis.gaps(model))


@router.get("/models/{model}/leaderboard", tags=["models"])
def leaderboard(model: _Name, request: Request) -> LeaderboardOut:
    """List what was tried in a training, on held-out train rows alone, best first."""
    return trainings.leaderboard(_analysis(request).results, model)


@router.get("/models/{model}/curves", tags=["models"])
def curves(model: _Name, request: Request) -> CurvesOut:
    """List the loss of each fit of a training, step by step."""
    return trainings.curves(_analysis(request).results, model)


@router.get("/models/{model}/chart/{name}", responses=DRAWN, tags=["models"])
def training_chart(
    model: _Name,
    name: Annotated[str, Path(examples=["leaderboard"], description="leaderboard, loss")],
    request: Request,
    format: Drawing = "json",  # noqa: A002
) -> Response:
    """Draw a training as a Vega-Lite spec, a page, an SVG or a PNG."""
    answer = trainings.answer_of(_analysis(request).results, model, name)
    return drawn(charts.training_spec(answer, name), format)


@router.post("/interpolate", status_code=201, tags=["models"])
def interpolate(body: InterpolateIn, request: Request, response: Response) -> ModelOut:
    """Make a head between two linear heads of one backbone, by their weights."""
    with request.app.state.naming:
        card = _analysis(request).interpolate(
            body.model_a,
            body.model_b,
            alpha=body.alpha,
            name=body.name,
            taken=_jobs(request).open_models(),
        )
    response.headers["Location"] = f"/models/{card['model']}"
    return ModelOut(**card)


@router.get("/models/{model}/audit", tags=["models"])
def audit(model: _Name, request: Request) -> AuditOut:
    """Prove that no test row took part in a model, or show those that did."""
    return _analysis(request).audit(model).answer


@router.get("/looks", tags=["data"])
def looks(request: Request) -> list[LookOut]:
    """List every read of test labels, newest first: who, when, with which model, what for."""
    return [LookOut(**look) for look in _looks(request).all()]


@router.post("/seals", status_code=201, tags=["analysis"])
def seal(body: SealIn, request: Request, response: Response) -> SealOut:
    """Predict a model's accuracy on a target, and store it, before the target's labels are read."""
    made = sealing.seal(_analysis(request), body.model, body.target, body.reference)
    response.headers["Location"] = f"/seals/{made.seal}"
    return made


@router.get("/seals", tags=["analysis"])
def list_seals(request: Request) -> SealsOut:
    """List all seals, newest first, with what came, and how often their intervals held it."""
    return Seals(_analysis(request).data).all()


@router.get("/seals/chart", responses=DRAWN, tags=["analysis"])
def chart_of_seals(request: Request, format: Drawing = "json") -> Response:  # noqa: A002
    """Draw all predictions beside what came: a Vega-Lite spec, a page, an SVG or a PNG."""
    return drawn(seals_chart(Seals(_analysis(request).data).all()), format)


@router.get("/seals/{seal}", tags=["analysis"])
def one_seal(seal: str, request: Request) -> SealOut:
    """Show one seal, and what came of it."""
    return Seals(_analysis(request).data).one(seal)


@router.post("/evaluate", tags=["analysis"])
def evaluate(body: EvaluateIn, request: Request) -> EvaluationOut:
    """Score a model on test splits; `gap` where two are there."""
    return _analysis(request).evaluate(body.model, body.splits)


@router.get("/gap/{model}", tags=["analysis"])
def gap(
    model: _Name,
    request: Request,
    reference: _Split = None,
    target: _Split = None,
    top: Annotated[int | None, Query(ge=1, description="Features to list; default: all.")] = None,
    wait: Annotated[
        bool, Query(description="Hold the answer until its parts are there; else see pending.")
    ] = True,
) -> ExplainedGapOut:
    """Explain why a model scores lower on the target than on the reference."""
    question = Question(_analysis(request), model, reference, target)
    answer = with_parts(request, question.gap(), wait=wait)
    if top is None or answer.features is None:
        return answer
    return answer.model_copy(update={"features": answer.features[:top]})


@router.get("/gap/{model}/chart/{name}", responses=DRAWN, tags=["analysis"])
def chart(
    model: _Name,
    name: Annotated[str, Path(examples=["gap"], description=", ".join(_GAP_CHARTS))],
    request: Request,
    reference: _Split = None,
    target: _Split = None,
    format: Drawing = "json",  # noqa: A002
) -> Response:
    """Draw the same numbers as a Vega-Lite spec, a page, an SVG or a PNG."""
    if name not in _GAP_CHARTS:
        raise NotFound(
            f"wanted a chart of the gap ({', '.join(_GAP_CHARTS)}), got {name!r}. Those of the "
            f"training ({', '.join(charts.TRAINING_CHARTS)}) are under /models/{model}/chart."
        )
    part = next((part for part in PARTS.values() if name in part.charts), None)
    if part is None:
        gap = Question(_analysis(request), model, reference, target).gap()
        return drawn_of(gap, charts.spec, name, format=format)
    answer = part_answer(request, model, reference, target, part.name)
    return drawn_of(answer, part.charts[name], format=format)


@router.post("/predict", tags=["models"])
def predict(body: PredictIn, request: Request) -> PredictOut:
    """Classify rows of features."""
    return _analysis(request).predict(body.model, body.features)


def _body_of(*types: str) -> dict[str, Any]:
    """Say in the interface's description that a body is bytes of one of these types."""
    content = {kind: {"schema": {"type": "string", "format": "binary"}} for kind in types}
    return {"requestBody": {"required": True, "content": content}}


def _check_type(request: Request, *types: str) -> None:
    found = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if found not in types:
        raise HTTPException(
            415,
            f"wanted a body of Content-Type {' or '.join(types)}, got {found or 'none'}. Name it.",
        )


@router.post(
    "/predict/arrow",
    tags=["models"],
    response_class=StreamingResponse,
    responses={
        200: {"description": "An Arrow stream", "content": {ARROW: {}}},
    },
    openapi_extra=_body_of(ARROW),
)
async def predict_arrow(
    model: _Model,
    request: Request,
    probabilities: Annotated[bool, Query(description="Add those of all classes.")] = False,
) -> Response:
    """Classify rows of features in an Arrow stream (no compression).

    The features are one column `vector` of lists, or one column of numbers for each feature, by
    its name. The answer is an Arrow stream of class_id, class_name, confidence and, where asked
    for, probabilities in the order of `class_ids` in the schema's metadata.
    """
    _check_type(request, ARROW)
    analysis = _analysis(request)
    # files without a name: whatever ends this process, nothing of them is left
    answer = TemporaryFile(dir=analysis.data)  # noqa: SIM115 (closed when it was sent)
    try:
        with TemporaryFile(dir=analysis.data) as body:
            await _receive(request, body)
            await run_in_threadpool(
                analysis.predict_arrow, model, body, answer, with_probabilities=probabilities
            )
    except BaseException:
        answer.close()
        raise
    size = answer.tell()
    answer.seek(0)
    return StreamingResponse(
        _pieces(answer), media_type=ARROW, headers={"Content-Length": str(size)}
    )


async def _receive(request: Request, file: IO[bytes]) -> None:
    """Write the body of a request to a file as it comes."""
    waiting, n_bytes = [], 0
    async for piece in request.stream():
        waiting.append(piece)
        n_bytes += len(piece)
        if n_bytes >= _PIECE_BYTES:
            await run_in_threadpool(file.writelines, waiting)
            waiting, n_bytes = [], 0
    await run_in_threadpool(file.writelines, waiting)
    file.flush()


def _pieces(file: IO[bytes]) -> Iterator[bytes]:
    with file:
        while piece := file.read(_PIECE_BYTES):
            yield piece


@router.post(
    "/predict/image",
    tags=["models"],
    openapi_extra=_body_of(*_IMAGES),
)
async def predict_image(
    model: _Model,
    request: Request,
    probabilities: Annotated[bool, Query(description="Add those of all classes.")] = False,
) -> PredictImageOut:
    """Classify one image, whose file is the body.

    Its features are made as those were made that the model learnt from.
    """
    _check_type(request, *_IMAGES)
    return await run_in_threadpool(
        _analysis(request).predict_image,
        model,
        await request.body(),
        with_probabilities=probabilities,
    )


@router.get("/health", tags=["service"])
async def health() -> HealthOut:
    """Say that the process answers; touches nothing else."""
    return HealthOut()


@router.get(
    "/ready",
    tags=["service"],
    responses={200: {"model": ReadyOut}, 503: {"model": ReadyOut, "description": "Not ready"}},
)
def ready(request: Request) -> Response:
    """Say whether there is a database to read, a worker to train, and room; 503 where not."""
    state = request.app.state
    worker: Worker | None = state.worker
    is_stopping = state.stopping.is_set()
    checks = {
        "database": _analysis(request).database.is_readable,
        "worker": worker is not None and worker.is_well,
        "disk": shutil.disk_usage(_analysis(request).data).free >= _LEAST_FREE_BYTES,
    }
    is_ready = all(checks.values()) and not is_stopping
    answer = ReadyOut(
        ready=is_ready, **checks, stopping=is_stopping, damaged=_analysis(request).damaged
    )
    return JSONResponse(answer.model_dump(), status_code=200 if is_ready else 503)


@router.get(
    "/metrics",
    tags=["service"],
    response_class=Response,
    responses={200: {"description": "Prometheus text format", "content": {"text/plain": {}}}},
)
def metrics(request: Request) -> Response:
    """Tell a monitor of requests, jobs, heartbeats, rows, looks at test labels, disk, memory."""
    return Response(request.app.state.metrics.text(), media_type=CONTENT_TYPE_LATEST)
