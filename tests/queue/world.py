"""
What the tests of the queue share: rules, jobs, and an agent that the test plays.
"""

from __future__ import annotations

from random import Random

from attrs import evolve, field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from zope.interface import implementer

from smtpreuse.interfaces import IDeliveryAgent, ILane
from smtpreuse.model.content import Content, MemoryContent
from smtpreuse.model.delivery import Blame, DeliveryReport, DeliveryRequest, Ending, Outcome, Turn
from smtpreuse.model.message import Message, Recipient
from smtpreuse.model.nexthop import Endpoint
from smtpreuse.model.reuse import Carrier, Profile
from smtpreuse.queue.contentcache import ContentCache
from smtpreuse.queue.dispatch import Dispatcher
from smtpreuse.queue.returns import Returns
from smtpreuse.queue.rules import DispatchRules
from smtpreuse.queue.schedule import RetryRules
from smtpreuse.queue.sitequeue import SiteRules
from tests.agent.world import facts
from tests.fakes import FakeCache, FakeLog, FakeRouter, FakeSpool, candidate

PROFILE = Profile(helo="client.example.com")
SITE_RULES = SiteRules(
    profile=PROFILE, initial=5, limit=20, rate_delay=0.0, most_uses=0, on_demand=True, destinations=frozenset()
)
RULES = DispatchRules(
    site=SITE_RULES,
    retry=RetryRules(minimal_backoff=300.0, maximal_backoff=4000.0, lifetime=432000.0, bounce_lifetime=432000.0),
    active_limit=1000, recipient_limit=50, lane_limit=100, request_sessions=0,
)  # fmt: skip
START = 1_000_000.0


def message(
    queue_id: str = "Q1", *addresses: str, sender: str = "from@example.com", hop: str = "", arrived: float = START,
    **values: object,
) -> Message:  # fmt: skip
    """To these addresses; each goes to its own domain unless a hop is given."""
    recipients = tuple(
        Recipient(address=address, hop=hop or f"smtp:{address.rpartition('@')[2]}")
        for address in addresses or ("ann@example.com",)
    )
    plain = Message(queue_id=queue_id, arrived=arrived, sender=sender, size=7, client="local", recipients=recipients)
    return evolve(plain, **values)


def carrier(host: str = "mx.example.com", address: str = "192.0.2.1", *, uses: int = 1, **values: object) -> Carrier:
    """A session to this candidate."""
    return Carrier(key=PROFILE.key(candidate(host, address)), facts=facts(uses=uses, **values))


@frozen
class Worker:
    """A lane, and what it was last told."""

    lane: ILane
    turns: list[Deferred[Turn]] = field(factory=list)

    def ask(self, session: Carrier | None = None) -> Deferred[Turn]:
        """What is next."""
        turn = Deferred.fromCoroutine(self.lane.next(session, 1))
        self.turns.append(turn)
        return turn


@implementer(IDeliveryAgent)
class FakeAgent:
    """
    Lanes are opened and do nothing until the test says so.

    @ivar workers: lanes at work.
    @ivar opened: sites of all lanes that were ever opened.
    """

    def __init__(self) -> None:
        self.workers: list[Worker] = []
        self.opened: list[str] = []

    def work(self, lane: ILane) -> None:
        self.workers.append(Worker(lane))
        self.opened.append(lane.site.name)


@implementer(IDeliveryAgent)
class BusyAgent:
    """
    Takes a request as soon as a lane is opened and holds it until the test ends it; each lane has one session.

    @ivar held: request by lane.
    @ivar carried: all requests, in the order in which they were taken.
    """

    def __init__(self) -> None:
        self.held: dict[ILane, DeliveryRequest] = {}
        self.carried: list[DeliveryRequest] = []
        self.sessions: dict[ILane, Carrier] = {}
        self.over: list[Turn] = []

    def work(self, lane: ILane) -> None:
        self._next(lane, None)

    def _next(self, lane: ILane, session: Carrier | None) -> None:
        Deferred.fromCoroutine(lane.next(session, 1)).addCallback(self._given, lane)

    def _given(self, turn: Turn, lane: ILane) -> None:
        if turn.requests:
            (request,) = turn.requests
            self.held[lane] = request
            self.carried.append(request)
            return
        had = self.sessions.pop(lane, None)
        self.over.append(turn)
        if turn.more and had is not None:
            self._next(lane, None)
        else:
            lane.over("nothing is due")

    def end(self, lane: ILane, report: DeliveryReport | None = None) -> DeliveryRequest:
        """The request of this lane ends, delivered unless told otherwise."""
        request = self.held.pop(lane)
        at = request.route.candidates[0]
        old = self.sessions.get(lane)
        uses = old.facts.uses + 1 if old is not None else 1
        done = report or report_of(request, uses=uses)
        if done.endpoint is not None:
            self.sessions[lane] = Carrier(key=PROFILE.key(at), facts=facts(uses=uses))
        lane.report(evolve(done, ticket=request.ticket))
        self._next(lane, self.sessions.get(lane))
        return request

    def first(self) -> ILane:
        """The lane that has held its request for longest."""
        return next(iter(self.held))


def report_of(
    request: DeliveryRequest, ending: Ending = Ending.DELIVERED, status: str = "2.0.0", text: str = "250 ok",
    **values: object,
) -> DeliveryReport:  # fmt: skip
    """This ending for each recipient."""
    outcomes = tuple(
        Outcome(recipient=each, ending=ending, status=status, text=text) for each in request.recipients
    )
    plain = DeliveryReport(
        ticket=request.ticket, outcomes=outcomes, started=START, ready=START, finished=START, uses=1,
        endpoint=request.route.candidates[0].endpoint, relay=request.route.candidates[0].relay,
    )  # fmt: skip
    return evolve(plain, **values)


def no_session(request: DeliveryRequest, blame: Blame = Blame.SITE, now: float = START) -> DeliveryReport:
    """No session was to be had."""
    return report_of(
        request, Ending.REFUSED, "4.4.1", "connect: refused", uses=0, endpoint=None, relay="none", blame=blame,
        exhausted=True, started=now, ready=now, finished=now,
    )  # fmt: skip


class World:
    """A dispatcher and all that stands around it."""

    def __init__(self, agent: FakeAgent | BusyAgent, rules: DispatchRules = RULES) -> None:
        self.clock = Clock()
        self.clock.advance(START)
        self.log = FakeLog()
        self.spool = FakeSpool(self.clock.seconds)
        self.router = FakeRouter()
        self.cache = FakeCache()
        self.contents = ContentCache(100000)
        self.ids = iter(f"B{number}" for number in range(1, 1000))
        returns = Returns(self.spool, self.router, self.log, lambda: next(self.ids), "mail.example.com")
        self.dispatcher = Dispatcher(
            self.spool, self.router, agent, self.cache, self.log, self.clock, rules,
            contents=self.contents, returns=returns, random=Random(1),
        )  # fmt: skip

    def accept(self, given: Message, content: Content = MemoryContent(b"hello\r\n")) -> None:  # noqa: B008  # a value
        """It comes in."""
        stored = Deferred.fromCoroutine(self.spool.append(given, content))
        stored.addCallback(self.dispatcher.accepted, content)

    def turn(self, seconds: float = 0.0) -> None:
        """The reactor turns."""
        self.clock.advance(seconds)

    @property
    def in_memory(self) -> int:
        """Recipients in memory."""
        return sum(len(hop.rows) for hop in self.dispatcher._stock.hops())


def endpoint(number: int) -> Endpoint:
    """One of many."""
    return Endpoint(f"192.0.2.{number}", 25)
