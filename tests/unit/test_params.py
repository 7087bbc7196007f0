"""What params.yaml must hold, and what a user reads who has something else in it."""

import errno
import os
from collections.abc import Callable
from datetime import date
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from hypothesis import example, given
from hypothesis import strategies as st

from upkeep.core.errors import UpkeepError
from upkeep.core.params import EXAMPLE, Params, load_params
from upkeep.core.yaml import parse_yaml

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


def test_no_setting_has_a_default_besides_that_of_params_yaml() -> None:
    sections = {field.alias or name: field.annotation for name, field in Params.model_fields.items()}
    doubled = [
        f"{section}.{name}"
        for section, kind in sections.items()
        for name, field in kind.model_fields.items()
        if GIVEN[section].get(name) is not None and not field.is_required()
    ]
    assert doubled == ["fetch.mode"]  # which the short sections of the docs leave out


def test_the_example_has_all_settings_that_an_older_params_yaml_may_lack() -> None:
    example = yaml.safe_load((ROOT / EXAMPLE).read_text(encoding="utf-8"))
    optional = {"fetch": {"rows_every_hours"}, "score": {"shadow"}}  # null where they are off
    for section, settings in GIVEN.items():
        assert settings.keys() - example[section].keys() <= optional.get(section, set()), section


def test_settings_that_are_missing_are_named_with_where_to_copy_them_from(tmp_path: Path) -> None:
    lacking = {"score": ["silent_hours", "webhook"], "retrain": ["new_batches"], "gate": ["cost_rise"]}
    params = {
        section: {name: value for name, value in settings.items() if name not in lacking.get(section, [])}
        for section, settings in GIVEN.items()
    }
    error = fault(tmp_path, params)
    missing = [f"{section}.{name}" for section, names in lacking.items() for name in names]
    assert error.what.split("; ") == [*(f"{name}: Field required" for name in missing[:3]), "and 1 more"]
    assert f"copy {', '.join(missing)} from {EXAMPLE}" in error.remedy


@pytest.mark.parametrize(
    ("name", "value", "wrong"),
    [
        ("jobs", 0, "Input should be greater than 0"),
        ("backend", "lokky", "Input should be 'loky', 'threads', 'dask'"),
        ("address", "scheduler", "String should match pattern"),
        ("address", "http://scheduler:8786", "String should match pattern"),
        ("address", "tcp://scheduler", "String should match pattern"),
    ],
)
def test_work_is_mapped_by_some_workers_of_a_backend_that_there_is_at_an_address_with_its_port(
    tmp_path, name, value, wrong
) -> None:
    error = fault(tmp_path, {**GIVEN, "parallel": {**GIVEN["parallel"], name: value}})
    assert error.what.startswith("parallel")
    assert wrong in error.what


def test_a_misspelt_setting_is_named_without_the_values_beside_it(tmp_path: Path) -> None:
    webhook = {"url": "https://user:secret@planner.example", "alow_http": True}
    error = fault(tmp_path, {**GIVEN, "score": {**GIVEN["score"], "webhook": webhook}})
    assert error.what == "score.webhook.alow_http: Extra inputs are not permitted"
    assert "secret" not in str(error)


LIMITED = [
    (section, name, value)
    for section, settings in GIVEN.items()
    for name, setting in settings.items()
    for value in {"int": (-2, 10**13), "float": (-2, 1e300)}.get(type(setting).__name__, ())
]
BEYOND = [
    *LIMITED,
    *(("fetch", name, day) for name in ("since", "until") for day in ("0001-01-01", "9999-12-31")),
    *(("dataset", name, hours) for name in ("horizon_hours", "baseline_hours") for hours in (0, 1e-5)),
]


@pytest.mark.parametrize(("section", "name", "value"), BEYOND)
def test_a_number_or_a_day_that_nothing_can_count_with_is_refused(tmp_path, section, name, value) -> None:
    error = fault(tmp_path, {**GIVEN, section: {**GIVEN[section], name: value}})
    assert error.what.startswith(f"{section}.{name}")


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"windows_hours": [8, 48, 8.0]}, "dataset.windows_hours: one stands there twice"),
        ({"aggregates": ["mean", "mean"]}, "dataset.aggregates: one stands there twice"),
        ({"split": GIVEN["dataset"]["split"] | {"test_share": 0.8}}, "dataset.split: validation_share and test_share"),
    ],
)
def test_settings_that_make_no_features_or_no_training_rows_are_refused(tmp_path, changes, what) -> None:
    assert what in fault(tmp_path, GIVEN | {"dataset": GIVEN["dataset"] | changes}).what


