"""
Tests of L{smtpreuse.cli.service}. With a real service they are run in C{tests.system.test_reload}.
"""

from __future__ import annotations

import argparse
import io
import socket
from contextlib import redirect_stderr, redirect_stdout

from smtpreuse.cli import service
from smtpreuse.cli.control import ControlSocket, ServiceUnreachable
from smtpreuse.control.api import make_site
from smtpreuse.errors import ConfigurationError, ServiceEnding
from tests.cli.asking import AskingTestCase, Ended
from tests.control.wire import opener, spool_trouble


class ReloadTests(AskingTestCase):
    """C{smtpreuse reload} says whether the service goes by its configuration now."""

    def reload(self, *words: str) -> Ended:
        """Run it."""
        return self.run_words(service, "reload", *words)

    def test_good(self) -> None:
        """What waits for the next start is told."""
        self.assertEqual(self.reload(), Ended(0, "configuration read again\n", ""))
        self.acts.waiting = ["listen"]
        expected = "configuration read again\nlisten: takes effect at the next start\n"
        self.assertEqual(self.reload(), Ended(0, expected, ""))
        self.assertEqual(self.reload("--json"), Ended(0, '{"reloaded":true,"next_start":["listen"]}\n', ""))

    def test_bad(self) -> None:
        """Each problem is a line on standard error, and the status is 1."""
        self.acts.broken = ConfigurationError(["main.cf:1: one", "main.cf:2: two"])
        problems = "main.cf:1: one\nmain.cf:2: two\n"
        self.assertEqual(self.reload(), Ended(1, "", problems))
        expected = '{"reloaded":false,"problems":["main.cf:1: one","main.cf:2: two"]}\n'
        self.assertEqual(self.reload("--json"), Ended(1, expected, problems))

    def test_refused(self) -> None:
        """A service that is about to end says so."""
        self.acts.broken = ServiceEnding("the service is about to end")
        self.assertEqual(self.reload(), Ended(1, "", "the service is about to end\n"))
        expected = '{"reloaded":false,"problems":["the service is about to end"]}\n'
        self.assertEqual(self.reload("--json"), Ended(1, expected, "the service is about to end\n"))


class DrainTests(AskingTestCase):
    """C{smtpreuse drain} returns when the service is gone."""

    def setUp(self) -> None:
        super().setUp()
        self.time = 0.0
        self.looks: list[Exception | None] = []
        self.there = opener(make_site(self.desk, self.view, self.acts, self.clock, "9.8.7"))
        self.service = ControlSocket("control", self.open)

    def open(self, path: str) -> socket.socket:
        """Two connections are answered, then each meets what the test has put in."""
        if self.looks and self.acts.drains:
            problem = self.looks.pop(0)
            if problem is not None:
                raise problem
        return self.there(path)

    def pause(self, seconds: float) -> None:
        """Time passes."""
        self.time += seconds

    def drain(self, *words: str) -> Ended:
        """Run it."""
        arguments = argparse.Namespace(json="--json" in words)
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            status = service.drain(arguments, self.service, lambda: self.time, self.pause)
        return Ended(status, out.getvalue(), err.getvalue())

    def test_gone(self) -> None:
        """It was there for a while; then nobody listens, or its socket is gone."""
        for end in (ConnectionRefusedError(), FileNotFoundError()):
            self.time, self.acts.drains = 0.0, 0
            self.looks = [None, None, None, end]
            self.assertEqual(self.drain(), Ended(0, "drained in 0.3 s: the service has ended\n", ""))
        self.time, self.acts.drains = 0.0, 0
        self.looks = [None, None, ConnectionRefusedError()]
        self.assertEqual(self.drain("--json"), Ended(0, '{"drained":true,"seconds":0.2}\n', ""))

    def test_in_doubt(self) -> None:
        """A connection that breaks, or a queue that is closed already, is no end."""
        self.looks = [ConnectionResetError(), TimeoutError(), None, ConnectionRefusedError()]
        self.desk.broken = spool_trouble()
        self.assertEqual(self.drain(), Ended(0, "drained in 0.3 s: the service has ended\n", ""))

    def test_other_service(self) -> None:
        """Another one in its place is not the one that was to end."""
        pids = iter([1, 1, 2])
        self.patch(service, "_pid", lambda _: next(pids))
        self.assertEqual(self.drain(), Ended(0, "drained in 0.1 s: the service has ended\n", ""))

    def test_does_not_end(self) -> None:
        """It is waited for as long as it may take, and then not any longer."""
        self.assertEqual(self.drain(), Ended(
            1, "", "smtpreuse drain: the service is still there after 90 s; its log says why\n"
        ))  # fmt: skip

    def test_not_there(self) -> None:
        """Where there is no service there is nothing to drain."""

        def nobody(path: str) -> socket.socket:
            raise ConnectionRefusedError

        self.service = ControlSocket("control", nobody)
        self.assertRaises(ServiceUnreachable, self.drain)

    def test_command(self) -> None:
        """The words on the command line lead here."""
        self.patch(service, "_there", lambda service, pid: False)
        self.assertEqual(self.run_words(service, "drain", "--json").status, 0)
        self.assertEqual(self.acts.drains, 1)
