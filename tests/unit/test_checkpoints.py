"""What a training keeps on its way: whole or not at all, and never in its way."""

import os
import time

import numpy as np
import pytest

from service import checkpoints
from service.checkpoints import Checkpoints

REQUEST = {"backbone": "toy", "head": "lda", "params": {}, "seed": 0}
ARRAYS = {
    "weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "turned": np.arange(6.0).reshape(2, 3).T,
    "step": np.array(7),
    "is_done": np.array([True, False]),
    "none": np.empty((0, 4)),
}


@pytest.fixture
def notes():
    return []


@pytest.fixture
def kept(tmp_path, notes):
    return Checkpoints(tmp_path).of(REQUEST, ["a"], notes.append)


def files(data):
    return sorted(file for file in data.rglob("*") if file.is_file())


def test_what_was_put_is_given_back_bit_for_bit(kept, notes, tmp_path):
    assert not kept.is_there
    assert kept.get("fold 1") is None
    kept.put("fold 1", ARRAYS)
    kept.put("fold 1", ARRAYS)
    assert kept.is_there
    found = kept.get("fold 1")
    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(found[name], array)
    assert len(files(tmp_path)) == 1
    assert notes == []


def test_another_request_other_rows_and_other_code_find_nothing(kept, tmp_path, monkeypatch):
    kept.put("k", ARRAYS)
    of = Checkpoints(tmp_path).of
    assert of(dict(reversed(REQUEST.items())), ["a"], print).get("k") is not None
    assert of({**REQUEST, "seed": 1}, ["a"], print).get("k") is None
    assert of(REQUEST, ["b"], print).get("k") is None
    monkeypatch.setattr(checkpoints, "_code", lambda: "other")
    assert of(REQUEST, ["a"], print).get("k") is None


@pytest.mark.parametrize("key", ["../../evil", "a/b", "", "." * 300, "ä\0\n", "K", "k"])
def test_any_key_is_a_file_inside(kept, key, tmp_path):
    kept.put("k", {"x": np.zeros(1)})
    kept.put(key, ARRAYS)
    assert kept.get(key).keys() == ARRAYS.keys()
    (folder,) = {file.parent for file in files(tmp_path)}
    assert folder.parent == tmp_path / "checkpoints"
    assert (kept.get("k").keys() == {"x"}) == (key != "k")


def test_damage_is_as_if_there_were_nothing(kept, tmp_path):
    kept.put("k", ARRAYS)
    (file,) = files(tmp_path)
    whole = file.read_bytes()
    rng = np.random.default_rng(0)
    for n in rng.integers(0, len(whole), 40):
        for broken in (
            whole[:n],
            whole[:n] + bytes([whole[n] ^ 1]) + whole[n + 1 :],
            whole[:n] + rng.bytes(8) + whole[n + 8 :],
        ):
            file.write_bytes(broken)
            assert kept.get("k") is None, n
    kept.put("other", ARRAYS)
    other = next(f for f in files(tmp_path) if f != file)
    file.write_bytes(other.read_bytes())  # whole, but another key's
    assert kept.get("k") is None
    kept.put("k", ARRAYS)
    assert kept.get("k") is not None


def test_beyond_the_limit_nothing_more_is_kept_and_said_once(kept, notes, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "LIMIT_BYTES", 3000)
    big = {"x": np.zeros(200)}
    other = Checkpoints(tmp_path).of({**REQUEST, "seed": 9}, ["a"], print)
    other.put("theirs", big)
    kept.put("a", {"x": np.zeros(10)})
    kept.put("b", big)
    kept.put("c", {"x": np.zeros(1)})
    assert kept.get("a") is not None
    assert kept.get("b") is None
    assert kept.get("c") is None
    assert len(notes) == 1
    assert "goes on without" in notes[0]


def test_a_full_disk_is_a_note(kept, notes, tmp_path, monkeypatch):
    def full(_arrays, file, _metadata):
        file.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints, "save_file", full)
    kept.put("a", ARRAYS)
    assert notes == [
        "training goes on without further checkpoints: [Errno 28] No space left on device"
    ]
    assert files(tmp_path) == []


def test_a_folder_that_cannot_be_made_is_a_note(tmp_path, notes):
    (tmp_path / "checkpoints").write_text("a file in its place")
    kept = Checkpoints(tmp_path).of(REQUEST, ["a"], notes.append)
    kept.put("a", ARRAYS)
    assert len(notes) == 1
    assert kept.get("a") is None


def test_all_is_removed_when_the_model_is_there_and_after_seven_days(kept, tmp_path):
    kept.put("a", ARRAYS)
    other = Checkpoints(tmp_path).of(REQUEST, ["b"], print)
    other.put("a", ARRAYS)
    kept.remove()
    kept.remove()
    assert kept.get("a") is None
    folder = files(tmp_path)[0].parent
    Checkpoints(tmp_path).sweep()
    assert other.is_there
    week = time.time() - checkpoints.KEPT_S - 60
    os.utime(folder, (week, week))
    Checkpoints(tmp_path).sweep()
    assert not other.is_there
    Checkpoints(tmp_path / "none").sweep()
