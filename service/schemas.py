"""The JSON of requests and answers; charts are drawn from the same objects."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    FailFast,
    Field,
    GetJsonSchemaHandler,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from models.estimate import Estimate
from models.gap import GapReport
from models.gap.scores import Scores
from service.sentences import NO_FEATURES, in_words

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"  # of a model: it is a folder and an address
ModelName = Annotated[str, Field(pattern=NAME)]
# a head that is trained here, or `sklearn:` and the name of a classifier of scikit-learn
HeadName = Annotated[str, Field(pattern=r"^(sklearn:)?[A-Za-z_]{1,60}$")]
JobKind = Literal["train", "hypothesis", "explain", "mask", "suggest", "selftest", "report"]
Finite = Annotated[float, Field(allow_inf_nan=False)]
LARGEST = 2**53 - 1  # whole numbers beyond it are not the same to every reader of JSON
# cards and logs hold UTC without saying so
Moment = Annotated[
    datetime, AfterValidator(lambda at: at if at.tzinfo is not None else at.replace(tzinfo=UTC))
]


def _check_length(params: dict[str, Any]) -> dict[str, Any]:
    """Refuse parameters that are no parameters: each look at the queue reads those of all jobs."""
    n_bytes = len(json.dumps(params, ensure_ascii=False).encode())  # half a character: ValueError
    if n_bytes > _PARAMS_BYTES:
        raise ValueError(f"wanted at most {_PARAMS_BYTES:,} bytes, got {n_bytes:,}")
    return params


_PARAMS_BYTES = 20_000
Params = Annotated[dict[str, Any], AfterValidator(_check_length)]


class Answer(BaseModel):
    """Base of all answers: immutable, and never a NaN."""

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="null", protected_namespaces=())

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Promise that an answer holds nothing but what is described."""
        found = handler(core_schema)
        handler.resolve_ref_schema(found)["additionalProperties"] = False
        return found


class Request(BaseModel):
    """Base of all requests: an unknown field is refused, not ignored."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class EstimateOut(Answer):
    """A number with its interval; what cannot be known is null with a reason."""

    estimate: float | None
    low: float | None
    high: float | None
    level: float
    method: str
    n: dict[str, int] = Field(description="Images of each set that took part.")
    unit: str
    seed: int | None
    reason: str | None = Field(description="Why the estimate is null.")

    @classmethod
    def of(cls, estimate: Estimate, names: Mapping[str, str] | None = None) -> "EstimateOut":
        """Take over an estimate; `names` renames its sets to the splits' names."""
        names = names or {}
        n = {names.get(key, key): value for key, value in estimate.n.items()}
        return cls(
            estimate=estimate.estimate,
            low=estimate.low,
            high=estimate.high,
            level=estimate.level,
            method=estimate.method,
            n=n,
            unit=estimate.unit,
            seed=estimate.seed,
            reason=estimate.reason,
        )


class TrainIn(Request):
    """Train a head on the train rows of a backbone."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"name": "first", "backbone": "pixels", "head": "logistic", "seed": 0}]
        },
    )

    backbone: str
    head: HeadName = "logistic"
    seed: int = Field(ge=0, le=LARGEST, description="Of the folds; the same seed, the same model.")
    name: ModelName | None = Field(None, description="Default: <backbone>-<head>, numbered.")
    params: Params = Field(
        default_factory=dict,
        description='Of the head, such as {"C": 0.1} for logistic; a list where values are to be '
        'compared; {"budget_s": 600} for auto. Default: a grid. README lists them.',
    )
    resume: bool = Field(
        True,
        description="Whether it goes on by itself, twice at most, when its worker or the service "
        "dies. Where not, it is interrupted then, until POST /jobs/{job}/resume.",
    )


class TrainOut(Answer):
    """The job that was queued, and the name of the model that it will make."""

    job: str
    model: str


class JobOut(Answer):
    """How far a job is."""

    job: str
    kind: JobKind = Field(
        description="train and hypothesis make the model; the others compute an answer about it, "
        "or write a report."
    )
    model: str
    state: Literal["queued", "running", "done", "failed", "cancelling", "cancelled", "interrupted"]
    progress: float = Field(ge=0, le=1)
    message: str
    error: str | None
    created_at: Moment
    finished_at: Moment | None


class CandidateOut(Answer):
    """One setting of a head's parameters, on rows that it was not fitted on."""

    head: str | None = Field(None, description="Null in cards of before heads were compared.")
    params: dict[str, Any] | None = Field(None, description="Null where head is.")
    top1: float
    nll: float
    temperature: float
    n_fit: int | None = Field(None, description="Rows that it was fitted on.")
    note: str = ""


