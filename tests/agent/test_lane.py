"""
Tests of L{smtpreuse.agent.lane}.
"""

from __future__ import annotations

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from smtpreuse.agent.connect import OpenFailed, OpeningRules
from smtpreuse.agent.lane import Agent
from smtpreuse.agent.reuse import SearchRules
from smtpreuse.agent.rules import AgentRules
from smtpreuse.agent.session import OpenSession
from smtpreuse.interfaces import IDeliveryAgent, ILane
from smtpreuse.model.capabilities import Capabilities
from smtpreuse.model.delivery import Blame, DeliveryRequest, Ending, Then, Turn
from smtpreuse.model.message import Body
from smtpreuse.model.reuse import Plaintext
from tests.agent.world import PROFILE, TLS, limits, open_session, request
from tests.fakes import FakeCache, FakeEnd, FakeLane, FakeLog, candidate


class FakeFinder:
    """Gives the sessions, or raises the errors, that the test has put in; waits where there is a gate."""

    def __init__(self) -> None:
        self.results: list[OpenSession | Exception] = []
        self.asked: list[DeliveryRequest] = []
        self.gate: Deferred[None] | None = None
        self.rules: tuple[OpeningRules, SearchRules] | None = None

    def adopt(self, opening: OpeningRules, search: SearchRules) -> None:
        self.rules = opening, search

    async def find(self, lane: ILane, request: DeliveryRequest) -> OpenSession:
        self.asked.append(request)
        if self.gate is not None:
            await self.gate
        result = self.results.pop(0)
        if isinstance(result, Exception):
            raise result
        return result


