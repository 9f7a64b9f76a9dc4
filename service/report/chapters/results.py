"""Chapter 5: the gap, what it goes with, and what changes of the head did to it."""

from collections.abc import Iterator, Mapping
from typing import Any

from models.gap.hypotheses import HELPS_BOTH, HURTS, NARROWS, WIDENS
from models.refining.recipes import INFORMED, TEST_INPUTS
from service import charts, selftest
from service.gap import PARTS
from service.gap.classes import ClassesOut
from service.gap.error_rates import SelfTestOut
from service.gap.findings import ExplainedGapOut, term_in_words, told_of_all
from service.gap.without_labels import WithoutLabelsOut
from service.hypotheses.charts import hypotheses_spec
from service.hypotheses.schemas import HypothesesOut
from service.report.document import (
    Block,
    Chapter,
    Column,
    Figure,
    Heading,
    Inline,
    Ref,
    Table,
    Text,
    Words,
    words,
)
from service.report.material import (
    Material,
    closing,
    ends,
    in_a_row,
    interval,
    is_told,
    listed,
    opening,
    paragraph,
    sentences,
)
from service.report.numbers import Answer, Number, token
from service.schemas import EstimateOut

_CLASSES_DRAWN = 20  # more do not fit on a page beside their caption
_ROWS = 8
_PAIRS = 5
_Q = 0.05


def results(material: Material) -> Chapter:
    """Say what was found."""
    return Chapter(
        "results",
        "Results",
        (
            *opening(material, "results"),
            *_gap(material),
            *_ledger(material),
            *_difficulty(material),
            *_classes(material),
            *_features(material),
            *_groups(material),
            *_images(material),
            *_labels(material),
            *_others(material),
            *_foretold(material),
            *_changes(material),
            *_trust(material),
            *closing(material, "results"),
        ),
    )


def _spec(material: Material, part: str, chart: str, cut: Mapping[str, Any] | None = None) -> Any:
    answer = material.answers.answer_of(part)
    return PARTS[part].charts[chart](answer.model_copy(update=dict(cut or {})))


def _gap(material: Material) -> Iterator[Block]:
    gap = material.gap
    answer = ExplainedGapOut.model_validate(gap.content)
    yield Heading(words("The gap"))
    apart = (
        "the difference is more than chance explains"
        if material.has_gap
        else "the difference may be chance"
    )
    yield paragraph(
        gap.sentence("/summary/0"),
        " ",
        Ref("gap"),
        " shows both accuracies: ",
        apart,
        ".",
        *_second_opinion(gap),
    )
    yield Figure(
        "gap",
        charts.spec(answer, "gap"),
        words(
            f"Accuracy of {material.model} on both test sets, each with its 95 % interval. The "
            "gap is the distance between the two dots."
        ),
        f"Two dots with intervals: accuracy on {material.reference} and on {material.target}.",
    )
    if len(material.models) > 1:
        yield from _compared(material)


def _second_opinion(gap: Answer) -> Words:
    if gap.value("/gap_within_classes/low") is None:
        return ()
    return words(
        f" A bootstrap within classes gives {gap.value('/reference')} minus "
        f"{gap.value('/target')} an interval of ",
        ends(gap, "/gap_within_classes", "points"),
        " points.",
    )


def _compared(material: Material) -> Iterator[Block]:
    rows = []
    for model in material.models:
        card, (gap, place) = material.answers.card(model), _gap_of(material, model)
        retraining = [
            words(card.number(f"/gaps/retraining/{i}/difference/estimate", "signed_points"))
            for i, row in enumerate(card.value("/gaps/retraining"))
            if row["split"] == material.target
        ]
        rows.append(
            (
                words(model),
                *(
                    words(_accuracy(material, model, split))
                    for split in (material.reference, material.target)
                ),
                words(gap.number(f"{place}/estimate", "signed_points")),
                ends(gap, place, "signed_points"),
                words(card.number("/gaps/memorisation/estimate", "signed_points"))
                if card.value("/gaps/reference") == material.reference
                else words("none here"),
                retraining[0] if retraining else words("none here"),
            )
        )
    yield paragraph(
        Ref("models"),
        f" sets {material.model} beside the other models of this report. All gaps are in points; "
        "a model may lose more on one step and less on another.",
    )
    yield Table(
        "models",
        words(
            f"Models side by side. Gap: {material.reference} − {material.target}. Memorised: "
            f"internal validation − {material.reference}. Retrained: the network's own head − this "
            f"one, on {material.target}."
        ),
        (
            Column("model", wide=True),
            Column(material.reference, "right"),
            Column(material.target, "right"),
            Column("gap", "right"),
            Column("95 % interval", "right"),
            Column("memorised", "right"),
            Column("retrained", "right"),
        ),
        tuple(rows),
        small=True,
    )


