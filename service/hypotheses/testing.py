"""Registers a hypothesis, trains its refined head on train rows alone, and scores it once."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from etl.sources import JOIN
from models import heads
from models.errors import InvalidParams
from models.gap.hypotheses import compare
from models.gap.line import baselines, fairest, inside
from models.gap.resampling import replicates
from models.refining import adapting
from models.refining.recipes import (
    ALIGN_MEANS,
    CORAL,
    INFORMED,
    MASK_SHIFTING,
    RECIPES,
    TEST_INPUTS,
    TRAIN,
    Order,
    checked,
    order_of,
)
from models.refining.stability import between_clusters, least_stable
from service.database import place_of
from service.errors import (
    AlreadyScored,
    DataChanged,
    ImportedModel,
    ModelExists,
    NotTrainedHere,
    ReadsTestInputs,
)
from service.evaluations import SEED
from service.gap.explaining import SUGGESTIONS, Question
from service.gap.inputs import Inputs, Sides, explore_and_confirm
from service.gap.store import Store
from service.hypotheses.registry import Registry, model_of, result_content
from service.hypotheses.schemas import HypothesisIn, HypothesisOut, SuggestIn, SuggestionsOut
from service.hypotheses.suggesting import suggest
from service.importing import splits_imported
from service.lines import Lines
from service.looks import Look
from service.results import path_hashes
from service.sealing import evaluate_sealed
from service.seals import Seals
from service.sentences import NO_FEATURES
from service.terminal import Progress, part_of

if TYPE_CHECKING:
    from service.analysis import Analysis

_SAMPLE_ROWS = 20_000  # of the train rows, for clusters
_OF_INFORMED = f" ({INFORMED})"


class Hypotheses:
    """Registering and testing, over one data folder."""

    def __init__(self, analysis: "Analysis") -> None:
        self._analysis = analysis
        self.registry = Registry(analysis.data)

    def register(self, asked: HypothesisIn) -> HypothesisOut:
        """Store a hypothesis before anything of it is scored.

        Raises
        ------
        NotFound, NotATest, ImportedModel, NotTrainedHere, ReadsTestInputs, AlreadyScored,
        RecordNotKept, RecordChanged, models.errors.InvalidParams
        """
        return self.registry.get(self.registry.add(self.check(asked)))

    def check(self, asked: HypothesisIn) -> dict[str, Any]:
        """Refuse what `register` would refuse; what it would store.

        Raises
        ------
        NotFound, NotATest, ImportedModel, NotTrainedHere, ReadsTestInputs, AlreadyScored,
        models.errors.InvalidParams
        """
        database, results = self._analysis.database, self._analysis.results
        with database.connect():
            pass  # without a database there is nothing to foretell: say that first
        card = results.card(asked.baseline)
        reference, target = database.gap_ends(
            card["backbone"], asked.reference, asked.target, splits_imported(card)
        )
        recipe = checked(asked.refinement)
        use = RECIPES[recipe["kind"]].use
        if use == TRAIN and self._is_informed(card, recipe):
            use = INFORMED
        _refuse_test_inputs(recipe, use, is_diagnostic=asked.diagnostic)
        self._check_fits(card, recipe, use)
        digests = database.digests(card["backbone"])
        content = {
            "title": asked.title,
            "cause": asked.cause,
            "baseline": {
                "model": card["model"],
                "created_at": card["created_at"],
                "head_sha256": results.head_sha256(card["model"]),
            },
            "reference": reference,
            "target": target,
            "data_sha256": {split: digests[split] for split in (reference, target)},
            "refinement": recipe,
            "use": use,
            "endpoint": asked.endpoint,
            "sided": asked.sided,
            "family": _family(asked.family, use),
            "images": "confirm" if use == INFORMED else asked.images,
            "line": self._line(card, reference, target),
            "seed": SEED,
            "motivated_by": asked.motivated_by,
            "contradicted_by": asked.contradicted_by,
            "rests_on": self._rests_on(card, recipe),
            "n_looks_before": Seals(self._analysis.data).n_looks(card["backbone"], target),
        }
        self.registry.refuse_registered(content)
        return content

    def _rests_on(self, card: Mapping[str, Any], recipe: Mapping[str, Any]) -> dict[str, Any]:
        """Return the heads and the data that the refined head will be made of, beside the baseline.

        Else they could be exchanged between registering and testing, once something is known.
        """
        names = [card["backbone"], *recipe.get("backbones", []), recipe.get("backbone")]
        results, other = self._analysis.results, recipe.get("model")
        return {
            "data": {
                name: self._analysis.database.digests(name)
                for name in dict.fromkeys(names)
                if name is not None
            },
            "heads": {} if other is None else {other: results.head_sha256(other)},
            "unknown": other is not None and results.card(other).get("rows") is None,
        }

    def test(
        self, hypothesis: str, *, progress: Progress = lambda _share, _message: None
    ) -> HypothesisOut:
        """Train the refined head, score it once, and keep what came of it.

        A test that was killed goes on: its head is the same, and its score was not seen.

        Raises
        ------
        NotFound, AlreadyScored, RecordChanged, RecordNotKept, DataChanged,
        models.errors.ModelError
        """
        self.registry.refuse_scored(hypothesis)
        found = self.registry.content(hypothesis)
        card = self._unchanged(found)
        model = model_of(hypothesis)
        is_diagnostic = found["use"] == TEST_INPUTS
        analysis = self._analysis
        ends = found["target"], found["reference"]
        evaluate_sealed(analysis, card["model"], *ends, progress=part_of(progress, 0.0, 0.05))
        inputs = Inputs(
            analysis.database, analysis.results, card, found["reference"], found["target"]
        )
        if not is_diagnostic and analysis.results.has(model):
            _refuse_stranger(analysis.results.card(model), hypothesis)
        elif not is_diagnostic:
            self._make(hypothesis, found, inputs, part_of(progress, 0.05, 0.9))
        progress(0.9, "scoring the refined head")
        if is_diagnostic:
            refined = self._adapted(found["refinement"], inputs)
            paths = inputs.paths
        else:
            evaluate_sealed(analysis, model, *ends)
            paths, refined = self._answers(model, found)
        rows = Sides(*map(_common, inputs.paths.pair, paths.pair))
        if found["images"] == "confirm":
            _, confirm = explore_and_confirm(inputs)
            rows = Sides(*map(np.intersect1d, rows.pair, confirm.rows.pair))
        baseline = inputs.correct
        place = Sides(
            *(
                place_of(mine.take(at), pa.chunked_array([there])).to_numpy()
                for mine, at, there in zip(inputs.paths.pair, rows.pair, paths.pair, strict=True)
            )
        )
        before = tuple(side[at] for side, at in zip(baseline.pair, rows.pair, strict=True))
        after = tuple(side[at] for side, at in zip(refined.pair, place.pair, strict=True))
        labels = [side[at] for side, at in zip(inputs.labels.pair, rows.pair, strict=True)]
        comparison = compare(
            before,
            after,
            replicates(*labels, seed=SEED),
            sided=found["sided"],
            slope=1.0 if found["line"] is None else found["line"]["slope"],
        )
        accuracy = {
            split: (float(b.mean()), float(a.mean()))
            for split, b, a in zip(inputs.splits.pair, before, after, strict=True)
        }
        self.registry.add_result(
            hypothesis, result_content(comparison, accuracy, None if is_diagnostic else model)
        )
        progress(1.0, "judged")
        return self.registry.get(hypothesis)

    def check_model(self, model: str) -> None:
        """Refuse a name that no model has.

        Raises
        ------
        NotFound
        """
        self._analysis.results.card(model)

    def suggest(
        self,
        asked: SuggestIn,
        *,
        progress: Progress = lambda _share, _message: None,
    ) -> SuggestionsOut:
        """Propose up to eight hypotheses from findings on the explore halves, and keep them.

        Raises
        ------
        NotFound, NotATest, ImportedModel, DataChanged, models.errors.ModelError
        """
        question, key = self._question(asked)
        if (known := self.suggested(asked)) is not None:
            return known
        analysis, model = self._analysis, question.card["model"]
        analysis.evaluate(model, progress=part_of(progress, 0.0, 0.1))
        inputs = Inputs(
            analysis.database,
            analysis.results,
            question.card,
            question.reference,
            question.target,
        )
        found = suggest(self, inputs, progress=part_of(progress, 0.1, 1.0))
        Store(analysis.data).write(model, key, SUGGESTIONS, found.model_dump_json().encode())
        return found

    def suggested(self, asked: SuggestIn) -> SuggestionsOut | None:
        """Return what was proposed in this state of the data; None where nothing was yet.

        Raises
        ------
        NotFound, NotATest, ImportedModel
        """
        question, key = self._question(asked)
        found = Store(self._analysis.data).read(question.card["model"], key, SUGGESTIONS)
        return None if found is None else SuggestionsOut.model_validate_json(found)

    def _question(self, asked: SuggestIn) -> tuple[Question, str]:
        question = Question(self._analysis, asked.model, asked.reference, asked.target)
        if question.card["backbone"] is None:
            raise ImportedModel(
                f"wanted a model whose features are here, got one of which {NO_FEATURES}."
            )
        return question, question.key(SUGGESTIONS)

    def _is_informed(self, card: Mapping[str, Any], recipe: Mapping[str, Any]) -> bool:
        """Whether a head that takes part was itself found by looking at the test sets."""
        others = [self._analysis.results.card(recipe["model"])] if "model" in recipe else []
        return any(one.get("use") == INFORMED for one in (card, *others))

    def _check_fits(self, card: Mapping[str, Any], recipe: Mapping[str, Any], use: str) -> None:
        """Refuse a recipe that cannot be made of this baseline, or whose score is known."""
        if card["backbone"] is None:
            raise ImportedModel(
                f"wanted a baseline whose features are here, got one of which {NO_FEATURES}."
            )
        database = self._analysis.database
        if use == TEST_INPUTS:
            return
        if card["validation"] is None and recipe["kind"] != "interpolate":
            raise NotTrainedHere(
                f"wanted a baseline that was trained here and can be refined, got {card['head']}. "
                "Train one on the same backbone (POST /train), or interpolate."
            )
        if recipe["kind"] == MASK_SHIFTING:
            if recipe["n"] >= card["n_features"]:
                raise InvalidParams(
                    f"wanted n below the {card['n_features']} features there are, got "
                    f"{recipe['n']}."
                )
            return
        order = order_of(recipe, card["head"], card["params"])
        for backbone in order.backbones:
            database.splits_of(backbone)
        if order.between is not None:
            self._analysis.results.head(order.between[0])
        else:
            heads.check_params(order.head, order.params)
        if order.drop:
            unknown = sorted(set(order.drop) - set(database.feature_names(card["backbone"])))
            if unknown:
                raise InvalidParams(
                    f"wanted names of features of {card['backbone']!r}, got "
                    f"{', '.join(unknown[:5])}."
                )
        self._refuse_known(card, order)

    def _refuse_known(self, card: Mapping[str, Any], order: Order) -> None:
        """Refuse a refinement whose score is already here under another name.

        Whatever the seed: of the same head with the same parameters, another seed tells the score.
        """
        if order.between is not None:
            self._refuse_known_between(card, *order.between)
        if order.drop_unstable is not None or order.between is not None:
            return
        dropped = [] if order.backbones else sorted({*order.drop, *card.get("without", [])})
        backbone = JOIN.join(order.backbones) or card["backbone"]
        for other in self._analysis.results.models():
            asked = other.get("asked") or {}
            settings = [(asked.get("head"), asked.get("params")),
                        (other["head"], other["params"])]  # fmt: skip
            is_same = (
                other["backbone"] == backbone
                and (order.head, order.params) in settings
                and sorted(other.get("without") or []) == dropped
                and not other.get("left_out")
            )
            if is_same and self._analysis.results.evaluation(other["model"]):
                raise AlreadyScored(
                    f"wanted a refinement whose score nobody has seen, got the head of "
                    f"{other['model']!r}, which is evaluated. Foretell another one."
                )

    def _refuse_known_between(self, card: Mapping[str, Any], model: str, alpha: float) -> None:
        results = self._analysis.results
        known = [model] if alpha == 1 else []
        for other in results.models():
            made = other.get("interpolated") or {}
            ends = made.get("model_a"), made.get("model_b"), other["params"].get("alpha")
            if made and ends in ((card["model"], model, alpha), (model, card["model"], 1 - alpha)):
                known.append(other["model"])
        for name in known:
            if results.evaluation(name):
                raise AlreadyScored(
                    "wanted a refinement whose score nobody has seen, got the head of "
                    f"{name!r}, which is evaluated. Foretell another one."
                )

    def _line(self, card: Mapping[str, Any], reference: str, target: str) -> dict[str, Any] | None:
        """Return the line through published models that the distance is measured from."""
        lines = Lines(self._analysis.data).between(reference, target)
        if not lines:
            return None
        largest = max(lines, key=lambda line: len(line.models))
        found = baselines(largest.reference_accuracy, largest.target_accuracy)
        stored = {
            r["split"]: r["estimate"]
            for r in self._analysis.results.evaluation(card["model"])
            if r["metric"] == "top1"
        }
        accuracy = stored.get(reference) or float(np.median(largest.reference_accuracy))
        key = fairest(found, inside(accuracy, 10**6))
        if key is None:
            return None
        return {"name": largest.name, "from_accuracy": key[0], "slope": found[key].slope}

    def _unchanged(self, found: Mapping[str, Any]) -> dict[str, Any]:
        """Return the baseline's card, if it and the data are those that were registered.

        Raises
        ------
        NotFound, DataChanged
        """
        card = self._analysis.results.card(found["baseline"]["model"])
        now = {
            "model": card["model"],
            "created_at": card["created_at"],
            "head_sha256": self._analysis.results.head_sha256(card["model"]),
        }
        if now != found["baseline"]:
            raise DataChanged(
                f"wanted the baseline {card['model']!r} as it was when the hypothesis was "
                "registered, got another. Register it anew."
            )
        digests = self._analysis.database.digests(card["backbone"])
        changed = [s for s, sha in found["data_sha256"].items() if digests.get(s) != sha]
        rests_on = found.get("rests_on") or {"data": {}, "heads": {}}
        for backbone, then in rests_on["data"].items():
            there = self._analysis.database.digests(backbone)
            changed += [f"{s} of {backbone}" for s, sha in then.items() if there.get(s) != sha]
        for model, sha in rests_on["heads"].items():
            if self._analysis.results.head_sha256(model) != sha:
                changed.append(f"the head of {model}")
        if changed:
            raise DataChanged(
                f"wanted {', '.join(changed)} as they were when the hypothesis was "
                "registered, got others. Register it anew."
            )
        return card

    def _make(
        self, hypothesis: str, found: Mapping[str, Any], inputs: Inputs, progress: Progress
    ) -> None:
        """Train or interpolate the refined head, from train rows alone."""
        card, recipe = inputs.card, found["refinement"]
        model = model_of(hypothesis)
        about = {"hypothesis": hypothesis, "use": found["use"]}
        if recipe["kind"] == MASK_SHIFTING:
            order = Order(**_own(card))
            without = shifting(inputs, recipe["n"])
        else:
            order = order_of(recipe, card["head"], card["params"])
            without = list(order.drop)
        if order.between is not None:
            other, alpha = order.between
            self._analysis.interpolate(card["model"], other, alpha=alpha, name=model, about=about)
            return
        backbone = JOIN.join(order.backbones) or card["backbone"]
        if order.drop_unstable is not None:
            without = self._unstable(backbone, order.drop_unstable)
        # what the baseline does not read or learn from is no part of what is changed
        own = card.get("without") or []
        if backbone == card["backbone"]:
            without = [*without, *own]
        elif card["backbone"] in order.backbones and len(order.backbones) > 1:
            without = [*without, *(f"{card['backbone']}.{name}" for name in own)]
        self._analysis.train(
            model=model,
            backbone=backbone,
            head=order.head,
            params=order.params,
            seed=card["seed"],
            leave_out=self._left_out(card),
            why=(card.get("left_out") or {}).get("why"),
            without=without,
            about=about,
            progress=progress,
        )

    def _left_out(self, card: Mapping[str, Any]) -> list[str]:
        """Return the train rows that the baseline was not to learn from."""
        if not card.get("left_out"):
            return []
        _, paths = self._analysis.database.train_rows(card["backbone"])
        learnt = self._analysis.results.learnt_from(card["model"], paths)
        return [path for path, known in zip(paths, learnt, strict=True) if not known]

    def _unstable(self, backbone: str, part: float) -> list[str]:
        rows, _ = self._analysis.database.train_rows(backbone)
        step = max(1, len(rows.labels) // _SAMPLE_ROWS)
        share = between_clusters(
            np.ascontiguousarray(rows.features[0 : len(rows.labels)][::step]),
            rows.labels[::step],
            seed=SEED,
        )
        names = self._analysis.database.feature_names(backbone)
        return [names[i] for i in least_stable(share, part=part)]

    def _answers(
        self, model: str, found: Mapping[str, Any]
    ) -> tuple[Sides[pa.Array], Sides[np.ndarray]]:
        """Return paths, and whether the refined head is right there; the look is logged."""
        splits = Sides(found["reference"], found["target"])
        look = Look(model, "hypothesis")
        tables = splits.map(
            lambda split: self._analysis.results.predictions(model, split, look=look)
        )
        return (
            tables.map(lambda t: t["path"].combine_chunks()),
            tables.map(lambda t: t["is_correct"].to_numpy(zero_copy_only=False).astype(bool)),
        )

    def _adapted(self, recipe: Mapping[str, Any], inputs: Inputs) -> Sides[np.ndarray]:
        """Whether the baseline is right once it reads test inputs: each half from the other."""
        assert inputs.features is not None
        assert inputs.head is not None
        head = inputs.head
        rows, _ = self._analysis.database.train_rows(inputs.backbone)
        step = max(1, len(rows.labels) // _SAMPLE_ROWS)
        train = np.ascontiguousarray(rows.features[0 : len(rows.labels)][::step])
        known = np.isin(rows.labels, head.class_ids)
        count = np.bincount(
            np.searchsorted(head.class_ids, rows.labels[known]), minlength=len(head.class_ids)
        )
        share = np.maximum(count, 1) / np.maximum(count, 1).sum()

        def right(features: np.ndarray, labels: np.ndarray, paths: pa.Array) -> np.ndarray:
            # halves without labels: every second image in the order of the paths' hashes
            half = np.argsort(np.argsort(path_hashes(paths.to_pylist()))) % 2 == 0
            if recipe["kind"] == ALIGN_MEANS:
                said = heads.predict(
                    head, adapting.aligned_means(features, half, train), labels
                ).predicted
            elif recipe["kind"] == CORAL:
                said = heads.predict(head, adapting.coral(features, half, train), labels).predicted
            else:
                said = adapting.prior_corrected(head, features, half, share)
            return np.asarray(said == labels)

        return Sides(
            *(
                right(*side)
                for side in zip(
                    inputs.features.pair, inputs.labels.pair, inputs.paths.pair, strict=True
                )
            )
        )


def shifting(inputs: Inputs, n: int) -> list[str]:
    """Return the features with the largest shift within classes times weight, explore halves."""
    explore, _ = explore_and_confirm(inputs)
    assert explore.features is not None
    assert inputs.head is not None
    sums, counts = [], []
    k = int(max(side.max() for side in explore.labels.pair)) + 1
    for features, labels in zip(explore.features.pair, explore.labels.pair, strict=True):
        total = np.zeros((k, features.shape[1]))
        np.add.at(total, labels, features)
        sums.append(total)
        counts.append(np.bincount(labels, minlength=k))
    both = (counts[0] > 0) & (counts[1] > 0)
    means = [s[both] / c[both][:, None] for s, c in zip(sums, counts, strict=True)]
    share = counts[1][both] / counts[1][both].sum()
    shift = share @ (means[0] - means[1])
    sd = np.where(inputs.train_sd > 0, inputs.train_sd, np.inf)
    relevance = np.abs(shift) / sd * inputs.head.feature_weights()
    return [inputs.feature_names[i] for i in np.sort(np.argsort(-relevance, kind="stable")[:n])]


def _own(card: Mapping[str, Any]) -> dict[str, Any]:
    """Return the order that makes the baseline again."""
    again = order_of({"kind": "drop_features", "features": []}, card["head"], card["params"])
    return {"head": again.head, "params": again.params}


def _family(asked: str, use: str) -> str | None:
    if use == TRAIN:
        return asked.removesuffix(_OF_INFORMED)
    return f"{asked.removesuffix(_OF_INFORMED)}{_OF_INFORMED}" if use == INFORMED else None


def _refuse_test_inputs(recipe: Mapping[str, Any], use: str, *, is_diagnostic: bool) -> None:
    if use == TEST_INPUTS and not is_diagnostic:
        raise ReadsTestInputs(
            f"wanted a refinement that learns from train rows alone, got {recipe['kind']}, which "
            "reads the images that judge it. As a diagnostic ("
            '"diagnostic": true) it is run, cross-fitted over halves, in no family, and is never a '
            "better head."
        )
    if is_diagnostic and use != TEST_INPUTS:
        raise InvalidParams(
            f"wanted a recipe that reads test inputs for a diagnostic, got {recipe['kind']}. Leave "
            "diagnostic out."
        )


def _refuse_stranger(card: Mapping[str, Any], hypothesis: str) -> None:
    """Refuse a model that has the refined head's name and was not made by this test."""
    if card.get("hypothesis") != hypothesis:
        raise ModelExists(
            f"wanted to make {card['model']!r} from the registered recipe, got a model of that "
            "name that something else made. Delete it: what it scored is not the recipe's."
        )


def _common(mine: pa.Array, there: pa.Array) -> np.ndarray:
    """Places of the images that both have."""
    return np.flatnonzero(np.asarray(pa.compute.is_in(mine, value_set=there)))
