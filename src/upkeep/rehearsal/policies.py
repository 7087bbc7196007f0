"""The policies that a rehearsal compares: simple ways, the loop, and an oracle."""

from typing import NamedTuple


class Policy(NamedTuple):
    """What it follows of :data:`upkeep.releases.policies.POLICIES`, and what else tells policies apart.

    One trains `again_at_half` time, whatever it follows. What a gated policy trains ships only if the gate agrees. One
    that knows labels learns from plants like its own in which nobody answers alarms, so that each failure happens and
    none is prevented; its drift is found and its gate judges there as well.
    """

    follows: str
    again_at_half: bool = False
    is_gated: bool = False
    knows_labels: bool = False


POLICIES = {
    "never_6": Policy("never"),
    "never_12": Policy("never", again_at_half=True),
    "every_batch": Policy("every_batch"),
    "monthly": Policy("monthly"),
    "loop": Policy("evidence", is_gated=True),
    "oracle": Policy("evidence", is_gated=True, knows_labels=True),
}
"""All train for the first time after a quarter of the weeks: in 24 months, ``never_6`` never after these six months,
and ``never_12`` once more after twelve."""
