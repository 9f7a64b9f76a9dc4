import logging
import sqlite3
import threading
from contextlib import closing, suppress
from datetime import datetime, timedelta

import pytest

from service.errors import JobDone, KeyReused, NotFound, NotResumable, QueueFull
from service.jobs import (
    EXPLAIN,
    LANES,
    MAX_QUEUED,
    STATES,
    TRAIN,
    Jobs,
    table,
    work,
    work_one,
)


class Refused(Exception):
    pass


@pytest.fixture
def jobs(tmp_path):
    return Jobs(tmp_path)


def test_a_job_goes_from_queued_to_done(jobs):
    seen = []

    def run(request, progress):
        progress(0.5, "half way")
        seen.append((request, jobs.get(job.job).state))
        progress(0.9, "nearly")

    job = jobs.submit({"head": "lda"}, "m")
    assert (job.state, jobs.open_models()) == ("queued", {"m"})
    assert work_one(jobs, run, ())
    done = jobs.get(job.job)
    assert (done.state, done.progress, done.error) == ("done", 1.0, None)
    assert seen == [({"head": "lda"}, "running")]
    assert jobs.open_models() == set()
    assert not work_one(jobs, run, ())


@pytest.mark.parametrize(
    ("request_", "kind"),
    [
        ({"head": "lda"}, "train"),
        ({"explain": {"model": "m"}, "part": "ledger"}, "explain"),
        ({"explain": {"model": "m"}, "mask": ["0"]}, "mask"),
    ],
)
def test_the_kind_of_a_job_follows_from_its_request(jobs, request_, kind):
    assert jobs.submit(request_, "m").kind == kind


def test_the_oldest_goes_first(jobs):
    names = ["a", "b", "c"]
    for name in names:
        jobs.submit({}, name)
    assert [jobs.claim().model for _ in names] == names
    assert jobs.claim() is None
    assert [job.model for job in jobs.all()] == names[::-1]


