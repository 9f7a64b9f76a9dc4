"""Both cases of the guard, each with a stand-in torchvision in a process of its own."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from models.torchvision_guard import import_torchvision

ROOT = Path(__file__).resolve().parent.parent.parent
WORKS = "FINE = True\n"
# what torchvision's own _meta_registrations do at import, and what fails beside CPU torch
MISFIT = """
import torch
import torchvision.half_loaded
torch.library.register_fake("torchvision::nms")(lambda dets, scores, iou: dets)
torch.library.register_fake("torchvision::qnms")(lambda dets, scores, iou: dets)
FINE = True
"""
OTHER_FAULT = "raise RuntimeError('something else')\n"
SAY = """
import torch
from models.torchvision_guard import import_torchvision
torchvision = import_torchvision()
print(torchvision.FINE, hasattr(torch.ops.torchvision, "nms"))
"""


def run_beside(tmp_path, content):
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text(content)
    (package / "half_loaded.py").touch()
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    return subprocess.run(
        [sys.executable, "-c", SAY],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


def test_it_does_nothing_where_torchvision_works(tmp_path):
    assert run_beside(tmp_path, WORKS).stdout.split() == ["True", "False"]


def test_it_declares_the_operators_where_the_import_misses_them(tmp_path):
    done = run_beside(tmp_path, MISFIT)
    assert done.stdout.split() == ["True", "True"], done.stderr


def test_any_other_fault_of_the_import_is_passed_on(tmp_path):
    assert "something else" in run_beside(tmp_path, OTHER_FAULT).stderr


def test_torchvision_and_timm_import_here():
    assert import_torchvision().__name__ == "torchvision"
    assert importlib.import_module("timm")


def test_another_error_is_not_taken_for_the_known_one(monkeypatch):
    def broken(_name):
        raise RuntimeError("no such operator")

    monkeypatch.setattr(importlib, "import_module", broken)
    with pytest.raises(RuntimeError, match="no such operator"):
        import_torchvision()
