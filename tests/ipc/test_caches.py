"""
Tests of L{smtpreuse.ipc.caches} and L{smtpreuse.ipc.resting}: a connection cache behind a link.
"""

from __future__ import annotations

import socket

from attrs import evolve
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from smtpreuse.interfaces import IConnectionCache, IResting
from smtpreuse.ipc.bridged import BridgedEnd, Proxies, adopt
from smtpreuse.ipc.caches import CacheDesk, RemoteCache
from smtpreuse.ipc.descriptor import Descriptor
from smtpreuse.ipc.link import Link, join, pair
from smtpreuse.ipc.resting import CountTeller, RestingCounts
from smtpreuse.ipc.stream import StreamEnd, adopt_plaintext
from smtpreuse.ipc.verbs import FIND
from smtpreuse.model.reuse import Via
from smtpreuse.roles.interning import Interning
from smtpreuse.scache.rules import CacheRules
from smtpreuse.scache.service import ConnectionCache
from tests.conformance_cache import SITE, START, facts, key, needs
from tests.tlsproxy.peer import Receiver


class RemoteCacheTests(TestCase):
    """A session rests in another process, and comes back as it was."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(START)
        self.near, self.far = Link(reactor, "scache 1"), Link(reactor, "smtp 1")
        teller = CountTeller(reactor, self.far, lambda site: self.cache.resting(site))
        rules = CacheRules(idle_limit=15.0, limit=100, limit_per_key=20)
        self.cache = ConnectionCache(self.clock, rules, teller.changed)
        CacheDesk(self.cache, reactor, Proxies(), Interning().like).serve(self.far)
        self.remote = RemoteCache(reactor, reactor, Proxies())
        self.counts = RestingCounts()
        for link, end in zip((self.near, self.far), pair(), strict=True):
            join(reactor, link, end)
            self.addCleanup(self.gone, link)
        self.remote.met(self.near)
        self.counts.met(self.near)
        self.addCleanup(self.cache.close_all)

    def gone(self, link: Link) -> Deferred[None]:
        """It is over."""
        over: Deferred[None] = Deferred()
        link.when_lost(lambda: over.callback(None))
        link.end()
        return over

    def end(self) -> tuple[StreamEnd, socket.socket]:
        """Our end of a stream, and the server's."""
        ours, theirs = socket.socketpair()
        theirs.settimeout(20)
        self.addCleanup(theirs.close)
        return adopt_plaintext(reactor, Descriptor.of(ours)), theirs

    async def saved(self, **values: object) -> socket.socket:
        """The server's end of a session that rests now."""
        end, server = self.end()
        await self.remote.save("example.com", SITE, key(), facts(**values), end)
        return server

    async def counted(self, number: int) -> None:
        """The main process knows how many rest."""
        while self.counts.resting(None) != number:
            await deferLater(reactor, 0)

    async def test_interfaces(self) -> None:
        """Both bodies provide their seams."""
        verifyObject(IConnectionCache, self.remote)
        verifyObject(IResting, self.counts)

    async def test_found(self) -> None:
        """It is found by endpoint with what was saved, once, and leads to the same server."""
        server = await self.saved(uses=7)
        await self.counted(1)
        self.assertEqual(self.counts.resting(SITE), 1)
        found = await self.remote.find_endpoint(needs())
        assert found is not None
        self.assertEqual(found[:2], (key(), facts(uses=7)))
        receiver = Receiver(found[2])
        server.sendall(b"250 ok\r\n")
        self.assertEqual(await receiver.octets(8), b"250 ok\r\n")
        self.assertIsNone(await self.remote.find_endpoint(needs()))
        await self.counted(0)
        found[2].close()

    async def test_found_by_destination(self) -> None:
        """It is found by its destination, and not by another one."""
        await self.saved()
        self.assertIsNone(await self.remote.find_destination("example.test", [needs()]))
        self.assertIsNone(await self.remote.find_destination("", [needs()]))
        found = await self.remote.find_destination("example.com", [needs(key("192.0.2.9")), needs()])
        assert found is not None
        found[2].close()

    async def test_through_another(self) -> None:
        """A session whose TLS is elsewhere comes back as one: when that process is gone its end is our own doing."""
        ours, server = socket.socketpair()
        end = adopt(reactor, Descriptor.of(ours), Via(12345, 6), Proxies())
        await self.remote.save("example.com", SITE, key(), facts(), end)
        found = await self.remote.find_endpoint(needs())
        assert found is not None
        self.assertIsInstance(found[2], BridgedEnd)
        self.assertEqual(found[1].via, Via(12345, 6))
        receiver = Receiver(found[2])
        server.close()
        self.assertEqual(await receiver.end(), "its TLS proxy is gone")

    async def test_ended(self) -> None:
        """What its server ended is not found."""
        server = await self.saved()
        await self.counted(1)
        server.close()
        await self.counted(0)
        self.assertIsNone(await self.remote.find_endpoint(needs()))

    async def test_drop(self) -> None:
        """The queue ends sessions of a site, wherever they are."""
        first, second = await self.saved(), await self.saved()
        await self.counted(2)
        await self.counts.drop(SITE, 1)
        await self.counted(1)
        await self.remote.drop(None, 0)
        await self.counted(0)
        for server in (first, second):
            self.assertEqual(server.recv(10), b"QUIT\r\n")

    async def test_octets_at_save(self) -> None:
        """A session on which octets wait does not rest."""
        end, server = self.end()
        server.sendall(b"421 bye\r\n")
        await deferLater(reactor, 0.01)
        await self.remote.save("example.com", SITE, key(), facts(), end)
        self.assertEqual(self.cache.resting(None), 0)

    async def test_gone(self) -> None:
        """Without the cache nothing is found, and what is to rest is told QUIT."""
        await self.gone(self.near)
        self.assertIsNone(await self.remote.find_endpoint(needs()))
        server = await self.saved()
        await deferLater(reactor, 0.01)
        self.assertEqual(server.recv(10), b"QUIT\r\n")
        await self.remote.drop(None, 0)
        self.assertEqual(self.counts.resting(None), 0)

    async def test_gone_meanwhile(self) -> None:
        """A cache that dies while it is asked has found nothing."""
        self.far.serve(FIND, lambda find: None)
        asked = Deferred.fromCoroutine(self.remote.find_endpoint(needs()))
        self.far.end()
        self.assertIsNone(await asked)

    async def test_does_not_answer(self) -> None:
        """It is waited for once; then new connections are made at once, until it answers again."""
        clock = Clock()
        remote = RemoteCache(reactor, clock, Proxies())
        remote.met(self.near)
        kept: list[object] = []
        self.far.serve(FIND, kept.append)
        asked = Deferred.fromCoroutine(remote.find_endpoint(needs()))
        while not kept:
            await deferLater(reactor, 0)
        clock.advance(5.0)
        self.assertIsNone(await asked)
        self.assertIsNone(await remote.find_endpoint(needs()))
        self.assertEqual(len(kept), 1)

    async def test_shared_values(self) -> None:
        """Equal parts of sessions are one object in the cache: certificates above all."""
        await self.saved()
        await self.saved(uses=9)
        one, other = self.cache.sessions()
        self.assertIs(one.key, other.key)
        self.assertIs(one.facts.tls, other.facts.tls)
        self.assertEqual(evolve(one.facts, uses=9), other.facts)
