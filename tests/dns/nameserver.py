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
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IReactorTCP, IReactorUDP, ITCPTransport, IUDPTransport
from twisted.internet.protocol import DatagramProtocol, Factory, Protocol

# Ports, each of which may be in use over one of TCP and UDP.
_TRIES = 20

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
    @ivar open: the connections there are.
    """

    def __init__(self, reactor: IReactorTCP, interface: str = "127.0.0.1") -> None:
        self.udp: Answer = lambda query: []
        self.tcp: Answer = lambda query: []
        self.asked: list[tuple[str, dns.message.Message]] = []
        self.sources: list[tuple[str, int]] = []
        self.open: list[_Queries] = []
        self.address = interface
        self.datagrams, self._stream = self._listen(reactor)
        self.port: int = self._stream.getHost().port

    async def stop(self) -> None:
        """Free the port, and end all connections."""
        for port in (self._stream, self.datagrams):
            stopped = port.stopListening()
            if isinstance(stopped, Deferred):
                await stopped
        for connection in list(self.open):
            connection.transport.abortConnection()
            await connection.gone

    def _listen(self, reactor: IReactorTCP) -> tuple[IListeningPort, IListeningPort]:
        """A port that is free over UDP may be somebody's over TCP: another one then."""
        for _ in range(_TRIES):
            datagrams = IReactorUDP(reactor).listenUDP(0, _Datagrams(self), interface=self.address, maxPacketSize=65535)
            queries = Factory.forProtocol(lambda: _Queries(self))
            queries.noisy = False
            try:
                return datagrams, reactor.listenTCP(datagrams.getHost().port, queries, interface=self.address)
            except CannotListenError:
                # It is closed in the next turn of the reactor at the latest.
                datagrams.stopListening()
        raise AssertionError(f"none of {_TRIES} ports is free over TCP and UDP")


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
        self.gone: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        self._server.open.append(self)

    def connectionLost(self, reason: object = None) -> None:
        self._server.open.remove(self)
        self.gone.callback(None)

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
