"""What holds for every GitLab job, read from the files themselves."""

import json
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path, PurePath
from typing import Any

import pytest
import yaml
from conftest import ROOT

from upkeep.core import paths
from upkeep.gitlab import zones
from upkeep.gitlab.readiness import NotReadyError

MOST_SHELL_LINES = 70
FRONT = yaml.safe_load((ROOT / ".gitlab-ci.yml").read_text(encoding="utf-8"))
FILES = [ROOT / ".gitlab-ci.yml", *(ROOT / entry["local"] for entry in FRONT["include"])]
OPTIONAL = {"ci/cache.yml", "ci/scan.yml", "ci/tags.yml"}
"""Included by rules; of them a project that has set nothing gets the first."""

SCANNERS = {"sast", ".secret-analyzer", "container_scanning"}
"""Jobs of GitLab's own templates, of which only some keys are here."""

KEYWORDS = {"default", "include", "stages", "variables", "workflow"}
INPUT = re.compile(r"\"?\$\[\[ inputs\.(\w+) \]\]\"?")
GO_DURATION = re.compile(r"([+-]?((\d+\.?\d*|\.\d+)(ns|us|µs|ms|s|m|h))+|0)")
"""What time.ParseDuration of Go's standard library takes, in which the runner is written."""

GITLAB_DURATION = re.compile(r"(?:(\d+) hours?)? ?(?:(\d+) minutes?)?")
"""The part that we use of what GitLab's own parser takes."""

SHIPS = re.compile(r"ship\.sh|upkeep release (promote|rollback)")
SCRIPTS = ("before_script", "script", "after_script")
PROGRAMS = (
    *("deploy/build.sh", "deploy/push.sh", "deploy/ship.sh", "ci/environment.sh"),
    *(
        f"src/upkeep/gitlab/{name}.py"
        for name in (
            "api",
            "deployment",
            "doctor",
            "failure",
            "readiness",
            "reproduction",
            "retraining",
            "zones",
        )
    ),
    "src/upkeep/releases/git.py",
)
"""What jobs call, and what that reads of the variables."""

VARIABLE = re.compile(r"\$\{?([A-Z][A-Z0-9_]+)")
OURS = re.compile(r"\b(?:UPKEEP|DEPLOY)_[A-Z_]+\b")


def merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Merge as `extends` does: mappings key by key, anything else replaced."""
    both = {key: merged(base[key], over[key]) for key in base.keys() & over.keys() if isinstance(over[key], dict)}
    return {**base, **over, **both}


def content(file: Path) -> dict[str, Any]:
    """Return what a file holds once GitLab has filled in its inputs."""
    *header, body = file.read_text(encoding="utf-8").split("\n---\n")
    entry = next((entry for entry in FRONT["include"] if ROOT / entry["local"] == file), {})
    given = entry.get("inputs", {})
    if header:
        assert set(yaml.safe_load(header[0])["spec"]["inputs"]) == set(given)
    return yaml.safe_load(INPUT.sub(lambda found: json.dumps(given[found[1]]), body))


def pipelines() -> list[dict[str, Any]]:
    """Return what the front page says of each kind of pipeline: its condition and its variables over the defaults."""
    rules = FRONT["workflow"]["rules"]
    return [{"if": rule["if"], **FRONT["variables"], **rule["variables"]} for rule in rules]


def combined(files: list[Path]) -> dict[str, dict[str, Any]]:
    """Merge files as `include` does: in their order, and the front page over all of them."""
    result: dict[str, dict[str, Any]] = {}
    for file in [*files[1:], files[0]]:
        result = merged(result, content(file))
    return result


@cache
def sections() -> dict[str, dict[str, Any]]:
    """Return all sections of a project that has set nothing."""
    return combined([file for file in FILES if file.name not in ("scan.yml", "tags.yml")])


def expanded(name: str, among: dict[str, dict[str, Any]] | None = None) -> dict[str, Any]:
    """Return a job with all that it extends in it."""
    among = among or sections()
    job = among[name]
    parents = job.get("extends", [])
    result: dict[str, Any] = {}
    for parent in [parents] if isinstance(parents, str) else parents:
        result = merged(result, expanded(parent, among))
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
    assert {*FILES[1:]} == {*(ROOT / "ci").glob("*.yml")}
    assert [file.name for file in FILES if FILES.count(file) > 1] == ["tags.yml", "tags.yml"]
    assert {entry["local"] for entry in FRONT["include"] if "rules" in entry} == OPTIONAL


def test_no_name_is_defined_twice_but_by_what_is_optional():
    own = [name for file in FILES if f"ci/{file.name}" not in OPTIONAL for name in content(file)]
    assert sorted(name for name in own if own.count(name) > 1) == ["variables", "variables"]


@pytest.mark.parametrize("name", ["common.yml", "tags.yml"])
def test_a_file_with_inputs_holds_to_gitlabs_schema_as_the_hook_sees_to_for_the_others(tmp_path, name):
    filled = tmp_path / name
    filled.write_text(yaml.safe_dump(content(ROOT / "ci" / name)))
    program = Path(sys.executable).with_name("check-jsonschema")
    done = subprocess.run([program, "--builtin-schema", "vendor.gitlab-ci", filled], capture_output=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", JOBS)
def test_every_job_has_rules_a_time_limit_of_its_own_and_says_whether_it_may_be_interrupted(name):
    assert job(name)["rules"]
    assert minutes(expanded(name)["timeout"]) > 0
    assert isinstance(job(name)["interruptible"], bool)


def test_no_limit_stands_among_the_defaults_where_gitlab_passes_over_it():
    assert "timeout" not in sections()["default"]


def minutes(limit: str) -> int:
    """Return a limit of GitLab's in minutes."""
    found = GITLAB_DURATION.fullmatch(limit)
    assert found, limit
    return sum(int(number or 0) * worth for number, worth in zip(found.groups(), (60, 1), strict=True))


def test_what_the_runner_reads_as_a_duration_is_one_in_gos_grammar():
    limits = [
        value
        for name in JOBS
        for variable, value in job(name).get("variables", {}).items()
        if re.fullmatch(r"RUNNER_\w+_TIMEOUT", variable)
    ]
    assert limits
    assert [limit for limit in limits if not GO_DURATION.fullmatch(limit)] == []


@pytest.mark.parametrize(
    ("text", "taken"),
    [("5h45m", True), ("1.5h", True), ("90s", True), ("5h 45m", False), ("5 hours", False), ("90", False)],
)
def test_gos_grammar_knows_neither_spaces_nor_words_nor_bare_numbers(text, taken):
    assert bool(GO_DURATION.fullmatch(text)) is taken


def test_a_retraining_that_takes_too_long_is_stopped_early_enough_to_tell():
    limit = job("retrain")["variables"]["RUNNER_SCRIPT_TIMEOUT"]
    script = sum(int(number) * {"h": 60, "m": 1}[unit] for number, unit in re.findall(r"(\d+)(h|m)", limit))
    assert 5 <= minutes(job("retrain")["timeout"]) - script <= 30


NEEDS = {
    "storage": r"dvc pull|upkeep (reproduce|note|retrain|pages)|make image",
    "engine": r"make image",
    "registry": r" push ",
}
DEPLOYED = "smoke staging"
"""Comes after a deployment, so that all is there."""


@pytest.mark.parametrize("name", [name for name in JOBS if name not in (DEPLOYED, "test")])
def test_a_job_that_may_find_nothing_to_work_with_asks_first_and_only_that_answer_is_allowed(name):
    first, *others = job(name)["script"]
    needs = [part for part, sign in NEEDS.items() if re.search(sign, "\n".join(others))]
    assert first == f"upkeep ready {' '.join(needs)}" or not needs
    allowed = {"exit_codes": [NotReadyError.code]} if needs and name != "retrain" else None
    assert job(name).get("allow_failure") == allowed


