"""Loading as a user does it: what goes in comes out; what is wrong is refused, nothing is lost."""

import errno
import hashlib
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import etl.moments
import etl.part
import etl.rows
from etl import LoadRefused, adding, command, load, loader
from etl import database as etl_database
from etl.__main__ import main
from etl.adding import NamedImages, add_images
from etl.database import DATABASE, exclusive
from service.cli import main as gapscope
from service.database import Database
from service.looks import Look
from tests.world import Split, make_world, write_csv, write_world

LOOK = Look(None, "evaluate")


@pytest.fixture
def folder(tmp_path, toy_csv):
    return Path(shutil.copytree(toy_csv, tmp_path / "csv"))


@pytest.fixture
def data(tmp_path, toy_csv):
    """A data folder of its own with the toy world in it."""
    load(tmp_path / "data", [toy_csv], n_threads=1)
    return tmp_path / "data"


def content(data):
    """Digest of the database file: the old one must stay as it was, byte for byte."""
    return hashlib.sha256((data / DATABASE).read_bytes()).hexdigest()


def damage(file, line, change):
    lines = file.read_text().splitlines(keepends=True)
    lines[line - 1] = change(lines[line - 1])
    file.write_text("".join(lines))


def cell(position, value):
    def change(text):
        cells = text.rstrip("\n").split(",")
        cells[position] = value
        return ",".join(cells) + "\n"

    return change


SIX = {
    "a train file with a test row's path": (
        "train_toy.csv", 5, cell(1, "val/0/0.png"), "leak", 5, "path"),
    "a NaN in line 3": ("train_toy.csv", 3, cell(4, "nan"), "not_finite", 3, "1"),
    "a short row in the middle": (
        "train_toy.csv", 20, lambda t: t.rsplit(",", 1)[0] + "\n", "ragged_row", 20, None),
    "no header": ("val_toy.csv", 1, lambda _t: "", "header_missing", 1, None),
    "1.5 as label": ("val_toy.csv", 4, cell(2, "1.5"), "label_out_of_range", 4, "label"),
}  # fmt: skip


@pytest.mark.parametrize("fault", SIX)
def test_a_faulty_file_is_refused_with_its_place_and_nothing_is_lost(folder, data, fault):
    name, at, change, code, line, column = SIX[fault]
    before = content(data)
    damage(folder / name, at, change)
    with pytest.raises(LoadRefused) as refused:
        load(data, [folder])
    error = refused.value
    assert (error.code, error.line, error.column) == (code, line, column)
    assert error.file is not None
    assert Path(error.file).name == name
    assert content(data) == before
    assert not list(data.glob(".staging*"))
    assert len(Database(data).splits()) == 6


def test_another_dimension_in_test_2_is_refused_before_any_row_is_read(folder, data, world):
    rows = world["v2", "toy"]
    wide = Split(rows.paths, rows.labels, np.hstack([rows.features, rows.features]))
    file = write_csv(folder / "test_2_toy.csv", wide)
    before = content(data)
    with pytest.raises(LoadRefused) as refused:
        load(data, [folder])
    assert (refused.value.code, refused.value.file) == ("dimension_mismatch", str(file))
    assert "wanted 3 features" in str(refused.value)
    assert "got 6" in str(refused.value)
    assert content(data) == before


def test_the_command_line_says_the_refusal_and_exits_with_2(folder, data, capsys, monkeypatch):
    monkeypatch.setenv("GAP_DATA", str(data))
    damage(folder / "train_toy.csv", 3, cell(4, "nan"))
    for run in (lambda: main([str(folder)]), lambda: gapscope(["load", str(folder)])):
        assert run() == 2
        said = capsys.readouterr().err
        assert "refused (not_finite)" in said
        assert "train_toy.csv, line 3, column '1': wanted a finite number, got 'nan'" in said


