"""Metrics, acceptance cases and models in; a table of what passed out, and an error if anything did not.

An acceptance case whose plant has no model fails: a gate that skips what it was told to check is open.
"""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from upkeep.contract.casting import cast_column
from upkeep.core import paths
from upkeep.core.errors import UpkeepError
from upkeep.core.params import Params
from upkeep.core.text import show_lines
from upkeep.features.definition import build_features
from upkeep.gitlab.snapshot import require_own
from upkeep.judging.acceptance import (
    AcceptanceCase,
    Check,
    check_case,
    check_floors,
    load_cases,
    require_passed,
    tabulate_checks,
)
from upkeep.judging.reports import Evaluation, read_report
from upkeep.model.storage import find_models, load_model, predict

TIME = pl.Datetime("us", "UTC")
TELEMETRY_KEYS = ["machine", "time"]
EVENTS = {"machine": pl.String(), "time": TIME, "kind": pl.String(), "code": pl.String()}


def run(params: Params) -> None:
    """Print what holds of the floors and acceptance cases of params.yaml; an error if one does not, or is unknown."""
    try:
        checks = make_checks(params)
    except UpkeepError as error:
        raise error.at(stage="check") from error
    print(show_lines(tabulate_checks(checks)))  # noqa: T201  # the table is what this command is for
    require_passed(checks)


def make_checks(params: Params) -> list[Check]:
    """Return what holds of the floors and acceptance cases of ``params.yaml``, or raise why that is not known."""
    checks = check_floors(read_report(Evaluation), params.evaluate.floors)
    golden = params.evaluate.golden
    if golden is not None:
        require_own(golden)
        checks += [_judge_case(case, golden.parent) for case in load_cases(golden)]
    return checks


def _judge_case(case: AcceptanceCase, folder: Path) -> Check:
    own = find_models(paths.MODELS).get(case.plant)
    if own is None:
        return Check(case.name, f"a model of plant {case.plant}", "no such model", False)
    model = load_model(own)
    telemetry = _read_csv(folder / case.telemetry, TELEMETRY_KEYS)
    events = _read_csv(folder / case.events, list(EVENTS)) if case.events else pl.DataFrame(schema=EVENTS)
    machines = telemetry.select(pl.col("machine").unique().sort()).with_columns(
        model=pl.lit(case.machines.model, pl.String), installed=pl.lit(case.machines.installed, TIME)
    )
    telemetry, events, machines = (
        table.with_columns(plant=pl.lit(case.plant)) for table in (telemetry, events, machines)
    )
    metadata = model.metadata
    features = build_features(telemetry, events, machines, metadata.preparation, metadata.dataset).sort("time")
    return check_case(case, features["time"].to_list(), predict(model, features), metadata.threshold)


def _read_csv(path: Path, columns: Sequence[str]) -> pl.DataFrame:
    require_own(path)
    try:
        table = pl.read_csv(path, schema_overrides=dict.fromkeys(columns, pl.String), infer_schema_length=None)
        table = table.select(*columns, pl.exclude(columns)).with_columns(
            time=cast_column("time", pl.String(), "time").value
        )
    except (OSError, pl.exceptions.PolarsError) as error:
        raise _reject(path, str(error), columns) from error
    if table["time"].has_nulls():
        raise _reject(path, f"{table['time'].null_count()} rows without a time", columns)
    return table


def _reject(path: Path, reason: str, columns: Sequence[str]) -> UpkeepError:
    return UpkeepError(
        f"an acceptance case cannot be read: {reason}",
        expected=f"a CSV file with the columns {', '.join(columns)}",
        remedy="correct the file, or the case that names it",
        file=path,
    )
