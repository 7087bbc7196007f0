"""The roles of a table's columns: plant, machine, time, names of sensors in long format, measured or text."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import polars as pl

from upkeep.adopt.deliveries import Layout
from upkeep.adopt.sniffing import MOSTLY, read_numbers
from upkeep.adopt.times import Clock, find_exchanged, read_clock, share_of
from upkeep.adopt.words import has_word, names_one, unit_of, words_of
from upkeep.contract.casting import TIME_OF_DAY, cast_column
from upkeep.core.errors import UpkeepError
from upkeep.core.names import KEYS, shorten
from upkeep.sources.columns import join_time

MOST_SENSORS = 1000
MOST_PLANTS = 200
NAMED_TIME_OF_DAY = r"^\s*([01]?\d|2[0-3])[.:]?[0-5]\d([.:]?[0-5]\d)?\s*$"  # such as 14.30 or 143005
PATH_PART = re.compile(r"\{\d+\}")  # names of columns that hold parts of files' addresses
CROWDED = 0.7  # share of files or folders that have rows of one machine and time, if each is of another plant
VALUE = re.compile(r"val|wert|reading|data", re.IGNORECASE)


class Guess(NamedTuple):
    """Where one of our columns or options comes from: a delivered column, or a value for all rows; and why."""

    reason: str
    column: str | None = None
    value: Any = None


@dataclass(frozen=True)
class Part:
    """A layout with the roles of its columns, and the guesses about it by our names.

    At first there are guesses of plant and machine only. Once it is known which table the layout is, they have all that
    the source needs, and `rows` has the rows under our names.
    """

    layout: Layout
    clock: Clock | None
    guesses: dict[str, Guess]
    measured: list[str]
    text: list[str]
    pivot: tuple[str, str] | None
    rows: pl.DataFrame = field(default_factory=pl.DataFrame, repr=False)

    @property
    def columns(self) -> dict[str, str]:
        """Ours: theirs."""
        return {ours: guess.column for ours, guess in self.guesses.items() if guess.column is not None}

    @property
    def options(self) -> dict[str, Any]:
        """The other options of the source ``files``."""
        return {ours: guess.value for ours, guess in self.guesses.items() if guess.value is not None}

    @property
    def kept(self) -> list[str]:
        """The delivered names of the rows' columns besides the keys."""
        return [name for name in self.rows.columns if name not in KEYS]

    @property
    def placeholders(self) -> dict[str, str]:
        """Theirs: ours, for columns that stand for parts of the path."""
        return {theirs: ours for ours, theirs in self.columns.items() if PATH_PART.fullmatch(theirs)}


def find_roles(layout: Layout) -> Part:
    """Return the role of each column of a layout, by its name and its values."""
    rows = layout.rows
    clocks = {name: clock for name in rows.columns if (clock := read_clock(rows[name])) is not None}
    clock = min(clocks.values(), key=_rank_clock, default=None)
    if clock and (others := [shorten(name) for name in clocks if name != clock.column]):
        clock = clock._replace(reason=f"{clock.reason}; not {', '.join(others)}")
    if clock and (time_of_day := _find_time_of_day(rows, clock)):
        clock = _join_clock(layout, clock, time_of_day)
        rows = join_time(rows, clock.column, time_of_day)
        layout = replace(layout, rows=rows)
    _refuse_exchanged_days(layout, clock)
    names = [name for name in rows.columns if not clock or name != clock.column]
    keys = _find_keys(layout, names, clock)
    taken = {*clocks, *(guess.column for guess in keys.values())}
    rest = rows.select(name for name in names if name not in taken and not PATH_PART.fullmatch(name))
    texts = rest.select(cast_column(name, dtype, "text").value.alias(name) for name, dtype in rest.schema.items())
    numbers = read_numbers(rest, layout.reading.get("decimal"))
    measured = [name for name in rest.columns if numbers[name].count() >= MOSTLY * max(texts[name].count(), 1)]
    measured = [name for name in measured if not is_id(rest[name])]
    text = rest.drop(measured).columns
    if device := _find_device(rows, clock, keys, measured, text):
        keys["machine"] = Guess("each row holds several values of what it names", device)
        text = [name for name in text if name != device]
    if clock and "machine" in keys and "plant" not in keys and (crowded := _find_crowded_part(rows, clock, keys)):
        is_value = len(measured) == 1 and VALUE.search(measured[0])
        if is_value and not any(has_word(name, "sensor") for name in text):
            what = f"files such as {layout.name} hold one value each of the same machines at the same times"
            remedy = "if they are of several sensors, deliver them as one table, with a column that names the sensor"
            raise UpkeepError(what, remedy=remedy)
        keys["plant"] = Guess("a machine of the same name has other rows at the same times in each", crowded)
    return Part(layout, clock, keys, measured, text, _find_pivot(rows, clock, keys, measured, text))


