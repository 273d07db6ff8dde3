"""
Tests of L{smtpreuse.queue.traffic}.
"""

from __future__ import annotations

from attrs import evolve
from twisted.internet.defer import Deferred

from smtpreuse.model.delivery import Blame, DeliveryRequest, Ending, Then, Turn
from smtpreuse.model.reuse import Carrier
from smtpreuse.queue.lane import STARVING_AFTER
from smtpreuse.queue.schedule import BACK_TO_BACK, STUCK
from smtpreuse.queue.sitequeue import FORGET, LINGER
from tests.queue.traffic_case import PAUSE, TrafficCase
from tests.queue.world import SITE_RULES, START, FakeAgent, carrier, no_session, report_of


class LanesTests(TrafficCase):
    """How many lanes a site has."""

    def test_window(self) -> None:
        """As many as the window, each with a job; the owner is told of each."""
        self.put(*(f"Q{number}" for number in range(9)))
        self.assertEqual(self.flying(), [f"Q{number}" for number in range(5)])
        self.assertEqual(self.owner.taken_with, [(f"Q{number}", 5) for number in range(5)])
        self.assertEqual((self.queue().lanes, len(self.traffic.lanes), len(self.queue().lines)), (5, 5, 4))

    def test_room_is_used(self) -> None:
        """What success allows in addition is used."""
        self.put(*(f"Q{number}" for number in range(15)))
        for _ in range(2):
            self.end()
        self.clock.advance(STUCK)
        self.assertEqual(len(self.agent.held), 7)

    def test_stuck(self) -> None:
        """What waits behind a lane that is stuck gets another one after a second."""
        self.put("Q1", "Q2")
        self.assertEqual(self.flying(), ["Q1"])
        self.clock.advance(STUCK / 2)
        self.put("Q3")
        self.assertEqual(self.flying(), ["Q1", "Q2"])
        self.clock.pump([STUCK / 2, STUCK / 4])
        self.assertEqual(self.flying(), ["Q1", "Q2"])
        self.clock.advance(STUCK / 4)
        self.assertEqual(self.flying(), ["Q1", "Q2", "Q3"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_limit(self) -> None:
        """Not more lanes than the limit in all; sites that had to do without come next."""
        self.traffic = self.make(self.agent, lanes=3)
        for number in range(6):
            self.put(f"Q{number}", host=f"{number}.example.com")
        self.assertEqual(len(self.agent.held), 3)
        self.end_all()
        self.clock.pump([LINGER] * 3)
        self.end_all()
        self.assertEqual(sorted(self.carried()), [f"Q{number}" for number in range(6)])

    def test_share(self) -> None:
        """Where lanes are scarce, one that has had its share makes room for another site."""
        self.traffic = self.make(self.agent, lanes=1)
        self.put(*(f"A{number}" for number in range(STARVING_AFTER + 10)))
        self.put("B", host="example.test")
        while "B" not in self.carried():
            self.end()
        self.assertEqual(len(self.carried()), STARVING_AFTER + 1)
        self.end_all()
        self.clock.advance(LINGER)
        self.end_all()
        self.assertEqual(len(self.carried()), STARVING_AFTER + 11)

    def test_sessions_at_rest_make_way(self) -> None:
        """Lanes and sessions at rest together are not more than the limit."""
        self.traffic = self.make(self.agent, lanes=10)
        self.cache.destinations = {str(number): None for number in range(9)}  # type: ignore[misc]  # nobody looks
        self.put("Q1")
        self.assertEqual(self.cache.dropped, [])
        self.put("Q2", host="example.test")
        self.assertEqual(self.cache.dropped, [("", 8)])

    def test_held_up(self) -> None:
        """While nothing may begin no lane is opened, and those at work get nothing; then all goes on."""
        self.put("Q1", "Q2")
        self.owner.held_up = True
        self.put("Q3", host="example.test")
        self.end()
        self.assertEqual((self.flying(), self.over()), ([], [Then.QUIT]))
        self.owner.held_up = False
        self.traffic.try_all()
        self.assertEqual(self.flying(), ["Q2", "Q3"])

    def test_left(self) -> None:
        """What a lane that is over did not report goes to another, and its place is free."""
        self.put("Q1")
        lane = self.agent.first()
        del self.agent.held[lane]
        lane.over("internal error")
        self.assertEqual((self.flying(), self.queue().lanes, len(self.traffic.lanes)), (["Q1"], 1, 1))
        self.assertNotIn(lane, self.traffic.lanes)


class DryTests(TrafficCase):
    """A lane for which nothing is due."""

    def test_save(self) -> None:
        """It waits for a moment; then its session is kept where another lane is at work, or was just now."""
        self.two_lanes()
        self.assertEqual(self.over(), [])
        self.clock.advance(LINGER)
        self.assertEqual(self.over(), [Then.SAVE, Then.SAVE])

    def test_work(self) -> None:
        """What comes in that moment goes over a session that waits."""
        self.two_lanes()
        self.put("Q3")
        self.assertEqual((self.flying(), len(self.agent.sessions), self.queue().lanes), (["Q3"], 2, 2))

    def test_alone(self) -> None:
        """A single message leaves no connection behind, once the second is over in which another would have kept it."""
        self.put("Q1")
        self.end()
        self.clock.advance(BACK_TO_BACK - LINGER)
        self.assertEqual(self.over(), [])
        self.clock.advance(LINGER)
        self.assertEqual(self.over(), [Then.QUIT])

    def test_another_within_a_second(self) -> None:
        """A second message within that second goes over the same session, which rests then."""
        self.put("Q1")
        self.end()
        self.clock.advance(BACK_TO_BACK - LINGER)
        self.put("Q2")
        self.end()
        self.assertEqual((self.carried(), self.over()), (["Q1", "Q2"], []))
        self.clock.advance(LINGER)
        self.assertEqual(self.over(), [Then.SAVE])

    def test_not_on_demand(self) -> None:
        """Where sessions do not rest on demand it does not wait either."""
        self.traffic = self.make(self.agent, site=evolve(SITE_RULES, on_demand=False))
        self.put("Q1")
        self.end()
        self.assertEqual(self.over(), [Then.QUIT])

    def test_makes_room(self) -> None:
        """Where no lane is left for a site that has mail due, a lane that only lingers ends at once."""
        self.traffic = self.make(self.agent, lanes=1)
        self.put("Q1")
        self.end()
        self.put("Q2", host="example.test")
        self.assertEqual(self.flying(), ["Q2"])

    def test_no_session(self) -> None:
        """Without a session there is nothing to decide."""
        agent = FakeAgent()
        self.traffic = self.make(agent)
        self.put("Q1", "Q2")
        worker = agent.workers[0]
        for _ in range(2):
            self.assertEqual(len(self.successResultOf(worker.ask()).requests), 1)
        self.assertEqual(self.successResultOf(worker.ask()), Turn())


class SessionTests(TrafficCase):
    """What a session is given."""

    def setUp(self) -> None:
        super().setUp()
        self.idle = FakeAgent()
        self.traffic = self.make(self.idle, site=evolve(SITE_RULES, initial=1, limit=1))

    def ask(self, session: Carrier) -> Turn:
        """What the first lane's session carries next."""
        return self.successResultOf(self.idle.workers[0].ask(session))

    def test_message_limit(self) -> None:
        """One that has carried the limit that its site taught gets no more; the lane opens another."""
        self.put("Q1")
        for _ in range(2):
            self.queue().message_limit.ended(3, START, START)
        turn = self.ask(carrier(uses=3))
        self.assertEqual((turn.requests, turn.then, turn.more), ((), Then.QUIT, True))
        self.assertEqual(len(self.ask(carrier(uses=2)).requests), 1)
        self.assertFalse(self.ask(carrier(uses=3)).more)

    def test_other_kind(self) -> None:
        """Nothing that it may carry, but work for another: it rests, and the lane goes on."""
        self.put("Q1")
        turn = self.ask(carrier(address="192.0.2.99"))
        self.assertEqual((turn.requests, turn.then, turn.more), ((), Then.SAVE, True))

    def test_starving(self) -> None:
        """A lane turns to the other kind when that has waited for as long as its last fifty took."""
        self.put(*(f"A{number}" for number in range(10)), site="site")
        (worker,) = self.idle.workers
        given = 0
        while given < 200 and (turn := self.ask(carrier())).requests:
            given += 1
            if given == 20:
                self.put("B", host="example.test", site="site")
            worker.lane.report(report_of(turn.requests[0]))
            self.clock.advance(1.0)
            self.put("A", site="site")
        self.assertEqual((turn.then, turn.more), (Then.SAVE, True))
        self.assertEqual(given, 20 + STARVING_AFTER)

    def follow(self, session: Carrier) -> DeliveryRequest | None:
        """What may share the flight of this session's content."""
        lane = self.idle.workers[0].lane
        return self.successResultOf(Deferred.fromCoroutine(lane.follow(session)))

    def test_follow(self) -> None:
        """The oldest that the session may carry, at once or not at all; it is the lane's then."""
        self.put("Q1", "Q2")
        session = carrier(uses=11)
        self.assertIsNone(self.follow(carrier(uses=11, address="192.0.2.99")))
        self.assertIsNone(self.follow(carrier(uses=1)))
        for name in ("Q1", "Q2"):
            request = self.follow(session)
            assert request is not None
            self.assertEqual(request.queue_id, name)
        self.assertIsNone(self.follow(session))
        (lane,) = self.traffic.lanes
        self.assertEqual([job.message.queue_id for job in lane.taken()], ["Q1", "Q2"])
        self.assertEqual([name for name, _ in self.owner.taken_with], ["Q1", "Q2"])

    def test_follow_asks_what_next_asks(self) -> None:
        """Nothing where recording fails, the site is dead, the window narrowed, or the session has had its share."""
        self.put("Q1")
        queue, session = self.queue(), carrier(uses=11)
        self.owner.held_up = True
        self.assertIsNone(self.follow(session))
        self.owner.held_up = False
        queue.window.dead_until = self.clock.seconds() + 1
        self.assertIsNone(self.follow(session))
        queue.window.dead_until = 0.0
        queue.lanes = 2
        self.assertIsNone(self.follow(session))
        queue.lanes = 1
        for _ in range(2):
            queue.message_limit.ended(11, self.clock.seconds(), self.clock.seconds())
        self.assertIsNone(self.follow(session))
        self.assertIsNotNone(self.follow(carrier(uses=10)))

    def test_untouched_is_no_success(self) -> None:
        """A session that was lost before a message was complete: the site has not shown that it does well."""
        self.put("Q1")
        queue = self.queue()
        queue.window.dead_until = self.clock.seconds() + 1
        turn = self.ask(carrier(uses=1))
        self.assertEqual(turn.requests, ())
        queue.window.dead_until = 0.0
        turn = self.ask(carrier(uses=1))
        queue.window.dead_until = self.clock.seconds() + 100
        self.idle.workers[0].lane.report(report_of(turn.requests[0], Ending.UNTOUCHED, "4.4.2", uses=2, full=True))
        self.assertGreater(queue.window.dead_until, 0.0)
        self.assertEqual((queue.last_completion, queue.not_before, queue.pace.transaction), (0.0, 0.0, 0.0))

    def test_derailed(self) -> None:
        """A flight that broke teaches the site to have flights of one."""
        self.put("Q1", "Q2")
        turn = self.ask(carrier(uses=20))
        self.idle.workers[0].lane.report(report_of(turn.requests[0], uses=21, derailed=True))
        self.assertIsNone(self.follow(carrier(uses=21)))

    def test_pace_of_followers(self) -> None:
        """The time of one that followed another begins when that one ended."""
        self.put("Q1", "Q2")
        turn, second = self.ask(carrier(uses=20)), self.follow(carrier(uses=21))
        assert second is not None
        lane, now = self.idle.workers[0].lane, self.clock.seconds()
        lane.report(report_of(turn.requests[0], uses=21, ready=now, finished=now + 0.5))
        lane.report(report_of(second, uses=22, ready=now, finished=now + 1.0))
        self.assertAlmostEqual(self.queue().pace.transaction, 0.5)

    def test_window_narrowed(self) -> None:
        """A lane that is one too many quits."""
        self.put("Q1")
        self.queue().lanes = 2
        self.assertEqual(self.ask(carrier()), Turn(then=Then.QUIT))

    def test_dead(self) -> None:
        """A lane whose site is dead quits."""
        self.put("Q1")
        self.queue().window.dead_until = START + 1
        self.assertEqual(self.ask(carrier()), Turn(then=Then.QUIT))


class LearningTests(TrafficCase):
    """What reports teach of a site."""

    def setUp(self) -> None:
        super().setUp()
        self.put(*(f"Q{number}" for number in range(10)))

    def window(self) -> int:
        """Of the site."""
        return self.queue().window.size

    def test_our_own_fault(self) -> None:
        """Our own faults narrow nothing."""
        for _ in range(8):
            self.deny(Blame.OURSELVES)
        self.assertEqual((self.window(), self.owner.lost), (5, []))

    def test_success_widens(self) -> None:
        """Success widens, also where recipients were refused."""
        self.end()
        self.end(Ending.REFUSED, "4.2.0")
        self.assertEqual(self.window(), 7)

    def test_no_session_is_no_success(self) -> None:
        """Where no session came about, without anybody's fault, the window learns nothing."""
        self.deny(Blame.NOBODY)
        self.assertEqual((self.window(), self.queue().window.dead_until), (5, 0.0))

    def test_throttled(self) -> None:
        """A throttling reply narrows; the site is not dead."""
        for _ in range(5):
            self.end(Ending.REFUSED, "4.7.0", blame=Blame.THROTTLED)
        self.assertEqual((self.window(), self.owner.lost), (1, []))

    def test_refused_at_the_door(self) -> None:
        """One connection too many: the request waits for the others, and no other is opened."""
        self.deny(Blame.THROTTLED)
        self.assertEqual((self.window(), self.owner.turned_away), (4, ["Q0"]))
        self.end_all()
        self.assertEqual(self.window(), 4)
        self.assertEqual(sorted(set(self.carried())), [f"Q{number}" for number in range(10)])

    def test_refused_beside_sessions_at_rest(self) -> None:
        """Sessions at rest count where a site lets no further one in."""
        self.put("R", host="example.test")
        self.cache.destinations = {str(number): None for number in range(2)}  # type: ignore[misc]  # nobody looks
        lane = next(lane for lane, request in self.agent.held.items() if request.queue_id == "R")
        self.agent.end(lane, no_session(self.agent.held[lane], Blame.THROTTLED))
        self.assertEqual((self.owner.turned_away, self.queue("example.test").window.size), (["R"], 2))

    def test_message_limit(self) -> None:
        """Two sessions that were ended after as many messages show a limit; the one that found it does not count."""
        for _ in range(2):
            self.end(Ending.UNTOUCHED, "4.4.2", uses=4, full=True, opened=START)
        self.assertEqual(self.queue().message_limit.most(START), 3)

    def test_pace(self) -> None:
        """Opening is measured where a session was opened, carrying where one carried."""
        self.end(started=START, ready=START + 2.0, finished=START + 2.5)
        self.assertEqual((self.queue().pace.connecting, self.queue().pace.transaction), (2.0, 0.5))
        self.end(started=START, ready=START + 9.0, finished=START + 9.5, uses=2)
        self.assertEqual((self.queue().pace.connecting, self.queue().pace.transaction), (2.0, 0.5))
        self.deny(Blame.OURSELVES)
        self.assertEqual((self.queue().pace.connecting, self.queue().pace.transaction), (2.0, 0.5))


class DeadTests(TrafficCase):
    """A site that fails is left alone for a while."""

    def setUp(self) -> None:
        super().setUp()
        self.put(*(f"Q{number}" for number in range(12)))

    def die(self) -> None:
        """Enough fails."""
        for _ in range(3):
            self.deny()

    def test_suspended(self) -> None:
        """What waits is given back with the reason; what is in flight goes on; nothing is opened."""
        self.die()
        reason = "delivery temporarily suspended: connect: refused"
        self.assertEqual(self.owner.lost, [(f"Q{number}", reason) for number in range(5, 12)])
        self.assertEqual(self.flying(), ["Q3", "Q4"])
        self.deny()
        self.assertEqual(self.flying(), ["Q4"])
        self.assertEqual(self.traffic.window(self.route()), 0)

    def test_nothing_waits_at_a_dead_site(self) -> None:
        """What comes meanwhile is given back at once: it would keep a place in memory from mail that can go."""
        self.die()
        self.owner.lost.clear()
        self.put("Q99")
        self.assertEqual(self.owner.lost, [("Q99", "delivery temporarily suspended: connect: refused")])
        self.assertEqual(len(self.queue().lines), 0)

    def test_dies_while_nothing_may_begin(self) -> None:
        """As when the service ends and takes its sessions with it: what waits goes at the next start."""
        self.owner.held_up = True
        self.die()
        self.put("Q99")
        self.assertEqual(self.owner.lost, [])
        self.assertEqual(len(self.queue().lines), 8)

    def test_nobody_is_let_in(self) -> None:
        """A site that turns every connection away is dead too, however polite its words."""
        for _ in range(10):
            if self.agent.held:
                self.deny(Blame.THROTTLED)
        self.assertGreater(self.queue().window.dead_until, START)
        self.assertNotEqual(self.owner.lost, [])

    def test_revived(self) -> None:
        """When the pause is over one goes first, and the owner is told; its success opens the window again."""
        self.die()
        for _ in range(2):
            self.deny()
        revivals = self.owner.revivals
        self.clock.advance(PAUSE - 0.1)
        self.assertEqual((self.flying(), self.owner.revivals), ([], revivals))
        self.clock.advance(0.1)
        self.assertEqual(self.owner.revivals, revivals + 1)
        self.put("R1", "R2", "R3")
        self.assertEqual(self.flying(), ["R1"])
        self.end()
        self.assertEqual(self.queue().window.size, 5)

    def test_revived_with_nothing_in_line(self) -> None:
        """The owner is told also where nothing waits here: the spool may have something."""
        self.die()
        self.clock.pump([1.0] * int(PAUSE - 1))
        self.assertEqual(self.owner.revivals, 0)
        self.clock.advance(1.0)
        self.assertEqual(self.owner.revivals, 1)

    def test_success_under_way(self) -> None:
        """A transaction that was under way and succeeds ends the pause, and the owner is told."""
        self.die()
        self.end()
        self.assertEqual((self.queue().window.dead_until, self.owner.revivals), (0.0, 1))
        self.put("R1")
        self.assertIn("R1", self.flying())

    def test_operator(self) -> None:
        """The operator need not wait for the pause, unless he does not say so."""
        self.die()
        for _ in range(2):
            self.deny()
        self.traffic.try_all()
        self.put("R1")
        self.assertEqual(self.flying(), [])
        self.traffic.try_all(dead=True)
        self.put("R2")
        self.assertEqual(self.flying(), ["R2"])

    def test_window_of_others(self) -> None:
        """What was never tried, or has no route yet, has the window that all begin with."""
        self.end()
        self.assertEqual(self.traffic.window(self.route()), 6)
        self.assertEqual((self.traffic.window(None), self.traffic.window(self.route("example.org"))), (5, 5))


class RateTests(TrafficCase):
    """A site with a rate delay."""

    def setUp(self) -> None:
        super().setUp()
        self.traffic = self.make(self.agent, site=evolve(SITE_RULES, rate_delay=5.0, on_demand=False))
        self.put("Q1", "Q2", "Q3")

    def test_rate(self) -> None:
        """One at a time, so long apart, and the session rests in between."""
        self.assertEqual(self.flying(), ["Q1"])
        self.end()
        self.assertEqual((self.flying(), self.over()), ([], [Then.SAVE]))
        self.clock.advance(4.9)
        self.assertEqual(self.flying(), [])
        self.clock.advance(0.1)
        self.assertEqual(self.flying(), ["Q2"])
        self.end()
        self.clock.advance(5.0)
        self.end()
        self.assertEqual(self.over(), [Then.SAVE] * 3)

    def test_revived_behind_an_alarm(self) -> None:
        """An alarm that was set for the next step does not swallow the revival."""
        self.end()
        self.clock.advance(5.0)
        self.deny()
        revivals = self.owner.revivals
        self.clock.pump([10.0] * 31)
        self.assertEqual(self.owner.revivals, revivals + 1)
        self.put("Q4")
        self.assertEqual(self.flying(), ["Q4"])


class EndTests(TrafficCase):
    """The end of all lanes, of jobs, and of what nobody needs any more."""

    def test_end(self) -> None:
        """It waits for what is in flight; what waits stays; no timer is left."""
        self.put("Q1", "Q2", "Q3")
        self.owner.held_up = True
        ended = Deferred.fromCoroutine(self.traffic.end())
        self.assertNoResult(ended)
        self.end_all()
        self.successResultOf(ended)
        self.assertEqual((self.carried(), len(self.queue().lines)), (["Q1", "Q2"], 1))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_end_of_lingering(self) -> None:
        """Lanes that wait for work are over at once."""
        self.two_lanes()
        self.owner.held_up = True
        self.successResultOf(Deferred.fromCoroutine(self.traffic.end()))
        self.assertEqual((self.over(), self.traffic.lanes), ([Then.QUIT, Then.QUIT], set()))

    def test_withdraw(self) -> None:
        """Jobs are taken out of all lines, but not from lanes."""
        self.put("Q1", "Q2", "Q3")
        self.put("R1", "R2", host="example.test")
        gone = self.traffic.withdraw(lambda job: job.message.queue_id in ("Q1", "Q3", "R2"))
        self.assertEqual([job.message.queue_id for job in gone], ["Q3", "R2"])
        self.end_all()
        self.assertEqual(sorted(self.carried()), ["Q1", "Q2", "R1"])

    def test_tidy(self) -> None:
        """A site is forgotten when it has nothing to do and taught nothing for an hour."""
        self.put("Q1")
        self.end()
        self.clock.advance(FORGET)
        self.traffic.tidy()
        self.assertEqual(list(self.traffic.sites), ["example.com"])
        self.put("Q2", host="example.test")
        self.clock.advance(1.0)
        self.traffic.tidy()
        self.assertEqual(list(self.traffic.sites), ["example.test"])
