"""A project set up from a file, and a tag's release, against GitLab's stand-in."""

import re
from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from gitlab_stand_in import MAINTAINER, GitLab, serving_gitlab

from upkeep.core.errors import UpkeepError
from upkeep.core.objects import read_object
from upkeep.gitlab import setup
from upkeep.gitlab.api import open_project, put_note, release

SECRET = "correct-horse-battery"
EXAMPLE = ROOT / "examples/gitlab.yaml"


@pytest.fixture
def server(monkeypatch):
    with serving_gitlab() as server:
        monkeypatch.setenv("S3_SECRET", SECRET)
        yield server


def write(folder: Path, server: GitLab, **settings: object) -> Path:
    file = folder / "gitlab.yaml"
    file.write_text(yaml.safe_dump({"url": server.url, "project": "plants/upkeep", **settings}, sort_keys=False))
    return file


def set_up(file: Path, server: GitLab, role: int = MAINTAINER, apply: bool = True) -> str:
    return setup.set_up(file, {"GITLAB_TOKEN": server.add_token("api", role=role)}, apply=apply)


def variables(server: GitLab) -> dict[tuple[str, str], dict]:
    return {(each["key"], each["environment_scope"]): each for each in server.settings["variables"]}


EVERYTHING = {
    "project_settings": {"only_allow_merge_if_pipeline_succeeds": True},
    "protected_tags": [{"name": "fleet*"}],
    "protected_branches": [{"name": "main"}],
    "schedules": [{"description": "retrain", "cron": "0 5 * * *", "ref": "refs/heads/main", "active": True}],
    "runners": [{"description": "guarded", "tag_list": ["guarded"], "access_level": "ref_protected"}],
    "token": {},
    "note_token": {},
    "release_token": {},
    "variables": {
        "AWS_SECRET_ACCESS_KEY": [{"value": "$S3_SECRET"}],
        "UPKEEP_TEST_IMAGE": [{"value": "python:$PYTHON", "expanded": True}],
        "DEPLOY_HOST": [{"value": name, "environment": name} for name in ("staging", "production")],
    },
}


def test_a_dry_run_lists_everything_shows_no_value_and_changes_nothing(server, tmp_path):
    told = set_up(write(tmp_path, server, **EVERYTHING), server, apply=False)
    assert told.splitlines() == [
        "set only_allow_merge_if_pipeline_succeeds",
        "add protected_tags: fleet*",
        "add protected_branches: main",
        "add schedules: retrain",
        "add runners: guarded",
        "add variable AWS_SECRET_ACCESS_KEY, masked",
        "add variable UPKEEP_TEST_IMAGE",
        "add variable DEPLOY_HOST of staging",
        "add variable DEPLOY_HOST of production",
        "make the token with api and write_repository, kept in UPKEEP_GITLAB_TOKEN",
        "make the token with api, kept in UPKEEP_NOTE_TOKEN",
        "make the token with write_repository, kept in UPKEEP_RELEASE_TOKEN",
        "nothing is changed yet: --apply does it",
    ]
    assert SECRET not in told
    assert {call.split()[0] for call in server.requests} == {"GET"}


def test_a_second_run_finds_everything_as_the_file_says(server, tmp_path):
    file = write(tmp_path, server, **EVERYTHING)
    told = set_up(file, server)
    assert told.endswith("\ndone")
    assert re.search(rf"gitlab-runner register --url {server.url} --token glrt-\w+$", told, re.MULTILINE)
    names = ("UPKEEP_GITLAB_TOKEN", "UPKEEP_NOTE_TOKEN", "UPKEEP_RELEASE_TOKEN")
    kept = [variables(server)[name, "*"] for name in names]
    assert [(each["protected"], each["masked"]) for each in kept] == [(True, True), (False, True), (True, True)]
    tokens = [server.tokens[each["value"]] for each in kept]
    roles = [(["api", "write_repository"], 30), (["api"], 20), (["write_repository"], 40)]
    assert [(token.scopes, token.role) for token in tokens] == roles
    assert not any(secret in told for secret in (SECRET, *(each["value"] for each in kept)))
    assert set_up(file, server) == "everything is as the file says"


def test_a_token_that_merge_requests_could_read_is_renewed_and_a_runner_gets_its_protection_back(server, tmp_path):
    file = write(tmp_path, server, **EVERYTHING)
    set_up(file, server)
    variables(server)["UPKEEP_GITLAB_TOKEN", "*"]["protected"] = False
    server.settings["runners"][0]["access_level"] = "not_protected"
    assert set_up(file, server).splitlines() == [
        "change access_level of runners: guarded",
        "rotate the token with api and write_repository, kept in UPKEEP_GITLAB_TOKEN",
        "done",
    ]
    assert set_up(file, server) == "everything is as the file says"


