"""What is kept of a failure, and how it is told."""

import json

import pytest

from upkeep.core.errors import UpkeepError
from upkeep.gitlab import failure
from upkeep.gitlab.failure import (
    FAILURE,
    PIPELINE,
    WEBHOOK,
    describe_failure,
    keep_failure,
    notify_failure,
    read_failure,
)
from upkeep.gitlab.zones import TOKEN

JOB = {"CI_JOB_ID": "77", "CI_JOB_NAME": "retrain", "CI_JOB_URL": "https://git.example/j/77", "CI_JOB_STATUS": "failed"}
PLACE = {"stage": "validate", "plant": "lyon", "batch": "2025-12-29", "column": "load_pct"}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    PIPELINE.touch()


def fail(what: str = "12% of rows are out of range") -> UpkeepError:
    return UpkeepError(what, expected="at most 5%", remedy="mend the source", **PLACE)


def test_a_failure_is_kept_with_its_place_and_job():
    keep_failure(fail(), JOB)
    kept = json.loads(FAILURE.read_text())
    assert kept["where"] == PLACE
    assert (kept["what"], kept["expected"], kept["remedy"]) == tuple(
        getattr(fail(), name) for name in ("what", "expected", "remedy")
    )
    assert kept["job"] == "77"


def test_credentials_are_masked_in_every_part_of_a_failure():
    secret = "s3://key:s3cret@bucket/x?sig=abc"
    keep_failure(UpkeepError(secret, expected=secret, remedy=secret, file=secret), {})
    kept = FAILURE.read_text()
    assert kept.count("s3://***@bucket/x?***") == 4
    assert "s3cret" not in kept
    assert "abc" not in kept


@pytest.mark.parametrize("content", ['"x"', "[]", '{"what": "", "expected": "", "remedy": "", "where": null}'])
def test_a_failure_of_another_shape_is_none(content):
    keep_failure(fail(), {})
    FAILURE.write_text(content)
    assert read_failure() is None


def test_a_folder_that_cannot_be_written_hides_no_error(tmp_path):
    (tmp_path / ".upkeep").write_text("a file where the folder should be")
    keep_failure(fail(), {})
    assert read_failure() is None


def test_outside_of_a_pipelines_repository_nothing_is_kept(tmp_path):
    PIPELINE.unlink()
    keep_failure(fail(), JOB)
    assert list(tmp_path.iterdir()) == []


def test_an_alert_names_stage_plant_batch_column_and_links_the_job():
    keep_failure(fail(), JOB)
    title, body = describe_failure(read_failure(), JOB)
    assert title == "retrain failed: stage validate, plant lyon, batch 2025-12-29, column load_pct"
    assert "[the job's log](https://git.example/j/77)" in body
    assert "- What to do: `mend the source`" in body


def test_what_data_says_neither_mentions_people_nor_formats_itself():
    keep_failure(fail("found `x` @all\n# shout"), JOB)
    assert "`found 'x' @all # shout`" in describe_failure(read_failure(), JOB)[1]


def test_a_job_that_left_no_error_is_told_too():
    title, body = describe_failure(None, JOB)
    assert title == "retrain failed"
    assert "may have been stopped" in body


def test_the_failure_of_another_job_is_not_told_as_this_ones():
    keep_failure(fail(), {**JOB, "CI_JOB_ID": "76"})
    assert notify_failure(JOB).startswith("retrain failed\nnobody was told: set UPKEEP_GITLAB_TOKEN")


@pytest.mark.parametrize("status", ["success", "canceled"])
def test_a_job_that_went_well_or_was_cancelled_tells_nothing(status):
    assert notify_failure({**JOB, "CI_JOB_STATUS": status}) == f"nothing to tell: the job's status is {status}"


def test_each_way_that_fails_to_tell_is_named(monkeypatch):
    def refuse(*_):
        raise UpkeepError("no issue was written", remedy="renew the token")

    monkeypatch.setattr(failure, "_open_issue", refuse)
    with pytest.raises(UpkeepError, match=f"no issue was written; the address in {WEBHOOK} was not told") as caught:
        notify_failure({**JOB, TOKEN: "expired", WEBHOOK: "http://127.0.0.1:1"})
    assert caught.value.remedy.startswith(f"renew the token; set {WEBHOOK}")


def test_a_job_that_ran_out_of_time_is_told():
    assert notify_failure({**JOB, "CI_JOB_STATUS": "timedout"}).startswith("retrain failed\n")
