"""python-gitlab against GitLab's stand-in: one note, one issue, and refusals in words."""

import http.client
import json
import subprocess

import pytest
from gitlab_stand_in import serving_gitlab
from receiving import receiving

from upkeep.core.errors import UpkeepError
from upkeep.gitlab.api import MARKER, open_project, put_issue, put_note
from upkeep.gitlab.failure import PIPELINE, keep_failure, notify_failure
from upkeep.gitlab.server_checks import reach_webhook

SOMEBODY = {"id": 999, "name": "Somebody", "username": "somebody"}


@pytest.fixture
def server():
    with serving_gitlab() as server:
        server.add_merge_request("feature")
        yield server


@pytest.fixture
def project(server):
    return open_project(server.environment())


def test_the_second_note_replaces_the_first_and_leaves_those_of_people(server, project):
    server.add_note(1, "looks good", SOMEBODY)
    put_note(project, 1, "first")
    put_note(project, 1, "second")
    assert [note["body"] for note in server.notes[1]] == ["looks good", f"{MARKER}\nsecond"]


def test_the_note_is_found_among_many(server, project):
    put_note(project, 1, "first")
    for number in range(45):
        server.add_note(1, f"remark {number}", SOMEBODY)
    put_note(project, 1, "second")
    assert sum(note["body"].startswith(MARKER) for note in server.notes[1]) == 1


def test_a_person_who_quotes_the_note_keeps_the_quotation(server, project):
    server.add_note(1, f"> {MARKER}\n> first", SOMEBODY)
    put_note(project, 1, "first")
    assert len(server.notes[1]) == 2


def test_a_note_of_an_earlier_token_which_nobody_else_may_change_gets_a_second_one(server, project):
    put_note(project, 1, "first")
    renewed = open_project(server.environment())
    put_note(renewed, 1, "second")
    put_note(renewed, 1, "third")
    assert [note["body"] for note in server.notes[1]] == [f"{MARKER}\nfirst", f"{MARKER}\nthird"]


def test_a_picture_is_uploaded_once(server, project, tmp_path):
    picture = tmp_path / "cost.png"
    for content in (b"a picture", b"a picture", b"another picture"):
        picture.write_bytes(content)
        put_note(project, 1, "![cost](cost.png)", picture)
        (note,) = server.notes[1]
        (address,) = [address for address in server.uploads if address in note["body"]]
        assert server.uploads[address] == content
        assert note["body"] == f"{MARKER}\n![cost]({address})"
    assert sorted(server.uploads.values()) == [b"a picture", b"another picture"]


def test_the_same_failure_has_one_open_issue_with_the_newest_text(server, project):
    first, second, other = (
        put_issue(project, title, body, ["failure"])
        for title, body in (("train failed", "on Monday"), ("train failed", "on Tuesday"), ("fetch failed", "too"))
    )
    assert first == second != other
    assert [issue["description"] for issue in server.issues] == ["on Tuesday", "too"]


def test_a_closed_issue_stays_closed_and_a_new_one_is_opened(server, project):
    put_issue(project, "train failed", "on Monday", ["failure"])
    server.issues[0]["state"] = "closed"
    put_issue(project, "train failed", "a year later", ["failure"])
    assert [issue["description"] for issue in server.issues] == ["on Monday", "a year later"]


@pytest.mark.parametrize("name", ["CI_SERVER_URL", "CI_PROJECT_ID", "UPKEEP_GITLAB_TOKEN"])
def test_a_variable_that_is_missing_is_named(server, name):
    with pytest.raises(UpkeepError, match=f"{name} is not set"):
        open_project({**server.environment(), name: ""})


@pytest.mark.parametrize(
    ("change", "told", "remedy"),
    [
        ({"UPKEEP_GITLAB_TOKEN": "glpat-wrong"}, "answered 401", "make a new project access token"),
        ({"CI_PROJECT_ID": "12"}, "answered 404, 404 Project Not Found", "belongs to this very project"),
    ],
)
def test_a_refusal_says_what_to_do_and_hides_the_token(server, change, told, remedy):
    with pytest.raises(UpkeepError) as caught:
        open_project({**server.environment(), **change})
    assert told in caught.value.what
    assert remedy in caught.value.remedy
    assert "glpat" not in str(caught.value)


def test_a_token_that_may_only_read_is_told_which_scope_it_lacks(server):
    project = open_project(server.environment(scopes=("read_api",)))
    with pytest.raises(UpkeepError, match="answered 403") as caught:
        put_note(project, 1, "text")
    assert "scope `api`" in caught.value.remedy


def test_a_merge_request_that_is_not_there_is_told(project):
    with pytest.raises(UpkeepError, match="merge request !5 failed: GitLab answered 404"):
        put_note(project, 5, "text")


