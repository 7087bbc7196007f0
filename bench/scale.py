"""The whole pipeline on fleets of hundreds of plants: cold, ten times the rows, the next week, and as a DVC matrix.

The peer is what one does first with DVC: a stage a plant, each a process of its own. It does less, since no notebook is
run, no plant is held against a model of the fleet, and what is not of one plant is left out.
"""

import json
import sys
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


MIDDLE, LARGE = Fleet(100, 20, 26), Fleet(300, 20, 52)


def measure(middle: Fleet = MIDDLE, large: Fleet = LARGE) -> list[Row]:
    """Return seconds and megabytes of ``dvc repro`` in checkouts without any outputs, and a week later."""
    tenth = middle._replace(plants=max(middle.plants // 10, 1))
    runs: dict[Fleet, Ran] = {}
    notes, weekly = {}, {}
    for fleet in (tenth, middle, large):
        with TemporaryDirectory() as folder:
            checkout = Path(folder) / "upkeep"
            clone(checkout)
            runs[fleet] = _reproduce(checkout, fleet)
            times = json.loads((checkout / TIMES).read_text(encoding="utf-8"))
            notes[fleet] = "within the stages: " + ", ".join(f"{stage} {seconds}" for stage, seconds in times.items())
            weekly[fleet] = _reproduce(checkout, fleet._replace(weeks=fleet.weeks + 1))
    matrix = _run_matrix(middle)
    seconds, megabytes = ({fleet: getattr(ran, of) for fleet, ran in runs.items()} for of in ("seconds", "megabytes"))
    peer = (
        f"peer: a stage for each of {MATRIX_PLANTS} plants, times {middle.plants / MATRIX_PLANTS:g}; DVC takes longer"
    )
    return [
        Row(f"{middle}, cold", seconds[middle], "s", target="ours <= 194", note=notes[middle]),
        Row(f"{middle}, memory", megabytes[middle], "MB", target="ours <= 2500", note="sum over processes"),
        Row(f"{middle}, cold, against a DVC matrix", seconds[middle], "s", matrix, "ratio <= 0.125", peer),
        Row(f"{middle}, against a tenth of the plants", seconds[middle], "s", seconds[tenth], "ratio <= 11"),
        Row(f"{middle}, the next week", weekly[middle].seconds, "s", seconds[middle], "ratio <= 0.125", "peer: cold"),
        Row(f"{large}, cold", seconds[large], "s", target="ours <= 1200", note=notes[large]),
        Row(f"{large}, memory", megabytes[large], "MB", target="ours <= 6000", note="sum over processes"),
        Row(f"{large}, the next week", weekly[large].seconds, "s", seconds[large], "ratio <= 0.125", "peer: cold"),
    ]


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


if __name__ == "__main__":
    small = Fleet(*map(int, sys.argv[1:]))
    for row in measure(small, small._replace(weeks=small.weeks + 2)):
        print(row.as_record())
