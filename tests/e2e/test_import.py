"""Predictions of models that were trained elsewhere, from the command line to /gap."""

import json
import shutil
import subprocess
import time

import duckdb
import numpy as np
import pandas as pd
import pytest
from fastapi.testclient import TestClient
from statsmodels.stats.proportion import confint_proportions_2indep

from etl import load
from etl.database import attach
from etl.errors import Leak
from service import charts, cli
from service.app import create_app
from service.database import Database
from service.errors import DataChanged
from service.looks import Look
from service.results import Results
from service.settings import Settings
from tests.e2e.server import GAPSCOPE, environment
from tests.world import SHARED, Split, write_csv

LOOK = Look(None, "evaluate")

REAL = SHARED / "imagenet_v2"


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A data folder of its own, and files of predictions beside it."""
    monkeypatch.setenv("GAP_DATA", str(tmp_path / "data"))
    return tmp_path


def predictions(n=40, n_classes=8, seed=0, split="val", **columns):
    """Rows with path, label and five classes; the first is right for three of four."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % n_classes
    order = np.argsort(rng.random((n, n_classes)), axis=1)
    first = np.where(rng.random(n) < 0.75, labels, (labels + 1) % n_classes)
    rest = [[c for c in row if c != top][:4] for row, top in zip(order, first, strict=True)]
    table = pd.DataFrame({"path": [f"{split}/{y}/{i}.png" for i, y in enumerate(labels)]})
    table["label"], table["top1"] = labels, first
    for j in range(4):
        table[f"top{j + 2}"] = [row[j] for row in rest]
    table["confidence"] = rng.random(n).round(3)
    return table.assign(**columns)


def written(file, table):
    table.to_parquet(file) if file.suffix == ".parquet" else table.to_csv(file, index=False)
    return file


def run(*arguments):
    return cli.main(["import-predictions", *map(str, arguments)])


def imported(place, model="far", **tables):
    tables = tables or {"val": predictions(), "v2": predictions(30, seed=1, split="v2")}
    files = [f"{s}={written(place / f'{s}.csv', table)}" for s, table in tables.items()]
    assert run("--model", model, *files, "--replace") == 0
    return tables


def client(place):
    return TestClient(create_app(Settings(data=place / "data"), with_worker=False))


def test_a_database_is_made_and_every_endpoint_answers(place, capsys):
    tables = imported(place)
    said = capsys.readouterr().out
    right = {split: int((t.top1 == t.label).sum()) for split, t in tables.items()}
    assert f"far: accuracy on val {right['val'] / 40:.2%}, v2 {right['v2'] / 30:.2%}" in said
    with client(place) as service:
        splits = {row["split"]: row for row in service.get("/splits").json()}
        assert {s: (r["role"], r["backbone"], r["n_images"]) for s, r in splits.items()} == {
            "val": ("test", None, 40),
            "v2": ("test", None, 30),
        }
        assert splits["val"]["is_reference"]
        (card,) = service.get("/models").json()
        one = service.get("/models/far").json()
        assert one.pop("gaps")["replication"]["reason"] is None
        assert card == one
        assert (card["head"], card["backbone"], card["validation"]) == ("imported", None, None)
        assert card["imported"]["learnt_from"].startswith("unknown")
        assert card["imported"]["splits"]["v2"]["n_new"] == 30
        found = service.post("/evaluate", json={"model": "far"}).json()
        for split, table in tables.items():
            scores, top = found["splits"][split], table[[f"top{i}" for i in range(1, 6)]]
            assert scores["top1"]["estimate"] == right[split] / len(table)
            in_top5 = (top.to_numpy() == table.label.to_numpy()[:, None]).any(axis=1)
            assert scores["top5"]["estimate"] == in_top5.mean()
            assert 0 <= scores["ece"]["low"] <= scores["ece"]["estimate"]
            assert scores["nll"]["estimate"] is None
            assert "probability of the true class" in scores["nll"]["reason"]
        assert service.post("/evaluate", json={"model": "far"}).json() == found
        only = service.post("/evaluate", json={"model": "far", "splits": ["v2"]}).json()
        assert list(only["splits"]) == ["v2"]
        gap = service.get("/gap/far?top=3").json()
        assert gap["gap"] == found["gap"]["top1"]
        for name in ("backbone", "n_features", "features", "class_shift"):
            assert gap[name] is None
        assert gap["features_reason"] == "an imported model has no features here"
        assert gap["features_reason"] in gap["summary"][-1]
        for name in charts.CHARTS:
            status = service.get(f"/gap/far/chart/{name}").status_code
            assert status == (409 if name in ("features", "class_shift") else 200)
        refused = service.get("/gap/far/chart/features").json()
        assert (refused["code"], "no features here" in refused["detail"]) == ("no_features", True)
        for path in ("loss", "leaderboard"):
            refused = service.get(f"/models/far/chart/{path}").json()
            assert (refused["status"], refused["code"]) == (409, "nothing_to_draw")
            assert "trained elsewhere" in refused["detail"]
        asked = service.post("/predict", json={"model": "far", "features": [[0.0]]})
        assert (asked.status_code, asked.json()["code"]) == (409, "imported_model")
        for path in ("/gap/far?target=train", "/gap/far?target=none"):
            assert service.get(path).status_code == 404
        assert service.get("/gap/far?target=val&reference=val").status_code == 422
        page = service.get("/?model=far").text
        assert "trained elsewhere" in page
        for shown in ("/view/far/classes", "/view/far/images", "/view/far/features"):
            assert service.get(shown).status_code == 200
        assert service.get("/annotations").json() == []
    for command in (["evaluate", "far"], ["gap", "far"], ["gap", "far", "--json"]):
        assert cli.main(command) == 0
    assert "NaN" not in capsys.readouterr().out