def _gap_of(material: Material, model: str) -> tuple[Answer, str]:
    """Return where a model's gap stands: its card, where that is about the same two sets.

    The answer of /gap would name what is not computed yet of a model that is only compared.
    """
    card = material.answers.card(model)
    mine = (card.value("/gaps/reference"), card.value("/gaps/target"))
    if mine == (material.reference, material.target):
        return card, "/gaps/replication"
    return material.answers.gap(model), "/gap"


def _accuracy(material: Material, model: str, split: str) -> Number:
    view = material.answers.view("evaluation", model=model, split=split, metric="top1")
    assert view is not None  # it was evaluated before anything is written
    return view.number("/estimate", "percent")


def _ledger(material: Material) -> Iterator[Block]:
    ledger = material.part("ledger")
    terms = ledger.value("/terms")
    yield Heading(words("What the gap goes with"))
    how = (
        f"Images of {material.reference} were given weights that make them like those of "
        f"{material.target} in what is known of them. What the gap loses by that is what goes with "
        "these properties; what is left is the rest. "
    )
    if len(terms) == 2:  # the mix of classes and the rest
        how = "Nothing but their classes is known by which images could be compared. "
    yield paragraph(
        how,
        "The terms sum to the gap (",
        Ref("ledger"),
        ", ",
        Ref("terms"),
        "). ",
        *_supported_terms(ledger),
    )
    yield Figure(
        "ledger",
        _spec(material, "ledger", "ledger"),
        words(
            "The terms that sum to the gap, with 95 % intervals. A term whose interval crosses 0 "
            "is not shown to be there. Dashed: the whole gap; tick: what a term explains by itself."
        ),
        "Terms of the gap as dots with intervals, beside 0 and the whole gap.",
    )
    yield Table(
        "terms",
        words(
            "The terms of the gap in points. Alone: with no other term beside it. Supported: told "
            "from 0 by itself; ",
            Ref("conclusions"),
            " says whether it is still, once all terms are looked at. Underpowered: too few images "
            "to tell the term from 0 and from half of the gap.",
        ),
        (
            Column("term", wide=True),
            Column("points", "right"),
            Column("95 % interval", "right"),
            Column("alone", "right"),
            Column("verdict"),
        ),
        tuple(_term(ledger, i, term) for i, term in enumerate(terms)),
    )
    yield from _overlap(material)


def _supported_terms(ledger: Answer) -> Iterator[Inline]:
    terms = ledger.value("/terms")
    known = [i for i, term in enumerate(terms[:-1]) if term["verdict"] == "supported"]
    known.sort(key=lambda i: -abs(terms[i]["estimate"]))
    for i in known:
        yield ledger.number(f"/terms/{i}/estimate", "signed_points")
        yield from words(
            " points",
            interval(ledger, f"/terms/{i}", "signed_points"),
            f" go with {term_in_words(terms[i]['name'], terms[i]['estimate'])}. ",
        )
    for i, term in enumerate(terms[:-1]):
        if term["reason"]:
            name = term_in_words(term["name"], term["estimate"])
            yield from words(
                f"The part that goes with {name} cannot be told: ",
                ledger.sentence(f"/terms/{i}/reason"),
                ". ",
            )
    if not known:
        yield Text("No term by itself is told from 0. ")
    last = len(terms) - 1
    if terms[last]["estimate"] is not None:
        yield from words(
            "The rest, ",
            ledger.number(f"/terms/{last}/estimate", "signed_points"),
            " points",
            interval(ledger, f"/terms/{last}", "signed_points"),
            ", goes with none of these: "
            if is_told(terms[last])
            else ", is not told from 0; if there is one, it is ",
            "label noise, classes that mean something else, or difficulty that nothing here shows; "
            "the data cannot tell these apart.",
        )


