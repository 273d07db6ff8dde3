"""
Records what became of recipients: gathers what comes in one turn, retries while the spool fails.

While it fails nothing new may begin: what was delivered and cannot be recorded would be delivered again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from attrs import define
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from smtpreuse.errors import SpoolError
from smtpreuse.interfaces import ISpool
from smtpreuse.model.content import Content
from smtpreuse.model.message import Message
from smtpreuse.model.queueview import Committed, Recorded

RETRY_AFTER = 1.0
# A record takes a few milliseconds. One that takes so long, in seconds, is as good as one that fails, for as long as it
# takes: a stalled disk says nothing.
LATE = 1.0
# So often an entry that fails by itself is tried with the notification that it brings.
PATIENCE = 5


@define(eq=False)
class _Entry:
    """
    @ivar instead: what is recorded when C{new} cannot be stored.
    """

    done: Sequence[Recorded]
    new: Sequence[tuple[Message, Content]]
    instead: Sequence[Recorded] | None
    failures: int = 0


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
        self._entries: list[_Entry] = []
        self._scheduled = False
        # When each record under way was begun; the oldest stands first.
        self._under_way: dict[int, float] = {}
        self._begun = 0
        self._idle: list[Deferred[None]] = []

    @property
    def late(self) -> bool:
        """Whether a record has been under way for too long."""
        begun = next(iter(self._under_way.values()), None)
        return begun is not None and self._clock.seconds() - begun >= LATE

    def enter(
        self, done: Sequence[Recorded], new: Sequence[tuple[Message, Content]] = (),
        instead: Sequence[Recorded] | None = None,
    ) -> None:  # fmt: skip
        """
        Record this in the next commit.

        @param instead: what is to be recorded where C{new} cannot be stored, though everything else can.
        """
        self._entries.append(_Entry(done, new, instead))
        if self.trouble is None:
            self._schedule(0.0)

    async def settled(self) -> None:
        """Wait until all that was entered is on disk."""
        while self._entries or self._under_way:
            waiter: Deferred[None] = Deferred()
            self._idle.append(waiter)
            await waiter

    def _begin(self) -> None:
        self._scheduled = False
        entries, self._entries = self._entries, []
        write = self._write(entries) if self.trouble is None else self._write_apart(entries)
        Deferred.fromCoroutine(write).addErrback(lambda failure: self.log.failure("recording failed", failure=failure))

    async def _write(self, entries: list[_Entry]) -> None:
        """All of it in one record."""
        reason = await self._record(entries)
        if reason is not None:
            self._failed(entries, reason)
        self._look_up()

    async def _write_apart(self, entries: list[_Entry]) -> None:
        """Each entry in a record of its own, so that one that cannot be stored does not keep the others."""
        left: list[_Entry] = []
        reason = ""
        for entry in entries:
            failure = await self._record([entry])
            if failure is not None:
                entry.failures += 1
                left.append(entry)
                reason = failure
        for entry in left:
            if entry.instead is not None and (len(left) < len(entries) or entry.failures >= PATIENCE):
                self.log.error("notification cannot be stored, it is put off: {reason}", reason=reason)
                entry.done, entry.new, entry.instead = entry.instead, (), None
        if left:
            self._failed(left, reason)
        self._look_up()

    async def _record(self, entries: Iterable[_Entry]) -> str | None:
        """
        @return: why it could not be recorded, or L{None}.
        """
        done = [each for entry in entries for each in entry.done]
        new = [each for entry in entries for each in entry.new]
        self._begun += 1
        number = self._begun
        self._under_way[number] = begun = self._clock.seconds()
        try:
            committed = await self._spool.record(done, new)
        except SpoolError as error:
            return str(error)
        except Exception as error:
            # Whatever it was, what was delivered must not be forgotten.
            self.log.failure("recording failed")
            return f"internal error: {error}"
        finally:
            del self._under_way[number]
        self._committed(done, new, committed)
        if self.trouble is None and self._clock.seconds() - begun >= LATE:
            self._recovered()
        return None

    def _failed(self, entries: list[_Entry], reason: str) -> None:
        self._entries = entries + self._entries
        if self.trouble is None:
            self.log.error("outcomes cannot be recorded, nothing is sent until they can: {reason}", reason=reason)
        self.trouble = reason
        self._schedule(RETRY_AFTER)

    def _look_up(self) -> None:
        """A record is over: see what follows from that."""
        if self.trouble is not None and not self._scheduled and not self._under_way:
            self.trouble = None
            self.log.info("recording works again")
            if self._entries:
                # It came while nothing was begun.
                self._schedule(0.0)
            self._recovered()
        if not (self._entries or self._under_way):
            idle, self._idle = self._idle, []
            for waiter in idle:
                waiter.callback(None)

    def _schedule(self, delay: float) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._clock.callLater(delay, self._begin)
