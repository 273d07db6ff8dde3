"""
Where mail is taken: the listening ports, bound while the process may still have what it takes, and opened when there is
somebody to serve whoever comes.

A port below 1024 can only be bound with rights that the service gives away before it touches the queue. It knows
nothing of what is said behind the doors.
"""

from __future__ import annotations

import os
from contextlib import suppress

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress, IListeningPort, IProtocol, IProtocolFactory
from zope.interface import implementer

from smtpreuse.roles.configuration import endpoint


@implementer(IProtocolFactory)
class _Gate:
    """Stands where the factory is to stand; whoever comes before it is turned away."""

    behind: IProtocolFactory | None = None

    def doStart(self) -> None:  # noqa: N802  # Twisted's name
        """A port was bound; what is behind starts of itself."""

    def doStop(self) -> None:  # noqa: N802  # Twisted's name
        """A port was closed; what is behind ends of itself."""

    def buildProtocol(self, addr: IAddress) -> IProtocol | None:
        """Somebody came."""
        return None if self.behind is None else self.behind.buildProtocol(addr)


class Doors:
    """The listening ports of one service."""

    def __init__(self) -> None:
        self._gate = _Gate()
        self._ports: list[IListeningPort] = []

    async def bind(self, text: str) -> None:
        """
        Bind one more port. Who connects waits in its backlog until the reactor runs.

        @param text: an endpoint, as in C{listen}.
        @raise BadValue: when it is none.
        @raise CannotListenError: when it cannot be had.
        """
        self._ports.append(await endpoint(text).listen(self._gate))

    def open(self, factory: IProtocolFactory) -> None:
        """From now on this factory serves whoever comes."""
        self._gate.behind = factory

    def addresses(self) -> list[IAddress]:
        """Where the ports are, in the order of their binding."""
        return [port.getHost() for port in self._ports]

    async def close(self) -> None:
        """Take nobody any more."""
        for port in self._ports:
            await stopped(port)

    def forget(self) -> None:
        """Remove what binding has left in the file system, where the process is about to end without more ado."""
        for address in self.addresses():
            if isinstance(address, UNIXAddress) and address.name and not address.name.startswith(b"\0"):
                with suppress(OSError):
                    os.unlink(address.name)


async def stopped(port: IListeningPort) -> None:
    """Close a port, and wait until it is."""
    stopping = port.stopListening()
    if stopping is not None:
        await stopping


def place(address: IAddress) -> str:
    """An address as people write it."""
    if isinstance(address, IPv6Address):
        return f"[{address.host}]:{address.port}"
    if isinstance(address, IPv4Address):
        return f"{address.host}:{address.port}"
    return os.fsdecode(address.name or b"") if isinstance(address, UNIXAddress) else str(address)
