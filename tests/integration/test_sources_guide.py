import gzip
import json
import re
from datetime import date
from pathlib import Path

import pytest
import yaml

from upkeep.core.errors import UpkeepError
from upkeep.core.params import load_params
from upkeep.sources.files import FilesOptions, TableFiles
from upkeep.sources.manifest import read_manifest
from upkeep.sources.sql import SqlOptions
from upkeep.stages import fetch

REPOSITORY = Path(__file__).parents[2]
GUIDE = (REPOSITORY / "docs/sources.md").read_text(encoding="utf-8")


@pytest.fixture
def params(tmp_path, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", GUIDE, flags=re.DOTALL)
    (tmp_path / "gateway.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GATEWAY_EXPORTS", str(tmp_path))
    shipped = load_params(REPOSITORY / "params.yaml")
    changes = {"source": "gateway:Gateway", "until": date(2025, 1, 6), "options": {"folder": "$GATEWAY_EXPORTS"}}
    return shipped.model_copy(update={"fetch": shipped.fetch.model_copy(update=changes)})


def test_the_source_that_the_docs_show_works(tmp_path, params):
    for day in ("2025-01-06", "2025-01-12", "2025-01-13"):
        row = json.dumps({"machine": "m1", "time": f"{day}T00:00:00Z", "load": 1.5})
        (tmp_path / f"lyon_{day}.jsonl.gz").write_bytes(gzip.compress(row.encode()))
    fetch.run(params)
    assert [(file.file, file.rows) for file in read_manifest().files] == [("telemetry/lyon/2025-01-06.parquet", 2)]


def test_its_errors_name_the_batch(tmp_path, params):
    (tmp_path / "lyon_2025-01-06.jsonl.gz").write_bytes(gzip.compress(b"no json"))
    with pytest.raises(UpkeepError, match="an export is damaged") as caught:
        fetch.run(params)
    assert caught.value.where["batch"] == date(2025, 1, 6)


def test_the_docs_show_it_in_about_forty_lines():
    (code,) = re.findall(r"```python\n(.*?)```", GUIDE, flags=re.DOTALL)
    assert len(code.splitlines()) <= 45


@pytest.mark.parametrize(("source", "options"), [("files", FilesOptions), ("sql", SqlOptions)])
def test_the_options_that_the_docs_show_are_valid(source, options):
    blocks = [yaml.safe_load(block)["fetch"] for block in re.findall(r"```yaml\n(.*?)```", GUIDE, flags=re.DOTALL)]
    (shown,) = [block["options"] for block in blocks if block["source"] == source]
    assert options.model_validate(shown).model_fields_set == set(shown)


@pytest.mark.parametrize(("heading", "options"), [("files", TableFiles), ("sql", SqlOptions)])
def test_the_docs_list_every_option(heading, options):
    section = GUIDE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    listed = {name for row in re.findall(r"(?m)^\| (`.*?) \|", section) for name in re.findall(r"`(\w+)`", row)}
    assert listed == set(options.model_fields)
