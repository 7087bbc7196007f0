"""``fetch.mode: reference``: raw data stays where it is, and all that is made of it is as with copies."""

import gzip
import json
import shutil
from datetime import date
from pathlib import Path

import fsspec
import polars as pl
import pytest
import yaml
from one_sensor import DICTIONARY
from typer.testing import CliRunner

from upkeep.cli import app
from upkeep.contract.dictionary import TABLES
from upkeep.core import paths
from upkeep.core.errors import UpkeepError
from upkeep.core.params import load_params
from upkeep.sources.manifest import read_manifest
from upkeep.stages import fetch, validate

ROOT = Path(__file__).parents[2]
OPTIONS = {
    "telemetry": [{"path": "in/t_{plant}_*.csv.gz"}, {"path": "in/more", "columns": {"heat": "temperature"}}],
    "events": {"path": "in/events.csv", "kind": "failure", "time_zone": "Europe/Berlin"},
    "machines": {"path": "in/machines.csv"},
}
WEEKS = [date(2025, 1, 6), date(2025, 1, 13), date(2025, 1, 20)]


def write(file, text):
    path = Path("in") / file
    path.parent.mkdir(parents=True, exist_ok=True)
    with fsspec.open(path, "wb", compression="infer") as stream:
        stream.write(text.encode())


def week(plant, day, heat=20):
    rows = "".join(f"m1,{day}T{hour:02}:00:00Z,{heat}\n" for hour in range(3))
    write(f"t_{plant}_{day}.csv.gz", f"machine,time,heat\n{rows}m2,,7\nm1,{day}T05:00:00Z,odd\n")


@pytest.fixture(autouse=True)
def _project(tmp_path, monkeypatch):
    """A folder of deliveries: a packed file per plant and week, one of Parquet with all plants, broken rows, events."""
    monkeypatch.chdir(tmp_path)
    for plant in ("lyon", "porto"):
        for day in WEEKS:
            week(plant, day)
    Path("in/more").mkdir()
    more = pl.DataFrame({"plant": ["lyon", None], "machine": ["m9", "m9"], "temperature": [30, 999]})
    more.with_columns(time=pl.lit("2025-01-14T08:00:00Z")).write_parquet("in/more/all.parquet")
    write("events.csv", "plant,machine,time,code\nlyon,m1,2025-01-15 10:00,seal\nporto,m1,2025-01-08 10:00,seal\n")
    write("machines.csv", "plant,machine,model,installed\nlyon,m1,a,2020-01-01\nporto,m1,b,2020-01-01\n")
    settings()
    Path("dictionary.yaml").write_text(yaml.safe_dump({"tables": DICTIONARY}), encoding="utf-8")


def settings(mode="reference", **changes):
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    params["fetch"] = {"source": "files", "until": "2025-01-20", "batch_days": 7, "reread_batches": 1} | {
        "options": OPTIONS,
        "mode": mode,
        **changes,
    }
    params["parallel"] = {"backend": "sequential", "jobs": 1}
    params["validate"] |= {"dictionary": "dictionary.yaml", "max_quarantined_share": 1}
    paths.PARAMS.write_text(yaml.safe_dump(params), encoding="utf-8")


def run():
    fetch.run(load_params())
    validate.run(load_params())
    outputs = [paths.DATA_QUALITY, *sorted(paths.INTERIM.rglob("*.parquet"))]
    return {str(path): path.read_bytes() for path in outputs}


def refusal(work):
    with pytest.raises(UpkeepError) as caught:
        work()
    return caught.value


def stored():
    return sorted(str(path.relative_to(paths.RAW)) for path in paths.RAW.rglob("*") if path.is_file())


def test_what_is_read_where_it_is_gives_the_same_bytes_as_copies_and_data_raw_holds_none():
    pinned, manifest = run(), paths.MANIFEST.read_bytes()
    assert stored() == ["manifest.json"]
    settings("copy")
    assert run() == pinned
    assert len(stored()) > 1
    assert b"references" not in paths.MANIFEST.read_bytes()
    settings()
    assert run() == pinned
    assert stored() == ["manifest.json"]
    assert paths.MANIFEST.read_bytes() == manifest


