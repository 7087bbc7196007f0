"""The stage that judges, and the check that lets nothing bad pass, on real files."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import lightgbm as lgb
import polars as pl
import pytest

from upkeep.core import paths
from upkeep.core.errors import UpkeepError
from upkeep.core.files import write_json
from upkeep.core.params import Params, load_params
from upkeep.features.definition import build_features, fit_preparation
from upkeep.features.inputs import Quantity, Vocabulary
from upkeep.gitlab import gate
from upkeep.judging.sanity import REFERENCES
from upkeep.model.calibration import Calibration
from upkeep.model.storage import (
    Metadata,
    TrainingRange,
    booster_names,
    checksum,
    load_model,
    predict,
    save_model,
    to_matrix,
)
from upkeep.stages import evaluate

START = datetime(2025, 1, 6, tzinfo=UTC)
HOURS, LIFE = 200, 100
VOCABULARY = Vocabulary(
    settings=[], widths=[], sensors=["heat"], error_codes=[], maintenance_codes=[], machine_models=["A"]
)
SHIPPED = load_params(Path(__file__).parents[2] / paths.PARAMS)
PARAMS = SHIPPED.model_copy(update={"parallel": SHIPPED.parallel.model_copy(update={"backend": "sequential"})})
EVENTS = pl.DataFrame(
    schema={
        "plant": pl.String,
        "machine": pl.String,
        "time": pl.Datetime("us", "UTC"),
        "kind": pl.String,
        "code": pl.String,
    }
)


def telemetry(machine: str, hours: int = HOURS) -> pl.DataFrame:
    """A machine whose heat rises all its life of 100 hours, after which it starts anew."""
    return pl.DataFrame(
        {
            "plant": "lyon",
            "machine": machine,
            "time": [START + timedelta(hours=hour) for hour in range(hours)],
            "heat": [float(hour % LIFE) for hour in range(hours)],
        },
        schema_overrides={"time": pl.Datetime("us", "UTC")},
    )


def write_run() -> None:
    """Write what the stages before `evaluate` leave behind, for one plant of six machines."""
    names = [f"m{number}" for number in range(6)]
    rows = pl.concat([telemetry(name) for name in names])
    machines = pl.DataFrame({"machine": names, "model": "A", "installed": START}).cast(
        {"installed": pl.Datetime("us", "UTC")}
    )
    quantities = {"telemetry": {"heat": Quantity(name="bearing heat", unit="°C")}}
    fitted = fit_preparation(rows, rows, VOCABULARY, PARAMS.dataset)
    preparation = fitted.model_copy(update={"quantities": quantities})
    features = build_features(rows, EVENTS, machines, preparation, PARAMS.dataset)
    names = features.columns[3:]
    left = LIFE - rows["heat"]
    label = (left <= PARAMS.dataset.horizon_hours).cast(pl.UInt8)
    dataset = lgb.Dataset(to_matrix(features, names), label.to_numpy(), feature_name=booster_names(names))
    text = lgb.train({"objective": "binary", "verbose": -1, "num_threads": 1}, dataset, 10).model_to_string()
    metadata = Metadata(
        plant="lyon",
        scope="plant",
        features=names,
        near_duplicate_seconds=60,
        dataset=PARAMS.dataset,
        preparation=preparation,
        calibration=Calibration(method="none"),
        threshold=0.5,
        training_ranges=dict.fromkeys(names, TrainingRange(minimum=0, low=0, high=1, maximum=1)),
        boosters={"model.txt": checksum(text.encode())},
        data_version="0",
        rows=rows.height,
        positives=int(label.sum()),
    )
    save_model(paths.MODELS / "lyon", metadata, [text])
    processed = features.with_columns(hours_to_failure=left, label=label, prevented=False)
    probability = predict(load_model(paths.MODELS / "lyon"), features)
    chosen = processed.select(
        "plant", "machine", "time", "label", "hours_to_failure", "prevented", probability=pl.Series(probability)
    ).with_columns(
        machine_model=pl.lit("A"),
        split=pl.lit("test"),
        candidate=pl.lit("plant"),
        chosen=pl.lit(True),
        alarm=pl.col("probability") >= 0.5,
    )
    blind = {"chosen": pl.lit(False), "probability": pl.lit(0.1), "alarm": pl.lit(False)}
    references = [chosen.with_columns(candidate=pl.lit(name), **blind) for name in REFERENCES]
    predictions = pl.concat([chosen, *references])
    (paths.INTERIM / "telemetry").mkdir(parents=True)
    rows.write_parquet(paths.INTERIM / "telemetry" / "lyon.parquet")
    (paths.PROCESSED / "lyon").mkdir(parents=True)
    processed.write_parquet(paths.PROCESSED / "lyon" / "test.parquet")
    sizes = {"rows": rows.height, "failing": int(label.sum()), "doubt": None}
    write_json(paths.DATASET, {plant: {"test": sizes} for plant in ("lyon", "porto")})
    paths.PREDICTIONS.mkdir(parents=True)
    predictions.write_parquet(paths.PREDICTIONS / "lyon.parquet")


def write_cases(*cases: dict) -> Path:
    """Write acceptance cases whose telemetry is a worn machine, a healthy one, or one with an outage."""
    folder = Path("cases")
    folder.mkdir(exist_ok=True)
    worn = telemetry("new", hours=96)
    worn.write_csv(folder / "worn.csv")
    worn.head(30).write_csv(folder / "healthy.csv")
    gap = worn.with_columns(heat=pl.when(pl.int_range(pl.len()) < 40).then("heat"))
    gap.filter(~pl.int_range(pl.len()).is_between(50, 80)).write_csv(folder / "outage.csv")
    (folder / "cases.yaml").write_text(json.dumps([{"plant": "lyon", **case} for case in cases]))
    return folder / "cases.yaml"


def judged_by(cases: Path | None = None, **floors: float) -> Params:
    return PARAMS.model_copy(
        update={"evaluate": PARAMS.evaluate.model_copy(update={"golden": cases, "floors": floors})}
    )


@pytest.fixture(autouse=True)
def run_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_run()


def outputs() -> dict[str, bytes]:
    files = [paths.METRICS, *paths.EVALUATION.iterdir()]
    return {file.name: file.read_bytes() for file in files}


def test_the_stage_writes_metrics_the_evaluation_and_the_tables_of_its_plots():
    evaluate.run(PARAMS)
    metrics = json.loads(paths.METRICS.read_text())
    assert metrics["overall"]["failures"] == 12
    assert metrics["overall"]["failures_caught"] == 1.0
    assert set(outputs()) == {
        "metrics.json",
        "evaluation.json",
        "calibration.csv",
        "precision_recall.csv",
        "cost_by_threshold.csv",
        "importance.csv",
    }
    assert pl.read_csv(paths.EVALUATION / "importance.csv")["gain"].sum() == pytest.approx(1, abs=1e-5)


def test_the_most_probable_alarms_come_with_their_reasons():
    evaluate.run(PARAMS)
    alarms = json.loads((paths.EVALUATION / "evaluation.json").read_text())["alarms"]
    assert len(alarms) == evaluate.ALARMS_PER_PLANT
    assert alarms[0]["reasons"][0]["feature"].startswith("heat")
    assert alarms[0]["reasons"][0]["words"].startswith("bearing heat ")
    assert any(" °C " in reason["words"] for reason in alarms[0]["reasons"])
    assert alarms[0]["time"].endswith("+00:00")


def test_running_the_stage_again_writes_the_same_bytes():
    evaluate.run(PARAMS)
    first = outputs()
    evaluate.run(PARAMS)
    assert outputs() == first


def test_a_lead_time_beyond_the_horizon_is_refused():
    late = PARAMS.evaluate.model_copy(update={"lead_time_hours": PARAMS.dataset.horizon_hours + 1})
    with pytest.raises(UpkeepError, match="lead_time_hours is 49"):
        evaluate.run(PARAMS.model_copy(update={"evaluate": late}))


def test_a_plant_without_rows_or_saved_model_is_noted():
    pl.read_parquet(paths.PREDICTIONS / "lyon.parquet").clear().write_parquet(paths.PREDICTIONS / "porto.parquet")
    evaluate.run(PARAMS)
    assert json.loads((paths.EVALUATION / "evaluation.json").read_text())["notes"] == [
        "porto: no test rows, so not known: "
        "average precision, failures caught, false alarms per machine month, cost saving",
        "porto: no saved model, so no reasons for alarms",
    ]


def test_rows_that_were_chosen_by_their_outcome_are_no_ground_for_a_verdict():
    sizes = json.loads(paths.DATASET.read_text())
    sizes["lyon"]["test"]["doubt"] = "test rows were kept because a failure came"
    write_json(paths.DATASET, sizes)
    evaluate.run(PARAMS)
    with pytest.raises(UpkeepError, match="not known: in lyon test rows were kept because a failure came"):
        gate.check(judged_by(average_precision=0.5))


def test_a_good_model_passes_its_floors_and_acceptance_cases(capsys):
    evaluate.run(PARAMS)
    cases = write_cases(
        {
            "name": "wear",
            "expect": "alarm",
            "telemetry": "worn.csv",
            "machines": {"model": "A", "installed": "2025-01-01"},
        },
        {"name": "health", "expect": "no_alarm", "telemetry": "healthy.csv"},
        {"name": "outage", "expect": "answer", "telemetry": "outage.csv"},
    )
    gate.check(judged_by(cases, failures_caught=0.6))
    assert [line.split()[:2] for line in capsys.readouterr().out.splitlines()[1:]] == [
        ["ok", "failures_caught"],
        ["ok", "average_precision"],
        ["ok", "wear"],
        ["ok", "health"],
        ["ok", "outage"],
    ]


def test_what_fails_is_named_and_what_passes_is_not():
    evaluate.run(PARAMS)
    cases = write_cases(
        {"name": "wear", "expect": "no_alarm", "telemetry": "worn.csv"},
        {"name": "health", "expect": "no_alarm", "telemetry": "healthy.csv"},
        {"name": "elsewhere", "plant": "porto", "expect": "alarm", "telemetry": "worn.csv"},
    )
    with pytest.raises(UpkeepError) as raised:
        gate.check(judged_by(cases, average_precision=1.1, failures_caught=0.5))
    assert "3 of 6 checks failed: average_precision (found" in str(raised.value)
    assert "elsewhere (found no such model)" in str(raised.value)
    assert "health" not in str(raised.value)


def test_events_of_an_acceptance_case_are_read(capsys):
    cases = write_cases({"name": "wear", "expect": "alarm", "telemetry": "worn.csv", "events": "events.csv"})
    (cases.parent / "events.csv").write_text("machine,time,kind,code\nnew,2025-01-06T05:00:00Z,error,E1\n")
    evaluate.run(PARAMS)
    gate.check(judged_by(cases))
    assert "ok  wear" in capsys.readouterr().out


@pytest.mark.parametrize("content", ["heat\n1\n", "machine,time,heat\nnew,yesterday,1\n", ""])
def test_a_broken_file_of_an_acceptance_case_is_named(content):
    cases = write_cases({"name": "wear", "expect": "alarm", "telemetry": "worn.csv"})
    (cases.parent / "worn.csv").write_text(content)
    evaluate.run(PARAMS)
    with pytest.raises(UpkeepError) as raised:
        gate.check(judged_by(cases))
    assert raised.value.where["file"] == cases.parent / "worn.csv"


def test_without_metrics_the_check_fails_and_says_what_to_run():
    with pytest.raises(UpkeepError, match="No such file"):
        gate.check(judged_by())
