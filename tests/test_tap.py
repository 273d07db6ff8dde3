"""
Tests of L{smtpreuse.tap}. Its process is tested in C{tests.system.test_start}.
"""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path

from twisted.application.service import IService
from twisted.logger import Logger, LogPublisher
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

from smtpreuse import tap
from smtpreuse.errors import ConfigurationError
from smtpreuse.tap import Options, makeService


class TapCase(SynchronousTestCase):
    """Options as an operator gives them, with a main.cf of the test's, and standard output in memory."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()
        self.config = self.directory / "main.cf"
        self.write("queue_directory = spool")
        self.output = io.StringIO()
        self.patch(sys, "__stdout__", self.output)
        self.events = LogPublisher()
        self.patch(tap, "globalLogPublisher", self.events)

    def write(self, *lines: str) -> None:
        """This is in main.cf."""
        self.config.write_text("".join(f"{line}\n" for line in lines))

    def options(self, *arguments: str) -> Options:
        """Parsed, this main.cf among them."""
        options = Options()
        # The queue directory is below a deep one of the test's, and a UNIX socket path has at most 107 octets.
        options.parseOptions(["--config", str(self.config), "-o", "control_socket=/tmp/control", *arguments])
        return options

    def refused(self, *arguments: str) -> list[str]:
        """The lines of an end without a service."""
        ended = self.assertRaises(SystemExit, makeService, self.options(*arguments))
        assert isinstance(ended.code, str), ended.code
        self.assertEqual(self.output.getvalue(), "")
        return ended.code.splitlines()


class OptionsTests(TapCase):
    """Options lead to settings."""

    def test_config(self) -> None:
        """The file is read; its paths are relative to it."""
        settings = self.options().settings()
        self.assertEqual((settings.file, settings.queue_directory), (str(self.config), str(self.directory / "spool")))
        settings = self.options("-c", str(self.config)).settings()
        self.assertEqual(settings.file, str(self.config))

    def test_override(self) -> None:
        """C{-o} goes before the file, the last one before the others; what has an equals sign keeps it."""
        self.write("myhostname = a.example.com", "smtp_helo_timeout = 7s")
        settings = self.options(
            "-o", "myhostname=b.example.com", "--override", "myhostname=c.example.com",
            "-o", "transport_maps=inline:{ example.com=smtp:[192.0.2.1]:2525 }",
        ).settings()  # fmt: skip
        self.assertEqual((settings.myhostname, settings.smtp_helo_timeout), ("c.example.com", 7.0))
        self.assertEqual(settings.transport_maps.get("example.com"), "smtp:[192.0.2.1]:2525")

    def test_listen(self) -> None:
        """C{--listen} replaces the parameter; each adds a place."""
        self.write("listen = tcp:1")
        self.assertEqual(self.options().settings().listen, ("tcp:1",))
        both = ("tcp:2525:interface=127.0.0.1", "unix:mail")
        given = self.options("-o", "listen=tcp:2", *(word for text in both for word in ("--listen", text)))
        self.assertEqual(given.settings().listen, both)

    def test_again(self) -> None:
        """They may be asked for again, with what the file says then, also when the process has gone elsewhere."""
        options = self.options("-o", "queue_directory=here")
        first = options.settings()
        self.write("soft_bounce = yes")
        before = os.getcwd()
        self.addCleanup(os.chdir, before)
        os.chdir(self.directory)
        again = options.settings()
        self.assertEqual((first.soft_bounce, again.soft_bounce), (False, True))
        self.assertEqual(again.queue_directory, os.path.join(before, "here"))

    def test_usage(self) -> None:
        """What is no option is refused."""
        for arguments in (["--nonsense"], ["stray"], ["--listen"]):
            self.assertRaises(UsageError, self.options, *arguments)


class BadConfigurationTests(TapCase):
    """No service is made of a bad configuration, and the operator reads one line per error."""

    def test_lines(self) -> None:
        """All errors at once, each with file and line, or as of the command line."""
        self.write("queue_directory = spool", "smtp_connect_timeout = soon", "nonsense = 1")
        lines = self.refused("-o", "smtp_tls_security_level=perhaps", "--listen", "nowhere:1")
        self.assertEqual(len(lines), 4, lines)
        for start in (
            f"{self.config}:2: smtp_connect_timeout: ", f"{self.config}:3: nonsense: ",
            "command line: smtp_tls_security_level: ", "command line: listen: ",
        ):  # fmt: skip
            (line,) = [line for line in lines if line.startswith(start)]
            if "nonsense" not in start:
                self.assertRegex(line, r" \(allowed: .*\)$")

    def test_error(self) -> None:
        """The same is what L{Options.settings} raises, for whoever makes no service."""
        error = self.assertRaises(ConfigurationError, self.options("-o", "nonsense=1").settings)
        self.assertEqual(str(error).splitlines(), self.refused("-o", "nonsense=1"))

    def test_no_file(self) -> None:
        """A main.cf that cannot be read is named."""
        self.config.unlink()
        (line,) = self.refused()
        self.assertIn(str(self.config), line)

    def test_listen(self) -> None:
        """Whatever an endpoint's parser stumbles over is said with the endpoint that it was given."""
        garbage = self.directory / "garbage.pem"
        garbage.write_text("no key")
        for text in (
            "tcp:nowhere", "tcp:1:colour=red", "unix:mail:mode=9",
            "systemd:domain=INET:index=0", "systemd:domain=INET:name=mail",
            "tcp:99999:interface=127.0.0.1", "tcp:-1", "tcp6:65536",
            f"ssl:465:privateKey={garbage}", f"ssl:465:privateKey={self.directory / 'missing.pem'}",
        ):  # fmt: skip
            (line,) = self.refused("--listen", text)
            self.assertTrue(line.startswith("command line: listen: not an endpoint of Twisted ("), line)
            self.assertTrue(line.endswith(f"): {text} (allowed: such as tcp:2525:interface=127.0.0.1)"), line)

    def test_policies(self) -> None:
        """Tables that lead to no policy are errors of the configuration too."""
        self.write("smtp_tls_policy_maps = inline:{ example.com=perhaps }")
        (line,) = self.refused()
        self.assertIn("smtp_tls_policy_maps", line)


