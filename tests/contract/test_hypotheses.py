"""Hypotheses: registered before they are scored, scored once, judged as a family."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pytest
from fastapi.testclient import TestClient

from etl import load
from models.errors import InvalidParams
from models.refining.recipes import INFORMED, RECIPES, TEST_INPUTS, TRAIN, checked, order_of
from service.analysis import Analysis
from service.app import create_app
from service.errors import (
    AlreadyRegistered,
    AlreadyScored,
    DataChanged,
    ModelExists,
    ReadsTestInputs,
    RecordChanged,
)
from service.hypotheses.registry import Registry
from service.hypotheses.schemas import HypothesisIn, SuggestIn
from service.hypotheses.suggesting import suggest
from service.hypotheses.testing import Hypotheses
from service.looks import Looks
from service.settings import Settings
from tests.world import Split, write_world

# one of each kind; the toy world has backbones toy (features 0, 1, 2) and tiny
CASES = {
    "stronger_penalty": {"factor": 10},
    "label_smoothing": {},
    "averaging": {"how": "swa"},
    "feature_noise": {},
    "feature_dropout": {},
    "mixup": {},
    "balanced_loss": {},
    "logit_adjusted": {},
    "reweight_hard": {},
    "drop_unstable": {"share": 0.4},
    "blend": {"with": "nearest_mean"},
    "ensemble": {"heads": ["lda", "knn"]},
    "interpolate": {"model": "mean", "alpha": 0.25},
    "backbone": {"backbone": "tiny"},
    "concatenate": {"backbones": ["toy", "tiny"]},
    "drop_features": {"features": ["0"]},
    "mask_shifting": {"n": 1},
    "align_means": {},
    "coral": {},
    "target_prior": {},
}


def recipe(kind):
    return {"kind": kind, **CASES[kind]}


def asked(kind="stronger_penalty", **fields):
    body = {
        "title": f"try {kind}",
        "cause": "to see",
        "baseline": "logistic",
        "refinement": recipe(kind),
        "images": "all",
    }
    return HypothesisIn(**{**body, **fields})


@pytest.fixture
def data(toy_data, tmp_path):
    shutil.copytree(toy_data, tmp_path / "data", ignore=shutil.ignore_patterns("gap"))
    return tmp_path / "data"


@pytest.fixture
def hypotheses(data):
    return Hypotheses(Analysis(data))


@pytest.fixture(scope="module")
def two_worlds(world, toy_data, tmp_path_factory):
    """Two data folders with the same train rows and other test rows, other labels among them."""
    rng = np.random.default_rng(5)
    changed = {}
    for (split, backbone), rows in world.items():
        if split == "train":
            changed[split, backbone] = rows
            continue
        features = rows.features + rng.normal(size=rows.features.shape).round(3)
        changed[split, backbone] = Split(rows.paths, np.roll(rows.labels, 1), features)
    folder = tmp_path_factory.mktemp("two")
    labels = {split: rows.labels for (split, b), rows in changed.items() if b == "toy"}
    for (split, backbone), rows in changed.items():  # one label an image, in every backbone
        if backbone == "tiny" and split != "train":
            toy = changed[split, "toy"]
            of = dict(zip(toy.paths, labels[split], strict=True))
            new = np.array([of[path] for path in rows.paths])
            changed[split, backbone] = Split(rows.paths, new, rows.features)
    load(folder / "other", [write_world(folder / "csv", changed)], n_threads=1)
    analysis = Analysis(folder / "other")
    for model, head in (("logistic", "logistic"), ("mean", "nearest_mean")):
        analysis.train(model=model, backbone="toy", head=head, params={}, seed=0)
    shutil.copytree(toy_data, folder / "one", ignore=shutil.ignore_patterns("gap"))
    return [Hypotheses(Analysis(folder / name)) for name in ("one", "other")]


def test_every_recipe_has_a_case_here():
    assert set(CASES) == set(RECIPES)


@pytest.mark.parametrize("kind", [k for k in CASES if RECIPES[k].use == TRAIN])
def test_a_recipe_never_sees_a_test_row(two_worlds, kind):
    """The same head, bit for bit, whatever the test rows are; and only train rows are on record."""
    heads, rows = [], []
    for hypotheses in two_worlds:
        found = hypotheses.test(hypotheses.register(asked(kind)).id)
        results = Analysis(hypotheses.registry._register._file.parent.parent).results
        heads.append(results.head_sha256(found.result.model))
        rows.append(results.card(found.result.model)["rows"])
    assert heads[0] == heads[1]
    assert rows[0]["digest"] == rows[1]["digest"]
    assert rows[0]["splits"] == ["train"]


def test_what_is_masked_for_its_shift_hangs_on_the_explore_halves_alone(data, monkeypatch):
    """Confirm halves that are altered beyond recognition change neither features nor head."""
    from service.gap import inputs as module
    from service.hypotheses import testing

    hypotheses = Hypotheses(Analysis(data))
    found = hypotheses.test(hypotheses.register(asked("mask_shifting")).id)
    assert found.images == "confirm"
    assert "informed" in found.family
    plain = module.Inputs.features.func

    def altered(self):
        sides = plain(self)
        if sides is None or isinstance(self, module.ChosenInputs):
            return sides
        _, confirm = module.explore_and_confirm(Bare(self))
        for side, rows in zip(sides.pair, confirm.rows.pair, strict=True):
            side[rows] = 1e3 * np.random.default_rng(0).normal(size=side[rows].shape)
        return sides

    class Bare(module.Inputs):
        def __init__(self, of):
            super().__init__(of.database, of.results, of.card, of.reference, of.target)

        features = None

    card = hypotheses._analysis.results.card("logistic")

    def asked_of():
        return module.Inputs(
            hypotheses._analysis.database, hypotheses._analysis.results, card, "val", "v2"
        )

    before = testing.shifting(asked_of(), 1)
    monkeypatch.setattr(module.Inputs.features, "func", altered)
    assert testing.shifting(asked_of(), 1) == before
    assert found.result.model is not None
    assert hypotheses._analysis.results.card(found.result.model)["without"] == before
    assert hypotheses._analysis.results.card(found.result.model)["use"] == INFORMED


def test_suggestions_hang_on_the_explore_halves_alone(data, monkeypatch):
    """Answers, scores and features of the confirm halves are altered beyond recognition."""
    from service.gap import inputs as module

    hypotheses = Hypotheses(Analysis(data))
    analysis = hypotheses._analysis
    card = analysis.results.card("logistic")

    def whole():
        return module.Inputs(analysis.database, analysis.results, card, "val", "v2")

    _, confirm = module.explore_and_confirm(whole())

    def altering(name, change):
        plain = getattr(module.Inputs, name).func

        def altered(self):
            sides = plain(self)
            if sides is None or isinstance(self, module.ChosenInputs):
                return sides
            pairs = zip(sides.pair, confirm.rows.pair, strict=True)
            return module.Sides(*(change(side, rows) for side, rows in pairs))

        monkeypatch.setattr(getattr(module.Inputs, name), "func", altered)

    def wrong(table, rows):
        for column in ("predicted_class_id", "is_correct"):
            values = table[column].to_numpy(zero_copy_only=False).copy()
            values[rows] = (values[rows] + 1) % 2
            place = table.schema.get_field_index(column)
            table = table.set_column(place, column, pa.array(values, table[column].type))
        return table

    def noise(array, rows):
        array = array.copy()
        array[rows] = 1e3 * np.random.default_rng(0).normal(size=array[rows].shape)
        return array

    before = suggest(hypotheses, whole())
    altering("answers", wrong)
    altering("features", noise)
    altering("scores", noise)
    assert whole().correct.target.tolist() != confirm.whole.correct.target.tolist()
    assert suggest(hypotheses, whole()) == before


@pytest.mark.parametrize("kind", [k for k in CASES if RECIPES[k].use == TEST_INPUTS])
def test_what_reads_test_inputs_is_refused_or_a_diagnostic(hypotheses, kind):
    with pytest.raises(ReadsTestInputs, match="diagnostic"):
        hypotheses.register(asked(kind))
    assert hypotheses.registry.all().hypotheses == []
    found = hypotheses.test(hypotheses.register(asked(kind, diagnostic=True)).id)
    assert found.family is None
    assert found.result.model is None
    assert found.result.verdicts == ["diagnostic"]
    assert found.result.sentence.startswith("Diagnostic")
    assert found.result.p_adjusted is None
    assert not any(
        card["model"].startswith("hypothesis") for card in hypotheses._analysis.results.models()
    )


def test_a_head_of_train_rows_is_no_diagnostic(hypotheses):
    with pytest.raises(InvalidParams, match="Leave diagnostic out"):
        hypotheses.register(asked(diagnostic=True))


@pytest.mark.parametrize(
    ("refinement", "words"),
    [
        ({"kind": "prayer"}, "wanted a recipe of kind"),
        ({"kind": "tent"}, "by the very images that judge it"),
        ({"kind": "stronger_penalty", "factor": 0.5}, "above 1"),
        ({"kind": "stronger_penalty", "faktor": 2}, "takes factor"),
        ({"kind": "ensemble"}, "list of names"),
        ({"kind": "backbone"}, "a name for backbone"),
        ({"kind": "drop_features", "features": ["nine"]}, "names of features"),
        ({}, "wanted a recipe"),
    ],
)
def test_what_is_no_recipe_is_refused_in_words(hypotheses, refinement, words):
    with pytest.raises(InvalidParams, match=words):
        hypotheses.register(asked(refinement=refinement))


def test_a_recipe_that_changes_nothing_of_this_head_is_refused():
    with pytest.raises(InvalidParams, match="changes nothing"):
        order_of(checked({"kind": "mixup"}), "lda", {"shrinkage": 0.1})


def test_an_ensemble_is_refined_member_by_member():
    members = [
        {"head": "logistic", "params": {"C": 1.0}, "weight": 0.6},
        {"head": "knn", "params": {"k": 5, "temperature": 0.07}, "weight": 0.4},
    ]
    found = order_of(checked({"kind": "stronger_penalty"}), "ensemble", {"members": members})
    assert found.head == "ensemble"
    assert [m["params"] for m in found.params["heads"]] == [
        {"C": 0.1},
        {"k": 50, "temperature": 0.07},
    ]


def test_a_hypothesis_is_scored_once(hypotheses):
    registered = hypotheses.register(asked())
    assert registered.state == "registered"
    assert registered.result is None
    tested = hypotheses.test(registered.id)
    assert tested.state == "tested"
    assert tested.sha256 == registered.sha256
    with pytest.raises(AlreadyScored, match="second chance"):
        hypotheses.test(registered.id)
    assert hypotheses.registry.get(registered.id) == tested


def test_the_result_is_that_of_the_stored_predictions(hypotheses):
    tested = hypotheses.test(hypotheses.register(asked()).id)
    scores = {
        model: {
            split: found.top1.estimate
            for split, found in hypotheses._analysis.evaluate(model).splits.items()
        }
        for model in ("logistic", tested.result.model)
    }
    gaps = {model: split["val"] - split["v2"] for model, split in scores.items()}
    assert tested.result.gap_change.estimate == pytest.approx(
        gaps[tested.result.model] - gaps["logistic"]
    )
    assert tested.result.accuracy["v2"] == pytest.approx(
        [scores["logistic"]["v2"], scores[tested.result.model]["v2"]]
    )


def test_halves_are_disjoint_and_verdicts_come_from_confirm(hypotheses):
    tested = hypotheses.test(hypotheses.register(asked(images="confirm")).id)
    assert tested.result.gap_change.n == {"val": 10, "v2": 7}


def test_the_looks_are_logged(hypotheses, data):
    tested = hypotheses.test(hypotheses.register(asked()).id)
    looks = [look for look in Looks(data).all() if look["purpose"] == "hypothesis"]
    assert {(look["model"], look["split"]) for look in looks} == {
        (tested.result.model, "val"),
        (tested.result.model, "v2"),
    }


def test_what_is_known_cannot_be_foretold(hypotheses):
    card = hypotheses._analysis.results.card("logistic")
    params = {**card["params"], "C": card["params"]["C"] / 10}
    hypotheses._analysis.train(
        model="peek", backbone="toy", head="logistic", params=params, seed=card["seed"]
    )
    hypotheses.check(asked())  # trained alone, nobody has seen a score
    hypotheses._analysis.evaluate("peek")
    with pytest.raises(AlreadyScored, match="peek"):
        hypotheses.register(asked())


def test_a_baseline_that_changed_is_refused(hypotheses, data):
    registered = hypotheses.register(asked())
    file = data / "results" / "logistic" / "model.json"
    card = json.loads(file.read_text())
    file.write_text(json.dumps(card | {"created_at": "2020-01-01T00:00:00.000"}))
    with pytest.raises(DataChanged, match="Register it anew"):
        hypotheses.test(registered.id)


def test_a_changed_record_is_found_by_audit_and_not_tested(hypotheses, data, capsys, monkeypatch):
    from service.cli import main

    registered = hypotheses.register(asked())
    monkeypatch.setenv("GAP_DATA", str(data))
    assert main(["audit", "logistic"]) in (0, 3)
    assert "as they were written" in capsys.readouterr().out
    file = data / "results" / "hypotheses.jsonl"
    file.write_text(file.read_text().replace('"one"', '"two"'))
    with pytest.raises(RecordChanged):
        hypotheses.test(registered.id)
    assert main(["audit", "logistic"]) == 1
    said = capsys.readouterr().out
    assert "FAILED" in said
    assert "line 1" in said


def test_a_killed_test_goes_on_with_the_same_head(hypotheses, monkeypatch):
    registered = hypotheses.register(asked())

    def killed(*_args, **_kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(Registry, "add_result", killed)
    with pytest.raises(KeyboardInterrupt):
        hypotheses.test(registered.id)
    monkeypatch.undo()
    model = f"hypothesis-{registered.id}"
    sha256 = hypotheses._analysis.results.head_sha256(model)
    assert hypotheses.test(registered.id).state == "tested"
    assert hypotheses._analysis.results.head_sha256(model) == sha256


def test_a_family_is_every_hypothesis_registered_in_it(hypotheses):
    first = hypotheses.test(hypotheses.register(asked()).id)
    alone = first.result.p_adjusted
    hypotheses.register(asked("mixup"))
    assert hypotheses.registry.get(first.id).result.p_adjusted == pytest.approx(min(1, 2 * alone))
    hypotheses.register(asked("averaging", family="another"))
    assert hypotheses.registry.get(first.id).n_family == 2


def test_suggestions_name_their_finding_and_what_contradicts_it(hypotheses):
    found = hypotheses.suggest(SuggestIn(model="logistic"))
    assert 1 <= len(found.hypotheses) <= 8
    assert found.n == {"val": 10, "v2": 8}
    assert all("explore halves" in one.motivated_by for one in found.hypotheses)
    assert all(one.contradicted_by for one in found.hypotheses)
    assert len({json.dumps(one.refinement) for one in found.hypotheses}) == len(found.hypotheses)
    assert hypotheses.registry.all().hypotheses == []
    assert hypotheses.suggest(SuggestIn(model="logistic")) == found
    for one in found.hypotheses:
        hypotheses.register(one)


def test_over_http(data):
    with TestClient(create_app(Settings(data=data), with_worker=False)) as client:
        assert client.get("/hypotheses").json()["summary"] == ["No hypothesis is registered."]
        assert client.get("/hypotheses/chart").status_code == 409
        kinds = [one["kind"] for one in client.get("/hypotheses/recipes").json()]
        assert kinds == list(RECIPES)
        made = client.post("/hypotheses", json=asked().model_dump())
        assert made.status_code == 201, made.text
        assert made.headers["location"] == f"/hypotheses/{made.json()['id']}"
        queued = client.post(f"/hypotheses/{made.json()['id']}/test")
        assert queued.status_code == 202
        assert queued.json()["kind"] == "hypothesis"
        Hypotheses(Analysis(data)).test(made.json()["id"])
        assert client.post(f"/hypotheses/{made.json()['id']}/test").status_code == 409
        shown = client.get(f"/hypotheses/{made.json()['id']}").json()
        assert shown["result"]["sentence"]
        spec = client.get("/hypotheses/chart").json()
        drawn = [row for rows in spec["datasets"].values() for row in rows if "at" not in row]
        assert drawn[0]["estimate"] == shown["result"]["gap_change"]["estimate"]
        assert client.get("/hypotheses/chart?format=svg").text.startswith("<svg")
        suggested = client.post("/hypotheses/suggest", json={"model": "logistic"})
        assert suggested.status_code == 200, suggested.text
        assert client.get("/hypotheses/none").status_code == 404


def test_on_the_command_line(data, monkeypatch, capsys, tmp_path):
    from service.cli import main

    monkeypatch.setenv("GAP_DATA", str(data))
    assert main(["hypotheses"]) == 0
    assert "No hypothesis" in capsys.readouterr().out
    file = tmp_path / "mine.json"
    file.write_text(json.dumps([asked().model_dump(), asked("mixup").model_dump()]))
    assert main(["hypotheses", "register", str(file)]) == 0
    assert capsys.readouterr().out.count("registered") == 2
    assert main(["hypotheses", "run", "logistic"]) == 0
    said = capsys.readouterr().out
    assert "2 registered, 2 tested" in said
    assert main(["hypotheses", "recipes"]) == 0
    assert '"kind": "mixup"' in capsys.readouterr().out
    file.write_text("{")
    assert main(["hypotheses", "register", str(file)]) == 2
    assert "JSON" in capsys.readouterr().err
    assert main(["hypotheses", "run", "--suggest"]) == 2


def test_a_head_that_bears_the_name_of_a_test_is_not_scored_for_it(hypotheses):
    """Anybody can train one of that name once the id is known, on whatever was learnt since."""
    registered = hypotheses.register(asked())
    hypotheses._analysis.train(
        model=f"hypothesis-{registered.id}", backbone="toy", head="lda", params={}, seed=0
    )
    with pytest.raises(ModelExists, match="something else made"):
        hypotheses.test(registered.id)


@pytest.mark.parametrize(
    "fields", [{"title": "again"}, {"family": "mine"}, {"images": "confirm"}, {"sided": "two"}]
)
@pytest.mark.parametrize("kind", ["drop_unstable", "interpolate", "mixup"])
def test_the_same_refinement_is_registered_once(hypotheses, kind, fields):
    hypotheses.register(asked(kind))
    with pytest.raises(AlreadyRegistered, match="second chance"):
        hypotheses.register(asked(kind, **fields))


def test_another_seed_does_not_hide_a_known_score(hypotheses):
    card = hypotheses._analysis.results.card("logistic")
    params = {**card["params"], "C": card["params"]["C"] / 10}
    hypotheses._analysis.train(model="peek", backbone="toy", head="logistic", params=params, seed=9)
    hypotheses._analysis.evaluate("peek")
    with pytest.raises(AlreadyScored, match="peek"):
        hypotheses.register(asked())


def test_a_known_head_between_two_is_not_foretold(hypotheses):
    with pytest.raises(AlreadyScored, match="'mean'"):
        hypotheses.register(asked(refinement={"kind": "interpolate", "model": "mean", "alpha": 1}))
    hypotheses._analysis.interpolate("logistic", "mean", alpha=0.25, name="peek")
    hypotheses._analysis.evaluate("peek")
    with pytest.raises(AlreadyScored, match="peek"):
        hypotheses.register(asked("interpolate"))


def test_families_of_ones_own_are_counted_together_too(hypotheses):
    """A family for each hypothesis escapes Holm; the numbers of all together stand beside it."""
    alone = hypotheses.test(hypotheses.register(asked()).id)
    for kind in ("mixup", "averaging", "feature_noise"):
        hypotheses.register(asked(kind, family=f"only {kind}"))
    after = hypotheses.registry.get(alone.id)
    assert after.n_family == 1
    assert after.result.p_adjusted == alone.result.p_adjusted
    assert after.result.p_adjusted_of_all == pytest.approx(min(1, 4 * alone.result.p_value))


def test_what_is_made_of_an_informed_head_is_informed(hypotheses):
    masked = hypotheses.test(hypotheses.register(asked("mask_shifting")).id).result.model
    on_it = hypotheses.register(asked("mixup", baseline=masked))
    assert (on_it.use, on_it.images) == (INFORMED, "confirm")
    assert "informed" in on_it.family
    refinement = {"kind": "interpolate", "model": masked, "alpha": 0.5}
    assert hypotheses.check(asked(refinement=refinement))["use"] == INFORMED
    made = hypotheses._analysis.interpolate("mean", masked, alpha=0.5, name="between")
    assert made["use"] == INFORMED


def test_a_refined_head_reads_and_learns_from_no_more_than_its_baseline(hypotheses):
    analysis = hypotheses._analysis
    _, paths = analysis.database.train_rows("toy")
    analysis.train(
        model="less", backbone="toy", head="logistic", params={}, seed=0, without=["1"],
        leave_out=paths[:3], why="copies of test rows",
    )  # fmt: skip
    for kind, without in (("mixup", ["1"]), ("drop_features", ["0", "1"])):
        found = hypotheses.test(hypotheses.register(asked(kind, baseline="less")).id)
        card = analysis.results.card(found.result.model)
        assert card["without"] == without
        assert card["left_out"] == {"n": 3, "why": "copies of test rows"}
        assert not analysis.results.learnt_from(found.result.model, paths[:3]).any()


def test_what_a_recipe_names_may_not_be_exchanged_after_registering(hypotheses, data):
    registered = hypotheses.register(asked("interpolate"))
    shutil.rmtree(data / "results" / "mean")
    hypotheses._analysis.train(model="mean", backbone="toy", head="ridge", params={}, seed=0)
    with pytest.raises(DataChanged, match="the head of mean"):
        hypotheses.test(registered.id)


def test_looks_before_registering_are_told(hypotheses):
    first = hypotheses.register(asked())
    assert first.n_looks_before is not None
    hypotheses._analysis.evaluate("logistic")
    hypotheses.test(first.id)
    assert hypotheses.register(asked("mixup")).n_looks_before > first.n_looks_before


@pytest.mark.parametrize("cut", ["the newest", "all"])
def test_records_that_were_cut_off_are_missed_by_audit(hypotheses, data, cut):
    """A chain without its end is a chain: the log of looks tells that more was tested."""
    hypotheses.test(hypotheses.register(asked()).id)
    gone = hypotheses.test(hypotheses.register(asked("mixup")).id)
    file = data / "results" / "hypotheses.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    count = file.with_suffix(".head")  # whoever cuts records may mend their count as well
    if cut == "the newest":
        file.write_text("".join(lines[:2]))
        count.write_text(json.dumps({"n": 2, "sha256": json.loads(lines[1])["sha256"]}))
    else:
        file.unlink()
        count.unlink()
    check = hypotheses._analysis.audit("logistic").answer.checks[-1]
    assert check.passed is False
    assert gone.id in check.sentence


def test_halves_hang_on_no_backbone(world, tmp_path):
    """An image is in the same half for a backbone that lacks a few of the others."""
    from service.gap.inputs import Inputs, explore_and_confirm

    part = dict(world)
    for split in ("val", "v2"):
        rows = world[split, "tiny"]
        keep = np.array([not path.endswith(("/0.png", "/1.png")) for path in rows.paths])
        paths = [path for path, kept in zip(rows.paths, keep, strict=True) if kept]
        part[split, "tiny"] = Split(paths, rows.labels[keep], rows.features[keep])
    load(tmp_path / "data", [write_world(tmp_path / "csv", part)], n_threads=1)
    analysis = Analysis(tmp_path / "data")
    confirmed = {}
    for backbone in ("toy", "tiny"):
        analysis.train(model=backbone, backbone=backbone, head="lda", params={}, seed=0)
        analysis.evaluate(backbone)
        card = analysis.results.card(backbone)
        inputs = Inputs(analysis.database, analysis.results, card, "val", "v2")
        explore, confirm = explore_and_confirm(inputs)
        confirmed[backbone] = [set(side.to_pylist()) for side in confirm.paths.pair]
        explored = [set(side.to_pylist()) for side in explore.paths.pair]
        assert not any(a & b for a, b in zip(explored, confirmed[backbone], strict=True))
    for of_toy, of_tiny in zip(confirmed["toy"], confirmed["tiny"], strict=True):
        assert of_tiny <= of_toy


def test_a_baseline_on_several_backbones_can_be_refined(hypotheses):
    hypotheses._analysis.train(
        model="both", backbone="toy+tiny", head="logistic", params={}, seed=0, without=["toy.1"]
    )
    found = hypotheses.test(hypotheses.register(asked("mixup", baseline="both")).id)
    assert hypotheses._analysis.results.card(found.result.model)["without"] == ["toy.1"]
