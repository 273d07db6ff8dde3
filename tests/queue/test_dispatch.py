"""
Tests of L{smtpreuse.queue.dispatch}.
"""

from __future__ import annotations

from collections import Counter

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from smtpreuse.errors import RouteError
from smtpreuse.model.content import Content, FileContent, MemoryContent
from smtpreuse.model.delivery import Blame, DeliveryRequest, Ending, Then
from smtpreuse.model.message import Message
from smtpreuse.model.queueview import Committed
from smtpreuse.queue.hop import LEAST_ROOM
from smtpreuse.queue.ledger import LATE
from smtpreuse.queue.rules import DispatchRules
from smtpreuse.queue.schedule import STUCK
from smtpreuse.queue.sitequeue import CROWD, LINGER
from tests.fakes import candidate
from tests.queue.world import RULES, START, BusyAgent, World, message, no_session, report_of

ONE = candidate("mx1.example.com", "192.0.2.1")
TWO = candidate("mx2.example.com", "192.0.2.2")


class DispatchCase(SynchronousTestCase):
    """A dispatcher with an agent that takes what it is given and holds it."""

    def setUp(self) -> None:
        self.world = self.make()

    def make(self, rules: DispatchRules = RULES) -> World:
        """With these rules."""
        self.agent = BusyAgent()
        return World(self.agent, rules)

    def accept(self, *names: str, **values: object) -> None:
        """Messages of these names, one recipient each."""
        for name in names:
            self.world.accept(message(name, **values))

    def end(self, ending: Ending = Ending.DELIVERED, status: str = "2.0.0", **values: object) -> DeliveryRequest:
        """The oldest request in flight ends like this."""
        lane = self.agent.first()
        request = self.agent.held[lane]
        now = self.world.clock.seconds()
        values = {"started": now, "ready": now, "finished": now, **values}
        return self.agent.end(lane, report_of(request, ending, status, "host said: so", **values))

    def deny(self, blame: Blame = Blame.SITE) -> None:
        """For the oldest request in flight there is no session."""
        lane = self.agent.first()
        self.agent.end(lane, no_session(self.agent.held[lane], blame, self.world.clock.seconds()))

    def two_lanes(self) -> None:
        """Two lanes have delivered a message each and wait for work."""
        self.accept("Q1", "Q2")
        self.world.clock.advance(STUCK)
        self.assertEqual(self.flying(), ["Q1", "Q2"])
        self.end()
        self.end()

    def end_all(self) -> None:
        """All that is in flight, and all that follows, is delivered."""
        while self.agent.held:
            self.end()
            self.world.turn()

    def flying(self) -> list[str]:
        """Queue ids of what is in flight."""
        return [request.queue_id for request in self.agent.held.values()]

    def log(self, words: str) -> list[str]:
        """Lines with these words."""
        return self.world.log.having(words)


