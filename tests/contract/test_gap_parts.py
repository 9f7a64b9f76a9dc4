"""Every part of /gap answers, is kept, and is drawn from its own numbers."""

import json
import shutil

import pytest
from fastapi.testclient import TestClient

from service.app import create_app
from service.gap import PARTS
from service.settings import Settings


def flat(answer):
    """All numbers and texts in an answer, however deep."""
    if isinstance(answer, dict):
        return [x for value in answer.values() for x in flat(value)]
    if isinstance(answer, list):
        return [x for value in answer for x in flat(value)]
    return [answer]


@pytest.mark.parametrize("part", list(PARTS))
def test_a_part_answers_and_its_charts_show_its_numbers(client, part):
    answer = client.get(f"/gap/logistic/{part}")
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert (body["model"], body["reference"], body["target"]) == ("logistic", "val", "v2")
    assert body["summary"]
    numbers = {x for x in flat(body) if isinstance(x, float)}
    for name in PARTS[part].charts:
        answered = client.get(f"/gap/logistic/chart/{name}")
        if answered.status_code == 409:
            assert answered.json()["code"] == "nothing_to_draw"
            continue
        spec = answered.json()
        rows = [row for rows in spec["datasets"].values() for row in rows if "at" not in row]
        drawn = {x for row in rows for x in row.values() if isinstance(x, float)}
        assert drawn <= numbers, f"{name} shows numbers that {part} has not"
        svg = client.get(f"/gap/logistic/chart/{name}?format=svg")
        assert svg.text.startswith("<svg")


def test_an_answer_is_kept_and_found_again(client):
    first = client.get("/gap/logistic/ledger").content
    assert client.get("/gap/logistic/ledger").content == first


def test_the_ledger_sums_to_the_gap(client):
    found = client.get("/gap/logistic/ledger").json()
    total = sum(term["estimate"] or 0.0 for term in found["terms"])
    assert abs(total - found["gap"]["estimate"]) < 1e-9
    assert found["terms"][-1]["name"] == "rest"


def test_an_answer_that_is_not_ready_is_202_with_its_job(toy_data, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(toy_data, data, ignore=shutil.ignore_patterns("gap"))
    with TestClient(create_app(Settings(data=data))) as client:
        asked = client.get("/gap/logistic/ledger")
        assert asked.status_code == 202
        job = asked.json()["job"]
        assert asked.headers["Location"] == f"/jobs/{job}"
        again = client.get("/gap/logistic/ledger")
        assert again.status_code == 202
        assert again.json()["job"] == job
        held = client.get("/gap/logistic/ledger?wait=true")
        assert held.status_code == 200
        assert json.loads(held.content)["terms"]
