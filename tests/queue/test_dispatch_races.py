"""
Tests of what happens between the parts of the queue: mail that would be stuck, doubled or forgotten if one of them
looked away at the wrong moment.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import evolve
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from smtpreuse.errors import SpoolError
from smtpreuse.model.content import Content, MemoryContent
from smtpreuse.model.delivery import Blame
from smtpreuse.model.message import Message
from smtpreuse.model.queueview import Committed, Recorded
from smtpreuse.queue.hosts import MOST, HostMemory
from smtpreuse.queue.ledger import RETRY_AFTER, Ledger
from smtpreuse.queue.loader import EVERYTHING_EVERY
from tests.fakes import FakeSpool
from tests.queue.world import RULES, BusyAgent, World, endpoint, message, no_session, report_of


class BrokenContent(FakeSpool):
    """
    A spool whose contents cannot always be read.

    @ivar failures: what the next reads fail with.
    """

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock.seconds)
        self.failures: list[Exception] = []
        self.reading: Deferred[None] | None = None

    async def content(self, queue_id: str) -> Content:
        if self.reading is not None:
            await self.reading
        if self.failures:
            raise self.failures.pop(0)
        return await super().content(queue_id)


class SlowSpool:
    """Records when the test says so."""

    def __init__(self) -> None:
        self.calls: list[tuple[list[int], Deferred[Committed]]] = []

    async def record(self, done: Sequence[Recorded], new: Sequence[tuple[Message, Content]]) -> Committed:
        answer: Deferred[Committed] = Deferred()
        self.calls.append(([each.row for each in done], answer))
        return await answer


def recorded(row: int) -> Recorded:
    """A recipient that is done."""
    return Recorded(queue_id="Q1", row=row, hop="smtp:example.com")


NOTHING = Committed(stored=(), removed=())


class LedgerTests(SynchronousTestCase):
    """Nothing that was entered waits for something else to be entered."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.spool = SlowSpool()
        self.ledger = Ledger(self.spool, self.clock, lambda *_: None, lambda: None)  # type: ignore[arg-type]  # a fake

    def test_entered_while_recording_is_tried_again(self) -> None:
        """What is entered between the second attempt's begin and its success is recorded at once after it."""
        self.ledger.enter([recorded(1)])
        self.clock.advance(0)
        self.spool.calls[0][1].errback(SpoolError("full"))
        self.clock.advance(RETRY_AFTER)
        self.ledger.enter([recorded(2)])
        settled = Deferred.fromCoroutine(self.ledger.settled())
        self.spool.calls[1][1].callback(NOTHING)
        self.clock.advance(0)
        self.assertEqual([rows for rows, _ in self.spool.calls], [[1], [1], [2]])
        self.spool.calls[2][1].callback(NOTHING)
        self.successResultOf(settled)

    def test_of_two_records_one_fails(self) -> None:
        """The one that fails is tried again though the other one succeeds."""
        for row in (1, 2):
            self.ledger.enter([recorded(row)])
            self.clock.advance(0)
        self.spool.calls[0][1].errback(SpoolError("full"))
        self.spool.calls[1][1].callback(NOTHING)
        self.clock.advance(RETRY_AFTER)
        self.assertEqual([rows for rows, _ in self.spool.calls], [[1], [2], [1]])


class RacesCase(SynchronousTestCase):
    """A dispatcher whose spool has contents that cannot always be read."""

    def setUp(self) -> None:
        self.agent = BusyAgent()
        self.world = World(self.agent, evolve(RULES, lane_limit=10))
        self.spool = BrokenContent(self.world.clock)
        self.world = self.rebuilt()
        self.dispatcher = self.world.dispatcher
        self.dispatcher.start()

    def rebuilt(self) -> World:
        """With this spool everywhere."""
        world = self.world
        world.spool = self.spool
        for part in (world.dispatcher, world.dispatcher._loader, world.dispatcher._ledger, world.dispatcher._returns):
            part._spool = self.spool
        return world

    def accept_unheld(self, queue_id: str) -> None:
        """It comes in, and its content is not in memory any more when its turn comes."""
        self.world.router.gate = gate = Deferred()
        self.world.accept(message(queue_id))
        self.world.contents.drop(queue_id)
        self.world.router.gate = None
        gate.callback(None)

    def flying(self) -> list[str]:
        """What lanes hold."""
        return sorted(request.queue_id for request in self.agent.held.values())


