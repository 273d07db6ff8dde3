"""
Tests of L{smtpreuse.agent.transaction} and L{smtpreuse.agent.lane}: two transactions that share a flight.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred

from smtpreuse.agent.outcomes import Result
from smtpreuse.agent.transaction import Transaction
from smtpreuse.errors import SmtpreuseError
from smtpreuse.model.capabilities import Capabilities
from smtpreuse.model.content import FileContent
from smtpreuse.model.delivery import Blame, DeliveryRequest, Ending, Then
from tests.agent.test_lane import AgentCase
from tests.agent.transaction_case import DELIVERED, REFUSED, UNKNOWN, UNTOUCHED, TransactionCase
from tests.agent.world import open_session, request, started
from tests.fakes import FakeEnd, FakeLane

CONTENT = b"Subject: hello\r\n\r\nhello\r\n.\r\n"
SECOND = b"MAIL FROM:<from@example.com> SIZE=25\r\nRCPT TO:<bob@example.com>\r\nDATA\r\n"


class FlightTests(TransactionCase):
    """The next envelope goes with the content, and is answered behind it."""

    def setUp(self) -> None:
        super().setUp()
        self.open = open_session(self.end, self.clock)
        self.first = Transaction(self.open, request())
        self.second = Transaction(self.open, request("bob", ticket=2))
        self.gate: Deferred[None] | None = None
        self.running = started(self.first.run(self.following))

    async def following(self) -> Transaction:
        """The second."""
        if self.gate is not None:
            await self.gate
        return self.second

    def to_content(self) -> None:
        """The first one's content is on the wire, and the second one's envelope."""
        self.end.taken()
        self.end.say("250 ok", "250 ok", "354 go on")
        self.assertEqual(self.end.taken(), CONTENT + SECOND)

    def result(self, running: Deferred[Result], ending: Ending, *, derailed: bool = False) -> Result:
        """It is over, like this."""
        result = self.successResultOf(running)
        self.assertEqual([each.ending for each in result.outcomes], [ending])
        self.assertIs(result.derailed, derailed)
        return result

    def test_both(self) -> None:
        """Each has its own replies, in order; the session is good for more."""
        self.to_content()
        self.assertIs(self.first.follower, self.second)
        self.end.say("250 2.0.0 first", "250 ok", "250 ok", "354 go on")
        self.assertEqual(self.result(self.running, DELIVERED).outcomes[0].text, "250 2.0.0 first")
        running = started(self.second.run())
        self.assertEqual(self.end.taken(), CONTENT)
        self.end.say("250 2.0.0 second")
        self.assertEqual(self.result(running, DELIVERED).outcomes[0].text, "250 2.0.0 second")
        self.assertEqual((self.first.use, self.second.use, self.open.uses), (1, 2, 2))
        self.assertEqual((self.open.usable, self.open.unclean), (True, False))

    def test_no_follower(self) -> None:
        """Nothing due: the content goes alone."""

        async def nothing() -> None:
            return None

        self.open = open_session(end := FakeEnd(), self.clock)
        running = started(Transaction(self.open, request()).run(nothing))
        end.say("250 ok", "250 ok", "354 go on")
        self.assertTrue(end.taken().endswith(b"DATA\r\n" + CONTENT))
        end.say("250 done")
        self.result(running, DELIVERED)

    def test_behind_a_file(self) -> None:
        """Content that streams: the envelope goes with its last piece."""
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(b"x\r\n" * 50000)
        self.open = open_session(end := FakeEnd(), self.clock)
        self.second = Transaction(self.open, request("bob", ticket=2))
        running = started(Transaction(self.open, request(content=FileContent(path, 150000))).run(self.following))
        end.taken()
        end.say("250 ok", "250 ok", "354 go on")
        self.assertEqual(end.taken(), b"x\r\n" * 50000 + b".\r\n" + SECOND)
        end.say("250 done")
        self.result(running, DELIVERED)

    def test_behind_a_lone_dot(self) -> None:
        """Nobody was accepted and 354 all the same: the next one follows the lone dot."""
        self.end.taken()
        self.end.say("250 ok", "550 5.1.1 no", "354 go on")
        self.assertEqual(self.end.taken(), b".\r\n" + SECOND)
        self.end.say("554 5.5.1 no valid recipients", "250 ok", "250 ok", "354 go on")
        self.result(self.running, REFUSED)
        running = started(self.second.run())
        self.end.say("250 done")
        self.result(running, DELIVERED)

    def test_rset_only_once(self) -> None:
        """Where RSET went before the first, none goes before the second."""
        self.open = open_session(end := FakeEnd(), self.clock, uses=1)
        self.open.unclean = True
        running = started(Transaction(self.open, request()).run(self.following))
        self.second = Transaction(self.open, request("bob", ticket=2))
        self.assertTrue(end.taken().startswith(b"RSET\r\nMAIL"))
        end.say("250 flushed", "250 ok", "250 ok", "354 go on")
        self.assertEqual(end.taken(), CONTENT + SECOND)
        end.say("250 done", "250 ok", "250 ok", "354 go on")
        self.result(running, DELIVERED)

    def test_refused(self) -> None:
        """The second is refused in its own right; that is its outcome."""
        self.to_content()
        self.end.say("250 done", "250 ok", "550 5.1.1 no bob", "503 no recipients")
        self.result(self.running, DELIVERED)
        result = self.result(started(self.second.run()), REFUSED)
        self.assertEqual(result.outcomes[0].status, "5.1.1")
        self.assertTrue(self.open.unclean)

    def test_closed_behind_the_first_reply(self) -> None:
        """The server takes no second: untouched, and the session derailed."""
        self.to_content()
        self.end.say("250 done")
        self.end.hang_up()
        self.result(self.running, DELIVERED)
        result = self.result(started(self.second.run()), UNTOUCHED, derailed=True)
        self.assertEqual((result.full, result.blame), (True, Blame.NOBODY))

    def test_full(self) -> None:
        """A server that says so and closes: what it said counts, though it is gone."""
        self.to_content()
        self.end.say("250 done", "452 4.3.1 Maximum message count per session reached")
        self.end.hang_up()
        self.result(self.running, DELIVERED)
        result = self.result(started(self.second.run()), UNTOUCHED, derailed=True)
        self.assertTrue(result.full)
        self.assertIn("Maximum message count", result.outcomes[0].text)

    def test_lost_before_the_first_reply(self) -> None:
        """The first is unknown, the second untouched."""
        self.to_content()
        self.end.hang_up()
        self.result(self.running, UNKNOWN, derailed=True)
        self.assertTrue(self.open.spoilt)
        result = self.second.untouched()
        self.assertEqual([each.ending for each in result.outcomes], [UNTOUCHED])
        self.assertEqual((result.blame, result.derailed), (Blame.NOBODY, False))
        self.assertIn("the message before it failed: lost connection with", result.outcomes[0].text)

    def test_first_refused(self) -> None:
        """Refused content spoils the session, and is nothing that others must do without flights for."""
        self.to_content()
        self.end.say("554 5.7.1 spam", "503 5.5.1 what", "503 5.5.1 what", "503 5.5.1 what")
        self.result(self.running, REFUSED)
        self.assertTrue(self.open.spoilt)

    def test_reply_too_many(self) -> None:
        """What was decided stands; a reply that cannot be the second one's ends the session."""
        self.to_content()
        self.end.say("250 done", "250 done again", "250 ok", "250 ok", "354 go on")
        self.result(self.running, DELIVERED, derailed=True)
        self.assertTrue(self.open.spoilt)

    def test_stalled(self) -> None:
        """The first one's reply has its own limit, with another behind it."""
        self.to_content()
        self.clock.advance(37.9)
        self.assertNoResult(self.running)
        self.clock.advance(0.2)
        self.result(self.running, UNKNOWN, derailed=True)

    def test_envelope_thrown_away(self) -> None:
        """A server that says nothing to the second is given as long as one that was at rest, not as MAIL is given."""
        self.to_content()
        self.end.say("250 done")
        self.result(self.running, DELIVERED)
        running = started(self.second.run())
        self.clock.advance(20.1)
        self.assertFalse(self.result(running, UNTOUCHED, derailed=True).full)

    def test_limit_of_the_content_behind_a_flight(self) -> None:
        """Once it was heard every reply has its own limit again."""
        for replies in (("250 done", "250 ok", "250 ok", "354 go on"), ("250 done",)):
            self.setUp()
            self.to_content()
            self.end.say(*replies)
            running = started(self.second.run())
            if len(replies) == 1:
                self.end.say("250 ok", "250 ok", "354 go on")
            self.clock.advance(37.9)
            self.assertNoResult(running)
            self.clock.advance(0.2)
            self.result(running, UNKNOWN)

    def test_lost_while_the_second_is_fetched(self) -> None:
        """Nothing was sent: the first is no more than refused, and the second was not begun."""
        self.gate = Deferred()
        self.end.taken()
        self.end.say("250 ok", "250 ok", "354 go on")
        self.end.hang_up()
        self.gate.callback(None)
        self.result(self.running, REFUSED)
        self.assertEqual((self.first.follower, self.end.taken()), (None, b""))


