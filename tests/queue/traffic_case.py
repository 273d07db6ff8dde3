"""
What the tests of traffic share: traffic with an agent that the test plays, and an owner that gives its jobs back.
"""

from __future__ import annotations

from itertools import count

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from smtpreuse.model.content import MemoryContent
from smtpreuse.model.delivery import Blame, DeliveryReport, DeliveryRequest, Ending, Then, Turn
from smtpreuse.model.nexthop import Nexthop
from smtpreuse.model.reuse import Carrier
from smtpreuse.model.route import Route, Site
from smtpreuse.queue.lane import QueueLane
from smtpreuse.queue.line import Job
from smtpreuse.queue.schedule import STUCK
from smtpreuse.queue.sitequeue import SiteQueue, SiteRules
from smtpreuse.queue.traffic import Traffic, TrafficRules
from tests.fakes import FakeCache, candidate
from tests.queue.world import SITE_RULES, START, BusyAgent, FakeAgent, message, no_session, report_of

ONE = candidate("mx1.example.com", "192.0.2.1")
TWO = candidate("mx2.example.com", "192.0.2.2")
PAUSE = 300.0


class FakeOwner:
    """
    Gives lanes what traffic says, and gives out again what is turned away at the door or left by a lane.

    @ivar taken_with: queue ids that lanes took, each with its site's window.
    @ivar turned_away: what was refused at the door.
    @ivar lost: what was taken out with its dead site, and why.
    """

    def __init__(self) -> None:
        self.held_up = False
        self.traffic: Traffic | None = None
        self.taken_with: list[tuple[str, int]] = []
        self.turned_away: list[str] = []
        self.lost: list[tuple[str, str]] = []
        self.revivals = 0
        self._tickets = count(1)

    def _all(self) -> Traffic:
        assert self.traffic is not None, "it is made with its owner"
        return self.traffic

    def pick(self, lane: QueueLane, carrier: Carrier | None, *, lingered: bool) -> Job | Turn | float:
        return self._all().pick(lane, carrier, lingered=lingered)

    def pick_follower(self, lane: QueueLane, carrier: Carrier) -> Job | None:
        return self._all().pick_follower(lane, carrier)

    async def prepared(self, job: Job) -> DeliveryRequest | None:
        given = job.message
        assert job.route is not None, "only routed jobs are queued"
        return DeliveryRequest(
            ticket=next(self._tickets), queue_id=given.queue_id, sender=given.sender, recipients=given.recipients,
            size=given.size, body=given.body, content=MemoryContent(b""), route=job.route, arrived=given.arrived,
            activated=job.since,
        )  # fmt: skip

    def reported(self, lane: QueueLane, job: Job, report: DeliveryReport) -> None:
        if self._all().learn(lane, report):
            self.turned_away.append(job.message.queue_id)
            self._again(job)

    def ended(self, lane: QueueLane, jobs: list[Job]) -> None:
        for job in jobs:
            self._again(job)
        self._all().left(lane)

    def _again(self, job: Job) -> None:
        assert job.route is not None, "only routed jobs are queued"
        self._all().put(job, job.route, frozenset(job.route.candidates))

    def taken(self, job: Job, queue: SiteQueue) -> None:
        self.taken_with.append((job.message.queue_id, queue.window.size))

    def suspended(self, jobs: list[Job], reason: str) -> None:
        self.lost += [(job.message.queue_id, reason) for job in jobs]

    def revived(self) -> None:
        self.revivals += 1


class TrafficCase(SynchronousTestCase):
    """Traffic with an agent that takes what it is given and holds it."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(START)
        self.cache = FakeCache()
        self.agent = BusyAgent()
        self.traffic = self.make(self.agent)

    def make(
        self, agent: BusyAgent | FakeAgent, *, lanes: int = 100, site: SiteRules = SITE_RULES
    ) -> Traffic:
        """With these rules."""
        self.owner = FakeOwner()
        rules = TrafficRules(site=site, lanes=lanes, pause=PAUSE)
        self.owner.traffic = Traffic(self.owner, agent, self.cache, self.clock, rules)
        return self.owner.traffic

    def route(self, host: str = "example.com", site: str = "") -> Route:
        """To a site of its own unless told otherwise; two domains of one site have one host each."""
        return Route(
            nexthop=Nexthop(host=host), site=Site(name=site or host), good_until=1e12,
            candidates=(TWO if host == "example.test" else ONE,),
        )  # fmt: skip

    def put(self, *names: str, host: str = "example.com", site: str = "") -> None:
        """Messages of these names are due there now."""
        route = self.route(host, site)
        for name in names:
            job = Job(message=message(name), hop=f"smtp:{host}", retry=False, since=self.clock.seconds())
            self.traffic.put(job, route, frozenset(route.candidates))

    def queue(self, name: str = "example.com") -> SiteQueue:
        """The books of this site."""
        return self.traffic.sites[name]

    def flying(self) -> list[str]:
        """Queue ids of what is in flight."""
        return [request.queue_id for request in self.agent.held.values()]

    def carried(self) -> list[str]:
        """Queue ids of all that was ever in flight."""
        return [request.queue_id for request in self.agent.carried]

    def over(self) -> list[Then]:
        """What sessions came to when their lanes were over."""
        return [turn.then for turn in self.agent.over]

    def end(self, ending: Ending = Ending.DELIVERED, status: str = "2.0.0", **values: object) -> None:
        """The oldest request in flight ends like this."""
        lane, now = self.agent.first(), self.clock.seconds()
        values = {"started": now, "ready": now, "finished": now, **values}
        self.agent.end(lane, report_of(self.agent.held[lane], ending, status, "host said: so", **values))

    def end_all(self) -> None:
        """All that is in flight, and all that follows, is delivered."""
        while self.agent.held:
            self.end()

    def deny(self, blame: Blame = Blame.SITE) -> None:
        """For the oldest request in flight there is no session."""
        lane = self.agent.first()
        self.agent.end(lane, no_session(self.agent.held[lane], blame, self.clock.seconds()))

    def two_lanes(self) -> None:
        """Two lanes have delivered a message each and wait for work."""
        self.put("Q1", "Q2")
        self.clock.advance(STUCK)
        self.assertEqual(self.flying(), ["Q1", "Q2"])
        self.end()
        self.end()
