"""The reports and predictions of a git revision, or of the working tree: one side of a merge request.

Files tracked by DVC are read by the hash in that revision's ``dvc.lock``, from the cache or the remote; nothing is
checked out. A branch may hold anything, so files are bounded in size, and links out of the repository are refused.
"""

import contextlib
import io
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import polars as pl
import yaml
from pydantic import BaseModel

from upkeep.core import paths
from upkeep.core.errors import UpkeepError
from upkeep.core.files import read_regular, write_whole
from upkeep.core.plants import name_file, table_file
from upkeep.core.yaml import parse_yaml
from upkeep.gitlab import dvc
from upkeep.gitlab.failure import PIPELINE
from upkeep.gitlab.remotes import readable_remotes
from upkeep.judging.reports import FILES, DataQuality, DriftReport, Evaluation, GroupReport, Headline
from upkeep.model.scoring import VERSION_DIGITS
from upkeep.model.storage import Metadata, checksum
from upkeep.releases import git
from upkeep.reporting.experiments import flatten
from upkeep.reporting.markdown import Markdown
from upkeep.sources.manifest import Manifest

Content = TypeVar("Content")
MAKE_AGAIN = "run `dvc repro`, then `dvc push`"

MOST_BYTES, MOST_TABLE_BYTES = 50_000_000, 1_000_000_000  # a plant's predictions usually have a thousandth of that
MOST_CELLS = 500_000_000  # of predictions: a small file may unpack to any number
CACHED = re.compile(r"/files/md5/[0-9a-f]{2}/[0-9a-f]{30}(\.dir)?\Z")  # in DVC's cache, which outputs may link to

PREDICTED = {  # the columns that predictions of any version have; newer ones also say what was prevented
    **dict.fromkeys(("plant", "machine", "split"), pl.String()),
    "time": pl.Datetime("us", "UTC"),
    **dict.fromkeys(("chosen", "alarm"), pl.Boolean()),
    "label": pl.UInt8(),
    **dict.fromkeys(("hours_to_failure", "probability"), pl.Float64()),
}

REPORTS: dict[str, tuple[Path, type[BaseModel]]] = {  # by field of a snapshot
    "metrics": (FILES[Headline], Headline),
    "evaluation": (FILES[Evaluation], Evaluation),
    "drift": (FILES[DriftReport], DriftReport),
    "quality": (FILES[DataQuality], DataQuality),
    "manifest": (paths.MANIFEST, Manifest),
}


@dataclass(frozen=True)
class Snapshot:
    """The reports of one side, each None if it is missing.

    `name` is what readers call the side; `commit` is None for the working tree; `params` are by dotted name,
    `predictions` by plant; `missing` says by file why it could not be read.
    """

    name: str
    commit: str | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    metrics: Headline | None = None
    evaluation: Evaluation | None = None
    drift: DriftReport | None = None
    quality: DataQuality | None = None
    manifest: Manifest | None = None
    predictions: Mapping[str, pl.DataFrame] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)

    @property
    def judged(self) -> Mapping[str, GroupReport]:
        """The plants whose models were judged, and how."""
        return self.evaluation.plants if self.evaluation else {}

    @property
    def raw_plants(self) -> set[str]:
        """The plants that have telemetry in ``data/raw``."""
        return {file.plant for file in self.manifest.files if file.table == "telemetry"} if self.manifest else set()


class CommitFiles:
    """Reads the files of a commit, or of the working tree (None); `missing` says by file why it could not be read."""

    def __init__(self, commit: str | None) -> None:
        from dvc.api import DVCFileSystem  # takes a second, and most commands need none of it

        self._in_tree = commit is None
        self._sources = [DVCFileSystem(".", rev=commit, remote=remote) for remote in readable_remotes()]
        self.missing: dict[str, str] = {}

    def read(self, path: Path, parse: Callable[[bytes], Content]) -> Content | None:
        """Return a file's parsed content, or None."""
        most = MOST_BYTES if path.suffix != ".parquet" else MOST_TABLE_BYTES
        try:
            content = read_own(path, most) if self._in_tree and path.exists() else self._read_first(path, most)
        except FileNotFoundError:
            why: str = Markdown(f"neither git nor DVC's remote has it; {MAKE_AGAIN}")
        except UpkeepError as error:
            why = error.what
        except Exception as error:  # each kind of remote raises its own errors
            why = f"{type(error).__name__}: {error}"
        else:
            try:
                return parse(content)
            except (ValueError, yaml.YAMLError, RecursionError, pl.exceptions.PolarsError):  # which may quote secrets
                remedy = "mend it there first" if path == paths.PARAMS else MAKE_AGAIN
                why = Markdown(f"it is not what upkeep writes or reads; {remedy}")
        self.missing[path.as_posix()] = why
        return None

    def _read_first(self, path: Path, most_bytes: int) -> bytes:
        for source in self._sources[:-1]:
            with contextlib.suppress(Exception):  # a remote that lacks a folder does not raise FileNotFoundError
                return _read_bounded(source, path, most_bytes)
        return _read_bounded(self._sources[-1], path, most_bytes)

    def read_version(self, plant: str) -> str:
        """Return the version of a plant's model, or an empty text."""
        metadata = paths.MODELS / name_file(plant) / paths.MODEL_METADATA
        return (self.read(metadata, checksum) or "")[:VERSION_DIGITS]

    def copy_model(self, plant: str, folder: Path) -> Path:
        """Copy a plant's model into a folder below `folder`; an UpkeepError if one of its files cannot be read."""
        own, copy = paths.MODELS / name_file(plant), folder / name_file(plant)
        found = self.read(own / paths.MODEL_METADATA, lambda content: (Metadata.model_validate_json(content), content))
        if found:
            texts = {name: self.read(own / name, bytes) for name in found[0].boosters}
            for name, content in {paths.MODEL_METADATA: found[1], **texts}.items():
                write_whole(copy / name, content or b"")
        if why := next((why for file, why in self.missing.items() if own in Path(file).parents), None):
            raise UpkeepError(f"its model is missing: {why}", remedy=MAKE_AGAIN, plant=plant)
        return copy


