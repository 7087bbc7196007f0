"""Estimates of precision and cost before outcomes are known, and whether the outcomes agreed with them.

Each machine's time is cut into *stretches*. A stretch begins at an alarm, as an episode does, or at the end of the one
before; it ends after a horizon or, without an alarm, at the next alarm if that comes first. What came of the stretches
of validation and test rows, by their highest probability, tells what to expect of the logged ones. docs/monitoring.md
says when that holds: estimates are shown, and decide nothing.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal, NamedTuple

import numpy as np
import polars as pl
from scipy.stats import binom

from upkeep.core.params import Params
from upkeep.core.rounding import FITTED, significant
from upkeep.core.types import Booleans, Floats, Ints
from upkeep.judging.drift import Window
from upkeep.judging.economics import divide_defined, policy_cost
from upkeep.judging.episodes import HOURS_PER_MONTH, MACHINE, judge_failures, read_timeline
from upkeep.judging.reports import Interval, PlantDrift
from upkeep.judging.resampling import draw_machines, interval
from upkeep.model.calibration import logistic, logit
from upkeep.model.scoring import RANGE_LEFT
from upkeep.production.outcomes import IS_SHOWN, is_in_time

FEWEST_ALARMS = 10  # alarm episodes of validation and test rows, at least, that tell what a probability means
MOST_OUTSIDE = 0.1  # share of logged rows outside of what training rows held, above which nothing is estimated
MOST_OPEN = 0.25  # share of a window's alarms whose outcome will never be known, above which it is not compared
DOUBTFUL = 0.1  # probability of as many misses by chance below which estimates are not said to agree
NEWTON_STEPS, SMALLEST_STEP = 30, 1e-8  # it usually takes six until parameters have more digits than are kept


class Estimate(NamedTuple):
    """What is expected of one plant's alarms in a window, with intervals of what may come true.

    `monthly_cost` is in the currency of ``evaluate.costs`` and leaves out failures that no prediction covers. `reasons`
    say why nothing is estimated; none if it is. `precision` is also None where no alarm was raised.
    """

    plant: str
    model_version: str
    window: Window
    reasons: list[str]
    alarms: int = 0
    precision: float | None = None
    precision_interval: Interval = None
    monthly_cost: float | None = None
    monthly_cost_interval: Interval = None

    def __str__(self) -> str:
        """Return what is expected, or why nothing is."""
        since, cost = f"from {self.window.start:%Y-%m-%d} on", self.monthly_cost_interval
        if cost is None:
            return f"nothing is expected {since}: {'; '.join(self.reasons)}"
        right = self.precision_interval
        share = f", {right[0]:.0%} to {right[1]:.0%} of them right," if right else ""
        return f"expected {since}: {self.alarms} alarms{share} and {cost[0]:,.0f} to {cost[1]:,.0f} of cost a month"


class Realised(NamedTuple):
    """What came true in a window that was estimated, as a range where not every alarm's outcome is known.

    `missed` tells by figure whether its interval holds none of that range, None where there is nothing to compare.
    """

    precision: Interval
    monthly_cost: Interval
    missed: dict[str, bool | None]


class Agreement(NamedTuple):
    """Whether outcomes lie outside of their intervals more often than chance explains, and the windows compared."""

    verdict: Literal["agrees", "disagrees", "unknown"]
    why: str
    windows: list[Realised]


ESTIMATED_FROM = [*MACHINE, "time", "split", "chosen", "hours_to_failure", "prevented", "probability", "alarm"]
"""What is read of the predictions that `train` wrote; those of an older version may lack a column."""


def estimate_plant(
    logged: pl.DataFrame,
    predictions: pl.DataFrame,
    windows: Mapping[Window, PlantDrift | None],
    params: Params,
    *,
    plant: str,
    model_version: str,
) -> list[Estimate]:
    """Estimate what will come of a plant's predictions of each window.

    `logged` are rows of :data:`upkeep.scoring.prediction_log.SCHEMA`, `predictions` what ``train`` wrote of the plant
    for the same model, and `windows` map to the drift that was found of them, if it was looked for.
    """
    horizon = timedelta(hours=params.dataset.horizon_hours)
    shown = logged.filter(IS_SHOWN, is_in_time(horizon), model_version=model_version)
    # As in outcomes, the highest probability counts where a row was scored twice.
    own = shown.sort("probability", "scored_at").unique([*MACHINE, "time"], keep="last").sort(*MACHINE, "time")
    own = own.with_columns(hours_to_failure=pl.lit(None, pl.Float64), prevented=pl.lit(value=False))
    known = predictions.filter("chosen", pl.col("split").is_in(["validation", "test"])).sort(*MACHINE, "time")
    spacing = own.select(pl.col("time").diff().over(MACHINE).median()).item()
    if spacing is not None:  # as seldom as the log's rows
        known = known.unique([*MACHINE, pl.col("time").dt.truncate(spacing)], keep="first", maintain_order=True)
    settled, stretches = cut_stretches(known, params), cut_stretches(own, params)
    estimates = []
    for window, drift in windows.items():
        is_inside = pl.col("time").is_between(*window, closed="left")
        doubts = list(_find_doubts(own.filter(is_inside), settled, drift))
        expected = {} if doubts else _expect(settled, stretches.filter(is_inside), window, params)
        estimates.append(Estimate(plant, model_version, window, doubts, **expected))
    return estimates


def _find_doubts(rows: pl.DataFrame, settled: pl.DataFrame, drift: PlantDrift | None) -> Iterator[str]:
    if rows.is_empty():
        yield "the model's predictions of this window are not in the log"
    outside = rows.filter(pl.col("warnings").list.eval(pl.element().struct.field("code") == RANGE_LEFT).list.any())
    if outside.height > MOST_OUTSIDE * rows.height:
        yield f"{outside.height} of {rows.height} rows lie outside of what training rows held"
    if drifted := [name for name, column in drift.columns.items() if column.drifted] if drift else []:
        yield f"drifted from the training window: {', '.join(drifted)}"
    alarms = settled.filter("alarm").height
    if alarms < FEWEST_ALARMS:
        yield f"validation and test rows hold {alarms} alarms, {FEWEST_ALARMS} are needed to tell what one means"
    elif settled.n_unique(MACHINE) < 2:
        yield "validation and test rows are of one machine, which tells no interval"


def cut_stretches(rows: pl.DataFrame, params: Params) -> pl.DataFrame:
    """Return a row per stretch: plant, machine, time of its first row, alarm, log-odds of its highest probability.

    What came of it is ``true``, whether a failure follows one of its alarms within a horizon, and the numbers of
    failures ``caught`` by its alarm, and ``missed``, of which the last chance to warn in time lay in it. Of a prevented
    failure the last chance is not known, so it is not missed.
    """
    lead, horizon = params.evaluate.lead_time_hours, params.dataset.horizon_hours
    timeline, alarm = read_timeline(rows, horizon), rows["alarm"].to_numpy()
    starts = _find_starts(timeline.horizon_end, alarm)
    stretches = rows.select(*MACHINE, "time", "alarm")[starts].with_columns(
        log_odds=logit(np.maximum.reduceat(rows["probability"].to_numpy(), starts)),
        true=np.logical_or.reduceat(alarm & timeline.failing, starts),
    )
    warned = (pl.col("warning_hours").fill_null(lead) * 3.6e9).round().cast(pl.Int64)
    # Times of failures are rounded to a second, which must not move one into the stretch before.
    last_time = pl.col("failed_at") - pl.duration(microseconds=warned) + timedelta(seconds=1)
    failures = judge_failures(rows, lead, horizon).select(*MACHINE, "caught", "prevented", time=last_time)
    begun = stretches.select(*MACHINE, "time", start="time")
    within = failures.join_asof(begun, on="time", by=MACHINE, check_sortedness=False)
    missed = (~pl.col("caught") & ~pl.col("prevented")).sum()
    counts = within.group_by(*MACHINE, time="start").agg(pl.sum("caught"), missed=missed)
    joined = stretches.join(counts, on=[*MACHINE, "time"], how="left", maintain_order="left")
    return joined.with_columns(pl.col("caught", "missed").fill_null(0))


def _find_starts(horizon_end: Ints, alarm: Booleans) -> Ints:
    """Return the first row of each stretch; its alarms open the episodes that `find_episodes` finds."""
    rows = np.append(np.flatnonzero(alarm), alarm.size)
    next_alarm = rows[np.searchsorted(rows, np.arange(alarm.size))]
    ends = np.where(alarm, horizon_end, np.minimum(horizon_end, next_alarm)).tolist()
    starts, row = [], 0
    while row < alarm.size:
        starts.append(row)
        row = ends[row]
    return np.array(starts, dtype=np.int64)


def _expect(settled: pl.DataFrame, logged: pl.DataFrame, window: Window, params: Params) -> dict[str, Any]:
    """Return the figures of an :class:`Estimate` for logged stretches, given what came of `settled` ones.

    Intervals cover what may come true: machines are drawn with replacement and the chances fitted anew on each draw;
    then each alarm is true or false by its chance, and failures are missed as in a Poisson process.
    """
    how, alarms = params.evaluate, logged.filter("alarm").height
    of_machine = settled.select(pl.struct(MACHINE).rle_id()).to_series().to_numpy()
    n_machines = int(of_machine[-1]) + 1
    # The first column is the machines as they are.
    draws = draw_machines(n_machines, how.bootstrap, params.model.seed)
    times = np.column_stack([np.ones(n_machines), draws])[of_machine]
    true_chance = _tell_chances(settled, logged, times, alarm=True, happened="true")
    missed_chance = _tell_chances(settled, logged, times, alarm=False, happened="missed")
    rng = np.random.default_rng(params.model.seed)
    true = true_chance.sum(axis=0)
    true[1:] = (rng.random(true_chance[:, 1:].shape) < true_chance[:, 1:]).sum(axis=0)
    # Some alarms come too late, and two alarms may be for the same failure.
    caught_each = np.minimum(_average_failures(settled, times, "caught", true=True, usual=1.0), 1)
    late = [_average_failures(settled, times, "missed", true=which, usual=0.0) for which in (True, False)]
    missed = significant(missed_chance.sum(axis=0) + true * late[0] + (alarms - true) * late[1], FITTED)
    caught = true * caught_each
    caught[1:], missed[1:] = rng.binomial(true[1:].astype(np.int64), caught_each[1:]), rng.poisson(missed[1:])
    cost = policy_cost(caught + missed, caught, alarms - true, how.costs)
    monthly = cost * HOURS_PER_MONTH / ((window.end - window.start) / timedelta(hours=1))
    precision = divide_defined(true, np.array(alarms))
    return {
        "alarms": alarms,
        "precision": precision[0] if alarms else None,
        "precision_interval": interval(precision[1:], how.confidence),
        "monthly_cost": monthly[0],
        "monthly_cost_interval": interval(monthly[1:], how.confidence),
    }


def _tell_chances(settled: pl.DataFrame, logged: pl.DataFrame, times: Floats, *, alarm: bool, happened: str) -> Floats:
    """Return the chances that it `happened` to logged stretches with this `alarm`, shape (n_stretches, n_resamples)."""
    is_such = settled["alarm"].to_numpy() == alarm
    known, ahead = settled.filter(is_such), logged.filter(pl.col("alarm") == alarm)["log_odds"].to_numpy()
    intercept, slope = _fit_chances(known["log_odds"].to_numpy(), known[happened].to_numpy() > 0, times[is_such])
    return significant(logistic(intercept + slope * ahead[:, None]), FITTED)


def _fit_chances(log_odds: Floats, happened: Booleans, times: Floats) -> Floats:
    """Fit Platt scaling, with his regularised targets, to the same stretches counted differently in each resample.

    Arrays have shapes (n,), (n,) and (n, n_resamples); the result, intercepts and slopes, has (2, n_resamples). The
    slope is drawn towards 1, that of log-odds that mean what they say, as by a prior of standard deviation 1. One call
    of Newton's method for all resamples takes a hundredth of the time that as many of an optimiser take.
    """
    positive, negative = times[happened].sum(axis=0), times[~happened].sum(axis=0)
    target = np.where(happened[:, None], (positive + 1) / (positive + 2), 1 / (negative + 2))
    score, middle = log_odds[:, None], log_odds.mean() if log_odds.size else 0.0
    intercept, slope = np.log((positive + 1) / (negative + 1)) - middle, np.ones_like(positive)
    for _ in range(NEWTON_STEPS):
        chance = logistic(intercept + slope * score)
        error, spread = times * (chance - target), times * chance * (1 - chance)
        down = error.sum(axis=0), (error * score).sum(axis=0) + slope - 1
        a, b, c = spread.sum(axis=0) + 1e-9, (spread * score).sum(axis=0), (spread * score**2).sum(axis=0) + 1
        steps = np.clip([c * down[0] - b * down[1], a * down[1] - b * down[0]] / (a * c - b**2), -2, 2)
        intercept, slope = intercept - steps[0], slope - steps[1]
        if np.abs(steps).max() < SMALLEST_STEP:
            break
    return significant([intercept, slope], FITTED)


def _average_failures(settled: pl.DataFrame, times: Floats, number: str, *, true: bool, usual: float) -> Floats:
    """Return the mean `number` of failures of true, or false, alarms, by resample; `usual` where there are none."""
    is_such = (settled["alarm"] & (settled["true"] == true)).to_numpy()
    total, n = settled[number].to_numpy()[is_such] @ times[is_such], times[is_such].sum(axis=0)
    return np.where(n > 0, total / np.maximum(n, 1), usual)


def compare_with_outcomes(
    estimates: Sequence[Estimate], ledger: pl.DataFrame, known_at: datetime, params: Params
) -> Agreement:
    """Compare one plant's estimates of windows that do not overlap with what came true.

    `ledger` has the columns of :data:`upkeep.production.outcomes.LEDGER` and one row per key, as known at `known_at`. A
    window is compared once a horizon has passed since its end and none of its alarms is pending.
    """
    realised = [found for each in estimates if (found := _read_outcomes(each, ledger, known_at, params))]
    by_figure = {
        name: [missed for found in realised if (missed := found.missed[name]) is not None]
        for name in ("precision", "monthly cost")
    }
    by_chance = 1 - params.evaluate.confidence
    level = by_chance / len(by_figure)
    why = "; ".join(
        f"{name} outside of its interval in {sum(of)} of {len(of)} windows" for name, of in by_figure.items()
    )
    likely = min(float(binom.sf(sum(of) - 1, len(of), by_chance)) for of in by_figure.values())
    if likely <= level:
        return Agreement("disagrees", why, realised)
    if by_chance ** len(realised) > level:
        why = f"{len(realised)} of {len(estimates)} windows can be compared, too few to tell"
        return Agreement("unknown", why, realised)
    if likely <= DOUBTFUL:
        return Agreement("unknown", f"{why}: too often to agree, too seldom to be sure", realised)
    return Agreement("agrees", why, realised)


def _read_outcomes(estimate: Estimate, ledger: pl.DataFrame, known_at: datetime, params: Params) -> Realised | None:
    """Return what came true of an estimate; None where it cannot be compared."""
    window = estimate.window
    if estimate.reasons or window.end + timedelta(hours=params.dataset.horizon_hours) > known_at:
        return None
    named = {"plant": estimate.plant, "model_version": estimate.model_version, "role": "champion"}
    count = Counter(ledger.filter(pl.col("at").is_between(*window, closed="left"), **named)["outcome"])
    true, false = count["failed"] + count["defect_found"], count["survived"] + count["nothing_found"]
    open_ = count["no_code"] + count["censored"]  # which will never be known
    alarms, costs = true + false + open_, params.evaluate.costs
    if count["pending"] or open_ > MOST_OPEN * alarms or (estimate.alarms and not alarms):
        return None
    planned = count["caught"] + count["defect_found"]
    spent = policy_cost(planned + count["missed"], planned, false, costs)
    months = (window.end - window.start) / timedelta(hours=HOURS_PER_MONTH)
    cost = [(spent + open_ * each) / months for each in sorted((costs.planned_repair, costs.false_alarm))]
    precision = [true / alarms, (true + open_) / alarms] if alarms else None
    missed = {
        "precision": _lie_apart(precision, estimate.precision_interval),
        "monthly cost": _lie_apart(cost, estimate.monthly_cost_interval),
    }
    return Realised(precision, cost, missed)


def _lie_apart(realised: Interval, expected: Interval) -> bool | None:
    """Return whether two ranges share nothing; None if there are not two."""
    return (realised[0] > expected[1] or realised[1] < expected[0]) if realised and expected else None
