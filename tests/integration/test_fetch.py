import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from datetime import date, timedelta
from functools import partial
from pathlib import Path

import polars as pl
import pytest

from upkeep.core import paths
from upkeep.core.errors import UpkeepError
from upkeep.core.params import Params, load_params
from upkeep.sources import Delivery
from upkeep.sources import manifest as manifest_module
from upkeep.sources import store as store_module
from upkeep.sources.manifest import read_manifest
from upkeep.stages import fetch

REPOSITORY = Path(__file__).parents[2]
MONDAY = date(2025, 1, 6)


class Shelf:
    """A source whose batches stand in its options: plant -> batch -> deliveries, each a list of loads."""

    changing = None

    def __init__(self, options, batch_days):  # noqa: ARG002  # a source gets it
        self.plants = options["plants"] if self.changing is None else self.changing
        self.seconds = options.get("seconds", 0)

    def deliveries(self, until):  # noqa: ARG002  # a shelf shows all it has
        for plant, batches in self.plants.items():
            for batch, deliveries in batches.items():
                for loads in deliveries:
                    yield Delivery("telemetry", plant, date.fromisoformat(batch), lambda loads=loads: self.read(loads))

    def read(self, loads):
        time.sleep(self.seconds)
        return pl.DataFrame({"load": loads}, schema={"load": pl.Float64})


class Killed(BaseException):
    pass


def week(number):
    return MONDAY + timedelta(weeks=number)


def params(plants, until=MONDAY, reread=1, **options) -> Params:
    shipped = load_params(REPOSITORY / "params.yaml")
    own = {"source": f"{__name__}:Shelf", "mode": "copy", "until": until, "batch_days": 7, "reread_batches": reread}
    chosen = shipped.fetch.model_validate({**own, "options": {"plants": plants, **options}})
    return shipped.model_copy(update={"fetch": chosen})


def lyon(*batches):
    return {"lyon": {str(week(number)): [[float(number)]] for number in batches}}


def write_by(monkeypatch, write):
    for module in (manifest_module, store_module):
        monkeypatch.setattr(module, "write_whole", write)


