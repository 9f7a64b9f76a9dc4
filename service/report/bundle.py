"""A bundle: a report, how it was made, and the code and heads that make its numbers again.

    report.pdf, report.html, report.json    whatever files of the report there are
    README.txt         three commands that compute its numbers again
    recipe.json        data files with their digests, how they were loaded, how heads were trained
    classes.csv        names of the classes, where they have some
    results/           models (card, head, rows learnt from, scores) and records
    code/              Gapscope as it ran

Features are not in it, and neither is any image: recipe.json has the digests of their files. The
same contents make the same bytes.
"""

import csv
import io
import json
import os
import shlex
import uuid
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import service
from etl.annotations import cards as annotation_cards
from etl.database import RESULTS
from service import VERSION
from service.analysis import Analysis
from service.errors import BundleTooLarge
from service.lines import FOLDER as LINES
from service.register import Register
from service.report.afresh import MODEL_FILES, REGISTERS, SELF_TESTS
from service.results import HEAD_FILE, IMPORTED

BUNDLE_BYTES_MAX = 200_000_000
_ROOT = Path(service.__file__).resolve().parent.parent
_PACKAGES = ("etl", "models", "service", "sql")
_FILES = ("pyproject.toml", "constraints.txt", "Makefile", "README.md")
_TIME = (1980, 1, 1, 0, 0, 0)  # the first that a zip knows: equal contents are equal bytes
_MODE = 0o644 << 16
_LEVEL = 6
_CLASSES = "classes.csv"
_LARGEST = 5  # files that a refusal names


@dataclass(frozen=True)
class Bundled:
    """What a bundle holds.

    Attributes
    ----------
    n_bytes : of its contents
    left_out : models whose head did not fit, largest last
    """

    n_bytes: int
    left_out: list[str]


def write_bundle(
    file: Path, analysis: Analysis, report_files: Mapping[str, bytes | Path]
) -> Bundled:
    """Write a bundle: whole or not at all.

    Parameters
    ----------
    file
        Where to; what is there is replaced.
    analysis
        Of the folder that the report was made from.
    report_files
        The report's files by their names in the bundle, `report.json` among them.

    Raises
    ------
    BundleTooLarge
        Its contents, without heads that could be trained again, are beyond `BUNDLE_BYTES_MAX`.
    NoDatabase
    """
    contents: dict[str, bytes | Path] = {name: report_files[name] for name in sorted(report_files)}
    contents |= _code() | _records(analysis) | _classes(analysis)
    recipe = _recipe(analysis) | {"has_class_names": _CLASSES in contents}
    # what is still to be written says which heads are left out: as long as if all were
    heads = _heads(analysis)
    longest = _told(recipe, list(heads), report_files)
    n_bytes = sum(map(_size, (*contents.values(), *longest.values())))
    if n_bytes > BUNDLE_BYTES_MAX:
        raise BundleTooLarge(_too_large(contents, n_bytes))
    left_out = []
    for model, head in sorted(heads.items(), key=lambda item: (_size(item[1]), item[0])):
        if n_bytes + _size(head) > BUNDLE_BYTES_MAX:
            left_out.append(model)
            continue
        n_bytes += _size(head)
        contents[f"{RESULTS}/{model}/{HEAD_FILE}"] = head
    contents |= _told(recipe, left_out, report_files)
    _write(file, contents)
    return Bundled(sum(map(_size, contents.values())), left_out)


def _code() -> dict[str, bytes | Path]:
    """Return the files of the code, as it runs: no tests, no caches, no data."""
    found = [_ROOT / name for name in _FILES]
    for package in _PACKAGES:
        found += sorted((_ROOT / package).rglob("*"))
    return {
        f"code/{file.relative_to(_ROOT).as_posix()}": file
        for file in found
        if file.is_file()
        and not file.is_symlink()
        and not any(
            part.startswith(".") or part == "__pycache__" for part in file.relative_to(_ROOT).parts
        )
    }


