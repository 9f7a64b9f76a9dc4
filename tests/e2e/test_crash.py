"""A load that is killed at any moment: the database is the old one or the new one, whole."""

import shutil
import signal
import time
from pathlib import Path

import duckdb
import numpy as np
import pytest

import etl
from etl.database import DATABASE, attach
from tests.e2e.loading import content, start, write_features


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Two sets of features, and for each a data folder with it and what is in it."""
    folder = tmp_path_factory.mktemp("crash")
    worlds = []
    for seed in (1, 2):
        features = write_features(folder / f"features{seed}", seed)
        etl.load(folder / f"data{seed}", [features], n_threads=2)
        worlds.append((features, folder / f"data{seed}", content(folder / f"data{seed}")))
    return worlds


def files_in(data: Path) -> list[str]:
    return sorted(str(file.relative_to(data)) for file in data.rglob("*"))


def duration_s(data: Path, features: Path) -> float:
    """Seconds of an undisturbed load in a process of its own, imports left out."""
    with start(data, features) as load:
        assert load.stdout.readline() == "begin\n"
        began = time.monotonic()
        assert load.stdout.read() == "end\n"
        return time.monotonic() - began


def kill_at_random_moments(two, data: Path, n_kills: int, seed: int) -> tuple[int, int]:
    """Kill n loads that take turns in putting one world in the other's place, in one data folder.

    Returns
    -------
    n_old, n_new
        After how many kills the database was the one before, and the one that was being loaded.
    """
    rng = np.random.default_rng(seed)
    shutil.copytree(two[0][1], data)
    whole = files_in(data)
    lasts_s = duration_s(data, two[0][0])
    moments = rng.permutation((np.arange(n_kills) + rng.random(n_kills)) / n_kills) * 1.05
    present, n_new = 0, 0
    for i, moment in enumerate(moments):
        other = 1 - present
        with start(data, two[other][0]) as load:
            assert load.stdout.readline() == "begin\n"
            time.sleep(float(moment) * lasts_s)
            load.send_signal(signal.SIGTERM if i % 4 == 3 else signal.SIGKILL)
        found = content(data)
        assert found in (two[present][2], two[other][2]), f"killed after {moment:.3f} of the load"
        if found == two[other][2]:
            present, n_new = other, n_new + 1
        # what one killed load can leave: the fresh file, its log, and the folder for spilling
        left = set(files_in(data)) - set(whole)
        assert len({name for name in left if "/" not in name}) <= 3
    etl.load(data, [two[1][0]], replace=True)
    assert content(data) == two[1][2]
    assert files_in(data) == whole
    return n_kills - n_new, n_new


def test_a_killed_load_leaves_the_old_database_or_the_new(two, tmp_path, record_property):
    n_old, n_new = kill_at_random_moments(two, tmp_path / "data", 8, seed=0)
    assert n_old >= 4
    record_property("fault", ["kill -9", "killed: old or new database, whole", n_old + n_new])


@pytest.mark.slow
def test_fifty_killed_loads(two, tmp_path, record_property):
    n_old, n_new = kill_at_random_moments(two, tmp_path / "data", 50, seed=1)
    assert n_old >= 25
    record_property("fault", ["kill -9", "killed: old or new database, whole", n_old + n_new])


def test_readers_see_the_old_database_or_the_new_while_it_is_published(two, tmp_path):
    """A service opens the file for each request, and may hold an answer open while it changes."""
    data = tmp_path / "data"
    shutil.copytree(two[0][1], data)
    held = duckdb.connect()
    attach(held, data)
    seen = []
    with start(data, two[1][0]) as load:
        while load.poll() is None:
            seen.append(content(data))
        assert load.stdout.read() == "begin\nend\n"
    seen.append(content(data))
    states = [two[0][2], two[1][2]]
    order = [states.index(found) for found in seen]
    assert order == sorted(order)
    assert order[0] == 0
    assert order[-1] == 1
    labels = held.execute("select sum(hash(path)) from image").fetchall()
    held.close()
    con = duckdb.connect(str(two[0][1] / DATABASE), read_only=True)
    assert labels == con.execute("select sum(hash(path)) from image").fetchall()
    con.close()