class RankedOut(CandidateOut):
    """A candidate and its place among the others."""

    setting: str = Field(description="Its parameters in words.")
    is_best: bool = Field(
        description="Most accurate of its head, of those fitted on the most rows; "
        "ties go to the lower NLL."
    )
    is_chosen: bool = Field(description="Its parameters are the model's.")


class LeaderboardOut(Answer):
    """What was tried in a training, on held-out train rows alone."""

    model: str
    head: str = Field(description="Kind of head that the model is.")
    method: str | None = Field(description="How the rows were held out.")
    notes: list[str] = Field(description="What users should know of the training.")
    candidates: list[RankedOut] = Field(
        description="Those fitted on the most rows first, then the most accurate."
    )
    reason: str | None = Field(description="Why candidates is empty.")


class StoredCurve(Answer):
    """How one fit went, step by step, as it is stored."""

    head: str
    params: dict[str, Any]
    stage: str = Field(description="On which rows it was fitted.")
    loss: list[float | None] = Field(
        description="After each step: mean loss of its rows with the penalty, in nats."
    )
    monitored: list[float | None] = Field(
        description="After each step: NLL in nats of the rows that it may be stopped by; "
        "null where it was not measured."
    )


class CurveOut(StoredCurve):
    """How one fit went, step by step."""

    setting: str = Field(description="Its parameters in words.")
    role: Literal["final", "chosen", "other"] = Field(
        description="final: what the model holds, fitted on all train rows; chosen: the same "
        "parameters on some of them; other: parameters that were not chosen."
    )


class CurvesOut(Answer):
    """How the fits of a training went."""

    model: str
    curves: list[CurveOut] = Field(description="In the order in which they were made.")
    reason: str | None = Field(description="Why curves is empty.")


class ValidationOut(Answer):
    """How the hyper-parameters were chosen, on train rows alone."""

    method: str
    top1: EstimateOut
    candidates: list[CandidateOut]


class ImportedSplitOut(Answer):
    """One file of imported predictions."""

    file: str = Field(description="Name of the file with the predictions.")
    sha256: str
    n_rows: int = Field(description="Rows in the file.")
    n_repeated: int = Field(description="Rows that say again what another says.")
    n_matched: int = Field(description="Images that the database knew.")
    n_new: int = Field(description="Images that were added to it, without features.")
    n_ambiguous: int = Field(description="Rows that fit several images; left out.")
    has_top5: bool
    has_confidence: bool


class ImportOut(Answer):
    """Where the predictions of a model that was trained elsewhere come from."""

    splits: dict[str, ImportedSplitOut]
    learnt_from: str = Field(description="What is known of the images that it learnt from.")


class GivenOut(Answer):
    """Where the weights of a native head come from."""

    file: str
    sha256: str
    weight: list[str] = Field(description="Tensors in the file; of several, the mean.")
    bias: list[str]
    learnt_from: str = Field(description="What is known of the images that it learnt from.")


class InterpolatedOut(Answer):
    """The two models that a head lies between: (1 - alpha) · A + alpha · B."""

    model_a: str
    model_b: str
    learnt_from: str


class TrainRowsOut(Answer):
    """Which rows a model learnt from: their hashes lie beside the card."""

    digest: str = Field(description="sha256 over the hashes and folds of all rows.")
    n_fit: int = Field(description="Rows that the head was fitted on.")
    n_selection: int = Field(description="Rows held out in turn to choose hyper-parameters by.")
    splits: list[str] = Field(description="Splits that they came from.")


class LeftOutOut(Answer):
    """Train rows that a model was kept from learning from."""

    n: int
    why: str | None


class ModelOut(Answer):
    """A model card; of a model not trained here, what only training here tells is null."""

    model: str
    backbone: str | None = Field(description="Null for an imported model.")
    head: str = Field(
        description="Kind of head; imported: trained elsewhere; native: weights that were given; "
        "interpolated: between two others."
    )
    params: dict[str, Any]
    seed: int | None
    n_train: int | None
    n_classes: int
    n_features: int | None
    validation: ValidationOut | None
    train_sha256: list[str] = Field(description="Digests of the train files that it learnt from.")
    seconds_s: float | None
    created_at: Moment
    imported: ImportOut | None = Field(None, description="Null for a model trained here.")
    given: GivenOut | None = Field(None, description="Null but for a native head.")
    interpolated: InterpolatedOut | None = Field(None, description="Null but for such a head.")
    rows: TrainRowsOut | None = Field(None, description="Null where it was not stored.")
    head_sha256: str | None = Field(None, description="Digest of the stored head's file.")
    left_out: LeftOutOut | None = Field(None, description="Null where no train row was left out.")
    notes: list[str] = Field([], description="What users should know of the training.")


