"""Work mapped over plants gives the same answer, and the same errors, wherever it runs."""

import pytest

from upkeep.core.errors import UpkeepError
from upkeep.core.parallel import map_plants
from upkeep.core.params import Parallel


@pytest.fixture
def shout():
    def shout(plant, mark):  # inside, so that workers get it by value: they cannot import a test module
        if plant == "broken":
            raise UpkeepError("no rows", expected="some", remedy="send some", table="telemetry")
        return plant.upper() + mark

    return shout


@pytest.mark.parametrize("backend", ["sequential", "threading", "loky"])
def test_each_backend_gives_the_same_results_in_the_order_of_plants(backend, shout):
    results = map_plants(shout, ["porto", "lyon", "gdansk"], Parallel(backend=backend, jobs=2), "!")
    assert list(results.items()) == [("porto", "PORTO!"), ("lyon", "LYON!"), ("gdansk", "GDANSK!")]


@pytest.mark.parametrize("backend", ["sequential", "loky"])
def test_an_error_comes_back_whole_with_its_plant(backend, shout):
    with pytest.raises(UpkeepError) as raised:
        map_plants(shout, ["lyon", "broken"], Parallel(backend=backend, jobs=2), "!")
    assert raised.value.where == {"plant": "broken", "table": "telemetry"}
    assert raised.value.remedy == "send some"


def test_a_backend_that_joblib_does_not_know_is_named(shout):
    with pytest.raises(UpkeepError, match="the backend 'lokky' cannot be used"):
        map_plants(shout, ["lyon"], Parallel(backend="lokky", jobs=2), "!")
