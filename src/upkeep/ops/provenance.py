"""Where a run came from: the commit of the code, the hashes of the files, the parameters without their secrets."""

import hashlib
import json
import re
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

WRITTEN_BY_RUNS = ("params.yaml", "dvc.lock", "data", "models", "reports")
"""Parameters are recorded with each run and the rest is what runs write; whatever else has changed is code."""

UNKNOWN = "unknown"
USER_INFO = re.compile(r"(?<=//)\S+@")
QUERY = re.compile(r"(?P<address>//[^\s?]*\?)\S+")
SECRET_NAME = re.compile(r"pass|secret|token|credential|api_?key|^key$", re.IGNORECASE)


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


def mask_credentials(text: str) -> str:
    """Return the text with the user, password and query of each address in it masked."""
    return QUERY.sub(r"\g<address>***", USER_INFO.sub("***@", text))


def mask_secrets(value: Any) -> Any:
    """Return nested parameters with addresses' credentials, and values under a secret's name, masked."""
    if isinstance(value, Mapping):
        return {name: "***" if SECRET_NAME.search(str(name)) else mask_secrets(item) for name, item in value.items()}
    if isinstance(value, list):
        return [mask_secrets(item) for item in value]
    return mask_credentials(value) if isinstance(value, str) else value
