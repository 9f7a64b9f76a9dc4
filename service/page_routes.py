"""The pages: each route parses, calls one function of `service.pages`, answers HTML."""

from collections.abc import Callable, Coroutine
from typing import Annotated, Any
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.routing import APIRoute
from pydantic import BeforeValidator

from etl.errors import LoadRefused
from models.errors import ModelError
from service import logs
from service.errors import ServiceError, status_of
from service.gap.image_detail import Listed
from service.gap.image_map import Method
from service.gap.images import Kind
from service.gap_routes import ask_for
from service.pages import (
    classes,
    data,
    difficulty,
    features,
    hypotheses,
    images,
    line,
    overview,
    part,
    report,
    training,
)
from service.pages.frame import PAGES, Frame, Site
from service.pages.image_map import Choice, image_map_page
from service.pages.images import Asked
from service.pages.rendering import static_file


def _given(value: Any) -> Any:
    """Return what a form's field holds: an empty one is none."""
    return value or None if isinstance(value, str) else value


class _Page(APIRoute):
    """A route whose refusals are pages, too."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        answer = super().get_route_handler()

        async def page(request: Request) -> Response:
            try:
                return await answer(request)
            except (ServiceError, LoadRefused, ModelError) as error:
                return _refused(request, str(error), status_of(error))
            except RequestValidationError as error:
                faults = [f"{fault['loc'][-1]}: {fault['msg']}" for fault in error.errors()[:5]]
                return _refused(request, "; ".join(faults), 422)

        return page


_JOBS_READ = 500  # the newest; a page shows a few
router = APIRouter(route_class=_Page, include_in_schema=False, default_response_class=HTMLResponse)
_Split = Annotated[str | None, Query()]
_Feature = Annotated[int, Path(ge=0, le=2**31 - 1)]
_Class = Annotated[int | None, Query(alias="class", ge=0, le=2**31 - 1), BeforeValidator(_given)]
_End = Annotated[float | None, Query(allow_inf_nan=False), BeforeValidator(_given)]


def _site(request: Request) -> Site:
    state = request.app.state
    return Site(
        state.analysis,
        lambda: state.jobs.all(_JOBS_READ),
        state.looks,
        lambda question: ask_for(request, question),
        works=state.explainer is not None,
    )


def _framed(
    model: str, request: Request, reference: _Split = None, target: _Split = None
) -> Callable[[str], Frame]:
    """Make the frame of a page of the model and the test sets that the address names."""
    site = _site(request)
    return lambda page: Frame(site, page, model, reference, target)


_Framed = Annotated[Callable[[str], Frame], Depends(_framed)]


def _refused(request: Request, why: str, status: int) -> Response:
    logs.note(why=why)
    frame = Frame(_site(request), "refused")
    return HTMLResponse(frame.render("refused.html", why=why), status_code=status)


def _asked(
    kind: Kind = "all",
    where: str = "",
    order: str = "",
    page: Annotated[int, Query(ge=1, le=1_000_000)] = 1,
) -> Asked:
    return Asked(Listed(kind, where, order), page)


@router.get("/")
def first(request: Request, model: str | None = None) -> str:
    """Show the gap of the model asked for, else of the first."""
    site = _site(request)
    return overview.overview(site, site.model_or_first(model), None, None)


@router.get("/view")
def choose(
    model: str, page: str = "", reference: _Split = None, target: _Split = None
) -> RedirectResponse:
    """Lead to a page of a model: what the pickers above each page ask for."""
    ends = {"reference": reference, "target": target}
    named = urlencode({end: name for end, name in ends.items() if name is not None})
    where = f"/view/{quote(model, safe='')}" + (f"/{page}" if page in PAGES and page else "")
    return RedirectResponse(where + (f"?{named}" if named else ""), status_code=303)


@router.get("/view/train")
def train(request: Request) -> str:
    """Show the form for a training, and the models that there are."""
    return training.train(_site(request))


@router.get("/view/data")
def loaded(request: Request) -> str:
    """Show what is loaded, and who looked at labels of test sets."""
    return data.loaded(_site(request))


@router.get("/view/{model}")
def of_model(model: str, request: Request, reference: _Split = None, target: _Split = None) -> str:
    """Show how big the gap is, what it is made of, what to try next."""
    return overview.overview(_site(request), model, reference, target)


@router.get("/view/{model}/classes")
def all_classes(frame: _Framed) -> str:
    """Show the gap class by class."""
    return classes.all_classes(frame("classes"))


@router.get("/view/{model}/classes/{class_id}")
def one_class(frame: _Framed, class_id: int) -> str:
    """Show one class: its numbers, confusions and images."""
    return classes.one_class(frame("classes"), class_id)


@router.get("/view/{model}/difficulty")
def hard(frame: _Framed, covariate: str | None = None) -> str:
    """Show what the gap has to do with how hard images are."""
    return difficulty.difficulty(frame("difficulty"), covariate)


@router.get("/view/{model}/line")
def on_line(frame: _Framed) -> str:
    """Show the model among others."""
    return line.line(frame("line"))


@router.get("/view/{model}/hypotheses")
def tried(frame: _Framed) -> str:
    """Show the hypotheses about the model, and a form for another."""
    return hypotheses.hypotheses(frame("hypotheses"))


@router.get("/view/{model}/training")
def trained(frame: _Framed) -> str:
    """Show how the model was trained: leaderboard and curves."""
    return training.of_model(frame("training"))


@router.get("/view/{model}/images")
def images_grid(frame: _Framed, asked: Annotated[Asked, Depends(_asked)]) -> Response:
    """Show the images behind the numbers as a grid."""
    found, status = images.grid(frame("images"), asked)
    return HTMLResponse(found, status)


@router.get("/view/{model}/images/filtered")
def filtered(
    model: str, request: Request, form: Annotated[images.Filter, Depends()]
) -> RedirectResponse:
    """Lead to the grid that the form asks for: its address holds conditions, whoever made them."""
    kept = ("reference", "target", "kind", "order")
    query = {name: request.query_params.get(name, "") for name in kept} | {"where": form.where()}
    named = urlencode({name: value for name, value in query.items() if value})
    where = f"/view/{quote(model, safe='')}/images"
    return RedirectResponse(where + (f"?{named}" if named else ""), status_code=303)


@router.get("/view/{model}/images/{image_id}")
def one_image(
    frame: _Framed, image_id: int, asked: Annotated[Asked, Depends(_asked)], near: bool = False
) -> str:
    """Show one image: the picture, the answer, what is near it."""
    return images.one(frame("images"), image_id, asked, near=near)


@router.get("/view/{model}/report")
def reported(frame: _Framed) -> str:
    """Show the reports that were made, and a form for another."""
    return report.report(frame("report"))


@router.get("/view/{model}/part/{name}")
def one_part(frame: _Framed, name: str) -> str:
    """Show a part of the answer that has no page of its own."""
    return part.part(frame(""), name)


@router.get("/view/{model}/features")
def all_features(frame: _Framed) -> str:
    """Show which features moved, and how much the head leans on them."""
    return features.all_features(frame("features"))


@router.get("/view/{model}/features/{feature}")
def one_feature(frame: _Framed, feature: _Feature, class_id: _Class = None) -> str:
    """Show one feature: its distribution, of all images and of one class."""
    return features.one_feature(frame("features"), feature, class_id)


@router.get("/view/{model}/map")
def mapped(
    frame: _Framed,
    method: Method = "pca",
    colour: str = "split",
    x_from: _End = None,
    x_to: _End = None,
    y_from: _End = None,
    y_to: _End = None,
    cluster: Annotated[int | None, Query(ge=0, le=2**31 - 1)] = None,
    page: Annotated[int, Query(ge=1, le=1_000_000)] = 1,
) -> str:
    """Show the map of the images, and the images of a part of it."""
    choice = Choice(method, colour, x_from, x_to, y_from, y_to, cluster, page)
    return image_map_page(frame("map"), choice)


@router.get("/view/{path:path}")
def nowhere(path: str, request: Request) -> Response:
    """Say that there is no such page."""
    pages = ", ".join(page for page in PAGES if page)
    return _refused(request, f"wanted a page of a model ({pages}), got {path!r}.", 404)


@router.get("/static/{file}")
def static(file: str, request: Request) -> Response:
    """Serve style and scripts; Vega comes from the installed package."""
    return static_file(file, takes_gzip="gzip" in request.headers.get("accept-encoding", ""))
