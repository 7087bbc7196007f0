"""The real .gitlab-ci.yml, run by gitlab-ci-local against real git, S3, registry, engine and a server over SSH."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import components
import polars as pl
import pytest
import seaweed
from git_server import serve_git
from gitlab_project import TREES, UNTIL, WEEK, Project, make_project, of_merge_request, run
from gitlab_runner import Runner, install_runner, ready_environment
from gitlab_stand_in import REPORTER, serving_gitlab

LOG_LINES = 10
MERGE_REQUEST = {"CI_PIPELINE_SOURCE": "merge_request_event", "CI_COMMIT_BRANCH": None, "CI_MERGE_REQUEST_IID": "7"}
GITFLOW = {"UPKEEP_BRANCHING": "gitflow"}
SHIPPED = {"fresh", "reproduce", "publish", "pages", "deploy staging", "smoke staging"}
PRODUCTION = {"deploy production", "rollback production"}
DOCTOR = {"doctor: [staging]", "doctor: [production]"}
DOCTOR_OF_MERGE_REQUESTS = {"doctor of merge requests"}
TESTS = {"test: [3.11]", "test: [3.12]", "test: [3.13]"}
TESTED = {"lint", "reproduce", "report", "build"} | TESTS


@pytest.fixture(scope="module")
def runner() -> Runner:
    return install_runner()


@pytest.fixture(scope="module")
def project(runner, tmp_path_factory) -> Iterator[Project]:
    """A project whose first models are trained and pushed."""
    seaweed.require_seaweed()
    folder = tmp_path_factory.mktemp("gitlab")
    (folder / "s3").mkdir()
    storage = seaweed.Server(folder / "s3")
    storage.start()
    with serving_gitlab() as gitlab, serve_git(folder / "git", lambda password: password in gitlab.tokens) as origin:
        project = make_project(folder, origin, storage, gitlab, runner)
        project.settings |= {
            "AWS_ACCESS_KEY_ID": {"values": {"*": seaweed.KEY, "merge-requests": seaweed.THEIR_KEY}},
            "AWS_SECRET_ACCESS_KEY": {"values": {"*": seaweed.SECRET, "merge-requests": seaweed.THEIR_SECRET}},
            "UPKEEP_GITLAB_TOKEN": project.token,
            "UPKEEP_NOTE_TOKEN": gitlab.add_token("api", role=REPORTER),
            "UPKEEP_VENV": str(ready_environment(folder / "environment")),
            # Outside of the jobs' folders: a cache inside would be copied, whole, before each job.
            "UV_CACHE_DIR": str(Path.home() / ".cache/uv"),
            "MYPY_CACHE_DIR": str(components.ROOT / ".mypy_cache"),
            "CI_SERVER_URL": gitlab.url,
            "CI_PROJECT_ID": str(gitlab.project["id"]),
        }
        yield project
    storage.kill()


@pytest.fixture(autouse=True)
def on_main(project) -> Iterator[None]:
    yield
    project.back_to_main()


@pytest.fixture(scope="module")
def building(engine, registry) -> dict[str, str]:
    """What the jobs need that build images."""
    return {
        "DOCKER_HOST": engine.socket,
        "UPKEEP_ENGINE": components.DOCKER,
        "UPKEEP_IMAGE": f"{registry}/team/upkeep",
    }


@pytest.fixture(scope="module")
def shipping(server) -> dict[str, Any]:
    """What the jobs need that deploy; staging and production are two folders on one server."""
    ports = {environment: components.free_port() for environment in ("staging", "production")}
    for environment, port in ports.items():
        folder = server.home / f"upkeep-{environment}"
        folder.mkdir()
        (folder / "server.conf").write_text(
            f"UPKEEP_PROXY_IMAGE={components.PROXY_IMAGE}\nUPKEEP_PROXY_PORT={port}\n", encoding="utf-8"
        )
    return {
        **server.variables,
        "DEPLOY_KEY": file_variable(server.key),
        "DEPLOY_KNOWN_HOSTS": file_variable(server.known_hosts),
        "DEPLOY_FOLDER": {"values": {environment: f"upkeep-{environment}" for environment in ports}},
        "UPKEEP_STAGING_URL": f"http://127.0.0.1:{ports['staging']}",
        "UPKEEP_PRODUCTION_URL": f"http://127.0.0.1:{ports['production']}",
    }


def file_variable(file: Path) -> dict[str, Any]:
    return {"type": "file", "values": {"*": file.read_text(encoding="utf-8")}}


def live(server: components.Server, environment: str) -> str:
    """Return the image that the customer's server runs, by digest."""
    history = (server.home / f"upkeep-{environment}/releases.tsv").read_text(encoding="utf-8")
    return history.splitlines()[-1].split("\t")[3]


