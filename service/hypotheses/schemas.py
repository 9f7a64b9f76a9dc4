"""What is asked and answered about hypotheses."""

from typing import Any, Literal

from pydantic import ConfigDict, Field

from service.schemas import Answer, EstimateOut, ModelName, Params, Request

PRIMARY = "primary"
_Sentence = Field(min_length=1, max_length=2000)


class HypothesisIn(Request):
    """Register a hypothesis before anything of it is scored."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "title": "A stiffer head generalises better",
                    "cause": "The head fits the train rows more closely than new images bear.",
                    "baseline": "pixels-logistic",
                    "refinement": {"kind": "stronger_penalty", "factor": 10},
                }
            ]
        },
    )

    title: str = Field(min_length=1, max_length=200)
    cause: str = Field(min_length=1, max_length=2000, description="Why the gap should be there.")
    baseline: ModelName
    refinement: Params = Field(description="A recipe: {kind, …}; GET /hypotheses/recipes.")
    reference: str | None = Field(None, description="A test split; default: as the load says.")
    target: str | None = Field(None, description="A test split; default: as the load says.")
    endpoint: Literal["gap", "target"] = Field(
        "gap", description="What is foretold: a smaller gap, or more accuracy on the target."
    )
    sided: Literal["one", "two"] = Field(
        "one", description="one: the change of the gap is foretold to be below 0."
    )
    family: str = Field(
        PRIMARY, min_length=1, max_length=100, description="Judged together, by Holm's method."
    )
    images: Literal["confirm", "all"] = Field(
        "confirm",
        description="confirm: the halves that no suggestion saw; all: only where nothing that was "
        "seen of these two test sets suggested it.",
    )
    diagnostic: bool = Field(
        False, description="Needed for recipes that read test inputs: in no family, no better head."
    )
    motivated_by: str | None = Field(None, max_length=2000, description="The finding behind it.")
    contradicted_by: str | None = Field(
        None, max_length=2000, description="What result would speak against the cause."
    )


class SuggestIn(Request):
    """Propose hypotheses about a model."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"model": "pixels-logistic"}]}
    )

    model: ModelName
    reference: str | None = Field(None, description="A test split; default: as the load says.")
    target: str | None = Field(None, description="A test split; default: as the load says.")


class SuggestionsOut(Answer):
    """Hypotheses that findings on the explore halves suggest, ready to be registered."""

    model: str
    reference: str
    target: str
    n: dict[str, int] = Field(description="Images of the explore halves.")
    hypotheses: list[HypothesisIn]
    left_out: list[str] = Field(description="Recipes that were not proposed, and why.")


class RecipeOut(Answer):
    """One word of the vocabulary of refinements."""

    kind: str
    about: str
    use: str = Field(
        description="train; informed by the test sets (a family of its own, judged on the confirm "
        "halves); test inputs (diagnostic alone)."
    )
    params: dict[str, Any] = Field(description="What it takes, with defaults; null: must be given.")


class PairedOut(Answer):
    """Refined minus baseline on one split."""

    change: EstimateOut = Field(description="Of accuracy.")
    gained: int = Field(description="Images that only the refined head has right.")
    lost: int = Field(description="Images that only the baseline has right.")
    p_value: float = Field(description="McNemar's exact test, two-sided.")


class ResultOut(Answer):
    """What came of a test, judged with the family as it is now."""

    model: str | None = Field(description="The refined head; null for diagnostics.")
    scored_at: str
    accuracy: dict[str, list[float]] = Field(description="Per split: baseline, refined.")
    gap_change: EstimateOut = Field(description="Refined minus baseline: below 0, it is smaller.")
    paired: dict[str, PairedOut]
    distance_change: EstimateOut = Field(
        description="Of the height above the line, in probit: above 0, it is better."
    )
    p_value: float = Field(description="That the gap does not change, as sided; unadjusted.")
    p_adjusted: float | None = Field(description="Of the endpoint, by Holm's method.")
    p_adjusted_of_all: float | None = Field(
        description="The same if all families of this use on these two splits were one."
    )
    p_same: float = Field(description="TOST: that the gap changes by 0.3 points or more.")
    smallest_effect: float | None = Field(
        description="Change of the gap that would have been found in 4 of 5 tries at the level of "
        "the family's strictest test."
    )
    confirmed: bool | None = Field(description="Whether the endpoint came as foretold.")
    verdicts: list[str]
    sentence: str


class HypothesisOut(Answer):
    """A registered hypothesis, and what came of it."""

    id: str = Field(description="The beginning of its sha256.")
    sha256: str
    registered_at: str
    title: str
    cause: str
    baseline: str
    reference: str
    target: str
    refinement: dict[str, Any]
    in_words: str = Field(description="The refinement as one line.")
    use: str
    endpoint: str
    sided: str
    family: str | None = Field(description="Null for diagnostics.")
    n_family: int | None = Field(description="Hypotheses registered in it.")
    images: str
    line: str | None = Field(description="Published models that distance is measured from.")
    motivated_by: str | None
    contradicted_by: str | None
    n_looks_before: int | None = Field(
        description="Reads of the target's labels, with any model or in SQL, before it was "
        "registered; null in old records."
    )
    state: Literal["registered", "tested"]
    result: ResultOut | None


class HypothesesOut(Answer):
    """All hypotheses, oldest first."""

    hypotheses: list[HypothesisOut]
    head: str = Field(description="sha256 of the newest record: put it into the report.")
    summary: list[str]
