"""Heads that were not trained here, and the three gaps, from the command line and by HTTP."""

import json
import shutil

import duckdb
import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from safetensors.torch import save_file
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import confint_proportions_2indep

from etl import load
from etl.database import attach
from models import heads
from models.heads.foreign import fit_sklearn, sklearn_head
from models.torchvision_guard import import_torchvision
from service import cli
from service.analysis import Analysis
from service.app import create_app
from service.errors import DataChanged, TestWasTrained
from service.looks import Look
from service.settings import Settings
from tests.world import Split, write_csv


@pytest.fixture
def data(tmp_path, toy_data, monkeypatch):
    """A copy of the toy world's folder with its two models: logistic, mean."""
    folder = tmp_path / "data"
    shutil.copytree(toy_data, folder)
    monkeypatch.setenv("GAP_DATA", str(folder))
    return folder


def client(data):
    return TestClient(create_app(Settings(data=data), with_worker=False))


def head_file(file, k=4, d=3):
    """Weights under which feature 0 votes for class 0, 1 for 1, neither for 2."""
    weight = torch.zeros(k, d)
    weight[0, 0] = weight[1, 1] = 1.0
    bias = torch.zeros(k)
    bias[2] = 1.0
    save_file({"head.weight": weight, "head.bias": bias}, file)
    return file


def imported(tmp_path, name="native", **options):
    file = head_file(tmp_path / "head.safetensors", **options)
    assert cli.main(["import-head", "toy", str(file), "--name", name]) == 0
    return name


def test_a_given_head_is_evaluated_and_explained_like_a_trained_one(data, tmp_path, world, capsys):
    imported(tmp_path)
    said = capsys.readouterr().out
    assert "native: 4 classes, 3 features, from head.weight, head.bias" in said
    assert "learnt from is unknown" in said
    assert cli.main(["evaluate", "native"]) == 0
    assert cli.main(["gap", "native"]) == 0
    with client(data) as service:
        card = service.get("/models/native").json()
        assert (card["head"], card["n_train"], card["validation"]) == ("native", None, None)
        assert card["given"]["learnt_from"].startswith("unknown")
        assert card["given"]["weight"] == ["head.weight"]
        found = service.post("/evaluate", json={"model": "native"}).json()
        for split in ("val", "v2"):
            rows = world[split, "toy"]
            one = np.ones(len(rows.labels))
            scores = np.stack([*rows.features[:, :2].T, one, 0 * one], axis=1)
            expected = (scores.argmax(axis=1) == rows.labels).mean()
            assert found["splits"][split]["top1"]["estimate"] == pytest.approx(expected)
        gap = service.get("/gap/native").json()
        assert gap["gap"] == found["gap"]["top1"]
        # weights of the features in scores per train sd, although they were given per unit
        sd = world["train", "toy"].features.astype(float).std(axis=0)
        weight = {f["feature_id"]: f["head_weight"] for f in gap["features"]}
        norm = np.sqrt(0.75)
        assert weight[0] == pytest.approx(norm * sd[0], rel=0.02)
        assert weight[2] == 0
        one = service.post("/predict", json={"model": "native", "features": [[9, 0, 7]]}).json()
        assert one["classes"] == [0]
        page = service.get("/?model=native").text
        assert "weights given" in page
        assert "Three gaps" in page
        assert service.get("/models").status_code == 200
    con = duckdb.connect()
    attach(con, data)
    query = "select head, n_train, validation_top1, seed from model where model = 'native'"
    assert con.execute(query).fetchall() == [("native", None, None, None)]
    con.close()


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_the_head_of_a_whole_timm_checkpoint(tmp_path, monkeypatch, capsys, suffix):
    import_torchvision()
    import timm

    monkeypatch.setenv("GAP_DATA", str(tmp_path / "data"))
    torch.manual_seed(0)
    network = timm.create_model("resnet18", pretrained=False)
    file = tmp_path / f"resnet18.{suffix}"
    if suffix == "pth":
        torch.save(network.state_dict(), file)
    else:
        save_file(network.state_dict(), file)
    rng = np.random.default_rng(0)
    splits = {}
    for split, n in (("train", 12), ("val", 8), ("v2", 6)):
        paths, labels = [f"{split}/{i}.png" for i in range(n)], np.arange(n) % 3
        splits[split] = Split(paths, labels, rng.normal(size=(n, 512)).astype(np.float32))
        write_csv(tmp_path / "csv" / f"{split}_resnet18.csv", splits[split])
    assert cli.main(["load", str(tmp_path / "csv")]) == 0
    assert cli.main(["import-head", "resnet18", str(file), "--name", "native"]) == 0
    said = capsys.readouterr().out
    assert "1,000 classes, 512 features, from fc.weight, fc.bias" in said
    assert "the head has 1,000 columns, the database classes up to 2" in said
    head = Analysis(tmp_path / "data").results.head("native")
    X = splits["val"].features
    with torch.no_grad():
        expected = network.fc(torch.from_numpy(X))
    np.testing.assert_allclose(heads.scores(head, X), expected, atol=1e-5)
    assert cli.main(["evaluate", "native"]) == 0


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["none", "FILE", "--name", "n"], "not_found"),
        (["toy", "FILE", "--name", "mean"], "model_exists"),
        (["toy", "FILE", "--name", "../n"], "bad_name"),
        (["tiny", "FILE", "--name", "n"], "bad_head_file"),
        (["toy", "SMALL", "--name", "n"], "bad_head_file"),
        (["toy", "missing.pth", "--name", "n"], "bad_head_file"),
        (["toy", "FILE", "--name", "n", "--weight", "fc.weight"], "bad_head_file"),
    ],
)
def test_what_is_no_head_of_this_backbone_is_refused(data, tmp_path, capsys, arguments, code):
    files = {
        "FILE": head_file(tmp_path / "head.safetensors"),
        "SMALL": head_file(tmp_path / "small.safetensors", k=3),
    }
    assert cli.main(["import-head", *(str(files.get(a, a)) for a in arguments)]) == 2
    said = capsys.readouterr().err
    assert f"refused ({code})" in said
    if "SMALL" in arguments:
        assert "a column for each class up to 3" in said
    assert not (data / "results" / "n").exists()


