"""Each chart's data are the JSON answer's own numbers."""

import json
import shutil
from types import SimpleNamespace

import pytest
from fastapi.testclient import TestClient

from etl import load
from models.heads import Curve
from service import charts
from service.app import create_app
from service.gap import PARTS
from service.results import Results
from service.schemas import CurveOut, CurvesOut
from service.settings import Settings


def rows_of(spec):
    """Return the data that show the answer (those of the lines at 0 and at the gap left out)."""
    return max(spec["datasets"].values(), key=lambda rows: len(rows[0]))


@pytest.fixture
def answer(client):
    return client.get("/gap/logistic").json()


def spec(client, name):
    return client.get(f"/gap/logistic/chart/{name}").json()


def test_gap_chart(client, answer):
    for row in rows_of(spec(client, "gap")):
        accuracy = answer["accuracy"][row["split"]]
        assert [row[k] for k in ("estimate", "low", "high")] == [
            accuracy[k] for k in ("estimate", "low", "high")
        ]
        assert row["split"] == answer[row["part"]]


def test_classes_chart(client, answer):
    rows = rows_of(spec(client, "classes"))
    known = [c for c in answer["classes"] if c["raw"] is not None]
    assert [(r["class_id"], r["raw"], r["shrunken"], r["low"], r["high"]) for r in rows] == [
        (c["class_id"], c["raw"], *(c["shrunken"][k] for k in ("estimate", "low", "high")))
        for c in known
    ]


def test_features_chart(client, answer):
    rows = rows_of(spec(client, "features"))
    assert len(rows) == len(answer["features"])
    for row, feature in zip(rows, answer["features"], strict=True):
        shift = feature["mean_difference_within_classes"]
        assert (row["shift"], row["low"], row["high"]) == tuple(
            shift[k] for k in ("estimate", "low", "high")
        )
        for name in ("feature_name", "ks", "head_weight", "p_value", "relevance"):
            assert row[name] == feature[name]


def test_class_shift_chart(client, answer):
    assert rows_of(spec(client, "class_shift")) == answer["class_shift"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, toy_csv):
    """Toy models of a closed form, of steps, and of several heads together; and an old card."""
    data = tmp_path_factory.mktemp("trained") / "data"
    load(data, [toy_csv], n_threads=1)
    with TestClient(create_app(Settings(data=data), with_worker=False)) as client:
        train = client.app.state.analysis.train
        grid = {"C": [1.0, 0.1]}
        train(model="steps", backbone="toy", head="logistic", params=grid, seed=0)
        train(model="closed", backbone="toy", head="lda", params={}, seed=0)
        heads = {"heads": ["lda", "ridge"]}
        train(model="several", backbone="toy", head="ensemble", params=heads, seed=0)
        old = shutil.copytree(data / "results" / "closed", data / "results" / "old")
        card = json.loads((old / "model.json").read_text())
        del card["notes"], card["asked"]
        value = {"value": 0.1, "top1": 0.5, "nll": 1.0, "temperature": 1.5}
        card |= {"model": "old"}
        card["validation"]["candidates"] = [value, {**value, "value": 1.0, "top1": 0.6}]
        (old / "model.json").write_text(json.dumps(card))
        (old / "curves.json").unlink()
        given = {**card, "model": "given", "head": "native", "validation": None}
        given["given"] = {"file": "x.pth", "sha256": "0" * 64, "weight": ["w"], "bias": ["b"],
                          "learnt_from": "unknown"}  # fmt: skip
        results = Results(data)
        results.save_model(given, results.head("closed"), results.train_rows("closed"))
        yield client


def test_leaderboard_chart(trained):
    for model in ("steps", "closed", "several", "old"):
        answer = trained.get(f"/models/{model}/leaderboard").json()
        rows = rows_of(trained.get(f"/models/{model}/chart/leaderboard").json())
        assert len(rows) == len(answer["candidates"])
        for candidate in answer["candidates"]:
            kept = {k: v for k, v in candidate.items() if k not in ("params", "temperature")}
            assert {**kept, "head": kept["head"] or "lda"} in rows


def test_the_leaderboard_is_the_cards(trained):
    for model in ("steps", "closed", "several"):
        card = trained.get(f"/models/{model}").json()
        found = trained.get(f"/models/{model}/leaderboard").json()
        assert (found["method"], found["notes"]) == (card["validation"]["method"], card["notes"])
        bare = [
            {k: v for k, v in c.items() if k not in ("setting", "is_best", "is_chosen")}
            for c in found["candidates"]
        ]
        assert sorted(map(str, bare)) == sorted(map(str, card["validation"]["candidates"]))
        assert [c["top1"] for c in found["candidates"] if c["n_fit"] == 38] == sorted(
            (c["top1"] for c in bare), reverse=True
        )
        (chosen,) = [c for c in found["candidates"] if c["is_chosen"]]
        assert (chosen["head"], chosen["params"]) == (card["head"], card["params"])
        best = {c["head"]: c for c in found["candidates"] if c["is_best"]}
        assert set(best) == {c["head"] for c in bare}
        for c in bare:
            assert best[c["head"]]["top1"] >= c["top1"]
    assert set(best) == {"lda", "ridge", "ensemble"}
    assert "lda (shrinkage=" in best["ensemble"]["setting"]


