"""Runs sent to MLflow, each once; what cannot be sent waits in a folder. MLflow is called only here."""

import json
import logging
import os
import shutil
import socket
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from upkeep.core.secrets import mask_credentials

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

DEFAULT_URI = "sqlite:///mlflow.db"
LOCAL_ARTIFACTS = "mlartifacts"
SQLITE = "sqlite:///"

KEY, COMPLETE = "upkeep.run", "upkeep.complete"
"""Tags: which run this is, and that all of it has arrived; the second is set last."""

DRAFT = ".draft-"
"""What a folder's name starts with while it is being filled."""

REACH_SECONDS = 4
SEND_SECONDS = 60
MOST_PARAMS, MOST_METRICS, LONGEST_PARAM = 100, 1000, 6000
"""What MLflow takes in one request."""


def keep_run(pending: Path, run: Mapping[str, Any], artifacts: Iterable[Path]) -> None:
    """Put a run aside until it is sent, with copies of its files, which the next run will overwrite.

    Only one process at a time may work on `pending`; the caller sees to that.

    Parameters
    ----------
    pending
        Folder of the runs that wait.
    run
        ``key``, ``date``, ``commit`` and ``content``.
    artifacts
        Relative paths of files and folders; those that do not exist are left out.
    """
    for left_by_a_killed_process in pending.glob(f"{DRAFT}*"):
        shutil.rmtree(left_by_a_killed_process)
    folder = pending / str(run["key"])
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
        (draft / "run.json").write_text(json.dumps(run), encoding="utf-8")
        draft.rename(folder)


def send_pending(pending: Path, uri: str) -> list[str]:
    """Send all runs that wait, oldest first, and return one warning for each problem, without credentials.

    Nothing that MLflow or its server does is an error: a run that could not be sent completely waits for the next call.
    """
    waiting = [folder for folder in pending.glob("*") if (folder / "run.json").is_file()]
    if not waiting:
        return []
    try:
        with _waits(REACH_SECONDS, retries=0):
            client = _connect(uri, pending)
    except Exception as error:  # whatever is wrong with a tracking server, it must not cost a trained model
        found = _summary(error, uri)
        return [f"{len(waiting)} run(s) kept in {pending}, to be sent by the next `upkeep record`: {found}"]
    warnings = []
    for folder in sorted(waiting, key=lambda folder: json.loads((folder / "run.json").read_text())["date"]):
        try:
            with _waits(SEND_SECONDS, retries=1):
                _send(client, folder, uri)
            shutil.rmtree(folder)
        except Exception as error:  # as above
            warnings.append(f"run {folder.name} kept in {pending}, not sent: {_summary(error, uri)}")
    return warnings


def _connect(uri: str, pending: Path) -> "MlflowClient":
    """Return a client of a server that has answered."""
    address = urlsplit(uri)
    if address.hostname and not address.scheme.startswith("http"):
        # MLflow would try a database ten times over a minute and a half.
        default_port = {"mysql": 3306, "mssql": 1433}.get(address.scheme.partition("+")[0], 5432)
        socket.create_connection((address.hostname, address.port or default_port), REACH_SECONDS).close()
    os.environ |= {
        "DO_NOT_TRACK": "true",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # the address may hold a password
    }
    # Importing MLflow takes two seconds; a run that is only put aside should not have to wait for it.
    from mlflow import MlflowClient

    logging.getLogger("mlflow").setLevel(logging.CRITICAL)
    logging.getLogger("alembic").setLevel(logging.CRITICAL)
    if uri.startswith(SQLITE):
        _create_database(Path(uri.removeprefix(SQLITE)), pending)
    client = MlflowClient(uri)
    client.search_experiments(max_results=1)
    return client


def _create_database(file: Path, pending: Path) -> None:
    """Let MLflow create its tables elsewhere and move them to `file`: it cannot resume where it was killed."""
    from mlflow import MlflowClient

    if file.exists():
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=pending, prefix=DRAFT) as building:
        draft = Path(building).resolve() / file.name
        MlflowClient(f"{SQLITE}{draft}").search_experiments(max_results=1)
        shutil.move(draft, file)


