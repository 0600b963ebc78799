"""Errors a user can make, as one line: what was given, what is allowed, what to type."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class DpbalError(Exception):
    """A mistake the user can mend; the message is the whole story, no traceback is shown."""


class ConfigError(DpbalError, ValueError):
    """A wrong name, type, unit or combination in a configuration."""


class WorkloadError(DpbalError, ValueError):
    """A trace that is missing, empty or malformed, or a workload that cannot be made."""


class MissingExtraError(DpbalError, ImportError):
    """A component needs a package of an extra that is not installed."""


class JobFailed(DpbalError):
    """Jobs of a sweep failed and have said why; the others ran."""


def unknown(kind: str, given: str, known: Iterable[str]) -> str:
    """Say that a name is not known, which one is nearest, and which there are.

    >>> unknown("balancer", "randm", ["random", "vllm"])
    "unknown balancer 'randm'; did you mean 'random'? Known: random, vllm"
    """
    names = sorted(known)
    if not names:
        return f"unknown {kind} {given!r}; there is none to give"
    nearest = difflib.get_close_matches(given, names, n=1, cutoff=0.5)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else "."
    return f"unknown {kind} {given!r}{hint} Known: {', '.join(names)}"