@pytest.mark.parametrize("names", [["historian", "historian"], [GIVEN["fetch"]["source"]]])
def test_watched_sources_are_told_apart_by_their_names(tmp_path, names) -> None:
    watch = [{"name": name, "url": "https://host/health"} for name in names]
    error = fault(tmp_path, GIVEN | {"monitor": GIVEN["monitor"] | {"watch": watch}})
    assert error.what.startswith("monitor.watch: each source needs a name of its own")


UNUSABLE = {
    "missing": (str, "No such file"),
    "a folder": (lambda file: file.mkdir(), "it is a folder, not a file"),
    "a pipe": (os.mkfifo, "it is a pipe"),
    "endless": (lambda file: file.symlink_to("/dev/zero"), "it is a pipe, a socket or a device"),
    "in Latin-1": (lambda file: file.write_bytes(b"a: b\nc: S\xfcd\n"), "not UTF-8: line 2 holds the byte 0xfc"),
    "empty": (lambda file: file.write_text(""), "holds nothing"),
    "a list": (lambda file: file.write_text("- fetch\n"), "holds no settings by name"),
    "no YAML": (lambda file: file.write_text("a: [\n"), "it is not valid YAML"),
    "doubled": (lambda file: file.write_text("a: {b: 1,\n  b: 2}\n"), "b stands there twice\n.*line 2"),
    "nested": (lambda file: file.write_text("[" * 100_000), "it is nested too deeply"),
    "nested by indentation": (lambda file: file.write_text("- " * 101), "it is nested too deeply\n.*line 1"),
    "no date": (lambda file: file.write_text("until: 2025-13-45\n"), "a value in it cannot be read: month must be"),
    "too large": (lambda file: file.write_text("#" * 1_000_001), "it is larger than 1,000,000 bytes"),
}


@pytest.mark.parametrize(("make", "what"), UNUSABLE.values(), ids=UNUSABLE)
def test_a_file_that_holds_no_parameters_is_named_with_the_reason(
    tmp_path: Path, make: Callable[[Path], object], what: str
) -> None:
    make(tmp_path / "params.yaml")
    with pytest.raises(UpkeepError, match=what) as caught:
        load_params(tmp_path / "params.yaml")
    assert caught.value.where["file"] == tmp_path / "params.yaml"


def test_a_file_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    (tmp_path / "params.yaml").touch()
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(UpkeepError, match="cannot be used: Permission denied"):
        load_params(tmp_path / "params.yaml")


ALIASES = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n" for before, name in pairwise("abcdefgh")
)
MERGED = "a: &a {x: 1}\n" + "".join(
    f"{name}: &{name} {{<<: [{', '.join([f'*{before}'] * 10)}]}}\n" for before, name in pairwise("abcdefgh")
)


@pytest.mark.parametrize(
    "text", [ALIASES, MERGED, "a: &a [*a]", "a: &a {b: *a}", f"a: &a {'x' * 999_000}\nb: [*a, *a]"]
)
def test_aliases_that_stand_for_too_much_are_refused(text: str) -> None:
    with pytest.raises(yaml.YAMLError, match="with its aliases filled in"):
        parse_yaml(text)


def test_aliases_that_save_some_lines_are_filled_in() -> None:
    assert parse_yaml("a: &a {x: 1}\nb: {<<: *a, y: 2}\nc: [*a, *a]") == {
        "a": {"x": 1}, "b": {"x": 1, "y": 2}, "c": [{"x": 1}] * 2
    }  # fmt: skip


@given(st.text(alphabet="a0:-[]{}&*!<>|?%@#'\",.\n\t \x00é" + "tag:yaml.org,2002:timestamp", max_size=30))
@example("!!timestamp x")
@example("!!bool x")
@example("!!int ''")
@example("!!python/object/apply:os.system [id]")
@example("a: " + "9" * 5000)
def test_any_text_is_yaml_or_one_kind_of_error(text: str) -> None:
    try:
        found = parse_yaml(text)
    except yaml.YAMLError:
        found = None
    assert found is None or isinstance(found, dict | list | str | int | float | date)


@pytest.mark.parametrize("other", [{"findings": "log"}, {"rows_every_hours": 8}])
def test_what_lies_in_no_file_of_the_source_cannot_go_with_files_that_stay_where_they_are(tmp_path, other) -> None:
    error = fault(tmp_path, GIVEN | {"fetch": GIVEN["fetch"] | {"mode": "reference"} | other})
    assert f"mode: reference cannot go with {next(iter(other))}" in error.what
