"""
Takes mail in: an SMTP server over any stream transport of Twisted, with the behaviour of Postfix's smtpd(8).

This knows connections: how many there are, how long they may be silent, how they end. What is done with what a client
says is L{smtpreuse.intake.session}'s.
"""

from __future__ import annotations

import socket
from collections.abc import Callable

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import (
    IAddress,
    IConsumer,
    IDelayedCall,
    IHalfCloseableProtocol,
    INegotiated,
    IPushProducer,
    IReactorTime,
    ITransport,
)
from twisted.internet.protocol import Protocol, ServerFactory
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from smtpreuse.config.settings import Settings
from smtpreuse.errors import SessionLost
from smtpreuse.intake.peer import Peer, early
from smtpreuse.intake.secured import SecuredTransport
from smtpreuse.intake.session import Services, Session
from smtpreuse.intake.starttls import Securing
from smtpreuse.interfaces import IMailLog, IRouter, ISpool, ITLSProxy
from smtpreuse.ipc.descriptor import Descriptor, taken_from
from smtpreuse.model.content import Content
from smtpreuse.model.message import Message
from smtpreuse.model.queueid import QueueIds
from smtpreuse.smtp.order import Encryption, State

# What a client may send ahead while its message is being stored; more waits in its own buffers.
READ_AHEAD = 65536


@implementer(IPushProducer, IHalfCloseableProtocol)
class SMTPD(Protocol):
    """One client's connection."""

    _log = Logger()

    def __init__(self, factory: SMTPDFactory, settings: Settings, peer: Peer) -> None:
        self._factory = factory
        self._settings = settings
        self._peer = peer
        self._session = Session(factory.services, settings, peer, self._go_on, self._securable)
        self._machine = self._session.machine
        self._lost = False
        self._ended = False
        self._held_back = False
        self._timer: IDelayedCall | None = None
        self._deadline = 0.0
        # From the reply to STARTTLS on the connection is the proxy's; until the handshake is over there is none here.
        self._given_away = False
        self._handshake: Deferred[None] | None = None
        self._secured: SecuredTransport | None = None

    def connectionMade(self) -> None:
        consumer = IConsumer(self.transport, None)
        if consumer is not None:
            # So that a client that does not read its replies is not read from either.
            consumer.registerProducer(self, True)
        self._extend()
        self._timer = self._factory.clock.callLater(self._settings.smtpd_timeout, self._ring)
        too_many = self._factory.joined(self, self._peer)
        if INegotiated.providedBy(self.transport):
            self._machine.encryption = Encryption.ACTIVE
        if self._factory.draining:
            self._session.part()
        elif too_many:
            self._machine.close(
                f"421 4.7.0 {self._settings.myhostname} Error: too many connections from {self._peer.address}",
                f"warning: Connection concurrency limit exceeded: {too_many}", " for service smtpd",
            )  # fmt: skip
        else:
            self._machine.feed(early(self._wire()))
            self._machine.greet()
        self._work()

    def dataReceived(self, data: bytes) -> None:
        self._extend()
        machine = self._machine
        machine.feed(data)
        if not machine.waiting:
            self._work()
        elif machine.buffered > READ_AHEAD and not self._held_back:
            self._held_back = True
            self.pauseProducing()

    def connectionLost(self, reason: Failure | None = None) -> None:
        # The reactor finds that the socket is gone, which it is from there only.
        if not self._given_away:
            self._gone()

    def _gone(self) -> None:
        if not self._lost:
            self._session.lost()
        self._lost = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._session.abandon()
        self._factory.left(self, self._peer)

    # IHalfCloseableProtocol

    def readConnectionLost(self) -> None:
        """The client says no more, and may wait for replies: they go out, then the connection ends."""
        self._ended = True
        if not self._machine.waiting and self._machine.state is not State.CLOSED:
            self._work()

    def writeConnectionLost(self) -> None:
        """Nothing to do: we never shut down our side alone."""

    # IPushProducer

    def pauseProducing(self) -> None:
        IPushProducer(self.transport).pauseProducing()

    def resumeProducing(self) -> None:
        # After the client's last octet a transport that reads would tell of its end again.
        if not self._held_back and not self._ended:
            IPushProducer(self.transport).resumeProducing()

    def stopProducing(self) -> None:
        """Nothing to do: the end of the connection is told in C{connectionLost}."""

    # for the factory

    def drain(self) -> None:
        """End as soon as no transaction is in progress."""
        if not self._machine.waiting and self._handshake is None:
            self._work()

    def abort(self) -> None:
        """End at once; nobody left us."""
        self._lost = True
        if self._handshake is not None:
            self._handshake.cancel()
            return
        transport = self._wire()
        getattr(transport, "abortConnection", transport.loseConnection)()

    def _work(self) -> None:
        """Do all that can be done now, and write what there is to say in one piece."""
        replies = self._session.work()
        if replies:
            self._wire().write(replies)
        if self._machine.state is State.HANDSHAKE and not self._ended:
            self._secure()
            return
        if self._ended and not self._machine.waiting:
            self._session.lost()
            self._machine.hang_up()
        if self._machine.state is State.CLOSED:
            self._session.abandon()
            consumer = IConsumer(self.transport, None)
            if consumer is not None:
                consumer.unregisterProducer()
            self._wire().loseConnection()

    def _go_on(self) -> None:
        """A message was stored, or not: say so, and go on with what the client sent behind it."""
        if self._lost:
            return
        self._extend()
        self._work()
        if self._held_back and not self._machine.waiting:
            self._held_back = False
            self.resumeProducing()

    def _securable(self) -> bool:
        return self._factory.securing.available() and isinstance(getattr(self.transport, "socket", None), socket.socket)

    def _secure(self) -> None:
        """The client was told to begin its handshake: that goes to the proxy, and all that follows comes from there."""
        transport = self._wire()
        IConsumer(transport).unregisterProducer()
        # Without its socket it knows none.
        addresses = transport.getHost(), transport.getPeer()
        try:
            network_end = taken_from(transport)  # type: ignore[arg-type]  # a socket's; ITransport does not say so
        except SessionLost as lost:
            self._session.not_secured(lost.reason)
            self.abort()
            return
        self._given_away = True
        handshake = Deferred.fromCoroutine(self._shake(network_end, addresses)).addErrback(self._broken)
        if not handshake.called:
            self._handshake = handshake

    async def _shake(self, network_end: Descriptor, addresses: tuple[IAddress, IAddress]) -> None:
        try:
            tls, end = await self._factory.securing.start(network_end, self._settings.smtpd_starttls_timeout)
        except CancelledError:
            self._handshake = None
            self._gone()
            return
        self._handshake = None
        if end is None:
            self._session.not_secured(tls.error)
            self._gone()
            return
        self.transport = self._secured = secured = SecuredTransport(end, addresses, self.dataReceived, self._gone)
        self._session.secured(tls)
        secured.registerProducer(self, True)
        self._extend()
        # The service may have been told to end meanwhile.
        self._work()
        secured.listen()

    def _broken(self, failure: Failure) -> None:
        """A fault of ours, for which Twisted's transports end a connection in the same way."""
        self._log.failure("client's connection ended by a fault", failure=failure)
        self._lost = True
        self._handshake = None
        if self._secured is not None:
            self._secured.abortConnection()
        self._gone()

    def _extend(self) -> None:
        self._deadline = self._factory.clock.seconds() + self._settings.smtpd_timeout

    def _ring(self) -> None:
        """The one timer of the connection; what has happened meanwhile only moved the deadline."""
        if self._machine.waiting or self._handshake is not None:
            # The client waits for us, not we for it; or the handshake has a limit of its own.
            self._extend()
        clock = self._factory.clock
        left = self._deadline - clock.seconds()
        if left > 0:
            self._timer = clock.callLater(left, self._ring)
            return
        self._extend()
        self._timer = clock.callLater(self._settings.smtpd_timeout, self._ring)
        if self._machine.state is State.CLOSED:
            self.abort()
        else:
            self._machine.close(
                f"421 4.4.2 {self._settings.myhostname} Error: timeout exceeded", f"timeout after {self._machine.where}"
            )
            self._work()

    def _wire(self) -> ITransport:
        assert self.transport is not None, "a connection is used after it was made"
        return self.transport


