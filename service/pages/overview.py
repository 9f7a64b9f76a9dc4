"""How big the gap is, what it is made of, and what to try next."""

from dataclasses import dataclass

from models.errors import ModelError
from service.errors import ServiceError
from service.gap.ledger import LedgerOut
from service.hypotheses.registry import Registry
from service.hypotheses.schemas import HypothesesOut
from service.pages.frame import Frame, Site
from service.schemas import GapOut

# where the page about a part of the answer is
_PAGE_OF = {
    "ledger": "",
    "classes": "classes",
    "features": "features",
    "map": "map",
    "difficulty": "difficulty",
    "images": "images",
    "line": "line",
}
_TEXTS = ("leaks", "overlap", "labels", "slices", "without_labels")


@dataclass(frozen=True)
class Step:
    """Something to do next.

    Attributes
    ----------
    what, why : in words
    page : of the model, where it is done
    """

    what: str
    why: str
    page: str


def overview(site: Site, model: str | None, reference: str | None, target: str | None) -> str:
    """Page of the gap of a model, or of what is needed first."""
    frame = Frame(site, "", model, reference, target)
    if frame.question is None:
        return frame.render("welcome.html")
    question = frame.question
    try:
        # what takes longer than a page may is left to a job, where one can be
        plain = question.kept_gap() if site.works else question.gap()
    except (ServiceError, ModelError) as error:
        frame.refusal = str(error)
        return frame.render("welcome.html")
    if plain is None:
        frame.ask()
        return frame.render("pending.html", gaps=site.analysis.gaps(question.card["model"]))
    answer = question.explained(plain)
    if answer.pending:
        frame.ask()
    return frame.render(
        "overview.html",
        answer=answer,
        evidence={finding.part: evidence(frame, finding.part) for finding in answer.findings},
        gaps=site.analysis.gaps(question.card["model"]),
        hypotheses=hypotheses_of(frame),
        steps=_steps(frame, plain, answer.ledger),
        more={
            name: found.summary
            for name in _TEXTS
            if (found := question.answer(name)) is not None and found.summary
        },
    )


def evidence(frame: Frame, part: str) -> str:
    """Address of the page that shows a part, or of its chart where it has no page."""
    return f"/view/{frame.model}/{_PAGE_OF.get(part, 'part/' + part)}".rstrip("/")


def hypotheses_of(frame: Frame) -> HypothesesOut | str:
    """Hypotheses about the model, or why they are not shown."""
    try:
        return Registry(frame.site.analysis.data).all(frame.model)
    except ServiceError as error:
        return str(error)


def _steps(frame: Frame, gap: GapOut, ledger: LedgerOut | None) -> list[Step]:
    """Return what to do next, the most useful first."""
    steps = []
    found = hypotheses_of(frame)
    if isinstance(found, HypothesesOut):
        waiting = sum(one.result is None for one in found.hypotheses)
        if not found.hypotheses:
            why = "Half of the images suggest causes and refinements, the others test them once."
            steps.append(Step("Have hypotheses suggested", why, "hypotheses"))
        elif waiting:
            why = f"{waiting} registered and not tested yet."
            steps.append(Step("Test what is registered", why, "hypotheses"))
    if ledger is not None and ledger.terms[-1].share is not None and ledger.terms[-1].share > 0.5:
        why = "More than half of the gap is in no term: look at what the model gets wrong."
        steps.append(Step("Look at pairs of images", why, "images"))
    if gap.features is not None:
        why = "Where images of both sets lie, and which groups lose more."
        steps.append(Step("Look at the map", why, "map"))
    return steps[:3]
