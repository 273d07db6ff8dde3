"""
A plaintext end in the place of the transport that a client's connection began with.

It passes octets, and knows neither TLS nor SMTP: the protocol above goes on as if nothing had changed.
"""

# ruff: noqa: N802  (names that Twisted has chosen)

from __future__ import annotations

from collections.abc import Callable, Iterable

from twisted.internet.interfaces import IAddress, IConsumer, IProducer, IPushProducer, ITransport
from zope.interface import implementer

from smtpreuse.interfaces import IStreamEnd, IStreamReceiver


@implementer(ITransport, IConsumer, IPushProducer, IStreamReceiver)
class SecuredTransport:
    """
    Writes to a stream end, and tells what comes from there.
    """

    def __init__(
        self,
        end: IStreamEnd,
        addresses: tuple[IAddress, IAddress],
        taken: Callable[[bytes], None],
        gone: Callable[[], None],
    ) -> None:
        """
        @param addresses: of the connection, our own first.
        @param taken: called with what comes, after L{listen}.
        @param gone: called when the connection has ended, once.
        """
        self._end = end
        self._host, self._peer = addresses
        self._taken = taken
        self._gone = gone
        self._producer: IPushProducer | None = None
        self._full = False

    def listen(self) -> None:
        """Pass on what comes, beginning with what has come already."""
        self._end.attach(self)

    # ITransport

    def write(self, data: bytes) -> None:
        self._end.write(data)
        if self._end.full and not self._full:
            self._full = True
            if self._producer is not None:
                self._producer.pauseProducing()

    def writeSequence(self, data: Iterable[bytes]) -> None:
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        self._end.close()

    def abortConnection(self) -> None:
        """As of a TCP transport."""
        self._end.abort()

    def getHost(self) -> IAddress:
        return self._host

    def getPeer(self) -> IAddress:
        return self._peer

    # IConsumer

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        self._producer = IPushProducer(producer)

    def unregisterProducer(self) -> None:
        self._producer = None

    # IPushProducer

    def pauseProducing(self) -> None:
        self._end.pause()

    def resumeProducing(self) -> None:
        self._end.resume()

    def stopProducing(self) -> None:
        self._end.close()

    # IStreamReceiver

    def received(self, data: bytes) -> None:
        self._taken(data)

    def ended(self, reason: str, ours: bool = False) -> None:
        self._producer = None
        self._gone()

    def drained(self) -> None:
        self._full = False
        if self._producer is not None:
            self._producer.resumeProducing()
