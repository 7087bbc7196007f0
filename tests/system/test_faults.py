"""The faults of docs/operations.md: each ends its job with lines that say what, where and what to do."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import polars as pl
import pytest
import yaml
from conftest import ROOT
from git_server import serve_git
from gitlab_project import run, turn

LINES = 10
BATCH, UNTIL = "2025-06-16", "2025-06-23"
PAGE = ROOT / "docs/operations.md"


class Fault(NamedTuple):
    """How to make it in a checkout, the command of its job, and what the log must name besides a remedy."""

    inject: Callable[[Path], None]
    command: str
    named: tuple[str, ...]


def change(file: Path, old: str, new: str) -> None:
    text = file.read_text(encoding="utf-8")
    assert old in text, f"{file.name} has no {old}"
    file.write_text(text.replace(old, new, 1), encoding="utf-8")


def params(**settings: object) -> Callable[[Path], None]:
    def inject(folder: Path) -> None:
        file = folder / "params.yaml"
        file.write_text(turn(file.read_text(encoding="utf-8"), settings), encoding="utf-8")

    return inject


def delivery(spoil: Callable[[pl.DataFrame], pl.DataFrame]) -> Callable[[Path], None]:
    """Spoil the week that porto delivers next."""

    def inject(folder: Path) -> None:
        params(until=f'"{UNTIL}"', max_quarantined_share=0.02)(folder)
        for table in ("telemetry", "events"):
            for file in sorted((folder / "arriving" / table).rglob("*.parquet")):
                target = folder / "deliveries" / table / file.parent.name / file.name
                rows = pl.read_parquet(file)
                (spoil(rows) if (table, file.parent.name) == ("telemetry", "porto") else rows).write_parquet(target)

    return inject


def cut_off(folder: Path) -> None:
    delivery(lambda rows: rows)(folder)
    file = folder / f"deliveries/telemetry/porto/{UNTIL}.parquet"
    file.write_bytes(file.read_bytes()[:1000])


def fail_in_notebook(folder: Path) -> None:
    file = folder / "notebooks/01_eda.ipynb"
    notebook = json.loads(file.read_text(encoding="utf-8"))
    cell = next(cell for cell in reversed(notebook["cells"]) if cell["cell_type"] == "code")
    cell["source"] = ["1 / 0"]
    file.write_text(json.dumps(notebook), encoding="utf-8")


def change_raw_file(folder: Path) -> None:
    file = folder / f"data/raw/telemetry/porto/{BATCH}.parquet"
    file.chmod(0o644)
    file.write_bytes(file.read_bytes()[:-8] + b"changed!")


def make_lock_stale(folder: Path) -> None:
    params(description="another one")(folder)


FAULTS = {
    "readings that are no numbers": Fault(
        delivery(lambda rows: rows.with_columns(vibration_mm_s=pl.lit("n/a"))),
        "upkeep reproduce",
        ("stage=validate", "plant=porto", "table=telemetry", f"batch={UNTIL}", "column=vibration_mm_s"),
    ),
    "a column that vanished": Fault(
        delivery(lambda rows: rows.drop("vibration_mm_s")),
        "upkeep reproduce",
        ("stage=validate", "plant=porto", "table=telemetry", f"batch={UNTIL}", "column=vibration_mm_s"),
    ),
    "a delivery cut off": Fault(
        cut_off, "upkeep reproduce", ("stage=fetch", "table=telemetry", f"porto/{UNTIL}.parquet")
    ),
    "times that cannot be read": Fault(
        delivery(lambda rows: rows.with_columns(time=pl.lit("last week"))),
        "upkeep reproduce",
        ("stage=fetch", "table=telemetry", f"porto/{UNTIL}.parquet", "time_format"),
    ),
    "a raw file changed by hand": Fault(
        change_raw_file, "upkeep validate", ("stage=validate", "plant=porto", f"batch={BATCH}", "upkeep fetch --again")
    ),
    "a variable that is not set": Fault(
        lambda folder: change(folder / "params.yaml", "deliveries/telemetry", "${DELIVERIES}/telemetry"),
        "upkeep reproduce",
        ("stage=fetch", "DELIVERIES"),
    ),
    "a setting misspelt": Fault(
        lambda folder: change(folder / "params.yaml", "  max_quarantined_share:", "  max_quarantine_share:"),
        "upkeep reproduce",
        ("params.yaml", "validate.max_quarantine_share"),
    ),
    "a feature that gives the answer away": Fault(
        params(max_single_feature_auc="0.55"), "upkeep reproduce", ("stage=dataset", "plant=", "column=")
    ),
    "a notebook's cell that fails": Fault(
        fail_in_notebook, "upkeep reproduce", ("stage=eda", "01_eda.ipynb", "cell=", "division by zero")
    ),
    "a model below its floors": Fault(
        params(average_precision="0.999", golden="null"), "upkeep check", ("stage=check", "average_precision")
    ),
    "a stale lock and no token": Fault(
        make_lock_stale, "upkeep reproduce", ("stage=record", "dvc.lock", "dvc repro", "git commit")
    ),
    "a token that may not push": Fault(
        make_lock_stale, "upkeep reproduce", ("feature", "UPKEEP_GITLAB_TOKEN", "write_repository")
    ),
}


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """A small project with its first models, and a week of deliveries that is still to arrive."""
    folder = tmp_path_factory.mktemp("faults") / "base"
    shutil.copytree(
        ROOT, folder, ignore=shutil.ignore_patterns(".git", ".venv", ".upkeep", "tests", "bench", "cache", "tmp")
    )
    for written in ("data/raw", "data/interim", "data/processed", "data/predictions", "models/plants", "models/golden"):
        shutil.rmtree(folder / written, ignore_errors=True)
    settings = turn((folder / "params.yaml").read_text("utf-8"), {"until": f'"{UNTIL}"', "reread_batches": 0})
    settings = re.sub(r"(?<=    plants:)(.*\n)(?:      \w+: \d+\n)+", r"\1      hamburg: 3\n      porto: 3\n", settings)
    (folder / "params.yaml").write_text(settings, encoding="utf-8")
    run(folder, "upkeep", "fetch")
    for file in sorted((folder / "data/raw").rglob("*.parquet")):
        to = folder / ("arriving" if file.stem == UNTIL else "deliveries") / file.relative_to(folder / "data/raw")
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(file, to)
    shutil.rmtree(folder / "data/raw")
    options = {
        table: {"path": f"deliveries/{table}/{{plant}}/*.parquet"} for table in ("telemetry", "events", "machines")
    }
    block = "".join(f"  {line}\n" for line in yaml.safe_dump({"options": options}).splitlines())
    settings = turn(settings, {"until": f'"{BATCH}"'}).replace("source: simulator", "source: files")
    settings = re.sub(r"^  options:.*?\n\n", f"{block}\n", settings, count=1, flags=re.MULTILINE | re.DOTALL)
    (folder / "params.yaml").write_text(settings, encoding="utf-8")
    run(folder, "git", "init", "--quiet", "--initial-branch=feature")
    run(folder, "dvc", "repro", "--quiet")
    commit(folder)
    return folder


def commit(folder: Path) -> None:
    author = ("-c", "user.name=Developer", "-c", "user.email=developer@example.com")
    run(folder, "git", "add", "--all")
    run(folder, "git", *author, "commit", "--quiet", "--allow-empty", "--message", "Change")


ELSEWHERE = {
    "a model that nobody can make again": "tests/system/test_trust_zones.py",
    "a merge request that GitLab did not open": "tests/integration/test_git.py",
    "a token that may make no protected tags": "tests/integration/test_releases.py",
    "a deployment that git did not hear of": "tests/integration/test_releases.py",
    "nothing set up yet (exit code 69)": "tests/system/test_first_push.py",
}
"""Faults of the page that other tests play, whose words stand there."""


def documented() -> dict[str, str]:
    """Return the page's faults, and what each says."""
    section = PAGE.read_text(encoding="utf-8").partition("## Faults")[2]
    return dict(re.findall(r"^\| ([a-z][^|]+?) \| `([^`]+)`", section, flags=re.MULTILINE))