def test_a_head_between_two_others(data, tmp_path, world, capsys):
    imported(tmp_path)
    arguments = ["interpolate", "logistic", "native", "--alpha", "0.25", "--name", "between"]
    assert cli.main(arguments) == 0
    assert "0.75 · logistic + 0.25 · native; learnt from 48 train rows" in capsys.readouterr().out
    results = Analysis(data).results
    X = world["val", "toy"].features
    one, other, between = (
        heads.scores(results.head(m), X) for m in ("logistic", "native", "between")
    )
    np.testing.assert_allclose(between, 0.75 * one + 0.25 * other, atol=1e-5)
    with client(data) as service:
        card = service.get("/models/between").json()
        assert (card["head"], card["params"]) == ("interpolated", {"alpha": 0.25})
        assert (card["n_train"], card["validation"]) == (48, None)
        origin = card["interpolated"]
        assert (origin["model_a"], origin["model_b"]) == ("logistic", "native")
        assert "48 train rows" in origin["learnt_from"]
        assert "what native learnt from is unknown" in origin["learnt_from"]
        assert card["train_sha256"] == service.get("/models/logistic").json()["train_sha256"]
        body = {"model_a": "mean", "model_b": "between", "name": "more"}
        answer = service.post("/interpolate", json=body)
        assert answer.status_code == 201
        assert answer.headers["location"] == "/models/more"
        assert answer.json()["params"] == {"alpha": 0.5}
        assert "what between learnt from is unknown" in answer.json()["interpolated"]["learnt_from"]
        assert service.get("/gap/more").status_code == 200
        assert "between logistic and native" in service.get("/?model=more").text
        for change, status, code in (
            ({}, 409, "model_exists"),
            ({"name": "x", "model_a": "none"}, 404, "not_found"),
            ({"name": "x", "alpha": 1.5}, 422, "invalid_request"),
            ({"name": "x", "alpha": -0.1}, 422, "invalid_request"),
        ):
            refused = service.post("/interpolate", json={**body, **change})
            assert (refused.status_code, refused.json()["code"]) == (status, code)
    assert cli.main(["interpolate", "mean", "native", "--alpha", "nan", "--name", "x"]) == 2
    assert "refused (invalid_params)" in capsys.readouterr().err


