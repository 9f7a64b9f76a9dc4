"""The order of events in a load: find, check, copy what stays, read what is new, publish."""

import hashlib
import json
import os
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from etl.class_names import read_class_file
from etl.database import check_room, create_tables, exclusive, staging
from etl.finishing import finish
from etl.part import Part, PartReport, Progress, load_part
from etl.present import Present, copy_kept, read_present
from etl.reading import open_features
from etl.sources import (
    Source,
    choose_reference,
    find_sources,
    gap_ends,
    refuse_names_alike,
    role_of,
)
from etl.tables import label_file


@dataclass(frozen=True)
class LoadReport:
    """What a load did.

    Attributes
    ----------
    loaded : the parts that were read, in order
    kept : (split, backbone) of the parts that were there and stay; backbone None: images that came
        with predictions alone
    notes : what was passed over
    reference, target : the two ends of the default gap; None where there are fewer test splits
    ends : the same for each backbone, by its name: where the reference has no features of it, the
        usual names decide
    has_train : backbones that have train rows
    seconds_s : seconds of the whole load
    """

    loaded: list[PartReport]
    kept: list[tuple[str, str | None]]
    notes: list[str]
    reference: str | None
    target: str | None
    ends: dict[str, tuple[str | None, str | None]]
    has_train: set[str]
    seconds_s: float


def load(
    data: Path,
    places: Sequence[Path],
    *,
    explicit: Sequence[str] = (),
    reference: str | None = None,
    paths_from: str | None = None,
    classes: Path | None = None,
    replace: bool = False,
    n_threads: int | None = None,
    progress: Progress = lambda _part, _done, _total: None,
) -> LoadReport:
    """Load feature files into the data folder's database, or refuse and leave it as it was.

    Parts that are there and not named stay; a part whose file has not changed since (place, size
    and time, or else its digest) is not loaded again.

    Parameters
    ----------
    data
        The data folder; `gap.duckdb` in it is replaced at the end.
    places
        Feature files and folders of them, named `<split>_<backbone>.csv`.
    explicit
        More of them as `SPLIT[:BACKBONE]=FILE`.
    reference
        Test set 1; by default the one that was named before, or `etl.sources.default_reference`.
    paths_from
        A backbone whose paths, row by row, are those of the files that have none.
    classes
        Names, and superclasses, of the classes; a label beyond them is refused.
    replace
        Forget what is there.
    n_threads
        Blocks parsed side by side; all cores by default.
    progress
        Called with the part's name, bytes done and bytes in all.

    Raises
    ------
    LoadRefused
        One of its children (see `etl.errors`), with file, line and column where there is one.
    """
    began = time.monotonic()
    n_threads = n_threads or os.cpu_count() or 1
    with exclusive(data):
        sources, notes = find_sources(places, explicit, classes)
        present = Present() if replace else read_present(data)
        options = {source: _options(source, paths_from) for source in sources}
        changed = [s for s in sources if not _is_unchanged(s, present.part(s), options[s])]
        claimed = {(s.split, s.backbone) for s in changed}
        kept = [p for p in present.parts if (p.split, p.backbone) not in claimed]
        refuse_names_alike(changed, [p.backbone for p in kept if p.backbone is not None])
        splits = list(dict.fromkeys([*present.splits, *(s.split for s in sources)]))
        splits = [s for s in splits if s in {p.split for p in kept} | {c.split for c in changed}]
        chosen = choose_reference(splits, reference, present.named_reference)
        loaded: list[PartReport] = []
        if changed or chosen != present.reference or classes is not None:
            given = None if classes is None else read_class_file(classes)
            check_room(data, sum(s.file.stat().st_size for s in changed if s.file.exists()))
            with ExitStack() as files:
                parts = _open_all(files, changed, kept, present)
                width = max([present.n_features, *(len(part.features) for part in parts)])
                with staging(data, n_threads, width) as con:
                    create_tables(con)
                    copy_kept(con, kept)
                    loaded = [
                        load_part(con, part, paths_from, options[part.source], n_threads, progress)
                        for part in parts
                    ]
                    had_old = bool(present.parts)
                    finish(con, splits, chosen, loaded, given=given, had_old=had_old)
    pairs = {(p.split, p.backbone) for p in kept} | claimed
    found = [*(p.backbone for p in kept), *(s.backbone for s in changed)]
    backbones = dict.fromkeys(backbone for backbone in found if backbone is not None)
    tests = [split for split in splits if role_of(split) == "test"]
    return LoadReport(
        loaded=loaded,
        kept=[(p.split, p.backbone) for p in kept],
        notes=notes,
        reference=chosen,
        target=gap_ends(tests, chosen)[1],
        ends={b: gap_ends([s for s in tests if (s, b) in pairs], chosen) for b in backbones},
        has_train={b for b in backbones if ("train", b) in pairs},
        seconds_s=time.monotonic() - began,
    )


def _options(source: Source, paths_from: str | None) -> str:
    """Return what else decides how a file is read, as JSON."""
    beside = label_file(source.file)
    labels = None
    if beside.is_file():
        with beside.open("rb") as stream:
            labels = hashlib.file_digest(stream, "sha256").hexdigest()
    return json.dumps({"paths_from": paths_from, "labels_sha256": labels})


def _is_unchanged(source: Source, part: PartReport | None, options: str) -> bool:
    """Whether a part is loaded already: by place, size and time, else by size and digest."""
    if part is None or options != part.options or not source.file.is_file():
        return False
    now = source.file.stat()
    if now.st_size != part.size_bytes:
        return False
    if (source.name, now.st_mtime_ns) == (part.file, part.mtime_ns):
        return True
    with source.file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest() == part.sha256


def _open_all(
    files: ExitStack, sources: list[Source], kept: list[PartReport], present: Present
) -> list[Part]:
    """Open every file and hold its header against its backbone's, before any row is read."""
    backbones = {p.backbone for p in kept if p.backbone is not None}
    features = {backbone: present.features[backbone] for backbone in backbones}
    parts = []
    # train first: where the others differ from it, they are the ones to be named
    for source in sorted(sources, key=lambda source: source.role != "train"):
        file = open_features(source.file, source.member)
        files.callback(file.close)
        first = features.setdefault(source.backbone, file.header.features)
        file.header.in_order_of(first, source.file)
        parts.append(Part(source, file, first))
    # files that name their images first: others may take the paths from them
    return sorted(parts, key=lambda part: not part.file.header.has_path)
