"""What keeps a worker alive, and what it runs, without a process of its own."""

import os
import signal
import sqlite3
import threading
import time
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest

from service.errors import DamagedModel
from service.jobs import EXPLAIN, TRAIN, Jobs, Worker, explain_on, stop_all, work, work_on, worker
from tests.e2e.server import wait_until


class Process:
    """A process that ends when it is killed, and, where it listens, when it is told to."""

    def __init__(self, *, listens):
        self.listens, self.pid, self.exitcode = listens, 1, None

    def is_alive(self):
        return self.exitcode is None

    def terminate(self):
        self.exitcode = 0 if self.listens else None

    def kill(self):
        self.exitcode = -signal.SIGKILL

    def join(self, timeout=None):
        pass


def test_the_worker_for_explanations_starts_with_the_first_of_them(tmp_path):
    explainer = Worker(tmp_path, None, lane=EXPLAIN)
    explainer._look()
    explainer.start()
    assert (explainer.pid, explainer.beat_age_s) == (None, None)
    assert not explainer.is_alive
    assert not explainer.is_well
    stop_all([explainer])


@pytest.mark.parametrize("listens", [True, False])
def test_a_worker_that_does_not_stop_when_told_to_is_killed(tmp_path, monkeypatch, listens):
    jobs, process = Jobs(tmp_path), Process(listens=listens)
    explainer = Worker(tmp_path, None, lane=EXPLAIN)

    def spawn():
        explainer._process = process
        explainer._beat = SimpleNamespace(value=time.monotonic() + 60)

    monkeypatch.setattr(explainer, "_spawn", spawn)
    job = jobs.submit({"explain": {}}, "m")
    explainer.start()
    wait_until(lambda: explainer.is_well, 10)
    assert (explainer.pid, explainer.beat_age_s) == (1, 0)
    jobs.claim(EXPLAIN)
    explainer.stop()
    assert process.exitcode == (0 if listens else -signal.SIGKILL)
    assert jobs.get(job.job).state == "queued"


