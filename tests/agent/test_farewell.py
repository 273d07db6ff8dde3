"""
Tests of how the agent takes leave of sessions, and of what must not take a lane along.
"""

from __future__ import annotations

from smtpreuse.model.content import FileContent, MemoryContent
from smtpreuse.model.delivery import Blame, Ending
from tests.agent.test_lane import AgentCase
from tests.agent.world import TLS, request, route
from tests.fakes import FakeEnd, FakeLane, candidate


class FarewellTests(AgentCase):
    """A server that does not answer QUIT does not get ever more connections."""

    def quitting(self, count: int) -> list[FakeEnd]:
        """So many sessions that are told QUIT one after the other, and get no answer."""
        ends = [self.session() for _ in range(count)]
        self.running = self.agent(most_reuses=0)
        for end in ends:
            self.running.work(FakeLane(request()))
            self.deliver(end)
        return ends

    def test_one_at_a_time(self) -> None:
        """Of one site's sessions only the last one waits for its answer; each was told QUIT once."""
        ends = self.quitting(3)
        self.assertEqual([end.closed for end in ends], [True, True, False])
        self.assertEqual([end.taken() for end in ends], [b"QUIT\r\n"] * 3)
        self.assertEqual([end.aborted for end in ends], [False] * 3)
        ends[2].say("221 bye")
        self.assertTrue(ends[2].closed)
        self.assertEqual((self.running._leaving, self.clock.getDelayedCalls()), ({}, []))

    def test_answered(self) -> None:
        """One that was answered in time is nobody's business any more."""
        ends = [self.session() for _ in range(2)]
        agent = self.agent()
        for end in ends:
            agent.work(FakeLane(request()))
            self.deliver(end)
            end.say("221 bye")
        self.assertEqual([(end.closed, end.aborted) for end in ends], [(True, False)] * 2)
        self.assertEqual(agent._leaving, {})


class FaultTests(AgentCase):
    """A fault of ours ends a request with a report, not a lane without one."""

    def test_log_of_tls(self) -> None:
        """What fails before MAIL is reported like what fails behind it, and is not tried elsewhere at once."""
        end = self.session(tls=TLS)
        lane = FakeLane(request())
        agent = self.agent()
        agent._log_tls = None  # type: ignore[assignment,method-assign]
        agent.work(lane)
        self.flushLoggedErrors(TypeError)
        (report,) = lane.reports
        self.assertEqual((report.blame, report.exhausted), (Blame.OURSELVES, True))
        self.assertEqual([(each.ending, each.status) for each in report.outcomes], [(Ending.REFUSED, "4.3.0")])
        self.assertEqual((end.taken(), lane.ended), (b"QUIT\r\n", ["nothing is due"]))


class LineLengthTests(AgentCase):
    """Long lines are broken on the wire where the operator wants it."""

    LONG = b"abcdefghij\r\n.klmnopqrst\r\n"

    def sent(self, content: MemoryContent | FileContent, limit: int) -> bytes:
        """What the server gets of this content."""
        end = self.session()
        agent = self.agent()
        agent._line_length_limit = limit
        agent.work(FakeLane(request(content=content)))
        end.taken()
        end.say("250 ok", "250 ok", "354 go on")
        return end.taken()

    def test_broken(self) -> None:
        """From memory and from a file alike; a dot that is doubled does not count."""
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(self.LONG)
        for content in (MemoryContent(self.LONG), FileContent(path, len(self.LONG))):
            self.assertEqual(self.sent(content, 8), b"abcdefgh\r\n ij\r\n..klmnopq\r\n rst\r\n.\r\n")

    def test_off(self) -> None:
        """By default nothing is broken."""
        self.assertEqual(self.sent(MemoryContent(self.LONG), 0), b"abcdefghij\r\n..klmnopqrst\r\n.\r\n")


class DetourTests(AgentCase):
    """A session to a less preferred host that a refusal led to does not draw the mail that the better one takes."""

    def carried(self, preference: int, **values: object) -> FakeLane:
        """A request that the host of preference 10 may have refused before, over a session to a host of this one."""
        second = candidate("mx2.example.com", "192.0.2.2", preference=preference)
        end = self.session(at=second)
        lane = FakeLane(request(route=route(candidate(), second), **values))
        self.agent().work(lane)
        self.deliver(end)
        return lane

    def test_rests_under_its_endpoint(self) -> None:
        """It rests at once, and is not found by destination."""
        lane = self.carried(20, tried=frozenset({candidate().endpoint}))
        self.assertEqual([destination for destination, _ in self.cache.saved], [""])
        self.assertEqual([carrier is None for carrier in lane.shown], [True, True])

    def test_equal_preference(self) -> None:
        """A host that is as good as the first one goes on."""
        lane = self.carried(10, tried=frozenset({candidate().endpoint}))
        self.assertEqual(self.cache.saved, [])
        self.assertEqual([carrier is None for carrier in lane.shown], [True, False])

    def test_nobody_refused(self) -> None:
        """Where the better host was not to be reached, the other one serves all."""
        lane = self.carried(20)
        self.assertEqual([carrier is None for carrier in lane.shown], [True, False])
