"""The service at its limits: what exceeds one is refused by name, and costs nobody else anything."""

import csv
import encodings
import io
import json
from copy import deepcopy
from http.client import HTTPConnection

import pytest
from extreme_requests import extremes, write_request
from hypothesis import given
from pydantic import ValidationError
from served import connect, read_all, serving, statuses, talk
from starlette.testclient import TestClient
from trained_fleet import service_environment

from upkeep.serving import body
from upkeep.serving.app import create_app
from upkeep.serving.page import MOST_SHOWN
from upkeep.serving.protocol import Invocation, Refused
from upkeep.serving.settings import read_settings
from upkeep.serving.table import read_table

JSON = {"content-type": "application/json"}
LARGEST = 500_000
POST = b"POST /invocations HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
PING = b"GET /ping HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


def create(trained_fleet, folder, **variables):
    return create_app(read_settings(service_environment(trained_fleet, folder, **variables)))


@pytest.fixture(scope="module")
def client(trained_fleet, tmp_path_factory):
    with TestClient(create(trained_fleet, tmp_path_factory.mktemp("limits"))) as client:
        yield client


@pytest.fixture
def table(trained_fleet):
    """A golden request of one machine to change."""
    cases = json.loads((trained_fleet / "models/golden/lyon.json").read_text())
    return deepcopy(cases[0]["request"]["dataframe_split"])


def put(table, name, *values):
    """Give each row, in turn, one of the values."""
    if name not in table["columns"]:
        table["columns"].append(name)
        for row in table["data"]:
            row.append(None)
    for number, row in enumerate(table["data"]):
        row[table["columns"].index(name)] = values[number % len(values)]


def spell(table, spelling):
    """Return body and headers."""
    if spelling == "csv":
        text = io.StringIO()
        csv.writer(text).writerows([table["columns"], *table["data"]])
        return text.getvalue().encode(), {"content-type": "text/csv"}
    records = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    content = {"dataframe_records": records} if spelling == "records" else {"dataframe_split": table}
    return json.dumps(content).encode(), JSON


def post(client, table, spelling="split"):
    content, headers = spell(table, spelling)
    return client.post("/invocations", content=content, headers=headers)


def first_error(response):
    return response.json()["errors"][0]


@pytest.mark.parametrize("column", ["plant", "machine", "code", "model"])
@pytest.mark.parametrize("length", [201, 100_000])
def test_a_name_that_is_too_long_costs_its_machine_only_and_is_not_repeated(client, table, column, length):
    good = deepcopy(table)
    put(table, column, "n" * length)
    response = post(client, table)
    assert response.status_code == 422
    assert len(response.content) < 2_000
    put(table, "machine", "M1" if column != "machine" else "n" * length)
    put(good, "machine", "good")
    put(good, column, *{"plant": ["lyon"], "machine": ["good"]}.get(column, [None]))
    good["data"] += table["data"]
    assert [each["machine"] for each in post(client, good).json()["predictions"]] == ["good"]


@pytest.mark.parametrize("spelling", ["split", "records", "csv"])
@pytest.mark.parametrize(
    ("names", "status", "limit"), [(["c" * 201], 422, "at most 200"), ([str(n) for n in range(1001)], 413, "1000")]
)
def test_names_and_number_of_columns_are_bounded(client, table, spelling, names, status, limit):
    for name in names:
        put(table, name, 1)
    response = post(client, table, spelling)
    assert response.status_code == status
    assert limit in first_error(response)["expected"]
    assert len(response.content) < 2_000


@pytest.mark.parametrize("spelling", ["split", "records", "csv"])
@pytest.mark.parametrize(("change", "limit"), [("rows", "more than 200 rows"), ("machines", "more than 3 machines")])
def test_rows_and_machines_are_bounded(client, table, spelling, change, limit, monkeypatch):
    monkeypatch.setattr("upkeep.serving.table.MOST_ROWS", 200)
    monkeypatch.setattr("upkeep.serving.request.MOST_MACHINES", 3)
    put(table, "machine", *(["a", "b", "c", "d"] if change == "machines" else ["a"]))
    table["data"] *= 5 if change == "rows" else 1
    response = post(client, table, spelling)
    assert response.status_code == 413
    assert limit in first_error(response)["what"]
    put(table, "machine", "a", "b", "c")
    table["data"] = table["data"][:200]
    assert len(post(client, table, spelling).json()["predictions"]) == 3


