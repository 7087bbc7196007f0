"""Whether rows were kept because a failure came, so that what is learnt or judged on them holds for no other rows."""

import polars as pl
from scipy.stats import fisher_exact

LARGEST_RATIO = 3
"""The time before failures may be this much better covered by rows than other time: outages and pauses are chance."""
FEW_FAILURES = 3
"""Fewer failures tell nothing of how rows were kept."""
RARE = 0.01
"""What happens more seldom by chance is not taken for chance."""


def find_selection(labelled: pl.DataFrame, horizon_hours: float) -> dict[str, str]:
    """Say by split, in a sentence, where the time before one plant's failures has far more rows than other time.

    A split with fewer than three failures is left out. `labelled` are all rows that
    :func:`upkeep.features.labels.label_rows` gives, and their ``split``.
    """
    before = pl.col("time").shift().over("machine")
    rows = labelled.sort("machine", "time").with_columns(
        # Nothing was expected of a machine under repair.
        hours=(pl.col("time") - pl.max_horizontal(before, "repaired")).dt.total_seconds() / 3600
    )
    rows = rows.filter(before.is_not_null() & pl.col("split").is_not_null())
    failed_at = pl.col("time") + pl.duration(seconds=(pl.col("hours_to_failure") * 3600).round())
    failing = pl.col("label") == 1
    ahead = pl.when(failing).then(pl.min_horizontal("hours", horizon_hours - pl.col("hours_to_failure"))).otherwise(0)
    found = rows.group_by("split").agg(
        failures=pl.struct("machine", failed_at).filter(failing).n_unique(),
        # Where few rows were kept, the median would be as long as what is missing.
        usual=pl.min_horizontal(pl.col("hours").filter(failing).median(), pl.col("hours").filter(~failing).median()),
        failing_rows=failing.sum(),
        failing_hours=ahead.sum(),
        other_rows=(~failing).sum(),
        other_hours=(pl.col("hours") - ahead).sum(),
    )
    covered = found.filter(pl.col("failures") >= FEW_FAILURES, pl.col("other_hours") >= horizon_hours).select(
        "split",
        ahead=pl.col("failing_rows") * pl.col("usual") / pl.col("failing_hours"),
        other=pl.col("other_rows") * pl.col("usual") / pl.col("other_hours"),
    )
    return {
        split: f"{split} rows were kept because a failure came: {min(ahead, 1):.0%} of the {horizon_hours:g} h "
        f"before failures have rows, and {other:.0%} of all other time"
        for split, ahead, other in covered.sort("split").rows()
        if min(ahead, 1) > LARGEST_RATIO * other
    }


def find_absent_machines(recorded: set[str], machines: pl.DataFrame, events: pl.DataFrame) -> str | None:
    """Say that of a plant's machines on record those that never failed have no rows, if chance does not explain it.

    `recorded` are the machines with rows.
    """
    failed = set(events.filter(kind="failure")["machine"])
    absent = set(machines["machine"]) - recorded
    counts = [[len(recorded & failed), len(recorded - failed)], [len(absent & failed), len(absent - failed)]]
    if fisher_exact(counts, alternative="greater").pvalue >= RARE:
        return None
    return (
        f"{counts[1][1]} of {len(absent)} machines without rows never failed, and {counts[0][1]} of {len(recorded)} "
        "with rows: machines were chosen because they failed"
    )
