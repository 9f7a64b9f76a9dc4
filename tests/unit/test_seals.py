"""Seals: predicted before labels are read, stored for good, opened by an evaluation."""

import json
import shutil
from datetime import datetime

import duckdb
import pytest
from fastapi.testclient import TestClient

from etl import load
from etl.database import attach
from service import cli
from service.analysis import Analysis
from service.app import create_app
from service.errors import (
    AlreadySeen,
    ImportedModel,
    NotATest,
    NotFound,
    RecordChanged,
    SealWanted,
)
from service.looks import Look, Looks
from service.sealing import evaluate_sealed, seal
from service.seals import Seals
from service.settings import Settings
from tests.contract.test_charts import rows_of
from tests.world import N, make_world, write_world


@pytest.fixture(scope="module")
def fresh(tmp_path_factory, toy_csv):
    """A data folder with two models that nobody has evaluated."""
    data = tmp_path_factory.mktemp("fresh") / "data"
    load(data, [toy_csv], n_threads=1)
    analysis = Analysis(data)
    analysis.train(model="a", backbone="toy", head="nearest_mean", params={}, seed=0)
    analysis.train(model="b", backbone="toy", head="lda", params={"shrinkage": 0.1}, seed=0)
    return data


@pytest.fixture
def data(fresh, tmp_path):
    return shutil.copytree(fresh, tmp_path / "data")


def labels_read(data, model, split):
    return [
        look["purpose"]
        for look in Looks(data).all()
        if (look["model"], look["split"]) == (model, split)
    ]


def test_a_seal_reads_no_label_of_its_target_and_an_evaluation_opens_it(data):
    analysis = Analysis(data)
    made = seal(analysis, "a")
    assert (made.reference, made.target, made.n_looks_before) == ("val", "v2", 0)
    assert labels_read(data, "a", "v2") == []
    assert labels_read(data, "a", "val") == ["seal"]
    assert (made.truth, made.covered) == (None, None)
    assert "was not evaluated on 'v2' yet" in made.not_opened
    known = [one for one in made.methods if one.predicted.estimate is not None]
    assert [one.name for one in known] == ["ATC, confidence", "ATC, entropy", "DoC", "CBPE"]
    assert made.predicted.estimate == pytest.approx(
        sum(one.predicted.estimate for one in known) / 4
    )
    assert made.methods[-1].name == "line"
    assert made.methods[-1].predicted.reason
    assert made.predicted.n == {"val": N["val"], "v2": N["v2"]}
    scores = analysis.evaluate("a").splits
    opened = Seals(data).one(made.seal)
    assert opened.truth.estimate == scores["v2"].top1.estimate
    assert opened.reference_accuracy.estimate == scores["val"].top1.estimate
    assert opened.covered == (
        made.predicted.low <= scores["v2"].top1.estimate <= made.predicted.high
    )
    assert opened.not_opened is None
    same = {"truth", "covered", "not_opened"}
    assert opened.model_dump(exclude=same) == made.model_dump(exclude=same)


def test_other_labels_of_the_target_do_not_change_what_is_predicted(data, tmp_path):
    found = []
    for shift in (0, 1):
        world = make_world()
        rows = world["v2", "toy"]
        object.__setattr__(rows, "labels", (rows.labels + shift) % 3)
        csv = write_world(tmp_path / f"csv{shift}", world)
        (csv / "v2_tiny.csv").unlink()  # it has the true ones
        load(tmp_path / f"data{shift}", [csv], n_threads=1)
        shutil.copytree(data / "results" / "a", tmp_path / f"data{shift}" / "results" / "a")
        found.append(seal(Analysis(tmp_path / f"data{shift}"), "a"))
    one, other = found
    assert one.data_sha256["v2"] != other.data_sha256["v2"]
    assert one.predicted == other.predicted
    assert one.methods == other.methods


