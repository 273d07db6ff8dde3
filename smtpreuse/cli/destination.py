"""
A mail server that keeps nothing: it takes mail, counts what came and forgets it. What it does to its clients (delays,
limits, demands for TLS) is set by its L{Habits}.

It is for tests, demonstrations and measurements. It knows nothing of the service and shares no grammar with it, so that
a fault of the one is seen by the other. Source: RFC 5321, RFC 2920 (PIPELINING), RFC 3207 (STARTTLS).
"""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Callable, Iterator
from typing import Protocol as Shape
from weakref import WeakSet

import msgspec
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IReactorTime,
    ITCPTransport,
    ITLSTransport,
)
from twisted.internet.protocol import Protocol, ServerFactory, connectionDone
from twisted.internet.ssl import CertificateOptions
from twisted.python.failure import Failure

from smtpreuse.cli.habits import Demand, Habits
from smtpreuse.cli.tally import Tally

# A command line: RFC 5321 section 4.5.3.1.4 asks for 512 octets, extensions add some.
COMMAND_LIMIT = 4096
# SSL_CB_HANDSHAKE_DONE of OpenSSL's ssl.h.
HANDSHAKE_DONE = 0x20
_PATH = re.compile(rb"[^<]*<([^>]*)>")


class _Stated(Shape):
    """What is needed of an OpenSSL connection."""

    def get_state_string(self) -> bytes: ...


class Destination(ServerFactory):
    """
    Takes mail and counts it.

    @ivar on_message: called after each message was counted.
    """

    noisy = False

    def __init__(self, clock: IReactorTime, habits: Habits, certificate: CertificateOptions | None) -> None:
        """
        @param certificate: what to show at STARTTLS; not needed where the habits say L{Demand.OFF}.
        """
        self.clock = clock
        self.habits = habits
        self.certificate = certificate
        self.tally = Tally()
        self.open = 0
        self.on_message: Callable[[], None] | None = None
        self._whole: WeakSet[_Stated] = WeakSet()
        self._done: WeakSet[_Stated] = WeakSet()
        if certificate is not None:
            certificate.getContext().set_info_callback(self._watch)

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        """One for each connection, refused ones too."""
        return DestinationProtocol(self)

    def _watch(self, connection: _Stated, where: int, outcome: int) -> None:
        # Our certificate is sent in a whole handshake only; pyOpenSSL has no call that tells of a resumed session.
        if connection.get_state_string().endswith(b"write certificate"):
            self._whole.add(connection)
        elif where == HANDSHAKE_DONE and connection not in self._done:
            self._done.add(connection)
            self.tally.tls_handshakes += 1
            self.tally.tls_resumed += connection not in self._whole

    def take(self, sender: bytes, recipients: list[bytes], content: bytes, encrypted: bool) -> None:
        """A message is complete."""
        self.tally.count(recipients, content, self.clock.seconds())
        if self.habits.capture:
            self._keep(sender, recipients, content, encrypted)
        if self.on_message is not None:
            self.on_message()

    def _keep(self, sender: bytes, recipients: list[bytes], content: bytes, encrypted: bool) -> None:
        stem = os.path.join(self.habits.capture, f"{self.tally.messages:06d}")
        envelope = {
            "sender": sender.decode(errors="replace"),
            "recipients": [recipient.decode(errors="replace") for recipient in recipients],
            "tls": encrypted,
        }
        with open(stem + ".eml", "wb") as kept:
            kept.write(content)
        with open(stem + ".json", "wb") as kept:
            kept.write(msgspec.json.encode(envelope) + b"\n")


