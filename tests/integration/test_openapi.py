"""Whatever is sent, the service answers as its OpenAPI document says, and never with a 5xx."""

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance
from served import serving
from trained_fleet import service_environment

from upkeep.serving.app import create_app
from upkeep.serving.settings import read_settings

ROUTES = [
    *(("post", path) for path in ("/invocations", "/findings")),
    *(("get", path) for path in ("/ping", "/health", "/version", "/metrics")),
    *(("get", path) for path in ("/fleet", "/fleet/machine")),
]


@pytest.fixture(scope="module")
def app(trained_fleet, tmp_path_factory):
    return create_app(read_settings(service_environment(trained_fleet, tmp_path_factory.mktemp("openapi"))))


@pytest.fixture(scope="module")
def address(app):
    """Where the application answers; on a server of its own, for it starts once only."""
    with serving(app) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def client(address):
    """One for all requests: each reads all of the machine's certificates."""
    with httpx.Client(base_url=address) as client:
        yield client


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_every_route_answers_as_the_document_says(address, method, path):
    operation = schemathesis.openapi.from_url(f"{address}/openapi.json")[path][method]

    @settings(max_examples=20, suppress_health_check=list(HealthCheck))
    @given(operation.as_strategy() | operation.as_strategy(generation_mode=GenerationMode.NEGATIVE))
    def ask(case):
        # A schema cannot say which plants there are, nor that a table without rows is of no use.
        answer = case.call_and_validate(excluded_checks=[positive_data_acceptance, negative_data_rejection])
        assert answer.status_code < 500

    ask()


def test_the_document_describes_every_route(app):
    described = app.openapi()["paths"]
    assert {(method, path) for path, methods in described.items() for method in methods} == set(ROUTES)


TIMES = st.one_of(
    st.datetimes(timezones=st.timezones()).map(str),
    st.sampled_from(["9999-12-31T23:59:59-14:00", "now", 1e300, -1, None]),
)
ANY_VISIT = st.fixed_dictionaries(
    {"plant": st.just("lyon"), "machine": st.sampled_from(["M001", "", "/"]), "visited_at": TIMES, "alarm_at": TIMES},
    optional={"finding": st.sampled_from(["defect", "nothing", "maybe", None]), "more": st.none()},
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ANY_VISIT)
def test_visits_at_any_time_are_answered_or_refused(client, visit):
    assert client.post("/findings", json=visit).status_code in (202, 400, 404)


CELLS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=8),
    st.sampled_from(["lyon", "porto", "M001", "error", "maintenance", "2025-07-01T00:00:00Z", "2025-07-01 01:00"]),
)
NAMES = ["plant", "machine", "time", "kind", "code", "model", "installed", "load_pct", "vibration_mm_s", "mood"]


@st.composite
def tables(draw):
    """A table whose columns are the right ones and whose cells may be anything."""
    columns = ["plant", "machine", "time", *draw(st.lists(st.sampled_from(NAMES[3:]), unique=True))]
    keys = {"plant": st.sampled_from(["lyon", "porto"]), "machine": st.sampled_from(["M001", "M1"])}
    cells = [st.one_of(keys[name], CELLS) if name in keys else CELLS for name in columns]
    return {"columns": columns, "data": draw(st.lists(st.tuples(*cells), min_size=1, max_size=6))}


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tables())
def test_tables_of_anything_are_answered_or_refused(client, table):
    response = client.post("/invocations", json={"dataframe_split": table})
    assert response.status_code in (200, 422)
    assert response.json()["predictions"] or response.json()["errors"]
