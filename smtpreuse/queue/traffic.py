"""
Which site gets how many lanes, and what a lane carries next.

It applies what C{queue.schedule} decides to the books of each site. It knows nothing of hops, of the spool, or of what
becomes of recipients. Source of its behaviour: Postfix's qmgr(8), C{qmgr_queue.c}.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from attrs import evolve, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from smtpreuse.interfaces import IDeliveryAgent, IResting
from smtpreuse.model.delivery import Blame, DeliveryReport, Ending, Then, Turn
from smtpreuse.model.reuse import Carrier
from smtpreuse.model.route import Route
from smtpreuse.queue.lane import LaneKeeper, QueueLane
from smtpreuse.queue.line import Job, Likeness
from smtpreuse.queue.schedule import BACK_TO_BACK, STUCK, hint, wants_lane
from smtpreuse.queue.sitequeue import LINGER, SiteQueue, SiteRules

# A batch crosses a process border as a whole, and a lane that comes to an end gives back what is left of it.
_BATCH_OCTETS = 262_144


@frozen(kw_only=True)
class TrafficRules:
    """
    @ivar lanes: lanes at work in all, above the sites' own limits; sessions at rest count too and make way.
    @ivar pause: for how many seconds a dead site is left alone.
    """

    site: SiteRules
    lanes: int
    pause: float


class Owner(LaneKeeper, Protocol):
    """Whose jobs these are."""

    def taken(self, job: Job, queue: SiteQueue) -> None:
        """A lane of this site takes this job."""

    def suspended(self, jobs: list[Job], reason: str) -> None:
        """These jobs' site is dead for a while."""

    def revived(self) -> None:
        """A site may be tried again."""