def _term(ledger: Answer, i: int, term: Mapping[str, Any]) -> tuple[Words, ...]:
    place = f"/terms/{i}"
    has_alone = term["alone"] is not None and term["alone"]["estimate"] is not None
    return (
        words(term["name"]),
        words(ledger.number(f"{place}/estimate", "signed_points")),
        ends(ledger, place, "signed_points"),
        words(ledger.number(f"{place}/alone/estimate", "signed_points")) if has_alone else (),
        words(term["verdict"]),
    )


def _overlap(material: Material) -> Iterator[Block]:
    overlap = material.part("overlap")
    if overlap.value("/reason") is not None:
        return
    last = len(overlap.value("/summary")) - 1
    yield paragraph(
        "Another cut asks whether the images are of other kinds or the same kinds are answered "
        "worse. ",
        in_a_row(sentences(overlap, "/summary", [max(0, last - 1), last])),
    )


def _difficulty(material: Material) -> Iterator[Block]:
    difficulty = material.part("difficulty")
    yield Heading(words("Difficulty and confidence"))
    if not difficulty.value("/covariates"):
        yield paragraph(
            "How hard the images are cannot be told: the model came without its confidences, and "
            "no annotation of both test sets is attached (gapscope annotate)."
        )
        return
    yield paragraph(
        "If the target simply has harder images, the gap should shrink among images that are alike "
        "in difficulty. ",
        Ref("difficulty"),
        " shows, for one property at a time, how much of the gap goes with it. ",
        *_told_properties(difficulty),
    )
    yield Figure(
        "difficulty",
        _spec(material, "difficulty", "difficulty"),
        words(
            "Points of the gap that go with each property by itself, with 95 % intervals; dashed: "
            "the gap. The properties overlap, so that their points do not add up."
        ),
        "Properties of images as dots with intervals: points of the gap that go with each.",
    )
    if difficulty.value("/calibration/reliability") is None:
        return
    names = tuple(f"{one['name']}: " for one in difficulty.value("/covariates"))
    said = (*names, "No covariate")  # by the paragraph above
    others = [i for i, s in enumerate(difficulty.value("/summary")) if not s.startswith(said)]
    yield paragraph(
        "A model that knows how hard an image is would be right as often as it is sure (",
        Ref("reliability"),
        "). ",
        in_a_row(sentences(difficulty, "/summary", others)),
    )
    yield Figure(
        "reliability",
        _spec(material, "difficulty", "reliability"),
        words(
            "How often the model is right where it is equally sure, in bins with equally many "
            "images of a set. Below the dashed line it is too sure of itself."
        ),
        "Accuracy over confidence for both test sets, beside the line where both are equal.",
    )


def _told_properties(difficulty: Answer) -> Iterator[Inline]:
    """Say which properties the gap goes with, by themselves: the largest three."""
    values = [one["explained"] for one in difficulty.value("/covariates")]
    all_of = [(i, EstimateOut.model_validate(value)) for i, value in enumerate(values)]
    told = [i for i, _ in told_of_all(all_of, lambda one: one[1])]  # though all are looked at
    told.sort(key=lambda i: -abs(values[i]["estimate"]))
    if not told:
        yield Text("No property by itself is shown to go with it.")
        return
    for place, i in enumerate(told[:3]):
        name = difficulty.value(f"/covariates/{i}/name")
        yield Text("By themselves, " if place == 0 else ", ")
        yield difficulty.number(f"/covariates/{i}/explained/estimate", "signed_points")
        yield from words(
            " points" if place == 0 else "",
            interval(difficulty, f"/covariates/{i}/explained", "signed_points"),
            f" go with {name}",
        )
    yield Text("." if len(told) <= 3 else "; those of others are smaller.")


