"""The doctor against real servers: git, S3, a registry, SSH; GitLab's API is the stand-in."""

import os
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import components
import pytest
import seaweed
from git_server import serve_git
from gitlab_stand_in import serving_gitlab

from upkeep.core.errors import UpkeepError
from upkeep.gitlab.doctor import Diagnosis, examine, raise_if_failed, tabulate_diagnoses

TOKEN, WRONG = "glpat-right-token", "glpat-wrong-token"
SETTINGS = ("UPKEEP_", "CI_", "DEPLOY_", "MLFLOW_", "AWS_", "GITLAB_CI", "DOCKER_HOST")


@pytest.fixture(autouse=True)
def checkout(tmp_path, monkeypatch) -> Path:
    """An empty repository of git and DVC, in which the test stands; no variable is set."""
    for name in [name for name in os.environ if name.startswith(SETTINGS) and name != "AWS_CA_BUNDLE"]:
        monkeypatch.delenv(name)
    folder = tmp_path / "checkout"
    folder.mkdir()
    monkeypatch.chdir(folder)
    (folder / "deploy").symlink_to(components.ROOT / "deploy")
    run("git", "init", "--quiet")
    run("dvc", "init", "--quiet")
    run("git", "-c", "user.name=a", "-c", "user.email=a@example.com", "commit", "--quiet", "--message", "First")
    return folder


@pytest.fixture
def origin(tmp_path):
    with serve_git(tmp_path / "git", lambda password: password == TOKEN) as server:
        run("git", "remote", "add", "origin", server.url)
        yield server


@pytest.fixture(scope="module")
def storage(tmp_path_factory) -> Iterator[seaweed.Server]:
    seaweed.require_seaweed()
    server = seaweed.Server(tmp_path_factory.mktemp("s3"))
    server.start()
    server.files().mkdir("plants")
    yield server
    server.kill()


def run(*command: str) -> None:
    path = os.pathsep.join([str(seaweed.BIN), os.environ["PATH"]])
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "PATH": path})


def finding(name: str) -> Diagnosis:
    return next(found for found in examine() if found.name == name)


@pytest.mark.usefixtures("origin")
def test_what_is_not_in_use_is_skipped_and_hurts_nobody(checkout, monkeypatch):
    run("dvc", "remote", "add", "--default", "folder", str(checkout.parent / "storage"))
    run("dvc", "remote", "modify", "folder", "verify", "true")
    monkeypatch.setenv("UPKEEP_GITLAB_TOKEN", TOKEN)
    monkeypatch.setenv("CI_SERVER_URL", "")
    states = {found.name: found.state for found in examine() if found.name not in ("engine", "token")}
    assert {name for name, state in states.items() if state == "ok"} == {
        "variables",
        "git remote",
        "push",
        "releases",
        "DVC remote",
    }
    assert set(states.values()) == {"ok", "skipped"}


def test_a_remote_that_does_not_answer_is_told_with_its_address_to_check():
    run("git", "remote", "add", "origin", f"http://127.0.0.1:{components.free_port()}/team/upkeep.git")
    found = finding("git remote")
    assert found.state == "FAIL"
    assert "git remote -v" in found.remedy


@pytest.mark.usefixtures("origin")
def test_a_token_that_may_not_push_is_told_without_the_token(monkeypatch):
    monkeypatch.setenv("UPKEEP_GITLAB_TOKEN", WRONG)
    found = finding("push")
    assert found.state == "FAIL"
    assert "UPKEEP_GITLAB_TOKEN" in found.remedy
    assert WRONG not in tabulate_diagnoses([found])


def test_the_rehearsed_push_leaves_nothing_behind(origin, monkeypatch):
    monkeypatch.setenv("UPKEEP_GITLAB_TOKEN", TOKEN)
    assert finding("push").state == "ok"
    assert origin.pushes == []
    assert origin.git("for-each-ref") == ""


def test_an_s3_remote_is_written_read_and_left_as_it_was(storage, monkeypatch):
    add_remote(storage)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", seaweed.KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", seaweed.SECRET)
    assert finding("DVC remote").state == "ok"
    assert [name for name in storage.files().find("plants") if "doctor-" in name] == []


