"""
Tests of L{smtpreuse.roles.clock}. A service whose wall clock is set is in C{tests.system.test_clock}.
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import time
from pathlib import Path

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from smtpreuse.roles import clock
from smtpreuse.roles.clock import SteadyClock

# A reactor in a process of its own: its clock is made one that we turn by hand, and the wall's stands far away from it.
REACTOR = """
import json, sys, time
time.time = lambda: 5e9
from twisted.internet import {reactor}
{reactor}.install()
from twisted.internet import reactor
from smtpreuse.roles.clock import SteadyClock

turned, rung = [1000.0], []
class Turned(SteadyClock):
    def seconds(self):
        return turned[0]
Turned(0.0).drive(reactor)

first = reactor.callLater(10, rung.append, "first")
moved = reactor.callLater(10, rung.append, "moved")
seen = {{"scheduled": [first.getTime(), moved.getTime()]}}
turned[0] = 1004.0
moved.reset(20)
seen["reset"] = moved.getTime()
moved.delay(5)
seen["delayed"] = moved.getTime()
seen["sleep"] = [reactor.timeout()]
turned[0] = 1009.0
reactor.runUntilCurrent()
seen["early"] = list(rung)
seen["sleep"].append(reactor.timeout())
turned[0] = 1010.0
reactor.runUntilCurrent()
seen["first"] = [list(rung), first.active(), moved.active()]
turned[0] = 1029.0

def run():
    # In the running reactor: both the end of its sleep and what is due are by this clock.
    reactor.callLater(1, reactor.stop)
    turned[0] += 1
reactor.callWhenRunning(run)
reactor.run()
seen["moved"] = [list(rung), moved.active()]
print(json.dumps(seen))
"""


class SteadyClockTests(SynchronousTestCase):
    """A clock that agrees with the wall's at one moment, and goes on by itself."""

    def setUp(self) -> None:
        self.path = os.path.abspath(self.mktemp())
        self.boot = "boot-1"
        self.patch(clock, "_boot", lambda: self.boot)
        self.passed = 50.0
        self.patch(clock, "passed", lambda: self.passed)
        self.wall = 1000.0
        self.patch(time, "time", lambda: self.wall)

    def test_by_the_wall(self) -> None:
        """It begins with the wall's time, and heeds what passes and not what the wall shows afterwards."""
        steady = SteadyClock.by_the_wall()
        self.assertEqual(steady.seconds(), 1000.0)
        self.passed += 7
        self.wall -= 3600
        self.assertEqual(steady.seconds(), 1007.0)

    def test_offset(self) -> None:
        """Two processes with one offset agree; it survives a command line."""
        steady = SteadyClock(0.1 + 0.2)
        self.assertEqual(SteadyClock(float(repr(steady.offset))), steady)

    def test_continued(self) -> None:
        """A service that follows another one within a boot goes by its clock, whatever was done to the wall's."""
        SteadyClock.by_the_wall().remember(self.path)
        self.passed += 7
        self.wall += 86400
        self.assertEqual(SteadyClock.continued(self.path).seconds(), 1007.0)
        self.assertEqual(os.listdir(os.path.dirname(self.path)).count(os.path.basename(self.path)), 1)
        self.assertFalse(os.path.exists(f"{self.path}.new"))
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o600)

    def test_other_boot(self) -> None:
        """What another boot left behind says nothing: what has passed begins anew with each."""
        SteadyClock.by_the_wall().remember(self.path)
        self.boot, self.passed, self.wall = "boot-2", 3.0, 2000.0
        self.assertEqual(SteadyClock.continued(self.path).seconds(), 2000.0)

    def test_no_boot(self) -> None:
        """Where boots have no names nothing is remembered."""
        self.boot = ""
        SteadyClock.by_the_wall().remember(self.path)
        self.assertFalse(os.path.exists(self.path))
        self.assertEqual(SteadyClock.continued(self.path).seconds(), 1000.0)

    def test_unreadable(self) -> None:
        """Whatever else is in the file, the service starts, and by the wall's clock."""
        for octets in (b"", b"boot-1", b"boot-1 x", b"boot-1 nan", b"boot-1 inf", b"boot-1 1 2", b"\xff\n", b"0" * 999):
            Path(self.path).write_bytes(octets)
            self.assertEqual(SteadyClock.continued(self.path).seconds(), 1000.0, octets)
        os.unlink(self.path)
        os.mkdir(self.path)
        self.assertEqual(SteadyClock.continued(self.path).seconds(), 1000.0)

    def test_drive(self) -> None:
        """What is driven tells this clock's time."""
        driven = Clock()
        SteadyClock(1.0).drive(driven)
        self.assertEqual(driven.seconds(), 51.0)


class PassedTests(SynchronousTestCase):
    """What the machine measures."""

    def test_passes(self) -> None:
        """It goes forward, and is no wall clock; a boot has a name of its own on Linux."""
        before = clock.passed()
        self.assertLessEqual(before, clock.passed())
        self.assertGreater(abs(before - time.time()), 86400)
        if sys.platform == "linux":
            self.assertEqual(len(clock._boot()), 36)


class ReactorTests(SynchronousTestCase):
    """
    Twisted's reactors ask their C{seconds} for all they time: when a call is due, when it is due after a reset or a
    delay, for how long to sleep, and what has come due. No other clock is asked; the wall's would say 5e9 here.
    """

    def driven(self, reactor: str) -> None:
        """One of Twisted's reactors in a process of its own."""
        path = os.pathsep.join([str(Path(clock.__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
        ended = subprocess.run(
            [sys.executable, "-c", REACTOR.format(reactor=reactor)], capture_output=True, text=True, timeout=60,
            env={**os.environ, "PYTHONPATH": path},
        )  # fmt: skip
        self.assertEqual((ended.returncode, ended.stderr), (0, ""))
        self.assertEqual(json.loads(ended.stdout), {
            "scheduled": [1010.0, 1010.0], "reset": 1024.0, "delayed": 1029.0, "sleep": [6.0, 1.0], "early": [],
            "first": [["first"], False, True], "moved": [["first", "moved"], False],
        })  # fmt: skip

    def test_epoll(self) -> None:
        """The one that Linux has by default."""
        if not sys.platform.startswith("linux"):
            self.skipTest("epoll is Linux's")
        self.driven("epollreactor")

    def test_poll(self) -> None:
        """The one of other systems."""
        self.driven("pollreactor")

    def test_select(self) -> None:
        """The one that every system has."""
        self.driven("selectreactor")
