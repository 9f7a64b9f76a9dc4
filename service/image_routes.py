"""`/images` and `/gap/{model}/images/{image_id}`: one image, as a picture and as an answer."""

from typing import Annotated

from fastapi import APIRouter, Header, Path, Query, Request, Response

from service.analysis import Analysis
from service.gap import image_detail, images
from service.gap_routes import explained, rows_of_images
from service.jobs import Job
from service.queueing import accepted
from service.schemas import LARGEST, JobOut, ModelName
from service.thumbnails import TYPE, Edge

router = APIRouter()
ImageId = Annotated[int, Path(ge=0, le=LARGEST, description="`image_id` of an image.")]
_Split = Annotated[str | None, Query(description="A test split; default: as the load says.")]


@router.get(
    "/images/{image_id}/thumbnail",
    tags=["data"],
    response_class=Response,
    responses={
        200: {"content": {TYPE: {}}, "description": "The image, its larger side at most `size`"},
        304: {"description": "It is the one that is known already"},
    },
)
def thumbnail(
    image_id: ImageId,
    request: Request,
    size: Annotated[Edge, Query(description="Larger side at most, in pixels.")] = Edge.SMALL,
    if_none_match: Annotated[str | None, Header(include_in_schema=False)] = None,
) -> Response:
    """Show the linked file of an image, small, encoded anew.

    404: not linked, gone, or no image; the code says which.
    """
    analysis: Analysis = request.app.state.analysis
    found = analysis.thumbnails.get(image_id, size)
    # asked again each time: another load may give an id to another image
    headers = {"ETag": found.etag, "Cache-Control": "private, no-cache"}
    if found.etag in (if_none_match or ""):
        return Response(status_code=304, headers=headers)
    return Response(found.content, media_type=TYPE, headers=headers)


@router.get(
    "/gap/{model}/images/{image_id}",
    response_model=image_detail.ImageDetailOut,
    responses={202: {"model": JobOut, "description": "It is being computed by this job"}},
    tags=["analysis"],
    operation_id="gap_image",
)
def one_image(
    model: Annotated[ModelName, Path(description="Name of a model.")],
    image_id: ImageId,
    request: Request,
    reference: _Split = None,
    target: _Split = None,
    kind: Annotated[images.Kind, Query(description="Of the list that it stands in.")] = "all",
    where: Annotated[str, Query(description="As for /gap/{model}/images/list.")] = "",
    order: Annotated[str, Query(description="As for /gap/{model}/images/list.")] = "",
    wait: Annotated[bool, Query(description="Hold the answer until it is computed.")] = False,
) -> Response:
    """Show one image: what the model said, what is near it, and its place in a list."""
    found = explained(request, model, reference, target, images.NAME, wait=wait)
    if isinstance(found, Job):
        return accepted(found)
    question, rows = rows_of_images(request, model, reference, target)
    listed = image_detail.Listed(kind, where, order)
    answer = image_detail.detail(request.app.state.analysis, question, rows, image_id, listed)
    return Response(answer.model_dump_json(), media_type="application/json")
