"""Accuracy on the line: timm's own rows, statsmodels, coverage, and what a file may hold."""

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy.special import ndtr

from models.gap.line import AXES, baselines, fairest, fit, on_axis, verdict
from service.cli import main
from service.errors import BadLine, BadName, NotATest, NotFound, UnusedOption
from service.lines import Lines
from tests.world import SHARED

TIMM = [
    SHARED / "imagenet_v2" / f"timm_results-{name}.csv"
    for name in ("imagenet", "imagenetv2-matched-frequency")
]
needs_timm = pytest.mark.skipif(not TIMM[0].is_file(), reason=f"no shared data at {TIMM[0].parent}")
EVA = (0.90056, 0.82710)


@pytest.fixture(scope="module")
def timm(tmp_path_factory):
    data = tmp_path_factory.mktemp("lines")
    return Lines(data).add(TIMM, name="timm", reference="val", target="v2").line


@needs_timm
@pytest.mark.parametrize(
    ("floor", "slope", "intercept", "residual_sd"),
    [
        (0.0, 0.9635, -0.3229, 0.0156),
        (0.70, 0.9856, -0.3435, 0.0146),
        (0.85, 1.0454, -0.4066, 0.0162),
    ],
)
def test_timms_line(timm, floor, slope, intercept, residual_sd):
    assert len(timm.models) == 1556
    line = baselines(timm.reference_accuracy, timm.target_accuracy)[floor, "probit"]
    found = (line.slope, line.intercept, line.residual_sd)
    assert found == pytest.approx((slope, intercept, residual_sd), abs=6e-5)
    if not floor:
        assert line.slope_se == pytest.approx(0.0022, abs=5e-5)


@needs_timm
@pytest.mark.parametrize(
    ("floor", "predicted", "robustness"),
    [(0.0, (0.8199, 0.8117, 0.8278), 0.0072), (0.80, None, 0.0035),
     (0.85, (0.8254, 0.8169, 0.8337), 0.0016)],
)  # fmt: skip
def test_eva_on_timms_line(timm, floor, predicted, robustness):
    line = baselines(timm.reference_accuracy, timm.target_accuracy)[floor, "probit"]
    found = line.predicted(EVA[0])
    if predicted is not None:
        assert (found.estimate, found.low, found.high) == pytest.approx(predicted, abs=1.1e-4)
    height = line.effective_robustness(*EVA, 50_000, 10_000)
    assert height.estimate == pytest.approx(robustness, abs=6e-5)
    assert verdict(height) == "on the line, as far as chance lets see"
    assert fairest(baselines(timm.reference_accuracy, timm.target_accuracy), EVA[0]) == (
        0.85,
        "probit",
    )


def models(n=40, seed=0, scatter=0.05):
    rng = np.random.default_rng(seed)
    x = rng.uniform(0, 1.2, n)
    return ndtr(x), ndtr(0.95 * x - 0.3 + scatter * rng.normal(size=n))


@pytest.mark.parametrize("axis", list(AXES))
def test_it_is_least_squares_as_statsmodels_has_it(axis):
    a1, a2 = models()
    line = fit(a1, a2, axis=axis)
    x, y = on_axis(a1, axis), on_axis(a2, axis)
    ols = sm.OLS(y, sm.add_constant(x)).fit()
    assert (line.intercept, line.slope) == pytest.approx(tuple(ols.params), abs=1e-6)
    assert line.slope_se == pytest.approx(ols.bse[1], abs=1e-6)
    assert line.residual_sd == pytest.approx(np.sqrt(ols.mse_resid), abs=1e-6)
    at = on_axis(np.array([0.77]), axis)
    frame = ols.get_prediction(np.array([[1.0, at[0]]])).summary_frame(alpha=0.05)
    ends = [AXES[axis].back(float(frame[f"obs_ci_{end}"].iloc[0])) for end in ("lower", "upper")]
    found = line.predicted(0.77)
    assert (found.low, found.high) == pytest.approx(ends, abs=1e-6)


