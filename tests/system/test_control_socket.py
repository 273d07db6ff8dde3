"""
The control socket and its commands over a real UNIX socket.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import tempfile
from contextlib import redirect_stderr, redirect_stdout

from twisted.internet import reactor
from twisted.internet.defer import maybeDeferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from smtpreuse.cli.main import main
from smtpreuse.control.api import make_site
from tests.control.wire import Acts, Desk, View, row


class ControlSocketTests(TestCase):
    """A command finds the service by its configuration alone."""

    def setUp(self) -> None:
        # Not mktemp: trial's path may be longer than a UNIX socket's may be.
        self.directory = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.directory)
        self.config = os.path.join(self.directory, "main.cf")
        with open(self.config, "w") as file:
            file.write("queue_directory = .\n")
        self.desk = Desk(rows=[row(f"4A{number:04d}") for number in range(2500)])
        port = reactor.listenUNIX(
            os.path.join(self.directory, "control"), make_site(self.desk, View(), Acts(), reactor, "9.8.7"), mode=0o660
        )
        self.addCleanup(lambda: maybeDeferred(port.stopListening))

    async def run_command(self, *words: str) -> tuple[int, str, str]:
        """Status, standard output and standard error of C{smtpreuse WORD...}."""

        def run() -> tuple[int, str, str]:
            out, err = io.StringIO(), io.StringIO()
            with redirect_stdout(out), redirect_stderr(err):
                status = main([*words, "--config", self.config])
            return status, out.getvalue(), err.getvalue()

        return await deferToThread(run)

    async def test_list(self) -> None:
        """A queue of several pages arrives whole."""
        status, out, err = await self.run_command("queue", "list", "--json")
        self.assertEqual((status, err), (0, ""))
        self.assertEqual(
            [json.loads(line)["queue_id"] for line in out.splitlines()], [each.queue_id for each in self.desk.rows]
        )

    async def test_delete(self) -> None:
        """Messages are deleted, and then they are not there."""
        self.assertEqual(
            await self.run_command("queue", "delete", "4A0000", "4A0001"), (0, "2 messages deleted\n", "")
        )
        self.assertEqual(
            await self.run_command("queue", "show", "4A0000"), (1, "", "smtpreuse: no such queue id: 4A0000\n")
        )

    async def test_status(self) -> None:
        """The service is running, and ready."""
        status, out, _ = await self.run_command("status", "--json")
        self.assertEqual((status, json.loads(out)["state"]), (0, "running"))
        self.assertEqual(await self.run_command("status", "--ready"), (0, "", ""))

    async def test_not_running(self) -> None:
        """Without a service the status is 69, but for C{--ready}."""
        other = os.path.join(self.directory, "other")
        override = ("-o", f"control_socket={other}")
        status, out, err = await self.run_command("sessions", *override)
        self.assertEqual((status, out), (69, ""))
        self.assertEqual(
            err, f"smtpreuse: the service does not answer on {other}: [Errno 2] No such file or directory\n"
        )
        self.assertEqual(await self.run_command("status", "--ready", *override), (1, "", ""))
