"""What all tests share."""

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from trained_fleet import train_small_fleet

from upkeep.core.files import locked
from upkeep.model import trial

ROOT = Path(__file__).parents[1]
OURS = ("CI", "GITLAB_", "UPKEEP_", "DEPLOY_", "MLFLOW_TRACKING_")
"""How variables begin that are set for a job, or for a developer's own runs."""

# No test sees them: it would take a merge request for its own, or send its runs to somebody's server.
for _name in [name for name in os.environ if name.startswith(OURS)]:
    if _name not in ("UPKEEP_FORBID_SKIPS", "UPKEEP_CMAPSS"):  # these are for tests
        del os.environ[_name]

# How long an example takes is the machine's affair. A gate judges the change: chance searches at everybody's desk.
settings.register_profile("upkeep", max_examples=40, deadline=None, derandomize="UPKEEP_FORBID_SKIPS" in os.environ)
settings.load_profile("upkeep")


def pytest_collection_finish() -> None:
    """Leave what was imported out of each later look for garbage, as the service does."""
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    """Turn a skip into a failure where nothing may be missing, such as in CI."""
    report = yield
    if os.environ.get("UPKEEP_FORBID_SKIPS") and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped where UPKEEP_FORBID_SKIPS is set: {report.longrepr}"
    return report


@pytest.fixture(scope="session")
def cmapss() -> Path:
    """The folder of NASA's C-MAPSS files."""
    folder = Path(os.environ.get("UPKEEP_CMAPSS") or ROOT.parent / "shared/data/cmapss")
    if not list(folder.glob("train_FD00?.txt*")):
        pytest.skip(f"needs NASA's C-MAPSS files in {folder}; set UPKEEP_CMAPSS to the folder that holds them")
    return folder


@pytest.fixture(scope="session")
def trained_fleet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small fleet that went through the pipeline; tests leave it as it is, for all workers share it."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "trained_fleet"
    with locked(folder.with_suffix(".lock")):
        if not folder.exists():
            train_small_fleet(tmp_path_factory.mktemp("training")).rename(folder)
    return folder


@pytest.fixture
def unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models are loaded without a process that asks each for an answer first; test_trial.py has it ask."""
    monkeypatch.setattr(trial, "_ask_trial", lambda folders: (len(folders), ""))


@pytest.fixture(scope="session")
def cluster() -> Iterator[str]:
    """The address of a scheduler with two workers, which are replaced when they die, and gives a plant two of them."""
    import dask
    from distributed import LocalCluster

    failures = dask.config.set({"distributed.scheduler.allowed-failures": 1})
    with (
        failures,
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0", silence_logs="CRITICAL") as cluster,
    ):
        yield cluster.scheduler_address