def test_a_run_that_is_ended_before_a_new_token_is_stored_says_what_to_do(server, tmp_path, monkeypatch):
    def end(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(setup, "_add", end)
    with pytest.raises(UpkeepError, match="UPKEEP_GITLAB_TOKEN does not hold it") as caught:
        set_up(write(tmp_path, server, token={}), server)
    assert "revoke upkeep in Settings > Access tokens" in caught.value.remedy


@pytest.mark.parametrize(
    ("form", "protected"), [({}, True), ({"environment": "merge-requests"}, False), ({"protected": False}, False)]
)
def test_what_merge_requests_must_not_see_is_protected_unless_it_is_theirs_or_the_file_says_otherwise(
    server, tmp_path, form, protected
):
    names = ("AWS_ACCESS_KEY_ID", "MLFLOW_TRACKING_TOKEN")
    values = {name: [{"value": "AKIAUPKEEPTEAM1", **form}] for name in names}
    set_up(write(tmp_path, server, variables=values), server)
    assert {each["protected"] for each in server.settings["variables"]} == {protected}


@pytest.mark.parametrize("name", ["DEPLOY_KEY", "UPKEEP_GITLAB_TOKEN", "UPKEEP_REGISTRY_PASSWORD"])
def test_what_no_merge_request_has_a_use_for_is_protected_in_their_environment_too(name):
    form = setup.Variable(value="long-enough", environment="merge-requests")
    assert form.fields(name)["protected"]


def test_the_second_remote_is_set_up_as_the_first_one_is(server, tmp_path, monkeypatch):
    config = tmp_path / ".dvc/config"
    config.parent.mkdir()
    first = "['remote \"s3\"']\n    url = s3://plants/dvc\n    endpointurl = https://s3\n    verify = true\n"
    config.write_text(f"[core]\n    remote = s3\n{first}")
    monkeypatch.chdir(tmp_path)
    file = write(tmp_path, server, merge_requests_remote="s3://proposed/dvc")
    assert set_up(file, server).startswith("write the DVC remote merge_requests to .dvc/config")
    written = config.read_text()
    assert first.replace("    ", "") in written.replace("    ", "")
    theirs = written.partition("merge_requests")[2]
    assert all(line in theirs for line in ("url = s3://proposed/dvc", "endpointurl = https://s3", "verify = true"))
    assert set_up(file, server) == "everything is as the file says"
    assert "write the DVC remote" in set_up(write(tmp_path, server, merge_requests_remote="s3://other/dvc"), server)
    assert "url = s3://other/dvc" in config.read_text()


def test_variables_are_masked_raw_expanded_protected_and_scoped_as_the_file_says(server, tmp_path):
    set_up(write(tmp_path, server, **EVERYTHING), server)
    found = variables(server)
    secret, image = found["AWS_SECRET_ACCESS_KEY", "*"], found["UPKEEP_TEST_IMAGE", "*"]
    assert (secret["value"], secret["masked"], secret["raw"]) == (SECRET, True, True)
    assert (image["value"], image["masked"], image["raw"]) == ("python:$PYTHON", False, False)
    assert found["DEPLOY_HOST", "staging"]["protected"]


def test_only_what_somebody_has_changed_by_hand_is_changed_back_and_of_the_right_environment(server, tmp_path):
    file = write(tmp_path, server, **EVERYTHING)
    set_up(file, server)
    variables(server)["DEPLOY_HOST", "production"] |= {"protected": False, "value": "elsewhere"}
    server.settings["pipeline_schedules"][0]["active"] = False
    assert set_up(file, server).splitlines() == [
        "change active of schedules: retrain",
        "change value, protected of variable DEPLOY_HOST of production",
        "done",
    ]
    assert [variables(server)["DEPLOY_HOST", scope]["value"] for scope in ("staging", "production")] == [
        "staging",
        "production",
    ]


@pytest.mark.parametrize(("ends", "told"), [("2020-01-31", "rotate the token"), (None, "as the file says")])
def test_a_token_that_ends_soon_is_rotated_so_that_its_user_stays_and_one_that_never_ends_is_left(
    server, tmp_path, ends, told
):
    file = write(tmp_path, server, token={})
    set_up(file, server)
    (token,) = server.settings["access_tokens"]
    token["expires_at"] = ends
    assert told in set_up(file, server)
    assert [each["id"] for each in server.settings["access_tokens"]] == [token["id"]]
    assert set_up(file, server) == "everything is as the file says"


@pytest.mark.parametrize(("field", "value"), [("scopes", ["api", "write_repository"]), ("access_level", MAINTAINER)])
def test_a_token_that_may_do_more_than_write_notes_is_replaced(server, tmp_path, field, value):
    file = write(tmp_path, server, note_token={})
    set_up(file, server)
    server.settings["access_tokens"][0][field] = value
    assert set_up(file, server).startswith("make the token with api, kept in UPKEEP_NOTE_TOKEN")
    assert set_up(file, server) == "everything is as the file says"


def test_roles_that_somebody_has_changed_are_changed_back_and_those_that_the_file_does_not_name_stay(server, tmp_path):
    file = write(
        tmp_path,
        server,
        protected_tags=[{"name": "fleet*", "create_access_level": 40}],
        protected_branches=[{"name": "main", "push_access_level": 0}],
    )
    set_up(file, server)
    (tag,), (branch,) = (server.settings[f"protected_{kind}"] for kind in ("tags", "branches"))
    tag["create_access_levels"][0]["access_level"] = 30
    branch |= {name: [{"access_level": 30}] for name in ("push_access_levels", "merge_access_levels")}
    assert set_up(file, server).splitlines() == [
        "change create_access_level of protected_tags: fleet*",
        "change push_access_level of protected_branches: main",
        "done",
    ]
    (branch,) = server.settings["protected_branches"]
    assert [branch[name][0]["access_level"] for name in ("push_access_levels", "merge_access_levels")] == [0, 30]
    assert set_up(file, server) == "everything is as the file says"


def test_a_protection_of_several_people_is_not_lost_with_the_change_of_another_role(server, tmp_path):
    settings = {"protected_branches": [{"name": "main", "push_access_level": 0}]}
    set_up(write(tmp_path, server, protected_branches=[{"name": "main"}]), server)
    (branch,) = server.settings["protected_branches"]
    branch["merge_access_levels"] = [{"access_level": 40}, {"access_level": None, "user_id": 7}]
    with pytest.raises(UpkeepError, match="main has more than one merge_access_level"):
        set_up(write(tmp_path, server, **settings), server)
    assert server.settings["protected_branches"] == [branch]


def test_a_protection_that_gitlab_refuses_to_change_is_there_afterwards_as_before(server, tmp_path):
    set_up(write(tmp_path, server, protected_branches=[{"name": "main"}]), server)
    (before,) = server.settings["protected_branches"]
    wrong = {"name": "main", "push_access_level": 0, "nonsense": True}
    with pytest.raises(UpkeepError, match="answered 400"):
        set_up(write(tmp_path, server, protected_branches=[wrong]), server)
    (after,) = server.settings["protected_branches"]
    assert {**before, "id": None} == {**after, "id": None}


def test_a_setting_that_gitlab_ignores_is_told(server, tmp_path):
    told = set_up(write(tmp_path, server, project_settings={"only_alow_merge": True}), server)
    assert "this GitLab does not take only_alow_merge: misspelt, or of another version" in told


def test_what_is_not_set_in_gitlab_is_set_and_the_order_of_tags_is_none(server, tmp_path):
    guarded = {"description": "guarded", "tag_list": ["a", "b"], "run_untagged": False}
    set_up(write(tmp_path, server, runners=[guarded]), server)
    server.settings["runners"][0] |= {"tag_list": ["b", "a"], "run_untagged": None}
    file = write(tmp_path, server, runners=[guarded])
    assert set_up(file, server).splitlines() == ["change run_untagged of runners: guarded", "done"]
    assert set_up(file, server) == "everything is as the file says"


def test_a_short_lived_token_is_not_renewed_each_time(server, tmp_path):
    file = write(tmp_path, server, token={"days": 7})
    set_up(file, server)
    assert set_up(file, server) == "everything is as the file says"


@pytest.mark.parametrize("content", ["-----BEGIN KEY-----\n", ""])
def test_a_file_becomes_a_variable_of_type_file(server, tmp_path, content):
    (tmp_path / "key").write_text(content)
    set_up(write(tmp_path, server, variables={"DEPLOY_KEY": [{"file": str(tmp_path / "key")}]}), server)
    (found,) = server.settings["variables"]
    assert (found["variable_type"], found["value"], found["masked"]) == ("file", content, False)


def test_a_hidden_value_which_nobody_is_told_counts_as_right(server, tmp_path):
    file = write(tmp_path, server, variables={"AWS_SECRET_ACCESS_KEY": [{"value": "$S3_SECRET"}]})
    set_up(file, server)
    server.settings["variables"][0]["value"] = None
    assert set_up(file, server) == "everything is as the file says"


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"variables": {"A_TOKEN": [{"value": "short"}]}}, "add variable A_TOKEN, masked failed: GitLab answered 400"),
        ({"variables": {"A": [{"value": "$NOWHERE_SET"}]}}, "the environment variable NOWHERE_SET is not set"),
        ({"variables": {"A": [{"file": "nowhere"}]}}, "variables.A.0.file"),
        ({"protected_tags": [{"tag": "v*"}]}, "one of protected_tags has no name"),
        ({"merge_requests_remote": "s3://proposed/dvc"}, "there is no .dvc here for the DVC remote merge_requests"),
        ({"variabels": {}}, "variabels: Extra inputs are not permitted"),
    ],
)
def test_what_cannot_be_set_is_told(server, tmp_path, monkeypatch, settings, told):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UpkeepError) as caught:
        set_up(write(tmp_path, server, **settings), server)
    assert told in caught.value.what


