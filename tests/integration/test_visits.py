"""What planners said of visits, from the service's spool to the events of the pipeline."""

from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest
from conftest import ROOT
from log_cases import logged_numbers, prediction

from upkeep.contract.dictionary import VISITS
from upkeep.core import paths
from upkeep.core.addresses import findings_beside
from upkeep.core.errors import UpkeepError
from upkeep.core.params import load_params
from upkeep.scoring.prediction_log import VISIT_LOG, list_before, read_parts, write_part
from upkeep.serving.log_writer import LogWriter
from upkeep.sources import Delivery
from upkeep.sources.manifest import read_manifest
from upkeep.stages import fetch, validate

MONDAY = datetime(2025, 1, 6, tzinfo=UTC)
SHIPPED = load_params(ROOT / "params.yaml")


class Lyon:
    """A source of two weeks of one machine's readings, and of one event in the first."""

    def __init__(self, options, batch_days):
        """Nothing to set."""

    def deliveries(self, until):  # noqa: ARG002  # it shows all it has
        for week in range(2):
            start = MONDAY + timedelta(weeks=week)
            readings = pl.DataFrame({"plant": "lyon", "machine": "press", "time": [start], "load_pct": 50.0})
            yield Delivery("telemetry", "lyon", start.date(), lambda readings=readings: readings)
        event = {"plant": "lyon", "machine": "press", "time": [MONDAY], "kind": "maintenance", "code": "bearing"}
        yield Delivery("events", "lyon", MONDAY.date(), lambda: pl.DataFrame(event))


def params(log, **changes):
    batches = {"until": "2025-01-13", "batch_days": 7, "reread_batches": 1}
    own = {"source": f"{__name__}:Lyon", "mode": "copy", **batches, "options": {}}
    chosen = SHIPPED.fetch.model_validate(own | {"findings": str(log)} | changes)
    dictionary = ROOT / "data/references/dictionary.yaml"
    checked = SHIPPED.validate_.model_copy(update={"dictionary": dictionary, "max_quarantined_share": 1})
    serial = SHIPPED.parallel.model_copy(update={"backend": "sequential"})
    return SHIPPED.model_copy(update={"fetch": chosen, "validate_": checked, "parallel": serial})


def visited(hours):
    return MONDAY + timedelta(hours=hours)


def say(log, part, finding, *, hours=200, said=300, **changes):
    row = {"id": part, "plant": "lyon", "machine": "press", "visited_at": visited(hours), "finding": finding}
    row |= {"alarm_at": visited(hours - 5), "said_at": visited(said), "said_by": "token 1"}
    write_part(findings_beside(str(log)), part, pl.DataFrame([row | changes], VISITS), VISIT_LOG)


def fetched(week):
    """Return the events of a week of all its deliveries, the first first."""
    batch = (MONDAY + timedelta(weeks=week)).date()
    files = (paths.RAW / "events/lyon" / f"{batch}{number}.parquet" for number in ("", ".2", ".3"))
    return [pl.read_parquet(file) for file in files if file.exists()]