def test_the_assignments_two_forms_load_and_val_is_the_reference(tmp_path):
    """Index, path, label, 0…; and index, label, 0… without a path, with a `testv2_` file."""
    world = make_world()
    folder = tmp_path / "features"
    eva, s0 = (
        "eva02_large_patch14_448.mim_m38m_ft_in22k_in1k",
        "efficientformerv2_s0.snap_dist_in1k",
    )
    for split in ("train", "val", "v2"):
        write_csv(folder / f"{split}_{eva}.csv", world[split, "toy"])
        prefix = "testv2" if split == "v2" else split
        write_csv(folder / f"{prefix}_{s0}.csv", world[split, "toy"], path=False)
    first = (folder / f"val_{eva}.csv").read_text().split("\n", 1)[0]
    assert first == ",path,label,0,1,2"
    report = load(tmp_path / "data", [folder])
    assert (report.reference, report.target) == ("val", "v2")
    database = Database(tmp_path / "data")
    assert {(r["split"], r["backbone"]) for r in database.splits()} == {
        (split, backbone) for split in ("train", "val", "v2") for backbone in (eva, s0)
    }
    assert database.gap_ends(eva, None, None) == ("val", "v2")
    named = database.test_rows(s0, "val", look=LOOK)
    assert named.paths[:2] == ["val/row-0", "val/row-1"]
    np.testing.assert_array_equal(named.features, world["val", "toy"].features)
    assert "images are named" in command.in_words(report)


def test_paths_from_another_backbone(tmp_path, world):
    folder = tmp_path / "features"
    for split in ("train", "val"):
        write_csv(folder / f"{split}_a.csv", world[split, "tiny"])
        write_csv(folder / f"{split}_b.csv", world[split, "tiny"], path=False)
    load(tmp_path / "data", [folder], paths_from="a")
    database = Database(tmp_path / "data")
    a, b = (database.test_rows(backbone, "val", look=LOOK) for backbone in "ab")
    assert a.paths == b.paths
    np.testing.assert_array_equal(a.features, b.features)
    assert database.rows("select count(*) as n from image") == [{"n": 68}]


@pytest.mark.parametrize("fault", ["labels", "longer", "shorter", "absent"])
def test_paths_from_rows_that_differ_is_refused(tmp_path, world, fault):
    rows = world["val", "toy"]
    n = len(rows.labels)
    labels = rows.labels if fault != "labels" else np.roll(rows.labels, 1)
    keep = {"longer": [*range(n), 0], "shorter": range(n - 1)}.get(fault, range(n))
    folder = tmp_path / "features"
    write_csv(folder / "val_a.csv", rows)
    other = Split([rows.paths[i] for i in keep], labels[list(keep)], rows.features[list(keep)])
    write_csv(folder / "val_b.csv", other, path=False)
    with pytest.raises(LoadRefused) as refused:
        load(tmp_path / "data", [folder], paths_from="none" if fault == "absent" else "a")
    assert refused.value.code == "paths_from"


def test_columns_go_by_name_not_by_position(tmp_path, world):
    rows = world["val", "toy"]
    folder = tmp_path / "features"
    write_csv(folder / "train_toy.csv", world["train", "toy"])
    table = pd.read_csv(write_csv(folder / "val_toy.csv", rows), index_col=0)
    table[["2", "label", "0", "path", "1"]].to_csv(folder / "val_toy.csv", index=False)
    load(tmp_path / "data", [folder])
    found = Database(tmp_path / "data").test_rows("toy", "val", look=LOOK)
    assert found.paths == rows.paths
    np.testing.assert_array_equal(found.features, rows.features)


def test_a_second_load_of_the_same_files_repeats_nothing(data, toy_csv):
    before = (data / DATABASE).stat().st_ino
    report = load(data, [toy_csv])
    assert report.loaded == []
    assert len(report.kept) == 6
    assert (data / DATABASE).stat().st_ino == before


def test_a_touched_or_moved_file_is_recognised_by_its_digest(data, toy_csv, tmp_path):
    before = content(data)
    moved = Path(shutil.copytree(toy_csv, tmp_path / "moved"))
    for file in moved.iterdir():
        os.utime(file, ns=(1, 1))
    report = load(data, [moved])
    assert report.loaded == []
    assert len(report.kept) == 6
    assert content(data) == before
    file = moved / "val_toy.csv"  # of the same size and another content
    file.write_text(file.read_text().replace("7.0\n", "7.5\n", 1))
    assert [(part.split, part.backbone) for part in load(data, [moved]).loaded] == [("val", "toy")]


