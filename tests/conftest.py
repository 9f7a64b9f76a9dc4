"""Fixtures that more than one kind of test uses."""

import os

# two workers on two cores: threads of one would wait for the cores of the other, spinning
os.environ.setdefault("OMP_NUM_THREADS", "1")
# the Host of starlette's TestClient, which the service refuses elsewhere
os.environ.setdefault("GAP_HOSTS", "testserver")

import io
import random
import sys
import threading
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from types import SimpleNamespace

import hypothesis
import pyarrow as pa
import pytest
from fastapi.testclient import TestClient
from filelock import FileLock

import etl.part
from etl import load
from service import cli
from service.analysis import Analysis
from service.app import create_app
from service.settings import Settings
from tests.world import Split, make_world, write_world

# of requests and steps at random; set here, so that xdist's workers inherit it
os.environ.setdefault("GAPSCOPE_SEED", str(random.SystemRandom().getrandbits(32)))
# a failure says how to repeat it; a busy machine is none
hypothesis.settings.register_profile("gapscope", deadline=None, print_blob=True)
hypothesis.settings.load_profile("gapscope")


def pytest_report_header() -> str:
    """Say how to repeat what is random."""
    return f"GAPSCOPE_SEED={os.environ['GAPSCOPE_SEED']}"


@pytest.fixture(scope="session", autouse=True)
def rows_are_traced() -> Iterator[None]:
    """Show coverage what reads the rows of a load: Arrow pulls them in threads of its own.

    A thread that Python did not start has no trace function, and loses one that it was given with
    each return to Arrow.
    """
    trace = threading.gettrace()

    def traced(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        while True:
            sys.settrace(trace)
            batch = next(batches, None)
            if batch is None:
                return
            yield batch

    def from_batches(schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> pa.RecordBatchReader:
        return pa.RecordBatchReader.from_batches(schema, traced(batches))

    with pytest.MonkeyPatch.context() as patch:
        if trace is not None:
            reader = SimpleNamespace(from_batches=from_batches)
            seen = SimpleNamespace(**{**vars(pa), "RecordBatchReader": reader})
            patch.setattr(etl.part, "pa", seen)
        yield


@pytest.fixture(scope="session")
def world() -> dict[tuple[str, str], Split]:
    return make_world()


@pytest.fixture(scope="session")
def toy_csv(tmp_path_factory: pytest.TempPathFactory, world: dict[tuple[str, str], Split]) -> Path:
    return write_world(tmp_path_factory.mktemp("csv"), world)


@pytest.fixture(scope="session")
def toy_data(tmp_path_factory: pytest.TempPathFactory, toy_csv: Path) -> Path:
    """Data folder with the toy world, two models, one of them evaluated; read it, do not write."""
    data = tmp_path_factory.mktemp("toy") / "data"
    load(data, [toy_csv], n_threads=1)
    analysis = Analysis(data)
    for model, head in (("logistic", "logistic"), ("mean", "nearest_mean")):
        analysis.train(model=model, backbone="toy", head=head, params={}, seed=0)
        analysis.evaluate(model)
    return data


@pytest.fixture(scope="session")
def demo_as_loaded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data folder of the demo as a first call leaves it, and what that said; copy it, to write.

    It takes a minute, so that xdist's workers, whose folders lie side by side, make one together.
    """
    place = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        place = place.parent
    data, said = place / "demo-as-loaded", place / "demo-as-loaded.txt"
    with FileLock(place / "demo-as-loaded.lock"):
        if not said.exists():
            with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()) as output:
                patch.setenv("GAP_DATA", str(data))
                assert cli.main(["load", "--demo-if-empty"]) == 0
            said.write_text(output.getvalue(), encoding="utf-8")
    return data


@pytest.fixture
def client(toy_data: Path) -> Iterator[TestClient]:
    """The service over the toy world, without a worker."""
    with TestClient(create_app(Settings(data=toy_data), with_worker=False)) as client:
        yield client


# what is tried, by the tests that try it
FAULTS = {
    "feature files (E01 to E36)": ("test_fault_formats", "test_faults", "test_fault_sources"),
    "a full or faulty disk": ("test_disk", "test_disk_service"),
    "killed, hung, told to stop": ("test_crash", "test_training_crash", "test_jobs"),
    "damaged files of the data folder": ("test_damage",),
    "hostile paths": ("test_paths",),
    "hostile model files": ("test_model_files",),
    "hostile names and texts": ("test_strings",),
    "hostile images and streams": ("test_predict_image", "test_predict_arrow", "test_thumbnails"),
    "requests at the door": ("test_door",),
    "requests at random": ("test_schemathesis",),
    "steps at random, with deaths": ("test_states",),
}
_KIND_OF = {module: kind for kind, modules in FAULTS.items() for module in modules}


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how many faults of each kind were tried, survived and lost.

    A test tries one, or as many as it notes with `record_property("fault", [name, outcome, n])`;
    the notes travel with the reports, so that they arrive from xdist's workers too.
    """
    rows: dict[str, list[int]] = {}
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            kind = _KIND_OF.get(Path(report.nodeid.split("::")[0]).stem)
            if kind is None or (report.when != "call" and outcome == "passed"):
                continue
            noted = [note[2] for name, note in report.user_properties if name == "fault"]
            row = rows.setdefault(kind, [0, 0, 0])
            row[0] += sum(noted) or 1
            row[1 + (outcome == "failed")] += sum(noted) or 1
    if not rows:
        return
    terminalreporter.write_sep("=", "faults")
    terminalreporter.write_line("| kind of fault | tried | survived | lost |")
    terminalreporter.write_line("| --- | ---: | ---: | ---: |")
    rows["all"] = [sum(column) for column in zip(*rows.values(), strict=True)]
    for kind in (*FAULTS, "all"):
        if kind in rows:
            tried, survived, lost = rows[kind]
            terminalreporter.write_line(f"| {kind} | {tried:,} | {survived:,} | {lost:,} |")
