"""Damaged files: named, set aside where they can be made again, and the rest is served (E35)."""

import json
import logging
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pandas as pd
import pytest
from fastapi.testclient import TestClient

from etl import load
from etl.annotations import annotate_file
from service import damage
from service.analysis import Analysis
from service.app import create_app
from service.damage import find_damage
from service.gap.explaining import Question
from service.hypotheses.schemas import HypothesisIn
from service.hypotheses.testing import Hypotheses
from service.jobs import Jobs
from service.lines import Lines
from service.report.kept import Reports
from service.report.making import HTML, JSON, PDF, Report
from service.sealing import seal
from service.settings import Settings

PAGES = ["/", "/view/data", "/view/train", "/view/logistic", "/view/logistic/report",
         "/view/logistic/hypotheses", "/view/logistic/line", "/view/logistic/images"]  # fmt: skip
ROUTES = ["/health", "/ready", "/jobs", "/models", "/splits", "/looks", "/seals", "/hypotheses",
          "/reports", "/lines", "/annotations", "/gap/logistic?wait=false",
          "/gap/logistic/images?wait=false", "/models/logistic/audit"]  # fmt: skip
REPORT = "0123456789ab"


@pytest.fixture(scope="session")
def whole(tmp_path_factory, toy_csv, world) -> Path:
    """A data folder with a file of every kind."""
    data = tmp_path_factory.mktemp("damage") / "data"
    load(data, [toy_csv], n_threads=1)
    analysis = Analysis(data)
    for model, head in (("logistic", "logistic"), ("mean", "nearest_mean")):
        analysis.train(model=model, backbone="toy", head=head, params={}, seed=0)
    seal(analysis, "mean", "v2")
    analysis.evaluate("logistic")
    for factor in (10, 100):
        refinement = {"kind": "stronger_penalty", "factor": factor}
        Hypotheses(analysis).register(
            HypothesisIn(title=f"{factor}", cause="c", baseline="logistic", refinement=refinement)
        )
    Jobs(data).submit({"backbone": "toy", "head": "logistic", "params": {}, "seed": 0}, "waits")
    val = world["val", "toy"]
    beside = data.parent / "light.csv"
    pd.DataFrame({"path": val.paths, "light": range(len(val.paths))}).to_csv(beside, index=False)
    annotate_file(data, beside)
    line = data.parent / "line.csv"
    rows = {"model": list("abcdef"), "val": [0.5, 0.6, 0.7, 0.8, 0.85, 0.9]}
    pd.DataFrame(rows | {"v2": [0.4, 0.5, 0.6, 0.7, 0.8, 0.85]}).to_csv(line, index=False)
    Lines(data).add([line], name="published", reference="val", target="v2")
    question = Question(analysis, "logistic", None, None)
    question.gap()
    question.compute(only="images")
    made = pd.Timestamp("2026-01-01", tz="UTC").to_pydatetime()
    files = dict.fromkeys((PDF, HTML, JSON), b"0123456789" * 9)
    Reports(data).keep(REPORT, Report("t", ("logistic",), "val", "v2", made, files))
    return data


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def garbage(content: bytes) -> bytes:
    at = len(content) // 2 - min(len(content) // 4, 4096)
    end = len(content) // 2 + min(len(content) // 4, 4096)
    return content[:at] + bytes(byte ^ 0xAA for byte in content[at:end]) + content[end:]


def emptied(_content: bytes) -> bytes:
    return b""


def other(_content: bytes) -> bytes:
    return b"\x00\xffnot what it was\n" * 60


KINDS = [garbage, cut, other, emptied]
# file, whether it is set aside at start; None: looked at when it is read
FILES = {
    "gap.duckdb": True,
    "jobs.sqlite": True,
    "results/hypotheses.jsonl": False,
    "results/hypotheses.head": False,
    "results/seals.jsonl": False,
    "results/looks.jsonl": False,
    f"reports/{REPORT}/card.json": True,
    f"reports/{REPORT}/report.pdf": True,
    "annotations/light.parquet": True,
    "annotations/_empty.parquet": True,
    "images/_empty.parquet": True,
    "lines/published.csv": True,
    "results/logistic/gap/*/gap.json": None,
    "results/logistic/gap/*/images.json": None,
    "results/logistic/gap/*/images.parquet": None,
}
# what SQLite and an empty record begin with is no damage; vectors are not read at start
NOT_SEEN = {("jobs.sqlite", emptied), ("results/looks.jsonl", emptied), ("gap.duckdb", garbage)}
ONE_IS_QUICK = [garbage, *(pytest.param(kind, marks=pytest.mark.long) for kind in KINDS[1:])]


