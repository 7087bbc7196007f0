"""What a model answers and how far to trust it: one plant's tables in, an answer per machine out."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from typing_extensions import TypedDict  # pydantic, which describes these to the service's clients, asks for it

from upkeep.core.errors import UpkeepError
from upkeep.core.paths import MODEL_METADATA
from upkeep.core.plants import name_file
from upkeep.core.types import Booleans, Floats, Floats32, Ints, measure_rows
from upkeep.features.definition import newest_features
from upkeep.features.inputs import UNKNOWN, Events, MachineRecord, Telemetry
from upkeep.features.windows import HOUR, to_microseconds
from upkeep.model.explanation import READINGS, Explainer, Reason, summarise_readings
from upkeep.model.storage import SavedModel, checksum, contributions, load_model, predict

VERSION_DIGITS = 12
ENOUGH_HISTORY = 0.9
"""Share of the widest window that rows must cover; hourly rows never cover the whole of it."""

RANGE_LEFT = "training_range_left"
"""Code of the warning that a sensor shows what no training row held."""

RANGES_NAMED = 3
"""Features outside their training range that a warning names."""


class Caution(TypedDict):
    """A reason to trust an answer less; `column` is None where none is to blame."""

    code: str
    message: str
    column: str | None


class Answer(NamedTuple):
    """What the model says of one machine at its newest row.

    Times are in microseconds since 1970; the last maintenance is that among the events at hand. Features are in the
    model's order, shape (n_features,), NaN where one is unknown; readings are those that
    :func:`~upkeep.model.explanation.summarise_readings` returns, made flat.
    """

    machine: str
    time: int
    probability: float
    alarm: bool
    warnings: list[Caution]
    features: Floats32
    readings: Floats32
    maintained_at: int | None
    maintenance_code: str | None


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
        self._low = np.array([-np.inf if found.minimum is None else found.minimum for found in ranges])
        self._high = np.array([np.inf if found.maximum is None else found.maximum for found in ranges])
        sensors = [metadata.training_ranges[name] for name in taken[: len(self.vocabulary.sensors)]]
        self._trained = np.array([found.minimum is not None for found in sensors], dtype=np.bool_)

    def score(
        self, rows: Telemetry, events: Events, records: Mapping[str, MachineRecord], threads: int = 1
    ) -> list[Answer]:
        """Return an answer per machine, in their order; where `records` are silent, the model's own record speaks."""
        metadata = self.model.metadata
        stored = metadata.preparation.records
        known = {name: _merge(records.get(name), stored.get(name)) for name in rows.machines}
        features = newest_features(rows, events, known, metadata.preparation, metadata.dataset)
        probabilities = predict(self.model, features, threads)
        readings = self.read(rows)
        sensors = features[:, : len(self._ranged)]
        leaves = (sensors < self._low) | (sensors > self._high)
        maintenance = self._last_maintenance(events)
        answers = []
        for index, (name, span) in enumerate(rows.by_machine()):
            time = rows.time[span]
            warnings = self._judge_rows(name, time, rows.readings[span])
            if leaves[index].any():
                warnings.append(self._judge_range(features[index], leaves[index]))
            probability = float(probabilities[index])
            answers.append(
                Answer(
                    name,
                    int(time[-1]),
                    probability,
                    probability >= metadata.threshold,
                    warnings,
                    features[index],
                    readings[index],
                    *maintenance.get(index, (None, None)),
                )
            )
        return answers

    def read(self, rows: Telemetry) -> Floats32:
        """Return what reasons say of readings in their units, an array per machine."""
        found = summarise_readings(rows, self.model.metadata.preparation, self.model.metadata.dataset)
        return found.reshape(len(rows.machines), -1)

    def explain(self, features: Floats32, readings: Floats32) -> list[Reason]:
        """Return the reasons for one machine's answer, the strongest first; both are as the answer holds them."""
        return self.explainer.find_reasons(features, contributions(self.model, features[None, :])[0], readings)

    def _last_maintenance(self, events: Events) -> dict[int, tuple[int, str]]:
        first = len(self.vocabulary.error_codes)
        codes = dict(enumerate(self.vocabulary.maintenance_codes, first))
        last: dict[int, tuple[int, str]] = {}
        for machine, time, kind in zip(*(column.tolist() for column in events), strict=True):
            if kind in codes and time >= last.get(machine, (time, ""))[0]:
                last[machine] = (time, codes[kind])
        return last

    def _judge_rows(self, name: str, time: Ints, readings: Floats) -> list[Caution]:
        metadata = self.model.metadata
        narrow, wide = min(metadata.dataset.windows_hours), max(metadata.dataset.windows_hours)
        warnings: list[Caution] = []

        def warn(code: str, column: str, message: str) -> None:
            warnings.append({"code": code, "message": message, "column": column})

        baseline = metadata.preparation.baselines.get(name)
        if baseline is None:
            message = f"machine {name} was not in the training data: its healthy level is taken from the rows sent"
            warn("unknown_machine", "machine", message)
        elif baseline.start < time[0] and time[-1] < baseline.start + to_microseconds(metadata.dataset.baseline_hours):
            message = f"machine {name} is new: without all its rows its healthy level is taken from those sent"
            warn("short_history", "time", message)
        recent = time > time[-1] - to_microseconds(wide)
        inside = time[recent]
        row_length = measure_rows(metadata.preparation.rows_every)
        span = (inside[-1] - inside[0] + row_length) / HOUR
        if self.vocabulary.sensors and span < ENOUGH_HISTORY * wide:
            warn(
                "short_history",
                "time",
                f"the rows cover {round(span, 1):g} h of the {wide} h that the features look back",
            )
        longest = ((inside[1:] - inside[:-1]).max(initial=row_length) - row_length) / HOUR
        if longest > narrow:
            warn("gap", "time", f"no readings for {round(longest, 1):g} h within the last {wide} h")
        silent = np.isnan(readings[recent]).all(axis=0) & self._trained
        for index in silent.nonzero()[0]:
            sensor = self.vocabulary.sensors[index]
            name = self.explainer.quantity(sensor).name
            warn("missing_sensor", sensor, f"{name} has no reading in the last {wide} h, but had some in training")
        return warnings

    def _judge_range(self, features: Floats32, left: Booleans) -> Caution:
        values = features[: len(left)]
        excess = np.where(left, np.maximum(self._low - values, values - self._high), 0)
        beyond = excess / (self._high - self._low + 1e-9)
        worst = np.argsort(-beyond, kind="stable")[: min(RANGES_NAMED, int(left.sum()))]
        named = ", ".join(self.explainer.name(self._ranged[index]) for index in worst)
        others = int(left.sum()) - len(worst)
        message = f"outside what training rows held: {named}{f' and {others} more' if others else ''}"
        return {"code": RANGE_LEFT, "message": message, "column": self._ranged[int(worst[0])].name}


def _merge(given: MachineRecord | None, stored: MachineRecord | None) -> MachineRecord:
    """Return what a request says of a machine and, where it says nothing, what is on record."""
    if given is None or stored is None:
        return given or stored or UNKNOWN
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
