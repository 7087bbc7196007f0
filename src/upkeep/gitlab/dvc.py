"""DVC's command line: run stages, move data, read ``dvc.lock``; a stage's own error is reported as it stands."""

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
from upkeep.gitlab.remotes import read_config, readable_remotes, remotes_apart
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
    """List the stages that ``dvc repro`` would run; it needs no data.

    DVC stops at a stale stage whose inputs are missing, so stages after it are not listed.
    """
    failed, printed = _dvc("repro", "--dry", "--allow-missing", echo=False)
    found = RUNNING.findall(printed) + FAILED.findall(printed)
    if failed and not found:
        raise _explain("repro --dry", printed)
    return list(dict.fromkeys(found))


def repro(*stages: str, allow_missing: bool = True) -> list[str]:
    """Run the stale stages, or those among the named ones and what they need; return the stages that ran.

    Inputs come from the remote, and results of earlier runs are reused; a protected pipeline reuses them only from a
    remote that no merge request writes to. With `allow_missing`, data that nothing needs is not fetched; data that the
    remote has lost is made again. Raises the UpkeepError of the stage that failed.
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
    """Pull outputs into the working tree; False if the remote lacks some, an UpkeepError if it cannot be read."""
    if not targets:
        return True
    _fetch_proposed(*targets)
    failed, printed = _dvc("pull", *map(str, targets))
    if failed and MISSING not in printed:
        raise _explain("pull", printed)
    return not failed


def push() -> None:
    """Push what the cache holds of ``dvc.lock`` to this zone's remote.

    Only a protected pipeline pushes the run cache, whose results other runs of the same code reuse.
    """
    protected = is_protected(os.environ)
    where = [] if protected or not remotes_apart() else ["--remote", REMOTE]
    _require_dvc("push", *where, *["--run-cache"] * protected)


def restore() -> None:
    """Check out the outputs that ``dvc.lock`` lists, as far as the cache has them."""
    _dvc("checkout", "--quiet", echo=False)


def list_garbage() -> list[Path]:
    """List the cache's files that neither ``dvc.lock`` here nor a local branch, tag or experiment needs.

    Raises UpkeepError if other checkouts may share the cache, or if not everything that is needed can be known.
    """
    _require_known_needs()
    printed = _require_dvc("gc", *NEEDED, "--dry", echo=False).splitlines()
    return [Path(line.removeprefix(REMOVING)) for line in printed if line.startswith(REMOVING)]


def _require_known_needs() -> None:
    settings = read_config().get("cache", {})
    shared = settings.get("dir") or settings.get("local")
    if shared or CACHE.resolve() != Path.cwd().resolve() / CACHE:
        what = f"DVC's cache is not this checkout's own: {shared or CACHE.resolve()}"
        remedy = f"type `dvc gc {' '.join(NEEDED)} --projects` with the folders of all checkouts that use it"
        raise UpkeepError(what, remedy=remedy)
    if git.git("stash", "list"):
        what = "DVC does not know what git's stash needs"
        raise UpkeepError(what, remedy="`git stash pop` or `git stash drop` first")
    outs = [out for stage in read_stages().values() for out in stage.get("outs", [])]
    if not outs:
        raise UpkeepError(f"{LOCK} lists no output, so nothing in the cache would be needed", remedy="run `dvc repro`")
    for path, md5 in ((out["path"], str(out.get("md5"))) for out in outs):
        if md5.endswith(".dir") and not (CACHE / md5[:2] / md5[2:]).exists():
            what = f"the cache lacks what {LOCK} says of {path}, so it is not known which files of it are needed"
            raise UpkeepError(what, remedy="type `dvc fetch`")


def collect_garbage() -> None:
    """Remove what :func:`list_garbage` lists."""
    _require_dvc("gc", *NEEDED, "--force", echo=False)


def bring(*folders: Path) -> bool:
    """Pull the missing outputs under these folders; False if the remote lacks some."""
    return pull(*(path for path in outputs(*folders) if not path.exists()))


def outputs(*folders: Path, commit: str = "") -> list[Path]:
    """List the outputs under these folders, by ``dvc.lock`` here or in a commit."""
    known = _list_outputs(read_stages(commit))
    return [path for path in known if any(path.is_relative_to(folder) for folder in folders)]


def read_stages(commit: str = "") -> dict[str, Any]:
    """Return each stage's entry in ``dvc.lock``, here or in a commit; an UpkeepError if DVC did not write it."""
    stages: dict[str, Any] = read(LOCK, git.read_committed(commit, LOCK) if commit else None).get("stages", {})
    return stages


def read(file: Path, text: str | None = None) -> dict[str, Any]:
    """Return the content of one of DVC's files, or of its `text`; an UpkeepError if DVC did not write it.

    A missing file has no content.
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
    """Fetch into the cache what the merge requests' own remote has; the default one may have the rest."""
    if REMOTE in readable_remotes():
        _dvc("fetch", "--remote", REMOTE, *map(str, targets), echo=False)


def _require_dvc(*arguments: str, echo: bool = True) -> str:
    failed, printed = _dvc(*arguments, echo=echo)
    if failed:
        raise _explain(arguments[0], printed)
    return printed


def _dvc(*arguments: str, echo: bool = True) -> tuple[bool, str]:
    """Run DVC; return whether it failed and what it printed, which goes to the job's log at once.

    A DVC that is killed leaves a half-written lock file, which stops all later ones: it is removed, and DVC run again.
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
    """Return the error of the stage that failed, if it left one, or else DVC's."""
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
    remedy = git.ASK_DOCTOR
    if stage:
        remedy = f"read what `{stage[1]}` says above; `dvc repro {stage[1]}` runs it on your machine"
    return UpkeepError(f"`dvc {command}` failed: {found}", remedy=remedy, stage=stage[1] if stage else None)