class AgentCase(SynchronousTestCase):
    """An agent that works a lane of the test's."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000.0)
        self.cache = FakeCache()
        self.finder = FakeFinder()
        self.log = FakeLog()

    def agent(self, *, tls_loglevel: int = 1, most_reuses: int = 0) -> Agent:
        """One with these settings."""
        return Agent(
            self.finder, self.cache, self.log, self.clock,  # type: ignore[arg-type]  # a fake
            tls_loglevel=tls_loglevel, most_reuses=most_reuses,
        )  # fmt: skip

    def session(self, **values: object) -> FakeEnd:
        """The next one that the finder gives."""
        end = FakeEnd()
        uses = values.pop("uses", 0)
        assert isinstance(uses, int)
        self.finder.results.append(open_session(end, self.clock, uses=uses, **values))
        return end

    def deliver(self, end: FakeEnd) -> None:
        """The server takes a message."""
        self.assertIn(b"MAIL FROM:", end.taken())
        end.say("250 ok", "250 ok", "354 go on")
        end.taken()
        end.say("250 2.0.0 done")


class AbortTests(AgentCase):
    """When its time is up, what is under way ends as it stands."""

    def test_under_way(self) -> None:
        """A transaction ends as one of a lost connection; its lane goes on to ask, and is told by its queue to end."""
        end = self.session()
        lane = FakeLane(Turn(requests=(request(),)), Turn(then=Then.QUIT))
        agent = self.agent()
        agent.work(lane)
        end.say("250 ok", "250 ok", "354 go on")
        agent.abort()
        (report,) = lane.reports
        (outcome,) = report.outcomes
        self.assertEqual(outcome.ending, Ending.UNKNOWN)
        self.assertIn("ended with this service while", outcome.text)
        self.assertEqual(list(agent.at_work()), [])

    def test_no_session(self) -> None:
        """A lane that seeks one is left to go on with it."""
        self.finder.gate = Deferred()
        lane = FakeLane(Turn(requests=(request(),)))
        agent = self.agent()
        agent.work(lane)
        agent.abort()
        self.assertEqual((lane.reports, len(list(agent.at_work()))), ([], 1))


class LaneTests(AgentCase):
    """A lane carries one request after the other over one session, and leaves nothing unreported."""

    def test_interface(self) -> None:
        """The agent is what the queue asks for."""
        verifyObject(IDeliveryAgent, self.agent())

    def test_nothing(self) -> None:
        """Nothing due: over at once."""
        lane = FakeLane()
        self.agent().work(lane)
        self.assertEqual((lane.ended, lane.shown, lane.reports), (["nothing is due"], [None], []))

    def test_one_session(self) -> None:
        """All requests over one session; the lane shows it when it asks."""
        end = self.session()
        lane = FakeLane(request(ticket=1), request(ticket=2), request(ticket=3))
        self.agent().work(lane)
        for _ in range(3):
            self.deliver(end)
        self.assertEqual([(each.ticket, each.uses, each.full) for each in lane.reports], [
            (1, 1, False), (2, 2, False), (3, 3, False),
        ])  # fmt: skip
        self.assertEqual(len(self.finder.asked), 1)
        self.assertEqual([each.facts.uses if each is not None else None for each in lane.shown], [None, 1, 2, 3])
        self.assertEqual(end.taken(), b"QUIT\r\n")
        self.assertEqual(lane.ended, ["nothing is due"])

    def test_dotted(self) -> None:
        """Before a whole message has left, its lane is told."""
        end = self.session()
        lane = FakeLane(request(ticket=5))
        self.agent().work(lane)
        end.say("250 ok", "250 ok")
        self.assertEqual(lane.sent, [])
        end.say("354 go on")
        self.assertEqual(lane.sent, [5])

    def test_report(self) -> None:
        """The report says where, when and how."""
        self.finder.gate = Deferred()
        end = self.session()
        lane = FakeLane(request(ticket=7))
        self.agent().work(lane)
        self.clock.advance(2.0)
        self.finder.gate.callback(None)
        self.clock.advance(3.0)
        self.deliver(end)
        (report,) = lane.reports
        self.assertEqual((report.started, report.ready, report.finished), (1000.0, 1002.0, 1005.0))
        self.assertEqual((report.relay, report.endpoint), ("mx.example.com[192.0.2.1]:25", candidate().endpoint))
        self.assertEqual((report.blame, report.exhausted), (Blame.NOBODY, False))

    def test_save(self) -> None:
        """A session that is to rest goes to the cache under the destination of its last request, as it is now."""
        end = self.session()
        lane = FakeLane(request(), request(ticket=2), then=Then.SAVE)
        self.agent().work(lane)
        self.deliver(end)
        self.deliver(end)
        ((destination, (key, facts, saved)),) = self.cache.saved
        self.assertEqual((destination, key, facts.uses), ("example.com", PROFILE.key(candidate()), 2))
        self.assertIs(saved, end)
        self.assertEqual((end.taken(), end.closed, end.aborted), (b"", False, False))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_quit(self) -> None:
        """One that is not needed is told QUIT, and nobody waits for the answer."""
        end = self.session()
        lane = FakeLane(request())
        self.agent().work(lane)
        self.deliver(end)
        self.assertEqual((lane.ended, end.taken()), (["nothing is due"], b"QUIT\r\n"))
        end.say("221 bye")
        self.assertTrue(end.closed)
        self.assertEqual(self.cache.saved, [])

    def test_other_session(self) -> None:
        """Work for another session: this one rests, the next one is sought."""
        one, two = self.session(), self.session()
        lane = FakeLane(request(), Turn(then=Then.SAVE, more=True), request(ticket=2))
        self.agent().work(lane)
        self.deliver(one)
        self.assertEqual(len(self.cache.saved), 1)
        self.assertEqual(lane.ended, [])
        self.deliver(two)
        self.assertEqual([each is None for each in lane.shown], [True, False, True, False])
        self.assertEqual([each.uses for each in lane.reports], [1, 1])

    def test_unclean_save(self) -> None:
        """A transaction that may be open is ended before the session rests."""
        end = self.session()
        lane = FakeLane(request(), then=Then.SAVE)
        self.agent().work(lane)
        end.say("250 ok", "550 5.1.1 no", "503 no")
        self.assertTrue(end.taken().endswith(b"RSET\r\n"))
        self.assertEqual(self.cache.saved, [])
        end.say("250 flushed")
        self.assertEqual(len(self.cache.saved), 1)

    def test_unclean_not_saved(self) -> None:
        """A session that does not answer RSET well ends."""
        for reply in ("503 5.5.1 what", "421 bye", None):
            self.setUp()
            end = self.session()
            lane = FakeLane(request(), then=Then.SAVE)
            self.agent().work(lane)
            end.say("250 ok", "550 5.1.1 no", "503 no")
            if reply is None:
                self.clock.advance(20.0)
            else:
                end.say(reply)
            self.assertEqual((self.cache.saved, lane.ended), ([], ["nothing is due"]))

    def test_lost_while_lingering(self) -> None:
        """The server ends the session while the lane waits for work: the next request gets another."""
        one, two = self.session(), self.session()
        lane = FakeLane(request(), None, request(ticket=2))
        self.agent().work(lane)
        self.deliver(one)
        one.say("421 4.4.2 idle")
        self.assertTrue(one.aborted)
        lane.go()
        self.deliver(two)
        self.assertEqual([(each.ticket, each.uses) for each in lane.reports], [(1, 1), (2, 1)])
        self.assertEqual({each.outcomes[0].ending for each in lane.reports}, {Ending.DELIVERED})

    def test_lost_while_lingering_not_saved(self) -> None:
        """The same, and there is no work: nothing is saved, nothing is said."""
        end = self.session()
        lane = FakeLane(request(), None, then=Then.SAVE)
        self.agent().work(lane)
        self.deliver(end)
        end.hang_up()
        lane.go()
        self.assertEqual((self.cache.saved, end.taken(), lane.ended), ([], b"", ["nothing is due"]))

    def test_spoilt(self) -> None:
        """A session that is not good for more gets QUIT, and the lane asks without one."""
        one, two = self.session(), self.session()
        lane = FakeLane(request(), request(ticket=2))
        self.agent().work(lane)
        one.say("250 ok", "250 ok", "354 go on")
        one.taken()
        one.say("554 5.7.1 spam")
        self.assertEqual(one.taken(), b"QUIT\r\n")
        self.assertEqual(lane.shown, [None, None])
        self.deliver(two)

    def test_single(self) -> None:
        """A plaintext fallback serves its one request."""
        end = self.session(plaintext=Plaintext.FAILED)
        lane = FakeLane(request(), then=Then.SAVE)
        self.agent().work(lane)
        self.deliver(end)
        self.assertEqual((end.taken(), self.cache.saved), (b"QUIT\r\n", []))

    def test_most_reuses(self) -> None:
        """A limit of N reuses gives N + 1 transactions."""
        one, two = self.session(), self.session()
        lane = FakeLane(*(request(ticket=ticket) for ticket in (1, 2, 3, 4)))
        self.agent(most_reuses=2).work(lane)
        for _ in range(3):
            self.deliver(one)
        self.assertEqual(one.taken(), b"QUIT\r\n")
        self.deliver(two)
        self.assertEqual([each.uses for each in lane.reports], [1, 2, 3, 1])

    def test_held(self) -> None:
        """No transaction may begin when the session is there: the request goes back, the session rests."""
        end = self.session()
        lane = FakeLane(request(), then=Then.SAVE)
        self.finder.gate = Deferred()
        self.agent().work(lane)
        lane.held = True
        self.finder.gate.callback(None)
        (report,) = lane.reports
        self.assertEqual((report.outcomes[0].ending, report.uses, report.blame), (Ending.UNTOUCHED, 0, Blame.NOBODY))
        self.assertEqual((end.taken(), len(self.cache.saved), lane.ended), (b"", 1, ["nothing is due"]))

    def test_full(self) -> None:
        """The server has enough of this session: said in the report, with untouched recipients."""
        end = self.session(uses=20)
        lane = FakeLane(request())
        self.agent().work(lane)
        end.hang_up()
        (report,) = lane.reports
        self.assertEqual((report.outcomes[0].ending, report.uses, report.full), (Ending.UNTOUCHED, 21, True))
        self.assertIs(report.blame, Blame.NOBODY)


class EightBitTests(AgentCase):
    """8-bit content goes as it is to a server that does not offer to take it; the operator is told once per session."""

    def test_noted_once(self) -> None:
        """Not for each message."""
        end = self.session(capabilities=Capabilities(esmtp=True, pipelining=True))
        lane = FakeLane(*(request(body=Body.EIGHT_BIT, ticket=ticket) for ticket in (1, 2)))
        self.agent().work(lane)
        self.deliver(end)
        self.deliver(end)
        self.assertEqual(len(self.log.having("does not offer 8BITMIME: 8-bit content goes as it is")), 1)

    def test_offered(self) -> None:
        """Nothing to note where it is offered, or where the content is 7-bit."""
        for capabilities, body in (
            (Capabilities(esmtp=True, pipelining=True, eight_bit=True), Body.EIGHT_BIT),
            (Capabilities(esmtp=True, pipelining=True), Body.SEVEN_BIT),
        ):
            end = self.session(capabilities=capabilities)
            self.agent().work(FakeLane(request(body=body)))
            self.deliver(end)
        self.assertEqual(self.log.having("8BITMIME"), [])


class FaultTests(AgentCase):
    """Whatever goes wrong, each request has its report and each lane its end."""

    def test_no_session(self) -> None:
        """No session to be had: that reason for each recipient, and the lane goes on."""
        self.finder.results.append(OpenFailed("4.4.1", "connect to x: refused"))
        end = self.session()
        lane = FakeLane(request("ann", "bob"), request(ticket=2))
        self.agent().work(lane)
        (report,) = lane.reports
        self.assertEqual([(each.ending, each.status, each.text) for each in report.outcomes], [
            (Ending.REFUSED, "4.4.1", "connect to x: refused"),
        ] * 2)  # fmt: skip
        self.assertEqual((report.relay, report.endpoint, report.uses), ("none", None, 0))
        self.assertEqual((report.blame, report.exhausted), (Blame.SITE, True))
        self.deliver(end)
        self.assertEqual(len(lane.reports), 2)

    def test_fault_in_search(self) -> None:
        """A fault of ours while a session is sought: deferred, logged, nobody blamed."""
        self.finder.results.append(RuntimeError("bug"))
        lane = FakeLane(request())
        self.agent().work(lane)
        (report,) = lane.reports
        self.assertEqual((report.outcomes[0].status, report.blame, report.exhausted), ("4.3.0", Blame.OURSELVES, True))
        self.assertEqual(lane.ended, ["nothing is due"])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_fault_in_transaction(self) -> None:
        """A fault of ours in a transaction: deferred, and its session carries nothing more."""
        one, two = self.session(), self.session()
        bad = evolve(request(), sender="two words@example.com\r\n")
        lane = FakeLane(bad, request(ticket=2))
        self.agent().work(lane)
        (report,) = lane.reports
        self.assertEqual((report.outcomes[0].status, report.blame), ("4.3.0", Blame.OURSELVES))
        self.assertIn(b"QUIT", one.taken())
        self.assertEqual(len(self.flushLoggedErrors()), 1)
        self.deliver(two)

    def test_fault_of_the_cache(self) -> None:
        """The cache fails to save: the session ends, and so does the lane."""
        self.cache.broken = True
        end = self.session()
        lane = FakeLane(request(), then=Then.SAVE)
        agent = self.agent()
        agent.work(lane)
        self.deliver(end)
        self.assertEqual((lane.ended, end.aborted), (["internal error"], True))
        self.assertEqual(list(agent.at_work()), [])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_fault_of_the_queue(self) -> None:
        """The queue fails to answer: the lane ends."""
        lane = FakeLane()
        lane.broken = True
        agent = self.agent()
        agent.work(lane)
        self.assertEqual((lane.ended, list(agent.at_work())), (["internal error"], []))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)


class AtWorkTests(AgentCase):
    """The operator sees what each lane does."""

    def test_at_work(self) -> None:
        """Seeking since when, then the session, then nothing."""
        self.finder.gate = Deferred()
        end = self.session()
        lane = FakeLane(None, request())
        agent = self.agent()
        agent.work(lane)
        self.assertEqual(list(agent.at_work()), [(lane, None, None)])
        lane.go()
        self.assertEqual(list(agent.at_work()), [(lane, 1000.0, None)])
        self.finder.gate.callback(None)
        ((_, since, session),) = agent.at_work()
        assert session is not None
        self.assertEqual((since, session.session.end), (None, end))
        self.deliver(end)
        self.assertEqual(list(agent.at_work()), [])


class TLSLogTests(AgentCase):
    """The TLS properties of every transaction are in the operator's log."""

    def lines(self) -> list[str]:
        """About TLS."""
        return self.log.having("TLS connection")

    def test_established_then_reused(self) -> None:
        """Once established, then reused at each further transaction."""
        end = self.session(tls=TLS)
        lane = FakeLane(*(request(ticket=ticket) for ticket in (1, 2, 3)))
        self.agent().work(lane)
        for _ in range(3):
            self.deliver(end)
        rest = "to mx.example.com[192.0.2.1]:25: TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 bits)"
        self.assertEqual(self.lines(), [
            f"smtp: Untrusted TLS connection established {rest}",
            f"smtp: Untrusted TLS connection reused {rest}",
            f"smtp: Untrusted TLS connection reused {rest}",
        ])  # fmt: skip

    def test_from_the_cache(self) -> None:
        """A session that comes from the cache is reused from its first transaction here."""
        end = self.session(tls=TLS, uses=5)
        lane = FakeLane(request(), request(ticket=2))
        self.agent().work(lane)
        self.deliver(end)
        self.deliver(end)
        self.assertEqual(len(self.lines()), 2)
        self.assertEqual(len(self.log.having("connection reused")), 2)

    def test_off(self) -> None:
        """Level 0 keeps them out."""
        end = self.session(tls=TLS)
        self.agent(tls_loglevel=0).work(FakeLane(request()))
        self.deliver(end)
        self.assertEqual(self.log.lines, [])

    def test_plaintext(self) -> None:
        """No line without TLS."""
        end = self.session()
        self.agent().work(FakeLane(request()))
        self.deliver(end)
        self.assertEqual(self.log.lines, [])


