"""The files in deploy/cluster are what the Dask operator and Compose take, and start what the engine needs."""

import re

import pytest
import yaml
from conftest import ROOT
from jsonschema import Draft202012Validator

from upkeep.core.params import Parallel

FOLDER = ROOT / "deploy/cluster"
CLUSTER = yaml.safe_load((FOLDER / "kubernetes.yaml").read_text(encoding="utf-8"))
SERVICES = yaml.safe_load((FOLDER / "compose.yaml").read_text(encoding="utf-8"))["services"]


def mapping(needed: str, **properties: object) -> dict:
    """Return the schema of an object without other properties: the API server drops what it does not know."""
    return {"type": "object", "properties": properties, "required": needed.split(), "additionalProperties": False}


def listed(item: dict) -> dict:
    return {"type": "array", "items": item, "minItems": 1}


TEXT, NUMBER = {"type": "string"}, {"type": "integer"}
TEXTS = {"type": "object", "additionalProperties": TEXT}
PORT = {"name": TEXT, "protocol": {"enum": ["TCP", "UDP", "SCTP"]}}
POD = mapping(
    "containers",
    securityContext=mapping("", runAsUser=NUMBER, runAsGroup=NUMBER, runAsNonRoot={"type": "boolean"}),
    volumes=listed(mapping("name", name=TEXT, persistentVolumeClaim=mapping("claimName", claimName=TEXT))),
    containers=listed(
        mapping(
            "name",
            name=TEXT,
            image=TEXT,
            args=listed(TEXT),
            env=listed(mapping("name", name=TEXT, value=TEXT)),
            volumeMounts=listed(mapping("name mountPath", name=TEXT, mountPath=TEXT)),
            ports=listed(mapping("containerPort", containerPort=NUMBER, **PORT)),
            readinessProbe=mapping("", httpGet=mapping("port", path=TEXT, port=TEXT)),
            resources=mapping("", requests=TEXTS, limits=TEXTS),
        )
    ),
)
SERVICE = mapping("", type=TEXT, selector=TEXTS, ports=listed(mapping("port", port=NUMBER, targetPort=TEXT, **PORT)))
SCHEMA = mapping(
    "apiVersion kind metadata spec",
    apiVersion={"const": "kubernetes.dask.org/v1"},
    kind={"const": "DaskCluster"},
    metadata=mapping("name", name={"type": "string", "pattern": r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"}),
    spec=mapping(
        "scheduler worker",
        scheduler=mapping("spec service", spec=POD, service=SERVICE),
        worker=mapping("spec", replicas=NUMBER, spec=POD),
    ),
)
"""What the operator's definition of a DaskCluster says of all that the manifest has."""


def container(part: str) -> dict:
    [found] = CLUSTER["spec"][part]["spec"]["containers"]
    return found


def test_the_manifest_keeps_to_the_operators_schema():
    assert [error.message for error in Draft202012Validator(SCHEMA).iter_errors(CLUSTER)] == []


@pytest.mark.parametrize("part", ["scheduler", "worker"])
def test_the_operator_finds_each_container_by_its_name(part):
    assert container(part)["name"] == part


def test_the_service_leads_to_the_scheduler_at_the_ports_that_the_operator_calls():
    service = CLUSTER["spec"]["scheduler"]["service"]
    name = CLUSTER["metadata"]["name"]
    assert service["selector"] == {"dask.org/cluster-name": name, "dask.org/component": "scheduler"}
    opened = {port["name"]: port["containerPort"] for port in container("scheduler")["ports"]}
    assert {port["targetPort"]: port["port"] for port in service["ports"]} == opened
    assert opened == {"tcp-comm": 8786, "http-dashboard": 8787}


def test_a_worker_bears_the_name_by_which_the_operator_ends_it():
    arguments = container("worker")["args"]
    assert arguments[arguments.index("--name") + 1] == "$(DASK_WORKER_NAME)"


@pytest.mark.parametrize("command", [container("worker")["args"], SERVICES["worker"]["command"]])
def test_a_worker_has_one_thread_as_the_engine_demands(command):
    assert command[command.index("--nthreads") + 1] == "1"


@pytest.mark.parametrize(
    "environment",
    [
        {entry["name"]: entry["value"] for entry in container("worker")["env"]},
        SERVICES["worker"]["environment"],
        SERVICES["scheduler"]["environment"],
    ],
)
def test_packages_are_the_images_and_the_code_that_of_the_mounted_checkout(environment):
    assert environment["PYTHONPATH"].endswith("/src")
    assert environment["DASK_DISTRIBUTED__SCHEDULER__WORKER_SATURATION"] == "1.0"
    assert environment["DASK_DISTRIBUTED__WORKER__MEMORY__PAUSE"] == "False"


def test_nobody_but_this_machine_reaches_the_scheduler_of_the_compose_file():
    assert [port.split(":")[0] for port in SERVICES["scheduler"]["ports"]] == ["127.0.0.1"]
    assert "ports" not in SERVICES["worker"]


def test_the_address_in_the_compose_files_head_is_one_that_the_parameters_take():
    [address] = re.findall(r"parallel\.address: (tcp://[^;]+);", (FOLDER / "compose.yaml").read_text(encoding="utf-8"))
    assert Parallel(backend="dask", jobs=1, address=address).address == "tcp://127.0.0.1:8786"
