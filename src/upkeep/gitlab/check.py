"""Metrics, acceptance cases and models in; a table of what passed out, and an error if anything did not.

An acceptance case whose plant has no model fails: a gate that skips what it was told to check is open.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl

from upkeep.contract.casting import cast_column
from upkeep.core import paths
from upkeep.core.errors import UpkeepError
from upkeep.core.params import Params
from upkeep.core.text import show_lines
from upkeep.features.definition import build_features
from upkeep.gitlab.champion import judge_sides
from upkeep.gitlab.gate import judge
from upkeep.gitlab.markdown import bullets
from upkeep.gitlab.snapshot import read_own, read_revision, read_working_tree
from upkeep.gitlab.zones import TARGET, Environment
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
from upkeep.releases import git
from upkeep.releases.history import find_release, list_releases
from upkeep.releases.tags import refresh

TIME = pl.Datetime("us", "UTC")
EVENTS = {"machine": pl.String(), "time": TIME, "kind": pl.String(), "code": pl.String()}


def run(params: Params) -> None:
    """Print what holds of the floors and acceptance cases of params.yaml; an error if one does not, or is unknown.

    A missed floor is let pass where the gate lets the models ship all the same, since what is live is no better.
    """
    try:
        checks = make_checks(params)
    except UpkeepError as error:
        raise error.at(stage="check") from error
    print(show_lines(tabulate_checks(checks)))  # noqa: T201  # the table is what this command is for
    missed = find_missed(checks, params.evaluate.floors)
    if not (missed and _may_ship(checks, missed, params, os.environ)):
        require_passed(checks)


def find_missed(checks: Sequence[Check], floors: Mapping[str, float]) -> dict[str, float]:
    """Return the floors that do not hold and may be let pass: of none may an acceptance case have the name."""
    found = {name: [check.passed for check in checks if check.name == name] for name in floors}
    return {name: floors[name] for name, passed in found.items() if passed == [False]}


def _may_ship(checks: Sequence[Check], missed: Mapping[str, float], params: Params, environment: Environment) -> bool:
    """Ask the gate, with what a merge request's target has for champion, and else what production has; print why."""
    try:
        if branch := environment.get(TARGET):
            commit = git.fetch(branch)
        else:  # on a laptop nothing needs the network
            commit = find_release(refresh() if environment.get("CI") else list_releases(), "production").commit
        champion, challenger = read_revision(commit, branch or "production"), read_working_tree()
    except UpkeepError as error:
        print(show_lines(f"the floors hold, since no champion can be asked: {error.what}"))  # noqa: T201  # as above
        return False
    succession = judge_sides(champion, challenger, params, missed)
    verdict = judge(champion, challenger, succession, checks, missed)
    print(show_lines(bullets([*verdict.reasons, *verdict.remarks])))  # noqa: T201  # as above
    return verdict.ships


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
