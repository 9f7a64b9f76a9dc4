"""What the chapters are written from, and the small sentences that they share."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from service.report.answers import Answers
from service.report.document import Block, Bullets, Inline, Paragraph, Words, words
from service.report.numbers import Answer, Number
from service.report.own_words import OwnWords
from service.report.title_page import TitlePage


@dataclass(frozen=True)
class Material:
    """What a report is written from.

    Attributes
    ----------
    answers : about the main model
    models : all models, the main one first
    own : the authors' own words, by chapter
    page : the title page, with work log and timesheet
    """

    answers: Answers
    models: tuple[str, ...]
    own: Mapping[str, OwnWords]
    page: TitlePage

    @property
    def model(self) -> str:
        """The main model."""
        return self.answers.model

    @property
    def reference(self) -> str:
        """Test set 1."""
        return self.answers.reference

    @property
    def target(self) -> str:
        """Test set 2."""
        return self.answers.target

    @property
    def gap(self) -> Answer:
        """GET /gap/{model}."""
        return self.answers.gap()

    def part(self, name: str) -> Answer:
        """Return a part of the answer."""
        return self.answers.part(name)

    @property
    def has_gap(self) -> bool:
        """Whether the gap is told from 0, whatever its sign."""
        return is_told(self.gap.value("/gap"))

    @property
    def is_lower(self) -> bool:
        """Whether the target has the lower accuracy."""
        return (self.gap.value("/gap/estimate") or 0.0) > 0

    def tested(self) -> list[tuple[int, Mapping[str, Any]]]:
        """Return the hypotheses about this gap, each with its place in GET /hypotheses."""
        found = self.answers.hypotheses()
        if isinstance(found, str):
            return []
        mine = {"baseline": self.model, "reference": self.reference, "target": self.target}
        return [
            (i, one)
            for i, one in enumerate(found.content["hypotheses"])
            if all(one[name] == value for name, value in mine.items())
        ]


def is_told(value: Mapping[str, Any]) -> bool:
    """Whether an estimate's interval leaves 0 out."""
    low, high = value["low"], value["high"]
    return low is not None and high is not None and (low > 0 or high < 0)


def paragraph(*parts: "str | Inline | Words") -> Paragraph:
    """Put words into a paragraph."""
    return Paragraph(words(*parts))


def bullets(items: Iterable[Words]) -> Bullets:
    """Put words into a list, an item each."""
    return Bullets(tuple((Paragraph(item),) for item in items))


def sentences(answer: Answer, pointer: str, places: Sequence[int] | None = None) -> list[Number]:
    """Return sentences of a list in an answer: all, or those at some places."""
    n = len(answer.value(pointer))
    wanted = range(n) if places is None else [i for i in places if i < n]
    return [answer.sentence(f"{pointer}/{i}") for i in wanted]


def listed(found: Sequence[Number]) -> list[Block]:
    """Put sentences into a paragraph, or into a list where they are many."""
    if len(found) > 2:
        return [bullets(words(one) for one in found)]
    return [paragraph(in_a_row(found))] if found else []


def in_a_row(found: Sequence[Number]) -> Words:
    """Put sentences one after another."""
    return words(*(part for i, one in enumerate(found) for part in ((" ", one) if i else (one,))))


def size(answer: Answer, pointer: str) -> Words:
    """Write a difference told from 0 without its sign: "5.3 points (95 % interval 2.5 to 8.0)"."""
    low, high = answer.value(f"{pointer}/low"), answer.value(f"{pointer}/high")
    near, far = ("low", "high") if abs(low) <= abs(high) else ("high", "low")
    # an end that leaves 0 out must not be rounded to it
    form = "points_apart" if round(min(abs(low), abs(high)) * 100, 1) else "points2_apart"
    return words(
        answer.number(f"{pointer}/estimate", "points_apart"),
        " percentage points (95 % interval ",
        answer.number(f"{pointer}/{near}", form),
        " to ",
        answer.number(f"{pointer}/{far}", form),
        ")",
    )


def ends(answer: Answer, pointer: str, form: str) -> Words:
    """Write the ends of an interval: "2.5 to 8.0", or "unknown"."""
    low, high = answer.value(f"{pointer}/low"), answer.value(f"{pointer}/high")
    if low is None or high is None:
        return words("unknown")
    # an end that leaves 0 out must not be rounded to it
    if form in ("points", "signed_points") and any(
        end and not round(end * 100, 1) for end in (low, high)
    ):
        form = "points2"
    return words(
        answer.number(f"{pointer}/low", form), " to ", answer.number(f"{pointer}/high", form)
    )


def interval(answer: Answer, pointer: str, form: str) -> Words:
    """Write an interval in brackets; nothing where there is none."""
    if answer.value(f"{pointer}/low") is None or answer.value(f"{pointer}/high") is None:
        return ()
    return words(" (95 % interval ", ends(answer, pointer, form), ")")


def opening(material: Material, chapter: str) -> tuple[Block, ...]:
    """Return what the authors put at the beginning of a chapter."""
    return material.own[chapter].opening


def closing(material: Material, chapter: str) -> tuple[Block, ...]:
    """Return the sections that the authors put at the end of a chapter."""
    return material.own[chapter].sections
