"""A small fleet taken through the pipeline, for tests that need models and the data they learnt from."""

import os
from collections.abc import Sequence
from contextlib import chdir
from pathlib import Path

import yaml

from upkeep.cli.stages import run_stage

ROOT = Path(__file__).parents[1]
PLANTS = {"lyon": 4, "porto": 4}
STAGES = ("fetch", "validate", "dataset", "train", "golden")


def train_small_fleet(folder: Path, stages: Sequence[str] = STAGES, **dataset: object) -> Path:
    """Run the pipeline, by default up to the golden requests, in `folder` and return it."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["fetch"] |= {"until": "2025-06-30", "options": params["fetch"]["options"] | {"plants": PLANTS}}
    params["validate"]["dictionary"] = str(ROOT / "data/references/dictionary.yaml")
    params["dataset"] |= dataset
    params["model"] |= {"compare": [], "lightgbm": params["model"]["lightgbm"] | {"n_estimators": 40}}
    params["drift"]["max_drifted_share"] = 1.0  # a drifted plant gets a page, which takes seconds
    params["parallel"]["backend"] = "sequential"
    with chdir(folder):
        Path("params.yaml").write_text(yaml.safe_dump(params))
        for stage in stages:
            run_stage(stage)
    return folder


def service_environment(fleet: Path, folder: Path, **changes: str) -> dict[str, str]:
    """Return the environment of a service with the fleet's models; what it writes lands in `folder`."""
    return {
        "PATH": os.environ["PATH"],
        "UPKEEP_HOST": "127.0.0.1",
        "UPKEEP_MODELS": str(fleet / "models/plants"),
        "UPKEEP_GOLDEN": str(fleet / "models/golden"),
        "UPKEEP_DICTIONARY": str(ROOT / "data/references/dictionary.yaml"),
        "UPKEEP_LOG_URL": str(folder / "log"),
        "UPKEEP_SPOOL": str(folder / "spool"),
        **changes,
    }
