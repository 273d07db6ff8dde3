"""
The queue manager: takes messages up, gives them to lanes, and has it recorded what became of them.

It decides through C{queue.schedule} and knows nothing of SMTP. What is in memory is what can soon be used; the rest
waits in the spool until C{queue.loader} brings it. Source of its behaviour: Postfix's qmgr(8).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from random import Random

from attrs import evolve, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from smtpreuse.errors import AddressError, DeliveryProblem, SpoolError
from smtpreuse.interfaces import IConnectionCache, IDeliveryAgent, IMailLog, IRouter, ISpool
from smtpreuse.model import logline
from smtpreuse.model.content import Content, MemoryContent
from smtpreuse.model.delivery import Blame, DeliveryReport, DeliveryRequest, Ending, Outcome, Then, Turn
from smtpreuse.model.message import Message, Recipient
from smtpreuse.model.nexthop import Nexthop
from smtpreuse.model.queueview import Committed, Counters, Recorded
from smtpreuse.model.reuse import Carrier
from smtpreuse.queue.contentcache import ContentCache
from smtpreuse.queue.hop import Hop
from smtpreuse.queue.lane import QueueLane
from smtpreuse.queue.ledger import Ledger
from smtpreuse.queue.line import Job
from smtpreuse.queue.loader import Loader
from smtpreuse.queue.lookups import Lookups
from smtpreuse.queue.returns import Returns
from smtpreuse.queue.schedule import STUCK, RetryRules, Settled, hint, settle, wants_lane
from smtpreuse.queue.sitequeue import SiteQueue, SiteRules


@frozen(kw_only=True)
class DispatchRules:
    """
    What main.cf says of the queue; durations in seconds.

    @ivar active_limit: messages in memory.
    @ivar recipient_limit: recipients of one request.
    @ivar lane_limit: lanes at work in all, above the sites' own limits; sessions at rest count too and make way.
    @ivar request_sessions: sessions that one request may have in one attempt, 0 for no limit.
    """

    site: SiteRules
    retry: RetryRules
    active_limit: int
    recipient_limit: int
    lane_limit: int
    request_sessions: int


class Dispatcher:
    """
    @ivar draining: whether nothing new is begun because the service is about to end.
    @ivar sites: by name, those that have something to do or to remember.
    """

    log = Logger()

    def __init__(
        self, spool: ISpool, router: IRouter, agent: IDeliveryAgent, cache: IConnectionCache, maillog: IMailLog,
        clock: IReactorTime, rules: DispatchRules, *, contents: ContentCache, returns: Returns, random: Random,
    ) -> None:  # fmt: skip
        self.draining = False
        self.sites: dict[str, SiteQueue] = {}
        self._spool = spool
        self._router = router
        self._agent = agent
        self._cache = cache
        self._maillog = maillog
        self._clock = clock
        self._rules = rules
        self._contents = contents
        self._returns = returns
        self._random = random
        self._tickets = count(1)
        self._hops: dict[str, Hop] = {}
        self._active: dict[str, int] = {}
        self._lanes: set[QueueLane] = set()
        self._drained: Deferred[None] | None = None
        self._short: dict[str, SiteQueue] = {}
        self._counts = {"delivered": 0, "reused": 0, "deferred": 0, "bounced": 0}
        self._ledger = Ledger(spool, clock, self._committed, self._work_on)
        self._lookups = Lookups(self._resolve)
        self._loader = Loader(spool, clock, self, rules.recipient_limit)

    # Life

    def start(self) -> None:
        """Begin to take up what the spool has."""
        self._loader.start(max(0.2, min(self._rules.retry.minimal_backoff / 10, 30.0)))

    async def drain(self) -> None:
        """Begin nothing new, let what is under way end, record it all."""
        self.draining = True
        self._loader.stop()
        for queue in self.sites.values():
            queue.wake_all()
        while self._lanes:
            waiter: Deferred[None] = Deferred()
            self._drained = waiter
            await waiter
        for queue in self.sites.values():
            queue.stop()
        await self.settled()

    async def settled(self) -> None:
        """Wait until all that became of mail so far is recorded."""
        await self._returns.settled()
        await self._ledger.settled()

    def trouble(self) -> str | None:
        """Why no mail can be taken now, or L{None}."""
        return self._ledger.trouble

    def active(self) -> set[str]:
        """Queue ids of what is in memory."""
        return set(self._active)

    def in_flight(self) -> set[str]:
        """Queue ids of what lanes carry."""
        return {job.message.queue_id for lane in self._lanes for job in lane.taken()}

    def counters(self) -> Counters:
        """What was done since the start."""
        return Counters(**self._counts)

    def changed(self, deleted: Sequence[str]) -> None:
        """The queue was changed by its operator: forget what is gone, look for what is due."""
        gone = frozenset(deleted)
        for queue in list(self.sites.values()):
            for job in queue.lines.remove(lambda job: job.message.queue_id in gone):
                self._hops[job.hop].waiting -= len(job.message.recipients)
                self._forget(job)
        for hop in list(self._hops.values()):
            hop.unrouted, jobs = [job for job in hop.unrouted if job.message.queue_id not in gone], hop.unrouted
            for job in jobs:
                if job.message.queue_id in gone:
                    hop.waiting -= len(job.message.recipients)
                    self._forget(job)
        for queue_id in deleted:
            self._contents.drop(queue_id)
        for queue in list(self.sites.values()):
            queue.window.dead_until = 0.0
            self._open_lanes(queue)
        self._loader.rescan()

    # Taking up

    def accepted(self, message: Message, content: Content) -> None:
        """A message was stored: take it up at once if there is room, else leave it to the loader."""
        if message.held or self.draining:
            return
        if isinstance(content, MemoryContent):
            self._contents.put(message.queue_id, content.octets)
        for text in {recipient.hop: None for recipient in message.recipients}:
            hop = self.hop(text)
            # The loader may have found them in the spool before we were told of them.
            recipients = tuple(
                each for each in message.recipients if each.hop == text and each.row not in hop.rows
            )
            if not recipients:
                continue
            if hop.backlog or self.full or self.room(hop) <= 0:
                hop.backlog = True
                self._loader.want(hop)
            else:
                self.take_up(hop, evolve(message, recipients=recipients), len(message.recipients))

    @property
    def full(self) -> bool:
        """Whether no further message may be held in memory."""
        return len(self._active) >= self._rules.active_limit

    def hop(self, text: str) -> Hop:
        """The books of a hop."""
        hop = self._hops.get(text)
        if hop is None:
            hop = self._hops[text] = Hop(text)
        return hop

    def room(self, hop: Hop) -> int:
        """How many recipients of this hop may be loaded."""
        queue = self.sites.get(hop.route.site.name) if hop.route is not None else None
        if queue is not None and queue.window.dead_until > self._clock.seconds():
            return 0
        return hop.room(queue.window.size if queue is not None else self._rules.site.initial)

    def tidy(self) -> None:
        """Forget hops and sites that have nothing to do."""
        for text in [text for text, hop in self._hops.items() if hop.idle]:
            del self._hops[text]
        for name in [name for name, queue in self.sites.items() if queue.forgettable(self._clock.seconds())]:
            del self.sites[name]

    def take_up(self, hop: Hop, message: Message, nrcpt: int = 0) -> None:
        """
        Make requests of a message whose recipients go to this hop.

        @param nrcpt: recipients of the whole message, 0 where they are not known.
        """
        now = self._clock.seconds()
        if message.queue_id not in self._active:
            self._active[message.queue_id] = 0
            self._maillog.write(
                "qmgr",
                logline.active(message.queue_id, message.sender, message.size, nrcpt or len(message.recipients)),
            )
        limit = self._rules.recipient_limit
        for start in range(0, len(message.recipients), limit):
            recipients = message.recipients[start : start + limit]
            self._active[message.queue_id] += len(recipients)
            rows = [each.row for each in recipients]
            hop.rows.update(rows)
            if hop.loading:
                hop.meanwhile.update(rows)
            hop.waiting += len(recipients)
            whole = len(recipients) == len(message.recipients)
            job = Job(
                message=message if whole else evolve(message, recipients=recipients), hop=hop.text,
                retry=any(each.attempts for each in recipients), since=now,
            )  # fmt: skip
            self._place(hop, job)

    def _place(self, hop: Hop, job: Job) -> None:
        if hop.transport != "smtp":
            self._answer_here(hop, job)
        elif hop.route is not None and hop.route.good_until > self._clock.seconds():
            self._enqueue(hop, job)
        else:
            hop.unrouted.append(job)
            if not hop.resolving:
                hop.resolving = True
                self._lookups.want(hop)

    async def _resolve(self, hop: Hop) -> None:
        problem: DeliveryProblem | None = None
        try:
            hop.route = await self._router.route(Nexthop.parse(hop.nexthop))
        except DeliveryProblem as error:
            problem = error
        except AddressError as error:
            problem = DeliveryProblem("5.1.2", str(error))
        except Exception:
            self.log.failure("routing failed: {hop}", hop=hop.text)
            problem = DeliveryProblem("4.3.0", f"internal error while routing {hop.nexthop}")
        hop.resolving = False
        jobs, hop.unrouted = hop.unrouted, []
        if problem is None:
            assert hop.route is not None
            hop.likeness = frozenset(hop.route.candidates)
        for job in jobs:
            if problem is None:
                self._enqueue(hop, job)
            else:
                hop.waiting -= len(job.message.recipients)
                self._finish(job, self._own_report(job, problem.status, problem.text), "smtp")
        if problem is not None and hop.backlog:
            # No lane will come to ask for the rest.
            self._loader.want(hop)

    def _answer_here(self, hop: Hop, job: Job) -> None:
        """What needs no session."""
        hop.waiting -= len(job.message.recipients)
        if hop.transport == "discard":
            report = self._own_report(job, "2.0.0", hop.nexthop or "discarded")
        elif hop.transport == "hold":
            report = self._own_report(job, "4.3.0", "held by transport_maps; it was routed there after it came in")
        else:
            status, _, text = hop.nexthop.partition(" ")
            if not (status[:2] in ("4.", "5.") and text):
                status, text = "5.0.0", hop.nexthop
            report = self._own_report(job, status, text)
        self._finish(job, report, hop.transport)

    def _own_report(self, job: Job, status: str, text: str) -> DeliveryReport:
        now = self._clock.seconds()
        ending = Ending.DELIVERED if status[0] == "2" else Ending.REFUSED
        outcomes = tuple(
            Outcome(recipient=each, ending=ending, status=status, text=text) for each in job.message.recipients
        )
        return DeliveryReport(
            ticket=0, outcomes=outcomes, started=now, ready=now, finished=now, exhausted=True,
            blame=Blame.OURSELVES,
        )  # fmt: skip

    # Sites and lanes

    def _enqueue(self, hop: Hop, job: Job) -> None:
        assert hop.route is not None, "only routed jobs are queued"
        job.route = hop.route
        name = hop.route.site.name
        queue = self.sites.get(name)
        if queue is None:
            queue = self.sites[name] = SiteQueue(hop.route.site, self._rules.site, self._clock)
        queue.lines.put(job, hop.likeness)
        if not queue.wake():
            self._open_lanes(queue)

    def _open_lanes(self, queue: SiteQueue) -> None:
        now = self._clock.seconds()
        if self.draining or self._ledger.trouble:
            return
        if queue.window.dead_until > now:
            queue.later(queue.window.dead_until, self._revive)
            return
        if queue.not_before > now:
            queue.later(queue.not_before, self._open_lanes)
            return
        while len(self._lanes) < self._rules.lane_limit and wants_lane(
            len(queue.lines), queue.lanes, queue.window.size, queue.pace, queue.waited(now)
        ):
            self._open_lane(queue)
        if not queue.lines or queue.lanes >= queue.window.size:
            return
        if len(self._lanes) >= self._rules.lane_limit:
            self._short[queue.site.name] = queue
        else:
            queue.later(now - queue.waited(now) + STUCK, self._open_lanes)

    def _open_lane(self, queue: SiteQueue) -> None:
        lane = QueueLane(queue, self)
        queue.lanes += 1
        self._lanes.add(lane)
        room = self._rules.lane_limit - len(self._lanes)
        if self._cache.resting(None) > room:
            Deferred.fromCoroutine(self._cache.drop(None, room)).addErrback(
                lambda failure: self.log.failure("sessions at rest were not ended", failure=failure)
            )
        self._agent.work(lane)

    def _share_lanes(self, last: SiteQueue) -> None:
        """A lane is free: for the sites that had to do without, in turn, and then for the one whose it was."""
        short, self._short = self._short, {}
        short.pop(last.site.name, None)
        for queue in [*short.values(), last]:
            self._open_lanes(queue)

    def _work_on(self) -> None:
        """Something that held all lanes up is over; what became due meanwhile was due too early to be found again."""
        for queue in list(self.sites.values()):
            self._open_lanes(queue)
        self._loader.rescan()

    def pick(self, lane: QueueLane, carrier: Carrier | None, *, lingered: bool) -> Job | Turn | None:
        """
        What a lane does next: a job, an empty turn, or L{None}: wait a moment.
        """
        queue, now = lane.queue, self._clock.seconds()
        if self.draining or self._ledger.trouble or queue.window.dead_until > now or queue.lanes > queue.window.size:
            return Turn(then=Then.QUIT)
        if queue.not_before > now:
            return Turn(then=Then.SAVE)
        if carrier is not None:
            most = queue.message_limit.most(now)
            if most and carrier.facts.uses >= most:
                return Turn(then=Then.QUIT, more=bool(queue.lines))
            if queue.starving(carrier, lane.patience(now), now):
                return Turn(then=Then.SAVE, more=True)
            if lane.had_its_share and self._short.keys() - {queue.site.name}:
                return Turn(then=Then.SAVE)
        job = queue.take(carrier, now)
        if job is not None:
            hop = self._hops[job.hop]
            hop.waiting -= len(job.message.recipients)
            lane.gave(now)
            assert job.route is not None, "only routed jobs are queued"
            lane.destination = job.route.nexthop.host
            if hop.backlog and 2 * hop.waiting <= hop.room(queue.window.size):
                self._loader.want(hop)
            return job
        if carrier is not None and queue.lines:
            return Turn(then=Then.SAVE, more=True)
        if carrier is None:
            return Turn()
        then = hint(now, queue.rest(lane.destination))
        return Turn(then=then) if lingered or then is Then.QUIT else None

    async def prepared(self, job: Job) -> DeliveryRequest | None:
        """
        The request with its content.

        @return: L{None} when the content cannot be had. The spool has put the message aside then; where it has not, it
            can give it again.
        """
        queue_id = job.message.queue_id
        octets = self._contents.get(queue_id)
        try:
            content = MemoryContent(octets) if octets is not None else await self._spool.content(queue_id)
        except SpoolError as error:
            self.log.error("{queue_id}: content cannot be read: {reason}", queue_id=queue_id, reason=str(error))
            self._forget(job)
            self._loader.want_later(self.hop(job.hop))
            return None
        message = job.message
        assert job.route is not None, "only routed jobs are queued"
        return DeliveryRequest(
            ticket=next(self._tickets), queue_id=queue_id, sender=message.sender, recipients=message.recipients,
            size=message.size, body=message.body, content=content, route=job.route, arrived=message.arrived,
            activated=job.since, tried=job.tried, sessions=job.sessions, fresh=job.fresh,
        )  # fmt: skip

    def ended(self, lane: QueueLane, jobs: list[Job]) -> None:
        """
        A lane is over; what it did not report goes to another, untouched. What does so twice is deferred: the fault may
        well be with it, and its next lane would meet it at once.
        """
        self._lanes.discard(lane)
        queue = lane.queue
        queue.lanes -= 1
        for job in jobs:
            if job.stranded:
                self._finish(job, self._own_report(job, "4.3.0", "internal error while it was being sent"), "smtp")
            else:
                job.stranded = True
                self._again(job, job.message.recipients)
        if self.draining:
            if not self._lanes and self._drained is not None:
                waiter, self._drained = self._drained, None
                waiter.callback(None)
        else:
            self._share_lanes(queue)

    # What became of it

    def reported(self, lane: QueueLane, job: Job, report: DeliveryReport) -> None:
        """A lane reports the end of a request."""
        queue, now = lane.queue, report.finished
        others = queue.lanes - 1 + self._cache.resting(queue.site)
        dead = queue.window.dead_until > now
        if report.uses == 1:
            queue.pace.connected(report.ready - report.started)
        if report.uses:
            queue.pace.carried(report.finished - report.ready)
            queue.completed(now)
        if report.full:
            queue.message_limit.ended(report.uses - 1, now)
        if report.blame is Blame.NOBODY:
            if report.uses:
                queue.window.succeeded(queue.lanes, now)
        elif report.blame is Blame.THROTTLED and not report.uses and others:
            queue.window.refused(others, now)
            self._again(job, job.message.recipients)
            return
        elif report.blame is Blame.THROTTLED and report.uses:
            queue.window.throttled()
        elif report.blame is not Blame.OURSELVES and queue.window.failed(now, self._rules.retry.minimal_backoff):
            # Also where it lets nobody in at all, however polite its words.
            self._suspend(queue, report.outcomes[0].text)
        self._finish(job, report, "smtp")
        if dead and not queue.window.dead_until:
            # What was left in the spool need not wait for the pause to be over.
            self._revive(queue)

    def _suspend(self, queue: SiteQueue, reason: str) -> None:
        """The site is dead for a while: what waits for it is deferred without an attempt."""
        self.log.warn("site suspended: site={site} reason={reason}", site=queue.site.name, reason=reason)
        text = f"delivery temporarily suspended: {reason}"
        for job in queue.lines.remove(lambda job: True):
            self._hops[job.hop].waiting -= len(job.message.recipients)
            self._finish(job, self._own_report(job, "4.4.1", text), "smtp")
        queue.later(queue.window.dead_until, self._revive)

    def _revive(self, queue: SiteQueue) -> None:
        self._open_lanes(queue)
        self._loader.rescan()

    def _finish(self, job: Job, report: DeliveryReport, program: str) -> None:
        message = job.message
        settled = settle(
            message.queue_id, message.sender, message.arrived, report, self._rules.retry,
            others_left=self._others_left(job, report), now=report.finished, jitter=self._random.random(),
        )  # fmt: skip
        self._tell(job, report, settled, program)
        if settled.again:
            job.sessions += 1 if report.uses else 0
            if settled.elsewhere and report.endpoint is not None:
                job.tried |= {report.endpoint}
            else:
                job.fresh = True
            self._again(job, settled.again)
        if settled.failed and message.sender:
            self._returns.make(message, report, settled, self._contents.get(message.queue_id), self._ledger.enter)
        elif settled.recorded:
            self._ledger.enter(settled.recorded)

    def _others_left(self, job: Job, report: DeliveryReport) -> bool:
        limit = self._rules.request_sessions
        if job.route is None or report.endpoint is None or (limit and job.sessions + 1 >= limit):
            return False
        tried = job.tried | {report.endpoint}
        return any(candidate.endpoint not in tried for candidate in job.route.candidates)

    def _tell(self, job: Job, report: DeliveryReport, settled: Settled, program: str) -> None:
        """To the operator's log, and to the counters."""
        message, counts = job.message, self._counts
        if report.uses > 1:
            counts["reused"] += 1
        for outcome in report.outcomes:
            if outcome.recipient in settled.again:
                continue
            if self._rules.retry.soft_bounce and outcome.status[0] == "5":
                outcome = evolve(outcome, status=f"4{outcome.status[1:]}")
            counts[_COUNTED[outcome.status[0]]] += 1
            line = logline.attempt(message.queue_id, message.arrived, job.since, report, outcome)
            self._maillog.write(program, line)
        if settled.again and report.uses:
            first = next(each for each in report.outcomes if each.recipient in settled.again)
            self._maillog.write(program, f"{message.queue_id}: {first.text}")
        if settled.expired:
            self._maillog.write("qmgr", logline.expired(message.queue_id, message.sender))

    def _again(self, job: Job, recipients: tuple[Recipient, ...]) -> None:
        """Give these recipients out once more, at once."""
        if len(recipients) != len(job.message.recipients):
            job.message = evolve(job.message, recipients=recipients)
        hop = self._hops[job.hop]
        hop.waiting += len(recipients)
        self._place(hop, job)

    def _forget(self, job: Job) -> None:
        """These recipients are in memory no longer."""
        self._release(job.message.queue_id, job.hop, [each.row for each in job.message.recipients])

    def _release(self, queue_id: str, text: str, rows: Sequence[int]) -> None:
        hop = self._hops.get(text)
        if hop is not None:
            hop.rows.difference_update(rows)
        left = self._active.get(queue_id, 0) - len(rows)
        if left > 0:
            self._active[queue_id] = left
            return
        was_full = self.full
        self._active.pop(queue_id, None)
        self._contents.drop(queue_id)
        if was_full:
            self._loader.feed()

    def _committed(
        self, done: Sequence[Recorded], new: Sequence[tuple[Message, Content]], committed: Committed
    ) -> None:
        for each in done:
            self._release(each.queue_id, each.hop, (each.row,))
        for queue_id in committed.removed:
            self._maillog.write("qmgr", logline.removed(queue_id))
        for stored, (_, content) in zip(committed.stored, new, strict=True):
            self.accepted(stored, content)


_COUNTED = {"2": "delivered", "4": "deferred", "5": "bounced"}
