"""Places that are no feature files, files that change while they are read, broken class names."""

import gc
import os
import shutil
import subprocess
import sys
import textwrap
import zlib
from pathlib import Path

import numpy as np
import pytest

import etl
from tests.faults.sheet import Kept, Refused, good, hold_load, long, query, tree
from tests.world import make_world, write_csv

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    folder = tmp_path_factory.mktemp("old")
    etl.load(folder / "data", [write_csv(folder / "val_toy.csv", make_world()["val", "toy"])])
    return folder / "data"


@pytest.fixture
def data(old, tmp_path):
    return Path(shutil.copytree(old, tmp_path / "data"))


@pytest.fixture
def rng(request):
    return np.random.default_rng(zlib.crc32(request.node.name.encode()))


# --------------------------------------------------------------------------- what stands at a place


def e01_nothing(place: Path) -> str:
    return "source_not_found"


def e01_directory(place: Path) -> str:
    """A folder called x.csv is a folder: there is nothing to load in it."""
    place.mkdir()
    return "source_not_found"


def e34_fifo(place: Path) -> str:
    os.mkfifo(place)
    return "source_not_found"


def e34_link_to_nothing(place: Path) -> str:
    place.symlink_to("nowhere.csv")
    return "source_not_found"


def e34_link_to_itself(place: Path) -> str:
    place.symlink_to(place.name)
    return "source_not_found"


def e34_link_to_a_device(place: Path) -> str:
    place.symlink_to("/dev/zero")
    return "source_not_found"


def e34_link_to_a_folder(place: Path) -> str:
    (place.parent / "folder").mkdir()
    place.symlink_to("folder")
    return "source_not_found"


def e01_without_permission(place: Path) -> str:
    if os.geteuid() == 0:
        pytest.skip("permissions do not bind the superuser")
    place.write_text("label,0\n1,2.5\n")
    place.chmod(0)
    return "source_not_found"


PLACES = [
    e01_nothing, e01_directory, e34_fifo, e34_link_to_nothing, e34_link_to_itself,
    e34_link_to_a_device, e34_link_to_a_folder, e01_without_permission,
]  # fmt: skip


@pytest.mark.parametrize("named", ["as a file", "in a folder", "as an option"])
@pytest.mark.parametrize("kind", PLACES, ids=lambda kind: kind.__name__)
def test_what_is_no_feature_file(kind, named, data, tmp_path, record_property):
    folder = tmp_path / "features"
    folder.mkdir()
    place = folder / "v9_new.csv"
    code = kind(place)
    record_property("fault", [f"{kind.__name__} {named}", "refused with its place", 1])
    places, explicit = {
        "as a file": ([place], []),
        "in a folder": ([folder], []),
        "as an option": ([], [f"v9:new={place}"]),
    }[named]
    before = tree(data)
    with pytest.raises(etl.LoadRefused) as refused:
        etl.load(data, places, explicit=explicit)
    assert refused.value.code == code
    assert Path(refused.value.file).name in ("v9_new.csv", "features")
    assert str(refused.value).isprintable()
    assert tree(data) == before


def test_a_device_is_refused_at_once(data):
    for device in ("/dev/zero", "/dev/null"):
        with pytest.raises(etl.LoadRefused) as refused:
            etl.load(data, [], explicit=[f"v9:new={device}"])
        assert refused.value.code == "source_not_found"


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="no file that never can be read")
def test_a_file_that_cannot_be_read_is_named_and_closed(data, record_property):
    record_property("fault", ["e36_read_fails", "refused with its place", 1])
    with pytest.raises(etl.LoadRefused) as refused:
        etl.load(data, [], explicit=["v9:new=/proc/self/mem"])
    assert refused.value.code == "disk_fault"
    del refused
    gc.collect()  # a file left open is an error here, not in some test that comes later


def test_a_link_to_a_good_file_is_accepted(data, tmp_path, rng, record_property):
    record_property("fault", ["e34_accepts_a_link", "accepted exactly", 1])
    sheet = good(rng)
    (tmp_path / "elsewhere.txt").write_bytes(sheet.text())
    (tmp_path / "v9_new.csv").symlink_to("elsewhere.txt")
    hold_load(data, [tmp_path / "v9_new.csv"], Kept({("v9", "new"): sheet}))


def test_one_part_from_two_files_is_refused(data, tmp_path, rng):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "v9_new.csv").write_bytes(good(rng).text())
    hold_load(data, [tmp_path / "a", tmp_path / "b"], Refused("source_name", file=None))


# ------------------------------------------------------------ files that change while being read

