"""Sends runs to MLflow, or to GitLab's own pages, each once; what cannot be sent waits in a folder.

Only this module calls MLflow, by its client, since its fluent API dates a run to the moment when it is sent. GitLab
serves the same client, but ignores filters, accepts only short parameters and has no folders for files.
"""

import logging
import os
import re
import shutil
import sqlite3
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit
from urllib.request import url2pathname

from upkeep.core.errors import UpkeepError
from upkeep.core.objects import read_object
from upkeep.core.paths import MODELS
from upkeep.core.secrets import mask_environment, mask_values
from upkeep.core.types import Frozen
from upkeep.reporting.experiments import Figures, Run, flatten, name_param

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as MlflowRun
    from mlflow.store.entities import PagedList

DATABASE = Path("mlflow.db")
LOCAL_ARTIFACTS = "mlartifacts"
SQLITE = "sqlite:///"
GITLAB = re.compile(r"https?://.+/api/v4/projects/[^/]+/ml/mlflow/?")

KEY, COMPLETE = "upkeep.run", "upkeep.complete"  # tags: which run this is, and that all has arrived, set last

RELEASE = "upkeep.release"  # tag of a version in the registry, which MLflow numbers by itself

RELOCATE_RUNS = "UPDATE runs SET artifact_uri = replace(artifact_uri, ?, ?)"
RELOCATE_EXPERIMENTS = "UPDATE experiments SET artifact_location = ? WHERE artifact_location = ?"

DRAFT = ".draft-"  # what a folder's name starts with while it is being filled

ANSWER_SECONDS = 10  # for which MLflow waits for an answer, without a retry, unless the user has set its variables

LONGEST_PARAM, LONGEST_GITLAB_PARAM, LONGEST_TAG = 6000, 250, 5000  # characters; MLflow, and GitLab, refuse more


class KeptRun(Frozen):
    """A run that waits to be sent, with the date and the commit of the code when it was first made."""

    key: str
    date: str
    commit: str
    content: Run


def keep_run(pending: Path, run: KeptRun, artifacts: Iterable[Path]) -> None:
    """Keep a run until it is sent, with copies of its files, which the next run will overwrite.

    Only one process at a time may work on the folder `pending`, which the caller ensures. `artifacts` are relative
    paths of files and folders; those that do not exist are left out.
    """
    for left_by_a_killed_process in pending.glob(f"{DRAFT}*"):
        shutil.rmtree(left_by_a_killed_process)
    folder = pending / run.key
    if folder.exists():
        return
    pending.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=pending, prefix=DRAFT) as building:
        draft = Path(building) / folder.name
        for path in artifacts:
            target = draft / "artifacts" / path
            target.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():
                shutil.copytree(path, target)
            elif path.exists():
                shutil.copy(path, target)
        (draft / "run.json").write_text(run.model_dump_json(), encoding="utf-8")
        draft.rename(folder)


def send_pending(pending: Path, uri: str) -> list[str]:
    """Send all waiting runs, oldest first, and return a warning for each problem, without credentials.

    No failure of MLflow or its server is an error: a run that could not be sent completely waits for the next call.
    """
    waiting, warnings = dict[Path, KeptRun](), list[str]()
    for file in pending.glob("[!.]*/run.json"):
        try:
            waiting[file.parent] = read_object(KeptRun, file, what="what is kept of it", remedy="delete its folder")
        except UpkeepError as error:
            warnings.append(f"run {file.parent.name} kept in {pending}, not sent: {error.what}; {error.remedy}")
    if not waiting:
        return warnings
    try:
        if uri.startswith(SQLITE):
            _prepare_database(Path(uri.removeprefix(SQLITE)), pending)
        client = connect(uri)
    except Exception as error:  # whatever is wrong with a tracking server, it must not cost a trained model
        found = summarize(error, uri)
        return [*warnings, f"{len(waiting)} run(s) kept in {pending}, to be sent by the next `upkeep record`: {found}"]
    for folder, run in sorted(waiting.items(), key=lambda kept: kept[1].date):
        try:
            _send_run(client, run, folder / "artifacts", uri)
            shutil.rmtree(folder)
        except Exception as error:  # as above
            warnings.append(f"run {folder.name} kept in {pending}, not sent: {summarize(error, uri)}")
    return warnings


