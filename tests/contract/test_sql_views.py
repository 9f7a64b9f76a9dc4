"""Every view against NumPy on the toy world."""

import json
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest

from etl import load
from etl.annotations import annotate_file
from etl.database import attach, sql_files
from etl.images import link_images
from etl.moments import QUANTILES
from service.database import Database
from service.looks import Look, Looks
from tests.world import Split, write_csv


@pytest.fixture(scope="module")
def con(toy_data):
    con = duckdb.connect()
    attach(con, toy_data)
    yield con
    con.close()


def frame(con, view, **where):
    condition = " and ".join(f"{name} = '{value}'" for name, value in where.items()) or "true"
    return con.execute(f"select * from {view} where {condition}").df()


def test_split_summary(con, world):
    found = frame(con, "split_summary").set_index(["split", "backbone"])
    assert len(found) == len(world)
    for (split, backbone), rows in world.items():
        row = found.loc[(split, backbone)]
        assert (row.n_images, row.n_features) == rows.features.shape
        assert row.n_classes == len(np.unique(rows.labels))
        assert row.role == ("train" if split == "train" else "test")
        assert row.is_reference == (split == "val")


def test_labelled_image(con, world):
    found = frame(con, "labelled_image")
    assert len(found) == sum(len(world[s, "toy"].paths) for s in ("train", "val", "v2"))
    for split in ("train", "val", "v2"):
        mine = found[found.split == split].set_index("path")
        rows = world[split, "toy"]
        assert mine.loc[rows.paths, "class_id"].tolist() == rows.labels.tolist()
    assert set(found[found.role == "train"].split) == {"train"}


def test_both_backbones_share_their_images(con, world):
    for backbone in ("toy", "tiny"):
        found = con.execute(
            f"select path, split, vector from feature.{backbone} join image using (image_id)"
        ).df()
        for split in ("train", "val", "v2"):
            rows = world[split, backbone]
            mine = found[found.split == split].set_index("path").loc[rows.paths, "vector"]
            np.testing.assert_array_equal(np.stack(mine.to_list()), rows.features)


def test_class_count(con, world):
    found = frame(con, "class_count").set_index(["split", "class_id"])
    for split in ("train", "val", "v2"):
        labels = world[split, "toy"].labels
        for class_id, n in zip(*np.unique(labels, return_counts=True), strict=True):
            row = found.loc[(split, class_id)]
            assert row.n_images == n
            assert row.share_images == pytest.approx(n / len(labels))
    assert ("v2", 3) not in found.index


@pytest.mark.parametrize("backbone", ["toy", "tiny"])
@pytest.mark.parametrize("split", ["train", "val", "v2"])
def test_feature_stat(con, world, split, backbone):
    rows = world[split, backbone]
    X = rows.features.astype(float)
    found = frame(con, "feature_stat", split=split, backbone=backbone).sort_values("feature_id")
    assert found.feature_name.tolist() == [str(j) for j in range(X.shape[1])]
    assert set(found.n_images) == {len(X)}
    np.testing.assert_allclose(found.mean_value, X.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.sd_value, X.std(axis=0, ddof=1), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found.min_value, X.min(axis=0))
    np.testing.assert_allclose(found.max_value, X.max(axis=0))
    quartiles = np.quantile(X, [0.25, 0.5, 0.75], axis=0)
    np.testing.assert_allclose(found[["quartile_1", "median", "quartile_3"]].T, quartiles)
    means = np.stack([X[rows.labels == y].mean(axis=0) for y in rows.labels])
    between = ((means - X.mean(axis=0)) ** 2).sum(axis=0)
    total = ((X - X.mean(axis=0)) ** 2).sum(axis=0)
    for j, share in enumerate(found.share_between_classes):
        if total[j] == 0:
            assert pd.isna(share)  # a constant feature: null, not NaN from 0/0
        else:
            assert share == pytest.approx(between[j] / total[j])


