"""The hook against secrets: what it must find, and what jobs have downloaded."""

import shutil
import subprocess

import paramiko
import pytest
from trained_fleet import ROOT


@pytest.mark.parametrize(("place", "status"), [("deploy", 1), (".cache/uv/archive-v0/x/tornado/test", 0)])
def test_a_private_key_is_found_but_not_in_the_cache_of_packages(tmp_path, place, status):
    shutil.copy(ROOT / ".gitleaks.toml", tmp_path)
    (tmp_path / place).mkdir(parents=True)
    paramiko.RSAKey.generate(2048).write_private_key_file(str(tmp_path / place / "test.key"))
    done = subprocess.run(["gitleaks", "dir", "--no-banner", "--redact", "."], cwd=tmp_path, capture_output=True)
    assert done.returncode == status, done.stderr
