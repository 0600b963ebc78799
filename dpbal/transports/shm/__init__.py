"""Reports and budget vectors through shared memory, between the processes of one host."""

from dpbal.transports.shm.transport import Shm

__all__ = ["Shm"]
