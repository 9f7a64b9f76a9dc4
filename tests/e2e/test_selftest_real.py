"""The self-test on CIFAR-10's real features: human agreement, planted, is what comes first."""

import pandas as pd
import pytest

from etl import load
from etl.annotations import annotate_file
from service import selftest
from service.analysis import Analysis
from service.gap.explaining import Question
from tests.world import SHARED

CIFAR = SHARED / "cifar10_lite0"


@pytest.mark.slow
@pytest.mark.skipif(not CIFAR.is_dir(), reason="the shared data folder is absent")
def test_ten_points_of_selection_by_human_agreement_are_named_first(tmp_path):
    folder, data = tmp_path / "features", tmp_path / "data"
    folder.mkdir()
    for split in ("train", "test1", "test2"):
        pd.read_parquet(CIFAR / f"{split}.parquet").to_parquet(folder / f"{split}_lite0.parquet")
    load(data, [folder])
    annotate_file(data, CIFAR / "annotations.csv", name=None, split=None)
    analysis = Analysis(data)
    analysis.train(model="m", backbone="lite0", head="logistic", params={"C": [3e-3, 1e-3]}, seed=0)
    found = selftest.run(Question(analysis, "m", None, None))
    print("\n".join(selftest.table(found)))
    told = {one.explainer: one for one in found.explainers}
    assert [name for name, one in told.items() if one.trusted is False] == []
    assert found.n_placebos >= 20
    named = {
        (row.cause, row.wanted): row.first for row in told["ledger"].power
    }["selection by human_agreement", 0.10]  # fmt: skip
    assert named.n >= 3
    assert named.rate >= 0.9
