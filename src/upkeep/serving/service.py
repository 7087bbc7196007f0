"""Scoring requests: a body in, an answer and predictions for the log out; of HTTP only the status is known here."""

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import orjson

from upkeep.contract.dictionary import load_dictionary
from upkeep.model.explanation import Reason
from upkeep.model.trial import load_scorers
from upkeep.scoring.prediction_log import ModelRole, Prediction, as_prediction, find_services
from upkeep.serving.protocol import MachineRisk
from upkeep.serving.request import Contract, read_request
from upkeep.serving.table import read_table


class Reply(NamedTuple):
    """An answer in JSON with its HTTP status, its predictions, and the number of machines without one."""

    status: int
    content: bytes
    predictions: list[Prediction]
    unanswered: int


class Service:
    """Every plant's model and the data dictionary; an UpkeepError is raised if one is missing or damaged.

    `horizon_hours` is the longest horizon of the models.
    """

    def __init__(self, models: Path, dictionary: Path, role: ModelRole = "champion") -> None:
        self._role: ModelRole = role
        known = load_dictionary(dictionary)
        self.scorers = load_scorers(models)
        self._contracts = {plant: Contract(scorer.model.metadata, known) for plant, scorer in self.scorers.items()}
        self.versions = {plant: scorer.version for plant, scorer in self.scorers.items()}
        self.horizon_hours = max(scorer.model.metadata.dataset.horizon_hours for scorer in self.scorers.values())

    def answer(self, body: bytes, content_type: str, query: Mapping[str, str], request_id: str, source: str) -> Reply:
        """Answer one request: predictions of the machines that can be answered, errors for the others.

        `Refused` is raised if the body is no table, has no rows or no column of machines, or is beyond a limit.
        """
        table = read_table(body, content_type, query)
        requests, errors = read_request(table, self._contracts)
        predictions: list[Prediction] = []
        answers: list[dict[str, Any]] = []
        now = time.time_ns() // 1000
        for plant, request in requests.items():
            scorer = self.scorers[plant]
            scored = scorer.score(request.rows, request.events, request.records)
            services = find_services(request.happened, scorer.model.metadata.dataset.max_repair_hours)
            told = partial(as_prediction, scorer=scorer, source=source, scored_at=now, role=self._role)
            for answer, cautions, inputs in zip(scored, request.cautions, request.inputs, strict=True):
                table.check_time()
                answer.warnings[:0] = cautions
                name = f"{request_id}/{quote(plant, safe='')}/{answer.machine}"
                name += "/challenger" if self._role == "challenger" else ""
                prediction = told(answer, inputs=inputs, identity=name, service=services.get(answer.machine))
                predictions.append(prediction)
                reasons = {"reasons": scorer.explain(answer.features, answer.readings)} if table.reasons else {}
                answers.append(describe_prediction(prediction) | reasons)
        content = orjson.dumps({"predictions": answers, "errors": errors})
        return Reply(200 if answers else 422, content, predictions, len(errors))

    def explain(self, prediction: Prediction) -> list[Reason]:
        """Return the reasons for a prediction, the strongest first; none if its version of the model is not loaded."""
        scorer = self.scorers.get(prediction["plant"])
        if scorer is None or scorer.version != prediction["model_version"]:
            return []
        return scorer.explain(prediction["features"], prediction["readings"])


def describe_prediction(prediction: Prediction) -> dict[str, Any]:
    """Return the fields of a prediction that callers and the page see: those of `MachineRisk` without reasons."""
    shown = {name: prediction[name] for name in MachineRisk.model_fields if name != "reasons"}
    return shown | {"time": to_time(prediction["time"])}


def to_time(microseconds: int) -> datetime:
    """Return the time of microseconds since 1970."""
    return datetime.fromtimestamp(microseconds / 1e6, UTC)
