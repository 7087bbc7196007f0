"""Real components on one machine, without an image hub: engines, base images, a registry, a server over SSH."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from itertools import count
from pathlib import Path
from typing import NamedTuple

import pytest

from upkeep.core.files import locked

ROOT = Path(__file__).parents[2]
MODELS = ("models/plants", "models/golden")
# Debian's client: another one, without BuildKit, may come first on PATH.
DOCKER = "/usr/bin/docker"
PYTHON_IMAGE = "docker.io/library/python:3.11-slim-bookworm"
WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
PORTS = count(10_000 + WORKER * 1000 + os.getpid() % 900)  # for each worker others
PROXY_IMAGE = "haproxy:bookworm"
"""Debian's HAProxy, in place of the hub's image that deploy/lib.sh names."""


class Engine(NamedTuple):
    """A Docker engine of the tests' own."""

    socket: str

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "DOCKER_HOST": self.socket, "DOCKER_BUILDKIT": "1", "UPKEEP_ENGINE": DOCKER}

    def docker(self, *arguments: str | Path, stdin: str | None = None) -> str:
        """Run the client and return what it prints, without the last line's end."""
        command = [DOCKER, *map(str, arguments)]
        done = subprocess.run(
            command, env=self.environment, input=stdin, capture_output=True, text=True, check=False, timeout=300
        )
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
        return done.stdout.rstrip("\n")


class Server(NamedTuple):
    """A customer's server: where SSH finds it, and the home of who logs in."""

    host: str
    port: int
    key: Path
    known_hosts: Path
    home: Path
    engine: Engine

    @property
    def variables(self) -> dict[str, str]:
        """What deploy/ship.sh reads."""
        return {
            "DEPLOY_HOST": self.host,
            "DEPLOY_PORT": str(self.port),
            "DEPLOY_KEY": str(self.key),
            "DEPLOY_KNOWN_HOSTS": str(self.known_hosts),
        }


def need(**packages: str) -> None:
    """Skip where a program is missing; `packages` are Debian's, by program."""
    if os.geteuid() != 0:
        pytest.skip("needs root: container engine, images and SSH server are started from nothing")
    search = os.pathsep.join(["/usr/sbin", "/sbin", os.environ["PATH"]])
    missing = {package for program, package in packages.items() if not shutil.which(program, path=search)}
    if missing:
        pytest.skip(f"needs Debian's {', '.join(sorted(missing))}: apt-get install {' '.join(sorted(missing))}")


def free_port() -> int:
    """Return a port that nothing listens on, and never the same; connections have theirs from 32,768 on."""
    return next(port for port in PORTS if not listens(port))


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def running(command: Sequence[str | Path], log: Path, ready: Callable[[], bool]) -> Iterator[None]:
    """Run a server until it is no longer needed."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
    try:
        until = time.monotonic() + 180  # where other tests have the processor, too
        while not ready():
            if process.poll() is not None or time.monotonic() > until:
                pytest.fail(f"{command[0]} did not start:\n{log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def short_folder() -> Iterator[Path]:
    """Make a folder whose path is short enough for the sockets in it, which pytest's own is not."""
    folder = Path(tempfile.mkdtemp(prefix="upkeep-"))
    try:
        yield folder
    finally:
        # An engine's folder holds a hundred thousand files: on some disks they take a minute, which nobody need wait.
        subprocess.Popen(["rm", "-rf", folder], start_new_session=True)


@contextmanager
def bridge() -> Iterator[str]:
    """Make a network of our own, lest two engines on one machine give out the same addresses.

    Its name is its number, and a name is given once: tests that run side by side never get one number, and what a
    killed run has left is passed over.
    """
    names = ((number, f"upkeep{number}") for number in range(1, 255))
    number, name = next(made for made in names if _done("ip", "link", "add", made[1], "type", "bridge"))
    try:
        subprocess.run(["ip", "address", "add", f"10.213.{number}.1/24", "dev", name], check=True)
        yield name
    finally:
        subprocess.run(["ip", "link", "delete", name], check=True)


