"""
C{smtpreuse demo}: the first thing that a user sees.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.service import environment, until

LIMIT = 120


def heed_signals() -> None:
    """As a terminal starts a program: what ignores signals, as nohup(1) does, hands that down to the tests."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


class DemoTests(SynchronousTestCase):
    """The demonstration shows mail on its whole way over few connections, and leaves nothing behind."""

    def setUp(self) -> None:
        self.temporary = Path(self.mktemp()).absolute()
        self.temporary.mkdir()
        # Short: a UNIX socket lies in it, and trial's own directories are deep.
        link = Path(tempfile.mkdtemp(prefix="demo-")) / "tmp"
        self.addCleanup(shutil.rmtree, link.parent)
        link.symlink_to(self.temporary)
        self.short = str(link)

    def demo(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run it, with a directory for temporary files of its own."""
        command = [sys.executable, "-m", "smtpreuse.cli.main", "demo", *words]
        return subprocess.run(command, env=self.environment(), capture_output=True, text=True, timeout=LIMIT)

    def environment(self) -> dict[str, str]:
        """What it runs in; twistd finds what this process finds."""
        return {**environment(), "TMPDIR": self.short}

    def test_json(self) -> None:
        """All messages arrive once, over fewer connections than messages, each with one handshake."""
        ended = self.demo("--messages", "200", "--size", "2000", "--json")
        self.assertEqual((ended.returncode, ended.stderr), (0, ""))
        shown = json.loads(ended.stdout)
        self.assertEqual(
            list(shown),
            [
                "messages",
                "delivered",
                "missing",
                "doubled",
                "connections",
                "tls_handshakes",
                "messages_per_connection",
                "seconds",
                "messages_per_second",
            ],
        )
        self.assertEqual((shown["messages"], shown["delivered"]), (200, 200))
        self.assertEqual((shown["missing"], shown["doubled"]), (0, 0))
        self.assertEqual(shown["connections"], shown["tls_handshakes"])
        self.assertLessEqual(shown["connections"], 20)
        self.assertEqual(list(self.temporary.iterdir()), [])

    def test_table(self) -> None:
        """Without C{--json} it is a table; with C{--keep} the directory stays, log and queue in it."""
        ended = self.demo("--messages", "20", "--keep")
        self.assertEqual(ended.returncode, 0, ended.stderr)
        self.assertTrue(ended.stdout.endswith("every message arrived, once\n"), ended.stdout)
        (kept,) = self.temporary.iterdir()
        self.assertTrue(ended.stderr.startswith("kept: "), ended.stderr)
        self.assertEqual((kept / "maillog").read_text().count("status=sent"), 20)

    def test_without_reuse(self) -> None:
        """C{-o} reaches the service: with reuse switched off every message has a connection of its own."""
        ended = self.demo("--messages", "10", "--json", "-o", "smtp_tls_connection_reuse=no")
        shown = json.loads(ended.stdout)
        self.assertEqual((shown["delivered"], shown["connections"]), (10, 10))

    def test_bad_configuration(self) -> None:
        """What C{-o} or C{--config} names is looked at before anything begins; the reason is said."""
        for words, name in (
            (("-o", "smtp_tls_security_level=perhaps"), "smtp_tls_security_level"),
            (("-o", "nosuch=1"), "nosuch"),
            (("-o", "listen=tcp:99999"), "listen"),
            (("--config", "/nonexistent"), "/nonexistent"),
        ):
            ended = self.demo("--messages", "1", *words)
            self.assertEqual((ended.returncode, ended.stdout), (78, ""), ended.stderr)
            self.assertIn(name, ended.stderr)
            self.assertEqual(list(self.temporary.iterdir()), [])

    def test_refused(self) -> None:
        """When the service takes no mail the first reply that said so is shown, and nothing is waited for."""
        ended = self.demo("--messages", "3", "--json", "-o", "mynetworks=192.0.2.0/24")
        self.assertEqual(ended.returncode, 1)
        self.assertIn("demo: while sending to the service: a message was refused: 554 5.7.1 ", ended.stderr)
        self.assertEqual(json.loads(ended.stdout)["missing"], 3)

    def begun(self) -> tuple[subprocess.Popen[str], int]:
        """One that has much to do, and the process of its service, which has begun."""
        command = [sys.executable, "-m", "smtpreuse.cli.main", "demo", "--messages", "1000000"]
        process = subprocess.Popen(
            command, env=self.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            preexec_fn=heed_signals,
        )  # fmt: skip
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        until(lambda: list(self.temporary.glob("*/spool/queue.db-wal")) != [], lambda: "no service has begun")
        (lock,) = self.temporary.glob("*/spool/lock")
        until(lambda: lock.read_text() != "", lambda: "no service has begun")
        return process, int(lock.read_text())

    def test_interrupted(self) -> None:
        """A signal, a closed terminal's too, ends it with its service and without a trace; that is no success."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            process, service = self.begun()
            process.send_signal(number)
            _, said = process.communicate(timeout=LIMIT)
            self.assertEqual((process.returncode, said), (1, ""))
            self.assertRaises(ProcessLookupError, os.kill, service, 0)
            self.assertEqual(list(self.temporary.iterdir()), [])

    def test_killed(self) -> None:
        """Its service ends even with a demonstration that cannot say anything any more."""
        process, service = self.begun()
        process.kill()
        process.communicate()

        def gone() -> bool:
            try:
                os.kill(service, 0)
            except ProcessLookupError:
                return True
            return Path(f"/proc/{service}/stat").read_text().rpartition(")")[2].split()[0] == "Z"

        until(gone, lambda: "the service goes on")
