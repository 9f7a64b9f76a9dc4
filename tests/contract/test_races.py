"""A load that comes between two reads: nothing is kept that is part old, part new."""

import os
import shutil

import pytest

from service.analysis import Analysis
from service.database import Database
from service.errors import DataChanged
from service.gap.explaining import Question
from service.seals import Seals


@pytest.fixture
def analysis(toy_data, tmp_path, monkeypatch):
    """Whose database is replaced just before features or predictions of a test split are read."""
    data = shutil.copytree(toy_data, tmp_path / "data")
    for kept in (data / "results").glob("*/gap"):  # by other tests
        shutil.rmtree(kept)
    found = Analysis(data)

    def load(_self, *_args, **_more):
        file, new = data / "gap.duckdb", data / "new"
        shutil.copy(file, new)
        os.replace(new, file)  # noqa: PTH105 (as a load does)

    def after_a_load(read):
        return lambda self, *args, **more: (load(self), read(self, *args, **more))[1]

    for name in ("train_rows", "test_rows", "unlabelled_rows"):
        monkeypatch.setattr(Database, name, after_a_load(getattr(Database, name)))
    return found


DOES = {
    "train": lambda analysis: analysis.train(
        model="new", backbone="toy", head="logistic", params={"C": 1}, seed=0
    ),
    "evaluate": lambda analysis: analysis.evaluate("mean"),
    "gap": lambda analysis: Question(analysis, "mean", None, None).gap(),
    "part": lambda analysis: Question(analysis, "mean", None, None).compute(only="overlap"),
    "seal": lambda analysis: analysis.to_seal("logistic", None, None),
}


@pytest.mark.parametrize("does", DOES)
def test_s_nothing_is_kept_of_two_states_of_the_data(analysis, does, monkeypatch):
    if does in ("evaluate", "seal"):
        monkeypatch.setattr(analysis.results, "evaluation", lambda _model: [])
        monkeypatch.setattr(Seals, "refuse_seen", lambda *_: None)
    with pytest.raises(DataChanged, match="Ask again"):
        DOES[does](analysis)
    assert not (analysis.data / "results" / "new").exists()
    assert not list((analysis.data / "results").glob("mean/gap/*/*"))