@pytest.fixture
def data(whole, tmp_path) -> Path:
    shutil.copytree(whole, tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def serve():
    def served(data: Path) -> Iterator[TestClient]:
        app = create_app(Settings(data=data), with_worker=False)
        return TestClient(app, raise_server_exceptions=False)

    return served


def answers(client: TestClient) -> dict[str, int]:
    return {path: client.get(path).status_code for path in PAGES + ROUTES}


def test_what_is_whole_is_no_damage(data, serve):
    assert find_damage(data) == []
    with serve(data) as client:
        assert client.get("/ready").json()["damaged"] == []
        assert set(answers(client).values()) <= {200, 202, 503}


def cases():
    """Every file with every kind of damage; the quick tests try one kind each, in turn."""
    for i, name in enumerate(FILES):
        for j, kind in enumerate(KINDS):
            marks = [] if j == i % len(KINDS) else [pytest.mark.long]
            yield pytest.param(name, kind, marks=marks, id=f"{name}-{kind.__name__}")


@pytest.mark.parametrize(("name", "kind"), list(cases()))
def test_e35_it_is_named_and_the_rest_is_served(name, kind, data, serve, caplog):
    (file,) = data.glob(name)
    before = file.read_bytes()
    file.write_bytes(kind(before))
    damaged = file.read_bytes()
    with caplog.at_level(logging.ERROR, "gapscope"), serve(data) as client:
        said = answers(client)
        ready = client.get("/ready").json()["damaged"]
        page = client.get("/view/train").text
    assert 500 not in said.values(), said
    left = [place for place in data.rglob("*") if place.is_file() and ".damaged-" in str(place)]
    aside = FILES[name]
    if (name, kind) in NOT_SEEN:
        assert ready == []
    elif aside is None:
        assert any("is damaged" in line for line in caplog.messages)
        assert damaged in [place.read_bytes() for place in left]
    else:
        (one,) = ready
        assert one.split(" is damaged")[0] in (name, name.rsplit("/", 1)[0],
                                               name.replace(".head", ".jsonl"))  # fmt: skip
        assert one in caplog.messages
        assert 'class="notice"' in page
        kept = [place.read_bytes() for place in left] if aside else [file.read_bytes()]
        assert damaged in kept
    if name != "gap.duckdb":
        assert said["/models"] == said["/splits"] == said["/"] == 200


@pytest.mark.parametrize("name", ["hypotheses", "seals"])
def test_e35_a_damaged_record_refuses_to_grow(name, data, serve):
    file = data / "results" / f"{name}.jsonl"
    file.write_bytes(garbage(file.read_bytes()))
    damaged = file.read_bytes()
    refinement = {"kind": "stronger_penalty", "factor": 1000}
    bodies = {
        "hypotheses": {
            "title": "t",
            "cause": "c",
            "baseline": "logistic",
            "refinement": refinement,
        },
        "seals": {"model": "mean", "target": "v2"},
    }  # fmt: skip
    with serve(data) as client:
        answer = client.post(f"/{name}", json=bodies[name])
    assert (answer.status_code, answer.json()["code"]) == (409, "record_changed")
    assert file.read_bytes() == damaged


@pytest.mark.parametrize("with_database", [True, False])
def test_e35_an_orphan_wal_is_set_aside(with_database, data, serve):
    wal = data / "gap.duckdb.wal"
    wal.write_bytes(b"of another database")
    if not with_database:
        (data / "gap.duckdb").unlink()
    with serve(data) as client:
        assert client.get("/splits").status_code == (200 if with_database else 503)
        (one,) = client.get("/ready").json()["damaged"]
    assert one.startswith("gap.duckdb.wal is damaged")
    assert not wal.exists()
    assert list(data.glob("gap.duckdb.wal.damaged-*"))


def test_e35_a_newer_database_is_named_and_stays(data, monkeypatch):
    def newer(*_):
        raise duckdb.IOException("Trying to read a database file with version number 99")

    monkeypatch.setattr(damage, "attach", newer)
    (one,) = find_damage(data)
    assert "another version of Gapscope" in one.wrong
    assert (data / "gap.duckdb").is_file()


@pytest.mark.parametrize("words", ["Input/output error", "Could not set lock on file"])
def test_e36_a_disk_that_fails_is_no_damage_of_the_file(words, data, monkeypatch):
    def fails(*_):
        raise duckdb.IOException(f"Could not read from file: {words}")

    monkeypatch.setattr(damage, "attach", fails)
    (one,) = find_damage(data)
    assert "cannot be read" in one.wrong
    assert (data / "gap.duckdb").is_file()


def test_e35_damage_in_a_block_of_vectors_is_a_refusal_that_names_the_file(data, serve):
    file = data / "gap.duckdb"
    content = bytearray(file.read_bytes())
    n_refused = 0
    for at in range(12_288, len(content) - 4096, 524_288):
        file.write_bytes(content[:at] + bytes(b ^ 0xAA for b in content[at : at + 4096])
                         + content[at + 4096 :])  # fmt: skip
        with serve(data) as client:
            answer = client.post("/evaluate", json={"model": "mean", "splits": ["val"]})
        assert answer.status_code in (200, 503), answer.text
        n_refused += answer.status_code == 503
        for aside in data.glob("gap.duckdb.damaged-*"):
            aside.unlink()
    assert n_refused


@pytest.mark.parametrize("kind", ONE_IS_QUICK)
def test_e35_damage_beside_the_jobs_table_loses_no_service(kind, data, serve):
    """A log that SQLite has not taken over: what of it is whole counts."""
    con = sqlite3.connect(data / "jobs.sqlite")
    con.execute("update job set message = 'changed'")
    con.commit()
    shutil.copy(data / "jobs.sqlite", data.parent)
    shutil.copy(data / "jobs.sqlite-wal", data.parent)
    con.close()
    shutil.copy(data.parent / "jobs.sqlite", data)
    log = (data.parent / "jobs.sqlite-wal").read_bytes()
    (data / "jobs.sqlite-wal").write_bytes(kind(log))
    with serve(data) as client:
        answer = client.get("/jobs")
        assert answer.status_code == 200
        assert [job["model"] for job in answer.json()] == ["waits"]


def test_a_job_that_is_no_request_is_damage(data, serve):
    con = sqlite3.connect(data / "jobs.sqlite")
    con.execute("update job set request = '{half'")
    con.commit()
    con.close()
    with serve(data) as client:
        assert client.get("/jobs").json() == []
        assert "requests are none" in client.get("/ready").json()["damaged"][0]


@pytest.mark.parametrize("kind", ONE_IS_QUICK)
def test_e35_a_damaged_checkpoint_is_made_again(kind, data):
    analysis = Analysis(data)
    asked = {"backbone": "toy", "head": "logistic", "params": {}, "seed": 3}
    wanted = analysis.train(model="a", **asked)["head_sha256"]

    class Stopped(Exception):
        pass

    def stop(share, _message):
        if any((data / "checkpoints").rglob("*.safetensors")):
            raise Stopped

    with pytest.raises(Stopped):
        analysis.train(model="b", **asked, progress=stop)
    for file in (data / "checkpoints").rglob("*.safetensors"):
        file.write_bytes(kind(file.read_bytes()))
    assert analysis.train(model="b", **asked)["head_sha256"] == wanted


def test_damage_is_told_once_and_json_has_words(data):
    (data / "jobs.sqlite").write_bytes(b"no table at all" * 100)
    (first,) = find_damage(data)
    assert json.dumps(str(first)).isascii()
    assert find_damage(data) == []
