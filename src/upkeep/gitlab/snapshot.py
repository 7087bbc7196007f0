"""One side of a merge request: the reports and predictions of a git revision, or of the working tree.

What DVC tracks is read by its hash in that revision's ``dvc.lock``, from the cache or from the remote; nothing is
checked out.
"""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from upkeep.core import paths
from upkeep.core.errors import UpkeepError
from upkeep.gitlab.git import git

Report = Mapping[str, Any]

DAMAGED = "run `dvc repro`, then `dvc push`"

REPORTS = {
    "metrics": paths.METRICS,
    "evaluation": paths.EVALUATION / "evaluation.json",
    "drift": paths.DRIFT / "drift.json",
    "quality": paths.DATA_QUALITY,
    "manifest": paths.MANIFEST,
}


@dataclass(frozen=True)
class Snapshot:
    """What the gate and the note are made from.

    Attributes
    ----------
    name
        Of the revision, as a reader knows it.
    params
        ``params.yaml`` as it stands there.
    metrics, evaluation, drift, quality, manifest
        The reports; empty if they are missing.
    predictions
        By plant.
    missing
        What could not be read, and why, by file.
    """

    name: str
    params: Report = field(default_factory=dict)
    metrics: Report = field(default_factory=dict)
    evaluation: Report = field(default_factory=dict)
    drift: Report = field(default_factory=dict)
    quality: Report = field(default_factory=dict)
    manifest: Report = field(default_factory=dict)
    predictions: Mapping[str, pl.DataFrame] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)

    @property
    def plants(self) -> set[str]:
        """The plants whose models were judged."""
        return set(self.evaluation.get("plants", {}))

    @property
    def raw_plants(self) -> set[str]:
        """The plants that have telemetry in ``data/raw``."""
        return {file["plant"] for file in self.manifest.get("files", []) if file["table"] == "telemetry"}


def read_revision(revision: str, name: str) -> Snapshot | None:
    """Return the snapshot of a git revision; None if its pipeline has never run.

    Raises
    ------
    UpkeepError
        If git does not know the revision.
    """
    try:  # DVC takes a revision that git does not know for an empty one, which would pass for a first run
        commit = git("rev-parse", "--verify", "--end-of-options", f"{revision}^{{commit}}")
    except UpkeepError as error:
        raise UpkeepError(
            f"git knows no revision {revision}",
            expected="a branch, tag or commit of this repository",
            remedy="name another one; `git branch --all` lists the branches",
        ) from error
    return _read(_open_tree(commit), name) if _has_history(commit) else None


def read_working_tree() -> Snapshot:
    """Return the snapshot of the working tree; what it lacks is looked up by its hash in ``dvc.lock``."""
    return _read(_open_tree(None), "this branch")


def _open_tree(commit: str | None) -> Any:
    """Return DVC's view of a commit, or of the working tree: an fsspec file system of git's files and DVC's."""
    from dvc.api import DVCFileSystem  # takes a second, and most commands need none of it

    return DVCFileSystem(".", rev=commit)


def _has_history(commit: str) -> bool:
    if not git("ls-tree", "--name-only", commit, "dvc.lock"):
        return False
    try:
        lock = yaml.safe_load(git("show", f"{commit}:./dvc.lock"))
        stages = lock.get("stages", {}).values()
        return any(out["path"] == paths.METRICS.as_posix() for stage in stages for out in stage.get("outs", []))
    except (yaml.YAMLError, AttributeError, LookupError, TypeError):  # a lock that cannot be read is no first run
        return True


def _read(tree: Any, name: str) -> Snapshot:
    missing: dict[str, str] = {}
    params = _read_params(tree, missing)
    reports = {report: _read_json(tree, path, missing) for report, path in REPORTS.items()}
    plants = reports["evaluation"].get("plants", {})
    files = {plant: _read_file(tree, paths.PREDICTIONS / f"{plant}.parquet", missing) for plant in plants}
    predictions: dict[str, pl.DataFrame] = {}
    for plant, content in files.items():
        try:
            if content:
                predictions[plant] = pl.read_parquet(io.BytesIO(content)).cast({"probability": pl.Float64})
        except pl.exceptions.PolarsError:
            missing[(paths.PREDICTIONS / f"{plant}.parquet").as_posix()] = "it is no Parquet; " + DAMAGED
    return Snapshot(name, params, **reports, predictions=predictions, missing=missing)


def _read_params(tree: Any, missing: dict[str, str]) -> dict[str, Any]:
    try:
        content = yaml.safe_load(_read_file(tree, paths.PARAMS, missing)) or {}
    except yaml.YAMLError as error:
        content = error
    if isinstance(content, dict):
        return content
    missing[paths.PARAMS.as_posix()] = "it is not what upkeep reads; mend it there first"
    return {}


def _read_json(tree: Any, path: Path, missing: dict[str, str]) -> dict[str, Any]:
    try:
        content = json.loads(_read_file(tree, path, missing) or "{}")
    except ValueError:
        content = None
    if isinstance(content, dict):
        return content
    missing[path.as_posix()] = "it is no JSON object; " + DAMAGED
    return {}


def _read_file(tree: Any, path: Path, missing: dict[str, str]) -> bytes:
    try:
        content: bytes = tree.read_bytes(path.as_posix())
    except FileNotFoundError:
        missing[path.as_posix()] = "neither git nor DVC's remote has it; run `dvc repro`, then `dvc push`"
    except Exception as error:  # a remote fails in as many ways as there are kinds of remote; all mean no report
        missing[path.as_posix()] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    else:
        return content
    return b""
