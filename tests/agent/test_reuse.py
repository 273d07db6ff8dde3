"""
Tests of L{smtpreuse.agent.reuse}.
"""

from __future__ import annotations

from random import Random

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from smtpreuse.agent.connect import OpenFailed, OpeningRules
from smtpreuse.agent.reuse import Finder, SearchRules
from smtpreuse.agent.session import OpenSession
from smtpreuse.model.delivery import Blame
from smtpreuse.model.nexthop import Candidate
from tests.agent.world import PROFILE, facts, limits, open_session, request, route, started
from tests.fakes import FakeCache, FakeEnd, FakeHosts, FakeLane, FakeLog, Rested, candidate

ONE = candidate("mx1.example.com", "192.0.2.1", preference=10)
TWO = candidate("mx2.example.com", "192.0.2.2", preference=10)
LAST = candidate("mx3.example.com", "192.0.2.3", preference=20)


class Drawn(Random):
    """Draws these numbers, or ever larger ones: then all stays in its order."""

    def __init__(self, *numbers: float) -> None:
        super().__init__(0)
        self._numbers = list(numbers)
        self._last = 0.0

    def random(self) -> float:
        self._last += 1
        return self._numbers.pop(0) if self._numbers else self._last


class FakeConnector:
    """Opens sessions, but not to those that fail."""

    def __init__(self, clock: Clock) -> None:
        self.failures: dict[str, OpenFailed] = {}
        self.opened: list[tuple[str, bool]] = []
        self.tried: list[str] = []
        self._clock = clock
        self.rules: OpeningRules | None = None

    def adopt(self, rules: OpeningRules) -> None:
        self.rules = rules

    async def open(self, candidate: Candidate, *, fall_back: bool) -> OpenSession:
        self.opened.append((candidate.host, fall_back))
        self.tried.append(candidate.endpoint.address)
        if candidate.host in self.failures:
            raise self.failures[candidate.host]
        return open_session(FakeEnd(), self._clock, at=candidate)


