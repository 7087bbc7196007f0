"""What the stages write is what its readers expect."""

import json

import pytest

from upkeep.core.errors import UpkeepError
from upkeep.judging.reports import FILES, DataQuality, Headline, TrainingReport, read_report


@pytest.mark.parametrize("kind", [DataQuality, TrainingReport])
def test_a_report_that_is_read_says_all_that_its_stage_wrote(trained_fleet, monkeypatch, kind):
    monkeypatch.chdir(trained_fleet)
    assert read_report(kind).model_dump(exclude_unset=True) == json.loads(FILES[kind].read_text())


def test_a_report_that_lacks_what_it_must_hold_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    FILES[Headline].parent.mkdir()
    FILES[Headline].write_text('{"overall": {"rows": 1}, "plants": {}}')
    with pytest.raises(UpkeepError, match=r"overall.machines: Field required") as raised:
        read_report(Headline)
    assert raised.value.where["file"] == FILES[Headline]
