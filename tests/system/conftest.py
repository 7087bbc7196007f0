"""Real components that several test modules share; each is started once, by the first test that needs it."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import components
import pytest
from gitlab_project import run
from playwright.sync_api import Browser, sync_playwright
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

GROUPS = (
    ("reproduction", "image", "deployment", "push"),
    ("gitlab_pipelines", "ci_image", "doctor", "cluster"),
    *[
        (name,)
        for name in ("six_months", "retraining", "faults", "reproduction_in_ci", "cmapss_quality", "exp_and_metrics")
    ],
)
"""Files that share engines, a registry, a server, and the image of what was reproduced; and others that take long."""


BY_FILE = {f"test_{name}": names[0] for names in GROUPS for name in names}


class GroupScheduling(LoadFileScheduling):
    """Each group of files goes to one worker, and each other file as a whole."""

    def _split_scope(self, nodeid: str) -> str:
        name = Path(super()._split_scope(nodeid)).stem
        return BY_FILE.get(name, name)


@pytest.hookimpl(optionalhook=True)  # where xdist is switched off
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> GroupScheduling:
    return GroupScheduling(config, log)  # xdist's own by marks, loadgroup, finds none since pytest 9.2


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the groups, as what takes longest."""
    items.sort(key=lambda item: [*BY_FILE, item.path.stem].index(item.path.stem))


@pytest.fixture(scope="session")
def engine() -> Iterator[components.Engine]:
    """The engine that builds images."""
    with components.start_engine() as engine:
        components.add_python_image(engine)
        yield engine


@pytest.fixture(scope="session")
def registry() -> Iterator[str]:
    with components.start_registry() as address:
        yield address


@pytest.fixture(scope="session")
def server() -> Iterator[components.Server]:
    """A customer's server, which has an engine of its own and knows the proxy's image."""
    with components.start_engine() as engine, components.start_server(engine) as server:
        components.add_proxy_image(engine)
        yield server


@pytest.fixture(scope="session")
def reproduced(tmp_path_factory) -> tuple[Path, str]:
    """A fresh clone of what is committed, in which the whole pipeline has run, and what it printed."""
    folder = tmp_path_factory.mktemp("fresh") / "upkeep"
    subprocess.run(["git", "clone", "--quiet", components.ROOT, folder], check=True)
    return folder, run(folder, "dvc", "repro")


@pytest.fixture(scope="session")
def checkout(tmp_path_factory, request) -> Path:
    """A clone of this repository as it stands, with its models, or those of what is committed if there are none."""
    folder: Path = tmp_path_factory.mktemp("checkout") / "upkeep"
    components.clone(folder)
    there = all((components.ROOT / name).exists() for name in components.MODELS)
    trained = components.ROOT if there else request.getfixturevalue("reproduced")[0]
    for name in components.MODELS:
        shutil.copytree(trained / name, folder / name, dirs_exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def image(engine, checkout) -> str:
    """The service's image, built from `checkout`."""
    components.build(engine, checkout, "upkeep:test")
    return "upkeep:test"


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Debian's Chromium."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("needs Chromium, Debian's package chromium")
    options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=options)
        yield browser
        browser.close()
