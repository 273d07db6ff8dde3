"""
Tests of L{smtpreuse.queue.schedule}.
"""

from __future__ import annotations

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from smtpreuse.model.delivery import DeliveryReport, Ending, Outcome, Then
from smtpreuse.model.message import Recipient
from smtpreuse.queue.schedule import (
    FRESH_TO_RETRIES,
    MessageLimit,
    Pace,
    Rest,
    RetryRules,
    Settled,
    Window,
    hint,
    settle,
    wants_lane,
)

NOW = 1_700_000_000.0


def window(initial: int = 5, limit: int = 20) -> Window:
    """A site's window as main.cf has it by default."""
    return Window(initial=initial, limit=limit)


def failures_until_dead(size: int) -> int:
    """How many failures in a row kill a site whose window was so large."""
    site = window(initial=size, limit=20)
    count = 1
    while not site.failed(NOW, 300.0):
        count += 1
    return count


class WindowTests(SynchronousTestCase):
    """A site's window follows Postfix's feedback with its default amounts."""

    def test_initial(self) -> None:
        """It begins where it was told to, with nothing dead."""
        site = window()
        self.assertEqual((site.size, site.dead_until), (5, 0.0))

    def test_initial_over_limit(self) -> None:
        """No window is larger than its limit, not even the first."""
        self.assertEqual(window(5, 2).size, 2)

    def test_initial_none(self) -> None:
        """No window is smaller than one."""
        self.assertEqual(window(0, 20).size, 1)

    def test_success_widens(self) -> None:
        """Each success makes room for one more."""
        site = window()
        sizes = []
        for _ in range(3):
            site.succeeded(site.size, NOW)
            sizes.append(site.size)
        self.assertEqual(sizes, [6, 7, 8])

    def test_limit(self) -> None:
        """It grows up to its limit and no further."""
        site = window()
        for _ in range(50):
            site.succeeded(site.size, NOW)
        self.assertEqual(site.size, 20)

    def test_unused_does_not_grow(self) -> None:
        """It grows while it is less than what is busy and the initial one together, and not beyond."""
        site = window()
        for _ in range(50):
            site.succeeded(1, NOW)
        self.assertEqual(site.size, 6)
        site.succeeded(2, NOW)
        self.assertEqual(site.size, 7)

    def test_dead_after(self) -> None:
        """The numbers of failures in a row that Postfix's algorithm gives."""
        self.assertEqual(failures_until_dead(1), 1)
        self.assertEqual(failures_until_dead(5), 3)
        self.assertEqual(failures_until_dead(20), 13)

    def test_failure_narrows(self) -> None:
        """The first failure takes two steps, for the remainder begins at nothing; each that follows takes one."""
        site = window(20, 20)
        sizes = []
        for _ in range(4):
            self.assertIs(site.failed(NOW, 300.0), False)
            sizes.append(site.size)
        self.assertEqual(sizes, [18, 17, 16, 15])

    def test_growth_forgives_the_remainder(self) -> None:
        """What grew begins anew: its next failure takes two steps again."""
        site = window(10, 20)
        site.failed(NOW, 300.0)
        self.assertEqual(site.size, 8)
        site.succeeded(8, NOW)
        self.assertEqual(site.size, 9)
        site.failed(NOW, 300.0)
        self.assertEqual(site.size, 7)

    def test_dead(self) -> None:
        """A dead site is left alone for the pause; one probe comes first."""
        site = window(1, 20)
        self.assertIs(site.failed(NOW, 300.0), True)
        self.assertEqual((site.dead_until, site.size), (NOW + 300.0, 1))

    def test_dead_again(self) -> None:
        """When the probe fails the site is dead at once, from then."""
        site = window()
        for _ in range(3):
            site.failed(NOW, 300.0)
        self.assertIs(site.failed(NOW + 400.0, 300.0), True)
        self.assertEqual(site.dead_until, NOW + 700.0)

    def test_success_forgives(self) -> None:
        """One success between failures: they are not in a row any more."""
        site = window()
        for _ in range(20):
            self.assertIs(site.failed(NOW, 300.0), False)
            site.succeeded(site.size, NOW)
            site.succeeded(site.size, NOW)
        self.assertEqual(site.dead_until, 0.0)

    def test_back_from_the_dead(self) -> None:
        """A success brings back the initial window, or as much as is busy."""
        for busy, size in ((1, 5), (5, 5), (9, 9), (30, 20)):
            site = window()
            while not site.failed(NOW, 300.0):
                continue
            site.succeeded(busy, NOW + 301)
            self.assertEqual((site.size, site.dead_until), (size, 0.0))

    def test_back_with_nothing_left_over(self) -> None:
        """Back from the dead, neither failures nor successes from before count."""
        site = window()
        while not site.failed(NOW, 300.0):
            continue
        site.succeeded(1, NOW + 301)
        self.assertIs(site.failed(NOW + 302, 300.0), False)
        self.assertIs(site.failed(NOW + 302, 300.0), False)
        self.assertIs(site.failed(NOW + 302, 300.0), True)

    def test_back_within_the_limit(self) -> None:
        """A small limit holds for who comes back, too; and no limit is less than one."""
        site = window(5, 3)
        while not site.failed(NOW, 300.0):
            continue
        site.succeeded(9, NOW + 301)
        self.assertEqual(site.size, 3)

    def test_throttled(self) -> None:
        """A wish to slow down narrows the window and never kills: the site speaks to us."""
        site = window()
        sizes = []
        for _ in range(6):
            site.throttled()
            sizes.append(site.size)
        self.assertEqual(sizes, [3, 2, 1, 1, 1, 1])
        self.assertEqual(site.dead_until, 0.0)

    def test_throttled_is_no_failure(self) -> None:
        """Only failures of the connection count toward death."""
        site = window(20, 20)
        site.throttled()
        self.assertEqual(site.size, 18)
        count = 1
        while not site.failed(NOW, 300.0):
            count += 1
        self.assertGreater(count, 9)

    def test_door(self) -> None:
        """A site that refused one more keeps as many as it has; for a minute nobody asks for another."""
        site = window(10, 20)
        site.refused(4, NOW)
        self.assertEqual(site.size, 4)
        for later in (0.0, 30.0, 59.999):
            site.succeeded(4, NOW + later)
            self.assertEqual(site.size, 4)
        site.succeeded(4, NOW + 60.0)
        self.assertEqual(site.size, 5)

    def test_door_never_closes(self) -> None:
        """One session is always worth asking for."""
        site = window()
        site.refused(0, NOW)
        self.assertEqual(site.size, 1)

    def test_door_within_the_limit(self) -> None:
        """More than the limit is no measure."""
        site = window(5, 7)
        site.refused(9, NOW)
        self.assertEqual(site.size, 7)

    def test_door_holds_after_death(self) -> None:
        """Back from the dead while the door holds: not more than went through it."""
        site = window()
        site.refused(2, NOW)
        while not site.failed(NOW, 10.0):
            continue
        site.succeeded(9, NOW + 20)
        self.assertEqual(site.size, 2)

    def test_grows_to_the_door(self) -> None:
        """A window below the door widens up to it."""
        site = window(10, 20)
        site.refused(4, NOW)
        site.throttled()
        self.assertEqual(site.size, 2)
        for _ in range(5):
            site.succeeded(4, NOW + 1)
        self.assertEqual(site.size, 4)

    @given(
        st.integers(0, 30), st.integers(1, 30),
        st.lists(st.tuples(st.sampled_from("sftr"), st.integers(0, 40), st.floats(0, 100)), max_size=40),
    )  # fmt: skip
    def test_bounds(self, initial: int, limit: int, events: list[tuple[str, int, float]]) -> None:
        """Whatever happens, the window is at least one and at most its limit; dead only after a failure."""
        site, now = window(initial, limit), NOW
        for kind, number, passed in events:
            now += passed
            if kind == "s":
                site.succeeded(number, now)
                self.assertEqual(site.dead_until, 0.0)
            elif kind == "f":
                before = site.dead_until
                dead = site.failed(now, 300.0)
                self.assertEqual(site.dead_until, now + 300.0 if dead else before)
            elif kind == "t":
                site.throttled()
            else:
                site.refused(number, now)
            self.assertTrue(1 <= site.size <= limit, site)


