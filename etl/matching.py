"""Which known path an asked path means, where the folders around the file are not the same.

An annotation file calls an image `ILSVRC2012_val_00000293.JPEG`, the database
`val/n01440764/ILSVRC2012_val_00000293.JPEG`, the disk
`ILSVRC/Data/CLS-LOC/val/ILSVRC2012_val_00000293.JPEG`. The same function joins all three.
"""

import duckdb
import numpy as np
import pyarrow as pa

MATCHED, AMBIGUOUS, UNMATCHED = "matched", "ambiguous", "unmatched"

# components of a path: either slash, no empty ones, accents in one form on every file system
_PARTS = r"""list_filter(
    string_split(replace(nfc_normalize(coalesce(path, '')), '\', '/'), '/'),
    lambda part: part not in ('', '.')
)"""
_WHOLE = 1_000_000  # shared components where the paths are equal: more than any suffix has
# a name that every class folder may hold: a number of fewer than eight digits, or the loader's own
_SHORT_NUMBER = r"(row-)?\d{1,7}(\.\w+)?"
_WNID, _NUMBER = r"n\d{8}", r"\d{1,7}"


def match(asked: pa.Table, known: pa.Table) -> pa.Table:
    r"""Known path that each asked path means: status and row, in the order of `asked`.

    A path is read as its components; backslashes separate too. Equal paths match. Else the longest
    suffix, in whole components, that the asked path shares with any known path decides: one known
    path with it is `matched`, several are `ambiguous`, none is `unmatched`. Either path may be the
    longer one, and other folders may stand in front of the suffix on both sides.

    Where both do have another folder in front of it (`a` asked, `k` known), the suffix may be equal
    by accident, so the two are no match when

    - the suffix is the bare file name, and that is a number of fewer than eight digits (`0.png`,
      `row-7`): every class folder has one;
    - the suffix is the bare file name, and `a` and `k` are two WordNet ids or two numbers: the
      class folders disagree;
    - the known side has a folder `a` beside `k`, or the asked side a folder `k` beside `a`: the
      file is missing there, not called otherwise.

    One known path goes to the asked path that shares most with it; where two different asked paths
    share equally much, both are `ambiguous`.

    Parameters
    ----------
    asked
        Columns split (null or empty: any) and path.
    known
        Columns split and path.

    Returns
    -------
    pa.Table
        `status` (matched, ambiguous, unmatched) and `known_row` (row in `known`, from 0; null but
        where matched), one row for each of `asked`.

    Examples
    --------
    >>> known = pa.table({"split": ["val", "v2"], "path": ["val/n01/a_1.JPEG", "v2/0/b.jpeg"]})
    >>> asked = pa.table(
    ...     {"split": ["val", None, None], "path": ["a_1.JPEG", r"v2\0\b.jpeg", "v2/1/b.jpeg"]}
    ... )
    >>> match(asked, known).to_pylist()
    [{'status': 'matched', 'known_row': 0},
     {'status': 'matched', 'known_row': 1},
     {'status': 'unmatched', 'known_row': None}]
    """
    con = duckdb.connect()
    try:
        con.execute("set enable_progress_bar = false")
        _read(con, asked, known)
        _find_longest_suffix(con)
        _leave_out_accidents(con)
        _give_each_known_path_once(con)
        return con.execute(
            f"""select
                coalesce(found.status, '{UNMATCHED}') as status,
                case when found.status = '{MATCHED}' then found.known_row end as known_row
            from asked left join found on asked.asked_row = found.asked_row
            order by asked.asked_row"""
        ).to_arrow_table()
    finally:
        con.close()


def _read(con: duckdb.DuckDBPyConnection, asked: pa.Table, known: pa.Table) -> None:
    """Make tables asked and known; a scope is a split, or '' for asked paths that name none."""
    for name, table in (("asked", asked), ("known", known)):
        con.register(
            f"{name}_given",
            pa.table(
                {
                    "row": np.arange(table.num_rows),
                    "split": table["split"].cast(pa.string()),
                    "path": table["path"].cast(pa.string()),
                }
            ),
        )
    con.execute(
        f"""create temp table asked as
        select row as asked_row, coalesce(split, '') as scope, {_PARTS} as parts
        from asked_given"""
    )
    # each known path in its split's scope and in the one of all splits, where anybody asks there
    con.execute(
        f"""create temp table known as
        select row as known_row, split as scope, {_PARTS} as parts from known_given
        where split <> '' and split in (select scope from asked)"""
    )
    con.execute(
        f"""insert into known
        select row as known_row, '' as scope, {_PARTS} as parts from known_given
        where exists (from asked where scope = '')"""
    )
    for name in ("asked_given", "known_given"):
        con.unregister(name)


