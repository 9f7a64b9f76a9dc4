"""A head fitted again without features: asked for, kept, found again, refused."""

import shutil

import pytest
from fastapi.testclient import TestClient

from service.app import create_app
from service.jobs import OPEN
from service.settings import Settings


def test_a_mask_answers_and_is_found_again(client):
    body = {"features": ["1", "0", "1"]}
    answer = client.post("/gap/logistic/mask", json=body)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert found["features"] == ["0", "1"]
    assert found["head"] == "logistic"
    change = found["gap_change"]["estimate"]
    accuracies = [found[key] for key in ("accuracy", "accuracy_without")]
    gaps = [a["val"]["estimate"] - a["v2"]["estimate"] for a in accuracies]
    assert change == pytest.approx(gaps[1] - gaps[0])
    assert found["accepted"] == (found["verdict"] == "narrows the gap")
    again = client.post("/gap/logistic/mask", json={"features": ["0", "1"]})
    assert again.content == answer.content
    assert client.get(f"/gap/logistic/mask/{found['id']}").content == answer.content


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"features": ["none"]}, 404),
        ({"features": []}, 422),
        ({"features": ["0", "1", "2"]}, 422),
        ({"features": ["0"], "target": "train"}, 422),
    ],
)
def test_what_cannot_be_left_out_is_refused(client, body, status):
    assert client.post("/gap/logistic/mask", json=body).status_code == status


def test_a_mask_that_nobody_asked_for_is_not_there(client):
    assert client.get("/gap/logistic/mask/0123").status_code == 404


def test_with_a_worker_it_is_a_job(toy_data, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(toy_data, data, ignore=shutil.ignore_patterns("gap"))
    with TestClient(create_app(Settings(data=data))) as client:
        asked = client.post("/gap/mean/mask", json={"features": ["0"]})
        assert asked.status_code == 202
        again = client.post("/gap/mean/mask", json={"features": ["0"]})
        job = asked.json()["job"]
        state = client.get(f"/jobs/{job}").json()
        while state["state"] in OPEN:
            state = client.get(f"/jobs/{job}").json()
        assert state["state"] == "done", state
        if again.status_code == 202:
            assert again.json()["job"] == job
        found = client.post("/gap/mean/mask", json={"features": ["0"]}).json()
        assert client.get(f"/gap/mean/mask/{found['id']}").json() == found
