"""The service's variables: what opens it by mistake, and what is misspelt."""

import re
from pathlib import Path

import pytest

from upkeep.core.errors import UpkeepError
from upkeep.serving.settings import find_unknown, read_settings

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("tokens", ["", " ", ",", "\n", " , ,", "# none yet", "#secret"])
def test_tokens_that_are_set_but_empty_do_not_open_the_service(tokens, tmp_path):
    with pytest.raises(UpkeepError, match="UPKEEP_TOKENS: it is set, but holds no token"):
        read_settings({"UPKEEP_TOKENS": tokens})
    (tmp_path / "tokens").write_text(tokens)
    with pytest.raises(UpkeepError, match="UPKEEP_TOKENS_FILE: it is set, but holds no token"):
        read_settings({"UPKEEP_TOKENS_FILE": str(tmp_path / "tokens")})


@pytest.mark.parametrize("file", ["", "/nowhere", "/", "a\0b"])
def test_a_file_of_tokens_that_cannot_be_read_does_not_open_the_service(file):
    with pytest.raises(UpkeepError, match="the file of tokens cannot be read"):
        read_settings({"UPKEEP_TOKENS_FILE": file})


def test_comments_in_a_file_of_tokens_are_no_tokens_but_the_names_of_those_on_their_lines(tmp_path):
    (tmp_path / "tokens").write_text("# of the planners\none # until March, then two\n\n\ttwo,thr#ee\n  # four\n")
    tokens = read_settings({"UPKEEP_TOKENS_FILE": str(tmp_path / "tokens")}).tokens
    assert tokens == {b"one": "until March, then two", b"two": "token 2", b"thr#ee": "token 3"}


@pytest.mark.parametrize("tokens", ["; of the planners\none", "// of the planners", "one two", "tökén"])
def test_words_that_can_be_no_tokens_are_refused_without_being_repeated(tokens):
    with pytest.raises(UpkeepError, match="a token holds a blank or a letter that no HTTP header can carry") as error:
        read_settings({"UPKEEP_TOKENS": tokens})
    assert tokens not in str(error.value)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("UPKEEP_TOKEN", "UPKEEP_TOKENS"),
        ("upkeep_tokens", "UPKEEP_TOKENS"),
        ("UPKEP_TOKENS", "UPKEEP_TOKENS"),
        ("UPKEEPTOKENS", "UPKEEP_TOKENS"),
        ("UPKEEP_TOKEN_FILE", "UPKEEP_TOKENS_FILE"),
        ("UPKEEP_PROT", "UPKEEP_PORT"),
        ("UPKEEP_MAX_REQUEST_BYTE", "UPKEEP_MAX_REQUEST_BYTES"),
    ],
)
def test_a_misspelt_variable_is_refused_with_the_one_that_was_meant(name, meant):
    with pytest.raises(UpkeepError, match=f"there is no variable {name}; {meant} is one"):
        read_settings({name: "secret"})


def test_variables_of_other_commands_are_no_mistakes():
    pages = [page for page in DOCS.glob("*.md") if page.name != "service.md"]
    others = {name for page in pages for name in re.findall(r"UPKEEP_[A-Z_]*[A-Z]", page.read_text())}
    unknown = find_unknown(dict.fromkeys(others, "1"))
    read_settings(dict.fromkeys(unknown, "1"))
    assert "UPKEEP_GITLAB_TOKEN" in unknown
    assert find_unknown({"UPKEEP_PORT": "1", "UPKEEP_API_TOKENS": "1", "PATH": "/bin"}) == ["UPKEEP_API_TOKENS"]


@pytest.mark.parametrize("port", ["99999", "-1", "80a", "8000/tcp"])
def test_a_port_that_is_none_is_told_in_a_sentence(port):
    with pytest.raises(UpkeepError, match=f"UPKEEP_PORT is '{port}': Input should be"):
        read_settings({"UPKEEP_PORT": port})