class RetrainingOut(Answer):
    """Accuracy of a native head minus accuracy of this model on the same images."""

    native: str
    split: str
    difference: EstimateOut = Field(description="Positive: this model is worse.")
    n_native_only: int | None = Field(description="Images that only the native head has right.")
    n_retrained_only: int | None = Field(description="Images that only this model has right.")
    p_value: float | None = Field(description="McNemar's exact test, two-sided.")


class GapsOut(Answer):
    """Three gaps of a model; from what is stored, so null until it is evaluated."""

    model: str
    backbone: str | None
    reference: str | None
    target: str | None
    memorisation: EstimateOut = Field(
        description="Internal validation minus accuracy on the reference."
    )
    replication: EstimateOut = Field(description="The gap: reference minus target.")
    retraining: list[RetrainingOut] = Field(
        description="Native head minus this model, for each native head and test split."
    )
    retraining_reason: str | None = Field(description="Why retraining is empty.")
    summary: list[str]


class ModelCardOut(ModelOut):
    """A model card with the model's three gaps."""

    gaps: GapsOut


class InterpolateIn(Request):
    """Make a head between two linear heads of one backbone: (1 - alpha) · A + alpha · B."""

    model_config = ConfigDict(
        extra="forbid",
        protected_namespaces=(),
        json_schema_extra={
            "examples": [
                {
                    "model_a": "pixels-logistic",
                    "model_b": "pixels-logistic",
                    "alpha": 0.5,
                    "name": "between",
                }
            ]
        },
    )

    model_a: ModelName
    model_b: ModelName
    alpha: float = Field(0.5, ge=0, le=1, description="0 gives A, 1 gives B.")
    name: ModelName


class SplitOut(Answer):
    """One split in the features of one backbone, or its images that came without features."""

    split: str
    role: Literal["train", "test"]
    backbone: str | None = Field(
        description="Null: images that came with predictions, without features."
    )
    n_images: int
    n_classes: int
    n_features: int
    is_reference: bool


class CovariateOut(Answer):
    """One covariate on one split: how many images have it, and how it spreads."""

    name: str
    split: str
    n_images: int
    share_images: float = Field(description="Share of the split's images that have a value.")
    mean_value: float | None = Field(description="Null for texts.")
    sd_value: float | None
    min_value: float | None
    max_value: float | None
    n_categories: int = Field(description="Different texts; 0 for numbers.")


class PublishedLineOut(Answer):
    """Accuracies of published models on two splits, as attached."""

    name: str
    reference: str
    target: str
    n: int = Field(description="Models.")
    least_accuracy: float = Field(description="On the reference.")
    most_accuracy: float = Field(description="On the reference.")


class AnnotationOut(Answer):
    """What was attached to the images under one name."""

    model_config = ConfigDict(
        frozen=True,
        ser_json_inf_nan="null",
        json_schema_extra={
            "examples": [
                {
                    "source": "human",
                    "origin": "human.csv",
                    "created_at": "2026-11-24T12:00:00Z",
                    "n_rows": 6000,
                    "n_matched": 6000,
                    "n_ambiguous": 0,
                    "n_unmatched": 0,
                    "n_repeated": 0,
                    "n_not_finite": 0,
                    "covariates": [
                        {
                            "name": "human_agreement",
                            "split": "test1",
                            "n_images": 5000,
                            "share_images": 1.0,
                            "mean_value": 0.952,
                            "sd_value": 0.096,
                            "min_value": 0.0,
                            "max_value": 1.0,
                            "n_categories": 0,
                        }
                    ],
                }
            ]
        },
    )

    source: str
    origin: str = Field(description="Name of the file, or what else it was made from.")
    created_at: Moment
    n_rows: int = Field(description="Rows in the file: matched, ambiguous or unmatched.")
    n_matched: int
    n_ambiguous: int = Field(description="Rows that fit several images; none was taken.")
    n_unmatched: int
    n_repeated: int = Field(description="Matched rows that say again what another says.")
    n_not_finite: int = Field(description="Cells that held no finite number and are null.")
    covariates: list[CovariateOut]


class EvaluateIn(Request):
    """Score a model on test splits."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"model": "pixels-logistic"}]}
    )

    model: ModelName
    splits: list[str] | None = Field(None, min_length=1, description="Default: all test splits.")


class SelfTestIn(Request):
    """Try the explainers on sets made of a model's reference, whose gap and its cause are known."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"model": "pixels-logistic"}]}
    )

    model: ModelName
    reference: str | None = Field(None, description="A test split; default: as the load says.")
    budget_s: float = Field(900.0, ge=1, le=86_400, description="Time for it.")
    seed: int = Field(0, ge=0, le=LARGEST, description="Of the sets.")


