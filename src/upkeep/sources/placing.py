"""Rows of a file placed in plants and batches: one that does not tell its own belongs to those of the row before it."""

from typing import Any

import polars as pl

from upkeep.contract.casting import CLOCK_RESET, cast_column
from upkeep.contract.dictionary import Table
from upkeep.contract.rules import LEAP, is_name
from upkeep.core.names import KEYS
from upkeep.sources.delimited import VALUE

TIME, PLANT, BATCH, PLACED = "@time", "@plant", "@batch", "@placed"

TENTH = 10  # a wrong clock's readings are a tenth of a file's at most, where they lie before the others


def place_rows(table: Table, rows: pl.DataFrame, batch: pl.Expr) -> dict[tuple[Any, ...], pl.DataFrame]:
    """Partition one file's rows by plant and batch, which `batch` makes of the column ``@time``."""
    if table != "machines":
        time = pl.col(TIME)  # a column of its own, since parsing text takes long, and it is needed often
        rows = rows.with_columns(cast_column("time", rows.schema["time"], "time").value.alias(TIME))
        rows = rows.with_columns(pl.when(time >= CLOCK_RESET).then(time))
        is_placed = time.is_not_null()
    elif "installed" in rows.columns:
        is_placed = _has_machine(rows) & ~cast_column("installed", rows.schema["installed"], "time").failed
    else:
        is_placed = _has_machine(rows)
    rows = rows.with_columns(is_placed.alias(PLACED))
    rows = rows.with_columns(_name_plants(rows)).drop(PLACED)
    if table == "telemetry":
        rows = _drop_wrong_times(rows)
    placed = rows.with_columns(pl.col(PLANT).forward_fill().backward_fill())
    placed = placed.with_columns(batch.forward_fill().backward_fill().alias(BATCH))
    return placed.drop(TIME, strict=False).partition_by(PLANT, BATCH, as_dict=True, include_key=False)


def _has_machine(rows: pl.DataFrame) -> pl.Expr:
    """Tell which rows have a machine; all, if the file has no such column."""
    if "machine" not in rows.columns:
        return pl.lit(True)
    return cast_column("machine", rows.schema["machine"], "text").value.is_not_null()


def _name_plants(rows: pl.DataFrame) -> pl.Series:
    """Return the plant that each row names as ``@plant``, null where it names none.

    A line of units, dashes or sums names none: a row that has no time names a plant only if it has a machine and a
    number, or if other rows name the same.
    """
    plant = cast_column("plant", rows.schema["plant"], "text").value
    plants = rows.select(pl.when(is_name(plant)).then(plant).alias(PLANT)).to_series()
    doubtful = rows.filter(~pl.col(PLACED)).drop(PLACED, TIME, strict=False)
    texts = doubtful.select(pl.col(pl.String))
    patterns = {name: "[0-9]" if name in KEYS else f"^{VALUE.pattern}" for name in texts.columns}  # mm/s2 is a unit
    numbers = (texts[name].str.contains(pattern) for name, pattern in patterns.items())
    has_number = pl.any_horizontal(pl.lit(texts.width < doubtful.width), *numbers)  # Parquet has no such lines
    tells = doubtful.with_columns((_has_machine(rows) & has_number).fill_null(False).alias(PLACED))[PLACED]
    is_named = rows[PLACED].scatter((~rows[PLACED]).arg_true(), tells)
    is_known = is_named | plants.is_in(plants.filter(is_named).unique().implode())
    return plants.zip_with(is_known.fill_null(False), plants.clear(len(plants)))


def _drop_wrong_times(rows: pl.DataFrame) -> pl.DataFrame:
    """Drop times of clocks that lost the time: a year's silence parts them from the other readings of a file.

    Before the others they are a tenth of all at most, as of a clock that goes on from a year of its maker's, such as
    2000. After the others no two follow each other in the file, since a record may go on after years; in rows of no
    order, a time that is not far ahead of nine tenths of them is no error.
    """
    time = pl.col(TIME)
    known = rows[TIME].drop_nulls().sort()
    resumed = (known.diff() > LEAP).arg_true()
    first = known.gather(resumed.filter(resumed <= known.len() / TENTH).tail(1))
    rows = rows.with_columns(pl.when(time >= first[0]).then(time)) if len(first) else rows
    before, after = time.forward_fill().shift(1), time.backward_fill().shift(-1)
    is_steady = (time - pl.max_horizontal(before, after) <= LEAP).fill_null(True)
    falls, steps = (time < before).sum(), (time != before).sum()
    is_shuffled = falls.is_between(steps / 4, steps * 3 / 4)
    is_usual = time <= time.quantile(0.9, "lower") + LEAP
    return rows.with_columns(pl.when(is_steady | (is_shuffled & is_usual)).then(time))
