"""Damaged and hostile files of models: refused in words, nothing run, the other models served."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from fastapi.testclient import TestClient
from safetensors.numpy import load_file, save

from models.errors import BadHeadFile
from models.heads.given import read_head
from service.app import create_app
from service.results import Results
from service.settings import Settings
from tests.faults import models as broken

BAD = "logistic"  # whose files are damaged; `mean` stands beside it
RSS_MORE_KB = 1_500_000  # no case may take more than this


@pytest.fixture(scope="module")
def place(tmp_path_factory, toy_data):
    folder = tmp_path_factory.mktemp("models")
    shutil.copytree(toy_data, folder / "data")
    return folder


@pytest.fixture
def folder(place):
    """The folder of the model to damage, which is whole again afterwards."""
    mine, kept = place / "data" / "results" / BAD, place / "kept"
    if not kept.exists():
        shutil.copytree(mine, kept)
    yield mine
    shutil.rmtree(mine)
    shutil.copytree(kept, mine)


@pytest.fixture(scope="module")
def client(place):
    settings = Settings(data=place / "data")
    with TestClient(create_app(settings, with_worker=False), raise_server_exceptions=False) as one:
        yield one


@pytest.fixture(scope="module")
def marker(place):
    return place / "marker"


def peak_kb():
    text = Path("/proc/self/status").read_text()
    return int(next(line.split()[1] for line in text.splitlines() if line.startswith("VmRSS")))


def put(file, content):
    """Put bytes in a file's place, or what is no file."""
    file.unlink(missing_ok=True)
    if content == "pipe":
        os.mkfifo(file)
    elif content == "folder":
        file.mkdir()
    elif content == "zero":
        file.symlink_to("/dev/zero")
    elif content == "itself":
        file.symlink_to(file.name)
    else:
        file.write_bytes(content)


NO_FILES = {name: name for name in ("pipe", "folder", "zero", "itself")}


def ask(client, what, number):
    """Ask where a model's files are read, the slow places in every tenth case; the answers."""
    between = {"model_a": "mean", "model_b": BAD, "alpha": 0.5, "name": f"between-{number}"}
    answers = [
        client.post("/predict", json=asked(BAD)),
        client.post("/interpolate", json=between),
        *(client.get(f"/models/{BAD}{end}") for end in ("", "/leaderboard", "/curves")),
    ]
    pages = []
    if number % 10 == 0:
        places = (f"/view/{BAD}", f"/view/{BAD}/training", f"/models/{BAD}/audit")
        answers += [client.get(place) for place in places]
        answers.append(client.post("/evaluate", json={"model": BAD, "splits": ["val"]}))
        pages = ["/", "/view/mean", "/models/mean", "/hypotheses", "/view/data"]
    for answer in answers:
        assert answer.status_code < 500, (what, answer.request.url.path, answer.text[:300])
        is_page = answer.headers["content-type"].startswith("text/html")
        assert not (is_page and "<script>alert" in answer.text), what
    for page in pages:
        assert client.get(page).status_code == 200, (what, page)
    listed = client.get("/models")
    assert listed.status_code == 200, (what, listed.text[:300])
    assert "mean" in {card["model"] for card in listed.json()}, what
    assert client.post("/predict", json=asked("mean")).status_code == 200, what
    return answers


def asked(model):
    return {"model": model, "features": [[0.0, 0.0, 7.0]]}


def check_each(client, folder, name, cases, *, may_set_aside, marker):
    """Damage one file in each way; where the model is set aside, it is named with the file."""
    whole = (folder / name).read_bytes()
    n_set_aside = 0
    results = Results(folder.parent.parent)
    for number, (what, content) in enumerate(cases.items()):
        before = peak_kb()
        put(folder / name, content)
        answers = ask(client, (name, what), number)
        damaged = results.damaged()
        if damaged:
            n_set_aside += 1
            assert set(damaged) == {BAD}
            assert name in damaged[BAD], what
        codes = {a.json().get("code") for a in answers if "json" in a.headers["content-type"]}
        assert bool(damaged) <= ({"damaged_model", "not_found"} & codes != set()), (what, codes)
        assert not marker.exists(), what
        assert peak_kb() - before < RSS_MORE_KB, what
        if (folder / name).is_dir() and not (folder / name).is_symlink():
            (folder / name).rmdir()
        put(folder / name, whole)
    assert (n_set_aside > 0) == may_set_aside
    assert results.damaged() == {}
    return n_set_aside


def test_s10_cards(client, folder, marker, record_property):
    card = json.loads((folder / "model.json").read_text())
    cases = broken.broken_json(card, marker) | broken.broken_cards(card) | NO_FILES
    del cases["itself"]  # which is not there at all: no model of the name
    n = check_each(client, folder, "model.json", cases, may_set_aside=True, marker=marker)
    assert n == len(cases)
    whole = (folder / "model.json").read_bytes()
    put(folder / "model.json", b"{")
    (told,) = client.get("/ready").json()["damaged"]
    assert f"model {folder.name!r}" in told
    assert "model.json of model" in client.get("/").text
    put(folder / "model.json", whole)
    record_property("fault", ["cards", "set aside", n])


