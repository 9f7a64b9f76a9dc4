"""Chapter 2: what was loaded, what was checked, what was found to be a copy."""

from collections.abc import Iterator

from service.report.document import Block, Chapter, Column, Heading, Ref, Table, words
from service.report.material import (
    Material,
    closing,
    ends,
    in_a_row,
    opening,
    paragraph,
    sentences,
)
from service.report.numbers import Number, token

_FOUND = {True: "passed", False: "failed", None: "cannot be proved"}
_SAME_MIX = 0.0005
_NAMED = 5


def preparation(material: Material) -> Chapter:
    """Say how the data came in and why they can be trusted."""
    return Chapter(
        "preparation",
        "Data preparation",
        (
            *opening(material, "preparation"),
            *_loading(material),
            *_audit(material),
            *_copies(material),
            *_mix(material),
            *closing(material, "preparation"),
        ),
    )


def _loading(material: Material) -> Iterator[Block]:
    answers = material.answers
    card, backbone = answers.card(), answers.backbone()
    yield Heading(words("What was loaded"))
    if backbone is None:
        found = [
            (
                words(split),
                words(card.number(f"/imported/splits/{token(split)}/n_rows", "count")),
                words(card.number(f"/imported/splits/{token(split)}/n_matched", "count")),
                words(card.number(f"/imported/splits/{token(split)}/n_ambiguous", "count")),
                words(card.number(f"/imported/splits/{token(split)}/sha256", "digest")),
            )
            for split in (material.reference, material.target)
        ]
        yield paragraph(
            "The predictions were matched to the images by their paths (", Ref("load"), ")."
        )
        titles = ("predictions", "matched", "fit several images")
    else:
        found, left_out = [], False
        splits = [row for row in answers.splits().content if row["backbone"] == backbone]
        for row in splits:
            view = answers.view("load_report", split=row["split"], backbone=backbone)
            if view is None:  # several backbones side by side have no file of their own
                continue
            left_out |= view.value("/n_rejected") > 0
            found.append(
                (
                    words(row["split"]),
                    words(view.number("/n_rows_read", "count")),
                    words(view.number("/n_images", "count")),
                    words(view.number("/n_rejected", "count")),
                    words(view.number("/sha256", "digest")),
                )
            )
        titles = ("rows read", "kept", "left out")
        if not found:
            yield paragraph(
                f"{backbone} is several networks side by side; the load report has a row for each."
            )
            return
        yield paragraph(
            "A file is loaded whole or refused whole: a value that is no finite number, a label "
            "that is no whole number, or a train image that is in a test set too ends the load. ",
            Ref("load"),
            " shows what came in; "
            + (
                "rows left out name an image a second time, with the same label."
                if left_out
                else "no row was left out."
            ),
        )
    yield Table(
        "load",
        words("What was read. The digest is the beginning of the sha256 of the file."),
        (
            Column("set", wide=True),
            *(Column(title, "right") for title in titles),
            Column("digest"),
        ),
        tuple(found),
    )


def _audit(material: Material) -> Iterator[Block]:
    audit = material.answers.audit()
    said = {
        True: "Every check of this passed",
        False: "Not every check of this passed, so that the scores must not be trusted before the "
        "finds are explained",
        None: "Not all of this can be proved",
    }[audit.value("/passed")]
    yield Heading(words("No test image in the training"))
    yield paragraph(
        "Scores on test sets count only if no test image took part in the training. ",
        said,
        " (",
        Ref("audit"),
        ").",
    )
    yield Table(
        "audit",
        words("What was checked of the training, and what was found."),
        (Column("what is proved where it passed", wide=True), Column("found"),
         Column("how many", "right")),
        tuple(
            (
                words(audit.sentence(f"/checks/{i}/proves")),
                words(_FOUND[check["passed"]]),
                words(audit.number(f"/checks/{i}/count", "count"))
                if check["passed"] is not None
                else (),
            )
            for i, check in enumerate(audit.value("/checks"))
        ),
    )  # fmt: skip
    doubtful: dict[str, Number] = {}
    for i, check in enumerate(audit.value("/checks")):
        if check["passed"] is not True:  # several may be so for one reason
            doubtful.setdefault(check["sentence"], audit.sentence(f"/checks/{i}/sentence"))
    if doubtful:
        yield paragraph(in_a_row(list(doubtful.values())))


def _copies(material: Material) -> Iterator[Block]:
    leaks = material.part("leaks")
    yield Heading(words("Copies"))
    if leaks.value("/reason") is not None:
        yield paragraph(
            "Whether images are copies of others could not be looked for: ",
            leaks.sentence("/reason"),
            ".",
        )
        return
    yield paragraph(
        "The same image twice counts twice, and a test image that also stands among the train "
        "images tests nothing. All test images were held against all train images and against "
        "each other. ",
        in_a_row(sentences(leaks, "/summary")),
    )
    without = leaks.value("/without_all")
    if without is None or not sum(without["n_left_out"].values()):
        return
    rows = [("/everything", "all images"), ("/without_all", "without copies")]
    yield paragraph(Ref("copies"), " shows what remains of the gap without them.")
    yield Table(
        "copies",
        words("The gap in points with all images, and without copies of any kind."),
        (Column("images", wide=True), Column("gap", "right"), Column("95 % interval", "right")),
        tuple(
            (
                words(name),
                words(leaks.number(f"{place}/gap/estimate", "points")),
                ends(leaks, f"{place}/gap", "points"),
            )
            for place, name in rows
        ),
    )


def _mix(material: Material) -> Iterator[Block]:
    shift = material.gap.value("/label_shift")
    if shift is None:
        return
    yield Heading(words("The mix of classes"))
    lacking = [c["class_name"] for c in material.part("classes").value("/classes")
               if 0 in (c["n_reference"], c["n_target"])]  # fmt: skip
    if lacking:
        more = f" and {len(lacking) - _NAMED:,} more" if len(lacking) > _NAMED else ""
        yield paragraph(
            "Classes with images in one of the two sets only cannot be compared: "
            f"{', '.join(lacking[:_NAMED])}{more}."
        )
    if abs(shift) < _SAME_MIX:
        yield paragraph(
            "Both test sets have the classes in nearly the same proportions, so that the "
            "proportions make no part of the gap worth naming."
        )
    else:
        yield paragraph(
            "The classes have other proportions in the two test sets. With each class as accurate "
            f"as on {material.reference}, that is ",
            material.gap.number("/label_shift", "signed_points"),
            " points of the gap (",
            Ref("terms"),
            " has its interval); gaps of classes are compared without that part.",
        )