def test_class_feature_stat(con, world):
    rows = world["val", "toy"]
    found = frame(con, "class_feature_stat", split="val", backbone="toy")
    found = found.set_index(["class_id", "feature_id"])
    for class_id in range(4):
        mine = rows.features[rows.labels == class_id].astype(float)
        for j in range(3):
            row = found.loc[(class_id, j)]
            assert row.n_images == len(mine)
            assert row.mean_value == pytest.approx(mine[:, j].mean())
            assert row.sd_value == pytest.approx(mine[:, j].std(ddof=1), abs=1e-9)
            assert (row.min_value, row.max_value) == (mine[:, j].min(), mine[:, j].max())


@pytest.mark.parametrize(("reference", "target"), [("val", "v2"), ("v2", "val"), ("train", "v2")])
def test_feature_shift(con, world, reference, target):
    R, T = (world[s, "toy"].features.astype(float) for s in (reference, target))
    found = frame(con, "feature_shift", backbone="toy", reference=reference, target=target)
    found = found.sort_values("feature_id")
    assert len(found) == 3
    pooled = np.sqrt((R.var(axis=0, ddof=1) + T.var(axis=0, ddof=1)) / 2)
    for j in range(2):
        row = found.iloc[j]
        assert row.mean_difference == pytest.approx(
            (T - R.mean(axis=0)).mean(axis=0)[j] / pooled[j]
        )
        assert row.variance_ratio == pytest.approx(T[:, j].var(ddof=1) / R[:, j].var(ddof=1))
        apart = np.abs(np.quantile(T[:, j], QUANTILES) - np.quantile(R[:, j], QUANTILES)).mean()
        assert row.quantile_shift == pytest.approx(apart / R[:, j].std(ddof=1))
    assert found.iloc[2][["mean_difference", "variance_ratio", "quantile_shift"]].isna().all()