def _records(analysis: Analysis) -> dict[str, bytes | Path]:
    """Return the files of models, but for heads, and of the registers.

    Predictions hold labels of test images: those of imported models alone are there, which nothing
    else can make again.
    """
    folder = analysis.data / RESULTS
    found: dict[str, bytes | Path] = {
        f"{RESULTS}/{name}": folder / name for name in REGISTERS if (folder / name).is_file()
    }
    for card in analysis.results.models():
        mine = folder / card["model"]
        names = [n for n in ("model.json", "evaluation.json", *MODEL_FILES) if n != HEAD_FILE]
        if card["head"] == IMPORTED:
            names.append("predictions.parquet")
        files = [mine / name for name in names] + sorted(mine.glob(SELF_TESTS))
        found |= {f"{RESULTS}/{mine.name}/{f.name}": f for f in files if f.is_file()}
    return found


def _heads(analysis: Analysis) -> dict[str, Path]:
    """Return the files of the stored heads by model."""
    models = [card["model"] for card in analysis.results.models()]
    files = {model: analysis.data / RESULTS / model / HEAD_FILE for model in models}
    return {model: file for model, file in files.items() if file.is_file()}


def _classes(analysis: Analysis) -> dict[str, bytes | Path]:
    """Return the names of the classes as `gapscope load --classes` reads them."""
    rows = analysis.database.rows(
        "select class_id, class_name, superclass from class order by class_id"
    )
    if all(row["class_name"] == str(row["class_id"]) for row in rows):
        return {}
    with_super = any(row["superclass"] is not None for row in rows)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["label", "name", *(["superclass"] if with_super else [])])
    for row in rows:
        superclass = [row["superclass"] or ""] if with_super else []
        writer.writerow([row["class_id"], row["class_name"], *superclass])
    return {_CLASSES: text.getvalue().encode()}


def _recipe(analysis: Analysis) -> dict[str, Any]:
    """Return what the numbers were made from: data by digest, options, trainings, hypotheses."""
    database, data = analysis.database, analysis.data
    loaded = database.rows(
        """select l.split, s.role, s.is_reference, l.backbone, l.file, l.sha256, l.size_bytes,
        l.n_images, l.n_rejected, l.n_features, l.options
        from load_report as l inner join split as s on l.split = s.split
        order by s.load_order, l.backbone"""
    )
    return {
        "gapscope": VERSION,
        "data": [
            {
                **row,
                "file": PurePath(row["file"]).name,  # where it lay on that machine is nobody's
                "options": json.loads(row["options"]),
            }
            for row in loaded
        ],
        "annotations": [
            {"source": card.source, "origin": PurePath(card.origin).name}
            for card in annotation_cards(data)
        ],
        "lines": sorted(file.name for file in (data / LINES).glob("*.csv")),
        "models": [
            {
                "model": card["model"],
                "backbone": card["backbone"],
                "head": card["head"],
                "params": card["params"],
                "asked": card.get("asked"),
                "seed": card["seed"],
                "without": card.get("without") or [],
                "left_out": card.get("left_out"),
                "train_sha256": card["train_sha256"],
                "head_sha256": card.get("head_sha256"),
                "hypothesis": card.get("hypothesis"),
            }
            for card in analysis.results.models()
        ],
        "hypotheses": [
            {"id": record.sha256[:12], "registered_at": record.added_at, **record.content}
            for record in Register(data, "hypotheses").all()
            if record.kind == "hypothesis"
        ],
    }


def _told(
    recipe: dict[str, Any], left_out: Sequence[str], report_files: Mapping[str, bytes | Path]
) -> dict[str, bytes | Path]:
    text = json.dumps(recipe | {"heads_left_out": sorted(left_out)}, indent=1, sort_keys=True)
    return {
        "recipe.json": text.encode(),
        "README.txt": _readme(recipe, sorted(left_out), sorted(report_files)).encode(),
    }