@pytest.mark.parametrize("axis", list(AXES))
def test_the_slope_of_each_axis_is_its_derivative(axis):
    for z in (0.2, 0.7):
        numeric = (AXES[axis].back(z + 1e-6) - AXES[axis].back(z - 1e-6)) / 2e-6
        assert float(AXES[axis].slope(z)) == pytest.approx(float(numeric), abs=1e-6)


def test_intervals_cover_a_model_drawn_from_the_line():
    rng = np.random.default_rng(5)
    n1, n2, inside = 5000, 2000, 0
    for i in range(400):
        a1, a2 = models(30, seed=i + 1)
        line = fit(a1, a2)
        x = rng.uniform(0.2, 1.0)
        p1, p2 = ndtr(x), ndtr(0.95 * x - 0.3 + 0.05 * rng.normal())
        seen = rng.binomial(n1, p1) / n1, rng.binomial(n2, p2) / n2
        found = line.distance(*seen, n1, n2)
        inside += found.low <= 0 <= found.high
    assert 0.92 <= inside / 400 <= 0.985


def test_the_order_of_models_changes_nothing_and_two_models_are_no_line():
    a1, a2 = models()
    order = np.random.default_rng(0).permutation(len(a1))
    one, other = fit(a1, a2), fit(a1[order], a2[order])
    assert (one.slope, one.intercept) == pytest.approx((other.slope, other.intercept), abs=1e-12)
    assert fit(a1[:2], a2[:2]) is None
    assert fit(np.full(5, 0.7), a2[:5]) is None
    assert baselines(a1[:0], a2[:0]) == {}


def write(folder, text, name="published.csv"):
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return file


GOOD = "model,val,v2\na,70,60\nb,75.5,66\nc,80,\nd,85,77\n"


def test_a_file_is_stored_as_fractions_and_read_again(tmp_path):
    lines = Lines(tmp_path / "data")
    added = lines.add([write(tmp_path, GOOD)], name="one", reference="val", target="v2")
    assert (added.n_left_out, added.in_percent) == (1, True)
    (line,) = lines.all()
    assert line.models == ["a", "b", "d"]
    assert line.reference_accuracy.tolist() == [0.7, 0.755, 0.85]
    assert line.target_accuracy.tolist() == [0.6, 0.66, 0.77]
    assert lines.between("val", "v2")
    assert not lines.between("v2", "val")
    with pytest.raises(BadLine, match="--replace"):
        lines.add([write(tmp_path, GOOD)], name="one", reference="val", target="v2")
    fractions = GOOD.replace("75.5", ".755").replace("70,60", ".7,.6").replace("85,77", ".85,.77")
    fractions = fractions.replace("c,80,\n", "").replace(",66", ",.66")
    file = write(tmp_path, fractions)
    again = lines.add([file], name="one", reference="val", target="v2", replace=True)
    assert not again.in_percent
    assert again.line.reference_accuracy.tolist() == line.reference_accuracy.tolist()


def test_two_files_are_joined_by_model_and_size(tmp_path):
    first = write(tmp_path, "model,img_size,top1,top5\na,1,70,9\na,2,71,9\nb,1,80,9\nc,1,9,9\n")
    second = write(tmp_path, "model,img_size,top1\na,2,61\nb,1,70\na,1,60\n", "second.csv")
    line = Lines(tmp_path).add([first, second], name="x", reference="p", target="q").line
    assert line.models == ["a at 1", "a at 2", "b"]
    assert line.target_accuracy.tolist() == [0.6, 0.61, 0.7]


