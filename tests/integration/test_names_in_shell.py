"""Names that would run as commands in the scripts of make, build, push and deployment; nothing real is called."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT

COMMANDS = (
    ";touch ran",
    "$(touch ran)",
    "`touch ran`",
    "|touch ran",
    "&touch ran",
    "\ntouch ran",
    "$(shell touch ran)",
)
DIGEST = f"@sha256:{'0' * 64}"
SSH = '#!/bin/sh\nfor last; do :; done\necho "$last" >>"$HOME/asked"\nexec sh -c "$last"\n'


@pytest.fixture
def folder(tmp_path):
    """The scripts in a folder of their own; ssh runs what it is asked to here, and there is no engine."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    shutil.copytree(ROOT / "deploy", tmp_path / "deploy")
    (tmp_path / "bin").mkdir()
    for name, text in (("ssh", SSH), ("docker", "#!/bin/sh\nexit 1\n"), ("syft", "#!/bin/sh\nexit 1\n")):
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    (tmp_path / "key").touch()
    return tmp_path


def run(folder: Path, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    own = {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "HOME": str(folder)}
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, **own, **variables}, capture_output=True, text=True, check=False
    )
    assert not list(folder.rglob("ran")), "a name was run"
    return done


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("by_variable", [True, False])
def test_a_tag_is_never_run_by_make_or_its_shell(folder, command, by_variable):
    tag = f"registry.example.com/team/upkeep:v1{command}"
    given = ([], {"IMAGE": tag}) if by_variable else ([f"IMAGE={tag}"], {})
    for target in ("image", "push"):
        done = run(folder, "make", target, *given[0], **given[1])
        assert done.returncode
        assert "the tag is" in done.stderr


@pytest.mark.parametrize("command", COMMANDS[:5])
def test_a_python_is_never_more_than_a_programs_name(folder, command):
    assert run(folder, "make", ".venv", f"PYTHON=python3{command}").returncode


@pytest.mark.parametrize("tag", ["--privileged", "-x/y:z", "registry.example.com/team/upkeep", "a b/c:d", "a/b:c d"])
def test_what_is_no_tag_is_refused_before_the_engine_hears_of_it(folder, tag):
    done = run(folder, "deploy/push.sh", tag)
    assert f"the tag is '{tag}'" in done.stderr


@pytest.mark.parametrize("tag", ["127.0.0.1:5000/team/upkeep:1", "registry.example.com/a/b-c.d/upkeep:v1.2.0-rc.1_x"])
def test_tags_that_people_use_get_as_far_as_the_engine(folder, tag):
    assert f"{tag} could not be pushed" in run(folder, "deploy/push.sh", tag).stderr


def ship(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    files = {name: str(folder / "key") for name in ("DEPLOY_KEY", "DEPLOY_KNOWN_HOSTS")}
    return run(folder, "deploy/ship.sh", *arguments, **{"DEPLOY_HOST": "plant.example.com", **files, **variables})


@pytest.mark.parametrize("name", [*(f"upkeep{command}" for command in COMMANDS), "a b", "../x", "a/../b", "-x", "/etc"])
def test_a_folder_on_the_server_that_is_no_plain_name_is_refused_before_anything_is_sent(folder, name):
    done = ship(folder, "check", DEPLOY_FOLDER=name)
    assert done.returncode == 2
    assert f"DEPLOY_FOLDER is '{name}'" in done.stderr
    assert not (folder / "asked").exists()


@pytest.mark.parametrize("name", ["upkeep", "upkeep-staging", "services/upkeep_2.0"])
def test_a_plain_folder_gets_the_scripts(folder, name):
    ship(folder, "check", DEPLOY_FOLDER=name)
    assert (folder / name / "bin/update.sh").exists()


@pytest.mark.parametrize(
    "image", [*(f"a/b{command}{DIGEST}" for command in COMMANDS), f"--privileged{DIGEST}", "a/b:1"]
)
def test_an_image_that_is_not_named_by_digest_alone_runs_nothing_on_the_server(folder, image):
    done = ship(folder, "update", image)
    assert done.returncode == 1
    assert "the image is" in done.stderr


@pytest.mark.parametrize(
    "setting", [{"DEPLOY_HOST": "-oProxyCommand=touch ran"}, {"DEPLOY_PORT": "22 -oProxyCommand=touch ran"}]
)
def test_host_and_port_are_no_options_of_ssh(folder, setting):
    (folder / "bin/ssh").unlink()
    assert ship(folder, "check", **setting).returncode


def test_a_pinned_key_may_lie_in_a_folder_with_a_space(folder):
    (folder / "bin/ssh").write_text(
        '#!/bin/sh\nprintf "%s\\n" "$@" | sed -n "s/UserKnownHostsFile=//p" | xargs -d "\\n" cat\n'
    )
    (folder / "my hosts").write_text("plant.example.com ssh-ed25519 AAAA\n")
    assert "ssh-ed25519" in ship(folder, "check", DEPLOY_KNOWN_HOSTS=str(folder / "my hosts")).stdout
