"""Types that every room shares: arrays by what they hold, and the base of all objects that are read from files."""

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

Floats = NDArray[np.float64]
Floats32 = NDArray[np.float32]
Ints = NDArray[np.int64]
Booleans = NDArray[np.bool_]


class Frozen(BaseModel):
    """An object that does not change; an unknown or misspelt field, an infinity or a NaN is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
