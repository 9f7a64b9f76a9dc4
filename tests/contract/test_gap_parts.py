"""Every part of /gap answers, is kept, and is drawn from its own numbers."""

import json
import re
import shutil
from pathlib import Path
from threading import BoundedSemaphore
from typing import get_args

import pytest
from fastapi.testclient import TestClient
from pydantic import BaseModel

from etl import load
from service import charts, queueing
from service.analysis import Analysis
from service.app import create_app
from service.database import Database
from service.gap import PARTS
from service.gap.inputs import Inputs
from service.lines import Lines
from service.results import Results
from service.schemas import EstimateOut
from service.settings import Settings

README = (Path(__file__).parent.parent.parent / "README.md").read_text(encoding="utf-8")


def flat(answer):
    """All numbers and texts in an answer, however deep."""
    if isinstance(answer, dict):
        return [x for value in answer.values() for x in flat(value)]
    if isinstance(answer, list):
        return [x for value in answer for x in flat(value)]
    return [answer]


@pytest.mark.parametrize("part", list(PARTS))
def test_a_part_answers_and_its_charts_show_its_numbers(client, part):
    answer = client.get(f"/gap/logistic/{part}")
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert (body["model"], body["reference"], body["target"]) == ("logistic", "val", "v2")
    assert body["summary"]
    numbers = {x for x in flat(body) if isinstance(x, float)}
    for name in PARTS[part].charts:
        answered = client.get(f"/gap/logistic/chart/{name}")
        if answered.status_code == 409:
            assert answered.json()["code"] == "nothing_to_draw"
            continue
        spec = answered.json()
        rows = [row for rows in spec["datasets"].values() for row in rows if "at" not in row]
        drawn = {x for row in rows for x in row.values() if isinstance(x, float)}
        assert drawn <= numbers, f"{name} shows numbers that {part} has not"
        svg = client.get(f"/gap/logistic/chart/{name}?format=svg")
        assert svg.text.startswith("<svg")


def numbers_of(kind):
    """Names of the fields of an answer that hold numbers with a fraction, however deep."""
    found = {name for inner in get_args(kind) for name in numbers_of(inner)}
    if kind is not EstimateOut and isinstance(kind, type) and issubclass(kind, BaseModel):
        for name, field in kind.model_fields.items():
            inner = str(field.annotation)
            found |= {name} if "float" in inner or "EstimateOut" in inner else set()
            found |= numbers_of(field.annotation)
    return found


@pytest.mark.parametrize("part", list(PARTS))
def test_the_readme_says_what_each_number_means(part):
    section = README.split("## What each number means")[1].split("\n## ")[0]
    # what says nothing without the name of what it stands in
    plain = {"low", "high", "reference", "target", "value", "annotations", "seconds_s"}
    named = numbers_of(PARTS[part].answer) - plain
    assert {name for name in named if f"`{name}`" not in section} == set()


def test_an_answer_is_kept_and_found_again(client):
    first = client.get("/gap/logistic/ledger").content
    assert client.get("/gap/logistic/ledger").content == first


def test_the_ledger_sums_to_the_gap(client):
    found = client.get("/gap/logistic/ledger").json()
    total = sum(term["estimate"] or 0.0 for term in found["terms"])
    assert abs(total - found["gap"]["estimate"]) < 1e-9
    assert found["terms"][-1]["name"] == "rest"


def test_an_answer_that_is_not_ready_is_202_with_its_job(toy_data, tmp_path, monkeypatch):
    data = tmp_path / "data"
    shutil.copytree(toy_data, data, ignore=shutil.ignore_patterns("gap"))
    with TestClient(create_app(Settings(data=data))) as client:
        asked = client.get("/gap/logistic/ledger")
        assert asked.status_code == 202
        job = asked.json()["job"]
        assert asked.headers["Location"] == f"/jobs/{job}"
        again = client.get("/gap/logistic/ledger")
        assert again.status_code == 202
        assert again.json()["job"] == job
        with monkeypatch.context() as patch:
            patch.setitem(queueing._WAITING, "GET", BoundedSemaphore(0))
            refused = client.get("/gap/logistic/ledger?wait=true")
            assert (refused.status_code, refused.json()["code"]) == (503, "too_many_wait")
            assert refused.headers["Retry-After"] == "5"
            assert client.get("/models").status_code == 200
        held = client.get("/gap/logistic/ledger?wait=true")
        assert held.status_code == 200
        assert json.loads(held.content)["terms"]


def test_superclasses_come_with_the_class_names_and_go_with_them(toy_csv, tmp_path):
    data, names = tmp_path / "data", tmp_path / "names.csv"
    names.write_text("label,name,superclass\n0,cat,pet\n1,dog,pet\n2,owl,bird\n3,ant,\n")
    load(data, [toy_csv], classes=names, n_threads=1)
    Analysis(data).train(model="m", backbone="toy", head="nearest_mean", params={}, seed=0)
    with TestClient(create_app(Settings(data=data), with_worker=False)) as client:
        found = client.get("/gap/m/classes").json()
        groups = {one["name"]: one for one in found["superclasses"]}
        assert {name: one["n_classes"] for name, one in groups.items()} == {"pet": 2, "bird": 1}
        assert found["superclasses_reason"] is None
        assert {one["class_name"]: one["superclass"] for one in found["classes"]} == {
            "cat": "pet", "dog": "pet", "owl": "bird", "ant": None,
        }  # fmt: skip
        drawn = client.get("/gap/m/chart/superclasses?format=svg")
        assert drawn.text.startswith("<svg")
        names.write_text("cat\ndog\nowl\nant\n")
        load(data, [toy_csv], classes=names, n_threads=1)
        found = client.get("/gap/m/classes").json()
        assert found["superclasses"] == []
        assert "superclass" in found["superclasses_reason"]
        assert client.get("/gap/m/chart/superclasses").json()["code"] == "nothing_to_draw"