def test_a_wrong_s3_secret_is_told_without_the_secret(storage, monkeypatch):
    add_remote(storage)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", seaweed.KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-horse-battery")
    found = finding("DVC remote")
    assert found.state == "FAIL"
    assert "AWS_SECRET_ACCESS_KEY" in found.remedy
    assert "wrong-horse-battery" not in tabulate_diagnoses([found])


def add_remote(storage: seaweed.Server, name: str = "s3", url: str = "s3://plants/doctor") -> None:
    run("dvc", "remote", "add", *["--default"] * (name == "s3"), name, url)
    run("dvc", "remote", "modify", name, "endpointurl", storage.url)
    run("dvc", "remote", "modify", name, "verify", "true")


@pytest.mark.parametrize(
    ("key", "secret", "state"), [(seaweed.THEIR_KEY, seaweed.THEIR_SECRET, "ok"), (seaweed.KEY, seaweed.SECRET, "FAIL")]
)
def test_a_merge_request_may_write_to_its_own_remote_and_not_to_the_one_that_protected_pipelines_believe(
    storage, monkeypatch, key, secret, state
):
    add_remote(storage)
    if not storage.files().exists("proposed"):
        storage.files().mkdir("proposed")
    add_remote(storage, "merge_requests", "s3://proposed/dvc")
    variables = {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret, **MERGE_REQUEST}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    found = finding("DVC remote")
    assert found.state == state, found.what
    assert state == "ok" or "can write to the remote that protected pipelines believe" in found.what


MERGE_REQUEST = {"CI": "true", "CI_MERGE_REQUEST_SOURCE_BRANCH_NAME": "idea"}
"""What a merge request's job is known by."""


@pytest.mark.parametrize("name", ["UPKEEP_GITLAB_TOKEN", "DEPLOY_KEY", "UPKEEP_REGISTRY_PASSWORD"])
def test_a_secret_that_a_merge_request_sees_is_named(monkeypatch, name):
    for variable, value in MERGE_REQUEST.items():
        monkeypatch.setenv(variable, value)
    assert finding("zones").state == "ok"
    monkeypatch.setenv(name, "a-secret")
    found = finding("zones")
    assert (found.state, found.what) == ("FAIL", f"every merge request's job can read {name}")
    assert found.remedy.startswith("tick *Protect variable*")
    monkeypatch.setenv("CI_COMMIT_REF_PROTECTED", "true")
    assert finding("zones").remedy.startswith("untick *Allow merge request pipelines")


def test_what_one_remote_and_one_runner_cost_is_told(checkout, monkeypatch):
    run("dvc", "remote", "add", "--default", "folder", str(checkout.parent / "storage"))
    assert "a merge request can plant raw data" in finding("zones").what
    run("dvc", "remote", "add", "merge_requests", str(checkout.parent / "storage"))
    assert "a merge request can plant raw data" in finding("zones").what
    run("dvc", "remote", "modify", "merge_requests", "url", str(checkout.parent / "proposed"))
    assert finding("zones").state == "ok"
    monkeypatch.setenv("GITLAB_CI", "true")
    assert "one runner for all" in finding("zones").what


@pytest.mark.parametrize(
    ("image", "state"),
    [
        ("registry.example.com/team/upkeep/ci:latest", "FAIL"),
        ("registry.example.com/team/upkeep:ci", "FAIL"),
        ("registry.example.com/team/upkeep", "FAIL"),
        (f"registry.example.com/team/upkeep/ci@sha256:{'0' * 64}", "skipped"),
        ("registry.example.com/team/upkeep-ci:latest", "skipped"),
    ],
)
def test_an_image_that_merge_requests_can_overwrite_is_to_be_named_by_digest(monkeypatch, image, state):
    monkeypatch.setenv("CI_REGISTRY_IMAGE", "registry.example.com/team/upkeep")
    monkeypatch.setenv("UPKEEP_CI_IMAGE", image)
    assert finding("zones").state == state


def test_a_branch_that_is_not_protected_is_told(monkeypatch):
    monkeypatch.setenv("CI_COMMIT_REF_PROTECTED", "false")
    assert "sees no protected variable" in finding("zones").what


