"""Addresses of hosts, and ports of this one that are free and stay so until a rank takes them."""

from __future__ import annotations

import errno
import secrets
import socket
from collections.abc import Sequence
from contextlib import ExitStack

from dpbal.errors import ConfigError
from dpbal.transports.sockets import SocketError

FREE_PORTS = range(15_000, 32_000)
"""Where to look: below the ports that the kernel gives to whoever connects."""

LAST_PORT = 65_535

_TRIES = 100


def number_of(host: str) -> str:
    """The numeric address of a host.

    Raises:
        SocketError: If nobody knows its name.
    """
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise SocketError(
            f"no host {host!r} is known here ({error.strerror}); give its address, as in "
            "transport.hosts=[10.0.0.1,10.0.0.2]"
        ) from None
    found.sort(key=lambda one: one[0] != socket.AF_INET)  # the older kind first
    return str(found[0][4][0])


def is_taken(host: str, port: int) -> bool:
    """Whether anybody of this host holds or has a port of it."""
    number = number_of(host)
    with socket.socket(_family(number), socket.SOCK_STREAM) as one:
        try:
            one.bind((number, port))
        except OSError:
            return True
    return False


def hold_ports(hosts: Sequence[str], ports: int) -> tuple[int, ExitStack]:
    """Keep free ports in a row on each host, from which only who asks for them by number listens.

    Args:
        hosts: Addresses of this host.
        ports: How many.

    Returns:
        The first, and what lets go of them.

    Raises:
        ConfigError: If one of the hosts is another.
        SocketError: If there are not so many, or a name is not known.
    """
    numbers = [number_of(host) for host in hosts]
    for _ in range(_TRIES):
        with ExitStack() as held:
            first = secrets.choice(FREE_PORTS[:-ports])
            try:
                for number in numbers:
                    for port in range(first, first + ports):
                        _hold(held, number, port)
            except OSError as error:
                if error.errno == errno.EADDRNOTAVAIL:
                    raise ConfigError(
                        f"transport.port=0 takes ports that are free here, and {number} is no "
                        "address of this host; type transport.port=29600"
                    ) from None
                continue
            return first, held.pop_all()
    raise SocketError(f"found no {ports} free ports in a row; type transport.port=29600")


def _hold(held: ExitStack, number: str, port: int) -> None:
    one = held.enter_context(socket.socket(_family(number), socket.SOCK_STREAM))
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # whose own has this too may join
    one.bind((number, port))


def _family(number: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in number else socket.AF_INET
