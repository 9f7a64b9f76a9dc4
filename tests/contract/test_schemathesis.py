"""Requests at random, of what the interface says of itself: schemathesis, all its phases.

The seed stands in pytest's header; GAPSCOPE_SEED repeats it.
"""

import os
import shutil
import sqlite3
from collections import Counter
from dataclasses import dataclass, field

import pyarrow as pa
import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import strategies as st
from PIL import Image
from schemathesis.engine import events, from_schema

from etl.annotations import annotate_file
from etl.images import link_images
from service.analysis import Analysis
from service.app import create_app
from service.arrow_predictions import ARROW
from service.hypotheses.testing import Hypotheses
from service.jobs.table import DATABASE
from service.report.kept import make_and_keep
from service.settings import Settings

SEED = int(os.environ["GAPSCOPE_SEED"])
REPORT = "0123456789ab"
KEPT_JOBS = 30
OF_EACH = 100  # requests at least, where there is anything to vary
# what is there, among names at random: answers are wanted, too, and not refusals alone
NAMES = {
    "model": ("path.model", "query.model", "body.model", "body.baseline", "body.models[*]",
              "body.model_a", "body.model_b", "query.baseline"),
    "split": ("query.reference", "query.target", "body.reference", "body.target",
              "body.splits[*]"),
    "backbone": ("body.backbone",),
    "head": ("body.head",),
    "chart": ("path.name",),
    "covariate": ("query.covariate",),
    "feature": ("body.features[*]",),
    "kind": ("body.refinement.kind",),
    "report": ("path.report",),
    "image": ("path.image_id", "path.feature"),
    "where": ("query.where",),
    "order": ("query.order",),
}  # fmt: skip
VALUES = {
    "model": ["mean", "logistic", "unseen"],
    "split": ["val", "v2", "train"],
    "backbone": ["toy", "tiny"],
    "head": ["lda", "nearest_mean", "knn", "sklearn:GaussianNB"],
    "chart": ["gap", "features", "classes", "leaderboard", "loss", "ledger"],
    "covariate": ["votes", "annotation.votes"],
    "feature": ["0", "1"],
    "kind": ["stronger_penalty", "drop_features", "temperature"],
    "report": [REPORT],
    "image": [0, 1, 2, 3, 2**53 - 1, 2**53, 2**63],
    "where": ["correct = false", "confidence > .9 and split = v2", "path like '%'"],
    "order": ["margin desc", "confidence", "path asc"],
}


@pytest.fixture(scope="module")
def full_world(toy_data, world, tmp_path_factory):
    """The toy world with one of everything: links, a hypothesis, a report, a model unscored."""
    folder = tmp_path_factory.mktemp("full")
    data = shutil.copytree(toy_data, folder / "data")
    paths = world["val", "toy"].paths
    for path in paths[:4]:
        (folder / "pictures" / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (9, 99, 9)).save(folder / "pictures" / path)
    votes = "".join(f"{path},{i % 9}\n" for i, path in enumerate(paths))
    (folder / "votes.csv").write_text("path,votes\n" + votes)
    annotate_file(data, folder / "votes.csv", name=None, split=None)
    link_images(data, [folder / "pictures"])
    analysis = Analysis(data)
    make_and_keep(
        analysis, {"report": REPORT, "models": ["mean"], "reference": "val", "target": "v2"}
    )
    analysis.train(model="unseen", backbone="tiny", head="lda", params={}, seed=0)
    with TestClient(create_app(Settings(data=data), with_worker=False)) as client:
        body = {
            "title": "A stiffer head", "cause": "It fits too closely.", "baseline": "logistic",
            "refinement": {"kind": "stronger_penalty", "factor": 10},
        }  # fmt: skip
        Hypotheses(analysis).test(client.post("/hypotheses", json=body).json()["id"])
    return data


@dataclass
class Run:
    """What came of a run: requests of each operation by status, and what was wrong."""

    statuses: Counter = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    varied: list[str] = field(default_factory=list)  # operations whose requests are not all alike

    @property
    def n(self):
        return self.statuses.total()

    def asked_less_than(self, least):
        """Those of the operations with anything to vary that got fewer requests, with how many."""
        asked = Counter()
        for (operation, _), n in self.statuses.items():
            asked[operation] += n
        return {one: asked[one] for one in self.varied if asked[one] < least}


@schemathesis.check
def what_is_described_is_read(_ctx, response, case):
    """Bodies and parameters as described are refused for what they mean alone.

    Then the refusal has a code of its own, or says in our words what was wanted: no JSON schema
    holds that shares add up to 100.
    """
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return
    if response.status_code == 422 and response.json()["code"] == "invalid_request":
        assert "wanted " in response.json()["detail"], response.json()["detail"]


