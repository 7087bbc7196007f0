"""Newest batches in; predictions in the log, a table and the planner's own system."""

import json
import re
import shutil
import sqlite3
from datetime import UTC, date, datetime, timedelta
from functools import cache
from pathlib import Path

import lightgbm as lgb
import numpy as np
import polars as pl
import pytest
import yaml
from conftest import ROOT
from parameters import SHIPPED, changed
from receiver import listening

from upkeep.core import paths
from upkeep.core.errors import UpkeepError
from upkeep.core.names import KEYS
from upkeep.core.params import Params
from upkeep.features.definition import build_features, fit_preparation
from upkeep.features.inputs import Vocabulary
from upkeep.model.calibration import Calibration
from upkeep.model.storage import Metadata, TrainingRange, checksum, load_model, save_model, to_text
from upkeep.model.trial import find_faults
from upkeep.scoring import score
from upkeep.scoring.alerts import SECRET
from upkeep.scoring.prediction_log import SCHEMA, read_parts
from upkeep.serving.board import Board
from upkeep.sources import Delivery

MONDAY = date(2025, 1, 6)
START = datetime(2025, 1, 6, tzinfo=UTC)
WEEKS = 8
LAST = START + timedelta(weeks=WEEKS) - timedelta(hours=1)
SENSORS = ["vibration_mm_s", "temperature_c"]


def week(number: int) -> date:
    return MONDAY + timedelta(weeks=number)


NEWEST = week(WEEKS - 1)
NOW = START + timedelta(weeks=WEEKS, minutes=-30)


def machine(plant: str, name: str, worn_from: int = WEEKS) -> pl.DataFrame:
    """A machine's eight weeks of hourly telemetry; from the week `worn_from` on it shakes."""
    hours = pl.int_range(WEEKS * 168, eager=True)
    rng = np.random.default_rng(len(name) + ord(name[-1]))
    noise = pl.Series(rng.normal(size=len(hours)))
    return pl.select(
        plant=pl.lit(plant),
        machine=pl.lit(name),
        time=pl.lit(START) + pl.duration(hours=hours),
        speed_rpm=pl.lit(1000.0),
        load_pct=pl.lit(50.0),
        vibration_mm_s=2 + 0.1 * noise + 8 * (hours >= worn_from * 168).cast(pl.Float64),
        temperature_c=60 + noise,
        pressure_bar=6 + 0.1 * noise,
        current_a=20 + noise,
        humidity_pct=50 + noise,
    )


class Plants:
    """A source of two plants; M2 of lyon is worn in the last week. Tests change what it holds."""

    telemetry: pl.DataFrame
    events: pl.DataFrame
    unreadable: set[str]

    def __init__(self, options, batch_days):
        pass

    def deliveries(self, until):  # noqa: ARG002  # it shows all it has; `upkeep score` must choose
        for plant in self.telemetry["plant"].unique():
            yield Delivery("machines", plant, MONDAY, lambda plant=plant: self.machines(plant))
            for number in range(WEEKS):
                for table, rows in (("telemetry", self.telemetry), ("events", self.events)):
                    begin = START + timedelta(weeks=number)
                    own = rows.filter(pl.col("time").is_between(begin, begin + timedelta(weeks=1), closed="left"))
                    own = own.filter(plant=plant)
                    if not own.is_empty():
                        yield Delivery(table, plant, week(number), lambda own=own, plant=plant: self.read(own, plant))

    def machines(self, plant):
        names = self.telemetry.filter(plant=plant).select("plant", "machine").unique(maintain_order=True)
        return names.with_columns(model=pl.lit("A"), installed=pl.lit(START))

    def read(self, rows, plant):
        if plant in self.unreadable:
            raise UpkeepError("the server is down", expected="an answer", remedy="start it")
        return rows


def events(*rows):
    schema = {**dict.fromkeys(("plant", "machine"), pl.String), "time": pl.Datetime("us", "UTC")}
    return pl.DataFrame(list(rows), schema={**schema, "kind": pl.String, "code": pl.String}, orient="row")


