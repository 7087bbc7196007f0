"""The experiment log: one row per run, keyed by the run's content, so that reproducing a run adds none.

Beside the content it has the commit of the code, and the hashes that ``dvc.lock`` gives the files.
"""

import csv
import hashlib
import io
import json
import posixpath
import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from upkeep.core.errors import UpkeepError
from upkeep.core.files import locked, write_whole
from upkeep.core.plants import name_file
from upkeep.core.types import Frozen

Row = dict[str, str]
Figures = dict[str, int | float | None]

KEY = "run"
KEY_LENGTH = 16
TAKEN = re.compile(r"[\w.:/ -]{1,250}")  # by MLflow for a parameter's name, unless it would shorten such a path

PER_PLANT = ("average_precision", "failures_caught")
"""Metrics that have a column per plant as well; the others are in MLflow's child runs, to keep the log readable."""

WRITTEN_BY_RUNS = (
    *("params.yaml", "dvc.lock", "models", "reports"),
    *(f"data/{name}" for name in ("raw", "interim", "processed", "predictions")),
)
"""Parameters, which each run records, and what runs write; a change of anything else is a change of code."""


class Groups(Frozen):
    """The figures of one split, over all plants and by plant."""

    overall: Figures
    plants: dict[str, Figures]


class Run(Frozen):
    """The content of a run, without when and where it was made.

    `model` holds name, kind, bytes and md5 of all models, and each plant's kind and scope; `data` holds rows, bytes and
    md5 by split; `metrics` are by split, too.
    """

    model: dict[str, Any]
    description: str
    parameters: dict[str, Any]
    data: dict[str, dict[str, Any]]
    metrics: dict[str, Groups]
    drift: dict[str, Any]
    data_quality: dict[str, Any]

    @property
    def key(self) -> str:
        """The start of the SHA-256 of the content as canonical JSON: 16 hexadecimal digits."""
        text = json.dumps(self.model_dump(), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()[:KEY_LENGTH]


def describe_row(run: Run, date: str, commit: str, outputs: Sequence[str]) -> Row:
    """Return the row of a run made at `date` (UTC) by the code of `commit`, which wrote the paths `outputs`."""
    cells: dict[str, object] = {
        KEY: run.key,
        "date": date,
        "commit": commit,
        "model": run.model["name"],
        "kind": run.model["kind"],
        "description": run.description,
        "parameters": json.dumps(run.parameters, sort_keys=True, separators=(",", ":")),
        "outputs": " ".join(outputs),
    }
    for part, facts in {**run.data, "model": run.model}.items():
        cells |= {f"{part}_{name}": facts[name] for name in ("rows", "bytes", "md5") if name in facts}
    splits = run.metrics.items()
    figures = {f"{split}_{name}": value for split, groups in splits for name, value in groups.overall.items()}
    for split, groups in splits:
        for plant, own in groups.plants.items():
            figures |= {f"{split}_{name}_{plant}": own.get(name) for name in PER_PLANT}
    return {name: "" if value is None else str(value) for name, value in (cells | figures | cells).items()}


def flatten(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested values by dotted names, such as ``overall.cost``."""
    flat: dict[str, Any] = {}
    for name, value in nested.items():
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat


def name_param(name: str) -> str:
    """Return a dotted name, which may hold any plant's name, as MLflow accepts it for a parameter."""
    return name if TAKEN.fullmatch(name) and posixpath.normpath(name) == name else name_file(name)


def append_row(file: Path, row: Row, lock: Path) -> Row:
    """Add a run to the log unless it is there, and return its row as logged, with its first date and commit.

    New columns are added at the end, empty in older rows. The file is replaced as a whole, under a lock. Raises
    UpkeepError if the log is damaged.
    """
    with locked(lock):
        header, rows = read_log(file)
        known = next((logged for logged in rows if logged[KEY] == row[KEY]), None)
        if known is not None:
            return known
        text = io.StringIO()
        writer = csv.DictWriter(text, list(dict.fromkeys([*header, *row])), restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows([*rows, row])
        write_whole(file, text.getvalue().encode())
        return row


def read_log(file: Path) -> tuple[list[str], list[Row]]:
    """Return the log's columns and rows, none if there is no log yet; an UpkeepError is raised if it is damaged."""
    if not file.exists() or not file.stat().st_size:
        return [], []
    try:
        header, *lines = csv.reader(io.StringIO(file.read_bytes().decode(), newline=""), strict=True)
        if KEY not in header or len(set(header)) != len(header):
            raise ValueError(f"its first line is {','.join(header)[:80]!r}")
        for number, line in enumerate(lines, start=2):
            if len(line) != len(header):
                raise ValueError(f"record {number} starts with {','.join(line)[:40]!r} and has {len(line)} cells")
    except (ValueError, csv.Error) as error:
        raise UpkeepError(
            f"the experiment log is damaged: {error}",
            expected="a CSV table with one header line, one cell per column and no merge conflict markers",
            remedy="keep the rows of both sides of the merge under one header, or restore it: "
            f"git checkout HEAD -- {file}",
            stage="record",
            file=file,
        ) from error
    return header, [dict(zip(header, line, strict=True)) for line in lines]


def hash_files(files: Iterable[Path], folder: Path) -> str:
    """Return the hash that ``dvc.lock`` would give `folder` if it held these files only.

    DVC hashes the JSON list of each file's MD5 and path, sorted by path.
    """
    entries = []
    for name in sorted(file.relative_to(folder).as_posix() for file in files):
        with (folder / name).open("rb") as stream:
            digest = hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False))
        entries.append({"md5": digest.hexdigest(), "relpath": name})
    text = json.dumps(entries, sort_keys=True)
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest() + ".dir"


def code_version(folder: Path) -> str:
    """Return the git commit, with ``-dirty`` if code differs from it; ``unknown`` where git cannot tell."""
    git = ["git", "--no-optional-locks", "-C", str(folder)]
    unchanged = [f":(exclude){name}" for name in WRITTEN_BY_RUNS]
    commands = (["rev-parse", "--verify", "HEAD"], ["status", "--porcelain", "--", ".", *unchanged])
    try:
        commit, changes = (
            subprocess.run([*git, *command], capture_output=True, check=True, encoding="utf-8").stdout.strip()
            for command in commands
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{commit}-dirty" if changes else commit
