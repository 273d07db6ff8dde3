"""
Tests of L{smtpreuse.queue.stock}.
"""

from __future__ import annotations

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from smtpreuse.model.message import Message
from smtpreuse.queue.contentcache import ContentCache
from smtpreuse.queue.hop import Hop
from smtpreuse.queue.line import Job
from smtpreuse.queue.stock import Stock
from tests.queue.world import START, message

COM, TEST = "smtp:example.com", "smtp:example.test"


def stored(queue_id: str, *rows: int, hop: str = COM, attempts: int = 0) -> Message:
    """A message with recipients of these rows, all of one hop."""
    plain = message(queue_id, *(f"{row}@example.com" for row in rows), hop=hop)
    recipients = tuple(
        evolve(each, row=row, attempts=attempts) for each, row in zip(plain.recipients, rows, strict=True)
    )
    return evolve(plain, recipients=recipients)


class StockCase(SynchronousTestCase):
    """A stock of two messages, three recipients a job."""

    def setUp(self) -> None:
        self.contents = ContentCache(1000)
        self.stock = Stock(self.contents, most=2, recipients=3)

    def hold(self, given: Message, text: str = COM) -> tuple[bool, list[Job]]:
        """Hold it, at the start."""
        return self.stock.hold(self.stock.hop(text), given, START)

    def books(self, hop: Hop) -> tuple[set[int], int]:
        """Which rows are held, and how many of them wait."""
        return hop.rows, hop.waiting


class HoldTests(StockCase):
    """What is held is in the books of its hop and of its message, and is cut into jobs."""

    def test_books(self) -> None:
        """Rows and recipients are counted at the hop, the message by its queue id."""
        self.hold(stored("Q1", 4, 5))
        self.assertEqual(self.books(self.stock.hop(COM)), ({4, 5}, 2))
        self.assertEqual(self.stock.active(), {"Q1"})

    def test_first(self) -> None:
        """A message whose recipients go two ways is new once."""
        self.assertTrue(self.hold(stored("Q1", 1))[0])
        self.assertFalse(self.hold(stored("Q1", 2, hop=TEST), TEST)[0])
        self.assertTrue(self.hold(stored("Q2", 3))[0])

    def test_job(self) -> None:
        """A job knows its hop, since when it is due, and that it is whole where there is room for all."""
        given = stored("Q1", 1, 2, 3)
        _, (job,) = self.hold(given)
        self.assertIs(job.message, given)
        self.assertEqual((job.hop, job.since, job.retry, job.route), (COM, START, False, None))

    def test_parts(self) -> None:
        """Not more recipients in a job than its limit; each recipient is in one, in the order they came in."""
        _, jobs = self.hold(stored("Q1", *range(1, 8)))
        self.assertEqual([[each.row for each in job.message.recipients] for job in jobs], [[1, 2, 3], [4, 5, 6], [7]])
        self.assertEqual({job.message.queue_id for job in jobs}, {"Q1"})

    def test_retry(self) -> None:
        """A job is a retry where one of its recipients was tried before."""
        once, never = stored("Q1", 1, attempts=1), stored("Q1", 2)
        _, (job,) = self.hold(evolve(never, recipients=never.recipients + once.recipients))
        self.assertTrue(job.retry)

    def test_while_loading(self) -> None:
        """What comes while the spool is asked is noted: the spool may show it too. Else it is not."""
        hop = self.stock.hop(COM)
        self.hold(stored("Q1", 1))
        hop.loading = True
        self.hold(stored("Q2", 2))
        self.assertEqual(hop.meanwhile, {2})

    def test_full(self) -> None:
        """Messages are counted, not their recipients or hops."""
        self.hold(stored("Q1", 1, 2, 3))
        self.hold(stored("Q1", 4, hop=TEST), TEST)
        self.assertFalse(self.stock.full)
        self.hold(stored("Q2", 5))
        self.assertTrue(self.stock.full)

    def test_active_is_a_copy(self) -> None:
        """Whoever asks may keep the answer."""
        self.hold(stored("Q1", 1))
        before = self.stock.active()
        self.hold(stored("Q2", 2))
        self.assertEqual(before, {"Q1"})


class WaitingTests(StockCase):
    """What a lane takes does not wait, but is held."""

    def test_taken_and_returned(self) -> None:
        """All recipients of the job stop waiting, and wait again."""
        _, (job, _) = self.hold(stored("Q1", 1, 2, 3, 4))
        hop = self.stock.taken(job)
        self.assertIs(hop, self.stock.hop(COM))
        self.assertEqual(self.books(hop), ({1, 2, 3, 4}, 1))
        self.assertIs(self.stock.returned(job), hop)
        self.assertEqual(hop.waiting, 4)

    def test_fewer_return(self) -> None:
        """A job that has lost recipients returns with those it has left."""
        _, (job,) = self.hold(stored("Q1", 1, 2))
        self.stock.taken(job)
        job.message = evolve(job.message, recipients=job.message.recipients[1:])
        self.assertEqual(self.stock.returned(job).waiting, 1)


