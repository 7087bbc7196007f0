"""How each plant stands, why, since when, and what changed since the last run, given all signals.

A plant's status is the worst of its signals': `act` where somebody has to, `watch` where something is unusual,
`unknown` where something needed is not known, else `fine`.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from pydantic import AwareDatetime

from upkeep.judging.reports import PlantDrift, Report
from upkeep.production.estimates import Agreement
from upkeep.production.health import ACT, FINE, ORDER, UNKNOWN, WATCH, Signal, Status

FLEET = ""  # in a plant's place: what plants share, such as the source
TO_LEARN = "run `upkeep outcomes` once the horizon of its alarms is over"  # before that it adds nothing

VERDICTS: dict[str, tuple[Status, str, str]] = {
    "agrees": (FINE, "what came of its alarms is what was expected", ""),
    "disagrees": (ACT, "what came of its alarms is not what was expected", "rely on no alarm alone; train anew"),
    "unknown": (UNKNOWN, "whether its alarms turn out as expected is not known", TO_LEARN),
}
"""Status, words and remedy by whether outcomes agree with estimates."""


class Standing(Report):
    """How a plant stands: why, the worst reason first; since when, for how many runs; and what the webhook knows."""

    status: Status
    why: list[str]
    changes: list[str]
    since: AwareDatetime
    runs: int = 1
    told: Status = "fine"


class Monitoring(Report):
    """``reports/monitoring/monitoring.json``; `page` is where the planner's page is published, if that is known."""

    as_of: AwareDatetime
    retraining: str
    standings: dict[str, Standing]
    signals: list[Signal]
    page: str | None = None

    def list_news(self, told_after: int) -> dict[str, Standing]:
        """Return by plant each status that has held for `told_after` runs and has not been told yet."""
        return {
            plant: each
            for plant, each in self.standings.items()
            if each.runs >= told_after and each.status != each.told
        }

    def mark_told(self, plants: Iterable[str]) -> "Monitoring":
        """Return a copy in which the webhook knows these plants' status."""
        old = self.standings
        told = {plant: old[plant].model_copy(update={"told": old[plant].status}) for plant in plants}
        return self.model_copy(update={"standings": old | told})


def judge_drift(plant: str, found: PlantDrift | None) -> Signal:
    """Return the drift report's verdict on a plant; unknown if the report lacks the plant or could not judge it."""
    judged = [column for column in found.columns.values() if column.judged] if found else []
    if found is None or not judged:
        words, remedy = "whether its data still looks like what was trained on is not known", "run `dvc repro drift`"
        return Signal(plant=plant, measure="drift", status=UNKNOWN, words=words, remedy=remedy)
    drifted = sum(column.drifted for column in judged)
    words = f"{drifted} of {len(judged)} columns no longer look like what was trained on"
    status = WATCH if found.drifted else FINE
    return Signal(plant=plant, measure="drift", status=status, words=words, value=found.share)


def judge_alarms(plant: str, figures: Mapping[str, Any] | None, agreement: Agreement | None) -> list[Signal]:
    """Return what came of a plant's alarms, and whether that was expected.

    `figures` is the plant's row of the ledger's live figures. However good the data looks, outcomes that are not as
    expected call for action: machines may fail in another way than those in the training data.
    """
    status, words, remedy = UNKNOWN, "nothing is known yet of what came of its alarms", TO_LEARN
    if figures and figures["coded"] is not None:
        names = ("precision", "coded", "recall_from", "recall_to")
        right, coded, least, most = ("?" if figures[name] is None else f"{figures[name]:.0%}" for name in names)
        of_alarms = f"{right} of its alarms were right, of {coded} it is known"
        status, words, remedy = FINE, f"{of_alarms}; {least} to {most} of failures were warned of", ""
    outcomes = Signal(plant=plant, measure="outcomes", status=status, words=words, remedy=remedy)
    status, words, remedy = VERDICTS[agreement.verdict if agreement else "unknown"]
    words += f": {agreement.why}" if agreement else ""
    return [outcomes, Signal(plant=plant, measure="estimates", status=status, words=words, remedy=remedy)]


def summarise_signals(
    signals: Sequence[Signal], before: Monitoring | None, retraining: str, plants: Iterable[str], as_of: datetime
) -> Monitoring:
    """Return how each plant and the fleet stand, given the signals of now and how they stood `before`."""
    known = {signal.key: signal for signal in before.signals} if before else {}
    dated = []
    for signal in sorted(signals, key=lambda signal: ORDER.index(signal.status)):
        former = known.get(signal.key)
        since = former.since if former and former.status == signal.status else as_of
        dated.append(signal.model_copy(update={"since": since}))
    standings = {}
    for plant in (FLEET, *plants):
        own = [signal for signal in dated if signal.plant == plant]
        standings[plant] = _stand(own, known, before.standings.get(plant) if before else None, as_of)
    return Monitoring(as_of=as_of, retraining=retraining, standings=standings, signals=dated)


def _stand(
    own: Sequence[Signal], known: Mapping[tuple[str, str, str], Signal], former: Standing | None, as_of: datetime
) -> Standing:
    status, changes = own[0].status if own else UNKNOWN, []
    for signal in own:
        before = known.get(signal.key)
        if known and (before.status if before else FINE) != signal.status:
            changes.append(f"{signal.name}: {signal.status}, {before.status if before else 'not looked at'} before")
    why = [
        f"{signal.name}: {signal.words}" + (f" → {signal.remedy}" if signal.remedy else "")
        for signal in own
        if signal.status != FINE
    ]
    if former and former.status == status:
        return former.model_copy(update={"why": why, "changes": changes, "runs": former.runs + 1})
    return Standing(status=status, why=why, changes=changes, since=as_of, told=former.told if former else FINE)