@pytest.mark.parametrize(("python", "code"), [("3", 0), ("9.9", NotReadyError.code)])
def test_a_python_that_a_shell_runner_lacks_is_told_and_allowed(python, code):
    first, *_ = job("test")["script"]
    done = subprocess.run(["sh", "-ec", first], env={**os.environ, "PYTHON": python}, capture_output=True, check=False)
    assert done.returncode == code
    assert (b"there is no python9.9 here: docs/gitlab.md, step 3" in done.stdout) is bool(code)
    assert job("test")["allow_failure"] == {"exit_codes": [NotReadyError.code]}


def test_the_version_of_python_that_names_the_cache_is_not_taken_for_a_program(tmp_path):
    for name in ("Makefile", "requirements.lock", "pyproject.toml", "ci/environment.sh"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    (tmp_path / "ready/bin").mkdir(parents=True)
    for name in ("activate", "python", "uv"):
        (tmp_path / "ready/bin" / name).write_text("#!/bin/sh\n")
        (tmp_path / "ready/bin" / name).chmod(0o755)
    os.utime(tmp_path / "ready", (0, 0))  # as in ci/Dockerfile
    given = {**os.environ, "PYTHON": FRONT["variables"]["PYTHON"], "UPKEEP_VENV": str(tmp_path / "ready")}
    subprocess.run(["sh", "-ec", "\n".join(job("fresh")["before_script"])], cwd=tmp_path, env=given, check=True)
    assert (tmp_path / "ready").stat().st_mtime > 0


def test_no_test_sees_what_is_set_for_the_job_that_runs_it():
    given = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests/unit/test_readiness.py"]
    job = {"CI": "true", "CI_MERGE_REQUEST_TARGET_BRANCH_NAME": "main", "UPKEEP_IMAGE": "registry.example.com/upkeep"}
    done = subprocess.run(command, cwd=ROOT, env=given | job, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


BUILDING = ("build", "publish", "deploy staging", "smoke staging", "deploy production", "rollback production")


@pytest.mark.parametrize("name", JOBS)
def test_without_building_no_job_is_left_that_builds_or_deploys(name):
    conditions = [rule["if"] for rule in job(name)["rules"]]
    assert all('$UPKEEP_BUILD != "false"' in condition for condition in conditions) is (name in BUILDING)


def test_a_button_that_nobody_presses_leaves_no_pipeline_blocked():
    buttons = [rule for name in JOBS for rule in job(name)["rules"] if rule.get("when") == "manual"]
    assert len(buttons) >= 4
    assert all(rule["allow_failure"] for rule in buttons)


def test_a_release_is_tested_before_its_image_is_pushed_and_told_after():
    needs = {
        name: [each if isinstance(each, str) else each["job"] for each in job(name)["needs"]]
        for name in ("publish", "release")
    }
    assert needs == {"publish": ["reproduce", "test"], "release": ["test", "publish"]}
    assert "release" in job("test")["rules"][0]["if"]


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
def test_packages_are_kept_by_lock_and_python(name):
    packages = [cache for cache in caches(name) if cache["paths"] == [".cache/uv/"]]
    assert [cache["key"] for cache in packages] == [
        {"files": ["requirements.lock"], "prefix": "packages-$ZONE-$PYTHON"}
    ]


@pytest.mark.parametrize("name", JOBS)
def test_who_fills_the_cache_of_packages_prunes_it_first(name):
    fills = any(cache.get("policy") == "pull-push" for cache in caches(name)) if "cache" in job(name) else False
    assert fills == (name in ("test", "fresh"))
    # By name: where UV_CACHE_DIR is a runner's own folder, it is not for one job to prune.
    prune = "uv cache prune --ci --cache-dir .cache/uv"
    assert any(line.endswith(prune) for line in job(name).get("after_script", [])) == fills


def test_where_an_environment_is_ready_only_the_tests_fetch_packages():
    ready = combined([file for file in FILES if f"ci/{file.name}" not in OPTIONAL])
    assert next(entry["rules"] for entry in FRONT["include"] if entry["local"] == "ci/cache.yml") == [
        {"if": '$UPKEEP_VENV == null || $UPKEEP_VENV == ""'}
    ]
    fetching = {name for name in JOBS if ".cache/uv/" in str(expanded(name, ready).get("cache"))}
    assert fetching == {"test"}


def test_gitlabs_scanners_run_in_stages_that_are_there():
    scanners = content(ROOT / "ci/scan.yml")
    assert scanners.keys() >= SCANNERS
    assert {scanners[name]["stage"] for name in SCANNERS} <= set(FRONT["stages"])
    assert [entry for entry in scanners["include"] if set(entry) != {"template"}] == []


MERGE_REQUEST = re.compile(r"\bmerge-request\b")
OF_MERGE_REQUESTS = [name for name in JOBS if any(MERGE_REQUEST.search(rule["if"]) for rule in job(name)["rules"])]


def test_only_merge_requests_are_not_in_the_protected_zone():
    assert {each["if"]: each["ZONE"] for each in pipelines() if each["ZONE"] != "protected"} == {
        '$CI_PIPELINE_SOURCE == "merge_request_event"': "merge-requests"
    }
    assert zones.ENVIRONMENT == "merge-requests"


def test_no_cache_is_shared_by_the_zones():
    keys = [str(cache["key"]) for name in JOBS if "cache" in job(name) for cache in caches(name)]
    assert keys
    assert [key for key in keys if "$ZONE" not in key] == []


def test_no_job_hands_on_the_pieces_that_it_kept():
    folder = PurePath(yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))["pieces"]["folder"])
    handed = {path for name in JOBS for path in job(name).get("artifacts", {}).get("paths", [])}
    handed |= {path for name in JOBS if "cache" in job(name) for cache in caches(name) for path in cache["paths"]}
    assert ".upkeep/pending/" in handed
    assert [
        path for path in handed if any(part.match(path) for part in (folder / "x.piece", *folder.parents, folder))
    ] == []
    kept = {flag for each in pipelines() for flag in each["GIT_CLEAN_FLAGS"].split()}
    assert str(folder) not in " ".join(kept)


