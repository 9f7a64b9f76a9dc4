"""Real deep features: CIFAR-10 through EfficientNet-Lite0, written out as CSV."""

import pandas as pd
import pytest
from fastapi.testclient import TestClient
from statsmodels.stats.proportion import confint_proportions_2indep

from etl import load
from service.app import create_app
from service.settings import Settings
from tests.world import SHARED

CIFAR = SHARED / "cifar10_lite0"


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
        answer = client.get("/gap/m").json()
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