def end_of(log: str) -> str:
    return "\n".join(log.splitlines()[-LOG_LINES:])


@pytest.mark.parametrize(
    ("variables", "jobs"),
    [
        ({**MERGE_REQUEST}, TESTED | DOCTOR_OF_MERGE_REQUESTS),
        ({**MERGE_REQUEST, **GITFLOW}, TESTED | DOCTOR_OF_MERGE_REQUESTS),
        ({"CI_COMMIT_BRANCH": "main"}, SHIPPED | PRODUCTION | DOCTOR),
        ({"CI_COMMIT_BRANCH": "main", **GITFLOW}, SHIPPED | PRODUCTION | DOCTOR),
        ({"CI_COMMIT_BRANCH": "develop", **GITFLOW}, SHIPPED | DOCTOR),
        ({"CI_COMMIT_BRANCH": "develop"}, set()),
        ({"CI_COMMIT_BRANCH": "feature/x", **GITFLOW}, set()),
        (
            {"CI_COMMIT_BRANCH": None, "CI_COMMIT_TAG": "v0.1.0"},
            {"fresh", "reproduce", "publish", "release"} | TESTS | DOCTOR,
        ),
        ({"CI_PIPELINE_SOURCE": "schedule"}, {"monitor", "pages", "retrain"}),
        ({"CI_PIPELINE_SOURCE": "schedule", **GITFLOW}, {"monitor", "pages", "retrain"}),
    ],
)
def test_each_pipeline_has_its_jobs_and_no_others(project, variables, jobs):
    assert set(project.runner.jobs(project.checkout, **variables)) == jobs


def test_a_merge_request_that_touches_only_docs_is_linted_and_trains_nothing(project):
    project.branch("docs", {"README.md": "# upkeep, told anew\n"})
    done = project.merge_request("docs", "lint", "reproduce", "report")
    assert done.passed, done.text
    assert "Running stage" not in done.logs["reproduce"]
    assert "May ship" in done.logs["report"]


def test_a_merge_request_that_improves_the_model_gets_its_lock_a_note_and_an_image(project, building):
    project.settings |= building
    project.branch("improve", {"params.yaml": project.params(n_estimators=3 * TREES)})
    number = project.gitlab.add_merge_request("improve")
    stale = project.pipeline("reproduce", **of_merge_request("improve", number))
    assert stale.state("reproduce") == "FAIL"
    assert "Running stage 'train'" in stale.logs["reproduce"]
    assert "Running stage 'dataset'" not in stale.logs["reproduce"]
    project.take_over()
    assert "n_estimators: 24" in project.run("git", "show", "HEAD:params.yaml")
    renewed = project.pipeline("reproduce", "report", "build", **of_merge_request("improve", number))
    assert renewed.passed, renewed.text
    assert "Running stage" not in renewed.logs["reproduce"]
    (note,) = project.gitlab.notes[number]
    assert "May ship" in note["body"].splitlines()[1]


def test_a_merge_request_that_worsens_the_model_is_blocked_and_says_why(project):
    project.branch("worsen", {"params.yaml": project.params(n_estimators=2)})
    number = project.gitlab.add_merge_request("worsen")
    assert not project.pipeline("reproduce", **of_merge_request("worsen", number)).passed
    project.take_over()
    done = project.pipeline("reproduce", "report", **of_merge_request("worsen", number))
    assert (done.passed, done.state("reproduce"), done.state("report")) == (False, "PASS", "FAIL")
    end = end_of(done.logs["report"])
    assert "this may not ship" in end
    assert "average precision falls" in end
    assert "remedy:" in end
    (note,) = project.gitlab.notes[number]
    assert "may not ship" in note["body"].splitlines()[1].lower()


def test_the_default_branch_goes_through_staging_to_production_and_back(project, building, shipping, server):
    project.settings |= {**building, **shipping}
    first = project.pipeline(manual=("deploy staging", "deploy production", "doctor: [staging]"))
    assert first.passed, first.text
    before = live(server, "production")
    assert before == live(server, "staging")
    assert f"IMAGE_DIGEST={before}" in first.logs["publish"]
    assert "what is committed is what this pipeline makes of the raw data" in first.logs["reproduce"]
    assert "golden answers" in first.logs["smoke staging"]
    assert "FAIL" not in first.logs["doctor: [staging]"]
    project.push("A second release")
    second = project.pipeline(manual=("deploy staging", "deploy production"))
    assert second.passed, second.text
    assert live(server, "production") != before
    undone = project.pipeline("rollback production")
    assert undone.passed, undone.text
    assert live(server, "production") == before
    assert project.origin.git("tag", "--list", "fleet*", "--sort=creatordate").splitlines() == [
        *("fleet@v1.0.0", "fleet#staging#1", "fleet#production#2"),
        *("fleet@v2.0.0", "fleet#staging#3", "fleet#production#4", "fleet#production#5"),
    ]
    assert f"Image: {before}" in project.origin.git("cat-file", "tag", "fleet#production#5")
    assert project.token not in first.text + second.text
    assert seaweed.SECRET not in first.text + second.text


