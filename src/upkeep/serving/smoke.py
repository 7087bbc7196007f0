"""Golden requests against a running service: it must answer as training did, to the last digit."""

import os
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

import urllib3

from upkeep.core.errors import UpkeepError
from upkeep.core.files import read_json
from upkeep.serving.settings import read_settings

SECONDS = 30
SMOKE = "x-upkeep-smoke"
"""Header by which the service tells golden requests, which are old data, from a plant's; they stay off the page."""


def smoke(url: str, environment: Mapping[str, str] = os.environ) -> str:
    """Send every golden request and return what to tell of it.

    An UpkeepError is raised if there are none, the service does not answer, or an answer differs from the stored one.
    """
    settings = read_settings(environment)
    cases = _read_cases(settings.golden)
    token = next(iter(settings.tokens), b"").decode()
    differences = [
        difference for case in cases for difference in _list_differences(case, _ask(url, case["request"], token))
    ]
    if differences:
        raise UpkeepError(
            f"{len(differences)} values of {len(cases)} golden answers differ: {'; '.join(differences[:5])}",
            remedy="do not ship this image; build it from the models and code of one and the same commit",
            file=settings.golden,
        )
    plants = len({case["answer"]["plant"] for case in cases})
    return f"{len(cases)} golden answers of {plants} plants are as training stored them"


def _read_cases(folder: Path) -> list[dict[str, Any]]:
    remedy = "run `dvc repro golden`"
    cases = [case for file in sorted(folder.glob("*.json")) for case in read_json(file, remedy=remedy)]
    if not cases:
        raise UpkeepError("there are no golden requests", remedy=remedy, file=folder)
    return cases


def _ask(url: str, request: Mapping[str, Any], token: str) -> dict[str, Any]:
    headers = {SMOKE: "1"} | ({"Authorization": f"Bearer {token}"} if token else {})
    address = f"{url.rstrip('/')}/invocations"
    try:
        response = urllib3.request("POST", address, json=request, headers=headers, timeout=SECONDS, retries=False)
        content: dict[str, Any] = response.json()
        if response.status != HTTPStatus.OK:
            raise ValueError(f"{response.status}: {content.get('errors')}")
    except (urllib3.exceptions.HTTPError, ValueError) as error:
        remedy = "look at the service's log, and at UPKEEP_TOKENS"
        raise UpkeepError(f"the service does not answer with scores: {error} [{url}]", remedy=remedy) from error
    return content


def _list_differences(case: Mapping[str, Any], content: Mapping[str, Any]) -> list[str]:
    stored = case["answer"]
    found = content["predictions"][0] if content.get("predictions") else {}
    return [
        f"{stored['plant']} {stored['machine']}: {name} is {found.get(name)!r}, not {value!r}"
        for name, value in stored.items()
        if found.get(name) != value
    ]
