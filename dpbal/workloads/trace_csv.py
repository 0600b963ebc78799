"""A CSV file of one's own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

from dpbal.workloads.base import WORKLOADS, Requests
from dpbal.workloads.rows import Seconds, Tokens, read_csv
from dpbal.workloads.trace import Trace, in_order


class PlainRow(msgspec.Struct, forbid_unknown_fields=True):
    """One request: seconds from any start, tokens, and whatever names its conversation."""

    arrival_s: Seconds
    prompt_tokens: Tokens
    output_tokens: Tokens
    session: int | str | None = None


@WORKLOADS.register("trace_csv")
@dataclass
class TraceCsv(Trace):
    """Replay of a CSV file of one's own, named by ``path``.

    Its first line names the columns: arrival_s, prompt_tokens, output_tokens, and if wanted
    session, any text that requests of one conversation share.
    """

    def read(self, path: Path, seed: int) -> Requests:
        """All requests of the file, in order of time."""
        rows = read_csv(path, PlainRow)
        return in_order(
            [row.arrival_s for row in rows],
            [row.prompt_tokens for row in rows],
            [row.output_tokens for row in rows],
            sessions=[row.session for row in rows],
        )
