"""The service as a process of its own: what it needs, what it refuses, how it starts and stops."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from datetime import date
from http.client import HTTPConnection
from shutil import copytree
from threading import Thread
from urllib.request import urlopen

import polars as pl
import pytest
from trained_fleet import service_environment

from upkeep.core.errors import UpkeepError
from upkeep.scoring.prediction_log import read_parts
from upkeep.serving.app import create_app
from upkeep.serving.settings import read_settings
from upkeep.serving.smoke import smoke

HEAVY = ["mlflow", "evidently", "dvc", "joblib", "sqlalchemy", "pyarrow", "s3fs", "urllib3"]
NEVER = ["sklearn", "pandas", "matplotlib"]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(environment):
    process = subprocess.Popen(
        [sys.executable, "-m", "upkeep", "serve"],
        env=environment | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    until = time.monotonic() + 180
    while process.poll() is None and time.monotonic() < until:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", int(environment["UPKEEP_PORT"]))) == 0:
                return process
        time.sleep(0.05)
    return process


@pytest.fixture
def environment(trained_fleet, tmp_path):
    return service_environment(trained_fleet, tmp_path, UPKEEP_PORT=str(free_port()))


@pytest.fixture
def service(environment):
    yield from run_service(environment)


@pytest.fixture(scope="module")
def shared(trained_fleet, tmp_path_factory):
    """The environment of a service that runs for several tests, which only ask it."""
    environment = service_environment(trained_fleet, tmp_path_factory.mktemp("shared"), UPKEEP_PORT=str(free_port()))
    service = run_service(environment)
    next(service)
    yield environment
    service.close()


def run_service(environment):
    process = start(environment)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def address(environment):
    return f"http://127.0.0.1:{environment['UPKEEP_PORT']}"


def test_mlflows_own_client_is_answered_where_a_reading_is_missing(shared, trained_fleet):
    from mlflow.pyfunc.scoring_server.client import ScoringServerClient
    from pandas import DataFrame

    case = json.loads((trained_fleet / "models/golden/lyon.json").read_text())[0]
    rows = DataFrame(**case["request"]["dataframe_split"])
    rows.loc[len(rows) - 1, "vibration_mm_s"] = float("nan")
    client = ScoringServerClient("127.0.0.1", int(shared["UPKEEP_PORT"]))
    assert list(client.invoke(rows).get_predictions()["machine"]) == [case["answer"]["machine"]]


def test_the_service_starts_without_what_only_training_needs():
    blocked = f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {HEAVY + NEVER}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
import upkeep.serving.app
"""
    done = subprocess.run([sys.executable, "-c", blocked], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def shown_machines(environment):
    with urlopen(f"{address(environment)}/fleet") as response:  # noqa: S310  # our own http address
        return [(row["plant"], row["machine"]) for row in json.load(response)["machines"]]


def test_golden_answers_are_compared_over_http(shared, tmp_path):
    before = shown_machines(shared)
    assert "8 golden answers of 2 plants" in smoke(address(shared), shared)
    assert shown_machines(shared) == before
    changed = tmp_path / "golden"
    copytree(shared["UPKEEP_GOLDEN"], changed)
    cases = json.loads((changed / "lyon.json").read_text())
    cases[0]["answer"]["probability"] += 1e-15
    (changed / "lyon.json").write_text(json.dumps(cases))
    with pytest.raises(UpkeepError, match=r"1 values of 8 golden answers differ: lyon .* probability is"):
        smoke(address(shared), shared | {"UPKEEP_GOLDEN": str(changed)})


def test_a_service_that_is_not_there_is_told_and_how_to_start_it(environment):
    with pytest.raises(UpkeepError, match="does not answer") as caught:
        smoke(address(environment), environment)
    assert "start the service" in caught.value.remedy


@pytest.mark.parametrize("url", ["", "ftp://host", "localhost:8000"])
def test_an_address_that_is_none_is_told_and_not_blamed_on_the_service(environment, url):
    with pytest.raises(UpkeepError, match="is no web address") as caught:
        smoke(url, environment)
    assert "--url http" in caught.value.remedy


def test_sigterm_finishes_what_is_under_way_and_keeps_the_log(service, environment, trained_fleet):
    cases = json.loads((trained_fleet / "models/golden/lyon.json").read_text())
    many = cases[0]["request"]["dataframe_split"]
    place = many["columns"].index("machine")
    many["data"] = [
        [f"M{number}" if index == place else value for index, value in enumerate(row)]
        for number in range(1000)
        for row in many["data"]
    ]
    answers = []

    def ask():
        connection = HTTPConnection("127.0.0.1", int(environment["UPKEEP_PORT"]), timeout=60)
        connection.request("POST", "/invocations", json.dumps({"dataframe_split": many}))
        answers.append(json.loads(connection.getresponse().read()))

    asking = Thread(target=ask)
    asking.start()
    time.sleep(0.3)
    service.send_signal(signal.SIGTERM)
    asking.join()
    assert service.wait(timeout=60) == 0
    assert len(answers[0]["predictions"]) == 1000
    logged = pl.concat(frame for _, frame in read_parts(environment["UPKEEP_LOG_URL"], date.min, set()))
    assert logged.height == 1000


def test_a_port_that_is_taken_is_told_and_what_to_do(shared):
    process = start(shared)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    what = f"error: the service cannot listen on 127.0.0.1, port {shared['UPKEEP_PORT']}: Address already in use\n"
    assert f"{what}  remedy:   set UPKEEP_PORT" in output


def test_a_model_file_that_was_changed_keeps_the_service_from_starting(environment, tmp_path):
    copytree(environment["UPKEEP_MODELS"], tmp_path / "models")
    with (tmp_path / "models/lyon/model.txt").open("ab") as file:
        file.write(b"\n")
    process = start(environment | {"UPKEEP_MODELS": str(tmp_path / "models")})
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "SHA-256" in output
    assert "Traceback" not in output


def test_a_folder_that_holds_another_plants_model_is_refused(environment, tmp_path):
    copytree(environment["UPKEEP_MODELS"], tmp_path / "models")
    (tmp_path / "models/lyon").rename(tmp_path / "models/nice")
    with pytest.raises(UpkeepError, match="the model is of plant lyon"):
        create_app(read_settings(environment | {"UPKEEP_MODELS": str(tmp_path / "models")}))


@pytest.mark.parametrize(
    ("name", "value", "what"),
    [
        ("UPKEEP_PORT", "80a", "UPKEEP_PORT is '80a'"),
        ("UPKEEP_LOG_URL", "s4://bucket/log", "UPKEEP_LOG_URL is 's4://bucket/log': Protocol not known"),
        ("UPKEEP_TOKENS_FILE", "/nowhere", "the file of tokens cannot be read"),
        ("UPKEEP_TOKENS_FILE", os.devnull, "UPKEEP_TOKENS_FILE: it is set, but holds no token"),
    ],
)
def test_a_setting_of_no_use_is_told(name, value, what):
    with pytest.raises(UpkeepError, match=what):
        read_settings({name: value})


def test_tokens_are_read_from_a_file(tmp_path):
    (tmp_path / "tokens").write_text("one\ntwo, three\n")
    assert read_settings({"UPKEEP_TOKENS_FILE": str(tmp_path / "tokens")}).tokens.keys() == {b"one", b"two", b"three"}
