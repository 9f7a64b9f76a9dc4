"""Images that come without features: those that the predictions of a model name."""

import hashlib
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

from etl.database import DATABASE, attach, create_tables, exclusive, staging
from etl.errors import LabelConflict, NothingMatched, SourceName
from etl.finishing import finish
from etl.header import LABEL
from etl.matching import AMBIGUOUS, match
from etl.part import PartReport, write_report
from etl.present import copy_kept, read_present
from etl.sources import choose_reference, is_like_train

_N_EXAMPLES = 5


@dataclass(frozen=True)
class NamedImages:
    """Images of one split as a file names them.

    Attributes
    ----------
    file : where they stand
    paths : string [n], each once
    labels : int64 [n]
    """

    file: Path
    paths: pa.StringArray
    labels: np.ndarray


@dataclass(frozen=True)
class PlacedImages:
    """The images of one split in the database.

    Attributes
    ----------
    paths : object [n], the database's path of each image that was named; None where ambiguous
    n_matched : images that were there
    n_new : images that were added
    n_ambiguous : names that fit several images, or one image together with another name
    ambiguous : a few of these
    """

    paths: np.ndarray
    n_matched: int
    n_new: int
    n_ambiguous: int
    ambiguous: tuple[str, ...]


def add_images(
    data: Path, asked: Mapping[str, NamedImages], *, n_threads: int | None = None
) -> dict[str, PlacedImages]:
    """Find named images in the database, and add those that it has not seen, without features.

    A name means an image of its split as `etl.matching.match` has it; what that finds no image for
    is new. Added images stay until a load with `replace`; features of theirs may be loaded later,
    under the same paths. Where nothing is new, the database is not written.

    Parameters
    ----------
    asked
        The images of each test split.

    Raises
    ------
    SourceName
        A split called train, or nearly so.
    LabelConflict, NothingMatched
        A label contradicts the database; not one name of a split means a single image.
    LoadRefused
        As `etl.load` raises it: busy, disk, leak, a database of another version.
    """
    for split, images in asked.items():
        _refuse_train(split, images.file)
    began = time.monotonic()
    with exclusive(data):
        present = read_present(data)
        placed, is_new = {}, {}
        found = _find(data, asked)
        for split, images in asked.items():
            placed[split], is_new[split] = _place(split, images, *found[split])
            _refuse_if_nothing_fits(split, images, placed[split])
        if any(mask.any() for mask in is_new.values()):
            with staging(data, n_threads or os.cpu_count() or 1, present.n_features) as con:
                create_tables(con)
                copy_kept(con, present.parts)
                for split, images in asked.items():
                    if is_new[split].any():
                        _write(con, split, images, is_new[split], began)
                splits = list(dict.fromkeys([*present.splits, *asked]))
                chosen = choose_reference(splits, None, present.named_reference)
                finish(con, splits, chosen, [], had_old=bool(present.parts))
    return placed


def _refuse_train(split: str, file: Path) -> None:
    if is_like_train(split):
        raise SourceName(
            "predictions on a test split",
            f"some on {split!r}",
            "What a model says of the rows that it learnt from is no test of it: leave them out.",
            file=file,
        )


def _find(
    data: Path, asked: Mapping[str, NamedImages]
) -> dict[str, tuple[pa.Table, pa.Table | None]]:
    """For each split its known images, and what each name means among them where there are any."""
    nothing = pa.table({"path": pa.array([], pa.string()), "class_id": pa.array([], pa.int64())})
    if not (data / DATABASE).exists():
        return dict.fromkeys(asked, (nothing, None))
    con = duckdb.connect()
    try:
        attach(con, data)
        found: dict[str, tuple[pa.Table, pa.Table | None]] = {}
        for split, images in asked.items():
            known = con.execute(
                """select path, class_id::bigint as class_id from image
                where split = ? order by image_id""",
                [split],
            ).to_arrow_table()
            means = None
            if known.num_rows:
                names = pa.table({"split": [split] * len(images.paths), "path": images.paths})
                there = pa.array([split] * known.num_rows, pa.string())
                means = match(names, known.append_column("split", there))
            found[split] = known, means
        return found
    finally:
        con.close()


