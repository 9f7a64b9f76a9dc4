"""`gapscope hypotheses`: list, suggest, register and run, with the same answers as over HTTP."""

import argparse
import json
import sys
from collections.abc import Iterable

from pydantic import ValidationError

from models.refining.recipes import RECIPES
from service.analysis import Analysis, resources_of
from service.errors import AlreadyRegistered, AlreadyScored, BadHypothesis
from service.hypotheses.schemas import (
    HypothesesOut,
    HypothesisIn,
    HypothesisOut,
    SuggestIn,
    SuggestionsOut,
)
from service.hypotheses.testing import Hypotheses
from service.settings import Settings
from service.terminal import progress_bar


def run_hypotheses(arguments: argparse.Namespace, settings: Settings) -> None:
    """Do what the verb says; without one, list."""
    if arguments.verb == "recipes":
        return _print_recipes()
    hypotheses = Hypotheses(Analysis(settings.data, resources_of(settings)))
    if arguments.verb == "suggest":
        found = _suggested(hypotheses, arguments)
        if arguments.register:
            for said in _register_new(hypotheses, found.hypotheses):
                _say(said)
        return _print_suggestions(found, as_json=arguments.json)
    if arguments.verb == "register":
        for asked in _read(arguments):
            _say(f"registered {hypotheses.register(asked).id}: {asked.title}")
        return None
    if arguments.verb == "run":
        _run(hypotheses, arguments)
    answer = hypotheses.registry.all(getattr(arguments, "model", None))
    if arguments.json:
        _say(answer.model_dump_json(indent=1))
        return None
    return _say(*in_words(answer))


def _suggested(hypotheses: Hypotheses, arguments: argparse.Namespace) -> SuggestionsOut:
    asked = SuggestIn(model=arguments.model, reference=arguments.reference, target=arguments.target)
    with progress_bar(f"findings about {arguments.model}") as progress:
        return hypotheses.suggest(asked, progress=progress)


def _run(hypotheses: Hypotheses, arguments: argparse.Namespace) -> None:
    if arguments.model is not None:
        hypotheses.check_model(arguments.model)
    if arguments.suggest:
        if arguments.model is None:
            raise BadHypothesis("wanted a model to suggest hypotheses about, got none. Name it.")
        for _ in _register_new(hypotheses, _suggested(hypotheses, arguments).hypotheses):
            pass
    waiting = [
        one
        for one in hypotheses.registry.all(arguments.model).hypotheses
        if one.state == "registered"
    ]
    for number, one in enumerate(waiting, 1):
        with progress_bar(f"{number} of {len(waiting)}: {one.in_words}") as progress:
            hypotheses.test(one.id, progress=progress)


def _register_new(hypotheses: Hypotheses, some: Iterable[HypothesisIn]) -> Iterable[str]:
    """Register suggestions; those of an earlier call are there already."""
    for asked in some:
        try:
            yield f"registered {hypotheses.register(asked).id}: {asked.title}"
        except (AlreadyRegistered, AlreadyScored) as error:
            yield f"not registered: {asked.title}: {error}"


def _read(arguments: argparse.Namespace) -> list[HypothesisIn]:
    """Read hypotheses from a file.

    Raises
    ------
    BadHypothesis
    """
    try:
        found = json.loads(arguments.file.read_text(encoding="utf-8"))
        return [HypothesisIn(**one) for one in (found if isinstance(found, list) else [found])]
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(map(str, one['loc']))}: {one['msg'].lower()}" for one in error.errors()
        )
        raise BadHypothesis(
            f"wanted the fields of a hypothesis in {arguments.file}, got: {wrong}. "
            "gapscope hypotheses register --help lists them."
        ) from error
    except (OSError, ValueError, TypeError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise BadHypothesis(
            f"wanted a hypothesis, or a list, as JSON in {arguments.file}, got: {reason}"
        ) from error


def in_words(answer: HypothesesOut) -> Iterable[str]:
    """Return the table as lines, then what each test shows."""
    yield f"{'id':12}  {'refinement':44} {'Δ gap':>7} {'95 % interval':>16} {'adj. p':>7}  verdict"
    for one in answer.hypotheses:
        yield _line(one)
    tested = [one for one in answer.hypotheses if one.result is not None]
    for one in tested:
        assert one.result is not None
        yield f"\n{one.id} {one.title}\n  {one.result.sentence}"
    yield ""
    yield from answer.summary


def _line(one: HypothesisOut) -> str:
    name = f"{one.id:12}  {one.in_words[:44]:44}"
    if one.result is None:
        return f"{name} {'':>7} {'':>16} {'':>7}  not tested yet"
    change, result = one.result.gap_change, one.result
    value = "" if change.estimate is None else f"{change.estimate * 100:+.2f}"
    span = ""
    if change.low is not None and change.high is not None:
        span = f"{change.low * 100:+.2f} to {change.high * 100:+.2f}"
    p = "" if result.p_adjusted is None else f"{result.p_adjusted:.3f}"
    mark = "" if one.use == "train" else f" [{one.use}]"
    return f"{name} {value:>7} {span:>16} {p:>7}  {', '.join(result.verdicts)}{mark}"


def _say(*lines: str) -> None:
    sys.stdout.writelines(f"{line}\n" for line in lines)


def _print_suggestions(found: SuggestionsOut, *, as_json: bool) -> None:
    if as_json:
        _say(found.model_dump_json(indent=1))
        return
    for one in found.hypotheses:
        _say(
            f"{one.title}: {json.dumps(one.refinement)}",
            f"  because: {one.cause}",
            f"  seen: {one.motivated_by}",
            f"  against it: {one.contradicted_by}",
        )
    for left in found.left_out:
        _say(f"not proposed: {left}")


def _print_recipes() -> None:
    for kind, recipe in RECIPES.items():
        params = {name: default for name, (_, default) in recipe.params.items()}
        wanted = params | dict.fromkeys((*recipe.lists, *recipe.names), "…")
        _say(json.dumps({"kind": kind, **wanted}, ensure_ascii=False))
        _say(f"  the head {recipe.about} [{recipe.use}]")
