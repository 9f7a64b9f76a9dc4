"""A full or faulty disk under a load: refused in words, the old database stays, nothing is left.

The n-th write fails by a shim in C that is compiled where there is a compiler and preloaded into a
load of its own; a limit on file sizes and a small file system of its own need no compiler.
"""

import errno
import hashlib
import os
import shutil
import subprocess
import sys
import textwrap
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest

import etl
from etl.database import DATABASE, check_room
from tests.e2e.loading import ROOT, content, start, write_features
from tests.faults.sheet import tree

SHIM = Path(__file__).with_name("faulty_disk.c")
CODES = {errno.ENOSPC: "disk_full", errno.EIO: "disk_fault"}


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Features for a new load, an old data folder, and what both hold."""
    folder = tmp_path_factory.mktemp("disk")
    old = write_features(folder / "old", 1, n_rows=60)
    new = write_features(folder / "new", 2, n_rows=900)
    etl.load(folder / "data", [old])
    etl.load(folder / "fresh", [new])
    return new, folder / "data", content(folder / "data"), content(folder / "fresh")


@pytest.fixture(scope="module")
def shim(tmp_path_factory):
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if sys.platform != "linux" or compiler is None:
        pytest.skip("a shim that lets writes fail needs Linux and a C compiler")
    library = tmp_path_factory.mktemp("shim") / "faulty_disk.so"
    built = subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", "-o", library, SHIM, "-ldl"], capture_output=True
    )
    if built.returncode:
        pytest.skip("the compiler that is here does not build a shared library")
    return library


def load_on_faulty_disk(two, shim, tmp_path, calls, at=0, number=0, n_calls=1, reads=None):
    """Load onto a disk whose calls number `at` and after fail.

    Returns
    -------
    outcome
        First words that the load said after "begin".
    n_calls
        How many such calls it made.
    data
        The data folder.
    """
    features, old = two[:2]
    data = tmp_path / "data"
    shutil.rmtree(data, ignore_errors=True)
    shutil.copytree(old, data)
    before = tree(data)
    environment = {
        "LD_PRELOAD": str(shim), "FAULT_FOLDER": str(reads or data), "FAULT_CALLS": calls,
        "FAULT_AT": str(at), "FAULT_ERRNO": str(number), "FAULT_FOR": str(n_calls),
        "FAULT_COUNT": str(tmp_path / "count"),
    }  # fmt: skip
    with start(data, features, environment) as load:
        out, err = load.communicate(timeout=120)
    said = out.splitlines()[1].split() if len(out.splitlines()) > 1 else ["crash", err[-2_000:]]
    if said[0] == "end":
        assert content(data) == two[3]
        assert set(tree(data)) == set(before)
    else:
        assert tree(data) == before, said
    return said, int((tmp_path / "count").read_text()), data


def fail_at_random_calls(two, shim, tmp_path, calls, n_runs, seed, count, reads=None):
    """Let random calls of a load fail, once or from there on; hold the outcome."""
    rng = np.random.default_rng(seed)
    moments = (np.arange(n_runs) + rng.random(n_runs)) / n_runs
    moments[-1] = 1 - 1e-9  # the very last call is where a careless load has published already
    outcomes = []
    for i, moment in enumerate(moments):
        at = 1 + int(moment * count[calls])
        # what makes a sync fail DuckDB does not say: that is a fault of the disk, whatever it was
        number = errno.ENOSPC if calls == "write" and i % 2 else errno.EIO
        lasting = 1 << 30 if i % 4 < 2 else 1
        said, _, _ = load_on_faulty_disk(
            two, shim, tmp_path, calls, at, number, lasting, reads=reads
        )
        # a call that may fail without harm, as the last one on the folder, lets the load end well
        assert said[:2] == ["refused", CODES[number]] or said == ["end"], (at, count, said)
        outcomes.append(said[0])
    return outcomes


@pytest.fixture(scope="module")
def count(two, shim, tmp_path_factory):
    """How many calls of each kind an undisturbed load makes."""
    folder, found = tmp_path_factory.mktemp("count"), {}
    for calls in ("write", "sync", "read"):
        reads = two[0] if calls == "read" else None
        said, found[calls], _ = load_on_faulty_disk(two, shim, folder, calls, reads=reads)
        assert said == ["end"]
        assert found[calls] >= 4
    return found


@pytest.mark.parametrize("calls", ["write", "sync"])
def test_the_nth_write_fails(two, shim, tmp_path, count, calls, record_property):
    outcomes = fail_at_random_calls(two, shim, tmp_path, calls, 4, 0, count)
    assert outcomes.count("refused") >= 3
    record_property("fault", [f"nth {calls}", "ENOSPC, EIO at the nth write: refused", 4])


@pytest.mark.slow
@pytest.mark.parametrize(("calls", "n_runs"), [("write", 50), ("sync", 20)])
def test_many_writes_fail(two, shim, tmp_path, count, calls, n_runs, record_property):
    outcomes = fail_at_random_calls(two, shim, tmp_path, calls, n_runs, 1, count)
    assert outcomes.count("refused") >= 0.8 * n_runs
    record_property("fault", [f"nth {calls}", "ENOSPC, EIO at the nth write: refused", n_runs])


def test_the_nth_read_of_a_feature_file_fails(two, shim, tmp_path, count, record_property):
    outcomes = fail_at_random_calls(two, shim, tmp_path, "read", 4, 2, count, reads=two[0])
    assert set(outcomes) == {"refused"}
    record_property("fault", ["nth read", "EIO at the nth read: refused", 4])


def test_a_read_that_fails_names_its_file(two, shim, tmp_path, count):
    said, _, _ = load_on_faulty_disk(
        two, shim, tmp_path, "read", count["read"] // 2, errno.EIO, 1, reads=two[0]
    )
    assert said[:2] == ["refused", "disk_fault"]
    assert said[2] in {file.name for file in two[0].iterdir()}


def test_a_limit_on_file_sizes_is_a_full_disk(two, tmp_path):
    features, old = two[:2]
    data = tmp_path / "data"
    shutil.copytree(old, data)
    before = tree(data)
    limited = textwrap.dedent(
        """
        import resource, sys
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))
        from tests.e2e.loading import main
        sys.exit(main())
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", limited, data, features], cwd=ROOT, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)}, timeout=120,
    )  # fmt: skip
    assert "refused disk_full" in done.stdout, done.stdout + done.stderr
    assert tree(data) == before