def _rank_clock(clock: Clock) -> tuple[bool, bool]:
    """Rank first what is called a time, and last when something was over, was told or was written down."""
    return has_word(clock.column, "afterwards"), not has_word(clock.column, "time")


def _find_time_of_day(rows: pl.DataFrame, clock: Clock) -> str | None:
    """Return the column that holds the times of day if the clock's column holds days only."""
    if not (clock.times == clock.times.dt.truncate("1d")).all():
        return None
    others = [name for name in rows.columns if name != clock.column and _is_time_of_day(rows[name])]
    return min(others, key=lambda name: has_word(name, "afterwards"), default=None)


def _join_clock(layout: Layout, clock: Clock, time_of_day: str) -> Clock:
    """Return the clock of days and times of day together; an UpkeepError if they do not make times."""
    joined = read_clock(join_time(layout.rows, clock.column, time_of_day)[clock.column])
    if joined is None or joined.times.count() < MOSTLY * clock.times.count():
        what = f"the time of {layout.name} stands in two columns, {clock.column} and {time_of_day}"
        raise UpkeepError(what, remedy="deliver date and time of day in one column")
    options = {**joined.options, "time_of_day": time_of_day}
    return joined._replace(options=options, reason=f"the day, and in {shorten(time_of_day)} its time; {joined.reason}")


def _is_time_of_day(column: pl.Series) -> bool:
    """Tell whether a column holds times without a day: 14:30, 2:30 PM, or by its name an hour or 1430."""
    known, texts = column.drop_nulls(), column.drop_nulls().cast(pl.String)
    if column.dtype == pl.Time or share_of(texts.str.contains(TIME_OF_DAY)) > MOSTLY:
        return True
    if has_word(column.name, "clock") and share_of(texts.str.contains(NAMED_TIME_OF_DAY)) > MOSTLY:
        return True
    number = known.cast(pl.Float64, strict=False)
    is_hour = (number % 1 == 0) & number.is_between(0, 23)
    return names_one(column.name, "clock", "of_day") and share_of(is_hour) > MOSTLY


def _refuse_exchanged_days(layout: Layout, clock: Clock | None) -> None:
    """Raise an UpkeepError if day and month are exchanged in one of several files."""
    start = 0
    for path, height in zip(layout.paths, layout.heights, strict=False):
        if clock and (other := find_exchanged(layout.rows[clock.column].slice(start, height), clock)):
            what = f"{shorten(path)} has its times as {other}, files of its kind as {clock.options['time_format']}"
            raise UpkeepError(what, remedy="deliver ISO 8601, such as 2025-01-06T13:00:00Z, in all of them")
        start += height


def _find_keys(layout: Layout, names: Sequence[str], clock: Clock | None) -> dict[str, Guess]:
    rows = layout.rows
    called = [name for name in names if names_one(layout.keys.get(name, name), "plant")]
    named = [name for name in called if 1 <= rows[name].n_unique() <= MOST_PLANTS]
    plant = Guess("by its name", named[0]) if named else None
    machine = _find_machine(layout, [name for name in names if name not in named[:1]], clock)
    if not plant and clock and machine and PATH_PART.fullmatch(machine.column or ""):
        parts = [name for name in names if PATH_PART.fullmatch(name) and name != machine.column]
        timed = rows.select(*parts, clock.times.alias("@time"))
        above = next((name for name in parts if _overlap_in_time(timed, [name])), None)
        plant = Guess("the folder above the machines", above) if above else None
    return {ours: guess for ours, guess in {"plant": plant, "machine": machine}.items() if guess}


def _find_machine(layout: Layout, names: Sequence[str], clock: Clock | None) -> Guess | None:
    """Guess the machine's column by its name, or because it distinguishes rows of the same time."""
    rows = layout.rows
    called = [name for name in names if names_one(layout.keys.get(name, name), "machine")]
    called = [name for name in called if not _is_fraction(rows[name])]
    # A column called unit may hold units of measurement, in long format.
    values = {name: rows[name].drop_nulls().unique().cast(pl.String).head(MOST_PLANTS) for name in called}
    if named := [name for name in called if not all(unit_of(f"value_{value}") for value in values[name])]:
        return Guess("by its name", min(named, key=lambda name: words_of(name).isdisjoint({"id", "no", "nr"})))
    if clock is None:
        return None
    timed = rows.select(*names, clock.times.alias("@time"))
    parts = [name for name in reversed(names) if PATH_PART.fullmatch(name)]
    # Files that hold the same rows are copies.
    if parts and _overlap_in_time(timed, parts) and timed.drop(parts).n_unique() > 0.6 * rows.height:
        beside = next((name for name in parts if _overlap_in_time(timed, [name])), None)
        if beside:
            return Guess("files whose times overlap are of different machines", beside)
    if timed["@time"].n_unique() >= 0.6 * rows.height:
        return None
    for name in [name for name in names if rows[name].dtype == pl.String and not has_word(name, "sensor")]:
        few = name not in parts and 1 < rows[name].n_unique() <= rows.height / 3 and not _is_fraction(rows[name])
        if few and timed.select(pl.struct(name, "@time").n_unique()).item() > 0.99 * rows.height:
            return Guess("each instant comes several times, but once for each of its values", name)
    return None


