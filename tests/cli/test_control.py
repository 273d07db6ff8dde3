"""
Tests of L{smtpreuse.cli.control}.
"""

from __future__ import annotations

import argparse
import http.client
import io
import os
import socket
from contextlib import redirect_stderr

from twisted.trial.unittest import SynchronousTestCase

from smtpreuse.cli.control import ControlSocket, ServiceRefused, ServiceUnreachable, asked
from smtpreuse.control.objects import Changed, Message
from smtpreuse.errors import ConfigurationError
from tests.cli.asking import AskingTestCase
from tests.control.wire import row, spool_trouble


class AskingTests(AskingTestCase):
    """What the service answers comes as values, or as an error that says why not."""

    def test_objects(self) -> None:
        """A list comes as values."""
        self.desk.rows = [row("4Aa")]
        (message,) = self.service.objects("/queue", Message)
        self.assertEqual((message.queue_id, message.recipients[0].address), ("4Aa", "user@example.com"))

    def test_post(self) -> None:
        """Something can be had done."""
        self.desk.rows = [row("4Aa")]
        changed = self.service.post("/queue/delete", [("id", "4Aa"), ("id", "4Ab")])
        self.assertEqual(changed, Changed(changed=1, in_flight=0))

    def test_refused(self) -> None:
        """What is refused carries its reason and its status."""
        with self.assertRaises(ServiceRefused) as caught:
            list(self.service.lines("/queue/4Aa"))
        self.assertEqual((caught.exception.status, str(caught.exception)), (404, "no such queue id: 4Aa"))
        self.desk.broken = spool_trouble()
        with self.assertRaises(ServiceRefused) as caught:
            self.service.post("/queue/flush")
        self.assertEqual(
            (caught.exception.status, str(caught.exception)), (503, "the queue cannot be used: disk I/O error")
        )

    def test_closes(self) -> None:
        """Every connection is closed, after a refusal too."""
        made: list[socket.socket] = []
        inner = self.service._opener

        def opener(path: str) -> socket.socket:
            made.append(inner(path))
            return made[-1]

        self.desk.rows = [row(f"4A{number:04d}") for number in range(1500)]
        service = ControlSocket("control", opener)
        self.assertEqual(len(list(service.lines("/queue"))), 1500)
        self.assertRaises(ServiceRefused, list, service.lines("/nothing"))
        self.assertEqual([each.fileno() for each in made], [-1, -1, -1])


class UnreachableTests(SynchronousTestCase):
    """A service that does not answer is named by its socket and the reason."""

    def test_no_socket(self) -> None:
        """Nobody is there."""
        path = self.mktemp()
        with self.assertRaises(ServiceUnreachable) as caught:
            ControlSocket(path).post("/queue/flush")
        self.assertEqual(
            str(caught.exception),
            f"the service does not answer on {path}: [Errno 2] No such file or directory",
        )

    def test_other_failures(self) -> None:
        """It hangs up, or stalls, or speaks something else."""
        closed, garbage = http.client.RemoteDisconnected("closed"), http.client.BadStatusLine("x")
        for error in (closed, TimeoutError("timed out"), garbage):

            def failing(path: str, error: Exception = error) -> socket.socket:
                raise error

            with self.assertRaises(ServiceUnreachable) as caught:
                list(ControlSocket("control", failing).lines("/queue"))
            self.assertTrue(str(caught.exception).endswith(f"control: {error}"))

    def test_no_reason(self) -> None:
        """An error without a text is named by its kind."""

        def failing(path: str) -> socket.socket:
            raise http.client.HTTPException

        with self.assertRaises(ServiceUnreachable) as caught:
            list(ControlSocket("control", failing).lines("/queue"))
        self.assertEqual(str(caught.exception), "the service does not answer on control: HTTPException")


class AskedTests(SynchronousTestCase):
    """The service is the one that the configuration names."""

    def arguments(self, *overrides: str) -> argparse.Namespace:
        """Common options with an empty main.cf."""
        config = self.mktemp()
        with open(config, "w"):
            pass
        return argparse.Namespace(config=config, overrides=list(overrides))

    def test_asked(self) -> None:
        """Its exit status is what the asking returned."""
        paths: list[str] = []

        def ask(service: ControlSocket) -> int:
            paths.append(service._path)
            return 5

        self.assertEqual(asked(self.arguments("control_socket=/run/x/control"), ask), 5)
        self.assertEqual(paths, ["/run/x/control"])

    def test_unreachable(self) -> None:
        """Nobody answers: 69, with the path."""
        path = os.path.abspath(self.mktemp())
        err = io.StringIO()

        def ask(service: ControlSocket) -> int:
            return len(list(service.lines("/queue")))

        with redirect_stderr(err):
            self.assertEqual(asked(self.arguments(f"control_socket={path}"), ask), 69)
        self.assertEqual(
            err.getvalue(), f"smtpreuse: the service does not answer on {path}: [Errno 2] No such file or directory\n"
        )

    def test_refused(self) -> None:
        """A refusal is for the command's entry to tell."""

        def ask(service: ControlSocket) -> int:
            raise ServiceRefused(404, "no such queue id: 4Aa")

        self.assertRaises(ServiceRefused, asked, self.arguments("control_socket=/x"), ask)

    def test_bad_configuration(self) -> None:
        """So is a configuration that cannot be used; who only wants to know where the service is does not mind."""
        arguments = self.arguments("no_such_parameter=1", "control_socket=/run/x/control")
        self.assertRaises(ConfigurationError, asked, arguments, lambda service: 0)
        paths: list[str] = []

        def ask(service: ControlSocket) -> int:
            paths.append(service._path)
            return 5

        self.assertEqual((asked(arguments, ask, strict=False), paths), (5, ["/run/x/control"]))