def test_another_table_of_labels_is_another_part(tmp_path):
    np.save(tmp_path / "val_x.npy", np.zeros((2, 3), np.float32))
    labels = tmp_path / "val_x.labels.csv"
    labels.write_text("label\n0\n1\n")
    assert len(load(tmp_path / "data", [tmp_path]).loaded) == 1
    assert load(tmp_path / "data", [tmp_path]).loaded == []
    labels.write_text("label\n0\n0\n")
    assert load(tmp_path / "data", [tmp_path]).loaded[0].n_classes == 1


def test_quantiles_of_a_large_test_split_are_exact_and_of_train_sampled(
    tmp_path, world, monkeypatch
):
    monkeypatch.setattr(etl.moments.RowSample.__init__, "__kwdefaults__", {"capacity": 8})
    monkeypatch.setattr(etl.part, "EXACT_BYTES", 4 * 20 * 2)  # two features of val at once
    for split in ("train", "val"):
        write_csv(tmp_path / f"{split}_toy.csv", world[split, "toy"])
    load(tmp_path / "data", [tmp_path])
    found = _medians(tmp_path / "data")
    exact = {
        split: np.quantile(world[split, "toy"].features.astype(float), 0.5, axis=0)
        for split in ("train", "val")
    }
    np.testing.assert_allclose(found["val"], exact["val"], rtol=1e-12)
    assert not np.allclose(found["train"], exact["train"])


def _medians(data):
    con = duckdb.connect()
    etl_database.attach(con, data)
    rows = con.execute(
        "select split, value from feature_quantile where probability = .5 order by feature_id"
    ).fetchall()
    return {split: [v for s, v in rows if s == split] for split in ("train", "val")}


def test_a_changed_or_added_part_is_loaded_beside_what_stays(data, folder, world, toy_csv):
    paths = [f"new/{i}" for i in range(20)]
    write_csv(
        folder / "val_toy.csv",
        Split(paths, world["val", "toy"].labels, world["val", "toy"].features + 1),
    )
    write_csv(folder / "sketch_toy.csv", world["val", "toy"])
    report = load(data, [folder / "val_toy.csv", folder / "sketch_toy.csv"])
    assert {(p.split, p.backbone) for p in report.loaded} == {("val", "toy"), ("sketch", "toy")}
    assert len(report.kept) == 5
    database = Database(data)
    assert database.test_rows("toy", "val", look=LOOK).paths == paths
    np.testing.assert_array_equal(
        database.test_rows("tiny", "val", look=LOOK).features, world["val", "tiny"].features
    )
    kept = (database.train_rows("toy")[0].features[0:48], world["train", "toy"].features)
    np.testing.assert_array_equal(*(np.unique(rows, axis=0) for rows in kept))
    np.testing.assert_array_equal(
        database.test_rows("toy", "sketch", look=LOOK).features, world["val", "toy"].features
    )
    statistics = "select * from feature_stat where backbone = 'tiny' order by all"
    fresh = data.parent / "fresh"
    load(fresh, [toy_csv])
    assert database.rows(statistics) == Database(fresh).rows(statistics)


def test_replace_forgets_what_is_there(data, folder):
    report = load(data, [folder / "train_tiny.csv", folder / "v2_tiny.csv"], replace=True)
    assert [(row["split"], row["backbone"]) for row in Database(data).splits()] == [
        ("train", "tiny"), ("v2", "tiny")]  # fmt: skip
    assert (report.reference, report.target) == ("v2", None)
    assert Database(data).rows("select count(*) as n from image") == [{"n": 63}]


def test_a_reference_that_nobody_named_gives_way_to_a_usual_name(tmp_path, toy_csv):
    data = tmp_path / "data"
    assert load(data, [toy_csv / "v2_toy.csv"]).reference == "v2"
    assert load(data, [toy_csv / "val_toy.csv"]).reference == "val"
    assert load(data, [], reference="v2").reference == "v2"
    assert load(data, [toy_csv / "train_toy.csv"]).reference == "v2"


