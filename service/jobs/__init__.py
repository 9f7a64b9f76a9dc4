"""Jobs: the table that holds them, what a worker does with one, and who keeps the workers alive.

table.py    one SQLite file: submit, claim, report, finish, cancel, resume
work.py     the main function of a worker process
worker.py   starts that process, watches its heartbeat, settles what it left when it dies
"""

from service.jobs.table import (
    EXPLAIN,
    HYPOTHESIS,
    LANES,
    MASK,
    MAX_QUEUED,
    OPEN,
    OVER,
    REPORT,
    RESUMES,
    SELFTEST,
    STATES,
    SUGGEST,
    TRAIN,
    Job,
    Jobs,
)
from service.jobs.work import explain_on, work_on, work_one
from service.jobs.worker import LEASE_S, Worker, stop_all

__all__ = [
    "EXPLAIN",
    "HYPOTHESIS",
    "LANES",
    "LEASE_S",
    "MASK",
    "MAX_QUEUED",
    "OPEN",
    "OVER",
    "REPORT",
    "RESUMES",
    "SELFTEST",
    "STATES",
    "SUGGEST",
    "TRAIN",
    "Job",
    "Jobs",
    "Worker",
    "explain_on",
    "stop_all",
    "work_on",
    "work_one",
]
