"""The note on a merge request: may this ship, what does it cost or save, what changed; in GitLab's Markdown."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import polars as pl

from upkeep.core.params import Params
from upkeep.gitlab.gate import Verdict
from upkeep.gitlab.note_changes import (
    describe_batches,
    describe_checks,
    describe_drift,
    describe_metrics,
    describe_quarantine,
    describe_times,
    fold,
)
from upkeep.gitlab.snapshot import Snapshot
from upkeep.judging.acceptance import Check
from upkeep.judging.comparison import JUDGED, Change, Comparison, Group
from upkeep.judging.reports import GroupReport
from upkeep.reporting.markdown import UNKNOWN, Markdown, format_code, format_table

MAX_CHARACTERS = 999_000
"""GitLab refuses a note of more than a million; the rest is for what it is found by."""

MAX_LISTED = 50
"""Alarms listed one by one; a planner reads no more."""

HEADER = ["plant", "average precision", "failures caught", "false alarms", "cost of the alarms"]
FORMS = {"average_precision": "{:.2f}", "failures_caught": "{:.0%}", "cost": "{:,.0f}"}
NO_BREAK = "\N{NO-BREAK SPACE}"
LOWER_IS_BETTER = {"cost", "false_alarms_per_machine_month"}


class Review(NamedTuple):
    """What the note is written from.

    Attributes
    ----------
    champion, challenger
        The reports of the target branch, None if it has no history, and of this one.
    comparison
        Both on common test rows; without a champion there are none.
    verdict
        The gate's.
    checks
        This branch's floors and acceptance cases.
    times
        Seconds of each stage that ran.
    """

    champion: Snapshot | None
    challenger: Snapshot
    comparison: Comparison
    verdict: Verdict
    checks: Sequence[Check]
    times: Mapping[str, float]

    @property
    def before(self) -> Snapshot:
        """The champion, or a snapshot of nothing."""
        return self.champion or Snapshot("nothing")


def write_note(review: Review, params: Params, images: Sequence[str], links: Mapping[str, str]) -> str:
    """Return the note; the long parts are folded.

    Parameters
    ----------
    images
        Pictures, as Markdown.
    links
        Addresses of the HTML reports, by name.
    """
    before, after = review.before, review.challenger
    parts = [
        f"## {state_verdict(review)}\n",
        "".join(f"- {reason}\n" for reason in review.verdict.reasons),
        _describe_plants(review, params),
        "".join(f"{image}\n\n" for image in images),
        _describe_money(review, params),
        _describe_alarms(review),
        describe_batches(before.manifest, after.manifest),
        describe_quarantine(before.quality, after.quality),
        describe_drift(before.drift, after.drift),
        describe_checks(review.checks),
        describe_times(review.times),
        describe_metrics(before.name, before.metrics, after.metrics),
        links and f"**Reports.** {' · '.join(f'[{name}]({address})' for name, address in links.items())}\n",
    ]
    return fit([part for part in parts if part], MAX_CHARACTERS)


def fit(parts: Sequence[str], most: int) -> str:
    """Join the parts of a note; the longest but the first go until at most `most` characters are left."""
    kept = list(parts)
    while len(note := "\n".join(kept)) > most:
        longest = max(range(1, len(kept)), key=lambda position: len(kept[position]))
        kept[longest] = "*A part that is too long for a note is left out; see the reports.*\n"
    return note


def state_verdict(review: Review) -> str:
    """Say in one sentence whether this may ship, and what it costs or saves."""
    ships, reasons = review.verdict
    sign = "✅ May ship:" if ships else f"⛔ May not ship ({_count(len(reasons), 'reason')} below);"
    return f"{sign} {'; '.join([_state_money(review), *_state_failures(review), *_came_and_went(review)])}"


def _state_money(review: Review) -> str:
    if review.champion is None:
        return _state_first_run(review.challenger)
    group = review.comparison.overall
    if group is None:
        missing = review.champion.missing or review.challenger.missing
        why = "files are missing" if missing else "no test rows are common to both branches"
        return f"what it costs or saves is not known, since {why}"
    if not group.changed:
        return "no figure has changed"
    change = group.changes["cost"]
    before, after = change.before or 0.0, change.after or 0.0
    if before == after:
        return f"it costs what `{review.champion.name}` costs, {after:,.0f} on the same test rows"
    share = f" ({abs(after - before) / before:.1%})" if before else ""
    verb, more = ("saves", "") if after < before else ("costs", " more")
    words = f"it {verb} {abs(after - before):,.0f}{share}{more} on the same test rows"
    return words if _is_sure(change) else f"{words}, which chance may explain"


def _state_failures(review: Review) -> Iterator[str]:
    group = review.comparison.overall
    caught = group.changes["failures_caught"] if group else None
    if group is None or caught is None or caught.before is None or caught.after is None:
        return
    before, after = (round(share * group.failures) for share in (caught.before, caught.after))
    if before != after:
        yield f"it catches {after} of {_count(group.failures, 'failure')} in time, in place of {before}"


def _state_first_run(challenger: Snapshot) -> str:
    words = "the first run, with nothing to compare it with"
    costs = challenger.evaluation.overall.costs if challenger.evaluation else None
    if costs is None or costs.alarms is None:
        return words
    return f"{words}; following its alarms costs {costs.alarms:,.0f}, running to failure {costs.run_to_failure:,.0f}"


def _came_and_went(review: Review) -> Iterator[str]:
    if review.champion is not None and review.challenger.plants:
        before, after = review.champion.plants, review.challenger.plants
        yield from (f"{plant} is new" for plant in sorted(after - before))
        yield from (f"{plant} is gone" for plant in sorted(before - after))


def _count(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def _is_sure(change: Change) -> bool:
    return change.interval is not None and (change.interval[0] > 0 or change.interval[1] < 0)


def _describe_plants(review: Review, params: Params) -> str:
    names = review.challenger.plants | review.before.plants
    if not names:
        return ""
    rows = [[plant, *_plant_row(plant, review)] for plant in sorted(names)]
    if review.comparison.overall is not None:
        rows.append([Markdown("**all in both**"), *_common_row(review.comparison.overall)])
    return f"{_explain_table(review, params)}\n\n{format_table(HEADER, rows)}"


def _explain_table(review: Review, params: Params) -> str:
    group = review.comparison.overall
    intervals = (
        f"{params.evaluate.confidence:.0%} intervals from resampled machines; false alarms per machine and month"
    )
    if group is None:
        return f"On each branch's own test rows, with {intervals}."
    return (
        f"First `{review.before.name}`, below it this branch, on the {group.rows:,} test rows that both were "
        f"judged on ({group.machines} machines, {group.failures} failures), with {intervals}. **Bold** is more than "
        "chance explains."
    )


def _plant_row(plant: str, review: Review) -> list[str]:
    group = review.comparison.plants.get(plant)
    if group is not None:
        return _common_row(group)
    before, after = review.before.judged.get(plant), review.challenger.judged.get(plant)
    changes = {name: _own_change(name, before, after) for name in JUDGED}
    if review.champion is None:
        return [_format_figure(name, change.after, change.after_interval) for name, change in changes.items()]
    return [_format_change(name, change) for name, change in changes.items()]


def _common_row(group: Group) -> list[str]:
    return [_format_change(name, group.changes[name]) for name in JUDGED]


def _own_change(name: str, before: GroupReport | None, after: GroupReport | None) -> Change:
    """Return a figure that each side has from its own test rows, of whose change no interval is known."""
    values = (getattr(side.metrics, name) if side else None for side in (before, after))
    intervals = (side.intervals.get(name) if side else None for side in (before, after))
    return Change(*values, *intervals)


def _format_change(name: str, change: Change) -> str:
    if change.before is None and change.after is None:
        return UNKNOWN
    if change.before is None:
        return Markdown(f"new<br>{_format_figure(name, change.after, change.after_interval)}")
    before = _format_figure(name, change.before, change.before_interval)
    if change.after is None:
        return Markdown(f"{before}<br>gone")
    if change.before == change.after:
        return Markdown(f"{before}<br>= same")
    better = (change.after > change.before) != (name in LOWER_IS_BETTER)
    words = f"{'↑' if change.after > change.before else '↓'} {'better' if better else 'worse'}"
    if _format_figure(name, change.before, None) == _format_figure(name, change.after, None) and not _is_sure(change):
        words = "≈ same"
    after = _format_figure(name, change.after, change.after_interval)
    return Markdown(f"{before}<br>{after}<br>{f'**{words}**' if _is_sure(change) else words}")


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


def _describe_money(review: Review, params: Params) -> str:
    group, costs = review.comparison.overall, params.evaluate.costs
    if group is None:
        return ""
    foresight = group.failures * min(costs.failure, costs.planned_repair)
    return (
        f"**Money.** On these test rows running to failure costs {group.unplanned_cost:,.0f}, following "
        f"`{review.before.name}`'s alarms {group.changes['cost'].before:,.0f}, following this branch's "
        f"{group.changes['cost'].after:,.0f}, and perfect foresight {foresight:,.0f}; with {costs.failure:,.0f} for a "
        f"failure, {costs.planned_repair:,.0f} for a planned repair and {costs.false_alarm:,.0f} for a false alarm.\n"
    )


def _describe_alarms(review: Review) -> str:
    alarms, failures = review.comparison.alarms, review.comparison.failures
    if review.comparison.overall is None:
        return ""
    if alarms.is_empty() and failures.is_empty():
        return "**Alarms.** None gained, none lost.\n"
    gained, lost = (_count_alarms(alarms.filter(pl.col("gained") == side)) for side in (True, False))
    more = failures.filter("gained").height
    return (
        f"**Alarms.** Gained {gained}; lost {lost}. Caught in time now: {_count(more, 'failure')}; no longer: "
        f"{_count(failures.height - more, 'failure')}.\n\n"
        + fold("Each of them", _list_failures(failures) + "\n" + _list_alarms(alarms))
    )


def _count_alarms(alarms: pl.DataFrame) -> str:
    false = alarms["false"].sum()
    return f"{alarms.height} ({alarms.height - false} before a failure, {false} before none)"


def _list_failures(failures: pl.DataFrame) -> str:
    rows = [
        [plant, format_code(machine), f"{failed_at:%Y-%m-%d %H:%M}", "caught in time" if gained else "no longer caught"]
        for plant, machine, failed_at, gained in failures.head(MAX_LISTED).iter_rows()
    ]
    return _table_with_rest(["plant", "machine", "failure at", "is now"], rows, failures.height)


def _list_alarms(alarms: pl.DataFrame) -> str:
    rows = [
        [
            plant,
            format_code(machine),
            f"{time:%Y-%m-%d %H:%M}",
            "gained" if gained else "lost",
            "no" if false else "yes",
        ]
        # First those before a failure, which are few.
        for plant, machine, time, gained, false in alarms.sort("false", maintain_order=True).head(MAX_LISTED).rows()
    ]
    return _table_with_rest(["plant", "machine", "alarm from", "is", "before a failure"], rows, alarms.height)


def _table_with_rest(header: Sequence[str], rows: Sequence[Sequence[str]], total: int) -> str:
    if not rows:
        return ""
    rest = f"\n… and {total - len(rows):,} more.\n" if total > len(rows) else ""
    return format_table(header, rows) + rest