class ScoresOut(Answer):
    """What a model is worth on one test split."""

    n: int
    top1: EstimateOut
    top5: EstimateOut
    nll: EstimateOut
    ece: EstimateOut

    @classmethod
    def of(cls, scores: Scores, split: str) -> "ScoresOut":
        """Take over the scores of one split."""
        name = {"images": split}
        return cls(
            n=scores.n,
            top1=EstimateOut.of(scores.top1, name),
            top5=EstimateOut.of(scores.top5, name),
            nll=EstimateOut.of(scores.nll, name),
            ece=EstimateOut.of(scores.ece, name),
        )


class GapScoreOut(Answer):
    """Accuracy on the reference minus accuracy on the target; positive: worse on the target."""

    reference: str
    target: str
    top1: EstimateOut


class EvaluationOut(Answer):
    """Scores of a model on test splits, and the gap between the default two of them."""

    model: str
    backbone: str | None
    splits: dict[str, ScoresOut]
    gap: GapScoreOut | None
    gaps: GapsOut


class ClassGapOut(Answer):
    """One class on both test splits."""

    class_id: int
    class_name: str
    n_reference: int
    n_target: int
    accuracy_reference: float | None
    accuracy_target: float | None
    raw: float | None = Field(description="Raw gap; with few images mostly chance.")
    shrunken: EstimateOut
    p_exceeds: float | None = Field(description="Posterior probability: above the common gap.")
    q_value: float | None = Field(description="Test against the common gap, adjusted for all.")


class FeatureShiftOut(Answer):
    """How one feature differs between the two splits, and how much the head leans on it."""

    feature_id: int
    feature_name: str
    ks: float
    wasserstein: float | None
    mean_difference: EstimateOut
    mean_difference_within_classes: EstimateOut
    p_value: float | None = Field(description="Adjusted for looking at all features.")
    head_weight: float
    relevance: float = Field(
        description="Absolute shift within classes in train standard deviations × head_weight; "
        "0, and last, where the feature is nearly constant over the train rows."
    )


class ClassShiftOut(Answer):
    """How far the features of one class moved; compare with what chance alone gives."""

    class_id: int
    class_name: str
    n_reference: int
    n_target: int
    rms_mean_difference: float | None
    rms_by_chance: float | None
    variance_ratio: float | None


class ClassModelOut(Answer):
    """The fit behind the shrunken class gaps."""

    a: float
    b: float
    s: float
    lr: float


class GapOut(Answer):
    """Why a model scores lower on one test split than on another."""

    model: str
    backbone: str | None
    reference: str
    target: str
    accuracy: dict[str, EstimateOut]
    gap: EstimateOut
    gap_within_classes: EstimateOut
    label_shift: float | None = Field(description="Part of the gap that the class mix makes.")
    summary: list[str] = Field(description="What the numbers say, in sentences.")
    class_model: ClassModelOut | None
    classes: list[ClassGapOut] = Field(description="Largest shrunken gap first.")
    n_features: int | None
    features: list[FeatureShiftOut] | None = Field(description="Largest relevance first.")
    class_shift: list[ClassShiftOut] | None
    features_reason: str | None = Field(
        None, description="Why n_features, features and class_shift are null."
    )


class PartOut(Answer):
    """Base of the parts of an answer to "why this gap"."""

    model: str
    reference: str
    target: str
    summary: list[str] = Field(description="What the numbers say, in sentences.")
    seconds_s: float | None = Field(None, description="What it took to compute.")


class PairOut(Answer):
    """A test row beside the train row that is, or may be, a copy of it."""

    test_split: str
    test_path: str
    train_path: str
    distance: float | None = Field(
        None, description="1 − cosine of the standardised features; null where paths tell."
    )


class CheckOut(Answer):
    """One check of an audit."""

    name: str
    proves: str = Field(description="What is proved where it passed.")
    passed: bool | None = Field(description="Null: it cannot be proved, for the reason given.")
    count: int = Field(description="Test rows found.")
    sentence: str
    examples: list[PairOut]


class AuditOut(Answer):
    """Whether any test row took part in a model."""

    model: str
    backbone: str | None
    passed: bool | None = Field(description="True: all checks passed; null: one proves nothing.")
    n_train: int | None = Field(description="Rows that it learnt from; null where unknown.")
    n_test: int = Field(description="Test rows that they were held against.")
    checks: list[CheckOut]
    closest: list[PairOut] = Field(description="The closest pairs, found to be copies or not.")