CHANGES = {
    "e24_cut_in_a_row": "os.truncate(file, size // 3)",
    "e24_cut_at_a_row_end": "os.truncate(file, 1 + file.read_bytes().rindex(b'\\n', 0, size // 3))",
    "e24_emptied": "os.truncate(file, 0)",
    "e24_grown": "file.open('ab').write(b'0,more.png,1' + b',0.5' * 700 + b'\\n')",
    "e24_overwritten": "file.open('r+b').write(b',path,label')",
    "e24_touched": "os.utime(file, ns=(1, 1))",
}


@pytest.fixture(scope="module")
def big(tmp_path_factory):
    """40 MB: more than a reader has in hand when it reports its first progress."""
    file = tmp_path_factory.mktemp("big") / "v9_new.csv"
    sheet = long(np.random.default_rng(0))
    first, *rest = sheet.lines()
    with file.open("wb") as stream:
        stream.write(first)
        for repeat in range(4):
            stream.writelines(line.replace(b"img/", b"%d/" % repeat, 1) for line in rest)
    return file


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_changes_while_it_is_read(change, big, data, tmp_path, record_property):
    """In a process of its own: whoever maps a file into memory dies when it is cut."""
    record_property("fault", [change, "refused with its place", 1])
    file = Path(shutil.copy(big, tmp_path / "v9_new.csv"))
    before = tree(data)
    script = textwrap.dedent(
        f"""
        import os, sys
        from pathlib import Path
        import etl
        data, file = map(Path, sys.argv[1:])
        size, seen = file.stat().st_size, []

        def change(part, done, total):
            if not seen:
                seen.append(done)
                {CHANGES[change]}

        try:
            etl.load(data, [file], n_threads=1, progress=change)
        except etl.LoadRefused as error:
            print(error.code, Path(error.file).name, error.line)
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", script, data, file], cwd=ROOT, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)}, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, (done.returncode, done.stderr[-1_000:])
    assert done.stdout.split()[:2] == ["source_changed", "v9_new.csv"], done.stdout
    assert tree(data) == before


# -------------------------------------------------------------------------------------- class names

NAMES = {
    "names_latin_1": (b"label,name\n0,cat\n1,caf\xe9\n", "encoding", 3, None),
    "names_latin_1_plain": (b"cat\ncaf\xe9\n", "encoding", 2, None),
    "names_no_such_columns": (b"id,name\n0,cat\n", "header_mismatch", 1, None),
    "names_column_twice": (b"label,name,label\n0,cat,1\n", "header_mismatch", 1, None),
    "names_superclass_twice": (b"label,name,superclass,superclass\n", "header_mismatch", 1, None),
    "names_only_a_label": (b"label,name\n0,cat\n1\n", "ragged_row", 3, None),
    "names_comma_unquoted": (b"label,name\n0,tench, Tinca\n", "ragged_row", 2, None),
    "names_open_quote": (b'label,name\n0,cat\n1,"dog\n2,owl\n', "ragged_row", 3, None),
    "names_label_twice": (b"label,name\n0,cat\n0,dog\n", "label_out_of_range", 3, "label"),
    "names_label_text": (b"label,name\n0,cat\nx,dog\n", "label_out_of_range", 3, "label"),
    "names_label_float": (b"label,name\n0.0,cat\n", "label_out_of_range", 2, "label"),
    "names_label_huge": (b"label,name\n" + b"7" * 99 + b",a\n", "label_out_of_range", 2, "label"),
}  # fmt: skip


@pytest.mark.parametrize("kind", NAMES)
def test_broken_class_names(kind, data, tmp_path, rng, record_property):
    record_property("fault", [kind, "refused with its place", 1])
    text, code, line, column = NAMES[kind]
    names, file = tmp_path / "names.csv", tmp_path / "v9_new.csv"
    names.write_bytes(text)
    file.write_bytes(good(rng).text())
    hold_load(data, [file], Refused(code, line, column, "names.csv"), classes=names)


def test_class_names_of_any_kind_are_kept(data, tmp_path, rng):
    sheet = good(rng)
    names, file = tmp_path / "names.csv", tmp_path / "v9_new.csv"
    file.write_bytes(sheet.text())
    rows = ['0,"tench, Tinca"', '1,"say ""hi"""', '2,"two\nlines"', "3,größe\u2028x", "4, spaced "]
    names.write_text("label,name\n" + "\n".join(rows) + "\n\n", encoding="utf-8-sig")
    hold_load(data, [file], Kept({("v9", "new"): sheet}), classes=names, replace=True)
    assert query(data, "select class_name from class order by class_id") == [
        ("tench, Tinca",), ('say "hi"',), ("two\nlines",), ("größe\u2028x",), (" spaced ",)
    ]  # fmt: skip