def test_heads_that_cannot_be_one_are_refused(data, world, capsys):
    analysis = Analysis(data)
    rows = world["train", "toy"]
    mean, scale = rows.features.mean(axis=0, dtype=float), np.ones(3)
    X = (rows.features - mean).astype(np.float32)
    fitted = fit_sklearn("GaussianNB", {}, X, rows.labels.astype(np.int64), seed=0)
    head = sklearn_head(fitted, mean, scale, np.arange(4), X)
    card = analysis.results.card("mean")
    card |= {"model": "bayes", "head": "sklearn:GaussianNB"}
    card["params"] = {"var_smoothing": 1e-9, "priors": None, "x": "text"}
    analysis.results.save_model(card, head, analysis.results.train_rows("mean"))
    # a head of scikit-learn, stored and read back, is a model like any other
    with client(data) as service:
        assert service.get("/gap/bayes").status_code == 200
        assert "sklearn:GaussianNB" in service.get("/?model=bayes").text
    assert cli.main(["interpolate", "mean", "bayes", "--name", "x"]) == 2
    assert "wanted two linear heads, got 'bayes' of kind sklearn:GaussianNB" in (
        capsys.readouterr().err
    )
    analysis.train(model="tiny", backbone="tiny", head="lda", params={}, seed=0)
    assert cli.main(["interpolate", "mean", "tiny", "--name", "x"]) == 2
    assert "refused (heads_differ): wanted two heads on one backbone" in capsys.readouterr().err


def test_a_damaged_head_of_scikit_learn_is_named(data, world):
    analysis = Analysis(data)
    rows = world["train", "toy"]
    fitted = fit_sklearn("GaussianNB", {}, rows.features, rows.labels.astype(np.int64), seed=0)
    head = sklearn_head(fitted, np.zeros(3), np.ones(3), np.arange(4), rows.features)
    analysis.results.save_model(
        analysis.results.card("mean") | {"model": "bayes"},
        head,
        analysis.results.train_rows("mean"),
    )
    from safetensors.numpy import load_file
    from safetensors.numpy import save_file as save

    file = data / "results" / "bayes" / "head.safetensors"
    arrays = load_file(file)
    arrays["estimator"] = np.frombuffer(b"\x80\x04cos\nsystem\n.", np.uint8)
    what = {"type": "sklearn", "name": "GaussianNB", "temperature": 1.0, "version": "1.9"}
    save(arrays, file, {"gapscope": json.dumps(what)})
    with pytest.raises(DataChanged, match="as it was stored"):
        analysis.results.head("bayes")


def test_what_either_head_learnt_from_is_never_the_test_of_what_lies_between(data, tmp_path, world):
    imported(tmp_path)
    analysis = Analysis(data)
    analysis.interpolate("native", "logistic", alpha=0.5, name="between")
    analysis.interpolate("native", "between", alpha=0.5, name="further")
    train = world["train", "toy"]
    few = Split(train.paths[:10], train.labels[:10], train.features[:10])
    for model in ("between", "further"):
        assert analysis.results.learnt_from(model, train.paths).all()
        assert not analysis.results.learnt_from(model, world["val", "toy"].paths).any()
    assert not analysis.results.learnt_from("native", train.paths).any()
    files = {"val": write_csv(tmp_path / "val.csv", few),
             "v2": write_csv(tmp_path / "v2.csv", world["v2", "toy"])}  # fmt: skip
    load(data, [], explicit=[f"{s}:toy={f}" for s, f in files.items()], replace=True)
    for model in ("between", "further"):
        with pytest.raises(TestWasTrained):
            analysis.evaluate(model)
    analysis.evaluate("native")