@pytest.fixture(autouse=True)
def plants(tmp_path, monkeypatch):
    """The source, in an empty checkout with the models of its two plants."""
    monkeypatch.chdir(tmp_path)
    fleet = [machine("lyon", "M1"), machine("lyon", "M2", 7), machine("lyon", "M3"), machine("porto", "M1")]
    monkeypatch.setattr(Plants, "telemetry", pl.concat(fleet), raising=False)
    monkeypatch.setattr(Plants, "events", events(("lyon", "M1", START, "maintenance", "scheduled")), raising=False)
    monkeypatch.setattr(Plants, "unreadable", set(), raising=False)
    monkeypatch.setattr(score, "find_faults", lambda _: {})  # it asks in a process, which takes as long as the rest
    for plant in ("lyon", "porto"):
        save_model(paths.MODELS / plant, *train(plant))
    return Plants


def params(**settings) -> Params:
    fetch = {**SHIPPED.fetch.model_dump(), "source": f"{__name__}:Plants", "options": {}, "reread_batches": 1}
    rules = SHIPPED.validate_.model_copy(update={"dictionary": ROOT / SHIPPED.validate_.dictionary})
    return SHIPPED.model_copy(
        update={
            "fetch": SHIPPED.fetch.model_validate(fetch),
            "validate_": rules,
            "score": changed(SHIPPED.score, history_batches=1, **settings),
        }
    )


def run(now=NOW, **settings):
    score.run(params(**settings), now)


@cache
def train(plant):
    """Return what a model consists of that alarms when a machine shakes."""
    vocabulary = Vocabulary(
        settings=["speed_rpm", "load_pct"],
        widths=[4000, 120],
        sensors=SENSORS,
        error_codes=[],
        maintenance_codes=["scheduled"],
        machine_models=["A"],
    )
    telemetry, dataset = machine(plant, "M1", worn_from=6), SHIPPED.dataset
    machines = Plants.machines(Plants, plant)
    healthy = telemetry.filter(pl.col("time") < START + timedelta(weeks=2))
    preparation = fit_preparation(healthy, telemetry, vocabulary, dataset)
    features = build_features(telemetry, Plants.events, machines, preparation, dataset).drop(KEYS)
    worn = telemetry["vibration_mm_s"].to_numpy() > 5
    data = lgb.Dataset(features.to_numpy(), worn, feature_name=features.columns)
    settings = {"objective": "binary", "verbosity": -1, "deterministic": True, "num_threads": 1}
    text = to_text(lgb.train(settings, data, 20), 20)
    metadata = Metadata(
        plant=plant,
        scope="plant",
        features=features.columns,
        near_duplicate_seconds=60,
        dataset=dataset,
        preparation=preparation,
        calibration=Calibration(method="none"),
        threshold=0.5,
        training_ranges=dict.fromkeys(features.columns, TrainingRange(minimum=-1e9, low=None, high=None, maximum=1e9)),
        boosters={"model.txt": checksum(text.encode())},
        data_version="0",
        rows=len(worn),
        positives=int(worn.sum()),
    )
    return metadata, [text]


def logged() -> pl.DataFrame:
    parts = [rows for _, rows in read_parts("data/prediction_log", MONDAY, set())]
    return pl.concat(parts) if parts else SCHEMA.to_frame()


def spoil(plants, **columns):
    """Change porto's last week."""
    last = (pl.col("plant") == "porto") & (pl.col("time") >= START + timedelta(weeks=WEEKS - 1))
    changes = [pl.when(last).then(value).otherwise(name).alias(name) for name, value in columns.items()]
    plants.telemetry = plants.telemetry.with_columns(changes)


def test_each_machine_is_scored_at_its_newest_row_and_logged():
    run()
    rows = logged().sort("plant", "machine")
    assert rows.select("plant", "machine", "time", "alarm", "source").rows() == [
        ("lyon", "M1", LAST, False, "batch"),
        ("lyon", "M2", LAST, True, "batch"),
        ("lyon", "M3", LAST, False, "batch"),
        ("porto", "M1", LAST, False, "batch"),
    ]
    assert rows["maintained_at"].to_list() == [START, None, None, None]


