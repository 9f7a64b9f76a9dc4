"""The SQL files themselves: names, headers, comments, style."""

import re

import duckdb
import pytest
import sqlfluff
from sqlfluff.core import FluffConfig

from etl.database import SQL, attach, sql_files
from tests.contract.sql_readme import sql_readme
from tests.world import SHARED  # noqa: F401 (the tests' only path outside the repository)

HEADER = ("grain", "reads", "missing", "units", "source")
FILES = sql_files()


def test_every_file_in_the_folder_runs():
    assert sorted(FILES) == sorted(SQL.glob("*.sql"))
    assert len({file.name[:2] for file in FILES}) == len(FILES)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_file_makes_what_its_name_says_and_says_what_it_is(file):
    text = file.read_text()
    lines = text.splitlines()
    for key, line in zip(HEADER, lines, strict=False):
        assert re.match(rf"-- {key}: \S", line), f"{file.name} wants a line '-- {key}: …'"
    kind = "table" if file.name.startswith("0") else "view"
    assert f"create {kind} {file.stem[3:]}" in text
    assert len(re.findall(r"^create ", text, re.MULTILINE)) == 1


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_style_is_kept(file):
    config = FluffConfig.from_path(str(SQL.parent / "pyproject.toml"))
    faults = sqlfluff.lint(file.read_text(), config=config)
    assert [f"{f['start_line_no']}: {f['code']} {f['description']}" for f in faults] == []


def test_every_table_view_and_column_has_a_comment(toy_data):
    con = duckdb.connect()
    attach(con, toy_data)
    bare = con.execute(
        """select table_name, column_name from duckdb_columns()
        where database_name = 'gap' and schema_name = 'main' and comment is null
        union all select view_name, '' from duckdb_views()
        where database_name = 'gap' and not internal and comment is null
        union all select table_name, '' from duckdb_tables()
        where database_name = 'gap' and schema_name = 'main' and comment is null"""
    ).fetchall()
    assert bare == []


def test_the_readme_is_not_stale():
    assert (SQL / "README.md").read_text() == sql_readme(), "run make docs"
