"""
Tests of L{smtpreuse.tlsproxy.wire}.
"""

from __future__ import annotations

import socket
import ssl
import struct
import threading
from collections.abc import Callable

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase

from smtpreuse.model.tlsfacts import TLSSettings
from smtpreuse.tls.context import Contexts
from smtpreuse.tlsproxy.openssl import reason_of
from smtpreuse.tlsproxy.wire import Wire
from tests.tlsproxy.peer import PATIENCE, server_context

_KEY_UPDATE = b"\x18\x00\x00\x01\x01"
_HANDSHAKE, _DATA = b"\x16", b"\x17"


class _Records:
    """Records of the server's side of TLS 1.3 with AES-256-GCM, made by hand (RFC 8446 sections 5.2 and 7)."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._keys()

    def _derived(self, label: bytes, length: int) -> bytes:
        info = struct.pack(">HB", length, 6 + len(label)) + b"tls13 " + label + b"\0"
        return HKDFExpand(SHA384(), length, info).derive(self._secret)

    def _keys(self) -> None:
        self._cipher, self._iv, self._number = AESGCM(self._derived(b"key", 32)), self._derived(b"iv", 12), 0

    def record(self, content: bytes, kind: bytes) -> bytes:
        """One record."""
        number = int.from_bytes(self._iv, "big") ^ self._number
        header = b"\x17\x03\x03" + struct.pack(">H", len(content) + 1 + 16)
        self._number += 1
        return header + self._cipher.encrypt(number.to_bytes(12, "big"), content + kind, header)

    def key_update(self) -> bytes:
        """New keys of ours, and a request for new ones of the peer."""
        record = self.record(_KEY_UPDATE, _HANDSHAKE)
        self._secret = self._derived(b"traffic upd", 48)
        self._keys()
        return record


class AnswerTests(SynchronousTestCase):
    """What a peer makes OpenSSL answer goes out at once, and costs a bounded amount of memory."""

    def setUp(self) -> None:
        ours, self.theirs = socket.socketpair()
        for sock in (ours, self.theirs):
            self.addCleanup(sock.close)
            # As little as the kernel allows, so that it is full soon.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        ours.setblocking(False)
        context = server_context()
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.num_tickets = 0
        context.keylog_filename = self.mktemp()
        self.server = context.wrap_bio(incoming := ssl.MemoryBIO(), outgoing := ssl.MemoryBIO(), server_side=True)
        self.incoming = incoming
        self.wire = Wire(Contexts().connection(TLSSettings(protocols="TLSv1.3")), ours)
        thread = threading.Thread(target=self._accept, args=(incoming, outgoing), daemon=True)
        thread.start()
        while not self.wire.handshake():
            ours.settimeout(PATIENCE)
            self.wire.fetch()
            ours.setblocking(False)
        thread.join(PATIENCE)
        self.assertEqual(self.server.cipher()[0], "TLS_AES_256_GCM_SHA384")
        with open(context.keylog_filename, encoding="ascii") as file:
            secrets = dict(line.split()[::2] for line in file if not line.startswith("#"))
        self.records = _Records(bytes.fromhex(secrets["SERVER_TRAFFIC_SECRET_0"]))
        self.read = 0

    def _accept(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO) -> None:
        finished = False
        while not finished:
            try:
                self.server.do_handshake()
                finished = True
            except ssl.SSLWantReadError:
                pass
            self.theirs.sendall(outgoing.read())
            if not finished:
                incoming.write(self.theirs.recv(65536))

    def flood(self, made: Callable[[], bytes], times: int) -> bytes:
        """What is decrypted of octets made so often."""
        seen = b""
        for _ in range(times):
            self.theirs.sendall(made())
            self.wire.fetch()
            while (data := self.wire.decrypted()) is not None:
                seen += data
        return seen

    def taken(self) -> bytes:
        """The peer reads all there is."""
        self.theirs.setblocking(False)
        data = b""
        try:
            while True:
                data += self.theirs.recv(65536)
                self.wire.flush()
        except BlockingIOError:
            self.theirs.setblocking(True)
        return data

    def several(self) -> bytes:
        """As many requests for other keys as fit the socket."""
        return b"".join(self.records.key_update() for _ in range(20))

    def test_unread(self) -> None:
        """A peer that asks for other keys on and on, and reads none of the answers, is lost with a reason."""
        error = self.assertRaises(SSL.Error, self.flood, self.several, 10_000)
        self.assertEqual(reason_of(error), "TLS error: peer reads no answers and asks for more")
        self.assertLess(len(self.wire._outgoing), 2 * 65536)

    def test_unread_beside_plaintext(self) -> None:
        """So is one that says a little in between."""

        def made() -> bytes:
            return self.several() + self.records.record(b"2", _DATA)

        error = self.assertRaises(SSL.Error, self.flood, made, 10_000)
        self.assertIn("reads no answers", reason_of(error))
        self.assertLess(len(self.wire._outgoing), 2 * 65536)

    def test_read(self) -> None:
        """One that reads them may ask as often as it likes, and the answers are what it can read."""

        def made() -> bytes:
            self.incoming.write(self.taken())
            self.assertRaises(ssl.SSLWantReadError, self.server.read)
            return self.several() + self.records.record(b"2", _DATA)

        self.assertEqual(self.flood(made, 500), b"2" * 500)
        self.wire.send(memoryview(b"QUIT"))
        self.incoming.write(self.taken())
        self.assertEqual(self.server.read(), b"QUIT")

    def test_late_reader(self) -> None:
        """One that reads after a while goes on as if nothing had been, our own octets behind the answers."""
        while not self.wire.blocked:
            self.flood(self.several, 1)
        self.flood(self.several, 5)
        self.assertEqual(bytes(self.wire.send(memoryview(b"QUIT"))), b"QUIT")
        self.incoming.write(self.taken())
        self.assertFalse(self.wire.blocked)
        self.wire.send(memoryview(b"QUIT"))
        self.incoming.write(self.taken())
        self.assertEqual(self.server.read(), b"QUIT")
