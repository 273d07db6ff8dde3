"""
The queue manager: takes messages up, gives them to lanes, and has it recorded what became of them.

What is in memory is in C{queue.stock}; which lane carries what, in C{queue.traffic}; what becomes of it, in
C{queue.settling}; where it goes, in C{queue.placing}; what is not in memory waits in the spool until C{queue.loader}
brings it. This ties them. Source of its behaviour: Postfix's qmgr(8).
"""

from __future__ import annotations

from collections.abc import Coroutine, Sequence, Set
from itertools import count
from random import Random

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from smtpreuse.errors import SpoolError
from smtpreuse.interfaces import IDeliveryAgent, IMailLog, IResting, IRouter, ISpool
from smtpreuse.model import logline
from smtpreuse.model.content import Content, MemoryContent
from smtpreuse.model.delivery import DeliveryReport, DeliveryRequest, Turn
from smtpreuse.model.message import Message
from smtpreuse.model.queueview import Committed, Counters, Recorded
from smtpreuse.model.reuse import Carrier
from smtpreuse.model.route import Route
from smtpreuse.queue.contentcache import ContentCache
from smtpreuse.queue.crowds import Crowds
from smtpreuse.queue.hop import LEAST_ROOM, Hop
from smtpreuse.queue.lane import QueueLane
from smtpreuse.queue.ledger import Ledger
from smtpreuse.queue.line import Job, Likeness
from smtpreuse.queue.loader import Loader
from smtpreuse.queue.placing import Placing
from smtpreuse.queue.rerouting import Rerouting
from smtpreuse.queue.returns import Returns
from smtpreuse.queue.rules import DispatchRules
from smtpreuse.queue.settling import Settling, own_report
from smtpreuse.queue.sitequeue import SiteQueue
from smtpreuse.queue.stock import Stock
from smtpreuse.queue.traffic import Traffic


