"""Choices a group of ranks has that are not components: how it steps, how its ledger forgets."""

from __future__ import annotations

from enum import Enum


class GroupKind(Enum):
    """How the ranks of a group step.

    ``lockstep``: all ranks' steps end together, so a step lasts as long as its slowest rank.
    ``independent``: each rank steps alone.
    """

    lockstep = "lockstep"
    independent = "independent"


class LedgerMode(Enum):
    """How a newer report changes what is in flight.

    ``acknowledge``: a dispatch stays in flight until its rank reports having received it.
    ``overwrite``: any newer report of a rank erases what is in flight there, received or not,
    as vLLM and SGLang 0.5.23 do.
    """

    acknowledge = "acknowledge"
    overwrite = "overwrite"