def test_what_was_evaluated_is_not_sealed(data):
    analysis = Analysis(data)
    analysis.evaluate("a")
    with pytest.raises(AlreadySeen, match="on which 'a' was evaluated"):
        seal(analysis, "a")
    # the same head under another name
    analysis.train(model="c", backbone="toy", head="nearest_mean", params={}, seed=0)
    with pytest.raises(AlreadySeen, match="'a', which has the same head"):
        seal(analysis, "c")
    made = seal(analysis, "b")  # another head
    assert made.n_looks_before == 1
    assert Seals(data).broken() is None


def test_what_was_looked_at_is_not_sealed(data):
    analysis = Analysis(data)
    seal(analysis, "a", target="val", reference="v2")
    with pytest.raises(AlreadySeen, match=r"was read with 'a' on .* for seal"):
        seal(analysis, "a", target="v2")
    Looks(data).record(Look("b", "evaluate"), "v2", 15)  # as an evaluation that was killed
    with pytest.raises(AlreadySeen, match="for evaluate"):
        seal(analysis, "b")


def test_what_is_sealed_is_not_sealed_again(data):
    made = seal(Analysis(data), "a")
    with pytest.raises(AlreadySeen, match=f"sealed on .* as {made.seal}"):
        seal(Analysis(data), "a")
    assert len(Seals(data).all().seals) == 1


def test_a_model_of_backbones_side_by_side_is_sealed(data):
    analysis = Analysis(data)
    analysis.train(model="both", backbone="toy+tiny", head="lda", params={}, seed=0)
    made = seal(analysis, "both")
    assert made.n_looks_before == 0
    analysis.evaluate("both")
    assert Seals(data).one(made.seal).truth is not None


def test_wrong_ends_are_refused(data):
    analysis = Analysis(data)
    for ends, error in (
        (("train", None), NotATest), (("val", "val"), NotATest), (("none", None), NotFound),
    ):  # fmt: skip
        with pytest.raises(error):
            seal(analysis, "a", *ends)
    with pytest.raises(NotFound):
        seal(analysis, "none")
    with pytest.raises(NotFound, match="id of a seal"):
        Seals(data).one("0" * 12)
    with pytest.raises(ImportedModel, match="imported with their labels"):
        Seals(data).ends({"model": "m", "backbone": None}, None, None)
    assert Looks(data).all() == []


def test_other_data_of_the_same_name_do_not_open_a_seal_and_can_be_sealed(data, tmp_path):
    analysis = Analysis(data)
    made = seal(analysis, "a")
    analysis.evaluate("a")
    changed = write_world(tmp_path / "changed", make_world(seed=1))
    for name in ("train_toy", "val_toy", "train_tiny", "val_tiny", "v2_tiny"):
        (changed / f"{name}.csv").unlink()
    first = write_world(tmp_path / "first", make_world())
    for name in ("v2_toy", "v2_tiny"):
        (first / f"{name}.csv").unlink()
    load(data, [first, changed], n_threads=1, replace=True)
    again = seal(analysis, "a")
    assert again.data_sha256["val"] == made.data_sha256["val"]
    assert again.data_sha256["v2"] != made.data_sha256["v2"]
    assert Seals(data).one(made.seal).covered is not None  # the evaluation is of its data
    assert "on other data" in Seals(data).one(again.seal).not_opened
    analysis.evaluate("a")
    assert "on other data" in Seals(data).one(made.seal).not_opened
    assert Seals(data).one(again.seal).covered is not None


def test_another_model_of_the_name_does_not_open_a_seal(data):
    analysis = Analysis(data)
    made = seal(analysis, "a")
    shutil.rmtree(data / "results" / "a")
    assert "no longer here" in Seals(data).one(made.seal).not_opened
    analysis.train(model="a", backbone="toy", head="ridge", params={"alpha": 1.0}, seed=0)
    analysis.evaluate("a")
    assert "another model" in Seals(data).one(made.seal).not_opened


