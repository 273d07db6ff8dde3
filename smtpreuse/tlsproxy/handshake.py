"""
One TLS handshake on a socket, within a time limit.

It knows OpenSSL and the reactor, and no policy: whoever the peer is, the handshake goes through.
"""

# ruff: noqa: N802  (names that Twisted has chosen)

from __future__ import annotations

from OpenSSL import SSL
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReadWriteDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from smtpreuse.model.tlsfacts import TLSResult
from smtpreuse.tlsproxy.openssl import reason_of
from smtpreuse.tlsproxy.plaintext import ProxyReactor
from smtpreuse.tlsproxy.wire import Wire


@implementer(IReadWriteDescriptor)
class Handshake:
    """
    Drives one handshake. It lets go of the reactor before its result is known, and never closes the socket.
    """

    def __init__(self, reactor: ProxyReactor, wire: Wire) -> None:
        self._reactor = reactor
        self._wire = wire
        self._finished: Deferred[TLSResult] = Deferred(lambda _: self._release())
        self._limit: IDelayedCall | None = None

    async def result(self, timeout: float) -> TLSResult:
        """
        Do the handshake.

        @param timeout: seconds.
        """
        self._limit = self._reactor.callLater(timeout, self._failed, f"handshake timed out after {timeout:g} seconds")
        self._reactor.addReader(self)
        self._step()
        return await self._finished

    # IReadWriteDescriptor

    def fileno(self) -> int:
        return self._wire.fileno()

    def logPrefix(self) -> str:
        return "tlsproxy"

    def doRead(self) -> None:
        try:
            more = self._wire.fetch()
        except OSError as error:
            self._failed(f"{reason_of(error)} during the handshake")
            return
        self._step()
        if not more:
            self._failed("lost connection during the handshake")

    def doWrite(self) -> None:
        self._reactor.removeWriter(self)
        self._step()

    def connectionLost(self, reason: Failure) -> None:
        # What the peer said before it went tells more than the fact that it did.
        self.doRead()
        self._failed("lost connection during the handshake")

    # inside

    def _step(self) -> None:
        if self._finished.called:
            return
        try:
            finished = self._wire.handshake()
        except SSL.Error as error:
            self._failed(reason_of(error))
        except OSError as error:
            self._failed(f"{reason_of(error)} during the handshake")
        else:
            if finished:
                self._finish(self._wire.shown())
            elif self._wire.blocked:
                self._reactor.addWriter(self)

    def _failed(self, error: str) -> None:
        self._finish(TLSResult(error=error))

    def _finish(self, result: TLSResult) -> None:
        if not self._finished.called:
            self._release()
            self._finished.callback(result)

    def _release(self) -> None:
        self._reactor.removeReader(self)
        self._reactor.removeWriter(self)
        if self._limit is not None and self._limit.active():
            self._limit.cancel()
