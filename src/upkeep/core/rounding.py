"""Numbers rounded to digits that do not depend on the processor.

NumPy and BLAS choose their kernels by processor; these sum in another order, or use another polynomial for an
exponential, so that results differ in their last digits. Fitted numbers are therefore rounded where they are fitted,
before anything is computed from them: see docs/decisions/0009-same-bytes-on-every-processor.md.
"""

import numpy as np
from numpy.typing import ArrayLike

from upkeep.core.types import Floats

MEASURED = 9  # significant digits of centres, levels, spreads: a small variation around a high level needs as many
FITTED = 6  # significant digits of coefficients that an iteration found, whose own tolerance is not much finer
LOG_ODDS = 6  # decimals of log-odds that do not come from LightGBM, whose own are the same everywhere


def significant(values: ArrayLike, digits: int) -> Floats:
    """Return numbers, correctly rounded to so many significant digits; NaN and infinities stay."""
    array = np.asarray(values, dtype=np.float64)
    rounded = [float(f"{value:.{digits - 1}e}") for value in array.ravel()]
    return np.array(rounded, dtype=np.float64).reshape(array.shape)


def single_precision(probability: Floats) -> Floats:
    """Return probabilities rounded to Float32, as they are stored: seven digits are all that mean anything."""
    return probability.astype(np.float32).astype(np.float64)
