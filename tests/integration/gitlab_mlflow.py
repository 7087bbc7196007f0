"""A stand-in for the MLflow interface that GitLab offers, since GitLab itself is too large to run beside the tests.

It keeps to GitLab's source (lib/api/ml/mlflow, app/services/ml): runs are searched in one experiment, page by page,
whatever the filter says; parameters have 250 characters at most and a tag is set once; a run that is deleted is gone;
files lie in no folders, and once there is one, the run's address of files is for reading only.
"""

import json
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from threading import Thread
from urllib.parse import parse_qs, urlsplit

TOKEN = "glpat-stand-in"  # of nobody
PROJECT = "/api/v4/projects/7"
MLFLOW = f"{PROJECT}/ml/mlflow/api/2.0/mlflow/"
FILES = re.compile(rf"{PROJECT}/packages/ml_models/candidate:(\d+)/files/([A-Za-z0-9_.+-]+)")
LONGEST = {"params": 250, "tags": 5000}
STATES = {"RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED"}


class RefusalError(Exception):
    """An answer other than success."""

    def __init__(self, status: int, **answer: str) -> None:
        super().__init__(status)
        self.status, self.answer = status, answer


MISSING = RefusalError(404, error_code="RESOURCE_DOES_NOT_EXIST")


class GitLab(ThreadingHTTPServer):
    """One project, in memory: experiments by name, and runs by id, whose files are content by name."""

    def __init__(self, page: int = 1000) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.page = page
        self.experiments: dict[str, dict] = {}
        self.runs: dict[str, dict] = {}
        self.files: dict[str, dict[str, bytes]] = {}
        self.iids = count(1)
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.uri = f"{self.address}{PROJECT}/ml/mlflow"

    def answer(self, method: str, call: str, asked: dict) -> dict:
        calls = {
            ("GET", "experiments/get-by-name"): self.get_experiment,
            ("POST", "experiments/create"): self.create_experiment,
            ("POST", "runs/create"): self.create_run,
            ("GET", "runs/get"): lambda asked: {"run": self.show(self.find(asked))},
            ("POST", "runs/search"): self.search_runs,
            ("POST", "runs/update"): self.update_run,
            ("POST", "runs/log-batch"): self.log_batch,
            ("POST", "runs/set-tag"): self.set_tag,
            ("POST", "runs/delete"): lambda asked: self.runs.pop(self.find(asked)["eid"]) and {},
        }
        if (method, call) not in calls:
            raise RefusalError(404, error="404 Not Found")
        return calls[method, call](asked)

    def get_experiment(self, asked: dict) -> dict:
        if asked["experiment_name"] not in self.experiments:
            raise MISSING
        return {"experiment": self.experiments[asked["experiment_name"]]}

    def create_experiment(self, asked: dict) -> dict:
        if asked["name"] in self.experiments:
            raise RefusalError(400, error_code="RESOURCE_ALREADY_EXISTS")
        iid = str(len(self.experiments) + 1)
        shown = {"experiment_id": iid, "name": asked["name"], "lifecycle_stage": "active"}
        self.experiments[asked["name"]] = {**shown, "artifact_location": "not_implemented", "tags": []}
        return {"experiment_id": iid}

    def create_run(self, asked: dict) -> dict:
        eid = str(uuid.uuid4())
        kept = {"eid": eid, "iid": next(self.iids), "experiment": int(asked["experiment_id"]), "status": "RUNNING"}
        self.runs[eid] = {**kept, "name": asked["run_name"], "metrics": [], "params": {}, "tags": {}}
        self.log_batch({"run_id": eid, "tags": asked.get("tags", [])})
        return {"run": self.show(self.runs[eid])}

    def search_runs(self, asked: dict) -> dict:
        (experiment,) = asked["experiment_ids"]
        own = [run for run in reversed(self.runs.values()) if run["experiment"] == int(experiment)]
        start, size = int(asked.get("page_token") or 0), min(asked.get("max_results", 200), self.page)
        following = str(start + size) if start + size < len(own) else None
        return {"runs": [self.show(run) for run in own[start : start + size]], "next_page_token": following}

    def update_run(self, asked: dict) -> dict:
        if asked["status"] not in STATES:
            raise RefusalError(400, error="status does not have a valid value")
        run = self.find(asked)
        run["status"] = asked["status"]
        return {"run_info": self.show(run)["info"]}

    def log_batch(self, asked: dict) -> dict:
        run = self.find(asked)
        for kind, longest in LONGEST.items():
            if any(len(each["value"]) > longest or len(each["key"]) > 250 for each in asked.get(kind, [])):
                raise RefusalError(400, error_code="INVALID_PARAMETER_VALUE", message="PG::CheckViolation")
            run[kind] = {each["key"]: each["value"] for each in asked.get(kind, [])} | run[kind]
        run["metrics"] += asked.get("metrics", [])
        return {}

    def set_tag(self, asked: dict) -> dict:
        if asked["key"] in self.find(asked)["tags"]:
            raise RefusalError(400, error="400 Bad request")
        return self.log_batch({"run_id": asked["run_id"], "tags": [asked]})

    def find(self, asked: dict) -> dict:
        if asked["run_id"] not in self.runs:
            raise MISSING
        return self.runs[asked["run_id"]]

    def show(self, run: dict) -> dict:
        folder = f"candidate:{run['iid']}"
        files = f"{self.address}{PROJECT}/packages/ml_models/{folder}/files/"
        info = {
            "run_id": run["eid"],
            "run_uuid": run["eid"],
            "experiment_id": str(run["experiment"]),
            "run_name": run["name"],
            "status": run["status"],
            "artifact_uri": f"mlflow-artifacts:/{folder}" if str(run["iid"]) in self.files else files,
            "lifecycle_stage": "active",
        }
        pairs = {kind: [{"key": key, "value": value} for key, value in run[kind].items()] for kind in LONGEST}
        return {"info": info, "data": {"metrics": run["metrics"], **pairs}}


class Handler(BaseHTTPRequestHandler):
    """Reads requests as Grape does: parameters come from the address or from JSON."""

    server: GitLab

    def handle_request(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        address = urlsplit(self.path)
        try:
            if self.headers.get("authorization") != f"Bearer {TOKEN}":
                raise RefusalError(401, message="401 Unauthorized")
            if upload := FILES.fullmatch(address.path):
                self.server.files.setdefault(upload[1], {})[upload[2]] = body
                status, answer = 201, {"message": "201 Created"}
            elif address.path.startswith(MLFLOW):
                asked = json.loads(body or b"{}") | {
                    name: values[0] for name, values in parse_qs(address.query).items()
                }
                status, answer = 200, self.server.answer(self.command, address.path.removeprefix(MLFLOW), asked)
            else:
                raise RefusalError(404, error="404 Not Found")
        except RefusalError as refusal:
            status, answer = refusal.status, refusal.answer
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = handle_request  # noqa: N815  # http.server's names

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def serving_gitlab(page: int = 1000) -> Iterator[GitLab]:
    with GitLab(page) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()
