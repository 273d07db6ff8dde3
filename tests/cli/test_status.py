"""
Tests of L{smtpreuse.cli.status}.
"""

from __future__ import annotations

import json
import re
import socket

from attrs import evolve

from smtpreuse.cli import status
from smtpreuse.cli.control import ControlSocket
from smtpreuse.control.objects import QueueCounts, Resolver, Role, SessionCounts, Status
from smtpreuse.model.queueview import Counters, SessionRow
from tests.cli.asking import AskingTestCase, Ended
from tests.control.wire import spool_trouble

BUSY = SessionRow(
    site="example.com", endpoint="[192.0.2.1]:25", host="mx.example.com", state="busy", opened=1795299608.0,
    idle_since=None, uses=3, level="may", protocol="TLSv1.3", cipher="TLS_AES_256_GCM_SHA384", verdict="Untrusted",
    process=7,
)  # fmt: skip
STATUS = Status(
    version="9.8.7", pid=7, state="running", queue=QueueCounts(incoming=1, active=2, deferred=3, hold=4, corrupt=5),
    sessions=SessionCounts(connecting=6, busy=7, resting=8), delivered=9, reused=10, deferred=11, bounced=12,
    roles=[
        Role(name="smtpreuse", pid=7, age=59.96, sessions=21, rss=52428800, cpu=1.25),
        Role(name="tlsproxy", pid=12345, age=90000.0, sessions=3, rss=None, cpu=100.0),
    ],
    resolver=Resolver(),
)  # fmt: skip


class StatusTests(AskingTestCase):
    """C{smtpreuse status} tells how the service is."""

    def ask(self, *words: str) -> Ended:
        """Run C{smtpreuse status WORD...}."""
        return self.run_words(status, "status", *words)

    def test_described(self) -> None:
        """Everything that the object has, for people."""
        self.assertEqual(
            list(status.described(STATUS)),
            [
                "smtpreuse 9.8.7, pid 7, running",
                "queue:        1 incoming, 2 active, 3 deferred, 4 hold, 5 corrupt",
                "sessions:     6 connecting, 7 busy, 8 resting",
                "since start:  9 delivered, 11 deferred, 12 bounced; 10 transactions on reused connections",
                "",
                "ROLE       PID    AGE    SESSIONS  RSS    CPU",
                "smtpreuse  7      60.0s  21        50.0M  1.2s",
                "tlsproxy   12345  1.0d   3         -      100.0s",
            ],
        )

    def test_printed(self) -> None:
        """The running service is asked."""
        self.desk.stored = {"deferred": 7}
        self.view.counted = Counters(delivered=5)
        ended = self.ask()
        self.assertEqual((ended.status, ended.err), (0, ""))
        self.assertRegex(ended.out, r"\Asmtpreuse 9\.8\.7, pid [0-9]+, running\n")
        self.assertIn(" 7 deferred,", ended.out)
        self.assertIn(" 5 delivered,", ended.out)

    def test_json(self) -> None:
        """One object in one line."""
        ended = self.ask("--json")
        self.assertEqual(json.loads(ended.out)["version"], "9.8.7")
        self.assertTrue(re.fullmatch(r"\{.*\}\n", ended.out))

    def test_ready(self) -> None:
        """C{--ready} prints nothing and tells by its exit status."""
        self.assertEqual(self.ask("--ready"), Ended(0, "", ""))
        self.view.ending = True
        self.assertEqual(self.ask("--ready"), Ended(1, "", ""))

    def test_not_ready(self) -> None:
        """A service whose queue does not work, or that does not answer, is not ready."""
        self.desk.broken = spool_trouble()
        self.assertEqual(self.ask("--ready"), Ended(1, "", ""))

        def refused(path: str) -> socket.socket:
            raise ConnectionRefusedError("Connection refused")

        self.service = ControlSocket("control", refused)
        self.assertEqual(self.ask("--ready"), Ended(1, "", ""))


class SessionsTests(AskingTestCase):
    """C{smtpreuse sessions} shows what is open."""

    def ask(self, *words: str) -> Ended:
        """Run C{smtpreuse sessions WORD...}."""
        return self.run_words(status, "sessions", *words)

    def test_none(self) -> None:
        """Without sessions that is said; in JSON it is nothing."""
        self.assertEqual(self.ask(), Ended(0, "No sessions\n", ""))
        self.assertEqual(self.ask("--json"), Ended(0, "", ""))

    def test_table(self) -> None:
        """A row each, its columns under each other."""
        resting = evolve(
            BUSY, site="much-longer.example.com", state="resting", opened=1795292418.0, idle_since=1795299528.0,
            protocol=None, cipher=None, verdict=None,
        )  # fmt: skip
        self.view.rows = [BUSY, resting, evolve(BUSY, cipher=None, verdict=None, host="\x1b.example.com")]
        tls = "TLSv1.3 TLS_AES_256_GCM_SHA384 Untrusted"
        self.assertEqual(
            self.ask().out,
            "SITE                     HOST            ENDPOINT        STATE    AGE    IDLE  USES  LEVEL  TLS"
            "                                       PROCESS\n"
            "example.com              mx.example.com  [192.0.2.1]:25  busy     10.0s  -     3     may    "
            f"{tls}  7\n"
            "much-longer.example.com  mx.example.com  [192.0.2.1]:25  resting  2.0h   1.5m  3     may    "
            f"{'-':{len(tls)}}  7\n"
            "example.com              ?.example.com   [192.0.2.1]:25  busy     10.0s  -     3     may    "
            f"{'TLSv1.3':{len(tls)}}  7\n",
        )

    def test_connecting(self) -> None:
        """What is not settled has a hyphen."""
        self.view.rows = [evolve(BUSY, state="connecting", endpoint="", host="", level="", protocol=None)]
        self.assertEqual(
            self.ask().out.splitlines()[1].split(),
            ["example.com", "-", "-", "connecting", "10.0s", "-", "3", "-", "-", "7"],
        )

    def test_json(self) -> None:
        """One object per line."""
        self.view.rows = [BUSY, BUSY]
        self.assertEqual([json.loads(line)["uses"] for line in self.ask("--json").out.splitlines()], [3, 3])
