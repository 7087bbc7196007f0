"""The service against ``mlflow models serve``: speed, start, memory, and what has to be installed.

Same model, same load, one worker each, each with the packages of its own image. The service gets 48 hours of telemetry
and the events of a machine, and logs its predictions; the peer gets the features that come of them, ready made.
"""

import json
import shutil
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from bench import environments, mlflow_model, servers
from bench.measuring import ROOT, Row, median_by_key
from bench.servers import CONNECTIONS, Figures, Server
from upkeep.core import paths
from upkeep.core.types import Floats32
from upkeep.model.scoring import load_scorer
from upkeep.scoring.prediction_log import read_parts

PLANT, CASE = "porto", 1
ROUNDS = 5
WARM_SECONDS, LOAD_SECONDS = 2, 8


def measure() -> list[Row]:
    """Return medians of interleaved rounds; each starts a server, asks it, loads it and weighs it."""
    if shutil.which("wrk") is None:
        return [
            Row("service, requests/s", None, "requests/s", target="ratio >= 6", note="wrk is missing: apt install wrk")
        ]
    with TemporaryDirectory() as name:
        folder = Path(name)
        service, peer, sizes = _set_up(folder)
        runs: dict[str, list[Figures]] = {"service": [], "peer": []}
        for _ in range(ROUNDS):
            for side, server in (("service", service), ("peer", peer)):
                runs[side].append(_run(server, folder))
    failed = {side: sum(int(run["failed"]) for run in of_side) for side, of_side in runs.items()}
    return _rows(median_by_key(runs["service"]), median_by_key(runs["peer"]), failed, sizes)


def _rows(ours: Figures, peer: Figures, failed: dict[str, int], sizes: tuple[float, float]) -> list[Row]:
    load = (
        f"medians of {ROUNDS} interleaved rounds of {LOAD_SECONDS} s, wrk -t1 -c{CONNECTIONS}, one worker each; peer: "
        f"`mlflow models serve` on features ready made; requests that failed: {failed['service']} and {failed['peer']}"
    )
    start = f"medians of {ROUNDS}, from the command to the first answer of /invocations, files in the page cache"
    memory = "after the load, shared pages divided among those that share them"
    command = f"{memory}; the peer's command stays beside its worker, as it does in MLflow's own image"
    image = (
        "files of a virtual environment without pip, sources and models; peer: the packages that `mlflow models "
        "build-docker` installs on its Python base, without the nginx and the cache of pip that its image holds too"
    )
    return [
        Row("service, one machine of 48 h", ours["rate"], "requests/s", peer["rate"], "ratio >= 6", load),
        Row("service, time to answer, p50", ours["p50"], "ms", peer["p50"]),
        Row("service, time to answer, p99", ours["p99"], "ms", peer["p99"], "ratio <= 0.2"),
        Row("service, start to first answer", ours["start"], "s", peer["start"], "ratio <= 0.1667", start),
        Row("service, start to first answer, alone", ours["start"], "s", target="ours <= 2"),
        Row("memory of one worker", ours["worker"], "MB", peer["worker"], "ratio <= 0.55", memory),
        Row("memory of all processes of a server", ours["server"], "MB", peer["server"], note=command),
        Row("image beyond its base", sizes[0], "MB", sizes[1], "ratio <= 0.4", image),
    ]


def _set_up(folder: Path) -> tuple[Server, Server, tuple[float, float]]:
    """Return both servers, each of which has answered once, and their sizes in MB."""
    case = json.loads((ROOT / paths.GOLDEN / f"{PLANT}.json").read_text(encoding="utf-8"))[CASE]
    packages = environments.install_service()
    service = servers.service(packages, folder, json.dumps(case["request"]).encode())
    with servers.running(service, folder):
        pass
    features = _read_features(folder)
    scorer, model = load_scorer(ROOT / paths.MODELS / PLANT), folder / "model"
    mlflow_model.save(scorer, features, model)
    peer_packages = environments.install_peer(model)
    peer = servers.peer(peer_packages, model, json.dumps(mlflow_model.to_request(scorer, features)).encode())
    with servers.running(peer, folder):
        pass
    shipped = [ROOT / "src/upkeep", ROOT / paths.MODELS, ROOT / paths.GOLDEN]
    return service, peer, (environments.megabytes(packages, *shipped), environments.megabytes(peer_packages, model))


def _read_features(folder: Path) -> Floats32:
    """Return the features of the only prediction in the log, shape (1, n_features)."""
    ((_, logged),) = read_parts(servers.log_url(folder), date.min, set())
    return np.array(logged["features"].to_list(), dtype=np.float32)  # null becomes NaN


def _run(server: Server, folder: Path) -> Figures:
    with servers.running(server, folder) as process:
        servers.load(server, process, folder, WARM_SECONDS)
        figures = servers.load(server, process, folder, LOAD_SECONDS)
        memory = servers.proportional_megabytes(process.pid)
    # The newest process is the worker: MLflow's command starts one and waits.
    return {**figures, "start": process.seconds, "worker": memory[max(memory)], "server": sum(memory.values())}