class DeliveryTests(DispatchCase):
    """A message is taken up, carried, recorded, and gone."""

    def test_delivered(self) -> None:
        """From arrival to removal."""
        self.world.dispatcher.start()
        self.accept("Q1")
        self.assertEqual(self.world.dispatcher.in_flight(), {"Q1"})
        self.assertEqual(self.world.dispatcher.active(), {"Q1"})
        request = self.end()
        self.assertEqual((request.sender, request.content), ("from@example.com", MemoryContent(b"hello\r\n")))
        self.assertEqual((request.arrived, request.activated, request.size), (START, START, 7))
        self.world.turn()
        self.assertEqual(self.world.spool.messages, {})
        self.assertEqual((self.world.dispatcher.active(), len(self.world.contents)), (set(), 0))
        self.assertEqual(self.world.dispatcher.counters().delivered, 1)
        self.assertEqual([line.split(":")[0] for line in self.world.log.lines], ["qmgr", "smtp", "qmgr"])
        self.assertEqual(self.world.log.lines[0], "qmgr: Q1: from=<from@example.com>, size=7, nrcpt=1 (queue active)")
        self.assertIn("status=sent (host said: so)", self.world.log.lines[1])
        self.assertEqual(self.world.log.lines[2], "qmgr: Q1: removed")

    def test_one_request(self) -> None:
        """Recipients of one message that share a hop are one request; others are others."""
        self.world.accept(message("Q1", "a@example.com", "b@example.com", "c@example.test"))
        self.assertEqual(
            [[each.address for each in request.recipients] for request in self.agent.carried],
            [["a@example.com", "b@example.com"], ["c@example.test"]],
        )
        self.assertEqual(len({request.ticket for request in self.agent.carried}), 2)
        self.end_all()
        self.assertEqual(self.world.spool.messages, {})

    def test_recipients_together(self) -> None:
        """Recipients that go one way go in one request, however little room there is: content is sent once."""
        addresses = [f"{number}@example.com" for number in range(7)]
        for number in range(30):
            self.world.accept(message(f"Q{number}", *addresses))
        self.world.dispatcher.start()
        self.end_all()
        self.assertEqual([len(request.recipients) for request in self.agent.carried], [7] * 30)

    def test_recipient_limit(self) -> None:
        """Not more recipients in a request than the limit."""
        self.world = self.make(evolve(RULES, recipient_limit=2))
        self.world.accept(message("Q1", *(f"{number}@example.com" for number in range(5))))
        self.end_all()
        self.assertEqual([len(request.recipients) for request in self.agent.carried], [2, 2, 1])

    def test_held(self) -> None:
        """What waits for the operator is not taken up."""
        self.accept("Q1", held=True)
        self.assertEqual((self.flying(), self.world.dispatcher.active()), ([], set()))

    def test_deferred(self) -> None:
        """Refused for now: recorded, gone from memory, and found when it is due again."""
        self.world.dispatcher.start()
        self.accept("Q1")
        self.end(Ending.REFUSED, "4.2.0")
        self.world.turn()
        self.assertEqual(self.world.dispatcher.active(), set())
        due, reason, attempts = self.world.spool.times[1]
        self.assertTrue(START + 270 <= due <= START + 330)
        self.assertEqual((reason, attempts), ("host said: so", 1))
        self.world.clock.pump([1.0] * 200)
        self.assertEqual(self.flying(), [])
        self.world.clock.pump([1.0] * 165)
        self.assertEqual(self.flying(), ["Q1"])
        self.assertEqual(self.agent.carried[-1].recipients[0].attempts, 1)

    def test_content_from_the_spool(self) -> None:
        """Content that is not in memory is what the spool has."""
        path = self.mktemp()
        self.world.accept(message("Q1"), FileContent(path, 7))
        self.assertEqual(self.agent.carried[0].content, FileContent(path, 7))

    def test_no_content(self) -> None:
        """A message without content stops no other one."""
        self.world.router.gate = gate = Deferred()
        self.accept("Q1", "Q2")
        self.world.contents.drop("Q1")
        del self.world.spool.messages["Q1"]
        gate.callback(None)
        self.assertEqual(self.flying(), ["Q2"])
        self.assertEqual(self.world.dispatcher.active(), {"Q2"})


class TransportTests(DispatchCase):
    """What needs no session is answered here."""

    def test_discard(self) -> None:
        """Delivered to nowhere."""
        self.accept("Q1", hop="discard:")
        self.world.turn()
        self.assertEqual((self.world.spool.messages, self.agent.carried), ({}, []))
        self.assertEqual(len(self.log("discard: Q1: to=<ann@example.com>, relay=none")), 1)
        self.assertEqual(len(self.log("status=sent (discarded)")), 1)

    def test_error(self) -> None:
        """With its status, and its text."""
        self.accept("Q1", hop="error:5.1.1 no such user here")
        self.assertEqual(len(self.log("dsn=5.1.1, status=bounced (no such user here)")), 1)
        self.accept("Q2", hop="error:4.3.5 not today")
        self.assertEqual(len(self.log("dsn=4.3.5, status=deferred (not today)")), 1)
        self.accept("Q3", hop="error:just no")
        self.assertEqual(len(self.log("dsn=5.0.0, status=bounced (just no)")), 1)

    def test_many(self) -> None:
        """More of them than there is room for are all answered."""
        self.world.dispatcher.start()
        self.world.accept(message("Q1", *(f"{number}@example.com" for number in range(45)), hop="discard:"))
        self.world.clock.pump([0.0] * 10)
        self.assertEqual(self.world.spool.messages, {})


