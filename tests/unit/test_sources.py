import tarfile
import zipfile
from contextlib import nullcontext
from pathlib import Path

import pytest

from etl.errors import ArchiveMember, NotCsv, SourceName, SourceNotFound
from etl.sources import (
    Source,
    choose_reference,
    default_reference,
    find_sources,
    parse_name,
    refuse_names_alike,
)


@pytest.mark.parametrize(
    ("name", "split", "backbone"),
    [
        ("train_eva02_large_patch14_448.mim_m38m_ft_in22k_in1k.csv", "train",
         "eva02_large_patch14_448.mim_m38m_ft_in22k_in1k"),
        ("val_efficientformerv2_s0.snap_dist_in1k.csv", "val",
         "efficientformerv2_s0.snap_dist_in1k"),
        ("testv2_efficientformerv2_s0.snap_dist_in1k.csv", "v2",
         "efficientformerv2_s0.snap_dist_in1k"),
        ("v2_x.CSV", "v2", "x"),
        ("test_2_lite0.csv", "test_2", "lite0"),
        ("test1_lite0.csv", "test1", "lite0"),
    ],
)  # fmt: skip
def test_a_file_name_tells_split_and_backbone(name, split, backbone):
    assert parse_name(name) == (split, backbone)


@pytest.mark.parametrize(
    "name", ["classes.csv", "train_x.txt", "_x.csv", "train_.csv", "val_x.classes.csv"]
)
def test_other_names_tell_nothing(name):
    assert parse_name(name) is None


def test_a_folder_passes_over_what_is_not_named_so(tmp_path):
    for name in ("val_x.csv", "classes.csv", "val_x.classes.csv"):
        (tmp_path / name).touch()
    sources, notes = find_sources([tmp_path])
    assert [(s.split, s.backbone, s.role) for s in sources] == [("val", "x", "test")]
    assert "classes.csv ignored" in notes[0]
    assert "val_x.classes.csv holds class names: give it as --classes" in notes[1]
    _, notes = find_sources([tmp_path], classes=tmp_path / "classes.csv")
    assert len(notes) == 1  # what is given as --classes was not passed over


def test_archives_in_a_folder_are_looked_into(tmp_path):
    for name, member in (("all.zip", "val_x.csv"), ("other.zip", "readme.csv")):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr(member, "path,label,0\n")
    sources, notes = find_sources([tmp_path])
    assert [source.name for source in sources] == [f"{tmp_path.resolve()}/all.zip::val_x.csv"]
    assert len(notes) == 1
    assert notes[0].startswith("other.zip ignored: ")


def test_an_option_is_of_one_feature_file(tmp_path):
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        for member in ("val_x.csv", "v2_x.csv"):
            archive.writestr(member, "path,label,0\n")
    with pytest.raises(ArchiveMember, match="one feature file in the archive, for --split val"):
        find_sources([], [f"val:x={tmp_path}/two.zip"])
    with pytest.raises(NotCsv, match="Export the sheet as CSV"):
        find_sources([], [f"val:x={tmp_path}/sheet.xlsx"])


def test_an_option_names_split_and_backbone(tmp_path):
    sources, _ = find_sources([], [f"photo:lite0={tmp_path}/a.csv", f"art={tmp_path}/test2_b.csv"])
    assert [(s.split, s.backbone) for s in sources] == [("photo", "lite0"), ("art", "b")]


@pytest.mark.parametrize("option", ["val", "val:x", "=f.csv", "val=f.csv"])
def test_an_option_that_names_no_backbone_is_refused(option):
    with pytest.raises(SourceName):
        find_sources([], [option])


def test_one_part_cannot_come_from_two_files(tmp_path):
    (tmp_path / "val_x.csv").touch()
    with pytest.raises(SourceName, match="one file for split 'val'"):
        find_sources([tmp_path], ["val:x=other.csv"])


@pytest.mark.parametrize(
    ("new", "kept", "said"),
    [
        (["Net", "net"], [], "capital letters"),
        (["net"], ["NET"], "'NET' and 'net'"),
        (["a", "b", "a+b"], [], "'a[+]b' beside its parts"),
        (["b"], ["a", "a+b"], "'a[+]b' beside its parts"),
        (["a", "a+b"], [], None),
        (["net", "net2"], ["network"], None),
    ],
)
def test_e05_no_backbone_is_taken_for_another(new, kept, said):
    """DuckDB's names know no capital letters: `net` would be read from the table of `Net`."""
    sources = [Source("val", name, Path(f"val_{name}.csv")) for name in new]
    with pytest.raises(SourceName, match=said) if said else nullcontext():
        refuse_names_alike(sources, kept)


KINDS = (
    "(.csv, .csv.gz, .csv.zst, .parquet, .npy, .npz, .safetensors, or a .zip or .tar.gz of CSVs)"
)
PACK = "Pack the CSV file itself (no archive inside an archive), under such a name."
UNNAMED = "a file named <split>_<backbone>.csv in the archive"


