"""Scoring: one plant's tables in, an answer per machine out, with warnings where it is less reliable."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from typing_extensions import TypedDict  # pydantic, which describes these to the service's clients, asks for it

from upkeep.core.errors import UpkeepError
from upkeep.core.paths import MODEL_METADATA
from upkeep.core.plants import name_file
from upkeep.core.types import Floats, Floats32, Ints, measure_rows
from upkeep.features.definition import newest_features
from upkeep.features.inputs import UNKNOWN, Events, MachineRecord, Telemetry
from upkeep.features.windows import HOUR, to_microseconds
from upkeep.model.explanation import READINGS, Explainer, Reason, summarise_readings
from upkeep.model.storage import SavedModel, checksum, contributions, load_model, predict

VERSION_DIGITS = 12
ENOUGH_HISTORY = 0.9  # share of the widest window that rows must cover; hourly rows never cover the whole of it

RANGE_LEFT = "training_range_left"  # code of the warning that a feature lies outside its training range

RANGES_NAMED = 3  # features outside their training range that a warning names


class Caution(TypedDict):
    """A reason to trust an answer less, and the column to blame, None if there is none."""

    code: str
    message: str
    column: str | None


class Answer(NamedTuple):
    """What the model says of one machine at its newest row.

    `time` is in microseconds since 1970. Features are in the model's order, shape (n_features,), NaN where one is
    unknown; readings are those that :func:`~upkeep.model.explanation.summarise_readings` returns, made flat.
    """

    machine: str
    time: int
    probability: float
    alarm: bool
    warnings: list[Caution]
    features: Floats32
    readings: Floats32


class Scorer:
    """One plant's saved model, ready to answer.

    `version` is the first digits of the checksum of the model's metadata, which holds those of its boosters.
    """

    def __init__(self, model: SavedModel, version: str) -> None:
        metadata = model.metadata
        self.model, self.version, self.vocabulary = model, version, metadata.preparation.vocabulary
        self.explainer = Explainer(metadata.preparation, metadata.dataset)
        taken, made = metadata.features, [feature.name for feature in self.explainer.features]
        if made != taken:
            raise UpkeepError(
                f"the model takes {len(taken)} features, its preparation makes {len(made)} in another order",
                remedy="train the model again, or use the version of upkeep that wrote it",
                plant=metadata.plant,
            )
        # What is made of readings comes first; counters leave their training range by the mere passing of time.
        self._ranged = [feature for feature in self.explainer.features if feature.kind in READINGS]
        ranges = [metadata.training_ranges[feature.name] for feature in self._ranged]
        self._low = np.array([found.minimum for found in ranges], dtype=np.float64)
        self._high = np.array([found.maximum for found in ranges], dtype=np.float64)

    def score(self, rows: Telemetry, events: Events, records: Mapping[str, MachineRecord]) -> list[Answer]:
        """Return an answer per machine, in their order; `records` take precedence over those saved with the model."""
        metadata = self.model.metadata
        stored = metadata.preparation.records
        known = {name: _merge(records.get(name, UNKNOWN), stored.get(name, UNKNOWN)) for name in rows.machines}
        features = newest_features(rows, events, known, metadata.preparation, metadata.dataset)
        probabilities = predict(self.model, features).tolist()
        readings, answers = self.read(rows), []
        for index, (name, span) in enumerate(rows.by_machine()):
            time = rows.time[span]
            warnings = [*self._judge_rows(name, time, rows.readings[span]), *self._judge_range(features[index])]
            alarm = probabilities[index] >= metadata.threshold
            answer = name, int(time[-1]), probabilities[index], alarm, warnings, features[index], readings[index]
            answers.append(Answer(*answer))
        return answers

    def read(self, rows: Telemetry) -> Floats32:
        """Return what :meth:`explain` needs of readings, an array per machine."""
        found = summarise_readings(rows, self.model.metadata.preparation, self.model.metadata.dataset)
        return found.reshape(len(rows.machines), -1)

    def explain(self, features: Floats32, readings: Floats32) -> list[Reason]:
        """Return the reasons for one machine's answer, the strongest first; both are as the answer holds them."""
        return self.explainer.find_reasons(features, contributions(self.model, features[None, :])[0], readings)

    def _judge_rows(self, name: str, time: Ints, readings: Floats) -> Iterator[Caution]:
        metadata, vocabulary = self.model.metadata, self.vocabulary
        narrow, wide = min(metadata.dataset.windows_hours), max(metadata.dataset.windows_hours)
        baseline = metadata.preparation.baselines.get(name)
        if baseline is None:
            message = f"machine {name} was not in the training data: its healthy level is taken from the rows sent"
            yield Caution(code="unknown_machine", message=message, column="machine")
        elif baseline.start < time[0] and time[-1] < baseline.start + to_microseconds(metadata.dataset.baseline_hours):
            message = f"machine {name} is new: without all its rows its healthy level is taken from those sent"
            yield Caution(code="short_history", message=message, column="time")
        recent = time > time[-1] - to_microseconds(wide)
        inside, row_length = time[recent], measure_rows(metadata.preparation.rows_every)
        span = (inside[-1] - inside[0] + row_length) / HOUR
        if vocabulary.sensors and span < ENOUGH_HISTORY * wide:
            message = f"the rows cover {round(span, 1):g} h of the {wide} h that the features look back"
            yield Caution(code="short_history", message=message, column="time")
        longest = ((inside[1:] - inside[:-1]).max(initial=row_length) - row_length) / HOUR
        if longest > narrow:
            message = f"no readings for {round(longest, 1):g} h within the last {wide} h"
            yield Caution(code="gap", message=message, column="time")
        trained = ~np.isnan(self._low[: len(vocabulary.sensors)])
        for index in (np.isnan(readings[recent]).all(axis=0) & trained).nonzero()[0]:
            called = self.explainer.quantity(self._ranged[index]).name
            message = f"{called} has no reading in the last {wide} h, but had some in training"
            yield Caution(code="missing_sensor", message=message, column=vocabulary.sensors[index])

    def _judge_range(self, features: Floats32) -> Iterator[Caution]:
        values = features[: len(self._ranged)]
        excess = np.fmax(self._low - values, values - self._high)  # NaN where nothing is known
        if left := int((excess > 0).sum()):
            beyond = np.where(excess > 0, excess, 0) / (self._high - self._low + 1e-9)
            worst = np.argsort(-beyond, kind="stable")[: min(RANGES_NAMED, left)]
            named = ", ".join(self.explainer.name(self._ranged[index]) for index in worst)
            others = f" and {left - len(worst)} more" if left > len(worst) else ""
            message = f"outside what training rows held: {named}{others}"
            yield Caution(code=RANGE_LEFT, message=message, column=self._ranged[worst[0]].name)


def _merge(given: MachineRecord, stored: MachineRecord) -> MachineRecord:
    if given is UNKNOWN:
        return stored
    installed = stored.installed if given.installed is None else given.installed  # 0 is 1970
    attributes = {**stored.attributes, **given.attributes}
    return MachineRecord(model=given.model or stored.model, installed=installed, attributes=attributes)


def load_scorer(folder: Path) -> Scorer:
    """Read one plant's model; an UpkeepError is raised if it is damaged or of another plant than its folder."""
    model = load_model(folder)
    if name_file(model.metadata.plant) != folder.name:
        raise UpkeepError(
            f"the model is of plant {model.metadata.plant}, not {folder.name}, as its folder says",
            remedy="restore the models' folder with `dvc checkout`",
            file=folder / MODEL_METADATA,
        )
    return Scorer(model, checksum((folder / MODEL_METADATA).read_bytes())[:VERSION_DIGITS])
