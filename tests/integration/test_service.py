"""The service in process: MLflow's protocol, doubts, faults, tokens, counters."""

import csv
import gzip
import io
import itertools
import json
import logging
import zlib
from copy import deepcopy
from datetime import UTC, datetime, timedelta

import pytest
from parameters import SHIPPED
from starlette.testclient import TestClient
from trained_fleet import service_environment

from upkeep.serving.app import create_app
from upkeep.serving.service import Service
from upkeep.serving.settings import read_settings

JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def client(trained_fleet, tmp_path_factory):
    settings = read_settings(service_environment(trained_fleet, tmp_path_factory.mktemp("service")))
    with TestClient(create_app(settings)) as client:
        yield client


@pytest.fixture(scope="module")
def cases(trained_fleet):
    files = sorted((trained_fleet / "models/golden").glob("*.json"))
    return [case for file in files for case in json.loads(file.read_text())]


@pytest.fixture
def request_(cases):
    """A golden request to change: one machine of lyon."""
    return deepcopy(cases[0]["request"])


def post(client, request, **params):
    return client.post("/invocations", json=request | {"params": params})


def columns(request):
    return request["dataframe_split"]["columns"]


def rows(request):
    return request["dataframe_split"]["data"]


def telemetry(request):
    return [row for row in rows(request) if row[columns(request).index("kind")] is None]


def put(request, row, column, value):
    row[columns(request).index(column)] = value


def drop(request, *names):
    kept = [index for index, name in enumerate(columns(request)) if name not in names]
    split = request["dataframe_split"]
    split["data"] = [[row[index] for index in kept] for row in split["data"]]
    split["columns"] = [columns(request)[index] for index in kept]


def warnings(client, request):
    (prediction,) = post(client, request).json()["predictions"]
    return {warning["code"]: warning for warning in prediction["warnings"]}


def to_records(request):
    return {"dataframe_records": [dict(zip(columns(request), row, strict=True)) for row in rows(request)]}


def to_csv(request):
    text = io.StringIO()
    csv.writer(text).writerows([columns(request), *rows(request)])
    return text.getvalue()


def test_golden_requests_are_answered_as_training_stored_them(client, cases):
    for case in cases:
        (prediction,) = post(client, case["request"]).json()["predictions"]
        assert {name: prediction[name] for name in case["answer"]} == case["answer"]


def test_all_spellings_of_a_table_get_the_same_answer(client, request_):
    split = post(client, request_).json()
    assert split["predictions"]
    assert post(client, to_records(request_)).json() == split
    response = client.post("/invocations", content=to_csv(request_), headers={"content-type": "text/csv"})
    assert response.json() == split


def test_the_order_of_rows_does_not_matter(client, request_):
    expected = post(client, request_).json()
    rows(request_).reverse()
    assert post(client, request_).json() == expected


def test_reasons_come_on_request_in_words(client, request_):
    (prediction,) = post(client, request_).json()["predictions"]
    assert "reasons" not in prediction
    (prediction,) = post(client, request_, reasons=True).json()["predictions"]
    assert {"feature", "value", "contribution", "odds", "words"} == prediction["reasons"][0].keys()
    text = client.post("/invocations?reasons=true", content=to_csv(request_), headers={"content-type": "text/csv"})
    assert text.json()["predictions"] == [prediction]


def test_one_bad_machine_does_not_cost_the_others_their_answers(client, cases):
    good, bad = deepcopy(cases[0]["request"]), deepcopy(cases[1]["request"])
    put(bad, rows(bad)[5], "vibration_mm_s", "much")
    first_bad = len(rows(good)) + 5
    rows(good).extend(rows(bad))
    response = post(client, good)
    assert response.status_code == 200
    assert [prediction["machine"] for prediction in response.json()["predictions"]] == [cases[0]["answer"]["machine"]]
    (error,) = response.json()["errors"]
    assert error == {
        "plant": "lyon",
        "machine": cases[1]["answer"]["machine"],
        "column": "vibration_mm_s",
        "what": "vibration_mm_s is 'much'",
        "expected": "a number, or null where there is none",
        "row": first_bad,
        "pointer": f"/dataframe_split/data/{first_bad}/{columns(good).index('vibration_mm_s')}",
    }


