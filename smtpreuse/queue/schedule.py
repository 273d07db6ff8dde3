"""
The decisions of the queue manager, as plain functions and books over values: how many lanes a site gets, what becomes
of a session that has nothing to do, when a recipient is tried again.

No clock, no I/O: times are arguments, in seconds. Feedback is that of Postfix's qmgr(8) (C{qmgr_queue.c}) with its
default amounts; the rest is ours and says so.
"""

from __future__ import annotations

from attrs import define, field, frozen

from smtpreuse.model.delivery import DeliveryReport, Ending, Outcome, Then
from smtpreuse.model.message import Recipient
from smtpreuse.model.queueview import Recorded

# qmgr_queue.c counts completions of the same second and the one before as back to back.
BACK_TO_BACK = 1.0
# Fresh mail and retries share a site's lanes three to one where both wait.
FRESH_TO_RETRIES = 3
# How long the number of connections is held to which a site refused another one: long enough that asking again costs
# nobody anything, short enough that a limit which was lifted is soon made use of.
DOOR_HOLDS = 60.0
# How long a messages-per-connection limit that a site taught is believed.
LEARNED_FOR = 86400.0
# By how much of itself a wait before the next attempt may be shorter or longer (ours: a thousand messages deferred
# together do not come back together).
JITTER = 0.1
# A request that has waited so long, in seconds, is worth a lane of its own whatever the pace was: those at work may be
# stuck, and a server may take ten minutes to answer a final dot.
STUCK = 1.0


@define
class Window:
    """
    How many sessions a site may have, and what it has taught about that.

    @ivar size: the window now; at least 1.
    @ivar initial: where it begins.
    @ivar limit: how far it grows.
    @ivar dead_until: UNIX time before which nothing is tried.
    """

    initial: int
    limit: int
    size: int = field(init=False)
    dead_until: float = field(default=0.0, init=False)
    _success: float = field(default=0.0, init=False)
    _failure: float = field(default=0.0, init=False)
    _cohorts: float = field(default=0.0, init=False)
    _door: int = field(default=0, init=False)
    _door_until: float = field(default=0.0, init=False)

    def __attrs_post_init__(self) -> None:
        self.size = max(1, min(self.initial, self.limit))

    def adopt(self, initial: int, limit: int) -> None:
        """
        Begin and end elsewhere from now on. What the site has taught stays: only a window that the old limit held, and
        nothing else, goes on from where a new one would begin.
        """
        held = self.size >= self.limit and not self.dead_until
        self.initial, self.limit = initial, limit
        if held:
            self.size = max(self.size, initial)
        self.size = max(1, min(self.size, limit))

    def succeeded(self, busy: int, now: float) -> None:
        """
        The site did its part.

        @param busy: lanes at work now, this one included: a window that is not used does not grow.
        """
        self._cohorts = 0.0
        limit = self.limit if now >= self._door_until else min(self.limit, self._door)
        if self.dead_until:
            self.dead_until = 0.0
            self.size = max(1, min(max(busy, self.initial), limit))
            self._success = self._failure = 0.0
        elif self.size < limit and self.size < busy + self.initial:
            self._success += 1
            while self._success + 0.5 >= 1:
                self.size += 1
                self._success -= 1
                self._failure = 0.0
            self.size = min(self.size, limit)

    def failed(self, now: float, pause: float) -> bool:
        """
        A connection-level failure.

        @param pause: for how long a dead site is left alone.
        @return: whether the site is dead now.
        """
        self._cohorts += 1 / self.size
        if self._cohorts >= 1 - 1e-9:
            self.dead_until = now + pause
            self._cohorts = 0.0
            self.size = 1
            return True
        self.throttled()
        return False

    def refused(self, others: int, now: float) -> None:
        """
        A new connection was refused with the wish to slow down while others of ours are open: so many are enough for
        now.

        @param others: sessions that the site has of us.
        """
        self.size = self._door = max(1, min(others, self.limit))
        self._door_until = now + DOOR_HOLDS
        self._success = 0.0

    def throttled(self) -> None:
        """A reply asked to slow down: the window narrows, but the site is not dead, it speaks to us."""
        self._failure -= 1
        while self._failure - 0.5 < 0:
            self.size -= 1
            self._success = 0.0
            self._failure += 1
        self.size = max(self.size, 1)


@define
class MessageLimit:
    """
    How many messages a site takes on one session, learned from sessions that it ended: a count seen twice in a row is a
    limit, once may be chance. Sessions that end together, as when a server is started anew, are one.
    """

    _seen: int = 0
    _seen_at: float = 0.0
    _limit: int = 0
    _until: float = 0.0

    def ended(self, carried: int, opened: float, now: float) -> None:
        """
        A session was closed by the server, or called full, after so many messages.

        @param opened: UNIX time of its connect.
        """
        if opened < self._seen_at:
            return
        if carried == self._seen:
            self._limit, self._until = carried, now + LEARNED_FOR
        self._seen, self._seen_at = carried, now

    def most(self, now: float) -> int:
        """Messages that a session may carry, 0 when no limit is known."""
        return self._limit if now < self._until else 0


