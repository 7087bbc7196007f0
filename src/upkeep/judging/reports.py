"""The stages' reports as typed objects and tables, for all readers: card, notebooks, gate, note, record.

Unknown fields, which another version of upkeep may have written, are ignored; a missing one is an error.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import polars as pl
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, RootModel

from upkeep.core import paths
from upkeep.core.files import write_json
from upkeep.core.objects import read_object
from upkeep.core.types import Frozen

DECIMALS = 6

OF_ALARMS = ("precision", "recall", "f1")
ROW_FIGURES = ("average_precision", "roc_auc", "brier", "log_loss", "recall_at_precision", *OF_ALARMS)
"""Figures of single rows, undefined where all are of one class."""


def _round_figure(value: object) -> object:
    if isinstance(value, float):
        return None if math.isnan(value) else round(value, DECIMALS)
    return value


Figure = Annotated[float | None, BeforeValidator(_round_figure)]  # with six decimals; None where it is not defined

Interval = list[Annotated[float, BeforeValidator(_round_figure)]] | None  # its ends; None where it cannot be told


class Report(Frozen):
    """A report, or a part of one."""

    model_config = ConfigDict(extra="ignore")


class Metrics(Report):
    """A policy's figures on one group of rows; money is in the currency of ``evaluate.costs``."""

    rows: int
    machines: int
    positives: int
    average_precision: Figure = None
    roc_auc: Figure = None
    brier: Figure = None
    log_loss: Figure = None
    recall_at_precision: Figure = None
    precision: Figure = None
    recall: Figure = None
    f1: Figure = None
    last_row_f1: Figure = None
    failures: int
    failures_caught: Figure = None
    false_alarms_per_machine_month: Figure = None
    cost: Figure = None
    cost_saving: Figure = None
    median_lead_time_hours: Figure = None


LOWER_IS_BETTER = {"brier", "log_loss", "false_alarms_per_machine_month", "cost"}
"""Metrics of a good model that are small."""


class Headline(Report):
    """``reports/metrics.json``: the chosen models' figures on test rows."""

    overall: Metrics
    plants: dict[str, Metrics]


class CandidateReport(Report):
    """One candidate's figures, and by how much the chosen models' average precision exceeds its own (`lead`).

    The lead is None where they were not judged on the same machines.
    """

    metrics: Metrics
    lead: Figure = None
    lead_interval: Interval = None


class PolicyCosts(Report):
    """What each of four policies would have cost."""

    run_to_failure: Figure
    fixed_interval: Figure
    alarms: Figure
    oracle: Figure

    @property
    def saved(self) -> float | None:
        """What following the alarms would have saved against running to failure."""
        return None if self.run_to_failure is None or self.alarms is None else self.run_to_failure - self.alarms


class Sanity(Report):
    """What the chosen models must beat: the share of failing rows, and the average precision of simple candidates.

    `faults` say why the models are not known to beat them, empty if they are.
    """

    base_rate: Figure
    average_precision: dict[str, Figure]
    faults: list[str]


class GroupReport(Report):
    """One plant, or all of them; `chosen` is None where plants chose different candidates."""

    chosen: str | None
    metrics: Metrics
    intervals: dict[str, Interval]
    costs: PolicyCosts
    candidates: dict[str, CandidateReport]
    sanity: Sanity


class AlarmReason(Report):
    """Why a score is high; `contribution` is in log-odds."""

    feature: str
    value: Figure
    contribution: Figure
    words: str


class Alarm(Report):
    """One alarm on test rows and the reasons for it."""

    plant: str
    machine: str
    time: str
    probability: Figure
    hours_to_failure: Figure
    reasons: list[AlarmReason]


class Evaluation(Report):
    """``reports/evaluation/evaluation.json``."""

    overall: GroupReport
    plants: dict[str, GroupReport]
    validation: Headline
    notes: list[str]
    alarms: list[Alarm] = Field(default=[])

    @property
    def headline(self) -> Headline:
        """What DVC tracks as metrics."""
        plants = {plant: group.metrics for plant, group in self.plants.items()}
        return Headline(overall=self.overall.metrics, plants=plants)


DriftMethod = Literal["wasserstein", "jensenshannon"]  # Evidently's names


class ColumnDrift(Report):
    """One column's distance from the training window; None where it was not judged.

    By ``wasserstein`` it is in standard deviations of the training values, by ``jensenshannon`` from 0 to 0.83.
    """

    method: DriftMethod = "wasserstein"
    score: Figure = None
    threshold: Figure = None
    drifted: bool = False

    @property
    def excess(self) -> float:
        """The score in thresholds, from 1 on drift; infinite for a column that lost all its values."""
        if self.score is None or self.threshold is None:
            return math.inf if self.drifted else 0.0
        return self.score / self.threshold

    @property
    def judged(self) -> bool:
        """Whether there was a distance, or no value any more."""
        return self.drifted or self.threshold is not None


