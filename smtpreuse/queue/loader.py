"""
Brings due recipients from the spool into memory: as many of each hop as can soon be used, the hops in turn.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Set
from typing import Protocol

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from smtpreuse.errors import SpoolError
from smtpreuse.interfaces import ISpool
from smtpreuse.model.message import Message
from smtpreuse.queue.hop import Hop

# Hops that are asked for at once when the spool is searched for what is due.
PAGE = 1000
RETRY_AFTER = 1.0
# Hops that wait for the spool before the search for more pauses: each costs half a kilobyte.
MOST_HUNGRY = 10_000
# Now and then all that is due is sought, however long it has been: whatever a search may have missed is found then.
EVERYTHING_EVERY = 3600.0


class _Dispatcher(Protocol):
    """What the loader needs of the dispatcher."""

    @property
    def full(self) -> bool: ...

    def hop(self, text: str) -> Hop: ...

    def room(self, hop: Hop) -> int: ...

    def held(self, hop: Hop) -> Set[int]: ...

    def take_up(self, hop: Hop, message: Message) -> None: ...

    def tidy(self) -> None: ...


class Loader:
    """Looks for what has become due, and loads it."""

    log = Logger()

    def __init__(self, spool: ISpool, clock: IReactorTime, dispatcher: _Dispatcher, most: int) -> None:
        """
        @param most: recipients that are loaded at once.
        """
        self._spool = spool
        self._clock = clock
        self._dispatcher = dispatcher
        self._most = most
        self._every = 0.0
        self._since = float("-inf")
        self._sought_all = float("-inf")
        self._hungry: deque[Hop] = deque()
        self._paused: tuple[float, float, str] | None = None
        self._late: list[Hop] = []
        self._feeding = False
        self._searching = False
        self._again = False
        self._stopped = True
        self._halted = False
        self._halting: list[Deferred[None]] = []
        self._timer: IDelayedCall | None = None
        self._retry: IDelayedCall | None = None

    def adopt(self, *, every: float, most: int) -> None:
        """Search so often, and load so many recipients at once, from the next time on."""
        self._every = every
        self._most = most

    def start(self, every: float) -> None:
        """
        Search now, and then again and again.

        @param every: seconds.
        """
        self._every = every
        self._stopped = False
        self._search()

    def stop(self) -> None:
        """Load nothing more."""
        self._stopped = True
        self._hungry.clear()
        for timer in (self._timer, self._retry):
            if timer is not None:
                timer.cancel()
        self._timer = self._retry = None

    async def halt(self) -> None:
        """Load nothing until L{resume}; this returns when nothing is being loaded any more."""
        self._halted = True
        while self._feeding:
            waiter: Deferred[None] = Deferred()
            self._halting.append(waiter)
            await waiter

    def resume(self) -> None:
        """Go on; anything may be due."""
        self._halted = False
        self.rescan()
        self.feed()

    def rescan(self) -> None:
        """Anything may be due now."""
        self._paused = None
        self._since = float("-inf")
        if self._searching:
            self._again = True
        elif not self._stopped:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            self._search()

    def want(self, hop: Hop) -> None:
        """This hop has due recipients in the spool, and room for them."""
        if not hop.hungry and not self._stopped:
            hop.hungry = True
            self._hungry.append(hop)
            self.feed()

    def want_later(self, hop: Hop) -> None:
        """What is due there could not be had: ask again in a moment."""
        hop.backlog = True
        self._late.append(hop)
        if self._retry is None and not self._stopped:
            self._retry = self._clock.callLater(RETRY_AFTER, self._late_again)

    def _late_again(self) -> None:
        self._retry = None
        late, self._late = self._late, []
        for hop in late:
            self.want(hop)

    # Searching

    def _search(self) -> None:
        self._timer = None
        self._searching = True
        Deferred.fromCoroutine(self._searched()).addErrback(
            lambda failure: self.log.failure("search for due mail failed", failure=failure)
        ).addBoth(self._searched_all)

    async def _searched(self) -> None:
        since, until, after = self._paused or (self._since, self._clock.seconds(), "")
        if until < since or until >= self._sought_all + EVERYTHING_EVERY:
            # The clock may have been set back: what became due by the new one lies before the last search.
            self._sought_all, since = until, float("-inf")
        self._paused = None
        try:
            while not self._stopped:
                if len(self._hungry) >= MOST_HUNGRY:
                    self._paused = since, until, after
                    break
                texts = await self._spool.nexthops(since, until, after, PAGE)
                for text in texts:
                    hop = self._dispatcher.hop(text)
                    hop.backlog = True
                    self.want(hop)
                if len(texts) < PAGE:
                    self._since = until
                    break
                after = texts[-1]
        except SpoolError as error:
            self.log.error("queue cannot be searched: {reason}", reason=str(error))
        self._dispatcher.tidy()

    def _searched_all(self, _: object) -> None:
        self._searching = False
        if self._stopped:
            return
        if self._again:
            self._again = False
            self._since = float("-inf")
            self._search()
        else:
            self._timer = self._clock.callLater(self._every, self._search)

    def _resume(self) -> None:
        """Those that were waited for are through."""
        if self._paused is not None and self._timer is not None and not self._hungry:
            self._timer.cancel()
            self._search()

    # Loading

    def feed(self) -> None:
        """There may be room again."""
        idle = self._stopped or self._halted or self._feeding
        if self._hungry and not idle and not self._dispatcher.full:
            self._feeding = True
            Deferred.fromCoroutine(self._fed()).addErrback(
                lambda failure: self.log.failure("loading due mail failed", failure=failure)
            ).addBoth(self._fed_all)

    async def _fed(self) -> None:
        while self._hungry and not self._stopped:
            if self._halted or self._dispatcher.full:
                return
            hop = self._hungry.popleft()
            hop.hungry = False
            room = min(self._dispatcher.room(hop), self._most)
            if room > 0:
                await self._load(hop, room)

    async def _load(self, hop: Hop, room: int) -> None:
        hop.backlog = False
        hop.loading = True
        hop.meanwhile.clear()
        try:
            messages = await self._spool.due(hop.text, room, self._clock.seconds(), self._dispatcher.held(hop))
        except SpoolError as error:
            self.log.error("due mail cannot be loaded: {reason}", reason=str(error))
            self.want_later(hop)
            return
        finally:
            hop.loading = False
        if self._stopped:
            return
        loaded = sum(len(message.recipients) for message in messages)
        known = frozenset(hop.meanwhile)
        for message in messages:
            if known.isdisjoint(each.row for each in message.recipients):
                self._dispatcher.take_up(hop, message)
            elif left := tuple(each for each in message.recipients if each.row not in known):
                self._dispatcher.take_up(hop, evolve(message, recipients=left))
        if loaded >= room:
            hop.backlog = True
            if self._dispatcher.room(hop) > 0:
                self.want(hop)

    def _fed_all(self, _: object) -> None:
        self._feeding = False
        halting, self._halting = self._halting, []
        for waiter in halting:
            waiter.callback(None)
        self.feed()
        self._resume()