def raw_bytes(root=paths.RAW):
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.fixture(autouse=True)
def _in_an_empty_checkout(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def shelf(monkeypatch):
    """A shelf that changes without its options telling so, as real sources do."""
    monkeypatch.setattr(Shelf, "changing", {})
    return Shelf.changing


def test_each_delivery_becomes_a_file_that_the_manifest_lists():
    fetch.run(params({"lyon": {str(MONDAY): [[1.0, 2.0]]}}))
    (file,) = read_manifest().files
    content = (paths.RAW / "telemetry/lyon/2025-01-06.parquet").read_bytes()
    assert (file.file, file.rows, file.bytes) == ("telemetry/lyon/2025-01-06.parquet", 2, len(content))
    assert pl.read_parquet(content)["load"].to_list() == [1.0, 2.0]


def test_a_second_run_changes_no_byte_and_no_file():
    fetch.run(params(lyon(0, 1), until=week(1)))
    before = raw_bytes()
    touched = (paths.RAW / "telemetry/lyon/2025-01-06.parquet").stat().st_mtime_ns
    fetch.run(params(lyon(0, 1), until=week(1)))
    assert raw_bytes() == before
    assert (paths.RAW / "telemetry/lyon/2025-01-06.parquet").stat().st_mtime_ns == touched


def test_a_batch_after_until_is_not_fetched():
    fetch.run(params(lyon(0, 1)))
    assert [file.batch for file in read_manifest().files] == [MONDAY]


def test_until_moved_back_and_on_again_ends_with_the_same_bytes():
    fetch.run(params(lyon(0, 1, 2), until=week(2)))
    before = raw_bytes()
    fetch.run(params(lyon(0, 1, 2), until=week(0)))
    assert list(raw_bytes()) == ["manifest.json", "telemetry/lyon/2025-01-06.parquet"]
    fetch.run(params(lyon(0, 1, 2), until=week(2)))
    assert raw_bytes() == before


def test_a_late_row_is_stored_as_a_second_delivery_of_its_batch(shelf):
    shelf.update({"lyon": {str(MONDAY): [[1.0]]}})
    fetch.run(params({}))
    shelf.update({"lyon": {str(MONDAY): [[1.0, 2.0]]}})
    fetch.run(params({}))
    fetch.run(params({}))
    assert [(file.file, file.delivery, file.rows) for file in read_manifest().files] == [
        ("telemetry/lyon/2025-01-06.parquet", 1, 1),
        ("telemetry/lyon/2025-01-06.2.parquet", 2, 2),
    ]


def test_a_batch_older_than_those_read_again_stays_as_it_was(shelf):
    shelf.update(lyon(0, 1))
    fetch.run(params({}, until=week(1)))
    shelf.update({"lyon": {str(week(0)): [[9.0]], str(week(1)): [[1.0]]}})
    fetch.run(params({}, until=week(1)))
    assert len(read_manifest().files) == 2


def test_a_batch_that_the_source_sends_twice_is_stored_twice_and_no_more():
    twice = {"lyon": {str(MONDAY): [[1.0], [1.0]]}}
    fetch.run(params(twice))
    before = raw_bytes()
    fetch.run(params(twice))
    assert [file.delivery for file in read_manifest().files] == [1, 2]
    assert raw_bytes() == before


def test_a_plant_that_is_listed_but_has_no_row_in_any_table_is_warned_of(caplog):
    fetch.run(params({**lyon(0), "Porto": {str(MONDAY): [[]]}}))
    assert caplog.messages == ["plants of which no table has a row: Porto; name them as the tables do"]


def test_a_batch_without_rows_is_not_stored_and_asked_for_again(shelf):
    shelf.update({"lyon": {str(week(0)): [[]], str(week(1)): [[1.0]]}})
    fetch.run(params({}, until=week(1), reread=0))
    assert [file.batch for file in read_manifest().files] == [week(1)]
    shelf.update({"lyon": {str(week(0)): [[5.0]], str(week(1)): [[1.0]]}})
    fetch.run(params({}, until=week(1), reread=0))
    assert [file.batch for file in read_manifest().files] == [week(0), week(1)]


def test_other_options_start_afresh_and_say_so(caplog):
    fetch.run(params(lyon(0, 1), until=week(1)))
    fetch.run(params({"porto": {str(MONDAY): [[1.0]]}}, until=week(1)))
    assert list(raw_bytes()) == ["manifest.json", "telemetry/porto/2025-01-06.parquet"]
    (said,) = (message for message in caplog.messages if message.endswith("starts afresh"))
    assert said.startswith("source, mode, options")  # the command puts its name before it


def test_options_that_cannot_be_used_cost_no_raw_data():
    fetch.run(params(lyon(0)))
    before = raw_bytes()
    with pytest.raises(UpkeepError, match="has no telemetry"):
        fetch.run(params({}))
    assert raw_bytes() == before


@pytest.mark.parametrize("damage", ["cut", "changed", "gone"])
def test_a_damaged_file_is_named(damage):
    fetch.run(params(lyon(0)))
    path = paths.RAW / "telemetry/lyon/2025-01-06.parquet"
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(content[:-1] if damage == "cut" else content[:-1] + b"x")
    with pytest.raises(UpkeepError, match="a raw file") as caught:
        fetch.run(params(lyon(0)))
    assert str(caught.value.where["file"]) == str(path)
    assert caught.value.remedy == "type `upkeep fetch --again --plant lyon --batch 2025-01-06`, then `dvc repro`"
    read_again(params(lyon(0)), "lyon", MONDAY)
    assert path.read_bytes() == content


def test_a_damaged_manifest_is_named():
    fetch.run(params(lyon(0)))
    paths.MANIFEST.write_text("{")
    with pytest.raises(UpkeepError, match="manifest of the raw data cannot be used") as caught:
        fetch.run(params(lyon(0)))
    assert caught.value.remedy == "delete the folder data/raw and run this again"
    shutil.rmtree(paths.RAW)
    fetch.run(params(lyon(0)))


def test_what_the_manifest_does_not_list_is_removed_or_written_again():
    fetch.run(params(lyon(0)))
    before = raw_bytes()
    for name in ("telemetry/lyon/2025-01-06.parquet.tmp", "telemetry/lyon/2025-01-06.2.parquet", "manifest.json.tmp"):
        (paths.RAW / name).write_bytes(b"half")
    fetch.run(params(lyon(0)))
    assert raw_bytes() == before
    paths.MANIFEST.unlink()
    (paths.RAW / "telemetry/lyon/2025-01-06.parquet").write_bytes(b"foreign")
    fetch.run(params(lyon(0)))
    assert raw_bytes() == before


def mend(shelf):
    """Three batches of two plants, of which the oldest is then mended."""
    broken = {plant: {str(week(number)): [[float(number)]] for number in range(3)} for plant in ("lyon", "porto")}
    shelf.update(broken)
    fetch.run(params({}, until=week(2)))
    shelf.update({plant: {**batches, str(week(0)): [[7.0, 8.0]]} for plant, batches in broken.items()})
    return params({}, until=week(2))


def read_again(settings, plant=None, batch=None, *, drop_vanished=False):
    said = fetch.read_again(settings, plant, batch, drop_vanished=drop_vanished)
    fetch.run(settings)
    return said.splitlines()


def test_a_mended_delivery_takes_the_place_of_the_broken_one_once_it_is_read_again(shelf, tmp_path, monkeypatch):
    mended = mend(shelf)
    fetch.run(mended)  # looks at the newest batches only
    assert read_again(mended) == [
        "6 batches read again, 2 changed",
        "  telemetry of lyon, 2025-01-06: changed",
        "  telemetry of porto, 2025-01-06: changed",
        "go on with `dvc repro`",
    ]
    replaced = raw_bytes()
    assert read_again(mended) == ["6 batches read again, 0 changed", "go on with `dvc repro`"]
    (tmp_path / "anew").mkdir()
    monkeypatch.chdir(tmp_path / "anew")
    fetch.run(mended)
    assert raw_bytes() == replaced


def test_a_row_that_is_gone_and_a_second_delivery_that_is_gone_are_changes_too(shelf):
    shelf.update({"lyon": {str(week(0)): [[1.0, 2.0]], str(week(1)): [[3.0], [4.0]]}})
    fetch.run(params({}, until=week(1)))
    shelf.update({"lyon": {str(week(0)): [[1.0]], str(week(1)): [[3.0]]}})
    assert len(read_again(params({}, until=week(1)))) == 4
    assert [(file.rows, file.delivery) for file in read_manifest().files] == [(1, 1), (1, 1)]


@pytest.mark.parametrize(
    ("plant", "batch", "changed"),
    [("lyon", None, ["lyon"]), (None, week(0) + timedelta(days=2), ["lyon", "porto"]), ("porto", week(1), [])],
)
def test_only_the_plant_and_the_batch_that_are_named_are_read_again(shelf, plant, batch, changed):
    said = read_again(mend(shelf), plant, batch)
    assert said[1:-1] == [f"  telemetry of {name}, 2025-01-06: changed" for name in changed]


@pytest.mark.parametrize(("plant", "batch"), [("nantes", None), ("lyon", week(9))])
def test_what_was_never_stored_cannot_be_read_again(shelf, plant, batch):
    with pytest.raises(UpkeepError, match="nothing is stored") as caught:
        read_again(mend(shelf), plant, batch)
    assert "lyon, porto" in caught.value.expected


@pytest.mark.parametrize("gone", [{}, {str(week(0)): [[]]}])
def test_a_batch_that_the_source_has_no_more_is_said_and_kept_unless_it_is_to_be_dropped(shelf, gone):
    settings = mend(shelf)
    shelf["lyon"] = {str(week(1)): [[1.0]], str(week(2)): [[2.0]], **gone}
    said = read_again(settings, "lyon")
    place = "  telemetry of lyon, 2025-01-06: no longer in the source"
    assert said[1] == f"{place}, kept without --drop-vanished"
    assert len(read_manifest().files) == 6
    assert read_again(settings, "lyon", drop_vanished=True)[1] == f"{place}, dropped"
    assert list(raw_bytes()) == ["manifest.json", *sorted(file.file for file in read_manifest().files)]
    assert len(read_manifest().files) == 5


def test_a_source_that_fails_half_way_through_costs_nothing(shelf, monkeypatch):
    settings = mend(shelf)
    before = raw_bytes()

    def fail(_shelf, loads):
        if loads == [2.0]:
            raise UpkeepError("the line is dead", remedy="call again")
        return pl.DataFrame({"load": loads})

    with monkeypatch.context() as patched:
        patched.setattr(Shelf, "read", fail)
        with pytest.raises(UpkeepError, match="the line is dead"):
            fetch.read_again(settings, None, None, drop_vanished=False)
    assert read_manifest().files == read_manifest().model_validate_json(before["manifest.json"]).files
    assert {name: raw_bytes()[name] for name in before} == before


def test_reading_again_that_is_stopped_before_any_write_leaves_the_old_or_the_new(shelf, tmp_path, monkeypatch):
    write = store_module.write_whole

    def stop_at(number):
        writes = iter(range(10**6))

        def write_or_die(path, content):
            if next(writes) == number:
                raise Killed
            write(path, content)

        write_by(monkeypatch, write_or_die)
        return writes

    outcomes = []
    for number in range(100):
        (tmp_path / str(number)).mkdir()
        monkeypatch.chdir(tmp_path / str(number))
        write_by(monkeypatch, write)
        shelf.clear()
        settings = mend(shelf)
        old = raw_bytes()
        writes = stop_at(number)
        try:
            fetch.read_again(settings, None, None, drop_vanished=False)
        except Killed:
            write_by(monkeypatch, write)
            for file in read_manifest().files:
                store_module.check_file(paths.RAW, file)
            fetch.run(settings)
            outcomes.append(raw_bytes())
        else:
            new = raw_bytes()
            break
    assert next(writes) > 4
    assert {number for number, outcome in enumerate(outcomes) if outcome == old} | {
        number for number, outcome in enumerate(outcomes) if outcome == new
    } == set(range(len(outcomes)))
    assert outcomes[0] == old
    assert outcomes[-1] == new


def test_until_must_be_the_first_day_of_a_batch():
    with pytest.raises(UpkeepError, match="not the first day") as caught:
        fetch.run(params(lyon(0), until=MONDAY + timedelta(days=2)))
    assert caught.value.expected == "2025-01-06 or 2025-01-13"
    for day in caught.value.expected.split(" or "):
        fetch.run(params(lyon(0), until=date.fromisoformat(day)))


def test_plants_whose_names_look_alike_or_cannot_name_a_folder_are_stored_apart():
    names = ["../lyon", "Lyon", "lyon", "北京", "上海"]
    fetch.run(params({name: {str(MONDAY): [[float(load)]]} for load, name in enumerate(names)}))
    stored = {file.plant: paths.RAW / file.file for file in read_manifest().files}
    assert [pl.read_parquet(stored[name])["load"].item() for name in names] == [0, 1, 2, 3, 4]
    assert len({str(file).casefold() for file in stored.values()}) == len(names)
    assert all(file.resolve().is_relative_to(paths.RAW.resolve()) for file in stored.values())


@pytest.mark.parametrize("plant", ["x" * 100_000, "lyon\n| porto |"])
def test_a_plant_that_is_called_what_no_name_is_is_an_error_that_shows_it_in_short(plant):
    with pytest.raises(UpkeepError, match=r"the source names a plant (x+…|lyon.*): a name has") as caught:
        fetch.run(params(lyon(0) | {plant: lyon(0)["lyon"]}))
    assert len(caught.value.what.splitlines()) == 1
    assert len(caught.value.what) < 120


def test_an_error_while_reading_names_the_delivery(monkeypatch):
    def fail(*_):
        raise UpkeepError("the line is dead", expected="an answer", remedy="call again")

    monkeypatch.setattr(Shelf, "read", fail)
    with pytest.raises(UpkeepError) as caught:
        fetch.run(params(lyon(0)))
    assert caught.value.where == {"table": "telemetry", "plant": "lyon", "batch": MONDAY}


@pytest.mark.parametrize("save_seconds", [-1, 3600])
def test_a_fetch_that_is_stopped_before_any_write_ends_with_the_same_bytes_when_run_again(
    tmp_path, monkeypatch, save_seconds
):
    monkeypatch.setattr(store_module, "SAVE_SECONDS", save_seconds)
    plants = {"lyon": {str(week(0)): [[1.0], [2.0]], str(week(1)): [[3.0]]}, "porto": {str(week(0)): [[4.0]]}}
    write = store_module.write_whole

    def run_in(folder, stop_at=None):
        writes = iter(range(10**6))

        def write_or_die(path, content):
            if next(writes) == stop_at:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.with_name(path.name + ".tmp").write_bytes(content[:1])
                raise Killed
            write(path, content)

        (tmp_path / folder).mkdir(exist_ok=True)
        monkeypatch.chdir(tmp_path / folder)
        write_by(monkeypatch, write_or_die)
        fetch.run(params(plants, until=week(1)))
        return next(writes)

    total = run_in("whole")
    whole = raw_bytes()
    assert total > 4
    for stop_at in range(total):
        with pytest.raises(Killed):
            run_in(f"stopped-{stop_at}", stop_at)
        run_in(f"stopped-{stop_at}")
        assert raw_bytes() == whole


def test_a_fetch_that_is_killed_ends_with_the_same_bytes_when_run_again(tmp_path):
    plants = {plant: {str(week(number)): [[float(number)]] for number in range(10)} for plant in ("lyon", "porto")}
    shop = importlib.import_module(Path(__file__).stem)  # under the name that the killed process knows it by, too
    slow = shop.params(plants, until=week(9), seconds=0.01)
    fetch.run(slow)
    whole = raw_bytes()
    script = textwrap.dedent(f"""
        import os, sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        import {Path(__file__).stem} as shop
        from upkeep.sources import store
        from upkeep.stages import fetch
        store.SAVE_SECONDS = 0.03
        os.chdir({str(tmp_path)!r})
        os.makedirs("killed", exist_ok=True)
        os.chdir("killed")
        print("ready", flush=True)
        fetch.run(shop.params({plants!r}, until=shop.week(9), seconds=0.01))
    """)
    for after in (0.02, 0.05, 0.08):
        process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
        process.stdout.readline()
        time.sleep(after)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert process.returncode == -signal.SIGKILL
    os.chdir(tmp_path / "killed")
    fetch.run(slow)
    assert raw_bytes() == whole


def test_the_bytes_do_not_depend_on_the_number_of_threads(tmp_path):
    script = textwrap.dedent("""
        import hashlib, polars as pl, pathlib
        from upkeep.sources import Key
        from upkeep.sources.store import store
        from datetime import date
        rows = pl.DataFrame({"load": pl.int_range(600_000, eager=True).cast(pl.Float64) / 7})
        print(store(pathlib.Path.cwd(), Key("telemetry", "lyon", date(2025, 1, 6)), 1, pl.concat([rows, rows])).sha256)
    """)
    digests = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "POLARS_MAX_THREADS": threads},
            cwd=tmp_path,
            check=True,
            capture_output=True,
        ).stdout
        for threads in ("1", "4")
    }
    assert len(digests) == 1