@pytest.mark.parametrize(
    "content",
    [
        {"dataframe_split": {"columns": [1] * 1000, "data": []}},
        {"dataframe_split": {"columns": ["a"], "data": [1] * 1000}},
        {"dataframe_records": [1] * 1000},
    ],
)
def test_of_items_that_are_all_wrong_the_first_is_told_since_all_would_fill_the_memory(content):
    with pytest.raises(ValidationError) as refused:
        Invocation.model_validate(content)
    assert refused.value.error_count() == 1


@pytest.mark.parametrize("spelling", ["columns", "one record", "many records"])
def test_millions_of_names_are_refused_as_soon_as_they_are_too_many(spelling, monkeypatch):
    monkeypatch.setattr("upkeep.serving.table.Counter", None)  # which would take each of them in
    names = [f"c{number}" for number in range(1001)]
    one, many = [dict.fromkeys(names, 1)], [{name: 1} for name in names]
    split = {"dataframe_split": {"columns": names, "data": []}}
    content = {"columns": split, "one record": {"dataframe_records": one}, "many records": {"dataframe_records": many}}
    with pytest.raises(Refused, match="there are more than 1000 columns"):
        read_table(json.dumps(content[spelling]).encode(), "application/json", {})


@pytest.mark.parametrize("stated", ["charset*" + "9" * 5000 + "=a", "charset*=punycode''" + "a" * 20_000, ";" * 30_000])
def test_whatever_a_content_type_states_is_looked_at_in_no_time(client, stated):
    headers = {"content-type": f"text/csv; {stated}"}
    assert client.post("/invocations", content=b"{}", headers=headers).status_code == 400


def test_charsets_that_are_none_are_not_remembered(client):
    headers = {"content-type": "text/csv; charset=never-heard-of"}
    assert client.post("/invocations", content=b"{}", headers=headers).status_code == 415
    assert "never_heard_of" not in encodings._cache


def test_a_request_that_takes_too_long_is_refused(client, table, monkeypatch):
    monkeypatch.setattr("upkeep.serving.table.MOST_SECONDS", 1e-9)
    response = post(client, table)
    assert response.status_code == 413
    assert "answering takes more than" in first_error(response)["what"]


@pytest.mark.parametrize(
    ("content", "kind", "what"),
    [
        (b"[" + b"[]," * 500_000 + b"[]]", "application/json", "500002 lists or objects"),
        (b"[" + b"1," * 3_000_001 + b"1]", "application/json", "3000001 values"),
        (b"a\n" + b"," * 1_000_001, "text/csv", "a line has 1000001 characters"),
        (b"\n" * 500_000, "text/csv", "500000 ends of lines"),
        (b"plant,machine,time," + b"x" * 600_000 + b"\n", "text/csv", "field larger than field limit (131072)"),
        (b"plant,machine,time\n" + b"lyon,M1,2025\n" * 200_001, "text/csv", "more than 200000 rows"),
    ],
)
def test_what_would_be_many_times_as_large_once_it_is_read_is_not_read(client, content, kind, what):
    response = client.post("/invocations", content=content, headers={"content-type": kind})
    assert response.status_code == 413
    assert what in first_error(response)["what"].replace("there are ", "")


@pytest.mark.parametrize(
    ("content", "headers"),
    [
        (b'{"' + b"k" * 1_000_000 + b'": 1}', {}),
        (b'"' + b"k" * 1_000_000 + b'"', {}),
        (b'"' * 1_000_000, {}),
        (b"[" + b"[1.5]," * 100_000 + b"2]", {}),
        (b"NaN" * 300_000, {}),
        (b'{"dataframe_split": {"columns": ["' + b"k" * 1_000_000 + b'", 1], "data": []}}', {}),
        (b"{}", {"content-type": "x" * 10_000}),
        (b"{}", {"content-type": "text/csv; charset=" + "x" * 10_000}),
        (b"{}", {"content-encoding": "x" * 10_000}),
    ],
)
def test_an_error_repeats_no_more_than_a_few_words_of_a_request(client, content, headers):
    response = client.post("/invocations", content=content, headers=JSON | headers)
    assert 400 <= response.status_code < 500
    assert len(response.content) < 1_000