def test_the_running_coverage_counts_opened_seals(data):
    found = Seals(data).all()
    assert (found.n_opened, found.coverage.reason) == (0, "no seal was opened yet")
    assert found.summary == ["0 seals, none opened yet."]
    analysis = Analysis(data)
    for model in ("a", "b"):
        seal(analysis, model)
    analysis.evaluate("a")
    found = Seals(data).all()
    assert [one.model for one in found.seals] == ["b", "a"]
    assert (found.n_opened, found.n_covered) == (1, int(found.seals[1].covered))
    assert found.coverage.n == {"seals": 1}
    assert found.summary[0].startswith("2 seals, 1 opened")
    assert found.head == found.seals[0].sha256


@pytest.mark.parametrize("trained_anew", [False, True])
def test_an_opened_seal_whose_answer_was_removed_is_counted(data, trained_anew):
    """Else whoever deletes the models that missed has a better coverage."""
    analysis = Analysis(data)
    for model in ("a", "b"):
        seal(analysis, model)
    assert Seals(data).all().n_lost == 0
    for model in ("a", "b"):
        analysis.evaluate(model)
    shutil.rmtree(data / "results" / "a")
    if trained_anew:
        analysis.train(model="a", backbone="toy", head="nearest_mean", params={}, seed=0)
    found = Seals(data).all()
    assert (found.n_opened, found.n_lost) == (1, 1)
    assert "1 more was opened and the answer removed" in found.summary[-1]


def test_a_changed_record_is_told_and_nothing_is_judged_by_it(data):
    analysis = Analysis(data)
    made = seal(analysis, "a")
    analysis.evaluate("a")
    file = data / "results" / "seals.jsonl"
    record = json.loads(file.read_text())
    record["content"]["predicted"]["low"] = 0.123
    file.write_text(json.dumps(record) + "\n")
    assert "line 1 (seal)" in Seals(data).broken()
    found = Seals(data).all()
    assert (found.seals, found.n_opened, found.head) == ([], 0, None)
    assert "were changed" in found.summary[0]
    with pytest.raises(RecordChanged):
        Seals(data).one(made.seal)
    with pytest.raises(RecordChanged):
        seal(analysis, "b")
    with pytest.raises(RecordChanged):
        Analysis(data, strict=True).evaluate("b")


def test_strict_wants_a_seal_before_labels(data):
    strict = Analysis(data, strict=True)
    for read in (strict.evaluate, strict.gap):
        with pytest.raises(SealWanted, match="gapscope seal a --target v2"):
            read("a")
    with pytest.raises(SealWanted, match="'v2'"):  # the reference would be read unsealed
        seal(strict, "a", target="val", reference="v2")
    assert Looks(data).all() == []
    seal(strict, "a")
    assert strict.evaluate("a").gap is not None
    assert strict.evaluate("a").gap is not None  # scored: nothing is read
    with pytest.raises(SealWanted):
        strict.evaluate("b")
    Analysis(data, strict=False).evaluate("b")
    assert strict.evaluate("b").gap is not None


def test_the_demo_seals_where_seals_are_demanded(data):
    for strict, model in ((True, "a"), (False, "b")):
        evaluate_sealed(Analysis(data, strict=strict), model)
    assert [(one.model, one.not_opened) for one in Seals(data).all().seals] == [("a", None)]
    assert Analysis(data).results.evaluation("b")


def test_strict_is_a_setting(data, monkeypatch, capsys):
    monkeypatch.setenv("GAP_DATA", str(data))
    assert not Analysis(data).strict
    assert cli.main(["evaluate", "a", "--strict"]) == 2
    assert "refused (seal_wanted)" in capsys.readouterr().err
    monkeypatch.setenv("GAP_STRICT", "1")
    assert Analysis(data).strict
    assert cli.main(["evaluate", "a"]) == 2
    with TestClient(create_app(Settings(data=data), with_worker=False)) as client:
        answer = client.post("/evaluate", json={"model": "a"})
        assert (answer.status_code, answer.json()["code"]) == (409, "seal_wanted")
        answer = client.get("/gap/a/without_labels?wait=true")
        assert (answer.status_code, answer.json()["code"]) == (409, "seal_wanted")