def test_whoever_is_no_maintainer_is_told_so(server, tmp_path):
    with pytest.raises(UpkeepError, match="answered 403"):
        set_up(write(tmp_path, server, protected_tags=[{"name": "v*"}]), server, role=30)
    with pytest.raises(UpkeepError, match="GITLAB_TOKEN is not set"):
        setup.set_up(write(tmp_path, server), {}, apply=False)


def test_the_example_is_one_and_names_every_variable_of_the_docs():
    uncommented = EXAMPLE.read_text().replace("  # ", "  ")
    named = set(yaml.safe_load(uncommented)["variables"])
    table = (ROOT / "docs/gitlab.md").read_text()
    assert {name for name in named if f"| `{name}` |" not in table} == set()
    made = {"UPKEEP_GITLAB_TOKEN", "UPKEEP_NOTE_TOKEN", "UPKEEP_RELEASE_TOKEN", "UPKEEP_TODAY"}
    rows = {
        line.split("`")[1] for line in table.splitlines() if line.startswith("| `") and line.split("`")[1].isupper()
    }
    assert rows - named == made
    settings = read_object(setup.ProjectSettings, EXAMPLE, what="", remedy="")
    roles = {each["name"]: each["create_access_level"] for each in settings.protected_tags}
    assert roles == dict.fromkeys(["v*", "fleet*"], MAINTAINER)


