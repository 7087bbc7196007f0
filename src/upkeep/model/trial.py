"""Models asked for one answer in a process of their own first: one that hangs or crashes takes nobody with it."""

import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from upkeep.core.errors import UpkeepError
from upkeep.features.inputs import Telemetry, classify_events
from upkeep.model.scoring import Scorer, load_scorer
from upkeep.model.storage import METADATA_FILE, checksum, find_models

START_SECONDS, MODEL_SECONDS = 60, 1.0
"""How long the process may take to begin, and beside that for each model, which takes a few hundredths of that."""

# LightGBM would import these, and take three times as long, where they are installed.
CODE = (
    "import sys; sys.modules.update(dict.fromkeys(('dask', 'matplotlib', 'pandas', 'pyarrow', 'sklearn')));"
    "from upkeep.model.trial import answer; answer(sys.argv[1:])"
)

WELL, DAMAGED = "it answers", "it is damaged"

_answered: set[str] = set()
"""Checksums of the models that have answered before; those of the metadata hold those of the boosters."""


def load_scorers(folder: Path) -> dict[str, Scorer]:
    """Read every plant's model, once each has answered.

    An UpkeepError is raised if there is none, or one is damaged, does not answer or is of another plant than its
    folder.
    """
    models = find_models(folder)
    if not models:
        remedy = "run `dvc repro train`, or `dvc pull models/plants`"
        raise UpkeepError(f"{folder} holds no model", remedy=remedy, file=folder)
    for fault in find_faults(models.values()).values():
        raise fault
    return {plant: load_scorer(own) for plant, own in models.items()}


def find_faults(folders: Iterable[Path]) -> dict[Path, UpkeepError]:
    """Ask the models in these folders for one answer each, and return why some gave none."""
    versions = {folder: _read_version(folder) for folder in folders}
    waiting = [folder for folder, version in versions.items() if version not in _answered]
    faults = {}
    while waiting:
        tried, fault = _ask(waiting)
        if fault:
            faults[waiting[tried]] = UpkeepError(
                f"the model gives no answer: {fault}",
                remedy="train it again, or restore its folder with `dvc checkout`",
                file=waiting[tried] / METADATA_FILE,
            )
        _answered.update(versions[folder] for folder in waiting[:tried])
        waiting = waiting[tried + 1 :]
    return faults


def _read_version(folder: Path) -> str:
    try:
        return checksum((folder / METADATA_FILE).read_bytes())
    except OSError:
        return ""


def _ask(folders: Sequence[Path]) -> tuple[int, str]:
    """Return how many models answered, one after the other, and why the next one did not."""
    command = [sys.executable, "-P", "-c", CODE, *map(str, folders)]
    seconds = START_SECONDS + MODEL_SECONDS * len(folders)
    try:
        done = subprocess.run(command, capture_output=True, timeout=seconds, text=True, check=False)
    except subprocess.TimeoutExpired as late:
        return _count_answers((late.stdout or b"").decode()), f"none within {seconds:g} s"
    words = done.stderr.strip().splitlines()
    fault = f"the process ended with {done.returncode}: {words[-1] if words else 'it said nothing'}"
    return _count_answers(done.stdout), fault if done.returncode else ""


def _count_answers(printed: str) -> int:
    return sum(line in (WELL, DAMAGED) for line in printed.splitlines())  # LightGBM prints warnings between


def answer(folders: Iterable[str]) -> None:
    """Score one machine by each model, and say so; what is wrong with a file is told by whoever reads it next."""
    for folder in folders:
        try:
            scorer = load_scorer(Path(folder))
        except UpkeepError:
            print(DAMAGED, flush=True)  # noqa: T201  # read by the process that waits
            continue
        _score_nothing(scorer)
        print(WELL, flush=True)  # noqa: T201


def _score_nothing(scorer: Scorer) -> None:
    sensors, settings = len(scorer.vocabulary.sensors), len(scorer.vocabulary.settings)
    rows = Telemetry(["any"], np.array([0, 1]), np.array([0]), np.zeros((1, settings)), np.zeros((1, sensors)))
    (found,) = scorer.score(rows, classify_events([], rows.machines, scorer.vocabulary), {})
    scorer.explain(found.features, found.readings)
    if not 0 <= found.probability <= 1:
        raise ValueError(f"its probability is {found.probability}")
