"""
Tests of L{smtpreuse.routing.ourselves} on a host whose addresses move.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from twisted.trial.unittest import SkipTest, SynchronousTestCase


class NonlocalBindTests(SynchronousTestCase):
    """Only what is delivered on this host is taken for it."""

    def test_bindable(self) -> None:
        """That a socket can be bound to any address (ip_nonlocal_bind) makes none of them ours."""
        unshare = shutil.which("unshare")
        if unshare is None or subprocess.run([unshare, "-n", "true"], capture_output=True, check=False).returncode:
            raise SkipTest("only root can make a network of its own (unshare -n)")
        program = (
            "import pathlib, socket; from smtpreuse.routing.ourselves import is_local; "
            "pathlib.Path('/proc/sys/net/ipv4/ip_nonlocal_bind').write_text('1'); "
            "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).bind(('192.0.2.1', 0)); "
            "print(is_local('192.0.2.1'), is_local('127.0.0.1'))"
        )
        done = subprocess.run(
            [unshare, "-n", sys.executable, "-W", "ignore", "-c", program],
            capture_output=True, text=True, check=False, env={"PYTHONPATH": os.pathsep.join(sys.path)},
        )  # fmt: skip
        self.assertEqual((done.stdout.split(), done.stderr), (["False", "True"], ""))
