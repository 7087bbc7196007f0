"""`upkeep monitor` on a small fleet: its pages and report, sources asked over real HTTP, and whom it tells."""

import json
import re
import threading
from base64 import b64encode
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pytest
import yaml
from one_sensor import DICTIONARY
from parameters import SHIPPED, changed
from receiver import listening

from upkeep import cli
from upkeep.core import paths
from upkeep.core.errors import UpkeepError
from upkeep.core.files import write_json
from upkeep.core.params import Params
from upkeep.core.plants import name_file, table_file
from upkeep.production import expectations, monitor, polling
from upkeep.production.estimates import Agreement
from upkeep.production.ledger import OUTCOMES
from upkeep.production.monitor import NotKnownError
from upkeep.production.outcomes import LEDGER
from upkeep.scoring.alerts import SECRET
from upkeep.scoring.prediction_log import write_part
from upkeep.sources import Delivery, Key
from upkeep.sources.manifest import empty_manifest, pack_delivery, write_manifest

MONDAY, WEEKS = date(2025, 1, 6), 12
PLANT = "<b>lyon"


def as_of(days: int) -> datetime:
    """So many days after the newest batch has ended."""
    return datetime(MONDAY.year, 1, 6, tzinfo=UTC) + timedelta(weeks=WEEKS, days=days)


class Listing:
    """A source that lists the weeks of one plant."""

    def __init__(self, options, _):
        self.weeks = options.get("weeks", WEEKS)

    def deliveries(self, until):
        if not self.weeks:
            raise UpkeepError("the historian is away", remedy="")
        weeks = [MONDAY + timedelta(weeks=number) for number in range(self.weeks)]
        return [Delivery("telemetry", PLANT, week, pl.DataFrame) for week in weeks if week <= until]


AGREED = Agreement(verdict="agrees", why="", windows=[])


def settings(*, weeks=WEEKS, **how) -> Params:
    fetch = changed(SHIPPED.fetch, source="test_monitor:Listing", options={"weeks": weeks}, until=MONDAY)
    parallel = changed(SHIPPED.parallel, backend="sequential")
    validate = changed(SHIPPED.validate_, dictionary="dictionary.yaml")
    sections = {"fetch": fetch, "parallel": parallel, "validate_": validate, "monitor": changed(SHIPPED.monitor, **how)}
    return SHIPPED.model_copy(update=sections)


@pytest.fixture(autouse=True)
def checkout(tmp_path, monkeypatch):
    """What `dvc repro drift` leaves behind of one plant that sends one reading a day."""
    monkeypatch.chdir(tmp_path)
    Path("dictionary.yaml").write_text(yaml.safe_dump({"tables": DICTIONARY}))
    days = [MONDAY + timedelta(days=day) for day in range(7 * WEEKS)]
    rows = pl.DataFrame({"plant": PLANT, "machine": "M1", "time": days, "heat": 1.0})
    rows = rows.with_columns(pl.col("time").cast(pl.Datetime("us", "UTC")))
    weeks = [Key("telemetry", PLANT, MONDAY + timedelta(weeks=number)) for number in range(WEEKS)]
    files = [pack_delivery(week, 1, rows.slice(7 * row, 7))[0] for row, week in enumerate(weeks)]
    write_manifest(empty_manifest(settings().fetch).with_files(files))
    for folder in (paths.INTERIM / "telemetry", paths.QUARANTINE):
        folder.mkdir(parents=True)
    rows.write_parquet(table_file(paths.INTERIM / "telemetry", PLANT))
    lost = pl.DataFrame(schema={"table": pl.String, "batch": pl.String, "column": pl.String})
    lost.write_parquet(table_file(paths.QUARANTINE, PLANT))
    table = {"rows_in": 84, "clean": 84, "duplicates": {}, "quarantined": {}}
    write_json(paths.DATA_QUALITY, {"plants": {PLANT: {"tables": {"telemetry": table}, "findings": []}}})
    column = {"method": "wasserstein", "score": 0.1, "threshold": 0.5, "drifted": False}
    drift = {"drifted": False, "share": 0.0, "columns": {"heat": column}, "current_rows": 1, "reference_rows": 1}
    write_json(paths.DRIFT / "drift.json", {PLANT: {**drift, "window": {"from": "", "to": ""}, "notes": []}})


def run(days=0, **how) -> UpkeepError | None:
    """Return the error that the command ends with."""
    try:
        monitor.run(settings(**how), as_of(days))
    except UpkeepError as error:
        return error
    return None


def report():
    return json.loads(monitor.REPORT.read_text())