@pytest.fixture(autouse=True)
def _in_an_empty_checkout(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def log(tmp_path):
    return tmp_path / "log"


def test_a_visit_joins_the_events_of_its_week_without_a_code_and_the_sources_own_stay(log):
    say(log, "a", "defect")
    say(log, "b", "nothing", hours=2)
    fetch.run(params(log))
    own, visits = fetched(0)
    assert own["code"].to_list() == ["bearing"]
    assert visits["finding"].to_list() == ["nothing"]
    [visit] = fetched(1)[0].rows(named=True)
    assert visit == {
        "plant": "lyon",
        "machine": "press",
        "kind": "maintenance",
        "code": None,
        "finding": "defect",
        "alarm_at": visited(195),
        "time": visited(200),
    }


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_the_newest_word_of_a_visit_counts_in_whatever_order_the_files_came(log, order):
    for part in order:
        say(log, part, {"a": "defect", "b": "nothing"}[part], said=300 + ord(part))
    fetch.run(params(log))
    assert fetched(1)[0]["finding"].to_list() == ["nothing"]


def test_a_word_that_is_corrected_after_it_was_fetched_holds_once_it_is_read_again(log):
    for part, finding in (("a", "defect"), ("b", "nothing")):
        say(log, part, finding, said=300 + ord(part))
        fetch.run(params(log))
    assert [rows["finding"].to_list() for rows in fetched(1)] == [["defect"], ["nothing"]]
    validate.run(params(log))
    clean = pl.read_parquet(paths.INTERIM / "events")
    assert clean.select("code", "finding").rows() == [("bearing", None), (None, "nothing")]


def test_the_same_words_give_the_same_bytes_and_a_second_run_changes_none(log):
    for number in range(5):
        say(log, f"part{number}", "defect", hours=200 + number % 2, said=300 + number, machine=f"press {number}")
    fetch.run(params(log))
    first = {path: path.read_bytes() for path in paths.RAW.rglob("*.*")}
    fetch.run(params(log))
    assert {path: path.read_bytes() for path in paths.RAW.rglob("*.*")} == first


def test_until_pins_which_visits_are_read_and_other_plants_are_nobodys(log):
    say(log, "a", "defect")
    say(log, "b", "defect", hours=2, plant="porto")
    fetch.run(params(log, until="2025-01-06"))
    assert [file.parent.name for file in (paths.RAW / "events").rglob("*.parquet")] == ["lyon"]


def test_a_log_without_words_or_that_is_not_there_yet_adds_nothing(log):
    fetch.run(params(log))
    assert [rows["code"].to_list() for rows in fetched(0)] == [["bearing"]]
    assert fetched(1) == []


@pytest.mark.parametrize(
    "damage", [lambda file: file.write_bytes(b"PAR1"), pl.DataFrame({"x": [1]}).write_parquet], ids=["damage", "other"]
)
def test_a_file_that_holds_no_words_is_named_and_costs_none_of_the_others(log, caplog, damage):
    say(log, "a", "defect")
    (file,) = log.rglob("a.parquet")
    damage(file.with_name("b.parquet"))
    fetch.run(params(log))
    assert [rows["finding"].to_list() for rows in fetched(1)] == [["defect"]]
    assert "b.parquet" in caplog.text
    [told] = read_manifest().findings
    assert (told["kind"], told["table"]) == ("unread_file", "events")
    assert told["detail"].startswith("b.parquet: ")


def test_an_address_that_cannot_be_read_stops_the_fetch_without_the_value_of_its_variable(monkeypatch):
    monkeypatch.setenv("KEY", "tiger")
    with pytest.raises(UpkeepError, match="cannot be read") as error:
        fetch.run(params("nowhere://${KEY}/log"))
    assert "tiger" not in str(error.value)


def test_another_log_is_another_origin_and_none_is_the_same_as_before_there_was_one(log, caplog):
    fetch.run(params(log, findings=None))
    before = paths.MANIFEST.read_text()
    fetch.run(params(log))
    assert "starts afresh" in caplog.text
    assert str(log) not in paths.MANIFEST.read_text()
    fetch.run(params(log, findings=None))
    assert paths.MANIFEST.read_text() == before


WORD = {"id": "r", "plant": "lyon", "machine": "press", "visited_at": MONDAY, "alarm_at": None}
WORD |= {"finding": "defect", "said_at": MONDAY, "said_by": None}


def spool_all(log, spool):
    """Write a word between two predictions, and ship what can be shipped."""
    writer = LogWriter(str(log), spool, max_spool_bytes=10**9)
    writer.start()
    writer.append(prediction(1))
    assert writer.append(WORD, VISIT_LOG)
    writer.append(prediction(2))
    writer.close()
    return writer


def words(log):
    return [
        row
        for _, rows in read_parts(findings_beside(str(log)), date.min, set(), log=VISIT_LOG)
        for row in rows.rows(named=True)
    ]


def test_words_and_predictions_share_the_spool_and_part_on_the_way_to_their_logs(log, tmp_path):
    writer = spool_all(log, tmp_path / "spool")
    assert words(log) == [WORD]
    assert logged_numbers(log) == [1, 2]
    assert (writer.written, writer.shipped, writer.last_error) == (3, 3, "")
    assert all("findings" not in name for name in list_before(str(log), date.max))  # so that none is pruned


def test_a_log_that_takes_predictions_only_for_a_while_holds_all_once_in_the_end(log, tmp_path):
    log.mkdir()
    (log / "findings").write_text("in the way of the folder")
    assert "findings" in spool_all(log, tmp_path / "spool").last_error
    (log / "findings").unlink()
    writer = LogWriter(str(log), tmp_path / "spool", max_spool_bytes=10**9)
    writer.start()
    writer.close()
    assert (words(log), logged_numbers(log)) == ([WORD], [1, 2])
