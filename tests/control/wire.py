"""
A control socket without a socket: what the client sends is given to the site, and what the site answers to the client.
"""

from __future__ import annotations

import io
import socket
from collections.abc import Callable, Sequence, Set

from attrs import define, field
from twisted.internet.address import UNIXAddress
from twisted.internet.testing import StringTransport
from twisted.web.server import Site
from zope.interface import implementer

from smtpreuse.errors import SpoolError
from smtpreuse.interfaces import IQueueDesk, IServiceControl, IServiceView
from smtpreuse.model.queueview import Counters, ProcessRow, QueuePage, QueueRecipient, QueueRow, SessionRow


def row(queue_id: str, *, hop: str = "smtp:example.com", reason: str = "", attempts: int = 0) -> QueueRow:
    """A message of one recipient."""
    return QueueRow(
        queue_id=queue_id,
        state="deferred" if reason else "incoming",
        arrived=1000.5,
        size=4096,
        sender="sender@example.com",
        recipients=(
            QueueRecipient(
                address="user@example.com", delay_reason=reason, hop=hop, attempts=attempts, next_attempt=1300.0
            ),
        ),
    )


@implementer(IQueueDesk)
@define
class Desk:
    """A queue in memory; C{calls} tells what was changed. C{broken} makes every call fail."""

    rows: list[QueueRow] = field(factory=list)
    stored: dict[str, int] = field(factory=dict)
    calls: list[tuple[object, ...]] = field(factory=list)
    broken: Exception | None = None

    async def page(self, after: str, limit: int) -> QueuePage:
        self.calls.append(("page", after, limit))
        self._check()
        behind = [each for each in self.rows if each.queue_id > after]
        rows = tuple(behind[:limit])
        return QueuePage(rows=rows, after=rows[-1].queue_id if len(behind) > limit else None)

    async def show(self, queue_id: str) -> QueueRow | None:
        self._check()
        return next((each for each in self.rows if each.queue_id == queue_id), None)

    async def flush(self, site: str | None) -> int:
        self._check()
        self.calls.append(("flush", site))
        return len(self.rows)

    async def delete(
        self, queue_ids: Sequence[str] | None, skip: Callable[[], Set[str]], gone: Callable[[Sequence[str]], None]
    ) -> int:
        self._check()
        left = skip()
        self.calls.append(("delete", queue_ids, left))
        deleted = [
            each.queue_id
            for each in self.rows
            if each.queue_id not in left and (queue_ids is None or each.queue_id in queue_ids)
        ]
        self.rows = [each for each in self.rows if each.queue_id not in deleted]
        if deleted:
            gone(deleted)
        return len(deleted)

    async def counts(self) -> dict[str, int]:
        self._check()
        return self.stored

    def _check(self) -> None:
        if self.broken is not None:
            raise self.broken


@implementer(IServiceView)
@define
class View:
    """A running service."""

    taken_up: set[str] = field(factory=set)
    carried: set[str] = field(factory=set)
    rows: list[SessionRow] = field(factory=list)
    others: list[ProcessRow] = field(factory=list)
    counted: Counters = field(factory=Counters)
    ending: bool = False
    told: list[list[str]] = field(factory=list)

    def active(self) -> Set[str]:
        return self.taken_up

    def in_flight(self) -> Set[str]:
        return self.carried

    async def sessions(self) -> list[SessionRow]:
        return self.rows

    def processes(self) -> list[ProcessRow]:
        return self.others

    def counters(self) -> Counters:
        return self.counted

    def draining(self) -> bool:
        return self.ending

    def deleted(self, queue_ids: Sequence[str]) -> None:
        self.told.append(list(queue_ids))

    def flushed(self) -> None:
        self.told.append(["flushed"])


@implementer(IServiceControl)
@define
class Acts:
    """What a service is told to do; C{broken} makes a reload fail, C{waiting} is what it leaves to the next start."""

    waiting: list[str] = field(factory=list)
    broken: Exception | None = None
    reloads: int = 0
    drains: int = 0

    async def reload(self) -> list[str]:
        self.reloads += 1
        if self.broken is not None:
            raise self.broken
        return self.waiting

    def drain(self) -> float:
        self.drains += 1
        return 30.0


class _Wire(socket.socket):
    """The client's end: a socket that is never connected, whose octets go to a protocol of the site."""

    def __init__(self, site: Site) -> None:
        super().__init__(socket.AF_UNIX)
        self._transport = StringTransport(peerAddress=UNIXAddress(None), hostAddress=UNIXAddress("control"))
        self._protocol = site.buildProtocol(UNIXAddress(None))
        self._protocol.makeConnection(self._transport)

    def sendall(self, data: bytes, flags: int = 0) -> None:  # type: ignore[override]  # all that http.client sends is bytes
        self._protocol.dataReceived(data)

    def makefile(self, *arguments: object, **named: object) -> io.BytesIO:  # type: ignore[override]  # http.client reads only
        return io.BytesIO(self._transport.value())


def opener(site: Site) -> Callable[[str], socket.socket]:
    """What a L{ControlSocket<smtpreuse.cli.control.ControlSocket>} makes its connections with."""
    return lambda path: _Wire(site)


def spool_trouble() -> SpoolError:
    """What a desk raises when its disk does not work."""
    return SpoolError("disk I/O error")