class RoutingTests(DispatchCase):
    """A hop is routed when it is needed, once at a time."""

    def test_once(self) -> None:
        """What waits for the route waits together."""
        self.world.router.gate = gate = Deferred()
        self.accept("Q1", "Q2", "Q3")
        self.assertEqual((self.world.router.asked, self.flying()), (["example.com"], []))
        gate.callback(None)
        self.world.clock.advance(STUCK)
        self.assertEqual(self.flying(), ["Q1", "Q2", "Q3"])
        self.accept("Q4")
        self.assertEqual(self.world.router.asked, ["example.com"])

    def test_expired(self) -> None:
        """A route that is too old is asked for anew."""
        self.world.router._good_until = START + 60
        self.accept("Q1")
        self.world.clock.advance(60.0)
        self.accept("Q2")
        self.assertEqual(self.world.router.asked, ["example.com", "example.com"])

    def test_no_route(self) -> None:
        """Deferred or bounced, as the error says; no attempt is logged with a relay."""
        self.world.router.problems["example.com"] = RouteError("4.4.3", "name server timed out")
        self.accept("Q1")
        self.assertEqual(len(self.log("relay=none, delay=0, delays=0/0/0/0, dsn=4.4.3, status=deferred")), 1)
        self.world.router.problems["example.com"] = RouteError("5.4.4", "no such domain")
        self.accept("Q2")
        self.assertEqual(len(self.log("dsn=5.4.4, status=bounced (no such domain)")), 1)

    def test_no_route_for_many(self) -> None:
        """All mail to a domain that does not exist bounces, not only as much as there was room for."""
        self.world.dispatcher.start()
        self.world.router.problems["example.com"] = RouteError("5.4.4", "no such domain")
        self.world.router.gate = gate = Deferred()
        self.accept(*(f"Q{number}" for number in range(35)), sender="")
        self.world.router.gate = None
        gate.callback(None)
        self.world.clock.pump([0.0] * 20)
        self.assertEqual(self.world.spool.messages, {})

    def test_bad_nexthop(self) -> None:
        """A nexthop that is none bounces."""
        self.accept("Q1", hop="smtp:[no")
        self.assertEqual(len(self.log("dsn=5.1.2, status=bounced")), 1)

    def test_fault(self) -> None:
        """A fault of ours defers."""
        self.world.router.problems["example.com"] = RuntimeError("bug")  # type: ignore[assignment]  # a fault
        self.accept("Q1")
        self.assertEqual(len(self.log("dsn=4.3.0, status=deferred")), 1)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)