def test_the_classes_answer_has_what_the_gap_has(client):
    found, gap = client.get("/gap/logistic/classes").json(), client.get("/gap/logistic").json()
    assert found["gap"] == gap["gap"]
    for one, other in zip(found["classes"], gap["classes"], strict=True):
        assert (one["class_id"], one["shrunken"]) == (other["class_id"], other["shrunken"])
        assert (one["p_exceeds"], one["q_common_gap"]) == (other["p_exceeds"], other["q_value"])
    absent = next(one for one in found["classes"] if one["class_id"] == 3)  # not in v2
    assert (absent["raw"], absent["q_equality"], absent["q_prediction"]) == (None, None, None)
    assert "one split alone" in absent["verdict"]


def test_difficulty_knows_where_images_lie_among_the_train_rows(client):
    found = client.get("/gap/logistic/difficulty").json()
    names = [one["name"] for one in found["covariates"]]
    assert names[:5] == [*("confidence", "margin", "entropy", "norm"), "similarity to a class mean"]
    assert names[5] == "distance to train"
    assert found["left_out"][0] == "hubness: 48 train rows, and 100 are wanted"
    for one in found["covariates"]:
        assert one["difference"]["low"] < one["difference"]["estimate"] < one["difference"]["high"]


def kept(data, model="logistic"):
    """What is kept of each part: content and time of writing."""
    files = (data / "results" / model / "gap").glob("*/*.json")
    return {file.stem: (file.read_bytes(), file.stat().st_mtime_ns) for file in files}


def test_another_model_outdates_only_the_parts_that_read_other_models(toy_data, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(toy_data, data, ignore=shutil.ignore_patterns("gap"))
    wanted = ("line", "without_labels", "difficulty", "classes", "ledger")
    with TestClient(create_app(Settings(data=data), with_worker=False)) as client:
        for part in wanted:
            assert client.get(f"/gap/logistic/{part}").status_code == 200
        before = kept(data)
        analysis = Analysis(data)
        analysis.train(model="lda", backbone="toy", head="lda", params={}, seed=0)
        analysis.evaluate("lda")
        assert "lda" in {one["name"] for one in client.get("/gap/logistic/line").json()["models"]}
        for part in wanted[1:]:
            client.get(f"/gap/logistic/{part}")
    after = kept(data)
    assert set(after) == set(before) == set(wanted)  # each once: what was outdated is swept
    for part in wanted:
        assert (after[part] == before[part]) == ("models" not in PARTS[part].reads), part


def test_a_part_reads_what_it_declares_and_nothing_else(toy_data, tmp_path, monkeypatch):
    data = tmp_path / "data"
    shutil.copytree(toy_data, data, ignore=shutil.ignore_patterns("gap"))
    analysis, read = Analysis(data), set()
    analysis.evaluate("logistic")
    card = analysis.results.card("logistic")

    def noted(owner, name, kind):
        found = getattr(owner, name)

        def call(*arguments):
            read.add(kind)
            return found(*arguments)

        monkeypatch.setattr(owner, name, call)

    noted(Results, "models", "models")
    noted(Lines, "between", "lines")
    noted(Inputs, "has_near_train", "neighbours")
    noted(Database, "image_ids", "loads")
    for part in PARTS.values():
        read.clear()
        inputs = Inputs(analysis.database, analysis.results, card, "val", "v2")
        part.compute(inputs, lambda _share, _message: None)
        assert read == set(part.reads), part.name


def test_charts_are_read_without_knowing_their_fields(client):
    drawn = {
        name: client.get(f"/gap/logistic/chart/{name}?format=svg").text
        for name in ("ledger", "class_scatter", "line", "reliability", "without_labels")
    }
    assert ">points of the gap (95 % interval)</text>" in drawn["ledger"]
    assert "%</text>" not in drawn["ledger"]  # points have no percent sign
    for name, words in (("class_scatter", "differs between the splits"), ("line", "this model")):
        assert words in drawn[name]
        assert ">others</text>" in drawn[name]
        assert ">true</text>" not in drawn[name]
    assert ">logistic</text>" in drawn["line"]  # few points are all named
    assert re.search(r">\d+%</text>", drawn["line"])  # accuracies, not their probits
    assert ">50%</text>" in drawn["reliability"]
    assert re.search(r">\d+%</text>", drawn["without_labels"])
    nothing = client.get("/gap/logistic/chart/labels")
    assert nothing.json()["code"] == "nothing_to_draw"


def test_a_chart_says_what_it_does_not_show():
    rows = [{"name": str(i), "estimate": 0.1, "low": 0.0, "high": 0.2} for i in range(50)]
    made = charts.forest(rows, title="Gaps", x_title="points")
    assert made["title"]["text"] == "Gaps; the first 40 of 50"