class AdoptedWindowTests(SynchronousTestCase):
    """Other limits hold at once, and what the site has taught stays."""

    def test_narrower(self) -> None:
        """A window over the new limit is cut to it, down to one."""
        site = window()
        site.adopt(5, 3)
        self.assertEqual(site.size, 3)
        site.adopt(5, 0)
        self.assertEqual(site.size, 1)

    def test_wider(self) -> None:
        """One that its limit held goes on from where a new one begins, and grows to the new limit."""
        site = window(5, 1)
        site.adopt(5, 20)
        self.assertEqual(site.size, 5)
        for _ in range(50):
            site.succeeded(site.size, NOW)
        self.assertEqual(site.size, 20)
        site.adopt(5, 30)
        self.assertEqual(site.size, 20)

    def test_taught(self) -> None:
        """One that the site has narrowed stays as narrow."""
        site = window()
        for _ in range(3):
            site.throttled()
        narrow = site.size
        self.assertLess(narrow, 5)
        site.adopt(7, 30)
        self.assertEqual(site.size, narrow)

    def test_dead(self) -> None:
        """A dead site stays dead, and begins again by the new limits."""
        site = window(1, 1)
        self.assertTrue(site.failed(NOW, 300.0))
        site.adopt(4, 20)
        self.assertEqual((site.size, site.dead_until), (1, NOW + 300.0))
        site.succeeded(1, NOW + 300.0)
        self.assertEqual(site.size, 4)


