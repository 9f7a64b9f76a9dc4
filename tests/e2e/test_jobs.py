"""Jobs in the real service: killed, stopped, told to stop, watched, sent twice, too many."""

import json
import os
import signal
import sqlite3
import threading
import time
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from etl import load
from service.app import create_app
from service.errors import QueueFull
from service.jobs import EXPLAIN, MAX_QUEUED, TRAIN, Jobs, Worker
from service.settings import Settings
from tests.e2e import stubborn
from tests.e2e.server import job_done, serving, wait_until
from tests.e2e.test_service import MANY, children, command_of
from tests.e2e.test_training_crash import head_of, one_thread  # noqa: F401 (a fixture)
from tests.world import write_balls

# a sweep of some seconds, with checkpoints on its way
SWEEP = {"backbone": "j", "head": "logistic", "seed": 0, "params": {"C": MANY["C"][:12]}}


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    folder = tmp_path_factory.mktemp("jobs")
    return write_balls(folder, "j", (20, 100), {"train": 3000, "val": 200, "v2": 200}, 0.25)


@pytest.fixture
def data(features, tmp_path):
    load(tmp_path / "data", [features])
    return tmp_path / "data"


def worker_of(service):
    (worker,) = [pid for pid in children(service.pid) if b"spawn_main" in command_of(pid)]
    return worker


def begun(client, name, **more):
    job = client.post("/train", json={**SWEEP, "name": name, **more}).headers["location"]
    wait_until(lambda: client.get(job).json()["progress"] > 0.1, 60)
    return job


