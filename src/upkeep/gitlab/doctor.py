"""The doctor: whether what surrounds the pipeline is there and works, and what to fix if not."""

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Literal, NamedTuple

from upkeep.core.errors import UpkeepError
from upkeep.core.secrets import mask_environment
from upkeep.gitlab import doctor_checks

Environment = Mapping[str, str]

CHECKS: dict[str, Callable[[Environment], str]] = {
    "git remote": doctor_checks.read_git_remote,
    "push": doctor_checks.push_to_git_remote,
    "DVC remote": doctor_checks.use_dvc_remote,
    "engine": doctor_checks.reach_engine,
    "registry": doctor_checks.log_in_to_registry,
    "server": doctor_checks.log_in_to_server,
    "MLflow": doctor_checks.reach_tracking_server,
    "token": doctor_checks.use_token,
    "alerts": doctor_checks.reach_webhook,
    "clock": doctor_checks.compare_clocks,
}


class Finding(NamedTuple):
    """What one check found; `remedy` is empty unless it failed."""

    name: str
    state: Literal["ok", "FAIL", "skipped"]
    what: str
    remedy: str = ""


def examine(environment: Environment = os.environ) -> list[Finding]:
    """Make every check, and return its findings without a secret in them."""
    findings = [_examine(name, environment) for name in CHECKS]
    return [
        finding._replace(
            what=mask_environment(finding.what, environment), remedy=mask_environment(finding.remedy, environment)
        )
        for finding in findings
    ]


def tabulate(findings: Iterable[Finding]) -> str:
    """Return a line per finding, and below a failed one what to do."""
    lines = []
    for finding in findings:
        lines.append(f"{finding.state:<8} {finding.name:<11} {finding.what}")
        if finding.remedy:
            lines.append(f"{'':<20} -> {finding.remedy}")
    return "\n".join(lines)


def raise_if_failed(findings: Iterable[Finding]) -> None:
    """Raise an error that names the checks that failed, if any did."""
    failed = [finding.name for finding in findings if finding.state == "FAIL"]
    if failed:
        raise UpkeepError(
            f"{len(failed)} of the checks failed: {', '.join(failed)}",
            remedy="do what stands below each FAIL, from the top; docs/gitlab.md explains the variables",
        )


def _examine(name: str, environment: Environment) -> Finding:
    try:
        return Finding(name, "ok", CHECKS[name](environment))
    except doctor_checks.NotInUseError as reason:
        return Finding(name, "skipped", str(reason))
    except UpkeepError as error:
        return Finding(name, "FAIL", error.what, error.remedy)
    except Exception as error:  # what answers is not what should: a proxy's login page, say
        what = f"the answer makes no sense: {type(error).__name__}, {error}"
        return Finding(name, "FAIL", what, "check the address, and proxies on the way")
