"""Where the ranks of a group send their messages from: one address that says all of it."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

from dpbal.core import LoadTable
from dpbal.transports.sockets import SocketError
from dpbal.transports.zmq.ports import is_taken, number_of

REPORTS, VECTORS = "reports", "vectors"
"""What a rank sends, each from a socket of its own."""

_MOST_PATH_BYTES = 107
_ADDRESS = re.compile(
    r"(?:ipc://(/.*)|tcp://(.+):(\d+))\?ranks=([1-9]\d*)&dispatchers=([1-9]\d*)(&held)?"
)


class Group(NamedTuple):
    """The ranks of a group, and where each of them listens.

    Attributes:
        ranks: Number of ranks.
        dispatchers: Number of dispatchers in front of them.
        folder: Where its sockets are, of this host.
        hosts: Addresses or names of hosts instead, each of the same number of ranks.
        port: The first of the ranks' ports: one for each rank's reports, then one for its vectors.
        is_held: Whether the next port after these is held as long as the group's exchange exists.
    """

    ranks: int
    dispatchers: int
    folder: str = ""
    hosts: tuple[str, ...] = ()
    port: int = 0
    is_held: bool = False

    @property
    def address(self) -> str:
        """All of it, as processes hand it on."""
        size = f"?ranks={self.ranks}&dispatchers={self.dispatchers}"
        if self.hosts:
            held = "&held" if self.is_held else ""
            return f"tcp://{','.join(self.hosts)}:{self.port}{size}{held}"
        return f"ipc://{self.folder}{size}"

    @classmethod
    def at(cls, address: str) -> Group:
        """The group of an address.

        Raises:
            SocketError: If it is not one, or the group's exchange is not there.
        """
        found = _ADDRESS.fullmatch(address)
        if found is None:
            raise SocketError(
                f"{address!r} is not where a group exchanges messages; expected one like "
                "ipc:///tmp/dpbal-loads-0a1b2c3d?ranks=2&dispatchers=1, as zmq's exchange has it"
            )
        folder, hosts, port, ranks, dispatchers, held = found.groups()
        size = int(ranks), int(dispatchers)
        if hosts is None:
            group = cls(*size, folder)
            is_there = os.access(folder, os.X_OK | os.W_OK)
        else:
            group = cls(*size, "", tuple(hosts.split(",")), int(port), held is not None)
            is_there = not group.is_held or is_taken(group.hosts[0], group.port + 2 * group.ranks)
        if not is_there:
            raise group.missing()
        return group

    def missing(self) -> SocketError:
        """What to raise where nobody holds its folder, or its ports."""
        what = f"cannot enter folder {self.folder}"
        if self.hosts:
            what = f"nobody holds ports for {self.address}"
        return SocketError(
            f"{what}; it exists as long as the process that made it, which must have the same user "
            "and see the same files and ports (containers: share the folder, or the network)"
        )

    def check(self, rank: int) -> None:
        """Check a rank's number.

        Raises:
            SocketError: If there is no such rank.
        """
        if not 0 <= rank < self.ranks:
            raise SocketError(
                f"there is no rank {rank} at {self.address}, which has 0 to {self.ranks - 1}"
            )

    def check_table(self, table: LoadTable) -> None:
        """Check that a table has room for what the ranks say.

        Raises:
            SocketError: If it is of another size.
        """
        ranks, dispatchers = table.received_sequence.shape
        if (ranks, dispatchers) != (self.ranks, self.dispatchers):
            raise SocketError(
                f"a table of {ranks} ranks and {dispatchers} dispatchers does not fit "
                f"{self.address}, which has {self.ranks} and {self.dispatchers}"
            )

    def check_paths(self) -> None:
        """Check that the names of its sockets are as short as sockets of a host need.

        Raises:
            SocketError: If they are not.
        """
        longest = len(os.fsencode(self.path(VECTORS, self.ranks - 1)))
        if longest > _MOST_PATH_BYTES:
            raise SocketError(
                f"the names of sockets in {self.folder} have {longest} bytes and may have "
                f"{_MOST_PATH_BYTES}; give a folder with a shorter name, as with TMPDIR=/tmp"
            )

    def path(self, kind: str, rank: int) -> Path:
        """The socket of a rank in the folder."""
        return Path(self.folder, f"{kind}-{rank}")

    def host(self, rank: int) -> str:
        """Whose rank it is."""
        return self.hosts[rank * len(self.hosts) // self.ranks]

    def port_of(self, kind: str, rank: int) -> int:
        """On which port of its host a rank listens."""
        return self.port + rank + (self.ranks if kind == VECTORS else 0)

    def endpoint(self, kind: str, rank: int) -> str:
        """What others connect to."""
        if not self.hosts:
            return f"ipc://{self.path(kind, rank)}"
        return _tcp(self.host(rank), self.port_of(kind, rank))

    def own_endpoint(self, kind: str, rank: int) -> str:
        """What the rank itself listens on, which has no names of hosts in it.

        Raises:
            SocketError: If its host has a name that nobody knows.
        """
        if not self.hosts:
            return self.endpoint(kind, rank)
        return _tcp(number_of(self.host(rank)), self.port_of(kind, rank))


def _tcp(host: str, port: int) -> str:
    return f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"
