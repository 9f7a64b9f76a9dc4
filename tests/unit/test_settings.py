import os
from pathlib import Path

import pytest

from service.errors import BadSetting, UnknownSetting
from service.settings import read_settings


def test_the_defaults():
    settings = read_settings({})
    assert (settings.host, settings.port, settings.data) == ("127.0.0.1", 8000, Path("data"))


def test_the_environment_moves_things(monkeypatch):
    monkeypatch.setenv("GAP_PORT", "8001")
    monkeypatch.setenv("GAP_DATA", "/somewhere")
    settings = read_settings()
    assert (settings.port, settings.data) == (8001, Path("/somewhere"))


def test_image_roots_are_separated_as_in_path(monkeypatch):
    assert read_settings({}).images == ()
    monkeypatch.setenv("GAP_IMAGES", os.pathsep.join(["/a", "/b c"]))
    assert read_settings().images == (Path("/a"), Path("/b c"))


@pytest.mark.parametrize(("name", "near"), [("GAP_PROT", "GAP_PORT"), ("gap_dat", "GAP_DATA")])
def test_a_misspelt_setting_is_refused_with_the_nearest_name(name, near):
    with pytest.raises(UnknownSetting, match=f"Did you mean {near}"):
        read_settings({name: "1"})


@pytest.mark.parametrize("value", ["http", "0", "70000"])
def test_a_wrong_value_is_refused_in_words(monkeypatch, value):
    monkeypatch.setenv("GAP_PORT", value)
    with pytest.raises(BadSetting, match=f"another value of GAP_PORT, got '{value}'"):
        read_settings()


@pytest.mark.parametrize("folder", ["a[1]", "a?b", "a*/data"])
def test_a_data_folder_that_reads_as_a_pattern_is_refused(monkeypatch, tmp_path, folder):
    """DuckDB would look for the files of its views elsewhere."""
    monkeypatch.setenv("GAP_DATA", str(tmp_path / folder))
    with pytest.raises(BadSetting, match="a folder without"):
        read_settings()
