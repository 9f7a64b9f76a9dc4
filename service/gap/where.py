"""Conditions on the columns of a table, as a person types them: parsed here, run by nobody else.

    condition  ::=  FIELD OP VALUE
    where      ::=  condition { "and" condition }
    OP         ::=  = | != | < | <= | > | >= | like
    VALUE      ::=  word | 'text, a quote in it doubled'
    FIELD      ::=  word | "name of an annotation with spaces, a quote in it doubled"

They look like SQL and never become SQL: a condition is one comparison of one known column with
one value.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from service.errors import BadFilter

_LENGTH_MAX, _CONDITIONS_MAX = 1000, 20
_SPACE = re.compile(r"\s*")
_FIELD = re.compile(r'"((?:[^"]|"")+)"|([^\W\d][\w.\-]*)')
_OP = re.compile(r"<=|>=|!=|=|<|>|like(?=\s|')", re.IGNORECASE)
_VALUE = re.compile(r"'((?:[^']|'')*)'|([^\s'\"<>=!;()]+)")
_AND = re.compile(r"and(?=\s)", re.IGNORECASE)
_NUMBER = re.compile(r"[-+]?(\d{1,30}(\.\d{0,30})?|\.\d{1,30})([eE][-+]?\d{1,3})?")
_COMPARE: Mapping[str, Callable[..., Any]] = {
    "=": pc.equal,
    "!=": pc.not_equal,
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
    "like": pc.match_like,
}
_TEXT_OPS, _BOOL_OPS = ("=", "!=", "like"), ("=", "!=")
_BOOLS = {"true": True, "1": True, "false": False, "0": False}


@dataclass(frozen=True)
class Condition:
    """One comparison of a column with a value of its type."""

    field: str
    op: str
    value: str | float | bool


def parse(text: str, fields: Mapping[str, pa.DataType]) -> list[Condition]:
    """Conditions of a text; none of an empty one.

    Parameters
    ----------
    fields
        The columns that may be named, with their types: texts, numbers, booleans.

    Raises
    ------
    BadFilter

    Examples
    --------
    >>> parse("margin < .5 and split = v2", {"margin": pa.float64(), "split": pa.string()})
    [Condition(field='margin', op='<', value=0.5), Condition(field='split', op='=', value='v2')]
    """
    if len(text) > _LENGTH_MAX:
        raise BadFilter(f"wanted at most {_LENGTH_MAX:,} characters, got {len(text):,}.")
    found: list[Condition] = []
    at = _after(_SPACE, text, 0)
    while at < len(text) or found:
        name, at = _take(_FIELD, text, at, f"a field ({_listed(fields)})")
        if name not in fields:
            raise BadFilter(f"wanted a field ({_listed(fields)}), got {name!r}.")
        op, at = _take(_OP, text, at, f"one of {', '.join(_COMPARE)} after {name}")
        value, at = _take(_VALUE, text, at, f"a word, a number or 'a text' after {name} {op}")
        found.append(_condition(name, op.lower(), value, fields[name]))
        if len(found) > _CONDITIONS_MAX:
            raise BadFilter(f"wanted at most {_CONDITIONS_MAX} conditions, got more.")
        if at == len(text):
            break
        _, at = _take(_AND, text, at, "and, or the end")
    return found


def written(conditions: Sequence[Condition]) -> str:
    """Return conditions as a text that `parse` reads.

    Examples
    --------
    >>> written([Condition("label", ">", 3.0), Condition("correct", "=", False)])
    'label > 3 and correct = false'
    """
    return " and ".join(
        f"{named(one.field)} {one.op} {quoted(shown(one.value))}" for one in conditions
    )


def named(field: str) -> str:
    """Return a field as it stands in a condition.

    Examples
    --------
    >>> named("margin"), named("odd name")
    ('margin', '"odd name"')
    """
    bare = _FIELD.fullmatch(field)
    return field if bare and bare.group(2) else '"' + field.replace('"', '""') + '"'


def shown(value: str | float | bool) -> str:
    """Return a value as a person types it.

    Examples
    --------
    >>> shown(3.0), shown(True), shown("it's")
    ('3', 'true', "it's")
    """
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value).removesuffix(".0") if isinstance(value, float) else value


def quoted(text: str) -> str:
    """Return a value as it stands in a condition.

    Examples
    --------
    >>> quoted("v2"), quoted("it's a")
    ('v2', "'it''s a'")
    """
    bare = _VALUE.fullmatch(text)
    return text if bare and bare.group(2) else "'" + text.replace("'", "''") + "'"


def matching(table: pa.Table, conditions: list[Condition]) -> pa.Table:
    """Rows that meet all conditions; what is unknown meets none."""
    for one in conditions:
        column = table[one.field]
        value = one.value if one.op == "like" else pa.scalar(one.value)
        hit = _COMPARE[one.op](column, value)
        table = table.filter(pc.fill_null(hit, fill_value=False))
    return table


def parse_order(text: str, fields: Mapping[str, pa.DataType]) -> tuple[str, str]:
    """Field and direction (ascending, descending) of `FIELD [asc | desc]`.

    Raises
    ------
    BadFilter

    Examples
    --------
    >>> parse_order("margin desc", {"margin": pa.float64()})
    ('margin', 'descending')
    """
    if len(text) > _LENGTH_MAX:
        raise BadFilter(f"wanted at most {_LENGTH_MAX:,} characters, got {len(text):,}.")
    name, at = _take(_FIELD, text, _after(_SPACE, text, 0), f"a field ({_listed(fields)})")
    if name not in fields:
        raise BadFilter(f"wanted a field ({_listed(fields)}), got {name!r}.")
    way = text[at:].strip().lower()
    if way not in ("", "asc", "desc"):
        raise BadFilter(f"wanted asc, desc or nothing after {name}, got {text[at:]!r}.")
    return name, "descending" if way == "desc" else "ascending"


def _take(pattern: re.Pattern[str], text: str, at: int, wanted: str) -> tuple[str, int]:
    """Return what stands at this place, without its quotes, and where the next thing begins."""
    found = pattern.match(text, at)
    if found is None:
        raise BadFilter(f"wanted {wanted}, got {text[at : at + 40]!r}.")
    quoted = found.group(1) if pattern.groups else None
    value = found.group()
    if quoted is not None:
        value = quoted.replace(2 * value[0], value[0])
    return value, _after(_SPACE, text, found.end())


def _after(pattern: re.Pattern[str], text: str, at: int) -> int:
    found = pattern.match(text, at)
    return at if found is None else found.end()


def _condition(field: str, op: str, value: str, kind: pa.DataType) -> Condition:
    if pa.types.is_boolean(kind):
        if op not in _BOOL_OPS or value.lower() not in _BOOLS:
            raise BadFilter(f"wanted {field} = true or {field} = false, got {op} {value!r}.")
        return Condition(field, op, _BOOLS[value.lower()])
    if pa.types.is_string(kind):
        if op not in _TEXT_OPS:
            raise BadFilter(f"wanted {', '.join(_TEXT_OPS)} after {field}, a text, got {op}.")
        return Condition(field, op, value)
    if op == "like" or not _NUMBER.fullmatch(value):
        raise BadFilter(f"wanted a comparison of {field} with a number, got {op} {value!r}.")
    return Condition(field, op, float(value))


def _listed(fields: Mapping[str, pa.DataType]) -> str:
    return ", ".join(fields)
