"""Why a model says what it says: features by gain, and single alarms by LightGBM's own SHAP contributions."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import polars as pl

from upkeep.core.spelling import read_spelt
from upkeep.core.types import Floats

MAX_REASONS = 3
YEAR_HOURS = 365.25 * 24


def _against_normal(value: float) -> str:
    return f"{abs(value):.2g} times its usual spread {'above' if value > 0 else 'below'} normal"


def _against_own(value: float) -> str:
    return f"{abs(value):.2g} times its usual spread {'higher' if value > 0 else 'lower'}"


# Readings are scaled by level and spread of their operating condition, which is what "normal" means here. The order
# counts: no sensor's feature begins as a counter's does, but a code may end as a statistic's name.
WORDS: list[tuple[str, str, Callable[[float], str]]] = [
    (r"errors_(.+)_([\d.]+)h", "errors {0} in {1} h", "{:.4g}".format),
    (r"hours_since_failure", "time since the last failure", "{:.0f} h".format),
    (r"hours_since_(.+)", "time since maintenance ({0})", "{:.0f} h".format),
    (r"setting_(.+)", "{0}", "{:.4g}".format),
    (r"attribute_(.+)", "{0}", "{:.4g}".format),
    (r"age_hours", "age", lambda value: f"{value / YEAR_HOURS:.1f} years"),
    (r"model_code", "machine model", "number {:.0f} of those in training".format),
    (r"(.+)_mean_([\d.]+)h", "mean of {0} over {1} h", _against_normal),
    (r"(.+)_std_([\d.]+)h", "spread of {0} over {1} h", "{:.2g} times normal".format),
    (r"(.+)_min_([\d.]+)h", "lowest {0} in {1} h", _against_normal),
    (r"(.+)_max_([\d.]+)h", "highest {0} in {1} h", _against_normal),
    (r"(.+)_slope_([\d.]+)h", "trend of {0} over {1} h", "{:+.2g} times its usual spread an hour".format),
    (r"(.+)_from_baseline_([\d.]+)h", "{0} over {1} h against the machine's own healthy level", _against_own),
]


def describe_feature(name: str, labels: Mapping[str, str] = MappingProxyType({})) -> str:
    """Return a feature's name in words; a name of no known pattern, such as a sensor's own, stays as it is.

    `labels` are what planners call the sensors, where that is not the column's own name.
    """
    return _find_words(name, labels)[0]


def _find_words(name: str, labels: Mapping[str, str]) -> tuple[str, Callable[[float], str]]:
    for pattern, words, describe_value in WORDS:
        if match := re.fullmatch(pattern, name, re.DOTALL):
            parts = map(read_spelt, match.groups())
            return words.format(*(labels.get(part, part) for part in parts)), describe_value
    column = read_spelt(name)
    return labels.get(column, column), _against_normal


def find_reasons(
    features: Sequence[str], values: Floats, contributions: Floats, labels: Mapping[str, str] = MappingProxyType({})
) -> list[dict[str, Any]]:
    """Return what raises one machine's probability most, the strongest first.

    Parameters
    ----------
    values
        Shape (n_features,), in the order of `features`; NaN where one is not known.
    contributions
        SHAP values in log-odds, from :func:`upkeep.model.storage.contributions`; shape (n_features,) or, with the
        expected value last, (n_features + 1,).

    Returns
    -------
    list of dict
        At most three of ``feature``, ``value`` (None if not known), ``contribution`` (above 0) and ``words``.
    """
    strongest = np.argsort(-contributions[: len(features)], kind="stable")[:MAX_REASONS]
    return [
        _describe_reason(features[index], float(values[index]), float(contributions[index]), labels)
        for index in strongest
        if contributions[index] > 0
    ]


def _describe_reason(feature: str, value: float, contribution: float, labels: Mapping[str, str]) -> dict[str, Any]:
    words, describe_value = _find_words(feature, labels)
    known = not math.isnan(value)
    found = describe_value(value) if known else "not known"
    return {
        "feature": feature,
        "value": value if known else None,
        "contribution": contribution,
        "words": f"{words} is {found}: the odds of failing times {math.exp(contribution):.2g}",
    }


def rank_features(features: Sequence[str], gains: Sequence[Floats]) -> pl.DataFrame:
    """Return how much each feature lowered the loss in training, as a share of all, the highest first.

    `gains` are those of the model's boosters, each of shape (n_features,); all is 0 if none ever split.
    """
    total = np.sum(gains, axis=0) if len(gains) else np.zeros(len(features))
    share = total / max(float(total.sum()), np.finfo(np.float64).tiny)
    ranked = pl.DataFrame({"feature": features, "gain": share}, schema={"feature": pl.String, "gain": pl.Float64})
    return ranked.sort("gain", "feature", descending=[True, False]).with_columns(pl.col("gain").round(6))