class ContentTests(RacesCase):
    """A message whose content could not be read is not forgotten in the spool."""

    def test_unreadable_for_a_moment(self) -> None:
        """It is asked for again."""
        self.spool.failures = [SpoolError("too many open files")]
        self.accept_unheld("Q1")
        self.assertEqual((self.flying(), self.world.in_memory), ([], 0))
        self.world.turn(1.0)
        self.assertEqual(self.flying(), ["Q1"])

    def test_gone(self) -> None:
        """One that the spool does not give any more is not asked for for ever."""
        self.spool.failures = [SpoolError("no such content")]
        self.world.router.gate = gate = Deferred()
        self.world.accept(message("Q1"))
        self.world.contents.drop("Q1")
        del self.spool.messages["Q1"]
        gate.callback(None)
        self.world.clock.pump([1.0] * 5)
        self.assertEqual(len(self.spool.asked), 1)

    def test_in_flight_while_it_is_read(self) -> None:
        """An operator's delete does not pass by what a lane is about to carry."""
        self.spool.reading = reading = Deferred()
        self.accept_unheld("Q1")
        self.assertEqual(self.dispatcher.in_flight(), {"Q1"})
        reading.callback(None)
        self.assertEqual((self.flying(), self.dispatcher.in_flight()), (["Q1"], {"Q1"}))

    def test_fault(self) -> None:
        """A fault of ours that stays with a message does not keep lanes busy with it: it is deferred."""
        self.world.accept(message("Q1"))
        for _ in range(2):
            lane = self.agent.first()
            del self.agent.held[lane]
            lane.over("internal error")
        self.world.turn()
        self.assertEqual(self.flying(), [])
        self.assertEqual(len(self.world.log.having("dsn=4.3.0, status=deferred (internal error")), 1)
        self.assertEqual(self.world.in_memory, 0)

    def test_fault_while_it_is_read(self) -> None:
        """Also what a lane has taken and not got yet goes back when it ends."""
        self.spool.reading = Deferred()
        self.accept_unheld("Q1")
        (lane,) = self.dispatcher._traffic.lanes
        self.spool.reading = None
        lane.over("internal error")
        self.assertEqual(self.flying(), ["Q1"])


class DrainTests(RacesCase):
    """At the end nothing is begun, and what was done is not forgotten."""

    def test_accepted_while_it_drains(self) -> None:
        """What comes in meanwhile stays in the spool, for the next start."""
        self.world.accept(message("Q1"))
        drained = Deferred.fromCoroutine(self.dispatcher.drain())
        self.world.accept(message("Q2"))
        self.world.accept(message("Q3", "ann@example.test", hop="discard:"))
        self.assertEqual(self.dispatcher.active(), {"Q1"})
        self.agent.end(self.agent.first())
        self.world.turn()
        self.successResultOf(drained)
        self.assertEqual(set(self.spool.messages), {"Q2", "Q3"})

    def test_reported_after_the_drain_was_given_up(self) -> None:
        """What a lane reports later is recorded as long as somebody waits for it."""
        self.world.accept(message("Q1"))
        drained = Deferred.fromCoroutine(self.dispatcher.drain())
        drained.cancel()
        self.failureResultOf(drained, CancelledError)
        self.agent.end(self.agent.first())
        settled = Deferred.fromCoroutine(self.dispatcher.settled())
        self.assertNoResult(settled)
        self.world.turn()
        self.successResultOf(settled)
        self.assertEqual(self.spool.messages, {})


class MemoryTests(RacesCase):
    """What is remembered is bounded."""

    def test_rows_that_came_while_nothing_was_loaded(self) -> None:
        """A hop that is always busy and never has a backlog remembers only what is in memory."""
        for number in range(100):
            self.world.accept(message(f"Q{number}"))
            if number:
                self.agent.end(self.agent.first())
            self.world.turn(0.01)
        hop = self.dispatcher._stock.hop("smtp:example.com")
        self.assertEqual((len(hop.meanwhile), len(hop.rows)), (0, 1))

    def test_hosts(self) -> None:
        """Of too many hosts that failed, those that failed longest ago are forgotten."""
        memory = HostMemory(lambda: 1000.0, 60.0)
        memory.failed(endpoint(1))
        memory.failed(endpoint(2))
        memory.failed(endpoint(1))
        for number in range(MOST - 1):
            memory.failed(endpoint(number + 1000))
        self.assertEqual(len(memory._failed), MOST)
        self.assertEqual(memory.order([endpoint(1), endpoint(2)]), [1, 0])


