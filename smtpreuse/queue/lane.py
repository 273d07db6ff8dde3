"""
The queue's side of a lane.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

from zope.interface import implementer

from smtpreuse.interfaces import ILane
from smtpreuse.model.delivery import DeliveryReport, DeliveryRequest, Then, Turn
from smtpreuse.model.reuse import Carrier
from smtpreuse.model.route import Site
from smtpreuse.queue.line import Job
from smtpreuse.queue.sitequeue import SiteQueue

# A request that the lane's session may not carry waits for as many transactions at most.
STARVING_AFTER = 50


class LaneKeeper(Protocol):
    """What a lane needs of the dispatcher; see there."""

    @property
    def held_up(self) -> bool:
        """Whether nothing may begin now."""

    def pick(self, lane: QueueLane, carrier: Carrier | None, *, lingered: bool) -> Job | Turn | float: ...

    def pick_follower(self, lane: QueueLane, carrier: Carrier) -> Job | None: ...

    def pick_more(self, lane: QueueLane, carrier: Carrier, most: int) -> list[Job]: ...

    def follow_after(self, lane: QueueLane, carrier: Carrier) -> int | None: ...

    async def prepared(self, job: Job) -> DeliveryRequest | None: ...

    def reported(self, lane: QueueLane, job: Job, report: DeliveryReport) -> None: ...

    def ended(self, lane: QueueLane, jobs: list[Job]) -> None: ...


@implementer(ILane)
class QueueLane:
    """
    @ivar queue: of its site.
    @ivar jobs: what it was given and has not reported, by ticket.
    @ivar preparing: what it will be given as soon as the content is there.
    @ivar destination: nexthop domain of the last request it was given.
    @ivar finished: UNIX time of its last report.
    @ivar left: whether nobody listens to it any more: what it carries stays as the queue has it.
    @ivar outdated: whether its session may be one that would not be opened any more, as the configuration has changed.
    @ivar closed: whether it is over.
    """

    def __init__(self, queue: SiteQueue, dispatcher: LaneKeeper) -> None:
        self.queue = queue
        self.jobs: dict[int, Job] = {}
        self.preparing: list[Job] = []
        self.destination = ""
        self.finished = 0.0
        self.left = False
        self.outdated = False
        self.closed = False
        self._dispatcher = dispatcher
        self._given: deque[float] = deque(maxlen=STARVING_AFTER)

    @property
    def site(self) -> Site:
        """Whose work it gives."""
        return self.queue.site

    @property
    def keep(self) -> int:
        """How many sessions may rest beside those at work."""
        return max(0, self.queue.window.size - self.queue.lanes)

    @property
    def held(self) -> bool:
        """Whether no transaction may begin now, or not with what it was given: the route may be another one by now."""
        return self._dispatcher.held_up or any(job.outdated for job in self.jobs.values())

    def patience(self, now: float) -> float:
        """How long a request of another kind may have waited before it goes first, in seconds."""
        return now - self._given[0] if len(self._given) == STARVING_AFTER else float("inf")

    @property
    def had_its_share(self) -> bool:
        """Whether it has worked for long enough to make room where others wait for a lane."""
        return len(self._given) == STARVING_AFTER

    def taken(self) -> list[Job]:
        """What it has taken from the queue and not reported."""
        return [*self.jobs.values(), *self.preparing]

    def gave(self, job: Job, now: float) -> None:
        """A job was given."""
        assert job.route is not None, "only routed jobs are queued"
        self.destination = job.route.nexthop.host
        self._given.append(now)

    async def next(self, carrier: Carrier | None, most: int) -> Turn:
        lingered = False
        while not self.closed:
            picked = self._dispatcher.pick(self, carrier, lingered=lingered)
            if isinstance(picked, Turn):
                return picked
            if isinstance(picked, float):
                await self.queue.linger(picked)
                lingered = True
                continue
            jobs, after = [picked], None
            if carrier is not None and most > 1:
                # So that a lane in another process need not ask for each.
                jobs += self._dispatcher.pick_more(self, carrier, most - 1)
                after = self._dispatcher.follow_after(self, carrier)
            requests = await self._prepared(jobs)
            if requests:
                return Turn(requests=requests, follow_after=after)
        return Turn(then=Then.QUIT)

    async def follow(self, carrier: Carrier) -> DeliveryRequest | None:
        while (job := self._dispatcher.pick_follower(self, carrier)) is not None:
            for request in await self._prepared([job]):
                return request
        return None

    async def _prepared(self, jobs: list[Job]) -> tuple[DeliveryRequest, ...]:
        """The requests of these jobs, as far as their content can be had."""
        self.preparing += jobs
        requests: list[DeliveryRequest] = []
        for job in jobs:
            request = await self._dispatcher.prepared(job)
            if self.closed:
                # All went back when the lane was over.
                return ()
            self.preparing.remove(job)
            if request is not None:
                self.jobs[request.ticket] = job
                requests.append(request)
        return tuple(requests)

    def dotted(self, ticket: int) -> None:
        """Nothing to be noted: what comes to an end with the lane's process comes to an end with this one."""

    def report(self, report: DeliveryReport) -> None:
        if self.left:
            return
        self._dispatcher.reported(self, self.jobs.pop(report.ticket), report)

    def over(self, reason: str) -> None:
        if self.left:
            return
        self.closed = True
        jobs = self.taken()
        self.jobs.clear()
        self.preparing.clear()
        self._dispatcher.ended(self, jobs)