def _classes(material: Material) -> Iterator[Block]:
    classes = material.part("classes")
    gap = ExplainedGapOut.model_validate(material.gap.content)
    known = [c for c in gap.classes if c.raw is not None]
    drawn = gap.model_copy(update={"classes": known[:_CLASSES_DRAWN]})
    first = (
        ""
        if len(known) <= _CLASSES_DRAWN
        else "; the classes with the largest gaps, not all of them"
    )
    yield Heading(words("Classes"))
    yield paragraph(
        "With few images of a class, most of what looks like a gap of that class is chance. The "
        "noise is therefore reduced before classes are compared (",
        Ref("classes"),
        ", ",
        Ref("class-table"),
        "). ",
        *_trust_in_classes(classes),
    )
    yield Figure(
        "classes",
        charts.spec(drawn, "classes"),
        words(
            "Gap of each class, noise reduced (dot), with its 95 % interval; tick: as counted; "
            f"dashed: the gap of all images{first}. "
            "A tick far from its dot was counted on few images."
        ),
        "Classes as dots with intervals: the gap of each, beside the gap of all images.",
    )
    yield Table(
        "class-table",
        words(
            "The classes with the largest gaps, noise reduced. q: of the test that the class has "
            "the common gap, adjusted for looking at all classes; of those that are named at q up "
            "to .05, a twentieth is expected to be named by chance."
        ),
        (
            Column("class", wide=True),
            Column("images", "right"),
            Column(material.reference, "right"),
            Column(material.target, "right"),
            Column("gap", "right"),
            Column("95 % interval", "right"),
            Column("q", "right"),
        ),
        tuple(
            _class_row(classes, i)
            for i, one in enumerate(classes.value("/classes")[:_ROWS])
            if one["raw"] is not None
        ),
    )
    yield from _superclasses(material, classes)
    yield from _confusions(material, classes)


def _trust_in_classes(classes: Answer) -> Iterator[Inline]:
    """Say how far class gaps can be trusted, and how many stand out."""
    if classes.value("/reliability/raw_sd") is not None:
        yield from words(
            "Gaps as counted spread over the classes by ",
            classes.number("/reliability/raw_sd", "points"),
            " points (standard deviation); chance alone would make ",
            classes.number("/reliability/sampling_sd", "points"),
            ". ",
        )
    worst = classes.value("/halves")
    if worst["chosen"]["estimate"] is not None and worst["other"]["estimate"] is not None:
        yield from words(
            "The tenth of the classes that looks worst on one half of the target's images holds ",
            classes.number("/halves/chosen/estimate", "percent0"),
            " of the gap there, and ",
            classes.number("/halves/other/estimate", "percent0"),
            " in the other half, where chance did not choose them. ",
        )
    places = {test["name"]: i for i, test in enumerate(classes.value("/tests"))}
    equality, common = places.get("equality"), places.get("common_gap")
    if equality is not None and common is not None:
        yield from words(
            "Of ",
            classes.number(f"/tests/{common}/n_classes", "count"),
            " classes, ",
            classes.number(f"/tests/{equality}/n_q05", "count"),
            " are told to have another accuracy on the two sets, and ",
            classes.number(f"/tests/{common}/n_q05", "count"),
            " another gap than all have in common (both adjusted for looking at all classes).",
        )


def _class_row(classes: Answer, i: int) -> tuple[Words, ...]:
    place = f"/classes/{i}"
    return (
        words(classes.sentence(f"{place}/class_name")),
        words(
            classes.number(f"{place}/n_reference", "count"),
            " + ",
            classes.number(f"{place}/n_target", "count"),
        ),
        words(classes.number(f"{place}/accuracy_reference", "percent")),
        words(classes.number(f"{place}/accuracy_target", "percent")),
        words(classes.number(f"{place}/shrunken/estimate", "signed_points")),
        ends(classes, f"{place}/shrunken", "signed_points"),
        words(classes.number(f"{place}/q_common_gap", "p")),
    )


def _superclasses(material: Material, classes: Answer) -> Iterator[Block]:
    if not classes.value("/superclasses"):
        return
    answer: ClassesOut = material.answers.answer_of("classes")
    cut = {"superclasses": answer.superclasses[:_CLASSES_DRAWN]}
    yield paragraph("Groups of classes have more images each (", Ref("superclasses"), ").")
    yield Figure(
        "superclasses",
        _spec(material, "classes", "superclasses", cut),
        words("Gap of each group of classes with its 95 % interval; dashed: all images."),
        "Groups of classes as dots with intervals: the gap of each.",
    )


