"""
Tests of L{smtpreuse.queue.sitequeue}.
"""

from __future__ import annotations

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from smtpreuse.model.nexthop import Nexthop
from smtpreuse.model.reuse import Carrier
from smtpreuse.model.route import Route, Site
from smtpreuse.queue.line import Job
from smtpreuse.queue.schedule import LEARNED_FOR, STUCK
from smtpreuse.queue.sitequeue import LINGER, SiteQueue, SiteRules
from tests.agent.world import PLAIN
from tests.fakes import candidate
from tests.queue.world import SITE_RULES, carrier, endpoint, message

SITE = Site(name="example.com")
ONE = candidate("mx1.example.com", "192.0.2.1")
TWO = candidate("mx2.example.com", "192.0.2.2")
ROUTE = Route(nexthop=Nexthop(host="example.com"), site=SITE, candidates=(ONE,), good_until=1e9)


def job(name: str = "a", since: float = 0.0, **values: object) -> Job:
    """One that goes to the first host."""
    made = Job(message=message(name), hop="smtp:example.com", retry=False, since=since, route=ROUTE)
    for key, value in values.items():
        setattr(made, key, value)
    return made


class SiteQueueTests(SynchronousTestCase):
    """A site gives out what a session may carry, and remembers how it went."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.queue = self.make()

    def make(self, **values: object) -> SiteQueue:
        """With rules of its own."""
        rules: SiteRules = evolve(SITE_RULES, **values)
        return SiteQueue(SITE, rules, self.clock)

    def put(self, *jobs: Job) -> None:
        """They wait."""
        for each in jobs:
            assert each.route is not None
            self.queue.lines.put(each, frozenset(each.route.candidates))

    def carries(self, session: Carrier, waiting: Job, now: float = 0.0) -> bool:
        """Whether this session is given this job."""
        self.queue.lines.remove(lambda each: True)
        self.put(waiting)
        return self.queue.take(session, now) is waiting

    def test_window(self) -> None:
        """The window is that of the rules; with a rate it is one."""
        self.assertEqual((self.queue.window.size, self.queue.window.limit), (5, 20))
        slow = self.make(rate_delay=2.0)
        self.assertEqual((slow.window.size, slow.window.limit), (1, 1))

    def test_any(self) -> None:
        """Without a session the oldest is given, whatever it is."""
        self.put(job("a", fresh=True))
        taken = self.queue.take(None, 0.0)
        assert taken is not None
        self.assertEqual(taken.message.queue_id, "a")

    def test_carries(self) -> None:
        """A session of the same key carries it; one to another host does not."""
        self.assertTrue(self.carries(carrier(), job()))
        self.assertFalse(self.carries(carrier(address="192.0.2.2"), job()))

    def test_tried(self) -> None:
        """A session to a host that refused it may not carry it."""
        self.assertFalse(self.carries(carrier(), job(tried=frozenset({endpoint(1)}))))
        self.assertTrue(self.carries(carrier(), job(tried=frozenset({endpoint(2)}))))

    def test_fresh(self) -> None:
        """What a reused session failed is carried by a new one only."""
        self.assertFalse(self.carries(carrier(uses=1), job(fresh=True)))
        self.assertTrue(self.carries(carrier(uses=0), job(fresh=True)))

    def test_may_carry(self) -> None:
        """And what C{may_carry} forbids: uses, age, size."""
        self.assertFalse(self.carries(carrier(good_until=10.0), job(), now=10.1))
        self.queue = self.make(most_uses=3)
        self.assertTrue(self.carries(carrier(uses=3), job()))
        self.assertFalse(self.carries(carrier(uses=4), job()))

    def test_unrouted(self) -> None:
        """What has no route fits no session."""
        lost = job()
        self.put(lost)
        lost.route = None
        self.assertIsNone(self.queue.take(carrier(), 0.0))

    def test_completed(self) -> None:
        """The last two completions are remembered; a rate sets the time of the next."""
        self.queue.completed(10.0)
        self.queue.completed(20.0)
        self.assertEqual((self.queue.previous_completion, self.queue.last_completion), (10.0, 20.0))
        self.assertEqual(self.queue.not_before, 0.0)
        slow = self.make(rate_delay=5.0)
        slow.completed(20.0)
        self.assertEqual(slow.not_before, 25.0)

    def test_rest(self) -> None:
        """What a lane that runs dry is judged by."""
        queue = self.make(destinations=frozenset({"example.com"}), on_demand=False)
        queue.lanes = 3
        queue.completed(1.0)
        queue.completed(2.0)
        rest = queue.rest("example.com")
        self.assertEqual((rest.last_completion, rest.other_lanes, rest.listed, rest.warm, rest.on_demand), (
            1.0, 2, True, False, False,
        ))  # fmt: skip
        self.assertFalse(queue.rest("example.test").listed)
        self.assertTrue(self.make(rate_delay=1.0).rest("").warm)

    def test_starving(self) -> None:
        """One of another kind has waited for longer than patience allows."""
        self.assertFalse(self.queue.starving(carrier(), 5.0, 100.0))
        self.put(job("a", since=10.0, route=evolve(ROUTE, candidates=(TWO,))), job("b", since=20.0))
        self.assertFalse(self.queue.starving(carrier(), 5.0, 15.0))
        self.assertTrue(self.queue.starving(carrier(), 5.0, 15.1))
        self.assertFalse(self.queue.starving(carrier(address="192.0.2.2"), 5.0, 15.1))
        self.assertFalse(self.queue.starving(carrier(), float("inf"), 1e9))

    def test_waited(self) -> None:
        """As long as the first in line."""
        self.assertEqual(self.queue.waited(50.0), 0.0)
        self.put(job("a", since=10.0), job("b", since=20.0))
        self.assertEqual(self.queue.waited(50.0), 40.0)

    def test_forgettable(self) -> None:
        """After an hour without anything; never while something waits or works."""
        self.queue.completed(1000.0)
        self.assertFalse(self.queue.forgettable(4600.0))
        self.assertTrue(self.queue.forgettable(4600.1))
        self.queue.window.dead_until = 5000.0
        self.assertFalse(self.queue.forgettable(4600.1))
        self.queue.window.dead_until = 0.0
        self.queue.lanes = 1
        self.assertFalse(self.queue.forgettable(4600.1))
        self.queue.lanes = 0
        self.assertTrue(self.queue.forgettable(4600.1))
        self.put(job())
        self.assertFalse(self.queue.forgettable(4600.1))

    def test_overlaps(self) -> None:
        """A flight is shared behind ten messages, or where the site's limit is known; PIPELINING it takes anyway."""
        self.assertEqual([self.queue.overlaps(carrier(uses=uses), 0.0) for uses in (1, 10, 11)], [False, False, True])
        self.assertFalse(self.queue.overlaps(carrier(uses=11, capabilities=PLAIN), 0.0))
        for _ in range(2):
            self.queue.message_limit.ended(20, 0.0, 0.0)
        self.assertTrue(self.queue.overlaps(carrier(uses=1), 0.0))

    def test_overlaps_not(self) -> None:
        """Not where a rate is set, not where transactions take long, and for a day not where a flight broke."""
        session = carrier(uses=11)
        self.assertFalse(self.make(rate_delay=1.0).overlaps(session, 0.0))
        self.queue.pace.carried(STUCK)
        self.assertFalse(self.queue.overlaps(session, 0.0))
        self.queue = self.make()
        self.queue.derailed(0.0)
        self.assertFalse(self.queue.overlaps(session, LEARNED_FOR - 1))
        self.assertFalse(self.queue.forgettable(LEARNED_FOR - 1))
        self.assertTrue(self.queue.overlaps(session, LEARNED_FOR))
        self.assertTrue(self.queue.forgettable(LEARNED_FOR))

    def test_message_limit_is_not_forgotten(self) -> None:
        """How many messages a session may carry is believed for a day, also where nothing goes for an hour."""
        self.queue.message_limit.ended(20, 1000.0, 1000.0)
        self.queue.message_limit.ended(20, 1000.0, 1000.0)
        self.assertFalse(self.queue.forgettable(10_000.0))
        self.assertTrue(self.queue.forgettable(1000.0 + LEARNED_FOR))


