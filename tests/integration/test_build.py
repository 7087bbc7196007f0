"""Which commit `deploy/build.sh` says that an image is made of; the engine only notes how it was called."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT
from dvc_projects import git

from upkeep.reporting.experiments import hash_files

FILES = (
    "Dockerfile",
    ".dockerignore",
    ".gitignore",
    "requirements-serving.lock",
    "requirements-serving-s3.lock",
    "deploy/build.sh",
    "deploy/slim.sh",
)
MODELS = ("models/plants/lyon/model.json", "models/plants/lyon/model.txt", "models/golden/lyon.json")
ENGINE = '#!/bin/sh\nprintf "%s\\n" "$@" >"$(dirname "$0")/arguments"\n'


@pytest.fixture
def checkout(tmp_path):
    """A commit with the parts of an image, and models as dvc.lock has them."""
    folder = tmp_path / "checkout"
    for name in FILES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    for name in (*MODELS, "src/upkeep/app.py", "data/references/dictionary.yaml", "README.md"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"{name}\n")
    (folder / "models/.gitignore").write_text("/plants\n/golden\n")
    outputs = "".join(f"    - path: {name}\n      hash: md5\n      md5: {locked(folder, name)}\n" for name in TREES)
    deps = "    - path: models/plants\n      hash: md5\n      md5: an-older-one.dir\n"
    (folder / "dvc.lock").write_text(f"schema: '2.0'\nstages:\n  train:\n    deps:\n{deps}    outs:\n{outputs}")
    (tmp_path / "engine").write_text(ENGINE)
    (tmp_path / "engine").chmod(0o755)
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "First")
    return folder


TREES = ("models/plants", "models/golden")


def locked(folder: Path, name: str) -> str:
    return hash_files((file for file in (folder / name).rglob("*") if file.is_file()), folder / name)


def build(checkout: Path, **variables: str) -> tuple[str, str]:
    """Return what the image is labelled as, without the commit, and what the build says."""
    engine = checkout.parent / "engine"
    done = subprocess.run(
        [checkout / "deploy/build.sh", "upkeep:test"],
        env={**os.environ, "UPKEEP_ENGINE": str(engine), **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    (label,) = [line for line in (checkout.parent / "arguments").read_text().splitlines() if line.startswith("COMMIT=")]
    return label.removeprefix(f"COMMIT={git(checkout, 'rev-parse', 'HEAD').strip()}"), done.stderr


def test_an_image_of_a_clean_checkout_bears_its_commit(checkout):
    (checkout / "README.md").write_text("what does not go into the image may change\n")
    (checkout / "src/upkeep/__pycache__").mkdir()
    (checkout / "src/upkeep/__pycache__/app.pyc").touch()
    assert build(checkout) == ("", "")


@pytest.mark.parametrize(
    "name",
    [
        "src/upkeep/app.py",
        "src/upkeep/new.py",
        "src/upkeep/.ipynb_checkpoints/app.py",  # ignored by git, and copied all the same
        "deploy/slim.sh",
        "data/references/dictionary.yaml",
        "models/plants/lyon/model.txt",
        "models/plants/porto/model.json",
        "models/golden/lyon.json",
    ],
)
def test_an_image_with_anything_that_is_not_of_the_commit_is_dirty_and_the_build_names_it(checkout, name):
    (checkout / name).parent.mkdir(parents=True, exist_ok=True)
    (checkout / name).write_text("changed since\n")
    label, said = build(checkout)
    assert label == "-dirty"
    assert next(part for part in (*TREES, "src/upkeep", name) if name.startswith(part)) in said


def test_a_model_that_is_gone_makes_the_image_dirty(checkout):
    (checkout / "models/plants/lyon/model.txt").unlink()
    assert build(checkout)[0] == "-dirty"


def test_what_is_no_checkout_is_refused(checkout):
    shutil.rmtree(checkout / ".git")
    with pytest.raises(subprocess.CalledProcessError) as caught:
        build(checkout)
    assert "error: the commit is not known" in caught.value.stderr


@pytest.mark.parametrize(
    ("extras", "lock"), [("", "requirements-serving.lock"), ("s3", "requirements-serving-s3.lock")]
)
def test_the_packages_for_s3_go_in_where_they_are_asked_for(checkout, extras, lock):
    (checkout / lock).write_text("changed since\n")
    assert lock in build(checkout, UPKEEP_EXTRAS=extras)[1]
    assert f"LOCK={lock}" in (checkout.parent / "arguments").read_text().splitlines()


def test_packages_that_no_lock_names_are_refused(checkout):
    with pytest.raises(subprocess.CalledProcessError) as caught:
        build(checkout, UPKEEP_EXTRAS="gcs")
    assert "error: UPKEEP_EXTRAS is 'gcs'" in caught.value.stderr