def _confusions(material: Material, classes: Answer) -> Iterator[Block]:
    pairs = classes.value("/confusions/pairs")
    clear = [i for i, pair in enumerate(pairs) if pair["q_value"] <= _Q][:_PAIRS]
    if not clear:
        return
    yield paragraph("The confusions that changed most clearly are in ", Ref("confusions"), ".")
    yield Table(
        "confusions",
        words("Wrong answers whose share of the images of their class changed."),
        (
            Column("true class", wide=True),
            Column("called", wide=True),
            Column(material.reference, "right"),
            Column(material.target, "right"),
            Column("q", "right"),
        ),
        tuple(
            (
                words(classes.sentence(f"/confusions/pairs/{i}/label_name")),
                words(classes.sentence(f"/confusions/pairs/{i}/predicted_name")),
                words(classes.number(f"/confusions/pairs/{i}/share_reference", "percent")),
                words(classes.number(f"/confusions/pairs/{i}/share_target", "percent")),
                words(classes.number(f"/confusions/pairs/{i}/q_value", "p")),
            )
            for i in clear
        ),
    )


def _features(material: Material) -> Iterator[Block]:
    features = material.part("features")
    if features.value("/reason") is not None:
        yield Heading(words("Features"))
        yield paragraph("Features cannot be compared: ", features.sentence("/reason"), ".")
        return
    yield Heading(words("Features"))
    yield paragraph(
        "A shift of a feature matters to the head only if the head leans on it: in ",
        Ref("features"),
        " that is far from the middle and high up; ",
        Ref("feature-table"),
        " lists the first. A feature that did not move may still tell the classes apart less well.",
    )
    # what is said of shares of variance explains numbers that this report does not show
    said = [
        i
        for i, sentence in enumerate(features.value("/summary"))
        if not sentence.startswith("Shares of variance")
    ]
    yield from listed(sentences(features, "/summary", said))
    yield Figure(
        "features",
        _spec(material, "features", "feature_scatter"),
        words(
            "Each feature once: how far it moved between images of one class, and how much the "
            "head leans on it. Vermilion: the shift is told from chance. Shifts that could matter "
            "much are at the top left and the top right."
        ),
        "Features as dots: shift within classes against weight in the head.",
    )
    shown = [i for i, f in enumerate(features.value("/features")[:_ROWS]) if f["relevance"] > 0]
    yield Table(
        "feature-table",
        words(
            "The features with the largest product of shift and weight. Shift: within classes, in "
            "standard deviations. p: of the test that it did not move, adjusted for looking at all "
            "features; the intervals are not adjusted."
        ),
        (
            Column("feature", wide=True),
            Column("shift", "right"),
            Column("95 % interval", "right"),
            Column("p", "right"),
            Column("weight", "right"),
            Column("product", "right"),
        ),
        tuple(_feature_row(features, i) for i in shown),
    )


def _feature_row(features: Answer, i: int) -> tuple[Words, ...]:
    place = f"/features/{i}"
    shift = f"{place}/mean_difference_within_classes"
    return (
        words(features.sentence(f"{place}/feature_name")),
        words(features.number(f"{shift}/estimate", "number2")),
        ends(features, shift, "number2"),
        words(features.number(f"{place}/p_value", "p")),
        words(features.number(f"{place}/head_weight", "number2")),
        words(features.number(f"{place}/relevance", "number2")),
    )


def _groups(material: Material) -> Iterator[Block]:
    slices = material.part("slices")
    if slices.value("/clusters") is None and slices.value("/slices") is None:
        return
    yield Heading(words("Groups of images"))
    yield paragraph(
        "Images were also grouped by their features, as train images lie; and groups that lose "
        "more were looked for on one half of the images and tested on the other.",
    )
    yield from listed(sentences(slices, "/summary"))


def _images(material: Material) -> Iterator[Block]:
    images = material.part("images")
    kinds = images.value("/kinds")
    place = next((i for i, kind in enumerate(kinds) if kind["kind"] == "twins"), None)
    yield Heading(words("The images themselves"))
    if place is not None and kinds[place]["reason"] is not None:
        yield paragraph(
            "No image can be set beside a similar one: ",
            images.sentence(f"/kinds/{place}/reason"),
            ".",
        )
        return
    shown = [] if place is None else kinds[place]["images"][:_PAIRS]
    yield paragraph(
        "Numbers say how much, images say what.",
        *((" ", Ref("twins"), " names the first pairs to look at.") if shown else ()),
    )
    yield from listed(sentences(images, "/summary"))
    if not shown:
        return
    yield Table(
        "twins",
        words(
            f"Images of {material.target} that are wrong, each beside the most similar image of "
            f"{material.reference} of the same class that is right. What differs between the two "
            "is a place to look, not a reason that was tested."
        ),
        (
            Column("wrong", wide=True),
            Column("class"),
            Column("called"),
            Column("right beside it", wide=True),
            Column("similarity", "right"),
        ),
        tuple(
            (
                words(images.sentence(f"/kinds/{place}/images/{i}/path")),
                words(images.sentence(f"/kinds/{place}/images/{i}/class_name")),
                words(images.sentence(f"/kinds/{place}/images/{i}/predicted_name")),
                words(images.sentence(f"/kinds/{place}/images/{i}/twin/path")),
                words(images.number(f"/kinds/{place}/images/{i}/twin/similarity", "number2")),
            )
            for i, image in enumerate(shown)
            if image["twin"] is not None
        ),
        small=True,
    )