@pytest.mark.parametrize(
    ("column", "value", "what"),
    [
        ("plant", "berlin", "plant is 'berlin'"),
        ("plant", None, "plant is None"),
        ("machine", None, "machine is None"),
        ("machine", [1], "machine is [1]"),
        ("time", "yesterday", "time is 'yesterday'"),
        ("time", 1735689600, "time is 1735689600"),
        ("time", "2925-01-01T00:00:00Z", "time is '2925-01-01T00:00:00Z'"),
        ("time", None, "time is None"),
        ("time", [[[[1]]]], "time is [[[[1]]]]"),
        ("time", dict.fromkeys("abcdefgh", 1), "time is {'a': 1, 'b': 1, 'c': 1, 'd': 1, 'e': 1,..."),
        ("load_pct", "1_000", "load_pct is '1_000'"),
        ("load_pct", {"a": 1}, "load_pct is {'a': 1}"),
        ("kind", "party", "kind is 'party'"),
    ],
)
def test_a_value_of_no_use_is_refused_with_its_place(client, request_, column, value, what):
    for row in rows(request_):
        put(request_, row, column, value)
    response = post(client, request_)
    assert response.status_code == 422
    assert response.json()["predictions"] == []
    error = response.json()["errors"][0]
    assert error["what"] == what
    assert error["column"] == column
    assert error["expected"]
    assert error["pointer"] == f"/dataframe_split/data/{error['row']}/{columns(request_).index(column)}"


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"{", "the body is not JSON"),
        (b"\xff", "the body is not JSON"),
        (b"[" * 5000, "the body is not JSON"),
        (b"[]", "the body is []"),
        (b"{}", "the body holds nothing"),
        (b'{"instances": [1]}', "the body holds 'instances'"),
        (b'{"dataframe_split": 1}', "dataframe_split is 1"),
        (b'{"dataframe_split": {"data": []}}', "columns is missing"),
        (b'{"dataframe_split": {"columns": ["a", "a"], "data": []}}', "the column 'a' is given twice"),
        (b'{"dataframe_split": {"columns": ["a"], "data": {}}}', "data is {}"),
        (b'{"dataframe_split": {"columns": ["a"], "data": [[1, 2]]}}', "/dataframe_split/data/0 holds 2 values"),
        (b'{"dataframe_split": {"columns": ["a"], "data": [1]}}', "data[0] is 1"),
        (b'{"dataframe_split": {"columns": ["plant", "machine"], "data": []}}', "there is no column 'time'"),
        (b'{"dataframe_split": {"columns": ["plant", "machine", "time"], "data": []}}', "there is no row"),
        (b'{"dataframe_records": {}}', "dataframe_records is {}"),
        (b'{"dataframe_records": [1]}', "dataframe_records[0] is 1"),
        (b'{"dataframe_records": [], "params": 1}', "params is 1"),
        (b'{"dataframe_records": [], "params": {"reasons": "maybe"}}', "reasons is 'maybe'"),
    ],
)
def test_a_body_that_is_no_table_is_refused_with_the_reason(client, content, what):
    response = client.post("/invocations", content=content, headers=JSON)
    assert response.status_code == 400
    assert response.json()["predictions"] == []
    assert what in response.json()["errors"][0]["what"]


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "the CSV text is empty"),
        (b"a,a\n", "the column 'a' is given twice"),
        (b"plant,machine,time\nlyon,M1\n", "line 2 holds 2 values"),
        (b"plant\n\xff\n", "not UTF-8"),
        (b'plant\n"a\n', "not CSV"),
        (b'plant,machine,note\nlyon,M1,"ok\nlyon,M1,ok\nlyon,M1,ok"\n', "a quote is not closed on its line"),
    ],
)
def test_text_that_is_no_csv_is_refused_with_its_line(client, content, what):
    response = client.post("/invocations", content=content, headers={"content-type": "text/csv"})
    assert response.status_code == 400
    assert what in response.json()["errors"][0]["what"]


def test_other_kinds_of_content_are_refused(client):
    response = client.post("/invocations", content=b"<a/>", headers={"content-type": "application/xml"})
    assert response.status_code == 415
    assert "application/json" in response.json()["errors"][0]["expected"]


