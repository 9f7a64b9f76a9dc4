"""What `/gap/{model}/map` and the distributions of single features say, and how they refuse."""

import json
import shutil
from types import SimpleNamespace

import duckdb
import numpy as np
import pytest
from fastapi.testclient import TestClient

from etl import load
from etl.annotations import annotate_file
from service import charts
from service.app import create_app
from service.errors import NothingToDraw
from service.gap import image_map
from service.gap.image_map import MapOut
from service.schemas import EstimateOut
from service.settings import Settings
from tests.world import write_csv

CHART = "/gap/logistic/features/0/distribution/chart"


def looks(client):
    return client.get("/looks").json()


def test_a_feature_is_distributed_as_its_quantiles_say(client, world):
    before = len(looks(client))
    found = client.get("/gap/logistic/features/1/distribution").json()
    assert len(looks(client)) == before  # no label, no look
    assert [one["part"] for one in found["splits"]] == ["train", "reference", "target"]
    for one in found["splits"]:
        values = world[one["split"], "toy"].features[:, 1].astype(float)
        assert one["n"] == len(values)
        assert one["mean"] == pytest.approx(values.mean())
        assert one["sd"] == pytest.approx(values.std(ddof=1))
        for p, value in one["quantiles"].items():
            assert value == pytest.approx(np.quantile(values, float(p)), abs=1e-6)
        widths = np.diff(found["edges"])
        assert (one["density"] * widths).sum() + one["below"] + one["above"] == pytest.approx(1)
    assert found["feature_name"] == "1"
    assert "describ" in found["summary"][-1] or "description" in found["summary"][-1]


def test_a_class_alone_is_read_from_its_images_and_that_is_a_look(client, world):
    before = len(looks(client))
    found = client.get("/gap/logistic/features/0/distribution?class=1").json()
    new = looks(client)[: len(looks(client)) - before]
    assert {(look["split"], look["n"], look["purpose"]) for look in new} == {
        (split, int((world[split, "toy"].labels == 1).sum()), "gap") for split in ("val", "v2")
    }
    for one in found["of_class"]:
        rows = world[one["split"], "toy"]
        values = rows.features[rows.labels == 1, 0].astype(float)
        assert (one["n"], one["n_read"]) == (len(values), len(values))
        assert one["mean"] == pytest.approx(values.mean())
        assert one["median"] == pytest.approx(np.median(values))
    assert 0 <= found["class_ks"] <= 1
    assert 0 < found["class_p_value"] <= 1
    absent = client.get("/gap/logistic/features/0/distribution?class=3").json()  # not in v2
    assert absent["of_class"][2]["density"] is None
    assert absent["class_ks"] is None
    assert "no image on v2" in " ".join(absent["summary"])


def test_what_the_features_part_says_of_it_stands_beside_it(client):
    row = client.get("/gap/logistic/features").json()["features"][0]
    found = client.get(f"/gap/logistic/features/{row['feature_id']}/distribution").json()
    assert found["feature"] == row
    assert found["feature_reason"] is None


@pytest.mark.parametrize(
    ("query", "of"), [("", "splits"), ("?class=1", "of_class")], ids=["all", "class"]
)
def test_the_chart_shows_the_answers_densities(client, query, of):
    answer = client.get(f"/gap/logistic/features/0/distribution{query}").json()
    spec = client.get(CHART + query).json()
    for word in ('"aggregate"', '"transform"', '"bin"', '"impute"'):
        assert word not in json.dumps(spec)
    sets = list(spec["datasets"].values())
    rows = max(sets, key=len)
    for one in answer[of]:
        drawn = [row["density"] for row in rows if row["split"] == one["split"]]
        assert drawn[:-1] == one["density"]
    assert {row["median"] for row in min(sets, key=len)} == {one["median"] for one in answer[of]}
    joined = "&" if query else "?"
    for kind, start in (("svg", b"<svg"), ("png", b"\x89PNG"), ("html", b"<!doc")):
        assert client.get(f"{CHART}{query}{joined}format={kind}").content.startswith(start)


def test_unknown_features_and_classes_are_refused_with_what_there_is(client):
    path = "/gap/logistic/features/{}/distribution"
    refused = client.get(path.format(3))
    assert refused.status_code == 404
    assert "0 to 2" in refused.json()["detail"]
    assert client.get(path.format("a/b")).status_code == 404
    assert client.get(path.format("x")).status_code == 422
    assert client.get(path.format(-1)).status_code == 422
    refused = client.get(path.format(0) + "?class=99")
    assert refused.status_code == 404
    assert "0 to 3" in refused.json()["detail"]


