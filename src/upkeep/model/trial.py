"""Tries saved models in a process of their own first, so that one that hangs or crashes harms nothing else.

Imports that only answers need are late, so that a service can start the trial before it imports them itself.
"""

import signal
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from upkeep.core.errors import UpkeepError
from upkeep.core.paths import MODEL_METADATA

if TYPE_CHECKING:
    from upkeep.model.scoring import Scorer

START_SECONDS, MODEL_SECONDS = 60, 1.0
"""How long the process may take to start, and for each model, which usually takes a few hundredths of a second."""

# LightGBM would import these if they are installed, and take three times as long. Imports make hardly any garbage.
CODE = (
    "import gc, sys; gc.disable();"
    "sys.modules.update(dict.fromkeys(('dask', 'matplotlib', 'pandas', 'pyarrow', 'sklearn')));"
    "from upkeep.model.trial import answer; answer(int(sys.argv[1]), sys.argv[2:])"
)

ANSWERED = "it answers"

_begun: dict[tuple[Path, ...], subprocess.Popen[str]] = {}


def begin(folder: Path) -> None:
    """Start the trial of every plant's model, which :func:`load_scorers` will wait for."""
    if folders := sorted(file.parent for file in folder.glob(f"*/{MODEL_METADATA}")):
        _begun[tuple(folders)] = _start(folders)


def load_scorers(folder: Path) -> "dict[str, Scorer]":
    """Read every plant's model after a trial of each.

    An UpkeepError is raised if there is none, or if one is damaged, gives no answer or is of another plant than its
    folder.
    """
    from upkeep.model.scoring import load_scorer
    from upkeep.model.storage import find_models

    models = find_models(folder)
    if not models:
        remedy = "run `dvc repro train`, or `dvc pull models/plants`"
        raise UpkeepError(f"{folder} holds no model", remedy=remedy, file=folder)
    for fault in find_faults(sorted(models.values())).values():
        raise fault
    return {plant: load_scorer(own) for plant, own in models.items()}


def find_faults(folders: Iterable[Path]) -> dict[Path, UpkeepError]:
    """Try the models in these folders, and return why some gave no answer."""
    waiting, faults = list(folders), {}
    while waiting:
        tried, reason = _ask_trial(waiting)
        if tried < len(waiting):
            faults[waiting[tried]] = UpkeepError(
                f"the model gives no answer: {reason}",
                remedy="train it again, or restore its folder with `dvc checkout`",
                file=waiting[tried] / MODEL_METADATA,
            )
        waiting = waiting[tried + 1 :]
    return faults


def _ask_trial(folders: Sequence[Path]) -> tuple[int, str]:
    """Return how many models answered, in order, and why the next one, if there is one, did not."""
    process = _begun.pop(tuple(folders), None) or _start(folders)
    try:
        printed, said = process.communicate(timeout=_limit(folders))
        words = said.strip().splitlines() or ["it said nothing"]
        reason = f"the process ended with {process.returncode}: {words[-1]}"
    except subprocess.TimeoutExpired:
        process.kill()
        printed, reason = process.communicate()[0], f"none within {_limit(folders):g} s"
    return printed.split("\n").count(ANSWERED), reason  # LightGBM prints warnings between


def _start(folders: Sequence[Path]) -> subprocess.Popen[str]:
    ends = str(int(_limit(folders)) + 1)  # in case nothing waits for it any more
    command = [sys.executable, "-P", "-c", CODE, ends, *map(str, folders)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace")


def _limit(folders: Sequence[Path]) -> float:
    return START_SECONDS + MODEL_SECONDS * len(folders)


def answer(seconds: int, folders: Iterable[str]) -> None:
    """Score one machine by each model that is not damaged, and print that it answers; end after these `seconds`."""
    from upkeep.model.scoring import load_scorer

    signal.alarm(seconds)
    for folder in folders:
        try:
            scorer = load_scorer(Path(folder))
        except UpkeepError:
            pass  # loading it says why
        else:
            _score_nothing(scorer)
        print(ANSWERED, flush=True)  # noqa: T201  # read by the process that waits


def _score_nothing(scorer: "Scorer") -> None:
    import numpy as np

    from upkeep.features.inputs import Telemetry, classify_events

    sensors, settings = len(scorer.vocabulary.sensors), len(scorer.vocabulary.settings)
    rows = Telemetry(["any"], np.array([0, 1]), np.array([0]), np.zeros((1, settings)), np.zeros((1, sensors)))
    (found,) = scorer.score(rows, classify_events([], rows.machines, scorer.vocabulary), {})
    scorer.explain(found.features, found.readings)
    if not 0 <= found.probability <= 1:
        raise ValueError(f"its probability is {found.probability}")
