"""Pictures for the merge request's note: the target branch beside this one, plant by plant."""

from collections.abc import Mapping

from upkeep.judging.comparison import Change, Comparison
from upkeep.reporting.plots import GREY, INK, MOST_PLANTS, PALE, Picture, draw_rows, explain_lines


def draw_precision(comparison: Comparison, target: str) -> Picture:
    """Draw each plant's average precision on both sides, with intervals."""
    changes = {plant: group.changes["average_precision"] for plant, group in comparison.plants.items()}
    shown = _pick(changes)
    better = sum((change.after or 0) > (change.before or 0) for change in changes.values())
    worse = sum((change.after or 0) < (change.before or 0) for change in changes.values())
    title = f"Machines before a failure are ranked better in {better} of {len(changes)} plants, worse in {worse}"
    picture, (panel,) = draw_rows(title, shown, height=0.55)
    for label, side, colour, shift in _list_sides(target):
        panel.plot([], [], "o", color=colour, markersize=9, label=label)
        for row, change in enumerate(shown.values()):
            value, interval = getattr(change, side), getattr(change, f"{side}_interval")
            if value is not None:
                ends = interval or (value, value)
                panel.plot(ends, [row + shift] * 2, color=colour, linewidth=4, alpha=0.35, solid_capstyle="round")
                panel.plot(value, row + shift, "o", color=colour, markersize=9)
    panel.set(xlim=(0, 1), xlabel="average precision on the newest rows (1 is perfect), with interval")
    return explain_lines(picture)


def draw_cost(comparison: Comparison, target: str) -> Picture:
    """Draw what each plant's alarms cost on both sides, beside running to failure."""
    costs = {plant: group.changes["cost"] for plant, group in comparison.plants.items()}
    saved = sum((cost.before or 0) - (cost.after or 0) for cost in costs.values())
    shown = _pick(costs)
    words = "the same money" if not saved else f"{abs(saved):,.0f} {'less' if saved > 0 else 'more'}"
    picture, (panel,) = draw_rows(f"Following this branch's alarms costs {words}", shown, height=0.55)
    rows, unplanned = range(len(shown)), [comparison.plants[plant].unplanned_cost for plant in shown]
    panel.barh(rows, unplanned, 0.8, color=PALE, label="running to failure")
    for label, side, colour, shift in _list_sides(target):
        values = [getattr(cost, side) for cost in shown.values()]
        panel.barh([row + shift for row in rows], values, 0.26, color=colour, label=label)
    panel.xaxis.set_major_formatter("{x:,.0f}")
    panel.set_xlabel("cost on the newest rows, in the currency of evaluate.costs")
    return explain_lines(picture)


def _list_sides(target: str) -> tuple[tuple[str, str, str, float], ...]:
    """Return each side's label, fields of a change, colour and place in its plant's row, the target's on top."""
    return (target, "before", GREY, -0.14), ("this branch", "after", INK, 0.14)


def _pick(changes: Mapping[str, Change]) -> dict[str, Change]:
    """Return the changes of as many plants as a picture holds: the largest, in the order in which they were."""
    size = {plant: abs((change.after or 0) - (change.before or 0)) for plant, change in changes.items()}
    largest = sorted(size, key=lambda plant: -size[plant])[:MOST_PLANTS]
    return {plant: change for plant, change in changes.items() if plant in largest}
