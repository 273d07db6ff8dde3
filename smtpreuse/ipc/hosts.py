"""
What an agent remembers of endpoints that failed, shared with the agents in other processes.
"""

from __future__ import annotations

from collections.abc import Sequence

from zope.interface import implementer

from smtpreuse.interfaces import IHostMemory
from smtpreuse.ipc.link import Link
from smtpreuse.ipc.verbs import HOST, HostNews
from smtpreuse.model.nexthop import Endpoint


@implementer(IHostMemory)
class SharedHosts:
    """
    A memory of its own, and the news of others.
    """

    def __init__(self, memory: IHostMemory, link: Link) -> None:
        """
        @param link: to the main process, which passes news on.
        """
        self._memory = memory
        self._link = link
        # Of these the others think that they failed.
        self._told: set[Endpoint] = set()
        link.serve(HOST, self._heard)

    def order(self, endpoints: Sequence[Endpoint]) -> list[int]:
        return self._memory.order(endpoints)

    def failed(self, endpoint: Endpoint) -> None:
        self._memory.failed(endpoint)
        self._told.add(endpoint)
        self._link.tell(HOST, HostNews(endpoint=endpoint, failed=True))

    def answered(self, endpoint: Endpoint) -> None:
        self._memory.answered(endpoint)
        if endpoint in self._told:
            self._told.remove(endpoint)
            self._link.tell(HOST, HostNews(endpoint=endpoint, failed=False))

    def _heard(self, news: HostNews) -> None:
        if news.failed:
            self._memory.failed(news.endpoint)
            self._told.add(news.endpoint)
        else:
            self._memory.answered(news.endpoint)
            self._told.discard(news.endpoint)
