"""
Clients that are not like others, on real sockets.
"""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable
from pathlib import Path

from tests.system.world import SystemTestCase

ENVELOPE = b"MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.test>\r\nDATA\r\n"


def read(connection: socket.socket, until: bytes = b"") -> bytes:
    """What comes up to this, or up to the end."""
    got = b""
    while not (until and until in got) and (piece := connection.recv(4096)):
        got += piece
    return got


def over_unix(path: Path) -> socket.socket:
    """A connection to this socket."""
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(60)
    connection.connect(str(path))
    return connection


class EarlyTests(SystemTestCase):
    """A client that does not wait for the greeting is turned away."""

    def test_early_talker(self) -> None:
        """What it said is not obeyed; over TCP and a UNIX socket. One that waits is greeted."""
        running = self.service(self.destination())
        path = running.directory / "socket"
        running.start("--listen", f"unix:{path}")
        # So that the octets are there before the connection is taken.
        running.send_signal(signal.SIGSTOP)
        self.addCleanup(running.send_signal, signal.SIGCONT)
        with socket.create_connection(running.address, 60) as one, over_unix(path) as other:
            for connection in (one, other):
                connection.sendall(b"EHLO x\r\n")
            with socket.create_connection(running.address, 60) as patient:
                running.send_signal(signal.SIGCONT)
                self.assertTrue(read(patient, b"\r\n").startswith(b"220 "))
            for connection in (one, other):
                early = b"554 5.5.0 Error: data received before the greeting\r\n"
                self.assertEqual(read(connection, b"\r\n"), early)


class HalfClosedTests(SystemTestCase):
    """A client may end its side behind its last word, and hears what became of it."""

    def send(self, connect: Callable[[], socket.socket], last: bytes) -> bytes:
        """What is said to a client that ends its side behind a message and this."""
        with connect() as connection:
            read(connection, b"220 ")
            connection.sendall(ENVELOPE)
            read(connection, b"354 ")
            connection.sendall(b"Subject: x\r\n\r\nx\r\n.\r\n" + last)
            connection.shutdown(socket.SHUT_WR)
            return read(connection)

    def test_replies(self) -> None:
        """Over TCP and a UNIX socket, with QUIT and without."""
        running = self.service(self.destination())
        path = running.directory / "socket"
        running.start("--listen", f"unix:{path}")

        def tcp() -> socket.socket:
            return socket.create_connection(running.address, 60)

        for connect in (tcp, lambda: over_unix(path)):
            said = self.send(connect, b"QUIT\r\n")
            self.assertRegex(said, rb"\A250 2\.0\.0 Ok: queued as \w+\r\n221 2\.0\.0 Bye\r\n\Z")
            said = self.send(connect, b"")
            self.assertRegex(said, rb"\A250 2\.0\.0 Ok: queued as \w+\r\n\Z")
