"""Golden requests against a running service: it must answer as training did, to the last digit."""

import os
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import urllib3

from upkeep.core.errors import UpkeepError
from upkeep.core.files import read_json
from upkeep.serving.protocol import SMOKE
from upkeep.serving.settings import read_settings

SECONDS = 30


def smoke(url: str, environment: Mapping[str, str] = os.environ) -> str:
    """Send every golden request and return a summary.

    An UpkeepError is raised if there are none, the service does not answer, or an answer differs from the stored one.
    """
    settings, remedy = read_settings(environment), "run `dvc repro golden`"
    files = sorted(settings.golden.glob("*.json"))
    cases: list[dict[str, Any]] = [case for file in files for case in read_json(file, remedy=remedy)]
    if not cases:
        raise UpkeepError("there are no golden requests", remedy=remedy, file=settings.golden)
    token = next(iter(settings.tokens), b"").decode()
    differences = []
    for case in cases:
        found, stored = _ask(url, case["request"], token), case["answer"]
        differences += [
            f"{stored['plant']} {stored['machine']}: {name} is {found.get(name)!r}, not {value!r}"
            for name, value in stored.items()
            if found.get(name) != value
        ]
    if differences:
        raise UpkeepError(
            f"{len(differences)} values of {len(cases)} golden answers differ: {'; '.join(differences[:5])}",
            remedy="do not ship this image; build it from the models and code of one and the same commit",
            file=settings.golden,
        )
    plants = len({case["answer"]["plant"] for case in cases})
    return f"{len(cases)} golden answers of {plants} plants are as training stored them"


def _ask(url: str, request: Mapping[str, Any], token: str) -> dict[str, Any]:
    headers = {SMOKE: "1"} | ({"Authorization": f"Bearer {token}"} if token else {})
    if not url.startswith(("http://", "https://")):
        raise UpkeepError(f"{url!r} is no web address", remedy="pass one, as in --url http://127.0.0.1:8000")
    address = f"{url.rstrip('/')}/invocations"
    try:
        response = urllib3.request("POST", address, json=request, headers=headers, timeout=SECONDS, retries=False)
        content = response.json()
        if response.status != HTTPStatus.OK:
            raise ValueError(f"{response.status}: {content.get('errors')}")
        answer: dict[str, Any] = content["predictions"][0]
    except (urllib3.exceptions.HTTPError, ValueError, LookupError) as error:
        remedy = "start the service, as `make serve` does, or look at its log and at UPKEEP_TOKENS"
        raise UpkeepError(f"the service does not answer with scores: {error} [{url}]", remedy=remedy) from error
    return answer