def test_a_log_row_holds_what_the_newest_features_are_made_of():
    run()
    inputs = json.loads(logged().filter(plant="lyon", machine="M1")["inputs"].item())
    rows = [dict(zip(inputs["columns"], row, strict=True)) for row in inputs["data"]]
    assert len(rows) == 48 + 1
    assert (rows[-2]["time"], rows[-2]["kind"]) == ("2025-03-02T23:00:00Z", None)
    assert (rows[-1]["time"], rows[-1]["kind"]) == ("2025-01-06T00:00:00Z", "maintenance")


def test_a_log_row_tells_every_column_of_times_in_text(plants):
    given = params()
    dictionary = yaml.safe_load(given.validate_.dictionary.read_text())
    dictionary["tables"]["telemetry"]["seen"] = {"meaning": "", "type": "time", "role": "attribute"}
    Path("dictionary.yaml").write_text(yaml.safe_dump(dictionary))
    plants.telemetry = plants.telemetry.with_columns(seen=pl.lit(START))
    own = given.validate_.model_copy(update={"dictionary": Path("dictionary.yaml")})
    score.run(given.model_copy(update={"validate_": own}), NOW)
    inputs = json.loads(logged().filter(plant="lyon", machine="M2")["inputs"].item())
    assert inputs["data"][0][inputs["columns"].index("seen")] == "2025-01-06T00:00:00Z"


def test_features_are_those_of_the_whole_history_bit_by_bit(plants):
    run()
    assert not (score.FOLDER / "lyon/raw/telemetry/lyon" / f"{week(3)}.parquet").exists()
    model = load_model(paths.MODELS / "lyon")
    own = plants.telemetry.filter(plant="lyon")
    whole = build_features(
        own, plants.events, plants.machines(Plants, "lyon"), model.metadata.preparation, SHIPPED.dataset
    )
    expected = whole.filter(pl.col("time") == LAST).drop(KEYS).fill_nan(None).rows()
    found = logged().filter(plant="lyon").sort("machine")["features"].to_list()
    # M3 is not in the model's record: its healthy level is made of the rows at hand, whose first week is the same.
    assert [tuple(row) for row in found] == expected


def test_the_terminal_shows_plants_and_the_most_urgent_machines(capsys):
    run()
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[1] == ["lyon", "2025-03-02", "23:00", "3", "1", "0", "2"]
    assert lines[2] == ["porto", "2025-03-02", "23:00", "1", "0", "0", "0"]
    assert lines[5][:2] == ["lyon", "M2"]
    assert "vibration" in " ".join(lines[5])


def test_each_day_is_scored_with_what_is_known_then():
    run(NOW - timedelta(weeks=4))
    run(datetime.now(UTC))
    assert logged()["time"].value_counts().sort("time").rows() == [(START + timedelta(weeks=4, hours=-1), 4), (LAST, 4)]


def test_an_earlier_day_is_only_shown(challenger, capsys):
    given = params(
        table={"url": "sqlite:///planner.db", "name": "predictions"},
        webhook={"url": "https://planner.example/hook"},
        shadow=challenger,
    )
    run()
    before = logged()
    kept = {file: file.read_bytes() for file in score.FOLDER.rglob("*.parquet")}
    score.run(given, NOW, week(3) + timedelta(days=2))
    assert "2025-02-02 23:00" in capsys.readouterr().out
    assert logged().equals(before)
    assert {file: file.read_bytes() for file in score.FOLDER.rglob("*.parquet")} == kept
    assert not Path("planner.db").exists()


def test_an_alarm_under_repair_does_not_stand_anywhere_and_a_repair_that_is_told_later_reaches_the_page(plants, capsys):
    board = Board("data/prediction_log", 20_000)
    plants.events = events(("lyon", "M2", LAST - timedelta(hours=4), "failure", "bearing"))
    for repaired in (None, LAST + timedelta(minutes=1)):
        if repaired:
            plants.events = pl.concat([plants.events, events(("lyon", "M2", repaired, "maintenance", "scheduled"))])
        capsys.readouterr()
        run(datetime.now(UTC))
        plant, first = [line for line in capsys.readouterr().out.splitlines() if line.startswith("lyon")][:2]
        assert (plant.split()[3:5], "failed or serviced" in first) == (["3", "0"], True)
        board.refresh()
        shown = board.get("lyon", "M2")
        assert (shown.newest["alarm"], shown.stands) == (True, False)
        assert shown.maintenance == (repaired and (repaired.timestamp() * 1e6, "scheduled"))


