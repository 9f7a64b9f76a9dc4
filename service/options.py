"""What can be asked of the verbs, apart from what they import: help must not take seconds."""

import argparse
import json
import re
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

RANDOM = "random"
FORMATS = ("csv", "parquet", "database")
SETTINGS = {
    "data": "the data folder: database, models, jobs",
    "host": "address to listen on; one that others reach, such as `0.0.0.0`, wants a token",
    "port": "port to listen on",
    "threads": "cores to use; all of them where it is not set",
    "memory_gb": "GB of memory for the rows that a head is trained on; above it they go to disk; "
    "half of the machine's memory where it is not set",
    "device": "where heads are trained: `cpu` or `cuda`; CUDA where there is one",
    "images": "folders with the image files, separated as in `PATH`",
    "strict": "1: a model reads labels of a test set other than the reference only where it has a "
    "seal (`gapscope seal`)",
    "token": "what requests must bring, at least 128 random bits; none is wanted on `127.0.0.1`",
    "token_file": "a file with the token, in place of `GAP_TOKEN`; made where it is not there",
    "hosts": "further names under which the service is reached, separated by commas",
    "log": "the least that is logged: `debug` (every request), `info`, `warning` or `error`",
}
# of `models.heads.HEADS`, which would take seconds to import
HEADS = {
    "logistic": "softmax regression (the default)",
    "lda": "linear discriminant analysis",
    "ridge": "least squares with a penalty",
    "nearest_mean": "nearest class mean",
    "knn": "nearest train rows by cosine",
    "cosine": "directions of the classes, a fixed sharpness",
    "mlp": "one hidden layer beside a linear path",
    "ensemble": "several heads, weighted by their loss on held-out rows",
    "auto": "tries all of these, keeps the best on held-out rows",
    "sklearn:NAME": "a classifier of scikit-learn, such as sklearn:RandomForestClassifier",
}
_SPLIT_FILE = re.compile(r"([A-Za-z0-9][\w.+-]*)=(.+)")


def settings_in_words() -> str:
    """Return the settings as the end of `gapscope --help`."""
    rows = {f"GAP_{name.upper()}": meaning for name, meaning in SETTINGS.items()}
    return _table("settings, from the environment:", rows)


def add_train_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `train`."""
    parser.add_argument("backbone")
    parser.add_argument("--head", default="logistic", help="kind of head (default: logistic)")
    parser.add_argument("--name", help="name of the model (default: <backbone>-<head>)")
    parser.add_argument(
        "--params",
        type=_json,
        default={},
        metavar="JSON",
        help="of the head, such as '{\"C\": 0.1}'; a list to try each (default: a grid)",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _table("heads:", HEADS) + (
        '\n\nTheir parameters are in README.md under "Heads"; a name or a value that is wrong is\n'
        "refused with those that are known."
    )


def _table(title: str, rows: Mapping[str, str]) -> str:
    width = max(map(len, rows)) + 4
    lines = [title]
    for name, meaning in rows.items():
        lines += textwrap.wrap(
            f"{'  ' + name:{width}}{meaning}", 88, subsequent_indent=" " * width,
            break_on_hyphens=False,
        )  # fmt: skip
    return "\n".join(lines)


def _json(argument: str) -> dict[str, Any]:
    try:
        value = json.loads(argument)
    except json.JSONDecodeError as error:
        raise argparse.ArgumentTypeError(
            f"wanted a JSON object such as '{{\"C\": 0.1}}', got {argument}: {error}"
        ) from error
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"wanted a JSON object, got {argument}")
    return value


def add_extract_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `extract`."""
    add = parser.add_argument
    add("--images", type=Path, required=True, metavar="DIR", help="one folder a class, or flat")
    add("--split", required=True, metavar="NAME", help="train, val, v2, …: the role follows")
    add("--model", required=True, metavar="TIMM_NAME", help="for example resnet50.a1_in1k")
    add(
        "--weights",
        metavar="FILE",
        help="a checkpoint of this model (default: what timm has cached or can fetch); "
        f"{RANDOM}: drawn by --seed, features without meaning",
    )
    add("--seed", type=int, default=0, help=f"seed of --weights {RANDOM} (default: 0)")
    add("--layer", metavar="NAME", help="any layer, averaged over places (default: pre-logits)")
    add("--backbone", metavar="NAME", help="name of the features (default: model[.layer])")
    add("--out", type=Path, default=Path("features"), metavar="DIR", help="default: features")
    add("--format", choices=FORMATS, default="csv", help="default: csv")
    add("--classes", type=Path, metavar="FILE", help="CSV label,folder: the mapping to use")
    add("--labels", type=Path, metavar="FILE", help="CSV path,label: labels of a flat folder")
    add("--prefix", metavar="TEXT", help="in front of each path (default: the split)")
    add("--device", default="auto", help="auto (default), cpu, cuda, cuda:1, …")
    add("--autocast", action="store_true", help="bfloat16 where safe: faster, other digits")
    add("--batch-size", type=_positive, default=32, metavar="N", help="default: 32")
    add("--workers", type=_count, metavar="N", help="processes that read (default: cores, up to 8)")
    add("--skip-unreadable", action="store_true", help="leave out images that cannot be decoded")
    add("--restart", action="store_true", help="begin anew; replaces what is there")


