"""`upkeep note` in a small repository with real git, DVC and a remote; GitLab's API is the stand-in."""

import dataclasses
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
import yaml
from conftest import ROOT
from gitlab_stand_in import serving_gitlab
from merge_request_cases import BLIND, plant, snapshot
from prediction_cases import HORIZON, how

from upkeep.core import paths
from upkeep.core.errors import UpkeepError
from upkeep.core.params import Params, load_params
from upkeep.gitlab import backtest, dvc, gate, note
from upkeep.gitlab import snapshot as snapshots
from upkeep.gitlab.failure import keep_failure
from upkeep.gitlab.gate import judge_sides, predict_newest
from upkeep.gitlab.snapshot import REPORTS, Snapshot, read_revision, read_working_tree
from upkeep.judging.acceptance import Check
from upkeep.judging.reports import DataQuality
from upkeep.model.scoring import VERSION_DIGITS
from upkeep.model.storage import checksum
from upkeep.production.ledger import OUTCOMES
from upkeep.production.outcomes import LEDGER
from upkeep.scoring.prediction_log import write_part

STAGE = {
    "cmd": "true",
    "deps": ["seed"],
    "outs": ["data/raw", "data/predictions", "reports/evaluation", "reports/drift", "reports/data_quality.json"],
    "metrics": [{"reports/metrics.json": {"cache": False}}],
}
NOW = datetime(2025, 11, 5, tzinfo=UTC)
GOOD = snapshot("main", plant("lyon"), plant("porto"))
WORSE = snapshot("main", plant("lyon"), plant("porto", BLIND))


def run(folder: Path, *command: str) -> str:
    tools = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": tools, "GIT_CONFIG_GLOBAL": os.devnull}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


def git(folder: Path, *arguments: str) -> str:
    return run(folder, "git", "-c", "user.name=A", "-c", "user.email=a@example.com", *arguments)


def write(folder: Path, side: Snapshot, seed: str) -> None:
    """Leave a side's reports as a pipeline of one stage does."""
    for name, (file, _) in REPORTS.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(getattr(side, name).model_dump_json(by_alias=True))
    for name, rows in side.predictions.items():
        (folder / paths.PREDICTIONS).mkdir(parents=True, exist_ok=True)
        rows.write_parquet(folder / paths.PREDICTIONS / f"{name}.parquet")
    (folder / "seed").write_text(seed)
    run(folder, "dvc", "commit", "--force", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", seed)


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> Path:
    """A repository whose branch main is good and whose branch feature is worse; both are pushed."""
    folder = tmp_path_factory.mktemp("upkeep") / "work"
    folder.mkdir()
    git(folder, "init", "--quiet", "--initial-branch", "main")
    run(folder, "dvc", "init", "--quiet")
    run(folder, "dvc", "remote", "add", "--quiet", "--default", "folder", str(folder.parent / "storage"))
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["evaluate"] = {**how().model_dump(mode="json"), "floors": {"average_precision": 0.1}}
    params["dataset"]["horizon_hours"] = HORIZON
    params["gate"]["min_failures"] = 3
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    (folder / ".gitignore").write_text("/.upkeep/\n/reports/merge_request*\n")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "before the first run")
    git(folder, "tag", "start")
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"all": STAGE}}))
    write(folder, GOOD, "good")
    git(folder, "checkout", "--quiet", "-b", "feature")
    write(folder, WORSE, "worse")
    run(folder, "dvc", "push", "--quiet", "--all-branches")
    git(folder, "clone", "--quiet", "--bare", ".", str(folder.parent / "origin.git"))
    git(folder, "remote", "add", "origin", (folder.parent / "origin.git").as_uri())
    return folder


@pytest.fixture(autouse=True)
def work(template, tmp_path, monkeypatch) -> Path:
    """A copy of the repository, on the branch feature."""
    folder = tmp_path / "work"
    shutil.copytree(template, folder, symlinks=True)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    return folder


def note_of_a_blocked_branch(target: str | None = "main") -> str:
    with pytest.raises(UpkeepError, match="may not ship"):
        note.run(load_params(), target)
    return note.NOTE.read_text()