def test_two_workers_never_claim_one_job(jobs):
    for i in range(30):
        jobs.submit({}, str(i))
    claimed = []

    def drain():
        while (job := jobs.claim()) is not None:
            claimed.append(job.job)

    threads = [threading.Thread(target=drain) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(claimed) == len(set(claimed)) == 30


def test_refusals_speak_for_themselves_and_faults_keep_their_trace(jobs):
    def refuse(_request, _progress):
        raise Refused("wanted a, got b")

    def fault(_request, _progress):
        raise ZeroDivisionError("by zero")

    first, second = jobs.submit({}, "a"), jobs.submit({}, "b")
    assert work_one(jobs, refuse, (Refused,))
    assert work_one(jobs, fault, (Refused,))
    assert (jobs.get(first.job).state, jobs.get(first.job).error) == ("failed", "wanted a, got b")
    assert jobs.get(second.job).error == "ZeroDivisionError: by zero"


def test_a_queued_job_is_cancelled_at_once_and_twice_is_no_error(jobs):
    job = jobs.submit({}, "m")
    assert jobs.cancel(job.job).state == "cancelled"
    assert jobs.cancel(job.job).state == "cancelled"
    assert jobs.claim() is None


def test_a_running_job_stops_at_its_next_step(jobs):
    job = jobs.submit({}, "m")

    def run(_request, progress):
        found = jobs.cancel(job.job)
        assert (found.state, found.message, found.finished_at) == (
            "cancelling", "stops within two seconds", None,
        )  # fmt: skip
        progress(1.0, "next step")
        pytest.fail("went on")

    work_one(jobs, run, ())
    found = jobs.get(job.job)
    assert (found.state, found.finished_at is None) == ("cancelled", False)


def test_what_is_over_cannot_be_cancelled(jobs):
    job = jobs.submit({}, "m")
    work_one(jobs, lambda _r, _p: None, ())
    with pytest.raises(JobDone, match=r"^wanted a job that is not over, got one that is done\.$"):
        jobs.cancel(job.job)
    with pytest.raises(NotFound):
        jobs.cancel("none")


def test_jobs_of_a_dead_worker_are_interrupted(jobs, caplog):
    running, cancelling, queued = (jobs.submit({}, name, resumes=0) for name in "abc")
    jobs.claim()
    jobs.claim()
    jobs.cancel(cancelling.job)
    assert jobs.cancelling() == {cancelling.job}
    jobs.end_running(why="The worker was ended by SIGKILL.")
    states = [jobs.get(job.job).state for job in (running, cancelling, queued)]
    assert states == ["interrupted", "cancelled", "queued"]
    assert "same request" in jobs.get(running.job).error
    assert f"POST /jobs/{running.job}/resume" in jobs.get(running.job).error
    assert jobs.get(running.job).error.startswith("The worker was ended by SIGKILL. ")
    (told,) = caplog.records
    assert told.getMessage() == "interrupted: The worker was ended by SIGKILL."
    assert told.fields == {"job": running.job}
    before = jobs.all()
    jobs.end_running()
    assert jobs.all() == before


@pytest.mark.parametrize("lane", [TRAIN, EXPLAIN])
def test_a_job_goes_on_by_itself_twice_then_says_how_it_goes_on(jobs, lane):
    job = jobs.submit({"explain": {}} if lane == EXPLAIN else {}, "m")
    other = jobs.submit({} if lane == EXPLAIN else {"explain": {}}, "n")
    states = []
    for _ in range(3):
        assert jobs.claim(lane).job == job.job
        jobs.end_running(lane=lane)
        states.append(jobs.get(job.job).state)
    assert states == ["queued", "queued", "interrupted"]
    assert jobs.get(other.job).state == "queued"
    assert jobs.resume(job.job).state == "queued"
    jobs.claim(lane)
    jobs.end_running(lane=lane)
    assert jobs.get(job.job).state == "interrupted"  # resuming by hand gives no more of them


def test_a_planned_stop_uses_up_no_resume(jobs, caplog):
    job, told_not_to = jobs.submit({}, "m"), jobs.submit({}, "n", resumes=0)
    for _ in range(5):
        jobs.claim()
        jobs.end_running(is_planned=True)
        assert jobs.get(job.job).state == "queued"
    assert not caplog.records  # nothing was interrupted
    jobs.claim()
    jobs.claim()
    jobs.end_running(is_planned=True)
    assert jobs.get(told_not_to.job).state == "interrupted"


def test_a_job_whose_model_is_there_was_done_even_where_it_was_to_be_cancelled(jobs):
    running, cancelling, other = (jobs.submit({}, name, resumes=0) for name in "abc")
    for _ in range(3):
        jobs.claim()
    jobs.cancel(cancelling.job)
    jobs.end_running(lambda job: job.model != "c")
    states = [jobs.get(job.job).state for job in (running, cancelling, other)]
    assert states == ["done", "done", "interrupted"]


def test_a_job_begun_while_its_worker_was_killed_for_another_is_queued_again(jobs):
    late, next_one = jobs.submit({}, "a"), jobs.submit({}, "b", resumes=0)
    for _ in range(2):
        jobs.claim()
    jobs.cancel(late.job)
    jobs.end_running(killed_for=late.job)
    assert jobs.get(late.job).state == "cancelled"
    assert jobs.get(next_one.job).state == "queued"
    assert jobs.claim().job == next_one.job


def test_a_worker_that_was_taken_for_dead_writes_nothing_any_more(jobs):
    submitted = jobs.submit({}, "m")

    def run(_request, progress):
        jobs.end_running()  # while it works, it is taken for dead, and another one claims its job
        assert jobs.claim().lease != first[0]
        progress(1.0, "next step")
        pytest.fail("went on")

    first = []
    claim = jobs.claim
    jobs.claim = lambda lane=TRAIN: (job := claim(lane), first.append(job.lease))[0]
    assert work_one(jobs, run, ())
    now = jobs.get(submitted.job)
    assert (now.state, now.message, now.progress) == ("running", "started", 0)


def test_a_worker_that_is_to_stop_leaves_its_job_as_it_is(jobs):
    job, told = jobs.submit({}, "m"), []

    def run(_request, progress):
        told.append(True)
        progress(0.5, "next step")
        pytest.fail("went on")

    assert work_one(jobs, run, (), must_stop=lambda: bool(told))
    assert jobs.get(job.job).state == "running"
    jobs.end_running(is_planned=True)
    assert jobs.get(job.job).state == "queued"


def test_the_end_of_a_job_is_written_when_the_disk_has_room_again(jobs, monkeypatch):
    monkeypatch.setattr(work, "_RETRY_S", 0.01)
    job, write, left = jobs.submit({}, "m"), jobs.finish, [3]

    def full(*end):
        left[0] -= 1
        if left[0]:
            raise sqlite3.OperationalError("database or disk is full")
        write(*end)

    monkeypatch.setattr(jobs, "finish", full)
    work_one(jobs, lambda _r, _p: None, ())
    assert jobs.get(job.job).state == "done"


def test_progress_that_finds_no_room_does_not_end_a_job(jobs, monkeypatch):
    job, connect, left = jobs.submit({}, "m"), jobs._connect, [1]

    def run(_request, progress):
        monkeypatch.setattr(jobs, "_connect", full)
        progress(1.0, "next step")

    def full():
        left[0] -= 1
        if left[0] == 0:
            raise sqlite3.OperationalError("database or disk is full")
        return connect()

    work_one(jobs, run, ())
    assert jobs.get(job.job).state == "done"


def test_a_queue_has_an_end(jobs):
    for i in range(MAX_QUEUED):
        last = jobs.submit({}, str(i))
    with pytest.raises(QueueFull) as refused:
        jobs.submit({}, "one too many")
    assert str(refused.value) == (
        f"wanted a queue with room, got one where {MAX_QUEUED} jobs wait. Try again when some are "
        "over: GET /jobs shows them, DELETE /jobs/{job} cancels one."
    )
    assert jobs.submit({"explain": {}}, "in the other queue").state == "queued"
    jobs.cancel(last.job)
    jobs.submit({}, "in its place")
    with pytest.raises(QueueFull):
        jobs.resume(last.job)
    assert jobs.counts()[TRAIN, "queued"] == MAX_QUEUED
    assert (jobs.counts()[EXPLAIN, "queued"], jobs.counts()[TRAIN, "cancelled"]) == (1, 1)


def test_of_many_at_once_no_more_than_there_is_room_for_are_queued(jobs):
    for i in range(MAX_QUEUED - 3):
        jobs.submit({}, str(i))
    taken = []

    def submit():
        with suppress(QueueFull):
            taken.append(jobs.submit({}, "m"))

    threads = [threading.Thread(target=submit) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == 3


def test_a_request_sent_twice_under_a_key_is_one_job(jobs):
    assert jobs.sent_before("k", {"a": 1}) is None
    job = jobs.submit({}, "m", key="k", asked={"a": 1})
    assert jobs.sent_before("k", {"a": 1}) == job
    assert jobs.sent_before(None, {"a": 1}) is None
    with pytest.raises(KeyReused, match=job.job):
        jobs.sent_before("k", {"a": 2})
    jobs.submit({}, "m")
    jobs.submit({}, "m")  # two without a key are two


def test_a_request_is_the_same_whatever_the_order_of_its_names(jobs):
    job = jobs.submit({}, "m", key="k", asked={"a": 1, "b": 2})
    assert jobs.sent_before("k", {"b": 2, "a": 1}) == job


def test_the_log_tells_what_becomes_of_a_job(jobs, caplog):
    caplog.set_level(logging.INFO, logger="gapscope.jobs")
    job = jobs.submit({"explain": {"model": "m"}}, "m")
    jobs.cancel(job.job)
    jobs.resume(job.job)
    for is_planned in (True, False):
        jobs.claim(EXPLAIN)
        jobs.end_running(lane=EXPLAIN, why="It died.", is_planned=is_planned)
    assert [(told.levelname, told.getMessage()) for told in caplog.records] == [
        ("INFO", "queued: explain for m"),
        ("INFO", "asked to stop: it is cancelled"),
        ("INFO", "resumed: queued again"),
        ("INFO", "queued again: It died."),
        ("WARNING", "queued again: It died."),
    ]
    assert all(told.fields == {"job": job.job} for told in caplog.records)


def test_times_say_that_they_are_of_greenwich(jobs):
    job = jobs.submit({}, "m")
    work_one(jobs, lambda _request, _progress: None, ())
    for time in (job.created_at, jobs.get(job.job).finished_at):
        assert datetime.fromisoformat(time).utcoffset() == timedelta(0)


def test_the_folder_of_the_table_is_made(tmp_path):
    assert Jobs(tmp_path / "a" / "b").all() == []


def test_changes_are_told_in_their_order(jobs):
    first, second = jobs.submit({}, "a"), jobs.submit({}, "b")
    assert [job.job for job in jobs.changed_since(0)] == [first.job, second.job]
    last = second.changed
    claimed = jobs.claim()
    jobs.report(claimed, 0.5, "half way")
    (changed,) = jobs.changed_since(last)
    assert (changed.job, changed.progress) == (first.job, 0.5)
    assert jobs.changed_since(changed.changed) == []


def test_an_interrupted_job_is_cancelled_for_good(jobs):
    job = jobs.submit({}, "m", resumes=0)
    jobs.claim()
    jobs.end_running()
    cancelled = jobs.cancel(job.job)
    assert (cancelled.state, cancelled.error) == ("cancelled", None)
    assert jobs.cancel(job.job).state == "cancelled"


def test_a_table_of_the_first_version_is_read_on(tmp_path):
    with closing(sqlite3.connect(tmp_path / "jobs.sqlite")) as con:
        con.execute(table._SCHEMA)
        con.execute(
            "insert into job (job, request, model, state, created_at) "
            "values ('old', '{}', 'm', 'queued', '2026-01-01T00:00:00+00:00')"
        )
        con.commit()
    jobs = Jobs(tmp_path)
    assert jobs.claim().job == "old"
    assert jobs.get("old").changed > 0


def test_what_is_over_does_not_change(jobs):
    job = jobs.submit({}, "m")
    assert work_one(jobs, lambda _r, _p: "a note", ())
    assert jobs.get(job.job).message == "done; a note"
    before = jobs.get(job.job)
    jobs.finish(before, "cancelled", "too late")
    assert jobs.get(job.job) == before


def test_a_job_that_is_over_and_not_done_is_resumed_under_its_id(jobs):
    def fault(_request, _progress):
        raise ZeroDivisionError("by zero")

    failed = jobs.submit({"seed": 3}, "m")
    work_one(jobs, fault, ())
    again = jobs.resume(failed.job)
    assert (again.job, again.state, again.error, again.request) == (
        failed.job, "queued", None, {"seed": 3},
    )  # fmt: skip
    with pytest.raises(
        NotResumable, match="interrupted, failed or cancelled, got one that is queued"
    ):
        jobs.resume(failed.job)
    work_one(jobs, lambda _r, _p: None, ())
    assert jobs.get(failed.job).state == "done"
    with pytest.raises(NotResumable, match="done"):
        jobs.resume(failed.job)
    with pytest.raises(NotFound, match="wanted a job of this service, got 'none'"):
        jobs.resume("none")
    cancelled = jobs.submit({}, "n")
    jobs.cancel(cancelled.job)
    assert jobs.resume(cancelled.job).state == "queued"


def test_what_is_open_waits_or_runs(jobs):
    first, second, third = (jobs.submit({"seed": i}, str(i)) for i in range(3))
    explain = jobs.submit({"explain": {"model": "m"}}, "m")
    assert [job.job for job in jobs.open()] == [
        explain.job, third.job, second.job, first.job
    ]  # fmt: skip
    assert [job.job for job in jobs.all(2)] == [explain.job, third.job]
    assert (first.kind, first.lane) == (TRAIN, TRAIN)
    assert (explain.kind, explain.lane) == (EXPLAIN, EXPLAIN)
    assert jobs.find_open({"seed": 1}) == second
    assert jobs.find_open({"seed": 9}) is None
    assert jobs.open_models() == {"0", "1", "2"}
    assert jobs.has_queued(EXPLAIN)
    jobs.claim(EXPLAIN)
    assert not jobs.has_queued(EXPLAIN)
    assert jobs.has_queued(TRAIN)
    assert jobs.find_open({"explain": {"model": "m"}}).state == "running"
    jobs.cancel(second.job)
    assert jobs.find_open({"seed": 1}) is None
    assert jobs.open_models() == {"0", "2"}
    assert jobs.counts() == {(lane, state): 0 for lane in LANES for state in STATES} | {
        (TRAIN, "queued"): 2, (TRAIN, "cancelled"): 1, (EXPLAIN, "running"): 1,
    }  # fmt: skip


def test_the_end_of_a_worker_settles_its_own_lane_in_known_words(jobs):
    done, cancelled, lost = (jobs.submit({}, name, resumes=0) for name in "abc")
    other = jobs.submit({"explain": {}}, "m", resumes=0)
    for _ in range(3):
        jobs.claim()
    jobs.claim(EXPLAIN)
    jobs.cancel(cancelled.job)
    jobs.end_running(lambda job: job.model == "a")
    assert jobs.get(other.job).state == "running"
    found = [jobs.get(job.job) for job in (done, cancelled, lost)]
    assert [(job.state, job.message) for job in found] == [
        ("done", "done"), ("cancelled", "cancelled"),
        ("interrupted", "the worker stopped before the job was done"),
    ]  # fmt: skip
    assert found[2].error == (
        f"The worker or the service stopped. Go on: POST /jobs/{lost.job}/resume; the same request "
        "gives the same answer."
    )
