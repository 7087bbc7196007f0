import json

import pytest

from upkeep.core.secrets import mask_credentials, mask_secrets
from upkeep.reporting.experiments import Run, describe_row, name_param

CONTENT = {
    "model": {"name": "upkeep", "kind": "lightgbm", "plants": {}, "bytes": 3, "md5": "c.dir"},
    "description": "first",
    "parameters": {"model": {"seed": 7}},
    "data": {"train": {"rows": 5, "bytes": 10, "md5": "a.dir"}, "test": {"rows": 2, "bytes": 4, "md5": "b.dir"}},
    "metrics": {
        "test": {
            "overall": {"average_precision": 0.75, "rows": 9, "roc_auc": None},
            "plants": {"lyon": {"average_precision": 0.5, "brier": 0.1}},
        },
        "validation": {"overall": {"average_precision": 0.8}, "plants": {}},
    },
    "drift": {},
    "data_quality": {},
}
RUN = Run.model_validate(CONTENT)


def test_a_run_with_the_same_content_has_the_same_key_whatever_the_order():
    assert Run.model_validate(dict(reversed(CONTENT.items()))).key == RUN.key


@pytest.mark.parametrize("name", ["fetch.options.plants.北京", "a.b", "evaluate.floors.plants.Hall 1/a.cost"])
def test_a_parameters_name_that_mlflow_takes_stays(name):
    assert name_param(name) == name


@pytest.mark.parametrize("plant", ["Hall (1)", "a//b", "a/../b", "x" * 300, "a\nb", "#1", "100 %"])
def test_any_other_parameters_name_becomes_one_that_mlflow_takes(plant):
    validation = pytest.importorskip("mlflow.utils.validation")
    name = f"evaluate.floors.{plant}"
    assert validation._validate_param_name(name_param(name)) is None


def test_a_run_with_another_seed_has_another_key():
    assert RUN.model_copy(update={"parameters": {"model": {"seed": 8}}}).key != RUN.key


def test_a_row_has_a_column_per_metric_and_split():
    row = describe_row(RUN, "2025-03-01T00:00:00+00:00", "abc", ["reports/metrics.json", "models/plants"])
    assert next(iter(row)) == "run"
    assert row["test_average_precision"] == "0.75"
    assert row["validation_average_precision"] == "0.8"
    assert row["test_average_precision_lyon"] == "0.5"
    assert row["test_roc_auc"] == ""
    assert "test_brier_lyon" not in row
    assert row["outputs"] == "reports/metrics.json models/plants"
    assert json.loads(row["parameters"]) == CONTENT["parameters"]


def test_sizes_are_those_of_the_data_whatever_the_metrics_call_rows():
    row = describe_row(RUN, "", "", [])
    assert (row["train_rows"], row["test_rows"], row["test_md5"], row["model_md5"]) == ("5", "2", "b.dir", "c.dir")


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("https://me:secret@host/api", "https://***@host/api"),
        ("postgresql://me:p@ss/word@host:5432/db?sslkey=secret", "postgresql://***@host:5432/db?***"),
        ("GET https://host/a?token=secret failed", "GET https://host/a?*** failed"),
        ("no address? none", "no address? none"),
    ],
)
def test_addresses_lose_their_credentials(text, masked):
    assert mask_credentials(text) == masked


def test_parameters_lose_their_secrets_and_nothing_else():
    options = {"url": "s3://bucket/x", "storage": {"key": "k", "secret": "s", "endpoints": ["http://a:b@c"]}, "seed": 7}
    assert mask_secrets(options) == {
        "url": "s3://bucket/x",
        "storage": {"key": "***", "secret": "***", "endpoints": ["http://***@c"]},
        "seed": 7,
    }