def mirror_release(uri: str, model: str, version: str, stage: str, facts: Mapping[str, str], key: str) -> str:
    """Make a release a version of `model` in the server's registry, with the stage as its alias.

    `key` is that of the run which made it. Returns a warning, without credentials, if that fails: the truth is in git.
    GitLab's registry knows no aliases, and its pages show the tags themselves.
    """
    if GITLAB.fullmatch(uri):
        return ""
    try:
        client = connect(uri)
        found = client.search_model_versions(f"name = '{model}' and tags.`{RELEASE}` = '{version}'")
        number = found[0].version if found else _register_version(client, model, {RELEASE: version, **facts}, key)
        client.set_registered_model_alias(model, stage, str(number))
    except Exception as error:  # as above
        return f"{version} is not {stage} in MLflow's registry: {summarize(error, uri)}"
    return ""


def _register_version(client: "MlflowClient", model: str, tags: dict[str, str], key: str) -> str:
    """Make a version of a model, which may be its first, from the run that made it if that has been sent."""
    if not client.search_registered_models(f"name = '{model}'"):
        client.create_registered_model(model)
    experiment = client.get_experiment_by_name(model)
    runs = _find_sent(client, experiment.experiment_id, key) if experiment else []
    run = next((run.info.run_id for run in runs if COMPLETE in run.data.tags), None)  # not one of its plants'
    source = f"runs:/{run}/{MODELS.as_posix()}" if run else f"git:{tags['commit']}"
    return str(client.create_model_version(model, source, run, tags, await_creation_for=0).version)


def connect(uri: str) -> "MlflowClient":
    """Return a client of a server that has answered, or raise what MLflow raises."""
    os.environ |= {
        "DO_NOT_TRACK": "true",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # the address may hold a password
    }
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(ANSWER_SECONDS))
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    # Importing MLflow takes two seconds; a run that is only put aside should not have to wait for it.
    from mlflow import MlflowClient

    logging.getLogger("mlflow").setLevel(logging.CRITICAL)
    logging.getLogger("alembic").setLevel(logging.CRITICAL)
    client = MlflowClient(uri)
    client.get_experiment_by_name("upkeep")
    return client


def _prepare_database(file: Path, pending: Path) -> None:
    """Update a database that was moved, or make one in a draft, since MLflow cannot resume where it was killed."""
    if file.exists():
        follow_checkout(file)
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=pending, prefix=DRAFT) as building:
        draft = Path(building).resolve() / file.name
        connect(f"{SQLITE}{draft}")
        shutil.move(draft, file)


def _send_run(client: "MlflowClient", run: KeptRun, artifacts: Path, uri: str) -> None:
    content = run.content
    experiment = _find_experiment(client, content.model["name"], uri)
    known = _find_sent(client, experiment, run.key)
    if any(COMPLETE in found.data.tags for found in known):
        return
    for half_sent in known:
        client.delete_run(half_sent.info.run_id)
    start = int(datetime.fromisoformat(run.date).timestamp() * 1000)
    note = content.description[:LONGEST_TAG]
    tags = {KEY: run.key, "mlflow.source.git.commit": run.commit, "mlflow.note.content": note}
    parent = client.create_run(experiment, start, tags, run_name=run.key).info.run_id
    overall = {split: groups.overall for split, groups in content.metrics.items()}
    _log_run(client, parent, flatten(content.parameters), overall, uri)
    for plant in sorted({plant for groups in content.metrics.values() for plant in groups.plants}):
        tags = {KEY: run.key, "mlflow.parentRunId": parent}
        child = client.create_run(experiment, start, tags, run_name=plant).info.run_id
        own = {split: groups.plants.get(plant, {}) for split, groups in content.metrics.items()}
        _log_run(client, child, {"plant": plant, **content.model["plants"].get(plant, {})}, own, uri)
        client.set_terminated(child, end_time=start)
    _log_files(client, parent, artifacts, uri)
    client.set_terminated(parent, end_time=start)
    client.set_tag(parent, COMPLETE, "true")


