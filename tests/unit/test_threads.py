import threading

import pytest

from upkeep.core.threads import call_within


def test_what_is_done_in_time_is_returned_and_what_fails_raises_its_own_error():
    assert call_within(60, lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        call_within(60, lambda: 1 // 0)


def test_what_hangs_is_left_behind():
    is_over = threading.Event()
    with pytest.raises(TimeoutError, match=r"not done within 0\.01 s"):
        call_within(0.01, is_over.wait)
    is_over.set()


def test_a_time_out_of_the_work_itself_keeps_its_words():
    def work():
        raise TimeoutError("the host is slow")

    with pytest.raises(TimeoutError, match="the host is slow"):
        call_within(60, work)