def test_a_protected_pipeline_begins_in_an_empty_folder_with_no_state_of_the_machines():
    for each in pipelines():
        if each["ZONE"] == "protected":
            assert (each["GIT_STRATEGY"], each["GIT_CLEAN_FLAGS"]) == ("clone", "-ffdx")
        assert each["DVC_SITE_CACHE_DIR"].startswith("$CI_PROJECT_DIR/")


def test_what_a_protected_job_cleans_away_is_all_that_is_not_in_git(tmp_path):
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    (tmp_path / ".gitignore").write_text("/.cache/\n/.venv/\n/.upkeep/\n/.dvc/\n")
    for file in (".cache/uv/planted", ".venv/bin/python", ".upkeep/pending/run/planted", ".dvc/cache/runs/planted"):
        (tmp_path / file).parent.mkdir(parents=True)
        (tmp_path / file).touch()
    flags = next(each["GIT_CLEAN_FLAGS"] for each in pipelines() if each["PIPELINE"] == "delivery")
    subprocess.run(["git", "-C", tmp_path, "clean", "--quiet", *flags.split()], check=True)
    assert [file.name for file in tmp_path.iterdir()] == [".git"]


def test_each_job_that_needs_a_protected_variable_runs_in_protected_pipelines_only_or_asks_for_its_zones_own():
    scripts = {"upkeep retrain", "ship.sh", "make image push", "upkeep release"}
    for name in JOBS:
        if any(script in "\n".join(job(name)["script"]) for script in scripts):
            assert name not in OF_MERGE_REQUESTS, name
    moving = [name for name in OF_MERGE_REQUESTS if "upkeep ready storage" in "\n".join(job(name)["script"])]
    assert set(moving) == {"reproduce", "report", "build"}
    assert {job(name)["environment"]["name"] for name in moving} == {"$ZONE"}


