"""What a model must beat before its figures mean anything, and why a figure is unknown."""

import math
from collections.abc import Mapping, Sequence

from upkeep.judging.reports import ROW_FIGURES, CandidateReport, GroupReport, Metrics, Sanity

SHUFFLED, BEST_FEATURE = "shuffled_labels", "best_feature"
KNOWS_NOTHING = {"class_prior": "a constant", SHUFFLED: "the luckiest model of shuffled labels"}
"""Candidates that a model must surely beat."""
SIMPLE_RULES = {
    "fixed_interval": "hours in service alone",
    "error_count": "the number of errors alone",
    BEST_FEATURE: "the best single feature",
}
"""Candidates that must not be surely better than a model, or it is not needed."""
REFERENCES = KNOWS_NOTHING | SIMPLE_RULES

WIDENED = 2  # percentile intervals of few machines are too narrow, so they are widened by this factor
NOT_KNOWN = "not known"  # how a sentence begins that says why there is no figure or comparison

OF_BOTH_CLASSES = {*ROW_FIGURES, "last_row_f1"}
OF_HEALTHY_ROWS = {"false_alarms_per_machine_month", "cost", "cost_saving"}
OF_FAILURES = {"failures_caught", "cost_saving", "median_lead_time_hours"}


def explain_unknown(metrics: Metrics, figure: str) -> str:
    """Return why a figure of test rows is unknown."""
    if not metrics.rows:
        return "no test rows"
    if figure in OF_BOTH_CLASSES and not metrics.positives:
        return "no failure ahead of any test row"
    if figure in OF_BOTH_CLASSES | OF_HEALTHY_ROWS and metrics.positives == metrics.rows:
        return "no healthy test row"
    if figure in OF_FAILURES and not metrics.failures:
        return "no failure with test rows early enough to catch it"
    return {
        "precision": "no alarm was raised",
        "last_row_f1": "no machine's last row is before a failure or raises an alarm, or all are",
        "median_lead_time_hours": "no failure was caught",
        "false_alarms_per_machine_month": "one row a machine spans no time",
        "cost_saving": "even perfect foresight saves nothing, as a failure costs no more than a planned repair",
    }.get(figure, "it was not computed")


def fewest_failures(confidence: float) -> int:
    """Return how many failures are needed to tell a model from chance with this confidence.

    Chance ranks all of n failures above a reference with probability ``2 ** -n``, and all below it with the same (the
    sign test; David and Nagaraja 2003, Order Statistics, section 7.1).
    """
    return math.ceil(1 - math.log2(1 - confidence))


def judge_sanity(
    metrics: Metrics, candidates: Mapping[str, CandidateReport], confidence: float, doubts: Sequence[str]
) -> Sanity:
    """Compare the chosen models with simple candidates; `doubts` say why the rows may mislead."""
    needed = fewest_failures(confidence)
    if metrics.average_precision is None:
        faults = [f"{NOT_KNOWN}: {explain_unknown(metrics, 'average_precision')}"]
    elif metrics.failures < needed:
        faults = [f"{NOT_KNOWN} to be above chance: failures in test rows are {metrics.failures}, {needed} are needed"]
    else:
        faults = _compare_with_references(metrics.average_precision, candidates, WIDENED)
    reached = {name: candidates[name].metrics.average_precision for name in REFERENCES if name in candidates}
    return Sanity(
        base_rate=metrics.positives / metrics.rows if metrics.rows else None,
        average_precision=reached,
        faults=[f"{NOT_KNOWN}: {doubt}" for doubt in doubts] + faults,
    )


def find_chance(group: GroupReport) -> list[str]:
    """Return why a group's models are known to rank as chance does, by plain intervals; nothing if they are not.

    A plant's few failures seldom suffice to be sure that a model is good, but they show that one is bad.
    """
    found = group.metrics.average_precision
    if found is None or all(fault.startswith(NOT_KNOWN) for fault in group.sanity.faults):
        return []
    faults = _compare_with_references(found, group.candidates, 1)
    return [fault for fault in faults if not fault.startswith(NOT_KNOWN)]


def _compare_with_references(found: float, candidates: Mapping[str, CandidateReport], widening: float) -> list[str]:
    """Return why the chosen models are not known to beat each candidate, for those of which that is so.

    A candidate that knows nothing must be beaten by an interval widened by this factor; a simple rule must not be
    surely better.
    """
    faults = []
    for name, words in REFERENCES.items():
        reference = candidates.get(name)
        if reference is None or reference.lead is None:
            faults.append(f"{NOT_KNOWN} to be above {words}: no such candidate was judged on all its machines")
            continue
        beside = f"{words}: {found:.3f} against {reference.metrics.average_precision or 0:.3f}"
        if reference.lead_interval is None:
            faults.append(f"{NOT_KNOWN} to be above {beside}, for there are no resamples of two failing machines")
            continue
        lead, (low, high) = reference.lead, reference.lead_interval
        at_worst = lead + widening * (low - lead)
        if name in SIMPLE_RULES and high <= 0:
            faults.append(f"below {beside}, by {-high:.3f} to {-low:.3f}")
        elif name in KNOWS_NOTHING and at_worst <= 0:
            wide = " with twice the interval" if widening == WIDENED else ""
            faults.append(f"not surely above {beside}, at worst by {at_worst:.3f}{wide}")
    return faults
