"""Which numbers a config may hold: those that can be computed with and written to JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from dpbal.errors import ConfigError

LARGEST_INTEGER = 2**63 - 1
"""What fits a column of integers."""


def require_finite(value: Any, where: str) -> None:
    """Refuse infinity, what is not a number, and integers that fit no column, however deep.

    Args:
        value: Plain values of a config.
        where: The key that holds them, for the message.

    Raises:
        ConfigError: For the first such number, with its key.
    """
    if isinstance(value, Mapping):
        for key, item in value.items():
            require_finite(item, f"{where}.{key}" if where else str(key))
    elif isinstance(value, list | tuple):
        for place, item in enumerate(value):
            require_finite(item, f"{where}[{place}]")
    elif isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{where} must be a finite number, got {value}")
    elif isinstance(value, int) and abs(value) > LARGEST_INTEGER:
        raise ConfigError(f"{where} must be at most 2**63 - 1 in size, got {value}")