def _find_sent(client: "MlflowClient", experiment: str, key: str) -> list["MlflowRun"]:
    from mlflow.utils import get_results_from_paginated_fn

    def search(most: int, token: str | None) -> "PagedList[MlflowRun]":
        return client.search_runs([experiment], f"tags.`{KEY}` = '{key}'", max_results=most, page_token=token)

    runs = get_results_from_paginated_fn(search, 1000)
    return [run for run in runs if run.data.tags.get(KEY) == key]  # GitLab sends them all


def _log_files(client: "MlflowClient", run_id: str, folder: Path, uri: str) -> None:
    if not GITLAB.fullmatch(uri):
        client.log_artifacts(run_id, str(folder))
        return
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=DRAFT) as flat:
        for file in folder.rglob("*"):
            if file.is_file():
                name = quote(file.relative_to(folder).as_posix()).replace("/", "+").replace("%", "+")
                shutil.copy(file, Path(flat) / name)
        client.log_artifacts(run_id, flat)  # all at once: once there is a file, GitLab gives an address that only reads


def _find_experiment(client: "MlflowClient", name: str, uri: str) -> str:
    known = client.get_experiment_by_name(name)
    if known is None:
        folder = (Path(uri.removeprefix(SQLITE)).parent if uri.startswith(SQLITE) else Path()) / LOCAL_ARTIFACTS
        local = None if urlsplit(uri).scheme.startswith("http") else folder.resolve().as_uri()
        return str(client.create_experiment(name, local))
    if known.lifecycle_stage == "deleted":
        remedy = f"MLFLOW_TRACKING_URI={uri} mlflow experiments restore --experiment-id {known.experiment_id}"
        raise ValueError(
            f"the experiment {name} was deleted there; type `{remedy}`, or set record.experiment to another"
        )
    return str(known.experiment_id)


def follow_checkout(database: Path = DATABASE) -> None:
    """Correct the paths in a database that was moved or copied with its files, since MLflow stores them absolute."""
    here = database.resolve().parent / LOCAL_ARTIFACTS
    with closing(sqlite3.connect(database)) as connection, connection:
        for (stored,) in connection.execute("SELECT DISTINCT artifact_location FROM experiments").fetchall():
            there = Path(url2pathname(urlsplit(stored).path))
            if there.name == LOCAL_ARTIFACTS and there != here and (here.is_dir() or not there.is_dir()):
                connection.execute(RELOCATE_RUNS, (f"{stored}/", f"{here.as_uri()}/"))
                connection.execute(RELOCATE_EXPERIMENTS, (here.as_uri(), stored))


def _log_run(
    client: "MlflowClient", run_id: str, params: Mapping[str, Any], metrics: Mapping[str, Figures], uri: str
) -> None:
    """Log parameters, and metrics with their split before each name."""
    from mlflow.entities import Metric, Param

    longest = LONGEST_GITLAB_PARAM if GITLAB.fullmatch(uri) else LONGEST_PARAM
    texts = [Param(name_param(name), str(value)[:longest]) for name, value in params.items()]
    figures = [
        Metric(f"{split}_{name}", float(value), 0, 0)
        for split, own in metrics.items()
        for name, value in own.items()
        if value is not None
    ]
    client.log_batch(run_id, metrics=figures, params=texts)


def summarize(error: Exception, uri: str) -> str:
    """Return the error's first line without the credentials that it or the address may repeat."""
    text = f"{uri}: {type(error).__name__}: {str(error).partition(chr(10))[0]}"
    return mask_environment(mask_values(text, urlsplit(uri).password), os.environ)[:400]
