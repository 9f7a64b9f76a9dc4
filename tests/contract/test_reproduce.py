"""A report's numbers computed anew: the same, changed by hand, on other data, hostile."""

import hashlib
import json
import re
import shlex
import shutil
import zipfile
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pandas as pd
import pytest
from fastapi.testclient import TestClient
from safetensors.numpy import save_file

from etl import load
from models.heads import pack
from service import cli
from service.analysis import Analysis
from service.app import create_app
from service.errors import BadReport, BundleTooLarge
from service.report import bundle
from service.report.asking import understood, views
from service.report.bundle import write_bundle
from service.report.numbers import FORMS
from service.report.reproducing import FILE_BYTES_MAX, ReproducedOut, checked, reproduce
from service.reproduce_command import served
from service.settings import Settings

ENDS = "reference=val&target=v2"
ASKED = [
    (f"/gap/logistic/ledger?{ENDS}", "/terms/0/estimate", "signed_points"),
    (f"/gap/logistic/ledger?{ENDS}", "/terms/1/low", "points"),
    ("view:evaluation?model=logistic&split=val&metric=top1", "/estimate", "percent"),
    ("view:evaluation?model=mean&split=v2&metric=top1", "/estimate", "percent"),
    ("/models/logistic", "/validation/top1/estimate", "percent"),
    ("/models/logistic", "/gaps/replication/estimate", "points"),
    ("/models/logistic/leaderboard", "/candidates/0/top1", "percent"),
    ("/splits", "/0/n_images", "count"),
    ("/hypotheses", "/summary/0", "text"),
    ("view:split_summary?split=train&backbone=toy", "/n_classes", "count"),
    ("view:class_count?split=val&class_id=2", "/n_images", "count"),
]
DEAR = [  # whole answers
    (f"/gap/logistic?{ENDS}", "/accuracy/val/estimate", "percent"),
    (f"/gap/logistic?{ENDS}", "/summary/0", "text"),
    (f"/gap/logistic/classes?{ENDS}", "/summary/0", "text"),
    (f"/gap/logistic/line?{ENDS}", "/summary/0", "text"),
    (f"/gap/logistic/difficulty?{ENDS}", "/summary/0", "text"),
    (f"/gap/mean/leaks?{ENDS}", "/summary/0", "text"),
    (f"/gap/mean/images/list?{ENDS}&order=margin", "/n", "count"),
    ("/models/logistic/audit", "/checks/0/name", "text"),
]


def at(content, pointer):
    for token in pointer.split("/")[1:]:
        content = content[int(token) if isinstance(content, list) else token]
    return content


def report_of(client: TestClient, data: Path, asked) -> dict:
    """A report.json of what the service answers."""
    database = Analysis(data).database
    digests, numbers = database.digests("toy"), []
    for place, (endpoint, pointer, form) in enumerate(asked):
        if endpoint.startswith("view:"):
            name, _, query = endpoint.removeprefix("view:").partition("?")
            where = " and ".join(
                f"{k} = '{v}'" for k, v in (pair.split("=") for pair in query.split("&"))
            )
            (content,) = database.rows(f"select * from {name} where {where}")
        else:
            answer = client.get(endpoint, params={"wait": True} if "/gap/" in endpoint else {})
            assert answer.status_code == 200, (endpoint, answer.text)
            content = answer.json()
        value = at(content, pointer)
        numbers.append(
            {
                "id": f"N{place + 1}",
                "text": FORMS[form](value),
                "value": value,
                "endpoint": endpoint,
                "pointer": pointer,
                "form": form,
            }
        )
    return {
        "format": 1,
        "gapscope": "0.1.0",
        "made_at": "2026-01-01T00:00:00",
        "models": ["logistic", "mean"],
        "reference": "val",
        "target": "v2",
        "endpoints": {
            endpoint: {"digests": digests, "seed": 0, "sha256": ""} for endpoint, *_ in asked
        },
        "numbers": numbers,
    }


