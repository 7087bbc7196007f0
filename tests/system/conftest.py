"""Real components that several test modules share; each is started once, by the first test that needs it."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import components
import pytest
from playwright.sync_api import Browser, sync_playwright


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
def checkout(tmp_path_factory) -> Path:
    """A clone of this repository as it stands, with its models; they are trained if they are not there."""
    folder: Path = tmp_path_factory.mktemp("checkout") / "upkeep"
    components.clone(folder)
    components.add_models(folder)
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
