"""Open any feature file, and find a row of it again."""

from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from etl.errors import LoadRefused
from etl.rows import FeatureFile
from etl.sources import TABLES
from etl.tables import FeatureTable

Features = FeatureFile | FeatureTable


def open_features(file: Path, member: str | None = None) -> Features:
    """Return the file, open for one pass: text as `FeatureFile`, else as `FeatureTable`.

    Raises
    ------
    LoadRefused
        As these do at opening.
    """
    if member is None and file.suffix.lower() in TABLES:
        return FeatureTable(file)
    return FeatureFile(file, member)


def last_line_of(name: str, path: str) -> int | None:
    """Line of the last row with this path in a file of the load report.

    None for a file without paths or lines, or one that is gone.
    """
    file, _, member = name.partition("::")
    line = None
    try:
        with open_features(Path(file), member or None) as features:
            for rows in features.rows(features.header.features, 1):
                if rows.paths is None:
                    return None
                at = np.flatnonzero(pc.equal(rows.paths, path).to_numpy(zero_copy_only=False))
                line = rows.line_of(int(at[-1])) if len(at) else line
    except LoadRefused:
        return None
    return line
