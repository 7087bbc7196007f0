"""DVC's command line: stages run and data moved. A stage that fails is told in its own words, last of all."""

import logging
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from upkeep.core import paths
from upkeep.core.errors import UpkeepError
from upkeep.core.secrets import mask_credentials
from upkeep.gitlab.failure import FAILURE, PIPELINE, read_failure

LOCK = Path("dvc.lock")
RUNNING = re.compile(r"^Running stage '([^']+)'", re.MULTILINE)
FAILED = re.compile(r"failed to reproduce '([^']+)'")
MISSING = "https://error.dvc.org/missing-files"
"""How DVC ends its message when neither the cache nor the remote has what ``dvc.lock`` lists."""

UNQUOTED = "Unsupported value of type 'date'"
CONFLICT = "<<<<<<< "

logger = logging.getLogger(__name__)

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Outcome(NamedTuple):
    """How a command ended, and all that it printed."""

    failed: bool
    text: str


def stale(*stages: str) -> list[str]:
    """List the stages, of all or of these and what they need, that ``dvc repro`` would run; no data is needed for it.

    Where a stale stage's own inputs are not here, DVC stops and what depends on it is not listed.
    """
    outcome = _dvc("repro", "--dry", "--allow-missing", *stages, echo=False)
    found = RUNNING.findall(outcome.text) + FAILED.findall(outcome.text)
    if outcome.failed and not found:
        raise _failure("repro --dry", outcome.text)
    return list(dict.fromkeys(found))


def repro(*stages: str, allow_missing: bool = True) -> list[str]:
    """Run what is stale, with inputs from the remote and results of earlier runs where they are known.

    Parameters
    ----------
    stages
        Only these and what they need; none: all.
    allow_missing
        Leave data where it is if nothing needs it. What the remote has lost is made again.

    Returns
    -------
    list of str
        The stages that ran.

    Raises
    ------
    UpkeepError
        That of the stage which failed.
    """
    FAILURE.unlink(missing_ok=True)
    outcome = _dvc("repro", "--pull", *["--allow-missing"] * allow_missing, *stages)
    if outcome.failed and allow_missing and MISSING in outcome.text:
        logger.warning("the remote lacks some of the data: making it again")
        return repro(*stages, allow_missing=False)
    if outcome.failed:
        raise _failure("repro", outcome.text)
    return RUNNING.findall(outcome.text)


def pull(*targets: Path) -> bool:
    """Bring outputs from the remote to the working tree; False if it does not have all of them.

    Raises
    ------
    UpkeepError
        If the remote cannot be read at all.
    """
    outcome = _dvc("pull", *map(str, targets)) if targets else Outcome(False, "")
    if outcome.failed and MISSING not in outcome.text:
        raise _failure("pull", outcome.text)
    return not outcome.failed


def push() -> None:
    """Send what the cache holds of ``dvc.lock`` to the remote, with the record of which run made it.

    Raises
    ------
    UpkeepError
        If the remote cannot be written.
    """
    outcome = _dvc("push", "--run-cache")
    if outcome.failed:
        raise _failure("push", outcome.text)


def restore() -> None:
    """Put the outputs that ``dvc.lock`` lists into the working tree, as far as the cache has them."""
    _dvc("checkout", "--quiet", echo=False)


def outputs(*folders: Path) -> list[Path]:
    """List the outputs under these folders that ``dvc.lock`` knows."""
    known = [Path(out["path"]) for stage in _read(LOCK).get("stages", {}).values() for out in stage.get("outs", [])]
    return [path for path in known if any(path.is_relative_to(folder) for folder in folders)]


def _dvc(*arguments: str, echo: bool = True) -> Outcome:
    """Run DVC; what it prints goes to the job's log line by line, since training may take hours."""
    if shutil.which("dvc") is None:
        raise UpkeepError("dvc was not found", expected="it on PATH", remedy="make .venv && source .venv/bin/activate")
    lines = []
    with subprocess.Popen(
        ["dvc", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", errors="replace"
    ) as process:
        for line in process.stdout or ():
            lines.append(line)
            if echo:
                sys.stdout.write(line)
                sys.stdout.flush()
    return Outcome(process.returncode != 0, "".join(lines))


def _failure(command: str, text: str) -> UpkeepError:
    """Return the failed stage's own error, of which DVC knows only that its command failed, or DVC's."""
    try:  # DVC names neither file nor line
        for file in (LOCK, PIPELINE):
            _read(file)
    except UpkeepError as error:
        return error
    if UNQUOTED in text:
        return UpkeepError(
            "a date stands without quotes",
            expected='until: "2025-12-22"',
            remedy="quote every date",
            file=paths.PARAMS,
        )
    told = read_failure() if command == "repro" else None
    if told is not None:
        return UpkeepError(told["what"], expected=told["expected"], remedy=told["remedy"], **told["where"])
    stage = FAILED.search(text)
    errors = [line.removeprefix("ERROR: ") for line in text.splitlines() if line.startswith("ERROR: ")]
    found = errors[-1] if errors else (text.strip().splitlines() or ["it said nothing"])[-1]
    return UpkeepError(
        f"`dvc {command}` failed: {mask_credentials(found)}",
        expected="every stage to end well" if stage else "a pipeline that DVC can read and a remote that answers",
        remedy=f"read what `{stage[1]}` says above; `dvc repro {stage[1]}` runs it on your machine"
        if stage
        else "run `upkeep doctor`",
        stage=stage[1] if stage else None,
    )


def _read(file: Path) -> dict[str, Any]:
    """Return what one of DVC's own files holds; nothing if it is not there.

    Raises
    ------
    UpkeepError
        If it is no mapping in YAML.
    """
    text = file.read_text(encoding="utf-8", errors="replace") if file.exists() else "{}"
    try:
        content, line = yaml.load(text, Loader=_Loader), 1  # noqa: S506  # a safe one
    except yaml.MarkedYAMLError as error:
        content, line = None, error.problem_mark.line + 1 if error.problem_mark else 1
    if isinstance(content, dict):
        return content
    raise UpkeepError(
        f"{file} holds a merge conflict" if CONFLICT in text else f"{file} cannot be read, from line {line} on",
        expected="YAML as DVC writes it",
        remedy=f"git checkout origin/main -- {file} && dvc repro, and commit what it writes"
        if file == LOCK
        else f"correct it, or `git checkout HEAD -- {file}`",
        file=file,
    )
