"""Steps at random over loads, jobs, models and hypotheses, with deaths and restarts between.

A small model in Python says beside each step what state each job may be in, and which models
there are. The seed stands in pytest's header; GAPSCOPE_SEED repeats it.
"""

import os
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from etl import load
from etl.errors import LoadRefused
from models.errors import ModelError
from service.app import create_app
from service.errors import ServiceError
from service.gap.explaining import Question
from service.hypotheses.testing import Hypotheses
from service.jobs import EXPLAIN, HYPOTHESIS, OVER, TRAIN, Jobs, Worker, work_one
from service.looks import Looks
from service.register import Register
from service.results import Results, path_hashes
from service.settings import Settings
from tests.world import Split, write_csv

SEED = int(os.environ["GAPSCOPE_SEED"])
N_CLASSES, N_EACH, D = 3, 8, 2
# paths of train, val and v2: `moved` trains on what is v2 elsewhere, `leak` is refused
LOADS = {
    "first": ("a", "b", "c"),
    "again": ("a", "b", "c"),
    "moved": ("c", "b", "d"),
    "leak": ("a", "a", "c"),
}
SPLITS = ("train", "val", "v2")
MODELS = st.sampled_from(["base", "base", "m0", "m0", "m1", "toy-lda"])
LANE = st.sampled_from([TRAIN, TRAIN, TRAIN, EXPLAIN])


class Died(BaseException):
    """A worker ends in the middle of a job: nothing of the service may catch it."""