def _find_longest_suffix(con: duckdb.DuckDBPyConnection) -> None:
    """Make table found: for each asked row one known row with its longest suffix, and how many."""
    con.execute("create temp table open as from asked where len(parts) > 0")
    con.execute(
        """create temp table found (
            asked_row bigint, known_row bigint, n_known bigint, n_shared bigint, status varchar
        )"""
    )
    _find(con, "array_to_string(parts, '/')", 1, _WHOLE)
    deepest = con.execute(
        """select least((select max(len(parts)) from open), (select max(len(parts)) from known))"""
    ).fetchall()[0][0]
    for n_shared in range(deepest or 0, 0, -1):
        _find(con, f"array_to_string(parts[-{n_shared}:], '/')", n_shared, n_shared)


def _find(con: duckdb.DuckDBPyConnection, suffix: str, least: int, n_shared: int) -> None:
    # known paths are counted by suffix before the join: names such as 0.png would make it quadratic
    con.execute(
        f"""create or replace temp table hit as
        with wanted as (
            select asked_row, scope, {suffix} as suffix from open where len(parts) >= {least}
        ),
        counted as (
            select scope, suffix, count(*) as n_known, min(known_row) as known_row
            from (select scope, {suffix} as suffix, known_row from known
                where len(parts) >= {least})
            where (scope, suffix) in (select (scope, suffix) from wanted)
            group by scope, suffix
        )
        select wanted.asked_row, counted.known_row, counted.n_known
        from wanted
        inner join counted on wanted.scope = counted.scope and wanted.suffix = counted.suffix"""
    )
    con.execute(
        f"""insert into found
        select asked_row, known_row, n_known, {n_shared},
            case when n_known = 1 then '{MATCHED}' else '{AMBIGUOUS}' end
        from hit"""
    )
    con.execute("delete from open where asked_row in (select asked_row from hit)")


def _leave_out_accidents(con: duckdb.DuckDBPyConnection) -> None:
    """Apply the three rules for a suffix with another folder in front of it on both sides."""
    for side in ("asked", "known"):
        con.execute(
            f"""create temp table {side}_folder as
            with folder as (select distinct scope, parts[:-2] as parts from {side}),
            depth as (select *, unnest(range(1, len(parts) + 1)) as n from folder)
            select distinct scope, array_to_string(parts[:n], '/') as folder from depth"""
        )
    con.execute(
        f"""create temp table doubt as
        select
            found.asked_row,
            asked.scope,
            found.n_shared,
            asked.parts[-1] as name,
            asked.parts[-1 - found.n_shared] as a,
            known.parts[-1 - found.n_shared] as k,
            array_to_string(
                list_append(known.parts[:-2 - found.n_shared], asked.parts[-1 - found.n_shared]),
                '/'
            ) as beside_k,
            array_to_string(
                list_append(asked.parts[:-2 - found.n_shared], known.parts[-1 - found.n_shared]),
                '/'
            ) as beside_a
        from found
        inner join asked on found.asked_row = asked.asked_row
        inner join known on found.known_row = known.known_row and asked.scope = known.scope
        where
            found.n_shared < {_WHOLE}
            and len(asked.parts) > found.n_shared
            and len(known.parts) > found.n_shared"""
    )
    con.execute(
        f"""delete from found where asked_row in (
            select asked_row from doubt
            where
                (n_shared = 1 and regexp_full_match(name, '{_SHORT_NUMBER}'))
                or (
                    n_shared = 1
                    and regexp_full_match(a, '{_WNID}') and regexp_full_match(k, '{_WNID}')
                )
                or (
                    n_shared = 1
                    and regexp_full_match(a, '{_NUMBER}') and regexp_full_match(k, '{_NUMBER}')
                    and ltrim(a, '0') <> ltrim(k, '0')
                )
                or (scope, beside_k) in (select (scope, folder) from known_folder)
                or (scope, beside_a) in (select (scope, folder) from asked_folder)
        )"""
    )


def _give_each_known_path_once(con: duckdb.DuckDBPyConnection) -> None:
    con.execute(
        f"""create temp table claim as
        with several as (
            select known_row, max(n_shared) as most from found
            where status = '{MATCHED}' group by known_row having count(*) > 1
        )
        select
            found.asked_row,
            found.known_row,
            found.n_shared = several.most as is_nearest,
            array_to_string(asked.parts, '/') as path
        from found
        inner join several on found.known_row = several.known_row
        inner join asked on found.asked_row = asked.asked_row
        where found.status = '{MATCHED}'"""
    )
    con.execute(
        "delete from found where asked_row in (select asked_row from claim where not is_nearest)"
    )
    con.execute(
        f"""update found set status = '{AMBIGUOUS}'
        where asked_row in (select asked_row from claim) and known_row in (
            select known_row from claim where is_nearest
            group by known_row having count(distinct path) > 1
        )"""
    )