def read_revision(revision: str, name: str) -> Snapshot | None:
    """Return the snapshot of a git revision; None if its pipeline has never run."""
    try:  # to DVC an unknown revision is an empty one, which would pass for a first run
        commit = git.git("rev-parse", "--verify", "--end-of-options", f"{revision}^{{commit}}")
    except UpkeepError as error:
        remedy = "name another one; `git branch --all` lists the branches"
        raise UpkeepError(f"git knows no revision {revision}", remedy=remedy) from error
    if not git.git("ls-tree", "--name-only", commit, str(dvc.LOCK)):
        return None
    with contextlib.suppress(UpkeepError):  # a lock that cannot be read does not make this a first run
        if paths.METRICS not in dvc.outputs(paths.REPORTS, commit=commit):
            return None
    return _read_snapshot(commit, name)


def read_working_tree() -> Snapshot:
    """Return the snapshot of the working tree; missing outputs are read by their hash in ``dvc.lock``."""
    name = "this branch"
    try:  # first, since deep nesting crashes DVC's own parser
        dvc.read(PIPELINE)
        dvc.read_stages()
    except UpkeepError as error:
        return Snapshot(name, missing={str(dvc.LOCK): error.what})
    return _read_snapshot(None, name)


def _read_snapshot(commit: str | None, name: str) -> Snapshot:
    files = CommitFiles(commit)
    params = files.read(paths.PARAMS, parse_params) or {}
    reports: dict[str, Any] = {
        side: files.read(file, kind.model_validate_json) for side, (file, kind) in REPORTS.items()
    }
    plants = reports["evaluation"].plants if reports["evaluation"] else ()
    predictions = {plant: files.read(table_file(paths.PREDICTIONS, plant), parse_predictions) for plant in plants}
    found = {plant: rows for plant, rows in predictions.items() if rows is not None}
    return Snapshot(name, commit, params, **reports, predictions=found, missing=files.missing)


def read_own(file: Path, most_bytes: int = MOST_BYTES) -> bytes:
    """Return a branch's file; an UpkeepError if it is missing, too large, or a link out of the repository."""
    try:
        return read_regular(locate_own(file), most_bytes)
    except OSError as error:
        raise _unread_file(file, error.strerror or type(error).__name__) from error


def locate_own(file: Path) -> Path:
    """Resolve a branch's file; an UpkeepError if it is a link out of the repository."""
    root, found = Path.cwd().resolve(), Path(os.path.realpath(file))
    inside = found.is_relative_to(root) and ".git" not in found.relative_to(root).parts
    if not (inside or CACHED.search(found.as_posix())):
        raise _unread_file(file, "it leads out of the repository")
    return found


def _unread_file(file: Path, why: str) -> UpkeepError:
    return UpkeepError(f"{file} is not read: {why}", remedy="put a file of the branch in its place", file=file)


def parse_params(content: bytes) -> dict[str, Any]:
    """Return the parameters in ``params.yaml`` of any version, by dotted name; raises ValueError if it has none."""
    params = parse_yaml(content)
    if not (isinstance(params, dict) and isinstance(params.get("fetch", {}), dict)):
        raise ValueError("no parameters")
    return flatten(params)


def parse_predictions(content: bytes) -> pl.DataFrame:
    """Return a plant's predictions; raises ValueError or PolarsError if they cannot be compared."""
    rows = pl.scan_parquet(io.BytesIO(content))
    if rows.select(pl.len()).collect().item() * len(rows.collect_schema()) > MOST_CELLS:
        raise ValueError("too many rows")
    table = rows.with_columns(pl.col(name).cast(kind) for name, kind in PREDICTED.items()).collect()
    known = table.select(*PREDICTED).drop("hours_to_failure")
    if sum(known.null_count().row(0)) or not table["probability"].is_between(0, 1).all():
        raise ValueError("a value is missing, or no probability")
    return table


def _read_bounded(source: Any, path: Path, most_bytes: int) -> bytes:
    with source.open(path.as_posix()) as stream:
        content = bytes(stream.read(most_bytes + 1))
    if len(content) > most_bytes:
        raise _unread_file(path, f"it is larger than {most_bytes:,} bytes")
    return content
