"""The planner's page in a real browser, Debian's Chromium, served by a real server from a board of made predictions."""

import re
import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest
import uvicorn
from board_cases import HOUR, prediction
from fastapi import FastAPI
from nbconvert.filters.markdown_mistune import markdown2html_mistune
from playwright.sync_api import expect

from upkeep.production.health import ORDER, Signal
from upkeep.production.standing import summarise_signals
from upkeep.reporting.markdown import format_table
from upkeep.reporting.templates import render_html
from upkeep.serving.access import Access
from upkeep.serving.board import Board
from upkeep.serving.counters import Counters
from upkeep.serving.page import page_routes, visit_route
from upkeep.serving.protocol import Refused
from upkeep.serving.settings import Settings

TOKEN = "correct-horse"
REASONS = ["vibration over 8 h is 7.2 mm/s", "temperature is 9 °C above its healthy level"]
GAP = {"code": "gap", "message": "No readings for 9 h", "column": None}
RANGE = {"code": "range", "message": "pressure_bar of 14 bar is above all of training", "column": "pressure_bar"}
MARKUP = "<img src=x onerror=document.title='harmed'>"

# Of every element that holds text of its own: the lowest ratio of the luminances of text and ground, as WCAG 2 has it.
LOWEST_CONTRAST = """() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const luminance = (color) => {
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].map((value) => value / 255)
      .map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    const color = getComputedStyle(element).backgroundColor;
    return color === "rgba(0, 0, 0, 0)" ? ground(element.parentElement) : color;
  };
  const ratio = (element) => {
    const [dark, light] = [getComputedStyle(element).color, ground(element)].map(luminance).sort((a, b) => a - b);
    return (light + 0.05) / (dark + 0.05);
  };
  const hasText = (element) => [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
  const shown = [...document.body.querySelectorAll("*")].filter((each) => hasText(each) && each.checkVisibility());
  return Math.min(...shown.map(ratio));
}"""


@pytest.fixture
def open_page(browser):
    """Open an address in a window of its own; what went wrong in it fails the test."""
    windows, mishaps = [], []

    def start(url, *, width=1280, wait_for="#fleet li", **options):
        window = browser.new_context(viewport={"width": width, "height": 800}, **options)
        windows.append(window)
        page = window.new_page()
        page.on("pageerror", lambda error: mishaps.append(str(error)))
        page.on("console", lambda message: mishaps.append(message.text) if message.type == "error" else None)
        page.clock.install()
        page.goto(url)
        page.wait_for_selector(wait_for)
        return page

    yield start
    for window in windows:
        window.close()
    # A browser says on its console that it was refused or found nobody; these are cases that a test makes.
    assert [each for each in mishaps if not re.search("40[01]|ERR_CONNECTION_REFUSED", each)] == []


def explain(*_):
    return [{"feature": "x", "value": 1.0, "contribution": 1.0, "words": words} for words in REASONS]


async def answer(_, refused):
    return refused.to_response()


class Words(list):
    """A log that takes all it is told."""

    write_error = ""

    def append(self, row, log):  # noqa: ARG002  # there is one
        super().append(row)
        return True


@contextmanager
def serving(board, *, tokens=(), explain=explain, monitoring=None, words=None):
    app = FastAPI()
    app.exception_handler(Refused)(answer)
    told = words is not None
    kept = {"monitoring": monitoring, "log_url": "log" if told else None}
    settings = Settings.model_construct(tokens={b"any": "planner"}, **kept)  # so that the page says nothing of tokens
    app.include_router(page_routes(board, SimpleNamespace(explain=explain, horizon_hours=48), settings))
    if told:
        app.include_router(visit_route(board, words))
    app.add_middleware(Access, tokens=dict.fromkeys(tokens, "planner"), metrics=Counters({}, None), hosts=())
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"
    finally:
        server.should_exit = True
        thread.join(timeout=10)


@pytest.fixture
def board():
    """Two alarms, in lyon and porto, and three machines without."""
    board = Board("", 20_000)
    for hours_ago in range(30, 0, -1):
        board.add(prediction("press 2", 0.02 * (31 - hours_ago), hours_ago=hours_ago))
    maintained = {"maintained_at": prediction(hours_ago=72)["time"], "maintenance_code": "bearing"}
    board.add(prediction("press 2", 0.8, warnings=[GAP, RANGE], **maintained))
    for machine, probability, plant in [("saw", 0.6, "porto"), ("mill", 0.4, "porto"), ("press 1", 0.05, "lyon")]:
        board.add(prediction(machine, probability, plant=plant))
    board.add(prediction("lathe", 0.001, hours_ago=100))
    return board


