"""
Answers that are good for a while: remembered until their time is over, and asked for once however many wait.

Knows nothing of what is asked; the resolver and the router use it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Coroutine, Hashable
from typing import Generic, TypeVar

from twisted.internet.defer import Deferred

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Memory(Generic[K, V]):
    """
    A bounded memory: when it is full, what was not asked for the longest goes.
    """

    def __init__(self, seconds: Callable[[], float], entries: int) -> None:
        """
        @param seconds: the UNIX time.
        @param entries: at most so many are remembered.
        """
        self._seconds = seconds
        self._most = entries
        self._entries: OrderedDict[K, tuple[V, float]] = OrderedDict()
        self._waiters: dict[K, list[Deferred[V]]] = {}
        self._works: dict[K, Deferred[None]] = {}

    def __repr__(self) -> str:
        return f"<Memory of {len(self._entries)}, {len(self._waiters)} asked for>"

    def peek(self, key: K) -> V | None:
        """What is remembered and still good, or L{None}."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        value, good_until = entry
        if good_until <= self._seconds():
            del self._entries[key]
            return None
        self._entries.move_to_end(key)
        return value

    def put(self, key: K, value: V, good_until: float) -> None:
        """Remember a value until this UNIX time."""
        self._entries[key] = (value, good_until)
        self._entries.move_to_end(key)
        while len(self._entries) > self._most:
            self._entries.popitem(last=False)

    async def recall(self, key: K, work: Callable[[], Coroutine[Deferred[object], object, tuple[V, float]]]) -> V:
        """
        What is remembered, or what the work brings. While one is at work for a key, others wait for the same; whoever
        gives up leaves the others alone.

        @param work: gives the value and the UNIX time until which it is good; what it raises goes to all who wait and
            is not remembered.
        """
        value = self.peek(key)
        if value is not None:
            return value
        waiter: Deferred[V] = Deferred()
        waiters = self._waiters.get(key)
        if waiters is not None:
            waiters.append(waiter)
            return await waiter
        self._waiters[key] = [waiter]
        working = Deferred.fromCoroutine(self._at_work(key, work))
        if not working.called:
            self._works[key] = working
        return await waiter

    async def _at_work(
        self, key: K, work: Callable[[], Coroutine[Deferred[object], object, tuple[V, float]]]
    ) -> None:
        try:
            value, good_until = await work()
        except Exception as error:  # Whatever went wrong, nobody may be left waiting.
            for waiter in self._done(key):
                waiter.errback(error)
        else:
            self.put(key, value, good_until)
            for waiter in self._done(key):
                waiter.callback(value)

    def _done(self, key: K) -> list[Deferred[V]]:
        self._works.pop(key, None)
        return self._waiters.pop(key)

    def forget(self) -> None:
        """Remember nothing any more; what is asked for goes on."""
        self._entries.clear()

    def close(self) -> None:
        """Give up what is asked for: all who wait get a C{CancelledError}."""
        for working in list(self._works.values()):
            working.cancel()