def test_neither_secrets_nor_places_of_this_machine_are_pinned(tmp_path, monkeypatch):
    monkeypatch.setenv("SHARE", str(tmp_path / "in"))
    reading = {**OPTIONS["events"], "path": "${SHARE}/events.csv"}
    settings(options={**OPTIONS, "events": reading})
    fetch.run(load_params())
    assert str(tmp_path) not in paths.MANIFEST.read_text()
    assert {reference.address for file in read_manifest().files for reference in file.references} >= {
        "t_lyon_2025-01-06.csv.gz",
        "more/all.parquet",
        "events.csv",
    }
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    shutil.move("in/events.csv", moved)
    monkeypatch.setenv("SHARE", str(moved))
    validate.run(load_params())


def test_a_file_that_was_changed_is_named_with_what_to_type():
    before = run()
    week("lyon", WEEKS[0], heat=99)
    read = refusal(lambda: validate.run(load_params()))
    assert "t_lyon_2025-01-06.csv.gz has changed" in read.what
    assert (read.where["plant"], read.where["batch"]) == ("lyon", WEEKS[0])
    fetched = refusal(lambda: fetch.run(load_params()))
    assert "t_lyon_2025-01-06.csv.gz has changed since it was fetched, or is gone" in fetched.what
    assert fetched.where == {**read.where, "file": fetched.where["file"]}
    assert "`upkeep fetch --again --plant lyon --batch 2025-01-06`" in fetched.remedy
    again = CliRunner().invoke(app, ["fetch", "--again", "--plant", "lyon", "--batch", "2025-01-06"])
    assert "1 changed" in again.output
    after = run()
    assert after != before
    settings("copy")
    shutil.rmtree(paths.RAW)
    assert run() == after


def test_a_file_that_is_gone_is_named_and_may_be_dropped():
    run()
    Path("in/t_porto_2025-01-06.csv.gz").unlink()
    for work in (validate.run, fetch.run):
        error = refusal(lambda work=work: work(load_params()))
        assert "is gone" in error.what
        assert "t_porto_2025-01-06.csv.gz" in error.what
        assert "--plant porto --batch 2025-01-06 --drop-vanished`" in error.remedy
    words = ["fetch", "--again", "--plant", "porto", "--batch", "2025-01-06", "--drop-vanished"]
    assert CliRunner().invoke(app, words, catch_exceptions=False).exit_code == 0
    run()


def test_of_many_changed_batches_the_first_is_named_and_the_others_are_counted():
    run()
    for day in WEEKS[:2]:
        week("lyon", day, heat=99)
    error = refusal(lambda: fetch.run(load_params()))
    assert "and so are files of 1 other batch" in error.what
    assert "`upkeep fetch --again --plant lyon`" in error.remedy


def test_a_file_may_grow_by_rows_of_later_batches():
    run()
    grown = "plant,machine,time,code\nlyon,m1,2025-01-15 10:00,seal\nporto,m1,2025-01-08 10:00,seal\n"
    write("events.csv", f"{grown}lyon,m1,2025-01-22 10:00,seal\n")
    run()
    events = pl.read_parquet(paths.INTERIM / "events/lyon.parquet")
    assert events.height == 2


@pytest.mark.parametrize("name", ["t_lyon_renamed.csv.gz", "t_lyon_2025-01-06.csv.gz"])
def test_a_file_that_is_renamed_or_packed_anew_is_pinned_anew_by_the_next_fetch(name):
    before = run()
    with fsspec.open("in/t_lyon_2025-01-06.csv.gz", "rt", compression="gzip") as stream:
        text = stream.read()
    Path("in/t_lyon_2025-01-06.csv.gz").unlink()
    with gzip.open(Path("in", name), "wt", compresslevel=1) as stream:
        stream.write(text)
    refusal(lambda: validate.run(load_params()))
    assert run() == before


