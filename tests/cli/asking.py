"""
A subcommand with a service behind it, all of the way over HTTP but for the socket.
"""

from __future__ import annotations

import argparse
import io
import os
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout

from attrs import frozen
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from smtpreuse.cli.control import ControlSocket
from smtpreuse.cli.options import common_options
from smtpreuse.control.api import make_site
from tests.control.wire import Acts, Desk, View, opener


@frozen
class Ended:
    """How a subcommand ended."""

    status: int
    out: str
    err: str


class AskingTestCase(SynchronousTestCase):
    """Runs subcommands of one module; local time is UTC."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1795299618.0)
        self.desk = Desk()
        self.view = View()
        self.acts = Acts()
        site = make_site(self.desk, self.view, self.acts, self.clock, "9.8.7", self.clock.seconds)
        self.service = ControlSocket("control", opener(site))
        before = os.environ.get("TZ")
        self.addCleanup(self._zone, before)
        self._zone("UTC")

    def _zone(self, name: str | None) -> None:
        if name is None:
            del os.environ["TZ"]
        else:
            os.environ["TZ"] = name
        time.tzset()

    def run_words(self, module: object, *words: str) -> Ended:
        """Run C{smtpreuse WORD...}; the service is at hand, and what the configuration says is not looked at."""

        def asked(arguments: argparse.Namespace, ask: Callable[[ControlSocket], int], *, strict: bool = True) -> int:
            return ask(self.service)

        self.patch(module, "asked", asked)
        parser = argparse.ArgumentParser()
        module.add(parser.add_subparsers(), common_options())  # type: ignore[attr-defined]  # a module of a subcommand
        arguments = parser.parse_args(words)
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            status = arguments.run(arguments)
        return Ended(status, out.getvalue(), err.getvalue())
