"""
What every body of L{ITLSProxy} promises.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import threading
from collections.abc import Callable

from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from smtpreuse.errors import SessionLost
from smtpreuse.interfaces import IStreamEnd, ITLSProxy
from smtpreuse.ipc.descriptor import Descriptor
from smtpreuse.ipc.stream import adopt_plaintext
from smtpreuse.model.tlsfacts import TLSResult, TLSRole, TLSSettings
from tests.tls import identities
from tests.tlsproxy.peer import (
    AUTHORITY,
    CERTIFICATE,
    PATIENCE,
    Peer,
    Receiver,
    context_of,
    read_exactly,
    self_signed,
    server_context,
    tls_peer,
)

SERVER = TLSSettings(role=TLSRole.SERVER)


class TLSProxyContract(TestCase):
    """
    To be inherited by the tests of a body.
    """

    def proxy(self) -> ITLSProxy:
        """A new proxy, whose identity as a server is L{tests.tls.identities.ECDSA}."""
        raise NotImplementedError

    def taken_up(self, descriptor: Descriptor) -> IStreamEnd:
        """A stream end for what another agent was given."""
        return adopt_plaintext(reactor, descriptor)

    async def opened(
        self, peer: Peer, settings: TLSSettings | None = None
    ) -> tuple[TLSResult, IStreamEnd]:
        """A handshake that succeeds."""
        result, end = await self.proxy().start(peer.connect(), settings or TLSSettings(), PATIENCE)
        self.assertEqual(result.error, "")
        assert end is not None
        return result, end

    async def refused(self, peer: Peer, settings: TLSSettings | None = None) -> TLSResult:
        """A handshake that fails because of the peer."""
        result, end = await self.proxy().start(peer.connect(), settings or TLSSettings(), PATIENCE)
        self.assertIsNone(end)
        self.assertFalse(result.local)
        self.assertNotEqual(result.error, "")
        self.assertEqual(result.chain, ())
        return result

    def test_interface(self) -> None:
        """It provides the seam."""
        self.assertTrue(verifyObject(ITLSProxy, self.proxy()))

    async def test_result(self) -> None:
        """The result says what the handshake showed, the chain as it was sent; the plaintext end provides its seam."""
        peer = tls_peer(self, lambda sock: sock.sendall(b"220 ok\r\n"))
        result, end = await self.opened(peer)
        self.assertEqual(result.protocol, "TLSv1.3")
        self.assertIn("_SHA", result.cipher)
        self.assertIn(result.bits, (128, 256))
        leaf = ssl.PEM_cert_to_DER_cert(CERTIFICATE.cert_chain_pems[0].bytes().decode("ascii"))
        self.assertEqual(result.chain, (leaf,))
        self.assertTrue(verifyObject(IStreamEnd, end))
        receiver = Receiver(end)
        self.assertEqual(await receiver.octets(8), b"220 ok\r\n")
        await receiver.end()

    async def test_server_name(self) -> None:
        """The server name is sent as it is asked for, and belongs to one connection only."""
        names: list[str | None] = []
        for name in ("mx.example.com", None, "mx2.example.com"):
            context = server_context()
            context.sni_callback = lambda sock, name, context: names.append(name)
            _, end = await self.opened(tls_peer(self, lambda sock: None, context), TLSSettings(servername=name))
            await Receiver(end).end()
        self.assertEqual(names, ["mx.example.com", None, "mx2.example.com"])

    async def test_alert(self) -> None:
        """A peer that refuses the handshake is quoted with its alert; the next handshake does not suffer from it."""

        def serve(connected: socket.socket) -> None:
            context = server_context()
            context.maximum_version = ssl.TLSVersion.TLSv1_2
            self.assertRaises(ssl.SSLError, context.wrap_socket, connected, server_side=True)

        result = await self.refused(Peer(self, serve), TLSSettings(protocols=">=TLSv1.3"))
        self.assertIn("alert protocol version", result.error)
        _, end = await self.opened(tls_peer(self, lambda sock: None))
        await Receiver(end).end()

    async def test_no_tls_spoken(self) -> None:
        """Plaintext where a handshake is due ends it; it is never taken for plaintext of the session."""

        def serve(connected: socket.socket) -> None:
            connected.sendall(b"250 injected\r\n")
            with contextlib.suppress(ConnectionResetError):
                while connected.recv(4096):
                    pass

        await self.refused(Peer(self, serve))

    async def test_closed_at_once(self) -> None:
        """A peer that closes during the handshake is said to have closed."""
        result = await self.refused(Peer(self, lambda connected: None))
        self.assertIn("lost connection", result.error)

    async def test_stalled(self) -> None:
        """A handshake that does not get on ends with its time, and the connection with it."""

        def serve(connected: socket.socket) -> None:
            while connected.recv(4096):
                pass

        result, end = await self.proxy().start(Peer(self, serve).connect(), TLSSettings(), 0.01)
        self.assertIsNone(end)
        self.assertEqual(result.error, "handshake timed out after 0.01 seconds")
        self.assertFalse(result.local)

    async def test_certificates(self) -> None:
        """Whatever certificate the peer shows, the handshake goes through, and the certificate comes back as it was."""
        plain, key = self_signed()
        expired, expired_key = self_signed(days=-1)
        # A time that is none: cryptography refuses to look at it.
        start = plain.index(b"\x17\x0d") + 2
        odd = plain[:start] + b"99xx99999999Z" + plain[start + 13 :]
        for certificate, its_key in ((plain, key), (expired, expired_key), (odd, key)):
            context = context_of(certificate, its_key)
            result, end = await self.opened(tls_peer(self, lambda sock: None, context))
            self.assertEqual(result.chain, (certificate,))
            await Receiver(end).end()

    async def test_chain(self) -> None:
        """All certificates of the chain come back in the order of the peer."""
        middle = AUTHORITY.create_child_ca()
        leaf = middle.issue_cert("mx.example.com")
        result, end = await self.opened(tls_peer(self, lambda sock: None, server_context(leaf)))
        pems = [pem.bytes().decode("ascii") for pem in leaf.cert_chain_pems]
        self.assertEqual(result.chain, tuple(ssl.PEM_cert_to_DER_cert(pem) for pem in pems))
        self.assertGreater(len(result.chain), 1)
        await Receiver(end).end()

    async def test_anonymous(self) -> None:
        """A peer without a certificate gives an empty chain."""
        context = server_context(None)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers("aNULL:@SECLEVEL=0")
        result, end = await self.opened(tls_peer(self, lambda sock: None, context))
        self.assertEqual(result.chain, ())
        self.assertEqual(result.protocol, "TLSv1.2")
        await Receiver(end).end()

    async def test_taken_descriptor(self) -> None:
        """A descriptor that somebody else has taken is a fault of our own."""
        ours, theirs = socket.socketpair()
        descriptor = Descriptor.of(ours)
        os.close(descriptor.take())
        result, end = await self.proxy().start(descriptor, TLSSettings(), PATIENCE)
        theirs.close()
        self.assertIsNone(end)
        self.assertTrue(result.local)

    async def test_no_socket(self) -> None:
        """A descriptor that is no socket is a fault of our own, and is closed."""
        reading, writing = os.pipe()
        os.close(writing)
        result, end = await self.proxy().start(Descriptor(reading, socket.AF_INET), TLSSettings(), PATIENCE)
        self.assertIsNone(end)
        self.assertTrue(result.local)
        self.assertRaises(OSError, os.fstat, reading)

    async def test_impossible_settings(self) -> None:
        """Settings that nothing can be made of are a fault of our own, and the connection is closed."""
        for settings in (
            TLSSettings(protocols="TLSv9"),
            TLSSettings(protocols="SSLv2"),
            TLSSettings(ciphers="best"),
            TLSSettings(servername="\u2603.example.com"),
            TLSSettings(servername=""),
        ):
            ours, theirs = socket.socketpair()
            result, end = await self.proxy().start(Descriptor.of(ours), settings, PATIENCE)
            self.assertIsNone(end)
            self.assertTrue(result.local)
            with theirs:
                self.assertEqual(theirs.recv(1), b"")

    async def test_octets_before_receiver(self) -> None:
        """What comes behind the handshake waits for the first receiver, and comes before its end."""
        _, end = await self.opened(tls_peer(self, lambda sock: sock.sendall(b"220 early\r\n")))
        other = Receiver(end)
        await other.end()
        self.assertEqual(other.data, b"220 early\r\n")

    async def test_receiver_after_end(self) -> None:
        """A receiver that attaches to what has ended hears of it, after what was said."""
        _, end = await self.opened(tls_peer(self, lambda sock: sock.sendall(b"421 gone\r\n")))
        first = Receiver(end)
        await first.end()
        second = Receiver(end)
        self.assertEqual(second.endings, first.endings)
        end.write(b"QUIT\r\n")
        end.close()
        end.abort()
        self.assertRaises(SessionLost, end.detach)

    async def test_both_ways(self) -> None:
        """Octets go both ways, in order."""

        def talk(sock: ssl.SSLSocket) -> None:
            sock.sendall(read_exactly(sock, 3_000_000))

        _, end = await self.opened(tls_peer(self, talk))
        receiver = Receiver(end)
        data = os.urandom(3_000_000)
        for start in range(0, len(data), 7777):
            end.write(data[start : start + 7777])
        self.assertTrue(await receiver.octets(len(data)) == data)
        await receiver.end()

    async def test_pause(self) -> None:
        """A plaintext end that is paused brings no more than was read already; all of it comes after C{resume}."""
        size = 3_000_000

        def talk(sock: ssl.SSLSocket) -> None:
            sock.sendall(b"x" * size)
            blocked.set()

        blocked = threading.Event()
        _, end = await self.opened(tls_peer(self, talk))
        receiver = Receiver(end)
        end.pause()
        for _ in range(20):
            await deferLater(reactor, 0.0)
        self.assertFalse(blocked.is_set())
        self.assertLess(len(receiver.data), size)
        end.resume()
        self.assertEqual(len(await receiver.octets(size)), size)
        await receiver.end()

    async def test_detach(self) -> None:
        """A session is carried on through the descriptor that C{detach} gives."""

        def talk(sock: ssl.SSLSocket) -> None:
            sock.sendall(read_exactly(sock, 5).upper())
            sock.sendall(read_exactly(sock, 6).upper())

        _, end = await self.opened(tls_peer(self, talk))
        first = Receiver(end)
        end.write(b"first")
        await first.octets(5)
        descriptor = end.detach()
        second_end = self.taken_up(descriptor)
        second = Receiver(second_end)
        second_end.write(b"second")
        self.assertEqual(await second.octets(6), b"SECOND")
        await second.end()
        self.assertEqual((bytes(first.data), first.endings), (b"FIRST", []))
        self.assertRaises(SessionLost, end.detach)


class TLSProxyServerContract(TLSProxyContract):
    """
    To be inherited by the tests of a body as well: the server's side of a handshake, for a client that connected.
    """

    def client(self, talk: Callable[[ssl.SSLSocket], None], version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> Peer:
        """One that trusts the authority, does a handshake and then talks."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        identities.AUTHORITY.configure_trust(context)
        context.minimum_version = context.maximum_version = version

        def serve(connected: socket.socket) -> None:
            with context.wrap_socket(connected, server_hostname="mx.example.com") as wrapped:
                talk(wrapped)

        return Peer(self, serve)

    async def test_server(self) -> None:
        """The client finds the certificate right; what both say arrives, and there is no chain of the client's."""
        for version, name in ((ssl.TLSVersion.TLSv1_2, "TLSv1.2"), (ssl.TLSVersion.TLSv1_3, "TLSv1.3")):
            peer = self.client(lambda sock: sock.sendall(read_exactly(sock, 9).upper()), version)
            result, end = await self.opened(peer, SERVER)
            self.assertEqual((result.protocol, result.chain), (name, ()))
            receiver = Receiver(end)
            end.write(b"220 hello")
            self.assertEqual(await receiver.octets(9), b"220 HELLO")
            await receiver.end()

    async def test_server_detach(self) -> None:
        """The plaintext end of a client's connection travels like any other."""
        _, end = await self.opened(self.client(lambda sock: sock.sendall(read_exactly(sock, 5).upper())), SERVER)
        taken = self.taken_up(end.detach())
        receiver = Receiver(taken)
        taken.write(b"hello")
        self.assertEqual(await receiver.octets(5), b"HELLO")
        await receiver.end()

    async def test_server_no_tls_spoken(self) -> None:
        """A client that goes on in plaintext behind STARTTLS has failed, and nothing that it said is plaintext."""

        def serve(connected: socket.socket) -> None:
            connected.sendall(b"MAIL FROM:<a@example.com>\r\n")
            with contextlib.suppress(ConnectionResetError):
                while connected.recv(4096):
                    pass

        result = await self.refused(Peer(self, serve), SERVER)
        self.assertIn("TLS error: ", result.error)

    async def test_server_closed_at_once(self) -> None:
        """A client that goes in the handshake, before its first octet or in its first message."""
        for said in (b"", b"\x16\x03\x01\x02\x00\x01"):
            result = await self.refused(Peer(self, lambda connected, said=said: connected.sendall(said)), SERVER)
            self.assertIn("lost connection", result.error)

    async def test_server_stalled(self) -> None:
        """A client that does not begin its handshake is waited for as long as was asked for."""

        def serve(connected: socket.socket) -> None:
            while connected.recv(4096):
                pass

        result, end = await self.proxy().start(Peer(self, serve).connect(), SERVER, 0.01)
        self.assertEqual((result.error, end), ("handshake timed out after 0.01 seconds", None))
        self.assertFalse(result.local)

    async def test_server_not_trusted(self) -> None:
        """A client that does not trust us says so, and its alert is told."""

        def serve(connected: socket.socket) -> None:
            context = ssl.create_default_context()
            with self.assertRaises(ssl.SSLCertVerificationError):
                context.wrap_socket(connected, server_hostname="mx.example.com")

        result = await self.refused(Peer(self, serve), SERVER)
        self.assertIn("unknown ca", result.error)