def test_a_repository_without_a_dvc_remote_is_told():
    found = finding("DVC remote")
    assert found.state == "FAIL"
    assert found.what == "there is no DVC remote yet"
    assert found.remedy.startswith("docs/gitlab.md, step 2")


def test_a_folder_that_is_not_mounted_is_told_and_not_made(checkout):
    stick = checkout.parent / "stick"
    run("dvc", "remote", "add", "--default", "usb", str(stick / "upkeep-data"))
    run("dvc", "remote", "modify", "usb", "verify", "true")
    assert finding("DVC remote").what == f"there is no folder {stick}"
    assert not stick.exists()


def test_a_folder_among_the_runners_files_is_no_remote(checkout, monkeypatch):
    run("dvc", "remote", "add", "--default", "folder", "../storage")
    assert "dvc remote modify folder verify true" in finding("DVC remote").remedy
    run("dvc", "remote", "modify", "folder", "verify", "true")
    assert finding("DVC remote").state == "ok"
    monkeypatch.setenv("CI_BUILDS_DIR", str(checkout.parent))
    found = finding("DVC remote")
    assert found.state == "FAIL"
    assert "docs/gitlab.md, step 2" in found.remedy


def test_a_registry_is_logged_in_to_but_not_for_merge_requests(registry, monkeypatch):
    monkeypatch.setenv("UPKEEP_IMAGE", f"{registry}/team/upkeep")
    assert finding("registry").state == "ok"
    monkeypatch.setenv("UPKEEP_IMAGE", f"127.0.0.1:{components.free_port()}/team/upkeep")
    for name, value in MERGE_REQUEST.items():
        monkeypatch.setenv(name, value)
    assert finding("registry").what == "merge requests push no image"


@pytest.mark.parametrize(("password", "state"), [("right-password", "ok"), ("wrong-password", "FAIL")])
def test_a_registry_that_wants_a_token_first_is_asked_for_one(monkeypatch, password, state):
    with serving_token_registry() as address:
        monkeypatch.setenv("UPKEEP_IMAGE", f"{address}/team/upkeep")
        monkeypatch.setenv("UPKEEP_REGISTRY_USER", "upkeep-ci")
        monkeypatch.setenv("UPKEEP_REGISTRY_PASSWORD", password)
        found = finding("registry")
    assert found.state == state
    assert password not in tabulate_diagnoses([found])


@pytest.mark.parametrize(("own", "state"), [(True, "ok"), (False, "FAIL")])
def test_gitlabs_own_login_is_for_its_own_registry_only(monkeypatch, own, state):
    with serving_token_registry() as address:
        monkeypatch.setenv("UPKEEP_IMAGE", f"{address}/team/upkeep")
        monkeypatch.setenv("CI_REGISTRY", address if own else "registry.example.com")
        monkeypatch.setenv("CI_REGISTRY_USER", "upkeep-ci")
        monkeypatch.setenv("CI_REGISTRY_PASSWORD", "right-password")
        assert finding("registry").state == state


@pytest.mark.parametrize("body", [b"<html>Sign in</html>", b"", b"[]", b"null"])
def test_what_is_no_gitlab_is_told_and_stops_no_other_check(monkeypatch, body):
    class LoginPage(TokenRegistry):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with serving_token_registry(LoginPage) as address:
        monkeypatch.setenv("CI_SERVER_URL", f"http://{address}")
        monkeypatch.setenv("UPKEEP_GITLAB_TOKEN", TOKEN)
        monkeypatch.setenv("UPKEEP_IMAGE", f"{address}/team/upkeep")
        assert finding("token").state == "FAIL"
        assert "web page" in finding("registry").what


class TokenRegistry(BaseHTTPRequestHandler):
    """A mock of GitLab's registry, whose login goes through GitLab itself, which cannot run here."""

    def do_GET(self) -> None:
        host = f"http://127.0.0.1:{self.server.server_port}"
        right = self.headers.get("Authorization") == "Basic dXBrZWVwLWNpOnJpZ2h0LXBhc3N3b3Jk"
        asked = self.path == "/jwt/auth?service=container_registry&scope=repository%3Ateam%2Fupkeep%3Apull%2Cpush"
        self.send_response(200 if right and asked else 401)
        if self.path == "/v2/":
            self.send_header("WWW-Authenticate", f'Bearer realm="{host}/jwt/auth",service="container_registry"')
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


