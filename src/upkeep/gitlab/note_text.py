"""The note on a merge request, in GitLab's Markdown: what ``reporting/templates/note.md`` says in words and tables.

A report that is missing is None.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any, NamedTuple

import polars as pl

from upkeep.core.params import Evaluate
from upkeep.core.secrets import mask_credentials
from upkeep.core.text import count_things
from upkeep.gitlab.gate import Verdict
from upkeep.gitlab.markdown import bullets, code, name_first, show, tabulate
from upkeep.gitlab.snapshot import DeliveredFile, RawData, Snapshot
from upkeep.judging.acceptance import Check
from upkeep.judging.comparison import JUDGED, Change, Comparison
from upkeep.judging.reports import DataQuality, DriftReport, GroupReport, PlantDrift
from upkeep.reporting.experiments import flatten
from upkeep.reporting.markdown import UNKNOWN, Markdown
from upkeep.reporting.templates import MARKDOWN

FORMS = {"average_precision": "{:.2f}", "failures_caught": "{:.0%}", "cost": "{:,.0f}"}
MINUTE = "%Y-%m-%d %H:%M"
NO_BREAK = "\N{NO-BREAK SPACE}"
LOWER_IS_BETTER = {"cost", "false_alarms_per_machine_month"}

Rows = Sequence[Sequence[object]]


class Review(NamedTuple):
    """What the note is written from; `champion` is None, and compared are no rows, if the target has no history.

    `comparison` is on the newest rows, `checks` are this branch's, and `times` the seconds of each stage that ran.
    """

    champion: Snapshot | None
    challenger: Snapshot
    comparison: Comparison
    verdict: Verdict
    checks: Sequence[Check]
    times: Mapping[str, float]


def write_note(review: Review, evaluate: Evaluate, images: Sequence[str], links: Mapping[str, str]) -> str:
    """Return the note, with pictures as Markdown, and addresses of the HTML reports by name.

    However much is compared, it has less than half of the million characters that GitLab takes.
    """
    before, after = review.champion or Snapshot("nothing"), review.challenger
    failures = review.comparison.failures
    alarms = review.comparison.alarms.sort("false", maintain_order=True)  # first those before a failure, which are few
    return NOTE.render(
        review=review,
        reasons=bullets(review.verdict.reasons),
        remarks=bullets(review.verdict.remarks),
        tried=_compare_settings(before, after) if review.champion else [],
        before=before,
        after=after,
        common=review.comparison.overall,
        evaluate=evaluate,
        plants=_list_plants(review),
        images=map(Markdown, images),
        alarms=[
            [plant, code(machine), f"{time:{MINUTE}}", "gained" if gained else "lost", not false]
            for plant, machine, time, gained, false in alarms.rows()
        ],
        failures=[
            [plant, code(machine), f"{failed_at:{MINUTE}}", "caught in time" if gained else "no longer caught"]
            for plant, machine, failed_at, gained in failures.rows()
        ],
        caught=failures["gained"].sum(),
        gained=_count_alarms(alarms.filter("gained")),
        lost=_count_alarms(alarms.filter(~pl.col("gained"))),
        added=_find_added(before.manifest, after.manifest),
        quarantine=_compare_quarantine(before.quality, after.quality),
        drift=_compare_drift(before.drift, after.drift),
        drifted=[plant for plant, found in sorted(after.drift.root.items() if after.drift else ()) if found.drifted],
        checks=[
            [check.name, check.expected, check.found, check.passed or Markdown("**no**")] for check in review.checks
        ],
        links={name: Markdown(address) for name, address in links.items()},
    )


def is_sure(change: Change) -> bool:
    """Tell whether a change is more than chance explains."""
    return change.interval is not None and (change.interval[0] > 0 or change.interval[1] < 0)


def _list_plants(review: Review) -> Rows:
    """Return a row per plant: on common rows, or else what each side has from its own test rows."""
    is_first = review.champion is None
    before, after = (side.judged if side else {} for side in (review.champion, review.challenger))
    changes = {plant: _compare_alone(before.get(plant), after.get(plant)) for plant in before.keys() | after}
    changes |= {plant: group.changes for plant, group in review.comparison.plants.items()}
    listed = sorted(changes.items())
    if listed and review.comparison.overall:
        listed.insert(0, (Markdown("**all in both**"), review.comparison.overall.changes))
    return [[plant, *(_format_change(name, own[name], is_first) for name in JUDGED)] for plant, own in listed]


def _compare_alone(before: GroupReport | None, after: GroupReport | None) -> dict[str, Change]:
    """Return figures of whose changes no interval is known."""
    changes = {}
    for name in JUDGED:
        values = (getattr(side.metrics, name) if side else None for side in (before, after))
        changes[name] = Change(*values, *(side.intervals.get(name) if side else None for side in (before, after)))
    return changes


def _format_change(name: str, change: Change, is_first: bool) -> str:
    before, after = change.before, change.after
    was, now = _format_figure(name, before, change.before_interval), _format_figure(name, after, change.after_interval)
    if before is None:
        return now if after is None or is_first else Markdown(f"new<br>{now}")
    if after is None:
        return Markdown(f"{was}<br>gone")
    if before == after:
        return Markdown(f"{was}<br>= same")
    better = (after > before) != (name in LOWER_IS_BETTER)
    words = f"{'↑' if after > before else '↓'} {'better' if better else 'worse'}"
    if is_sure(change):
        words = f"**{words}**"
    elif _format_figure(name, before, None) == _format_figure(name, after, None):
        words = "≈ same"
    return Markdown(f"{was}<br>{now}<br>{words}")


def _format_figure(name: str, value: float | None, interval: Sequence[float] | None) -> str:
    if value is None:
        return UNKNOWN
    form = FORMS.get(name, "{:.2f}").format
    if interval is None:
        return form(value)
    # The edges of a large amount are rounded: resamples cannot tell them to the last digit.
    in_thousands = name == "cost" and interval[1] >= 10_000
    edges = [f"{edge / 1000:,.0f}k" if in_thousands else form(edge) for edge in interval]
    return f"{form(value)}{NO_BREAK}({NO_BREAK.join([edges[0], 'to', edges[1]])})"


def _count_alarms(alarms: pl.DataFrame) -> str:
    false = alarms["false"].sum()
    return f"{alarms.height} ({alarms.height - false} before a failure, {false} before none)"


def _find_added(before: RawData | None, after: RawData | None) -> dict[str, Any] | None:
    """Return the new `batches`, `rows` by plant, and how many files of before were `removed`; None if not known."""
    if after is None or not after.files:
        return None
    old, new = (set(side.files) if side else set[DeliveredFile]() for side in (before, after))
    known = {file.batch for file in old}
    plant_of = attrgetter("plant")
    rows = []
    for plant, group in groupby(sorted(new - old, key=plant_of), plant_of):
        files = list(group)
        counts = [
            sum(file.rows for file in files if file.table == name) for name in ("telemetry", "events", "machines")
        ]
        late = sum(file.batch in known or file.delivery > 1 for file in files)
        rows.append([plant, len({file.batch for file in files} - known), *counts, late])
    return {"batches": sorted({file.batch for file in new} - known), "rows": rows, "removed": len(old - new)}


def _compare_quarantine(before: DataQuality | None, after: DataQuality | None) -> dict[str, Any] | None:
    """Return the `total` of rows set aside, its `change`, and `rows` by plant and table; None if not known."""
    if after is None or not after.plants:
        return None
    old, new = (
        {
            (plant, table): +Counter(counts.quarantined)  # without reasons that no row has
            for plant, found in sorted(side.plants.items() if side else ())
            for table, counts in found.tables.items()
        }
        for side in (before, after)
    )
    rows = []
    for place, reasons in new.items():
        if reasons or old.get(place):
            why = ", ".join(f"{reason}: {count:,}" for reason, count in reasons.most_common())
            rows.append([*place, old[place].total() if place in old else None, reasons.total(), why])
    earlier, total = (sum(reasons.total() for reasons in side.values()) for side in (old, new))
    change = f"{total - earlier:+,}" if total != earlier else "as before"
    return {"total": total, "change": change if old else "", "rows": rows}


def _compare_drift(before: DriftReport | None, after: DriftReport | None) -> Rows:
    """Return a row per plant: the share of columns that drifted before and now, and which did."""
    old, new = (report.root if report else {} for report in (before, after))
    rows = []
    for plant, found in sorted(new.items()):
        drifted = name_first(name for name, column in found.columns.items() if column.drifted)
        rows.append([plant, _show_share(old.get(plant)), _show_share(found), drifted])
    return rows


def _show_share(found: PlantDrift | None) -> str:
    if found is None or found.share is None:
        return UNKNOWN
    return Markdown(f"{found.share:.0%} of columns{', **drifted**' if found.drifted else ''}")


def _compare_settings(before: Snapshot, after: Snapshot) -> Rows:
    """Return a row per setting of ``params.yaml`` that differs: what it was, and what it is."""
    old, new = (flatten(side.params.model_dump()) for side in (before, after))
    changed = [name for name in sorted(old.keys() | new) if old.get(name) != new.get(name)]
    shown = [[mask_credentials(str(side.get(name, "not set"))) for side in (old, new)] for name in changed]
    return [[code(name), *values] for name, values in zip(changed, shown, strict=True)]


WORDS = {"table": tabulate, "code": code, "count": count_things, "first": name_first, "is_sure": is_sure}
NOTE = MARKDOWN.overlay(finalize=show).get_template("note.md", globals=WORDS)
