"""Damaged files of a data folder: named at start, set aside where they can be made again.

What is set aside gets `.damaged-<time>` after its name; nothing is ever deleted. Records of what
was registered, sealed or looked at are never moved: they are named, and nothing is added to a
broken chain. The folders of models are the affair of `service.results`; kept answers are looked at
when they are read (`service.gap.store`).
"""

import json
import logging
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import duckdb
import pyarrow.parquet as pq

from etl.database import DATABASE, LOOKS, RESULTS, attach
from etl.sidecar import ANNOTATIONS, IMAGES, write_empty
from service.disk import UNREADABLE, Damage, disk_refusal, set_aside
from service.errors import BadLine
from service.jobs.table import DATABASE as JOBS
from service.lines import Lines
from service.register import broken_registers
from service.report.kept import FOLDER as REPORTS
from service.report.kept import ID, Reports

_log = logging.getLogger("gapscope")


def find_damage(data: Path) -> list[Damage]:
    """Look through a data folder, set aside what can be made again, and log what was found.

    Called before anything is opened. Vectors and models are not read: it takes moments.
    """
    found = [damage for look in _LOOKS for damage in look(data)]
    for damage in found:
        _log.error("%s", damage)
    # a new table of jobs is there at once, which brings nothing back
    missing = {one.file for one in found if not (data / one.file).exists()} - {JOBS}
    found = [replace(one, is_missing=one.file in missing) for one in found]
    broken_registers(data)  # told in the log; what is broken later is told as well
    return found


def _database(data: Path) -> Iterator[Damage]:
    file = data / DATABASE
    wal = file.with_name(f"{DATABASE}.wal")
    if wal.is_file():
        yield Damage(
            wal.name,
            "a log of changes beside a database that is only ever replaced",
            f"{set_aside(wal)} Change nothing in {DATABASE} by other programs.",
        )
    if not file.is_file():
        return
    con = duckdb.connect()
    try:
        attach(con, data)
        con.execute("from split_summary").fetchall()
        con.execute("select count(path), sum(class_id) from image").fetchall()
    except duckdb.Error as error:
        said = str(error).splitlines()[0][:200].replace(str(data.resolve()), "")
        if disk_refusal(error, data) is not None or "lock" in said:
            yield Damage(file.name, f"it cannot be read: {said}", "Check the disk, start again.")
        elif "version number" in said or isinstance(error, duckdb.CatalogException):
            yield Damage(
                file.name,
                f"another version of Gapscope wrote it: {said}",
                "Start that version, or load all files again: gapscope load FOLDER --replace.",
            )
        else:
            yield Damage(
                file.name,
                said,
                f"{set_aside(file)} Load all files again: gapscope load FOLDER.",
            )
    finally:
        con.close()


def _jobs(data: Path) -> Iterator[Damage]:
    file = data / JOBS
    if not file.is_file():
        return
    try:
        with closing(sqlite3.connect(file, timeout=5)) as con:
            (said,) = con.execute("pragma quick_check(1)").fetchone()
            if said == "ok" and con.execute("select 1 from sqlite_schema").fetchone():
                bad = "select count(*) from job where not json_valid(request)"
                (n_bad,) = con.execute(bad).fetchone()
                said = f"{n_bad} jobs whose requests are none" if n_bad else "ok"
    except sqlite3.Error as error:
        if isinstance(error, sqlite3.OperationalError) and "locked" in str(error):
            return
        said = str(error)
    if said != "ok":
        todo = set_aside(file)
        for beside in ("-wal", "-shm"):
            if (log := file.with_name(JOBS + beside)).exists():
                set_aside(log)
        yield Damage(file.name, said, f"{todo} The list of jobs begins anew; ask for them again.")


def _looks(data: Path) -> Iterator[Damage]:
    looks = data / RESULTS / LOOKS
    if looks.is_file():
        lines = looks.read_bytes().splitlines()
        n_bad = sum(not _is_look(line) for line in lines)
        if n_bad:
            yield Damage(
                f"{RESULTS}/{LOOKS}",
                f"{n_bad} of {len(lines)} lines are no record of a look",
                "Bring it back from a copy; the other lines count, and new ones are added.",
            )


def _is_look(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _reports(data: Path) -> Iterator[Damage]:
    for folder in sorted((data / REPORTS).glob("*")):
        wrong = Reports(data).wrong(folder.name) if re.fullmatch(ID, folder.name) else None
        if wrong is not None:
            yield Damage(
                f"{REPORTS}/{folder.name}", wrong, f"{set_aside(folder)} Make the report again."
            )


def _beside(data: Path) -> Iterator[Damage]:
    """Look at what is attached beside the database: views read all, so that one would harm all."""
    again = {ANNOTATIONS: "gapscope annotate FILE", IMAGES: "gapscope link-images FOLDER"}
    for folder, command in again.items():
        for file in sorted((data / folder).glob("*.parquet")):
            try:
                pq.read_table(file, partitioning=None, page_checksum_verification=True)
            except UNREADABLE as error:
                todo = f"{set_aside(file)} Attach it again: {command}."
                yield Damage(f"{folder}/{file.name}", str(error).splitlines()[0][:200], todo)
    if (data / DATABASE).is_file():
        with suppress(OSError):  # views find nothing to read without the typed empty files
            write_empty(data)
    lines = Lines(data)
    for file in lines.files():
        try:
            lines.read(file)
        except BadLine:
            yield Damage(
                f"lines/{file.name}",
                "it is not as it was stored",
                f"{set_aside(file)} Add it again: gapscope add-line.",
            )
    for file in sorted((data / "backbones").glob("*.json")):
        try:
            json.loads(file.read_bytes())
        except ValueError:
            todo = f"{set_aside(file)} Load the features again, to classify images."
            yield Damage(f"backbones/{file.name}", "it is no JSON", todo)


_LOOKS: tuple[Callable[[Path], Iterator[Damage]], ...] = (
    _database,
    _jobs,
    _looks,
    _reports,
    _beside,
)
