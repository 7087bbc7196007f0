"""How long stages took is read from a file that a branch may bring along."""

import pytest

from upkeep.core.timing import TIMES, stage_times, timed


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_the_seconds_of_each_stage_are_kept_until_it_runs_again():
    for stage in ("fetch", "train", "fetch"):
        with timed(stage):
            pass
    assert stage_times() == {"fetch": 0.0, "train": 0.0}


@pytest.mark.parametrize("content", ["[]", "7", '{"train": "long"}', '{"train": null}', '{"train": NaN}', "[" * 10**5])
def test_times_that_no_stage_has_written_are_none(content):
    TIMES.parent.mkdir()
    TIMES.write_text(content)
    assert stage_times() == {}
