"""
TLS proxies in processes of their own, as their users see them: the far side of C{ITLSProxy}.

It knows which of them there are, and takes them in turn; it starts none.
"""

from __future__ import annotations

from itertools import count

from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from smtpreuse.errors import DescriptorError, LinkError, LinkRefused, SessionLost
from smtpreuse.interfaces import IStreamEnd, ITLSProxy
from smtpreuse.ipc.bridged import Proxies, adopt
from smtpreuse.ipc.descriptor import Descriptor
from smtpreuse.ipc.link import LIMIT, Link
from smtpreuse.ipc.stream import Adopter
from smtpreuse.ipc.verbs import NOT_STARTED, START, STARTED, Start, Started
from smtpreuse.model.reuse import Via
from smtpreuse.model.tlsfacts import TLSResult, TLSSettings

_Answer = tuple[Started, Descriptor | None]


@implementer(ITLSProxy)
class ProxyPool:
    """
    The TLS proxies that there are now.
    """

    def __init__(self, reactor: Adopter, clock: IReactorTime, proxies: Proxies) -> None:
        self._reactor = reactor
        self._clock = clock
        self._proxies = proxies
        self._links: dict[int, Link] = {}
        self._tickets = count(1)
        self._asked: dict[int, tuple[Link, Deferred[_Answer]]] = {}
        self._waiting: list[Deferred[None]] = []

    def __repr__(self) -> str:
        return f"<ProxyPool {len(self._links)} proxies, {len(self._asked)} handshakes>"

    def met(self, process: int, link: Link) -> None:
        """There is one more."""
        self._links[process] = link
        link.serve(STARTED, self._started)
        link.serve(NOT_STARTED, self._not_started)
        link.when_lost(lambda: self._lost(process, link))
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.callback(None)

    def retiring(self, process: int) -> None:
        """It takes no further session."""
        self._links.pop(process, None)

    async def start(
        self, network_end: Descriptor, settings: TLSSettings, timeout: float
    ) -> tuple[TLSResult, IStreamEnd | None]:
        """See L{ITLSProxy.start}."""
        with network_end:
            refusal = "there is no TLS proxy now"
            if not self._links:
                await self._somebody()
            # In turn: whoever was asked goes to the end.
            for process in list(self._links):
                link = self._links.pop(process, None)
                if link is None:
                    continue
                self._links[process] = link
                try:
                    offered = network_end.copy()
                except (DescriptorError, OSError) as error:
                    return TLSResult(error=f"TLS proxy cannot be given the connection: {error}", local=True), None
                ticket = next(self._tickets)
                answer: Deferred[_Answer] = Deferred()
                self._asked[ticket] = link, answer
                try:
                    await link.ask(START, Start(ticket=ticket, settings=settings, timeout=timeout), offered)
                    # It has a copy; the peer is to see the end when that one closes it.
                    network_end.close()
                    started, descriptor = await answer.addTimeout(timeout + LIMIT, self._clock)
                except LinkRefused as error:
                    refusal = str(error)
                    continue
                except LinkError as error:
                    # It may have begun: another one's octets would be mixed with its own.
                    return TLSResult(error=str(error), local=True), None
                except (TimeoutError, CancelledError):
                    return TLSResult(error=f"{link.name} does not answer", local=True), None
                finally:
                    self._asked.pop(ticket, None)
                return self._ended(process, started, descriptor)
        return TLSResult(error=refusal, local=True), None

    async def _somebody(self) -> None:
        """Wait for a proxy, as one that died has its successor in a moment; not for long."""
        waiter: Deferred[None] = Deferred()
        self._waiting.append(waiter)
        try:
            await waiter.addTimeout(LIMIT, self._clock)
        except (TimeoutError, CancelledError):
            if waiter in self._waiting:
                self._waiting.remove(waiter)

    def _ended(
        self, process: int, started: Started, descriptor: Descriptor | None
    ) -> tuple[TLSResult, IStreamEnd | None]:
        if descriptor is None:
            return started.result, None
        try:
            return started.result, adopt(self._reactor, descriptor, Via(process, started.number), self._proxies)
        except (SessionLost, OSError) as error:
            return TLSResult(error=f"plaintext cannot be had: {error}", local=True), None

    def _started(self, started: Started, descriptor: Descriptor) -> None:
        _, answer = self._asked.pop(started.ticket, (None, None))
        if answer is None:
            descriptor.close()
            raise LinkError(f"nobody waits for handshake {started.ticket}")
        answer.callback((started, descriptor))

    def _not_started(self, started: Started) -> None:
        _, answer = self._asked.pop(started.ticket, (None, None))
        if answer is not None:
            answer.callback((started, None))

    def _lost(self, process: int, link: Link) -> None:
        self._links.pop(process, None)
        for ticket, (asked, answer) in list(self._asked.items()):
            if asked is link:
                del self._asked[ticket]
                result = TLSResult(error=f"{link.name} is gone", local=True)
                answer.callback((Started(ticket=ticket, result=result), None))
