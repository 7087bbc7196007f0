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
from upkeep.gitlab.snapshot import read_own
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
        read_own(golden)  # or raise why it is none of the branch's
        checks += [_judge_case(case, golden.parent) for case in load_cases(golden)]
    return checks


def _judge_case(case: AcceptanceCase, folder: Path) -> Check:
    own = find_models(paths.MODELS).get(case.plant)
    if own is None:
        return Check(case.name, f"a model of plant {case.plant}", "no such model", False)
    model = load_model(own)
    telemetry = _read_csv(folder / case.telemetry, ["machine", "time"])
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
    content = read_own(path)
    try:
        table = pl.read_csv(content, schema_overrides=dict.fromkeys(columns, pl.String), infer_schema_length=None)
        table = table.select(*columns, pl.exclude(columns)).with_columns(
            time=cast_column("time", pl.String(), "time").value
        )
        unknown = table["time"].null_count()
        if unknown:
            raise ValueError(f"{unknown} rows without a time")
    except (OSError, ValueError, pl.exceptions.PolarsError) as error:
        raise UpkeepError(
            f"an acceptance case cannot be read: {error}",
            expected=f"a CSV file with the columns {', '.join(columns)}",
            remedy="correct the file, or the case that names it",
            file=path,
        ) from error
    return table
