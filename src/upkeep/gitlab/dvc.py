"""DVC's command line: stages run and data moved. A stage that fails is told in its own words, last of all."""

import logging
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml

from upkeep.core import paths
from upkeep.core.errors import UpkeepError
from upkeep.core.files import read_regular
from upkeep.core.secrets import mask_credentials
from upkeep.core.text import show_lines, show_text
from upkeep.core.yaml import parse_yaml
from upkeep.gitlab.failure import FAILURE, PIPELINE, read_failure
from upkeep.gitlab.zones import REMOTE, is_protected
from upkeep.releases import git

LOCK = Path("dvc.lock")
RUNNING = re.compile(r"^Running stage '([^']+)'", re.MULTILINE)
FAILED = re.compile(r"failed to reproduce '([^']+)'")
ERROR = re.compile(r"^ERROR: (.*)", re.MULTILINE)
MISSING = "https://error.dvc.org/missing-files"  # when neither the cache nor the remote has what `dvc.lock` lists
CACHE = Path(".dvc/cache/files/md5")
NEEDED = ("--workspace", "--rev=HEAD", "--all-branches", "--all-tags", "--all-experiments")  # what `dvc gc` keeps
REMOVING = "Removing "  # how it begins a line about a file of the cache that nothing needs
UNQUOTED = "Unsupported value of type 'date'"
CONFLICT = "<<<<<<< "
HALF_WRITTEN = re.compile(r"Unable to read RWLock-file '([^']+)'")

logger = logging.getLogger(__name__)


def stale() -> list[str]:
    """List the stages that ``dvc repro`` would run; no data is needed for it.

    Where a stale stage's own inputs are not here, DVC stops and what depends on it is not listed.
    """
    failed, printed = _dvc("repro", "--dry", "--allow-missing", echo=False)
    found = RUNNING.findall(printed) + FAILED.findall(printed)
    if failed and not found:
        raise _explain("repro --dry", printed)
    return list(dict.fromkeys(found))


def repro(*stages: str, allow_missing: bool = True) -> list[str]:
    """Run what is stale, of all stages or of these and what they need, with inputs from the remote and earlier results.

    Returns the stages that ran, or raises the UpkeepError of the one which failed. `allow_missing` leaves data where it
    is if nothing needs it; what the remote has lost is made again. A protected pipeline takes earlier results only from
    a remote that no merge request writes to.
    """
    FAILURE.unlink(missing_ok=True)
    _fetch_proposed()
    anew = is_protected(os.environ) and not remotes_apart()
    options = [*["--allow-missing"] * allow_missing, *["--no-run-cache"] * anew]
    failed, printed = _dvc("repro", "--pull", *options, *stages)
    if failed and allow_missing and MISSING in printed:
        logger.warning("the remote lacks some of the data: making it again")
        return repro(*stages, allow_missing=False)
    if failed:
        raise _explain("repro", printed)
    return RUNNING.findall(printed)


def pull(*targets: Path) -> bool:
    """Bring outputs from the remote to the working tree; False if it lacks some, an UpkeepError if it is unreadable."""
    if not targets:
        return True
    _fetch_proposed(*targets)
    failed, printed = _dvc("pull", *map(str, targets))
    if failed and MISSING not in printed:
        raise _explain("pull", printed)
    return not failed


def push() -> None:
    """Send what the cache holds of ``dvc.lock`` to this zone's remote.

    Only a protected pipeline adds the record of which run made it, which others take for results of their own code.
    """
    protected = is_protected(os.environ)
    where = [] if protected or not remotes_apart() else ["--remote", REMOTE]
    _require_dvc("push", *where, *["--run-cache"] * protected)


def restore() -> None:
    """Put the outputs that ``dvc.lock`` lists into the working tree, as far as the cache has them."""
    _dvc("checkout", "--quiet", echo=False)


def find_remote(name: str | None = None) -> dict[str, Any]:
    """Return what is set of a remote, the default one without a name, and its `name`; empty if there is none."""
    config = _read_config()
    name = name or config.get("core", {}).get("remote")
    known = config.get("remote", {})
    return {"name": name, **known[name]} if name in known else {}


def _read_config() -> dict[str, Any]:
    from dvc.config import Config  # slow to import
    from dvc.exceptions import DvcException

    try:
        return dict(Config.from_cwd())
    except DvcException:  # which DVC's own command is about to tell
        return {}


def remotes_apart() -> bool:
    """Tell whether merge requests have a remote of their own beside the default one."""
    own, default = (find_remote(name).get("url", "").rstrip("/") for name in (REMOTE, None))
    return bool(own) and own != default


def add_remote(url: str) -> None:
    """Give merge requests a remote of their own, set up as the default one is."""
    from dvc.config import Config

    with Config.from_cwd().edit("repo") as config:
        config["remote"][REMOTE] = {**config["remote"].get(config["core"].get("remote"), {}), "url": url}


def readable_remotes() -> list[str | None]:
    """Return the names of the remotes that this zone reads, the first one first; None is the default one."""
    return [None] if is_protected(os.environ) or not remotes_apart() else [None, REMOTE]