def test_the_manifest_holds_neither_options_nor_times():
    fetch.run(params(lyon(0), password="tiger"))
    manifest = json.loads(paths.MANIFEST.read_text())
    assert set(manifest) == {"source", "options_sha256", "files"}
    assert "tiger" not in paths.MANIFEST.read_text()
    assert set(manifest["files"][0]) == {"table", "plant", "batch", "delivery", "file", "rows", "bytes", "sha256"}


def folder_elsewhere(tmp_path, names=("2025-01-06.parquet", "precious.parquet")):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in names:
        (elsewhere / name).write_bytes(b"not ours")
    return elsewhere


@pytest.mark.parametrize("link", ["telemetry", "telemetry/lyon", "telemetry/gone"])
@pytest.mark.parametrize("again", [False, True])
def test_nothing_is_written_or_deleted_through_a_link_to_a_folder_elsewhere(tmp_path, link, again):
    fetch.run(params(lyon(0)))
    path = paths.RAW / link
    if path.exists():
        shutil.rmtree(path)
    if link == "telemetry":
        (folder_elsewhere(tmp_path) / "lyon").mkdir()
        (tmp_path / "elsewhere/lyon/precious.parquet").write_bytes(b"not ours")
    else:
        folder_elsewhere(tmp_path)
    path.symlink_to(tmp_path / "elsewhere")
    before = raw_bytes(tmp_path / "elsewhere")
    run = partial(fetch.read_again, plant=None, batch=None, drop_vanished=True) if again else fetch.run
    with pytest.raises(UpkeepError, match=r"is not in data/raw: it leads to .*elsewhere") as caught:
        run(params(lyon(0)))
    assert raw_bytes(tmp_path / "elsewhere") == before
    assert "upkeep fetch --again" in caught.value.remedy


