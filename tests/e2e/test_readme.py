"""README's own commands, run as they are printed."""

import json
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.e2e.server import GAPSCOPE, environment, serving

README = (Path(__file__).resolve().parent.parent.parent / "README.md").read_text(encoding="utf-8")

# in the order in which they are printed, each with what those before it left
_RUN = ("train", "evaluate", "gap", "gaps", "interpolate")


def blocks(heading, language="sh"):
    section = re.split(r"\n###? ", README.split(f"## {heading}\n", 1)[1])[0]
    found = re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)
    return [textwrap.dedent(block) for block in found]


def answers_in(text):
    answers, rest = [], text.strip()
    while rest:
        answer, end = json.JSONDecoder().raw_decode(rest)
        answers.append(answer)
        rest = rest[end:].strip()
    return answers


@pytest.mark.long
@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl on this machine")
def test_train_evaluate_gap_by_curl_as_the_readme_prints_them(tmp_path, demo_as_loaded):
    data = shutil.copytree(demo_as_loaded, tmp_path / "data")
    calls, commands = blocks("Train, evaluate, explain")
    with serving(data) as (client, _):
        script = calls.replace("http://127.0.0.1:8000", str(client.base_url).rstrip("/"))
        done = subprocess.run(
            ["bash", "-ec", script], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        (calls,) = blocks("Predict: rows, a million rows, an image")
        (program,) = blocks("Predict: rows, a million rows, an image", "python")
        url = str(client.base_url).rstrip("/")
        predicted = subprocess.run(
            ["bash", "-ec", calls.replace("http://127.0.0.1:8000", url)],
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        table = subprocess.run(
            [sys.executable, "-c", program.replace("http://127.0.0.1:8000", url)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    rows, image = answers_in(predicted.stdout)
    assert rows["names"][0] in rows["class_names"]
    assert image["class_name"] == "zero"
    assert "class_name: string" in table.stdout, table.stderr
    answers = answers_in(done.stdout)
    accepted, jobs, card, evaluation, gap = answers
    assert accepted["model"] == jobs[0]["model"] == card["model"] == "first"
    assert evaluation["gap"]["top1"]["low"] > 0
    assert gap["gap"] == evaluation["gap"]["top1"]
    assert len(gap["features"]) == 5
    assert (tmp_path / "classes.svg").read_text().startswith("<svg")
    (between,) = blocks("A head whose weights are given, and one between two others")
    for line in (commands + between).splitlines():
        if line.split()[:2] in [["gapscope", verb] for verb in _RUN]:
            done = subprocess.run(
                line.replace("gapscope", str(GAPSCOPE), 1), shell=True, env=environment(data),
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            assert done.returncode == 0, (line, done.stderr)


def test_the_sql_of_the_readme_runs(toy_data):
    (query,) = re.findall(r"```sql\n(.*?)```", README, re.DOTALL)
    done = subprocess.run(
        [GAPSCOPE, "sql", "-csv", "-c", query], env=environment(toy_data),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "class_name,accuracy_reference,accuracy_target,gap"
