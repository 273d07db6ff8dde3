"""
A mail server for tests in their own process: it knows every message it took, by whom and when, and behaves as badly as
it is told to. It runs in a thread; what it took stays known whatever becomes of its clients.

It shares no grammar with the service. Source: RFC 5321, RFC 2920 (PIPELINING), RFC 3207 (STARTTLS).
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import ssl
import tempfile
import threading
import time
from collections.abc import Coroutine
from datetime import UTC, datetime

from attrs import define, frozen

from smtpreuse.cli.certificate import self_made

# Seconds: for what the thread is asked to do.
LIMIT = 30.0
_IDENTITY = re.compile(rb"(?:^|\r\n)(X-Id: (\S+)\r\n)")
_PATH = re.compile(rb"<([^>]*)>")


def digest_of(content: bytes) -> str:
    """What tells one content from all others."""
    return hashlib.sha256(content).hexdigest()


@frozen(kw_only=True)
class Taken:
    """
    A message for one recipient.

    @ivar identity: its field C{X-Id}.
    @ivar digest: L{digest_of} its content from that field on.
    @ivar replied: when its final reply was written, as C{time.monotonic} has it.
    @ivar connection: the number of the connection it came on, counted from 1.
    """

    identity: str
    recipient: str
    digest: str
    replied: float
    connection: int
    encrypted: bool


@define
class Manners:
    """
    How it behaves; what is changed holds from the next command on.

    @ivar tls: whether STARTTLS is offered.
    @ivar most_connections: at a time; those beyond are greeted with 421. 0: any number.
    @ivar most_messages: after so many on one connection it is closed, behind the last reply. 0: any number.
    @ivar stalls: whether the final dot stays without a reply.
    @ivar patience: for so many seconds after a message a connection may rest, then it is told 421. 0: for ever.
    @ivar injects: whether a reply to a command behind STARTTLS comes in plaintext, with the reply to that.
    """

    tls: bool = False
    most_connections: int = 0
    most_messages: int = 0
    stalls: bool = False
    patience: float = 0.0
    injects: bool = False


class Destination:
    """
    One server on a loopback port.

    @ivar taken: what it took, in order.
    @ivar connections: how many there were, those that were turned away included.
    @ivar turned_away: how many were greeted with 421.
    @ivar quits: how many ended with QUIT.
    @ivar open: the connections there are.
    @ivar most_open: the most that were open at a time and not turned away.
    @ivar stalled: messages that have no reply because it stalls.
    @ivar dismissed: connections that were told 421 while they rested.
    """

    def __init__(self, manners: Manners | None = None) -> None:
        self.manners = manners or Manners()
        self.taken: list[Taken] = []
        self.connections = self.turned_away = self.quits = self.most_open = self.stalled = self.dismissed = 0
        self.open: set[_Connection] = set()
        self.port = 0
        self.context: ssl.SSLContext | None = None
        self._server: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    @property
    def relayhost(self) -> str:
        """The setting that leads to it."""
        return f"[127.0.0.1]:{self.port}"

    def start(self) -> Destination:
        """Listen; at the same port as before, when it did."""
        if self.manners.tls and self.context is None:
            self.context = _context()
        self._asked(self._listen())
        return self

    def stop(self) -> None:
        """Listen no more, and cut all connections."""
        self._asked(self._close())

    def remove(self) -> None:
        """End."""
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(LIMIT)
        self._loop.close()

    async def _listen(self) -> None:
        self._server = await self._loop.create_server(lambda: _Connection(self), "127.0.0.1", self.port, backlog=1000)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.close()
        for connection in list(self.open):
            connection.cut()

    def _asked(self, doing: Coroutine[None, None, None]) -> None:
        asyncio.run_coroutine_threadsafe(doing, self._loop).result(LIMIT)


class _Connection(asyncio.Protocol):
    """One client."""

    def __init__(self, destination: Destination) -> None:
        self._destination = destination
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._searched = 0
        self._in_content = False
        self._recipients: list[str] = []
        self._messages = 0
        self._number = 0
        self._encrypted = False
        self._upgrade: asyncio.Task[None] | None = None
        self._impatience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        destination = self._destination
        destination.connections += 1
        self._number = destination.connections
        most = destination.manners.most_connections
        if most and len(destination.open) >= most:
            destination.turned_away += 1
            transport.write(b"421 4.7.0 too many connections\r\n")
            transport.close()
            return
        destination.open.add(self)
        destination.most_open = max(destination.most_open, len(destination.open))
        transport.write(b"220 destination.test ESMTP\r\n")

    def connection_lost(self, exc: Exception | None) -> None:
        self._destination.open.discard(self)
        self._transport = None

    def cut(self) -> None:
        """End at once."""
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._impatience is not None:
            self._impatience.cancel()
        if self._upgrade is not None and not self._upgrade.done():
            return
        self._work()

    def _work(self) -> None:
        said: list[bytes] = []
        while self._transport is not None and not self._transport.is_closing():
            if self._in_content:
                if not self._content_ended(said):
                    break
                continue
            line, found, rest = bytes(self._buffer).partition(b"\r\n")
            if not found:
                break
            self._buffer = bytearray(rest)
            self._obey(line, said)
        if said and self._transport is not None:
            self._transport.write(b"".join(said))

    def _obey(self, line: bytes, said: list[bytes]) -> None:
        verb = line[:4].upper()
        if verb == b"EHLO":
            offers = self._destination.context is not None and self._destination.manners.tls and not self._encrypted
            keywords = [b"destination.test", *[b"STARTTLS"] * offers, b"PIPELINING"]
            said.append(b"".join(b"250-%s\r\n" % keyword for keyword in keywords) + b"250 8BITMIME\r\n")
        elif verb == b"MAIL" or verb == b"RSET":
            self._recipients = []
            said.append(b"250 2.0.0 ok\r\n")
        elif verb == b"RCPT":
            path = _PATH.search(line)
            assert path is not None
            self._recipients.append(path[1].decode())
            said.append(b"250 2.1.5 ok\r\n")
        elif verb == b"DATA":
            self._in_content = True
            self._searched = 0
            # So that the end of an empty content is found like every other.
            self._buffer[:0] = b"\r\n"
            said.append(b"354 go on\r\n")
        elif verb == b"STAR":
            self._start_tls()
        elif verb == b"QUIT":
            self._destination.quits += 1
            assert self._transport is not None
            self._transport.write(b"".join(said) + b"221 2.0.0 bye\r\n")
            said.clear()
            self._transport.close()
        else:
            said.append(b"500 5.5.1 what is that?\r\n")

    def _content_ended(self, said: list[bytes]) -> bool:
        end = self._buffer.find(b"\r\n.\r\n", self._searched)
        if end < 0:
            self._searched = max(0, len(self._buffer) - 4)
            return False
        content = bytes(self._buffer[: end + 2]).replace(b"\r\n.", b"\r\n")[2:]
        del self._buffer[: end + 5]
        self._in_content = False
        self._take(content, said)
        return True

    def _take(self, content: bytes, said: list[bytes]) -> None:
        destination, manners = self._destination, self._destination.manners
        if manners.stalls:
            destination.stalled += 1
            return
        found = _IDENTITY.search(content)
        identity = found[2].decode() if found else ""
        digest = digest_of(content[found.start(1) :] if found else content)
        now = time.monotonic()
        destination.taken += [
            Taken(
                identity=identity, recipient=recipient, digest=digest, replied=now, connection=self._number,
                encrypted=self._encrypted,
            )
            for recipient in self._recipients
        ]  # fmt: skip
        assert self._transport is not None
        # Written at once: its time was noted.
        self._transport.write(b"".join(said) + b"250 2.0.0 taken\r\n")
        said.clear()
        self._messages += 1
        if self._messages == manners.most_messages:
            self._transport.close()
        if manners.patience:
            self._impatience = asyncio.get_running_loop().call_later(manners.patience, self._dismiss)

    def _dismiss(self) -> None:
        if self._transport is not None:
            self._destination.dismissed += 1
            self._transport.write(b"421 4.4.2 idle for too long\r\n")
            self._transport.close()

    def _start_tls(self) -> None:
        transport, context = self._transport, self._destination.context
        assert transport is not None and context is not None and not self._buffer
        transport.write(b"220 2.0.0 go ahead\r\n" + b"250 2.0.0 injected\r\n" * self._destination.manners.injects)
        self._encrypted = True
        self._upgrade = asyncio.get_running_loop().create_task(self._upgraded(transport, context))

    async def _upgraded(self, transport: asyncio.Transport, context: ssl.SSLContext) -> None:
        try:
            encrypted = await asyncio.get_running_loop().start_tls(transport, self, context, server_side=True)
        except OSError:
            self.connection_lost(None)
            return
        assert isinstance(encrypted, asyncio.Transport)
        self._transport = encrypted
        # What came while the transport was not known yet.
        self._work()


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile() as file:
        file.write(self_made("destination.test", datetime.now(UTC)))
        file.flush()
        context.load_cert_chain(file.name)
    return context