class ReleaseTests(StockCase):
    """A message leaves memory with its last recipient, its content with it."""

    def setUp(self) -> None:
        super().setUp()
        self.contents.put("Q1", b"one")
        self.contents.put("Q2", b"two")

    def test_some(self) -> None:
        """While recipients are left, the message and its content are."""
        self.hold(stored("Q1", 1, 2))
        self.assertFalse(self.stock.release("Q1", COM, [1]))
        self.assertEqual(self.stock.hop(COM).rows, {2})
        self.assertEqual((self.stock.active(), self.contents.get("Q1")), ({"Q1"}, b"one"))

    def test_last(self) -> None:
        """Then both are gone, and no other's."""
        self.hold(stored("Q1", 1, 2))
        self.hold(stored("Q2", 3))
        self.stock.release("Q1", COM, [1])
        self.stock.release("Q1", COM, [2])
        self.assertEqual((self.stock.hop(COM).rows, self.stock.active()), ({3}, {"Q2"}))
        self.assertEqual((self.contents.get("Q1"), self.contents.get("Q2")), (None, b"two"))

    def test_two_hops(self) -> None:
        """Recipients of all hops count."""
        self.hold(stored("Q1", 1))
        self.hold(stored("Q1", 2, hop=TEST), TEST)
        self.stock.release("Q1", COM, [1])
        self.assertEqual(self.stock.active(), {"Q1"})
        self.stock.release("Q1", TEST, [2])
        self.assertEqual(self.stock.active(), set())

    def test_room(self) -> None:
        """It says so when there is room where there was none, and only then."""
        self.hold(stored("Q1", 1))
        self.assertFalse(self.stock.release("Q1", COM, [1]))
        self.hold(stored("Q1", 1))
        self.hold(stored("Q2", 2))
        self.assertTrue(self.stock.release("Q1", COM, [1]))

    def test_no_room_yet(self) -> None:
        """Where more was held than there was room for, one that leaves makes none."""
        for row in (1, 2, 3):
            self.hold(stored(f"Q{row}", row))
        self.assertFalse(self.stock.release("Q1", COM, [1]))
        self.assertTrue(self.stock.release("Q2", COM, [2]))

    def test_not_held(self) -> None:
        """What is not held, or of a hop that was forgotten, changes nothing and makes no room."""
        self.hold(stored("Q1", 1))
        self.hold(stored("Q2", 2))
        self.assertFalse(self.stock.release("Q9", TEST, [9]))
        self.assertEqual((self.stock.active(), self.stock.hop(COM).rows), ({"Q1", "Q2"}, {1, 2}))

    def test_forget(self) -> None:
        """A job's recipients are released together, in its own hop."""
        self.hold(stored("Q2", 9))
        _, (first, second) = self.hold(stored("Q1", 1, 2, 3, 4))
        self.assertFalse(self.stock.forget(first))
        self.assertEqual(self.stock.hop(COM).rows, {4, 9})
        self.assertTrue(self.stock.forget(second))
        self.assertEqual(self.stock.active(), {"Q2"})


class HopsTests(StockCase):
    """A hop has one set of books, as long as there is anything in it."""

    def test_one(self) -> None:
        """Made when there is none, and the same from then on."""
        hop = self.stock.hop(COM)
        self.assertEqual(hop.text, COM)
        self.assertIs(self.stock.hop(COM), hop)
        self.assertIsNot(self.stock.hop(TEST), hop)
        self.assertEqual(self.stock.hops(), [hop, self.stock.hop(TEST)])

    def test_tidy(self) -> None:
        """Those with nothing to do are forgotten, those in use or known to have a backlog are not."""
        self.hold(stored("Q1", 1))
        self.stock.hop(TEST).backlog = True
        self.stock.hop("discard:")
        self.stock.tidy()
        self.assertEqual([hop.text for hop in self.stock.hops()], [COM, TEST])
        self.stock.release("Q1", COM, [1])
        self.stock.tidy()
        self.assertEqual([hop.text for hop in self.stock.hops()], [TEST])


class AdoptTests(StockCase):
    """Other limits are for what comes."""

    def test_limits(self) -> None:
        """How many messages there may be, and how many recipients in a job."""
        self.hold(stored("Q1", 1))
        self.stock.adopt(most=1, recipients=2)
        self.assertTrue(self.stock.full)
        _, jobs = self.hold(stored("Q2", 2, 3, 4))
        self.assertEqual([len(job.message.recipients) for job in jobs], [2, 1])


class StrayTests(StockCase):
    """What may stand under another hop in the spool by now is loaded for no hop."""

    def test_held(self) -> None:
        """Until it is not held any more; what comes later is known under its own hop alone."""
        _, (old,) = self.hold(stored("Q1", 1, 2))
        self.stock.stray()
        _, (new,) = self.hold(stored("Q2", 3, hop=TEST), TEST)
        self.assertEqual((self.stock.astray(old), self.stock.astray(new)), (True, False))
        self.assertEqual(self.stock.held(self.stock.hop(TEST)), {1, 2, 3})
        self.assertEqual(self.stock.held(self.stock.hop(COM)), {1, 2})
        self.stock.release("Q1", COM, [1])
        self.assertEqual(self.stock.held(self.stock.hop(TEST)), {2, 3})
        self.stock.forget(old)
        self.assertEqual(self.stock.held(self.stock.hop(TEST)), {3})
