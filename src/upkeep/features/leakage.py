"""Checks that neither the label nor another split leaks into features, or into the choice of rows.

Where rows were kept because a failure followed, a model trained or judged on them is valid for no other rows.
"""

from collections.abc import Iterator
from datetime import timedelta
from itertools import combinations

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.stats import fisher_exact, rankdata

from upkeep.core.errors import UpkeepError

MIN_POSITIVES = 20  # with fewer failing rows a feature may separate the classes by chance

LARGEST_RATIO = 3
"""Rows may cover the time before failures this much better than other time: outages and pauses happen by chance."""
FEW_FAILURES = 3  # fewer failures do not show how rows were chosen
RARE = 0.01  # a p-value below this is not put down to chance

Fingerprints = dict[str, pl.DataFrame]


def check_leakage(splits: Fingerprints, horizon: timedelta, by: str, *, readings: bool) -> None:
    """Raise an UpkeepError on any leakage between a plant's splits, made `by` time, date, window or machine.

    Their columns are ``machine``, ``time`` and ``fingerprint``. Without `readings`, features are counts and ages only,
    which are the same for many rows.
    """
    for one, other in combinations(splits, 2):
        for leak in _find_leaks(splits, one, other, horizon if by != "machine" else None, readings=readings):
            raise UpkeepError(leak, remedy="see how the split is made: dataset.split in params.yaml", stage="dataset")


def fingerprint(rows: pl.DataFrame, features: list[str]) -> pl.DataFrame:
    """Return each row's ``machine``, ``time`` and ``fingerprint``, a hash of its features."""
    return rows.select("machine", "time", fingerprint=rows.select(features).hash_rows())


def _find_leaks(
    splits: Fingerprints, one: str, other: str, horizon: timedelta | None, *, readings: bool
) -> Iterator[str]:
    """Describe what a split shares with a later one, or with one of other machines if there is no `horizon`."""
    keys = ["machine", "time"]
    shared = splits[one].select(keys).join(splits[other].select(keys), on=keys)
    if shared.height:
        yield f"{shared.height} rows are in both {one} and {other}, first {shared.row(0)}"
    hashes, known = splits[other]["fingerprint"], splits[one]["fingerprint"]
    # Rows that repeat within their split, as those of an idle machine do, are not leaks.
    alike = splits[other].filter(hashes.is_unique() & hashes.is_in(known.filter(known.is_unique()).implode()))
    if readings and alike.height:
        where = "machine {} at {:%Y-%m-%d %H:%M}".format(*alike.select(keys).row(0))
        yield f"{alike.height} rows of {other} have the very features of a row of {one}, first {where}"
    if horizon is None:
        if machines := sorted(set(splits[one]["machine"]) & set(splits[other]["machine"])):
            yield f"machines {', '.join(machines)} are in both {one} and {other}"
    elif splits[one].height and splits[other].height:
        last, first = splits[one].select(pl.col("time").max()).item(), splits[other].select(pl.col("time").min()).item()
        if last + horizon > first:
            yield f"labels of {one} look until {last + horizon}, but {other} begins at {first}"


def check_no_feature_separates(train: pl.DataFrame, features: list[str], max_auc: float) -> None:
    """Raise an UpkeepError if one feature alone tells failing from healthy rows: its ROC AUC is above `max_auc`."""
    label = train["label"].to_numpy().astype(bool)
    if max_auc >= 1 or label.sum() < MIN_POSITIVES or (~label).sum() < MIN_POSITIVES:
        return
    for name in features:
        auc = single_feature_auc(train[name].to_numpy(), label)
        if auc > max_auc:
            raise UpkeepError(
                f"the feature alone separates failing from healthy rows (ROC AUC {auc:.4f})",
                remedy="leave the column out of the data dictionary if it is known only once a machine has failed; if "
                "it is a true warning, set dataset.max_single_feature_auc in params.yaml to 1",
                stage="dataset",
                column=name,
            )


def single_feature_auc(values: NDArray[np.floating], label: NDArray[np.bool_]) -> float:
    """Return the ROC AUC of ranking rows by one feature, upwards or downwards, whichever is better.

    Missing values rank lowest. It is the Mann-Whitney statistic as a share of all pairs, ties counting half.
    """
    ranks = rankdata(np.where(np.isnan(values), -np.inf, values))
    positives, negatives = label.sum(), (~label).sum()
    auc = float((ranks[label].mean() - (positives + 1) / 2) / negatives)
    return max(auc, 1 - auc)


def find_selection(labelled: pl.DataFrame, horizon_hours: float) -> dict[str, str]:
    """Say, in a sentence per split, where the time before a plant's failures has far more rows than other time.

    A split with fewer than three failures is left out. `labelled` are all rows of
    :func:`upkeep.features.labels.label_rows`, with their ``split``.
    """
    before = pl.col("time").shift().over("machine")
    rows = labelled.sort("machine", "time").with_columns(
        # A machine under repair is not expected to have rows.
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
    """Say that machines without rows never failed, if that is not by chance; `recorded` are the machines with rows."""
    failed = set(events.filter(kind="failure")["machine"])
    absent = set(machines["machine"]) - recorded
    counts = [[len(recorded & failed), len(recorded - failed)], [len(absent & failed), len(absent - failed)]]
    if fisher_exact(counts, alternative="greater").pvalue >= RARE:
        return None
    return (
        f"{counts[1][1]} of {len(absent)} machines without rows never failed, and {counts[0][1]} of {len(recorded)} "
        "with rows: machines were chosen because they failed"
    )
