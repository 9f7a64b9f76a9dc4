"""`/reports`: a report as PDF and HTML, made by a job, and the numbers in it as JSON."""

import uuid
from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from service.analysis import Analysis
from service.gap.explaining import Question
from service.jobs import REPORT, Job, Jobs
from service.queueing import IdempotencyKey, accepted, job_out
from service.report.kept import ID, TYPES, ReportIn, ReportJobOut, ReportOut, Reports
from service.report.own_words import own_words

router = APIRouter(tags=["reports"])
_Id = Annotated[str, Path(pattern=ID, description="Id of a report.")]
# what a browser may do with a report that it shows: nothing but draw it
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; sandbox"


@router.post("/reports", status_code=202)
def ask(body: ReportIn, request: Request, idempotency_key: IdempotencyKey = None) -> ReportJobOut:
    """Queue a report about a model: all that is missing is computed first."""
    analysis: Analysis = request.app.state.analysis
    for model in body.models:
        question = Question(analysis, model, body.reference, body.target)
    own_words(body.text)
    job = _queued(request, body, question, idempotency_key)
    found = ReportJobOut(**job_out(job).model_dump(), report=job.request[REPORT]["report"])
    return accepted(job, found)  # type: ignore[return-value]  # with headers of its own


def _queued(request: Request, body: ReportIn, question: Question, key: str | None) -> Job:
    """Return the open job of this very report, queued now where there is none."""
    jobs: Jobs = request.app.state.jobs
    ends = {"reference": question.reference, "target": question.target}
    asked = {**body.model_dump(mode="json"), **ends}
    with request.app.state.naming:  # two requests at once must not queue it twice
        found = jobs.sent_before(key, asked)
        if found is not None:
            return found
        for job in jobs.open():
            if job.kind == REPORT:
                mine = {k: v for k, v in job.request[REPORT].items() if k != "report"}
                if mine == asked:
                    return job
        explained = {"model": body.models[0], **ends}
        wanted = {"explain": explained, REPORT: {**asked, "report": uuid.uuid4().hex[:12]}}
        return jobs.submit(wanted, body.models[0], key=key, asked=asked)


@router.get("/reports")
def list_reports(request: Request) -> list[ReportOut]:
    """List the reports that are kept, newest first."""
    return _reports(request).all()


@router.get("/reports/{report}")
def card(report: _Id, request: Request) -> ReportOut:
    """Say what a report is about, and when it was made."""
    return _reports(request).card(report)


def _add(name: str, kind: str, about: str) -> None:
    def get(report: _Id, request: Request) -> Response:
        headers = {"Content-Disposition": f'inline; filename="{name}"'}
        if name.endswith(".html"):
            headers["Content-Security-Policy"] = _POLICY
        return Response(_reports(request).content(report, name), media_type=kind, headers=headers)

    router.add_api_route(
        f"/reports/{{report}}/{name}",
        get,
        response_class=Response,
        responses={200: {"description": about, "content": {kind.split(";")[0]: {}}}},
        operation_id=f"reports_{name.split('.')[1]}",
        summary=about,
    )


_add("report.pdf", TYPES["report.pdf"], "The report as a PDF.")
_add("report.html", TYPES["report.html"], "The report as one page.")
_add("report.json", TYPES["report.json"], "Every number of the report, and where it comes from.")


def _reports(request: Request) -> Reports:
    return Reports(request.app.state.analysis.data)
