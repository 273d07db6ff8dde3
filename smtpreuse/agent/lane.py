"""
The worker of a lane: at most one session toward one site, one request after the other.

It asks the queue what to carry and tells it what became of it; it does not choose among messages, and keeps none.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from smtpreuse.agent.connect import OpenFailed
from smtpreuse.agent.outcomes import Result
from smtpreuse.agent.reuse import Finder
from smtpreuse.agent.rules import AgentRules
from smtpreuse.agent.session import OpenSession, Session
from smtpreuse.agent.transaction import Transaction
from smtpreuse.interfaces import IConnectionCache, IDeliveryAgent, ILane, IMailLog
from smtpreuse.model.delivery import Blame, DeliveryReport, DeliveryRequest, Ending, Outcome, Then, untouched
from smtpreuse.model.logline import established, reused
from smtpreuse.model.message import Body
from smtpreuse.model.reuse import Carrier
from smtpreuse.model.route import Site
from smtpreuse.tls.verify import verify


@frozen(kw_only=True, eq=False)
class _Begun:
    """
    @ivar started: UNIX time at which the request was taken.
    @ivar ready: UNIX time at which its transaction began.
    """

    request: DeliveryRequest
    transaction: Transaction
    started: float
    ready: float


@implementer(IDeliveryAgent)
class Agent:
    """Works lanes in this process."""

    log = Logger()

    def __init__(
        self, finder: Finder, cache: IConnectionCache, maillog: IMailLog, clock: IReactorTime,
        *, tls_loglevel: int, most_reuses: int, line_length_limit: int = 0,
    ) -> None:  # fmt: skip
        """
        @param tls_loglevel: 0 keeps the lines about TLS out of the operator's log.
        @param most_reuses: transactions that may follow the first one of a session, 0 for any number.
        @param line_length_limit: octets of content in a line above which it is broken, 0 for none.
        """
        self._finder = finder
        self._cache = cache
        self._maillog = maillog
        self._clock = clock
        self._tls_loglevel = tls_loglevel
        self._most_reuses = most_reuses
        self._line_length_limit = line_length_limit
        self._process = os.getpid()
        self._busy: dict[ILane, OpenSession | float | None] = {}
        self._leaving: dict[Site, Session] = {}

    def adopt(self, rules: AgentRules) -> None:
        """Work by these rules from now on; a transaction that has begun ends as it was begun."""
        self._tls_loglevel = rules.tls_loglevel
        self._most_reuses = rules.most_reuses
        self._line_length_limit = rules.line_length_limit
        self._finder.adopt(rules.opening, rules.search)

    def work(self, lane: ILane) -> None:
        self._busy[lane] = None
        Deferred.fromCoroutine(self._work(lane)).addErrback(self._fault, lane)

    def at_work(self) -> Iterator[tuple[ILane, float | None, OpenSession | None]]:
        """Each lane with the UNIX time since when it seeks a session, or the session it has."""
        for lane, state in self._busy.items():
            if isinstance(state, OpenSession):
                yield lane, None, state
            else:
                yield lane, state, None

    def fits(self, carrier: Carrier, request: DeliveryRequest) -> bool:
        """
        Whether a lane's session may carry this request now. Asked where they were chosen for each other a while ago: a
        lane of the queue in this process chooses at the moment.
        """
        return self._finder.fits(carrier, request)

    def retiring(self, process: int) -> None:
        """A process ends: sessions that lead through it take no further message."""
        for state in self._busy.values():
            if isinstance(state, OpenSession) and state.facts.via is not None and state.facts.via.process == process:
                state.spoilt = state.spoilt or "its TLS proxy is about to end"

    def abort(self) -> None:
        """End the sessions that lanes have, whatever is going on; what they carry is reported as it stands."""
        for state in list(self._busy.values()):
            if isinstance(state, OpenSession):
                state.session.fail(f"conversation with {state.session.relay} ended with this service")

    async def _work(self, lane: ILane) -> None:
        held: OpenSession | None = None
        while True:
            turn = await lane.next(held.carrier if held is not None else None, 1)
            for request in turn.requests:
                held = self._busy[lane] = await self._carry(lane, held, request)
            if turn.requests:
                continue
            if held is not None:
                await self._part(lane, held, turn.then)
                held = self._busy[lane] = None
                if turn.more:
                    continue
            break
        del self._busy[lane]
        lane.over("nothing is due")

    def _fault(self, failure: object, lane: ILane) -> None:
        self.log.failure("lane failed: site={site}", failure=failure, site=lane.site.name)  # type: ignore[arg-type]  # an errback's argument is a Failure
        held = self._busy.pop(lane, None)
        if isinstance(held, OpenSession):
            held.session.retire()
        lane.over("internal error")

    async def _carry(self, lane: ILane, held: OpenSession | None, request: DeliveryRequest) -> OpenSession | None:
        """
        @return: the session, when another request may be asked of it.
        """
        started = self._clock.seconds()
        if held is not None and held.session.lost is not None:
            held = None
        try:
            if held is None:
                self._busy[lane] = started
            session = held or await self._finder.find(lane, request)
        except OpenFailed as failure:
            lane.report(self._not_sent(request, started, failure))
            return None
        except Exception:
            self.log.failure("no session for {queue_id}: internal error", queue_id=request.queue_id)
            fault = OpenFailed("4.3.0", "internal error while a session was sought", Blame.OURSELVES)
            lane.report(self._not_sent(request, started, fault))
            return None
        self._busy[lane] = session
        if lane.held:
            lane.report(untouched(request, self._clock.seconds()))
            return session
        begun: _Begun | None = self._begin(lane, session, request, started)
        while begun is not None:
            request, begun = begun.request, await self._complete(lane, session, begun)
        if not session.usable or 0 < self._most_reuses < session.uses:
            self._dismiss(lane.site, session.session)
        elif self._second_choice(session, request):
            # A better host answered, though it refused this request: others are not to pass it by (Postfix likewise).
            session.destination = ""
            await self._part(lane, session, Then.SAVE)
        else:
            return session
        return None

    def _begin(self, lane: ILane, session: OpenSession, request: DeliveryRequest, started: float) -> _Begun:
        session.destination = str(request.route.nexthop)
        transaction = Transaction(session, request, self._line_length_limit, lane.dotted)
        return _Begun(request=request, transaction=transaction, started=started, ready=self._clock.seconds())

    async def _complete(self, lane: ILane, session: OpenSession, begun: _Begun) -> _Begun | None:
        """
        Carry this one to its end.

        @return: the one that went in the same flight, when it is to be carried on with.
        """
        followers: list[_Begun] = []

        async def following() -> Transaction | None:
            request = await lane.follow(session.carrier)
            if request is None:
                return None
            followers.append(self._begin(lane, session, request, self._clock.seconds()))
            return followers[0].transaction

        transaction = begun.transaction
        alone = not session.usable or self._second_choice(session, begun.request)
        try:
            self._log_tls(session, transaction.use)
            self._note_eight_bit(session, begun.request)
            result = await transaction.run(None if alone else following)
        except Exception:
            self.log.failure("transaction failed: {queue_id}", queue_id=begun.request.queue_id)
            result = transaction.interrupted()
        lane.report(self._report(session, begun, result))
        for follower in followers:
            if not session.spoilt:
                return follower
            lane.report(self._report(session, follower, follower.transaction.untouched()))
        return None

    def _second_choice(self, session: OpenSession, request: DeliveryRequest) -> bool:
        return bool(request.tried) and session.candidate.preference > request.route.candidates[0].preference

    def _not_sent(self, request: DeliveryRequest, started: float, failure: OpenFailed) -> DeliveryReport:
        """For a request that found no session."""
        now = self._clock.seconds()
        outcomes = tuple(
            Outcome(recipient=recipient, ending=Ending.REFUSED, status=failure.status, text=failure.text)
            for recipient in request.recipients
        )
        return DeliveryReport(
            ticket=request.ticket, outcomes=outcomes, relay=failure.relay or "none", started=started, ready=now,
            finished=now, blame=failure.blame, exhausted=True,
        )  # fmt: skip

    def _report(self, session: OpenSession, begun: _Begun, result: Result) -> DeliveryReport:
        return DeliveryReport(
            ticket=begun.request.ticket, outcomes=result.outcomes, relay=session.candidate.relay,
            endpoint=session.candidate.endpoint, uses=begun.transaction.use, opened=session.facts.opened,
            started=begun.started, ready=begun.ready, finished=self._clock.seconds(), blame=result.blame,
            full=result.full, derailed=result.derailed, exhausted=result.blame is Blame.OURSELVES,
            process=self._process,
        )  # fmt: skip

    async def _part(self, lane: ILane, session: OpenSession, then: Then) -> None:
        """Let the session rest, or end it."""
        if then is Then.SAVE and await self._tidy(session):
            facts = session.facts
            end = session.session.leave()
            await self._cache.save(session.destination, lane.site, session.key, facts, end)
        else:
            self._dismiss(lane.site, session.session)

    async def _tidy(self, session: OpenSession) -> bool:
        """
        @return: whether the session rests well: no transaction is open on it.
        """
        if session.unclean and session.session.lost is None:
            session.session.send(session.session.client.rset())
            answers = await session.session.answers(1)
            session.unclean = not (answers and answers[0].reply.positive)
        return session.session.lost is None and not session.unclean

    def _dismiss(self, site: Site, session: Session) -> None:
        """
        Say QUIT. One farewell of a site is waited for at a time: a server that does not answer it must not get more
        connections than its window says.
        """
        if session.lost is not None:
            return
        if site in self._leaving:
            self._leaving[site].part()
        self._leaving[site] = session
        Deferred.fromCoroutine(session.quit()).addErrback(
            lambda failure: self.log.failure("QUIT failed", failure=failure)
        ).addBoth(self._left, site, session)

    def _left(self, _: object, site: Site, session: Session) -> None:
        if self._leaving.get(site) is session:
            del self._leaving[site]

    def _note_eight_bit(self, session: OpenSession, request: DeliveryRequest) -> None:
        if request.body is Body.EIGHT_BIT and not session.facts.capabilities.eight_bit and not session.noted:
            session.noted = True
            text = f"host {session.session.relay} does not offer 8BITMIME: 8-bit content goes as it is"
            self._maillog.write("smtp", f"{request.queue_id}: {text}")

    def _log_tls(self, session: OpenSession, use: int) -> None:
        tls = session.facts.tls
        if tls is None or self._tls_loglevel == 0:
            return
        candidate = session.candidate
        if not session.reused_line:
            word = verify(tls.chain, candidate.policy, (candidate.host,), time.time()).word
            session.reused_line = reused(word, candidate.relay, tls)
            if use == 1:
                self._maillog.write("smtp", established(word, candidate.relay, tls))
                return
        self._maillog.write("smtp", session.reused_line)
