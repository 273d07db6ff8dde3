"""
Tests of L{smtpreuse.tlsproxy}: peers that end, stall or ask for what is not given, seen from where mail is sent.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import TestCase

from smtpreuse.agent.session import OpenSession, Session
from smtpreuse.agent.transaction import Result, Transaction
from smtpreuse.interfaces import IStreamEnd
from smtpreuse.ipc.stream import StreamEnd, adopt_plaintext
from smtpreuse.model.content import FileContent
from smtpreuse.model.delivery import Ending
from smtpreuse.model.tlsfacts import TLSSettings
from smtpreuse.smtp.client import Client
from smtpreuse.tls.context import Contexts
from smtpreuse.tlsproxy.plaintext import PlaintextEnd
from smtpreuse.tlsproxy.service import TLSProxyService
from tests.agent.world import BODY_TIMEOUT, PROFILE, RELAY, facts, limits, request, started
from tests.fakes import candidate
from tests.tlsproxy.peer import PATIENCE, Clocked, Peer, Receiver, read_exactly, server_context, tls_peer


class Records:
    """The server's side of TLS with its records in hand, so that they leave as the test wants."""

    def __init__(self, connected: socket.socket, context: ssl.SSLContext | None = None) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._server = (context or server_context()).wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._connected = connected
        while True:
            try:
                self._server.do_handshake()
            except ssl.SSLWantReadError:
                connected.sendall(self._outgoing.read())
                self._incoming.write(connected.recv(65536))
            else:
                connected.sendall(self._outgoing.read())
                return

    def read(self) -> bytes:
        """What comes next."""
        while True:
            try:
                return self._server.read(65536)
            except ssl.SSLWantReadError:
                self._incoming.write(self._connected.recv(65536))

    def record(self, data: bytes) -> bytes:
        """This, encrypted."""
        self._server.write(data)
        return self._outgoing.read()

    def farewell(self) -> bytes:
        """The alert close_notify."""
        try:
            self._server.unwrap()
        except ssl.SSLWantReadError:
            return self._outgoing.read()
        raise AssertionError("nobody has answered it")


