"""
Whom a process of ours knows, and what each is to it.

Every two processes that have to do with each other have a link of their own, made by the main process; the main process
has one to each of its children.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field

from smtpreuse.ipc.bridged import Proxies
from smtpreuse.ipc.caches import CacheDesk, RemoteCache
from smtpreuse.ipc.link import Link
from smtpreuse.ipc.proxies import ProxyPool
from smtpreuse.ipc.verbs import RETIRING
from smtpreuse.roles.layout import SCACHE, TLSPROXY
from smtpreuse.tlsproxy.desk import ProxyDesk


@define(eq=False, kw_only=True)
class Neighbours:
    """
    @ivar proxies: whoever may be asked why a stream ended.
    @ivar pool: the TLS proxies that this process uses, or L{None} where it has its own.
    @ivar cache: the cache that it uses, or L{None} where it has its own.
    @ivar proxy_desk: answers those that ask about TLS state here, or L{None} where there is none.
    @ivar cache_desk: answers the users of a cache in this process.
    @ivar retiring: each is called with the id of a process that retires.
    """

    proxies: Proxies = field(factory=Proxies)
    pool: ProxyPool | None = None
    cache: RemoteCache | None = None
    proxy_desk: ProxyDesk | None = None
    cache_desk: CacheDesk | None = None
    retiring: list[Callable[[int], object]] = field(factory=list)

    def met(self, role: str, process: int, link: Link, *, holds_tls: bool) -> None:
        """There is one more."""
        link.serve(RETIRING, self._retiring)
        if holds_tls:
            self.proxies.met(process, link)
        if role == TLSPROXY and self.pool is not None:
            self.pool.met(process, link)
        if role == SCACHE and self.cache is not None:
            self.cache.met(link)
        if self.proxy_desk is not None:
            self.proxy_desk.serve(link)
        if self.cache_desk is not None:
            self.cache_desk.serve(link)

    def _retiring(self, process: int) -> None:
        if self.pool is not None:
            self.pool.retiring(process)
        for call in self.retiring:
            call(process)
