"""Real deep features: CIFAR-10 through EfficientNet-Lite0, written out as CSV."""

import pandas as pd
import pytest
from fastapi.testclient import TestClient
from statsmodels.stats.proportion import confint_proportions_2indep

from etl import load
from etl.annotations import annotate_file
from service.app import create_app
from service.settings import Settings
from tests.world import SHARED

CIFAR = SHARED / "cifar10_lite0"


@pytest.mark.long
@pytest.mark.skipif(not CIFAR.is_dir(), reason="the shared data folder is absent")
def test_cifar10_by_hand(tmp_path):
    """A logistic head reaches .74 on test1, and /gap agrees with statsmodels to 1e-6."""
    folder = tmp_path / "features"
    folder.mkdir()
    for split in ("train", "test1", "test2"):
        pd.read_parquet(CIFAR / f"{split}.parquet").to_csv(folder / f"{split}_lite0.csv")
    load(tmp_path / "data", [folder])
    with TestClient(create_app(Settings(data=tmp_path / "data"), with_worker=False)) as client:
        client.app.state.analysis.train(
            model="m", backbone="lite0", head="logistic", params={"C": [3e-3, 1e-3]}, seed=0
        )
        scores = client.post("/evaluate", json={"model": "m"}).json()["splits"]
        assert scores["test1"]["top1"]["estimate"] >= 0.74
        answer = client.get("/gap/m?wait=false").json()
        assert (answer["reference"], answer["target"]) == ("test1", "test2")
        (a1, n1), (a2, n2) = (
            (scores[split]["top1"]["estimate"], scores[split]["n"]) for split in ("test1", "test2")
        )
        low, high = confint_proportions_2indep(
            round(a1 * n1), n1, round(a2 * n2), n2, method="newcomb", compare="diff"
        )
        gap = answer["gap"]
        assert (gap["estimate"], gap["low"], gap["high"]) == pytest.approx(
            (a1 - a2, low, high), abs=1e-6
        )
        assert 0.06 < gap["estimate"] < 0.13
        annotate_file(tmp_path / "data", CIFAR / "annotations.csv", name=None, split=None)
        _is_read_right(client.get("/gap/m/ledger").json())
        _doubted_labels(client.get("/gap/m/labels").json())


def _is_read_right(ledger):
    """Human agreement is the one true cause: about .085 of .095, and about .115 by itself."""
    terms = {term["name"]: term for term in ledger["terms"]}
    agreement = terms.pop("human_agreement")
    assert agreement["verdict"] == "supported"
    assert agreement["estimate"] == pytest.approx(0.087, abs=0.02)
    assert agreement["alone"]["estimate"] == pytest.approx(0.118, abs=0.015)
    assert agreement["estimate"] > 2 * max(abs(term["estimate"]) for term in terms.values())
    assert terms["difficulty"]["estimate"] == pytest.approx(0.025, abs=0.012)
    assert terms["features"]["estimate"] == pytest.approx(0.0, abs=0.012)
    assert terms["label shift"]["estimate"] == 0
    assert terms["rest"]["low"] < 0 < terms["rest"]["high"]
    assert 0.7 < ledger["overlap"]["auc"] < 0.85


def _doubted_labels(found):
    """Few labels are doubted, and so little of the gap goes with them: these images are hard."""
    (opinion,) = found["opinions"]
    assert [one["n_dropped"] for one in opinion["splits"].values()] == [65, 57]
    assert 0 < opinion["gap_gone"]["low"] < opinion["gap_gone"]["high"] < 0.03
