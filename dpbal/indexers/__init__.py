"""Which prefixes ranks hold; importing this package registers them all."""

from __future__ import annotations

from dpbal.indexers.base import CACHE_EVENT, INDEXERS, Indexer
from dpbal.indexers.kv_events import KvEvents
from dpbal.indexers.none import Nothing
from dpbal.indexers.oracle import Oracle
from dpbal.indexers.own_record import OwnRecord
from dpbal.indexers.shared_record import SharedRecord

__all__ = [
    "CACHE_EVENT",
    "INDEXERS",
    "Indexer",
    "KvEvents",
    "Nothing",
    "Oracle",
    "OwnRecord",
    "SharedRecord",
]
