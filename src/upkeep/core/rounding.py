"""Numbers without the digits that a processor decides.

NumPy and BLAS pick their kernels by processor. These add up in another order, or take an exponential by another
polynomial, and what is computed differs in its last digits. What is fitted is therefore rounded where it is fitted,
before anything is computed from it: see docs/decisions/0009-same-bytes-on-every-processor.md.
"""

import numpy as np
from numpy.typing import ArrayLike

from upkeep.core.types import Floats

MEASURED = 9  # significant digits of centres, levels, spreads: what hardly varies around a high level needs as many
FITTED = 6  # significant digits of coefficients that an iteration found, whose own tolerance is not much finer
LOG_ODDS = 6  # decimals of log-odds that do not come from LightGBM, whose own are the same everywhere


def significant(values: ArrayLike, digits: int) -> Floats:
    """Return numbers, correctly rounded to so many significant digits; NaN and infinities stay."""
    array = np.asarray(values, dtype=np.float64)
    rounded = [float(f"{value:.{digits - 1}e}") for value in array.ravel()]
    return np.array(rounded, dtype=np.float64).reshape(array.shape)


def single_precision(probability: Floats) -> Floats:
    """Return probabilities to the seven digits that mean something: what Float32 holds, as it is stored."""
    return probability.astype(np.float32).astype(np.float64)
