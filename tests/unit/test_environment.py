"""One lock serves every way to install."""

import re
import tomllib
from itertools import chain

import yaml
from conftest import ROOT

LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_conda_installs_from_the_same_lock_and_for_the_same_pythons():
    conda = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    (pip,) = (item["pip"] for item in conda["dependencies"] if isinstance(item, dict))
    assert pip == ["--require-hashes --requirement requirements.lock"]
    assert f"python {PROJECT['requires-python']}" in conda["dependencies"]


def test_every_declared_dependency_is_locked():
    locked = set(re.findall(r"^([a-z0-9.-]+)==", LOCK, re.MULTILINE))
    extras = [*PROJECT["dependencies"], *chain(*PROJECT["optional-dependencies"].values())]
    names = {re.sub(r"[._-]+", "-", re.match(r"[A-Za-z0-9._-]+", requirement)[0]).lower() for requirement in extras}
    assert names <= locked


def test_every_dependency_has_a_reason_beside_it():
    lines = (ROOT / "pyproject.toml").read_text(encoding="utf-8").splitlines()
    listed = [line for line in lines if re.match(r'^  "[a-z0-9.-]+(\[|>|"|,)', line)]
    assert len(listed) >= 30
    assert [line for line in listed if "#" not in line] == []


def test_each_locked_package_has_hashes_and_no_index_is_named():
    packages = re.split(r"\n(?=[a-z])", re.sub(r"^#.*\n", "", LOCK, flags=re.MULTILINE))
    assert all("--hash=sha256:" in package for package in packages if "==" in package)
    assert "http" not in re.sub(r"(?m)^\s*#.*$|^[a-z0-9.-]*http[a-z0-9.-]*==.*$", "", LOCK)