class ShareTests(SynchronousTestCase):
    """How fresh mail and retries share is a promise to operators."""

    def test_share(self) -> None:
        """Three to one."""
        self.assertEqual(FRESH_TO_RETRIES, 3)


class DeadWindowTests(SynchronousTestCase):
    """What a window was before it died or met the door does not reach beyond."""

    def test_back_as_small_as_it_was(self) -> None:
        """A window that is to begin with one session begins with one, after death too."""
        site = window(0, 20)
        self.assertIs(site.failed(NOW, 300.0), True)
        site.succeeded(1, NOW + 301)
        self.assertEqual(site.size, 1)

    def test_no_growth_no_forgiveness(self) -> None:
        """A success that widens nothing, because the door holds, leaves the remainder of earlier failures."""
        site = window(10, 20)
        site.throttled()
        site.refused(4, NOW)
        site.succeeded(4, NOW + 1)
        site.throttled()
        self.assertEqual(site.size, 3)


class MessageLimitTests(SynchronousTestCase):
    """How many messages a session carries is learned when it was seen twice."""

    def test_unknown(self) -> None:
        """Nothing is known at first."""
        self.assertEqual(MessageLimit().most(NOW), 0)

    def test_once(self) -> None:
        """Once may be chance."""
        limit = MessageLimit()
        for carried in (1, 20):
            limit.ended(carried, NOW, NOW)
            self.assertEqual(limit.most(NOW), 0)

    def test_one_once(self) -> None:
        """One message once is no more than chance either."""
        limit = MessageLimit()
        limit.ended(1, NOW, NOW)
        self.assertEqual(limit.most(NOW), 0)

    def test_twice(self) -> None:
        """Twice in a row is a limit, for a day."""
        limit = MessageLimit()
        limit.ended(20, NOW, NOW)
        limit.ended(20, NOW + 10, NOW + 10)
        self.assertEqual(limit.most(NOW + 10), 20)
        self.assertEqual(limit.most(NOW + 10 + 86399), 20)
        self.assertEqual(limit.most(NOW + 10 + 86400), 0)

    def test_together(self) -> None:
        """Sessions that were open together and end together, as when a server is started anew, are seen once."""
        limit = MessageLimit()
        for opened in (NOW, NOW + 1, NOW + 2):
            limit.ended(1, opened, NOW + 10)
        self.assertEqual(limit.most(NOW + 10), 0)
        limit.ended(1, NOW + 11, NOW + 12)
        self.assertEqual(limit.most(NOW + 12), 1)

    def test_not_in_a_row(self) -> None:
        """Something else between them: no limit."""
        limit = MessageLimit()
        for carried in (20, 7, 20):
            limit.ended(carried, NOW, NOW)
        self.assertEqual(limit.most(NOW), 0)

    def test_stays(self) -> None:
        """A single other count does not undo what was learned; twice another one replaces it."""
        limit = MessageLimit()
        for carried in (20, 20, 5):
            limit.ended(carried, NOW, NOW)
        self.assertEqual(limit.most(NOW), 20)
        limit.ended(5, NOW, NOW)
        self.assertEqual(limit.most(NOW), 5)


