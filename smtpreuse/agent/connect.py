"""
Opens a session: TCP, greeting, EHLO, STARTTLS in plaintext on the network itself, then EHLO again behind the TLS proxy.

It does not choose where to connect, and does not look at messages. Texts and statuses are those of Postfix's smtp(8).
"""

from __future__ import annotations

import errno
import time
from typing import NoReturn

from attrs import frozen
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.error import ConnectError, TimeoutError
from twisted.internet.interfaces import IReactorTCP, IReactorTime, ITCPTransport
from twisted.internet.protocol import Factory
from twisted.logger import Logger

from smtpreuse.agent.session import Limits, OpenSession, Session
from smtpreuse.errors import DeliveryProblem, SessionLost
from smtpreuse.interfaces import IMailLog, IStreamEnd, ITLSProxy
from smtpreuse.ipc.stream import StreamEnd
from smtpreuse.model.capabilities import Capabilities
from smtpreuse.model.delivery import Blame
from smtpreuse.model.nexthop import Candidate
from smtpreuse.model.policy import Level
from smtpreuse.model.reply import Reply
from smtpreuse.model.reuse import Plaintext, Profile, SessionFacts
from smtpreuse.model.tlsfacts import TLSResult
from smtpreuse.smtp.capabilities import parse_ehlo
from smtpreuse.smtp.client import Client
from smtpreuse.tls.verify import verify


class OpenFailed(DeliveryProblem):
    """
    No session could be opened to a candidate.

    @ivar blame: whether the site is at fault.
    @ivar handshake: whether TLS failed, in its handshake or right behind it, so that C{may} may fall back to plaintext.
    @ivar relay: the server that answered, C{host[address]:port}; empty where none did.
    """

    def __init__(self, status: str, text: str, blame: Blame = Blame.SITE, *, handshake: bool = False) -> None:
        super().__init__(status, text)
        self.blame = blame
        self.handshake = handshake
        self.relay = ""


@frozen(kw_only=True)
class OpeningRules:
    """
    What main.cf says of opening a session; durations in seconds.

    @ivar lifetime: how long after its connect a session may still begin a transaction.
    @ivar skip_5xx_greeting: whether a 5xx greeting defers instead of bouncing.
    @ivar discard: EHLO keywords to ignore, in upper case.
    """

    profile: Profile
    limits: Limits
    connect_timeout: float
    starttls_timeout: float
    lifetime: float
    skip_5xx_greeting: bool
    discard: frozenset[str]


class Connector:
    """Opens sessions to candidates."""

    log = Logger()

    def __init__(
        self, reactor: IReactorTCP, clock: IReactorTime, proxy: ITLSProxy, maillog: IMailLog, rules: OpeningRules
    ) -> None:
        self._reactor = reactor
        self._clock = clock
        self._proxy = proxy
        self._maillog = maillog
        self._rules = rules

    def adopt(self, rules: OpeningRules) -> None:
        """Open by these rules from now on; what is being opened goes on as it was begun."""
        self._rules = rules

    async def open(self, candidate: Candidate, *, fall_back: bool) -> OpenSession:
        """
        Open a session to this candidate.

        @param fall_back: whether, at level C{may}, a failed handshake is followed by a connection without TLS.
        @raise OpenFailed: when there is no session to be had.
        """
        try:
            return await _Opening(self._reactor, self._clock, self._proxy, self._rules, candidate).run(plaintext=False)
        except OpenFailed as failure:
            if not (failure.handshake and fall_back and candidate.policy.level is Level.MAY):
                raise
            self._maillog.write("smtp", f"{failure.text}; trying {candidate.relay} without TLS")
        return await _Opening(self._reactor, self._clock, self._proxy, self._rules, candidate).run(plaintext=True)