class AdoptTests(AgentCase):
    """Other rules hold from the next transaction on."""

    def rules(self, **values: int) -> AgentRules:
        """With these limits; sessions are opened as ever."""
        opening = OpeningRules(
            profile=PROFILE, limits=limits(), connect_timeout=30.0, starttls_timeout=25.0, lifetime=300.0,
            skip_5xx_greeting=True, discard=frozenset(),
        )  # fmt: skip
        rules = AgentRules(
            opening=opening, search=SearchRules(profile=PROFILE, limits=limits(), fallback_age=300.0), host_pause=60.0,
            tls_loglevel=1, most_reuses=0, line_length_limit=0,
        )  # fmt: skip
        return evolve(rules, **values)

    def test_handed_on(self) -> None:
        """How sessions are found and opened goes to whoever does it."""
        agent, rules = self.agent(), self.rules()
        agent.adopt(rules)
        self.assertEqual(self.finder.rules, (rules.opening, rules.search))

    def test_under_way(self) -> None:
        """What is under way ends; what follows it goes by the new rules: no line about TLS, lines of so many octets."""
        end = self.session(tls=TLS)
        lane = FakeLane(request(), request(ticket=2))
        agent = self.agent()
        agent.work(lane)
        agent.adopt(self.rules(tls_loglevel=0, line_length_limit=10))
        self.assertIn(b"MAIL FROM:", end.taken())
        end.say("250 ok", "250 ok", "354 go on")
        self.assertIn(b"Subject: hello\r\n", end.taken())
        end.say("250 2.0.0 done")
        self.assertIn(b"MAIL FROM:", end.taken())
        end.say("250 ok", "250 ok", "354 go on")
        self.assertIn(b"Subject: h\r\n ello\r\n", end.taken())
        end.say("250 2.0.0 done")
        self.assertEqual(len(self.log.having("TLS connection")), 1)

    def test_most_reuses(self) -> None:
        """A session that has had its transactions by the new rules gets no further one."""
        end = self.session()
        lane = FakeLane(request(), request(ticket=2), request(ticket=3))
        agent = self.agent()
        agent.work(lane)
        self.deliver(end)
        agent.adopt(self.rules(most_reuses=1))
        other = self.session()
        self.deliver(end)
        self.assertEqual(end.taken(), b"QUIT\r\n")
        self.deliver(other)
