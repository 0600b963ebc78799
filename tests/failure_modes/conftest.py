"""Processes for a test, and a look at what it leaves in shared memory."""

from __future__ import annotations

from tests.transports.conftest import _leaves_no_segment as _leaves_no_segment
from tests.transports.conftest import start as start
