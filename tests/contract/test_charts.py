"""Each chart's data are the JSON answer's own numbers."""

import pytest

from service import charts


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
        for name in ("feature_name", "ks", "head_weight", "p_value"):
            assert row[name] == feature[name]


def test_class_shift_chart(client, answer):
    assert rows_of(spec(client, "class_shift")) == answer["class_shift"]


@pytest.mark.parametrize("name", list(charts.CHARTS))
@pytest.mark.parametrize(
    ("kind", "media", "start"),
    [
        ("svg", "image/svg+xml", b"<svg"),
        ("png", "image/png", b"\x89PNG"),
        ("html", "text/html", b"<!doc"),
    ],
)
def test_every_chart_comes_in_every_form(client, name, kind, media, start):
    answer = client.get(f"/gap/logistic/chart/{name}?format={kind}")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith(media)
    assert answer.content.startswith(start)


def test_a_chart_computes_nothing(client):
    """No aggregate, filter or bin in any spec: the numbers are those of the answer."""
    for name in charts.CHARTS:
        text = client.get(f"/gap/logistic/chart/{name}").text
        for word in ('"aggregate"', '"transform"', '"bin"', '"impute"'):
            assert word not in text, (name, word)


def test_every_chart_is_tested_here():
    names = globals()
    assert all(f"test_{name}_chart" in names for name in charts.CHARTS)