@pytest.mark.parametrize("name", ["evaluation.json", "curves.json", "features.json"])
def test_s10_other_json(client, folder, marker, name, record_property):
    good = json.loads((folder / name).read_text())
    cases = broken.broken_json(good, marker) | NO_FILES
    if name == "evaluation.json":
        one = good[0]
        cases |= {
            "a metric less": json.dumps(good[1:]).encode(),
            "a metric twice": json.dumps([one, *good]).encode(),
            "n a word": json.dumps([{**one, "n": "5"}]).encode(),
            "estimate a word": json.dumps([{**one, "estimate": "1"}]).encode(),
            "split a list": json.dumps([{**one, "split": [1]}]).encode(),
        }
    record_property("fault", [name, "judged", len(cases)])
    set_aside = name == "evaluation.json"
    check_each(client, folder, name, cases, may_set_aside=set_aside, marker=marker)


@pytest.mark.parametrize("name", ["train_rows.parquet", "predictions.parquet"])
def test_s11_parquet(client, folder, marker, name, record_property):
    cases = broken.broken_parquet(pq.read_table(folder / name), marker) | NO_FILES
    record_property("fault", [name, "judged", len(cases)])
    set_aside = name == "predictions.parquet"
    check_each(client, folder, name, cases, may_set_aside=set_aside, marker=marker)
    put(folder / name, cases["half"])
    assert client.get("/gap/mean/labels").status_code == 200  # which reads what others say


@pytest.mark.parametrize("told", [True, False])
def test_s12_heads(client, folder, marker, told, record_property):
    """With the digest in the card, which alone refuses each; and of old models without one."""
    name = "head.safetensors"
    arrays = load_file(folder / name)
    if not told:
        card = json.loads((folder / "model.json").read_text())
        (folder / "model.json").write_text(json.dumps({**card, "head_sha256": None}))
    cases = (
        broken.broken_safetensors(arrays, {"gapscope": '{"type": "linear"}'}, marker)
        | broken.other_heads(arrays, marker)
        | NO_FILES
    )
    assert len(cases) >= 40
    cases |= {"another head": save(arrays | {"bias": arrays["bias"] + 1})} if told else {}
    record_property("fault", ["heads", "refused", len(cases)])
    whole = (folder / name).read_bytes()
    for number, (what, content) in enumerate(cases.items()):
        before = peak_kb()
        put(folder / name, content)
        predicted = ask(client, what, number)[0]
        assert predicted.status_code == 409, (what, predicted.text[:300])
        assert predicted.json()["code"] in ("data_changed", "damaged_model"), what
        assert not marker.exists(), what
        assert peak_kb() - before < RSS_MORE_KB, what
        if (folder / name).is_dir() and not (folder / name).is_symlink():
            (folder / name).rmdir()
        put(folder / name, whole)


def test_s13_given_heads(tmp_path):
    marker = tmp_path / "marker"
    arrays = {"fc.weight": np.ones((4, 3), np.float32), "fc.bias": np.zeros(4, np.float32)}
    (tmp_path / "good.safetensors").write_bytes(save(arrays))
    assert read_head(tmp_path / "good.safetensors", backbone="x", n_features=3).head.n_features == 3
    cases = broken.broken_safetensors(arrays, {}, marker)
    cases |= {"NaN": save(arrays | {"fc.bias": np.full(4, np.nan, np.float32)}),
              "no axis": save(arrays | {"fc.bias": np.array(1, np.float32)}),
              "whole numbers": save(arrays | {"fc.weight": np.ones((4, 3), np.int64)}),
              "other width": save(arrays | {"fc.weight": np.ones((4, 5), np.float32)})}  # fmt: skip
    for ending in (".safetensors", ".pth", ".bin", ".json"):
        for what, content in (cases | broken.other_weights()).items():
            file = tmp_path / f"x{ending}"
            file.write_bytes(content)
            before = peak_kb()
            with pytest.raises(BadHeadFile):
                print("read:", ending, what, read_head(file, backbone="x", n_features=3))
            assert not marker.exists(), what
            assert peak_kb() - before < RSS_MORE_KB, what


def test_a_header_of_a_gigabyte_is_not_read(tmp_path):
    file = tmp_path / "x.safetensors"
    file.write_bytes(broken.safetensors(b"{}", length=1 << 30))
    os.truncate(file, (1 << 30) + 8)  # as it says, but with nothing written
    before = peak_kb()
    with pytest.raises(BadHeadFile):
        read_head(file, backbone="x", n_features=3)
    assert peak_kb() - before < RSS_MORE_KB