@pytest.mark.parametrize("file", ["../elsewhere/2025-01-06.parquet", "{}/elsewhere/2025-01-06.parquet", "a/../../../x"])
def test_a_manifest_that_lists_a_file_outside_is_refused(tmp_path, file):
    folder_elsewhere(tmp_path)
    fetch.run(params(lyon(0)))
    manifest = read_manifest()
    (listed,) = manifest.files
    store_module.write_manifest(manifest.with_files([listed.model_copy(update={"file": file.format(tmp_path)})]))
    with pytest.raises(UpkeepError, match="is not in data/raw"):
        fetch.run(params(lyon(0)))
    with pytest.raises(UpkeepError, match="is not in data/raw"):
        store_module.scan_delivery(paths.RAW, *read_manifest().files)
    assert (tmp_path / "elsewhere/2025-01-06.parquet").read_bytes() == b"not ours"


def test_raw_data_on_another_disk_and_files_that_are_links_into_a_cache_are_used(tmp_path):
    (tmp_path / "disk").mkdir()
    paths.RAW.parent.mkdir()
    paths.RAW.symlink_to(tmp_path / "disk")
    fetch.run(params(lyon(0)))
    file = paths.RAW / "telemetry/lyon/2025-01-06.parquet"
    cached = file.rename(tmp_path / "cached").absolute()
    cached.chmod(0o444)
    file.symlink_to(cached)
    before = cached.read_bytes()
    fetch.run(params({"lyon": {str(MONDAY): [[5.0]], **lyon(1)["lyon"]}}, until=week(1)))
    assert [each.batch for each in read_manifest().files] == [MONDAY, week(1)]
    assert cached.read_bytes() == before