class serving_token_registry:  # noqa: N801  # used as a function is
    def __init__(self, handler: type[BaseHTTPRequestHandler] | None = None) -> None:
        self.handler = handler or TokenRegistry

    def __enter__(self) -> str:
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self.handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return f"127.0.0.1:{self.server.server_port}"

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


def test_a_server_with_the_pinned_key_lets_the_doctor_in(server, monkeypatch):
    deploy_to(server, monkeypatch)
    assert finding("server").state == "ok"


def test_a_server_whose_key_has_changed_is_told_as_a_possible_attack(server, monkeypatch, tmp_path):
    components.make_key(tmp_path / "other")
    pinned = f"[127.0.0.1]:{server.port} {(tmp_path / 'other.pub').read_text()}"
    (tmp_path / "known_hosts").write_text(pinned)
    deploy_to(server, monkeypatch, DEPLOY_KNOWN_HOSTS=tmp_path / "known_hosts")
    found = finding("server")
    assert found.state == "FAIL"
    assert "not the pinned one" in found.what
    assert "someone stands between" in found.remedy


def test_a_server_that_nobody_pinned_is_told_with_the_command_that_prints_its_key(server, monkeypatch, tmp_path):
    (tmp_path / "known_hosts").touch()
    deploy_to(server, monkeypatch, DEPLOY_KNOWN_HOSTS=tmp_path / "known_hosts")
    assert f"ssh-keyscan -p {server.port}" in finding("server").remedy


def test_a_key_that_the_server_does_not_know_is_told(server, monkeypatch, tmp_path):
    components.make_key(tmp_path / "other")
    deploy_to(server, monkeypatch, DEPLOY_KEY=tmp_path / "other")
    assert "refuses DEPLOY_KEY" in finding("server").what


def test_a_server_that_does_not_answer_is_told(server, monkeypatch):
    deploy_to(server, monkeypatch, DEPLOY_PORT=components.free_port())
    assert "does not answer" in finding("server").what


def test_a_variable_that_was_forgotten_beside_others_is_told(server, monkeypatch):
    deploy_to(server, monkeypatch, DEPLOY_KEY="")
    assert finding("server").what == "not set: DEPLOY_KEY"


def test_where_the_service_answers_is_missed_in_staging_only(server, monkeypatch):
    deploy_to(server, monkeypatch, CI_ENVIRONMENT_NAME="staging")
    assert finding("server").what == "not set: UPKEEP_STAGING_URL"
    monkeypatch.setenv("CI_ENVIRONMENT_NAME", "production")
    assert finding("server").state == "ok"


def deploy_to(server: components.Server, monkeypatch: pytest.MonkeyPatch, **others: object) -> None:
    for name, value in {**server.variables, **others}.items():
        monkeypatch.setenv(name, str(value))


