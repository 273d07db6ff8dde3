"""
The late bridge: between a plaintext end and a descriptor that travels to another process.

It passes octets both ways and knows nothing of them. When one side does not take what the other brings, the other is
not read any more, so that nothing grows here. Either side's end is the end of both, after what it said last was passed
on.
"""

# ruff: noqa: N802  (names that Twisted has chosen)

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Protocol as Structure

from twisted.internet.interfaces import IAddress, IDelayedCall, IPushProducer
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure
from zope.interface import implementer

from smtpreuse.interfaces import IStreamReceiver
from smtpreuse.ipc.descriptor import Descriptor
from smtpreuse.tlsproxy.plaintext import PlaintextEnd, ProxyReactor

# How long either side may take nothing while something waits for it. The limits of who uses the plaintext end sooner
# (the longest of Postfix's, smtp_data_done_timeout, is 600 s): the inner limit must be the longer one (Postfix,
# 20180617).
_STALL_LIMIT = 610.0


class _AgentTransport(Structure):
    """What we need of the transport toward the other process."""

    def write(self, data: bytes) -> None: ...

    def loseConnection(self) -> None: ...

    def abortConnection(self) -> None: ...

    def pauseProducing(self) -> None: ...

    def resumeProducing(self) -> None: ...

    def registerProducer(self, producer: IPushProducer, streaming: bool) -> None: ...

    def unregisterProducer(self) -> None: ...


@implementer(IStreamReceiver, IPushProducer)
class Relay(Protocol):
    """
    The protocol on our end of the socketpair.
    """

    transport: _AgentTransport  # type: ignore[assignment]  # a UNIX transport; ITransport names only half of what it does

    def __init__(self, reactor: ProxyReactor, plaintext: PlaintextEnd, over: Callable[[str], object]) -> None:
        """
        @param over: told once why it ended.
        """
        self._plaintext = plaintext
        self._over = over
        self._network = _Limit(reactor, plaintext.abort)
        self._process = _Limit(reactor, self._unread)
        self._gone = False

    # Protocol: from the other process

    def connectionMade(self) -> None:
        self.transport.registerProducer(self, True)
        self._plaintext.attach(self)

    def dataReceived(self, data: bytes) -> None:
        self._plaintext.write(data)
        if self._plaintext.full:
            self.transport.pauseProducing()
            self._network.begin()

    def connectionLost(self, reason: Failure | None = None) -> None:
        if not self._gone:
            self._over("closed by us")
        self._gone = True
        self._network.end()
        self._process.end()
        self._plaintext.close()

    # IStreamReceiver: from the network

    def received(self, data: bytes) -> None:
        self.transport.write(data)

    def ended(self, reason: str, ours: bool = False) -> None:
        if self._gone:
            return
        self._gone = True
        # Before the other process can ask.
        self._over(reason)
        self._network.end()
        # Also for what it said last, which the other process may not have read yet.
        self._process.begin()
        self.transport.unregisterProducer()
        self.transport.resumeProducing()
        self.transport.loseConnection()

    def drained(self) -> None:
        self._network.end()
        self.transport.resumeProducing()

    # IPushProducer: the other process does not read, or reads again

    def pauseProducing(self) -> None:
        self._plaintext.pause()
        self._process.begin()

    def resumeProducing(self) -> None:
        self._process.end()
        self._plaintext.resume()

    def stopProducing(self) -> None:
        """The other process is gone; C{connectionLost} follows."""

    # inside

    def _unread(self) -> None:
        """The other process reads nothing: what waits for it is of no use, and neither is the session."""
        if not self._gone:
            self._over("plaintext was not read")
        self._gone = True
        self._network.end()
        self.transport.abortConnection()
        self._plaintext.abort()


class _Limit:
    """How long one side may take nothing."""

    def __init__(self, reactor: ProxyReactor, over: Callable[[], object]) -> None:
        self._reactor = reactor
        self._over = over
        self._call: IDelayedCall | None = None

    def begin(self) -> None:
        """It takes nothing from now on, or since it was said before."""
        if self._call is None:
            self._call = self._reactor.callLater(_STALL_LIMIT, self._over)

    def end(self) -> None:
        """It takes something again, or never will."""
        call, self._call = self._call, None
        if call is not None and call.active():
            call.cancel()


class _Bridging(Factory):
    """Gives one relay its transport."""

    noisy = False

    def __init__(self, relay: Relay) -> None:
        self._relay = relay

    def buildProtocol(self, addr: IAddress | None) -> Relay:
        return self._relay


def bridge(reactor: ProxyReactor, plaintext: PlaintextEnd, over: Callable[[str], object]) -> Descriptor:
    """
    Relay this plaintext end from now on.

    @param over: told once why the relay ended.
    @return: the other end, to be given to whoever carries on.
    @raise OSError: when there is no descriptor left.
    """
    ours, theirs = socket.socketpair()
    with ours, Descriptor.of(theirs) as given:
        ours.setblocking(False)
        os.set_blocking(given.fileno(), False)
        # The reactor makes a duplicate of its own.
        relay = Relay(reactor, plaintext, over)
        reactor.adoptStreamConnection(ours.fileno(), ours.family, _Bridging(relay))
        return Descriptor(given.take(), given.family)
