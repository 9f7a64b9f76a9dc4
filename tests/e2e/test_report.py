"""Reports of real data: on the command line for the demo, and for CIFAR-10 with annotations."""

import io
import json
import shutil

import pandas as pd
import pytest
from pypdf import PdfReader

from etl import load
from etl.annotations import annotate_file
from service import cli
from service.analysis import Analysis
from service.report.making import make_report
from service.report.title_page import EXAMPLE
from tests.pdf import check_pdf
from tests.world import SHARED

CIFAR = SHARED / "cifar10_lite0"


def words_of(pdf):
    read = " ".join(page.extract_text() for page in PdfReader(io.BytesIO(pdf)).pages)
    return " ".join(read.replace("\u200b", "").split())


def test_the_demo_as_a_pdf_by_one_command(tmp_path, demo_as_loaded, monkeypatch, capsys):
    data = shutil.copytree(demo_as_loaded, tmp_path / "data")
    monkeypatch.setenv("GAP_DATA", str(data))
    assert cli.main(["report", "--example"]) == 0
    title = tmp_path / "title.yaml"
    title.write_text(capsys.readouterr().out, encoding="utf-8")
    assert title.read_text(encoding="utf-8") == EXAMPLE
    own = tmp_path / "own"
    own.mkdir()
    (own / "discovery.md").write_text("We scanned *nothing* ourselves.", encoding="utf-8")
    models = ["pixels-logistic", "tf_efficientnet_lite0-logistic"]
    out = tmp_path / "out" / "essay.pdf"
    asked = ["-o", str(out), "--title-page", str(title), "--text", str(own)]
    assert cli.main(["report", *models, *asked]) == 0
    assert capsys.readouterr().out.split() == [
        str(out.with_suffix(suffix)) for suffix in (".pdf", ".html", ".json")
    ]
    check_pdf(out.read_bytes(), "report-demo")
    said = words_of(out.read_bytes())
    for sentence in (
        "Ada Example",
        "We scanned nothing ourselves.",
        "pixels-logistic scores 5.3 points lower on unseen than on seen",
        "Every check of this passed",
        "What is supported",
        "References",
    ):
        assert sentence in said
    listed = json.loads(out.with_suffix(".json").read_text(encoding="utf-8"))
    assert listed["models"] == models
    assert {number["text"] for number in listed["numbers"]} >= {"5.3", "96.9 %", "91.6 %"}


def test_what_is_wrong_is_said_before_anything_is_computed(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("GAP_DATA", str(tmp_path / "data"))
    title = tmp_path / "title.yaml"
    title.write_text("authors: [{name: A, id: 1, share: 40}]", encoding="utf-8")
    for asked, said in (
        ([], "wanted a model"),
        (["m", "-o", "report.docx"], ".pdf"),
        (["m", "--title-page", str(title)], "add up to 100"),
        (["m", "--title-page", str(tmp_path / "none.yaml")], "--example"),
        (["m", "--text", str(tmp_path)], "which has none"),
    ):
        assert cli.main(["report", *asked]) == 2
        assert said in capsys.readouterr().err


@pytest.mark.long
@pytest.mark.skipif(not CIFAR.is_dir(), reason="the shared data folder is absent")
def test_cifar10_names_what_people_know_of_the_images(tmp_path):
    folder, data = tmp_path / "features", tmp_path / "data"
    folder.mkdir()
    for split in ("train", "test1", "test2"):
        pd.read_parquet(CIFAR / f"{split}.parquet").to_csv(folder / f"{split}_lite0.csv")
    load(data, [folder])
    annotate_file(data, CIFAR / "annotations.csv", name="people", split=None)
    analysis = Analysis(data)
    analysis.train(model="m", backbone="lite0", head="lda", params={"shrinkage": 0.1}, seed=0)
    made = make_report(analysis, ["m"])
    check_pdf(made.files["report.pdf"], "report-cifar10")
    said = words_of(made.files["report.pdf"])
    assert "points of the gap (95 % interval" in said
    assert "go with human_agreement" in said
    assert "Errors of the labels" in said  # their share of reviewers is a second opinion
    assert "Not every check" not in said
