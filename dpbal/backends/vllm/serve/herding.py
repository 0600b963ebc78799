"""API servers that do not know of each other, and send what they have to the same free rank."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dpbal.balancers.smallest import Ties

if TYPE_CHECKING:
    from dpbal.config import Config

HERD = ("minimum_tokens", "fewest_requests", "least_prefill")
"""Rules that take the smallest load: all servers read the same reports, and find the same rank."""

MANY = 8
"""From so many servers on drawing ties does not mend it, where no level keeps steps equal."""


def advice(config: Config, front_ends: int) -> str | None:
    """What to type instead, where several front ends would herd; None where they do not.

    What is known is of ``docs/studies/dispatchers.md``: those three rules have more time to first
    token than round robin has from four front ends on, and ``least_prefill`` less with four if
    nothing that all front ends read settles its ties.

    Args:
        config: The combination.
        front_ends: API servers of this host; 0 where there are none.
    """
    name = config.balancer["name"]
    if front_ends < 2 or name not in HERD:
        return None
    alone = "--api-server-count 1"
    if name != "least_prefill":
        return alone
    apart = []
    if (config.signal.get("terms") or {}).get("decode_work", 0.0) > 0:
        apart.append("signal.terms.decode_work=0")
    if config.balancer["ties"] != Ties.random.name:
        apart.append("balancer.ties=random")
    mends = front_ends < MANY or config.budget["name"] == "level"
    if mends and not apart:
        return None
    return f"{' '.join(apart)}, or {alone}" if mends else alone