def test_a_schedule_with_nothing_new_ends_at_once(project):
    pushes = project.origin.pushes
    done = project.schedule(UNTIL + WEEK)
    assert done.passed, done.text
    assert "nothing new" in done.logs["retrain"]
    assert "Running stage" not in done.logs["retrain"]
    assert project.origin.pushes == pushes


def test_a_schedule_says_how_each_plant_stands_and_warns_of_what_is_not_known(project):
    done = project.schedule(UNTIL + WEEK, "monitor")
    assert done.state("monitor") == "WARN", done.text
    assert "upkeep outcomes" in done.logs["monitor"]
    assert "somebody has to act" not in done.logs["monitor"]


def test_a_schedule_with_new_data_offers_one_merge_request(project):
    project.deliver(UNTIL + WEEK)
    done = project.schedule(UNTIL + 2 * WEEK)
    assert done.passed, done.text
    push = project.origin.pushes[-1]
    assert push["refs"] == ["refs/heads/retrain"]
    assert {"merge_request.create", "merge_request.target=main", "merge_request.label=new data"} <= set(push["options"])
    assert f'until: "{UNTIL + WEEK}"' in project.origin.git("show", "retrain:params.yaml")
    changed = project.origin.git("diff", "--name-only", "main", "retrain").splitlines()
    assert {"params.yaml", "dvc.lock", "reports/experiments.csv", "reports/metrics.json"} <= set(changed)
    again = project.schedule(UNTIL + 2 * WEEK)
    assert "nothing to add" in again.logs["retrain"]
    assert project.origin.pushes[-1] == push


def test_a_schedule_whose_data_is_broken_says_where_opens_an_issue_and_offers_nothing(project):
    pushes = project.origin.pushes
    broken = UNTIL + 3 * WEEK
    project.deliver(broken - WEEK)
    project.deliver(broken, spoil=pl.lit("n/a").alias("vibration_mm_s"))
    done = project.schedule(broken + WEEK)
    assert not done.passed
    end = end_of(done.logs["retrain"])
    for named in ("stage=validate", "plant=", f"batch={broken}", "column=vibration_mm_s", "remedy:"):
        assert named in end
    assert project.origin.pushes == pushes
    issue = project.gitlab.issues[-1]
    assert "column vibration_mm_s" in issue["title"]
    assert "/-/jobs/" in issue["description"]


def test_a_schedule_with_drift_that_lasts_updates_the_open_merge_request(project):
    # A team that does not retrain for new data alone: only drift is a reason.
    project.branch("develop", {"params.yaml": project.params(new_batches=99)})
    for week in range(1, 6):
        project.deliver(UNTIL + week * WEEK)
    done = project.schedule(UNTIL + 6 * WEEK, UPKEEP_TARGET_BRANCH="develop")
    assert done.passed, done.text
    push = project.origin.pushes[-1]
    assert push["refs"] == ["refs/heads/retrain"]
    assert {"merge_request.label=drift", "merge_request.unlabel=new data"} <= set(push["options"])
    assert any("drift of porto" in option for option in push["options"])


def test_a_bare_repository_on_a_share_holds_code_and_data(project, tmp_path):
    share, other = tmp_path / "share", tmp_path / "other"
    share.mkdir()
    other.mkdir()
    section = (components.ROOT / "docs/gitlab.md").read_text("utf-8").partition("## A bare repository as remote")[2]
    blocks = re.findall(r"```bash\n(.*?)```", section, re.DOTALL)
    here, there = (block.replace("/media/usb", str(share)) for block in blocks[:2])
    project.run("bash", "-ec", here)
    # The clone's own code, not that of the checkout that made the environment.
    run(other, "bash", "-ec", f"export PYTHONPATH={other}/upkeep/src\n{there}")
    for folder in ("models/plants", "reports/evaluation"):
        assert contents(other / "upkeep" / folder) == contents(project.checkout / folder)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