class TriedTests(DispatchCase):
    """What one host refuses softly goes to the next, at once."""

    def setUp(self) -> None:
        super().setUp()
        self.world.router.routes["example.com"] = (ONE, TWO)

    def test_elsewhere(self) -> None:
        """With the host in C{tried}, without an attempt counted; then it is deferred."""
        self.accept("Q1")
        self.end(Ending.REFUSED, "4.2.0")
        second = self.agent.carried[1]
        self.assertEqual((second.tried, second.fresh), (frozenset({ONE.endpoint}), False))
        self.assertEqual(self.log("status="), [])
        self.assertEqual(len(self.log("smtp: Q1: host said: so")), 1)
        self.end(Ending.REFUSED, "4.2.0", endpoint=TWO.endpoint)
        self.world.turn()
        self.assertEqual(len(self.log("status=deferred")), 1)
        self.assertEqual((len(self.agent.carried), self.world.spool.times[1][2]), (2, 1))

    def test_those_refused_only(self) -> None:
        """Only recipients that were refused go elsewhere."""
        self.world.accept(message("Q1", "a@example.com", "b@example.com"))
        lane = self.agent.first()
        request = self.agent.held[lane]
        report = report_of(request)
        refused = evolve(report.outcomes[1], ending=Ending.REFUSED, status="4.2.0")
        self.agent.end(lane, evolve(report, outcomes=(report.outcomes[0], refused)))
        self.assertEqual([each.address for each in self.agent.carried[1].recipients], ["b@example.com"])
        self.end()
        self.world.turn()
        self.assertEqual(self.world.spool.messages, {})
        self.assertEqual(self.world.in_memory, 0)

    def test_untouched(self) -> None:
        """What a reused session failed gets a new one at once, and no attempt is counted."""
        self.accept("Q1")
        self.end(Ending.UNTOUCHED, "4.4.2", uses=5, full=True)
        second = self.agent.carried[1]
        self.assertEqual((second.fresh, second.tried, second.recipients[0].attempts), (True, frozenset(), 0))
        self.assertEqual(self.log("status="), [])
        self.end()
        self.assertEqual(len(self.log("status=sent")), 1)

    def test_unreported(self) -> None:
        """What a lane did not report goes to another."""
        self.accept("Q1")
        lane = self.agent.first()
        del self.agent.held[lane]
        lane.over("internal error")
        self.assertEqual(self.flying(), ["Q1"])
        self.end_all()
        self.assertEqual(self.world.in_memory, 0)


class LanesTests(DispatchCase):
    """How many lanes a site has, and what each does next."""

    def test_window(self) -> None:
        """As many as the window at first; each success makes room for one more."""
        self.accept(*(f"Q{number}" for number in range(9)))
        self.assertEqual(len(self.agent.held), 5)

    def test_lane_limit(self) -> None:
        """Not more lanes than the limit in all."""
        self.world = self.make(evolve(RULES, lane_limit=3))
        for number in range(6):
            self.world.accept(message(f"Q{number}", f"a@{number}.example.com"))
        self.assertEqual(len(self.agent.held), 3)
        self.end_all()
        self.world.clock.pump([LINGER] * 3)
        self.end_all()
        self.assertEqual(len(self.agent.carried), 6)

    def test_fair_between_sites(self) -> None:
        """Where lanes are scarce a site with a long line does not keep the others waiting for ever."""
        self.world = self.make(evolve(RULES, lane_limit=2, active_limit=10000))
        self.world.dispatcher.start()
        for number in range(400):
            self.world.accept(message(f"A{number}", "a@a.example.com"))
        self.world.accept(message("B", "b@b.example.com"))
        self.world.accept(message("C", "c@c.example.com"))
        while "B" not in self.flying() and len(self.agent.carried) < 400:
            self.end()
            self.world.turn()
        before = len(self.agent.carried)
        self.assertLess(before, 150)
        while "C" not in [request.queue_id for request in self.agent.carried] and len(self.agent.carried) < 402:
            self.end()
            self.world.turn()
        self.assertLess(len(self.agent.carried), before + 150)
        self.end_all()
        self.world.clock.pump([LINGER] * 5)
        self.end_all()
        self.assertEqual(len(self.agent.carried), 402)


