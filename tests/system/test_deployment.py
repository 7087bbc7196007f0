"""Releases on a customer's server, over SSH: shipped, refused, rolled back and interrupted, always under load."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest
from components import PROXY_IMAGE, ROOT, Engine, Server, free_port, make_key
from load import Load, load_on

PARENT = "USER 0\nRUN {}\nUSER 10001:10001\n"
DAMAGED = PARENT.format("echo more >> /app/models/plants/lyon/model.txt")
WRONG = PARENT.format("""sed -i 's/"threshold": [0-9.]*/"threshold": 0.987/' /app/models/plants/lyon/model.json""")
SILENT = 'CMD ["sleep", "600"]\n'
numbers = count(1)


@dataclass
class Installation:
    """One state folder on the server, with containers and a proxy of its own."""

    server: Server
    folder: str
    port: int

    @property
    def state(self) -> Path:
        return self.server.home / self.folder

    @property
    def live(self) -> str:
        return re.search(r"^ *server (\S+)", (self.state / "proxy/haproxy.cfg").read_text(), re.MULTILINE)[1]

    @property
    def containers(self) -> dict[str, str]:
        """State by container, the proxy aside."""
        listed = ["ps", "-a", "--filter", f"label=upkeep.name={self.folder}", "--format", "{{.Names}} {{.State}}"]
        return dict(line.split() for line in self.server.engine.docker(*listed).splitlines())

    def command(self, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        environment = {**os.environ, **self.server.variables, "DEPLOY_FOLDER": self.folder, **variables}
        script = ROOT / "deploy/ship.sh"
        return subprocess.Popen(
            [script, *arguments], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def ship(self, *arguments: str, **variables: str) -> str:
        """Run a deployment command that must succeed, and return what it says."""
        process = self.command(*arguments, **variables)
        said, complained = process.communicate(timeout=120)
        assert process.returncode == 0, said + complained
        return said

    def fail_to_ship(self, *arguments: str, **variables: str) -> str:
        """Run a deployment command that must fail, and return why it says it does."""
        process = self.command(*arguments, **variables)
        said, complained = process.communicate(timeout=120)
        assert process.returncode not in (0, None), said
        return complained

    def settings(self, **settings: str | int) -> None:
        written = {"UPKEEP_PROXY_IMAGE": PROXY_IMAGE, "UPKEEP_PROXY_PORT": self.port}
        self.state.mkdir(exist_ok=True)
        lines = (f"{name}={value}\n" for name, value in {**written, **settings}.items())
        (self.state / "server.conf").write_text("".join(lines))


@pytest.fixture
def installation(server: Server) -> Iterator[Installation]:
    installation = Installation(server, f"upkeep{next(numbers)}", free_port())
    installation.settings()
    yield installation
    names = [*installation.containers, f"{installation.folder}-proxy"]
    subprocess.run(["/usr/bin/docker", "rm", "--force", *names], env=server.engine.environment, check=False)


@pytest.fixture(scope="module")
def push(engine: Engine, registry: str, image: str):
    """Return what pushes the image, with more lines to its Dockerfile, and tells its address by digest."""

    def push(more: str) -> str:
        tag = f"{registry}/upkeep:{next(numbers)}"
        engine.docker("build", "--quiet", "--tag", tag, "-", stdin=f"FROM {image}\n{more}")
        engine.docker("push", "--quiet", tag)
        return engine.docker("inspect", "-f", "{{index .RepoDigests 0}}", tag)

    return push


@pytest.fixture(scope="module")
def releases(push) -> list[str]:
    return [push(f"ENV UPKEEP_RELEASE={name}\n") for name in ("first", "second", "third", "fourth")]


@pytest.fixture
def golden(checkout: Path) -> Path:
    return checkout / "models/golden"


@pytest.fixture
def load(installation: Installation, releases, golden) -> Iterator[Load]:
    """The first release, live and busy; at the end not one request may have failed."""
    installation.ship("update", releases[0])
    with load_on(installation.port, golden) as load:
        yield load
    assert load.failed == []


def test_an_update_under_load_loses_no_request(installation, load, releases):
    first = installation.live
    said = installation.ship("update", releases[1])
    second = installation.live
    assert f"live: {second}, {releases[1]}" in said
    load.wait_for_more()
    assert first != second
    assert set(load.answered) == {first, second}
    assert installation.containers == {first: "exited", second: "running"}


@pytest.mark.usefixtures("load")
@pytest.mark.parametrize(
    ("broken", "why"),
    [
        pytest.param(DAMAGED, "the booster's SHA-256 is", id="refuses to start"),
        pytest.param(WRONG, "gave other answers than those stored at training", id="wrong answer"),
        pytest.param(SILENT, "was not healthy within 3 s", id="never healthy"),
    ],
)
def test_a_broken_image_is_refused_without_losing_a_request(installation, push, broken, why):
    first = installation.live
    if broken == SILENT:
        installation.settings(UPKEEP_HEALTH_SECONDS=3)
    complaint = installation.fail_to_ship("update", push(broken))
    assert why in complaint
    assert f"live: {first}" in complaint
    assert installation.live == first
    assert installation.containers == {first: "running"}


def test_rollbacks_under_load_lose_no_request_and_go_back_through_what_was_live(installation, load, releases):
    names = [installation.live]
    for image in releases[1:3]:
        installation.ship("update", image)
        names.append(installation.live)
    said = installation.ship("rollback")
    assert f"live: {names[1]}, {releases[1]}" in said
    installation.ship("update", releases[3])
    installation.ship("rollback")
    assert installation.live == names[1], "the release that was undone must not come back"
    installation.ship("rollback")
    assert installation.live == names[0]
    assert "no release before the live one" in installation.fail_to_ship("rollback")
    load.wait_for_more()
    assert set(names) < set(load.answered)


@pytest.mark.usefixtures("load")
def test_three_releases_are_kept_and_the_status_tells_them(installation, releases):
    for image in releases[1:]:
        installation.ship("update", image)
    digests = installation.server.engine.docker("images", "--digests", "--format", "{{.Digest}}").split()
    assert [image.split("@")[1] in digests for image in releases] == [False, True, True, True]
    assert sorted(installation.containers.values()) == ["exited", "exited", "running"]
    status = installation.ship("status")
    assert re.search(rf"^live     {installation.live}, running, {releases[3]}$", status, re.MULTILINE)
    assert re.search(r"^since    20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ, by update$", status, re.MULTILINE)
    assert re.findall(r"^kept     \S+ exited, (\S+)$", status, re.MULTILINE) == [releases[2], releases[1]]
    assert '"release":"fourth"' in status
    assert '"release":"fourth"' in installation.ship("status", releases[3])
    assert f"another image is live: {releases[3]}" in installation.fail_to_ship("status", releases[2])


@pytest.mark.usefixtures("load")
def test_deploying_what_is_live_does_nothing_and_says_so(installation, releases):
    before = installation.containers
    assert "is live already, with the present settings; nothing to do" in installation.ship("update", releases[0])
    assert installation.containers == before


@pytest.mark.usefixtures("load")
def test_changed_settings_are_a_release_of_their_own(installation, releases):
    first = installation.live
    (installation.state / "upkeep.env").write_text("UPKEEP_SPOOL_BYTES=5000000\n")
    installation.ship("update", releases[0])
    assert installation.live != first
    set_to = installation.server.engine.docker("exec", installation.live, "printenv", "UPKEEP_SPOOL_BYTES")
    assert set_to == "5000000"


@pytest.mark.parametrize("line", ["pull", "start", "switch", "drain"])
def test_an_update_killed_anywhere_is_put_right_by_the_next(installation, load, releases, line):
    process = installation.command("update", releases[1])
    for said in process.stdout:
        if said.startswith(line):
            break
    kill_update(installation)
    process.communicate(timeout=60)
    load.wait_for_more()
    installation.ship("update", releases[1])
    load.wait_for_more()
    assert '"release":"second"' in installation.ship("status")
    assert sorted(installation.containers.values()) == ["exited", "running"]
    assert not list(installation.state.glob("proxy/*.before"))


def test_a_switch_killed_before_it_was_proven_is_undone_by_the_next_command(installation, load, releases):
    first = installation.live
    process = installation.command("update", releases[1])
    unproven = installation.state / "proxy/haproxy.cfg.before"
    while not unproven.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.001)
    kill_update(installation)
    process.communicate(timeout=60)
    installation.ship("update", releases[0])
    load.wait_for_more()
    assert not unproven.exists()
    assert installation.live == first
    assert installation.containers == {first: "running"}


def kill_update(installation: Installation) -> None:
    """Kill update.sh, as a power cut would; its number stands in the lock."""
    os.kill(int(re.search(r"process (\d+)", (installation.state / "lock").read_text())[1]), signal.SIGKILL)


@pytest.mark.usefixtures("load")
def test_of_two_updates_at_once_the_second_waits(installation, releases):
    processes = [installation.command("update", image) for image in releases[1:3]]
    said = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert sorted(installation.containers.values()) == ["exited", "exited", "running"]


@pytest.mark.usefixtures("load")
def test_an_update_that_waits_too_long_gives_up_and_says_for_whom(installation, releases):
    installation.settings(UPKEEP_LOCK_SECONDS=1)
    (installation.state / "lock").write_text("update to another by someone\n")
    with subprocess.Popen(["flock", installation.state / "lock", "sleep", "60"]) as other:
        complaint = installation.fail_to_ship("update", releases[1])
        other.terminate()
    assert "still busy after 1 s: update to another by someone" in complaint


@pytest.mark.usefixtures("load")
def test_a_proxy_that_cannot_follow_is_switched_back(installation, releases):
    first = installation.live
    installation.settings(UPKEEP_PROXY_PORT=installation.server.port)  # where SSH listens
    complaint = installation.fail_to_ship("update", releases[1])
    assert "the proxy did not reach" in complaint
    assert f"live: {first}" in complaint


def test_a_proxy_and_a_release_that_died_are_started_by_the_next_command(installation, releases):
    installation.ship("update", releases[0])
    for name in (f"{installation.folder}-proxy", installation.live):
        installation.server.engine.docker("kill", name)
    assert "the live release does not answer" in installation.fail_to_ship("status")
    installation.ship("update", releases[0])
    assert '"release":"first"' in installation.ship("status")


def test_with_a_certificate_the_proxy_speaks_tls(installation, releases, tmp_path):
    (installation.state / "upkeep.env").write_text("UPKEEP_ALLOWED_HOSTS=upkeep.example.com\n")
    installation.ship("update", releases[0])
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=upkeep.example.com"]
    subprocess.run(
        [*make, "-keyout", tmp_path / "key", "-out", tmp_path / "certificate"], check=True, capture_output=True
    )
    pem = installation.state / "proxy/tls.pem"
    pem.write_bytes((tmp_path / "certificate").read_bytes() + (tmp_path / "key").read_bytes())
    os.chown(pem, 65534, 65534)
    pem.chmod(0o400)
    installation.ship("update", releases[0])
    asked = ["curl", "-fsS", "--cacert", pem, "--resolve", f"upkeep.example.com:{installation.port}:127.0.0.1"]
    url = f"https://upkeep.example.com:{installation.port}/health"
    assert '"release":"first"' in subprocess.run([*asked, url], check=True, capture_output=True, text=True).stdout


def test_another_host_key_than_the_pinned_one_is_refused(installation, releases, tmp_path):
    make_key(tmp_path / "other")
    pin = f"[127.0.0.1]:{installation.server.port} {(tmp_path / 'other.pub').read_text()}"
    (tmp_path / "known_hosts").write_text(pin)
    complaint = installation.fail_to_ship("update", releases[0], DEPLOY_KNOWN_HOSTS=str(tmp_path / "known_hosts"))
    assert "Host key verification failed" in complaint
    assert not (installation.state / "bin").exists()


@pytest.mark.parametrize("image", ["", "upkeep:latest", "upkeep@sha256:123"])
def test_an_image_that_is_not_named_by_digest_is_refused(installation, image):
    assert "expected: IMAGE@sha256:DIGEST" in installation.fail_to_ship("update", image)


@pytest.mark.usefixtures("load")
def test_an_image_that_is_not_there_leaves_the_live_one(installation, releases):
    gone = f"{releases[0].split('@')[0]}@sha256:{'0' * 64}"
    complaint = installation.fail_to_ship("update", gone)
    assert "could not be pulled" in complaint
    assert f"live: {installation.live}" in complaint