def test_the_reference_can_be_named_and_is_remembered(data, toy_csv):
    assert load(data, [toy_csv], reference="v2").reference == "v2"
    assert load(data, [toy_csv]).reference == "v2"
    assert Database(data).gap_ends("toy", None, None) == ("v2", "val")
    with pytest.raises(LoadRefused, match="wanted a test split as --reference"):
        load(data, [toy_csv], reference="train")


def test_class_names(data, toy_csv, tmp_path):
    names = tmp_path / "names.csv"
    names.write_text("label,name\n0,cat\n1,dog\n2,owl\n3,ant\n4,bee\n")
    load(data, [toy_csv], classes=names)
    assert Database(data).class_names() == {0: "cat", 1: "dog", 2: "owl", 3: "ant", 4: "bee"}
    load(data, [toy_csv], reference="v2")
    assert Database(data).class_names()[3] == "ant"
    names.write_text("cat\ndog\nowl\nant\n")
    load(data, [toy_csv], classes=names)
    assert len(Database(data).class_names()) == 4


def test_superclasses_are_kept_until_other_classes_are_given(data, toy_csv, tmp_path):
    load(data, [toy_csv])
    assert Database(data).superclasses() == {}
    names = tmp_path / "names.csv"
    names.write_text("label,superclass,name\n0,pet,cat\n1, pet ,dog\n2,bird,owl\n3,,ant\n")
    load(data, [toy_csv], classes=names)
    assert Database(data).superclasses() == {0: "pet", 1: "pet", 2: "bird"}
    load(data, [toy_csv], reference="v2")
    assert Database(data).superclasses() == {0: "pet", 1: "pet", 2: "bird"}
    assert Database(data).class_names()[3] == "ant"
    names.write_text("cat\ndog\nowl\nant\n")
    load(data, [toy_csv], classes=names)
    assert Database(data).superclasses() == {}


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("label,name\n0,cat\n1,dog\n2,owl\n", "label_out_of_range"),
        ("label,name\n0,cat\n0,dog\n", "label_out_of_range"),
        ("number,name\n0,cat\n", "header_mismatch"),
        (None, "source_not_found"),
    ],
)
def test_class_names_that_do_not_fit_are_refused(tmp_path, toy_csv, text, code):
    names = tmp_path / "names.csv"
    if text is not None:
        names.write_text(text)
    with pytest.raises(LoadRefused) as refused:
        load(tmp_path / "data", [toy_csv], classes=names)
    assert refused.value.code == code
    assert not (tmp_path / "data" / DATABASE).exists()


def test_a_second_mention_with_the_same_label_is_left_out_and_counted(tmp_path, world):
    rows = world["val", "toy"]
    doubled = Split(
        [*rows.paths, rows.paths[3]], np.append(rows.labels, rows.labels[3]),
        np.vstack([rows.features, rows.features[:1]]),
    )  # fmt: skip
    report = load(tmp_path / "data", [write_csv(tmp_path / "val_toy.csv", doubled)])
    (part,) = report.loaded
    assert (part.n_rows_read, part.n_images, part.n_rejected) == (21, 20, 1)
    assert "1 row left out" in command.in_words(report)
    found = Database(tmp_path / "data").test_rows("toy", "val", look=LOOK)
    np.testing.assert_array_equal(found.features, rows.features)


@pytest.mark.parametrize("where", ["same file", "other backbone"])
def test_one_image_with_two_labels_is_refused_with_its_line(tmp_path, world, where):
    rows = world["val", "toy"]
    labels = rows.labels.copy()
    if where == "same file":
        rows = Split([*rows.paths[:-1], rows.paths[0]], rows.labels, rows.features)
        line = 21
    else:
        labels[7] = (labels[7] + 1) % 4
        write_csv(tmp_path / "csv" / "val_z.csv", Split(rows.paths, labels, rows.features))
        line = 9
    write_csv(tmp_path / "csv" / "val_toy.csv", rows)
    with pytest.raises(LoadRefused) as refused:
        load(tmp_path / "data", [tmp_path / "csv"])
    assert (refused.value.code, refused.value.line) == ("label_conflict", line)