def test_the_faults_are_those_of_the_page():
    faults = documented()
    assert [name for name in faults if name not in ELSEWHERE] == list(FAULTS)
    for name, tests in ELSEWHERE.items():
        assert faults[name] in (ROOT / tests).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", FAULTS)
def test_the_last_lines_of_a_failed_job_say_where_and_what_to_do(base, tmp_path, name):
    fault, folder = FAULTS[name], tmp_path / "checkout"
    shutil.copytree(base, folder, symlinks=True)
    fault.inject(folder)
    commit(folder)
    merge_request = {
        "CI_MERGE_REQUEST_SOURCE_BRANCH_NAME": "feature",
        "CI_MERGE_REQUEST_PROJECT_ID": "1",
        "CI_MERGE_REQUEST_SOURCE_PROJECT_ID": "1",
    }
    with serve_git(tmp_path / "git", lambda password: password == "right") as origin:
        run(folder, "git", "remote", "add", "origin", origin.url)
        token = {"UPKEEP_GITLAB_TOKEN": "wrong"} if "token that" in name else {}
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        environment = {**os.environ, "PATH": path, "PYTHONPATH": str(folder / "src"), **merge_request, **token}
        done = subprocess.run(
            fault.command.split(),
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
    log = "\n".join(done.stdout.splitlines()[-LINES:])
    assert done.returncode == 1, log
    assert "remedy:" in log
    for words in documented()[name].split("..."):
        assert re.search(re.sub(r"\d+", r"\\d+", re.escape(words.strip())), log), words
    for part in fault.named:
        assert part in log
    assert "Traceback" not in log
