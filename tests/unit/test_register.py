"""Records are only added; a changed one is found."""

import json
import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from service.errors import RecordChanged, RecordNotKept
from service.register import Register


def file_of(tmp_path):
    return tmp_path / "results" / "things.jsonl"


def test_records_come_back_in_order_and_the_chain_holds(tmp_path):
    register = Register(tmp_path, "things")
    added = [register.add("thing", {"number": i, "name": "é"}) for i in range(3)]
    assert register.all() == added
    assert [r.content["number"] for r in register.all()] == [0, 1, 2]
    assert register.broken() is None
    assert register.head() == added[-1].sha256
    assert added[1].previous == added[0].sha256


def test_nothing_is_there_before_the_first(tmp_path):
    register = Register(tmp_path, "things")
    assert register.all() == []
    assert register.broken() is None
    assert register.head() == "0" * 64


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda lines: [lines[0].replace('"number": 0', '"number": 7'), *lines[1:]], "line 1"),
        (lambda lines: [lines[0], lines[2]], "line 2"),
        (lambda lines: [lines[1], lines[0], lines[2]], "line 1"),
        (lambda lines: [*lines[:2], "{}"], "line 3"),
        (lambda lines: [*lines, "half a li"], "line 4"),
        (lambda lines: lines[:2], "1 of 3 records are gone"),
        (lambda _lines: [], "3 of 3 records are gone"),
    ],
    ids=["changed", "removed", "reordered", "emptied", "torn", "cut", "all gone"],
)
def test_a_changed_record_is_found_and_nothing_is_added_after_it(tmp_path, change, words):
    register = Register(tmp_path, "things")
    for i in range(3):
        register.add("thing", {"number": i})
    file = file_of(tmp_path)
    file.write_text("".join(f"{line}\n" for line in change(file.read_text().splitlines())))
    assert words in register.broken()
    with pytest.raises(RecordChanged, match=words):
        register.all()
    size = file.stat().st_size
    with pytest.raises(RecordChanged):
        register.add("thing", {"number": 3})
    assert file.stat().st_size == size


def test_what_cannot_be_written_is_refused_in_words(tmp_path):
    (tmp_path / "results").write_text("a file where the folder should be")
    with pytest.raises(RecordNotKept, match="Nothing was done"):
        Register(tmp_path, "things").add("thing", {})


def test_a_check_that_refuses_leaves_nothing(tmp_path):
    def refuse(records):
        raise RecordChanged("no")

    with pytest.raises(RecordChanged):
        Register(tmp_path, "things").add("thing", {}, check=refuse)
    assert Register(tmp_path, "things").all() == []


def test_a_register_that_is_deleted_is_missed(tmp_path):
    register = Register(tmp_path, "things")
    register.add("thing", {})
    file_of(tmp_path).unlink()
    assert "1 of 1" in register.broken()
    file_of(tmp_path).with_suffix(".head").write_text("{}")
    assert "damaged" in register.broken()


def test_a_record_whose_writer_was_killed_before_the_count_is_whole(tmp_path):
    register = Register(tmp_path, "things")
    head = file_of(tmp_path).with_suffix(".head")
    register.add("thing", {"number": 0})
    before = head.read_text()
    register.add("thing", {"number": 1})
    head.write_text(before)
    assert register.broken() is None
    register.add("thing", {"number": 2})
    assert len(register.all()) == 3
    head.unlink()
    assert "is gone" in register.broken()


def test_many_at_once_make_one_chain(tmp_path):
    def add(i):
        return Register(tmp_path, "things").add("thing", {"number": i})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(40)))
    found = Register(tmp_path, "things").all()
    assert sorted(r.content["number"] for r in found) == list(range(40))


def test_numbers_that_json_lacks_are_refused(tmp_path):
    with pytest.raises(ValueError, match="Out of range"):
        Register(tmp_path, "things").add("thing", {"x": float("nan")})
    assert file_of(tmp_path).read_text() == ""
    assert json.dumps(Register(tmp_path, "things").all()) == "[]"


def test_e29_a_half_written_record_is_none_and_the_next_takes_its_place(tmp_path):
    register = Register(tmp_path, "things")
    register.add("thing", {"number": 0})
    with file_of(tmp_path).open("a") as file:
        file.write('{"added_at": "2026-')
    assert len(register.all()) == 1
    register.add("thing", {"number": 1})
    assert [record.content["number"] for record in register.all()] == [0, 1]


def test_e29_a_record_whose_count_cannot_be_written_is_not_kept(tmp_path, monkeypatch):
    register = Register(tmp_path, "things")
    register.add("thing", {"number": 0})
    before = file_of(tmp_path).read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.replace", _full)
        with pytest.raises(RecordNotKept, match="Nothing was done"):
            register.add("thing", {"number": 1})
        assert file_of(tmp_path).read_bytes() == before
        patch.setattr("os.ftruncate", _full_at_second(os.ftruncate))
        with pytest.raises(RecordNotKept, match="It may be there all the same"):
            register.add("thing", {"number": 1})
    assert register.broken() is None


def _full(*_):
    raise OSError(28, "No space left on device")


def _full_at_second(real):
    calls = []

    def truncate(*arguments):
        calls.append(arguments)
        return real(*arguments) if len(calls) == 1 else _full()

    return truncate
