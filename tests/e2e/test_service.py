"""The service as people use it: train, evaluate, gap; SQL beside it; kill and restart."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient

from etl import load
from etl.database import sql_files
from service.analysis import Analysis
from service.app import create_app
from service.errors import InUse, TestWasTrained
from service.jobs import Jobs, Worker
from service.results import Results
from service.settings import Settings
from tests.e2e import stubborn
from tests.e2e.server import GAPSCOPE, environment, job_done, serving, wait_until
from tests.world import Split, write_balls, write_csv

MANY = {"C": [0.01 * 1.05**i for i in range(100)]}  # a training long enough to look at
VIEWS = [file.stem[3:] for file in sql_files()]


@pytest.fixture(scope="module")
def big_csv(tmp_path_factory):
    """Rows enough for a training that lasts several seconds."""
    folder = tmp_path_factory.mktemp("big")
    return write_balls(folder, "big", (30, 200), {"train": 6000, "val": 600, "v2": 300}, 0.2)


def duckdb_cli(data, query, *, inside):
    """The plain DuckDB CLI, inside the data folder; or `gapscope sql` from elsewhere."""
    duckdb = Path(sys.executable).with_name("duckdb")
    if inside:
        command = [duckdb, "-readonly", "-csv", "gap.duckdb", "-c", query]
        return subprocess.run(command, cwd=data, capture_output=True, text=True, check=False)
    command = [GAPSCOPE, "sql", "-csv", "-c", query]
    return subprocess.run(
        command, env=environment(data), capture_output=True, text=True, check=False
    )


@pytest.mark.long
def test_train_evaluate_gap_with_sql_beside(tmp_path, big_csv):
    data = tmp_path / "data"
    load(data, [big_csv])
    with serving(data) as (client, _):
        long = {"backbone": "big", "head": "logistic", "seed": 0, "params": MANY, "name": "long"}
        training = client.post("/train", json=long).headers["location"]
        wait_until(lambda: client.get(training).json()["state"] == "running", 30)
        # every view answers while a model trains, from inside the folder and from elsewhere
        count = " union all ".join(f"select '{v}' as view, count(*) as n from {v}" for v in VIEWS)
        for inside in (True, False):
            done = duckdb_cli(data, count, inside=inside)
            assert done.returncode == 0, done.stderr
            assert len(done.stdout.splitlines()) == 1 + len(VIEWS)
        assert client.get("/health").json() == {"status": "ok"}
        assert client.get(training).json()["state"] == "running", "the training was too short"
        client.delete(training)
        assert job_done(client, training)["state"] == "cancelled"
        asked = client.post("/train", json={"backbone": "big", "head": "logistic", "seed": 0})
        assert asked.status_code == 202
        location = asked.headers["location"]
        assert asked.json() == {"job": location.removeprefix("/jobs/"), "model": "big-logistic"}
        job = job_done(client, location)
        assert (job["state"], job["progress"], job["error"]) == ("done", 1.0, None)
        evaluation = client.post("/evaluate", json={"model": "big-logistic"}).json()
        assert list(evaluation["splits"]) == ["val", "v2"]
        gap = client.get("/gap/big-logistic").json()
        assert gap["gap"] == evaluation["gap"]["top1"]
        assert (gap["reference"], gap["target"]) == ("val", "v2")
        done = duckdb_cli(
            data,
            "select count(*), avg(is_correct::int) from prediction where split = 'v2'",
            inside=True,
        )
        n, accuracy = done.stdout.splitlines()[1].split(",")
        assert (int(n), float(accuracy)) == (300, evaluation["splits"]["v2"]["top1"]["estimate"])
        # a name is given once, and the next one is numbered
        taken = client.post("/train", json={"backbone": "big", "seed": 0, "name": "big-logistic"})
        assert taken.status_code == 409
        other = client.post("/train", json={"backbone": "big", "head": "lda", "seed": 0})
        assert job_done(client, other.headers["location"])["state"] == "done"
        cards = client.get("/models").json()
        assert [card["model"] for card in cards] == ["big-logistic", "big-lda"]
        assert cards[0]["n_train"] == 6000
        # a reload while the service runs is seen by the next request
        load(data, [big_csv], reference="v2")
        assert client.get("/gap/big-logistic").json()["reference"] == "v2"


def test_a_running_job_is_cancelled_and_a_killed_one_interrupted(tmp_path, big_csv):
    data = tmp_path / "data"
    load(data, [big_csv])
    train = {"backbone": "big", "head": "logistic", "seed": 0, "params": MANY, "resume": False}
    with serving(data) as (client, service):
        first = client.post("/train", json=train).headers["location"]
        second = client.post("/train", json=train).headers["location"]
        wait_until(lambda: client.get(first).json()["progress"] > 0, 30)
        assert client.delete(second).json()["state"] == "cancelled"
        assert client.delete(first).json()["state"] in ("cancelling", "cancelled")
        assert job_done(client, first, 10)["state"] == "cancelled"
        assert client.delete(first).status_code == 200
        third = client.post("/train", json=train).headers["location"]
        wait_until(lambda: client.get(third).json()["progress"] > 0, 30)
        (worker,) = [pid for pid in children(service.pid) if b"spawn_main" in command_of(pid)]
        os.kill(worker, signal.SIGKILL)
        killed = job_done(client, third, 10)
        assert killed["state"] == "interrupted"
        assert killed["error"].startswith("The worker was ended by SIGKILL")
        assert "same request" in killed["error"]
        assert f"POST {third}/resume" in killed["error"]
        fourth = client.post("/train", json=train).headers["location"]
        wait_until(lambda: client.get(fourth).json()["progress"] > 0, 60)
        service.kill()
        service.wait()
    assert not list((data / "results").glob("big*"))
    with serving(data) as (client, _):
        assert client.get(fourth).json()["state"] == "interrupted"
        assert client.get("/models").json() == []


def children(pid):
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((process / "stat").read_text().rsplit(")", 1)[1].split()[1])
        except (OSError, IndexError):
            continue
        if parent == pid:
            found.append(int(process.name))
    return found


def command_of(pid):
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def test_a_second_service_on_one_folder_is_refused(toy_data):
    settings = Settings(data=toy_data)
    with (
        TestClient(create_app(settings, with_worker=False)),
        pytest.raises(InUse, match="another service"),
        TestClient(create_app(settings, with_worker=False)),
    ):
        pass


def test_a_port_or_folder_in_use_is_refused_in_words(tmp_path, toy_data):
    with serving(shutil.copytree(toy_data, tmp_path / "data")) as (client, _):
        taken = environment(tmp_path / "other", client.base_url.port)
        for env, said in (
            (taken, "another port with GAP_PORT"),
            ({**taken, "GAP_DATA": str(tmp_path / "data")}, "another folder with GAP_DATA"),
        ):
            done = subprocess.run(
                [GAPSCOPE, "serve"], env=env, capture_output=True, text=True, check=False
            )
            assert done.returncode == 2
            assert done.stderr.startswith("refused (in_use): ")
            assert said in done.stderr


def test_ctrl_c_ends_the_service_quietly(tmp_path, toy_data):
    with serving(shutil.copytree(toy_data, tmp_path / "data")) as (_, service):
        for pid in (*children(service.pid), service.pid):
            os.kill(pid, signal.SIGINT)  # as a terminal does: to all of them
        assert service.wait(20) == 0
        assert children(service.pid) == []


def test_an_empty_folder_is_served_with_what_to_do(tmp_path):
    with TestClient(create_app(Settings(data=tmp_path / "data"), with_worker=False)) as client:
        assert client.get("/health").status_code == 200
        assert client.get("/ready").status_code == 503
        answer = client.post("/train", json={"backbone": "x", "seed": 0})
        assert (answer.status_code, answer.json()["code"]) == (503, "no_database")
        assert "gapscope demo" in answer.json()["detail"]
        assert "No data yet" in client.get("/").text


def test_a_damaged_database_is_named(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    (data / "gap.duckdb").write_bytes(b"not a database" * 1000)
    with TestClient(create_app(Settings(data=data), with_worker=False)) as client:
        answer = client.get("/splits")
        assert (answer.status_code, answer.json()["code"]) == (503, "no_database")


def test_the_worker_comes_back_when_it_dies(tmp_path):
    worker = Worker(tmp_path, None)
    worker.start()
    try:
        first = worker._process.pid
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: worker.is_alive and worker._process.pid != first, 10)
        assert Jobs(tmp_path).all() == []
    finally:
        worker.stop()
    assert not worker.is_alive


def test_a_job_that_does_not_listen_is_cancelled_within_two_seconds(tmp_path):
    """Its worker is killed, what it was writing is swept, and another one does the next job."""
    jobs, worker = Jobs(tmp_path), Worker(tmp_path, None, main=stubborn.work_on)
    worker.start()
    mine = Results(tmp_path)
    try:
        for _ in range(3):
            job = jobs.submit({}, "stubborn")
            after = jobs.submit({}, "quick")
            wait_until(lambda job=job: jobs.get(job.job).state == "running", 30)
            wait_until(lambda: list(tmp_path.glob(".new-*")), 5)
            with mine.held() as held:  # as the command line writes a model meanwhile
                asked = time.monotonic()
                assert jobs.cancel(job.job).state == "cancelling"
                assert jobs.cancel(job.job).state == "cancelling"
                wait_until(lambda job=job: jobs.get(job.job).state == "cancelled", 10)
                assert time.monotonic() - asked < 2
                wait_until(lambda after=after: jobs.get(after.job).state == "done", 30)
                assert list(tmp_path.glob(".new-*")) == [held]
            assert jobs.cancel(job.job).state == "cancelled"
    finally:
        worker.stop()
    assert not list(tmp_path.glob(".new-*"))


def test_a_sweep_leaves_alone_what_is_being_written(tmp_path):
    results = Results(tmp_path)
    (tmp_path / ".new-left").mkdir()
    (tmp_path / ".new-file").write_text("of a version before this one")
    with results.held() as held:
        (held / "half").write_text("half")
        Results(tmp_path).sweep()
        assert list(tmp_path.iterdir()) == [held]
    assert list(tmp_path.iterdir()) == []


def test_a_changed_backbone_is_told_from_the_one_trained_on(tmp_path, world):
    folder = tmp_path / "csv"
    for split in ("train", "val", "v2"):
        write_csv(folder / f"{split}_x.csv", world[split, "toy"])
    data = tmp_path / "data"
    load(data, [folder])
    with TestClient(create_app(Settings(data=data), with_worker=False)) as client:
        analysis = client.app.state.analysis
        analysis.train(model="m", backbone="x", head="lda", params={}, seed=0)
        before = client.post("/evaluate", json={"model": "m"}).json()
        # the same features in other places: scored anew
        rows = world["v2", "toy"]
        write_csv(folder / "v2_x.csv", Split(rows.paths, rows.labels, -rows.features))
        load(data, [folder])
        said = client.get("/gap/m").json()["summary"]
        assert not any("train file has changed" in sentence for sentence in said)
        after = client.post("/evaluate", json={"model": "m"}).json()
        assert after["splits"]["val"] == before["splits"]["val"]
        assert after["splits"]["v2"] != before["splits"]["v2"]
        # another train file: said so
        rows = world["train", "toy"]
        write_csv(folder / "train_x.csv", Split(rows.paths, rows.labels, rows.features + 1))
        load(data, [folder])
        said = client.get("/gap/m").json()["summary"]
        assert any("train file has changed" in sentence for sentence in said)
        # another length: refused
        for split in ("train", "val", "v2"):
            write_csv(folder / f"{split}_x.csv", world[split, "tiny"])
        load(data, [folder], replace=True)
        answer = client.post("/evaluate", json={"model": "m"})
        assert (answer.status_code, answer.json()["code"]) == (409, "data_changed")
        assert client.get("/?model=m").status_code == 200


def test_rows_that_a_model_learnt_from_are_never_its_test(tmp_path, world):
    """By path, and by file where the train file comes back under another name."""
    folder, data = tmp_path / "csv", tmp_path / "data"
    for split in ("train", "val", "v2"):
        write_csv(folder / f"{split}_x.csv", world[split, "toy"], path=split != "v2")
    load(data, [folder])
    analysis = Analysis(data)
    analysis.train(model="m", backbone="x", head="lda", params={}, seed=0)
    assert analysis.evaluate("m").gap is not None
    rows = world["train", "toy"]
    write_csv(
        tmp_path / "a" / "val_x.csv", Split(rows.paths[:5], rows.labels[:5], rows.features[:5])
    )
    shutil.copy(folder / "train_x.csv", tmp_path / "b_val_x.csv")
    for explicit in (f"val:x={tmp_path}/a/val_x.csv", f"val:x={tmp_path}/b_val_x.csv"):
        load(data, [folder / "v2_x.csv"], explicit=[explicit], replace=True)
        with pytest.raises(TestWasTrained, match="in 'val'"):
            analysis.evaluate("m")
        with pytest.raises(TestWasTrained):
            analysis.gap("m")
    # without paths: the very file tells
    write_csv(folder / "train_y.csv", rows, path=False)
    load(data, [folder / "train_y.csv", folder / "v2_x.csv"], replace=True)
    analysis.train(model="n", backbone="y", head="lda", params={}, seed=0)
    load(data, [], explicit=[f"val:y={folder}/train_y.csv"], replace=True)
    with pytest.raises(TestWasTrained, match="48 of them"):
        analysis.evaluate("n")


def test_classes_that_no_train_row_has_are_wrong_and_said_so(tmp_path, world):
    folder = tmp_path / "csv"
    rows = world["val", "toy"]
    write_csv(folder / "train_x.csv", world["train", "toy"])
    write_csv(folder / "val_x.csv", rows)
    write_csv(folder / "v2_x.csv", Split(
        [f"v2/{p}" for p in rows.paths], np.where(rows.labels == 2, 9, rows.labels), rows.features
    ))  # fmt: skip
    load(tmp_path / "data", [folder])
    with TestClient(create_app(Settings(data=tmp_path / "data"), with_worker=False)) as client:
        client.app.state.analysis.train(model="m", backbone="x", head="lda", params={}, seed=0)
        found = client.post("/evaluate", json={"model": "m"}).json()["splits"]
        assert found["v2"]["nll"]["estimate"] is None
        assert "5 images have a label" in found["v2"]["nll"]["reason"]
        assert found["v2"]["top1"]["estimate"] <= found["val"]["top1"]["estimate"]
        one_sided = {c["class_id"]: c for c in client.get("/gap/m").json()["classes"]}
        assert one_sided[9]["raw"] is None
        assert one_sided[9]["shrunken"]["reason"] == "no images of this class in the reference"
