"""
What C{conf/} has for systemd and logrotate, tried with the real C{systemd-analyze} and C{logrotate}.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from smtpreuse.cli.child import twistd
from tests.peers import program
from tests.service import LIMIT, Service, environment, scratch, service, until
from tests.system.destination import Destination, Manners
from tests.system.injection import inject, letter

CONF = Path(__file__).resolve().parents[2] / "conf"
# What the unit names, and what tests have in its place.
PLACE = "/opt/smtpreuse/bin"
# SQLite gives new files the user of the first one, and asks for that as root only, which the unit's service is not.
AS_ROOT = {"fchown", "fchown32"}


def run(*command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        command, env={**environment(), **variables}, capture_output=True, text=True, timeout=LIMIT
    )


def system_calls(*groups: str) -> set[str]:
    """The system calls in groups, by their names with @, and in the groups that these are made of."""
    found: set[str] = set()
    for group in groups:
        shown = run(program("systemd-analyze"), "syscall-filter", group).stdout
        words = [line.strip() for line in shown.splitlines() if line.startswith(" ")]
        names = [word for word in words if not word.startswith("#")]
        assert names, f"systemd does not know {group}"
        found.update(name for name in names if not name.startswith("@"))
        found |= system_calls(*(name for name in names if name.startswith("@")))
    return found


class UnitTests(SynchronousTestCase):
    """The units are sound, keep the service in narrow bounds, and leave it what it needs."""

    def setUp(self) -> None:
        self.analyze = program("systemd-analyze")
        self.directory = scratch(self)
        text = (CONF / "smtpreuse.service").read_text()
        self.assertEqual(text.count(PLACE), 2)
        self.unit = self.directory / "smtpreuse.service"
        self.unit.write_text(text.replace(PLACE, os.path.dirname(twistd())))
        shutil.copy(CONF / "smtpreuse.socket", self.directory)

    def values(self, name: str) -> list[str]:
        """What the service's unit says."""
        return re.findall(rf"^{name}=(.*)$", self.unit.read_text(), re.MULTILINE)

    def test_verify(self) -> None:
        """systemd has nothing to say against them."""
        for unit in (self.unit, self.directory / "smtpreuse.socket"):
            seen = run(self.analyze, "verify", str(unit))
            self.assertEqual((seen.returncode, seen.stdout + seen.stderr), (0, ""))

    def test_security(self) -> None:
        """By systemd's own measure the exposure is 3.0 at most, of 10."""
        seen = run(self.analyze, "security", "--offline=yes", "--threshold=30", "--no-pager", str(self.unit))
        self.assertEqual(seen.returncode, 0, seen.stdout)
        self.assertRegex(seen.stdout, r"Overall exposure level for smtpreuse\.service: [0-2]\.")

    def test_user(self) -> None:
        """The user of the unit is the one that systemd-sysusers makes."""
        (self.directory / "etc").mkdir()
        run(program("systemd-sysusers"), f"--root={self.directory}", str(CONF / "smtpreuse.sysusers"))
        users = [line.split(":") for line in (self.directory / "etc" / "passwd").read_text().splitlines()]
        self.assertEqual([user[0] for user in users], self.values("User"))
        self.assertEqual(users[0][5], "/var/lib/smtpreuse")
        self.assertEqual(self.values("StateDirectory"), ["smtpreuse"])

    def test_agrees_with_the_service(self) -> None:
        """The manager waits for longer than a drain takes, and the socket has the name by which main.cf finds it."""
        drain = 30
        self.assertGreater(int(self.values("TimeoutStopSec")[0].removesuffix("s")), drain + 12)
        name = re.search(r"^FileDescriptorName=(.*)$", (CONF / "smtpreuse.socket").read_text(), re.MULTILINE)
        assert name is not None
        self.assertIn(f"#   listen = systemd:domain=INET:name={name[1]}\n", self.unit.read_text())

    def test_system_calls(self) -> None:
        """To take mail, deliver it over TLS and answer its operator, a service needs allowed system calls only."""
        program("strace")
        self.assertEqual(self.values("SystemCallFilter"), ["@system-service", "~@privileged"])
        allowed = system_calls("@system-service") - system_calls("@privileged") | {"restart_syscall"}
        sink = Destination(Manners(tls=True)).start()
        self.addCleanup(sink.remove)
        running = service(self, relayhost=sink.relayhost)
        running.measured = False
        record = running.directory / "calls"
        running.start(under=("strace", "-f", "-qq", "--signal=none", "-o", str(record)))
        inject(running.port, [letter("Y1"), letter("Y2", 300_000)])
        until(lambda: len(sink.taken) == 2, lambda: f"{len(sink.taken)} arrived")
        self.assertTrue(running.ask("status"))
        # strace hands a signal on that its child alone was meant to get.
        pid = int((running.directory / "spool" / "lock").read_text())
        os.kill(pid, signal.SIGTERM)
        self.assertEqual(running.wait(), 0)
        used = set(re.findall(r"^[0-9]+ +([a-z0-9_]+)\(", record.read_text(errors="replace"), re.MULTILINE))
        self.assertLess({"accept4", "fdatasync", "epoll_wait"}, used)
        self.assertEqual(used - allowed - AS_ROOT, set())


class LogrotateTests(SynchronousTestCase):
    """logrotate takes the old log away, and the service goes on in a new one."""

    def rotate(self, running: Service) -> None:
        """What logrotate does once a week, with the paths of this service; C{systemctl} is ours here."""
        directory = running.directory
        log, state, tools = directory / "maillog", directory / "state", directory / "bin"
        text = (CONF / "smtpreuse.logrotate").read_text()
        user = re.search(r"^ *su (\w+) (\w+)$", text, re.MULTILINE)
        assert user is not None
        self.assertEqual(text.count("/var/log/smtpreuse/mail.log"), 1)
        text = text.replace("/var/log/smtpreuse/mail.log", str(log)).replace(f"su {user[1]} {user[2]}", "")
        text = text.replace(f"create 0640 {user[1]} {user[2]}", "create 0640")
        rules = directory / "rules"
        rules.write_text(text)
        rules.chmod(0o644)
        tools.mkdir()
        command = tools / "systemctl"
        command.write_text(
            '#!/bin/sh\n[ "$*" = "kill --kill-whom=main --signal=SIGUSR1 smtpreuse.service" ] || exit 1\n'
            f"kill -USR1 {running.pid}\n"
        )
        command.chmod(0o755)
        path = os.pathsep.join([str(tools), os.environ.get("PATH", os.defpath)])
        seen = run(program("logrotate"), "--force", "--state", str(state), str(rules), PATH=path)
        self.assertEqual((seen.returncode, seen.stdout + seen.stderr), (0, ""))

    def test_rotate(self) -> None:
        """No line is lost: those before are in the old file, those behind in the new one."""
        program("logrotate")
        sink = Destination().start()
        self.addCleanup(sink.remove)
        running = service(self, relayhost=sink.relayhost)
        running.start()
        inject(running.port, [letter("T1")])
        until(lambda: "removed" in running.log(), running.log)
        before = running.log()
        self.rotate(running)
        inject(running.port, [letter("T2")])
        until(lambda: "removed" in running.log(), running.log)
        self.assertEqual((running.directory / "maillog.1").read_text(), before)
        self.assertEqual(running.log().count("status=sent"), 1)
