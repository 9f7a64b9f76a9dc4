"""Whether any test row took part in a model: proved from what is stored, found where it did.

Test labels are not read. What a model learnt from is known by the hashes that were stored with it;
the vectors themselves are those of the database, as far as they are still the same rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from models.leaks import NearDuplicates, first_of_each, near_duplicates, row_hashes
from service.database import Database
from service.evaluations import SEED
from service.importing import LEARNT_FROM
from service.looks import Looks
from service.register import Register
from service.results import IMPORTED, Results, path_hashes, rows_digest, train_row_table
from service.schemas import AuditOut, CheckOut, PairOut
from service.terminal import Progress

_EXAMPLES = 5
_TEXT = {  # what each check proves, in the order in which they are made
    "head": "the head is the one that was stored with the card",
    "rows_digest": "the rows that it learnt from are those that were stored with it",
    "test_path": "no path of a test image is among them",
    "image_id": "no image is in a train and in a test split",
    "exact_vector": "no test row has the very features of a train row",
    "near_duplicate": "no test row is closer to a train row than chance allows",
    "roles": "only splits of role train were read for fit and selection",
    "records": "what was registered before it was scored is as it was written",
}
_REGISTERS = ("hypotheses", "seals")
_TESTED = "hypothesis-"  # and the id: name of the head that a test makes


@dataclass(frozen=True)
class Audit:
    """What an audit found, and which train rows to leave out for it.

    Attributes
    ----------
    answer : as it is shown
    leave_out : paths of the train rows that are copies of test rows
    """

    answer: AuditOut
    leave_out: list[str]


@dataclass(frozen=True)
class _Rows:
    """Rows of both sides: hashes as stored, vectors and paths as the database has them."""

    stored: pa.Table
    paths: np.ndarray
    hashes: np.ndarray
    took_part: np.ndarray  # which of the database's train rows are among the stored ones
    features: Any
    test_splits: np.ndarray
    test_paths: np.ndarray
    test_features: np.ndarray

    @property
    def has_vectors(self) -> bool:
        return "vector_hash" in self.stored.column_names

    @property
    def n_gone(self) -> int:
        """Stored rows that the database no longer has."""
        return len(self.stored) - int(self.took_part.sum())


def audit_model(
    database: Database,
    results: Results,
    model: str,
    *,
    progress: Progress = lambda _share, _message: None,
) -> Audit:
    """Hold the rows that a model learnt from against every test row of its backbone.

    Raises
    ------
    NotFound, NoDatabase
    """
    card = results.card(model)
    unknown = _unknown(card)
    if unknown is not None:
        sentence = f"What it learnt from is {unknown}."
        checks = [_check(name, None, sentence) for name in _TEXT if name != "records"]
        return Audit(_answer(card, checks, n_train=None, n_test=0, closest=[]), [])
    progress(0.0, "reading the rows")
    rows = _read(database, results.train_rows(model), card["backbone"])
    progress(0.1, "looking for equal rows")
    checks = [
        _head(card, results),
        _digest(card, rows),
        _test_path(database, rows),
        _image_id(database),
    ]
    exact, leave_exact = _exact_vector(rows)

    def part(share: float, message: str) -> None:
        progress(0.1 + 0.9 * share, message)

    near, leave_near, closest = _near_duplicate(database, card["backbone"], rows, part)
    proved = checks[1].passed is True
    checks += [_unless_proved(exact, proved), _unless_proved(near, proved), _roles(database, card)]
    of_test = np.isin(path_hashes(rows.paths.tolist()), path_hashes(rows.test_paths.tolist()))
    left = np.flatnonzero((leave_exact | leave_near | of_test) & rows.took_part)
    answer = _answer(
        card, checks, n_train=len(rows.stored), n_test=len(rows.test_paths), closest=closest
    )
    return Audit(answer, rows.paths[left].tolist())


def with_records(audit: Audit, data: Path) -> Audit:
    """Add to an audit whether the registered records of a data folder are as they were written."""
    broken = {name: Register(data, name).broken() for name in _REGISTERS}
    found = [f"{name}: {where}" for name, where in broken.items() if where is not None]
    if broken["hypotheses"] is None:
        found += [
            f"hypotheses: {one} was tested (gapscope looks) and is no longer on record"
            for one in _cut_off(data)
        ]
    if found:
        check = _check(
            "records", False, f"Changed by another hand: {'; '.join(found)}.", count=len(found)
        )
    else:
        check = _check("records", True, "Hypotheses and seals are as they were written.")
    checks = [*audit.answer.checks, check]
    passed = _verdict(checks)
    return replace(audit, answer=audit.answer.model_copy(update={
        "checks": checks, "passed": passed
    }))  # fmt: skip


def _cut_off(data: Path) -> list[str]:
    """Ids of hypotheses whose heads looked at test labels, and which are not on record.

    A chain of records without its end is a chain.
    """
    tested = {
        look["model"].removeprefix(_TESTED)
        for look in Looks(data).all()
        if look["purpose"] == "hypothesis" and str(look["model"]).startswith(_TESTED)
    }
    known = [record.sha256 for record in Register(data, _REGISTERS[0]).all()]
    return sorted(one for one in tested if not any(sha.startswith(one) for sha in known))


def _unknown(card: dict[str, Any]) -> str | None:
    """Why nobody here can say what a model learnt from; None where it was trained here."""
    if card["head"] == IMPORTED:
        return LEARNT_FROM
    if card.get("given") is not None:
        return str(card["given"]["learnt_from"])
    between = card.get("interpolated")
    if between is not None and card.get("rows") is None:
        return f"not known here: {between['learnt_from'] or 'that of the two heads'}"
    return None


def _read(database: Database, stored: pa.Table, backbone: str) -> _Rows:
    train, paths = database.train_rows(backbone)
    hashes = row_hashes(train.features)
    table = train_row_table(paths, hashes, np.zeros(len(paths), np.uint8)).drop_columns("fold")
    both = [name for name in table.column_names if name in stored.column_names]
    known = stored.select(both).append_column("stored", pa.array(np.arange(len(stored))))
    table = table.append_column("row", pa.array(np.arange(len(paths))))
    took_part = np.zeros(len(paths), bool)
    took_part[table.join(known, both, join_type="inner")["row"].to_numpy()] = True
    tests = database.test_splits(backbone)
    read = [database.unlabelled_rows(backbone, split) for split in tests]
    n_features = train.features.shape[1]
    return _Rows(
        stored=stored,
        paths=np.array(paths, object),
        hashes=hashes,
        took_part=took_part,
        features=train.features,
        test_splits=np.repeat(np.array(tests, object), [len(found) for found, _ in read]),
        test_paths=np.array([path for found, _ in read for path in found], object),
        test_features=np.concatenate(
            [np.empty((0, n_features), np.float32), *(features for _, features in read)]
        ),
    )


def _head(card: dict[str, Any], results: Results) -> CheckOut:
    told = card.get("head_sha256")
    if told is None:
        return _check(
            "head",
            None,
            "This model was stored before heads had digests: train it again.",
        )
    if results.head_sha256(card["model"]) != told:
        return _check(
            "head",
            False,
            "The stored head is not that of the card: it was changed by another hand. Train the "
            "model again.",
            count=1,
        )
    return _check("head", True, f"It is that of the card; digest {told[:12]}.")


def _digest(card: dict[str, Any], rows: _Rows) -> CheckOut:
    told = card.get("rows")
    if told is None or not rows.has_vectors:
        return _check(
            "rows_digest",
            None,
            "This model was stored before rows had digests: nothing can be proved. Train it again.",
        )
    if rows_digest(rows.stored) != told["digest"]:
        return _check(
            "rows_digest",
            False,
            "The stored rows are not those of the card: they were changed by another hand. Train "
            "the model again.",
            count=1,
        )
    if rows.n_gone:
        return _check(
            "rows_digest",
            None,
            f"{rows.n_gone:,} of the {len(rows.stored):,} rows that it learnt from are no longer "
            "in the database: what is said of them rests on their hashes. Train it again on the "
            "present rows.",
            count=rows.n_gone,
        )
    return _check(
        "rows_digest",
        True,
        f"All {len(rows.stored):,} rows that it learnt from are in the database as they were, "
        f"{told['n_selection']:,} of them held out in turn to choose by; digest "
        f"{told['digest'][:12]}.",
    )


def _test_path(database: Database, rows: _Rows) -> CheckOut:
    tests = database.rows("select split, path from labelled_image where role = 'test'")
    known = rows.stored["path_hash"].to_numpy()
    found = np.flatnonzero(np.isin(path_hashes([row["path"] for row in tests]), known))
    pairs = [
        PairOut(
            test_split=tests[i]["split"], test_path=tests[i]["path"], train_path=tests[i]["path"]
        )
        for i in found[:_EXAMPLES]
    ]
    return _counted("test_path", len(found), f"of {len(tests):,} test images", pairs)


def _image_id(database: Database) -> CheckOut:
    found = database.rows(
        """select test.split as test_split, test.path as test_path, train.path as train_path
        from labelled_image as train
        inner join labelled_image as test on train.image_id = test.image_id
        where train.role = 'train' and test.role = 'test'
        order by train.image_id"""
    )
    pairs = [PairOut(**row) for row in found[:_EXAMPLES]]
    return _counted("image_id", len(found), "of all images", pairs)


def _exact_vector(rows: _Rows) -> tuple[CheckOut, np.ndarray]:
    leave_out = np.zeros(len(rows.paths), bool)
    if not rows.has_vectors:
        return _check("exact_vector", None, "No hashes of vectors were stored."), leave_out
    known = rows.stored["vector_hash"].to_numpy()
    asked = row_hashes(rows.test_features)
    # a hash of a row that is gone cannot be checked by bytes, and counts as it stands
    gone = np.setdiff1d(known, rows.hashes[rows.took_part])
    is_empty = ~rows.test_features.any(axis=1)
    hit = np.flatnonzero(np.isin(asked, known) & ~is_empty)
    there = np.flatnonzero(rows.took_part & np.isin(rows.hashes, asked[hit]))
    first = {}
    for place in there[::-1].tolist():
        first[int(rows.hashes[place])] = place
    found: list[int] = []
    pairs: list[PairOut] = []
    equal = set()
    for query in hit.tolist():
        place = first.get(int(asked[query]))
        path = "(no longer in the database)"
        if place is not None:
            train_row = rows.features[place : place + 1][0]
            if train_row.tobytes() != rows.test_features[query].tobytes():
                continue
            path = rows.paths[place]
            equal.add(int(asked[query]))
        elif asked[query] not in gone:
            continue
        found.append(query)
        if len(pairs) < _EXAMPLES:
            pairs.append(_pair(rows, query, path, 0.0))
    leave_out[there[[int(h) in equal for h in rows.hashes[there]]]] = True
    what = f"of {len(rows.test_paths):,} test rows"
    if is_empty.any():
        what += f" ({int(is_empty.sum()):,} are nothing but zeros and tell nothing)"
    return _counted("exact_vector", len(found), what, pairs), leave_out


def _near_duplicate(
    database: Database, backbone: str, rows: _Rows, progress: Progress
) -> tuple[CheckOut, np.ndarray, list[PairOut]]:
    leave_out = np.zeros(len(rows.paths), bool)
    there = np.flatnonzero(rows.took_part)
    if len(there) == 0 or len(rows.test_paths) == 0:
        return _check("near_duplicate", None, "There is nothing to compare."), leave_out, []
    counts = np.zeros(len(rows.paths), bool)
    counts[there] = first_of_each(rows.hashes[there])
    found = near_duplicates(
        rows.features,
        rows.test_features,
        mean=database.train_mean(backbone),
        sd=database.train_sd(backbone),
        counts=counts,
        seed=SEED,
        progress=progress,
    )
    leave_out[np.isin(rows.hashes, rows.hashes[found.place])] = True
    order = np.argsort(found.distance, kind="stable")[:_EXAMPLES]
    pairs = [
        _pair(rows, found.query[i], rows.paths[found.place[i]], found.distance[i]) for i in order
    ]
    nearest = found.nearest.distance[:, 0]
    closest = [
        _pair(rows, i, rows.paths[found.nearest.place[i, 0]], nearest[i])
        for i in np.argsort(nearest, kind="stable")[:_EXAMPLES]
        if np.isfinite(nearest[i])
    ]
    return _judged(found, len(rows.test_paths), pairs), leave_out, closest


def _judged(found: NearDuplicates, n_test: int, pairs: list[PairOut]) -> CheckOut:
    told = found.threshold
    if not told.can_tell:
        return _check(
            "near_duplicate",
            None,
            f"Too few train rows, or too few dimensions: {told.n:,} train rows held against the "
            "others do not show how close rows come by chance.",
        )
    n = len(np.unique(found.query))
    # a change of e standard deviations in every feature makes 1 - cosine about e squared over 2
    change = (2 * told.distance) ** 0.5
    about = (
        f"1 − cosine below {told.distance:.2g} (features changed by about {change:.0%}), and below "
        f"{told.ratio:.2g} of that of neighbour {told.k}: calibrated on {told.n:,} train rows, of "
        f"which {told.n_twins:,} have a near-duplicate among the train rows"
    )
    if found.n_crowded and not n:
        return _check(
            "near_duplicate",
            None,
            f"{found.n_crowded:,} test rows are as close to {told.k} train rows as copies would "
            f"be: copies and a crowd look alike there. {about}.",
            count=found.n_crowded,
        )
    check = _counted("near_duplicate", n, f"of {n_test:,} test rows", pairs)
    return check.model_copy(update={"sentence": f"{check.sentence} Held to be one: {about}."})


def _roles(database: Database, card: dict[str, Any]) -> CheckOut:
    told = card.get("rows")
    if told is None:
        return _check("roles", None, "Which splits were read was not stored.")
    roles = {row["split"]: row["role"] for row in database.splits_of(card["backbone"])}
    tests = [split for split in told["splits"] if roles.get(split) == "test"]
    names = ", ".join(told["splits"])
    if tests:
        return _check("roles", False, f"Read: {names}; test splits: {', '.join(tests)}.", count=1)
    return _check("roles", True, f"Only {names} was read for fit and selection.")


def _check(
    name: str,
    passed: bool | None,
    sentence: str,
    *,
    count: int = 0,
    examples: Sequence[PairOut] = (),
) -> CheckOut:
    return CheckOut(
        name=name,
        proves=_TEXT[name],
        passed=passed,
        count=count,
        sentence=sentence,
        examples=list(examples),
    )


def _counted(name: str, count: int, what: str, pairs: list[PairOut]) -> CheckOut:
    found = f"{count:,}" if count else "None"
    return _check(name, count == 0, f"{found} {what}.", count=count, examples=pairs)


def _unless_proved(check: CheckOut, proved: bool) -> CheckOut:
    """Nothing found among rows that are not known to be the right ones proves nothing."""
    return check if check.passed is False or proved else check.model_copy(update={"passed": None})


def _pair(rows: _Rows, query: int, train_path: str, distance: float) -> PairOut:
    return PairOut(
        test_split=rows.test_splits[query],
        test_path=rows.test_paths[query],
        train_path=train_path,
        distance=float(distance),
    )


def _answer(
    card: dict[str, Any],
    checks: list[CheckOut],
    *,
    n_train: int | None,
    n_test: int,
    closest: list[PairOut],
) -> AuditOut:
    return AuditOut(
        model=card["model"],
        backbone=card["backbone"],
        passed=_verdict(checks),
        n_train=n_train,
        n_test=n_test,
        checks=checks,
        closest=closest,
    )


def _verdict(checks: Sequence[CheckOut]) -> bool | None:
    said = [check.passed for check in checks]
    return False if False in said else None if None in said else True
