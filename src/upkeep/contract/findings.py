"""What the data shows about the machines' sensors and deliveries. Findings are reported and change nothing.

A finding looks at a whole record, so it knows at a time what came after. A feature made from it, or a value mended
because of it, would look into the future.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from itertools import groupby, pairwise

import numpy as np
import polars as pl

from upkeep.core.names import shorten
from upkeep.core.text import count_things, look_alike, nearest_name, part_digits, tell_apart

Finding = dict[str, str | None]

HOUR = timedelta(hours=1)

MAX_FINDINGS = 100  # listed of one kind in one plant's table; one more finding counts the rest

LONGEST_DETAIL = 1000  # characters of a finding's text: names of files and values of rows may be of any length

MAX_EXAMPLES = 3  # machines named in a finding about many

SLOW = 3.0  # a machine that usually sends a row every `n` hours is silent only after this many times `n` hours

MIN_REPEATS = 5  # rows of a stuck value at least: two equal ones around an outage are chance

LONG_RUN = 10.0  # a stuck value lasts at least this many times the sensor's median run of one value ...
RARE_VALUE = 0.1  # ... and no more than this share of the sensor's runs has it; else the sensor is just coarse.


def report(
    kind: str,
    table: str,
    detail: str,
    *,
    machine: str | None = None,
    column: str | None = None,
    batch: date | None = None,
    since: date | datetime | None = None,
    until: date | datetime | None = None,
) -> Finding:
    """Return one finding in the form of ``reports/data_quality.json``."""
    place = {"machine": machine, "column": column, "batch": batch, "from": since, "to": until}
    shown = {name: value.isoformat() if isinstance(value, date) else value for name, value in place.items()}
    return {"kind": kind, "table": table, **shown, "detail": shorten(detail, LONGEST_DETAIL)}


def sort_findings(findings: Iterable[Finding]) -> list[Finding]:
    """Sort findings by kind and place; of a kind, those beyond :data:`MAX_FINDINGS` are counted, not listed."""
    ordered = sorted(findings, key=lambda finding: tuple(value or "" for value in finding.values()))
    listed: list[Finding] = []
    counted: list[Finding] = []
    for (kind, table), alike in groupby(ordered, key=lambda finding: (finding["kind"], finding["table"])):
        group = list(alike)
        listed += group[:MAX_FINDINGS]
        if len(group) > MAX_FINDINGS:
            counted.append(report(str(kind), str(table), f"{len(group) - MAX_FINDINGS} more"))
    return listed + counted


def report_runs(
    kind: str, table: str, column: str, numbers: Sequence[int], batches: Sequence[date], detail: str
) -> list[Finding]:
    """Report deliveries that have something in common, one finding for each unbroken run of their ascending numbers.

    `batches` holds the batch of each delivery.
    """
    findings = []
    for run in np.split(numbers, np.flatnonzero(np.diff(numbers) > 1) + 1) if numbers else ():
        first, last = batches[run[0]], batches[run[-1]]
        share = f"{detail} in {len(run)} of {len(batches)} deliveries"
        findings.append(report(kind, table, share, column=column, batch=first, since=first, until=last))
    return findings


def find_missing_batches(table: str, batches: Iterable[date], newest: date, batch_days: int) -> list[Finding]:
    """Report gaps in a plant's sequence of batches, up to the newest batch that any plant delivered."""
    step = timedelta(days=batch_days)
    findings = []
    for before, after in pairwise(sorted({*batches, newest + step})):
        if after - before > step:
            first, gap = before + step, f"batches missing: {(after - before).days // batch_days - 1}"
            findings.append(report("missing_batch", table, gap, batch=first, since=first, until=after - step))
    return findings


def find_unknown_machines(table: str, rows: pl.DataFrame, known: pl.Series, other_plant: str | None) -> list[Finding]:
    """Report rows whose machine is not among the `known` ones of the plant's telemetry.

    `other_plant` is the plant that was probably meant, if this one has no telemetry at all.
    """
    strange = rows.filter(~pl.col("machine").is_in(known.implode()))
    if strange.is_empty():
        return []
    machines = strange["machine"].unique().sort().to_list()
    names = ", ".join(add_suggestion(name, nearest_name(name, known)) for name in machines[:MAX_EXAMPLES])
    whose = "that telemetry has not"
    if known.is_empty():
        whose = f"of {add_suggestion('a plant without telemetry', other_plant)}"
    failures = f", {n} of them failures," if "kind" in rows and (n := strange.filter(kind="failure").height) else ""
    detail = f"{strange.height} rows{failures} of {len(machines)} machines {whose}: {names}"
    return [report("unknown_machine", table, detail, machine=machines[0])]