def one_alarm() -> pl.DataFrame:
    """A ledger that has learnt what came of one alarm."""
    said = {
        "plant": PLANT,
        "machine": "M1",
        "at": as_of(-9),
        "model_version": "1",
        "probability": 0.9,
        "threshold": 0.5,
    }
    settled = {"outcome": "failed", "settled_at": as_of(-8), "known_at": as_of(-7)}
    return pl.DataFrame([{"kind": "alarm", "role": "champion", **said, **settled}], schema=LEDGER)


@contextmanager
def answering(*statuses):
    """A source that answers with these statuses, one after the other, and the last one from then on."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status = statuses[min(len(asked), len(statuses) - 1)]
            asked.append((self.path, self.headers["Authorization"]))
            self.send_response(status)
            self.send_header("Location", "/elsewhere")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield f"http://user:p%40ss@127.0.0.1:{server.server_port}/health?key=s3cret", asked
        server.shutdown()


def test_a_source_that_is_fine_is_not_said_of_all_plants_while_one_is_not(capsys):
    run(60)
    statuses = dict(line.split()[:2] for line in capsys.readouterr().out.splitlines()[1:])
    assert statuses.pop("shared") == "fine"
    assert "fine" not in statuses.values()


def test_both_pages_show_the_plant_and_ask_for_nothing_from_elsewhere():
    run(60)
    for page in (monitor.PLANNER, monitor.ENGINEER):
        text = page.read_text()
        assert "&lt;b&gt;lyon" in text
        assert PLANT not in text
        assert re.findall(r"(?:src|href)=\"(?!index.html|engineer.html)", text) == []
        assert "nothing since the batch of 2025-03-24" in text


def test_a_plant_whose_deliveries_stopped_fails_the_command_with_what_to_do():
    error = run(60)
    assert f"somebody has to act: {PLANT}: freshness: stale" in error.what
    assert not isinstance(error, NotKnownError)
    assert report()["standings"][PLANT]["status"] == "act"


def test_commands_are_set_as_code_on_both_pages_and_nothing_else_of_a_sentence_becomes_markup():
    monitor.write_whole(paths.RETRAINING, b"lost <b>all</b>, run `dvc pull <x>`")
    run(weeks=WEEKS + 1)
    for page in (monitor.PLANNER, monitor.ENGINEER):
        text = page.read_text()
        assert (
            "<code>upkeep retrain</code> said last: lost &lt;b&gt;all&lt;/b&gt;, run <code>dvc pull &lt;x&gt;</code>"
            in text
        )
        assert "run <code>upkeep outcomes</code>" in text
        assert "`" not in text.partition("<script>")[0]


@pytest.mark.parametrize("missing", [paths.MANIFEST, paths.DATA_QUALITY, paths.DRIFT / "drift.json"])
def test_what_is_not_there_is_not_known_says_how_to_get_it_and_is_no_success(missing):
    missing.unlink()
    error = run()
    assert error.code == NotKnownError.code == 69
    assert "dvc repro" in error.remedy


@pytest.mark.parametrize("folder", [paths.INTERIM / "telemetry", paths.QUARANTINE])
def test_a_plant_whose_tables_are_damaged_is_not_known_and_says_how_to_mend_them(folder):
    table_file(folder, PLANT).write_bytes(b"PAR1")
    error = run()
    assert isinstance(error, NotKnownError)
    assert any(signal["measure"] == "tables" for signal in report()["signals"])


def test_a_source_that_cannot_be_listed_costs_nothing_else():
    run(weeks=0)
    (asked,) = [signal for signal in report()["signals"] if signal["measure"] == "requests"]
    assert (asked["status"], asked["place"]) == ("watch", "test_monitor:Listing")
    assert "the historian is away" in asked["words"]


def test_while_the_source_cannot_be_listed_no_plant_is_called_silent():
    told = []
    for day, weeks in ((14, WEEKS + 2), (15, 0), (60, 0)):
        run(day, weeks=weeks)
        signals = [signal for signal in report()["signals"] if signal["measure"] == "freshness" and not signal["place"]]
        told += [(signal["status"], signal["words"].partition("; it came")[0]) for signal in signals]
    seen = ("fine", "fresh: the batch of 2025-04-07 is there")
    why = "unknown, since the source cannot be listed; stale: nothing since the batch of 2025-04-07, 6 batches ago"
    assert told == [seen, seen, ("unknown", why)]


def test_what_visits_found_is_not_read_to_learn_which_batches_there_are():
    params = settings()
    fetch = changed(params.fetch, findings="nowhere://log")
    with pytest.raises(NotKnownError):
        monitor.run(params.model_copy(update={"fetch": fetch}), as_of(0))
    (asked,) = [signal for signal in report()["signals"] if signal["measure"] == "requests"]
    assert asked["status"] == "fine"


def test_a_source_is_asked_at_each_run_and_what_it_answered_is_remembered():
    with answering(200, 503, 302, 200) as (url, asked):
        for day in range(4):
            run(day, watch=[{"name": "historian", "url": url}])
    assert asked == [("/health?key=s3cret", "Basic dXNlcjpwQHNz")] * 4
    polls = [each for each in polling.read_history().polls if each.name == "historian"]
    assert [each.fault for each in polls] == ["", "HTTP status 503", "HTTP status 302", ""]
    (signal,) = [signal for signal in report()["signals"] if signal["place"] == "historian"]
    assert signal["words"].startswith("recovered")


def test_a_source_is_told_a_password_of_any_characters_in_utf_8(monkeypatch):
    monkeypatch.setenv("KEY", "pä☂")
    with answering(200) as (url, asked):
        assert polling.poll("historian", url.replace("p%40ss", "${KEY}"), as_of(0)).fault == ""
    assert asked[0][1] == f"Basic {b64encode('user:pä☂'.encode()).decode()}"


def test_a_source_that_is_not_there_is_told_without_its_secrets(monkeypatch):
    monkeypatch.setenv("KEY", "s3cret")
    poll = polling.poll("historian", "http://user:${KEY}@127.0.0.1:1/health?key=${KEY}", as_of(0))
    assert poll.fault.startswith("no answer")
    assert "s3cret" not in poll.fault


def test_a_source_whose_variable_is_not_set_costs_nothing_else():
    run(watch=[{"name": "historian", "url": "http://${UPKEEP_NOWHERE}/health"}])
    (signal,) = [signal for signal in report()["signals"] if signal["place"] == "historian"]
    assert (signal["status"], "UPKEEP_NOWHERE is not set" in signal["words"]) == ("watch", True)


def test_an_answer_without_end_is_cut_and_one_that_never_begins_is_given_up(monkeypatch):
    monkeypatch.setattr(polling, "SECONDS", 0.2)
    monkeypatch.setattr(polling, "MOST_BYTES", 1000)

    class Endless(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/never":
                threading.Event().wait(2)
                return
            self.send_response(200)
            self.end_headers()
            try:
                while True:
                    self.wfile.write(b"x" * 1000)
            except OSError:
                pass

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Endless) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        assert polling.poll("endless", url, as_of(0)).fault == ""
        assert polling.poll("silent", f"{url}/never", as_of(0)).fault.startswith("no answer")
        server.shutdown()


@pytest.mark.parametrize(("verdict", "status"), [("agrees", "fine"), ("disagrees", "act"), ("unknown", "unknown")])
def test_however_well_its_data_looks_a_plant_is_not_fine_once_the_ledger_disagrees(monkeypatch, verdict, status):
    monkeypatch.setattr(expectations, "read_ledger", lambda _: one_alarm())
    agreement = Agreement(verdict=verdict, why="precision outside of its interval in 3 of 4 windows", windows=[])
    monkeypatch.setattr(expectations, "_check_estimates", lambda *_: agreement)
    (paths.MODELS / name_file(PLANT)).mkdir(parents=True)
    run()
    assert report()["standings"][PLANT]["status"] == status


def test_where_nothing_was_logged_whether_outcomes_are_as_expected_is_not_known(monkeypatch):
    write_part(settings().production.ledger, "part", one_alarm(), OUTCOMES)
    monkeypatch.setattr(expectations, "load_scorer", lambda _: SimpleNamespace(version="1"))
    (paths.MODELS / name_file(PLANT)).mkdir(parents=True)
    row = {"plant": PLANT, "machine": "M1", "time": as_of(-9), "split": "test", "chosen": True, "probability": 0.9}
    paths.PREDICTIONS.mkdir(parents=True)
    trained = pl.DataFrame([{**row, "alarm": True, "hours_to_failure": 9.0, "prevented": False}])
    trained.write_parquet(table_file(paths.PREDICTIONS, PLANT))
    run()
    found = {signal["measure"]: signal for signal in report()["signals"] if signal["plant"] == PLANT}
    assert found["outcomes"]["status"] == "fine"
    assert found["estimates"]["status"] == "unknown"
    assert "0 of 13 windows" in found["estimates"]["words"]


@pytest.mark.parametrize("model", ["damaged", "whole", "of an older version"])
def test_a_plant_whose_model_or_predictions_cannot_be_read_costs_no_other_its_page(monkeypatch, model):
    write_part(settings().production.ledger, "part", one_alarm(), OUTCOMES)
    (paths.MODELS / name_file(PLANT)).mkdir(parents=True)
    if model == "of an older version":  # which knew nothing of prevented failures
        paths.PREDICTIONS.mkdir(parents=True)
        pl.DataFrame({"plant": [PLANT]}).write_parquet(table_file(paths.PREDICTIONS, PLANT))
    if model != "damaged":
        monkeypatch.setattr(expectations, "load_scorer", lambda _: SimpleNamespace(version="1"))
    assert isinstance(run(), NotKnownError)
    found = {signal["measure"]: signal for signal in report()["signals"] if signal["plant"] == PLANT}
    assert found["estimates"]["status"] == "unknown"


def test_drift_is_handed_to_the_estimates_of_the_windows_that_it_was_looked_for_in(monkeypatch):
    write_part(settings().production.ledger, "part", one_alarm(), OUTCOMES)
    handed = {}
    monkeypatch.setattr(expectations, "load_scorer", lambda _: SimpleNamespace(version="1"))
    monkeypatch.setattr(expectations.pl, "read_parquet", lambda *_, **__: None)
    monkeypatch.setattr(expectations, "estimate_plant", lambda *given, **_: handed.update(given[2]) or [""])
    monkeypatch.setattr(expectations, "compare_with_outcomes", lambda *_: AGREED)
    monkeypatch.setattr(monitor, "_judge_tables", lambda *_: [])
    (paths.MODELS / name_file(PLANT)).mkdir(parents=True)
    report = json.loads((paths.DRIFT / "drift.json").read_text())
    first, second, third = sorted(expectations.list_windows(as_of(0)))[-3:]
    report[PLANT]["window"] = {"from": (second.end - timedelta(days=1)).isoformat(), "to": third.end.isoformat()}
    write_json(paths.DRIFT / "drift.json", report)
    run()
    assert [window for window, drift in handed.items() if drift] == [third, second]
    assert len(handed) == expectations.MOST_WINDOWS
    assert first in handed


def test_a_report_that_is_published_says_where(monkeypatch):
    monkeypatch.setenv("CI_PAGES_URL", "https://team.example/upkeep")
    run()
    assert report()["page"] == "https://team.example/upkeep/reports/monitoring/index.html"


def test_the_webhook_hears_of_a_status_that_has_held_once_and_of_its_end(monkeypatch):
    monkeypatch.setenv(SECRET, "shared")
    with listening("shared") as planner:
        for days, weeks in ((60, WEEKS), (61, WEEKS), (62, WEEKS), (63, WEEKS + 9), (64, WEEKS + 9), (65, WEEKS + 9)):
            run(days, weeks=weeks, webhook={"url": planner.url}, told_after=2)
        told = [alarm for alarm in planner.accepted.values() if alarm["plant"] == PLANT]
    assert [alarm["status"] for alarm in told] == ["act", "unknown"]
    assert "stale" in told[0]["why"][0]


def test_a_webhook_that_does_not_answer_is_told_of_and_tried_again(monkeypatch):
    monkeypatch.setenv(SECRET, "shared")
    monkeypatch.setattr("upkeep.scoring.alerts.PAUSES", (0.0,))
    run(60, webhook={"url": "http://127.0.0.1:1"}, told_after=1)
    assert report()["standings"][PLANT]["told"] == "fine"


def test_a_webhook_that_nothing_can_be_signed_for_hides_nothing_that_somebody_has_to_do(monkeypatch):
    monkeypatch.delenv(SECRET, raising=False)
    acting = run(60, webhook={"url": "https://planner.example"}, told_after=1)
    assert f"somebody has to act: {PLANT}" in acting.what
    assert f"{SECRET} is not set" in acting.what
    calm = run(0, webhook={"url": "https://planner.example"}, told_after=1)
    assert calm.what == f"the environment variable {SECRET} is not set"


def test_a_damaged_history_is_told_and_another_versions_report_is_passed_over():
    monitor.REPORT.parent.mkdir(parents=True)
    monitor.REPORT.write_text('{"as_of": "once"}')
    assert isinstance(run(), NotKnownError)
    polling.HISTORY.write_text("{")
    assert "cannot be used" in run().what


def test_a_retraining_that_failed_is_why_no_model_was_trained_again(monkeypatch):
    def fail(*_):
        raise UpkeepError("git has refused", remedy="")

    monkeypatch.setattr("upkeep.gitlab.retraining._checked_out_target", fail)
    with pytest.raises(UpkeepError, match="git has refused"):
        cli.jobs.retrain()
    run()
    assert report()["retraining"].endswith("`upkeep retrain` said last: git has refused")
