"""`audit` and `looks` on the command line."""

import argparse
import sys

from models.heads.training import ENSEMBLE
from service.analysis import Analysis
from service.audit import Audit
from service.looks import Looks
from service.schemas import AuditOut, LookOut
from service.settings import Settings
from service.terminal import progress_bar

FOUND, NOT_PROVED = 1, 3  # beside 0 for passed and 2 for refused
_STATUS = {True: 0, False: FOUND, None: NOT_PROVED}
_WORD = {True: "passed", False: "FOUND", None: "not proved"}


def run_audit(arguments: argparse.Namespace, settings: Settings) -> int:
    """Audit, with --retrain train anew and audit again; 0 passed, 1 found, 3 not proved."""
    analysis = Analysis(settings.data)
    audit = _audited(analysis, arguments.model, as_json=arguments.json)
    if arguments.retrain is None or not audit.leave_out:
        return _STATUS[audit.answer.passed]
    name = _retrained(analysis, arguments.model, audit, arguments.retrain or None)
    sys.stderr.write(f"{name}: trained without {len(audit.leave_out):,} train rows\n")
    return _STATUS[_audited(analysis, name, as_json=arguments.json).answer.passed]


def run_looks(arguments: argparse.Namespace, settings: Settings) -> None:
    """Print the log of looks, newest first."""
    looks = [LookOut(**look) for look in Looks(settings.data).all()]
    shown = [look for look in looks if arguments.model in (None, look.model)]
    if arguments.json:
        sys.stdout.writelines(f"{look.model_dump_json()}\n" for look in shown)
        return
    for look in shown:
        n = "all" if look.n is None else f"{look.n:,}"
        sys.stdout.write(
            f"{look.looked_at:%Y-%m-%d %H:%M:%S}  {look.who:20} {look.purpose:9} "
            f"{look.split or 'any':12} {n:>9} labels  {look.model or '-'}\n"
        )
    if not shown:
        sys.stdout.write("no test labels were read yet\n")


def in_words(answer: AuditOut) -> str:
    """Return an audit as lines: the verdict, each check, and the pairs found."""
    failed = [check.name for check in answer.checks if check.passed is False]
    verdict = {
        True: "passed: no test row found among the rows that it learnt from",
        False: "FAILED: records were changed"
        if failed == ["records"]
        else "FAILED: test rows took part",
        None: "not proved",
    }
    lines = [f"{answer.model}: {verdict[answer.passed]}"]
    for check in answer.checks:
        lines.append(f"{_WORD[check.passed]:10} {check.name:15} {check.sentence}")
        lines += [
            f"{'':12}{pair.test_split}: {pair.test_path}, train: {pair.train_path}"
            + ("" if pair.distance is None else f" (1 − cosine {pair.distance:.2g})")
            for pair in check.examples
        ]
    if answer.closest and not any(check.passed is False for check in answer.checks):
        pair = answer.closest[0]
        lines.append(
            f"closest pair: {pair.test_split}: {pair.test_path}, train: {pair.train_path} "
            f"(1 − cosine {pair.distance:.2g})"
        )
    return "\n".join(lines)


def _audited(analysis: Analysis, model: str, *, as_json: bool) -> Audit:
    with progress_bar(f"audit of {model}") as progress:
        audit = analysis.audit(model, progress=progress)
    text = audit.answer.model_dump_json(indent=1) if as_json else in_words(audit.answer)
    sys.stdout.write(text + "\n")
    return audit


def _retrained(analysis: Analysis, model: str, audit: Audit, asked: str | None) -> str:
    """Train the same head with the same hyper-parameters without the rows found; its name."""
    card = analysis.results.card(model)
    name = analysis.free_name(card["backbone"], card["head"], set(), asked)
    with progress_bar(f"training {name}") as progress:
        analysis.train(
            model=name,
            backbone=card["backbone"],
            head=card["head"],
            params=(card.get("asked") or card)["params"]
            if card["head"] == ENSEMBLE
            else card["params"],
            seed=card["seed"],
            without=card.get("without", ()),
            leave_out=audit.leave_out,
            why=f"copies of test rows, found by the audit of {model}",
            progress=progress,
        )
    return name
