"""
Tests of L{smtpreuse.cli.sink}. It runs as a process of its own in C{tests.system.test_sink}.
"""

from __future__ import annotations

import argparse
import signal
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from smtpreuse.cli import sink
from smtpreuse.cli.habits import Demand, Habits
from smtpreuse.cli.options import common_options
from smtpreuse.errors import ConfigurationError


def parsed(*words: str) -> argparse.Namespace:
    """The arguments of a command line."""
    parser = argparse.ArgumentParser()
    sink.add(parser.add_subparsers(), common_options())
    return parser.parse_args(["sink", *words])


class ArgumentTests(SynchronousTestCase):
    """The options are those that scripts rely on."""

    def test_defaults(self) -> None:
        """A bare sink listens on a free loopback port, offers TLS and has no limits."""
        arguments = parsed()
        self.assertEqual(arguments.listen, "tcp:0:interface=127.0.0.1")
        self.assertEqual(arguments.tls, "on")
        self.assertEqual(
            (arguments.delay, arguments.max_connections, arguments.messages_per_connection, arguments.capture),
            (0.0, 0, 0, ""),
        )

    def test_demands(self) -> None:
        """TLS is off, on or required."""
        self.assertEqual([parsed("--tls", word).tls for word in ("off", "on", "required")], ["off", "on", "required"])
        with redirect_stderr(StringIO()) as said:
            self.assertRaises(SystemExit, parsed, "--tls", "maybe")
        self.assertIn("required", said.getvalue())

    def test_numbers(self) -> None:
        """What cannot be a delay or a limit is a wrong usage."""
        for words in (
            ("--delay", "-1"), ("--delay", "nan"), ("--delay", "inf"), ("--delay", "x"), ("--max-connections", "-1"),
            ("--messages-per-connection", "-2"), ("--max-connections", "1.5"),
        ):  # fmt: skip
            with redirect_stderr(StringIO()), self.assertRaises(SystemExit) as caught:
                parsed(*words)
            self.assertEqual(caught.exception.code, 2)

    def test_configuration(self) -> None:
        """It needs no configuration, but one that is named has to be right."""
        for words in (("--config", "/nowhere/main.cf"), ("-o", "nosuch=1")):
            self.assertRaises(ConfigurationError, sink.command, parsed(*words))


class ServeTests(SynchronousTestCase):
    """Whoever has read where it listens may send it signals at once."""

    def test_ready(self) -> None:
        """When the address is printed SIGUSR1 is handled."""
        before = signal.getsignal(signal.SIGUSR1)
        self.addCleanup(signal.signal, signal.SIGUSR1, before)
        found: list[bool] = []

        class Output(StringIO):
            def write(self, text: str) -> int:
                if "listening" in text:
                    found.append(signal.getsignal(signal.SIGUSR1) != before)
                return super().write(text)

        with redirect_stdout(Output()):
            running = Deferred.fromCoroutine(sink.serve(parsed("--tls", "off"), MemoryReactorClock()))
        self.assertNoResult(running)
        self.assertEqual(found, [True])


class CertificateTests(SynchronousTestCase):
    """A certificate is made, read, or not needed."""

    def test_not_needed(self) -> None:
        """Without TLS there is none."""
        self.assertIsNone(sink.certificate_for(Habits(demand=Demand.OFF), "", ""))

    def test_made(self) -> None:
        """Without files one is made."""
        self.assertIsNotNone(sink.certificate_for(Habits(), "", ""))

    def test_read(self) -> None:
        """With files they are read."""
        self.assertRaises(OSError, sink.certificate_for, Habits(), "/nowhere/cert.pem", "")


class AddressTests(SynchronousTestCase):
    """Addresses are written as scripts can use them."""

    def test_forms(self) -> None:
        """IPv4, IPv6, UNIX."""
        self.assertEqual(sink.address_text(IPv4Address("TCP", "127.0.0.1", 25)), "127.0.0.1:25")
        self.assertEqual(sink.address_text(IPv6Address("TCP", "::1", 25)), "[::1]:25")
        self.assertEqual(sink.address_text(UNIXAddress("/run/sink")), "/run/sink")