def test_the_three_gaps(data, tmp_path, capsys):
    analysis = Analysis(data)
    imported(tmp_path)
    capsys.readouterr()
    # nothing is looked at before it was evaluated
    found = analysis.gaps("native")
    assert found.replication.reason == "not evaluated yet"
    assert found.memorisation.estimate is None
    assert found.retraining_reason == "this is a native head itself"
    first = analysis.gaps("mean")
    assert {row.difference.reason for row in first.retraining} == {"native: not evaluated yet"}
    assert not (data / "results" / "native" / "evaluation.json").exists()
    scores = analysis.evaluate("native")
    assert scores.gaps.replication == scores.gap.top1
    assert "no internal validation" in scores.gaps.memorisation.reason
    with client(data) as service:
        card = service.get("/models/mean").json()
        gaps = card["gaps"]
        assert service.post("/evaluate", json={"model": "mean"}).json()["gaps"] == gaps
        page = service.get("/?model=mean").text
    top1 = card["validation"]["top1"]
    accuracy = analysis.evaluate("mean").splits
    (n,) = top1["n"].values()
    k = round(top1["estimate"] * n)
    k1, k2 = (round(accuracy[s].top1.estimate * accuracy[s].n) for s in ("val", "v2"))
    for name, ends in (("memorisation", (k, n, k1, 20)), ("replication", (k1, 20, k2, 15))):
        low, high = confint_proportions_2indep(*ends, method="newcomb", compare="diff")
        gap = ends[0] / ends[1] - ends[2] / ends[3]
        found = [gaps[name][key] for key in ("estimate", "low", "high")]
        assert found == pytest.approx([gap, low, high], abs=1e-6)
    assert gaps["memorisation"]["n"] == {"internal validation": n, "val": 20}
    differ = 0
    for split, n in (("val", 20), ("v2", 15)):
        native, mean = (
            analysis.results.predictions(m, split, look=Look(None, "evaluate"))
            .to_pandas()
            .set_index("path")
            .is_correct
            for m in ("native", "mean")
        )
        b, c = int((native & ~mean).sum()), int((~native & mean).sum())
        differ += b != c
        (row,) = [row for row in gaps["retraining"] if row["split"] == split]
        assert (row["n_native_only"], row["n_retrained_only"]) == (b, c)
        assert row["p_value"] == pytest.approx(mcnemar([[0, b], [c, 0]], exact=True).pvalue)
        assert row["difference"]["estimate"] == pytest.approx((b - c) / n)
        assert row["difference"]["n"] == {split: n}
    assert differ
    assert cli.main(["gaps", "mean"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said == gaps["summary"]
    assert said[0].startswith("internal validation → val: ")
    assert "points (95 % interval" in said[1]
    assert "native → mean on v2: " in said[3]
    assert "McNemar's exact p" in said[3]
    assert "internal validation → val: " in page
    assert cli.main(["gaps", "mean", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == gaps


def test_gaps_without_a_native_head_or_after_a_change_say_so(data, tmp_path, world):
    analysis = Analysis(data)
    assert "import-head" in analysis.gaps("mean").retraining_reason
    other = Split(world["val", "toy"].paths, world["val", "toy"].labels,
                  world["val", "toy"].features + 1)  # fmt: skip
    file = write_csv(tmp_path / "val.csv", other)
    load(data, [], explicit=[f"val:toy={file}"])
    found = analysis.gaps("mean")
    assert "evaluate it again" in found.memorisation.reason
    assert "evaluate it again" in found.replication.reason
    (data / "gap.duckdb").unlink()
    found = analysis.gaps("mean")
    assert "wanted a database" in found.replication.reason
    assert found.reference is None


def test_gaps_of_an_imported_model(data, tmp_path, world):
    rows = []
    for split in ("val", "v2"):
        of = world[split, "toy"]
        lines = [f"{p},{y},{y if i % 3 else (y + 1) % 3}" for i, (p, y) in enumerate(
            zip(of.paths, of.labels, strict=True))]  # fmt: skip
        file = tmp_path / f"{split}.csv"
        file.write_text("\n".join(["path,label,top1", *lines]))
        rows.append(f"{split}={file}")
    assert cli.main(["import-predictions", "--model", "far", *rows]) == 0
    found = Analysis(data).gaps("far")
    assert found.replication.estimate == pytest.approx(13 / 20 - 10 / 15)
    assert "no internal validation" in found.memorisation.reason
    assert "reads no backbone" in found.retraining_reason