@pytest.mark.parametrize("plant", ["x" * 200, "../" * 50, "/etc", "..", "ü" * 200])
def test_files_of_a_plant_are_in_raw_data_whatever_it_is_called(plant):
    fetch.run(params({plant: {str(MONDAY): [[1.0]]}}))
    (file,) = read_manifest().files
    assert file.plant == plant
    assert (paths.RAW / file.file).resolve().is_relative_to(paths.RAW.resolve())
    assert "1 batches read again" in fetch.read_again(
        params({plant: {str(MONDAY): [[1.0]]}}), plant, None, drop_vanished=True
    )


UNUSABLE = {
    "a folder": lambda file: file.mkdir(),
    "a pipe": os.mkfifo,
    "an endless device": lambda file: file.symlink_to("/dev/zero"),
    "Latin-1": lambda file: file.write_bytes(b'{"source": "S\xfcd"}'),
    "a list": lambda file: file.write_text("[]"),
    "nested": lambda file: file.write_text("[" * 100_000),
}


@pytest.mark.parametrize("kind", UNUSABLE)
def test_a_manifest_that_cannot_be_used_is_named(kind):
    paths.RAW.mkdir(parents=True)
    UNUSABLE[kind](paths.MANIFEST)
    for run in (read_manifest, lambda: fetch.run(params(lyon(0)))):
        with pytest.raises(UpkeepError, match="the manifest of the raw data cannot be used") as caught:
            run()
        assert len(str(caught.value)) < 1000
