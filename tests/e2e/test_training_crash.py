"""Trainings that are killed or cancelled at any moment: a whole model or none, and the same one.

After each the service answers, no half model is listed anywhere, nothing is left lying about, and
the training, resumed or given again, makes the head of an undisturbed one, bit for bit.
"""

import os
import signal
import subprocess
import threading
import time
from collections import Counter

import duckdb
import httpx
import numpy as np
import pytest

from etl import load
from etl.database import attach
from service.results import Results
from tests.e2e.server import GAPSCOPE, environment, job_done, serving, wait_until
from tests.e2e.test_service import children, command_of
from tests.world import write_balls

GRID = [0.01 * 1.5**i for i in range(12)]
TRAIN = {"backbone": "c", "head": "logistic", "seed": 0, "params": {"C": GRID}, "resume": False}


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    folder = tmp_path_factory.mktemp("training")
    return write_balls(folder, "c", (20, 80), {"train": 1500, "val": 100, "v2": 100}, 0.3)


@pytest.fixture
def one_thread(monkeypatch):
    """Sums of float32 depend on how many add them up."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


class Listing(threading.Thread):
    """Looks all the time at what is listed, in three ways; `faults` has what was half."""

    def __init__(self, data, url):
        super().__init__(daemon=True)
        self._data, self._url, self._stop_it = data, url, threading.Event()
        self.faults, self.n_looks = [], 0

    def run(self):
        results = Results(self._data)
        con = duckdb.connect()
        attach(con, self._data)
        with httpx.Client(base_url=self._url, timeout=30) as client:
            while not self._stop_it.wait(0.3):
                by_service = [card["model"] for card in client.get("/models").json()]
                by_sql = [row[0] for row in con.execute("select model from model").fetchall()]
                by_file = [card["model"] for card in results.models()]
                for model in {*by_service, *by_sql, *by_file}:
                    try:
                        assert results.head(model).n_features == 80
                        assert results.learnt_from(model, ["train/0.png"]).all()
                        assert results.feature_names(model) is not None
                    except Exception as error:  # noqa: BLE001 (whatever it is, it is the finding)
                        self.faults.append((model, repr(error)))
                self.n_looks += 1
        con.close()

    def end(self):
        self._stop_it.set()
        self.join()
        assert self.n_looks > 10
        assert self.faults == []


def head_of(data, model):
    return (data / "results" / model / "head.safetensors").read_bytes()


def command_line(data, model):
    line = [GAPSCOPE, "train", "c", "--head", "logistic", "--seed", "0", "--name", model]
    line += ["--params", str({"C": GRID}).replace("'", '"')]
    return subprocess.Popen(line, env=environment(data), stdout=subprocess.PIPE, stderr=-1)


def disturb(features, data, n, seed):
    """Kill the worker, cancel, and kill the command line in turns, at n random moments.

    Returns
    -------
    Counter of (what was done, what came of it)
    """
    rng = np.random.default_rng(seed)
    load(data, [features])
    outcomes = Counter()
    with serving(data) as (client, service):
        listing = Listing(data, str(client.base_url))
        began = time.monotonic()
        with command_line(data, "undisturbed") as process:
            assert process.wait() == 0
        command_s = time.monotonic() - began
        wanted = head_of(data, "undisturbed")
        job = client.post("/train", json={**TRAIN, "name": "by-worker"}).headers["location"]
        wait_until(lambda: client.get(job).json()["state"] != "queued", 60)
        began = time.monotonic()
        assert job_done(client, job)["state"] == "done"
        job_s = time.monotonic() - began
        assert head_of(data, "by-worker") == wanted
        listing.start()
        moments = rng.permutation((np.arange(n) + rng.random(n)) / n) * 1.05
        for i, moment in enumerate(moments):
            model, how = f"m{i}", ("kill the worker", "cancel", "kill the command")[i % 3]
            if how == "kill the command":
                # from where its imports end
                with command_line(data, model) as process:
                    time.sleep(command_s - job_s + float(moment) * job_s)
                    process.kill()
                there = Results(data).has(model)
                outcomes[how, "done" if there else "nothing"] += 1
                if not there:
                    with command_line(data, model) as process:
                        assert process.wait() == 0
            else:
                disturb_job(client, service, model, how, float(moment) * job_s, outcomes)
            assert client.get("/health").json() == {"status": "ok"}
            assert head_of(data, model) == wanted, (how, moment)
        listing.end()
        listed = {card["model"] for card in client.get("/models").json()}
        assert listed == {"undisturbed", "by-worker", *(f"m{i}" for i in range(n))}
        assert {job["state"] for job in client.get("/jobs").json()} == {"done"}
    Results(data).sweep()  # what the command left, as the next service does at its start
    left = {file.name for file in data.iterdir()}
    assert not {name for name in left if name.startswith(".new-")}
    assert not list((data / "checkpoints").glob("*"))
    print(f"a training lasts {job_s:.1f} s, the command {command_s:.1f} s")
    return outcomes


def disturb_job(client, service, model, how, after_s, outcomes):
    """Disturb one job after so many seconds, and resume it where it was not done."""
    job = client.post("/train", json={**TRAIN, "name": model}).headers["location"]
    wait_until(lambda: client.get(job).json()["state"] != "queued", 60)
    time.sleep(after_s)
    asked = time.monotonic()
    if how == "cancel":
        status = client.delete(job).status_code
    else:
        workers = [p for p in children(service.pid) if b"spawn_main" in command_of(p)]
        os.kill(workers[0], signal.SIGKILL)
        # a worker that idles may die too; the job is then done already
    over = job_done(client, job, 10)
    took_s = time.monotonic() - asked
    listed = model in [card["model"] for card in client.get("/models").json()]
    assert listed == (over["state"] == "done"), over
    outcomes[how, over["state"]] += 1
    if how == "cancel":
        assert took_s < 2
        assert status == (409 if over["state"] == "done" and status == 409 else 200)
    if over["state"] == "done":
        assert client.post(f"{job}/resume").status_code == 409
        return
    assert over["state"] == ("cancelled" if how == "cancel" else "interrupted")
    again = client.post(f"{job}/resume")
    assert (again.status_code, again.headers["location"]) == (202, job)
    assert client.post(f"{job}/resume").json()["code"] == "not_resumable"
    assert job_done(client, job)["state"] == "done"


def report(outcomes, record_property):
    for (how, what), n in outcomes.items():
        print(f"{how}: {what} {n}")
    record_property("fault", ["trainings", "disturbed: a whole model or none", outcomes.total()])


@pytest.mark.long
def test_five_disturbed_trainings(features, tmp_path, one_thread, record_property):
    outcomes = disturb(features, tmp_path / "data", 5, seed=0)
    report(outcomes, record_property)
    assert outcomes.total() == 5


@pytest.mark.slow
def test_thirty_disturbed_trainings(features, tmp_path, one_thread, record_property):
    outcomes = disturb(features, tmp_path / "data", 30, seed=1)
    report(outcomes, record_property)
    assert outcomes.total() == 30
    assert sum(n for (_, what), n in outcomes.items() if what != "done") > 10
