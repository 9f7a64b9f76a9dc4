import threading

import pytest

from service.errors import JobDone, NotFound, NotResumable
from service.jobs import Jobs, work_one


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
        progress(1.0, "nearly")

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
        assert jobs.cancel(job.job).state == "cancelling"
        progress(1.0, "next step")
        pytest.fail("went on")

    work_one(jobs, run, ())
    assert jobs.get(job.job).state == "cancelled"


def test_what_is_over_cannot_be_cancelled(jobs):
    job = jobs.submit({}, "m")
    work_one(jobs, lambda _r, _p: None, ())
    with pytest.raises(JobDone):
        jobs.cancel(job.job)
    with pytest.raises(NotFound):
        jobs.cancel("none")


def test_jobs_of_a_dead_worker_are_interrupted(jobs):
    running, cancelling, queued = (jobs.submit({}, name) for name in "abc")
    jobs.claim()
    jobs.claim()
    jobs.cancel(cancelling.job)
    assert jobs.cancelling() == {cancelling.job}
    jobs.end_running()
    states = [jobs.get(job.job).state for job in (running, cancelling, queued)]
    assert states == ["interrupted", "cancelled", "queued"]
    assert "same request" in jobs.get(running.job).error
    assert f"POST /jobs/{running.job}/resume" in jobs.get(running.job).error
    before = jobs.all()
    jobs.end_running()
    assert jobs.all() == before


def test_a_job_whose_model_is_there_was_done_even_where_it_was_to_be_cancelled(jobs):
    running, cancelling, other = (jobs.submit({}, name) for name in "abc")
    for _ in range(3):
        jobs.claim()
    jobs.cancel(cancelling.job)
    jobs.end_running(lambda job: job.model != "c")
    states = [jobs.get(job.job).state for job in (running, cancelling, other)]
    assert states == ["done", "done", "interrupted"]


def test_a_job_begun_while_its_worker_was_killed_for_another_is_queued_again(jobs):
    late, next_one = jobs.submit({}, "a"), jobs.submit({}, "b")
    for _ in range(2):
        jobs.claim()
    jobs.cancel(late.job)
    jobs.end_running(killed=late.job)
    assert jobs.get(late.job).state == "cancelled"
    assert jobs.get(next_one.job).state == "queued"
    assert jobs.claim().job == next_one.job


def test_what_is_over_does_not_change(jobs):
    job = jobs.submit({}, "m")
    assert work_one(jobs, lambda _r, _p: "a note", ())
    assert jobs.get(job.job).message == "done; a note"
    before = jobs.get(job.job)
    jobs.finish(job.job, "cancelled", "too late")
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
    with pytest.raises(NotResumable, match="queued"):
        jobs.resume(failed.job)
    work_one(jobs, lambda _r, _p: None, ())
    assert jobs.get(failed.job).state == "done"
    with pytest.raises(NotResumable, match="done"):
        jobs.resume(failed.job)
    with pytest.raises(NotFound):
        jobs.resume("none")
    cancelled = jobs.submit({}, "n")
    jobs.cancel(cancelled.job)
    assert jobs.resume(cancelled.job).state == "queued"
