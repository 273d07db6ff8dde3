"""
Tests of L{smtpreuse.queue.lane}.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from smtpreuse.interfaces import ILane
from smtpreuse.model.delivery import DeliveryReport, DeliveryRequest, Then, Turn
from smtpreuse.model.nexthop import Nexthop
from smtpreuse.model.reuse import Carrier
from smtpreuse.model.route import Site
from smtpreuse.queue.lane import STARVING_AFTER, QueueLane
from smtpreuse.queue.line import Job
from smtpreuse.queue.sitequeue import LINGER, SiteQueue
from tests.agent.world import request
from tests.fakes import FakeRouter
from tests.queue.world import SITE_RULES, carrier, message, report_of


class FakeDispatcher:
    """Picks what the test has put in; a job without request cannot be prepared."""

    def __init__(self) -> None:
        self.picks: list[Job | Turn | float] = []
        self.lingered: list[bool] = []
        self.followers: list[Job] = []
        self.requests: list[DeliveryRequest | None] = []
        self.reports: list[tuple[str, int]] = []
        self.ends: list[list[str]] = []
        self.held_up = False

    def pick(self, lane: QueueLane, carrier: Carrier | None, *, lingered: bool) -> Job | Turn | float:
        self.lingered.append(lingered)
        return self.picks.pop(0)

    def pick_follower(self, lane: QueueLane, carrier: Carrier) -> Job | None:
        return self.followers.pop(0) if self.followers else None

    async def prepared(self, job: Job) -> DeliveryRequest | None:
        return self.requests.pop(0)

    def reported(self, lane: QueueLane, job: Job, report: DeliveryReport) -> None:
        self.reports.append((job.message.queue_id, report.ticket))

    def ended(self, lane: QueueLane, jobs: list[Job]) -> None:
        self.ends.append([job.message.queue_id for job in jobs])


def job(name: str) -> Job:
    """Of this name."""
    return Job(message=message(name), hop="smtp:example.com", retry=False, since=0.0)


class LeftTests(SynchronousTestCase):
    """A lane that nobody listens to any more is not heard."""

    def test_not_heard(self) -> None:
        """Neither what it reports nor that it is over."""
        dispatcher = FakeDispatcher()
        lane = QueueLane(SiteQueue(Site(name="example.com"), SITE_RULES, Clock()), dispatcher)
        dispatcher.picks, dispatcher.requests = [job("Q1")], [request(ticket=1)]
        Deferred.fromCoroutine(lane.next(None, 1))
        lane.left = True
        lane.report(report_of(request(ticket=1)))
        lane.over("it was")
        self.assertEqual((dispatcher.reports, dispatcher.ends), ([], []))


class OutdatedTests(SynchronousTestCase):
    """Nothing begins whose route was made under a configuration that is not in force any more."""

    def test_held(self) -> None:
        """A lane is held while it has been given such a job; not for what it will be given."""
        dispatcher = FakeDispatcher()
        lane = QueueLane(SiteQueue(Site(name="example.com"), SITE_RULES, Clock()), dispatcher)
        given = job("Q1")
        dispatcher.picks, dispatcher.requests = [given], [request(ticket=1)]
        Deferred.fromCoroutine(lane.next(None, 1))
        self.assertFalse(lane.held)
        given.outdated = True
        self.assertTrue(lane.held)
        lane.report(report_of(request(ticket=1)))
        self.assertFalse(lane.held)


class QueueLaneTests(SynchronousTestCase):
    """The queue's side of a lane gives jobs as requests and knows which are not reported yet."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.queue = SiteQueue(Site(name="example.com"), SITE_RULES, self.clock)
        self.dispatcher = FakeDispatcher()
        self.lane = QueueLane(self.queue, self.dispatcher)

    def next(self) -> Deferred[Turn]:
        """What is next."""
        return Deferred.fromCoroutine(self.lane.next(None, 1))

    def test_interface(self) -> None:
        """It is what the agent is given."""
        verifyObject(ILane, self.lane)
        self.assertEqual(self.lane.site.name, "example.com")

    def test_keep(self) -> None:
        """What the window leaves beside the lanes at work may rest."""
        self.queue.lanes = 2
        self.assertEqual(self.lane.keep, 3)
        self.queue.lanes = 9
        self.assertEqual(self.lane.keep, 0)

    def test_next(self) -> None:
        """A job becomes a request; its report goes back with it."""
        self.dispatcher.picks, self.dispatcher.requests = [job("a")], [request(ticket=7)]
        turn = self.successResultOf(self.next())
        self.assertEqual([each.ticket for each in turn.requests], [7])
        self.lane.report(report_of(turn.requests[0]))
        self.assertEqual((self.dispatcher.reports, self.lane.jobs), ([("a", 7)], {}))

    def test_unprepared(self) -> None:
        """A job whose content cannot be had is left out."""
        self.dispatcher.picks = [job("a"), job("b")]
        self.dispatcher.requests = [None, request(ticket=8)]
        turn = self.successResultOf(self.next())
        self.assertEqual([each.ticket for each in turn.requests], [8])
        self.assertEqual([each.message.queue_id for each in self.lane.jobs.values()], ["b"])

    def test_follow(self) -> None:
        """One whose content cannot be had is left out; where nothing may follow it says so."""
        self.dispatcher.followers = [job("a"), job("b")]
        self.dispatcher.requests = [None, request(ticket=8)]
        found = self.successResultOf(Deferred.fromCoroutine(self.lane.follow(carrier())))
        assert found is not None
        self.assertEqual(found.ticket, 8)
        self.assertEqual([each.message.queue_id for each in self.lane.jobs.values()], ["b"])
        self.assertIsNone(self.successResultOf(Deferred.fromCoroutine(self.lane.follow(carrier()))))

    def test_linger(self) -> None:
        """Nothing now: it waits for a moment, once."""
        self.dispatcher.picks = [LINGER, Turn(then=Then.SAVE)]
        running = self.next()
        self.assertNoResult(running)
        self.clock.advance(LINGER)
        self.assertIs(self.successResultOf(running).then, Then.SAVE)
        self.assertEqual(self.dispatcher.lingered, [False, True])

    def test_over(self) -> None:
        """What was not reported goes back."""
        self.dispatcher.picks, self.dispatcher.requests = [job("a")], [request(ticket=7)]
        self.next()
        self.lane.over("internal error")
        self.assertEqual((self.dispatcher.ends, self.lane.jobs), ([["a"]], {}))

    def test_patience(self) -> None:
        """As long as its last fifty transactions took; without end before there were so many."""
        routed = job("a")
        routed.route = self.successResultOf(Deferred.fromCoroutine(FakeRouter().route(Nexthop(host="example.com"))))
        for number in range(STARVING_AFTER - 1):
            self.lane.gave(routed, float(number))
        self.assertEqual((self.lane.patience(1000.0), self.lane.had_its_share), (float("inf"), False))
        self.lane.gave(routed, 49.0)
        self.assertEqual((self.lane.patience(1000.0), self.lane.had_its_share), (1000.0, True))
        self.lane.gave(routed, 50.0)
        self.assertEqual(self.lane.patience(1000.0), 999.0)
