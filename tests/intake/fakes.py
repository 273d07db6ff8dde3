"""
What intake works with, in tests.
"""

from __future__ import annotations

import os
from collections.abc import Sequence, Set

from twisted.internet.defer import Deferred
from zope.interface import implementer

from smtpreuse.errors import TableError
from smtpreuse.interfaces import IMailLog, IRouter, ISpool, IStreamEnd, ITLSProxy
from smtpreuse.ipc.descriptor import Descriptor
from smtpreuse.model.content import Content, FileContent, MemoryContent
from smtpreuse.model.message import Message
from smtpreuse.model.nexthop import Nexthop
from smtpreuse.model.queueview import Committed, Recorded
from smtpreuse.model.route import Route
from smtpreuse.model.tlsfacts import TLSResult, TLSRole, TLSSettings
from tests.fakes import FakeEnd


@implementer(ISpool)
class FakeSpool:
    """
    Keeps what is appended.

    @ivar slow: whether an append waits for L{finish}.
    @ivar error: what an append raises.
    @ivar free: octets that there is room for; what is in scratch files counts.
    @ivar asked: for how much room, in turn.
    """

    def __init__(self, directory: str = "") -> None:
        self.directory = directory
        self.slow = False
        self.error: Exception | None = None
        self.free = float("inf")
        self.asked: list[int] = []
        self.kept: list[tuple[Message, bytes]] = []
        self.scratches: list[str] = []
        self._waiting: list[Deferred[None]] = []

    def scratch(self) -> str:
        self.scratches.append(f"{self.directory}/{len(self.scratches)}")
        return self.scratches[-1]

    def room(self, octets: int) -> bool:
        self.asked.append(octets)
        used = sum(os.path.getsize(path) for path in self.scratches if os.path.exists(path))
        return octets <= self.free - used

    async def append(self, message: Message, content: Content) -> Message:
        if self.slow:
            waiting: Deferred[None] = Deferred()
            self._waiting.append(waiting)
            await waiting
        if self.error is not None:
            raise self.error
        assert message.size == content.size, "the size of a message is that of its content"
        self.kept.append((message, octets_of(content)))
        return message

    def finish(self) -> None:
        """The oldest append that waits goes on."""
        self._waiting.pop(0).callback(None)

    async def nexthops(self, since: float, until: float, after: str, limit: int) -> list[str]:
        raise NotImplementedError

    async def due(self, hop: str, limit: int, until: float, skip: Set[int]) -> list[Message]:
        raise NotImplementedError

    async def content(self, queue_id: str) -> Content:
        raise NotImplementedError

    async def record(self, done: Sequence[Recorded], new: Sequence[tuple[Message, Content]]) -> Committed:
        raise NotImplementedError


def octets_of(content: Content) -> bytes:
    """The content itself."""
    if isinstance(content, MemoryContent):
        return content.octets
    assert isinstance(content, FileContent)
    with open(content.path, "rb") as file:
        return file.read()


@implementer(IRouter)
class FakeRouter:
    """
    Sends everything to its domain, but what it was told of.

    @ivar hops: by address; a TableError stands for a table that cannot be asked.
    """

    def __init__(self) -> None:
        self.hops: dict[str, str | TableError] = {}

    def hop(self, recipient: str) -> str:
        hop = self.hops.get(recipient, f"smtp:{recipient.rpartition('@')[2]}")
        if isinstance(hop, TableError):
            raise hop
        return hop

    async def route(self, nexthop: Nexthop) -> Route:
        raise NotImplementedError


@implementer(ITLSProxy)
class SlowProxy:
    """
    A proxy whose handshakes end when the test says so.

    @ivar network_ends: as they were given to it; they stay open.
    """

    def __init__(self) -> None:
        self.network_ends: list[Descriptor] = []
        self.ends: list[FakeEnd] = []
        self.timeouts: list[float] = []
        self._waiting: Deferred[TLSResult] = Deferred()

    async def start(
        self, network_end: Descriptor, settings: TLSSettings, timeout: float
    ) -> tuple[TLSResult, IStreamEnd | None]:
        assert settings.role is TLSRole.SERVER, "intake is a server"
        self.network_ends.append(network_end)
        self.timeouts.append(timeout)
        self._waiting = Deferred()
        result = await self._waiting
        network_end.close()
        if result.error:
            return result, None
        self.ends.append(FakeEnd())
        return result, self.ends[-1]

    def finish(self, result: TLSResult) -> None:
        """The handshake is over."""
        self._waiting.callback(result)

    def fail(self, error: Exception) -> None:
        """The proxy breaks."""
        self._waiting.errback(error)


@implementer(IMailLog)
class FakeMailLog:
    """
    Keeps lines.
    """

    def __init__(self) -> None:
        self.lines: list[str] = []

    def write(self, program: str, text: str, process: int = 0) -> None:
        self.lines.append(f"{program}: {text}")
