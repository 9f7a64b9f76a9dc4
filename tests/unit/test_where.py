"""Conditions as people type them, and as people should not."""

import time

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import BadFilter
from service.gap.where import matching, parse, parse_order, written

TABLE = pa.table(
    {
        "split": ["val", "val", "v2", "v2"],
        "path": ["val/a.png", "val/o'b.png", "v2/c d.png", "v2/100%.png"],
        "label": [0, 1, 2, 3],
        "correct": [True, False, True, False],
        "confidence": [0.9, 0.4, None, 0.6],
        'odd "name"': [1.0, 2.0, None, 4.0],
        "kind": ["x", None, "y", "and"],
    }
)
FIELDS = dict(zip(TABLE.column_names, TABLE.schema.types, strict=True))


def labels(text):
    return matching(TABLE, parse(text, FIELDS))["label"].to_pylist()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", [0, 1, 2, 3]),
        ("   ", [0, 1, 2, 3]),
        ("split = v2", [2, 3]),
        ("split=v2 and label>2", [3]),
        ("SPLIT = v2", BadFilter),
        ("label <= 1 AND correct = TRUE", [0]),
        ("correct != true", [1, 3]),
        ("confidence >= .4", [0, 1, 3]),
        ("confidence != 0.9", [1, 3]),  # what is unknown meets nothing
        ("confidence < 1e0 and confidence > -1", [0, 1, 3]),
        ("path = 'val/o''b.png'", [1]),
        ("path = 'v2/c d.png'", [2]),
        ("path like 'val/%'", [0, 1]),
        ("path like %/_.png", [0]),
        ("path LIKE '%100\\%%'", [3]),
        ('"odd ""name""" > 1.5', [1, 3]),
        ("kind = and and label = 3", [3]),
        ("kind = 'and'", [3]),
        ("kind = ''", []),
        ("kind != x", [2, 3]),
    ],
)
def test_conditions(text, expected):
    if expected is BadFilter:
        with pytest.raises(BadFilter):
            parse(text, FIELDS)
    else:
        assert labels(text) == expected


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("1=1", "wanted a field"),
        ("label = 1; drop table image", "wanted and"),
        ("label = 1 or 1=1", "wanted and"),
        ("label = 1 -- comment", "wanted and"),
        ("label = 1 and", "wanted and, or the end"),
        ("label = 1 and ", "wanted a field"),
        ("label = (select 1)", "wanted a word"),
        ("label = 1) union select *", "wanted and"),
        ("path = 'x' or 'a' = 'a'", "wanted and"),
        ("path = 'open", "wanted a word"),
        ('path = "x"', "wanted a word"),
        ("read_csv('/etc/passwd') = 1", "wanted a field"),
        ("__class__ = 1", "wanted a field"),
        ("nll < 1", "wanted a field"),
        ("label", "wanted one of"),
        ("label =", "wanted a word"),
        ("label is null", "wanted one of"),
        ("label == 1", "wanted a word"),
        ("label <> 1", "wanted a word"),
        ("label = nan", "with a number"),
        ("label = inf", "with a number"),
        ("label = 0x10", "with a number"),
        ("label = 1_000", "with a number"),
        ("label = 1e9999", "with a number"),
        ("label = '1' and label like 1", "with a number"),
        ("correct = maybe", "wanted correct = true"),
        ("correct < true", "wanted correct = true"),
        ("path < b", "a text"),
        ("label = 1 andlabel = 2", "wanted and"),
        ("\x00 = 1", "wanted a field"),
        ("label = 1 and " * 30 + "label = 1", "at most 20 conditions"),
        ("x" * 1001, "at most 1,000 characters"),
        ("'" * 999, "wanted a field"),
    ],
)
def test_hostile_texts_are_refused_with_what_was_wanted(text, wanted):
    with pytest.raises(BadFilter, match="wanted") as refused:
        parse(text, FIELDS)
    assert wanted in str(refused.value)
    assert len(str(refused.value)) < 400


@given(st.text(alphabet="label=<>!'\" and()%_;-1.x\\\n", max_size=120))
def test_any_text_is_conditions_or_a_refusal(text):
    try:
        found = parse(text, FIELDS)
    except BadFilter:
        return
    assert len(matching(TABLE, found)) <= 4
    assert all(one.field in FIELDS for one in found)


def test_long_patterns_take_no_time():
    began = time.perf_counter()
    labels("path like '" + "%a" * 400 + "b'")
    for text in ('"' + '""' * 400, "kind = '" + "''" * 400, "label" + " " * 900):
        with pytest.raises(BadFilter):
            parse(text, FIELDS)
    assert time.perf_counter() - began < 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("label", ("label", "ascending")),
        (" label DESC ", ("label", "descending")),
        ('"odd ""name""" asc', ('odd "name"', "ascending")),
    ],
)
def test_orders(text, expected):
    assert parse_order(text, FIELDS) == expected


@pytest.mark.parametrize("text", ["", "nll", "label down", "label desc, path", "label; --", "1"])
def test_orders_that_are_none(text):
    with pytest.raises(BadFilter, match="wanted"):
        parse_order(text, FIELDS)


@pytest.mark.parametrize(
    "text",
    [
        "split = v2 and label > 2",
        "path = 'val/o''b.png'",
        "path like '%100\\%%' and correct != true",
        '"odd ""name""" > 1.5 and confidence <= 0.25',
        "kind = and and kind != 'and x' and kind = ''",
        "",
    ],
)
def test_written_conditions_are_read_as_the_same(text):
    found = parse(text, FIELDS)
    assert parse(written(found), FIELDS) == found
    assert written(parse(written(found), FIELDS)) == written(found)