class DestinationProtocol(Protocol):
    """
    One connection. Commands are answered in groups: all that came together is answered together.
    """

    def __init__(self, destination: Destination) -> None:
        self._destination = destination
        self._habits = destination.habits
        self._buffer = b""
        self._content: bytearray | None = None
        self._searched = 0
        self._replies: list[bytes] = []
        self._greeted = False
        self._encrypted = False
        self._sender: bytes | None = None
        self._recipients: list[bytes] = []
        self._messages = 0
        self._over = False
        self._held: deque[IDelayedCall] = deque()

    def connectionMade(self) -> None:
        """Greet, or send away."""
        self._destination.tally.connections += 1
        self._destination.open += 1
        if ITCPTransport.providedBy(self.transport):
            ITCPTransport(self.transport).setTcpNoDelay(True)
        if 0 < self._habits.max_connections < self._destination.open:
            self._say(b"421 4.7.0 too many connections")
            self._over = True
        else:
            self._say(b"220 sink.test ESMTP")
        self._answer()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Nothing is owed any more."""
        self._destination.open -= 1
        self._over = True
        self._content = None
        for call in self._held:
            call.cancel()
        self._held.clear()

    def dataReceived(self, data: bytes) -> None:
        """Work off what came, and answer it."""
        if self._content is not None:
            data = self._add_content(data)
        self._buffer = self._buffer + data if self._buffer else data
        for line in self._lines():
            self._obey(line)
            if self._over:
                break
            if self._content is not None:
                self._buffer = self._add_content(self._take_buffer())
        self._answer()

    def _lines(self) -> Iterator[bytes]:
        while not self._over:
            end = self._buffer.find(b"\n")
            if end < 0:
                if len(self._buffer) > COMMAND_LIMIT:
                    self._say(b"500 5.5.2 line too long")
                    self._over = True
                return
            line, self._buffer = self._buffer[:end], self._buffer[end + 1 :]
            yield line.rstrip(b"\r")

    def _take_buffer(self) -> bytes:
        taken, self._buffer = self._buffer, b""
        return taken

    def _add_content(self, data: bytes) -> bytes:
        """
        @return: what followed the end of the content.
        """
        content = self._content
        assert content is not None
        content += data
        end = content.find(b"\r\n.\r\n", max(0, self._searched - 4))
        if end < 0:
            self._searched = len(content)
            return b""
        rest = bytes(content[end + 5 :])
        self._content = None
        # It begins with the CRLF before it, so that its first line is like every other.
        self._finish(bytes(content[: end + 2]).replace(b"\r\n.", b"\r\n")[2:])
        return rest

    def _finish(self, content: bytes) -> None:
        self._messages += 1
        assert self._sender is not None
        self._destination.take(self._sender, self._recipients, content, self._encrypted)
        self._reset()
        self._say(b"250 2.0.0 taken")

    def _obey(self, line: bytes) -> None:
        verb, _, rest = line.partition(b" ")
        action = _ACTIONS.get(verb.upper())
        if action is None:
            self._say(b"500 5.5.1 what is that?")
        else:
            action(self, rest)

    def _ehlo(self, rest: bytes) -> None:
        self._greeted = True
        self._reset()
        lines = [b"sink.test", b"PIPELINING", b"SIZE %d" % self._habits.size_limit, b"8BITMIME", b"ENHANCEDSTATUSCODES"]
        if self._habits.demand is not Demand.OFF and not self._encrypted:
            lines.append(b"STARTTLS")
        for line in lines[:-1]:
            self._say(b"250-" + line)
        self._say(b"250 " + lines[-1])

    def _helo(self, rest: bytes) -> None:
        self._greeted = True
        self._reset()
        self._say(b"250 sink.test")

    def _starttls(self, rest: bytes) -> None:
        if self._habits.demand is Demand.OFF or self._encrypted or self._destination.certificate is None:
            self._say(b"502 5.5.1 not offered")
            return
        if self._buffer:
            # Plaintext behind STARTTLS must never be taken for something said under TLS (CVE-2011-0411).
            self._over = True
            return
        self._say(b"220 2.0.0 go ahead")
        self._answer(self._start_tls)
        self._greeted = False
        self._encrypted = True
        self._reset()

    def _start_tls(self) -> None:
        transport = ITLSTransport(self.transport)
        assert self._destination.certificate is not None
        transport.startTLS(self._destination.certificate)

    def _mail(self, rest: bytes) -> None:
        path = _PATH.match(rest)
        limit = self._habits.messages_per_connection
        if 0 < limit <= self._messages:
            self._say(b"421 4.7.0 too many messages on this connection")
            self._over = True
        elif self._habits.demand is Demand.REQUIRED and not self._encrypted:
            self._say(b"530 5.7.0 STARTTLS first")
        elif not self._greeted or self._sender is not None:
            self._say(b"503 5.5.1 not now")
        elif path is None:
            self._say(b"501 5.5.4 MAIL FROM:<address>")
        else:
            self._sender = path[1]
            self._say(b"250 2.1.0 ok")

    def _rcpt(self, rest: bytes) -> None:
        path = _PATH.match(rest)
        if self._sender is None:
            self._say(b"503 5.5.1 MAIL first")
        elif path is None or not path[1]:
            self._say(b"501 5.5.4 RCPT TO:<address>")
        else:
            self._recipients.append(path[1])
            self._say(b"250 2.1.5 ok")

    def _data(self, rest: bytes) -> None:
        if not self._recipients:
            self._say(b"503 5.5.1 RCPT first")
        else:
            self._say(b"354 end with a dot")
            self._content = bytearray(b"\r\n")
            self._searched = 0

    def _rset(self, rest: bytes) -> None:
        self._reset()
        self._say(b"250 2.0.0 ok")

    def _noop(self, rest: bytes) -> None:
        self._say(b"250 2.0.0 ok")

    def _vrfy(self, rest: bytes) -> None:
        self._say(b"252 2.0.0 send some mail")

    def _quit(self, rest: bytes) -> None:
        self._say(b"221 2.0.0 bye")
        self._over = True

    def _reset(self) -> None:
        self._sender = None
        self._recipients = []

    def _say(self, line: bytes) -> None:
        self._replies.append(line)

    def _answer(self, then: Callable[[], None] | None = None) -> None:
        """Send what is to be said, after the delay; in the order of calls."""
        said = b"".join(reply + b"\r\n" for reply in self._replies)
        self._replies.clear()
        end = self._over

        def send() -> None:
            assert self.transport is not None
            if said:
                self.transport.write(said)
            if then is not None:
                then()
            if end:
                self.transport.loseConnection()

        if not (said or end):
            return
        if self._habits.delay > 0:
            # Equal delays end in the order in which they began.
            self._held.append(self._destination.clock.callLater(self._habits.delay, self._release, send))
        else:
            send()

    def _release(self, send: Callable[[], None]) -> None:
        self._held.popleft()
        send()


_ACTIONS: dict[bytes, Callable[[DestinationProtocol, bytes], None]] = {
    b"EHLO": DestinationProtocol._ehlo,
    b"HELO": DestinationProtocol._helo,
    b"STARTTLS": DestinationProtocol._starttls,
    b"MAIL": DestinationProtocol._mail,
    b"RCPT": DestinationProtocol._rcpt,
    b"DATA": DestinationProtocol._data,
    b"RSET": DestinationProtocol._rset,
    b"NOOP": DestinationProtocol._noop,
    b"HELP": DestinationProtocol._noop,
    b"VRFY": DestinationProtocol._vrfy,
    b"QUIT": DestinationProtocol._quit,
}
