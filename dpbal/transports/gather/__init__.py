"""Reports by a collective of ``torch.distributed``."""

from dpbal.transports.gather.transport import Gather

__all__ = ["Gather"]