def add_link_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `link-images`."""
    parser.add_argument(
        "roots",
        nargs="*",
        type=Path,
        metavar="ROOT",
        help="folders with the image files (default: those of GAP_IMAGES)",
    )


def add_annotate_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `annotate`."""
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "file",
        nargs="?",
        type=Path,
        metavar="FILE",
        help="CSV or Parquet with columns split (optional), path and any others: what is known",
    )
    what.add_argument(
        "--real", action="store_true", help="ReaL's labels of ImageNet's validation images"
    )
    what.add_argument(
        "--image-statistics",
        action="store_true",
        help="size, brightness, contrast, sharpness and more of each linked image file",
    )
    what.add_argument("--remove", metavar="NAME", help="detach the annotations of this name")
    parser.add_argument("--name", help="name of the annotations (default: the file's)")
    parser.add_argument("--split", metavar="NAME", help="split of the rows that name none")


def add_line_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `add-line`."""
    parser.add_argument(
        "files",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="CSV or Parquet with columns model and two accuracies; or one file for each split",
    )
    parser.add_argument("--name", required=True, help="name of the line")
    parser.add_argument("--reference", metavar="NAME", help="split of the first accuracy")
    parser.add_argument("--target", metavar="NAME", help="split of the second")
    parser.add_argument(
        "--columns",
        nargs=2,
        metavar=("FIRST", "SECOND"),
        help="columns with the accuracies (default: the splits' names, the only two, or top1)",
    )
    parser.add_argument(
        "--replace", action="store_true", help="take the place of a line of this name"
    )


def add_import_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `import-predictions`."""
    parser.add_argument(
        "files",
        nargs="+",
        type=_split_file,
        metavar="SPLIT=FILE",
        help="CSV or Parquet: path, label, top1 [top2 … top5] [confidence]",
    )
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--model", metavar="NAME", help="name of the one model")
    which.add_argument(
        "--columns",
        action="store_true",
        help="every column beside path and label is the model of its name: the predicted class",
    )
    parser.add_argument(
        "--images",
        action="append",
        default=[],
        type=_split_file,
        metavar="SPLIT=FILE",
        help="path and label of a split whose file has neither; rows in the same order",
    )
    parser.add_argument(
        "--replace", action="store_true", help="replace imported models of the same name"
    )


def _positive(argument: str) -> int:
    if not argument.isdecimal() or int(argument) < 1:
        raise argparse.ArgumentTypeError(f"wanted a whole number from 1, got {argument}")
    return int(argument)


def _count(argument: str) -> int:
    if not argument.isdecimal():
        raise argparse.ArgumentTypeError(f"wanted a whole number from 0, got {argument}")
    return int(argument)


