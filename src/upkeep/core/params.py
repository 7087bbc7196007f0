"""``params.yaml`` as typed, validated objects; settings are explained there, and have their defaults only there."""

from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, PlainSerializer, ValidationError, model_validator

from upkeep.core import paths
from upkeep.core.errors import UpkeepError
from upkeep.core.types import CALENDAR, Frozen, describe_faults
from upkeep.core.yaml import read_yaml

EXAMPLE = Path("examples/cmapss/params.yaml")  # has all settings, some of which an older params.yaml lacks
Share = Annotated[float, Field(ge=0, le=1)]
Number = Annotated[
    float,
    AfterValidator(lambda number: int(number) if number.is_integer() else number),
    PlainSerializer(lambda number: number),
]
"""A number that stays whole where it is: 48, not 48.0, in names of features, models and reports."""
# Bounds within which dates, spans and seeds stay what Python and the libraries can count with.
Hours = Annotated[Number, Field(ge=0.001, le=1e6)]
Day = Annotated[date, Field(ge=date(CALENDAR.start, 1, 1), lt=date(CALENDAR.stop, 1, 1))]
SmallCount = Annotated[int, Field(gt=0, le=1000)]
Count = Annotated[int, Field(gt=0, le=10**9)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Size = Annotated[float, Field(ge=0, le=1e12)]
Kind = Literal["lightgbm", "hist_gradient_boosting", "random_forest", "logistic", "gaussian_process"]
Aggregate = Literal["mean", "std", "min", "max", "slope"]


def check_once(values: list[Any]) -> list[Any]:
    """Return the values; raise a ValueError if one is listed twice, since they name features."""
    if len({*values}) < len(values):
        raise ValueError("one stands there twice")
    return values


class Limits(Frozen):
    """How large delivered tables may be, so that no file takes all memory."""

    table_mb: Count
    columns: Count
    value_kb: Count


class Fetch(Frozen):
    """Where raw batches come from and up to which one."""

    source: str
    mode: Literal["copy", "reference"] = "copy"  # the docs' short sections leave it out
    since: Day | None = None
    until: Day
    batch_days: Annotated[int, Field(gt=0, le=366)]
    reread_batches: Annotated[int, Field(ge=0, le=1000)]
    rows_every_hours: Hours | None = None  # for plants without telemetry only
    findings: str | None = Field(default=None, min_length=1)  # an older params.yaml lacks it
    options: dict[str, Any]

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.since and self.since > self.until:
            raise ValueError(f"since, {self.since}, is later than until, {self.until}, so there is no batch to use")
        if self.mode == "reference" and self.rows_every_hours:
            raise ValueError("mode: reference cannot go with rows_every_hours, whose rows are in no file")
        if self.mode == "reference" and self.findings:
            raise ValueError("mode: reference cannot go with findings, which may be corrected: set mode: copy")
        return self

    def covers(self, key: tuple[str, str, date]) -> bool:
        """Tell whether a batch, given by table, plant and first day, is used; ``since`` does not apply to machines."""
        table, _, batch = key
        return batch <= self.until and (table == "machines" or self.since is None or batch >= self.since)


class Validate(Frozen):
    """How strictly the data dictionary is enforced."""

    dictionary: Path
    max_quarantined_share: Share
    near_duplicate_seconds: Annotated[int, Field(ge=0, le=10**9)]
    max_near_duplicate_share: Share
    outage_hours: Hours
    stuck_hours: Hours


class SplitWindow(Frozen):
    """Lengths of the windows of the newest rows that validate and test, and by how many weeks both advance."""

    validation_weeks: SmallCount
    test_weeks: SmallCount
    every_weeks: SmallCount


class Split(Frozen):
    """How rows become training, validation and test rows."""

    by: Literal["time", "date", "window", "machine"]
    validation_share: Annotated[float, Field(gt=0, lt=1)]
    test_share: Annotated[float, Field(gt=0, lt=1)]
    seed: Seed
    # Needed by a split by date or by window, and off in params.yaml, so they have no other place.
    validation_from: Day | None = None
    test_from: Day | None = None
    # Not written where it is off: descriptions of models stay as they are.
    window: SplitWindow | None = Field(default=None, exclude_if=lambda window: window is None)

    @model_validator(mode="after")
    def _check_parts(self) -> Self:
        if self.validation_share + self.test_share >= 1:
            raise ValueError("validation_share and test_share leave nothing to train on")
        if self.by == "window" and not self.window:
            raise ValueError("by: window needs window: {validation_weeks, test_weeks, every_weeks}")
        if self.by == "date" and not (
            self.validation_from and self.test_from and self.validation_from < self.test_from
        ):
            raise ValueError("by: date needs validation_from and test_from, the later one last")
        return self


class Dataset(Frozen):
    """Features, labels and splits."""

    horizon_hours: Hours
    windows_hours: Annotated[list[Hours], AfterValidator(check_once)] = Field(min_length=1)
    aggregates: Annotated[list[Aggregate], AfterValidator(check_once)] = Field(min_length=1)
    baseline_hours: Hours
    condition_tolerance: Annotated[float, Field(gt=0, le=1e6)]
    max_conditions: SmallCount
    max_repair_hours: Hours
    negatives_kept: Annotated[float, Field(gt=0, le=1)]
    max_single_feature_auc: Share
    split: Split


class Model(Frozen):
    """What is trained and how its output becomes a probability and an alarm."""

    kind: Kind
    compare: list[Kind]
    seed: Seed
    calibration: Literal["sigmoid", "isotonic", "none"]
    threshold: Literal["cost", "f1"]
    early_stopping_rounds: Annotated[int, Field(ge=0, le=10**9)]
    ensemble: SmallCount
    fleet_rows: Count | None
    lightgbm: dict[str, Any]
    gaussian_process_rows: Count


class Costs(Frozen):
    """Money per event, all in one currency."""

    failure: Size
    planned_repair: Size
    false_alarm: Size


class Evaluate(Frozen):
    """How a model is judged."""

    lead_time_hours: Annotated[Number, Field(ge=0, le=1e6)]
    recall_at_precision: Share
    bootstrap: Annotated[int, Field(ge=0, le=10**6)]
    confidence: Annotated[float, Field(gt=0, lt=1)]
    costs: Costs
    golden: Path | None
    floors: dict[str, float]


class Drift(Frozen):
    """How the newest data is compared with what was trained on."""

    window_batches: SmallCount
    sample_rows: Count
    max_drifted_share: Share
    seed: Seed


class Record(Frozen):
    """What the experiment log says of a run besides its results."""

    experiment: str
    description: str


class PredictionTable(Frozen):
    """The SQL table that the newest predictions go to."""

    url: str = Field(min_length=1)
    name: str = Field(min_length=1)


class Webhook(Frozen):
    """Where alarms are sent; the secret that signs them is in ``UPKEEP_WEBHOOK_SECRET``."""

    url: str = Field(min_length=1)
    allow_http: bool = False  # a webhook is off in params.yaml, so this has no other place


class Score(Frozen):
    """What `upkeep score` reads and whom it tells; belongs to no stage of the pipeline."""

    history_batches: SmallCount
    silent_hours: Hours
    log: str = Field(min_length=1)
    shadow: Path | None = None
    table: PredictionTable | None
    webhook: Webhook | None


class Production(Frozen):
    """Where `upkeep outcomes` keeps the outcomes of predictions; belongs to no stage of the pipeline."""

    ledger: str = Field(min_length=1)


class Retrain(Frozen):
    """When `upkeep retrain` trains again; belongs to no stage of the pipeline."""

    policy: Literal["evidence", "every_batch", "monthly", "never"]
    new_batches: SmallCount
    batches_between: SmallCount
    max_age_days: Count
    drift_windows: SmallCount
    drift_needed: SmallCount


class WatchedSource(Frozen):
    """A source that `upkeep monitor` polls by GET; its URL may mention variables."""

    name: str = Field(min_length=1)
    url: str = Field(min_length=1)


class Monitor(Frozen):
    """What `upkeep monitor` polls, and where it reports; belongs to no stage of the pipeline."""

    watch: list[WatchedSource]
    webhook: Webhook | None
    told_after: SmallCount


class Gate(Frozen):
    """How much worse a challenger may be than the champion, on the newest rows; belongs to no stage."""

    min_failures: Count
    precision_fall: Share
    largest_precision_fall: Share
    cost_rise: Size
    largest_cost_rise: Size


class Parallel(Frozen):
    """How work is mapped over plants."""

    backend: Literal["loky", "threads", "dask", "sequential"]
    jobs: Literal[-1] | SmallCount
    address: Annotated[str, Field(pattern=r"^(tcp|tls)://\S+:\d+$")] | None = None
    memory: Count | None = None


class Pieces(Frozen):
    """Where results are kept for the next run, and how much space they may take; belongs to no stage."""

    folder: Path | None
    max_gb: Size


class Params(Frozen):
    """The whole of ``params.yaml``."""

    fetch: Fetch
    limits: Limits
    validate_: Validate = Field(alias="validate")
    dataset: Dataset
    model: Model
    evaluate: Evaluate
    drift: Drift
    record: Record
    score: Score
    production: Production
    retrain: Retrain
    monitor: Monitor
    gate: Gate
    parallel: Parallel
    pieces: Pieces

    @model_validator(mode="after")
    def _check_sources(self) -> Self:
        names = [self.fetch.source, *(source.name for source in self.monitor.watch)]
        if len({*names}) < len(names):
            raise ValueError("monitor.watch: each source needs a name of its own, other than fetch.source")
        return self


def load_params(path: Path = paths.PARAMS) -> Params:
    """Read ``params.yaml``; raises UpkeepError if it cannot be read, or a setting is unknown, missing or wrong."""
    content = read_yaml(path, what=str(path), remedy="correct the file, or run this from the repository's root")
    if not isinstance(content, dict):
        what = f"{path} holds {'nothing' if content is None else 'no settings by name'}"
        raise UpkeepError(what, remedy=f"restore it from git, or copy {EXAMPLE}", file=path)
    return check_params(content, path)


def check_params(content: object, path: Path) -> Params:
    """Return the content of a ``params.yaml`` as objects; raises UpkeepError as :func:`load_params` does."""
    try:
        return Params.model_validate(content)
    except ValidationError as error:
        missing = [".".join(map(str, fault["loc"])) for fault in error.errors() if fault["type"] == "missing"]
        remedy = f"; copy {', '.join(missing)} from {EXAMPLE}, which has all" if missing else ""
        raise UpkeepError(
            describe_faults(error),
            expected="the settings and ranges that src/upkeep/core/params.py lists",
            remedy=f"correct {path}{remedy}",
            file=path,
        ) from error
