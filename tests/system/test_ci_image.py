"""The image that jobs of Docker runners start from, built as docs/gitlab.md says."""

import re
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import components
import pytest
from pip._internal.models.index import PyPI

BASE = "docker.io/library/python:3.11-bookworm"
CLIENT = "docker.io/library/docker:29-cli"
PROGRAMS = ("usr/local/bin/docker", "usr/local/libexec/docker/cli-plugins/docker-buildx")
TAG = "upkeep-ci:test"
PUBLIC = PyPI.url.removesuffix("/")
GUIDE = (components.ROOT / "docs/gitlab.md").read_text(encoding="utf-8")


class Index(BaseHTTPRequestHandler):
    """A package index of one's own: it has what the public one has, and writes down what it was asked for."""

    def do_GET(self) -> None:
        self.server.asked.add(self.path)
        self.send_response(302)
        self.send_header("Location", PUBLIC + self.path)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def index() -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Index) as server:
        server.asked = set()
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(scope="module")
def ci_image(engine, index, tmp_path_factory) -> str:
    """The image, built by the command of docs/gitlab.md with an index that only the secret names."""
    components.add_python_image(engine, BASE, "git", "make", "openssh-client")
    folder = tmp_path_factory.mktemp("client")
    archive = folder / "client.tar"
    with tarfile.open(archive, "w") as packed:
        # Debian's client in the places of the hub's; it has no plugin, and none is called.
        for name in PROGRAMS:
            packed.add(components.DOCKER, name)
    engine.docker("import", archive, CLIENT)
    configuration = folder / "pip.conf"
    configuration.write_text(f"[global]\nindex-url = http://127.0.0.1:{index.server_port}/simple\n")
    documented = re.search(r"^docker (build --file ci/Dockerfile.*?)\n```", GUIDE, re.MULTILINE | re.DOTALL)
    words = documented[1].replace("\\\n", " ").split()
    given = {
        "registry.example.com/team/upkeep-ci": TAG,
        "id=pip.conf,src=/etc/pip.conf": f"id=pip.conf,src={configuration}",
    }
    given |= {"BASE=registry.example.com/python:3.11-bookworm": f"BASE={BASE}"}
    given |= {"DOCKER=registry.example.com/docker:29-cli": f"DOCKER={CLIENT}"}
    assert given.keys() <= set(words)
    command = [components.DOCKER, *(given.get(word, word) for word in words), "--quiet", "--network=host"]
    done = subprocess.run(
        command,
        cwd=components.ROOT,
        env=engine.environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return TAG


@pytest.mark.usefixtures("ci_image")
def test_every_package_comes_by_the_index_that_the_secret_names(index):
    locked = re.findall(r"^([a-z0-9.-]+)==\S+ \\$", (components.ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert {"/simple/uv/", "/simple/polars/", "/simple/lightgbm/"} <= index.asked
    assert len(index.asked) > len(locked) / 2  # some are for other systems or Pythons


def test_a_job_is_ready_at_once_without_any_network(engine, ci_image, tmp_path):
    components.clone(tmp_path / "upkeep")
    job = ". ci/environment.sh && upkeep fresh && dvc --version && git --version && ssh -V"
    options = ["--rm", "--network=none", "--env=UPKEEP_VENV=/opt/upkeep/.venv", "--env=GIT_CONFIG_COUNT=1"]
    options += ["--env=GIT_CONFIG_KEY_0=safe.directory", "--env=GIT_CONFIG_VALUE_0=*", "--env=PYTHON=3.11"]
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
