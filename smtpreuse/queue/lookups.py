"""
Hops whose routes are to be looked up: so many at a time, the others wait in line.

A question to a name server takes a socket of its own. After a restart thousands of hops are due at once, and all of
them asked for together would leave no descriptor for anything else. It knows nothing of routes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from smtpreuse.queue.hop import Hop

# A look-up has a handful of questions, most of them one after the other.
AT_ONCE = 100


class Lookups:
    """The line, and those who work it off."""

    log = Logger()

    def __init__(self, resolve: Callable[[Hop], Coroutine[Deferred[object], object, None]]) -> None:
        """
        @param resolve: looks up one hop's route.
        """
        self._resolve = resolve
        self._line: deque[Hop] = deque()
        self._behind: deque[Hop] = deque()
        self._working = 0

    def want(self, hop: Hop) -> None:
        """
        This hop's route is needed. Where all of its mail was tried before it waits behind the others: name servers that
        do not answer keep a place for long, and they mostly did not answer before.
        """
        tried = hop.unrouted and all(job.retry for job in hop.unrouted)
        (self._behind if tried else self._line).append(hop)
        if self._working < AT_ONCE:
            self._working += 1
            Deferred.fromCoroutine(self._work())

    async def _work(self) -> None:
        while line := self._line or self._behind:
            hop = line.popleft()
            try:
                await self._resolve(hop)
            except Exception:
                self.log.failure("routing failed: {hop}", hop=hop.text)
        self._working -= 1
