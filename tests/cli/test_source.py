"""
Tests of L{smtpreuse.cli.source}. It runs as a process of its own in C{tests.system.test_sink}.
"""

from __future__ import annotations

import argparse
from contextlib import redirect_stderr
from io import StringIO

from twisted.trial.unittest import SynchronousTestCase

from smtpreuse.cli import source
from smtpreuse.cli.options import common_options
from smtpreuse.errors import ConfigurationError


def parsed(*words: str) -> argparse.Namespace:
    """The arguments of a command line."""
    parser = argparse.ArgumentParser()
    source.add(parser.add_subparsers(), common_options())
    return parser.parse_args(["source", *words])


class ArgumentTests(SynchronousTestCase):
    """The options are those that scripts rely on."""

    def test_defaults(self) -> None:
        """Only the server has to be named."""
        arguments = parsed("localhost:25")
        self.assertEqual(
            (arguments.server, arguments.messages, arguments.size, arguments.connections, arguments.recipients),
            ("localhost:25", 100, 4096, 10, 1),
        )

    def test_server(self) -> None:
        """A server is a host and a port."""
        self.assertEqual(parsed("[::1]:25").server, "[::1]:25")
        for word in ("localhost", ":25", "localhost:", "localhost:0", "localhost:65536", "localhost:smtp"):
            with redirect_stderr(StringIO()) as said:
                self.assertRaises(SystemExit, parsed, word)
            self.assertIn("is not HOST:PORT", said.getvalue())

    def test_numbers(self) -> None:
        """Numbers are at least 1."""
        with redirect_stderr(StringIO()) as said:
            self.assertRaises(SystemExit, parsed, "localhost:25", "--messages", "0")
        self.assertIn("at least 1", said.getvalue())

    def test_configuration(self) -> None:
        """It needs no configuration, but one that is named has to be right."""
        for words in (("--config", "/nowhere/main.cf"), ("-o", "nosuch=1")):
            self.assertRaises(ConfigurationError, source.command, parsed("localhost:25", *words))
