"""
Who connected, and what may be seen of a client before it is greeted.

It knows addresses and sockets, and nothing of what is said.
"""

from __future__ import annotations

import socket

from attrs import frozen
from twisted.internet.address import UNIXAddress
from twisted.internet.interfaces import INegotiated, ISystemHandle, ITransport

from smtpreuse.config.tables import Networks


@frozen(kw_only=True)
class Peer:
    """
    Who connected. No name is looked up: C{unknown} stands for all that are not this host.

    @ivar address: C{unix} for a UNIX socket.
    """

    host: str
    address: str

    @classmethod
    def of(cls, address: object) -> Peer:
        """
        @param address: as the transport has it.
        """
        if isinstance(address, UNIXAddress):
            return cls(host="localhost", address="unix")
        number = str(getattr(address, "host", "unknown"))
        # A socket for both families shows IPv4 so (RFC 4291 section 2.5.5.2).
        number = number.removeprefix("::ffff:") if "." in number else number
        local = number == "::1" or number.startswith("127.")
        return cls(host="localhost" if local else "unknown", address=number)

    def among(self, networks: Networks) -> bool:
        """Whether it is in these networks; who reaches a UNIX socket was let in by its mode."""
        return self.address == "unix" or networks.contains(self.address)

    def __str__(self) -> str:
        return f"{self.host}[{self.address}]"


def early(transport: ITransport) -> bytes:
    """What the client has said before the greeting, as far as that can be seen; it stays to be read."""
    # Where TLS comes first the client begins.
    handle = None if INegotiated.providedBy(transport) else ISystemHandle(transport, None)
    opened = handle.getHandle() if handle is not None else None
    if not isinstance(opened, socket.socket):
        return b""
    try:
        return opened.recv(100, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except OSError:
        return b""
