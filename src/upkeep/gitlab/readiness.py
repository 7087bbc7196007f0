"""What a job cannot do without and a new project has not got yet: a plain reason instead of a red pipeline.

Only what nobody has set up counts as not there yet. What is set up and does not work is for the job itself to tell.
"""

import logging
import shlex
import shutil
from collections.abc import Iterable
from pathlib import Path

from upkeep.core.errors import UpkeepError
from upkeep.gitlab import dvc
from upkeep.gitlab.zones import ONE_REMOTE, TARGET, Environment
from upkeep.releases.git import fetch, git, run

SETTINGS = ".dvc/config"
ENGINES = ("docker", "podman")

logger = logging.getLogger(__name__)


class NotReadyError(UpkeepError):
    """A part of the surroundings is not there yet; jobs list `code` under ``allow_failure: exit_codes``."""

    code = 69  # EX_UNAVAILABLE of sysexits.h


def require(parts: Iterable[str], environment: Environment) -> None:
    """Raise a NotReadyError that names the first of these parts, of :data:`PARTS`, that nobody has set up."""
    for part in parts:
        if part not in PARTS:
            raise UpkeepError(f"jobs need no part called {part}", remedy=f"name some of {', '.join(PARTS)}")
        miss, step = PARTS[part]
        if what := miss(environment):
            raise NotReadyError(what, remedy=f"docs/gitlab.md, step {step}; this job has nothing to do until then")


def find_engine(environment: Environment) -> str | None:
    """Return the container engine's client; None if there is none."""
    return environment.get("UPKEEP_ENGINE") or next(filter(None, map(shutil.which, ENGINES)), None)


def image_name(environment: Environment) -> str:
    """Return where the service's image goes, without a tag; empty if the project has no registry."""
    image = environment.get("UPKEEP_IMAGE") or environment.get("CI_REGISTRY_IMAGE") or ""
    return "" if image.startswith("$") else image  # GitLab leaves the name of a variable that is not set


def find_storage_fault(folder: Path, environment: Environment) -> str:
    """Say why a DVC remote that is this folder keeps nothing beyond the job; empty if it does."""
    builds = environment.get("CI_BUILDS_DIR")
    if builds and folder.resolve().is_relative_to(Path(builds).resolve()):
        return f"there is no DVC remote yet: {folder} lies among the runner's own files, and may go with the job"
    return ""


def _miss_storage(environment: Environment) -> str:
    url = dvc.find_remote()
    what = "" if url else "there is no DVC remote yet"
    if url and "://" not in url:
        what = find_storage_fault(Path(url), environment)
    target = environment.get(TARGET)
    # Else a branch that loses the remote would pass the gate unjudged.
    if what and target and git("diff", "--name-only", fetch(target), "--", SETTINGS):
        remedy = f"git checkout {shlex.quote(target)} -- {SETTINGS}, or name a remote that jobs can reach"
        raise UpkeepError(f"this branch changes {SETTINGS}, and {what}", remedy=remedy, file=SETTINGS)
    if not what and not dvc.remotes_apart():
        logger.warning(ONE_REMOTE)
    return what


def _miss_engine(environment: Environment) -> str:
    if environment.get("UPKEEP_ENGINE") or environment.get("DOCKER_HOST"):
        return ""
    engine = find_engine(environment)
    if engine and not run([engine, "version"]).returncode:
        return ""
    why = f"{engine} reaches none" if engine else f"neither {' nor '.join(ENGINES)} is on PATH"
    return f"there is no container engine here: {why}"


def _miss_registry(environment: Environment) -> str:
    return (
        "" if image_name(environment) else "there is no image registry: the project has none, nor is UPKEEP_IMAGE set"
    )


PARTS = {"storage": (_miss_storage, 2), "engine": (_miss_engine, 3), "registry": (_miss_registry, 5)}
"""What is missing, if anything, and the step of docs/gitlab.md that sets it up."""
