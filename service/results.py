"""Trained models and what they said: one folder a model under results/, readable by anyone.

    results/<model>/model.json            the model card
    results/<model>/train_rows.parquet    of every row it learnt from, hashes and its fold
    results/<model>/curves.json           loss after each step of each fit
    results/<model>/features.json         names of the features in the order in which it reads them
    results/<model>/head.safetensors      its arrays, and in the metadata what kind of head they are
    results/<model>/predictions.parquet   one row per test image, once it is evaluated
    results/<model>/evaluation.json       one record per test split and metric

An imported model, trained elsewhere, has neither head nor train rows: only predictions are here.
A folder appears whole or not at all; no pickle is written or read.
"""

import dataclasses
import errno
import fcntl
import hashlib
import json
import logging
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pandas.util import hash_array
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from etl.database import PREDICTION_SCHEMA, RESULTS
from models.errors import DamagedHead
from models.heads import Curve, Head, pack, unpack
from service.errors import (
    BadName,
    DamagedModel,
    DataChanged,
    ImportedModel,
    ModelExists,
    NotFound,
)
from service.looks import Look, Looks
from service.model_files import (
    check_predictions,
    read_card,
    read_curves,
    read_evaluation,
    read_feature_names,
    read_rows,
    read_train_rows,
)
from service.schemas import NAME

IMPORTED = "imported"  # what the card of such a model has as its head
NATIVE = "native"  # weights that were given
INTERPOLATED = "interpolated"  # between the weights of two others
_NEW = ".new-"
HEAD_FILE = "head.safetensors"
# what a file that is no head makes its readers raise
_BROKEN = (SafetensorError, OSError, ValueError, LookupError, TypeError, RecursionError,
           AttributeError, OverflowError, MemoryError)  # fmt: skip
_log = logging.getLogger("gapscope")
_WHAT = "gapscope"  # key of the description of a head in the metadata of its file


