"""Raw data that stays in an object store: read there, and an error once it is not what it was."""

from pathlib import Path

import polars as pl
import pytest
import yaml
from seaweed import KEY, SECRET, Server, require_seaweed

from upkeep.core import paths
from upkeep.core.errors import UpkeepError
from upkeep.core.params import load_params
from upkeep.stages import fetch, validate

ROOT = Path(__file__).parents[2]
TEXT = {"type": "text", "role": "key", "meaning": ""}
COLUMNS = {"plant": TEXT, "machine": TEXT, "time": {**TEXT, "type": "time"}}
DICTIONARY = {
    "telemetry": {**COLUMNS, "heat": {"role": "sensor", "meaning": ""}},
    "events": {**COLUMNS, "kind": TEXT, "code": TEXT},
    "machines": {"plant": TEXT, "machine": TEXT, "model": TEXT, "installed": COLUMNS["time"]},
}


@pytest.fixture
def store(tmp_path, monkeypatch):
    require_seaweed()
    (tmp_path / "weed").mkdir()
    server = Server(tmp_path / "weed")
    server.start()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("S3_SECRET", SECRET)
    client = {"key": KEY, "secret": "$S3_SECRET", "client_kwargs": {"endpoint_url": server.url}}
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    reading = {"path": "s3://plants/{plant}/*.csv", "storage_options": client}
    params["fetch"] |= {
        "source": "files",
        "mode": "reference",
        "until": "2025-01-13",
        "options": {"telemetry": reading},
    }
    params["validate"]["dictionary"] = "dictionary.yaml"
    params["parallel"] = {"backend": "sequential", "jobs": 1}
    Path("params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    Path("dictionary.yaml").write_text(yaml.safe_dump({"tables": DICTIONARY}), encoding="utf-8")
    files = server.files()
    files.mkdir("plants")
    for day in ("2025-01-06", "2025-01-13"):
        files.pipe(f"plants/lyon/{day}.csv", f"machine,time,heat\nm1,{day},20\n".encode())
    yield files
    server.kill()


def test_objects_are_read_where_they_are_until_one_changes_or_is_gone(store):
    fetch.run(load_params())
    assert [file.name for file in paths.RAW.iterdir()] == ["manifest.json"]
    assert SECRET not in paths.MANIFEST.read_text()
    validate.run(load_params())
    assert pl.read_parquet(paths.INTERIM / "telemetry/lyon.parquet")["heat"].to_list() == [20, 20]
    store.pipe("plants/lyon/2025-01-06.csv", b"machine,time,heat\nm1,2025-01-06,99\n")
    with pytest.raises(UpkeepError, match=r"lyon/2025-01-06\.csv has changed"):
        validate.run(load_params())
    store.rm("plants/lyon/2025-01-06.csv")
    with pytest.raises(UpkeepError, match=r"lyon/2025-01-06\.csv is gone") as gone:
        validate.run(load_params())
    assert "--plant lyon --batch 2025-01-06 --drop-vanished`" in gone.value.remedy
