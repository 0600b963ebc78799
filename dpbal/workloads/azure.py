"""The LLM inference traces that Azure published in 2023: chat and code completion."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar

import msgspec

from dpbal.workloads.base import WORKLOADS, Requests
from dpbal.workloads.rows import Tokens, read_csv
from dpbal.workloads.trace import Trace, in_order


class AzureRow(msgspec.Struct):
    """One line of the CSV."""

    timestamp: datetime = msgspec.field(name="TIMESTAMP")
    context_tokens: Tokens = msgspec.field(name="ContextTokens")
    generated_tokens: Tokens = msgspec.field(name="GeneratedTokens")


@WORKLOADS.register("azure_conv")
@dataclass
class AzureConv(Trace):
    """Replay of an hour of chat; also reads other files of Azure's format.

    Patel et al., Splitwise, ISCA 2024; 19,366 requests, 5.53 a second, gap CV 1.09, prompts of
    1155 and outputs of 211 tokens on average. Nothing is known of shared prefixes.
    """

    published_file: ClassVar[str] = "AzureLLMInferenceTrace_conv.csv"
    published_in: ClassVar[str] = "Azure/AzurePublicDataset, CC-BY 4.0"

    def read(self, path: Path, seed: int) -> Requests:
        """All requests of the file, in order of time."""
        rows = read_csv(path, AzureRow)
        return in_order(
            [_epoch_s(row.timestamp) for row in rows],
            [row.context_tokens for row in rows],
            [row.generated_tokens for row in rows],
        )


@WORKLOADS.register("azure_code")
@dataclass
class AzureCode(AzureConv):
    """Replay of an hour of code completion, in the same format.

    8,819 requests, 2.57 a second in bursts (gap CV 13.2), prompts of 2048 and outputs of 28
    tokens on average.
    """

    published_file: ClassVar[str] = "AzureLLMInferenceTrace_code.csv"


def _epoch_s(time: datetime) -> float:
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
