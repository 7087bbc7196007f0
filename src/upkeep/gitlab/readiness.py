"""What a job needs and a new project has not set up yet: a plain reason instead of a red pipeline.

Only what nobody has set up is "not ready". What is set up and does not work fails in the job itself.
"""

import logging
import os
import shlex
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from upkeep.core.errors import UpkeepError
from upkeep.gitlab.remotes import find_remote, remotes_apart
from upkeep.gitlab.zones import ONE_REMOTE, TARGET, Environment
from upkeep.releases.git import fetch, git, run

SETTINGS = ".dvc/config"
ENGINES = ("docker", "podman")
SECONDS = 20  # one connection may take

logger = logging.getLogger(__name__)


class NotReadyError(UpkeepError):
    """Nobody has set up a part of the surroundings; jobs list `code` under ``allow_failure: exit_codes``."""

    code = os.EX_UNAVAILABLE

    def __init__(self, what: str, step: int = 5, **others: Any) -> None:
        remedy = f"docs/gitlab.md, step {step}; this job has nothing to do until then"
        super().__init__(what, **{"remedy": remedy, **others})


def require(parts: Iterable[str], environment: Environment) -> None:
    """Raise a NotReadyError for the first of these parts, of :data:`PARTS`, that is not set up."""
    for part in parts:
        if part not in PARTS:
            raise UpkeepError(f"jobs need no part called {part}", remedy=f"name some of {', '.join(PARTS)}")
        PARTS[part](environment)
        if part == "storage" and not remotes_apart():
            logger.warning(ONE_REMOTE)


def find_storage(environment: Environment) -> str:
    """Return the address of DVC's default remote, which must outlive the job."""
    url, builds = str(find_remote().get("url", "")), environment.get("CI_BUILDS_DIR")
    what = "" if url else "there is no DVC remote yet"
    if url and builds and "://" not in url and Path(url).resolve().is_relative_to(Path(builds).resolve()):
        what = f"there is no DVC remote yet: {url} lies among the runner's own files, and may go with the job"
    target = environment.get(TARGET)
    # A branch that removes the remote must not pass the gate unjudged.
    if what and target and git("diff", "--name-only", fetch(target), "--", SETTINGS):
        remedy = f"git checkout {shlex.quote(target)} -- {SETTINGS}, or name a remote that jobs can reach"
        raise UpkeepError(f"this branch changes {SETTINGS}, and {what}", remedy=remedy, file=SETTINGS)
    if what:
        raise NotReadyError(what, step=2)
    return url


def find_engine(environment: Environment) -> str:
    """Return the container engine's client; unless a variable names it, it must reach its engine."""
    engine = environment.get("UPKEEP_ENGINE") or next(filter(None, map(shutil.which, ENGINES)), "")
    if environment.get("UPKEEP_ENGINE") or environment.get("DOCKER_HOST"):
        return engine or ENGINES[0]
    if not engine or run([engine, "version"], environment, SECONDS).returncode:
        why = f"{engine} reaches none" if engine else f"neither {' nor '.join(ENGINES)} is on PATH"
        raise NotReadyError(f"there is no container engine here: {why}", step=3)
    return engine


def find_registry(environment: Environment) -> str:
    """Return the name of the service's image, without a tag."""
    image = environment.get("UPKEEP_IMAGE") or environment.get("CI_REGISTRY_IMAGE") or ""
    if not image or image.startswith("$"):  # GitLab leaves the name of a variable that is not set
        raise NotReadyError("there is no image registry: the project has none, nor is UPKEEP_IMAGE set")
    return image


PARTS = {"storage": find_storage, "engine": find_engine, "registry": find_registry}
