"""What is installed: floors, pins, known vulnerabilities, the bill of materials."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from etl import memory
from tests.contract import audit_dependencies

ROOT = Path(__file__).resolve().parent.parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PINS = {
    canonicalize_name(name): Version(version)
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    if not line.startswith("#")
    for name, version in [line.split("==")]
}
FLOORS = {"starlette": Version("1.3.1"), "pillow": Version("13")}


@pytest.mark.parametrize("name", FLOORS)
def test_versions_with_known_faults_are_not_installed(name):
    (wanted,) = [
        r for text in PROJECT["dependencies"] if (r := Requirement(text)).name.lower() == name
    ]
    assert not wanted.specifier.contains("0.99")
    assert wanted.specifier.contains(FLOORS[name])
    assert PINS[name] >= FLOORS[name]


def test_forms_are_not_parsed():
    """python-multipart is no dependency: no route takes a form. Were it one: from 0.0.27 on."""
    assert PINS.get("python-multipart", Version("0.0.27")) >= Version("0.0.27")


def test_all_that_is_asked_for_is_pinned():
    extras = PROJECT["optional-dependencies"].values()
    asked = [Requirement(text) for text in sum(extras, PROJECT["dependencies"])]
    assert {canonicalize_name(one.name) for one in asked} <= set(PINS)


def said(*dependencies: dict) -> str:
    return f"echo '{json.dumps({'dependencies': dependencies})}'"


GOOD = {"name": "good", "version": "1.0", "vulns": []}
UNKNOWN = {"name": "unknown", "skip_reason": "not found"}
FOUND = {
    "name": "weak", "version": "1.0",
    "vulns": [{"id": "CVE-1", "fix_versions": ["1.1"], "aliases": [], "description": ""}],
}  # fmt: skip


@pytest.mark.parametrize(
    ("script", "status", "words"),
    [
        (said(GOOD), 0, "1 of 1 dependencies audited, 0 with known vulnerabilities"),
        (said(GOOD, UNKNOWN), 0, "1 of 2 dependencies audited"),
        (said(GOOD, FOUND) + "; exit 1", 1, "weak 1.0: CVE-1, mended in 1.1"),
        (said(UNKNOWN), 0, "not audited: the registry knows nothing of them"),
        ("echo 'no route to host' >&2; exit 1", 0, "not audited: no route to host"),
        ("exec sleep 60", 0, "not audited: the registry did not answer"),
    ],
)
def test_a_known_vulnerability_fails_and_a_silent_registry_does_not(
    script, status, words, tmp_path, monkeypatch, capsys
):
    fake = tmp_path / "pip-audit"
    fake.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert audit_dependencies.main(seconds=2) == status
    assert words in capsys.readouterr().out


@pytest.mark.slow
def test_bill_of_materials_is_complete_and_the_same_twice(tmp_path):
    tool = ROOT / "build" / "sbom" / "bin" / "cyclonedx-py"
    if not tool.exists():
        pytest.skip("wanted `make sbom` before")
    files = [tmp_path / "first.json", tmp_path / "second.json"]
    for file in files:
        subprocess.run(
            [tool, "environment", "--output-reproducible", "--pyproject", "pyproject.toml",
             "-o", file, sys.prefix],
            cwd=ROOT, check=True, capture_output=True,
        )  # fmt: skip
    assert files[0].read_bytes() == files[1].read_bytes()
    bill = json.loads(files[0].read_text(encoding="utf-8"))
    assert bill["metadata"]["component"]["name"] == "gapscope"
    listed = {canonicalize_name(one["name"]) for one in bill["components"]}
    wanted = {canonicalize_name(Requirement(text).name) for text in PROJECT["dependencies"]}
    assert wanted - {"backports-zstd"} <= listed


@pytest.mark.parametrize(
    ("limit", "is_less"), [("1000000\n", True), ("max\n", False), (None, False)]
)
def test_memory_is_the_containers_where_it_has_a_limit(limit, is_less, tmp_path, monkeypatch):
    file = tmp_path / "memory.max"
    if limit is not None:
        file.write_text(limit, encoding="ascii")
    monkeypatch.setattr(memory, "_LIMIT", file)
    assert (memory.memory_bytes() == 1_000_000) == is_less


@pytest.mark.parametrize("has_calls", [True, False])
def test_a_c_library_without_glibcs_calls_is_left_alone(has_calls, monkeypatch):
    asked = []

    class Library:
        def __init__(self, _name):
            if has_calls:
                self.malloc_trim = self.mallopt = lambda *given: asked.append(given)

    monkeypatch.setattr(memory.ctypes, "CDLL", Library)
    memory.give_back_memory()
    memory.share_arenas()
    assert asked == ([(0,), (-8, 2)] if has_calls else [])
