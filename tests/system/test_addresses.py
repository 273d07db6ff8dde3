"""
What counts as ourselves, on a real host: addresses that move, and endpoints that name no address.
"""

from __future__ import annotations

import os
import shutil
import smtplib
import socket
import subprocess
import sys

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.service import until
from tests.system.world import SystemTestCase


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


class ListeningTests(SystemTestCase):
    """A relay host that is this service is seen, however the endpoint is written."""

    def test_named_interface(self) -> None:
        """The address that is listened on counts, not the text that led to it."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        running = self.service(relayhost=f"[127.0.0.1]:{port}")
        running.start("--listen", f"tcp:{port}:interface=localhost")
        with smtplib.SMTP(*running.address) as client:
            client.sendmail("me@example.com", ["you@example.com"], "Subject: round\r\n\r\nand round\r\n")
        loops = f"mail for [127.0.0.1]:{port} loops back to myself"
        until(lambda: bool(running.maillog(loops)), running.log)
        self.assertEqual(running.stop(), 0)
