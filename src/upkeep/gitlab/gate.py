"""The gate: whether a challenger may replace the champion; in doubt it may not.

Floors and acceptance cases are checked, and both models judged on the newest rows. An acceptance case whose plant has
no model fails.
"""

import os
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import polars as pl

from upkeep.contract.casting import cast_column
from upkeep.contract.dictionary import DTYPES, NEEDED, TABLES
from upkeep.core import paths
from upkeep.core.errors import UpkeepError
from upkeep.core.params import Params
from upkeep.core.plants import name_file, table_file
from upkeep.core.text import show_lines
from upkeep.features.definition import build_features
from upkeep.gitlab import dvc
from upkeep.gitlab.markdown import bullets, code, sentence
from upkeep.gitlab.snapshot import CommitFiles, Snapshot, locate_own, read_own, read_revision, read_working_tree
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
from upkeep.releases.rescoring import rescore
from upkeep.releases.succession import Succession, find_newer, judge_succession
from upkeep.releases.tags import refresh
from upkeep.reporting.markdown import Markdown

EVENTS = {name: DTYPES[kind] for name, kind in NEEDED["events"].items() if name != "plant"}


class Verdict(NamedTuple):
    """Whether the challenger may ship, the reasons if not, and remarks; in GitLab's Markdown."""

    ships: bool
    reasons: list[str]
    remarks: Sequence[str] = ()


def check(params: Params) -> None:
    """Print the floors and acceptance cases; raise an UpkeepError if one fails and the gate does not overrule it."""
    try:
        checks = make_checks(params)
    except UpkeepError as error:
        raise error.at(stage="check") from error
    print(show_lines(tabulate_checks(checks)))  # noqa: T201  # the table is what this command is for
    missed = find_missed(checks, params.evaluate.floors)
    if not (missed and may_ship(checks, missed, params, os.environ)):
        require_passed(checks)


def may_ship(checks: Sequence[Check], missed: Mapping[str, float], params: Params, environment: Environment) -> bool:
    """Print and return the gate's verdict beside the merge request's target branch, or else beside production."""
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
    verdict = reach_verdict(champion, challenger, succession, checks, missed)
    print(show_lines(bullets([*verdict.reasons, *verdict.remarks])))  # noqa: T201  # as above
    return verdict.ships


def reach_verdict(
    champion: Snapshot | None,
    challenger: Snapshot,
    succession: Succession,
    checks: Sequence[Check],
    floors: Collection[str],
    faults: Sequence[str] = (),
) -> Verdict:
    """Judge a challenger by its floors and acceptance cases, and beside the champion.

    `champion` is None if the target branch has no history; then the checks alone decide. Of missed `floors` the
    `succession` decides. `faults` are reasons why the challenger's reports cannot be relied on.
    """
    sides = {"this branch": challenger} | ({"the target branch": champion} if champion else {})
    missing = [
        sentence("{}'s {} is missing: {}", side, code(file), why)
        for side, snapshot in sides.items()
        for file, why in snapshot.missing.items()
    ]
    compared = champion is not None and not missing
    failed = [
        sentence("the check {} does not hold: found {}, expected {}", code(check.name), check.found, check.expected)
        for check in checks
        if not check.passed and not (compared and check.name in floors)
    ]
    reasons = [*faults, *missing, *failed]
    if not checks and not faults:
        reasons.append(Markdown("nothing was checked: set `evaluate.floors` or `evaluate.golden` in params.yaml"))
    if champion is None or not compared:
        return Verdict(not reasons, reasons)
    reasons += [*_name_vanished(champion, challenger), *succession.reasons]
    return Verdict(succession.decision == "promote" and not reasons, reasons, succession.remarks)


def _name_vanished(champion: Snapshot, challenger: Snapshot) -> Iterator[Markdown]:
    """Yield a reason for each plant that lost its model, unless a change of `fetch` took its data away."""
    before, after = (
        {name: value for name, value in side.params.items() if name.startswith(("fetch.source", "fetch.options"))}
        for side in (champion, challenger)
    )
    for plant in sorted(champion.judged.keys() - challenger.judged):
        if plant in challenger.raw_plants:
            yield sentence("{} has raw data, but no model that was judged", plant)
        elif before == after:
            words = "{} has vanished from {}, though `fetch.source` and `fetch.options` are the same"
            yield sentence(f"{words}; if that is meant, say so there", plant, code(paths.RAW))


