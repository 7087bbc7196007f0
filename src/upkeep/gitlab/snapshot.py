"""One side of a merge request: the reports and predictions of a git revision, or of the working tree.

What DVC tracks is read by its hash in that revision's ``dvc.lock``, from the cache or from the remote; nothing is
checked out.
"""

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import polars as pl
import yaml
from pydantic import TypeAdapter

from upkeep.core import paths
from upkeep.core.errors import UpkeepError
from upkeep.core.plants import table_file
from upkeep.gitlab.git import git
from upkeep.judging.reports import FILES, Evaluation, GroupReport, parse_report

Report = Mapping[str, Any]
Content = TypeVar("Content")
MAPPING = TypeAdapter(dict[str, Any])

DAMAGED = "run `dvc repro`, then `dvc push`"

REPORTS = {
    "metrics": paths.METRICS,
    "drift": paths.DRIFT / "drift.json",
    "quality": paths.DATA_QUALITY,
    "manifest": paths.MANIFEST,
}


@dataclass(frozen=True)
class Snapshot:
    """What the gate and the note are made from; a report that is missing is empty.

    `name` is the revision's, as a reader knows it, `predictions` are by plant, and `missing` says by file why it could
    not be read.
    """

    name: str
    params: Report = field(default_factory=dict)
    metrics: Report = field(default_factory=dict)
    evaluation: Evaluation | None = None
    drift: Report = field(default_factory=dict)
    quality: Report = field(default_factory=dict)
    manifest: Report = field(default_factory=dict)
    predictions: Mapping[str, pl.DataFrame] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)

    @property
    def judged(self) -> Mapping[str, GroupReport]:
        """The plants whose models were judged, and how."""
        return self.evaluation.plants if self.evaluation else {}

    @property
    def plants(self) -> set[str]:
        """Their names."""
        return set(self.judged)

    @property
    def raw_plants(self) -> set[str]:
        """The plants that have telemetry in ``data/raw``."""
        return {file["plant"] for file in self.manifest.get("files", []) if file["table"] == "telemetry"}


def read_revision(revision: str, name: str) -> Snapshot | None:
    """Return the snapshot of a git revision, which git must know; None if its pipeline has never run."""
    try:  # DVC takes a revision that git does not know for an empty one, which would pass for a first run
        commit = git("rev-parse", "--verify", "--end-of-options", f"{revision}^{{commit}}")
    except UpkeepError as error:
        raise UpkeepError(
            f"git knows no revision {revision}",
            remedy="name another one; `git branch --all` lists the branches",
        ) from error
    return _read_snapshot(_Tree(commit), name) if _has_history(commit) else None


def read_working_tree() -> Snapshot:
    """Return the snapshot of the working tree; what it lacks is looked up by its hash in ``dvc.lock``."""
    return _read_snapshot(_Tree(None), "this branch")


def _has_history(commit: str) -> bool:
    if not git("ls-tree", "--name-only", commit, "dvc.lock"):
        return False
    try:
        lock = yaml.safe_load(git("show", f"{commit}:./dvc.lock"))
        stages = lock.get("stages", {}).values()
        return any(out["path"] == paths.METRICS.as_posix() for stage in stages for out in stage.get("outs", []))
    except (yaml.YAMLError, AttributeError, LookupError, TypeError):  # a lock that cannot be read is no first run
        return True


class _Tree:
    """Git's files and DVC's of a commit, or of the working tree; what cannot be read is noted in `missing`."""

    def __init__(self, commit: str | None) -> None:
        from dvc.api import DVCFileSystem  # takes a second, and most commands need none of it

        self._files = DVCFileSystem(".", rev=commit)
        self.missing: dict[str, str] = {}

    def read(self, path: Path, parse: Callable[[bytes], Content], damaged: str) -> Content | None:
        """Return a file's content, or None and note why; `damaged` says so of one that cannot be parsed."""
        try:
            content = self._files.read_bytes(path.as_posix())
        except FileNotFoundError:
            reason = "neither git nor DVC's remote has it; run `dvc repro`, then `dvc push`"
        except Exception as error:  # a remote fails in as many ways as there are kinds of remote; all mean no report
            reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        else:
            try:
                return parse(content)
            except (ValueError, UpkeepError, yaml.YAMLError, pl.exceptions.PolarsError):
                reason = damaged
        self.missing[path.as_posix()] = reason
        return None

    def read_report(self, path: Path) -> Report:
        return self.read(path, MAPPING.validate_json, f"it is no JSON object; {DAMAGED}") or {}


def _read_snapshot(tree: _Tree, name: str) -> Snapshot:
    params = tree.read(paths.PARAMS, _parse_yaml, "it is not what upkeep reads; mend it there first")
    reports = {report: tree.read_report(path) for report, path in REPORTS.items()}
    evaluation = tree.read(FILES[Evaluation], _parse_evaluation, f"it is not what `evaluate` writes; {DAMAGED}")
    predictions = {
        plant: tree.read(table_file(paths.PREDICTIONS, plant), _parse_parquet, f"it is no Parquet; {DAMAGED}")
        for plant in (evaluation.plants if evaluation else ())
    }
    return Snapshot(
        name,
        params or {},
        **reports,
        evaluation=evaluation,
        predictions={plant: rows for plant, rows in predictions.items() if rows is not None},
        missing=tree.missing,
    )


def _parse_evaluation(content: bytes) -> Evaluation:
    return parse_report(Evaluation, json.loads(content))


def _parse_yaml(content: bytes) -> dict[str, Any]:
    return MAPPING.validate_python(yaml.safe_load(content) or {})


def _parse_parquet(content: bytes) -> pl.DataFrame:
    return pl.read_parquet(io.BytesIO(content)).cast({"probability": pl.Float64})