def test_a_second_run_on_one_day_logs_nothing_twice():
    run()
    first = logged()
    run()
    assert logged().drop("scored_at").equals(first.drop("scored_at"))
    assert first["id"].is_unique().all()


def test_a_plant_that_cannot_be_read_is_named_and_the_others_are_scored(plants):
    plants.unreadable.add("porto")
    with pytest.raises(UpkeepError, match="the server is down") as caught:
        run()
    assert (caught.value.where["plant"], caught.value.where["stage"]) == ("porto", "score")
    assert set(logged()["plant"]) == {"lyon"}


def test_a_plant_whose_newest_batch_is_broken_is_named_with_batch_and_column(plants):
    mended = plants.telemetry
    spoil(plants, pressure_bar=pl.lit(999.0))
    with pytest.raises(UpkeepError, match="of the rows are in quarantine") as caught:
        run()
    where = caught.value.where
    assert (where["stage"], where["plant"]) == ("score", "porto")
    assert (where["batch"], where["column"]) == (str(week(WEEKS - 1)), "pressure_bar")
    assert set(logged()["plant"]) == {"lyon"}
    quarantine = pl.read_parquet(score.FOLDER / "porto/interim/quarantine/porto.parquet")
    assert quarantine.height == 168
    plants.telemetry = mended
    assert "`rm -r .upkeep/score/porto/raw`, then run this again" in caught.value.remedy
    shutil.rmtree(score.FOLDER / "porto/raw")
    run()
    assert set(logged()["plant"]) == {"lyon", "porto"}


def test_old_good_batches_do_not_hide_that_the_newest_ones_are_broken(plants):
    spoil(plants, pressure_bar=pl.when(pl.col("time").dt.hour() == 5).then(999.0).otherwise("pressure_bar"))
    bad = plants.telemetry.filter(plant="porto")["pressure_bar"] > 16
    rules = params().validate_.model_copy(update={"max_quarantined_share": 0.02})
    assert bad.mean() < 0.01
    with pytest.raises(UpkeepError, match="of the rows are in quarantine"):
        score.run(params().model_copy(update={"validate_": rules}), NOW)


def test_a_model_that_gives_no_answer_costs_its_own_plant_only(monkeypatch):
    monkeypatch.setattr(score, "find_faults", find_faults)
    file = paths.MODELS / "porto/model.json"
    metadata = json.loads(file.read_text())
    metadata["preparation"]["conditions"]["levels"] = [[0.0]]
    file.write_text(json.dumps(metadata))
    with pytest.raises(UpkeepError, match="the model gives no answer") as caught:
        run()
    assert caught.value.where["plant"] == "porto"
    assert set(logged()["plant"]) == {"lyon"}


def test_several_problems_are_each_told_and_summed_up(plants, caplog):
    plants.unreadable.add("porto")
    (paths.MODELS / "lyon/model.txt").unlink()
    with pytest.raises(UpkeepError, match="2 problems, each of which stands above; plants not scored: lyon, porto"):
        run()
    assert "the booster cannot be read" in caplog.text
    assert all("stage=score" in record.getMessage() for record in caplog.records)
    assert "the server is down" in caplog.text
    assert logged().is_empty()


def test_a_plant_without_a_model_and_a_model_without_a_plant_are_told(caplog):
    (paths.MODELS / "porto").rename(paths.MODELS / "gdansk")
    with pytest.raises(UpkeepError, match="plants not scored: gdansk, porto"):
        run()
    assert "there is no model" in caplog.text
    assert set(logged()["plant"]) == {"lyon"}


def test_a_machine_that_says_nothing_for_two_days_is_named_and_not_scored(plants, capsys):
    silent = (pl.col("plant") == "lyon") & (pl.col("machine") == "M3")
    plants.telemetry = plants.telemetry.filter(~(silent & (pl.col("time") >= LAST - timedelta(hours=48))))
    run()
    assert set(logged().filter(plant="lyon")["machine"]) == {"M1", "M2"}
    assert "lyon M3  2025-02-28 22:00" in capsys.readouterr().out


