"""The whole pipeline on a hundred plants: cold, ten times the rows, the next week, and as a DVC matrix.

The peer is what one does first with DVC: a stage a plant, each a process of its own. It does less, since no notebook is
run, no plant is held against a model of the fleet, and what is not of one plant is left out.
"""

import json
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import yaml

from bench.checkout import BY_WINDOW, clone, environment, set_fleet
from bench.measuring import Ran, Row, run_command
from upkeep.core import paths
from upkeep.core.timing import TIMES

START = date(2025, 1, 6)  # of the shipped fleet, too
DICTIONARY = "data/references/dictionary.yaml"
MATRIX_PLANTS = 10
MATRIX_STAGES = ("fetch", "validate", "dataset", "train", "golden", "evaluate", "drift")


class Fleet(NamedTuple):
    """A simulated fleet, a row per machine and hour."""

    plants: int
    machines: int
    weeks: int

    def __str__(self) -> str:
        return f"{self.plants} plants of {self.machines} machines, {self.weeks} weeks"


MIDDLE = Fleet(100, 20, 26)


def measure(middle: Fleet = MIDDLE) -> list[Row]:
    """Return seconds and megabytes of ``dvc repro`` in checkouts without any outputs, and a week later."""
    cold, week, note = reproduce_twice(middle)
    tenth, *_ = reproduce_twice(middle._replace(plants=max(middle.plants // 10, 1)))
    matrix = _run_matrix(middle)
    peer = (
        f"peer: a stage for each of {MATRIX_PLANTS} plants, times {middle.plants / MATRIX_PLANTS:g}; DVC takes longer"
    )
    return [
        Row(f"{middle}, cold", cold.seconds, "s", target="ours <= 194", note=note),
        Row(f"{middle}, memory", cold.megabytes, "MB", target="ours <= 2500", note="sum over processes"),
        Row(f"{middle}, cold, against a DVC matrix", cold.seconds, "s", matrix, "ratio <= 0.125", peer),
        Row(f"{middle}, against a tenth of the plants", cold.seconds, "s", tenth.seconds, "ratio <= 11"),
        Row(f"{middle}, the next week", week.seconds, "s", cold.seconds, "ratio <= 0.125", "peer: cold"),
    ]


def reproduce_twice(fleet: Fleet) -> tuple[Ran, Ran, str]:
    """Run the pipeline in a fresh checkout, and again a week later; return both runs, and the first one's stages."""
    with TemporaryDirectory() as folder:
        checkout = Path(folder) / "upkeep"
        clone(checkout)
        cold = _reproduce(checkout, fleet)
        times = json.loads((checkout / TIMES).read_text(encoding="utf-8"))
        week = _reproduce(checkout, fleet._replace(weeks=fleet.weeks + 1))
    return cold, week, "within the stages: " + ", ".join(f"{stage} {seconds}" for stage, seconds in times.items())


def _reproduce(checkout: Path, fleet: Fleet) -> Ran:
    _set_fleet(checkout, [f"plant{number:03}" for number in range(fleet.plants)], fleet, DICTIONARY)
    return run_command(["dvc", "repro", "--quiet"], checkout, environment(checkout))


def _set_fleet(folder: Path, plants: Sequence[str], fleet: Fleet, dictionary: str) -> None:
    set_fleet(
        folder,
        dict.fromkeys(plants, fleet.machines),
        START + timedelta(weeks=fleet.weeks - 1),
        validate={"dictionary": dictionary},
        dataset={**BY_WINDOW, "max_single_feature_auc": 1},  # of few failures, one column may tell all by chance
        evaluate={"golden": None},  # cases of the default fleet's plants
        parallel={"backend": "loky"},  # as docs/scaling.md advises for many plants
    )


def _run_matrix(fleet: Fleet) -> float:
    """Return the seconds that a stage a plant would take for the whole fleet, from those of its first plants."""
    plants = [f"plant{number:03}" for number in range(min(MATRIX_PLANTS, fleet.plants))]
    with TemporaryDirectory() as folder:
        checkout = Path(folder) / "upkeep"
        clone(checkout)
        pipeline = yaml.safe_load((checkout / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
        stages = {name: _spread(pipeline[name], plants) for name in MATRIX_STAGES}
        (checkout / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}), encoding="utf-8")
        (checkout / "dvc.lock").unlink()
        for plant in plants:
            own = checkout / "plants" / plant
            (own / paths.REPORTS).mkdir(parents=True)
            _set_fleet(own, [plant], fleet, str(checkout / DICTIONARY))
        ran = run_command(["dvc", "repro", "--quiet"], checkout, environment(checkout))
    return ran.seconds * fleet.plants / len(plants)


def _spread(stage: dict[str, Any], plants: Sequence[str]) -> dict[str, Any]:
    """Return a stage of ``dvc.yaml`` as one a plant, each in a folder of its own."""
    deps = [path for path in stage["deps"] if not path.startswith(("src/", "${"))]
    where = {"matrix": {"plant": list(plants)}, "wdir": "plants/${item.plant}"}
    return {**where, "cmd": stage["cmd"], "deps": deps, "outs": stage["outs"]}
