"""Chapter 1: the problem, the question, the data."""

from collections.abc import Iterator

from service.report.document import Block, Chapter, Cite, Column, Heading, Ref, Table, Words, words
from service.report.material import Material, closing, interval, opening, paragraph, size
from service.report.numbers import token


def discovery(material: Material) -> Chapter:
    """Say what is asked, of which model and which images."""
    return Chapter(
        "discovery",
        "Discovery",
        (
            *opening(material, "discovery"),
            *_problem(material),
            *_question(material),
            *_data(material),
            *closing(material, "discovery"),
        ),
    )


def _problem(material: Material) -> Iterator[Block]:
    gap, reference, target = material.gap, material.reference, material.target
    yield Heading(words("The problem"))
    yield paragraph(
        "A classifier is worth what it does on images that it has not seen. ",
        f"The model of this report, {material.model}, was scored on two such sets. On {reference}, "
        "test set 1, it is right on ",
        *_accuracy(material, reference),
        f"; on {target}, test set 2, on ",
        *_accuracy(material, target),
        ".",
    )
    if material.has_gap:
        word = "lower" if material.is_lower else "higher"
        differs = words(
            f"The score on {target} is {word} by ",
            size(gap, "/gap"),
            f": more than chance explains. Whoever reads {reference} alone expects too "
            + ("much" if word == "lower" else "little")
            + ". ",
        )
    else:
        differs = words(
            f"The score on {reference} minus that on {target} is ",
            gap.number("/gap/estimate", "signed_points"),
            " percentage points",
            interval(gap, "/gap", "points"),
            ", which chance alone may make. ",
        )
    yield paragraph(
        differs,
        "Such differences are common: on a second test set of ImageNet, collected like the first, "
        "every model that was tried lost accuracy ",
        Cite(("recht2019",)),
        ".",
    )


def _accuracy(material: Material, split: str) -> Words:
    gap, place = material.gap, f"/accuracy/{token(split)}"
    return words(
        gap.number(f"{place}/estimate", "percent"),
        " of ",
        gap.number(f"{place}/n/{token(split)}", "count"),
        " images",
        interval(gap, place, "percent"),
    )


def _question(material: Material) -> Iterator[Block]:
    target = material.target
    lower = "lower" if material.is_lower else "higher"
    why = f"Why is the score on {target} {lower}?"
    if not material.has_gap:
        why = "Is there a gap at all, and if so, what does it go with?"
    yield Heading(words("The question"))
    yield paragraph(
        f"{why} The question has two halves. Which images, classes and features does the "
        "difference go with, and how much of it goes with nothing that is known here? And can the "
        "head, the last layer that turns features into classes, be changed so that the difference "
        "becomes smaller, without a look at the images that judge it?"
    )


def _data(material: Material) -> Iterator[Block]:
    answers = material.answers
    yield Heading(words("The data"))
    backbone = answers.backbone()
    if backbone is None:
        yield paragraph(
            f"{material.model} was trained elsewhere, and only what it predicted for the images of "
            "both test sets is here. Its features are not, so that nothing in this report is said "
            "of features."
        )
    else:
        yield paragraph(
            f"Each image stands as a row of numbers, its features; they are those of {backbone} "
            "and stay as they are. ",
            Ref("splits"),
            " lists the sets. The head learns from the train set alone; no image of a test set "
            "takes part in training or in any choice.",
        )
        yield _splits(material)
    yield from _known(material)


def _splits(material: Material) -> Table:
    answers, backbone = material.answers, material.answers.backbone()
    answer = answers.splits()
    roles = {
        material.reference: "test set 1, the reference",
        material.target: "test set 2, the target",
    }
    order = {material.reference: 1, material.target: 2}
    mine = [(i, row) for i, row in enumerate(answer.content) if row["backbone"] == backbone]
    mine.sort(key=lambda item: 0 if item[1]["role"] == "train" else order.get(item[1]["split"], 3))
    rows = tuple(
        (
            words(row["split"]),
            words(
                "train: the head learns from it"
                if row["role"] == "train"
                else roles.get(row["split"], "a further test set")
            ),
            words(answer.number(f"/{i}/n_images", "count")),
            words(answer.number(f"/{i}/n_classes", "count")),
            words(answer.number(f"/{i}/n_features", "count")),
        )
        for i, row in mine
    )
    return Table(
        "splits",
        words(f"The sets of images, as features of {backbone}."),
        (
            Column("set"),
            Column("what it is for", wide=True),
            Column("images", "right"),
            Column("classes", "right"),
            Column("features", "right"),
        ),
        rows,
    )


def _known(material: Material) -> Iterator[Block]:
    answer = material.answers.annotations()
    rows = []
    ends = (material.reference, material.target)
    for i, source in enumerate(answer.content):
        by_name: dict[str, dict[str, int]] = {}
        for j, row in enumerate(source["covariates"]):
            if row["split"] in ends:
                by_name.setdefault(row["name"], {})[row["split"]] = j
        for name, places in by_name.items():
            cells = [words("none")] * 2
            for k, split in enumerate(ends):
                if split in places:
                    place = f"/{i}/covariates/{places[split]}"
                    cells[k] = words(answer.number(f"{place}/n_images", "count"))
            rows.append((words(name), words(source["source"]), *cells))
    if not rows:
        yield paragraph(
            "Nothing else is known of the images: no annotations of the two test sets are "
            "attached. What people say of each image, such as how many of them gave its label, "
            "would show how hard it is (gapscope annotate)."
        )
        return
    yield paragraph(
        "What else is known of the images was attached to them; ",
        Ref("known"),
        " lists it.",
    )
    yield Table(
        "known",
        words("What else is known of the images of both test sets: number of images that have it."),
        (
            Column("property", wide=True),
            Column("attached as"),
            Column(material.reference, "right"),
            Column(material.target, "right"),
        ),
        tuple(rows),
    )