def test_one_load_at_a_time(data, toy_csv):
    with exclusive(data), pytest.raises(LoadRefused, match="another load at work"):
        load(data, [toy_csv], replace=True)


def test_what_a_killed_load_left_behind_is_swept(data, toy_csv):
    (data / ".staging-dead.duckdb").touch()
    (data / ".staging-tmp").mkdir()
    load(data, [toy_csv])
    assert not list(data.glob(".staging*"))


@pytest.mark.parametrize(
    ("where", "error"),
    [
        ((etl_database, "_publish"), OSError(errno.ENOSPC, "full")),
        ((etl_database, "_publish"), duckdb.IOException("No space left on device")),
        ((etl.part, "give_back_memory"), OSError(errno.ENOSPC, "No space left on device")),
    ],
)
def test_e29_a_full_disk_is_said_so_and_leaves_the_old_database(
    data, toy_csv, monkeypatch, where, error
):
    """At the end, or while DuckDB takes the rows: it passes on the words alone."""
    before = content(data)

    def full(*_):
        raise error

    monkeypatch.setattr(*where, full)
    with pytest.raises(LoadRefused) as refused:
        load(data, [toy_csv], replace=True)
    assert refused.value.code == "disk_full"
    assert content(data) == before
    assert not list(data.glob(".staging*"))


def test_e29_a_disk_with_far_too_little_room_is_refused_before_anything_is_read(
    data, toy_csv, monkeypatch
):
    before = content(data)
    monkeypatch.setattr(shutil, "disk_usage", lambda _place: SimpleNamespace(free=100))
    with pytest.raises(LoadRefused, match="100 bytes of free space") as refused:
        load(data, [toy_csv], replace=True)
    assert refused.value.code == "disk_full"
    assert content(data) == before


@pytest.mark.parametrize("error", [duckdb.BinderException("no such column"), duckdb.Error("")])
def test_what_is_no_fault_of_the_disk_is_not_called_one(data, toy_csv, monkeypatch, error):
    before = content(data)

    def fault(*_):
        raise error

    monkeypatch.setattr(etl_database, "_publish", fault)
    with pytest.raises(type(error)):
        load(data, [toy_csv], replace=True)
    assert content(data) == before
    assert not list(data.glob(".staging*"))


@pytest.mark.parametrize("lost", ["vector", "image that predictions named"])
def test_a_database_that_lacks_what_its_report_counts_is_never_published(
    data, toy_csv, tmp_path, monkeypatch, lost
):
    before = content(data)
    if lost == "vector":
        module, write, statement = loader, "load_part", "delete from feature.toy where rowid = 3"
    else:
        module, write, statement = adding, "_write", "delete from added_image where rowid = 1"
    plain = getattr(module, write)

    def lossy(con, *given):
        report = plain(con, *given)
        con.execute(statement)
        return report

    monkeypatch.setattr(module, write, lossy)
    act = {
        "vector": lambda: load(data, [toy_csv / "val_toy.csv"], replace=True),
        "image that predictions named": lambda: add_images(data, {"v3": named_images(tmp_path, 2)}),
    }[lost]
    with pytest.raises(LoadRefused, match="a fault of Gapscope: the old database stays"):
        act()
    assert content(data) == before


def named_images(folder, n):
    (folder / "predictions.csv").touch()
    paths = pa.array([f"new/{i}" for i in range(n)])
    return NamedImages(folder / "predictions.csv", paths, np.zeros(n, np.int64))


def test_of_the_splits_that_predictions_name_those_with_new_images_grow(data, tmp_path):
    add_images(data, {"v3": named_images(tmp_path, 2)})
    placed = add_images(data, {"v3": named_images(tmp_path, 2), "v4": named_images(tmp_path, 1)})
    assert {s: (p.n_matched, p.n_new) for s, p in placed.items()} == {"v3": (2, 0), "v4": (0, 1)}
    counts = "select split, n_images from load_report where backbone is null order by all"
    assert [tuple(row.values()) for row in Database(data).rows(counts)] == [("v3", 2), ("v4", 1)]


