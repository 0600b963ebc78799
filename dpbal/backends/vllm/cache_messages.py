"""How ranks tell front ends what their prefix caches hold: where, in which messages and hashes."""

from __future__ import annotations

WHOLE, CHANGES = b"whole", b"changes"
"""A message holds all that is there, or what has changed since the one before."""

SEQUENCE_BYTES = 8
"""Of a message's number, the lowest byte first."""


def endpoint(address: str, rank: int) -> str:
    """Where a rank speaks.

    Args:
        address: Of the group's sockets.
        rank: Which.
    """
    return f"ipc://{address}/{rank}"


def topic(rank: int) -> bytes:
    """What a rank's messages begin with: its number, the lowest byte first."""
    return rank.to_bytes(2, "little")


def seed(lora: str, salt: str) -> int:
    """What the hashes of a prompt begin with.

    Args:
        lora: Name of its adapter, or nothing.
        salt: What its client separates its prefixes from others' with, or nothing.
    """
    from dpbal.indexers.token_hashes import seed_of  # which loads a compiler

    return seed_of(lora, salt) if lora or salt else 0
