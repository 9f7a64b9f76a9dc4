"""Chapter 3: the model, the methods, and what was settled before anything was scored."""

from collections.abc import Iterator

from service.gap import PARTS
from service.report.document import Block, Chapter, Cite, Column, Heading, Ref, Table, Words, words
from service.report.material import Material, closing, opening, paragraph
from service.report.references import METHODS, OF_HEAD

_HEADS = {
    "logistic": "softmax regression with an L2 penalty",
    "lda": "linear discriminant analysis with a shrunken covariance",
    "ridge": "ridge regression on the classes",
    "nearest_mean": "the nearest class mean",
    "knn": "a vote of the nearest train images by cosine",
    "cosine": "one direction for each class, with a fixed sharpness",
    "mlp": "a network with one hidden layer beside a linear path",
    "ensemble": "several heads, weighted by their loss on held-out rows",
}


def planning(material: Material) -> Chapter:
    """Say which model and which methods, and why these."""
    return Chapter(
        "planning",
        "Model planning",
        (
            *opening(material, "planning"),
            *_model(material),
            *_methods(material),
            *_beforehand(material),
            *closing(material, "planning"),
        ),
    )


def _model(material: Material) -> Iterator[Block]:
    card = material.answers.card()
    head, backbone = card.value("/head"), material.answers.backbone()
    yield Heading(words("The model"))
    if backbone is None:
        yield paragraph(
            f"{material.model} was trained elsewhere. What it learnt from: ",
            card.sentence("/imported/learnt_from"),
            ".",
        )
        return
    what = _HEADS.get(head, f"of the kind {head}")
    papers = OF_HEAD.get(head, ())
    yield paragraph(
        f"The features of {backbone} stay as they are; what is trained is the head: {what}",
        *((" ", Cite(papers)) if papers else ()),
        ". A head over fixed features is small enough to be trained anew for every question, and "
        "simple enough to be asked which features it leans on. It reads ",
        card.number("/n_features", "count"),
        " features and tells ",
        card.number("/n_classes", "count"),
        " classes apart.",
    )


def _methods(material: Material) -> Iterator[Block]:
    yield Heading(words("How the gap is explained"))
    yield paragraph(
        "No single number explains a gap. Each question has a method of its own (",
        Ref("methods"),
        "), and a difference is called supported only where the method tells it from chance. "
        "Estimates stand with 95 % intervals: where an interval holds 0, the data do not show "
        "that there is anything. Where many things are looked at, such as all classes or all "
        "features, the tests are adjusted for their number. None of these methods names a cause: "
        "each describes what the gap goes with.",
    )
    asked = [name for name in ("gap", *PARTS) if name in METHODS and _is_used(material, name)]
    asked += ["hypotheses"] * bool(material.tested())
    asked += ["selftest"] * (material.answers.self_test() is not None)
    yield Table(
        "methods",
        words("The questions, and how each is answered."),
        (Column("question", wide=True), Column("method", wide=True), Column("source")),
        tuple(
            (words(METHODS[name][0]), words(METHODS[name][1]), words(Cite(METHODS[name][2])))
            for name in asked
        ),
    )


def _is_used(material: Material, name: str) -> bool:
    """Whether a part has an answer, and not only a reason why it has none."""
    if name == "gap":
        return True
    found = material.part(name).content
    if name == "slices":
        return found["clusters"] is not None or found["slices"] is not None
    if name == "without_labels":
        return any(one["predicted"]["estimate"] is not None for one in found["methods"])
    if name == "difficulty":
        return bool(found["covariates"])
    return found.get("reason") is None


def _beforehand(material: Material) -> Iterator[Block]:
    yield Heading(words("What was settled beforehand"))
    found = material.tested()
    seed = material.answers.card().value("/seed")
    chance = words(
        "Whatever chance is in the computations comes from fixed seeds, so that they can be "
        "repeated exactly",
        *(
            ("; that of the training is ", material.answers.card().number("/seed", "count"))
            if seed is not None
            else ()
        ),
        ".",
    )
    if isinstance(material.answers.hypotheses(), str):
        yield paragraph(
            chance,
            " The register of hypotheses could not be read, so that nothing is known here of what "
            "was registered.",
        )
        return
    if not found:
        yield paragraph(
            chance,
            " No change of the head was registered as a hypothesis; what follows explains the "
            "gap, and tests no remedy (gapscope hypotheses).",
        )
        return
    answer = material.answers.hypotheses()
    assert not isinstance(answer, str)  # else none was found
    yield paragraph(
        chance,
        " Every change of the head was written down before it was scored, with the reason why it "
        "should help, in a register in which each record seals those before it (newest seal ",
        answer.number("/head", "digest"),
        "); it is scored once. ",
        *_judged_on({one["images"] for _, one in found}),
    )


def _judged_on(images: set[str]) -> Words:
    """Say which images judge the changes: the half that suggested none of them, or all."""
    half = (
        "What suggested a change was seen on one half of the test images, and the change is judged "
        "on the other half."
    )
    whole = (
        "Changes that nothing seen of these test sets is said to have suggested are judged on all "
        "of their images."
    )
    return words(" ".join([half] * ("confirm" in images) + [whole] * ("all" in images)))
