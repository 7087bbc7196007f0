import csv
import json
import logging
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import polars as pl
import pytest
from report_cases import GROUP, evaluation

from upkeep.core.errors import UpkeepError
from upkeep.core.params import load_params
from upkeep.reporting.experiments import append_row, code_version, hash_files, read_log
from upkeep.stages import record

REPOSITORY = Path(__file__).parents[2]


def figures(average_precision, **others):
    return {"rows": 3, "machines": 1, "positives": 1, "failures": 1, "average_precision": average_precision, **others}


LOG = Path("reports/experiments.csv")
COUNTS = {"rows_in": 3, "clean": 3, "duplicates": {}, "quarantined": {}}
WINDOW = {"from": "2025-12-01T00:00:00+00:00", "to": "2025-12-29T00:00:00+00:00"}
ROWS = {"current_rows": 3, "reference_rows": 3}
REPORTS = {
    "reports/metrics.json": {"overall": figures(0.7), "plants": {"lyon": figures(0.6)}},
    "reports/evaluation/evaluation.json": {
        **evaluation({"lyon": GROUP}).model_dump(),
        "validation": {"overall": figures(0.8), "plants": {}},
    },
    "reports/data_quality.json": {"plants": {"lyon": {"tables": {"telemetry": COUNTS}, "findings": []}}},
    "reports/drift/drift.json": {
        "lyon": {"drifted": True, "share": 0.6, "columns": {}, **ROWS, "window": WINDOW, "notes": []}
    },
    "models/plants/lyon/model.json": {"plant": "lyon", "scope": "fleet", "kind": "lightgbm"},
}


def git(*arguments):
    who = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org"]
    subprocess.run(["git", *who, *arguments], check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A committed repository with what the stages before `record` leave; nothing listens at its tracking server."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    for name, content in REPORTS.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(json.dumps(content))
    Path("data/processed/plants/lyon").mkdir(parents=True)
    for rows, split in enumerate(("train", "validation", "test"), start=1):
        pl.DataFrame({"label": [0] * rows}).write_parquet(f"data/processed/plants/lyon/{split}.parquet")
    Path("code.py").write_text("first")
    Path(".gitignore").write_text(".upkeep/\n")
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "first")
    return tmp_path


@pytest.fixture
def params():
    return load_params(REPOSITORY / "params.yaml")


def waiting():
    return sorted(folder.name for folder in Path(".upkeep/pending").iterdir())


def test_a_run_is_a_row_with_its_figures_hashes_and_commit(checkout, params):
    record.run(params)
    (row,) = read_log(LOG)[1]
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    assert row["commit"] == commit
    assert row["date"].endswith("+00:00")
    assert (row["train_rows"], row["validation_rows"], row["test_rows"]) == ("1", "2", "3")
    assert (row["test_average_precision"], row["test_average_precision_lyon"]) == ("0.7", "0.6")
    assert row["validation_average_precision"] == "0.8"
    assert json.loads(row["parameters"])["model"]["kind"] == row["kind"] == "lightgbm"
    assert "models/plants" in row["outputs"].split()
    assert str(checkout) not in Path("reports/run.json").read_text()


@pytest.mark.usefixtures("checkout")
def test_reproducing_a_run_changes_nothing(params):
    record.run(params)
    before = LOG.read_bytes(), Path("reports/run.json").read_bytes(), waiting()
    Path("code.py").write_text("a comment more")
    record.run(params.model_copy(update={"parallel": params.parallel.model_copy(update={"jobs": 1})}))
    assert (LOG.read_bytes(), Path("reports/run.json").read_bytes(), waiting()) == before


@pytest.mark.usefixtures("checkout")
def test_another_result_is_another_row_and_a_new_metric_a_new_column(params):
    record.run(params)
    Path("reports/metrics.json").write_text(json.dumps({"overall": figures(0.9, roc_auc=1.0), "plants": {}}))
    record.run(params)
    header, (first, second) = read_log(LOG)
    assert header[-1] == "test_roc_auc"
    assert (first["test_roc_auc"], second["test_roc_auc"]) == ("", "1.0")
    assert (first["test_average_precision_lyon"], second["test_average_precision_lyon"]) == ("0.6", "")


@pytest.mark.usefixtures("checkout")
def test_a_tracking_server_that_is_down_costs_one_line(params, caplog):
    with caplog.at_level(logging.WARNING, "upkeep"):
        record.run(params)
    (warning,) = caplog.records
    assert warning.getMessage().startswith("1 run(s) kept in .upkeep/pending")
    assert waiting() == [read_log(LOG)[1][0]["run"]]


