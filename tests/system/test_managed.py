"""
The service under a service manager: it is given its socket, and says how it is, as systemd's manual has it
(sd_listen_fds(3), sd_notify(3)).
"""

from __future__ import annotations

import socket
import sys

from tests.service import Service, until
from tests.system.injection import inject, letter
from tests.system.world import SystemTestCase

# Becomes the service, with the socket where systemd puts the first one, and the variables that tell of it.
SOCKET_UNIT = """
import os, socket, sys
listener = socket.socket()
listener.bind(("127.0.0.1", 0))
listener.listen(100)
if listener.fileno() != 3:
    os.dup2(listener.fileno(), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="smtp")
os.execv(sys.argv[1], sys.argv[1:])
"""


class Manager:
    """A service manager's ear."""

    def __init__(self, path: str) -> None:
        """
        @param path: of the socket.
        """
        self.path = path
        self.messages: list[dict[str, str]] = []
        self._end = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._end.bind(path)
        self._end.setblocking(False)

    def heard(self, name: str) -> list[str]:
        """The values of this variable so far, in order."""
        while True:
            try:
                lines = self._end.recv(4096).decode().split("\n")
            except BlockingIOError:
                break
            self.messages.append(dict(line.split("=", 1) for line in lines))
        return [message[name] for message in self.messages if name in message]

    def close(self) -> None:
        """Hear no more."""
        self._end.close()


class ManagedTests(SystemTestCase):
    """What a manager gives to the service is used, and what it wants to hear is said."""

    def managed(self, running: Service) -> Manager:
        """The manager of this service."""
        manager = Manager(str(running.directory / "notify"))
        self.addCleanup(manager.close)
        return manager

    def test_socket(self) -> None:
        """The socket that was passed is where mail is taken, by the name it has."""
        sink = self.destination(tls=True)
        running = self.service(sink)
        options = ("--listen", "systemd:domain=INET:name=smtp")
        running.start(*options, under=(sys.executable, "-c", SOCKET_UNIT))
        given = int(running.places[1].rpartition(":")[2])
        self.assertNotEqual(given, running.port)
        self.arrived(sink, inject(given, [letter("S1"), letter("S2")]).accepted)
        self.empty(running)

    def test_no_socket(self) -> None:
        """Without its socket unit the start says what is missing."""
        running = self.service(listen="systemd:domain=INET:name=smtp")
        running.launch("--listen", "systemd:domain=INET:name=smtp")
        self.assertEqual(running.wait(), 1)
        self.assertIn("was this started by its socket unit?", running.printed())

    def test_life(self) -> None:
        """Ready when mail is taken and not before, alive as long as the reactor turns, and an end that has its time."""
        sink = self.destination()
        running = self.service(sink, shutdown_timeout="7s")
        manager = self.managed(running)
        variables = (f"NOTIFY_SOCKET={manager.path}", "WATCHDOG_USEC=400000")
        running.launch(under=("env", *variables))
        until(lambda: manager.heard("READY") == ["1"], running.printed)
        self.assertIn(b"ready: listening on ", running.printed().encode())
        self.assertEqual(manager.messages[0]["READY"], "1")
        self.assertEqual(manager.heard("STATUS")[0], (
            "0 messages under way; since the start 0 delivered, 0 deferred, 0 bounced"
        ))  # fmt: skip
        until(lambda: len(manager.heard("WATCHDOG")) >= 3, running.printed)
        port = int(running.printed().partition("ready: listening on 127.0.0.1:")[2].split()[0])
        self.arrived(sink, inject(port, [letter("N1")]).accepted)
        until(lambda: "1 delivered" in manager.heard("STATUS")[-1], lambda: str(manager.messages))
        self.assertEqual(manager.heard("STOPPING"), [])
        self.assertEqual(running.stop(), 0)
        self.assertEqual((manager.heard("STOPPING"), manager.heard("EXTEND_TIMEOUT_USEC")), (["1"], ["19000000"]))