class Traffic:
    """
    @ivar sites: by name, those that have something to do or to remember.
    @ivar lanes: at work.
    """

    log = Logger()

    def __init__(
        self, owner: Owner, agent: IDeliveryAgent, cache: IResting, clock: IReactorTime, rules: TrafficRules
    ) -> None:
        self.sites: dict[str, SiteQueue] = {}
        self.lanes: set[QueueLane] = set()
        self._owner = owner
        self._agent = agent
        self._cache = cache
        self._clock = clock
        self._rules = rules
        self._short: dict[str, SiteQueue] = {}
        self._over: Deferred[None] | None = None

    def adopt(self, rules: TrafficRules) -> None:
        """Go by these rules from now on, at all sites; lanes beyond a new limit end after what they carry."""
        self._rules = rules
        for queue in self.sites.values():
            queue.adopt(rules.site)

    def recall(self) -> list[Job]:
        """
        No route is good any more. What lanes were given they may still carry where the transaction has begun; their
        sessions may rest again when they were found to be what a new route asks for.

        @return: the jobs that no lane has taken, those that have been due for longest first.
        """
        for lane in self.lanes:
            lane.outdated = True
            for job in lane.taken():
                job.outdated = True
        return sorted(self.withdraw(lambda job: True), key=lambda job: job.since)

    def wake_all(self) -> None:
        """No lane waits any longer for what may come."""
        for queue in list(self.sites.values()):
            queue.wake_all()

    def put(self, job: Job, route: Route, likeness: Likeness) -> None:
        """A job is due at its route's site."""
        job.route = route
        job.outdated = False
        queue = self.sites.get(route.site.name)
        if queue is None:
            queue = self.sites[route.site.name] = SiteQueue(route.site, self._rules.site, self._clock)
        if queue.window.dead_until > self._clock.seconds() and not self._owner.held_up:
            # It would take a place in memory for as long as the pause lasts.
            self._owner.suspended([job], queue.suspension)
            return
        queue.lines.put(job, likeness)
        if not queue.wake():
            self.open_lanes(queue)

    def window(self, route: Route | None) -> int:
        """How many sessions the site of this route may have; 0 while it is dead."""
        queue = self.sites.get(route.site.name) if route is not None else None
        if queue is None:
            return self._rules.site.initial
        return 0 if queue.window.dead_until > self._clock.seconds() else queue.window.size

    def withdraw(self, which: Callable[[Job], bool]) -> list[Job]:
        """Take jobs out that no lane has taken."""
        return [job for queue in list(self.sites.values()) for job in queue.lines.remove(which)]

    def try_all(self, *, dead: bool = False) -> None:
        """
        Open lanes wherever something is due.

        @param dead: also where a site was to be left alone.
        """
        for queue in list(self.sites.values()):
            if dead:
                queue.window.dead_until = 0.0
            self.open_lanes(queue)

    async def end(self) -> None:
        """Let all lanes end what they carry; the owner lets nothing begin."""
        self.wake_all()
        while self.lanes:
            self._over = Deferred()
            await self._over
        for queue in self.sites.values():
            queue.stop()

    def leave(self) -> None:
        """Listen to no lane any more."""
        for lane in self.lanes:
            lane.left = True

    def tidy(self) -> None:
        """Forget sites that have nothing to do and nothing to remember."""
        now = self._clock.seconds()
        for name in [name for name, queue in self.sites.items() if queue.forgettable(now)]:
            del self.sites[name]

    # Lanes

    def open_lanes(self, queue: SiteQueue) -> None:
        """As many as are worth opening for what is due."""
        now = self._clock.seconds()
        if self._owner.held_up:
            return
        if queue.window.dead_until > now:
            queue.later(queue.window.dead_until, self._revive)
            return
        if queue.not_before > now:
            queue.later(queue.not_before, self.open_lanes)
            return
        while len(self.lanes) < self._rules.lanes and wants_lane(
            len(queue.lines), queue.lanes, queue.window.size, queue.pace, queue.waited(now)
        ):
            self._open_lane(queue)
        if not queue.lines or queue.lanes >= queue.window.size:
            return
        if len(self.lanes) >= self._rules.lanes:
            self._short[queue.site.name] = queue
            # A lane that only lingers makes room.
            any(other.wake() for other in self.sites.values())
        else:
            queue.later(now - queue.waited(now) + STUCK, self.open_lanes)

    def _open_lane(self, queue: SiteQueue) -> None:
        lane = QueueLane(queue, self._owner)
        queue.lanes += 1
        self.lanes.add(lane)
        room = self._rules.lanes - len(self.lanes)
        if self._cache.resting(None) > room:
            Deferred.fromCoroutine(self._cache.drop(None, room)).addErrback(
                lambda failure: self.log.failure("sessions at rest were not ended", failure=failure)
            )
        self._agent.work(lane)

    def pick(self, lane: QueueLane, carrier: Carrier | None, *, lingered: bool) -> Job | Turn | float:
        """
        What a lane does next.

        @param lingered: whether it has just waited for more to come.
        @return: a job, an empty turn, or for how many seconds to linger.
        """
        picked = self._pick(lane, carrier, lingered=lingered)
        if lane.outdated and isinstance(picked, Turn) and picked.then is Then.SAVE:
            # It was opened by rules that hold no more, and nothing has shown that it is good for what holds now.
            return evolve(picked, then=Then.QUIT)
        return picked

    def _pick(self, lane: QueueLane, carrier: Carrier | None, *, lingered: bool) -> Job | Turn | float:
        queue, now = lane.queue, self._clock.seconds()
        if self._stopped(queue, now):
            return Turn(then=Then.QUIT)
        if queue.not_before > now:
            return Turn(then=Then.SAVE)
        if carrier is not None and (turn := self._enough(lane, carrier, now)) is not None:
            return turn
        job = self._take(lane, carrier, now)
        if job is not None:
            return job
        if carrier is None:
            return Turn()
        if queue.lines:
            return Turn(then=Then.SAVE, more=True)
        then = hint(now, queue.rest(lane.destination))
        if lingered or self._short or not queue.rules.on_demand:
            return Turn(then=then)
        # A completion within the next second would have the session kept: so it is not over before that second is.
        return LINGER if then is Then.SAVE else BACK_TO_BACK

    def pick_follower(self, lane: QueueLane, carrier: Carrier) -> Job | None:
        """
        What may go in the same flight behind what a lane's session carries.

        @return: L{None} when nothing is due for it, or the site does not allow for that.
        """
        queue, now = lane.queue, self._clock.seconds()
        if self._stopped(queue, now) or not queue.overlaps(carrier, now) or self._enough(lane, carrier, now):
            return None
        return self._take(lane, carrier, now)

    def pick_more(self, lane: QueueLane, carrier: Carrier, most: int) -> list[Job]:
        """
        What a session may be given in one batch besides what it was just given: as much as it is likely to carry in a
        moment, and no more than its share of what is due.

        @param most: jobs.
        """
        queue, now, octets = lane.queue, self._clock.seconds(), 0
        jobs: list[Job] = []
        left = min(most, queue.batch(carrier, now) - 1)
        while len(jobs) < left and octets < _BATCH_OCTETS:
            job = self._take(lane, carrier, now)
            if job is None:
                break
            octets += job.message.size
            jobs.append(job)
        return jobs

    def follow_after(self, lane: QueueLane, carrier: Carrier) -> int | None:
        """Since which use of a session an envelope may share a flight with content; L{None} where none may."""
        return lane.queue.overlap_after(carrier, self._clock.seconds())

    def _stopped(self, queue: SiteQueue, now: float) -> bool:
        """Whether a lane of this site is to begin nothing more."""
        if self._owner.held_up or queue.window.dead_until > now:
            return True
        return queue.lanes > queue.window.size or len(self.lanes) > self._rules.lanes

    def _take(self, lane: QueueLane, carrier: Carrier | None, now: float) -> Job | None:
        job = lane.queue.take(carrier, now)
        if job is not None:
            lane.outdated = False
            lane.gave(job, now)
            self._owner.taken(job, lane.queue)
        return job

    def _enough(self, lane: QueueLane, carrier: Carrier, now: float) -> Turn | None:
        """Why a session gets nothing more, though there may be something that it could carry."""
        queue = lane.queue
        most = queue.message_limit.most(now)
        if most and carrier.facts.uses >= most:
            return Turn(then=Then.QUIT, more=bool(queue.lines))
        if queue.starving(carrier, lane.patience(now), now):
            return Turn(then=Then.SAVE, more=True)
        if lane.had_its_share and self._short.keys() - {queue.site.name}:
            return Turn(then=Then.SAVE)
        return None

    def left(self, lane: QueueLane) -> None:
        """A lane is over; what it has not reported was taken back before."""
        self.lanes.discard(lane)
        lane.queue.lanes -= 1
        over, self._over = self._over, None
        if over is not None:
            over.callback(None)
        # For the sites that had to do without, in turn, and then for the one whose lane it was.
        short, self._short = self._short, {}
        short.pop(lane.queue.site.name, None)
        for queue in [*short.values(), lane.queue]:
            self.open_lanes(queue)

    # What reports teach

    def learn(self, lane: QueueLane, report: DeliveryReport) -> bool:
        """
        Let a site's limits learn from a report.

        @return: whether the request goes back into the line untouched, as it was turned away at the door only.
        """
        queue, now = lane.queue, report.finished
        if report.uses == 1:
            queue.pace.connected(report.ready - report.started)
        # What was left untouched says nothing of the site's pace, and is no sign that it does well.
        carried = report.uses and any(each.ending is not Ending.UNTOUCHED for each in report.outcomes)
        if carried:
            # Where it followed another in one flight, what counts is how long the next one would have had to wait.
            queue.pace.carried(now - max(report.ready, lane.finished))
            queue.completed(now)
            lane.finished = now
        if report.derailed:
            queue.derailed(now)
        if report.full:
            queue.message_limit.ended(report.uses - 1, report.opened, now)
        others = queue.lanes - 1 + self._cache.resting(queue.site)
        if report.blame is Blame.THROTTLED and not report.uses and others:
            queue.window.refused(others, now)
            return True
        dead = queue.window.dead_until > now
        if report.blame is Blame.NOBODY and carried:
            queue.window.succeeded(queue.lanes, now)
        elif report.blame is Blame.THROTTLED and report.uses:
            queue.window.throttled()
        elif report.blame in (Blame.SITE, Blame.THROTTLED) and queue.window.failed(now, self._rules.pause):
            # Also where it lets nobody in at all, however polite its words.
            self._suspend(queue, report.outcomes[0].text)
        if dead and not queue.window.dead_until:
            # What was left in the spool need not wait for the pause to be over.
            self._revive(queue)
        return False

    def _suspend(self, queue: SiteQueue, reason: str) -> None:
        self.log.warn("site suspended: site={site} reason={reason}", site=queue.site.name, reason=reason)
        queue.later(queue.window.dead_until, self._revive)
        queue.suspension = f"delivery temporarily suspended: {reason}"
        if not self._owner.held_up:
            # What the service leaves waiting when it ends goes at its next start.
            self._owner.suspended(queue.lines.remove(lambda job: True), queue.suspension)

    def _revive(self, queue: SiteQueue) -> None:
        self.open_lanes(queue)
        self._owner.revived()
