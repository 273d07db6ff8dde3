"""
Tests of L{smtpreuse.ipc.lanes}, L{smtpreuse.ipc.agents} and L{smtpreuse.ipc.outbox}: the two sides of a lane.
"""

from __future__ import annotations

from attrs import evolve
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import TestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from smtpreuse.interfaces import IDeliveryAgent, ILane
from smtpreuse.ipc.agents import AgentPool, RemoteAgent
from smtpreuse.ipc.lanes import Workbench
from smtpreuse.ipc.link import Link, join, pair
from smtpreuse.ipc.outbox import Outbox
from smtpreuse.ipc.recorder import FlightRecorder, made
from smtpreuse.model.content import MemoryContent
from smtpreuse.model.delivery import Blame, DeliveryReport, DeliveryRequest, Ending, Outcome, Turn
from smtpreuse.model.reuse import Carrier
from tests.agent.world import PROFILE, facts, request
from tests.fakes import FakeLane, FakeLog, candidate


@implementer(IDeliveryAgent)
class HandAgent:
    """An agent whose lanes the test works by hand."""

    def __init__(self) -> None:
        self.lanes: list[ILane] = []

    def work(self, lane: ILane) -> None:
        self.lanes.append(lane)


def delivered(request: DeliveryRequest) -> DeliveryReport:
    """The server took it."""
    outcomes = tuple(
        Outcome(recipient=each, ending=Ending.DELIVERED, status="2.0.0", text="250 ok") for each in request.recipients
    )
    return DeliveryReport(ticket=request.ticket, outcomes=outcomes, uses=1, started=1.0, ready=1.0, finished=2.0)


