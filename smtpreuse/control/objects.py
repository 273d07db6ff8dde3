"""
The objects that users' scripts rely on, made from what the queue and the service show.

Their attributes are the keys of the JSON, in this order; keys are added, never removed or renamed. Times are UNIX
seconds, ages seconds, sizes octets, absent values null. Pure, and shared by the service and the C{smtpreuse} command.
"""

from __future__ import annotations

import json
from collections.abc import Sequence, Set
from typing import TypeVar

import msgspec
from attrs import AttrsInstance, asdict, frozen

from smtpreuse.model.queueview import QueueRecipient, QueueRow, SessionRow

# What showq(8) shows for the null sender (empty_address_recipient).
NULL_SENDER = "MAILER-DAEMON"

Shown = TypeVar("Shown")


@frozen(kw_only=True)
class Recipient:
    """One recipient of a queued message."""

    address: str
    delay_reason: str | None


@frozen(kw_only=True)
class Message:
    """
    A message as C{postqueue -j} shows it, and three keys of ours.

    @ivar queue_name: C{incoming}, C{active}, C{deferred}, C{hold} or C{corrupt}.
    @ivar site: the nexthop of the recipient whose turn is next.
    @ivar next_attempt: of that recipient.
    @ivar attempts: the most that any of its recipients has had.
    """

    queue_name: str
    queue_id: str
    arrival_time: float
    message_size: int
    forced_expire: bool
    sender: str
    recipients: list[Recipient]
    site: str | None
    next_attempt: float | None
    attempts: int


@frozen(kw_only=True)
class FullMessage(Message):
    """
    @ivar headers: the header of its content, as text.
    @ivar history: what was tried before: it is in the log and not in the queue, so it is null.
    """

    headers: str | None
    history: None = None


@frozen(kw_only=True)
class Changed:
    """
    @ivar changed: how many messages.
    @ivar in_flight: how many were left alone, as a transaction may be carrying them.
    """

    changed: int
    in_flight: int


@frozen(kw_only=True)
class Reloaded:
    """
    @ivar next_start: the parameters that have changed and take effect at the next start only.
    """

    reloaded: bool = True
    next_start: list[str]


@frozen(kw_only=True)
class NotReloaded:
    """
    @ivar problems: one line for each.
    """

    reloaded: bool = False
    problems: list[str]


@frozen(kw_only=True)
class Draining:
    """
    @ivar limit: for how many seconds at most transactions may go on.
    """

    draining: bool = True
    limit: float


@frozen(kw_only=True)
class Drained:
    """
    @ivar seconds: from the request until the service was gone.
    """

    drained: bool = True
    seconds: float


@frozen(kw_only=True)
class SessionTLS:
    """What the handshake of a session showed."""

    protocol: str
    cipher: str | None
    verdict: str | None


@frozen(kw_only=True)
class Session:
    """
    While it is connecting its endpoint, host and level are not settled, and null.

    @ivar idle: for how long it rests, or null when it does not.
    @ivar tls: null where it is not encrypted.
    """

    site: str
    endpoint: str | None
    host: str | None
    state: str
    age: float
    idle: float | None
    uses: int
    level: str | None
    tls: SessionTLS | None
    process: int


@frozen(kw_only=True)
class QueueCounts:
    """Messages in each queue; each counts once."""

    incoming: int
    active: int
    deferred: int
    hold: int
    corrupt: int


@frozen(kw_only=True)
class SessionCounts:
    """Sessions in each state."""

    connecting: int
    busy: int
    resting: int


@frozen(kw_only=True)
class Role:
    """
    One process of the service.

    @ivar cpu: seconds of processor time.
    """

    name: str
    pid: int
    age: float
    sessions: int
    rss: int | None
    cpu: float


@frozen(kw_only=True)
class Resolver:
    """What the resolver can do; null where it was not tried."""

    validates: bool | None = None
    tlsa: bool | None = None
    large: bool | None = None


