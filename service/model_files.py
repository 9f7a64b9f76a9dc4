"""What lies in the folder of a model, judged before it is used: another hand may have changed it.

A file of JSON is read whole only up to a size and held against its schema; of a Parquet file, the
columns and the number of rows are looked at before any row is read.
"""

import json
import os
import stat
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter, ValidationError

from etl.database import PREDICTION_SCHEMA
from service.errors import DamagedModel
from service.evaluations import METRICS
from service.schemas import EstimateOut, ModelOut, StoredCurve

_OF_SCORES = ("evaluation.json", "predictions.parquet")
_JSON_BYTES_MAX = 64 << 20
_ROWS_MAX = 50_000_000  # of ImageNet-21k there are 14 million
TRAIN_ROW_SCHEMA = pa.schema(
    {"path_hash": pa.uint64(), "vector_hash": pa.uint64(), "fold": pa.uint8()}
)


class _Record(EstimateOut):
    """One metric of a model on one split, as evaluation.json has it."""

    model: str
    split: str
    metric: str
    n: int  # type: ignore[assignment]  # of one set, where an answer has those of several
    data_sha256: str


_CARD = TypeAdapter(ModelOut)
_RECORDS = TypeAdapter(list[_Record])
_CURVES = TypeAdapter(list[StoredCurve])
_NAMES = TypeAdapter(list[str])


def read_card(folder: Path) -> dict[str, Any]:
    """Return the card of the model in a folder, with all that it says.

    Raises
    ------
    DamagedModel
    """
    file = folder / "model.json"
    card: dict[str, Any] = _json(file, _CARD)
    if card["model"] != folder.name:
        raise _damaged(file, f"the card of {str(card['model'])[:100]!r}")
    return card


def read_evaluation(folder: Path) -> list[dict[str, Any]]:
    """Return the records of a model's evaluation; empty where there is none.

    Raises
    ------
    DamagedModel
    """
    file = folder / "evaluation.json"
    records: list[dict[str, Any]] = _json(file, _RECORDS) if _is_there(file) else []
    for split in {record["split"] for record in records}:
        found = [record["metric"] for record in records if record["split"] == split]
        if sorted(found) != sorted(METRICS):
            raise _damaged(file, f"the metrics {', '.join(found)[:200]} of {split[:100]!r}")
    return records


def read_curves(folder: Path) -> list[dict[str, Any]]:
    """Return how the fits of a training went; empty where that was not stored.

    Raises
    ------
    DamagedModel
    """
    file = folder / "curves.json"
    return list(_json(file, _CURVES)) if _is_there(file) else []


def read_feature_names(folder: Path) -> list[str] | None:
    """Return the names of the features that a head reads, None where they were not stored.

    Raises
    ------
    DamagedModel
    """
    file = folder / "features.json"
    return list(_json(file, _NAMES)) if _is_there(file) else None


def check_predictions(folder: Path) -> None:
    """Refuse a file of predictions with other columns, or more rows than there can be.

    Raises
    ------
    DamagedModel
    """
    file = folder / "predictions.parquet"
    if _is_there(file):
        found = file.lstat()
        _check_predictions(file, found.st_ino, found.st_mtime_ns, found.st_size)


@lru_cache(maxsize=1024)
def _check_predictions(file: Path, _inode: int, _mtime_ns: int, _n_bytes: int) -> None:
    _check_rows(file, PREDICTION_SCHEMA, PREDICTION_SCHEMA.names)


def read_train_rows(folder: Path) -> pa.Table:
    """Return what is stored of the rows that a model learnt from; of old models, the paths alone.

    Raises
    ------
    DamagedModel
    """
    file = folder / "train_rows.parquet"
    if not _is_there(file):
        raise _damaged(file, "nothing there")
    _check_rows(file, TRAIN_ROW_SCHEMA, ["path_hash"])
    return read_rows(file)


def read_rows(file: Path, **how: Any) -> pa.Table:
    """Read a Parquet file, or some of it: see `pyarrow.parquet.read_table`.

    Raises
    ------
    DamagedModel
    """
    try:
        return pq.read_table(file, partitioning=None, **how)
    except (OSError, pa.ArrowException) as error:
        raise _damaged(file, _in_one_line(error)) from error


def _is_there(file: Path) -> bool:
    """Whether there is a file; one that is no file is no absent one."""
    return os.path.lexists(file)


def _json(file: Path, kind: TypeAdapter[Any]) -> Any:
    """Content of a file of JSON that is of a kind, as plain objects."""
    try:
        found = file.stat()
        if not stat.S_ISREG(found.st_mode):  # a pipe would be waited for
            raise ValueError("no regular file")
        if found.st_size > _JSON_BYTES_MAX:
            raise ValueError(f"{found.st_size:,} bytes, more than {_JSON_BYTES_MAX:,}")
        version = (found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size)
        return json.loads(_judged(file, version, kind))
    except ValidationError as error:
        fault = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(str(part)[:40] for part in fault["loc"][:8])
        raise _damaged(file, f"{where or 'the whole'}: {fault['msg'][:200]}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged(file, _in_one_line(error)) from error


@lru_cache(maxsize=512)
def _judged(file: Path, _version: tuple[int, ...], kind: TypeAdapter[Any]) -> bytes:
    """Read a file and judge its content: once for each state of it, for lists ask often.

    Raises
    ------
    OSError, ValueError, RecursionError
    """
    content = file.read_bytes()
    kind.validate_json(content, strict=True)
    # what no answer can carry: numbers that are none, halves of characters
    json.dumps(json.loads(content), allow_nan=False, ensure_ascii=False).encode()
    return content


def _check_rows(file: Path, schema: pa.Schema, needed: list[str]) -> None:
    try:
        if not file.is_file():
            raise ValueError("no regular file")
        described = pq.read_metadata(file)
        found = described.schema.to_arrow_schema()
    except (OSError, ValueError, pa.ArrowException) as error:
        raise _damaged(file, _in_one_line(error)) from error
    wanted = {field.name: field.type for field in schema}
    types = dict(zip(found.names, found.types, strict=True))
    if len(types) < len(found.names) or not set(needed) <= set(types) <= set(wanted):
        raise _damaged(file, f"the columns {', '.join(found.names)[:200] or 'none'}")
    other = next((name for name in types if types[name] != wanted[name]), None)
    if other is not None:
        raise _damaged(file, f"the column {other} of type {types[other]}")
    if described.num_rows > _ROWS_MAX:
        raise _damaged(file, f"{described.num_rows:,} rows, more than {_ROWS_MAX:,}")


def _damaged(file: Path, came: str) -> DamagedModel:
    again = "remove the folder of the model and train or import it again"
    if file.name in _OF_SCORES:
        again = (
            f"where the model was trained here, move {' and '.join(_OF_SCORES)} away and evaluate "
            "it again"
        )
    return DamagedModel(
        f"wanted {file.name} of model {file.parent.name!r} as it was stored, got: {came}. Put the "
        f"file back from a copy, or {again}."
    )


def _in_one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