class Dispatcher:
    """
    @ivar draining: whether nothing new is begun because the service is about to end.
    """

    log = Logger()

    def __init__(
        self, spool: ISpool, router: IRouter, agent: IDeliveryAgent, cache: IResting, maillog: IMailLog,
        clock: IReactorTime, rules: DispatchRules, *, contents: ContentCache, returns: Returns, random: Random,
    ) -> None:  # fmt: skip
        self.draining = False
        self._spool = spool
        self._maillog = maillog
        self._clock = clock
        self._returns = returns
        self._every = rules.search_every
        self._tickets = count(1)
        self._stock = Stock(contents, most=rules.active_limit, recipients=rules.recipient_limit)
        self._traffic = Traffic(self, agent, cache, clock, rules.traffic)
        self._ledger = Ledger(spool, clock, self._committed, self._work_on)
        self._settling = Settling(self._ledger, returns, maillog, contents, random, rules.settling)
        self._placing = Placing(router, clock, self._stock, self)
        self._loader = Loader(spool, clock, self, rules.recipient_limit)
        self._crowds = Crowds(self._loader.want)
        self._rerouting = Rerouting(self._stock, self._traffic, self._placing, self._loader)

    # Life

    def start(self) -> None:
        """Begin to take up what the spool has."""
        self._loader.start(self._every)

    def adopt(self, rules: DispatchRules) -> None:
        """
        Go by these rules from now on; what a lane has begun ends as it was begun. To be followed at once by L{reroute}
        or L{rehop}.
        """
        self._every = rules.search_every
        self._stock.adopt(most=rules.active_limit, recipients=rules.recipient_limit)
        self._loader.adopt(every=rules.search_every, most=rules.recipient_limit)
        self._settling.adopt(rules.settling)
        self._traffic.adopt(rules.traffic)

    def reroute(self) -> None:
        """See L{Rerouting.reroute}."""
        self._rerouting.reroute()
        self._renewed()

    async def rehop(self, change: Coroutine[Deferred[object], object, object]) -> None:
        """See L{Rerouting.rehop}."""
        try:
            await self._rerouting.rehop(change)
        finally:
            self._renewed()

    def _renewed(self) -> None:
        """There may be more room than there was."""
        self._crowds.tidy(self.sites)
        self._traffic.try_all()
        self._loader.feed()

    async def drain(self) -> None:
        """Begin nothing new, let what is under way end, record it all."""
        self.draining = True
        self._loader.stop()
        await self._traffic.end()
        await self.settled()

    async def settled(self) -> None:
        """Wait until all that became of mail so far is recorded."""
        await self._returns.settled()
        await self._ledger.settled()

    def leave(self) -> None:
        """The spool is about to be closed: what is still under way stays as it is there."""
        self._traffic.leave()

    @property
    def held_up(self) -> bool:
        """Whether nothing may begin now."""
        return self.draining or self._ledger.trouble is not None or self._ledger.late

    def trouble(self) -> str | None:
        """Why no mail can be taken now, or L{None}."""
        return self._ledger.trouble

    def active(self) -> set[str]:
        """Queue ids of what is in memory."""
        return self._stock.active()

    def in_flight(self) -> set[str]:
        """Queue ids of what lanes carry."""
        return {job.message.queue_id for lane in self._traffic.lanes for job in lane.taken()}

    @property
    def sites(self) -> dict[str, SiteQueue]:
        """By name, those that have something to do or to remember."""
        return self._traffic.sites

    def counters(self) -> Counters:
        """What was done since the start."""
        return self._settling.counters()

    def deleted(self, queue_ids: Sequence[str]) -> None:
        """The operator has deleted these messages: forget them."""
        gone = frozenset(queue_ids)
        for job in self._traffic.withdraw(lambda job: job.message.queue_id in gone):
            self._stock.taken(job)
            self._stock.forget(job)
        for hop in self._stock.hops():
            jobs, hop.unrouted = hop.unrouted, [job for job in hop.unrouted if job.message.queue_id not in gone]
            for job in jobs:
                if job.message.queue_id in gone:
                    self._stock.taken(job)
                    self._stock.forget(job)
        for queue_id in queue_ids:
            self._stock.contents.drop(queue_id)
        # What is gone has made room.
        self._crowds.tidy(self.sites)
        self._loader.feed()

    def flushed(self) -> None:
        """The operator has made mail due: look for it, also at sites that were to be left alone."""
        self._traffic.try_all(dead=True)
        self._loader.rescan()
        self._loader.feed()

    def _work_on(self) -> None:
        """What held all lanes up is over; what became due meanwhile was due too early to be found again."""
        self._traffic.try_all()
        self._loader.rescan()

    # Taking up

    def accepted(self, message: Message, content: Content) -> None:
        """A message was stored: take it up at once if there is room, else leave it to the loader."""
        if message.held or self.draining:
            return
        if isinstance(content, MemoryContent):
            self._stock.contents.put(message.queue_id, content.octets)
        for text in {recipient.hop: None for recipient in message.recipients}:
            hop = self._stock.hop(text)
            # The loader may have found them in the spool before we were told of them.
            recipients = tuple(
                each for each in message.recipients if each.hop == text and each.row not in hop.rows
            )
            if not recipients:
                continue
            if self._admits(hop):
                self.take_up(hop, evolve(message, recipients=recipients), len(message.recipients))
            else:
                hop.backlog = True
                self._loader.want(hop)

    def _admits(self, hop: Hop) -> bool:
        """Whether fresh mail of this hop may be held at once: not where older mail waits in the spool."""
        if hop.backlog or self.full:
            return False
        return self.room(hop) > 0 if hop.route is not None else hop.waiting < LEAST_ROOM

    @property
    def full(self) -> bool:
        """Whether no further message may be held in memory."""
        return self._stock.full

    def hop(self, text: str) -> Hop:
        """The books of a hop."""
        return self._stock.hop(text)

    def room(self, hop: Hop) -> int:
        """How many recipients of this hop may be loaded."""
        if hop.route is None and hop.transport == "smtp":
            # Whose site it is will be known in a moment; a thousand hops may be of one that is crowded, or dead.
            return 1 - hop.waiting
        queue = self.sites.get(hop.route.site.name) if hop.route is not None else None
        if queue is not None and queue.crowded:
            self._crowds.put(queue, hop)
            return 0
        window = self._traffic.window(hop.route)
        return hop.room(window) if window else 0

    def held(self, hop: Hop) -> Set[int]:
        """Rows that are not to be loaded for this hop."""
        return self._stock.held(hop)

    def tidy(self) -> None:
        """Forget hops and sites that have nothing to do."""
        self._crowds.tidy(self.sites)
        self._stock.tidy()
        self._traffic.tidy()

    def take_up(self, hop: Hop, message: Message, nrcpt: int = 0) -> None:
        """
        Make requests of a message whose recipients go to this hop.

        @param nrcpt: recipients of the whole message, 0 where they are not known.
        """
        first, jobs = self._stock.hold(hop, message, self._clock.seconds())
        if first:
            line = logline.active(message.queue_id, message.sender, message.size, nrcpt or len(message.recipients))
            self._maillog.write("qmgr", line)
        for job in jobs:
            self._placing.place(hop, job)

    # How it ends, or goes on

    def end(self, job: Job, status: str, text: str, program: str = "smtp", *, tried: bool = True) -> None:
        """
        A job ends without a session.

        @param program: under whose name the operator's log has it.
        @param tried: whether it counts as an attempt.
        """
        report = own_report(job.message.recipients, status, text, self._clock.seconds())
        self._settling.finish(job, report, program, tried=tried)

    def routed(self, job: Job, route: Route, likeness: Likeness) -> None:
        """This job goes to the site of this route."""
        self._traffic.put(job, route, likeness)

    def want(self, hop: Hop) -> None:
        """This hop may have more in the spool."""
        self._loader.want(hop)

    def _again(self, job: Job) -> None:
        """Give this job out once more, at once."""
        if self._rerouting.again(job):
            self._placing.place(self._stock.returned(job), job)

    # What lanes ask and tell

    def pick(self, lane: QueueLane, carrier: Carrier | None, *, lingered: bool) -> Job | Turn | float:
        """What this lane does next: a job, an empty turn, or for how many seconds to linger."""
        return self._traffic.pick(lane, carrier, lingered=lingered)

    def pick_follower(self, lane: QueueLane, carrier: Carrier) -> Job | None:
        """What may go in the same flight behind what this lane's session carries, or L{None}."""
        return self._traffic.pick_follower(lane, carrier)

    def pick_more(self, lane: QueueLane, carrier: Carrier, most: int) -> list[Job]:
        """What this lane's session may be given besides what it was just given."""
        return self._traffic.pick_more(lane, carrier, most)

    def follow_after(self, lane: QueueLane, carrier: Carrier) -> int | None:
        """As L{Turn.follow_after} of what this lane is given."""
        return self._traffic.follow_after(lane, carrier)

    def taken(self, job: Job, queue: SiteQueue) -> None:
        """A lane of this site takes this job."""
        hop = self._stock.taken(job)
        if hop.backlog and 2 * hop.waiting <= hop.room(queue.window.size):
            self._loader.want(hop)
        self._crowds.less(queue)

    async def prepared(self, job: Job) -> DeliveryRequest | None:
        """
        The request with its content.

        @return: L{None} when the content cannot be had. The spool has put the message aside then; where it has not, it
            can give it again.
        """
        queue_id = job.message.queue_id
        octets = self._stock.contents.get(queue_id)
        try:
            content = MemoryContent(octets) if octets is not None else await self._spool.content(queue_id)
        except SpoolError as error:
            self.log.error("{queue_id}: content cannot be read: {reason}", queue_id=queue_id, reason=str(error))
            room = self._stock.forget(job)
            self._loader.want_later(self._stock.hop(job.hop))
            if room:
                self._loader.feed()
            return None
        if self.held_up or job.outdated:
            self._again(job)
            return None
        message = job.message
        assert job.route is not None, "only routed jobs are queued"
        return DeliveryRequest(
            ticket=next(self._tickets), queue_id=queue_id, sender=message.sender, recipients=message.recipients,
            size=message.size, body=message.body, content=content, route=job.route, arrived=message.arrived,
            activated=job.since, tried=job.tried, fresh=job.fresh,
        )  # fmt: skip

    def reported(self, lane: QueueLane, job: Job, report: DeliveryReport) -> None:
        """A lane reports the end of a request."""
        if self._traffic.learn(lane, report) or self._settling.finish(job, report):
            self._again(job)

    def ended(self, lane: QueueLane, jobs: list[Job]) -> None:
        """
        A lane is over; what it did not report goes to another, untouched. What does so twice is deferred: the fault may
        well be with it, and its next lane would meet it at once.
        """
        for job in jobs:
            if job.stranded:
                self.end(job, "4.3.0", "internal error while it was being sent")
            else:
                job.stranded = True
                self._again(job)
        self._traffic.left(lane)

    def suspended(self, jobs: list[Job], reason: str) -> None:
        """These jobs' site is dead for a while: they are deferred without an attempt."""
        for job in jobs:
            self._stock.taken(job)
            self.end(job, "4.4.1", reason, tried=False)

    def revived(self) -> None:
        """A site may be tried again."""
        self._loader.rescan()

    # What is on disk

    def _committed(
        self, done: Sequence[Recorded], new: Sequence[tuple[Message, Content]], committed: Committed
    ) -> None:
        room = False
        for each in done:
            room |= self._stock.release(each.queue_id, each.hop, (each.row,))
        for queue_id in committed.removed:
            self._maillog.write("qmgr", logline.removed(queue_id))
        for stored, (_, content) in zip(committed.stored, new, strict=True):
            self.accepted(stored, content)
        if room:
            self._loader.feed()
