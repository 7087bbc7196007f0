"""What the doctor asks of servers, and how it logs in."""

from base64 import b64encode

from urllib3 import HTTPResponse

from upkeep.gitlab import server_checks
from upkeep.gitlab.server_checks import log_in_to_registry


def test_a_registry_is_told_a_password_of_any_characters_in_utf_8(monkeypatch):
    answers = [HTTPResponse(status=200), HTTPResponse(status=401, headers={"WWW-Authenticate": "Basic"})]
    asked = []

    def answer(*_, **headers):
        asked.append(headers)
        return answers.pop()

    monkeypatch.setattr(server_checks, "_ask_server", answer)
    login = {"UPKEEP_REGISTRY_USER": "jörg", "UPKEEP_REGISTRY_PASSWORD": "pä☂"}
    log_in_to_registry({"UPKEEP_IMAGE": "registry.example.com/team/upkeep", **login})
    assert asked == [{}, {"authorization": f"Basic {b64encode('jörg:pä☂'.encode()).decode()}"}]
