"""
Tests of L{smtpreuse.queue.loader}.
"""

from __future__ import annotations

from collections.abc import Set

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from smtpreuse.errors import SpoolError
from smtpreuse.model.content import MemoryContent
from smtpreuse.model.message import Message
from smtpreuse.queue import loader
from smtpreuse.queue.hop import Hop
from smtpreuse.queue.loader import PAGE, Loader
from tests.fakes import FakeSpool
from tests.queue.world import message


class FakeDispatcher:
    """Takes up what is loaded, and has as much room as the test says."""

    def __init__(self) -> None:
        self.hops: dict[str, Hop] = {}
        self.full = False
        self.rooms: dict[str, int] = {}
        self.taken: list[tuple[str, str]] = []
        self.tidied = 0

    def hop(self, text: str) -> Hop:
        return self.hops.setdefault(text, Hop(text))

    def room(self, hop: Hop) -> int:
        return self.rooms.get(hop.text, 10) - hop.waiting

    def held(self, hop: Hop) -> Set[int]:
        return hop.rows

    def take_up(self, hop: Hop, message: Message) -> None:
        self.taken.append((hop.text, message.queue_id))
        rows = {each.row for each in message.recipients}
        assert not rows & hop.rows, "nothing is taken up twice"
        hop.rows |= rows
        hop.meanwhile |= rows
        hop.waiting += len(rows)

    def tidy(self) -> None:
        self.tidied += 1