def test_columns_that_nobody_knows_are_not_logged_once_a_machine(trained_fleet, tmp_path, table):
    app = create(trained_fleet, tmp_path)
    put(table, "mood", "m" * 100_000)
    with TestClient(app) as client:
        (prediction,) = post(client, table).json()["predictions"]
    assert prediction["warnings"][0]["column"] == "mood"
    (spool,) = tmp_path.glob("log/*/*/*.parquet")
    assert spool.stat().st_size < 100_000


def test_many_cells_that_cannot_be_read_are_refused_in_no_time(client, table):
    table["data"] *= 1_000
    put(table, "kind", [])
    put(table, "load_pct", "much")
    assert post(client, table).status_code == 422


def test_bodies_in_memory_are_bounded_together(trained_fleet, tmp_path, monkeypatch):
    monkeypatch.setattr(body, "LARGEST_HELD", 2)
    head = POST + b"Content-Type: text/csv\r\nContent-Length: 999\r\n\r\n"
    app = create(trained_fleet, tmp_path, UPKEEP_MAX_REQUEST_BYTES="1000")
    with serving(app) as port, connect(port) as first, connect(port) as second, connect(port) as third:
        for peer in (first, second, third):
            peer.sendall(head + b"a" * 900)
            assert statuses(talk(port, PING)) == [200]
        assert statuses(read_all(third)) == [429]
        first.sendall(b"a" * 99)
        assert statuses(read_all(first)) == [422]


def test_a_body_that_does_not_come_in_time_is_refused(trained_fleet, tmp_path, monkeypatch):
    monkeypatch.setattr(body, "BODY_SECONDS", 0.1)
    with serving(create(trained_fleet, tmp_path)) as port, connect(port) as peer:
        peer.sendall(POST + b"Content-Length: 9\r\n\r\n{")
        assert statuses(read_all(peer)) == [408]


def test_the_page_is_given_a_bounded_number_of_machines(client):
    assert client.get(f"/fleet?limit={MOST_SHOWN}").status_code == 200
    assert client.get(f"/fleet?limit={MOST_SHOWN + 1}").status_code == 422


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "[::1]:8000", "10.1.2.3", "localhost", "a.localhost:1", "service"])
def test_an_open_service_is_asked_by_address_or_by_a_name_of_its_network(client, host):
    assert client.get("/fleet", headers={"host": host}).json()["open"] is True


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "[::1", "127.1", "a.b"]
)
def test_an_open_service_is_not_asked_by_a_name_that_others_can_point_at_it(client, host):
    response = client.get("/fleet", headers={"host": host})
    assert response.status_code == 403
    assert "UPKEEP_ALLOWED_HOSTS" in first_error(response)["expected"]


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://testserver", 200),
        ("https://testserver", 200),
        ("http://evil.example", 403),
        ("http://testserver:81", 403),
        ("http://testserver.evil.example", 403),
        ("null", 403),
        ("http://[", 403),
    ],
)
def test_an_open_service_takes_no_posts_of_other_pages(client, table, origin, status):
    content, headers = spell(table, "split")
    response = client.post("/invocations", content=content, headers=headers | {"origin": origin})
    assert response.status_code == status


def test_with_a_token_any_name_and_page_may_ask(trained_fleet, tmp_path, table):
    with TestClient(create(trained_fleet, tmp_path, UPKEEP_TOKENS="secret")) as client:
        client.headers.update(
            {"authorization": "Bearer secret", "host": "upkeep.example", "origin": "http://a.example"}
        )
        assert post(client, table).status_code == 200
        assert client.get("/fleet").json()["open"] is False


def test_an_open_service_is_asked_by_the_names_that_are_allowed(trained_fleet, tmp_path):
    with TestClient(create(trained_fleet, tmp_path, UPKEEP_ALLOWED_HOSTS="a.example, B.example")) as client:
        asked = {name: client.get("/ping", headers={"host": name}).status_code for name in ("A.example:1", "b.example")}
    assert asked == {"A.example:1": 200, "b.example": 200}