@pytest.mark.parametrize("where", ["cache", "remote"])
def test_a_revision_is_read_from_the_cache_or_the_remote(work, where):
    if where == "remote":
        shutil.rmtree(work / ".dvc/cache")
    side = read_revision("main", "main")
    assert side.missing == {}
    assert side.metrics == GOOD.metrics
    assert side.predictions["porto"].equals(GOOD.predictions["porto"])


def test_what_neither_git_nor_the_remote_has_is_missing_and_told(work):
    shutil.rmtree(work / ".dvc/cache")
    run(work, "dvc", "remote", "modify", "--local", "folder", "url", str(work / "empty"))
    missing = read_revision("main", "main").missing
    assert "data/predictions" in str(missing) or "reports/evaluation/evaluation.json" in missing
    assert "reports/metrics.json" not in missing


def test_a_revision_before_the_first_run_has_no_history():
    assert read_revision("start", "start") is None


@pytest.mark.parametrize("content", ["<<<<<<< HEAD\n", "[]\n", "stages: 1\n"])
def test_a_lock_that_cannot_be_read_is_no_first_run(work, content):
    (work / "dvc.lock").write_text(content)
    git(work, "commit", "--quiet", "--all", "--message", "Break the lock")
    broken = read_revision("HEAD", "broken")
    assert broken is not None
    assert broken.missing


@pytest.mark.parametrize("content", ["<<<<<<< HEAD\n", "- a list\n", "fetch: [1]\n", "fetch: 7\n", "fetch:\n"])
def test_parameters_that_cannot_be_read_are_missing(work, content):
    (work / "params.yaml").write_text(content)
    git(work, "commit", "--quiet", "--all", "--message", "Break the parameters")
    assert "params.yaml" in read_revision("HEAD", "broken").missing


def test_a_revision_that_git_does_not_know_is_told():
    with pytest.raises(UpkeepError, match="git knows no revision nowhere"):
        read_revision("nowhere", "nowhere")


def test_the_working_tree_goes_before_the_lock_and_the_lock_fills_its_gaps():
    paths.DATA_QUALITY.unlink()
    paths.DATA_QUALITY.write_text('{"plants": {}}')
    shutil.rmtree(paths.PREDICTIONS)
    side = read_working_tree()
    assert side.quality == DataQuality(plants={})
    assert side.predictions["porto"].equals(WORSE.predictions["porto"])


def test_a_worse_branch_is_blocked_and_the_note_is_left_with_its_pictures():
    with pytest.raises(UpkeepError, match="porto: average precision falls"):
        note.run(load_params(), "main")
    text = note.NOTE.read_text()
    assert "⛔ May not ship" in text
    assert "](merge_request.png)" in text
    assert note.PICTURE.read_bytes().startswith(b"\x89PNG")


def test_a_branch_that_is_not_worse_ships(work):
    git(work, "checkout", "--quiet", "--force", "main")
    run(work, "dvc", "checkout", "--quiet")
    note.run(load_params(), "feature")
    assert note.NOTE.read_text().startswith("## ✅ May ship: it saves 240")


def test_a_branch_whose_models_have_cost_more_in_the_shadow_does_not_ship_whatever_its_test_figures_say(work):
    git(work, "checkout", "--quiet", "--force", "main")
    run(work, "dvc", "checkout", "--quiet")
    model = paths.MODELS / "lyon" / paths.MODEL_METADATA
    model.parent.mkdir(parents=True)
    model.write_bytes(b"{}")
    known = {"kind": "failure", "plant": "lyon", "at": NOW, "settled_at": NOW, "known_at": NOW}
    known |= {"probability": 0.5, "threshold": 0.5}
    ends = {"champion": ("live", "caught"), "challenger": (checksum(b"{}")[:VERSION_DIGITS], "missed")}
    rows = [
        {**known, "machine": f"M{machine}", "role": role, "model_version": version, "outcome": outcome}
        for role, (version, outcome) in ends.items()
        for machine in range(3)
    ]
    write_part(load_params().production.ledger, "part", pl.DataFrame(rows, schema=LEDGER), OUTCOMES)
    with pytest.raises(UpkeepError, match="may not ship: lyon: run in the shadow, its alarms have cost"):
        note.run(load_params(), "feature")
    assert "⛔ May not ship" in note.NOTE.read_text()