def _rows():
    """Arrow streams of three features, and bytes that are none."""
    sink = pa.BufferOutputStream()
    table = pa.table({"vector": [[0.0, 1.0, 7.0]]})
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return st.sampled_from([sink.getvalue().to_pybytes()]) | st.binary()


def send(data, max_examples, seed):
    """Send requests of all phases; jobs are queued, and cancelled before anyone waits for them."""
    app = create_app(Settings(data=data), with_worker=False)

    async def served(scope, receive, send):
        if scope.get("path") == "/jobs/events":  # streams until no job is under way
            with sqlite3.connect(data / DATABASE, timeout=30) as con:
                con.execute("update job set state = 'cancelled' where state = 'queued'")
                con.execute(
                    "delete from job where rowid <= (select max(rowid) from job) - ?", (KEPT_JOBS,)
                )
            con.close()
        await app(scope, receive, send)

    schemathesis.openapi.media_type(ARROW, _rows())
    run = Run()
    for path, operations in app.openapi()["paths"].items():
        for method, operation in operations.items():
            if operation.get("parameters") or "requestBody" in operation:
                run.varied.append(f"{method.upper()} {path}")
    config = _configuration(max_examples, seed)
    schema = schemathesis.openapi.from_asgi("/openapi.json", served, config=config)
    _execute(run, schema)
    return run


def _configuration(max_examples, seed):
    return schemathesis.Config.from_dict(
        {
            "seed": seed,
            "cache": {"enabled": False},
            "continue-on-failure": True,
            "generation": {"max-examples": max_examples, "no-shrink": True},
            "dictionaries": {name: {"values": values} for name, values in VALUES.items()},
            "parameters": {
                place: {"dictionary": name, "probability": 0.7}
                for name, places in NAMES.items()
                for place in places
            },
            "checks": {
                "positive_data_acceptance": {"enabled": False},  # see ours above
                # also for its size: the longest bodies are refused before they are parsed
                "negative_data_rejection": {
                    "expected-statuses": ["400", "404", "405", "413", "415", "422", "5xx"]
                },
            },
            "operations": [
                # there is no worker
                {"include-path": "/ready", "checks": {"not_a_server_error": {"enabled": False}}},
                # a job that was cancelled is still told of
                {"include-path-regex": "^/jobs/", "checks": {"use_after_free": {"enabled": False}}},
            ],
        }
    )


def _execute(run, schema):
    for event in from_schema(schema).execute():
        if isinstance(event, events.ScenarioFinished):
            _note(run, event.recorder)
        elif isinstance(event, events.NonFatalError):
            run.wrong.append(f"{event.label}: {event.info.format()}")
        elif isinstance(event, events.FatalError):
            raise event.exception


def _note(run, recorder):
    for case, sent in recorder.interactions.items():
        label = recorder.cases[case].value.operation.label
        run.statuses[label, getattr(sent.response, "status_code", None)] += 1
    for case, checks in recorder.checks.items():
        for check in checks:
            if check.failure_info is not None:
                run.wrong.append(
                    f"{recorder.cases[case].value.operation.label}: {check.name}: "
                    f"{check.failure_info.failure}\n    {check.failure_info.code_sample}"
                )


@pytest.mark.filterwarnings("ignore:Generating overly large repr")
@pytest.mark.parametrize(
    ("max_examples", "least"),
    [
        pytest.param(100, 7_000, id="100-examples", marks=pytest.mark.long),
        pytest.param(300, 20_000, id="20000-requests", marks=pytest.mark.slow),
    ],
)
def test_no_request_at_random_is_answered_otherwise_than_described(
    full_world, tmp_path, max_examples, least, capsys, record_property
):
    data = shutil.copytree(full_world, tmp_path / "data")
    run = send(data, max_examples, SEED)
    with capsys.disabled():
        print(f"\n{run.n:,} requests at random, GAPSCOPE_SEED={SEED}")
    record_property("fault", ["requests", "answered as described", run.n])
    assert not run.wrong, f"GAPSCOPE_SEED={SEED}: {len(run.wrong)}\n" + "\n".join(run.wrong[:20])
    assert run.n >= least, f"GAPSCOPE_SEED={SEED}"
    few = run.asked_less_than(OF_EACH)
    with capsys.disabled():
        print(f"fewer than {OF_EACH} were sent to: {few or 'none'}")
    # it ends early where it has nothing new to ask of an operation
    assert len(few) <= 2, f"GAPSCOPE_SEED={SEED}: {few}"
