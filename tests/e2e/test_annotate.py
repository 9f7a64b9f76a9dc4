"""What else is known about an image, as a user attaches it: on the command line, read by SQL."""

import hashlib
import os
import subprocess
import sys

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from etl import command, load, measuring
from etl.__main__ import main as etl_main
from etl.annotations import cards
from etl.database import DATABASE
from etl.errors import Busy
from etl.image_statistics import STATISTICS, measure_file
from etl.measuring import annotate_with_image_statistics
from service.app import create_app
from service.cli import main
from service.database import Database
from service.settings import Settings
from tests.e2e.dying import DEADLY
from tests.e2e.server import GAPSCOPE, environment
from tests.world import SHARED, Split, write_csv


@pytest.fixture
def data(tmp_path, toy_csv, monkeypatch):
    """A data folder of its own with the toy world in it, set in the environment."""
    load(tmp_path / "data", [toy_csv], n_threads=1)
    monkeypatch.setenv("GAP_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.fixture
def images(tmp_path, world):
    """Image files of val and v2 under one root."""
    rng = np.random.default_rng(0)
    for split in ("val", "v2"):
        for path in world[split, "toy"].paths:
            file = tmp_path / "images" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (12, 18, 3)).astype(np.uint8)).save(file)
    return tmp_path / "images"


def rows(data, query):
    return Database(data).rows(query)


def content(data):
    file = data / DATABASE
    return file.stat().st_ino, hashlib.sha256(file.read_bytes()).hexdigest()


def write(folder, text, name="human.csv"):
    (folder / name).write_text(text)
    return str(folder / name)


def test_a_file_is_attached_replaced_listed_and_removed(data, tmp_path, capsys, world):
    paths = world["val", "toy"].paths
    before = content(data)
    file = write(
        tmp_path,
        f"path,agreement,kind\n/imgs/{paths[0]},.5,old\n{paths[1]},nan,new\n"
        "v2/0/0.png,1,\n40.png,.75,new\nval/9/77.png,1,old\n7.png,1,old\n",
    )
    assert main(["annotate", file]) == 0
    said = capsys.readouterr().out
    assert "human: agreement, kind\n6 rows: 4 matched, 1 ambiguous, 1 unmatched" in said
    assert "1 cells held no finite number" in said
    assert "more than one image fits '7.png'" in said
    assert "no loaded image is 'val/9/77.png'" in said
    query = "select name, path, value, category from annotation order by name, path"
    assert [tuple(row.values()) for row in rows(data, query)] == [
        ("agreement", "train/0/40.png", 0.75, None),
        ("agreement", "v2/0/0.png", 1.0, None),
        ("agreement", "val/0/0.png", 0.5, None),
        ("kind", "train/0/40.png", None, "new"),
        ("kind", "val/0/0.png", None, "old"),
        ("kind", "val/1/1.png", None, "new"),
    ]

    write(tmp_path, f"split,path,agreement\nval,{paths[0]},.25\n")
    assert main(["annotate", file]) == 0
    assert [row["value"] for row in rows(data, query)] == [0.25]
    assert main(["annotations"]) == 0
    said = capsys.readouterr().out
    assert "human: from " in said
    assert "agreement" in said
    assert "(5.0%): mean 0.25, from 0.25 to 0.25" in said

    assert main(["annotate", "--remove", "human"]) == 0
    assert rows(data, query) == []
    assert main(["annotations"]) == 0
    assert "nothing attached yet" in capsys.readouterr().out
    assert content(data) == before

    assert main(["annotate", "--remove", "human"]) == 2
    assert "refused (not_attached): wanted attached annotations (none)" in capsys.readouterr().err
    pq.write_table(pa.table({"x": [1]}), data / "annotations" / "stray.parquet")
    assert cards(data) == []  # another program's file is none of ours


def test_the_split_can_be_said(data, tmp_path, world):
    both = [p.split("/", 1)[1] for p in world["val", "toy"].paths[:3]]
    file = write(tmp_path, "path,x\n" + "".join(f"{p},1\n" for p in both))
    assert main(["annotate", file]) == 2  # in train, val and v2: ambiguous, so nothing matches
    assert main(["annotate", file, "--split", "val", "--name", "x"]) == 0
    found = rows(data, "select split, source, count(*) as n from annotation group by all")
    assert found == [{"split": "val", "source": "x", "n": 3}]