def test_the_views_hold_what_was_imported(place):
    tables = imported(place, val=predictions().drop(columns=["confidence", "top5"]))
    con = duckdb.connect()
    attach(con, place / "data")
    found = con.execute("select * from prediction order by path").df()
    table = tables["val"].sort_values("path")
    assert found.path.tolist() == table.path.tolist()
    assert found.predicted_class_id.tolist() == table.top1.tolist()
    assert found[["confidence", "is_in_top5", "nll"]].isna().all(axis=None)
    assert con.execute("select backbone, head, n_train from model").fetchall() == [
        (None, "imported", None)
    ]
    rows = con.execute("select metric, estimate is null, reason from evaluation").fetchall()
    assert {row[0] for row in rows if row[1]} == {"top5", "nll", "ece"}
    assert all(row[2] for row in rows if row[1])
    assert con.execute("select count(*) from class_score").fetchall() == [(8,)]
    con.close()


def test_serve_starts_and_the_demo_stays_away(place):
    imported(place)
    assert cli.main(["load", "--demo-if-empty"]) == 0
    assert {row["backbone"] for row in Database(place / "data").splits()} == {None}
    done = subprocess.run(
        [GAPSCOPE, "sql", "-csv", "-c", "select count(*) as n from added_image"],
        env=environment(place / "data"), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.split() == ["n", "70"]


def test_images_are_found_by_suffix_and_shared_with_features(place, world, toy_csv, capsys):
    """Predictions on known images, under other folders and in another order, and on new ones."""
    data, val = place / "data", world["val", "toy"]
    load(data, [toy_csv])
    table = pd.DataFrame({"path": [f"images/{p}" for p in val.paths], "label": val.labels})
    table.loc[len(table)] = ["images/val/extra/new_one.png", 2]
    table["top1"] = (table.label + (np.arange(len(table)) % 2)) % 4
    table = table.sample(frac=1, random_state=0)
    imported(place, val=table)
    assert "21         0        20         1         0" in capsys.readouterr().out
    found = Results(data).predictions("far", "val", look=LOOK).to_pandas().set_index("path")
    table["path"] = table.path.str.removeprefix("images/")
    for row in table.itertuples():
        path = row.path if row.path in found.index else f"images/{row.path}"
        assert found.loc[path, "predicted_class_id"] == row.top1
    # the toy models see their own images alone; all parts are still there
    splits = Database(data).splits()
    assert [r["n_images"] for r in splits if r["split"] == "val"] == [20, 20, 1]
    assert len(Database(data).test_rows("toy", "val", look=LOOK).paths) == 20
    # the same images again: nothing is new, and the database is not written anew
    before = Database(data).version
    imported(place, "other", val=table)
    assert Database(data).version == before


def test_features_of_the_same_paths_share_the_images_later(place, capsys):
    table = predictions()
    imported(place, val=table)
    ids = {r["path"]: r["image_id"] for r in Database(place / "data").rows("from image")}
    features = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    rows = Split(table.path.tolist(), table.label.to_numpy(), features)
    file = write_csv(place / "csv" / "val_x.csv", rows)
    assert cli.main(["load", str(file)]) == 0
    assert "kept (--replace would forget them): val (without features)" in capsys.readouterr().out
    database = Database(place / "data")
    assert {r["path"]: r["image_id"] for r in database.rows("from image")} == ids
    assert [(r["backbone"], r["n_images"]) for r in database.splits()] == [("x", 40), (None, 40)]
    # other features of the split, over fewer images: the added ones stay
    write_csv(file, Split(rows.paths[:5], rows.labels[:5], features[:5]))
    assert cli.main(["load", str(file)]) == 0
    assert [(r["backbone"], r["n_images"]) for r in database.splits()] == [("x", 5), (None, 40)]
    assert cli.main(["evaluate", "far"]) == 0
    # a label that contradicts is refused by the loader too
    write_csv(file, Split(rows.paths[:5], rows.labels[:5] + 1, features[:5]))
    assert cli.main(["load", str(file)]) == 2
    assert "label_conflict" in capsys.readouterr().err
    # an image that comes back as a train row is a leak
    with pytest.raises(Leak):
        load(place / "data", [], explicit=[f"train:x={write_csv(place / 'train_x.csv', rows)}"])


def test_replace_forgets_the_images_and_the_model_says_so(place, toy_csv, capsys):
    imported(place)
    load(place / "data", [toy_csv], replace=True)
    assert None not in {row["backbone"] for row in Database(place / "data").splits()}
    with client(place) as service:
        answer = service.post("/evaluate", json={"model": "far"})
        assert (answer.status_code, answer.json()["code"]) == (409, "data_changed")
        assert "--replace" in answer.json()["detail"]
        assert service.get("/gap/far").status_code == 409
        assert service.get("/?model=far").status_code == 200


def test_another_label_after_a_reload_is_refused(place, world, toy_csv):
    data, val = place / "data", world["val", "toy"]
    load(data, [toy_csv / "val_toy.csv"])
    imported(place, val=pd.DataFrame({"path": val.paths, "label": val.labels, "top1": val.labels}))
    labels = val.labels.copy()
    labels[4] = 3 - labels[4]
    write_csv(place / "csv" / "val_toy.csv", Split(val.paths, labels, val.features))
    load(data, [place / "csv"], replace=True)
    with client(place) as service, pytest.raises(DataChanged, match=r"labelled 3 now \(0 gone, 1"):
        service.app.state.analysis.evaluate("far")


def test_a_name_is_given_once_and_a_trained_model_never_replaced(place, toy_data, capsys):
    shutil.copytree(toy_data, place / "data")
    file = f"v3={written(place / 'v3.csv', predictions(split='v3'))}"
    assert run("--model", "far", file) == 0
    before = Results(place / "data").card("far")
    assert run("--model", "far", file) == 2
    assert "refused (model_exists)" in capsys.readouterr().err
    assert Results(place / "data").card("far") == before
    time.sleep(0.002)
    assert run("--model", "far", file, "--replace") == 0
    assert Results(place / "data").card("far")["created_at"] > before["created_at"]
    assert run("--model", "mean", file, "--replace") == 2
    assert "trained here" in capsys.readouterr().err
    assert (place / "data" / "results" / "mean" / "head.safetensors").exists()
    assert not list((place / "data").glob(".new-*"))
    # the models that were trained here answer as before
    assert cli.main(["gap", "logistic"]) == 0


def test_columns_are_models(place, capsys):
    val, v2 = predictions(), predictions(30, seed=1, split="v2")
    val = val[["path", "label"]].assign(a=val.top1, b=val.label)
    answers = pd.DataFrame({"a": v2.top1.astype(np.int16)})
    files = [
        f"val={written(place / 'val.csv', val)}",
        f"v2={written(place / 'a.parquet', answers)}",
    ]
    images = f"v2={written(place / 'images.parquet', v2)}"
    assert run("--columns", *files, "--images", images) == 0
    said = capsys.readouterr().out
    assert "b: accuracy on val 100.00%" in said
    assert "note: v2: no predictions of b" in said
    assert list(Results(place / "data").card("a")["imported"]["splits"]) == ["val", "v2"]
    with client(place) as service:
        assert service.get("/gap/a").status_code == 200
        assert service.get("/gap/b").json()["code"] == "not_a_test"
        assert service.get("/?model=b").status_code == 200
    # another number of rows, or no images at all
    written(place / "images.parquet", v2[:-1])
    for more, code in ((["--images", images], "row_count_mismatch"), ([], "header_mismatch")):
        assert run("--columns", *files, *more, "--replace") == 2
        assert f"refused ({code})" in capsys.readouterr().err
    twofold = f"v2={written(place / 'a.csv', v2)}"
    assert run("--columns", files[0], twofold, "--images", images, "--replace") == 2
    assert "wanted path in images.parquet alone" in capsys.readouterr().err
    nobody = f"val={written(place / 'nobody.csv', val[['path', 'label']])}"
    assert run("--columns", nobody, "--replace") == 2
    assert "wanted a column for each model" in capsys.readouterr().err
    assert run("--columns", files[0], "--images", images, "--replace") == 2
    assert "refused (unused_option)" in capsys.readouterr().err
    assert run("--columns", files[0], files[0], "--replace") == 2
    assert "two for 'val'" in capsys.readouterr().err


def changed(column, value, row=3):
    def change(table):
        table = table.astype({column: object})
        table.loc[row, column] = value
        return table

    return change


def again(**values):
    """The fourth row once more, changed."""
    return lambda table: pd.concat([table, table.iloc[3:4].assign(**values)])


@pytest.mark.parametrize(
    ("change", "code", "says"),
    [
        (changed("label", -1), "label_out_of_range", " in row 3"),
        (changed("label", 1.5), "label_out_of_range", "a whole number"),
        (changed("label", None), "label_out_of_range", "a whole number"),
        (changed("top1", -1), "label_out_of_range", "column 'top1'"),
        (changed("top2", "cat"), "label_out_of_range", "column 'top2'"),
        (changed("confidence", 1.2), "bad_confidence", "1.2"),
        (changed("confidence", None), "bad_confidence", "val/3/3.png"),
        (changed("confidence", "nan"), "bad_confidence", "val/3/3.png"),
        (changed("path", None), "bad_path", "row 3"),
        (changed("path", "a\tb"), "bad_path", "control"),
        (lambda t: t.drop(columns="path"), "header_mismatch", "a column path"),
        (lambda t: t.drop(columns="label"), "header_mismatch", "a column label"),
        (lambda t: t.drop(columns="top1"), "header_mismatch", "a column top1"),
        (lambda t: t[:0], "empty_file", "rows after the header"),
        (lambda t: t.assign(top2=t.top1), "prediction_conflict", "different classes"),
        (lambda t: t.assign(split="v2"), "source_name", "'v2'"),
        (again(label=7), "label_conflict", "label 3 for 'val/3/3.png'"),
        (again(confidence=0.5), "prediction_conflict", "confidence"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_wrong_file_is_refused_and_nothing_is_written(place, change, code, says, kind, capsys):
    table = change(predictions())
    if kind == "parquet":
        for column in [c for c in table if table[c].dtype == "object"]:  # one type a column
            has_text = table[column].map(lambda cell: isinstance(cell, str)).any()
            table[column] = table[column].map(str) if has_text else pd.to_numeric(table[column])
        table = table.replace("None", None)
    file = written(place / f"val.{kind}", table)
    assert run("--model", "far", f"val={file}") == 2
    said = capsys.readouterr().err
    assert f"refused ({code}): {file}" in said
    assert says in said
    assert not (place / "data" / "gap.duckdb").exists()
    assert not (place / "data" / "results" / "far").exists()


@pytest.mark.parametrize("split", ["train", "Training"])
def test_predictions_on_train_rows_are_refused(place, split, capsys):
    assert run("--model", "far", f"{split}={written(place / 'a.csv', predictions())}") == 2
    assert "learnt from is no test of it" in capsys.readouterr().err


def test_a_label_that_contradicts_the_database_is_refused(place, world, toy_csv, capsys):
    val = world["val", "toy"]
    load(place / "data", [toy_csv])
    table = pd.DataFrame({"path": val.paths, "label": val.labels, "top1": val.labels})
    table.loc[5, "label"] = 3
    assert run("--model", "far", f"val={written(place / 'a.csv', table)}") == 2
    said = capsys.readouterr().err
    assert f"label {val.labels[5]} of image {val.paths[5]!r} in split 'val'" in said
    assert "got label 3 (1 such images" in said


def test_repeated_rows_are_counted_and_ambiguous_ones_left_out(place, world, toy_csv, capsys):
    data = place / "data"
    rows = Split(["a/x/one.png", "b/x/one.png", "a/x/two.png"], np.array([0, 0, 1]),
                 np.zeros((3, 2), np.float32))  # fmt: skip
    load(data, [], explicit=[f"val:f={write_csv(place / 'f.csv', rows)}"])
    table = pd.DataFrame({"path": ["x/one.png", "two.png", "two.png"], "label": [0, 1, 1]})
    table["top1"] = [0, 0, 0]
    imported(place, val=table)
    said = capsys.readouterr().out
    assert "3         1         1         0         1" in said
    assert "left out, since they fit no single image: 'x/one.png'" in said
    card = Results(data).card("far")["imported"]["splits"]["val"]
    assert (card["n_repeated"], card["n_matched"], card["n_ambiguous"]) == (1, 1, 1)
    assert Results(data).predictions("far", "val", look=LOOK)["path"].to_pylist() == ["a/x/two.png"]
    assert run("--model", "n", f"val={written(place / 'b.csv', table[:1])}") == 2
    assert "refused (nothing_matched)" in capsys.readouterr().err


def test_a_column_of_the_split_may_repeat_it(place):
    table = predictions().assign(split="val")
    table.loc[3, "split"] = ""
    imported(place, val=table)
    assert Results(place / "data").card("far")["imported"]["splits"]["val"]["n_new"] == len(table)


def test_a_name_that_no_folder_can_have_is_refused(place, capsys):
    assert run("--model", "../x", f"val={written(place / 'a.csv', predictions())}") == 2
    assert "refused (bad_name)" in capsys.readouterr().err


def test_a_database_of_another_version_is_refused_in_words(place, capsys):
    (place / "data").mkdir()
    duckdb.connect(str(place / "data" / "gap.duckdb")).close()
    assert run("--model", "far", f"val={written(place / 'a.csv', predictions())}") == 2
    assert "--replace" in capsys.readouterr().err


@pytest.mark.skipif(not REAL.is_dir(), reason="the shared data folder is absent")
def test_the_47_models_of_imagenet_v2(place, capsys):
    """Their accuracies as published, to the last image, within seconds."""
    began = time.monotonic()
    assert run(
        "--columns", "--images", f"val={REAL}/val_images.parquet",
        "--images", f"v2={REAL}/v2_matched_frequency_images.parquet",
        f"val={REAL}/val_top1.parquet", f"v2={REAL}/v2_matched_frequency_top1.parquet",
    ) == 0  # fmt: skip
    assert time.monotonic() - began < 60
    published = pd.read_csv(REAL / "model_accuracies.csv").set_index("model")
    results = Results(place / "data")
    assert len(results.models()) == 47
    for card in results.models():
        name = card["model"]
        top1 = {
            r["split"]: r["estimate"] for r in results.evaluation(name) if r["metric"] == "top1"
        }
        assert top1["val"] == pytest.approx(published.val_top1[name], abs=1e-9)
        v2 = published.v2_matched_frequency_top1[name]
        assert top1["v2"] == pytest.approx(v2, abs=1e-9)
    assert "resnet152: accuracy on val 78.31%, v2 67.02%" in (said := capsys.readouterr().out)
    assert "vgg19_bn: accuracy on val 74.22%, v2 61.89%" in said
    with client(place) as service:
        found = service.get("/gap/resnet152").json()
    k1, k2 = (round(published.loc["resnet152", c] * n) for c, n in (
        ("val_top1", 50_000), ("v2_matched_frequency_top1", 10_000)))  # fmt: skip
    low, high = confint_proportions_2indep(k1, 50_000, k2, 10_000, method="newcomb", compare="diff")
    gap = found["gap"]
    assert [gap[k] for k in ("estimate", "low", "high")] == pytest.approx(
        [k1 / 50_000 - k2 / 10_000, low, high], abs=1e-6
    )
    assert len(found["classes"]) == 1000
    assert json.dumps(found, allow_nan=False)
