"""Reports and budget vectors in the process of a ``multiprocessing.Manager``."""

from dpbal.transports.manager.transport import Manager

__all__ = ["Manager"]
