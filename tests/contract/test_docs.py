"""Documentation is tested: what exists is named, what is named exists."""

import re
import shlex
from pathlib import Path

import pytest

from models.heads import HEADS
from service import charts, cli, options
from service.settings import Settings
from tests.contract.readme_blocks import readme

ROOT = Path(__file__).resolve().parent.parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def commands():
    (verbs,) = [a for a in cli._parser()._actions if a.choices and a.dest != "help"]
    return verbs.choices


@pytest.mark.parametrize("name", [f"GAP_{name.upper()}" for name in Settings.model_fields])
def test_every_setting_is_in_the_readme(name):
    assert f"`{name}`" in README


@pytest.mark.parametrize("verb", list(commands()))
def test_every_command_is_in_the_readme(verb):
    assert f"gapscope {verb}" in README


def test_help_lists_every_setting_and_every_head():
    """Their lists are apart from what they describe, so that help need not import it."""
    assert list(options.SETTINGS) == list(Settings.model_fields)
    assert list(options.HEADS) == [*HEADS, "sklearn:NAME"]
    said = cli._parser().format_help()
    assert all(f"GAP_{name.upper()}" in said for name in Settings.model_fields)
    said = commands()["train"].format_help()
    assert all(f"\n  {name} " in said for name in options.HEADS)
    assert 'README.md under "Heads"' in said
    assert "\n## Heads\n" in README


def test_every_command_in_the_readme_parses():
    lines = re.findall(r"^gapscope (.+?)(?:\s{2,}#.*)?$", README, re.MULTILINE)
    assert len(lines) >= 6
    for line in lines:
        arguments, rest = cli._parser().parse_known_args(shlex.split(line))
        assert not rest or arguments.command is cli._sql, line


@pytest.mark.parametrize(
    "option", ["--split", "--reference", "--paths-from", "--classes", "--replace"]
)
def test_every_option_of_load_is_in_the_readme(option):
    assert option in README
    assert option in commands()["load"].format_help()


@pytest.mark.parametrize(
    "option",
    [
        o
        for a in commands()["extract"]._actions
        for o in a.option_strings
        if o not in ("-h", "--help")
    ],
)
def test_every_option_of_extract_is_in_the_readme(option):
    assert option in README


def test_every_route_is_in_the_readme(client):
    for path, methods in client.get("/openapi.json").json()["paths"].items():
        for method in methods:
            assert f"{method.upper()} {path}" in README, (method, path)


def test_heads_and_charts_are_in_the_readme():
    for name in (*HEADS, *charts.CHARTS, *charts.TRAINING_CHARTS):
        assert name in README


def test_every_make_target_that_is_named_exists():
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
    named = set(re.findall(r"`make ([a-z-]+)`", README)) | {"up", "test", "sql"}
    assert named <= targets
    for target in (
        "up",
        "test",
        "test-long",
        "test-full",
        "sql",
        "bench",
        "lint",
        "docs",
        "install",
    ):
        assert target in targets


def test_every_link_to_a_file_leads_somewhere():
    for link in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / link).exists(), link


def test_decisions_are_numbered_without_a_gap():
    text = (ROOT / "DECISIONS.md").read_text(encoding="utf-8")
    numbers = [int(n) for n in re.findall(r"^## (\d+) ", text, re.MULTILINE)]
    assert numbers == list(range(1, len(numbers) + 1))


def test_readme_is_what_make_docs_would_write():
    assert readme() == README, "run make docs"
