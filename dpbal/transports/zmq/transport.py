"""Reports in messages, between the processes of one host or of several."""

from __future__ import annotations

import re
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from dpbal.core import LoadTable
from dpbal.errors import ConfigError
from dpbal.sharedmem import when_gone
from dpbal.transports.base import TRANSPORTS, Exchange, ProcessTransport, Timing, check_group

if TYPE_CHECKING:
    from dpbal.transports.zmq.reports import ZmqPublisher, ZmqSubscriber
    from dpbal.transports.zmq.vectors import ZmqVectors

DELAY_S = 0.0002
"""Seconds from publishing to arrival within a host."""

_HOST = re.compile(r"[0-9A-Za-z][0-9A-Za-z.-]*|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*")


@TRANSPORTS.register("zmq")
@dataclass
class Zmq(ProcessTransport):
    """Every rank sends its report after every step, and dispatchers look at the newest of each.

    Nobody waits for anybody: who reads slowly finds the newest and nothing before it. A rank says
    its last report again every 0.1 s, so one who comes late has it soon, and a rank that is silent
    for 2 s is not chosen until it is heard again.

    Within a host messages go through sockets in a folder of the user's own. Over several hosts
    they go over TCP, to ranks that listen on the addresses given and on no other. Nothing is
    encrypted there and nobody is asked who they are, so the network must be private.

    Args:
        hosts: Addresses or names of the hosts, each of which has the same number of ranks, in the
            order of the ranks; none for the sockets of one host.
        port: First port of the ranks on these: the report of rank 0, of rank 1 and so on, then
            likewise their budget vectors; below 32768, where no connection takes it by chance.
            0 for ports that are free, where the hosts are addresses of one.

    Raises:
        ConfigError: For a host or a port that cannot be.
    """

    hosts: list[str] = field(default_factory=list)
    port: int = 0

    def __post_init__(self) -> None:
        for host in self.hosts:
            if not _HOST.fullmatch(host):
                raise ConfigError(
                    f"transport.hosts has {host!r}, which is no address or name of a host; type "
                    "transport.hosts=[10.0.0.1,10.0.0.2]"
                )
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"transport.port is 1 to 65535, or 0 for free ones, got {self.port}")
        if self.port and not self.hosts:
            raise ConfigError(
                f"transport.port={self.port} is of no use without hosts; type "
                "transport.hosts=[127.0.0.1] too"
            )

    @property
    def timing(self) -> Timing:
        """Every step, with the delay that messages have within a host."""
        return Timing(delay_s=DELAY_S)

    @property
    def reaches_hosts(self) -> bool:
        """Whether ranks and dispatchers may be on several hosts: with hosts and a port."""
        return self.port != 0

    def create(self, ranks: int, dispatchers: int) -> Exchange:
        """Make a folder for the sockets of a group, or find its ports.

        Raises:
            ConfigError: For a group that there is not, or that hosts cannot share equally.
            SocketError: If the host has no place for it.
        """
        from dpbal.transports.sockets import Sockets
        from dpbal.transports.zmq.group import Group
        from dpbal.transports.zmq.ports import LAST_PORT, hold_ports

        check_group(ranks, dispatchers)
        if not self.hosts:
            sockets = Sockets.create(Path(tempfile.gettempdir()), "loads")
            group = Group(ranks, dispatchers, sockets.address)
            held = ExitStack()
            held.callback(sockets.close)
            with held:
                group.check_paths()
                return ZmqExchange(group.address, held.pop_all())
        if ranks % len(self.hosts):
            raise ConfigError(
                f"{ranks} ranks do not share {len(self.hosts)} hosts equally; give transport.hosts "
                "one for each block of ranks, as many as divide them"
            )
        port, held = self.port, ExitStack()
        if port == 0:
            port, held = hold_ports(self.hosts, 2 * ranks + 1)  # the last says that it exists
        elif port + 2 * ranks - 1 > LAST_PORT:
            raise ConfigError(
                f"{ranks} ranks need ports {port} to {port + 2 * ranks - 1}, and {LAST_PORT} is "
                f"the last; type transport.port={LAST_PORT + 1 - 2 * ranks} or less"
            )
        group = Group(ranks, dispatchers, "", tuple(self.hosts), port, is_held=self.port == 0)
        return ZmqExchange(group.address, held)

    def publisher(self, address: str, rank: int) -> ZmqPublisher:
        """The end of a rank; one at a time, though a rank that was killed may start again.

        Raises:
            SocketError: If there is nothing at the address, no such rank, or another process
                publishes for it.
        """
        from dpbal.transports.zmq.reports import ZmqPublisher

        return ZmqPublisher(address, rank)

    def subscriber(self, address: str, table: LoadTable) -> ZmqSubscriber:
        """The end of a dispatcher, which keeps ``table`` up to date.

        Raises:
            SocketError: If there is nothing at the address, or the table has another size.
        """
        from dpbal.transports.zmq.reports import ZmqSubscriber

        return ZmqSubscriber(address, table)

    def vectors(self, address: str, rank: int) -> ZmqVectors:
        """The end of a rank for budget vectors; one at a time, as for reports.

        Raises:
            SocketError: If there is nothing at the address, no such rank, or it has one.
        """
        from dpbal.transports.zmq.vectors import ZmqVectors

        return ZmqVectors(address, rank)


class ZmqExchange(Exchange):
    """What a group's sockets need to be there; over TCP only ports that are kept free for it."""

    def __init__(self, address: str, held: ExitStack) -> None:
        self.address = address
        self._end = when_gone(self, held.close)

    def close(self) -> None:
        """Remove it; processes that have found each other may go on until they end."""
        self._end()
