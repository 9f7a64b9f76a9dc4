"""Parts of features into one feature file: the assignment's CSV form, or Parquet."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from service.extraction.images import ImageList
from service.extraction.parts import Part

_GROUP_ROWS = 8192


def write_features(
    file: Path, parts: Iterable[Part], images: ImageList, *, ending: str, n_features: int
) -> None:
    """Write the parts as one file.

    `.csv` has the assignment's form: a first column without a name that counts the rows, path,
    label, 0 … d-1, each number with as few digits as give back the same float32. `.parquet` has
    path, label (int64) and 0 … d-1 (float32).

    Parameters
    ----------
    ending
        `.csv` or `.parquet`.
    """
    names = ["path", "label", *(str(i) for i in range(n_features))]
    tables = (_table(part, images, names) for part in parts)
    if ending == ".csv":
        has_quotes = any(set(path) & set(',"\n\r') for path in images.paths)
        _write_csv(file, tables, names, "needed" if has_quotes else "none")
    else:
        _write_parquet(file, tables)


def _table(part: Part, images: ImageList, names: list[str]) -> pa.Table:
    columns = [
        pa.array([images.paths[row] for row in part.rows], pa.string()),
        pa.array([images.labels[row] for row in part.rows], pa.int64()),
        *(pa.array(column) for column in np.ascontiguousarray(part.features.T)),
    ]
    return pa.table(columns, names=names)


def _write_csv(
    file: Path, tables: Iterator[pa.Table], names: list[str], quoting_style: str
) -> None:
    # Arrow would put the names in quotes, and with `needed` every path
    options = pacsv.WriteOptions(include_header=False, quoting_style=quoting_style)
    n = 0
    with file.open("wb") as stream:
        stream.write((",".join(["", *names]) + "\n").encode())
        for table in tables:
            index = pa.array(np.arange(n, n + len(table)))
            pacsv.write_csv(table.add_column(0, "", index), stream, options)
            n += len(table)


def _write_parquet(file: Path, tables: Iterator[pa.Table]) -> None:
    waiting: list[pa.Table] = []
    writer = None
    try:
        for table in tables:
            # features hardly repeat: a dictionary would only cost; a flipped bit must be noticed
            writer = writer or pq.ParquetWriter(
                file, table.schema, use_dictionary=False, write_page_checksum=True
            )
            waiting.append(table)
            if sum(map(len, waiting)) >= _GROUP_ROWS:
                writer.write_table(pa.concat_tables(waiting))
                waiting = []
        if writer is not None and waiting:
            writer.write_table(pa.concat_tables(waiting))
    finally:
        if writer is not None:
            writer.close()
