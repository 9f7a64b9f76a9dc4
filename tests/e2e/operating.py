"""One operation after another on a disk that fails, in a process of its own.

Run as `python -m tests.e2e.operating WHOLE SCRATCH OPERATION N SEED`, `faulty_disk.so` preloaded.
WHOLE is a data folder that nothing is written to; each try is on a copy of it, in SCRATCH. First
the operation is done undisturbed and its calls on the disk are counted; then one of them fails,
N times. Says, as a line of JSON, what came of the tries, and what was lost: nothing may be.
"""

import ctypes
import errno
import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from fastapi.testclient import TestClient

from etl.errors import LoadRefused
from models.errors import ModelError
from service.analysis import Analysis
from service.app import create_app
from service.audit import with_records
from service.disk import refusing_disk_faults
from service.errors import ServiceError
from service.gap.explaining import Question
from service.hypotheses.testing import Hypotheses
from service.importing import import_predictions
from service.jobs import Jobs
from service.report.kept import Reports, make_and_keep
from service.settings import Settings

CALLS = "write sync open name"
# said of what was written before the disk failed, in place of saying the answer again
ALREADY = {"already_registered", "already_seen", "model_exists", "already_scored"}
HYPOTHESIS = {
    "title": "a stiffer head", "cause": "overfitting", "baseline": "logistic",
    "refinement": {"kind": "stronger_penalty", "factor": 10}, "family": "mine",
}  # fmt: skip
_PASSING = {"created_at", "seconds_s", "made_at", "sealed_at", "registered_at", "sha256"}
_PASSING |= {
    "id",
    "head",
    "job",
    "model_sha256",
    "report",
    "n_bytes",
    "n_looks_before",
    "model",
    "seal",
    "scored_at",
}
_LIBRARY = ctypes.CDLL(None)


@contextmanager
def on_faulty_disk() -> Iterator[None]:
    _LIBRARY.faulty_disk_restart()
    os.environ["FAULT_CALLS"] = CALLS
    try:
        yield
    finally:
        del os.environ["FAULT_CALLS"]


class Refused(Exception):
    """A refusal in words, by whatever way it came."""


def post(path: str, body: dict[str, Any]) -> Callable[[Path], Any]:
    def ask(data: Path) -> Any:
        app = create_app(Settings(data=data), with_worker=False)
        with TestClient(app, raise_server_exceptions=False) as client, on_faulty_disk():
            answer = client.post(path, json=body)
        found = answer.json()
        if answer.is_success:
            return found
        if answer.status_code == 500:
            raise RuntimeError(f"500: {found}")
        raise Refused(found["code"], found["detail"])

    return ask


def on(do: Callable[[Analysis], Any]) -> Callable[[Path], Any]:
    """Do as a job or a command does."""

    def ask(data: Path) -> Any:
        with on_faulty_disk(), refusing_disk_faults(data):
            return do(Analysis(data))

    return ask


def train(analysis: Analysis) -> Any:
    return analysis.train(model="new", backbone="toy", head="logistic", params={}, seed=0)


def explain(analysis: Analysis) -> Any:
    question = Question(analysis, "logistic", None, None)
    question.compute("images", skip={"slices", "overlap", "where", "map", "features"})
    found = question.answer("images")
    assert found is not None
    return found.model_dump(mode="json")


def report(analysis: Analysis) -> Any:
    return make_and_keep(analysis, {"report": "0123456789ab", "models": ["logistic"]}).title


def hypothesis(analysis: Analysis) -> Any:
    hypotheses = Hypotheses(analysis)
    (one,) = hypotheses.registry.all().hypotheses
    return hypotheses.test(one.id).model_dump(mode="json")


def import_file(analysis: Analysis) -> Any:
    file = analysis.data / "said.csv"
    return import_predictions(analysis.data, {"val": file}, model="other").top1


def start(data: Path) -> Any:
    def app() -> TestClient:
        return TestClient(create_app(Settings(data=data), with_worker=False))

    with on_faulty_disk(), refusing_disk_faults(data), app() as client:
        return client.get("/models").status_code


OPERATIONS: dict[str, Callable[[Path], Any]] = {
    "start": start,
    "train": on(train),
    "queue": post("/train", {"backbone": "toy", "head": "logistic", "seed": 0}),
    "evaluate": post("/evaluate", {"model": "mean"}),
    "explain": on(explain),
    "report": on(report),
    "register": post("/hypotheses", {**HYPOTHESIS, "title": "another"} | {
        "refinement": {"kind": "stronger_penalty", "factor": 100}
    }),
    "test": on(hypothesis),
    "seal": post("/seals", {"model": "unseen", "target": "v2"}),
    "interpolate": post("/interpolate", {
        "model_a": "logistic", "model_b": "logistic", "alpha": 0.5, "name": "between"
    }),
    "import": on(import_file),
}  # fmt: skip


