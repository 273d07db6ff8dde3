"""
Clients that are not like others, on real sockets.
"""

from __future__ import annotations

import socket
from collections.abc import Callable

from tests.system.world import SystemTestCase

ENVELOPE = b"MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.test>\r\nDATA\r\n"


def read(connection: socket.socket, until: bytes = b"") -> bytes:
    """What comes up to this, or up to the end."""
    got = b""
    while not (until and until in got) and (piece := connection.recv(4096)):
        got += piece
    return got


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

        def unix() -> socket.socket:
            connection = socket.socket(socket.AF_UNIX)
            connection.settimeout(60)
            connection.connect(str(path))
            return connection

        for connect in (tcp, unix):
            said = self.send(connect, b"QUIT\r\n")
            self.assertRegex(said, rb"\A250 2\.0\.0 Ok: queued as \w+\r\n221 2\.0\.0 Bye\r\n\Z")
            said = self.send(connect, b"")
            self.assertRegex(said, rb"\A250 2\.0\.0 Ok: queued as \w+\r\n\Z")
