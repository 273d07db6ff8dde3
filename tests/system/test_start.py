"""
Starts that must not succeed, and what an operator reads then.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

from smtpreuse.cli.child import twistd
from tests.service import LIMIT, Service, environment, until
from tests.system.world import SystemTestCase


def started(running: Service, *options: str) -> subprocess.CompletedProcess[str]:
    """A start that is to end of itself."""
    command = [twistd(), "-n", "--pidfile=", "smtpreuse", "--config", str(running.directory / "main.cf"), *options]
    return subprocess.run(
        command, cwd=running.directory, env=environment(), capture_output=True, text=True, timeout=LIMIT
    )


def user_version(path: Path, change: int | None = None) -> int:
    """What SQLite keeps for the program whose file it is."""
    with closing(sqlite3.connect(path)) as connection:
        if change is not None:
            connection.execute(f"PRAGMA user_version = {change}")
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        return int(version)


class StartTests(SystemTestCase):
    """A start that fails ends at once with status 1 and says why in one line per reason, without a traceback."""

    def refused(self, running: Service, *options: str) -> list[str]:
        """The lines on standard error of a start that fails."""
        ended = started(running, *options)
        self.assertEqual(ended.returncode, 1, ended.stderr)
        self.assertNotIn("Traceback", ended.stdout + ended.stderr)
        self.assertNotIn("ready:", ended.stdout)
        return ended.stderr.splitlines()

    def test_second_on_one_queue(self) -> None:
        """A second service on the same queue names the pid of the first one, which goes on."""
        sink = self.destination()
        running = self.service(sink)
        running.start()
        (line,) = self.refused(running, "--listen", "tcp:0:interface=127.0.0.1")
        self.assertIn(f"in use by process {running.pid}", line)
        self.assertEqual(self.run_command(running, "status", "--ready").returncode, 0)
        self.assertEqual(running.stop(), 0)
        running.start()

    def test_other_schema(self) -> None:
        """A queue of another version is refused with both versions and the way out, and stays as it was."""
        running = self.service()
        running.start()
        running.stop()
        path = running.directory / "spool" / "queue.db"
        version = user_version(path)
        user_version(path, version + 1)
        (line,) = self.refused(running, "--listen", "tcp:0:interface=127.0.0.1")
        self.assertIn(f"schema version {version + 1}, this program uses {version}", line)
        self.assertIn("start the version that wrote it", line)
        self.assertEqual(user_version(path), version + 1)

    def test_bad_configuration(self) -> None:
        """All errors at once, each with file, line, parameter, value and what is allowed."""
        running = self.service(smtp_tls_security_level="perhaps", smtp_connect_timeout="soon", mynetwork="127.0.0.0/8")
        lines = self.refused(running)
        self.assertEqual(len(lines), 3, lines)
        for name, value in (("smtp_tls_security_level", "perhaps"), ("smtp_connect_timeout", "soon")):
            (line,) = [line for line in lines if name in line]
            self.assertRegex(line, rf"^\S*main\.cf:\d+: {name}: .*: {value} \(allowed: .*\)$")
        (line,) = [line for line in lines if "mynetwork:" in line]
        self.assertRegex(line, r"^\S*main\.cf:\d+: mynetwork: ")

    def test_check(self) -> None:
        """C{--check} says that a configuration is good, with status 0, and leaves nothing behind."""
        running = self.service()
        ended = started(running, "--check")
        self.assertEqual((ended.returncode, ended.stdout, ended.stderr), (0, "configuration ok\n", ""))
        self.assertEqual(os.listdir(running.directory), ["main.cf"])

    def test_check_bad(self) -> None:
        """C{--check} of a bad configuration is as a start with it."""
        (line,) = self.refused(self.service(listen="nowhere:1"), "--check")
        self.assertRegex(line, r"main\.cf:\d+: listen: ")

    def test_address_taken(self) -> None:
        """An address that somebody else has ends the start, and the queue is free again."""
        sink = self.destination()
        running = self.service(sink)
        lines = self.refused(running, "--listen", f"tcp:{sink.port}:interface=127.0.0.1")
        self.assertEqual(len(lines), 1, lines)
        self.assertIn(str(sink.port), lines[0])
        running.start()

    def test_unusable_directory(self) -> None:
        """A queue directory that cannot be made is named."""
        (line,) = self.refused(self.service(queue_directory="/proc/nowhere"))
        self.assertRegex(line, r"main\.cf:\d+: queue_directory: .*/proc/nowhere")

    def test_control_socket_elsewhere(self) -> None:
        """What stands where the control socket is to be is not touched, and the parameter is named."""
        running = self.service(control_socket="precious")
        precious = running.directory / "precious"
        precious.write_text("the only copy")
        (line,) = self.refused(running, "--listen", "tcp:0:interface=127.0.0.1")
        self.assertRegex(line, r"cannot start: \S*main\.cf:\d+: control_socket: something is there that is no socket")
        self.assertEqual(precious.read_text(), "the only copy")
        precious.unlink()

    def test_control_socket_of_another(self) -> None:
        """A control socket that another service answers on stays its own."""
        first = self.service()
        first.start()
        second = self.service(control_socket=str(first.control))
        (line,) = self.refused(second, "--listen", "tcp:0:interface=127.0.0.1")
        self.assertIn("another service listens there", line)
        self.assertEqual(self.run_command(first, "status", "--ready").returncode, 0)
        second.configure()

    def test_parameters_are_named(self) -> None:
        """Whatever is not to be had, the parameter that asked for it is said, and where it was set."""
        for parameters, options, expected in (
            ({"maillog_file": "missing/log"}, (), r"\S*main\.cf:\d+: maillog_file: .*missing/log"),
            ({}, ("--listen", "unix:missing/mail"), r"command line: listen: .*: unix:missing/mail$"),
            ({"control_socket": "missing/control"}, (), r"\S*main\.cf:\d+: control_socket: .*missing/control"),
        ):
            (line,) = self.refused(self.service(**parameters), *options)
            self.assertRegex(line, f"^smtpreuse cannot start: {expected}")

    def test_nothing_left(self) -> None:
        """Sockets that were there already when the start failed are gone."""
        running = self.service()
        self.refused(running, "--listen", f"unix:{running.directory}/mail", "--listen", "tcp:25:interface=192.0.2.1")
        self.assertFalse((running.directory / "mail").exists())
        self.assertFalse(running.control.exists())


class StandardOutputTests(SystemTestCase):
    """The service does not depend on who reads what it prints."""

    def started(self, running: Service, redirection: str) -> subprocess.Popen[bytes]:
        """Started by a shell that does this to its standard streams; it answers on its control socket."""
        command = [twistd(), "-n", "--pidfile=", "smtpreuse", "--config", str(running.directory / "main.cf")]
        command += ["--listen", "tcp:0:interface=127.0.0.1"]
        process = subprocess.Popen(
            ["/bin/sh", "-c", f'exec "$0" "$@" {redirection}', *command], cwd=running.directory, env=environment()
        )
        self.addCleanup(self.end, process)
        until(lambda: running.ask("status") != [], lambda: "it does not answer")
        return process

    def end(self, process: subprocess.Popen[bytes]) -> None:
        """It ends well."""
        process.terminate()
        self.assertEqual(process.wait(LIMIT), 0)

    def test_closed(self) -> None:
        """Closed streams are replaced: no socket and no file of the queue gets a number below 3."""
        process = self.started(self.service(), "<&- >&- 2>&-")
        for number in range(3):
            self.assertEqual(os.readlink(f"/proc/{process.pid}/fd/{number}"), "/dev/null")

    def test_full(self) -> None:
        """Where standard output takes nothing the service works, and warns in its log."""
        running = self.service()
        self.started(running, "--json-log events >/dev/full")
        events = [json.loads(line) for line in (running.directory / "events").read_text().splitlines()]
        (event,) = [event for event in events if "standard output does not take it" in event["log_format"]]
        self.assertEqual(event["error"], "[Errno 28] No space left on device")


class DaemonTests(SystemTestCase):
    """Without C{-n} the service goes into the background, and whoever started it hears how that went."""

    def daemonized(self, running: Service, *options: str) -> subprocess.CompletedProcess[str]:
        """Start it so; the command is to end of itself."""
        pid, log = running.directory / "pid", running.directory / "twistd.log"
        command = [twistd(), f"--pidfile={pid}", f"--logfile={log}", "smtpreuse"]
        command += ["--config", str(running.directory / "main.cf"), *options]
        return subprocess.run(
            command, cwd=running.directory, env=environment(), capture_output=True, text=True, timeout=LIMIT
        )

    def test_start(self) -> None:
        """Status 0; it answers, and ends when it is told to."""
        running = self.service()
        ended = self.daemonized(running, "--listen", "tcp:0:interface=127.0.0.1")
        self.assertEqual((ended.returncode, ended.stderr), (0, ""))
        until(lambda: running.ask("status") != [], lambda: (running.directory / "twistd.log").read_text())
        os.kill(int((running.directory / "pid").read_text()), signal.SIGTERM)
        until(lambda: not running.control.exists(), lambda: "it goes on")
        until(lambda: not (running.directory / "pid").exists(), lambda: "it goes on")

    def test_failed(self) -> None:
        """Another status, a word of why, and the whole of it in the log, whatever failed."""
        sink = self.destination()
        for parameters, listen, expected in (
            ({}, f"tcp:{sink.port}:interface=127.0.0.1", "listen: "),
            ({"queue_directory": "/proc/nowhere"}, "tcp:0", "queue_directory: "),
            ({"control_socket": "missing/control"}, "tcp:0", "control_socket: "),
        ):
            running = self.service(**parameters)
            ended = self.daemonized(running, "--listen", listen)
            self.assertEqual(ended.returncode, 1, ended.stderr)
            self.assertIn("smtpreuse.errors.StartError: ", ended.stderr)
            log = (running.directory / "twistd.log").read_text()
            self.assertRegex(log, f"smtpreuse cannot start: .*{expected}")
