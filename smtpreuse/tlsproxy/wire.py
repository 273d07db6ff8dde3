"""
One socket, and the TLS that is spoken on it.

OpenSSL works on memory, not on the socket: after a failed write there it would not read any more what the peer said
last (OpenSSL 4.0). It knows no reactor: whoever calls knows when the socket is ready.
"""

from __future__ import annotations

import socket
import struct
from contextlib import suppress

from OpenSSL import SSL, crypto

from smtpreuse.model.tlsfacts import TLSResult
from smtpreuse.tlsproxy.openssl import clear_errors

# As much as Twisted's transports read at a time.
_CHUNK = 65536
# The most that a record holds (RFC 8446 section 5.1). OpenSSL's memory keeps the size it once had: more than one record
# at a time would cost every session at rest a few dozen KiB.
_RECORD = 16384
# What a record needs beyond its plaintext, and what OpenSSL may have to say besides.
_OVERHEAD = 4096
# A peer may ask for answers of TLS itself: other keys (KeyUpdate, RFC 8446 section 4.6.3), a renegotiation. One that
# floods us with such wishes and reads none of the answers is not let go on when so many octets of them wait.
_MOST_UNREAD = 65536
# Octets that came and were no plaintext, from which on OpenSSL's answers are fetched among replies too. A record has
# some 27 octets beside its plaintext; to ask for answers where there are none costs a microsecond.
_MOST_ODD = 2048


class Wire:
    """
    @ivar blocked: whether octets wait for the socket to take them.
    @ivar fetched: how many octets came so far.
    """

    def __init__(self, connection: SSL.Connection, sock: socket.socket) -> None:
        self.blocked = False
        self.fetched = 0
        self._connection = connection
        self._socket = sock
        self._outgoing = memoryview(b"")
        # Whether octets came that were no plaintext so far: OpenSSL may have to answer them. And how many more came
        # than were plaintext, since it was asked for answers.
        self._unanswered = False
        self._odd = 0

    def fileno(self) -> int:
        """The socket's number."""
        return self._socket.fileno()

    def handshake(self) -> bool:
        """
        Get on with the handshake.

        @return: whether it is finished.
        @raise SSL.Error: when it failed.
        @raise OSError: when the socket failed.
        """
        clear_errors()
        finished = True
        try:
            self._connection.do_handshake()
        except SSL.WantReadError:
            finished = False
        except SSL.Error:
            # Our alert is to go out; that nobody takes it says less than what failed.
            with suppress(OSError):
                self._collect(_CHUNK)
                self.flush()
            raise
        self._collect(_CHUNK)
        self.flush()
        return finished

    def shown(self) -> TLSResult:
        """What the handshake showed."""
        connection = self._connection
        chain = connection.get_peer_cert_chain() or []
        return TLSResult(
            protocol=connection.get_protocol_version_name(),
            cipher=connection.get_cipher_name() or "",
            bits=connection.get_cipher_bits() or 0,
            # As DER without a look inside: cryptography refuses odd certificates that OpenSSL takes.
            chain=tuple(crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate) for certificate in chain),
        )

    def fetch(self) -> bool:
        """
        Take what the socket has.

        @return: whether more may follow.
        @raise OSError: when the socket failed.
        """
        try:
            data = self._socket.recv(_CHUNK)
        except BlockingIOError:
            return True
        if not data:
            return False
        self._connection.bio_write(data)
        self.fetched += len(data)
        self._odd += len(data)
        self._unanswered = True
        return True

    def decrypted(self) -> bytes | None:
        """
        The next octets of plaintext, L{None} when more must be fetched for them.

        @raise SSL.Error: when TLS ended, in good order or not; or the peer does not read what it asks for.
        """
        clear_errors()
        try:
            data = self._connection.recv(_RECORD)
        except SSL.WantReadError:
            if self._unanswered or self._odd > _MOST_ODD:
                self._answer()
            return None
        self._unanswered = False
        self._odd -= len(data)
        return data

    def send(self, data: memoryview) -> memoryview:
        """
        Send plaintext as long as the socket takes it.

        @return: what was not looked at yet.
        @raise SSL.Error: when TLS failed.
        @raise OSError: when the socket failed.
        """
        clear_errors()
        while data and not self.blocked:
            taken = self._connection.send(data[:_RECORD])
            data = data[taken:]
            self._collect(taken)
            self.flush()
        return data

    def flush(self) -> None:
        """
        Send what waits.

        @raise OSError: when the socket failed.
        """
        while self._outgoing:
            try:
                self._outgoing = self._outgoing[self._socket.send(self._outgoing) :]
            except BlockingIOError:
                break
        self.blocked = bool(self._outgoing)

    def notify(self) -> None:
        """Send close_notify, once, as far as the socket takes it."""
        clear_errors()
        try:
            self._connection.shutdown()
            self._collect(_CHUNK)
            self.flush()
        except (SSL.Error, OSError):
            # It has failed already: there is nobody to take leave of.
            clear_errors()

    def shutdown(self) -> None:
        """
        Say that nothing follows.

        @raise OSError: when the socket failed.
        """
        self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def reset(self) -> None:
        """Close the socket with a reset."""
        # l_onoff and l_linger of struct linger (socket(7)): nothing is sent any more, the peer gets a RST.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    def _answer(self) -> None:
        """
        Send what OpenSSL has to say to a request to renegotiate, or for other keys: whoever made it may wait for that
        before anything else.

        @raise SSL.Error: when too much of it waits.
        """
        self._unanswered = False
        self._odd = 0
        self._collect(_CHUNK)
        # A socket that has failed says so at the next reading; what the peer said last comes first.
        with suppress(OSError):
            self.flush()
        if len(self._outgoing) > _MOST_UNREAD:
            raise SSL.Error([("", "", "peer reads no answers and asks for more")])

    def _collect(self, size: int) -> None:
        try:
            made = self._connection.bio_read(size + _OVERHEAD)
        except SSL.WantReadError:
            return
        self._outgoing = memoryview(bytes(self._outgoing) + made) if self._outgoing else memoryview(made)