STEPS = ["..", ".", "%2e%2e", "%2f", "//", "\\", "%00", "x/", "%c0%ae", "..;", "%252e"]
PATHS = [
    "/static/{}",
    "/static/{}/page.js",
    "/{}/fleet",
    "/ping/{}/../fleet",
    "/static/{}/../fleet",
    "//evil.example/{}",
]


@pytest.mark.parametrize("path", PATHS)
def test_no_spelling_of_a_path_leads_past_the_token_or_to_another_host(secured_port, path):
    for step in STEPS:
        for method in (b"GET", b"HEAD", b"POST"):
            request = path.format(step).encode() + b" HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n"
            answer = talk(secured_port, method + b" " + request)
            assert statuses(answer)[0] in (400, 401, 404, 405)
            assert b"\r\nlocation:" not in answer.lower()


@pytest.fixture(scope="module")
def secured_port(trained_fleet, tmp_path_factory):
    app = create(trained_fleet, tmp_path_factory.mktemp("secured_port"), UPKEEP_TOKENS="old-token,new-token")
    with serving(app) as port:
        yield port


@pytest.fixture(scope="module")
def secured(trained_fleet, tmp_path_factory):
    app = create(trained_fleet, tmp_path_factory.mktemp("secured"), UPKEEP_TOKENS="old-token,new-token")
    with TestClient(app) as client:
        yield client


AUTHORISATIONS = [
    *("", "Bearer", "Bearer ", "old-token", "Bearer old-toke", "Bearer old-tokens", "Bearer OLD-TOKEN"),
    *("Bearer old-token,new-token", "Bearer old-token new-token", "Bearer, old-token", "Bearer=old-token"),
    *("Bearer\told-token", "BearerX old-token", "Basic old-token", "Bearer nöch", "Bearer old-token\x00"),
    *("Bearer \xff\xfe", "Bearer b'old-token'", "Bearer Bearer old-token"),
]


@pytest.mark.parametrize("authorization", AUTHORISATIONS)
def test_no_other_authorisation_opens_the_service(secured, authorization):
    headers = [(b"authorization", authorization.encode("latin-1"))]
    assert secured.get("/fleet", headers=headers).status_code == 401


def test_the_token_is_taken_from_its_header_only(secured):
    assert secured.get("/fleet?token=old-token&access_token=old-token").status_code == 401
    assert secured.get("/fleet", headers={"cookie": "token=old-token", "x-token": "old-token"}).status_code == 401


@pytest.mark.parametrize(
    "content",
    [
        b'{"dataframe_split": {"columns": ["plant"], "columns": ["plant", "machine", "time"], "data": []}}',
        b'{"dataframe_split": {"columns": ["plant", "machine", "time"], "data": [["lyon", "\\ud800", "2025"]]}}',
        b'{"dataframe_records": [{"plant": "lyon", "plant": "porto", "machine": "a", "time": "2025-01-01"}]}',
        b'{"dataframe_split": {"columns": ["plant", "machine", "time"], "data": [['
        + b"[" * 900
        + b"]" * 900
        + b",1,1]]}}",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"dataframe_records": [{"' + b"\\u0000" * 9 + b'": 1}]}',
    ],
)
def test_surrogates_duplicate_keys_and_nesting_are_read_or_refused(client, content):
    assert client.post("/invocations", content=content, headers=JSON).status_code in (200, 400, 422)


@pytest.fixture(scope="module")
def port(trained_fleet, tmp_path_factory):
    with serving(create(trained_fleet, tmp_path_factory.mktemp("extremes"))) as port:
        yield port


@given(extremes(LARGEST))
def test_whatever_its_size_a_request_is_answered_or_refused(port, extreme):
    headers, content = write_request(extreme, LARGEST)
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", "/invocations", content, headers)
    response = connection.getresponse()
    assert response.status < 500
    assert len(response.read()) < 5_000_000
    connection.close()
    pinging = HTTPConnection("127.0.0.1", port, timeout=60)
    pinging.request("GET", "/ping")
    assert pinging.getresponse().status == 200
    pinging.close()
