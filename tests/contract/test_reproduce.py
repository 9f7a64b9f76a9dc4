"""A report's numbers computed anew: the same, changed by hand, over changed data, asked in malice."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fastapi.testclient import TestClient

from etl import load
from service import cli
from service.analysis import Analysis
from service.app import create_app
from service.errors import BadReport
from service.report.asking import understood, views
from service.report.numbers import FORMS
from service.report.reproducing import FILE_BYTES_MAX, ReproducedOut, checked, reproduce
from service.reproduce_command import served
from service.settings import Settings

ENDS = "reference=val&target=v2"
ASKED = [
    (f"/gap/logistic/ledger?{ENDS}", "/terms/0/estimate", "signed_points"),
    (f"/gap/logistic/ledger?{ENDS}", "/terms/1/low", "points"),
    (f"/gap/logistic/classes?{ENDS}", "/summary/0", "text"),
    (f"/gap/logistic/line?{ENDS}", "/summary/0", "text"),
    (f"/gap/logistic?{ENDS}", "/accuracy/val/estimate", "percent"),
    (f"/gap/mean?{ENDS}", "/accuracy/v2/high", "percent"),
    ("/models/logistic", "/validation/top1/estimate", "percent"),
    ("/models/logistic", "/gaps/replication/estimate", "points"),
    ("/models/logistic/leaderboard", "/candidates/0/top1", "percent"),
    ("/models/logistic/audit", "/checks/0/name", "text"),
    ("/splits", "/0/n_images", "count"),
    ("/hypotheses", "/summary/0", "text"),
    ("view:evaluation?model=mean&split=v2&metric=top1", "/estimate", "percent"),
    ("view:split_summary?split=train&backbone=toy", "/n_classes", "count"),
    ("view:class_count?split=val&class_id=2", "/n_images", "count"),
]


def at(content, pointer):
    for token in pointer.split("/")[1:]:
        content = content[int(token) if isinstance(content, list) else token]
    return content


def report_of(client: TestClient, data: Path, asked=ASKED) -> dict:
    """A report.json of what the service answers."""
    database = Analysis(data).database
    digests, numbers = database.digests("toy"), []
    for place, (endpoint, pointer, form) in enumerate(asked):
        if endpoint.startswith("view:"):
            name, _, query = endpoint.removeprefix("view:").partition("?")
            where = " and ".join(
                f"{k} = '{v}'" for k, v in (pair.split("=") for pair in query.split("&"))
            )
            (content,) = database.rows(f"select * from {name} where {where}")
        else:
            answer = client.get(endpoint, params={"wait": True} if "/gap/" in endpoint else {})
            assert answer.status_code == 200, (endpoint, answer.text)
            content = answer.json()
        value = at(content, pointer)
        numbers.append(
            {
                "id": f"N{place + 1}",
                "text": FORMS[form](value),
                "value": value,
                "endpoint": endpoint,
                "pointer": pointer,
                "form": form,
            }
        )
    return {
        "format": 1,
        "gapscope": "0.1.0",
        "made_at": "2026-01-01T00:00:00",
        "models": ["logistic", "mean"],
        "reference": "val",
        "target": "v2",
        "endpoints": {
            endpoint: {"digests": digests, "seed": 0, "sha256": ""} for endpoint, *_ in asked
        },
        "numbers": numbers,
    }


@pytest.fixture(scope="module")
def data(toy_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the toy folder: gaps are kept in it."""
    return shutil.copytree(toy_data, tmp_path_factory.mktemp("made") / "data")


@pytest.fixture(scope="module")
def report(data: Path) -> dict:
    with TestClient(create_app(Settings(data=data), with_worker=False)) as client:
        return report_of(client, data)


def again(data: Path, report: dict, **options) -> ReproducedOut:
    settings = Settings(data=data)
    return reproduce(
        Analysis(data),
        checked(json.dumps(report).encode()),
        lambda analysis: served(analysis, settings),
        **options,
    )


def spoil(data: Path) -> None:
    """Make what is kept of the answers wrong: whoever reads it says something else."""
    for file in data.glob("results/*/gap/*/*.json"):
        file.write_text("{}")
    for file in data.glob("results/*/evaluation.json"):
        records = json.loads(file.read_text() or "[]")
        for record in records:
            record["estimate"] = 0.123
        file.write_text(json.dumps(records))
    for file in data.glob("results/[lm]*/predictions.parquet"):
        table = pd.read_parquet(file)
        table["is_correct"] = False
        table.to_parquet(file)


def test_all_numbers_are_the_same_and_none_is_read_from_what_is_kept(data, report, tmp_path):
    other = shutil.copytree(data, tmp_path / "data")
    spoil(other)
    before = {p: p.read_bytes() for p in other.rglob("*") if p.is_file() and "looks" not in p.name}
    found = again(other, report)
    assert found.differing == []
    assert found.all_same
    assert found.summary == [f"{len(ASKED)} numbers: {len(ASKED)} the same."]
    assert found.computed[0].endswith("logistic, mean.")
    # nothing is written but the log of looks, and nothing is left behind
    after = {p: p.read_bytes() for p in other.rglob("*") if p.is_file() and "looks" not in p.name}
    assert after == before
    looks = (other / "results" / "looks.jsonl").read_text().splitlines()
    assert len(looks) > len((data / "results" / "looks.jsonl").read_text().splitlines())