@pytest.fixture
def url(board):
    with serving(board) as address:
        yield address


def machines(page):
    return page.locator("#fleet .name strong").all_text_contents()


def row(page, machine):
    return page.locator("#fleet > section > ol > li").filter(has_text=machine)


def press(page, *keys):
    for key in keys:
        page.keyboard.press(key)


def focused(page):
    return page.evaluate("document.activeElement.querySelector('strong')?.textContent ?? document.activeElement.id")


def let_a_minute_pass(page):
    with page.expect_response(lambda response: "/fleet?" in response.url) as response:
        page.clock.run_for(60_000)
    response.value.finished()


def test_the_page_says_at_once_which_machines_need_the_planner(open_page, url):
    page = open_page(url)
    expect(page.locator("h1")).to_have_text("2 of 5 machines need you")
    assert machines(page) == ["press 2", "saw", "mill", "press 1", "lathe"]
    assert page.locator("#alarm .name strong").all_text_contents() == ["press 2", "saw"]
    expect(page.locator("#rule")).to_contain_text("Alarms first, then the highest risk of a failure within 48 h.")


def test_a_row_says_risk_reason_warning_and_last_maintenance_in_words(open_page, url):
    page = open_page(url)
    alarm = row(page, "press 2").inner_text().replace("\u00a0", " ")
    for words in ["lyon", "80 %", "within 48 h", REASONS[0], "⚠ No readings for 9 h (and 1 more)", ": bearing"]:
        assert words in alarm
    expect(row(page, "press 1")).to_contain_text("No maintenance on record")
    expect(row(page, "lathe")).to_contain_text("⚠ Last reading 4 days ago")
    expect(row(page, "lathe").locator(".risk strong")).to_have_text("< 1\u00a0%")
    assert row(page, "lathe").locator("time").get_attribute("title").endswith(" UTC")


def test_a_machine_maintained_after_its_reading_needs_nobody(open_page, url, board):
    repaired = prediction()["time"] + HOUR
    board.add(prediction("saw", 0.7, plant="porto", maintained_at=repaired, maintenance_code="blade"))
    page = open_page(url)
    expect(page.locator("h1")).to_have_text("1 of 5 machines needs you")
    assert machines(page) == ["press 2", "saw", "mill", "press 1", "lathe"]
    assert page.locator("#alarm .name strong").all_text_contents() == ["press 2"]
    expect(row(page, "saw")).to_contain_text(": blade, after the reading")
    expect(row(page, "press 2")).not_to_contain_text("after the reading")


def test_a_machine_under_repair_needs_nobody_and_says_why(open_page, url, board):
    later = prediction()["time"] + HOUR
    board.add(prediction("saw", 0.7, plant="porto", scored_at=later, serviced_at=later))
    page = open_page(url)
    expect(page.locator("h1")).to_have_text("1 of 5 machines needs you")
    expect(row(page, "saw")).to_contain_text("Failed or serviced since")


def test_the_sparkline_shows_where_the_risk_stands_against_the_alarm(open_page, url):
    page = open_page(url)
    points = row(page, "press 2").locator("polyline").get_attribute("points").split()
    heights = [float(point.split(",")[1]) for point in points]
    threshold = float(row(page, "press 2").locator(".threshold").get_attribute("y1"))
    assert len(points) == 31
    assert heights[-1] < threshold < heights[0]
    label = row(page, "press 2").get_by_role("img").get_attribute("aria-label").replace("\u00a0", " ")
    assert re.fullmatch(r"Risk 2 % at .+ UTC, 80 % at .+ UTC", label)


def test_an_opened_row_gives_all_reasons_and_what_may_not_be_trusted(open_page, url):
    page = open_page(url)
    row(page, "press 2").locator("summary").click()
    details = row(page, "press 2").locator(".details")
    expect(details.locator("ol li")).to_have_text(REASONS)
    expect(details.locator("ul li")).to_have_text([GAP["message"], RANGE["message"]])
    expect(details).to_contain_text("3f9ac1d2")