class LaterTests(SynchronousTestCase):
    """One alarm for each site."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.queue = SiteQueue(SITE, SITE_RULES, self.clock)
        self.calls: list[float] = []

    def later(self, when: float) -> None:
        """Call then."""
        self.queue.later(when, lambda queue: self.calls.append(self.clock.seconds()))

    def test_later(self) -> None:
        """At its time, once."""
        self.later(10.0)
        self.clock.pump([9.5, 0.5, 10.0])
        self.assertEqual(self.calls, [10.0])

    def test_past(self) -> None:
        """A time that is over is now."""
        self.clock.advance(20.0)
        self.later(10.0)
        self.clock.advance(0.0)
        self.assertEqual(self.calls, [20.0])

    def test_earlier_suffices(self) -> None:
        """An earlier call stands."""
        self.later(10.0)
        self.later(20.0)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.clock.advance(10.0)
        self.assertEqual(self.calls, [10.0])

    def test_earlier_replaces(self) -> None:
        """An earlier one takes the place of a later one."""
        self.later(20.0)
        self.later(10.0)
        self.clock.pump([10.0, 10.0])
        self.assertEqual(self.calls, [10.0])

    def test_again(self) -> None:
        """After one there may be another."""
        self.later(1.0)
        self.clock.advance(1.0)
        self.later(2.0)
        self.clock.advance(1.0)
        self.assertEqual(self.calls, [1.0, 2.0])

    def test_stop(self) -> None:
        """No timer is left behind."""
        self.later(1.0)
        Deferred.fromCoroutine(self.queue.linger(LINGER))
        self.queue.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])


class LingerTests(SynchronousTestCase):
    """Lanes wait for a moment for what may come."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.queue = SiteQueue(SITE, SITE_RULES, self.clock)

    def linger(self) -> Deferred[None]:
        """One waits."""
        return Deferred.fromCoroutine(self.queue.linger(LINGER))

    def test_over(self) -> None:
        """Not for longer than a moment, each from when it began; one timer serves all."""
        one = self.linger()
        self.clock.advance(LINGER / 2)
        two = self.linger()
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.clock.advance(LINGER / 2)
        self.successResultOf(one)
        self.assertNoResult(two)
        self.clock.advance(LINGER / 2)
        self.successResultOf(two)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_sooner(self) -> None:
        """One that waits for less is not kept until the others are due, with one timer all the same."""
        long = Deferred.fromCoroutine(self.queue.linger(5 * LINGER))
        short = self.linger()
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.clock.advance(LINGER)
        self.successResultOf(short)
        self.assertNoResult(long)
        self.clock.advance(4 * LINGER)
        self.successResultOf(long)

    def test_wake(self) -> None:
        """The one that began last is woken, one at a time."""
        one, two = self.linger(), self.linger()
        self.assertIs(self.queue.wake(), True)
        self.successResultOf(two)
        self.assertNoResult(one)
        self.assertIs(self.queue.wake(), True)
        self.successResultOf(one)
        self.assertIs(self.queue.wake(), False)
        self.clock.advance(LINGER)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_wake_all(self) -> None:
        """Nobody waits any longer."""
        waiting = [self.linger() for _ in range(3)]
        self.queue.wake_all()
        for each in waiting:
            self.successResultOf(each)

    def test_again(self) -> None:
        """Waiting again begins anew."""
        self.linger()
        self.clock.advance(LINGER)
        again = self.linger()
        self.assertNoResult(again)
        self.clock.advance(LINGER)
        self.successResultOf(again)


