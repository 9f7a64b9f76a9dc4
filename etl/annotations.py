"""What else is known about images, attached beside the database as `annotations/<name>.parquet`."""

import json
import re
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from etl.covariates import Covariates, read_covariates
from etl.database import DATABASE, attach, of_this_version
from etl.errors import (
    AnnotationConflict,
    AnnotationName,
    AnnotationTaken,
    NotAttached,
    NothingLoaded,
    NothingMatched,
    OtherShape,
    UnknownSplit,
)
from etl.matching import AMBIGUOUS, MATCHED, UNMATCHED, match
from etl.sidecar import ANNOTATION_SCHEMA, ANNOTATIONS, replace_whole, write_empty, write_table

NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
_CARD = "gapscope"
_N_EXAMPLES = 5


@dataclass(frozen=True)
class Card:
    """Where the annotations of one name come from, and how many rows found their image.

    Attributes
    ----------
    source : their name
    origin : the file, or what else they were made from
    n_rows : rows in the file; each is matched, ambiguous or unmatched
    n_repeated : matched rows that say again what another row says of the same image
    n_not_finite : cells that held no finite number and are null
    created_at : when, UTC, ISO 8601
    """

    source: str
    origin: str
    n_rows: int
    n_matched: int
    n_ambiguous: int
    n_unmatched: int
    n_repeated: int
    n_not_finite: int
    created_at: str


@dataclass(frozen=True)
class Attached:
    """What attaching did: the card, and a few of the paths that found no single image."""

    card: Card
    covariates: tuple[str, ...]
    ambiguous: tuple[str, ...]
    unmatched: tuple[str, ...]


def annotate_file(
    data: Path, file: Path, *, name: str | None = None, split: str | None = None
) -> Attached:
    """Attach the covariates of a CSV or Parquet file under a name (default: the file's stem).

    Raises
    ------
    LoadRefused
        What `etl.covariates.read_covariates` and `annotate` refuse.
    """
    covariates = read_covariates(file)
    return annotate(
        data, covariates, name=name or file.stem, origin=str(file.resolve()), split=split
    )


def annotate(
    data: Path, covariates: Covariates, *, name: str, origin: str, split: str | None = None
) -> Attached:
    """Attach covariates to the loaded images that they mean (see `etl.matching.match`).

    Annotations of the same name and origin are replaced as a whole; the database is not touched.

    Parameters
    ----------
    name
        Name of the annotations: the `source` in the view `annotation`.
    origin
        What they were made from; another origin never replaces them.
    split
        Split of the rows that name none; by default such a row may mean an image of any split, and
        is ambiguous where it fits several.

    Raises
    ------
    AnnotationName, AnnotationTaken, UnknownSplit, NothingMatched, AnnotationConflict
        See their docstrings; what is attached stays as it is.
    NothingLoaded, OtherShape
        There is no database to match with.
    """
    check_name(data, name, origin)
    known = known_images(data)
    found = match_images(known, covariates, split)
    card = _card(name, origin, covariates, found)
    if card.n_matched == 0:
        raise NothingMatched(
            f"paths of loaded images, such as {known['path'][0].as_py()!r}",
            f"{_examples(covariates.paths, found, UNMATCHED, AMBIGUOUS)} and nothing that fits",
            "Load the images' features first, correct the paths, or name their split with --split.",
        )
    table = _long(covariates, known, found)
    write_empty(data)
    table = table.replace_schema_metadata(metadata_of(card))
    replace_whole(file_of(data, name), lambda fresh: write_table(fresh, table))
    return Attached(
        card,
        tuple(covariates.columns),
        _first(covariates.paths, found, AMBIGUOUS),
        _first(covariates.paths, found, UNMATCHED),
    )


def known_images(data: Path, *, with_labels: bool = False) -> pa.Table:
    """Split and path of every loaded image, in the order of image_id; its class_id if asked for.

    Raises
    ------
    NothingLoaded, OtherShape
    """
    if not (data / DATABASE).is_file():
        raise NothingLoaded(
            f"a database in {data} to match the paths with",
            "none",
            "Load the features first: gapscope load FOLDER, or gapscope demo.",
        )
    con = duckdb.connect()
    try:
        with of_this_version(data, OtherShape):
            attach(con, data)
            check_shape(con, data)
            return con.execute(
                f"select split, path{', class_id' * with_labels} from image order by image_id"
            ).to_arrow_table()
    finally:
        con.close()


def check_shape(con: duckdb.DuckDBPyConnection, data: Path) -> None:
    """Refuse an attached database that an older version wrote, without the views needed here.

    Raises
    ------
    OtherShape
    """
    views = con.execute(
        "select view_name from duckdb_views() where database_name = 'gap' and not internal"
    ).fetchall()
    if not {("annotation",), ("image_file",)} <= set(views):
        raise OtherShape(
            "a database with the views annotation and image_file",
            "one that another version of Gapscope wrote",
            "Load all files again with --replace.",
            file=data / DATABASE,
        )