def test_the_list_is_cut_to_a_plant_which_the_address_remembers(open_page, url):
    page = open_page(url)
    page.get_by_label("Plant").select_option("porto")
    expect(page.locator("h1")).to_have_text("1 of 2 machines in porto needs you")
    assert machines(page) == ["saw", "mill"]
    page.reload()
    expect(page.locator("h1")).to_have_text("1 of 2 machines in porto needs you")
    assert machines(page) == ["saw", "mill"]


def test_everything_can_be_reached_and_read_by_keyboard(open_page, url):
    page = open_page(url)
    visited = []
    for _ in range(3):
        press(page, "Tab")
        visited.append(focused(page))
    assert visited == ["plant", "search", "press 2"]
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    press(page, "Tab", "Enter")
    assert focused(page) == "saw"
    expect(row(page, "saw").locator(".details ol li").first).to_have_text(REASONS[0])


def test_a_refresh_keeps_the_open_row_its_focus_and_its_place_while_the_ranking_changes(open_page, url, board):
    page = open_page(url)
    row(page, "mill").locator("summary").click()
    expect(row(page, "mill").locator(".details ol")).to_be_visible()
    page.evaluate("document.body.style.paddingBottom = '2000px'; scrollTo(0, 200)")
    before = row(page, "mill").bounding_box()["y"]
    for machine, probability in [("press 1", 0.95), ("drill", 0.9)]:
        board.add(prediction(machine, probability, hours_ago=-1))
    let_a_minute_pass(page)
    expect(page.locator("#alarm .name strong")).to_have_text(["press 1", "drill", "press 2", "saw"])
    assert row(page, "mill").bounding_box()["y"] == pytest.approx(before, abs=1)
    assert focused(page) == "mill"
    expect(row(page, "mill").locator(".details ol")).to_be_visible()


def test_an_open_row_and_its_focus_follow_the_machine(open_page, url, board):
    page = open_page(url)
    row(page, "mill").locator("summary").click()
    expect(row(page, "mill").locator(".details")).to_contain_text("3f9ac1d2")
    board.add(prediction("mill", 0.7, plant="porto", hours_ago=-1, model_version="a-newer-one"))
    let_a_minute_pass(page)
    expect(row(page, "mill").locator(".details")).to_contain_text("a-newer-one")
    expect(page.locator("#alarm .name strong")).to_have_text(["press 2", "mill", "saw"])
    assert focused(page) == "mill"


def test_a_token_is_asked_for_and_stays_out_of_the_address(open_page, board):
    with serving(board, tokens=(TOKEN.encode(),)) as url:
        page = open_page(url, wait_for="#token-form:not([hidden])")
        assert focused(page) == "token"
        page.keyboard.type("wrong-horse")
        press(page, "Enter")
        expect(page.get_by_role("alert")).to_have_text("The service does not accept this token.")
        page.keyboard.type(TOKEN)
        press(page, "Enter")
        expect(page.locator("h1")).to_have_text("2 of 5 machines need you")
        page.reload()
        expect(page.locator("h1")).to_have_text("2 of 5 machines need you")
        assert page.url == url
        assert page.evaluate("[localStorage.length, document.cookie]") == [0, ""]


def test_what_a_visit_found_is_told_with_two_clicks_and_corrected_with_one(open_page, board):
    board.add(prediction("saw", 0.1, plant="porto", hours_ago=-1))
    words = Words()
    with serving(board, tokens=(TOKEN.encode(),), words=words) as url:
        page = open_page(url, wait_for="#token-form:not([hidden])")
        page.keyboard.type(TOKEN)
        press(page, "Enter")
        row(page, "saw").locator("summary").click()  # its alarm is over
        visited = row(page, "saw").get_by_label("Visited, UTC")
        visited.fill(visited.input_value()[:-2] + "59")
        row(page, "saw").get_by_role("button", name="Defect found").click()
        expect(row(page, "saw").get_by_role("status")).to_contain_text("Noted: defect found on")
        row(page, "saw").get_by_role("button", name="Nothing found").click()
        expect(row(page, "saw").get_by_role("status")).to_contain_text("Noted: nothing found on")
        row(page, "mill").locator("summary").click()
        expect(row(page, "mill").locator(".details ol")).to_be_visible()
        expect(row(page, "mill").get_by_role("button")).to_have_count(0)
    first, second = words
    assert [word["finding"] for word in words] == ["defect", "nothing"]
    assert first["visited_at"] == second["visited_at"]
    assert first["alarm_at"].timestamp() * 1e6 == prediction()["time"]
    assert first["said_by"] == "planner"


