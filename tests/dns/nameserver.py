"""
A name server on loopback that says what a test wants, over UDP and TCP at one port.
"""

from __future__ import annotations

from collections.abc import Callable

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IListeningPort, IReactorTCP, IReactorUDP, ITCPTransport, IUDPTransport
from twisted.internet.protocol import DatagramProtocol, Factory, Protocol

Answer = Callable[[dns.message.Message], list[bytes]]

__all__ = ["Answer", "NameServer", "answered", "truncated"]


def answered(
    query: dns.message.Message, *records: str, rcode: dns.rcode.Rcode = dns.rcode.NOERROR
) -> dns.message.Message:
    """An answer to a query: records as C{name ttl IN type data}, behind C{!} for the authority section."""
    answer = dns.message.make_response(query)
    answer.set_rcode(rcode)
    for record in records:
        section = answer.authority if record.startswith("!") else answer.answer
        name, ttl, rdclass, rdtype, data = record.removeprefix("!").split(maxsplit=4)
        rrset = dns.rrset.from_text(name, int(ttl), rdclass, rdtype, data)
        for known in section:
            if known.match(rrset.name, rrset.rdclass, rrset.rdtype, rrset.covers):
                known.update(rrset)
                break
        else:
            section.append(rrset)
    # As it is when it arrives.
    return dns.message.from_wire(answer.to_wire(max_size=65535))


def truncated(query: dns.message.Message) -> bytes:
    """An answer over UDP that says: ask over TCP."""
    answer = dns.message.make_response(query)
    answer.flags |= dns.flags.TC
    return answer.to_wire()


class NameServer:
    """
    @ivar udp: what each query over UDP is answered with: any number of datagrams.
    @ivar tcp: what each query over TCP is answered with: octets as they are, each list element a write; an empty one
        closes the connection.
    @ivar asked: every query, and how it came.
    @ivar sources: address and port of each query over UDP.
    """

    def __init__(self, reactor: IReactorTCP, interface: str = "127.0.0.1") -> None:
        self.udp: Answer = lambda query: []
        self.tcp: Answer = lambda query: []
        self.asked: list[tuple[str, dns.message.Message]] = []
        self.sources: list[tuple[str, int]] = []
        self._stream = reactor.listenTCP(0, Factory.forProtocol(lambda: _Queries(self)), interface=interface)
        self.address = interface
        self.port: int = self._stream.getHost().port
        self.datagrams: IListeningPort = IReactorUDP(reactor).listenUDP(
            self.port, _Datagrams(self), interface=interface, maxPacketSize=65535
        )

    async def stop(self) -> None:
        """Free the port."""
        for port in (self._stream, self.datagrams):
            stopped = port.stopListening()
            if isinstance(stopped, Deferred):
                await stopped


class _Datagrams(DatagramProtocol):
    transport: IUDPTransport

    def __init__(self, server: NameServer) -> None:
        self._server = server

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        query = dns.message.from_wire(datagram)
        self._server.asked.append(("udp", query))
        self._server.sources.append(addr)
        for answer in self._server.udp(query):
            self.transport.write(answer, addr)


class _Queries(Protocol):
    transport: ITCPTransport

    def __init__(self, server: NameServer) -> None:
        self._server = server
        self._buffer = b""

    def dataReceived(self, data: bytes) -> None:
        self._buffer += data
        if len(self._buffer) < 2 or len(self._buffer) < 2 + int.from_bytes(self._buffer[:2], "big"):
            return
        query = dns.message.from_wire(self._buffer[2:])
        self._server.asked.append(("tcp", query))
        for piece in self._server.tcp(query):
            if piece:
                self.transport.write(piece)
            else:
                self.transport.loseConnection()
