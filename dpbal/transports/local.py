"""Reports that arrive the moment a step ends."""

from __future__ import annotations

from dataclasses import dataclass

from dpbal.transports.base import TRANSPORTS, Timing, Transport


@TRANSPORTS.register("local")
@dataclass
class Local(Transport):
    """Every rank publishes after every step, and dispatchers see it at once.

    The freshest reports there can be: those of one process. Any real transport is compared with it.
    """

    @property
    def timing(self) -> Timing:
        """Every step, without delay."""
        return Timing()