class WindowReport(Report):
    """The newest window, from its start to its exclusive end, in ISO 8601."""

    model_config = ConfigDict(populate_by_name=True)

    start: str = Field(alias="from")
    end: str = Field(alias="to")


class PlantDrift(Report):
    """One plant's newest window against its training window; `share` is that of the judged columns that drifted."""

    drifted: bool
    share: Figure
    columns: dict[str, ColumnDrift]
    current_rows: int
    reference_rows: int
    window: WindowReport
    notes: list[str]


class DriftReport(RootModel[dict[str, PlantDrift]]):
    """``reports/drift/drift.json``: by plant."""


class TrainedCandidate(Report):
    """How one candidate did on validation rows; `rounds` and what it was trained on only for trained models."""

    average_precision: float | None
    cost: float | None
    threshold: float
    calibration: str
    rounds: list[int]
    trained_rows: int | None
    trained_positives: int | None
    notes: list[str]


class TrainedPlant(Report):
    """One plant's candidates, which was chosen and why; rows and positives by split."""

    chosen: str
    why: str
    saved: bool
    rows: dict[str, int]
    positives: dict[str, int]
    validation_failures: int
    candidates: dict[str, TrainedCandidate]


class TrainingReport(Report):
    """``reports/training.json``."""

    kind: str
    plants: dict[str, TrainedPlant]


class SplitSize(Report):
    """How many rows a split has, how many of them precede a failure, and why they may mislead, if they may."""

    rows: int
    failing: int
    doubt: str | None = None


class DatasetReport(RootModel[dict[str, dict[str, SplitSize]]]):
    """``reports/dataset.json``: by plant and split."""


class TableQuality(Report):
    """What became of the rows of one table; duplicates are by kind, quarantined rows by reason.

    `reduced_to` is how many rows the clean ones were reduced to, None if they were not.
    """

    rows_in: int
    clean: int
    reduced_to: int | None = None
    duplicates: dict[str, int]
    quarantined: dict[str, int]


class PlantQuality(Report):
    """One plant's tables, and findings, which changed no row."""

    tables: dict[str, TableQuality]
    findings: list[dict[str, str | None]]


class DataQuality(Report):
    """``reports/data_quality.json``."""

    plants: dict[str, PlantQuality]


AnyReport = TypeVar("AnyReport", bound=BaseModel)
Group = TypeVar("Group")

FILES: dict[type[BaseModel], Path] = {
    Headline: paths.METRICS,
    Evaluation: paths.EVALUATION / "evaluation.json",
    DatasetReport: paths.DATASET,
    DriftReport: paths.DRIFT / "drift.json",
    TrainingReport: paths.TRAINING,
    DataQuality: paths.DATA_QUALITY,
}
REMEDY = "run `dvc repro`"


def write_report(report: BaseModel) -> None:
    """Write a stage's report to its place."""
    write_json(FILES[type(report)], report.model_dump(by_alias=True))


def read_report(kind: type[AnyReport]) -> AnyReport:
    """Read a report from its place; raise an UpkeepError if it is missing or not what its stage writes."""
    return read_object(kind, FILES[kind], what="the report", remedy=REMEDY)


def name_groups(overall: Group, plants: Mapping[str, Group]) -> dict[str, Group]:
    """Return groups by what precedes a figure in ``evaluate.floors``: ``plants.lyon``, or nothing for all plants."""
    return {"": overall} | {f"plants.{plant}": group for plant, group in plants.items()}


# `dvc plots show` puts a table's texts into a script as they are, where `</script>` in a plant's name would end it.
SPELT = {"\\": r"\u005c", "<": r"\u003c"}
READ = {code: character for character, code in SPELT.items()}


def write_curves(tables: Mapping[str, pl.DataFrame]) -> None:
    """Write the tables behind plots to ``reports/evaluation``, one CSV file each."""
    paths.EVALUATION.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        table.with_columns(pl.col(pl.String).str.replace_many(SPELT)).write_csv(paths.EVALUATION / f"{name}.csv")


def read_curves() -> dict[str, pl.DataFrame]:
    """Return the tables of ``reports/evaluation`` by name: plant, feature and words are text, the others numbers."""
    numbers = pl.exclude("plant", "feature", "words").cast(pl.Float64)  # a plant may be called 7
    tables = {file.stem: pl.read_csv(file, infer_schema=False) for file in sorted(paths.EVALUATION.glob("*.csv"))}
    return {
        name: table.with_columns(pl.all().str.replace_many(READ)).with_columns(numbers)
        for name, table in tables.items()
    }