class ThrottleTests(DispatchCase):
    """A site that fails is left alone; one that asks to slow down gets less."""

    def window(self) -> int:
        """Of the site."""
        return self.world.dispatcher.sites["example.com"].window.size

    def test_dead(self) -> None:
        """After enough failures what waits is deferred without an attempt; nothing is tried until the pause is over."""
        self.world.dispatcher.start()
        self.accept(*(f"Q{number}" for number in range(12)))
        for _ in range(3):
            self.deny()
        self.assertEqual(len(self.log("delivery temporarily suspended: connect: refused")), 7)
        self.world.turn()
        self.accept("Q99")
        self.assertNotIn("Q99", self.flying())
        while self.agent.held:
            self.deny()
        self.world.clock.pump([10.0] * 29)
        self.assertEqual(self.flying(), [])

    def test_revived(self) -> None:
        """Then one probe goes first, and after its success all that is due."""
        self.world.dispatcher.start()
        self.accept(*(f"Q{number}" for number in range(5)))
        while self.agent.held:
            self.deny()
        self.world.turn()
        self.accept(*(f"R{number}" for number in range(5)))
        self.assertEqual(self.flying(), [])
        self.world.clock.pump([10.0] * 31)
        self.assertEqual(len(self.flying()), 1)
        for _ in range(20):
            if self.agent.held:
                self.end()
            self.world.clock.advance(10.0)
        self.end_all()
        self.world.turn()
        self.assertEqual(self.world.spool.messages, {})

    def test_refused_at_the_door(self) -> None:
        """One connection too many: the request waits for the others, without an attempt, and no other is opened."""
        self.accept(*(f"Q{number}" for number in range(10)))
        self.deny(Blame.THROTTLED)
        self.assertEqual((self.window(), self.log("status=")), (4, []))
        self.end_all()
        self.world.turn()
        self.assertEqual(self.world.spool.messages, {})
        self.assertEqual(len(self.log("status=sent")), 10)
        self.assertEqual(self.window(), 4)

    def test_nobody_is_let_in(self) -> None:
        """A site that turns every connection away is not asked for each of a thousand messages."""
        self.world.dispatcher.start()
        self.accept(*(f"Q{number}" for number in range(40)))
        tried = 0
        while self.agent.held and tried < 40:
            self.deny(Blame.THROTTLED)
            tried += 1
        self.assertLess(tried, 10)
        self.assertGreater(self.world.dispatcher.sites["example.com"].window.dead_until, START)


class MemoryTests(DispatchCase):
    """What is in memory is what can soon be used."""

    def test_mailing(self) -> None:
        """One mailing of 100,000 to one site: never more than what is in flight and max(10, 2 x window)."""
        many = 100_000
        self.world.dispatcher.start()
        self.accept("Q0")
        spool, stored = self.world.spool, 0

        async def due(hop: str, limit: int, until: float, skip: object) -> list[Message]:
            nonlocal stored
            spool.asked.append((hop, limit))
            found = []
            for _ in range(min(limit, many - stored)):
                stored += 1
                one = message(f"M{stored}")
                row = evolve(one.recipients[0], row=1000 + stored)
                found.append(evolve(one, recipients=(row,)))
            return found

        async def content(queue_id: str) -> MemoryContent:
            return MemoryContent(b"hello\r\n")

        async def record(done: object, new: object) -> object:
            return Committed(stored=(), removed=())

        spool.due = due  # type: ignore[method-assign]  # there is always more
        spool.content = content  # type: ignore[method-assign,assignment]  # all alike
        spool.record = record  # type: ignore[method-assign,assignment]  # nothing is kept
        self.world.dispatcher.hop("smtp:example.com").backlog = True
        self.accept("Q1")
        most = 0
        for _ in range(2000):
            self.end()
            self.world.turn()
            window = self.world.dispatcher.sites["example.com"].window.size
            beyond = self.world.in_memory - len(self.agent.held)
            self.assertLessEqual(beyond, max(10, 2 * window))
            most = max(most, len(self.agent.held))
        self.assertEqual(most, 20)
        self.assertGreater(len(self.agent.carried), 2000)

    def test_accepted_beyond(self) -> None:
        """What comes in faster than it leaves waits in the spool, and none is forgotten."""
        self.world.dispatcher.start()
        self.accept(*(f"Q{number}" for number in range(200)))
        self.assertLessEqual(self.world.in_memory, 5 + 10)
        self.end_all()
        self.world.clock.pump([0.1] * 5)
        self.end_all()
        self.assertEqual(self.world.spool.messages, {})
        self.assertEqual(set(Counter(each.queue_id for each in self.agent.carried).values()), {1})

    def test_active_limit(self) -> None:
        """Not more messages in all than the active limit; and none is forgotten."""
        self.world = self.make(evolve(RULES, active_limit=7))
        self.world.dispatcher.start()
        for number in range(50):
            self.world.accept(message(f"Q{number}", f"a@{number}.example.com"))
        self.assertEqual(len(self.world.dispatcher.active()), 7)
        for _ in range(200):
            if self.agent.held:
                self.end()
            self.world.clock.advance(0.0)
            self.assertLessEqual(len(self.world.dispatcher.active()), 8)
        self.assertEqual(self.world.spool.messages, {})

    def test_forgotten(self) -> None:
        """Hops and sites with nothing to do are forgotten."""
        self.world.dispatcher.start()
        self.accept("Q1")
        self.end_all()
        self.world.clock.pump([60.0] * 70)
        self.assertEqual((self.world.dispatcher._stock.hops(), self.world.dispatcher.sites), ([], {}))