def _done(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@contextmanager
def start_engine() -> Iterator[Engine]:
    need(dockerd="docker.io", ip="iproute2")
    with short_folder() as folder, bridge() as network:
        engine = Engine(f"unix://{folder}/socket")
        command = ["dockerd", "--data-root", folder / "data", "--exec-root", folder / "exec", "-H", engine.socket]
        command += ["--pidfile", folder / "pid", "--bridge", network, "--storage-driver", "overlay2"]
        command += ["--iptables=false", "--ip-masq=false", "--ip-forward=false"]
        try:
            with running(command, folder / "log", lambda: _done(DOCKER, "--host", engine.socket, "version")):
                yield engine
                containers = engine.docker("ps", "-aq").split()
                if containers:
                    engine.docker("rm", "--force", "--volumes", *containers)
        finally:
            # The engine leaves the host's network mounted once a container has used it.
            subprocess.run(["umount", "--quiet", folder / "exec/netns/default"], check=False)


def add_python_image(engine: Engine, name: str = PYTHON_IMAGE, *more: str) -> None:
    """Give the engine what our images are built on: Debian's Python, and more of its packages, under an official name.

    Parameters
    ----------
    more
        Debian's packages, which the official image has beside Python.
    """
    links = 'cd "$1/usr/local/bin" && ln -s /usr/bin/python3 python && ln -s /usr/bin/pip3 pip'
    managed = 'rm -f "$1"/usr/lib/python3*/EXTERNALLY-MANAGED'
    packages = ",".join(["ca-certificates,libgomp1,netbase,python3,python3-pip,python3-venv,tzdata", *more])
    engine.docker("import", _root_file_system("-".join(["python", *more]), packages, links, managed), name)


def add_proxy_image(engine: Engine) -> None:
    """Give the engine an image of HAProxy."""
    engine.docker("import", _root_file_system("haproxy", "haproxy"), PROXY_IMAGE)


def _root_file_system(name: str, packages: str, *hooks: str) -> Path:
    """Return a Debian root file system as an archive, made from the machine's own sources once a day."""
    need(mmdebstrap="mmdebstrap")
    folder = Path(tempfile.gettempdir()) / f"upkeep-images-{date.today():%Y%m%d}"
    folder.mkdir(mode=0o700, exist_ok=True)
    assert folder.stat().st_uid == os.geteuid(), f"{folder} belongs to someone else"
    for old in set(folder.parent.glob("upkeep-images-*")) - {folder}:
        shutil.rmtree(old, ignore_errors=True)  # another run may be at it
    archive = folder / f"{name}.tar"
    with locked(archive.with_suffix(".lock")):
        if not archive.exists():
            part = archive.with_suffix(".part")
            command = ["mmdebstrap", "--quiet", "--format=tar", "--variant=minbase", f"--include={packages}"]
            command += [*(f"--customize-hook={hook}" for hook in hooks), "bookworm", part]
            subprocess.run(command, check=True, timeout=300)
            part.rename(archive)
    return archive


@contextmanager
def start_registry() -> Iterator[str]:
    """Start an image registry and yield its address, which any engine takes without TLS, being on 127.0.0.1."""
    need(**{"docker-registry": "docker-registry"})
    with short_folder() as folder:
        address = f"127.0.0.1:{(port := free_port())}"
        settings = folder / "settings.yml"
        storage = f"storage: {{filesystem: {{rootdirectory: {folder / 'images'}}}, delete: {{enabled: true}}}}"
        settings.write_text(f"version: 0.1\n{storage}\nhttp: {{addr: '{address}'}}\n")
        with running(["docker-registry", "serve", settings], folder / "log", lambda: listens(port)):
            yield address


@contextmanager
def start_server(engine: Engine) -> Iterator[Server]:
    """Start an SSH server with a pinned key, whose sessions see `engine` and a home of their own."""
    need(sshd="openssh-server", **{"ssh-keygen": "openssh-client"})
    with short_folder() as folder:
        for name in ("host", "client"):
            make_key(folder / name)
        home = folder / "home"
        home.mkdir()
        Path("/run/sshd").mkdir(exist_ok=True)  # sshd insists on it, and does not make it
        port = free_port()
        (folder / "settings").write_text(
            f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nPidFile none\nUsePAM no\n"
            f"AuthorizedKeysFile {folder}/client.pub\nStrictModes no\nPasswordAuthentication no\n"
            f"SetEnv HOME={home} DOCKER_HOST={engine.socket} PATH={Path(DOCKER).parent}:/usr/sbin:/usr/bin:/sbin:/bin\n"
        )
        pin = f"[127.0.0.1]:{port} {(folder / 'host.pub').read_text()}"
        (folder / "known_hosts").write_text(pin)
        command = [shutil.which("sshd", path="/usr/sbin:/usr/bin"), "-D", "-e", "-f", folder / "settings"]
        with running(command, folder / "log", lambda: listens(port)):
            yield Server("root@127.0.0.1", port, folder / "client", folder / "known_hosts", home, engine)


def make_key(file: Path) -> None:
    """Write an SSH key and, beside it, its public half."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", file], check=True)


def clone(folder: Path) -> None:
    """Clone HEAD and put the working tree's own files over it."""
    subprocess.run(["git", "clone", "--quiet", ROOT, folder], check=True)
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0"):
        source, copy = ROOT / name, folder / name
        if source.is_file():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, copy)
        elif not source.exists():
            copy.unlink()


def build(engine: Engine, checkout: Path, tag: str, *options: str) -> None:
    """Build the service's image as a user does."""
    command = [checkout / "deploy/build.sh", tag, "--quiet", *options]
    done = subprocess.run(command, env=engine.environment, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
