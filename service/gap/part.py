"""What a part of the answer to "why this gap" is: a path, a computation, charts."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

from service.gap.inputs import Inputs
from service.schemas import PartOut
from service.terminal import Progress

A = TypeVar("A", bound=PartOut)
Reads = Literal["models", "lines", "neighbours", "hypotheses", "image_ids"]


@dataclass(frozen=True)
class Part(Generic[A]):
    """One part.

    Attributes
    ----------
    name : of its path, /gap/{model}/{name}
    about : what it answers, one line
    answer : type of its answer
    compute : makes it
    charts : Vega-Lite specs made of an answer, by name; the one of the part's own name is shown
        first
    reads : what it reads beside the model itself, the data and what is attached to them: other
        models and what they predict, stored lines, the numbers of the images in the database, or
        nearest train rows where a search that takes minutes found them. An answer is outdated when
        any of that changes, so that what is not named here leaves it as it is
    """

    name: str
    about: str
    answer: type[A]
    compute: Callable[[Inputs, Progress], A]
    charts: Mapping[str, Callable[[A], dict[str, Any]]] = field(default_factory=dict)
    reads: tuple[Reads, ...] = ()
