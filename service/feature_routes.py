"""One feature (`/gap/{model}/features/{feature}`), one place of the map (`/gap/{model}/map`)."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from service.drawing import DRAWN, Drawing, drawn, drawn_of
from service.gap import image_map
from service.gap.distribution import DistributionOut, distribution, spec
from service.gap.explaining import Question
from service.gap_routes import explained, part_answer
from service.jobs import Job
from service.queueing import accepted
from service.schemas import JobOut, ModelName

router = APIRouter()
_Name = Annotated[ModelName, Path(description="Name of a model.", examples=["pixels-logistic"])]
_Feature = Annotated[int, Path(ge=0, le=2**31 - 1, description="Its id: place in the vector.")]
_Split = Annotated[str | None, Query(description="A test split; default: as the load says.")]
_Class = Annotated[
    int | None,
    Query(
        alias="class", ge=0, le=2**31 - 1,
        description="Id of a class, whose images are shown alone: a look at test labels.",
    ),
]  # fmt: skip
_Method = Annotated[image_map.Method, Query(description="Whose axes are meant.")]
_End = Annotated[float | None, Query(allow_inf_nan=False, description="End of the rectangle.")]


@router.get("/gap/{model}/features/{feature}/distribution", tags=["analysis"])
def feature_distribution(
    model: _Name,
    feature: _Feature,
    request: Request,
    class_id: _Class = None,
    reference: _Split = None,
    target: _Split = None,
) -> DistributionOut:
    """Show how one feature is distributed on train, reference and target."""
    analysis = request.app.state.analysis
    question = Question(analysis, model, reference, target)
    return distribution(analysis, question, feature, class_id)


@router.get(
    "/gap/{model}/features/{feature}/distribution/chart", responses=DRAWN, tags=["analysis"]
)
def feature_distribution_chart(
    model: _Name,
    feature: _Feature,
    request: Request,
    class_id: _Class = None,
    reference: _Split = None,
    target: _Split = None,
    format: Drawing = "json",  # noqa: A002
) -> Response:
    """Draw the distribution as a Vega-Lite spec, a page, an SVG or a PNG."""
    answer = feature_distribution(model, feature, request, class_id, reference, target)
    return drawn(spec(answer), format)


@router.get("/gap/{model}/map/chart", responses=DRAWN, tags=["analysis"])
def map_chart(
    model: _Name,
    request: Request,
    method: _Method = "pca",
    colour: Annotated[
        str, Query(description="split, answer, cluster, or annotation. and its name.")
    ] = image_map.BY_SPLIT,
    reference: _Split = None,
    target: _Split = None,
    format: Drawing = "json",  # noqa: A002
) -> Response:
    """Draw the map, its points coloured as asked for."""
    answer = part_answer(request, model, reference, target, image_map.NAME)
    assert isinstance(answer, image_map.MapOut)
    return drawn_of(answer, image_map.spec, method, colour, format=format)


@router.get(
    "/gap/{model}/map/images",
    response_model=image_map.MapImagesOut,
    responses={202: {"model": JobOut, "description": "It is being computed by this job"}},
    tags=["analysis"],
    operation_id="gap_map_images",
)
def map_images(
    model: _Name,
    request: Request,
    reference: _Split = None,
    target: _Split = None,
    method: _Method = "pca",
    x_from: _End = None,
    x_to: _End = None,
    y_from: _End = None,
    y_to: _End = None,
    cluster: Annotated[int | None, Query(ge=0, le=2**31 - 1)] = None,
    page: Annotated[int, Query(ge=1, le=1_000_000)] = 1,
    per_page: Annotated[int, Query(ge=1, le=image_map.PER_PAGE_MAX)] = image_map.SHOWN,
    wait: Annotated[bool, Query(description="Hold the answer until it is computed.")] = False,
) -> Response:
    """List the images in a rectangle of the map, or in a cluster: wrong ones first."""
    found = explained(request, model, reference, target, image_map.NAME, wait=wait)
    if isinstance(found, Job):
        return accepted(found)
    question = Question(request.app.state.analysis, model, reference, target)
    rows = question.rows_of(image_map.NAME)
    n, images = 0, list[image_map.MappedImageOut]()
    if rows is not None:  # a model without features has a map without images
        n, images = image_map.page_of(
            rows, method, (x_from, x_to), (y_from, y_to), cluster, page=page, per_page=per_page
        )
    answer = image_map.MapImagesOut(
        model=question.card["model"], reference=question.reference, target=question.target, n=n,
        page=page, per_page=per_page, images=images,
    )  # fmt: skip
    return Response(answer.model_dump_json(), media_type="application/json")
