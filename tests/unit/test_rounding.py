import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from upkeep.core.rounding import significant, single_precision

NUMBERS = st.floats(allow_nan=False, allow_infinity=False, min_value=-1e300, max_value=1e300)


@pytest.mark.parametrize(
    ("value", "rounded"), [(-0.5837605127878396, -0.583761), (8138.62123, 8138.62), (1e-30, 1e-30), (0.0, 0.0)]
)
def test_a_number_keeps_its_leading_digits(value, rounded):
    assert significant([value], 6).item() == rounded


def test_the_shape_stays_and_what_is_no_number_too():
    rounded = significant([[np.nan, np.inf], [1.23456, 0.0]], 3)
    np.testing.assert_array_equal(rounded, [[np.nan, np.inf], [1.23, 0.0]])


@given(NUMBERS, st.integers(1, 12))
def test_rounding_again_changes_nothing_and_the_error_is_half_a_digit(value, digits):
    once = significant([value], digits)
    assert significant(once, digits) == once
    assert abs(once.item() - value) <= abs(value) * 0.51 * 10.0 ** (1 - digits)


@given(st.lists(NUMBERS, min_size=2), st.integers(1, 12))
def test_order_is_kept(values, digits):
    assert (np.diff(significant(np.sort(values), digits)) >= 0).all()


@given(st.floats(0, 1))
def test_a_probability_in_single_precision_is_stored_whole(probability):
    once = single_precision(np.array([probability]))
    assert once.dtype == np.float64
    assert once.astype(np.float32).astype(np.float64) == once
