"""A request's bytes in, an answer and what is logged of it out; nothing in here knows of HTTP but the status."""

import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from upkeep.contract.dictionary import load_dictionary
from upkeep.core.types import Floats32
from upkeep.model.scoring import Answer, Scorer, load_scorers
from upkeep.serving.request import PlantRequest, read_contract, read_request
from upkeep.serving.table import Refused, read_table

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Reply(NamedTuple):
    """What a request gets.

    Attributes
    ----------
    body
        ``predictions`` and ``errors``, ready for JSON.
    predictions
        As `upkeep.scoring.prediction_log` describes them, for the log and the page.
    """

    status: int
    body: dict[str, Any]
    predictions: list[dict[str, Any]]


class Service:
    """Every plant's model and the data dictionary.

    Raises
    ------
    UpkeepError
        If a model or the dictionary is missing or damaged: a service that is not sure does not start.
    """

    def __init__(self, models: Path, dictionary: Path) -> None:
        known = load_dictionary(dictionary)
        self.scorers: Mapping[str, Scorer] = load_scorers(models, known)
        self._contracts = {plant: read_contract(scorer.model.card, known) for plant, scorer in self.scorers.items()}

    @property
    def versions(self) -> dict[str, str]:
        """Version of each plant's model."""
        return {plant: scorer.version for plant, scorer in self.scorers.items()}

    @property
    def horizon_hours(self) -> int:
        """How far ahead the models look; the farthest, should plants differ."""
        return max(scorer.model.card.dataset.horizon_hours for scorer in self.scorers.values())

    def answer(
        self, body: bytes, content_type: str, query: Mapping[str, str], request_id: str, source: str = "api"
    ) -> Reply:
        """Answer one request: each machine that can be answered, and why the others cannot.

        Parameters
        ----------
        request_id, source
            What the log says of where the predictions come from.
        """
        try:
            table = read_table(body, content_type, query)
            requests, faults = read_request(table, self._contracts)
        except Refused as refused:
            return Reply(refused.status, {"predictions": [], "errors": [refused.fault]}, [])
        predictions: list[dict[str, Any]] = []
        answers: list[dict[str, Any]] = []
        for plant, request in requests.items():
            scorer = self.scorers[plant]
            scored = scorer.score(request.rows, request.events, request.records)
            answers += (
                _describe(plant, scorer, answer, cautions, table.reasons)
                for answer, cautions in zip(scored, request.cautions, strict=True)
            )
            predictions += _to_log(plant, scorer, scored, request, request_id, source)
        errors = [{**fault._asdict(), "pointer": table.point(fault.row, fault.column)} for fault in faults]
        return Reply(200 if answers else 422, {"predictions": answers, "errors": errors}, predictions)

    def explain(self, plant: str, model_version: str, features: Floats32) -> list[dict[str, Any]]:
        """Return the reasons for a score of this model version, the strongest first; none if it is not loaded."""
        scorer = self.scorers.get(plant)
        return scorer.explain(features) if scorer and scorer.version == model_version else []


def _describe(plant: str, scorer: Scorer, answer: Answer, cautions: Sequence[Any], reasons: bool) -> dict[str, Any]:
    described: dict[str, Any] = {
        "plant": plant,
        "machine": answer.machine,
        "time": (EPOCH + timedelta(microseconds=answer.time)).isoformat(),
        "probability": answer.probability,
        "alarm": answer.alarm,
        "threshold": scorer.model.card.threshold,
        "model_version": scorer.version,
        "warnings": [*cautions, *answer.warnings],
    }
    if reasons:
        described["reasons"] = scorer.explain(answer.features)
    return described


def _to_log(
    plant: str, scorer: Scorer, answers: Iterable[Answer], request: PlantRequest, request_id: str, source: str
) -> list[dict[str, Any]]:
    now = time.time_ns() // 1000
    return [
        {
            "id": f"{request_id}/{plant}/{answer.machine}",
            "source": source,
            "scored_at": now,
            "plant": plant,
            "machine": answer.machine,
            "time": answer.time,
            "probability": answer.probability,
            "threshold": scorer.model.card.threshold,
            "alarm": answer.alarm,
            "model_version": scorer.version,
            "warnings": [*cautions, *answer.warnings],
            "maintained_at": answer.maintained_at,
            "maintenance_code": answer.maintenance_code,
            "features": answer.features,
            "inputs": inputs,
        }
        for answer, cautions, inputs in zip(answers, request.cautions, request.inputs, strict=True)
    ]
