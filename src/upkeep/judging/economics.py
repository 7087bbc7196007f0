"""Money: the cost of following the alarms, of running to failure, and of a perfect oracle.

All candidates are counted alike: a failure caught in time costs a planned repair, any other an unplanned stop, and a
false episode (see :mod:`upkeep.judging.episodes`) an inspection that finds nothing. A prevented failure that a
candidate had not warned of by then counts between the two (:func:`expect_caught`). Fixed-interval maintenance is
counted as if each due date were an alarm. That favours it, since real fixed-interval maintenance replaces the part
without looking.
"""

from typing import TypeVar

import numpy as np
import polars as pl

from upkeep.core.params import Costs
from upkeep.core.types import Floats
from upkeep.judging.episodes import HOURS_PER_MONTH, find_episodes, judge_failures, read_timeline

Amount = TypeVar("Amount", float, Floats, pl.Expr)

MAX_THRESHOLDS = 200


def policy_cost(failures: Amount, caught: Amount, false_alarms: Amount, costs: Costs) -> Amount:
    """Return the cost of following a policy's alarms."""
    return (failures - caught) * costs.failure + caught * costs.planned_repair + false_alarms * costs.false_alarm


def expect_caught(failures: Floats, caught: Floats, left_open: Floats) -> Floats:
    """Return how many failures are caught, in expectation, where of `left_open` ones nobody knows.

    A candidate is taken to catch these as often as the others, with one caught and one missed added by Laplace's rule
    of succession. Counted as missed, they would favour whoever raised the alarms that were answered, and most of all a
    model that always does; counted as caught, one that never does.
    """
    return caught + left_open * (caught + 1) / (failures - left_open + 2)


def run_to_failure_cost(failures: Amount, costs: Costs) -> Amount:
    """Return the cost of doing nothing until a machine stops."""
    return failures * costs.failure


def oracle_cost(failures: Amount, costs: Costs) -> Amount:
    """Return the least cost that perfect foresight could reach: each failure planned, if that is cheaper."""
    return failures * min(costs.failure, costs.planned_repair)


def tally_metrics(tally: pl.DataFrame, multiplicity: Floats, costs: Costs) -> dict[str, Floats]:
    """Return what planners ask of a policy, once per resample of machines, each of shape (n_resamples,).

    ``failures_caught`` (share), ``false_alarms_per_machine_month``, ``cost`` and ``cost_saving`` (share of what the
    oracle saves against run-to-failure; negative if the alarms cost more than they save) are NaN where the divisor is
    0, or where no row is healthy and so no alarm could have been false. `tally` is from
    :func:`upkeep.judging.episodes.tally_machines`, `multiplicity` how often each resample counts each machine, shape
    (n_machines, n_resamples).
    """
    columns = tally.select("hours", "failures", "caught", "open", "false_alarms", "healthy").to_numpy()
    hours, failures, caught, left_open, false_alarms, healthy = columns.astype(np.float64).T @ multiplicity
    caught = expect_caught(failures, caught, left_open)
    false_alarms = np.where(healthy > 0, false_alarms, np.nan)
    cost = policy_cost(failures, caught, false_alarms, costs)
    unplanned = run_to_failure_cost(failures, costs)
    return {
        "failures_caught": divide_defined(caught, failures),
        "false_alarms_per_machine_month": divide_defined(false_alarms * HOURS_PER_MONTH, hours),
        "cost": cost,
        "cost_saving": divide_defined(unplanned - cost, unplanned - oracle_cost(failures, costs)),
    }


def divide_defined(part: Floats, whole: Floats) -> Floats:
    """Return part / whole, NaN where the whole is 0."""
    return part / np.where(whole == 0, np.nan, whole)


def break_even(costs: Costs) -> float:
    """Return the probability at which visiting a machine costs as much as waiting, in expectation; at most 1.

    From ``p * planned_repair + (1 - p) * false_alarm = p * failure`` (Elkan 2001, The foundations of cost-sensitive
    learning).
    """
    gain = costs.failure - costs.planned_repair
    return costs.false_alarm / (costs.false_alarm + gain) if gain > 0 else 1.0


def candidate_thresholds(probability: Floats) -> Floats:
    """Return the thresholds worth trying, ascending, shape (at most 200,); the last one lies above every probability.

    They are the observed probabilities at geometrically growing ranks, hence dense among the high ones, where the
    choice is made.
    """
    if probability.size == 0:
        return np.array([])
    descending = np.sort(probability)[::-1]
    ranks = np.unique(np.geomspace(1, descending.size, MAX_THRESHOLDS - 1).round().astype(np.int64)) - 1
    above = np.nextafter(np.float32(descending[0]), np.float32(np.inf))  # the next probability that can be
    return np.append(np.unique(descending[ranks]), np.float64(above))


def cost_by_threshold(
    predictions: pl.DataFrame, costs: Costs, lead_time_hours: float, horizon_hours: float
) -> pl.DataFrame:
    """Follow the alarms that each threshold would raise on one candidate's rows.

    Columns are threshold (ascending), failures, caught, false_alarms and cost; ``caught`` leaves out open failures, of
    which the cost has a share.
    """
    rows = predictions.sort("plant", "machine", "time").with_columns(alarm=pl.lit(False))
    timeline, probability = read_timeline(rows, horizon_hours), rows["probability"].to_numpy()
    thresholds = candidate_thresholds(probability)
    judged = judge_failures(rows, lead_time_hours, horizon_hours)
    prevented, happened = (np.sort(judged.filter(prevented=side)["peak"].to_numpy()) for side in (True, False))
    left_open, missed = (np.searchsorted(peaks, thresholds).astype(np.float64) for peaks in (prevented, happened))
    failures = np.full(thresholds.size, float(judged.height))
    caught = failures - left_open - missed
    false_alarms = np.array([find_episodes(timeline, probability >= at)[1].sum() for at in thresholds], np.float64)
    counts = {"failures": failures, "caught": caught, "false_alarms": false_alarms}
    cost = policy_cost(failures, expect_caught(failures, caught, left_open), false_alarms, costs)
    whole = {name: count.astype(np.int64) for name, count in counts.items()}
    return pl.DataFrame({"threshold": thresholds, **whole, "cost": cost})


def best_threshold(predictions: pl.DataFrame, costs: Costs, lead_time_hours: float, horizon_hours: float) -> float:
    """Return the threshold at which following the alarms on one candidate's rows costs least.

    Of equally cheap thresholds it is the middle of the longest run of neighbours, which other data would move least. If
    raising no alarm is cheapest, as without a known failure, it lies above every probability seen and is no lower than
    the costs' break-even probability.
    """
    table = cost_by_threshold(predictions, costs, lead_time_hours, horizon_hours)
    if table.is_empty():
        return break_even(costs)
    thresholds, cost = table["threshold"].to_numpy(), table["cost"].to_numpy()
    if cost[-1] == cost.min():
        return max(float(thresholds[-1]), break_even(costs))
    cheapest = np.flatnonzero(cost == cost.min())
    runs = np.split(cheapest, np.flatnonzero(np.diff(cheapest) > 1) + 1)
    longest = max(runs, key=len)
    return float(thresholds[longest[len(longest) // 2]])
