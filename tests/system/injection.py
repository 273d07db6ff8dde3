"""
A client for tests that remembers what it was promised: it hands mail in over several connections, with PIPELINING, and
keeps the ids of the messages that were answered 250. It shares no grammar with the service.
"""

from __future__ import annotations

import itertools
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress

from attrs import frozen

from tests.system.destination import digest_of

# Seconds: for a reply, and for a message to be answered among those of all connections.
LIMIT = 60.0


@frozen(kw_only=True)
class Letter:
    """
    A message to hand in.

    @ivar content: begins with the field C{X-Id}.
    """

    identity: str
    recipients: tuple[str, ...]
    content: bytes

    @property
    def digest(self) -> str:
        """See L{digest_of}."""
        return digest_of(self.content)


def letter(identity: str, size: int = 2000, recipients: tuple[str, ...] = ("to@example.test",)) -> Letter:
    """A message whose content no other has; its lines are as long as lines may be at most."""
    line = (f"{identity} " * 70)[:76].encode() + b"\r\n"
    content = f"X-Id: {identity}\r\nSubject: {identity}\r\n\r\n".encode()
    content += line * ((size - len(content)) // len(line))
    return Letter(identity=identity, recipients=recipients, content=content)


def letters(name: str, size: int = 2000) -> Iterator[Letter]:
    """Messages without end: most are small, some too large for a row of the queue, some to two recipients."""
    for number in itertools.count():
        recipients: tuple[str, ...] = ("to@example.test",)
        if number % 10 == 0:
            recipients += ("to@example.com",)
        yield letter(f"{name}-{number}", 300_000 if number % 100 == 50 else size, recipients)


class Injection:
    """
    Messages on their way in, each connection with a thread.

    @ivar accepted: those that were answered 250, by their id.
    @ivar refused: the replies that others got, in place of 250.
    @ivar lost: how many connections ended before their time.
    @ivar promised: for each connection, in order, when each message began to be sent and when it had been answered 250,
        as C{time.monotonic} has it. No message was complete before the first of the two.
    """

    def __init__(self, port: int, mail: Iterable[Letter], connections: int = 6) -> None:
        self.accepted: dict[str, Letter] = {}
        self.refused: list[str] = []
        self.lost = 0
        self.promised: list[list[tuple[float, float]]] = []
        self._port = port
        self._mail = iter(mail)
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(connections)]

    def start(self) -> Injection:
        """Begin; nobody waits for it."""
        for thread in self._threads:
            thread.start()
        return self

    def finish(self) -> Injection:
        """Wait until all was sent, or until the service went away; as long as anything is answered it may take."""
        answered, end = self.answered, time.monotonic() + LIMIT
        for thread in self._threads:
            while thread.is_alive():
                thread.join(0.1)
                if self.answered != answered:
                    answered, end = self.answered, time.monotonic() + LIMIT
                assert time.monotonic() < end, f"the service does not answer: {answered} answers so far"
        return self

    @property
    def answered(self) -> int:
        """How many messages have their reply."""
        return len(self.accepted) + len(self.refused)

    @property
    def under_way(self) -> bool:
        """Whether there is more to come."""
        return any(thread.is_alive() for thread in self._threads)

    def _run(self) -> None:
        try:
            with socket.create_connection(("127.0.0.1", self._port), LIMIT) as connection:
                self._converse(connection)
        except (OSError, EOFError):
            self.lost += 1

    def _converse(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        replies = _replies(connection)
        next(replies)
        connection.sendall(b"EHLO client.test\r\n")
        next(replies)
        promised: list[tuple[float, float]] = []
        self.promised.append(promised)
        while (message := self._next()) is not None:
            envelope = "MAIL FROM:<from@example.org>\r\n"
            envelope += "".join(f"RCPT TO:<{recipient}>\r\n" for recipient in message.recipients)
            connection.sendall(f"{envelope}DATA\r\n".encode())
            answers = [next(replies) for _ in range(len(message.recipients) + 2)]
            sent = time.monotonic()
            if answers[-1].startswith("354"):
                connection.sendall(message.content + b".\r\n")
                answers.append(next(replies))
            if answers[-1].startswith("250"):
                promised.append((sent, time.monotonic()))
                self.accepted[message.identity] = message
            else:
                self.refused.append(next(answer for answer in answers if answer[0] in "45"))
                connection.sendall(b"RSET\r\n")
                next(replies)
        with suppress(EOFError, OSError):
            connection.sendall(b"QUIT\r\n")
            next(replies)

    def _next(self) -> Letter | None:
        with self._lock:
            return next(self._mail, None)


def inject(port: int, mail: Iterable[Letter], connections: int = 6) -> Injection:
    """Hand all of it in."""
    return Injection(port, mail, connections).start().finish()


def _replies(connection: socket.socket) -> Iterator[str]:
    """The last line of each reply."""
    buffer = b""
    while True:
        while b"\n" not in buffer:
            octets = connection.recv(65536)
            if not octets:
                raise EOFError("the service went away")
            buffer += octets
        line, _, buffer = buffer.partition(b"\n")
        if line[3:4] != b"-":
            yield line.decode().rstrip("\r")
