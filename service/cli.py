"""The command line: the same verbs as the service, thin over the same functions."""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from etl import LoadRefused
from etl import command as etl_command
from etl.database import DATABASE, text
from models.errors import ModelError
from models.heads import HEADS
from service import annotations, audit_command
from service import import_command as importing
from service.analysis import Analysis
from service.database import Database
from service.demo import run_demo
from service.errors import NothingToLoad, ServiceError
from service.extraction import command as extract_command
from service.looks import Look, Looks
from service.schemas import Answer, EstimateOut
from service.settings import Settings, read_settings
from service.terminal import progress_bar

_Command = Callable[[argparse.Namespace, Settings], int | None]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; 0 where it was done, 2 where it was refused; `audit` has its own."""
    parser = _parser()
    arguments, rest = parser.parse_known_args(argv)
    command: _Command = arguments.command
    if command is _sql:
        arguments.arguments = rest  # the DuckDB CLI's own options
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    try:
        return command(arguments, read_settings()) or 0
    except (LoadRefused, ModelError, ServiceError) as refused:
        print(f"refused ({refused.code}): {refused}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader had enough: `gapscope gap m | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gapscope",
        description="Why does a classifier score lower on test set 2 than on test set 1?",
        epilog="Settings: GAP_DATA (data folder), GAP_HOST, GAP_PORT, GAP_THREADS, "
        "GAP_IMAGES (folders with the image files).",
    )
    verbs = parser.add_subparsers(required=True, metavar="COMMAND")

    load = verbs.add_parser("load", help="feature files into the database")
    etl_command.add_arguments(load)
    load.add_argument(
        "--demo-if-empty",
        action="store_true",
        help="where no source is named or found and there is no database, load the demo",
    )
    load.set_defaults(command=_load)

    extract = verbs.add_parser("extract", help="images into features of a timm network")
    extract_command.add_arguments(extract)
    extract.set_defaults(command=_extract)

    demo = verbs.add_parser("demo", help="make and load the demo in place of what is loaded")
    demo.set_defaults(command=_demo)

    link = verbs.add_parser("link-images", help="find the files of the loaded images")
    annotations.add_link_arguments(link)
    link.set_defaults(command=annotations.link)

    annotate = verbs.add_parser("annotate", help="attach what else is known about the images")
    annotations.add_annotate_arguments(annotate)
    annotate.set_defaults(command=annotations.run_annotate)

    listing = verbs.add_parser("annotations", help="list what is attached")
    listing.set_defaults(command=_annotations)

    train = verbs.add_parser("train", help="train a head on the train rows of a backbone")
    train.add_argument("backbone")
    train.add_argument("--head", choices=list(HEADS), default="logistic")
    train.add_argument("--name", help="name of the model (default: <backbone>-<head>)")
    train.add_argument("--params", type=_json, default={}, metavar="JSON", help='{"C": 0.1}')
    train.add_argument("--seed", type=int, default=0)
    train.set_defaults(command=_train)

    imported = verbs.add_parser(
        "import-predictions", help="predictions of models that were trained elsewhere"
    )
    importing.add_arguments(imported)
    imported.set_defaults(command=importing.run)

    evaluate = verbs.add_parser("evaluate", help="scores of a model on the test splits")
    evaluate.add_argument("model")
    evaluate.add_argument("--split", action="append", dest="splits", metavar="NAME")
    evaluate.add_argument("--json", action="store_true")
    evaluate.set_defaults(command=_evaluate)

    gap = verbs.add_parser("gap", help="why a model scores lower on the target")
    gap.add_argument("model")
    gap.add_argument("--reference", metavar="NAME")
    gap.add_argument("--target", metavar="NAME")
    gap.add_argument("--json", action="store_true")
    gap.set_defaults(command=_gap)

    audit = verbs.add_parser("audit", help="prove that no test row took part in a model")
    audit_command.add_audit_arguments(audit)
    audit.set_defaults(command=audit_command.run_audit)

    looks = verbs.add_parser("looks", help="list every read of test labels")
    audit_command.add_looks_arguments(looks)
    looks.set_defaults(command=audit_command.run_looks)

    serve = verbs.add_parser("serve", help="start the service and stay until Ctrl-C")
    serve.set_defaults(command=_serve)

    sql = verbs.add_parser(
        "sql",
        help="DuckDB CLI on the database, read-only, results attached",
        epilog="All further arguments go to the DuckDB CLI, for example: sql -csv -c 'from model'.",
    )
    sql.set_defaults(command=_sql)
    return parser


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


def _load(arguments: argparse.Namespace, settings: Settings) -> None:
    if arguments.demo_if_empty and not _names_files(arguments):
        if not Database(settings.data).exists:
            _demo(arguments, settings)
        return
    if not arguments.sources and not arguments.split:
        raise NothingToLoad(
            "wanted a file, a folder or --split NAME=FILE, got nothing to load. "
            "For example: gapscope load features/"
        )
    etl_command.run(arguments, settings.data, settings.threads, settings.images)


def _names_files(arguments: argparse.Namespace) -> bool:
    """Whether there is anything to load: files, options, or folders that are not empty of CSV."""
    return bool(arguments.split) or any(
        not place.is_dir() or any(place.glob("*.[cC][sS][vV]")) for place in arguments.sources
    )


def _extract(arguments: argparse.Namespace, settings: Settings) -> None:
    print(extract_command.run(arguments, settings.data, settings.threads))


def _demo(_arguments: argparse.Namespace, settings: Settings) -> None:
    print(etl_command.in_words(run_demo(settings.data, settings.threads)))


def _annotations(_arguments: argparse.Namespace, settings: Settings) -> None:
    annotations.print_annotations(settings)


def _train(arguments: argparse.Namespace, settings: Settings) -> None:
    analysis = Analysis(settings.data)
    analysis.check_train(arguments.backbone, arguments.head, arguments.params)
    model = analysis.free_name(arguments.backbone, arguments.head, set(), arguments.name)
    with progress_bar(model) as progress:
        card = analysis.train(
            model=model,
            backbone=arguments.backbone,
            head=arguments.head,
            params=arguments.params,
            seed=arguments.seed,
            progress=progress,
        )
    top1 = EstimateOut(**card["validation"]["top1"])
    print(f"{model}: {json.dumps(card['params'])}, internal validation {_percent(top1)}")
    print(f"chosen by {card['validation']['method']}")


def _evaluate(arguments: argparse.Namespace, settings: Settings) -> None:
    with progress_bar(arguments.model) as progress:
        answer = Analysis(settings.data).evaluate(
            arguments.model, arguments.splits, progress=progress
        )
    if arguments.json:
        return _print_json(answer)
    for split, scores in answer.splits.items():
        print(f"{split:12} accuracy {_percent(scores.top1)}, {scores.n:,} images")
    if answer.gap is not None:
        ends = f"{answer.gap.reference} − {answer.gap.target}"
        print(f"gap {ends}: {_percent(answer.gap.top1)}")
    return None


def _gap(arguments: argparse.Namespace, settings: Settings) -> None:
    with progress_bar(arguments.model) as progress:
        answer = Analysis(settings.data).gap(
            arguments.model, arguments.reference, arguments.target, progress=progress
        )
    if arguments.json:
        return _print_json(answer)
    for sentence in answer.summary:
        print(sentence)
    print(f"\n{'class':20} {'shrunken gap':>28} {'raw':>8} {'P(above common gap)':>19}")
    for c in [c for c in answer.classes if c.raw is not None][:10]:
        raw, above = f"{c.raw:8.1%}", f"{c.p_exceeds:19.2f}"
        print(f"{c.class_name[:20]:20} {_percent(c.shrunken):>28} {raw} {above}")
    if answer.features is None:
        return None
    print(f"\n{'feature':20} {'shift within classes':>28} {'adjusted p':>11} {'head weight':>12}")
    for f in answer.features[:10]:
        shift = f.mean_difference_within_classes
        words = "unknown" if shift.estimate is None else f"{shift.estimate:.2f} sd"
        p = "" if f.p_value is None else f"{f.p_value:.3f}"
        print(f"{f.feature_name[:20]:20} {words:>28} {p:>11} {f.head_weight:12.3f}")
    return None


def _serve(_arguments: argparse.Namespace, settings: Settings) -> None:
    import uvicorn

    from service.app import create_app, refuse_if_in_use

    refuse_if_in_use(settings)
    if not Database(settings.data).exists:
        print(f"note: nothing is loaded in {settings.data} yet: gapscope load, or gapscope demo")
    print(f"Gapscope on http://{settings.host}:{settings.port} (Ctrl-C stops it)", flush=True)
    with suppress(KeyboardInterrupt):  # Ctrl-C is how a service in the foreground ends
        uvicorn.run(
            create_app(settings), host=settings.host, port=settings.port, log_level="warning"
        )


def _sql(arguments: argparse.Namespace, settings: Settings) -> None:
    with Database(settings.data).connect():
        pass  # refuses in words where there is nothing to open
    Looks(settings.data).record(Look(None, "sql"), None, None)
    data = settings.data.resolve()
    duckdb = Path(sys.executable).with_name("duckdb")
    # results are found from anywhere, and what does not fit in memory spills where one may write
    settings_sql = (
        f"set file_search_path = {text(str(data))}; "
        f"set temp_directory = {text(str(Path(tempfile.gettempdir()) / 'gapscope-sql'))}"
    )
    command = [str(duckdb), "-readonly", "-cmd", settings_sql, str(data / DATABASE)]
    os.execv(duckdb, [*command, *arguments.arguments])


def _print_json(answer: Answer) -> None:
    print(answer.model_dump_json(indent=1))


def _percent(value: EstimateOut) -> str:
    if value.estimate is None or value.low is None or value.high is None:
        return f"unknown ({value.reason})"
    return f"{value.estimate:.1%} [{value.low:.1%}, {value.high:.1%}]"
