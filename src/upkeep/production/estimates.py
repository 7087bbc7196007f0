"""Precision and cost of the newest alarms before anybody knows what came of them, and whether that came true.

Each machine's time is cut into *stretches*: one begins at an alarm, as an episode does, or where the last one ended,
and ends after a horizon, one without an alarm also at the next alarm. What came of the stretches of validation and test
rows, by their highest probability, says what to expect of those that were logged. That holds while machines that look
alike have the same future: where sensors left the training range or have drifted nothing is estimated, and a change in
how machines fail shows in outcomes only. So estimates are shown, and decide nothing.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

import polars as pl
from pydantic import Field

from upkeep.core.params import Params
from upkeep.judging.drift import Window
from upkeep.judging.reports import Figure, Interval, PlantDrift, Report, WindowReport

FEWEST_ALARMS = 10
"""Alarm episodes of validation and test rows, at least, that tell what a probability means."""

MOST_OUTSIDE = 0.2
"""Share of logged rows with a sensor outside of what training rows held, above which nothing is estimated."""

TRUE, FALSE = ("failed", "defect_found"), ("survived", "nothing_found")
"""Outcomes of an alarm in the ledger: somebody needed it, or nobody did."""


class Estimate(Report):
    """What is expected of one plant's alarms in a window, with intervals of what may come true.

    `monthly_cost` is in the currency of ``evaluate.costs`` and leaves out failures that no prediction covers. `reasons`
    say why nothing is estimated; none if it is. `precision` is also None where no alarm was raised.
    """

    plant: str
    model_version: str
    window: WindowReport
    rows: int
    alarms: int = 0
    precision: Figure = None
    precision_interval: Interval = None
    monthly_cost: Figure = None
    monthly_cost_interval: Interval = None
    reasons: list[str] = Field(default=[])


class Realised(Report):
    """What came true in a window that was estimated, as a range where not every alarm's outcome is known.

    Whether the interval holds none of the range is None where there is nothing to compare.
    """

    window: WindowReport
    precision: Interval
    precision_missed: bool | None
    monthly_cost: Interval
    monthly_cost_missed: bool


class Agreement(Report):
    """Whether outcomes lie outside of their intervals more often than chance explains, and the windows compared."""

    verdict: Literal["agrees", "disagrees", "unknown"]
    why: str
    windows: list[Realised]


def estimate_plant(
    logged: pl.DataFrame,
    predictions: pl.DataFrame,
    window: Window,
    params: Params,
    *,
    plant: str,
    model_version: str,
    drift: PlantDrift | None = None,
) -> Estimate:
    """Estimate what will come of a plant's predictions of a window.

    `logged` are rows of :data:`upkeep.scoring.prediction_log.SCHEMA`, `predictions` what ``train`` wrote of the plant
    for the same model, and `drift` what was found of the window, if it was looked at.
    """
    raise NotImplementedError


def compare_with_outcomes(
    estimates: Sequence[Estimate], ledger: pl.DataFrame, known_at: datetime, params: Params
) -> Agreement:
    """Hold one plant's estimates of windows that do not overlap against what came true.

    `ledger` has the columns of :data:`upkeep.production.outcomes.LEDGER` and one row per key, as known at `known_at`. A
    window is compared once a horizon has passed after it and no alarm of it is pending.
    """
    raise NotImplementedError