def test_a_job_of_merge_requests_is_in_no_environment_that_holds_protected_variables():
    environments = {name: job(name)["environment"]["name"] for name in OF_MERGE_REQUESTS if "environment" in job(name)}
    assert {job(name).get("variables", {}).get("ENVIRONMENT", "$ZONE") for name in environments} == {"$ZONE"}
    assert set(environments.values()) == {"$ZONE", "$ENVIRONMENT"}


def test_the_variables_to_protect_are_those_that_the_docs_and_the_example_protect():
    rows = [line for line in (ROOT / "docs/gitlab.md").read_text("utf-8").splitlines() if line.startswith("| `")]
    cells = [row.split(" | ") for row in rows if row.split("`")[1].isupper()]
    marked = {row[0].strip("|` ") for row in cells if len(row) == 5 and re.match(r"P\b", row[3])}
    assert marked == zones.PROTECTED
    uncommented = (ROOT / "examples/gitlab.yaml").read_text("utf-8").replace("  # ", "  ")
    forms = yaml.safe_load(uncommented)["variables"]
    for name in zones.PROTECTED & forms.keys():
        open_to_all = [form for form in forms[name] if form.get("environment") == zones.ENVIRONMENT]
        assert not open_to_all or name in zones.SHARED, name
        assert not any(form.get("protected") is False for form in forms[name])


def test_what_is_built_and_shown_comes_from_this_pipelines_own_reproduction_and_no_remote():
    for name in ("build", "publish", "pages"):
        assert "dvc" not in "\n".join(job(name)["script"])
        needs = [each if isinstance(each, str) else each["job"] for each in job(name)["needs"]]
        assert "reproduce" in needs
    assert {"models/", "reports/"} <= {*job("reproduce")["artifacts"]["paths"]}


@pytest.mark.parametrize(
    "tag", ["v1;id", "v1$(id)", "v1`id`", "v1 2", "v1&id", "v1/2", "release", "fleet@v1.0.0", "fleet#production#7"]
)
def test_a_tag_that_is_no_versions_name_has_no_pipeline(tag):
    of_tags = [each["if"] for each in pipelines() if "TAG" in each["if"]]
    (pattern,) = (re.search(r"^\$CI_COMMIT_TAG =~ /(.*)/$", condition)[1] for condition in of_tags)
    assert not re.search(pattern, tag)
    assert re.search(pattern, "v1.2.0-rc.1")


def test_the_jobs_of_each_zone_go_to_runners_of_its_own():
    entries = [entry for entry in FRONT["include"] if entry["local"] == "ci/tags.yml"]
    theirs, protected = ([rule["if"] for rule in entry["rules"]] for entry in entries)
    assert [entry["inputs"]["runner_tags"] for entry in entries] == [
        ["$UPKEEP_RUNNER_TAG"],
        ["$UPKEEP_PROTECTED_RUNNER_TAG"],
    ]
    assert protected == ['$UPKEEP_PROTECTED_RUNNER_TAG && $CI_PIPELINE_SOURCE != "merge_request_event"']
    assert all("$UPKEEP_PROTECTED_RUNNER_TAG ==" in rule or "merge_request_event" in rule for rule in theirs)


def test_no_script_holds_what_a_committer_may_word():
    worded = re.compile(r"\$\{?CI_(COMMIT_(TITLE|MESSAGE|DESCRIPTION|AUTHOR|BRANCH|REF_NAME|TAG)|MERGE_REQUEST_\w+)")
    lines = [line for name in [*JOBS, *HIDDEN] for part in SCRIPTS for line in texts(sections()[name].get(part, []))]
    assert [line for line in lines if worded.search(line)] == []
    bare = re.compile(r'(?<!["\w])\$(?!PWD|PATH)\{?[A-Z_]+')
    assert [line for line in lines if bare.search(line)] == []


