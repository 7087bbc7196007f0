"""The image's lock: what serving needs, at the versions that everything else is tested with."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def read_lock(name: str) -> dict[str, tuple[str, frozenset[str]]]:
    """Return version and hashes by package."""
    entries = re.split(r"\n(?=[a-z])", (ROOT / name).read_text(encoding="utf-8"))
    found = (re.match(r"([^=\s]+)==(\S+)", entry) for entry in entries)
    hashes = (frozenset(re.findall(r"--hash=(\S+)", entry)) for entry in entries)
    return {match[1]: (match[2], files) for match, files in zip(found, hashes, strict=True) if match}


@pytest.fixture(scope="module", params=["requirements-serving.lock", "requirements-serving-s3.lock"])
def serving(request) -> dict[str, tuple[str, frozenset[str]]]:
    return read_lock(request.param)


def test_every_package_is_locked_to_the_files_of_the_whole_lock(serving):
    whole = read_lock("requirements.lock")
    assert {name: entry for name, entry in serving.items() if whole.get(name) != entry} == {}


def test_every_package_has_hashes(serving):
    assert [name for name, (_, hashes) in serving.items() if not hashes] == []


def test_it_holds_the_service_and_nothing_of_the_pipeline(serving):
    assert {"fastapi", "lightgbm", "polars", "uvicorn"} <= set(serving)
    assert not {"dvc", "evidently", "mlflow", "pandas", "pyarrow", "scikit-learn", "sqlalchemy", "rich", "h11"} & set(
        serving
    )


def test_one_of_them_holds_the_client_of_s3_and_what_that_needs():
    plain, s3 = (set(read_lock(name)) for name in ("requirements-serving.lock", "requirements-serving-s3.lock"))
    assert plain < s3
    assert {"s3fs", "aiohttp", "botocore"} <= s3 - plain
