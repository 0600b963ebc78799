"""Reports and budget vectors in messages, between the processes of one host or of several."""

from dpbal.transports.zmq.transport import Zmq

__all__ = ["Zmq"]