class PaceTests(SynchronousTestCase):
    """How long things take is a moving average."""

    def test_nothing(self) -> None:
        """Nothing is known at first."""
        self.assertEqual((Pace().connecting, Pace().transaction), (0.0, 0.0))

    def test_first(self) -> None:
        """The first is taken as it is, each for itself."""
        pace = Pace()
        pace.connected(4.0)
        self.assertEqual((pace.connecting, pace.transaction), (4.0, 0.0))
        pace.carried(2.0)
        self.assertEqual((pace.connecting, pace.transaction), (4.0, 2.0))

    def test_average(self) -> None:
        """What follows moves it by an eighth."""
        pace = Pace()
        for seconds in (4.0, 12.0, 5.0):
            pace.connected(seconds)
            pace.carried(seconds / 2)
        self.assertEqual((pace.connecting, pace.transaction), (5.0, 2.5))


class WantsLaneTests(SynchronousTestCase):
    """Another lane is opened where it can still help."""

    def test_nothing_due(self) -> None:
        """Nothing due: no lane."""
        self.assertIs(wants_lane(0, 0, 5, Pace()), False)
        self.assertIs(wants_lane(0, 1, 5, Pace(connecting=0.1, transaction=9.0)), False)

    def test_first(self) -> None:
        """The first lane is always worth it, whatever the pace."""
        self.assertIs(wants_lane(1, 0, 1, Pace()), True)
        self.assertIs(wants_lane(1, 0, 1, Pace(connecting=9.0, transaction=0.1)), True)

    def test_window_full(self) -> None:
        """Not beyond the window."""
        self.assertIs(wants_lane(100, 5, 5, Pace()), False)
        self.assertIs(wants_lane(100, 6, 5, Pace()), False)
        self.assertIs(wants_lane(100, 4, 5, Pace()), True)

    def test_pace_unknown(self) -> None:
        """While nothing is known, a lane for each request."""
        self.assertIs(wants_lane(3, 2, 5, Pace()), True)
        self.assertIs(wants_lane(3, 3, 5, Pace()), False)
        self.assertIs(wants_lane(2, 3, 5, Pace(transaction=99.0)), False)

    def test_backlog(self) -> None:
        """Worth it when the lanes at work would need more than twice what opening one takes."""
        pace = Pace(connecting=1.0, transaction=0.5)
        self.assertIs(wants_lane(8, 2, 5, pace), False)
        self.assertIs(wants_lane(9, 2, 5, pace), True)
        self.assertIs(wants_lane(9, 3, 5, pace), False)

    def test_stuck(self) -> None:
        """What has waited for a second gets a lane, as far as the window allows: those at work may be stuck."""
        pace = Pace(connecting=1.0, transaction=0.01)
        self.assertIs(wants_lane(1, 1, 5, pace, 0.9), False)
        self.assertIs(wants_lane(1, 1, 5, pace, 1.0), True)
        self.assertIs(wants_lane(1, 3, 5, Pace(), 1.0), True)
        self.assertIs(wants_lane(1, 5, 5, pace, 99.0), False)
        self.assertIs(wants_lane(0, 1, 5, pace, 99.0), False)

    def test_backlog_scales(self) -> None:
        """Twice the time of opening is waited for, whatever that time is."""
        pace = Pace(connecting=4.0, transaction=0.25)
        self.assertIs(wants_lane(32, 1, 5, pace), False)
        self.assertIs(wants_lane(33, 1, 5, pace), True)

    def test_backlog_slow_opening(self) -> None:
        """A server that opens slowly and carries fast is left with the lanes it has."""
        self.assertIs(wants_lane(100, 1, 20, Pace(connecting=2.0, transaction=0.01)), False)
        self.assertIs(wants_lane(500, 1, 20, Pace(connecting=2.0, transaction=0.01)), True)


