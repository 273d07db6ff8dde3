"""
One site in the dispatcher: what waits for it, the lanes at work, and what limits them.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from smtpreuse.model.reuse import Carrier, Profile
from smtpreuse.model.route import Site
from smtpreuse.queue.hop import LEAST_ROOM
from smtpreuse.queue.line import Job, Lines
from smtpreuse.queue.schedule import LEARNED_FOR, STUCK, MessageLimit, Pace, Rest, Window
from smtpreuse.tls.carry import serves

# How long a lane with a session waits for the next request before the session rests: longer than it takes a busy
# client to hand in its next message, shorter than anybody waits for a shut-down.
LINGER = 0.1
# Where nobody knows how many messages a server takes on a session, so many go one by one before the next envelope may
# share a flight with content. Servers with a limit have mostly less than that; and one that closes while there is
# something to read destroys its own last reply (measured: in up to 18 % of runs).
OVERLAP_AFTER = 10
# As much as a session carries in this time, in seconds, it may be given at once, so that a lane in another process asks
# seldom; what waits behind a transaction that takes longer than expected could have gone by another lane.
MOMENT = 0.05
# Of a provider with thousands of domains so many times as much as of a single hop is held in memory, so that one that
# is slow does not take up the room of all others.
CROWD = 20
# What a site taught of its window is forgotten when nothing went there for an hour.
FORGET = 3600.0


@frozen(kw_only=True)
class SiteRules:
    """
    What main.cf says of every site; durations in seconds.

    @ivar most_uses: transactions that one session may carry, 0 for no limit.
    @ivar destinations: nexthop domains whose sessions always rest.
    """

    profile: Profile
    initial: int
    limit: int
    rate_delay: float
    most_uses: int
    on_demand: bool
    destinations: frozenset[str]

    @property
    def widest(self) -> int:
        """The most sessions of a site: with a rate there is one."""
        return 1 if self.rate_delay else self.limit


class SiteQueue:
    """
    @ivar lanes: how many lanes are at work.
    @ivar not_before: UNIX time of the next transaction where a rate is set.
    @ivar last_completion: UNIX time of the last completed delivery.
    @ivar previous_completion: of the one before.
    @ivar suspension: why the site was last left alone.
    """

    def __init__(self, site: Site, rules: SiteRules, clock: IReactorTime) -> None:
        self.site = site
        self.rules = rules
        self.lines = Lines()
        self.window = Window(initial=rules.initial, limit=rules.widest)
        self.pace = Pace()
        self.message_limit = MessageLimit()
        self.lanes = 0
        self.not_before = 0.0
        self.last_completion = 0.0
        self.previous_completion = 0.0
        self.suspension = ""
        self._one_by_one_until = 0.0
        self._clock = clock
        self._waiting: list[tuple[float, Deferred[None]]] = []
        self._timer: IDelayedCall | None = None
        self._alarm: IDelayedCall | None = None

    def adopt(self, rules: SiteRules) -> None:
        """Go by these rules from now on; what was learned of the site stays."""
        self.rules = rules
        self.window.adopt(rules.initial, rules.widest)
        self.not_before = self.last_completion + rules.rate_delay if rules.rate_delay else 0.0

    @property
    def crowded(self) -> bool:
        """Whether so much waits here that what else is due may stay in the spool."""
        return len(self.lines) >= CROWD * max(LEAST_ROOM, 2 * self.window.size)

    def take(self, carrier: Carrier | None, now: float) -> Job | None:
        """The oldest request that this session may carry, or any where there is no session."""
        if carrier is None:
            return self.lines.take(None)
        session: Carrier = carrier
        return self.lines.take(lambda job: self._fits(session, job, now))

    def _fits(self, carrier: Carrier, job: Job, now: float) -> bool:
        return serves(carrier, job, self.rules.profile, now, most_uses=self.rules.most_uses)

    def overlaps(self, carrier: Carrier, now: float) -> bool:
        """
        Whether an envelope may follow in the same flight as the content that this session is about to carry. Not where
        that takes so long that another lane were opened for it.
        """
        after = self.overlap_after(carrier, now)
        return after is not None and carrier.facts.uses > after

    def overlap_after(self, carrier: Carrier, now: float) -> int | None:
        """
        How often a session must have been used before L{overlaps} holds; L{None} where it never does.
        """
        if now < self._one_by_one_until or self.rules.rate_delay or self.pace.transaction >= STUCK:
            return None
        if not carrier.facts.capabilities.pipelining:
            return None
        return 0 if self.message_limit.most(now) > 0 else OVERLAP_AFTER

    def batch(self, carrier: Carrier, now: float) -> int:
        """
        How many requests a session may be given at a time: what it will carry in a moment, not more than its share of
        what is due, and not more than the limits on its uses leave.
        """
        uses, transaction = carrier.facts.uses, self.pace.transaction
        if not uses or self.rules.rate_delay or not transaction:
            return 1
        size = min(int(MOMENT / transaction), 1 + len(self.lines) // max(1, self.lanes))
        if self.rules.most_uses:
            size = min(size, self.rules.most_uses + 1 - uses)
        most = self.message_limit.most(now)
        return max(1, min(size, most - uses) if most else size)

    def derailed(self, now: float) -> None:
        """A session broke while two transactions shared a flight: for a day each has flights of its own."""
        self._one_by_one_until = now + LEARNED_FOR

    def completed(self, now: float) -> None:
        """A delivery was completed."""
        self.previous_completion, self.last_completion = self.last_completion, now
        if self.rules.rate_delay:
            self.not_before = now + self.rules.rate_delay

    def rest(self, destination: str) -> Rest:
        """What a lane that runs dry is judged by."""
        return Rest(
            last_completion=self.previous_completion, other_lanes=self.lanes - 1,
            listed=destination in self.rules.destinations, warm=bool(self.rules.rate_delay),
            on_demand=self.rules.on_demand,
        )  # fmt: skip

    def starving(self, carrier: Carrier, patience: float, now: float) -> bool:
        """
        Whether a request that this session may not carry has waited for longer than a lane may keep it waiting.

        @param patience: seconds.
        """
        oldest = self.lines.oldest()
        return oldest is not None and now - oldest.since > patience and not self._fits(carrier, oldest, now)

    def waited(self, now: float) -> float:
        """For how many seconds the first in line has been due; 0 where nothing waits."""
        oldest = self.lines.oldest()
        return now - oldest.since if oldest is not None else 0.0

    def forgettable(self, now: float) -> bool:
        """Whether nothing waits or works, and what was learned is old."""
        if self.lines or self.lanes or self.message_limit.most(now) or now < self._one_by_one_until:
            return False
        return max(self.last_completion, self.window.dead_until, self.not_before) < now - FORGET

    def later(self, when: float, call: Callable[[SiteQueue], None]) -> None:
        """
        Call back about this site at a UNIX time; a call that is already on its way for earlier suffices.
        """
        if self._alarm is not None and self._alarm.active():
            if self._alarm.getTime() <= when:
                return
            self._alarm.cancel()
        self._alarm = self._clock.callLater(max(0.0, when - self._clock.seconds()), call, self)

    def stop(self) -> None:
        """Leave no timer behind."""
        for timer in (self._alarm, self._timer):
            if timer is not None and timer.active():
                timer.cancel()
        self._alarm = self._timer = None

    # Lanes that linger

    async def linger(self, seconds: float) -> None:
        """Wait until there may be work, for so long at most."""
        waiter: Deferred[None] = Deferred()
        self._waiting.append((self._clock.seconds() + seconds, waiter))
        self._arm(seconds)
        await waiter

    def wake(self) -> bool:
        """
        Wake the lane that began to wait last: the others may find that they are not needed.

        @return: whether there was one.
        """
        if not self._waiting:
            return False
        _, waiter = self._waiting.pop()
        waiter.callback(None)
        return True

    def wake_all(self) -> None:
        """Nobody waits any longer."""
        while self.wake():
            continue

    def _expire(self) -> None:
        self._timer = None
        now = self._clock.seconds()
        waiting, self._waiting = self._waiting, []
        self._waiting = [each for each in waiting if each[0] > now]
        if self._waiting:
            self._arm(min(until for until, _ in self._waiting) - now)
        for until, waiter in waiting:
            if until <= now:
                waiter.callback(None)

    def _arm(self, seconds: float) -> None:
        if self._timer is not None and self._timer.active():
            if self._timer.getTime() <= self._clock.seconds() + seconds:
                return
            self._timer.cancel()
        self._timer = self._clock.callLater(max(0.0, seconds), self._expire)
