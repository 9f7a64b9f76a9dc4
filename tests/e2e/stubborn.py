"""A worker whose jobs never come to their next progress call, where `jobs.work_on` should be."""

import os
import signal
import time

from service.jobs import EXPLAIN, TRAIN, Jobs
from service.results import Results


def work_on(data, _n_threads, parent, lane=TRAIN):
    """Take a job, begin to write its model, and hang; a job called "quick" is done at once."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    jobs, results = Jobs(data), Results(data)
    while os.getppid() == parent:
        job = jobs.claim(lane)
        if job is None:
            time.sleep(0.05)
        elif job.model == "quick":
            jobs.finish(job, "done", "done")
        else:
            card = {"model": job.model}
            with results._new_folder(card):
                time.sleep(600)


def explain_on(data, n_threads, parent):
    work_on(data, n_threads, parent, EXPLAIN)
