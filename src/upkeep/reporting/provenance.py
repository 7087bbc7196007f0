"""Where a run came from: the commit of the code and the hashes of the files."""

import hashlib
import json
import subprocess
from collections.abc import Iterable
from pathlib import Path

WRITTEN_BY_RUNS = ("params.yaml", "dvc.lock", "data", "models", "reports")
"""Parameters are recorded with each run and the rest is what runs write; whatever else has changed is code."""

UNKNOWN = "unknown"


def hash_file(file: Path) -> str:
    """Return a file's MD5, the hash that ``dvc.lock`` gives it."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def hash_files(files: Iterable[Path], folder: Path) -> str:
    """Return the hash that ``dvc.lock`` would give `folder` if it held these files only.

    DVC hashes the JSON list of each file's MD5 and path, sorted by path.
    """
    names = sorted(file.relative_to(folder).as_posix() for file in files)
    entries = [{"md5": hash_file(folder / name), "relpath": name} for name in names]
    text = json.dumps(entries, sort_keys=True)
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest() + ".dir"


def code_version(folder: Path) -> str:
    """Return the git commit, with ``-dirty`` if code differs from it; ``unknown`` where git cannot tell."""
    unchanged = ["--", ".", *(f":(exclude){name}" for name in WRITTEN_BY_RUNS)]
    commit = _git(folder, "rev-parse", "--verify", "HEAD")
    changes = _git(folder, "status", "--porcelain", *unchanged)
    if commit is None or changes is None:
        return UNKNOWN
    return f"{commit}-dirty" if changes else commit


def _git(folder: Path, *arguments: str) -> str | None:
    command = ["git", "--no-optional-locks", "-C", str(folder), *arguments]
    try:
        return subprocess.run(command, capture_output=True, check=True, encoding="utf-8").stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