REST = Rest(last_completion=0.0, other_lanes=0, listed=False, warm=False, on_demand=True)


class HintTests(SynchronousTestCase):
    """A session without work rests where that is likely to pay."""

    def test_alone(self) -> None:
        """A single message to a site: no connection is left idle there."""
        self.assertIs(hint(NOW, REST), Then.QUIT)

    def test_back_to_back(self) -> None:
        """Another completion within the last second: it rests."""
        self.assertIs(hint(NOW, evolve(REST, last_completion=NOW)), Then.SAVE)
        self.assertIs(hint(NOW, evolve(REST, last_completion=NOW - 1.0)), Then.SAVE)
        self.assertIs(hint(NOW, evolve(REST, last_completion=NOW - 1.5)), Then.QUIT)

    def test_others_at_work(self) -> None:
        """Other lanes are at work: it rests."""
        self.assertIs(hint(NOW, evolve(REST, other_lanes=1)), Then.SAVE)

    def test_not_on_demand(self) -> None:
        """With caching on demand off neither counts."""
        busy = evolve(REST, last_completion=NOW, other_lanes=3, on_demand=False)
        self.assertIs(hint(NOW, busy), Then.QUIT)

    def test_listed(self) -> None:
        """A listed destination always rests."""
        self.assertIs(hint(NOW, evolve(REST, listed=True, on_demand=False)), Then.SAVE)

    def test_warm(self) -> None:
        """A rate delay does not switch reuse off."""
        self.assertIs(hint(NOW, evolve(REST, warm=True, on_demand=False)), Then.SAVE)


RULES = RetryRules(minimal_backoff=300.0, maximal_backoff=4000.0, lifetime=432000.0, bounce_lifetime=86400.0)


class RetryRulesTests(SynchronousTestCase):
    """Retries back off exponentially, a tenth more or less, until the message's time is over."""

    def test_expired(self) -> None:
        """A message expires at the end of its lifetime, not before."""
        self.assertIs(RULES.expired(NOW - 431999, "a@example.com", NOW), False)
        self.assertIs(RULES.expired(NOW - 432000, "a@example.com", NOW), True)

    def test_bounce_expired(self) -> None:
        """What has no sender has a lifetime of its own."""
        self.assertIs(RULES.expired(NOW - 86399, "", NOW), False)
        self.assertIs(RULES.expired(NOW - 86400, "", NOW), True)

    def test_doubles(self) -> None:
        """The pause is as long as the message has waited, within bounds."""
        for age, pause in ((0, 300), (299, 300), (301, 301), (1000, 1000), (4000, 4000), (9000, 4000)):
            self.assertAlmostEqual(RULES.next_attempt(NOW - age, NOW, 0.5) - NOW, pause, places=3)

    def test_jitter(self) -> None:
        """Ten per cent more or less."""
        self.assertAlmostEqual(RULES.next_attempt(NOW, NOW, 0.0) - NOW, 270.0, places=3)
        self.assertAlmostEqual(RULES.next_attempt(NOW, NOW, 1.0) - NOW, 330.0, places=3)

    def test_clock_set_back(self) -> None:
        """A message from the future waits no less than the minimum."""
        self.assertAlmostEqual(RULES.next_attempt(NOW + 5000, NOW, 0.5) - NOW, 300.0, places=3)


