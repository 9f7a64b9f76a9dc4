"""The interface as it describes itself: examples run, refusals are problems."""

import json
import shutil

import pytest
from fastapi.testclient import TestClient
from pydantic import TypeAdapter, ValidationError

from models.heads import HEADS
from service.app import create_app
from service.schemas import HeadName
from service.settings import Settings

TOY = {"backbone": "toy", "seed": 0}
MEAN = {"model": "mean"}
ARROW = "application/vnd.apache.arrow.stream"


@pytest.fixture
def schema(client):
    return client.get("/openapi.json").json()


def test_the_documentation_needs_no_internet(client):
    text = client.get("/docs").text
    assert "http://" not in text.replace("http://testserver", "")
    assert "https://" not in text
    assert client.get("/static-offline-docs/swagger-ui-bundle.js").status_code == 200


def test_every_request_body_has_an_example_that_runs(client, schema, toy_data):
    """Examples name the demo's model and backbone; here they stand for the toy ones."""
    stand_in = {'"pixels-logistic"': '"mean"', '"pixels"': '"toy"'}
    ran = 0
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            if "requestBody" not in operation:
                continue
            content = operation["requestBody"]["content"]
            if "application/json" not in content:  # bytes: tests of their own have examples
                assert {c["schema"]["format"] for c in content.values()} == {"binary"}
                assert set(content) <= {ARROW, "image/jpeg", "image/png", "image/webp"}
                continue
            body = content["application/json"]["schema"]["$ref"]
            (example,) = schema["components"]["schemas"][body.rsplit("/", 1)[1]]["examples"]
            text = json.dumps(example)
            for name, toy in stand_in.items():
                text = text.replace(name, toy)
            sent = json.loads(text)
            path = path.replace("{model}", "mean")
            if path == "/predict":
                sent["features"] = [[0.0, 0.0, 7.0]]
            if path == "/seals":  # the toy world's models have been evaluated, its target is v2
                answer = client.request(method, path, json={**sent, "target": "v2"})
                assert (answer.status_code, answer.json()["code"]) == (409, "already_seen")
                continue
            if path == "/hypotheses":
                sent["baseline"] = "logistic"  # of which the recipe changes something
            answer = client.request(method, path, json=sent)
            assert answer.status_code in (200, 201, 202), (path, answer.text)
            ran += 1
            if path == "/hypotheses":
                for record in (toy_data / "results").glob("hypotheses.*"):  # and its count
                    record.unlink()
                continue
            if answer.status_code == 201:  # the toy world is for all tests to read
                shutil.rmtree(toy_data / "results" / answer.json()["model"])
    assert ran == 9


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("get", "/models/none", None, 404, "not_found"),
        ("get", "/models/..%2f..%2fetc", None, 404, None),
        ("get", "/gap/none", None, 404, "not_found"),
        ("get", "/gap/mean?target=none", None, 404, "not_found"),
        ("get", "/gap/mean?target=train", None, 422, "not_a_test"),
        ("get", "/gap/mean?target=val&reference=val", None, 422, "not_a_test"),
        ("get", "/gap/mean?top=0", None, 422, "invalid_request"),
        ("get", "/gap/mean/chart/none", None, 404, "not_found"),
        ("get", "/gap/mean/chart/gap?format=gif", None, 422, "invalid_request"),
        ("get", "/models/none/leaderboard", None, 404, "not_found"),
        ("get", "/models/none/curves", None, 404, "not_found"),
        ("get", "/models/none/chart/loss", None, 404, "not_found"),
        ("get", "/models/mean/chart/none", None, 404, "not_found"),
        ("get", "/models/mean/chart/loss", None, 409, "nothing_to_draw"),
        ("get", "/models/mean/chart/leaderboard?format=gif", None, 422, "invalid_request"),
        ("get", "/seals/none", None, 404, "not_found"),
        ("get", "/seals/chart", None, 409, "nothing_to_draw"),
        ("post", "/seals", {"model": "none", "target": "v2"}, 404, "not_found"),
        ("post", "/seals", {"model": "mean", "target": "train"}, 422, "not_a_test"),
        ("get", "/jobs/none", None, 404, "not_found"),
        ("delete", "/jobs/none", None, 404, "not_found"),
        ("post", "/jobs/none/resume", None, 404, "not_found"),
        ("get", "/nowhere", None, 404, "http"),
        ("put", "/train", None, 405, "http"),
        ("post", "/train", {"backbone": "none", "seed": 0}, 404, "not_found"),
        ("post", "/train", {"backbone": "toy"}, 422, "invalid_request"),
        ("post", "/train", {**TOY, "colour": 1}, 422, "invalid_request"),
        ("post", "/train", {**TOY, "head": "x"}, 422, "invalid_params"),
        ("post", "/train", {"backbone": "toy", "seed": -1}, 422, "invalid_request"),
        ("post", "/train", {**TOY, "params": {"C": 0}}, 422, "invalid_params"),
        ("post", "/train", {**TOY, "name": "../x"}, 422, "invalid_request"),
        ("post", "/train", {**TOY, "name": "mean"}, 409, "model_exists"),
        ("post", "/evaluate", {"model": "none"}, 404, "not_found"),
        ("post", "/evaluate", {"model": "mean", "splits": ["train"]}, 422, "not_a_test"),
        ("post", "/evaluate", {"model": "mean", "splits": []}, 422, "invalid_request"),
        ("post", "/predict", {"model": "mean", "features": [[1.0]]}, 422, "wrong_shape"),
        ("post", "/predict", {"model": "mean", "features": [[1.0], [1, 2]]}, 422, "wrong_shape"),
        ("post", "/predict", {"model": "mean", "features": []}, 422, "invalid_request"),
        ("post", "/predict", {**MEAN, "features": [[1e39, 0, 0]]}, 422, "not_finite_input"),
    ],
)  # fmt: skip
def test_a_refusal_is_a_problem_with_a_code(client, method, path, body, status, code):
    answer = client.request(method, path, json=body)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    if code is not None:
        assert answer.json()["code"] == code


