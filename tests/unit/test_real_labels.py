"""ReaL's labels are the ones that timm itself evaluates with."""

import subprocess
import sys

import pytest

from models import real_labels as module
from models.errors import LabelsMissing
from models.real_labels import real_labels
from models.torchvision_guard import import_torchvision


def test_they_are_timms():
    import_torchvision()
    from timm.data import RealLabelsImagenet

    mine = real_labels()
    assert RealLabelsImagenet([""] * 50000).real_labels == mine
    # 6.3 % of images have no label, 14.9 % several (Beyer et al. 2020)
    counts = [len(labels) for labels in mine.values()]
    assert sum(n == 0 for n in counts) / 50000 == pytest.approx(0.063, abs=5e-4)
    assert sum(n > 1 for n in counts) / 50000 == pytest.approx(0.149, abs=5e-4)


def test_without_timm_there_are_none(monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda _name: None)
    with pytest.raises(LabelsMissing, match="make install"):
        real_labels()


def test_timm_is_not_imported_for_them():
    code = "from models.real_labels import real_labels; real_labels()"
    check = "import sys; assert 'timm' not in sys.modules"
    subprocess.run([sys.executable, "-c", f"{code}; {check}"], check=True)