class SearchTests(RacesCase):
    """What is due is found, whatever the clock does."""

    def stored(self, queue_id: str) -> int:
        """It is in the spool, and nobody is told."""
        given = Deferred.fromCoroutine(self.spool.append(message(queue_id), MemoryContent(b"hello\r\n")))
        return self.successResultOf(given).recipients[0].row

    def test_clock_set_back(self) -> None:
        """What becomes due after the clock was set back is found, though a search had gone past that time."""
        self.world.turn(30.0)
        self.world.clock.rightNow -= 3600.0
        self.stored("Q1")
        self.dispatcher._loader._search()
        self.assertEqual(self.flying(), ["Q1"])

    def test_everything_now_and_then(self) -> None:
        """What came into the spool with a time that was searched already is found in the end."""
        self.world.turn(30.0)
        self.spool.times[self.stored("Q1")] = (self.world.clock.seconds() - 60.0, "", 0)
        self.world.turn(30.0)
        self.assertEqual(self.flying(), [])
        self.world.clock.pump([30.0] * int(EVERYTHING_EVERY / 30.0))
        self.assertEqual(self.flying(), ["Q1"])


class RoomTests(RacesCase):
    """What waits in the spool because memory is full is loaded when there is room, whoever made it."""

    def fill(self, most: int) -> Deferred[None]:
        """Memory holds so many messages, which wait for their route; one more waits in the spool."""
        self.dispatcher._stock._most = most
        self.world.router.gate = gate = Deferred()
        for number in range(most + 1):
            self.world.accept(message(f"Q{number}"))
        self.assertTrue(self.dispatcher.full)
        self.world.router.gate = None
        return gate

    def test_content_is_gone(self) -> None:
        """A message whose content cannot be had makes room."""
        gate = self.fill(1)
        self.world.contents.drop("Q0")
        del self.spool.messages["Q0"]
        gate.callback(None)
        self.world.clock.pump([1.0] * 60)
        self.assertEqual(self.flying(), ["Q1"])

    def test_deleted(self) -> None:
        """So do messages that the operator deletes."""
        gate = self.fill(2)
        for queue_id in ("Q0", "Q1"):
            del self.spool.messages[queue_id]
        self.dispatcher.deleted(["Q0", "Q1"])
        gate.callback(None)
        self.world.clock.pump([1.0] * 60)
        self.assertEqual(self.flying(), ["Q2"])


class LogTests(RacesCase):
    """The operator's line of a message that is taken up."""

    def test_recipients_of_the_whole_message(self) -> None:
        """It counts all recipients, not those of the hop that came first."""
        self.world.accept(message("Q1", "ann@example.com", "bob@example.test", "eve@example.test"))
        self.assertEqual(self.world.log.having("queue active"), [
            "qmgr: Q1: from=<from@example.com>, size=7, nrcpt=3 (queue active)"
        ])  # fmt: skip


class RevivalTests(RacesCase):
    """A site that is found alive is used again at once."""

    def test_refused_at_the_door_beside_sessions_at_rest(self) -> None:
        """Sessions at rest count where a site lets no further one in: the request goes again, and fewer are kept."""
        self.world.accept(message("Q1"))
        self.world.cache.destinations = {str(number): None for number in range(2)}  # type: ignore[misc]
        lane = self.agent.first()
        self.agent.end(lane, no_session(self.agent.held[lane], Blame.THROTTLED))
        self.assertEqual(self.flying(), ["Q1"])
        self.assertEqual((self.dispatcher.sites["example.com"].window.size, self.agent.first().keep), (2, 1))

    def test_success_of_a_lane_that_was_at_work(self) -> None:
        """What was left in the spool while the site was dead comes when a transaction under way has succeeded."""
        for number in range(2):
            self.world.accept(message(f"Q{number}"))
        self.world.turn(1.0)
        site = self.dispatcher.sites["example.com"]
        site.window.dead_until = self.world.clock.seconds() + 300.0
        self.world.accept(message("Q9"))
        self.assertNotIn("Q9", self.flying())
        lane = self.agent.first()
        self.agent.end(lane, report_of(self.agent.held[lane], finished=self.world.clock.seconds()))
        self.world.turn()
        self.assertIn("Q9", self.flying())