def test_a_delivery_whose_pin_was_lost_is_told_and_pinned_again_by_the_next_fetch():
    before = run()
    manifest = json.loads(paths.MANIFEST.read_text())
    del manifest["files"][3]["references"]
    paths.MANIFEST.write_text(json.dumps(manifest))
    assert "is not pinned" in refusal(lambda: validate.run(load_params())).what
    assert run() == before


def test_nothing_is_read_by_other_options_than_it_was_fetched_by():
    before = run()
    settings(options={**OPTIONS, "events": {**OPTIONS["events"], "time_zone": "Asia/Tokyo"}})
    error = refusal(lambda: validate.run(load_params()))
    assert "fetch.options are not those that data/raw was fetched by" in error.what
    settings()
    assert run() == before


def test_late_rows_of_the_newest_batches_are_pinned_anew():
    run()
    week("lyon", WEEKS[2], heat=33)
    run()
    heat = pl.read_parquet(paths.INTERIM / "telemetry/lyon.parquet").filter(machine="m1")["heat"]
    assert 33 in heat.to_list()


@pytest.mark.parametrize(
    ("was", "now", "what"),
    [
        ('"events.csv"', '"../secret.csv"', "is none of the files that fetch.options names"),
        ('"events.csv"', '"/etc/passwd"', "is gone"),
        ('"reading":1', '"reading":9', "is none of the files that fetch.options names"),
        ('"plant":"lyon"', '"plant":"paris"', "has changed"),
        ('"sha256":"', '"sha256":"0', "has changed"),
    ],
)
def test_no_pin_leads_to_what_the_options_do_not_name_or_to_other_rows(was, now, what):
    fetch.run(load_params())
    manifest = json.loads(paths.MANIFEST.read_text())
    for file in manifest["files"]:
        pins = json.dumps(file["references"], separators=(",", ":"))
        file["references"] = json.loads(pins.replace(was, now))
    paths.MANIFEST.write_text(json.dumps(manifest))
    assert now in json.dumps(manifest, separators=(",", ":"))
    assert what in refusal(lambda: validate.run(load_params())).what


def test_a_large_file_is_refused_where_it_is_as_a_copy_would_be():
    fetch.run(load_params())
    params = load_params()
    small = params.model_copy(update={"limits": params.limits.model_copy(update={"columns": 1})})
    assert "limits.columns" in refusal(lambda: validate.run(small)).what


@pytest.mark.parametrize("source", ["sql", "cmapss", "simulator"])
def test_a_source_without_files_of_its_own_refuses_to_be_referred_to(source):
    options = {"sql": {"url": "sqlite://", "since": "2025-01-06", "plants": []}, "cmapss": {"folder": "x"}}
    simulated = {"seed": 1, "start": "2025-01-06", "plants": {"lyon": 1}, "defects": False}
    settings(source=source, options=options.get(source, simulated))
    assert "has no files that could be read where they are" in refusal(lambda: fetch.run(load_params())).what


def test_batches_before_since_are_not_used_but_machines_are():
    run()
    settings("copy", since="2025-01-13")
    run()
    batches = {table: {file.batch for file in read_manifest().files if file.table == table} for table in TABLES}
    assert batches == {"telemetry": set(WEEKS[1:]), "events": {WEEKS[1]}, "machines": {WEEKS[0]}}


def test_files_of_an_object_store_are_pinned_too():
    store = fsspec.filesystem("memory")
    store.put("in/", "/plant/in/", recursive=True)
    there = {
        table: [{**reading, "path": f"memory://plant/{reading['path']}"} for reading in readings]
        if isinstance(readings, list)
        else {**readings, "path": f"memory://plant/{readings['path']}"}
        for table, readings in OPTIONS.items()
    }
    pinned = run()
    settings(options=there)
    assert run()[str(paths.DATA_QUALITY)] == pinned[str(paths.DATA_QUALITY)]
    store.rm("/plant/in/events.csv")
    assert "events.csv is gone" in refusal(lambda: validate.run(load_params())).what