def _overlap_in_time(timed: pl.DataFrame, names: Sequence[str]) -> bool:
    """Tell whether most groups of rows by these columns overlap in time with the group before."""
    spans = timed.group_by(names).agg(since=pl.col("@time").min(), until=pl.col("@time").max()).sort("since", "until")
    return share_of((spans["since"] < spans["until"].shift()).drop_nulls()) > 0.5


def _find_crowded_part(rows: pl.DataFrame, clock: Clock, keys: Mapping[str, Guess]) -> str | None:
    """Return the part of the path in each of which a machine has other rows at the same times, if there is one."""
    machine = keys["machine"].column or ""
    parts = [name for name in rows.columns if PATH_PART.fullmatch(name)]
    others = rows.drop(machine, clock.column, *parts, strict=False)
    timed = rows.select(
        *parts, clock.times.alias("@time"), pl.col(machine).alias("@machine"), others.hash_rows().alias("@row")
    )
    for part in parts if machine not in parts else ():
        each = timed.group_by("@machine", "@time").agg(
            pl.col(part).n_unique().alias("files"),
            (pl.struct(part, "@row").n_unique() == pl.col("@row").n_unique()).alias("differ"),
        )
        shared = each.filter(pl.col("files") > 1)
        is_each = share_of(shared["files"] > CROWDED * rows[part].n_unique()) > 0.5
        is_each &= shared.height > 0.05 * each.height and share_of(shared["differ"]) > 0.5
        one = timed.filter(pl.col("@machine") == pl.col("@machine").drop_nulls().first())
        is_woven = shared.is_empty() and others.width == 1 and VALUE.search(others.columns[0])
        if is_each or (is_woven and _overlap_in_time(one, [part])):
            return part
    return None


def _find_device(
    rows: pl.DataFrame, clock: Clock | None, keys: Mapping[str, Guess], measured: Sequence[str], text: Sequence[str]
) -> str | None:
    """Return the column called a sensor if each row has several values of one, and no column names machines."""
    named = "machine" in keys and not PATH_PART.fullmatch(keys["machine"].column or "")
    if clock is None or named or len(measured) < 2 or _find_pivot(rows, clock, keys, measured, text):
        return None
    return next((name for name in rows.columns if names_one(name, "sensor") and name not in measured), None)


def is_id(column: pl.Series) -> bool:
    """Tell whether a column holds whole numbers that stand for things, such as operator_id; Id may be a current."""
    return has_word(column.name, "ids") and not _is_fraction(column)


def _is_fraction(column: pl.Series) -> bool:
    return bool(column.cast(pl.String).str.contains(r"^-?\d*[.,]\d*[1-9]\d*$").any())


def _find_pivot(
    rows: pl.DataFrame, clock: Clock | None, guesses: Mapping[str, Guess], measured: Sequence[str], text: Sequence[str]
) -> tuple[str, str] | None:
    """Return the columns of a sensor's name and its value if the table is in long format."""
    values = [column for column in measured if VALUE.search(column)] or measured
    if clock is None or len(values) != 1:
        return None
    machine = "machine" in guesses
    keys = [clock.times.alias("@time"), *(guess.column for guess in guesses.values() if guess.column)]
    instants = rows.select(pl.struct(keys).n_unique()).item()
    candidates = [name for name in text if 2 <= rows[name].n_unique() <= min(MOST_SENSORS, rows.height / 4)]
    for name in sorted(candidates, key=lambda name: not names_one(name, "sensor")):
        each = rows.select(pl.struct([*keys, pl.col(name)]).n_unique()).item()
        is_called = has_word(name, "sensor")
        # Sensors of several rates, or that report changes only, share few instants.
        is_likely = (is_called and machine and VALUE.search(values[0])) or instants < 0.75 * rows.height
        if (is_called or len(measured) == 1) and each > MOSTLY * rows.height and is_likely:
            return name, values[0]
    return None