def find_unwatched_failures(failures: pl.DataFrame, rows: pl.DataFrame, slack: timedelta) -> list[Finding]:
    """Report a plant's failures if none lies within its machine's readings, or less than `slack` after them."""
    spans = rows.group_by("machine").agg(first=pl.col("time").min(), last=pl.col("time").max())
    placed = failures.join(spans, on="machine").sort("time")
    if placed.is_empty() or placed.select(pl.col("time").is_between("first", pl.col("last") + slack).any()).item():
        return []
    days = [placed["time"][0], placed["time"][-1], placed["first"].min(), placed["last"].max()]
    since, until, first, last = (f"{day:%Y-%m-%d}" for day in days)
    failed = f"none of {count_things(placed.height, 'failure')} from {since} to {until} is in its machine's readings"
    detail = f"{failed}, from {first} to {last}, so that no row comes before one: compare the times of both tables"
    return [report("unwatched_failure", "events", detail, since=days[0], until=days[1])]


def find_renamed_machines(rows: pl.DataFrame) -> list[Finding]:
    """Report machines of telemetry that begin after one ended whose name differs in case, zeros or punctuation only.

    Where the difference cannot be seen, they are reported at any time.
    """
    ends = {"since": pl.col("time").min(), "until": pl.col("time").max()}
    spans = rows.group_by("machine").agg(**ends).sort("since", "machine")
    findings = list[Finding]()
    before = dict[tuple[str, ...], tuple[str, datetime]]()
    for machine, since, until in spans.iter_rows():
        letters, numbers = part_digits(machine)
        known = before.get((letters, *numbers)) if letters or numbers else None
        if known and (known[1] < since or look_alike(machine, known[0])):
            shown, other = map(shorten, tell_apart(machine, known[0]))
            how = f"{shown} begins where {other} ends" if known[1] < since else f"{shown} looks as {other} does"
            detail = f"{how}: if they are one, give it one name in all tables"
            findings.append(report("renamed_machine", "telemetry", detail, machine=machine, since=since))
        before[letters, *numbers] = machine, until
    return findings


def add_suggestion(name: str, meant: str | None) -> str:
    """Return a name followed by the one that was probably meant, if any."""
    if not meant:
        return name
    shown, other = tell_apart(name, meant)
    return f"{shown} (did you mean {other}?)"


def find_late_rows(table: str, rows: pl.DataFrame) -> list[Finding]:
    """Report, per batch, rows whose ``time`` is before their batch ``begins``."""
    time = pl.col("time")
    by_batch = rows.filter(time < pl.col("begins")).group_by("begins")
    late = by_batch.agg(pl.len(), since=time.min(), until=time.max()).sort("begins")
    findings = []
    for begins, count, since, until in late.iter_rows():
        detail = f"{count} rows, up to {(begins - since) / HOUR:.1f} h before the batch"
        findings.append(report("late_rows", table, detail, batch=begins.date(), since=since, until=until))
    return findings


def find_outages(rows: pl.DataFrame, sensors: Mapping[str, pl.Expr], outage_hours: float) -> list[Finding]:
    """Report machines without rows, and sensors without values, for longer than `outage_hours`.

    `rows` are sorted by machine and time. `sensors` has for each sensor the expression of the rows whose delivery had
    its column: a column that was not delivered at all is not an outage of each machine.
    """
    gap, since = pl.col("until") - pl.col("since"), pl.col("time").shift().over("machine")
    gaps = rows.select("machine", pl.lit(None, pl.String).alias("column"), since=since, until="time")
    limit = pl.max_horizontal(pl.duration(hours=outage_hours), gap.median() * SLOW)
    limits = gaps.group_by("machine").agg(limit=limit)
    silences = gaps.join(limits, on="machine", maintain_order="left").filter(gap > pl.col("limit")).drop("limit")
    with_gaps = {sensor: delivered for sensor, delivered in sensors.items() if rows[sensor].null_count()}
    dark = [_find_nulls(rows.filter(delivered), sensor, limits) for sensor, delivered in with_gaps.items()]
    findings = []
    for outage in pl.concat([silences, *dark]).iter_rows(named=True):
        nothing = "a value" if outage["column"] else "a row"
        detail = f"{(outage['until'] - outage['since']) / HOUR:.1f} h without {nothing}"
        findings.append(report("outage", "telemetry", detail, **outage))
    return findings