@pytest.mark.parametrize(
    ("text", "options", "code"),
    [
        ("path,x\nval/0/0.png,1\nval/0/0.png,2\n", [], "annotation_conflict"),
        ("path,x\nval/0/0.png,1\nimg/val/0/0.png,2\n", [], None),
        ("path,x\nval/0/0.png,1\nval/0/0.png,1\nval/0/0.png,\n", [], None),
        ("path,x\nelsewhere.png,1\n", [], "nothing_matched"),
        ("path,x\nval/0/0.png,1\n", ["--split", "none"], "unknown_split"),
        ("path,x\nval/0/0.png,1\n", ["--name", "../x"], "annotation_name"),
        ("path,x\nval/0/0.png,1\n", ["--name", "_empty"], "annotation_name"),
        ("path,x\nval/0/0.png,1\n", ["--name", "taken"], "annotation_taken"),
        ("image,x\nval/0/0.png,1\n", [], "header_mismatch"),
        ("path\nval/0/0.png\n", [], "no_covariate"),
    ],
)
def test_refusals_leave_what_is_attached(data, tmp_path, capsys, text, options, code):
    assert main(["annotate", write(tmp_path, "path,y\nval/0/0.png,5\n", "taken.csv")]) == 0
    before = rows(data, "select * from annotation")
    assert main(["annotate", write(tmp_path, text), *options]) == (2 if code else 0)
    said = capsys.readouterr().err
    if code:
        assert f"refused ({code})" in said
        assert rows(data, "select * from annotation") == before
    assert [card.source for card in cards(data)] == (["taken"] if code else ["human", "taken"])