def test_a_feature_of_joined_backbones_is_found_in_its_part(toy_data, tmp_path, world):
    data = shutil.copytree(toy_data, tmp_path / "data")
    with TestClient(create_app(Settings(data=data), with_worker=False)) as client:
        client.app.state.analysis.train(
            model="both", backbone="toy+tiny", head="lda", params={}, seed=0
        )
        found = client.get("/gap/both/features/4/distribution?class=0").json()
        assert found["feature_name"] == "tiny.1"
        rows = world["val", "tiny"]
        assert found["splits"][1]["mean"] == pytest.approx(rows.features[:, 1].mean())
        expected = rows.features[rows.labels == 0, 1].mean()
        assert found["of_class"][1]["mean"] == pytest.approx(expected)


def test_names_from_files_are_text_in_charts(tmp_path, world):
    name = "</script><script>x/../%2e"
    for split in ("train", "val", "v2"):
        file = write_csv(tmp_path / f"{split}_x.csv", world[split, "toy"])
        head, rest = file.read_text().split("\n", 1)
        file.write_text(f"{head[: head.rindex(',')]},{name}\n{rest}")
    load(tmp_path / "data", [tmp_path / f"{s}_x.csv" for s in ("train", "val", "v2")])
    with TestClient(create_app(Settings(data=tmp_path / "data"), with_worker=False)) as client:
        client.app.state.analysis.train(model="m", backbone="x", head="lda", params={}, seed=0)
        path = "/gap/m/features/2/distribution"
        assert client.get(path).json()["feature_name"] == name
        assert "<script>x" not in client.get(path + "/chart?format=html").text


def test_the_map_shows_every_image_of_small_splits(client, world, toy_data):
    found = client.get("/gap/logistic/map").json()
    points = found["points"]
    assert found["n_shown"] == found["n_images"] == [48, 20, 15]
    assert {len(column) for column in points.values()} == {83}
    with duckdb.connect() as con:
        con.execute(f"attach '{toy_data / 'gap.duckdb'}' as g (read_only)")
        query = "select image_id, split || ' ' || class_id from g.image"
        known = dict(con.execute(query).fetchall())
    for image, split, label in zip(
        points["image_id"], points["split"], points["class_id"], strict=True
    ):
        assert known[image] == f"{found['splits'][split]} {label}"
    assert points["correct"][:48] == [None] * 48
    right = [c for c, split in zip(points["correct"], points["split"], strict=True) if split == 1]
    accuracy = client.get("/gap/logistic").json()["accuracy"]["val"]["estimate"]
    assert sum(right) / len(right) == pytest.approx(accuracy)
    pca, umap = found["methods"]
    assert len(pca["x"]) == len(pca["y"]) == 83
    assert umap["x"] is None
    assert umap["reason"] == "fewer than 200 images"
    assert client.get("/gap/logistic/chart/map_umap").json()["code"] == "nothing_to_draw"


def test_clusters_hold_all_test_images_and_their_gaps_are_tested(client):
    found = client.get("/gap/logistic/map").json()
    assert sum(one["n_reference"] for one in found["clusters"]) == 20
    assert sum(one["n_target"] for one in found["clusters"]) == 15
    for one in found["clusters"]:
        assert one["verdict"]
        if one["gap"]["estimate"] is not None:
            gap = one["accuracy_reference"]["estimate"] - one["accuracy_target"]["estimate"]
            assert one["gap"]["estimate"] == pytest.approx(gap)
            assert one["excess"] == pytest.approx(gap - found["gap"]["estimate"])


def test_images_of_a_rectangle_or_a_cluster(client):
    found = client.get("/gap/logistic/map").json()
    points, x = found["points"], found["methods"][0]["x"]
    inside = [i for i, at in enumerate(x) if 0 <= at <= 1]
    path = "/gap/logistic/map/images"
    page = client.get(f"{path}?x_from=0&x_to=1&per_page=200").json()
    assert page["n"] == len(inside)
    assert {one["image_id"] for one in page["images"]} == {points["image_id"][i] for i in inside}
    rank = [{False: 0, True: 1, None: 2}[one["correct"]] for one in page["images"]]
    assert rank == sorted(rank)
    second = client.get(f"{path}?x_from=0&x_to=1&per_page=2&page=2").json()
    assert second["images"] == page["images"][2:4]
    of = client.get(f"{path}?cluster=0&per_page=200").json()
    assert of["n"] == points["cluster"].count(0)
    assert client.get(f"{path}?x_from=9e9").json()["n"] == 0
    assert client.get(f"{path}?x_from=nan").status_code == 422
    assert client.get(f"{path}?method=umap&x_from=0").json()["n"] == 0


