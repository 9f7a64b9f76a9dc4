"""The command line answers at once, and Ctrl-C ends it at any moment without a traceback."""

import json
import os
import shutil
import signal
import subprocess
import time

import numpy as np
import pytest

from models import heads
from service import cli
from service.analysis import Analysis
from service.results import Results
from tests.e2e.server import GAPSCOPE, environment

HEAVY = ("torch", "numba", "pandas", "duckdb", "pyarrow", "fastapi", "pydantic", "numpy", "scipy")
ANSWERED = [["--help"], *([verb, "--help"] for verb in ("load", "extract", "train", "annotate")),
            ["train", "x", "--nope"], ["none"], [], ["train", "x", "--params", "["],
            ["import-predictions", "x"]]  # fmt: skip


@pytest.mark.parametrize("line", ANSWERED, ids=" ".join)
def test_help_and_errors_of_arguments_import_nothing_heavy(line, tmp_path):
    """The best of three: the first may have to read Python itself from the disk."""
    script = (
        "import sys\nfrom service.cli import main\ntry:\n    main()\nexcept SystemExit:\n    pass\n"
        f"print(sorted(set({HEAVY!r}) & set(sys.modules)))"
    )
    command = [GAPSCOPE.with_name("python"), "-c", script, *line]
    took = []
    for _ in range(3):
        began = time.monotonic()
        done = subprocess.run(
            command, env=environment(tmp_path), capture_output=True, text=True, check=False
        )
        took.append(time.monotonic() - began)
        assert done.stdout.endswith("[]\n"), done.stdout + done.stderr
        assert "Traceback" not in done.stderr
    assert min(took) < 1


@pytest.mark.parametrize("after_s", [0.3, 0.5, 0.8, 1.2, 1.8, 2.5, 3.5, 5.0])
def test_ctrl_c_says_stopped_whenever_it_comes(after_s, toy_data, record_property):
    """From the first imports to the answer; the interpreter itself needs the first two tenths."""
    with subprocess.Popen(
        [GAPSCOPE, "gap", "logistic"], env=environment(toy_data), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        time.sleep(after_s)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert "Traceback" not in err
    if process.returncode == 0:  # it was done before
        assert out
    else:
        assert (process.returncode, err.strip().splitlines()[-1]) == (130, "stopped")
    record_property("fault", ["Ctrl-C", "stopped without a traceback", 1])


def test_auto_says_why_its_table_shows_more_than_internal_validation(
    toy_data, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("GAP_DATA", str(shutil.copytree(toy_data, tmp_path / "data")))
    line = ["train", "toy", "--head", "auto", "--params", '{"heads": ["lda", "ridge"]}']
    assert cli.main([*line, "--name", "best"]) == 0
    said = capsys.readouterr().out
    after = said.split("internal validation ", 1)[1].splitlines()
    assert after[1].startswith("The accuracies of the candidates are on the rows that the choice")
    assert cli.main(["train", "toy", "--head", "nearest_mean", "--name", "one"]) == 0
    assert "candidates" not in capsys.readouterr().out


def test_gap_shows_what_its_classes_and_features_are_named_by(
    toy_data, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("GAP_DATA", str(shutil.copytree(toy_data, tmp_path / "data")))
    assert cli.main(["gap", "logistic", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert cli.main(["gap", "logistic"]) == 0
    *said, classes, features = capsys.readouterr().out.split("\n\n")
    known = [c for c in answer["classes"] if c["raw"] is not None]
    assert [line.split()[-1] for line in classes.splitlines()[1:]] == [
        f"{c['q_value']:.3f}" for c in known[:10]
    ]
    assert "q (named from .05 down)" in classes
    shown = [line.split() for line in features.splitlines()[2:]]
    relevance = [f["relevance"] for f in answer["features"]]
    assert relevance == sorted(relevance, reverse=True)
    assert [row[1] for row in shown] == [f"{x:.3f}" for x in relevance[:10]]
    moved = [f["feature_name"] for f in answer["features"] if f["p_value"] < 0.05]
    assert moved
    assert f"the first of these are {', '.join(moved[:5])}." in said[0]


def test_ctrl_c_stops_a_training_and_nothing_is_left(toy_data, tmp_path):
    data = shutil.copytree(toy_data, tmp_path / "data")
    slow = json.dumps({"epochs": 1000, "hidden": 4096})
    line = [GAPSCOPE, "train", "toy", "--head", "mlp", "--params", slow]
    with subprocess.Popen(line, env=environment(data), stderr=subprocess.PIPE) as process:
        said = b""
        while b"internal validation" not in said:
            said += os.read(process.stderr.fileno(), 1000)
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err.strip().splitlines()[-1]) == (130, b"stopped")
    assert not list(data.glob(".new-*"))
    assert [card["model"] for card in Results(data).models()] == ["logistic", "mean"]


def test_a_training_that_was_killed_goes_on_and_says_so(toy_data, tmp_path, monkeypatch, capsys):
    """Through the door that training has for it: what was put is what is got."""
    data = shutil.copytree(toy_data, tmp_path / "data")
    monkeypatch.setenv("GAP_DATA", str(data))
    whole, got = heads.train, []

    def train(*args, checkpoint, **named):
        got.append(checkpoint.get("part"))
        checkpoint.put("part", {"done": np.arange(3)})
        if len(got) == 1:
            raise KeyboardInterrupt
        return whole(*args, **named)

    monkeypatch.setattr(heads, "train", train)
    line = ["train", "toy", "--head", "lda", "--name", "again"]
    assert cli.main(line) == 130
    assert "checkpoint" not in capsys.readouterr().err
    assert len(list((data / "checkpoints").iterdir())) == 1
    assert cli.main(line) == 0
    assert "note: went on from a checkpoint" in capsys.readouterr().err
    assert got[0] is None
    np.testing.assert_array_equal(got[1]["done"], np.arange(3))
    assert not (data / "checkpoints").exists()
    assert Analysis(data).results.has("again")