def test_without_a_database_or_with_an_older_one_nothing_is_attached(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("GAP_DATA", str(tmp_path / "data"))
    file = write(tmp_path, "path,x\na,1\n")
    for call in (["annotate", file], ["annotate", "--real"], ["annotate", "--image-statistics"],
                 ["link-images", str(tmp_path)]):  # fmt: skip
        assert main(call) == 2
        assert "refused (nothing_loaded)" in capsys.readouterr().err
    assert main(["annotations"]) == 2
    assert "refused (no_database)" in capsys.readouterr().err
    (tmp_path / "data").mkdir()
    con = duckdb.connect(str(tmp_path / "data" / DATABASE))
    con.execute("create table image (image_id bigint, split text, path text, class_id int)")
    con.close()
    for call in (["annotate", file], ["annotations"], ["link-images", str(tmp_path)]):
        assert main(call) == 2
        assert "refused (other_shape)" in capsys.readouterr().err
    (tmp_path / "data" / DATABASE).write_bytes(b"no database")
    assert main(["annotate", file]) == 2
    assert "refused (other_shape)" in capsys.readouterr().err


def test_options_that_mean_nothing_together_are_refused(data, capsys):
    assert main(["annotate", "--remove", "x", "--split", "val"]) == 2
    assert "refused (unused_option)" in capsys.readouterr().err
    for call in (["annotate"], ["annotate", "a.csv", "--real"]):
        with pytest.raises(SystemExit):
            main(call)


def test_images_are_linked_by_hand_and_after_a_load(
    data, images, tmp_path, toy_csv, capsys, monkeypatch
):
    (images / "val" / "0" / "0.png").unlink()
    assert main(["link-images"]) == 2
    assert "refused (root_not_found)" in capsys.readouterr().err
    assert main(["link-images", str(tmp_path / "none")]) == 2
    before = content(data)
    assert main(["link-images", str(images)]) == 0
    said = capsys.readouterr().out
    assert "34 image files under" in said
    assert "note: val: no file for 'val/0/0.png'\n" in said
    assert content(data) == before
    summary = "select split, n_found, n_missing from image_file_summary order by split"
    linked = [("train", 0, 48), ("v2", 15, 0), ("val", 19, 1)]
    assert [tuple(row.values()) for row in rows(data, summary)] == linked

    fresh = tmp_path / "fresh"
    monkeypatch.setenv("GAP_DATA", str(fresh))
    monkeypatch.setenv("GAP_IMAGES", os.pathsep.join([str(images), str(images / "val")]))
    assert main(["load", str(toy_csv)]) == 0
    assert [tuple(row.values()) for row in rows(fresh, summary)] == linked
    monkeypatch.setattr(command, "link_images", None)  # nothing new: not walked again
    assert main(["load", str(toy_csv)]) == 0


def test_without_roots_a_load_looks_for_no_images(data, toy_csv, capsys):
    assert main(["load", str(toy_csv), "--replace"]) == 0
    assert "image" not in capsys.readouterr().out
    assert not (data / "images" / "linked.parquet").exists()


def test_a_wrong_root_does_not_undo_a_load(tmp_path, toy_csv, capsys, monkeypatch):
    monkeypatch.setenv("GAP_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("GAP_IMAGES", str(tmp_path / "none"))
    assert etl_main([str(toy_csv)]) == 0
    assert "note: images not linked (root_not_found)" in capsys.readouterr().out
    assert len(Database(tmp_path / "data").splits()) == 6


def test_images_are_measured_once_and_the_unreadable_ones_are_named(data, images, capsys):
    (images / "val" / "0" / "0.png").write_bytes(b"no image")
    assert main(["link-images", str(images)]) == 0
    capsys.readouterr()
    assert main(["annotate", "--image-statistics"]) == 0
    said = capsys.readouterr().out
    assert "34 images measured, 0 were so before, 1 unreadable, 48 without a file" in said
    assert "val/0/0.png: not an image" in said
    found = rows(data, "select path, name, value from annotation where path = 'val/1/1.png'")
    assert {row["name"]: row["value"] for row in found} == measure_file(
        str(images.resolve()), "val/1/1.png"
    )
    assert len(rows(data, "select * from annotation")) == 34 * len(STATISTICS)
    (card,) = cards(data)
    assert (card.source, card.n_rows, card.n_matched, card.n_unmatched) == (
        "image-statistics", 35, 34, 1)  # fmt: skip

    Image.new("L", (5, 5)).save(images / "val" / "1" / "1.png")
    assert main(["link-images", str(images)]) == 0
    capsys.readouterr()
    assert main(["annotate", "--image-statistics"]) == 0
    assert "1 images measured, 33 were so before, 1 unreadable" in capsys.readouterr().out
    query = "select value from annotation where path = 'val/1/1.png' and name = 'width_px'"
    assert rows(data, query) == [{"value": 5.0}]
    assert len(rows(data, "select * from annotation")) == 34 * len(STATISTICS)


def test_measuring_goes_on_where_it_was_stopped(data, images, monkeypatch):
    monkeypatch.setattr(measuring, "_IMAGES_A_TASK", 4)
    monkeypatch.setattr(measuring, "_IMAGES_A_PART", 5)
    assert main(["link-images", str(images)]) == 0

    def stop(share, _message):
        if share > 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        annotate_with_image_statistics(data, 1, stop)
    assert rows(data, "select * from annotation") == []
    measured = annotate_with_image_statistics(data, 1)
    assert (measured.n_measured, measured.n_kept) == (17, 18)
    assert len(rows(data, "select * from annotation")) == 35 * len(STATISTICS)
    work = data / "annotations" / ".image-statistics"
    assert list(work.glob("*.parquet")) == []
    with measuring._alone(data), pytest.raises(Busy):
        annotate_with_image_statistics(data, 1)


def test_an_image_that_ends_its_process_is_named_and_the_rest_measured(data, images, monkeypatch):
    monkeypatch.setattr(measuring, "_READER", (sys.executable, "-m", "tests.e2e.dying"))
    monkeypatch.setattr(measuring, "_IMAGES_A_TASK", 4)
    monkeypatch.setattr(measuring, "_IMAGES_A_PART", 17)  # nothing is left for the end
    assert main(["link-images", str(images)]) == 0
    measured = annotate_with_image_statistics(data, 2)
    assert (measured.n_measured, measured.n_unreadable) == (34, 1)
    assert measured.unreadable == (f"{images.resolve()}/{DEADLY}: reading it ended the process",)


def test_a_reader_that_was_killed_is_started_anew_until_it_is_stopped(images):
    image = measuring._Linked("val", "", str(images.resolve()), "val/1/1.png")
    reader = measuring._Reader()
    reader._process = subprocess.Popen(
        [sys.executable, "-c", ""], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    reader._process.wait()
    assert reader.measure([image]) == [measure_file(image.root, image.file)]
    reader.stop()
    reader.close()
    reader.stop()
    reader.close()
    assert reader.measure([image]) == ["reading it ended the process"]
    assert reader._process is None


def test_statistics_want_linked_images(data, capsys):
    assert main(["annotate", "--image-statistics"]) == 2
    assert "refused (nothing_linked)" in capsys.readouterr().err


def test_the_service_and_the_plain_cli_see_what_is_attached_at_once(data, tmp_path):
    file = write(tmp_path, "path,x\nval/0/0.png,1\nval/1/1.png,2\n")
    with TestClient(create_app(Settings(data=data), with_worker=False)) as client:
        assert client.get("/annotations").json() == []
        assert main(["annotate", file]) == 0
        (source,) = client.get("/annotations").json()
    assert (source["source"], source["origin"], source["n_matched"]) == ("human", "human.csv", 2)
    (covariate,) = source["covariates"]
    assert covariate["name"] == "x"
    assert covariate["mean_value"] == 1.5
    done = subprocess.run(
        [GAPSCOPE, "sql", "-csv", "-c", "select source, name, n_images from annotation_summary"],
        cwd=tmp_path, env=environment(data), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines()[1:] == ["human,x,2"]


def imagenet(folder, images):
    """Load ImageNet images (split, path, label) with a made-up feature."""
    for split in images["split"].unique():
        mine = images[images["split"] == split]
        features = np.arange(len(mine), dtype=np.float32)[:, None]
        write_csv(folder / f"{split}_x.csv",
                  Split(mine["path"].tolist(), mine["label"].to_numpy(), features))  # fmt: skip
    load(folder / "data", [folder])
    return folder / "data"


def test_reals_labels_want_imagenets_classes(tmp_path, capsys, monkeypatch):
    names = [f"ILSVRC2012_val_{i:08d}.JPEG" for i in range(1, 101)]
    wrong = pd.DataFrame({"split": "val", "path": names, "label": 7})
    monkeypatch.setenv("GAP_DATA", str(imagenet(tmp_path, wrong)))
    assert main(["annotate", "--real"]) == 2
    assert "refused (foreign_labels)" in capsys.readouterr().err


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data folder is absent")
def test_reals_labels_on_imagenet_val(tmp_path, monkeypatch):
    folder = SHARED / "imagenet_v2"
    val = pd.read_parquet(folder / "val_images.parquet")
    v2 = pd.read_parquet(folder / "v2_matched_frequency_images.parquet")
    images = pd.concat(
        [
            pd.DataFrame({"split": "val", "path": "val/" + val.wnid + "/" + val.path,
                          "label": val.label}),
            pd.DataFrame({"split": "v2", "path": "v2/" + v2.path, "label": v2.label}),
        ]
    )  # fmt: skip
    data = imagenet(tmp_path, images)
    monkeypatch.setenv("GAP_DATA", str(data))
    assert main(["annotate", "--real"]) == 0
    assert cards(data)[0].n_matched == 50_000
    v2[["path", "sel_freq_at_least"]].to_csv(tmp_path / "frequency.csv", index=False)
    assert main(["annotate", str(tmp_path / "frequency.csv")]) == 0
    found = pd.DataFrame(rows(data, "select * from annotation where source = 'real'"))
    found["file"] = found["path"].str.rsplit("/", n=1).str[-1]
    for name in ("n_real_labels", "label_in_real"):
        mine = found[found["name"] == name].set_index("file").value
        assert (mine.reindex(val.path).to_numpy() == val[name].to_numpy()).all()
    texts = found[found["name"] == "real_labels"].set_index("file").category
    assert (texts.reindex(val.path).fillna("").to_numpy() == val.real_labels.fillna("")).all()
    (summary,) = rows(data, "select * from annotation_summary where source = 'frequency'")
    assert summary["n_images"] == v2.sel_freq_at_least.notna().sum()


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data folder is absent")
def test_human_agreement_on_cifar10(tmp_path, monkeypatch):
    folder = SHARED / "cifar10_lite0"
    for split in ("test1", "test2"):
        table = pd.read_parquet(folder / f"{split}.parquet", columns=["path", "label", "f0"])
        table.to_csv(tmp_path / f"{split}_lite0.csv", index=False)
    load(tmp_path / "data", [tmp_path / "test1_lite0.csv", tmp_path / "test2_lite0.csv"])
    monkeypatch.setenv("GAP_DATA", str(tmp_path / "data"))
    assert main(["annotate", str(folder / "annotations.csv"), "--name", "cifar10h"]) == 0
    found = rows(tmp_path / "data", "select * from annotation_summary order by split")
    assert [row["n_images"] for row in found] == [5000, 1000]
    assert [row["share_images"] for row in found] == [1.0, 1.0]
    means = [row["mean_value"] for row in found]
    assert means == pytest.approx([0.952, 0.841], abs=5e-4)