def test_loss_chart(trained):
    answer = trained.get("/models/steps/curves").json()
    roles = [curve["role"] for curve in answer["curves"]]
    assert (len(roles), roles.count("final"), roles.count("chosen")) == (11, 1, 5)
    (final,) = [curve for curve in answer["curves"] if curve["role"] == "final"]
    card = trained.get("/models/steps").json()
    assert (final["head"], final["params"]) == ("logistic", card["params"])
    drawn = [
        (row["fit"], row["measure"], row["step"], row["value"], row["role"], row["stage"])
        for rows in trained.get("/models/steps/chart/loss").json()["datasets"].values()
        for row in rows
    ]
    said = [
        (i, measure, step, value, curve["role"], curve["stage"])
        for i, curve in enumerate(answer["curves"])
        for measure, name in (("train loss", "loss"), ("monitored NLL", "monitored"))
        for step, value in enumerate(curve[name], start=1)
        if value is not None
    ]
    assert sorted(drawn) == sorted(said)


def test_the_loss_chart_ends_with_its_curves_and_its_legend_names_what_is_there(trained):
    answer = trained.get("/models/steps/curves").json()
    spec = trained.get("/models/steps/chart/loss").json()
    last = max(len(curve["loss"]) for curve in answer["curves"])
    for layer in spec["layer"]:
        x, colour = layer["encoding"]["x"]["scale"], layer["encoding"]["color"]["scale"]
        assert (x["domain"], x["nice"]) == ([1, last], False)
        assert colour["domain"] == ["train loss", "not chosen"]
    assert "dashed" not in spec["description"]


def test_the_leaderboards_words_and_axis_fit_what_is_there(trained):
    trained.app.state.analysis.train(
        model="one", backbone="toy", head="nearest_mean", params={}, seed=0
    )
    spec = trained.get("/models/one/chart/leaderboard").json()
    assert spec["description"] == "What was tried for one: 1 setting (vermilion: chosen)"
    top1 = trained.get("/models/one/leaderboard").json()["candidates"][0]["top1"]
    low, high = spec["layer"][0]["encoding"]["x"]["scale"]["domain"]
    assert low < top1 <= high
    spec = trained.get("/models/steps/chart/leaderboard").json()
    assert "2 settings (vermilion: chosen; grey: others)" in spec["description"]


def test_the_ten_most_relevant_features_are_named_in_the_picture():
    features = [
        SimpleNamespace(
            feature_id=i, feature_name=f"f{i}", ks=0.1, p_value=0.5, head_weight=1.0,
            relevance=1 / (i + 1),
            mean_difference_within_classes=SimpleNamespace(estimate=0.1 * i, low=0.0, high=1.0),
        )
        for i in range(12)
    ]  # fmt: skip
    rows = rows_of(charts.features_chart(SimpleNamespace(features=features)).to_dict())
    assert [row["label"] for row in rows] == [f"f{i}" for i in range(10)] + ["", ""]


def test_many_long_curves_are_thinned_and_drawn_behind_the_chosen_one():
    def curve(i):
        loss = [1 / (step + i + 1) for step in range(5000)]
        monitored = [2 * value if step % 2 else None for step, value in enumerate(loss)]
        made = Curve("mlp", {"weight_decay": float(i)}, "held", loss, monitored)
        role = "chosen" if i == 7 else "other"
        return CurveOut(**vars(made), setting=f"weight_decay={i}", role=role)

    answer = CurvesOut(model="m", curves=[curve(i) for i in range(60)], reason=None)
    spec = charts.training_spec(answer, "loss")
    behind, before = (spec["datasets"][layer["data"]["name"]] for layer in spec["layer"])
    assert {row["fit"] for row in before} == {7}
    assert {row["line"] for row in behind} == {"not chosen"}
    assert len(before) == 400
    lines = {(row["fit"], row["measure"]) for row in behind}
    assert len(lines) == 2 * 59
    for measure, first, last, values in (
        ("train loss", 1, 5000, answer.curves[7].loss),
        ("monitored NLL", 2, 5000, answer.curves[7].monitored),
    ):
        mine = [row for row in before if row["measure"] == measure]
        assert (mine[0]["step"], mine[-1]["step"]) == (first, last)
        assert all(row["value"] == values[row["step"] - 1] for row in mine)
    assert charts.svg(spec).startswith("<svg")


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("closed/chart/loss", "closed forms"),
        ("several/chart/loss", "closed forms"),
        ("old/chart/loss", "stored before"),
        ("given/chart/loss", "were given"),
        ("given/chart/leaderboard", "were given"),
    ],
)
def test_a_training_that_left_nothing_is_refused_in_words(trained, path, why):
    answer = trained.get(f"/models/{path}?format=svg")
    assert (answer.status_code, answer.json()["code"]) == (409, "nothing_to_draw")
    assert why in answer.json()["detail"]
    name = {"loss": "curves", "leaderboard": "leaderboard"}[path.rsplit("/", 1)[1]]
    said = trained.get(f"/models/{path.split('/')[0]}/{name}").json()
    assert said["curves" if name == "curves" else "candidates"] == []
    assert said["reason"] in answer.json()["detail"]