def _labels(material: Material) -> Iterator[Block]:
    labels = material.part("labels")
    if labels.value("/reason") is not None:
        return  # said among what cannot be told
    yield Heading(words("Errors of the labels"))
    yield paragraph(
        "An error may be the label's and not the model's (",
        Ref("labels"),
        "). ",
        in_a_row(sentences(labels, "/summary")),
    )
    yield Figure(
        "labels",
        _spec(material, "labels", "labels"),
        words(
            "Points of error and of the gap that disappear when a second opinion judges in place "
            "of the given labels, with 95 % intervals."
        ),
        "Points that disappear by second opinions on the labels, as dots with intervals.",
    )


def _others(material: Material) -> Iterator[Block]:
    line = material.part("line")
    if line.value("/reason") is not None:
        return
    yield Heading(words("Other models"))
    yield paragraph(
        "Models with the same accuracy on one test set tend to have the same on another (",
        Ref("line"),
        "). ",
        in_a_row(sentences(line, "/summary")),
    )
    yield Figure(
        "line",
        _spec(material, "line", "line"),
        words(
            f"Accuracy on {material.target} over accuracy on {material.reference}, one dot a "
            "model, on axes on which such lines are straight. Dashed: the same on both. A model "
            "above the line of the others loses less than they do."
        ),
        "Models as dots: accuracy on one test set over accuracy on the other, with a line.",
    )


def _foretold(material: Material) -> Iterator[Block]:
    foretold = material.part("without_labels")
    if all(one["predicted"]["estimate"] is None for one in foretold.value("/methods")):
        return
    yield Heading(words("Could it have been foretold?"))
    yield paragraph(
        "Some methods predict the accuracy on a set of images whose labels nobody knows yet (",
        Ref("foretold"),
        ").",
    )
    yield from listed(sentences(foretold, "/summary"))
    answer: WithoutLabelsOut = material.answers.answer_of("without_labels")
    cut = {"methods": [one for one in answer.methods if one.predicted.estimate is not None]}
    yield Figure(
        "foretold",
        _spec(material, "without_labels", "without_labels", cut),
        words(
            f"Accuracy on {material.target} as foretold without its labels, with 95 % intervals; "
            "dashed: what the labels show."
        ),
        "Methods as dots with intervals: foretold accuracy, beside the true one.",
    )


def _changes(material: Material) -> Iterator[Block]:
    found, answer = material.tested(), material.answers.hypotheses()
    if isinstance(answer, str):
        yield Heading(words("Changes of the head"))
        yield paragraph(f"The register of hypotheses could not be read: {answer}")
        return
    tested = [(i, one) for i, one in found if one["result"] is not None]
    if not tested:
        return
    yield Heading(words("Changes of the head"))
    yield paragraph(
        "Each change was registered with its reason and scored once beside the original head on "
        "the same images; ",
        *_learnt_from({one["use"] for _, one in tested}),
        " (",
        Ref("changes"),
        ", ",
        Ref("change-table"),
        "). ",
        verdict_in_words(tested),
        " A change of which nothing is shown is a result too: most refinements of a tuned head "
        "change little.",
    )
    yield Figure(
        "changes",
        _drawn_changes(answer, [one for _, one in tested]),
        words(
            "Change of the gap by each tested change of the head, with 95 % intervals. Left of 0 "
            "the gap is smaller; the grey band is no effect worth naming."
        ),
        "Changes of the head as dots with intervals: by how much the gap changed.",
    )
    yield Table(
        "change-table",
        words(
            "Changes of the head and what came. Change: of the gap, in points. p: of what was "
            "foretold, adjusted for all hypotheses of the family; none where a change reads test "
            "images and is in none. "
            "Underpowered: too few images to tell."
        ),
        (
            Column("change", wide=True),
            Column("gap", "right"),
            Column("95 % interval", "right"),
            Column("target", "right"),
            Column("p", "right"),
            Column("verdict", wide=True),
        ),
        tuple(_change_row(material, answer, i, one) for i, one in tested),
        small=True,
    )


