"""A run as a trace for Perfetto: steps and waits of each rank, requests, and what ranks hold.

``export`` writes the file, ``steps``, ``counters`` and ``requests`` have its events, and ``events``
is the format.
"""

from dpbal.report.trace.export import export

__all__ = ["export"]