class ProviderTests(DispatchCase):
    """A site with very many hops, as those of a large provider's customers, does not keep others out."""

    HOPS = 400

    def setUp(self) -> None:
        self.world = self.make(evolve(RULES, active_limit=100))
        for number in range(self.HOPS):
            host = f"{number}.example.net"
            self.world.router.sites[host] = "provider"
            given = message(f"P{number}", f"ann@{host}", f"bob@{host}")
            Deferred.fromCoroutine(self.world.spool.append(given, MemoryContent(b"hello\r\n")))

    def test_dead(self) -> None:
        """What waits for it while it is dead has no place in memory, and other mail goes at once."""
        self.world.dispatcher.start()
        while "provider" not in self.world.dispatcher.sites or not self.agent.held:
            self.world.turn()
        while self.agent.held:
            self.deny()
        for number in range(20):
            self.accept(f"Q{number}", hop="smtp:example.com")
            self.world.clock.pump([0.1] * 10)
            self.assertIn(f"Q{number}", self.flying())
            self.end()
        self.assertLess(len(self.world.dispatcher.active()), 100)

    def test_slow(self) -> None:
        """One that answers and takes its time holds no more than a crowd; all of it goes in the end, and is fed."""
        self.world = self.make(evolve(RULES, active_limit=2000, site=evolve(RULES.site, initial=1, limit=1)))
        for number in range(self.HOPS):
            host = f"{number}.example.net"
            self.world.router.sites[host] = "provider"
            for copy in range(3):
                given = message(f"P{number}x{copy}", f"ann@{host}")
                Deferred.fromCoroutine(self.world.spool.append(given, MemoryContent(b"hello\r\n")))
        self.world.dispatcher.start()
        self.world.clock.pump([0.0] * 10)
        # Of each hop one is looked at, to learn whose it is.
        self.assertLess(len(self.world.dispatcher.active()), self.HOPS + CROWD * LEAST_ROOM)
        self.accept("Q", hop="smtp:example.com")
        self.assertIn("Q", self.flying())
        self.end_all()
        self.world.clock.pump([1.0] * 100)
        self.end_all()
        self.assertEqual(self.world.spool.messages, {})


