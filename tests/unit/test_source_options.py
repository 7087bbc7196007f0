import pytest
from pydantic import BaseModel, ConfigDict

from upkeep.core.errors import UpkeepError
from upkeep.core.secrets import expand_all, expand_variables, hide_variables
from upkeep.sources import read_options


class Options(BaseModel):
    model_config = ConfigDict(extra="forbid")

    password: int


def test_variables_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("SITE", "lyon")
    assert expand_variables("s3://$SITE/${SITE}_1") == "s3://lyon/lyon_1"


def test_nested_options_are_filled_in_and_other_types_left_alone(monkeypatch):
    monkeypatch.setenv("KEY", "abc")
    options = {"key": "$KEY", "client": {"retries": 3, "keys": ["$KEY", {"key": "$KEY"}]}}
    assert expand_all(options) == {"key": "abc", "client": {"retries": 3, "keys": ["abc", {"key": "abc"}]}}


def test_a_value_that_looks_like_a_variable_is_not_expanded_again(monkeypatch):
    monkeypatch.setenv("PASSWORD", "a$HOME")
    assert expand_variables("$PASSWORD") == "a$HOME"


def test_a_variable_that_is_not_set_is_named(monkeypatch):
    monkeypatch.delenv("NOWHERE", raising=False)
    with pytest.raises(UpkeepError, match="NOWHERE is not set") as caught:
        expand_variables("${NOWHERE}")
    assert "params.yaml" not in caught.value.remedy  # `upkeep adopt` and `upkeep gitlab-setup` fill in others, too


def test_messages_show_names_instead_of_values(monkeypatch):
    monkeypatch.setenv("PASSWORD", "tiger")
    assert hide_variables("login scott/tiger refused", "sql://scott:$PASSWORD@h") == "login scott/${PASSWORD} refused"


def test_a_wrong_option_is_named_but_its_value_is_not_shown():
    with pytest.raises(UpkeepError, match=r"password: .*; pasword: ") as caught:
        read_options(Options, {"password": "tiger", "pasword": "tiger"}, "sql")
    assert "tiger" not in str(caught.value)
