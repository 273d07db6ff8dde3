"""
Tests of L{smtpreuse.queue.ledger}.
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from smtpreuse.errors import SpoolError
from smtpreuse.model.content import Content, MemoryContent
from smtpreuse.model.message import Message
from smtpreuse.model.queueview import Committed, Recorded
from smtpreuse.queue.ledger import LATE, PATIENCE, Ledger
from tests.fakes import FakeSpool
from tests.queue.world import message

CONTENT = MemoryContent(b"hello\r\n")


class LedgerTests(SynchronousTestCase):
    """What became of recipients is recorded, however often it takes."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.spool = FakeSpool(self.clock.seconds)
        self.happened: list[str] = []
        self.done: list[int] = []
        self.ledger = Ledger(self.spool, self.clock, self.committed, self.recovered)
        for number in range(1, 6):
            Deferred.fromCoroutine(self.spool.append(message(f"Q{number}"), CONTENT))

    def committed(
        self, done: Sequence[Recorded], new: Sequence[tuple[Message, Content]], committed: Committed
    ) -> None:
        """On disk."""
        self.happened.append("committed")
        self.done += [each.row for each in done]
        self.assertEqual(len(new), len(committed.stored))

    def recovered(self) -> None:
        """It works again."""
        self.assertIsNone(self.ledger.trouble)
        self.happened.append("recovered")

    def enter(self, row: int, *new: str) -> None:
        """This recipient is done."""
        self.ledger.enter(
            [Recorded(queue_id=f"Q{row}", row=row, hop="smtp:example.com")], [(message(name), CONTENT) for name in new]
        )

    def test_one_turn_one_record(self) -> None:
        """What comes in one turn is one transaction."""
        self.enter(1)
        self.enter(2, "B1")
        self.assertEqual(self.spool.records, [])
        self.clock.advance(0)
        self.assertEqual([[each.row for each in record] for record in self.spool.records], [[1, 2]])
        self.assertEqual((self.happened, self.done), (["committed"], [1, 2]))
        self.assertIn("B1", self.spool.messages)

    def test_next_turn(self) -> None:
        """What comes while one is written is the next one, and need not wait for it."""
        self.spool.gate = Deferred()
        self.enter(1)
        self.clock.advance(0)
        self.enter(2)
        self.clock.advance(0)
        self.assertEqual(self.happened, [])
        self.spool.gate.callback(None)
        self.assertEqual((self.happened, sorted(self.done)), (["committed", "committed"], [1, 2]))

    def test_failure(self) -> None:
        """While it fails there is trouble, and it is tried again, in the order in which it came."""
        self.spool.broken = "disk full"
        self.enter(1, "B1")
        self.assertIsNone(self.ledger.trouble)
        self.clock.advance(0)
        self.assertEqual(self.ledger.trouble, "disk full")
        self.enter(2)
        self.clock.advance(0.5)
        self.spool.broken = None
        self.assertEqual(self.happened, [])
        self.clock.advance(0.5)
        self.assertEqual(self.done, [1, 2])
        self.assertEqual(self.happened, ["committed", "committed", "recovered"])
        self.assertIsNone(self.ledger.trouble)
        self.assertIn("B1", self.spool.messages)

    def test_fails_again(self) -> None:
        """As often as it takes; nothing is recorded twice."""
        self.spool.broken = "disk full"
        self.enter(1)
        self.clock.pump([0, 1, 1, 1])
        self.spool.broken = None
        self.clock.pump([1, 1, 1])
        self.assertEqual(self.done, [1])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_internal_error(self) -> None:
        """A fault of another kind loses nothing either."""
        record = self.spool.record

        async def bug(done: object, new: object) -> Committed:
            raise RuntimeError("bug")

        self.spool.record = bug  # type: ignore[method-assign,assignment]  # it breaks
        self.enter(1)
        self.clock.advance(0)
        self.assertIn("bug", self.ledger.trouble or "")
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.spool.record = record  # type: ignore[method-assign]  # it works again
        self.clock.advance(1.0)
        self.assertEqual((self.done, self.ledger.trouble), ([1], None))

    def test_late(self) -> None:
        """A record that hangs says nothing; after a second it counts as one that fails, until it is over."""
        self.spool.gate = gate = Deferred()
        self.enter(1)
        self.clock.advance(0)
        self.clock.advance(LATE - 0.1)
        self.enter(2)
        self.clock.advance(0)
        self.assertFalse(self.ledger.late)
        self.clock.advance(0.1)
        self.assertTrue(self.ledger.late)
        gate.callback(None)
        self.assertEqual((self.ledger.late, self.ledger.trouble), (False, None))
        self.assertEqual(self.happened, ["committed", "recovered", "committed"])

    def poison(self) -> None:
        """The notification B1 cannot be stored, all else can."""
        append = self.spool.append

        async def picky(given: Message, content: Content) -> Message:
            if given.queue_id == "B1":
                raise SpoolError("no place for B1")
            return await append(given, content)

        self.spool.append = picky  # type: ignore[method-assign]  # it fails now and then

    def test_one_cannot_be_stored(self) -> None:
        """It keeps no other: what it reports is put off, and recording goes on."""
        self.poison()
        instead = [Recorded(queue_id="Q1", row=1, hop="smtp:example.com", next_attempt=500.0, attempts=1)]
        done = [Recorded(queue_id="Q1", row=1, hop="smtp:example.com")]
        self.ledger.enter(done, [(message("B1"), CONTENT)], instead)
        self.enter(2)
        self.clock.advance(0)
        self.assertEqual(self.ledger.trouble, "no place for B1")
        self.clock.advance(1.0)
        self.assertEqual(self.done, [2])
        self.enter(3)
        self.clock.pump([1.0, 0.0])
        self.assertEqual((sorted(self.done), self.ledger.trouble), ([1, 2, 3], None))
        self.assertEqual((self.spool.times[1][0], self.clock.getDelayedCalls()), (500.0, []))

    def test_the_only_one_cannot_be_stored(self) -> None:
        """Where nothing else shows that the spool works, it is tried for longer."""
        self.poison()
        instead = [Recorded(queue_id="Q1", row=1, hop="smtp:example.com", next_attempt=500.0, attempts=1)]
        done = [Recorded(queue_id="Q1", row=1, hop="smtp:example.com")]
        self.ledger.enter(done, [(message("B1"), CONTENT)], instead)
        self.clock.pump([0.0] + [1.0] * PATIENCE)
        self.assertEqual(self.done, [])
        self.clock.advance(1.0)
        self.assertEqual((self.done, self.ledger.trouble), ([1], None))

    def test_settled(self) -> None:
        """Whoever wants to end waits until all is on disk."""
        self.successResultOf(Deferred.fromCoroutine(self.ledger.settled()))
        self.spool.gate = gate = Deferred()
        self.enter(1)
        waiting = Deferred.fromCoroutine(self.ledger.settled())
        self.clock.advance(0)
        self.enter(2)
        self.spool.gate = None
        self.assertNoResult(waiting)
        gate.callback(None)
        self.assertNoResult(waiting)
        self.clock.advance(0)
        self.successResultOf(waiting)
        self.assertEqual(sorted(self.done), [1, 2])

    def test_settled_in_trouble(self) -> None:
        """Also while it fails."""
        self.spool.broken = "disk full"
        self.enter(1)
        self.clock.advance(0)
        waiting = Deferred.fromCoroutine(self.ledger.settled())
        self.clock.advance(1)
        self.assertNoResult(waiting)
        self.spool.broken = None
        self.clock.advance(1)
        self.successResultOf(waiting)
