"""
A service that root starts, and that runs as somebody else: C{twistd --uid nobody --gid nogroup}.
"""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
import sysconfig
from pathlib import Path

from tests.peers import missing
from tests.service import LIMIT, Service, until
from tests.system.injection import inject, letter
from tests.system.world import SystemTestCase

# Ports that root alone may bind, and nobody of note has.
_LOW = range(700, 1000)


def open_to_all(path: Path) -> bool:
    """Whether everybody gets to this place."""
    return all(above.stat().st_mode & stat.S_IXOTH for above in path.parents)


class RightsTests(SystemTestCase):
    """Root's rights are used for what needs them, and given away before any mail is touched."""

    def setUp(self) -> None:
        if os.getuid() != 0:
            raise missing("root's rights, which this test gives away")
        try:
            self.user, self.group = pwd.getpwnam("nobody"), grp.getgrnam("nogroup")
        except KeyError:
            raise missing("the user nobody and the group nogroup") from None

    def unprivileged(self, **parameters: str) -> Service:
        """A service that is to run as nobody, with this in its C{main.cf}."""
        running = self.service(None, **parameters)
        # A file for the coverage could not be written by nobody.
        running.measured = False
        running.twistd = ("--uid", "nobody", "--gid", "nogroup")
        return running

    def start(self, running: Service, *options: str) -> int:
        """Start it; the options are those of the service."""
        return running.start(*options, under=self.readable(running.directory))

    def readable(self, directory: Path) -> tuple[str, ...]:
        """What runs Python so that nobody can read it: ours may be in root's home."""
        packages = Path(sysconfig.get_path("purelib"))
        if open_to_all(Path(os.__file__)) and open_to_all(packages / "twisted"):
            return ()
        name = f"python{sys.version_info.major}.{sys.version_info.minor}"
        python = shutil.which(name, path="/usr/local/bin:/usr/bin:/bin")
        if python is None or not open_to_all(Path(python).resolve()):
            raise missing(f"a {name} that everybody can read")
        if not open_to_all(packages / "twisted"):
            packages = directory / "packages"
            if not packages.exists():
                shutil.copytree(sysconfig.get_path("purelib"), packages)
        return ("env", f"PYTHONPATH={packages}", python)

    def low(self) -> int:
        """A port below 1024 that is free."""
        for port in _LOW:
            with socket.socket() as probe:
                try:
                    probe.bind(("127.0.0.1", port))
                except OSError:
                    continue
                return port
        raise AssertionError("no port below 1024 is free")

    def world(self, path: Path) -> list[str]:
        """All at this place that others could get at."""
        found = [path, *path.rglob("*")]
        return [str(each) for each in found if stat.S_IMODE(each.stat().st_mode) & stat.S_IRWXO]

    def test_low_port(self) -> None:
        """Mail comes in at a port below 1024 and goes out; the process, and all that it made, is nobody's."""
        sink = self.destination(tls=True)
        running = self.unprivileged(relayhost=sink.relayhost)
        port = self.low()
        self.start(running, "--listen", f"tcp:{port}:interface=127.0.0.1")
        self.assertIn(f"127.0.0.1:{port}", running.places)
        with open(f"/proc/{running.pid}/status") as status:
            ids = dict(line.split(":", 1) for line in status)
        self.assertEqual(ids["Uid"].split(), [str(self.user.pw_uid)] * 4)
        self.assertEqual(ids["Gid"].split(), [str(self.group.gr_gid)] * 4)
        # Some of it is too large for a row, and has a file of its own.
        self.arrived(sink, inject(port, [letter("U1"), letter("U2", 300_000)]).accepted)
        self.empty(running)
        spool = running.directory / "spool"
        made = [spool, running.directory / "maillog", *spool.rglob("*")]
        self.assertEqual({(each.stat().st_uid, each.stat().st_gid) for each in made}, {
            (self.user.pw_uid, self.group.gr_gid)
        })  # fmt: skip
        self.assertEqual(self.world(spool) + self.world(running.directory / "maillog"), [])
        modes = {name: stat.S_IMODE((spool / name).stat().st_mode) for name in ("queue.db", "content", "control")}
        self.assertEqual(modes, {"queue.db": 0o600, "content": 0o700, "control": 0o660})

    def test_log_is_reopened(self) -> None:
        """After a rotation that makes the new file for the user, the log goes on in it."""
        sink = self.destination()
        running = self.unprivileged(relayhost=sink.relayhost)
        self.start(running)
        inject(running.port, [letter("L1")])
        until(lambda: "removed" in running.log(), running.log)
        log = running.directory / "maillog"
        log.rename(running.directory / "maillog.1")
        log.touch()
        os.chown(log, self.user.pw_uid, self.group.gr_gid)
        running.send_signal(signal.SIGUSR1)
        until(lambda: inject(running.port, [letter("L2")]).lost == 0 and "client=" in running.log(), running.printed)

    def test_restart(self) -> None:
        """Started the same way again, it goes on with what is there."""
        sink = self.destination()
        sink.stop()
        running = self.unprivileged(relayhost=sink.relayhost)
        waits = inject(self.start(running), [letter("W1")]).accepted
        running.restart(signal.SIGKILL)
        sink.start()
        self.arrived(sink, waits)

    def refused(self, running: Service) -> str:
        """Why a start fails."""
        running.launch(under=self.readable(running.directory))
        self.assertEqual(running.wait(), 1, running.printed())
        (line,) = [line for line in running.printed().splitlines() if line.startswith("smtpreuse cannot start: ")]
        self.assertNotIn("Traceback", running.printed())
        return line

    def test_queue_of_root(self) -> None:
        """A queue directory of root's is refused with what to do, and what is said helps."""
        sink = self.destination()
        running = self.unprivileged(relayhost=sink.relayhost)
        (running.directory / "spool").mkdir(0o700)
        line = self.refused(running)
        self.assertRegex(line, r"main\.cf:\d+: queue_directory: this directory is of user 0")
        command = f"chown -R {self.user.pw_uid}:{self.group.gr_gid} {running.directory / 'spool'}"
        self.assertIn(command.rpartition(" ")[0], line)
        subprocess.run(command.split(), check=True, timeout=LIMIT)
        self.arrived(sink, inject(self.start(running), [letter("Q1")]).accepted)

    def test_log_of_root(self) -> None:
        """So is a log that could not be opened again after a rotation."""
        running = self.unprivileged()
        (running.directory / "maillog").touch(0o640)
        self.assertRegex(self.refused(running), r"main\.cf:\d+: maillog_file: this file is of user 0")