@define
class Pace:
    """
    How long things take at a site: moving averages in seconds, 0 before the first.
    """

    connecting: float = 0.0
    transaction: float = 0.0

    def connected(self, seconds: float) -> None:
        """A session took so long from TCP to its second EHLO."""
        self.connecting = _average(self.connecting, seconds)

    def carried(self, seconds: float) -> None:
        """A transaction took so long."""
        self.transaction = _average(self.transaction, seconds)


def _average(old: float, new: float) -> float:
    return old + (new - old) / 8 if old else new


def wants_lane(due: int, lanes: int, window: int, pace: Pace, waited: float = 0.0) -> bool:
    """
    Whether another lane is worth opening: not when the lanes at work will have taken what is due before a new session
    could be ready (twice over, as opening costs both sides more than carrying).

    @param due: requests that wait.
    @param lanes: lanes at work, those that are connecting included.
    @param waited: for how many seconds the first of them has been due.
    """
    if due == 0 or lanes >= window:
        return False
    if waited >= STUCK:
        return True
    if lanes == 0 or not pace.connecting:
        return lanes < due
    return due * pace.transaction / lanes > 2 * pace.connecting


@frozen(kw_only=True)
class Rest:
    """
    What the end of a lane's work is judged by.

    @ivar last_completion: UNIX time of the site's completion before the lane's own last one; 0 for none.
    @ivar other_lanes: lanes of the site at work beside this one.
    @ivar listed: whether the destination is in C{smtp_connection_cache_destinations}.
    @ivar warm: whether the site has a rate delay, between whose steps the session rests.
    @ivar on_demand: C{smtp_connection_cache_on_demand}.
    """

    last_completion: float
    other_lanes: int
    listed: bool
    warm: bool
    on_demand: bool


def hint(now: float, rest: Rest) -> Then:
    """Whether a session for which nothing is due is kept for what may come, or ended."""
    if rest.listed or rest.warm:
        return Then.SAVE
    back_to_back = now - rest.last_completion <= BACK_TO_BACK
    return Then.SAVE if rest.on_demand and (back_to_back or rest.other_lanes > 0) else Then.QUIT


@frozen(kw_only=True)
class RetryRules:
    """
    Durations in seconds.

    @ivar soft_bounce: whether what would bounce is deferred instead.
    """

    minimal_backoff: float
    maximal_backoff: float
    lifetime: float
    bounce_lifetime: float
    soft_bounce: bool = False

    def expired(self, arrived: float, sender: str, now: float) -> bool:
        """Whether a message has been tried for long enough."""
        return now - arrived >= (self.lifetime if sender else self.bounce_lifetime)

    def next_attempt(self, arrived: float, now: float, jitter: float) -> float:
        """
        When a deferred recipient is tried again: after as long as it has waited so far, within bounds, L{JITTER} more
        or less.

        @param jitter: 0 to 1, evenly distributed.
        """
        wait = min(max(now - arrived, self.minimal_backoff), self.maximal_backoff)
        return now + wait * (1 - JITTER + 2 * JITTER * jitter)


@frozen(kw_only=True)
class Settled:
    """
    What follows from a report.

    @ivar recorded: what the queue is to remember.
    @ivar failed: outcomes whose sender is to be told.
    @ivar again: recipients to be given out at once.
    @ivar elsewhere: whether they go to other endpoints only, because this one refused them.
    @ivar expired: whether a recipient's time was over.
    """

    recorded: tuple[Recorded, ...]
    failed: tuple[Outcome, ...]
    again: tuple[Recipient, ...]
    elsewhere: bool
    expired: bool


def settle(
    queue_id: str, sender: str, arrived: float, report: DeliveryReport, rules: RetryRules,
    *, others_left: bool, now: float, jitter: float, tried: bool = True,
) -> Settled:  # fmt: skip
    """
    Decide on each outcome of a report.

    @param others_left: whether the route has an endpoint that the request has not been at, and a session left for it.
    @param tried: whether this counts as an attempt.
    """
    recorded: list[Recorded] = []
    failed: list[Outcome] = []
    again: list[Recipient] = []
    elsewhere = expired = False
    over = rules.expired(arrived, sender, now)
    for outcome in report.outcomes:
        recipient = outcome.recipient
        temporary = outcome.status[0] == "4" or rules.soft_bounce
        if outcome.ending is Ending.DELIVERED:
            recorded.append(Recorded(queue_id=queue_id, row=recipient.row, hop=recipient.hop))
        elif outcome.ending is Ending.UNTOUCHED:
            again.append(recipient)
        elif outcome.ending is Ending.REFUSED and temporary and others_left and not report.exhausted:
            again.append(recipient)
            elsewhere = True
        elif temporary and not over:
            recorded.append(Recorded(
                queue_id=queue_id, row=recipient.row, hop=recipient.hop, reason=outcome.text,
                attempts=recipient.attempts + tried, next_attempt=rules.next_attempt(arrived, now, jitter),
            ))  # fmt: skip
        else:
            expired = expired or temporary
            failed.append(outcome)
            recorded.append(Recorded(queue_id=queue_id, row=recipient.row, hop=recipient.hop))
    return Settled(
        recorded=tuple(recorded), failed=tuple(failed), again=tuple(again), elsewhere=elsewhere, expired=expired
    )
