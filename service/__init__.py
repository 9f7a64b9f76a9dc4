"""Numbers to people: HTTP, jobs, page, charts, command line. It wires the rest.

app        the one place where the parts are put together: `create_app`
api        routes; each parses, calls one function of analysis, answers
door       what each request meets before any route: token, hosts, limits, headers
logs       lines of JSON, each of a request or a job
analysis   the use cases: train, evaluate, gap, predict
importing  predictions of models that were trained elsewhere
import_command  the same on the command line
evaluations  what a model said and is worth, as it is stored
database   reads gap.duckdb, read-only
annotations  what else is known about the images, on the command line
results    reads and writes trained models and their predictions
disk       a full or faulty disk as a refusal
damage     damaged files, named and set aside when the service starts
checkpoints  what trainings keep on their way
jobs       the job table, and the worker process that empties it
schemas    the JSON of requests and answers
sentences  what a gap report says, in words
charts     the same JSON as Vega-Lite; the only file that draws
page       the web page
terminal   progress in the terminal
extraction images into feature files with a timm network
demo       scans of digits, two backbones, a real gap
report     all of it as PDF and HTML, each number with its source
backbones  how features were made, and the network for one more image
arrow_predictions  classes of the rows of an Arrow stream
options    what can be asked of the verbs
reproduce_command  a report's numbers computed again, on the command line
cli        the same verbs on the command line
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from service.app import create_app

__all__ = ["create_app"]


def __getattr__(name: str) -> Any:
    """Import the door when it is asked for: the command line's help needs no web, and no torch."""
    if name != "create_app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from service.app import create_app

    return create_app


VERSION = "0.1.0"
