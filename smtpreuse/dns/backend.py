"""
Sockets for dnspython: a Twisted backend for its asynchronous half (C{dns.asyncbackend}).

Knows no DNS message. Each socket serves one question, from a port of its own (RFC 5452 section 9.2).
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Awaitable
from typing import NoReturn, TypeVar

import dns.exception
import dns.inet

# These are the classes of dns.asyncbackend, which hands them on without telling type checkers.
from dns._asyncbackend import Backend, DatagramSocket, StreamSocket
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.error import ConnectError
from twisted.internet.error import TimeoutError as ConnectTimeout
from twisted.internet.interfaces import IReactorFDSet, IReactorTCP, IReactorTime, IReadDescriptor, ITCPTransport
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from zope.interface import implementer

T = TypeVar("T")
Place = tuple[str, int]

# An answer over TCP is at most 65,535 octets behind a length of two (RFC 1035 section 4.2.2).
_LONGEST = 2 + 65_535
# Datagrams that wait to be looked at; more are a flood of forgeries, and resolvers send one.
_MOST_WAITING = 16


async def _limited(deferred: Deferred[T], seconds: float | None, clock: IReactorTime) -> T:
    if seconds is not None:
        deferred.addTimeout(seconds, clock, _timed_out)
    return await deferred


def _timed_out(result: object, seconds: float) -> NoReturn:
    raise dns.exception.Timeout


class Inbox:
    """What came and was not taken yet; one reader at a time."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._waiting: deque[bytes] = deque()
        self._reader: Deferred[None] | None = None
        self._end: Exception | None = None

    def put(self, data: bytes) -> None:
        if len(self._waiting) < _MOST_WAITING:
            self._waiting.append(data)
        self._wake()

    def end(self, reason: Exception) -> None:
        self._end = self._end or reason
        self._wake()

    def _wake(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.callback(None)

    async def take(self, timeout: float | None) -> bytes:
        if not self._waiting and self._end is None:
            self._reader = Deferred()
            try:
                await _limited(self._reader, timeout, self._clock)
            finally:
                self._reader = None
        if self._waiting:
            return self._waiting.popleft()
        assert self._end is not None
        raise self._end


@implementer(IReadDescriptor)
class DatagramEnd(DatagramSocket):
    """
    A connected UDP socket: the kernel passes only what comes from the server that was asked.

    It is watched as a bare descriptor: C{listenUDP} would log two lines per question, and bind before it connects.
    """

    def __init__(
        self, reactor: IReactorFDSet, clock: IReactorTime, family: int, source: Place | None, destination: Place
    ) -> None:
        """
        @param source: address and port to send from; without one the kernel chooses a free port at random.
        @raise OSError: when there is no such source, or no way to the destination.
        """
        super().__init__(family, socket.SOCK_DGRAM)
        self._reactor = reactor
        self._inbox = Inbox(clock)
        # With the port and scope that dnspython compares it with.
        self._from = dns.inet.low_level_address_tuple(destination, family)
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        try:
            self._socket.setblocking(False)
            if source is not None:
                self._socket.bind(source)
            self._socket.connect(destination)
        except OSError:
            self._socket.close()
            raise
        reactor.addReader(self)

    def fileno(self) -> int:
        """The descriptor to watch."""
        return self._socket.fileno()

    def logPrefix(self) -> str:  # noqa: N802 - Twisted calls it so
        """For Twisted's log."""
        return "dns"

    def doRead(self) -> None:  # noqa: N802 - Twisted calls it so
        """A datagram came, or word that none can come."""
        try:
            self._inbox.put(self._socket.recv(_LONGEST))
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._inbox.end(error)

    def connectionLost(self, reason: Failure) -> None:
        """The reactor saw an error on the socket, which is how epoll shows that the port is unreachable."""
        self._inbox.end(ConnectionRefusedError("port unreachable"))

    async def sendto(self, what: bytes, destination: object, timeout: float | None) -> int:
        """Send one datagram to the server; UDP never waits."""
        return self._socket.send(what)

    async def recvfrom(self, size: int, timeout: float | None) -> tuple[bytes, object]:
        """
        @raise dns.exception.Timeout: when nothing came in time.
        @raise OSError: when the port is unreachable.
        """
        return await self._inbox.take(timeout), self._from

    async def close(self) -> None:
        """Give the port back."""
        self._reactor.removeReader(self)
        self._socket.close()


class _Stream(Protocol):
    """Takes the octets of one answer."""

    transport: ITCPTransport

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox
        self._total = 0
        self.closed: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self._total += len(data)
        if self._total > _LONGEST:
            self._inbox.end(EOFError("more than one answer came"))
            self.transport.abortConnection()
            return
        self._inbox.put(data)

    def connectionLost(self, reason: Failure | None = None) -> None:
        self._inbox.end(EOFError("connection closed"))
        self.closed.callback(None)


class StreamEnd(StreamSocket):
    """A TCP connection to a server."""

    def __init__(self, family: int, inbox: Inbox, protocol: _Stream) -> None:
        super().__init__(family, socket.SOCK_STREAM)
        self._inbox = inbox
        self._protocol = protocol
        self._left = b""

    async def sendall(self, what: bytes, timeout: float | None) -> None:
        """Send; a query is so small that it never waits."""
        self._protocol.transport.write(what)

    async def recv(self, size: int, timeout: float | None) -> bytes:
        """
        At least one octet and at most so many; none at the end.

        @raise dns.exception.Timeout: when nothing came in time.
        """
        if not self._left:
            try:
                self._left = await self._inbox.take(timeout)
            except EOFError:
                return b""
        taken, self._left = self._left[:size], self._left[size:]
        return taken

    async def close(self) -> None:
        """Drop the connection; all that mattered was read."""
        if not self._protocol.closed.called:
            self._protocol.transport.abortConnection()
            await self._protocol.closed


class TwistedBackend(Backend):
    """
    What dnspython needs to run on a reactor of Twisted.
    """

    def __init__(self, reactor: IReactorTCP) -> None:
        """
        @param reactor: one that also does descriptors and time.
        """
        self._reactor = reactor
        self._clock = IReactorTime(reactor)

    def name(self) -> str:
        """As dnspython calls it."""
        return "twisted"

    def datagram_connection_required(self) -> bool:
        """Yes: datagrams of others never reach us."""
        return True

    async def make_socket(
        self,
        af: int,
        socktype: int,
        proto: int = 0,
        source: Place | None = None,
        destination: Place | None = None,
        timeout: float | None = None,
        ssl_context: None = None,
        server_hostname: None = None,
    ) -> DatagramEnd | StreamEnd:
        """
        @raise OSError: when it cannot be made.
        @raise dns.exception.Timeout: when the connection was not made in time.
        """
        if destination is None or ssl_context is not None:
            raise NotImplementedError("only plain sockets with a destination")
        if socktype == socket.SOCK_DGRAM:
            return DatagramEnd(IReactorFDSet(self._reactor), self._clock, af, source, destination)
        return await self._connected(af, source, destination, timeout)

    async def _connected(self, af: int, source: Place | None, destination: Place, timeout: float | None) -> StreamEnd:
        endpoint = TCP6ClientEndpoint if af == socket.AF_INET6 else TCP4ClientEndpoint
        inbox = Inbox(self._clock)
        host, port = destination
        factory = Factory.forProtocol(lambda: _Stream(inbox))
        factory.noisy = False
        connecting = endpoint(self._reactor, host, port, bindAddress=source).connect(factory)
        try:
            protocol = await _limited(connecting, timeout, self._clock)
        except ConnectTimeout:
            raise dns.exception.Timeout from None
        except ConnectError as error:
            raise OSError(f"cannot connect to {host}:{port} over TCP: {error}") from error
        assert isinstance(protocol, _Stream)
        return StreamEnd(af, inbox, protocol)

    async def sleep(self, interval: float) -> None:
        """Wait so many seconds."""
        await deferLater(self._clock, interval)

    async def wait_for(self, awaitable: Awaitable[T], timeout: float | None) -> T:
        """
        @raise dns.exception.Timeout: when it took longer.
        """

        async def waited() -> T:
            return await awaitable

        return await _limited(Deferred.fromCoroutine(waited()), timeout, self._clock)
