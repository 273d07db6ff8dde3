"""
Tests of L{smtpreuse.tlsproxy.relay}.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import select
import socket
import ssl
import threading

from twisted.internet import reactor
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import TestCase

from smtpreuse.errors import SessionLost
from smtpreuse.interfaces import IStreamEnd
from smtpreuse.ipc.stream import adopt_plaintext
from smtpreuse.model.tlsfacts import TLSSettings
from smtpreuse.tls.context import Contexts
from smtpreuse.tlsproxy.service import TLSProxyService
from tests.tlsproxy.peer import PATIENCE, Clocked, Peer, Receiver, read_exactly, reset, server_context, tls_peer

_LARGE = 10 * 1024 * 1024


class RelayTests(TestCase):
    """
    A bridge loses nothing, holds little, and ends when either side does.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.proxy = TLSProxyService(Clocked(reactor, self.clock), Contexts())

    async def turns(self, number: int) -> None:
        """Let the reactor turn."""
        for _ in range(number):
            await deferLater(reactor, 0)

    async def bridged(self, peer: Peer) -> socket.socket:
        """A session, detached: the other process's end."""
        result, end = await self.proxy.start(peer.connect(), TLSSettings(), PATIENCE)
        self.assertEqual(result.error, "")
        descriptor = end.detach()
        sock = socket.socket(descriptor.family, socket.SOCK_STREAM, fileno=descriptor.take())
        sock.setblocking(False)
        self.addCleanup(sock.close)
        return sock

    async def taken_up(self, peer: Peer) -> tuple[IStreamEnd, Receiver]:
        """A session, detached and taken up by another agent."""
        _, end = await self.proxy.start(peer.connect(), TLSSettings(), PATIENCE)
        other = adopt_plaintext(reactor, end.detach())
        return other, Receiver(other)

    async def test_large_both_ways(self) -> None:
        """10 MiB in each direction at the same time arrive as they were sent."""
        there, back = os.urandom(_LARGE), os.urandom(_LARGE)
        seen: list[bytes] = []

        def talk(sock: ssl.SSLSocket) -> None:
            seen.append(read_exactly(sock, len(there)))
            sock.sendall(back)
            seen.append(sock.recv(1))

        peer = tls_peer(self, talk)
        end, receiver = await self.taken_up(peer)
        for start in range(0, len(there), 100_000):
            end.write(there[start : start + 100_000])
            if end.full:
                await receiver.room()
        await receiver.octets(len(back))
        end.close()
        await receiver.end()
        while peer.alive():
            await self.turns(1)
        peer.finish()
        self.assertEqual(hashlib.sha256(seen[0]).digest(), hashlib.sha256(there).digest())
        self.assertEqual(hashlib.sha256(receiver.data).digest(), hashlib.sha256(back).digest())
        self.assertEqual(seen[1], b"", "the end of the other process is the end of the session")
        await self.quiet()

    async def quiet(self) -> None:
        """No timer is left behind."""
        while self.clock.getDelayedCalls():
            await self.turns(1)

    async def test_full_duplex(self) -> None:
        """Neither direction waits for the other."""
        total = 3_000_000

        def talk(sock: ssl.SSLSocket) -> None:
            # One thread: OpenSSL does not let two use one connection at a time.
            sock.setblocking(False)
            data, sent, read = b"b" * total, 0, bytearray()
            while sent < total or len(read) < total:
                with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLWantWriteError):
                    sent += sock.send(data[sent : sent + 65536]) if sent < total else 0
                with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLWantWriteError):
                    read += sock.recv(65536)
                select.select([sock], [sock] if sent < total else [], [], 0.1)
            self.assertEqual(read, b"a" * total)
            sock.settimeout(PATIENCE)

        end, receiver = await self.taken_up(tls_peer(self, talk))
        end.write(b"a" * total)
        await receiver.octets(total)
        await receiver.end()
        await self.quiet()

    async def test_stalled_peer(self) -> None:
        """When the peer does not read, the other process is not read either: what is held does not grow."""
        release = threading.Event()

        def talk(sock: ssl.SSLSocket) -> None:
            release.wait(PATIENCE)
            while sock.recv(65536):
                pass

        peer = tls_peer(self, talk)
        sock = await self.bridged(peer)
        taken, idle = 0, 0
        while idle < 50:
            try:
                taken += sock.send(b"x" * 65536)
                idle = 0
            except BlockingIOError:
                idle += 1
                await self.turns(1)
        # What the kernel holds for three sockets, and little more; see L{bounded}.
        self.assertLess(taken, 16_000_000)
        release.set()
        while idle:
            try:
                sock.send(b"y")
                idle = 0
            except BlockingIOError:
                await self.turns(1)
        sock.close()
        while peer.alive():
            await self.turns(1)
        await self.quiet()

    async def test_stalled_process(self) -> None:
        """When the other process does not read, the peer is not read either; nothing is missing when it reads again."""
        sent: list[int] = []
        finished = threading.Event()

        def talk(sock: ssl.SSLSocket) -> None:
            for _ in range(600):
                sock.sendall(b"z" * 65536)
                sent.append(65536)
            finished.set()

        sock = await self.bridged(tls_peer(self, talk))
        before = -1
        while before != len(sent) or not sent:
            before = len(sent)
            await deferLater(reactor, 0.05)
        self.assertFalse(finished.is_set())
        self.assertLess(sum(sent), 16_000_000)
        got, ended = 0, False
        while not ended:
            try:
                data = sock.recv(1_000_000)
                got += len(data)
                ended = not data
            except BlockingIOError:
                await self.turns(1)
        self.assertEqual(got, 600 * 65536)
        await self.quiet()

    async def test_last_words_of_peer(self) -> None:
        """A reply that comes with the end of the connection reaches the other process, then the end does."""

        def talk(sock: ssl.SSLSocket) -> None:
            sock.sendall(b"221 " + read_exactly(sock, 3))
            sock.unwrap()

        end, receiver = await self.taken_up(tls_peer(self, talk))
        end.write(b"bye")
        await receiver.end()
        self.assertEqual(receiver.data, b"221 bye")
        await self.quiet()

    async def test_last_words_of_process(self) -> None:
        """What the other process wrote before it closed reaches the peer, with a proper end."""
        seen: list[bytes] = []

        def talk(sock: ssl.SSLSocket) -> None:
            seen.append(read_exactly(sock, 6))
            # Raises where close_notify is missing.
            seen.append(sock.recv(1))

        peer = tls_peer(self, talk)
        sock = await self.bridged(peer)
        sock.send(b"QUIT\r\n")
        sock.close()
        while peer.alive():
            await self.turns(1)
        peer.finish()
        self.assertEqual(seen, [b"QUIT\r\n", b""])
        await self.quiet()

    async def test_reset_by_peer(self) -> None:
        """A reset of the network ends the other process's stream."""

        def serve(connected: socket.socket) -> None:
            wrapped = server_context().wrap_socket(connected, server_side=True)
            read_exactly(wrapped, 1)
            reset(wrapped)

        end, receiver = await self.taken_up(Peer(self, serve))
        end.write(b"x")
        await receiver.end()
        self.assertEqual(receiver.data, b"")
        await self.quiet()

    async def test_octets_in_flight(self) -> None:
        """Octets that reach the socket while the session is detached go over the bridge."""
        said = threading.Event()

        def talk(sock: ssl.SSLSocket) -> None:
            read_exactly(sock, 1)
            sock.sendall(b"250 ok\r\n")
            said.set()
            read_exactly(sock, 1)

        _, end = await self.proxy.start(tls_peer(self, talk).connect(), TLSSettings(), PATIENCE)
        first = Receiver(end)
        end.write(b"x")
        said.wait(PATIENCE)
        other = adopt_plaintext(reactor, end.detach())
        second = Receiver(other)
        self.assertEqual(await second.octets(8), b"250 ok\r\n")
        self.assertEqual((first.data, first.endings), (b"", []))
        other.write(b"y")
        await second.end()
        await self.quiet()

    async def test_unsent_octets(self) -> None:
        """What the peer had not taken yet when the session was detached arrives before what is written then."""
        total = 8_000_000
        read = threading.Event()
        seen: list[bytes] = []

        def talk(sock: ssl.SSLSocket) -> None:
            read.wait(PATIENCE)
            seen.append(read_exactly(sock, total + 5))

        peer = tls_peer(self, talk)
        _, end = await self.proxy.start(peer.connect(), TLSSettings(), PATIENCE)
        Receiver(end)
        end.write(b"1" * total)
        self.assertTrue(end.full)
        other = adopt_plaintext(reactor, end.detach())
        receiver = Receiver(other)
        other.write(b"22222")
        await self.turns(3)
        read.set()
        await receiver.end()
        peer.finish()
        self.assertEqual(seen, [b"1" * total + b"2" * 5])
        await self.quiet()

    async def test_no_descriptor_left(self) -> None:
        """Where no bridge can be made the session is lost, with all that belonged to it."""

        def talk(sock: ssl.SSLSocket) -> None:
            sock.sendall(b"x")
            with contextlib.suppress(OSError):
                sock.recv(1)

        def refuse(*args: object) -> None:
            raise OSError(24, "Too many open files")

        peer = tls_peer(self, talk)
        _, end = await self.proxy.start(peer.connect(), TLSSettings(), PATIENCE)
        await Receiver(end).octets(1)
        open_before = len(os.listdir("/proc/self/fd"))
        self.proxy._reactor.adoptStreamConnection = refuse
        error = self.assertRaises(SessionLost, end.detach)
        self.assertIn("Too many open files", str(error))
        while peer.alive():
            await self.turns(1)
        self.assertLess(len(os.listdir("/proc/self/fd")), open_before)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    async def test_detached_twice(self) -> None:
        """A session can travel on from the agent that took it up."""

        def talk(sock: ssl.SSLSocket) -> None:
            sock.sendall(read_exactly(sock, 3)[::-1])

        end, _ = await self.taken_up(tls_peer(self, talk))
        third = adopt_plaintext(reactor, end.detach())
        receiver = Receiver(third)
        third.write(b"abc")
        await receiver.end()
        self.assertEqual(receiver.data, b"cba")
        await self.quiet()

    async def test_stalled_for_good(self) -> None:
        """A side that takes nothing for longer than any limit of a session ends the bridge."""
        release = threading.Event()

        def talk(sock: ssl.SSLSocket) -> None:
            release.wait(PATIENCE)

        sock = await self.bridged(tls_peer(self, talk))
        while not self.clock.getDelayedCalls():
            with contextlib.suppress(BlockingIOError):
                sock.send(b"x" * 65536)
            await self.turns(1)
        self.clock.advance(609)
        await self.turns(3)
        sock.setblocking(False)
        self.assertRaises(BlockingIOError, sock.recv, 1)
        self.clock.advance(2)
        await self.turns(5)
        self.assertIn(self.end_of(sock), (b"", ConnectionResetError))
        release.set()

    def end_of(self, sock: socket.socket) -> object:
        try:
            return sock.recv(1)
        except OSError as error:
            return type(error)

    async def test_stalled_process_for_good(self) -> None:
        """So does another process that does not read what the peer says; one that reads again has all its time anew."""
        finished = threading.Event()

        def talk(sock: ssl.SSLSocket) -> None:
            with contextlib.suppress(OSError):
                while True:
                    sock.sendall(b"z" * 65536)
            finished.set()

        peer = tls_peer(self, talk)
        sock = await self.bridged(peer)
        for _ in range(2):
            while not self.clock.getDelayedCalls():
                await self.turns(1)
            (limit,) = self.clock.getDelayedCalls()
            self.clock.advance(609)
            await self.turns(3)
            self.assertFalse(finished.is_set())
            while limit.active():
                with contextlib.suppress(BlockingIOError):
                    sock.recv(65536)
                await self.turns(1)
        while not self.clock.getDelayedCalls():
            await self.turns(1)
        self.clock.advance(611)
        while not finished.is_set():
            await self.turns(1)
        await self.quiet()

    async def test_unread_last_words(self) -> None:
        """Last words that the other process never reads are not kept for ever."""
        # More than the socketpair holds, less than that and the two sockets of the network hold together.
        total = 400_000

        def talk(sock: ssl.SSLSocket) -> None:
            sock.sendall(b"w" * total)

        peer = tls_peer(self, talk)
        sock = await self.bridged(peer)
        # All of it is under way: what comes is a matter of the reactor's turns alone, not of the peer's thread.
        while peer.alive():
            await self.turns(1)
        # The peer's end can only be seen when enough was read.
        got = 0
        while got < total // 2:
            with contextlib.suppress(BlockingIOError):
                piece = sock.recv(10_000)
                self.assertGreater(len(piece), 0, "the end came before the timer")
                got += len(piece)
            await self.turns(1)
        while not self.clock.getDelayedCalls():
            await self.turns(1)
        self.assertLess(got, total)
        self.clock.advance(611)
        await self.turns(5)
        rest: object = b"x"
        while isinstance(rest, bytes) and rest:
            rest = self.end_of(sock)
        self.assertIn(rest, (b"", ConnectionResetError))
        self.assertEqual(self.clock.getDelayedCalls(), [])