@pytest.fixture
def places(tmp_path, monkeypatch):
    """A folder with one of everything that is refused; the tests stand in it."""

    def packed(name, *members):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            for member in members:
                archive.writestr(member, "path,label,0\n")

    (tmp_path / "empty").mkdir()
    for name in ("mine.csv", "val_x.csv", "sheet.xlsx", "picture.png"):
        (tmp_path / name).touch()
    packed("twice.zip", "a/val_x.csv", "b/val_x.csv")
    packed("none.zip", "readme.txt")
    packed("other.zip", "one.csv", "__MACOSX/._val_x.csv", "two.csv")
    packed("two.zip", "val_x.csv", "v2_x.csv")
    packed("v2_y.zip", "deep\\one.csv")
    with tarfile.open(tmp_path / "linked.tar", "w") as archive:
        entry = tarfile.TarInfo("val_x.csv")
        entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(entry)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("place", "option", "kind", "words"),
    [
        ("empty", None, SourceNotFound,
         f"empty: wanted a folder with files named <split>_<backbone> {KINDS}, got no such file in "
         "it. Name the folder that holds the feature files, or one file: --split NAME=FILE."),
        ("nowhere", None, SourceNotFound,
         "nowhere: wanted a feature file or a folder of them, got nothing there. Check the path."),
        ("mine.csv", None, SourceName,
         "mine.csv: wanted a name like val_eva02.csv (<split>_<backbone>.csv), got mine.csv. "
         "Rename it, or say it: --split NAME:BACKBONE=mine.csv."),
        ("picture.png", None, NotCsv,
         f"picture.png: wanted a feature file {KINDS}, got a file called picture.png. Write it as "
         "CSV, and load that."),
        ("twice.zip", None, ArchiveMember,
         "twice.zip: wanted each feature file once in the archive, got 'val_x.csv' twice. Pack the "
         "right one alone."),
        ("none.zip", None, ArchiveMember,
         f"none.zip: wanted {UNNAMED}, got none that ends in .csv. {PACK}"),
        ("other.zip", None, ArchiveMember,
         f"other.zip: wanted {UNNAMED}, got 'one.csv', 'two.csv'. {PACK}"),
        ("linked.tar", None, ArchiveMember,
         "linked.tar: wanted plain files in the archive, got 'val_x.csv', which is a link or a "
         "device. Pack the file itself, without a password."),
        (None, "val", SourceName,
         "wanted --split NAME[:BACKBONE]=FILE, got --split val. For example --split "
         "val:eva02=f.csv."),
        (None, "val=mine.csv", SourceName,
         "mine.csv: wanted the backbone of this file, got neither a name in --split val=mine.csv "
         "nor one in the file's name. Say it: --split val:BACKBONE=mine.csv."),
        (None, "val:x=sheet.xlsx", NotCsv,
         f"sheet.xlsx: wanted a feature file {KINDS}, got a file called sheet.xlsx. Export the "
         "sheet as CSV, and load that."),
        (None, "val:x=two.zip", ArchiveMember,
         "two.zip: wanted one feature file in the archive, for --split val, got 2. Name the "
         "archive without --split: its members are loaded by their names."),
        ("val_x.csv", "val:x=mine.csv", SourceName,
         "wanted one file for split 'val' of backbone 'x', got {0}/val_x.csv and {0}/mine.csv. "
         "Name one of them, or give the other another split: --split NAME:BACKBONE=FILE."),
    ],
)  # fmt: skip
def test_a_refusal_says_what_was_wanted_what_came_and_what_to_do(
    places, place, option, kind, words
):
    with pytest.raises(kind) as refused:
        find_sources([Path(place)] if place else [], [option] if option else [])
    assert str(refused.value) == words.format(places.resolve())


def test_what_a_folder_passes_over_is_named(places):
    for name in ("twice.zip", "two.zip", "linked.tar"):
        (places / name).unlink()
    sources, notes = find_sources([places])
    assert [(s.split, s.backbone, s.member) for s in sources] == [
        ("v2", "y", "deep\\one.csv"), ("val", "x", None),
    ]  # fmt: skip
    assert notes == [
        "mine.csv ignored: its name is not <split>_<backbone>.csv",
        f"none.zip ignored: {places}/none.zip: wanted {UNNAMED}, got none that ends in .csv. "
        f"{PACK}",
        f"other.zip ignored: {places}/other.zip: wanted {UNNAMED}, got 'one.csv', 'two.csv'. "
        f"{PACK}",
    ]


@pytest.mark.parametrize(
    ("asked", "before", "chosen"),
    [(None, None, "val"), (None, "v2", "v2"), (None, "gone", "val"), ("v2", "val", "v2")],
)
def test_the_reference_is_the_one_asked_for_now_or_before(asked, before, chosen):
    assert choose_reference(["train", "v2", "val"], asked, before) == chosen


@pytest.mark.parametrize(("splits", "here"), [(["train", "v2", "val"], "v2, val"), ([], "none")])
def test_a_reference_is_a_test_split(splits, here):
    with pytest.raises(SourceName) as refused:
        choose_reference(splits, "train", None)
    assert str(refused.value) == (
        f"wanted a test split as --reference (here: {here}), got train. Name one of them."
    )


def test_absent_and_unnamed_files_are_refused(tmp_path):
    with pytest.raises(SourceNotFound):
        find_sources([tmp_path / "val_x.csv"])
    with pytest.raises(SourceNotFound, match="no such file in it"):
        find_sources([tmp_path])
    (tmp_path / "mine.csv").touch()
    with pytest.raises(SourceName, match="Rename it"):
        find_sources([tmp_path / "mine.csv"])


@pytest.mark.parametrize(
    ("tests", "reference"),
    [(["v2", "val"], "val"), (["test2", "test1"], "test1"), (["unseen", "seen"], "seen"),
     (["b", "a"], "b"), ([], None)],
)  # fmt: skip
def test_the_default_reference_never_goes_by_file_order(tests, reference):
    assert default_reference(tests) == reference
