"""
Answers those that want TLS of this process, over their links: handshakes in, results and bridges out.

A process that retires takes no new session; those who have sessions through it are told, and it is over with the last.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from smtpreuse.errors import LinkError, SessionLost
from smtpreuse.ipc.descriptor import Descriptor
from smtpreuse.ipc.link import Link
from smtpreuse.ipc.verbs import NOT_STARTED, RETIRING, START, STARTED, WHY, Start, Started
from smtpreuse.model.tlsfacts import TLSResult
from smtpreuse.tlsproxy.service import TLSProxyService

# A handshake costs a millisecond of CPU at the client's side and three at the server's. Of so many at a time each waits
# for a tenth of a second at most, and so does whoever is relayed meanwhile.
_HANDSHAKES = 100


class ProxyDesk:
    """
    @ivar limit: sessions that this process may have.
    """

    log = Logger()

    def __init__(self, service: TLSProxyService, limit: int) -> None:
        self.limit = limit
        self._service = service
        self._links: list[Link] = []
        self._handshakes = 0
        self._retiring = False
        self._idle: Callable[[], object] | None = None

    @property
    def sessions(self) -> int:
        """How many it has, those in their handshake included."""
        return len(self._service.bridges) + self._handshakes

    def explain(self, link: Link) -> None:
        """Say over this link why bridges ended."""
        link.serve(WHY, self._service.bridges.why)

    def serve(self, link: Link) -> None:
        """Answer whoever is at the other end."""
        self.explain(link)

        def start(start: Start, network_end: Descriptor) -> None:
            if self._retiring or self.sessions >= self.limit or self._handshakes >= _HANDSHAKES:
                network_end.close()
                raise LinkError("TLS proxy retires" if self._retiring else "TLS proxy has as many sessions as it may")
            self._handshakes += 1
            Deferred.fromCoroutine(self._start(link, start, network_end)).addErrback(
                lambda failure: self.log.failure("handshake failed: for {name}", failure=failure, name=link.name)
            ).addBoth(self._done)

        link.serve(START, start)
        self._links.append(link)
        link.when_lost(lambda: self._links.remove(link))
        if self._retiring:
            link.tell(RETIRING, os.getpid())

    def retire(self, idle: Callable[[], object]) -> None:
        """
        Take nothing new.

        @param idle: called when no session is left.
        """
        self._retiring = True
        self._idle = idle
        for link in self._links:
            link.tell(RETIRING, os.getpid())
        self._service.bridges.when_empty(self._look)
        self._look()

    async def _start(self, link: Link, start: Start, network_end: Descriptor) -> None:
        result, end = await self._service.start(network_end, start.settings, start.timeout)
        if end is not None:
            try:
                descriptor = end.hand_over()
            except SessionLost as lost:
                result = TLSResult(error=str(lost), local=True)
            else:
                assert end.via is not None, "it has been handed over"
                await link.ask(STARTED, Started(ticket=start.ticket, result=result, number=end.via.number), descriptor)
                return
        link.tell(NOT_STARTED, Started(ticket=start.ticket, result=result))

    def _done(self, _: object) -> None:
        self._handshakes -= 1
        self._look()

    def _look(self) -> None:
        if self._idle is not None and not self.sessions:
            idle, self._idle = self._idle, None
            idle()