def is_gone(pid):
    """Whether a process is over: what its dead parent left is a zombie until someone looks."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.mark.long
@pytest.mark.usefixtures("one_thread")
def test_what_is_killed_goes_on_by_itself_and_makes_the_same_head(data, record_property):
    with serving(data) as (client, service):
        undisturbed = client.post("/train", json={**SWEEP, "name": "undisturbed"})
        assert job_done(client, undisturbed.headers["location"])["state"] == "done"
        wanted = head_of(data, "undisturbed")
        # the worker alone: queued again by itself, and done
        job = begun(client, "worker-killed")
        os.kill(worker_of(service), signal.SIGKILL)
        assert job_done(client, job)["state"] == "done"
        assert head_of(data, "worker-killed") == wanted
        # the service alone: its worker ends too
        job = begun(client, "service-killed")
        worker = worker_of(service)
        service.kill()
        wait_until(lambda: is_gone(worker), 20)
    with serving(data) as (client, service):
        assert job_done(client, job)["state"] == "done"
        assert head_of(data, "service-killed") == wanted
        # both at once, and the machine comes back: nothing is shown as running
        job = begun(client, "both-killed", resume=False)
        for pid in (worker_of(service), service.pid):
            os.kill(pid, signal.SIGKILL)
    with serving(data) as (client, _):
        found = client.get(job).json()
        assert found["state"] == "interrupted"
        assert "The service stopped." in found["error"]
        client.post(f"{job}/resume")
        assert job_done(client, job)["state"] == "done"
        assert head_of(data, "both-killed") == wanted
    record_property("fault", ["jobs", "worker, service or both killed: the same head", 3])


def test_sigterm_ends_the_service_within_20_seconds_and_its_job_goes_on(data):
    with serving(data) as (client, service):
        job = begun(client, "drained")
        with client.stream("GET", "/jobs/events") as watched:  # holds up nothing
            lines = watched.iter_lines()
            assert next(lines).startswith("retry")
            began = time.monotonic()
            service.send_signal(signal.SIGTERM)
            for _ in lines:
                pass
            assert service.wait(20) in (0, -signal.SIGTERM)
        assert time.monotonic() - began < 20
    assert Jobs(data).get(job.removeprefix("/jobs/")).state == "queued"
    with serving(data) as (client, _):
        assert job_done(client, job)["state"] == "done"


def test_a_stream_that_was_cut_off_goes_on_where_it_was(data):
    with serving(data) as (client, _):
        job = client.post("/train", json={**SWEEP, "name": "watched"}).headers["location"]
        last, seen = first_event(client, {})
        assert [one["job"] for one in seen] == [job.removeprefix("/jobs/")]
        assert job_done(client, job)["state"] == "done"  # while nobody was watching
        again, seen = first_event(client, {"Last-Event-ID": last})
        assert int(again) > int(last)
        assert [(one["job"], one["state"]) for one in seen] == [
            (job.removeprefix("/jobs/"), "done")
        ]
        nothing_new = client.get("/jobs/events", headers={"Last-Event-ID": again}).text
        assert nothing_new.count("event:") == nothing_new.count("event: idle") == 1


def first_event(client, headers):
    with client.stream("GET", "/jobs/events", headers=headers) as stream:
        lines = stream.iter_lines()
        event_id = next(line for line in lines if line.startswith("id: "))
        data = next(line for line in lines if line.startswith("data: "))
    return event_id.removeprefix("id: "), json.loads(data.removeprefix("data: "))


def test_a_request_sent_twice_is_one_job(data):
    with serving(data) as (client, _):
        key = {"Idempotency-Key": "f3a6-once"}
        train = {"backbone": "j", "head": "lda", "seed": 0}
        answers = []
        threads = [
            threading.Thread(
                target=lambda: answers.append(client.post("/train", json=train, headers=key))
            )
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert {answer.status_code for answer in answers} == {202}
        assert len({answer.text for answer in answers}) == 1
        assert job_done(client, answers[0].headers["location"])["state"] == "done"
        assert client.post("/train", json=train, headers=key).json() == answers[0].json()
        other = client.post("/train", json={**train, "seed": 1}, headers=key)
        assert (other.status_code, other.json()["code"]) == (422, "key_reused")
        assert client.post("/train", json=train).json() != answers[0].json()
        bad = client.post("/train", json=train, headers={"Idempotency-Key": "a b"})
        assert bad.status_code == 422


def test_a_full_queue_says_when_to_come_again(data):
    jobs = Jobs(data)
    for i in range(MAX_QUEUED):
        jobs.submit({"explain": {"model": str(i)}}, str(i))
    with pytest.raises(QueueFull):
        jobs.submit({"explain": {}}, "m")
    for i in range(MAX_QUEUED):
        jobs.submit({"backbone": "none", "head": "lda", "seed": i, "model": f"m{i}"}, f"m{i}")
    with TestClient(create_app(Settings(data=data), with_worker=False)) as client:
        answer = client.post("/train", json={"backbone": "j", "head": "lda", "seed": 0})
        assert (answer.status_code, answer.json()["code"]) == (429, "queue_full")
        assert int(answer.headers["retry-after"]) > 0
        assert len(client.get("/jobs").json()) == 200
        assert len(client.get("/jobs?limit=3").json()) == 3


def test_a_monitor_finds_what_it_needs(data):
    with serving(data) as (client, _):
        job = begun(client, "monitored")
        found = samples(client)
        assert found["gapscope_jobs", ("train", "running")] == 1
        assert found["gapscope_jobs", ("explain", "queued")] == 0
        assert 0 <= found["gapscope_worker_heartbeat_age_seconds", ("train",)] < 5
        assert found["gapscope_rows", ("j", "read", "train")] == 3000
        assert found["gapscope_rows", ("j", "rejected", "v2")] == 0
        looks = found["gapscope_looks", ()]
        assert found["gapscope_disk_free_bytes", ()] > 0
        assert found["gapscope_memory_bytes", ("service",)] > 10e6
        assert found["gapscope_memory_bytes", ("train",)] > 10e6
        client.delete(job)
        lda = client.post("/train", json={"backbone": "j", "head": "lda", "seed": 0})
        job_done(client, lda.headers["location"])
        client.post("/evaluate", json={"model": "j-lda"})
        found = samples(client)
        assert found["gapscope_looks", ()] > looks
        counted = "gapscope_request_seconds_count"
        assert found[counted, ("POST", "/evaluate", "200")] == 1
        assert found[counted, ("GET", "/jobs/{job}", "200")] > 1


def samples(client):
    return {
        (sample.name, tuple(sample.labels[name] for name in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(client.get("/metrics").text)
        for sample in family.samples
        if "le" not in sample.labels
    }


@pytest.mark.parametrize("lane", [TRAIN, EXPLAIN])
def test_a_worker_that_hangs_is_taken_for_dead(tmp_path, lane):
    """SIGSTOP: the process is there, and gives no sign of life."""
    jobs = Jobs(tmp_path)
    worker = Worker(
        tmp_path,
        None,
        main=stubborn.work_on if lane == TRAIN else stubborn.explain_on,
        lane=lane,
        lease_s=2.0,
    )
    explain = {"explain": {}} if lane == EXPLAIN else {}
    job = jobs.submit(explain, "stubborn", resumes=0)
    worker.start()
    try:
        wait_until(lambda: jobs.get(job.job).state == "running", 30)
        assert worker.is_well
        os.kill(worker.pid, signal.SIGSTOP)
        began = time.monotonic()
        wait_until(lambda: jobs.get(job.job).state == "interrupted", 10)
        assert time.monotonic() - began < 5
        assert "no sign of life" in jobs.get(job.job).error
        after = jobs.submit(explain, "quick")
        wait_until(lambda: jobs.get(after.job).state == "done", 30)
    finally:
        worker.stop()


def test_the_watch_outlives_a_job_table_that_cannot_be_read(tmp_path, monkeypatch):
    worker = Worker(tmp_path, None, main=stubborn.work_on)
    worker.start()
    try:
        first = worker.pid
        with monkeypatch.context() as broken:

            def refuse(*_args):
                raise sqlite3.OperationalError("disk I/O error")

            broken.setattr(worker._jobs, "cancelling", refuse)
            time.sleep(0.6)
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: worker.is_alive and worker.pid != first, 10)
    finally:
        worker.stop()
