"""
Tests of L{smtpreuse.queue.returns}.
"""

from __future__ import annotations

from collections.abc import Sequence
from email.utils import parsedate_to_datetime

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from smtpreuse.errors import SpoolError, TableError
from smtpreuse.model.content import Content, MemoryContent
from smtpreuse.model.delivery import DeliveryReport, Ending, Outcome
from smtpreuse.model.message import Body, Message
from smtpreuse.model.queueview import Recorded
from smtpreuse.queue.returns import UNTOLD_AFTER, Returns
from smtpreuse.queue.schedule import Settled
from tests.fakes import FakeLog, FakeRouter, FakeSpool
from tests.queue.world import START, message

GIVEN = message("Q1", "ann@example.com", sender="me@example.test", body=Body.EIGHT_BIT)
NO = Outcome(recipient=GIVEN.recipients[0], ending=Ending.REFUSED, status="5.1.1", text="no such user")
RECORDED = Recorded(queue_id="Q1", row=NO.recipient.row, hop="smtp:example.com")
SETTLED = Settled(recorded=(RECORDED,), failed=(NO,), again=(), elsewhere=False, expired=False)
# What the clock on the wall shows, hours from the queue's.
WALL = START + 7200
REPORT = DeliveryReport(ticket=1, outcomes=(NO,), started=START, ready=START, finished=START + 9, relay="none")


class ReturnsTests(SynchronousTestCase):
    """A notification and the outcome it reports are entered together."""

    def setUp(self) -> None:
        self.spool = FakeSpool(lambda: START)
        self.router = FakeRouter()
        self.log = FakeLog()
        self.entered: list[tuple[Sequence[Recorded], Sequence[tuple[Message, Content]]]] = []
        self.instead: list[Sequence[Recorded] | None] = []
        self.returns = Returns(self.spool, self.router, self.log, lambda: "B1", "mail.example.com", lambda: WALL)

    def make(self, octets: bytes | None = None) -> None:
        """Notify the sender."""
        self.returns.make(GIVEN, REPORT, SETTLED, octets, self.enter)

    def enter(
        self, done: Sequence[Recorded], new: Sequence[tuple[Message, Content]], instead: Sequence[Recorded] | None
    ) -> None:
        """What the ledger is told."""
        self.entered.append((done, new))
        self.instead.append(instead)

    def bounce(self) -> tuple[Message, bytes]:
        """What was entered."""
        ((done, ((made, content),)),) = self.entered
        self.assertEqual(done, (RECORDED,))
        assert isinstance(content, MemoryContent)
        return made, content.octets

    def test_make(self) -> None:
        """To the sender, from nobody, of the size it has; the operator sees which is whose."""
        self.make(b"Subject: hello\r\n\r\n")
        made, octets = self.bounce()
        self.assertEqual((made.queue_id, made.sender, made.arrived, made.size), ("B1", "", START + 9, len(octets)))
        (recipient,) = made.recipients
        self.assertEqual((recipient.address, recipient.hop), ("me@example.test", "smtp:example.test"))
        self.assertIs(made.body, Body.EIGHT_BIT)
        self.assertIn(b"Subject: hello\r\n", octets)
        self.assertEqual(self.log.lines, ["bounce: Q1: sender non-delivery notification: B1"])

    def test_dates(self) -> None:
        """People read dates of the clock on the wall: the message's age is what it is by the queue's own."""
        self.make(b"Subject: hello\r\n\r\n")
        _, octets = self.bounce()
        fields = dict(line.split(": ", 1) for line in octets.decode().split("\r\n") if ": " in line)
        read = {name: parsedate_to_datetime(fields[name]).timestamp() for name in ("Date", "Arrival-Date")}
        age = REPORT.finished - GIVEN.arrived
        self.assertEqual(read, {"Date": int(WALL), "Arrival-Date": int(WALL - age)})

    def test_instead(self) -> None:
        """Should the notification not be storable, what failed stays in the queue and is tried again."""
        self.make(b"Subject: hello\r\n\r\n")
        ((kept,),) = [each for each in self.instead if each is not None]
        self.assertEqual((kept.row, kept.next_attempt), (RECORDED.row, REPORT.finished + UNTOLD_AFTER))

    def test_from_the_spool(self) -> None:
        """What is not in memory is read."""
        Deferred.fromCoroutine(self.spool.append(GIVEN, MemoryContent(b"Subject: read\r\n\r\n")))
        self.make()
        self.assertIn(b"Subject: read\r\n", self.bounce()[1])

    def test_unreadable(self) -> None:
        """What cannot be read is not returned; the notification goes all the same."""
        self.make()
        self.assertIn(b"5.1.1", self.bounce()[1])

    def test_no_table(self) -> None:
        """When the table cannot be asked, the notification waits under its domain."""

        def fails(recipient: str) -> str:
            raise TableError("no table")

        self.router.hop = fails  # type: ignore[method-assign]  # it breaks
        self.make(b"")
        self.assertEqual(self.bounce()[0].recipients[0].hop, "smtp:example.test")

    def test_fault(self) -> None:
        """When a fault of ours leaves the sender without notification, what failed stays in the queue."""

        def fails(recipient: str) -> str:
            raise RuntimeError("bug")

        self.router.hop = fails  # type: ignore[method-assign]  # it breaks
        self.make(b"")
        (((kept,), new),) = self.entered
        self.assertEqual((kept.row, kept.next_attempt, new), (RECORDED.row, REPORT.finished + UNTOLD_AFTER, ()))
        self.assertEqual((kept.reason, kept.attempts), (NO.text, NO.recipient.attempts + 1))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_settled(self) -> None:
        """Whoever wants to end waits until all is entered."""
        self.successResultOf(Deferred.fromCoroutine(self.returns.settled()))
        gate: Deferred[Content] = Deferred()

        async def slow(queue_id: str) -> Content:
            return await gate

        self.spool.content = slow  # type: ignore[method-assign]  # it takes its time
        self.make()
        waiting = Deferred.fromCoroutine(self.returns.settled())
        self.assertNoResult(waiting)
        gate.errback(SpoolError("gone"))
        self.successResultOf(waiting)
        self.assertEqual(len(self.entered), 1)

    def test_adopt(self) -> None:
        """What is notified from then on comes from the other name."""
        self.returns.adopt("other.example.com")
        self.make(b"Subject: hello\r\n\r\n")
        _, octets = self.bounce()
        self.assertIn(b"Reporting-MTA: dns; other.example.com\r\n", octets)
        self.assertNotIn(b"mail.example.com", octets)
