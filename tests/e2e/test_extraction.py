"""`gapscope extract`: from images to a feature file that loads, through kills and faults."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from models.backbones import open_backbone
from service import cli
from service.database import Database
from service.errors import ExtractionChanged, InUse
from service.extraction import Extraction, extract, find_images, parts
from service.extraction.parts import Parts

ROOT = Path(__file__).resolve().parent.parent.parent
MODEL = "test_efficientnet"
NAME = f"{MODEL}.random"


def paint(folder, n, names=("0", "2", "10"), seed=0):
    """Images of noise, n a class."""
    rng = np.random.default_rng(seed)
    for name in names:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(n):
            pixels = rng.integers(0, 256, (48, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i:03d}.png")
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return paint(tmp_path_factory.mktemp("images") / "val", 8)


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("GAP_DATA", str(tmp_path / "data"))

    def command(*argv, status=0, weights="random", split="val", model=MODEL, workers=0):
        given = [] if weights is None else ["--weights", str(weights)]
        given += [] if workers is None else ["--workers", str(workers)]
        line = ["extract", "--split", split, "--model", model, *given, "--device", "cpu"]
        line += ["--out", str(tmp_path / "out"), *map(str, argv)]
        assert cli.main(line) == status
        said = capsys.readouterr()
        return said.out + said.err

    return command


@pytest.fixture(scope="module")
def backbone():
    return open_backbone(MODEL, random_seed=0, device="cpu")


def expected(backbone, folder, files):
    """One image at a time, by hand."""
    rows = []
    for file in files:
        with Image.open(folder / file) as image:
            rows.append(backbone.features(backbone.transform(image)[None])[0])
    return np.stack(rows)


def test_the_file_has_the_assignments_form_and_the_networks_features(
    run, images, backbone, tmp_path
):
    said = run("--images", images, "--batch-size", 5, workers=2)
    file = tmp_path / "out" / f"val_{NAME}.csv"
    assert file.read_text().startswith(",path,label,0,1,2,3,")
    assert file.read_text().splitlines()[1].startswith("0,val/0/000.png,0,")
    table = pd.read_csv(file, dtype={str(i): np.float32 for i in range(256)})
    assert table.columns.tolist() == ["Unnamed: 0", "path", "label", *map(str, range(256))]
    assert table.iloc[:, 0].tolist() == list(range(24))
    assert table.label.drop_duplicates().tolist() == [0, 2, 10]
    mine = table.iloc[:, 3:].to_numpy()
    files = [path.removeprefix("val/") for path in table.path]
    np.testing.assert_allclose(mine, expected(backbone, images, files), atol=1e-5)
    assert np.ptp(mine, axis=0).max() > 1e-3
    assert "24 images computed" in said
    assert "images/s" in said
    assert "10 → 10" in said
    assert "mean nothing" in said
    assert sorted(f.name for f in (tmp_path / "out").iterdir()) == [
        f"val_{NAME}.classes.csv", f"val_{NAME}.csv", f"val_{NAME}.extraction.json",
    ]  # fmt: skip


def test_the_record_says_how_the_features_came_to_be(run, images, backbone, tmp_path):
    run("--images", images)
    record = json.loads((tmp_path / "out" / f"val_{NAME}.extraction.json").read_text())
    assert record["settings"]["weights_sha256"] == backbone.weights.digest
    assert record["settings"]["model"] == "test_efficientnet.r160_in1k"
    assert record["settings"]["timm"]
    assert record["n_images"] == 24
    assert record["images_per_s"] > 0
    assert "random, seed 0" in record["weights"]


def test_all_formats_hold_the_same_numbers_and_load(run, images, tmp_path):
    run("--images", images)
    run("--images", images, "--format", "parquet", "--backbone", "p")
    run("--images", images, "--format", "database", "--backbone", "d")
    run("--images", images, "--format", "database", "--backbone", "d", split="train")
    csv = pd.read_csv(
        tmp_path / "out" / f"val_{NAME}.csv", dtype={str(i): np.float32 for i in range(256)}
    )
    parquet = pd.read_parquet(tmp_path / "out" / "val_p.parquet")
    assert parquet.dtypes.astype(str).tolist()[1:] == ["int64"] + ["float32"] * 256
    pd.testing.assert_frame_equal(csv.iloc[:, 1:], parquet, check_dtype=False, check_exact=True)
    database = Database(tmp_path / "data")
    stored = database.rows(
        "select path, class_id, vector from feature.d join image using (image_id) "
        "where split = 'val' order by path"
    )
    again = parquet.sort_values("path")
    assert [row["path"] for row in stored] == again.path.tolist()
    np.testing.assert_array_equal([row["vector"] for row in stored], again.iloc[:, 2:])
    assert not (tmp_path / "out" / "val_d.csv").exists()
    assert not list((tmp_path / "out").glob(".*"))
    said = run("--images", images, "--format", "database", "--backbone", "d")
    assert "nothing was left to compute" in said
    assert cli.main(["load", str(tmp_path / "out")]) == 0
    assert {(row["split"], row["backbone"]) for row in database.splits()} == {
        ("val", "d"), ("train", "d"), ("val", NAME), ("val", "p"),
    }  # fmt: skip


def test_class_names_given_are_loaded_with_the_database(run, images, tmp_path):
    classes = tmp_path / "c.csv"
    classes.write_text("label,name\n0,zero\n2,two\n10,ten\n")
    run("--images", images, "--format", "database", "--classes", classes)
    names = Database(tmp_path / "data").rows("select class_name from class order by class_id")
    assert [row["class_name"] for row in names] == ["zero", "two", "ten"]


def test_a_layer_and_an_own_name(run, images, tmp_path):
    run("--images", images, "--layer", "blocks.1", "--prefix", "")
    table = pd.read_csv(tmp_path / "out" / f"val_{MODEL}.blocks.1.random.csv")
    assert table.shape == (24, 3 + 24)
    assert table.path[0] == "0/000.png"


def test_the_backbone_is_named_after_the_model(run, images, tmp_path):
    said = run("--images", images, weights=None, model="tf_efficientnet_lite0")
    table = pd.read_csv(tmp_path / "out" / "val_tf_efficientnet_lite0.csv")
    assert table.shape == (24, 3 + 1280)
    assert "package" in said
    assert "WARNING" not in said


def test_a_second_call_does_nothing_and_other_settings_are_refused(run, images, tmp_path):
    run("--images", images)
    file = tmp_path / "out" / f"val_{NAME}.csv"
    before = file.stat()
    assert "nothing was left to compute" in run("--images", images)
    assert file.stat().st_mtime_ns == before.st_mtime_ns
    said = run("--images", images, "--seed", 1, status=2)
    assert "refused (extraction_changed)" in said
    assert "weights_sha256" in said
    assert "--restart" in said
    run("--images", images, "--seed", 1, "--restart")
    assert file.stat().st_ino != before.st_ino
    (tmp_path / "out" / f"val_{NAME}.extraction.json").unlink()
    assert "where they came from" in run("--images", images, status=2)


def test_a_corrupt_image_is_refused_by_name_or_left_out(run, images, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(images, folder)
    whole = (folder / "2" / "003.png").read_bytes()
    (folder / "2" / "003.png").write_bytes(whole[: len(whole) // 2])
    (folder / "10" / "000.png").write_bytes(b"no image")
    (folder / "10" / "001.png").unlink()
    (folder / "10" / "001.png").symlink_to("nowhere")
    said = run("--images", folder, status=2)
    assert "refused (unreadable_image)" in said
    assert str(folder / "2" / "003.png") in said
    said = run("--images", folder, "--skip-unreadable", workers=1)
    assert "3 images could not be read" in said
    assert "val/2/003.png (OSError" in said
    assert "val/10/000.png (UnidentifiedImageError" in said
    table = pd.read_csv(tmp_path / "out" / f"val_{NAME}.csv")
    assert len(table) == 21
    assert table.iloc[:, 0].tolist() == list(range(21))
    assert not {"val/2/003.png", "val/10/000.png"} & set(table.path)
    record = json.loads((tmp_path / "out" / f"val_{NAME}.extraction.json").read_text())
    assert record["n_skipped"] == len(record["skipped"]) == 3
    assert "3 images could not be read" in run("--images", folder, "--skip-unreadable")


def test_long_lists_are_cut_in_the_report(run, images, tmp_path, monkeypatch):
    import torch

    monkeypatch.setenv("GAP_THREADS", "1")
    before = torch.get_num_threads()
    folder = paint(tmp_path / "many", 1, names=[str(i) for i in range(30)])
    for i in range(12):
        (folder / str(i) / "000.png").write_bytes(b"x")
    (folder / "2" / "readme.txt").write_text("x")
    try:
        said = run("--images", folder, "--skip-unreadable", "--autocast", workers=None)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
    assert "11 → 11, …, 27 → 27, 28 → 28, 29 → 29" in said
    assert "note: 1 files that are no images were passed over" in said
    assert f"… all are in {tmp_path / 'out' / f'val_{NAME}.extraction.json'}" in said


def test_only_corrupt_images_are_refused(run, tmp_path):
    (tmp_path / "i" / "0").mkdir(parents=True)
    for i in range(12):
        (tmp_path / "i" / "0" / f"{i}.png").write_bytes(b"x")
    Image.new("1", (1, 100_000)).save(tmp_path / "i" / "0" / "0.png")  # gigabytes once it is scaled
    assert "none that can be decoded" in run(
        "--images", tmp_path / "i", "--skip-unreadable", status=2
    )
    said = run("--images", tmp_path / "i", status=2)  # parts from before
    assert "unreadable_image" in said
    assert "1 × 100000 pixels, one side more than 100 times the other" in said


@pytest.mark.parametrize(
    ("argv", "split", "code"),
    [([], "training", "source_name"), ([], "a_b", "source_name"), ([], "testv2", "source_name"),
     (["--backbone", "a b"], "val", "source_name"), (["--labels", "none"], "val", "bad_images"),
     (["--device", "nix"], "val", "backbone"), (["--layer", "nix"], "val", "unknown_layer")],
)  # fmt: skip
def test_a_refusal_comes_before_the_work(run, images, tmp_path, argv, split, code):
    assert f"refused ({code})" in run("--images", images, *argv, split=split, status=2)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("argv", [["--batch-size", "0"], ["--workers", "-1"], ["--format", "npy"]])
def test_options_out_of_range_are_refused(run, images, argv):
    with pytest.raises(SystemExit):
        run("--images", images, *argv)


def test_splits_of_one_backbone_share_their_mapping(run, tmp_path):
    train = paint(tmp_path / "train", 1, names=("cat", "dog", "emu"))
    val = paint(tmp_path / "val", 1, names=("cat", "emu"))
    run("--images", train, split="train")
    said = run("--images", val, status=2)
    assert "refused (classes_disagree)" in said
    mapping = tmp_path / "out" / f"train_{NAME}.classes.csv"
    assert f"--classes {mapping}" in said
    run("--images", val, "--classes", mapping)
    assert pd.read_csv(tmp_path / "out" / f"val_{NAME}.csv").label.tolist() == [0, 2]


def test_features_that_are_not_finite_are_refused(run, images, monkeypatch, tmp_path):
    import torch

    from models.backbones.weights import network_with_weights

    network, _ = network_with_weights(MODEL, random_seed=0)
    network.conv_head.weight.data[0] = float("nan")
    torch.save(network.state_dict(), tmp_path / "nan.pth")
    said = run("--images", images, status=2, weights=tmp_path / "nan.pth")
    assert "refused (not_finite_input)" in said
    assert "0/000.png" in said


# a part of four images, so that there are parts to lose
EXTRACT = """
import sys
from pathlib import Path
from models.backbones import open_backbone
from service.extraction import Extraction, extract, find_images
images, out = sys.argv[1:]
backbone = open_backbone("test_efficientnet", random_seed=0, device="cpu")
wanted = Extraction("val", "x", Path(out), batch_size=3, workers=1, skip_unreadable=True)
report = extract(wanted, find_images(Path(images), prefix="val"), backbone, Path(out), chunk=4)
print(report.n_new)
"""


def process(images, out, script=EXTRACT):
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, "-c", script, str(images), str(out)],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def n_parts(out):
    return len(list((out / ".extract-val_x").glob("part-*.npz")))


def test_killed_and_started_again_the_file_is_the_same_byte_for_byte(tmp_path):
    images = paint(tmp_path / "val", 40)
    (images / "2" / "007.png").write_bytes(b"no image")
    out, n_before = tmp_path / "killed", 0
    for _ in range(2):  # killed twice, each time further on
        with process(images, out) as running:
            end = time.monotonic() + 120
            while n_parts(out) < n_before + 4:
                assert running.poll() is None, running.stderr.read()
                assert time.monotonic() < end
                time.sleep(0.005)
            running.kill()
        n_before = n_parts(out)
        assert 4 <= n_before < 30
        assert not (out / "val_x.csv").exists()
    (out / ".extract-val_x" / ".part-000020.npz.fresh").write_bytes(b"half")
    for place, n_new in ((out, 120 - 4 * n_before), (tmp_path / "undisturbed", 120)):
        with process(images, place) as running:
            said, fault = running.communicate(timeout=120)
        assert (running.returncode, said) == (0, f"{n_new}\n"), fault
        assert not list(place.glob(".*"))
    for name in ("val_x.csv", "val_x.classes.csv"):
        assert (out / name).read_bytes() == (tmp_path / "undisturbed" / name).read_bytes()


def test_parquet_is_the_same_byte_for_byte(tmp_path, images, backbone):
    found = find_images(images, prefix="val")
    places = []
    for out in ("a", "b"):
        wanted = Extraction("val", "x", tmp_path / out, form="parquet")
        places.append(extract(wanted, found, backbone, tmp_path / "data").place)
    assert places[0].read_bytes() == places[1].read_bytes()


@pytest.fixture
def begun(tmp_path, images, backbone, monkeypatch):
    """An extraction that stopped after its third part."""
    wanted = Extraction("val", "x", tmp_path / "out", batch_size=2)
    found = find_images(images, prefix="val")
    write = Parts.write

    def interrupted(self, k, part):
        if k == 3:
            raise KeyboardInterrupt
        write(self, k, part)

    monkeypatch.setattr(Parts, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        extract(wanted, found, backbone, tmp_path / "data", chunk=4)
    monkeypatch.undo()
    return wanted, found


def test_it_goes_on_at_the_first_missing_part_and_repairs_damaged_ones(begun, backbone, tmp_path):
    wanted, found = begun
    (wanted.folder / "part-000001.npz").write_bytes(b"damaged")
    report = extract(wanted, found, backbone, tmp_path / "data", chunk=4)
    assert (report.n_images, report.n_new) == (24, 16)
    files = [path.removeprefix("val/") for path in pd.read_csv(report.place).path]
    assert files == found.files


def test_changed_settings_or_images_do_not_mix(begun, backbone, tmp_path):
    wanted, found = begun
    other = open_backbone(MODEL, random_seed=1, device="cpu")
    with pytest.raises(ExtractionChanged, match="weights_sha256"):
        extract(wanted, found, other, tmp_path / "data", chunk=4)
    fewer = find_images(paint(tmp_path / "other", 3), prefix="val")
    with pytest.raises(ExtractionChanged, match=r"images_sha256.*n_images_listed: 24 → 9"):
        extract(wanted, fewer, backbone, tmp_path / "data", chunk=4)
    again = Extraction("val", "x", tmp_path / "out", batch_size=2, restart=True)
    assert extract(again, fewer, backbone, tmp_path / "data", chunk=4).n_new == 9


HOLD = """
import sys
from pathlib import Path
from service.extraction.parts import Parts
with Parts(Path(sys.argv[2]), 24, 4).held({}, restart=False):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_two_processes_do_not_share_one_folder(begun, backbone, tmp_path):
    wanted, found = begun
    with process("", wanted.folder, HOLD) as other:
        assert other.stdout.readline() == "held\n", other.stderr.read()
        with pytest.raises(InUse, match="another process"):
            extract(wanted, found, backbone, tmp_path / "data", chunk=4)
        other.communicate("")
    assert extract(wanted, found, backbone, tmp_path / "data", chunk=4).n_new == 12


