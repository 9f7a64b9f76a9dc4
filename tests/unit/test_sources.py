import zipfile
from contextlib import nullcontext
from pathlib import Path

import pytest

from etl.errors import ArchiveMember, NotCsv, SourceName, SourceNotFound
from etl.sources import (
    Source,
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
