"""A combination in words, as an operator reads it in a log."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dpbal.backends.vllm.settings import Settings


def describe(settings: Settings, ranks: int) -> str:
    """The combination and the group that it balances, in one line.

    Args:
        settings: What the server does.
        ranks: Among which the front ends of this host choose.
    """
    config = settings.config
    group = f"{ranks} {config.group.kind.name} ranks"
    if settings.is_native:
        return f"{group}, chosen by vLLM (balancer=vllm_native)"
    parts = [f"balancer {config.balancer['name']}"]
    if settings.indexer is not None:
        parts.append(f"indexer {config.indexer['name']}")
    parts += [
        f"signal {signal(settings)}",
        f"budget {config.budget['name']}",
        f"transport {config.transport['name']}",
        f"ledger {config.ledger.mode.name}",
    ]
    return f"{group}, {', '.join(parts)}"


def signal(settings: Settings) -> str:
    """The number that ranks are compared by; a sum as its terms."""
    node = settings.config.signal
    terms = node.get("terms")
    if not terms:
        return str(node["name"])
    return " + ".join(
        str(name) if weight == 1 else f"{weight:g} {name}" for name, weight in terms.items()
    )
