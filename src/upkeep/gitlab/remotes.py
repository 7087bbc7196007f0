"""DVC's remotes: which one this job reads and writes, and whether it can."""

import os
import uuid
from pathlib import Path
from typing import Any

from upkeep.core.errors import UpkeepError
from upkeep.gitlab.zones import REMOTE, is_protected


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