def judge_sides(
    champion: Snapshot | None, challenger: Snapshot, params: Params, missed_floors: Mapping[str, float]
) -> Succession:
    """Judge both sides by their predictions; a branch whose predictions cannot be compared does not pass."""
    try:
        said, silent = predict_newest(champion or Snapshot(""), challenger.predictions)
        found = judge_succession(said, challenger.predictions, params, missed_floors)
    except (ArithmeticError, LookupError, TypeError, ValueError, pl.exceptions.PolarsError) as error:
        words = "the predictions of both sides cannot be compared: {}; run `dvc repro`, then `dvc push`"
        return judge_succession({}, {}, params)._replace(reasons=[sentence(words, error)])
    words = "{}: of the rows that came after the champion's own run it says nothing: {}"
    return found._replace(remarks=[*found.remarks, *(sentence(words, *each) for each in silent.items())])


def predict_newest(
    champion: Snapshot, newest: Mapping[str, pl.DataFrame]
) -> tuple[dict[str, pl.DataFrame], dict[str, str]]:
    """Return the champion's predictions by plant, and by plant why it has none of the newest rows.

    Rows of the champion's own run keep that run's predictions. Later rows are scored here, from the interim tables, by
    the models of its commit, which DVC provides; where that fails, the run's predictions stand alone.
    """
    said, silent = dict(champion.predictions), dict[str, str]()
    newer = {plant: find_newer(said[plant], newest[plant]) for plant in sorted(said.keys() & newest.keys())}
    newer = {plant: rows for plant, rows in newer.items() if rows.height}
    if not newer:
        return said, silent
    try:
        dvc.bring(paths.INTERIM, paths.MODELS)
    except UpkeepError as error:
        return said, dict.fromkeys(newer, error.what)
    files = CommitFiles(champion.commit)
    for plant, rows in newer.items():
        try:
            said[plant] = pl.concat([said[plant], _score_newer(plant, files, rows)], how="diagonal_relaxed")
        except UpkeepError as error:
            silent[plant] = error.what
        except (OSError, pl.exceptions.PolarsError):  # a branch may hold anything, and its words may quote it
            silent[plant] = f"{paths.INTERIM} is not what upkeep writes"
    return said, silent


def _score_newer(plant: str, files: CommitFiles, rows: pl.DataFrame) -> pl.DataFrame:
    tables = [pl.scan_parquet(locate_own(table_file(paths.INTERIM / table, plant))) for table in TABLES]
    with tempfile.TemporaryDirectory() as folder:
        model = files.copy_model(plant, Path(folder))
        return rescore(model, rows, tables, load_model(paths.MODELS / name_file(plant)).metadata)


def find_missed(checks: Sequence[Check], floors: Mapping[str, float]) -> dict[str, float]:
    """Return the missed floors that the gate may overrule: those whose name no acceptance case has."""
    found = {name: [check.passed for check in checks if check.name == name] for name in floors}
    return {name: floors[name] for name, passed in found.items() if passed == [False]}


def make_checks(params: Params) -> list[Check]:
    """Check the floors and acceptance cases of ``params.yaml``; raise an UpkeepError if that is not possible."""
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
    telemetry = _read_csv(folder / case.telemetry, ["machine", "time"]).with_columns(plant=pl.lit(case.plant))
    events = _read_csv(folder / case.events, list(EVENTS)) if case.events else pl.DataFrame(schema=EVENTS)
    machines = telemetry.select(pl.col("machine").unique().sort()).with_columns(
        model=pl.lit(case.machines.model, pl.String), installed=pl.lit(case.machines.installed, DTYPES["time"])
    )
    metadata = model.metadata
    features = build_features(telemetry, events, machines, metadata.preparation, metadata.dataset).sort("time")
    return check_case(case, features["time"].to_list(), predict(model, features), metadata.threshold)


def _read_csv(path: Path, columns: Sequence[str]) -> pl.DataFrame:
    content, fault = read_own(path), "some rows have no time"
    try:
        table = pl.read_csv(content, schema_overrides=dict.fromkeys(columns, pl.String), infer_schema_length=None)
        table = table.select(*columns, pl.exclude(columns))
        table = table.with_columns(time=cast_column("time", pl.String(), "time").value)
        if not table["time"].null_count():
            return table
    except (ValueError, pl.exceptions.PolarsError) as error:
        fault = str(error)
    what, expected = f"an acceptance case cannot be read: {fault}", f"a CSV file with the columns {', '.join(columns)}"
    raise UpkeepError(what, expected=expected, remedy="correct the file, or the case that names it", file=path)
