"""The model card: what the models are for, how good they are and where they fail, in words for planner and engineer."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import Any, NamedTuple

from upkeep.core.params import Params
from upkeep.judging.acceptance import Check
from upkeep.reporting.markdown import format_interval, format_table, format_value

Report = Mapping[str, Any]


class Evidence(NamedTuple):
    """What the card is written from.

    Attributes
    ----------
    quality, training, evaluation, drift
        The reports of ``validate``, ``train``, ``evaluate`` and ``drift``.
    models
        Each saved model's ``model.json``, by plant.
    period
        First and last day of each plant's telemetry.
    checks
        The quality floors and whether they hold.
    """

    quality: Report
    training: Report
    evaluation: Report
    drift: Report
    models: Mapping[str, Report]
    period: Mapping[str, tuple[date, date]]
    checks: Sequence[Check]


def write_card(evidence: Evidence, params: Params) -> str:
    """Return the model card in Markdown; equal evidence gives an equal card."""
    sections = {
        "Verdict": _bullets(state_verdict(evidence.evaluation, evidence.checks, evidence.drift)),
        "What it is for": _describe_use(params),
        "How good it is, plant by plant": _describe_quality(evidence.evaluation, params),
        "The data": _describe_data(evidence),
        "The training": _describe_training(evidence.training),
        "Alarm thresholds and calibration": _describe_thresholds(evidence, params),
        "Known limits": _bullets([*_known_limits(params), *evidence.evaluation["notes"], *_training_notes(evidence)]),
        "Drift": _describe_drift(evidence.drift, params),
        "Checks before shipping": _describe_checks(evidence.checks, params),
        "How to read this card": _bullets(_explain_terms(params)),
        "Versions": _describe_versions(evidence.models),
    }
    title = f"# Model card: risk of a failure within {params.dataset.horizon_hours} hours\n"
    return "\n".join([title, *(f"## {heading}\n\n{text}" for heading, text in sections.items())])


def state_verdict(evaluation: Report, checks: Sequence[Check], drift: Report) -> list[str]:
    """Say in a few sentences whether the models can be used, for the card and the quality report.

    Parameters
    ----------
    evaluation
        ``reports/evaluation/evaluation.json``.
    checks
        The quality floors and whether they hold.
    drift
        ``reports/drift/drift.json``.
    """
    failed = [check for check in checks if not check.passed]
    metrics, costs = evaluation["overall"]["metrics"], evaluation["overall"]["costs"]
    short = "; ".join(f"{_words(check.name)} is {check.found}, {check.expected} is asked" for check in failed)
    holds = "**All quality floors hold.**" if checks else "**No quality floors are set** in `evaluate.floors`."
    verdict = [f"**Below its quality floors**: {short}." if failed else holds]
    if metrics["failures"]:
        verdict.append(
            f"On test data, which the models never saw, {_count_caught(metrics)} failures were caught in "
            f"time, with {metrics['false_alarms_per_machine_month']:.1f} false alarms per machine and month."
        )
        verdict.append(
            f"Following the alarms would have cost {costs['alarms']:,.0f}, against {costs['run_to_failure']:,.0f} for "
            f"running to failure and {costs['oracle']:,.0f} with perfect foresight."
        )
    else:
        verdict.append("No failure could have been caught in the test period, so how many would be is not known.")
    unsure = [plant for plant, found in evaluation["plants"].items() if not _is_reliable(found)]
    if unsure:
        verdict.append(f"Do not rely on it alone in {_list(unsure)}: whether alarms pay there is not sure.")
    drifted = [plant for plant, found in drift.items() if found["drifted"]]
    if drifted:
        verdict.append(f"The newest data of {_list(drifted)} no longer looks like what was trained on.")
    return verdict


def _is_reliable(found: Report) -> bool:
    """Tell whether following a plant's alarms pays even at the unlucky end of the interval."""
    interval, value = found["intervals"]["cost_saving"], found["metrics"]["cost_saving"]
    return value is not None and value > 0 and (interval is None or interval[0] > 0)


def _describe_use(params: Params) -> str:
    horizon, lead = params.dataset.horizon_hours, params.evaluate.lead_time_hours
    return _bullets(
        [
            f"**For** planning: it ranks machines by the probability of a failure in the next {horizon} hours, and "
            f"raises an alarm where a visit is worth its cost. An alarm is in time if it leaves at least {lead} hours.",
            "**Not for** protecting people or machines: it is no safety system and replaces no shutdown.",
            "**Not for** plants, machine models or sensors that it was not trained on, nor for blaming anyone: it "
            "finds patterns before failures, not their causes.",
        ]
    )


def _describe_quality(evaluation: Report, params: Params) -> str:
    header = ["plant", "model of", "average precision", "failures caught", "false alarms", "saved", "share of possible"]
    groups = {**evaluation["plants"], "**all plants**": evaluation["overall"]}
    rows = [[plant, *_quality_row(found)] for plant, found in groups.items()]
    costs = params.evaluate.costs
    return (
        f"On test rows, with {params.evaluate.confidence:.0%} intervals from resampled machines. False alarms are per "
        "machine and month. Saved is against running to failure, in the currency of `evaluate.costs`: "
        f"{costs.failure:,.0f} for a failure, {costs.planned_repair:,.0f} for a planned repair, "
        f"{costs.false_alarm:,.0f} for a false alarm.\n\n" + format_table(header, rows)
    )


def _quality_row(found: Report) -> list[object]:
    metrics, intervals, costs = found["metrics"], found["intervals"], found["costs"]
    return [
        found["chosen"] or "",
        format_interval(metrics["average_precision"], intervals["average_precision"]),
        _count_caught(metrics),
        format_interval(metrics["false_alarms_per_machine_month"], intervals["false_alarms_per_machine_month"]),
        costs["run_to_failure"] - costs["alarms"] if costs["alarms"] is not None else None,
        format_interval(metrics["cost_saving"], intervals["cost_saving"]),
    ]


