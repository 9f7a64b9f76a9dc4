"""gapscope audit: passes on an honest model, fails where ten test rows stand in the train file."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fastapi.testclient import TestClient

from etl import load
from service import cli
from service.analysis import Analysis
from service.app import create_app
from service.looks import Looks
from service.settings import Settings
from tests.unit.test_leaks import mixture, noisy
from tests.world import Split, write_csv

N = {"train": 600, "val": 150, "v2": 100}


def splits_of(seed=0):
    rows = mixture(seed, sum(N.values()), d=24)
    rng, found, start = np.random.default_rng(seed), {}, 0
    for split, n in N.items():
        labels = rng.integers(3, size=n)
        paths = [f"{split}/{i}.png" for i in range(n)]
        found[split] = Split(paths, labels, rows[start : start + n] + labels[:, None] * 0.3)
        start += n
    return found


def with_copies(splits, features):
    """The train file is given the first ten rows of val under other paths."""
    train, val = splits["train"], splits["val"]
    return {
        **splits,
        "train": Split(
            train.paths + [f"train/more/{i}.png" for i in range(10)],
            np.concatenate([train.labels, val.labels[:10]]),
            np.concatenate([train.features, features]),
        ),
    }


def loaded(folder, splits, *, replace=False):
    for split, rows in splits.items():
        write_csv(folder / "csv" / f"{split}_deep.csv", rows)
    load(folder / "data", [folder / "csv"], n_threads=1, replace=replace)
    return folder / "data"


def trained(data, model="m"):
    analysis = Analysis(data)
    analysis.train(model=model, backbone="deep", head="nearest_mean", params={}, seed=0)
    return analysis


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    data = loaded(tmp_path_factory.mktemp("honest"), splits_of())
    trained(data)
    return data


@pytest.fixture
def run(monkeypatch, capsys):
    def command(data, *argv):
        monkeypatch.setenv("GAP_DATA", str(data))
        status = cli.main(argv)
        return status, capsys.readouterr()

    return command


def check_of(answer, name):
    return next(check for check in answer["checks"] if check["name"] == name)


def test_an_honest_model_passes_and_no_label_is_read(honest, run):
    before = len(Looks(honest).all())
    status, said = run(honest, "audit", "m", "--json")
    answer = json.loads(said.out)
    assert status == 0
    assert answer["passed"] is True
    assert [c["name"] for c in answer["checks"]] == [
        "head", "rows_digest", "test_path", "image_id", "exact_vector", "near_duplicate", "roles",
        "records",
    ]  # fmt: skip
    assert all(c["passed"] is True and not c["examples"] for c in answer["checks"])
    assert (answer["n_train"], answer["n_test"]) == (600, 250)
    assert answer["closest"][0]["distance"] > 0
    assert len(Looks(honest).all()) == before
    status, said = run(honest, "audit", "m")
    assert said.out.startswith("m: passed")
    assert "closest pair: " in said.out


def test_the_card_tells_the_rows(honest):
    rows = Analysis(honest).results.card("m")["rows"]
    assert (rows["n_fit"], rows["n_selection"], rows["splits"]) == (600, 600, ["train"])
    assert len(rows["digest"]) == 64
    stored = Analysis(honest).results.train_rows("m")
    assert stored.column_names == ["path_hash", "vector_hash", "fold"]
    assert set(stored["fold"].to_pylist()) == set(range(5))


@pytest.mark.parametrize(("n_copies", "says"), [(0, False), (6, False), (12, True)])
def test_the_card_warns_where_many_train_rows_are_copies(tmp_path, n_copies, says):
    """600 rows: 1 % of them is six."""
    splits = splits_of()
    train = splits["train"]
    features = train.features.copy()
    features[:n_copies] = features[300 : 300 + n_copies]
    splits["train"] = Split(train.paths, train.labels, features)
    notes = trained(loaded(tmp_path, splits)).results.card("m")["notes"]
    assert notes == (
        ["12 of 600 train rows repeat another one: copies stand on both sides of a fold, so that "
         "internal validation is optimistic"] if says else []
    )  # fmt: skip


@pytest.mark.parametrize(("size", "name"), [(0.0, "exact_vector"), (5e-3, "near_duplicate")])
def test_ten_test_rows_under_other_paths_are_found_and_left_out(tmp_path, run, size, name):
    splits = splits_of()
    data = loaded(tmp_path, with_copies(splits, noisy(splits["val"].features[:10], size)))
    trained(data)
    status, said = run(data, "audit", "m", "--json")
    answer = json.loads(said.out)
    assert status == 1
    assert answer["passed"] is False
    found = check_of(answer, name)
    assert (found["passed"], found["count"], len(found["examples"])) == (False, 10, 5)
    for pair in found["examples"]:
        assert pair["test_split"] == "val"
        assert pair["train_path"].replace("train/more", "val") == pair["test_path"]
    assert check_of(answer, "test_path")["passed"] is True

    status, said = run(data, "audit", "m", "--retrain", "clean")
    assert status == 0
    assert "FAILED" in said.out
    assert "clean: passed" in said.out
    assert "trained without 10 train rows" in said.err
    card = Analysis(data).results.card("clean")
    assert card["n_train"] == 600
    assert card["left_out"]["n"] == 10
    assert "audit of m" in card["left_out"]["why"]
    assert (card["head"], card["seed"]) == ("nearest_mean", 0)
    # the very model that the honest file would have made
    other = Analysis(data).results.train_rows("clean")["path_hash"].to_pylist()
    assert len(other) == 600
    assert Analysis(data).evaluate("clean").gap is not None


def test_retrain_leaves_an_honest_model_alone(honest, run):
    status, _ = run(honest, "audit", "m", "--retrain")
    assert status == 0
    assert [card["model"] for card in Analysis(honest).results.models()] == ["m"]


def test_paths_that_became_test_paths_are_found(tmp_path, run):
    splits = splits_of()
    data = loaded(tmp_path, splits)
    trained(data)
    train, val = splits["train"], splits["val"]
    swapped = {
        **splits,
        "train": Split(train.paths[5:], train.labels[5:], train.features[5:]),
        "val": Split(
            val.paths + train.paths[:5],
            np.concatenate([val.labels, train.labels[:5]]),
            np.concatenate([val.features, train.features[:5]]),
        ),
    }
    loaded(tmp_path, swapped, replace=True)
    status, said = run(data, "audit", "m", "--json")
    answer = json.loads(said.out)
    assert status == 1
    assert check_of(answer, "test_path")["count"] == 5
    assert check_of(answer, "exact_vector")["count"] == 5
    assert "no longer" in check_of(answer, "exact_vector")["examples"][0]["train_path"]
    assert check_of(answer, "rows_digest")["passed"] is None


def test_a_model_without_digests_proves_nothing(tmp_path, run):
    data = loaded(tmp_path, splits_of())
    trained(data)
    folder = data / "results" / "m"
    card = json.loads((folder / "model.json").read_text())
    del card["rows"], card["left_out"]
    (folder / "model.json").write_text(json.dumps(card))
    rows = pq.read_table(folder / "train_rows.parquet").select(["path_hash"])
    pq.write_table(rows, folder / "train_rows.parquet")
    status, said = run(data, "audit", "m")
    assert status == 3
    assert "m: not proved" in said.out
    assert "Train it again" in said.out
    with TestClient(create_app(Settings(data=data), with_worker=False)) as client:
        assert client.get("/models/m").json()["rows"] is None
        assert client.get("/models/m/audit").json()["passed"] is None


def test_stored_rows_that_another_hand_changed_are_found(tmp_path, run):
    data = loaded(tmp_path, splits_of())
    trained(data)
    file = data / "results" / "m" / "train_rows.parquet"
    rows = pq.read_table(file)
    pq.write_table(rows.slice(1), file)
    status, said = run(data, "audit", "m")
    assert status == 1
    assert "changed by another hand" in said.out


def test_of_an_imported_model_nothing_can_be_proved(tmp_path, run):
    table = pa.table({"path": [f"{i}.png" for i in range(8)], "label": [0, 1] * 4, "top1": [0] * 8})
    pq.write_table(table, tmp_path / "val.parquet")
    data = tmp_path / "data"
    assert run(data, "import-predictions", "--model", "far", f"val={tmp_path}/val.parquet")[0] == 0
    status, said = run(data, "audit", "far", "--retrain")
    assert status == 3
    assert "trained elsewhere" in said.out
    looks = Looks(data).all()
    assert [(look["purpose"], look["model"], look["n"]) for look in looks] == [("import", "far", 8)]


def test_the_service_audits_and_lists_looks(tmp_path, run):
    splits = splits_of()
    data = loaded(tmp_path, with_copies(splits, splits["val"].features[:10]))
    trained(data)
    with TestClient(create_app(Settings(data=data), with_worker=False)) as client:
        answer = client.get("/models/m/audit").json()
        assert answer["passed"] is False
        assert check_of(answer, "exact_vector")["count"] == 10
        assert client.get("/looks").json() == []
        assert client.get("/gap/m").status_code == 200
        looks = client.get("/looks").json()
        said = {(look["purpose"], look["split"], look["n"]) for look in looks}
        assert said == {
            ("evaluate", "val", 150), ("evaluate", "v2", 100),
            ("gap", "val", 150), ("gap", "v2", 100),
        }  # fmt: skip
        assert {look["who"] for look in looks} == {"service (testclient)"}
        assert {look["model"] for look in looks} == {"m"}
        page = client.get("/view/data").text
        assert "Looks at test labels" in page
        assert "service (testclient)" in page
        assert len(client.get("/looks").json()) == len(looks)
        (data / "results" / "looks.jsonl").unlink()
        (data / "results" / "looks.jsonl").mkdir()
        trained(data, "other")
        refused = client.post("/evaluate", json={"model": "other"})
        assert (refused.status_code, refused.json()["code"]) == (503, "look_not_logged")


def test_looks_on_the_command_line(tmp_path, run):
    data = loaded(tmp_path, splits_of())
    assert run(data, "looks")[1].out == "no test labels were read yet\n"
    trained(data)
    assert run(data, "evaluate", "m")[0] == 0
    _, said = run(data, "looks")
    assert len(said.out.splitlines()) == 2
    assert "evaluate" in said.out
    assert "150 labels" in said.out
    _, said = run(data, "looks", "--json", "--model", "m")
    assert {json.loads(line)["split"] for line in said.out.splitlines()} == {"val", "v2"}
    assert run(data, "looks", "--model", "none")[1].out.startswith("no test labels")


def test_an_audit_is_remembered_until_the_data_change(honest, monkeypatch):
    analysis = Analysis(honest)
    first = analysis.audit("m")
    monkeypatch.setattr("service.analysis.audit_model", None)
    assert analysis.audit("m") == first