def _readme(recipe: dict[str, Any], left_out: Sequence[str], files: Sequence[str]) -> str:
    retrain = " --retrain" if left_out else ""
    lines = [
        f"This bundle holds a report of Gapscope {recipe['gapscope']} ({', '.join(files)}), how",
        "it was made (recipe.json), the trained heads and records that it rests on (results/), and",
        "the code that makes its numbers again (code/). The features are not in it: it takes the",
        "files named below, byte for byte.",
        "",
        "Three commands, in this folder, with Python 3.11 or newer:",
        "",
        "  make -C code install",
        f"  GAP_DATA=again code/.venv/bin/gapscope load {_load(recipe)}",
        "  GAP_DATA=again code/.venv/bin/gapscope reproduce report.json "
        f"--results {RESULTS}{retrain}",
        "",
        "The last one computes every number of report.json anew, and says which are the same and",
        "which differ. With --retrain it trains the heads anew as well.",
        "",
        "Files to load (FOLDER is where they lie):",
        "",
    ]
    for row in recipe["data"]:
        lines.append(f"  {row['file']}")
        lines.append(f"    split {row['split']}, backbone {row['backbone'] or 'none'}, "
                     f"{row['size_bytes']:,} bytes")  # fmt: skip
        lines.append(f"    sha256 {row['sha256']}")
    if any(row["backbone"] is None for row in recipe["data"]):
        lines += ["", "Those without backbone came with predictions of models trained elsewhere;"]
        lines += ["import these again before the last command (gapscope import-predictions)."]
    if any(row["options"].get("labels_sha256") for row in recipe["data"]):
        lines += ["", "Files of labels belong beside the files that have none of their own."]
    if recipe["annotations"]:
        lines += ["", "Attach these before the last command (gapscope annotate):", ""]
        lines += [f"  {one['source']}: {one['origin']}" for one in recipe["annotations"]]
    if recipe["lines"]:
        lines += ["", "Published accuracies to attach before it (gapscope add-line):", ""]
        lines += [f"  {name}" for name in recipe["lines"]]
    if left_out:
        lines += ["", "Heads that were too large to be here; --retrain trains them:", ""]
        lines += [f"  {model}" for model in left_out]
    return "\n".join(lines) + "\n"


def _load(recipe: dict[str, Any]) -> str:
    """Return what comes after `gapscope load` to load the same files in the same way."""
    rows = [row for row in recipe["data"] if row["backbone"] is not None]
    words = [
        f"--split {shlex.quote(row['split'] + ':' + row['backbone'] + '=FOLDER/' + row['file'])}"
        for row in rows
    ]
    reference = next((row["split"] for row in rows if row["is_reference"]), None)
    if reference is not None:
        words.append(f"--reference {shlex.quote(reference)}")
    paths_from = next((p for row in rows if (p := row["options"].get("paths_from"))), None)
    if paths_from is not None:
        words.append(f"--paths-from {shlex.quote(paths_from)}")
    if recipe["has_class_names"]:
        words.append(f"--classes {_CLASSES}")
    return " \\\n    ".join(words)


def _size(content: bytes | Path) -> int:
    return content.stat().st_size if isinstance(content, Path) else len(content)


def _too_large(contents: Mapping[str, bytes | Path], n_bytes: int) -> str:
    largest = sorted(contents, key=lambda name: -_size(contents[name]))[:_LARGEST]
    named = ", ".join(f"{name} {_size(contents[name]) / 1e6:.1f} MB" for name in largest)
    return (
        f"wanted a bundle of at most {BUNDLE_BYTES_MAX / 1e6:.0f} MB, got {n_bytes / 1e6:.1f} MB "
        f"without any head; the largest: {named}. Nothing was written: make the report without a "
        "bundle, or from a data folder with fewer models."
    )


def _write(file: Path, contents: Mapping[str, bytes | Path]) -> None:
    new = file.with_name(f".{file.name}.{uuid.uuid4().hex[:8]}")
    try:
        with zipfile.ZipFile(new, "w", zipfile.ZIP_DEFLATED, compresslevel=_LEVEL) as packed:
            for name in sorted(contents):
                content = contents[name]
                info = zipfile.ZipInfo(name, _TIME)
                info.compress_type = zipfile.ZIP_DEFLATED
                info.external_attr = _MODE
                packed.writestr(
                    info, content.read_bytes() if isinstance(content, Path) else content
                )
        os.replace(new, file)  # noqa: PTH105 (the one word for it)
    finally:
        new.unlink(missing_ok=True)
