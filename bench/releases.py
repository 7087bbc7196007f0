"""From the button to what is served, and back: a release promoted and rolled back on a server over SSH, under load.

Engines, registry and server are those of the system tests, so it needs root and Debian's packages as they do.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.measuring import ROOT, Row, take_seconds

FOLDER = "upkeep"  # of the installation, below the server's home


def measure() -> list[Row]:
    """Return seconds to promote a second release and to roll it back, and how many requests failed meanwhile."""
    sys.path.insert(0, str(ROOT / "tests/system"))
    import components
    import load

    with ExitStack() as stack:
        builder, host = (stack.enter_context(components.start_engine()) for _ in range(2))
        components.add_python_image(builder)
        components.add_proxy_image(host)
        registry = stack.enter_context(components.start_registry())
        server = stack.enter_context(components.start_server(host))
        folder = Path(stack.enter_context(TemporaryDirectory()))
        checkout, port = folder / "checkout", components.free_port()
        components.clone(checkout)
        components.add_models(checkout)
        components.build(builder, checkout, "upkeep:bench")
        (server.home / FOLDER).mkdir()
        settings = f"UPKEEP_PROXY_IMAGE={components.PROXY_IMAGE}\nUPKEEP_PROXY_PORT={port}\n"
        (server.home / FOLDER / "server.conf").write_text(settings, encoding="utf-8")
        run = _prepare(checkout, folder / "origin.git", server.variables)

        def promote(name: str) -> float:
            run("git", "commit", "--quiet", "--allow-empty", "--message", name)
            run("git", "push", "--quiet", "origin", "HEAD:main")
            tag = f"{registry}/upkeep:{name}"
            lines = f"FROM upkeep:bench\nENV UPKEEP_RELEASE={name}\n"
            builder.docker("build", "--quiet", "--tag", tag, "-", stdin=lines)
            builder.docker("push", "--quiet", tag)
            image = builder.docker("inspect", "-f", "{{index .RepoDigests 0}}", tag)
            return take_seconds(lambda: run("upkeep", "release", "promote", "production", image, "--verdict", "bench"))

        promote("first")
        with load.load_on(port, checkout / "models/golden") as clients:
            promoted = promote("second")
            rolled_back = take_seconds(lambda: run("upkeep", "release", "rollback", "production"))
    note = f"{clients.answered.total():,} requests answered meanwhile by {', '.join(sorted(clients.answered))}"
    return [
        Row("promote: button to served and tagged", promoted, "s", target="ours <= 30"),
        Row("roll back: button to served and tagged", rolled_back, "s", target="ours <= 30"),
        Row("requests failed during both", len(clients.failed), "", target="ours <= 0", note=note),
    ]


def _prepare(checkout: Path, origin: Path, server: dict[str, str]) -> Callable[..., None]:
    """Give the checkout a remote of its own, and return what runs a command there, as who may ship to the server."""
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    people = {f"GIT_{who}_{what}": "bench" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    variables = {**os.environ, **people, **server, "PATH": programs, "DEPLOY_FOLDER": FOLDER}
    variables |= {"PYTHONPATH": str(checkout / "src"), "UPKEEP_TARGET_BRANCH": "main"}

    def run(*command: str) -> None:
        subprocess.run(command, cwd=checkout, env=variables, check=True, stdout=subprocess.DEVNULL)

    run("git", "clone", "--quiet", "--bare", ".", str(origin))
    run("git", "remote", "set-url", "origin", str(origin))
    return run
