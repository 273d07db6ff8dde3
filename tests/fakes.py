"""
Stand-ins behind the seams, which can hang and break.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set

from attrs import evolve
from twisted.internet.defer import Deferred
from zope.interface import implementer

from smtpreuse.errors import RouteError, SessionLost, SpoolError
from smtpreuse.interfaces import (
    IConnectionCache,
    IHostMemory,
    ILane,
    IMailLog,
    IRouter,
    ISpool,
    IStreamEnd,
    IStreamReceiver,
    ITLSProxy,
)
from smtpreuse.ipc.descriptor import Descriptor
from smtpreuse.model.content import Content
from smtpreuse.model.delivery import DeliveryReport, DeliveryRequest, Then, Turn
from smtpreuse.model.message import Message
from smtpreuse.model.nexthop import Candidate, Endpoint, Nexthop
from smtpreuse.model.policy import Level, Policy
from smtpreuse.model.queueview import Committed, Recorded
from smtpreuse.model.reuse import Carrier, Needs, ReuseKey, SessionFacts
from smtpreuse.model.route import Route, Site
from smtpreuse.model.tlsfacts import TLSResult, TLSSettings


@implementer(IMailLog)
class FakeLog:
    """Keeps the operator's lines, without their header."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def write(self, program: str, text: str, process: int = 0) -> None:
        self.lines.append(f"{program}: {text}")

    def having(self, words: str) -> list[str]:
        """Lines with these words in them."""
        return [line for line in self.lines if words in line]