class FinderTests(SynchronousTestCase):
    """A session comes from the cache by destination, then by endpoint, and only then is a new one opened."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.cache = FakeCache()
        self.hosts = FakeHosts()
        self.log = FakeLog()
        self.connector = FakeConnector(self.clock)
        self.lane = FakeLane()

    def find(
        self, *, candidates: tuple[Candidate, ...] = (ONE, TWO, LAST), source: Random | None = None,
        by_family: bool = False, **values: object,
    ) -> Deferred[OpenSession]:  # fmt: skip
        """Find one for a request with these values."""
        rules = SearchRules(profile=PROFILE, limits=limits(), fallback_age=300.0, by_family=by_family)
        finder = Finder(
            self.cache, self.connector, self.hosts, self.log, self.clock, source or Drawn(), rules,  # type: ignore[arg-type]  # a fake
        )  # fmt: skip
        return started(finder.find(self.lane, request(route=route(*candidates), **values)))

    def rested(self, at: Candidate, uses: int = 4) -> Rested:
        """A session at rest."""
        return PROFILE.key(at), facts(uses=uses), FakeEnd()

    def hosts_opened(self) -> list[str]:
        """Where connections were tried."""
        return [host for host, _ in self.connector.opened]

    def test_spread(self) -> None:
        """New sessions spread over hosts of equal preference, and stay with them."""
        firsts = set()
        for seed in range(20):
            self.connector.opened.clear()
            self.successResultOf(self.find(source=Random(seed), fresh=True))
            firsts.add(self.hosts_opened()[0])
        self.assertEqual(firsts, {"mx1.example.com", "mx2.example.com"})

    def test_spread_within_family(self) -> None:
        """Where one family of addresses goes first, each is spread by itself."""
        given = tuple(candidate("mx.example.com", address) for address in ("2001:db8::1", "2001:db8::2", "192.0.2.1"))
        for place, expected in ((True, ["2001:db8::2", "2001:db8::1", "192.0.2.1"]), (False, ["192.0.2.1"])):
            self.connector.tried.clear()
            self.connector.failures["mx.example.com"] = OpenFailed("4.4.1", "refused")
            self.failureResultOf(
                self.find(candidates=given, source=Drawn(0.9, 0.5, 0.1), by_family=place, fresh=True), OpenFailed
            )
            self.assertEqual(self.connector.tried[: len(expected)], expected)

    def test_by_destination(self) -> None:
        """The one that served the destination before is taken, and nothing is opened."""
        self.cache.destinations["example.com"] = saved = self.rested(TWO)
        session = self.successResultOf(self.find())
        self.assertEqual((session.key, session.candidate, session.uses), (saved[0], TWO, 4))
        self.assertIs(session.session.end, saved[2])
        self.assertTrue(session.session.doubtful)
        self.assertEqual((self.cache.asked, self.hosts_opened()), (["example.com"], []))
        self.assertEqual(session.session.relay, "mx2.example.com[192.0.2.2]")

    def test_needs(self) -> None:
        """The cache is told what each candidate would need, in order, with the size of the message."""
        self.find(size=777)
        self.assertEqual([need.key for need in self.cache.needs], [PROFILE.key(each) for each in (ONE, TWO, LAST)])
        self.assertEqual({need.size for need in self.cache.needs}, {777})

    def test_by_endpoint(self) -> None:
        """Then one to an endpoint of the best preference, whoever used it."""
        self.cache.endpoints[TWO.endpoint] = self.rested(TWO)
        session = self.successResultOf(self.find())
        self.assertIs(session.candidate, TWO)
        self.assertEqual(self.cache.asked, ["example.com", "[192.0.2.1]:25", "[192.0.2.2]:25"])

    def test_takes_one(self) -> None:
        """One session is taken out, the others go on resting."""
        self.cache.endpoints[ONE.endpoint] = self.rested(ONE)
        self.cache.endpoints[TWO.endpoint] = self.rested(TWO)
        self.assertIs(self.successResultOf(self.find()).candidate, ONE)
        self.assertEqual(list(self.cache.endpoints), [TWO.endpoint])

    def test_best_preference_only(self) -> None:
        """A session to a host of lower preference does not keep the better one from being tried."""
        self.cache.endpoints[LAST.endpoint] = self.rested(LAST)
        session = self.successResultOf(self.find())
        self.assertIs(session.candidate, ONE)
        self.assertNotIn("[192.0.2.3]:25", self.cache.asked)

    def test_lower_preference_after_failures(self) -> None:
        """Once the better ones failed, a session at rest goes before a connection."""
        for host in ("mx1.example.com", "mx2.example.com"):
            self.connector.failures[host] = OpenFailed("4.4.1", "refused")
        self.cache.endpoints[LAST.endpoint] = self.rested(LAST)
        session = self.successResultOf(self.find())
        self.assertIs(session.candidate, LAST)
        self.assertEqual(self.hosts_opened(), ["mx1.example.com", "mx2.example.com"])

    def test_ended_on_sight(self) -> None:
        """A session that its server ended or spoiled while it changed hands is never seen by the request."""
        for spoil in ("close", "421"):
            self.setUp()
            saved = self.rested(ONE)
            end = saved[2]
            assert isinstance(end, FakeEnd)
            if spoil == "close":
                end.attach = lambda receiver: receiver.ended("closed")  # type: ignore[method-assign]  # it was closed
            else:
                end.attach = lambda receiver: receiver.received(b"421 idle\r\n")  # type: ignore[method-assign]  # it spoke
            self.cache.destinations["example.com"] = saved
            session = self.successResultOf(self.find())
            self.assertEqual((session.uses, self.hosts_opened()), (0, ["mx1.example.com"]))

    def test_ended_on_sight_after_failure(self) -> None:
        """The same where it was found on the way."""
        saved = self.rested(TWO)
        end = saved[2]
        assert isinstance(end, FakeEnd)
        end.attach = lambda receiver: receiver.ended("closed")  # type: ignore[method-assign]  # it was closed
        self.connector.failures["mx1.example.com"] = OpenFailed("4.4.1", "refused")

        async def late(need: object) -> Rested | None:
            found = self.cache.asked.count("late") == 2
            self.cache.asked.append("late")
            return saved if found else None

        self.cache.find_endpoint = late  # type: ignore[method-assign,assignment]  # found at the third look
        session = self.successResultOf(self.find())
        self.assertEqual((session.candidate, session.uses), (TWO, 0))

    def test_fresh(self) -> None:
        """One that a reused session failed gets a new one, and no other: one retry."""
        self.cache.destinations["example.com"] = self.rested(ONE)
        self.cache.endpoints[ONE.endpoint] = self.rested(ONE)
        self.cache.endpoints[TWO.endpoint] = self.rested(TWO)
        self.connector.failures["mx1.example.com"] = OpenFailed("4.4.1", "refused")
        session = self.successResultOf(self.find(fresh=True))
        self.assertEqual((session.uses, session.candidate, self.cache.asked), (0, TWO, []))

    def test_tried(self) -> None:
        """Hosts that refused it are neither looked up nor connected to."""
        self.cache.endpoints[ONE.endpoint] = self.rested(ONE)
        session = self.successResultOf(self.find(tried=frozenset({ONE.endpoint})))
        self.assertIs(session.candidate, TWO)
        self.assertNotIn(PROFILE.key(ONE), [need.key for need in self.cache.needs])
        self.assertNotIn("[192.0.2.1]:25", self.cache.asked)

    def test_tried_all_of_a_preference(self) -> None:
        """The best preference is that of those that are left."""
        self.cache.endpoints[LAST.endpoint] = self.rested(LAST)
        session = self.successResultOf(self.find(tried=frozenset({ONE.endpoint, TWO.endpoint})))
        self.assertEqual((session.candidate, session.uses), (LAST, 4))

    def test_none_left(self) -> None:
        """Nobody left to try: deferred, nobody's fault."""
        error = self.failureResultOf(self.find(tried=frozenset({ONE.endpoint}), candidates=(ONE,)), OpenFailed).value
        self.assertEqual((error.status, error.blame), ("4.3.0", Blame.NOBODY))

    def test_order(self) -> None:
        """In the order of the candidates; what failed and what answered is remembered for all lanes."""
        self.connector.failures["mx1.example.com"] = OpenFailed("4.4.1", "refused")
        session = self.successResultOf(self.find())
        self.assertIs(session.candidate, TWO)
        self.assertEqual(self.hosts.said, [("failed", ONE.endpoint), ("answered", TWO.endpoint)])

    def test_failed_lately(self) -> None:
        """An endpoint that failed lately is tried last."""
        self.hosts.bad = [ONE.endpoint]
        self.connector.failures["mx2.example.com"] = OpenFailed("4.4.1", "refused")
        self.connector.failures["mx3.example.com"] = OpenFailed("4.4.1", "refused")
        self.assertIs(self.successResultOf(self.find()).candidate, ONE)
        self.assertEqual(self.hosts_opened(), ["mx2.example.com", "mx3.example.com", "mx1.example.com"])

    def test_all_fail(self) -> None:
        """The last failure is what the recipients are deferred with."""
        for number in (1, 2, 3):
            self.connector.failures[f"mx{number}.example.com"] = OpenFailed("4.4.1", f"refused {number}")
        error = self.failureResultOf(self.find(), OpenFailed).value
        self.assertEqual(error.text, "refused 3")

    def test_permanent(self) -> None:
        """A failure for good ends the search."""
        self.connector.failures["mx1.example.com"] = OpenFailed("5.4.6", "loops back to myself", Blame.NOBODY)
        self.failureResultOf(self.find(), OpenFailed)
        self.assertEqual(self.hosts_opened(), ["mx1.example.com"])

    def test_passed_by(self) -> None:
        """The operator hears why a candidate was passed by, whether the next one takes the mail or not."""
        self.connector.failures["mx1.example.com"] = OpenFailed("4.4.1", "connect to mx1: refused")
        self.connector.failures["mx2.example.com"] = failed = OpenFailed("4.7.1", "host mx2 refused to talk to me")
        failed.relay = TWO.relay
        self.successResultOf(self.find())
        expected = ["smtp: connect to mx1: refused", "smtp: QID1: host mx2 refused to talk to me"]
        self.assertEqual(self.log.lines, expected)
        self.connector.failures["mx3.example.com"] = OpenFailed("4.4.1", "connect to mx3: refused")
        self.failureResultOf(self.find(), OpenFailed)
        self.assertEqual(self.log.lines, expected * 2)

    def test_configured_relay(self) -> None:
        """A relay of our own configuration that wants nothing of us is our mistake: mail waits, others are tried."""
        relay = evolve(ONE, configured=True)
        loop = OpenFailed("5.4.6", "mail for mx1.example.com loops back to myself", Blame.NOBODY)
        self.connector.failures["mx1.example.com"] = loop
        self.assertIs(self.successResultOf(self.find(candidates=(relay, LAST))).candidate, LAST)
        error = self.failureResultOf(self.find(candidates=(relay,)), OpenFailed).value
        self.assertEqual((error.status, error.blame), ("4.3.5", Blame.NOBODY))
        self.assertEqual(error.text, f"mail server configuration problem: {loop.text}")

    def test_loop_behind_a_better_host(self) -> None:
        """We are the backup, and the host before us does not answer now: mail waits for it."""
        self.connector.failures["mx1.example.com"] = OpenFailed("4.4.1", "refused")
        self.connector.failures["mx3.example.com"] = OpenFailed("5.4.6", "loops back to myself", Blame.NOBODY)
        error = self.failureResultOf(self.find(candidates=(ONE, LAST)), OpenFailed).value
        self.assertEqual((error.status, error.text), ("4.4.6", "loops back to myself"))

    def test_our_own_fault(self) -> None:
        """Our own faults are not held against the endpoint."""
        self.connector.failures["mx1.example.com"] = OpenFailed("4.3.0", "no files", Blame.OURSELVES)
        self.successResultOf(self.find())
        self.assertEqual(self.hosts.said, [("answered", TWO.endpoint)])

    def test_adopt(self) -> None:
        """By other rules what is sought in the cache is what these would open, and the connector opens by them too."""
        rules = SearchRules(profile=PROFILE, limits=limits(), fallback_age=300.0)
        finder = Finder(
            self.cache, self.connector, self.hosts, self.log, self.clock, Drawn(), rules,  # type: ignore[arg-type]  # a fake
        )  # fmt: skip
        other = evolve(PROFILE, helo="other.example.com")
        opening = OpeningRules(
            profile=other, limits=limits(), connect_timeout=1.0, starttls_timeout=2.0, lifetime=3.0,
            skip_5xx_greeting=True, discard=frozenset(),
        )  # fmt: skip
        finder.adopt(opening, evolve(rules, profile=other, fallback_age=10.0))
        wanted = request(route=route(ONE), arrived=1000.0, activated=1010.0)
        self.successResultOf(started(finder.find(self.lane, wanted)))
        self.assertEqual([need.key for need in self.cache.needs], [other.key(ONE)])
        self.assertEqual((self.connector.rules, self.connector.opened), (opening, [("mx1.example.com", True)]))

    def test_makes_room(self) -> None:
        """Before a connection is opened, resting sessions beyond what the lane allows are told QUIT."""
        self.successResultOf(self.find())
        self.assertEqual(self.cache.dropped, [("example.com", 3)])

    def test_age(self) -> None:
        """Going without TLS is for messages that had waited before they were taken up."""
        for waited, allowed in ((299.0, False), (300.0, True)):
            self.setUp()
            self.find(arrived=1000.0, activated=1000.0 + waited)
            self.assertEqual(self.connector.opened, [("mx1.example.com", allowed)])