def test_a_machine_two_days_behind_is_still_scored(plants):
    behind = (pl.col("machine") == "M3") & (pl.col("time") > LAST - timedelta(hours=48))
    plants.telemetry = plants.telemetry.filter(~behind)
    run()
    assert "M3" in set(logged()["machine"])


def test_a_plant_without_recent_telemetry_is_an_error_of_its_own(plants):
    plants.telemetry = plants.telemetry.filter(
        (pl.col("plant") != "porto") | (pl.col("time") < START + timedelta(weeks=4))
    )
    with pytest.raises(UpkeepError, match="no recent telemetry of this plant") as caught:
        run()
    assert caught.value.where["plant"] == "porto"
    assert set(logged()["plant"]) == {"lyon"}


def test_a_machine_is_not_scored_on_a_window_that_the_batches_at_hand_cut_off(plants):
    cut = START + timedelta(weeks=6, hours=10)  # ten hours into the oldest batch that is fetched
    plants.telemetry = plants.telemetry.filter((pl.col("plant") != "porto") | (pl.col("time") < cut))
    with pytest.raises(UpkeepError, match="no recent telemetry of this plant"):
        run()


def test_a_plant_that_has_changed_its_unit_for_good_is_still_read_in_ours(plants):
    late = pl.col("time") >= START + timedelta(weeks=3)
    fahrenheit = pl.when(late).then(pl.col("temperature_c") * 1.8 + 32).otherwise("temperature_c")
    run()
    celsius = logged().sort("plant", "machine")["features"].list.get(1)
    plants.telemetry = plants.telemetry.with_columns(temperature_c=fahrenheit)
    run(log="converted")
    converted = pl.concat(rows for _, rows in read_parts("converted", MONDAY, set())).sort("plant", "machine")
    assert converted["features"].list.get(1).to_list() == pytest.approx(celsius.to_list(), abs=1e-3)


def test_the_next_batch_replaces_what_is_no_longer_needed():
    folder = score.FOLDER / "lyon/raw/telemetry/lyon"
    run(NOW - timedelta(weeks=2))
    assert sorted(file.stem for file in folder.iterdir()) == [str(week(number)) for number in (0, 4, 5)]
    run(NOW - timedelta(weeks=1))
    assert sorted(file.stem for file in folder.iterdir()) == [str(week(number)) for number in (0, 5, 6)]


def test_the_pipeline_s_own_folders_are_left_alone():
    run()
    assert not paths.RAW.exists()
    assert not paths.INTERIM.exists()
    assert not paths.REPORTS.exists()


def test_predictions_go_to_the_table_once(tmp_path):
    told = params(table={"url": f"sqlite:///{tmp_path}/planner.db", "name": "risk"})
    score.run(told, NOW)
    score.run(told, NOW)
    with sqlite3.connect(tmp_path / "planner.db") as planner:
        rows = planner.execute("SELECT plant, machine, alarm FROM risk ORDER BY plant, machine").fetchall()
    assert rows == [("lyon", "M1", 0), ("lyon", "M2", 1), ("lyon", "M3", 0), ("porto", "M1", 0)]


def test_in_the_table_an_alarm_ends_with_the_service_that_is_told_later(plants):
    told = params(table={"url": "sqlite:///planner.db", "name": "risk"})
    plants.events = events(("lyon", "M2", LAST + timedelta(minutes=1), "maintenance", "scheduled"))
    score.run(told, NOW)
    with sqlite3.connect("planner.db") as planner:
        assert planner.execute("SELECT sum(alarm), max(maintenance_code) FROM risk").fetchall() == [(0, "scheduled")]


@pytest.fixture
def planner(monkeypatch):
    monkeypatch.setenv(SECRET, "shared")
    monkeypatch.setattr("urllib3.util.retry.time.sleep", lambda _seconds: None)
    with listening("shared") as receiver:
        yield receiver


def test_the_planner_hears_of_an_alarm_once_and_again_after_the_machine_was_serviced(plants, planner):
    whole = plants.telemetry
    plants.telemetry = whole.filter(pl.col("time") < LAST)
    for _ in range(2):
        run(webhook={"url": planner.url})
    (alarm,) = planner.accepted.values()
    assert (alarm["machine"], alarm["episode"], len(planner.calls)) == ("M2", "2025-03-02T22:00:00Z", 1)
    assert "vibration" in alarm["reasons"][0]
    plants.telemetry = whole
    plants.events = pl.concat([plants.events, events(("lyon", "M2", LAST, "maintenance", "scheduled"))])
    run(webhook={"url": planner.url})
    assert [alarm["episode"] for alarm in planner.accepted.values()] == ["2025-03-02T22:00:00Z", "2025-03-02T23:00:00Z"]


