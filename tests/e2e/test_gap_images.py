"""Second opinions, lists of images and copies, through the service."""

import json

import numpy as np
import pandas as pd
import pytest
from fastapi.testclient import TestClient

from etl import load
from etl.annotations import annotate_file
from service import neighbours
from service.analysis import Analysis
from service.app import create_app
from service.importing import import_predictions
from service.settings import Settings
from tests.unit.test_leaks import mixture, noisy
from tests.world import Split, write_csv

LIST = "/gap/m/images/list"
N = {"train": 600, "val": 150, "v2": 100}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Copies: val 0-4 altered in train, v2 5 equal in train, val 10-12 on v2, val 20 = val 21."""
    folder = tmp_path_factory.mktemp("images")
    rows = mixture(0, sum(N.values()), d=24)
    rng, splits, start = np.random.default_rng(0), {}, 0
    for split, n in N.items():
        labels = rng.integers(3, size=n)
        features = (rows[start : start + n] + labels[:, None] * 0.2).round(4).astype(np.float32)
        splits[split] = Split([f"{split}/{i}.png" for i in range(n)], labels, features)
        start += n
    train, val, v2 = splits.values()
    train.features[:5] = noisy(val.features[:5], 1e-4)
    train.features[7] = v2.features[5]
    v2.features[:3] = val.features[10:13]
    val.features[21] = val.features[20]
    for split, told in splits.items():
        write_csv(folder / "csv" / f"{split}_deep.csv", told)
    load(folder / "data", [folder / "csv"], n_threads=1)
    analysis = Analysis(folder / "data")
    for model in ("m", "second"):
        analysis.train(model=model, backbone="deep", head="nearest_mean", params={}, seed=0)
    votes = pd.DataFrame({"path": val.paths + v2.paths})
    votes["human_agreement"] = np.linspace(0.3, 1, len(votes))
    votes.to_csv(folder / "votes.csv", index=False)
    annotate_file(folder / "data", folder / "votes.csv", name=None, split=None)
    sets, labels = pd.DataFrame({"path": val.paths}), val.labels.tolist()
    sets["real_labels"] = [
        f"{c} {(c + 1) % 3}" if i % 2 else f"{c}" for i, c in enumerate(val.labels)
    ]
    sets.loc[::10, "real_labels"] = None
    sets["n_real_labels"] = [1 + i % 2 if i % 10 else 0 for i in range(len(sets))]
    sets.to_csv(folder / "real.csv", index=False)
    annotate_file(folder / "data", folder / "real.csv", name=None, split=None)
    for split, told in (("val", val), ("v2", v2)):
        answers = pd.DataFrame({"path": told.paths, "label": told.labels, "top1": 0})
        answers.to_csv(folder / f"{split}.csv", index=False)
    import_predictions(
        folder / "data", {s: folder / f"{s}.csv" for s in ("val", "v2")}, model="zeros"
    )
    return folder / "data"


@pytest.fixture
def client(data):
    with TestClient(create_app(Settings(data=data), with_worker=False)) as client:
        yield client


def listed(client, **query):
    answer = client.get(LIST, params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_the_kinds_are_what_they_say(client):
    parts = {one["kind"]: one for one in client.get("/gap/m/images").json()["kinds"]}
    assert parts["all"]["n"] == 250
    whole = listed(client, per_page=200)["images"] + listed(client, per_page=200, page=2)["images"]
    assert [(i["split"], i["path"]) for i in whole] == [
        (s, f"{s}/{k}.png") for s in ("val", "v2") for k in range(N[s])
    ]
    rows = listed(client, kind="twins", per_page=200)["images"]
    assert (
        parts["twins"]["n"]
        == len(rows)
        == sum(not i["correct"] for i in whole if i["split"] == "v2")
    )
    by_path = {i["path"]: i for i in whole}
    for row in rows:
        twin = by_path[row["twin"]["path"]]
        assert (row["split"], row["correct"], twin["correct"]) == ("v2", False, True)
        assert twin["label"] == row["label"] == row["twin"]["label"]
    similar = [row["twin"]["similarity"] for row in rows]
    assert similar == sorted(similar, reverse=True)
    sure = listed(client, kind="confident_errors", per_page=200)["images"]
    assert [i["confidence"] for i in sure] == sorted((i["confidence"] for i in sure), reverse=True)
    assert not any(i["correct"] or i["confidence"] < 0.5 for i in sure)
    close = listed(client, kind="ambiguous", per_page=200)["images"]
    assert [i["margin"] for i in close] == sorted(i["margin"] for i in close)
    assert all(i["margin"] < np.log(2) for i in close)
    assert parts["ambiguous"]["images"] == close[:24]
    # copies on the other split are each other's nearest
    assert by_path["v2/0.png"]["nearest"]["path"] == "val/10.png"
    assert by_path["val/10.png"]["nearest"]["similarity"] == pytest.approx(1, abs=1e-5)


def test_conditions_orders_and_pages(client):
    where = "split = v2 and correct = false and human_agreement > .8"
    found = listed(client, where=where, order="margin desc", per_page=5)
    every = listed(client, where=where, order="margin desc", per_page=200)
    assert found["images"] == every["images"][:5]
    assert found["n"] == every["n"] == len(every["images"]) > 5
    margins = [i["margin"] for i in every["images"]]
    assert margins == sorted(margins, reverse=True)
    assert all(
        i["split"] == "v2" and not i["correct"] and i["annotations"]["human_agreement"] > 0.8
        for i in every["images"]
    )
    assert listed(client, where=where, page=99)["images"] == []
    assert listed(client, where="path like 'val/1_.png'")["n"] == 10


@pytest.mark.parametrize(
    "query",
    [
        {"where": "1=1"},
        {"where": "label = 1; drop table image"},
        {"where": "secret = 1"},
        {"order": "secret"},
        {"kind": "none"},
        {"page": 0},
        {"per_page": 201},
    ],
)
def test_what_is_none_is_refused(client, query):
    answer = client.get(LIST, params=query)
    assert answer.status_code == 422
    assert answer.headers["content-type"].startswith("application/problem+json")
    if "where" in query or "order" in query:
        assert answer.json()["code"] == "bad_filter"
        assert "wanted" in answer.json()["detail"]


def test_reading_a_list_again_is_no_new_look(client, data):
    listed(client)
    before = (data / "results" / "looks.jsonl").read_text()
    listed(client, where="correct = false")
    assert (data / "results" / "looks.jsonl").read_text() == before


def test_copies_are_found_and_left_out(client):
    found = client.get("/gap/m/leaks").json()
    kinds = {one["kind"]: one for one in found["kinds"]}
    assert (kinds["train"]["n_equal"], kinds["train"]["n_near"]) == (1, 5)
    assert kinds["train"]["n_left_out"] == {"val": 5, "v2": 1}
    assert kinds["across"]["n_left_out"] == {"val": 3, "v2": 3}
    assert kinds["within"]["n_left_out"] == {"val": 1, "v2": 0}
    assert found["without_all"]["n_left_out"] == {"val": 9, "v2": 4}
    assert found["without_all"]["accuracy"]["val"]["n"] == {"val": 141}
    assert found["n_pairs"] == len(found["pairs"]) == 6 + 3 + 1
    equal = {(p["path"], p["other_path"]) for p in found["pairs"] if p["is_equal"]}
    assert equal == {
        ("v2/5.png", "train/7.png"),
        ("val/20.png", "val/21.png"),
        *((f"val/{10 + i}.png", f"v2/{i}.png") for i in range(3)),
    }
    near = {(p["path"], p["other_path"]) for p in found["pairs"] if not p["is_equal"]}
    assert near == {(f"val/{i}.png", f"train/{i}.png") for i in range(5)}
    whole, rest = found["everything"]["gap"], found["without_all"]["gap"]
    assert whole["n"] == {"val": 150, "v2": 100}
    assert rest["n"] == {"val": 141, "v2": 96}
    assert rest["low"] < rest["estimate"] < rest["high"]
    assert found["reason"] is None


def test_the_search_is_kept_for_all_models_of_the_backbone(client, data, monkeypatch):
    first = client.get("/gap/m/leaks").json()
    assert len(list((data / "neighbours").glob("*.parquet"))) == 4

    def never(*_, **__):
        raise AssertionError("searched again")

    monkeypatch.setattr(neighbours, "nearest_with_sample", never)
    monkeypatch.setattr(neighbours, "nearest", never)
    second = client.get("/gap/second/leaks").json()
    assert second["pairs"] == first["pairs"]
    # the other way round nothing is searched but among the test rows, whose order differs
    monkeypatch.undo()
    turned = client.get("/gap/m/leaks?reference=v2&target=val").json()
    assert turned["n_pairs"] == first["n_pairs"]
    gap = first["everything"]["gap"]["estimate"]
    assert turned["everything"]["gap"]["estimate"] == pytest.approx(-gap)


def test_second_opinions(client):
    found = client.get("/gap/m/labels").json()
    of = {one["name"]: one for one in found["opinions"]}
    real, votes = of["real"], of["human_agreement"]
    assert real["one_set_only"]
    assert real["splits"]["v2"] is None
    mine = real["splits"]["val"]
    assert (mine["n_known"], mine["n_dropped"]) == (150, 15)
    assert mine["share_several"] == pytest.approx(0.5)
    assert mine["share_label_outside"] == 0
    assert real["gap_judged"]["estimate"] is None
    assert "one set only" in real["gap_judged"]["reason"]
    assert "one set only" in " ".join(found["summary"])
    assert not votes["one_set_only"]
    assert votes["splits"]["v2"]["n_dropped"] == 0
    gone = found["gap"]["estimate"] - votes["gap_judged"]["estimate"]
    assert votes["gap_gone"]["estimate"] == pytest.approx(gone)


def test_predictions_alone_tell_what_they_can(client):
    images = client.get("/gap/zeros/images").json()
    assert {one["kind"]: one["n"] for one in images["kinds"]} == {
        "twins": None, "confident_errors": None, "ambiguous": None, "all": 250,
    }  # fmt: skip
    assert all(one["reason"] for one in images["kinds"] if one["n"] is None)
    assert client.get("/gap/zeros/images/list?where=correct = true").json()["n"] > 0
    leaks = client.get("/gap/zeros/leaks").json()
    assert leaks["kinds"] == []
    assert "features" in leaks["reason"]
    labels = client.get("/gap/zeros/labels").json()
    assert len(labels["opinions"]) == 2
    for answer in (images, leaks, labels):
        assert "NaN" not in json.dumps(answer)
        assert answer["summary"]


def test_without_opinions_the_reason_is_said(toy_data):
    with TestClient(create_app(Settings(data=toy_data), with_worker=False)) as client:
        found = client.get("/gap/logistic/labels").json()
        assert found["opinions"] == []
        assert "gapscope annotate --real" in found["reason"]
        leaks = client.get("/gap/logistic/leaks").json()
        assert "too few" in leaks["kinds"][0]["reason"]  # three features tell nothing