@frozen(kw_only=True)
class Status:
    """
    The service as a whole.

    @ivar state: C{running} or C{draining}.
    """

    version: str
    pid: int
    state: str
    queue: QueueCounts
    sessions: SessionCounts
    delivered: int
    reused: int
    deferred: int
    bounced: int
    roles: list[Role]
    resolver: Resolver


@frozen(kw_only=True)
class Refusal:
    """
    @ivar error: why not.
    """

    error: str


def written(shown: AttrsInstance) -> str:
    """An object as one line of JSON: in ASCII, so that no peer's octets reach a terminal through it."""
    return json.dumps(asdict(shown), separators=(",", ":"))


def parsed(line: str, kind: type[Shown]) -> Shown:
    """
    The object of a line; keys that are not known are passed over.

    @raise ValueError: when it is no such object.
    """
    return msgspec.convert(json.loads(line), kind)


def message(row: QueueRow, active: Set[str], ahead: float = 0.0) -> Message:
    """
    A message for a list.

    @param active: queue ids of the messages that are taken up for delivery now.
    @param ahead: seconds that the clock on the wall is ahead of the queue's.
    """
    following = min(row.recipients, key=_turn, default=None)
    return Message(
        queue_name="active" if row.queue_id in active else row.state,
        queue_id=row.queue_id,
        arrival_time=row.arrived + ahead,
        message_size=row.size,
        forced_expire=False,
        sender=row.sender or NULL_SENDER,
        recipients=[
            Recipient(address=recipient.address, delay_reason=recipient.delay_reason or None)
            for recipient in row.recipients
        ],
        site=_site(following.hop) if following else None,
        next_attempt=following.next_attempt + ahead if following and following.next_attempt is not None else None,
        attempts=max((recipient.attempts for recipient in row.recipients), default=0),
    )


def full_message(row: QueueRow, active: Set[str], ahead: float = 0.0) -> FullMessage:
    """A message with all that is known of it; the rest is as for L{message}."""
    return FullMessage(**asdict(message(row, active, ahead), recurse=False), headers=row.header)


def _turn(recipient: QueueRecipient) -> float:
    return float("inf") if recipient.next_attempt is None else recipient.next_attempt


def _site(hop: str) -> str | None:
    transport, _, nexthop = hop.partition(":")
    return nexthop or None if transport == "smtp" else None


def session(row: SessionRow, now: float) -> Session:
    """
    One session.

    @param now: UNIX time.
    """
    tls = None
    if row.protocol is not None:
        tls = SessionTLS(protocol=row.protocol, cipher=row.cipher, verdict=row.verdict)
    return Session(
        site=row.site,
        endpoint=row.endpoint or None,
        host=row.host or None,
        state=row.state,
        age=span(row.opened, now),
        idle=None if row.idle_since is None else span(row.idle_since, now),
        uses=row.uses,
        level=row.level or None,
        tls=tls,
        process=row.process,
    )


def span(since: float, now: float) -> float:
    """Seconds between two UNIX times, to the millisecond; 0 where the second one is before the first."""
    return round(max(now - since, 0.0), 3)


def queue_counts(stored: dict[str, int], active: int) -> QueueCounts:
    """
    Messages in each queue. The spool does not know which of them are active, so these are taken from incoming first: of
    two that wait, the fresh one is the likelier to be active.

    @param stored: messages in C{incoming}, C{deferred}, C{hold} and C{corrupt}, active ones among the first two.
    """
    incoming, deferred = stored.get("incoming", 0), stored.get("deferred", 0)
    active = min(active, incoming + deferred)
    fresh = min(active, incoming)
    return QueueCounts(
        incoming=incoming - fresh,
        active=active,
        deferred=deferred - (active - fresh),
        hold=stored.get("hold", 0),
        corrupt=stored.get("corrupt", 0),
    )


def session_counts(rows: Sequence[SessionRow]) -> SessionCounts:
    """Sessions in each state."""
    states = [row.state for row in rows]
    return SessionCounts(
        connecting=states.count("connecting"), busy=states.count("busy"), resting=states.count("resting")
    )