def test_a_new_load_outdates_the_ids(toy_data, tmp_path, toy_csv):
    data = shutil.copytree(toy_data, tmp_path / "data")
    with TestClient(create_app(Settings(data=data), with_worker=False)) as client:
        first = client.get("/gap/logistic/map").json()
        with_key = {file.parent.name for file in data.glob("results/logistic/gap/*/map.json")}
        load(data, [toy_csv], n_threads=1, replace=True)
        again = client.get("/gap/logistic/map").json()
        assert with_key != {f.parent.name for f in data.glob("results/logistic/gap/*/map.json")}
        assert again["methods"] == first["methods"]


def test_a_model_without_features_says_why():
    right = np.array([True, False])
    nothing = SimpleNamespace(
        features=None, model="m", reference="val", target="v2",
        correct=SimpleNamespace(pair=(right, right)), names={},
        splits=SimpleNamespace(pair=("val", "v2")),
    )  # fmt: skip
    found = image_map.compute(nothing, lambda _share, _message: None)
    assert found.points is None
    assert found.clusters is None
    assert found.reason == "an imported model has no features here"
    for chart in image_map.PART.charts.values():
        with pytest.raises(NothingToDraw):
            chart(found)


def test_a_map_of_4000_images_of_1000_classes_stays_below_300_kb():
    rng = np.random.default_rng(0)
    n = 4000
    laid = {name: [float(f"{v:.4g}") for v in rng.normal(size=n) * 30] for name in ("x", "y")}
    unknown = EstimateOut(
        estimate=0.123456789, low=0.0123456789, high=0.223456789, level=0.95,
        method="Newcombe hybrid score interval", n={"validation": 50_000, "imagenetv2": 10_000},
        unit="fraction", seed=None, reason=None,
    )  # fmt: skip
    ids = rng.integers(0, 1_400_000, n).tolist()
    found = MapOut(
        model="m", reference="validation", target="imagenetv2", summary=["x" * 200] * 8,
        gap=unknown, splits=["train", "validation", "imagenetv2"], n_images=[1_281_167] * 3,
        n_shown=[1000, 1500, 1500], seed=0,
        points=image_map.PointsOut(
            image_id=ids, split=[0] * n, class_id=[999] * n,
            predicted=[None] * 1000 + [999] * 3000, correct=[None] * 1000 + [False] * 3000,
            cluster=[11] * n,
        ),
        methods=[
            image_map.MethodOut(name=name, **laid, axis_shares=None, reason=None)
            for name in ("pca", "umap")
        ],
        annotations=[
            image_map.ColumnOut(name="a", categories=None, values=[0.123] * n) for _ in range(2)
        ],
        clusters=[
            image_map.ClusterOut(
                cluster=11, classes="x" * 200, n_reference=50_000, n_target=10_000,
                accuracy_reference=unknown, accuracy_target=unknown, gap=unknown, excess=0.1,
                p_value=0.1, q_value=0.1, verdict="not shown to differ from all images",
            )
        ] * 12,
        clusters_reason=None, reason=None,
    )  # fmt: skip
    assert len(found.model_dump_json()) < 300_000


def test_links_in_columns_of_points_lead_to_the_same_images(client):
    """The rows kept beside the answer are in the order of its columns."""
    points = client.get("/gap/logistic/map").json()["points"]
    page = client.get("/gap/logistic/map/images?per_page=200").json()["images"]
    place = {image: i for i, image in enumerate(points["image_id"])}
    for one in page:
        i = place[one["image_id"]]
        for name in ("class_id", "predicted", "correct", "cluster"):
            assert one[name] == points[name][i]


def test_the_map_is_drawn_by_whatever_is_asked_for(client):
    found = client.get("/gap/logistic/map").json()
    points, pca = found["points"], found["methods"][0]
    for colour, kinds in (
        ("split", [found["splits"][i] for i in points["split"]]),
        ("answer", [{True: "right", False: "wrong", None: None}[c] for c in points["correct"]]),
        ("cluster", [str(c) for c in points["cluster"]]),
    ):
        spec = client.get(f"/gap/logistic/map/chart?colour={colour}").json()
        (rows,) = spec["datasets"].values()
        assert {(row["x"], row["y"], row[colour]) for row in rows} == {
            (x, y, kind) for x, y, kind in zip(pca["x"], pca["y"], kinds, strict=True) if kind
        }
        encoded = spec["layer"][0]["encoding"]
        pairs = zip(
            encoded["color"]["scale"]["range"], encoded["shape"]["scale"]["range"], strict=True
        )
        assert len(set(pairs)) == len(encoded["color"]["scale"]["domain"])
        for kind in ("svg", "png", "csv", "html"):
            path = f"/gap/logistic/map/chart?colour={colour}&format={kind}"
            assert client.get(path).status_code == 200
    assert client.get("/gap/logistic/map/chart?colour=nope").status_code == 404
    assert client.get("/gap/logistic/map/chart?method=nope").status_code == 422
    refused = client.get("/gap/logistic/map/chart?method=umap")
    assert (refused.status_code, refused.json()["code"]) == (409, "nothing_to_draw")


