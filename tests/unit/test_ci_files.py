"""What holds for every GitLab job, read from the files themselves."""

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT

MOST_SHELL_LINES = 60
FILES = [ROOT / ".gitlab-ci.yml", *sorted((ROOT / "ci").glob("*.yml"))]
KEYWORDS = {"default", "include", "stages", "variables", "workflow"}
SCRIPTS = ("before_script", "script", "after_script")
PROGRAMS = (
    *("deploy/build.sh", "deploy/push.sh", "deploy/ship.sh", "ci/environment.sh"),
    *(
        f"src/upkeep/gitlab/{name}.py"
        for name in ("api", "doctor", "failure", "git", "offer", "reproduction", "retraining")
    ),
)
"""What jobs call, and what that reads of the variables."""

VARIABLE = re.compile(r"\$\{?([A-Z][A-Z0-9_]+)")
OURS = re.compile(r"\b(?:UPKEEP|DEPLOY)_[A-Z_]+\b")


def merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Merge as `extends` does: mappings key by key, anything else replaced."""
    both = {key: merged(base[key], over[key]) for key in base.keys() & over.keys() if isinstance(over[key], dict)}
    return {**base, **over, **both}


@cache
def sections() -> dict[str, dict[str, Any]]:
    return {name: value for file in FILES for name, value in yaml.safe_load(file.read_text(encoding="utf-8")).items()}


def expanded(name: str) -> dict[str, Any]:
    """Return a job with all that it extends and the defaults in it."""
    job = sections()[name]
    parents = job.get("extends", [])
    result: dict[str, Any] = {}
    for parent in [parents] if isinstance(parents, str) else parents:
        result = merged(result, expanded(parent))
    return merged(result, job)


JOBS = [name for name in sections() if name not in KEYWORDS and not name.startswith(".")]
HIDDEN = [name for name in sections() if name.startswith(".")]


def job(name: str) -> dict[str, Any]:
    return {**sections()["default"], **expanded(name)}


def caches(name: str) -> list[dict[str, Any]]:
    found = job(name)["cache"]
    return found if isinstance(found, list) else [found]


def texts(value: Any) -> list[str]:
    """Return each text anywhere in a nested value."""
    if isinstance(value, dict):
        return [text for item in value.values() for text in texts(item)]
    if isinstance(value, list):
        return [text for item in value for text in texts(item)]
    return [value] if isinstance(value, str) else []


def documented() -> set[str]:
    """Return the variables of the table in docs/gitlab.md."""
    rows = re.findall(r"^\| (`[A-Z].*?) \|", (ROOT / "docs/gitlab.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`([A-Z0-9_]+)`", row)}


def sources(*folders: str) -> str:
    files = [
        file for folder in folders for file in sorted((ROOT / folder).rglob("*.*")) if file.suffix in (".py", ".sh")
    ]
    return "\n".join(file.read_text(encoding="utf-8") for file in files)


def test_the_front_page_names_every_file_of_jobs():
    included = {entry["local"] for entry in sections()["include"]}
    assert included == {str(file.relative_to(ROOT)) for file in FILES[1:]}


def test_no_name_is_defined_twice():
    names = [name for file in FILES for name in yaml.safe_load(file.read_text(encoding="utf-8"))]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("name", JOBS)
def test_every_job_has_rules_a_time_limit_and_says_whether_it_may_be_interrupted(name):
    assert job(name)["rules"]
    assert re.fullmatch(r"\d+ (minutes|hours?)", job(name)["timeout"])
    assert isinstance(job(name)["interruptible"], bool)


def test_a_retraining_that_takes_too_long_is_stopped_early_enough_to_tell():
    job_hours = int(job("retrain")["timeout"].removesuffix(" hours"))
    hours, minutes = re.fullmatch(r"(\d+)h (\d+)m", job("retrain")["variables"]["RUNNER_SCRIPT_TIMEOUT"]).groups()
    assert 5 <= job_hours * 60 - int(hours) * 60 - int(minutes) <= 30


@pytest.mark.parametrize("name", JOBS)
def test_a_job_is_tried_again_only_where_the_infrastructure_failed(name):
    assert set(job(name)["retry"]["when"]) == {"runner_system_failure", "stuck_or_timeout_failure"}


@pytest.mark.parametrize("name", JOBS)
def test_no_job_holds_a_program(name):
    for part in SCRIPTS:
        lines = "\n".join(job(name).get(part, [])).splitlines()
        assert len(lines) <= 3, part
        assert not re.search(r"\b(for|while|if|case)\b", "\n".join(lines)), part


@pytest.mark.parametrize("name", JOBS)
def test_artifacts_expire(name):
    assert "artifacts" not in job(name) or job(name)["artifacts"]["expire_in"]


@pytest.mark.parametrize("name", [name for name in JOBS if "cache" in job(name)])
def test_caches_of_packages_are_keyed_on_the_lock(name):
    packages = [cache for cache in caches(name) if cache["paths"] == [".cache/uv/"]]
    assert [cache["key"] for cache in packages] == [{"files": ["requirements.lock"]}]


@pytest.mark.parametrize("name", ["reproduce", "retrain"])
def test_runs_that_wait_for_mlflow_go_on_to_the_next_job_whatever_becomes_of_this_one(name):
    (waiting,) = [cache for cache in caches(name) if cache["paths"] == [".upkeep/pending/"]]
    assert waiting == {"key": "pending", "paths": [".upkeep/pending/"], "when": "always"}
    assert ".upkeep/pending/" in job(name)["artifacts"]["paths"]
    assert job(name)["artifacts"]["when"] == "always"


@pytest.mark.parametrize("name", JOBS)
def test_what_changes_a_branch_or_a_server_is_never_interrupted(name):
    changes = re.search(r"upkeep retrain|make image push|ship\.sh (update|rollback)", "\n".join(job(name)["script"]))
    assert not (changes and job(name)["interruptible"])


@pytest.mark.parametrize("name", [name for name in JOBS if "ship.sh" in str(job(name)["script"])])
def test_one_deployment_at_a_time(name):
    environment = job(name)["environment"]
    assert job(name)["resource_group"] == environment["name"]
    no_deployment = environment.get("action") in ("verify", "access")
    assert no_deployment or (environment["url"] and environment["deployment_tier"])


def test_production_gets_the_digest_that_staging_was_found_well_with():
    hands_over = {"reports": {"dotenv": "image.env"}, "paths": ["image.env"]}
    for name, earlier in (("smoke staging", "deploy staging"), ("deploy production", "smoke staging")):
        assert job(name)["needs"] == [earlier]
        assert hands_over.items() <= job(earlier)["artifacts"].items()


def test_staging_is_judged_only_while_it_runs_what_this_pipeline_deployed():
    assert job("smoke staging")["script"][0].startswith('deploy/ship.sh status "$IMAGE_DIGEST"')


def test_no_environment_outlives_its_job():
    flags = sections()["variables"]["GIT_CLEAN_FLAGS"]
    assert flags.startswith("-ffdx")
    assert ".venv" not in flags


def test_all_files_together_hold_little_shell():
    lines = [line for name in [*JOBS, *HIDDEN] for part in SCRIPTS for line in texts(sections()[name].get(part, []))]
    lines += [line for file in sorted((ROOT / "ci").glob("*.sh")) for line in file.read_text("utf-8").splitlines()]
    assert 0 < sum(len(line.splitlines()) for line in lines) <= MOST_SHELL_LINES


def test_every_variable_of_the_jobs_is_set_by_gitlab_by_themselves_or_in_the_table():
    used = {name for section in sections().values() for text in texts(section) for name in VARIABLE.findall(text)}
    own = {"PYTHON", "ENVIRONMENT", "PIPELINE", "IMAGE_DIGEST"}
    assert {name for name in used if not name.startswith("CI_")} - own <= documented()
    assert own <= used


def test_every_variable_of_the_programs_that_jobs_call_is_in_the_table():
    read = {name for file in PROGRAMS for name in OURS.findall((ROOT / file).read_text(encoding="utf-8"))}
    assert read
    assert read <= documented()


def test_every_variable_in_the_table_is_used():
    everything = sources("src/upkeep", "deploy", "ci") + "\n".join(file.read_text(encoding="utf-8") for file in FILES)
    read_by_tools = {"UV_DEFAULT_INDEX"}
    unused = {name for name in documented() if not re.search(rf"\b{name}\b", everything)}
    assert unused == read_by_tools


def test_secrets_stand_in_no_file():
    for file in FILES:
        assert not re.search(r"(TOKEN|PASSWORD|SECRET)\w*:", file.read_text(encoding="utf-8")), Path(file).name