def floor(least: float) -> Params:
    params = load_params()
    evaluate = params.evaluate.model_copy(update={"floors": {"average_precision": least}})
    return params.model_copy(update={"evaluate": evaluate})


def release(work: Path, revision: str) -> None:
    """Note a revision as what production has, in this repository only."""
    git(work, "remote", "remove", "origin")
    git(work, "tag", "--annotate", "fleet#production#1", "--message", "promote", revision)


@pytest.mark.parametrize("pipeline", ["of a merge request", "of the default branch"])
def test_a_floor_may_be_missed_in_each_pipeline_where_the_gate_lets_it_pass(work, monkeypatch, capsys, pipeline):
    if pipeline == "of a merge request":
        monkeypatch.setenv("CI_MERGE_REQUEST_TARGET_BRANCH_NAME", "feature")
    else:
        release(work, "feature")
    gate.check(floor(0.9))
    assert "average_precision is below its floor of 0.9, but no worse than what is live" in capsys.readouterr().out


@pytest.mark.parametrize("least", [0.9, 0.25])  # both below it, and the champion above it
def test_a_floor_holds_where_what_production_has_is_better(work, capsys, least):
    release(work, "main")
    with pytest.raises(UpkeepError, match="1 of 3 checks failed: average_precision"):
        gate.check(floor(least))
    assert "the champion 0.3 on the newest rows" in capsys.readouterr().out


@pytest.mark.parametrize("live", [None, "start"])
def test_without_a_champion_floors_hold(work, live):
    if live:
        release(work, live)
    with pytest.raises(UpkeepError, match="1 of 3 checks failed"):
        gate.check(floor(0.9))


def test_a_check_that_is_no_floor_is_not_let_pass_by_its_name(work):
    release(work, "feature")
    found = [Check("average_precision", "", "", passed=False), Check("an alarm", "", "", passed=False)]
    floors = {"average_precision": 0.9}
    assert gate.find_missed(found, floors) == floors
    assert gate.find_missed([*found, Check("average_precision", "", "", passed=True)], floors) == {}
    params = floor(0.9)
    assert not gate.may_ship(found, floors, params, {})
    assert gate.may_ship(found[:1], floors, params, {})


def test_a_first_run_is_judged_by_its_floors_alone():
    note.run(load_params(), "start")
    assert note.NOTE.read_text().startswith("## ✅ May ship: the first run")


def test_reports_of_other_code_than_the_branchs_do_not_ship(work):
    (work / "seed").write_text("changed since")
    assert "the reports are not up to date, for all did not run" in note_of_a_blocked_branch()


def test_a_pipeline_that_stopped_is_told_with_its_place(work):
    (work / "seed").write_text("changed since")
    keep_failure(UpkeepError("12% out of range", expected="5%", remedy="mend it", stage="all", plant="lyon"), {})
    assert (
        "the pipeline stopped (stage all, plant lyon): 12% out of range. What to do: mend it"
        in note_of_a_blocked_branch()
    )


def replace_by_link(target):
    def act(file: Path) -> None:
        file.unlink()
        file.symlink_to(target)

    return act


def replace_by_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def grow(file: Path) -> None:
    with file.open("r+b") as stream:
        stream.truncate(10**12)


def hold(content: str):
    return lambda file: (file.unlink(), file.write_text(content))


OTHER = "it is not what upkeep writes or reads; run `dvc repro`, then `dvc push`"
HOSTILE = {
    "a link to a file elsewhere": (replace_by_link("/etc/passwd"), "it leads out of the repository"),
    "a link to git's own files": (replace_by_link("../../.git/config"), "it leads out of the repository"),
    "a link to what never ends": (replace_by_link("/dev/zero"), "it leads out of the repository"),
    "a pipe": (replace_by_pipe, "it is a pipe, a socket or a device, not a file"),
    "a file larger than memory": (grow, "it is larger than 50,000,000 bytes"),
    "deep nesting": (hold("[" * 10**6), OTHER),
    "nulls": (hold('{"overall": null, "plants": null}'), OTHER),
    "a list": (hold("[]"), OTHER),
    "a secret": (hold("password=hunter2"), OTHER),
    "endless digits": (hold('{"plants": {}, "overall": ' + "9" * 10**5 + "}"), OTHER),
}