def paths_of(name, split):
    stem = dict(zip(SPLITS, LOADS[name], strict=True))[split]
    return [f"{stem}/{i}.png" for i in range(N_CLASSES * N_EACH)]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Folders of CSVs, one a load, and a data folder with the first of them and a model."""
    folder = tmp_path_factory.mktemp("states")
    for place, name in enumerate(LOADS):
        rng = np.random.default_rng(place)
        for split in SPLITS:
            labels = np.arange(N_CLASSES * N_EACH) % N_CLASSES
            X = rng.normal(size=(len(labels), D)) + 2 * np.eye(N_CLASSES, D)[labels]
            rows = Split(paths_of(name, split), labels, X.astype(np.float32))
            write_csv(folder / name / f"{split}_toy.csv", rows)
    load(folder / "data", [folder / "first"], n_threads=1)
    app = create_app(Settings(data=folder / "data"), with_worker=False)
    app.state.analysis.train(model="base", backbone="toy", head="lda", params={}, seed=0)
    return folder


class World(RuleBasedStateMachine):
    """The service over one data folder, and beside it what must be so."""

    jobs = Bundle("jobs")
    hypotheses = Bundle("hypotheses")

    def __init__(self, files, tmp):
        super().__init__()
        self.files = files
        self.data = shutil.copytree(files / "data", tmp / f"data{len(list(tmp.iterdir()))}")
        self.loaded = "first"
        self.models = {"base"}
        self.wanted = {}  # states that each job may be in
        self.kinds = {}  # of each job: its request
        self.learnt = {"base": "first"}  # the load that each model was trained on
        self.checked = set()
        self.looks, self.registered, self.scored = [], [], set()
        self.client = None
        self.start()

    def teardown(self):
        self.client.__exit__(None, None, None)
        shutil.rmtree(self.data)

    def start(self):
        app = create_app(Settings(data=self.data), with_worker=False)
        # the steps do its work
        app.state.worker = SimpleNamespace(is_alive=True, is_well=True, stop=lambda: None)
        self.client = TestClient(app).__enter__()
        self.analysis, self.table = app.state.analysis, Jobs(self.data)

    def sent(self, method, path, body=None, *, also=()):
        """Send a request; whatever comes is an answer or a refusal with a reason."""
        answer = self.client.request(method, path, json=body)
        assert answer.status_code in (200, 201, 202, *also), (path, answer.text)
        return answer

    def overlaps(self, model):
        """Whether images that a model learnt from stand in a test split now."""
        learnt = set(paths_of(self.learnt[model], "train"))
        return any(learnt & set(paths_of(self.loaded, split)) for split in SPLITS[1:])

    @initialize(target=jobs)
    def queue_one(self):
        return self.train("m0", "nearest_mean", 0)

    @rule(name=st.sampled_from(list(LOADS)))
    def load(self, name):
        if name == "leak":
            with pytest.raises(LoadRefused):
                load(self.data, [self.files / name], n_threads=1)
        else:
            load(self.data, [self.files / name], n_threads=1)
            self.loaded = name

    @rule(
        target=jobs,
        name=st.sampled_from([None, "m0", "m1"]),
        head=st.sampled_from(["lda", "nearest_mean"]),
        seed=st.integers(0, 1),
    )
    def train(self, name, head, seed):
        body = {"backbone": "toy", "head": head, "seed": seed, "name": name}
        taken = self.models | self.table.open_models()
        answer = self.sent("post", "/train", body, also=[409])
        assert (answer.status_code == 409) == (name in taken)
        if answer.status_code == 409:
            return None
        job, model = answer.json()["job"], answer.json()["model"]
        assert job not in self.wanted
        assert model not in taken
        assert name in (None, model)
        self.wanted[job], self.kinds[job] = {"queued"}, {"model": model}
        return job

    @rule(target=jobs, model=MODELS)
    def ask_for_report(self, model):
        answer = self.sent("post", "/reports", {"models": [model]}, also=[404, 409, 422])
        if answer.status_code != 202:
            return None
        job = answer.json()["job"]
        self.kinds.setdefault(job, {"explain": model})
        self.wanted.setdefault(job, {"queued"})
        return job

    @rule(
        lane=LANE,
        fate=st.sampled_from(["end", "end", "end", "cancel", "fault", "die", "die at the end"]),
    )
    def work(self, lane, fate):
        """Do a job as a worker does, up to its fate."""
        begun = []

        def do(request, progress):
            (job,) = (j.job for j in self.table.all() if j.state == "running" and j.job not in was)
            begun.append(job)

            def step(share, message):
                if fate == "cancel":
                    self.sent("delete", f"/jobs/{job}")
                if fate == "fault":
                    raise ZeroDivisionError
                if fate == "die":
                    raise Died
                progress(1.0 if fate == "cancel" else share, message)

            step(0.0, "begins")
            if HYPOTHESIS in request:
                Hypotheses(self.analysis).test(request[HYPOTHESIS], progress=step)
            elif "explain" in request:
                Question(self.analysis, **request["explain"]).gap()
            else:
                self.analysis.train(**request, progress=step)
            if fate == "die at the end":
                raise Died

        was = {j.job for j in self.table.all() if j.state in ("running", "cancelling")}
        before = {card["model"] for card in Results(self.data).models()}
        try:
            did = work_one(self.table, do, (LoadRefused, ModelError, ServiceError), lane)
        except Died:
            did = True
        if not did:
            assert not self.table.has_queued(lane)
            return
        (job,) = begun
        made = {card["model"] for card in Results(self.data).models()} - before
        self.models |= made
        self.learnt |= dict.fromkeys(made, self.loaded)
        kind = self.kinds[job]
        self.wanted[job] = {
            "end": {"done"}, "cancel": {"cancelled"}, "fault": {"failed"},
            "die": {"running"}, "die at the end": {"running"},
        }[fate]  # fmt: skip
        if "model" in kind and fate in ("end", "die at the end"):
            assert made == {kind["model"]}
        elif "hypothesis" in kind or "explain" in kind:
            # the data changed since, or it was scored before its worker died
            self.wanted[job] |= {"failed"} if fate in ("end", "die at the end") else set()
        else:
            assert not made

    @rule(job=jobs)
    def cancel(self, job):
        if job is None:
            return
        state = self.table.get(job).state
        answer = self.sent("delete", f"/jobs/{job}", also=[409])
        if answer.status_code == 409:
            assert state in ("done", "failed", "interrupted")
        else:
            self.wanted[job] = {"cancelling" if state in ("running", "cancelling") else "cancelled"}

    @rule(job=jobs)
    def resume(self, job):
        if job is None:
            return
        found, taken = self.table.get(job), self.models | self.table.open_models()
        answer = self.sent("post", f"/jobs/{job}/resume", also=[409])
        may = found.state in OVER and ("explain" in self.kinds[job] or found.model not in taken)
        assert (answer.status_code == 202) == may, answer.text
        if may:
            self.wanted[job] = {"queued"}

    @rule(model=MODELS)
    def evaluate(self, model):
        answer = self.sent("post", "/evaluate", {"model": model}, also=[404, 409])
        assert (answer.status_code == 404) == (model not in self.models)
        if answer.status_code == 200:
            assert not self.overlaps(model)
            assert model in {look["model"] for look in Looks(self.data).all()}

    @rule(model=MODELS)
    def gap(self, model):
        self.sent("get", f"/gap/{model}?wait=false", also=[404, 409])

    @rule(model=MODELS)
    def seal(self, model):
        self.sent("post", "/seals", {"model": model, "target": "v2"}, also=[404, 409, 422])

    @rule(a=MODELS, b=MODELS, name=st.sampled_from(["m0", "between"]))
    def interpolate(self, a, b, name):
        taken = self.models | self.table.open_models()
        body = {"model_a": a, "model_b": b, "name": name}
        answer = self.sent("post", "/interpolate", body, also=[404, 409, 422])
        if answer.status_code == 201:
            assert name not in taken
            assert {a, b} <= self.models
            self.models.add(name)
            self.learnt[name] = self.learnt[a]

    @rule(target=hypotheses, model=MODELS, n=st.integers(0, D))
    def register(self, model, n):
        body = {
            "title": "t", "cause": "c", "baseline": model,
            "refinement": {"kind": "drop_features", "features": [str(i) for i in range(n)]},
        }  # fmt: skip
        answer = self.sent("post", "/hypotheses", body, also=[404, 409, 422])
        return answer.json()["id"] if answer.status_code == 201 else None

    @rule(target=jobs, hypothesis=hypotheses)
    def test_hypothesis(self, hypothesis):
        if hypothesis is None:
            return None
        answer = self.sent("post", f"/hypotheses/{hypothesis}/test", also=[409])
        assert (answer.status_code == 409) == (hypothesis in self.scored), answer.text
        if answer.status_code == 409:
            return None
        job = answer.json()["job"]
        self.kinds.setdefault(job, {"hypothesis": hypothesis})
        self.wanted.setdefault(job, {"queued"})
        return job

    @rule()
    def restart(self):
        """The service is ended, however, and starts anew over the same folder."""
        self.client.__exit__(None, None, None)
        self.start()
        for lane in (TRAIN, EXPLAIN):  # as its workers do first
            self.table.end_running(Worker(self.data, None, lane=lane)._made, lane=lane)
        for job, states in self.wanted.items():
            made = self.kinds[job].get("model") in self.models
            if states == {"running"}:
                self.wanted[job] = {"done"} if made else {"interrupted", "queued"}
            elif states == {"cancelling"}:
                self.wanted[job] = {"done"} if made else {"cancelled"}
        assert not [j for j in self.table.all() if j.state in ("running", "cancelling")]

    @rule(model=MODELS)
    def look_around(self, model):
        """The service is ready, shows its page, and says what lies there."""
        for path in ("/ready", "/"):
            self.sent("get", path)
        said = [job["job"] for job in self.sent("get", "/jobs").json()]
        assert said == [job.job for job in self.table.all()]
        said = [card["model"] for card in self.sent("get", "/models").json()]
        assert sorted(said) == sorted(self.models)
        if model in said:
            audit = self.sent("get", f"/models/{model}/audit").json()
            passed = {check["name"]: check["passed"] for check in audit["checks"]}
            assert passed["records"] is not False, audit
            assert passed["test_path"] is (not self.overlaps(model)), audit
        found = self.sent("get", "/hypotheses").json()["hypotheses"]
        assert [one["id"] for one in found] == self.registered
        assert {one["id"] for one in found if one["state"] == "tested"} == self.scored

    @invariant()
    def jobs_are_in_the_states_that_the_steps_lead_to(self):
        found = self.table.all()
        assert len({job.job for job in found}) == len(found) == len(self.wanted)
        for job in found:
            assert job.state in self.wanted[job.job], (job, self.wanted[job.job])
            self.wanted[job.job] = {job.state}

    @invariant()
    def each_model_is_there_once_and_learnt_from_train_rows_alone(self):
        results = Results(self.data)
        assert sorted(card["model"] for card in results.models()) == sorted(self.models)
        for model in self.models - self.checked:
            learnt = set(results.train_rows(model)["path_hash"].to_numpy())
            assert learnt == set(path_hashes(paths_of(self.learnt[model], "train")))
            self.checked.add(model)

    @invariant()
    def records_only_grow(self):
        looks = Looks(self.data).all()[::-1]
        assert looks[: len(self.looks)] == self.looks
        self.looks = looks
        found = Register(self.data, "hypotheses").all()
        ids = [record.sha256[:12] for record in found if record.kind == "hypothesis"]
        assert ids[: len(self.registered)] == self.registered
        self.registered = ids
        scored = {r.content["hypothesis"] for r in found if r.kind == "result"}
        assert scored >= self.scored
        self.scored = scored
        for name in ("hypotheses", "seals"):
            assert Register(self.data, name).broken() is None


@pytest.mark.long
def test_whatever_is_done_in_whatever_order_the_service_keeps_its_word(
    files, tmp_path, record_property
):
    record_property("fault", ["steps", "its word kept", 50 * 30])

    @seed(SEED)
    def make():
        return World(files, tmp_path)

    run_state_machine_as_test(
        make,
        settings=settings(
            max_examples=50,
            stateful_step_count=30,
            deadline=None,
            print_blob=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