def test_the_log_says_which_service_a_request_tells_of_whatever_its_code(trained_fleet, tmp_path, request_):
    settings = read_settings(service_environment(trained_fleet, tmp_path))
    service, asked = Service(settings.models, settings.dictionary), {}
    plant, machine, *_ = rows(request_)[0]
    for kind in ("failure", "maintenance"):
        told = {"plant": plant, "machine": machine, "time": "2026-01-05T00:00:00Z", "kind": kind, "code": "never seen"}
        rows(request_).append([told.get(name) for name in columns(request_)])
        (said,) = service.answer(json.dumps(request_).encode(), "", {}, "request", "api").predictions
        asked[kind] = datetime.fromtimestamp(said["serviced_at"] / 1e6, UTC)
    assert (said["maintained_at"], said["maintenance_code"]) == (said["serviced_at"], "never seen")
    monday = datetime(2026, 1, 5, tzinfo=UTC)
    repair = timedelta(hours=SHIPPED.dataset.max_repair_hours)
    assert asked == {"failure": monday + repair, "maintenance": monday}


def test_an_event_of_the_future_is_left_out_and_told_as_a_reading_is(trained_fleet, tmp_path, request_):
    settings = read_settings(service_environment(trained_fleet, tmp_path))
    service, asked = Service(settings.models, settings.dictionary), []
    plant, machine, *_ = rows(request_)[0]
    told = {"plant": plant, "machine": machine, "time": "2100-01-04T00:00:00Z", "kind": "failure", "code": "motor"}
    for _ in range(2):
        asked += service.answer(json.dumps(request_).encode(), "", {}, "request", "api").predictions
        rows(request_).append([told.get(name) for name in columns(request_)])
    assert asked[0]["serviced_at"] == asked[1]["serviced_at"]
    message = "1 rows left out: their time is more than a day ahead"
    assert {"code": "future_rows", "message": message, "column": "time"} in asked[1]["warnings"]


def test_a_machine_that_training_did_not_know_is_answered_with_a_doubt(client, request_):
    for row in rows(request_):
        put(request_, row, "machine", "M999")
    assert "M999 was not in the training data" in warnings(client, request_)["unknown_machine"]["message"]


def test_a_reading_in_another_unit_is_left_out_and_the_unit_is_guessed(client, request_):
    put(request_, telemetry(request_)[3], "temperature_c", 188)
    warning = warnings(client, request_)["out_of_range"]
    assert warning["column"] == "temperature_c"
    assert warning["message"] == ("1 rows left out: temperature_c is 188, outside -20 to 130 °C; it would fit in °F")


def test_a_machine_whose_rows_are_all_out_of_range_is_not_answered(client, request_):
    for row in telemetry(request_):
        put(request_, row, "temperature_c", 1e9)
    response = post(client, request_)
    assert response.status_code == 422
    assert "outside -20 to 130" in response.json()["errors"][0]["what"]


def test_a_gap_a_short_history_and_a_silent_sensor_are_told(client, cases):
    doubts = {"gap", "short_history", "missing_sensor"}
    complete = next(case["request"] for case in cases if not doubts & warnings(client, case["request"]).keys())
    gappy = deepcopy(complete)
    gap = telemetry(gappy)[10:30]
    gappy["dataframe_split"]["data"] = [row for row in rows(gappy) if row not in gap]
    assert warnings(client, gappy)["gap"]["message"] == "no readings for 21 h within the last 48 h"
    short = deepcopy(complete)
    short["dataframe_split"]["data"] = telemetry(short)[-12:]
    assert warnings(client, short)["short_history"]["message"].startswith("the rows cover 11 h of the 48 h")
    silent = deepcopy(complete)
    drop(silent, "pressure_bar")
    assert warnings(client, silent)["missing_sensor"]["column"] == "pressure_bar"


def test_features_outside_their_training_range_are_named(client, request_):
    for row in telemetry(request_):
        put(request_, row, "vibration_mm_s", 59.0)
    assert "vibration" in warnings(client, request_)["training_range_left"]["message"]


def test_an_unknown_column_is_ignored_and_told(client, request_):
    expected = post(client, request_).json()["predictions"][0]["probability"]
    columns(request_).append("mood")
    for row in rows(request_):
        row.append("fine")
    (prediction,) = post(client, request_).json()["predictions"]
    assert prediction["probability"] == expected
    assert prediction["warnings"][0]["column"] == "mood"
    assert prediction["warnings"][0]["message"] == "the data dictionary has no column 'mood': ignored"


def test_a_code_that_training_never_saw_is_ignored_and_told(client, request_):
    (before,) = post(client, request_).json()["predictions"]
    event = deepcopy(telemetry(request_)[-1])
    put(request_, event, "kind", "error")
    put(request_, event, "code", "E77")
    rows(request_).append(event)
    (after,) = post(client, request_).json()["predictions"]
    assert after["probability"] == before["probability"]
    assert [each["message"] for each in after["warnings"] if each not in before["warnings"]] == [
        "training saw no error 'E77': ignored"
    ]


