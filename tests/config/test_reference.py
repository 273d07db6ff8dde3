"""
Tests of C{smtpreuse.config.reference}, C{smtpreuse.config.parameters} and C{smtpreuse.config.postfix}.
"""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from smtpreuse.config.load import default_settings, read_settings
from smtpreuse.config.maincf import parse
from smtpreuse.config.parameters import BY_NAME, PARAMETERS
from smtpreuse.config.postfix import POSTFIX_NAMES
from smtpreuse.config.reference import render_main_cf, render_markdown, write

TOP = Path(__file__).parents[2]
OURS = {
    "content_cache_size",
    "control_socket",
    "dns_servers",
    "listen",
    "maillog_time",
    "resting_session_limit",
    "resting_session_limit_per_key",
    "session_limit",
    "shutdown_timeout",
}


class ReferenceTests(SynchronousTestCase):
    """
    What people read about parameters comes from the table, and is up to date.
    """

    def test_upToDate(self) -> None:
        """
        C{conf/main.cf} and C{docs/parameters.md} are what the table gives.
        """
        self.assertEqual((TOP / "conf/main.cf").read_text(), render_main_cf())
        self.assertEqual((TOP / "docs/parameters.md").read_text(), render_markdown())

    def test_write(self) -> None:
        """
        Both files are written below the directory that is named.
        """
        top = Path(self.mktemp())
        for name in ("conf", "docs"):
            (top / name).mkdir(parents=True)
        write(top)
        self.assertEqual((top / "conf/main.cf").read_text(), render_main_cf())
        self.assertEqual((top / "docs/parameters.md").read_text(), render_markdown())

    def test_shippedFile(self) -> None:
        """
        The shipped C{main.cf} sets nothing but a queue directory that any user can make.
        """
        settings = read_settings(str(TOP / "conf/main.cf"), (), {})
        self.assertEqual(settings.queue_directory, str(TOP / "spool"))
        self.assertEqual([name for name in BY_NAME if settings.source(name) != "default"], ["queue_directory"])

    def test_commentedDefaults(self) -> None:
        """
        With its comment signs taken off, the shipped file says what is in force without it.
        """
        names = tuple(f"#{parameter.name} =" for parameter in PARAMETERS if not parameter.computed)
        lines = [line[1:] for line in render_main_cf().splitlines() if line.startswith(names)]
        path = self.mktemp()
        Path(path).write_text("\n".join([*lines, "queue_directory = /var/spool/smtpreuse"]))
        self.assertEqual(len(lines) + 3, len(PARAMETERS))
        self.assertEqual(read_settings(path, (), {}), default_settings())

    def test_everyParameter(self) -> None:
        """
        Every parameter is in both, with its meaning.
        """
        main_cf, markdown = render_main_cf(), render_markdown()
        set_or_not = {assignment.name for assignment in parse(main_cf.replace("\n#", "\n"), "x")[0]}
        for parameter in PARAMETERS:
            self.assertIn(parameter.name, set_or_not)
            self.assertIn(f"| `{parameter.name}` |", markdown)
            later = " Takes effect at the next start." if parameter.at_start else ""
            self.assertIn(f"| {parameter.meaning}{later} |", markdown)
            self.assertIn(parameter.meaning.split()[0], main_cf)

    def test_width(self) -> None:
        """
        Lines of C{conf/main.cf} fit on a terminal.
        """
        self.assertEqual([line for line in render_main_cf().splitlines() if len(line) > 110], [])


class ParameterTests(SynchronousTestCase):
    """
    The table holds each parameter once, under Postfix's name where it is one of Postfix's.
    """

    def test_names(self) -> None:
        """
        No name stands twice, no meaning is missing, and every meaning is one line.
        """
        self.assertEqual(len(BY_NAME), len(PARAMETERS))
        self.assertEqual([p.name for p in PARAMETERS if not p.meaning.endswith(".") or "\n" in p.meaning], [])

    def test_postfixNames(self) -> None:
        """
        A name is in the table or among those that Postfix has beside it, never both.
        """
        self.assertEqual(POSTFIX_NAMES & set(BY_NAME), set())
        for name in ("smtp_tls_CAfile", "lmtp_tls_security_level", "smtp_sasl_password_maps", "compatibility_level"):
            self.assertIn(name, POSTFIX_NAMES)
        self.assertEqual({f"lmtp_{name[5:]}" for name in BY_NAME if name.startswith("smtp_")} - POSTFIX_NAMES, set())
        self.assertEqual(POSTFIX_NAMES & OURS, set())

    def test_ours(self) -> None:
        """
        Our own parameters are in the table.
        """
        self.assertEqual(OURS - set(BY_NAME), set())

    def test_defaults(self) -> None:
        """
        Where a default is not Postfix's it is the one that was decided on.
        """
        self.assertEqual(
            {
                name: BY_NAME[name].default
                for name in (
                    "smtp_tls_connection_reuse",
                    "smtp_tls_security_level",
                    "smtp_tls_loglevel",
                    "smtp_connection_cache_time_limit",
                    "smtp_line_length_limit",
                    "session_limit",
                    "resting_session_limit",
                    "resting_session_limit_per_key",
                    "shutdown_timeout",
                    "content_cache_size",
                    "smtpd_client_event_limit_exceptions",
                    "listen",
                    "control_socket",
                    "queue_directory",
                )
            },
            {
                "smtp_tls_connection_reuse": "yes",
                "smtp_tls_security_level": "may",
                "smtp_tls_loglevel": "1",
                "smtp_connection_cache_time_limit": "15s",
                "smtp_line_length_limit": "0",
                "session_limit": "1000",
                "resting_session_limit": "500",
                "resting_session_limit_per_key": "20",
                "shutdown_timeout": "30s",
                "content_cache_size": "16M",
                "smtpd_client_event_limit_exceptions": "$mynetworks",
                "listen": "tcp:2525:interface=127.0.0.1",
                "control_socket": "$queue_directory/control",
                "queue_directory": "/var/spool/smtpreuse",
            },
        )
