"""
Records what became of recipients: gathers what comes in one turn, retries while the spool fails.

While it fails nothing new may begin: what was delivered and cannot be recorded would be delivered again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from smtpreuse.errors import SpoolError
from smtpreuse.interfaces import ISpool
from smtpreuse.model.content import Content
from smtpreuse.model.message import Message
from smtpreuse.model.queueview import Committed, Recorded

RETRY_AFTER = 1.0


class Ledger:
    """
    @ivar trouble: why nothing can be recorded now, or L{None}.
    """

    log = Logger()

    def __init__(
        self,
        spool: ISpool,
        clock: IReactorTime,
        committed: Callable[[Sequence[Recorded], Sequence[tuple[Message, Content]], Committed], None],
        recovered: Callable[[], None],
    ) -> None:
        """
        @param committed: called with what was recorded, when it is on disk.
        @param recovered: called when recording works again.
        """
        self.trouble: str | None = None
        self._spool = spool
        self._clock = clock
        self._committed = committed
        self._recovered = recovered
        self._done: list[Recorded] = []
        self._new: list[tuple[Message, Content]] = []
        self._scheduled = False
        self._writing = 0
        self._idle: list[Deferred[None]] = []

    def enter(self, done: Sequence[Recorded], new: Sequence[tuple[Message, Content]] = ()) -> None:
        """Record this in the next commit."""
        self._done += done
        self._new += new
        if self.trouble is None:
            self._schedule(0.0)

    async def settled(self) -> None:
        """Wait until all that was entered is on disk."""
        while self._done or self._new or self._writing:
            waiter: Deferred[None] = Deferred()
            self._idle.append(waiter)
            await waiter

    def _begin(self) -> None:
        self._scheduled = False
        done, self._done = self._done, []
        new, self._new = self._new, []
        self._writing += 1
        Deferred.fromCoroutine(self._write(done, new)).addErrback(
            lambda failure: self.log.failure("recording failed", failure=failure)
        )

    async def _write(self, done: list[Recorded], new: list[tuple[Message, Content]]) -> None:
        try:
            committed = await self._spool.record(done, new)
        except SpoolError as error:
            self._failed(done, new, str(error))
            return
        except Exception as error:
            # Whatever it was, what was delivered must not be forgotten.
            self.log.failure("recording failed")
            self._failed(done, new, f"internal error: {error}")
            return
        self._writing -= 1
        recovered = self.trouble is not None and not self._writing
        if recovered:
            self.log.info("recording works again")
            self.trouble = None
        self._committed(done, new, committed)
        if recovered:
            if self._done or self._new:
                # It came while nothing was begun.
                self._schedule(0.0)
            self._recovered()
        if not (self._done or self._new or self._writing):
            idle, self._idle = self._idle, []
            for waiter in idle:
                waiter.callback(None)

    def _failed(self, done: list[Recorded], new: list[tuple[Message, Content]], reason: str) -> None:
        self._writing -= 1
        self._done = done + self._done
        self._new = new + self._new
        if self.trouble is None:
            self.log.error("outcomes cannot be recorded, nothing is sent until they can: {reason}", reason=reason)
        self.trouble = reason
        self._schedule(RETRY_AFTER)

    def _schedule(self, delay: float) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._clock.callLater(delay, self._begin)
