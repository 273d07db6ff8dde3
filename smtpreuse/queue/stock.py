"""
What of the queue is in memory: which recipients of which hops, which messages, and their content while it is fresh.

Pure books. It knows neither routes nor lanes, and decides nothing but whether there is room.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set

from attrs import evolve

from smtpreuse.model.message import Message
from smtpreuse.queue.contentcache import ContentCache
from smtpreuse.queue.hop import Hop
from smtpreuse.queue.line import Job


class Stock:
    """
    @ivar contents: of messages that were not tried yet.
    """

    def __init__(self, contents: ContentCache, *, most: int, recipients: int) -> None:
        """
        @param most: messages that may be in memory.
        @param recipients: recipients of one job.
        """
        self.contents = contents
        self._most = most
        self._recipients = recipients
        self._hops: dict[str, Hop] = {}
        self._active: dict[str, int] = {}
        self._strays: set[int] = set()

    def adopt(self, *, most: int, recipients: int) -> None:
        """Hold so much from now on; what is held already stays as it is."""
        self._most = most
        self._recipients = recipients

    def stray(self) -> None:
        """All that is held now may stand under another hop in the spool."""
        self._strays = {row for hop in self._hops.values() for row in hop.rows}

    def astray(self, job: Job) -> bool:
        """Whether its recipients may stand under another hop in the spool than the one it was made under."""
        return any(each.row in self._strays for each in job.message.recipients)

    def held(self, hop: Hop) -> Set[int]:
        """The rows that are not to be loaded for this hop."""
        return hop.rows | self._strays if self._strays else hop.rows

    @property
    def full(self) -> bool:
        """Whether no further message may be held."""
        return len(self._active) >= self._most

    def active(self) -> set[str]:
        """Queue ids of what is held."""
        return set(self._active)

    def hops(self) -> list[Hop]:
        """All that have something in memory, or are known to have something in the spool."""
        return list(self._hops.values())

    def hop(self, text: str) -> Hop:
        """The books of a hop; made when there are none."""
        hop = self._hops.get(text)
        if hop is None:
            hop = self._hops[text] = Hop(text)
        return hop

    def hold(self, hop: Hop, message: Message, now: float) -> tuple[bool, list[Job]]:
        """
        Hold a message whose recipients all go to this hop.

        @return: whether it is the first of this message, and the jobs it makes.
        """
        first = message.queue_id not in self._active
        self._active[message.queue_id] = self._active.get(message.queue_id, 0) + len(message.recipients)
        rows = [each.row for each in message.recipients]
        hop.rows.update(rows)
        if hop.loading:
            hop.meanwhile.update(rows)
        hop.waiting += len(rows)
        return first, [self._job(hop, part, now) for part in self._parts(message)]

    def _parts(self, message: Message) -> Iterable[Message]:
        recipients = message.recipients
        if len(recipients) <= self._recipients:
            return (message,)
        return (
            evolve(message, recipients=recipients[start : start + self._recipients])
            for start in range(0, len(recipients), self._recipients)
        )

    def _job(self, hop: Hop, message: Message, now: float) -> Job:
        return Job(message=message, hop=hop.text, retry=any(each.attempts for each in message.recipients), since=now)

    def taken(self, job: Job) -> Hop:
        """A job waits no longer."""
        hop = self._hops[job.hop]
        hop.waiting -= len(job.message.recipients)
        return hop

    def returned(self, job: Job) -> Hop:
        """A job waits again."""
        hop = self._hops[job.hop]
        hop.waiting += len(job.message.recipients)
        return hop

    def forget(self, job: Job) -> bool:
        """A job's recipients are not held any longer; returns as L{release} does."""
        return self.release(job.message.queue_id, job.hop, [each.row for each in job.message.recipients])

    def release(self, queue_id: str, text: str, rows: Sequence[int]) -> bool:
        """
        These recipients are not held any longer.

        @return: whether there is room now where there was none.
        """
        hop = self._hops.get(text)
        if hop is not None:
            hop.rows.difference_update(rows)
        self._strays.difference_update(rows)
        left = self._active.get(queue_id, 0) - len(rows)
        if left > 0:
            self._active[queue_id] = left
            return False
        was_full = self.full
        self._active.pop(queue_id, None)
        self.contents.drop(queue_id)
        return was_full and not self.full

    def tidy(self) -> None:
        """Forget hops that have nothing to do."""
        for text in [text for text, hop in self._hops.items() if hop.idle]:
            del self._hops[text]
