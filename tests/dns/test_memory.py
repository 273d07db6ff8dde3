"""
Tests of L{smtpreuse.dns.memory}.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from smtpreuse.dns.memory import Memory

Work = Callable[[], Coroutine[Deferred[object], object, tuple[str, float]]]


class MemoryTests(SynchronousTestCase):
    """A value is kept until its time, asked for once at a time, and never more are kept than allowed."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.memory: Memory[str, str] = Memory(self.clock.seconds, 2)
        self.calls = 0
        self.gate: Deferred[None] = Deferred()

    def work(self, value: str, until: float, wait: bool = False) -> Work:
        """Work that gives this value, when the gate opens."""

        async def done() -> tuple[str, float]:
            self.calls += 1
            if wait:
                await self.gate
            return value, until

        return done

    def recall(self, key: str, work: Work) -> Deferred[str]:
        """Ask the memory."""
        return Deferred.fromCoroutine(self.memory.recall(key, work))

    def test_remembered(self) -> None:
        """Until its time the value is given without work; at its time it is not."""
        self.assertEqual(self.successResultOf(self.recall("a", self.work("1", 10.0))), "1")
        self.clock.advance(9.9)
        self.assertEqual(self.successResultOf(self.recall("a", self.work("2", 20.0))), "1")
        self.clock.advance(0.1)
        self.assertEqual(self.successResultOf(self.recall("a", self.work("2", 20.0))), "2")
        self.assertEqual(self.calls, 2)

    def test_least_recent_goes(self) -> None:
        """When it is full, what was not asked for the longest goes."""
        self.memory.put("a", "1", 10.0)
        self.memory.put("b", "2", 10.0)
        self.memory.peek("a")
        self.memory.put("c", "3", 10.0)
        self.assertEqual([self.memory.peek(key) for key in "abc"], ["1", None, "3"])

    def test_replaced(self) -> None:
        """What is put again counts as new."""
        self.memory.put("a", "1", 10.0)
        self.memory.put("b", "2", 10.0)
        self.memory.put("a", "4", 10.0)
        self.memory.put("c", "3", 10.0)
        self.assertEqual([self.memory.peek(key) for key in "abc"], ["4", None, "3"])

    def test_in_flight_once(self) -> None:
        """Who asks while one is at work gets the same value, without work of his own."""
        first = self.recall("a", self.work("1", 10.0, wait=True))
        second = self.recall("a", self.work("2", 10.0, wait=True))
        other = self.recall("b", self.work("3", 10.0))
        self.assertEqual(self.successResultOf(other), "3")
        self.assertIn("1 asked for", repr(self.memory))
        self.gate.callback(None)
        self.assertEqual([self.successResultOf(first), self.successResultOf(second)], ["1", "1"])
        self.assertEqual(self.calls, 2)

    def test_cancelled_alone(self) -> None:
        """Who gives up, the first one too, takes nothing from the others."""
        first = self.recall("a", self.work("1", 10.0, wait=True))
        second = self.recall("a", self.work("2", 10.0))
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.assertNoResult(second)
        self.gate.callback(None)
        self.assertEqual(self.successResultOf(second), "1")

    def test_failure(self) -> None:
        """A failure goes to all who wait, and is not remembered."""

        async def failing() -> tuple[str, float]:
            await self.gate
            raise ValueError("no")

        first, second = self.recall("a", failing), self.recall("a", failing)
        self.gate.callback(None)
        self.failureResultOf(first, ValueError)
        self.failureResultOf(second, ValueError)
        self.assertEqual(self.successResultOf(self.recall("a", self.work("1", 10.0))), "1")

    def test_close(self) -> None:
        """Closing ends every wait; the memory can be used afterwards."""
        waiting = self.recall("a", self.work("1", 10.0, wait=True))
        self.memory.close()
        self.failureResultOf(waiting, CancelledError)
        self.assertEqual(self.successResultOf(self.recall("a", self.work("2", 10.0))), "2")

    def test_forget(self) -> None:
        """After forgetting, work is done anew."""
        self.memory.put("a", "1", 10.0)
        self.memory.forget()
        self.assertIsNone(self.memory.peek("a"))
