"""What a part of the answer to "why this gap" is: a path, a computation, charts."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from service.gap.inputs import Inputs
from service.schemas import PartOut
from service.terminal import Progress

A = TypeVar("A", bound=PartOut)


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
    """

    name: str
    about: str
    answer: type[A]
    compute: Callable[[Inputs, Progress], A]
    charts: Mapping[str, Callable[[A], dict[str, Any]]] = field(default_factory=dict)