class Results:
    """The models of one data folder."""

    def __init__(self, data: Path) -> None:
        self._data = data
        self._folder = data / RESULTS
        self._digests: dict[tuple[Path, int, int, int], str] = {}  # of heads, by their state

    def sweep(self) -> None:
        """Remove what killed writers left behind; a folder that one is writing stays.

        The system lets go of the lock of a process that is no more, whatever ended it.
        """
        for left in self._data.glob(_NEW + "*"):
            try:
                place = os.open(left, os.O_RDONLY)
            except FileNotFoundError:  # its writer was done with it in this moment
                continue
            try:
                fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            else:
                shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink()
            finally:
                os.close(place)

    def models(self) -> list[dict[str, Any]]:
        """Return the cards of all models, oldest first; those in `damaged` are left out."""
        cards = [card for card in self._judged().values() if isinstance(card, dict)]
        return sorted(cards, key=lambda card: (card["created_at"], card["model"]))

    def damaged(self) -> dict[str, str]:
        """Return why a model is set aside, by its name: another hand has changed its files."""
        found = self._judged()
        return {name: str(why) for name, why in found.items() if isinstance(why, DamagedModel)}

    def _judged(self) -> dict[str, dict[str, Any] | DamagedModel]:
        """Card of every model, or why it is set aside."""
        found: dict[str, dict[str, Any] | DamagedModel] = {}
        for file in sorted(self._folder.glob("*/model.json")):
            if re.fullmatch(NAME, file.parent.name):
                try:
                    found[file.parent.name] = _whole(file.parent)
                except DamagedModel as error:
                    _tell(str(error))
                    found[file.parent.name] = error
        return found

    def own_models(self) -> list[dict[str, Any]]:
        """Return the cards of the models that are no test of a hypothesis, oldest first.

        Refined heads are variants of one another: no independent witnesses of anything.
        """
        return [card for card in self.models() if card.get("hypothesis") is None]

    def has(self, model: str) -> bool:
        """Whether a model of this name is stored."""
        return (
            re.fullmatch(NAME, model) is not None
            and (self._folder / model / "model.json").is_file()
        )

    def is_imported(self, model: str) -> bool:
        """Whether the model of this name, if there is one, was trained elsewhere."""
        return self.has(model) and self.card(model)["head"] == IMPORTED

    def card(self, model: str) -> dict[str, Any]:
        """Return the card of one model.

        Raises
        ------
        NotFound, DamagedModel
        """
        return _whole(self._place(model))

    def head(self, model: str) -> Head:
        """Return the trained head of one model.

        Raises
        ------
        NotFound
        DataChanged
            The file does not hold a head: it was changed by another hand.
        ImportedModel
            It was trained elsewhere: only its predictions are here.
        """
        if self.is_imported(model):
            raise ImportedModel(
                f"wanted a model that was trained here, got {model!r}, of which only the "
                "predictions were imported. Ask it where it was trained."
            )
        file, told = self._place(model) / HEAD_FILE, self.card(model).get("head_sha256")
        found = self.head_sha256(model)  # refuses what is no file: a pipe would be waited for
        try:
            if told not in (None, found):
                raise ValueError("another file than its card tells of.")
            with safe_open(file, "numpy") as stored:
                what = json.loads((stored.metadata() or {}).get(_WHAT, '{"type": "linear"}'))
            return unpack(load_file(file), what)
        except (*_BROKEN, DamagedHead) as error:
            raise DataChanged(
                f"wanted {HEAD_FILE} of model {model!r} as it was stored, got: {error} Put it back "
                "from a copy, or train it again under another name."
            ) from error

    def head_sha256(self, model: str) -> str:
        """Return the digest of a model's stored head.

        Raises
        ------
        NotFound
        """
        file = self._place(model) / HEAD_FILE
        if not file.is_file():
            raise DamagedModel(
                f"wanted the head of model {model!r}, got no file. Train it again under another "
                "name."
            )
        state = file.stat()
        key = (file, state.st_ino, state.st_size, state.st_mtime_ns)
        if key not in self._digests:
            self._digests[key] = _sha256(file)
        return self._digests[key]

    def check_name(self, model: str) -> None:
        """Refuse a name that cannot be a folder and an address.

        Raises
        ------
        BadName
        """
        if not re.fullmatch(NAME, model):
            raise BadName(
                "wanted a name of up to 100 letters, digits, points, hyphens and underscores that "
                f"begins with a letter or digit, got {model!r}."
            )

    def learnt_from(self, model: str, paths: list[str]) -> np.ndarray:
        """Whether a model learnt from the image at each path, bool [n].

        Raises
        ------
        NotFound
        """
        return np.isin(path_hashes(paths), self.train_rows(model)["path_hash"].to_numpy())

    def train_rows(self, model: str) -> pa.Table:
        """Return what is stored of the rows that a model learnt from: see `train_row_table`.

        Raises
        ------
        NotFound
        """
        return read_train_rows(self._place(model))

    def feature_names(self, model: str) -> list[str] | None:
        """Return the names of the features in the order in which a head reads them.

        None for a model that was stored before names were.

        Raises
        ------
        NotFound
        """
        return read_feature_names(self._place(model))

    def curves(self, model: str) -> list[dict[str, Any]]:
        """Return how the fits of a training went, in steps: of `models.heads.Curve`.

        Raises
        ------
        NotFound
        """
        return read_curves(self._place(model))

    def save_model(
        self,
        card: dict[str, Any],
        head: Head,
        train_rows: pa.Table,
        *,
        feature_names: Sequence[str] = (),
        curves: Sequence[Curve] = (),
    ) -> None:
        """Store a new model, and what tells the rows that it learnt from: a `train_row_table`.

        Parameters
        ----------
        feature_names
            In the order in which the head reads the features.
        curves
            How the fits that took steps went.

        Raises
        ------
        ModelExists, BadName
        """
        with self._new_folder(card) as fresh:
            arrays, what = pack(head)
            save_file(arrays, fresh / HEAD_FILE, {_WHAT: json.dumps(what)})
            card["head_sha256"] = _sha256(fresh / HEAD_FILE)
            pq.write_table(train_rows, fresh / "train_rows.parquet")
            steps = [dataclasses.asdict(curve) for curve in curves]
            _write(fresh / "curves.json", json.dumps(steps, allow_nan=False).encode())
            if feature_names:
                _write(fresh / "features.json", json.dumps(list(feature_names)).encode())

    def save_imported(
        self,
        card: dict[str, Any],
        records: list[dict[str, Any]],
        predictions: pa.Table,
        *,
        replace: bool = False,
    ) -> None:
        """Store a model that was trained elsewhere: what it said of images, and its scores.

        Parameters
        ----------
        replace
            Whether it takes the place of an imported model of the same name.

        Raises
        ------
        ModelExists, BadName
        """
        with self._new_folder(card, replace=replace) as fresh:
            pq.write_table(predictions.cast(PREDICTION_SCHEMA), fresh / "predictions.parquet")
            text = json.dumps(records, indent=1, allow_nan=False).encode()
            _write(fresh / "evaluation.json", text)

    @contextmanager
    def _new_folder(self, card: dict[str, Any], *, replace: bool = False) -> Iterator[Path]:
        """Give a folder that becomes the model's, with its card, when the block ends well."""
        self.check_name(card["model"])
        with self.held() as held:
            fresh = held / "model"
            fresh.mkdir()
            yield fresh
            _write(fresh / "model.json", json.dumps(card, indent=1, allow_nan=False).encode())
            self._folder.mkdir(parents=True, exist_ok=True)
            place = self._folder / card["model"]
            if replace and self.is_imported(card["model"]):
                place.rename(held / "old")
            try:
                fresh.rename(place)
            except OSError as error:
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                    raise
                raise ModelExists(
                    f"wanted a new name, got {card['model']!r}, which is taken. Choose another."
                ) from error

    @contextmanager
    def held(self) -> Iterator[Path]:
        """Give a folder to write in, which `sweep` leaves alone as long as this process lives."""
        self._data.mkdir(parents=True, exist_ok=True)
        while True:
            held = self._data / f"{_NEW}{uuid.uuid4().hex}"
            held.mkdir()
            try:
                lock = os.open(held, os.O_RDONLY)
            except FileNotFoundError:  # swept before it was locked
                continue
            fcntl.flock(lock, fcntl.LOCK_EX)
            if held.is_dir():
                break
            os.close(lock)
        try:
            yield held
        finally:
            shutil.rmtree(held, ignore_errors=True)
            os.close(lock)

    def evaluation(self, model: str) -> list[dict[str, Any]]:
        """Return the records of a model's evaluation; empty where it was not evaluated.

        Raises
        ------
        NotFound
        """
        return read_evaluation(self._place(model))

    def predictions(self, model: str, split: str, *, look: Look) -> pa.Table:
        """Return the stored predictions on one test split, in the order of the rows scored.

        They hold labels, so the look is logged first.

        Raises
        ------
        NotFound, LookNotLogged
        """
        folder = self._place(model)
        check_predictions(folder)
        found = read_rows(folder / "predictions.parquet", filters=[("split", "=", split)])
        Looks(self._data).record(look, split, len(found))
        return found

    def answers_of(self, model: str, split: str, paths: pa.Array) -> np.ndarray | None:
        """Return the class that a model predicts for each path, int64 [n]; no label is read.

        None where it has not scored all of them.
        """
        file = self._folder / model / "predictions.parquet"
        if not file.is_file():
            return None
        found = read_rows(
            file, filters=[("split", "=", split)], columns=["path", "predicted_class_id"]
        )
        place = pc.index_in(paths, found["path"].combine_chunks())
        if len(found) == 0 or place.null_count:
            return None
        predicted = found["predicted_class_id"].to_numpy().astype(np.int64)
        return np.asarray(predicted[place.to_numpy()])

    def save_evaluation(
        self, model: str, records: list[dict[str, Any]], predictions: pa.Table
    ) -> None:
        """Store what a model said of every test image, and its scores."""
        folder = self._place(model)
        table = predictions.cast(PREDICTION_SCHEMA)
        self._replace(folder / "predictions.parquet", lambda file: pq.write_table(table, file))
        text = json.dumps(records, indent=1, allow_nan=False).encode()
        self._replace(folder / "evaluation.json", lambda file: _write(file, text))

    def _replace(self, file: Path, write: Callable[[Path], object]) -> None:
        with self.held() as held:
            write(held / file.name)
            os.replace(held / file.name, file)  # noqa: PTH105 (the one word for it)

    def _place(self, model: str) -> Path:
        if not self.has(model):
            known = [card["model"] for card in self.models()]
            raise NotFound(
                f"wanted a trained model ({', '.join(known) or 'none yet'}), got {model!r}. "
                "Train one: gapscope train BACKBONE, or POST /train."
            )
        return self._folder / model


