"""`upkeep doctor`: try once each what the pipeline needs around it, and say what to fix where it does not work.

A check takes the environment variables and returns what works. It raises a NotReadyError for what nobody has set up,
and an UpkeepError, with what to do, for what is set up and does not work.
"""

import os
from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple

from upkeep.core.errors import UpkeepError
from upkeep.core.secrets import mask_environment
from upkeep.gitlab import project_checks, server_checks
from upkeep.gitlab.readiness import NotReadyError
from upkeep.gitlab.zones import Environment
from upkeep.releases.git import ASK_DOCTOR

STORAGE = "DVC remote"  # required: where nobody has set it up, its check fails

CHECKS: dict[str, Callable[[Environment], str]] = {
    "variables": project_checks.check_variables,
    "zones": project_checks.check_zones,
    "git remote": project_checks.read_git_remote,
    "push": project_checks.push_to_git_remote,
    "releases": project_checks.push_tags,
    STORAGE: server_checks.use_dvc_remote,
    "engine": server_checks.reach_engine,
    "registry": server_checks.log_in_to_registry,
    "server": server_checks.log_in_to_server,
    "MLflow": server_checks.reach_tracking_server,
    "token": project_checks.check_tokens,
    "alerts": server_checks.reach_webhook,
}


class Diagnosis(NamedTuple):
    """What one check found; `remedy` is empty unless it failed."""

    name: str
    state: Literal["ok", "FAIL", "skipped"]
    what: str
    remedy: str = ""


def examine(environment: Environment = os.environ) -> list[Diagnosis]:
    """Make every check and return its diagnosis, with secrets masked, whatever a program or server has said."""
    diagnoses = []
    for name, check in CHECKS.items():
        try:
            diagnosis = Diagnosis(name, "ok", check(environment))
        except UpkeepError as error:
            git_says = "do what git says, and check the address that `git remote -v` shows"
            diagnosis = Diagnosis(name, "FAIL", error.what, git_says if error.remedy == ASK_DOCTOR else error.remedy)
            if isinstance(error, NotReadyError) and name != STORAGE:
                diagnosis = Diagnosis(name, "skipped", error.what)
        except Exception as error:  # another server answers than the one that is meant, such as a proxy's login page
            what = f"the answer makes no sense: {type(error).__name__}, {error}"
            diagnosis = Diagnosis(name, "FAIL", what, "check the address, and proxies on the way")
        what, remedy = (mask_environment(text, environment) for text in (diagnosis.what, diagnosis.remedy))
        diagnoses.append(diagnosis._replace(what=what, remedy=remedy))
    return diagnoses


def tabulate_diagnoses(diagnoses: Iterable[Diagnosis]) -> str:
    """Return a line for each diagnosis and, below a failed one, what to do."""
    lines = []
    for diagnosis in diagnoses:
        lines.append(f"{diagnosis.state:<8} {diagnosis.name:<11} {diagnosis.what}")
        if diagnosis.remedy:
            lines.append(f"{'':<20} -> {diagnosis.remedy}")
    return "\n".join(lines)


def raise_if_failed(diagnoses: Iterable[Diagnosis]) -> None:
    """Raise an error that names the checks that failed, if any did."""
    if failed := [diagnosis.name for diagnosis in diagnoses if diagnosis.state == "FAIL"]:
        remedy = "do what stands below each FAIL, from the top; docs/gitlab.md explains the variables"
        raise UpkeepError(f"{len(failed)} of the checks failed: {', '.join(failed)}", remedy=remedy)
