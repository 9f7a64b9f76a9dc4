"""What a monitor asks for: requests, queues, heartbeats, rows, looks, disk, memory (Prometheus)."""

import os
import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from service.database import Database
from service.errors import NoDatabase
from service.jobs import Jobs, Worker
from service.looks import Looks

_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 1, 2, 5, 10, 30, 60)


class Metrics:
    """The metrics of one service; gauges are read when they are asked for.

    Parameters
    ----------
    database, jobs, looks
        What is measured; the disk is that of the database.
    workers
        Those of each lane that there are; filled when they are started.
    """

    def __init__(
        self, database: Database, jobs: Jobs, looks: Looks, workers: Mapping[str, Worker]
    ) -> None:
        self._registry = CollectorRegistry()  # its own: tests make many services a process
        self._requests = Histogram(
            "gapscope_request_seconds",
            "Requests and how long they took, streams until their end",
            ("method", "route", "status"),
            buckets=_BUCKETS_S,
            registry=self._registry,
        )
        self._registry.register(_Gauges(database, jobs, looks, workers))

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request; `route` is its template, such as /models/{model}."""
        self._requests.labels(method, route, str(status)).observe(seconds)

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self._registry)


class _Gauges(Collector):
    def __init__(
        self, database: Database, jobs: Jobs, looks: Looks, workers: Mapping[str, Worker]
    ) -> None:
        self._database, self._jobs, self._looks = database, jobs, looks
        self._workers = workers

    def describe(self) -> Iterable[Metric]:
        """Name nothing in advance: registering is to read nothing."""
        return []

    def collect(self) -> Iterable[Metric]:
        yield _gauge(
            "gapscope_jobs", "Jobs by lane and state", ("lane", "state"), self._jobs.counts()
        )
        workers = self._workers.items()
        beats = {(lane,): w.beat_age_s for lane, w in workers if w.beat_age_s is not None}
        yield _gauge(
            "gapscope_worker_heartbeat_age_seconds",
            "Since the last sign of a worker; absent where none runs",
            ("lane",),
            beats,
        )
        deaths = CounterMetricFamily(
            "gapscope_worker_deaths", "Workers that died or were ended", labels=("lane",)
        )
        for lane, worker in workers:
            deaths.add_metric((lane,), worker.n_deaths)
        yield deaths
        yield _gauge(
            "gapscope_rows",
            "Rows of the loaded files: read, kept and rejected",
            ("split", "backbone", "outcome"),
            self._rows(),
        )
        yield _gauge(
            "gapscope_looks",
            "Looks at the labels of test sets so far",
            (),
            {(): self._looks.count()},
        )
        free = shutil.disk_usage(self._database.data).free
        yield _gauge("gapscope_disk_free_bytes", "Free where the data are", (), {(): free})
        pids = {"service": os.getpid(), **{lane: w.pid for lane, w in workers}}
        yield _gauge(
            "gapscope_memory_bytes",
            "Resident memory of the service and its workers",
            ("process",),
            {(name,): _resident_bytes(pid) for name, pid in pids.items() if pid is not None},
        )

    def _rows(self) -> dict[tuple[str, ...], float]:
        found: dict[tuple[str, ...], float] = {}
        with suppress(NoDatabase):
            for part in self._database.load_counts():
                for outcome in ("read", "kept", "rejected"):
                    found[part["split"], part["backbone"] or "", outcome] = part[outcome]
        return found


def _gauge(
    name: str,
    about: str,
    labels: tuple[str, ...],
    values: Mapping[Any, float | None],
) -> GaugeMetricFamily:
    """Make a gauge of one value for each tuple of labels; None is left out."""
    family = GaugeMetricFamily(name, about, labels=labels)
    for key, value in values.items():
        if value is not None:
            family.add_metric(key, value)
    return family


def _resident_bytes(pid: int) -> float | None:
    """Memory of a process; None where this system does not say, or the process is gone."""
    try:
        pages = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]
    except OSError:
        return None
    return float(pages) * os.sysconf("SC_PAGE_SIZE")