def _place(
    split: str, images: NamedImages, known: pa.Table, means: pa.Table | None
) -> tuple[PlacedImages, np.ndarray]:
    """Return where each name is to be found, and which are new, bool [n]."""
    n = len(images.paths)
    row = np.full(n, -1)
    is_ambiguous = np.zeros(n, bool)
    if means is not None:
        row = means["known_row"].fill_null(-1).to_numpy().astype(np.int64)
        is_ambiguous = means["status"].to_numpy() == AMBIGUOUS
    # two spellings of one path, such as a/b.png and a\b.png
    used, counts = np.unique(row[row >= 0], return_counts=True)
    is_ambiguous |= np.isin(row, used[counts > 1])
    is_matched = (row >= 0) & ~is_ambiguous
    paths = images.paths.to_numpy(zero_copy_only=False).astype(object)
    there = known["path"].to_numpy().astype(object)[row[is_matched]]
    _refuse_other_labels(split, images, is_matched, there, known["class_id"].to_numpy(), row)
    paths[is_matched] = there
    paths[is_ambiguous] = None
    is_new = ~is_matched & ~is_ambiguous
    examples = images.paths.filter(pa.array(is_ambiguous))[:_N_EXAMPLES].to_pylist()
    return (
        PlacedImages(
            paths,
            int(is_matched.sum()),
            int(is_new.sum()),
            int(is_ambiguous.sum()),
            tuple(str(path) for path in examples),
        ),
        is_new,
    )


def _refuse_other_labels(
    split: str,
    images: NamedImages,
    is_matched: np.ndarray,
    there: np.ndarray,
    class_ids: np.ndarray,
    row: np.ndarray,
) -> None:
    wanted, came = class_ids[row[is_matched]], images.labels[is_matched]
    differ = np.flatnonzero(wanted != came)
    if len(differ):
        first = int(differ[0])
        raise LabelConflict(
            f"label {wanted[first]} of image {there[first]!r} in split {split!r}, as the database "
            "has it",
            f"label {came[first]} ({len(differ):,} such images in all)",
            "Correct one of them, or give the predictions' split another name.",
            file=images.file,
            column=LABEL,
        )


def _refuse_if_nothing_fits(split: str, images: NamedImages, placed: PlacedImages) -> None:
    if not placed.n_matched + placed.n_new:
        raise NothingMatched(
            f"paths that mean one image of split {split!r} each",
            f"{', '.join(map(repr, placed.ambiguous))} and no other",
            "Write more of the folders in front of the file names.",
            file=images.file,
        )


def _write(
    con: duckdb.DuckDBPyConnection,
    split: str,
    images: NamedImages,
    is_new: np.ndarray,
    began: float,
) -> None:
    first = con.execute("select coalesce(max(image_id), -1) + 1 from image").fetchall()[0][0]
    n = int(is_new.sum())
    new = pa.table(
        {
            "image_id": np.arange(first, first + n),
            "path": images.paths.filter(pa.array(is_new)),
            "class_id": images.labels[is_new],
        }
    )
    con.register("new", new)
    con.execute("insert into image select image_id, ?, path, class_id from new", [split])
    con.execute("insert into added_image select image_id from new")
    con.unregister("new")
    con.execute("delete from load_report where split = ? and backbone is null", [split])
    n_added, n_classes = con.execute(
        """select count(*), count(distinct i.class_id)
        from added_image as added inner join image as i on added.image_id = i.image_id
        where i.split = ?""",
        [split],
    ).fetchall()[0]
    state = images.file.stat()
    with images.file.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    write_report(
        con,
        PartReport(
            split=split,
            backbone=None,
            file=os.path.realpath(images.file),
            sha256=sha256,
            size_bytes=state.st_size,
            mtime_ns=state.st_mtime_ns,
            n_rows_read=n_added,
            n_images=n_added,
            n_rejected=0,
            n_features=0,
            n_classes=n_classes,
            seconds_s=time.monotonic() - began,
            mb_per_s=0.0,
            notes=["images without features, which predictions of a model named"],
            options="{}",
            loaded_at=datetime.now(UTC).replace(tzinfo=None),
        ),
    )
