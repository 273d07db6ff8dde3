"""
The plaintext end of a TLS connection, where its user and OpenSSL share a process.

It is its own reader and writer in the reactor, and a write is tried at once: a round trip with 4 KiB costs 18
microseconds of CPU, against 27 with Twisted's TLS transport. Every write becomes a record and, where it fits, a segment
of its own, so whoever writes joins what belongs together.

It knows nothing of what the octets mean.
"""

# ruff: noqa: N802  (names that Twisted has chosen)

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

from OpenSSL import SSL
from twisted.internet.interfaces import (
    IDelayedCall,
    IReadDescriptor,
    IReadWriteDescriptor,
    IWriteDescriptor,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from smtpreuse.errors import SessionLost
from smtpreuse.interfaces import IStreamEnd, IStreamReceiver
from smtpreuse.ipc.descriptor import Descriptor
from smtpreuse.model.reuse import Via
from smtpreuse.tlsproxy.openssl import reason_of
from smtpreuse.tlsproxy.wire import Wire

# As much as Twisted's transports take before they ask a producer to pause.
_FULL = 65536
# Octets that came before anybody wanted them; more stay in the socket.
_EARLY = 65536
# How long what was written may take to leave after close(): Postfix's smtp_quit_timeout is 300 s, but it never waits.
_FLUSH_LIMIT = 10.0
# How long a peer may take to read our farewell and close too. If we closed at once its next write would be answered by
# a reset, which can destroy what it had not yet read.
_LINGER = 2.0


class ProxyReactor(Protocol):
    """What the proxy needs of a reactor."""

    def addReader(self, __reader: IReadDescriptor) -> object: ...

    def addWriter(self, __writer: IWriteDescriptor) -> object: ...

    def removeReader(self, __reader: IReadDescriptor) -> object: ...

    def removeWriter(self, __writer: IWriteDescriptor) -> object: ...

    def callLater(self, __delay: float, __callable: Callable[..., object], *args: object) -> IDelayedCall: ...

    # IReactorSocket's own type asks for a factory that no factory is.
    @property
    def adoptStreamConnection(self) -> Callable[..., object]: ...


# Makes a descriptor that leads to a plaintext, when somebody wants one; and says what names it.
Bridge = Callable[["PlaintextEnd"], tuple[Descriptor, Via]]


@implementer(IStreamEnd, IReadWriteDescriptor)
class PlaintextEnd:
    """
    A TLS connection after its handshake.

    @ivar full: whether our buffers are full.
    @ivar via: L{None} before C{detach}; from then on, what names its bridge in this process.
    """

    def __init__(self, reactor: ProxyReactor, wire: Wire, bridge: Bridge, early: bytes = b"") -> None:
        """
        @param early: octets that came before.
        """
        self.full = False
        self.via: Via | None = None
        self._reactor = reactor
        self._wire = wire
        self._bridge = bridge
        self._fileno = wire.fileno()
        self._receiver: IStreamReceiver | None = None
        self._early = early
        self._unsent: deque[memoryview] = deque()
        self._unsent_octets = 0
        self._reason: str | None = None
        self._closing = False
        self._broken = False
        self._limit: IDelayedCall | None = None
        reactor.addReader(self)
        # Behind the end of the handshake there may have been more than the reactor will ever tell of.
        self._decrypt()

    # IStreamEnd

    def attach(self, receiver: IStreamReceiver) -> None:
        self._receiver = receiver
        early, self._early = self._early, b""
        if early:
            self.resume()
            receiver.received(early)
        if self._reason is not None and self._receiver is receiver:
            self._receiver = None
            receiver.ended(self._reason)

    def write(self, data: bytes) -> None:
        if self._reason is not None or self._closing or self._broken:
            return
        rest = memoryview(data)
        if not self._unsent and not self._wire.blocked:
            rest = self._send(rest)
        if rest:
            self._unsent.append(rest)
            self._unsent_octets += len(rest)
            self.full = self._unsent_octets > _FULL

    def pause(self) -> None:
        if self._reason is None:
            self._reactor.removeReader(self)

    def resume(self) -> None:
        if self._reason is None:
            self._reactor.addReader(self)

    def close(self) -> None:
        if self._reason is None and not self._closing:
            self._closing = True
            if self._unsent or self._wire.blocked:
                self._limit = self._reactor.callLater(_FLUSH_LIMIT, self._reset, "timeout while closing")
            else:
                self._farewell()

    def abort(self) -> None:
        if self._reason is None:
            receiver, self._receiver = self._receiver, None
            self._reset("connection aborted")
            self._tell_later(receiver, "connection aborted")

    def detach(self) -> Descriptor:
        # Nobody is to get what is found now.
        receiver, self._receiver = self._receiver, None
        if self._reason is None and not self._closing:
            self._decrypt()
        if self._reason is not None or self._closing or self._early:
            self._receiver = receiver
            raise SessionLost(self._reason or "octets arrived that nobody asked for")
        return self._bridged()

    def _bridged(self) -> Descriptor:
        moved = self._moved()
        try:
            descriptor, self.via = self._bridge(moved)
            return descriptor
        except OSError as error:
            moved.abort()
            raise SessionLost(f"no bridge can be made ({error.strerror})") from error

    # for the proxy

    def hand_over(self) -> Descriptor:
        """
        As C{detach}, with octets that came already: the other end gets them first. A server that speaks first may have
        spoken by then.

        @raise SessionLost: when no bridge can be made.
        """
        if self._reason is not None or self._closing:
            raise SessionLost(self._reason or "connection closed")
        self._receiver = None
        return self._bridged()

    # IReadWriteDescriptor

    def fileno(self) -> int:
        return self._fileno

    def logPrefix(self) -> str:
        return "tlsproxy"

    def doRead(self) -> None:
        if self._reason is not None:
            return
        try:
            more = self._wire.fetch()
        except OSError as error:
            self._over(reason_of(error))
            return
        self._decrypt()
        if not more:
            # Without close_notify: no error, SMTP says itself where a reply ends.
            self._over("connection closed")

    def doWrite(self) -> None:
        if self._reason is not None:
            return
        self._reactor.removeWriter(self)
        try:
            self._wire.flush()
        except OSError as error:
            self._fail(error)
        while self._unsent and not self._wire.blocked:
            head = self._unsent[0]
            rest = self._send(head)
            if self._broken:
                return
            self._unsent_octets -= len(head) - len(rest)
            if rest:
                self._unsent[0] = rest
            else:
                self._unsent.popleft()
        if self._wire.blocked:
            self._reactor.addWriter(self)
        elif self._closing:
            self._farewell()
        elif self.full:
            self.full = False
            if self._receiver is not None:
                self._receiver.drained()

    def connectionLost(self, reason: Failure) -> None:
        self._last_words(reason.getErrorMessage())

    # inside

    def _decrypt(self) -> None:
        # Whoever is told may close, abort or detach.
        while self._reason is None:
            try:
                data = self._wire.decrypted()
            except SSL.Error as error:
                self._over(reason_of(error))
                return
            if data is None:
                if self._wire.blocked:
                    self._reactor.addWriter(self)
                return
            if self._closing:
                continue
            if self._receiver is not None:
                self._receiver.received(data)
                continue
            self._early += data
            if len(self._early) > _EARLY:
                self.pause()

    def _send(self, data: memoryview) -> memoryview:
        """Send octets; those that the socket did not take."""
        try:
            rest = self._wire.send(data)
        except (SSL.Error, OSError) as error:
            self._fail(error)
            return data[:0]
        if self._wire.blocked:
            self._reactor.addWriter(self)
        return rest

    def _fail(self, error: Exception) -> None:
        """The peer takes nothing any more, but what it said before it went may still wait in the socket."""
        self._broken = True
        self._unsent.clear()
        self._unsent_octets = 0
        self._reactor.callLater(0, self._last_words, reason_of(error))

    def _last_words(self, reason: str) -> None:
        """Deliver what the socket still holds, then be over."""
        while self._reason is None:
            try:
                before = self._wire.fetched
                more = self._wire.fetch()
            except OSError:
                break
            self._decrypt()
            if not more or self._wire.fetched == before:
                break
        self._over(reason)

    def _farewell(self) -> None:
        """Send close_notify without waiting for the peer's, and close when the peer has closed, or after a moment."""
        receiver, self._receiver = self._receiver, None
        self._tell_later(receiver, "connection closed")
        self._wire.notify()
        try:
            self._wire.shutdown()
        except OSError:
            self._over("connection closed")
            return
        self._stop_limit()
        self._limit = self._reactor.callLater(_LINGER, self._over, "connection closed")
        self.resume()

    def _reset(self, reason: str) -> None:
        """End at once."""
        if self._reason is None:
            self._let_go(reason)
            self._wire.reset()
            self._tell(reason)

    def _over(self, reason: str) -> None:
        if self._reason is None:
            self._let_go(reason)
            if not self._closing:
                self._wire.notify()
            self._wire.close()
            self._tell(reason)

    def _let_go(self, reason: str) -> None:
        self._reason = reason
        self._stop_limit()
        self._reactor.removeReader(self)
        self._reactor.removeWriter(self)
        self._fileno = -1
        self._unsent.clear()
        self.full = False

    def _tell(self, reason: str) -> None:
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.ended(reason)

    def _tell_later(self, receiver: IStreamReceiver | None, reason: str) -> None:
        """Not from within what the receiver itself called."""
        if receiver is not None:
            self._reactor.callLater(0, receiver.ended, reason)

    def _stop_limit(self) -> None:
        limit, self._limit = self._limit, None
        if limit is not None and limit.active():
            limit.cancel()

    def _moved(self) -> PlaintextEnd:
        """The same connection as another object; this one is dead."""
        unsent, self._unsent = self._unsent, deque()
        self._let_go("given away")
        early, self._early = self._early, b""
        moved = PlaintextEnd(self._reactor, self._wire, self._bridge, early)
        moved._unsent, moved._unsent_octets = unsent, self._unsent_octets
        moved.full = moved._unsent_octets > _FULL
        if self._wire.blocked:
            self._reactor.addWriter(moved)
        return moved