def match_images(known: pa.Table, covariates: Covariates, split: str | None) -> pa.Table:
    """Row of `known` that each row of the covariates means, as `etl.matching.match` gives it.

    Raises
    ------
    UnknownSplit
        `split` is not loaded.
    """
    splits = covariates.splits
    if split is not None:
        loaded = known["split"].unique().to_pylist()
        if split not in loaded:
            raise UnknownSplit(
                f"a loaded split ({', '.join(loaded)}) as --split", repr(split), "Name one of them."
            )
        splits = splits.fill_null(split)
    return match(pa.table({"split": splits, "path": covariates.paths}), known)


def check_name(data: Path, name: str, origin: str) -> None:
    """Refuse a name that cannot be a file, or that annotations of another origin have.

    Raises
    ------
    AnnotationName, AnnotationTaken
    """
    if not re.fullmatch(NAME, name):
        raise AnnotationName(
            "a name of up to 100 letters, digits, points, hyphens and underscores that begins with "
            "a letter or digit",
            repr(name),
            "Give one with --name NAME.",
        )
    present = next((card for card in cards(data) if card.source == name), None)
    if present is not None and present.origin != origin:
        raise AnnotationTaken(
            f"a new name for the annotations from {origin}",
            f"{name!r}, which those from {present.origin} have",
            f"Choose another with --name NAME, or gapscope annotate --remove {name} first.",
        )


def file_of(data: Path, name: str) -> Path:
    """Where the annotations of a name are stored."""
    return data / ANNOTATIONS / f"{name}.parquet"


def metadata_of(card: Card) -> dict[str, str]:
    """Return what the file's own metadata say of where it comes from."""
    return {_CARD: json.dumps(asdict(card))}


def now() -> str:
    """Time of day, UTC, to the second, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def cards(data: Path) -> list[Card]:
    """Cards of all annotations that are attached, by name."""
    found = []
    for file in sorted((data / ANNOTATIONS).glob("[A-Za-z0-9]*.parquet")):
        metadata = pq.read_schema(file).metadata or {}
        if _CARD.encode() in metadata:
            found.append(Card(**json.loads(metadata[_CARD.encode()])))
    return found


def remove(data: Path, name: str) -> None:
    """Detach the annotations of a name.

    Raises
    ------
    NotAttached
    """
    names = [card.source for card in cards(data)]
    if name not in names:
        raise NotAttached(
            f"attached annotations ({', '.join(names) or 'none'})",
            repr(name),
            "gapscope annotations lists them.",
        )
    file_of(data, name).unlink()


def _card(name: str, origin: str, covariates: Covariates, found: pa.Table) -> Card:
    counts = {row["values"]: row["counts"] for row in found["status"].value_counts().to_pylist()}
    n_matched = counts.get(MATCHED, 0)
    return Card(
        source=name,
        origin=origin,
        n_rows=len(covariates.paths),
        n_matched=n_matched,
        n_ambiguous=counts.get(AMBIGUOUS, 0),
        n_unmatched=counts.get(UNMATCHED, 0),
        n_repeated=n_matched - len(found["known_row"].drop_null().unique()),
        n_not_finite=covariates.n_not_finite,
        created_at=now(),
    )


def _long(covariates: Covariates, known: pa.Table, found: pa.Table) -> pa.Table:
    """One row per image and covariate that has a value."""
    row = found["known_row"].to_numpy()
    is_matched = ~np.isnan(row.astype(float))
    images = known.select(["split", "path"])
    parts = [ANNOTATION_SCHEMA.empty_table()]
    for name, column in covariates.columns.items():
        is_text = pa.types.is_string(column.type)
        values = pd.Series(column.to_pandas()[is_matched].to_numpy(), row[is_matched].astype(int))
        values = _one_an_image(values.dropna(), name, images)
        place = images.take(pa.array(values.index))
        n = len(values)
        parts.append(
            pa.table(
                {
                    "split": place["split"],
                    "path": place["path"],
                    "name": pa.array([name] * n, pa.string()),
                    "value": pa.nulls(n, pa.float64())
                    if is_text
                    else pa.array(values.astype(float)),
                    "category": pa.array(values, pa.string())
                    if is_text
                    else pa.nulls(n, pa.string()),
                },
                ANNOTATION_SCHEMA,
            )
        )
    return pa.concat_tables(parts)


def _one_an_image(values: "pd.Series[float]", name: str, images: pa.Table) -> "pd.Series[float]":
    """Values by row of `images`, each once; refused where two differ."""
    if values.index.is_unique:
        return values
    n_different = values.groupby(level=0).nunique()
    conflicts = n_different.index[n_different > 1]
    if len(conflicts):
        first = int(conflicts[0])
        split, path = images["split"][first].as_py(), images["path"][first].as_py()
        came = ", ".join(str(value) for value in values.loc[[first]].unique()[:3])
        raise AnnotationConflict(
            f"one value of {name!r} for each image",
            f"{came} for {path!r} of split {split!r} ({len(conflicts)} such images in all)",
            "Leave one row for each image.",
            column=name,
        )
    return values[~values.index.duplicated()]


def _first(paths: pa.Array, found: pa.Table, *statuses: str) -> tuple[str, ...]:
    mask = np.isin(found["status"].to_numpy(), statuses)
    return tuple(str(path) for path in paths.filter(pa.array(mask))[:_N_EXAMPLES].to_pylist())


def _examples(paths: pa.Array, found: pa.Table, *statuses: str) -> str:
    return ", ".join(repr(path) for path in _first(paths, found, *statuses))
