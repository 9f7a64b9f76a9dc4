"""A data folder in which every name that may be free is one of `tests.faults.strings`."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from etl import load
from etl.annotations import annotate_file
from service.analysis import Analysis
from service.hypotheses.schemas import HypothesisIn
from service.hypotheses.testing import Hypotheses
from service.report.kept import make_and_keep
from tests.faults.strings import STRINGS

MODEL, REPORT = "m", "5" * 12
NAMES = list(STRINGS.values())
_UNSEEN = ("ANSI", "tab first", "CR first", "byte order mark")
# paths and the columns' names are refused where they hold control characters or a BOM
SEEN = [text[:1000].strip() for name, text in STRINGS.items() if name not in _UNSEEN]
SHORT = [name[:200] for name in SEEN]
COLUMNS = SHORT[-6:]
_PER_CLASS = {"train": 2, "val": 1, "v2": 1}  # fewer than UMAP wants, which compiles for a minute


def _write(file: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> Path:
    with file.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([header, *rows])
    return file


def make_hostile(folder: Path, seed: int = 0) -> Path:
    """Load, train, explain, test a hypothesis and make a report; return the data folder.

    Each string names one class and its group, one feature, one image of `val`, one annotation and
    its value, one hypothesis and its cause, one author and one paragraph of the report.
    """
    rng = np.random.default_rng(seed)
    (folder / "csv").mkdir(parents=True)
    for split, n in _PER_CLASS.items():
        labels = np.repeat(np.arange(len(NAMES)), n)
        paths = [f"{split}/{i}.png" for i in range(len(labels))]
        if split == "val":
            paths[: len(SEEN)] = SEEN
        values = rng.normal(size=(len(labels), len(SEEN)))
        values[np.arange(len(labels)), labels % len(SEEN)] += 3
        rows = [(p, y, *v) for p, y, v in zip(paths, labels, values.round(4), strict=True)]
        _write(folder / "csv" / f"{split}_x.csv", ["path", "label", *SEEN], rows)
        if split == "val":
            notes = [(p, *(s for _ in COLUMNS)) for p, s in zip(SEEN, SHORT, strict=True)]
    known = [(i, name, f"of {name}") for i, name in enumerate(NAMES)]
    classes = _write(folder / "classes.csv", ["label", "name", "superclass"], known)
    data = folder / "data"
    load(data, [folder / "csv"], n_threads=1, classes=classes)
    annotate_file(
        data, _write(folder / "notes.csv", ["path", *COLUMNS], notes), name=None, split=None
    )
    analysis = Analysis(data)
    analysis.train(model=MODEL, backbone="x", head="lda", params={}, seed=seed)
    hypotheses = Hypotheses(analysis)
    for i, text in enumerate(NAMES):
        pair = [SEEN[i % len(SEEN)], SEEN[(i + 1 + i // len(SEEN)) % len(SEEN)]]
        asked = HypothesisIn(
            title=text[:200], cause=text, baseline=MODEL,
            refinement={"kind": "drop_features", "features": pair},
        )  # fmt: skip
        made = hypotheses.register(asked)
        if i < 2:
            hypotheses.test(made.id)
    authors = [{"name": s[:300], "id": s[:300], "email": s[:300], "share": 2.5} for s in NAMES]
    work = [{"date": "2026-11-20", "member": s[:300], "what": s} for s in NAMES]
    fenced = "\n\n".join(f"~~~~\n{s}\n~~~~" for s in NAMES)
    make_and_keep(
        analysis,
        {
            "report": REPORT, "models": [MODEL],
            "title_page": {"title": NAMES[0], "subtitle": NAMES[1], "course": NAMES[2],
                           "authors": authors, "work_log": work},
            "text": {"1": "\n\n".join(NAMES), "5": fenced},
        },
    )  # fmt: skip
    return data