class LookOut(Answer):
    """One read of test labels."""

    looked_at: Moment = Field(description="UTC.")
    who: str
    model: str | None
    split: str | None = Field(description="Null: any of them.")
    purpose: str
    n: int | None = Field(description="Labels read; null: all that there are.")


class PredictIn(Request):
    """Rows of features to classify."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"model": "pixels-logistic", "features": [[0.0] * 64]}]},
    )

    model: ModelName
    # the first fault ends it: each fault takes a thousand times the bytes of the value
    features: Annotated[list[Annotated[list[Finite], FailFast()]], FailFast()] = Field(
        min_length=1, max_length=10_000
    )


class PredictOut(Answer):
    """Class of each row, and the probability of every class in the order of `class_ids`."""

    model: str
    class_ids: list[int]
    class_names: list[str]
    classes: list[int]
    names: list[str]
    probabilities: list[list[float]]


class ProbabilityOut(Answer):
    """How probable one class is."""

    class_id: int
    class_name: str
    probability: float


class PredictImageOut(Answer):
    """Class of one image."""

    model: str
    backbone: str
    n_features: int = Field(description="Numbers that the backbone made of the image.")
    class_id: int
    class_name: str
    top5: list[ProbabilityOut] = Field(description="The most probable classes, best first.")
    probabilities: list[ProbabilityOut] | None = Field(
        description="All classes, best first, where they are asked for."
    )


class HealthOut(Answer):
    """The process answers."""

    status: Literal["ok"] = "ok"


class ReadyOut(Answer):
    """Whether the service can do its work."""

    ready: bool
    database: bool = Field(description="There is one, and it can be opened.")
    worker: bool = Field(description="It runs, and gave a sign of life in the last 30 seconds.")
    disk: bool = Field(description="At least 1 GB is free where the data are.")
    stopping: bool = Field(description="The service was told to stop, and takes no new requests.")
    damaged: list[str] = Field(
        [], description="Files found damaged at start, and models set aside, in words."
    )


class Problem(Answer):
    """A refusal, as application/problem+json (RFC 9457)."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str
    request: str | None = None


def gap_out(
    report: GapReport,
    *,
    model: str,
    backbone: str | None,
    reference: str,
    target: str,
    accuracy: dict[str, EstimateOut],
    class_names: Mapping[int, str],
    feature_names: Sequence[str] = (),
    class_shift: Sequence[dict[str, Any]] = (),
    n_unknown: Sequence[int] = (0, 0),
    train_changed: bool = False,
) -> GapOut:
    """Turn a gap report and the names of things into the answer of GET /gap."""
    names = {"reference": reference, "target": target}
    classes = [
        ClassGapOut(
            class_id=c.class_id,
            class_name=class_names.get(c.class_id, str(c.class_id)),
            n_reference=c.n_reference,
            n_target=c.n_target,
            accuracy_reference=c.accuracy_reference,
            accuracy_target=c.accuracy_target,
            raw=c.raw,
            shrunken=EstimateOut.of(c.shrunken, names),
            p_exceeds=c.p_exceeds,
            q_value=c.q_value,
        )
        for c in report.classes
    ]
    features = (
        None
        if report.features is None
        else [
            FeatureShiftOut(
                feature_id=f.feature_id,
                feature_name=feature_names[f.feature_id],
                ks=f.ks,
                wasserstein=f.wasserstein,
                mean_difference=EstimateOut.of(f.mean_difference, names),
                mean_difference_within_classes=EstimateOut.of(
                    f.mean_difference_within_classes, names
                ),
                p_value=f.p_value,
                head_weight=f.head_weight,
                relevance=f.relevance,
            )
            for f in report.features
        ]
    )
    m = report.class_model
    return GapOut(
        model=model,
        backbone=backbone,
        reference=reference,
        target=target,
        accuracy=accuracy,
        gap=EstimateOut.of(report.gap, names),
        gap_within_classes=EstimateOut.of(report.gap_within_classes, names),
        label_shift=report.label_shift,
        summary=in_words(
            report,
            model,
            reference,
            target,
            class_names,
            n_unknown,
            feature_names=feature_names,
            train_changed=train_changed,
        ),
        class_model=None if m is None else ClassModelOut(a=m.a, b=m.b, s=m.s, lr=m.lr),
        classes=classes,
        n_features=None if features is None else len(features),
        features=features,
        class_shift=None if features is None else [ClassShiftOut(**row) for row in class_shift],
        features_reason=NO_FEATURES if features is None else None,
    )
