"""
Tests of L{smtpreuse.cli.child}.
"""

from __future__ import annotations

import os

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ProcessDone, ProcessExitedAlready, ProcessTerminated
from twisted.internet.interfaces import IProcessTransport, IReactorProcess
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from smtpreuse.cli.child import START_LIMIT, STOP_LIMIT, ServiceProcess, twistd
from smtpreuse.errors import SmtpreuseError

CONFIG = ["--config", "main.cf"]


@implementer(IProcessTransport)
class Process:
    """Records the signals it gets."""

    def __init__(self) -> None:
        self.signals: list[str] = []
        self.gone = False

    def signalProcess(self, name: str) -> None:
        """A signal."""
        if self.gone:
            raise ProcessExitedAlready
        self.signals.append(name)


@implementer(IReactorProcess)
class Spawner:
    """Records what is started."""

    def __init__(self) -> None:
        self.process = Process()
        self.command: list[str] = []

    def spawnProcess(
        self, protocol: ServiceProcess, executable: str, args: list[str], env: dict[str, str], path: str
    ) -> None:
        """Start it."""
        self.command = [executable, *args[1:]]
        self.directory = path
        protocol.makeConnection(self.process)


class TwistdTests(SynchronousTestCase):
    """The service is started with the twistd of this environment."""

    def test_found(self) -> None:
        """It is there, and it can be run."""
        self.assertTrue(os.access(twistd(), os.X_OK))

    def test_missing(self) -> None:
        """Without it the reason is said."""
        self.patch(os, "environ", {"PATH": ""})
        self.patch(__import__("sysconfig"), "get_path", lambda name: "/nowhere")
        self.assertRaises(SmtpreuseError, twistd)


class ServiceProcessTests(SynchronousTestCase):
    """Tells when the service is ready and when it has ended, and why."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.spawner = Spawner()
        self.service = ServiceProcess(self.clock)
        self.service.start(self.spawner, CONFIG, "/somewhere")

    def address(self) -> Deferred[str]:
        """Wait for it."""
        return Deferred.fromCoroutine(self.service.address())

    def end(self, reason: Exception) -> None:
        """The process ends."""
        self.spawner.process.gone = True
        self.service.processEnded(Failure(reason))

    def test_command(self) -> None:
        """It is started as the README says."""
        self.assertEqual(self.spawner.command, [twistd(), "-n", "--pidfile=", "smtpreuse", "--end-with-stdin", *CONFIG])
        self.assertEqual(self.spawner.directory, "/somewhere")

    def test_ready(self) -> None:
        """The address is read from its line, in whatever pieces it comes, among other lines."""
        address = self.address()
        for octet in b"2026 starting\nready: listening on 127.0.0.1:2525":
            self.service.outReceived(bytes([octet]))
        self.assertNoResult(address)
        self.service.outReceived(b"\nNov 22 more\n")
        self.assertEqual(self.successResultOf(address), "127.0.0.1:2525")
        self.service.outReceived(b"more\n")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_ready_before(self) -> None:
        """The line may have come before anybody waited."""
        self.service.outReceived(b"ready: listening on 127.0.0.1:2525\n")
        self.assertEqual(self.successResultOf(self.address()), "127.0.0.1:2525")

    def test_does_not_start(self) -> None:
        """When it ends before it is ready, what it complained of is the reason."""
        address = self.address()
        self.service.outReceived(b"nothing\n")
        self.service.errReceived(b"main.cf:1: relayhost: ")
        self.service.errReceived(b"not a host\n")
        self.end(ProcessTerminated(exitCode=1))
        failure = self.failureResultOf(address, SmtpreuseError)
        self.assertEqual(str(failure.value), "the service did not start: main.cf:1: relayhost: not a host")

    def test_does_not_get_ready(self) -> None:
        """It has a limited time to get ready."""
        address = self.address()
        self.service.outReceived(b"still thinking\n")
        self.clock.advance(START_LIMIT)
        failure = self.failureResultOf(address, SmtpreuseError)
        self.assertEqual(str(failure.value), "the service did not start: still thinking")
        self.service.outReceived(b"ready: listening on 127.0.0.1:2525\n")

    def test_stops(self) -> None:
        """SIGTERM ends it, and its status is known."""
        stopping = Deferred.fromCoroutine(self.service.stop())
        self.assertNoResult(stopping)
        self.assertEqual(self.spawner.process.signals, ["TERM"])
        self.end(ProcessDone(0))
        self.assertEqual(self.successResultOf(stopping), 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_has_to_be_killed(self) -> None:
        """When SIGTERM does not end it, SIGKILL does."""
        stopping = Deferred.fromCoroutine(self.service.stop())
        self.clock.advance(STOP_LIMIT)
        self.assertEqual(self.spawner.process.signals, ["TERM", "KILL"])
        self.end(ProcessTerminated(signal=9))
        self.assertEqual(self.successResultOf(stopping), -9)

    def test_has_ended_already(self) -> None:
        """A service that has ended is not stopped again."""
        self.end(ProcessTerminated(exitCode=3))
        self.assertEqual(self.successResultOf(Deferred.fromCoroutine(self.service.stop())), 3)
        self.assertEqual(self.spawner.process.signals, [])

    def test_told_twice(self) -> None:
        """Who gives up waiting for the end may wait again."""
        first = Deferred.fromCoroutine(self.service.stop())
        first.addErrback(lambda failure: failure.trap(CancelledError))
        first.cancel()
        second = Deferred.fromCoroutine(self.service.stop())
        self.assertNoResult(second)
        self.end(ProcessDone(0))
        self.assertEqual(self.successResultOf(second), 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])