class LaneTests(TestCase):
    """A lane at an agent in another process is as good as one here."""

    async def setUp(self) -> None:
        self.log, self.hand = FakeLog(), HandAgent()
        self.near, self.far = Link(reactor, "agent"), Link(reactor, "main")
        with made() as memory:
            self.recorder, read = FlightRecorder(memory), FlightRecorder(memory)
        self.pool = AgentPool(Clock())
        self.outbox = Outbox(reactor, self.far)
        self.unfit: set[int] = set()
        self.bench = Workbench(
            self.far, self.hand, self.outbox, self.recorder, reactor, lambda _, asked: asked.ticket not in self.unfit
        )
        self.agent = RemoteAgent(self.near, 4711, read, self.log, reactor, self.pool.gossip)
        for link, end in zip((self.near, self.far), pair(), strict=True):
            join(reactor, link, end)
            self.addCleanup(self.gone, link)
        self.addCleanup(self.recorder.close)
        self.carrier = Carrier(key=PROFILE.key(candidate()), facts=facts(uses=1, opened=7.0))

    def gone(self, link: Link) -> Deferred[None]:
        """It is over."""
        over: Deferred[None] = Deferred()
        link.when_lost(lambda: over.callback(None))
        link.end()
        return over

    async def turn(self, times: int = 6) -> None:
        """Let what was said arrive."""
        for _ in range(times):
            await deferLater(reactor, 0)

    async def lane(self, lane: FakeLane) -> ILane:
        """The far side of a lane."""
        self.agent.work(lane)
        while not self.hand.lanes:
            await self.turn(1)
        return self.hand.lanes.pop()

    def requests(self, *tickets: int) -> tuple[DeliveryRequest, ...]:
        """Requests with content of their own."""
        return tuple(request(ticket=each, content=MemoryContent(b"x: %d\r\n" % each)) for each in tickets)

    async def test_interfaces(self) -> None:
        """Both bodies provide their seams."""
        verifyObject(IDeliveryAgent, self.pool)
        verifyObject(IDeliveryAgent, self.agent)
        verifyObject(ILane, await self.lane(FakeLane()))

    async def test_batch(self) -> None:
        """Requests come in one batch and are given out one by one; the session is shown once, then its uses."""
        one, two, three = self.requests(1, 2, 3)
        queue = FakeLane(one, Turn(requests=(two, three), follow_after=1))
        lane = await self.lane(queue)
        self.assertEqual((await lane.next(None, 1)).requests, (one,))
        lane.report(delivered(one))
        self.assertEqual((await lane.next(self.carrier, 1)).requests, (two,))
        self.assertEqual(lane.keep, 3)
        later = Carrier(key=self.carrier.key, facts=evolve(self.carrier.facts, uses=2))
        self.assertIsNone(await lane.follow(self.carrier))
        self.assertEqual(await lane.follow(later), three)
        lane.report(delivered(two))
        lane.report(delivered(three))
        self.assertEqual((await lane.next(later, 1)).requests, ())
        lane.over("nothing is due")
        await self.turn()
        self.assertEqual(queue.shown, [None, self.carrier, later])
        self.assertEqual([each.ticket for each in queue.reports], [1, 2, 3])
        self.assertEqual((queue.ended, len(self.agent), len(self.bench)), (["nothing is due"], 0, 0))

    async def test_other_session(self) -> None:
        """What was given for a session goes back untouched when there is another one, or none."""
        one, two = self.requests(1, 2)
        queue = FakeLane(Turn(requests=(one, two)))
        lane = await self.lane(queue)
        self.assertEqual((await lane.next(self.carrier, 1)).requests, (one,))
        await lane.next(None, 1)
        self.assertEqual([(each.ticket, each.outcomes[0].ending) for each in queue.reports], [(2, Ending.UNTOUCHED)])

    async def test_unfit(self) -> None:
        """What the session may not carry any more when its turn comes goes back."""
        one, two, three = self.requests(1, 2, 3)
        queue = FakeLane(Turn(requests=(one, two, three)))
        lane = await self.lane(queue)
        await lane.next(self.carrier, 1)
        self.unfit = {2}
        self.assertEqual((await lane.next(self.carrier, 1)).requests, (three,))
        await self.turn()
        self.assertEqual([each.ticket for each in queue.reports], [2])

    async def test_held(self) -> None:
        """A lane that is held up gives back what it has not begun; the others go on."""
        one, two, three, four = self.requests(1, 2, 3, 4)
        queue, other = FakeLane(Turn(requests=(one, two))), FakeLane(Turn(requests=(three, four)))
        lane, free = await self.lane(queue), await self.lane(other)
        await lane.next(self.carrier, 1)
        await free.next(self.carrier, 1)
        queue.held = True
        self.agent.look()
        await self.turn()
        self.assertEqual((lane.held, free.held), (True, False))
        self.assertEqual(([each.ticket for each in queue.reports], other.reports), ([2], []))
        self.assertEqual((await free.next(self.carrier, 1)).requests, (four,))
        queue.held = False
        self.agent.look()
        await self.turn()
        self.assertFalse(lane.held)

    async def test_log(self) -> None:
        """Lines come in their order, before the report that they belong to, with the agent's process id."""
        (one,) = self.requests(1)
        queue = FakeLane(one)
        lane = await self.lane(queue)
        await lane.next(None, 1)
        self.outbox.write("smtp", "first")
        lane.report(delivered(one))
        self.outbox.write("smtp", "second")
        await self.turn()
        self.assertEqual(self.log.lines, ["smtp: first", "smtp: second"])

    async def test_killed(self) -> None:
        """After its death what was given is told apart: dotted is unknown, not begun is untouched."""
        one, two, three = self.requests(1, 2, 3)
        queue = FakeLane(Turn(requests=(one, two, three)))
        self.pool.join(self.agent)
        self.pool.work(queue)
        while not self.hand.lanes:
            await self.turn(1)
        lane = self.hand.lanes.pop()
        await lane.next(self.carrier, 1)
        lane.dotted(1)
        await lane.next(self.carrier, 1)
        self.pool.part(self.agent)
        ends = [(each.ticket, each.outcomes[0].ending, each.blame) for each in queue.reports]
        self.assertEqual(ends, [(1, Ending.UNKNOWN, Blame.OURSELVES), (3, Ending.UNTOUCHED, Blame.NOBODY)])
        self.assertEqual(queue.reports[0].outcomes[0].status, "4.3.0")
        self.assertEqual(queue.ended, ["agent ended"])

    async def test_other_recipients(self) -> None:
        """A report that is not about the recipients of its request is not believed, and ends the link."""
        (one,) = self.requests(1)
        queue = FakeLane(one)
        lane = await self.lane(queue)
        await lane.next(None, 1)
        lane.report(evolve(delivered(one), outcomes=()))
        over: Deferred[None] = Deferred()
        self.near.when_lost(lambda: over.callback(None))
        await over
        (report,) = queue.reports
        self.assertEqual((report.ticket, report.outcomes[0].ending), (1, Ending.UNKNOWN))

    async def test_no_agent(self) -> None:
        """A lane that is opened while there is no agent waits for one, or is over when the service ends."""
        queue = FakeLane()
        self.pool.work(queue)
        self.pool.join(self.agent)
        await self.turn()
        self.assertEqual(len(self.hand.lanes), 1)
        self.pool.part(self.agent)
        late = FakeLane()
        self.pool.work(late)
        self.pool.abort()
        self.assertEqual(late.ended, ["there is no agent"])
