"""
Tests of L{smtpreuse.roles.controlport}. They need real sockets: what is promised is about the file system.
"""

from __future__ import annotations

import os
import shutil
import socket
import stat
import tempfile
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.defer import maybeDeferred
from twisted.internet.protocol import Factory
from twisted.trial.unittest import SynchronousTestCase, TestCase

from smtpreuse.errors import StartError
from smtpreuse.roles.controlport import ControlPort, clear


class PathCase(SynchronousTestCase):
    """A path for a socket, short enough to be one."""

    def setUp(self) -> None:
        directory = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, directory)
        self.path = directory / "control"

    def listener(self) -> socket.socket:
        """Somebody listens there."""
        listening = socket.socket(socket.AF_UNIX)
        self.addCleanup(listening.close)
        listening.bind(str(self.path))
        listening.listen(1)
        return listening

    def refused(self) -> str:
        """Why the path cannot be had; what is there stays there."""
        before = os.lstat(self.path)
        with self.assertRaises(StartError) as caught:
            clear(str(self.path))
        self.assertEqual(os.lstat(self.path).st_ino, before.st_ino)
        return str(caught.exception)


class ClearTests(PathCase):
    """Only a socket that nobody listens on makes room."""

    def test_nothing_there(self) -> None:
        """Then there is nothing to do."""
        clear(str(self.path))

    def test_left_behind(self) -> None:
        """A socket whose service is gone is removed."""
        self.listener().close()
        clear(str(self.path))
        self.assertFalse(os.path.lexists(self.path))

    def test_other_service(self) -> None:
        """One that answers is another service's."""
        self.listener()
        self.assertEqual(self.refused(), f"another service listens there: {self.path}")

    def test_busy_service(self) -> None:
        """One that is too busy to answer is so too."""
        self.listener()
        for _ in range(3):
            client = socket.socket(socket.AF_UNIX)
            self.addCleanup(client.close)
            client.setblocking(False)
            client.connect_ex(str(self.path))
        self.assertEqual(self.refused(), f"another service listens there: {self.path}")

    def test_no_socket(self) -> None:
        """Files, directories, and links to whatever are not removed: the path may be a mistake."""
        expected = f"something is there that is no socket, and is not removed: {self.path}"
        self.path.write_text("the only copy")
        self.assertEqual(self.refused(), expected)
        self.path.unlink()
        self.path.mkdir()
        self.assertEqual(self.refused(), expected)
        self.path.rmdir()
        self.path.symlink_to("nowhere")
        self.assertEqual(self.refused(), expected)

    def test_other_kind(self) -> None:
        """A socket that is not of our kind is not removed either."""
        other = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(other.close)
        other.bind(str(self.path))
        self.assertIn("of which nobody knows whose it is", self.refused())

    def test_unreachable(self) -> None:
        """What cannot be looked at is told."""
        self.path.write_text("")
        with self.assertRaises(StartError) as caught:
            clear(f"{self.path}/control")
        self.assertIn(f"cannot be looked at (Not a directory): {self.path}/control", str(caught.exception))


class ControlPortTests(PathCase, TestCase):
    """A port that leaves alone what is not its own."""

    def listening(self) -> ControlPort:
        """It listens."""
        port = ControlPort(str(self.path), Factory(), reactor)
        port.startListening()
        return port

    async def test_removed(self) -> None:
        """Its group may use it while it is there, and it goes with its service."""
        port = self.listening()
        self.assertEqual(stat.S_IMODE(os.lstat(self.path).st_mode), 0o660)
        await maybeDeferred(port.stopListening)
        self.assertFalse(os.path.lexists(self.path))

    async def test_replaced(self) -> None:
        """What somebody else has put there stays."""
        port = self.listening()
        self.path.rename(self.path.with_name("away"))
        self.path.write_text("not yours")
        await maybeDeferred(port.stopListening)
        self.assertEqual(self.path.read_text(), "not yours")

    async def test_gone(self) -> None:
        """That it is gone already is no fault."""
        port = self.listening()
        self.path.unlink()
        await maybeDeferred(port.stopListening)
