"""
Tests of L{smtpreuse.cli.demo}. The whole of it runs in C{tests.system.test_demo}.
"""

from __future__ import annotations

from argparse import Namespace
from io import StringIO

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from smtpreuse.cli.demo import STALL_LIMIT, Arrival, Demo, Report, table
from smtpreuse.cli.destination import Destination
from smtpreuse.cli.habits import Demand, Habits
from smtpreuse.cli.injection import Count
from smtpreuse.cli.progress import Progress

GOOD = Report(
    messages=500,
    delivered=500,
    missing=0,
    doubled=0,
    connections=5,
    tls_handshakes=5,
    messages_per_connection=100.0,
    seconds=0.9,
    messages_per_second=555.0,
)


class ReportTests(SynchronousTestCase):
    """What came of it is told to people."""

    def test_verdict(self) -> None:
        """It is good when every message arrived once, and only then."""
        self.assertTrue(GOOD.good)
        self.assertFalse(evolve(GOOD, missing=1).good)
        self.assertFalse(evolve(GOOD, doubled=1).good)

    def test_table(self) -> None:
        """Every number has its line; the last line says whether it went well."""
        lines = table(GOOD).splitlines()
        self.assertEqual(len(lines), 10)
        self.assertEqual(lines[0], "messages sent                             500")
        self.assertEqual(lines[-1], "every message arrived, once")
        self.assertEqual(table(evolve(GOOD, doubled=1)).splitlines()[-1], "this is not as it should be")


class ArrivalTests(SynchronousTestCase):
    """Waits for the messages, not for ever."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.destination = Destination(self.clock, Habits(demand=Demand.OFF), None)
        self.arrival = Arrival(self.clock, self.destination, Progress(StringIO(), 2, "delivered"), 2)
        self.waiting = Deferred.fromCoroutine(self.arrival.wait())

    def arrive(self, name: bytes) -> None:
        """A message arrives."""
        self.destination.take(b"a@x.test", [b"b@y.test"], b"Message-ID: <%s>\r\n\r\n" % name, True)

    def test_all_there(self) -> None:
        """It ends soon after the last arrival, whose time it knows."""
        self.clock.advance(5)
        self.arrive(b"1")
        self.clock.advance(5)
        self.assertNoResult(self.waiting)
        self.arrive(b"2")
        self.clock.advance(1)
        self.successResultOf(self.waiting)
        self.assertEqual(self.arrival.last, 10.0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_doubles_do_not_count(self) -> None:
        """A message that came twice does not stand for one that is missing."""
        self.arrive(b"1")
        self.arrive(b"1")
        self.clock.advance(1)
        self.assertNoResult(self.waiting)

    def test_fewer(self) -> None:
        """What is known not to come is not waited for."""
        self.arrive(b"1")
        self.arrival.expect(1)
        self.clock.advance(0.2)
        self.successResultOf(self.waiting)

    def test_stalled(self) -> None:
        """When nothing comes any more, the rest is missing."""
        self.arrive(b"1")
        self.clock.advance(STALL_LIMIT)
        self.assertNoResult(self.waiting)
        self.clock.advance(0.2)
        self.successResultOf(self.waiting)


class Unfinished:
    """An injection whose last reply does not come."""

    async def send(self, connections: int) -> None:
        await Deferred()


class Finished:
    """An injection of which two messages were taken, one was not answered, and the rest refused."""

    async def send(self, connections: int) -> Count:
        return Count(sent=3, accepted=2, rejected=7, unknown=1)


class Expectation:
    """An arrival that is told how much to expect."""

    def __init__(self) -> None:
        self.expected: list[int] = []

    def expect(self, total: int) -> None:
        self.expected.append(total)


class SendingTests(SynchronousTestCase):
    """The demonstration is over when the last message has arrived, wherever the sending is then."""

    def test_given_up(self) -> None:
        """Sending that is given up is no error."""
        demo = Demo.__new__(Demo)
        demo._arguments = Namespace(connections=1)
        sending = Deferred.fromCoroutine(demo._send(Unfinished(), Expectation()))
        sending.cancel()
        self.assertIsNone(self.successResultOf(sending))

    def test_refused(self) -> None:
        """Only what was taken, or may have been, is waited for."""
        demo = Demo.__new__(Demo)
        demo._arguments = Namespace(connections=1)
        expectation = Expectation()
        self.successResultOf(Deferred.fromCoroutine(demo._send(Finished(), expectation)))
        self.assertEqual(expectation.expected, [3])
