"""The log of looks: a line for each read of test labels, or no read."""

import json
import threading

import pytest

from service.database import Database
from service.errors import LookNotLogged
from service.looks import Look, Looks, look_as

LOOK = Look("m", "gap")


def test_a_look_is_one_line_with_who_when_and_what(tmp_path):
    log = Looks(tmp_path)
    assert log.all() == []
    log.record(LOOK, "val", 3)
    log.record(Look(None, "sql"), None, None)
    newest, first = log.all()
    assert (newest["model"], newest["split"], newest["n"]) == (None, None, None)
    assert {**first, "looked_at": "", "who": ""} == {
        "looked_at": "", "who": "", "model": "m", "split": "val", "purpose": "gap", "n": 3,
    }  # fmt: skip
    assert first["who"]
    assert first["looked_at"][:4] >= "2024"


def test_many_writers_lose_no_line(tmp_path):
    def write(i):
        for n in range(50):
            Looks(tmp_path).record(Look(f"m{i}", "gap"), "v" * 500, n)

    threads = [threading.Thread(target=write, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(Looks(tmp_path).all()) == 200


def test_half_a_line_is_passed_over(tmp_path):
    Looks(tmp_path).record(LOOK, "val", 3)
    with (tmp_path / "results" / "looks.jsonl").open("a") as file:
        file.write('{"looked_at": "20')
    assert len(Looks(tmp_path).all()) == 1


def test_who_may_be_said(tmp_path):
    def in_a_request():
        look_as("service (10.0.0.1)")
        Looks(tmp_path).record(LOOK, "val", 1)

    thread = threading.Thread(target=in_a_request)
    thread.start()
    thread.join()
    Looks(tmp_path).record(LOOK, "val", 1)
    mine, service = Looks(tmp_path).all()
    assert service["who"] == "service (10.0.0.1)"
    assert not mine["who"].startswith("service")


def test_a_user_without_a_name_has_a_number(tmp_path, monkeypatch):
    def nameless():
        raise KeyError("getpwuid(): uid not found: 4711")

    monkeypatch.setattr("getpass.getuser", nameless)
    Looks(tmp_path).record(LOOK, "val", 1)
    assert Looks(tmp_path).all()[0]["who"].startswith("uid ")


def test_what_cannot_be_written_down_is_not_read(tmp_path, toy_data):
    (tmp_path / "gap.duckdb").symlink_to(toy_data / "gap.duckdb")
    (tmp_path / "results" / "looks.jsonl").mkdir(parents=True)
    database = Database(tmp_path)
    with pytest.raises(LookNotLogged, match=r"looks\.jsonl .* They were not read"):
        database.test_rows("toy", "val", look=LOOK)
    with pytest.raises(LookNotLogged):
        database.images("val", look=LOOK)
    assert len(database.unlabelled_rows("toy", "val")[0]) == 20


def test_a_line_that_is_cut_short_is_no_log(tmp_path, monkeypatch):
    monkeypatch.setattr("os.write", lambda _place, content: len(content) - 1)
    with pytest.raises(LookNotLogged, match="bytes of"):
        Looks(tmp_path).record(LOOK, "val", 1)


def test_labels_are_not_had_without_a_look(toy_data):
    database = Database(toy_data)
    for read in (lambda: database.test_rows("toy", "val"), lambda: database.images("val")):
        with pytest.raises(TypeError, match="look"):
            read()


def test_the_lines_are_json(tmp_path):
    Looks(tmp_path).record(Look('a"b\n', "gap"), "val", 1)
    (line,) = (tmp_path / "results" / "looks.jsonl").read_text().splitlines()
    assert json.loads(line)["model"] == 'a"b\n'


def test_e29_a_torn_line_takes_no_other_with_it(tmp_path):
    looks = Looks(tmp_path)
    looks.record(Look("a", "evaluate"), "val", 1)
    with (tmp_path / "results" / "looks.jsonl").open("a") as file:
        file.write('{"looked_at": "2026-')
    looks.record(Look("b", "evaluate"), "val", 1)
    assert [look["model"] for look in looks.all()] == ["b", "a"]
