"""What every balancer is: a rule that picks a rank from what it can see."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from dpbal.core import Request, View
from dpbal.registry import Registry

if TYPE_CHECKING:
    from dpbal.signals.base import Signal


@dataclass
class Balancer(ABC):
    """A rule that picks the rank of one request.

    Subclasses are plain dataclasses: their fields are configuration, run state is set in
    ``__post_init__`` or ``start``. A balancer does no I/O, has no clock of its own and knows
    nothing of the backend; for one seed it is deterministic.
    """

    chooses: ClassVar[bool] = True
    """Whether ``choose`` is ever asked; where not, vLLM chooses, which needs its engines."""

    uses_signal: ClassVar[bool] = True
    """Whether ``choose`` reads ``view.loads``; where not, the signal has no effect."""

    uses_reports: ClassVar[bool] = True
    """Whether reports or what is in flight matter; where not, nor do transport and ledger."""

    uses_in_flight: ClassVar[bool] = True
    """Whether ``choose`` itself reads what is in flight, beside what the signal does."""

    @property
    def uses_prefixes(self) -> bool:
        """Whether it reads what ranks hold of a prompt; where not, the indexer has no effect."""
        return False

    @property
    def reads_hashes(self) -> bool:
        """Whether it goes by the hashes of a prompt, with an indexer or by itself."""
        return self.uses_prefixes

    def check(self, signal: Signal) -> None:  # noqa: B027 - most take any
        """Refuse a signal that the rule cannot work with.

        Raises:
            ConfigError: With one that it can.
        """

    def start(self, ranks: int, seed: int) -> None:  # noqa: B027 - nothing to do for most rules
        """Called once before the first choice, with the size of the group and a seed."""

    @abstractmethod
    def choose(self, request: Request, view: View) -> int:
        """Rank for ``request``, one of those selectable in ``view``."""

    def order(self, waiting: Sequence[Request]) -> Sequence[Request]:
        """In which order ranks are chosen for requests that are released together.

        ``choose`` sees those before in flight. They come in the order of their arrival, and so
        they stay unless a rule does better.
        """
        return waiting


BALANCERS: Registry[Balancer] = Registry("balancer")
