"""
Sends what failed back: makes the notification of a report, and enters both in one record.

A bounce is born in the commit of the outcome it reports, so neither exists without the other.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from smtpreuse.errors import SpoolError, TableError
from smtpreuse.interfaces import IMailLog, IRouter, ISpool
from smtpreuse.model import logline
from smtpreuse.model.content import Content, MemoryContent
from smtpreuse.model.delivery import DeliveryReport
from smtpreuse.model.message import Message, Recipient
from smtpreuse.model.queueview import Recorded
from smtpreuse.queue.bounce import Notice, compose, excerpt
from smtpreuse.queue.schedule import Settled

# When what failed is tried again if, by a fault of ours, its sender could not be told; in seconds.
UNTOLD_AFTER = 3600.0

Enter = Callable[[Sequence[Recorded], Sequence[tuple[Message, Content]], Sequence[Recorded] | None], None]


class Returns:
    """Makes notifications."""

    log = Logger()

    def __init__(
        self, spool: ISpool, router: IRouter, maillog: IMailLog, new_id: Callable[[], str], reporter: str,
        wall: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        """
        @param new_id: gives a queue id.
        @param reporter: our own host name.
        @param wall: UNIX time by the clock on the wall, for people to read.
        """
        self._wall = wall
        self._spool = spool
        self._router = router
        self._maillog = maillog
        self._new_id = new_id
        self._reporter = reporter
        self._making = 0
        self._idle: list[Deferred[None]] = []

    def adopt(self, reporter: str) -> None:
        """Notify in the name of this host from now on."""
        self._reporter = reporter

    def make(
        self, message: Message, report: DeliveryReport, settled: Settled, octets: bytes | None, enter: Enter
    ) -> None:
        """
        Notify the sender of what failed, and enter it with what is recorded.

        @param octets: the message's content where it is in memory.
        """
        self._making += 1
        Deferred.fromCoroutine(self._make(message, report, settled, octets, enter)).addErrback(
            self._failed, report, settled, enter
        ).addBoth(self._made)

    async def settled(self) -> None:
        """Wait until all that is being made was entered."""
        while self._making:
            waiter: Deferred[None] = Deferred()
            self._idle.append(waiter)
            await waiter

    async def _make(
        self, message: Message, report: DeliveryReport, settled: Settled, octets: bytes | None, enter: Enter
    ) -> None:
        try:
            content = MemoryContent(octets) if octets is not None else await self._spool.content(message.queue_id)
            returned, whole = excerpt(content)
        except (SpoolError, OSError):
            returned, whole = b"", False
        queue_id = self._new_id()
        now = self._wall()
        notice = Notice(
            queue_id=queue_id, original_id=message.queue_id, sender=message.sender,
            arrived=now - (report.finished - message.arrived), now=now, reporter=self._reporter, relay=report.relay,
            body=message.body, failed=settled.failed,
        )  # fmt: skip
        bounce = compose(notice, returned, whole=whole)
        try:
            hop = self._router.hop(message.sender)
        except TableError:
            # The table will be asked again when the notice is delivered: by domain it can always wait.
            hop = f"smtp:{message.sender.rpartition('@')[2]}"
        returning = Message(
            queue_id=queue_id, arrived=report.finished, sender="", size=bounce.size, body=message.body,
            client="bounce", held=hop.startswith("hold:"), recipients=(Recipient(address=message.sender, hop=hop),),
        )  # fmt: skip
        self._maillog.write("bounce", logline.bounced(message.queue_id, queue_id))
        enter(settled.recorded, ((returning, bounce),), _untold(report, settled))

    def _failed(self, failure: object, report: DeliveryReport, settled: Settled, enter: Enter) -> None:
        self.log.failure("notification could not be made", failure=failure)  # type: ignore[arg-type]  # an errback's argument is a Failure
        enter(_untold(report, settled), (), None)

    def _made(self, _: object) -> None:
        self._making -= 1
        if not self._making:
            idle, self._idle = self._idle, []
            for waiter in idle:
                waiter.callback(None)


def _untold(report: DeliveryReport, settled: Settled) -> tuple[Recorded, ...]:
    """Where nobody was told, what failed is not done with: it stays in the queue and is tried again."""
    untold = {outcome.recipient.row: outcome for outcome in settled.failed}
    return tuple(
        evolve(
            each, next_attempt=report.finished + UNTOLD_AFTER, reason=untold[each.row].text,
            attempts=untold[each.row].recipient.attempts + 1,
        )
        if each.row in untold else each
        for each in settled.recorded
    )  # fmt: skip