def test_a_project_that_is_private_to_others_is_not_found(server):
    access = {**server.environment(), "UPKEEP_GITLAB_TOKEN": server.add_token("api", member=False)}
    with pytest.raises(UpkeepError, match="answered 404"):
        open_project(access)


@pytest.mark.parametrize("statuses", [[429], [502, 503]])
def test_a_gitlab_that_is_busy_or_restarts_is_asked_again(server, statuses):
    server.add_merge_request("feature")
    server.refusals = statuses
    put_note(open_project(server.environment()), 1, "text")
    assert len(server.notes[1]) == 1


def test_a_gitlab_that_stays_away_is_told(server, monkeypatch):
    monkeypatch.setattr("upkeep.gitlab.api.RETRIES.backoff_factor", 0)
    server.refusals = [502] * 20
    with pytest.raises(UpkeepError, match="opening project 1"):
        open_project(server.environment())


def test_a_tag_gets_a_release_with_the_changelogs_words_and_again_only_a_new_text(server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("CHANGELOG.md").write_text(
        "# Changelog\n\n## 1.2.0 - 2025-01-01\n\n### Added\n\n- This.\n\n## 1.1.0\n\n- That.\n"
    )
    job = server.environment() | {"CI_JOB_TOKEN": server.add_token("api"), "CI_COMMIT_TAG": "v1.2.0"}
    job |= {"UPKEEP_GITLAB_TOKEN": ""}
    assert release(job).endswith("/-/releases/v1.2.0")
    release(job | {"IMAGE_DIGEST": "registry.example.com/upkeep@sha256:1"})
    (made,) = server.settings["releases"]
    assert made["description"] == "### Added\n\n- This.\n\nImage: `registry.example.com/upkeep@sha256:1`\n"
    with pytest.raises(UpkeepError, match=r"says nothing of 1\.3\.0"):
        release(job | {"CI_COMMIT_TAG": "v1.3.0"})