def test_an_old_card_is_read_without_heads_of_its_candidates(trained):
    candidates = trained.get("/models/old").json()["validation"]["candidates"]
    assert [(c["head"], c["params"], c["n_fit"]) for c in candidates] == [(None, None, None)] * 2
    ranked = trained.get("/models/old/leaderboard").json()["candidates"]
    assert [(c["top1"], c["is_best"], c["is_chosen"]) for c in ranked] == [
        (0.6, True, False), (0.5, False, False)]  # fmt: skip


def test_the_page_shows_the_leaderboard(trained):
    page = trained.get("/view/several/training").text
    table = page.split('id="leaderboard"')[1].split("</table>")[0]
    answer = trained.get("/models/several/leaderboard").json()
    rows = table.split("<tr")[2:]
    assert len(rows) == len(answer["candidates"])
    for c, row in zip(answer["candidates"], rows, strict=True):
        assert f"<td>{c['head']}" in row
        assert c["setting"] in row
        assert f"{c['top1'] * 100:.1f} %" in row
        assert f"{c['nll']:.3f}" in row
        assert (">chosen<" in row) == c["is_chosen"]
    assert "&#39;members&#39;" not in page
    assert f"Chosen by {answer['method']}" in page
    assert "internal validation is on rows that took no part in choosing" in page
    assert 'value="auto"' in trained.get("/view/train").text
    assert "several/chart/leaderboard?format=html" in page
    assert "several/chart/loss" not in page
    assert "steps/chart/loss?format=html" in trained.get("/view/steps/training").text
    assert 'id="leaderboard"' in trained.get("/view/old/training").text
    assert 'id="leaderboard"' not in trained.get("/view/given/training").text


def test_notes_of_a_training_are_on_the_page_as_text(trained):
    file = trained.app.state.analysis.data / "results" / "closed" / "model.json"
    whole = file.read_text()
    card = json.loads(whole)
    file.write_text(json.dumps(card | {"notes": ["knn was <left> out"]}))
    try:
        assert "<li>knn was &lt;left&gt; out</li>" in trained.get("/view/closed/training").text
        assert trained.get("/models/closed").json()["notes"] == ["knn was <left> out"]
    finally:
        file.write_text(whole)


EVERY = [f"/gap/logistic/chart/{name}" for name in charts.CHARTS] + [
    f"/models/logistic/chart/{name}" for name in charts.TRAINING_CHARTS
]


@pytest.mark.parametrize("path", EVERY)
@pytest.mark.parametrize(
    ("kind", "media", "start"),
    [
        ("svg", "image/svg+xml", b"<svg"),
        ("png", "image/png", b"\x89PNG"),
        ("html", "text/html", b"<!doc"),
    ],
)
def test_every_chart_comes_in_every_form(client, path, kind, media, start):
    answer = client.get(f"{path}?format={kind}")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith(media)
    assert answer.content.startswith(start)


def test_an_unknown_chart_is_refused_with_all_that_there_are(client):
    said = client.get("/gap/logistic/chart/nope").json()["detail"]
    for name in [*charts.CHARTS, *(name for part in PARTS.values() for name in part.charts)]:
        assert name in said
    assert "(leaderboard, loss) are under /models/logistic/chart" in said


def test_the_page_says_what_a_job_does(tmp_path, toy_data):
    data = shutil.copytree(toy_data, tmp_path / "data")
    with TestClient(create_app(Settings(data=data), with_worker=False)) as client:
        jobs = client.app.state.jobs
        jobs.submit({"explain": {"model": "logistic"}}, "logistic")
        jobs.submit({"head": "lda"}, "new")
        page = client.get("/").text
        for what in ("explanation of <b>logistic</b>", "training of <b>new</b>"):
            line = next(li for li in page.split("<li") if what in li)
            assert 'data-state="queued"' in line
            assert "Cancel" in line
        assert [job["kind"] for job in client.get("/jobs").json()][:2] == ["train", "explain"]


def test_a_chart_computes_nothing(client):
    """No aggregate, filter or bin in any spec: the numbers are those of the answer."""
    for path in EVERY:
        spec = client.get(path).json()
        assert len(spec["description"]) > 20
        for word in ('"aggregate"', '"transform"', '"bin"', '"impute"'):
            assert word not in json.dumps(spec), (path, word)


def test_every_chart_is_tested_here():
    names = globals()
    assert all(f"test_{name}_chart" in names for name in (*charts.CHARTS, *charts.TRAINING_CHARTS))
