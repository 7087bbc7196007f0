"""What a model must beat before its figures mean anything, and why a figure is not known."""

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
"""Candidates that may not be surely better than a model, or it is not needed."""
REFERENCES = KNOWS_NOTHING | SIMPLE_RULES

WIDENED = 2
"""Percentile intervals of few machines are too narrow: to be sure, they are taken twice as wide."""

NOT_KNOWN = "not known"
"""How a sentence begins that says of a figure or a comparison why there is none."""

OF_BOTH_CLASSES = {*ROW_FIGURES, "last_row_f1"}
OF_HEALTHY_ROWS = {"false_alarms_per_machine_month", "cost", "cost_saving"}
OF_FAILURES = {"failures_caught", "cost_saving", "median_lead_time_hours"}


def explain_unknown(metrics: Metrics, figure: str) -> str:
    """Say why a figure of test rows is not known."""
    if figure not in Metrics.model_fields:
        return f"there is no figure of this name; there are {', '.join(sorted(OF_BOTH_CLASSES | OF_FAILURES))}"
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
    }.get(figure, "it was not computed")


def fewest_failures(confidence: float) -> int:
    """Return how many failures are needed before a model can be told from chance with this confidence.

    Chance ranks all of n failures above a reference with probability ``2 ** -n``, and all below with the same (the sign
    test; David and Nagaraja 2003, Order Statistics, section 7.1).
    """
    return math.ceil(1 - math.log2(1 - confidence))


def judge_sanity(
    metrics: Metrics, candidates: Mapping[str, CandidateReport], confidence: float, doubts: Sequence[str]
) -> Sanity:
    """Compare chosen models with candidates that know little, on the same resamples; `doubts` are about the rows."""
    needed = fewest_failures(confidence)
    if metrics.average_precision is None:
        faults = [f"{NOT_KNOWN}: {explain_unknown(metrics, 'average_precision')}"]
    elif metrics.failures < needed:
        faults = [f"{NOT_KNOWN} to be above chance: failures in test rows are {metrics.failures}, {needed} are needed"]
    else:
        faults = _compare_with_references(metrics.average_precision, candidates, WIDENED)
    return Sanity(
        base_rate=metrics.positives / metrics.rows if metrics.rows else None,
        average_precision={
            name: candidates[name].metrics.average_precision for name in REFERENCES if name in candidates
        },
        faults=[f"{NOT_KNOWN}: {doubt}" for doubt in doubts] + faults,
    )


def find_chance(group: GroupReport) -> list[str]:
    """Say why a group's models rank as chance does, by the plain interval; nothing if they do not, or nobody can tell.

    Few failures in a plant are seldom enough to be sure of a good model, but a bad one shows.
    """
    if group.metrics.average_precision is None or not any(map(_is_known, group.sanity.faults)):
        return []
    return list(filter(_is_known, _compare_with_references(group.metrics.average_precision, group.candidates, 1)))


def _is_known(fault: str) -> bool:
    return not fault.startswith(NOT_KNOWN)


def _compare_with_references(found: float, candidates: Mapping[str, CandidateReport], widening: float) -> list[str]:
    compared = (_find_fault(found, candidates.get(name), name, widening) for name in REFERENCES)
    return [fault for fault in compared if fault]


def _find_fault(found: float, reference: CandidateReport | None, name: str, widening: float) -> str:
    """Say why the chosen models are not known to beat a candidate; nothing if they are.

    One that knows nothing must be beaten with an interval so many times as wide; a simple rule must not be surely
    better.
    """
    words = REFERENCES[name]
    if reference is None or reference.chosen_exceeds is None:
        return f"{NOT_KNOWN} to be above {words}: no such candidate was judged on all its machines"
    exceeds = reference.chosen_exceeds["average_precision"]
    beside = f"{words}: {found:.3f} against {reference.metrics.average_precision or 0:.3f}"
    if exceeds.interval is None or exceeds.difference is None:
        return f"{NOT_KNOWN} to be above {beside}, for there are no resamples of two failing machines"
    low, high = exceeds.interval
    if name in SIMPLE_RULES:
        return f"below {beside}, by {-high:.3f} to {-low:.3f}" if high <= 0 else ""
    low, high = (exceeds.difference + widening * (end - exceeds.difference) for end in (low, high))
    wide = " with twice the interval" if widening == WIDENED else ""
    return f"not surely above {beside}, by {low:.3f} to {high:.3f}{wide}" if low <= 0 else ""