def _find_nulls(rows: pl.DataFrame, sensor: str, limits: pl.DataFrame) -> pl.DataFrame:
    known = pl.when(pl.col(sensor).is_not_null()).then(pl.col("time"))
    before, after = known.forward_fill().over("machine"), known.backward_fill().over("machine")
    return (
        rows.select("machine", "time", since=before, until=after, is_gap=pl.col(sensor).is_null())
        .filter("is_gap")
        .group_by("machine", "since", "until", maintain_order=True)
        .agg(first=pl.col("time").min(), last=pl.col("time").max())
        .select(
            "machine",
            column=pl.lit(sensor),
            since=pl.coalesce("since", "first"),
            until=pl.coalesce("until", "last"),
        )
        .join(limits, on="machine", maintain_order="left")
        .filter(pl.col("until") - pl.col("since") > pl.col("limit"))
        .drop("limit")
    )


def find_stuck_sensors(rows: pl.DataFrame, sensors: Sequence[str], stuck_hours: float) -> list[Finding]:
    """Report sensors that repeat one value for at least `stuck_hours` while others of the machine move.

    A sensor that is constant over the whole record of some machines is reported once, as ``constant_sensor``.
    `rows` have ``machine``, ``time`` and the sensors, and are sorted by machine and time.
    """
    same_machine = pl.col("machine") == pl.col("machine").shift()
    moved = rows.select(((pl.col(name) != pl.col(name).shift()) & same_machine).fill_null(False) for name in sensors)
    moves = moved.select(pl.sum_horizontal(pl.lit(0, pl.Int32), pl.all().cast(pl.Int32))).to_series()
    findings: list[Finding] = []
    for name in sensors:
        others = (moves - moved[name].cast(pl.Int32)).cum_sum()
        present = rows.select("machine", "time", others=others, value=name).drop_nulls("value")
        findings += _judge_runs(_find_runs(present), name, stuck_hours)
    return findings


def _judge_runs(runs: pl.DataFrame, sensor: str, stuck_hours: float) -> list[Finding]:
    is_long = (pl.col("lasted") >= pl.duration(hours=stuck_hours)) & (pl.col("rows") >= MIN_REPEATS)
    judged = (
        runs.with_columns(lasted=pl.col("last") - pl.col("first"))
        .filter(is_long.any().over("machine"))
        .with_columns(
            runs=pl.len().over("machine"),
            runs_of_value=pl.len().over("machine", "value"),
            usual=pl.col("lasted").median().over("machine"),
        )
        .filter(is_long)
    )
    stuck = judged.filter(
        pl.col("others_last") > pl.col("others_first"),
        pl.col("lasted") >= LONG_RUN * pl.col("usual"),
        pl.col("runs_of_value") <= RARE_VALUE * pl.col("runs"),
    )
    findings = []
    for run in stuck.iter_rows(named=True):
        place = {"machine": run["machine"], "column": sensor, "since": run["first"], "until": run["last"]}
        findings.append(
            report("stuck_sensor", "telemetry", f"{run['value']} for {run['lasted'] / HOUR:.1f} h", **place)
        )
    if constant := judged.filter(pl.col("runs") == 1).height:
        share = f"on {constant} of {runs['machine'].n_unique()} machines"
        findings.append(report("constant_sensor", "telemetry", share, column=sensor))
    return findings


def _find_runs(rows: pl.DataFrame) -> pl.DataFrame:
    """Return one row per stretch in which a machine repeats one value; `rows` hold machine, time, others and value.

    Columns are the machine, the value, the number of rows, the first and last time, and ``others`` (how often other
    sensors have moved so far) at each of the two.
    """
    is_start = pl.any_horizontal(pl.col("machine", "value").ne_missing(pl.col("machine", "value").shift()))
    starts = rows.select(is_start.arg_true()).to_series()
    ends = starts.shift(-1, fill_value=rows.height) - 1
    last = rows[ends].select(last="time", others_last="others")
    first = rows[starts].select("machine", "value", first="time", others_first="others")
    return first.with_columns(*last, rows=ends - starts + 1)
