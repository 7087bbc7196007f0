"""The source ``files`` and a DVC remote on a real S3 server, SeaweedFS."""

import os
import shutil
import signal
import subprocess
import time
from datetime import date, timedelta
from pathlib import Path

import pytest
import yaml
from seaweed import BIN, KEY, SECRET, Server, require_seaweed

ROOT = Path(__file__).parents[2]
WRONG = "wrong-horse-battery"
FIRST, WEEKS = date(2025, 1, 6), 30


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    require_seaweed()
    server = Server(tmp_path_factory.mktemp("seaweedfs"))
    server.start()
    server.files().mkdir("plants")
    for week in range(WEEKS):
        rows = [f"m1,{FIRST + timedelta(days=7 * week + day)}T08:00:00Z,{week}.5" for day in range(7)]
        server.files().pipe(f"plants/telemetry/lyon/{week:02}.csv", "\n".join(["machine,time,load", *rows]).encode())
    yield server
    server.kill()


@pytest.fixture
def environment():
    """What a user sets before a fetch or a push."""
    keys = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "S3_SECRET": SECRET}
    return {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", **keys}


@pytest.fixture
def checkout(server, tmp_path):
    """A folder whose params.yaml names the telemetry on the server."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    storage = {"key": KEY, "secret": "$S3_SECRET", "client_kwargs": {"endpoint_url": server.url}}
    telemetry = {"path": "s3://plants/telemetry/{plant}/*.csv", "storage_options": storage}
    until = str(FIRST + timedelta(weeks=WEEKS - 1))
    params["fetch"] |= {"source": "files", "until": until, "options": {"telemetry": telemetry}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    return tmp_path


def run(*command: str, folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_fetch_reads_files_from_s3(checkout, environment):
    fetched = run("upkeep", "fetch", folder=checkout, environment=environment)
    assert fetched.returncode == 0, fetched.stderr
    assert len(list(checkout.glob("data/raw/telemetry/lyon/*.parquet"))) == WEEKS
    assert SECRET not in (checkout / "data/raw/manifest.json").read_text()


def test_a_wrong_key_is_told_without_the_key_and_without_a_traceback(checkout, environment):
    refused = run("upkeep", "fetch", folder=checkout, environment={**environment, "S3_SECRET": WRONG})
    assert refused.returncode == 1
    assert "s3://plants/telemetry/{plant}/*.csv cannot be read" in refused.stderr
    assert "check the path, the network, the rights and storage_options" in refused.stderr
    assert "Traceback" not in refused.stderr + refused.stdout
    assert WRONG not in refused.stderr + refused.stdout


def test_a_server_that_dies_under_way_is_told_and_a_later_fetch_ends_with_the_same_bytes(
    server, checkout, environment, tmp_path_factory
):
    undisturbed = tmp_path_factory.mktemp("undisturbed")
    shutil.copy(checkout / "params.yaml", undisturbed)
    assert run("upkeep", "fetch", folder=undisturbed, environment=environment).returncode == 0
    with (checkout / "log").open("w") as log:
        fetching = subprocess.Popen(["upkeep", "fetch"], cwd=checkout, env=environment, stdout=log, stderr=log)
        while not list(checkout.glob("data/raw/telemetry/lyon/*.parquet")) and fetching.poll() is None:
            time.sleep(0.001)
        # Held still, the fetch cannot finish before the server is gone.
        fetching.send_signal(signal.SIGSTOP)
        server.kill()
        fetching.send_signal(signal.SIGCONT)
        assert fetching.wait(timeout=120) == 1
    told = (checkout / "log").read_text()
    assert "cannot be read" in told
    assert "plant=lyon" in told
    assert "Traceback" not in told
    assert SECRET not in told
    assert len(list(checkout.glob("data/raw/telemetry/lyon/*.parquet"))) < WEEKS
    server.start()
    again = run("upkeep", "fetch", folder=checkout, environment=environment)
    assert again.returncode == 0, again.stderr
    assert contents(checkout / "data") == contents(undisturbed / "data")


def test_data_goes_to_an_s3_remote_and_comes_back_in_a_clone(server, environment, tmp_path):
    one, clone = tmp_path / "one", tmp_path / "clone"
    one.mkdir()
    (one / "data.csv").write_text("machine,load\nm1,1.5\n")
    commit = "git -c user.name=tester -c user.email=tester@example.com commit --quiet --message data"
    for step in (
        "git init --quiet",
        "dvc init --quiet",
        "dvc remote add -d s3 s3://plants/upkeep",
        f"dvc remote modify s3 endpointurl {server.url}",
        "dvc add --quiet data.csv",
        "dvc push",
        "git add .",
        commit,
        f"git clone --quiet . {clone}",
    ):
        done = run(*step.split(), folder=one, environment=environment)
        assert done.returncode == 0, f"{step}: {done.stderr}"
    assert SECRET not in (one / ".dvc/config").read_text()
    pulled = run("dvc", "pull", folder=clone, environment=environment)
    assert pulled.returncode == 0, pulled.stderr
    assert (clone / "data.csv").read_text() == "machine,load\nm1,1.5\n"
    (clone / "data.csv").write_text("machine,load\nm1,2.5\n")
    assert run("dvc", "add", "data.csv", folder=clone, environment=environment).returncode == 0
    refused = run("dvc", "push", folder=clone, environment={**environment, "AWS_SECRET_ACCESS_KEY": WRONG})
    assert refused.returncode != 0
    assert WRONG not in refused.stdout + refused.stderr
