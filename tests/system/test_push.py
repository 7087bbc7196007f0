"""Images pushed by tag, and named by the digest that the registry gave them."""

import json
import subprocess
import tarfile
from pathlib import Path
from urllib.request import Request, urlopen

import components
import pytest

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


@pytest.fixture
def image(engine, registry, tmp_path) -> str:
    """An image of one empty file, tagged for the registry."""
    (tmp_path / "empty").touch()
    with tarfile.open(tmp_path / "image.tar", "w") as archive:
        archive.add(tmp_path / "empty", "empty")
    tag = f"{registry}/team/{tmp_path.name.replace('_', '-')}:1"
    engine.docker("import", tmp_path / "image.tar", tag)
    return tag


def push(engine: components.Engine, tag: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [components.ROOT / "deploy/push.sh", tag],
        cwd=folder,
        env={**engine.environment, **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_image_env_names_the_digest_under_which_the_registry_holds_the_image(engine, registry, image, tmp_path):
    done = push(engine, image, tmp_path)
    assert done.returncode == 0, done.stderr
    name, _, digest = (tmp_path / "image.env").read_text().strip().removeprefix("IMAGE_DIGEST=").partition("@")
    assert name == image.removesuffix(":1")
    url = f"http://{registry}/v2/{name.removeprefix(f'{registry}/')}/manifests/{digest}"
    with urlopen(Request(url, headers={"Accept": MANIFEST})) as answer:
        assert json.load(answer)["schemaVersion"] == 2


def test_a_registry_that_is_down_is_told_and_nothing_is_handed_over(engine, tmp_path, image):
    tag = f"127.0.0.1:{components.free_port()}/team/upkeep:1"
    engine.docker("tag", image, tag)
    done = push(engine, tag, tmp_path)
    assert done.returncode == 1
    assert f"error: {tag} could not be pushed" in done.stderr
    assert "remedy:" in done.stderr
    assert not (tmp_path / "image.env").exists()


def test_a_login_that_is_refused_is_told_without_the_password_and_leaves_no_login_behind(engine, tmp_path, image):
    tag = f"127.0.0.1:{components.free_port()}/team/upkeep:1"
    engine.docker("tag", image, tag)
    login = {"UPKEEP_REGISTRY_USER": "upkeep-ci", "UPKEEP_REGISTRY_PASSWORD": "correct-horse"}
    done = push(engine, tag, tmp_path, **login, HOME=str(tmp_path), TMPDIR=str(tmp_path))
    assert done.returncode == 1
    assert "refuses the login of upkeep-ci" in done.stderr
    assert "correct-horse" not in done.stdout + done.stderr
    assert not list(tmp_path.rglob("config.json"))


def test_gitlabs_own_login_is_for_its_own_registry_only(engine, tmp_path, image):
    down = f"127.0.0.1:{components.free_port()}"
    login = {"CI_REGISTRY": down, "CI_REGISTRY_USER": "gitlab-ci-token", "CI_REGISTRY_PASSWORD": "job-token"}
    assert push(engine, image, tmp_path, **login).returncode == 0
    tag = f"{down}/team/upkeep:1"
    engine.docker("tag", image, tag)
    assert "refuses the login of gitlab-ci-token" in push(engine, tag, tmp_path, **login).stderr


def test_a_tag_without_a_registry_is_refused(engine, tmp_path):
    done = push(engine, "upkeep", tmp_path)
    assert done.returncode == 1
    assert "the tag is 'upkeep'" in done.stderr