def test_the_docs_show_all_that_the_planner_hears(planner):
    run(webhook={"url": planner.url})
    (alarm,) = planner.accepted.values()
    page = (ROOT / "docs/scoring.md").read_text(encoding="utf-8")
    assert list(json.loads(re.findall(r"```json\n(.*?)```", page, flags=re.DOTALL)[0])) == list(alarm)


def test_an_alarm_that_the_planner_did_not_accept_is_sent_again_by_the_next_run(planner):
    planner.answers = [(503, {})] * 6
    told = params(webhook={"url": planner.url})
    with pytest.raises(UpkeepError, match=r"did not accept 1 alarm\(s\); the first: HTTP status 503") as caught:
        score.run(told, NOW)
    assert "path-s3cret" not in str(caught.value)
    score.run(told, NOW)
    assert (len(planner.accepted), planner.repeated) == (1, 0)


def test_a_database_that_is_down_costs_neither_the_log_nor_the_alarm(planner):
    told = params(webhook={"url": planner.url}, table={"url": "sqlite:////nowhere/planner.db", "name": "predictions"})
    with pytest.raises(UpkeepError, match="cannot be written to the table predictions: unable to open"):
        score.run(told, NOW)
    assert logged().height == 4
    assert len(planner.accepted) == 1


def test_a_log_that_cannot_be_written_does_not_cost_the_alarm(planner, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UpkeepError, match="predictions cannot be written"):
        run(webhook={"url": planner.url}, log=str(tmp_path / "file/log"))
    assert len(planner.accepted) == 1


def test_a_wrong_setting_is_told_before_anything_is_done(monkeypatch):
    monkeypatch.delenv(SECRET, raising=False)
    with pytest.raises(UpkeepError, match=f"{SECRET} is not set"):
        run(webhook={"url": "https://planner.example/hook"})
    assert not score.FOLDER.exists()


@pytest.fixture
def challenger(tmp_path):
    """A folder with a challenger of lyon, which is another model than the champion."""
    folder = tmp_path / "challenger"
    shutil.copytree(paths.MODELS / "lyon", folder / "lyon")
    metadata = folder / "lyon/model.json"
    metadata.write_text(metadata.read_text().replace('"threshold": 0.5', '"threshold": 0.0'))
    return folder


def test_a_challenger_is_logged_beside_the_champion_and_told_to_nobody(challenger, capsys):
    run(table={"url": "sqlite:///planner.db", "name": "predictions"})
    alone = capsys.readouterr().out
    shutil.rmtree("data/prediction_log")
    run(shadow=challenger, table={"url": "sqlite:///planner.db", "name": "predictions"})
    assert capsys.readouterr().out == alone
    rows = logged()
    champions, challengers = (rows.filter(role=role) for role in ("champion", "challenger"))
    assert (champions.height, challengers.height) == (4, 3)
    assert challengers["alarm"].all()
    assert challengers["model_version"].unique().item() not in champions["model_version"]
    with sqlite3.connect("planner.db") as database:
        assert database.execute("SELECT count(*), sum(alarm) FROM predictions").fetchall() == [(4, 1)]


def damage(folder):
    (folder / "lyon/model.txt").write_text("tree")


@pytest.mark.parametrize("fault", [damage, shutil.rmtree])
def test_a_challenger_that_is_damaged_or_gone_is_a_warning(challenger, caplog, fault):
    fault(challenger)
    run(shadow=challenger)
    assert logged()["role"].to_list() == ["champion"] * 4
    assert "challenger" in caplog.text or "holds no model" in caplog.text


def test_a_challenger_that_is_slow_costs_only_itself(challenger, caplog, monkeypatch):
    monkeypatch.setattr(score, "CHALLENGER_SECONDS", 0.0)
    run(shadow=challenger)
    assert logged()["role"].to_list() == ["champion"] * 4
    assert "was not scored" in caplog.text
