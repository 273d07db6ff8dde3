"""
Tests of L{smtpreuse.roles.notify}. A service that a manager starts is in C{tests.system.test_managed}.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import time

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from smtpreuse.roles.notify import STATUS_EVERY, Notifier


class NotifierTestCase(SynchronousTestCase):
    """A manager that listens at a path."""

    def setUp(self) -> None:
        self.clock = Clock()
        # A short path: a UNIX socket's has at most 107 octets.
        self.directory = tempfile.mkdtemp(prefix="smtpreuse-test-")
        self.addCleanup(shutil.rmtree, self.directory)
        self.path = os.path.join(self.directory, "notify")
        self.manager = self.listening(self.path)

    def listening(self, address: str | bytes) -> socket.socket:
        """A manager's socket."""
        manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(manager.close)
        manager.bind(address)
        manager.setblocking(False)
        return manager

    def heard(self) -> list[list[str]]:
        """The lines of each message since the last look."""
        messages = []
        while True:
            try:
                messages.append(self.manager.recv(4096).decode().split("\n"))
            except BlockingIOError:
                return messages


class NotifierTests(NotifierTestCase):
    """The manager hears what sd_notify(3) has words for."""

    def test_ready(self) -> None:
        """Ready, with a line for people that is one line, and is kept up to date."""
        states = iter(["one\nREADY=0  line", "another"])
        Notifier(self.clock, self.path).ready(lambda: next(states))
        self.assertEqual(self.heard(), [["READY=1", "STATUS=one READY=0 line"]])
        self.clock.advance(STATUS_EVERY)
        self.assertEqual(self.heard(), [["STATUS=another"]])

    def test_watchdog(self) -> None:
        """We are alive, twice within the time after which the manager would give us up; not before we are ready."""
        notifier = Notifier(self.clock, self.path, watchdog=8.0)
        self.clock.advance(8)
        self.assertEqual(self.heard(), [])
        notifier.ready(str)
        self.heard()
        self.clock.pump([4.0, 4.0])
        self.assertEqual(self.heard(), [["WATCHDOG=1"]] * 2)

    def test_watchdog_as_often_as_status(self) -> None:
        """Both are sent where their times agree, and both end."""
        notifier = Notifier(self.clock, self.path, watchdog=2 * STATUS_EVERY)
        notifier.ready(str)
        self.heard()
        self.clock.advance(STATUS_EVERY)
        self.assertEqual(sorted(self.heard()), [["STATUS="], ["WATCHDOG=1"]])
        notifier.close()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_reloading(self) -> None:
        """The manager waits while a configuration is taken up, and hears of its end whatever comes of it."""
        notifier = Notifier(self.clock, self.path)
        notifier.ready(lambda: "up")
        self.heard()
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000

        def reload() -> None:
            with notifier.reloading():
                ((state, moment),) = self.heard()
                self.assertEqual(state, "RELOADING=1")
                name, _, number = moment.partition("=")
                self.assertEqual(name, "MONOTONIC_USEC")
                self.assertTrue(before <= int(number) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000)
                raise ValueError("a bad main.cf")

        self.assertRaises(ValueError, reload)
        self.assertEqual(self.heard(), [["READY=1", "STATUS=up"]])

    def test_stopping(self) -> None:
        """The manager gives a drain its time; the line for people stays what it says, the sign of life goes on."""
        notifier = Notifier(self.clock, self.path, watchdog=8.0)
        notifier.ready(lambda: "up")
        self.heard()
        notifier.stopping(32.5)
        self.assertEqual(self.heard(), [["STOPPING=1", "EXTEND_TIMEOUT_USEC=32500000", "STATUS=draining"]])
        self.clock.advance(STATUS_EVERY)
        self.assertEqual(self.heard(), [["WATCHDOG=1"]])
        notifier.close()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_abstract(self) -> None:
        """A socket without a path."""
        name = f"smtpreuse-test-{os.getpid()}"
        self.manager = self.listening(f"\0{name}")
        Notifier(self.clock, f"@{name}").ready(str)
        self.assertEqual(self.heard(), [["READY=1", "STATUS="]])

    def test_nobody(self) -> None:
        """Without a manager nothing is sent and no timer runs."""
        notifier = Notifier(self.clock, "", watchdog=8.0)
        notifier.ready(str)
        with notifier.reloading():
            pass
        notifier.stopping(1.0)
        notifier.close()
        self.assertEqual((self.clock.getDelayedCalls(), self.heard()), ([], []))

    def test_manager_gone(self) -> None:
        """A manager that cannot be told does no harm; it hears us when it is back."""
        notifier = Notifier(self.clock, self.path)
        self.manager.close()
        os.unlink(self.path)
        notifier.ready(str)
        self.clock.advance(STATUS_EVERY)
        self.manager = self.listening(self.path)
        self.clock.advance(STATUS_EVERY)
        self.assertEqual(self.heard(), [["STATUS="]])

    def test_manager_busy(self) -> None:
        """Nor does one that does not read: nothing waits for it."""
        notifier = Notifier(self.clock, self.path)
        notifier.ready(str)
        self.clock.pump([STATUS_EVERY] * 2000)
        self.assertTrue(10 <= len(self.heard()) < 2000)
        self.clock.advance(STATUS_EVERY)
        self.assertEqual(self.heard(), [["STATUS="]])


class EnvironmentTests(NotifierTestCase):
    """What the environment says of the manager is heeded once, and is not passed on to processes that we start."""

    def made(self, **variables: str) -> dict[str, str]:
        """What is left of an environment; the notifier of it was ready for ten seconds."""
        environment = {"PATH": "/bin", "NOTIFY_SOCKET": self.path, **variables}
        Notifier.from_environment(self.clock, environment).ready(str)
        self.heard()
        self.clock.advance(2.5)
        return environment

    def test_removed(self) -> None:
        """All three variables."""
        self.assertEqual(self.made(WATCHDOG_USEC="5000000", WATCHDOG_PID=str(os.getpid())), {"PATH": "/bin"})
        self.assertEqual(self.heard(), [["WATCHDOG=1"]])

    def test_watchdog_of_anybody(self) -> None:
        """Without a process id it is ours."""
        self.made(WATCHDOG_USEC="5000000")
        self.assertEqual(self.heard(), [["WATCHDOG=1"]])

    def test_watchdog_of_another(self) -> None:
        """The watchdog of another process is not ours, nor is one without a time."""
        self.made(WATCHDOG_USEC="5000000", WATCHDOG_PID="1")
        self.made(WATCHDOG_USEC="soon")
        self.made(WATCHDOG_USEC="0")
        self.assertEqual(self.heard(), [])

    def test_none(self) -> None:
        """An environment that names no manager."""
        self.assertEqual(self.made(NOTIFY_SOCKET=""), {"PATH": "/bin"})
        self.assertEqual(self.heard(), [])