class LaneFlightTests(AgentCase):
    """A lane asks for what may share a flight when content is about to go, and leaves none of it unreported."""

    def setUp(self) -> None:
        super().setUp()
        self.open_end = self.session(uses=20)

    def begin(self, *followers: DeliveryRequest, then: Then = Then.QUIT) -> FakeLane:
        """A first request's content is on the wire, and the envelope of the first of these."""
        lane = FakeLane(request(), then=then)
        lane.followers = list(followers)
        self.agent().work(lane)
        self.open_end.taken()
        self.open_end.say("250 ok", "250 ok", "354 go on")
        return lane

    def endings(self, lane: FakeLane) -> list[tuple[int, int, Ending, bool]]:
        """What was reported: ticket, which use of the session, ending, whether derailed."""
        return [(each.ticket, each.uses, each.outcomes[0].ending, each.derailed) for each in lane.reports]

    def test_train(self) -> None:
        """One round trip for each message; each is reported when it is answered."""
        lane = self.begin(request(ticket=2), request(ticket=3))
        for ticket in (1, 2):
            self.assertEqual(self.open_end.taken().count(b"MAIL FROM:"), 1)
            self.assertEqual(len(lane.reports), ticket - 1)
            self.open_end.say("250 done", "250 ok", "250 ok", "354 go on")
        self.assertEqual(self.open_end.taken(), CONTENT)
        self.open_end.say("250 done")
        self.assertEqual(self.endings(lane), [(number, 20 + number, DELIVERED, False) for number in (1, 2, 3)])
        self.assertEqual([each.facts.uses for each in lane.shown if each is not None], [21, 22, 23])
        self.assertEqual((self.open_end.taken(), lane.ended), (b"QUIT\r\n", ["nothing is due"]))

    def test_times(self) -> None:
        """The second began when its envelope went."""
        lane = self.begin(request(ticket=2))
        self.clock.advance(2.0)
        self.open_end.say("250 done", "250 ok", "250 ok", "354 go on")
        self.clock.advance(3.0)
        self.open_end.say("250 done")
        self.assertEqual(
            [(each.started, each.ready, each.finished) for each in lane.reports],
            [(1000.0, 1000.0, 1002.0), (1000.0, 1000.0, 1005.0)],
        )

    def test_first_refused(self) -> None:
        """The second is given back untouched, whatever it was answered, and the session ends."""
        lane = self.begin(request(ticket=2))
        self.open_end.say("554 5.7.1 spam", "503 5.5.1 what", "503 5.5.1 what", "503 5.5.1 what")
        self.assertEqual(self.endings(lane), [(1, 21, REFUSED, False), (2, 22, UNTOUCHED, False)])
        self.assertEqual(lane.ended, ["nothing is due"])

    def test_first_refused_second_at_content(self) -> None:
        """Where the server waits for the second one's content there is no polite end."""
        lane = self.begin(request(ticket=2))
        self.open_end.taken()
        self.open_end.say("554 5.7.1 spam", "250 ok", "250 ok", "354 go on")
        self.assertEqual(self.endings(lane), [(1, 21, REFUSED, False), (2, 22, UNTOUCHED, False)])
        self.assertEqual((self.open_end.taken(), self.open_end.aborted), (b"", True))

    def test_lost(self) -> None:
        """The first is unknown, the second goes back."""
        lane = self.begin(request(ticket=2))
        self.open_end.hang_up()
        self.assertEqual(self.endings(lane), [(1, 21, UNKNOWN, True), (2, 22, UNTOUCHED, False)])

    def test_reused_line_for_those_that_were_carried(self) -> None:
        """One that went back is in no line about TLS."""
        lane = self.begin(request(ticket=2))
        self.open_end.hang_up()
        self.assertEqual(len(lane.reports), 2)
        self.assertEqual(self.log.having("TLS connection"), [])

    def test_second_choice_goes_alone(self) -> None:
        """A session at a less preferred host is given up after the request it was opened for."""
        first = request()
        better = first.route.candidates[0]
        end = self.open_end
        tried = request(tried=frozenset({better.endpoint}))
        lane = FakeLane(tried)
        lane.followers = [request(ticket=2)]
        agent = self.agent()
        agent._second_choice = lambda session, request: True  # type: ignore[method-assign]
        agent.work(lane)
        self.deliver(end)
        self.assertEqual((len(lane.reports), len(lane.followers), len(self.cache.saved)), (1, 1, 1))

    def test_single_goes_alone(self) -> None:
        """So is a session that serves one request only."""
        self.finder.results.clear()
        end = self.session(reusable=False)
        lane = FakeLane(request())
        lane.followers = [request(ticket=2)]
        self.agent().work(lane)
        self.deliver(end)
        self.assertEqual((len(lane.reports), len(lane.followers)), (1, 1))

    def test_fault_of_the_queue(self) -> None:
        """When asking fails, the request at hand is deferred and nothing is left unreported."""

        class Broken(FakeLane):
            async def follow(self, carrier: object) -> None:  # type: ignore[override]  # it never answers
                raise SmtpreuseError("the queue is broken")

        lane = Broken(request())
        self.agent().work(lane)
        self.open_end.say("250 ok", "250 ok", "354 go on")
        self.flushLoggedErrors(SmtpreuseError)
        ((report),) = lane.reports
        self.assertEqual((report.outcomes[0].ending, report.outcomes[0].status), (REFUSED, "4.3.0"))
        self.assertEqual(lane.ended, ["nothing is due"])

    def test_without_pipelining(self) -> None:
        """It is the queue that knows when; to a server without PIPELINING nothing is begun behind content."""
        self.finder.results.clear()
        end = self.session(capabilities=Capabilities(esmtp=True))
        lane = FakeLane(request())
        self.agent().work(lane)
        for reply in ("250 ok", "250 ok", "354 go on"):
            end.say(reply)
        self.assertTrue(end.taken().endswith(CONTENT))
        end.say("250 done")
        self.assertEqual([each.outcomes[0].ending for each in lane.reports], [DELIVERED])