class CheckTests(TapCase):
    """C{--check} looks and ends."""

    def test_good(self) -> None:
        """It says so, with status 0; nothing is opened."""
        ended = self.assertRaises(SystemExit, makeService, self.options("--check", "--json-log", "/nowhere/log"))
        self.assertEqual((ended.code, self.output.getvalue()), (0, "configuration ok\n"))
        self.assertEqual(os.listdir(self.directory), ["main.cf"])

    def test_bad(self) -> None:
        """As a start with it."""
        self.write("smtp_connect_timeout = soon")
        self.assertEqual(self.refused("--check"), self.refused())


class ServiceTests(TapCase):
    """A good configuration makes a service, and opens nothing but the log of events."""

    def log(self) -> list[dict[str, object]]:
        """One event happens; what is written of it on standard output."""
        Logger("tests.tap", observer=self.events).info("session saved: uses={uses}", uses=3)
        return [json.loads(line) for line in self.output.getvalue().splitlines()]

    def test_service(self) -> None:
        """It does not run yet."""
        service = makeService(self.options())
        self.assertTrue(IService.providedBy(service))
        self.assertFalse(service.running)  # type: ignore[attr-defined]  # twisted.application.service.Service has it
        self.assertEqual((os.listdir(self.directory), self.log()), (["main.cf"], []))

    def test_json_log(self) -> None:
        """Events go to the file, behind what it has, one object in one line."""
        path = self.directory / "events"
        path.write_text('{"before": true}\n')
        makeService(self.options("--json-log", str(path)))
        self.assertEqual(self.log(), [])
        before, event = [json.loads(line) for line in path.read_text().splitlines()]
        self.assertEqual((before, event["log_format"], event["uses"]), (
            {"before": True}, "session saved: uses={uses}", 3
        ))  # fmt: skip

    def test_json_log_to_standard_output(self) -> None:
        """With a dash they go to standard output."""
        makeService(self.options("--json-log", "-"))
        self.assertEqual([event["uses"] for event in self.log()], [3])

    def test_json_log_cannot_be_opened(self) -> None:
        """One line that names the file and the reason."""
        path = str(self.directory / "missing" / "events")
        self.assertEqual(
            self.refused("--json-log", path), [f"--json-log: {path}: cannot be opened (No such file or directory)"]
        )