@pytest.mark.parametrize(("act", "told"), HOSTILE.values(), ids=HOSTILE)
def test_a_report_that_no_stage_has_written_is_missing_and_none_of_it_is_told(act, told):
    file, _ = REPORTS["evaluation"]
    act(file)
    why = read_working_tree().missing[file.as_posix()]
    assert why.endswith(told)
    assert "hunter2" not in why


def test_a_report_that_leads_elsewhere_blocks_and_the_note_tells_nothing_of_it():
    replace_by_link("/etc/passwd")(REPORTS["metrics"][0])
    text = note_of_a_blocked_branch()
    assert "this branch's `reports/metrics.json` is missing: reports/metrics.json is not read: it leads out" in text
    assert "root:" not in text


PREDICTIONS = {
    "a column is missing": lambda rows: rows.drop("alarm"),
    "a column is of another type": lambda rows: rows.with_columns(time=pl.lit("yesterday")),
    "a probability is none": lambda rows: rows.with_columns(probability=float("nan")),
    "a probability is large": lambda rows: rows.with_columns(probability=1e308),
    "a value is missing": lambda rows: rows.with_columns(machine=pl.lit(None, pl.String)),
}


@pytest.mark.parametrize("change", PREDICTIONS.values(), ids=PREDICTIONS)
def test_predictions_that_no_stage_has_written_are_missing(change):
    change(WORSE.predictions["porto"]).write_parquet(paths.PREDICTIONS / "porto.parquet")
    assert read_working_tree().missing == {"data/predictions/porto.parquet": OTHER}


def test_predictions_that_cannot_be_compared_block():
    broken = snapshot("this branch", plant("lyon"), predictions={"lyon": plant("lyon").drop("split")})
    found = judge_sides(GOOD, broken, load_params(), {})
    assert found.decision == "unknown"
    assert found.reasons[0].startswith("the predictions of both sides cannot be compared: ")


def test_predictions_of_more_rows_than_memory_holds_are_not_unpacked(monkeypatch):
    monkeypatch.setattr(snapshots, "MOST_CELLS", 1000)
    with pytest.raises(ValueError, match="too many rows"):
        snapshots.parse_predictions((paths.PREDICTIONS / "porto.parquet").read_bytes())


@pytest.mark.parametrize(
    "content",
    ["stages: [1]", "[" * 1000, "stages: {a: 1}", "stages: {a: {outs: [1]}}", "stages:", "stages: {a: {outs: }}", "\1"],
)
def test_a_lock_of_another_shape_is_a_sentence_here_and_in_a_commit(work, content):
    (work / "dvc.lock").write_text(content)
    git(work, "commit", "--quiet", "--all", "--message", "another shape")
    for commit in ("", "HEAD"):
        with pytest.raises(UpkeepError, match=r"dvc\.lock"):
            dvc.read_stages(commit)
    assert list(read_working_tree().missing) == ["dvc.lock"]


def test_the_note_is_not_written_through_a_link(work):
    (work / "outside").write_text("mine")
    note.NOTE.symlink_to(work / "outside")
    note.PICTURE.symlink_to(work / "outside")
    note_of_a_blocked_branch()
    assert (work / "outside").read_text() == "mine"


def test_a_champion_without_a_model_of_the_newest_rows_is_told_and_its_own_predictions_stand():
    later = {name: rows.with_columns(time=rows["time"].dt.offset_by("20h")) for name, rows in GOOD.predictions.items()}
    said, silent = predict_newest(read_revision("main", "main"), later)
    assert said["lyon"].equals(GOOD.predictions["lyon"])
    assert silent["lyon"].startswith("its model is missing: neither git nor DVC's remote has it")


