"""A self-test asked for, computed by a job, kept, drawn, and told beside each finding."""

import json
import time

import numpy as np
import pandas as pd
import pytest
from fastapi.testclient import TestClient

from etl import load
from etl.annotations import annotate_file
from service.analysis import Analysis
from service.app import create_app
from service.cli import main
from service.gap.error_rates import ExplainerOut, RateOut, SelfTestOut, in_words
from service.gap.explaining import Question
from service.gap.findings import explained_gap
from service.gap.inputs import ChosenInputs, PlantedInputs, Sides
from service.jobs import OPEN
from service.selftest import RELABELLING
from service.settings import Settings
from tests.world import Split, write_csv

N = {"train": 400, "val": 300, "v2": 100}
D = 6


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Four classes, of which hard images are told by `sure`; v2 has the harder ones."""
    folder = tmp_path_factory.mktemp("selftest")
    rng = np.random.default_rng(0)
    annotations = []
    for split, n in N.items():
        labels = np.arange(n) % 4
        hard = rng.random(n) ** (1 if split == "v2" else 3)
        x = rng.normal(size=(n, D)) + (2.5 - 2 * hard[:, None]) * np.eye(4, D)[labels]
        paths = [f"{split}/{i}.png" for i in range(n)]
        write_csv(folder / "csv" / f"{split}_toy.csv", Split(paths, labels, x.astype("float32")))
        if split != "train":
            annotations += [(split, path, 1 - h) for path, h in zip(paths, hard, strict=True)]
    pd.DataFrame(annotations, columns=["split", "path", "sure"]).to_csv(folder / "people.csv")
    load(folder / "data", [folder / "csv"], n_threads=1)
    annotate_file(folder / "data", folder / "people.csv", name=None, split=None)
    Analysis(folder / "data").train(
        model="m", backbone="toy", head="nearest_mean", params={}, seed=0
    )
    return folder / "data"


def test_a_self_test_is_computed_by_a_job_and_told_beside_findings(data):
    with TestClient(create_app(Settings(data=data))) as client:
        assert client.get("/selftest/m").status_code == 404
        assert client.get("/selftest/m/chart").status_code == 404
        asked = client.post("/selftest", json={"model": "m", "budget_s": 2, "seed": 1})
        assert asked.status_code == 202
        assert asked.json()["kind"] == "selftest"
        job = asked.headers["Location"]
        assert client.get("/selftest/m").status_code == 202
        while client.get(job).json()["state"] in OPEN:
            time.sleep(0.1)
        assert client.get(job).json()["state"] == "done", client.get(job).json()
        found = client.get("/selftest/m").json()
        assert found["n_placebos"] >= 1
        assert found["seed"] == 1
        told = {one["explainer"]: one for one in found["explainers"]}
        assert {"ledger", "classes", "features", "difficulty", "slices", "overlap"} <= set(told)
        for one in found["explainers"]:
            rate = one["false_alarm"]
            assert rate["low"] <= rate["rate"] <= rate["high"]
            assert rate["n"] == found["n_placebos"]
        causes = {row["cause"] for row in told["ledger"]["power"]}
        assert {"selection by sure", "label noise"} <= causes
        assert {row["cause"] for row in told["classes"]["power"]} == {RELABELLING}
        spec = client.get("/selftest/m/chart").json()
        drawn = [row for rows in spec["datasets"].values() for row in rows if "low" in row]
        assert {row["name"] for row in drawn} == set(told)
        assert client.get("/selftest/m/chart?format=svg").text.startswith("<svg")
        gap = client.get("/gap/m").json()
        assert gap["findings"]
        for finding in gap["findings"]:
            assert finding["false_alarm"] == told[finding["part"]]["false_alarm"]
            assert finding["trust"] == told[finding["part"]]["sentence"]
        assert "splits without any cause" in client.get("/?model=m").text


def test_the_command_prints_the_table(data, capsys, monkeypatch):
    monkeypatch.setenv("GAP_DATA", str(data))
    assert main(["selftest", "m", "--budget-s", "1"]) == 0
    printed = capsys.readouterr().out
    for words in ("false alarms", "label noise", "ledger", "placebos"):
        assert words in printed
    assert main(["gap", "m"]) == 0
    assert "self-test: " in capsys.readouterr().out


def test_an_explainer_with_too_many_false_findings_is_marked(data):
    rate = RateOut(rate=0.2, low=0.1, high=0.3, n=60)
    bad = ExplainerOut(
        explainer="ledger", false_alarm=rate, trusted=False, sentence="", false_findings={},
        power=[], seconds_s=None,
    )  # fmt: skip
    bad = bad.model_copy(update={"sentence": in_words(bad)})
    answer = SelfTestOut(
        model="m", reference="val", created_at="2026-01-01T00:00:00Z", seed=0, budget_s=1,
        seconds_s=1, n_placebos=60, n_plantings=0, n_images={}, explainers=[bad], left_out=[],
        summary=[],
    )  # fmt: skip
    analysis = Analysis(data)
    question = Question(analysis, "m", None, None)
    question.compute(only="ledger")
    parts = {"ledger": question.answer("ledger")}
    gap = explained_gap(analysis.gap("m", None, None), parts, answer)
    (finding, *_) = [one for one in gap.findings if one.part == "ledger"]
    assert finding.trusted is False
    assert "untrustworthy here" in finding.trust
    plain = explained_gap(analysis.gap("m", None, None), parts)
    assert {one.trusted for one in plain.findings} == {None}
    json.loads(gap.model_dump_json())


def test_planted_labels_and_features_are_what_explainers_read(data):
    whole = Question(Analysis(data), "m", None, None).inputs(lambda _share, _message: None)
    rows = Sides(np.arange(0, 100), np.arange(100, 180))
    of = Sides("reference", "reference")
    own = ChosenInputs(whole, rows, of=of)
    same = PlantedInputs(whole, rows, of=of)
    assert same.correct.target.tolist() == own.correct.target.tolist()
    assert same.confidence.target == pytest.approx(own.confidence.target)
    other = (own.labels.target + 1) % 4
    labels = PlantedInputs(whole, rows, of=of, labels=other)
    assert labels.labels.target.tolist() == other.tolist()
    assert labels.correct.target.tolist() == (other == own.predicted.target).tolist()
    assert labels.labels.reference.tolist() == own.labels.reference.tolist()
    moved = own.features.target + np.float32(3)
    shifted = PlantedInputs(whole, rows, of=of, features=moved)
    assert shifted.features.target is moved
    assert shifted.scores.target.argmax(axis=1).tolist() == shifted.predicted.target.tolist()
    assert shifted.labels.target.tolist() == own.labels.target.tolist()


def test_chosen_images_never_change_what_is_kept_of_the_whole(data):
    """Nearest rows of halves come from the search for the whole."""
    question = Question(Analysis(data), "m", None, None)
    whole = question.inputs(lambda _share, _message: None)
    chosen = ChosenInputs(whole, Sides(np.arange(10), np.arange(10, 30)),
                          of=Sides("reference", "reference"))  # fmt: skip
    _, near = chosen.near_train(lambda _share, _message: None)
    _, known = whole.near_train(lambda _share, _message: None)
    assert near.target.found.distance.tolist() == known.reference.found.distance[10:30].tolist()
    assert len(chosen.near_tests(lambda _share, _message: None).distance) == 30
    assert len(whole.near_tests(lambda _share, _message: None).distance) == N["val"] + N["v2"]