def _whole(folder: Path) -> dict[str, Any]:
    """Card of a model whose files are such that they can stand among others.

    Raises
    ------
    DamagedModel
    """
    card = read_card(folder)
    read_evaluation(folder)
    check_predictions(folder)
    return card


@lru_cache(maxsize=1024)
def _tell(damage: str) -> None:
    """Log what is damaged: once, though every list comes upon it."""
    _log.error("a model is set aside: %s", damage)


def path_hashes(paths: list[str]) -> np.ndarray:
    """64-bit hashes that are the same in every process, uint64 [n]."""
    return np.asarray(hash_array(np.array(paths, dtype=object)))


def train_row_table(paths: list[str], vector_hashes: np.ndarray, fold: np.ndarray) -> pa.Table:
    """Return what a model stores of the rows that it learnt from.

    Parameters
    ----------
    paths : n strings
    vector_hashes : uint64 [n], of `models.leaks.row_hashes`
    fold : uint8 [n], of `models.heads.Trained`: rows held out together; 255 for never held out
    """
    hashes = path_hashes(paths)
    return pa.table({"path_hash": hashes, "vector_hash": vector_hashes, "fold": fold})


def joined_rows(tables: Sequence[pa.Table]) -> pa.Table:
    """Return the rows that any of several models learnt from, as one `train_row_table`.

    A row that was held out otherwise in another model counts as held out there. Tables of old
    models, which lack columns, make the result lack them too.
    """
    names = [
        n for n in ("path_hash", "vector_hash", "fold") if all(n in t.schema.names for t in tables)
    ]
    whole = pa.concat_tables([table.select(names) for table in tables])
    _, first = np.unique(whole["path_hash"].to_numpy(), return_index=True)
    return whole.take(np.sort(first))


def rows_digest(rows: pa.Table) -> str:
    """Return the sha256 over the content of a `train_row_table`, in whatever order its rows are."""
    path, vector, fold = (rows[name].to_numpy() for name in ("path_hash", "vector_hash", "fold"))
    order = np.lexsort((fold, vector, path))
    digest = hashlib.sha256()
    for column, kind in ((path, "<u8"), (vector, "<u8"), (fold, "u1")):
        digest.update(column[order].astype(kind).tobytes())
    return digest.hexdigest()


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _write(file: Path, content: bytes) -> None:
    with file.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