def _split_file(argument: str) -> tuple[str, Path]:
    found = _SPLIT_FILE.fullmatch(argument)
    if found is None:
        raise argparse.ArgumentTypeError(f"wanted SPLIT=FILE, such as val=val.csv, got {argument}")
    return found[1], Path(found[2])


def add_audit_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `audit`."""
    parser.add_argument("model")
    parser.add_argument("--json", action="store_true")
    parser.add_argument(
        "--retrain",
        nargs="?",
        const="",
        metavar="NAME",
        help="where copies of test rows are found, train the same head without them",
    )


def add_reproduce_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `reproduce`."""
    parser.add_argument("report", type=Path, metavar="REPORT.json")
    parser.add_argument(
        "--results",
        type=Path,
        metavar="FOLDER",
        help="take models and records from here, as a bundle has them, not from the data folder",
    )
    parser.add_argument(
        "--retrain", action="store_true", help="train every head anew too, by its recipe and seed"
    )
    parser.add_argument("--json", action="store_true")


def seconds(text: str) -> float:
    """Read a time budget: a second to a day."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 1 <= value <= 86_400:
        raise argparse.ArgumentTypeError(f"wanted seconds from 1 to 86400, got {text}.")
    return value


def add_hypotheses_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `hypotheses`."""
    parser.add_argument("--json", action="store_true")
    verbs = parser.add_subparsers(dest="verb", metavar="list | recipes | suggest | register | run")
    listed = verbs.add_parser("list", help="all hypotheses with their verdicts (the default)")
    listed.add_argument("model", nargs="?", help="a baseline; default: all")
    verbs.add_parser("recipes", help="what may be refined, and how")
    for name, about in (
        ("suggest", "propose up to eight, from findings on the explore halves"),
        ("run", "test what is registered and not tested"),
    ):
        verb = verbs.add_parser(name, help=about)
        verb.add_argument(
            "model",
            nargs=None if name == "suggest" else "?",
            help="the baseline" if name == "suggest" else "a baseline; default: all",
        )
        verb.add_argument("--reference", metavar="NAME")
        verb.add_argument("--target", metavar="NAME")
        verb.add_argument(
            *(("--register",) if name == "suggest" else ("--suggest",)),
            action="store_true",
            help="and register them"
            if name == "suggest"
            else "propose and register hypotheses about the model first",
        )
    register = verbs.add_parser(
        "register",
        help="one hypothesis, or a list, from a JSON file",
        description='The fields of POST /hypotheses: {"title": …, "cause": …, "baseline": MODEL, '
        '"refinement": {"kind": …}}; further: reference, target, endpoint, sided, family, images, '
        "diagnostic, motivated_by, contradicted_by.",
    )
    register.add_argument("file", type=Path)


def add_report_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `report`."""
    parser.add_argument(
        "models", nargs="*", metavar="MODEL", help="the first is what the report is about"
    )
    parser.add_argument(
        "--bundle",
        type=Path,
        metavar="FILE.zip",
        help="pack report, recipe, heads and code into one file, of at most 200 MB",
    )
    parser.add_argument("-o", "--out", type=Path, default=Path("report.pdf"), metavar="FILE.pdf",
        help="default: report.pdf; .html and .json are written beside it")  # fmt: skip
    parser.add_argument("--reference", metavar="NAME")
    parser.add_argument("--target", metavar="NAME")
    parser.add_argument("--title-page", type=Path, metavar="FILE.yaml",
        help="title, authors with ids and shares, work log, timesheet")  # fmt: skip
    parser.add_argument("--text", type=Path, metavar="FOLDER",
        help="your own paragraphs: 1.md to 6.md, one for each chapter")  # fmt: skip
    parser.add_argument("--example", action="store_true", help="print a title page to begin with")


def add_looks_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `looks`."""
    parser.add_argument("--model", metavar="NAME", help="looks with this model alone")
    parser.add_argument("--json", action="store_true", help="one line a look")
