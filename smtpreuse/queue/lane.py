"""
The queue's side of a lane.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

from zope.interface import implementer

from smtpreuse.interfaces import ILane
from smtpreuse.model.delivery import DeliveryReport, DeliveryRequest, Turn
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

    async def prepared(self, job: Job) -> DeliveryRequest | None: ...

    def reported(self, lane: QueueLane, job: Job, report: DeliveryReport) -> None: ...

    def ended(self, lane: QueueLane, jobs: list[Job]) -> None: ...


@implementer(ILane)
class QueueLane:
    """
    @ivar queue: of its site.
    @ivar jobs: what it was given and has not reported, by ticket.
    @ivar preparing: what it will be given as soon as its content is there.
    @ivar destination: nexthop domain of the last request it was given.
    @ivar finished: UNIX time of its last report.
    @ivar left: whether nobody listens to it any more: what it carries stays as the queue has it.
    @ivar outdated: whether its session may be one that would not be opened any more, as the configuration has changed.
    """

    def __init__(self, queue: SiteQueue, dispatcher: LaneKeeper) -> None:
        self.queue = queue
        self.jobs: dict[int, Job] = {}
        self.preparing: Job | None = None
        self.destination = ""
        self.finished = 0.0
        self.left = False
        self.outdated = False
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
        return [*self.jobs.values(), *([self.preparing] if self.preparing is not None else [])]

    def gave(self, job: Job, now: float) -> None:
        """A job was given."""
        assert job.route is not None, "only routed jobs are queued"
        self.destination = job.route.nexthop.host
        self._given.append(now)

    async def next(self, carrier: Carrier | None, most: int) -> Turn:
        lingered = False
        while True:
            picked = self._dispatcher.pick(self, carrier, lingered=lingered)
            if isinstance(picked, Turn):
                return picked
            if isinstance(picked, float):
                await self.queue.linger(picked)
                lingered = True
                continue
            request = await self._prepared(picked)
            if request is not None:
                return Turn(requests=(request,))

    async def follow(self, carrier: Carrier) -> DeliveryRequest | None:
        while (job := self._dispatcher.pick_follower(self, carrier)) is not None:
            request = await self._prepared(job)
            if request is not None:
                return request
        return None

    async def _prepared(self, job: Job) -> DeliveryRequest | None:
        self.preparing = job
        request = await self._dispatcher.prepared(job)
        self.preparing = None
        if request is not None:
            self.jobs[request.ticket] = job
        return request

    def report(self, report: DeliveryReport) -> None:
        if self.left:
            return
        self._dispatcher.reported(self, self.jobs.pop(report.ticket), report)

    def over(self, reason: str) -> None:
        if self.left:
            return
        jobs = self.taken()
        self.jobs.clear()
        self.preparing = None
        self._dispatcher.ended(self, jobs)