class LoaderTests(SynchronousTestCase):
    """What is due is found, and loaded as far as there is room."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000.0)
        self.spool = FakeSpool(self.clock.seconds)
        self.dispatcher = FakeDispatcher()
        self.loader = Loader(self.spool, self.clock, self.dispatcher, 50)

    def store(self, queue_id: str, hop: str = "smtp:example.com", recipients: int = 1) -> Message:
        """It is in the spool, due now."""
        given = message(queue_id, *(f"{number}@example.com" for number in range(recipients)), hop=hop)
        return self.successResultOf(Deferred.fromCoroutine(self.spool.append(given, MemoryContent(b""))))

    def taken(self) -> list[str]:
        """Queue ids of what was taken up since the last look."""
        names, self.dispatcher.taken = [queue_id for _, queue_id in self.dispatcher.taken], []
        return names

    def test_start(self) -> None:
        """What is due at the start is loaded, of every hop."""
        self.store("Q1")
        self.store("Q2", "smtp:example.test")
        self.loader.start(30.0)
        self.assertEqual(self.dispatcher.taken, [("smtp:example.com", "Q1"), ("smtp:example.test", "Q2")])
        self.assertEqual(self.dispatcher.tidied, 1)

    def test_every(self) -> None:
        """Then again and again; what becomes due later is found at its time."""
        stored = self.store("Q1")
        self.spool.times[stored.recipients[0].row] = (1050.0, "", 1)
        self.loader.start(30.0)
        self.clock.advance(30.0)
        self.assertEqual(self.taken(), [])
        self.clock.advance(30.0)
        self.assertEqual(self.taken(), ["Q1"])
        self.assertEqual(self.dispatcher.tidied, 3)

    def test_what_was_found_is_not_sought_again(self) -> None:
        """A search asks for what became due since the last one."""
        self.store("Q1")
        self.loader.start(30.0)
        self.taken()
        self.dispatcher.hops["smtp:example.com"].rows.clear()
        self.clock.advance(30.0)
        self.assertEqual(self.taken(), [])

    def test_rescan(self) -> None:
        """Anything may be due now: all is sought again, and the rhythm goes on."""
        self.loader.start(30.0)
        self.store("Q1")
        self.spool.times[1] = (500.0, "", 0)
        self.clock.advance(30.0)
        self.assertEqual(self.taken(), [])
        self.loader.rescan()
        self.assertEqual(self.taken(), ["Q1"])
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)

    def test_rescan_while_searching(self) -> None:
        """A search under way is followed by another."""
        gate: Deferred[None] = Deferred()
        nexthops = self.spool.nexthops

        async def slow(since: float, until: float, after: str, limit: int) -> list[str]:
            found = await nexthops(since, until, after, limit)
            if not gate.called:
                await gate
            return found

        self.spool.nexthops = slow  # type: ignore[method-assign]  # it takes its time
        self.loader.start(30.0)
        self.store("Q1")
        self.loader.rescan()
        gate.callback(None)
        self.assertEqual(self.taken(), ["Q1"])
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)

    def test_pages(self) -> None:
        """More hops than a page are all found."""
        for number in range(PAGE + 5):
            self.store(f"Q{number}", f"smtp:{number}.example.com")
        self.loader.start(30.0)
        self.assertEqual(len(set(self.taken())), PAGE + 5)

    def test_search_pauses(self) -> None:
        """While so many hops wait for room the search stands; when they are through it goes on, and misses none."""
        self.patch(loader, "PAGE", 2)
        self.patch(loader, "MOST_HUNGRY", 4)
        for number in range(9):
            self.store(f"Q{number}", f"smtp:{number}.example.com")
        self.dispatcher.full = True
        self.loader.start(30.0)
        self.clock.advance(30.0)
        self.assertEqual((len(self.dispatcher.hops), self.taken()), (4, []))
        self.dispatcher.full = False
        self.loader.feed()
        self.assertEqual(self.taken(), [f"Q{number}" for number in range(9)])
        self.clock.advance(30.0)
        self.assertEqual((self.taken(), len(self.clock.getDelayedCalls())), ([], 1))

    def test_room(self) -> None:
        """Not more than there is room for; what is left is known to be there, and comes when it is wanted."""
        for number in range(25):
            self.store(f"Q{number}")
        self.loader.start(30.0)
        self.assertEqual(self.taken(), [f"Q{number}" for number in range(10)])
        hop = self.dispatcher.hops["smtp:example.com"]
        self.assertTrue(hop.backlog)
        hop.waiting = 2
        self.loader.want(hop)
        self.assertEqual(self.taken(), [f"Q{number}" for number in range(10, 18)])
        hop.waiting = 0
        self.loader.want(hop)
        self.assertEqual(self.taken(), [f"Q{number}" for number in range(18, 25)])
        self.assertFalse(hop.backlog)

    def test_most(self) -> None:
        """Not more at a time than a request has recipients, but as often as there is room."""
        self.dispatcher.rooms["smtp:example.com"] = 120
        for number in range(110):
            self.store(f"Q{number}")
        self.loader.start(30.0)
        self.assertEqual([limit for _, limit in self.spool.asked], [50, 50, 20])
        self.assertEqual(len(self.taken()), 110)

    def test_in_turn(self) -> None:
        """Hops are loaded in turn: a large one does not keep the others waiting."""
        self.dispatcher.rooms["smtp:a.example.com"] = 1000
        for number in range(120):
            self.store(f"A{number}", "smtp:a.example.com")
        self.store("B", "smtp:b.example.com")
        self.dispatcher.full = True
        self.loader.start(30.0)
        self.dispatcher.full = False
        self.loader.feed()
        self.assertEqual(self.taken()[50], "B")

    def test_full(self) -> None:
        """Nothing is loaded while memory is full; afterwards it goes on."""
        self.store("Q1")
        self.store("Q2", "smtp:example.test")
        self.dispatcher.full = True
        self.loader.start(30.0)
        self.assertEqual(self.taken(), [])
        self.dispatcher.full = False
        self.loader.feed()
        self.assertEqual(self.taken(), ["Q1", "Q2"])

    def test_whole(self) -> None:
        """A message with more recipients than there is room for comes whole; the next one waits for room."""
        self.store("Q1", recipients=13)
        self.store("Q2")
        self.loader.start(30.0)
        hop = self.dispatcher.hops["smtp:example.com"]
        self.assertEqual((len(hop.rows), self.taken()), (13, ["Q1"]))
        hop.waiting = 0
        self.loader.want(hop)
        self.assertEqual((len(hop.rows), self.taken()), (14, ["Q2"]))

    def test_what_came_meanwhile(self) -> None:
        """What was taken up while the spool was asked is not taken up again when the spool shows it."""
        gate: Deferred[None] = Deferred()
        due = self.spool.due

        async def slow(hop: str, limit: int, until: float, skip: Set[int]) -> list[Message]:
            found = await due(hop, limit, until, frozenset(skip))
            await gate
            return found

        one, two = self.store("Q1"), self.store("Q2", recipients=2)
        self.spool.due = slow  # type: ignore[method-assign]  # it takes its time
        self.loader.start(30.0)
        hop = self.dispatcher.hops["smtp:example.com"]
        self.dispatcher.take_up(hop, one)
        self.dispatcher.take_up(hop, evolve(two, recipients=two.recipients[:1]))
        self.assertEqual(self.taken(), ["Q1", "Q2"])
        gate.callback(None)
        self.assertEqual(self.taken(), ["Q2"])
        self.assertEqual(len(hop.rows), 3)

    def test_adopt(self) -> None:
        """Other rules: how often, and how many recipients at once."""
        self.loader.start(30.0)
        self.loader.adopt(every=5.0, most=1)
        self.clock.advance(30.0)
        for name in ("Q1", "Q2"):
            self.spool.times[self.store(name).recipients[0].row] = (self.clock.seconds() + 1.0, "", 1)
        self.clock.advance(5.0)
        self.assertEqual(self.taken(), ["Q1", "Q2"])
        self.assertEqual({limit for _, limit in self.spool.asked}, {1})

    def test_halt(self) -> None:
        """Nothing is loaded while it is halted; then all that is due."""
        self.loader.start(30.0)
        self.successResultOf(Deferred.fromCoroutine(self.loader.halt()))
        self.store("Q1")
        self.loader.rescan()
        self.clock.advance(30.0)
        self.assertEqual((self.taken(), self.spool.asked), ([], []))
        self.loader.resume()
        self.assertEqual(self.taken(), ["Q1"])

    def test_halt_while_loading(self) -> None:
        """What is being loaded is waited for, and nothing behind it is begun."""
        gate: Deferred[None] = Deferred()
        due = self.spool.due

        async def slow(hop: str, limit: int, until: float, skip: Set[int]) -> list[Message]:
            await gate
            return await due(hop, limit, until, skip)

        self.store("Q1")
        self.store("Q2", "smtp:example.test")
        self.spool.due = slow  # type: ignore[method-assign]  # it takes its time
        self.loader.start(30.0)
        halted = Deferred.fromCoroutine(self.loader.halt())
        self.assertNoResult(halted)
        gate.callback(None)
        self.successResultOf(halted)
        self.assertEqual(self.taken(), ["Q1"])
        self.loader.resume()
        self.assertEqual(self.taken(), ["Q2"])

    def test_cannot_load(self) -> None:
        """A spool that fails is asked again."""
        self.store("Q1")
        self.spool.broken = "io error"
        self.loader.start(30.0)
        self.assertEqual(self.taken(), [])
        self.spool.broken = None
        self.clock.advance(1.0)
        self.assertEqual(self.taken(), ["Q1"])

    def test_cannot_search(self) -> None:
        """A search that failed is done again, for the same time."""
        nexthops = self.spool.nexthops

        async def broken(since: float, until: float, after: str, limit: int) -> list[str]:
            raise SpoolError("io error")

        self.store("Q1")
        self.spool.nexthops = broken  # type: ignore[method-assign]  # it breaks
        self.loader.start(30.0)
        self.spool.nexthops = nexthops  # type: ignore[method-assign]  # it works again
        self.clock.advance(30.0)
        self.assertEqual(self.taken(), ["Q1"])

    def test_fault(self) -> None:
        """A fault of ours does not end the search for good."""
        nexthops = self.spool.nexthops

        async def bug(since: float, until: float, after: str, limit: int) -> list[str]:
            raise RuntimeError("bug")

        self.store("Q1")
        self.spool.nexthops = bug  # type: ignore[method-assign]  # it breaks
        self.loader.start(30.0)
        self.spool.nexthops = nexthops  # type: ignore[method-assign]  # it works again
        self.clock.advance(30.0)
        self.assertEqual(self.taken(), ["Q1"])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_stop(self) -> None:
        """After the end nothing is loaded, and no timer is left."""
        self.loader.start(30.0)
        self.loader.stop()
        self.store("Q1")
        self.loader.rescan()
        self.loader.want(self.dispatcher.hop("smtp:example.com"))
        self.clock.advance(100.0)
        self.assertEqual((self.taken(), self.clock.getDelayedCalls()), ([], []))

    def test_stop_while_loading(self) -> None:
        """What comes from the spool after the end is left there."""
        gate: Deferred[list[Message]] = Deferred()

        async def slow(hop: str, limit: int, until: float, skip: Set[int]) -> list[Message]:
            return await gate

        stored = self.store("Q1")
        self.spool.due = slow  # type: ignore[method-assign]  # it takes its time
        self.loader.start(30.0)
        self.loader.stop()
        gate.callback([stored])
        self.assertEqual((self.taken(), self.clock.getDelayedCalls()), ([], []))