def test_a_page_without_a_log_has_no_buttons_and_one_that_is_refused_says_so(open_page, board, url):
    page = open_page(url)
    row(page, "press 2").locator("summary").click()
    expect(row(page, "press 2").get_by_role("button", name="Defect found")).to_have_count(0)
    with serving(board, words=Words()) as address:
        page = open_page(address)
        row(page, "press 2").locator("summary").click()
        row(page, "press 2").get_by_label("Visited, UTC").fill("2199-01-01T00:00")
        row(page, "press 2").get_by_role("button", name="Defect found").click()
        told = row(page, "press 2").get_by_role("status")
        expect(told).to_have_text("The service answered with status 400: nothing was noted.")


def test_the_page_follows_the_readers_theme(open_page, url):
    grounds = {
        open_page(url, color_scheme=scheme).evaluate("getComputedStyle(document.body).backgroundColor")
        for scheme in ("light", "dark")
    }
    assert len(grounds) == 2


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_stands_out_from_its_ground(open_page, url, scheme):
    page = open_page(url, color_scheme=scheme)
    row(page, "press 2").locator("summary").click()
    expect(row(page, "press 2").locator(".details ol")).to_be_visible()
    assert page.evaluate(LOWEST_CONTRAST) >= 4.5


def test_a_phone_shows_everything_without_scrolling_sideways(open_page, url, board):
    board.add(prediction("SPINDLE" * 7, 0.9, plant="SUBURB" * 7))
    page = open_page(url, width=360, has_touch=True)
    row(page, "press 2").locator("summary").tap()
    expect(row(page, "press 2").locator(".details ol")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    sizes = [
        element.bounding_box()["height"] for element in page.locator("button:visible, select, input:visible").all()
    ]
    assert min(sizes) >= 40


def test_an_empty_page_says_how_predictions_get_there(open_page):
    with serving(Board("", 20_000)) as url:
        page = open_page(url, wait_for="#empty:not([hidden])")
        expect(page.locator("h1")).to_have_text("No predictions yet")
        expect(page.locator("#empty")).to_contain_text("upkeep score")
        expect(page.locator("#empty")).to_contain_text("POST /invocations")


def test_names_and_messages_stay_text(open_page):
    board = Board("", 20_000)
    warning = {"code": "x", "message": MARKUP, "column": MARKUP}
    texts = {"plant": MARKUP, "model_version": MARKUP, "maintenance_code": MARKUP, "maintained_at": 0}
    board.add(prediction(MARKUP, 0.9, warnings=[warning], **texts))
    with serving(board, explain=lambda *_: [{"words": MARKUP}]) as url:
        page = open_page(url)
        page.locator("summary").click()
        expect(page.locator(".details ol li")).to_have_text(MARKUP)
        assert machines(page) == [MARKUP]
        assert page.locator("main img").count() == 0
        assert page.title() == "upkeep"


def test_no_request_leaves_the_service(open_page, url):
    page = open_page("about:blank", wait_for="html")
    asked = []
    page.context.on("request", lambda request: asked.append(urlsplit(request.url).netloc))
    page.goto(url)
    row(page, "press 2").locator("summary").click()
    expect(row(page, "press 2").locator(".details ol")).to_be_visible()
    let_a_minute_pass(page)
    assert len(asked) > 8
    assert set(asked) == {urlsplit(url).netloc}


def test_ten_thousand_machines_come_in_pages_and_are_found_by_name(open_page):
    board = Board("", 20_000)
    for number in range(10_000):
        board.add(prediction(f"machine {number:05d}", number / 25_000))
    with serving(board) as url:
        page = open_page(url)
        expect(page.locator("h1")).to_have_text("None of 10,000 machines needs you")
        expect(page.locator("#fleet li")).to_have_count(50)
        page.get_by_role("button", name="Show 50 more of 10,000").click()
        expect(page.locator("#fleet li")).to_have_count(100)
        page.get_by_label("Machine").fill("00017")
        expect(page.locator("#fleet .name strong")).to_have_text(["machine 00017"])
        page.get_by_label("Machine").fill("nowhere")
        expect(page.locator("#rule")).to_have_text("No machine matches.")


def test_a_service_that_is_gone_is_reported_beside_what_was_known(open_page, board):
    with serving(board) as url:
        page = open_page(url)
    page.clock.run_for(60_000)
    expect(page.get_by_role("status")).to_have_text("The service cannot be reached. The page tries again each minute.")
    assert len(machines(page)) == 5


def test_a_prediction_log_that_cannot_be_read_is_a_notice_only(open_page, tmp_path):
    (tmp_path / "log").write_text("not a folder")
    board = Board(str(tmp_path / "log/deeper"), 20_000)
    board.add(prediction())
    board.refresh()
    with serving(board) as url:
        page = open_page(url)
        expect(page.get_by_role("status")).to_contain_text("Some machines may be missing: the prediction log")
        assert machines(page) == ["press"]


def test_a_prediction_log_not_read_for_a_while_is_a_notice_with_the_time(open_page, tmp_path):
    board = Board(str(tmp_path / "log"), 20_000)
    board.add(prediction())
    board.refresh()
    with serving(board) as url:
        expect(open_page(url).get_by_role("status")).to_be_empty()
        board._log_read_at -= timedelta(hours=1)  # instead of an hour of failing refreshes
        expect(open_page(url).get_by_role("status")).to_contain_text("the prediction log was last read at")


def test_readings_too_old_for_any_risk_to_be_about_today_are_reported(open_page):
    board = Board("", 20_000)
    board.add(prediction(hours_ago=200))
    with serving(board) as url:
        expect(open_page(url).get_by_role("status")).to_contain_text("Each risk is for the 48 h after its reading")


SIGNALS = [
    Signal(plant=MARKUP, measure="freshness", status="act", words=MARKUP, remedy="ask the plant"),
    Signal(plant="porto", measure="drift", status="watch", words="5 of 7 columns drifted"),
    Signal(plant="gdansk", measure="drift", status="unknown", words="whether it drifted is not known"),
    Signal(plant="lyon", measure="drift", status="fine", words="as ever"),
]


def summary(**update):
    now = datetime(2025, 1, 6, tzinfo=UTC)
    found = summarise_signals(SIGNALS, None, "Nothing new.", [MARKUP, "gdansk", "lyon", "porto"], now)
    return found.model_copy(update=update)


@pytest.mark.parametrize(("page", "links"), [("https://team.example/index.html", 3), ("javascript:harm()", 0)])
def test_the_page_says_which_plants_are_not_fine_and_why(open_page, tmp_path, page, links):
    file = tmp_path / "monitoring.json"
    file.write_text(summary(page=page).model_dump_json())
    with serving(Board("", 20_000), monitoring=file) as address:
        shown = open_page(address, wait_for="#standings li")
        lines = shown.locator("#standings li").all_inner_texts()
        assert [line.split(" since")[0] for line in lines[:-1]] == [f"{MARKUP} Act", "porto Watch", "gdansk Unknown"]
        assert lines[-1].startswith("1 plant fine, as of 2025-01-06")
        assert shown.locator("#standings a").count() == links
        assert shown.evaluate(LOWEST_CONTRAST) >= 4.5
        assert shown.title() == "upkeep"


@pytest.mark.parametrize("template", ["monitoring_planner.html", "monitoring_engineer.html"])
def test_both_pages_of_monitoring_are_readable_without_network_by_anybody_on_a_phone(open_page, tmp_path, template):
    (tmp_path / "index.html").write_text(render_html(template, monitoring=summary(), order=ORDER))
    address = (tmp_path / "index.html").as_uri()
    page = open_page(address, width=390, wait_for="h1", offline=True)
    assert page.evaluate(LOWEST_CONTRAST) >= 4.5
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.title() in ("Plants", "What was looked at")
    assert MARKUP in page.inner_text("main")


def test_a_reports_table_is_sorted_by_a_click_and_filtered_by_a_word(browser):
    cells = [
        ("lyon", "not known"),
        ("porto", "1,200"),
        ("brno", "0.9 (0.1 to 2.0)"),
        *((f"p{at}", "5") for at in range(15)),
    ]
    table = format_table(["plant", "cost"], cells)
    page = browser.new_page()
    page.set_content(render_html("page.html", title="A", content=markdown2html_mistune(table)))

    def shown():
        return page.locator("tbody tr:visible td:first-child").all_inner_texts()

    page.get_by_role("button", name="cost").click()
    assert (shown()[0], shown()[-2:]) == ("porto", ["brno", "lyon"])
    page.get_by_role("button", name="cost").click()
    assert (shown()[0], shown()[-2:]) == ("brno", ["porto", "lyon"])
    page.get_by_role("searchbox").fill("PORT")
    assert shown() == ["porto"]
