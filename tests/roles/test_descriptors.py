"""
Tests of L{smtpreuse.roles.descriptors}.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from smtpreuse.roles.descriptors import allow_sessions


class AllowSessionsTests(SynchronousTestCase):
    """The limit of descriptors is raised where it is too low, and left alone where it is not."""

    def setUp(self) -> None:
        soft, self.hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, self.hard))
        if self.hard != resource.RLIM_INFINITY and self.hard < 4100:
            self.skipTest("the hard limit leaves no room")

    def soft(self) -> int:
        """The limit now."""
        return resource.getrlimit(resource.RLIMIT_NOFILE)[0]

    def test_raised(self) -> None:
        """As far as is needed."""
        resource.setrlimit(resource.RLIMIT_NOFILE, (1024, self.hard))
        self.assertEqual((allow_sessions(1000), self.soft()), (4000, 4000))

    def test_left_alone(self) -> None:
        """It is never lowered."""
        resource.setrlimit(resource.RLIMIT_NOFILE, (4050, self.hard))
        self.assertEqual((allow_sessions(1000), self.soft()), (4050, 4050))

    def test_hard_limit(self) -> None:
        """No further than the hard limit."""
        if self.hard == resource.RLIM_INFINITY:
            self.skipTest("there is no hard limit")
        resource.setrlimit(resource.RLIMIT_NOFILE, (1024, self.hard))
        self.assertEqual((allow_sessions(self.hard), self.soft()), (self.hard, self.hard))


class StandardStreamsTests(SynchronousTestCase):
    """No file of ours gets the number of a standard stream."""

    def closed(self, numbers: str, program: str) -> subprocess.CompletedProcess[str]:
        """What a program does that is started without these descriptors."""
        text = f"from smtpreuse.roles.descriptors import hold_standard_streams as hold\n{program}"
        closing = " ".join(f"{number}>&-" for number in numbers)
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        command = ["/bin/sh", "-c", f'exec "$0" -c "$1" {closing}', sys.executable, text]
        return subprocess.run(command, capture_output=True, text=True, env=environment)

    def test_closed(self) -> None:
        """Those that are not there are opened, and lead nowhere."""
        program = "import os; hold(); print(1); n = os.open('/', 0); os.write(2, b'%d' % n if n > 2 else b'taken')"
        ended = self.closed("01", program)
        self.assertEqual((ended.stdout, ended.returncode, ended.stderr), ("", 0, "3"))
        ended = self.closed("2", "import sys; hold(); print('x', file=sys.stderr); print('y')")
        self.assertEqual((ended.stdout, ended.stderr), ("y\n", ""))

    def test_failing(self) -> None:
        """Where it is asked for, writing fails as it would have failed."""
        ended = self.closed("1", "import os; hold(os.O_RDONLY); print('x', flush=True)")
        self.assertIn("Bad file descriptor", ended.stderr)

    def test_open(self) -> None:
        """Those that are there stay as they are."""
        ended = self.closed("", "hold(); print('x')")
        self.assertEqual((ended.stdout, ended.stderr), ("x\n", ""))
