"""A lock that others hold: waited for, for a while, and then told who holds it."""

import os

import pytest

from upkeep.core.errors import UpkeepError
from upkeep.core.files import locked


def test_who_waits_too_long_is_told_who_holds_the_lock_and_what_to_do(tmp_path, caplog):
    with locked(tmp_path / "lock") as is_mine:
        assert is_mine
        with pytest.raises(UpkeepError, match=f"process {os.getpid()} .* has held the lock") as caught:
            locked(tmp_path / "lock", seconds=0.2).__enter__()
    assert "wait until that process ends" in caught.value.remedy
    assert caught.value.where["file"] == tmp_path / "lock"
    assert f"waiting for process {os.getpid()}" in caplog.text


def test_who_does_not_wait_is_told_at_once(tmp_path):
    with locked(tmp_path / "lock"), locked(tmp_path / "lock", seconds=0) as is_mine:
        assert not is_mine


def test_a_lock_is_free_again_after_an_error(tmp_path):
    with pytest.raises(ZeroDivisionError), locked(tmp_path / "lock"):
        raise ZeroDivisionError
    with locked(tmp_path / "lock", seconds=0) as is_mine:
        assert is_mine


@pytest.mark.parametrize("content", [b"", b"line\nline", b"\x1b[2J"])
def test_a_lock_that_says_nothing_readable_is_held_by_another_process(tmp_path, content):
    with locked(tmp_path / "lock"):
        (tmp_path / "lock").write_bytes(content)
        with pytest.raises(UpkeepError, match="another process has held"):
            locked(tmp_path / "lock", seconds=0.01).__enter__()