def test_kinds_of_up_to_twelve_are_told_apart():
    for n in range(1, 13):
        made = charts.cloud(
            [], kind="k", kind_title="k", domain=[str(i) for i in range(n)], title="t",
            x_title="x", y_title="y",
        )  # fmt: skip
        encoded = made["layer"][0]["encoding"]
        pairs = set(
            zip(encoded["color"]["scale"]["range"], encoded["shape"]["scale"]["range"], strict=True)
        )
        assert len(pairs) == n


def test_the_map_is_coloured_by_an_annotation(toy_data, tmp_path, world):
    data = shutil.copytree(toy_data, tmp_path / "data")
    lines = ["split,path,a.b[0],kind"]
    for split in ("val", "v2"):
        rows = world[split, "toy"]
        lines += [f"{split},{p},{i / 8},{'xy'[i % 2]}" for i, p in enumerate(rows.paths)]
    (tmp_path / "notes.csv").write_text("\n".join(lines) + "\n")
    annotate_file(data, tmp_path / "notes.csv")
    with TestClient(create_app(Settings(data=data), with_worker=False)) as client:
        found = client.get("/gap/logistic/map").json()
        assert [one["name"] for one in found["annotations"]] == ["a.b[0]", "kind"]
        for one in found["annotations"]:
            path = f"/gap/logistic/map/chart?colour=annotation.{one['name']}"
            spec = client.get(path).json()
            (rows,) = spec["datasets"].values()
            assert len(rows) == 35  # train images have none
            known = one["categories"]
            drawn = {row["value"] for row in rows}
            assert drawn == {known[int(v)] if known else v for v in one["values"] if v is not None}
            assert client.get(path + "&format=svg").text.startswith("<svg")


def test_pages_of_features(client):
    client.get("/gap/logistic/features")  # no worker does it
    page = client.get("/view/logistic/features").text
    for j in range(3):
        assert f'href="/view/logistic/features/{j}"' in page
    page = client.get("/view/logistic/features/1").text
    assert "/gap/logistic/features/1/distribution/chart?reference=val" in page
    assert "One class alone" in page
    page = client.get("/view/logistic/features/1?class=2").text
    assert "class=2&amp;format=json" in page
    assert "&amp;class=" not in client.get("/view/logistic/features/1?class=").text
    assert client.get("/view/logistic/features/9").status_code == 404
    assert client.get("/view/logistic/features/x").status_code == 422


def test_the_page_of_the_map_lists_what_is_chosen_without_scripts(client):
    client.get("/gap/logistic/map")
    page = client.get("/view/logistic/map").text
    assert "UMAP (fewer than 200 images)" in page
    assert 'id="selected-title"' not in page
    found = client.get("/gap/logistic/map/images?cluster=0&per_page=200").json()
    page = client.get("/view/logistic/map?cluster=0").text
    assert f"{found['n']} images of cluster 0" in page
    for one in found["images"][:24]:
        assert one["path"] in page
    empty = client.get("/view/logistic/map?x_from=&x_to=&y_from=1e9&y_to=").text
    assert "0 images in this part of the map" in empty


def test_pages_escape_what_files_name(tmp_path, world):
    name = "</script><img src=x>/.."
    for split in ("train", "val", "v2"):
        file = write_csv(tmp_path / f"{split}_x.csv", world[split, "toy"])
        head, rest = file.read_text().split("\n", 1)
        file.write_text(f"{head[: head.rindex(',')]},{name}\n{rest.replace('.png', '<b>.png')}")
    names = tmp_path / "names.csv"
    names.write_text('label,name\n0,</script><script>x\n1,"""><img>"\n2,c\n3,d\n')
    load(
        tmp_path / "data", [tmp_path / f"{s}_x.csv" for s in ("train", "val", "v2")], classes=names
    )
    with TestClient(create_app(Settings(data=tmp_path / "data"), with_worker=False)) as client:
        client.app.state.analysis.train(model="m", backbone="x", head="lda", params={}, seed=0)
        client.get("/gap/m/features")
        client.get("/gap/m/map")
        for path in ("features", "features/2?class=0", "map?cluster=0"):
            page = client.get(f"/view/m/{path}").text
            assert "being computed" not in page
            for raw in ("<img src=x>", "<script>x", "<img>", "<b>.png"):
                assert raw not in page, path
            assert "style=" not in page
            assert "onclick" not in page