def lasting(answer: Any) -> Any:
    """Return what an answer says whenever it is asked for."""
    if isinstance(answer, dict):
        return {k: lasting(v) for k, v in answer.items() if k not in _PASSING}
    return [lasting(one) for one in answer] if isinstance(answer, list) else answer


def tree(data: Path) -> set[str]:
    """Files and folders but what is meant to stay: checkpoints, and what SQLite keeps beside it."""
    found = {str(place.relative_to(data)) for place in data.rglob("*")}
    return {
        one
        for one in found
        if not one.endswith(("-wal", "-shm", ".lock"))
        and (one.endswith(".fresh") or not one.startswith("checkpoints"))
    }


def attempt(do: Callable[[Path], Any], data: Path, **faults: object) -> tuple[str, Any, int]:
    """Do an operation; how it ended, what it said, and how many calls it made on the disk."""
    for name in ("at", "errno", "for", "short"):
        os.environ[f"FAULT_{name.upper()}"] = str(faults.get(name, 0))
    os.environ["FAULT_FOLDER"] = str(data)
    try:
        how, said = "end", lasting(do(data))
    except Refused as error:
        how, said = "refused", error.args
    except (LoadRefused, ModelError, ServiceError) as error:
        how, said = "refused", (error.code, str(error))
    except Exception as error:  # noqa: BLE001 (whatever else is what is looked for)
        how, said = "lost", f"{type(error).__name__}: {error}"
    return how, said, _LIBRARY.faulty_disk_restart()


def is_whole(data: Path) -> str | None:
    """Return what is not whole among models, reports and records; None where all is."""
    analysis = Analysis(data)
    for card in analysis.results.models():
        if card["head"] != "imported":
            analysis.results.head(card["model"])
            analysis.results.train_rows(card["model"])
        analysis.results.evaluation(card["model"])
    reports = Reports(data)
    for one in reports.all():
        for name, n_bytes in one.n_bytes.items():
            if len(reports.content(one.report, name)) != n_bytes:
                return f"{name} of report {one.report}"
    Jobs(data).all()
    records = with_records(analysis.audit("logistic"), data).answer.checks[-1]
    return None if records.passed else records.sentence


def main() -> int:
    whole, scratch = Path(sys.argv[1]), Path(sys.argv[2])
    do, n, seed = OPERATIONS[sys.argv[3]], int(sys.argv[4]), int(sys.argv[5])
    data = scratch / "data"

    def fresh() -> Path:
        shutil.rmtree(data, ignore_errors=True)
        shutil.copytree(whole, data)
        return data

    attempt(do, fresh())  # what is made once for all: caches, compiled code
    how, expected, n_calls = attempt(do, fresh())
    assert how == "end", expected
    wanted = tree(data)
    moments = np.arange(1, n_calls + 1)
    if n < n_calls:
        rng = np.random.default_rng(seed)
        moments = 1 + np.sort(rng.choice(n_calls - 1, n - 1, replace=False))
        moments = np.append(moments, n_calls)  # the last: the careless have published already
    outcomes: Counter[str] = Counter()
    lost = []
    for i, at in enumerate(moments.tolist()):
        number = (errno.ENOSPC, errno.EIO)[i % 2]
        more = {"for": 1 if i % 4 < 2 else 1 << 30, "short": int(i % 3 == 0), "errno": number}
        before = tree(fresh())
        how, said, _ = attempt(do, data, at=at, **more)
        outcomes[f"{how} {said[0] if how == 'refused' else ''}".strip()] += 1
        wrong = [str(said)] if how == "lost" else []
        if how == "end" and said != expected:
            wrong.append(f"another answer: {said}")
        Analysis(data).results.sweep()
        left = tree(data) - before - wanted
        if left:
            wrong.append(f"left lying: {sorted(left)}")
        try:
            if (torn := is_whole(data)) is not None:
                wrong.append(f"not whole: {torn}")
        except Exception as error:  # noqa: BLE001
            wrong.append(f"not whole: {type(error).__name__}: {error}")
        again, second, _ = attempt(do, data)
        if again == "refused" and second[0] in ALREADY:
            outcomes["done before it failed"] += 1
        elif again != "end" or second != expected:
            wrong.append(f"afterwards: {again} {second}")
        lost += [f"call {at} of {n_calls}, {errno.errorcode[number]}, {more}: {w}" for w in wrong]
    print(json.dumps({"calls": n_calls, "tries": len(moments), "outcomes": outcomes, "lost": lost}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