def test_rows_sent_twice_count_once(client, request_):
    expected = post(client, request_).json()["predictions"][0]["probability"]
    rows(request_).extend(deepcopy(telemetry(request_)))
    (prediction,) = post(client, request_).json()["predictions"]
    assert prediction["probability"] == expected
    assert "duplicate_rows" in {warning["code"] for warning in prediction["warnings"]}


@pytest.mark.usefixtures("unasked")
def test_a_body_larger_than_allowed_is_refused(trained_fleet, tmp_path):
    environment = service_environment(trained_fleet, tmp_path, UPKEEP_MAX_REQUEST_BYTES="100")
    with TestClient(create_app(read_settings(environment))) as client:
        response = client.post("/invocations", content=b" " * 101, headers=JSON)
    assert response.status_code == 413
    assert "100 bytes" in response.json()["errors"][0]["what"]


@pytest.mark.usefixtures("unasked")
def test_without_a_token_only_the_open_routes_answer(trained_fleet, tmp_path, cases):
    environment = service_environment(trained_fleet, tmp_path, UPKEEP_TOKENS="old-token,new-token")
    with TestClient(create_app(read_settings(environment))) as client:
        for route in ("/", "/ping", "/health", "/version", "/static/page.js"):
            assert client.get(route).status_code == 200
        for route in ("/metrics", "/fleet", "/openapi.json", "/elsewhere"):
            assert client.get(route).status_code == 401
        for wrong in ("", "Bearer", "Bearer old-toke", "Basic old-token", "Bearer nöch"):
            assert client.get("/fleet", headers={"authorization": wrong.encode()}).status_code == 401
        response = post(client, cases[0]["request"])
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == "Bearer"
        for token in ("old-token", "new-token"):
            assert client.get("/fleet", headers={"authorization": f"Bearer {token}"}).status_code == 200


@pytest.mark.usefixtures("unasked")
def test_answers_are_counted_for_prometheus(trained_fleet, tmp_path, cases):
    with TestClient(create_app(read_settings(service_environment(trained_fleet, tmp_path)))) as client:
        for case in cases:
            post(client, case["request"])
        client.get("/nowhere/to/be/found")
        lines = client.get("/metrics").text.splitlines()
    counts = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    lyon = sum(case["answer"]["plant"] == "lyon" for case in cases)
    assert float(counts['upkeep_requests_total{route="/invocations",status="200"}']) == len(cases)
    assert float(counts['upkeep_probability_count{plant="lyon"}']) == lyon
    assert float(counts['upkeep_prediction_log_rows_total{state="appended"}']) == len(cases)
    assert float(counts['upkeep_requests_total{route="other",status="404"}']) == 1
    alarms = sum(float(value) for name, value in counts.items() if name.startswith("upkeep_alarms_total"))
    assert alarms == sum(case["answer"]["alarm"] for case in cases)


def test_the_log_tells_of_each_request_but_not_what_was_in_it(client, request_, caplog):
    with caplog.at_level(logging.INFO):
        response = client.post("/invocations", json=request_, headers={"x-request-id": "night-shift.7"})
    assert response.headers["x-request-id"] == "night-shift.7"
    (record,) = [record for record in caplog.records if record.getMessage() == "request"]
    assert (record.request_id, record.route, record.status) == ("night-shift.7", "/invocations", 200)
    assert "M0" not in str(vars(record))


@pytest.mark.parametrize(("time", "code"), [("2199-01-01", "future_rows"), ("1970-01-01T00:00:07Z", "past_rows")])
def test_a_row_of_a_clock_that_is_far_off_is_left_out_and_told(client, request_, time, code):
    expected = post(client, request_).json()["predictions"][0]
    off = list(telemetry(request_)[-1])
    put(request_, off, "time", time)
    rows(request_).append(off)
    (prediction,) = post(client, request_).json()["predictions"]
    assert (prediction["time"], prediction["probability"]) == (expected["time"], expected["probability"])
    assert code in {warning["code"] for warning in prediction["warnings"]}


