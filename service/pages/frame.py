"""What every page shares: whose page it is, what is computed of it, what is under way."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from models.errors import ModelError
from service.analysis import Analysis
from service.errors import NotFound, ServiceError
from service.gap import PARTS
from service.gap.explaining import Question
from service.jobs import EXPLAIN, HYPOTHESIS, MASK, OPEN, REPORT, SELFTEST, SUGGEST, TRAIN, Job
from service.looks import Looks
from service.pages.rendering import render
from service.schemas import PartOut
from service.thumbnails import ImageFile

P = TypeVar("P", bound=PartOut)
_JOBS_SHOWN = 5
_RETRY_AFTER = timedelta(minutes=1)
_KINDS = {
    TRAIN: "training of",
    HYPOTHESIS: "test of",
    SUGGEST: "hypotheses about",
    EXPLAIN: "explanation of",
    MASK: "fit without some features of",
    SELFTEST: "self-test of",
    REPORT: "report on",
}
PAGES = {
    "": "Overview",
    "classes": "Classes",
    "features": "Features",
    "map": "Map",
    "difficulty": "Difficulty",
    "images": "Images",
    "line": "Line",
    "hypotheses": "Hypotheses",
    "training": "Training",
    "report": "Report",
}


@dataclass(frozen=True)
class Site:
    """What pages read.

    Attributes
    ----------
    jobs : gives the jobs, newest first
    ask : has gap and parts of a question computed meanwhile
    works : whether somebody is there to do it
    """

    analysis: Analysis
    jobs: Callable[[], list[Job]]
    looks: Looks
    ask: Callable[[Question], None]
    works: bool

    def model_or_first(self, model: str | None) -> str | None:
        """Return the model asked for, else the first one trained; None where there is none."""
        if model is not None:
            self._refuse_unknown(model)
            return model
        cards = self.analysis.results.own_models()
        return cards[0]["model"] if cards else None

    def _refuse_unknown(self, model: str) -> None:
        names = [card["model"] for card in self.analysis.results.models()]
        if model not in names:
            raise NotFound(
                f"wanted a trained model ({', '.join(names) or 'none yet'}), got {model!r}."
            )


class Frame:
    """One page: of a model on two test sets, or of none.

    Attributes
    ----------
    question : None without a model, or where its gap cannot be asked for
    refusal : why it cannot be asked for; None elsewhere
    failure : why what is not computed could not be; None elsewhere
    """

    def __init__(
        self,
        site: Site,
        page: str,
        model: str | None = None,
        reference: str | None = None,
        target: str | None = None,
    ) -> None:
        """Find the model and both ends.

        Raises
        ------
        NotFound, NotATest
            There is no such model, or a split was named that is none of its test splits.
        """
        self.site, self.page, self.model = site, page, model
        self.question: Question | None = None
        self.refusal: str | None = None
        self._named = {"reference": reference, "target": target}
        self._is_asked = False
        self.failure: str | None = None
        if model is None:
            return
        site.analysis.results.card(model)
        try:
            self.question = Question(site.analysis, model, reference, target)
        except (ServiceError, ModelError) as error:
            if reference is not None or target is not None:
                raise
            self.refusal = str(error)

    @property
    def ends(self) -> dict[str, str]:
        """Reference and target, as a query's values; empty without a question."""
        if self.question is None:
            return {}
        return {"reference": self.question.reference, "target": self.question.target}

    @property
    def named(self) -> dict[str, str]:
        """Those of both ends that the address named: links keep them."""
        return {end: name for end, name in self._named.items() if name is not None}

    def part(self, name: str, of: type[P]) -> P | None:
        """Return a part where it is computed; else None, and it is being computed."""
        if self.question is None:
            return None
        found = self.question.answer(name)
        if found is None:
            self.ask()
            return None
        assert isinstance(found, of)
        return found

    def files(self, image_ids: Iterable[int | None]) -> dict[int, ImageFile]:
        """Return which files show images, in one query: no picture is asked for that is none."""
        there = [image_id for image_id in image_ids if image_id is not None]
        return self.site.analysis.thumbnails.files(there)

    def ask(self) -> None:
        """Have what is not computed yet computed, once; not again right after that has failed."""
        if self.question is None or self._is_asked:
            return
        self._is_asked = True
        asked = {"explain": {"model": self.model, **self.ends}}
        last = next((job for job in self.site.jobs() if job.request == asked), None)
        if last is not None and last.state == "failed" and _is_recent(last):
            self.failure = last.error
        else:
            self.site.ask(self.question)

    def render(self, template: str, **values: Any) -> str:
        """Return the page as HTML."""
        analysis = self.site.analysis
        database = analysis.database
        splits = database.splits() if database.exists else []
        jobs = self.site.jobs()
        cards = analysis.results.own_models()
        return render(
            template,
            frame=self,
            model=self.model,
            cards=cards,
            models=[card["model"] for card in cards],
            ends=self.ends,
            named=self.named,
            pages=PAGES,
            damaged=analysis.damaged,
            splits=splits,
            test_splits=list(
                dict.fromkeys(row["split"] for row in splits if row["role"] != "train")
            ),
            jobs=[job for job in jobs if job.state in OPEN or _is_news(job, jobs)][:_JOBS_SHOWN],
            open_states=OPEN,
            kinds=_KINDS,
            parts=PARTS,
            **values,
        )


def _is_recent(job: Job) -> bool:
    if job.finished_at is None:
        return False
    return datetime.now(UTC) - datetime.fromisoformat(job.finished_at) < _RETRY_AFTER


def _is_news(job: Job, jobs: list[Job]) -> bool:
    """Whether a job came to no good, and nothing of its kind has gone well since."""
    if job.state not in ("failed", "interrupted"):
        return False
    later = jobs[: jobs.index(job)]
    return not any(one.request == job.request for one in later)
