"""A report: its sentences against their numbers, every number against its source, its pages."""

import io
import json
import re
import shutil

import pytest
from fastapi.testclient import TestClient
from pypdf import PdfReader

from service.analysis import Analysis
from service.app import create_app
from service.jobs import EXPLAIN, REPORT, Jobs, work_one
from service.report.kept import KEPT, Reports, make_and_keep
from service.report.numbers import FORMS, digest, parsed_address, resolve
from service.settings import Settings
from tests.contract import report_snapshot
from tests.pdf import check_pdf

_SCALES = {
    "points": (100, 1), "points2": (100, 2), "signed_points": (100, 1), "percent": (100, 1),
    "percent0": (100, 0), "count": (1, 0), "number2": (1, 2), "number3": (1, 3),
}  # fmt: skip


@pytest.fixture(scope="module")
def data(toy_data, tmp_path_factory):
    """A copy that may be written to."""
    copy = tmp_path_factory.mktemp("report") / "data"
    # what other tests left waiting is not for this one to do
    shutil.copytree(toy_data, copy, ignore=shutil.ignore_patterns("jobs.sqlite*", "hypotheses.*"))
    return copy


@pytest.fixture(scope="module")
def report(data):
    return report_snapshot.toy_report(Analysis(data))


@pytest.fixture(scope="module")
def listed(report):
    return json.loads(report.files["report.json"])


@pytest.fixture
def client(data):
    with TestClient(create_app(Settings(data=data), with_worker=False)) as client:
        yield client


def test_sentences_are_those_of_the_snapshot(report):
    text = report_snapshot.text_of(report.files["report.html"].decode())
    assert text == report_snapshot.FILE.read_text(encoding="utf-8"), (
        "look at what changed, then python -m tests.contract.report_snapshot"
    )


def test_every_number_is_where_it_says_and_is_written_as_it_is(client, data, listed):
    answers = {place: _answer(client, data, place) for place in listed["endpoints"]}
    assert len(listed["numbers"]) > 150
    for number in listed["numbers"]:
        value = resolve(answers[number["endpoint"]], number["pointer"])
        assert value == number["value"], number
        assert FORMS[number["form"]](value) == number["text"], number
        if number["form"] in _SCALES and value is not None:
            scale, digits = _SCALES[number["form"]]
            shown = float(re.sub(r"[ %,+]", "", number["text"]).replace("−", "-"))
            assert abs(shown - value * scale) <= 0.5 * 10**-digits + 1e-9, number
    for place, about in listed["endpoints"].items():
        assert about["sha256"] == digest(answers[place]), place


def _answer(client, data, place):
    if not place.startswith("view:"):
        answer = client.get(place)
        assert answer.status_code == 200, (place, answer.text)
        return answer.json()
    name, where = parsed_address(place)
    condition = " and ".join(f'"{column}" = ?' for column in where)
    (row,) = Analysis(data).database.rows(
        f'select * from "{name.removeprefix("view:")}" where {condition}', list(where.values())
    )
    return row


def test_each_answer_names_its_data_and_seed(listed, data):
    digests = Analysis(data).database.digests("toy")
    gap = listed["endpoints"]["/gap/logistic?reference=val&target=v2"]
    assert gap["digests"] == {split: digests[split] for split in ("train", "val", "v2")}
    assert gap["seed"] == 0
    view = listed["endpoints"]["view:load_report?split=val&backbone=toy"]
    assert view == {"digests": {"val": digests["val"]}, "seed": None, "sha256": view["sha256"]}
    assert (listed["format"], listed["models"]) == (1, ["logistic", "mean"])
    assert (listed["reference"], listed["target"]) == ("val", "v2")


def test_the_same_report_is_the_same_bytes(report, data):
    again = report_snapshot.toy_report(Analysis(data))
    assert again.files == report.files


def test_pdf_has_its_fonts_its_pages_and_clean_margins(report):
    content = report.files["report.pdf"]
    check_pdf(content, "report-toy")
    assert PdfReader(io.BytesIO(content)).metadata.title == "A report on toys"


def test_page_holds_all_that_it_needs_and_no_script(report):
    page = report.files["report.html"].decode()
    assert "<script" not in page
    assert not re.search(r"(src|href)=\"(?!#)", page)
    assert " style=" not in page
    assert not [tag for tag in re.findall(r"<[a-z][^>]*>", page) if re.search(r"\son\w+=", tag)]
    assert page.count("<svg") == page.count("<figure ")
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_a_job_makes_a_report_that_is_kept(client, data):
    body = {"models": ["mean"], "title_page": report_snapshot.TITLE_PAGE, "text": {"1": "Ours."}}
    asked = client.post("/reports", json=body)
    assert asked.status_code == 202
    job = asked.json()
    assert (job["kind"], job["model"], asked.headers["Location"]) == (
        "report", "mean", f"/jobs/{job['job']}"
    )  # fmt: skip
    assert client.post("/reports", json=body).json()["report"] == job["report"]  # the same one
    assert client.get(f"/reports/{job['report']}").status_code == 404
    analysis = Analysis(data)
    said = work_one(
        Jobs(data),
        lambda request, progress: (
            make_and_keep(analysis, request[REPORT], progress=progress).report
        ),
        (),
        EXPLAIN,
    )
    assert said
    assert client.get(f"/jobs/{job['job']}").json()["state"] == "done"
    card = client.get(f"/reports/{job['report']}").json()
    assert (card["models"], card["title"]) == (["mean"], "A report on toys")
    assert card in client.get("/reports").json()
    for name, kind in (("pdf", "application/pdf"), ("html", "text/html"),
                       ("json", "application/json")):  # fmt: skip
        file = client.get(f"/reports/{job['report']}/report.{name}")
        assert file.status_code == 200
        assert file.headers["content-type"].startswith(kind)
        assert len(file.content) == card["n_bytes"][f"report.{name}"]
    page = client.get(f"/reports/{job['report']}/report.html")
    assert "sandbox" in page.headers["content-security-policy"]
    assert "Ours." in page.text


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"models": ["nobody"]}, "nobody"),
        ({"models": []}, "models"),
        ({"text": {"7": "x"}}, "6 or conclusions"),
        ({"target": "train"}, "test split"),
        ({"title_page": {"authors": [{"name": "A", "id": "1", "share": 70}]}}, "add up to 100"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_what_cannot_be_reported_is_refused_at_once(client, change, said):
    answer = client.post("/reports", json={"models": ["logistic"]} | change)
    assert 400 <= answer.status_code < 500
    assert said in answer.json()["detail"]


def test_only_the_newest_are_kept(tmp_path, report):
    reports = Reports(tmp_path)
    from dataclasses import replace
    from datetime import timedelta

    for i in range(KEPT + 2):
        later = replace(report, made_at=report.made_at + timedelta(seconds=i))
        reports.keep(f"{i:012x}", later)
    kept = [card.report for card in reports.all()]
    assert len(kept) == KEPT
    assert kept[0] == f"{KEPT + 1:012x}"
    assert "0" * 12 not in kept
