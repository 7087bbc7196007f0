"""The gate: whether a challenger may take the champion's place. What it cannot be sure of, it does not let pass."""

from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

from upkeep.core import paths
from upkeep.gitlab.markdown import code, sentence
from upkeep.gitlab.snapshot import Snapshot
from upkeep.judging.acceptance import Check
from upkeep.releases.succession import Succession
from upkeep.reporting.markdown import Markdown


class Verdict(NamedTuple):
    """Whether the challenger may ship, the reasons if it may not, and what to know if it may, in GitLab's Markdown."""

    ships: bool
    reasons: list[str]
    remarks: Sequence[str] = ()


def judge(
    champion: Snapshot | None,
    challenger: Snapshot,
    succession: Succession,
    checks: Sequence[Check],
    floors: Collection[str],
    faults: Sequence[str] = (),
) -> Verdict:
    """Judge a challenger by its floors and acceptance cases, of which there must be some, and beside the champion.

    `champion` is None if the target branch has no history, so that the checks decide alone; else the `succession` was
    told of the `floors` that are missed. `faults` are why the challenger's reports cannot be relied on, such as stages
    that did not run.
    """
    sides = {"this branch": challenger} | ({"the target branch": champion} if champion else {})
    missing = [
        sentence("{}'s {} is missing: {}", side, code(file), why)
        for side, snapshot in sides.items()
        for file, why in snapshot.missing.items()
    ]
    compared = champion is not None and not missing
    failed = [
        sentence("the check {} does not hold: found {}, expected {}", code(check.name), check.found, check.expected)
        for check in checks
        if not check.passed and not (compared and check.name in floors)
    ]
    reasons = [*faults, *missing, *failed]
    if not checks and not faults:
        reasons.append(Markdown("nothing was checked: set `evaluate.floors` or `evaluate.golden` in params.yaml"))
    if champion is None or not compared:
        return Verdict(not reasons, reasons)
    reasons += [*_vanished(champion, challenger), *succession.reasons]
    return Verdict(succession.decision == "promote" and not reasons, reasons, succession.remarks)


def _vanished(champion: Snapshot, challenger: Snapshot) -> Iterator[Markdown]:
    """Name the plants that were lost: a plant goes when its data goes, and that with a change of `fetch`."""
    before, after = champion.params.fetch, challenger.params.fetch
    for plant in sorted(champion.plants - challenger.plants):
        if plant in challenger.raw_plants:
            yield sentence("{} has raw data, but no model that was judged", plant)
        elif (before.source, before.options) == (after.source, after.options):
            yield sentence(
                "{} has vanished from {}, though `fetch.source` and `fetch.options` are the same; if that is meant, "
                "say so there",
                plant,
                code(paths.RAW),
            )
