"""Chapter 6: what is supported, what is not, what cannot be told; limits and outlook."""

from collections.abc import Iterator

from models.gap.hypotheses import HELPS_BOTH, HURTS, NARROWS, NO_EFFECT, UNDERPOWERED, WIDENS
from models.gap.ledger import NOT_DISTINGUISHABLE, SUPPORTED
from service.gap.findings import term_in_words
from service.report.chapters.results import verdict_in_words
from service.report.document import Block, Chapter, Heading, Words, words
from service.report.material import (
    Material,
    bullets,
    closing,
    ends,
    interval,
    opening,
    paragraph,
    sentences,
    size,
)

_Q = 0.05


def conclusions(material: Material) -> Chapter:
    """Sort what was found by how far it holds, by rules."""
    return Chapter(
        "conclusions",
        "Conclusions, limits, outlook",
        (
            *opening(material, "conclusions"),
            *_listed("What is supported", _supported(material)),
            *_listed("What is not supported", _not_supported(material)),
            *_listed("What cannot be told", _unknown(material)),
            *_listed("Limits", _limits(material)),
            *_listed("Outlook", _outlook(material)),
            *closing(material, "conclusions"),
        ),
    )


def summary(material: Material) -> tuple[Block, ...]:
    """Return the report in a few sentences: the gap, what it goes with, what was tried."""
    gap = material.gap
    found = gap.value("/findings")[:3]
    blocks: list[Block] = [paragraph(gap.sentence("/summary/0"))]
    if found:
        blocks.append(paragraph("The strongest findings, largest first:"))
        blocks.append(bullets(words(gap.sentence(f"/findings/{i}/sentence"))
                              for i in range(len(found))))  # fmt: skip
    else:
        blocks.append(
            paragraph("Nothing that is known of the images is shown to go with the difference.")
        )
    tested = [(i, one) for i, one in material.tested() if one["result"] is not None]
    if tested:
        blocks.append(paragraph("Changes of the head were tested. ", verdict_in_words(tested)))
    blocks.append(
        paragraph(
            "All of this describes what the gap goes with; no sentence that was written from the "
            "results names a cause."
        )
    )
    return tuple(blocks)


def _listed(title: str, items: Iterator[Words]) -> Iterator[Block]:
    found = list(items)
    if found:
        yield Heading(words(title))
        yield bullets(found)


def _supported(material: Material) -> Iterator[Words]:
    gap = material.gap
    if material.has_gap:
        word = "lower" if material.is_lower else "higher"
        yield words(
            f"The score on {material.target} is {word} than on {material.reference}: by ",
            size(gap, "/gap"),
            ".",
        )
    for i, finding in enumerate(gap.value("/findings")):
        trust = (" ", gap.sentence(f"/findings/{i}/trust")) if finding["trust"] else ()
        yield words(
            gap.sentence(f"/findings/{i}/sentence"),
            " ",
            gap.sentence(f"/findings/{i}/caveat"),
            *trust,
        )
    for i, one in material.tested():
        if one["result"] and {NARROWS, HELPS_BOTH} & set(one["result"]["verdicts"]):
            yield _of_change(material, i)


def _of_change(material: Material, i: int) -> Words:
    answer = material.answers.hypotheses()
    assert not isinstance(answer, str)  # else none was found
    return words(
        answer.sentence(f"/hypotheses/{i}/in_words"),
        ": ",
        answer.sentence(f"/hypotheses/{i}/result/sentence"),
    )


def _not_supported(material: Material) -> Iterator[Words]:
    gap, ledger = material.gap, material.part("ledger")
    if not material.has_gap:
        yield words(
            "That there is a gap: the interval of the difference, ",
            ends(gap, "/gap", "points"),
            " points, holds 0.",
        )
    for i, term in enumerate(ledger.value("/terms")[:-1]):
        # a term without any spread is 0 by definition: nobody would ask
        if term["verdict"] == NOT_DISTINGUISHABLE and term["low"] != term["high"]:
            yield words(
                f"That part of the gap goes with {term_in_words(term['name'], term['estimate'])}: ",
                ledger.number(f"/terms/{i}/estimate", "signed_points"),
                " points",
                interval(ledger, f"/terms/{i}", "signed_points"),
                ".",
            )
    found = {one["name"] for one in gap.value("/findings") if one["part"] == "ledger"}
    for i, term in enumerate(ledger.value("/terms")):
        if term["verdict"] == SUPPORTED and term["name"] not in found:
            yield words(
                f"That part of the gap goes with {term_in_words(term['name'], term['estimate'])}: ",
                ledger.number(f"/terms/{i}/estimate", "signed_points"),
                " points",
                interval(ledger, f"/terms/{i}", "signed_points"),
                " are told from 0 if this is the only term that is looked at, and not among all of "
                "them.",
            )
    classes = material.part("classes").value("/classes")
    if not any(c["q_common_gap"] is not None and c["q_common_gap"] <= _Q for c in classes):
        yield words(
            "That single classes lose more or less than the others: none is told from the common "
            "gap once all are looked at."
        )
    for i, one in material.tested():
        if one["result"] and {HURTS, WIDENS, NO_EFFECT} & set(one["result"]["verdicts"]):
            yield _of_change(material, i)


def _unknown(material: Material) -> Iterator[Words]:
    for one in sentences(material.gap, "/unknown"):
        yield words(one)
    weak = [
        str(one["in_words"])
        for _, one in material.tested()
        if one["result"] and UNDERPOWERED in one["result"]["verdicts"]
    ]
    if weak:
        yield words(
            "Whether these changes of the head make the gap smaller, for so few images show small "
            f"effects seldom: {'; '.join(weak)}."
        )


def _limits(material: Material) -> Iterator[Words]:
    yield words(
        "Images are taken as independent draws, and the head as given: another draw of train "
        "images would give another head, and photographs of one scene are not independent."
    )
    yield words(
        f"One pair of test sets is compared. What holds between {material.reference} and "
        f"{material.target} need not hold for a third set."
    )
    yield words(
        "What the gap goes with is described by what is known of the images; two properties that "
        "come together cannot be told apart by it."
    )
    if material.answers.self_test() is None:
        yield words(
            "How often such findings are false on these data was not measured (gapscope selftest)."
        )


def _outlook(material: Material) -> Iterator[Words]:
    gap, ends_ = material.gap, (material.reference, material.target)
    unread = isinstance(material.answers.hypotheses(), str)
    covered = {
        row["split"]
        for source in material.answers.annotations().content
        for row in source["covariates"]
    }
    if not set(ends_) <= covered:
        yield words(
            "Ask people: how many of them give an image its label, on both test sets, may show "
            "whether the target is harder for them too."
        )
    terms = material.part("ledger").value("/terms")
    if any(term["verdict"] == UNDERPOWERED for term in terms) or not material.has_gap:
        yield words(
            f"Collect more images of {material.target}: with more of them the intervals become "
            "narrower, and what cannot be told here may be."
        )
    if material.part("line").value("/reason") is not None:
        yield words(
            "Score further models on both test sets: if all of them lose as much, the gap is not "
            "peculiar to this model."
        )
    if material.part("labels").value("/reason") is not None:
        yield words(
            "Get a second opinion on the labels of both sets, at least of the images that the "
            "model gets wrong."
        )
    if gap.value("/findings") and not material.tested() and not unread:
        yield words(
            "Test remedies: register changes of the head that the findings suggest, and score "
            "each once (gapscope hypotheses suggest)."
        )
    yield words(
        "Before the next test set is looked at, write down what is expected of it (gapscope seal)."
    )
