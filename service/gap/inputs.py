"""What the explainers of one gap read: each thing once, and only if one of them asks for it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Generic, TypeVar

import numpy as np
import pyarrow as pa

from etl.measuring import SOURCE as IMAGE_STATISTICS
from models import heads
from models.gap.covariates import Covariates, covariates_of, principal_components
from models.gap.halves import explore_half
from models.gap.line import inside
from models.gap.resampling import Replicates, replicates
from models.leaks import Neighbours, nearest
from service.database import Database, place_of
from service.evaluations import SEED, prediction_table
from service.looks import Look
from service.neighbours import Rows, TrainNeighbours, among, is_at_hand, to_train
from service.results import Results, path_hashes
from service.terminal import Progress

_COMPONENTS = 20
_IMAGES_A_COMPONENT = 50
T = TypeVar("T")
U = TypeVar("U")
_SAMPLE_ROWS = 2000


@dataclass(frozen=True)
class Sides(Generic[T]):
    """The same thing of reference and target."""

    reference: T
    target: T

    def map(self, change: Callable[[T], U]) -> "Sides[U]":
        """Do the same to both."""
        return Sides(change(self.reference), change(self.target))

    @property
    def pair(self) -> tuple[T, T]:
        """Reference, target."""
        return self.reference, self.target


_OWN_SIDES = Sides("reference", "target")


@dataclass(frozen=True)
class Annotation:
    """What a source says of the images of both splits.

    Attributes
    ----------
    name : of the covariate; with its source where two sources use the same name
    source : under which it was attached
    values : float64 [n] each; NaN where unknown; a text's number among `categories`
    categories : the texts; None for numbers
    """

    name: str
    source: str
    values: Sides[np.ndarray]
    categories: list[str] | None

    @property
    def on_both(self) -> bool:
        """Whether any image of each split has a value."""
        return all(bool(np.isfinite(values).any()) for values in self.values.pair)


class Inputs:
    """One model, a reference and a target, and all that is stored about them.

    Arrays of images are in the order of the stored predictions, float32 features alike.

    Attributes
    ----------
    beside : tables that a part wants kept beside its answer, under the part's name
    """

    def __init__(
        self,
        database: Database,
        results: Results,
        card: Mapping[str, Any],
        reference: str,
        target: str,
    ) -> None:
        self.database, self.results, self.card = database, results, card
        self.model, self.backbone = card["model"], card["backbone"]
        self.reference, self.target = reference, target
        self.beside: dict[str, pa.Table] = {}
        self._of_train: dict[str, Any] = {}

    @property
    def splits(self) -> Sides[str]:
        """Names of the two splits."""
        return Sides(self.reference, self.target)

    @property
    def names(self) -> dict[str, str]:
        """Names that estimates give to the two sets."""
        return {"reference": self.reference, "target": self.target}

    @cached_property
    def answers(self) -> Sides[pa.Table]:
        """Stored predictions with labels; the look is logged."""
        look = Look(self.model, "gap")
        return self.splits.map(lambda split: self.results.predictions(self.model, split, look=look))

    @cached_property
    def paths(self) -> Sides[pa.Array]:
        """Path of each image."""
        return self.answers.map(lambda table: table["path"].combine_chunks())

    @cached_property
    def labels(self) -> Sides[np.ndarray]:
        """Class ids, int64 [n]."""
        return self._column("class_id", np.int64)

    @cached_property
    def predicted(self) -> Sides[np.ndarray]:
        """Predicted class ids, int64 [n]."""
        return self._column("predicted_class_id", np.int64)

    @cached_property
    def correct(self) -> Sides[np.ndarray]:
        """Whether the model is right, bool [n]."""
        return self._column("is_correct", bool)

    @cached_property
    def confidence(self) -> Sides[np.ndarray] | None:
        """Probability of the predicted class, float64 [n]; None for imports without it."""
        found = self._column("confidence", float)
        return found if all(np.isfinite(values).all() for values in found.pair) else None

    def _column(self, name: str, dtype: Any) -> Sides[np.ndarray]:
        return self.answers.map(
            lambda table: table[name].to_numpy(zero_copy_only=False).astype(dtype)
        )

    @cached_property
    def features(self) -> Sides[np.ndarray] | None:
        """Features, float32 [n, d]; None for an imported model."""
        if self.backbone is None:
            return None

        def read(split: str, paths: pa.Array) -> np.ndarray:
            there, features = self.database.unlabelled_rows(self.backbone, split)
            place = place_of(paths, pa.chunked_array([pa.array(there, pa.string())])).to_numpy()
            in_order = np.array_equal(place, np.arange(len(place)))
            return features if in_order else features[place]

        return Sides(
            read(self.reference, self.paths.reference), read(self.target, self.paths.target)
        )

    @cached_property
    def head(self) -> heads.Head | None:
        """The model's head; None for an imported model."""
        return None if self.backbone is None else self.results.head(self.model)

    @cached_property
    def scores(self) -> Sides[np.ndarray] | None:
        """Scores (logits) of the head, float32 [n, k]; None for an imported model."""
        head, features = self.head, self.features
        if head is None or features is None:
            return None
        return features.map(lambda rows: heads.scores(head, rows))

    @cached_property
    def covariates(self) -> Sides[Covariates] | None:
        """Difficulty that the model sees without labels; None without features."""
        scores, features = self.scores, self.features
        if scores is None or features is None:
            return None
        mean, sd = self.train_mean, self.train_sd
        return Sides(
            covariates_of(scores.reference, features.reference, train_mean=mean, train_sd=sd),
            covariates_of(scores.target, features.target, train_mean=mean, train_sd=sd),
        )

    @cached_property
    def replicates(self) -> Replicates:
        """Bootstrap weights of the images of both splits, the same for every part."""
        return replicates(*self.labels.pair, seed=SEED)

    @cached_property
    def components(self) -> Sides[np.ndarray] | None:
        """Both splits on the directions in which the features spread most; None without features.

        So many that the smaller split has fifty images for each, 20 at most: with fewer images a
        classifier of the splits would learn them by heart.
        """
        if self.features is None:
            return None
        fewest = min(len(rows) for rows in self.features.pair)
        wanted = min(_COMPONENTS, self.features.reference.shape[1])
        return Sides(
            *principal_components(
                *self.features.pair,
                scale=self.train_sd,
                n_components=max(2, min(wanted, fewest // _IMAGES_A_COMPONENT)),
            )
        )

    @cached_property
    def train_sd(self) -> np.ndarray:
        """Standard deviation of each feature over the train rows, float64 [d]."""
        return self.database.train_sd(self.backbone)

    @cached_property
    def train_mean(self) -> np.ndarray:
        """Mean of each feature over the train rows, float64 [d]."""
        return self.database.train_mean(self.backbone)

    @cached_property
    def train_sample(self) -> np.ndarray:
        """About 2,000 train rows, evenly over all of them, float32 [n, d].

        Raises
        ------
        models.errors.NoTrainRows
        """
        rows, _ = self.database.train_rows(self.backbone)
        return rows.features[:: max(1, len(rows.features) // _SAMPLE_ROWS)]

    @cached_property
    def image_ids(self) -> Sides[np.ndarray]:
        """Ids that the present database gives to the images, int64; −1 where one is gone.

        Any load may give others.
        """
        return Sides(
            self.database.image_ids([self.reference], self.paths.reference),
            self.database.image_ids([self.target], self.paths.target),
        )

    def train_image_ids(self, paths: pa.Array) -> np.ndarray:
        """Return the same for some train images."""
        splits = self.database.splits_of(self.backbone)
        train = [row["split"] for row in splits if row["role"] == "train"]
        return self.database.image_ids(train, paths)

    def of_train(self, name: str, make: Callable[[], T]) -> T:
        """Return something that is made of train rows alone: made once, by whoever asks first."""
        if name not in self._of_train:
            self._of_train[name] = make()
        found: T = self._of_train[name]
        return found

    def has_near_train(self) -> bool:
        """Whether the nearest train rows are known, or found within seconds."""
        return is_at_hand(self.database, self.backbone, self.splits.pair)

    def near_train(self, progress: Progress) -> tuple[Neighbours, Sides[TrainNeighbours]]:
        """Nearest train rows of a sample of train rows, and of all images; kept once searched.

        Raises
        ------
        NotFound, models.errors.NoTrainRows
        """
        sample, sides = to_train(self.database, self.backbone, self._rows().pair, progress=progress)
        return sample, Sides(*sides)

    def near_tests(self, progress: Progress) -> Neighbours:
        """Nearest other images of both splits together, reference first; kept once searched."""
        return among(self.database, self.backbone, *self._rows().pair, progress=progress)

    def _rows(self) -> Sides[Rows]:
        assert self.features is not None
        return Sides(
            Rows(self.reference, self.paths.reference, self.features.reference),
            Rows(self.target, self.paths.target, self.features.target),
        )

    @cached_property
    def class_names(self) -> dict[int, str]:
        """Name of each class; those without a name have their number."""
        ids = np.union1d(*self.labels.pair).tolist()
        known = self.database.class_names()
        return {c: known.get(c, str(c)) for c in ids} | known

    @cached_property
    def superclasses(self) -> dict[int, str]:
        """Superclass of each class that has one."""
        return self.database.superclasses()

    @cached_property
    def feature_names(self) -> list[str]:
        """Names of the features in the order of the vectors."""
        return [] if self.backbone is None else self.database.feature_names(self.backbone)

    @cached_property
    def annotations(self) -> list[Annotation]:
        """What is attached to the images of either split, in order of source and name."""
        found = self.database.rows(
            """select source, name, list(distinct category order by category)
                filter (category is not null) as categories
            from annotation where split in (?, ?) group by source, name order by source, name""",
            [self.reference, self.target],
        )
        names = [row["name"] for row in found]
        return [
            Annotation(
                row["name"] if names.count(row["name"]) == 1 else f"{row['source']}.{row['name']}",
                row["source"],
                self._values(row["source"], row["name"], row["categories"]),
                row["categories"] or None,
            )
            for row in found
        ]

    def _values(self, source: str, name: str, categories: list[str] | None) -> Sides[np.ndarray]:
        def read(split: str, paths: pa.Array) -> np.ndarray:
            with self.database.connect() as con:
                table = con.execute(
                    "select path, value, category from annotation "
                    "where source = ? and name = ? and split = ?",
                    [source, name, split],
                ).to_arrow_table()
            if categories:
                codes = pa.compute.index_in(table["category"], pa.array(categories))
                values = codes.cast(pa.float64()).to_numpy()
            else:
                values = table["value"].to_numpy()
            place = place_of(table["path"].combine_chunks(), pa.chunked_array([paths]))
            there = place.is_valid().to_numpy(zero_copy_only=False)
            of_image = np.full(len(paths), np.nan)
            of_image[place.drop_null().to_numpy()] = values[there]
            return of_image

        return Sides(
            read(self.reference, self.paths.reference), read(self.target, self.paths.target)
        )

    def is_image_statistic(self, annotation: Annotation) -> bool:
        """Whether it was measured on the image file."""
        return annotation.source == IMAGE_STATISTICS

    def stored_accuracies(self, card: Mapping[str, Any]) -> tuple[float, float] | None:
        """Accuracies of any model on reference and target as it was scored; no label is read.

        None where it was not scored on both, or on other data than are loaded now. Where all or no
        images are right, half an image is taken off the end.
        """
        top1 = {
            record["split"]: record
            for record in self.results.evaluation(card["model"])
            if record["metric"] == "top1" and record["estimate"] is not None
        }
        found = [top1.get(split) for split in self.splits.pair]
        pair = [record for record in found if record is not None]
        if len(pair) < 2:
            return None
        backbone = card["backbone"]
        if backbone is not None:
            if backbone not in self._digests:
                self._digests[backbone] = self.database.digests(backbone)
            now = [self._digests[backbone].get(split) for split in self.splits.pair]
            if now != [record["data_sha256"] for record in pair]:
                return None
        first, second = (inside(record["estimate"], record["n"]) for record in pair)
        return first, second

    @cached_property
    def _digests(self) -> dict[str, dict[str, str]]:
        return {}

    @cached_property
    def other_answers(self) -> dict[str, Sides[np.ndarray]]:
        """Class that each other model predicts for the same images, where it has all of them.

        Heads that test hypotheses are left out: they are variants of their baseline.

        Labels take no part, so that no look is logged.
        """
        found = {}
        for card in self.results.own_models():
            other = card["model"]
            if other == self.model:
                continue
            first, second = (
                self.results.answers_of(other, split, paths)
                for split, paths in zip(self.splits.pair, self.paths.pair, strict=True)
            )
            if first is not None and second is not None:
                found[other] = Sides(first, second)
        return found


class ChosenInputs(Inputs):
    """Some of the images of another pair of sets, as a pair of their own.

    For findings on halves of both splits, and for sets made of one split alone, whose gap is
    known. What needs no recount (scores, annotations, features) is taken from the whole.
    """

    def __init__(
        self, whole: Inputs, rows: Sides[np.ndarray], *, of: Sides[str] = _OWN_SIDES
    ) -> None:
        """Take images.

        Parameters
        ----------
        whole
            Where they come from.
        rows
            Places of the images of either new set, int64 [n]; a place may come twice.
        of
            Which of the whole's sets each is taken from: "reference" or "target".
        """
        super().__init__(whole.database, whole.results, whole.card, whole.reference, whole.target)
        self.whole, self.rows, self._of = whole, rows, of

    def take(self, sides: Sides[Any]) -> Sides[Any]:
        """Return something that is known of every image of the whole, of the chosen ones."""
        return Sides(
            getattr(sides, self._of.reference)[self.rows.reference],
            getattr(sides, self._of.target)[self.rows.target],
        )

    @cached_property
    def answers(self) -> Sides[pa.Table]:
        """Stored predictions of the chosen images."""
        return Sides(
            getattr(self.whole.answers, self._of.reference).take(self.rows.reference),
            getattr(self.whole.answers, self._of.target).take(self.rows.target),
        )

    @cached_property
    def features(self) -> Sides[np.ndarray] | None:
        """Features of the chosen images."""
        return None if self.whole.features is None else self.take(self.whole.features)

    @cached_property
    def scores(self) -> Sides[np.ndarray] | None:
        """Scores of the chosen images."""
        return None if self.whole.scores is None else self.take(self.whole.scores)

    @cached_property
    def annotations(self) -> list[Annotation]:
        """What is attached to the chosen images."""
        return [replace(one, values=self.take(one.values)) for one in self.whole.annotations]

    @cached_property
    def other_answers(self) -> dict[str, Sides[np.ndarray]]:
        """What each other model predicts for the chosen images."""
        return {name: self.take(said) for name, said in self.whole.other_answers.items()}

    # what the choice of images does not change
    @cached_property
    def head(self) -> heads.Head | None:
        """The model's head."""
        return self.whole.head

    @cached_property
    def train_sd(self) -> np.ndarray:
        """Standard deviation of each feature over the train rows."""
        return self.whole.train_sd

    @cached_property
    def train_mean(self) -> np.ndarray:
        """Mean of each feature over the train rows."""
        return self.whole.train_mean

    @cached_property
    def train_sample(self) -> np.ndarray:
        """About 2,000 train rows."""
        return self.whole.train_sample

    @cached_property
    def class_names(self) -> dict[int, str]:
        """Name of each class of the whole."""
        return self.whole.class_names

    @cached_property
    def superclasses(self) -> dict[int, str]:
        """Superclass of each class that has one."""
        return self.whole.superclasses

    @cached_property
    def feature_names(self) -> list[str]:
        """Names of the features."""
        return self.whole.feature_names

    def of_train(self, name: str, make: Callable[[], T]) -> T:
        """Return something that is made of train rows alone, from the whole."""
        return self.whole.of_train(name, make)

    def has_near_train(self) -> bool:
        """Whether those of the whole are known, or found within seconds."""
        return self.whole.has_near_train()

    def near_train(self, progress: Progress) -> tuple[Neighbours, Sides[TrainNeighbours]]:
        """Nearest train rows of the chosen images, from the search for the whole."""
        sample, known = self.whole.of_train("near train", lambda: self.whole.near_train(progress))
        sides = zip(
            (getattr(known, self._of.reference), getattr(known, self._of.target)),
            self.rows.pair,
            strict=True,
        )
        return sample, Sides(*(side.take(rows) for side, rows in sides))

    def near_tests(self, progress: Progress) -> Neighbours:
        """Nearest others among the chosen images; searched anew, and not kept."""
        assert self.features is not None
        rows = np.concatenate(self.features.pair)
        return nearest(
            rows, rows, mean=self.train_mean, sd=self.train_sd, own=np.arange(len(rows)),
            progress=progress,
        )  # fmt: skip


class PlantedInputs(ChosenInputs):
    """Chosen images of which the target's labels or features are others: a gap of known cause.

    What the head says of moved features is computed anew. Nearest train rows stay those of the
    features as they were.
    """

    def __init__(
        self,
        whole: Inputs,
        rows: Sides[np.ndarray],
        *,
        of: Sides[str],
        labels: np.ndarray | None = None,
        features: np.ndarray | None = None,
    ) -> None:
        """Change the target of a choice.

        Parameters
        ----------
        whole, rows, of
            As for ChosenInputs.
        labels
            Class ids of the target's images, int64 [n]; default: their own.
        features
            Of the target's images, float32 [n, d]; default: their own.
        """
        super().__init__(whole, rows, of=of)
        self._labels, self._moved = labels, features

    @cached_property
    def answers(self) -> Sides[pa.Table]:
        """Stored predictions, the target's as the head gives them after the change."""
        own = ChosenInputs(self.whole, self.rows, of=self._of).answers
        target = own.target
        labels = target["class_id"].to_numpy() if self._labels is None else self._labels
        if self.features is None or self.head is None:  # an import: labels alone can change
            changed = prediction_table(
                self.model, self.target, target["path"].combine_chunks(), labels,
                target["predicted_class_id"].to_numpy(),
                confidence=target["confidence"].combine_chunks(),
            )  # fmt: skip
        else:
            said = heads.predict(self.head, self.features.target, labels)
            changed = prediction_table(
                self.model, self.target, target["path"].combine_chunks(), labels, said.predicted,
                confidence=said.confidence, in_top5=said.in_top5, nll=said.nll,
            )  # fmt: skip
        return Sides(own.reference, changed)

    @cached_property
    def features(self) -> Sides[np.ndarray] | None:
        """Features of the chosen images, the target's moved."""
        own = ChosenInputs(self.whole, self.rows, of=self._of).features
        return own if own is None or self._moved is None else Sides(own.reference, self._moved)

    @cached_property
    def scores(self) -> Sides[np.ndarray] | None:
        """Scores of the chosen images, the target's of the moved features."""
        own = ChosenInputs(self.whole, self.rows, of=self._of).scores
        if own is None or self._moved is None or self.head is None:
            return own
        return Sides(own.reference, heads.scores(self.head, self._moved))


def explore_and_confirm(inputs: Inputs) -> tuple[ChosenInputs, ChosenInputs]:
    """Return both splits' explore halves, and their confirm halves.

    The same images in every process, whatever the model and however many of the images its backbone
    has: half of each class of the split, by path and seed.
    """
    halves = Sides(
        *(
            _explored(inputs, split, paths)
            for split, paths in zip(inputs.splits.pair, inputs.paths.pair, strict=True)
        )
    )
    return (
        ChosenInputs(inputs, halves.map(np.flatnonzero)),
        ChosenInputs(inputs, halves.map(lambda half: np.flatnonzero(~half))),
    )


def _explored(inputs: Inputs, split: str, paths: pa.Array) -> np.ndarray:
    """Whether each image is in the explore half of all images of the split."""
    whole = inputs.database.images(split, look=Look(inputs.model, "gap"))
    half = explore_half(
        whole["class_id"].to_numpy().astype(np.int64),
        path_hashes(whole["path"].to_pylist()),
        seed=SEED,
    )
    place = place_of(paths, whole["path"])
    # what the database no longer has is nobody's to confirm by
    is_gone = place.is_null().to_numpy(zero_copy_only=False)
    return np.asarray(half[place.fill_null(0).to_numpy()] | is_gone)
