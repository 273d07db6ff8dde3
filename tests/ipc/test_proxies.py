"""
Tests of L{smtpreuse.ipc.proxies}, L{smtpreuse.ipc.bridged} and L{smtpreuse.tlsproxy.desk}: a TLS proxy behind a link.
"""

from __future__ import annotations

import os
import socket

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from smtpreuse.interfaces import ITLSProxy
from smtpreuse.ipc.bridged import Proxies
from smtpreuse.ipc.descriptor import Descriptor
from smtpreuse.ipc.link import Link, join, pair
from smtpreuse.ipc.proxies import ProxyPool
from smtpreuse.model.reuse import Via
from smtpreuse.model.tlsfacts import TLSSettings
from smtpreuse.tls.context import Contexts
from smtpreuse.tlsproxy.desk import ProxyDesk
from smtpreuse.tlsproxy.service import TLSProxyService
from tests import conformance_tlsproxy
from tests.conformance_tlsproxy import PATIENCE
from tests.tls.identities import ECDSA, identity_of


class ProxyPoolTests(conformance_tlsproxy.TLSProxyServerContract):
    """
    With one proxy, at the other end of a link, the remote body keeps the promises of the seam, and tells our own
    faults from the peer's.
    """

    def setUp(self) -> None:
        self.proxies = Proxies()
        self.pool = ProxyPool(reactor, reactor, self.proxies)
        self.desk = ProxyDesk(TLSProxyService(reactor, Contexts(identity_of(ECDSA))), 100)
        self.near, self.far = Link(reactor, "tlsproxy 1"), Link(reactor, "smtp 1")
        self.desk.serve(self.far)
        for link, end in zip((self.near, self.far), pair(), strict=True):
            join(reactor, link, end)
            self.addCleanup(self.gone, link)
        self.pool.met(os.getpid(), self.near)
        self.proxies.met(os.getpid(), self.near)

    def gone(self, link: Link) -> Deferred[None]:
        """It is over."""
        over: Deferred[None] = Deferred()
        link.when_lost(lambda: over.callback(None))
        link.end()
        return over

    def proxy(self) -> ITLSProxy:
        return self.pool

    def quiet(self) -> Descriptor:
        """A connection whose other end says nothing until the test is over."""
        ours, theirs = socket.socketpair()
        self.addCleanup(theirs.close)
        return Descriptor.of(ours)

    async def test_full(self) -> None:
        """A proxy that has as many sessions as it may refuses: a fault of our own, the peer has seen nothing."""
        self.desk.limit = 0
        result, end = await self.pool.start(self.quiet(), TLSSettings(), PATIENCE)
        self.assertEqual((result.local, end), (True, None))
        self.assertIn("as many sessions", result.error)

    async def test_retiring(self) -> None:
        """One that retires takes nothing new, and is over when it has nothing."""
        over: list[int] = []
        self.desk.retire(lambda: over.append(1))
        self.assertEqual(over, [1])
        result, _ = await self.pool.start(self.quiet(), TLSSettings(), PATIENCE)
        self.assertIn("retires", result.error)

    async def test_lost(self) -> None:
        """A proxy that is gone in the middle of a handshake is a fault of our own."""
        started = Deferred.fromCoroutine(self.pool.start(self.quiet(), TLSSettings(), PATIENCE))
        while not self.desk.sessions:
            await deferLater(reactor, 0)
        self.far.end()
        result, end = await started
        self.assertEqual((result.local, end), (True, None))

    async def test_why(self) -> None:
        """Why a stream ended is asked where its TLS is; what nobody knows is our own doing."""
        self.assertEqual(await self.proxies.why(Via(os.getpid(), 12345)), ("its TLS proxy is gone", True))
        self.assertEqual(await self.proxies.why(Via(1, 1)), ("its TLS proxy is gone", True))

