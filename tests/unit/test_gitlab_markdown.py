"""Whatever text gets into what GitLab shows, it is shown and does nothing."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import date
from functools import cache

import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from merge_request_cases import OUT_OF_RANGE, delivered, drift, params, plant, quality, review, snapshot
from prediction_cases import START

from upkeep.core.errors import UpkeepError
from upkeep.gitlab.failure import Failure, describe_failure
from upkeep.gitlab.gate import Verdict, reach_verdict
from upkeep.gitlab.markdown import MOST_CHARACTERS, MOST_LISTED, code, inert, sentence, show, tabulate
from upkeep.gitlab.note import write_note
from upkeep.gitlab.retraining import describe_offer
from upkeep.judging.acceptance import Check
from upkeep.judging.reports import Metrics
from upkeep.releases.succession import Succession

LYON = plant("lyon", machines=2)
DAY = date(2025, 12, 29)
PIECES = [
    *"<>&\"'`*_|\\[](){}#+-=~$!:/@%^.1a \n\t\r\0\x1b\u2028\u202e",
    *(
        "@all",
        "\n/merge\n",
        "/close",
        "~bug",
        '~"a b"',
        "#1",
        "!1",
        "%1",
        "&1",
        "$1",
        "^alert#1",
        "[issue:1]",
        "a@b.org",
    ),
    *("<img src=https://x.org/y>", "</details>", "<!--", "![x](https://x.org/y.png)", "[x](javascript:alert(1))"),
    *(
        "https://x.org",
        "www.x.org",
        "\n```\n",
        "\n~~~\n",
        "\n| a |\n| - |\n",
        "\\n/merge",
        ":tada:",
        "&lt;",
        "[^1]",
        "$`x`$",
    ),
]
TEXTS = st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=8).map("".join)
ATTACKS = ["x\n/merge\n", "@all", "x\\n/merge", "a\\|b|`c", "`</details>` @all", "1. https://x.org", "x" * 5000]

MARKDOWN = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
REFERENCE = re.compile(r"(?:^|(?<=\W))(?:[@~#!%$&^](?=[\w\"])|:(?=\w+:)|\[(?=issue:))|https?://|www\.", re.IGNORECASE)
"""What GitLab makes links, labels, mentions and pictures of, anywhere in a text that is not code."""


def outline(markdown: str) -> tuple[list[str], list[str], int]:
    """The elements of a text, those parts of it that GitLab would act on, and its lines that are commands."""
    elements, acting = [], []
    for block in MARKDOWN.parse(markdown):
        elements += [block.type] if block.type != "inline" else []
        for token in block.children or ():
            # Whether a name is shown as words or as code is for it to decide.
            elements += [token.type + token.content * (token.type == "html_inline")] if token.type not in PLAIN else []
            acting += REFERENCE.findall(token.content) if token.type == "text" else []
        acting += [block.content] if block.type == "html_block" else []
    return elements, acting, sum(line.lstrip().startswith("/") for line in markdown.splitlines())


PLAIN = ("text", "code_inline")


BEFORE, AFTER = snapshot("main", LYON), snapshot("this branch", LYON)
REVIEW = review(BEFORE, AFTER)
HELD = Check("x", "y", "z", True)


def note(changes: Mapping[str, object], checks=(HELD,), faults=(), times=None) -> str:
    """The note on a branch whose reports are changed."""
    side = replace(AFTER, **changes)
    verdict = reach_verdict(BEFORE, side, Succession("promote", [], [], REVIEW.comparison), checks, (), faults)
    made = REVIEW._replace(challenger=side, checks=checks, times=times or {}, verdict=verdict)
    return write_note(made, params().evaluate, "", "")


def renamed(text: str) -> Mapping[str, object]:
    group = AFTER.evaluation.plants["lyon"]
    return {"evaluation": AFTER.evaluation.model_copy(update={"plants": {text: group}})}


def compared(text: str) -> str:
    """The note on failures and alarms of a machine of this name."""
    rows = {"plant": text, "machine": text, "time": START, "failed_at": START, "gained": True, "false": False}
    frame = pl.DataFrame(rows)
    groups = {text: REVIEW.comparison.plants["lyon"]}
    failures, alarms = frame.drop("time", "false"), frame.drop("failed_at")
    comparison = REVIEW.comparison._replace(plants=groups, alarms=alarms, failures=failures)
    side = replace(AFTER, **renamed(text))
    made = REVIEW._replace(champion=replace(side, name=text), challenger=side, comparison=comparison)
    return write_note(made, params().evaluate, "", "")


def headline(text: str) -> Mapping[str, object]:
    other = Metrics(rows=1, machines=1, positives=0, failures=0)
    return {"metrics": BEFORE.metrics.model_copy(update={"plants": {text: other}})}


SLOTS: dict[str, Callable[[str], str]] = {
    "a plant that is new": lambda text: note(renamed(text)),
    "a plant, machine and branch": compared,
    "a plant's table": lambda text: note({"quality": quality(**{text: OUT_OF_RANGE})}),
    "a reason of quarantine": lambda text: note({"quality": quality(lyon={text: 3})}),
    "a column that drifted": lambda text: note({"drift": drift(**{text: [text]})}),
    "a delivery's plant": lambda text: note({"manifest": delivered([text], "2025-01-13")}),
    "a metric": lambda text: note(headline(text)),
    "a check": lambda text: note({}, checks=[Check(text, text, text, False)]),
    "a missing file": lambda text: note({"missing": {text: text}}),
    "a fault": lambda text: note({}, faults=[text, sentence("it is {}", text)]),
    "a stage": lambda text: note({}, times={text: 1.0}),
    "a failure's issue": lambda text: failed(text)[1],
    "a retraining's merge request": lambda text: offered(text),
    "a cell": lambda text: tabulate(["x", "y"], [[text, code(text)]]),
}


def failed(text: str):
    where = {"stage": text, "file": text}
    failure = Failure(what=text, expected=text, remedy=text, where=where)
    return describe_failure(failure, {"CI_JOB_NAME": text, "CI_COMMIT_SHORT_SHA": "abc", "CI_COMMIT_REF_NAME": text})


def offered(text: str) -> str:
    options = describe_offer("main", DAY, {"drift": text}, Verdict(False, [text, sentence("it is {}", text)]), None)
    (description,) = (option for option in options if option.startswith("merge_request.description="))
    return description.partition("=")[2].replace("\\n", "\n")  # as GitLab reads it


@cache
def harmless(slot: Callable[[str], str]) -> tuple[list[str], list[str], int]:
    return outline(slot("Halle"))


@pytest.mark.parametrize("slot", SLOTS.values(), ids=SLOTS)
@settings(max_examples=20)
@given(text=TEXTS.filter(str.strip))
def test_no_text_in_any_place_does_more_than_a_harmless_one(slot, text):
    assert outline(slot(text)) == harmless(slot)


@pytest.mark.parametrize("slot", SLOTS.values(), ids=SLOTS)
@pytest.mark.parametrize("text", ATTACKS)
def test_attacks_do_no_more_than_a_harmless_text_either(slot, text):
    assert outline(slot(text)) == harmless(slot)


@given(text=TEXTS)
@example(text="Closes #1\n\nCo-authored-by: x <x@y.org> [skip ci]")
def test_a_title_and_a_commits_message_mention_and_command_nothing(text):
    for shown in (failed(text)[0], inert(text)):
        assert not re.search(r"[@#!~%&^$<\[](?=[\w/\"])|://", shown)
        assert len(shown.splitlines()) <= 1


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("lyon", "lyon"),
        ("load_pct", "load_pct"),
        ("12% out of range: at least 0.5", "12% out of range: at least 0.5"),
        ("2025-01-06 07:30", "2025-01-06 07:30"),
        ("Süd, Halle 1/a (alt)", "Süd, Halle 1/a (alt)"),
        ("", ""),
        (12345, "12,345"),
        (None, "not known"),
        ("@all", "`@all`"),
        ("_x_", "`_x_`"),
        ("1. x", "`1. x`"),
        ("`x`", "`'x'`"),
        ("www.x.org", "`www.x.org`"),
        ("a\x1b[0K", "`a\\x1b[0K`"),
    ],
)
def test_plain_words_stay_and_anything_else_is_code(text, shown):
    assert show(text) == shown


def test_a_text_of_any_length_is_cut():
    assert len(show("x" * 10**6)) == MOST_CHARACTERS + 3
    assert len(code("@" * 10**6)) == MOST_CHARACTERS + 3


def test_a_note_on_any_number_of_plants_is_within_what_gitlab_takes():
    long = "@" * 300
    names = [f"{number}{long}" for number in range(1000)]
    counts = {f"{number}{long}": 10**14 for number in range(20)}
    text = note(
        {
            "quality": quality(**dict.fromkeys(names, counts)),
            "drift": drift(**dict.fromkeys(names, names[:20])),
            "manifest": delivered(names, "2025-01-13"),
            "missing": dict.fromkeys(names, long),
            **headline(long),
        },
        checks=[Check(name, long, long, False) for name in names],
        faults=names,
        times=dict.fromkeys(names, 1.0),
    )
    assert len(text) < 400_000
    assert f"… and {1000 - MOST_LISTED:,} more" in text
    assert not REFERENCE.search(re.sub("`[^`]*`", "", text))


def test_a_chat_is_told_nothing_that_mentions_anybody(monkeypatch):
    sent = []
    monkeypatch.setattr("urllib3.PoolManager.request", lambda *_, json, **__: sent.append(json) or Answer())
    from upkeep.gitlab.failure import _call_webhook

    _call_webhook(*failed("<!channel> <@U1> @here"), {"UPKEEP_ALERT_WEBHOOK": "https://chat.example.com/x"})
    assert not re.search(r"<[!@]|@\w", json.loads(json.dumps(sent[0]))["text"])


class Answer:
    status = 200


def test_an_error_in_a_log_steers_no_terminal_and_opens_no_section(monkeypatch, capsys, tmp_path):
    from upkeep import cli

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "app", lambda: (_ for _ in ()).throw(broken("section_start:1:x\r\x1b[0K\x1b[31mred")))
    with pytest.raises(SystemExit):
        cli.main()
    assert not re.search(r"[\x1b\r]", capsys.readouterr().err)


def broken(text: str) -> UpkeepError:
    return UpkeepError(text, remedy=text, plant=text)