def test_many_unknown_columns_do_not_blow_up_the_answer(client, request_):
    columns(request_).extend(f"mood{number}" for number in range(300))
    for row in rows(request_):
        row.extend([1] * 300)
    (prediction,) = post(client, request_).json()["predictions"]
    unknown = [warning for warning in prediction["warnings"] if warning["code"] == "unknown_column"]
    assert [warning["message"][-25:] for warning in unknown] == ["'mood4' and 295 more: ignored"[-25:]]


def test_rows_of_unlike_columns_are_refused_before_they_fill_the_memory(client):
    records = [{f"column{number}": 1} for number in range(5000)]
    assert post(client, {"dataframe_records": records}).status_code == 413


def test_a_request_id_that_could_forge_a_log_line_is_replaced(client):
    given = "a b"
    assert client.get("/ping", headers={"x-request-id": given}).headers["x-request-id"] != given


def test_the_page_ranks_what_was_scored(client, cases):
    for case in cases:
        post(client, case["request"])
    fleet = client.get("/fleet").json()
    assert {(machine["plant"], machine["machine"]) for machine in fleet["machines"]} >= {
        (case["answer"]["plant"], case["answer"]["machine"]) for case in cases
    }
    riskiest = max(cases, key=lambda case: case["answer"]["probability"])["answer"]
    shown = client.get("/fleet/machine", params={name: riskiest[name] for name in ("plant", "machine")}).json()
    assert shown["probability"] == riskiest["probability"]
    assert shown["reasons"]


def test_health_tells_release_and_models(client, cases):
    health = client.get("/health").json()
    assert health["status"] == "ok"
    assert health["models"]["lyon"] == cases[0]["answer"]["model_version"]
    assert client.get("/version").json()["models"] == health["models"]
    assert client.get("/ping").status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "allowed"),
    [
        ("GET", "/invocations", 405, {"POST"}),
        ("HEAD", "/invocations", 405, {"POST"}),
        ("POST", "/ping", 405, {"GET", "HEAD"}),
        ("DELETE", "/fleet", 405, {"GET", "HEAD"}),
        ("PUT", "/openapi.json", 405, {"GET", "HEAD"}),
        ("POST", "/static/page.js", 405, {"GET", "HEAD"}),
        ("OPTIONS", "/", 405, {"GET", "HEAD"}),
        ("GET", "/nowhere", 404, set()),
        # A redirect would lead to whatever host the request names.
        ("GET", "/static/page.js/", 404, set()),
        ("GET", "/fleet/lyon/M001", 404, set()),
    ],
)
def test_what_is_not_there_is_told_as_json(client, method, path, status, allowed):
    response = client.request(method, path, follow_redirects=False)
    assert response.status_code == status
    assert {name for name in response.headers.get("allow", "").split(", ") if name} == allowed
    if method != "HEAD":
        assert response.json()["errors"][0]["what"]


@pytest.mark.parametrize(
    "path", ["/", "/ping", "/health", "/version", "/metrics", "/fleet", "/openapi.json", "/static/page.js"]
)
def test_head_is_answered_as_get_but_for_the_body(client, path):
    asked, told = client.get(path), client.head(path)
    assert (told.status_code, told.content) == (200, b"")
    assert told.headers["content-type"] == asked.headers["content-type"]


def test_the_page_may_load_from_its_own_service_only_and_is_kept_by_nobody(client):
    headers = client.get("/").headers
    assert headers["content-security-policy"].startswith("default-src 'none';")
    assert "unsafe" not in headers["content-security-policy"]
    assert "http" not in headers["content-security-policy"]
    assert headers["cache-control"] == "no-store"


def test_pythons_json_is_read_nan_as_a_gap(client, request_):
    put(request_, telemetry(request_)[-1], "vibration_mm_s", None)
    expected = post(client, request_).json()
    text = json.dumps(request_ | {"params": {}})
    nan = json.loads(text)
    put(nan, telemetry(nan)[-1], "vibration_mm_s", float("nan"))
    assert "NaN" in json.dumps(nan)
    for body in (json.dumps(nan), json.dumps(to_records(nan))):
        assert client.post("/invocations", content=body, headers=JSON).json() == expected


