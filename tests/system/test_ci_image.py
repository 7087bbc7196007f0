"""The image that jobs of Docker runners start from, built as docs/gitlab.md says."""

import subprocess
import tarfile
from pathlib import Path

import components
import pytest

BASE = "docker.io/library/python:3.11-bookworm"
CLIENT = "docker.io/library/docker:29-cli"
PROGRAMS = ("usr/local/bin/docker", "usr/local/libexec/docker/cli-plugins/docker-buildx")
TAG = "upkeep-ci:test"


@pytest.fixture(scope="module")
def ci_image(engine, tmp_path_factory) -> str:
    components.add_python_image(engine, BASE, "git", "make", "openssh-client")
    archive = tmp_path_factory.mktemp("client") / "client.tar"
    with tarfile.open(archive, "w") as packed:
        # Debian's client in the places of the hub's; it has no plugin, and none is called.
        for name in PROGRAMS:
            packed.add(components.DOCKER, name)
    engine.docker("import", archive, CLIENT)
    secrets = [("pip.conf", "/etc/pip.conf"), ("ca.crt", "/etc/ssl/certs/ca-certificates.crt")]
    given = [f"--secret=id={name},src={file}" for name, file in secrets if Path(file).exists()]
    command = ["build", "--quiet", "--network=host", *given, "--file", "ci/Dockerfile", "--tag", TAG, "."]
    done = subprocess.run(
        [components.DOCKER, *command],
        cwd=components.ROOT,
        env=engine.environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return TAG


def test_a_job_is_ready_at_once_without_any_network(engine, ci_image, tmp_path):
    components.clone(tmp_path / "upkeep")
    job = ". ci/environment.sh && upkeep fresh && dvc --version && git --version && ssh -V"
    options = ["--rm", "--network=none", "--env=UPKEEP_VENV=/opt/upkeep/.venv", "--env=GIT_CONFIG_COUNT=1"]
    options += ["--env=GIT_CONFIG_KEY_0=safe.directory", "--env=GIT_CONFIG_VALUE_0=*"]
    options += [f"--volume={tmp_path}/upkeep:/builds/upkeep", "--workdir=/builds/upkeep"]
    said = engine.docker("run", *options, ci_image, "sh", "-ec", job)
    assert "nothing to do: dvc.lock belongs to this code" in said


def test_a_job_reaches_the_runners_engine(engine, ci_image):
    socket = engine.socket.removeprefix("unix://")
    options = ["--rm", "--network=none", f"--volume={socket}:/var/run/docker.sock"]
    said = engine.docker("run", *options, ci_image, "docker", "version", "--format", "{{.Server.Version}}")
    assert said == engine.docker("version", "--format", "{{.Server.Version}}")


def test_no_configuration_of_the_build_is_left_in_the_image(engine, ci_image):
    left = engine.docker("run", "--rm", "--network=none", ci_image, "sh", "-c", "cat /etc/pip.conf 2>/dev/null || true")
    assert left == ""