class SMTPDFactory(ServerFactory):
    """
    Makes a L{SMTPD} for each client, and counts them.

    @ivar settings: of connections to come.
    @ivar draining: whether the service is about to end.
    """

    noisy = False

    def __init__(
        self,
        settings: Settings,
        spool: ISpool,
        router: IRouter,
        accepted: Callable[[Message, Content], None],
        maillog: IMailLog,
        clock: IReactorTime,
        ids: QueueIds,
        paused: Callable[[], str | None] = lambda: None,
        proxy: ITLSProxy | None = None,
    ) -> None:
        """
        @param accepted: told of each message that the spool has, as stored.
        @param paused: why no mail is taken now, or L{None}.
        @param proxy: makes TLS for clients; without it there is none to be had.
        """
        self.securing = Securing(proxy, clock)
        self.settings = settings
        self.clock = clock
        self.draining = False
        self.services = Services(
            spool=spool,
            router=router,
            accepted=accepted,
            maillog=maillog,
            clock=clock,
            ids=ids,
            paused=paused,
            draining=lambda: self.draining,
        )
        self._connections: set[SMTPD] = set()
        self._counts: dict[str, int] = {}
        self._gone: Deferred[None] | None = None

    def adopt(self, settings: Settings) -> None:
        """Take connections under these settings from now on; those there are keep theirs."""
        self.settings = settings

    def buildProtocol(self, addr: IAddress | None) -> SMTPD:
        protocol = SMTPD(self, self.settings, Peer.of(addr))
        protocol.factory = self
        return protocol

    @property
    def connections(self) -> int:
        """How many there are."""
        return len(self._connections)

    def joined(self, connection: SMTPD, peer: Peer) -> int:
        """
        A client connected.

        @return: how many connections it has now, where these are too many; else 0.
        """
        self._connections.add(connection)
        self._counts[peer.address] = count = self._counts.get(peer.address, 0) + 1
        limit = self.settings.smtpd_client_connection_count_limit
        if limit and count > limit and not peer.among(self.settings.smtpd_client_event_limit_exceptions):
            return count
        return 0

    def left(self, connection: SMTPD, peer: Peer) -> None:
        """A connection is gone; that it may be told again, changes nothing."""
        if connection not in self._connections:
            return
        self._connections.discard(connection)
        count = self._counts.pop(peer.address, 1) - 1
        if count:
            self._counts[peer.address] = count
        if not self._connections:
            self._all_gone()

    async def drain(self, limit: float) -> None:
        """
        Turn new clients away, let transactions in progress end, and return when all connections are gone.

        @param limit: seconds, after which those that are left are cut.
        """
        self.draining = True
        for connection in list(self._connections):
            connection.drain()
        if not self._connections:
            return
        self._gone = Deferred()
        cut = self.clock.callLater(limit, self._cut)
        await self._gone
        if cut.active():
            cut.cancel()

    def _cut(self) -> None:
        for connection in list(self._connections):
            connection.abort()
        self._all_gone()

    def _all_gone(self) -> None:
        gone, self._gone = self._gone, None
        if gone is not None:
            gone.callback(None)