def _send(client: "MlflowClient", folder: Path, uri: str) -> None:
    run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    content = run["content"]
    experiment = _experiment(client, content["model"]["name"], uri)
    known: list[Run] = list(client.search_runs([experiment], f"tags.`{KEY}` = '{run['key']}'"))
    if any(COMPLETE in found.data.tags for found in known):
        return
    for half_sent in known:
        client.delete_run(half_sent.info.run_id)
    start = int(datetime.fromisoformat(run["date"]).timestamp() * 1000)
    tags = {KEY: run["key"], "mlflow.source.git.commit": run["commit"], "mlflow.note.content": content["description"]}
    parent = client.create_run(experiment, start, tags, run_name=run["key"]).info.run_id
    _log(client, parent, _flat(content["parameters"]), _metrics(content, "overall"))
    for plant in sorted({plant for split in content["metrics"].values() for plant in split["plants"]}):
        child_tags = {KEY: run["key"], "mlflow.parentRunId": parent}
        child = client.create_run(experiment, start, child_tags, run_name=plant).info.run_id
        facts = {"plant": plant, **content["model"]["plants"].get(plant, {})}
        _log(client, child, facts, _metrics(content, "plants", plant))
        client.set_terminated(child, end_time=start)
    if (folder / "artifacts").is_dir():
        client.log_artifacts(parent, str(folder / "artifacts"))
    client.set_terminated(parent, end_time=start)
    client.set_tag(parent, COMPLETE, "true")


def _experiment(client: "MlflowClient", name: str, uri: str) -> str:
    known = client.get_experiment_by_name(name)
    if known is not None:
        return str(known.experiment_id)
    local = None if urlsplit(uri).scheme.startswith("http") else Path(LOCAL_ARTIFACTS).resolve().as_uri()
    return str(client.create_experiment(name, local))


def _metrics(content: Mapping[str, Any], *group: str) -> dict[str, float]:
    """Return the figures of one group, such as ``"plants", "lyon"``, with the split before each name."""
    found: dict[str, float] = {}
    for split, figures in content["metrics"].items():
        for name in group:
            figures = figures.get(name, {})
        found |= {f"{split}_{name}": float(value) for name, value in figures.items() if value is not None}
    return found


def _log(client: "MlflowClient", run_id: str, params: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
    from mlflow.entities import Metric, Param

    texts = [Param(name, str(value)[:LONGEST_PARAM]) for name, value in params.items()]
    figures = [Metric(name, value, 0, 0) for name, value in metrics.items()]
    for start in range(0, len(texts), MOST_PARAMS):
        client.log_batch(run_id, params=texts[start : start + MOST_PARAMS])
    for start in range(0, len(figures), MOST_METRICS):
        client.log_batch(run_id, metrics=figures[start : start + MOST_METRICS])


def _flat(params: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in params.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat


@contextmanager
def _waits(seconds: int, retries: int) -> Iterator[None]:
    """Bound how long MLflow waits for an answer and how often it asks again, unless the user has said so."""
    ours = {"MLFLOW_HTTP_REQUEST_TIMEOUT": str(seconds), "MLFLOW_HTTP_REQUEST_MAX_RETRIES": str(retries)}
    added = {name: value for name, value in ours.items() if name not in os.environ}
    os.environ |= added
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


def _summary(error: Exception, uri: str) -> str:
    """Return the error's first line without the credentials that it or the address may repeat."""
    text = f"{mask_credentials(uri)}: {type(error).__name__}: {str(error).partition(chr(10))[0]}"
    secrets = [urlsplit(uri).password, *(os.environ.get(f"MLFLOW_TRACKING_{name}") for name in ("PASSWORD", "TOKEN"))]
    for secret in filter(None, secrets):
        text = text.replace(secret, "***")
    return mask_credentials(text)[:400]
