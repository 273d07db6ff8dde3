"""
Tests of L{smtpreuse.tlsproxy.handshake}.
"""

from __future__ import annotations

import socket
import threading

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock, deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from smtpreuse.model.tlsfacts import TLSSettings
from smtpreuse.tls.context import Contexts
from smtpreuse.tlsproxy.service import TLSProxyService
from tests.tlsproxy.peer import PATIENCE, Clocked, Peer, Receiver, reset, server_context, tls_peer


class HandshakeTests(TestCase):
    """
    A handshake ends in its time, leaves nothing behind, and its failure says why.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.reactor = Clocked(reactor, self.clock)
        self.proxy = TLSProxyService(self.reactor, Contexts())

    async def test_limit(self) -> None:
        """The limit is the time that was given, and is gone after a success."""
        silent = threading.Event()
        d = Deferred.fromCoroutine(
            self.proxy.start(Peer(self, lambda connected: silent.wait(PATIENCE)).connect(), TLSSettings(), 30.0)
        )
        self.clock.advance(29.9)
        self.assertNoResult(d)
        self.clock.advance(0.2)
        result, end = self.successResultOf(d)
        self.assertEqual(result.error, "handshake timed out after 30 seconds")
        self.assertIsNone(end)
        silent.set()
        _, end = await self.proxy.start(tls_peer(self, lambda sock: None).connect(), TLSSettings(), 30.0)
        await Receiver(end).end()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    async def test_given_up(self) -> None:
        """When the caller gives up, the connection is closed and no timer stays."""
        seen: list[bytes] = []

        def serve(connected: socket.socket) -> None:
            while data := connected.recv(4096):
                seen.append(data)

        peer = Peer(self, serve)
        d = Deferred.fromCoroutine(self.proxy.start(peer.connect(), TLSSettings(), 30.0))
        d.cancel()
        self.failureResultOf(d, CancelledError)
        while peer.alive():
            await deferLater(reactor, 0)
        self.assertEqual(b"".join(seen)[:1], b"\x16")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    async def test_reset(self) -> None:
        """A reset is told from an end."""

        def serve(connected: socket.socket) -> None:
            connected.recv(1)
            reset(connected)

        result, end = await self.proxy.start(Peer(self, serve).connect(), TLSSettings(), 30.0)
        self.assertIsNone(end)
        self.assertIn("lost connection", result.error)
        self.assertIn("during the handshake", result.error)
        self.assertFalse(result.local)

    async def test_gone_before(self) -> None:
        """A peer that is gone before the handshake begins is no fault of our own."""

        def serve(connected: socket.socket) -> None:
            there.wait(PATIENCE)
            reset(connected)

        there = threading.Event()
        peer = Peer(self, serve)
        descriptor = peer.connect()
        there.set()
        peer.finish()
        result, end = await self.proxy.start(descriptor, TLSSettings(), 30.0)
        self.assertIsNone(end)
        self.assertIn("lost connection", result.error)
        self.assertFalse(result.local)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    async def test_slow_peer(self) -> None:
        """A handshake that comes octet by octet goes through."""

        def serve(connected: socket.socket) -> None:
            near, far = socket.socketpair()
            near.settimeout(PATIENCE)
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            inner = threading.Thread(target=self.answer, args=(far,))
            inner.start()
            upward = threading.Thread(target=self.pass_on, args=(connected, near))
            upward.start()
            while data := near.recv(4096):
                for index in range(len(data)):
                    connected.sendall(data[index : index + 1])
            connected.shutdown(socket.SHUT_RDWR)
            inner.join(PATIENCE)
            upward.join(PATIENCE)
            near.close()

        result, end = await self.proxy.start(Peer(self, serve).connect(), TLSSettings(), 30.0)
        self.assertEqual(result.error, "")
        receiver = Receiver(end)
        await receiver.end()
        self.assertEqual(receiver.data, b"220 slow\r\n")

    def answer(self, far: socket.socket) -> None:
        far.settimeout(PATIENCE)
        with server_context().wrap_socket(far, server_side=True) as wrapped:
            wrapped.sendall(b"220 slow\r\n")

    def pass_on(self, connected: socket.socket, near: socket.socket) -> None:
        try:
            while data := connected.recv(4096):
                near.sendall(data)
        except OSError:
            pass

    async def test_reactor_gives_up(self) -> None:
        """When the reactor takes the connection for lost, the handshake has failed."""
        silent = threading.Event()
        d = Deferred.fromCoroutine(
            self.proxy.start(Peer(self, lambda connected: silent.wait(PATIENCE)).connect(), TLSSettings(), 30.0)
        )
        for reader in reactor.getReaders():
            if hasattr(reader, "_wire"):
                reader.connectionLost(Failure(ConnectionLost()))
        result, _ = self.successResultOf(d)
        self.assertEqual(result.error, "lost connection during the handshake")
        silent.set()