@pytest.mark.parametrize(
    "error",
    [
        sqlite3.OperationalError("database or disk is full"),
        BlockingIOError(11, "Resource temporarily unavailable"),  # fork, at the limit of processes
        OSError(24, "Too many open files"),
        DamagedModel("changed by another hand"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_whatever_goes_wrong_once_the_worker_is_looked_after_again(tmp_path, monkeypatch, error):
    looks, explainer = [], Worker(tmp_path, None, lane=EXPLAIN)

    def look():
        looks.append(1)
        if len(looks) == 1:
            raise error

    monkeypatch.setattr(worker, "_POLL_S", 0.01)
    monkeypatch.setattr(explainer, "_look", look)
    explainer.start()
    wait_until(lambda: len(looks) > 2, 10)
    explainer.stop()


def test_a_job_was_not_done_where_its_model_is_damaged(tmp_path):
    one = Worker(tmp_path, None)
    one._results = SimpleNamespace(
        has=lambda _model: True, card=MagicMock(side_effect=DamagedModel("changed"))
    )
    assert not one._made(Jobs(tmp_path).submit(ASKED, "m"))


ASKED = {"backbone": "b", "head": "lda", "seed": 0}


@pytest.mark.parametrize(
    ("card", "lane", "made"),
    [
        (ASKED, TRAIN, True),
        ({**ASKED, "seed": 1}, TRAIN, False),
        ({**ASKED, "created_at": "2001-01-01T00:00:00"}, TRAIN, False),  # of another job before
        (None, TRAIN, False),
        (ASKED, EXPLAIN, False),
    ],
)
def test_a_job_was_done_where_its_own_model_is_there(tmp_path, card, lane, made):
    job = Jobs(tmp_path).submit(ASKED, "m")
    later = (datetime.now(UTC) + timedelta(seconds=1)).replace(tzinfo=None).isoformat()
    one = Worker(tmp_path, None, lane=lane)
    one._results = SimpleNamespace(
        has=lambda model: card is not None and model == "m",
        card=lambda _model: {"created_at": later, **card},
    )
    assert one._made(job) is made


def test_a_worker_beats_while_the_service_lives_and_ends_with_it(tmp_path, monkeypatch):
    beat, ended = SimpleNamespace(value=0.0), threading.Event()
    codes, niced, called = [], [], []
    lives = iter([True, True])
    monkeypatch.setattr(worker, "_BEAT_S", 0.01)
    monkeypatch.setattr(os, "getppid", lambda: 7 if next(lives, False) else 1)
    monkeypatch.setattr(os, "_exit", lambda code: (codes.append(code), ended.set()))
    monkeypatch.setattr(os, "nice", niced.append)

    def main(*given):
        called.append(given)
        assert ended.wait(10)

    began = time.monotonic()
    worker._work(main, tmp_path, 2, 7, beat)
    assert began <= beat.value <= time.monotonic()
    assert (codes, niced, called) == ([1], [10], [(tmp_path, 2, 7)])


@pytest.mark.parametrize(("main", "lane"), [(work_on, TRAIN), (explain_on, EXPLAIN)])
@pytest.mark.parametrize("n_threads", [None, 1])
def test_a_worker_works_until_it_is_told_to_stop(tmp_path, monkeypatch, main, lane, n_threads):
    handlers, said, threads = {}, [], []
    monkeypatch.setattr(signal, "signal", handlers.__setitem__)
    monkeypatch.setattr(work.logs, "configure", said.append)
    monkeypatch.setattr("torch.set_num_threads", threads.append)
    monkeypatch.setattr(work, "_do", lambda _analysis, request, _progress: request["say"])
    jobs, claim, full = Jobs(tmp_path), Jobs.claim, [True]

    def claim_where_there_is_room(*given):
        if full:
            full.clear()
            raise sqlite3.OperationalError("database or disk is full")
        return claim(*given)

    def sleep(_seconds):  # the second time, all is done
        if jobs.get(job.job).state == "done":
            handlers[signal.SIGTERM](signal.SIGTERM, None)

    monkeypatch.setattr(Jobs, "claim", claim_where_there_is_room)
    monkeypatch.setattr(work.time, "sleep", sleep)
    request = {"say": "all of it"} | ({"explain": {}} if lane == EXPLAIN else {})
    job = jobs.submit(request, "m")
    main(tmp_path, n_threads, os.getppid())
    assert jobs.get(job.job).message == "done; all of it"
    assert handlers[signal.SIGINT] is signal.SIG_IGN
    assert threads == ([n_threads] if n_threads else [])
    main(tmp_path, n_threads, os.getppid() + 1)  # the service is gone: at once over


@pytest.mark.parametrize(
    ("request_", "done", "said"),
    [
        ({"head": "lda"}, "train", "a note"),
        ({"hypothesis": "h1"}, "Hypotheses().test", "It holds."),
        ({"hypothesis": "h0"}, "Hypotheses().test", ""),
        ({"report": {}, "explain": {}}, "make_and_keep", "report r1"),
        ({"suggest": True, "explain": {"model": "m"}}, "Hypotheses().suggest", ""),
        ({"explain": {"model": "m"}}, "Question().compute", ""),
        ({"mask": ["0"], "explain": {"model": "m"}}, "Question().mask", ""),
        ({"selftest": {"n": 1}, "explain": {"model": "m"}}, "run", ""),
    ],
)
def test_each_kind_of_job_is_done_by_what_does_it(monkeypatch, request_, done, said):
    called = MagicMock()
    for place in ("service.selftest.run", "service.gap.explaining.Question",
                  "service.hypotheses.testing.Hypotheses",
                  "service.report.kept.make_and_keep"):  # fmt: skip
        monkeypatch.setattr(place, getattr(called, place.rpartition(".")[2]))
    called.train.side_effect = lambda note, **_: note("a note")
    sentence = SimpleNamespace(sentence="It holds.") if request_.get("hypothesis") == "h1" else None
    called.Hypotheses.return_value.test.return_value.result = sentence
    called.make_and_keep.return_value.report = "r1"
    assert work._do(called, request_, lambda _share, _message: None) == said
    assert called.mock_calls[-1][0] == done


@pytest.mark.parametrize("age_s", [0, 40])
def test_who_gives_no_sign_of_life_is_ended_and_another_takes_its_place(
    tmp_path, monkeypatch, age_s
):
    jobs, process, spawned = Jobs(tmp_path), Process(listens=True), []
    one = Worker(tmp_path, None)
    one._process, one._beat = process, SimpleNamespace(value=time.monotonic() - age_s)
    monkeypatch.setattr(one, "_spawn", lambda: spawned.append(process.exitcode))
    job = jobs.submit({}, "m", resumes=0)
    jobs.claim()
    one._look()
    if not age_s:
        assert (spawned, jobs.get(job.job).state) == ([], "running")
        process.exitcode = 3
        one._look()
    said = "no sign of life for 40 seconds" if age_s else "The worker ended with code 3."
    assert spawned == [-signal.SIGKILL if age_s else 3]
    assert said in jobs.get(job.job).error


def test_a_job_that_does_not_hear_that_it_is_cancelled_is_ended(tmp_path, monkeypatch):
    jobs, process = Jobs(tmp_path), Process(listens=False)
    one = Worker(tmp_path, None)
    one._process, one._beat = process, SimpleNamespace(value=time.monotonic())
    monkeypatch.setattr(one, "_spawn", lambda: None)
    job = jobs.submit({}, "m")
    jobs.claim()
    jobs.cancel(job.job)
    one._look()
    assert process.is_alive()  # it may hear it yet
    monkeypatch.setattr(worker, "_GRACE_S", -1)
    one._look()
    assert (process.exitcode, jobs.get(job.job).state) == (-signal.SIGKILL, "cancelled")


def test_the_watch_goes_on_where_the_table_cannot_be_read(tmp_path, monkeypatch):
    one, looks = Worker(tmp_path, None, lane=EXPLAIN), []

    def look():
        looks.append(1)
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(one, "_look", look)
    one.start()
    wait_until(lambda: len(looks) > 1, 10)
    one.stop()


def test_progress_is_written_five_times_a_second_and_an_end_not_against_a_stop(tmp_path):
    jobs, told = Jobs(tmp_path), []
    job = jobs.submit({}, "m")

    def run(_request, progress):
        progress(1.0, "first")
        progress(0.5, "too soon")
        assert jobs.get(job.job).message == "first"
        told.append(True)

    work.work_one(jobs, run, (), must_stop=lambda: bool(told))
    assert jobs.get(job.job).state == "running"  # as it was: whoever stops it settles it