class BounceTests(DispatchCase):
    """Who sent what failed is told, once."""

    def test_bounce(self) -> None:
        """The notification is born in the commit of the outcome, and goes out itself."""
        self.accept("Q1", sender="me@example.test")
        self.end(Ending.REFUSED, "5.1.1")
        self.world.turn()
        self.assertEqual(len(self.world.spool.records), 1)
        self.assertEqual(list(self.world.spool.messages), ["B1"])
        self.assertEqual(self.flying(), ["B1"])
        request = self.agent.carried[-1]
        self.assertEqual((request.sender, request.recipients[0].address), ("", "me@example.test"))
        assert isinstance(request.content, MemoryContent)
        self.assertIn(b"hello\r\n", request.content.octets)
        self.assertEqual(len(self.log("Q1: sender non-delivery notification: B1")), 1)
        self.assertEqual(len(self.log("Q1: removed")), 1)

    def test_bounce_of_bounce(self) -> None:
        """A bounce that bounces is dropped, and the operator sees it."""
        self.accept("Q1", sender="me@example.test")
        self.end(Ending.REFUSED, "5.1.1")
        self.world.turn()
        self.end(Ending.REFUSED, "5.1.1")
        self.world.turn()
        self.assertEqual(self.world.spool.messages, {})
        self.assertEqual(len(self.log("B1: to=<me@example.test>")), 1)
        self.assertEqual(len(self.log("status=bounced")), 2)
        self.assertEqual(len(self.log("non-delivery notification")), 1)


class TroubleTests(DispatchCase):
    """While outcomes cannot be recorded nothing begins."""

    def test_trouble(self) -> None:
        """No lane begins a transaction; when recording works again all goes on."""
        self.world.dispatcher.start()
        self.accept(*(f"Q{number}" for number in range(7)))
        self.world.spool.broken = "disk full"
        self.end()
        self.world.turn()
        self.assertEqual(self.world.dispatcher.trouble(), "disk full")
        before = len(self.agent.carried)
        while self.agent.held:
            self.end()
        self.assertEqual(len(self.agent.carried), before)
        self.world.spool.broken = None
        self.world.clock.advance(1.0)
        self.assertIsNone(self.world.dispatcher.trouble())
        self.end_all()
        self.world.turn()
        self.assertEqual(self.world.spool.messages, {})
        self.assertEqual(set(Counter(each.queue_id for each in self.agent.carried).values()), {1})

    def test_hanging_record(self) -> None:
        """While a record hangs nothing more is given out than what lanes have; when it is over they go on."""
        self.world.dispatcher.start()
        self.accept(*(f"Q{number}" for number in range(30)))
        self.world.spool.gate = gate = Deferred()
        self.end()
        self.world.turn()
        self.world.turn(LATE)
        carried = len(self.agent.carried)
        while self.agent.held:
            self.end()
        self.assertEqual(len(self.agent.carried), carried)
        self.assertTrue(self.world.dispatcher.held_up)
        self.world.spool.gate = None
        gate.callback(None)
        self.world.turn()
        self.assertGreater(len(self.agent.carried), carried)
        self.end_all()
        self.assertEqual(self.world.spool.messages, {})

    def test_trouble_while_content_is_fetched(self) -> None:
        """A request that was being prepared when recording failed is not given out."""
        self.world.dispatcher.start()
        self.accept("Q1")
        fetched: Deferred[None] = Deferred()
        content = self.world.spool.content

        async def slow(queue_id: str) -> Content:
            await fetched
            return await content(queue_id)

        self.world.spool.content = slow  # type: ignore[method-assign]  # it takes its time
        self.world.accept(message("Q2"), FileContent(self.mktemp(), 7))
        self.world.spool.broken = "disk full"
        self.end()
        self.world.turn()
        fetched.callback(None)
        self.assertNotIn("Q2", self.flying())
        self.world.spool.broken = None
        self.world.turn(1.0)
        self.world.turn()
        self.end_all()
        self.assertEqual(self.world.spool.messages, {})

    def test_due_in_trouble(self) -> None:
        """What should have been tried again while nothing could be recorded is found afterwards."""
        self.world.dispatcher.start()
        self.accept("Q1")
        self.world.spool.broken = "disk full"
        self.end(Ending.REFUSED, "4.2.0")
        self.world.clock.pump([10.0] * 60)
        self.world.spool.broken = None
        self.world.clock.pump([1.0] * 40)
        self.assertEqual(self.flying(), ["Q1"])


