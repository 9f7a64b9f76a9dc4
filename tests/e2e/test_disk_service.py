"""A full or faulty disk under everything that the service writes but loads (E29, E36).

The n-th call on the disk fails, with ENOSPC or EIO, once or from there on, now and then after half
a write. What must happen: a refusal in words, or the whole answer; no half model, report or record
is listed, nothing is left lying, records hold, and the same request is answered as if nothing was.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from etl import load
from service.analysis import Analysis
from service.gap.explaining import Question
from service.hypotheses.schemas import HypothesisIn
from service.hypotheses.testing import Hypotheses
from tests.e2e.loading import ROOT
from tests.e2e.operating import HYPOTHESIS, OPERATIONS
from tests.e2e.test_disk import shim  # noqa: F401 (a fixture)
from tests.world import Split, write_world

QUICK = {"evaluate": 8, "register": 8, "interpolate": 8}
MANY = {"report": 6}


def make_whole(folder: Path, world: dict[tuple[str, str], Split]) -> Path:
    """Data folder with models, an explanation, a registered hypothesis, predictions to import."""
    data = folder / "data"
    load(data, [write_world(folder / "csv", world)], n_threads=1)
    analysis = Analysis(data)
    for model, head in (("logistic", "logistic"), ("mean", "nearest_mean"), ("unseen", "lda")):
        analysis.train(model=model, backbone="toy", head=head, params={}, seed=0)
    analysis.evaluate("logistic")
    Hypotheses(analysis).register(HypothesisIn(**HYPOTHESIS))
    val = world["val", "toy"]
    said = pd.DataFrame({"path": val.paths, "label": val.labels, "top1": val.labels})
    said.to_csv(data / "said.csv", index=False)
    return data


@pytest.fixture(scope="module")
def whole(tmp_path_factory, world):
    return make_whole(tmp_path_factory.mktemp("whole"), world)


@pytest.fixture(scope="module")
def explained(tmp_path_factory, whole):
    """The same with all that a report wants computed: else each try would compute it."""
    data = tmp_path_factory.mktemp("explained") / "data"
    shutil.copytree(whole, data)
    Question(Analysis(data), "logistic", None, None).compute()
    return data


def disturb(operation, whole, shim, tmp_path, n, seed):  # noqa: F811
    asked = [whole, tmp_path, operation, str(n), str(seed)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.e2e.operating", *asked],
        cwd=ROOT, capture_output=True, text=True, timeout=1800,
        env=os.environ | {
            "PYTHONPATH": str(ROOT), "LD_PRELOAD": str(shim), "GAP_THREADS": "1",
            "OMP_NUM_THREADS": "1",
        },
    )  # fmt: skip
    assert done.returncode == 0, (seed, done.stdout[-2000:], done.stderr[-4000:])
    found = json.loads(done.stdout.splitlines()[-1])
    print(operation, "seed", seed, found)
    assert not found["lost"], (seed, found)
    assert sum(v for k, v in found["outcomes"].items() if k.startswith("refused"))
    return found


def note(record_property, operation, found):
    record_property(
        "fault", [operation, "ENOSPC, EIO at the nth call: refused or whole", found["tries"]]
    )


@pytest.mark.parametrize("operation", QUICK)
def test_e29_e36_some_calls_fail(operation, whole, shim, tmp_path, record_property):  # noqa: F811
    note(record_property, operation, disturb(operation, whole, shim, tmp_path, QUICK[operation], 0))


@pytest.mark.slow
@pytest.mark.parametrize("operation", OPERATIONS)
def test_e29_e36_many_calls_fail(
    operation, whole, explained, shim, tmp_path, record_property  # noqa: F811
):  # fmt: skip
    data = explained if operation == "report" else whole
    found = disturb(operation, data, shim, tmp_path, MANY.get(operation, 40), 1)
    note(record_property, operation, found)