def test_any_other_fault_of_the_disk_is_refused_too(data, toy_csv, monkeypatch):
    before = content(data)

    def broken(*_):
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(etl_database, "_publish", broken)
    with pytest.raises(LoadRefused, match="broken") as refused:
        load(data, [toy_csv], replace=True)
    assert refused.value.code == "disk_fault"
    assert content(data) == before


def test_a_database_of_another_version_is_refused(tmp_path, toy_csv):
    data = tmp_path / "data"
    data.mkdir()
    duckdb.connect(str(data / DATABASE)).execute("create table image (i integer)").close()
    with pytest.raises(LoadRefused, match="--replace"):
        load(data, [toy_csv])
    assert len(load(data, [toy_csv], replace=True).loaded) == 6


def test_a_train_split_alone_has_no_gap(tmp_path, toy_csv, capsys, monkeypatch):
    monkeypatch.setenv("GAP_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(etl.rows, "BLOCK_BYTES", 256)  # progress is told more than once
    assert main([str(toy_csv / "train_toy.csv")]) == 0
    said = capsys.readouterr().out
    assert "gap of toy: needs two test splits" in said
    assert "no train split" not in said


def test_a_world_of_any_split_names_loads(tmp_path):
    world = make_world()
    renamed = {("photo", "x"): world["val", "toy"], ("art", "x"): world["v2", "toy"]}
    report = load(tmp_path / "data", [write_world(tmp_path / "csv", renamed)])
    assert (report.reference, report.target) == ("art", "photo")


def test_a_backbone_without_the_reference_goes_by_the_usual_names(data, world, tmp_path, capsys):
    """The demo's `seen` must not decide for other features: val − v2, never by file order."""
    folder = tmp_path / "mine"
    write_csv(folder / "seen_demo.csv", world["val", "toy"])
    write_csv(folder / "unseen_demo.csv", world["v2", "toy"])
    load(tmp_path / "d", [folder])
    for split in ("train", "val", "v2"):
        write_csv(tmp_path / "later" / f"{split}_toy.csv", world[split, "toy"])
    report = load(tmp_path / "d", [tmp_path / "later"])
    assert report.ends == {"demo": ("seen", "unseen"), "toy": ("val", "v2")}
    assert Database(tmp_path / "d").gap_ends("toy", None, None) == ("val", "v2")
    said = command.in_words(report)
    assert "gap of toy: accuracy on val (reference) minus accuracy on v2" in said
    assert "--replace would forget them" in said
    assert "note: demo has no train split yet" in said


@pytest.mark.parametrize("name", ["Train", "training", "TRAIN"])
def test_a_name_that_only_looks_like_train_is_refused(tmp_path, world, name):
    file = write_csv(tmp_path / f"{name}_toy.csv", world["train", "toy"])
    for call in ({"places": [tmp_path]}, {"places": [file]}):
        with pytest.raises(LoadRefused, match="to be called train"):
            load(tmp_path / "data", **call)
    with pytest.raises(LoadRefused, match="to be called train"):
        load(tmp_path / "data", [], explicit=[f"{name}:x={file}"])


@pytest.mark.parametrize(
    ("name", "todo"),
    [
        ("val_x.gz", r"Name it \.csv\.gz"),
        ("val_x.xlsx", "Export"),
        ("val_x.rar", "Write it as CSV"),
    ],
)
def test_another_kind_of_file_is_refused_with_what_to_do(tmp_path, name, todo):
    (tmp_path / name).touch()
    with pytest.raises(LoadRefused, match=todo):
        load(tmp_path / "data", [tmp_path / name])


@pytest.mark.parametrize("n_threads", [1, 2, 4])
def test_wide_features_fit_into_the_memory_that_is_set(tmp_path, n_threads):
    d = 5000
    rows = np.random.default_rng(0).normal(size=(2500, d)).astype(np.float32)
    np.savez(tmp_path / "train_wide.npz", features=rows, label=np.arange(2500) % 50)
    load(tmp_path / "data", [tmp_path], n_threads=n_threads)
    con = duckdb.connect()
    etl_database.attach(con, tmp_path / "data")
    stored = con.execute("select vector from feature.wide order by rowid limit 3").fetchall()
    np.testing.assert_array_equal(np.array(stored, np.float32)[:, 0], rows[:3])