def test_a_server_that_does_not_answer_is_told():
    with serving_gitlab() as server:
        environment = server.environment()
    with pytest.raises(UpkeepError, match="ConnectionError") as caught:
        open_project(environment)
    assert "CI_SERVER_URL" in caught.value.remedy


@pytest.fixture
def certificate(tmp_path):
    """A server's certificate and key in one file; beside it ca.pem, which signed it."""
    certificate = tmp_path / "both.pem"
    parts = ["-keyout", certificate, "-out", tmp_path / "ca.pem", "-addext", "subjectAltName=IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=gitlab", *parts]
    subprocess.run(command, check=True, capture_output=True)
    certificate.write_text(certificate.read_text() + (tmp_path / "ca.pem").read_text())
    return certificate


def test_a_private_authority_is_trusted_only_when_it_is_named(certificate):
    with serving_gitlab(certificate) as server:
        environment = server.environment()
        with pytest.raises(UpkeepError, match="SSLError") as caught:
            open_project(environment)
        assert "CI_SERVER_TLS_CA_FILE" in caught.value.remedy
        opened = open_project({**environment, "CI_SERVER_TLS_CA_FILE": str(certificate.with_name("ca.pem"))})
    assert opened.path_with_namespace == "plants/upkeep"


def test_the_doctor_trusts_a_webhooks_host_as_far_as_the_message_itself_does(certificate):
    with serving_gitlab(certificate) as server:
        environment = {"UPKEEP_ALERT_WEBHOOK": f"{server.url}/hooks/a-secret", "CI_SERVER_HOST": "gitlab.example.com"}
        with pytest.raises(UpkeepError, match="does not answer"):
            reach_webhook(environment)
        named = {**environment, "CI_SERVER_TLS_CA_FILE": str(certificate.with_name("ca.pem"))}
        assert reach_webhook(named) == "127.0.0.1 can be reached"


def fail(job: dict[str, str]) -> None:
    PIPELINE.touch()
    broken = UpkeepError(
        "12% are out of range", expected="at most 5%", remedy="mend it", stage="validate", plant="lyon"
    )
    keep_failure(broken, job)


def test_a_failed_job_opens_an_issue_that_names_the_place_and_links_the_job(server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    job = server.environment() | {"CI_JOB_NAME": "retrain", "CI_JOB_ID": "7", "CI_JOB_URL": f"{server.url}/jobs/7"}
    fail(job)
    told = notify_failure(job)
    (issue,) = server.issues
    assert issue["title"] == "retrain failed: stage validate, plant lyon"
    assert f"({server.url}/jobs/7)" in issue["description"]
    assert issue["labels"] == ["upkeep", "failure"]
    assert issue["web_url"] in told


def test_a_failed_job_calls_the_webhook(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with receiving(200) as (url, calls):
        fail({})
        assert "told UPKEEP_ALERT_WEBHOOK" in notify_failure({"UPKEEP_ALERT_WEBHOOK": url, "CI_JOB_NAME": "retrain"})
    assert json.loads(calls[0])["text"].startswith("**retrain failed: stage validate, plant lyon**")


@pytest.mark.parametrize("status", [302, 404, 500])
def test_a_webhook_that_refuses_is_told_without_its_address(tmp_path, monkeypatch, status):
    monkeypatch.chdir(tmp_path)
    with receiving(status) as (url, _), pytest.raises(UpkeepError, match=f"answered {status}") as caught:
        notify_failure({"UPKEEP_ALERT_WEBHOOK": url})
    assert "s3cret" not in str(caught.value)


def test_a_dead_webhook_keeps_no_issue_from_being_opened(server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fail({})
    with receiving(500) as (url, _), pytest.raises(UpkeepError, match="answered 500"):
        notify_failure(server.environment() | {"UPKEEP_ALERT_WEBHOOK": url})
    assert len(server.issues) == 1


def test_the_stand_in_refuses_what_gitlab_refuses(server):
    token = {"PRIVATE-TOKEN": server.add_token("api")}
    notes = "/api/v4/projects/plants%2Fupkeep/merge_requests/1/notes"
    foreign = server.add_note(1, "looks good", SOMEBODY)["id"]

    def answer(method: str, path: str, body: object = None, headers: dict[str, str] = token) -> tuple[int, dict]:
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
        connection.request(method, path, json.dumps(body), {**headers, "Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, json.loads(response.read())

    assert answer("GET", notes, headers={}) == (401, {"message": "401 Unauthorized"})
    assert answer("POST", notes, {}) == (400, {"error": "body is missing"})
    assert answer("POST", notes, {"body": "x" * 1_000_001})[0] == 400
    assert answer("PUT", f"{notes}/{foreign}", {"body": "changed"})[0] == 403
    assert answer("GET", notes.replace("/1/", "/2/"))[0] == 404
    assert answer("GET", "/api/v4/personal_access_tokens/self")[1]["scopes"] == ["api"]
    assert answer("POST", notes, {"body": "fine"})[0] == 201
