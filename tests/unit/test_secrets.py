"""What is shown, logged or sent holds no secret, however addresses write it."""

from copy import copy
from time import process_time
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from upkeep.core.errors import TooLittleDataError, UpkeepError
from upkeep.core.secrets import hide_variables, mask_credentials, mask_environment, mask_secrets, mask_values
from upkeep.gitlab.readiness import NotReadyError

PASSWORD = "pa/ss@wo:rd%41 x"  # invented
WRITTEN = [PASSWORD, quote(PASSWORD), quote(PASSWORD, safe=""), quote_plus(PASSWORD), quote(PASSWORD, safe="").lower()]


@pytest.mark.parametrize("written", WRITTEN)
def test_a_password_is_masked_however_it_is_written(written, monkeypatch):
    monkeypatch.setenv("DB_PASSWORD", PASSWORD)
    text = f"login of {written} refused"
    assert mask_values(text, PASSWORD) == "login of *** refused"
    assert mask_environment(text, {"DB_PASSWORD": PASSWORD}) == "login of *** refused"
    assert hide_variables(text, "sql://scott:${DB_PASSWORD}@h") == "login of ${DB_PASSWORD} refused"


def test_a_password_that_is_set_as_an_address_writes_it_is_masked_as_it_is_too():
    assert mask_values("user p/w and p%2Fw", "p%2Fw") == "user *** and ***"


def test_a_secret_that_another_one_begins_with_leaves_no_rest_of_that(monkeypatch):
    text, short, long = "token glpat-12 and glpat-12345", "glpat-12", "glpat-12345"
    assert mask_values(text, short, long) == "token *** and ***"
    assert mask_environment(text, {"A_TOKEN": short, "B_TOKEN": long}) == "token *** and ***"
    monkeypatch.setenv("SHORT", short)
    monkeypatch.setenv("LONG", long)
    assert hide_variables(text, "$SHORT$LONG") == hide_variables(text, "$LONG$SHORT") == "token ${SHORT} and ${LONG}"


def test_a_value_too_short_to_be_a_secret_garbles_no_text(monkeypatch):
    monkeypatch.setenv("YEAR", "25")
    text = "nothing since 2025-03-25"
    assert hide_variables(text, "/data/$YEAR/*.csv") == mask_values(text, "25") == text


@given(st.text(st.characters(categories=("L", "N", "P", "S")), min_size=4), st.sampled_from([str, quote, quote_plus]))
@example("000%", quote)
def test_no_password_is_left_in_a_text(password, write):
    assert mask_values(f"<{write(password)}>", password) in ("<***>", "***")


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("https://me:pa/ss@host/a", "https://***@host/a"),
        ("https://me:p@ss:w%2Frd@host/a", "https://***@host/a"),
        ("https://me:pa?ss@host/a", "https://***@host/a"),
        (
            "Max retries exceeded with url: /hook?token=s3cret (refused)",
            "Max retries exceeded with url: /hook?*** (refused)",
        ),
        ("/container/log?sv=1&sig=s3cret", "/container/log?***"),
        ("abfs://box@host/log?sig=s3cret", "abfs://***@host/log?***"),
        ("what is x=1? y=2", "what is x=1? y=2"),
    ],
)
def test_addresses_lose_user_password_and_query_whatever_they_hold(text, masked):
    assert mask_credentials(text) == masked


@pytest.mark.parametrize(
    ("name", "is_secret"),
    [
        *((name, True) for name in ("DB_PASSWORD", "AWS_SECRET_ACCESS_KEY", "AZURE_STORAGE_KEY", "account_key", "key")),
        *((name, True) for name in ("AZURE_STORAGE_CONNECTION_STRING", "accountKey", "private_key", "sas", "URL_SAS")),
        *((name, False) for name in ("AWS_ACCESS_KEY_ID", "KEYBOARD", "keys", "VISAS", "ACCOUNT_NAME")),
    ],
)
def test_a_name_says_whether_its_value_is_secret(name, is_secret):
    assert mask_environment("it is s3cret", {name: "s3cret"}) == ("it is ***" if is_secret else "it is s3cret")
    assert mask_secrets({"options": [{name: "s3cret"}]}) == {"options": [{name: "***" if is_secret else "s3cret"}]}


@pytest.mark.parametrize("part", ["/", "//a", "//a?", "?a", "//a@?b= "])
def test_a_long_text_that_looks_like_addresses_throughout_is_masked_at_once(part):
    started = process_time()
    mask_credentials(part * 100_000)
    assert process_time() - started < 5


def test_an_error_shows_no_credentials_in_any_part():
    address = "https://me:s3cret/x@host/a?token=s3cret"
    error = UpkeepError(address, expected=address, remedy=address, file=address).at(table=address)
    assert "s3cret" not in f"{error} {error.what} {error.expected} {error.remedy} {error.where}"
    assert "host" in error.what


@pytest.mark.parametrize(
    "error", [TooLittleDataError("no rows", remedy="fetch more history"), NotReadyError("no remote", step=2)]
)
def test_an_error_stays_of_its_kind_wherever_its_place_is_added(error):
    for moved in (error.at(plant="lyon"), error.at(stage="train"), copy(error)):
        assert (type(moved), moved.remedy) == (type(error), error.remedy)