class DrainTests(DispatchCase):
    """Before the end nothing new begins, what is under way ends, all is recorded."""

    def test_drain(self) -> None:
        """It waits for what is in flight; what waits stays in the spool; no timer is left."""
        self.world.dispatcher.start()
        self.accept(*(f"Q{number}" for number in range(9)))
        drained = Deferred.fromCoroutine(self.world.dispatcher.drain())
        self.assertTrue(self.world.dispatcher.draining)
        while self.agent.held:
            self.assertNoResult(drained)
            self.end()
        self.assertEqual(len(self.agent.carried), 5)
        self.assertNoResult(drained)
        self.world.turn()
        self.successResultOf(drained)
        self.assertEqual(sorted(self.world.spool.messages), ["Q5", "Q6", "Q7", "Q8"])
        self.assertEqual(self.world.clock.getDelayedCalls(), [])

    def test_lingering(self) -> None:
        """Lanes that wait for work are over at once."""
        self.two_lanes()
        self.world.turn()
        drained = Deferred.fromCoroutine(self.world.dispatcher.drain())
        self.successResultOf(drained)
        self.assertEqual([turn.then for turn in self.agent.over], [Then.QUIT, Then.QUIT])

    def test_bounces(self) -> None:
        """Notifications that are being made are waited for."""
        gate: Deferred[MemoryContent] = Deferred()

        async def slow(queue_id: str) -> MemoryContent:
            return await gate

        self.accept("Q1")
        self.world.contents.drop("Q1")
        self.world.spool.content = slow  # type: ignore[method-assign,assignment]  # it takes its time
        self.end(Ending.REFUSED, "5.1.1")
        drained = Deferred.fromCoroutine(self.world.dispatcher.drain())
        self.world.turn()
        self.assertNoResult(drained)
        gate.callback(MemoryContent(b""))
        self.world.turn()
        self.successResultOf(drained)
        self.assertEqual(list(self.world.spool.messages), ["B1"])

    def test_nothing_to_do(self) -> None:
        """Then it is over at once."""
        self.successResultOf(Deferred.fromCoroutine(self.world.dispatcher.drain()))


class ChangedTests(DispatchCase):
    """The operator changes the queue."""

    def delete(self, *names: str) -> None:
        """They are gone."""
        for name in names:
            del self.world.spool.messages[name]
        self.world.dispatcher.deleted(names)

    def test_deleted(self) -> None:
        """What waits in memory and is gone from the queue is never given out."""
        self.world.dispatcher.start()
        self.accept(*(f"Q{number}" for number in range(8)))
        self.delete("Q6", "Q7")
        self.assertNotIn("Q6", self.world.dispatcher.active())
        self.end_all()
        self.world.turn()
        self.assertEqual([each.queue_id for each in self.agent.carried], [f"Q{number}" for number in range(6)])
        self.assertEqual((self.world.in_memory, self.world.spool.messages), (0, {}))

    def test_deleted_unrouted(self) -> None:
        """Nor what waits for its route."""
        self.world.router.gate = gate = Deferred()
        self.accept("Q1", "Q2")
        self.delete("Q1")
        gate.callback(None)
        self.assertEqual([each.queue_id for each in self.agent.carried], ["Q2"])
        self.assertEqual(self.world.dispatcher.active(), {"Q2"})

    def test_flushed(self) -> None:
        """What was made due is found at once, also where the site was dead."""
        self.world.dispatcher.start()
        self.accept("Q1", "Q2", "Q3")
        while self.agent.held:
            self.deny()
        self.world.turn()
        for row in (1, 2, 3):
            self.world.spool.times[row] = (0.0, "", 1)
        self.world.dispatcher.flushed()
        self.assertEqual(len(self.agent.held), 1)
