"""
Tests of C{smtpreuse.cli.conf} and C{smtpreuse.cli.options}.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from smtpreuse.cli.main import main
from smtpreuse.config import load
from smtpreuse.config.parameters import PARAMETERS


class ConfTests(SynchronousTestCase):
    """
    C{smtpreuse conf} shows what is in force and where it was set, and checks it.
    """

    def setUp(self) -> None:
        self.file = Path(self.mktemp()).resolve()
        self.file.write_text("relayhost = [mail.example.com]\nqueue_directory = /q\n")
        self.patch(load, "SYSTEM_FILE", "/nonexistent/main.cf")

    def conf(self, *words: str, file: bool = True) -> tuple[int, list[str], list[str]]:
        """Status, lines of standard output and lines of standard error."""
        common = ["--config", str(self.file)] if file else []
        with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
            status = main(["conf", *common, *words])
        return status, out.getvalue().splitlines(), err.getvalue().splitlines()

    def test_all(self) -> None:
        """
        Every parameter is shown, in the order of the table, as C{main.cf} would have it.
        """
        status, lines, errors = self.conf()
        self.assertEqual((status, errors), (0, []))
        self.assertEqual([line.partition(" =")[0] for line in lines], [parameter.name for parameter in PARAMETERS])
        self.assertIn("relayhost = [mail.example.com]", lines)
        self.assertIn("control_socket = /q/control", lines)
        self.assertIn("maillog_file =", lines)

    def test_names(self) -> None:
        """
        Only the parameters that are named, in that order.
        """
        self.assertEqual(
            self.conf("queue_directory", "relayhost"),
            (0, ["queue_directory = /q", "relayhost = [mail.example.com]"], []),
        )

    def test_unknownName(self) -> None:
        """
        A name that is no parameter is told, and the others are shown; the status says so.
        """
        self.assertEqual(
            self.conf("nosuch", "relayhost"),
            (1, ["relayhost = [mail.example.com]"], ["smtpreuse conf: unknown parameter: nosuch"]),
        )
        self.assertEqual(self.conf("nosuch"), (1, [], ["smtpreuse conf: unknown parameter: nosuch"]))

    def test_setOnly(self) -> None:
        """
        C{-n} leaves out what is at its default.
        """
        status, lines, _ = self.conf("-n", "-o", "soft_bounce=no")
        self.assertEqual((status, lines[0]), (0, "queue_directory = /q"))
        self.assertEqual(lines, ["queue_directory = /q", "soft_bounce = no", "relayhost = [mail.example.com]"])

    def test_defaults(self) -> None:
        """
        C{-d} shows defaults as the table has them, even when the configuration cannot be used.
        """
        self.file.write_text("soft_bounce = 1\n")
        self.assertEqual(
            self.conf("-d", "control_socket", "relayhost"),
            (0, ["control_socket = $queue_directory/control", "relayhost ="], []),
        )
        status, lines, _ = self.conf("-d", "myhostname")
        self.assertEqual(status, 0)
        self.assertRegex(lines[0], r"^myhostname = \S+\.\S+$")

    def test_json(self) -> None:
        """
        With C{--json} each line is an object that tells the value, the default and the source.
        """
        _, lines, _ = self.conf(
            "--json", "-o", "soft_bounce=yes", "relayhost", "soft_bounce", "control_socket", "myhostname"
        )
        shown = [json.loads(line) for line in lines]
        self.assertEqual(
            shown[:3],
            [
                {"name": "relayhost", "value": "[mail.example.com]", "default": "", "source": f"{self.file}:1"},
                {"name": "soft_bounce", "value": "yes", "default": "no", "source": "command line"},
                {
                    "name": "control_socket",
                    "value": "/q/control",
                    "default": "$queue_directory/control",
                    "source": "default",
                },
            ],
        )
        self.assertEqual((shown[3]["default"], shown[3]["source"]), (None, "default"))

    def test_environment(self) -> None:
        """
        Without C{--config} the environment names the file; without that the defaults are in force.
        """
        before = os.environ.pop("SMTPREUSE_CONFIG", None)
        self.addCleanup(lambda: os.environ.update({} if before is None else {"SMTPREUSE_CONFIG": before}))
        self.addCleanup(lambda: os.environ.pop("SMTPREUSE_CONFIG", None))
        self.assertEqual(self.conf("relayhost", file=False), (0, ["relayhost ="], []))
        os.environ["SMTPREUSE_CONFIG"] = str(self.file)
        self.assertEqual(self.conf("relayhost", file=False), (0, ["relayhost = [mail.example.com]"], []))

    def test_check(self) -> None:
        """
        C{--check} says that all is well, in JSON too.
        """
        self.assertEqual(self.conf("--check"), (0, ["configuration ok"], []))
        self.assertEqual(self.conf("--check", "--json"), (0, ['{"configuration":"ok"}'], []))

    def test_badConfiguration(self) -> None:
        """
        All errors go to standard error, those in TLS policies too; nothing else is written.
        """
        self.file.write_text("soft_bounce = 1\nsmtp_tls_policy_maps = inline:{example.com=must}\n")
        status, lines, errors = self.conf("--check", "-o", "session_limit=x")
        self.assertEqual((status, lines), (78, []))
        self.assertEqual(errors[0], f"{self.file}:1: soft_bounce: neither yes nor no: 1 (allowed: yes, no)")
        self.assertEqual(errors[1], "command line: session_limit: not a whole number: x (allowed: 1 or more)")
        self.assertTrue(errors[2].startswith(f"{self.file}:2: smtp_tls_policy_maps: not a level: must"), errors[2])
        self.assertEqual(len(errors), 3)
        self.assertEqual(self.conf("soft_bounce")[0], 78)

    def test_checkAsStart(self) -> None:
        """
        C{--check} finds what a start would stumble over: endpoints too.
        """
        status, lines, errors = self.conf("--check", "-o", "listen=tcp:99999")
        self.assertEqual((status, lines, len(errors)), (78, [], 1))
        self.assertTrue(errors[0].startswith("command line: listen: not an endpoint of Twisted (ports end at"), errors)

    def test_oneWay(self) -> None:
        """
        C{-n}, C{-d} and C{--check} exclude each other.
        """
        with contextlib.redirect_stderr(io.StringIO()), self.assertRaises(SystemExit) as caught:
            main(["conf", "-n", "-d"])
        self.assertEqual(caught.exception.code, 2)