ANN = Recipient(row=1, address="ann@example.com", hop="smtp:example.com", attempts=2)
BOB = Recipient(row=2, address="bob@example.com", hop="smtp:example.com")


def outcome(ending: Ending, status: str = "4.2.0", recipient: Recipient = ANN, text: str = "why") -> Outcome:
    """What became of a recipient."""
    return Outcome(recipient=recipient, ending=ending, status=status, text=text)


def report(*outcomes: Outcome, exhausted: bool = False) -> DeliveryReport:
    """An attempt that ended so."""
    return DeliveryReport(
        ticket=1, outcomes=outcomes, started=NOW, ready=NOW, finished=NOW, uses=1, exhausted=exhausted
    )


def settled(
    *outcomes: Outcome, others_left: bool = False, exhausted: bool = False, age: float = 0.0,
    sender: str = "from@example.com", rules: RetryRules = RULES,
) -> Settled:  # fmt: skip
    """What follows for a message of this age."""
    return settle(
        "QID", sender, NOW - age, report(*outcomes, exhausted=exhausted), rules,
        others_left=others_left, now=NOW, jitter=0.5,
    )  # fmt: skip


class SettleTests(SynchronousTestCase):
    """Every outcome has its consequence."""

    def test_delivered(self) -> None:
        """Delivered: the recipient leaves the queue, nobody is told."""
        done = settled(outcome(Ending.DELIVERED, "2.0.0"))
        (recorded,) = done.recorded
        self.assertEqual((recorded.queue_id, recorded.row, recorded.hop), ("QID", 1, "smtp:example.com"))
        self.assertIsNone(recorded.next_attempt)
        self.assertEqual((done.failed, done.again, done.elsewhere, done.expired), ((), (), False, False))

    def test_delivered_late(self) -> None:
        """Delivered is delivered, however old the message is."""
        done = settled(outcome(Ending.DELIVERED, "2.0.0"), age=1e7)
        self.assertEqual((done.failed, done.expired), ((), False))

    def test_refused_softly(self) -> None:
        """4xx: deferred with its reason, one attempt more."""
        done = settled(outcome(Ending.REFUSED, text="host said: 450 later"), age=1000.0)
        (recorded,) = done.recorded
        self.assertEqual((recorded.queue_id, recorded.row, recorded.hop), ("QID", 1, "smtp:example.com"))
        self.assertAlmostEqual(recorded.next_attempt or 0.0, NOW + 1000.0, places=3)
        self.assertEqual((recorded.reason, recorded.attempts), ("host said: 450 later", 3))
        self.assertEqual((done.failed, done.again, done.elsewhere, done.expired), ((), (), False, False))

    def test_refused_softly_others_left(self) -> None:
        """4xx with another host left: there at once, and nothing is recorded."""
        done = settled(outcome(Ending.REFUSED), others_left=True)
        self.assertEqual((done.recorded, done.again, done.elsewhere), ((), (ANN,), True))

    def test_refused_softly_exhausted(self) -> None:
        """The agent tried them all itself: deferred."""
        done = settled(outcome(Ending.REFUSED), others_left=True, exhausted=True)
        self.assertEqual((len(done.recorded), done.again, done.elsewhere), (1, (), False))

    def test_refused_for_good(self) -> None:
        """5xx: the sender is to be told, whoever else is left."""
        no = outcome(Ending.REFUSED, "5.1.1")
        done = settled(no, others_left=True)
        (recorded,) = done.recorded
        self.assertEqual((recorded.queue_id, recorded.row, recorded.hop), ("QID", 1, "smtp:example.com"))
        self.assertIsNone(recorded.next_attempt)
        self.assertEqual((done.failed, done.again, done.expired), ((no,), (), False))

    def test_soft_bounce(self) -> None:
        """With C{soft_bounce} 5xx is deferred as 4xx is, until the message's time is over."""
        rules = evolve(RULES, soft_bounce=True)
        done = settled(outcome(Ending.REFUSED, "5.1.1"), rules=rules)
        self.assertEqual((done.recorded[0].attempts, done.failed), (3, ()))
        self.assertIsNotNone(done.recorded[0].next_attempt)
        self.assertIs(settled(outcome(Ending.REFUSED, "5.1.1"), rules=rules, age=432000).expired, True)

    def test_unknown(self) -> None:
        """Reply to the final dot not seen: deferred and counted, not tried elsewhere at once."""
        done = settled(outcome(Ending.UNKNOWN, "4.4.2"), others_left=True)
        self.assertEqual((done.again, done.elsewhere, done.recorded[0].attempts), ((), False, 3))
        self.assertIsNotNone(done.recorded[0].next_attempt)

    def test_untouched(self) -> None:
        """Nothing was decided: at once, no attempt counted, not even when the message is too old."""
        for age in (0.0, 1e7):
            done = settled(outcome(Ending.UNTOUCHED, "4.4.2"), age=age)
            self.assertEqual(
                (done.recorded, done.failed, done.again, done.elsewhere, done.expired), ((), (), (ANN,), False, False)
            )

    def test_expired(self) -> None:
        """4xx of a message whose time is over: the sender is to be told."""
        late = outcome(Ending.REFUSED)
        done = settled(late, age=432000)
        self.assertEqual((done.failed, done.expired, done.recorded[0].next_attempt), ((late,), True, None))

    def test_unknown_expired(self) -> None:
        """An unknown end is the last one of a message whose time is over."""
        self.assertIs(settled(outcome(Ending.UNKNOWN, "4.4.2"), age=432000).expired, True)

    def test_refused_for_good_when_old(self) -> None:
        """5xx is what it is: not called expired."""
        self.assertIs(settled(outcome(Ending.REFUSED, "5.0.0"), age=432000).expired, False)

    def test_expired_others_left(self) -> None:
        """The last attempt of an old message goes to all hosts, too."""
        self.assertEqual(settled(outcome(Ending.REFUSED), age=432000, others_left=True).again, (ANN,))

    def test_bounce_expires_by_its_own_rule(self) -> None:
        """The null sender's lifetime counts for a bounce."""
        self.assertIs(settled(outcome(Ending.REFUSED), age=90000, sender="").expired, True)
        self.assertIs(settled(outcome(Ending.REFUSED), age=90000).expired, False)

    def test_mixed(self) -> None:
        """Each recipient for itself; one that expired or went elsewhere says so for the whole."""
        done = settled(outcome(Ending.REFUSED, "5.1.1"), outcome(Ending.REFUSED, "4.2.2", BOB), age=432000)
        self.assertEqual((done.expired, len(done.failed), len(done.recorded)), (True, 2, 2))
        done = settled(outcome(Ending.REFUSED), outcome(Ending.DELIVERED, "2.0.0", BOB), others_left=True)
        self.assertEqual((done.again, done.elsewhere, done.recorded[0].row), ((ANN,), True, 2))
        done = settled(outcome(Ending.REFUSED, "4.2.2"), outcome(Ending.REFUSED, "5.1.1", BOB), age=432000)
        self.assertEqual(done.expired, True)