def test_a_part_that_vanishes_is_said(begun, backbone, tmp_path, monkeypatch):
    wanted, found = begun
    monkeypatch.setattr(Parts, "missing", lambda _self: [])
    with pytest.raises(ExtractionChanged, match="Start the same command again"):
        extract(wanted, found, backbone, tmp_path / "data", chunk=4)


def test_a_kill_while_the_parts_are_removed_costs_nothing(begun, backbone, tmp_path, monkeypatch):
    wanted, found = begun
    monkeypatch.setattr(parts.shutil, "rmtree", lambda *_a, **_k: None)
    extract(wanted, found, backbone, tmp_path / "data", chunk=4)
    assert list(wanted.out.glob(".gone*"))
    monkeypatch.undo()
    assert extract(wanted, found, backbone, tmp_path / "data", chunk=4).n_new == 0
    assert not list(wanted.out.glob(".*"))


def test_paths_with_commas_and_quotes_load(run, tmp_path):
    paint(tmp_path / "val", 1, names=("a, b", 'c "d"', "e\nf"))
    run("--images", tmp_path / "val")
    file = tmp_path / "out" / f"val_{NAME}.csv"
    assert pd.read_csv(file).path.tolist() == [
        "val/a, b/000.png", 'val/c "d"/000.png', "val/e\nf/000.png",
    ]  # fmt: skip
    assert cli.main(["load", str(file)]) == 0


def test_parquet_groups_rows(tmp_path, images):
    import pyarrow.parquet as pq

    from service.extraction import feature_file
    from service.extraction.parts import Part

    n = 3 * feature_file._GROUP_ROWS // 2
    found = find_images(images, prefix="v")
    some = Part(np.zeros(n // 3, np.int64), np.ones((n // 3, 2), np.float32), [])
    file = tmp_path / "x.parquet"
    feature_file.write_features(file, [some] * 3, found, ending=".parquet", n_features=2)
    assert pq.ParquetFile(file).metadata.num_rows == n
    assert pq.ParquetFile(file).metadata.num_row_groups == 2
