"""The note on a merge request: may this ship, what does it cost or save, what changed; in GitLab's Markdown."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import polars as pl

from upkeep.core.params import Evaluate
from upkeep.core.text import count_things
from upkeep.gitlab.gate import Verdict
from upkeep.gitlab.markdown import bullets, code, name_first, sentence, show, tabulate
from upkeep.gitlab.note_changes import (
    compare_drift,
    compare_metrics,
    compare_quarantine,
    find_added,
    list_checks,
    name_drifted,
)
from upkeep.gitlab.snapshot import Snapshot
from upkeep.judging.acceptance import Check
from upkeep.judging.comparison import JUDGED, Change, Comparison, Group
from upkeep.judging.reports import GroupReport
from upkeep.reporting.markdown import UNKNOWN, Markdown
from upkeep.reporting.templates import MARKDOWN

NOTE = MARKDOWN.overlay(finalize=show).get_template("note.md")
FORMS = {"average_precision": "{:.2f}", "failures_caught": "{:.0%}", "cost": "{:,.0f}"}
MINUTE = "%Y-%m-%d %H:%M"
NO_BREAK = "\N{NO-BREAK SPACE}"
LOWER_IS_BETTER = {"cost", "false_alarms_per_machine_month"}


class Review(NamedTuple):
    """What the note is written from; `champion` is None, and compared are no rows, if the target has no history.

    `comparison` is on common test rows, `checks` are this branch's, and `times` the seconds of each stage that ran.
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


def write_note(review: Review, evaluate: Evaluate, images: Sequence[str], links: Mapping[str, str]) -> str:
    """Return the note, with pictures as Markdown, and addresses of the HTML reports by name.

    However much is compared, it has less than half of the million characters that GitLab takes.
    """
    before, after = review.before, review.challenger
    alarms, failures = review.comparison.alarms, review.comparison.failures
    return NOTE.render(
        table=tabulate,
        code=code,
        count=count_things,
        verdict=state_verdict(review),
        reasons=bullets(review.verdict.reasons),
        target=before.name,
        common=review.comparison.overall,
        evaluate=evaluate,
        plants=_list_plants(review),
        images=map(Markdown, images),
        alarms=_list_alarms(alarms),
        failures=_list_failures(failures),
        caught=failures["gained"].sum(),
        gained=_count_alarms(alarms.filter("gained")),
        lost=_count_alarms(alarms.filter(~pl.col("gained"))),
        added=find_added(before.manifest, after.manifest),
        quarantine=compare_quarantine(before.quality, after.quality),
        drift=compare_drift(before.drift, after.drift),
        drifted=name_drifted(after.drift),
        checks=review.checks,
        check_rows=list_checks(review.checks),
        times=review.times,
        metrics=compare_metrics(before.metrics, after.metrics),
        links={name: Markdown(address) for name, address in links.items()},
    )


def state_verdict(review: Review) -> Markdown:
    """Say in one sentence whether this may ship, and what it costs or saves."""
    ships, reasons = review.verdict
    sign = "✅ May ship:" if ships else f"⛔ May not ship ({count_things(len(reasons), 'reason')} below);"
    return Markdown(f"{sign} {'; '.join([_state_money(review), *_state_failures(review), *_came_and_went(review)])}")


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
    before, after = change.before, change.after
    if before is None or after is None:
        return "what it costs or saves is not known, since no common test row is healthy"
    if before == after:
        return sentence("it costs what {} costs, {} on the same test rows", code(review.champion.name), f"{after:,.0f}")
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
        yield f"it catches {after} of {count_things(group.failures, 'failure')} in time, in place of {before}"


def _state_first_run(challenger: Snapshot) -> str:
    words = "the first run, with nothing to compare it with"
    costs = challenger.evaluation.overall.costs if challenger.evaluation else None
    if costs is None or costs.alarms is None:
        return words
    return f"{words}; following its alarms costs {costs.alarms:,.0f}, running to failure {costs.run_to_failure:,.0f}"


def _came_and_went(review: Review) -> Iterator[str]:
    if review.champion is not None and review.challenger.plants:
        before, after = review.champion.plants, review.challenger.plants
        for plants, went in ((after - before, "new"), (before - after, "gone")):
            if plants:
                yield f"{name_first(sorted(plants))} {'is' if len(plants) == 1 else 'are'} {went}"


def _is_sure(change: Change) -> bool:
    return change.interval is not None and (change.interval[0] > 0 or change.interval[1] < 0)


def _list_plants(review: Review) -> list[list[str]]:
    rows = [[plant, *_plant_row(plant, review)] for plant in sorted(review.challenger.plants | review.before.plants)]
    if rows and review.comparison.overall is not None:
        rows.insert(0, [Markdown("**all in both**"), *_common_row(review.comparison.overall)])
    return rows


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


def _count_alarms(alarms: pl.DataFrame) -> str:
    false = alarms["false"].sum()
    return f"{alarms.height} ({alarms.height - false} before a failure, {false} before none)"


def _list_failures(failures: pl.DataFrame) -> list[list[str]]:
    return [
        [plant, code(machine), f"{failed_at:{MINUTE}}", "caught in time" if gained else "no longer caught"]
        for plant, machine, failed_at, gained in failures.rows()
    ]


def _list_alarms(alarms: pl.DataFrame) -> list[list[object]]:
    """Return a row per alarm; first those before a failure, which are few."""
    return [
        [plant, code(machine), f"{time:{MINUTE}}", "gained" if gained else "lost", not false]
        for plant, machine, time, gained, false in alarms.sort("false", maintain_order=True).rows()
    ]
