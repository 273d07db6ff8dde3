"""
Tests of L{smtpreuse.tlsproxy.plaintext}.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading

from OpenSSL import SSL
from twisted.internet import reactor
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import TestCase

from smtpreuse.errors import SessionLost
from smtpreuse.interfaces import IStreamEnd
from smtpreuse.model.tlsfacts import TLSSettings
from smtpreuse.tls.context import Contexts
from smtpreuse.tlsproxy.openssl import Binding
from smtpreuse.tlsproxy.service import TLSProxyService
from tests.tlsproxy.peer import PATIENCE, Clocked, Peer, Receiver, read_exactly, reset, server_context, tls_peer


class PlaintextEndTests(TestCase):
    """
    A plaintext end loses nothing that was said, and never waits for a peer without a limit.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.proxy = TLSProxyService(Clocked(reactor, self.clock), Contexts())

    async def opened(self, peer: Peer, settings: TLSSettings | None = None) -> IStreamEnd:
        result, end = await self.proxy.start(peer.connect(), settings or TLSSettings(), PATIENCE)
        self.assertEqual(result.error, "")
        assert end is not None
        return end

    async def turn(self) -> None:
        """Let the reactor turn once."""
        await deferLater(reactor, 0)

    async def test_last_reply_with_close_notify(self) -> None:
        """A reply that comes together with the end of the connection is delivered before the end."""

        def talk(sock: ssl.SSLSocket) -> None:
            read_exactly(sock, 6)
            sock.sendall(b"221 bye\r\n")
            sock.unwrap()

        end = await self.opened(tls_peer(self, talk))
        receiver = Receiver(end)
        end.write(b"QUIT\r\n")
        self.assertEqual(await receiver.end(), "connection closed")
        self.assertEqual(receiver.data, b"221 bye\r\n")

    async def test_missing_close_notify(self) -> None:
        """A connection that ends without close_notify is closed, not broken: SMTP says itself where a reply ends."""
        for protocols in ("TLSv1.2", "TLSv1.3"):
            end = await self.opened(
                tls_peer(self, lambda sock: sock.sendall(b"221 bye\r\n")), TLSSettings(protocols=protocols)
            )
            receiver = Receiver(end)
            self.assertEqual(await receiver.end(), "connection closed")
            self.assertEqual(receiver.data, b"221 bye\r\n")

    async def test_reset(self) -> None:
        """A reset is reported as such."""

        def serve(connected: socket.socket) -> None:
            wrapped = server_context().wrap_socket(connected, server_side=True)
            read_exactly(wrapped, 1)
            reset(wrapped)

        end = await self.opened(Peer(self, serve))
        receiver = Receiver(end)
        end.write(b"x")
        self.assertEqual(await receiver.end(), "lost connection (Connection reset by peer)")
        self.assertEqual(len(receiver.endings), 1)

    async def test_last_words_after_failed_write(self) -> None:
        """When a write fails, what the peer said before it went is still delivered, once, and then the end."""
        gone = threading.Event()

        def serve(connected: socket.socket) -> None:
            wrapped = server_context().wrap_socket(connected, server_side=True)
            wrapped.sendall(b"421 too much\r\n")
            wrapped.close()
            gone.set()

        end = await self.opened(Peer(self, serve))
        end.pause()
        receiver = Receiver(end)
        gone.wait(PATIENCE)
        # The first is answered by a reset, so that one of those behind it fails.
        while not receiver.endings:
            end.write(b"MAIL FROM:<>\r\n")
            await self.turn()
        self.assertEqual(receiver.data, b"421 too much\r\n")
        await self.turn()
        self.assertEqual(len(receiver.endings), 1)

    async def test_alert_in_session(self) -> None:
        """A fatal alert ends the session with the TLS reason."""

        def serve(connected: socket.socket) -> None:
            context = SSL.Context(SSL.TLS_SERVER_METHOD)
            self.use_certificate(context)
            connection = SSL.Connection(context, connected)
            connection.set_accept_state()
            connected.setblocking(True)
            connection.do_handshake()
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # What is no record makes OpenSSL send an alert.
            ready.wait(PATIENCE)
            with contextlib.suppress(SSL.Error):
                connection.recv(1)
            while connected.recv(4096):
                pass

        ready = threading.Event()
        end = await self.opened(Peer(self, serve))
        receiver = Receiver(end)
        end._wire._socket.send(b"this is no record of TLS")
        ready.set()
        reason = await receiver.end()
        self.assertTrue(reason.startswith("TLS error: "), reason)

    def use_certificate(self, context: SSL.Context) -> None:
        from tests.tlsproxy.peer import CERTIFICATE

        with CERTIFICATE.private_key_and_cert_chain_pem.tempfile() as path:
            context.use_privatekey_file(path)
            context.use_certificate_chain_file(path)

    async def test_foreign_errors(self) -> None:
        """An error that another call left in OpenSSL's queue is not taken for one of this session."""
        binding = Binding()
        context = binding.lib.SSL_CTX_new(binding.lib.TLS_method())

        def soil() -> None:
            self.assertEqual(binding.lib.SSL_CTX_set_cipher_list(context, b"nonsense"), 0)
            self.assertNotEqual(binding.lib.ERR_peek_error(), 0)

        def talk(sock: ssl.SSLSocket) -> None:
            for _ in range(3):
                sock.sendall(read_exactly(sock, 5))

        soil()
        end = await self.opened(tls_peer(self, talk))
        receiver = Receiver(end)
        for number in range(3):
            soil()
            end.write(b"NOOP\n")
            soil()
            # Nothing is there to read.
            end.doRead()
            soil()
            await receiver.octets(5 * (number + 1))
        end.close()
        soil()
        await receiver.end()
        self.assertEqual(receiver.endings, ["connection closed"])
        binding.lib.SSL_CTX_free(context)
        binding.lib.ERR_clear_error()

    async def test_one_write_is_one_record(self) -> None:
        """A write leaves at once as one record in one segment, in the turn of the reactor in which it was made."""
        records: list[tuple[int, int]] = []

        def serve(connected: socket.socket) -> None:
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            server = server_context().wrap_bio(incoming, outgoing, server_side=True)
            while True:
                try:
                    server.do_handshake()
                except ssl.SSLWantReadError:
                    connected.sendall(outgoing.read())
                    incoming.write(connected.recv(65536))
                else:
                    break
            server.write(b"220 ok")
            connected.sendall(outgoing.read())
            # They may come in any pieces: the network joins and cuts as it likes.
            kind, _, length = struct.unpack("!BHH", read_exactly(connected, 5))
            read_exactly(connected, length)
            records.append((kind, length))
            connected.setblocking(False)
            self.assertRaises(BlockingIOError, connected.recv, 1)

        end = await self.opened(Peer(self, serve))
        receiver = Receiver(end)
        await receiver.octets(6)
        end._wire._socket = counted = CountedSends(end._wire._socket)
        end.write(b"x" * 4096)
        self.assertEqual(len(counted.sent), 1)
        await receiver.end()
        ((kind, length),) = records
        self.assertEqual((kind, length + 5), (23, counted.sent[0]))
        self.assertTrue(4096 < length < 4200, records)

    async def test_full_and_drained(self) -> None:
        """When the peer does not read, C{full} says so; when it reads again, C{drained} does, and nothing is lost."""
        read = threading.Event()
        total = 12_000_000

        def talk(sock: ssl.SSLSocket) -> None:
            read.wait(PATIENCE)
            self.assertEqual(read_exactly(sock, total), data)
            sock.sendall(b"250 ok\r\n")

        data = bytes(range(250)) * (total // 250)
        end = await self.opened(tls_peer(self, talk))
        receiver = Receiver(end)
        sent = 0
        while sent < total:
            while not end.full and sent < total:
                end.write(data[sent : sent + 50_000])
                sent += 50_000
            if end.full:
                read.set()
                await receiver.room()
                self.assertFalse(end.full)
        self.assertGreater(receiver.drains, 0)
        self.assertEqual(await receiver.octets(8), b"250 ok\r\n")
        await receiver.end()

    async def test_close_after_write(self) -> None:
        """What was written before C{close} arrives, and then a proper end; what is written behind it does not go."""
        seen: list[bytes] = []
        read = threading.Event()

        def talk(sock: ssl.SSLSocket) -> None:
            read.wait(PATIENCE)
            seen.append(read_exactly(sock, 8_000_006))
            # suppress_ragged_eofs is off: this raises where close_notify is missing.
            seen.append(sock.recv(1))

        peer = tls_peer(self, talk)
        end = await self.opened(peer)
        receiver = Receiver(end)
        end.write(b"x" * 8_000_000)
        self.assertTrue(end.full)
        end.write(b"QUIT\r\n")
        end.close()
        end.close()
        end.write(b"NOOP\r\n")
        read.set()
        self.assertEqual(await receiver.end(), "connection closed")
        peer.finish()
        self.assertEqual(seen[0][-6:], b"QUIT\r\n")
        self.assertEqual(seen[1], b"")
        await self.gone(end)

    async def gone(self, end: IStreamEnd) -> None:
        """Wait until the peer's end has come too."""
        while end.fileno() != -1:
            await self.turn()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    async def test_close_without_answer(self) -> None:
        """A peer that does not close is not waited for any longer than a moment, and what it says is not heard."""
        release = threading.Event()

        def talk(sock: ssl.SSLSocket) -> None:
            self.assertEqual(sock.recv(6), b"QUIT\r\n")
            sock.sendall(b"221 bye\r\n")
            said.set()
            release.wait(PATIENCE)

        said = threading.Event()
        peer = tls_peer(self, talk)
        end = await self.opened(peer)
        receiver = Receiver(end)
        end.write(b"QUIT\r\n")
        end.close()
        self.assertEqual(receiver.endings, [], "not from within close()")
        await receiver.end()
        while not said.is_set():
            await self.turn()
        self.assertNotEqual(end.fileno(), -1)
        self.clock.advance(2.0)
        self.assertEqual(end.fileno(), -1)
        self.assertEqual(receiver.data, b"")
        self.assertEqual(len(receiver.endings), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        release.set()

    async def test_close_while_stalled(self) -> None:
        """A peer that takes nothing any more does not keep what was closed."""
        release = threading.Event()

        def talk(sock: ssl.SSLSocket) -> None:
            release.wait(PATIENCE)

        end = await self.opened(tls_peer(self, talk))
        receiver = Receiver(end)
        end.write(b"x" * 20_000_000)
        end.close()
        await self.turn()
        self.clock.advance(9.9)
        self.assertEqual(receiver.endings, [])
        self.clock.advance(0.2)
        self.assertEqual(receiver.endings, ["timeout while closing"])
        self.assertEqual(end.fileno(), -1)
        release.set()

    async def test_abort(self) -> None:
        """An abort resets the connection; the receiver hears of it afterwards, once."""
        resets: list[type[Exception]] = []

        def talk(sock: ssl.SSLSocket) -> None:
            sock.sendall(b"x")
            # Below TLS: Python's ssl does not tell a reset from an end.
            with socket.socket(fileno=sock.detach()) as below:
                below.settimeout(PATIENCE)
                try:
                    below.recv(10)
                except OSError as error:
                    resets.append(type(error))

        peer = tls_peer(self, talk)
        end = await self.opened(peer)
        receiver = Receiver(end)
        await receiver.octets(1)
        end.abort()
        end.abort()
        self.assertEqual(receiver.endings, [])
        self.assertEqual(await receiver.end(), "connection aborted")
        peer.finish()
        self.assertEqual(resets, [ConnectionResetError])
        self.assertEqual(len(receiver.endings), 1)

    async def test_early_octets_are_bounded(self) -> None:
        """Of what comes before anybody listens, only so much is held; the rest waits in the network and is not lost."""

        def talk(sock: ssl.SSLSocket) -> None:
            sock.sendall(b"y" * 12_000_000)

        end = await self.opened(tls_peer(self, talk))
        while len(end._early) <= 65536:
            await self.turn()
        for _ in range(20):
            await self.turn()
        # The limit, what one reading brought beyond it, and a record that was complete only then.
        self.assertLessEqual(len(end._early), 65536 + 65536 + 16384)
        self.assertRaises(SessionLost, end.detach)
        receiver = Receiver(end)
        await receiver.end()
        self.assertEqual(len(receiver.data), 12_000_000)

    async def test_receivers_follow_each_other(self) -> None:
        """The receiver before hears nothing any more."""

        def talk(sock: ssl.SSLSocket) -> None:
            sock.sendall(read_exactly(sock, 1))
            sock.sendall(read_exactly(sock, 1))

        end = await self.opened(tls_peer(self, talk))
        first = Receiver(end)
        end.write(b"1")
        await first.octets(1)
        second = Receiver(end)
        end.write(b"2")
        await second.end()
        self.assertEqual((first.data, first.endings), (b"1", []))
        self.assertEqual(second.data, b"2")

    async def test_closed_within_received(self) -> None:
        """A receiver may close, abort or detach from within what it is told."""
        for act in ("close", "abort", "detach"):
            end = await self.opened(tls_peer(self, lambda sock: sock.sendall(b"z")))
            done: list[object] = []

            class Acting(Receiver):
                def received(self, data: bytes) -> None:
                    done.append(getattr(end, act)())  # noqa: B023  # it is used within this turn of the loop

            receiver = Acting(end)
            while not done:
                await self.turn()
            if act == "detach":
                done[0].close()  # type: ignore[attr-defined]  # a descriptor
                self.assertEqual(receiver.endings, [])
                self.clock.advance(2.0)
            else:
                await receiver.end()
            await self.turn()
            self.clock.advance(2.0)


class CountedSends:
    """A socket of which it is known how often it was sent something."""

    def __init__(self, sock: socket.socket) -> None:
        self.sent: list[int] = []
        self._sock = sock

    def send(self, data: bytes) -> int:
        """As a socket does."""
        taken = self._sock.send(data)
        self.sent.append(taken)
        return taken

    def __getattr__(self, name: str) -> object:
        return getattr(self._sock, name)


class PostHandshakeTests(TestCase):
    """
    What TLS itself sends after the handshake is no news for the session.
    """

    async def test_tickets(self) -> None:
        """Tickets of TLS 1.3 are no octets that nobody asked for."""

        def talk(sock: ssl.SSLSocket) -> None:
            ticketed.set()
            read_exactly(sock, 1)

        ticketed = threading.Event()
        context = server_context()
        context.num_tickets = 4
        proxy = TLSProxyService(reactor, Contexts())
        result, end = await proxy.start(tls_peer(self, talk, context).connect(), TLSSettings(), PATIENCE)
        self.assertEqual(result.protocol, "TLSv1.3")
        ticketed.wait(PATIENCE)
        receiver = Receiver(end)
        for _ in range(10):
            await deferLater(reactor, 0)
        self.assertEqual((receiver.data, receiver.endings), (b"", []))
        end.write(b"x")
        await receiver.end()
