"""Which ranks may be chosen, as far as a transport knows of their processes."""

from __future__ import annotations

import numpy as np

from dpbal.core import LoadTable


class Presence:
    """Takes ranks that are gone out of a table's choice, and brings them back.

    It says only what has changed, so a rank that somebody else took out stays out.

    Args:
        table: Of the dispatcher.
    """

    def __init__(self, table: LoadTable) -> None:
        self._table = table
        self._gone = np.zeros(table.ranks, np.bool_)

    def update(self, gone: np.ndarray) -> None:
        """Say which ranks are gone now, ``bool[ranks]``: closed, dead, or out of reach."""
        for rank in (gone != self._gone).nonzero()[0].tolist():
            self._table.set_available(rank, not gone[rank])
        self._gone[:] = gone
