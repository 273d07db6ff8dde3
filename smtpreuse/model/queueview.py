"""
What the queue tells its operator, and what is recorded in it.
"""

from __future__ import annotations

from attrs import frozen

from smtpreuse.model.message import Message


@frozen(kw_only=True)
class Recorded:
    """
    What becomes of one recipient in the queue.

    @ivar row: of the recipient.
    @ivar hop: under which it stood.
    @ivar next_attempt: UNIX time, or L{None} when it is done and leaves the queue.
    @ivar reason: why it was deferred.
    @ivar attempts: deliveries tried so far.
    """

    queue_id: str
    row: int
    hop: str
    next_attempt: float | None = None
    reason: str = ""
    attempts: int = 0


@frozen(kw_only=True)
class Committed:
    """
    What one record changed.

    @ivar stored: the new messages, with their rows.
    @ivar removed: queue ids of messages whose last recipient is done.
    """

    stored: tuple[Message, ...]
    removed: tuple[str, ...]


@frozen(kw_only=True)
class QueueRecipient:
    """One recipient as C{queue list} shows it."""

    address: str
    delay_reason: str
    hop: str
    attempts: int
    next_attempt: float | None


@frozen(kw_only=True)
class QueueRow:
    """
    One message as C{queue list} and C{queue show} have it.

    @ivar state: C{incoming}, C{deferred}, C{hold} or C{corrupt} (what is active is known to the dispatcher).
    @ivar header: of the content, in C{queue show} only.
    """

    queue_id: str
    state: str
    arrived: float
    size: int
    sender: str
    recipients: tuple[QueueRecipient, ...]
    header: str | None = None


@frozen(kw_only=True)
class QueuePage:
    """
    @ivar after: where the next page begins, or L{None} behind the last one.
    """

    rows: tuple[QueueRow, ...]
    after: str | None


@frozen(kw_only=True)
class SessionRow:
    """
    One session as C{smtpreuse sessions} shows it.

    @ivar state: C{connecting}, C{busy} or C{resting}.
    @ivar opened: UNIX time of its connect.
    @ivar idle_since: UNIX time since when it rests, or L{None} when it does not.
    @ivar level: name of the level it was opened under.
    @ivar verdict: C{Anonymous}, C{Untrusted}, C{Trusted} or C{Verified}; L{None} without TLS.
    """

    site: str
    endpoint: str
    host: str
    state: str
    opened: float
    idle_since: float | None
    uses: int
    level: str
    protocol: str | None
    cipher: str | None
    verdict: str | None
    process: int


@frozen(kw_only=True)
class ProcessRow:
    """
    One process of the service beside the main one.

    @ivar name: its role and number, as C{ps} shows it: C{tlsproxy 1}.
    @ivar started: UNIX time.
    @ivar sessions: that it had when it was asked last.
    """

    name: str
    process: int
    started: float
    sessions: int


@frozen(kw_only=True)
class Counters:
    """
    Since the start, in recipients; C{reused} in transactions that were not the first of their session.
    """

    delivered: int = 0
    reused: int = 0
    deferred: int = 0
    bounced: int = 0