def list_garbage() -> list[Path]:
    """List what of the cache neither ``dvc.lock`` here nor a local branch, tag or experiment lists.

    Raises UpkeepError if the cache may be that of other checkouts, too, or if not all that is needed can be known.
    """
    settings = _read_config().get("cache", {})
    shared = settings.get("dir") or settings.get("local")
    what, remedy = "", "type `dvc fetch`"
    outs = [out for stage in read_stages().values() for out in stage.get("outs", [])]
    lists = {out["path"]: out["md5"] for out in outs if str(out.get("md5")).endswith(".dir")}
    unknown = [path for path, md5 in lists.items() if not (CACHE / md5[:2] / md5[2:]).exists()]
    if shared or CACHE.resolve() != Path.cwd().resolve() / CACHE:
        what = f"DVC's cache is not this checkout's own: {shared or CACHE.resolve()}"
        remedy = f"type `dvc gc {' '.join(NEEDED)} --projects` with the folders of all checkouts that use it"
    elif git.git("stash", "list"):
        what, remedy = "DVC does not know what git's stash needs", "`git stash pop` or `git stash drop` first"
    elif not outs:
        what, remedy = f"{LOCK} lists no output, so nothing in the cache would be needed", "run `dvc repro`"
    elif unknown:
        what = f"the cache lacks what {LOCK} says of {unknown[0]}, so it is not known which files of it are needed"
    if what:
        raise UpkeepError(what, remedy=remedy)
    printed = _require_dvc("gc", *NEEDED, "--dry", echo=False).splitlines()
    return [Path(line.removeprefix(REMOVING)) for line in printed if line.startswith(REMOVING)]


def collect_garbage() -> None:
    """Remove what :func:`list_garbage` lists."""
    _require_dvc("gc", *NEEDED, "--force", echo=False)


def bring(*folders: Path) -> bool:
    """Bring the outputs under these folders that ``dvc.lock`` knows and that are not here; False if some are lost."""
    return pull(*(path for path in outputs(*folders) if not path.exists()))


def outputs(*folders: Path, commit: str = "") -> list[Path]:
    """List the outputs under these folders that ``dvc.lock`` knows, here or in a commit."""
    known = _list_outputs(read_stages(commit))
    return [path for path in known if any(path.is_relative_to(folder) for folder in folders)]


def read_stages(commit: str = "") -> dict[str, Any]:
    """Return by name what ``dvc.lock`` says of each stage, here or in a commit; an UpkeepError if it is not DVC's."""
    stages: dict[str, Any] = read(LOCK, git.read_committed(commit, LOCK) if commit else None).get("stages", {})
    return stages


def read(file: Path, text: str | None = None) -> dict[str, Any]:
    """Return what one of DVC's own files holds, or this `text` of it; an UpkeepError if DVC would not write it so.

    A file that is not there holds nothing.
    """
    try:
        if text is None:
            text = read_regular(file).decode(errors="replace") if file.exists() else "{}"
        content: dict[str, Any] = parse_yaml(text)
        stages = content.get("stages", {})
        _list_outputs(stages if file == LOCK else {})
    except (OSError, yaml.YAMLError, AttributeError, LookupError, TypeError) as error:
        why = "is not as DVC writes it"
        if text and CONFLICT in text:
            why = "holds a merge conflict"
        elif isinstance(error, OSError | yaml.YAMLError):
            why = f"cannot be read: {show_text(error)}"
        anew = f"git checkout origin/main -- {LOCK} && dvc repro, and commit what it writes"
        remedy = anew if file == LOCK else f"correct it, or `git checkout HEAD -- {file}`"
        raise UpkeepError(f"{file} {why}", remedy=remedy, file=file) from error
    return content


def _list_outputs(stages: dict[str, Any]) -> list[Path]:
    return [Path(out["path"]) for stage in stages.values() for out in stage.get("outs", [])]


def _fetch_proposed(*targets: Path) -> None:
    """Have in the cache what the merge requests' own remote holds of these; what it lacks, the default one may have."""
    if REMOTE in readable_remotes():
        _dvc("fetch", "--remote", REMOTE, *map(str, targets), echo=False)


def _require_dvc(*arguments: str, echo: bool = True) -> str:
    """Run DVC and return what it prints, or raise the UpkeepError that says why it failed."""
    failed, printed = _dvc(*arguments, echo=echo)
    if failed:
        raise _explain(arguments[0], printed)
    return printed


def _dvc(*arguments: str, echo: bool = True) -> tuple[bool, str]:
    """Run DVC; return whether it failed, and what it printed: to the job's log, too, since training may take hours.

    The list of who reads and writes what is of no use once a DVC was killed while writing it, and stops all later ones.
    """
    if shutil.which("dvc") is None:
        raise UpkeepError("dvc is not on PATH", remedy="make .venv && source .venv/bin/activate")
    lines = []
    with subprocess.Popen(
        ["dvc", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", errors="replace"
    ) as process:
        for line in process.stdout or ():
            lines.append(line)
            if echo:
                print(show_lines(mask_credentials(line)), flush=True)  # noqa: T201  # what the job's log is read for
    printed = "".join(lines)
    if process.returncode and (found := HALF_WRITTEN.search(printed)):
        Path(found[1]).unlink(missing_ok=True)
        return _dvc(*arguments, echo=echo)
    return process.returncode != 0, printed


def _explain(command: str, text: str) -> UpkeepError:
    """Return the failed stage's own error, of which DVC knows only that its command failed, or DVC's."""
    try:  # DVC names neither file nor line
        for file in (LOCK, PIPELINE):
            read(file)
    except UpkeepError as error:
        return error
    if UNQUOTED in text:
        remedy = 'quote every date, as in until: "2025-12-22"'
        return UpkeepError("a date stands without quotes", remedy=remedy, file=paths.PARAMS)
    if command == "repro" and (kept := read_failure()):
        return kept.as_error()
    stage = FAILED.search(text)
    found = (ERROR.findall(text) or text.strip().splitlines() or ["it said nothing"])[-1]
    remedy = "run `upkeep doctor`"
    if stage:
        remedy = f"read what `{stage[1]}` says above; `dvc repro {stage[1]}` runs it on your machine"
    return UpkeepError(f"`dvc {command}` failed: {found}", remedy=remedy, stage=stage[1] if stage else None)
