"""A plant's booster as an MLflow model, and the prepared features that it takes."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from upkeep.core.types import Floats32
from upkeep.model.scoring import Scorer


def save(scorer: Scorer, features: Floats32, folder: Path) -> None:
    """Save the booster with its signature, as one logs it; `features` of shape (n_rows, n_features)."""
    import mlflow

    logging.getLogger("mlflow").setLevel(logging.ERROR)  # it warns of an environment without pip, which uv makes
    (booster,) = scorer.model.boosters
    frame = to_frame(scorer, features)
    signature = mlflow.models.infer_signature(frame, booster.predict(frame))
    mlflow.lightgbm.save_model(booster, str(folder), signature=signature)


def to_frame(scorer: Scorer, features: Floats32) -> pd.DataFrame:
    """Return prepared features as the model's signature wants them."""
    return pd.DataFrame(features.astype(np.float64), columns=scorer.model.metadata.features)


def to_request(scorer: Scorer, features: Floats32) -> dict[str, Any]:
    """Return a request to MLflow's scoring server."""
    rows = [[None if np.isnan(value) else float(value) for value in row] for row in features]
    return {"dataframe_split": {"columns": scorer.model.metadata.features, "data": rows}}