@pytest.fixture(scope="module")
def data(toy_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the toy folder: gaps are kept in it."""
    return shutil.copytree(toy_data, tmp_path_factory.mktemp("made") / "data")


def made(data: Path, asked) -> dict:
    with TestClient(create_app(Settings(data=data), with_worker=False)) as client:
        return report_of(client, data, asked)


@pytest.fixture(scope="module")
def report(data: Path) -> dict:
    return made(data, ASKED)


@pytest.fixture(scope="module")
def light(report: dict) -> dict:
    """The same without parts of a gap: what takes no seconds."""
    cheap = [number for number in report["numbers"] if "/gap/" not in number["endpoint"]]
    endpoints = {number["endpoint"]: report["endpoints"][number["endpoint"]] for number in cheap}
    return report | {"numbers": cheap, "endpoints": endpoints}


def again(data: Path, report: dict, **options) -> ReproducedOut:
    settings = Settings(data=data)
    return reproduce(
        Analysis(data),
        checked(json.dumps(report).encode()),
        lambda analysis: served(analysis, settings),
        **options,
    )


def spoil(data: Path) -> None:
    """Make what is kept of the answers wrong: whoever reads it says something else."""
    for file in data.glob("results/*/gap/*/*.json"):
        file.write_text("{}")
    for file in data.glob("results/*/evaluation.json"):
        records = json.loads(file.read_text() or "[]")
        for record in records:
            record["estimate"] = 0.123
        file.write_text(json.dumps(records))
    for file in data.glob("results/[lm]*/predictions.parquet"):
        table = pd.read_parquet(file)
        table["is_correct"] = False
        table.to_parquet(file)


def test_all_numbers_are_the_same_and_none_is_read_from_what_is_kept(data, tmp_path):
    asked = ASKED + DEAR
    report = made(data, asked)
    other = shutil.copytree(data, tmp_path / "data")
    spoil(other)
    before = {p: p.read_bytes() for p in other.rglob("*") if p.is_file() and "looks" not in p.name}
    found = again(other, report)
    assert found.differing == []
    assert found.all_same
    assert found.summary[0] == f"{len(asked)} numbers: {len(asked)} the same."
    # what is only read is the same whatever is true: that is said
    assert found.n_only_read > 0
    assert found.summary[1].startswith(f"{found.n_only_read} of the same were only read")
    assert found.computed[0].endswith("logistic, mean.")
    # nothing is written but the log of looks, and nothing is left behind
    after = {p: p.read_bytes() for p in other.rglob("*") if p.is_file() and "looks" not in p.name}
    assert after == before
    looks = (other / "results" / "looks.jsonl").read_text().splitlines()
    assert len(looks) > len((data / "results" / "looks.jsonl").read_text().splitlines())


def test_heads_are_trained_anew_where_that_is_asked_for(data, report):
    found = again(data, report, retrain=True)
    assert found.all_same, found.differing
    assert [(one.model, one.same) for one in found.retrained] == [
        ("logistic", True),
        ("mean", True),
    ]
    assert "bit for bit" in found.computed[-1]
    assert not any("only read: --retrain" in sentence for sentence in found.computed)


def test_a_head_that_is_not_the_one_of_its_recipe_is_told(data, report, tmp_path):
    other = shutil.copytree(data, tmp_path / "data")
    results = Analysis(other).results
    card, head = results.card("logistic"), results.head("logistic")
    arrays, what = pack(head)
    arrays["weight"] = arrays["weight"] * np.float32(1.5)
    folder = other / "results" / "logistic"
    save_file(arrays, folder / "head.safetensors", {"gapscope": json.dumps(what)})
    card["head_sha256"] = hashlib.sha256((folder / "head.safetensors").read_bytes()).hexdigest()
    (folder / "model.json").write_text(json.dumps(card), encoding="utf-8")
    found = again(other, report, retrain=True)
    assert found.all_same  # the retrained head is the one of the report
    told = found.retrained[0]
    assert (told.model, told.same) == ("logistic", False)
    assert told.largest_difference == pytest.approx(float(np.abs(arrays["weight"]).max() / 3))
    found = again(other, report)
    assert not found.all_same


def changed(report: dict, place: int, **what) -> dict:
    numbers = [dict(number) for number in report["numbers"]]
    numbers[place].update(what)
    return report | {"numbers": numbers}


def test_a_number_changed_by_hand_differs_and_is_named(data, light, tmp_path, monkeypatch, capsys):
    n = len(light["numbers"])
    value = light["numbers"][1]["value"] + 0.01
    wrong = changed(light, 1, value=value, text=FORMS["percent"](value))
    wrong = changed(wrong, 0, text="99.9 %")
    file = tmp_path / "report.json"
    file.write_text(json.dumps(wrong))
    monkeypatch.setenv("GAP_DATA", str(data))
    assert cli.main(["reproduce", str(file), "--json"]) == 1
    found = ReproducedOut.model_validate_json(capsys.readouterr().out)
    by_text, by_value = found.differing
    assert (by_text.id, by_value.id) == ("N3", "N4")
    assert "'99.9 %'" in by_text.reason
    assert by_value.now_text == light["numbers"][1]["text"]
    assert (found.n_same, found.n_differs, found.n_not_found) == (n - 2, 2, 0)
    assert cli.main(["reproduce", str(file)]) == 1
    said = capsys.readouterr().out
    assert f"{n} numbers: {n - 2} the same, 2 differ." in said
    assert by_value.endpoint + by_value.pointer in said
    file.write_text(json.dumps(light))
    assert cli.main(["reproduce", str(file)]) == 0
    assert f"{n} numbers: {n} the same." in capsys.readouterr().out


def test_what_only_rounding_makes_equal_counts_as_the_same_and_is_told(data, light):
    value = light["numbers"][1]["value"]
    found = again(data, changed(light, 1, value=value + 1e-6))
    assert (found.all_same, found.n_printed_alike) == (True, 1)
    assert "printed alike" in found.summary[-1]
    found = again(data, changed(light, 1, value=value + 1e-6, form=None))
    assert (found.n_differs, found.n_printed_alike) == (1, 0)
    found = again(data, changed(light, 1, value=value * (1 + 1e-12), form=None))
    assert (found.all_same, found.n_printed_alike) == (True, 0)


def test_changed_data_are_told_first_with_the_numbers_that_rest_on_them(
    data, light, toy_csv, tmp_path
):
    other = shutil.copytree(data, tmp_path / "data")
    csv = shutil.copytree(toy_csv, tmp_path / "csv")
    table = pd.read_csv(csv / "v2_toy.csv", index_col=0)
    table.loc[0, "label"] = (table.loc[0, "label"] + 1) % 3
    table.to_csv(csv / "v2_toy.csv")
    table = pd.read_csv(csv / "v2_tiny.csv", index_col=0)
    at = table["path"] == pd.read_csv(csv / "v2_toy.csv", index_col=0)["path"][0]
    table.loc[at, "label"] = (table.loc[at, "label"] + 1) % 3
    table.to_csv(csv / "v2_tiny.csv")
    load(other, [csv], n_threads=1, replace=True)
    found = again(other, light)
    assert [one.split for one in found.changed] == ["v2"]
    assert found.summary[0].startswith("The data of v2 changed: sha256 ")
    ids = {one.id for one in found.differing}
    assert "N4" in ids
    assert not {"N3", "N5", "N8"} & ids  # val and the training are as they were
    assert all("v2" in one.changed for one in found.differing)


def test_what_is_gone_is_not_found(data, light, tmp_path):
    other = shutil.copytree(data, tmp_path / "data")
    shutil.rmtree(other / "results" / "mean")
    found = again(other, light)
    assert {one.id for one in found.differing if one.verdict == "not found"} == {"N4"}
    assert "no row" in next(o.reason for o in found.differing if o.verdict == "not found")


HOSTILE_ENDPOINTS = [
    "/train",
    "/static/../../etc/passwd",
    "/models/../../x",
    "/models/%2e%2e%2fx",
    "/gap/logistic/mask/0123456789ab",
    "/gap/logistic/ledger?format=png",
    "/gap/logistic/ledger/..",
    "http://example.org/splits",
    "//example.org/splits",
    "/looks",
    "/models/logistic\n/x",
    "view:../../x",
    "view:test_look?who=x",
    "view:feature",
    "view:pg_catalog.pg_tables",
    "view:read_csv('/etc/passwd')",
    "view:split; drop table split",
    "",
    "x" * 3_000,
]


@pytest.mark.parametrize("endpoint", HOSTILE_ENDPOINTS)
def test_an_address_that_may_not_be_asked_for_is_refused_by_name(endpoint, report):
    hostile = report | {"endpoints": report["endpoints"] | {endpoint: {}}}
    with pytest.raises(BadReport, match="wanted") as refused:
        checked(json.dumps(hostile).encode())
    assert repr(endpoint)[:20] in str(refused.value)


def test_every_view_but_the_log_that_grows_may_be_asked_for():
    assert "class_gap" in views()
    assert "test_look" not in views()
    assert understood("view:class_gap?model=a").view == "class_gap"


def only(report: dict, endpoint: str, pointer: str) -> dict:
    number = {"id": "N1", "text": "1", "value": 1, "endpoint": endpoint, "pointer": pointer}
    return report | {"endpoints": {endpoint: {}}, "numbers": [number]}


@pytest.mark.parametrize(
    ("endpoint", "pointer", "reason"),
    [
        ("view:split?split=' or 1=1 --", "/load_order", "no row"),
        ("view:split?split=val'; drop table split; --", "/load_order", "no row"),
        ("view:split", "/load_order", "several rows"),
        ("view:split?split=val", "/nothing", "nothing stands there"),
        ("/splits", "/0/n_images/deeper", "nothing stands there"),
        ("/splits", "/99999999999999999999", "nothing stands there"),
        ("/splits", "/0", "several values"),
        ("/splits", "/", "nothing stands there"),
        ("/models/nobody", "/n_train", "got 'nobody'"),
        ("/gap/logistic/ledger?reference=train", "/terms/0/estimate", "role train"),
    ],
)
def test_what_leads_nowhere_is_not_found_with_a_reason(data, report, endpoint, pointer, reason):
    (found,) = again(data, only(report, endpoint, pointer)).differing
    assert found.verdict == "not found"
    assert reason in found.reason


def test_a_column_that_a_view_does_not_have_is_refused(data, report):
    for name in ("1=1 or split", 'split" = split or "split', "nothing"):
        with pytest.raises(BadReport, match="wanted columns of split"):
            again(data, only(report, f"view:split?{quote(name)}=val", "/load_order"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "JSON"),
        (b"[]", "the file"),
        (b"[" * 100 + b"]" * 100, "the file"),
        (b"[" * 100_000, "recursion"),
        (b'{"format": ' + b"[" * 100 + b"]" * 100 + b"}", "format"),
        (b"\xff\xfe", "JSON"),
    ],
)
def test_what_is_no_report_is_refused(content, said):
    with pytest.raises(BadReport, match=said):
        checked(content)


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ({"format": 2}, "format 1, got format 2"),
        ({"format": "x"}, "format"),
        ({"numbers": {}}, "numbers"),
        ({"endpoints": []}, "endpoints"),
        ({"endpoints": {}}, "among the endpoints"),
        ({"gapscope": "1" * 1_000}, "gapscope"),
    ],
)
def test_a_report_of_another_form_is_refused(report, what, said):
    with pytest.raises(BadReport, match=said):
        checked(json.dumps(report | what).encode())


@pytest.mark.parametrize(
    "what",
    [
        {"pointer": "terms"},
        {"pointer": "/" * 5_000},
        {"form": "__class__"},
        {"value": 10**400},
        {"value": [1]},
        {"value": float("inf")},
        {"id": 1},
        {"text": "1" * 50_000},
    ],
)
def test_a_number_of_another_form_is_refused(report, what):
    with pytest.raises(BadReport, match="wanted"):
        checked(json.dumps(changed(report, 0, **what)).encode())


def test_nothing_of_a_file_moves_the_cursor(data, report, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("GAP_DATA", str(data))
    wrong = only(report, "/splits", "/\x1b[2J") | {"gapscope": "\x1b[31m0"}
    wrong["endpoints"] = {"/splits": {"digests": {"\x1b[2Jval": "0" * 64}}}
    file = tmp_path / "report.json"
    for content, status in ((wrong, 1), (wrong | {"endpoints": {"\x1b[2J": 1}}, 2),
                            (wrong | {"endpoints": {"/\x1b[2J": {}}}, 2)):  # fmt: skip
        file.write_text(json.dumps(content))
        assert cli.main(["reproduce", str(file)]) == status
        said = capsys.readouterr()
        assert "\x1b" not in said.out + said.err


def test_a_file_that_is_too_large_or_not_there_is_refused(tmp_path, data, monkeypatch, capsys):
    monkeypatch.setenv("GAP_DATA", str(data))
    huge = tmp_path / "huge.json"
    with huge.open("wb") as file:
        file.truncate(FILE_BYTES_MAX + 1)
    for file, said in ((huge, "at most 20 MB"), (tmp_path / "none.json", "No such file"),
                       (tmp_path, "Is a directory")):  # fmt: skip
        assert cli.main(["reproduce", str(file)]) == 2
        assert said in capsys.readouterr().err


def bundled(data: Path, report: dict, file: Path):
    files = {"report.json": json.dumps(report).encode(), "report.html": b"<!doctype html>"}
    return write_bundle(file, Analysis(data), files)


def test_a_bundle_makes_the_numbers_again_from_the_same_files(
    data, report, toy_csv, tmp_path, monkeypatch, capsys
):
    bundled(data, report, tmp_path / "one.zip")
    bundled(data, report, tmp_path / "two.zip")
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "one.zip") as packed:
        names = packed.namelist()
        packed.extractall(tmp_path / "bundle")
    assert names == sorted(names)
    assert {"README.txt", "recipe.json", "report.json", "code/service/cli.py", "code/Makefile",
            "code/sql/00_split.sql", "results/logistic/head.safetensors"} <= {*names}  # fmt: skip
    assert not [n for n in names if "tests" in n or "pycache" in n or "/." in n or ("predict" in n
                and not n.startswith("code"))]  # fmt: skip
    recipe = json.loads((tmp_path / "bundle" / "recipe.json").read_text())
    assert {row["file"] for row in recipe["data"]} == {file.name for file in toy_csv.iterdir()}
    assert [model["seed"] for model in recipe["models"]] == [0, 0]
    everything = b"".join(zipfile.ZipFile(tmp_path / "one.zip").read(n) for n in names
                          if not n.startswith("code/"))  # fmt: skip
    assert str(tmp_path).encode() not in everything
    assert str(toy_csv).encode() not in everything

    # the commands of README.txt, but for the installation
    readme = (tmp_path / "bundle" / "README.txt").read_text().replace("FOLDER", str(toy_csv))
    commands = re.findall(r"bin/gapscope ((?:.*\\\n)*.*)\n", readme)
    monkeypatch.chdir(tmp_path / "bundle")
    monkeypatch.setenv("GAP_DATA", "again")
    for command in commands:
        assert cli.main(shlex.split(command.replace("\\\n", " "))) == 0, command
    assert f"{len(ASKED)} the same." in capsys.readouterr().out
    assert not list((tmp_path / "bundle" / "again" / "results").glob("*/head.safetensors"))


def test_a_bundle_beyond_its_size_is_refused_before_anything_is_written(
    data, report, tmp_path, monkeypatch
):
    monkeypatch.setattr(bundle, "BUNDLE_BYTES_MAX", 1_000_000)
    with pytest.raises(BundleTooLarge, match=r"at most 1 MB, got .*code/service/"):
        bundled(data, report, tmp_path / "b.zip")
    assert list(tmp_path.iterdir()) == []


def test_a_head_that_does_not_fit_is_left_out_and_trained_again(data, light, tmp_path, monkeypatch):
    whole = bundled(data, light, tmp_path / "b.zip")
    assert whole.left_out == []
    monkeypatch.setattr(bundle, "BUNDLE_BYTES_MAX", whole.n_bytes - 100)
    found = bundled(data, light, tmp_path / "b.zip")
    assert len(found.left_out) == 1
    with zipfile.ZipFile(tmp_path / "b.zip") as packed:
        packed.extractall(tmp_path / "b")
        assert b"--retrain" in packed.read("README.txt")
    without = again(data, light, results=tmp_path / "b" / "results")
    assert not without.all_same
    assert any("--retrain trains it" in sentence for sentence in without.computed)
    assert again(data, light, results=tmp_path / "b" / "results", retrain=True).all_same


def test_a_bundle_with_a_card_that_is_none_is_refused(data, light, tmp_path):
    bundled(data, light, tmp_path / "b.zip")
    with zipfile.ZipFile(tmp_path / "b.zip") as packed:
        packed.extractall(tmp_path / "b")
    card = tmp_path / "b" / "results" / "mean" / "model.json"
    told = json.loads(card.read_text())
    for wrong in ("[]", json.dumps(told | {"model": "../../x"}), json.dumps({"model": "mean"})):
        card.write_text(wrong)
        with pytest.raises(BadReport, match="card"):
            again(data, light, results=tmp_path / "b" / "results")
    with pytest.raises(BadReport, match="folder"):
        again(data, light, results=tmp_path / "nothing")


def test_a_report_of_the_command_line_is_the_same_when_computed_again(
    data, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("GAP_DATA", str(data))
    monkeypatch.chdir(tmp_path)
    assert cli.main(["report", "logistic", "mean", "--bundle", "report.rar"]) == 2
    assert "ends in .zip" in capsys.readouterr().err
    assert cli.main(["report", "logistic", "mean", "--bundle", "report.zip"]) == 0
    assert "report.zip" in capsys.readouterr().out
    with zipfile.ZipFile("report.zip") as packed:
        assert {"report.pdf", "report.html", "report.json"} <= {*packed.namelist()}
    assert cli.main(["reproduce", "report.json"]) == 0, capsys.readouterr().out