@pytest.mark.parametrize("number", ["Infinity", "-Infinity", "1e999", "9" * 400, '"inf"'])
def test_a_number_that_is_none_costs_its_machine_only(client, cases, number):
    good, bad = deepcopy(cases[0]["request"]), deepcopy(cases[1]["request"])
    put(bad, telemetry(bad)[3], "vibration_mm_s", "HERE")
    rows(good).extend(rows(bad))
    response = client.post("/invocations", content=json.dumps(good).replace('"HERE"', number), headers=JSON)
    assert response.status_code == 200
    assert [prediction["machine"] for prediction in response.json()["predictions"]] == [cases[0]["answer"]["machine"]]
    (error,) = response.json()["errors"]
    assert (error["machine"], error["column"]) == (cases[1]["answer"]["machine"], "vibration_mm_s")


@pytest.mark.parametrize(
    ("coding", "pack"),
    [
        ("gzip", gzip.compress),
        ("X-GZIP", gzip.compress),
        ("deflate", zlib.compress),
        ("identity", bytes),
    ],
)
@pytest.mark.parametrize("spelling", ["json", "csv"])
def test_a_packed_body_is_unpacked(client, request_, coding, pack, spelling):
    expected = post(client, request_).json()
    body, kind = (json.dumps(request_), "application/json") if spelling == "json" else (to_csv(request_), "text/csv")
    headers = {"content-type": kind, "content-encoding": coding}
    assert client.post("/invocations", content=pack(body.encode()), headers=headers).json() == expected


@pytest.mark.parametrize(
    ("coding", "body", "status", "what"),
    [
        ("br", b"x", 415, "the Content-Encoding is 'br'"),
        ("gzip, gzip", gzip.compress(gzip.compress(b"{}")), 415, "the Content-Encoding is 'gzip, gzip'"),
        ("gzip", b"{}", 400, "the body is not gzip"),
        ("gzip", gzip.compress(b"{}" * 99)[:-9], 400, "the body is not gzip"),
        ("deflate", b"{}", 400, "the body is not deflate"),
        ("deflate", zlib.compress(b"{}" * 99)[:-9], 400, "the body is not deflate: it ends early"),
        ("gzip", gzip.compress(b" " * 100_000_000), 413, "larger than 24000000 bytes"),
        ("deflate", zlib.compress(b" " * 100_000_000), 413, "larger than 24000000 bytes"),
        ("gzip", gzip.compress(b"{}") * 1_000_000, 400, "the body is not gzip"),
        ("gzip", b"\x1f\x8b\x08\x08" + b"n" * 20_000_000, 400, "it ends early"),
    ],
    ids=itertools.count(),  # what gzip packs bears the time
)
def test_a_packed_body_of_no_use_is_refused_by_its_name(client, coding, body, status, what):
    response = client.post("/invocations", content=body, headers={**JSON, "content-encoding": coding})
    assert response.status_code == status
    assert what in response.json()["errors"][0]["what"]
    assert ("accept-encoding" in response.headers) == (status == 415)


@pytest.mark.parametrize(
    ("charset", "encoding"),
    [
        ("iso-8859-1", "latin-1"),
        ('"UTF-8"', "utf-8"),
        ("utf-8", "utf-8-sig"),
        ("utf-16", "utf-16"),
        ("utf-16le", "utf-16-le"),
        ("windows-1252", "cp1252"),
    ],
)
@pytest.mark.parametrize("spelling", ["json", "csv"])
def test_text_is_read_in_the_charset_that_is_stated(client, request_, charset, encoding, spelling):
    for row in rows(request_):
        put(request_, row, "machine", "Säge 1")
    expected = post(client, request_).json()
    assert expected["predictions"][0]["machine"] == "Säge 1"
    text = json.dumps(request_, ensure_ascii=False) if spelling == "json" else to_csv(request_)
    kind = "Application/JSON" if spelling == "json" else "TEXT/CSV"
    headers = {"content-type": f"{kind}; charset={charset}"}
    assert client.post("/invocations", content=text.encode(encoding), headers=headers).json() == expected


@pytest.mark.parametrize(
    ("charset", "body", "status"),
    [
        ("klingon", b"{}", 415),
        ("rot13", b"{}", 415),
        ("zlib", b"{}", 415),
        ("punycode", b"{}", 415),
        ("unicode_escape", b"{}", 415),
        ("ascii", b"\xff", 400),
        ("utf-16", b"\x00", 400),
    ],
)
def test_a_charset_that_is_none_or_not_that_of_the_body_is_refused_by_its_name(client, charset, body, status):
    headers = {"content-type": f"text/csv; charset={charset}"}
    response = client.post("/invocations", content=body, headers=headers)
    assert response.status_code == status
    assert charset in response.json()["errors"][0]["what"]