def test_a_tracking_server_is_reached(tmp_path, monkeypatch):
    port = components.free_port()
    store = ["--backend-store-uri", f"sqlite:///{tmp_path}/mlflow.db", "--workers", "1"]
    command = [seaweed.BIN / "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), *store]
    monkeypatch.setenv("PATH", f"{seaweed.BIN}:{os.environ['PATH']}")
    monkeypatch.setenv("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")  # its processes take half a minute to start
    with components.running(command, tmp_path / "log", lambda: components.listens(port)):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
        assert finding("MLflow").state == "ok"


def test_a_tracking_server_that_is_down_is_told_without_its_password(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://upkeep:correct-horse@127.0.0.1:{components.free_port()}")
    found = finding("MLflow")
    assert found.state == "FAIL"
    assert "correct-horse" not in tabulate_diagnoses([found])


def test_a_token_with_the_scope_api_is_well(monkeypatch):
    with serving_gitlab() as gitlab:
        for name, value in gitlab.environment(scopes=("api", "write_repository")).items():
            monkeypatch.setenv(name, value)
        assert finding("token").state == "ok"


@pytest.mark.parametrize("scopes", [("read_api",), ("read_repository", "write_repository")])
def test_a_token_without_the_scope_api_is_told_with_what_it_has(monkeypatch, scopes):
    with serving_gitlab() as gitlab:
        for name, value in gitlab.environment(scopes=scopes).items():
            monkeypatch.setenv(name, value)
        found = finding("token")
    assert found.state == "FAIL"
    assert scopes[0] in found.what


@pytest.mark.parametrize(("scopes", "state"), [(("api",), "ok"), (("api", "write_repository"), "FAIL")])
def test_the_token_for_notes_may_do_nothing_else(monkeypatch, scopes, state):
    with serving_gitlab() as gitlab:
        monkeypatch.setenv("CI_SERVER_URL", gitlab.url)
        monkeypatch.setenv("UPKEEP_NOTE_TOKEN", gitlab.add_token(*scopes))
        assert finding("token").state == state


def test_the_token_of_releases_need_only_push(monkeypatch):
    with serving_gitlab() as gitlab:
        monkeypatch.setenv("CI_SERVER_URL", gitlab.url)
        for scopes, state in ((("write_repository",), "ok"), (("read_repository",), "FAIL")):
            monkeypatch.setenv("UPKEEP_RELEASE_TOKEN", gitlab.add_token(*scopes))
            assert finding("token").state == state


def test_a_token_that_gitlab_does_not_know_is_told_without_the_token(monkeypatch):
    with serving_gitlab() as gitlab:
        monkeypatch.setenv("CI_SERVER_URL", gitlab.url)
        monkeypatch.setenv("UPKEEP_GITLAB_TOKEN", WRONG)
        found = finding("token")
    assert found.state == "FAIL"
    assert WRONG not in tabulate_diagnoses([found])


def test_a_token_that_ends_soon_is_told_with_its_last_day(monkeypatch):
    with serving_gitlab() as gitlab:
        for name, value in gitlab.environment().items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr("gitlab_stand_in.LAST_DAY", "2020-01-31")
        assert "ends on 2020-01-31" in finding("token").what


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("SSL_CERT_FILE", "-----BEGIN CERTIFICATE-----", "no file: SSL_CERT_FILE"),
        ("UPKEEP_TEST_IMAGE", "registry.example.com/python:$PYTHON", "UPKEEP_TEST_IMAGE is not expanded"),
    ],
)
def test_a_variable_of_the_wrong_kind_is_told(monkeypatch, name, value, told):
    assert finding("variables").state == "ok"
    monkeypatch.setenv(name, value)
    assert finding("variables").what == told


@pytest.mark.parametrize("name", ["engine", "registry"])
def test_where_nothing_is_built_neither_engine_nor_registry_is_missed(monkeypatch, name):
    for variable, value in {"GITLAB_CI": "true", "UPKEEP_ENGINE": "nowhere", "UPKEEP_BUILD": "false"}.items():
        monkeypatch.setenv(variable, value)
    assert finding(name).state == "skipped"


def test_a_day_that_was_set_for_back_filling_and_forgotten_is_told(monkeypatch):
    monkeypatch.setenv("UPKEEP_TODAY", "2025-01-06")
    assert "2025-01-06" in finding("variables").what


def test_a_webhook_whose_host_does_not_answer_is_told_without_its_address(monkeypatch):
    monkeypatch.setenv("UPKEEP_ALERT_WEBHOOK", f"http://127.0.0.1:{components.free_port()}/hooks/a-secret")
    found = finding("alerts")
    assert found.state == "FAIL"
    assert "a-secret" not in tabulate_diagnoses([found])


def test_a_job_fails_with_the_names_of_the_checks_that_failed():
    with pytest.raises(UpkeepError, match="2 of the checks failed: registry, alerts"):
        raise_if_failed([Diagnosis(name, "FAIL", "", "mend it") for name in ("registry", "alerts")])
    raise_if_failed([Diagnosis("registry", "ok", ""), Diagnosis("alerts", "skipped", "")])
