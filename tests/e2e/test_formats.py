"""One world in every format that a feature file may have: the same database comes out."""

import errno
import gzip
import hashlib
import io
import sys
import tarfile
import zipfile
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file

import etl.loader
import etl.streams
import etl.tables
from etl import LoadRefused, load
from etl.database import attach
from etl.sources import find_sources
from tests.world import write_csv

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


def frame(split):
    table = pd.DataFrame(split.features, columns=[str(j) for j in range(split.features.shape[1])])
    table.insert(0, "label", split.labels)
    table.insert(0, "path", split.paths)
    return table


def text(split):
    return frame(split).to_csv().encode()


def gz(folder, stem, split):
    (folder / f"{stem}.csv.gz").write_bytes(gzip.compress(text(split)))


def gz_members(folder, stem, split):
    lines = text(split).splitlines(keepends=True)
    packed = gzip.compress(b"".join(lines[:5])) + gzip.compress(b"".join(lines[5:]))
    (folder / f"{stem}.csv.gz").write_bytes(packed)


def zst(folder, stem, split):
    (folder / f"{stem}.csv.zst").write_bytes(zstd.compress(text(split)))


def zipped(folder, stem, split):
    with zipfile.ZipFile(folder / f"{stem}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"finetune/main/{stem}.csv", text(split))
        archive.writestr("finetune/main/README.txt", "features")
        archive.writestr(f"__MACOSX/finetune/main/._{stem}.csv", b"\0")


def tarred(folder, stem, split):
    with tarfile.open(folder / f"{stem}.tar.gz", "w:gz") as archive:
        for name, content in (("../notes.md", b"x"), (f"/abs/{stem}.csv", text(split))):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


def parquet(folder, stem, split):
    frame(split).to_parquet(folder / f"{stem}.parquet", index=True)


def parquet_lists(folder, stem, split):
    table = pa.table(
        {"path": split.paths, "label": split.labels, "vector": list(split.features.astype("f4"))}
    )
    pq.write_table(table, folder / f"{stem}.parquet", row_group_size=7)


def npy(folder, stem, split):
    np.save(folder / f"{stem}.npy", split.features.astype(np.float32))
    frame(split)[["label", "path"]].to_csv(folder / f"{stem}.labels.csv", index=False)


def npz(folder, stem, split):
    np.savez_compressed(
        folder / f"{stem}.npz",
        features=split.features, label=split.labels, path=np.array(split.paths),
    )  # fmt: skip


def safetensors(folder, stem, split):
    tensors = {"features": split.features.astype(np.float32), "label": split.labels}
    save_file(tensors, folder / f"{stem}.safetensors")
    frame(split)[["path", "label"]].to_csv(folder / f"{stem}.labels.csv", index=False)


FORMATS = [gz, gz_members, zst, zipped, tarred, parquet, parquet_lists, npy, npz]


def rows_of(data):
    con = duckdb.connect()
    attach(con, data)
    return con.execute(
        """select i.split, i.path, i.class_id, f.vector
        from feature.toy as f inner join image as i on f.image_id = i.image_id order by all"""
    ).fetchall()


@pytest.fixture(scope="module")
def wanted(tmp_path_factory, world):
    folder = tmp_path_factory.mktemp("plain")
    for split in ("train", "val", "v2"):
        write_csv(folder / f"{split}_toy.csv", world[split, "toy"])
    load(folder / "data", [folder])
    return rows_of(folder / "data")


@pytest.mark.parametrize("write", FORMATS)
def test_every_format_gives_the_same_rows(tmp_path, world, wanted, write):
    for split in ("train", "val", "v2"):
        write(tmp_path, f"{split}_toy", world[split, "toy"])
    report = load(tmp_path / "data", [tmp_path])
    assert rows_of(tmp_path / "data") == wanted
    assert [part.n_rows_read for part in report.loaded] == [48, 15, 20]
    for part in report.loaded:
        packed = Path(part.file.partition("::")[0]).read_bytes()
        assert part.sha256 == hashlib.sha256(packed).hexdigest()
    assert len(load(tmp_path / "data", [tmp_path]).kept) == 3


def test_safetensors_take_their_paths_from_the_table_beside_them(tmp_path, world):
    safetensors(tmp_path, "val_toy", world["val", "toy"])
    load(tmp_path / "data", [tmp_path])
    assert {row[1] for row in rows_of(tmp_path / "data")} == set(world["val", "toy"].paths)
    (tmp_path / "val_toy.labels.csv").unlink()
    load(tmp_path / "data", [tmp_path])
    assert {row[1] for row in rows_of(tmp_path / "data")} == {f"val/row-{i}" for i in range(20)}


def test_a_flipped_bit_of_a_checked_parquet_file_is_noticed(tmp_path, world):
    file = tmp_path / "val_toy.parquet"
    table = pa.Table.from_pandas(frame(world["val", "toy"]), preserve_index=False)
    pq.write_table(table, file, write_page_checksum=True, compression="none", use_dictionary=False)
    content = bytearray(file.read_bytes())
    place = content.index(world["val", "toy"].features[:, 0].astype(np.float32).tobytes())
    content[place + 1] ^= 1
    file.write_bytes(content)
    with pytest.raises(LoadRefused) as refused:
        load(tmp_path / "data", [file])
    assert refused.value.code == "damaged_archive"


def test_one_archive_may_hold_all_splits(tmp_path, world, wanted):
    with zipfile.ZipFile(tmp_path / "features.zip", "w") as archive:
        for split in ("train", "val", "v2"):
            archive.writestr(f"{split}_toy.csv", text(world[split, "toy"]))
    report = load(tmp_path / "data", [tmp_path / "features.zip"])
    assert rows_of(tmp_path / "data") == wanted
    assert report.loaded[0].file.endswith("features.zip::train_toy.csv")


def test_an_archive_may_name_what_its_only_member_does_not(tmp_path, world):
    with zipfile.ZipFile(tmp_path / "val_toy.zip", "w") as archive:
        archive.writestr("features.csv", text(world["val", "toy"]))
    assert load(tmp_path / "data", [tmp_path / "val_toy.zip"]).loaded[0].split == "val"
    other = load(tmp_path / "other", [], explicit=[f"v2:toy={tmp_path / 'val_toy.zip'}"])
    assert other.loaded[0].split == "v2"


def cut(content):
    return content[: len(content) // 2]


def flip(content):
    return content[:-6] + bytes([content[-6] ^ 1]) + content[-5:]


@pytest.mark.parametrize(
    ("write", "suffix", "damage"),
    [
        (gz, ".csv.gz", cut), (gz, ".csv.gz", flip), (gz, ".csv.gz", lambda c: c + b"garbage"),
        (gz, ".csv.gz", lambda c: c[:-1]), (zst, ".csv.zst", cut),
        (zst, ".csv.zst", lambda c: c[:-1]),
        (zipped, ".zip", cut), (tarred, ".tar.gz", cut), (tarred, ".tar.gz", flip),
        (parquet, ".parquet", cut), (npy, ".npy", cut), (npz, ".npz", cut),
        (safetensors, ".safetensors", cut),
        (safetensors, ".safetensors", lambda c: b"\xff" * 8 + c[8:]),
    ],
)  # fmt: skip
def test_a_damaged_file_is_refused_and_nothing_is_left(tmp_path, world, write, suffix, damage):
    write(tmp_path, "val_toy", world["val", "toy"])
    file = tmp_path / f"val_toy{suffix}"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(LoadRefused) as refused:
        load(tmp_path / "data", [file])
    assert refused.value.code == "damaged_archive"
    assert not [left for left in (tmp_path / "data").iterdir() if "duckdb" in left.name]


@pytest.mark.parametrize("suffix", [".csv.gz", ".csv.zst", ".zip", ".tar.gz"])
def test_a_bomb_is_stopped(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(etl.streams, "_RATIO_FROM", 1 << 20)
    bomb = b"path,label,0\n" + b"\n" * (20 << 20)
    file = tmp_path / f"val_x{suffix}"
    if suffix == ".csv.gz":
        file.write_bytes(gzip.compress(bomb))
    elif suffix == ".csv.zst":
        file.write_bytes(zstd.compress(bomb))
    elif suffix == ".zip":
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("val_x.csv", bomb)
    else:
        with tarfile.open(file, "w:gz") as archive:
            entry = tarfile.TarInfo("val_x.csv")
            entry.size = len(bomb)
            archive.addfile(entry, io.BytesIO(bomb))
    with pytest.raises(LoadRefused) as refused:
        load(tmp_path / "data", [file])
    assert refused.value.code == "archive_bomb"
    assert "200" in str(refused.value)


@pytest.mark.parametrize("write", [zipped, tarred])
@pytest.mark.parametrize("content", ["another archive", "cut"])
def test_e24_an_archive_that_was_exchanged_since_it_was_listed_is_refused(
    tmp_path, world, monkeypatch, write, content
):
    write(tmp_path, "val_toy", world["val", "toy"])
    (file,) = tmp_path.iterdir()
    found = find_sources([file])
    if content == "cut":
        file.write_bytes(cut(file.read_bytes()))
    else:
        write(tmp_path, "v2_toy", world["v2", "toy"])
        file.with_name(f"v2_toy{''.join(file.suffixes)}").rename(file)
    monkeypatch.setattr(etl.loader, "find_sources", lambda *_: found)
    with pytest.raises(LoadRefused) as refused:
        load(tmp_path / "data", [file])
    assert refused.value.code == "damaged_archive"
    assert not (tmp_path / "data" / "gap.duckdb").exists()


def test_e36_a_disk_that_fails_under_a_file_of_arrays_is_refused(tmp_path, world, monkeypatch):
    npz(tmp_path, "val_toy", world["val", "toy"])

    def faulty(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(etl.tables._NpyStream, "_read", faulty)
    with pytest.raises(LoadRefused, match="Input/output error") as refused:
        load(tmp_path / "data", [tmp_path])
    assert refused.value.code == "disk_fault"


def with_link(archive):
    entry = zipfile.ZipInfo("val_toy.csv")
    entry.external_attr = 0o120777 << 16
    archive.writestr(entry, "/etc/passwd")


def with_lock(archive):
    archive.writestr("val_toy.csv", "path,label,0\np,1,2\n")
    archive.filelist[0].flag_bits |= 1


@pytest.mark.parametrize(
    "fill",
    [
        with_link, with_lock, lambda a: a.writestr("inner.zip", b"PK"), lambda _a: None,
        lambda a: (a.writestr("a.csv", "x"), a.writestr("b.csv", "x")),
        lambda a: a.writestr("val_\x1b[2Jtoy.csv", "x") or a.writestr("val_toy\n.csv", "x"),
    ],
)  # fmt: skip
def test_an_archive_without_a_plain_feature_file_is_refused(tmp_path, fill):
    with zipfile.ZipFile(tmp_path / "val_toy.zip", "w") as archive:
        fill(archive)
    with pytest.raises(LoadRefused) as refused:
        load(tmp_path / "data", [tmp_path / "val_toy.zip"])
    assert refused.value.code == "archive_member"
    assert "\x1b" not in str(refused.value)


def changed(name, change):
    def write(folder, world):
        split = world["val", "toy"]
        if name == "parquet":
            table = frame(split)
            table = change(table)
            table.to_parquet(folder / "val_toy.parquet", index=False)
        else:
            arrays = {
                "features": split.features,
                "label": split.labels,
                "path": np.array(split.paths),
            }
            np.savez(folder / "val_toy.npz", **change(arrays))

    return write


@pytest.mark.parametrize(
    ("write", "code"),
    [
        (changed("parquet", lambda t: t.assign(label=t.label + 0.5)), "label_out_of_range"),
        (changed("parquet", lambda t: t.assign(label=-t.label - 1)), "label_out_of_range"),
        (
            changed("parquet", lambda t: t.assign(label=t.label.where(t.index != 3))),
            "label_out_of_range",
        ),
        (changed("parquet", lambda t: t.assign(path=t.path.where(t.index != 3))), "bad_path"),
        (changed("parquet", lambda t: t.assign(path=t.path.str.replace("/", "\x1b"))), "bad_path"),
        (changed("parquet", lambda t: t.assign(path=range(len(t)))), "bad_path"),
        (changed("parquet", lambda t: t.assign(path=t.path.astype("category"))), "bad_path"),
        (changed("parquet", lambda t: t.assign(lists=[[0.5]] * len(t))), "header_mismatch"),
        (changed("parquet", lambda t: t.assign(**{"1": t["1"].where(t.index != 3)})), "bad_number"),
        (changed("parquet", lambda t: t.assign(**{"1": 1e39})), "not_finite"),
        (changed("parquet", lambda t: t.assign(**{"1": "x"})), "bad_number"),
        (changed("parquet", lambda t: t.drop(columns="label")), "header_mismatch"),
        (changed("parquet", lambda t: t.iloc[:0]), "empty_file"),
        (changed("npz", lambda a: {**a, "label": a["label"][:-1]}), "row_count_mismatch"),
        (changed("npz", lambda a: {**a, "path": a["path"][:-1]}), "row_count_mismatch"),
        (changed("npz", lambda a: {**a, "features": a["features"][0]}), "dimension_mismatch"),
        (changed("npz", lambda a: {**a, "features": a["features"].astype(str)}), "bad_number"),
        (changed("npz", lambda a: {**a, "label": a["label"].astype(object)}), "damaged_archive"),
        (changed("npz", lambda a: {"features": a["features"]}), "source_not_found"),
    ],
)  # fmt: skip
def test_a_faulty_table_is_refused(tmp_path, world, write, code):
    write(tmp_path, world)
    with pytest.raises(LoadRefused) as refused:
        load(tmp_path / "data", [tmp_path])
    assert refused.value.code == code
    if "row" in str(refused.value.came) and code in ("not_finite",):
        assert refused.value.column == "1"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda text: text[: text.rindex("\n", 0, -1) + 1], "row_count_mismatch"),
        (lambda text: text.replace("label", "class", 1), "header_mismatch"),
    ],
)
def test_a_label_table_that_does_not_fit_is_refused(tmp_path, world, change, code):
    npy(tmp_path, "val_toy", world["val", "toy"])
    table = tmp_path / "val_toy.labels.csv"
    table.write_text(change(table.read_text()))
    with pytest.raises(LoadRefused) as refused:
        load(tmp_path / "data", [tmp_path])
    assert refused.value.code == code
