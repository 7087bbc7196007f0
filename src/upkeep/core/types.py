"""Types that every room shares: arrays, and the base of all objects that are read from files."""

from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from upkeep.core.names import shorten

Floats = NDArray[np.float64]
Floats32 = NDArray[np.float32]
Ints = NDArray[np.int64]
Booleans = NDArray[np.bool_]

Single = Annotated[float, Field(ge=-3.5e38, le=3.5e38)]
"""A number that float32 can hold, as features do: what is computed from a few of them stays finite."""

Instant = Annotated[int, Field(ge=-(2**53), le=2**53)]  # Microseconds since 1970, within three centuries of it
RowLength = Annotated[str, Field(pattern=r"^[1-9]\d{0,3}[smhd]$")]  # how long a row of reduced readings is, such as 1h
CALENDAR = range(1900, 2200)  # years: sums of times and spans within them do not overflow
UNITS_OF_TIME = {"s": 1, "m": 60, "h": 3600, "d": 86_400}  # in seconds
FAULTS_NAMED = 3  # where much is wrong, as in a file of another version, the first ones suffice


class Frozen(BaseModel):
    """An object that does not change; an unknown or misspelt field, an infinity or a NaN is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def measure_rows(every: str | None) -> int:
    """Return how long rows of this :data:`RowLength` are, in microseconds; 0 if readings are not reduced."""
    return int(every[:-1]) * UNITS_OF_TIME[every[-1]] * 1_000_000 if every else 0


def describe_faults(error: ValidationError) -> str:
    """Return where the first faults lie and what they are, without the values found, which may be secrets."""
    faults = error.errors(include_input=False)
    places = [".".join(map(shorten, fault["loc"])) for fault in faults[:FAULTS_NAMED]]
    messages = [fault["msg"].removeprefix("Value error, ") for fault in faults]
    named = [f"{place}: {message}" if place else message for place, message in zip(places, messages, strict=False)]
    others = [f"and {len(faults) - FAULTS_NAMED} more"] if len(faults) > FAULTS_NAMED else []
    return "; ".join(named + others)