def _count_caught(metrics: Report) -> str:
    failures = metrics["failures"]
    return f"{round(metrics['failures_caught'] * failures)} of {failures}" if failures else "no failures"


def _describe_data(evidence: Evidence) -> str:
    rows = []
    for plant, found in sorted(evidence.quality["plants"].items()):
        counts = found["tables"]["telemetry"]
        duplicates, quarantined = sum(counts["duplicates"].values()), sum(counts["quarantined"].values())
        first, last = evidence.period.get(plant, (None, None))
        rows.append([plant, first, last, counts["rows_in"], counts["clean"], duplicates, quarantined])
    return (
        "Telemetry rows, as `validate` counted them; each quarantined row is kept with its reason.\n\n"
        + format_table(["plant", "first day", "last day", "rows in", "clean", "duplicates", "quarantined"], rows)
    )


def _describe_training(training: Report) -> str:
    rows = [
        [plant, *(f"{_count(found, 'rows', split)} / {_count(found, 'positives', split)}" for split in found["rows"])]
        for plant, found in training["plants"].items()
    ]
    why = [f"{plant}: {found['chosen']}, for {found['why']}." for plant, found in training["plants"].items()]
    return (
        "Rows, and those of them before a failure. Of healthy training rows a sample with weights is kept.\n\n"
        + format_table(["plant", *next(iter(training["plants"].values()), {"rows": {}})["rows"]], rows)
        + f"\nWhich model was chosen, on validation rows:\n\n{_bullets(why)}"
    )


def _count(found: Report, what: str, split: str) -> str:
    return format_value(found[what][split])


def _describe_thresholds(evidence: Evidence, params: Params) -> str:
    rows = []
    for plant, found in evidence.training["plants"].items():
        winner, metrics = found["candidates"][found["chosen"]], evidence.evaluation["plants"][plant]["metrics"]
        rows.append([plant, winner["threshold"], winner["calibration"], metrics["brier"], metrics["log_loss"]])
    chosen = {"cost": "costs least", "f1": "balances precision and recall best"}[params.model.threshold]
    return (
        f"The alarm is raised at the threshold and above: the one that {chosen} on validation rows. A calibrated risk "
        "of 0.3 means that about three in ten such hours precede a failure; Brier score and log loss, on test rows, "
        "are lower for better risks.\n\n"
        + format_table(["plant", "threshold", "calibration", "Brier score", "log loss"], rows)
    )


def _known_limits(params: Params) -> list[str]:
    return [
        "A failure that no sensor shows beforehand cannot be caught.",
        "A machine without data gets no warning: during an outage its risk is as old as its last rows.",
        f"After its first {params.dataset.baseline_hours} hours on record a machine is compared with these hours; if "
        "it was worn already, its wear shows less.",
        "Money is counted from costs in `params.yaml`; with other costs another threshold is right.",
    ]


def _training_notes(evidence: Evidence) -> list[str]:
    plants = evidence.training["plants"].items()
    return [f"{plant}: {note}" for plant, found in plants for note in found["candidates"][found["chosen"]]["notes"]]


def _describe_drift(drift: Report, params: Params) -> str:
    rows = []
    for plant, found in drift.items():
        columns = [name for name, column in found["columns"].items() if column["drifted"]]
        rows.append([plant, "yes" if found["drifted"] else "no", f"{found['share']:.0%}", ", ".join(columns) or "none"])
    return (
        f"The newest {params.drift.window_batches} batches against the training window. A plant has drifted if more "
        f"than {params.drift.max_drifted_share:.0%} of its columns have; see `reports/drift/`.\n\n"
        + format_table(["plant", "drifted", "share of columns", "which"], rows)
    )


def _describe_checks(checks: Sequence[Check], params: Params) -> str:
    rows = [[_words(check.name), check.expected, check.found, "yes" if check.passed else "**no**"] for check in checks]
    golden = params.evaluate.golden
    cases = f"\n`upkeep check` also holds the models to the golden cases in `{golden}`.\n" if golden else ""
    return format_table(["floor", "asked", "found", "holds"], rows) + cases


def _explain_terms(params: Params) -> list[str]:
    horizon, lead = params.dataset.horizon_hours, params.evaluate.lead_time_hours
    return [
        "**Average precision**: how well hours before failures are ranked above all others; 1 is perfect, and a model "
        "that knows nothing reaches the share of such hours.",
        f"**Caught**: a failure with an alarm between {horizon} and {lead} hours before it.",
        f"**False alarm**: an alarm, with all others of the machine in the {horizon} hours after it, that no failure "
        "follows.",
        "**Share of possible**: what following the alarms saves, as a share of what perfect foresight would.",
        "**plant / fleet**: whether the plant's own history or all plants' taught the model.",
    ]


def _describe_versions(models: Mapping[str, Report]) -> str:
    rows = [
        [plant, _short([model["data_version"]]), _short(model["boosters"].values())] for plant, model in models.items()
    ]
    return "Checksums (SHA-256, first 12 digits) of the raw data's manifest and of the model files.\n\n" + format_table(
        ["plant", "data", "model"], rows
    )


def _short(checksums: Iterable[str]) -> str:
    return ", ".join(f"`{checksum[:12]}`" for checksum in checksums)


def _words(name: str) -> str:
    return name.removeprefix("plants.").replace("_", " ").replace(".", ": ")


def _list(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _bullets(sentences: Iterable[str]) -> str:
    return "".join(f"- {sentence}\n" for sentence in sentences)
