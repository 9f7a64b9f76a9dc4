"""What `/gap/{model}/features` says, also of heads that are not linear and without features."""

import shutil
from types import SimpleNamespace

import pytest

from service.analysis import Analysis
from service.errors import NothingToDraw
from service.gap.explaining import Question
from service.gap.features import PART, compute


def test_the_terms_of_a_linear_head_sum_to_the_margins(client):
    found = client.get("/gap/logistic/features").json()
    for kind in ("mean_margin", "hard_margin"):
        margin = found[kind]
        total = sum(row[kind]["estimate"] for row in found["features"])
        assert total + margin["bias"] == pytest.approx(margin["difference"]["estimate"], abs=1e-8)
        assert abs(margin["residual"]) < 1e-8
    assert found["linear_share"] is None
    assert found["sorted_by"] == "relevance"
    relevance = [row["relevance"] for row in found["features"]]
    assert relevance == sorted(relevance, reverse=True)
    constant = found["features"][-1]
    assert constant["is_nearly_constant"]
    assert constant["separation"]["estimate"] is None
    assert constant["separation"]["reason"]


def test_the_gap_has_its_features_in_the_same_order(client):
    first = client.get("/gap/logistic").json()["features"]
    other = client.get("/gap/logistic/features").json()["features"]
    for a, b in zip(first, other, strict=True):
        assert (a["feature_id"], a["ks"], a["p_value"]) == (b["feature_id"], b["ks"], b["p_value"])
        assert a["head_weight"] == pytest.approx(b["head_weight"], rel=0.03)


def test_a_head_that_is_not_linear_is_approximated_and_says_so(toy_data, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(toy_data, data, ignore=shutil.ignore_patterns("gap"))
    analysis = Analysis(data)
    params = {"k": 5, "temperature": 0.1}
    analysis.train(model="knn", backbone="toy", head="knn", params=params, seed=0)
    question = Question(analysis, "knn", None, None)
    question.compute(only="features")
    found = question.answer("features")
    assert 0 < found.linear_share <= 1
    assert found.mean_margin is not None
    assert "not linear" in " ".join(found.summary)
    assert "scored anew" in found.masking
    assert found.n_masked == 2


def test_a_model_without_features_says_why():
    nothing = SimpleNamespace(
        features=None, head=None, scores=None, model="m", reference="val", target="v2"
    )
    found = compute(nothing, lambda _share, _message: None)
    assert found.features is None
    assert found.reason
    for chart in PART.charts.values():
        with pytest.raises(NothingToDraw):
            chart(found)