@implementer(ISpool)
class FakeSpool:
    """
    A spool in memory.

    @ivar broken: why nothing can be stored, or L{None}.
    @ivar gate: when it is there, C{record} waits for it.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self.messages: dict[str, tuple[Message, Content]] = {}
        self.times: dict[int, tuple[float, str, int]] = {}
        self.broken: str | None = None
        self.gate: Deferred[None] | None = None
        self.records: list[list[Recorded]] = []
        self.asked: list[tuple[str, int]] = []
        self._rows = 0
        self._now = now

    def scratch(self) -> str:
        raise AssertionError("no content is large here")

    def room(self, octets: int) -> bool:
        return True

    async def append(self, message: Message, content: Content) -> Message:
        if self.broken:
            raise SpoolError(self.broken)
        recipients = []
        for recipient in message.recipients:
            self._rows += 1
            self.times[self._rows] = (self._now(), "", recipient.attempts)
            recipients.append(evolve(recipient, row=self._rows))
        stored = evolve(message, recipients=tuple(recipients))
        self.messages[message.queue_id] = (stored, content)
        return stored

    async def nexthops(self, since: float, until: float, after: str, limit: int) -> list[str]:
        found = {
            each.hop
            for message, _ in self.messages.values()
            for each in message.recipients
            if since < self.times[each.row][0] <= until and each.hop > after
        }
        return sorted(found)[:limit]

    async def due(self, hop: str, limit: int, until: float, skip: Set[int]) -> list[Message]:
        if self.broken:
            raise SpoolError(self.broken)
        self.asked.append((hop, limit))
        found = []
        for message, _ in self.messages.values():
            recipients = tuple(
                evolve(each, attempts=self.times[each.row][2])
                for each in message.recipients
                if each.hop == hop and self.times[each.row][0] <= until and each.row not in skip
            )
            if recipients and limit > 0:
                limit -= len(recipients)
                found.append(evolve(message, recipients=recipients))
        return found

    async def content(self, queue_id: str) -> Content:
        if queue_id not in self.messages:
            raise SpoolError(f"no content of {queue_id}")
        return self.messages[queue_id][1]

    async def record(self, done: Sequence[Recorded], new: Sequence[tuple[Message, Content]]) -> Committed:
        if self.gate is not None:
            await self.gate
        if self.broken:
            raise SpoolError(self.broken)
        stored = [await self.append(message, content) for message, content in new]
        self.records.append(list(done))
        removed = []
        for each in done:
            message, content = self.messages[each.queue_id]
            if each.next_attempt is not None:
                self.times[each.row] = (each.next_attempt, each.reason, each.attempts)
                continue
            left = tuple(recipient for recipient in message.recipients if recipient.row != each.row)
            self.messages[each.queue_id] = (evolve(message, recipients=left), content)
            if not left:
                del self.messages[each.queue_id]
                removed.append(each.queue_id)
        return Committed(stored=tuple(stored), removed=tuple(removed))


def candidate(host: str = "mx.example.com", address: str = "192.0.2.1", **values: object) -> Candidate:
    """A candidate, with what is asked for."""
    preference = values.get("preference", 10)
    level = values.get("level", Level.MAY)
    port = values.get("port", 25)
    assert isinstance(preference, int) and isinstance(level, Level) and isinstance(port, int)
    return Candidate(
        endpoint=Endpoint(address, port), host=host, preference=preference,
        policy=Policy(level=level, connection_reuse=bool(values.get("connection_reuse", True))),
    )  # fmt: skip


@implementer(IRouter)
class FakeRouter:
    """
    Routes every domain to its own site, at one candidate, unless told otherwise.

    @ivar routes: candidates by nexthop host.
    @ivar problems: what routing a nexthop host fails with.
    @ivar gate: when it is there, C{route} waits for it.
    """

    def __init__(self, good_until: float = 1e12) -> None:
        self.routes: dict[str, tuple[Candidate, ...]] = {}
        self.sites: dict[str, str] = {}
        self.problems: dict[str, RouteError] = {}
        self.asked: list[str] = []
        self.gate: Deferred[None] | None = None
        self._good_until = good_until

    def hop(self, recipient: str) -> str:
        return f"smtp:{recipient.rpartition('@')[2]}"

    async def route(self, nexthop: Nexthop) -> Route:
        self.asked.append(str(nexthop))
        if self.gate is not None:
            await self.gate
        if nexthop.host in self.problems:
            raise self.problems[nexthop.host]
        return Route(
            nexthop=nexthop, site=Site(name=self.sites.get(nexthop.host, nexthop.host)), good_until=self._good_until,
            candidates=self.routes.get(nexthop.host, (candidate(f"mx.{nexthop.host}"),)),
        )  # fmt: skip


@implementer(IStreamEnd)
class FakeEnd:
    """
    A stream end whose other side is the test.

    @ivar written: what was sent and not yet looked at.
    @ivar fills: whether each write fills it.
    """

    def __init__(self) -> None:
        self.full = self.fills = False
        self.written = b""
        self.closed = self.aborted = self.detached = self.paused = False
        self.receiver: IStreamReceiver | None = None
        self.descriptor: Descriptor | None = None

    def attach(self, receiver: IStreamReceiver) -> None:
        self.receiver = receiver

    def write(self, data: bytes) -> None:
        self.written += data
        self.full = self.full or self.fills

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.aborted = True

    def detach(self) -> Descriptor:
        if self.descriptor is None:
            raise SessionLost("nothing to give away")
        self.detached = True
        return self.descriptor

    def taken(self) -> bytes:
        """What was sent since the last look."""
        written, self.written = self.written, b""
        return written

    def drain(self) -> None:
        """There is room again."""
        assert self.receiver is not None, "nobody listens"
        self.full = False
        self.via = None
        self.receiver.drained()

    def say(self, *lines: str) -> None:
        """The server replies."""
        assert self.receiver is not None, "nobody listens"
        self.receiver.received("".join(f"{line}\r\n" for line in lines).encode())

    def hang_up(self, reason: str = "Connection was closed cleanly.") -> None:
        """The server closes."""
        assert self.receiver is not None, "nobody listens"
        self.receiver.ended(reason)


@implementer(ITLSProxy)
class FakeProxy:
    """
    A proxy that answers at once: with the next of C{results}, and an end that the test plays where there is no error.
    """

    def __init__(self, *results: TLSResult) -> None:
        self.results = list(results)
        self.started: list[tuple[TLSSettings, float]] = []
        self.ends: list[FakeEnd] = []

    async def start(
        self, network_end: Descriptor, settings: TLSSettings, timeout: float
    ) -> tuple[TLSResult, IStreamEnd | None]:
        network_end.close()
        self.started.append((settings, timeout))
        result = self.results.pop(0)
        if result.error:
            return result, None
        end = FakeEnd()
        self.ends.append(end)
        return result, end


Rested = tuple[ReuseKey, SessionFacts, IStreamEnd]


@implementer(IConnectionCache)
class FakeCache:
    """
    A cache that gives what the test put in, whatever is needed.

    @ivar destinations: sessions by destination.
    @ivar endpoints: sessions by endpoint.
    @ivar asked: each look-up, C{destination} or endpoint.
    @ivar saved: destination and session, as they were saved.
    @ivar dropped: what C{drop} was told.
    @ivar broken: whether C{save} fails with a fault of ours.
    """

    def __init__(self) -> None:
        self.destinations: dict[str, Rested] = {}
        self.endpoints: dict[Endpoint, Rested] = {}
        self.asked: list[str] = []
        self.needs: list[Needs] = []
        self.saved: list[tuple[str, Rested]] = []
        self.dropped: list[tuple[str, int]] = []
        self.broken = False

    async def save(self, destination: str, site: Site, key: ReuseKey, facts: SessionFacts, end: IStreamEnd) -> None:
        if self.broken:
            raise RuntimeError("the cache is broken")
        self.saved.append((destination, (key, facts, end)))

    async def find_destination(self, destination: str, needs: Sequence[Needs]) -> Rested | None:
        self.asked.append(destination)
        self.needs += needs
        return self.destinations.pop(destination, None)

    async def find_endpoint(self, needs: Needs) -> Rested | None:
        self.asked.append(str(needs.key.endpoint))
        return self.endpoints.pop(needs.key.endpoint, None)

    async def drop(self, site: Site | None, keep: int) -> None:
        self.dropped.append((site.name if site is not None else "", keep))

    def resting(self, site: Site | None) -> int:
        return len(self.destinations) + len(self.endpoints)


@implementer(IHostMemory)
class FakeHosts:
    """
    @ivar bad: endpoints that go last.
    """

    def __init__(self) -> None:
        self.bad: list[Endpoint] = []
        self.said: list[tuple[str, Endpoint]] = []

    def order(self, endpoints: Sequence[Endpoint]) -> list[int]:
        return sorted(range(len(endpoints)), key=lambda index: endpoints[index] in self.bad)

    def failed(self, endpoint: Endpoint) -> None:
        self.said.append(("failed", endpoint))

    def answered(self, endpoint: Endpoint) -> None:
        self.said.append(("answered", endpoint))


@implementer(ILane)
class FakeLane:
    """
    A lane that gives requests in turn, then C{last}; C{None} among the requests waits until C{go} is called.

    @ivar followers: requests that it gives to share a flight.
    @ivar shown: the carriers that it was asked with.
    @ivar sent: tickets of the requests whose final dot left.
    """

    def __init__(self, *requests: DeliveryRequest | Turn | None, then: Then = Then.QUIT) -> None:
        self.site = Site(name="example.com")
        self.keep = 3
        self.held = False
        self.queue = list(requests)
        self.followers: list[DeliveryRequest] = []
        self.then = then
        self.shown: list[Carrier | None] = []
        self.reports: list[DeliveryReport] = []
        self.sent: list[int] = []
        self.ended: list[str] = []
        self.broken = False
        self._waiter: Deferred[None] | None = None

    async def next(self, carrier: Carrier | None, most: int) -> Turn:
        self.shown.append(carrier)
        if self.broken:
            raise RuntimeError("the queue is broken")
        if self.queue and self.queue[0] is None:
            self.queue.pop(0)
            self._waiter = Deferred()
            await self._waiter
        if not self.queue:
            return Turn(then=self.then)
        given = self.queue.pop(0)
        if isinstance(given, Turn):
            return given
        assert given is not None, "one wait at a time"
        return Turn(requests=(given,))

    async def follow(self, carrier: Carrier) -> DeliveryRequest | None:
        if not self.followers:
            return None
        self.shown.append(carrier)
        return self.followers.pop(0)

    def go(self) -> None:
        """The wait is over."""
        assert self._waiter is not None, "nobody waits"
        self._waiter.callback(None)

    def dotted(self, ticket: int) -> None:
        self.sent.append(ticket)

    def report(self, report: DeliveryReport) -> None:
        self.reports.append(report)

    def over(self, reason: str) -> None:
        self.ended.append(reason)