class _Opening:
    """One attempt to open one session."""

    def __init__(
        self, reactor: IReactorTCP, clock: IReactorTime, proxy: ITLSProxy, rules: OpeningRules, candidate: Candidate
    ) -> None:
        self._reactor = reactor
        self._clock = clock
        self._proxy = proxy
        self._rules = rules
        self._candidate = candidate
        self._host = f"{candidate.host}[{candidate.endpoint.address}]"

    async def run(self, *, plaintext: bool) -> OpenSession:
        opened = self._clock.seconds()
        session = self._session(await self._connect(), Client())
        tls: TLSResult | None = None
        try:
            try:
                await self._greeting(session)
                capabilities = await self._hello(session)
                why = Plaintext.FAILED if plaintext else await self._starttls(session, capabilities)
                if why is None:
                    tls, session = await self._handshake(session)
                    capabilities = await self._hello(session)
                if session.lost is not None:
                    raise session.lost
            except SessionLost as lost:
                # A server whose TLS fails may close only when its handshake is over for us (TLS 1.3).
                raise OpenFailed("4.4.2", str(lost), self._blame(tls), handshake=tls is not None) from lost
        except Exception as problem:
            session.retire()
            if isinstance(problem, OpenFailed):
                problem.relay = self._candidate.relay
            raise
        policy = self._candidate.policy
        facts = SessionFacts(
            host=self._candidate.host, level=policy.level, tls=tls, plaintext=why,
            reusable=policy.connection_reuse or tls is None, capabilities=capabilities, uses=0,
            opened=opened, good_until=opened + self._rules.lifetime,
        )  # fmt: skip
        return OpenSession(session, self._candidate, self._rules.profile.key(self._candidate), facts)

    def _blame(self, tls: TLSResult | None) -> Blame:
        # At C{may} the next attempt goes without TLS: no reason to think less of the site (Postfix likewise).
        return Blame.NOBODY if tls is not None and self._candidate.policy.level is Level.MAY else Blame.SITE

    def _session(self, end: IStreamEnd, client: Client) -> Session:
        return Session(end, client, self._clock, self._rules.limits, self._host)

    async def _connect(self) -> IStreamEnd:
        endpoint, profile = self._candidate.endpoint, self._rules.profile
        source = profile.source6 if endpoint.ipv6 else profile.source
        kind = TCP6ClientEndpoint if endpoint.ipv6 else TCP4ClientEndpoint
        client = kind(
            self._reactor, endpoint.address, endpoint.port,
            timeout=self._rules.connect_timeout, bindAddress=(source, 0) if source else None,
        )  # fmt: skip
        try:
            end: StreamEnd = await client.connect(Factory.forProtocol(StreamEnd))  # type: ignore[assignment]  # the factory makes this class
        except TimeoutError as error:
            raise OpenFailed("4.4.1", f"connect to {self._candidate.relay}: Connection timed out") from error
        except ConnectError as error:
            reason = error.args[0] if error.args and isinstance(error.args[0], str) else str(error)
            own = getattr(error, "osError", None) in _OUR_FAULTS
            raise OpenFailed(
                "4.3.0" if own else "4.4.1", f"connect to {self._candidate.relay}: {reason}",
                Blame.OURSELVES if own else Blame.SITE,
            ) from error  # fmt: skip
        transport = ITCPTransport(end.transport, None)
        if transport is not None:
            transport.setTcpNoDelay(True)
        return end

    async def _greeting(self, session: Session) -> None:
        reply = await session.answer()
        if not reply.positive:
            self._refused(session, reply, skip=self._rules.skip_5xx_greeting)

    async def _hello(self, session: Session) -> Capabilities:
        name = self._rules.profile.helo
        reply = await session.ask(lambda: session.client.ehlo(name))
        if reply.positive:
            self._not_ourselves(reply)
            return parse_ehlo(reply, self._rules.discard)
        if reply.code == 421:
            self._refused(session, reply, skip=False)
        reply = await session.ask(lambda: session.client.helo(name))
        if not reply.positive:
            self._refused(session, reply, skip=False)
        self._not_ourselves(reply)
        return Capabilities()

    def _refused(self, session: Session, reply: Reply, *, skip: bool) -> NoReturn:
        session.part()
        status = f"4{reply.status[1:]}" if skip or not reply.code >= 500 else reply.status
        raise OpenFailed(
            status, f"host {self._host} refused to talk to me: {reply.text}",
            Blame.THROTTLED if reply.throttling else Blame.SITE,
        )  # fmt: skip

    def _not_ourselves(self, reply: Reply) -> None:
        # Only the standard port tells: behind other ports may well be a second server of ours (Postfix: smtp_helo()).
        name = reply.lines[0].split(" ", 1)[0].lower()
        if self._candidate.endpoint.port == 25 and name == self._rules.profile.helo.lower():
            raise OpenFailed("5.4.6", f"mail for {self._candidate.host} loops back to myself", Blame.NOBODY)

    async def _starttls(self, session: Session, capabilities: Capabilities) -> Plaintext | None:
        """
        @return: why the session stays in plaintext, or L{None} when the server waits for the handshake.
        """
        level = self._candidate.policy.level
        if level is Level.NONE:
            return Plaintext.NOT_WANTED
        if not capabilities.starttls:
            if level > Level.MAY:
                session.part()
                raise OpenFailed("4.7.4", f"TLS is required, but was not offered by host {self._host}")
            return Plaintext.NOT_OFFERED
        reply = await session.ask(session.client.starttls)
        if reply.positive:
            return None
        if level > Level.MAY:
            session.part()
            raise OpenFailed(
                reply.status if reply.code >= 400 else "4.7.5",
                f"TLS is required, but host {self._host} refused to start TLS: {reply.text}",
            )
        return Plaintext.REFUSED

    async def _handshake(self, session: Session) -> tuple[TLSResult, Session]:
        if session.lost is not None:
            # Octets from before the handshake would count as encrypted (the CVE-2011-0411 family).
            raise OpenFailed("4.7.5", f"host {self._host} sent more than a reply to STARTTLS; connection not trusted")
        descriptor = session.leave().detach()
        policy = self._candidate.policy
        result, end = await self._proxy.start(descriptor, policy.settings, self._rules.starttls_timeout)
        if end is None:
            if result.local:
                raise OpenFailed("4.3.0", f"TLS is not available here: {result.error}", Blame.OURSELVES)
            text = f"Cannot start TLS with host {self._host}: handshake failure: {result.error}"
            raise OpenFailed("4.7.5", text, self._blame(result), handshake=True)
        verdict = verify(result.chain, policy, (self._candidate.host,), time.time())
        if not verdict.matched:
            end.abort()
            raise OpenFailed("4.7.5", f"Server certificate not verified: {verdict.reason}")
        return result, self._session(end, Client.secured())


# What says something of this machine, and nothing of the peer.
_OUR_FAULTS = frozenset({
    errno.EAGAIN, errno.EACCES, errno.EMFILE, errno.ENFILE, errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.ENOBUFS,
})  # fmt: skip