def test_a_job_is_resumed_unless_its_name_was_taken_meanwhile(toy_data, tmp_path):
    data = shutil.copytree(toy_data, tmp_path / "data")
    with TestClient(create_app(Settings(data=data), with_worker=False)) as client:
        first, second = (
            client.post("/train", json={**TOY, "name": name}).headers["location"]
            for name in ("a", "b")
        )
        answer = client.post(f"{first}/resume")
        assert (answer.status_code, answer.json()["code"]) == (409, "not_resumable")
        for job in (first, second):
            client.delete(job)
        answer = client.post(f"{first}/resume")
        assert (answer.status_code, answer.json()["state"]) == (202, "queued")
        assert answer.headers["location"] == first
        assert client.get(first).json() == answer.json()
        # another job, and then a model, has the name of the second
        client.post("/train", json={**TOY, "name": "b"})
        answer = client.post(f"{second}/resume")
        assert (answer.status_code, answer.json()["code"]) == (409, "model_exists")
        client.delete(f"/jobs/{newest(client)}")
        client.app.state.analysis.train(model="b", backbone="toy", head="lda", params={}, seed=0)
        answer = client.post(f"{second}/resume")
        assert (answer.status_code, answer.json()["code"]) == (409, "model_exists")
        assert client.get(second).json()["state"] == "cancelled"


def newest(client):
    return client.get("/jobs").json()[0]["job"]


def test_malformed_json_and_nan_are_refused(client):
    headers = {"content-type": "application/json"}
    assert client.post("/train", content="{", headers=headers).status_code == 400
    nan = '{"model": "mean", "features": [[NaN, 0, 0]]}'
    assert client.post("/predict", content=nan, headers=headers).status_code in (400, 422)


def test_no_answer_holds_a_nan(client):
    for path in (
        "/gap/mean", "/models", "/splits", "/annotations", "/gap/logistic/chart/features",
        "/models/logistic/leaderboard", "/models/logistic/curves", "/models/logistic/chart/loss",
    ):  # fmt: skip
        text = client.get(path).text
        assert "NaN" not in text
        assert "Infinity" not in text


def test_every_head_may_be_asked_for():
    adapter = TypeAdapter(HeadName)
    for head in (*HEADS, "sklearn:GaussianNB"):
        assert adapter.validate_python(head) == head
    for other in ("", "a/b", "pickle:x"):
        with pytest.raises(ValidationError):
            adapter.validate_python(other)