@pytest.mark.parametrize(
    ("text", "columns", "match"),
    [
        ("who,val,v2\na,70,60\n", None, "column model"),
        ("model,val,v2\na,70,60\nb,x,60\n", None, "row 2, column 'val'.*got 'x'"),
        ("model,val,v2\na,70,60\nb,170,60\n", None, "below 100 %, got '170'"),
        ("model,val,v2\na,0,60\n", None, "above 0"),
        ("model,val,v2\na,70,60\na,71,60\nb,1,2\nc,1,2\n", None, "'a' with different accuracies"),
        ("model,val,v2\na,70,60\nb,71,61\n", None, "at least 3 models.*got 2"),
        ("model,val,v2,x\na,70,60,1\n", ["val", "w"], "'val' and 'w'"),
        ("model,p,q,r\na,70,60,1\n", None, "--columns"),
        ("model,val,v2\n,70,60\n", None, "printable"),
        ("model,val,v2\na,70,.6\nb,71,.5\nc,80,.4\n", None, "got one whose largest is 0.6"),
        ("model,val,v2\na,70,60\nb,nan,60\nc,inf,60\n", None, "got 'inf'"),
    ],
)
def test_what_is_wrong_is_refused_and_nothing_is_stored(tmp_path, text, columns, match):
    lines = Lines(tmp_path / "data")
    with pytest.raises(BadLine, match=match):
        lines.add([write(tmp_path, text)], name="x", reference="val", target="v2", columns=columns)
    assert lines.all() == []


def test_names_splits_and_damage_are_refused(toy_data, tmp_path):
    file = write(tmp_path, GOOD)
    with pytest.raises(BadName):
        Lines(tmp_path).add([file], name="../x", reference="val", target="v2")
    with pytest.raises(NotATest):
        Lines(tmp_path).add([file], name="x", reference="val")
    with pytest.raises(UnusedOption):
        Lines(tmp_path).add([file] * 3, name="x", reference="val", target="v2")
    with pytest.raises(NotFound, match="v2, val"):
        Lines(toy_data).add([file], name="x", target="v3")
    with pytest.raises(NotFound):
        Lines(toy_data).add([file], name="x", target="train")
    Lines(tmp_path).add([file], name="x", reference="val", target="v2")
    write(tmp_path / "lines", "model\na\n", "x.csv")
    with pytest.raises(BadLine, match="as it was stored"):
        Lines(tmp_path).all()


def test_the_command_stores_a_line_and_the_service_uses_it(
    client, toy_data, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("GAP_DATA", str(toy_data))
    a1, a2 = models(20)
    table = pd.DataFrame({"model": [f"m{i}" for i in range(20)], "p": a1 * 100, "q": a2 * 100})
    table.to_csv(tmp_path / "published.csv", index=False)
    before = client.get("/gap/mean/line").json()
    assert before["reason"]
    assert before["fits"] == []
    try:
        assert main(["add-line", str(tmp_path / "published.csv"), "--name", "known"]) == 0
        assert "20 models on val" in capsys.readouterr().out
        assert main(["add-line", str(tmp_path / "published.csv"), "--name", "known"]) == 2
        (listed,) = client.get("/lines").json()
        assert (listed["name"], listed["n"]) == ("known", 20)
        found = client.get("/gap/mean/line").json()
        svg = client.get("/gap/mean/chart/line?format=svg").text
        foretold = client.get("/gap/mean/without_labels").json()
    finally:
        (toy_data / "lines" / "known.csv").unlink()
    sources = {fit["source"] for fit in found["fits"]}
    assert sources == {"known"}  # one model here is no line
    assert sum(fit["is_main"] for fit in found["fits"]) == 1
    line = baselines(a1, a2)[0.0, "probit"]
    mine = next(f for f in found["fits"] if (f["source"], f["axis"]) == ("known", "probit"))
    assert mine["slope"] == pytest.approx(line.slope, abs=1e-9)
    assert found["models"][-1]["name"] == "mean"
    assert svg.startswith("<svg")
    by_line = foretold["methods"][-1]
    assert by_line["name"] == "line"
    assert by_line["predicted"]["estimate"] is not None
    assert by_line["error"]["estimate"] == pytest.approx(
        -next(f for f in found["fits"] if f["is_main"])["effective_robustness"]["estimate"]
    )
    assert client.get("/gap/mean/line").json()["reason"]  # without the line as before
