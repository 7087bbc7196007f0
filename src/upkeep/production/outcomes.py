"""What came of each alarm episode and of each failure, as far as it is known."""

import polars as pl

from upkeep.contract.dictionary import DTYPES

KEY = ["kind", "plant", "machine", "at", "role", "model_version"]
"""What tells the ledger's rows apart, but for what was known when."""

LEDGER = pl.Schema(
    {
        "kind": pl.String(),
        "plant": pl.String(),
        "machine": pl.String(),
        "at": DTYPES["time"],
        "role": pl.String(),
        "model_version": pl.String(),
        "probability": pl.Float64(),
        "threshold": pl.Float64(),
        "outcome": pl.String(),
        "settled_at": DTYPES["time"],
        "known_at": DTYPES["time"],
    }
)
"""`kind` is ``alarm``, an episode that began `at` this time, or ``failure``, one that happened then; `probability` is
the highest of the episode, or while a warning of the failure was still in time; `settled_at` is when what decided the
outcome happened, null while it is pending, and `known_at` when the ledger learnt it."""

OF_ALARMS = ("pending", "failed", "survived", "defect_found", "nothing_found", "no_code", "censored", "void")
OF_FAILURES = ("caught", "missed", "not_covered")
