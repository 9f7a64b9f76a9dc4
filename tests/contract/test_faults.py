"""Broken feature files, kind by kind, against the loader's door alone.

Each kind is a small function: it draws a good file, breaks it at one place and says what must come.
Its name begins with the id of the fault in the faults list (E01 …). Kinds run at first, middle and
last rows of files of random size, with and without path and index columns, in random column order,
over an old database that must stay as it is (`tests.faults.sheet.hold` sees to that). How many
kinds came out how is printed at the end of the run (tests/conftest.py).
"""

import zlib
from pathlib import Path

import numpy as np
import pytest

import etl
from tests.faults import cells, files, lines, rows
from tests.faults.sheet import KINDS, OLD_TEST, OLD_TRAIN, Case, Refused, hold
from tests.world import make_world, write_csv


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with a good small database; copied for each case."""
    folder = tmp_path_factory.mktemp("old")
    world = make_world()
    for name, split in ((OLD_TRAIN, "train"), (OLD_TEST, "val")):
        write_csv(folder / name, world[split, "toy"])
    etl.load(folder / "data", [folder / OLD_TRAIN, folder / OLD_TEST], n_threads=1)
    return folder / "data"


def outcome_of(case: Case) -> str:
    if isinstance(case.wanted, Refused):
        return "refused with its place"
    return "repaired and counted" if case.wanted.n_rejected else "accepted exactly"


@pytest.mark.parametrize("name", KINDS)
def test_fault(name, old, tmp_path, record_property):
    """At two of first, last and middle row (which two goes by the name); slow runs at one."""
    seed = zlib.crc32(name.encode())
    n_runs, n_done = 1, 0
    while n_done < n_runs:
        rng = np.random.default_rng([seed, n_done])
        at = (0.0, 1.0, float(rng.uniform(0.2, 0.8)))[(seed + n_done) % 3]
        case = KINDS[name](rng, at)
        if n_done == 0:
            is_small = sum(map(len, case.files.values())) < 1 << 20
            n_runs = 2 if is_small and isinstance(case.wanted, Refused) else 1
            record_property("fault", [name, outcome_of(case), n_runs])
        folder = tmp_path / str(n_done)
        folder.mkdir()
        hold(case, old, folder, rng)
        n_done += 1


def test_there_are_enough_kinds_in_each_part():
    parts = [function.__module__ for function in KINDS.values()]
    assert {module.__name__ for module in (cells, files, lines, rows)} == set(parts)
    assert len(parts) >= 200