class OddPeerTests(TestCase):
    """
    What arrived whole is heard, what did not is not, and a peer that takes its time has it.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.proxy = TLSProxyService(Clocked(reactor, self.clock), Contexts())

    async def opened(self, peer: Peer, settings: TLSSettings | None = None) -> PlaintextEnd:
        result, end = await self.proxy.start(peer.connect(), settings or TLSSettings(), PATIENCE)
        self.assertEqual(result.error, "")
        assert isinstance(end, PlaintextEnd)
        return end

    def talk_to(self, talk: Callable[[Records, socket.socket], None]) -> Peer:
        """A peer that writes its records by hand."""
        return Peer(self, lambda connected: talk(Records(connected), connected))

    async def turn(self, times: int = 1) -> None:
        """Let the reactor turn."""
        for _ in range(times):
            await deferLater(reactor, 0)

    async def test_last_reply_and_close_notify_in_one_segment(self) -> None:
        """The final reply counts though the end came with it; also where it has to cross the bridge."""

        def talk(records: Records, connected: socket.socket) -> None:
            self.assertEqual(records.read(), b".\r\n")
            connected.sendall(records.record(b"250 2.0.0 taken\r\n") + records.farewell())

        for bridged in (False, True):
            end: IStreamEnd = await self.opened(self.talk_to(talk))
            if bridged:
                end = await self.carried_on(end)
            receiver = Receiver(end)
            end.write(b".\r\n")
            self.assertEqual(await receiver.end(), "connection closed" if not bridged else receiver.endings[0])
            self.assertEqual(receiver.data, b"250 2.0.0 taken\r\n")
            self.assertEqual(len(receiver.endings), 1)
        await self.turn(5)
        self.clock.advance(60)

    async def carried_on(self, end: IStreamEnd) -> StreamEnd:
        """By another owner, through a descriptor."""
        return adopt_plaintext(reactor, end.detach())

    async def test_truncated_record(self) -> None:
        """A record that the connection ends in the middle of is not heard, not even the part that came."""

        def talk(records: Records, connected: socket.socket) -> None:
            records.read()
            whole = records.record(b"354 go on\r\n")
            connected.sendall(whole + records.record(b"250 2.0.0 taken\r\n")[:-1])

        end = await self.opened(self.talk_to(talk))
        receiver = Receiver(end)
        end.write(b"DATA\r\n")
        await receiver.end()
        self.assertEqual(receiver.data, b"354 go on\r\n")

    async def test_renegotiation(self) -> None:
        """It is not done: the session ends with the TLS reason, or goes on as it was; nothing is heard twice."""
        seen: list[bytes] = []

        def serve(connected: socket.socket) -> None:
            from OpenSSL import SSL

            from tests.tlsproxy.peer import CERTIFICATE

            context = SSL.Context(SSL.TLS_SERVER_METHOD)
            with CERTIFICATE.private_key_and_cert_chain_pem.tempfile() as path:
                context.use_privatekey_file(path)
                context.use_certificate_chain_file(path)
            connection = SSL.Connection(context, connected)
            connection.set_accept_state()
            connected.setblocking(True)
            connection.do_handshake()
            seen.append(connection.recv(100))
            connection.send(b"250 ok\r\n")
            connection.renegotiate()
            try:
                connection.do_handshake()
                seen.append(connection.recv(100))
            except SSL.Error as error:
                seen.append(repr(error).encode())

        peer = Peer(self, serve)
        end = await self.opened(peer, TLSSettings(protocols="TLSv1.2"))
        receiver = Receiver(end)
        end.write(b"NOOP\r\n")
        await receiver.end()
        # Either side may be the first to know.
        while peer.alive():
            await self.turn()
        self.assertEqual((receiver.data, len(receiver.endings)), (b"250 ok\r\n", 1))
        self.assertEqual(seen[0], b"NOOP\r\n")
        self.assertIn(b"no renegotiation", seen[1])

    async def test_quiet_session_has_no_limit_of_the_proxy(self) -> None:
        """A reply that takes ten minutes is not too late: that is for the agent to say."""
        release = threading.Event()

        def talk(sock: ssl.SSLSocket) -> None:
            self.assertEqual(read_exactly(sock, 3), b".\r\n")
            release.wait(PATIENCE)
            sock.sendall(b"250 taken\r\n")

        for bridged in (False, True):
            release.clear()
            end: IStreamEnd = await self.opened(tls_peer(self, talk))
            if bridged:
                end = await self.carried_on(end)
            receiver = Receiver(end)
            end.write(b".\r\n")
            await self.turn(3)
            self.clock.advance(100_000)
            self.assertEqual(receiver.endings, [])
            release.set()
            self.assertEqual(await receiver.octets(11), b"250 taken\r\n")
            await receiver.end()
        await self.turn(5)
        self.clock.advance(60)

    async def test_failed_write_is_no_busy_loop(self) -> None:
        """When the peer is gone the reactor is left alone, whatever is written afterwards."""
        gone = threading.Event()

        def talk(sock: ssl.SSLSocket) -> None:
            read_exactly(sock, 1)
            with socket.socket(fileno=sock.detach()):
                gone.set()

        end = await self.opened(tls_peer(self, talk))
        receiver = Receiver(end)
        end.write(b"x")
        gone.wait(PATIENCE)
        for _ in range(20):
            end.write(b"y" * 100_000)
            await self.turn()
        await receiver.end()
        self.assertEqual((len(receiver.endings), end.full, end.fileno()), (1, False, -1))
        self.assertNotIn(end, reactor.getReaders() + reactor.getWriters())
        self.assertEqual(self.flushLoggedErrors(), [])

    async def test_sessions_beside_each_other(self) -> None:
        """Protocols, ciphers and names of one session never show in another, however they are interleaved."""
        wanted = [
            TLSSettings(protocols="TLSv1.2", servername="one.example.com"),
            TLSSettings(protocols=">=TLSv1.3"),
            TLSSettings(protocols="TLSv1.2", ciphers="high"),
            TLSSettings(protocols=">=TLSv1.2", servername="two.example.com"),
        ]
        names: dict[int, str | None] = {}

        def peer(number: int) -> Peer:
            context = server_context()
            context.sni_callback = lambda sock, name, context: names.__setitem__(number, name)
            return tls_peer(self, lambda sock: sock.sendall(read_exactly(sock, 1)), context)

        running = [
            Deferred.fromCoroutine(self.proxy.start(peer(number).connect(), settings, PATIENCE))
            for number, settings in enumerate(wanted)
        ]
        opened = [await each for each in running]
        self.assertEqual(
            [result.protocol for result, _ in opened], ["TLSv1.2", "TLSv1.3", "TLSv1.2", "TLSv1.3"]
        )
        self.assertEqual(names, {0: "one.example.com", 1: None, 2: None, 3: "two.example.com"})
        for number, (_, end) in reversed(list(enumerate(opened))):
            assert end is not None
            receiver = Receiver(end)
            end.write(str(number).encode())
            await receiver.end()
            self.assertEqual(receiver.data, str(number).encode())


class SlowReaderTests(TestCase):
    """
    A peer that does not read what it is sent costs a bounded amount of memory for a bounded time.
    """

    async def test_slow_reader(self) -> None:
        """A message of 40 MB is not taken into memory, and the limit of the body ends it."""
        release = threading.Event()

        def talk(sock: ssl.SSLSocket) -> None:
            while not sock.recv(65536).endswith(b"DATA\r\n"):
                pass
            sock.sendall(b"250 ok\r\n250 ok\r\n354 go on\r\n")
            release.wait(PATIENCE)

        path = self.mktemp()
        with open(path, "wb") as file:
            file.write((b"x" * 78 + b"\r\n") * 500_000)
        clock = Clock()
        proxy = TLSProxyService(Clocked(reactor, clock), Contexts())
        peer = tls_peer(self, talk)
        _, end = await proxy.start(peer.connect(), TLSSettings(), PATIENCE)
        assert isinstance(end, PlaintextEnd)
        at = candidate()
        session = OpenSession(Session(end, Client.activated(), clock, limits(), RELAY), at, PROFILE.key(at), facts())
        running: Deferred[Result] = started(
            Transaction(session, request(content=FileContent(path, 40_000_000))).run()
        )
        while not end._unsent:
            await deferLater(reactor, 0)
        for _ in range(50):
            await deferLater(reactor, 0)
        self.assertNoResult(running)
        # What counts as full, and the piece that made it so.
        self.assertLess(end._unsent_octets, 3 * 65536)
        clock.pump([0.5] * round(BODY_TIMEOUT * 2 - 1))
        self.assertNoResult(running)
        clock.advance(0.5)
        (outcome,) = self.successResultOf(running).outcomes
        self.assertEqual(outcome.ending, Ending.REFUSED)
        self.assertIn("timed out while sending message body", outcome.text)
        self.assertEqual((end.fileno(), len(end._unsent)), (-1, 0))
        release.set()