def _drawn_changes(answer: Answer, tested: list[Mapping[str, Any]]) -> dict[str, Any]:
    """Draw changes by what they do; by their ids too only where two do the same."""
    drawn = HypothesesOut.model_validate({**answer.content, "hypotheses": tested})
    if len({one.in_words for one in drawn.hypotheses}) == len(drawn.hypotheses):
        nameless = [one.model_copy(update={"id": ""}) for one in drawn.hypotheses]
        drawn = drawn.model_copy(update={"hypotheses": nameless})
    return hypotheses_spec(drawn)


def _change_row(
    material: Material, answer: Answer, i: int, one: Mapping[str, Any]
) -> tuple[Words, ...]:
    place = f"/hypotheses/{i}/result"
    on_target = f"{place}/paired/{token(material.target)}/change/estimate"
    has_p = one["result"]["p_adjusted"] is not None
    return (
        words(answer.sentence(f"/hypotheses/{i}/in_words")),
        words(answer.number(f"{place}/gap_change/estimate", "signed_points")),
        ends(answer, f"{place}/gap_change", "signed_points"),
        words(answer.number(on_target, "signed_points")),
        words(answer.number(f"{place}/p_adjusted", "p")) if has_p else words("none"),
        words(", ".join(one["result"]["verdicts"])),
    )


def _learnt_from(uses: set[str]) -> Words:
    """Say what the changes read: train rows, what was seen of the test sets, test images."""
    if uses == {"train"}:
        return words("all of them learn from train rows alone")
    also = [
        said
        for use, said in (
            (INFORMED, "some rest on what was seen on the other half of the test images"),
            (TEST_INPUTS, "some read test images without their labels, to learn from them alone"),
        )
        if use in uses
    ]
    return words("heads are trained on train rows; " + ", ".join(also))


def verdict_in_words(tested: list[tuple[int, Mapping[str, Any]]]) -> str:
    """Say which of the tested changes did what: by their verdicts."""
    by_verdict: dict[str, list[str]] = {NARROWS: [], HELPS_BOTH: [], WIDENS: [], HURTS: []}
    for _, one in tested:
        for verdict in set(by_verdict) & set(one["result"]["verdicts"]):
            by_verdict[verdict].append(str(one["in_words"]))
    said = [
        f"Shown to make the gap smaller: {'; '.join(by_verdict[NARROWS])}."
        if by_verdict[NARROWS]
        else "None of them is shown to make the gap smaller."
    ]
    if by_verdict[HELPS_BOTH]:
        said.append(f"Better on both test sets: {'; '.join(by_verdict[HELPS_BOTH])}.")
    if by_verdict[WIDENS]:
        said.append(f"Shown to make the gap larger: {'; '.join(by_verdict[WIDENS])}.")
    if by_verdict[HURTS]:
        said.append(
            f"Less accurate than the original on the target: {'; '.join(by_verdict[HURTS])}."
        )
    return " ".join(said)


def _trust(material: Material) -> Iterator[Block]:
    found = material.answers.self_test()
    if found is None:
        return
    answer = SelfTestOut.model_validate(found.content)
    yield Heading(words("How far to trust this"))
    yield paragraph(
        "The same methods were run on sets made of the reference alone, where there is nothing to "
        "find, and on gaps that were planted there.",
    )
    # the sentences about single explainers say what the figure shows
    first, last = 1 + len(answer.explainers), len(found.value("/summary"))
    yield from listed(sentences(found, "/summary", range(first, last)))
    if any(one.false_alarm.rate is not None for one in answer.explainers):
        yield paragraph(Ref("selftest"), " shows how often each method found what is not there.")
        yield Figure(
            "selftest",
            selftest.chart(answer),
            words(
                "Share of sets without any cause on which a method still has a finding, with exact "
                "95 % intervals; dashed: the 5 % that it may have."
            ),
            "Methods as dots with intervals: how often they find what is not there.",
        )