def test_a_champions_model_comes_from_its_commit_and_scores_what_came_later(work, trained_fleet):
    for folder in ("data/interim", "models/plants"):
        shutil.copytree(trained_fleet / folder, work / folder)
    newest = pl.read_parquet(trained_fleet / "data/predictions/lyon.parquet")
    test = newest.filter("chosen", split="test").sort("time")
    own = pl.concat([newest.filter("chosen", split="validation"), test.head(900)])
    stage = STAGE | {"outs": [*STAGE["outs"], "data/interim", "models/plants"]}
    (work / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"all": stage}}))
    write(work, GOOD, "trained")
    shutil.rmtree(work / "models")
    shutil.copytree(trained_fleet / "models/plants", work / "models/plants")
    champion = dataclasses.replace(read_revision("HEAD", "main"), predictions={"lyon": own})
    said, silent = predict_newest(champion, {"lyon": newest})
    assert silent == {}
    scored = said["lyon"].filter(split="test").sort("machine", "time")
    assert scored["probability"].equals(test.sort("machine", "time")["probability"])
    assert scored["alarm"].equals(test.sort("machine", "time")["alarm"])


def test_a_past_release_stands_beside_what_it_would_do_now_and_what_todays_models_do(work):
    for version, revision in {"v0.1.0": "start", "v1.0.0": "main"}.items():
        git(work, "tag", "--annotate", f"fleet@{version}", "--message", "register\n\nWhy: wider windows", revision)
    said = backtest.run(load_params(), 20)
    (row,) = pl.read_csv("reports/backtest/backtest.csv").to_dicts()  # before the first run there was nothing to ask
    assert (row["release"], row["tried"], row["data_until"]) == ("v1.0.0", "wider windows", "2025-12-22")
    assert row["average_precision_then"] == GOOD.metrics.overall.average_precision
    assert row["average_precision_now"] > row["average_precision_today"]
    assert "v1.0.0" in said
    assert Path("reports/backtest/backtest.png").read_bytes().startswith(b"\x89PNG")


def test_without_a_past_release_the_error_says_how_to_have_one():
    with pytest.raises(UpkeepError, match="there is no past release"):
        backtest.run(load_params(), 20)


def test_without_a_target_the_error_says_how_to_name_one():
    with pytest.raises(UpkeepError) as caught:
        note.run(load_params())
    assert caught.value.remedy == "name it: upkeep note --target main"


def test_a_job_in_a_shallow_clone_fetches_the_target_and_keeps_one_note(template, tmp_path, monkeypatch):
    clone = tmp_path / "clone"
    origin = (template.parent / "origin.git").as_uri()
    git(tmp_path, "clone", "--quiet", "--depth=1", "--single-branch", "--branch=feature", origin, str(clone))
    git(clone, "checkout", "--quiet", "--detach")
    monkeypatch.chdir(clone)
    run(clone, "dvc", "pull", "--quiet")
    with serving_gitlab() as server:
        number = server.add_merge_request("feature")
        job = server.environment(number) | {
            "CI_MERGE_REQUEST_TARGET_BRANCH_NAME": "main",
            "CI_JOB_URL": "https://g/j/7",
        }
        for name, value in job.items():
            monkeypatch.setenv(name, value)
        for _ in range(2):
            note_of_a_blocked_branch(None)
        (posted,) = server.notes[number]
    assert "First `main`, below it this branch" in posted["body"]
    assert "[drift](https://g/j/7/artifacts/file/reports/drift/index.html)" not in posted["body"]  # there is none
    assert any(f"]({address})" in posted["body"] for address in server.uploads)


def test_links_lead_to_the_pages_that_the_job_keeps(monkeypatch):
    paths.MODEL_QUALITY.write_text("a page")
    with serving_gitlab() as server:
        number = server.add_merge_request("feature")
        for name, value in {**server.environment(number), "CI_JOB_URL": "https://g/j/7"}.items():
            monkeypatch.setenv(name, value)
        assert "[model quality](./model_quality.html)" in note_of_a_blocked_branch()
        assert (
            "[model quality](https://g/j/7/artifacts/file/reports/model_quality.html)"
            in server.notes[number][0]["body"]
        )
