"""How each plant stands, why, since when and what changed since the last run, given all that was looked at.

A plant stands as the worst of what was looked at: `act` where somebody has to, `watch` where something is unusual,
`unknown` where something needed is not known, else `fine`.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from pydantic import AwareDatetime

from upkeep.judging.reports import DriftReport, Report
from upkeep.production.health import ORDER, Signal, Status


class Standing(Report):
    """How a plant stands: why, the worst first; since when and for how many runs; and what the webhook was told."""

    status: Status
    why: list[str]
    changes: list[str]
    since: AwareDatetime
    runs: int = 1
    told: Status = "fine"


class Monitoring(Report):
    """``reports/monitoring/monitoring.json``; `page` is where the planner's page is published, if it is known."""

    as_of: AwareDatetime
    retraining: str
    fleet: Standing
    plants: dict[str, Standing]
    signals: list[Signal]
    page: str | None = None


def judge_drift(plants: Iterable[str], report: DriftReport) -> list[Signal]:
    """Return what the drift report says of each plant; one that it does not know is unknown."""
    signals = []
    for plant in plants:
        found = report.root.get(plant)
        judged = [column for column in found.columns.values() if column.threshold or column.drifted] if found else []
        if found is None or not judged:
            words, remedy = "whether its data still looks like what was trained on cannot be judged", "dvc repro drift"
            signals.append(Signal(plant=plant, measure="drift", status="unknown", words=words, remedy=remedy))
            continue
        drifted = sum(column.drifted for column in judged)
        words = (
            f"{drifted} of {len(judged)} columns no longer look like what was trained on"
            if found.drifted
            else (f"the newest data looks like what was trained on; {drifted} of {len(judged)} columns drifted")
        )
        status: Status = "watch" if found.drifted else "fine"
        signals.append(Signal(plant=plant, measure="drift", status=status, words=words, value=found.share))
    return signals


def summarise(
    signals: Sequence[Signal], before: Monitoring | None, retraining: str, plants: Iterable[str], as_of: datetime
) -> Monitoring:
    """Return how each plant stands, given what was looked at now and how it stood `before`."""
    known = {signal.key: signal for signal in before.signals} if before else {}
    dated = [_date(signal, known.get(signal.key), as_of) for signal in signals]
    own: dict[str, list[Signal]] = {plant: [] for plant in ("", *plants)}
    for signal in sorted(dated, key=lambda signal: ORDER.index(signal.status)):
        own[signal.plant].append(signal)
    former = {"": before.fleet, **before.plants} if before else {}
    standings = {plant: _stand(own[plant], known, former.get(plant), as_of) for plant in own}
    fleet = standings.pop("")
    return Monitoring(as_of=as_of, retraining=retraining, fleet=fleet, plants=standings, signals=dated)


def _date(signal: Signal, former: Signal | None, as_of: datetime) -> Signal:
    goes_on = former and former.status == signal.status
    return signal.model_copy(update={"since": former.since if former and goes_on else as_of})


def _stand(
    own: Sequence[Signal], known: Mapping[tuple[str, str, str], Signal], former: Standing | None, as_of: datetime
) -> Standing:
    status: Status = own[0].status if own else "unknown"
    changes = [
        f"{describe(signal)} ({before.status} before)"
        for signal in own
        if (before := known.get(signal.key)) and before.status != signal.status
    ]
    changes += [
        f"{describe(signal)} (new)" for signal in own if known and signal.key not in known and signal.status != "fine"
    ]
    why = [describe(signal) for signal in own if signal.status != "fine"]
    if former and former.status == status:
        return former.model_copy(update={"why": why, "changes": changes, "runs": former.runs + 1})
    told = former.told if former else "fine"
    return Standing(status=status, why=why, changes=changes, since=as_of, told=told)


def describe(signal: Signal) -> str:
    """Return what was found in words, and where."""
    return f"{signal.place or signal.measure}: {signal.words}"


def list_news(monitoring: Monitoring, told_after: int) -> dict[str, Standing]:
    """Return, by plant, what a webhook should hear: each status that has held for so many runs and was not told yet."""
    standings = {"": monitoring.fleet, **monitoring.plants}
    return {
        plant: standing
        for plant, standing in standings.items()
        if standing.runs >= told_after and standing.status != standing.told
    }


def mark_told(monitoring: Monitoring, plants: Iterable[str]) -> Monitoring:
    """Return it with the status of these plants, "" for the fleet, as told."""
    standings = {"": monitoring.fleet, **monitoring.plants}
    told = {name: standings[name].model_copy(update={"told": standings[name].status}) for name in plants}
    standings |= told
    return monitoring.model_copy(update={"fleet": standings.pop(""), "plants": standings})