def test_a_small_file_system_fills_up(two, tmp_path):
    features, old = two[:2]
    size = sum(file.stat().st_size for file in old.rglob("*") if file.is_file())
    data = tmp_path / "data"
    data.mkdir()
    script = textwrap.dedent(
        f"""
        mount -t tmpfs -o size={size + (1 << 20)} none {data} || exit 77
        cp -r {old}/. {data}
        {sys.executable} -m tests.e2e.loading {data} {features}
        cp -r {data}/. {tmp_path}/after
        """
    )
    if shutil.which("unshare") is None:
        pytest.skip("a file system of its own needs the command unshare")
    done = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", script], cwd=ROOT,
        capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}, timeout=120,
    )  # fmt: skip
    if done.returncode == 77 or "begin" not in done.stdout:
        pytest.skip("mounting a file system of its own is not permitted here")
    assert "refused disk_full" in done.stdout, done.stdout + done.stderr
    assert tree(tmp_path / "after") == tree(old)


def test_far_too_little_room_is_refused_before_anything_is_read(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9 - 10**6, 10**6))
    check_room(tmp_path, 4 * 10**6)
    with pytest.raises(etl.LoadRefused, match="1,000,000 bytes of free space") as refused:
        check_room(tmp_path, 6 * 10**6)
    assert refused.value.code == "disk_full"


def test_a_data_folder_that_cannot_be_made_is_refused(two, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(etl.LoadRefused) as refused:
        etl.load(tmp_path / "file" / "data", [two[0]])
    assert refused.value.code == "disk_fault"


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not bind the superuser")
def test_a_data_folder_without_permission_is_refused(two, tmp_path):
    shutil.copytree(two[1], tmp_path / "data")
    (tmp_path / "data").chmod(0o500)
    with pytest.raises(etl.LoadRefused) as refused:
        etl.load(tmp_path / "data", [two[0]])
    assert refused.value.code == "disk_fault"


@pytest.mark.parametrize("damage", ["cut", "head", "body", "other"])
def test_a_damaged_database_is_refused_and_can_be_replaced(two, tmp_path, damage):
    """Damage may hide in a block that is read only when the kept rows are copied."""
    shutil.copytree(two[1], tmp_path / "data")
    database = tmp_path / "data" / DATABASE
    whole = database.read_bytes()
    if damage == "cut":
        database.write_bytes(whole[: len(whole) // 2])
    elif damage == "other":
        database.write_bytes(b"not a database at all" * 100)
    else:
        at = 4_096 if damage == "head" else len(whole) // 3
        turned = bytes(byte ^ 255 for byte in whole[at : at + 8_192])
        database.write_bytes(whole[:at] + turned + whole[at + 8_192 :])
    damaged = hashlib.sha256(database.read_bytes()).hexdigest()
    for file in (two[0]).glob("val_*.csv"):
        shutil.copy(file, tmp_path / file.name.replace("val", "extra"))
    try:
        etl.load(tmp_path / "data", [tmp_path / "extra_narrow.csv"])
        assert damage == "body"
    except etl.LoadRefused as error:
        assert error.code in ("load_refused", "disk_fault")  # noqa: PT017
        assert "--replace" in str(error)  # noqa: PT017
        assert hashlib.sha256(database.read_bytes()).hexdigest() == damaged
    etl.load(tmp_path / "data", [two[0]], replace=True)
    assert content(tmp_path / "data") == two[3]
    assert not list((tmp_path / "data").glob(".staging*"))
