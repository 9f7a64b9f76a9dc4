"""How often an explainer's findings are false, and how often it finds what is planted: a self-test.

    results/<model>/selftest.<reference>.json    the last self-test of a model on a reference

It is of one state of the data; in another one it counts for nothing, and the next takes its place.
"""

import hashlib
import json
import uuid
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import Field

from etl.database import RESULTS
from service.schemas import Answer

FORMAT = 2  # raise it whenever explainers, placebos or plantings change
LEVEL = 0.05  # share of placebos with a finding that an honest explainer may have


class RateOut(Answer):
    """A share of runs with its exact binomial interval."""

    rate: float | None = Field(description="Null where no run could tell.")
    low: float | None
    high: float | None
    n: int = Field(description="Runs.")
    reason: str | None = Field(None, description="Why it is null.")


class PowerOut(Answer):
    """How often an explainer names a planted cause first, at one size of the gap."""

    cause: str
    finding: str | None = Field(description="Name of the finding that is right; null for any.")
    wanted: float = Field(description="Gap that was to be planted, a fraction of accuracy.")
    planted: float | None = Field(description="Mean of the planted gaps.")
    first: RateOut = Field(description="The right finding is the explainer's largest.")
    covered: RateOut = Field(description="The 95 % interval of its size holds the planted gap.")
    n_out_of_reach: int = Field(description="Runs in which no strength made such a gap.")


class ExplainerOut(Answer):
    """One explainer: a part of /gap whose findings are told."""

    explainer: str
    false_alarm: RateOut = Field(description="Placebos on which it has a finding.")
    trusted: bool | None = Field(
        description="False where the interval of its false alarms lies above .05; null with fewer "
        "than 20 placebos."
    )
    sentence: str
    false_findings: dict[str, int] = Field(description="What they were, and how often.")
    power: list[PowerOut]
    seconds_s: float | None = Field(description="Mean time of one run.")


class SelfTestOut(Answer):
    """Each explainer on sets made of the reference: placebos, and gaps of known cause."""

    model: str
    reference: str
    created_at: datetime
    seed: int
    budget_s: float
    seconds_s: float = Field(description="Time that it took.")
    n_placebos: int = Field(description="Placebos that the budget bought, of 200 wanted.")
    n_plantings: int
    n_images: dict[str, int] = Field(description="Images of each set that was made.")
    explainers: list[ExplainerOut]
    left_out: list[str] = Field(description="Explainers and causes that were not tried, and why.")
    summary: list[str]


def state_key(state: dict[str, Any]) -> str:
    """Return the key of a state of data and model."""
    text = json.dumps([FORMAT, state], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _file(data: Path, model: str, reference: str) -> Path:
    return data / RESULTS / model / f"selftest.{reference}.json"


def keep(data: Path, key: str, found: SelfTestOut) -> None:
    """Keep a self-test under the state that it is of; a model that is gone keeps none."""
    file = _file(data, found.model, found.reference)
    text = json.dumps({"key": key, "selftest": json.loads(found.model_dump_json())})
    new = file.with_name(f".{file.name}.{uuid.uuid4().hex[:8]}")
    if not file.parent.is_dir():
        return
    try:
        new.write_text(text, encoding="utf-8")
        new.replace(file)
    finally:
        new.unlink(missing_ok=True)


def kept(data: Path, model: str, reference: str, key: str) -> SelfTestOut | None:
    """Return the self-test of a model on a reference in this state, or None."""
    try:
        found = json.loads(_file(data, model, reference).read_text(encoding="utf-8"))
        return SelfTestOut(**found["selftest"]) if found["key"] == key else None
    except (FileNotFoundError, ValueError, TypeError, KeyError):  # none, or damaged: tested anew
        return None


def in_words(one: ExplainerOut) -> str:
    """Say what a self-test shows of an explainer's false alarms."""
    rate = one.false_alarm
    if rate.rate is None or rate.low is None or rate.high is None:
        return f"{one.explainer}: not tested here ({rate.reason})."
    share = (
        f"findings in {rate.rate:.1%} of {rate.n} splits without any cause (exact 95 % interval "
        f"{rate.low:.1%} to {rate.high:.1%})"
    )
    if rate.low > LEVEL:
        return f"{one.explainer}: {share}: untrustworthy here, more than {LEVEL:.0%} are false."
    return f"{one.explainer}: {share}."
