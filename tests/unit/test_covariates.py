"""Annotation files to typed columns, or a refusal that says where and why."""

import os

import pandas as pd
import pytest

from etl.covariates import read_covariates
from etl.errors import LoadRefused


def read(tmp_path, text, name="a.csv"):
    file = tmp_path / name
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_covariates(file)


def test_a_column_is_numbers_where_every_cell_is_one(tmp_path):
    found = read(
        tmp_path,
        "\ufeff,split,path,human,flag,kind,mixed,none\r\n"
        '0,val,"a,1.png",+.5,True,old,1,\r\n'
        "1,,b.png,1e3,false,,x,\r\n"
        "2,v2,c.png,NA,,new,2,\r\n",
    )
    assert found.splits.to_pylist() == ["val", None, "v2"]
    assert found.paths.to_pylist() == ["a,1.png", "b.png", "c.png"]
    assert {name: column.to_pylist() for name, column in found.columns.items()} == {
        "human": [0.5, 1000.0, None],
        "flag": [1.0, 0.0, None],
        "kind": ["old", None, "new"],
        "mixed": ["1", "x", "2"],
        "none": [None, None, None],
    }
    assert found.n_not_finite == 0


def test_numbers_that_are_not_finite_become_null_and_are_counted(tmp_path):
    found = read(tmp_path, "path,x\na,nan\nb,-inf\nc,1e39\nd,1e400\ne,2\n")
    assert found.columns["x"].to_pylist() == [None, None, None, None, 2.0]
    assert found.n_not_finite == 4


def test_parquet_says_its_types_itself(tmp_path):
    table = pd.DataFrame(
        {
            "path": ["a", "b", "c"],
            "n": pd.array([1, None, 3], "Int64"),
            "x": [0.5, float("inf"), 1e300],
            "digits": ["0 758", "7", None],
            "kind": pd.Categorical(["u", "v", "u"]),
            "flag": [True, False, True],
            "nothing": [None, None, None],
        }
    )
    table.to_parquet(tmp_path / "a.parquet")
    found = read_covariates(tmp_path / "a.parquet")
    assert {name: column.to_pylist() for name, column in found.columns.items()} == {
        "n": [1.0, None, 3.0],
        "x": [0.5, None, None],
        "digits": ["0 758", "7", None],
        "kind": ["u", "v", "u"],
        "flag": [1.0, 0.0, 1.0],
        "nothing": [None, None, None],
    }
    assert found.n_not_finite == 2
    assert found.splits.null_count == 3


@pytest.mark.parametrize(
    ("text", "code", "line"),
    [
        ("", "empty_file", None),
        ("path,x\n", "empty_file", None),
        ("path,x", "empty_file", None),
        ('path,x\na,"1\nb,2\nc,3\n', "ragged_row", None),
        ("x,y\n1,2\n", "header_mismatch", 1),
        ("filename,y\n1,2\n", "header_mismatch", 1),
        ("path;x\na;1\n", "header_mismatch", 1),
        ("path,x,x\na,1,2\n", "header_mismatch", 1),
        ("path,x,\na,1,2\n", "header_mismatch", 1),
        ('path,"a\x1b[31m"\na,1\n', "header_mismatch", 1),
        ("path\na\n", "no_covariate", 1),
        ("split,path\nval,a\n", "no_covariate", 1),
        ("path,x\na,1\nb,2,3\n", "ragged_row", 3),
        ("path,x\na,1\nb\n", "ragged_row", 3),
        ('path,x\n"a\nb",1\nc\n', "ragged_row", 4),
        (b"path,x\na,1\n\xff,2\n", "encoding", 3),
        (b"\xff\xfep\0", "encoding", 1),
        (b"\x89PNG\r\n", "not_csv", None),
        (b"PAR1 and nothing more", "not_csv", None),
        ("path,x\ra,1\r", "not_csv", None),
    ],
)
def test_a_bad_file_is_refused(tmp_path, text, code, line):
    with pytest.raises(LoadRefused) as refused:
        read(tmp_path, text)
    assert (refused.value.code, refused.value.line) == (code, line)
    assert refused.value.file is not None


def test_what_is_no_table_is_refused(tmp_path):
    for place in (tmp_path / "none.csv", tmp_path, tmp_path / "pipe"):
        if place.name == "pipe":
            os.mkfifo(place)
        with pytest.raises(LoadRefused) as refused:
            read_covariates(place)
        assert refused.value.code == "source_not_found"
    (tmp_path / "a.parquet").write_text("path,x\na,1\n")
    with pytest.raises(LoadRefused) as refused:
        read_covariates(tmp_path / "a.parquet")
    assert refused.value.code == "not_csv"


@pytest.mark.parametrize(
    ("changed", "column"),
    [
        ({"x": [[1], [2]]}, "x"),
        ({"x": pd.to_datetime(["2026-01-01", "2026-01-02"])}, "x"),
        ({"path": [["a"], ["b"]]}, None),
    ],
)
def test_lists_and_times_are_refused(tmp_path, changed, column):
    table = pd.DataFrame({"path": ["a", "b"], "x": [1, 2], **changed})
    table.to_parquet(tmp_path / "a.parquet")
    with pytest.raises(LoadRefused) as refused:
        read_covariates(tmp_path / "a.parquet")
    assert (refused.value.code, refused.value.column) == ("covariate_kind", column)
