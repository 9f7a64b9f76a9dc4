"""Which errors are refusals of the disk, whichever library raises them (E29, E36)."""

import errno
import sqlite3

import duckdb
import pytest
from safetensors import SafetensorError

from etl.errors import DiskFault, DiskFull
from service import cli
from service.disk import disk_refusal, refusing_disk_faults, set_aside


def of_sqlite(code, words):
    error = sqlite3.OperationalError(words)
    error.sqlite_errorcode = code
    return error


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (OSError(errno.ENOSPC, "x"), DiskFull, "ENOSPC"),
        (OSError(errno.EDQUOT, "x"), DiskFull, "EDQUOT"),
        (OSError(errno.EIO, "x"), DiskFault, "Input/output error (EIO)"),
        (OSError(errno.ESTALE, "x"), DiskFault, "ESTALE"),
        (OSError("Error writing: No space left on device"), DiskFull, "ENOSPC"),
        (of_sqlite(sqlite3.SQLITE_FULL, "database or disk is full"), DiskFull, "ENOSPC"),
        (of_sqlite(sqlite3.SQLITE_IOERR_WRITE, "disk I/O error"), DiskFault, "EIO"),
        (duckdb.IOException("Could not write: No space left on device"), DiskFull, "ENOSPC"),
        (duckdb.IOException("Could not read: Input/output error"), DiskFault, "EIO"),
        (duckdb.IOException("Corrupt database file: computed"), DiskFault, "gap.duckdb"),
        (SafetensorError("I/O error: No space left on device (os error 28)"), DiskFull, "ENOSPC"),
        (OSError(errno.ENOENT, "x"), None, ""),
        (BrokenPipeError(errno.EPIPE, "x"), None, ""),
        (of_sqlite(sqlite3.SQLITE_BUSY, "database is locked"), None, ""),
        (duckdb.BinderException("no such column"), None, ""),
        (ValueError("No space left on device"), None, ""),
    ],
    ids=repr,
)
def test_a_fault_of_the_disk_is_told_from_all_others(error, kind, words, tmp_path):
    found = disk_refusal(error, tmp_path)
    assert type(found) is (kind or type(None))
    assert words in str(found)
    with pytest.raises(kind or type(error)), refusing_disk_faults(tmp_path):
        raise error


def test_a_command_ends_with_the_refusal(tmp_path, monkeypatch, capsys):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setenv("GAP_DATA", str(tmp_path))
    monkeypatch.setattr(cli, "_gaps", full)
    assert cli.main(["gaps", "model"]) == 2
    assert "refused (disk_full)" in capsys.readouterr().err


def test_what_cannot_be_set_aside_is_said(tmp_path):
    assert "could not be set aside" in set_aside(tmp_path / "gone")
    (tmp_path / "there").touch()
    assert "set aside as there.damaged-" in set_aside(tmp_path / "there")
