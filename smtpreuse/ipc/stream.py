"""
Our end of a byte stream over a Twisted transport.

It does not know what the octets mean. It has one receiver at a time, so that a session can leave its stream and
another can take it up; octets that come while there is none are kept for it, and counted against C{detach}.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from typing import Protocol as Structure

from twisted.internet.interfaces import IAddress, IConsumer, IPushProducer, ITCPTransport, ITransport
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure
from zope.interface import implementer

from smtpreuse.errors import SessionLost
from smtpreuse.interfaces import IStreamEnd, IStreamReceiver
from smtpreuse.ipc.descriptor import Descriptor, taken_from
from smtpreuse.model.reuse import Via

# Octets that came before anybody wanted them; more stay in the socket.
_EARLY = 65536


@implementer(IStreamEnd, IPushProducer)
class StreamEnd(Protocol):
    """
    A protocol that passes all on to its receiver.

    @ivar full: whether the transport asked us to pause.
    @ivar via: L{None}, as this stream leads to no process of ours.
    """

    via: Via | None = None

    def __init__(self) -> None:
        self.full = False
        self._receiver: IStreamReceiver | None = None
        self._early = b""
        self._reason: str | None = None
        self._ours = False
        self._lost = False
        self._closing = False

    # Protocol

    def connectionMade(self) -> None:
        transport = self._transport()
        tcp = ITCPTransport(transport, None)
        if tcp is not None:
            # What is written is complete; waiting for an acknowledgement before the last segment goes costs 40 ms.
            tcp.setTcpNoDelay(True)
        consumer = IConsumer(transport, None)
        if consumer is not None:
            consumer.registerProducer(self, True)

    def dataReceived(self, data: bytes) -> None:
        if self._closing:
            return
        if self._receiver is not None:
            self._receiver.received(data)
            return
        self._early += data
        if len(self._early) > _EARLY:
            self._read(False)

    def connectionLost(self, reason: Failure | None = None) -> None:
        if not self.over:
            self.lose()
            self.finish(reason.getErrorMessage() if reason is not None else "closed")

    @property
    def over(self) -> bool:
        """Whether the stream is lost, or given away."""
        return self._lost or self._reason is not None

    def lose(self) -> None:
        """There is no stream any more; why is to be said with C{finish}."""
        self._lost = True

    def finish(self, reason: str, ours: bool = False) -> None:
        """It is over for this reason."""
        self._reason, self._ours = reason, ours
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.ended(reason, ours)

    # IPushProducer

    def pauseProducing(self) -> None:
        self.full = True

    def resumeProducing(self) -> None:
        self.full = False
        if self._receiver is not None:
            self._receiver.drained()

    def stopProducing(self) -> None:
        self.full = False

    # IStreamEnd

    def attach(self, receiver: IStreamReceiver) -> None:
        self._receiver = receiver
        early, self._early = self._early, b""
        if early:
            if len(early) > _EARLY:
                self._read(True)
            receiver.received(early)
        if self._reason is not None and self._receiver is receiver:
            self._receiver = None
            receiver.ended(self._reason, self._ours)

    def write(self, data: bytes) -> None:
        if not self.over and not self._closing:
            self._transport().write(data)

    def pause(self) -> None:
        if self._reason is None:
            self._read(False)

    def resume(self) -> None:
        if self._reason is None:
            self._read(True)

    def close(self) -> None:
        if not self.over and not self._closing:
            self._closing = True
            transport = self._transport()
            consumer = IConsumer(transport, None)
            if consumer is not None:
                consumer.unregisterProducer()
            transport.loseConnection()

    def abort(self) -> None:
        if not self.over:
            self._closing = True
            transport = self._transport()
            abort = getattr(transport, "abortConnection", transport.loseConnection)
            abort()

    def detach(self) -> Descriptor:
        if self.over or self._closing:
            raise SessionLost(self._reason or "connection closed")
        if self._early:
            raise SessionLost("octets arrived that nobody asked for")
        transport = self._transport()
        receiver, self._receiver = self._receiver, None
        try:
            descriptor = taken_from(transport)  # type: ignore[arg-type]  # a socket's; ITransport does not say so
        except SessionLost:
            self._receiver = receiver
            raise
        self._reason = "given away"
        return descriptor

    def _read(self, on: bool) -> None:
        producer = IPushProducer(self.transport, None)
        if producer is not None:
            if on:
                producer.resumeProducing()
            else:
                producer.pauseProducing()

    def _transport(self) -> ITransport:
        assert self.transport is not None, "a stream end is used after it was connected"
        return self.transport


class Adopter(Structure):
    """What we need of a reactor to take a descriptor up."""

    # IReactorSocket's own type asks for a factory that no factory is.
    @property
    def adoptStreamConnection(self) -> Callable[..., object]: ...  # noqa: N802  # Twisted's name


class _Adoption(Factory):
    """Gives one stream end its transport."""

    noisy = False

    def __init__(self, end: StreamEnd) -> None:
        self._end = end

    def buildProtocol(self, addr: IAddress | None) -> StreamEnd:
        return self._end


def adopt_plaintext(reactor: Adopter, descriptor: Descriptor, end: StreamEnd | None = None) -> StreamEnd:
    """
    Take a descriptor up as a stream end; what its giver gave is ours, whether this works or not.

    @param end: the object that is to be it.
    @raise SessionLost: when the stream has ended already.
    @raise OSError: when there is no descriptor left.
    """
    end = end or StreamEnd()
    with descriptor:
        os.set_blocking(descriptor.fileno(), False)
        try:
            family = socket.AddressFamily(descriptor.family)
            reactor.adoptStreamConnection(descriptor.fileno(), family, _Adoption(end))
        except ConnectionError as error:
            raise SessionLost(f"lost connection ({error.strerror})") from error
        except OSError as error:
            if error.errno == errno.ENOTCONN:
                raise SessionLost(f"lost connection ({error.strerror})") from error
            raise
    return end
