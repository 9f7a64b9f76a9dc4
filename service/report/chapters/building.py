"""Chapter 4: how the head was trained, what was tried, what it is worth on train rows."""

from collections.abc import Iterator, Sequence

from service import charts
from service.report.document import (
    Block,
    Chapter,
    Cite,
    Column,
    Figure,
    Heading,
    Ref,
    Table,
    Words,
    words,
)
from service.report.material import (
    Material,
    closing,
    interval,
    opening,
    paragraph,
    sentences,
)
from service.report.numbers import Answer, Number
from service.schemas import LeaderboardOut
from service.trainings import why_flattered

_SHOWN = 8


def building(material: Material) -> Chapter:
    """Say how the model was made."""
    card = material.answers.card()
    body = _trained(material, card) if card.value("/validation") else _given(material, card)
    return Chapter(
        "building",
        "Model building",
        (*opening(material, "building"), *body, *closing(material, "building")),
    )


def _given(material: Material, card: Answer) -> Iterator[Block]:
    leaderboard = material.answers.leaderboard()
    yield paragraph(
        f"{material.model} was not trained here, so that there is no sweep and no internal "
        "validation to report: ",
        leaderboard.sentence("/reason"),
        ".",
    )
    notes = sentences(card, "/notes")
    if notes:
        yield paragraph("Of it is noted: ", _joined(notes), ".")


def _trained(material: Material, card: Answer) -> Iterator[Block]:
    yield Heading(words("Protocol"))
    parts = words(
        "Features are standardised by the train rows. The parameters of the head and its "
        "temperature, which makes its probabilities honest ",
        Cite(("guo2017",)),
        ", are chosen on train rows that the fit did not see: ",
        card.sentence("/validation/method"),
        ". The head that is kept is then fitted on all ",
        card.number("/n_train", "count"),
        " train rows.",
    )
    if card.value("/left_out") is not None:
        parts += words(
            " Of the train rows, ",
            card.number("/left_out/n", "count"),
            " were left out: ",
            card.sentence("/left_out/why"),
            ".",
        )
    yield paragraph(parts)
    notes = sentences(card, "/notes")
    if notes:
        yield paragraph("The training notes: ", _joined(notes), ".")
    yield from _tried(material)
    yield Heading(words("Internal validation"))
    memorised = card.value("/gaps/memorisation")
    yield paragraph(
        "On train rows that took no part in the choice the head is right on ",
        card.number("/validation/top1/estimate", "percent"),
        interval(card, "/validation/top1", "percent"),
        ". ",
        *(
            (
                f"Against {card.value('/gaps/reference')}, that is a difference of ",
                card.number("/gaps/memorisation/estimate", "signed_points"),
                " points",
                interval(card, "/gaps/memorisation", "signed_points"),
                ": much above 0 would fit with a head, or a network behind it, that had learnt the "
                "train images by heart, and as well with a test set that is harder than they are.",
            )
            if memorised["estimate"] is not None
            else ()
        ),
    )


def _joined(notes: Sequence[Number]) -> Words:
    return words(
        *(part for i, note in enumerate(notes) for part in (("; ", note) if i else (note,)))
    )


def _tried(material: Material) -> Iterator[Block]:
    answer = material.answers.leaderboard()
    candidates = answer.value("/candidates")
    if len(candidates) < 2:
        return
    yield Heading(words("What was tried"))
    shown = _rows(candidates)
    chosen = next((i for i, one in enumerate(candidates) if one["is_chosen"]), None)
    flattered = why_flattered(candidates)
    yield paragraph(
        Ref("leaderboard"),
        " and ",
        Ref("candidates"),
        " show the settings that were compared. ",
        *(
            ("Chosen was ", answer.sentence(f"/candidates/{chosen}/setting"), ". ")
            if chosen is not None and candidates[chosen]["setting"]
            else ()
        ),
        flattered or "",
    )
    yield Figure(
        "leaderboard",
        charts.training_spec(LeaderboardOut.model_validate(answer.content), "leaderboard"),
        words(
            "Accuracy of each setting on held-out train rows. One dot is one setting; the chosen "
            "one is vermilion. Settings that lie close together are not told from each other."
        ),
        "Dots of accuracy, one for each setting that was compared, by kind of head.",
    )
    yield Table(
        "candidates",
        words("The most accurate settings, best first."),
        (
            Column("head"),
            Column("parameters", wide=True),
            Column("accuracy", "right"),
            Column("loss (nats)", "right"),
            Column("chosen"),
        ),
        tuple(
            (
                words(candidates[i]["head"] or answer.value("/head")),
                words(answer.sentence(f"/candidates/{i}/setting")),
                words(answer.number(f"/candidates/{i}/top1", "percent")),
                words(answer.number(f"/candidates/{i}/nll", "number3")),
                words("yes" if candidates[i]["is_chosen"] else ""),
            )
            for i in shown
        ),
    )


def _rows(candidates: list[dict[str, object]]) -> list[int]:
    """Return the best few, and the chosen one where it is not among them."""
    shown = list(range(min(_SHOWN, len(candidates))))
    return shown + [i for i, c in enumerate(candidates) if c["is_chosen"] and i >= _SHOWN]
