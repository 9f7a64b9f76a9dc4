"""The command line: the same verbs as the service, thin over the same functions."""

import argparse
import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from etl.options import add_arguments as add_load_arguments
from service import options

if TYPE_CHECKING:
    from service.gap.ledger import LedgerOut
    from service.schemas import Answer, EstimateOut
    from service.settings import Settings

_Command = Callable[[argparse.Namespace, "Settings"], int | None]
_STOPPED = 130
_NICE = 10


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; 0 done, 2 refused, 130 ended by Ctrl-C; see `audit`, `reproduce`."""
    is_process = argv is None
    try:
        parser = _parser()
        arguments, rest = parser.parse_known_args(argv)
        command: _Command = arguments.command
        if command is _sql:
            arguments.arguments = rest  # the DuckDB CLI's own options
        elif rest:
            parser.error(f"unrecognized arguments: {' '.join(rest)}")
        if is_process and command in _BATCH:
            os.nice(_NICE)
        with _stopping_at_once(is_process):
            for module in ("service.settings", *arguments.needs):
                import_module(module)
        return _run(command, arguments)
    except KeyboardInterrupt:
        return _stopped()
    except RuntimeError as error:
        # a query that Ctrl-C ends raises an error of its own, in place of the interrupt
        if not isinstance(error.__context__, KeyboardInterrupt):
            raise
        return _stopped()
    finally:
        if is_process:  # what there was to do is done, or stopped: the rest is putting away
            signal.signal(signal.SIGINT, signal.SIG_IGN)


def _stopped() -> int:
    print("\nstopped", file=sys.stderr)
    return _STOPPED


def _run(command: _Command, arguments: argparse.Namespace) -> int:
    from etl.errors import LoadRefused
    from models.errors import ModelError
    from service.errors import ServiceError
    from service.settings import read_settings

    try:
        return command(arguments, read_settings()) or 0
    except (LoadRefused, ModelError, ServiceError) as refused:
        print(f"refused ({refused.code}): {refused}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader had enough: `gapscope gap m | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception as error:
        from service.disk import disk_refusal

        refusal = disk_refusal(error, read_settings().data)
        if refusal is None:
            raise
        print(f"refused ({refusal.code}): {refusal}", file=sys.stderr)
        return 2
    return 0


@contextmanager
def _stopping_at_once(is_process: bool) -> Iterator[None]:
    """Let Ctrl-C end the process while it imports: there is nothing yet to put away.

    Raised in the middle of a compiled module's import, the interrupt would come out as any error.
    """
    if not is_process:
        yield
        return

    def stop(_signal: int, _frame: FrameType | None) -> None:
        os.write(sys.stderr.fileno(), b"\nstopped\n")
        os._exit(_STOPPED)

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gapscope",
        description="Why does a classifier score lower on test set 2 than on test set 1?",
        epilog=options.settings_in_words(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(required=True, metavar="COMMAND")

    load = verbs.add_parser("load", help="feature files into the database")
    add_load_arguments(load)
    load.add_argument(
        "--demo-if-empty",
        action="store_true",
        help="where no source is named or found and there is no database, load the demo",
    )
    load.set_defaults(command=_load, needs=["etl.command", "service.demo"])

    extract = verbs.add_parser("extract", help="images into features of a timm network")
    options.add_extract_arguments(extract)
    extract.set_defaults(command=_extract, needs=["service.extraction.command"])

    demo = verbs.add_parser("demo", help="make and load the demo in place of what is loaded")
    demo.set_defaults(command=_demo, needs=["service.demo"])

    link = verbs.add_parser("link-images", help="find the files of the loaded images")
    options.add_link_arguments(link)
    link.set_defaults(command=_link, needs=["service.annotations"])

    annotate = verbs.add_parser("annotate", help="attach what else is known about the images")
    options.add_annotate_arguments(annotate)
    annotate.set_defaults(command=_annotate, needs=["service.annotations"])

    listing = verbs.add_parser("annotations", help="list what is attached")
    listing.set_defaults(command=_annotations, needs=["service.annotations"])

    lines = verbs.add_parser("add-line", help="accuracies of published models to compare with")
    options.add_line_arguments(lines)
    lines.set_defaults(command=_add_line, needs=["service.lines"])

    train = verbs.add_parser("train", help="train a head on the train rows of a backbone")
    options.add_train_arguments(train)
    train.set_defaults(command=_train, needs=["service.analysis"])

    imported = verbs.add_parser(
        "import-predictions", help="predictions of models that were trained elsewhere"
    )
    options.add_import_arguments(imported)
    imported.set_defaults(command=_import_predictions, needs=["service.import_command"])

    given = verbs.add_parser("import-head", help="a linear head whose weights a file gives")
    given.add_argument("backbone")
    given.add_argument("file", type=Path, help=".safetensors, or .pth with tensors alone")
    given.add_argument("--name", required=True, help="name of the model")
    given.add_argument("--weight", action="append", metavar="KEY", help="tensor [k, d] or [d, k]; "
        "given twice, with --bias twice: the mean of two")  # fmt: skip
    given.add_argument("--bias", action="append", metavar="KEY", help="tensor [k]")
    given.set_defaults(command=_import_head, needs=["service.untrained"])

    between = verbs.add_parser("interpolate", help="a head between two linear heads")
    between.add_argument("model_a")
    between.add_argument("model_b")
    between.add_argument("--alpha", type=float, default=0.5, help="0 gives A, 1 gives B")
    between.add_argument("--name", required=True, help="name of the model")
    between.set_defaults(command=_interpolate, needs=["service.analysis"])

    evaluate = verbs.add_parser("evaluate", help="scores of a model on the test splits")
    evaluate.add_argument("model")
    evaluate.add_argument("--split", action="append", dest="splits", metavar="NAME")
    evaluate.add_argument("--json", action="store_true")
    evaluate.add_argument("--strict", action="store_true", help="demand a seal, as GAP_STRICT does")
    evaluate.set_defaults(command=_evaluate, needs=["service.analysis"])

    seal = verbs.add_parser("seal", help="predict the target's accuracy before its labels are read")
    seal.add_argument("model")
    seal.add_argument("--target", metavar="NAME")
    seal.add_argument("--reference", metavar="NAME")
    seal.add_argument("--json", action="store_true")
    seal.set_defaults(command=_seal, needs=["service.sealing"])

    seals = verbs.add_parser("seals", help="what was predicted, what came, how often it was held")
    seals.add_argument("--json", action="store_true")
    seals.set_defaults(command=_seals, needs=["service.seals"])

    gap = verbs.add_parser("gap", help="why a model scores lower on the target")
    gap.add_argument("model")
    gap.add_argument("--reference", metavar="NAME")
    gap.add_argument("--target", metavar="NAME")
    gap.add_argument("--json", action="store_true")
    gap.set_defaults(command=_gap, needs=["service.analysis"])

    tried = verbs.add_parser(
        "selftest", help="how often findings are false here, and what is found"
    )
    tried.add_argument("model")
    tried.add_argument("--reference", metavar="NAME")
    tried.add_argument(
        "--budget-s", type=options.seconds, default=900.0, metavar="S", help="default: 900"
    )
    tried.add_argument("--seed", type=int, default=0, help="of the sets that are made")
    tried.add_argument("--json", action="store_true")
    tried.set_defaults(command=_selftest, needs=["service.selftest", "service.analysis"])

    gaps = verbs.add_parser("gaps", help="a model's three gaps, from what is stored")
    gaps.add_argument("model")
    gaps.add_argument("--json", action="store_true")
    gaps.set_defaults(command=_gaps, needs=["service.analysis"])

    hypotheses = verbs.add_parser(
        "hypotheses", help="register, test and list refinements: changes of the gap with verdicts"
    )
    options.add_hypotheses_arguments(hypotheses)
    hypotheses.set_defaults(command=_hypotheses, needs=["service.hypotheses.command"])

    report = verbs.add_parser("report", help="all of it as a report: PDF, page, and its numbers")
    options.add_report_arguments(report)
    report.set_defaults(command=_report, needs=["service.report.command"])

    audit = verbs.add_parser("audit", help="prove that no test row took part in a model")
    options.add_audit_arguments(audit)
    audit.set_defaults(command=_audit, needs=["service.audit_command"])

    again = verbs.add_parser("reproduce", help="compute the numbers of a report anew and compare")
    options.add_reproduce_arguments(again)
    again.set_defaults(command=_reproduce, needs=["service.reproduce_command"])

    looks = verbs.add_parser("looks", help="list every read of test labels")
    options.add_looks_arguments(looks)
    looks.set_defaults(command=_looks, needs=["service.audit_command"])

    serve = verbs.add_parser("serve", help="start the service and stay until Ctrl-C")
    serve.add_argument("--strict", action="store_true", help="demand seals, as GAP_STRICT does")
    serve.set_defaults(command=_serve, needs=["service.app", "service.door.server"])

    token = verbs.add_parser("token", help="print the address to open in a browser, with the token")
    token.set_defaults(command=_token, needs=["service.door.token"])

    sql = verbs.add_parser(
        "sql",
        help="DuckDB CLI on the database, read-only, results attached",
        epilog="All further arguments go to the DuckDB CLI, for example: sql -csv -c 'from model'.",
    )
    sql.set_defaults(command=_sql, needs=["service.database"])
    return parser


def _load(arguments: argparse.Namespace, settings: "Settings") -> None:
    from etl import command as etl_command
    from service.backbones import Backbones
    from service.database import Database
    from service.errors import NothingToLoad

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
    Backbones(settings.data).record_loaded()


def _names_files(arguments: argparse.Namespace) -> bool:
    """Whether there is anything to load: files, options, or folders that are not empty of CSV."""
    return bool(arguments.split) or any(
        not place.is_dir() or any(place.glob("*.[cC][sS][vV]")) for place in arguments.sources
    )


def _extract(arguments: argparse.Namespace, settings: "Settings") -> None:
    from service.extraction import command as extract_command

    print(extract_command.run(arguments, settings.data, settings.threads))


def _demo(_arguments: argparse.Namespace, settings: "Settings") -> None:
    from etl import command as etl_command
    from service.demo import run_demo

    print(etl_command.in_words(run_demo(settings.data, settings.threads)))


def _link(arguments: argparse.Namespace, settings: "Settings") -> None:
    from service import annotations

    annotations.link(arguments, settings)


def _annotate(arguments: argparse.Namespace, settings: "Settings") -> None:
    from service import annotations

    annotations.run_annotate(arguments, settings)


def _add_line(arguments: argparse.Namespace, settings: "Settings") -> None:
    from service import lines

    lines.run_add(arguments, settings)


def _import_predictions(arguments: argparse.Namespace, settings: "Settings") -> None:
    from service import import_command

    import_command.run(arguments, settings)


def _annotations(_arguments: argparse.Namespace, settings: "Settings") -> None:
    from service import annotations

    annotations.print_annotations(settings)


def _train(arguments: argparse.Namespace, settings: "Settings") -> None:
    from service.analysis import Analysis, resources_of
    from service.schemas import EstimateOut
    from service.terminal import progress_bar
    from service.trainings import why_flattered

    analysis = Analysis(settings.data, resources_of(settings))
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
            note=lambda sentence: print(f"note: {sentence}", file=sys.stderr),
        )
    top1 = EstimateOut(**card["validation"]["top1"])
    if arguments.head == "auto":
        _print_leaderboard(card["validation"]["candidates"])
    print(f"{model}: {card['head']} {json.dumps(card['params'])}")
    print(f"internal validation {_percent(top1)}")
    if arguments.head == "auto" and (why := why_flattered(card["validation"]["candidates"])):
        print(why)
    for sentence in card["notes"]:
        print(f"note: {sentence}")
    print(f"chosen by {card['validation']['method']}")


def _print_leaderboard(candidates: list[dict[str, Any]]) -> None:
    """Print the best candidate of each head."""
    best: dict[str, dict[str, Any]] = {}
    for candidate in candidates:
        head = candidate["head"]
        if head not in best or candidate["top1"] > best[head]["top1"]:
            best[head] = candidate
    print(f"{'head':14} {'right':>7} {'NLL':>7}  parameters")
    for head, found in sorted(best.items(), key=lambda item: -item[1]["top1"]):
        params = "" if head == "ensemble" else json.dumps(found["params"])
        print(f"{head:14} {found['top1']:7.2%} {found['nll']:7.3f}  {params}")


def _evaluate(arguments: argparse.Namespace, settings: "Settings") -> None:
    from service.analysis import Analysis
    from service.terminal import progress_bar

    with progress_bar(arguments.model) as progress:
        answer = Analysis(settings.data, strict=arguments.strict or settings.strict).evaluate(
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


def _seal(arguments: argparse.Namespace, settings: "Settings") -> None:
    from service.analysis import Analysis
    from service.sealing import seal
    from service.seals import seal_in_words
    from service.terminal import progress_bar

    asked = (arguments.model, arguments.target, arguments.reference)
    with progress_bar(arguments.model) as progress:
        answer = seal(Analysis(settings.data), *asked, progress=progress)
    if arguments.json:
        return _print_json(answer)
    print(seal_in_words(answer))
    print(f"seal {answer.seal}, after {answer.n_looks_before} reads of the labels of "
          f"{answer.target} with other models or in SQL")  # fmt: skip
    for one in answer.methods:
        print(f"  {one.name:18} {_percent(one.predicted)}")
    for sentence in answer.assumptions:
        print(f"note: {sentence}")
    return None


def _seals(arguments: argparse.Namespace, settings: "Settings") -> None:
    from service.seals import Seals

    answer = Seals(settings.data).all()
    if arguments.json:
        return _print_json(answer)
    if answer.seals:
        print(f"{'seal':12}  {'model':20} {'target':12} {'predicted [95 % interval]':26} "
              f"{'came':>6}  held")  # fmt: skip
    for one in answer.seals:
        came = (
            "" if one.truth is None or one.truth.estimate is None else f"{one.truth.estimate:.1%}"
        )
        held = {True: "yes", False: "no", None: one.not_opened or ""}[one.covered]
        print(f"{one.seal}  {one.model[:20]:20} {one.target[:12]:12} "
              f"{_percent(one.predicted):26} {came:>6}  {held}")  # fmt: skip
    print(answer.summary[-1])
    return None


def _gap(arguments: argparse.Namespace, settings: "Settings") -> None:
    from service.analysis import Analysis
    from service.gap import SLOW
    from service.gap.explaining import Question
    from service.terminal import part_of, progress_bar

    analysis = Analysis(settings.data)
    asked = (arguments.model, arguments.reference, arguments.target)
    with progress_bar(arguments.model) as progress:
        question = Question(analysis, *asked)
        plain = question.gap(part_of(progress, 0.0, 0.2))
        question.compute(skip=SLOW, progress=part_of(progress, 0.2, 1.0))
    answer = question.explained(plain)
    if arguments.json:
        return _print_json(answer)
    for sentence in answer.summary:
        print(sentence)
    if answer.ledger is not None:
        _print_ledger(answer.ledger)
    if answer.findings:
        print(
            "\nThe largest findings; each is adjusted for all that its part lists, so that a term "
            "may be\nsupported by itself above and yet no finding:"
        )
    for finding in answer.findings:
        print(f"\n{finding.sentence}\n  {finding.caveat} (/gap/{answer.model}/{finding.part})")
        if finding.trust is not None:
            print(f"  self-test: {finding.trust}")
    print("\nWhat these data cannot tell:")
    for sentence in answer.unknown:
        print(f"- {sentence}")
    print(
        f"\n{'class':20} {'shrunken gap':>28} {'raw':>8} {'P(above common gap)':>19} "
        f"{'q (named from .05 down)':>23}"
    )
    for c in [c for c in answer.classes if c.raw is not None][:10]:
        raw, above = f"{c.raw:8.1%}", f"{c.p_exceeds:19.2f}"
        q = "" if c.q_value is None else f"{c.q_value:.3f}"
        print(f"{c.class_name[:20]:20} {_percent(c.shrunken):>28} {raw} {above} {q:>23}")
    if answer.features is None:
        return None
    print(
        "\nfeatures by relevance = |shift within classes| in train sd × weight in the head; the "
        "summary names the first with p < .05"
    )
    print(f"{'feature':20} {'relevance':>9} {'shift within classes':>20} {'adjusted p':>10} "
          f"{'head weight':>11}")  # fmt: skip
    for f in answer.features[:10]:
        shift = f.mean_difference_within_classes
        words = "unknown" if shift.estimate is None else f"{shift.estimate:.2f} pooled sd"
        p = "" if f.p_value is None else f"{f.p_value:.3f}"
        print(
            f"{f.feature_name[:20]:20} {f.relevance:9.3f} {words:>20} {p:>10} {f.head_weight:11.3f}"
        )
    return None


def _print_ledger(ledger: "LedgerOut") -> None:
    print(f"\n{'term of the gap':24} {'points':>7} {'95 % interval':>16} {'alone':>7}  verdict")
    for term in ledger.terms:
        value = "" if term.estimate is None else f"{term.estimate * 100:+.1f}"
        span = ""
        if term.low is not None and term.high is not None:
            span = f"{term.low * 100:+.1f} to {term.high * 100:+.1f}"
        alone = term.alone.estimate if term.alone is not None else None
        by_itself = "" if alone is None else f"{alone * 100:+.1f}"
        print(f"{term.name[:24]:24} {value:>7} {span:>16} {by_itself:>7}  {term.verdict}")
    print("The terms sum to the gap; alone: what a term explains by itself, without the others.")
    if any(term.verdict == "underpowered" for term in ledger.terms):
        print(
            "Underpowered: too few images; its interval holds 0 and half of the gap (or a point)."
        )


def _selftest(arguments: argparse.Namespace, settings: "Settings") -> None:
    from service import selftest
    from service.analysis import Analysis
    from service.gap.explaining import Question
    from service.terminal import progress_bar

    question = Question(Analysis(settings.data), arguments.model, arguments.reference, None)
    with progress_bar(arguments.model) as progress:
        found = selftest.run(
            question, budget_s=arguments.budget_s, seed=arguments.seed, progress=progress
        )
    if arguments.json:
        return _print_json(found)
    for line in selftest.table(found):
        print(line)
    print()
    for sentence in found.summary[1 + len(found.explainers) :]:
        print(sentence)
    return None


def _gaps(arguments: argparse.Namespace, settings: "Settings") -> None:
    from service.analysis import Analysis

    answer = Analysis(settings.data).gaps(arguments.model)
    if arguments.json:
        return _print_json(answer)
    for sentence in answer.summary:
        print(sentence)
    return None


def _import_head(arguments: argparse.Namespace, settings: "Settings") -> None:
    from service.analysis import Analysis
    from service.untrained import import_head

    analysis = Analysis(settings.data)
    found = import_head(
        analysis.database,
        analysis.results,
        arguments.backbone,
        arguments.file,
        name=arguments.name,
        weight=arguments.weight,
        bias=arguments.bias,
    )
    card = found.card
    print(
        f"{card['model']}: {card['n_classes']:,} classes, {card['n_features']:,} features, from "
        f"{', '.join(card['given']['weight'] + card['given']['bias'])}"
    )
    for note in found.notes:
        print(f"note: {note}")
    print("note: what a head whose weights were given learnt from is unknown here")


def _interpolate(arguments: argparse.Namespace, settings: "Settings") -> None:
    from service.analysis import Analysis

    card = Analysis(settings.data).interpolate(
        arguments.model_a, arguments.model_b, alpha=arguments.alpha, name=arguments.name
    )
    print(
        f"{card['model']}: {1 - arguments.alpha:g} · {arguments.model_a} + "
        f"{arguments.alpha:g} · {arguments.model_b}; learnt from "
        f"{card['interpolated']['learnt_from']}"
    )


def _hypotheses(arguments: argparse.Namespace, settings: "Settings") -> None:
    from service.hypotheses.command import run_hypotheses

    run_hypotheses(arguments, settings)


def _report(arguments: argparse.Namespace, settings: "Settings") -> None:
    from service.report.command import run_report
    from service.report.title_page import EXAMPLE

    if arguments.example:
        return print(EXAMPLE, end="")
    for file in run_report(arguments, settings):
        print(file)
    return None


def _audit(arguments: argparse.Namespace, settings: "Settings") -> int:
    from service.audit_command import run_audit

    return run_audit(arguments, settings)


def _reproduce(arguments: argparse.Namespace, settings: "Settings") -> int:
    from service.reproduce_command import run_reproduce

    return run_reproduce(arguments, settings)


def _looks(arguments: argparse.Namespace, settings: "Settings") -> None:
    from service.audit_command import run_looks

    run_looks(arguments, settings)


def _serve(arguments: argparse.Namespace, settings: "Settings") -> None:
    from service import logs
    from service.app import create_app, refuse_if_in_use
    from service.database import Database
    from service.door import server, token

    if arguments.strict:
        os.environ["GAP_STRICT"] = "1"  # its workers read it there
        settings = settings.model_copy(update={"strict": True})
    logs.configure(settings.log)
    refuse_if_in_use(settings)
    app = create_app(settings)
    if not Database(settings.data).exists:
        print(f"note: nothing is loaded in {settings.data} yet: gapscope load, or gapscope demo")
    if app.state.has_token:
        print("note: it wants its token; `gapscope token` prints the address with it")
    print(f"Gapscope on {token.address(settings, None)} (Ctrl-C stops it)", flush=True)
    server.run(app, settings)


def _token(_arguments: argparse.Namespace, settings: "Settings") -> None:
    from service.door import token

    print(token.address(settings, token.token_of(settings)))


def _sql(arguments: argparse.Namespace, settings: "Settings") -> None:
    from etl.database import DATABASE, text
    from service.database import Database

    with Database(settings.data).connect():
        pass  # refuses in words where there is nothing to open
    from service.looks import Look, Looks

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


def _print_json(answer: "Answer") -> None:
    print(answer.model_dump_json(indent=1))


def _percent(value: "EstimateOut") -> str:
    if value.estimate is None or value.low is None or value.high is None:
        return f"unknown ({value.reason})"
    return f"{value.estimate:.1%} [{value.low:.1%}, {value.high:.1%}]"


# take minutes on all cores: whoever waits for a page of the service comes first
_BATCH: tuple[_Command, ...] = (_load, _extract, _demo, _link, _annotate, _train, _selftest)
