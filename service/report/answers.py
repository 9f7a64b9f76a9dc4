"""What a report is written from: JSON of endpoints and rows of views, each read once."""

import json
from collections.abc import Callable, Mapping
from datetime import date, datetime
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from etl.database import quoted
from service import trainings
from service.errors import NotFound, ServiceError
from service.evaluations import SEED
from service.gap import PARTS
from service.gap.explaining import Question
from service.hypotheses.registry import Registry
from service.importing import splits_imported
from service.report.numbers import VIEW, Answer, address, parsed_address
from service.schemas import AnnotationOut, ModelCardOut, SplitOut

if TYPE_CHECKING:
    from service.analysis import Analysis


class Answers:
    """The answers about one model between two splits, and what else a report may quote.

    Attributes
    ----------
    model, reference, target : what the report is about
    """

    def __init__(
        self, analysis: "Analysis", model: str, reference: str | None, target: str | None
    ) -> None:
        """Find both ends.

        Raises
        ------
        NotFound, NotATest
        """
        self._analysis = analysis
        question = Question(analysis, model, reference, target)
        self.model, self.reference, self.target = model, question.reference, question.target
        self._found: dict[str, Answer] = {}

    def all(self) -> list[Answer]:
        """Return all answers that were read so far."""
        return list(self._found.values())

    def splits(self) -> Answer:
        """GET /splits."""
        return self._get("/splits", None, None, self._splits)

    def card(self, model: str | None = None) -> Answer:
        """GET /models/{model}."""
        name = model or self.model
        return self._get(f"/models/{name}", name, self._seed_of(name), lambda: self._card(name))

    def leaderboard(self) -> Answer:
        """GET /models/{model}/leaderboard."""
        return self._get(
            f"/models/{self.model}/leaderboard",
            self.model,
            self._seed_of(self.model),
            lambda: _json(trainings.leaderboard(self._analysis.results, self.model)),
        )

    def audit(self) -> Answer:
        """GET /models/{model}/audit."""
        return self._get(
            f"/models/{self.model}/audit",
            self.model,
            None,
            lambda: _json(self._analysis.audit(self.model).answer),
        )

    def gap(self, model: str | None = None) -> Answer:
        """GET /gap/{model}, with its findings and what cannot be told."""
        name = model or self.model
        return self._get(
            self._between(f"/gap/{name}"), name, SEED, lambda: _json(self._explained(name))
        )

    def part(self, part: str) -> Answer:
        """GET /gap/{model}/{part}, which must have been computed.

        Raises
        ------
        NotFound
            It was not.
        """

        def read() -> Any:
            found = self._question(self.model).stored(part)
            if found is None:
                raise NotFound(f"wanted {part} of {self.model!r}, which is not computed. Compute.")
            return json.loads(found)

        return self._get(self._between(f"/gap/{self.model}/{part}"), self.model, SEED, read)

    def answer_of(self, part: str) -> Any:
        """Return a part as the object that its charts are drawn from."""
        return PARTS[part].answer.model_validate(self.part(part).content)

    def hypotheses(self) -> Answer | str:
        """GET /hypotheses, or why it cannot be read."""
        try:
            return self._get(
                "/hypotheses",
                self.model,
                None,
                lambda: _json(Registry(self._analysis.data).all()),
            )
        except ServiceError as error:
            return str(error)

    def annotations(self) -> Answer:
        """GET /annotations."""
        return self._get("/annotations", None, None, self._annotations)

    def self_test(self) -> Answer | None:
        """GET /selftest/{model}, None where there is none of this state of the data."""
        found = self._question(self.model).self_test()
        if found is None:
            return None
        place = address(f"/selftest/{self.model}", reference=self.reference)
        return self._get(place, self.model, found.seed, lambda: _json(found))

    def view(self, name: str, **where: str | int) -> Answer | None:
        """Return the one row of a view with these values, None where there is not just one."""
        place = address(f"{VIEW}{name}", **where)
        rows = rows_of_view(self._analysis, place)
        if len(rows) != 1:
            return None
        split = where.get("split")
        return self._get(place, self.model, None, lambda: rows[0], None if split is None else split)

    def backbone(self) -> str | None:
        """Name of the features that the model reads; None for an imported one."""
        found: str | None = self.card().value("/backbone")
        return found

    def split_row(self, split: str) -> int | None:
        """Place of a split of the model's backbone in the answer of /splits."""
        rows = self.splits().content
        backbone = self.backbone()
        return next(
            (
                i
                for i, row in enumerate(rows)
                if row["split"] == split and row["backbone"] == backbone
            ),
            None,
        )

    def _get(
        self,
        endpoint: str,
        model: str | None,
        seed: int | None,
        read: Callable[[], Any],
        split: str | int | None = None,
    ) -> Answer:
        if endpoint not in self._found:
            digests = self._digests(model or self.model)
            if split is not None:
                digests = {name: sha for name, sha in digests.items() if name == split}
            self._found[endpoint] = Answer(endpoint, read(), digests, seed)
        return self._found[endpoint]

    def _digests(self, model: str) -> dict[str, str]:
        """Digests of the data that numbers about a model rest on: train and both test splits."""
        database, card = self._analysis.database, self._analysis.results.card(model)
        backbone = card["backbone"]
        if backbone is None:
            imported = splits_imported(card)
            found = {name: str(card["imported"]["splits"][name]["sha256"]) for name in imported}
            return {n: sha for n, sha in found.items() if n in (self.reference, self.target)}
        digests: Mapping[str, str] = database.digests(backbone)
        trained = [r["split"] for r in database.splits_of(backbone) if r["role"] == "train"]
        wanted = (*trained, self.reference, self.target)
        return {name: digests[name] for name in wanted if name in digests}

    def _between(self, path: str) -> str:
        return address(path, reference=self.reference, target=self.target)

    def _question(self, model: str) -> Question:
        return Question(self._analysis, model, self.reference, self.target)

    def _seed_of(self, model: str) -> int | None:
        seed: int | None = self._analysis.results.card(model)["seed"]
        return seed

    def _explained(self, model: str) -> Any:
        question = self._question(model)
        return question.explained(question.gap())

    def _card(self, model: str) -> Any:
        card = self._analysis.results.card(model)
        return _json(ModelCardOut(**card, gaps=self._analysis.gaps(model)))

    def _splits(self) -> Any:
        return [_json(SplitOut(**row)) for row in self._analysis.database.splits()]

    def _annotations(self) -> Any:
        return [
            _json(AnnotationOut(**{**row, "origin": PurePath(row["origin"]).name}))
            for row in self._analysis.database.annotations()
        ]


def rows_of_view(analysis: "Analysis", endpoint: str) -> list[dict[str, Any]]:
    """Return the rows of a view that an address names, as JSON has them.

    Raises
    ------
    NotFound
        There is no such view or column.
    """
    path, where = parsed_address(endpoint)
    name = path.removeprefix(VIEW)
    known = analysis.database.rows(
        "select column_name from information_schema.columns where table_name = ?", [name]
    )
    unknown = set(where) - {row["column_name"] for row in known}
    if not known or unknown:
        raise NotFound(
            f"wanted a view and columns of it, got {endpoint!r}. sql/README.md lists them."
        )
    condition = " and ".join(f"{quoted(column)}::varchar = ?" for column in where) or "true"
    rows = analysis.database.rows(
        f"select * from {quoted(name)} where {condition}", list(where.values())
    )
    return [{column: _plain(value) for column, value in row.items()} for row in rows]


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, date | datetime) else value


def _json(answer: Any) -> Any:
    return json.loads(answer.model_dump_json())