def test_moments_are_numpys(con, world):
    rows = world["val", "toy"]
    X = rows.features.astype(float)
    found = frame(con, "class_moment", backbone="toy", split="val").set_index("class_id")
    for class_id in range(4):
        mine = X[rows.labels == class_id]
        row = found.loc[class_id]
        assert row.n_images == len(mine)
        np.testing.assert_allclose(row.mean_values, mine.mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(
            row.m2_values, ((mine - mine.mean(axis=0)) ** 2).sum(axis=0), atol=1e-12
        )
        np.testing.assert_array_equal(row.min_values, mine.min(axis=0))
        np.testing.assert_array_equal(row.max_values, mine.max(axis=0))
    total = frame(con, "feature_moment", backbone="toy", split="val").sort_values("feature_id")
    np.testing.assert_allclose(total.mean_value, X.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(
        total.m2_within + total.m2_between, ((X - X.mean(axis=0)) ** 2).sum(axis=0), atol=1e-10
    )
    np.testing.assert_allclose(total.m2_within, np.sum(found.m2_values.tolist(), axis=0))
    np.testing.assert_array_equal(total.max_value, X.max(axis=0))


def test_class_shift(con, world):
    R, T = world["val", "toy"], world["v2", "toy"]
    found = frame(con, "class_shift", backbone="toy", reference="val", target="v2")
    assert sorted(found.class_id) == [0, 1, 2]  # class 3 is not in v2

    def of(split, class_id):
        return split.features[split.labels == class_id].astype(float)

    parts = [of(split, c) for split in (R, T) for c in range(4 if split is R else 3)]
    within = sum(((x - x.mean(axis=0)) ** 2).sum(axis=0) for x in parts)
    # the third feature is constant: left out
    variance = (within / sum(len(x) - 1 for x in parts))[:2]
    for row in found.itertuples():
        r, t = of(R, row.class_id), of(T, row.class_id)
        distance = ((t.mean(axis=0) - r.mean(axis=0))[:2] ** 2 / variance).mean() ** 0.5
        assert row.rms_mean_difference == pytest.approx(distance)
        own = [x.var(axis=0, ddof=1)[:2] / variance for x in (r, t)]
        by_chance = (own[0] / len(r) + own[1] / len(t)).mean() ** 0.5
        assert row.rms_by_chance == pytest.approx(by_chance)
        assert row.variance_ratio == pytest.approx(own[1].mean() / own[0].mean())


def test_class_shift_by_chance_is_what_no_shift_shows(tmp_path):
    """Two draws of one world, with a class twice as wide, a class of one image, a dead feature."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(9), [20] * 8 + [1])
    for split in ("val", "v2"):
        features = rng.normal(size=(161, 200)) * np.where(labels == 5, 2, 1)[:, None]
        features[:, 0] = 0
        features[0, 0] = 1e-4 if split == "val" else 1.0
        paths = [f"{split}/{i}" for i in range(161)]
        write_csv(tmp_path / f"{split}_x.csv", Split(paths, labels, features.astype(np.float32)))
    load(tmp_path / "data", [tmp_path])
    found = Database(tmp_path / "data").rows("select * from class_shift order by class_id")
    ratios = [row["rms_mean_difference"] / row["rms_by_chance"] for row in found]
    assert len(ratios) == 18
    assert min(ratios) > 0.8
    assert max(ratios) < 1.25


def test_model(con, toy_data):
    found = frame(con, "model").set_index("model")
    assert sorted(found.index) == ["logistic", "mean"]
    card = json.loads((toy_data / "results" / "logistic" / "model.json").read_text())
    row = found.loc["logistic"]
    assert (row.backbone, row["head"], row.n_train) == ("toy", "logistic", 48)
    assert json.loads(row.params) == card["params"]
    assert row.validation_top1 == card["validation"]["top1"]["estimate"]


def test_candidate(con, toy_data):
    found = frame(con, "candidate")
    assert set(found.model) == {"logistic", "mean"}
    for model, mine in found.groupby("model"):
        card = json.loads((toy_data / "results" / model / "model.json").read_text())
        rows = mine.drop(columns="model").to_dict("records")
        rows = [{**row, "params": json.loads(row["params"])} for row in rows]
        assert sorted(map(str, rows)) == sorted(map(str, card["validation"]["candidates"]))


def test_candidates_of_an_old_card_have_neither_head_nor_params(tmp_path, toy_csv):
    load(tmp_path / "data", [toy_csv], n_threads=1)
    tried = [{"value": v, "top1": v / 2, "nll": 1.0, "temperature": 1.5} for v in (0.5, 1.0)]
    for model, validation in (
        ("old", {"method": "m", "top1": {}, "candidates": tried}),
        ("given", None),
    ):
        folder = tmp_path / "data" / "results" / model
        folder.mkdir()
        (folder / "model.json").write_text(json.dumps({"model": model, "validation": validation}))
    found = Database(tmp_path / "data").rows("select * from candidate order by top1")
    assert [(row["model"], row["top1"], row["nll"], row["temperature"]) for row in found] == [
        ("old", 0.25, 1.0, 1.5), ("old", 0.5, 1.0, 1.5)]  # fmt: skip
    for name in ("head", "params", "n_fit", "note"):
        assert {row[name] for row in found} == {None}


def test_prediction_class_score_and_class_gap(con, toy_data, world):
    head_of = Database(toy_data)
    found = frame(con, "prediction", model="logistic")
    assert len(found) == 35
    assert not set(found.split) - set(head_of.digests("toy"))
    accuracy = {}
    for split in ("val", "v2"):
        mine = found[found.split == split].set_index("path")
        rows = world[split, "toy"]
        assert mine.loc[rows.paths, "class_id"].tolist() == rows.labels.tolist()
        right = mine.predicted_class_id == mine.class_id
        assert (right == mine.is_correct).all()
        np.testing.assert_allclose(np.exp(-mine.nll[right]), mine.confidence[right])
        accuracy[split] = right.groupby(mine.class_id).mean()
    scores = frame(con, "class_score", model="logistic").set_index(["split", "class_id"])
    gaps = frame(con, "class_gap", model="logistic", reference="val", target="v2")
    assert sorted(gaps.class_id) == [0, 1, 2]
    for row in gaps.itertuples():
        c = row.class_id
        assert scores.loc[("val", c)].accuracy == pytest.approx(accuracy["val"][c])
        assert row.gap == pytest.approx(accuracy["val"][c] - accuracy["v2"][c])


def test_evaluation(con):
    found = frame(con, "evaluation", model="logistic").set_index(["split", "metric"])
    assert len(found) == 8
    predictions = frame(con, "prediction", model="logistic")
    for split in ("val", "v2"):
        mine = predictions[predictions.split == split]
        row = found.loc[(split, "top1")]
        assert row.estimate == pytest.approx(mine.is_correct.mean())
        assert row.low < row.estimate < row.high
        assert found.loc[(split, "nll")].estimate == pytest.approx(mine.nll.mean())
        assert pd.isna(found.loc[(split, "top5")].estimate)
        assert "six classes" in found.loc[(split, "top5")].reason


@pytest.fixture(scope="module")
def known(tmp_path_factory, toy_csv, world):
    """The toy world with files of val (one missing, one twice), a number and a text a val image."""
    folder = tmp_path_factory.mktemp("known")
    load(folder / "data", [toy_csv], n_threads=1)
    paths = world["val", "toy"].paths
    for i, path in enumerate(paths[1:]):
        file = folder / "images" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x" * i)
    for copy in ("a", "b"):
        (folder / "images" / copy / paths[1]).parent.mkdir(parents=True)
        (folder / "images" / copy / paths[1]).touch()
    (folder / "images" / paths[1]).unlink()
    table = pd.DataFrame({"split": "val", "path": paths, "size": np.arange(20.0) ** 2})
    table["kind"] = ["old", "new", "new", ""] * 5
    table.loc[19, "size"] = np.nan
    table.to_csv(folder / "seen by hand.csv", index=False)
    annotate_file(folder / "data", folder / "seen by hand.csv", name="by-hand.v1")
    link_images(folder / "data", [folder / "images"])
    return folder, table


@pytest.fixture(scope="module")
def known_con(known):
    con = duckdb.connect()
    attach(con, known[0] / "data")
    yield con
    con.close()


def test_annotation(known, known_con, world):
    found = frame(known_con, "annotation", split="val")
    assert set(found.source) == {"by-hand.v1"}
    rows, table = world["val", "toy"], known[1].set_index("path")
    size = found[found["name"] == "size"].set_index("path")
    assert size.value.to_dict() == table["size"].dropna().to_dict()
    assert size.category.isna().all()
    assert size.loc[rows.paths[:19], "class_id"].tolist() == rows.labels[:19].tolist()
    kind = found[found["name"] == "kind"].set_index("path")
    assert kind.category.to_dict() == table["kind"][table["kind"] != ""].to_dict()
    assert kind.value.isna().all()
    ids = known_con.execute("select image_id, path from image where split = 'val'").df()
    assert size.image_id.to_dict() == ids.set_index("path").image_id[size.index].to_dict()
    assert len(frame(known_con, "annotation")) == len(found)


def test_annotation_summary(known, known_con):
    found = frame(known_con, "annotation_summary").set_index("name")
    assert sorted(found.index) == ["kind", "size"]
    size = known[1]["size"].dropna()
    row = found.loc["size"]
    assert (row.source, row.split, row.n_images, row.share_images) == (
        "by-hand.v1", "val", 19, 19 / 20)  # fmt: skip
    assert row.mean_value == pytest.approx(size.mean())
    assert row.sd_value == pytest.approx(size.std())
    assert (row.min_value, row.max_value, row.n_categories) == (0, 18**2, 0)
    row = found.loc["kind"]
    assert (row.n_images, row.share_images, row.n_categories) == (15, 0.75, 2)
    assert row[["mean_value", "sd_value", "min_value", "max_value"]].isna().all()


def test_image_file(known, known_con, world):
    found = frame(known_con, "image_file").set_index(["split", "path"])
    assert len(found) == sum(len(world[s, "toy"].paths) for s in ("train", "val", "v2"))
    paths = world["val", "toy"].paths
    val = found.loc["val"]
    assert val.loc[paths[0], "status"] == "missing"
    assert val.loc[paths[1], "status"] == "ambiguous"
    assert val.loc[paths[:2], ["root", "file", "size_bytes"]].isna().all(axis=None)
    for i, path in enumerate(paths[2:], start=1):
        row = val.loc[path]
        assert (row.status, row.file, row.size_bytes) == ("found", path, i)
        assert row.root == str((known[0] / "images").resolve())
    assert set(found.loc["train"].status) == set(found.loc["v2"].status) == {"missing"}


def test_image_file_summary(known_con):
    found = frame(known_con, "image_file_summary").set_index("split")
    assert found.loc["val"].to_dict() == {
        "n_images": 20, "n_found": 18, "n_missing": 1, "n_ambiguous": 1,
        "size_bytes": sum(range(1, 19)),
    }  # fmt: skip
    assert found.loc["train"].tolist() == [48, 0, 48, 0, 0]


def test_an_empty_results_folder_is_no_error(tmp_path, toy_csv):
    load(tmp_path, [toy_csv / "val_toy.csv"])
    con = duckdb.connect()
    attach(con, tmp_path)
    views = ("model", "prediction", "evaluation", "class_score", "class_gap", "annotation",
        "annotation_summary", "seal")  # fmt: skip
    for view in views:
        assert con.execute(f"select count(*) from {view}").fetchall() == [(0,)]
    assert con.execute("select distinct status from image_file").fetchall() == [("missing",)]


def test_every_view_is_tested_here():
    text = Path(__file__).read_text(encoding="utf-8")
    for file in sql_files():
        name = file.stem[3:]
        if not file.name.startswith("0"):
            assert f"def test_{name}" in text or f'"{name}"' in text, name


def test_test_look(tmp_path, toy_csv):
    data = tmp_path / "data"
    load(data, [toy_csv], n_threads=1)
    con = duckdb.connect()
    attach(con, data)
    assert con.execute("select count(*) from test_look").fetchall() == [(0,)]
    Looks(data).record(Look("m", "gap"), "val", 20)
    Looks(data).record(Look(None, "sql"), None, None)
    with (data / "results" / "looks.jsonl").open("a") as file:
        file.write('{"looked_at": "20')  # as a full disk leaves it
    found = con.execute(
        "select model, split, purpose, n_labels from test_look where purpose is not null "
        "order by purpose"
    ).fetchall()
    assert found == [("m", "val", "gap", 20), (None, None, "sql", None)]
    assert con.execute("select typeof(looked_at) from test_look").fetchall()[0] == ("TIMESTAMP",)
    con.close()


def test_hypothesis(tmp_path, toy_csv):
    from service.analysis import Analysis
    from service.hypotheses.schemas import HypothesisIn
    from service.hypotheses.testing import Hypotheses

    data = tmp_path / "data"
    load(data, [toy_csv], n_threads=1)
    analysis = Analysis(data)
    analysis.train(model="m", backbone="toy", head="logistic", params={"C": 1.0}, seed=0)
    con = duckdb.connect()
    attach(con, data)
    assert con.execute("select count(*) from hypothesis").fetchall() == [(0,)]
    hypotheses = Hypotheses(analysis)
    made = [
        hypotheses.register(
            HypothesisIn(title=kind, cause="c", baseline="m", refinement={"kind": kind})
        )
        for kind in ("stronger_penalty", "averaging")
    ]
    tested = hypotheses.test(made[0].id)
    found = con.execute(
        "select hypothesis_id, title, refinement, family, gap_change, target_change, p_value, "
        "scored_at is null from hypothesis"
    ).fetchall()
    con.close()
    change = tested.result.paired["v2"].change.estimate
    assert found == [
        (made[0].id, "stronger_penalty", "stronger_penalty", "primary",
         tested.result.gap_change.estimate, change, tested.result.p_value, False),
        (made[1].id, "averaging", "averaging", "primary", None, None, None, True),
    ]  # fmt: skip
