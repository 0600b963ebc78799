"""A server's front end that says in the log what an operator wants to know of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vllm.logger import init_logger

from dpbal.backends.vllm.front_end.front_end import FrontEnd

if TYPE_CHECKING:
    from dpbal.backends.vllm.acknowledgement import Dispatched
    from dpbal.core import LoadTable, Placement

LOG = init_logger(f"vllm.{__name__}")  # vLLM shows what is below its own name


class RankWatch:
    """Notices which ranks are gone, and which have come back.

    Args:
        table: Where reports are.
    """

    def __init__(self, table: LoadTable) -> None:
        self._present = table.present
        self._seen = self._present.tobytes()

    def look(self, names: Sequence[int]) -> None:
        """Log what has changed since the last time.

        Args:
            names: What each rank is called.
        """
        seen = self._present.tobytes()
        if seen == self._seen:  # as nearly always, and a request is waiting
            return
        for rank, was, now in zip(names, self._seen, seen, strict=True):
            if was and not now:
                LOG.warning("dpbal: rank %d is gone or silent; it gets no requests", rank)
            elif now and not was:
                LOG.info("dpbal: rank %d is back", rank)
        self._seen = seen


class LoggedFrontEnd(FrontEnd):
    """Says when it starts and ends, and which ranks it cannot use; see ``FrontEnd``."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        table, (dispatcher, *_) = self.dispatchers[0].table, self.dispatchers
        self._ranks = RankWatch(table)
        self._is_open = True
        number = dispatcher.ledger.dispatcher
        LOG.info("dpbal: front end %d chooses among %d ranks", number, table.ranks)

    def dispatch(self, *args: Any, **kwargs: Any) -> tuple[Placement, Dispatched]:
        """Choose a rank for a request; see ``FrontEnd.dispatch``."""
        chosen = super().dispatch(*args, **kwargs)
        self._ranks.look(self.names)
        return chosen

    def observe(self) -> None:
        """Look at the newest reports; see ``FrontEnd.observe``."""
        super().observe()
        self._ranks.look(self.names)

    def close(self) -> None:
        """Look no more, and say what has been done."""
        if self._is_open:
            self._is_open = False
            dispatched = sum(dispatcher.ledger.sequence for dispatcher in self.dispatchers)
            open_requests = len(self._owners)
            LOG.info(
                "dpbal: front end %d ends: %d requests dispatched, %d ended, %d in flight",
                self.dispatchers[0].ledger.dispatcher,
                dispatched,
                dispatched - open_requests,
                open_requests,
            )
        super().close()
