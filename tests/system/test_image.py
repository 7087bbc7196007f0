"""The service's image, built by a real engine: what is in it, what it may do, and that the same files make it again."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from components import MODELS, PYTHON_IMAGE, Engine, build, clone, free_port

BIN = Path(sys.executable).parent
HARDENED = ("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")  # noqa: S108


@pytest.fixture(scope="module")
def container(engine: Engine, image: str) -> Iterator[str]:
    """The image as the deployment runs it, but asked for its health each second."""
    name = engine.docker("run", "-d", *HARDENED, "--volume", "/var/lib/upkeep", "--health-interval", "1s", image)
    smoke = "until python -m upkeep smoke; do sleep 0.2; done"
    engine.docker("exec", name, "timeout", "30", "sh", "-c", smoke)
    yield name
    engine.docker("rm", "--force", "--volumes", name)


def shell(engine: Engine, container: str, command: str) -> str:
    return engine.docker("exec", container, "sh", "-c", command)


def layers(engine: Engine, image: str) -> list[str]:
    return json.loads(engine.docker("inspect", "-f", "{{json .RootFS.Layers}}", image))


def test_it_gives_the_golden_answers(engine, container):
    assert "are as training stored them" in engine.docker("exec", container, "python", "-m", "upkeep", "smoke")


def test_its_own_health_check_finds_it_healthy(engine, container):
    until = time.monotonic() + 20
    while (found := engine.docker("inspect", "-f", "{{.State.Health.Status}}", container)) == "starting":
        assert time.monotonic() < until
        time.sleep(0.1)
    assert found == "healthy"


def test_it_runs_as_nobody_in_particular_and_writes_to_its_volume_only(engine, container):
    assert shell(engine, container, "id -u; id -g").split() == ["10001", "10001"]
    tried = "for folder in / /app /app/models /opt/venv /var/lib/upkeep; do touch $folder/x && echo $folder; done; true"
    assert shell(engine, container, tried) == "/var/lib/upkeep"


def test_its_labels_say_which_commit_lock_and_models_it_holds(engine, image, checkout, container):
    labels = json.loads(engine.docker("inspect", "-f", "{{json .Config.Labels}}", image))
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=checkout, check=True, capture_output=True, text=True)
    assert labels["org.opencontainers.image.revision"].removesuffix("-dirty") == commit.stdout.strip()
    assert labels["upkeep.dvc-lock"] == hashlib.sha256((checkout / "dvc.lock").read_bytes()).hexdigest()
    asked = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:8000/version').read().decode())"
    version = json.loads(engine.docker("exec", container, "python", "-c", asked))
    assert version["release"] == labels["org.opencontainers.image.revision"]
    assert labels["upkeep.models"] == ",".join(f"{plant}={models}" for plant, models in version["models"].items())


def test_it_holds_what_serving_needs_and_no_more(engine, container):
    packages = shell(engine, container, "ls /opt/venv/lib/python3.11/site-packages").split()
    assert {"lightgbm", "polars", "uvicorn"} <= set(packages)
    assert not {"mlflow", "evidently", "dvc", "sklearn", "pandas", "pip", "pytest"} & set(packages)
    assert shell(engine, container, "find /app -type f | cut -d/ -f3 | sort -u").split() == ["data", "models", "src"]


def test_nothing_of_the_builds_secrets_stays(engine, image):
    look = "ls /etc/pip.conf /run/secrets 2>/dev/null; sha256sum /etc/ssl/certs/ca-certificates.crt"
    found = [engine.docker("run", "--rm", name, "sh", "-c", look) for name in (image, PYTHON_IMAGE)]
    assert found[0] == found[1]


def test_it_ends_in_order_when_told_to(engine, image):
    name = engine.docker("run", "-d", *HARDENED, image)
    engine.docker("exec", name, "timeout", "30", "sh", "-c", "until python -m upkeep smoke; do sleep 0.2; done")
    engine.docker("stop", "--time", "20", name)
    assert engine.docker("inspect", "-f", "{{.State.ExitCode}}", name) == "0"
    engine.docker("rm", "--volumes", name)


def test_the_same_files_make_the_same_layers_whoever_checked_them_out(engine, image, checkout, tmp_path):
    other = tmp_path / "elsewhere"
    clone(other)
    for name in MODELS:
        shutil.copytree(checkout / name, other / name)
    for path in (*(other / "src").rglob("*"), *(other / "models").rglob("*")):
        path.chmod(0o700 if path.is_dir() else 0o600)
        os.utime(path, (1, 1))
    build(engine, other, "upkeep:other", "--no-cache")
    assert layers(engine, "upkeep:other") == layers(engine, image)


def test_a_log_on_s3_needs_the_image_with_its_client(engine, image, checkout):
    build(engine, checkout, "upkeep:s3", "--build-arg", "LOCK=requirements-serving-s3.lock")
    start = ("run", "--rm", "--env", "UPKEEP_LOG_URL=s3://bucket/log")
    with pytest.raises(AssertionError, match=r"error: UPKEEP_LOG_URL is 's3://bucket/log': .* UPKEEP_EXTRAS=s3"):
        engine.docker(*start, image)
    assert engine.docker(*start, "upkeep:s3", "python", "-c", "import s3fs; print(s3fs.S3FileSystem().protocol)")


def test_a_change_of_code_makes_one_other_layer(engine, image, checkout, tmp_path):
    changed = tmp_path / "changed"
    shutil.copytree(checkout, changed)
    with (changed / "src/upkeep/__main__.py").open("a") as file:
        file.write("# changed\n")
    build(engine, changed, "upkeep:changed")
    assert len(set(layers(engine, "upkeep:changed")) - set(layers(engine, image))) == 1


def test_its_bill_of_materials_lists_the_locked_packages(engine, image, checkout, tmp_path):
    bill = tmp_path / "sbom.json"
    subprocess.run(
        [BIN / "syft", "--quiet", f"docker:{image}", "--output", f"cyclonedx-json={bill}"],
        env=engine.environment,
        check=True,
    )
    listed = {(item["name"], item.get("version")) for item in json.loads(bill.read_text())["components"]}
    lock = (checkout / "requirements-serving.lock").read_text()
    locked = {
        tuple(line.split(" ")[0].split("=="))
        for line in lock.splitlines()
        if line[:1].isalpha() and "win32'" not in line
    }
    assert locked - listed == set()


def test_compose_brings_it_up_on_a_laptop(engine, image, checkout):
    port = free_port()
    compose = [BIN / "docker-compose", "--file", checkout / "deploy/compose.yaml"]
    variables = {**engine.environment, "UPKEEP_IMAGE": image, "UPKEEP_LAPTOP_PORT": str(port)}
    subprocess.run([*compose, "up", "--detach", "--no-build"], env=variables, check=True, capture_output=True)
    try:
        smoke = f"until {BIN}/upkeep smoke --url http://127.0.0.1:{port}; do sleep 0.2; done"
        asked = subprocess.run(["timeout", "30", "sh", "-c", smoke], cwd=checkout, capture_output=True, text=True)
        assert "are as training stored them" in asked.stdout, asked.stderr
    finally:
        subprocess.run([*compose, "down", "--volumes"], env=variables, check=True, capture_output=True)
