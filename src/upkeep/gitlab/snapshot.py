"""One side of a merge request: the reports and predictions of a git revision, or of the working tree.

What DVC tracks is read by its hash in that revision's ``dvc.lock``, from the cache or from the remote; nothing is
checked out.
"""

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import polars as pl
import yaml
from pydantic import BaseModel, TypeAdapter

from upkeep.core import paths
from upkeep.core.errors import UpkeepError
from upkeep.core.plants import table_file
from upkeep.core.yaml import parse_yaml
from upkeep.gitlab.git import git
from upkeep.judging.reports import FILES, DataQuality, DriftReport, Evaluation, GroupReport, Headline, Report

Content = TypeVar("Content")
MAPPING = TypeAdapter(dict[str, Any])


class DeliveredFile(Report):
    """What is compared of one stored delivery."""

    table: str
    plant: str
    batch: str
    delivery: int
    rows: int
    sha256: str


class Delivered(Report):
    """``data/raw/manifest.json``, as far as it is compared; another version of upkeep may have written it."""

    files: tuple[DeliveredFile, ...] = ()


REPORTS: dict[str, tuple[Path, type[BaseModel]]] = {
    "metrics": (FILES[Headline], Headline),
    "evaluation": (FILES[Evaluation], Evaluation),
    "drift": (FILES[DriftReport], DriftReport),
    "quality": (FILES[DataQuality], DataQuality),
    "manifest": (paths.MANIFEST, Delivered),
}
"""By field of :class:`Snapshot`."""


@dataclass(frozen=True)
class Snapshot:
    """What the gate and the note are made from; a report that is missing is None.

    `name` is the revision's, as a reader knows it, `predictions` are by plant, and `missing` says by file why it could
    not be read.
    """

    name: str
    params: Mapping[str, Any] = field(default_factory=dict)
    metrics: Headline | None = None
    evaluation: Evaluation | None = None
    drift: DriftReport | None = None
    quality: DataQuality | None = None
    manifest: Delivered | None = None
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
        return {file.plant for file in self.manifest.files if file.table == "telemetry"} if self.manifest else set()


def read_revision(revision: str, name: str) -> Snapshot | None:
    """Return the snapshot of a git revision, which git must know; None if its pipeline has never run."""
    try:  # DVC takes a revision that git does not know for an empty one, which would pass for a first run
        commit = git("rev-parse", "--verify", "--end-of-options", f"{revision}^{{commit}}")
    except UpkeepError as error:
        raise UpkeepError(
            f"git knows no revision {revision}",
            remedy="name another one; `git branch --all` lists the branches",
        ) from error
    return _read_snapshot(commit, name) if _has_history(commit) else None


def read_working_tree() -> Snapshot:
    """Return the snapshot of the working tree; what it lacks is looked up by its hash in ``dvc.lock``."""
    return _read_snapshot(None, "this branch")


def _has_history(commit: str) -> bool:
    if not git("ls-tree", "--name-only", commit, "dvc.lock"):
        return False
    try:
        lock = parse_yaml(git("show", f"{commit}:./dvc.lock"))
        stages = lock.get("stages", {}).values()
        return any(out["path"] == paths.METRICS.as_posix() for stage in stages for out in stage.get("outs", []))
    except (yaml.YAMLError, AttributeError, LookupError, TypeError):  # a lock that cannot be read is no first run
        return True


def _read_snapshot(commit: str | None, name: str) -> Snapshot:
    from dvc.api import DVCFileSystem  # takes a second, and most commands need none of it

    files = DVCFileSystem(".", rev=commit)
    missing: dict[str, str] = {}

    def read(path: Path, parse: Callable[[bytes], Content]) -> Content | None:
        try:
            content = files.read_bytes(path.as_posix())
        except FileNotFoundError:
            missing[path.as_posix()] = "neither git nor DVC's remote has it; run `dvc repro`, then `dvc push`"
            return None
        except Exception as error:  # a remote fails in as many ways as there are kinds of remote; all mean no report
            missing[path.as_posix()] = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
            return None
        try:
            return parse(content)
        except (ValueError, yaml.YAMLError, pl.exceptions.PolarsError):
            remedy = "mend it there first" if path == paths.PARAMS else "run `dvc repro`, then `dvc push`"
            missing[path.as_posix()] = f"it is not what upkeep writes or reads; {remedy}"
            return None

    params = read(paths.PARAMS, lambda content: MAPPING.validate_python(parse_yaml(content) or {})) or {}
    reports: dict[str, Any] = {side: read(file, kind.model_validate_json) for side, (file, kind) in REPORTS.items()}
    plants = reports["evaluation"].plants if reports["evaluation"] else ()
    predictions = {plant: read(table_file(paths.PREDICTIONS, plant), _parse_parquet) for plant in plants}
    found = {plant: rows for plant, rows in predictions.items() if rows is not None}
    return Snapshot(name, params, **reports, predictions=found, missing=missing)


def _parse_parquet(content: bytes) -> pl.DataFrame:
    return pl.read_parquet(io.BytesIO(content)).cast({"probability": pl.Float64})
