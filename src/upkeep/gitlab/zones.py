"""The two trust zones, merge requests and protected pipelines, and the DVC remotes that each reads and writes.

docs/decisions/0012 says what keeps them apart.
"""

import os
import uuid
from pathlib import Path
from typing import Any

from upkeep.core.errors import UpkeepError
from upkeep.releases import git

Environment = git.Environment
TOKEN = git.TOKEN
TARGET = "CI_MERGE_REQUEST_TARGET_BRANCH_NAME"
# Readable by whoever may push a branch, so it may write notes and push nothing.
NOTE_TOKEN = "UPKEEP_NOTE_TOKEN"  # noqa: S105  # the variable's name, not its value
ENVIRONMENT = "merge-requests"  # GitLab's environment of their jobs, in which a variable can have another value
REMOTE = "merge_requests"  # the DVC remote that these jobs and developers write to; protected pipelines never read it

# What only protected pipelines may see; merge requests may have values of their own for some of them.
SHARED = frozenset(
    {
        *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
        *("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"),
    }
)
PROTECTED = SHARED | {
    *(TOKEN, git.RELEASE_TOKEN, "UPKEEP_ALERT_WEBHOOK", "UPKEEP_WEBHOOK_SECRET", "UPKEEP_TOKENS"),
    *("UPKEEP_REGISTRY_USER", "UPKEEP_REGISTRY_PASSWORD"),
    *("DEPLOY_HOST", "DEPLOY_PORT", "DEPLOY_KEY", "DEPLOY_KNOWN_HOSTS", "DEPLOY_FOLDER"),
}

ONE_REMOTE = (
    "one DVC remote for all: a merge request can plant raw data, and each merge trains all anew; "
    f"docs/gitlab.md, step 2, adds {REMOTE}"
)


def is_merge_request(environment: Environment) -> bool:
    """Tell whether this is a job of a merge request."""
    return bool(environment.get("CI_MERGE_REQUEST_SOURCE_BRANCH_NAME"))


def is_protected(environment: Environment) -> bool:
    """Tell whether this is a job of a protected pipeline: in CI, and not of a merge request."""
    return bool(environment.get("CI")) and not is_merge_request(environment)


def read_config() -> dict[str, Any]:
    """Return DVC's configuration; empty outside a repository or where it is broken, which DVC's own commands report."""
    from dvc.config import Config  # slow to import
    from dvc.exceptions import DvcException

    try:
        return dict(Config.from_cwd())
    except DvcException:
        return {}


def find_remote(name: str | None = None) -> dict[str, Any]:
    """Return a remote's settings and its `name`, by default the default remote's; empty if there is none."""
    config = read_config()
    name = name or config.get("core", {}).get("remote")
    known = config.get("remote", {})
    return {"name": name, **known[name]} if name in known else {}


def remotes_apart() -> bool:
    """Tell whether merge requests have a remote of their own beside the default one."""
    own, default = (find_remote(name).get("url", "").rstrip("/") for name in (REMOTE, None))
    return bool(own) and own != default


def readable_remotes() -> list[str | None]:
    """Return the names of the remotes that this job's zone reads, in order; None is the default one."""
    return [None] if is_protected(os.environ) or not remotes_apart() else [None, REMOTE]


def add_remote(url: str) -> None:
    """Give merge requests a remote of their own at `url`, with the default one's other settings."""
    from dvc.config import Config

    with Config.from_cwd().edit("repo") as config:
        config["remote"][REMOTE] = {**config["remote"].get(config["core"].get("remote"), {}), "url": url}


def try_remote(name: str | None) -> str:
    """Write, read and delete a small file on a remote with DVC's own client; raise UpkeepError if that fails."""
    from dvc.repo import Repo

    settings, label = find_remote(name), f"doctor-{uuid.uuid4().hex}"
    if not settings.get("verify"):
        remedy = f"dvc remote modify {settings['name']} verify true"
        raise UpkeepError("damaged files on the remote would be taken for sound ones", remedy=remedy)
    folder = Path(settings["url"]).parent
    if "://" not in settings["url"] and not folder.is_dir():
        raise UpkeepError(f"there is no folder {folder}", remedy="mount it, or correct the remote's address")
    try:
        with Repo(".") as repo:
            store: Any = repo.cloud.get_remote_odb(name)
            file = store.fs.join(store.path, label)
            store.fs.makedirs(store.path, exist_ok=True)
            store.fs.pipe_file(file, label.encode())
            found = store.fs.cat_file(file)
            store.fs.rm_file(file)
    except Exception as error:  # each kind of storage raises its own errors
        what = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        remedy = "check the address in .dvc/config, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and what they may do there"
        raise UpkeepError(what, remedy=f"{remedy}: write, read and delete; and AWS_CA_BUNDLE") from error
    if found != label.encode():
        raise UpkeepError(f"{store.path} gives back other bytes than were written", remedy="read the storage's log")
    return f"{store.path} can be written and read"