@pytest.mark.parametrize("name", ["reproduce", "retrain"])
def test_runs_that_wait_for_mlflow_go_on_to_the_next_job_whatever_becomes_of_this_one(name):
    (waiting,) = [cache for cache in caches(name) if cache["key"] == "pending-$ZONE"]
    assert ".upkeep/pending/" in waiting["paths"]
    assert waiting["when"] == "always"
    assert "policy" not in waiting
    assert ".upkeep/pending/" in job(name)["artifacts"]["paths"]
    assert job(name)["artifacts"]["when"] == "always"


def test_the_monitor_tells_what_the_last_retraining_said():
    (kept,) = [cache for cache in caches("retrain") if str(paths.RETRAINING) in cache["paths"]]
    (told,) = [cache for cache in caches("monitor") if cache["key"] == kept["key"]]
    assert told == {"key": kept["key"], "paths": [str(paths.RETRAINING)], "policy": "pull"}


def test_the_newest_report_of_the_monitor_stays_among_the_pages_after_a_merge():
    (kept,) = [cache for cache in caches("monitor") if cache["key"] == "monitor-$ZONE"]
    (shown,) = [cache for cache in caches("pages") if cache["key"] == kept["key"]]
    assert {*shown["paths"]} == {"reports/monitoring/"} < {*kept["paths"]}
    assert shown["policy"] == "pull"  # or an older report could replace a newer one


@pytest.mark.parametrize("name", JOBS)
def test_what_changes_a_branch_or_a_server_is_never_interrupted(name):
    changes = re.search(r"upkeep (retrain|release)|make image push", "\n".join(job(name)["script"]))
    assert not (changes and job(name)["interruptible"])


@pytest.mark.parametrize("name", [name for name in JOBS if SHIPS.search(str(job(name)["script"]))])
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
    for flags in (each["GIT_CLEAN_FLAGS"] for each in pipelines()):
        assert flags.startswith("-ffdx")
        assert ".venv" not in flags


def test_all_files_together_hold_little_shell():
    lines = [line for name in [*JOBS, *HIDDEN] for part in SCRIPTS for line in texts(sections()[name].get(part, []))]
    lines += [line for file in sorted((ROOT / "ci").glob("*.sh")) for line in file.read_text("utf-8").splitlines()]
    assert 0 < sum(len(line.splitlines()) for line in lines) <= MOST_SHELL_LINES


def test_every_variable_of_the_jobs_is_set_by_gitlab_by_themselves_or_in_the_table():
    used = {name for section in sections().values() for text in texts(section) for name in VARIABLE.findall(text)}
    own = {"PYTHON", "ENVIRONMENT", "PIPELINE", "ZONE", "IMAGE_DIGEST", "PWD", "PATH"}
    assert {name for name in used if not name.startswith("CI_")} - own <= documented()
    assert own <= used


def test_every_variable_of_the_programs_that_jobs_call_is_in_the_table():
    read = {name for file in PROGRAMS for name in OURS.findall((ROOT / file).read_text(encoding="utf-8"))}
    assert read
    assert read <= documented()


def test_every_variable_in_the_table_is_used():
    everything = sources("src/upkeep", "deploy", "ci") + "\n".join(file.read_text(encoding="utf-8") for file in FILES)
    read_by_tools = {"UV_DEFAULT_INDEX", "DOCKER_AUTH_CONFIG"}
    unused = {name for name in documented() if not re.search(rf"\b{name}\b", everything)}
    assert unused == read_by_tools


def test_secrets_stand_in_no_file():
    for file in FILES:
        assert not re.search(r"(TOKEN|PASSWORD|SECRET)\w*:", file.read_text(encoding="utf-8")), Path(file).name
