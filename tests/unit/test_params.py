"""What params.yaml must hold, and what a user reads who has something else in it."""

from pathlib import Path

import pytest
import yaml
from conftest import ROOT

from upkeep.core.errors import UpkeepError
from upkeep.core.params import EXAMPLE, Params, load_params

GIVEN = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))


def fault(folder: Path, params: object) -> UpkeepError:
    file = folder / "params.yaml"
    file.write_text(yaml.safe_dump(params), encoding="utf-8")
    with pytest.raises(UpkeepError) as caught:
        load_params(file)
    return caught.value


@pytest.mark.parametrize("section", Params.model_fields)
def test_each_section_is_needed_and_a_missing_one_says_where_to_copy_it_from(tmp_path: Path, section: str) -> None:
    name = section.rstrip("_")
    error = fault(tmp_path, {key: value for key, value in GIVEN.items() if key != name})
    assert error.what == f"{name}: Field required"
    assert f"copy {name} from {EXAMPLE}" in error.remedy
    assert name in yaml.safe_load((ROOT / EXAMPLE).read_text(encoding="utf-8"))


def test_no_setting_has_a_default_besides_that_of_params_yaml(tmp_path: Path) -> None:
    lacking = {"score": ["silent_hours", "webhook"], "retrain": ["new_batches"], "gate": ["cost_rise"]}
    params = {
        section: {name: value for name, value in settings.items() if name not in lacking.get(section, [])}
        for section, settings in GIVEN.items()
    }
    error = fault(tmp_path, params)
    missing = [f"{section}.{name}" for section, names in lacking.items() for name in names]
    assert error.what.split("; ") == [f"{name}: Field required" for name in missing]
    assert f"copy {', '.join(missing)} from {EXAMPLE}" in error.remedy


def test_a_misspelt_setting_is_shown_but_never_what_lies_beside_a_missing_one(tmp_path: Path) -> None:
    webhook = {"url": "https://user:secret@planner.example", "alow_http": True}
    assert "score.webhook.alow_http: Extra inputs are not permitted (found True)" in str(
        fault(tmp_path, {**GIVEN, "score": {**GIVEN["score"], "webhook": webhook}})
    )
    error = fault(tmp_path, {**GIVEN, "score": {"table": {"url": "postgresql://user:secret@host/db"}}})
    assert "score.table.name: Field required" in error.what
    assert "secret" not in str(error)


def test_a_file_that_is_missing_or_no_mapping_is_named(tmp_path: Path) -> None:
    with pytest.raises(UpkeepError, match="does not exist"):
        load_params(tmp_path / "params.yaml")
    assert "Input should be a valid dictionary" in fault(tmp_path, ["fetch"]).what