class AdoptTests(SynchronousTestCase):
    """A site goes by other rules, and keeps what it knows of itself."""

    def setUp(self) -> None:
        self.queue = SiteQueue(SITE, SITE_RULES, Clock())

    def test_profile(self) -> None:
        """Whether a session may carry a job is asked with the new profile."""
        self.queue.lines.put(job(), frozenset(ROUTE.candidates))
        self.queue.adopt(evolve(SITE_RULES, profile=evolve(SITE_RULES.profile, helo="other.example.com")))
        self.assertIsNone(self.queue.take(carrier(), 0.0))

    def test_rate(self) -> None:
        """A rate holds from the last completion on, and narrows the window to one; without it both are over."""
        self.queue.completed(100.0)
        self.queue.adopt(evolve(SITE_RULES, rate_delay=7.0))
        self.assertEqual((self.queue.not_before, self.queue.window.size), (107.0, 1))
        self.queue.adopt(evolve(SITE_RULES, rate_delay=2.0))
        self.assertEqual(self.queue.not_before, 102.0)
        self.queue.adopt(SITE_RULES)
        self.assertEqual((self.queue.not_before, self.queue.window.size), (0.0, 5))

    def test_learned(self) -> None:
        """Messages per connection, pace, and that envelopes are to go alone."""
        for opened in (0.0, 10.0):
            self.queue.message_limit.ended(7, opened, opened + 5.0)
        self.queue.derailed(0.0)
        self.queue.pace.carried(0.25)
        self.queue.adopt(evolve(SITE_RULES, limit=3))
        self.assertEqual((self.queue.message_limit.most(20.0), self.queue.pace.transaction), (7, 0.25))
        self.assertFalse(self.queue.overlaps(carrier(uses=50), 20.0))