def test_by_http(data):
    with TestClient(create_app(Settings(data=data), with_worker=False)) as client:
        answer = client.get("/seals/chart")
        assert (answer.status_code, answer.json()["code"]) == (409, "nothing_to_draw")
        answer = client.post("/seals", json={"model": "a", "target": "v2"})
        assert answer.status_code == 201, answer.text
        assert client.get(answer.headers["location"]).json() == answer.json()
        (look,) = client.get("/looks").json()
        assert (look["purpose"], look["who"]) == ("seal", "service (testclient)")
        client.post("/seals", json={"model": "b"})
        client.post("/evaluate", json={"model": "a"})
        found = client.get("/seals").json()
        assert "NaN" not in client.get("/seals").text
        answer = client.post("/seals", json={"model": "a", "target": "v2"})
        assert (answer.status_code, answer.json()["code"]) == (409, "already_seen")
        assert client.get("/seals/none").status_code == 404
        rows = rows_of(client.get("/seals/chart").json())
        assert [(r["seal"], r["estimate"], r["low"], r["high"], r["covered"]) for r in rows] == [
            (s["seal"], *(s["predicted"][k] for k in ("estimate", "low", "high")), s["covered"])
            for s in found["seals"]
        ]
        truths = [s["truth"] and s["truth"]["estimate"] for s in found["seals"]]
        assert [r["truth"] for r in rows] == truths
        assert truths[0] is None
        assert truths[1] is not None
        assert "<svg" in client.get("/seals/chart?format=svg").text


def test_on_the_command_line(data, monkeypatch, capsys):
    monkeypatch.setenv("GAP_DATA", str(data))
    assert cli.main(["seals"]) == 0
    assert capsys.readouterr().out == "0 seals, none opened yet.\n"
    assert cli.main(["seal", "a", "--target", "v2"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("a on v2: ")
    assert "not opened: 'a' was not evaluated on 'v2' yet" in said
    assert "note: No method that sees no label" in said
    assert cli.main(["seal", "a"]) == 2
    assert cli.main(["evaluate", "a"]) == 0
    assert cli.main(["seal", "b", "--json"]) == 0
    capsys.readouterr()
    assert cli.main(["seals"]) == 0
    head, b, a, summary = capsys.readouterr().out.splitlines()
    assert head.split()[:2] == ["seal", "model"]
    assert "was not evaluated" in b
    assert a.endswith(("yes", "no"))
    assert summary.startswith("2 seals, 1 opened")
    assert cli.main(["seals", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["n_opened"] == 1


def test_the_view_says_what_the_service_says(data):
    con = duckdb.connect()
    attach(con, data)
    assert con.execute("select count(*) from seal").fetchall() == [(0,)]
    analysis = Analysis(data)
    for model in ("a", "b"):
        seal(analysis, model)
    analysis.evaluate("a")
    with (data / "results" / "seals.jsonl").open("a") as file:
        file.write('{"added_at": "20')  # as a full disk leaves it
    found = con.execute(
        "select seal, sealed_at, model, target, predicted, low, high, truth, is_covered, "
        "data_sha256 from seal order by sealed_at desc"
    ).fetchall()
    con.close()
    with (data / "results" / "seals.jsonl").open("r+") as file:
        file.truncate(file.seek(0, 2) - len('{"added_at": "20'))
    assert [(*row[:9], row[9]) for row in found] == [
        (
            one.seal, one.sealed_at, one.model, one.target, one.predicted.estimate,
            one.predicted.low, one.predicted.high, one.truth and one.truth.estimate, one.covered,
            one.data_sha256["v2"],
        )
        for one in Seals(data).all().seals
    ]  # fmt: skip
    assert isinstance(found[0][1], datetime)
