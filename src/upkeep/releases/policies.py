"""When to train again: each policy is a function of the evidence that returns its reasons, by label, in words.

``retrain.policy`` of ``params.yaml`` names the one that `upkeep retrain` follows. No policy trains without new data,
which would give the same models.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import NamedTuple

from upkeep.core.params import Retrain
from upkeep.core.text import count_things

MONTH_DAYS = 28

Reasons = dict[str, str]


class RealisedLoss(NamedTuple):
    """The low end of the interval of what following a plant's alarms has cost, and what was promised.

    The promise is the cost per failure on test rows, times the failures since.
    """

    least: float
    promised: float


class Evidence(NamedTuple):
    """What a policy may know.

    `batches` are the first days of the batches that the live models were not trained on, in order, and `offered` is the
    last of those that a retraining which has not shipped was made from; `age_days` is the time since the last batch
    trained on ended. `drifted` returns by plant whether it drifted in each of the last windows, the newest first; it is
    slow, and called only if needed. `realised` has the plants whose costs are known.
    """

    batches: Sequence[date]
    age_days: int
    drifted: Callable[[], Mapping[str, Sequence[bool]]]
    realised: Mapping[str, RealisedLoss] = {}
    offered: date | None = None


def decide(evidence: Evidence, how: Retrain) -> Reasons:
    """Return why to train again, by the chosen policy; empty if there is no reason."""
    return POLICIES[how.policy](evidence, how) if evidence.batches else {}


def train_by_evidence(evidence: Evidence, how: Retrain) -> Reasons:
    """Train on enough new data, on lasting drift, on a loss beyond what was promised, or when models are old.

    None of these is a reason before `batches_between` batches have arrived since the last retraining: drift and loss
    last until a model that knows of them ships, and would give nearly the same model week after week.
    """
    since = [batch for batch in evidence.batches if evidence.offered is None or batch > evidence.offered]
    if len(since) < how.batches_between:
        return {}
    reasons = train_on_batches(evidence, how.new_batches)
    lasting = [
        f"{plant} in {sum(windows)} of its last {how.drift_windows} windows"
        for plant, windows in evidence.drifted().items()
        if windows[0] and sum(windows) >= how.drift_needed
    ]
    if lasting:
        reasons["drift"] = f"drift of {', '.join(lasting)}"
    losses = [
        f"{plant} has cost {cost.least:,.0f} at least, not the {cost.promised:,.0f} of its test figures"
        for plant, cost in evidence.realised.items()
        if cost.least > cost.promised
    ]
    if losses:
        reasons["loss"] = f"realised loss: {', '.join(losses)}"
    if evidence.age_days > how.max_age_days:
        reasons["age"] = f"the models know nothing of the last {evidence.age_days} days"
    return reasons


def train_on_batches(evidence: Evidence, needed: int = 1) -> Reasons:
    """Train as soon as the `needed` number of batches has arrived."""
    if len(evidence.batches) < needed:
        return {}
    return {"new data": f"{count_things(len(evidence.batches), 'new batch')} up to that of {evidence.batches[-1]}"}


POLICIES: dict[str, Callable[[Evidence, Retrain], Reasons]] = {
    "evidence": train_by_evidence,
    "every_batch": lambda evidence, _: train_on_batches(evidence),
    "monthly": lambda evidence, _: train_on_batches(evidence) if evidence.age_days >= MONTH_DAYS else {},
    "never": lambda *_: {},
}
"""By the names that ``retrain.policy`` takes."""