@pytest.mark.usefixtures("checkout")
def test_a_fresh_clone_fills_its_own_mlflow_with_the_first_date_and_commit(params, monkeypatch):
    record.run(params)
    logged = LOG.read_bytes()
    shutil.rmtree(".upkeep")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    record.run(params)
    from mlflow import MlflowClient

    (row,) = read_log(LOG)[1]
    client = MlflowClient(f"sqlite:///{Path.cwd()}/mlflow.db")
    experiment = client.get_experiment_by_name("upkeep").experiment_id
    (parent,) = client.search_runs(
        [experiment], f"tags.`upkeep.run` = '{row['run']}' and tags.`upkeep.complete` = 'true'"
    )
    assert LOG.read_bytes() == logged
    assert parent.data.tags["mlflow.source.git.commit"] == row["commit"]
    assert waiting() == []
    assert list(Path("mlartifacts").rglob("model.json"))


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text.replace(b"\n", b"\n<<<<<<< HEAD\n", 1),
        lambda text: b"<<<<<<< HEAD\n" + text,
        lambda text: text + b"a,b\n",
        lambda text: text + b'"never closed\n',
        lambda text: b"\xff" + text,
    ],
)
@pytest.mark.usefixtures("checkout")
def test_a_damaged_log_is_refused_and_left_as_it_is(params, damage):
    record.run(params)
    damaged = damage(LOG.read_bytes())
    LOG.write_bytes(damaged)
    with pytest.raises(UpkeepError, match="experiment log is damaged") as caught:
        record.run(params)
    assert "git checkout" in caught.value.remedy
    assert LOG.read_bytes() == damaged


@pytest.mark.usefixtures("checkout")
def test_a_missing_report_names_itself(params):
    Path("reports/metrics.json").unlink()
    with pytest.raises(UpkeepError, match="the report cannot be used: No such file") as caught:
        record.run(params)
    assert caught.value.where["file"] == Path("reports/metrics.json")


@pytest.mark.parametrize("name", [name for name in REPORTS if name.startswith("reports/")])
@pytest.mark.usefixtures("checkout")
def test_a_report_that_is_none_is_named_and_nothing_is_logged(params, name):
    Path(name).write_text("[{}]")
    with pytest.raises(UpkeepError, match="the report cannot be used") as caught:
        record.run(params)
    assert caught.value.where["file"] == Path(name)
    assert not LOG.exists()


def test_parallel_runs_lose_no_row(tmp_path):
    log, lock = tmp_path / "log.csv", tmp_path / "lock"
    rows = [{"run": str(i), f"metric_{i % 3}": str(i)} for i in range(40)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda row: append_row(log, row, lock), rows))
    assert {row["run"] for row in read_log(log)[1]} == {row["run"] for row in rows}
    assert [file.name for file in tmp_path.glob("*log*")] == ["log.csv"]


def test_cells_with_commas_quotes_and_line_breaks_come_back_as_they_were(tmp_path):
    row = {"run": "1", "description": 'a, "b"\nc\r\nd'}
    append_row(tmp_path / "log.csv", row, tmp_path / "lock")
    assert read_log(tmp_path / "log.csv")[1] == [row]
    with (tmp_path / "log.csv").open(newline="") as stream:
        assert list(csv.DictReader(stream)) == [row]


def test_hashes_are_those_of_dvc(tmp_path):
    data = tmp_path / "data"
    for name in ("lyon/b.txt", "lyon-2/a.txt", "lyon.txt"):
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).write_text(name)
    for command in (["init", "--no-scm", "-q"], ["add", "-q", "data"]):
        subprocess.run([sys.executable, "-m", "dvc", *command], cwd=tmp_path, check=True, capture_output=True)
    files = [file for file in data.rglob("*") if file.is_file()]
    assert f"md5: {hash_files(files, data)}\n" in (tmp_path / "data.dvc").read_text()


def test_only_changed_code_or_references_make_a_commit_dirty(checkout):
    clean = code_version(checkout)
    Path("params.yaml").write_text("model: {}")
    Path("reports/new.csv").write_text("1")
    Path("data/processed/new.parquet").write_text("1")
    assert code_version(checkout) == clean
    for file in ("new.py", "data/references/dictionary.yaml"):
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        Path(file).write_text("")
        assert code_version(checkout) == f"{clean}-dirty"
        Path(file).unlink()


def test_outside_git_the_commit_is_unknown(tmp_path):
    assert code_version(tmp_path) == "unknown"
