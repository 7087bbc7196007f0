"""Why a model says what it says: features by gain, and single alarms by LightGBM's own SHAP contributions."""

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from upkeep.model.events import find_episodes, read_timeline

Floats = NDArray[np.float64]

MAX_REASONS = 3

WORDS = [
    (re.compile(r"(.+)_mean_(\d+)h"), r"mean of \1 over \2 h"),
    (re.compile(r"(.+)_std_(\d+)h"), r"spread of \1 over \2 h"),
    (re.compile(r"(.+)_min_(\d+)h"), r"lowest \1 in \2 h"),
    (re.compile(r"(.+)_max_(\d+)h"), r"highest \1 in \2 h"),
    (re.compile(r"(.+)_slope_(\d+)h"), r"trend of \1 over \2 h"),
    (re.compile(r"(.+)_from_baseline_(\d+)h"), r"\1 over \2 h against the machine's own healthy level"),
    (re.compile(r"errors_(.+)_(\d+)h"), r"errors \1 in \2 h"),
    (re.compile(r"hours_since_failure"), "hours since the last failure"),
    (re.compile(r"hours_since_(.+)"), r"hours since maintenance (\1)"),
    (re.compile(r"age_hours"), "age in hours"),
    (re.compile(r"model_code"), "machine model"),
]


def describe_feature(name: str) -> str:
    """Return a feature's name in words; a name of no known pattern, such as a sensor's own, stays as it is."""
    matches = (match.expand(words) for pattern, words in WORDS if (match := pattern.fullmatch(name)))
    return next(matches, name)


def explain_score(features: Sequence[str], values: Floats, contributions: Floats) -> list[dict[str, Any]]:
    """Return the features that raise one score most, the strongest first.

    Parameters
    ----------
    features
        Names, in the model's order.
    values
        Shape (n_features,); NaN where a feature is not known.
    contributions
        SHAP values in log-odds; shape (n_features,) or, with the expected value last, (n_features + 1,). Source:
        Lundberg et al. 2020, From local explanations to global understanding with explainable AI for trees.

    Returns
    -------
    list of dict
        At most three of ``feature``, ``value`` (None if not known), ``contribution`` (above 0) and ``words``.
    """
    strongest = np.argsort(-contributions[: len(features)], kind="stable")[:MAX_REASONS]
    return [
        _reason(features[index], float(values[index]), float(contributions[index]))
        for index in strongest
        if contributions[index] > 0
    ]


def _reason(feature: str, value: float, contribution: float) -> dict[str, Any]:
    found = "not known" if math.isnan(value) else f"{value:.4g}"
    return {
        "feature": feature,
        "value": None if math.isnan(value) else value,
        "contribution": contribution,
        "words": f"{describe_feature(feature)} is {found}: the odds of failing times {math.exp(contribution):.2g}",
    }


def pick_alarms(predictions: pl.DataFrame, horizon_hours: int, count: int) -> pl.DataFrame:
    """Return the first row of the most probable alarm episodes: what a planner would have seen.

    Parameters
    ----------
    predictions
        One candidate's rows of one plant, sorted by machine and time.

    Returns
    -------
    polars.DataFrame
        At most `count` of its rows, the most probable first.
    """
    starts, _ = find_episodes(read_timeline(predictions, horizon_hours), predictions["alarm"].to_numpy())
    return predictions[starts].sort("probability", "machine", "time", descending=[True, False, False]).head(count)


def rank_features(features: Sequence[str], gains: Sequence[Floats]) -> pl.DataFrame:
    """Return how much each feature lowered the loss in training, as a share of all.

    Parameters
    ----------
    features
        Names, in the model's order.
    gains
        Total gain per feature of each of the model's boosters, each of shape (n_features,).

    Returns
    -------
    polars.DataFrame
        feature, gain (share; 0 if the model never split), the highest first.
    """
    total = np.sum(gains, axis=0) if len(gains) else np.zeros(len(features))
    share = total / max(float(total.sum()), np.finfo(np.float64).tiny)
    return pl.DataFrame({"feature": features, "gain": share}, schema={"feature": pl.String, "gain": pl.Float64}).sort(
        "gain", "feature", descending=[True, False]
    )
