"""The web page: server-rendered, with its style and scripts from this service alone."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from fastapi import Response
from jinja2 import Environment, FileSystemLoader

from models.errors import ModelError
from service import charts, trainings
from service.analysis import Analysis
from service.errors import NotFound, ServiceError
from service.gap.explaining import Question
from service.gap.findings import ExplainedGapOut, explained_gap
from service.hypotheses.registry import Registry
from service.hypotheses.schemas import HypothesesOut
from service.jobs import EXPLAIN, HYPOTHESIS, MASK, OPEN, REPORT, SELFTEST, SUGGEST, TRAIN, Job
from service.looks import Looks

_HERE = Path(__file__).parent
_STATIC = {"style.css": "text/css", "page.js": "text/javascript", "vega.js": "text/javascript"}
_JOBS_SHOWN = 5
_LOOKS_SHOWN = 10
_KINDS = {
    TRAIN: "training of",
    HYPOTHESIS: "test of",
    SUGGEST: "hypotheses about",
    EXPLAIN: "explanation of",
    MASK: "fit without some features of",
    SELFTEST: "self-test of",
    REPORT: "report on",
}


def first_page(
    analysis: Analysis,
    jobs: Callable[[], list[Job]],
    looks: Looks,
    model: str | None,
    ask: Callable[[Question], None],
) -> str:
    """Page with the splits, the models, and the gap of the model asked for (else the first).

    Parameters
    ----------
    jobs
        Gives the jobs, newest first.
    ask
        Called where the gap is not explained yet: whoever can explains it meanwhile.
    """
    splits = analysis.database.splits() if analysis.database.exists else []
    cards = analysis.results.own_models()
    names = [card["model"] for card in analysis.results.models()]
    if model is not None and model not in names:
        raise NotFound(f"wanted a trained model ({', '.join(names) or 'none yet'}), got {model!r}.")
    chosen = model or (cards[0]["model"] if cards else None)
    answer: ExplainedGapOut | None = None
    refusal = None
    gaps = None
    if chosen is not None:
        try:
            plain = analysis.gap(chosen)
            question = Question(analysis, chosen, plain.reference, plain.target)
            answer = explained_gap(plain, question, question.self_test())
            if answer.ledger is None:
                ask(question)
            gaps = analysis.gaps(chosen)
        except (ServiceError, ModelError) as error:
            refusal = str(error)
    return _render(
        "index.html",
        splits=splits,
        cards=cards,
        chosen=chosen,
        answer=answer,
        gaps=gaps,
        refusal=refusal,
        hypotheses=_hypotheses(analysis, chosen),
        charts=_charts(answer),
        training=trainings.leaderboard(analysis.results, chosen) if chosen else None,
        why_flattered=trainings.why_flattered,
        has_curves=chosen is not None and bool(analysis.results.curves(chosen)),
        jobs=jobs()[:_JOBS_SHOWN],
        looks=looks.all()[:_LOOKS_SHOWN],
        open_states=OPEN,
        kinds=_KINDS,
    )


def _hypotheses(analysis: Analysis, model: str | None) -> HypothesesOut | str | None:
    """Hypotheses about a model, or why they are not shown; None where there are none."""
    try:
        found = Registry(analysis.data).all(model)
    except ServiceError as error:
        return str(error)
    return found if found.hypotheses else None


def _charts(answer: ExplainedGapOut | None) -> list[str]:
    """Charts of the page; the ledger comes first where it is computed."""
    if answer is None:
        return []
    return ["ledger"] * (answer.ledger is not None) + charts.drawable(answer)


def chart_page(spec: dict[str, Any]) -> str:
    """Page with one chart and all that it needs; the spec stands in it as data, not as script."""
    text = json.dumps(spec).replace("<", "\\u003c")
    # all in one file, so that it can be kept and handed on
    parts = {file.split(".")[0]: _content(file) for file in ("style.css", "page.js", "vega.js")}
    scripts = {name: part.replace("</script", "<\\/script") for name, part in parts.items()}
    return _render("chart.html", title=spec.get("description", "chart"), spec=text, **scripts)


def static_file(file: str) -> Response:
    """Return one of the page's own files.

    Raises
    ------
    NotFound
    """
    if file not in _STATIC:
        raise NotFound(f"wanted one of {', '.join(_STATIC)}, got {file!r}.")
    headers = {"Cache-Control": "public, max-age=3600"}
    return Response(_content(file), media_type=_STATIC[file], headers=headers)


@cache
def _content(file: str) -> str:
    if file == "vega.js":
        return charts.vega_bundle()
    return (_HERE / "static" / file).read_text(encoding="utf-8")


def _render(name: str, **values: Any) -> str:
    return str(_environment().get_template(name).render(**values))


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_HERE / "templates"), autoescape=True, trim_blocks=True
    )
    environment.filters["setting"] = trainings.in_words
    environment.filters["points"] = lambda share: f"{share * 100:.1f}"
    environment.filters["percent"] = lambda share: f"{share * 100:.1f} %"
    return environment
